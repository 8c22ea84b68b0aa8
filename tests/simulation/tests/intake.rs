//! Pairs from browsers and hints from forms, from the request to the stored record: what is preferred, what it costs,
//! what is durable when something is down, and what the caps do.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use cookie_ingest::{Answer, Counts, HttpEvent, Ingest, LookAt, Match, Message, store};
use domain::identity::TokenRecord;
use domain::limits::{DAY_MS, ECIDS_PER_TOKEN, TOKENS_PER_ECID};
use domain::{Ecid, MunchkinId, Token};
use ports::{Expect, Item, Key, Outgoing, Page, PortError, PortResult, Queue, Queues, Read, Table, Tables};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::fakes::run;
use simulation::scenario::{FileOf, LIST, MUNCHKIN, ORG, PAGE, Scenario, beacon, ecid, instance, token};
use state::edges::Noted;
use state::identity::{Intake, ask_pk, hints_of_ecid, intake_key, save_token, token_key, tokens, wanted_looks};
use state::{Deps, Doc, load};
use world::types::Lead;

/// A world in which lead n owns token n and is known, and pages of [`PAGE`] may send.
fn world(leads: u64) -> Scenario {
    let lead =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: vec![token(id)], ecids: Vec::new() };
    let data = instance((1..=leads).map(lead).collect(), BTreeSet::new());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    set(&mut scenario, &json!({}));
    scenario.driver.ticking = false;
    scenario
}

fn set(scenario: &mut Scenario, change: &Value) {
    let mut body = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "extract_since": "2025-12-20T00:00:00Z",
        "origins": [PAGE]});
    body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    let (status, answer) = scenario.request("PUT", "/subscription", &body);
    assert!(status < 300, "{status} {answer}");
}

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("valid")
}

fn id(n: u64) -> Ecid {
    Ecid::parse(&ecid(n)).expect("valid")
}

fn pair(e: u64, t: u64) -> Value {
    json!({"org_id": ORG, "munchkin_id": MUNCHKIN, "ecid": ecid(e), "token": token(t)})
}

fn page(e: u64, t: u64) -> HttpEvent {
    beacon(&pair(e, t), &[], PAGE)
}

/// Answers a request while the world stands still: the answer, and what was counted.
fn ask(ingest: &Ingest, request: &HttpEvent) -> (Answer, Vec<&'static str>) {
    let counts = Counts::default();
    let answer = run(ingest.request(request, &counts)).expect("an answer");
    (answer, counts.all().into_keys().collect())
}

/// Matches that lie in the queue.
fn queued(scenario: &Scenario) -> Vec<Match> {
    let store = scenario.driver.sim.lock();
    let bodies = store.messages.iter().filter(|message| message.queue == Queue::Matches);
    let messages = bodies.map(|message| serde_json::from_str(&message.body).expect("a message"));
    messages
        .filter_map(|message| match message {
            Message::Match(found) => Some(found),
            Message::Hint(_) => None,
        })
        .collect()
}

fn a_match(e: u64, t: u64, seen_at: u64, public: bool) -> Message {
    let found = json!({"v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(e), "token": token(t), "seen_at": seen_at,
        "public": public});
    serde_json::from_value(found).expect("a match")
}

/// Stores a batch; what was counted.
fn stored(deps: &Deps, messages: &[Message]) -> BTreeMap<&'static str, u64> {
    let counts = Counts::default();
    run(store(deps, messages, &counts)).expect("stored");
    counts.all()
}

fn record(deps: &Deps, t: u64) -> Option<Doc<TokenRecord>> {
    let token = Token::parse(&token(t)).expect("valid");
    run(load(deps, Table::Identity, &token_key(&munchkin(), &token))).expect("a table")
}

fn intake(deps: &Deps) -> Intake {
    let found: Option<Doc<Intake>> =
        run(load(deps, Table::Identity, &intake_key(&munchkin(), deps.now()))).expect("a table");
    found.map(|found| found.value).unwrap_or_default()
}

/// The tokens to which an ECID's hints lead.
fn hinted(deps: &Deps, e: u64) -> usize {
    run(hints_of_ecid(deps, &munchkin(), id(e))).expect("a table").tokens.len()
}

fn members(scenario: &Scenario) -> usize {
    scenario.driver.sim.lock().marketo.members(LIST).map_or(0, BTreeSet::len)
}

fn deliver(scenario: &mut Scenario, e: u64) {
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, BTreeSet::from([e]))]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
}

fn settle(scenario: &mut Scenario) {
    scenario.driver.ticking = true;
    scenario.driver.settle(6 * 3_600_000).expect("rest");
    scenario.driver.ticking = false;
}

/// A port that notes which items were read and how, and fails on demand.
#[derive(Clone)]
struct Watched {
    deps: Deps,
    reads: Arc<Mutex<Vec<(Table, Read)>>>,
    identity_down: Arc<AtomicBool>,
    queue_down: Arc<AtomicBool>,
}

