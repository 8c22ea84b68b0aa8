//! What to do to a static list: intent before effect, and patience after doubt.
//!
//! A [`State`] is what we know of one list. [`State::plan`] compares it with what is wanted; a batch of the plan is
//! stored as an intent *before* its call goes out, and the answer, if one comes, is applied after. If none comes
//! the intent's hold keeps everybody away from those leads until the call can no longer take effect.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::{DAY_MS, HOUR_MS, REFUSED_RETRY_MS};
use crate::planted::{Guard, holds};
use crate::{LeadId, LeadSet};

/// What we know of one list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this shape.
    pub v: u8,
    /// Leads that we know we put there.
    pub sure: LeadSet,
    /// Leads that may be there by our doing.
    pub may: LeadSet,
    /// Leads that were there before us, or were added by hand.
    pub theirs: LeadSet,
    /// Leads of calls whose outcome is unknown, with the time (ms) until which nobody touches them.
    pub hold: BTreeMap<LeadId, u64>,
    /// Leads that Marketo refused.
    pub failed: BTreeMap<LeadId, Refusal>,
    /// Leads that stay although nobody wants them, by the sync that leaves them there.
    pub kept_by: BTreeMap<String, LeadSet>,
    /// Stopped syncs whose people have been settled.
    #[serde(default)]
    pub stopped: BTreeSet<String>,
    /// Leads that were there before us and that a merge may have taken out: they are added once more.
    pub restore: LeadSet,
    /// Merges and deletions up to this number have been applied.
    pub merges_seen: u64,
    /// Members who are tied to an ECID, as of the last time an adopted list was read.
    #[serde(default)]
    pub tied: LeadSet,
    /// Whether the members who were there before us have been read (only a list that is adopted needs it).
    pub members_read: bool,
    /// People whom we had put there and whom somebody took out by hand: they stay out until they leave the audience
    /// and come again, or are put back.
    #[serde(default)]
    pub kept_out: LeadSet,
    /// People whose addition an operator dropped; the same holds for them.
    #[serde(default)]
    pub dropped: LeadSet,
    /// People whose addition or removal an operator has applied: they count for no mass change.
    #[serde(default)]
    pub approved: LeadSet,
    /// Who was taken out within the last day, by the hour (ms) in which it was meant.
    #[serde(default)]
    pub left: BTreeMap<u64, LeadSet>,
    /// Who was added within the last day, after the first load of the sync that wants them.
    #[serde(default)]
    pub came: BTreeMap<u64, LeadSet>,
    /// Syncs whose first load is over.
    #[serde(default)]
    pub loaded: BTreeSet<String>,
    /// A mass change that waits for an operator: nothing is written meanwhile.
    #[serde(default)]
    pub held: Option<Held>,
    /// People whose membership is doubtful, with the time (ms) from which Marketo is asked about them: any call of
    /// ours, and whatever made us doubt, is over by then.
    #[serde(default)]
    pub doubts: BTreeMap<LeadId, u64>,
    /// People whom somebody seems to have added by hand to a list that we made, with the time (ms) from which Marketo is
    /// asked about them.
    #[serde(default)]
    pub newcomers: BTreeMap<LeadId, u64>,
    /// A bulk import into the list.
    #[serde(default)]
    pub import: Option<Import>,
    /// No bulk import before this time, in ms: the last one went wrong.
    #[serde(default)]
    pub no_import_before: u64,
    /// A comparison of the whole list with what we know of it.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// People whom jobs erase from the list, by the job.
    #[serde(default)]
    pub erasing: BTreeMap<String, Erasing>,
    /// Somebody was forgotten who is in the list by others' doing: from then on everybody is asked about before they
    /// are added for the first time, on a list that we made too.
    #[serde(default)]
    pub others_forgotten: bool,
}

/// What a job that erases people has come to in one list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Erasing {
    /// Who is still to be done.
    pub leads: LeadSet,
    /// Who is out because Marketo does not know them any more (1004). If they were merged, somebody has taken their
    /// place: they are remembered until the activity log tells, or for a day.
    pub gone: LeadSet,
    /// How many are out.
    pub out: u64,
    /// How many stay: by others' doing, or because they are wanted again.
    pub stay: u64,
    /// When the job was answered, in ms. It is remembered for a day: the same note, come again, changes nothing.
    pub answered_at: Option<u64>,
}

impl Erasing {
    /// Whether everybody is done, and the job not answered yet.
    #[must_use]
    pub fn is_to_be_answered(&self) -> bool {
        self.leads.is_empty() && self.answered_at.is_none()
    }
}

/// What becomes of somebody who is to be erased from a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Wanted again: left alone.
    Wanted,
    /// In the list by others' doing: stays there, and is forgotten.
    Theirs,
    /// Not in the list by our doing any more: forgotten.
    Out,
    /// Marketo does not know them (1004): out, and forgotten later.
    Gone,
}

/// A bulk import that is under way, or of which nobody knows whether it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// Marketo's number of it; `None`: the outcome of its start is unknown.
    pub id: Option<u64>,
    /// Its people: none of them is removed before it has ended.
    pub leads: LeadSet,
    /// Those of them who were not in *may* before.
    pub newly: LeadSet,
    /// When it was last asked about, in ms; at first when it was meant.
    pub polled_at: u64,
    /// From this time on, in ms, its people are added by ordinary calls; one of unknown outcome is over then.
    pub until: u64,
}

impl Import {
    /// Whether its people are left to it.
    #[must_use]
    pub const fn is_under_way(&self, now: u64) -> bool {
        self.id.is_some() && now < self.until
    }
}

/// A comparison of the whole list with what we know of it, by pages or by bulk extract.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Marketo's id of the extract; `None`: none is made yet.
    pub job: Option<String>,
    /// When that was last asked about, in ms; at first when it was made.
    pub polled_at: u64,
    /// The extract went wrong: the list is read page by page.
    pub by_pages: bool,
    /// Those who were *sure* when the extract was made, and whom no call of ours concerned since.
    pub untouched: LeadSet,
}

/// A mass change that waits for an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// What a decision must name.
    pub id: String,
    /// Since when, in ms.
    pub since: u64,
    /// What is held.
    pub change: MassChange,
}

/// More change than a list should see without somebody looking at it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MassChange {
    /// People who would be removed now; empty where removals are not the reason.
    pub remove: LeadSet,
    /// People who would be added now; empty where additions are not the reason.
    pub add: LeadSet,
    /// People who were in the list by our doing, or, of additions, by anybody's.
    pub of: u64,
    /// Removed in the last 24 hours already, or added.
    pub recent: u64,
}

/// When a change is a mass change (design, invariant 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardSettings {
    /// Removals of more than this part of our people within 24 hours, in per cent ...
    pub removals_percent: u64,
    /// ... if they are at least so many; or all of our people where we have 20 or more.
    pub removals_at_least: u64,
    /// Additions within 24 hours, after a sync's first load, of more than the list holds, if they are at least so
    /// many.
    pub additions_at_least: u64,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { removals_percent: 30, removals_at_least: 100, additions_at_least: 5_000 }
    }
}

impl GuardSettings {
    /// The stricter of both, point by point: several syncs may feed one list.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            removals_percent: self.removals_percent.min(other.removals_percent),
            removals_at_least: self.removals_at_least.min(other.removals_at_least),
            additions_at_least: self.additions_at_least.min(other.additions_at_least),
        }
    }
}

/// The removal of everybody is a mass change from this number of people on (design, invariant 13).
const ALL_OF: u64 = 20;
/// Under this name people stay whose removal an operator dropped. No sync's id is spelt like this.
const DROPPED: &str = "dropped";

/// Why Marketo refused a lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Marketo's code.
    pub code: String,
    /// When, in ms.
    pub at: u64,
    /// Marketo's request id.
    pub request_id: String,
}

/// What one sync wishes of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The sync's id.
    pub sync: String,
    /// Leads that should be in the list; of a resting sync, those of the moment when it began to rest.
    pub want: LeadSet,
    /// What the sync does at present.
    pub mode: Mode,
}

impl Wish {
    const fn is_active(&self) -> bool {
        matches!(self.mode, Mode::Active | Mode::ActiveKeeping)
    }
}

