//! Makes Marketo's lists equal to what is wanted, within the budget. It decides about nobody: who belongs into a
//! list is read from the audiences' *want* and from the syncs.

mod bulk;
mod members;
mod reading;
mod report;
mod runs;
mod verify;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::{HOUR_MS, LATE_EFFECT_MS};
use domain::list::{GuardSettings, MassChange, Mode, Plan, Wish, Wishes};
use domain::planted::{Guard, holds};
use domain::sayings::{HELD_ADDITIONS, HELD_ADDITIONS_AFTER, HELD_REMOVALS, HELD_REMOVALS_AFTER, LIST_GONE};
use domain::{LeadId, LeadSet, ListId, MunchkinId, Said, Token};
use futures::future::BoxFuture;
use marketo::{CallError, LeadRow, Marketo};
use ports::{Failure, Table};
use reading::Asking;
use runs::Recorder;
use state::bell::{Next, Ring};
use state::budget::Purpose;
use state::erase::{self, Answer};
use state::lists::{Held, Left, OpenList, Want, departures, read_leads, want_key, write_leads};
use state::notes::{self, Note};
use state::syncs::{IdentityHead, Leaving, MembersBefore, Start, Status, Sync};
use state::{Deps, Step, bell, identity, load, syncs};
use verify::Whole;
use write::Writer;

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &[Table::Syncs, Table::Identity, Table::Lists, Table::Doorbells],
    queues: &[ports::Queue::ListWrites],
    bucket: true,
    matches: false,
    marketo: true,
    adobe: false,
    streams: false,
    access: false,
    alerts: false,
};

/// Handles one ring of a list. Replay is harmless: the work is recomputed from state.
///
/// Boxed here: an `async fn` would be compiled anew with each crate that awaits it.
pub fn handle<'a>(deps: &'a Deps, ring: &'a Ring, deadline: u64) -> BoxFuture<'a, Step<()>> {
    Box::pin(handled(deps, ring, deadline))
}

async fn handled(deps: &Deps, ring: &Ring, deadline: u64) -> Step<()> {
    let Ok(list) = ring.key.id.parse::<ListId>() else {
        return Err(Failure::fail("a ring of a list without a list id"));
    };
    let munchkin = &ring.key.munchkin;
    bell::handle_knowing(deps, ring, |deps| async move { work(&deps, munchkin, list, deadline).await }).await
}

