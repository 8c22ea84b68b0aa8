//! Static lists: their members, and the lists themselves.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::MARKETO_BATCH;
use domain::list::{Answer as ListAnswer, LEAD_NOT_FOUND, Refusal};
use domain::{LeadId, LeadSet, ListId};
use http::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, code, number, text};
use crate::class::{Class, class_of_person};
use crate::{Call, CallError, Effect, FORM, JSON, LeadRow, Marketo, Slot, query};

/// Marketo's answer for the people of one call, by lead. Rows are read by their id, never by position; a lead
/// without a row has no answer.
pub type RowAnswer = BTreeMap<LeadId, ListAnswer>;

/// Who of some people is in a list. Who is in none of the three sets has no answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Membership {
    /// In the list.
    pub members: LeadSet,
    /// Not in the list.
    pub not_members: LeadSet,
    /// Deleted, merged into another, or not visible to the API user (1004).
    pub gone: LeadSet,
}

/// Lists of one page when a folder is browsed (Marketo, "static lists": at most 200).
const FOLDER_PAGE: usize = 200;

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
    /// Its workspace, where Marketo tells: the lead database does, the asset API does not.
    pub workspace: Option<String>,
}

impl ListAsset {
    fn read(row: &Value) -> Option<Self> {
        Some(Self {
            id: number(&row["id"])?,
            name: text(&row["name"])?,
            description: text(&row["description"]).unwrap_or_default(),
            folder_id: number(&row["folder"]["id"]),
            workspace: text(&row["workspaceName"]).or_else(|| text(&row["workspace"])),
        })
    }
}

/// Each once.
fn distinct(leads: &[LeadId]) -> BTreeSet<LeadId> {
    let leads: BTreeSet<LeadId> = leads.iter().copied().collect();
    debug_assert!(leads.len() <= MARKETO_BATCH, "too many for one call");
    leads
}

