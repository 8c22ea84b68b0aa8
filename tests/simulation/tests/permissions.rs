//! Whatever a function asks of AWS in worlds at random, the template allows it. `cargo run -p repo --bin permissions` compares
//! what end-to-end tests come by in the same way, and in the other direction; what is seen here is written down for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use doubles::marketo;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use repo::permissions::{allowed, differences};
use serde_json::json;
use simulation::campaign::attempt;
use simulation::noted;
use simulation::scenario::{BEGIN, FileOf, LIST, Plan, Scenario, instance};

/// Worlds at random.
const SEEDS: u64 = 600;

/// Worlds at random leave Adobe's library as it is.
fn an_audience_is_deleted_at_adobe() {
    let data = instance(Vec::new(), BTreeSet::new());
    let mut scenario = Scenario::beside(marketo::Settings::default(), 1, SmallRng::seed_from_u64(1), data);
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    assert!(scenario.driver.sim.lock().adobe.delete_segment(101));
    scenario.driver.run_for(2 * 3_600_000);
}

/// They do not leave an audience out of a full file either.
fn an_operator_says_that_an_audience_is_empty() {
    let data = instance(Vec::new(), BTreeSet::new());
    let mut scenario = Scenario::beside(marketo::Settings::default(), 2, SmallRng::seed_from_u64(2), data);
    let feed = json!({"snapshots": true, "completeness": "single-file"});
    assert!(scenario.request("PUT", "/feeds/default", &feed).0 < 300);
    let sync = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    for (n, audiences) in [(1, vec![101, 102]), (2, vec![102])] {
        let inside: BTreeMap<_, _> = audiences.into_iter().map(|audience| (audience, BTreeSet::from([1]))).collect();
        scenario.deliver(BEGIN + n * 1_000, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
        scenario.settle().expect("settled");
    }
    let (status, answer) =
        scenario.request("POST", &format!("/syncs/{sync}/not-delivered"), &json!({"decision": "empty"}));
    assert!(status < 300, "{status} {answer}");
}

#[test]
fn what_the_functions_ask_for_is_allowed() {
    noted::listen();
    for seed in 0..SEEDS {
        let _ended = attempt(Plan::of(seed), None);
    }
    an_audience_is_deleted_at_adobe();
    an_operator_says_that_an_audience_is_empty();
    let seen = noted::noted();
    let functions: Vec<&str> = seen.iter().map(|permission| permission.function.as_str()).collect();
    for function in ["create-sync", "cookie-ingest", "scheduled-incremental-sync", "list-writer"] {
        assert!(functions.contains(&function), "nothing is seen of {function}");
    }
    if let Some(folder) = std::env::var_os("STACK_LOGS_DIR").filter(|folder| !folder.is_empty()) {
        let folder = Path::new(&folder).join("simulation");
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut file = std::fs::File::create(folder.join("calls.log")).expect("a file");
        seen.iter().for_each(|permission| writeln!(file, "{permission}").expect("written"));
    }
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
    let allowed = allowed(&std::fs::read_to_string(template).expect("the template")).expect("permissions");
    let differences = differences(&allowed, &seen);
    let forbidden: Vec<_> = differences.iter().filter(|line| line.starts_with("used, and not allowed")).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}
