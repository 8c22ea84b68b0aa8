//! The promise of freshness, on the virtual clock: how long each kind of change takes from the moment its fact reaches us
//! to the moment Marketo's list shows it. The whole subscription is at work, within half of a quota of 50,000 calls a
//! day, around the clock and over midnight US Central.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::fact::Streamed;
use domain::limits::HOUR_MS;
use domain::{AudienceId, Ecid, LeadId, ListId, MunchkinId, OrgId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Kind, Marketo};
use ports::{Clock as _, Outgoing, Queue, Table};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use serde_json::json;
use state::budget::next_midnight;
use state::doc;
use state::feeds::{Entry, Events};
use state::syncs::{Subscription, subscription_key, sync_key};
use world::types::{Lead, List, MarketoData};

use crate::cloud::{Cloud, Work, settings};
use crate::fakes::Sim;
use crate::scenario::{MUNCHKIN, ORG, active_sync, ecid, library, token};
use crate::timed::Timed;

/// Calls a day of the instance (issue 5), of which half is ours.
pub const QUOTA: u64 = 50_000;
/// What Marketo takes for a call, in ms (issue 3).
pub const LATENCY_MS: u64 = 450;
/// Lists bear ids from here on.
const FIRST_LIST: ListId = 1_001;
/// People of a list who come and go. No more than this many of a list are out at a time: a hundred removals within a day
/// may be a mass change, and those who are back count for nothing.
const COMING_AND_GOING: usize = 60;
/// Entries of a stream's message.
const ENTRIES: usize = 100;
/// What the first load is given before anything is measured, in ms.
pub const WARM_MS: u64 = 3 * HOUR_MS;
/// After the last change the world goes on for so long, in ms: nothing may take longer.
pub const LAST_MS: u64 = 2 * HOUR_MS;

/// What happens to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A stream says that a browser of somebody known entered the audience.
    Enters,
    /// A stream says that it left.
    Leaves,
    /// A browser that is in the audience already is seen beside the token of somebody known.
    Matched,
    /// The visitor behind a matched token becomes known, and only Marketo's log of activities tells of it.
    Known,
}

/// A world in which these things happen.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Lists, each of an audience of its own; we made every other one.
    pub lists: u64,
    /// Known people of each audience who come and go.
    pub people: u64,
    /// When the world begins, in ms; the first change comes [`WARM_MS`] later.
    pub begin: u64,
    /// How long changes come, in ms.
    pub changing_ms: u64,
    /// Mean time between two people entering or leaving, over all lists, in ms.
    pub stream_every_ms: u64,
    /// Mean time between two matches, and between two visitors who become known, in ms.
    pub people_every_ms: u64,
    /// Our calls that the day has cost already when changes begin, for small writes.
    pub spent: u64,
    /// Any number: the same number, the same world.
    pub seed: u64,
}

/// How long one kind of change took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Took {
    /// Changes that reached their list.
    pub changes: usize,
    /// The median, in seconds of virtual time.
    pub p50_seconds: f64,
    /// 95 of 100 were faster.
    pub p95_seconds: f64,
    /// The slowest.
    pub max_seconds: f64,
    /// Changes that did not reach their list before the end, [`LAST_MS`] after the last of them.
    pub missing: usize,
}

/// Calls of one day, midnight to midnight US Central.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    /// When it ends, in ms.
    pub ends: u64,
    /// Our calls that counted, and those that were spent before.
    pub calls: u64,
    /// What our share allows.
    pub allowed: u64,
    /// Our calls by kind.
    pub kinds: BTreeMap<String, u64>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Lists.
    pub lists: u64,
    /// By kind of change.
    pub took: BTreeMap<Fact, Took>,
    /// By day.
    pub days: Vec<Day>,
    /// Most of our calls in any 20 seconds.
    pub most_in_20_seconds: usize,
    /// Most of our calls at once.
    pub most_at_once: u32,
    /// Calls that Marketo refused as too many (606, 607, 615).
    pub refused: usize,
    /// Invocations that were stopped at their deadline.
    pub stopped: u64,
    /// Invocations that failed and were tried again.
    pub failed: u64,
    /// Lists that hold a mass change at the end: there must be none, or nothing was measured of them.
    pub held: usize,
}

