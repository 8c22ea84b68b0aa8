//! The list protocol, searched exhaustively: two leads, two syncs, one list, and every order in which wishes change,
//! calls get lost or land late, the writer dies or stands still until another one begins, Marketo merges, somebody edits
//! by hand, a sync keeps its people or is paused, and people are erased.

use std::collections::{BTreeSet, HashSet};

use domain::limits::{FUNCTION_MS, LATE_EFFECT_MS, REFUSED_RETRY_MS};
use domain::list::{Answer, LEAD_NOT_FOUND, Mode, Refusal, State, Wish, Wishes};
use domain::planted::{Guard, holds, take_out};
use domain::{LeadId, LeadSet};
use serde::{Deserialize, Serialize};
use simulation::driver::VISIBILITY_MS;
use simulation::scenario::knows;

/// How much of each trouble a search allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Budget {
    changes: u8,
    doubts: u8,
    crashes: u8,
    merges: u8,
    by_hand: u8,
    /// Somebody takes a person out of the list by hand.
    taken_out: u8,
    /// An operator has a person erased.
    erasures: u8,
    /// An operator pauses the first sync, or resumes it.
    pauses: u8,
    /// The first sync keeps its people.
    keeps: bool,
    /// A writer stands still between its intent and its call, and goes on when somebody else may be at work.
    stands_still: u8,
}

/// A writer that stands still. Its message is given to another one when the visibility time-out is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Still {
    op: Op,
    lead: LeadId,
    newly: LeadSet,
    /// For how long, in ms.
    age: u64,
    /// Its call has gone out, and it died.
    sent: bool,
    /// Somebody else has changed what is stored: what it writes is refused.
    overtaken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Op {
    Add,
    Remove,
}

/// A world: Marketo's truth, what we stored, and the writer that may be in the middle of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct World {
    now: u64,
    /// Leads that exist.
    leads: BTreeSet<LeadId>,
    /// Members of the list, in truth.
    members: BTreeSet<LeadId>,
    /// There before us or added by hand, in truth.
    theirs: BTreeSet<LeadId>,
    /// Taken out by hand and wanted ever since: they stay out.
    out: BTreeSet<LeadId>,
    /// Taken out by hand, and wanted anew since, or merged: nobody can know whether the writer has seen it.
    either: BTreeSet<LeadId>,
    /// Merged in a way of which nobody can know whether the person was there before us.
    unknowable: BTreeSet<LeadId>,
    /// Wants of the two syncs.
    wants: [BTreeSet<LeadId>; 2],
    /// What the first sync wanted when it was paused.
    frozen: Option<BTreeSet<LeadId>>,
    /// Erased, and not wanted or merged into since.
    erased: BTreeSet<LeadId>,
    stored: State,
    /// The list is compared with what is known of it (only where hands reach into it: it makes many more worlds).
    compares: bool,
    /// What came and left within a day is counted (only where it may name somebody erased: it makes more worlds).
    counts: bool,
    /// The list was looked at (only without the guard that asks before each first add).
    looked: bool,
    /// An intent is stored, and its call has not gone out yet; the writer's own copy of the state.
    sending: Option<(Op, LeadId, LeadSet)>,
    /// A call on its way, and for how long at most it may be, in ms.
    late: Option<(Op, LeadId, u64)>,
    still: Option<Still>,
    /// Of the queue, in ms.
    visibility: u64,
    /// By how much time passes, in ms.
    step: u64,
    /// A merge that Marketo has done and not told of yet.
    untold: Option<(LeadId, LeadId)>,
    left: Budget,
}

