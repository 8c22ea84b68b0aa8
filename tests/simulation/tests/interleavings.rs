//! The lettered interleavings of the design that concern the real handlers, each with its guard and without. Those
//! of the list protocol (a, b, c, d, k) are in `writer.rs`, where every order is searched. Then the everyday bugs that
//! random worlds do not find soon.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use cookie_ingest::Counts;
use create_sync::{Caller, Request};
use domain::base::Base;
use domain::limits::FUNCTION_MS;
use domain::list::State;
use domain::planted::{Guard, take_out};
use domain::{AudienceId, Ecid, MunchkinId};
use doubles::marketo::{Kind, Settings};
use ports::{Key, Table};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::fakes::Faults;
use simulation::planted::found_after;
use simulation::scenario::{FileOf, LIST, MUNCHKIN, Scenario, Streamed, ecid, instance, token};
use state::audience::replace_base;
use state::bell::{self, BellKey, Ring};
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

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("valid")
}

fn identity_work(scenario: &Scenario, version: u64) -> Task<Result<(), state::Failure>> {
    work(scenario, BellKey::identity(&munchkin()), version)
}

fn work(scenario: &Scenario, key: BellKey, version: u64) -> Task<Result<(), state::Failure>> {
    let deps = scenario.driver.deps();
    let ring = Ring { v: state::V1, key, version };
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
    assert!(found_after(Guard::FormerLeads, 1_000).is_some());
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
    assert!(found_after(Guard::ReplayBeforePublish, 1_000).is_some());
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
    with_and_without(Guard::ClearBeforeRead, || {
        let mut wrong = 0;
        for stop in 0..400 {
            let mut scenario = world(vec![known(1, &[1]), known(2, &[2])]);
            deliver(&mut scenario, true, &[1, 2], &[]);
            scenario.create(101, &json!({"id": LIST})).expect("a sync");
            scenario.driver.settle(3_600_000).expect("rest");
            scenario.driver.ticking = false;
            scenario.see(1, 1);
            scenario.driver.run_until_stored();
            identity_work(&scenario, 1_000_000).poll(WHOLE).expect("an end").expect("told");
            let mut at_work = work(&scenario, BellKey::audience(&munchkin(), &AudienceId::aam(101)), 1_000_000);
            if at_work.poll(stop).is_some() {
                break;
            }
            scenario.see(2, 2);
            scenario.driver.run_until_stored();
            identity_work(&scenario, 1_000_001).poll(WHOLE).expect("an end").expect("told");
            let _ended = at_work.poll(WHOLE).expect("an end");
            scenario.driver.run_for(60_000);
            wrong += usize::from(members(&scenario, LIST) != [1, 2]);
        }
        wrong
    });
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

/// Marketo has tied somebody to an ECID, and takes that back.
#[test]
fn somebody_whom_marketo_ties_to_their_ecid_no_more() {
    with_and_without(Guard::FormerEcidsAreTold, || {
        let tied = |ecids: &[u64]| Lead { ecids: ecids.iter().map(|n| ecid(*n)).collect(), ..known(1, &[]) };
        let mut scenario = world(vec![tied(&[1])]);
        deliver(&mut scenario, true, &[1, 2], &[]);
        scenario.create(101, &json!({"id": LIST})).expect("a sync");
        scenario.driver.settle(3_600_000).expect("rest");
        assert_eq!(members(&scenario, LIST), [1]);
        {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.marketo.upsert_lead(now, tied(&[]));
        }
        scenario.driver.settle(3_600_000).expect("rest");
        members(&scenario, LIST).len()
    });
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

// ---- Everyday bugs that random worlds seldom find, or never. ----

/// A subscription with three known people of one cookie each, an audience with the ECIDs 1 and 2, and its list; at rest, and
/// from here on nothing is swept.
fn three_people() -> Scenario {
    let mut scenario = world(vec![known(1, &[1]), known(2, &[2]), known(3, &[3])]);
    deliver(&mut scenario, true, &[1, 2], &[]);
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    scenario.driver.settle(3_600_000).expect("rest");
    scenario.driver.ticking = false;
    scenario
}

/// A match comes and its audience is told of it, by a worker whose number nobody else has.
fn see_and_tell(scenario: &mut Scenario, e: u64, t: u64, worker: u64) {
    scenario.see(e, t);
    scenario.driver.run_until_stored();
    identity_work(scenario, worker).poll(WHOLE).expect("an end").expect("told");
}

fn audience_work(scenario: &Scenario, worker: u64) -> Task<Result<(), state::Failure>> {
    work(scenario, BellKey::audience(&munchkin(), &AudienceId::aam(101)), worker)
}

/// Lets the sweep and whoever is rung do the rest. Returns whether the list ends with just these people.
fn ends_with(scenario: &mut Scenario, people: &[u64]) -> bool {
    scenario.driver.ticking = true;
    scenario.driver.settle(6 * 3_600_000).is_ok() && members(scenario, LIST) == people
}

/// A fact comes, and nobody sweeps.
#[test]
fn a_ring_that_is_left_to_the_sweep() {
    with_and_without(Guard::MarksAreRung, || {
        let mut scenario = three_people();
        see_and_tell(&mut scenario, 1, 1, 1_000_000);
        scenario.driver.run_for(60_000);
        usize::from(members(&scenario, LIST) != [1])
    });
}

/// A person joins the audience while its sync is paused; then it is resumed, and nothing else happens.
#[test]
fn somebody_who_came_while_the_sync_was_paused() {
    with_and_without(Guard::ResumedIsRung, || {
        let mut scenario = three_people();
        scenario.toggle(0);
        see_and_tell(&mut scenario, 1, 1, 1_000_000);
        scenario.driver.run_for(60_000);
        assert_eq!(members(&scenario, LIST), Vec::<u64>::new(), "a paused sync adds nobody");
        scenario.toggle(0);
        scenario.driver.run_for(60_000);
        usize::from(members(&scenario, LIST) != [1])
    });
}

/// Marketo is asked about two cookies in one call, and answers in the order of its people.
#[test]
fn two_cookies_that_are_asked_about_together() {
    with_and_without(Guard::RowsByName, || {
        let mut scenario = world(vec![known(1, &[2]), known(2, &[1])]);
        let now = scenario.driver.sim.lock().now;
        let inside = BTreeMap::from([(101, BTreeSet::from([1])), (102, BTreeSet::from([2]))]);
        scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
        scenario.create(101, &json!({"id": LIST})).expect("a sync");
        scenario.create(102, &json!({"name": "Other"})).expect("another one");
        scenario.driver.settle(3_600_000).expect("rest");
        scenario.see(1, 1);
        scenario.see(2, 2);
        scenario.driver.settle(3_600_000).expect("rest");
        usize::from(members(&scenario, LIST) != [2])
    });
}

/// Who works out an audience dies between publishing and ringing; whoever comes again finds nothing new.
#[test]
fn a_death_between_publishing_and_ringing() {
    with_and_without(Guard::RungThoughNothingIsNew, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            see_and_tell(&mut scenario, 1, 1, 1_000_000);
            if audience_work(&scenario, 1_000_000).poll(stop).is_some() {
                break;
            }
            wrong += usize::from(!ends_with(&mut scenario, &[1]));
        }
        wrong
    });
}

