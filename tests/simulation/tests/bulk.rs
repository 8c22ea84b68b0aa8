//! Bulk import of big loads, and the comparison of whole lists by bulk extract, over the real writer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use domain::limits::{DAY_MS, FUNCTION_MS};
use domain::list::{GuardSettings, State};
use domain::report::AudienceCounts;
use domain::{AudienceId, LeadId, LeadSet, ListId, MunchkinId, OrgId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Commit, Fault, FaultAnswer, Kind, Marketo, Which};
use ports::{Http, PortResult, Queue, Table};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use simulation::driver::{Driver, VISIBILITY_MS, settings};
use simulation::fakes::{Faults, Sim, run};
use simulation::scenario::{BEGIN, MUNCHKIN, ORG, active_sync, instance};
use state::bell::{self, BellKey, Ring};
use state::lists::{AudienceReport, ListHead, OpenList, Report, Want, head_key, report_key, want_key};
use state::notes::{self, Note};
use state::syncs::{Subscription, Sync, subscription_key, sync_key};
use state::{Deps, doc};
use world::types::{Lead, Library};

const LIST: ListId = 1001;
const SYNC: &str = "00000000000003e9";
const MINUTE: u64 = 60_000;

/// A subscription with one list, which a sync writes.
struct World {
    driver: Driver,
    munchkin: MunchkinId,
    sets: u64,
}

fn audience() -> AudienceId {
    AudienceId::parse("aam:101").expect("an audience")
}

fn set(leads: impl IntoIterator<Item = LeadId>) -> LeadSet {
    leads.into_iter().collect()
}

