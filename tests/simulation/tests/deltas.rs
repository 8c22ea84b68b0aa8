//! What it costs to take in what changed of a large audience.

use simulation::deltas::{Change, Counts, measure};

/// What `cargo run --release -p bench -- delta --json` prints; whoever changes a figure on purpose writes it anew.
const RECORDED: &str = include_str!("../../bench/delta.jsonl");

#[test]
fn a_delta_uses_what_is_recorded_and_follows_what_changed_and_not_the_size_of_the_audience() {
    let recorded: Vec<Counts> =
        RECORDED.lines().map(|line| serde_json::from_str(line).expect("a line of delta.jsonl")).collect();
    let found: Vec<Counts> = recorded.iter().map(|one| measure(one.change, one.members, one.audiences)).collect();
    assert_eq!(found, recorded);
    let of = |change, members, audiences| {
        let mut all = found.iter();
        let is = |one: &&Counts| (one.change, one.members, one.audiences) == (change, members, audiences);
        *all.find(is).expect("a line of delta.jsonl")
    };
    for members in [10_000, 1_000_000] {
        let counts = of(Change::Hundred, members, 1);
        assert!(counts.is_within_bar(), "{counts:?}");
    }
    let many = of(Change::Hundredth, 1_000_000, 1).usage;
    assert!(many.write_units <= 60 && many.half_read_units <= 2 * 120, "{many:?}");
    assert!(many.object_reads + many.object_writes <= 40, "{many:?}");

    let reads = |counts: Counts| counts.usage.half_read_units + counts.usage.object_reads;
    let known = |members, audiences| of(Change::Known, members, audiences);
    let [small, large, ten, twenty] = [known(10_000, 1), known(1_000_000, 1), known(10_000, 10), known(10_000, 20)];
    // Of a large audience its fences are read, and one block.
    assert!(reads(large) <= reads(small) + 4, "{small:?} {large:?}");
    assert_eq!(large.usage.write_units, small.usage.write_units);
    let (ninth, tenth) = ((reads(ten) - reads(small)) / 9, (reads(twenty) - reads(ten)) / 10);
    // Each audience reads which syncs there are, a unit for some six of them, once to be told and once to tell the lists.
    assert!(tenth <= ninth + 10, "{ninth} and then {tenth} for each audience more");
}
