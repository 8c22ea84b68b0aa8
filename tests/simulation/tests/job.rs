//! The job itself, step by step, over the real handlers.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::kinds::Kinds;
use simulation::scenario::{FileOf, LIST, Plan, Scenario, ecid, instance, token};
use world::types::{Lead, MarketoData};

const OTHER: u64 = 102;

fn lead(id: u64, known: bool, cookies: &[u64], ecids: &[u64]) -> Lead {
    Lead {
        id,
        email: known.then(|| format!("p{id}@example.com")),
        cookies: cookies.iter().map(|n| token(*n)).collect(),
        ecids: ecids.iter().map(|n| ecid(*n)).collect(),
    }
}

fn data(leads: Vec<Lead>, members: &[u64]) -> MarketoData {
    instance(leads, members.iter().copied().collect())
}

fn world(leads: Vec<Lead>, members: &[u64]) -> Scenario {
    Scenario::with(1, SmallRng::seed_from_u64(1), data(leads, members))
}

fn full(scenario: &mut Scenario, audiences: &[(u64, &[u64])]) {
    let inside = audiences.iter().map(|(sid, ecids)| (*sid, ecids.iter().copied().collect())).collect();
    let now = scenario.driver.sim.lock().now;
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("rest");
}

fn members(scenario: &Scenario) -> BTreeSet<u64> {
    scenario.driver.sim.lock().marketo.members(LIST).cloned().unwrap_or_default()
}

fn sync(scenario: &mut Scenario, sid: u64) -> String {
    scenario.create(sid, &json!({"id": LIST})).expect("a sync")
}

fn report(scenario: &mut Scenario, id: &str) -> Value {
    scenario.request("POST", &format!("/syncs/{id}/run"), &json!({}));
    scenario.settle().expect("rest");
    scenario.request("GET", &format!("/syncs/{id}/report"), &Value::Null).1
}

#[test]
fn with_no_match_from_a_browser_the_list_holds_everyone_whose_ecid_marketo_knows() {
    let mut scenario =
        world(vec![lead(1, true, &[], &[1, 2]), lead(2, false, &[], &[3]), lead(3, true, &[], &[9])], &[]);
    sync(&mut scenario, 101);
    full(&mut scenario, &[(101, &[1, 2, 3, 4])]);
    assert_eq!(members(&scenario), BTreeSet::from([1]));
    scenario.check().expect("as the model says");
}

#[test]
fn a_person_with_two_browsers_is_one_person_and_leaves_with_the_last_of_them() {
    let mut scenario = world(vec![lead(1, true, &[1, 2], &[])], &[]);
    let id = sync(&mut scenario, 101);
    scenario.see(1, 1);
    scenario.see(2, 2);
    full(&mut scenario, &[(101, &[1, 2])]);
    let before = report(&mut scenario, &id);
    assert_eq!((&before["known"], &before["people"], &before["in_list"]["ours"]), (&json!(2), &json!(1), &json!(1)));
    full(&mut scenario, &[(101, &[2, 7])]);
    assert_eq!(members(&scenario), BTreeSet::from([1]));
    full(&mut scenario, &[(101, &[7])]);
    assert!(members(&scenario).is_empty());
}

#[test]
fn somebody_who_becomes_known_between_deliveries_joins_without_a_file() {
    let mut scenario = world(vec![lead(1, false, &[1], &[])], &[]);
    sync(&mut scenario, 101);
    scenario.see(1, 1);
    full(&mut scenario, &[(101, &[1])]);
    assert!(members(&scenario).is_empty());
    {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        store.marketo.fill_form(now, &token(1), "known@example.com");
    }
    scenario.settle().expect("rest");
    assert_eq!(members(&scenario), BTreeSet::from([1]));
}

#[test]
fn people_there_before_us_are_counted_apart_and_never_leave() {
    let mut scenario = world(vec![lead(1, true, &[1], &[]), lead(2, true, &[2], &[])], &[1]);
    let id = sync(&mut scenario, 101);
    scenario.see(1, 1);
    scenario.see(2, 2);
    full(&mut scenario, &[(101, &[1, 2])]);
    let found = report(&mut scenario, &id);
    assert_eq!(found["in_list"], json!({"ours": 1, "before_us": 1}));
    assert_eq!(found["members_in_marketo"], 2);
    full(&mut scenario, &[(101, &[7])]);
    assert_eq!(members(&scenario), BTreeSet::from([1]));
}

#[test]
fn an_adopted_list_lets_those_leave_whom_we_can_tie_and_counts_the_rest() {
    let mut scenario =
        world(vec![lead(1, true, &[1], &[]), lead(2, true, &[], &[]), lead(3, true, &[3], &[])], &[1, 2, 3]);
    scenario.see(1, 1);
    scenario.see(3, 3);
    let body = json!({"audience_id": "aam:101", "list": {"id": LIST}, "members_before": "adopt"});
    let (status, answer) = scenario.request("POST", "/syncs", &body);
    assert_eq!(status, 201, "{answer}");
    full(&mut scenario, &[(101, &[3]), (OTHER, &[1])]);
    // Both tokens are looked up only where an audience is followed: 1 is tied once its audience is.
    let body = json!({"audience_id": "aam:102", "list": {"name": "Elsewhere"}});
    assert_eq!(scenario.request("POST", "/syncs", &body).0, 201);
    scenario.settle().expect("rest");
    let id = answer["id"].as_str().expect("an id").to_owned();
    let found = report(&mut scenario, &id);
    assert_eq!(members(&scenario), BTreeSet::from([2, 3]));
    assert_eq!(found["members"]["before_us_only"], 1, "{found}");
}

