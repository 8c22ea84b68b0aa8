//! A download of two million people: the real routes over ports in memory, request by request, as whoever waits for the
//! file asks. The bucket keeps no part, it counts and checks them as S3 does, so that the memory of this process is what
//! the function needs, and what its ports hold besides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use create_sync::{Caller, Request, handle};
use domain::list::{Refusal, State};
use domain::{AudienceId, LeadId, LeadSet, ListId, MunchkinId};
use ports::{Expect, Item, Key, ObjectInfo, Objects, Page, PortError, PortResult, Read, Table, Tables};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::lists::{AudienceReport, OpenList, Want, want_key, write_leads};
use state::syncs::sync_key;
use state::{Deps, Settings};

use crate::counted::{self, peak_bytes, processor_seconds};
use crate::driver;
use crate::fakes::{Sim, run as poll};
use crate::promise::put;
use crate::scenario::{BEGIN, MUNCHKIN, active_sync};

/// People of the sync.
pub const PEOPLE: u64 = 2_000_000;
/// Of a hundred people so many were refused by Marketo: each of them has a time of their own, and costs the most memory.
pub const REFUSED_PERCENT: u64 = 1;
/// One lead of so many is of the sync: others of the instance lie between them.
const ONE_OF: u64 = 10;
/// Any seed would do; this one is always the same.
const SEED: u64 = 6;
/// Any list.
const LIST: ListId = 1_001;
/// S3: every part but the last one, in bytes; and the number of the last one.
const PART_LEAST: u64 = 5 << 20;
const PARTS_MOST: u64 = 10_000;
/// The function, and the API before it, end after so many seconds (`infra/template.yaml`).
const FUNCTION_SECONDS: f64 = 30.0;
/// Lambda gives a function one processor for so many MB of its memory (AWS's documentation, "Configure Lambda function
/// memory").
const PROCESSOR_MB: f64 = 1_769.0;
/// Part of the function's time and memory that this may take. Ours: the rest is for the network and for other machines.
const PART_OF_IT: f64 = 0.5;
/// Requests after which whoever waits gives up.
const REQUESTS_MOST: u64 = 1_000;

/// What was counted: the same on every machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// People of the sync.
    pub people: u64,
    /// Of them refused by Marketo.
    pub refused: u64,
    /// Lines of the file, with its first one.
    pub lines: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Requests that wrote on, until the file was there.
    pub slices: u64,
    /// Parts of the file.
    pub parts: u64,
    /// The smallest part but the last one, in bytes.
    pub smallest_part: u64,
    /// The largest part, in bytes.
    pub largest_part: u64,
    /// Requests to S3 that read.
    pub object_reads: u64,
    /// Requests to S3 that write, parts among them.
    pub object_writes: u64,
    /// Requests to DynamoDB that read.
    pub table_reads: u64,
    /// Requests to DynamoDB that write.
    pub table_writes: u64,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// What was counted.
    pub counts: Counts,
    /// The function's memory, in MB.
    pub function_mb: f64,
    /// Processor time of the first request, which freezes where everybody stands, in seconds. `None`: this system does not
    /// tell (it is not Linux).
    pub begin_seconds: Option<f64>,
    /// Processor time of the slowest slice, likewise.
    pub slice_seconds: Option<f64>,
    /// The most memory that this process ever had, in MB, likewise.
    pub peak_mb: Option<f64>,
}

impl Measured {
    /// How long processor time takes at the function's share of one.
    pub fn at_its_share(&self, seconds: f64) -> f64 {
        seconds * (PROCESSOR_MB / self.function_mb).max(1.0)
    }

    /// An error where a bar is missed: which one.
    ///
    /// # Errors
    /// With the bar that is missed.
    pub fn check(&self) -> Result<(), String> {
        let Counts { people, lines, parts, smallest_part, .. } = self.counts;
        let mut missed = Vec::new();
        if lines != people + 1 {
            missed.push(format!("{lines} lines of {people} people"));
        }
        if parts > PARTS_MOST {
            missed.push(format!("{parts} parts; S3 takes {PARTS_MOST}"));
        }
        if parts > 1 && smallest_part < PART_LEAST {
            missed.push(format!("a part of {smallest_part} bytes; S3 asks for {PART_LEAST}"));
        }
        for seconds in [self.begin_seconds, self.slice_seconds].into_iter().flatten() {
            let seconds = self.at_its_share(seconds);
            if seconds > FUNCTION_SECONDS * PART_OF_IT {
                missed.push(format!("a request takes {seconds:.1} s of the function's {FUNCTION_SECONDS} s"));
            }
        }
        if let Some(peak) = self.peak_mb.filter(|peak| *peak > self.function_mb * PART_OF_IT) {
            missed.push(format!("{peak:.0} MB of the function's {:.0} MB are needed", self.function_mb));
        }
        if missed.is_empty() { Ok(()) } else { Err(missed.join("; ")) }
    }
}