impl Watched {
    fn over(deps: Deps) -> (Self, Deps) {
        let watched = Self {
            deps: deps.clone(),
            reads: Arc::default(),
            identity_down: Arc::default(),
            queue_down: Arc::default(),
        };
        let mut ports = deps.ports.clone();
        ports.tables = Arc::new(watched.clone());
        ports.queues = Arc::new(watched.clone());
        let settings = (*deps.settings).clone();
        (watched, Deps::new(ports, settings))
    }

    fn read(&self, table: Table, read: Read) -> PortResult<()> {
        self.reads.lock().expect("no panic").push((table, read));
        if table == Table::Identity && self.identity_down.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable { service: "DynamoDB", reason: "throttled".into() });
        }
        Ok(())
    }

    fn take_reads(&self) -> Vec<(Table, Read)> {
        std::mem::take(&mut *self.reads.lock().expect("no panic"))
    }
}

#[async_trait]
impl Tables for Watched {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        self.read(table, read)?;
        self.deps.ports.tables.get(table, key, read).await
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        self.read(table, read)?;
        self.deps.ports.tables.batch_get(table, keys, read).await
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        self.deps.ports.tables.put(table, item, expect).await
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        self.deps.ports.tables.put_all(table, items).await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        self.deps.ports.tables.delete(table, key, expect).await
    }

    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        read: Read,
    ) -> PortResult<Page> {
        self.read(table, read)?;
        self.deps.ports.tables.query(table, pk, prefix, after, limit, read).await
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.deps.ports.tables.due(table, due_pk, until, limit).await
    }
}

#[async_trait]
impl Queues for Watched {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        if self.queue_down.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable { service: "SQS", reason: "down".into() });
        }
        self.deps.ports.queues.send(queue, messages).await
    }
}

// ---- The beacon. ----

#[test]
fn the_browsers_own_cookies_go_before_what_the_page_says() {
    let scenario = world(0);
    let amcv = format!("AMCV_{}=1176715910%7CMCMID%7C{}%7CMCOPTOUT-1%7CNONE", ORG.replace('@', "%40"), ecid(2));
    let trk = format!("_mkto_trk=id:{MUNCHKIN}&token:{}", token(2));
    let theirs = format!("_mkto_trk=id:999-ZZZ-999&token:{}", token(3));
    let mut late = pair(1, 1);
    late["seen_at"] = json!("2020-01-01T00:00:00Z");
    late["public"] = json!(false);
    let nothing = json!({});
    for (body, cookies, expected) in [
        (&late, vec![], Some((1, 1))),
        (&late, vec![amcv.as_str()], Some((2, 1))),
        (&late, vec![&trk], Some((1, 2))),
        (&late, vec![&trk, &amcv], Some((2, 2))),
        (&nothing, vec![&theirs, &trk, &amcv], Some((2, 2))),
        (&nothing, vec![&trk], None),
        (&nothing, vec![&amcv], None),
        (&nothing, vec![&theirs, &amcv], None),
    ] {
        scenario.driver.sim.lock().messages.clear();
        let ingest = Ingest::new(scenario.driver.deps());
        let before = scenario.driver.sim.lock().now;
        let (answer, _) = ask(&ingest, &beacon(body, &cookies, PAGE));
        assert_eq!(answer.status, 204);
        let sent: Vec<(Ecid, String)> =
            queued(&scenario).into_iter().map(|found| (found.ecid, found.token.as_str().to_owned())).collect();
        let expected: Vec<(Ecid, String)> = expected.into_iter().map(|(e, t)| (id(e), token(t))).collect();
        assert!(sent == expected, "{} cookies", cookies.len());
        let received = |found: &Match| found.public && found.seen_at >= before;
        assert!(queued(&scenario).iter().all(received), "the time of receipt counts, and a page is a page");
    }
}

#[test]
fn each_opt_out_in_the_cookies_is_heeded() {
    let scenario = world(0);
    let ingest = Ingest::new(scenario.driver.deps());
    let amcv = format!("AMCV_{}=MCMID%7C{}%7CMCOPTOUT-1%7Cglobal", ORG.replace('@', "%40"), ecid(2));
    for cookie in ["mkto_opt_out=true", "demdex=NOTARGET", &amcv] {
        assert_eq!(ask(&ingest, &beacon(&pair(1, 1), &[cookie], PAGE)).1, ["beacon_opted_out"]);
    }
    assert!(queued(&scenario).is_empty());
}