impl World {
    /// Leads are numbered from 1.
    fn new(leads: LeadId, above: Option<u64>, ours: bool, double: marketo::Settings) -> Self {
        let lead = |id| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: Vec::new() };
        let data = instance((1..=leads).map(lead).collect(), BTreeSet::new());
        let library = Library::default();
        let sim = Sim::new(
            1,
            BEGIN,
            Marketo::new(double, data, BEGIN),
            Adobe::new(adobe::Settings::default(), library, BEGIN),
        );
        let mut driver = Driver::new(sim, settings());
        // Only the sweep comes each minute: see `minutes`.
        driver.ticking = false;
        let world = Self { driver, munchkin: MunchkinId::parse(MUNCHKIN).expect("a Munchkin id"), sets: 0 };
        let subscription = Subscription {
            v: 1,
            munchkin_id: world.munchkin.clone(),
            org_id: OrgId::parse(ORG),
            hipaa_ready: false,
            cookie_sync: true,
            extract_since: None,
            bulk_import_above: above,
            origins: Vec::new(),
            new_pairs_per_day: 1_000,
            quota_share_percent: None,
        };
        world.put(Table::Syncs, subscription_key(&world.munchkin), &subscription);
        let sync = Sync { id: SYNC.into(), ..active_sync(&world.munchkin, audience(), LIST, ours) };
        world.put(Table::Syncs, sync_key(&world.munchkin, SYNC), &sync);
        world
    }

    fn put<T: Serialize>(&self, table: Table, key: ports::Key, value: &T) {
        let mut store = self.driver.sim.lock();
        let rev = store.tables.get(&(table, key.clone())).map(|item| item.rev);
        let item = doc::item(key, value, rev, None).expect("a row");
        store.tables.insert((table, item.key.clone()), item);
    }

    fn row<T: serde::de::DeserializeOwned>(&self, key: ports::Key) -> Option<T> {
        let item = self.driver.sim.lock().tables.get(&(Table::Lists, key)).cloned()?;
        Some(doc::read(item).expect("a row").value)
    }

    fn sync(&self) -> Sync {
        let key = (Table::Syncs, sync_key(&self.munchkin, SYNC));
        doc::read(self.driver.sim.lock().tables[&key].clone()).expect("a sync").value
    }

    /// Publishes what is wanted, under a fresh key, and rings.
    fn want(&mut self, leads: &LeadSet) {
        self.sets += 1;
        let key = format!("sets/want/{}", self.sets);
        self.driver.sim.lock().objects.insert(key.clone(), leads.to_bytes().into());
        let counts = AudienceCounts { people: leads.len(), ..AudienceCounts::default() };
        let want = Want {
            v: 1,
            audience: audience(),
            key: key.clone(),
            count: leads.len(),
            pass: 1,
            report: AudienceReport { as_of: BEGIN, counts, people_key: key },
            replaced: Vec::new(),
        };
        self.put(Table::Lists, want_key(&self.munchkin, &audience()), &want);
        run(bell::mark(&self.driver.deps(), &BellKey::list(&self.munchkin, LIST))).expect("a ring");
    }

    /// Lets time pass, with a sweep each minute.
    fn minutes(&mut self, minutes: u64) {
        for _ in 0..minutes {
            let deps = self.driver.deps();
            self.driver.start("sweep", async move { bell::sweep(&deps).await.map(|_| ()) });
            self.driver.run_for(MINUTE);
        }
    }

    /// Lets time pass until something is so, at most three hours.
    fn minutes_until(&mut self, what: impl Fn(&Self) -> bool) {
        for _ in 0..180 {
            if what(self) {
                return;
            }
            self.minutes(1);
        }
        panic!("it never comes to that: {:?}", self.state());
    }

    fn state(&self) -> State {
        let head: Option<ListHead> = self.row(head_key(&self.munchkin, LIST));
        let Some(key) = head.and_then(|head| head.state_key) else { return State::default() };
        serde_json::from_slice(&self.driver.sim.lock().objects[&key]).expect("a state")
    }

    fn members(&self) -> LeadSet {
        set(self.driver.sim.lock().marketo.members(LIST).expect("the list").iter().copied())
    }

    fn inject(&self, kind: Kind, answer: FaultAnswer, commit: Commit) {
        self.driver.sim.lock().marketo.inject(Fault { kind: Some(kind), which: Which::Nth(1), answer, commit });
    }

    /// When calls of a kind were made.
    fn calls(&self, kind: Kind) -> Vec<u64> {
        let store = self.driver.sim.lock();
        store.marketo.calls().iter().filter(|call| call.kind == kind).map(|call| call.at_ms).collect()
    }

    fn how_many<const N: usize>(&self, kinds: [Kind; N]) -> [usize; N] {
        kinds.map(|kind| self.calls(kind).len())
    }

    fn nothing_was_asked_too_often(&self) {
        assert!(self.driver.sim.lock().marketo.calls().iter().all(|call| !call.early_poll));
    }

    /// The ring that waits for the writer.
    fn waiting_ring(&self) -> Option<Ring> {
        let store = self.driver.sim.lock();
        let message = store.messages.iter().find(|message| message.queue == Queue::ListWrites)?;
        Some(serde_json::from_str(&message.body).expect("a ring"))
    }

    /// Rings as the sweep does, without anybody listening yet.
    fn sweep(&self) {
        run(bell::sweep(&self.driver.deps())).expect("a sweep");
    }

    /// An invocation that dies at its n-th await; its message comes again when its visibility ends. Returns whether
    /// it had ended before.
    fn dies_at(&mut self, awaits: usize) -> bool {
        let ring = self.waiting_ring().expect("a ring");
        let deps = self.driver.deps();
        let deadline = deps.now() + FUNCTION_MS;
        let mut work = Box::pin(list_writer::handle(&deps, &ring, deadline));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..awaits {
            if let Poll::Ready(outcome) = work.as_mut().poll(&mut context) {
                outcome.expect("no faults here");
                return true;
            }
        }
        drop(work);
        let later = deps.now() + VISIBILITY_MS;
        self.driver.sim.lock().advance(later);
        false
    }
}

fn double(import_ms: u64) -> marketo::Settings {
    marketo::Settings { import_ms, ..marketo::Settings::default() }
}

/// 400 people, of whom more than 300 go by import.
fn small(import_ms: u64) -> World {
    World::new(400, Some(300), true, double(import_ms))
}

#[test]
fn a_load_of_25_000_on_our_own_list_goes_in_a_few_calls() {
    let all = set(1..=25_000);
    let mut world = World::new(25_000, Some(20_000), true, double(5 * MINUTE));
    world.want(&all);
    world.minutes_until(|world| world.state().sure.len() == 25_000);
    assert_eq!(world.members(), all);
    let [adds, imports, asked] = world.how_many([Kind::ListAdd, Kind::ImportCreate, Kind::IsMember]);
    assert_eq!((adds, imports, asked), (0, 1, 5), "one file, one look at some of the people, and the daily sample");
    assert!((2..=7).contains(&world.calls(Kind::ImportStatus).len()));
    world.nothing_was_asked_too_often();
    let state = world.state();
    assert_eq!((state.may.len(), state.import, state.failed.len()), (25_000, None, 0));
    assert!(state.loaded.contains(SYNC), "the first load is over");
}

