//! How far a sync is, and when its list will be as it should be.
//!
//! Three things determine the time of a first load. Look-ups go one after the other, 300 cookies a call, at the pace at
//! which they went since the last pass, and no faster than our share of the window and of the day allows. Additions go
//! several at a time beside them, in stages of ten minutes; so behind the last look-up there is a pass, and what the last
//! stage found. And what does not fill a call waits until its calls are due. Where one of these is not known the estimate
//! is not, either.

use domain::identity::TokenRecord;
use domain::limits::MARKETO_BATCH;
use domain::list::State;
use domain::{AudienceId, LeadSet, ListId, MunchkinId};
use ports::{Failure, Read, Table};
use serde_json::{Value, json};
use state::audience::{Head, Waiting};
use state::bell::BellKey;
use state::budget::Outlook;
use state::edges::PARTITIONS;
use state::identity::{SHARDS, ask_pk, tell_pk, token_shard};
use state::lists::{Left, OpenList, Want, read_leads, want_key};
use state::syncs::{Start, Status, Sync};
use state::{Deps, Step, bell, doc, load};

use crate::once::Once;
use crate::places::ATTEMPTS;
use crate::problem::Answer;
use crate::view::Seen;

/// People, or cookies, of a call.
#[expect(clippy::cast_precision_loss)]
const FULL: f64 = MARKETO_BATCH as f64;
/// Look-ups a second while too few were made to tell: each waits for Marketo and writes down 300 answers. Ours.
const LOOK_UPS_PER_SECOND: f64 = 1.5;
/// Cookies of each partition that are looked at to judge others by them, and fewest that tell. Ours.
const SAMPLE: usize = 30;
/// Calls, and time in ms, from which a pace is judged, at least. Ours.
const MEASURED_CALLS: u64 = 5;
const MEASURED_MS: u64 = 10_000;
/// While many tokens wait for a look-up the audiences are told this often, in seconds (`scheduled-incremental-sync`).
const STAGE_SECONDS: f64 = 600.0;
/// A few tokens that a pass saw are asked about within this time, in ms: those that wait later are others. Ours.
const SOON_MS: u64 = 5 * 60_000;
/// A wait for calls that is shorter than this, in ms, is one for a place in the window, and is not shown. Ours.
const SHORT_MS: u64 = 60_000;
/// From the last answer of Marketo until the list's writer begins, and from its end until it says so, in seconds: rings of
/// doorbells. Ours.
const RINGS_SECONDS: f64 = 2.0;

