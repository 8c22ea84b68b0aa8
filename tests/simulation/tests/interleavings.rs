//! The lettered interleavings of the design that concern the real handlers, each with its guard and without. Those
//! of the list protocol (a, b, c, d, k) are in `writer.rs`, where every order is searched.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use cookie_ingest::Counts;
use create_sync::{Caller, Request};
use domain::MunchkinId;
use domain::limits::FUNCTION_MS;
use domain::planted::{Guard, take_out};
use doubles::marketo::{Kind, Settings};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::scenario::{FileOf, LIST, MUNCHKIN, Scenario, ecid, instance, run, token};
use state::bell::{BellKey, Ring};
use state::budget::LEASE_MS;
use world::types::Lead;

/// A handler that a test moves by hand.
struct Task<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Task<T> {
    fn new(work: impl Future<Output = T> + 'static) -> Self {
        Self(Box::pin(work))
    }

    /// Polls up to so many times; the result, if it ended.
    fn poll(&mut self, times: usize) -> Option<T> {
        let mut context = Context::from_waker(Waker::noop());
        (0..times).find_map(|_| match self.0.as_mut().poll(&mut context) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => None,
        })
    }
}

/// More awaits than any handler of these small worlds has.
const WHOLE: usize = 5_000;

fn known(id: u64, tokens: &[u64]) -> Lead {
    Lead {
        id,
        email: Some(format!("p{id}@example.com")),
        cookies: tokens.iter().map(|n| token(*n)).collect(),
        ecids: Vec::new(),
    }
}

fn world(leads: Vec<Lead>) -> Scenario {
    let data = instance(leads, BTreeSet::new());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    scenario.driver.settle(3_600_000).expect("the first extract ends");
    scenario
}

fn file(snapshot: bool, inside: &[u64], outside: &[u64]) -> FileOf {
    let side = |ecids: &[u64]| {
        let ecids: BTreeSet<u64> = ecids.iter().copied().collect();
        if ecids.is_empty() { BTreeMap::new() } else { BTreeMap::from([(101, ecids)]) }
    };
    FileOf { snapshot, inside: side(inside), outside: side(outside) }
}

fn deliver(scenario: &mut Scenario, snapshot: bool, inside: &[u64], outside: &[u64]) {
    let now = scenario.driver.sim.lock().now;
    scenario.deliver(now, file(snapshot, inside, outside));
}

fn members(scenario: &Scenario, list: u64) -> Vec<u64> {
    let members = scenario.driver.sim.lock().marketo.members(list).cloned();
    members.unwrap_or_default().into_iter().collect()
}

fn identity_work(scenario: &Scenario, version: u64) -> Task<Result<(), state::Failure>> {
    let deps = scenario.driver.deps();
    let ring = Ring { v: state::V1, key: BellKey::identity(&MunchkinId::parse(MUNCHKIN).expect("valid")), version };
    Task::new(async move { scheduled_incremental_sync::handle(&deps, &ring, deps.now() + 100 * FUNCTION_MS).await })
}

/// Says in how many of the interleavings something went wrong, with the guard and without it.
fn with_and_without(guard: Guard, wrong: impl Fn() -> usize) {
    take_out(None);
    assert_eq!(wrong(), 0, "with every guard in place");
    take_out(Some(guard));
    let without = wrong();
    take_out(None);
    assert!(without > 0, "nothing goes wrong without {guard:?}");
}

