//! Makes Marketo's lists equal to what is wanted, within the budget. It decides about nobody: who belongs into a
//! list is read from the audiences' *want* and from the syncs.

mod report;

use std::collections::BTreeSet;

use domain::limits::{LATE_EFFECT_MS, MARKETO_BATCH};
use domain::list::{Mode, Plan, Wish, Wishes};
use domain::planted::{Guard, holds};
use domain::{LeadId, LeadSet, ListId, MunchkinId, Token};
use marketo::{CallError, LeadRow, Marketo, RowAnswer};
use ports::{Failure, Table};
use state::bell::{Next, Ring};
use state::budget::Purpose;
use state::lists::{Left, OpenList, Want, departures, read_leads, want_key, write_leads};
use state::syncs::{IdentityHead, Leaving, MembersBefore, Start, Status, Sync};
use state::{Deps, Step, bell, identity, load, syncs};

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &[Table::Syncs, Table::Identity, Table::Lists, Table::Doorbells],
    queues: &[ports::Queue::ListWrites],
    bucket: true,
    marketo: true,
    adobe: false,
};

/// Calls to one list before the next dirty list of the subscription has its turn.
const CALLS_PER_TURN: usize = 40;

/// Handles one ring of a list. Replay is harmless: the work is recomputed from state.
pub async fn handle(deps: &Deps, ring: &Ring, deadline: u64) -> Step<()> {
    let Ok(list) = ring.key.id.parse::<ListId>() else {
        return Err(Failure::fail("a ring of a list without a list id"));
    };
    bell::handle(deps, ring, || work(deps, &ring.key.munchkin, list, deadline)).await
}

async fn work(deps: &Deps, munchkin: &MunchkinId, list: ListId, deadline: u64) -> Step<Next> {
    let refused = syncs::subscription(deps, munchkin).await?.is_none_or(|sub| sub.refused().is_some());
    if refused {
        return Ok(Next::Done(None));
    }
    let syncs: Vec<Sync> = syncs::syncs(deps, munchkin)
        .await?
        .into_iter()
        .map(|sync| sync.value)
        .filter(|sync| sync.list.id == Some(list) && sync.start == Start::Now && sync.status != Status::Creating)
        .collect();
    if syncs.is_empty() {
        return Ok(Next::Done(None));
    }
    let mut open = OpenList::open(deps, munchkin, list).await?;
    let no_ecids = learn_departures(deps, &mut open).await?;
    let (wishes, wants) = read_wishes(deps, munchkin, &syncs).await?;
    open.state.settle(&wishes);

    let ours = syncs.iter().any(|sync| sync.list.ours);
    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Write);
    let fresh = syncs
        .iter()
        .zip(&wants)
        .any(|(sync, want)| want.as_ref().is_some_and(|want| open.head.report_is_due(sync, want, deps.now())));
    let writer = Writer { deps, marketo: &marketo, ours, wishes: &wishes, fresh, no_ecids, deadline };
    let outcome = match writer.turn(&mut open).await {
        Ok(Some(next)) => Ok(next),
        Ok(None) => report::write(deps, &marketo, &mut open, &syncs, &wishes, &wants).await,
        Err(error) => Err(error),
    };
    let next = match outcome {
        Ok(next) => next,
        Err(CallError::Wait(until)) => Next::Rest(until),
        Err(CallError::Refused { code, .. }) if code == "1013" => {
            list_is_gone(deps, munchkin, &syncs, &wants).await?;
            Next::Done(None)
        }
        Err(error) => {
            writer.close(&mut open).await?;
            return Err(error.into());
        }
    };
    let plan = writer.close(&mut open).await?;
    Ok(match next {
        Next::Done(wake_at) => Next::Done([wake_at, plan.next_at].into_iter().flatten().min()),
        other => other,
    })
}

/// Applies merges and deletions. Returns whether the instance lacks the field `ecids`.
async fn learn_departures(deps: &Deps, open: &mut OpenList) -> Step<bool> {
    let head: Option<state::Doc<IdentityHead>> = load(deps, Table::Syncs, &syncs::identity_key(&open.munchkin)).await?;
    let (upto, no_ecids) = head.map_or((0, false), |head| (head.value.departures, head.value.extract.no_ecids));
    for line in departures(deps, &open.munchkin, open.state.merges_seen, upto).await? {
        match line.winner {
            Some(winner) => open.state.merged(winner, &line.gone),
            None => line.gone.iter().for_each(|lead| open.state.deleted(*lead)),
        }
    }
    open.state.merges_seen = open.state.merges_seen.max(upto);
    Ok(no_ecids)
}