async fn work(deps: &Deps, munchkin: &MunchkinId, list: ListId, deadline: u64) -> Step<Next> {
    let subscription = syncs::subscription(deps, munchkin).await?;
    let Some(subscription) = subscription.filter(|subscription| subscription.refused().is_none()) else {
        return Ok(Next::Done(None));
    };
    let all: Vec<Sync> = syncs::syncs(deps, munchkin).await?.into_iter().map(|sync| sync.value).collect();
    let written = |sync: &&Sync| sync.start == Start::Now && sync.status != Status::Creating;
    let lists: BTreeSet<ListId> =
        all.iter().filter(written).filter(|sync| sync.follows()).filter_map(|sync| sync.list.id).collect();
    let syncs: Vec<Sync> = all.iter().filter(written).filter(|sync| sync.list.id == Some(list)).cloned().collect();
    if syncs.is_empty() {
        // Nobody writes it; somebody may want to know who is in it.
        let notes = notes::read(deps, munchkin, list).await?;
        let read = members::turn(deps, munchkin, list, &notes, deadline).await?;
        return Ok(read.unwrap_or(Next::Done(None)));
    }
    let recorder = Recorder::new(&syncs, deps.why().clone());
    let mut open = OpenList::open(deps, munchkin, list).await?;
    // Before the merges: whoever leaves a note has written down those that it relies on.
    let notes = notes::read(deps, munchkin, list).await?;
    let identity = learn_departures(deps, &mut open).await?;
    let no_ecids = identity.extract.no_ecids;
    let looked_until = staged_until(deps, &identity, &open, &syncs).await?;
    let (wishes, wants) = read_wishes(deps, munchkin, &syncs).await?;
    let ours = syncs.iter().any(|sync| sync.list.ours);
    take_in(deps, &mut open, ours, notes.found.iter().map(|(_, note)| note));
    open.state.settle_erasures(&wishes, deps.now());
    open.state.settle(&wishes);
    guard(deps, &mut open, &syncs, &wishes, &recorder);

    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Write).counting(recorder.calls());
    let due = |(sync, want): (&Sync, &Option<Want>)| {
        want.as_ref().filter(|want| open.head.report_is_due(sync, want, deps.now())).map(|want| want.pass)
    };
    let pass = syncs.iter().zip(&wants).filter_map(due).max().unwrap_or(0);
    let import_above = subscription.bulk_import_above;
    let ours = ours && !open.state.others_forgotten;
    let audiences = syncs.iter().zip(&wants).filter(|(sync, _)| sync.follows());
    let audiences =
        audiences.map(|(sync, want)| (sync.audience.clone(), want.as_ref().map(|want| want.key.clone()))).collect();
    let writer = Writer {
        deps,
        marketo,
        ours,
        wishes: &wishes,
        audiences: &audiences,
        pass,
        no_ecids,
        import_above,
        deadline,
        recorder: &recorder,
        look_again: OnceLock::new(),
    };
    let asked_at = deps.now();
    let outcome = async {
        verify::doubts(deps, marketo, &mut open, &wishes).await?;
        if let Some(next) = writer.turn(&mut open).await? {
            return Ok(next);
        }
        let looks = async {
            verify::sample(deps, marketo, &mut open, &wishes).await?;
            let whole = verify::whole(deps, marketo, &mut open).await?;
            let report = report::Reporting {
                deps,
                marketo,
                syncs: &syncs,
                wishes: &wishes,
                wants: &wants,
                deadline,
                looked_until,
            };
            let next = report.write(&mut open, lists.len(), whole == Whole::ByPages).await?;
            Ok(match (whole, next) {
                (Whole::At(at), Next::Done(wake_at)) => Next::Done(Some(wake_at.map_or(at, |wake_at| wake_at.min(at)))),
                (_, next) => next,
            })
        };
        match looks.await {
            // Nothing is left to write: what comes meanwhile need not wait for the next look.
            Err(CallError::Wait(until)) if !is_short(deps, until) => Ok(Next::Done(Some(until))),
            other => other,
        }
    };
    let outcome = outcome.await;
    if let Err(error) = &outcome {
        recorder.failed(deps, &mut open.head, error);
    }
    let mut is_gone = false;
    let next = match outcome {
        Ok(next) => next,
        // The window frees places within seconds: another invocation sleeps through that.
        Err(CallError::Wait(until)) if is_short(deps, until) => Next::Again,
        Err(CallError::Wait(until)) => Next::Rest(until),
        Err(CallError::Refused { code, .. }) if code == "1013" => {
            list_is_gone(deps, munchkin, &syncs, &wants).await?;
            open.state.erased_with_the_list();
            is_gone = true;
            // Nobody resumes a sync that was stopped: whom it is to take out leaves when the list is found again, and
            // whoever was there before us is put back.
            let leaving = syncs.iter().any(|sync| sync.status == Status::StoppedLeaving);
            let owed = leaving || !open.state.restore.is_empty();
            Next::Done(owed.then(|| deps.now() + deps.settings.scaled(GONE_LOOK_MS)))
        }
        Err(error) => {
            close(deps, &mut open, &wishes, Times { looked_until, asked_at }, &recorder, None).await?;
            return Err(error.into());
        }
    };
    let ended = if notes.more { None } else { Some(next) };
    let plan = close(deps, &mut open, &wishes, Times { looked_until, asked_at }, &recorder, ended).await?;
    // Whom to read is burnt when they have been read.
    let taken_in = notes.found.iter().filter(|(_, note)| !matches!(note, Note::Read { .. })).map(|(key, _)| key);
    for key in taken_in.chain(&notes.unreadable) {
        notes::burn(deps, key).await?;
    }
    answer_erasures(deps, &mut open).await?;
    if notes.more {
        return Ok(Next::Again);
    }
    Ok(match next {
        Next::Done(wake_at) => {
            let doubts = if wishes.rests() { None } else { open.state.next_doubt() };
            let sample = verify::sample_at(deps, &open, &wishes);
            // What is to be written goes before what somebody wants to know.
            let read_at = match members::turn(deps, munchkin, list, &notes, deadline).await? {
                Some(Next::Done(wake_at)) => wake_at,
                Some(next) => return Ok(next),
                None => None,
            };
            let waits = writer.look_again.get().copied();
            // Of a list that is gone nothing else is to be looked at: each look would be answered in the same way.
            let looks = [plan.next_at, doubts, sample, waits].into_iter().filter(|_| !is_gone);
            Next::Done([wake_at, read_at].into_iter().chain(looks).flatten().min())
        }
        other => other,
    })
}