#[test]
fn a_repeat_costs_half_a_read_unit_and_then_nothing() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    stored(&deps, &[a_match(1, 1, deps.now(), true)]);
    let (watched, deps) = Watched::over(deps);
    let ingest = Ingest::new(deps);
    let (writes, sent) = {
        let store = scenario.driver.sim.lock();
        (store.writes, store.sent.len())
    };
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_known"]);
    assert_eq!(watched.take_reads(), [(Table::Syncs, Read::Consistent), (Table::Identity, Read::Eventual)]);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_remembered"]);
    assert_eq!(watched.take_reads(), []);
    // The subscriptions are read again after a minute, the pair after a quarter of an hour.
    let now = watched.deps.now();
    scenario.driver.sim.lock().advance(now + 10 * 60_000);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_remembered"]);
    assert_eq!(watched.take_reads(), [(Table::Syncs, Read::Consistent)]);
    scenario.driver.sim.lock().advance(now + 20 * 60_000);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_known"]);
    watched.take_reads();
    // Another process knows nothing, and reads.
    assert_eq!(ask(&Ingest::new(watched.deps.clone()), &page(1, 1)).1, ["beacon_known"]);
    let store = scenario.driver.sim.lock();
    assert_eq!((store.writes, store.sent.len()), (writes, sent), "a repeat writes and sends nothing");
}

#[test]
fn an_erased_visitor_who_returns_is_seen_within_a_quarter_of_an_hour() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    stored(&deps, &[a_match(1, 1, deps.now(), true)]);
    let ingest = Ingest::new(deps.clone());
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_known"]);
    let Doc { mut value, rev } = record(&deps, 1).expect("stored");
    assert!(value.erase(deps.now()));
    assert!(run(save_token(&deps, &munchkin(), &value, Some(rev), &Noted::needless())).expect("a table"));
    let now = deps.now();
    scenario.driver.sim.lock().advance(now + 15 * 60_000);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_new"]);
}

#[test]
fn a_pair_in_the_queue_is_remembered_for_a_minute_and_no_longer() {
    let scenario = world(0);
    let ingest = Ingest::new(scenario.driver.deps());
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_new"]);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_remembered"]);
    assert_eq!(ask(&ingest, &page(1, 2)).1, ["beacon_new"]);
    let now = scenario.driver.sim.lock().now;
    scenario.driver.sim.lock().advance(now + 60_000);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_new"], "the other side of the queue may have dropped it");
    assert_eq!(queued(&scenario).len(), 3);
}

#[test]
fn a_last_sight_of_a_month_ago_moves() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let began = deps.now();
    stored(&deps, &[a_match(1, 1, began, true)]);
    let ingest = Ingest::new(deps.clone());
    scenario.driver.sim.lock().advance(began + 30 * DAY_MS);
    assert_eq!(ask(&ingest, &page(1, 1)).1, ["beacon_new"]);
    let again: Vec<Message> = queued(&scenario).into_iter().map(Message::Match).collect();
    assert_eq!(stored(&deps, &again)["pairs_later"], 1);
    let seen = record(&deps, 1).expect("stored").value.ecids[&id(1)];
    assert!(seen.first == began && seen.last >= began + 30 * DAY_MS);
}

#[test]
fn a_new_pair_is_in_the_queue_before_a_2xx_and_else_nothing_is_promised() {
    let scenario = world(0);
    let (watched, deps) = Watched::over(scenario.driver.deps());
    let ingest = Ingest::new(deps);
    watched.queue_down.store(true, Ordering::SeqCst);
    let (answer, counted) = ask(&ingest, &page(1, 1));
    assert_eq!((answer.status, answer.headers.len(), answer.body.len()), (503, 0, 0));
    assert_eq!(counted, ["beacon_lost"]);
    watched.queue_down.store(false, Ordering::SeqCst);
    let (answer, counted) = ask(&ingest, &page(1, 1));
    assert_eq!((answer.status, counted, queued(&scenario).len()), (204, vec!["beacon_new"], 1));
}

#[test]
fn a_table_that_is_throttled_lets_every_pair_wait_in_the_queue() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    stored(&deps, &[a_match(1, 1, deps.now(), true)]);
    let (watched, deps) = Watched::over(deps);
    watched.identity_down.store(true, Ordering::SeqCst);
    let ingest = Ingest::new(deps.clone());
    for (e, t) in [(1, 1), (2, 2)] {
        let (answer, counted) = ask(&ingest, &page(e, t));
        assert_eq!((answer.status, counted), (204, vec!["beacon_new"]));
    }
    let batch: Vec<Message> = queued(&scenario).into_iter().map(Message::Match).collect();
    assert_eq!(batch.len(), 2);
    assert!(run(store(&deps, &batch, &Counts::default())).is_err(), "the batch goes back into the queue");
    watched.identity_down.store(false, Ordering::SeqCst);
    stored(&deps, &batch);
    assert!(record(&deps, 2).is_some_and(|found| found.value.ecids.contains_key(&id(2))));
}

#[test]
fn what_cannot_be_checked_is_not_promised() {
    let scenario = world(0);
    let ingest = Ingest::new(scenario.driver.deps());
    scenario.driver.sim.lock().faults.unavailable = 1.0;
    assert_eq!(ask(&ingest, &page(1, 1)).0.status, 503);
}

// ---- Storing. ----