/// How a sync takes part in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Adds; who leaves the audience leaves the list.
    Active,
    /// Adds; who leaves the audience stays.
    ActiveKeeping,
    /// Does nothing; its people stay where they are.
    Paused,
    /// Over; its people stay until another sync wants them and lets them go.
    StoppedKeeping,
    /// Over; its people leave.
    StoppedLeaving,
}

/// What all syncs wish of a list, read at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// One a sync.
    pub syncs: Vec<Wish>,
    /// The operator chose to adopt the list: who was there before us leaves like ours if tied to an ECID
    /// ([`State::tied`]).
    pub adopt: bool,
    /// Some sync has not said yet what it wants.
    pub incomplete: bool,
}

impl Wishes {
    /// Whether the list is not written at all: some sync of it is paused, and none is active.
    #[must_use]
    pub fn rests(&self) -> bool {
        let some = |modes: &[Mode]| self.syncs.iter().any(|wish| modes.contains(&wish.mode));
        some(&[Mode::Paused]) && !some(&[Mode::Active, Mode::ActiveKeeping])
    }

    /// The union of what the active syncs want.
    #[must_use]
    pub fn wanted(&self) -> LeadSet {
        if !holds(Guard::EverySyncCounts) {
            let last = self.syncs.iter().rfind(|wish| wish.is_active());
            return last.map_or_else(LeadSet::new, |wish| wish.want.clone());
        }
        self.union(|wish| wish.is_active())
    }

    fn union(&self, of: impl Fn(&Wish) -> bool) -> LeadSet {
        let mut all = LeadSet::new();
        for wish in self.syncs.iter().filter(|wish| of(wish)) {
            all.add_all(&wish.want);
        }
        all
    }
}

/// What is to be done to a list now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Leads to add.
    pub add: LeadSet,
    /// Leads to remove.
    pub remove: LeadSet,
    /// When something that waits now may be done (a hold or a refusal ends), in ms.
    pub next_at: Option<u64>,
    /// How many leads wait for that.
    pub waiting: u64,
    /// How many of those wait for a bulk import.
    pub importing: u64,
}

/// Marketo's clear answer for one lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The list is now as asked: added, removed, or it was so already (1015).
    Done,
    /// Refused with a code.
    Refused(Refusal),
}

/// Marketo's code for a lead that is deleted, merged away or not visible.
pub const LEAD_NOT_FOUND: &str = "1004";
/// Marketo's code for the removal of somebody who is not in the list.
pub const LEAD_NOT_IN_LIST: &str = "1015";

impl State {
    /// Settles who stays by the choice of a sync. Call it after reading the wishes and before planning.
    pub fn settle(&mut self, wishes: &Wishes) {
        let mut taken = LeadSet::new();
        for wish in &wishes.syncs {
            if wish.mode == Mode::Active {
                taken.add_all(&wish.want);
            }
        }
        if wishes.syncs.len() > 1 && !holds(Guard::MayIsPerList) {
            // As if each sync kept its own *may*: a second one takes the first one's people for theirs.
            let found = self.may.clone();
            self.theirs.add_all(&found);
        }
        for wish in &wishes.syncs {
            match wish.mode {
                Mode::Active => {
                    self.kept_by.remove(&wish.sync);
                }
                Mode::StoppedLeaving => {
                    self.kept_by.remove(&wish.sync);
                    // Whoever stops a sync so that its people leave has decided just that, and once.
                    if self.stopped.insert(format!("{}/leaving", wish.sync)) {
                        let leaving = self.may.and(&wish.want);
                        self.approved.add_all(&leaving);
                    }
                }
                Mode::ActiveKeeping => {
                    let ours = self.may.and(&wish.want);
                    self.kept_by.entry(wish.sync.clone()).or_default().add_all(&ours);
                }
                Mode::Paused => {
                    let ours = self.may.and(&wish.want);
                    self.kept_by.insert(wish.sync.clone(), ours);
                }
                Mode::StoppedKeeping => {
                    // Once: what another sync takes over later does not come back.
                    if self.stopped.insert(wish.sync.clone()) {
                        let ours = self.may.and(&wish.want);
                        self.kept_by.entry(wish.sync.clone()).or_default().add_all(&ours);
                    }
                    if let Some(kept) = self.kept_by.get_mut(&wish.sync) {
                        kept.remove_all(&taken);
                    }
                }
            }
        }
        if let Some(kept) = self.kept_by.get_mut(DROPPED) {
            kept.remove_all(&taken);
        }
        // Whoever is erased is kept by nobody.
        let erased = self.being_erased().minus(&wishes.wanted());
        self.kept_by.values_mut().for_each(|leads| leads.remove_all(&erased));
        self.kept_by.retain(|_, leads| !leads.is_empty());
    }

    /// Leads that stay although nobody wants them.
    #[must_use]
    pub fn kept(&self) -> LeadSet {
        let mut kept = LeadSet::new();
        for leads in self.kept_by.values() {
            kept.add_all(leads);
        }
        kept
    }

    /// Who is to be added: `W − sure − theirs − kept out`.
    fn to_add(&self, wanted: &LeadSet) -> LeadSet {
        let add = wanted.minus(&self.sure).minus(&self.theirs).minus(&self.dropped);
        if holds(Guard::OutStaysOut) { add.minus(&self.kept_out) } else { add }
    }

    /// Who is to be removed: `may − W − theirs`.
    fn to_remove(&self, wishes: &Wishes, wanted: &LeadSet) -> LeadSet {
        let mut remove = self.may.minus(wanted).minus(&self.theirs).minus(&self.kept());
        if wishes.adopt {
            remove.add_all(&self.theirs.and(&self.tied).minus(wanted));
        }
        remove.remove_all(&self.restore);
        remove
    }

    /// What is to be done at `now` (ms): `add = W − sure − theirs − kept out − hold`,
    /// `remove = may − W − theirs − hold`. Whether it is a mass change is another question
    /// ([`State::mass_change`]).
    #[must_use]
    pub fn plan(&self, wishes: &Wishes, now: u64) -> Plan {
        if wishes.rests() {
            return self.plan_erasures(wishes, now);
        }
        let wanted = wishes.wanted();
        let mut add = self.to_add(&wanted);
        add.add_all(&self.restore);
        let remove = self.to_remove(wishes, &wanted);
        self.due(add, remove, now)
    }

    /// The part of the plan that waits for nobody: people who are erased leave although the list rests, a mass change is
    /// held, or a sync keeps them.
    #[must_use]
    pub fn plan_erasures(&self, wishes: &Wishes, now: u64) -> Plan {
        let erased = self.being_erased();
        if erased.is_empty() {
            return Plan::default();
        }
        let remove = self.may.and(&erased).minus(&self.theirs).minus(&self.restore).minus(&wishes.wanted());
        self.due(self.restore.and(&erased), remove, now)
    }

    /// What may be done of that now.
    fn due(&self, add: LeadSet, remove: LeadSet, now: u64) -> Plan {
        let mut plan = Plan { add, remove, ..Plan::default() };
        for (lead, until) in &self.hold {
            if *until > now && holds(Guard::HoldAfterDoubt) {
                plan.postpone(*lead, *until);
            }
        }
        for (lead, refusal) in &self.failed {
            let until = refusal.at.saturating_add(REFUSED_RETRY_MS);
            if until > now {
                plan.postpone(*lead, until);
            }
        }
        if let Some(import) = &self.import {
            plan.leave_to(import, now);
        }
        plan
    }

