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
use crate::counted::{Counted, Usage, forget_peak, peak_bytes, processor_seconds, world};
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
    let sim = world(SEED, 1..=plan.segments);
    let feed = Feed { snapshots: true, ..Feed::new(DEFAULT_FEED, Kind::AamFiles) };
    put(&sim, Table::Syncs, feed_key(&munchkin(), DEFAULT_FEED), &feed);
    let bucket = Counted::new(sim.clone(), folder.clone());
    let settings = Settings { entries_at_once: plan.at_once, ..settings(QUOTA) };
    let deps = Deps::new(bucket.ports(), settings);
    let measured = Delivery::ALL.map(|delivery| file(&deps, &bucket, &sim, plan, delivery)).to_vec();
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    measured
}

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("a Munchkin id")
}

fn file(deps: &Deps, bucket: &Counted, sim: &Sim, plan: Plan, delivery: Delivery) -> Measured {
    let time = BEGIN + DAY_MS * delivery as u64;
    sim.lock().now = time;
    let mode = if delivery == Delivery::Changes { "iter" } else { "full" };
    let key = format!("incoming/S3_1_2_{mode}_{time}.sync.gz");
    let file_bytes = write(&bucket.path(&key), plan, delivery);
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
    /// The ECIDs of a full file, by number.
    const fn full(self, delivery: Delivery) -> Range<u64> {
        let first = if matches!(delivery, Delivery::First) { 0 } else { self.ecids * self.churn_percent / 100 };
        first..first + self.ecids
    }

    /// Those who have left since the last full file, and those who have come.
    const fn changed(self) -> (Range<u64>, Range<u64>) {
        let Range { start, end } = self.full(Delivery::Again);
        let left = if self.changes / 2 < self.ecids { self.changes / 2 } else { self.ecids };
        (start..start + left, end..end + self.changes - left)
    }
}

/// Writes a file. Returns its bytes.
fn write(path: &Path, plan: Plan, delivery: Delivery) -> u64 {
    let out = std::fs::File::create(path).expect("the file");
    let mut out = GzEncoder::new(BufWriter::new(out), Compression::fast());
    let segments: Vec<String> = (1..=plan.segments).map(|sid| sid.to_string()).collect();
    let segments = segments.join(",");
    let (left, come) = match delivery {
        Delivery::Changes => plan.changed(),
        Delivery::First | Delivery::Again => (0..0, plan.full(delivery)),
    };
    for number in left {
        writeln!(out, "{:038}\t\t{segments}", ecid(number)).expect("written");
    }
    for number in come {
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
