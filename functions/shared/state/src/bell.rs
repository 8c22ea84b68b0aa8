//! Doorbells. Messages only ring; tables hold the work.
//!
//! A key (a subscription's identity work, an audience, a list) has one small row. Whoever changes a fact writes the
//! fact first, then [`mark`]s the key dirty and rings. The consumer clears the mark *before* it reads, recomputes
//! from state, and acknowledges last. A message may come twice, late, out of order, or never: the [`sweep`] rings
//! keys that have been dirty for a minute or whose time has come, and looks at nothing else.

use std::collections::BTreeMap;
use std::fmt;

use domain::MunchkinId;
use domain::planted::{Guard, holds};
use ports::{Due, Failure, Key, Outgoing, Queue, Table};
use serde::{Deserialize, Serialize};

use crate::{Cause, Causes, Deps, Step, V1, doc, update};

/// What kind of work a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Look-ups, activities and extracts of one subscription.
    Identity,
    /// The edges of one subscription ([`crate::edges`]).
    Edges,
    /// One audience of one subscription.
    Audience,
    /// One static list of one subscription.
    List,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Identity, Kind::Edges, Kind::Audience, Kind::List];

    /// Its name, and that of the partition of its rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Identity => "identity",
            Kind::Edges => "edges",
            Kind::Audience => "audience",
            Kind::List => "list",
        }
    }

    const fn queue(self) -> Queue {
        match self {
            Kind::Identity => Queue::IdentityWork,
            // An id that no audience has makes a group of its own.
            Kind::Edges | Kind::Audience => Queue::AudienceWork,
            Kind::List => Queue::ListWrites,
        }
    }
}

/// A key that can be rung.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BellKey {
    /// Kind of work.
    pub kind: Kind,
    /// The subscription.
    pub munchkin: MunchkinId,
    /// The audience's or the list's id; empty for what there is once a subscription.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
}

impl BellKey {
    /// Identity work of a subscription.
    #[must_use]
    pub fn identity(munchkin: &MunchkinId) -> Self {
        Self { kind: Kind::Identity, munchkin: munchkin.clone(), id: String::new() }
    }

    /// The edges of a subscription.
    #[must_use]
    pub fn edges(munchkin: &MunchkinId) -> Self {
        Self { kind: Kind::Edges, munchkin: munchkin.clone(), id: String::new() }
    }

    /// An audience.
    #[must_use]
    pub fn audience(munchkin: &MunchkinId, audience: &domain::AudienceId) -> Self {
        Self { kind: Kind::Audience, munchkin: munchkin.clone(), id: audience.to_string() }
    }

    /// A static list.
    #[must_use]
    pub fn list(munchkin: &MunchkinId, list: domain::ListId) -> Self {
        Self { kind: Kind::List, munchkin: munchkin.clone(), id: list.to_string() }
    }

    fn row(&self) -> Key {
        Key::new(self.kind.name(), format!("{}/{}", self.munchkin, self.id))
    }

    fn group(&self) -> String {
        match self.kind {
            Kind::Audience => format!("{}/{}", self.munchkin, self.id),
            Kind::Edges => format!("{}/edges", self.munchkin),
            Kind::Identity | Kind::List => self.munchkin.to_string(),
        }
    }
}

impl fmt::Display for BellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.name(), self.munchkin, self.id)
    }
}

/// The message: key `<kind>/<munchkin>/<id>`; its replay is harmless because it carries no fact and the consumer
/// skips a version that it has finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Version of this shape.
    pub v: V1,
    /// What is rung.
    #[serde(flatten)]
    pub key: BellKey,
    /// The key's version when it was rung.
    pub version: u64,
}