/// An audience is worked out between the ring and the facts that it is rung for.
#[test]
fn a_ring_before_its_facts() {
    with_and_without(Guard::WriteBeforeRing, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            scenario.see(1, 1);
            scenario.driver.run_until_stored();
            let mut teller = identity_work(&scenario, 1_000_000);
            if teller.poll(stop).is_some() {
                break;
            }
            audience_work(&scenario, 1_000_000).poll(WHOLE).expect("an end").expect("worked out");
            teller.poll(WHOLE).expect("an end").expect("told");
            wrong += usize::from(!ends_with(&mut scenario, &[1]));
        }
        wrong
    });
}

/// While an ECID is looked at, somebody else with it becomes known.
#[test]
fn work_that_is_added_while_it_is_done() {
    with_and_without(Guard::AddedWorkStays, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            see_and_tell(&mut scenario, 2, 2, 1_000_000);
            let mut at_work = audience_work(&scenario, 1_000_000);
            if at_work.poll(stop).is_some() {
                break;
            }
            see_and_tell(&mut scenario, 2, 3, 1_000_001);
            at_work.poll(WHOLE).expect("an end").expect("worked out");
            wrong += usize::from(!ends_with(&mut scenario, &[2, 3]));
        }
        wrong
    });
}

/// Another full file comes while a pass counts the one before.
#[test]
fn a_file_during_a_pass() {
    with_and_without(Guard::FactsAskForAnotherPass, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            see_and_tell(&mut scenario, 1, 1, 1_000_000);
            see_and_tell(&mut scenario, 2, 2, 1_000_001);
            assert!(ends_with(&mut scenario, &[1, 2]));
            scenario.driver.ticking = false;
            let now = scenario.driver.sim.lock().now;
            let munchkin = munchkin();
            let audience = AudienceId::aam(101);
            let snapshot = |scenario: &Scenario, inside: &[u64], at: u64| {
                let (deps, munchkin, audience) = (scenario.driver.deps(), munchkin.clone(), audience.clone());
                let ecids: Vec<Ecid> = inside.iter().filter_map(|e| Ecid::parse(&ecid(*e))).collect();
                Task::new(async move {
                    let base = Base::new(ecids, at);
                    replace_base(&deps, &munchkin, &audience, &base, at, Some(("default", at))).await?;
                    bell::mark(&deps, &BellKey::audience(&munchkin, &audience)).await
                })
            };
            snapshot(&scenario, &[1, 3], now).poll(WHOLE).expect("an end").expect("taken");
            // The first slice asks for edges, the second one counts.
            audience_work(&scenario, 1_000_000).poll(WHOLE).expect("an end").expect("asked");
            work(&scenario, BellKey::edges(&munchkin), 1_000_000).poll(WHOLE).expect("an end").expect("brought");
            let mut at_work = audience_work(&scenario, 1_000_001);
            if at_work.poll(stop).is_some() {
                break;
            }
            snapshot(&scenario, &[2, 4], now + 1).poll(WHOLE).expect("an end").expect("taken");
            // Its base may be gone while it reads it: then it is tried again.
            let _ended = at_work.poll(WHOLE).expect("an end");
            wrong += usize::from(!ends_with(&mut scenario, &[2]));
        }
        wrong
    });
}

