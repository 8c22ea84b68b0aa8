//! What happens at random in a world, what goes wrong beside, and what must hold all along.

use std::collections::{BTreeMap, BTreeSet};

use doubles::marketo::{Commit, Fault, FaultAnswer, Kind as Call, Which};
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use serde_json::json;
use world::types::Lead;

use crate::fakes::Faults;
use crate::kinds::Kind;
use crate::scenario::{BEGIN, ECIDS, EXPIRING, Erase, FileOf, LEADS, LIST, Plan, SIDS, Scenario, Streamed, TOKENS};
use crate::scenario::{ecid, token};

/// With the sweep off the world comes to rest within this time after the last fact, in ms: nothing but what was meant to
/// wait has to be waited for. A look-up that failed is tried again within the hour.
const BOUND_MS: u64 = 2 * 3_600_000;
/// Between two things that happen passes less than this, in ms.
const PAUSE_MS: u64 = 120_000;
/// From the beginning until a quarter of an hour before the day of Marketo's quota ends (06:00 UTC), in ms.
const UNTIL_MIDNIGHT_MS: u64 = 18 * 3_600_000 - 900_000;

/// One reason why somebody is wanted: a sync, a person, an ECID, and the token between them unless Marketo told it.
pub(crate) type Tie = (usize, u64, u64, Option<u64>);

/// What must hold all along.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Why the members of a list are wanted, as it was at the last rest and has been since.
    steady: BTreeMap<u64, BTreeSet<Tie>>,
    /// Members before us, by list, as they were after the last step.
    theirs: BTreeMap<u64, BTreeSet<u64>>,
    /// Who was said to have left an audience since the last rest: segment and ECID.
    pub(crate) exits: BTreeSet<(u64, u64)>,
    /// Taken out by hand while wanted, and wanted ever since: they stay out.
    pub(crate) out: BTreeMap<u64, BTreeSet<u64>>,
    /// Wanted in a list at some time.
    ever: BTreeMap<u64, BTreeSet<u64>>,
}

impl Scenario {
    /// Lets random things happen, with faults; then ends the faults and waits for rest.
    pub fn play(&mut self, plan: Plan) -> Result<(), String> {
        self.begin(plan);
        for _ in 0..plan.steps {
            self.happen()?;
            self.trouble();
            self.refuse();
            let pause = self.rng.random_range(0..PAUSE_MS);
            self.driver.run_for(pause);
            self.arrive();
            self.audit()?;
        }
        // Half of what is late comes while nothing is wrong any more.
        if self.rng.random_bool(0.5) {
            self.arrive_all();
        }
        {
            let mut store = self.driver.sim.lock();
            store.faults = Faults::NONE;
            store.marketo.clear_faults();
        }
        self.refusals.answers.clear();
        self.mend();
        self.resume_all();
        self.settle()?;
        self.arrive_all();
        self.settle()?;
        self.audit()
    }

    fn begin(&mut self, plan: Plan) {
        self.declare_parts(plan);
        self.kinds = plan.kinds;
        self.driver.sweep_is_off = plan.sweep_is_off();
        let answers = if plan.kinds.has(Kind::Answer) { self.rng.random_range(1..4) } else { 0 };
        let answers: Vec<Fault> = (0..answers).map(|_| self.any_answer()).collect();
        self.refusals.answers.clone_from(&answers);
        let mut store = self.driver.sim.lock();
        store.sweep_is_off = plan.sweep_is_off();
        store.watching = true;
        if plan.kinds.has(Kind::Midnight) {
            store.counts.count(Kind::Midnight);
            store.advance(BEGIN + UNTIL_MIDNIGHT_MS);
        }
        store.faults = plan.faults();
        answers.into_iter().for_each(|answer| store.marketo.inject(answer));
        drop(store);
        self.watch.theirs = self.theirs.clone();
    }