impl World {
    fn new(left: Budget, members: &[LeadId]) -> Self {
        Self {
            still: None,
            visibility: VISIBILITY_MS,
            step: if left.stands_still > 0 { LATE_EFFECT_MS / 3 } else { LATE_EFFECT_MS },
            now: 0,
            leads: BTreeSet::from([1, 2]),
            members: members.iter().copied().collect(),
            theirs: members.iter().copied().collect(),
            out: BTreeSet::new(),
            either: BTreeSet::new(),
            unknowable: BTreeSet::new(),
            wants: [BTreeSet::new(), BTreeSet::new()],
            frozen: None,
            erased: BTreeSet::new(),
            stored: State::default(),
            compares: left.taken_out > 0,
            counts: left.erasures > 0 && left.merges > 0,
            looked: false,
            sending: None,
            late: None,
            untold: None,
            left,
        }
    }

    fn wishes(&self) -> Wishes {
        let syncs = self.wants.iter().enumerate().map(|(index, want)| {
            let (want, mode) = match &self.frozen {
                Some(frozen) if index == 0 => (frozen, Mode::Paused),
                _ if index == 0 && self.left.keeps => (want, Mode::ActiveKeeping),
                _ => (want, Mode::Active),
            };
            let want = want.iter().copied().filter(|lead| self.leads.contains(lead) || self.untold.is_some()).collect();
            Wish { sync: index.to_string(), want, mode }
        });
        // A sync begins when it first wants somebody.
        let syncs = syncs.filter(|wish| !wish.want.is_empty() || wish.sync == "0").collect();
        Wishes { syncs, ..Wishes::default() }
    }

    /// Whom an active sync wants.
    fn wanted(&self) -> BTreeSet<LeadId> {
        let paused = usize::from(self.frozen.is_some());
        self.wants[paused..].iter().flatten().copied().collect()
    }

    /// An operator has somebody erased. `told`: the audiences have worked it out before the writer reads its note.
    fn erase(&mut self, lead: LeadId, told: bool) {
        self.left.erasures -= 1;
        if told {
            self.wants.iter_mut().for_each(|want| {
                want.remove(&lead);
            });
            if self.out.remove(&lead) {
                self.either.insert(lead);
            }
        }
        self.stored.erase(&format!("job {}", self.left.erasures), &LeadSet::from_iter([lead]));
        let wishes = self.wishes();
        self.stored.settle_erasures(&wishes, self.now);
        if !self.wanted().contains(&lead) {
            self.erased.insert(lead);
        }
    }

    /// The writer answers the jobs whose people are done.
    fn answer(&mut self) {
        let jobs: Vec<String> = self.stored.erasing.keys().cloned().collect();
        for id in jobs {
            let job = &self.stored.erasing[&id];
            if job.is_to_be_answered() {
                assert_eq!(job.out + job.stay, 1, "{self:?}");
                self.stored.answered(&id, 0);
            }
        }
        // What is remembered of an answered job for a day makes no difference here.
        self.stored.erasing.retain(|_, job| job.answered_at.is_none() || !job.gone.is_empty() || !job.leads.is_empty());
    }

    /// What Marketo does with a call that reaches it.
    fn execute(&mut self, op: Op, lead: LeadId) -> Answer {
        if !self.leads.contains(&lead) {
            return Answer::Refused(Refusal { code: LEAD_NOT_FOUND.into(), at: self.now, request_id: String::new() });
        }
        match op {
            Op::Add => self.members.insert(lead),
            // Not in the list (1015) is as good as removed.
            Op::Remove => self.members.remove(&lead),
        };
        Answer::Done
    }