/// Changes that their lists do not show yet, and how long the others took.
#[derive(Default)]
struct Pending {
    waiting: BTreeMap<(ListId, LeadId), (bool, u64, Fact)>,
    took: BTreeMap<Fact, Vec<u64>>,
}

type Shared = Arc<Mutex<Pending>>;

fn lock(pending: &Shared) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks after each call to a list whether it shows what was waited for.
fn look(pending: &Shared, request: &http::Request<Vec<u8>>, now: u64, marketo: &Marketo) {
    let mut parts = request.uri().path().split('/');
    let list = parts.by_ref().skip_while(|part| *part != "lists").nth(1);
    let Some(list) = list.and_then(|id| id.parse::<ListId>().ok()) else { return };
    let Some(members) = marketo.members(list) else { return };
    let mut pending = lock(pending);
    let waiting = pending.waiting.range((list, 0)..=(list, LeadId::MAX));
    let shown = waiting.filter(|((_, lead), (wanted, since, _))| members.contains(lead) == *wanted && *since <= now);
    let shown: Vec<(ListId, LeadId)> = shown.map(|(key, _)| *key).collect();
    for key in shown {
        if let Some((_, since, fact)) = pending.waiting.remove(&key) {
            pending.took.entry(fact).or_default().push(now - since);
        }
    }
}

struct World {
    plan: Plan,
    cloud: Rc<Cloud>,
    munchkin: MunchkinId,
    pending: Shared,
    /// By list: who is out and who is in, in the order of their last change.
    coming: RefCell<Vec<(VecDeque<u64>, VecDeque<u64>)>>,
}

/// The audience that feeds a list.
fn audience(list: ListId) -> AudienceId {
    AudienceId::parse(&format!("aam:{list}")).expect("an audience id")
}

fn number(n: u64) -> Ecid {
    Ecid::parse(&ecid(n)).expect("an ECID")
}

/// People by number, one after the other: those who come and go, those who are matched, visitors who become known.
impl Plan {
    fn residents(&self) -> u64 {
        self.lists * self.people
    }

    /// Changes of one of the two kinds that come one every [`Plan::people_every_ms`], and some to spare.
    fn newcomers(&self) -> u64 {
        self.changing_ms / self.people_every_ms * 5 / 4 + 20
    }

    fn matched(&self, n: u64) -> u64 {
        self.residents() + n + 1
    }

    fn visitor(&self, n: u64) -> u64 {
        self.matched(self.newcomers() + n)
    }

    /// The lists whose audiences a person's browser is in: one, and of each third newcomer two.
    fn lists_of(&self, person: u64) -> Vec<ListId> {
        let first = person % self.lists;
        let mut lists = vec![FIRST_LIST + first];
        if person > self.residents() && person.is_multiple_of(3) && self.lists > 1 {
            lists.push(FIRST_LIST + (first + 1 + person / 3 % (self.lists - 1)) % self.lists);
        }
        lists
    }

    /// Visitors are of three kinds: of some Marketo knows nothing, of some it holds an anonymous lead, and some turn out
    /// to be somebody who is known by another cookie.
    const fn kind_of_visitor(person: u64) -> u64 {
        person % 3
    }

    fn marketo(&self) -> MarketoData {
        let known = |n: u64, cookies: Vec<String>| Lead {
            id: n,
            email: Some(format!("p{n}@example.com")),
            cookies,
            ecids: Vec::new(),
        };
        let mut leads: Vec<Lead> = (1..=self.residents()).map(|n| known(n, vec![token(n)])).collect();
        for n in 0..self.newcomers() {
            let (matched, visitor) = (self.matched(n), self.visitor(n));
            leads.push(known(matched, vec![token(matched)]));
            match Self::kind_of_visitor(visitor) {
                0 => {}
                1 => leads.push(Lead { email: None, ..known(visitor, vec![token(visitor)]) }),
                _ => leads.push(known(visitor, Vec::new())),
            }
        }
        let list = |n: u64| List { id: FIRST_LIST + n, name: format!("List {n}"), members: [].into() };
        MarketoData {
            munchkin_id: MUNCHKIN.into(),
            org_id: Some(ORG.into()),
            hipaa_ready: false,
            cookie_sync: true,
            leads,
            lists: (0..self.lists).map(list).collect(),
        }
    }
}