#[test]
fn ordinary_calls_do_where_it_is_not_above_the_setting_or_not_our_list_or_off() {
    for (above, ours) in [(Some(400), true), (Some(300), false), (None, true)] {
        let mut world = World::new(400, above, ours, double(MINUTE));
        world.want(&set(1..=400));
        world.minutes_until(|world| world.members().len() == 400);
        assert_eq!(world.how_many([Kind::ListAdd, Kind::ImportCreate]), [2, 0], "{above:?} {ours}");
    }
}

#[test]
fn whom_an_import_refuses_is_in_the_report_with_marketos_code_and_request_id() {
    let mut world = small(MINUTE);
    world.driver.sim.lock().marketo.refuse_lead(5, Some(1008));
    // 401 was deleted.
    world.want(&set(1..=401));
    let key = report_key(&world.munchkin, SYNC);
    world.minutes_until(|world| world.row::<Report>(key.clone()).is_some());
    let report: Report = world.row(key).expect("a report");
    let refused: Vec<(LeadId, &str)> =
        report.refused.iter().map(|person| (person.lead, person.code.as_str())).collect();
    assert_eq!(refused, [(5, "1008"), (401, "1004")]);
    assert!(report.refused.iter().all(|person| !person.request_id.is_empty() && !person.sentence.is_empty()));
    assert_eq!(report.people.failed, BTreeMap::from([("1004".to_owned(), 1), ("1008".to_owned(), 1)]));
    assert_eq!((report.people.ours, world.members().len()), (399, 399));
    assert_eq!(world.how_many([Kind::ImportCreate, Kind::ImportFailures, Kind::ListAdd]), [1, 1, 1]);
    assert_eq!(world.state().no_import_before, 0, "few failures are no reason to do without imports");
}

#[test]
fn dying_at_any_await_of_the_start_ends_with_the_right_list() {
    let mut awaits = 0;
    let mut unknown = 0;
    loop {
        let mut world = small(MINUTE);
        world.want(&set(1..=400));
        let ended = world.dies_at(awaits);
        let in_doubt = world.state().import.is_some_and(|import| import.id.is_none());
        unknown += usize::from(in_doubt);
        // One of them leaves before anybody goes on.
        world.want(&set(2..=400));
        world.minutes_until(|world| world.state().sure.len() >= 399);
        // Nobody knows whether a job of unknown outcome still runs: they leave when it can do no more.
        world.minutes(if in_doubt { DAY_MS / MINUTE + 10 } else { 30 });
        assert_eq!(world.members(), set(2..=400), "died at await {awaits}");
        assert_eq!((world.state().sure, world.state().may), (set(2..=400), set(2..=400)), "died at await {awaits}");
        world.nothing_was_asked_too_often();
        awaits += 1;
        if ended {
            break;
        }
    }
    assert!(awaits > 10 && unknown >= 2, "{awaits} awaits, {unknown} with an intent and without a number");
}

#[test]
fn dying_at_any_await_of_the_end_ends_with_the_right_list() {
    let mut awaits = 0;
    loop {
        let mut world = small(30_000);
        world.driver.sim.lock().marketo.refuse_lead(5, Some(1008));
        world.want(&set(1..=400));
        world.driver.run_for(2 * MINUTE);
        assert!(world.state().import.is_some_and(|import| import.id.is_some()), "a job under way");
        world.sweep();
        let ended = world.dies_at(awaits);
        world.minutes_until(|world| world.state().import.is_none() && world.state().failed.len() == 1);
        assert_eq!(world.members(), set((1..=4).chain(6..=400)), "died at await {awaits}");
        assert_eq!(world.state().sure, world.members(), "died at await {awaits}");
        assert_eq!(world.calls(Kind::ImportCreate).len(), 1, "died at await {awaits}");
        awaits += 1;
        if ended {
            break;
        }
    }
    assert!(awaits > 10, "{awaits} awaits");
}

