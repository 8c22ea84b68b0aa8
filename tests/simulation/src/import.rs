//! Files of any size from `incoming/` to the audiences: the real handler, over ports that count.
//!
//! Audience Manager's files, compressed, with so many ECIDs that are each in all segments: a full one of audiences that nobody
//! has delivered before, the full one of the day after, and then one of what changed.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use domain::{AudienceId, Ecid, MunchkinId};
use flate2::Compression;
use flate2::write::GzEncoder;
use ports::Table;
use scheduled_incremental_sync::{Arrival, arrived};
use serde::{Deserialize, Serialize};
use state::audience::{Head, Members, head_key};
use state::feeds::{DEFAULT_FEED, Feed, Import, ImportStatus, Kind, feed_key};
use state::{Deps, Settings, load};

use crate::cloud::settings;
use crate::counted::{self, Counted, Usage, forget_peak, peak_bytes, processor_seconds};
use crate::fakes::{Sim, run};
use crate::promise::{QUOTA, put};
use crate::scenario::{BEGIN, MUNCHKIN};

/// Any seed would do; this one is always the same.
const SEED: u64 = 7;
const DAY_MS: u64 = 86_400_000;
/// Entries that stand in memory at once, as the functions are deployed (`lambda::deps`).
pub const ENTRIES_AT_ONCE: u64 = 32 << 20;
/// Bytes of memory that one membership may take (issue 7), beside what does not depend on the file.
pub const BYTES_A_MEMBERSHIP: u64 = 16;
/// Bytes that do not depend on the file: pieces of it and of what is written. Ours.
pub const CONSTANT_BYTES: u64 = 96 << 20;

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// ECIDs of each file.
    pub ecids: u64,
    /// Segments that each of them is in.
    pub segments: u64,
    /// Of a hundred ECIDs so many are others than in the full file before.
    pub churn_percent: u64,
    /// ECIDs of the file of what changed: half of them have left, the others have come.
    pub changes: u64,
    /// Entries of a delivery that stand in memory at once.
    pub at_once: u64,
}

/// A file of the world, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// A full file of audiences that nobody has delivered before.
    First,
    /// The full file of the day after.
    Again,
    /// What changed since, a day later.
    Changes,
}

impl Delivery {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::First, Self::Again, Self::Changes];
}

/// What was counted of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What was imported.
    #[serde(flatten)]
    pub plan: Plan,
    /// Which file.
    pub delivery: Delivery,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Memberships that it holds.
    pub memberships: u64,
    /// Invocations that it took.
    pub slices: u64,
    /// What was used.
    pub usage: Usage,
}

/// What was measured of one file. Without figures where the system tells none (it is not Linux).
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// What was counted.
    pub counts: Counts,
    /// Processor time, in seconds.
    pub seconds: Option<f64>,
    /// The most memory beyond what stood before, in bytes.
    pub bytes: Option<u64>,
}

impl Measured {
    /// The most bytes that it may take.
    #[must_use]
    pub const fn bytes_allowed(&self) -> u64 {
        let Counts { plan, memberships, .. } = self.counts;
        let at_once = if memberships < plan.at_once { memberships } else { plan.at_once };
        CONSTANT_BYTES + BYTES_A_MEMBERSHIP * at_once
    }
}

/// Takes in the files, one after the other.
///
/// # Panics
/// If a file is not taken in whole, or its audiences then have other members.
#[must_use]
pub fn measure(plan: Plan) -> Vec<Measured> {
    let folder = std::env::temp_dir().join(format!(
        "import-{}-{}",
        std::process::id(),
        plan.ecids * plan.segments * plan.at_once
    ));
    std::fs::create_dir_all(&folder).expect("a folder for the bucket");
    let sim = world(plan.segments);
    let bucket = Counted::new(sim.clone(), folder.clone());
    let settings = Settings { entries_at_once: plan.at_once, ..settings(QUOTA) };
    let deps = Deps::new(bucket.ports(), settings);
    let measured = Delivery::ALL.map(|delivery| file(&deps, &bucket, &sim, plan, delivery)).to_vec();
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    measured
}

/// A world with so many segments, and a subscription with the feed of its files.
#[must_use]
pub fn world(segments: u64) -> Sim {
    let sim = counted::world(SEED, 1..=segments);
    let feed = Feed { snapshots: true, ..Feed::new(DEFAULT_FEED, Kind::AamFiles) };
    put(&sim, Table::Syncs, feed_key(&munchkin(), DEFAULT_FEED), &feed);
    sim
}

/// The subscription.
///
/// # Panics
/// Never: the id is one.
#[must_use]
pub fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("a Munchkin id")
}

