//! What it costs to take in what changed of a large audience.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::base::Base;
use domain::identity::{Seen, TokenRecord};
use domain::{AudienceId, Ecid, Token};
use ports::{Expect, Queue, Table};
use scheduled_incremental_sync::{Arrival, arrived, handle};
use serde_json::Value;
use simulation::cloud::settings;
use simulation::counted::{self, Counted, Usage};
use simulation::fakes::{Sim, run};
use simulation::import::{self, munchkin};
use simulation::promise::put;
use simulation::scenario::{BEGIN, LIST, active_sync};
use state::audience::{Head, Members, head_key, replace_base};
use state::bell::{self, BellKey, Ring};
use state::edges::note;
use state::feeds::{DEFAULT_FEED, Feed, Import, ImportStatus, Kind, feed_key};
use state::identity::{ecid_to_token, lead_to_token, put_hints, save_token, token_item, tokens};
use state::lists::{Want, want_key};
use state::syncs::sync_key;
use state::{Deps, doc, load};

const MEMBERS: u64 = 1_000_000;
const HOUR: u64 = 3_600_000;
/// Calls of a day: nothing here is written to Marketo.
const QUOTA: u64 = 50_000;
/// The prices of the requests (`tests/bench/prices.json`), in dollars.
const PRICES: &str = include_str!("../../bench/prices.json");

fn ecid(n: u64) -> Ecid {
    Ecid::from_number(import::ecid(n)).expect("an ECID")
}

fn audience() -> AudienceId {
    AudienceId::aam(101)
}

struct World {
    sim: Sim,
    bucket: Arc<Counted>,
    deps: Deps,
    folder: std::path::PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl World {
    /// A large audience that a sync follows.
    fn new(name: &str) -> Self {
        Self::of(name, MEMBERS, 1)
    }

    /// Audiences of the same members, each of which a sync follows.
    fn of(name: &str, members: u64, audiences: u64) -> Self {
        let folder = std::env::temp_dir().join(format!("deltas-{name}-{}", std::process::id()));
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

/// What requests cost, in dollars.
fn dollars(usage: Usage) -> f64 {
    let prices: Value = serde_json::from_str(PRICES).expect("JSON");
    let price = |name: &str| {
        let price = &prices["prices"][name];
        price["dollars"].as_f64().expect("dollars") / price["per"].as_f64().expect("a number")
    };
    #[expect(clippy::cast_precision_loss)]
    let cost = |count: u64, name: &str| count as f64 * price(name);
    cost(usage.half_read_units, "dynamodb_read_unit") / 2.0
        + cost(usage.write_units, "dynamodb_write_unit")
        + cost(usage.object_reads, "s3_get")
        + cost(usage.object_writes, "s3_put")
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn shown(what: &str, usage: Usage) {
    println!("{what}: {usage:?}, ${:.6}", dollars(usage));
}

#[test]
fn a_hundredth_of_an_audience_changes_for_the_cost_of_a_few_objects() {
    let mut world = World::new("hundredth");
    // One in ten is known.
    world.know((0..MEMBERS / 50).chain(MEMBERS..MEMBERS + MEMBERS / 50).step_by(10));
    run(bell::mark(&world.deps, &BellKey::audience(&munchkin(), &audience()))).expect("rung");
    world.answer();
    let half = MEMBERS / 200;
    for day in 0..3 {
        world.sim.lock().now += 24 * HOUR;
        let used = world.changes(MEMBERS + day * half..MEMBERS + (day + 1) * half, day * half..(day + 1) * half);
        shown("a hundredth", used);
        assert_eq!(world.head().runs.len() as u64, day + 1);
        assert!(used.write_units <= 60 && used.half_read_units <= 2 * 120, "{used:?}");
        assert!(used.object_reads + used.object_writes <= 40, "{used:?}");
        // Ten times as many: what is written is as many rows, and what is read at most ten times as many pieces.
        let ten = Usage { object_reads: 10 * used.object_reads, object_writes: 10 * used.object_writes, ..used };
        assert!(dollars(ten) < 0.02, "${}", dollars(ten));
    }
    assert_eq!(world.members(), MEMBERS);
    assert_eq!(world.wanted(), MEMBERS / 500);
}

#[test]
fn a_hundred_changes_of_a_large_audience_cost_what_a_hundred_changes_cost() {
    let mut world = World::new("hundred");
    // Fifty who leave, and fifty who come.
    world.know((0..50).chain(2 * MEMBERS..2 * MEMBERS + 50));
    run(bell::mark(&world.deps, &BellKey::audience(&munchkin(), &audience()))).expect("rung");
    world.answer();
    assert_eq!(world.wanted(), 50);
    // Facts of before stand in runs.
    for day in 0..2 {
        world.sim.lock().now += 24 * HOUR;
        let from = MEMBERS + day * 1_001;
        world.changes(from..from + 1_001, std::iter::empty());
    }
    assert_eq!(world.head().runs.len(), 2);
    world.sim.lock().now += 24 * HOUR;
    let used = world.changes(2 * MEMBERS..2 * MEMBERS + 50, 0..50);
    shown("a hundred", used);
    assert_eq!(world.head().runs.len(), 2, "so few are rows");
    assert_eq!(world.wanted(), 50);
    let found: BTreeSet<Ecid> = (0..50).chain(2 * MEMBERS..2 * MEMBERS + 50).map(ecid).collect();
    let munchkin = munchkin();
    let members = run(Members::open(&world.deps, &munchkin, &audience())).expect("open").expect("delivered");
    assert_eq!(run(members.which(&found)).expect("read"), (2 * MEMBERS..2 * MEMBERS + 50).map(ecid).collect());
    // Bar P4 of the design.
    assert!(used.half_read_units <= 2 * 500 && used.write_units <= 500, "{used:?}");
    assert!(used.object_reads + used.object_writes <= 150, "{used:?}");
}

/// What is used from when somebody's token is written as theirs until every audience wants them.
fn newly_known(members: u64, audiences: u64) -> Usage {
    let mut world = World::of(&format!("known-{members}-{audiences}"), members, audiences);
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
    shown(&format!("one who becomes known, {audiences} audiences of {members}"), used);
    assert_eq!(world.wanted(), 3);
    used
}

#[test]
fn somebody_who_becomes_known_costs_reads_by_the_number_of_syncs_and_not_by_their_size() {
    let reads = |used: Usage| used.half_read_units + used.object_reads;
    let [small, large, ten, twenty] = [(10_000, 1), (MEMBERS, 1), (10_000, 10), (10_000, 20)]
        .map(|(members, audiences)| newly_known(members, audiences));
    // Of a large audience its fences are read, and one block.
    assert!(reads(large) <= reads(small) + 4, "{small:?} {large:?}");
    assert_eq!(large.write_units, small.write_units);
    let (ninth, tenth) = ((reads(ten) - reads(small)) / 9, (reads(twenty) - reads(ten)) / 10);
    // Each audience reads which syncs there are, a unit for some six of them, once to be told and once to tell the lists.
    assert!(tenth <= ninth + 10, "{ninth} and then {tenth} for each audience more");
}