/// A list that Marketo does not find is looked for again after this time, in ms, where people are to leave it or to be put
/// back. Ours: a look costs a call.
const GONE_LOOK_MS: u64 = 24 * HOUR_MS;
/// A wait of up to this, in ms, is a wait for the window.
const SHORT_MS: u64 = 25_000;

/// Whether a wait is one for a place in the window.
fn is_short(deps: &Deps, until: u64) -> bool {
    until <= deps.now() + deps.settings.scaled(SHORT_MS)
}

/// Takes in what operators and the activity log say.
fn take_in<'a>(deps: &Deps, open: &mut OpenList, ours: bool, notes: impl Iterator<Item = &'a Note>) {
    let (now, late) = (deps.now(), deps.settings.scaled(LATE_EFFECT_MS));
    for note in notes {
        match note {
            Note::Seen { added, removed, touched } => {
                open.state.seen(added, removed, late, now);
                if ours {
                    open.state.came_by_hand(added, late, now);
                }
                open.state.touched(touched);
            }
            Note::PutBack { leads } => open.state.put_back(leads.as_deref()),
            Note::Decide { held, apply } => {
                let decided = open.state.decide(held, *apply);
                tracing::info!(list.id = open.head.list, apply, decided, "an operator decided about a mass change");
            }
            Note::VerifyAll => {
                open.state.comparison.get_or_insert_default();
            }
            Note::Erase { job, leads } => open.state.erase(job, leads),
            // It changes nothing of what we know of the list.
            Note::Read { .. } => {}
        }
    }
}

/// Answers the jobs whose people are all done, once the state that says so is published and the notes are burnt: whoever
/// dies here answers once more, and the first answer counts.
async fn answer_erasures(deps: &Deps, open: &mut OpenList) -> Step<()> {
    let (munchkin, list, at) = (open.munchkin.clone(), open.head.list, deps.now());
    let done = open.state.erasing.iter().filter(|(_, job)| job.is_to_be_answered());
    let done: Vec<(String, Answer)> =
        done.map(|(id, job)| (id.clone(), Answer { v: 1, out: job.out, stay: job.stay, at })).collect();
    if done.is_empty() {
        return Ok(());
    }
    for (job, answer) in done {
        erase::answer(deps, &munchkin, &job, list, &answer).await?;
        open.state.answered(&job, at);
        tracing::info!(list.id = list, erase.out = answer.out, erase.stay = answer.stay, "people were erased");
    }
    open.publish(deps).await
}

/// Holds a mass change until an operator decides, whatever its cause.
fn guard(deps: &Deps, open: &mut OpenList, syncs: &[Sync], wishes: &Wishes, recorder: &Recorder) {
    let active = syncs.iter().filter(|sync| sync.status == Status::Active).map(|sync| sync.guard);
    let settings = active.reduce(GuardSettings::stricter).unwrap_or_default();
    let before = open.state.held.as_ref().map(|held| held.id.clone());
    let change = open.state.mass_change(wishes, settings);
    open.state.hold(change, deps.fresh_id(), deps.now());
    open.head.held = open.state.held.as_ref().map(|held| Held {
        id: held.id.clone(),
        since: held.since,
        why: why(&held.change),
        remove: held.change.remove.len(),
        add: held.change.add.len(),
        of: held.change.of,
    });
    if let Some(held) = open.head.held.clone().filter(|held| before.as_ref() != Some(&held.id)) {
        recorder.held(deps, &mut open.head, held.remove + held.add);
        tracing::error!(
            list.id = open.head.list,
            held.id = %held.id,
            held.remove = held.remove,
            held.add = held.add,
            held.of = held.of,
            "a mass change is held until an operator applies or drops it"
        );
    }
}

