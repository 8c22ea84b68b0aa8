//! What importing a file uses, whatever its size, and how much memory it takes.

use std::sync::{Mutex, PoisonError};

use simulation::import::{Counts, ENTRIES_AT_ONCE, Measured, Plan, measure};

/// What `cargo run --release -p bench -- import --json` prints; whoever changes a figure on purpose writes it anew.
const RECORDED: &str = include_str!("../../bench/import.jsonl");

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn shown(measured: &Measured) {
    let Measured { counts, seconds, bytes } = measured;
    println!("{seconds:?} seconds, {bytes:?} bytes\n{}", serde_json::to_string(counts).expect("JSON"));
}

/// One test at a time: they share the process's memory.
static MEMORY: Mutex<()> = Mutex::new(());

#[test]
fn importing_uses_what_is_recorded_and_no_more_memory_than_is_allowed() {
    let _alone = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let recorded: Vec<Counts> =
        RECORDED.lines().map(|line| serde_json::from_str(line).expect("a line of import.jsonl")).collect();
    assert!(recorded.iter().any(|counts| counts.plan.ecids == 1_000_000), "a million is among them");
    let mut found = Vec::new();
    for plan in recorded.chunk_by(|one, next| one.plan == next.plan).map(|files| files[0].plan) {
        for measured in measure(plan) {
            shown(&measured);
            if let Some(bytes) = measured.bytes {
                assert!(bytes <= measured.bytes_allowed(), "{bytes} bytes of {}", measured.bytes_allowed());
            }
            found.push(measured.counts);
        }
    }
    assert_eq!(found, recorded);
}

#[test]
fn what_does_not_fit_into_memory_is_taken_in_parts_with_the_same_result() {
    let _alone = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    // `measure` looks at the members of every audience.
    for at_once in [1, 7, 300, 1_000, 2_999, ENTRIES_AT_ONCE] {
        let plan = Plan { ecids: 1_000, segments: 3, churn_percent: 10, changes: 100, at_once };
        let all = measure(plan);
        let memberships: Vec<u64> = all.iter().map(|measured| measured.counts.memberships).collect();
        assert_eq!(memberships, [3_000, 3_000, 300]);
        let [first, ..] = all[..] else { panic!("{} files", all.len()) };
        assert_eq!(first.counts.usage.write_units, measure(plan)[0].counts.usage.write_units, "the same again");
    }
}
