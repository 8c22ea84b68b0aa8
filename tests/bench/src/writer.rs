//! The list-writer at the full speed that Marketo allows, on a virtual clock.
//!
//! The real handlers of the list-writer and of the identity worker run over in-memory ports that take their time,
//! against the double of Marketo, which enforces its limits and whose own log is the judge. Every figure is a count
//! or a virtual time: the same on every machine.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use domain::limits::{DAY_MS, FUNCTION_MS};
use domain::list::State;
use domain::report::AudienceCounts;
use domain::{AudienceId, LeadId, LeadSet, ListId, MunchkinId, OrgId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Kind, Marketo};
use ports::{Clock as _, Queue, Table};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use simulation::driver;
use simulation::fakes::{Message, Sim};
use simulation::scenario::{MUNCHKIN, ORG, active_sync};
use simulation::timed::Timed;
use state::bell::{self, BellKey, Ring};
use state::lists::{AudienceReport, Left, ListHead, Want, head_key, want_key};
use state::syncs::{Subscription, Sync, subscription_key, sync_key};
use state::{Deps, Settings, doc};
use world::types::{Lead, Library, List, MarketoData};

/// Midnight US Central on 2026-01-20, in ms: a day of 24 hours begins.
const BEGIN: u64 = 1_768_888_800_000;
/// Issue 3: the double's latency, in ms.
const LATENCY_MS: u64 = 450;
/// Issue 3: pending additions of a large load.
const LOAD: u64 = 300_000;
/// Lists bear ids from here on.
const FIRST_LIST: ListId = 1_001;
/// From a message in the queue to the handler's first line, in ms: an event source mapping that polls.
const DELIVERY_MS: u64 = 30;
/// People in all lists together before a trickle begins: so many that a day of it is no mass change anywhere.
const BASE: u64 = 240_000;

/// What a scenario is made of.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    share: f64,
    /// Additions that are pending on the first list at the beginning.
    load: u64,
    /// Lists that change once a second, taken together; half adds, half removes.
    trickle: u64,
    /// How long, in ms.
    until: u64,
    /// Another tool takes half of the limit, at random moments.
    other: bool,
}

const SCENARIOS: [Scenario; 7] = [
    Scenario { name: "load_at_half", share: 0.5, load: LOAD, trickle: 0, until: DAY_MS, other: false },
    Scenario { name: "load_at_full", share: 1.0, load: LOAD, trickle: 0, until: DAY_MS, other: false },
    Scenario { name: "load_beside_another_tool", share: 0.5, load: LOAD, trickle: 0, until: DAY_MS, other: true },
    Scenario { name: "trickle_8_lists", share: 0.5, load: 0, trickle: 8, until: DAY_MS, other: false },
    Scenario { name: "trickle_40_lists", share: 0.5, load: 0, trickle: 40, until: DAY_MS, other: false },
    Scenario { name: "trickle_300_lists", share: 0.5, load: 0, trickle: 300, until: DAY_MS, other: false },
    Scenario { name: "load_beside_trickle", share: 0.5, load: LOAD, trickle: 40, until: DAY_MS / 12, other: false },
];

/// What a scenario measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario's name.
    pub scenario: String,
    /// Calls that our share allowed from the first to the last call: the rate of a load, the day's calls of a trickle.
    pub allowed_calls: u64,
    /// Calls that we made, by Marketo's log; identity calls to its token endpoint count for nothing.
    pub used_calls: u64,
    /// People in a call that changes the list.
    pub people_per_call: PeoplePerCall,
    /// Calls answered 606.
    pub answers_606: u64,
    /// Calls answered 615.
    pub answers_615: u64,
    /// Most of our calls in flight at once.
    pub most_at_once: u32,
    /// Most of our calls in any 20 seconds.
    pub most_in_20_seconds: u64,
    /// From the change of what is wanted to the list, in seconds of virtual time: the median.
    pub p50_seconds: f64,
    /// 95 of 100 were faster.
    pub p95_seconds: f64,
    /// The slowest.
    pub max_seconds: f64,
    /// Changes that did not reach the list, though they had an hour or more.
    pub missing: u64,
}