/// Everything of the identity table but the random revisions of hints.
fn identity(scenario: &Scenario) -> BTreeMap<Key, (Value, bool)> {
    let store = scenario.driver.sim.lock();
    let items = store.tables.iter().filter(|((table, _), _)| *table == Table::Identity);
    items.map(|((_, key), item)| (key.clone(), (item.doc.clone(), item.due.is_some()))).collect()
}

#[test]
fn a_batch_is_deduplicated_and_changes_nothing_when_it_comes_again() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let now = deps.now();
    let mut batch = vec![a_match(1, 1, now, true); 5];
    batch.extend([a_match(1, 1, now + 1, true), a_match(2, 1, now, true), a_match(2, 2, now, false)]);
    let before = scenario.driver.sim.lock().writes;
    let counted = stored(&deps, &batch);
    assert_eq!(counted, BTreeMap::from([("pairs_new", 3)]));
    // Three hints, two tokens, a note of both, the day's numbers. The bell is dirty already.
    assert_eq!(scenario.driver.sim.lock().writes - before, 7);
    let first = identity(&scenario);
    assert_eq!(stored(&deps, &batch), BTreeMap::new());
    batch.reverse();
    stored(&deps, &batch);
    assert!(identity(&scenario) == first);
    assert_eq!(intake(&deps).new_public, 2);
}

#[test]
fn page_views_are_counted_and_cost_no_write_of_their_own() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let amcv = format!("AMCV_{}=MCMID%7C{}", ORG.replace('@', "%40"), ecid(1));
    let trk = format!("_mkto_trk=id:{MUNCHKIN}&token:{}", token(1));
    let with_cookies = beacon(&json!({}), &[&trk, &amcv], PAGE);
    let ingest = Ingest::new(deps.clone());
    let views = |ingest: &Ingest, request: &HttpEvent| {
        ask(ingest, request);
        let told = queued(&scenario).pop().and_then(|found| found.views);
        scenario.driver.sim.lock().messages.retain(|message| message.queue != Queue::Matches);
        told.map(|views| (views.all, views.both))
    };
    assert_eq!(views(&ingest, &with_cookies), Some((1, 1)));
    stored(&deps, &[a_match(1, 1, deps.now(), true)]);
    // Repeats send nothing and write nothing, in this process and in another.
    let before = scenario.driver.sim.lock().writes;
    for _ in 0..3 {
        assert_eq!(views(&ingest, &with_cookies), None);
    }
    let cold = Ingest::new(deps.clone());
    assert_eq!(views(&cold, &page(1, 1)), None);
    assert_eq!(scenario.driver.sim.lock().writes, before);
    // The next new pair of a process tells of them.
    assert_eq!(views(&ingest, &page(2, 2)), Some((4, 3)));
    assert_eq!(views(&cold, &page(3, 3)), Some((2, 0)));
    // They stand in the day's numbers, which are written anyway.
    let Message::Match(mut found) = a_match(4, 4, deps.now(), true) else { panic!("a match") };
    found.views = Some(cookie_ingest::Views { all: 4, both: 3 });
    let hour = |intake: Intake| intake.views.last().map(|views| (views.all, views.both));
    let before = scenario.driver.sim.lock().writes;
    stored(&deps, &[a_match(5, 5, deps.now(), true)]);
    let without = scenario.driver.sim.lock().writes - before;
    assert_eq!(hour(intake(&deps)), None);
    stored(&deps, &[Message::Match(found)]);
    assert_eq!(scenario.driver.sim.lock().writes, before + 2 * without);
    assert_eq!(hour(intake(&deps)), Some((4, 3)));
}

#[test]
fn the_earliest_of_a_batchs_sights_is_the_first() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let now = deps.now();
    let times = [now - 5 * DAY_MS, now - 40 * DAY_MS, now, now - 20 * DAY_MS];
    let batch: Vec<Message> = times.iter().map(|at| a_match(1, 1, *at, false)).collect();
    stored(&deps, &batch);
    let seen = record(&deps, 1).expect("stored").value.ecids[&id(1)];
    assert_eq!((seen.first, seen.last), (now - 40 * DAY_MS, now - 5 * DAY_MS), "last sights have a grain of 30 days");
}

#[test]
fn an_expired_match_is_not_stored() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let lifetime = deps.settings.match_lifetime_ms;
    let now = deps.now();
    let counted = stored(&deps, &[a_match(1, 1, now - lifetime, true), a_match(2, 2, now - lifetime + 60_000, true)]);
    assert_eq!((counted["pairs_expired"], counted["pairs_new"]), (1, 1));
    assert!(record(&deps, 1).is_none() && record(&deps, 2).is_some());
    assert_eq!(hinted(&deps, 1), 0);
}

