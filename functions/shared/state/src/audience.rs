//! Where audiences stand: a pointer to an immutable base, runs of facts ([`crate::facts`]) and overlay rows for what changed
//! since, and rows of work.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use domain::base::{Base, Fences, block_holds, fences_at, mix};
use domain::fact::{Fact, RANK_FILE, Streamed, Told, inside, latest};
use domain::planted::{Guard, holds};
use domain::{AudienceId, Ecid, LeadId, MunchkinId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ports::{Failure, Key, Page, Read, Table};
use serde::{Deserialize, Serialize};

use crate::bases::{Reader, Writer};
use crate::doc::insert_or_update;
use crate::facts::{FactRun, Folded};
use crate::merge::Ascending;
pub use crate::merge::Rows;
use crate::{Deps, Step, doc, load, update};

/// The head of an audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of this shape.
    pub v: u8,
    /// The audience.
    pub audience: AudienceId,
    /// The last snapshot, if there was one.
    pub base: Option<BaseRef>,
    /// Whether overlay rows may exist.
    pub has_overlay: bool,
    /// Facts of large deliveries, each as a set of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<FactRun>,
    /// When facts were last folded into the base.
    #[serde(default)]
    pub folded: Folded,
    /// When a delivery last named it, in ms. A head exists only for audiences that were delivered.
    pub delivered_at: u64,
    /// The feeds that name it, each with the time (ms) of its latest word; of streams to the hour.
    #[serde(default)]
    pub feeds: BTreeMap<String, u64>,
    /// A full delivery of a feed that used to name it did not.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// The pass that is asked for; passes are numbered.
    pub pass_wanted: u64,
    /// The last pass that was published.
    pub pass_done: u64,
    /// A pass under way.
    pub pass: Option<Pass>,
    /// What the last pass saw of the look-ups that are still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Previews that want the audience counted ([`crate::previews`]), by their ids.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub previews: BTreeSet<String>,
}

/// Tokens of an audience about which Marketo was still to be asked when a pass read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// When the pass began, in ms, as if it had found every token awake.
    pub as_of: u64,
    /// Tokens.
    pub tokens: u64,
    /// All tokens of the audience.
    pub of: u64,
    /// How long the pass took from then on, in ms.
    pub took_ms: u64,
    /// Look-ups of the day when it ended.
    pub look_ups: u64,
    /// Look-ups and calls that change lists, of the day when it ended.
    pub calls: u64,
}

/// A full delivery that does not name an audience which its feed named before. It says nothing about the members: the
/// segment may not be mapped to the destination any more. They stay until an operator says that the audience is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The feed.
    pub feed: String,
    /// Time of the first full delivery without it, in ms.
    pub since: u64,
}

/// Pointer to a base object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRef {
    /// Object key.
    pub key: String,
    /// Members.
    pub count: u64,
    /// When it was so, in ms.
    pub as_of: u64,
}

/// A pass under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Its number.
    pub number: u64,
    /// When it began, in ms.
    pub began: u64,
    /// The edges that it waits for ([`crate::edges`]); absent: it has not asked for them.
    pub edges: Option<u64>,
    /// Tokens that rest are woken up to this ECID, in the order of rows.
    pub woken: Option<Ecid>,
    /// How long that has taken so far, in ms.
    pub waking_ms: u64,
}

impl Head {
    /// The head of an audience that is delivered for the first time.
    #[must_use]
    pub const fn new(audience: AudienceId, delivered_at: u64) -> Self {
        Self {
            v: 1,
            audience,
            base: None,
            has_overlay: false,
            runs: Vec::new(),
            folded: Folded { at: delivered_at, to: 0 },
            delivered_at,
            feeds: BTreeMap::new(),
            missing: None,
            pass_wanted: 0,
            pass_done: 0,
            pass: None,
            waiting: None,
            previews: BTreeSet::new(),
        }
    }
}