#[test]
fn who_leaves_the_audience_while_the_job_runs_is_removed_after_it_and_others_need_not_wait() {
    let mut world = World::new(410, Some(395), true, double(30 * MINUTE));
    world.want(&set(1..=10));
    world.minutes_until(|world| world.members().len() == 10);
    world.want(&set(1..=410));
    world.minutes_until(|world| !world.calls(Kind::ImportCreate).is_empty());
    let begun = world.calls(Kind::ImportCreate)[0];
    // 1 is there by an ordinary call, the others by the job. Those who stay would be few enough for ordinary calls.
    world.want(&set(2..=403));
    world.minutes(20);
    assert_eq!(world.members(), set(2..=10));
    world.minutes_until(|world| world.state().import.is_none());
    world.minutes_until(|world| !world.state().may.contains(410));
    assert_eq!(world.members(), set(2..=403));
    let removals = world.calls(Kind::ListRemove);
    assert!(removals.len() == 2 && removals[0] < begun + 20 * MINUTE && removals[1] > begun + 30 * MINUTE);
    assert_eq!(world.how_many([Kind::ImportCreate, Kind::ListAdd]), [1, 1]);
    world.nothing_was_asked_too_often();
}

#[test]
fn a_start_of_unknown_outcome_is_followed_by_ordinary_calls_and_nobody_leaves_for_a_day() {
    for commit in [Commit::Before, Commit::After, Commit::Late { after_ms: 170_000 }] {
        // Longer in Marketo's queue than anybody would think.
        let mut world = small(6 * 60 * MINUTE);
        world.inject(Kind::ImportCreate, FaultAnswer::Drop, commit);
        world.want(&set(1..=400));
        world.minutes(5);
        assert_eq!(world.members().len(), 400, "{commit:?}");
        assert_eq!(world.how_many([Kind::ImportCreate, Kind::ImportStatus, Kind::ListAdd]), [1, 0, 2]);
        world.want(&set(2..=400));
        world.minutes(20 * 60);
        assert_eq!(world.how_many([Kind::ListRemove]), [0], "{commit:?}");
        assert!(world.driver.unsettled().is_some(), "it is not done before that");
        world.minutes(5 * 60);
        assert_eq!(world.members(), set(2..=400), "{commit:?}");
        assert_eq!(world.state().import, None);
    }
}

#[test]
fn where_files_of_ids_alone_do_not_work_additions_go_by_ordinary_calls_for_a_day() {
    let settings = marketo::Settings { id_only_import: false, ..double(MINUTE) };
    let mut world = World::new(800, Some(300), true, settings);
    world.want(&set(1..=400));
    world.minutes_until(|world| world.state().sure.len() == 400);
    assert_eq!(world.members(), set(1..=400));
    assert!(world.state().failed.is_empty(), "nobody is refused for that");
    world.want(&set(1..=800));
    world.minutes_until(|world| world.members().len() == 800);
    assert_eq!(world.how_many([Kind::ImportCreate, Kind::ListAdd]), [1, 4]);
    let now = world.driver.sim.lock().now;
    assert!(world.state().no_import_before > now);
}

#[test]
fn a_job_that_says_it_is_complete_and_put_nobody_into_the_list_is_not_believed() {
    let mut world = small(30_000);
    world.want(&set(1..=400));
    world.driver.run_for(2 * MINUTE);
    assert_eq!(world.members().len(), 400);
    {
        let mut store = world.driver.sim.lock();
        let now = store.now;
        (1..=400).for_each(|lead| {
            store.marketo.remove_by_hand(now, LIST, lead);
        });
    }
    world.minutes_until(|world| world.state().sure.len() == 400);
    assert_eq!(world.members(), set(1..=400));
    assert_eq!(world.how_many([Kind::ImportCreate, Kind::ListAdd]), [1, 2]);
    assert!(world.state().kept_out.is_empty());
}

/// Marketo says of an import that it failed.
struct Failing(Sim);

