//! The same world delivered as snapshots, as increments, as a stream, and as a mixture of them in random order, late and
//! twice, ends in the same list.

use std::collections::{BTreeMap, BTreeSet};

use audience_ingest::{Counts, HttpEvent, Receiver};
use domain::limits::{DAY_MS, FUNCTION_MS};
use domain::{AudienceId, MunchkinId};
use doubles::adobe::{Export, Format, HttpApi, Info, Numbering, Outbound, RealTime, Shape, Signature, Stream};
use ports::{StreamSecrets, Table};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use scheduled_incremental_sync::{Arrival, arrived};
use serde_json::{Value, json};
use simulation::driver::settings;
use simulation::fakes::{etag, run};
use simulation::scenario::{LIST, MUNCHKIN, Scenario, active_sync, ecid, instance, token};
use state::feeds::{Feed, feed_key};
use state::syncs::{Sync, sync_key};
use state::{Settings, update};
use world::types::{Audience, Lead};

const MINUTE: u64 = 60_000;
const PLATFORM: &str = "11111111-2222-3333-4444-555555555555";
const KEY: &str = "a-key";
const TOKEN: &str = "a-token";
const PEOPLE: u64 = 6;
/// Worlds, each delivered in every way; `SEEDS=1000` plays more.
const SEEDS: u64 = 12;

/// Which system the audience is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    AudienceManager,
    Platform,
}

/// How the world is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ways {
    full: bool,
    changes: bool,
    stream: bool,
    /// The stream loses a part of its messages; the last full file comes after all of them.
    loss: bool,
}

/// Something on its way from Adobe.
#[derive(Debug, Clone)]
enum Item {
    File(String, Vec<u8>),
    Request(HttpEvent),
}

struct Delivered {
    scenario: Scenario,
    system: System,
    rng: SmallRng,
    receiver: Receiver,
    /// By the time at which it arrives.
    under_way: BTreeMap<u64, Vec<Item>>,
    stories: Vec<String>,
}

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("valid")
}

impl Delivered {
    fn new(system: System, seed: u64) -> Self {
        // People with a browser each; the first two have another one.
        let lead = |id: u64| Lead {
            id,
            email: (id != 6).then(|| format!("p{id}@example.com")),
            cookies: vec![token(id)],
            ecids: Vec::new(),
        };
        let data = instance((1..=PEOPLE).map(lead).collect(), BTreeSet::new());
        let mut scenario = Scenario::with(seed, SmallRng::seed_from_u64(seed), data);
        for n in 1..=PEOPLE {
            scenario.see(n, n);
        }
        scenario.see(7, 1);
        scenario.see(8, 2);
        let audience = match system {
            System::AudienceManager => AudienceId::aam(101),
            System::Platform => AudienceId::aep(PLATFORM).expect("a UUID"),
        };
        {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.adobe.add_audience(now, Audience { id: PLATFORM.into(), name: "Platform".into(), external: false });
            for profile in 1..=PEOPLE {
                store.adobe.add_ecid(now, profile, &ecid(profile));
            }
            let feeds = json!({"feeds": {"web": {"keys": [KEY]}, "live": {"tokens": [TOKEN]}}});
            store.streams = Some(StreamSecrets::parse(&feeds.to_string()).expect("secrets"));
        }
        let deps = scenario.driver.deps();
        let declare = |id: &str, mut feed: Value| {
            feed["id"] = json!(id);
            let feed: Feed = serde_json::from_value(feed).expect("a feed");
            let change = |_: Option<Feed>| Ok((Some(feed.clone()), ()));
            run(update(&deps, Table::Syncs, &feed_key(&munchkin(), id), change, |_| None)).expect("a table");
        };
        declare("default", json!({"snapshots": true, "completeness": "info"}));
        declare("daily", json!({"kind": "aep-files", "full": true, "snapshots": true, "completeness": "manifest"}));
        declare("often", json!({"kind": "aep-files", "full": false}));
        declare("web", json!({"kind": "aam-stream", "ecid_field": "AAM_UUID"}));
        declare("live", json!({"kind": "aep-stream"}));
        let sync = active_sync(&munchkin(), audience, LIST, false);
        let change = |_: Option<Sync>| Ok((Some(sync.clone()), ()));
        run(update(&deps, Table::Syncs, &sync_key(&munchkin(), &sync.id), change, |_| None)).expect("a table");
        let receiver = run(Receiver::begin(deps));
        let rng = SmallRng::seed_from_u64(seed ^ 0xd1ff);
        Self { scenario, system, rng, receiver, under_way: BTreeMap::new(), stories: Vec::new() }
    }

