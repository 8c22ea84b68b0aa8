//! Says in the log what the template's dashboard and alarms watch, once a check, by names that these read (`incident`, `sync`,
//! `waits_seconds`, `calls_ours`, `calls_allowance`, `code`, `refusals`). A line costs next to nothing, while a metric
//! for each sync would be billed by the month; metric filters count the few that wake somebody up.

use std::collections::BTreeMap;

use state::alerts::IncidentKind;
use state::bell::{Bell, BellKey};
use state::budget::Outlook;
use state::runs::Run;
use state::syncs::{Status, Sync};

/// What is wrong at present: a line each. What it is about is an id of ours, or a name that an operator gave.
pub(crate) fn incident(kind: IncidentKind, subject: &str) {
    tracing::warn!(incident = kind.name(), subject, "something is wrong");
}

/// How far each sync that runs is behind what has reached us, and how the day's calls are used.
pub(crate) fn standing(syncs: &[Sync], bells: &BTreeMap<BellKey, Bell>, outlook: &Outlook) {
    for sync in syncs.iter().filter(|sync| sync.status == Status::Active) {
        let waits = behind_ms(sync, bells, outlook.now) / 1_000;
        tracing::info!(sync = sync.id, waits_seconds = waits, "how far a sync is behind");
    }
    let (ours, allowance) = (outlook.calls_today, outlook.allowance);
    tracing::info!(calls_ours = ours, calls_allowance = allowance, "the day's calls to Marketo");
}

/// A run that has ended, if something went wrong in it: a line for each of Marketo's codes.
pub(crate) fn run(run: &Run) {
    for (code, failed) in &run.failures {
        tracing::info!(list = run.list, code, refusals = failed.count, "a run met refusals");
    }
}

/// How long the oldest change waits that has reached us and is not in the list yet, in ms: 0 where nothing waits. Its
/// audience waits to be worked out, or its list to be written.
fn behind_ms(sync: &Sync, bells: &BTreeMap<BellKey, Bell>, now: u64) -> u64 {
    let list = sync.list.id.map(|list| BellKey::list(&sync.munchkin, list));
    let keys = [Some(BellKey::audience(&sync.munchkin, &sync.audience)), list];
    let since = keys.iter().flatten().filter_map(|key| bells.get(key)?.dirty_since).min();
    since.map_or(0, |since| now.saturating_sub(since))
}
