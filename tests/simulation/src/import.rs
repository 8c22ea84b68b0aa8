//! Files of any size from `incoming/` to the audiences: the real handler, over ports that count.
//!
//! Audience Manager's full files, compressed, with so many ECIDs that are each in all segments. The first one is taken by
//! audiences that nobody has delivered before, the others find the one before them.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use domain::{AudienceId, MunchkinId, OrgId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use flate2::Compression;
use flate2::write::GzEncoder;
use ports::{Expect, Table};
use scheduled_incremental_sync::{Arrival, arrived};
use serde::{Deserialize, Serialize};
use state::audience::{Head, head_key};
use state::feeds::{DEFAULT_FEED, Feed, Import, ImportStatus, Kind, feed_key};
use state::syncs::{Subscription, subscription_key};
use state::{Deps, Settings, doc, load};
use world::types::{Library, MarketoData, Segment};

use crate::counted::{Counted, Usage, forget_peak, peak_bytes, processor_seconds};
use crate::driver;
use crate::fakes::{Sim, run};
use crate::scenario::{BEGIN, MUNCHKIN, ORG};

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
    /// Of a thousand ECIDs so many are others than in the file before.
    pub churn_permille: u64,
    /// Entries of a delivery that stand in memory at once.
    pub at_once: u64,
}

/// What was counted of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What was imported.
    #[serde(flatten)]
    pub plan: Plan,
    /// Whether audiences held the file before.
    pub again: bool,
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

/// Takes in a file, and then another one.
///
/// # Panics
/// If a file is not taken in whole, or its audiences then have other members.
#[must_use]
pub fn measure(plan: Plan) -> Vec<Measured> {
    let folder = std::env::temp_dir().join(format!("import-{}-{}", std::process::id(), plan.ecids * plan.at_once));
    std::fs::create_dir_all(&folder).expect("a folder for the bucket");
    let sim = world(plan.segments);
    let bucket = Counted::new(sim.clone(), folder.clone());
    let settings =
        Settings { entries_at_once: plan.at_once, slice_records: 400_000, run_above: 1_000, ..driver::settings() };
    let deps = Deps::new(bucket.ports(), settings);
    run(declare(&deps));
    let measured = (0..2).map(|day| file(&deps, &bucket, &sim, plan, day)).collect();
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    measured
}

/// An empty Marketo and as many segments at Adobe.
#[must_use]
pub fn world(segments: u64) -> Sim {
    let data = MarketoData {
        munchkin_id: MUNCHKIN.into(),
        org_id: None,
        hipaa_ready: false,
        cookie_sync: true,
        leads: Vec::new(),
        lists: Vec::new(),
    };
    let segment = |sid| Segment { sid, folder_id: 1, name: format!("Segment {sid}") };
    let library = Library { segments: (1..=segments).map(segment).collect(), ..Library::default() };
    let marketo = Marketo::new(marketo::Settings::default(), data, BEGIN);
    Sim::new(SEED, BEGIN, marketo, Adobe::new(adobe::Settings::default(), library, BEGIN))
}

/// The subscription.
///
/// # Panics
/// Never.
#[must_use]
pub fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("a Munchkin id")
}

/// Writes a subscription and its feed of full files.
///
/// # Panics
/// If they are there already.
pub async fn declare(deps: &Deps) {
    let subscription = Subscription {
        v: 1,
        munchkin_id: munchkin(),
        org_id: OrgId::parse(ORG),
        hipaa_ready: false,
        cookie_sync: true,
        extract_since: None,
        bulk_import_above: None,
        origins: Vec::new(),
        new_pairs_per_day: 1_000,
        quota_share_percent: None,
    };
    let feed = Feed { snapshots: true, ..Feed::new(DEFAULT_FEED, Kind::AamFiles) };
    let subscription = doc::item(subscription_key(&munchkin()), &subscription, None, None).expect("JSON");
    let feed = doc::item(feed_key(&munchkin(), DEFAULT_FEED), &feed, None, None).expect("JSON");
    for item in [subscription, feed] {
        assert!(deps.ports.tables.put(Table::Syncs, item, Expect::Absent).await.expect("written"));
    }
}

fn file(deps: &Deps, bucket: &Counted, sim: &Sim, plan: Plan, day: u64) -> Measured {
    sim.lock().now = BEGIN + day * DAY_MS;
    let changed = plan.ecids * plan.churn_permille / 1_000;
    let key = format!("incoming/S3_1_2_full_{}.sync.gz", BEGIN + day * DAY_MS);
    let file_bytes = write(&bucket.path(&key), plan, day * changed);
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
    for sid in 1..=plan.segments {
        let head: Head = run(load(deps, Table::Audiences, &head_key(&munchkin(), &AudienceId::aam(sid))))
            .expect("read")
            .expect("a head")
            .value;
        assert_eq!(head.base.map(|base| base.count), Some(plan.ecids), "members of segment {sid}");
    }
    let memberships = record.taken.values().sum();
    Measured { counts: Counts { plan, again: day > 0, file_bytes, memberships, slices, usage }, seconds, bytes }
}

/// The latest record of a file.
fn record(sim: &Sim) -> Import {
    let store = sim.lock();
    let rows = store.tables.iter().filter(|((table, key), _)| *table == Table::Syncs && key.sk.starts_with("import/"));
    let all = rows.map(|(_, item)| serde_json::from_value::<Import>(item.doc.clone()).expect("an import"));
    all.max_by_key(|import| import.started_at).expect("a record")
}

/// A full file: its ECIDs are those from a number on. Returns its bytes.
///
/// # Panics
/// If it cannot be written.
#[must_use]
pub fn write(path: &Path, plan: Plan, first: u64) -> u64 {
    let out = std::fs::File::create(path).expect("the file");
    let mut out = GzEncoder::new(BufWriter::new(out), Compression::fast());
    let segments: Vec<String> = (1..=plan.segments).map(|sid| sid.to_string()).collect();
    let segments = segments.join(",");
    for number in first..first + plan.ecids {
        writeln!(out, "{:038}\t{segments}\t", ecid(number)).expect("written");
    }
    out.finish().and_then(|mut out| out.flush()).expect("written");
    std::fs::metadata(path).expect("the file").len()
}

/// ECIDs look like chance.
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