fn file(deps: &Deps, bucket: &Counted, sim: &Sim, plan: Plan, delivery: Delivery) -> Measured {
    let time = BEGIN + DAY_MS * delivery as u64;
    sim.lock().now = time;
    let mode = if delivery == Delivery::Changes { "iter" } else { "full" };
    let key = format!("incoming/S3_1_2_{mode}_{time}.sync.gz");
    let path = bucket.path(&key);
    let (left, come) = plan.changed();
    let file_bytes = match delivery {
        Delivery::First => write(&path, plan, 0),
        Delivery::Again => write(&path, plan, plan.churned()),
        Delivery::Changes => write_lines(&path, plan, left, come),
    };
    let arrival = Arrival { key, etag: Counted::tag(file_bytes) };
    let before = forget_peak();
    let (began, used) = (processor_seconds(), bucket.usage());
    let mut slices = 0;
    let record = loop {
        slices += 1;
        run(arrived(deps, &arrival, deps.now() + 120_000)).expect("taken in");
        let record = record(sim);
        if matches!(record.status, ImportStatus::Done | ImportStatus::Refused) {
            break record;
        }
        assert!(slices < 1_000, "the file is never taken in");
    };
    let usage = bucket.usage().since(used);
    let seconds = processor_seconds().zip(began).map(|(ended, began)| ended - began);
    let bytes = peak_bytes().zip(before).map(|(peak, before)| peak.saturating_sub(before));
    assert_eq!((record.status, record.rejected), (ImportStatus::Done, 0), "{:?}", record.why);
    (1..=plan.segments).for_each(|sid| run(look(deps, plan, delivery, sid)));
    let memberships = record.taken.values().sum();
    Measured { counts: Counts { plan, delivery, file_bytes, memberships, slices, usage }, seconds, bytes }
}

/// Whether a segment has the members that it should have.
async fn look(deps: &Deps, plan: Plan, delivery: Delivery, sid: u64) {
    let (munchkin, audience) = (munchkin(), AudienceId::aam(sid));
    let head = load::<Head>(deps, Table::Audiences, &head_key(&munchkin, &audience)).await.expect("read");
    let base = head.expect("a head").value.base.expect("a base");
    assert_eq!(base.count, plan.ecids, "members of segment {sid}");
    if delivery == Delivery::Changes {
        let members = Members::open(deps, &munchkin, &audience).await.expect("read").expect("an audience");
        let of =
            |numbers: Range<u64>| numbers.map(|number| Ecid::from_number(ecid(number)).expect("an ECID")).collect();
        let (left, come) = plan.changed();
        let (left, come): (BTreeSet<Ecid>, BTreeSet<Ecid>) = (of(left), of(come));
        let inside = members.which(&left.union(&come).copied().collect()).await.expect("read");
        assert_eq!(inside, come.into_iter().collect(), "who came to segment {sid} and who left it");
    }
}

/// The latest record of a file.
fn record(sim: &Sim) -> Import {
    let store = sim.lock();
    let rows = store.tables.iter().filter(|((table, key), _)| *table == Table::Syncs && key.sk.starts_with("import/"));
    let all = rows.map(|(_, item)| serde_json::from_value::<Import>(item.doc.clone()).expect("an import"));
    all.max_by_key(|import| import.started_at).expect("a record")
}

impl Plan {
    /// The first ECID of the second full file, by number.
    const fn churned(self) -> u64 {
        self.ecids * self.churn_percent / 100
    }

    /// Those who have left since that file, and those who have come.
    const fn changed(self) -> (Range<u64>, Range<u64>) {
        let (first, end) = (self.churned(), self.churned() + self.ecids);
        let left = if self.changes / 2 < self.ecids { self.changes / 2 } else { self.ecids };
        (first..first + left, end..end + self.changes - left)
    }
}

/// Writes a full file, whose ECIDs are those from a number on. Returns its bytes.
///
/// # Panics
/// If it cannot be written.
#[must_use]
pub fn write(path: &Path, plan: Plan, first: u64) -> u64 {
    write_lines(path, plan, 0..0, first..first + plan.ecids)
}

/// Writes who has left all segments, and then who is in all of them.
fn write_lines(path: &Path, plan: Plan, left: Range<u64>, inside: Range<u64>) -> u64 {
    let out = std::fs::File::create(path).expect("the file");
    let mut out = GzEncoder::new(BufWriter::new(out), Compression::fast());
    let segments: Vec<String> = (1..=plan.segments).map(|sid| sid.to_string()).collect();
    let segments = segments.join(",");
    for number in left {
        writeln!(out, "{:038}\t\t{segments}", ecid(number)).expect("written");
    }
    for number in inside {
        writeln!(out, "{:038}\t{segments}\t", ecid(number)).expect("written");
    }
    out.finish().and_then(|mut out| out.flush()).expect("written");
    std::fs::metadata(path).expect("the file").len()
}

/// The ECID of a number. ECIDs look like chance.
#[must_use]
pub fn ecid(number: u64) -> u128 {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^= state >> 31;
        u128::from(state)
    };
    (next() << 64 | next()) % 10_u128.pow(38)
}
