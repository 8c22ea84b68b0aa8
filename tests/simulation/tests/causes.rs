//! A run says why it was done: from whoever noticed a change, over the doorbells of two functions, to the list-writer.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::HOUR_MS;
use doubles::marketo;
use ports::{Outgoing, Queue};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::scenario::{BEGIN, FileOf, LIST, MUNCHKIN, Scenario, Streamed, ecid, instance, token};
use world::types::Lead;

/// Lead n owns ECID n: 1 to 3 as Marketo says, 4 and 5 by a cookie, and nobody knows who these are.
fn world(seed: u64) -> Scenario {
    let known =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: vec![ecid(id)] };
    let anonymous = |id: u64| Lead { id, email: None, cookies: vec![token(id)], ecids: Vec::new() };
    let leads = (1..=3).map(known).chain((4..=5).map(anonymous)).collect();
    Scenario::beside(
        marketo::Settings::default(),
        seed,
        SmallRng::seed_from_u64(seed),
        instance(leads, BTreeSet::new()),
    )
}

/// What became of a sync's list since it was last looked at: cause, added and removed, the oldest first.
fn news(scenario: &mut Scenario, id: &str, seen: &mut usize) -> Vec<(Value, u64, u64)> {
    scenario.settle().expect("settled");
    let (status, runs) = scenario.request("GET", &format!("/syncs/{id}/runs"), &Value::Null);
    assert_eq!(status, 200, "{runs}");
    let runs = runs.as_array().expect("runs");
    let number = |run: &Value, name: &str| run[name].as_u64().expect("a number");
    let all: Vec<_> = runs
        .iter()
        .rev()
        .map(|run| {
            assert!(run["calls"].as_u64() > Some(0) && run["ended_at"].is_string(), "{run}");
            assert!(run["causes"].as_array().expect("causes").contains(&run["cause"]), "{run}");
            (run["cause"].clone(), number(run, "added"), number(run, "removed"))
        })
        .collect();
    let new = all[*seen..].to_vec();
    *seen = all.len();
    new
}

#[test]
fn each_run_bears_the_cause_of_what_it_did() {
    for seed in 0..8 {
        let mut scenario = world(seed);
        let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
        let mut seen = 0;
        scenario.see(4, 4);
        scenario.see(5, 5);
        news(&mut scenario, &id, &mut seen);

        let inside = BTreeMap::from([(101, BTreeSet::from([1, 2, 4, 5]))]);
        scenario.deliver(BEGIN + 1_000, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
        assert_eq!(news(&mut scenario, &id, &mut seen), [(json!("file"), 2, 0)], "seed {seed}");

        let now = scenario.driver.sim.lock().now;
        scenario.hear(Streamed { sid: 101, ecid: 3, changed: now, as_of: now, inside: true });
        assert_eq!(news(&mut scenario, &id, &mut seen), [(json!("stream"), 1, 0)], "seed {seed}");

        // Marketo's activities tell of a form, a minute later at most.
        {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.marketo.fill_form(now, &token(4), "p4@example.com");
        }
        assert_eq!(news(&mut scenario, &id, &mut seen), [(json!("schedule"), 1, 0)], "seed {seed}");

        // Somebody says so at once.
        let hint = json!({"v": 1, "munchkin_id": MUNCHKIN, "look_at": {"token": token(5)}});
        {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.marketo.fill_form(now, &token(5), "p5@example.com");
            store.enqueue(Queue::Matches, Outgoing { body: hint.to_string(), group: None, dedup: None });
        }
        assert_eq!(news(&mut scenario, &id, &mut seen), [(json!("hint"), 1, 0)], "seed {seed}");

        let (status, answer) = scenario.request("POST", &format!("/syncs/{id}/run"), &Value::Null);
        assert_eq!(status, 200, "{answer}");
        let by_hand = news(&mut scenario, &id, &mut seen);
        assert!(!by_hand.is_empty(), "seed {seed}: an operator asked");
        assert!(by_hand.iter().all(|run| *run == (json!("by_hand"), 0, 0)), "seed {seed}: {by_hand:?}");

        scenario.stop_taking_out(0);
        assert_eq!(news(&mut scenario, &id, &mut seen), [(json!("by_hand"), 0, 5)], "seed {seed}");
    }
}

fn get(scenario: &mut Scenario, path: &str) -> Value {
    let (status, answer) = scenario.request("GET", path, &Value::Null);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

fn deliver(scenario: &mut Scenario, time: u64, ecids: &[u64]) {
    let people: BTreeSet<u64> = ecids.iter().copied().collect();
    let inside = BTreeMap::from([(101, people.clone()), (102, people)]);
    scenario.deliver(BEGIN + time, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("settled");
}

#[test]
fn sizes_are_kept_with_the_first_report_of_each_hour() {
    for seed in 0..4 {
        let mut scenario = world(seed);
        let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
        deliver(&mut scenario, 1_000, &[1, 2]);
        scenario.driver.run_for(3 * HOUR_MS);
        deliver(&mut scenario, 2_000, &[1, 2, 3]);
        scenario.driver.run_for(HOUR_MS);

        let report = get(&mut scenario, &format!("/syncs/{id}/report"));
        let sizes = get(&mut scenario, &format!("/syncs/{id}/history"));
        let sizes = sizes.as_array().expect("rows");
        let hours: Vec<&str> = sizes.iter().map(|size| &size["at"].as_str().expect("a time")[..13]).collect();
        assert!(hours.len() >= 2 && hours.is_sorted_by(|a, b| a < b), "seed {seed}: one an hour: {hours:?}");
        let last = sizes.last().expect("a row");
        let of = |name: &str| report[name].clone();
        // The hour's first report; the last one may be of later.
        assert_eq!(hours.last(), of("as_of").as_str().map(|at| &at[..13]).as_ref(), "seed {seed}");
        let wanted = json!({
            "at": last["at"], "browsers": of("audience"), "addressable": of("addressable"), "known": of("known"),
            "people": of("people"), "in_list": 3, "members": of("members_in_marketo"),
        });
        assert_eq!((last, &last["people"]), (&wanted, &json!(3)), "seed {seed}");
    }
}