    /// An answer that Marketo gives instead of the true one, to a share of the calls.
    fn any_answer(&mut self) -> Fault {
        let passing = [601, 602, 606, 608, 614, 615, 713, 719];
        let unsure = [
            FaultAnswer::Http502,
            FaultAnswer::Http(500),
            FaultAnswer::Http(503),
            FaultAnswer::Code(604),
            FaultAnswer::Code(611),
            FaultAnswer::NumberCode(604),
            FaultAnswer::NoErrors,
            FaultAnswer::EmptyErrors,
            FaultAnswer::Html,
            FaultAnswer::Empty,
            FaultAnswer::Drop,
        ];
        let which = Which::Share([0.02, 0.1][self.rng.random_range(0..2)]);
        match self.rng.random_range(0..3) {
            0 => {
                let answer = FaultAnswer::Code(passing[self.rng.random_range(0..passing.len())]);
                Fault { kind: None, which, answer, commit: Commit::Before }
            }
            1 => {
                let answer = [FaultAnswer::NumberCodes, FaultAnswer::Shuffled][self.rng.random_range(0..2)];
                Fault { kind: None, which, answer, commit: Commit::Before }
            }
            _ => {
                let answer = unsure[self.rng.random_range(0..unsure.len())];
                let late = self.rng.random_range(1_000..180_000);
                let commit =
                    [Commit::Before, Commit::After, Commit::Late { after_ms: late }][self.rng.random_range(0..3)];
                // What only a writing call may do late or after, a reading one does not do at all.
                match self.rng.random_range(0..3) {
                    0 => Fault { kind: None, which, answer, commit: Commit::Before },
                    1 => Fault { kind: Some(Call::ListAdd), which: Which::Share(0.3), answer, commit },
                    _ => Fault { kind: Some(Call::ListRemove), which: Which::Share(0.3), answer, commit },
                }
            }
        }
    }

    /// Whether this kind happens in this world; it is counted.
    fn does(&mut self, kind: Kind) -> bool {
        let does = self.kinds.has(kind);
        if does {
            self.driver.sim.lock().counts.count(kind);
        }
        does
    }