fn why(change: &MassChange) -> Said {
    let MassChange { remove, add, of, recent } = change;
    let (saying, name, count) = match (add.is_empty(), *recent > 0) {
        (true, false) => (HELD_REMOVALS, "removals", remove.len()),
        (true, true) => (HELD_REMOVALS_AFTER, "removals", remove.len()),
        (false, false) => (HELD_ADDITIONS, "additions", add.len()),
        (false, true) => (HELD_ADDITIONS_AFTER, "additions", add.len()),
    };
    saying.with([(name, count.into()), ("of", (*of).into()), ("recent", (*recent).into())])
}

/// Times of a turn, in ms.
#[derive(Clone, Copy)]
struct Times {
    /// Until then so many tokens wait for a look-up that a first load comes in stages: it is not over because one stage is,
    /// and the next is no mass change.
    looked_until: u64,
    /// When the turn began: before its first call was planned.
    asked_at: u64,
}

/// Writes down where the list stands. `next`: what comes now; `None`: more of the same.
async fn close(
    deps: &Deps,
    open: &mut OpenList,
    wishes: &Wishes,
    Times { looked_until, asked_at }: Times,
    recorder: &Recorder,
    next: Option<Next>,
) -> Step<Plan> {
    let now = deps.now();
    // Whoever was to wait when the calls were planned, and need not any more, is found by nobody else.
    let waited = match next {
        Some(Next::Done(_)) => open.state.plan(wishes, asked_at).next_at,
        _ => None,
    };
    let before = open.state.loaded.clone();
    open.state.tidy(wishes, now);
    let mut stage_over = None;
    if now < looked_until && open.state.loaded.len() > before.len() {
        stage_over = Some(looked_until);
        open.state.loaded = before;
    } else if open.state.loaded.len() > before.len() {
        // After a load, as soon as its last call is over for certain.
        verify::soon(deps, open);
    }
    let plan = open.state.plan(wishes, now);
    // What is held is not left to do: it waits for somebody.
    let held = open.state.held.is_some().then(|| open.state.plan_erasures(wishes, now));
    let left = held.as_ref().unwrap_or(&plan);
    open.head.left = Left {
        add: left.add.len(),
        remove: left.remove.len(),
        hold: open.state.hold.len() as u64 + plan.importing,
        failed: open.state.failed.len() as u64,
    };
    open.head.handled_at = now;
    // Whoever is on hold may still be written: their run goes on.
    let in_doubt = open.head.left.hold > 0;
    recorder.close(deps, open, next.filter(|_| !in_doubt)).await?;
    open.publish(deps).await?;
    // A lead on hold that nobody wants touched now still ends its hold.
    let hold_ends = open.state.hold.values().copied().min();
    Ok(Plan { next_at: [plan.next_at, hold_ends, stage_over, waited].into_iter().flatten().min(), ..plan })
}

/// After the audiences were last told of some of many look-ups, the rest is told and written within this time, in ms.
/// Ours: twice as long as the audiences wait where the day's calls are scarce, an hour.
const STAGE_MS: u64 = 2 * HOUR_MS;
/// A list whose audience is still being worked out after that is looked at again so soon, in ms.
const LAST_STAGE_MS: u64 = 60_000;

/// Until when (ms) the first load of a list comes in stages: while many tokens wait for their first look-up, and then until
/// its audiences have been worked out once more. 0: it does not.
async fn staged_until(deps: &Deps, identity: &IdentityHead, open: &OpenList, syncs: &[Sync]) -> Step<u64> {
    let stage = deps.settings.scaled(STAGE_MS);
    if identity.told_at != 0 {
        return Ok(identity.told_at + stage);
    }
    let now = deps.now();
    if identity.calm_at != 0 && now < identity.calm_at + stage {
        for sync in syncs.iter().filter(|sync| sync.follows() && !open.state.loaded.contains(&sync.id)) {
            let bell = bell::look(deps, &bell::BellKey::audience(&open.munchkin, &sync.audience)).await?;
            if bell.dirty_since.is_some() || bell.done < bell.version {
                return Ok(now + deps.settings.scaled(LAST_STAGE_MS));
            }
        }
    }
    Ok(0)
}

