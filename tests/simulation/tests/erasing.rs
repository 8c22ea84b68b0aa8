//! People are erased from a list, over the real handlers: whatever keeps them there, and nobody else; answered when it is
//! certain, and not before.

use std::collections::{BTreeMap, BTreeSet};

use domain::list::State;
use domain::planted::{Guard, take_out};
use domain::{LeadSet, MunchkinId};
use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Which};
use ports::{Key, Table};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::scenario::{FileOf, LIST, MUNCHKIN, Scenario, ecid, instance, knows};
use state::erase::Answer;
use state::notes::{self, Note};
use world::types::Lead;

/// People of whom Marketo itself knows an ECID: lead n owns ECID n. The last one was in the list before us.
fn world(people: u64, with: &Value) -> (Scenario, String) {
    let lead = |id| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: vec![ecid(id)] };
    let data = instance((1..=people).map(lead).collect(), BTreeSet::from([people]));
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    let mut body = json!({"audience_id": "aam:101", "list": {"id": LIST}});
    if let (Some(body), Some(with)) = (body.as_object_mut(), with.as_object()) {
        body.extend(with.clone());
    }
    let (status, answer) = scenario.request("POST", "/syncs", &body);
    assert_eq!(status, 201, "{answer}");
    let id = answer["id"].as_str().expect("an id").to_owned();
    (scenario, id)
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

/// Leaves the note as the identity work does.
fn erase(scenario: &mut Scenario, job: &str, leads: &[u64]) {
    let deps = scenario.driver.deps();
    let note = Note::Erase { job: job.to_owned(), leads: leads.iter().copied().collect() };
    scenario.driver.start(job, async move {
        let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
        notes::leave(&deps, &munchkin, LIST, &note).await
    });
}

/// People out and people who stay, if the list has answered.
fn answer(scenario: &Scenario, job: &str) -> Option<(u64, u64)> {
    let key = Key::new(format!("{MUNCHKIN}/erased"), format!("{job}/{LIST}"));
    let store = scenario.driver.sim.lock();
    let item = store.tables.get(&(Table::Lists, key))?;
    let answer: Answer = serde_json::from_value(item.doc.clone()).expect("an answer");
    Some((answer.out, answer.stay))
}

fn state(scenario: &Scenario) -> State {
    let store = scenario.driver.sim.lock();
    let head = &store.tables[&(Table::Lists, Key::new(MUNCHKIN, format!("list/{LIST}")))];
    let key = head.doc["state_key"].as_str().expect("a state");
    serde_json::from_slice(&store.objects[key]).expect("a state")
}

fn turn(scenario: &mut Scenario, path: &str, body: &Value) {
    let (status, answer) = scenario.request("POST", path, body);
    assert!(status < 300, "{path}: {answer}");
}

/// The report, whose people and members are all somewhere.
fn report(scenario: &mut Scenario, id: &str) -> Value {
    let report = scenario.request("GET", &format!("/syncs/{id}/report"), &Value::Null).1;
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("not a number in {report}"));
    let sum = |value: &Value| -> u64 { value.as_object().expect("numbers").values().map(number).sum() };
    let elsewhere = number(&report["waiting"]) + number(&report["kept_out"]) + number(&report["dropped"]);
    assert_eq!(number(&report["people"]), sum(&report["in_list"]) + sum(&report["failed"]) + elsewhere, "{report}");
    assert_eq!(number(&report["members_in_marketo"]), sum(&report["members"]), "{report}");
    report
}

#[test]
fn somebody_erased_leaves_a_list_that_keeps_them_and_joins_again_when_they_return() {
    let (mut scenario, id) = world(7, &json!({"leaving": "keep"}));
    deliver(&mut scenario, 1..=7);
    deliver(&mut scenario, 1..=4);
    assert_eq!((members(&scenario), state(&scenario).theirs.contains(7)), ((1..=7).collect(), true));
    // Kept; in the audience; there before us; in no list.
    for (job, lead, expected) in [("a", 5, (1, 0)), ("b", 1, (0, 1)), ("c", 7, (0, 1)), ("d", 99, (1, 0))] {
        erase(&mut scenario, job, &[lead]);
        scenario.settle().expect("rest");
        assert_eq!(answer(&scenario, job), Some(expected), "{lead}");
    }
    assert_eq!(members(&scenario), BTreeSet::from([1, 2, 3, 4, 6, 7]));
    let known = state(&scenario);
    assert_eq!(known.may, [1, 2, 3, 4, 6].into_iter().collect::<LeadSet>());
    assert!(!known.kept().contains(5) && !known.theirs.contains(7));
    turn(&mut scenario, &format!("/syncs/{id}/run"), &json!({}));
    scenario.settle().expect("rest");
    assert_eq!(report(&mut scenario, &id)["members"]["kept"], 1);

    // Both return. Whoever was there before us is found to be there, and stays when they leave again.
    deliver(&mut scenario, 1..=7);
    assert_eq!(members(&scenario), (1..=7).collect());
    assert!(state(&scenario).theirs.contains(7) && state(&scenario).sure.contains(5));
}