#[test]
fn report_only_computes_everything_and_touches_no_list() {
    let mut scenario = world(vec![lead(1, true, &[1], &[])], &[]);
    scenario.see(1, 1);
    let body = json!({"audience_id": "aam:101", "list": {"id": LIST}, "start": "report_only"});
    let (status, answer) = scenario.request("POST", "/syncs", &body);
    assert_eq!(status, 201, "{answer}");
    full(&mut scenario, &[(101, &[1, 2])]);
    let id = answer["id"].as_str().expect("an id").to_owned();
    let found = report(&mut scenario, &id);
    assert_eq!((&found["audience"], &found["people"], &found["waiting"]), (&json!(2), &json!(1), &json!(1)));
    assert!(members(&scenario).is_empty());
}

#[test]
fn a_keeping_sync_lets_nobody_leave() {
    let mut scenario = world(vec![lead(1, true, &[1], &[]), lead(2, true, &[2], &[])], &[]);
    scenario.see(1, 1);
    scenario.see(2, 2);
    let body = json!({"audience_id": "aam:101", "list": {"id": LIST}, "leaving": "keep"});
    assert_eq!(scenario.request("POST", "/syncs", &body).0, 201);
    full(&mut scenario, &[(101, &[1])]);
    full(&mut scenario, &[(101, &[2])]);
    assert_eq!(members(&scenario), BTreeSet::from([1, 2]));
}

#[test]
fn an_instance_without_the_field_ecids_goes_without() {
    use doubles::marketo::{self, Marketo};
    let mut scenario = world(vec![lead(1, true, &[1], &[1])], &[]);
    {
        let mut store = scenario.driver.sim.lock();
        let settings = marketo::Settings { ecids_field: false, ..marketo::Settings::default() };
        let now = store.now;
        store.marketo = Marketo::new(settings, data(vec![lead(1, true, &[1], &[1])], &[]), now);
    }
    sync(&mut scenario, 101);
    scenario.see(2, 1);
    full(&mut scenario, &[(101, &[1, 2])]);
    assert_eq!(members(&scenario), BTreeSet::from([1]));
    full(&mut scenario, &[(101, &[1])]);
    assert!(members(&scenario).is_empty(), "its own ECID is not known to us here");
}

/// Two syncs on one list, in every order of joining, leaving, pausing, stopping and recreating.
#[test]
fn two_syncs_on_one_list_in_every_order() {
    const DEPTH: u32 = 3;
    const MOVES: u32 = 8;
    let play = |path: u32| {
        let mut scenario = world(vec![lead(1, true, &[1], &[]), lead(2, true, &[2], &[])], &[2]);
        scenario.see(1, 1);
        scenario.see(2, 2);
        let mut inside = [BTreeSet::from([1, 2]), BTreeSet::from([1])];
        let mut story = Vec::new();
        full(&mut scenario, &[(101, &[1, 2]), (OTHER, &[1])]);
        sync(&mut scenario, 101);
        scenario.settle().expect("rest");
        let mut rest = path;
        for _ in 0..DEPTH {
            let step = rest % MOVES;
            rest /= MOVES;
            story.push(step);
            let (which, sid) = if step.is_multiple_of(2) { (0, 101) } else { (1, OTHER) };
            match step / 2 {
                // Person 1 leaves or joins the audience.
                0 => {
                    if !inside[which].remove(&1) {
                        inside[which].insert(1);
                    }
                    let now = scenario.driver.sim.lock().now;
                    let mut files = BTreeMap::from([(101, inside[0].clone()), (OTHER, inside[1].clone())]);
                    // Somebody else keeps the audience from vanishing out of the file.
                    files.values_mut().for_each(|ecids| {
                        ecids.insert(8);
                    });
                    scenario.deliver(now, FileOf { snapshot: true, inside: files, outside: BTreeMap::new() });
                }
                1 => match scenario.lives(sid, LIST) {
                    Some(index) => scenario.toggle(index),
                    None => drop(scenario.create(sid, &json!({"id": LIST}))),
                },
                2 => match scenario.lives(sid, LIST) {
                    Some(index) => scenario.stop_taking_out(index),
                    None => drop(scenario.create(sid, &json!({"id": LIST}))),
                },
                _ => match scenario.lives(sid, LIST) {
                    Some(index) => scenario.stop_keeping(index).expect("rest"),
                    None => drop(scenario.create(sid, &json!({"id": LIST}))),
                },
            }
            scenario.settle().expect("rest");
        }
        scenario.resume_all();
        scenario.settle().expect("rest");
        scenario.check().unwrap_or_else(|fault| panic!("{story:?}: {fault}"));
    };
    (0..MOVES.pow(DEPTH)).for_each(play);
}

/// Every message of a busy world once more, in reverse, after everything has settled: nothing changes.
#[test]
fn every_message_twice_and_reversed_changes_nothing() {
    for seed in 0..20 {
        let mut scenario = Scenario::new(seed);
        scenario.play(Plan { kinds: Kinds::happenings(), ..Plan::of(seed) }).expect("rest");
        let lists = |scenario: &Scenario| scenario.driver.sim.lock().marketo.lists_dump();
        let before = lists(&scenario);
        scenario.driver.run_for(400_000);
        {
            let mut store = scenario.driver.sim.lock();
            let sent: Vec<_> = store.sent.iter().rev().cloned().collect();
            for (index, (queue, mut message)) in sent.into_iter().enumerate() {
                // Another deduplication id, or the queue would drop it.
                message.dedup = message.dedup.map(|dedup| format!("{dedup}/again{index}"));
                store.enqueue(queue, message);
            }
        }
        scenario.settle().expect("rest");
        assert_eq!(lists(&scenario), before, "seed {seed}");
        scenario.check().expect("as the model says");
    }
}