impl Head {
    /// Notes that a feed's word of a time (ms) names it, taken in now.
    pub fn named(&mut self, now: u64, feed: &str, at: u64) {
        self.delivered_at = now;
        let last = self.feeds.entry(feed.to_owned()).or_default();
        *last = at.max(*last);
        if self.missing.as_ref().is_some_and(|missing| missing.since < at) {
            self.missing = None;
        }
    }

    /// Asks for a pass. Returns its number: a pass under way may have read before the fact that asks for it.
    pub fn want_pass(&mut self) -> u64 {
        let under_way = self.pass.as_ref().filter(|_| holds(Guard::FactsAskForAnotherPass));
        let busy = under_way.map_or(self.pass_done, |pass| pass.number);
        self.pass_wanted = self.pass_wanted.max(busy + 1);
        self.pass_wanted
    }
}

/// Work that waits: an ECID of the audience about which something changed, with the leads that it had before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// Version of this shape.
    pub v: u8,
    /// Leads to recompute beside those the ECID has now.
    pub leads: BTreeSet<LeadId>,
}

/// The partition of an audience.
#[must_use]
pub fn pk(munchkin: &MunchkinId, audience: &AudienceId) -> String {
    format!("{munchkin}/{audience}")
}

/// The key of an audience's head.
#[must_use]
pub fn head_key(munchkin: &MunchkinId, audience: &AudienceId) -> Key {
    Key::new(pk(munchkin, audience), "head")
}

/// The key of an overlay row.
#[must_use]
pub fn overlay_key(munchkin: &MunchkinId, audience: &AudienceId, ecid: Ecid) -> Key {
    Key::new(pk(munchkin, audience), format!("e/{}", ecid.text()))
}

/// The key of a row of work.
#[must_use]
pub fn todo_key(munchkin: &MunchkinId, audience: &AudienceId, ecid: Ecid) -> Key {
    Key::new(pk(munchkin, audience), format!("todo/{}", ecid.text()))
}

/// Notes that an ECID of the audience wants to be looked at.
pub async fn add_todo(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    ecid: Ecid,
    leads: &BTreeSet<LeadId>,
) -> Step<()> {
    let change = |found: Option<Todo>| {
        let mut todo = found.unwrap_or_default();
        todo.v = 1;
        todo.leads.extend(leads);
        // Written even where nothing is new: the revision tells the one who handles it now that it is not done.
        Ok((Some(todo), ()))
    };
    insert_or_update(deps, Table::Audiences, &todo_key(munchkin, audience, ecid), change).await
}

/// Asks for a pass over the audience, if it was ever delivered. Returns the number of the pass that will do.
pub async fn want_pass(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId) -> Step<Option<u64>> {
    update(
        deps,
        Table::Audiences,
        &head_key(munchkin, audience),
        |found: Option<Head>| {
            let Some(mut head) = found else { return Ok((None, None)) };
            let number = head.want_pass();
            Ok((Some(head), Some(number)))
        },
        |_| None,
    )
    .await
}

/// The members of one audience, at the moment it was opened.
#[derive(Debug)]
pub struct Members<'a> {
    pub(crate) deps: &'a Deps,
    pub(crate) munchkin: &'a MunchkinId,
    pub(crate) head: Head,
    base: Source,
    /// Those who are in by each of the head's runs, and those who are out.
    runs: Vec<(Source, Source)>,
}

/// Those of some ECIDs of whom a fact was said.
type Looked<'a> = BoxFuture<'a, Step<(Fact, BTreeSet<Ecid>)>>;

/// A set of ECIDs that is looked into.
#[derive(Debug)]
enum Source {
    None,
    Whole(Arc<Base>),
    Blocks { set: BaseRef, fences: Fences },
}

impl Source {
    async fn open(deps: &Deps, set: Option<&BaseRef>) -> Step<Self> {
        match set {
            None => Ok(Self::None),
            Some(set) if set.count <= WHOLE_UP_TO => Ok(Self::Whole(read_base(deps, set).await?)),
            Some(set) => {
                let (from, len) = fences_at(set.count).ok_or_else(|| Failure::fail("a base object is damaged"))?;
                let bytes = deps.ports.objects.get_range(&set.key, from, len).await?;
                let bytes = bytes.ok_or_else(|| Failure::retry("a base is gone: it was replaced"))?;
                Ok(Self::Blocks { set: set.clone(), fences: Fences::decode(&bytes) })
            }
        }
    }

