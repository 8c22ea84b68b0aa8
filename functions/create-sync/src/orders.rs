//! What operators decide about a list: each decision is a note to the list's writer, who reads it at once. Repeating
//! one is harmless.

use domain::said::Said;
use domain::{LeadId, ListId};
use ports::Table;
use serde_json::Value;
use state::audience::declare_empty;
use state::bell::BellKey;
use state::lists::{ListHead, head_key};
use state::notes::{Note, leave};
use state::syncs::{GuardSettings, Start, Status, Sync, change_sync};
use state::{Deps, Doc, bell, load};

use crate::control::{not_now, open, rouse_list};
use crate::problem::{Answer, Problem, Wrong, one_of, whole_number};
use crate::routes::Request;
use crate::view;

/// Largest number of people in a guard's settings. Ours: more than any list holds.
const PEOPLE_MOST: u64 = 1_000_000_000;

/// The list that a sync writes.
fn written(sync: &Sync) -> Answer<ListId> {
    match (sync.start, sync.list.id) {
        (Start::Now, Some(list)) => Ok(list),
        (Start::ReportOnly, _) => {
            Err(Problem::new(409, Said::new("only_reports", "this sync only reports: it writes no list")))
        }
        (Start::Now, None) => {
            Err(Problem::new(409, Said::new("no_list_yet", "this sync has no list yet: it is still being made")))
        }
    }
}

/// The list that a sync keeps, now and in future.
async fn kept(deps: &Deps, sync: &Sync, what: &str) -> Answer<ListId> {
    open(deps, sync).await?;
    let list = written(sync)?;
    if matches!(sync.status, Status::StoppedKeeping | Status::StoppedLeaving) {
        return Err(not_now(sync, what));
    }
    Ok(list)
}

/// Fields that nobody knows: a misspelt one must not mean "all", or "as usual".
pub(crate) fn unknown(body: &Value, known: &[&str], pointer: &str) -> Vec<Wrong> {
    let fields = body.as_object().into_iter().flatten().map(|(field, _)| field);
    let unknown = fields.filter(|field| !known.contains(&field.as_str()));
    let known = known.join(", ");
    let said = |known: &str| Said::new("field_unknown", format!("expected one of {known}")).with("known", known);
    unknown.map(|field| (format!("{pointer}/{field}"), said(&known))).collect()
}

/// People of one request to put somebody back: their ids fit into one row of 400 KB. Ours.
const LEAD_IDS: usize = 10_000;

/// `POST /syncs/{id}/put-back`: who was taken out by hand, or whose addition was dropped, may be added again.
pub(crate) async fn put_back(deps: &Deps, sync: Sync, request: &Request) -> Answer<Value> {
    let list = kept(deps, &sync, "told to put people back").await?;
    let body = request.json()?;
    let mut errors = unknown(&body, &["lead_ids"], "");
    let leads = &body["lead_ids"];
    let ids = |ids: &Vec<Value>| ids.iter().map(|id| id.as_u64().filter(|id| *id > 0)).collect::<Option<Vec<LeadId>>>();
    let ids = leads.as_array().and_then(ids).filter(|ids| !ids.is_empty() && ids.len() <= LEAD_IDS);
    if ids.is_none() && !leads.is_null() {
        let detail = format!(
            "expected Marketo's ids as numbers, such as [1, 2], at most {LEAD_IDS}; without lead_ids everybody is put back"
        );
        errors.push(("/lead_ids".into(), Said::new("expected_lead_ids", detail).with("most", LEAD_IDS)));
    }
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    leave(deps, &sync.munchkin, list, &Note::PutBack { leads: ids }).await?;
    view::sync(deps, &sync).await
}

