//! The calls that change a list: in waves of as many as may be in flight, each intent stored before its call.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use domain::limits::{LATE_EFFECT_MS, MARKETO_BATCH};
use domain::list::{Answer, Plan, Refusal, Wishes};
use domain::planted::{Guard, holds};
use domain::{AudienceId, LeadId, LeadSet, MunchkinId};
use futures::future::join_all;
use marketo::class::Class;
use marketo::{CallError, Marketo, RowAnswer, Slot};
use ports::Table;
use state::bell::{BellKey, Next};
use state::budget::{Purpose, book, writes_at_once};
use state::lists::{Booked, OpenList, Want, want_key};
use state::{Deps, Doc, Step, bell, load};

use crate::reading::Asking;
use crate::runs::Recorder;
use crate::{adopt, is_short, tied};

/// Calls to one list before the next dirty list of the subscription has its turn.
const CALLS_PER_TURN: usize = 40;
/// Stands where Marketo gives no code: it named everybody but this person.
const NO_ANSWER: &str = "none";
/// After a wave of which no call was answered Marketo is left alone for this time, in ms. Ours.
const SILENCE_MS: u64 = 30_000;
/// People of an adopted list who were there before us wait so long for audiences that are being worked out, in ms, should
/// nobody ring. Ours.
const WORKED_OUT_MS: u64 = 60_000;

pub(crate) struct Writer<'a> {
    pub(crate) deps: &'a Deps,
    pub(crate) marketo: Marketo<'a>,
    /// We made the list, so nobody was there before us.
    pub(crate) ours: bool,
    pub(crate) wishes: &'a Wishes,
    /// Audiences of its active syncs, each with the object of what it wants.
    pub(crate) audiences: &'a BTreeMap<AudienceId, Option<String>>,
    /// The latest pass of the audiences whose report is due; 0: none is.
    pub(crate) pass: u64,
    /// The instance lacks the field `ecids`.
    pub(crate) no_ecids: bool,
    /// More additions than this go by bulk import; `None`: never.
    pub(crate) import_above: Option<u64>,
    pub(crate) deadline: u64,
    /// What is done is noted there.
    pub(crate) recorder: &'a Recorder,
    /// When people of an adopted list who wait are looked at again, in ms.
    pub(crate) look_again: OnceLock<u64>,
}

/// A call to be made: its people, and for an addition those who were not in *may* before.
struct Call {
    adding: bool,
    batch: Vec<LeadId>,
    newly: LeadSet,
}