fn ids(leads: &[LeadId]) -> String {
    distinct(leads).iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn status(row: &Value) -> String {
    text(&row["status"]).unwrap_or_default().to_ascii_lowercase()
}

/// Reads the rows of an add or a removal. A row that neither says that it is done nor why not is no answer.
fn rows(answer: &Answer, now: u64, done: &[&str], removal: bool) -> RowAnswer {
    let mut rows = RowAnswer::new();
    for row in &answer.result {
        let Some(lead) = number(&row["id"]) else { continue };
        let (status, code) = (status(row), code(&row["reasons"]));
        let already = removal && code.as_deref().is_some_and(|code| class_of_person(code) == Class::Done);
        let answer = if done.contains(&status.as_str()) || already {
            ListAnswer::Done
        } else if code.is_some() || status == "skipped" {
            let code = code.unwrap_or_default();
            ListAnswer::Refused(Refusal { code, at: now, request_id: answer.request_id.clone() })
        } else {
            continue;
        };
        rows.insert(lead, answer);
    }
    rows
}

fn membership(answer: &Answer) -> Membership {
    let mut found = Membership::default();
    for row in &answer.result {
        let Some(lead) = number(&row["id"]) else { continue };
        match status(row).as_str() {
            "memberof" => found.members.insert(lead),
            "notmemberof" => found.not_members.insert(lead),
            _ if code(&row["reasons"]).as_deref() == Some(LEAD_NOT_FOUND) => found.gone.insert(lead),
            _ => continue,
        };
    }
    found
}

impl Marketo<'_> {
    /// Adds people to a list, at most 300.
    pub async fn add(&self, slot: Slot, list: ListId, leads: &[LeadId]) -> Result<RowAnswer, CallError> {
        let input: Vec<Value> = distinct(leads).iter().map(|id| json!({"id": id})).collect();
        let path = format!("/rest/v1/lists/{list}/leads.json");
        let call = Call {
            effect: Effect::Writes,
            method: Method::POST,
            path_and_query: &path,
            body: Some((JSON, json!({"input": input}).to_string().into_bytes())),
        };
        let answer = self.call(slot, call).await?;
        Ok(rows(&answer, self.deps.now(), &["added", "memberof"], false))
    }

    /// Takes people out of a list, at most 300. Somebody who is not in it counts as taken out.
    pub async fn remove(&self, slot: Slot, list: ListId, leads: &[LeadId]) -> Result<RowAnswer, CallError> {
        let path = format!("/rest/v1/lists/{list}/leads.json?id={}", ids(leads));
        let call = Call { effect: Effect::Writes, method: Method::DELETE, path_and_query: &path, body: None };
        let answer = self.call(slot, call).await?;
        Ok(rows(&answer, self.deps.now(), &["removed", "notmemberof"], true))
    }

    /// Who of the people, at most 300, is in the list now.
    pub async fn membership(&self, slot: Slot, list: ListId, leads: &[LeadId]) -> Result<Membership, CallError> {
        let path = format!("/rest/v1/lists/{list}/leads/ismember.json?id={}", ids(leads));
        Ok(membership(&self.get(slot, &path).await?))
    }

    /// A page of a list's members, at most 300, and the token of the next; with their tokens and, where the instance has
    /// them and `fields` says so, their ECIDs. Whoever moves between pages may come twice, or not at all.
    pub async fn members_page(
        &self,
        slot: Slot,
        list: ListId,
        fields: &str,
        next: Option<&str>,
    ) -> Result<(Vec<LeadRow>, Option<String>), CallError> {
        let mut pairs = vec![("batchSize", "300"), ("fields", fields)];
        pairs.extend(next.map(|token| ("nextPageToken", token)));
        let answer = self.get(slot, &format!("/rest/v1/lists/{list}/leads.json?{}", query(&pairs))).await?;
        Ok((answer.result.iter().filter_map(LeadRow::read).collect(), answer.next))
    }

    /// A list by its id.
    pub async fn list(&self, slot: Slot, list: ListId) -> Result<Option<ListAsset>, CallError> {
        match self.get(slot, &format!("/rest/asset/v1/staticList/{list}.json")).await {
            Ok(answer) => Ok(answer.result.first().and_then(ListAsset::read)),
            Err(CallError::Refused { code, .. }) if matches!(code.as_str(), "702" | "1013" | "610") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A list by its exact name.
    pub async fn list_named(&self, slot: Slot, name: &str) -> Result<Option<ListAsset>, CallError> {
        let path = format!("/rest/asset/v1/staticList/byName.json?{}", query(&[("name", name)]));
        match self.get(slot, &path).await {
            Ok(answer) => Ok(answer.result.iter().filter_map(ListAsset::read).find(|list| list.name == name)),
            Err(error) if error.class() == Some(Class::NothingFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every list of exactly this name, in any folder and workspace that the API user may see. A name with a comma
    /// is not found this way: see [`Marketo::lists_in_folder`] and [`Marketo::lists_page`].
    pub async fn lists_named(&self, slot: Slot, name: &str) -> Result<Vec<ListAsset>, CallError> {
        let mut found = Vec::new();
        let mut page = self.lists_where(slot, &[("name", name)]).await?;
        loop {
            found.extend(page.0.into_iter().filter(|list| list.name == name));
            let Some(next) = page.1 else { return Ok(found) };
            page = self.lists_where(self.slot().await?, &[("name", name), ("nextPageToken", &next)]).await?;
        }
    }

    /// The lists of exactly this name in a folder and below it, by browsing: the way to find a name with a comma.
    pub async fn lists_in_folder(&self, slot: Slot, folder: u64, name: &str) -> Result<Vec<ListAsset>, CallError> {
        let folder = json!({"id": folder, "type": "Folder"}).to_string();
        let mut slot = slot;
        let mut offset = 0;
        let mut found = Vec::new();
        loop {
            let (from, size) = (offset.to_string(), FOLDER_PAGE.to_string());
            let pairs = [("folder", folder.as_str()), ("offset", &from), ("maxReturn", &size)];
            let rows = match self.get(slot, &format!("/rest/asset/v1/staticLists.json?{}", query(&pairs))).await {
                Ok(answer) => answer.result,
                Err(error) if error.class() == Some(Class::NothingFound) => Vec::new(),
                Err(error) => return Err(error),
            };
            found.extend(rows.iter().filter_map(ListAsset::read).filter(|list| list.name == name));
            if rows.len() < FOLDER_PAGE {
                return Ok(found);
            }
            offset += rows.len();
            slot = self.slot().await?;
        }
    }

    /// One page, at most 300, of all lists, and the token of the next.
    pub async fn lists_page(
        &self,
        slot: Slot,
        next: Option<&str>,
    ) -> Result<(Vec<ListAsset>, Option<String>), CallError> {
        let token = next.map(|next| ("nextPageToken", next));
        self.lists_where(slot, token.as_slice()).await
    }

    async fn lists_where(
        &self,
        slot: Slot,
        pairs: &[(&str, &str)],
    ) -> Result<(Vec<ListAsset>, Option<String>), CallError> {
        let pairs = [&[("batchSize", "300")], pairs].concat();
        match self.get(slot, &format!("/rest/v1/lists.json?{}", query(&pairs))).await {
            Ok(answer) => Ok((answer.result.iter().filter_map(ListAsset::read).collect(), answer.next)),
            Err(error) if error.class() == Some(Class::NothingFound) => Ok((Vec::new(), None)),
            Err(error) => Err(error),
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
        let call = Call {
            effect: Effect::Writes,
            method: Method::POST,
            path_and_query: "/rest/asset/v1/staticLists.json",
            body: Some((FORM, form.into_bytes())),
        };
        let answer = self.call(slot, call).await?;
        let list = answer.result.first().and_then(ListAsset::read);
        list.ok_or_else(|| CallError::Unknown("a list was made and not shown".to_owned()))
    }

    /// The folders that may hold lists, as Marketo's rows.
    pub async fn list_folders(&self, slot: Slot) -> Result<Vec<Value>, CallError> {
        Ok(self.get(slot, "/rest/asset/v1/folders.json?maxReturn=200").await?.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: Value) -> Answer {
        let Value::Array(result) = result else { panic!("rows") };
        Answer { result, next: None, more: false, request_id: "r".to_owned() }
    }

    fn refused(code: &str) -> ListAnswer {
        ListAnswer::Refused(Refusal { code: code.to_owned(), at: 7, request_id: "r".to_owned() })
    }

    #[test]
    fn partial_success_is_read_by_id_in_any_order_and_never_by_position() {
        let answer = answer(json!([
            {"status": "added"},
            {"id": 9, "status": "skipped", "reasons": [{"code": 1004, "message": "Lead not found"}]},
            {"id": "3", "status": "Added"},
            {"id": 4, "status": "memberOf"},
            {"id": 5, "status": "skipped", "reasons": {"code": "1008"}},
            {"id": 6, "status": "skipped"},
            {"id": 7, "status": "pondered"},
            {"id": 8, "status": "skipped", "reasons": [{"code": "1015"}]},
        ]));
        let expected = [
            (3, ListAnswer::Done),
            (4, ListAnswer::Done),
            (5, refused("1008")),
            (6, refused("")),
            // Not in the list: of an addition that is no success.
            (8, refused("1015")),
            (9, refused("1004")),
        ];
        assert_eq!(rows(&answer, 7, &["added", "memberof"], false), RowAnswer::from(expected));
    }

    #[test]
    fn whoever_is_not_in_the_list_counts_as_taken_out() {
        let answer = answer(json!([
            {"id": 1, "status": "REMOVED"},
            {"id": 2, "status": "skipped", "reasons": [{"code": "1015", "message": "Lead not in list"}]},
            {"id": 3, "status": "skipped", "reasons": [{"code": "1004"}]},
            {"id": 4, "status": "added"},
        ]));
        let expected = [(1, ListAnswer::Done), (2, ListAnswer::Done), (3, refused("1004"))];
        assert_eq!(rows(&answer, 7, &["removed", "notmemberof"], true), RowAnswer::from(expected));
    }

    #[test]
    fn the_gone_are_told_from_those_who_are_not_members() {
        let found = membership(&answer(json!([
            {"id": 3, "status": "notmemberof"},
            {"id": 1, "status": "MemberOf"},
            {"id": 9, "status": "skipped", "reasons": [{"code": "1004"}]},
            {"id": 8, "status": "skipped", "reasons": [{"code": "1008"}]},
            {"status": "memberof"},
        ])));
        let set = |leads: &[LeadId]| leads.iter().copied().collect::<LeadSet>();
        assert_eq!(found, Membership { members: set(&[1]), not_members: set(&[3]), gone: set(&[9]) });
    }

    #[test]
    fn a_list_is_read_from_either_api() {
        let database = ListAsset::read(&json!({"id": 1, "name": "A", "workspaceName": "EU"})).unwrap();
        assert_eq!((database.workspace.as_deref(), database.folder_id), (Some("EU"), None));
        let asset = json!({"id": "2", "name": "B", "description": "d", "folder": {"id": 12, "type": "Folder"}});
        let asset = ListAsset::read(&asset).unwrap();
        assert_eq!((asset.id, asset.workspace, asset.folder_id), (2, None, Some(12)));
    }
}