/// The subscription's row.
#[must_use]
pub fn subscription(munchkin: &MunchkinId, cookie_sync: bool) -> Subscription {
    Subscription {
        v: 1,
        munchkin_id: munchkin.clone(),
        org_id: OrgId::parse(ORG),
        hipaa_ready: false,
        cookie_sync,
        extract_since: Some("2026-01-01T00:00:00Z".into()),
        bulk_import_above: None,
        origins: Vec::new(),
        new_pairs_per_day: 1_000_000,
        quota_share_percent: None,
    }
}

/// Puts a row where it belongs, as if it had always been there.
pub fn put<T: Serialize>(sim: &Sim, table: Table, key: ports::Key, value: &T) {
    let item = doc::item(key, value, None, None).expect("a row");
    sim.lock().tables.insert((table, item.key.clone()), item);
}

/// A double of Marketo that takes its time.
#[must_use]
pub fn instance(data: MarketoData, quota: u64, now: u64) -> Marketo {
    let daily_quota = u32::try_from(quota).unwrap_or(u32::MAX);
    Marketo::new(marketo::Settings { latency_ms: LATENCY_MS, daily_quota, ..marketo::Settings::default() }, data, now)
}

/// Lives through a plan and measures.
#[must_use]
pub fn measure(plan: &Plan) -> Measured {
    let world = Rc::new(World::new(*plan));
    let mut work = world.cloud.work();
    let changes: [Work; 4] = [
        Box::pin(world.clone().spend()),
        Box::pin(world.clone().stream()),
        Box::pin(world.clone().matches()),
        Box::pin(world.clone().becoming_known()),
    ];
    work.push(Box::pin(world.clone().load()));
    work.extend(changes);
    world.cloud.timed.run(work, plan.begin + WARM_MS + plan.changing_ms + LAST_MS);
    world.measured()
}

impl World {
    fn new(plan: Plan) -> Self {
        let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
        let adobe = Adobe::new(adobe::Settings::default(), library(FIRST_LIST..FIRST_LIST + plan.lists), plan.begin);
        let sim = Sim::new(plan.seed, plan.begin, instance(plan.marketo(), QUOTA, plan.begin), adobe);
        put(&sim, Table::Syncs, subscription_key(&munchkin), &subscription(&munchkin, true));
        for n in 0..plan.lists {
            let list = FIRST_LIST + n;
            let sync = active_sync(&munchkin, audience(list), list, n % 2 == 0);
            put(&sim, Table::Syncs, sync_key(&munchkin, &sync.id), &sync);
        }
        let pending: Shared = Arc::default();
        let watched = pending.clone();
        let timed = Timed::new(sim, Arc::new(move |request, now, marketo| look(&watched, request, now, marketo)));
        let ports = timed.ports();
        let people = |list: u64| (1..=plan.residents()).filter(|n| n % plan.lists == list).collect();
        let coming = (0..plan.lists).map(|list| (VecDeque::new(), people(list))).collect();
        let cloud = Cloud::new(&timed, &ports, &settings(QUOTA));
        Self { plan, cloud, munchkin, pending, coming: RefCell::new(coming) }
    }

    fn now(&self) -> u64 {
        self.cloud.deps.now()
    }

    fn send(&self, queue: Queue, body: String) {
        self.cloud.timed.sim.lock().enqueue(queue, Outgoing { body, group: None, dedup: None });
        self.cloud.timed.tell();
    }

    /// A message of a stream: these browsers entered these audiences, or left them.
    fn say(&self, entries: &[(ListId, u64)], inside: bool) {
        let now = self.now();
        let said = Streamed { changed: now, as_of: now, inside };
        let entries =
            entries.iter().map(|(list, person)| Entry { audience: audience(*list), ecid: number(*person), said });
        let message = Events {
            v: state::V1,
            munchkin_id: self.munchkin.clone(),
            feed: "stream".into(),
            received_at: now,
            entries: entries.collect(),
            ignored: 0,
            rejected: 0,
            rejects: Vec::new(),
        };
        self.send(Queue::Events, serde_json::to_string(&message).expect("a message"));
    }

