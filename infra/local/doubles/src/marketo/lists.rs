//! Static lists in the lead database: members, and who they are.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::activities::{ADD_TO_LIST, REMOVE_FROM_LIST};
use super::faults::message_of;
use super::leads::{bad_id, close, push_lead};
use super::{BATCH, ListState, Marketo, Outcome, Refusal, page_size, page_token, position_of};
use crate::wire::{Params, iso, push_json, push_number};

#[derive(Deserialize)]
struct Input {
    input: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: u64,
}

const NOT_FOUND: (u16, &str) = (1004, "Lead not found");
const NOT_IN_LIST: (u16, &str) = (1015, "Lead not in list");

impl Marketo {
    /// Answers `added` for those who are in already, and skips those who do not exist.
    pub(super) fn list_add(&mut self, now: u64, list: u64, params: &Params<'_>, input: Option<&[u8]>) -> Outcome {
        let ids = match input {
            Some(body) => ids_of_body(body)?,
            None => ids_of_params(params)?,
        };
        let state = self.state.lists.get_mut(&list).ok_or_else(|| Refusal::no_list(list))?;
        let (leads, refused) = (&self.state.leads, &self.refused);
        let mut joined = Vec::with_capacity(ids.len());
        let out = per_record(&ids, |id| {
            if !leads.contains_key(&id) {
                return Err(NOT_FOUND);
            }
            refusal_of(refused, id)?;
            if state.members.insert(id) {
                joined.push(id);
            }
            Ok("added")
        });
        self.moved(now, ADD_TO_LIST, list, &joined);
        Ok(self.success(&out).with_ids(ids.len()))
    }

    /// The ids stand in the query; a body is not looked at (instances differ, so ours takes the stricter way).
    pub(super) fn list_remove(&mut self, now: u64, list: u64, params: &Params<'_>) -> Outcome {
        let ids = ids_of_params(params)?;
        let state = self.state.lists.get_mut(&list).ok_or_else(|| Refusal::no_list(list))?;
        let (leads, refused) = (&self.state.leads, &self.refused);
        let mut left = Vec::with_capacity(ids.len());
        let out = per_record(&ids, |id| {
            if !leads.contains_key(&id) {
                return Err(NOT_FOUND);
            }
            refusal_of(refused, id)?;
            if !state.members.remove(&id) {
                return Err(NOT_IN_LIST);
            }
            left.push(id);
            Ok("removed")
        });
        self.moved(now, REMOVE_FROM_LIST, list, &left);
        Ok(self.success(&out).with_ids(ids.len()))
    }

    pub(super) fn is_member(&mut self, list: u64, params: &Params<'_>) -> Outcome {
        let ids = ids_of_params(params)?;
        let state = self.state.lists.get(&list).ok_or_else(|| Refusal::no_list(list))?;
        let leads = &self.state.leads;
        let out = per_record(&ids, |id| {
            if !leads.contains_key(&id) {
                return Err(NOT_FOUND);
            }
            Ok(if state.members.contains(&id) { "memberof" } else { "notmemberof" })
        });
        Ok(self.success(&out).with_ids(ids.len()))
    }

    /// Pages count members from the start of the list as it is now, so that people move between pages when the
    /// list changes in between.
    pub(super) fn read_members(&mut self, list: u64, params: &Params<'_>) -> Outcome {
        let fields = self.fields(params)?;
        let size = page_size(params, "batchSize", BATCH, BATCH)?;
        let from = params.filled("nextPageToken").map_or(Ok(0), |token| position_of('M', token))?;
        let state = self.state.lists.get(&list).ok_or_else(|| Refusal::no_list(list))?;
        let mut out = "\"result\":[".to_owned();
        for id in state.members.iter().skip(from).take(size) {
            if let Some(lead) = self.state.leads.get(id) {
                push_lead(&mut out, *id, lead, &fields);
                out.push(',');
            }
        }
        close(&mut out, ']');
        if from + size < state.members.len() {
            out.push_str(",\"nextPageToken\":");
            push_json(&mut out, &page_token('M', from + size));
        }
        Ok(self.success(&out))
    }