#[test]
fn a_token_over_its_cap_takes_no_more_and_says_so() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let now = deps.now();
    let batch: Vec<Message> = (1..=60).map(|e| a_match(e, 1, now, true)).collect();
    let over = 60 - (ECIDS_PER_TOKEN as u64 + 1);
    assert_eq!(stored(&deps, &batch)["token_over_cap"], over);
    let kept = record(&deps, 1).expect("stored").value;
    assert!(kept.set_aside() && kept.ecids.len() == ECIDS_PER_TOKEN + 1);
    assert_eq!(intake(&deps).token_over_cap, over);
    let left: usize = (1..=60).map(|e| hinted(&deps, e)).sum();
    assert_eq!(left, kept.ecids.len(), "what is not stored leaves no hint");
}

// ---- Caps of an ECID. ----

/// The 11th token of an ECID comes before the file, after the pass, or between; with a lead or without: nobody counts.
#[test]
fn an_ecid_over_its_cap_counts_for_nobody_whenever_its_last_token_comes() {
    let over = TOKENS_PER_ECID as u64 + 1;
    for of_nobody in [false, true] {
        for last in 1..=over {
            for late in [false, true] {
                let mut scenario = world(over - u64::from(of_nobody));
                scenario.create(101, &json!({"id": LIST})).expect("a sync");
                for t in (1..=over).filter(|t| *t != last) {
                    scenario.see(1, t);
                }
                if late {
                    deliver(&mut scenario, 1);
                    settle(&mut scenario);
                    let known = over - 1 - u64::from(of_nobody && last != over);
                    assert_eq!(members(&scenario) as u64, known, "before the last token, {last}");
                }
                scenario.see(1, last);
                settle(&mut scenario);
                if !late {
                    deliver(&mut scenario, 1);
                    settle(&mut scenario);
                }
                assert_eq!(members(&scenario), 0, "last {last}, late {late}, of nobody {of_nobody}");
            }
        }
    }
}

#[test]
fn beyond_one_above_the_cap_of_an_ecid_nothing_is_stored_and_it_is_counted() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let now = deps.now();
    let most = TOKENS_PER_ECID as u64 + 1;
    for t in 1..=most + 3 {
        stored(&deps, &[a_match(1, t, now, false)]);
    }
    let all: Vec<Token> = (1..=most + 3).filter_map(|t| Token::parse(&token(t))).collect();
    let found = run(tokens(&deps, &munchkin(), &all)).expect("a table");
    let edges = found.iter().filter(|found| found.value.ecids.contains_key(&id(1))).count();
    assert_eq!((edges as u64, intake(&deps).ecid_over_cap), (most, 3));
    assert_eq!(hinted(&deps, 1) as u64, most, "what is not stored leaves no hint");
    // Another ECID of such a token is taken.
    stored(&deps, &[a_match(2, most + 1, now, false)]);
    assert!(record(&deps, most + 1).is_some_and(|found| found.value.ecids.contains_key(&id(2))));
}

/// Hints of tokens whose edges are gone keep nobody out.
#[test]
fn only_edges_count_towards_the_cap() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let now = deps.now();
    let hint = |t: u64| state::identity::ecid_to_token(&munchkin(), id(1), &Token::parse(&token(t)).expect("valid"));
    run(state::identity::put_hints(&deps, (1..=20).map(hint))).expect("a table");
    assert_eq!(stored(&deps, &[a_match(1, 21, now, false)])["pairs_new"], 1);
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

fn poll(work: &mut Work, times: usize) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    (0..times).any(|_| matches!(work.as_mut().poll(&mut context), Poll::Ready(())))
}

fn storing(scenario: &Scenario, message: Message) -> Work {
    let deps = scenario.driver.deps();
    Box::pin(async move { store(&deps, &[message], &Counts::default()).await.expect("stored") })
}

/// Two tokens together bring an ECID over its cap, each stopped at any await while the other one runs.
#[test]
fn two_tokens_that_exceed_the_cap_together_are_noticed() {
    let under = TOKENS_PER_ECID as u64 - 1;
    for stop in 0.. {
        let mut scenario = world(under + 2);
        scenario.create(101, &json!({"id": LIST})).expect("a sync");
        (1..=under).for_each(|t| scenario.see(1, t));
        deliver(&mut scenario, 1);
        settle(&mut scenario);
        assert_eq!(members(&scenario) as u64, under);
        let now = scenario.driver.sim.lock().now;
        let mut one = storing(&scenario, a_match(1, under + 1, now, true));
        let ended = poll(&mut one, stop);
        assert!(poll(&mut storing(&scenario, a_match(1, under + 2, now, true)), 5_000));
        assert!(ended || poll(&mut one, 5_000));
        settle(&mut scenario);
        assert_eq!(members(&scenario), 0, "stopped at {stop}");
        if ended {
            assert!(stop > 5, "only {stop} awaits");
            return;
        }
    }
}

// ---- Erasure. ----