/// Applies merges and deletions. Returns what the identity work remembers.
async fn learn_departures(deps: &Deps, open: &mut OpenList) -> Step<IdentityHead> {
    let head: Option<state::Doc<IdentityHead>> = load(deps, Table::Syncs, &syncs::identity_key(&open.munchkin)).await?;
    let head = head.map(|head| head.value).unwrap_or_default();
    let upto = head.departures;
    // What happened before a list was first written concerns nobody whom we know of.
    let seen = if open.head.state_key.is_none() { upto } else { open.state.merges_seen };
    for line in departures(deps, &open.munchkin, seen, upto).await? {
        match line.winner {
            Some(_) if !holds(Guard::MergesAreFollowed) => {}
            Some(winner) => open.state.merged(winner, &line.gone),
            None => line.gone.iter().for_each(|lead| open.state.deleted(*lead)),
        }
    }
    open.state.merges_seen = open.state.merges_seen.max(upto);
    Ok(head)
}

/// Reads the members of an adopted list: who was there before us, and who of them is tied to an ECID. `false`: there is
/// more to read.
async fn adopt(asking: Asking<'_>, open: &mut OpenList, no_ecids: bool) -> Result<bool, CallError> {
    let fields = if no_ecids { "id,email,cookies" } else { "id,email,cookies,ecids" };
    let Some(members) = asking.read_on(&mut open.head.adopting, fields).await? else { return Ok(false) };
    open.state.were_there(members.all.iter());
    open.state.tied = members.tied;
    open.state.members_read = true;
    Ok(true)
}

/// Those of the leads who are known and tied to an ECID, by Marketo's own word or by a token that we have seen. Only if we
/// know of each tie as Marketo does, and have told the audiences: till then nobody can say that no audience wants them, and they
/// are looked at again with the next pass.
async fn tied(deps: &Deps, munchkin: &MunchkinId, rows: &[LeadRow]) -> Step<LeadSet> {
    let seen = identity::tokens(deps, munchkin, rows.iter().flat_map(|row| &row.cookies)).await?;
    let seen: BTreeMap<Token, TokenRecord> =
        seen.into_iter().map(|token| (token.value.token.clone(), token.value)).collect();
    let told = rows.iter().filter(|row| !row.ecids.is_empty()).map(|row| row.id);
    let told: BTreeMap<LeadId, LeadRecord> =
        identity::leads(deps, munchkin, told).await?.into_iter().map(|lead| (lead.value.lead, lead.value)).collect();
    let is_tied = |row: &&LeadRow| {
        let lead = told.get(&row.id);
        // What was erased ties nobody.
        let is_erased = |ecid| lead.is_some_and(|lead| lead.erased_at.is_some() || lead.erased_ecids.contains(ecid));
        let is_told = |ecid| lead.is_some_and(|lead| lead.known && !lead.unpropagated && lead.ecids.contains(ecid));
        let mut ecids = row.ecids.iter().filter(|ecid| !is_erased(ecid)).peekable();
        let mut tokens =
            row.cookies.iter().filter_map(|token| seen.get(token)).filter(|token| !token.ecids.is_empty()).peekable();
        // One that is in no audience that is followed is not asked about.
        let is_learned = |token: &TokenRecord| {
            !token.unpropagated && (token.parked || (token.lead == Some(row.id) && token.known && !token.hinted))
        };
        let any = ecids.peek().is_some() || tokens.peek().is_some();
        row.known && any && ecids.all(is_told) && tokens.all(is_learned)
    };
    Ok(rows.iter().filter(is_tied).map(|row| row.id).collect())
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
        wishes.incomplete |= key.is_none() && matches!(mode, Mode::Active | Mode::ActiveKeeping);
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
            sync.why = Some(LIST_GONE.plain());
            true
        })
        .await?;
    }
    Ok(())
}