    fn now(&self) -> u64 {
        self.scenario.driver.sim.lock().now
    }

    /// Lets time pass until a moment, in which what is under way arrives.
    fn until(&mut self, moment: u64) {
        while let Some((at, items)) = self.under_way.pop_first() {
            if at > moment {
                self.under_way.insert(at, items);
                break;
            }
            let now = self.now();
            self.scenario.driver.run_for(at.saturating_sub(now));
            for item in items {
                self.arrive(item);
            }
        }
        let now = self.now();
        self.scenario.driver.run_for(moment.saturating_sub(now));
    }

    fn arrive(&mut self, item: Item) {
        match item {
            Item::File(path, body) => {
                self.stories.push(format!("{} file {path}", self.now()));
                let arrival = Arrival { key: format!("incoming/{path}"), etag: etag(&body) };
                self.scenario.driver.sim.lock().objects.insert(arrival.key.clone(), body.into());
                // Whoever reads a set that is folded meanwhile gets the notice once more.
                let taken = (0..3).any(|_| {
                    let (deps, arrival) = (self.scenario.driver.deps(), arrival.clone());
                    let name = format!("{path} {}", deps.fresh_id());
                    let work = async move { arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await };
                    self.scenario.driver.start(&name, work);
                    while self.scenario.driver.is_running(&name) {
                        if !self.scenario.driver.step() {
                            self.scenario.driver.leap();
                        }
                    }
                    self.scenario.driver.finished(&name)
                });
                assert!(taken, "{path} was not taken in");
            }
            Item::Request(request) => {
                let body = String::from_utf8_lossy(&request.body).into_owned();
                self.stories.push(format!("{} request {} {body}", self.now(), request.path));
                let answer = run(self.receiver.request(&request, &Counts::default()));
                assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            }
        }
    }

    /// Sends something on its way: it takes some time, and perhaps comes once more.
    fn send(&mut self, item: &Item, lost: bool) {
        let now = self.now();
        let copies = if lost { 0 } else { 1 + usize::from(self.rng.random_bool(0.3)) };
        for _ in 0..copies {
            let at = now + self.rng.random_range(0..8 * MINUTE);
            self.under_way.entry(at).or_default().push(item.clone());
        }
    }

    fn send_files(&mut self, full: bool) {
        let rng = &mut self.rng;
        let shape = match self.system {
            System::AudienceManager => Shape::AudienceManager(Outbound {
                full,
                parts: rng.random_range(1..=3),
                numbering: [Numbering::FirstNone, Numbering::FromOne, Numbering::Hyphen][rng.random_range(0..3)],
                info: if full { [Info::Strict, Info::Unquoted][rng.random_range(0..2)] } else { Info::None },
                gzip: rng.random_bool(0.5),
                header: rng.random_bool(0.3),
                crlf: rng.random_bool(0.3),
                mapped: Some(BTreeSet::from([101])),
                ..Outbound::default()
            }),
            System::Platform => Shape::Platform(Export {
                destination: if full { "daily".into() } else { "often".into() },
                audiences: Some(BTreeSet::from([PLATFORM.to_owned()])),
                full,
                format: [Format::Csv, Format::JsonLines, Format::JsonArray][rng.random_range(0..3)],
                quotes: rng.random_bool(0.3),
                rows_per_file: rng.random_range(2..5),
                gzip: rng.random_bool(0.5),
                manifest: full,
                ..Export::default()
            }),
        };
        let now = self.now();
        let files = self.scenario.driver.sim.lock().adobe.files(now, &shape);
        let folder = match (self.system, full) {
            (System::AudienceManager, _) => "",
            (System::Platform, true) => "daily/",
            (System::Platform, false) => "often/",
        };
        let mut files: Vec<Item> =
            files.into_iter().map(|(name, body)| Item::File(format!("{folder}{name}"), body)).collect();
        files.shuffle(&mut self.rng);
        for file in files {
            self.send(&file, false);
        }
    }