#[async_trait]
impl Http for Failing {
    async fn send(&self, request: http::Request<Vec<u8>>, timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>> {
        let answer = Http::send(&self.0, request, timeout_ms).await?;
        Ok(answer.map(|body| match String::from_utf8(body) {
            Ok(text) => text.replace("\"Complete\"", "\"Failed\"").into_bytes(),
            Err(error) => error.into_bytes(),
        }))
    }
}

#[test]
fn nobody_of_a_failed_job_is_sure_and_all_go_by_ordinary_calls() {
    let mut world = small(30_000);
    world.want(&set(1..=400));
    world.driver.run_for(2 * MINUTE);
    world.sweep();
    let mut ports = world.driver.sim.ports();
    ports.http = Arc::new(Failing(world.driver.sim.clone()));
    let deps = Deps::new(ports, settings());
    let ring = world.waiting_ring().expect("a ring");
    run(list_writer::handle(&deps, &ring, deps.now() + FUNCTION_MS)).expect("no faults here");
    world.want(&set(2..=400));
    world.minutes_until(|world| world.members().len() == 399);
    let state = world.state();
    assert_eq!((state.sure, state.may, state.import), (set(2..=400), set(2..=400), None));
    assert_eq!(world.how_many([Kind::ImportCreate, Kind::ListAdd]), [1, 2]);
}

#[test]
fn a_full_queue_is_waited_for_while_removals_go_on() {
    let mut world = small(MINUTE);
    world.want(&set(1..=10));
    world.minutes_until(|world| world.members().len() == 10);
    world.inject(Kind::ImportCreate, FaultAnswer::Code(1016), Commit::Before);
    world.want(&set(2..=400));
    world.minutes_until(|world| world.members().len() == 399);
    assert_eq!(world.members(), set(2..=400));
    let [first, second] = world.calls(Kind::ImportCreate)[..] else { panic!("two starts") };
    let removed = world.calls(Kind::ListRemove)[0];
    assert!(second >= first + 5 * MINUTE && removed < second, "{first} {removed} {second}");
    // Those of the first load were added by one call, all others by the job.
    assert_eq!(world.how_many([Kind::ListAdd]), [1]);
}

#[test]
fn a_mass_change_is_held_before_it_goes_by_import_and_goes_by_it_once_it_is_applied() {
    let mut world = World::new(6_000, Some(300), true, double(MINUTE));
    world.want(&set(1..=10));
    world.minutes_until(|world| world.state().loaded.contains(SYNC));
    world.want(&set(1..=6_000));
    world.minutes(10);
    assert_eq!((world.how_many([Kind::ImportCreate]), world.members().len()), ([0], 10));
    let held = world.state().held.expect("it is held").id;
    let note = Note::Decide { held, apply: true };
    run(notes::leave(&world.driver.deps(), &world.munchkin, LIST, &note)).expect("a note");
    world.minutes_until(|world| world.state().sure.len() == 6_000);
    assert_eq!(world.how_many([Kind::ImportCreate, Kind::ListAdd]), [1, 1]);
}

/// One random life of a list, with deaths, silence and throttling, and a day of peace at its end.
fn life(seed: u64) -> Result<bool, String> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xb01c);
    let mut world = World::new(700, Some(300), true, double(rng.random_range(10_000..20 * MINUTE)));
    world.driver.sim.lock().rng = SmallRng::seed_from_u64(seed);
    // Every change is meant.
    let mut sync: Sync = world.sync();
    sync.guard = GuardSettings { removals_percent: 100, removals_at_least: 1_000_000, additions_at_least: 1_000_000 };
    world.put(Table::Syncs, sync_key(&world.munchkin, SYNC), &sync);
    // A few who always stay: nobody asks whether everybody is to leave.
    let mut wanted = set(1..6);
    world.want(&wanted);
    world.minutes(5);
    let faults = Faults { kill: 0.01, marketo_silence: 0.1, unavailable: 0.01, unknown: 0.01, ..Faults::NONE };
    for _ in 0..rng.random_range(2..7) {
        let share = [0.02, 0.5, 0.95][rng.random_range(0..3)];
        wanted = (1..=700).filter(|lead| *lead < 6 || rng.random_bool(share)).collect();
        world.driver.sim.lock().faults = Faults::NONE;
        world.want(&wanted);
        world.driver.sim.lock().faults = faults;
        world.minutes(rng.random_range(0..40));
    }
    world.driver.sim.lock().faults = Faults::NONE;
    world.minutes(DAY_MS / MINUTE + 120);
    let (state, members) = (world.state(), world.members());
    // One that can do no more is forgotten when somebody looks next.
    let over = state.import.as_ref().is_none_or(|import| import.id.is_none());
    let right = members == wanted && state.sure == wanted && state.may == wanted && over;
    let in_time = world.driver.sim.lock().marketo.calls().iter().all(|call| !call.early_poll && call.code != 606);
    if right && in_time {
        return Ok(!world.calls(Kind::ImportCreate).is_empty());
    }
    Err(format!("wanted {}, members {}, in time {in_time}, {state:?}", wanted.len(), members.len()))
}

