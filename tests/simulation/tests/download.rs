//! A download of two million people, slice by slice.

use simulation::download::{Counts, Measured, PEOPLE, REFUSED_PERCENT, measure};

/// What `cargo run --release -p bench -- download --json` prints; whoever changes a figure on purpose writes it anew.
const RECORDED: &str = include_str!("../../bench/download.jsonl");

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn shown(measured: &Measured) {
    println!("{measured:?}");
}

#[test]
fn two_million_people_are_downloaded_as_recorded_and_within_the_limits_of_s3() {
    let measured = measure(PEOPLE, REFUSED_PERCENT);
    shown(&measured);
    // How much time and memory it takes depends on what else runs here.
    let counted = Measured { peak_mb: None, begin_seconds: None, slice_seconds: None, ..measured };
    counted.check().expect("within the limits");
    assert_eq!(measured.counts, serde_json::from_str(RECORDED).expect("a line of download.jsonl"));
}

#[test]
fn what_misses_a_bar_is_an_error() {
    let counts = Counts { people: 9, lines: 10, parts: 2, smallest_part: 5 << 20, ..Counts::default() };
    let fine = Measured { counts, function_mb: 256.0, begin_seconds: None, slice_seconds: None, peak_mb: None };
    fine.check().expect("fine");
    for worse in [
        Measured { counts: Counts { lines: 9, ..counts }, ..fine },
        Measured { counts: Counts { parts: 10_001, ..counts }, ..fine },
        Measured { counts: Counts { smallest_part: (5 << 20) - 1, ..counts }, ..fine },
        Measured { begin_seconds: Some(3.0), ..fine },
        Measured { slice_seconds: Some(3.0), ..fine },
        Measured { peak_mb: Some(200.0), ..fine },
    ] {
        worse.check().expect_err("a bar is missed");
    }
}