/// Reads the members of an adopted list: who was there before us, and who of them is tied to an ECID.
async fn adopt(marketo: &Marketo<'_>, deps: &Deps, open: &mut OpenList, no_ecids: bool) -> Result<(), CallError> {
    let rows = marketo.members_with_cookies(open.head.list, !no_ecids).await?;
    open.state.were_there(rows.iter().map(|row| row.id));
    open.state.tied = LeadSet::new();
    for rows in rows.chunks(MARKETO_BATCH) {
        open.state.tied.add_all(&tied(deps, &open.munchkin, rows).await?);
    }
    open.state.members_read = true;
    Ok(())
}

/// Those of the leads who are known and tied to an ECID, by Marketo's own word or by a token that we have seen.
async fn tied(deps: &Deps, munchkin: &MunchkinId, rows: &[LeadRow]) -> Step<LeadSet> {
    let records = identity::tokens(deps, munchkin, rows.iter().flat_map(|row| &row.cookies)).await?;
    let seen: BTreeSet<Token> =
        records.into_iter().filter(|token| !token.value.ecids.is_empty()).map(|token| token.value.token).collect();
    let ties = |row: &LeadRow| !row.ecids.is_empty() || row.cookies.iter().any(|token| seen.contains(token));
    Ok(rows.iter().filter(|row| row.known && ties(row)).map(|row| row.id).collect())
}

/// What the syncs of a list wish, and the *want* rows they were read from, in the order of `syncs`.
async fn read_wishes(deps: &Deps, munchkin: &MunchkinId, syncs: &[Sync]) -> Step<(Wishes, Vec<Option<Want>>)> {
    let mut wishes = Wishes::default();
    let mut wants = Vec::new();
    for sync in syncs {
        let want: Option<Want> =
            load(deps, Table::Lists, &want_key(munchkin, &sync.audience)).await?.map(|doc| doc.value);
        // What was wanted before this sync began may be stale: nobody followed the audience then.
        let want = want.filter(|want| sync.from_pass.is_none_or(|pass| want.pass >= pass));
        let mode = match (sync.status, sync.leaving) {
            (Status::Creating, _) => continue,
            (Status::Active, Leaving::Remove) => Mode::Active,
            (Status::Active, Leaving::Keep) => Mode::ActiveKeeping,
            (Status::Paused, _) => Mode::Paused,
            (Status::StoppedKeeping, _) => Mode::StoppedKeeping,
            (Status::StoppedLeaving, _) => Mode::StoppedLeaving,
        };
        let key = match mode {
            Mode::Active | Mode::ActiveKeeping => want.as_ref().map(|want| want.key.clone()),
            Mode::Paused | Mode::StoppedKeeping | Mode::StoppedLeaving => sync.frozen.clone(),
        };
        if let Some(key) = key {
            wishes.syncs.push(Wish { sync: sync.id.clone(), want: read_leads(deps, &key).await?, mode });
        }
        wishes.adopt |= mode == Mode::Active && sync.members_before == MembersBefore::Adopt && want.is_some();
        wants.push(want);
    }
    Ok((wishes, wants))
}

/// Pauses the syncs of a list that is gone, with what they want now, as a pause by hand does.
async fn list_is_gone(deps: &Deps, munchkin: &MunchkinId, syncs: &[Sync], wants: &[Option<Want>]) -> Step<()> {
    for (sync, want) in syncs.iter().zip(wants).filter(|(sync, _)| sync.status == Status::Active) {
        let frozen = match want {
            Some(want) => Some(write_leads(deps, "frozen", &read_leads(deps, &want.key).await?).await?),
            None => None,
        };
        syncs::change_sync(deps, munchkin, &sync.id, |sync| {
            if sync.status != Status::Active {
                return false;
            }
            sync.status = Status::Paused;
            sync.generation += 1;
            sync.frozen.clone_from(&frozen);
            sync.why = Some("the list does not exist in Marketo any more (code 1013)".to_owned());
            true
        })
        .await?;
    }
    Ok(())
}

struct Writer<'a> {
    deps: &'a Deps,
    marketo: &'a Marketo<'a>,
    /// We made the list, so nobody was there before us.
    ours: bool,
    wishes: &'a Wishes,
    /// A report is due: an audience of the list has had a pass.
    fresh: bool,
    /// The instance lacks the field `ecids`.
    no_ecids: bool,
    deadline: u64,
}