    /// The change that the wishes ask for now, if it is a mass change; whatever the cause.
    #[must_use]
    pub fn mass_change(&self, wishes: &Wishes, guard: GuardSettings) -> Option<MassChange> {
        if wishes.rests() {
            return None;
        }
        let wanted = wishes.wanted();
        let erased = self.being_erased();
        let remove = self.to_remove(wishes, &wanted).minus(&self.approved).minus(&erased);
        if !remove.is_empty() {
            let recent = union(&self.left).minus(&self.sure).minus(&remove);
            let leaving = remove.len() + recent.len();
            // Who may be there counts too: an outcome in doubt makes a list no smaller.
            let mut ours = self.may.clone();
            ours.add_all(&self.sure);
            ours.add_all(&recent);
            ours.add_all(&remove);
            if wishes.adopt {
                ours.add_all(&self.theirs);
            }
            let of = ours.minus(&erased.minus(&wanted)).len();
            let part = leaving * 100 > of * guard.removals_percent && leaving >= guard.removals_at_least;
            if part || (of >= ALL_OF && leaving >= of) {
                return Some(MassChange { remove, of, recent: recent.len(), ..MassChange::default() });
            }
        }
        let first = wishes.union(|wish| wish.is_active() && !self.loaded.contains(&wish.sync));
        let add = self.to_add(&wanted).minus(&first).minus(&self.approved);
        if !add.is_empty() {
            let recent = union(&self.came).and(&self.sure);
            let coming = add.len() + recent.len();
            let mut there = self.sure.clone();
            there.add_all(&self.theirs);
            let of = there.minus(&recent).len();
            if coming > of && coming >= guard.additions_at_least {
                return Some(MassChange { add, of, recent: recent.len(), ..MassChange::default() });
            }
        }
        None
    }

    /// Holds a mass change, or keeps it held, or lets it go when it is none any more. `id`: a fresh one. What is shown
    /// to the operator does not grow under their hand: nobody is added to what is held, unless it grows by more than a
    /// tenth; then it is another change.
    pub fn hold(&mut self, change: Option<MassChange>, id: String, now: u64) {
        let Some(change) = change else {
            self.held = None;
            return;
        };
        let size = |change: &MassChange| change.remove.len() + change.add.len();
        let same = self.held.as_ref().is_some_and(|held| {
            let new = change.remove.minus(&held.change.remove).len() + change.add.minus(&held.change.add).len();
            new * 10 <= size(&held.change)
        });
        if let Some(held) = self.held.as_mut().filter(|_| same) {
            // What is not asked for any more is not held any more.
            held.change.remove = held.change.remove.and(&change.remove);
            held.change.add = held.change.add.and(&change.add);
            (held.change.of, held.change.recent) = (change.of, change.recent);
        } else {
            let since = self.held.as_ref().map_or(now, |held| held.since);
            self.held = Some(Held { id, since, change });
        }
    }

    /// An operator decided about what is held under this id: to do it, or to leave those people as they are. Another
    /// id decides nothing.
    pub fn decide(&mut self, id: &str, apply: bool) -> bool {
        let Some(held) = self.held.take_if(|held| held.id == id) else { return false };
        if apply {
            self.approved.add_all(&held.change.remove);
            self.approved.add_all(&held.change.add);
        } else {
            self.dropped.add_all(&held.change.add);
            // Of an adopted list some are not ours: they stay because they are not tied any more, until it is read
            // again and the operator asked again.
            self.tied.remove_all(&held.change.remove);
            let ours = held.change.remove.and(&self.may);
            self.kept_by.entry(DROPPED.to_owned()).or_default().add_all(&ours);
        }
        true
    }

    /// Those who stay out may be added again; `None`: all of them.
    pub fn put_back(&mut self, leads: Option<&[LeadId]>) {
        match leads {
            None => {
                self.kept_out = LeadSet::new();
                self.dropped = LeadSet::new();
            }
            Some(leads) => {
                for lead in leads {
                    self.kept_out.remove(*lead);
                    self.dropped.remove(*lead);
                }
            }
        }
    }

    /// Doubts somebody's membership: Marketo is asked from `now` + the time that a call of ours may still take effect.
    pub fn doubt(&mut self, leads: impl IntoIterator<Item = LeadId>, late_effect: u64, now: u64) {
        for lead in leads {
            self.doubts.entry(lead).or_insert(now + late_effect);
        }
    }

    /// Members as they were read page by page: who is missing, or back by somebody's hand, is doubted. Whoever is too
    /// many was added by hand; that needs no note, for we remove nobody who is not in *may*, and ask before we add.
    pub fn compared(&mut self, members: &LeadSet, late_effect: u64, now: u64) {
        let mut doubtful = self.sure.minus(members);
        doubtful.add_all(&self.kept_out.and(members));
        self.doubt(doubtful.iter().collect::<Vec<LeadId>>(), late_effect, now);
    }

    /// People who are said to be in a list that we made, and not by our doing as far as we know: Marketo is asked about
    /// them in a while (`later`, ms).
    pub fn came_by_hand(&mut self, leads: &LeadSet, later: u64, now: u64) {
        for lead in leads.minus(&self.may).minus(&self.theirs).iter() {
            self.newcomers.entry(lead).or_insert(now + later);
        }
    }

    /// Marketo's activity log names people as added and removed: of whom it contradicts what we know is doubted.
    pub fn seen(&mut self, added: &LeadSet, removed: &LeadSet, late_effect: u64, now: u64) {
        let mut known = self.sure.clone();
        known.add_all(&self.theirs);
        let mut doubtful = self.kept_out.and(added);
        doubtful.add_all(&known.and(removed));
        self.doubt(doubtful.iter().collect::<Vec<LeadId>>(), late_effect, now);
    }

    /// Those whose membership is to be asked now, at most `limit`; nobody who is on hold.
    #[must_use]
    pub fn doubtful(&self, now: u64, limit: usize) -> Vec<LeadId> {
        let doubts = self.doubts.iter().chain(&self.newcomers);
        let due = doubts.filter(|(lead, from)| **from <= now && self.changes_until(**lead).is_none());
        due.map(|(lead, _)| *lead).take(limit).collect()
    }

    /// When the next doubt may be settled, in ms.
    #[must_use]
    pub fn next_doubt(&self) -> Option<u64> {
        let doubts = self.doubts.iter().chain(&self.newcomers);
        doubts.map(|(lead, from)| (*from).max(self.changes_until(*lead).unwrap_or(0))).min()
    }

    /// Until when, in ms, a call or an import of ours may still change somebody's membership, if so.
    fn changes_until(&self, lead: LeadId) -> Option<u64> {
        let import = self.import.as_ref().filter(|import| import.leads.contains(lead)).map(|import| import.until);
        self.hold.get(&lead).copied().max(import)
    }

    /// Marketo answered about doubtful people. `asked`: all of them; who is in neither set is gone, which the activity
    /// log tells in its own time.
    pub fn asked(&mut self, asked: &[LeadId], members: &LeadSet, not_members: &LeadSet, wanted: &LeadSet) {
        for &lead in asked {
            let newcomer = self.newcomers.remove(&lead).is_some();
            if newcomer && members.contains(lead) && !self.may.contains(lead) {
                self.theirs.insert(lead);
            }
            // An own call is under way, or due: this answer says nothing.
            let changing = self.changes_until(lead).is_some();
            if self.doubts.remove(&lead).is_none() || changing || self.restore.contains(lead) {
                continue;
            }
            if members.contains(lead) {
                // Back by somebody's hand: if wanted, they are found to be there before they are added.
                self.kept_out.remove(lead);
            } else if not_members.contains(lead) {
                let was_ours = self.sure.remove(lead);
                let was_theirs = self.theirs.remove(lead);
                if was_ours || was_theirs {
                    self.may.remove(lead);
                    self.restore.remove(lead);
                    if wanted.contains(lead) {
                        self.kept_out.insert(lead);
                    }
                }
            }
        }
    }

    /// People are to be erased. A job that is known already changes nothing.
    pub fn erase(&mut self, job: &str, leads: &LeadSet) {
        if self.erasing.contains_key(job) {
            return;
        }
        self.touched(leads);
        self.erasing.insert(job.to_owned(), Erasing { leads: leads.clone(), ..Erasing::default() });
    }

    /// Who is being erased, and who would be if Marketo knew them.
    fn being_erased(&self) -> LeadSet {
        let mut erased = LeadSet::new();
        for job in self.erasing.values() {
            erased.add_all(&job.leads);
            erased.add_all(&job.gone);
        }
        erased
    }

