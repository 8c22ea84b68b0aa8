//! What operators see of the writer, over the real handlers: mass changes that wait for them, people taken out by hand,
//! people whom Marketo refuses, lists that are gone.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::scenario::{FileOf, LIST, Scenario, ecid, instance};
use world::types::Lead;

/// People of whom Marketo itself knows an ECID: lead n owns ECID n.
fn world(people: u64) -> Scenario {
    let lead = |id| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: vec![ecid(id)] };
    let data = instance((1..=people).map(lead).collect(), BTreeSet::new());
    Scenario::with(1, SmallRng::seed_from_u64(1), data)
}

fn deliver(scenario: &mut Scenario, ecids: impl IntoIterator<Item = u64>) {
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, ecids.into_iter().collect())]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("rest");
}

fn members(scenario: &Scenario) -> BTreeSet<u64> {
    scenario.driver.sim.lock().marketo.members(LIST).cloned().unwrap_or_default()
}

fn sync(scenario: &mut Scenario, with: &Value) -> String {
    let mut body = json!({"audience_id": "aam:101", "list": {"id": LIST}});
    if let (Some(body), Some(with)) = (body.as_object_mut(), with.as_object()) {
        body.extend(with.clone());
    }
    let (status, answer) = scenario.request("POST", "/syncs", &body);
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_str().expect("an id").to_owned()
}

fn get(scenario: &mut Scenario, path: &str) -> Value {
    scenario.request("GET", path, &Value::Null).1
}

fn report(scenario: &mut Scenario, id: &str) -> Value {
    scenario.request("POST", &format!("/syncs/{id}/run"), &json!({}));
    scenario.settle().expect("rest");
    get(scenario, &format!("/syncs/{id}/report"))
}

/// The people of a report are all somewhere.
fn adds_up(report: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("not a number in {report}"));
    let failed: u64 = report["failed"].as_object().expect("codes").values().map(number).sum();
    let in_list = number(&report["in_list"]["ours"]) + number(&report["in_list"]["before_us"]);
    let elsewhere = number(&report["waiting"]) + number(&report["kept_out"]) + number(&report["dropped"]);
    assert_eq!(number(&report["people"]), in_list + elsewhere + failed, "{report}");
}

#[test]
fn a_delivery_that_takes_nearly_everybody_out_is_held_until_an_operator_decides() {
    for apply in [true, false] {
        let mut scenario = world(40);
        let id = sync(&mut scenario, &json!({"guard": {"removals_percent": 30, "removals_at_least": 10}}));
        deliver(&mut scenario, 1..=40);
        assert_eq!(members(&scenario).len(), 40);
        deliver(&mut scenario, 1..=25);
        let calls = scenario.driver.sim.lock().marketo.used_today();
        assert_eq!(members(&scenario).len(), 40, "nobody leaves");
        let held = get(&mut scenario, &format!("/syncs/{id}"))["held"].clone();
        assert_eq!((&held["removals"], &held["of"]), (&json!(15), &json!(40)), "{held}");
        assert!(held["why"].as_str().is_some_and(|why| why.contains("15 of the 40")), "{held}");
        let status = get(&mut scenario, "/status");
        assert_eq!(status["held"].as_array().map(Vec::len), Some(1), "{status}");

        // Whoever decides about something else decides nothing.
        let path = format!("/syncs/{id}/held");
        let wrong = scenario.request("POST", &path, &json!({"held": "0", "decision": "apply"}));
        assert_eq!(wrong.0, 409, "{}", wrong.1);
        let decision = if apply { "apply" } else { "drop" };
        let body = json!({"held": held["id"], "decision": decision});
        assert_eq!(scenario.request("POST", &path, &body).0, 202);
        scenario.settle().expect("rest");
        assert_eq!(members(&scenario).len(), if apply { 25 } else { 40 });
        assert_eq!(get(&mut scenario, &format!("/syncs/{id}"))["held"], Value::Null);
        assert!(scenario.driver.sim.lock().marketo.used_today() > calls || !apply);
        let found = report(&mut scenario, &id);
        adds_up(&found);
        assert_eq!(found["members"]["kept"], if apply { 0 } else { 15 }, "{found}");

        // A small change goes on as ever.
        deliver(&mut scenario, 1..=24);
        assert!(!members(&scenario).contains(&25));
    }
}