/// People in a call that changes the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeoplePerCall {
    /// The mean.
    pub mean: f64,
    /// Part of the calls that held 300.
    pub full: f64,
}

/// Changes of which Marketo has not heard yet, and how long the others took.
#[derive(Debug, Default)]
struct Facts {
    pending: BTreeMap<ListId, BTreeMap<LeadId, (bool, u64)>>,
    took: Vec<u64>,
}

impl Facts {
    fn look(&mut self, list: ListId, now: u64, members: &BTreeSet<LeadId>) {
        let took = &mut self.took;
        if let Some(pending) = self.pending.get_mut(&list) {
            pending.retain(|lead, (wanted, since)| {
                let done = members.contains(lead) == *wanted;
                if done {
                    took.push(now - *since);
                }
                !done
            });
        }
    }
}

type SharedFacts = Arc<Mutex<Facts>>;

fn lock(facts: &SharedFacts) -> std::sync::MutexGuard<'_, Facts> {
    facts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one scenario, or all of them, two at a time.
#[must_use]
pub fn run(only: Option<&str>) -> Vec<Measured> {
    let scenarios: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| only.is_none_or(|only| only == scenario.name)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(scenario) = scenarios.get(index) else { return };
                    let measured = measure(scenario);
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(index, measured);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

struct Bench {
    scenario: Scenario,
    timed: Timed,
    deps: Deps,
    munchkin: MunchkinId,
    facts: SharedFacts,
}

fn measure(scenario: &Scenario) -> Measured {
    let bench = Rc::new(Bench::new(*scenario));
    let mut work: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![
        Box::pin(serve(bench.clone(), Queue::ListWrites)),
        Box::pin(serve(bench.clone(), Queue::IdentityWork)),
        Box::pin(tick(bench.clone())),
        Box::pin(begin(bench.clone())),
    ];
    if scenario.trickle > 0 {
        work.push(Box::pin(trickle(bench.clone())));
    }
    if scenario.other {
        work.push(Box::pin(another_tool(bench.clone())));
    }
    if scenario.trickle > 0 {
        bench.timed.run(work, BEGIN + scenario.until);
    } else {
        work.push(Box::pin(stop_when_loaded(bench.clone())));
        bench.timed.run(work, BEGIN + scenario.until);
    }
    bench.result()
}

fn audience(list: ListId) -> AudienceId {
    AudienceId::parse(&format!("aam:{list}")).expect("an audience id")
}

impl Bench {
    fn new(scenario: Scenario) -> Self {
        let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
        let lists = scenario.trickle.max(1);
        let each = if scenario.trickle > 0 { BASE / lists } else { 0 };
        let member = |list: u64, n: u64| list * each + n + 1;
        let leads = LOAD + BASE + DAY_MS / 1_000;
        let lead =
            |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: Vec::new() };
        let data = MarketoData {
            munchkin_id: MUNCHKIN.into(),
            org_id: Some(ORG.into()),
            hipaa_ready: false,
            cookie_sync: true,
            leads: (1..=leads).map(lead).collect(),
            lists: (0..lists)
                .map(|list| List {
                    id: FIRST_LIST + list,
                    name: format!("List {list}"),
                    members: (0..each).map(|n| member(list, n)).collect(),
                })
                .collect(),
        };
        let settings = marketo::Settings { latency_ms: LATENCY_MS, ..marketo::Settings::default() };
        let library = Library::default();
        let sim = Sim::new(
            1,
            BEGIN,
            Marketo::new(settings, data, BEGIN),
            Adobe::new(adobe::Settings::default(), library, BEGIN),
        );
        let facts: SharedFacts = Arc::default();
        let watched = facts.clone();
        let timed = Timed::new(
            sim,
            Arc::new(move |request, now, marketo| {
                let mut parts = request.uri().path().split('/');
                let list = parts.by_ref().skip_while(|part| *part != "lists").nth(1);
                if let Some(list) = list.and_then(|id| id.parse().ok())
                    && let Some(members) = marketo.members(list)
                {
                    lock(&watched).look(list, now, members);
                }
            }),
        );
        let deps = Deps::new(timed.ports(), Settings { quota_share: scenario.share, ..driver::settings() });
        let bench = Self { scenario, timed, deps, munchkin, facts };
        bench.put(
            Table::Syncs,
            subscription_key(&bench.munchkin),
            &Subscription {
                v: 1,
                munchkin_id: bench.munchkin.clone(),
                org_id: OrgId::parse(ORG),
                hipaa_ready: false,
                // No extract: it reads every lead once a day, and has nothing to do with the writer.
                cookie_sync: false,
                extract_since: None,
                bulk_import_above: None,
                origins: Vec::new(),
                new_pairs_per_day: 1_000,
                quota_share_percent: None,
            },
        );
        for list in 0..lists {
            bench.make(FIRST_LIST + list, (0..each).map(|n| member(list, n)).collect(), list, lists);
        }
        bench
    }

    fn put<T: Serialize>(&self, table: Table, key: ports::Key, value: &T) {
        let item = doc::item(key, value, None, None).expect("a row");
        self.timed.sim.lock().tables.insert((table, item.key.clone()), item);
    }

    /// A list that we made, with people whom we put there.
    fn make(&self, list: ListId, members: LeadSet, number: u64, lists: u64) {
        let sync = Sync { created_at: BEGIN, ..active_sync(&self.munchkin, audience(list), list, true) };
        self.put(Table::Syncs, sync_key(&self.munchkin, &sync.id), &sync);
        self.put(
            Table::Lists,
            want_key(&self.munchkin, &sync.audience),
            &Want {
                v: 1,
                audience: sync.audience.clone(),
                key: format!("want/{list}"),
                count: 0,
                pass: 1,
                report: AudienceReport {
                    as_of: BEGIN,
                    counts: AudienceCounts::default(),
                    people_key: format!("want/{list}"),
                },
                replaced: Vec::new(),
            },
        );
        let mut state = State { v: 1, sure: members.clone(), may: members.clone(), ..State::default() };
        if !members.is_empty() {
            state.loaded.insert(sync.id.clone());
        }
        let bytes = serde_json::to_vec(&state).expect("a state");
        self.timed.sim.lock().objects.insert(format!("state/{list}"), bytes.into());
        self.want(list, &members);
        self.put(
            Table::Lists,
            head_key(&self.munchkin, list),
            &ListHead {
                v: 1,
                list,
                state_key: Some(format!("state/{list}")),
                left: Left::default(),
                handled_at: BEGIN,
                // No report is due: the audience has had no pass since.
                reported: BTreeMap::from([(sync.id, 1)]),
                report_at: 0,
                held: None,
                booked: None,
                // The daily samples come one after the other.
                verified_at: BEGIN - DAY_MS + number * DAY_MS / lists,
                adopted: 0,
                reading: None,
                adopting: None,
                runs: 0,
                run: None,
            },
        );
    }

    fn want(&self, list: ListId, leads: &LeadSet) {
        self.timed.sim.lock().objects.insert(format!("want/{list}"), leads.to_bytes().into());
    }

    fn fact(&self, list: ListId, lead: LeadId, wanted: bool) {
        let now = self.timed.now_ms();
        lock(&self.facts).pending.entry(list).or_default().insert(lead, (wanted, now));
    }

    async fn ring(&self, list: ListId) {
        bell::mark(&self.deps, &BellKey::list(&self.munchkin, list)).await.expect("no faults here");
    }

    fn result(&self) -> Measured {
        let store = self.timed.sim.lock();
        let calls: Vec<&marketo::Call> = store.marketo.calls().iter().filter(|call| call.kind != Kind::Token).collect();
        let changing: Vec<u64> = calls
            .iter()
            .filter(|call| matches!(call.kind, Kind::ListAdd | Kind::ListRemove) && call.code == 0)
            .map(|call| u64::from(call.ids))
            .collect();
        let answered = |code: u16| calls.iter().filter(|call| call.code == code).count() as u64;
        let share = self.scenario.share;
        let allowed = if self.scenario.trickle > 0 && self.scenario.load == 0 {
            (f64::from(marketo::DAILY_QUOTA) * share) as u64
        } else {
            // As many as fit into each 20 seconds, from the first call to the last.
            let first = calls.first().map_or(0, |call| call.at_ms);
            let last = calls.last().map_or(0, |call| call.at_ms);
            let per_window = (marketo::RATE_CALLS as f64 * share) as u64;
            ((last - first) / marketo::RATE_WINDOW_MS + 1) * per_window
        };
        let mut window = std::collections::VecDeque::new();
        let mut most = 0;
        for call in &calls {
            window.push_back(call.at_ms);
            while window.front().is_some_and(|at| at + marketo::RATE_WINDOW_MS <= call.at_ms) {
                window.pop_front();
            }
            most = most.max(window.len() as u64);
        }
        let mut facts = lock(&self.facts);
        facts.took.sort_unstable();
        let now = store.now;
        let hour = 3_600_000;
        let missing = facts.pending.values().flatten().filter(|(_, (_, since))| since + hour <= now).count() as u64;
        let at = |part: f64| {
            let index = (facts.took.len() as f64 * part) as usize;
            facts.took.get(index.min(facts.took.len().saturating_sub(1))).map_or(0.0, |ms| *ms as f64 / 1_000.0)
        };
        Measured {
            scenario: self.scenario.name.to_owned(),
            allowed_calls: allowed,
            used_calls: calls.len() as u64,
            people_per_call: PeoplePerCall {
                mean: rounded(changing.iter().sum::<u64>() as f64 / changing.len().max(1) as f64),
                full: rounded(
                    changing.iter().filter(|people| **people == 300).count() as f64 / changing.len().max(1) as f64,
                ),
            },
            answers_606: answered(606),
            answers_615: answered(615),
            most_at_once: if self.scenario.other {
                0
            } else {
                calls.iter().map(|call| call.in_flight).max().unwrap_or(0)
            },
            most_in_20_seconds: most,
            p50_seconds: at(0.5),
            p95_seconds: at(0.95),
            max_seconds: at(1.0),
            missing,
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Hands out the messages of a FIFO queue with one group, one at a time, as Lambda does.
async fn serve(bench: Rc<Bench>, queue: Queue) {
    loop {
        bench.timed.sleep_ms(DELIVERY_MS).await;
        let message: Option<Message> = {
            let store = bench.timed.sim.lock();
            store.messages.iter().filter(|message| message.queue == queue).min_by_key(|message| message.id).cloned()
        };
        let Some(message) = message else {
            bench.timed.sleep_ms(200).await;
            continue;
        };
        let ring: Ring = serde_json::from_str(&message.body).expect("a ring");
        let deadline = bench.deps.now() + FUNCTION_MS;
        let outcome = if queue == Queue::ListWrites {
            list_writer::handle(&bench.deps, &ring, deadline).await
        } else {
            scheduled_incremental_sync::handle(&bench.deps, &ring, deadline).await
        };
        outcome.expect("nothing fails here");
        bench.timed.sim.lock().messages.retain(|other| other.id != message.id);
    }
}

/// The minute's tick.
async fn tick(bench: Rc<Bench>) {
    loop {
        bench.timed.sleep_ms(60_000).await;
        bell::sweep(&bench.deps).await.expect("nothing fails here");
    }
}

async fn begin(bench: Rc<Bench>) {
    let identity = BellKey::identity(&bench.munchkin);
    if bench.scenario.trickle > 0 {
        bell::mark(&bench.deps, &identity).await.expect("nothing fails here");
    }
    if bench.scenario.load > 0 {
        let list = FIRST_LIST + bench.scenario.trickle;
        if bench.scenario.trickle > 0 {
            // On a list of its own, beside the others.
            let mut store = bench.timed.sim.lock();
            let now = store.now;
            assert_eq!(store.marketo.make_list(now, "Load", 12, "Default"), list);
            drop(store);
            bench.make(list, LeadSet::new(), 0, 1);
        }
        let first = BASE + DAY_MS / 1_000 + 1;
        let leads: LeadSet = (first..first + bench.scenario.load).collect();
        if bench.scenario.trickle == 0 {
            leads.iter().for_each(|lead| bench.fact(list, lead, true));
        }
        bench.want(list, &leads);
        bench.ring(list).await;
    }
}

/// One change a second over all lists: half adds, half removes.
async fn trickle(bench: Rc<Bench>) {
    let lists = bench.scenario.trickle;
    let each = BASE / lists;
    let mut rng = SmallRng::seed_from_u64(7);
    let mut wants: Vec<LeadSet> = (0..lists).map(|list| (0..each).map(|n| list * each + n + 1).collect()).collect();
    let mut gone = vec![0u64; lists as usize];
    let mut next = BASE + 1;
    loop {
        bench.timed.sleep_ms(1_000).await;
        let index = rng.random_range(0..lists);
        let list = FIRST_LIST + index;
        let want = &mut wants[index as usize];
        if rng.random_bool(0.5) {
            want.insert(next);
            bench.fact(list, next, true);
            next += 1;
        } else {
            let lead = index * each + gone[index as usize] + 1;
            gone[index as usize] += 1;
            want.remove(lead);
            bench.fact(list, lead, false);
        }
        bench.want(list, want);
        bench.ring(list).await;
    }
}

/// Somebody else's calls: as many as half of the limit on average, at random moments, whatever they are answered.
async fn another_tool(bench: Rc<Bench>) {
    let mut rng = SmallRng::seed_from_u64(11);
    let mean = marketo::RATE_WINDOW_MS as f64 / (marketo::RATE_CALLS as f64 / 2.0);
    loop {
        let pause = -mean * (1.0 - rng.random::<f64>()).ln();
        bench.timed.sleep_ms(pause as u64 + 1).await;
        let mut store = bench.timed.sim.lock();
        let now = store.now;
        store.marketo.other_call(now, LATENCY_MS);
    }
}

/// Ends the world once the load is in the list: the others sleep for ever then.
async fn stop_when_loaded(bench: Rc<Bench>) {
    while lock(&bench.facts).took.len() < bench.scenario.load as usize {
        bench.timed.sleep_ms(500).await;
    }
    bench.timed.stop();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts and virtual times, as `cargo run --release -p bench -- writer --json` printed them. Whoever changes one
    /// on purpose writes the file anew with that command.
    const RECORDED: &str = include_str!("../writer.jsonl");

    #[test]
    fn the_writer_is_as_fast_as_recorded_and_within_the_bars() {
        let recorded: Vec<Measured> =
            RECORDED.lines().map(|line| serde_json::from_str(line).expect("a line of writer.jsonl")).collect();
        let measured = run(None);
        assert_eq!(measured, recorded);
        for one in &measured {
            let name = one.scenario.as_str();
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a scenario");
            let calls = one.used_calls as f64;
            assert_eq!(one.missing, 0, "{name}");
            assert!(one.most_in_20_seconds <= (marketo::RATE_CALLS as f64 * scenario.share) as u64, "{name}");
            assert!(f64::from(one.most_at_once) <= marketo::CONCURRENT_CALLS as f64 * scenario.share, "{name}");
            let refused = (one.answers_606 + one.answers_615) as f64;
            assert!(refused <= if scenario.other { 0.01 * calls } else { 0.0 }, "{name}");
            if scenario.trickle == 0 {
                assert!(one.people_per_call.full >= 0.99, "{name}");
                assert!(scenario.other || calls >= 0.98 * one.allowed_calls as f64, "{name}");
            }
            // Design, bar P6, and a large load beside a trickle does not slow it.
            let bar = match scenario.trickle {
                8 => 120.0,
                40 => 360.0,
                300 => 2_700.0,
                _ => f64::INFINITY,
            };
            assert!(one.p95_seconds <= bar, "{name}");
            assert!(one.used_calls < one.allowed_calls || scenario.trickle == 0, "{name}: the share is spent");
        }
    }
}
