//! The whole system over random worlds, with faults: whatever happens, the lists end as the reference model says.

use simulation::scenario::run;

/// Seeds in CI.
const SEEDS: u64 = 2_000;

/// Runs seeds on both cores and returns the first failure, if any.
fn first_failure(seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let found = std::sync::Mutex::new(None::<(u64, String)>);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end || found.lock().unwrap().is_some() {
                        return;
                    }
                    if let Err(fault) = run(seed) {
                        found.lock().unwrap().get_or_insert((seed, fault));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn random_worlds_end_as_the_reference_model_says() {
    let from = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let many = std::env::var("SEEDS").ok().and_then(|many| many.parse().ok()).unwrap_or(SEEDS);
    let seeds = from.map_or(0..many, |seed| seed..seed + 1);
    if let Some((seed, fault)) = first_failure(seeds) {
        panic!("seed {seed} (replay: SEED={seed} cargo test -p simulation --test seeds): {fault}");
    }
}
