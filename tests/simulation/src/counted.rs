//! Ports that count what DynamoDB and S3 would bill. The bucket is a folder, so that the memory of a process that measures is
//! what the function needs.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use domain::MunchkinId;
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use ports::{Expect, Item, Key, ObjectInfo, Objects, Page, PortError, PortResult, Ports, Read, Table, Tables};
use serde::{Deserialize, Serialize};
use state::syncs::subscription_key;

use crate::fakes::Sim;
use crate::promise::{put, subscription};
use crate::scenario::{BEGIN, MUNCHKIN, instance, library};

/// A world in which nobody is known and nothing happened, with these segments: its subscription's row is written, uncounted.
///
/// # Panics
/// If the world's own Munchkin id is none.
#[must_use]
pub fn world(seed: u64, segments: impl IntoIterator<Item = u64>) -> Sim {
    let marketo = Marketo::new(marketo::Settings::default(), instance(Vec::new(), BTreeSet::new()), BEGIN);
    let adobe = Adobe::new(adobe::Settings::default(), library(segments), BEGIN);
    let sim = Sim::new(seed, BEGIN, marketo, adobe);
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    put(&sim, Table::Syncs, subscription_key(&munchkin), &subscription(&munchkin, true));
    sim
}

/// What was used: the same on every machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Requests to S3 that read.
    pub object_reads: u64,
    /// Requests to S3 that write, parts and listings among them.
    pub object_writes: u64,
    /// Bytes read from S3.
    pub bytes_read: u64,
    /// Bytes written to S3.
    pub bytes_written: u64,
    /// Read units of DynamoDB, in halves.
    pub half_read_units: u64,
    /// Write units of DynamoDB.
    pub write_units: u64,
}

impl Usage {
    /// What was used since.
    #[must_use]
    pub const fn since(self, begun: Self) -> Self {
        Self {
            object_reads: self.object_reads - begun.object_reads,
            object_writes: self.object_writes - begun.object_writes,
            bytes_read: self.bytes_read - begun.bytes_read,
            bytes_written: self.bytes_written - begun.bytes_written,
            half_read_units: self.half_read_units - begun.half_read_units,
            write_units: self.write_units - begun.write_units,
        }
    }

    /// What was used beyond that; never less than nothing.
    #[must_use]
    pub const fn beyond(self, idle: Self) -> Self {
        Self {
            object_reads: self.object_reads.saturating_sub(idle.object_reads),
            object_writes: self.object_writes.saturating_sub(idle.object_writes),
            bytes_read: self.bytes_read.saturating_sub(idle.bytes_read),
            bytes_written: self.bytes_written.saturating_sub(idle.bytes_written),
            half_read_units: self.half_read_units.saturating_sub(idle.half_read_units),
            write_units: self.write_units.saturating_sub(idle.write_units),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            object_reads: self.object_reads + other.object_reads,
            object_writes: self.object_writes + other.object_writes,
            bytes_read: self.bytes_read + other.bytes_read,
            bytes_written: self.bytes_written + other.bytes_written,
            half_read_units: self.half_read_units + other.half_read_units,
            write_units: self.write_units + other.write_units,
        }
    }
}

/// Tables in memory and a bucket in a folder, both of which count.
pub struct Counted {
    sim: Sim,
    folder: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    usage: Usage,
    uploads: u64,
    index_moves: u64,
}

impl Counted {
    /// Over these tables, and an empty folder for the bucket.
    #[must_use]
    pub fn new(sim: Sim, folder: PathBuf) -> Arc<Self> {
        Arc::new(Self { sim, folder, seen: Mutex::default() })
    }

