//! How long a first sync is said to take, beside how long it takes.

use domain::limits::HOUR_MS;
use serde_json::Value;
use simulation::first::{Plan, Told, told};

/// 15:00 US Central on 2026-01-20, in ms: a day that has calls enough.
const AFTERNOON: u64 = 1_768_888_800_000 + 15 * HOUR_MS;
/// Looks come each ten seconds, and what is shown has been true for some: no estimate is better than that, in seconds.
const GRAIN: f64 = 15.0;

fn live(tokens: u64, known: u64, share: f64) -> (f64, Vec<Told>) {
    let plan = Plan { tokens, known, quota: 50_000, share, begin: AFTERNOON, patience_ms: 8 * HOUR_MS, aloud: false };
    let (measured, told) = told(&plan);
    assert_eq!(measured.in_list, known);
    (measured.hours.expect("an end") * 3_600.0, told)
}

/// Each estimate is within a factor of two of the truth. Returns how many there were.
#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn are_within_a_factor_of_two(took: f64, told: &[Told]) -> usize {
    let mut estimates = 0;
    for Told { at, progress, members } in told {
        let left = took - *at as f64 / 1_000.0;
        println!("{left:>7.0} s left, {members:>6} in the list: {progress}");
        let Some(estimate) = progress["estimate_seconds"].as_f64() else { continue };
        estimates += 1;
        assert!(estimate <= 2.0 * left + GRAIN, "{left} s: {progress}");
        assert!(estimate + GRAIN >= left / 2.0, "{left} s: {progress}");
    }
    estimates
}

/// Nobody is told that the sync is in step before everybody is in the list.
fn is_in_step_with_all(known: u64, told: &[Told]) {
    let early = told.iter().find(|told| told.progress["step"] == "in_step" && told.members < known);
    assert_eq!(early, None);
}

fn steps(told: &[Told]) -> Vec<&str> {
    let mut steps: Vec<&str> = told.iter().filter_map(|told| told.progress["step"].as_str()).collect();
    steps.dedup();
    steps
}

#[test]
fn a_first_sync_of_thousands_says_how_long_it_takes() {
    for (tokens, known, share) in [(30_000, 12_000, 0.5), (20_000, 4_000, 0.1), (12_000, 11_000, 0.25)] {
        let (took, told) = live(tokens, known, share);
        let estimates = are_within_a_factor_of_two(took, &told);
        assert!(estimates * 10 >= told.len() * 7, "{estimates} of {}", told.len());
        assert!(steps(&told).contains(&"asking_marketo"), "{:?}", steps(&told));
        is_in_step_with_all(known, &told);
        // Cookies are done one after another.
        let asking = told.iter().filter(|told| told.progress["step"] == "asking_marketo");
        let done: Vec<u64> = asking.filter_map(|told| told.progress["done"].as_u64()).collect();
        assert!(done.windows(2).all(|pair| pair[0] <= pair[1]), "{done:?}");
        let of = told.iter().find(|told| told.progress["unit"] == "cookies").map(|told| told.progress["of"].clone());
        assert_eq!(of, Some(Value::from(tokens)));
    }
}

#[test]
fn a_first_sync_that_comes_in_stages_says_how_long_it_takes() {
    let (took, told) = live(60_000, 24_000, 0.04);
    assert!(took > 1_500.0, "{took}");
    is_in_step_with_all(24_000, &told);
    let estimates = are_within_a_factor_of_two(took, &told);
    assert!(estimates * 10 >= told.len() * 8, "{estimates} of {}", told.len());
}