#[test]
fn a_match_of_before_an_ecids_erasure_is_dropped_and_a_later_one_counts() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let at = deps.now();
    run(state::identity::erase_ecid(&deps, &munchkin(), id(1), at)).expect("a table");
    let old = a_match(1, 1, at, true);
    assert_eq!(stored(&deps, std::slice::from_ref(&old))["pairs_erased"], 1);
    assert!(record(&deps, 1).is_some_and(|found| found.value.ecids.is_empty()));
    assert_eq!(hinted(&deps, 1), 0);
    let writes = scenario.driver.sim.lock().writes;
    stored(&deps, std::slice::from_ref(&old));
    assert_eq!(scenario.driver.sim.lock().writes, writes, "the second time nothing is written");
    stored(&deps, &[old, a_match(1, 1, at + 1, true)]);
    assert!(record(&deps, 1).is_some_and(|found| found.value.ecids.contains_key(&id(1))));
    assert_eq!(hinted(&deps, 1), 1);
}

/// An erasure while a match of before is being stored, at every await.
#[test]
fn an_erasure_and_a_match_of_before_at_once_leave_nothing() {
    for stop in 0.. {
        let mut scenario = world(1);
        let now = scenario.driver.sim.lock().now;
        let mut one = storing(&scenario, a_match(1, 1, now, true));
        let ended = poll(&mut one, stop);
        let (status, answer) = scenario.request("POST", "/people/erase", &json!({"ecid": ecid(1)}));
        assert_eq!(status, 202, "{answer}");
        settle(&mut scenario);
        assert!(ended || poll(&mut one, 5_000));
        // The message may come again, late.
        assert!(poll(&mut storing(&scenario, a_match(1, 1, now, true)), 5_000));
        settle(&mut scenario);
        let deps = scenario.driver.deps();
        assert!(record(&deps, 1).is_none_or(|found| found.value.ecids.is_empty()), "stopped at {stop}");
        assert_eq!(hinted(&deps, 1), 0, "stopped at {stop}");
        if ended {
            assert!(stop > 5, "only {stop} awaits");
            return;
        }
    }
}

// ---- The day's cap. ----

#[test]
fn beyond_the_days_cap_a_sample_of_visitors_is_kept_whole_and_the_rest_is_counted() {
    let mut scenario = world(0);
    set(&mut scenario, &json!({"new_pairs_per_day": 20}));
    let deps = scenario.driver.deps();
    let now = deps.now();
    // Each of 300 visitors with two ECIDs.
    let batch = |from: u64, public: bool| -> Vec<Message> {
        (from..from + 50).flat_map(|t| [a_match(2 * t, t, now, public), a_match(2 * t + 1, t, now, public)]).collect()
    };
    let mut sampled_out = 0;
    for from in (0..300).step_by(50) {
        sampled_out += stored(&deps, &batch(1_000 + from, true)).get("pairs_sampled_out").copied().unwrap_or(0);
    }
    let numbers = intake(&deps);
    assert_eq!((numbers.new_public, numbers.over_day_cap, numbers.sampled_out), (600, 580, sampled_out));
    let kept: Vec<usize> =
        (1_000..1_300).filter_map(|t| record(&deps, t)).map(|found| found.value.ecids.len()).collect();
    assert!(kept.iter().all(|ecids| *ecids == 2), "whoever is kept is kept whole");
    let (kept, within) = (kept.len() as u64, 10);
    assert_eq!(2 * kept, 600 - sampled_out);
    // One in ten of the 290 beyond it.
    assert!((within + 10..=within + 60).contains(&kept), "{kept}");

    // The same batch again counts again, and keeps the same ones.
    let before = identity(&scenario).len();
    stored(&deps, &batch(1_250, true));
    assert_eq!(identity(&scenario).len(), before);
    assert!(intake(&deps).new_public > 600);

    // What a server sends has no cap, and the next day begins anew.
    stored(&deps, &batch(2_000, false));
    assert!((2_000..2_050).all(|t| record(&deps, t).is_some()));
    scenario.driver.sim.lock().advance(now + DAY_MS);
    stored(&deps, &[a_match(1, 3_000, now + DAY_MS, true)]);
    assert!(record(&deps, 3_000).is_some());
    assert_eq!(intake(&deps).new_public, 1);
}

#[test]
fn repeats_do_not_count_towards_the_days_cap() {
    let mut scenario = world(0);
    set(&mut scenario, &json!({"new_pairs_per_day": 1}));
    let deps = scenario.driver.deps();
    let now = deps.now();
    for _ in 0..5 {
        stored(&deps, &[a_match(1, 1, now, true)]);
    }
    assert_eq!(Intake { last_at: None, ..intake(&deps) }, Intake { v: 1, new_public: 1, ..Intake::default() });
}

