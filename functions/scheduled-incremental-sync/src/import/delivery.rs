//! Files that belong together: when they are whole, and what is made of them.

use std::collections::{BTreeMap, BTreeSet};

use domain::feed::Control;
use domain::limits::{FUNCTION_MS, HOUR_MS};
use domain::planted::{Guard, holds};
use domain::said::Saying;
use domain::sayings::{
    FILE_DROPPED, FILE_EMPTY, FILE_GONE, FILE_NOT_NAMED, NEVER_WHOLE, NOT_WHOLE_LINES, NOT_WHOLE_PART,
    NOT_WHOLE_RECORD, NOT_WHOLE_ROWS, PART_OF_SEVERAL, TOO_LARGE_TO_COUNT, TOO_LARGE_TO_TAKE, WAITS_FOR_CONTROL,
    WAITS_FOR_FILES, WAITS_FOR_MORE, WAITS_FOR_PARTS,
};
use domain::{AudienceId, MunchkinId, Said};
use ports::{Failure, Key, Table};
use state::feeds::{
    Completeness, DEFAULT_FEED, DELIVERIES_DUE, Delivery, Feed, FullDelivery, Import, ImportStatus, Kind, Part,
    Progress, Turns, change_delivery, change_feed_state, delivery_key, feed_state, import_key, save_import,
};
use state::syncs::Subscription;
use state::{Deps, Step, audience, doc, load, syncs};

use super::apply::{Before, Origin, RESERVE_MS, Snapshot, When, facts, snapshots};
use super::audience_of;
use super::content::{Count, Library, Taken, Unit, plan};
use super::counted::{Counted, forget};
use super::files::{Fault, Files, Looked, REPLACED};
use super::ids::{Suspicion, suspicion};

/// A delivery that is not whole after this time is not waited for any longer, in ms: the next one comes each day.
const PATIENCE_MS: u64 = 24 * HOUR_MS;
/// A delivery that could not be taken in is looked at again after this time, in ms: longer than an invocation lasts.
const FAILED_MS: u64 = 3 * 60_000;
/// A delivery that waits is looked at so often all the same, in ms: its feed's settings may have changed.
const LOOK_MS: u64 = 15 * 60_000;
/// Of so many rows of a snapshot one may be unreadable. Whoever stands in a row that cannot be read would leave. Ours.
const READABLE: u64 = 100;
/// Deliveries that one tick looks at.
const DUE: usize = 20;
/// So many invocations in a row may come no further with a delivery; then it waits for an operator. Ours: as many as for a key
/// that is stuck.
const TURNS: u32 = 3;
/// The same where invocations were killed, of which nobody can say why: what is too large for the memory kills each of them, and
/// a machine that breaks does so seldom. Ours: two hours and a half.
const KILLED: u32 = 12;
/// An invocation with less time than this ahead, in ms, says nothing of what a delivery needs. Ours: half of what there is.
const FAIR_MS: u64 = FUNCTION_MS / 2;
/// Where counting takes longer than this, in ms, it is said when it has ended: taking takes longer still. Ours.
const SAY_MS: u64 = 3_000;

/// How a delivery stands.
enum Turn {
    /// All of it is there, and it lists everybody.
    Whole,
    /// Each part stands for itself; said why, where somebody might have expected otherwise.
    Parts(Option<Saying>),
    /// More is to come; what, and until when (ms) that is waited for.
    Waits(Said, u64),
}