    /// Forgets those who are erased and out for certain, or in the list by others' doing; whoever is wanted again is left
    /// alone. Call it before [`State::settle`].
    pub fn settle_erasures(&mut self, wishes: &Wishes, now: u64) {
        let erased = self.being_erased();
        if erased.is_empty() {
            return;
        }
        let wanted = wishes.wanted();
        for lead in erased.iter() {
            let Some(fate) = self.fate(lead, &wanted, now) else { continue };
            for job in self.erasing.values_mut() {
                if job.leads.remove(lead) {
                    match fate {
                        Fate::Wanted | Fate::Theirs => job.stay += 1,
                        Fate::Out | Fate::Gone => job.out += 1,
                    }
                    if fate == Fate::Gone {
                        job.gone.insert(lead);
                    }
                } else if fate != Fate::Gone {
                    job.gone.remove(lead);
                }
            }
            if matches!(fate, Fate::Theirs | Fate::Out) {
                self.others_forgotten |= fate == Fate::Theirs || self.newcomers.contains_key(&lead);
                self.forget(lead);
            }
        }
    }

    /// What becomes of somebody who is erased; `None`: that is not certain yet.
    fn fate(&self, lead: LeadId, wanted: &LeadSet, now: u64) -> Option<Fate> {
        if wanted.contains(lead) {
            return Some(Fate::Wanted);
        }
        let on_hold = self.hold.get(&lead).is_some_and(|until| *until > now);
        let imported = self.import.as_ref().is_some_and(|import| import.leads.contains(lead));
        if (on_hold || imported) && holds(Guard::ErasedWhenCertain) {
            return None;
        }
        let refusal = self.failed.get(&lead);
        if let Some(refusal) = refusal.filter(|refusal| refusal.code == LEAD_NOT_FOUND) {
            // By then the activity log has told of a merge, if it was one.
            let over = refusal.at.saturating_add(REFUSED_RETRY_MS) <= now;
            return Some(if over { Fate::Out } else { Fate::Gone });
        }
        if self.theirs.contains(lead) || self.restore.contains(lead) {
            // Whom a merge may have taken out is put back before we forget that it is to be done.
            let put_back = !self.restore.contains(lead) || refusal.is_some();
            return put_back.then_some(Fate::Theirs);
        }
        // Without its guard: whoever was asked to leave has left.
        let may_be_there = self.may.contains(lead) && (holds(Guard::ErasedWhenCertain) || self.sure.contains(lead));
        (!may_be_there).then_some(Fate::Out)
    }

    /// The list does not exist any more: whoever was to be erased is out.
    pub fn erased_with_the_list(&mut self) {
        let erased = self.being_erased();
        for job in self.erasing.values_mut() {
            job.out += job.leads.len();
            (job.leads, job.gone) = (LeadSet::new(), LeadSet::new());
        }
        erased.iter().for_each(|lead| self.forget(lead));
    }

    /// A job was answered.
    pub fn answered(&mut self, job: &str, now: u64) {
        if let Some(job) = self.erasing.get_mut(job) {
            job.answered_at = Some(now);
        }
    }

    /// Somebody is in no set any more.
    fn forget(&mut self, lead: LeadId) {
        self.drop_lead(lead);
        self.tied.remove(lead);
        self.touch(lead);
        for leads in self.left.values_mut().chain(self.came.values_mut()) {
            leads.remove(lead);
        }
    }

    /// Something about these people changed: whoever was refused is tried again.
    pub fn touched(&mut self, leads: &LeadSet) {
        self.failed.retain(|lead, _| !leads.contains(*lead));
    }

    /// Those of a batch whose membership must be asked just before it is added for the first time.
    #[must_use]
    pub fn strangers(&self, batch: &[LeadId]) -> Vec<LeadId> {
        batch.iter().copied().filter(|lead| !self.may.contains(*lead) && !self.theirs.contains(*lead)).collect()
    }

    /// Marketo says that these strangers are in the list already: they were there before us.
    pub fn were_there(&mut self, members: impl IntoIterator<Item = LeadId>) {
        for lead in members {
            if !self.may.contains(lead) && holds(Guard::MembersOfBefore) {
                self.theirs.insert(lead);
            }
        }
    }

    /// The intent to add: store it before the call. Returns those who were not in *may* before.
    pub fn intend_add(&mut self, batch: &[LeadId], hold_until: u64) -> LeadSet {
        let mut newly = LeadSet::new();
        for &lead in batch {
            if !self.theirs.contains(lead) && self.may.insert(lead) {
                newly.insert(lead);
            }
            self.hold.insert(lead, hold_until);
            self.failed.remove(&lead);
            self.doubts.remove(&lead);
            self.newcomers.remove(&lead);
            self.touch(lead);
        }
        newly
    }

    /// A call of ours concerns somebody: an extract that is under way says nothing about them.
    fn touch(&mut self, lead: LeadId) {
        if let Some(comparison) = &mut self.comparison {
            comparison.untouched.remove(lead);
        }
    }

    /// The intent to add by a bulk import: store it before the call. `until`: see [`Import::until`].
    pub fn intend_import(&mut self, leads: LeadSet, now: u64, until: u64) {
        let newly = leads.minus(&self.theirs).minus(&self.may);
        self.may.add_all(&newly);
        self.failed.retain(|lead, _| !leads.contains(*lead));
        self.doubts.retain(|lead, _| !leads.contains(*lead));
        if let Some(comparison) = &mut self.comparison {
            comparison.untouched.remove_all(&leads);
        }
        self.import = Some(Import { id: None, leads, newly, polled_at: now, until });
    }

    /// The import was certainly not started: its intent is taken back.
    pub fn take_back_import(&mut self) {
        if let Some(import) = self.import.take() {
            self.may.remove_all(&import.newly);
        }
    }

    /// The import has ended, or can take effect no more. `unsure`: those of whom Marketo does not say that they are in
    /// the list now; `None`: it says so of nobody. All of them stay in *may*.
    pub fn imported(&mut self, unsure: Option<&LeadSet>) {
        let (Some(import), Some(unsure)) = (self.import.take(), unsure) else { return };
        let done = import.leads.minus(unsure);
        self.restore.remove_all(&done);
        self.sure.add_all(&done.and(&self.may).minus(&self.theirs));
    }

    /// An extract of the members was made: from here on it is noted whom our calls concern.
    pub fn extracting(&mut self, job: String, now: u64) {
        let untouched = self.sure.clone();
        self.comparison = Some(Comparison { job: Some(job), polled_at: now, by_pages: false, untouched });
    }

    /// Members as an extract tells them, of some moment since it was made: who is missing, or back by somebody's hand,
    /// is doubted, but nobody whom a call of ours concerned since.
    pub fn extracted(&mut self, members: &LeadSet, late_effect: u64, now: u64) {
        let untouched = self.comparison.take().map(|comparison| comparison.untouched).unwrap_or_default();
        let mut members = members.clone();
        members.add_all(&self.sure.minus(&untouched));
        self.compared(&members, late_effect, now);
    }

    /// Counts an addition or removal for the guard against mass changes; before the intent. Additions of a first load
    /// count for nothing, nor does what an operator has applied, nor who is erased.
    pub fn count(&mut self, batch: &[LeadId], adding: bool, wishes: &Wishes, now: u64) {
        let first = |wish: &&Wish| wish.is_active() && !self.loaded.contains(&wish.sync);
        let loading = |lead: LeadId| wishes.syncs.iter().filter(first).any(|wish| wish.want.contains(lead));
        let erased = self.being_erased();
        let exempt = |lead: LeadId| self.approved.contains(lead) || erased.contains(lead) || (adding && loading(lead));
        let counted: Vec<LeadId> = batch.iter().copied().filter(|lead| !exempt(*lead)).collect();
        if counted.is_empty() {
            return;
        }
        let log = if adding { &mut self.came } else { &mut self.left };
        log.entry(now - now % HOUR_MS).or_default().extend(counted);
    }

    /// The intent to remove: store it before the call.
    pub fn intend_remove(&mut self, batch: &[LeadId], hold_until: u64) {
        for &lead in batch {
            self.sure.remove(lead);
            // Somebody of an adopted list is ours from here on.
            if self.theirs.remove(lead) {
                self.may.insert(lead);
            }
            self.hold.insert(lead, hold_until);
            self.failed.remove(&lead);
            self.doubts.remove(&lead);
            self.touch(lead);
        }
    }

    /// Nobody has answered the call of an intent, and whoever sent it has given up only now: it may take effect up to then.
    pub fn hold_on(&mut self, batch: &[LeadId], until: u64) {
        for lead in batch {
            let hold = self.hold.entry(*lead).or_default();
            *hold = until.max(*hold);
        }
    }

