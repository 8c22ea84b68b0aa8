//! Keeps a subscription's edges ([`state::edges`]) up to date for the passes that wait for them: reads the records that notes
//! name and replaces their edges, or reads every record where that is cheaper. One worker a subscription.
//!
//! It dies anywhere: until its last write nothing points to what it has written, and the notes are read again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use domain::MunchkinId;
use domain::edges::{Edge, Source, of_lead, of_token, replace};
use domain::identity::{LeadRecord, TokenRecord};
use domain::planted::{Guard, holds};
use ports::{Read, Table};
use state::audience::BaseRef;
use state::bases::{Reader, Writer};
use state::bell::{BellKey, Next};
use state::edges::{
    Changed, GRACE_MS, Head, Job, NOTED_MS, PARTITIONS, Reading, head, head_key, noted_since, source_of,
};
use state::identity::{SHARDS, lead_shard, leads, token_shard, tokens};
use state::{Deps, Doc, Failure, Step, bell, doc, save, update};

/// A slice ends when the invocation has less than this left, in ms.
pub(crate) const RESERVE_MS: u64 = 30_000;
/// Parts are merged by an invocation that has this left, in ms.
const MERGE_MS: u64 = 100_000;
/// Records of one page.
const PAGE: usize = 1_000;
/// Edges that are sorted in memory at a time: 64 MB. Ours.
const SORTED_AT_ONCE: usize = 1 << 20;
/// One record by its key costs as much as so many that are read in their order: a read unit is 4 KB, a record some 400 bytes.
const RECORDS_PER_UNIT: u64 = 10;
/// Records that are read by their keys at once.
const BY_KEY: usize = 10_000;

pub(crate) async fn work(deps: &Deps, munchkin: &MunchkinId, deadline: u64) -> Step<Next> {
    let Some(mut edges) = head(deps, munchkin).await? else { return Ok(Next::Done(None)) };
    if edges.value.job.is_none() && edges.value.done < edges.value.wanted {
        edges.value.job = Some(Job { number: edges.value.wanted, reading: None });
        store(deps, munchkin, &mut edges).await?;
    }
    if let Some(job) = edges.value.job.clone()
        && !go_on(deps, munchkin, &mut edges, job, deadline).await?
    {
        return Ok(Next::Again);
    }
    // Also those of a job that ended and whose worker died before it rang them.
    ring(deps, munchkin, &edges.value).await
}

/// Rings the audiences whose edges are there, and deletes objects that nobody can read any more.
async fn ring(deps: &Deps, munchkin: &MunchkinId, edges: &Head) -> Step<Next> {
    for audience in edges.waiting.iter().filter(|(_, number)| **number <= edges.done).map(|(audience, _)| audience) {
        bell::mark(deps, &BellKey::audience(munchkin, audience)).await?;
    }
    let done = edges.done;
    let now = deps.now();
    for key in edges.replaced.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key) {
        deps.ports.objects.delete(key).await?;
    }
    let forget = |found: Option<Head>| {
        let Some(mut head) = found else { return Ok((None, Next::Done(None))) };
        let before = (head.waiting.len(), head.replaced.len());
        head.waiting.retain(|_, number| *number > done);
        head.replaced.retain(|_, at| *at > now);
        let next =
            if head.wanted > head.done { Next::Again } else { Next::Done(head.replaced.values().min().copied()) };
        Ok(((before != (head.waiting.len(), head.replaced.len())).then_some(head), next))
    };
    update(deps, Table::Identity, &head_key(munchkin), forget, |_| None).await
}

/// Writes down how far it is. Who asks meanwhile changes only what is wanted and who waits.
async fn store(deps: &Deps, munchkin: &MunchkinId, edges: &mut Doc<Head>) -> Step<()> {
    for _ in 0..10 {
        if save(deps, Table::Identity, head_key(munchkin), &edges.value, Some(edges.rev), None).await? {
            edges.rev += 1;
            return Ok(());
        }
        let Some(now) = head(deps, munchkin).await? else { break };
        let number = |head: &Head| head.job.as_ref().map_or(head.done, |job| job.number);
        if number(&now.value) > number(&edges.value) || now.value.done > edges.value.done {
            break;
        }
        edges.rev = now.rev;
        edges.value.wanted = now.value.wanted;
        edges.value.waiting = now.value.waiting;
    }
    Err(Failure::retry("somebody else reads these edges"))
}