    /// One thing happens.
    fn happen(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..28) {
            0..5 => {
                let (e, t) = (self.any(ECIDS), self.any(TOKENS));
                match self.rng.random_range(0..5) {
                    // A message that was late: it may be about somebody who was erased meanwhile.
                    0 => self.see_at(e, t, BEGIN),
                    // A match that ends within this world.
                    1 => self.see_at(e, t, EXPIRING),
                    _ => self.see(e, t),
                }
            }
            5..9 if self.does(Kind::File) => self.random_file(),
            9..11 if self.does(Kind::Form) => self.random_form(),
            11..13 if self.does(Kind::Lead) => self.random_lead(),
            13 if (!self.kinds.has(Kind::Chain) || self.rng.random_bool(0.6)) && self.does(Kind::Merge) => {
                let (winner, loser) = (self.any(LEADS), self.any(LEADS));
                self.merge(winner, loser);
            }
            13 if self.does(Kind::Chain) => self.random_chain()?,
            14 if self.kinds.has(Kind::ListGone) && self.rng.random_bool(0.3) => self.random_list_gone(),
            14 if self.does(Kind::Delete) => self.random_delete(),
            15..18 => self.random_create()?,
            18 if self.does(Kind::Pause) => self.pause_or_resume(),
            19 if self.does(Kind::Stop) => self.stop_one()?,
            20..22 if self.does(Kind::Erase) => {
                let subject = match self.rng.random_range(0..4) {
                    0 => Erase::Token(self.any(TOKENS)),
                    1 => Erase::Ecid(self.any(ECIDS)),
                    2 => Erase::Lead(self.anybody()),
                    _ => Erase::Email(self.anybody()),
                };
                self.erase(&subject)?;
            }
            22..25 if self.does(Kind::Stream) => self.random_stream(),
            25..27 if self.kinds.has(Kind::ByHand) => self.edit_by_hand()?,
            _ => {}
        }
        Ok(())
    }

    /// Other tools use Marketo, now and then.
    fn trouble(&mut self) {
        if !self.kinds.has(Kind::OtherTools) || !self.rng.random_bool(0.3) {
            return;
        }
        let calls = self.rng.random_range(40..110);
        // Before midnight the day's quota may be used up; after it, it would not come back while the world lasts.
        let now = self.driver.sim.lock().now;
        let spends = now < BEGIN + 18 * 3_600_000 && self.kinds.has(Kind::Midnight) && self.rng.random_bool(0.5);
        self.tell(format!("other tools make {calls} calls{}", if spends { ", and have spent the day's" } else { "" }));
        let mut store = self.driver.sim.lock();
        for _ in 0..calls {
            store.counts.count(Kind::OtherTools);
            store.marketo.other_call(now, 0);
        }
        if spends {
            store.marketo.others_used(now, 49_990);
        }
    }

    pub(crate) fn random_form(&mut self) {
        let (t, p) = (self.any(TOKENS), self.any(LEADS + 2));
        self.moved.insert(token(t));
        let mut store = self.driver.sim.lock();
        let now = store.now;
        let email = format!("p{p}@example.com");
        let lists = store.marketo.lists_dump();
        let before: BTreeSet<u64> = store.marketo.leads().keys().copied().collect();
        let owner = store.marketo.owner_of(&token(t));
        let person = store.marketo.fill_form(now, &token(t), &email);
        let after: BTreeSet<u64> = store.marketo.leads().keys().copied().collect();
        drop(store);
        self.tell(format!("form {t} {email} -> {person}"));
        // A form may merge an anonymous visitor into the person who has the email.
        if let Some(gone) = owner.filter(|owner| before.contains(owner) && !after.contains(owner)) {
            self.note_merge(person, gone, &lists);
        }
        self.next_lead = self.next_lead.max(person + 1);
    }

    /// Two people become one, and at once or soon the winner becomes a third one, whom somebody may delete. In between
    /// somebody may ask about the loser's cookies.
    fn random_chain(&mut self) -> Result<(), String> {
        let mut people: Vec<u64> = self.driver.sim.lock().marketo.leads().keys().copied().collect();
        people.shuffle(&mut self.rng);
        let [first, second, third, ..] = people[..] else { return Ok(()) };
        let asked = self.rng.random_bool(0.5);
        let cookies: Vec<u64> = (1..=TOKENS).filter(|t| asked && self.owner_of(*t) == Some(first)).collect();
        self.merge(second, first);
        for t in cookies {
            let e = self.any(ECIDS);
            self.see(e, t);
        }
        self.pass(0.5, 120_000)?;
        self.merge(third, second);
        if self.rng.random_bool(0.3) {
            self.pass(0.5, 60_000)?;
            self.random_delete_of(third);
        }
        Ok(())
    }

    /// With this chance some time passes, of at most so many ms.
    fn pass(&mut self, chance: f64, most: u64) -> Result<(), String> {
        if self.rng.random_bool(chance) {
            let pause = self.rng.random_range(0..most);
            self.driver.run_for(pause);
        }
        self.audit()
    }

    fn random_delete(&mut self) {
        let lead = self.any(LEADS);
        self.random_delete_of(lead);
    }

    fn random_delete_of(&mut self, lead: u64) {
        // A cookie that moves and dies with its new owner before anybody looks is found by the backstop a week later:
        // longer than these worlds last.
        let cookies = self.driver.sim.lock().marketo.lead(lead).map(|lead| lead.cookies.clone());
        if !cookies.into_iter().flatten().any(|cookie| self.moved.contains(&cookie)) {
            self.delete(lead);
        }
    }

    fn random_stream(&mut self) {
        let now = self.driver.sim.lock().now;
        let changed = self.rng.random_range(BEGIN..=now);
        // One source vouches for what it repeats, the other one does not.
        let as_of = if self.rng.random_bool(0.5) { now } else { changed };
        let (sid, e) = (SIDS[self.rng.random_range(0..SIDS.len())], self.any(ECIDS));
        let said = Streamed { sid, ecid: e, changed, as_of, inside: self.rng.random_bool(0.6) };
        self.hear(said);
    }

    fn random_file(&mut self) {
        // Files arrive in any order of their times.
        let mut time = BEGIN + self.rng.random_range(0..7_200_000);
        while self.files.contains_key(&time) {
            time += 1;
        }
        let snapshot = self.rng.random_bool(0.5);
        let mut file = FileOf { snapshot, inside: BTreeMap::new(), outside: BTreeMap::new() };
        for sid in SIDS {
            if snapshot {
                file.inside.insert(sid, self.some_ecids(0.4));
            } else {
                file.inside.insert(sid, self.some_ecids(0.12));
                let left = self.some_ecids(0.12);
                file.outside.insert(sid, left);
            }
        }
        file.inside.retain(|_, ecids| !ecids.is_empty());
        file.outside.retain(|_, ecids| !ecids.is_empty());
        if file.inside.is_empty() && file.outside.is_empty() {
            return;
        }
        if self.kinds.has(Kind::Parts) && self.rng.random_bool(0.4) {
            self.deliver_parts(time, file);
        } else {
            self.deliver(time, file);
        }
    }

    pub(crate) fn random_lead(&mut self) {
        let known: Vec<u64> = self.driver.sim.lock().marketo.leads().keys().copied().collect();
        let id = if known.is_empty() || self.rng.random_bool(0.2) {
            self.next_lead += 1;
            self.next_lead - 1
        } else {
            known[self.rng.random_range(0..known.len())]
        };
        // A cookie moves to another lead, and never to nobody.
        let held = self.driver.sim.lock().marketo.lead(id).map_or_else(Vec::new, |lead| lead.cookies.clone());
        let lead = Lead {
            id,
            email: self.rng.random_bool(0.7).then(|| format!("p{id}@example.com")),
            cookies: held.into_iter().chain((1..=TOKENS).filter(|_| self.rng.random_bool(0.2)).map(token)).collect(),
            ecids: (1..=ECIDS).filter(|_| self.rng.random_bool(0.1)).map(ecid).collect(),
        };
        self.tell(format!("lead {lead:?}"));
        self.moved.extend(lead.cookies.iter().cloned());
        let mut store = self.driver.sim.lock();
        let now = store.now;
        store.marketo.upsert_lead(now, lead);
    }

    fn random_create(&mut self) -> Result<(), String> {
        let sid = SIDS[self.rng.random_range(0..SIDS.len())];
        let list = match self.rng.random_range(0..3) {
            0 => {
                let name = format!("New {}", self.rng.random_range(0..2));
                match self.syncs.first() {
                    Some(sync) if sync.list != LIST => json!({"id": sync.list}),
                    _ => json!({"name": name}),
                }
            }
            _ => json!({"id": LIST}),
        };
        let is_gone = list["id"].as_u64().is_some_and(|id| !self.driver.sim.lock().marketo.lists().contains_key(&id));
        match self.create(sid, &list) {
            Ok(id) if is_gone => Err(format!("sync {id} was created on a list that is gone")),
            Ok(_) | Err((400..=499, _)) => Ok(()),
            Err((status, answer)) => Err(format!("a sync was not created: {status} {answer}")),
        }
    }

    /// Somebody puts a person into a list in Marketo, or takes one out. Settles before, so that the model knows what the
    /// functions know; what is not certain even then may be either way.
    fn edit_by_hand(&mut self) -> Result<(), String> {
        let lists: Vec<u64> = self.driver.sim.lock().marketo.lists().keys().copied().collect();
        if lists.is_empty() {
            return Ok(());
        }
        let list = lists[self.rng.random_range(0..lists.len())];
        self.in_peace(Self::settle)?;
        let paused = self.syncs.iter().any(|sync| sync.list == list && sync.paused && !sync.over);
        let people: Vec<u64> = self.driver.sim.lock().marketo.leads().keys().copied().collect();
        if paused || people.is_empty() {
            return Ok(());
        }
        let lead = people[self.rng.random_range(0..people.len())];
        let out = self.watch.out.get(&list).is_some_and(|out| out.contains(&lead));
        let wanted = self.wanted(list).contains(&lead);
        let mut store = self.driver.sim.lock();
        let now = store.now;
        if store.marketo.members(list).is_some_and(|members| members.contains(&lead)) {
            store.marketo.remove_by_hand(now, list, lead);
            store.counts.count(Kind::ByHand);
            drop(store);
            self.tell(format!("{lead} is taken out of {list} by hand"));
            let was_theirs = self.theirs.get_mut(&list).is_some_and(|theirs| theirs.remove(&lead));
            let was_kept = self.kept.get_mut(&list).is_some_and(|kept| kept.remove(&lead));
            if wanted && !was_theirs && !was_kept && !self.either.contains(&lead) {
                self.watch.out.entry(list).or_default().insert(lead);
            } else {
                self.either.insert(lead);
            }
        } else if !out && !wanted {
            store.marketo.add_by_hand(now, list, lead);
            store.counts.count(Kind::ByHand);
            drop(store);
            self.tell(format!("{lead} is put into {list} by hand"));
            // Who was wanted before may still count as ours; of a list that we made the activity log tells, later.
            let ever = self.watch.ever.get(&list).is_some_and(|ever| ever.contains(&lead));
            if ever || list != LIST {
                self.either.insert(lead);
            } else {
                self.theirs.entry(list).or_default().insert(lead);
            }
        }
        Ok(())
    }

    /// Does something while nothing goes wrong, and Marketo gives no other answers than the true ones: three kinds of them together
    /// may be a quarter of all, with which nobody promises an end by any time.
    pub(crate) fn in_peace(&mut self, does: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        let faults = std::mem::replace(&mut self.driver.sim.lock().faults, Faults::NONE);
        self.mend();
        self.driver.sim.lock().marketo.clear_faults();
        let done = does(self);
        self.driver.sim.lock().faults = faults;
        self.answer_otherwise();
        done
    }

    /// The world is at rest: from here on nobody is taken out who is wanted for a reason that lasts.
    pub(crate) fn note_rest(&mut self) {
        self.watch.exits.clear();
        self.watch.steady = self.reasons();
    }

    /// Why anybody is wanted, by list; paused syncs want nobody new.
    fn reasons(&self) -> BTreeMap<u64, BTreeSet<Tie>> {
        let mut reasons: BTreeMap<u64, BTreeSet<Tie>> = BTreeMap::new();
        for (index, sync) in self.syncs.iter().enumerate().filter(|(_, sync)| !sync.over && !sync.paused) {
            let ties = self.ties(sync.sid).into_iter().map(|(lead, e, t)| (index, lead, e, t));
            reasons.entry(sync.list).or_default().extend(ties);
        }
        reasons
    }

    /// What must hold all along, looked at after each step: nobody who was there before us is taken out, and nobody who is
    /// wanted throughout; and the calls stay within the budget.
    pub(crate) fn audit(&mut self) -> Result<(), String> {
        let reasons = self.reasons();
        let exits = &self.watch.exits;
        let syncs = &self.syncs;
        for (list, steady) in &mut self.watch.steady {
            let now = reasons.get(list);
            steady.retain(|tie| {
                let left = exits.contains(&(syncs[tie.0].sid, tie.2));
                !left && now.is_some_and(|now| now.contains(tie))
            });
        }
        let (removed, wrong) = {
            let mut store = self.driver.sim.lock();
            (std::mem::take(&mut store.removed), store.wrong.take())
        };
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        for (list, lead) in removed {
            let among = |sets: &BTreeMap<u64, BTreeSet<u64>>| sets.get(&list).is_some_and(|set| set.contains(&lead));
            if among(&self.watch.theirs) && among(&self.theirs) && !self.either.contains(&lead) {
                return Err(format!("{lead} was in list {list} before us and was taken out"));
            }
            let steady = self.watch.steady.get(&list).into_iter().flatten().find(|tie| tie.1 == lead);
            if let Some((sync, _, e, t)) = steady {
                return Err(format!(
                    "{lead} was taken out of list {list}, and was wanted throughout by sync {} on account of {e} and {t:?}",
                    self.syncs[*sync].id
                ));
            }
        }
        self.watch.theirs = self.theirs.clone();
        let lists: BTreeSet<u64> = self.syncs.iter().map(|sync| sync.list).collect();
        for list in lists {
            let wanted = self.wanted(list);
            // Who was taken out by hand may come again once the reason for which they were wanted has ended.
            let lasts: BTreeSet<u64> = self.watch.steady.get(&list).into_iter().flatten().map(|tie| tie.1).collect();
            if let Some(out) = self.watch.out.get_mut(&list) {
                let ended: Vec<u64> = out.iter().copied().filter(|lead| !lasts.contains(lead)).collect();
                out.retain(|lead| lasts.contains(lead));
                self.either.extend(ended);
            }
            self.watch.ever.entry(list).or_default().extend(wanted);
        }
        Ok(())
    }

    /// How long the world may take to come to rest, in ms.
    pub(crate) fn patience(&self) -> u64 {
        if self.driver.sweep_is_off { BOUND_MS } else { 6 * 3_600_000 }
    }
}
