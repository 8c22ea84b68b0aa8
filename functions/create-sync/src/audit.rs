//! Who did what, and when.
//!
//! The row is written once the request is done, for only then is it known what was done. Whoever dies in between leaves a
//! change without a row, and a row that cannot be written does not undo a change: the answer says what is so, and a log line
//! at level ERROR says what the log lacks. Nobody is told that a change failed which did not.

use domain::said::Said;
use ports::{Expect, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use state::runs::newest_first;
use state::{Deps, Step, doc, time};

use crate::csv;
use crate::paging::Paging;
use crate::problem::{Answer, Problem};
use crate::routes::{ROUTES, Request, Response, fits};

/// The partition of the rows, in the table of syncs: the newest first. They are kept for ever.
const AUDIT: &str = "audit";
/// Bytes of a row's detail, at most; of a larger one only the names of its members are kept. Ours.
const DETAIL_BYTES: usize = 4_000;
/// What an import is called.
const IMPORT: &str = "settings.import";
/// Attempts to write a row.
const ATTEMPTS: usize = 3;

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    v: u8,
    id: String,
    /// When, in ms.
    at: u64,
    who: String,
    what: String,
    /// The sync, feed, delivery, job or subscription that it was about.
    subject: Option<String>,
    detail: Value,
    status: u16,
}

/// What a request does, if it changes anything; previews, explanations and estimates do not.
pub(crate) fn deed(request: &Request) -> Option<String> {
    if matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS") {
        return None;
    }
    let parts = parts(request);
    let body = || request.json().unwrap_or_default();
    let deed = match parts.as_slice() {
        ["syncs", "preview"] | ["explain"] => return None,
        ["syncs", _, "compare"] if body()["start"] != true => return None,
        ["import"] if body()["apply"] != true => return None,
        ["syncs"] => "sync.create",
        ["syncs", _, order] => return Some(format!("sync.{}", order.replace('-', "_"))),
        ["subscription"] => "subscription.change",
        ["alerts"] => "alerts.change",
        ["subscription", "hint-secrets"] => "subscription.hint_secret",
        ["people", "erase"] => "people.erase",
        ["feeds", _] => "feed.change",
        ["imports", "decide"] => "delivery.decide",
        ["import"] => IMPORT,
        // Whatever comes later is noted too, by its route.
        _ => {
            let route = ROUTES.iter().find(|(method, path, _)| *method == request.method && fits(path, &parts));
            return route.map(|(method, path, _)| format!("{} {path}", method.to_lowercase()));
        }
    };
    Some(deed.to_owned())
}

fn parts(request: &Request) -> Vec<&str> {
    request.path.trim_end_matches('/').split('/').skip(1).collect()
}

/// Notes a request that was answered.
pub(crate) async fn note(deps: &Deps, request: &Request, response: &Response) {
    if response.status >= 400 {
        return;
    }
    let Some(what) = deed(request) else { return };
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let (subject, detail) = about(request, &answer);
    let at = deps.now();
    let who = request.caller().name;
    let imported = if what == IMPORT { imported(&answer) } else { Vec::new() };
    for (what, subject, detail) in [(what, subject, detail)].into_iter().chain(imported) {
        let (id, who, detail) = (deps.fresh_id(), who.clone(), small(detail));
        let row = Row { v: 1, id, at, who, what, subject, detail, status: response.status };
        if let Err(failure) = write(deps, &row).await {
            // Who it was is no matter of the log: it may be somebody's address.
            let Row { what, subject, .. } = row;
            tracing::error!(audit.what = what, audit.subject = subject, reason = %failure, "a change has no row in the audit log");
        }
    }
}

/// What an import has done, one by one: what, about what, and how. Whoever looks for the changes of a feed or a sync must
/// find those too that came by an import.
fn imported(answer: &Value) -> Vec<(String, Option<String>, Value)> {
    let done = answer["changes"].as_array().into_iter().flatten().filter(|change| change["done"] == true);
    let row = |change: &Value| {
        let what = format!("import.{}", change["what"].as_str().unwrap_or_default());
        let detail = json!({"change": change["change"], "fields": change["fields"]});
        (what, change["name"].as_str().map(str::to_owned), detail)
    };
    done.map(row).collect()
}

/// Appends a row. An attempt of unknown outcome may have written it: the same row under the same key.
async fn write(deps: &Deps, row: &Row) -> Step<()> {
    let key = ports::Key::new(AUDIT, format!("{}-{}", newest_first(row.at), row.id));
    let item = doc::item(key, row, None, None)?;
    let mut attempt = 1;
    loop {
        match deps.ports.tables.put(Table::Syncs, item.clone(), Expect::Absent).await {
            Ok(_) => return Ok(()),
            Err(error) if attempt == ATTEMPTS => return Err(error.into()),
            Err(_) => attempt += 1,
        }
    }
}

