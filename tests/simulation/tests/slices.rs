//! Deliveries that take several invocations: whoever dies or runs out of time, the result is the same; and with what nobody
//! comes further waits for an operator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use domain::limits::FUNCTION_MS;
use domain::sayings::{FILE_DROPPED, TOO_LARGE_TO_COUNT, TOO_LARGE_TO_TAKE};
use domain::{AudienceId, MunchkinId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use ports::{Failure, ObjectInfo, Objects, PortError, PortResult, Ports, Table};
use scheduled_incremental_sync::{Arrival, arrived, tick};
use simulation::driver;
use simulation::fakes::{Sim, run};
use simulation::promise::{put, subscription};
use simulation::scenario::{BEGIN, MUNCHKIN, instance, library};
use state::alerts::checked_key;
use state::audience::Members;
use state::feeds::{
    Completeness, DEFAULT_FEED, Delivery, Feed, FullDelivery, Import, ImportStatus, Kind, change_delivery,
    delivery_key, feed_key, feed_state,
};
use state::syncs::subscription_key;
use state::{Deps, Settings};

const MINUTE: u64 = 60_000;
/// Segments of the library.
const SEGMENTS: [u64; 3] = [101, 102, 103];
/// A message comes again after this time.
const AGAIN_MS: u64 = driver::VISIBILITY_MS;

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("a Munchkin id")
}

/// A bucket whose pieces of files take their time, or do not come at all.
struct Slow {
    sim: Sim,
    inner: Arc<dyn Objects>,
    piece_ms: Mutex<u64>,
    is_out: Mutex<bool>,
}

impl Slow {
    fn set(&self, piece_ms: u64) {
        *self.piece_ms.lock().unwrap_or_else(PoisonError::into_inner) = piece_ms;
    }

    fn fail(&self, is_out: bool) {
        *self.is_out.lock().unwrap_or_else(PoisonError::into_inner) = is_out;
    }
}

#[async_trait]
impl Objects for Slow {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.inner.get_range(key, from, len).await
    }

    async fn get_range_of(&self, key: &str, etag: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        if *self.is_out.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(PortError::Unavailable { service: "s3", reason: "503".into() });
        }
        self.sim.lock().now += *self.piece_ms.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.get_range_of(key, etag, from, len).await
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        self.inner.put(key, body).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        self.inner.delete(key).await
    }

    async fn begin_parts(&self, key: &str) -> PortResult<String> {
        self.inner.begin_parts(key).await
    }

    async fn put_part(&self, key: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        self.inner.put_part(key, upload, number, body).await
    }

    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        self.inner.end_parts(key, upload, tags).await
    }
}

struct World {
    sim: Sim,
    bucket: Arc<Slow>,
    settings: Settings,
}

impl World {
    /// One subscription with one feed of files.
    fn new(feed: &Feed, at_once: u64) -> Self {
        let adobe = Adobe::new(adobe::Settings::default(), library(SEGMENTS), BEGIN);
        let data = instance(Vec::new(), [].into());
        let sim = Sim::new(1, BEGIN, Marketo::new(marketo::Settings::default(), data, BEGIN), adobe);
        put(&sim, Table::Syncs, subscription_key(&munchkin()), &subscription(&munchkin(), true));
        put(&sim, Table::Syncs, feed_key(&munchkin(), DEFAULT_FEED), feed);
        let inner = sim.ports().objects;
        let bucket = Slow { sim: sim.clone(), inner, piece_ms: Mutex::new(0), is_out: Mutex::new(false) };
        let settings = Settings { entries_at_once: at_once, ..driver::settings() };
        Self { sim, bucket: Arc::new(bucket), settings }
    }

    /// A cold process.
    fn deps(&self) -> Deps {
        let ports = Ports { objects: self.bucket.clone(), ..self.sim.ports() };
        Deps::new(ports, self.settings.clone())
    }

    /// A file comes into the bucket.
    fn file(&self, name: &str, body: &str) -> Arrival {
        let key = format!("incoming/{name}");
        self.sim.lock().objects.insert(key.clone(), Bytes::copy_from_slice(body.as_bytes()));
        Arrival { etag: self.sim.tag(&key), key }
    }

    /// An invocation that is told of a file.
    fn arrives(&self, arrival: &Arrival) -> Result<(), Failure> {
        let deps = self.deps();
        run(arrived(&deps, arrival, deps.now() + FUNCTION_MS))
    }