#[test]
fn a_mass_change_that_is_mended_by_the_next_delivery_is_held_no_more() {
    let mut scenario = world(30);
    let id = sync(&mut scenario, &json!({}));
    deliver(&mut scenario, 1..=30);
    deliver(&mut scenario, [99]);
    assert_eq!(members(&scenario).len(), 30);
    assert_eq!(get(&mut scenario, &format!("/syncs/{id}"))["held"]["removals"], 30);
    deliver(&mut scenario, 1..=29);
    assert_eq!(get(&mut scenario, &format!("/syncs/{id}"))["held"], Value::Null);
    assert_eq!(members(&scenario), (1..=29).collect());
}

#[test]
fn whoever_is_taken_out_by_hand_stays_out_is_counted_and_can_be_put_back() {
    let mut scenario = world(6);
    let id = sync(&mut scenario, &json!({}));
    deliver(&mut scenario, 1..=5);
    for lead in [2, 3] {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        assert!(store.marketo.remove_by_hand(now, LIST, lead));
    }
    // The activity log tells within minutes; then Marketo is asked.
    scenario.driver.run_for(30 * 60_000);
    scenario.settle().expect("rest");
    let found = report(&mut scenario, &id);
    adds_up(&found);
    assert_eq!((&found["kept_out"], &found["waiting"]), (&json!(2), &json!(0)), "{found}");
    deliver(&mut scenario, 1..=6);
    assert_eq!(members(&scenario), BTreeSet::from([1, 4, 5, 6]));

    assert_eq!(scenario.request("POST", &format!("/syncs/{id}/put-back"), &json!({"lead_ids": [2]})).0, 202);
    scenario.settle().expect("rest");
    assert_eq!(members(&scenario), BTreeSet::from([1, 2, 4, 5, 6]));
    // Gone from the audience, and come again.
    deliver(&mut scenario, [1, 2, 4, 5, 6]);
    deliver(&mut scenario, 1..=6);
    assert_eq!(members(&scenario), (1..=6).collect());
}

#[test]
fn whoever_is_added_by_hand_is_counted_as_there_before_us_and_never_leaves() {
    let mut scenario = world(4);
    let id = sync(&mut scenario, &json!({}));
    deliver(&mut scenario, [1, 2]);
    {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        assert!(store.marketo.add_by_hand(now, LIST, 3));
    }
    scenario.driver.run_for(30 * 60_000);
    let found = report(&mut scenario, &id);
    assert_eq!((&found["members_in_marketo"], &found["members"]["before_us_only"]), (&json!(3), &json!(1)), "{found}");
    deliver(&mut scenario, [1, 2, 3]);
    deliver(&mut scenario, [1]);
    assert_eq!(members(&scenario), BTreeSet::from([1, 3]));
}