/// Asks for the file of so many people, of whom so many in a hundred were refused, and waits for it.
///
/// # Panics
/// If a request fails, or the file never comes.
#[must_use]
pub fn measure(people: u64, refused_percent: u64) -> Measured {
    let sim = counted::world(SEED, []);
    let bucket = Arc::new(Counting { sim: sim.clone(), seen: Mutex::default() });
    let mut ports = sim.ports();
    ports.objects = bucket.clone();
    ports.tables = bucket.clone();
    let deps = Deps::new(ports, Settings { slice_records: 400_000, ..driver::settings() });
    let (sync, refused) = poll(people_of_a_sync(&deps, &sim, people, refused_percent));
    lock(&bucket.seen).counts = Counts { people, refused, ..Counts::default() };

    let (begin_seconds, job) = request(&deps, "POST", &format!("/syncs/{sync}/download"), 202);
    assert_eq!(job["rows"], people, "lines of the file");
    let path = format!("/downloads/{}", job["id"].as_str().expect("an id"));
    let mut slice_seconds: Option<f64> = None;
    for slices in 1..=REQUESTS_MOST {
        let (seconds, job) = request(&deps, "GET", &path, 200);
        slice_seconds = slice_seconds.into_iter().chain(seconds).reduce(f64::max);
        if job["status"] == "done" {
            let counts = Counts { slices, ..lock(&bucket.seen).counts };
            return Measured { counts, function_mb: function_mb(), begin_seconds, slice_seconds, peak_mb: peak_mb() };
        }
        assert_eq!(job["status"], "working");
    }
    panic!("the file is not there after {REQUESTS_MOST} requests")
}

/// One request: processor seconds that it took, and its answer.
fn request(deps: &Deps, method: &str, path: &str, status: u16) -> (Option<f64>, Value) {
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        caller: Some(Caller::local()),
        ..Request::default()
    };
    let began = processor_seconds();
    let response = poll(handle(deps, request, deps.now() + 30_000));
    let took = processor_seconds().zip(began).map(|(ended, began)| ended - began);
    assert_eq!(response.status, status, "{method}");
    (took, serde_json::from_slice(&response.body).expect("JSON"))
}

/// A sync of which everybody stands somewhere. Returns its id, and how many were refused.
async fn people_of_a_sync(deps: &Deps, sim: &Sim, people: u64, refused_percent: u64) -> (String, u64) {
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    let sync = active_sync(&munchkin, AudienceId::aam(101), LIST, true);
    put(sim, Table::Syncs, sync_key(&munchkin, &sync.id), &sync);

    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut want = LeadSet::new();
    let mut open = OpenList::open(deps, &munchkin, LIST).await.expect("a list");
    let state: &mut State = &mut open.state;
    for n in 0..people {
        let lead: LeadId = 1 + n * ONE_OF + rng.random_range(0..ONE_OF);
        want.insert(lead);
        // Refused are so many in a hundred; of the others most are in the list, and some of each other kind.
        if rng.random_range(0..100) < refused_percent {
            let code = if lead.is_multiple_of(2) { "1008" } else { "1004" };
            let refusal = Refusal { code: code.into(), at: BEGIN + lead, request_id: format!("{lead:x}#0123456789") };
            state.failed.insert(lead, refusal);
            continue;
        }
        match rng.random_range(0..20) {
            0 => {}
            1 => drop(state.kept_out.insert(lead)),
            2 | 3 => drop(state.theirs.insert(lead)),
            _ => drop((state.sure.insert(lead), state.may.insert(lead))),
        }
    }
    let refused = state.failed.len() as u64;
    open.publish(deps).await.expect("published");
    let key = write_leads(deps, "want", &want).await.expect("written");
    let want = Want {
        v: 1,
        audience: sync.audience.clone(),
        key,
        count: want.len(),
        pass: 1,
        report: AudienceReport { as_of: BEGIN, ..AudienceReport::default() },
        replaced: Vec::new(),
    };
    put(sim, Table::Lists, want_key(&munchkin, &sync.audience), &want);
    (sync.id, refused)
}

/// MB of memory that the template gives `create-sync`.
fn function_mb() -> f64 {
    let template = include_str!("../../../infra/template.yaml");
    let (_, function) = template.split_once("\n  CreateSyncFunction:").expect("the function");
    let (_, memory) = function.split_once("MemorySize: ").expect("its memory");
    memory.lines().next().and_then(|memory| memory.trim().parse().ok()).expect("a number")
}