    /// The writer begins: it learns of merges, plans, asks who is there, and stores an intent.
    fn begin(&mut self) -> bool {
        let wishes = self.wishes();
        let mut state = self.stored.clone();
        state.settle_erasures(&wishes, self.now);
        state.settle(&wishes);
        loop {
            let plan = state.plan(&wishes, self.now);
            let (op, lead) = match (plan.add.iter().next(), plan.remove.iter().next()) {
                (Some(lead), _) => (Op::Add, lead),
                (None, Some(lead)) => (Op::Remove, lead),
                (None, None) => {
                    state.tidy(&wishes, self.now);
                    self.stored = state;
                    self.answer();
                    return false;
                }
            };
            let hold = self.now + LATE_EFFECT_MS;
            if self.counts {
                state.count(&[lead], op == Op::Add, &wishes, self.now);
            }
            let newly = match op {
                Op::Add => {
                    if holds(Guard::AskBeforeFirstAdd) {
                        let there: Vec<LeadId> =
                            state.strangers(&[lead]).into_iter().filter(|lead| self.members.contains(lead)).collect();
                        // Asked between a merge and its news: a winner who is there by the loser's place looks like
                        // one who was there before us. Nobody can know, so the person stays.
                        self.unknowable.extend(
                            there.iter().filter(|lead| self.untold.is_some_and(|(winner, _)| winner == **lead)),
                        );
                        state.were_there(there);
                    } else if !self.looked {
                        self.looked = true;
                        state.were_there(self.members.iter().copied());
                    }
                    if state.theirs.contains(lead) && !state.restore.contains(lead) {
                        continue;
                    }
                    state.intend_add(&[lead], hold)
                }
                Op::Remove => {
                    state.intend_remove(&[lead], hold);
                    LeadSet::new()
                }
            };
            self.stored = state;
            self.sending = Some((op, lead, newly));
            return true;
        }
    }

    /// The writer compares the list with what it knows, and doubts.
    fn compare(&mut self) {
        let members: LeadSet = self.members.iter().copied().collect();
        self.stored.compared(&members, LATE_EFFECT_MS, self.now);
    }

    /// The writer asks about those whom it doubts.
    fn ask(&mut self) {
        let asked = self.stored.doubtful(self.now, 300);
        let there = |lead: &&LeadId| self.leads.contains(lead);
        let (members, others): (Vec<LeadId>, Vec<LeadId>) =
            asked.iter().filter(there).partition(|lead| self.members.contains(lead));
        let wanted = self.wishes().wanted();
        self.stored.asked(&asked, &members.into_iter().collect(), &others.into_iter().collect(), &wanted);
    }

    /// Whether a writer is given the message: nobody has it, or has had it for too long.
    fn is_served(&self) -> bool {
        self.still.as_ref().is_none_or(|still| still.age >= self.visibility)
    }

    /// A writer works on what is stored.
    fn overtake(&mut self) {
        if let Some(still) = &mut self.still {
            still.overtaken = true;
        }
    }

    /// The writer that stood still goes on: its call is answered at once, or lands late. `dies`: before it could store
    /// anything.
    fn go_on(&mut self, late: bool, dies: bool) {
        let Some(mut still) = self.still.take() else { return };
        if late {
            self.late = Some((still.op, still.lead, LATE_EFFECT_MS));
            if !dies && !still.overtaken {
                self.stored.hold_on(&[still.lead], self.now + LATE_EFFECT_MS);
            }
        } else {
            let answer = self.execute(still.op, still.lead);
            if !dies && !still.overtaken {
                self.answered(still.op, still.lead, &still.newly, answer);
            }
        }
        if dies {
            still.sent = true;
            self.still = Some(still);
        }
    }

    fn pass_time(&mut self) {
        self.now += self.step;
        if let Some((_, _, left)) = &mut self.late {
            *left -= self.step;
        }
        if let Some(still) = &mut self.still {
            still.age += self.step;
            // Lambda has stopped it, and its message has come back.
            if still.age >= FUNCTION_MS.max(self.visibility) {
                self.still = None;
            }
        }
    }

    fn answered(&mut self, op: Op, lead: LeadId, newly: &LeadSet, answer: Answer) {
        match op {
            Op::Add => self.stored.added(lead, answer, newly),
            Op::Remove => self.stored.removed(lead, answer),
        }
    }

    /// Marketo tells of the merge.
    fn told(&mut self) {
        if let Some((winner, loser)) = self.untold.take() {
            let known = |lead: LeadId| self.stored.may.contains(lead) || self.stored.theirs.contains(lead);
            let by_their_place = self.stored.may.contains(loser) && !self.stored.theirs.contains(loser);
            // Who is there by nothing but the place of somebody erased is erased too.
            let heir = self.erased.contains(&loser) && by_their_place && !known(winner);
            if heir && !self.wanted().contains(&winner) {
                self.erased.insert(winner);
            }
            self.stored.merged(winner, &BTreeSet::from([loser]));
        }
    }