    /// The call of an intent certainly did not take effect: the intent is taken back. `newly`: what
    /// [`State::intend_add`] returned; empty for a removal.
    pub fn take_back(&mut self, batch: &[LeadId], newly: &LeadSet) {
        for lead in batch {
            self.hold.remove(lead);
        }
        self.may.remove_all(newly);
    }

    /// A clear answer to an add. `newly`: what [`State::intend_add`] returned.
    pub fn added(&mut self, lead: LeadId, answer: Answer, newly: &LeadSet) {
        self.hold.remove(&lead);
        match answer {
            Answer::Done => {
                self.restore.remove(lead);
                if !self.theirs.contains(lead) {
                    self.sure.insert(lead);
                }
            }
            Answer::Refused(refusal) => {
                // Whoever is gone was not put there either: who they were merged into is not in the list by our doing.
                if newly.contains(lead) {
                    self.may.remove(lead);
                }
                self.failed.insert(lead, refusal);
            }
        }
    }

    /// A clear answer to a removal.
    pub fn removed(&mut self, lead: LeadId, answer: Answer) {
        self.hold.remove(&lead);
        match answer {
            Answer::Done => {
                self.may.remove(lead);
            }
            Answer::Refused(refusal) => {
                if refusal.code == LEAD_NOT_FOUND && !holds(Guard::GoneKeepsMay) {
                    self.may.remove(lead);
                    return;
                }
                self.failed.insert(lead, refusal);
            }
        }
    }

    /// Marketo has no answer for this person alone: left alone for a day.
    pub fn refuse(&mut self, lead: LeadId, refusal: Refusal) {
        self.failed.insert(lead, refusal);
    }

    /// Marketo merged `losers` into `winner`, who inherits *may* and *theirs* and never *sure*.
    pub fn merged(&mut self, winner: LeadId, losers: &BTreeSet<LeadId>) {
        for &loser in losers {
            if loser == winner {
                continue;
            }
            let erased = self.being_erased().contains(loser);
            self.take_the_place(winner, loser);
            if self.may.contains(loser) {
                self.may.insert(winner);
            }
            if self.theirs.contains(loser) && holds(Guard::WinnerInheritsTheirs) {
                self.theirs.insert(winner);
                self.restore.insert(winner);
            }
            if self.restore.contains(loser) {
                self.restore.insert(winner);
            }
            for set in [&mut self.kept_out, &mut self.dropped, &mut self.approved] {
                if set.contains(loser) {
                    set.insert(winner);
                }
            }
            // Marketo unites memberships: whoever may be in the list by our doing is not out of it.
            if self.may.contains(winner) {
                self.kept_out.remove(winner);
            }
            for leads in self.kept_by.values_mut() {
                if leads.contains(loser) {
                    leads.insert(winner);
                }
            }
            self.deleted(loser);
            if erased {
                self.forget(loser);
            }
        }
        self.failed.remove(&winner);
    }

    /// Whoever is in the list by nothing but the place of somebody who is erased, is erased from it in their stead.
    fn take_the_place(&mut self, winner: LeadId, loser: LeadId) {
        let known = self.may.contains(winner) || self.theirs.contains(winner);
        if known || !self.may.contains(loser) || self.theirs.contains(loser) {
            return;
        }
        for job in self.erasing.values_mut() {
            let counted = job.gone.remove(loser);
            if counted {
                job.out -= 1;
            }
            if (counted || job.leads.remove(loser)) && !job.leads.insert(winner) {
                job.out += 1;
            }
        }
    }

    /// Marketo deleted the lead.
    pub fn deleted(&mut self, lead: LeadId) {
        let mut erased = false;
        for job in self.erasing.values_mut() {
            if job.leads.remove(lead) {
                job.out += 1;
                erased = true;
            }
            erased |= job.gone.remove(lead);
        }
        if erased {
            self.forget(lead);
        } else {
            self.drop_lead(lead);
        }
    }

    fn drop_lead(&mut self, lead: LeadId) {
        self.sure.remove(lead);
        self.may.remove(lead);
        self.theirs.remove(lead);
        self.restore.remove(lead);
        self.hold.remove(&lead);
        self.failed.remove(&lead);
        self.doubts.remove(&lead);
        self.newcomers.remove(&lead);
        if let Some(import) = &mut self.import {
            import.leads.remove(lead);
            import.newly.remove(lead);
        }
        for set in [&mut self.kept_out, &mut self.dropped, &mut self.approved] {
            set.remove(lead);
        }
        for leads in self.kept_by.values_mut() {
            leads.remove(lead);
        }
    }

    /// Forgets holds that are over, refusals that no longer concern anybody, who stayed out and is wanted no more, who is
    /// erased, and what happened more than a day ago; notes whose first load is over.
    pub fn tidy(&mut self, wishes: &Wishes, now: u64) {
        self.settle_erasures(wishes, now);
        self.erasing.retain(|_, job| {
            let over = job.answered_at.is_some_and(|at| at.saturating_add(DAY_MS) <= now);
            !over || !job.leads.is_empty() || !job.gone.is_empty()
        });
        let wanted = wishes.wanted();
        let (may, restore) = (&self.may, &self.restore);
        self.hold.retain(|_, until| *until > now);
        self.failed.retain(|lead, _| wanted.contains(*lead) || may.contains(*lead) || restore.contains(*lead));
        for log in [&mut self.left, &mut self.came] {
            log.retain(|hour, _| hour + HOUR_MS + DAY_MS > now);
        }
        if wishes.incomplete {
            return;
        }
        // A paused sync's people have not left their audience.
        let somehow = wishes.union(|wish| wish.is_active() || wish.mode == Mode::Paused);
        self.kept_out = self.kept_out.and(&somehow);
        self.dropped = self.dropped.and(&somehow);
        if !self.approved.is_empty() {
            let mut pending = self.to_remove(wishes, &wanted);
            pending.add_all(&self.to_add(&wanted));
            self.approved = self.approved.and(&pending);
        }
        if self.held.is_none() && !wishes.rests() {
            let missing = self.to_add(&wanted);
            for wish in wishes.syncs.iter().filter(|wish| wish.is_active() && !wish.want.is_empty()) {
                let mut waits = wish.want.and(&missing);
                self.failed.keys().chain(self.hold.keys()).for_each(|lead| {
                    waits.remove(*lead);
                });
                if waits.is_empty() {
                    self.loaded.insert(wish.sync.clone());
                }
            }
        }
    }
}

fn union(log: &BTreeMap<u64, LeadSet>) -> LeadSet {
    let mut all = LeadSet::new();
    log.values().for_each(|leads| all.add_all(leads));
    all
}

impl Plan {
    fn postpone(&mut self, lead: LeadId, until: u64) {
        if self.add.remove(lead) | self.remove.remove(lead) {
            self.waiting += 1;
            self.next_at = Some(self.next_at.map_or(until, |at| at.min(until)));
        }
    }

    /// People of a bulk import wait for its end. Adding them once more does no harm, and is done where nobody knows
    /// whether it runs.
    fn leave_to(&mut self, import: &Import, now: u64) {
        let mut waiting = self.remove.and(&import.leads);
        if import.is_under_way(now) {
            waiting.add_all(&self.add.and(&import.leads));
            self.add.remove_all(&import.leads);
        }
        self.remove.remove_all(&import.leads);
        self.importing = waiting.len();
        self.waiting += self.importing;
        if self.importing > 0 && import.until > now {
            self.next_at = Some(self.next_at.map_or(import.until, |at| at.min(import.until)));
        }
    }

    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(leads: &[LeadId]) -> LeadSet {
        leads.iter().copied().collect()
    }

    fn wishes(mode: Mode, want: &[LeadId]) -> Wishes {
        Wishes { syncs: vec![Wish { sync: "s".into(), want: set(want), mode }], adopt: false, incomplete: false }
    }

    fn refusal(code: &str, at: u64) -> Answer {
        Answer::Refused(Refusal { code: code.into(), at, request_id: "r".into() })
    }