    fn send_events(&mut self, loss: bool) {
        let rng = &mut self.rng;
        let (path, stream) = match self.system {
            System::AudienceManager => {
                let signature = Signature {
                    header: "x-signature".into(),
                    key: KEY.into(),
                    algorithm: doubles::adobe::Algorithm::Sha256,
                };
                let stream = RealTime {
                    mapped: Some(BTreeSet::from([101])),
                    users: rng.random_range(1..4),
                    numbers: rng.random_bool(0.5),
                    signature: Some(signature),
                    ..RealTime::default()
                };
                ("/feeds/web/events", Stream::AudienceManager(stream))
            }
            System::Platform => {
                let stream = HttpApi {
                    audiences: Some(BTreeSet::from([PLATFORM.to_owned()])),
                    profiles: rng.random_range(1..4),
                    array: rng.random_bool(0.5),
                    upper_namespace: rng.random_bool(0.5),
                    offset: rng.random_bool(0.5),
                    names: true,
                    token: Some(TOKEN.into()),
                    ..HttpApi::default()
                };
                ("/feeds/live/events", Stream::Platform(stream))
            }
        };
        let now = self.now();
        let messages = self.scenario.driver.sim.lock().adobe.events(now, &stream);
        for message in messages {
            let request = HttpEvent {
                method: "POST".into(),
                path: path.into(),
                headers: message.headers,
                body: message.body,
                ..HttpEvent::default()
            };
            let lost = loss && self.rng.random_bool(0.3);
            self.send(&Item::Request(request), lost);
        }
    }

    /// Something changes at Adobe.
    fn change(&mut self) {
        let (who, member) = (self.rng.random_range(1..=PEOPLE), self.rng.random_bool(0.6));
        let other = self.rng.random_bool(0.15);
        let mut store = self.scenario.driver.sim.lock();
        let now = store.now;
        match self.system {
            System::AudienceManager => {
                let n = if other { 6 + who.min(2) } else { who };
                store.adobe.set_member_at(now, 101, &ecid(n), member);
            }
            // A person's other browser becomes known.
            System::Platform if other => {
                let who = who.min(2);
                store.adobe.add_ecid(now, who, &ecid(6 + who));
            }
            System::Platform => {
                store.adobe.set_profile(now, who, PLATFORM, member);
            }
        }
    }

    fn truth(&self) -> BTreeSet<u64> {
        let store = self.scenario.driver.sim.lock();
        let members = match self.system {
            System::AudienceManager => store.adobe.members(101),
            System::Platform => store.adobe.audience_members(PLATFORM),
        };
        let owner = |text: &String| text.parse::<u64>().ok().map(|n| if n > PEOPLE { n - PEOPLE } else { n });
        // The sixth is not known.
        members.iter().filter_map(owner).filter(|owner| *owner != 6).collect()
    }

    fn list(&self) -> BTreeSet<u64> {
        self.scenario.driver.sim.lock().marketo.members(LIST).cloned().unwrap_or_default()
    }
}