impl Writer<'_> {
    /// Does what the plan says, wave by wave. `None`: nothing is left that may be done now.
    pub(crate) async fn turn(&self, open: &mut OpenList) -> Result<Option<Next>, CallError> {
        let erasing = !open.state.plan_erasures(self.wishes, self.deps.now()).is_empty();
        if self.is_to_adopt(open) && !erasing {
            let munchkin = open.munchkin.clone();
            let asking = Asking {
                deps: self.deps,
                marketo: self.marketo.calling_for(Purpose::Bulk),
                munchkin: &munchkin,
                list: open.head.list,
                deadline: self.deadline,
            };
            if adopt(asking, open, self.no_ecids).await? {
                open.head.adopted = open.head.adopted.max(self.pass);
            }
            // Read on; or look first whether it is a mass change now.
            return Ok(Some(Next::Again));
        }
        let look_again = if self.is_to_adopt(open) { None } else { self.import(open).await? };
        match (self.by_calls(open, look_again).await, look_again) {
            (Ok(Some(Next::Rest(at))), Some(again)) | (Err(CallError::Wait(at)), Some(again)) if again < at => {
                Ok(Some(Next::Rest(again)))
            }
            (Ok(None), Some(again)) => Ok(Some(Next::Rest(again))),
            (other, _) => other,
        }
    }

    /// Whether the members of an adopted list are to be read before anything else is written.
    fn is_to_adopt(&self, open: &OpenList) -> bool {
        self.wishes.adopt && (open.head.adopted < self.pass || !open.state.members_read)
    }

    /// Makes the calls that are due; those for people who are erased first. `look_again`: a bulk import is under way, or
    /// waits to be started.
    async fn by_calls(&self, open: &mut OpenList, look_again: Option<u64>) -> Result<Option<Next>, CallError> {
        let mut calls = 0;
        let mut visiting = false;
        // Halved where Marketo finds a call too large, or one value in it bad.
        let mut size = MARKETO_BATCH;
        // The rest of the day allows no large load for now: it goes on at the pace of small visits.
        let mut bulk_waits = false;
        while calls < CALLS_PER_TURN {
            let now = self.deps.now();
            if now + self.deps.settings.scaled(marketo::MARGIN_MS) > self.deadline {
                return Ok(Some(Next::Again));
            }
            let mut plan = open.state.plan_erasures(self.wishes, now);
            let erasing = !plan.is_empty();
            if !erasing {
                if open.state.held.is_some() {
                    return Ok(None);
                }
                if self.is_to_adopt(open) {
                    return Ok(Some(Next::Again));
                }
                plan = open.state.plan(self.wishes, now);
            }
            if !erasing && look_again.is_some() && self.goes_by_import(&open.state, &plan, now) {
                plan.add = LeadSet::new();
            }
            let adopted = if erasing { LeadSet::new() } else { plan.remove.and(&open.state.theirs) };
            let postponed = !adopted.is_empty() && self.is_being_worked_out(&open.munchkin).await?;
            if postponed {
                plan.remove.remove_all(&adopted);
            }
            if plan.is_empty() {
                open.head.booked = None;
                if postponed {
                    self.look_again.get_or_init(|| now + self.deps.settings.scaled(WORKED_OUT_MS));
                }
                return Ok(None);
            }
            let full = |leads: &LeadSet| leads.len() >= MARKETO_BATCH as u64;
            let bulk = !erasing && !bulk_waits && (full(&plan.add) || full(&plan.remove));
            if !bulk && !visiting && !erasing {
                if let Some(due) = self.pace(open, &plan).await? {
                    return Ok(Some(Next::Rest(due)));
                }
                visiting = true;
            }
            let wave = match self.wave(open, &plan, bulk, size).await {
                Err(CallError::Wait(until)) if bulk && !is_short(self.deps, until) => {
                    bulk_waits = true;
                    continue;
                }
                other => other?,
            };
            calls += wave.calls.max(1);
            if wave.split {
                size = (size / 2).max(1);
            }
            if wave.answered > 0 && visiting && !erasing {
                open.head.booked = None;
            }
            if bulk_waits && !erasing {
                // One visit's worth; then the next is booked.
                visiting = false;
            }
            if wave.calls > 0 && wave.answered == 0 {
                return Ok(Some(Next::Rest(self.deps.now() + self.deps.settings.scaled(SILENCE_MS))));
            }
        }
        Ok(Some(Next::Again))
    }

    /// Small changes gather until their calls are due. Returns when that is; `None`: now.
    async fn pace(&self, open: &mut OpenList, plan: &Plan) -> Result<Option<u64>, CallError> {
        let asking = !self.ours && !plan.add.is_empty();
        let calls = usize::from(!plan.add.is_empty()) + usize::from(!plan.remove.is_empty()) + usize::from(asking);
        let booked = match open.head.booked {
            Some(booked) => booked,
            None => Booked { due: book(self.deps, &open.munchkin, calls).await?, calls },
        };
        if booked.due > self.deps.now() {
            open.head.booked = Some(booked);
            return Ok(Some(booked.due));
        }
        if calls > booked.calls {
            // More has come since, which others pay for by waiting longer.
            book(self.deps, &open.munchkin, calls - booked.calls).await?;
        }
        // It is spent when a call was answered.
        open.head.booked = Some(Booked { calls: calls.max(booked.calls), ..booked });
        Ok(None)
    }

    /// As many calls as may be in flight, of at most `size` people. Of a bulk only full calls go: the rest gathers; of
    /// what is no bulk one call adds and one removes.
    async fn wave(&self, open: &mut OpenList, plan: &Plan, bulk: bool, size: usize) -> Result<Wave, CallError> {
        let at_once = writes_at_once(self.deps);
        let each = if bulk { at_once } else { 1 };
        let cut = |leads: &LeadSet| -> Vec<Vec<LeadId>> {
            let leads: Vec<LeadId> = leads.iter().take(each * size).collect();
            let batches = leads.chunks(size).filter(|batch| !bulk || batch.len() == size);
            batches.map(<[LeadId]>::to_vec).collect()
        };
        let mut batches: Vec<(bool, Vec<LeadId>)> = cut(&plan.add).into_iter().map(|batch| (true, batch)).collect();
        batches.extend(cut(&plan.remove).into_iter().map(|batch| (false, batch)));
        batches.truncate(at_once);
        let marketo = self.marketo.calling_for(if bulk { Purpose::Bulk } else { Purpose::Write });

        let batches = self.without_strangers(open, marketo, batches).await?;
        let batches = self.without_untied(open, marketo, batches).await?;
        if batches.is_empty() {
            return Ok(Wave::default());
        }
        let slots = marketo.slots(batches.len()).await?;
        // The client sends within a while of its slot, and Marketo may act as much later.
        let until = self.deps.now() + self.deps.settings.scaled(LATE_EFFECT_MS + marketo::SEND_WITHIN_MS);
        let mut calls = Vec::new();
        for (adding, batch) in batches.into_iter().take(slots.len()) {
            open.state.count(&batch, adding, self.wishes, self.deps.now());
            let newly = if adding {
                open.state.intend_add(&batch, until)
            } else {
                open.state.intend_remove(&batch, until);
                LeadSet::new()
            };
            calls.push(Call { adding, batch, newly });
        }
        // Whoever was read before this call is not there by others' doing alone any more.
        open.head.adopting = None;
        // A sync that keeps its people keeps them from the moment of the intent.
        open.state.settle(self.wishes);
        self.recorder.begin(self.deps, &mut open.head);
        if holds(Guard::IntentBeforeEffect) {
            open.publish(self.deps).await?;
        }
        let list = open.head.list;
        let sent = calls.iter().zip(slots).map(|(call, slot)| send(marketo, slot, list, call));
        let answers: Vec<Result<RowAnswer, CallError>> = join_all(sent).await;
        let mut wave = Wave { calls: calls.len(), ..Wave::default() };
        let mut failure = None;
        for (call, answer) in calls.into_iter().zip(answers) {
            match answer {
                Ok(rows) => {
                    wave.answered += 1;
                    for (lead, answer) in asked_for(rows, &call.batch) {
                        self.recorder.answered(self.deps, &mut open.head, call.adding, &answer);
                        if call.adding {
                            open.state.added(lead, answer, &call.newly);
                        } else {
                            open.state.removed(lead, answer);
                        }
                    }
                }
                // It may still take effect, so long after this moment at most.
                Err(error @ CallError::Unknown(_)) if holds(Guard::SilenceProvesNothing) => {
                    let until = self.deps.now() + self.deps.settings.scaled(LATE_EFFECT_MS);
                    open.state.hold_on(&call.batch, until);
                    self.recorder.failed(self.deps, &mut open.head, &error);
                }
                Err(error) => {
                    wave.answered += 1;
                    open.state.take_back(&call.batch, &call.newly);
                    match (error.class(), call.batch.as_slice(), error) {
                        (Some(Class::Split), [lead], CallError::Refused { code, request_id }) => {
                            let refusal = Refusal { code, at: self.deps.now(), request_id };
                            self.recorder.refused(self.deps, &mut open.head, &refusal);
                            open.state.refuse(*lead, refusal);
                        }
                        (Some(Class::Split), _, error) => {
                            self.recorder.failed(self.deps, &mut open.head, &error);
                            wave.split = true;
                        }
                        // Whoever is told of a failure notes it: here, only the others.
                        (_, _, error) => {
                            if let Some(other) = failure.replace(error) {
                                self.recorder.failed(self.deps, &mut open.head, &other);
                            }
                        }
                    }
                }
            }
        }
        failure.map_or(Ok(wave), Err)
    }

    /// Who is about to be added for the first time is asked for first: members are not ours. On a list that we made only
    /// those whom somebody seems to have added by hand. Of whom Marketo says nothing is left alone for a day.
    async fn without_strangers(
        &self,
        open: &mut OpenList,
        marketo: Marketo<'_>,
        batches: Vec<(bool, Vec<LeadId>)>,
    ) -> Result<Vec<(bool, Vec<LeadId>)>, CallError> {
        let mut asked = Vec::new();
        for (_, batch) in batches.iter().filter(|(adding, _)| *adding) {
            let mut strangers = open.state.strangers(batch);
            strangers.retain(|lead| !self.ours || open.state.newcomers.contains_key(lead));
            if !strangers.is_empty() && (holds(Guard::AskBeforeFirstAdd) || !open.state.members_read) {
                asked.push(strangers);
            }
        }
        let list = open.head.list;
        let mut slots = Vec::new();
        while slots.len() < asked.len() {
            slots.extend(marketo.slots(asked.len() - slots.len()).await?);
        }
        let answers =
            join_all(asked.iter().zip(slots).map(|(strangers, slot)| marketo.membership(slot, list, strangers)));
        let answers = answers.await;
        let mut silent = LeadSet::new();
        for (strangers, found) in asked.iter().zip(answers) {
            let found = found?;
            open.state.were_there(found.members.iter());
            let told = |lead: LeadId| {
                found.members.contains(lead) || found.not_members.contains(lead) || found.gone.contains(lead)
            };
            for lead in strangers.iter().copied().filter(|lead| !told(*lead)) {
                let (code, request_id) = (NO_ANSWER.to_owned(), String::new());
                let refusal = Refusal { code, at: self.deps.now(), request_id };
                self.recorder.refused(self.deps, &mut open.head, &refusal);
                open.state.refuse(lead, refusal);
                silent.insert(lead);
            }
        }
        if !holds(Guard::AskBeforeFirstAdd) && !asked.is_empty() {
            // As if the list were looked at once, at the beginning.
            let mut next = None;
            loop {
                let page = marketo.members_page(marketo.slot().await?, list, "id", next.as_deref()).await?;
                open.state.were_there(page.0.iter().map(|row| row.id));
                next = page.1;
                if next.is_none() {
                    break;
                }
            }
            open.state.members_read = true;
        }
        let state = &open.state;
        let may_be_added =
            |lead: &LeadId| (!state.theirs.contains(*lead) || state.restore.contains(*lead)) && !silent.contains(*lead);
        Ok(batches
            .into_iter()
            .map(|(adding, batch)| (adding, batch.into_iter().filter(|lead| !adding || may_be_added(lead)).collect()))
            .filter(|(_, batch): &(bool, Vec<LeadId>)| !batch.is_empty())
            .collect())
    }

    /// People of an adopted list who were there before us are read once more just before they leave: they may have
    /// lost their last ECID since the list was read, and then they stay.
    async fn without_untied(
        &self,
        open: &mut OpenList,
        marketo: Marketo<'_>,
        batches: Vec<(bool, Vec<LeadId>)>,
    ) -> Result<Vec<(bool, Vec<LeadId>)>, CallError> {
        let mut left = Vec::new();
        for (adding, mut batch) in batches {
            let adopted: Vec<LeadId> =
                batch.iter().copied().filter(|lead| !adding && open.state.theirs.contains(*lead)).collect();
            if !adopted.is_empty() {
                let rows = marketo.leads_by_id(marketo.slot().await?, &adopted, !self.no_ecids).await?;
                let still = tied(self.deps, &open.munchkin, &rows).await?;
                let stay: LeadSet = adopted.iter().copied().filter(|lead| !still.contains(*lead)).collect();
                open.state.tied.remove_all(&stay);
                batch.retain(|lead| !stay.contains(*lead));
                // In this order: an audience is rung before a token says that it was told.
                if self.is_being_worked_out(&open.munchkin).await? {
                    batch.retain(|lead| !adopted.contains(lead));
                }
            }
            if !batch.is_empty() {
                left.push((adding, batch));
            }
        }
        Ok(left)
    }

    /// Whether an audience of the list is rung, at work, or waits for something: till it is done nobody knows that it does not
    /// want people who were there before us.
    async fn is_being_worked_out(&self, munchkin: &MunchkinId) -> Step<bool> {
        for (audience, key) in self.audiences {
            let bell = bell::look(self.deps, &BellKey::audience(munchkin, audience)).await?;
            let want: Option<Doc<Want>> = load(self.deps, Table::Lists, &want_key(munchkin, audience)).await?;
            // Done meanwhile: what is wished here is what it wanted before.
            let is_another = key.is_some() && want.map(|want| want.value.key) != *key;
            if bell.is_busy() || bell.wake_at.is_some() || is_another {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Default)]
struct Wave {
    calls: usize,
    answered: usize,
    /// Marketo found a call too large, or one value in it bad.
    split: bool,
}

async fn send(marketo: Marketo<'_>, slot: Slot, list: u64, call: &Call) -> Result<RowAnswer, CallError> {
    if call.adding { marketo.add(slot, list, &call.batch).await } else { marketo.remove(slot, list, &call.batch).await }
}

/// The answers for people of the batch; rows about anybody else are not believed.
fn asked_for<'a>(rows: RowAnswer, batch: &'a [LeadId]) -> impl Iterator<Item = (LeadId, Answer)> + 'a {
    rows.into_iter().filter(|(lead, _)| batch.contains(lead))
}