    /// Everything that may happen next.
    fn next(&self) -> Vec<World> {
        let mut next = Vec::new();
        let mut push = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        if self.left.changes > 0 {
            for sync in 0..2 {
                for lead in self.leads.clone() {
                    push(&|world| {
                        world.left.changes -= 1;
                        if !world.wants[sync].remove(&lead) {
                            world.wants[sync].insert(lead);
                        }
                        if world.wanted().contains(&lead) {
                            world.erased.remove(&lead);
                        }
                        // Gone from the audience: whoever comes again is added, if the writer has seen them go.
                        if !world.wants.iter().flatten().any(|wanted| *wanted == lead) && world.out.remove(&lead) {
                            world.either.insert(lead);
                        }
                    });
                }
            }
        }
        if let Some((op, lead, newly)) = &self.sending {
            push(&|world| {
                world.sending = None;
                let answer = world.execute(*op, *lead);
                world.answered(*op, *lead, newly, answer);
            });
            if self.left.doubts > 0 {
                // Lost before, lost after, or landing late: the writer cannot tell.
                push(&|world| {
                    world.left.doubts -= 1;
                    world.sending = None;
                });
                push(&|world| {
                    world.left.doubts -= 1;
                    world.sending = None;
                    world.execute(*op, *lead);
                });
                if self.late.is_none() {
                    push(&|world| {
                        world.left.doubts -= 1;
                        world.sending = None;
                        world.late = Some((*op, *lead, LATE_EFFECT_MS));
                    });
                }
            }
            if self.left.crashes > 0 {
                push(&|world| {
                    world.left.crashes -= 1;
                    world.sending = None;
                });
                push(&|world| {
                    world.left.crashes -= 1;
                    world.sending = None;
                    world.execute(*op, *lead);
                });
            }
            if self.left.stands_still > 0 && self.still.is_none() {
                push(&|world| {
                    world.left.stands_still -= 1;
                    let Some((op, lead, newly)) = world.sending.take() else { return };
                    world.still = Some(Still { op, lead, newly, age: 0, sent: false, overtaken: false });
                });
            }
        }
        if self.sending.is_none() && self.is_served() {
            push(&|world| {
                world.overtake();
                world.begin();
            });
            // Serial with the writer: it learns of merges only between calls.
            if self.untold.is_some() {
                push(&|world| {
                    world.overtake();
                    world.told();
                });
            }
            if self.compares {
                push(&|world| world.compare());
                if !self.stored.doubtful(self.now, 1).is_empty() {
                    push(&|world| world.ask());
                }
            }
            // The list is told of an erasure only once the merges of before it have been read.
            if self.left.erasures > 0 && (self.untold.is_none() || !holds(Guard::MergesBeforeErasing)) {
                // One of the two is enough: they are alike, but for who was there before.
                push(&|world| world.erase(1, true));
                if self.wanted().contains(&1) {
                    push(&|world| world.erase(1, false));
                }
            }
        }
        // A call in doubt lands before its hold ends: time passes only as far as it may still be on its way.
        if self.sending.is_none() && self.late.is_none_or(|(_, _, left)| left > self.step) {
            push(&World::pass_time);
        }
        if let Some(still) = self.still.as_ref().filter(|still| !still.sent && still.age < FUNCTION_MS)
            && self.sending.is_none()
        {
            let lates: &[bool] = if self.late.is_none() && !still.sent { &[false, true] } else { &[false] };
            for (late, dies) in lates.iter().flat_map(|late| [(*late, false), (*late, true)]) {
                push(&|world| world.go_on(late, dies));
            }
        }
        if let Some((op, lead, _)) = self.late {
            push(&|world| {
                world.late = None;
                world.execute(op, lead);
            });
        }
        if self.left.pauses > 0 {
            push(&|world| {
                world.left.pauses -= 1;
                world.frozen = if world.frozen.is_some() { None } else { Some(world.wants[0].clone()) };
                let wanted = world.wanted();
                world.erased.retain(|lead| !wanted.contains(lead));
            });
        }
        if self.left.merges > 0 && self.leads.len() == 2 {
            for (winner, loser) in [(1, 2), (2, 1)] {
                push(&|world| {
                    world.left.merges -= 1;
                    world.leads.remove(&loser);
                    if world.members.remove(&loser) {
                        world.members.insert(winner);
                    }
                    let (was, is) = (world.theirs.remove(&loser), world.theirs.contains(&winner));
                    if was != is {
                        let told = if was { loser } else { winner };
                        let asked = world.stored.theirs.contains(told);
                        if asked {
                            world.theirs.insert(winner);
                        } else {
                            world.unknowable.insert(winner);
                        }
                    } else if was {
                        world.theirs.insert(winner);
                    }
                    // Taken out by hand, and merged with somebody who may be in the list.
                    if world.out.remove(&loser) || world.out.remove(&winner) || world.either.remove(&loser) {
                        world.either.insert(winner);
                        // Before the merge is told, a winner who is there by the loser's place looks like one whom
                        // somebody put back by hand.
                        world.unknowable.insert(winner);
                    }
                    world.erased.remove(&winner);
                    // Who owned the loser's cookies wants the winner now.
                    for want in &mut world.wants {
                        if want.remove(&loser) {
                            want.insert(winner);
                        }
                    }
                    world.untold = Some((winner, loser));
                });
            }
        }
        if self.left.taken_out > 0 && self.late.is_none() && self.sending.is_none() && self.untold.is_none() {
            for lead in self.leads.clone() {
                // Whom we only may have put there cannot be told from one who never came.
                let known = self.stored.sure.contains(lead) && !self.stored.hold.contains_key(&lead);
                if self.members.contains(&lead) && known {
                    push(&|world| {
                        world.left.taken_out -= 1;
                        world.members.remove(&lead);
                        if world.wants.iter().flatten().any(|wanted| *wanted == lead) {
                            world.out.insert(lead);
                        } else {
                            world.either.insert(lead);
                        }
                    });
                }
            }
        }
        if self.left.by_hand > 0 && self.late.is_none() && self.sending.is_none() {
            for lead in self.leads.clone() {
                // Whom we may have put there cannot be told from one added by hand.
                let ours = self.stored.may.contains(lead) && !self.stored.kept_out.contains(lead);
                if !self.members.contains(&lead) && !ours {
                    push(&|world| {
                        world.out.remove(&lead);
                        world.left.by_hand -= 1;
                        world.members.insert(lead);
                        world.theirs.insert(lead);
                    });
                }
            }
        }
        next
    }