/// Does a slice. `false`: there is more.
async fn go_on(deps: &Deps, munchkin: &MunchkinId, edges: &mut Doc<Head>, mut job: Job, deadline: u64) -> Step<bool> {
    let grace = deps.settings.scaled(GRACE_MS);
    let before = |at: u64| if holds(Guard::NotesOverlap) { at.saturating_sub(grace) } else { at };
    let mut noted_at = deps.now();
    let mut changed = Changed::default();
    if job.reading.is_none() {
        let noted = edges.value.base.is_some() && edges.value.upto + NOTED_MS > noted_at;
        let most = (edges.value.records / RECORDS_PER_UNIT).max(deps.settings.pass_above as u64);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(SORTED_AT_ONCE);
        if noted {
            changed = noted_since(deps, munchkin, edges.value.upto, most).await?;
        }
        if !noted || changed.len() > most {
            job.reading = Some(Reading { since: noted_at, shard: 0, after: None, records: 0, parts: Vec::new() });
            edges.value.job = Some(job.clone());
            store(deps, munchkin, edges).await?;
        }
    }
    if let Some(reading) = &mut job.reading {
        let whole = reading.shard == PARTITIONS || read_on(deps, munchkin, reading, deadline).await?;
        edges.value.job = Some(job.clone());
        store(deps, munchkin, edges).await?;
        // To merge takes most of an invocation, where there are many.
        if !whole || deps.now() + deps.settings.scaled(MERGE_MS) > deadline {
            return Ok(false);
        }
    }
    if let Some(reading) = &job.reading {
        noted_at = deps.now();
        // What was written since a record was read.
        changed = noted_since(deps, munchkin, before(reading.since), usize::MAX).await?;
    }
    let parts = match &job.reading {
        None => edges.value.base.iter().cloned().collect(),
        Some(reading) => reading.parts.clone(),
    };
    let base = match parts.as_slice() {
        [one] if changed.is_empty() && job.reading.is_none() => one.clone(),
        _ => merge(deps, munchkin, &parts, changed, noted_at).await?,
    };
    let done = &mut edges.value;
    let parts = job.reading.iter().flat_map(|reading| &reading.parts);
    let garbage: Vec<String> = parts.map(|part| part.key.clone()).collect();
    if let Some(old) = done.base.replace(base.clone()).map(|old| old.key).filter(|old| *old != base.key) {
        done.replaced.insert(old, noted_at + grace);
    }
    if let Some(reading) = &job.reading {
        done.records = reading.records;
    }
    (done.done, done.job, done.as_of, done.upto) = (job.number, None, noted_at, done.upto.max(before(noted_at)));
    store(deps, munchkin, edges).await?;
    for key in garbage {
        deps.ports.objects.delete(&key).await?;
    }
    Ok(true)
}

/// Reads records on, in their order. `false`: there is more.
async fn read_on(deps: &Deps, munchkin: &MunchkinId, reading: &mut Reading, deadline: u64) -> Step<bool> {
    let (mut found, mut records) = (Vec::new(), 0);
    let now = deps.now();
    while reading.shard < PARTITIONS {
        let shard = match reading.shard.checked_sub(SHARDS) {
            None => token_shard(munchkin, reading.shard),
            Some(shard) => lead_shard(munchkin, shard),
        };
        let limit = PAGE.min(deps.settings.slice_records);
        let after = reading.after.as_deref();
        let page = deps.ports.tables.query(Table::Identity, &shard, "", after, limit, Read::Consistent).await?;
        records += page.items.len();
        for item in page.items {
            if reading.shard < SHARDS {
                token(deps, &doc::read::<TokenRecord>(item)?.value, now, &mut found);
            } else {
                of_lead(&doc::read::<LeadRecord>(item)?.value, &mut found);
            }
        }
        reading.after = page.next;
        if reading.after.is_none() {
            reading.shard += 1;
        }
        let ends = records >= deps.settings.slice_records
            || deps.now() + deps.settings.scaled(RESERVE_MS) > deadline
            || reading.shard == PARTITIONS;
        if !found.is_empty() && (ends || found.len() >= SORTED_AT_ONCE) {
            found.sort_unstable();
            let mut writer = Writer::begin(deps, "runs/edges", now);
            writer.rows(&found).await?;
            reading.parts.push(writer.end().await?);
            found.clear();
        }
        if ends {
            break;
        }
    }
    reading.records += records as u64;
    Ok(reading.shard == PARTITIONS)
}

