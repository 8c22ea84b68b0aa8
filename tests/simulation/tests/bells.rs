//! Doorbells: a poison key never blocks its group, a key that rings itself without end is set aside, and a ring that
//! was taken and never finished is found.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Waker};

use domain::MunchkinId;
use ports::Queue;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use simulation::fakes::{Sim, run};
use simulation::scenario::{LIST, MUNCHKIN, Scenario, instance};
use state::bell::{self, BellKey, MAX_LAPS, Next, Ring, STUCK_AFTER, STUCK_REST_MS, TAKEN_FOR_MS};
use state::{Deps, Failure};

fn world() -> (Sim, Deps) {
    let data = instance(Vec::new(), BTreeSet::new());
    let scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    let deps = scenario.driver.deps();
    scenario.driver.sim.lock().messages.clear();
    (scenario.driver.sim.clone(), deps)
}

fn key() -> BellKey {
    BellKey::list(&MunchkinId::parse(MUNCHKIN).expect("valid"), LIST)
}

/// Takes the next ring out of the queue.
fn next_ring(sim: &Sim) -> Option<Ring> {
    let mut store = sim.lock();
    let index = store.messages.iter().position(|message| message.queue == Queue::ListWrites)?;
    let message = store.messages.remove(index);
    Some(serde_json::from_str(&message.body).expect("a ring"))
}

#[test]
fn a_key_that_fails_three_times_is_set_aside_acknowledged_and_tried_again_by_the_sweep() {
    let (sim, deps) = world();
    run(bell::mark(&deps, &key())).expect("marked");
    let ring = next_ring(&sim).expect("a ring");
    for attempt in 1..=STUCK_AFTER {
        let ended = run(bell::handle(&deps, &ring, || async { Err(Failure::retry("poison")) }));
        assert_eq!(ended.is_ok(), attempt == STUCK_AFTER, "attempt {attempt}");
    }
    assert!(run(bell::look(&deps, &key())).expect("a bell").stuck);
    let handled = Cell::new(false);
    let work = || async {
        handled.set(true);
        Ok(Next::Done(None))
    };
    run(bell::handle(&deps, &ring, work)).expect("acknowledged");
    assert!(!handled.get(), "it rests");

    let later = deps.now() + STUCK_REST_MS;
    sim.lock().advance(later);
    run(bell::sweep(&deps)).expect("swept");
    run(bell::handle(&deps, &next_ring(&sim).expect("rung again"), work)).expect("handled");
    assert!(handled.get());
    let bell = run(bell::look(&deps, &key())).expect("a bell");
    assert!(!bell.stuck && bell.failures == 0 && bell.dirty_since.is_none());
}

#[test]
fn a_key_that_rings_itself_without_end_is_set_aside() {
    let (sim, deps) = world();
    run(bell::mark(&deps, &key())).expect("marked");
    let mut rounds = 0;
    while let Some(ring) = next_ring(&sim) {
        run(bell::handle(&deps, &ring, || async { Ok(Next::Again) })).expect("handled");
        rounds += 1;
        assert!(rounds <= MAX_LAPS + 1, "no end");
    }
    assert_eq!(rounds, MAX_LAPS + 1);
    assert!(run(bell::look(&deps, &key())).expect("a bell").stuck);
}

#[test]
fn a_ring_that_was_taken_and_lost_with_its_taker_is_found_by_the_sweep() {
    let (sim, deps) = world();
    run(bell::mark(&deps, &key())).expect("marked");
    let ring = next_ring(&sim).expect("a ring");
    {
        // It dies in the middle of its work, and its message never comes again.
        let mut dying = pin!(bell::handle(&deps, &ring, || async {
            std::future::pending::<()>().await;
            Ok(Next::Done(None))
        }));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            assert!(dying.as_mut().poll(&mut context).is_pending());
        }
    }
    run(bell::sweep(&deps)).expect("swept");
    assert_eq!(next_ring(&sim), None, "not yet: it may still be at work");
    let later = deps.now() + TAKEN_FOR_MS;
    sim.lock().advance(later);
    run(bell::sweep(&deps)).expect("swept");
    let handled = Cell::new(false);
    let ring = next_ring(&sim).expect("rung again");
    run(bell::handle(&deps, &ring, || async {
        handled.set(true);
        Ok(Next::Done(None))
    }))
    .expect("handled");
    assert!(handled.get());
}