/// What a request was about, and how: members that are named here and no others, so that nothing personal gets in.
fn about(request: &Request, answer: &Value) -> (Option<String>, Value) {
    let body = request.json().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let some = |names: &[&str]| -> Value {
        let named = names.iter().filter(|name| !body[**name].is_null());
        named.map(|name| ((*name).to_owned(), body[*name].clone())).collect::<Map<String, Value>>().into()
    };
    match parts(request).as_slice() {
        ["syncs"] => {
            let mut detail = some(&["audience_id", "leaving", "members_before", "start", "guard"]);
            let list = &body["list"];
            detail["list"] = json!({"id": list["id"], "name": list["name"], "folder_id": list["folder_id"]});
            (text(&answer["id"]), detail)
        }
        ["syncs", id, "put-back"] => {
            let people = body["lead_ids"].as_array().map_or_else(|| json!("everybody"), |ids| json!(ids.len()));
            (Some((*id).to_owned()), json!({"people": people}))
        }
        ["syncs", id, _] => {
            let names = ["people", "held", "decision", "list_id", "removals_percent", "removals_at_least"];
            (Some((*id).to_owned()), some(&[names.as_slice(), &["additions_at_least"]].concat()))
        }
        ["subscription"] => {
            let names = ["org_id", "hipaa_ready", "cookie_sync", "extract_since", "bulk_import_above", "origins"];
            (
                text(&body["munchkin_id"]),
                some(&[names.as_slice(), &["new_pairs_per_day", "quota_share_percent"]].concat()),
            )
        }
        ["people", "erase"] => (text(&answer["id"]), json!({})),
        ["feeds", id] => (Some((*id).to_owned()), body),
        ["imports", "decide"] => (text(&body["import"]), some(&["decision"])),
        ["import"] => {
            let done = answer["changes"].as_array().into_iter().flatten().filter(|change| change["done"] == true);
            (None, json!({"changes_done": done.count()}))
        }
        _ => (None, json!({})),
    }
}

fn small(detail: Value) -> Value {
    if detail.to_string().len() <= DETAIL_BYTES {
        return detail;
    }
    json!({"too_long": detail.as_object().into_iter().flatten().map(|(name, _)| name).collect::<Vec<_>>()})
}

/// `GET /audit`: the newest first; `?format=csv` as a table, with its heading on the first page.
pub(crate) async fn audit(deps: &Deps, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let as_csv = match request.param("format") {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => {
            let said = Said::new("audit_format", "format: expected json or csv");
            return Err(Problem::new(400, said));
        }
    };
    let (rows, next) = paging.query(deps, Table::Syncs, AUDIT, "", |_: &Row| true).await?;
    if !as_csv {
        return Ok(paging.answer(request, rows.iter().map(shown).collect(), next));
    }
    let mut text = String::new();
    if paging.after.is_none() {
        text += &csv::line(&["id", "at", "who", "what", "subject", "detail", "status"]);
    }
    for row in rows {
        let (at, detail, status) = (time(row.at), row.detail.to_string(), row.status.to_string());
        let subject = row.subject.unwrap_or_default();
        text += &csv::line(&[&row.id, &at, &row.who, &row.what, &subject, &detail, &status]);
    }
    let response = Response {
        status: 200,
        content_type: "text/csv; charset=utf-8",
        body: text.into_bytes(),
        headers: vec![("content-disposition", "attachment; filename=\"audit.csv\"".to_owned())],
    };
    Ok(paging.linked(request, response, next))
}

fn shown(row: &Row) -> Value {
    let Row { id, at, who, what, subject, detail, status, .. } = row;
    json!({"id": id, "at": time(*at), "who": who, "what": what, "subject": subject, "detail": detail, "status": status})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_console_has_words_for_whatever_is_noted_and_for_nothing_else() {
        let noted = ROUTES.iter().filter_map(|(method, path, _)| {
            let body = json!({"start": true, "apply": true}).to_string().into_bytes();
            deed(&Request { method: (*method).into(), path: path.replace('*', "1"), body, ..Request::default() })
        });
        let catalogue: Value = serde_json::from_str(include_str!("../console/catalogue.json")).expect("JSON");
        let keys = catalogue.as_object().expect("keys").keys();
        let said: BTreeSet<String> =
            keys.filter_map(|key| key.strip_prefix("audit.what.")).map(str::to_owned).collect();
        assert_eq!(said, noted.collect());
    }
}
