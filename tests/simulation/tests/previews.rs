//! What a preview says is what the sync then does.

use std::collections::{BTreeMap, BTreeSet};

use doubles::marketo::{self, Kind};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::fakes::Faults;
use simulation::scenario::{BEGIN, FileOf, LIST, Scenario, ecid, instance, token, usual_faults};
use world::types::Lead;

/// People 1 to 6 by Marketo's own word, 7 to 9 by a cookie, 10 and 11 without an email by both; 4 and 8 are in the list.
/// The audience 102 has all their browsers and is followed, so that Marketo has been asked about every cookie; 101 has
/// browsers 2 to 12 and 15.
fn world(seed: u64) -> Scenario {
    let lead = |id: u64| Lead {
        id,
        email: (id < 10).then(|| format!("p{id}@example.com")),
        cookies: (7..=10).contains(&id).then(|| token(id)).into_iter().collect(),
        ecids: (id <= 6 || id == 11).then(|| ecid(id)).into_iter().collect(),
    };
    let data = instance((1..=11).map(lead).collect(), BTreeSet::from([4, 8]));
    let mut scenario = Scenario::beside(marketo::Settings::default(), seed, SmallRng::seed_from_u64(seed), data);
    let of_101: BTreeSet<u64> = (2..=12).chain([15]).collect();
    let inside = BTreeMap::from([(101, of_101), (102, (1..=20).collect())]);
    scenario.deliver(BEGIN + 1_000, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("settled");
    scenario.create(102, &json!({"name": "Everybody"})).expect("a sync");
    for n in 7..=10 {
        scenario.see(n, n);
    }
    scenario.settle().expect("settled");
    scenario
}

/// Asks for a preview and looks at it until it ends.
fn preview(scenario: &mut Scenario, list: &Value) -> Value {
    let body = json!({"audience_id": "aam:101", "list": list});
    let (status, job) = scenario.request("POST", "/syncs/preview", &body);
    assert_eq!(status, 202, "{job}");
    let path = format!("/previews/{}", job["id"].as_str().expect("an id"));
    for _ in 0..300 {
        let (_, job) = scenario.request("GET", &path, &Value::Null);
        if job["status"] == "done" || job["status"] == "failed" {
            return job;
        }
        scenario.driver.run_for(5_000);
    }
    panic!("a preview that never ends");
}

/// Calls that change something at Marketo.
fn writes(scenario: &Scenario) -> usize {
    let store = scenario.driver.sim.lock();
    let is_write = |kind| matches!(kind, Kind::ListAdd | Kind::ListRemove | Kind::AssetCreate | Kind::AssetDelete);
    store.marketo.calls().iter().filter(|call| is_write(call.kind)).count()
}

fn report(scenario: &mut Scenario, sync: &str) -> Value {
    let (status, report) = scenario.request("GET", &format!("/syncs/{sync}/report"), &Value::Null);
    assert_eq!(status, 200, "{report}");
    report
}

const COUNTS: [&str; 7] = ["no_match", "set_aside", "anonymous", "addressable", "known", "people", "browsers"];

fn counts(shown: &Value) -> Vec<Option<u64>> {
    let field = |name: &str| shown[name].as_u64().or_else(|| shown["audience"].as_u64().filter(|_| name == "browsers"));
    COUNTS.iter().map(|name| field(name)).collect()
}

#[test]
fn the_first_report_of_a_sync_is_what_its_preview_said() {
    for list in [json!({"id": LIST}), json!({"name": "Fresh"})] {
        let mut scenario = world(1);
        let before = writes(&scenario);
        let job = preview(&mut scenario, &list);
        assert_eq!(job["status"], "done", "{job}");
        assert_eq!(writes(&scenario), before, "a preview only reads");
        assert_eq!(counts(&job), [2, 0, 2, 10, 8, 8, 12].map(Some), "{job}");
        assert_eq!(job["not_asked"], 0);

        let sync = scenario.create(101, &list).expect("a sync");
        scenario.settle().expect("settled");
        let report = report(&mut scenario, &sync);
        assert_eq!(counts(&job), counts(&report), "{job} {report}");
        assert_eq!(job["already_there"], report["in_list"]["before_us"], "{job} {report}");
        assert_eq!(job["to_add"], report["in_list"]["ours"], "{job} {report}");
        assert_eq!(report["waiting"], 0);
    }
}

#[test]
fn whatever_fails_a_preview_ends_with_the_same_numbers() {
    let list = json!({"id": LIST});
    let mut untroubled = world(1);
    let healthy = preview(&mut untroubled, &list);
    let now = |scenario: &Scenario| scenario.driver.sim.lock().now;
    let healthy_at = now(&untroubled);
    for seed in 0..20 {
        let mut scenario = world(seed);
        scenario.driver.sim.lock().faults = usual_faults(seed);
        let mut job = preview(&mut scenario, &list);
        // Where its audience failed three times in a row it says so, and is asked for once more.
        while job["status"] == "failed" {
            assert_eq!(job["code"], "not_counted", "{job}");
            job = preview(&mut scenario, &list);
        }
        assert_eq!(counts(&job), counts(&healthy), "seed {seed}");
        for field in ["already_there", "already_there_asked", "to_add", "not_asked"] {
            assert_eq!(job[field], healthy[field], "seed {seed}: {field}");
        }
        // Marketo is asked again about the anonymous cookie an hour after it was (`TokenRecord::due`): where the failures took so
        // long, one look-up more may be ahead.
        let due_again = now(&scenario) > healthy_at + 3_000_000;
        let (calls, expected) = (&job["calls"], &healthy["calls"]);
        let more = calls["look_ups"].as_u64().zip(expected["look_ups"].as_u64()).map(|(now, then)| now - then);
        assert!(more == Some(0) || (due_again && more == Some(1)), "seed {seed}: {calls}");
        for kind in ["membership", "additions"] {
            assert_eq!(calls[kind], expected[kind], "seed {seed}: {kind}");
        }
        assert_eq!(calls["total"].as_u64(), expected["total"].as_u64().zip(more).map(|(then, more)| then + more));
        scenario.driver.sim.lock().faults = Faults::NONE;
        scenario.settle().expect("settled");
    }
}
