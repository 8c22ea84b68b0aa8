//! What the writer of a list did, run by run, and how large the lists of syncs were over time.
//!
//! A run's counts grow in the list's head, with the same conditional write as the state that they describe: whoever
//! dies takes what it has counted along, and nothing is counted twice. When a run has ended, its row is written under
//! a key that follows from its number, so that a row written twice is one row.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::{DAY_MS, HOUR_MS};
use domain::{ListId, MunchkinId};
use ports::{Expect, Item, Key, Table};
use serde::{Deserialize, Serialize};

use crate::{Causes, Deps, Step, doc};

/// How long runs are kept, in ms (issue 6: runs of the last 90 days).
pub const RUNS_KEPT_MS: u64 = 90 * DAY_MS;
/// How long sizes are kept, in ms. Ours: a year can be compared with the one before.
pub const HISTORY_KEPT_MS: u64 = 400 * DAY_MS;
/// At most one size is kept in so many ms. Ours: 9,600 rows in the end.
pub const HISTORY_GRAIN_MS: u64 = HOUR_MS;
/// Request ids of Marketo's that a run keeps for each code. Ours: one call names up to 300 people, and a handful of calls is
/// what Marketo's support asks for.
pub const REQUEST_IDS_KEPT: usize = 10;
/// Stands in place of Marketo's code where no clear answer came.
pub const NO_CLEAR_ANSWER: &str = "no_answer";

/// Consecutive work on a list until nothing is left to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Version of this shape.
    pub v: u8,
    /// Its number, from 1, among the runs of its list.
    pub number: u64,
    /// The list.
    pub list: ListId,
    /// The syncs for which it was done: several may feed one list.
    pub syncs: BTreeSet<String>,
    /// When it began, in ms.
    pub began_at: u64,
    /// When it ended, in ms.
    pub ended_at: Option<u64>,
    /// Why it was done; empty: nobody said.
    pub causes: Causes,
    /// Clear answers of Marketo's that somebody was added (or was in the list already).
    pub added: u64,
    /// The same of removals.
    pub removed: u64,
    /// Clear answers that somebody was refused.
    pub refused: u64,
    /// People of the last mass change that was held in this run.
    pub held: u64,
    /// Calls to Marketo.
    pub calls: u64,
    /// What went wrong, by Marketo's code.
    pub failures: BTreeMap<String, Failed>,
}

/// How often something went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// How often: people who were refused, or calls.
    pub count: u64,
    /// Marketo's last request id; empty where there was no answer.
    pub request_id: String,
    /// The last [`REQUEST_IDS_KEPT`] of them, each once, the latest last. Runs of before have none.
    #[serde(default)]
    pub request_ids: Vec<String>,
}

impl Run {
    /// Its id: of the list, and of the run.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.list, self.number)
    }

    /// Notes that something went wrong.
    pub fn failed(&mut self, code: &str, request_id: &str) {
        let failed = self.failures.entry(code.to_owned()).or_default();
        failed.count += 1;
        request_id.clone_into(&mut failed.request_id);
        if !request_id.is_empty() {
            failed.request_ids.retain(|known| known != request_id);
            failed.request_ids.push(request_id.to_owned());
            let over = failed.request_ids.len().saturating_sub(REQUEST_IDS_KEPT);
            failed.request_ids.drain(..over);
        }
    }
}

/// The partition of the runs of a list, in the table of lists: the newest first.
#[must_use]
pub fn runs_pk(munchkin: &MunchkinId, list: ListId) -> String {
    format!("{munchkin}/runs/{list}")
}

/// Writes the row of a run that has ended. A second time it changes nothing.
pub async fn save_run(deps: &Deps, munchkin: &MunchkinId, run: &Run) -> Step<()> {
    let key = Key::new(runs_pk(munchkin, run.list), newest_first(run.number));
    let until = run.ended_at.unwrap_or(run.began_at).saturating_add(RUNS_KEPT_MS);
    let item = Item { expires_at: Some(until / 1_000), ..doc::item(key, run, None, None)? };
    deps.ports.tables.put(Table::Lists, item, Expect::Anything).await?;
    Ok(())
}

/// A number as text that comes before that of every smaller number.
#[must_use]
pub fn newest_first(number: u64) -> String {
    format!("{:020}", u64::MAX - number)
}

/// How large a sync's audience and list were, as a report said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Version of this shape.
    pub v: u8,
    /// The moment of the report, in ms.
    pub at: u64,
    /// Browsers in the audience.
    pub browsers: u64,
    /// Those with a match that counts.
    pub addressable: u64,
    /// Those of them of a known person.
    pub known: u64,
    /// Known people.
    pub people: u64,
    /// People of the audience who are in the list; `None`: the sync only reports.
    pub in_list: Option<u64>,
    /// Members that Marketo shows; `None`: the sync only reports.
    pub members: Option<u64>,
}

/// The partition of the sizes of a sync, in the table of lists: the oldest first.
#[must_use]
pub fn history_pk(munchkin: &MunchkinId, sync: &str) -> String {
    format!("{munchkin}/history/{sync}")
}

/// The sort key of the size of an hour (of a time in ms).
#[must_use]
pub fn hour_key(at: u64) -> String {
    format!("{:020}", at / HISTORY_GRAIN_MS)
}

/// Keeps a size: one an hour, the last that came. A second time it changes nothing.
pub async fn save_size(deps: &Deps, munchkin: &MunchkinId, sync: &str, size: &Size) -> Step<()> {
    let key = Key::new(history_pk(munchkin, sync), hour_key(size.at));
    let until = size.at.saturating_add(HISTORY_KEPT_MS);
    let item = Item { expires_at: Some(until / 1_000), ..doc::item(key, size, None, None)? };
    deps.ports.tables.put(Table::Lists, item, Expect::Anything).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_code_the_latest_request_ids_are_kept_once() {
        let mut run = Run::default();
        for n in 0..12 {
            run.failed("1004", &format!("id{n}"));
            run.failed("1004", "id5");
        }
        run.failed("1004", "");
        let failed = &run.failures["1004"];
        let kept = ["id2", "id3", "id4", "id6", "id7", "id8", "id9", "id10", "id11", "id5"];
        assert_eq!((failed.count, failed.request_id.as_str()), (25, ""));
        assert_eq!(failed.request_ids, kept);
        assert_eq!(kept.len(), REQUEST_IDS_KEPT);
    }

    #[test]
    fn a_failure_of_before_several_ids_were_kept_is_read() {
        let old: Failed = serde_json::from_str(r#"{"count":1,"request_id":"e42b#1"}"#).expect("a failure");
        assert_eq!(old, Failed { count: 1, request_id: "e42b#1".into(), request_ids: Vec::new() });
    }
}