/// Plays a world and returns what differs, if anything does.
fn play(system: System, ways: Ways, seed: u64) -> Result<BTreeSet<u64>, String> {
    let mut world = Delivered::new(system, seed);
    // Facts as rows, as runs, or as both; and folded while nothing is so late, or never.
    let run_above = [usize::MAX, 0, 1][(seed % 3) as usize];
    let fold_after_ms = [40 * MINUTE, 8 * DAY_MS][(seed / 3 % 2) as usize];
    world.scenario.driver.set(Settings { run_above, fold_after_ms, ..settings() });
    let begin = world.now() / MINUTE * MINUTE + MINUTE;
    world.until(begin);
    // The timeline of changes is the same whatever the way of delivery: it has a chance of its own.
    let mut chances = SmallRng::seed_from_u64(seed ^ 0x71e);
    for step in 0..24u64 {
        let moment = begin + step * 10 * MINUTE + chances.random_range(0..MINUTE) / 1_000 * 1_000;
        world.until(moment);
        let kept = std::mem::replace(&mut world.rng, SmallRng::seed_from_u64(chances.random()));
        world.change();
        world.rng = kept;
        if ways.stream {
            world.send_events(ways.loss);
        }
        if step % 6 == 5 {
            world.until(moment + 2 * MINUTE);
            if ways.changes {
                world.send_files(false);
            }
            // Nothing bears the same time.
            world.until(moment + 3 * MINUTE);
            if ways.full {
                world.send_files(true);
            }
        }
    }
    let end = begin + 300 * MINUTE;
    world.until(end);
    if ways.loss {
        world.send_files(true);
    }
    world.until(end + 30 * MINUTE);
    world.scenario.driver.settle(6 * 60 * MINUTE)?;
    let (truth, list) = (world.truth(), world.list());
    if truth == list {
        return Ok(list);
    }
    Err(format!(
        "{system:?} {ways:?} seed {seed}: at Adobe {truth:?}, in the list {list:?}\n{}\n{}",
        world.stories.join("\n"),
        world.scenario.story()
    ))
}

const SNAPSHOTS: Ways = Ways { full: true, changes: false, stream: false, loss: false };
const INCREMENTS: Ways = Ways { full: false, changes: true, stream: false, loss: false };
const STREAM: Ways = Ways { full: false, changes: false, stream: true, loss: false };
const MIXTURE: Ways = Ways { full: true, changes: true, stream: true, loss: false };
const LOSSES: Ways = Ways { full: true, changes: true, stream: true, loss: true };

fn all_the_same(system: System, ways: &[Ways]) {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let lists: Vec<BTreeSet<u64>> =
            ways.iter().map(|ways| play(system, *ways, seed).unwrap_or_else(|fault| panic!("{fault}"))).collect();
        assert!(lists.windows(2).all(|two| two[0] == two[1]), "{system:?} seed {seed}: {lists:?}");
    }
}

#[test]
fn audience_managers_world_ends_in_the_same_list_however_it_is_delivered() {
    all_the_same(System::AudienceManager, &[SNAPSHOTS, INCREMENTS, STREAM, MIXTURE, LOSSES]);
}

#[test]
fn experience_platforms_world_ends_in_the_same_list_however_it_is_delivered() {
    // Increments alone never tell a new ECID of an old member: the holes that the daily full file closes.
    all_the_same(System::Platform, &[SNAPSHOTS, STREAM, MIXTURE, LOSSES]);
}

#[test]
fn the_holes_of_experience_platforms_increments_are_healed_by_a_full_file() {
    let mut world = Delivered::new(System::Platform, 1);
    let begin = world.now() / MINUTE * MINUTE;
    let set = |world: &Delivered, who: u64, member: bool| {
        let mut store = world.scenario.driver.sim.lock();
        let now = store.now;
        assert!(store.adobe.set_profile(now, who, PLATFORM, member));
    };
    let settled = |world: &mut Delivered, minutes: u64| {
        world.until(begin + minutes * MINUTE);
        world.scenario.driver.settle(6 * 60 * MINUTE).expect("rest");
        world.list()
    };
    // The first person's own browser is not matched any more in this story: only the other one is.
    set(&world, 3, true);
    set(&world, 4, true);
    world.until(begin + 2 * MINUTE);
    world.send_files(false);
    assert_eq!(settled(&mut world, 20), BTreeSet::from([3, 4]));
    // A new ECID of an old member, by which the second person is found.
    {
        let mut store = world.scenario.driver.sim.lock();
        let now = store.now;
        assert!(store.adobe.add_ecid(now, 3, &ecid(8)));
    }
    set(&world, 4, false);
    world.until(begin + 30 * MINUTE);
    world.send_files(false);
    assert_eq!(settled(&mut world, 60), BTreeSet::from([3]), "the exit is told, the new ECID is not");
    world.send_files(true);
    assert_eq!(settled(&mut world, 90), BTreeSet::from([2, 3]));
}
