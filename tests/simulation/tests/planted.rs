//! Every planted bug is found: by a crafted test, or else by random worlds as soon as `infra/docs/simulation.md` says.

use std::collections::BTreeMap;

use domain::planted::Guard;
use simulation::planted::{crafted, found_after, row};

/// Bugs that take more random worlds than this are not looked for here; their crafted tests find them.
const SOON: u64 = 500;
/// Other worlds may take a little longer than those that were counted.
const LONGER: u64 = 4;

/// What the document's table says: after how many random worlds each bug is found, if at all.
fn documented() -> BTreeMap<Guard, Option<u64>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/docs/simulation.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let of = |guard: Guard| {
        let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&row(guard))).collect();
        let [number] = rows.as_slice() else {
            panic!(
                "{guard:?}: {} rows; print the table with `cargo run -p simulation -- --table --seeds 1000`",
                rows.len()
            )
        };
        let number = number.trim_end_matches(" |");
        (
            guard,
            number.parse().ok().or_else(|| {
                assert!(number.starts_with("not in "), "{guard:?}: {number}");
                None
            }),
        )
    };
    Guard::ALL.into_iter().map(of).collect()
}

#[test]
fn random_worlds_find_planted_bugs_as_soon_as_the_table_says() {
    let documented = documented();
    let by_chance = documented.into_iter().filter(|(guard, _)| crafted(*guard).is_none());
    let soon = by_chance.filter_map(|(guard, seeds)| Some((guard, seeds.filter(|seeds| *seeds <= SOON)?)));
    let late: Vec<(Guard, u64)> = soon.filter(|(guard, seeds)| found_after(*guard, seeds * LONGER).is_none()).collect();
    assert!(late.is_empty(), "not found any more: {late:?}");
}

#[test]
fn what_random_worlds_do_not_find_soon_a_crafted_test_finds() {
    for (guard, seeds) in documented() {
        let Some(test) = crafted(guard) else {
            assert!(
                seeds.is_some_and(|seeds| seeds <= SOON),
                "{guard:?} is found after {seeds:?} worlds, and by no test"
            );
            continue;
        };
        let (file, name) = test.split_once("::").expect("file::test");
        let text = std::fs::read_to_string(format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"))).expect("the file");
        assert!(text.contains(&format!("#[test]\nfn {name}()")), "{test} is no test");
        assert!(text.contains(&format!("Guard::{guard:?}")), "{file} does not take {guard:?} out");
    }
}

#[test]
fn of_twenty_bugs_and_more_random_worlds_find_eighteen_and_more() {
    let documented = documented();
    let found = documented.values().flatten().filter(|seeds| **seeds <= 20_000).count();
    assert!(documented.len() >= 20 && found >= 18, "{found} of {}", documented.len());
}