impl Writer<'_> {
    /// Does what the plan says, batch by batch. `None`: nothing is left that may be done now.
    async fn turn(&self, open: &mut OpenList) -> Result<Option<Next>, CallError> {
        if self.wishes.adopt && (self.fresh || !open.state.members_read) {
            adopt(self.marketo, self.deps, open, self.no_ecids).await?;
        }
        for _ in 0..CALLS_PER_TURN {
            let now = self.deps.now();
            if now + self.deps.settings.scaled(marketo::MARGIN_MS) > self.deadline {
                return Ok(Some(Next::Again));
            }
            let plan = open.state.plan(self.wishes, now);
            if !plan.add.is_empty() {
                let batch: Vec<LeadId> = plan.add.iter().take(MARKETO_BATCH).collect();
                self.add(open, batch).await?;
            } else if !plan.remove.is_empty() {
                let batch: Vec<LeadId> = plan.remove.iter().take(MARKETO_BATCH).collect();
                self.remove(open, batch).await?;
            } else {
                return Ok(None);
            }
        }
        Ok(Some(Next::Again))
    }

    async fn add(&self, open: &mut OpenList, batch: Vec<LeadId>) -> Result<(), CallError> {
        let strangers = open.state.strangers(&batch);
        let ask = !self.ours && !strangers.is_empty() && (holds(Guard::AskBeforeFirstAdd) || !open.state.members_read);
        if ask {
            let members = self.marketo.who_is_member(self.marketo.slot().await?, open.head.list, &strangers).await?;
            open.state.were_there(members);
            if !holds(Guard::AskBeforeFirstAdd) {
                // As if the list were looked at once, at the beginning.
                let all = self.marketo.members(open.head.list).await?;
                open.state.were_there(all.iter());
                open.state.members_read = true;
            }
        }
        let batch: Vec<LeadId> = batch
            .into_iter()
            .filter(|lead| !open.state.theirs.contains(*lead) || open.state.restore.contains(*lead))
            .collect();
        if batch.is_empty() {
            return Ok(());
        }
        let slot = self.marketo.slot().await?;
        let newly = open.state.intend_add(&batch, self.hold_until());
        // A sync that keeps its people keeps them from the moment of the intent.
        open.state.settle(self.wishes);
        open.publish(self.deps).await?;
        match self.marketo.add(slot, open.head.list, &batch).await {
            Ok(rows) => {
                for (lead, answer) in asked_for(rows, &batch) {
                    open.state.added(lead, answer, &newly);
                }
                Ok(())
            }
            Err(CallError::Unknown(_)) => Ok(()),
            Err(error) => {
                open.state.take_back(&batch, &newly);
                Err(error)
            }
        }
    }

    async fn remove(&self, open: &mut OpenList, mut batch: Vec<LeadId>) -> Result<(), CallError> {
        let adopted: Vec<LeadId> = batch.iter().copied().filter(|lead| open.state.theirs.contains(*lead)).collect();
        if !adopted.is_empty() {
            // They may have lost their last ECID since the list was read, and then they stay.
            let slot = self.marketo.slot().await?;
            let rows = self.marketo.leads_by_id(slot, &adopted, !self.no_ecids).await?;
            let still = tied(self.deps, &open.munchkin, &rows).await?;
            let stay: LeadSet = adopted.into_iter().filter(|lead| !still.contains(*lead)).collect();
            open.state.tied.remove_all(&stay);
            batch.retain(|lead| !stay.contains(*lead));
            if batch.is_empty() {
                return Ok(());
            }
        }
        let slot = self.marketo.slot().await?;
        open.state.intend_remove(&batch, self.hold_until());
        open.publish(self.deps).await?;
        match self.marketo.remove(slot, open.head.list, &batch).await {
            Ok(rows) => {
                for (lead, answer) in asked_for(rows, &batch) {
                    open.state.removed(lead, answer);
                }
                Ok(())
            }
            Err(CallError::Unknown(_)) => Ok(()),
            Err(error) => {
                open.state.take_back(&batch, &LeadSet::new());
                Err(error)
            }
        }
    }

    fn hold_until(&self) -> u64 {
        self.deps.now() + self.deps.settings.scaled(LATE_EFFECT_MS)
    }

    /// Writes down where the list stands.
    async fn close(&self, open: &mut OpenList) -> Step<Plan> {
        let now = self.deps.now();
        open.state.tidy(self.wishes, now);
        let plan = open.state.plan(self.wishes, now);
        open.head.left = Left {
            add: plan.add.len(),
            remove: plan.remove.len(),
            hold: open.state.hold.len() as u64,
            failed: open.state.failed.len() as u64,
        };
        open.head.handled_at = now;
        open.publish(self.deps).await?;
        // A lead on hold that nobody wants touched now still ends its hold.
        let hold_ends = open.state.hold.values().copied().min();
        Ok(Plan { next_at: [plan.next_at, hold_ends].into_iter().flatten().min(), ..plan })
    }
}

/// The answers for people of the batch; rows about anybody else are not believed.
fn asked_for<'a>(rows: RowAnswer, batch: &'a [LeadId]) -> impl Iterator<Item = (LeadId, domain::list::Answer)> + 'a {
    rows.into_iter().filter(|(lead, _)| batch.contains(lead))
}
