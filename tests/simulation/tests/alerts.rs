//! What is wrong is told once when it begins and once when it ends, to everybody, also to whoever did not answer at first.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::{DAY_MS, HOUR_MS};
use doubles::marketo;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::scenario::{BEGIN, FileOf, LIST, Scenario, ecid, instance};
use world::types::Lead;

const MINUTE: u64 = 60_000;
/// Longer than two checks lie apart.
const CHECK: u64 = 11 * MINUTE;
/// People of the world.
const PEOPLE: u64 = 200;

/// A world in which lead n is known and owns ECID n, with two webhooks.
fn world(seed: u64) -> Scenario {
    let lead =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: vec![ecid(id)] };
    let data = instance((1..=PEOPLE).map(lead).collect(), BTreeSet::new());
    let mut scenario = Scenario::beside(marketo::Settings::default(), seed, SmallRng::seed_from_u64(seed), data);
    let hook = |form: &str| json!({"url": format!("https://hook.test/{form}"), "form": form});
    let hooks = json!({"webhooks": {"plain": hook("json"), "chat": hook("slack"), "teams": hook("teams")}});
    assert_eq!(scenario.request("PUT", "/alerts", &hooks).0, 200);
    scenario
}

fn deliver(scenario: &mut Scenario, time: u64, ecids: impl IntoIterator<Item = u64>) {
    let inside = BTreeMap::from([(101, ecids.into_iter().collect()), (102, BTreeSet::from([1]))]);
    scenario.deliver(BEGIN + time, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("settled");
}

/// What the plain webhook was told: kind, phase and subject.
fn told(scenario: &Scenario) -> Vec<(String, String, String)> {
    let store = scenario.driver.sim.lock();
    let plain = store.hooked.iter().filter(|(path, _)| path == "/json");
    let word = |body: &Value, name: &str| body[name].as_str().expect("a word").to_owned();
    plain.map(|(_, body)| (word(body, "kind"), word(body, "phase"), word(body, "subject"))).collect()
}

fn of(kind: &str, phase: &str, subject: &str) -> (String, String, String) {
    (kind.to_owned(), phase.to_owned(), subject.to_owned())
}

/// What the bus heard of a kind.
fn heard(scenario: &Scenario, kind: &str) -> Vec<Value> {
    let store = scenario.driver.sim.lock();
    store.announced.iter().filter(|one| one.kind == kind).map(|one| one.detail.clone()).collect()
}

#[test]
fn a_late_feed_is_told_once_and_once_when_it_is_late_no_more() {
    let mut scenario = world(1);
    let feed = json!({"snapshots": true, "every_hours": 1});
    assert!(scenario.request("PUT", "/feeds/default", &feed).0 < 300);
    deliver(&mut scenario, 1_000, 1..=5);
    scenario.driver.run_for(HOUR_MS);
    assert_eq!(told(&scenario), []);
    scenario.driver.run_for(2 * HOUR_MS);
    assert_eq!(told(&scenario), [of("feed_late", "began", "default")]);
    let now = scenario.driver.sim.lock().now - BEGIN;
    deliver(&mut scenario, now, 1..=6);
    scenario.driver.run_for(CHECK);
    assert_eq!(told(&scenario), [of("feed_late", "began", "default"), of("feed_late", "ended", "default")]);

    let began = heard(&scenario, "Incident began");
    assert_eq!((began.len(), heard(&scenario, "Incident ended").len()), (1, 1));
    assert_eq!(began[0]["values"]["every_hours"], 1);
    let store = scenario.driver.sim.lock();
    let of_form =
        |form: &str| store.hooked.iter().filter(|(path, _)| path == form).map(|(_, body)| body).collect::<Vec<_>>();
    let chat = of_form("/slack");
    assert!(
        chat.len() == 2 && chat[0]["text"].as_str().expect("text").contains("Nothing has come by the feed"),
        "{chat:?}"
    );
    let cards = of_form("/teams");
    assert!(cards.len() == 2, "{cards:?}");
    let text = &cards[1]["attachments"][0]["content"]["body"][0]["text"];
    assert!(text.as_str().expect("text").starts_with("Over:"), "{cards:?}");
}

#[test]
fn a_webhook_that_does_not_answer_is_told_later_and_in_order() {
    let mut scenario = world(2);
    scenario.driver.sim.lock().hook_is_down = true;
    let queue = "sim-matches-dead";
    scenario.driver.sim.lock().dead_letters.insert(queue.to_owned(), 3);
    scenario.driver.run_for(CHECK);
    assert_eq!(heard(&scenario, "Incident began").len(), 1, "the bus need not wait for it");
    scenario.driver.sim.lock().dead_letters.clear();
    scenario.driver.run_for(CHECK);
    assert_eq!(told(&scenario), []);
    scenario.driver.sim.lock().hook_is_down = false;
    scenario.driver.run_for(CHECK);
    assert_eq!(told(&scenario), [of("dead_letters", "began", queue), of("dead_letters", "ended", queue)]);
    let (_, alerts) = scenario.request("GET", "/alerts", &Value::Null);
    let incident = &alerts["incidents"][0];
    assert_eq!((&incident["kind"], &incident["not_told_yet"]), (&json!("dead_letters"), &json!([])));
    assert!(incident["ended_at"].is_string());

    // The same queue once more is another incident.
    scenario.driver.sim.lock().dead_letters.insert(queue.to_owned(), 1);
    scenario.driver.run_for(CHECK);
    assert_eq!(told(&scenario).len(), 3);
    let began = heard(&scenario, "Incident began");
    assert!(began.len() == 2 && began[0]["id"] != began[1]["id"], "{began:?}");
}

#[test]
fn a_mass_change_and_an_audience_deleted_at_adobe_are_told_and_what_an_operator_does_is_not() {
    let mut scenario = world(3);
    let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    let other = scenario.create(102, &json!({"name": "Another"})).expect("of another audience");
    deliver(&mut scenario, 1_000, 1..=PEOPLE);
    scenario.request("POST", &format!("/syncs/{other}/pause"), &Value::Null);
    scenario.driver.run_for(CHECK);
    assert_eq!(told(&scenario), []);

    let now = scenario.driver.sim.lock().now - BEGIN;
    deliver(&mut scenario, now, 1..=5);
    scenario.driver.run_for(CHECK);
    let list = LIST.to_string();
    assert_eq!(told(&scenario), [of("change_held", "began", &list)]);
    let (_, sync) = scenario.request("GET", &format!("/syncs/{id}"), &Value::Null);
    let decision = json!({"held": sync["held"]["id"], "decision": "drop"});
    assert_eq!(scenario.request("POST", &format!("/syncs/{id}/held"), &decision).0, 202);
    scenario.settle().expect("settled");
    scenario.driver.run_for(CHECK);
    assert_eq!(told(&scenario)[1..], [of("change_held", "ended", &list)]);

    assert!(scenario.driver.sim.lock().adobe.delete_segment(101));
    scenario.driver.run_for(2 * HOUR_MS);
    assert_eq!(told(&scenario)[2..], [of("sync_stopped", "began", &id)]);
}

#[test]
fn each_run_that_has_ended_is_announced_once() {
    let mut scenario = world(4);
    let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    deliver(&mut scenario, 1_000, 1..=50);
    scenario.driver.run_for(CHECK);
    let runs = heard(&scenario, "Run finished");
    let added: u64 = runs.iter().map(|run| run["added"].as_u64().expect("a number")).sum();
    assert_eq!(added, 50, "{runs:?}");
    assert!(runs.iter().all(|run| run["sync_ids"] == json!([id])), "{runs:?}");
    scenario.driver.run_for(DAY_MS);
    let now = scenario.driver.sim.lock().now - BEGIN;
    deliver(&mut scenario, now, 1..=52);
    scenario.driver.run_for(CHECK);
    let all = heard(&scenario, "Run finished");
    let ids: BTreeSet<&str> = all.iter().map(|run| run["id"].as_str().expect("an id")).collect();
    assert_eq!(
        (ids.len(), all.iter().map(|run| run["added"].as_u64().expect("a number")).sum::<u64>()),
        (all.len(), 52)
    );
}