/// The row of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bell {
    /// Version of this shape.
    pub v: u8,
    /// Raised each time the key becomes dirty.
    pub version: u64,
    /// Everything up to this version has been handled.
    pub done: u64,
    /// Since when it is dirty, in ms.
    pub dirty_since: Option<u64>,
    /// When somebody began to handle it, in ms; absent once that was finished.
    #[serde(default)]
    pub taken_at: Option<u64>,
    /// Until when nobody handles it, in ms.
    pub not_before: Option<u64>,
    /// When it becomes dirty by itself, in ms.
    pub wake_at: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// Failed too often: alarmed, and tried again after a rest.
    pub stuck: bool,
    /// Rings of its own in a row: our bound beside Lambda's recursion detection.
    pub laps: u32,
    /// Why it is dirty, as far as somebody said.
    #[serde(default, skip_serializing_if = "Causes::is_empty")]
    pub causes: Causes,
    /// Why it is handled: kept until all is done, so that whoever comes after a death, or goes on, still knows.
    #[serde(default, skip_serializing_if = "Causes::is_empty")]
    pub taken: Causes,
}

/// What is left after a key was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing; look again by yourself at this time (ms), if any.
    Done(Option<u64>),
    /// More work, at once.
    Again,
    /// More work, not before this time (ms).
    Rest(u64),
}

/// Failures in a row after which a key is stuck.
pub const STUCK_AFTER: u32 = 3;
/// How long a stuck key rests, in ms.
pub const STUCK_REST_MS: u64 = 15 * 60_000;
/// The sweep rings keys that have been dirty for longer than this, in ms.
pub const SWEEP_AFTER_MS: u64 = 60_000;
/// Who took a key and finished nothing for this long, in ms, is dead, and its message with it: twice the visibility
/// time-out of six times the longest function.
pub const TAKEN_FOR_MS: u64 = 12 * domain::limits::FUNCTION_MS;
/// Rings of its own after which a key is stuck. The largest known work, 5 million tokens at 300 a call, is 17,000
/// calls in slices of some hundred calls.
pub const MAX_LAPS: u32 = 1_000;

const DUE: &str = "bells";

impl Bell {
    fn due(&self, deps: &Deps) -> Option<Due> {
        let dirty = self.dirty_since.map(|since| match self.not_before {
            Some(rest) => rest,
            None => since + deps.settings.scaled(SWEEP_AFTER_MS),
        });
        let forgotten = self.taken_at.map(|at| at + deps.settings.scaled(TAKEN_FOR_MS));
        let at = [dirty, self.wake_at, forgotten].into_iter().flatten().min()?;
        Some(Due { pk: DUE.into(), at })
    }

    /// Notes reasons. Returns whether there was a new one.
    fn add(&mut self, why: &Causes) -> bool {
        let before = self.causes.len();
        self.causes.extend(why);
        self.causes.len() > before
    }

    /// Whether it is rung, or at work.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.dirty_since.is_some() || self.done < self.version || self.taken_at.is_some()
    }

    fn soil(&mut self, now: u64) {
        self.v = 1;
        if self.dirty_since.is_none() {
            self.version += 1;
            self.dirty_since = Some(now);
        }
    }
}

async fn change<R>(deps: &Deps, key: &BellKey, mut f: impl FnMut(&mut Bell) -> (bool, R)) -> Step<R> {
    update(
        deps,
        Table::Doorbells,
        &key.row(),
        |found: Option<Bell>| {
            let mut bell = found.unwrap_or_default();
            let (changed, answer) = f(&mut bell);
            Ok((changed.then_some(bell), answer))
        },
        |bell| bell.due(deps),
    )
    .await
}

/// Marks a key dirty, after its facts were written, and rings; [`Deps::because`] says why. A key that is dirty already is
/// left alone, save where that is a new reason: its consumer has not begun to read.
pub async fn mark(deps: &Deps, key: &BellKey) -> Step<()> {
    let now = deps.now();
    let version = change(deps, key, |bell| {
        let new = bell.add(deps.why());
        if bell.dirty_since.is_some() || (bell.taken_at.is_some() && !holds(Guard::MarkedWhileAtWork)) {
            return (new, None);
        }
        bell.soil(now);
        (true, Some(bell.version).filter(|_| holds(Guard::MarksAreRung)))
    })
    .await?;
    match version {
        Some(version) => ring(deps, key, version, None).await,
        None => Ok(()),
    }
}

