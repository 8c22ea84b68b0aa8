//! The promise of freshness is a test (issue 5): counts and virtual times, the same on every machine.

use domain::limits::HOUR_MS;
use simulation::promise::{Measured, Plan, measure};

/// 15:00 US Central on 2026-01-20, in ms.
const AFTERNOON: u64 = 1_768_888_800_000 + 15 * HOUR_MS;
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