/// What servers send counts towards no cap; when it came is noted, and not with a write for each.
#[test]
fn the_last_new_match_of_a_server_is_noted_to_ten_minutes() {
    let scenario = world(0);
    let deps = scenario.driver.deps();
    let begin = deps.now();
    let mut n = 0;
    // Writes that a new pair costs so long after the first, in minutes.
    let mut writes = |minutes: u64| {
        let before = {
            let mut store = scenario.driver.sim.lock();
            store.advance(begin + minutes * 60_000);
            store.writes
        };
        n += 1;
        stored(&deps, &[a_match(n, n, deps.now(), false)]);
        scenario.driver.sim.lock().writes - before
    };
    let minute = |deps: &Deps| intake(deps).last_at.map(|at| (at - begin) / 60_000);
    let first = writes(0);
    assert_eq!((minute(&deps), intake(&deps).new_public), (Some(0), 0));
    assert_eq!(writes(9), first - 1);
    assert_eq!(minute(&deps), Some(0));
    assert_eq!(writes(11), first);
    assert_eq!(minute(&deps), Some(11));
    scenario.driver.sim.lock().advance(begin + 60 * 60_000);
    stored(&deps, &[a_match(1, 1, begin + 1, false)]);
    assert_eq!(minute(&deps), Some(11), "a match that is seen again does not count");
}

// ---- Hints. ----

fn hint(secret: &str, body: &Value) -> HttpEvent {
    HttpEvent {
        method: "POST".into(),
        path: "/hints".into(),
        headers: vec![("x-hint-secret".into(), secret.into()), ("content-type".into(), "application/json".into())],
        body: body.to_string().into_bytes(),
        ..HttpEvent::default()
    }
}

fn new_secret(scenario: &mut Scenario) -> String {
    let (status, answer) = scenario.request("POST", "/subscription/hint-secrets", &json!({}));
    assert!(status < 300, "{status} {answer}");
    answer["secret"].as_str().expect("a secret").to_owned()
}

fn body_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn hints_need_one_of_the_two_newest_secrets() {
    let mut scenario = world(0);
    let ingest = Ingest::new(scenario.driver.deps());
    let one = json!({"munchkin_id": MUNCHKIN, "lead_id": 7});
    let mut secrets: Vec<String> = Vec::new();
    for valid in [vec![], vec![0], vec![0, 1], vec![1, 2]] {
        // A new secret is good within a second, and the one that it replaces ends within a minute.
        for (wait, expected) in [(1_000, 202), (60_000, 401)] {
            let now = scenario.driver.sim.lock().now;
            scenario.driver.sim.lock().advance(now + wait);
            for (index, secret) in
                secrets.iter().enumerate().filter(|(index, _)| valid.contains(index) == (expected == 202))
            {
                assert_eq!(ask(&ingest, &hint(secret, &one)).0.status, expected, "{index} of {valid:?}");
            }
        }
        let without = HttpEvent { headers: Vec::new(), ..hint("", &one) };
        let other =
            hint(secrets.last().map_or("x", String::as_str), &json!({"munchkin_id": "999-ZZZ-999", "lead_id": 7}));
        let refused: Vec<Answer> = [hint("", &one), hint("wrong", &one), without, other]
            .iter()
            .map(|request| ask(&ingest, request).0)
            .collect();
        assert!(refused.iter().all(|answer| *answer == refused[0]), "nothing tells what was wrong");
        assert_eq!((refused[0].status, refused[0].content_type), (401, "application/problem+json"));
        secrets.push(new_secret(&mut scenario));
    }
}

#[test]
fn each_hint_is_answered_by_itself_and_no_email_is_taken() {
    let mut scenario = world(0);
    let secret = new_secret(&mut scenario);
    let ingest = Ingest::new(scenario.driver.deps());
    let canary = "canary@example.com";
    let body = json!({"munchkin_id": MUNCHKIN, "hints": [
        {"token": token(1)}, {"lead_id": 7}, {"lead_id": "8"}, {"email": canary}, {"lead_id": 0}, {}, "x",
        {"cookie": format!("id:{MUNCHKIN}&token:{}", token(2))},
    ]});
    let (answer, _) = ask(&ingest, &hint(&secret, &body));
    let results = body_of(&answer);
    let seen: Vec<(u64, &str, &str)> = results["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| {
            let text = |name: &str| result[name].as_str().unwrap_or("");
            (result["index"].as_u64().expect("an index"), text("status"), text("field"))
        })
        .collect();
    let (good, bad) = ("accepted", "refused");
    assert_eq!(answer.status, 202);
    assert_eq!(
        seen,
        [
            (0, good, ""),
            (1, good, ""),
            (2, good, ""),
            (3, bad, "email"),
            (4, bad, "lead_id"),
            (5, bad, "token"),
            (6, bad, ""),
            (7, good, "")
        ]
    );
    assert_eq!(results["results"][3]["reason"], "send the lead id: no email is stored or queued");
    assert!(!results.to_string().contains(canary));
    let queued: Vec<String> = scenario.driver.sim.lock().messages.iter().map(|message| message.body.clone()).collect();
    let hints = queued.iter().filter_map(|body| serde_json::from_str(body).ok());
    let looks: Vec<LookAt> = hints
        .filter_map(|message| match message {
            Message::Hint(hint) => Some(hint.look_at),
            Message::Match(_) => None,
        })
        .collect();
    assert_eq!(looks.len(), 4);
    assert!(looks.contains(&LookAt::LeadId(8)));
    assert!(!queued.concat().contains(canary));

    for (body, status) in [
        (json!({"munchkin_id": MUNCHKIN, "email": canary}), 400),
        (json!({"munchkin_id": MUNCHKIN, "email": canary, "hints": [{"lead_id": 7}]}), 400),
        (json!({"munchkin_id": MUNCHKIN, "hints": vec![json!({"lead_id": 7}); 301]}), 400),
        (json!({"munchkin_id": MUNCHKIN, "hints": {}}), 400),
        (json!({"lead_id": 7}), 400),
        (json!([]), 400),
        (json!({"munchkin_id": MUNCHKIN, "lead_id": 7, "x": "x".repeat(128 * 1024)}), 413),
    ] {
        let (answer, _) = ask(&ingest, &hint(&secret, &body));
        assert_eq!(answer.status, status);
        assert!(!String::from_utf8_lossy(&answer.body).contains(canary));
    }
    set(&mut scenario, &json!({"hipaa_ready": true}));
    let cold = Ingest::new(scenario.driver.deps());
    assert_eq!(ask(&cold, &hint(&secret, &json!({"munchkin_id": MUNCHKIN, "lead_id": 7}))).0.status, 403);
}

