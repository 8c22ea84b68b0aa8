//! Many seeds on all cores: which fail, how fast, and what struck how often. A failing seed is made smaller: fewer steps and
//! fewer kinds of trouble, as long as it still fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use domain::planted::{Guard, take_out};
use serde_json::{Value, json};

use crate::kinds::{Counts, Kinds};
use crate::lateness::Lateness;
use crate::scenario::{Plan, Run, run_plan};

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many of them.
    pub seeds: u64,
    /// A guard that is taken out: then the first failure ends the campaign.
    pub planted: Option<Guard>,
    /// Failures after which the campaign ends.
    pub give_up_after: usize,
}

/// A seed that failed.
#[derive(Debug, Clone)]
pub struct Failing {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub fault: String,
}

/// What a campaign came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Seeds that were run to their end.
    pub seeds: u64,
    /// Those that failed, in their order.
    pub failures: Vec<Failing>,
    /// What struck, of all of them together.
    pub counts: Counts,
    /// The traces of all of them together.
    pub trace: u64,
    /// How late facts were at the end of the worlds in which nobody looks for lost rings.
    pub lateness: Lateness,
    /// Calls to ports.
    pub calls: u64,
    /// Invocations.
    pub invocations: u64,
    /// Time that went by in the worlds, in ms.
    pub virtual_ms: u64,
}

/// The command that runs a seed again.
#[must_use]
pub fn replay(seed: u64, planted: Option<Guard>) -> String {
    let planted = planted.map_or_else(String::new, |guard| format!(" --planted {guard:?}"));
    format!("cargo run --release -p simulation -- --from {seed} --seeds 1{planted}")
}

/// Runs a plan with a guard taken out, or none. A panic is a failure as any other.
#[must_use]
pub fn attempt(plan: Plan, planted: Option<Guard>) -> Run {
    take_out(planted);
    let ended = catch_unwind(AssertUnwindSafe(|| run_plan(plan)));
    take_out(None);
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Run::ended(Err(format!("a panic: {text}")))
    })
}

/// Runs the seeds, as many at once as there are cores. `progress` is told now and then how many have been run, and
/// which have failed.
#[must_use]
pub fn run(campaign: Campaign, progress: impl Fn(u64, &[Failing]) + Sync) -> Outcome {
    let Campaign { from, seeds, planted, give_up_after } = campaign;
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let outcome = Mutex::new(Outcome::default());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let lock = || outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                // In their order, and each that was begun is ended: so the first failure is the first.
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from.saturating_add(seeds) {
                    return;
                }
                let run = attempt(Plan::of(seed), planted);
                let mut outcome = lock();
                outcome.seeds += 1;
                outcome.counts.add(&run.counts);
                outcome.lateness.add(&run.lateness);
                outcome.calls += run.calls;
                outcome.invocations += run.invocations;
                outcome.virtual_ms += run.virtual_ms;
                outcome.trace = outcome.trace.wrapping_add(run.trace);
                if let Err(fault) = run.outcome {
                    outcome.failures.push(Failing { seed, fault });
                    if planted.is_some() || outcome.failures.len() >= give_up_after {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            {
                let outcome = lock();
                progress(outcome.seeds, &outcome.failures);
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome.failures.sort_by_key(|failing| failing.seed);
    outcome
}

/// Runs of one seed at most while it is made smaller.
const TRIES: usize = 120;

/// The smallest plan of a seed that still fails, as far as was found, and how it does.
#[must_use]
pub fn shrink(seed: u64, planted: Option<Guard>) -> Option<(Plan, Run)> {
    let mut tries = 0;
    let mut fails = |plan: Plan| {
        tries += 1;
        if tries > TRIES {
            return None;
        }
        Some(attempt(plan, planted)).filter(|run| run.outcome.is_err())
    };
    let mut plan = Plan::of(seed);
    let mut run = fails(plan)?;
    let mut again = true;
    while again {
        again = false;
        // Half as many steps; then ever fewer less.
        let mut less = plan.steps.div_ceil(2);
        while less > 0 {
            let smaller = Plan { steps: plan.steps.saturating_sub(less), ..plan };
            match fails(smaller).filter(|_| smaller.steps < plan.steps) {
                Some(failed) => (plan, run, again) = (smaller, failed, true),
                None => less /= 2,
            }
        }
        for kind in plan.kinds.iter() {
            let smaller = Plan { kinds: plan.kinds.without(kind), ..plan };
            if let Some(failed) = fails(smaller) {
                (plan, run, again) = (smaller, failed, true);
            }
        }
    }
    Some((plan, run))
}

/// A failure for people: the seed, how to run it again, and the story of its smallest form.
#[must_use]
pub fn tell(failing: &Failing, planted: Option<Guard>) -> String {
    let Failing { seed, fault } = failing;
    let mut text = format!("seed {seed}: {fault}\nreplay: {}\n", replay(*seed, planted));
    match shrink(*seed, planted) {
        None => text.push_str("it did not fail again\n"),
        Some((Plan { steps, kinds, .. }, run)) => {
            let fault = run.outcome.err().unwrap_or_default();
            let kinds = if kinds == Kinds::NONE { "nothing".to_owned() } else { kinds.to_string() };
            text.push_str(&format!("it still fails after {steps} steps with {kinds}: {fault}\n{}\n", run.story));
        }
    }
    text
}

/// What a campaign came to, as JSON.
#[must_use]
pub fn as_json(campaign: Campaign, outcome: &Outcome, seconds: f64, busy: Option<f64>) -> Value {
    let faults: serde_json::Map<String, Value> =
        outcome.counts.iter().map(|(kind, times)| (kind.name().to_owned(), json!(times))).collect();
    let late = outcome.lateness.iter();
    let lateness: serde_json::Map<String, Value> = late
        .map(|(fact, times, slowest_ms)| (fact.to_string(), json!({"facts": times, "slowest_ms": slowest_ms})))
        .collect();
    let failures = outcome.failures.iter();
    let failures: Vec<Value> = failures
        .map(|Failing { seed, fault }| json!({"seed": seed, "fault": fault, "replay": replay(*seed, campaign.planted)}))
        .collect();
    json!({
        "from": campaign.from,
        "seeds": outcome.seeds,
        "planted": campaign.planted.map(|guard| format!("{guard:?}")),
        "found_after": found_after(campaign, outcome),
        "failures": failures,
        "calls": outcome.calls,
        "invocations": outcome.invocations,
        "virtual_hours": outcome.virtual_ms / 3_600_000,
        "seconds": seconds,
        "seeds_per_second": per_second(outcome, seconds),
        "cores": cores(),
        "seconds_of_a_core": busy,
        "seeds_per_second_of_a_core": busy.map(|busy| per_second(outcome, busy)),
        "trace": format!("{:016x}", outcome.trace),
        "struck": faults,
        "lateness": lateness,
    })
}

/// After how many seeds a planted bug was found; `None`: it was not, or none was planted.
#[must_use]
pub fn found_after(campaign: Campaign, outcome: &Outcome) -> Option<u64> {
    campaign.planted?;
    outcome.failures.first().map(|failing| failing.seed - campaign.from + 1)
}

/// Seeds in a second, on all cores together.
#[must_use]
pub fn per_second(outcome: &Outcome, seconds: f64) -> f64 {
    outcome.seeds as f64 / seconds.max(0.001)
}

/// Cores that run seeds.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