    fn see(&self, person: u64) {
        let seen = json!({
            "v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(person), "token": token(person), "seen_at": self.now(),
        });
        self.send(Queue::Matches, seen.to_string());
    }

    fn wait_for(&self, list: ListId, lead: LeadId, wanted: bool, since: u64, fact: Fact) {
        lock(&self.pending).waiting.insert((list, lead), (wanted, since, fact));
    }

    /// The first load: everybody's browsers are in their audiences, and all but those who will be matched are matched.
    async fn load(self: Rc<Self>) {
        let plan = self.plan;
        let newcomers = (0..plan.newcomers()).flat_map(|n| [plan.matched(n), plan.visitor(n)]);
        let everybody: Vec<u64> = (1..=plan.residents()).chain(newcomers).collect();
        let mut entries = Vec::new();
        for person in &everybody {
            entries.extend(plan.lists_of(*person).into_iter().map(|list| (list, *person)));
        }
        for entries in entries.chunks(ENTRIES) {
            self.say(entries, true);
            self.cloud.timed.sleep_ms(500).await;
        }
        let first_match = plan.matched(0);
        let last_match = plan.matched(plan.newcomers() - 1);
        for person in everybody.iter().filter(|person| **person < first_match || **person > last_match) {
            self.see(*person);
            self.cloud.timed.sleep_ms(20).await;
        }
    }

    /// Most of the day's calls are gone when changes begin.
    async fn spend(self: Rc<Self>) {
        self.cloud.timed.sleep_ms(WARM_MS).await;
        let mut store = self.cloud.timed.sim.lock();
        let row = (Table::Syncs, ports::Key::new(MUNCHKIN, "budget"));
        let used = store.tables.get_mut(&row).and_then(|item| item.doc["used"].get_mut(3));
        if let Some(used) = used.filter(|_| self.plan.spent > 0) {
            *used = json!(self.plan.spent);
        }
    }

    /// Waits for a chance time around this mean. `None`: no change comes any more.
    async fn next(&self, rng: &mut SmallRng, mean: u64) -> Option<()> {
        let pause = -(1.0 - rng.random::<f64>()).ln() * mean as f64;
        self.cloud.timed.sleep_ms(pause as u64 + 1).await;
        (self.now() < self.plan.begin + WARM_MS + self.plan.changing_ms).then_some(())
    }