#[test]
fn somebody_erased_leaves_a_list_that_rests_and_a_mass_change_that_is_held_waits_on() {
    let guard = json!({"guard": {"removals_percent": 30, "removals_at_least": 10}});
    let (mut scenario, id) = world(41, &guard);
    deliver(&mut scenario, 1..=40);
    deliver(&mut scenario, 1..=25);
    assert_eq!(members(&scenario).len(), 41, "held");
    erase(&mut scenario, "held", &[30, 31]);
    scenario.settle().expect("rest");
    assert_eq!(answer(&scenario, "held"), Some((2, 0)));
    assert_eq!(members(&scenario), (1..=41).filter(|lead| ![30, 31].contains(lead)).collect());
    let held = scenario.request("GET", &format!("/syncs/{id}"), &Value::Null).1["held"].clone();
    assert_eq!((&held["removals"], &held["of"]), (&json!(13), &json!(38)), "{held}");

    turn(&mut scenario, &format!("/syncs/{id}/pause"), &json!({}));
    scenario.settle().expect("rest");
    erase(&mut scenario, "rests", &[1, 32]);
    scenario.settle().expect("rest");
    assert_eq!(answer(&scenario, "rests"), Some((2, 0)));
    assert_eq!(members(&scenario), (2..=41).filter(|lead| !(30..=32).contains(lead)).collect());
    turn(&mut scenario, &format!("/syncs/{id}/resume"), &json!({}));
    scenario.settle().expect("rest");
    let held = scenario.request("GET", &format!("/syncs/{id}"), &Value::Null).1["held"].clone();
    turn(&mut scenario, &format!("/syncs/{id}/held"), &json!({"held": held["id"], "decision": "apply"}));
    scenario.settle().expect("rest");
    let all: BTreeSet<u64> = (1..=25).chain([41]).collect();
    assert_eq!(members(&scenario), all, "who is in the audience still comes again");
}

#[test]
fn an_erasure_is_answered_when_it_is_certain_and_the_report_adds_up_until_then() {
    for (fault, commit) in
        [(FaultAnswer::Drop, Commit::Late { after_ms: 150_000 }), (FaultAnswer::Code(604), Commit::Before)]
    {
        let (mut scenario, id) = world(5, &json!({"leaving": "keep"}));
        deliver(&mut scenario, 1..=4);
        deliver(&mut scenario, 1..=3);
        let lost = Fault { kind: Some(Kind::ListRemove), which: Which::Nth(1), answer: fault, commit };
        scenario.driver.sim.lock().marketo.inject(lost);
        erase(&mut scenario, "job", &[4]);
        scenario.driver.run_for(45_000);
        turn(&mut scenario, &format!("/syncs/{id}/run"), &json!({}));
        scenario.driver.run_for(60_000);
        assert_eq!(answer(&scenario, "job"), None);
        assert!(state(&scenario).hold.contains_key(&4));
        assert_eq!(report(&mut scenario, &id)["members"]["waiting_to_leave"], 1);
        // The note once more, before and after the answer.
        erase(&mut scenario, "job", &[4]);
        scenario.settle().expect("rest");
        assert_eq!((answer(&scenario, "job"), members(&scenario)), (Some((1, 0)), BTreeSet::from([1, 2, 3, 5])));
        deliver(&mut scenario, 1..=4);
        deliver(&mut scenario, 1..=3);
        erase(&mut scenario, "job", &[4]);
        scenario.settle().expect("rest");
        assert_eq!(members(&scenario), (1..=5).collect(), "come again, kept again");
    }
}

/// Somebody is erased, by their old id or by their new one, just after Marketo merged them with somebody who is in the list
/// by our doing and before Marketo has told of it.
#[test]
fn p_a_merge_of_before_an_erasure_that_is_told_after_it() {
    let wrong = |leaving: &str, named: u64| {
        let (mut scenario, _) = world(6, &json!({"leaving": leaving}));
        deliver(&mut scenario, 1..=4);
        if leaving == "keep" {
            deliver(&mut scenario, 2..=4);
        }
        scenario.merge(5, 1);
        turn(&mut scenario, "/people/erase", &json!({"lead_id": named}));
        scenario.driver.run_for(600_000);
        assert_eq!(scenario.request("GET", "/status", &Value::Null).1["erasures_open"], 0);
        scenario.settle().expect("rest");
        members(&scenario) != BTreeSet::from([2, 3, 4, 6]) || knows(&state(&scenario), 5)
    };
    for leaving in ["remove", "keep"] {
        assert!(!wrong(leaving, 5) && !wrong(leaving, 1), "{leaving}, with every guard in place");
        take_out(Some(Guard::MergesBeforeErasing));
        let without = wrong(leaving, 5);
        take_out(None);
        assert!(without, "{leaving}: nothing goes wrong without the guard");
    }
}

#[test]
fn a_list_that_is_gone_answers_that_everybody_is_out() {
    let (mut scenario, id) = world(5, &json!({"leaving": "keep"}));
    deliver(&mut scenario, 1..=4);
    deliver(&mut scenario, 1..=2);
    let gone = Fault {
        kind: Some(Kind::ListRemove),
        which: Which::Nth(1),
        answer: FaultAnswer::Code(1013),
        commit: Commit::Before,
    };
    scenario.driver.sim.lock().marketo.inject(gone);
    erase(&mut scenario, "job", &[3, 4]);
    scenario.settle().expect("rest");
    assert_eq!(answer(&scenario, "job"), Some((2, 0)));
    assert_eq!(scenario.request("GET", &format!("/syncs/{id}"), &Value::Null).1["status"], "paused");
    assert!(!state(&scenario).may.contains(3));
}
