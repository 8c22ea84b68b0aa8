//! What it costs to take in what changed of an audience of any size (design, bar P4): the real handlers, over ports that count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::base::Base;
use domain::identity::{Seen, TokenRecord};
use domain::{AudienceId, Ecid, Token};
use ports::{Expect, Queue, Table};
use scheduled_incremental_sync::{Arrival, arrived, handle};
use serde::{Deserialize, Serialize};
use state::audience::{Head, Members, head_key, replace_base};
use state::bell::{self, BellKey, Ring};
use state::edges::note;
use state::feeds::{DEFAULT_FEED, Feed, Import, ImportStatus, Kind, feed_key};
use state::identity::{ecid_to_token, lead_to_token, put_hints, save_token, token_item, tokens};
use state::lists::{Want, want_key};
use state::syncs::sync_key;
use state::{Deps, doc, load};

use crate::cloud::settings;
use crate::counted::{self, Counted, Usage};
use crate::fakes::{Sim, run};
use crate::import::{self, munchkin};
use crate::promise::{QUOTA, put};
use crate::scenario::{BEGIN, LIST, active_sync};

const HOUR: u64 = 3_600_000;
/// The world of the bar has so many ECIDs that change.
pub const HUNDRED: u64 = 100;
/// Facts of a delivery of before, each: just so many that they are kept as a set.
const RUN: u64 = 1_001;

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Fifty known people leave, and fifty come, each with one browser; files of before are kept beside the snapshot.
    Hundred,
    /// One ECID of a hundred is another one; one in ten of them is of a known person.
    Hundredth,
    /// Somebody becomes known, with one browser.
    Known,
}

/// What was counted: the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What changed.
    pub change: Change,
    /// ECIDs of the audience.
    pub members: u64,
    /// Audiences of these members; each has a sync.
    pub audiences: u64,
    /// What was used, from the file or from when the person is known until every audience wants whom it should.
    pub usage: Usage,
}

impl Counts {
    /// Whether design's bar P4 holds: at most 500 read units, 500 write units and 150 requests to S3 for a hundred changes.
    #[must_use]
    pub const fn is_within_bar(&self) -> bool {
        let Usage { half_read_units, write_units, object_reads, object_writes, .. } = self.usage;
        half_read_units <= 2 * 500 && write_units <= 500 && object_reads + object_writes <= 150
    }
}

/// Measures a change of an audience of so many members.
///
/// # Panics
/// If anything fails, or other people are wanted than should be; for fewer than 10,000 members.
#[must_use]
pub fn measure(change: Change, members: u64, audiences: u64) -> Counts {
    assert!(members >= 10_000, "an audience of {members}");
    let usage = match change {
        Change::Hundred => hundred(members),
        Change::Hundredth => hundredth(members),
        Change::Known => newly_known(members, audiences),
    };
    Counts { change, members, audiences, usage }
}

fn hundred(members: u64) -> Usage {
    let mut world = World::of(members, 1);
    let half = HUNDRED / 2;
    world.know((0..half).chain(2 * members..2 * members + half));
    run(bell::mark(&world.deps, &BellKey::audience(&munchkin(), &audience()))).expect("rung");
    world.answer();
    assert_eq!(world.wanted(), half);
    // Facts of before stand in sets of their own.
    for day in 0..2 {
        world.sim.lock().now += 24 * HOUR;
        let from = members + day * RUN;
        world.changes(from..from + RUN, std::iter::empty());
    }
    assert_eq!(world.head().runs.len(), 2);
    world.sim.lock().now += 24 * HOUR;
    let used = world.changes(2 * members..2 * members + half, 0..half);
    assert_eq!(world.head().runs.len(), 2, "so few are rows");
    assert_eq!(world.wanted(), half);
    let found: BTreeSet<Ecid> = (0..half).chain(2 * members..2 * members + half).map(ecid).collect();
    let munchkin = munchkin();
    let open = run(Members::open(&world.deps, &munchkin, &audience())).expect("open").expect("delivered");
    assert_eq!(run(open.which(&found)).expect("read"), (2 * members..2 * members + half).map(ecid).collect());
    used
}

fn hundredth(members: u64) -> Usage {
    let mut world = World::of(members, 1);
    world.know((0..members / 50).chain(members..members + members / 50).step_by(10));
    run(bell::mark(&world.deps, &BellKey::audience(&munchkin(), &audience()))).expect("rung");
    world.answer();
    let half = members / 200;
    let mut used = Usage::default();
    // The third is counted: those of before stand beside the snapshot.
    for day in 0..3 {
        world.sim.lock().now += 24 * HOUR;
        used = world.changes(members + day * half..members + (day + 1) * half, day * half..(day + 1) * half);
    }
    assert_eq!(world.members(), members);
    assert_eq!(world.wanted(), members / 500);
    used
}

/// What is used from when somebody's token is written as theirs until every audience wants them.
fn newly_known(members: u64, audiences: u64) -> Usage {
    let mut world = World::of(members, audiences);
    world.know([1, 2]);
    world.answer();
    assert_eq!(world.wanted(), 2);
    world.sim.lock().now += HOUR;
    run(bell::mark(&world.deps, &BellKey::identity(&munchkin()))).expect("rung");
    world.answer();
    // Somebody of whom nobody knew.
    world.know([3]);
    let token = Token::parse(&format!("_mch-example.com-{}-1", 1_700_000_000_003_u64)).expect("a token");
    let found = run(tokens(&world.deps, &munchkin(), [&token])).expect("read").pop().expect("a token");
    let record = TokenRecord { unpropagated: true, ..found.value };
    let noted = run(note(&world.deps, &munchkin(), [&token], [])).expect("noted");
    assert!(run(save_token(&world.deps, &munchkin(), &record, Some(found.rev), &noted)).expect("written"));
    world.deps = Deps::new(world.bucket.ports(), (*world.deps.settings).clone());
    let begun = world.bucket.usage();
    run(bell::mark(&world.deps, &BellKey::identity(&munchkin()))).expect("rung");
    world.answer();
    let used = world.bucket.usage().since(begun);
    assert_eq!(world.wanted(), 3);
    used
}

