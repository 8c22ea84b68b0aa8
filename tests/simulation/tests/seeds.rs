//! The whole system over random worlds, with everything that goes wrong: whatever happens, the lists end as the reference model
//! says, and nothing is done on the way that must never be.

use simulation::campaign::{Campaign, attempt, run, tell};
use simulation::lateness::Fact;
use simulation::scenario::Plan;

/// Seeds in CI: about a minute of two cores.
const SEEDS: u64 = 20_000;

#[test]
fn random_worlds_end_as_the_reference_model_says() {
    let campaign = Campaign { from: 0, seeds: SEEDS, planted: None, give_up_after: 1 };
    let outcome = run(campaign, |_, _| ());
    if let Some(failing) = outcome.failures.first() {
        panic!("{}", tell(failing, None));
    }
    assert_eq!(outcome.seeds, SEEDS);
    let never: Vec<&str> =
        outcome.counts.iter().filter(|(_, times)| *times == 0).map(|(kind, _)| kind.name()).collect();
    assert!(never.is_empty(), "never struck: {never:?}");
    let late = outcome.lateness.iter().filter(|(_, times, _)| *times > 0).count();
    assert_eq!(late, Fact::ALL.len(), "of each kind of fact some are seen to arrive: {:?}", outcome.lateness);
}

/// A seed is all that a run depends on: run again, after others and on another thread, it does the same in the same order.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces = || (0..30).map(|seed| attempt(Plan::of(seed), None).trace).collect::<Vec<u64>>();
    let first = traces();
    let elsewhere = std::thread::spawn(traces).join().expect("a thread");
    assert_eq!(first, elsewhere);
    assert_eq!(first, traces());
    assert!(first.windows(2).all(|two| two[0] != two[1]), "another seed does something else");
}