    /// No more trouble: where does it end?
    fn complete(mut self) -> World {
        for _ in 0..200 {
            if let Some((op, lead, newly)) = self.sending.take() {
                let answer = self.execute(op, lead);
                self.answered(op, lead, &newly, answer);
                continue;
            }
            if let Some((op, lead, _)) = self.late.take() {
                self.execute(op, lead);
                continue;
            }
            // Those that go on are among the worlds.
            self.still = None;
            if self.untold.is_some() {
                self.told();
                continue;
            }
            if self.begin() {
                continue;
            }
            let plan = self.stored.plan(&self.wishes(), self.now);
            if plan.waiting == 0 && self.stored.hold.is_empty() {
                if self.stored.doubts.is_empty() {
                    self.compare();
                }
                if self.stored.doubts.is_empty() {
                    return self;
                }
                if !self.stored.doubtful(self.now, 1).is_empty() {
                    self.ask();
                    continue;
                }
            }
            self.now += LATE_EFFECT_MS.max(if self.stored.hold.is_empty() { REFUSED_RETRY_MS } else { 0 });
        }
        panic!("it never comes to rest: {self:?}");
    }

    fn fault(&self) -> Option<String> {
        let end = self.clone().complete();
        let wanted = end.wanted();
        if let Some(lead) = end.erased.iter().find(|lead| knows(&end.stored, **lead)) {
            return Some(format!("lead {lead} was erased, and something is known of them: {end:?}"));
        }
        if !end.stored.erasing.is_empty() {
            return Some(format!("an erasure never ends: {end:?}"));
        }
        let kept = end.stored.kept();
        for lead in &end.leads {
            // Nothing is written where all syncs rest, and some people are kept; but nobody who is erased.
            if !end.erased.contains(lead) && (end.wishes().rests() || kept.contains(*lead)) {
                continue;
            }
            if end.unknowable.contains(lead) && !wanted.contains(lead) {
                continue;
            }
            if end.either.contains(lead) && wanted.contains(lead) {
                continue;
            }
            let should = (wanted.contains(lead) && !end.out.contains(lead)) || end.theirs.contains(lead);
            if end.members.contains(lead) != should {
                return Some(format!("lead {lead} should{} be in the list: {end:?}", if should { "" } else { " not" }));
            }
        }
        None
    }
}

