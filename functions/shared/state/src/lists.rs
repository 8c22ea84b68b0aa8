//! Where lists stand: a head that points to an immutable state object, what is wanted per audience, the log of
//! merges and deletions, and the reports.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use domain::list::State;
use domain::report::{AudienceCounts, MemberCounts, PeopleCounts};
use domain::{AudienceId, LeadId, LeadSet, ListId, MunchkinId, Said};
use ports::{Failure, Key, Table};
use serde::{Deserialize, Serialize};

use crate::runs::Run;
use crate::syncs::Sync;
use crate::{Deps, Doc, Step, doc, load, save};

/// The head of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHead {
    /// Version of this shape.
    pub v: u8,
    /// The list.
    pub list: ListId,
    /// Object key of its [`State`]; absent before the first write.
    pub state_key: Option<String>,
    /// What was left to do when it was last handled.
    pub left: Left,
    /// When it was last handled, in ms.
    pub handled_at: u64,
    /// The last pass of each sync that was reported.
    pub reported: BTreeMap<String, u64>,
    /// Nobody reads the list for a report before this time, in ms, unless an operator asks.
    #[serde(default)]
    pub report_at: u64,
    /// A mass change that waits for an operator.
    #[serde(default)]
    pub held: Option<Held>,
    /// The next small visit, if its calls are booked.
    #[serde(default)]
    pub booked: Option<Booked>,
    /// When members were last compared with what we know, in ms.
    #[serde(default)]
    pub verified_at: u64,
    /// The latest pass for which the members of an adopted list have been read.
    #[serde(default)]
    pub adopted: u64,
    /// A reading of all members that takes more than one turn: for a report, and of an adopted list.
    #[serde(default)]
    pub reading: Option<Reading>,
    #[serde(default)]
    /// The same, with what ties the members to ECIDs.
    pub adopting: Option<Reading>,
    /// How many runs have begun.
    #[serde(default)]
    pub runs: u64,
    /// The run under way.
    #[serde(default)]
    pub run: Option<Run>,
}

/// How far a reading of all members is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// When it began, in ms: Marketo's paging tokens do not last for ever.
    pub began_at: u64,
    /// Marketo's token of the next page.
    pub next: String,
    /// Object key of the members so far.
    pub members: String,
    /// Object key of those of them who are tied to an ECID, where that was asked.
    pub tied: String,
}

/// A visit to a list that gathers small changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booked {
    /// When it is due, in ms.
    pub due: u64,
    /// Calls that it was booked for.
    pub calls: usize,
}

/// A mass change that waits for an operator, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What a decision must name.
    pub id: String,
    /// Since when, in ms.
    pub since: u64,
    /// Why, in words for people.
    pub why: Said,
    /// People who would be removed.
    pub remove: u64,
    /// People who would be added.
    pub add: u64,
    /// People whom the list holds.
    pub of: u64,
}

/// Somebody whom Marketo refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPerson {
    /// Marketo's id.
    pub lead: LeadId,
    /// Marketo's code.
    pub code: String,
    /// Marketo's request id.
    pub request_id: String,
    /// When, in ms.
    pub at: u64,
    /// What the code means, in a sentence.
    pub sentence: String,
}

/// Refused people that stand in a report's row, which must stay below 400 KB; all of them stand in an object. Ours.
pub const REFUSED_NAMED: usize = 500;

impl ListHead {
    /// Whether a sync's audience has had a pass that is not reported yet.
    #[must_use]
    pub fn is_unreported(&self, sync: &Sync, want: &Want) -> bool {
        self.reported.get(&sync.id).is_none_or(|pass| *pass < want.pass)
    }

    /// Whether that report is to be made now: the first one, one that an operator asked for, or any after a while.
    #[must_use]
    pub fn report_is_due(&self, sync: &Sync, want: &Want, now: u64) -> bool {
        let reported = self.reported.get(&sync.id);
        let asked = sync.run_pass.is_some_and(|run| want.pass >= run && reported.is_none_or(|pass| *pass < run));
        self.is_unreported(sync, want) && (asked || reported.is_none() || now >= self.report_at)
    }
}