/// What is shown.
#[derive(Debug, Clone, PartialEq)]
struct Progress {
    step: &'static str,
    /// Done, of how many, of what.
    part: Option<(u64, u64, &'static str)>,
    /// Seconds until the list is as it should be.
    seconds: Option<f64>,
    sentence: String,
}

impl Progress {
    fn new(step: &'static str, sentence: impl Into<String>) -> Self {
        Self { step, part: None, seconds: None, sentence: sentence.into() }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn json(&self) -> Value {
        json!({
            "step": self.step,
            "done": self.part.map(|(done, ..)| done),
            "of": self.part.map(|(_, of, _)| of),
            "unit": self.part.map(|(.., unit)| unit),
            "estimate_seconds": self.seconds.map(|seconds| seconds.ceil() as u64),
            "sentence": self.sentence,
        })
    }
}

/// How far a sync is, as JSON.
pub(crate) async fn progress(deps: &Deps, seen: &Seen, once: &Once<'_>) -> Answer<Value> {
    Ok(find(deps, seen, once).await?.json())
}

async fn find(deps: &Deps, seen: &Seen, once: &Once<'_>) -> Step<Progress> {
    let leaving = seen.list.as_ref().map_or(0, |head| head.left.remove);
    match seen.sync.status {
        Status::Creating => return Ok(Progress::new("making_list", "The list is being made in Marketo.")),
        Status::Paused => {
            return Ok(Progress::new("paused", "The sync is paused: its list is not written until it is resumed."));
        }
        Status::StoppedLeaving if leaving > 0 => {
            let sentence = format!("The sync is stopped, and {leaving} people are being taken out of its list.");
            return Ok(Progress::new("writing", sentence));
        }
        Status::StoppedKeeping | Status::StoppedLeaving => {
            return Ok(Progress::new("stopped", "The sync is stopped."));
        }
        Status::Active => {}
    }
    let Some(head) = &seen.head else { return waiting(once).await };
    if seen.held().is_some() {
        return Ok(Progress::new("held", "A mass change is held: nothing is written until somebody decides about it."));
    }
    let Some(want) = &seen.want else { return counting(head, once).await };
    let outlook = once.outlook().await?;
    let writing = if seen.sync.start == Start::Now { writing(deps, seen, want).await? } else { None };
    if let Some(asking) = asking(deps, seen, head, want, once).await? {
        return Ok(asking.shown(writing.as_ref(), outlook));
    }
    if let Some(writing) = writing {
        return Ok(writing.shown(outlook));
    }
    if let Some(under_way) = under_way(deps, seen, head, want, once).await? {
        return Ok(under_way);
    }
    // Nobody knows whom it concerns before the audiences are told.
    if once.untold().await? {
        let sentence = "The list holds everybody whom it should hold, but for news about people that the audiences are to be \
                        told within the hour.";
        return Ok(Progress::new("news_waiting", sentence));
    }
    Ok(Progress::new("in_step", "The list holds everybody whom it should hold, as far as is known."))
}

/// Nobody knows whether the delivery that is being read names the audience: it is what there is to wait for.
async fn waiting(once: &Once<'_>) -> Step<Progress> {
    let Some(one) = once.under_way().await?.first() else {
        return Ok(Progress::new("waiting_for_delivery", "No delivery has named the audience yet."));
    };
    let sentence = format!("No delivery has named the audience yet. One is being read: {}.", one.sentence());
    Ok(Progress {
        part: one.part.map(|(done, of)| (done, of, "entries")),
        ..Progress::new("reading_delivery", sentence)
    })
}

/// What is rung, waiting or under way for the audience or for its list, although nothing is known to be left to write.
/// Whoever hears that nothing is may rely on it: looked at in the order in which one rings the next.
async fn under_way(deps: &Deps, seen: &Seen, head: &Head, want: &Want, once: &Once<'_>) -> Step<Option<Progress>> {
    let munchkin = &seen.sync.munchkin;
    let mut list_bell = seen.list_bell.clone();
    let mut is_counted = is_to_be_counted(head) || seen.audience_bell.is_busy();
    // Its last pass saw cookies of which nobody knew whose they are: what Marketo answered may be told to no audience yet.
    let waiting = head.waiting.clone().filter(|waiting| waiting.tokens > 0);
    if waiting.is_some() && !is_counted {
        let untold = deps.ports.tables.due(Table::Identity, &tell_pk(munchkin), deps.now(), 1).await?;
        let audience_bell = bell::look(deps, &BellKey::audience(munchkin, &seen.sync.audience)).await?;
        is_counted = !untold.is_empty() || audience_bell.is_busy();
    }
    if is_counted {
        let seconds = match waiting {
            Some(waiting) => behind_the_last(deps, seen, head, waiting, want, once).await?,
            None => None,
        };
        return Ok(Some(Progress { seconds, ..counting(head, once).await? }));
    }
    if waiting.is_some()
        && let (Start::Now, Some(list)) = (seen.sync.start, seen.sync.list.id)
    {
        list_bell = bell::look(deps, &BellKey::list(munchkin, list)).await?;
    }
    let sentence = "The list is being compared with who is wanted in it.";
    Ok(list_bell.is_busy().then(|| Progress::new("writing", sentence)))
}

/// Seconds until the list is as it should be, once the last of many cookies was asked about: the pass that its answer rang,
/// and the people whom that finds. `None`: the pass is another one.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
async fn behind_the_last(
    deps: &Deps,
    seen: &Seen,
    head: &Head,
    mut waiting: Waiting,
    want: &Want,
    once: &Once<'_>,
) -> Step<Option<f64>> {
    let identity = once.identity().await?;
    let last = identity.calm_at.max(waiting.as_of + waiting.took_ms);
    let is_over = identity.told_at == 0 && deps.now() > last + deps.settings.scaled(SOON_MS) + waiting.took_ms;
    if is_over {
        return Ok(None);
    }
    waiting.took_ms = (waiting.took_ms as f64 * (1.0 - part_read(head, once).await?)) as u64;
    let asking = Asking::new(deps, seen, waiting, 0, want, once).await?;
    Ok(asking.seconds(None, once.outlook().await?))
}

/// The part of the records that were read for the pass under way, where all of them are.
async fn part_read(head: &Head, once: &Once<'_>) -> Step<f64> {
    if head.pass.is_none() {
        return Ok(0.0);
    }
    let job = once.edges().await?.and_then(|edges| edges.job.as_ref());
    let read = job.and_then(|job| job.reading.as_ref()).map_or(0, |reading| reading.shard);
    Ok(f64::from(read) / f64::from(PARTITIONS))
}

const fn is_to_be_counted(head: &Head) -> bool {
    head.pass.is_some() || head.pass_wanted > head.pass_done
}

/// The audience is being counted: so many of its browsers as the part of the records that was read. How long the sync takes
/// is not known meanwhile, but behind the last look-up: what takes the time is the look-ups, and of how many cookies is what
/// is being counted.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
async fn counting(head: &Head, once: &Once<'_>) -> Step<Progress> {
    let of = head.base.as_ref().map(|base| base.count).filter(|_| is_to_be_counted(head));
    let part = part_read(head, once).await?;
    Ok(Progress {
        part: of.map(|of| ((of as f64 * part) as u64, of, "browsers")),
        ..Progress::new("counting", "Who of the audience is a known person is being worked out.")
    })
}

/// Marketo is asked about cookies of the audience.
#[derive(Debug, Clone, PartialEq)]
struct Asking {
    /// Cookies that are left.
    left: f64,
    /// What the last pass saw.
    waiting: Waiting,
    /// Look-ups a second.
    pace: f64,
    /// Calls of any kind a second, where the window is what bounds them.
    window: f64,
    /// Calls that an addition of 300 people takes.
    calls_each: f64,
    /// Part of the cookies that are known people's.
    share: f64,
    /// Other audiences have so many that nobody knows whose turn it is.
    beside_others: bool,
}

async fn asking(deps: &Deps, seen: &Seen, head: &Head, want: &Want, once: &Once<'_>) -> Step<Option<Asking>> {
    let munchkin = &seen.sync.munchkin;
    let Some(waiting) = head.waiting.clone().filter(|waiting| waiting.tokens > 0) else { return Ok(None) };
    let identity = once.identity().await?;
    let crowded = identity.told_at != 0;
    let since = since(deps, &waiting);
    if !crowded && (identity.calm_at >= waiting.as_of || since > deps.settings.scaled(SOON_MS)) {
        return Ok(None);
    }
    let due = deps.ports.tables.due(Table::Identity, &ask_pk(munchkin), deps.now(), MARKETO_BATCH).await?.len();
    if due == 0 {
        return Ok(None);
    }
    Ok(Some(Asking::new(deps, seen, waiting, due, want, once).await?))
}

/// Time since the last pass, in ms.
fn since(deps: &Deps, waiting: &Waiting) -> u64 {
    deps.now().saturating_sub(waiting.as_of + waiting.took_ms)
}

/// Part of the cookies that are known people's: as the last pass saw it of those who were asked about by then; before it saw
/// any, as some show who were asked about since. A half where nobody knows: then no estimate is wrong by more than a third.
#[expect(clippy::cast_precision_loss)]
async fn share(deps: &Deps, munchkin: &MunchkinId, waiting: &Waiting, want: &Want) -> Step<f64> {
    let asked = waiting.of.saturating_sub(waiting.tokens);
    if asked >= MARKETO_BATCH as u64 {
        return Ok((want.report.counts.people as f64 / asked as f64).min(1.0));
    }
    let (mut asked, mut known) = (0, 0);
    for shard in 0..SHARDS {
        let (tables, shard) = (&deps.ports.tables, token_shard(munchkin, shard));
        for item in tables.query(Table::Identity, &shard, "", None, SAMPLE, Read::Eventual).await?.items {
            let token = doc::read::<TokenRecord>(item)?.value;
            if token.asked_at.is_some_and(|at| at >= waiting.as_of) {
                asked += 1;
                known += usize::from(token.person().is_some());
            }
        }
    }
    Ok(if asked < SAMPLE { 0.5 } else { known as f64 / asked as f64 })
}

/// Cookies that are left: what the index shows where it shows fewer than a call takes, else what the last pass saw, less
/// what the look-ups since have asked about.
#[expect(clippy::cast_precision_loss)]
fn left(waiting: &Waiting, due: usize, look_ups: u64) -> f64 {
    if due < MARKETO_BATCH {
        return due as f64;
    }
    (waiting.tokens as f64 - look_ups as f64 * FULL).max(FULL)
}

/// Cookies of other audiences that wait, too.
async fn others(once: &Once<'_>, own: &AudienceId) -> Step<u64> {
    let calm_at = once.identity().await?.calm_at;
    let others = once.waiting().await?.iter().filter(|(audience, other)| audience != own && other.as_of > calm_at);
    Ok(others.map(|(_, other)| other.tokens).sum())
}

impl Asking {
    /// `due`: cookies that the index shows, at most a call's worth.
    #[expect(clippy::cast_precision_loss)]
    async fn new(deps: &Deps, seen: &Seen, waiting: Waiting, due: usize, want: &Want, once: &Once<'_>) -> Step<Self> {
        let munchkin = &seen.sync.munchkin;
        let (identity, outlook) = (once.identity().await?, once.outlook().await?);
        let (crowded, since) = (identity.told_at != 0, since(deps, &waiting));
        // At midnight both begin anew.
        let made = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        let look_ups = made(outlook.look_ups_today, waiting.look_ups);
        // As they went since the last pass, once they tell.
        let measured = |calls: u64| {
            let enough = calls >= MEASURED_CALLS && since >= MEASURED_MS;
            enough.then(|| (calls as f64 * 1_000.0 / since as f64).min(outlook.per_second))
        };
        let alone = outlook.per_second.min(LOOK_UPS_PER_SECOND);
        let together = measured(made(outlook.calls_today, waiting.calls));
        // While additions take places of the window, look-ups are slower than they will be.
        let pace = match (measured(look_ups), together) {
            (Some(look_ups), Some(together)) => look_ups.max(together.min(alone)),
            _ => alone,
        };
        let window = together.filter(|_| outlook.per_second < LOOK_UPS_PER_SECOND).unwrap_or(outlook.per_second);
        Ok(Self {
            left: left(&waiting, due, look_ups),
            beside_others: crowded && others(once, &seen.sync.audience).await? * 2 > waiting.tokens,
            calls_each: calls_each(&seen.sync),
            share: share(deps, munchkin, &waiting, want).await?,
            waiting,
            pace,
            window,
        })
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn shown(&self, writing: Option<&Writing>, outlook: &Outlook) -> Progress {
        let done = self.waiting.of.saturating_sub(self.left.ceil() as u64);
        let progress = Progress {
            part: Some((done, self.waiting.of, "cookies")),
            seconds: self.seconds(writing, outlook),
            ..Progress::new("asking_marketo", "Marketo is being asked whose cookies these are.")
        };
        waiting_for_calls(progress, outlook.look_up_at, outlook)
    }

    /// The calls that are left at the pace of our share, or, where that takes longer, the look-ups at their own pace and
    /// behind them what the last stage found; and the pass that ends them.
    #[expect(clippy::cast_precision_loss)]
    fn seconds(&self, writing: Option<&Writing>, outlook: &Outlook) -> Option<f64> {
        if self.beside_others {
            return None;
        }
        let Waiting { tokens, took_ms, .. } = self.waiting;
        let (waiting, share) = (tokens as f64, self.share);
        let additions = |cookies: f64| cookies * share / FULL * self.calls_each;
        let look_ups = self.left / FULL;
        // Of those who were asked about since the last pass nobody has been told yet.
        let all = look_ups + additions(waiting) + writing.map_or(0.0, |writing| writing.calls(writing.add));
        let stage = (self.pace * STAGE_SECONDS * FULL).min(waiting);
        let outlook = Outlook { per_second: self.window, ..*outlook };
        let one_by_one = look_ups / self.pace + additions(stage) / self.window;
        Some(outlook.seconds(all)?.max(one_by_one) + took_ms as f64 / 1_000.0 + RINGS_SECONDS)
    }
}

/// Calls that an addition of 300 people takes: on a list that we did not make they are asked about first.
const fn calls_each(sync: &Sync) -> f64 {
    match (sync.start, sync.list.ours) {
        (Start::ReportOnly, _) => 0.0,
        (Start::Now, true) => 1.0,
        (Start::Now, false) => 2.0,
    }
}

/// People wait to be added to the list, or to be taken out.
#[derive(Debug, Clone, PartialEq)]
struct Writing {
    done: u64,
    of: u64,
    add: u64,
    remove: u64,
    /// Calls that an addition of 300 people takes.
    calls_each: f64,
    /// So long, in seconds, nothing is done for the list; `None`: nobody knows. Of a bulk import nobody does: Marketo
    /// documents no pace of one, nor how long it waits for the two that run, nor whether it counts rows before it has ended.
    rests: Option<f64>,
}

/// What is left to write: counted from the sets while the list's writer has something to do, for its head says only what
/// was left at the end of its last turn.
async fn writing(deps: &Deps, seen: &Seen, want: &Want) -> Step<Option<Writing>> {
    let Some(list) = seen.sync.list.id else { return Ok(None) };
    let left = seen.list.as_ref().map_or_else(Left::default, |head| head.left.clone());
    if seen.list.is_some() && !seen.list_bell.is_busy() && left.add + left.remove + left.hold == 0 {
        return Ok(None);
    }
    let Some((wanted, state)) = sets(deps, seen, want, list).await? else {
        // Replaced again and again: the writer's last word then.
        let add = seen.list.as_ref().map_or(want.count, |head| head.left.add);
        let rests = seen.list_bell.not_before.map_or(0.0, |at| seconds_until(deps, at));
        return Ok((add + left.remove > 0).then(|| Writing {
            done: want.count.saturating_sub(add),
            of: want.count,
            add,
            remove: left.remove,
            calls_each: calls_each(&seen.sync),
            rests: Some(rests).filter(|_| left.hold == 0),
        }));
    };
    let mut settled = wanted.and(&state.sure);
    for others in [&state.theirs, &state.kept_out, &state.dropped] {
        settled.add_all(&wanted.and(others));
    }
    for lead in state.failed.keys().filter(|lead| wanted.contains(**lead)) {
        settled.insert(*lead);
    }
    let add = wanted.len() - settled.len();
    if add + left.remove == 0 {
        return Ok(None);
    }
    // While the writer is at work its calls under way are on hold, too.
    let held = state.hold.values().copied().max().filter(|_| seen.list_bell.taken_at.is_none());
    let rests = seen.list_bell.not_before.max(held).map_or(0.0, |at| seconds_until(deps, at));
    Ok(Some(Writing {
        done: settled.len(),
        of: wanted.len(),
        add,
        remove: left.remove,
        calls_each: calls_each(&seen.sync),
        rests: Some(rests).filter(|_| state.import.is_none()),
    }))
}

/// Who is wanted, and where the list stands; `None`: they were replaced between a pointer and what it points to each time.
async fn sets(deps: &Deps, seen: &Seen, want: &Want, list: ListId) -> Step<Option<(LeadSet, State)>> {
    let munchkin = &seen.sync.munchkin;
    let mut key = want.key.clone();
    for _ in 0..=ATTEMPTS {
        let read = async {
            let wanted = read_leads(deps, &key).await?;
            Ok((wanted, OpenList::open(deps, munchkin, list).await?.state))
        };
        match read.await {
            Ok(sets) => return Ok(Some(sets)),
            Err(Failure::Retry { .. }) => {}
            Err(failure) => return Err(failure),
        }
        if let Some(found) = load::<Want>(deps, Table::Lists, &want_key(munchkin, &seen.sync.audience)).await? {
            key = found.value.key;
        }
    }
    Ok(None)
}

fn seconds_until(deps: &Deps, at: u64) -> f64 {
    std::time::Duration::from_millis(at.saturating_sub(deps.now())).as_secs_f64()
}

impl Writing {
    #[expect(clippy::cast_precision_loss)]
    fn calls(&self, people: u64) -> f64 {
        people.div_ceil(MARKETO_BATCH as u64) as f64 * self.calls_each
    }