    /// Those of the ECIDs that it holds.
    async fn which(&self, deps: &Deps, ecids: &BTreeSet<Ecid>) -> Step<BTreeSet<Ecid>> {
        match self {
            Self::None => Ok(BTreeSet::new()),
            Self::Whole(base) => Ok(ecids.iter().filter(|ecid| base.row(**ecid).is_some()).copied().collect()),
            Self::Blocks { set, fences } => {
                let runs = runs(ecids, fences, set.count);
                let looked: Vec<BoxFuture<'_, Step<Vec<Ecid>>>> =
                    runs.iter().map(|run| which_in_run(deps, &set.key, run).boxed()).collect();
                let found: Vec<Ecid> = stream::iter(looked).buffer_unordered(READS_AT_ONCE).try_concat().await?;
                Ok(found.into_iter().collect())
            }
        }
    }

    /// Its rows; `many`: of so many sets that are read side by side.
    fn rows<'a>(&self, deps: &'a Deps, many: u64) -> Ascending<'a> {
        match self {
            Self::None => Ascending::none(),
            Self::Whole(base) => Ascending::of(base.clone()),
            Self::Blocks { set, .. } => Ascending::read(Reader::one_of(deps, set.clone(), many)),
        }
    }
}

async fn which_in_run(deps: &Deps, key: &str, run: &Run) -> Step<Vec<Ecid>> {
    let bytes = deps.ports.objects.get_range(key, run.from, run.to - run.from).await?;
    let bytes = bytes.ok_or_else(|| Failure::retry("a base is gone: it was replaced"))?;
    let holds = |(ecid, from, to): &(Ecid, u64, u64)| {
        let place = usize::try_from(from - run.from).ok()?..usize::try_from(to - run.from).ok()?;
        block_holds(bytes.get(place)?, *ecid).then_some(*ecid)
    };
    Ok(run.ecids.iter().filter_map(holds).collect())
}

/// What snapshots and runs of facts say of some ECIDs: everything but what rows say.
#[derive(Debug)]
pub struct InSets {
    as_of: Option<u64>,
    held: BTreeSet<Ecid>,
    said: HashMap<Ecid, Fact>,
}

impl InSets {
    /// Whether an ECID is in the audience, given what its row says.
    #[must_use]
    pub fn inside(&self, ecid: Ecid, row: Option<Fact>) -> bool {
        inside(self.held.contains(&ecid), self.as_of, latest(self.said.get(&ecid).copied(), row))
    }
}

/// Sets up to this many members are read whole (8 MB) and remembered; larger ones by blocks.
const WHOLE_UP_TO: u64 = 500_000;

/// Blocks of a base that are read at a time. Ours: one after the other, they are bound by the network's latency alone.
const READS_AT_ONCE: usize = 16;

/// Bytes between two blocks that are read with them, at most: two blocks. Ours: of a big base that is asked for a few thousand
/// people most blocks lie further apart, and what is between them is better not read.
const GAP_BYTES: u64 = 8 << 10;
/// Bytes of one reading of blocks. Ours: of those that are under way at once all stand in memory.
const RUN_BYTES: u64 = 1 << 20;

/// Blocks of a base that are read together.
struct Run {
    /// Offsets in bytes.
    from: u64,
    to: u64,
    /// Whom to look for, with the offsets of the block that would hold them.
    ecids: Vec<(Ecid, u64, u64)>,
}

