//! Facts of large deliveries: all that one delivery says of an audience has one time, so it is two sets, those who are in and
//! those who are out, and not a row each. Such a run is immutable and named by the audience's head. What is old is folded into
//! the base.
//!
//! The word about an ECID is the latest of what its row says and of all runs that hold it, in whatever order they came.

use domain::base::mix;
use domain::fact::Fact;
use domain::{AudienceId, MunchkinId};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ports::{Expect, Failure, Key, PortResult, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::audience::{BaseRef, Head, Members, SETS, head_key, overlay_row};
use crate::bases::Writer;
use crate::feeds::feeds;
use crate::{Deps, Step, load, update};

/// Runs of an audience, at most; what comes beyond is written as rows. Ours: whoever asks for anybody opens the two sets of
/// each.
pub const RUNS_KEPT: usize = 16;
/// Where their sets stand.
const SETS_OF_FACTS: &str = "sets/facts";
/// Rows that are deleted at a time. Ours: one after the other they are bound by the network's latency alone.
const AT_ONCE: usize = 16;
/// Time that is kept to write a base once the rows are read, in ms.
const RESERVE_MS: u64 = 40_000;

/// What one delivery said of an audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactRun {
    /// Tells it from others: whoever takes the same delivery again finds it named.
    pub id: String,
    /// The time of all its facts, in ms. All of them are of files.
    pub time: u64,
    /// Those who are in; `None`: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<BaseRef>,
    /// Those who are out. Who is among both is out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<BaseRef>,
}

impl FactRun {
    /// Its sets.
    pub fn into_sets(self) -> impl Iterator<Item = BaseRef> {
        self.inside.into_iter().chain(self.outside)
    }
}

/// When facts of an audience were last folded into its base.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// When that was, in ms; before the first time, when the audience was first delivered.
    pub at: u64,
    /// The time of the base that stood there then, in ms: whoever has opened the audience since has no older one, and what
    /// a row says of before counts for nobody.
    pub to: u64,
}

/// Facts of a delivery about one audience, as rows of a set ([`mix`]): ascending, none twice.
#[derive(Debug, Clone, Copy)]
pub struct NewRun<'a> {
    /// Of what it is made; the same once more is the same run.
    pub of: &'a str,
    /// The feed.
    pub feed: &'a str,
    /// The time that the delivery bears, in ms.
    pub named_at: u64,
    /// The time of the facts, in ms.
    pub time: u64,
    /// Those who are in.
    pub inside: &'a [u128],
    /// Those who are out.
    pub outside: &'a [u128],
}

/// What becomes of a run.
enum Naming {
    /// It is to be named.
    New,
    /// It is named, or older than the snapshot and says nothing.
    Known,
    /// There is no room for it.
    Full,
}

fn naming(head: Option<&Head>, id: &str, time: u64) -> Naming {
    let Some(head) = head else { return Naming::New };
    if head.runs.iter().any(|run| run.id == id) || head.base.as_ref().is_some_and(|base| base.as_of > time) {
        return Naming::Known;
    }
    if head.runs.len() < RUNS_KEPT { Naming::New } else { Naming::Full }
}

/// Takes in a run of facts, and asks for a pass. A second time it changes nothing. Returns the head as it then is; `None`:
/// there is no room, and the facts are to be written as rows.
pub async fn take_run(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    new: NewRun<'_>,
) -> Step<Option<Head>> {
    let key = head_key(munchkin, audience);
    let id: String = Sha256::digest(new.of).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let head = load::<Head>(deps, Table::Audiences, &key).await?.map(|head| head.value);
    let mut run = FactRun { id, time: new.time, inside: None, outside: None };
    match naming(head.as_ref(), &run.id, run.time) {
        Naming::Full => return Ok(None),
        Naming::Known => {}
        Naming::New => {
            run.inside = write(deps, new.time, new.inside).await?;
            run.outside = write(deps, new.time, new.outside).await?;
        }
    }
    let now = deps.now();
    let (taken, head) = update(
        deps,
        Table::Audiences,
        &key,
        |head: Option<Head>| {
            let naming = naming(head.as_ref(), &run.id, run.time);
            let mut head = head.unwrap_or_else(|| Head::new(audience.clone(), now));
            let is_new = match naming {
                Naming::Full => return Ok((None, (false, None))),
                Naming::Known => false,
                Naming::New => {
                    // Without its sets: it was named when they would have been written, and is not any more.
                    let is_written = run.inside.is_some() || run.outside.is_some();
                    if !is_written {
                        return Err(Failure::retry("a run of facts was forgotten meanwhile"));
                    }
                    head.runs.push(run.clone());
                    // Of facts that are newer than the snapshot a pass is asked for by the same write.
                    head.want_pass();
                    true
                }
            };
            head.named(now, new.feed, new.named_at);
            Ok((Some(head.clone()), (is_new, Some(head))))
        },
        |_| None,
    )
    .await?;
    if !taken {
        delete(deps, run.into_sets()).await?;
    }
    Ok(head)
}

async fn write(deps: &Deps, time: u64, rows: &[u128]) -> Step<Option<BaseRef>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let mut writer = Writer::begin(deps, SETS_OF_FACTS, time);
    writer.rows(rows).await?;
    Ok(Some(writer.end().await?))
}

async fn delete(deps: &Deps, sets: impl Iterator<Item = BaseRef>) -> Step<()> {
    for set in sets {
        deps.ports.objects.delete(&set.key).await?;
    }
    Ok(())
}

impl Head {
    /// Up to which time facts are old enough to be folded, in ms. Not beyond the time of which an operator may yet say that the
    /// audience is empty: such a word must not be older than the base.
    fn foldable(&self, deps: &Deps) -> u64 {
        let old = deps.now().saturating_sub(deps.settings.scaled(deps.settings.fold_after_ms));
        self.missing.as_ref().map_or(old, |missing| missing.since.min(old))
    }