fn token(deps: &Deps, record: &TokenRecord, now: u64, found: &mut Vec<Edge>) {
    let ask_at = match record.asked_at {
        None => 0,
        Some(asked) => record.due_to_ask(now).map_or(u64::MAX, |due| {
            // Intervals are the design's durations on this deployment's clock.
            due.min(asked + deps.settings.scaled(due.saturating_sub(asked)))
        }),
    };
    of_token(record, source_of(&record.token), ask_at, found);
}

/// Writes the edges of all parts with those of the changed records as they are now.
async fn merge(deps: &Deps, munchkin: &MunchkinId, parts: &[BaseRef], changed: Changed, as_of: u64) -> Step<BaseRef> {
    let mut gone: HashSet<Source> = changed.tokens.iter().map(source_of).collect();
    gone.extend(changed.leads.iter().map(|lead| Source::lead(*lead)));
    gone.extend(&changed.gone);
    let mut new = Vec::new();
    let now = deps.now();
    let (names, ids): (Vec<_>, Vec<_>) = (changed.tokens.into_iter().collect(), changed.leads.into_iter().collect());
    for names in names.chunks(BY_KEY) {
        for record in tokens(deps, munchkin, names).await? {
            token(deps, &record.value, now, &mut new);
        }
    }
    for ids in ids.chunks(BY_KEY) {
        for record in leads(deps, munchkin, ids.iter().copied()).await? {
            of_lead(&record.value, &mut new);
        }
    }
    new.sort_unstable();
    let (mut left, mut out) = (&new[..], Vec::new());
    let mut writer = Writer::begin(deps, "sets/edges", as_of);
    let mut sorted = Sorted::open(deps, parts).await?;
    while let Some(piece) = sorted.next().await? {
        replace(&piece, &gone, &mut left, false, &mut out);
        writer.rows(&out).await?;
        out.clear();
    }
    replace(&[], &gone, &mut left, true, &mut out);
    writer.rows(&out).await?;
    writer.end().await
}

/// Parts that are each in order, read as one.
struct Sorted<'a> {
    parts: Vec<Part<'a>>,
    /// The next edge of each part that has one.
    next: BinaryHeap<Reverse<(Edge, usize)>>,
}

struct Part<'a> {
    reader: Reader<'a, Edge>,
    piece: std::vec::IntoIter<Edge>,
}

impl Part<'_> {
    async fn next(&mut self) -> Step<Option<Edge>> {
        if let Some(edge) = self.piece.next() {
            return Ok(Some(edge));
        }
        self.piece = self.reader.next().await?.unwrap_or_default().into_iter();
        Ok(self.piece.next())
    }
}

impl<'a> Sorted<'a> {
    async fn open(deps: &'a Deps, parts: &[BaseRef]) -> Step<Self> {
        let many = parts.len() as u64;
        let part =
            |part: &BaseRef| Part { reader: Reader::one_of(deps, part.clone(), many), piece: Vec::new().into_iter() };
        let mut parts: Vec<Part> = parts.iter().map(part).collect();
        let mut next = BinaryHeap::new();
        if parts.len() > 1 {
            for (number, part) in parts.iter_mut().enumerate() {
                next.extend(part.next().await?.map(|edge| Reverse((edge, number))));
            }
        }
        Ok(Self { parts, next })
    }

    /// The next edges; `None`: that were all.
    async fn next(&mut self) -> Step<Option<Vec<Edge>>> {
        if let [only] = self.parts.as_mut_slice() {
            return only.reader.next().await;
        }
        let mut out = Vec::new();
        while let Some(Reverse((edge, number))) = self.next.pop() {
            out.push(edge);
            self.next.extend(self.parts[number].next().await?.map(|edge| Reverse((edge, number))));
            if out.len() == SORTED_AT_ONCE / 8 {
                break;
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }
}