    fn chance(&self, which: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.plan.seed << 8 | which)
    }

    /// People who are known enter and leave.
    async fn stream(self: Rc<Self>) {
        let mut rng = self.chance(1);
        self.cloud.timed.sleep_ms(WARM_MS).await;
        while self.next(&mut rng, self.plan.stream_every_ms).await.is_some() {
            let index = rng.random_range(0..self.plan.lists);
            let list = FIRST_LIST + index;
            let chosen = {
                let mut coming = self.coming.borrow_mut();
                let (out, inside) = &mut coming[index as usize];
                let enters = out.len() >= COMING_AND_GOING || (!out.is_empty() && rng.random_bool(0.5));
                let (from, to) = if enters { (out, inside) } else { (inside, out) };
                // The one whose last change is the longest ago, unless that one is still under way.
                let waits = |person: &u64| lock(&self.pending).waiting.contains_key(&(list, *person));
                from.pop_front()
                    .filter(|person| {
                        let free = !waits(person);
                        if free {
                            to.push_back(*person)
                        } else {
                            from.push_back(*person)
                        };
                        free
                    })
                    .map(|person| (person, enters))
            };
            let Some((person, enters)) = chosen else { continue };
            let fact = if enters { Fact::Enters } else { Fact::Leaves };
            self.wait_for(list, person, enters, self.now(), fact);
            self.say(&[(list, person)], enters);
        }
    }

    /// Browsers in the audience are seen beside tokens of people who are known.
    async fn matches(self: Rc<Self>) {
        let mut rng = self.chance(2);
        self.cloud.timed.sleep_ms(WARM_MS).await;
        for n in 0..self.plan.newcomers() {
            if self.next(&mut rng, self.plan.people_every_ms).await.is_none() {
                return;
            }
            let person = self.plan.matched(n);
            for list in self.plan.lists_of(person) {
                self.wait_for(list, person, true, self.now(), Fact::Matched);
            }
            self.see(person);
        }
    }

    /// Visitors become known by a form, and nobody hints. The fact reaches us when Marketo's log shows it.
    async fn becoming_known(self: Rc<Self>) {
        let mut rng = self.chance(3);
        self.cloud.timed.sleep_ms(WARM_MS).await;
        for n in 0..self.plan.newcomers() {
            if self.next(&mut rng, self.plan.people_every_ms).await.is_none() {
                return;
            }
            let person = self.plan.visitor(n);
            let (now, lead) = {
                let mut store = self.cloud.timed.sim.lock();
                let now = store.now;
                (now, store.marketo.fill_form(now, &token(person), &format!("p{person}@example.com")))
            };
            let readable = now + marketo::Settings::default().activity_lag_ms;
            for list in self.plan.lists_of(person) {
                self.wait_for(list, lead, true, readable, Fact::Known);
            }
        }
    }

    fn measured(&self) -> Measured {
        let pending = lock(&self.pending);
        let took = [Fact::Enters, Fact::Leaves, Fact::Matched, Fact::Known].map(|fact| {
            let missing = pending.waiting.values().filter(|(_, _, other)| *other == fact).count();
            (fact, took(pending.took.get(&fact).cloned().unwrap_or_default(), missing))
        });
        let store = self.cloud.timed.sim.lock();
        let calls: Vec<&marketo::Call> = store.marketo.calls().iter().filter(|call| call.kind != Kind::Token).collect();
        let held = store.tables.iter().filter(|((table, key), item)| {
            *table == Table::Lists && key.sk.starts_with("list/") && !item.doc["held"].is_null()
        });
        let mut days = days(&calls, QUOTA / 2);
        let spent_on = next_midnight(self.plan.begin + WARM_MS);
        if let Some(day) = days.iter_mut().find(|day| day.ends == spent_on) {
            // What was spent stands in place of what the first load's small writes had cost.
            let after = calls.iter().filter(|call| call.at_ms > self.plan.begin + WARM_MS && call.at_ms < spent_on);
            day.calls = day.calls.max(self.plan.spent + after.count() as u64);
        }
        Measured {
            lists: self.plan.lists,
            took: took.into(),
            days,
            most_in_20_seconds: most_in_a_window(&calls),
            most_at_once: calls.iter().map(|call| call.in_flight).max().unwrap_or(0),
            refused: calls.iter().filter(|call| matches!(call.code, 606 | 607 | 615)).count(),
            stopped: self.cloud.stopped.get(),
            failed: self.cloud.failed.get(),
            held: held.count(),
        }
    }
}

fn took(mut took: Vec<u64>, missing: usize) -> Took {
    took.sort_unstable();
    let at = |part: f64| {
        let index = ((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(0.0, |ms| *ms as f64 / 1_000.0)
    };
    Took { changes: took.len(), p50_seconds: at(0.5), p95_seconds: at(0.95), max_seconds: at(1.0), missing }
}

/// Calls by day and kind.
#[must_use]
pub fn days(calls: &[&marketo::Call], allowed: u64) -> Vec<Day> {
    let mut days: BTreeMap<u64, BTreeMap<String, u64>> = BTreeMap::new();
    let mut ends = 0;
    for call in calls {
        if call.at_ms >= ends {
            ends = next_midnight(call.at_ms);
        }
        *days.entry(ends).or_default().entry(format!("{:?}", call.kind)).or_default() += 1;
    }
    let day = |(ends, kinds): (u64, BTreeMap<String, u64>)| Day { ends, calls: kinds.values().sum(), allowed, kinds };
    days.into_iter().map(day).collect()
}

/// Most calls in any rolling 20 seconds.
#[must_use]
pub fn most_in_a_window(calls: &[&marketo::Call]) -> usize {
    let mut window = VecDeque::new();
    let mut most = 0;
    for call in calls {
        window.push_back(call.at_ms);
        while window.front().is_some_and(|at| at + marketo::RATE_WINDOW_MS <= call.at_ms) {
            window.pop_front();
        }
        most = most.max(window.len());
    }
    most
}