/// Marks a key dirty and lets it be handled at once although it rests.
pub async fn rouse(deps: &Deps, key: &BellKey) -> Step<()> {
    change(deps, key, |bell| (bell.not_before.take().is_some(), ())).await?;
    let now = deps.now();
    let version = change(deps, key, |bell| {
        let new = bell.add(deps.why());
        let clean = bell.dirty_since.is_none();
        bell.soil(now);
        (clean || new, bell.version)
    })
    .await?;
    ring(deps, key, version, Some(now)).await
}

async fn ring(deps: &Deps, key: &BellKey, version: u64, again: Option<u64>) -> Step<()> {
    let body = serde_json::to_string(&Ring { v: V1, key: key.clone(), version })
        .map_err(|_| Failure::fail("a ring cannot be written as JSON"))?;
    let dedup = match again {
        _ if !holds(Guard::VersionInDedup) => key.to_string(),
        None => format!("{key}/{version}"),
        Some(time) => format!("{key}/{version}/{time}"),
    };
    let message = Outgoing { body, group: Some(key.group()), dedup: Some(dedup) };
    Ok(deps.ports.queues.send(key.kind.queue(), vec![message]).await?)
}

/// Handles one ring: clears the mark, does the work, records what is left, and rings again where there is more.
/// A failure is counted; the third in a row sets the key aside for a while instead of blocking its group.
pub async fn handle<F, W>(deps: &Deps, message: &Ring, work: W) -> Step<()>
where
    W: FnOnce() -> F,
    F: Future<Output = Step<Next>>,
{
    handle_knowing(deps, message, |_| work()).await
}

/// The same for work that passes on why it is done: it is given dependencies that say so.
pub async fn handle_knowing<F, W>(deps: &Deps, message: &Ring, work: W) -> Step<()>
where
    W: FnOnce(Deps) -> F,
    F: Future<Output = Step<Next>>,
{
    let Some((version, why)) = take(deps, message).await? else { return Ok(()) };
    // Boxed: the futures of the handlers are deep.
    match Box::pin(work(deps.because(why))).await {
        Ok(next) => finish(deps, &message.key, version, next).await,
        Err(_) if !holds(Guard::FailedWorkComesAgain) => finish(deps, &message.key, version, Next::Done(None)).await,
        Err(Failure::Outage { reason }) => Err(Failure::Outage { reason }),
        Err(failure) => give_up(deps, &message.key, failure).await,
    }
}

async fn take(deps: &Deps, message: &Ring) -> Step<Option<(u64, Causes)>> {
    let now = deps.now();
    change(deps, &message.key, |bell| {
        if bell.not_before.is_some_and(|until| until > now) {
            return (false, None);
        }
        // Finished, this version and whatever else was taken: a ring may take more than it was rung for, and die.
        if bell.dirty_since.is_none() && bell.version.max(message.version) <= bell.done {
            return (false, None);
        }
        if holds(Guard::ClearBeforeRead) {
            bell.dirty_since = None;
        }
        bell.not_before = None;
        bell.taken_at = Some(now);
        bell.version = bell.version.max(message.version);
        let why = std::mem::take(&mut bell.causes);
        bell.taken.extend(why);
        (true, Some((bell.version, bell.taken.clone())))
    })
    .await
}

