//! Pauses, resumes, stops and runs syncs; keeps subscriptions.
//!
//! Each of these may be asked again: a row that stands as asked is left alone, and everybody is rung again.

use domain::limits::{MARKETO_BATCH, NEW_PAIRS_PER_DAY};
use domain::origin::OriginPattern;
use domain::planted::{Guard, holds};
use domain::said::Said;
use domain::sayings::{PAUSED_BY_HAND, STOPPED_BY_HAND};
use domain::{MunchkinId, OrgId};
use jiff::Timestamp;
use marketo::Marketo;
use ports::Table;
use serde_json::{Value, json};
use state::audience::want_pass;
use state::bell::BellKey;
use state::budget::Purpose;
use state::rest::rest;
use state::syncs::{Start, Status, Subscription, Sync, change_sync, subscription_key};
use state::{Deps, Step, bell, budget, syncs, update};

use crate::create::door;
use crate::problem::{Answer, Problem, Wrong, one_of, true_or_false};
use crate::routes::{Request, Response};
use crate::view;

/// Rings the list of a sync that writes one, although it rests.
pub(crate) async fn rouse_list(deps: &Deps, sync: &Sync) -> Step<()> {
    match (sync.start, sync.list.id) {
        (Start::Now, Some(list)) => bell::rouse(deps, &BellKey::list(&sync.munchkin, list)).await,
        _ => Ok(()),
    }
}

pub(crate) fn not_now(sync: &Sync, what: &str) -> Problem {
    let detail = |state: &str| format!("this sync cannot be {what}: {state}");
    let said = match sync.status {
        Status::Creating => {
            Said::new("not_while_making", detail("its list is still being made: try again in a minute"))
        }
        Status::Active => Said::new("not_while_active", detail("it is active")),
        Status::Paused => Said::new("not_while_paused", detail("it is paused")),
        Status::StoppedKeeping | Status::StoppedLeaving => {
            Said::new("not_when_stopped", detail("it is stopped for good: make a new one with POST /syncs"))
        }
    };
    Problem::new(409, said)
}

/// `POST /syncs/{id}/pause`.
pub(crate) async fn pause(deps: &Deps, sync: Sync) -> Answer<Value> {
    match sync.status {
        Status::Active | Status::Paused => {
            let row = rest(deps, &sync, Status::Paused, &PAUSED_BY_HAND.plain()).await?;
            view::sync(deps, &row).await
        }
        _ => Err(not_now(&sync, "paused")),
    }
}

/// `POST /syncs/{id}/stop`.
pub(crate) async fn stop(deps: &Deps, sync: Sync, request: &Request) -> Answer<Value> {
    let body = request.json()?;
    let status = match &body["people"] {
        Value::Null => Status::StoppedKeeping,
        Value::String(people) if people == "keep" => Status::StoppedKeeping,
        Value::String(people) if people == "take_out" => Status::StoppedLeaving,
        _ => return Err(Problem::fields(vec![("/people".into(), one_of(&["keep", "take_out"]))])),
    };
    if sync.status == Status::StoppedLeaving && status == Status::StoppedKeeping {
        let detail = "this sync is stopped and its people are being taken out already";
        return Err(Problem::at(409, "/people", Said::new("people_leave_already", detail)));
    }
    let row = rest(deps, &sync, status, &STOPPED_BY_HAND.plain()).await?;
    view::sync(deps, &row).await
}

/// `POST /syncs/{id}/resume`. A list that was deleted in Marketo pauses its syncs; they go on when it is there again.
pub(crate) async fn resume(deps: &Deps, sync: Sync, deadline: u64) -> Answer<Value> {
    open(deps, &sync).await?;
    if !matches!(sync.status, Status::Active | Status::Paused) {
        return Err(not_now(&sync, "resumed"));
    }
    if let (Status::Paused, Start::Now, Some(list)) = (sync.status, sync.start, sync.list.id) {
        let marketo = Marketo::new(deps, &sync.munchkin, deadline, Purpose::Control);
        if marketo.list(marketo.slot().await?, list).await?.is_none() {
            let detail = format!(
                "this sync cannot be resumed: Marketo has no static list with id {list} (\"{}\") any more. Stop this \
                 sync and make a new one, for another list",
                sync.list.name
            );
            let said = Said::new("resume_without_list", detail)
                .with("id", list.to_string())
                .with("list", sync.list.name.clone());
            return Err(Problem::new(409, said));
        }
    }
    let changed = change_sync(deps, &sync.munchkin, &sync.id, |row| {
        if row.status != Status::Paused {
            return false;
        }
        row.status = Status::Active;
        row.why = None;
        row.frozen = None;
        row.generation += 1;
        true
    })
    .await?;
    let row = changed.unwrap_or(sync);
    if holds(Guard::ResumedIsRung) {
        rouse_list(deps, &row).await?;
    }
    bell::mark(deps, &BellKey::audience(&row.munchkin, &row.audience)).await?;
    bell::mark(deps, &BellKey::identity(&row.munchkin)).await?;
    view::sync(deps, &row).await
}

/// `POST /syncs/{id}/run`: works everything out anew, at once.
pub(crate) async fn run(deps: &Deps, sync: Sync) -> Answer<Value> {
    open(deps, &sync).await?;
    if !sync.follows() {
        return Err(not_now(&sync, "run"));
    }
    let run_pass = want_pass(deps, &sync.munchkin, &sync.audience).await?;
    syncs::change_sync(deps, &sync.munchkin, &sync.id, |sync| {
        sync.run_pass = run_pass;
        true
    })
    .await?;
    bell::rouse(deps, &BellKey::audience(&sync.munchkin, &sync.audience)).await?;
    rouse_list(deps, &sync).await?;
    bell::rouse(deps, &BellKey::identity(&sync.munchkin)).await?;
    view::sync(deps, &sync).await
}

