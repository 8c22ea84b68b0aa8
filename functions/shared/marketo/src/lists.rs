//! Static lists: their members, and the lists themselves.

use std::collections::{BTreeMap, BTreeSet};

use domain::list::{Answer as ListAnswer, LEAD_NOT_IN_LIST, Refusal};
use domain::{LeadId, LeadSet, ListId};
use http::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, number, text};
use crate::leads::reading;
use crate::{CallError, LeadRow, Marketo, Slot, query};

/// Marketo's answer for the people of one call, by lead. Rows are read by their id, never by position; a lead
/// without a row has no answer.
pub type RowAnswer = BTreeMap<LeadId, ListAnswer>;

/// A static list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListAsset {
    /// Marketo's id.
    pub id: ListId,
    /// Its name.
    pub name: String,
    /// Its description: ours bear the sync's id.
    pub description: String,
    /// Its folder, where Marketo tells.
    pub folder_id: Option<u64>,
}

impl ListAsset {
    fn read(row: &Value) -> Option<Self> {
        Some(Self {
            id: number(&row["id"])?,
            name: text(&row["name"])?,
            description: text(&row["description"]).unwrap_or_default(),
            folder_id: number(&row["folder"]["id"]),
        })
    }
}

fn ids(leads: &[LeadId]) -> String {
    leads.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Marketo<'_> {
    /// Adds people to a list, at most 300.
    pub async fn add(&self, slot: Slot, list: ListId, leads: &[LeadId]) -> Result<RowAnswer, CallError> {
        let input: Vec<Value> = leads.iter().map(|id| json!({"id": id})).collect();
        let body = json!({"input": input}).to_string().into_bytes();
        let path = format!("/rest/v1/lists/{list}/leads.json");
        let answer = self.call(slot, Method::POST, &path, Some(("application/json", body))).await?;
        Ok(self.rows(&answer, &["added", "memberof"]))
    }

    /// Takes people out of a list, at most 300. Somebody who is not in it counts as taken out.
    pub async fn remove(&self, slot: Slot, list: ListId, leads: &[LeadId]) -> Result<RowAnswer, CallError> {
        let path = format!("/rest/v1/lists/{list}/leads.json?id={}", ids(leads));
        let answer = self.call(slot, Method::DELETE, &path, None).await?;
        Ok(self.rows(&answer, &["removed"]))
    }

    fn rows(&self, answer: &Answer, done: &[&str]) -> RowAnswer {
        let mut rows = RowAnswer::new();
        for row in &answer.result {
            let Some(lead) = number(&row["id"]) else { continue };
            let status = row["status"].as_str().unwrap_or_default();
            let code = row["reasons"].get(0).and_then(|reason| text(&reason["code"])).unwrap_or_default();
            let answer = if done.contains(&status) || code == LEAD_NOT_IN_LIST {
                ListAnswer::Done
            } else {
                ListAnswer::Refused(Refusal { code, at: self.deps.now(), request_id: answer.request_id.clone() })
            };
            rows.insert(lead, answer);
        }
        rows
    }

    /// Those of the people, at most 300, who are in the list now.
    pub async fn who_is_member(
        &self,
        slot: Slot,
        list: ListId,
        leads: &[LeadId],
    ) -> Result<BTreeSet<LeadId>, CallError> {
        let path = format!("/rest/v1/lists/{list}/leads/ismember.json?id={}", ids(leads));
        let answer = reading(self.get(slot, &path).await)?;
        let members = answer.result.iter().filter(|row| row["status"] == "memberof");
        Ok(members.filter_map(|row| number(&row["id"])).collect())
    }

    /// All members of a list.
    pub async fn members(&self, list: ListId) -> Result<LeadSet, CallError> {
        let rows = self.member_rows(list, "id").await?;
        Ok(rows.iter().filter_map(|row| number(&row["id"])).collect())
    }

    /// All members of a list with their tokens and, where the instance has them, their ECIDs.
    pub async fn members_with_cookies(&self, list: ListId, ecids: bool) -> Result<Vec<LeadRow>, CallError> {
        let fields = if ecids { "id,email,cookies,ecids" } else { "id,email,cookies" };
        let rows = self.member_rows(list, fields).await?;
        Ok(rows.iter().filter_map(LeadRow::read).collect())
    }

    /// Page by page; whoever moves between pages may come twice.
    async fn member_rows(&self, list: ListId, fields: &str) -> Result<Vec<Value>, CallError> {
        let mut rows = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut pairs = vec![("batchSize", "300"), ("fields", fields)];
            if let Some(token) = &next {
                pairs.push(("nextPageToken", token));
            }
            let path = format!("/rest/v1/lists/{list}/leads.json?{}", query(&pairs));
            let answer = reading(self.get(self.slot().await?, &path).await)?;
            rows.extend(answer.result);
            next = answer.next;
            if next.is_none() {
                return Ok(rows);
            }
        }
    }

    /// A list by its id.
    pub async fn list(&self, slot: Slot, list: ListId) -> Result<Option<ListAsset>, CallError> {
        let answer = reading(self.get(slot, &format!("/rest/asset/v1/staticList/{list}.json")).await);
        match answer {
            Ok(answer) => Ok(answer.result.first().and_then(ListAsset::read)),
            Err(CallError::Refused { code, .. }) if matches!(code.as_str(), "702" | "1013" | "610") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A list by its exact name.
    pub async fn list_named(&self, slot: Slot, name: &str) -> Result<Option<ListAsset>, CallError> {
        let path = format!("/rest/asset/v1/staticList/byName.json?{}", query(&[("name", name)]));
        match reading(self.get(slot, &path).await) {
            Ok(answer) => Ok(answer.result.iter().filter_map(ListAsset::read).find(|list| list.name == name)),
            Err(CallError::Refused { code, .. }) if code == "702" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists whose name contains `search`, without regard to case; at most `limit`.
    pub async fn lists(&self, search: &str, limit: usize) -> Result<Vec<ListAsset>, CallError> {
        let search = search.to_lowercase();
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut pairs = vec![("batchSize", "300")];
            if let Some(token) = &next {
                pairs.push(("nextPageToken", token));
            }
            let answer =
                reading(self.get(self.slot().await?, &format!("/rest/v1/lists.json?{}", query(&pairs))).await)?;
            let lists = answer.result.iter().filter_map(ListAsset::read);
            found.extend(lists.filter(|list| list.name.to_lowercase().contains(&search)));
            next = answer.next;
            if next.is_none() || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Makes a list. Not safe to repeat: look for it by name before and after.
    pub async fn create_list(
        &self,
        slot: Slot,
        name: &str,
        folder: u64,
        description: &str,
    ) -> Result<ListAsset, CallError> {
        let folder = json!({"id": folder, "type": "Folder"}).to_string();
        let form = query(&[("folder", &folder), ("name", name), ("description", description)]);
        let body = Some(("application/x-www-form-urlencoded", form.into_bytes()));
        let answer = self.call(slot, Method::POST, "/rest/asset/v1/staticLists.json", body).await?;
        let list = answer.result.first().and_then(ListAsset::read);
        list.ok_or_else(|| CallError::Unknown("a list was made and not shown".to_owned()))
    }

    /// The folders that may hold lists, as Marketo's rows.
    pub async fn list_folders(&self, slot: Slot) -> Result<Vec<Value>, CallError> {
        let answer = reading(self.get(slot, "/rest/asset/v1/folders.json?maxReturn=200").await)?;
        Ok(answer.result)
    }
}