async fn finish(deps: &Deps, key: &BellKey, version: u64, next: Next) -> Step<()> {
    let now = deps.now();
    let ringing = change(deps, key, |bell| {
        bell.done = bell.done.max(version);
        bell.taken_at = None;
        bell.failures = 0;
        bell.stuck = false;
        if !holds(Guard::ClearBeforeRead) {
            bell.dirty_since = None;
        }
        match next {
            Next::Done(wake_at) => {
                bell.laps = 0;
                bell.wake_at = wake_at.filter(|_| holds(Guard::TimersAreKept));
                bell.taken.clear();
            }
            Next::Rest(until) => {
                bell.laps = 0;
                bell.soil(now);
                bell.not_before = Some(until);
            }
            Next::Again => {
                bell.laps += 1;
                bell.soil(now);
                if bell.laps > MAX_LAPS {
                    bell.laps = 0;
                    bell.stuck = true;
                    bell.not_before = Some(now + deps.settings.scaled(STUCK_REST_MS));
                }
            }
        }
        let ringing = (bell.dirty_since.is_some() && bell.not_before.is_none()).then_some(bell.version);
        (true, (ringing, bell.stuck))
    })
    .await?;
    if ringing.1 {
        tracing::error!(key = %key, "a key rings itself without end and is set aside");
    }
    match ringing.0 {
        Some(version) => ring(deps, key, version, None).await,
        None => Ok(()),
    }
}

async fn give_up(deps: &Deps, key: &BellKey, failure: Failure) -> Step<()> {
    let now = deps.now();
    let stuck = change(deps, key, |bell| {
        bell.failures += 1;
        bell.taken_at = None;
        bell.soil(now);
        if bell.failures >= STUCK_AFTER {
            bell.stuck = true;
            bell.not_before = Some(now + deps.settings.scaled(STUCK_REST_MS));
        }
        (true, bell.stuck)
    })
    .await?;
    if stuck {
        tracing::error!(key = %key, reason = %failure, "a key is stuck and is set aside for a while");
        return Ok(());
    }
    Err(match failure {
        // The key's row counts the failures; the message must come again.
        Failure::Fail { reason } => Failure::retry(reason),
        other => other,
    })
}

/// Rings every key that has been dirty for over a minute, and every key whose time has come. Returns how many.
pub async fn sweep(deps: &Deps) -> Step<usize> {
    let now = deps.now();
    let items = deps.ports.tables.due(Table::Doorbells, DUE, now, 100).await?;
    let mut rung = 0;
    for item in items {
        let Some(key) = parse_row(&item.key) else { continue };
        let found: Bell = doc::read(item)?.value;
        let version = if found.dirty_since.is_none() {
            change(deps, &key, |bell| {
                let due = bell.wake_at.is_some_and(|at| at <= now) && bell.dirty_since.is_none();
                if due {
                    bell.wake_at = None;
                    bell.causes.insert(Cause::Schedule);
                    bell.soil(now);
                }
                (due, bell.version)
            })
            .await?
        } else {
            found.version
        };
        ring(deps, &key, version, Some(now)).await?;
        rung += 1;
    }
    Ok(rung)
}

fn parse_row(key: &Key) -> Option<BellKey> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == key.pk)?;
    let (munchkin, id) = key.sk.split_once('/')?;
    Some(BellKey { kind, munchkin: MunchkinId::parse(munchkin)?, id: id.to_owned() })
}

/// All keys of a subscription that were ever rung, by kind.
pub async fn all(deps: &Deps, munchkin: &MunchkinId) -> Step<BTreeMap<BellKey, Bell>> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        let prefix = format!("{munchkin}/");
        for (key, bell) in doc::all_by_key::<Bell>(deps, Table::Doorbells, kind.name(), &prefix).await? {
            found.extend(parse_row(&key).map(|key| (key, bell.value)));
        }
    }
    Ok(found)
}

/// A key's row as it stands; the default if it was never rung.
pub async fn look(deps: &Deps, key: &BellKey) -> Step<Bell> {
    Ok(crate::load(deps, Table::Doorbells, &key.row()).await?.map(|doc| doc.value).unwrap_or_default())
}