/// The most memory that this process has had, in MB; `None`: the system does not tell.
#[expect(clippy::cast_precision_loss)]
fn peak_mb() -> Option<f64> {
    Some(peak_bytes()? as f64 / f64::from(1 << 20))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went through the ports.
#[derive(Debug, Default)]
struct Seen {
    counts: Counts,
    /// Bytes and tag of each part, by upload.
    uploads: BTreeMap<String, BTreeMap<u16, (u64, String)>>,
    /// Objects that were made of parts; nobody keeps them.
    made: Vec<String>,
}

/// Tables and bucket that count.
struct Counting {
    sim: Sim,
    seen: Mutex<Seen>,
}

impl Counting {
    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.seen).counts);
    }

    fn takes(&self, body: &Bytes) {
        let lines = body.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.count(|counts| {
            counts.lines += lines;
            counts.bytes += body.len() as u64;
        });
    }
}

fn refused(reason: &str) -> PortError {
    PortError::Refused { service: "S3", reason: reason.to_owned() }
}

#[async_trait]
impl Objects for Counting {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.count(|counts| counts.object_reads += 1);
        Objects::get(&self.sim, key).await
    }
    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.count(|counts| counts.object_reads += 1);
        self.sim.get_range(key, from, len).await
    }
    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        self.count(|counts| counts.object_writes += 1);
        if key.ends_with(".csv") {
            self.takes(&body);
        }
        Objects::put(&self.sim, key, body).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        self.count(|counts| counts.object_reads += 1);
        self.sim.list(prefix, after).await
    }
    async fn delete(&self, key: &str) -> PortResult<()> {
        self.count(|counts| counts.object_writes += 1);
        Objects::delete(&self.sim, key).await
    }
    async fn begin_parts(&self, key: &str) -> PortResult<String> {
        let mut seen = lock(&self.seen);
        seen.counts.object_writes += 1;
        let upload = format!("{key}-{}", seen.uploads.len());
        seen.uploads.insert(upload.clone(), BTreeMap::new());
        Ok(upload)
    }
    async fn put_part(&self, _: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        self.takes(&body);
        let mut seen = lock(&self.seen);
        seen.counts.object_writes += 1;
        let parts = seen.uploads.get_mut(upload).ok_or_else(|| refused("NoSuchUpload"))?;
        let tag = format!("{number}-{}", body.len());
        parts.insert(number, (body.len() as u64, tag.clone()));
        Ok(tag)
    }
    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        let mut seen = lock(&self.seen);
        seen.counts.object_writes += 1;
        let parts = seen.uploads.remove(upload).ok_or_else(|| refused("NoSuchUpload"))?;
        let named: Vec<(u16, &String)> = (1..).zip(tags).collect();
        if parts.iter().map(|(number, (_, tag))| (*number, tag)).ne(named) {
            return Err(refused("InvalidPart"));
        }
        let sizes: Vec<u64> = parts.values().map(|(size, _)| *size).collect();
        seen.counts.parts = sizes.len() as u64;
        seen.counts.smallest_part = sizes.iter().rev().skip(1).copied().min().unwrap_or_default();
        seen.counts.largest_part = sizes.iter().copied().max().unwrap_or_default();
        seen.made.push(key.to_owned());
        Ok(())
    }
    async fn sign(&self, key: &str, seconds: u64, filename: &str) -> PortResult<String> {
        if !lock(&self.seen).made.iter().any(|made| made == key) && Objects::get(&self.sim, key).await?.is_none() {
            return Err(refused("an address of nothing"));
        }
        self.sim.sign(key, seconds, filename).await
    }
}

#[async_trait]
impl Tables for Counting {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        self.count(|counts| counts.table_reads += 1);
        Tables::get(&self.sim, table, key, read).await
    }
    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        // DynamoDB: at most 100 keys a request.
        self.count(|counts| counts.table_reads += keys.len().div_ceil(100) as u64);
        self.sim.batch_get(table, keys, read).await
    }
    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        self.count(|counts| counts.table_writes += 1);
        Tables::put(&self.sim, table, item, expect).await
    }
    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        // DynamoDB: at most 25 items a request.
        self.count(|counts| counts.table_writes += items.len().div_ceil(25) as u64);
        self.sim.put_all(table, items).await
    }
    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        self.count(|counts| counts.table_writes += 1);
        Tables::delete(&self.sim, table, key, expect).await
    }
    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        read: Read,
    ) -> PortResult<Page> {
        self.count(|counts| counts.table_reads += 1);
        self.sim.query(table, pk, prefix, after, limit, read).await
    }
    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.count(|counts| counts.table_reads += 1);
        self.sim.due(table, due_pk, until, limit).await
    }
}