    /// Whether there may be facts that are old enough to be folded. Looked at so seldom that a base is not written anew for each
    /// delivery, and that nobody has the audience still open as it was the last time.
    #[must_use]
    pub fn is_to_fold(&self, deps: &Deps) -> bool {
        self.is_due(deps, self.foldable(deps))
    }

    fn is_due(&self, deps: &Deps, old: u64) -> bool {
        let after = deps.settings.scaled(deps.settings.fold_after_ms);
        let since = deps.now().saturating_sub(self.folded.at);
        since >= after / 8 && (self.runs.iter().any(|run| run.time <= old) || (self.has_overlay && since >= after))
    }
}

/// What was found in rows.
struct Scanned {
    /// Old facts, but for those that the base is newer than.
    said: Vec<(u128, Fact)>,
    /// All rows were read.
    whole: bool,
    /// Rows were deleted.
    deleted: bool,
}

impl Members<'_> {
    /// Folds what is old into a new base, and forgets rows that were folded before. Nobody enters or leaves by it. From then
    /// on facts that are as old and come later say nothing. What the time is too short for is left for the next call.
    pub async fn fold(&self, deadline: u64) -> Step<()> {
        let Self { deps, munchkin, head, .. } = self;
        if !head.is_to_fold(deps) {
            return Ok(());
        }
        // What a feed says of may be as old as its files' lag when it comes in time.
        let lag = feeds(deps, munchkin).await?.iter().map(|feed| feed.lag_minutes).max();
        let old = head.foldable(deps).saturating_sub(lag.unwrap_or_default().saturating_mul(60_000));
        let scanned = if head.is_due(deps, old) {
            self.scan(old, deadline.saturating_sub(deps.settings.scaled(RESERVE_MS))).await?
        } else {
            Scanned { said: Vec::new(), whole: true, deleted: false }
        };
        if !scanned.whole && scanned.deleted {
            return Ok(());
        }
        let as_of = head.base.as_ref().map_or(0, |base| base.as_of);
        let runs = head.runs.iter().map(|run| run.time).filter(|time| *time <= old);
        let times = runs.chain(scanned.said.iter().map(|(_, fact)| fact.time).filter(|time| *time > as_of));
        // No further than to the latest fact: one that is later, and later than it should be, still counts.
        let latest = times.max().map(|time| time.max(as_of)).filter(|_| scanned.whole);
        if !scanned.whole {
            tracing::warn!("an audience has more rows than can be read at once: nothing is folded");
        }
        let base = match latest {
            None => head.base.clone(),
            Some(latest) => {
                let mut writer = Writer::begin(deps, SETS, latest);
                let mut rows = self.rows_of(old, scanned.said);
                while let Some(piece) = rows.next().await? {
                    writer.rows(&piece).await?;
                }
                Some(writer.end().await?)
            }
        };
        let folded = Folded { at: deps.now(), to: base.as_ref().map_or(0, |base| base.as_of) };
        let garbage = update(
            deps,
            Table::Audiences,
            &head_key(munchkin, &head.audience),
            |found: Option<Head>| {
                let Some(mut found) = found.filter(|found| found.base == head.base) else {
                    return Ok((None, None));
                };
                found.folded = folded;
                let mut garbage = Vec::new();
                if latest.is_some() {
                    garbage.extend(std::mem::replace(&mut found.base, base.clone()));
                    // Of those that came meanwhile, what is older than the base says nothing.
                    let is_over =
                        |run: &mut FactRun| run.time < folded.to || head.runs.contains(run) && run.time <= old;
                    garbage.extend(found.runs.extract_if(.., is_over).flat_map(FactRun::into_sets));
                }
                Ok((Some(found), Some(garbage)))
            },
            |_| None,
        )
        .await?;
        match garbage {
            Some(garbage) => delete(deps, garbage.into_iter()).await,
            // A snapshot came meanwhile.
            None => delete(deps, base.into_iter().filter(|_| latest.is_some())).await,
        }
    }

    /// Reads all rows, and deletes those that count for nobody.
    async fn scan(&self, old: u64, deadline: u64) -> Step<Scanned> {
        let as_of = self.head.base.as_ref().map_or(0, |base| base.as_of);
        let over = self.head.folded.to;
        let mut scanned = Scanned { said: Vec::new(), whole: true, deleted: false };
        if !self.head.has_overlay {
            return Ok(scanned);
        }
        let mut after: Option<String> = None;
        loop {
            let page = self.overlay_page(after.as_deref()).await?;
            let mut forgotten: Vec<(Key, u64)> = Vec::new();
            for item in page.items {
                let (key, rev) = (item.key.clone(), item.rev);
                let (ecid, fact) = overlay_row(item)?;
                if fact.time < over && fact.time <= old {
                    forgotten.push((key, rev));
                } else if fact.time <= old && fact.time >= as_of {
                    scanned.said.push((mix(ecid), fact));
                }
            }
            scanned.deleted |= !forgotten.is_empty();
            // Unless something newer was said meanwhile.
            let forgotten: Vec<BoxFuture<'_, PortResult<bool>>> = forgotten
                .iter()
                .map(|(key, rev)| self.deps.ports.tables.delete(Table::Audiences, key, Expect::Rev(*rev)))
                .collect();
            stream::iter(forgotten).buffer_unordered(AT_ONCE).try_collect::<Vec<bool>>().await?;
            after = page.next;
            if after.is_none() {
                return Ok(scanned);
            }
            if self.deps.now() > deadline {
                scanned.whole = false;
                return Ok(scanned);
            }
        }
    }
}