    #[test]
    fn only_the_missing_are_added_and_only_ours_are_removed() {
        let state = State { sure: set(&[1, 4]), may: set(&[1, 4]), theirs: set(&[2, 5]), ..State::default() };
        let plan = state.plan(&wishes(Mode::Active, &[1, 2, 3]), 0);
        assert_eq!((plan.add, plan.remove), (set(&[3]), set(&[4])));
    }

    #[test]
    fn a_refusal_is_tried_again_a_day_later_and_takes_the_intent_back() {
        let mut state = State::default();
        let newly = state.intend_add(&[1, 2], 100);
        state.added(1, refusal("1008", 5), &newly);
        state.added(2, refusal(LEAD_NOT_FOUND, 5), &newly);
        assert!(state.may.is_empty());
        let plan = state.plan(&wishes(Mode::Active, &[1, 2]), 6);
        assert!(plan.is_empty());
        assert_eq!((plan.next_at, plan.waiting), (Some(5 + REFUSED_RETRY_MS), 2));
        assert_eq!(state.plan(&wishes(Mode::Active, &[1, 2]), 5 + REFUSED_RETRY_MS).add, set(&[1, 2]));
    }

    #[test]
    fn a_keeping_sync_lets_nobody_leave_and_a_stopped_one_only_whom_another_takes_over() {
        let mut state = State { sure: set(&[1, 2]), may: set(&[1, 2]), ..State::default() };
        state.settle(&wishes(Mode::ActiveKeeping, &[1, 2]));
        let now = wishes(Mode::ActiveKeeping, &[1]);
        state.settle(&now);
        assert!(state.plan(&now, 0).is_empty());

        let mut both = wishes(Mode::StoppedKeeping, &[1, 2]);
        both.syncs.push(Wish { sync: "t".into(), want: set(&[1]), mode: Mode::Active });
        state.settle(&both);
        assert!(state.plan(&both, 0).is_empty());
        both.syncs[1].want = set(&[]);
        state.settle(&both);
        assert_eq!(state.plan(&both, 0).remove, set(&[1]));
    }

    #[test]
    fn a_paused_sync_holds_its_people_and_a_resumed_one_lets_them_go() {
        let mut state = State { sure: set(&[1]), may: set(&[1]), ..State::default() };
        let mut paused = wishes(Mode::Paused, &[1]);
        state.settle(&paused);
        state.may.insert(2);
        assert!(state.plan(&paused, 0).is_empty(), "not even those who were about to leave");
        paused.syncs.push(Wish { sync: "t".into(), want: set(&[]), mode: Mode::Active });
        state.settle(&paused);
        assert_eq!(state.plan(&paused, 0).remove, set(&[2]));
        let resumed = wishes(Mode::Active, &[]);
        state.settle(&resumed);
        assert_eq!(state.plan(&resumed, 0).remove, set(&[1, 2]));
    }

    #[test]
    fn an_adopted_list_lets_those_leave_whom_we_can_tie() {
        let mut state = State { theirs: set(&[1, 2, 3]), tied: set(&[1, 3]), members_read: true, ..State::default() };
        let adopt = Wishes { adopt: true, ..wishes(Mode::Active, &[3]) };
        assert_eq!(state.plan(&adopt, 0).remove, set(&[1]));
        state.intend_remove(&[1], 100);
        assert!(state.plan(&adopt, 0).is_empty(), "on hold");
        assert_eq!(state.plan(&adopt, 100).remove, set(&[1]));
    }

    #[test]
    fn people_of_an_import_are_left_to_it_and_not_removed_before_it_has_ended() {
        let mut state = State { sure: set(&[1]), may: set(&[1]), ..State::default() };
        state.intend_import(set(&[2, 3]), 0, 100);
        let plan = |state: &State, want: &[LeadId], now| {
            let plan = state.plan(&wishes(Mode::Active, want), now);
            (plan.add, plan.remove, plan.importing, plan.next_at)
        };
        let unknown = plan(&state, &[1, 2, 3], 1);
        assert_eq!(unknown, (set(&[2, 3]), set(&[]), 0, None), "added again by ordinary calls");
        assert_eq!(plan(&state, &[2], 1), (set(&[2]), set(&[1]), 1, Some(100)), "and not removed");
        state.import.as_mut().unwrap().id = Some(7);
        assert_eq!(plan(&state, &[1, 2, 3, 4], 1), (set(&[4]), set(&[]), 2, Some(100)), "left to it");
        assert_eq!(plan(&state, &[2, 3], 100), (set(&[2, 3]), set(&[1]), 0, None), "it takes too long");
        state.imported(Some(&set(&[3])));
        assert_eq!((&state.sure, &state.may), (&set(&[1, 2]), &set(&[1, 2, 3])));
        assert_eq!(plan(&state, &[1, 3], 1), (set(&[3]), set(&[2]), 0, None));
    }

    #[test]
    fn an_import_that_was_not_started_leaves_nothing_behind_and_one_that_failed_leaves_may() {
        let before = State { sure: set(&[1]), may: set(&[1, 2]), ..State::default() };
        let mut state = before.clone();
        state.intend_import(set(&[2, 3]), 0, 100);
        assert_eq!(state.may, set(&[1, 2, 3]));
        state.take_back_import();
        assert_eq!(state, before);
        state.intend_import(set(&[2, 3]), 0, 100);
        state.imported(None);
        assert_eq!((&state.sure, &state.may, &state.import), (&set(&[1]), &set(&[1, 2, 3]), &None));
    }

    #[test]
    fn a_merge_takes_the_loser_out_of_a_running_import() {
        let mut state = State::default();
        state.intend_import(set(&[1, 2]), 0, 100);
        state.merged(2, &BTreeSet::from([1]));
        state.merged(3, &BTreeSet::from([2]));
        state.imported(Some(&set(&[])));
        assert_eq!((&state.sure, &state.may), (&set(&[]), &set(&[3])), "never sure");
    }

    #[test]
    fn nobody_is_judged_while_an_import_may_still_add_them() {
        let mut state = State { sure: set(&[1]), may: set(&[1]), ..State::default() };
        state.intend_import(set(&[1, 2]), 0, 100);
        state.doubt([1], 10, 0);
        assert_eq!((state.doubtful(50, 300), state.next_doubt()), (vec![], Some(100)));
        state.imported(None);
        assert_eq!((state.doubtful(50, 300), state.next_doubt()), (vec![1], Some(10)));
    }

    #[test]
    fn an_extract_says_nothing_about_people_whom_a_call_concerned_since() {
        let mut state = State { sure: set(&[1, 2, 3, 4]), may: set(&[1, 2, 3, 4]), ..State::default() };
        state.extracting("job".into(), 0);
        state.intend_remove(&[2], 10);
        state.removed(2, Answer::Done);
        let newly = state.intend_add(&[2, 5], 10);
        state.added(2, Answer::Done, &newly);
        state.added(5, Answer::Done, &newly);
        state.intend_import(set(&[4, 6]), 0, 100);
        state.imported(Some(&set(&[])));
        state.extracted(&set(&[3]), 10, 0);
        assert_eq!(state.doubts.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(state.comparison, None);
    }

    /// A list with `many` people of ours, loaded; and a wish for `want` of them.
    fn loaded(many: u64, want: std::ops::RangeInclusive<u64>) -> (State, Wishes) {
        let people: LeadSet = (1..=many).collect();
        let mut state = State { sure: people.clone(), may: people, ..State::default() };
        state.loaded.insert("s".into());
        let wish = Wish { sync: "s".into(), want: want.collect(), mode: Mode::Active };
        (state, Wishes { syncs: vec![wish], ..Wishes::default() })
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "nobody is wanted")]
    fn removals_of_a_third_or_of_everybody_are_a_mass_change_and_few_are_not() {
        let guard = GuardSettings::default();
        for (many, want, held) in [
            (1_000, 301..=1_000, false), // 300: just 30 %
            (1_000, 302..=1_000, true),  // 301
            (300, 100..=300, false),     // 99 of 300: fewer than 100
            (300, 101..=300, true),      // 100 of 300
            (20, 21..=20, true),         // all of 20
            (19, 20..=19, false),        // all of 19
            (20, 20..=20, false),        // all but one
        ] {
            let (state, wishes) = loaded(many, want.clone());
            assert_eq!(state.mass_change(&wishes, guard).is_some(), held, "{many} people, {want:?} wanted");
        }
        let strict = GuardSettings { removals_percent: 5, removals_at_least: 2, ..guard };
        let (state, wishes) = loaded(30, 3..=30);
        assert!(state.mass_change(&wishes, guard).is_none());
        assert!(state.mass_change(&wishes, strict.stricter(guard)).is_some());
    }