/// What is left to do on a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// People to add.
    pub add: u64,
    /// People to remove.
    pub remove: u64,
    /// People on hold, because the outcome of their last call is unknown.
    pub hold: u64,
    /// People that Marketo refused.
    pub failed: u64,
}

/// Pointer to what is wanted of an audience: the known people who own at least one of its ECIDs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Version of this shape.
    pub v: u8,
    /// The audience.
    pub audience: AudienceId,
    /// Object key of the set of leads.
    pub key: String,
    /// How many leads.
    pub count: u64,
    /// The last pass that went into it.
    pub pass: u64,
    /// The last pass's report.
    pub report: AudienceReport,
    /// Object keys that this pointer replaced. Whoever read the old pointer may still read them; they are deleted
    /// when the pointer moves once more.
    #[serde(default)]
    pub replaced: Vec<String>,
}

/// What the last pass over an audience found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceReport {
    /// The moment of which it is true, in ms.
    pub as_of: u64,
    /// The counts.
    pub counts: AudienceCounts,
    /// Object key of the people counted.
    pub people_key: String,
}

/// A line of the log of merges and deletions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Version of this shape.
    pub v: u8,
    /// Its number in the subscription's log.
    pub number: u64,
    /// Who stays; `None`: the lead was deleted.
    pub winner: Option<LeadId>,
    /// Who is gone.
    pub gone: BTreeSet<LeadId>,
}

/// The report of a sync: one moment, everybody accounted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this shape.
    pub v: u8,
    /// The moment of which it is true, in ms.
    pub as_of: u64,
    /// The pass that it reports.
    pub pass: u64,
    /// What became of every ECID.
    pub audience: AudienceCounts,
    /// Where the people are.
    pub people: PeopleCounts,
    /// Who the members are; absent where the list was not read (report only).
    pub members: Option<MemberCounts>,
    /// People of the audience whom Marketo refused, at most [`REFUSED_NAMED`].
    #[serde(default)]
    pub refused: Vec<RefusedPerson>,
    /// Object key of all of them, as JSON, where they are more.
    #[serde(default)]
    pub refused_key: Option<String>,
    /// A small change that comes now waits about this long for its call, in seconds: what the rest of the day's calls
    /// affords.
    #[serde(default)]
    pub freshness_seconds: u64,
}

/// The key of a list's head.
#[must_use]
pub fn head_key(munchkin: &MunchkinId, list: ListId) -> Key {
    Key::new(munchkin.as_str(), format!("list/{list}"))
}

