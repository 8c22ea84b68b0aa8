//! The promise of freshness is a test (issue 5): counts and virtual times, the same on every machine.

use domain::limits::HOUR_MS;
use simulation::first;
use simulation::promise::{Measured, Plan, measure};

/// Midnight US Central on 2026-01-20, in ms: a day of 24 hours begins.
const MIDNIGHT: u64 = 1_768_888_800_000;
/// 15:00 on that day.
const AFTERNOON: u64 = MIDNIGHT + 15 * HOUR_MS;
/// Issue 5: within 10 minutes at the 95th percentile, in seconds.
const P95: f64 = 600.0;
/// Issue 5: never later than 2 hours, in seconds.
const MOST: f64 = 7_200.0;

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn shown(measured: &Measured) {
    for (fact, took) in &measured.took {
        println!("{fact:?}: {took:?}");
    }
    for day in &measured.days {
        println!("{day:?}");
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn shown_first(measured: &first::Measured) {
    println!("{measured:?}");
}

/// Eight lists from six in the evening, when most of the day's calls are spent, over midnight US Central and a whole day.
#[test]
fn every_kind_of_change_shows_within_ten_minutes_and_never_later_than_two_hours() {
    let measured = measure(&Plan {
        lists: 8,
        people: 400,
        begin: AFTERNOON,
        changing_ms: 30 * HOUR_MS,
        stream_every_ms: 8_000,
        people_every_ms: 60_000,
        spent: 22_000,
        seed: 1,
    });
    shown(&measured);
    assert_eq!(measured.took.len(), 4);
    for (fact, took) in &measured.took {
        assert!(took.changes > 1_000, "{fact:?}: {took:?}");
        assert_eq!(took.missing, 0, "{fact:?}");
        assert!(took.p95_seconds <= P95, "{fact:?}: {took:?}");
        assert!(took.max_seconds <= MOST, "{fact:?}: {took:?}");
    }
    // The share is kept, though of both whole days most is spent. (The third is two hours without changes.)
    assert_eq!(measured.days.len(), 3);
    for (day, least) in measured.days.iter().zip([9, 7, 0]) {
        assert!(day.calls <= day.allowed && day.calls >= day.allowed * least / 10, "{day:?}");
    }
    assert!(measured.most_in_20_seconds <= 50 && measured.most_at_once <= 5 && measured.refused == 0);
    assert_eq!((measured.stopped, measured.failed, measured.held), (0, 0, 0));
}

/// A fiftieth of the first sync, at a twenty-fifth of its rate, so that it comes in stages as the large one does.
///
/// What this proves: look-ups and additions fill their calls, so that fifty times as many people take fifty times as many
/// calls; the audience is told while look-ups go on, and the list is written meanwhile; a stage is no mass change for the
/// next; nobody is asked about twice while others wait; and what the calls cost that do not grow with the load, which is
/// as in the large one, for minutes are minutes. What it cannot prove: that the day's calls last. At this size the fixed
/// calls outweigh the others, and a quota that binds would bind for them. Nor what large sets cost.
/// `cargo run --release -p bench -- first-sync` proves both.
#[test]
fn a_first_sync_fills_its_calls_and_comes_in_stages_that_nobody_holds() {
    const PART: u64 = 50;
    let plan = first::Plan {
        tokens: 5_000_000 / PART,
        known: 2_000_000 / PART,
        // The share of a day is a fiftieth of the load's 23,334 calls, and the 1,666 that are left of 25,000 for the rest.
        quota: (23_334 / PART + 1_666) * 50,
        share: 0.02,
        begin: MIDNIGHT,
        patience_ms: 24 * HOUR_MS,
        aloud: false,
    };
    let measured = first::measure(&plan);
    shown_first(&measured);
    assert_eq!(measured.in_list, plan.known);
    let (hours, asked, began) = (measured.hours, measured.asked_hours, measured.first_hours);
    let (hours, asked, began) = (hours.expect("an end"), asked.expect("all asked"), began.expect("a beginning"));
    assert!(began < asked && asked <= hours && hours < 24.0);
    assert!(measured.passes >= 4 && measured.written_when_asked > 0.3, "in stages");
    assert!(!measured.held && !measured.stuck && measured.most_laps < 1_000);
    assert_eq!((measured.stopped, measured.failed, measured.refused), (0, 0, 0));
    let [day] = measured.days.as_slice() else { panic!("one day") };
    let calls = |kind: &str| day.kinds.get(kind).copied().unwrap_or(0);
    let (looking, adding) = (calls("Leads"), calls("ListAdd"));
    assert!(looking <= plan.tokens.div_ceil(300) + 2, "{looking}");
    // The last call of each stage is not full.
    assert!(adding <= plan.known.div_ceil(300) + measured.passes, "{adding}");
    // Those that do not grow: an hour's worth, for a day.
    let fixed = (day.calls - looking - adding) as f64 / hours.max(1.0) * 24.0;
    assert!(PART as f64 * (looking as f64 + 40_000.0 / 300.0) + fixed <= 25_000.0, "{fixed}");
}