    /// The ports of a function.
    #[must_use]
    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports { tables: self.clone(), objects: self.clone(), ..self.sim.ports() }
    }

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        self.seen().usage
    }

    /// Write units that `usage` does not hold: an item that moves within the index `due` is taken out there and put in again,
    /// and both are billed.
    pub fn index_moves(&self) -> u64 {
        self.seen().index_moves
    }

    /// Where an object stands.
    #[must_use]
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key.replace('/', "%"))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each object is written once: its length tells it from others of its name.
    #[must_use]
    pub fn tag(length: u64) -> String {
        format!("{length:x}")
    }

    fn read(&self, key: &str, tag: Option<&str>, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.seen().usage.object_reads += 1;
        let Ok(file) = File::open(self.path(key)) else { return Ok(None) };
        let length = file.metadata().map_err(broken)?.len();
        if tag.is_some_and(|tag| tag != Self::tag(length)) {
            return Ok(None);
        }
        let count = len.min(length.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
        file.read_exact_at(&mut bytes, from).map_err(broken)?;
        self.seen().usage.bytes_read += count;
        Ok(Some(bytes.into()))
    }

    fn write(&self, name: &str, body: &Bytes) -> PortResult<()> {
        let mut seen = self.seen();
        seen.usage.object_writes += 1;
        seen.usage.bytes_written += body.len() as u64;
        std::fs::write(self.path(name), body).map_err(broken)
    }

    fn reads(&self, size: u64, read: Read) {
        let units = size.max(1).div_ceil(4_096);
        self.seen().usage.half_read_units += if read == Read::Consistent { 2 * units } else { units };
    }

    fn writes(&self, item: &Item) {
        // An index is written as well.
        let entries = 1 + u64::from(item.due.is_some());
        self.seen().usage.write_units += entries * size(item).div_ceil(1_024);
    }

    /// Where the item stood in the index before, it is taken out.
    fn moves(&self, table: Table, item: &Item) {
        let moved = {
            let store = self.sim.lock();
            let before = store.tables.get(&(table, item.key.clone()));
            before.filter(|before| before.due.is_some() && before.due != item.due).map_or(0, size)
        };
        self.seen().index_moves += moved.div_ceil(1_024);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as the mapping of an error")]
fn broken(error: std::io::Error) -> PortError {
    PortError::Refused { service: "folder", reason: error.kind().to_string() }
}

/// Bytes of an item as DynamoDB counts them: names, keys, the document as text, a number's digits.
#[must_use]
pub fn size(item: &Item) -> u64 {
    let names = "pk".len() + "sk".len() + "rev".len() + "doc".len();
    let due = item.due.as_ref().map_or(0, |due| "due_pk".len() + "due_at".len() + due.pk.len() + 8);
    (names + item.key.pk.len() + item.key.sk.len() + item.doc.to_string().len() + 4 + due) as u64
}

#[async_trait]
impl Objects for Counted {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.read(key, None, 0, u64::MAX)
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.read(key, None, from, len)
    }

    async fn get_range_of(&self, key: &str, etag: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.read(key, Some(etag), from, len)
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        self.write(key, &body)
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        self.seen().usage.object_writes += 1;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let key = entry.file_name().to_string_lossy().replace('%', "/");
            let size = entry.metadata().map_err(broken)?.len();
            if key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
                found.push(ObjectInfo { key, size, etag: Self::tag(size) });
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.truncate(1_000);
        Ok(found)
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        // S3 takes nothing for it.
        std::fs::remove_file(self.path(key)).ok();
        Ok(())
    }

    async fn begin_parts(&self, _: &str) -> PortResult<String> {
        let mut seen = self.seen();
        seen.usage.object_writes += 1;
        seen.uploads += 1;
        Ok(format!("upload-{}", seen.uploads))
    }

    async fn put_part(&self, _: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        let name = format!("{upload}-{number}");
        self.write(&name, &body)?;
        Ok(name)
    }

    async fn end_parts(&self, key: &str, _: &str, tags: &[String]) -> PortResult<()> {
        self.seen().usage.object_writes += 1;
        let mut whole = File::create(self.path(key)).map_err(broken)?;
        for (place, tag) in tags.iter().enumerate() {
            let mut part = File::open(self.path(tag)).map_err(broken)?;
            let length = std::io::copy(&mut part, &mut whole).map_err(broken)?;
            // S3: every part but the last one has 5 MiB or more.
            if length < 5 << 20 && place + 1 < tags.len() {
                return Err(PortError::Refused { service: "folder", reason: "a part that is too small".to_owned() });
            }
            std::fs::remove_file(self.path(tag)).ok();
        }
        Ok(())
    }
}

#[async_trait]
impl Tables for Counted {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        let found = Tables::get(&self.sim, table, key, read).await?;
        self.reads(found.as_ref().map_or(0, size), read);
        Ok(found)
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        let found = self.sim.batch_get(table, keys, read).await?;
        found.iter().for_each(|item| self.reads(size(item), read));
        (found.len()..keys.len()).for_each(|_| self.reads(0, read));
        Ok(found)
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        self.writes(&item);
        self.moves(table, &item);
        Tables::put(&self.sim, table, item, expect).await
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        for item in &items {
            self.writes(item);
            self.moves(table, item);
        }
        self.sim.put_all(table, items).await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        match Tables::get(&self.sim, table, key, Read::Consistent).await? {
            Some(item) => self.writes(&item),
            None => self.seen().usage.write_units += 1,
        }
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
        let page = self.sim.query(table, pk, prefix, after, limit, read).await?;
        self.reads(page.items.iter().map(size).sum(), read);
        Ok(page)
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        let found = self.sim.due(table, due_pk, until, limit).await?;
        self.reads(found.iter().map(size).sum(), Read::Eventual);
        Ok(found)
    }
}

/// Processor time of this process so far, all of its threads together, in seconds; `None`: the system does not tell.
#[must_use]
pub fn processor_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        std::time::Duration::try_from(spent).ok().map(|spent| spent.as_secs_f64())
    }
    #[cfg(not(unix))]
    None
}

/// The most memory that this process has had since [`forget_peak`], in bytes; `None`: the system does not tell.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

/// From here on the peak counts anew. Returns the memory that is used now, in bytes; `None`: the system does not tell.
#[must_use]
pub fn forget_peak() -> Option<u64> {
    // 5: "reset the peak resident set size" (proc(5), /proc/pid/clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    peak_bytes()
}