/// The blocks that hold these ECIDs if any does, in as few readings as makes sense.
fn runs(ecids: &BTreeSet<Ecid>, fences: &Fences, count: u64) -> Vec<Run> {
    let blocks =
        ecids.iter().filter_map(|ecid| fences.block(*ecid, count).map(|(from, len)| (from, from + len, *ecid)));
    let blocks: BTreeSet<(u64, u64, Ecid)> = blocks.collect();
    let mut runs: Vec<Run> = Vec::new();
    for (from, to, ecid) in blocks {
        match runs.last_mut() {
            Some(run) if from <= run.to + GAP_BYTES && to <= run.from + RUN_BYTES => {
                run.to = to;
                run.ecids.push((ecid, from, to));
            }
            _ => runs.push(Run { from, to, ecids: vec![(ecid, from, to)] }),
        }
    }
    runs
}

/// Reads a whole base object.
pub async fn read_base(deps: &Deps, base: &BaseRef) -> Step<Arc<Base>> {
    if let Some(base) = deps.cached_base(&base.key) {
        return Ok(base);
    }
    let mut rows = Vec::with_capacity(usize::try_from(base.count).unwrap_or_default());
    let mut reader = Reader::new(deps, base.clone());
    while let Some(mut piece) = reader.next().await? {
        rows.append(&mut piece);
    }
    let read = Arc::new(Base::of_rows(rows, base.as_of));
    deps.cache_base(&base.key, &read);
    Ok(read)
}