fn ecid(n: u64) -> Ecid {
    Ecid::from_number(import::ecid(n)).expect("an ECID")
}

fn audience() -> AudienceId {
    AudienceId::aam(101)
}

/// Worlds of this process so far.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Audiences that syncs follow, over ports that count.
struct World {
    sim: Sim,
    bucket: Arc<Counted>,
    deps: Deps,
    folder: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl World {
    /// Audiences of the same members, each of which a sync follows.
    fn of(members: u64, audiences: u64) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("deltas-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the bucket");
        let sim = counted::world(1, 101..101 + audiences);
        let feed = Feed { snapshots: true, ..Feed::new(DEFAULT_FEED, Kind::AamFiles) };
        put(&sim, Table::Syncs, feed_key(&munchkin(), DEFAULT_FEED), &feed);
        let bucket = Counted::new(sim.clone(), folder.clone());
        let deps = Deps::new(bucket.ports(), settings(QUOTA));
        let world = Self { sim, bucket, deps, folder };
        let base = Base::new((0..members).map(ecid), BEGIN - HOUR);
        for n in 0..audiences {
            let audience = AudienceId::aam(101 + n);
            let sync = active_sync(&munchkin(), audience.clone(), LIST + n, false);
            let munchkin = munchkin();
            put(&world.sim, Table::Syncs, sync_key(&munchkin, &sync.id), &sync);
            let replaced = replace_base(&world.deps, &munchkin, &audience, &base, BEGIN - HOUR, None);
            assert!(run(replaced).expect("written"));
            run(bell::mark(&world.deps, &BellKey::audience(&munchkin, &audience))).expect("rung");
        }
        world
    }

    /// Known people with a browser each.
    fn know(&self, browsers: impl IntoIterator<Item = u64>) {
        for n in browsers {
            let token = Token::parse(&format!("_mch-example.com-{}-1", 1_700_000_000_000 + n)).expect("a token");
            let seen = Seen { first: BEGIN - HOUR, last: BEGIN - HOUR };
            let record = TokenRecord {
                ecids: BTreeMap::from([(ecid(n), seen)]),
                lead: Some(n + 1),
                known: true,
                asked_at: Some(BEGIN - HOUR),
                asked: 1,
                ..TokenRecord::new(token.clone())
            };
            let hints = [ecid_to_token(&munchkin(), ecid(n), &token), lead_to_token(&munchkin(), n + 1, &token)];
            run(put_hints(&self.deps, hints)).expect("written");
            let item = token_item(&self.deps, &munchkin(), &record, None).expect("JSON");
            assert!(run(self.deps.ports.tables.put(Table::Identity, item, Expect::Absent)).expect("written"));
        }
    }

    /// Handles what was rung, until nothing is rung any more.
    fn answer(&self) {
        for _ in 0..100 {
            let messages = std::mem::take(&mut self.sim.lock().messages);
            let rung = messages.into_iter().filter(|message| message.queue != Queue::ListWrites);
            let rings: Vec<Ring> = rung.map(|message| serde_json::from_str(&message.body).expect("a ring")).collect();
            if rings.is_empty() {
                return;
            }
            for ring in rings {
                run(handle(&self.deps, &ring, self.deps.now() + 120_000)).expect("handled");
            }
        }
        panic!("it rings for ever");
    }

    /// A file of what changed: who came and who left. Returns what was used until nobody has anything to do any more; the
    /// process is a cold one.
    fn changes(&mut self, came: impl Iterator<Item = u64>, left: impl Iterator<Item = u64>) -> Usage {
        let time = self.deps.now();
        let key = format!("incoming/S3_1_2_iter_{time}.sync");
        let line = |n: u64, came: &str, left: &str| format!("{}\t{came}\t{left}\n", ecid(n).text());
        let text: String = came.map(|n| line(n, "101", "")).chain(left.map(|n| line(n, "", "101"))).collect();
        std::fs::write(self.bucket.path(&key), &text).expect("a file");
        let arrival = Arrival { key, etag: Counted::tag(text.len() as u64) };
        self.deps = Deps::new(self.bucket.ports(), (*self.deps.settings).clone());
        let begun = self.bucket.usage();
        run(arrived(&self.deps, &arrival, self.deps.now() + 120_000)).expect("taken in");
        self.answer();
        let used = self.bucket.usage().since(begun);
        let store = self.sim.lock();
        let imports = store.tables.iter().filter(|((_, key), _)| key.sk.starts_with("import/"));
        for (_, item) in imports {
            let import: Import = serde_json::from_value(item.doc.clone()).expect("an import");
            assert_eq!((import.status, import.rejected), (ImportStatus::Done, 0));
        }
        used
    }

    fn head(&self) -> Head {
        run(load(&self.deps, Table::Audiences, &head_key(&munchkin(), &audience())))
            .expect("read")
            .expect("a head")
            .value
    }

    fn wanted(&self) -> u64 {
        let want: Option<doc::Doc<Want>> =
            run(load(&self.deps, Table::Lists, &want_key(&munchkin(), &audience()))).expect("read");
        want.expect("somebody counted").value.count
    }

    fn members(&self) -> u64 {
        let munchkin = munchkin();
        let members = run(Members::open(&self.deps, &munchkin, &audience())).expect("open").expect("delivered");
        run(members.effective()).expect("read").len() as u64
    }
}