/// The heads of all lists of a subscription that were ever written.
pub async fn heads(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<ListHead>> {
    let found = doc::all(deps, Table::Lists, munchkin.as_str(), "list/").await?;
    Ok(found.into_iter().map(|doc: Doc<ListHead>| doc.value).collect())
}

/// The key of an audience's *want*.
#[must_use]
pub fn want_key(munchkin: &MunchkinId, audience: &AudienceId) -> Key {
    Key::new(munchkin.as_str(), format!("want/{audience}"))
}

/// The key of a sync's report.
#[must_use]
pub fn report_key(munchkin: &MunchkinId, sync: &str) -> Key {
    Key::new(munchkin.as_str(), format!("report/{sync}"))
}

/// The partition of a subscription's log of merges and deletions.
#[must_use]
pub fn departures_pk(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/departures")
}

/// The key of a line of that log.
#[must_use]
pub fn departure_key(munchkin: &MunchkinId, number: u64) -> Key {
    Key::new(departures_pk(munchkin), format!("{number:020}"))
}

/// Writes a set of leads as an object under a fresh key and returns the key.
pub async fn write_leads(deps: &Deps, kind: &str, leads: &LeadSet) -> Step<String> {
    let key = format!("sets/{kind}/{}", deps.fresh_id());
    deps.ports.objects.put(&key, Bytes::from(leads.to_bytes())).await?;
    Ok(key)
}

/// Reads a set of leads.
pub async fn read_leads(deps: &Deps, key: &str) -> Step<LeadSet> {
    let bytes = deps.ports.objects.get(key).await?.ok_or_else(|| Failure::retry("a set is gone: it was replaced"))?;
    LeadSet::from_bytes(&bytes).ok_or_else(|| Failure::fail("a set object is damaged"))
}

/// A list's head and state, ready to be changed.
#[derive(Debug, Clone)]
pub struct OpenList {
    /// The subscription.
    pub munchkin: MunchkinId,
    /// The head.
    pub head: ListHead,
    /// The state.
    pub state: State,
    rev: Option<u64>,
    /// The state as it was last read or published.
    stored: Bytes,
}

impl OpenList {
    /// Reads a list's head and state; those of a list that nobody wrote yet are empty.
    pub async fn open(deps: &Deps, munchkin: &MunchkinId, list: ListId) -> Step<Self> {
        let found: Option<Doc<ListHead>> = load(deps, Table::Lists, &head_key(munchkin, list)).await?;
        let rev = found.as_ref().map(|doc| doc.rev);
        let head = found.map_or_else(
            || ListHead {
                v: 1,
                list,
                state_key: None,
                left: Left::default(),
                handled_at: 0,
                reported: BTreeMap::new(),
                report_at: 0,
                held: None,
                booked: None,
                verified_at: 0,
                adopted: 0,
                reading: None,
                adopting: None,
                runs: 0,
                run: None,
            },
            |doc| doc.value,
        );
        let (state, stored) = match &head.state_key {
            None => (State { v: 1, ..State::default() }, Bytes::new()),
            Some(key) => {
                let bytes = deps.ports.objects.get(key).await?;
                let bytes = bytes.ok_or_else(|| Failure::retry("a list's state is gone: it was replaced"))?;
                (serde_json::from_slice(&bytes).map_err(|_| Failure::fail("a list's state is damaged"))?, bytes)
            }
        };
        Ok(Self { munchkin: munchkin.clone(), head, state, rev, stored })
    }

    /// Publishes head and state: the state under a fresh key where it has changed, then the head on condition of its
    /// revision. An error means that somebody else handles this list: begin again.
    pub async fn publish(&mut self, deps: &Deps) -> Step<()> {
        let bytes = serde_json::to_vec(&self.state).map_err(|_| Failure::fail("a list's state cannot be written"))?;
        let mut old = None;
        if bytes != self.stored {
            let key = format!("lists/{}/{}/{}", self.munchkin, self.head.list, deps.fresh_id());
            let bytes = Bytes::from(bytes);
            deps.ports.objects.put(&key, bytes.clone()).await?;
            self.stored = bytes;
            old = self.head.state_key.replace(key);
        }
        let row = head_key(&self.munchkin, self.head.list);
        if !save(deps, Table::Lists, row, &self.head, self.rev, None).await? {
            return Err(Failure::retry("somebody else handles this list"));
        }
        self.rev = Some(self.rev.unwrap_or(0) + 1);
        if let Some(old) = old {
            // Garbage. Of whoever dies before this, one state is left behind.
            deps.ports.objects.delete(&old).await?;
        }
        Ok(())
    }
}

/// Lines of the log of merges and deletions after `seen`, up to and including `upto`.
pub async fn departures(deps: &Deps, munchkin: &MunchkinId, seen: u64, upto: u64) -> Step<Vec<Departure>> {
    if seen >= upto {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut after = Some(format!("{seen:020}"));
    loop {
        let page = deps
            .ports
            .tables
            .query(Table::Lists, &departures_pk(munchkin), "", after.as_deref(), 1000, ports::Read::Consistent)
            .await?;
        for item in page.items {
            let line: Departure = doc::read(item)?.value;
            if line.number <= upto {
                found.push(line);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}