/// `POST /syncs/{id}/held`: does or drops the mass change that waits.
pub(crate) async fn held(deps: &Deps, sync: Sync, request: &Request) -> Answer<Value> {
    open(deps, &sync).await?;
    let list = written(&sync)?;
    let body = request.json()?;
    let apply = match body["decision"].as_str() {
        Some("apply") => Some(true),
        Some("drop") => Some(false),
        _ => None,
    };
    let mut errors = Vec::new();
    if !body["held"].is_string() {
        let detail = "expected the id that GET /syncs/{id} shows under held";
        errors.push(("/held".into(), Said::new("expected_held", detail)));
    }
    if apply.is_none() {
        errors.push(("/decision".into(), one_of(&["apply", "drop"])));
    }
    let (Some(id), Some(apply)) = (body["held"].as_str(), apply) else { return Err(Problem::fields(errors)) };
    let head: Option<Doc<ListHead>> = load(deps, Table::Lists, &head_key(&sync.munchkin, list)).await?;
    let Some(held) = head.and_then(|head| head.value.held) else {
        return Err(Problem::new(409, Said::new("nothing_held", "nothing is held on the list of this sync")));
    };
    if held.id != id {
        let detail = format!("what is held now has the id {}: look at it, and decide about that", held.id);
        return Err(Problem::at(409, "/held", Said::new("held_changed", detail).with("held", held.id.clone()))
            .with("held", view::held(&held)));
    }
    leave(deps, &sync.munchkin, list, &Note::Decide { held: held.id, apply }).await?;
    view::sync(deps, &sync).await
}

/// `POST /syncs/{id}/verify`: the whole list is compared with what we know of it.
pub(crate) async fn verify(deps: &Deps, sync: Sync) -> Answer<Value> {
    let list = kept(deps, &sync, "verified").await?;
    leave(deps, &sync.munchkin, list, &Note::VerifyAll).await?;
    view::sync(deps, &sync).await
}

/// `POST /syncs/{id}/not-delivered`: an audience that a full delivery did not name is empty and not only missing. Its
/// people leave as if the delivery had said so; the guard against mass changes holds as ever.
pub(crate) async fn not_delivered(deps: &Deps, sync: Sync, request: &Request) -> Answer<Value> {
    open(deps, &sync).await?;
    if !sync.follows() {
        return Err(not_now(&sync, "told about its audience"));
    }
    let body = request.json()?;
    let mut errors = unknown(&body, &["decision"], "");
    if body["decision"] != "empty" {
        errors.push(("/decision".into(), one_of(&["empty"])));
    }
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let declared = declare_empty(deps, &sync.munchkin, &sync.audience).await?;
    // Also where it is declared already: whoever did may have died before they rang.
    bell::rouse(deps, &BellKey::audience(&sync.munchkin, &sync.audience)).await?;
    if !declared {
        let detail = "no full delivery has left out this audience: GET /syncs/{id} would say so under not_delivered";
        return Err(Problem::new(409, Said::new("audience_not_left_out", detail)));
    }
    view::sync(deps, &sync).await
}

/// `POST /syncs/{id}/guard`: when a change of the list is a mass change. What is not named stays as it is.
pub(crate) async fn guard(deps: &Deps, sync: Sync, request: &Request) -> Answer<Value> {
    open(deps, &sync).await?;
    if matches!(sync.status, Status::StoppedKeeping | Status::StoppedLeaving) {
        return Err(not_now(&sync, "guarded otherwise"));
    }
    let body = request.json()?;
    let mut errors = Vec::new();
    read_guard(&body, "", sync.guard, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let changed = change_sync(deps, &sync.munchkin, &sync.id, |row| {
        row.guard = read_guard(&body, "", row.guard, &mut Vec::new());
        true
    })
    .await?;
    let row = changed.unwrap_or(sync);
    // What is held may be a mass change no longer.
    rouse_list(deps, &row).await?;
    view::sync(deps, &row).await
}

/// A guard's settings. What `value` does not name stays as in `base`.
pub(crate) fn read_guard(value: &Value, pointer: &str, base: GuardSettings, errors: &mut Vec<Wrong>) -> GuardSettings {
    let mut guard = base;
    if !value.is_null() && !value.is_object() {
        let detail = r#"expected an object such as {"removals_percent": 30}, or null"#;
        errors.push((pointer.to_owned(), Said::new("expected_guard", detail)));
        return guard;
    }
    let fields = [
        ("removals_percent", &mut guard.removals_percent, 0, 100),
        ("removals_at_least", &mut guard.removals_at_least, 1, PEOPLE_MOST),
        ("additions_at_least", &mut guard.additions_at_least, 1, PEOPLE_MOST),
    ];
    let names = fields.each_ref().map(|(name, ..)| *name);
    for (name, setting, least, most) in fields {
        let wanted = &value[name];
        match wanted.as_u64().filter(|number| (least..=most).contains(number)) {
            Some(number) => *setting = number,
            None if wanted.is_null() => {}
            None => {
                errors.push((format!("{pointer}/{name}"), whole_number(least, most)));
            }
        }
    }
    errors.extend(unknown(value, &names, pointer));
    guard
}