/// A match is stored while the association of its token is being written: each may have read the other's old half.
#[test]
fn e_a_match_and_an_association_of_one_token_at_once() {
    with_and_without(Guard::TokenRevision, || {
        let mut wrong = 0;
        // Either handler is stopped after each of its awaits while the other one runs.
        for stop in 0..120 {
            let mut scenario = world(vec![known(1, &[1])]);
            deliver(&mut scenario, true, &[1, 2], &[]);
            scenario.create(101, &json!({"id": LIST})).expect("a sync");
            scenario.driver.settle(3_600_000).expect("rest");
            scenario.driver.ticking = false;
            let now = scenario.driver.sim.lock().now;
            let store = |n: u64| {
                let deps = scenario.driver.deps();
                let found =
                    json!({"v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(n), "token": token(1), "seen_at": now});
                let found = serde_json::from_value(found).expect("a match");
                Task::new(async move { cookie_ingest::store(&deps, &[found], &Counts::default()).await })
            };
            store(1).poll(WHOLE).expect("an end").expect("stored");
            let (mut first, mut second) = (identity_work(&scenario, 1_000_000), store(2));
            let ended = first.poll(stop);
            second.poll(WHOLE).expect("an end").expect("stored");
            if ended.is_none() {
                let _retried = first.poll(WHOLE).expect("an end");
            }
            scenario.note_match(1, 1, now);
            scenario.note_match(2, 1, now);
            scenario.driver.ticking = true;
            scenario.driver.settle(3_600_000).expect("rest");
            // Only the second ECID is left: whoever lost it loses the person.
            deliver(&mut scenario, false, &[], &[1]);
            scenario.driver.settle(3_600_000).expect("rest");
            wrong += usize::from(members(&scenario, LIST) != [1]);
        }
        wrong
    });
}

/// A token moves from one lead to another, the worker dies, and what comes again sees only the second.
#[test]
fn f_a_token_that_moves_and_a_death_after_the_write() {
    with_and_without(Guard::FormerLeads, || usize::from((0..400).any(|seed| run(seed).is_err())));
}

/// A look-up's answer lies in the hands of a worker that is held up; meanwhile the lead is merged away and another
/// worker follows the merge.
#[test]
fn g_an_old_answer_after_a_merge_was_followed() {
    with_and_without(Guard::AnswerRevision, || {
        let mut wrong = 0;
        for stop in 0..120 {
            let mut scenario = world(vec![known(1, &[1]), known(2, &[])]);
            deliver(&mut scenario, true, &[1], &[]);
            scenario.create(101, &json!({"id": LIST})).expect("a sync");
            scenario.driver.settle(3_600_000).expect("rest");
            scenario.see(1, 1);
            scenario.driver.ticking = false;
            scenario.driver.run_until_stored();
            let mut held_up = identity_work(&scenario, 1_000_000);
            if held_up.poll(stop).is_some() {
                break;
            }
            // The one who took over learned who owns the token, and then of the merge.
            identity_work(&scenario, 1_000_001).poll(WHOLE).expect("an end").ok();
            scenario.merge(2, 1);
            {
                let mut store = scenario.driver.sim.lock();
                let later = store.now + 70_000;
                store.advance(later);
            }
            identity_work(&scenario, 1_000_002).poll(WHOLE).expect("an end").ok();
            let _old = held_up.poll(WHOLE).expect("an end");
            scenario.driver.ticking = true;
            scenario.driver.settle(3_600_000).expect("rest");
            wrong += usize::from(members(&scenario, LIST) != [2]);
        }
        wrong
    });
}

/// A slice of a pass reads an ECID as anonymous; it becomes known and is rung; a later slice publishes.
#[test]
fn h_somebody_becomes_known_between_two_slices() {
    with_and_without(Guard::ReplayBeforePublish, || usize::from((0..400).any(|seed| run(seed).is_err())));
}

/// A key is rung twice within the five minutes for which a queue remembers deduplication ids, with the sweep off.
#[test]
fn i_a_second_ring_within_five_minutes() {
    with_and_without(Guard::VersionInDedup, || {
        let mut scenario = world(vec![known(1, &[1]), known(2, &[2])]);
        scenario.see(1, 1);
        scenario.see(2, 2);
        deliver(&mut scenario, true, &[1], &[]);
        scenario.create(101, &json!({"id": LIST})).expect("a sync");
        scenario.driver.settle(3_600_000).expect("rest");
        // Both people are known to us, and the queues have forgotten what was rung so far.
        deliver(&mut scenario, true, &[1, 2], &[]);
        scenario.driver.settle(3_600_000).expect("rest");
        deliver(&mut scenario, true, &[1], &[]);
        scenario.driver.settle(3_600_000).expect("rest");
        scenario.driver.run_for(400_000);
        scenario.driver.ticking = false;
        deliver(&mut scenario, true, &[2], &[]);
        scenario.driver.run_for(60_000);
        deliver(&mut scenario, true, &[1, 2], &[]);
        scenario.driver.run_for(60_000);
        usize::from(members(&scenario, LIST) != [1, 2])
    });
}

/// A dirty mark is cleared after the state was read: what was marked between the two is forgotten.
#[test]
fn j_a_mark_between_reading_and_clearing() {
    with_and_without(Guard::ClearBeforeRead, || usize::from((0..400).any(|seed| run(seed).is_err())));
}

/// A known person whose cookie is seen beside an ECID of the audience: the match is stored as far as `stop` awaits while a
/// pass brings the edges up to date, and another pass comes after it. Returns whether the person is in the list, and whether
/// the match was stored before the first pass.
fn a_match_beside_a_pass(stop: usize) -> (bool, bool) {
    let mut scenario = world(vec![known(1, &[1])]);
    deliver(&mut scenario, true, &[1, 5], &[]);
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    scenario.see(5, 1);
    scenario.driver.settle(3_600_000).expect("rest");
    deliver(&mut scenario, true, &[1], &[]);
    scenario.driver.settle(3_600_000).expect("rest");
    let now = scenario.driver.sim.lock().now;
    let deps = scenario.driver.deps();
    let found = json!({"v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(1), "token": token(1), "seen_at": now});
    let found = serde_json::from_value(found).expect("a match");
    let mut store = Task::new(async move { cookie_ingest::store(&deps, &[found], &Counts::default()).await });
    let at_once = store.poll(stop).is_some();
    deliver(&mut scenario, true, &[1, 2], &[]);
    scenario.driver.run_for(60_000);
    if !at_once {
        store.poll(WHOLE).expect("an end").expect("stored");
    }
    scenario.note_match(1, 1, now);
    scenario.driver.settle(3_600_000).expect("rest");
    let by_its_work = members(&scenario, LIST) == [1];
    deliver(&mut scenario, true, &[1, 3], &[]);
    scenario.driver.settle(3_600_000).expect("rest");
    (by_its_work && members(&scenario, LIST) == [1], at_once)
}

/// What changes an edge is written without having been noted: the next pass does not know of it.
#[test]
fn q_a_change_that_nobody_noted() {
    with_and_without(Guard::NoteBeforeWrite, || usize::from(!a_match_beside_a_pass(WHOLE).0));
}

/// A note is read, and the write that it announces comes only then.
#[test]
fn r_a_note_is_read_before_the_write_that_it_announces() {
    with_and_without(Guard::NotesOverlap, || {
        (0..200)
            .map(a_match_beside_a_pass)
            .take_while(|(_, at_once)| !at_once)
            .filter(|(is_there, _)| !is_there)
            .count()
    });
}

/// Somebody was in a list before it was adopted, and Marketo was never asked whose their cookie is: the first pass does not
/// know that they are wanted, and they are not taken out meanwhile.
#[test]
fn nobody_leaves_an_adopted_list_before_marketo_was_asked_about_their_cookies() {
    let data = instance(vec![known(1, &[1]), known(2, &[2])], BTreeSet::from([1, 2]));
    let mut scenario = Scenario::beside(Settings::default(), 1, SmallRng::seed_from_u64(1), data);
    scenario.driver.settle(3_600_000).expect("the first extract ends");
    scenario.see(1, 1);
    scenario.see(2, 2);
    let body = json!({"audience_id": "aam:101", "list": {"id": LIST}, "members_before": "adopt"});
    assert_eq!(scenario.request("POST", "/syncs", &body).0, 201);
    deliver(&mut scenario, true, &[1], &[]);
    let removals = |scenario: &Scenario| {
        let store = scenario.driver.sim.lock();
        store.marketo.calls().iter().filter(|call| call.kind == Kind::ListRemove).map(|call| call.ids).sum::<u32>()
    };
    scenario.driver.settle(3_600_000).expect("rest");
    // Somebody else is tied to an ECID of no audience that is followed: they leave as soon as that is known.
    deliver(&mut scenario, true, &[1, 3], &[]);
    scenario.driver.settle(3_600_000).expect("rest");
    assert_eq!((members(&scenario, LIST), removals(&scenario)), (vec![1], 1));
}

/// A list is made at Marketo, the maker dies at any await, and the client comes again with the same key.
#[test]
fn l_a_list_is_made_and_its_maker_dies() {
    with_and_without(Guard::RowBeforeList, || {
        let mut wrong = 0;
        for stop in 1..100 {
            let mut scenario = world(vec![known(1, &[1])]);
            deliver(&mut scenario, true, &[1], &[]);
            scenario.driver.settle(3_600_000).expect("rest");
            scenario.driver.ticking = false;
            let request = || Request {
                method: "POST".into(),
                path: "/syncs".into(),
                query: Vec::new(),
                headers: vec![("idempotency-key".into(), "once".into())],
                body: json!({"audience_id": "aam:101", "list": {"name": "New"}}).to_string().into_bytes(),
                caller: Some(Caller::local()),
                sign_in: None,
            };
            let send = |scenario: &Scenario| {
                let deps = scenario.driver.deps();
                let request = request();
                Task::new(async move { create_sync::handle(&deps, request, deps.now() + 30_000).await })
            };
            if send(&scenario).poll(stop).is_some() {
                break;
            }
            // The dead maker's call keeps others from Marketo for as long as it may take.
            scenario.driver.sim.lock().now += LEASE_MS;
            let answer = send(&scenario).poll(WHOLE).expect("an end");
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            scenario.driver.ticking = true;
            scenario.driver.settle(3_600_000).ok();
            let lists = scenario.driver.sim.lock().marketo.lists().len();
            let (_, syncs) = scenario.request("GET", "/syncs", &Value::Null);
            let one = syncs["syncs"].as_array().or(syncs.as_array()).is_some_and(|syncs| syncs.len() == 1);
            wrong += usize::from(lists != 2 || body["id"].is_null() || !one);
        }
        wrong
    });
}