    #[test]
    fn what_left_within_the_last_day_counts_and_what_left_before_does_not() {
        let guard = GuardSettings::default();
        let (mut state, wishes) = loaded(1_000, 201..=1_000);
        let now = 10 * DAY_MS;
        let batch: Vec<LeadId> = (1..=200).collect();
        state.count(&batch, false, &wishes, now);
        state.intend_remove(&batch, now + 1);
        batch.iter().for_each(|lead| state.removed(*lead, Answer::Done));
        let more = Wishes { syncs: vec![Wish { want: (303..=1_000).collect(), ..wishes.syncs[0].clone() }], ..wishes };
        let held = state.mass_change(&more, guard).unwrap();
        assert_eq!((held.remove.len(), held.recent, held.of), (102, 200, 1_000));
        state.tidy(&more, now + DAY_MS + 2 * HOUR_MS);
        assert!(state.mass_change(&more, guard).is_none(), "102 of 800");
    }

    #[test]
    fn additions_beyond_what_the_list_holds_are_a_mass_change_after_the_first_load() {
        let guard = GuardSettings::default();
        let (mut state, wishes) = loaded(5_000, 1..=10_001);
        assert_eq!(state.mass_change(&wishes, guard).unwrap().add.len(), 5_001);
        state.loaded.clear();
        assert!(state.mass_change(&wishes, guard).is_none(), "the first load");
        let (state, wishes) = loaded(100, 1..=5_099);
        assert!(state.mass_change(&wishes, guard).is_none(), "4,999: too few");
        let (state, wishes) = loaded(6_000, 1..=12_000);
        assert!(state.mass_change(&wishes, guard).is_none(), "6,000 beside 6,000");
    }

    #[test]
    fn an_operator_applies_or_drops_what_is_held_under_its_id_and_it_resolves_itself() {
        let guard = GuardSettings::default();
        let (mut state, wishes) = loaded(1_000, 501..=1_000);
        let hold = |state: &mut State, wishes: &Wishes, id: &str| {
            let change = state.mass_change(wishes, guard);
            state.hold(change, id.into(), 7);
        };
        hold(&mut state, &wishes, "a");
        assert_eq!(state.held.as_ref().unwrap().id, "a");
        // A little more: what is shown does not move. Much more: it is another change.
        let wish = |from: u64| Wishes {
            syncs: vec![Wish { want: (from..=1_000).collect(), ..wishes.syncs[0].clone() }],
            ..Wishes::default()
        };
        hold(&mut state, &wish(540), "b");
        assert_eq!(state.held.as_ref().unwrap().id, "a");
        hold(&mut state, &wish(600), "c");
        assert_eq!(state.held.as_ref().map(|held| (held.id.as_str(), held.since)), Some(("c", 7)));
        assert!(!state.decide("a", true), "an old decision decides nothing");

        let mut applied = state.clone();
        assert!(applied.decide("c", true));
        assert!(applied.mass_change(&wish(600), guard).is_none());
        assert_eq!(applied.plan(&wish(600), 0).remove.len(), 599);
        assert!(applied.mass_change(&wish(1_001), guard).is_some(), "the rest was not applied");

        let mut dropped = state.clone();
        assert!(dropped.decide("c", false));
        assert!(dropped.plan(&wish(600), 0).is_empty());
        // Wanted again and then not: like anybody else.
        dropped.settle(&wish(1));
        dropped.settle(&wish(600));
        assert_eq!(dropped.plan(&wish(600), 0).remove.len(), 599);

        hold(&mut state, &wish(1), "d");
        assert_eq!(state.held, None, "nothing is asked for any more");
    }

    #[test]
    fn stopping_a_sync_so_that_its_people_leave_is_a_decision_already() {
        let (mut state, mut wishes) = loaded(1_000, 1..=1_000);
        wishes.syncs[0].mode = Mode::StoppedLeaving;
        state.settle(&wishes);
        assert!(state.mass_change(&wishes, GuardSettings::default()).is_none());
        assert_eq!(state.plan(&wishes, 0).remove.len(), 1_000);
    }

    #[test]
    fn whoever_was_taken_out_by_hand_stays_out_until_put_back_or_gone_and_come_again() {
        let (mut state, wishes) = loaded(3, 1..=3);
        // Missing from one reading: doubted, and not more.
        state.compared(&set(&[1, 3]), 100, 5);
        assert!(state.plan(&wishes, 5).is_empty() && state.kept_out.is_empty());
        assert!(state.doubtful(104, 300).is_empty());
        assert_eq!(state.doubtful(105, 300), [2]);
        let mut there = state.clone();
        there.asked(&[2], &set(&[2]), &set(&[]), &wishes.wanted());
        assert!(there.kept_out.is_empty() && there.sure.contains(2), "the reading was wrong");
        let mut gone = state.clone();
        gone.asked(&[2], &set(&[]), &set(&[]), &wishes.wanted());
        assert!(gone.kept_out.is_empty() && gone.may.contains(2), "1004: the activity log tells");

        state.asked(&[2], &set(&[]), &set(&[2]), &wishes.wanted());
        assert!(state.plan(&wishes, 200).is_empty());
        assert_eq!((&state.kept_out, state.may.contains(2)), (&set(&[2]), false));
        let mut back = state.clone();
        back.put_back(Some(&[2]));
        assert_eq!(back.plan(&wishes, 200).add, set(&[2]));
        // A paused sync's people have not left; a left audience's have.
        let with = |mode: Mode, want: &[LeadId]| Wishes {
            syncs: vec![Wish { sync: "s".into(), want: set(want), mode }],
            ..Wishes::default()
        };
        state.tidy(&with(Mode::Paused, &[1, 2, 3]), 200);
        state.tidy(&Wishes { incomplete: true, ..with(Mode::Active, &[]) }, 200);
        assert_eq!(state.kept_out, set(&[2]));
        state.tidy(&with(Mode::Active, &[1, 3]), 200);
        assert_eq!(state.plan(&wishes, 200).add, set(&[2]));
    }

    #[test]
    fn the_activity_log_raises_doubts_only_where_it_contradicts_what_we_know() {
        let (mut state, _) = loaded(3, 1..=3);
        state.kept_out = set(&[9]);
        state.theirs = set(&[5]);
        state.seen(&set(&[1, 7, 9]), &set(&[2, 5, 8]), 100, 0);
        assert_eq!(state.doubts.keys().copied().collect::<Vec<LeadId>>(), [2, 5, 9]);
        state.intend_remove(&[2], 50);
        assert_eq!(state.doubtful(100, 300), [5, 9], "a call of ours settles it otherwise");
    }

    #[test]
    fn a_refused_person_is_tried_again_when_something_about_them_changes() {
        let mut state = State::default();
        let newly = state.intend_add(&[1], 100);
        state.added(1, refusal("1008", 5), &newly);
        assert!(state.plan(&wishes(Mode::Active, &[1]), 6).is_empty());
        state.touched(&set(&[1, 2]));
        assert_eq!(state.plan(&wishes(Mode::Active, &[1]), 6).add, set(&[1]));
    }

    /// A state of which nothing but these people's traces is known.
    fn in_every_set(lead: LeadId) -> State {
        let one = set(&[lead]);
        let sets = [&one, &one, &one, &one, &one, &one, &one];
        let [sure, may, tied, kept_out, dropped, approved, untouched] = sets.map(Clone::clone);
        State {
            comparison: Some(Comparison { untouched, ..Comparison::default() }),
            kept_by: BTreeMap::from([("s".to_owned(), one.clone())]),
            left: BTreeMap::from([(0, one.clone())]),
            came: BTreeMap::from([(0, one.clone())]),
            doubts: BTreeMap::from([(lead, 5)]),
            newcomers: BTreeMap::from([(lead, 5)]),
            ..State { sure, may, tied, kept_out, dropped, approved, ..State::default() }
        }
    }