#[test]
fn a_webhooks_form_is_taken_too() {
    let mut scenario = world(0);
    let secret = new_secret(&mut scenario);
    let ingest = Ingest::new(scenario.driver.deps());
    let mut request = hint(&secret, &json!(null));
    request.headers[1].1 = "application/x-www-form-urlencoded".into();
    request.body = format!("munchkin_id={MUNCHKIN}&lead_id=7&token=").into_bytes();
    assert_eq!(ask(&ingest, &request).0.status, 202);
}

#[test]
fn a_hint_brings_the_look_up_forward() {
    let mut scenario = world(0);
    let secret = new_secret(&mut scenario);
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    deliver(&mut scenario, 1);
    settle(&mut scenario);
    scenario.see(1, 1);
    settle(&mut scenario);
    let deps = scenario.driver.deps();
    let asked = record(&deps, 1).expect("stored").value;
    assert!(asked.asked_at.is_some() && !asked.hinted, "asked at once, and the token is nobody's");
    let ingest = Ingest::new(deps.clone());

    let token_of = |t: u64| json!({"munchkin_id": MUNCHKIN, "token": token(t)});
    assert_eq!(ask(&ingest, &hint(&secret, &token_of(1))).0.status, 202);
    assert_eq!(ask(&ingest, &hint(&secret, &token_of(2))).0.status, 202);
    scenario.driver.run_until_stored();
    assert!(record(&deps, 1).expect("stored").value.hinted);
    assert!(record(&deps, 2).is_none(), "a token that nobody has seen is asked about when it is seen");
    // No tick: the hint alone rings.
    scenario.driver.run_for(30_000);
    let again = record(&deps, 1).expect("stored").value;
    assert!(again.asked_at > asked.asked_at && !again.hinted);

    assert_eq!(ask(&ingest, &hint(&secret, &json!({"munchkin_id": MUNCHKIN, "lead_id": 7}))).0.status, 202);
    scenario.driver.run_until_stored();
    let wanted = run(wanted_looks(&deps, &munchkin(), 10)).expect("a table");
    assert_eq!(wanted.iter().map(|(lead, _)| *lead).collect::<Vec<_>>(), [7]);
    settle(&mut scenario);
    assert!(run(wanted_looks(&deps, &munchkin(), 10)).expect("a table").is_empty());
}

#[test]
fn whoever_is_new_or_hinted_at_is_asked_about_before_a_backlog() {
    let scenario = world(1);
    let deps = scenario.driver.deps();
    let now = deps.now();
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("an id");
    let record = |n: u64, seen_at: u64| {
        let mut record = TokenRecord::new(Token::parse(&token(n)).expect("a token"));
        record.sight(Ecid::parse(&ecid(n)).expect("an ECID"), seen_at);
        record
    };
    // Thousands that were seen last week wait since a sync was made; one is seen now; a form names one of the old ones.
    let mut hinted = record(2_000, now - 7 * DAY_MS);
    hinted.hinted = true;
    let mut all: Vec<TokenRecord> = (1..=1_000).map(|n| record(n, now - 7 * DAY_MS - n)).collect();
    all.extend([record(3_000, now - 1_000), hinted]);
    for record in &all {
        assert!(run(save_token(&deps, &munchkin, record, None, &Noted::needless())).expect("a table"));
    }
    let due = run(deps.ports.tables.due(Table::Identity, &ask_pk(&munchkin), now, 2)).expect("a table");
    let first: BTreeSet<String> = due.into_iter().map(|item| item.key.sk).collect();
    assert_eq!(first, BTreeSet::from([token(2_000), token(3_000)]));
}