/// A stream says that somebody left, and then, late, that they had come before.
#[test]
fn a_word_that_comes_late() {
    with_and_without(Guard::LaterWordCounts, || {
        let mut scenario = three_people();
        see_and_tell(&mut scenario, 5, 1, 1_000_000);
        scenario.driver.run_for(600_000);
        let now = scenario.driver.sim.lock().now;
        for (changed, inside) in [(now, false), (now - 60_000, true)] {
            scenario.hear(Streamed { sid: 101, ecid: 5, changed, as_of: changed, inside });
            scenario.driver.run_for(120_000);
        }
        usize::from(!ends_with(&mut scenario, &[]))
    });
}

/// Who stores a match dies at any await, and the match comes again.
#[test]
fn a_match_that_is_stored_by_halves() {
    with_and_without(Guard::HintBeforeEdge, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            let now = scenario.driver.sim.lock().now;
            let store = || {
                let deps = scenario.driver.deps();
                let found =
                    json!({"v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(1), "token": token(1), "seen_at": now});
                let found = serde_json::from_value(found).expect("a match");
                Task::new(async move { cookie_ingest::store(&deps, &[found], &Counts::default()).await })
            };
            if store().poll(stop).is_some() {
                break;
            }
            store().poll(WHOLE).expect("an end").expect("stored");
            wrong += usize::from(!ends_with(&mut scenario, &[1]));
        }
        wrong
    });
}

/// Somebody of ours is merged into a person who is not in the list, and leaves the audience.
#[test]
fn a_merge_that_no_list_hears_of() {
    with_and_without(Guard::MergesAreFollowed, || {
        let mut scenario = three_people();
        see_and_tell(&mut scenario, 1, 1, 1_000_000);
        assert!(ends_with(&mut scenario, &[1]));
        scenario.merge(2, 1);
        assert!(ends_with(&mut scenario, &[2]));
        deliver(&mut scenario, true, &[7], &[]);
        usize::from(!ends_with(&mut scenario, &[]))
    });
}

/// The writer dies at any await, and whom it was about to add leaves the audience.
#[test]
fn a_writer_who_dies_and_a_change_of_mind() {
    with_and_without(Guard::IntentBeforeEffect, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            see_and_tell(&mut scenario, 1, 1, 1_000_000);
            audience_work(&scenario, 1_000_000).poll(WHOLE).expect("an end").expect("worked out");
            let deps = scenario.driver.deps();
            let ring = Ring { v: state::V1, key: BellKey::list(&munchkin(), LIST), version: 1_000_000 };
            let mut writer =
                Task::new(async move { list_writer::handle(&deps, &ring, deps.now() + FUNCTION_MS).await });
            if writer.poll(stop).is_some() {
                break;
            }
            drop(writer);
            deliver(&mut scenario, true, &[7], &[]);
            wrong += usize::from(!ends_with(&mut scenario, &[]));
        }
        wrong
    });
}

/// Marketo does not answer the call that adds somebody, whether it takes effect or not; and they leave the audience.
#[test]
fn a_call_without_an_answer_and_a_change_of_mind() {
    with_and_without(Guard::SilenceProvesNothing, || {
        let mut wrong = 0;
        for seed in 0..100 {
            let mut scenario = three_people();
            scenario.driver.sim.lock().rng = SmallRng::seed_from_u64(seed);
            see_and_tell(&mut scenario, 1, 1, 1_000_000);
            audience_work(&scenario, 1_000_000).poll(WHOLE).expect("an end").expect("worked out");
            scenario.driver.sim.lock().faults.marketo_silence = 0.5;
            let deps = scenario.driver.deps();
            let ring = Ring { v: state::V1, key: BellKey::list(&munchkin(), LIST), version: 1_000_000 };
            let mut writer =
                Task::new(async move { list_writer::handle(&deps, &ring, deps.now() + FUNCTION_MS).await });
            let _ended = writer.poll(WHOLE);
            scenario.driver.sim.lock().faults = Faults::NONE;
            deliver(&mut scenario, true, &[7], &[]);
            wrong += usize::from(!ends_with(&mut scenario, &[]));
        }
        wrong
    });
}

