//! Says when something is wrong: looks for it every few minutes, tells each incident once when it begins and once when it
//! ends, by webhook and on the event bus, and announces runs that have ended.
//!
//! What is wrong is read from state each time, so that nothing has to be remembered where it happens. Telling twice is
//! harmless: the id is the same.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::DAY_MS;
use domain::sayings::{PAUSED_BY_HAND, STOPPED_BY_HAND};
use domain::{ListId, MunchkinId, Said};
use ports::{Announcement, Failure, Read, Table};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use state::alerts::{
    Alerts, Checked, Form, Incident, IncidentKind, Webhook, alerts, checked_key, incidents, save_incident,
};
use state::bell::{self, Kind};
use state::feeds::{IMPORTS_BY_TIME, Import, ImportLine, ImportStatus, feed_state, feeds, import_key};
use state::lists::{ListHead, heads};
use state::runs::{Run, Size, history_pk, hour_key, runs_pk};
use state::syncs::{Status, Subscription, Sync};
use state::{Deps, Doc, Step, budget, doc, syncs, time, update};

use crate::watched;

/// How often a subscription is checked, in ms. Ours: what is told by webhook is for people.
const EVERY_MS: u64 = 5 * 60_000;
/// One call of a webhook, in ms.
const HOOK_MS: u64 = 5_000;
/// Calls of webhooks of one check: half a minute where nobody answers.
const HOOKS: usize = 6;
/// Name of the event bus among those who are told.
const BUS: &str = "bus";
/// The days whose median a list is compared with (issue 6).
const DAYS: u64 = 14;
/// A list is compared once it has a size of so many days, and a median of so many people. Ours: a first load is no
/// deviation, and of five people one is 20 %.
const DAYS_LEAST: usize = 3;
const PEOPLE_LEAST: u64 = 20;
/// A run is slow that takes so many times its usual (issue 6), of at least so many runs, and so long, in ms. Ours.
const TIMES_SLOW: u64 = 3;
const RUNS_LEAST: usize = 5;
const SLOW_LEAST_MS: u64 = 10 * 60_000;
/// Runs and files of which the usual, or the held, is read.
const RUNS: usize = 20;
const FILES: usize = 100;
/// Sizes of one page: 14 days of hours are 336.
const PAGE: usize = 400;
/// The day's calls are used up where lists have to wait for longer than this, in ms. Ours.
const SPENT_MS: u64 = 10 * 60_000;