    fn shown(&self, outlook: &Outlook) -> Progress {
        let mut sentence = format!("{} people are being added to the list", self.add);
        if self.remove > 0 {
            sentence.push_str(&format!(", and {} taken out", self.remove));
        }
        let progress = Progress {
            part: Some((self.done, self.of, "people")),
            seconds: self.seconds(outlook),
            ..Progress::new("writing", format!("{sentence}."))
        };
        waiting_for_calls(progress, outlook.write_at, outlook)
    }

    /// Full calls at the pace of the window; then, if some are left that fill none, the wait for their calls. While nothing
    /// but those is left, it is the wait alone.
    #[expect(clippy::cast_precision_loss)]
    fn seconds(&self, outlook: &Outlook) -> Option<f64> {
        let calls = self.calls(self.add) + self.remove.div_ceil(MARKETO_BATCH as u64) as f64;
        let full = |people: u64| people.is_multiple_of(MARKETO_BATCH as u64);
        let small = !full(self.add) || !full(self.remove);
        let wait = if small { outlook.next_write_in_ms as f64 / 1_000.0 } else { 0.0 };
        // A visit that is booked stands in both.
        let rests = self.rests?;
        let wait = if rests > 0.0 { rests } else { wait };
        Some(wait + outlook.seconds(calls)? + RINGS_SECONDS)
    }
}

/// The same while the day has no calls left for it, or Marketo refuses all.
fn waiting_for_calls(progress: Progress, opens_at: u64, outlook: &Outlook) -> Progress {
    if opens_at < outlook.now + SHORT_MS {
        return progress;
    }
    let sentence = "Our share of Marketo's calls is used up for now: it goes on when there are calls again.";
    Progress { step: "waiting_for_calls", sentence: sentence.to_owned(), ..progress }
}