    #[test]
    fn whoever_is_erased_leaves_whatever_keeps_them_and_is_then_in_no_set() {
        for (mode, want) in [(Mode::Paused, &[1, 2][..]), (Mode::ActiveKeeping, &[2]), (Mode::StoppedKeeping, &[1, 2])]
        {
            let wishes = wishes(mode, want);
            let mut state = in_every_set(1);
            state.may.insert(2);
            state.sure.insert(2);
            state.settle(&wishes);
            assert!(!state.plan(&wishes, 0).remove.contains(1), "kept");
            state.erase("job", &set(&[1]));
            state.settle_erasures(&wishes, 0);
            state.settle(&wishes);
            let plan = state.plan_erasures(&wishes, 0);
            assert_eq!((&plan.add, &plan.remove), (&set(&[]), &set(&[1])), "{mode:?}");
            assert!(state.plan(&wishes, 0).remove.contains(1));

            state.intend_remove(&[1], 100);
            state.tidy(&wishes, 50);
            let waiting = state.plan_erasures(&wishes, 50);
            assert_eq!((waiting.is_empty(), waiting.next_at), (true, Some(100)), "on hold");
            assert!(!state.erasing["job"].is_to_be_answered() && state.may.contains(1));
            state.removed(1, Answer::Done);
            state.tidy(&wishes, 50);
            let job = state.erasing.remove("job").unwrap();
            assert_eq!((job.is_to_be_answered(), job.out, job.stay), (true, 1, 0));
            state.left.retain(|_, leads| !leads.is_empty());
            state.came.retain(|_, leads| !leads.is_empty());
            state.settle(&wishes);
            let other = State { sure: set(&[2]), may: set(&[2]), ..State::default() };
            assert_eq!((&state.sure, &state.may, state.kept().contains(1)), (&other.sure, &other.may, false));
            for leads in [&state.tied, &state.kept_out, &state.dropped, &state.approved, &state.theirs] {
                assert!(!leads.contains(1));
            }
            assert!(state.comparison.is_some_and(|comparison| comparison.untouched.is_empty()));
            assert!(state.doubts.is_empty() && state.newcomers.is_empty() && state.hold.is_empty());
            assert!(state.left.is_empty() && state.came.is_empty() && state.failed.is_empty());
        }
    }

    #[test]
    fn whoever_is_wanted_again_or_there_by_others_doing_stays() {
        let mut state = State { sure: set(&[1]), may: set(&[1, 3]), theirs: set(&[2, 3]), ..State::default() };
        let wishes = wishes(Mode::Active, &[1, 5]);
        state.erase("job", &set(&[1, 2, 3, 4]));
        state.settle_erasures(&wishes, 0);
        assert!(state.plan_erasures(&wishes, 0).is_empty());
        let job = &state.erasing["job"];
        assert_eq!((job.is_to_be_answered(), job.out, job.stay), (true, 1, 3));
        assert_eq!((&state.sure, &state.may, &state.theirs), (&set(&[1]), &set(&[1]), &set(&[])));
        assert!(state.others_forgotten, "asked about again before they are added");
    }

    #[test]
    fn the_same_erasure_changes_nothing_until_a_day_after_its_answer() {
        let mut state = State { sure: set(&[1]), may: set(&[1]), ..State::default() };
        let nobody = wishes(Mode::Active, &[]);
        let told = |state: &mut State| {
            let before = state.clone();
            state.erase("job", &set(&[1]));
            *state == before
        };
        assert!(!told(&mut state) && told(&mut state));
        state.intend_remove(&[1], 100);
        state.removed(1, Answer::Done);
        state.tidy(&nobody, 5);
        state.answered("job", 5);
        state.tidy(&nobody, 5 + DAY_MS - 1);
        assert!(told(&mut state));
        state.tidy(&nobody, 5 + DAY_MS);
        assert!(state.erasing.is_empty());
    }

    #[test]
    fn whoever_is_erased_and_unknown_to_marketo_is_out_and_whoever_took_their_place_leaves_too() {
        let gone = || {
            let mut state = State { sure: set(&[1]), may: set(&[1]), ..State::default() };
            state.erase("job", &set(&[1]));
            state.intend_remove(&[1], 100);
            state.removed(1, refusal(LEAD_NOT_FOUND, 7));
            state.tidy(&wishes(Mode::Active, &[]), 8);
            state
        };
        let mut told = gone();
        assert_eq!((told.erasing["job"].is_to_be_answered(), told.erasing["job"].out), (true, 1));
        told.answered("job", 8);
        told.merged(9, &BTreeSet::from([1]));
        assert_eq!(told.plan_erasures(&wishes(Mode::Paused, &[9]), 8).remove, set(&[9]));

        let mut known = gone();
        known.may.insert(9);
        known.merged(9, &BTreeSet::from([1]));
        assert!(known.plan_erasures(&wishes(Mode::Paused, &[9]), 8).is_empty(), "there by our doing anyway");

        let mut never_told = gone();
        let nobody = wishes(Mode::Active, &[]);
        assert_eq!(never_told.plan(&nobody, 8).next_at, Some(7 + REFUSED_RETRY_MS));
        never_told.settle_erasures(&nobody, 7 + REFUSED_RETRY_MS);
        assert!(never_told.may.is_empty() && never_told.failed.is_empty());

        let mut with_the_list = gone();
        with_the_list.erase("another", &set(&[2, 3]));
        with_the_list.erased_with_the_list();
        assert_eq!((with_the_list.erasing["another"].out, with_the_list.may.is_empty()), (2, true));
    }

    #[test]
    fn an_erasure_waits_for_a_running_import_and_for_what_others_are_owed() {
        let mut state = State { theirs: set(&[2]), restore: set(&[2]), ..State::default() };
        let nobody = wishes(Mode::Paused, &[]);
        state.intend_import(set(&[1]), 0, 100);
        state.erase("job", &set(&[1, 2]));
        state.settle_erasures(&nobody, 0);
        let plan = state.plan_erasures(&nobody, 0);
        assert_eq!((plan.add, plan.remove), (set(&[2]), set(&[])));
        let newly = state.intend_add(&[2], 10);
        state.added(2, Answer::Done, &newly);
        state.imported(Some(&set(&[])));
        state.settle_erasures(&nobody, 0);
        assert_eq!((state.erasing["job"].stay, state.plan_erasures(&nobody, 0).remove), (1, set(&[1])));
    }

    #[test]
    fn whoever_is_erased_counts_for_no_mass_change() {
        let (mut state, wishes) = loaded(30, 1..=30);
        let guard = GuardSettings { removals_percent: 5, removals_at_least: 2, ..GuardSettings::default() };
        let fewer = Wishes { syncs: vec![Wish { want: (6..=30).collect(), ..wishes.syncs[0].clone() }], ..wishes };
        assert!(state.mass_change(&fewer, guard).is_some());
        state.erase("job", &set(&[1, 2, 3, 4]));
        assert!(state.mass_change(&fewer, guard).is_none(), "one of 26");
        state.count(&[1, 2, 3, 4, 5], false, &fewer, 0);
        assert_eq!(union(&state.left), set(&[5]));
    }

    #[test]
    fn whoever_was_merged_away_before_we_added_them_makes_nobody_ours() {
        let mut state = State::default();
        let newly = state.intend_add(&[2], 9);
        state.added(2, refusal(LEAD_NOT_FOUND, 5), &newly);
        // 1 was there before us, and nobody has asked.
        state.merged(1, &BTreeSet::from([2]));
        assert!(!state.may.contains(1) && !state.may.contains(2));
        // Whom an earlier call may have put there counts all the same.
        let newly = state.intend_add(&[3], 9);
        assert!(newly.contains(3));
        let again = state.intend_add(&[3], 9);
        state.added(3, refusal(LEAD_NOT_FOUND, 5), &again);
        state.merged(4, &BTreeSet::from([3]));
        assert!(state.may.contains(4));
    }

    #[test]
    fn state_survives_its_encoding() {
        let mut state = State { v: 1, sure: set(&[1, u64::MAX]), ..State::default() };
        state.hold.insert(4, 5);
        state.kept_by.insert("s".into(), set(&[9]));
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}