impl<'a> Members<'a> {
    /// Opens an audience; `None`: no delivery has ever named it.
    pub async fn open(deps: &'a Deps, munchkin: &'a MunchkinId, audience: &AudienceId) -> Step<Option<Members<'a>>> {
        let Some(head) = load::<Head>(deps, Table::Audiences, &head_key(munchkin, audience)).await? else {
            return Ok(None);
        };
        let head = head.value;
        let base = Source::open(deps, head.base.as_ref()).await?;
        let sides = head.runs.iter().flat_map(|run| [run.inside.as_ref(), run.outside.as_ref()]);
        let opened: Vec<BoxFuture<'_, Step<Source>>> = sides.map(|set| Source::open(deps, set).boxed()).collect();
        let opened: Vec<Source> = stream::iter(opened).buffered(READS_AT_ONCE).try_collect().await?;
        let mut opened = opened.into_iter();
        let runs = std::iter::from_fn(|| opened.next().zip(opened.next())).collect();
        Ok(Some(Members { deps, munchkin, head, base, runs }))
    }

    /// The head that was read.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Those of the ECIDs that are in the audience.
    pub async fn which(&self, ecids: &BTreeSet<Ecid>) -> Step<BTreeSet<Ecid>> {
        Ok(self.which_and_ever(ecids).await?.0)
    }

    /// Those of the ECIDs that are in the audience, or were when somebody last looked: whoever left may not have been looked at
    /// since.
    pub async fn which_ever(&self, ecids: &BTreeSet<Ecid>) -> Step<BTreeSet<Ecid>> {
        Ok(self.which_and_ever(ecids).await?.1)
    }

    /// What [`Members::which`] and [`Members::which_ever`] say, by one reading.
    pub async fn which_and_ever(&self, ecids: &BTreeSet<Ecid>) -> Step<(BTreeSet<Ecid>, BTreeSet<Ecid>)> {
        let rows = self.overlay(ecids).await?;
        let sets = self.in_sets(ecids).await?;
        let found = ecids.iter().filter(|ecid| sets.inside(**ecid, rows.get(ecid).copied())).copied().collect();
        let mut ever = sets.held;
        ever.extend(rows.into_keys().chain(sets.said.into_keys()));
        Ok((found, ever))
    }

    /// What snapshots and runs of facts say of the ECIDs.
    pub async fn in_sets(&self, ecids: &BTreeSet<Ecid>) -> Step<InSets> {
        let as_of = self.head.base.as_ref().map(|base| base.as_of);
        let held = self.base.which(self.deps, ecids).await?;
        let sets: Vec<Looked<'_>> = self
            .sets()
            .map(|(fact, set)| async move { Ok((fact, set.which(self.deps, ecids).await?)) }.boxed())
            .collect();
        let mut said: HashMap<Ecid, Fact> = HashMap::new();
        let mut found = stream::iter(sets).buffer_unordered(READS_AT_ONCE);
        while let Some((fact, ecids)) = found.try_next().await? {
            for ecid in ecids {
                let word = said.entry(ecid).or_insert(fact);
                *word = if fact.beats(*word) { fact } else { *word };
            }
        }
        drop(found);
        Ok(InSets { as_of, held, said })
    }

    /// The sets of the runs of facts, each with what is said of all in it.
    fn sets(&self) -> impl Iterator<Item = (Fact, &Source)> {
        self.head.runs.iter().zip(&self.runs).flat_map(|(run, (inside, outside))| {
            let fact = |inside| Fact { time: run.time, rank: RANK_FILE, inside };
            [(fact(true), inside), (fact(false), outside)]
        })
    }

    /// What was said last about those of the ECIDs of which something was said beside snapshots.
    pub async fn said(&self, ecids: &BTreeSet<Ecid>) -> Step<BTreeMap<Ecid, Fact>> {
        let mut said = self.overlay(ecids).await?;
        for (ecid, fact) in self.in_sets(ecids).await?.said {
            let word = said.entry(ecid).or_insert(fact);
            *word = if fact.beats(*word) { fact } else { *word };
        }
        Ok(said)
    }

    async fn overlay(&self, ecids: &BTreeSet<Ecid>) -> Step<BTreeMap<Ecid, Fact>> {
        if !self.head.has_overlay {
            return Ok(BTreeMap::new());
        }
        let keys: Vec<Key> = ecids.iter().map(|ecid| overlay_key(self.munchkin, &self.head.audience, *ecid)).collect();
        let items = self.deps.ports.tables.batch_get(Table::Audiences, &keys, Read::Consistent).await?;
        items.into_iter().map(overlay_row).collect()
    }

    /// All members as one base, with the overlay folded in.
    pub async fn effective(&self) -> Step<Base> {
        let mut members = self.rows().await?;
        let most = self.head.base.as_ref().map_or(0, |base| base.count);
        let mut rows = Vec::with_capacity(usize::try_from(most).unwrap_or_default());
        while let Some(mut piece) = members.next().await? {
            rows.append(&mut piece);
        }
        let as_of = self.head.base.as_ref().map_or(0, |base| base.as_of);
        Ok(Base::of_rows(rows, as_of))
    }

    /// All members by pieces, with everything folded in.
    pub async fn rows(&self) -> Step<Rows<'a>> {
        Ok(self.rows_of(u64::MAX, self.all_said().await?))
    }

    /// The members at a time (ms), by what rows said until then.
    pub(crate) fn rows_of(&self, until: u64, said: Vec<(u128, Fact)>) -> Rows<'a> {
        let many = 1 + self.head.runs.len() as u64;
        let sets = self.sets().filter(|(fact, _)| fact.time <= until);
        let sets = sets.map(|(fact, set)| (fact, set.rows(self.deps, many))).collect();
        let as_of = self.head.base.as_ref().map(|base| base.as_of);
        Rows::new(self.base.rows(self.deps, 1), as_of, sets, said)
    }

    /// Everything that rows say, by the ECID's row of a set; without what is older than the snapshot.
    async fn all_said(&self) -> Step<Vec<(u128, Fact)>> {
        let mut said = Vec::new();
        let as_of = self.head.base.as_ref().map_or(0, |base| base.as_of);
        if !self.head.has_overlay {
            return Ok(said);
        }
        let mut after: Option<String> = None;
        loop {
            let page = self.overlay_page(after.as_deref()).await?;
            for item in page.items {
                let (ecid, fact) = overlay_row(item)?;
                if fact.time >= as_of {
                    said.push((mix(ecid), fact));
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(said);
            }
        }
    }

    pub(crate) async fn overlay_page(&self, after: Option<&str>) -> Step<Page> {
        let pk = pk(self.munchkin, &self.head.audience);
        Ok(self.deps.ports.tables.query(Table::Audiences, &pk, "e/", after, 1000, Read::Consistent).await?)
    }
}