    /// An invocation that is stopped at one of its port calls. Whether it has ended before.
    fn dies(&self, arrival: &Arrival, call: u64) -> bool {
        let deps = self.deps();
        let until = self.sim.lock().calls + call;
        stopped(self, arrived(&deps, arrival, deps.now() + FUNCTION_MS), until)
    }

    /// Minute by minute, until a delivery has ended or is held. How many that were.
    fn ticks(&self) -> u64 {
        for minute in 1..=60 {
            let now = self.sim.lock().now;
            self.sim.lock().now = (now / MINUTE + 1) * MINUTE;
            let deps = self.deps();
            run(tick(&deps, deps.now() + FUNCTION_MS)).expect("a tick");
            let delivery = self.delivery();
            if delivery.taken.is_some() || (delivery.held.is_some() && delivery.decided.is_none()) {
                return minute;
            }
        }
        panic!("neither taken nor held");
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> Vec<T> {
        let store = self.sim.lock();
        let rows = store.tables.iter().filter(|((table, key), _)| *table == Table::Syncs && key.sk.starts_with(prefix));
        rows.map(|(_, item)| serde_json::from_value(item.doc.clone()).expect("a row")).collect()
    }

    /// The latest delivery.
    fn delivery(&self) -> Delivery {
        self.rows::<Delivery>("delivery/").into_iter().max_by_key(|delivery| delivery.time).expect("a delivery")
    }

    /// An operator applies the latest delivery, or drops it.
    fn decide(&self, apply: bool) {
        let (deps, delivery) = (self.deps(), self.delivery());
        let key = delivery_key(&munchkin(), DEFAULT_FEED, &delivery.id);
        let decided = change_delivery(&deps, &key, |found| {
            let found = found.as_mut().filter(|found| found.held.is_some());
            let change = |found: &mut Delivery| (found.decided, found.look_at) = (Some(apply), Some(deps.now()));
            (found.map(change).is_some(), ())
        });
        run(decided).expect("decided");
    }

    fn seen(&self) -> Seen {
        let (deps, munchkin) = (self.deps(), munchkin());
        let members = SEGMENTS.map(|sid| {
            let audience = AudienceId::aam(sid);
            let members = run(Members::open(&deps, &munchkin, &audience)).expect("read");
            let rows = members.map(|members| run(members.effective()).expect("read").rows().to_vec());
            (audience, rows)
        });
        let state = run(feed_state(&deps, &munchkin, DEFAULT_FEED)).expect("read");
        let imports = self.rows::<Import>("import/").into_iter();
        Seen {
            members: members.into(),
            full: state.full,
            named: state.named,
            imports: imports.map(|import| (import.key, (import.status, import.taken))).collect(),
        }
    }
}

/// What a delivery leaves behind.
#[derive(Debug, PartialEq)]
struct Seen {
    members: BTreeMap<AudienceId, Option<Vec<u128>>>,
    full: Vec<FullDelivery>,
    named: BTreeMap<AudienceId, u64>,
    imports: BTreeMap<String, (ImportStatus, BTreeMap<AudienceId, u64>)>,
}

/// Lets work run until so many port calls were made in all, and drops it. Whether it has ended before.
fn stopped(world: &World, work: impl Future<Output = Result<(), Failure>>, until: u64) -> bool {
    let mut work = std::pin::pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    while world.sim.lock().calls < until {
        if let Poll::Ready(ended) = work.as_mut().poll(&mut context) {
            ended.expect("nothing goes wrong");
            return true;
        }
    }
    false
}

fn ecid(n: u64) -> String {
    format!("{:038}", u128::from(n + 1) * 0x1234_5678_9ABC_DEF0_1234)
}

/// A line for each ECID that is in any segment: those of each segment from one number to another.
fn lines(ranges: &[(u64, u64, u64)]) -> String {
    let last = ranges.iter().map(|(_, _, end)| *end).max().unwrap_or(0);
    let line = |n: u64| {
        let held = ranges.iter().filter(|(_, from, end)| (*from..*end).contains(&n));
        let held: Vec<String> = held.map(|(sid, _, _)| sid.to_string()).collect();
        (!held.is_empty()).then(|| format!("{}\t{}\t\n", ecid(n), held.join(",")))
    };
    (0..last).filter_map(line).collect()
}

fn snapshots() -> Feed {
    Feed { snapshots: true, ..Feed::new(DEFAULT_FEED, Kind::AamFiles) }
}

fn full(day: u64) -> String {
    format!("S3_1_2_full_{}.sync", BEGIN + day * 86_400_000)
}

/// A world in which a delivery was taken, and another one comes: its snapshots stand beside one audience that has several parts.
fn two_days(feed: &Feed, second: &str) -> (World, Arrival) {
    let world = World::new(feed, 10);
    let first = world.file(&full(0), &lines(&[(101, 0, 8), (102, 0, 25), (103, 3, 5)]));
    world.arrives(&first).expect("taken");
    let name = if feed.snapshots { full(1) } else { full(1).replace("full", "iter") };
    let arrival = world.file(&name, second);
    (world, arrival)
}

#[test]
fn a_delivery_in_several_groups_ends_alike_wherever_its_invocation_dies() {
    let second = lines(&[(101, 2, 12), (102, 5, 32), (103, 0, 4)]);
    // What changed: one leaves.
    let changes = format!("{second}{}\t\t101,102\n", ecid(0));
    for (feed, body) in [(snapshots(), &second), (Feed::new(DEFAULT_FEED, Kind::AamFiles), &changes)] {
        let (world, arrival) = two_days(&feed, body);
        world.arrives(&arrival).expect("taken");
        let undisturbed = world.seen();
        assert!(undisturbed.imports.values().all(|(status, _)| *status == ImportStatus::Done), "{undisturbed:?}");
        let mut calls = 1;
        loop {
            let (world, arrival) = two_days(&feed, body);
            let ended = world.dies(&arrival, calls);
            world.sim.lock().now += AGAIN_MS;
            world.arrives(&arrival).expect("taken");
            assert_eq!(world.seen(), undisturbed, "died at call {calls}");
            assert_eq!(world.delivery().held, None, "died at call {calls}");
            if ended {
                break;
            }
            calls += 1;
        }
        assert!(calls > 40, "{calls} calls: there were several groups");
    }
}

/// A file of more than one piece. It names all segments.
fn large(from: u64) -> String {
    lines(&SEGMENTS.map(|sid| (sid, from, from + 165_000)))
}

/// Three files, of two pieces each, that are a delivery.
fn split(world: &World) {
    let body = large(0);
    for part in 1..=3 {
        let name = full(0).replace(".sync", &format!("-{part}.sync"));
        world.arrives(&world.file(&name, &body)).expect("waits");
    }
}

fn quiet() -> Feed {
    Feed { completeness: Completeness::QuietPeriod, quiet_minutes: 1, ..snapshots() }
}

fn count(world: &World, sid: u64) -> Option<usize> {
    world.seen().members.remove(&AudienceId::aam(sid)).flatten().map(|rows| rows.len())
}

/// Objects that hold what was counted.
fn counts(world: &World) -> usize {
    world.sim.lock().objects.keys().filter(|key| key.starts_with("sets/reading/")).count()
}

#[test]
fn counting_goes_on_where_it_was_and_a_group_has_an_invocation_of_its_own() {
    let world = World::new(&quiet(), 1 << 25);
    split(&world);
    // Six pieces: counting takes all of one invocation but a little, and so does the group.
    world.bucket.set(14_000);
    world.ticks();
    let delivery = world.delivery();
    assert_eq!((delivery.taken, delivery.turns.count), (Some(delivery.version), 2), "{delivery:?}");
    assert_eq!(SEGMENTS.map(|sid| count(&world, sid)), [Some(165_000); 3]);
    assert_eq!(counts(&world), 0, "left behind");

    // Two files in one invocation, the third in the next one: then a group takes more than an invocation has.
    let world = World::new(&quiet(), 1 << 25);
    split(&world);
    world.bucket.set(25_000);
    world.ticks();
    let delivery = world.delivery();
    let why = TOO_LARGE_TO_TAKE.with([("turns", 3.into()), ("taken", 0.into()), ("entries", 1_485_000.into())]);
    assert_eq!((delivery.held, delivery.taken, delivery.turns.count), (Some(why), None, 5));
    assert_eq!((counts(&world), count(&world, 101)), (1, None));
    assert!(world.seen().imports.values().all(|(status, _)| *status == ImportStatus::Held));
    // With more memory it is faster, and need not count again.
    world.bucket.set(14_000);
    world.decide(true);
    assert_eq!(world.ticks(), 1, "one invocation was enough");
    let delivery = world.delivery();
    assert_eq!((delivery.taken, delivery.held), (Some(delivery.version), None));
    assert_eq!(SEGMENTS.map(|sid| count(&world, sid)), [Some(165_000); 3]);
    assert!(world.seen().imports.values().all(|(status, _)| *status == ImportStatus::Done));
    assert_eq!(counts(&world), 0, "left behind");
}

#[test]
fn what_was_counted_says_nothing_once_files_are_understood_otherwise() {
    let world = World::new(&quiet(), 1 << 25);
    split(&world);
    world.bucket.set(14_000);
    let now = world.sim.lock().now;
    world.sim.lock().now = now + 2 * MINUTE;
    run(tick(&world.deps(), now + 2 * MINUTE + FUNCTION_MS)).expect("a tick");
    assert_eq!((counts(&world), world.delivery().taken), (1, None));
    // Nobody may leave an audience because it is not in the library any more.
    world.sim.lock().adobe.delete_segment(102);
    world.bucket.set(1_000);
    world.ticks();
    assert_eq!(SEGMENTS.map(|sid| count(&world, sid)), [Some(165_000), None, Some(165_000)]);
    let rejected: Vec<u64> = world.rows::<Import>("import/").iter().map(|import| import.rejected).collect();
    assert_eq!(rejected, [165_000; 3]);
}

#[test]
fn a_delivery_with_which_nobody_comes_further_waits_for_an_operator() {
    // Out of time.
    let world = World::new(&snapshots(), 1 << 25);
    world.bucket.set(115_000);
    let arrival = world.file(&full(0), &large(0));
    world.arrives(&arrival).expect("the next one goes on");
    assert_eq!(world.delivery().turns.in_vain, 1);
    assert_eq!(world.ticks(), 2);
    let why = TOO_LARGE_TO_COUNT.with([("turns", 3.into())]);
    let held = || world.delivery().held;
    assert_eq!(held(), Some(why.clone()));
    let imports = world.rows::<Import>("import/");
    assert_eq!((imports[0].status, &imports[0].why), (ImportStatus::Held, &Some(why.clone())));
    assert!(imports[0].why.as_ref().is_some_and(|why| why.sentence.starts_with("the delivery is too large: 3 inv")));
    // Applied as it is: after three more it waits again.
    world.decide(true);
    assert_eq!((world.ticks(), held()), (3, Some(why)));
    world.decide(false);
    world.ticks();
    let imports = world.rows::<Import>("import/");
    assert_eq!((imports[0].status, &imports[0].why), (ImportStatus::Refused, &Some(FILE_DROPPED.plain())));

    // Killed with all that it holds, as where memory is too small: nobody says so.
    let world = World::new(&snapshots(), 1 << 25);
    let arrival = world.file(&full(0), &large(0));
    for _ in 0..12 {
        assert!(!world.dies(&arrival, 18), "it ended");
        assert_eq!(world.delivery().held, None);
        world.sim.lock().now += AGAIN_MS;
    }
    world.arrives(&arrival).expect("set aside");
    assert!(world.delivery().held.is_some_and(|why| why.is(&TOO_LARGE_TO_COUNT)));
    let full = world.delivery();
    // Something new of the same name is another delivery.
    world.arrives(&world.file("S3_1_2_full_1767268800000.sync", "")).expect("taken");
    assert!(world.delivery().held.is_none() && world.delivery().version > full.version);
}

#[test]
fn what_cannot_be_read_now_is_not_too_large() {
    let world = World::new(&snapshots(), 1 << 25);
    world.bucket.fail(true);
    let arrival = world.file(&full(0), &lines(&[(101, 0, 9)]));
    for _ in 0..9 {
        world.arrives(&arrival).expect_err("S3 is out");
        world.sim.lock().now += AGAIN_MS;
    }
    world.bucket.fail(false);
    world.arrives(&arrival).expect("taken");
    assert_eq!((world.delivery().held, count(&world, 101)), (None, Some(9)));
}

#[test]
fn a_tick_that_dies_in_a_delivery_has_done_the_rest() {
    let world = World::new(&quiet(), 1 << 25);
    let arrival = world.file(&full(0), &large(0));
    world.arrives(&arrival).expect("waits");
    world.sim.lock().now += 2 * MINUTE;
    let checked = checked_key(&munchkin());
    let deps = world.deps();
    let until = world.sim.lock().now + FUNCTION_MS;
    let mut work = std::pin::pin!(tick(&deps, until));
    let mut context = Context::from_waker(Waker::noop());
    while world.delivery().turns.count == 0 {
        assert!(work.as_mut().poll(&mut context).is_pending(), "it ended");
    }
    assert!(world.sim.lock().tables.contains_key(&(Table::Syncs, checked)), "nobody looked for what is wrong");
}