#[test]
fn a_refused_person_is_named_with_code_request_and_sentence_and_tried_again_when_something_changes() {
    let mut scenario = world(3);
    let id = sync(&mut scenario, &json!({}));
    scenario.driver.sim.lock().marketo.refuse_lead(2, Some(1_008));
    deliver(&mut scenario, 1..=3);
    assert_eq!(members(&scenario), BTreeSet::from([1, 3]));
    let found = report(&mut scenario, &id);
    adds_up(&found);
    assert_eq!(found["failed"]["1008"], 1, "{found}");
    let refused = &found["refused"][0];
    assert_eq!((&refused["lead_id"], &refused["code"]), (&json!(2), &json!("1008")), "{found}");
    assert!(refused["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{refused}");
    assert!(refused["sentence"].as_str().is_some_and(|sentence| sentence.contains("partition")), "{refused}");

    // Nothing changes: it is not tried again and again.
    scenario.driver.run_for(60 * 60_000);
    assert_eq!(members(&scenario), BTreeSet::from([1, 3]));
    {
        let mut store = scenario.driver.sim.lock();
        store.marketo.refuse_lead(2, None);
        let now = store.now;
        store.marketo.fill_form(now, "_mch-example.com-1700000000009-9", "p2@example.com");
    }
    scenario.driver.run_for(10 * 60_000);
    scenario.settle().expect("rest");
    assert_eq!(members(&scenario), (1..=3).collect());
}

#[test]
fn a_list_of_many_pages_is_read_over_several_turns_and_reported_whole() {
    // 50 pages of 300: more than one turn reads.
    let many = 15_000;
    let lead = |id: u64| Lead {
        id,
        email: Some(format!("p{id}@example.com")),
        cookies: Vec::new(),
        ecids: if id <= 2 { vec![ecid(id)] } else { Vec::new() },
    };
    let data = instance((1..=many).map(lead).collect(), (2..=many).collect());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    let id = sync(&mut scenario, &json!({}));
    deliver(&mut scenario, 1..=2);
    let found = report(&mut scenario, &id);
    assert_eq!(found["members_in_marketo"], many, "{found}");
    assert_eq!(found["in_list"], json!({"ours": 1, "before_us": 1}));
    adds_up(&found);
    assert!(scenario.driver.sim.lock().objects.keys().all(|key| !key.starts_with("sets/reading/")), "left behind");
}

#[test]
fn an_adopted_list_is_guarded_too_and_before_anybody_leaves() {
    let mut scenario = world(40);
    // Who of it is tied is known once Marketo has told of their ECIDs.
    scenario.settle().expect("the first extract ends");
    {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        (1..=40).for_each(|lead| assert!(store.marketo.add_by_hand(now, LIST, lead)));
    }
    let guard = json!({"members_before": "adopt", "guard": {"removals_percent": 30, "removals_at_least": 10}});
    let id = sync(&mut scenario, &guard);
    deliver(&mut scenario, 1..=5);
    assert_eq!(members(&scenario).len(), 40, "nobody leaves");
    let held = get(&mut scenario, &format!("/syncs/{id}"))["held"].clone();
    assert_eq!((&held["removals"], &held["of"]), (&json!(35), &json!(40)), "{held}");
    let body = json!({"held": held["id"], "decision": "apply"});
    assert_eq!(scenario.request("POST", &format!("/syncs/{id}/held"), &body).0, 202);
    scenario.settle().expect("rest");
    assert_eq!(members(&scenario), (1..=5).collect());
}

#[test]
fn somebody_added_by_hand_to_a_list_that_we_made_never_leaves_either() {
    let mut scenario = world(4);
    let (status, answer) =
        scenario.request("POST", "/syncs", &json!({"audience_id": "aam:101", "list": {"name": "Fresh"}}));
    assert_eq!(status, 201, "{answer}");
    deliver(&mut scenario, [1, 2]);
    let list = get(&mut scenario, &format!("/syncs/{}", answer["id"].as_str().expect("an id")))["list"]["id"]
        .as_u64()
        .expect("a list");
    {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        assert!(store.marketo.add_by_hand(now, list, 3));
    }
    // The activity log tells within minutes.
    scenario.driver.run_for(30 * 60_000);
    deliver(&mut scenario, [1, 2, 3]);
    deliver(&mut scenario, [1]);
    let members = scenario.driver.sim.lock().marketo.members(list).cloned();
    assert_eq!(members, Some(BTreeSet::from([1, 3])));
}

#[test]
fn every_refused_person_is_named_however_many_they_are() {
    let mut scenario = world(700);
    let id = sync(&mut scenario, &json!({}));
    (1..=600).for_each(|lead| scenario.driver.sim.lock().marketo.refuse_lead(lead, Some(1_008)));
    deliver(&mut scenario, 1..=700);
    for _ in 0..2 {
        let found = report(&mut scenario, &id);
        adds_up(&found);
        assert_eq!(found["refused"].as_array().map(Vec::len), Some(600));
    }
    let objects = scenario.driver.sim.lock().objects.keys().filter(|key| key.starts_with("sets/refused/")).count();
    assert_eq!(objects, 1, "what was replaced is left behind");
}