/// Puts a snapshot in the place of the one before, and asks for a pass; runs of facts that are older say nothing any more.
/// `by`: the feed that delivered it, and when. `false`: a newer one stands there.
pub async fn replace_base(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    base: &Base,
    as_of: u64,
    by: Option<(&str, u64)>,
) -> Step<bool> {
    let mut writer = Writer::begin(deps, SETS, as_of);
    writer.rows(base.rows()).await?;
    point_to(deps, munchkin, audience, writer.end().await?, by).await
}

/// Where snapshots stand.
pub const SETS: &str = "sets/base";

/// As [`replace_base`], of a set that is written; one that is not taken is deleted.
pub async fn point_to(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    pointer: BaseRef,
    by: Option<(&str, u64)>,
) -> Step<bool> {
    let as_of = pointer.as_of;
    let now = deps.now();
    let replaced = update(
        deps,
        Table::Audiences,
        &head_key(munchkin, audience),
        |head: Option<Head>| {
            let mut head = head.unwrap_or_else(|| Head::new(audience.clone(), now));
            if head.base.as_ref().is_some_and(|base| base.as_of > as_of) && holds(Guard::NewerSnapshotStays) {
                return Ok((None, None));
            }
            if head.missing.as_ref().is_some_and(|missing| missing.since <= as_of) {
                head.missing = None;
            }
            if let Some((feed, at)) = by {
                head.named(now, feed, at);
            }
            let mut garbage: Vec<BaseRef> = head.base.replace(pointer.clone()).into_iter().collect();
            garbage.extend(head.runs.extract_if(.., |run| run.time < as_of).flat_map(FactRun::into_sets));
            head.want_pass();
            Ok((Some(head), Some(garbage)))
        },
        |_| None,
    )
    .await?;
    let is_taken = replaced.is_some();
    for set in replaced.unwrap_or_else(|| vec![pointer.clone()]) {
        deps.ports.objects.delete(&set.key).await?;
    }
    Ok(is_taken)
}

/// Takes an operator's word that an audience which a full delivery did not name is empty. `false`: every delivery names
/// it. Whoever calls rings it.
pub async fn declare_empty(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId) -> Step<bool> {
    let head = load::<Head>(deps, Table::Audiences, &head_key(munchkin, audience)).await?;
    let Some(missing) = head.and_then(|head| head.value.missing) else { return Ok(false) };
    replace_base(deps, munchkin, audience, &Base::new([], missing.since), missing.since, None).await
}

/// Writes down that a full delivery of a feed, made at a time (ms), does not name an audience which it named before.
pub async fn miss(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, feed: &str, time: u64) -> Step<()> {
    let change = |head: Option<Head>| {
        let Some(mut head) = head else { return Ok((None, ())) };
        let named_since = head.feeds.get(feed).is_some_and(|last| *last >= time);
        // Another feed may deliver it still.
        let elsewhere = head.feeds.iter().any(|(other, last)| other != feed && *last >= time);
        // Nor could it be declared empty as of a time before the snapshot's.
        let is_old = head.base.as_ref().is_some_and(|base| base.as_of > time);
        let is_known = head.missing.as_ref().is_some_and(|missing| missing.since <= time);
        if named_since || elsewhere || is_old || is_known {
            return Ok((None, ()));
        }
        head.missing = Some(Missing { feed: feed.to_owned(), since: time });
        Ok((Some(head), ()))
    };
    update(deps, Table::Audiences, &head_key(munchkin, audience), change, |_| None).await
}

pub(crate) fn overlay_row(item: ports::Item) -> Step<(Ecid, Fact)> {
    let ecid = item.key.sk.strip_prefix("e/").and_then(Ecid::parse);
    let ecid = ecid.ok_or_else(|| Failure::fail("an overlay row has no ECID in its key"))?;
    let word = doc::read::<Overlay>(item)?.value.told().word();
    Ok((ecid, word.ok_or_else(|| Failure::fail("an overlay row says nothing"))?))
}