/// Refuses where the sync's subscription must not be used.
pub(crate) async fn open(deps: &Deps, sync: &Sync) -> Answer<()> {
    match syncs::subscription(deps, &sync.munchkin).await? {
        Some(subscription) => door(&subscription),
        None => Err(Problem::new(404, Said::new("subscription_gone", "the sync's subscription is gone"))),
    }
}

/// `PUT /subscription`: creates or changes one. One that must not be used pauses its syncs.
pub(crate) async fn put_subscription(deps: &Deps, request: &Request) -> Answer<Response> {
    let subscription = read_subscription(&request.json()?)?;
    let munchkin = &subscription.munchkin_id;
    let new = update(
        deps,
        Table::Syncs,
        &subscription_key(munchkin),
        |found: Option<Subscription>| Ok((Some(subscription.clone()), found.is_none())),
        |_| None,
    )
    .await?;
    // Whoever dies before this sends the same body again.
    budget::set_share(deps, munchkin, subscription.quota_share_percent).await?;
    let mut paused = Vec::new();
    if let Some(why) = subscription.refused() {
        for sync in syncs::syncs(deps, munchkin).await? {
            if sync.value.status == Status::Active {
                rest(deps, &sync.value, Status::Paused, &why.plain()).await?;
                paused.push(sync.value.id);
            }
        }
    }
    bell::mark(deps, &BellKey::identity(munchkin)).await?;
    let mut body = json!(subscription);
    body["paused_syncs"] = json!(paused);
    Ok(Response::json(if new { 201 } else { 200 }, &body))
}

pub(crate) fn read_subscription(body: &Value) -> Answer<Subscription> {
    let mut errors: Vec<Wrong> = Vec::new();
    let munchkin_id = body["munchkin_id"].as_str().and_then(MunchkinId::parse);
    if munchkin_id.is_none() {
        let detail = format!("expected {}", MunchkinId::EXPECTED);
        errors.push(("/munchkin_id".into(), Said::new("expected_munchkin_id", detail)));
    }
    let org_id = body["org_id"].as_str().and_then(OrgId::parse);
    if org_id.is_none() && !body["org_id"].is_null() {
        let detail = format!("expected {}, or null where none is mapped", OrgId::EXPECTED);
        errors.push(("/org_id".into(), Said::new("expected_org_id", detail)));
    }
    let hipaa_ready = flag(body, "hipaa_ready", Some(false), &mut errors);
    let cookie_sync = flag(body, "cookie_sync", Some(true), &mut errors);
    let since = &body["extract_since"];
    let extract_since = since.as_str().filter(|text| text.parse::<Timestamp>().is_ok()).map(str::to_owned);
    if extract_since.is_none() && !since.is_null() {
        let detail = "expected a time such as 2025-01-01T00:00:00Z, or null";
        errors.push(("/extract_since".into(), Said::new("expected_time", detail)));
    }
    let above = &body["bulk_import_above"];
    let bulk_import_above = above.as_u64().filter(|above| *above >= MARKETO_BATCH as u64);
    if bulk_import_above.is_none() && !above.is_null() {
        let detail = format!("expected a number of people such as 20000, at least {MARKETO_BATCH}, or null for never");
        let said = Said::new("expected_bulk_import_above", detail).with("least", MARKETO_BATCH);
        errors.push(("/bulk_import_above".into(), said));
    }
    let origins = match &body["origins"] {
        Value::Null => Some(Vec::new()),
        Value::Array(origins) => origins
            .iter()
            .map(|origin| origin.as_str().filter(|text| OriginPattern::parse(text).is_some()).map(str::to_owned))
            .collect(),
        _ => None,
    };
    if origins.is_none() {
        let detail = format!("expected a list; each entry {}", OriginPattern::EXPECTED);
        errors.push(("/origins".into(), Said::new("expected_origins", detail)));
    }
    let new_pairs = &body["new_pairs_per_day"];
    let new_pairs_per_day = if new_pairs.is_null() { Some(NEW_PAIRS_PER_DAY) } else { new_pairs.as_u64() };
    if new_pairs_per_day.is_none() {
        let detail = format!("expected a whole number, or null for {NEW_PAIRS_PER_DAY}");
        let said = Said::new("expected_new_pairs_per_day", detail).with("default", NEW_PAIRS_PER_DAY);
        errors.push(("/new_pairs_per_day".into(), said));
    }
    let share = &body["quota_share_percent"];
    let quota_share_percent = share.as_u64().filter(|percent| (1..=100).contains(percent));
    if quota_share_percent.is_none() && !share.is_null() {
        let expected = "expected a whole number of per cent from 1 to 100, or null for the deployment's share";
        errors.push(("/quota_share_percent".into(), Said::new("expected_quota_share", expected)));
    }
    match (munchkin_id, origins, new_pairs_per_day) {
        (Some(munchkin_id), Some(origins), Some(new_pairs_per_day)) if errors.is_empty() => Ok(Subscription {
            v: 1,
            munchkin_id,
            org_id,
            hipaa_ready,
            cookie_sync,
            extract_since,
            bulk_import_above,
            origins,
            new_pairs_per_day,
            quota_share_percent,
        }),
        _ => Err(Problem::fields(errors)),
    }
}

/// A boolean; absent or null is `default`, if there is one.
fn flag(body: &Value, field: &str, default: Option<bool>, errors: &mut Vec<Wrong>) -> bool {
    match (&body[field], default) {
        (Value::Bool(flag), _) => *flag,
        (Value::Null, Some(default)) => default,
        _ => {
            errors.push((format!("/{field}"), true_or_false()));
            false
        }
    }
}