    /// By ids, names, workspace, or all. A comma parts names, so a name that holds one cannot be asked for.
    pub(super) fn query_lists(&mut self, params: &Params<'_>) -> Outcome {
        let ids = if params.filled("id").is_some() { Some(ids_of_params(params)?) } else { None };
        let names: Vec<&str> = params.all("name").flat_map(|names| names.split(',')).map(str::trim).collect();
        let workspace = params.filled("workspaceName");
        let size = page_size(params, "batchSize", BATCH, BATCH)?;
        let from = params.filled("nextPageToken").map_or(Ok(0), |token| position_of('Q', token))?;
        let asked = ids.as_ref().map_or(0, Vec::len);
        let lists = &self.state.lists;
        let named = |name: &str| names.is_empty() || names.contains(&name);
        let found: Box<dyn Iterator<Item = (u64, &ListState)>> = match ids {
            Some(ids) => {
                let ids = ids.into_iter().collect::<BTreeSet<_>>().into_iter();
                Box::new(
                    ids.filter_map(|id| lists.get(&id).map(|list| (id, list))).filter(|(_, list)| named(&list.name)),
                )
            }
            None if names.is_empty() => Box::new(lists.iter().map(|(id, list)| (*id, list))),
            None => {
                let ids = names.iter().filter_map(|name| self.lists_by_name.get(*name)).flatten();
                let ids = ids.copied().collect::<BTreeSet<_>>().into_iter();
                Box::new(ids.filter_map(|id| lists.get(&id).map(|list| (id, list))))
            }
        };
        let mut found = found.filter(|(_, list)| workspace.is_none_or(|wanted| list.workspace == wanted)).skip(from);
        let rows: Vec<String> = found.by_ref().take(size).map(|(id, list)| row(id, list)).collect();
        let mut out = format!("\"result\":[{}]", rows.join(","));
        if found.next().is_some() {
            out.push_str(",\"nextPageToken\":");
            push_json(&mut out, &page_token('Q', from + size));
        }
        drop(found);
        Ok(self.success(&out).with_ids(asked))
    }

    pub(super) fn list_by_id(&mut self, id: u64) -> Outcome {
        let list = self.state.lists.get(&id).ok_or_else(|| Refusal::no_list(id))?;
        let row = row(id, list);
        Ok(self.success(&format!("\"result\":[{row}]")).with_ids(1))
    }
}

fn row(id: u64, list: &ListState) -> String {
    let mut out = format!("{{\"id\":{id},\"name\":");
    push_json(&mut out, &list.name);
    if !list.description.is_empty() {
        out.push_str(",\"description\":");
        push_json(&mut out, &list.description);
    }
    out.push_str(",\"workspaceName\":");
    push_json(&mut out, &list.workspace);
    out.push_str(r#","createdAt":""#);
    out.push_str(&iso(list.created_ms));
    out.push_str(r#"","updatedAt":""#);
    out.push_str(&iso(list.updated_ms));
    out.push_str("\"}");
    out
}

/// `id=1&id=2` or `id=1,2`.
fn ids_of_params(params: &Params<'_>) -> Result<Vec<u64>, Refusal> {
    let mut ids = Vec::new();
    for text in params.all("id").flat_map(|ids| ids.split(',')).filter(|text| !text.is_empty()) {
        ids.push(text.trim().parse::<u64>().map_err(|_| bad_id())?);
    }
    bounded(ids)
}

fn ids_of_body(body: &[u8]) -> Result<Vec<u64>, Refusal> {
    let input: Input = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => bad_id(),
        _ => Refusal::new(609, "Invalid JSON"),
    })?;
    bounded(input.input.into_iter().map(|row| row.id).collect())
}

fn bounded(ids: Vec<u64>) -> Result<Vec<u64>, Refusal> {
    match ids.len() {
        0 => Err(Refusal::missing("id")),
        1..=BATCH => Ok(ids),
        _ => Err(Refusal(1003, format!("Too many values for parameter 'id': at most {BATCH}"))),
    }
}

/// Whether a test has Marketo refuse this lead.
fn refusal_of(refused: &HashMap<u64, u16>, id: u64) -> Result<(), (u16, &'static str)> {
    if refused.is_empty() {
        return Ok(());
    }
    refused.get(&id).map_or(Ok(()), |code| Err((*code, message_of(*code))))
}

/// One row an id, in the order asked.
fn per_record(ids: &[u64], mut judge: impl FnMut(u64) -> Result<&'static str, (u16, &'static str)>) -> String {
    let mut out = String::with_capacity(32 + 40 * ids.len());
    out.push_str("\"result\":[");
    for id in ids {
        out.push_str("{\"id\":");
        push_number(&mut out, *id);
        match judge(*id) {
            Ok(status) => {
                out.push_str(",\"status\":\"");
                out.push_str(status);
                out.push_str("\"},");
            }
            Err((code, message)) => {
                out.push_str(",\"status\":\"skipped\",\"reasons\":[{\"code\":\"");
                push_number(&mut out, u64::from(code));
                out.push_str("\",\"message\":\"");
                out.push_str(message);
                out.push_str("\"}]},");
            }
        }
    }
    close(&mut out, ']');
    out
}