/// Looks at the subscriptions that were not looked at for a while. One that cannot be checked hinders no other.
pub(crate) async fn check(deps: &Deps, deadline: u64) -> Step<()> {
    let mut failed = None;
    for subscription in syncs::subscriptions(deps).await? {
        if deps.now() + deps.settings.scaled(HOOK_MS) > deadline {
            break;
        }
        if let Err(failure) = check_one(deps, &subscription, deadline).await {
            failed.get_or_insert(failure);
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn check_one(deps: &Deps, subscription: &Subscription, deadline: u64) -> Step<()> {
    let munchkin = &subscription.munchkin_id;
    let now = deps.now();
    let key = checked_key(munchkin);
    let mine = |found: Option<Checked>| {
        let checked = found.unwrap_or_default();
        // Taken before the work, so that two ticks do not both tell.
        Ok(match checked.at + deps.settings.scaled(EVERY_MS) > now && checked.at != 0 {
            true => (None, None),
            false => (Some(Checked { v: 1, at: now, ..checked.clone() }), Some(checked.runs)),
        })
    };
    let Some(heard) = update(deps, Table::Syncs, &key, mine, |_| None).await? else { return Ok(()) };

    let asked = deps.ports.queues.dead_letters().await;
    let dead = asked.as_ref().ok();
    let alerts = alerts(deps, munchkin).await?;
    let heads = heads(deps, munchkin).await?;
    let known = incidents(deps, munchkin).await?;
    let found = findings(deps, subscription, &alerts, &heads, &known, dead).await?;
    let lasting = note(deps, munchkin, &alerts, known, found, dead.is_some()).await?;
    tell(deps, munchkin, &alerts, lasting, deadline).await?;

    announce_runs(deps, munchkin, &heads, &heard).await?;
    // What could not be asked is neither begun nor ended above, and is said here.
    asked.map(drop).map_err(Failure::from)
}

/// Announces the runs that have ended since the last check.
async fn announce_runs(
    deps: &Deps,
    munchkin: &MunchkinId,
    heads: &[ListHead],
    heard: &BTreeMap<ListId, u64>,
) -> Step<()> {
    let ended = ended_runs(deps, munchkin, heads, heard).await?;
    if ended.is_empty() {
        return Ok(());
    }
    ended.iter().for_each(watched::run);
    let announcements = ended.iter().map(|run| Announcement { kind: "Run finished", detail: of_run(munchkin, run) });
    deps.ports.bus.announce(announcements.collect()).await.map_err(Failure::from)?;
    let heard = |found: Option<Checked>| {
        let mut checked = found.unwrap_or_default();
        for run in &ended {
            let last = checked.runs.entry(run.list).or_default();
            *last = run.number.max(*last);
        }
        Ok((Some(checked), ()))
    };
    update(deps, Table::Syncs, &checked_key(munchkin), heard, |_| None).await
}

/// What is wrong at present, by kind and subject.
type Findings = BTreeMap<(IncidentKind, String), (String, Value)>;

async fn findings(
    deps: &Deps,
    subscription: &Subscription,
    alerts: &Alerts,
    heads: &[ListHead],
    known: &[Doc<Incident>],
    dead: Option<&BTreeMap<String, u64>>,
) -> Step<Findings> {
    let munchkin = &subscription.munchkin_id;
    let now = deps.now();
    let mut found = Findings::new();
    let mut add = |kind: IncidentKind, subject: &str, sentence: String, values: Value| {
        found.insert((kind, subject.to_owned()), (sentence, values));
    };
    let all: Vec<Sync> = syncs::syncs(deps, munchkin).await?.into_iter().map(|sync| sync.value).collect();
    for sync in &all {
        if let Some((word, why)) = stopped(sync) {
            let sentence =
                format!("The sync of \"{}\" into \"{}\" was {word}: {why}", sync.audience_name, sync.list.name);
            add(
                IncidentKind::SyncStopped,
                &sync.id,
                sentence,
                json!({
                    "sync_id": sync.id,
                    "status": sync.status,
                    "why": why.sentence,
                    "why_code": why.code,
                    "why_values": why.values,
                }),
            );
        }
    }
    let bells = bell::all(deps, munchkin).await?;
    for kind in Kind::ALL {
        let stuck = bells.iter().filter(|(key, bell)| key.kind == kind && bell.stuck).count();
        let kind = kind.name();
        if stuck > 0 {
            let sentence =
                format!("{stuck} keys of {kind} work failed several times; each is tried again every 15 minutes");
            add(IncidentKind::Stuck, kind, sentence, json!({"work": kind, "keys": stuck}));
        }
    }
    for feed in feeds(deps, munchkin).await? {
        let state = feed_state(deps, munchkin, &feed.id).await?;
        if let Some(last) = state.named.values().max().filter(|last| feed.is_overdue(**last, now)) {
            let (id, hours) = (&feed.id, feed.every_hours);
            let sentence = format!(
                "Nothing has come by the feed \"{id}\" since {}, though it is delivered every {hours} hours",
                time(*last)
            );
            add(
                IncidentKind::FeedLate,
                id,
                sentence,
                json!({"feed": id, "last_at": time(*last), "every_hours": hours}),
            );
        }
    }
    for (subject, import) in held_deliveries(deps, munchkin, known).await? {
        let sentence =
            format!("A delivery of the feed \"{}\" is held until an operator applies or drops it", import.feed);
        add(IncidentKind::DeliveryHeld, &subject, sentence, json!({"feed": import.feed, "import": import.id}));
    }
    for head in heads {
        let list = head.list.to_string();
        if let Some(held) = &head.held {
            let sentence =
                format!("A mass change of list {list} is held until an operator applies or drops it: {}", held.why);
            let values = json!({"list_id": head.list, "held": held.id, "removals": held.remove, "additions": held.add, "of": held.of});
            add(IncidentKind::ChangeHeld, &list, sentence, values);
        }
        let runs = last_runs(deps, munchkin, head.list).await?;
        if let Some((took, usual)) = slow(head.run.as_ref(), &runs, now, deps.settings.scaled(SLOW_LEAST_MS)) {
            let sentence = format!("A run of list {list} takes {} s, usually {} s", took / 1_000, usual / 1_000);
            let values = json!({"list_id": head.list, "seconds": took / 1_000, "usual_seconds": usual / 1_000});
            add(IncidentKind::RunSlow, &list, sentence, values);
        }
    }
    for sync in all.iter().filter(|sync| sync.status == Status::Active) {
        let since = now.saturating_sub(DAYS * DAY_MS);
        let sizes = sizes(deps, munchkin, &sync.id, since).await?;
        if let Some((size, median)) = deviates(&sizes, alerts.deviation_percent) {
            let name = &sync.list.name;
            let sentence =
                format!("The list \"{name}\" has {size} people; the median of its last {DAYS} days is {median}");
            let values =
                json!({"sync_id": sync.id, "size": size, "median": median, "percent": alerts.deviation_percent});
            add(IncidentKind::ListDeviates, &sync.id, sentence, values);
        }
    }
    // Not before the last call is gone: what is left is kept for look-ups and for Marketo's activities.
    let outlook = budget::outlook(deps, munchkin).await?;
    if outlook.write_at > now + deps.settings.scaled(SPENT_MS) && subscription.refused().is_none() {
        let standing = budget::standing(deps, munchkin).await?;
        let until = time(outlook.write_at);
        let sentence = format!("Our share of Marketo's calls is used up: lists are not written before {until}");
        let values = json!({"ours_today": standing.ours, "others_today": standing.others, "until": until});
        add(IncidentKind::QuotaUsedUp, munchkin.as_str(), sentence, values);
    }
    for (queue, count) in dead.into_iter().flatten() {
        let sentence = format!("{count} messages lie in the dead-letter queue {queue}");
        add(IncidentKind::DeadLetters, queue, sentence, json!({"queue": queue, "messages": count}));
    }
    for (kind, subject) in found.keys() {
        watched::incident(*kind, subject);
    }
    watched::standing(&all, &bells, &outlook);
    Ok(found)
}

/// What happened to a sync that no operator has paused or stopped.
fn stopped(sync: &Sync) -> Option<(&'static str, &Said)> {
    let word = match sync.status {
        Status::Paused => "paused",
        Status::StoppedKeeping | Status::StoppedLeaving => "stopped",
        Status::Creating | Status::Active => return None,
    };
    // Of before there were codes, their sentences are what is left of them.
    let by_hand = |why: &Said| {
        [PAUSED_BY_HAND, STOPPED_BY_HAND].iter().any(|by| why.is(by) || (why.code.is_none() && why == by.english))
    };
    sync.why.as_ref().filter(|why| !by_hand(why)).map(|why| (word, why))
}

/// Deliveries that wait for an operator, each by one of its files: among the latest, and of those of which it is known.
async fn held_deliveries(
    deps: &Deps,
    munchkin: &MunchkinId,
    known: &[Doc<Incident>],
) -> Step<BTreeMap<String, Import>> {
    let tables = &deps.ports.tables;
    let page = tables.query(Table::Syncs, munchkin.as_str(), IMPORTS_BY_TIME, None, FILES, Read::Eventual).await?;
    let mut keys = Vec::new();
    for item in page.items {
        keys.push(import_key(munchkin, &doc::read::<ImportLine>(item)?.value.id));
    }
    let known = known.iter().map(|incident| &incident.value);
    let lasting = known.filter(|known| known.kind == IncidentKind::DeliveryHeld && known.ended_at.is_none());
    keys.extend(lasting.filter_map(|known| Some(import_key(munchkin, known.values["import"].as_str()?))));
    let mut held = BTreeMap::new();
    for item in tables.batch_get(Table::Syncs, &keys, Read::Eventual).await? {
        let import: Import = doc::read(item)?.value;
        if import.status == ImportStatus::Held {
            // A name of Adobe's may be as long as a key.
            let delivery = import.delivery.as_deref().unwrap_or(&import.id);
            let digest = Sha256::new().chain_update(&import.feed).chain_update("/").chain_update(delivery);
            let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            held.entry(digest).or_insert(import);
        }
    }
    Ok(held)
}

/// The last runs of a list that have ended, the newest first.
async fn last_runs(deps: &Deps, munchkin: &MunchkinId, list: ListId) -> Step<Vec<Run>> {
    let pk = runs_pk(munchkin, list);
    let page = deps.ports.tables.query(Table::Lists, &pk, "", None, RUNS, Read::Eventual).await?;
    page.items.into_iter().map(|item| Ok(doc::read::<Run>(item)?.value)).collect()
}

/// How long a run takes and how long it usually does, in ms, if that is much more: the run under way, or else the last.
fn slow(now_running: Option<&Run>, ended: &[Run], now: u64, least: u64) -> Option<(u64, u64)> {
    let took = |run: &Run| run.ended_at.unwrap_or(now).saturating_sub(run.began_at);
    let (run, before) = match now_running {
        Some(run) => (run, ended),
        None => ended.split_first()?,
    };
    if before.len() < RUNS_LEAST {
        return None;
    }
    let usual = median(before.iter().map(took).collect())?;
    let took = took(run);
    (took > least && took > usual.saturating_mul(TIMES_SLOW)).then_some((took, usual))
}

/// Sizes of a sync's list since a time (ms), the oldest first.
async fn sizes(deps: &Deps, munchkin: &MunchkinId, sync: &str, since: u64) -> Step<Vec<Size>> {
    let (pk, mut found) = (history_pk(munchkin, sync), Vec::new());
    let mut after = Some(hour_key(since));
    while after.is_some() {
        let tables = &deps.ports.tables;
        let page = tables.query(Table::Lists, &pk, "", after.as_deref(), PAGE, Read::Eventual).await?;
        for item in page.items {
            found.push(doc::read::<Size>(item)?.value);
        }
        after = page.next;
    }
    Ok(found)
}

/// The last size and the median of the days before it, if they differ by more than so many per cent.
fn deviates(sizes: &[Size], percent: u64) -> Option<(u64, u64)> {
    let size = |size: &Size| size.members.unwrap_or(size.people);
    let last = sizes.last()?;
    // One a day, so that a busy day does not outvote the others.
    let days: BTreeMap<u64, u64> = sizes.iter().map(|one| (one.at / DAY_MS, size(one))).collect();
    if days.len() < DAYS_LEAST {
        return None;
    }
    let median = median(days.into_values().collect()).filter(|median| *median >= PEOPLE_LEAST)?;
    (size(last).abs_diff(median) * 100 > median * percent).then_some((size(last), median))
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Begins and ends incidents. `all`: whatever may be wrong was looked for. Returns those of which somebody is still to be
/// told.
async fn note(
    deps: &Deps,
    munchkin: &MunchkinId,
    alerts: &Alerts,
    known: Vec<Doc<Incident>>,
    mut found: Findings,
    all: bool,
) -> Step<Vec<Doc<Incident>>> {
    let now = deps.now();
    let everybody: BTreeSet<String> =
        alerts.webhooks.keys().map(String::as_str).chain([BUS]).map(str::to_owned).collect();
    let mut lasting = Vec::new();
    for Doc { value: mut incident, rev } in known {
        let place = (incident.kind, incident.subject.clone());
        let unseen = !all && incident.kind == IncidentKind::DeadLetters;
        let there = unseen || found.contains_key(&place);
        let before = incident.clone();
        match (incident.ended_at, there) {
            (None, true) => {
                if let Some((sentence, values)) = found.remove(&place) {
                    (incident.sentence, incident.values) = (sentence, values);
                }
            }
            (None, false) => {
                incident.ended_at = Some(now);
                incident.owed_end = everybody.clone();
            }
            // The same thing again is news, also where somebody has not been told yet that it had ended: one webhook that
            // is gone must not silence the others.
            (Some(_), true) => {
                if let Some((sentence, values)) = found.remove(&place) {
                    incident = begun(place.0, place.1, sentence, values, now, &everybody);
                }
            }
            (Some(_), false) => {}
        }
        // Whoever is no webhook any more is owed nothing.
        incident.owed.retain(|who| everybody.contains(who));
        incident.owed_end.retain(|who| everybody.contains(who));
        let mut rev = rev;
        if incident != before {
            if !save_incident(deps, munchkin, &incident, Some(rev)).await? {
                return Err(Failure::retry("somebody else notes incidents"));
            }
            rev += 1;
        }
        lasting.push(Doc { value: incident, rev });
    }
    for ((kind, subject), (sentence, values)) in found {
        let incident = begun(kind, subject, sentence, values, now, &everybody);
        tracing::warn!(incident.id = %incident.id, "an incident began");
        if save_incident(deps, munchkin, &incident, None).await? {
            lasting.push(Doc { value: incident, rev: 1 });
        }
    }
    lasting.retain(|incident| !incident.value.owed.is_empty() || !incident.value.owed_end.is_empty());
    Ok(lasting)
}

fn begun(
    kind: IncidentKind,
    subject: String,
    sentence: String,
    values: Value,
    now: u64,
    everybody: &BTreeSet<String>,
) -> Incident {
    let id = format!("{}/{subject}/{now}", kind.name());
    let (owed, owed_end) = (everybody.clone(), BTreeSet::new());
    Incident { v: 1, id, kind, subject, sentence, values, since: now, ended_at: None, owed, owed_end }
}

/// Tells whoever is owed. Who does not answer is told at the next check.
async fn tell(
    deps: &Deps,
    munchkin: &MunchkinId,
    alerts: &Alerts,
    lasting: Vec<Doc<Incident>>,
    deadline: u64,
) -> Step<()> {
    let mut silent: BTreeSet<String> = BTreeSet::new();
    let mut calls = 0;
    for Doc { value: mut incident, rev } in lasting {
        let before = incident.clone();
        for ended in [false, true] {
            let owed = if ended { &before.owed_end } else { &before.owed };
            for who in owed {
                // Its beginning first: an end of which nobody heard the beginning says nothing.
                if silent.contains(who) || (ended && incident.owed.contains(who)) {
                    continue;
                }
                let told = if who == BUS {
                    let kind = if ended { "Incident ended" } else { "Incident began" };
                    let detail = of_incident(munchkin, &incident, ended);
                    deps.ports.bus.announce(vec![Announcement { kind, detail }]).await.is_ok()
                } else {
                    let late = deps.now() + HOOK_MS > deadline || calls >= HOOKS;
                    calls += 1;
                    match alerts.webhooks.get(who).filter(|_| !late) {
                        Some(hook) => call(deps, hook, munchkin, &incident, ended).await,
                        None => false,
                    }
                };
                if !told {
                    silent.insert(who.clone());
                    continue;
                }
                if ended {
                    incident.owed_end.remove(who)
                } else {
                    incident.owed.remove(who)
                };
            }
        }
        if incident != before && !save_incident(deps, munchkin, &incident, Some(rev)).await? {
            return Err(Failure::retry("somebody else notes incidents"));
        }
    }
    for who in silent {
        tracing::warn!(alerts.webhook = %who, "a webhook or the event bus could not be told of an incident; it is told again");
    }
    Ok(())
}

/// Calls a webhook. Whether it took what it was told.
async fn call(deps: &Deps, hook: &Webhook, munchkin: &MunchkinId, incident: &Incident, ended: bool) -> bool {
    let body = body(hook.form, munchkin, incident, ended);
    let mut request = http::Request::post(&hook.url).header("content-type", "application/json");
    for (name, value) in &hook.headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(body.to_string().into_bytes()) else { return false };
    match deps.ports.http.send(request, HOOK_MS).await {
        Ok(answer) => answer.status().is_success(),
        Err(_) => false,
    }
}

/// What a webhook of a form is told.
fn body(form: Form, munchkin: &MunchkinId, incident: &Incident, ended: bool) -> Value {
    let text = format!("{} audience-sync ({munchkin}): {}", if ended { "Over:" } else { "Alert:" }, incident.sentence);
    match form {
        Form::Json => of_incident(munchkin, incident, ended),
        Form::Slack => json!({"text": text}),
        Form::Teams => json!({"type": "message", "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [{"type": "TextBlock", "text": text, "wrap": true}],
            },
        }]}),
    }
}

fn of_incident(munchkin: &MunchkinId, incident: &Incident, ended: bool) -> Value {
    let Incident { id, kind, subject, sentence, values, since, ended_at, .. } = incident;
    json!({
        "v": 1,
        "munchkin_id": munchkin,
        "id": id,
        "kind": kind,
        "phase": if ended { "ended" } else { "began" },
        "subject": subject,
        "sentence": sentence,
        "values": values,
        "since": time(*since),
        "ended_at": ended_at.filter(|_| ended).map(time),
    })
}

/// Runs that have ended and of which the bus has not heard, the oldest first.
async fn ended_runs(
    deps: &Deps,
    munchkin: &MunchkinId,
    heads: &[ListHead],
    heard: &BTreeMap<ListId, u64>,
) -> Step<Vec<Run>> {
    let mut ended = Vec::new();
    for head in heads {
        let last = heard.get(&head.list).copied().unwrap_or(0);
        if head.runs > last {
            ended.extend(last_runs(deps, munchkin, head.list).await?.into_iter().filter(|run| run.number > last));
        }
    }
    ended.sort_by_key(|run| (run.ended_at, run.list, run.number));
    Ok(ended)
}

fn of_run(munchkin: &MunchkinId, run: &Run) -> Value {
    json!({
        "v": 1,
        "munchkin_id": munchkin,
        "id": run.id(),
        "list_id": run.list,
        "sync_ids": run.syncs,
        "began_at": time(run.began_at),
        "ended_at": run.ended_at.map(time),
        "causes": run.causes,
        "added": run.added,
        "removed": run.removed,
        "refused": run.refused,
        "held": run.held,
        "calls": run.calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64, minutes: u64, ended: bool) -> Run {
        let began_at = number * DAY_MS;
        Run { number, began_at, ended_at: ended.then_some(began_at + minutes * 60_000), ..Run::default() }
    }

    #[test]
    fn a_run_is_slow_beside_its_like() {
        let least = SLOW_LEAST_MS;
        let usual: Vec<Run> = (1..=6).rev().map(|number| run(number, 5, true)).collect();
        let now = 7 * DAY_MS + 16 * 60_000;
        // 16 minutes and on, against five.
        assert_eq!(slow(Some(&run(7, 0, false)), &usual, now, least), Some((16 * 60_000, 5 * 60_000)));
        assert_eq!(slow(Some(&run(7, 0, false)), &usual, now - 2 * 60_000, least), None);
        // Too few to know what is usual.
        assert_eq!(slow(Some(&run(7, 0, false)), &usual[..4], now, least), None);
        // The last that has ended, beside those before it.
        let mut ended = usual.clone();
        ended.insert(0, run(7, 40, true));
        assert_eq!(slow(None, &ended, now, least), Some((40 * 60_000, 5 * 60_000)));
        assert_eq!(slow(None, &usual, now, least), None);
    }

    #[test]
    fn a_list_deviates_from_the_median_of_its_days() {
        let size = |day: u64, hour: u64, members: u64| Size {
            v: 1,
            at: day * DAY_MS + hour * 3_600_000,
            browsers: 0,
            addressable: 0,
            known: 0,
            people: 7,
            in_list: Some(members),
            members: Some(members),
        };
        let steady = [size(1, 1, 100), size(2, 1, 100), size(3, 1, 100), size(4, 1, 120)];
        assert_eq!(deviates(&steady, 20), None);
        let grown = [size(1, 1, 100), size(2, 1, 100), size(3, 1, 100), size(4, 1, 121)];
        assert_eq!(deviates(&grown, 20), Some((121, 100)));
        assert_eq!(deviates(&grown, 25), None);
        // A day with many reports is one day, and two days are too few.
        let busy = [size(1, 1, 10), size(2, 1, 100), size(2, 2, 100), size(2, 3, 100)];
        assert_eq!(deviates(&busy, 20), None);
        // Of a small list one person is much.
        let small = [size(1, 1, 5), size(2, 1, 5), size(3, 1, 7)];
        assert_eq!(deviates(&small, 20), None);
    }
}