/// Searches every world that can be reached. Returns how many there are, or the first fault.
fn search(left: Budget, members: &[LeadId]) -> Result<usize, String> {
    search_from(World::new(left, members))
}

fn search_from(world: World) -> Result<usize, String> {
    let mut seen: HashSet<String> = HashSet::new();
    let mut waiting = vec![world];
    while let Some(mut world) = waiting.pop() {
        // Only differences of time matter.
        let shift = world.now;
        let still = world.stored.failed.is_empty() && world.stored.doubts.is_empty();
        if world.stored.hold.values().all(|until| *until <= world.now) && still {
            world.stored.hold.clear();
            world.now = 0;
        } else if still {
            world.now = 0;
            world.stored.hold.retain(|_, until| *until > shift);
            world.stored.hold.values_mut().for_each(|until| *until -= shift);
        }
        if world.now > 4 * LATE_EFFECT_MS || !seen.insert(serde_json::to_string(&world).unwrap()) {
            continue;
        }
        if let Some(fault) = world.fault() {
            return Err(fault);
        }
        waiting.extend(world.next());
    }
    Ok(seen.len())
}

const NONE: Budget = Budget {
    changes: 0,
    doubts: 0,
    crashes: 0,
    merges: 0,
    by_hand: 0,
    taken_out: 0,
    erasures: 0,
    pauses: 0,
    keeps: false,
    stands_still: 0,
};
/// Two writers, two leads, two syncs, one call that lands late.
const TWO_WRITERS: Budget = Budget { changes: 3, stands_still: 1, ..NONE };
const TAKEN_OUT: Budget = Budget { changes: 3, doubts: 1, by_hand: 1, taken_out: 1, ..NONE };
const ERASED: Budget = Budget { changes: 3, doubts: 1, crashes: 1, erasures: 1, ..NONE };

