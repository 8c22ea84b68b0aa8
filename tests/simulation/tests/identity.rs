//! The identity protocol, searched: any two of its handlers at once, the first one stopped at each of its awaits and
//! then resumed or dropped, with a merge, a move or a deletion at Marketo in between. However it goes, the list ends
//! as the reference model says.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use cookie_ingest::Counts;
use domain::limits::FUNCTION_MS;
use domain::{AudienceId, MunchkinId};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::json;
use simulation::scenario::{Erase, FileOf, LIST, MUNCHKIN, Scenario, ecid, instance, token};
use state::bell::{BellKey, Ring};
use world::types::Lead;

type Work = Pin<Box<dyn Future<Output = Result<(), state::Failure>>>>;

/// What may run beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    /// A match of the second ECID is stored.
    Store,
    /// Identity work: poll, look up, tell the audiences.
    Identity,
    /// The audience is worked out.
    Audience,
}

/// What happens at Marketo in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Nothing,
    /// Lead 1 is merged into lead 2.
    Merge,
    /// The token moves to lead 2.
    Move,
    /// Lead 1 is deleted.
    Delete,
    /// Somebody asks to erase this.
    Erase(Erase),
}

fn lead(id: u64, cookies: &[u64]) -> Lead {
    Lead {
        id,
        email: Some(format!("p{id}@example.com")),
        cookies: cookies.iter().map(|n| token(*n)).collect(),
        ecids: Vec::new(),
    }
}

/// Two known leads, one token of the first, a sync that follows an audience of two ECIDs, and one of them matched.
fn begin(associated: bool) -> Scenario {
    let data = instance(vec![lead(1, &[1]), lead(2, &[])], BTreeSet::new());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, BTreeSet::from([1, 2]))]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    scenario.driver.settle(3_600_000).expect("rest");
    scenario.see(1, 1);
    if associated {
        scenario.driver.settle(3_600_000).expect("rest");
    }
    scenario.driver.ticking = false;
    scenario.driver.run_until_stored();
    scenario
}

/// When the second ECID is seen beside the token, in ms: before anything else happens.
fn seen_at(scenario: &Scenario) -> u64 {
    scenario.driver.sim.lock().now
}

fn start(scenario: &Scenario, handler: Handler, seen_at: u64) -> Work {
    let deps = scenario.driver.deps();
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("valid");
    let now = deps.now();
    match handler {
        Handler::Store => {
            let found =
                json!({"v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(2), "token": token(1), "seen_at": seen_at});
            let found = serde_json::from_value(found).expect("a match");
            Box::pin(async move { cookie_ingest::store(&deps, &[found], &Counts::default()).await })
        }
        Handler::Identity | Handler::Audience => {
            let key = match handler {
                Handler::Audience => BellKey::audience(&munchkin, &AudienceId::aam(101)),
                _ => BellKey::identity(&munchkin),
            };
            // A version that nobody has finished, as if it had just been rung.
            let ring = Ring { v: state::V1, key, version: now };
            Box::pin(
                async move { scheduled_incremental_sync::handle(&deps, &ring, deps.now() + 10 * FUNCTION_MS).await },
            )
        }
    }
}

fn poll(work: &mut Work, times: usize) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    (0..times).any(|_| matches!(work.as_mut().poll(&mut context), Poll::Ready(_)))
}

fn happen(scenario: &mut Scenario, event: Event) {
    match event {
        Event::Nothing => {}
        Event::Merge => scenario.merge(2, 1),
        Event::Move => {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.marketo.upsert_lead(now, lead(2, &[1]));
        }
        Event::Delete => {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.marketo.delete(now, 1);
        }
        Event::Erase(subject) => {
            let (body, _) = scenario.note_erase(&subject);
            let (status, answer) = scenario.request("POST", "/people/erase", &body);
            assert_eq!(status, 202, "{answer}");
        }
    }
    // Past the activity log's lag and the next poll.
    let mut store = scenario.driver.sim.lock();
    let later = store.now + 70_000;
    store.advance(later);
}

#[test]
fn any_two_handlers_at_once_end_as_the_model_says() {
    let handlers = [Handler::Store, Handler::Identity, Handler::Audience];
    let erasures = [Erase::Token(1), Erase::Ecid(2), Erase::Lead(1)].map(Event::Erase);
    let events = [&[Event::Nothing, Event::Merge, Event::Move, Event::Delete], &erasures[..]].concat();
    let mut searched = 0;
    for associated in [false, true] {
        for first in handlers {
            for second in handlers {
                for &event in &events {
                    for dies in [false, true] {
                        for stop in 0.. {
                            let mut scenario = begin(associated);
                            let at = seen_at(&scenario);
                            if [first, second].contains(&Handler::Store) {
                                scenario.note_match(2, 1, at);
                            }
                            let mut one = start(&scenario, first, at);
                            if poll(&mut one, stop) {
                                break;
                            }
                            happen(&mut scenario, event);
                            assert!(poll(&mut start(&scenario, second, at), 5_000), "{second:?} never ends");
                            if !dies {
                                assert!(poll(&mut one, 5_000), "{first:?} never ends");
                            }
                            drop(one);
                            if [first, second].contains(&Handler::Store) {
                                // Its message comes again until it is stored.
                                assert!(poll(&mut start(&scenario, Handler::Store, at), 5_000));
                            }
                            scenario.driver.ticking = true;
                            let case = format!(
                                "{first:?} stopped at {stop}, {event:?}, {second:?}, dies {dies}, associated {associated}"
                            );
                            scenario.driver.settle(6 * 3_600_000).unwrap_or_else(|left| panic!("{case}: {left}"));
                            scenario.check().unwrap_or_else(|fault| panic!("{case}: {fault}"));
                            if matches!(event, Event::Erase(_)) {
                                // Whoever comes again is tied again.
                                scenario.see(2, 1);
                                scenario.driver.settle(6 * 3_600_000).unwrap_or_else(|left| panic!("{case}: {left}"));
                                scenario.check().unwrap_or_else(|fault| panic!("{case}, and back: {fault}"));
                            }
                            searched += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(searched > 1_000, "only {searched} interleavings were searched");
}