/// An overlay row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Version of this shape.
    pub v: u8,
    /// The latest word of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<Fact>,
    /// The latest word of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<Streamed>,
    /// Version 1 knew files alone, and kept their word in the row itself.
    #[serde(default, flatten, skip_serializing)]
    first: Option<Fact>,
}

impl Overlay {
    const fn of(told: Told) -> Self {
        Self { v: 2, file: told.file, stream: told.stream, first: None }
    }

    fn told(self) -> Told {
        Told { file: self.file.or(self.first), stream: self.stream }
    }
}

/// What a source says about an ECID and an audience, beside snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// In a file.
    File(Fact),
    /// In a stream.
    Stream(Streamed),
}

/// Takes in what was said. Returns what counted beside a snapshot before it, and what counts after it; what is older than
/// what is stored is not written.
pub async fn take_said(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    ecid: Ecid,
    said: Said,
) -> Step<(Option<Fact>, Option<Fact>)> {
    let key = overlay_key(munchkin, audience, ecid);
    let change = |found: Option<Overlay>| {
        let mut told = found.map_or_else(Told::default, Overlay::told);
        let before = told.word();
        let changed = match said {
            Said::File(fact) => told.by_file(fact),
            Said::Stream(streamed) => told.by_stream(streamed),
        };
        Ok((changed.then(|| Overlay::of(told)), (before, told.word())))
    };
    match said {
        // Of a large audience hardly anybody has a row already.
        Said::File(_) => insert_or_update(deps, Table::Audiences, &key, change).await,
        // A stream repeats much of what it said: then nothing is written.
        Said::Stream(_) => update(deps, Table::Audiences, &key, change, |_| None).await,
    }
}

#[cfg(test)]
mod tests {
    use domain::base::{FENCE_ROWS, HEADER, mix};
    use domain::fact::RANK_FILE;

    use super::*;

    /// Readings, and bytes, of a look-up of so many browsers in a base of ten million.
    fn look_up(browsers: u128) -> (usize, u64) {
        const MEMBERS: u64 = 10_000_000;
        let blocks = MEMBERS.div_ceil(FENCE_ROWS);
        let step = u128::MAX / u128::from(blocks);
        let fences: Vec<u8> = (0..blocks).flat_map(|block| (step * u128::from(block)).to_be_bytes()).collect();
        let ecids: BTreeSet<Ecid> = (0..browsers).filter_map(|n| Ecid::from_number(n * 7_919)).collect();
        let asked: BTreeSet<u128> = ecids.iter().map(|ecid| mix(*ecid) / step).collect();
        let runs = runs(&ecids, &Fences::decode(&fences), MEMBERS);
        assert_eq!(runs.iter().map(|run| run.ecids.len()).sum::<usize>(), ecids.len());
        assert!(runs.iter().all(|run| run.from >= HEADER && run.to - run.from <= RUN_BYTES));
        let bytes: u64 = runs.iter().map(|run| run.to - run.from).sum();
        let least = asked.len() as u64 * FENCE_ROWS * 16;
        assert!(bytes * 4 <= least * 5, "{bytes} bytes where {least} would do");
        (runs.len(), bytes)
    }

    #[test]
    fn of_a_big_base_hardly_more_is_read_than_the_blocks_that_are_asked_for() {
        let (few, bytes) = look_up(3_000);
        assert!(few > 2_000 && bytes < 15 << 20, "{few} {bytes}");
        // Where most blocks are asked for they are read together.
        let (many, _) = look_up(60_000);
        assert!(many < 2_000, "{many}");
    }

    #[test]
    fn overlay_rows_of_the_first_version_are_still_read() {
        let read = |text| serde_json::from_str::<Overlay>(text).unwrap();
        let fact = Fact { time: 5, rank: RANK_FILE, inside: true };
        assert_eq!(read(r#"{"v":1,"time":5,"rank":1,"inside":true}"#).told().word(), Some(fact));
        let row = Overlay::of(Told { file: Some(fact), stream: None });
        assert_eq!(read(&serde_json::to_string(&row).unwrap()), row);
    }
}