/// The searches, with who was in the list before us; the shorter ones first.
fn budgets() -> Vec<(&'static str, (Budget, &'static [LeadId]))> {
    vec![
        ("doubt", (Budget { changes: 4, doubts: 2, crashes: 1, ..NONE }, &[][..])),
        ("doubt, people there before", (Budget { changes: 3, doubts: 1, crashes: 1, ..NONE }, &[1][..])),
        ("merge", (Budget { changes: 3, merges: 1, doubts: 1, ..NONE }, &[][..])),
        ("merge, people there before", (Budget { changes: 3, merges: 1, doubts: 1, ..NONE }, &[2][..])),
        ("by hand", (Budget { changes: 3, by_hand: 1, doubts: 1, crashes: 1, ..NONE }, &[][..])),
        ("taken out by hand", (TAKEN_OUT, &[][..])),
        ("taken out by hand, merged", (Budget { merges: 1, doubts: 0, by_hand: 0, ..TAKEN_OUT }, &[][..])),
        ("erased", (ERASED, &[][..])),
        ("erased, people there before", (ERASED, &[1][..])),
        ("erased, merged", (Budget { crashes: 0, merges: 1, ..ERASED }, &[][..])),
        ("erased, merged, there before", (Budget { crashes: 0, merges: 1, ..ERASED }, &[1][..])),
        ("erased, merged, the other there before", (Budget { crashes: 0, merges: 1, ..ERASED }, &[2][..])),
        ("erased and kept", (Budget { crashes: 0, keeps: true, ..ERASED }, &[][..])),
        ("erased and paused", (Budget { changes: 2, crashes: 0, pauses: 2, ..ERASED }, &[][..])),
        (
            "erased, merged and paused",
            (Budget { changes: 2, doubts: 0, crashes: 0, merges: 1, pauses: 1, ..ERASED }, &[][..]),
        ),
        (
            "erased and taken out by hand",
            (Budget { changes: 2, crashes: 0, by_hand: 1, taken_out: 1, ..ERASED }, &[][..]),
        ),
        ("two writers", (TWO_WRITERS, &[][..])),
        ("two writers, people there before", (TWO_WRITERS, &[1][..])),
        ("two writers, a doubt", (Budget { changes: 2, doubts: 1, ..TWO_WRITERS }, &[][..])),
        ("two writers, a merge", (Budget { changes: 2, merges: 1, ..TWO_WRITERS }, &[][..])),
        ("two writers, a merge and a hand", (Budget { changes: 1, merges: 1, by_hand: 1, ..TWO_WRITERS }, &[][..])),
    ]
}

#[test]
fn every_order_of_every_trouble_ends_with_the_right_list() {
    take_out(None);
    for (name, (budget, members)) in budgets() {
        let worlds = search(budget, members).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert!(worlds > 100, "{name}: only {worlds} worlds were searched");
    }
}

/// A message that comes back while its writer's call may still take effect, as it would if the time-out were the function's.
#[test]
fn a_visibility_time_out_that_is_too_short_is_found() {
    take_out(None);
    let world = World { visibility: FUNCTION_MS, ..World::new(TWO_WRITERS, &[]) };
    let fault = search_from(world).expect_err("the search is blind to it");
    assert!(fault.contains("should"), "{fault}");
}

fn found_without(guard: Guard) {
    take_out(Some(guard));
    let found = budgets().into_iter().any(|(_, (budget, members))| search(budget, members).is_err());
    take_out(None);
    assert!(found, "nothing goes wrong without {guard:?}: the search is blind to it");
}

#[test]
fn a_late_call_after_a_change_of_mind_is_found_without_holds() {
    found_without(Guard::HoldAfterDoubt);
}

#[test]
fn b_a_second_sync_on_the_list_is_found_without_may_per_list() {
    found_without(Guard::MayIsPerList);
}

#[test]
fn c_a_merge_that_we_learn_late_is_found_if_1004_shrinks_may() {
    found_without(Guard::GoneKeepsMay);
}

#[test]
fn d_a_loser_who_was_there_before_us_is_found_if_the_winner_inherits_nothing() {
    found_without(Guard::WinnerInheritsTheirs);
}

#[test]
fn k_somebody_added_by_hand_after_our_first_look_is_found_without_asking_again() {
    found_without(Guard::AskBeforeFirstAdd);
}

#[test]
fn m_somebody_taken_out_by_hand_is_found_if_they_are_put_back() {
    found_without(Guard::OutStaysOut);
}

#[test]
fn n_somebody_erased_whose_call_was_lost_is_found_if_they_are_forgotten_at_once() {
    found_without(Guard::ErasedWhenCertain);
}

#[test]
fn p_somebody_erased_between_a_merge_and_its_news_is_found_if_the_list_is_told_at_once() {
    found_without(Guard::MergesBeforeErasing);
}