/// Somebody becomes known while their audience is at work on somebody else.
#[test]
fn somebody_becomes_known_while_their_audience_is_at_work() {
    with_and_without(Guard::MarkedWhileAtWork, || {
        let mut wrong = 0;
        for stop in 0..WHOLE {
            let mut scenario = three_people();
            see_and_tell(&mut scenario, 1, 1, 1_000_000);
            let mut at_work = audience_work(&scenario, 1_000_000);
            if at_work.poll(stop).is_some() {
                break;
            }
            see_and_tell(&mut scenario, 2, 2, 1_000_001);
            at_work.poll(WHOLE).expect("an end").expect("worked out");
            wrong += usize::from(!ends_with(&mut scenario, &[1, 2]));
        }
        wrong
    });
}

/// A stream says that somebody came, while every third call to a table or a queue fails.
#[test]
fn a_stream_that_is_heard_while_calls_fail() {
    with_and_without(Guard::FailedEntriesComeAgain, || {
        let mut wrong = 0;
        for seed in 0..40 {
            let mut scenario = three_people();
            see_and_tell(&mut scenario, 5, 1, 1_000_000);
            scenario.driver.run_for(600_000);
            scenario.driver.sim.lock().rng = SmallRng::seed_from_u64(seed);
            let now = scenario.driver.sim.lock().now;
            scenario.driver.sim.lock().faults.unavailable = 0.3;
            scenario.hear(Streamed { sid: 101, ecid: 5, changed: now, as_of: now, inside: true });
            scenario.driver.run_for(60_000);
            scenario.driver.sim.lock().faults = Faults::NONE;
            wrong += usize::from(!ends_with(&mut scenario, &[1]));
        }
        wrong
    });
}

/// When those on hold may be written again: the list's state says.
fn hold_ends(scenario: &Scenario) -> Option<u64> {
    let store = scenario.driver.sim.lock();
    let head = store.tables.get(&(Table::Lists, Key::new(MUNCHKIN, format!("list/{LIST}"))))?;
    let state: State = serde_json::from_slice(&store.objects[head.doc["state_key"].as_str()?]).expect("a state");
    state.hold.values().copied().max()
}

/// Nobody answers the call that adds somebody, who then waits until it is over for certain. That moment comes while their
/// list is handled for another reason: after its calls were planned, and before it is written down when to look again.
#[test]
fn a_hold_that_ends_while_its_list_is_handled() {
    let mut waited = 0;
    for seed in 0..10 {
        for before in (0..300).step_by(10) {
            let mut scenario = three_people();
            scenario.driver.sim.lock().rng = SmallRng::seed_from_u64(seed);
            see_and_tell(&mut scenario, 1, 1, 1_000_000);
            audience_work(&scenario, 1_000_000).poll(WHOLE).expect("an end").expect("worked out");
            scenario.driver.sim.lock().faults.marketo_silence = 0.5;
            for _ in 0..30 {
                scenario.driver.run_for(1_000);
                if hold_ends(&scenario).is_some() {
                    break;
                }
            }
            scenario.driver.sim.lock().faults = Faults::NONE;
            // Not if it was another call that nobody answered, or one that has come through.
            let Some(ends) = hold_ends(&scenario) else { break };
            if members(&scenario, LIST) == [1] || !scenario.driver.sim.lock().late.is_empty() {
                break;
            }
            // What takes time between planning and writing down.
            let (_, syncs) = scenario.request("GET", "/syncs", &Value::Null);
            let verify = format!("/syncs/{}/verify", syncs[0]["id"].as_str().expect("a sync"));
            assert_eq!(scenario.request("POST", &verify, &Value::Null).0, 202);
            scenario.driver.sim.lock().now = ends - before;
            let deps = scenario.driver.deps();
            let ring = Ring { v: state::V1, key: BellKey::list(&munchkin(), LIST), version: 1_000_000 };
            let mut writer =
                Task::new(async move { list_writer::handle(&deps, &ring, deps.now() + FUNCTION_MS).await });
            writer.poll(WHOLE).expect("an end").expect("handled");
            waited += usize::from(members(&scenario, LIST).is_empty() && scenario.driver.sim.lock().now > ends);
            // Soon, and not by the next look at a list that is at rest.
            scenario.driver.ticking = true;
            scenario.driver.run_for(600_000);
            assert_eq!(members(&scenario, LIST), [1], "seed {seed}, {before} ms before");
        }
    }
    assert!(waited > 5, "{waited} such moments");
}