#[test]
fn random_lives_with_imports_end_with_the_right_list() {
    let seeds = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..60, |seed| seed..seed + 1);
    let mut imports = 0;
    for seed in seeds.clone() {
        let imported = life(seed).unwrap_or_else(|fault| panic!("SEED={seed}: {fault}"));
        imports += usize::from(imported);
    }
    assert!(imports > 0, "no life of {seeds:?} has an import");
}

/// A list of 31,000 of our people, loaded long ago.
fn long_list(export_ms: u64) -> World {
    let settings = marketo::Settings { export_ms, ..marketo::Settings::default() };
    let mut world = World::new(31_100, None, true, settings);
    let sure = set(1..=31_000);
    let mut state = State { v: 1, sure: sure.clone(), may: sure.clone(), ..State::default() };
    state.loaded.insert(SYNC.into());
    {
        let mut store = world.driver.sim.lock();
        (1..=31_000).for_each(|lead| {
            store.marketo.add_by_hand(BEGIN, LIST, lead);
        });
    }
    let deps = world.driver.deps();
    let mut open = run(OpenList::open(&deps, &world.munchkin, LIST)).expect("the list");
    open.state = state;
    open.head.verified_at = BEGIN;
    // No report is due: the audience has had no pass since.
    open.head.reported.insert(SYNC.into(), 1);
    run(open.publish(&deps)).expect("published");
    world.want(&sure);
    world.minutes(1);
    world
}

fn take_out(world: &World, leads: impl IntoIterator<Item = LeadId>) {
    let mut store = world.driver.sim.lock();
    let now = store.now;
    leads.into_iter().for_each(|lead| {
        store.marketo.remove_by_hand(now, LIST, lead);
    });
}

fn verify(world: &World) {
    run(notes::leave(&world.driver.deps(), &world.munchkin, LIST, &Note::VerifyAll)).expect("a note");
}

#[test]
fn a_whole_list_is_compared_by_extract_and_people_added_meanwhile_are_not_accused() {
    let mut world = long_list(90_000);
    take_out(&world, [7, 700, 30_001]);
    verify(&world);
    world.driver.run_for(MINUTE);
    assert_eq!(world.how_many([Kind::ExportCreate, Kind::ExportEnqueue]), [1, 1]);
    // The file is written without them; they come before it is read.
    let written = world.calls(Kind::ExportEnqueue)[0] + 90_000;
    while world.driver.sim.lock().now < written + 1_000 {
        world.driver.run_for(1_000);
    }
    world.want(&set(1..=31_050));
    world.driver.run_for(5_000);
    assert_eq!(world.members().len(), 31_047, "50 were added and 3 taken out");
    world.minutes_until(|world| !world.state().kept_out.is_empty());
    assert_eq!(world.state().kept_out, set([7, 700, 30_001]));
    assert_eq!((world.state().sure.len(), world.state().comparison), (31_047, None));
    let asked: u32 = {
        let store = world.driver.sim.lock();
        store.marketo.calls().iter().filter(|call| call.kind == Kind::IsMember).map(|call| call.ids).sum()
    };
    assert_eq!(asked, 3, "nobody else was doubted");
    assert_eq!(world.how_many([Kind::ExportFile, Kind::Members]), [1, 0]);
    world.nothing_was_asked_too_often();
}

#[test]
fn where_no_extract_can_be_had_the_list_is_read_by_pages() {
    let mut world = long_list(MINUTE);
    take_out(&world, [7]);
    world.inject(Kind::ExportCreate, FaultAnswer::Code(1035), Commit::Before);
    verify(&world);
    world.minutes_until(|world| !world.state().kept_out.is_empty());
    assert_eq!((world.state().kept_out, world.state().comparison), (set([7]), None));
    assert!(world.calls(Kind::Members).len() > 100);
}

#[test]
fn an_extract_that_is_not_queued_at_first_is_queued_again() {
    let mut world = long_list(MINUTE);
    take_out(&world, [7]);
    world.inject(Kind::ExportEnqueue, FaultAnswer::Code(1029), Commit::Before);
    verify(&world);
    world.minutes_until(|world| !world.state().kept_out.is_empty());
    assert_eq!(world.how_many([Kind::ExportCreate, Kind::ExportEnqueue, Kind::Members]), [1, 2, 0]);
    world.nothing_was_asked_too_often();
}