/// Looks at the deliveries whose time has come.
pub(crate) async fn due(deps: &Deps, deadline: u64) -> Step<()> {
    let mut failed = None;
    for item in deps.ports.tables.due(Table::Syncs, DELIVERIES_DUE, deps.now(), DUE).await? {
        if deps.now() + deps.settings.scaled(RESERVE_MS) > deadline {
            break;
        }
        let delivery: Delivery = doc::read(item)?.value;
        let key = delivery_key(&delivery.munchkin, &delivery.feed, &delivery.id);
        // Before anything else: one that fails, or kills this process, does not stand first for ever, and the next tick does
        // not begin what this one is about.
        let later = deps.now().saturating_add(deps.settings.scaled(FAILED_MS));
        change(deps, &key, delivery.version, |found| {
            begin(deps, found, deadline);
            found.look_at = Some(later);
        })
        .await?;
        if let Err(failure) = settle(deps, &key, deadline).await {
            tracing::warn!(reason = %failure, "a delivery cannot be taken in now");
            failed.get_or_insert(failure);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// An invocation begins to take in a delivery.
pub(super) fn begin(deps: &Deps, delivery: &mut Delivery, deadline: u64) {
    let now = deps.now();
    let is_fair = deadline.saturating_sub(now) >= deps.settings.scaled(FAIR_MS);
    delivery.begin(now, is_fair);
}

/// Takes in what has come of a delivery, if that can be done now. A second time it changes nothing.
pub(super) async fn settle(deps: &Deps, key: &Key, deadline: u64) -> Step<()> {
    let settled = go_on(deps, key, deadline).await;
    if let Err(failure) = &settled {
        // Counted once, it may be gone by now: it is looked for anew, and then is no part of the delivery.
        let is_gone = matches!(failure, Failure::Retry { reason, .. } if reason == REPLACED);
        // What was refused by a service is not too large: it is tried again, however often.
        let failed = change_delivery(deps, key, |found| {
            let Some(found) = found.as_mut() else { return (false, ()) };
            let before = (found.turns, found.progress.counted.clone());
            found.turns.in_vain = found.turns.in_vain.saturating_sub(1);
            found.turns.ended = found.turns.ended.min(found.turns.in_vain);
            found.progress.counted.take_if(|_| is_gone);
            (before != (found.turns, found.progress.counted.clone()), ())
        });
        if let Err(failure) = failed.await {
            tracing::warn!(reason = %failure, "an attempt that failed counts as one that came no further");
        }
    }
    settled
}

async fn go_on(deps: &Deps, key: &Key, deadline: u64) -> Step<()> {
    loop {
        let Some(delivery) = load::<Delivery>(deps, Table::Syncs, key).await?.map(|doc| doc.value) else {
            return Ok(());
        };
        let version = delivery.version;
        if delivery.parts.is_empty() || delivery.taken == Some(version) {
            return rest(deps, key, version, None).await;
        }
        match (&delivery.held, delivery.decided) {
            (Some(why), None) => return mark(deps, &delivery, ImportStatus::Held, why).await,
            (Some(_), Some(false)) => {
                mark(deps, &delivery, ImportStatus::Refused, &FILE_DROPPED.plain()).await?;
                taken(deps, key, version).await?;
                continue;
            }
            _ => {}
        }
        let feed = state::feeds::feed(deps, &delivery.munchkin, &delivery.feed).await?;
        let feed = feed.unwrap_or_else(|| Feed::new(DEFAULT_FEED, Kind::AamFiles));
        if let Some(why) = closed(deps, &delivery.munchkin).await? {
            mark(deps, &delivery, ImportStatus::Refused, &why).await?;
            taken(deps, key, version).await?;
            continue;
        }
        let turn = turn(deps, &feed, &delivery);
        if let Turn::Waits(what, until) = &turn {
            mark(deps, &delivery, ImportStatus::Waiting, what).await?;
            let look = deps.now().saturating_add(deps.settings.scaled(LOOK_MS));
            // Nobody has begun to take it in.
            return wait(deps, key, version, Some(look.min(*until)), Some(Turns::default())).await;
        }
        if delivery.turns.count == 0 {
            // It was to wait, and waits no longer.
            change(deps, key, version, |found| begin(deps, found, deadline)).await?;
        }
        if !holds(Guard::TakenWhenTaken) {
            taken(deps, key, version).await?;
        }
        // Of those who were killed nobody has said so.
        let outcome = match delivery.turns.in_vain > KILLED {
            true => Outcome::More { progress: delivery.progress.clone(), further: false },
            false => take(deps, &feed, &delivery, &turn, deadline).await?,
        };
        let (progress, why) = match outcome {
            Outcome::Taken => {
                forget(deps, &delivery.progress).await?;
                taken(deps, key, version).await?;
                continue;
            }
            Outcome::Held(why) => (delivery.progress, why),
            Outcome::More { progress, further: false } if delivery.turns.in_vain > KILLED => {
                let why = too_large(&progress, KILLED);
                (progress, why)
            }
            // This one is among those in vain, if it had as much time as one can expect.
            Outcome::More { progress, further: false }
                if delivery.turns.in_vain > delivery.turns.ended && delivery.turns.ended + 1 >= TURNS =>
            {
                let why = too_large(&progress, TURNS);
                (progress, why)
            }
            // The next tick goes on.
            Outcome::More { progress, further } => {
                let now = deps.now();
                return change(deps, key, version, |found| {
                    found.progress = progress.clone();
                    if further {
                        found.turns.came_further();
                    } else {
                        found.turns.ended = found.turns.in_vain.min(found.turns.ended + 1);
                    }
                    found.look_at = Some(now);
                })
                .await;
            }
        };
        change(deps, key, version, |found| {
            found.progress = progress.clone();
            found.believed = is_believed(found);
            found.held = Some(why.clone());
            found.decided = None;
            found.turns.came_further();
            found.look_at = None;
        })
        .await?;
    }
}

/// What became of a delivery.
pub(super) enum Outcome {
    Taken,
    /// It waits for an operator, and why.
    Held(Said),
    /// How much is taken; the time was too short for the rest. `further`: it is more than before.
    More {
        progress: Progress,
        further: bool,
    },
}

/// Why a delivery waits for an operator with which nobody comes further.
fn too_large(progress: &Progress, turns: u32) -> Said {
    let Progress { taken, entries, .. } = *progress;
    match entries {
        0 => TOO_LARGE_TO_COUNT.with([("turns", turns.into())]),
        _ => TOO_LARGE_TO_TAKE.with([("turns", turns.into()), ("taken", taken.into()), ("entries", entries.into())]),
    }
}

/// Whether an operator has said that its ids are ECIDs, by applying it.
fn is_believed(delivery: &Delivery) -> bool {
    let too_large = |why: &Said| why.is(&TOO_LARGE_TO_COUNT) || why.is(&TOO_LARGE_TO_TAKE);
    let of_ids = delivery.held.as_ref().is_some_and(|why| !too_large(why));
    delivery.believed || (of_ids && delivery.decided == Some(true))
}

/// Changes a delivery, unless something came meanwhile.
async fn change(deps: &Deps, key: &Key, version: u64, mut change: impl FnMut(&mut Delivery)) -> Step<()> {
    change_delivery(deps, key, |found| {
        let found = found.as_mut().filter(|found| found.version == version);
        (found.map(&mut change).is_some(), ())
    })
    .await
}

/// Leaves a delivery until a time (ms), or until something comes.
async fn rest(deps: &Deps, key: &Key, version: u64, until: Option<u64>) -> Step<()> {
    wait(deps, key, version, until, None).await
}

/// The same, with other turns, if any are given.
async fn wait(deps: &Deps, key: &Key, version: u64, until: Option<u64>, turns: Option<Turns>) -> Step<()> {
    change_delivery(deps, key, |found| {
        let mine = found.as_mut().filter(|found| found.version == version);
        let Some(found) = mine else { return (false, ()) };
        let turns = turns.unwrap_or(found.turns);
        let is_new = (found.look_at, found.turns) != (until, turns);
        (found.look_at, found.turns) = (until, turns);
        (is_new, ())
    })
    .await
}

/// A version was taken in; what comes after it is another turn.
async fn taken(deps: &Deps, key: &Key, version: u64) -> Step<()> {
    change(deps, key, version, |found| {
        found.taken = Some(version);
        found.held = None;
        found.decided = None;
        found.look_at = None;
    })
    .await
}

/// Why nothing may be taken in for a subscription, if so.
async fn closed(deps: &Deps, munchkin: &MunchkinId) -> Step<Option<Said>> {
    let subscription = syncs::subscription(deps, munchkin).await?;
    Ok(subscription.as_ref().and_then(Subscription::refused).map(|why| why.plain()))
}

fn turn(deps: &Deps, feed: &Feed, delivery: &Delivery) -> Turn {
    if !delivery.full && holds(Guard::AbsenceSaysNothing) {
        return Turn::Parts(None);
    }
    let now = deps.now();
    let patience = delivery.latest_at.saturating_add(deps.settings.scaled(PATIENCE_MS));
    let what = match feed.completeness {
        Completeness::SingleFile => {
            // The first part of several looks like the only one. When a second one comes, what both hold is the snapshot:
            // whoever left on account of the first comes back.
            if delivery.parts.values().any(|part| is_first(feed, part)) {
                return Turn::Whole;
            }
            return Turn::Parts(Some(PART_OF_SEVERAL));
        }
        Completeness::Info | Completeness::Manifest => match &delivery.control {
            None => WAITS_FOR_CONTROL.plain(),
            Some(control) => match missing(control, delivery) {
                0 => return Turn::Whole,
                missing => WAITS_FOR_FILES.with([("count", missing.into())]),
            },
        },
        Completeness::QuietPeriod => {
            let quiet = delivery.latest_at.saturating_add(deps.settings.scaled(feed.quiet_minutes * 60_000));
            let gap = gap(feed, delivery);
            if gap > 0 {
                WAITS_FOR_PARTS.with([("count", gap.into())])
            } else if now >= quiet {
                return Turn::Whole;
            } else {
                return Turn::Waits(WAITS_FOR_MORE.plain(), quiet);
            }
        }
    };
    if now < patience {
        return Turn::Waits(what, patience);
    }
    Turn::Parts(Some(NEVER_WHOLE))
}

/// Whether a part can be the only one of its delivery.
fn is_first(feed: &Feed, part: &Part) -> bool {
    part.number.is_none() || (feed.kind == Kind::AepFiles && part.number == Some(1))
}

/// How many parts are missing before the last one. Experience Platform counts from 1. Audience Manager's first file has no
/// number, or 000; only where numbers are set off by a hyphen, as a sample of Adobe's has it, 1 is the first.
fn gap(feed: &Feed, delivery: &Delivery) -> u64 {
    let hyphens = delivery.parts.iter().all(|(name, part)| {
        let set_off = |number: u64| name.contains(&format!("-{number}.")) || name.contains(&format!("-{number:03}."));
        part.number.is_some_and(set_off)
    });
    let from_one = feed.kind == Kind::AepFiles || hyphens;
    let numbers: BTreeSet<u64> = delivery.parts.values().map(|part| part.number.unwrap_or(0)).collect();
    let last = numbers.last().copied().unwrap_or(0);
    (last + u64::from(!from_one || numbers.contains(&0))).saturating_sub(numbers.len() as u64)
}

/// How many files a control file names that have not come.
fn missing(control: &Control, delivery: &Delivery) -> u64 {
    if control.files.is_empty() && control.total_files.is_none() {
        return 1;
    }
    let come = |name: &String| delivery.parts.keys().any(|part| part.eq_ignore_ascii_case(name));
    let named = control.files.keys().filter(|name| !come(name)).count() as u64;
    let counted = control.total_files.unwrap_or(0).saturating_sub(delivery.parts.len() as u64);
    named.max(counted)
}

/// Takes in a delivery.
async fn take(deps: &Deps, feed: &Feed, delivery: &Delivery, turn: &Turn, deadline: u64) -> Step<Outcome> {
    let munchkin = &delivery.munchkin;
    let key = delivery_key(munchkin, &feed.id, &delivery.id);
    let begun_at = deps.now();
    let until = deadline.saturating_sub(deps.settings.scaled(RESERVE_MS));
    let library = Library::new(library(deps, feed, munchkin).await?);
    let mut files = Files::new(deps, feed, delivery, library, until);
    let mut counted = Counted::load(deps, delivery, files.digest()).await?;
    let before = counted.all.len();
    let mut lost = false;
    for (name, part) in &delivery.parts {
        if counted.holds(name) {
            continue;
        }
        let Some(record) = import(deps, munchkin, part).await? else {
            lost = true;
            continue;
        };
        if !is_named(feed, delivery, name) {
            let why = Some(FILE_NOT_NAMED.plain());
            finish(deps, munchkin, record, ImportStatus::Refused, why).await?;
            continue;
        }
        if record.is_over() && matches!(turn, Turn::Parts(_)) {
            continue;
        }
        let so_far = counted.counts.clone();
        match files.look(name, part, record, &mut counted.counts).await? {
            Some(looked) => counted.all.push(looked),
            None => {
                counted.counts = so_far;
                return counted.more(deps, delivery, before, delivery.progress.clone(), false).await;
            }
        }
    }
    let counts = counted.counts.by_audience();
    let why = match turn {
        Turn::Parts(why) => why.map(|why| why.plain()),
        _ if lost => Some(NOT_WHOLE_RECORD.plain()),
        _ => doubt(delivery, &counted.all),
    };
    let whole = matches!(turn, Turn::Whole) && why.is_none();

    let state = feed_state(deps, munchkin, &feed.id).await?;
    let mut met_at = None;
    let believed = is_believed(delivery);
    // Not in its midst: what was taken would stay.
    if !believed && !delivery.progress.is_begun() {
        let entries = counts.values().map(|count| count.all()).sum();
        match suspicion(deps, munchkin, feed.kind, &state, entries, counted.counts.sample()).await? {
            // The imports are marked once the delivery says so.
            Suspicion::Held(why) => return Ok(Outcome::Held(why)),
            Suspicion::Met => met_at = Some(deps.now()),
            Suspicion::Nothing => {}
        }
    }
    let when = When::of(feed, delivery.as_of());
    let named: Vec<AudienceId> = counts.keys().cloned().collect();
    let own = if whole && feed.snapshots { own(feed, delivery, &named) } else { BTreeSet::new() };
    let groups = plan(&counts, deps.settings.entries_at_once, |audience| own.contains(audience));
    let plan = digest(feed, when, &counts, &groups);
    let mut longest = deps.now().saturating_sub(begun_at);
    let mut taking = Taking { deps, feed, delivery, when, whole, met_at, believed, snapshot: None, is_noted: false };
    let mut progress = if delivery.progress.plan == plan {
        delivery.progress.clone()
    } else {
        Progress { plan, counted: delivery.progress.counted.clone(), ..Progress::default() }
    };
    let units: Vec<(Unit, u64)> = groups.iter().flatten().map(|unit| (unit.clone(), entries(unit, &counts))).collect();
    progress.entries = units.iter().map(|(_, entries)| entries).sum();
    let begun = progress.clone();
    if longest > deps.settings.scaled(SAY_MS) && begun != delivery.progress {
        change(deps, &key, delivery.version, |found| found.progress = begun.clone()).await?;
    }
    for group in groups {
        let is_left = |unit: &Unit| progress.unit.as_ref().is_none_or(|last| *last < unit.place());
        let group: Vec<Unit> = group.into_iter().filter(is_left).collect();
        if group.is_empty() {
            continue;
        }
        // A large audience is taken whole, since nobody could go on in its midst.
        let in_its_midst = group.iter().any(|unit| !unit.facts && unit.part > 0);
        let readings = group.iter().filter(|unit| !unit.facts).map(|unit| unit.parts).max().unwrap_or(1);
        let next_ends = deps.now() + longest * u64::from(readings) + deps.settings.scaled(RESERVE_MS);
        if !in_its_midst && progress != begun {
            if next_ends > deadline {
                return counted.more(deps, delivery, before, progress, true).await;
            }
            // Whoever is stopped in the next group need not do this one again.
            change(deps, &key, delivery.version, |found| found.came_further(&progress)).await?;
        }
        // The next invocation has all its time for it.
        if !in_its_midst && progress == begun && before < counted.all.len() && next_ends > deadline {
            return counted.more(deps, delivery, before, progress, false).await;
        }
        let group_at = deps.now();
        let is_late = match files.take(&group, &counted.all, &counts).await? {
            Some(taken) => taking.group(taken, &mut progress, deadline).await?,
            None => true,
        };
        let is_taken = |unit: &Unit| progress.unit.as_ref().is_some_and(|last| unit.place() <= *last);
        let taken: u64 = units.iter().filter(|(unit, _)| is_taken(unit)).map(|(_, entries)| entries).sum();
        progress.taken = taken + progress.facts;
        if is_late {
            let further = progress != begun;
            return counted.more(deps, delivery, before, progress, further).await;
        }
        longest = longest.max(deps.now().saturating_sub(group_at));
    }
    taking.note(BTreeMap::new()).await?;
    let mut not_named = Vec::new();
    if whole {
        not_named = unnamed(feed, delivery, &state.named, &named, when.time);
        for audience in &not_named {
            audience::miss(deps, munchkin, audience, &feed.id, when.time).await?;
        }
    }
    change_feed_state(deps, munchkin, &feed.id, |state| state.name(&named, when.time)).await?;
    let alone = counted.all.len() == 1;
    for mut looked in counted.all {
        looked.record.not_named.clone_from(&not_named);
        let empty = (alone && looked.record.rows == 0).then(|| looked.fault.map_or(FILE_EMPTY.plain(), Fault::empty));
        let (status, why) = match looked.refused.or(empty) {
            Some(why) => (ImportStatus::Refused, Some(why)),
            None => (ImportStatus::Done, why.clone().or_else(|| looked.fault.map(Fault::not_whole))),
        };
        finish(deps, munchkin, looked.record, status, why).await?;
    }
    Ok(Outcome::Taken)
}

/// Entries of a unit.
fn entries(unit: &Unit, counts: &BTreeMap<AudienceId, Count>) -> u64 {
    counts.get(&unit.audience).map_or(0, |count| unit.entries(*count))
}

/// Tells a plan from others: by what is taken, in which order, and how the feed is to be understood.
fn digest(feed: &Feed, when: When, counts: &BTreeMap<AudienceId, Count>, groups: &[Vec<Unit>]) -> u32 {
    let mut digest = crc32fast::Hasher::new();
    digest.update(format!("{feed:?}{when:?}").as_bytes());
    for unit in groups.iter().flatten() {
        digest.update(format!("{unit:?}{:?}", counts.get(&unit.audience)).as_bytes());
    }
    // 0 stands for no plan.
    digest.finalize().max(1)
}

/// What is made of a delivery whose files have been counted.
struct Taking<'a> {
    deps: &'a Deps,
    feed: &'a Feed,
    delivery: &'a Delivery,
    when: When,
    /// Whoever it does not hold is absent.
    whole: bool,
    met_at: Option<u64>,
    believed: bool,
    /// Of a large audience, the parts so far.
    snapshot: Option<Snapshot<'a>>,
    is_noted: bool,
}

/// Of a full delivery: how many ECIDs it holds of an audience, and how many members it does not hold.
type Full = BTreeMap<AudienceId, (u64, u64)>;

impl Taking<'_> {
    /// Takes a group, and notes how far it came. Returns whether the time was too short.
    async fn group(&mut self, group: Vec<Taken>, progress: &mut Progress, deadline: u64) -> Step<bool> {
        let Self { deps, feed, delivery, when, .. } = *self;
        let munchkin = &delivery.munchkin;
        let (mut full, mut written, mut of_facts) = (Full::new(), Vec::new(), Vec::new());
        for taken in group {
            if deps.now() > deadline {
                return Ok(true);
            }
            let audience = &taken.unit.audience;
            if !taken.unit.facts {
                let mut snapshot = match self.snapshot.take() {
                    Some(snapshot) => snapshot,
                    None => Snapshot::begin(deps, when, Before::open(deps, munchkin, audience).await?),
                };
                snapshot.part(&taken).await?;
                if taken.unit.is_last() {
                    let ended = snapshot.end(taken.unit).await?;
                    full.insert(ended.unit.audience.clone(), (ended.base.count, ended.absent));
                    written.push(ended);
                } else {
                    self.snapshot = Some(snapshot);
                }
                continue;
            }
            // Of an audience in several parts nobody asks who is absent: half of them may be facts already.
            if self.whole && taken.unit.parts == 1 {
                let absent = Before::open(deps, munchkin, audience).await?.absent(&taken.inside, None).await?;
                full.insert(audience.clone(), (taken.inside.len() as u64, absent));
            }
            of_facts.push(taken);
        }
        if self.snapshot.is_some() {
            return Ok(false);
        }
        // Whoever reads more of its parts may be done by now: what they took must not be replaced by less.
        let key = delivery_key(munchkin, &delivery.feed, &delivery.id);
        let now = load::<Delivery>(deps, Table::Syncs, &key).await?.map(|now| now.value.version);
        if now != Some(delivery.version) {
            return Err(Failure::retry("more of a delivery came while it was read"));
        }
        // Before anything is taken: after an attempt that dies half-way the next one would see nobody absent.
        self.note(full).await?;
        if let Some(last) = written.last() {
            progress.unit = Some(last.unit.place());
        }
        if !written.is_empty() {
            snapshots(deps, munchkin, &feed.id, when, written).await?;
        }
        // Of the same version and plan each unit holds the same.
        let of = format!("{}/{}/{}/{}", feed.id, delivery.id, delivery.version, progress.plan);
        let origin = Origin { feed: &feed.id, when, of: &of };
        for taken in of_facts {
            let place = taken.unit.place();
            let done = std::mem::take(&mut progress.facts);
            if let Some(more) = facts(deps, munchkin, origin, taken, done, deadline).await? {
                progress.facts = more;
                return Ok(true);
            }
            progress.unit = Some(place);
        }
        Ok(false)
    }

    /// Notes what the delivery shows of its feed; without more to note, once.
    async fn note(&mut self, full: Full) -> Step<()> {
        if std::mem::replace(&mut self.is_noted, true) && full.is_empty() {
            return Ok(());
        }
        let full = FullDelivery {
            delivery: self.delivery.id.clone(),
            version: self.delivery.version,
            time: self.when.time,
            held: full.iter().map(|(audience, (held, _))| (audience.clone(), *held)).collect(),
            absent: full.into_iter().map(|(audience, (_, absent))| (audience, absent)).collect(),
            snapshot: self.feed.snapshots,
        };
        change_feed_state(self.deps, &self.delivery.munchkin, &self.feed.id, |state| {
            if !full.held.is_empty() {
                state.remember(full.clone());
            }
            state.met_at = self.met_at.or(state.met_at);
            state.believed |= self.believed;
        })
        .await
    }
}

/// The audiences of which a whole delivery is a snapshot. An export of Experience Platform is of one audience; what its
/// profiles tell of others, they tell of themselves alone.
fn own(feed: &Feed, delivery: &Delivery, named: &[AudienceId]) -> BTreeSet<AudienceId> {
    let told: BTreeSet<AudienceId> = delivery.parts.values().filter_map(|part| audience_of(feed, &part.key)).collect();
    // Only its header tells the audience.
    let by_header = told.is_empty() && named.len() == 1;
    let is_own = |audience: &&AudienceId| feed.kind != Kind::AepFiles || by_header || told.contains(*audience);
    named.iter().filter(is_own).cloned().collect()
}

/// Why a delivery of which every part has come is not whole all the same.
fn doubt(delivery: &Delivery, all: &[Looked]) -> Option<Said> {
    if let Some(fault) = all.iter().find_map(|looked| looked.fault) {
        return Some(fault.not_whole());
    }
    if all.iter().any(|looked| looked.refused.is_some()) {
        return Some(NOT_WHOLE_PART.plain());
    }
    let rows: u64 = all.iter().map(|looked| looked.record.rows).sum();
    let unreadable: u64 = all.iter().map(|looked| looked.unreadable).sum();
    if unreadable * READABLE > rows {
        return Some(NOT_WHOLE_ROWS.with([("unreadable", unreadable.into()), ("rows", rows.into())]));
    }
    let lines: u64 = all.iter().map(|looked| looked.lines).sum();
    let told = delivery.control.as_ref().and_then(|control| control.total_lines).filter(|told| *told != lines)?;
    Some(NOT_WHOLE_LINES.with([("told", told.into()), ("lines", lines.into())]))
}

/// The audiences that the feed named before and that a full delivery does not name. An export of Experience Platform is of
/// one audience; one without rows does not name it.
fn unnamed(
    feed: &Feed,
    delivery: &Delivery,
    before: &BTreeMap<AudienceId, u64>,
    named: &[AudienceId],
    time: u64,
) -> Vec<AudienceId> {
    let own: BTreeSet<AudienceId> = match feed.kind {
        Kind::AepFiles => delivery.parts.values().filter_map(|part| audience_of(feed, &part.key)).collect(),
        _ => before.keys().cloned().collect(),
    };
    let earlier = |audience: &AudienceId| before.get(audience).is_some_and(|last| *last < time);
    own.into_iter().filter(|audience| earlier(audience) && !named.contains(audience)).collect()
}

/// The audiences that there are; `None`: nobody can say.
async fn library(deps: &Deps, feed: &Feed, munchkin: &MunchkinId) -> Step<Option<BTreeSet<AudienceId>>> {
    if feed.kind == Kind::AepFiles {
        let org = syncs::subscription(deps, munchkin).await?.and_then(|subscription| subscription.org_id);
        let (Some(org), false) = (org, deps.settings.aep_sandbox.is_empty()) else { return Ok(None) };
        return Ok(Some(adobe::audiences(deps, &org).await?.into_iter().map(|audience| audience.id).collect()));
    }
    Ok(Some(adobe::segments(deps).await?.into_iter().map(|segment| AudienceId::aam(segment.sid)).collect()))
}

/// Whether a part belongs to its delivery: one that a control file does not name may be left from an earlier one of the same
/// name.
fn is_named(feed: &Feed, delivery: &Delivery, name: &str) -> bool {
    let by_control = matches!(feed.completeness, Completeness::Info | Completeness::Manifest);
    let control = delivery.control.as_ref().filter(|control| by_control && !control.files.is_empty());
    control.is_none_or(|control| control.files.keys().any(|file| file.eq_ignore_ascii_case(name)))
}

async fn import(deps: &Deps, munchkin: &MunchkinId, part: &Part) -> Step<Option<Import>> {
    Ok(load(deps, Table::Syncs, &import_key(munchkin, &part.import)).await?.map(|doc| doc.value))
}

/// Another content has taken the place of a part: nothing more becomes of what stood there before.
pub(super) async fn replaced(deps: &Deps, munchkin: &MunchkinId, part: &Part) -> Step<()> {
    match import(deps, munchkin, part).await? {
        Some(record) if !record.is_over() => {
            finish(deps, munchkin, record, ImportStatus::Refused, Some(FILE_GONE.plain())).await
        }
        _ => Ok(()),
    }
}

/// Writes down what became of a file.
pub(super) async fn finish(
    deps: &Deps,
    munchkin: &MunchkinId,
    mut record: Import,
    status: ImportStatus,
    why: Option<Said>,
) -> Step<()> {
    record.ended_at = matches!(status, ImportStatus::Done | ImportStatus::Refused).then(|| deps.now());
    record.status = status;
    record.why = why;
    save_import(deps, munchkin, &record).await
}

/// Writes down how the parts of a delivery stand that are not over.
async fn mark(deps: &Deps, delivery: &Delivery, status: ImportStatus, why: &Said) -> Step<()> {
    for part in delivery.parts.values() {
        let Some(record) = import(deps, &delivery.munchkin, part).await? else { continue };
        if !record.is_over() && (record.status != status || record.why.as_ref() != Some(why)) {
            finish(deps, &delivery.munchkin, record, status, Some(why.clone())).await?;
        }
    }
    Ok(())
}
