//! A sync's people beside another list: what it costs, what it says, and that nobody who dies or comes twice changes it.

use std::collections::{BTreeMap, BTreeSet};

use domain::MunchkinId;
use doubles::marketo::{self, Commit, Fault, FaultAnswer, Kind, Which};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::fakes::{Faults, run};
use simulation::scenario::{BEGIN, FileOf, LIST, MUNCHKIN, Scenario, ecid, instance, usual_faults};
use state::bell::{self, BellKey};
use world::types::{Lead, List};

/// A list that no sync writes, with 700 members: leads 11 to 710.
const OTHER: u64 = 2002;
/// People of the audience: leads 1 to 20.
const PEOPLE: u64 = 20;

/// A world in which lead n is known and owns ECID n, as Marketo says, and the audience 101 holds the first of them.
fn world(seed: u64) -> Scenario {
    let lead = |id: u64| {
        // Of most leads Marketo has stored no ECID.
        let ecids = if id <= 30 { vec![ecid(id)] } else { Vec::new() };
        Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids }
    };
    let mut data = instance((1..=710).map(lead).collect(), BTreeSet::new());
    data.lists.push(List { id: OTHER, name: "Native".into(), members: (11..=710).collect() });
    let mut scenario = Scenario::beside(marketo::Settings::default(), seed, SmallRng::seed_from_u64(seed), data);
    let inside = BTreeMap::from([(101, (1..=PEOPLE).collect()), (102, BTreeSet::from([1]))]);
    scenario.deliver(BEGIN, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario
}

fn sync(scenario: &mut Scenario, list: u64, start: &str) -> String {
    let body = json!({"audience_id": "aam:101", "list": {"id": list}, "start": start});
    let (status, sync) = scenario.request("POST", "/syncs", &body);
    assert!(status < 300, "{status} {sync}");
    scenario.settle().expect("settled");
    sync["id"].as_str().expect("an id").to_owned()
}

fn estimate(scenario: &mut Scenario, sync: &str) -> Value {
    let (status, estimate) = scenario.request("POST", &format!("/syncs/{sync}/compare"), &json!({"list_id": OTHER}));
    assert_eq!(status, 200, "{estimate}");
    estimate
}

/// Compares, and asks how far it is until it is over.
fn compare(scenario: &mut Scenario, sync: &str) -> Value {
    let body = json!({"list_id": OTHER, "start": true});
    let (status, job) = scenario.request("POST", &format!("/syncs/{sync}/compare"), &body);
    assert_eq!(status, 202, "{job}");
    let path = format!("/comparisons/{}", job["id"].as_str().expect("an id"));
    for _ in 0..400 {
        let (status, job) = scenario.request("GET", &path, &Value::Null);
        assert_eq!(status, 200, "{job}");
        if job["status"] != "reading" {
            return job;
        }
        scenario.driver.run_for(10_000);
    }
    panic!("a comparison that never ends");
}

fn calls(scenario: &Scenario, which: impl Fn(Kind) -> bool) -> u64 {
    let store = scenario.driver.sim.lock();
    store.marketo.calls().iter().filter(|call| which(call.kind)).count() as u64
}

fn members_calls(scenario: &Scenario) -> u64 {
    calls(scenario, |kind| kind == Kind::Members)
}

fn changes(scenario: &Scenario) -> u64 {
    calls(scenario, |kind| matches!(kind, Kind::ListAdd | Kind::ListRemove | Kind::IsMember))
}

/// The lines of the file, without their reasons: who, where and why in a word.
fn lines(scenario: &Scenario, job: &Value) -> BTreeSet<(u64, String, String)> {
    let store = scenario.driver.sim.lock();
    let key = format!("downloads/{}.csv", job["id"].as_str().expect("an id"));
    let text = String::from_utf8(store.objects[&key].to_vec()).expect("text");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        (cells[0].parse().expect("a number"), cells[1].to_owned(), cells[2].to_owned())
    };
    let rows: Vec<_> = text.lines().skip(1).map(row).collect();
    let all: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), all.len(), "each once");
    all
}

fn expected(here: &str) -> BTreeSet<(u64, String, String)> {
    let row = |lead: u64| match lead {
        1..=10 => (lead, "only_here".to_owned(), here.to_owned()),
        11..=20 => (lead, "both".to_owned(), here.to_owned()),
        21..=30 => (lead, "only_there".to_owned(), "not_in_audience".to_owned()),
        _ => (lead, "only_there".to_owned(), "no_browser".to_owned()),
    };
    (1..=710).map(row).collect()
}

fn check(scenario: &Scenario, job: &Value, here: &str) {
    assert_eq!(job["status"], "done", "{job}");
    assert_eq!((&job["both"], &job["only_here"], &job["only_there"]), (&json!(10), &json!(10), &json!(690)), "{job}");
    assert_eq!(lines(scenario, job), expected(here));
    let explained: BTreeSet<(&str, &str, u64)> = job["explained"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| Some((row["side"].as_str()?, row["code"].as_str()?, row["count"].as_u64()?)))
        .collect();
    let expected = BTreeSet::from([
        ("only_here", here, 10),
        ("only_there", "not_in_audience", 10),
        ("only_there", "no_browser", 680),
    ]);
    assert_eq!(explained, expected);
}

#[test]
fn a_list_that_nobody_writes_is_read_once_and_the_next_estimate_is_exact() {
    let mut scenario = world(1);
    let id = sync(&mut scenario, LIST, "report_only");
    assert_eq!(estimate(&mut scenario, &id)["calls"], Value::Null, "nobody has read it yet");
    assert_eq!(members_calls(&scenario), 0);
    let job = compare(&mut scenario, &id);
    check(&scenario, &job, "report_only");
    assert_eq!(members_calls(&scenario), 3);
    let told = estimate(&mut scenario, &id)["calls"].as_u64().expect("known by now");
    let before = members_calls(&scenario);
    let again = compare(&mut scenario, &id);
    check(&scenario, &again, "report_only");
    assert_eq!((told, members_calls(&scenario) - before), (3, 3));
    assert_eq!(changes(&scenario), 0, "nothing was written, and nobody asked about");
    // Nothing is remembered of a list that is not ours: an erasure would wait for its answer.
    let heads =
        |(table, key): &&(ports::Table, ports::Key)| *table == ports::Table::Lists && key.sk == format!("list/{OTHER}");
    assert_eq!(scenario.driver.sim.lock().tables.keys().filter(heads).count(), 0);
    let notes = |(_, key): &&(ports::Table, ports::Key)| key.pk.contains("/notes/");
    assert_eq!(scenario.driver.sim.lock().tables.keys().filter(notes).count(), 0, "every note is burnt");
    scenario.settle().expect("settled");
}

#[test]
fn a_list_that_another_sync_writes_is_compared_beside_its_writing() {
    let mut scenario = world(2);
    let id = sync(&mut scenario, LIST, "now");
    let (status, other) = scenario.request("POST", "/syncs", &json!({"audience_id": "aam:102", "list": {"id": OTHER}}));
    assert_eq!(status, 201, "{other}");
    scenario.settle().expect("settled");
    // Its audience holds ECID 1: its report has counted 701 members.
    let estimate = estimate(&mut scenario, &id);
    assert_eq!((&estimate["calls"], &estimate["members"]), (&json!(3), &json!(701)), "{estimate}");
    let writes = |scenario: &Scenario| calls(scenario, |kind| matches!(kind, Kind::ListAdd | Kind::ListRemove));
    let before = (members_calls(&scenario), writes(&scenario));
    let job = compare(&mut scenario, &id);
    assert_eq!((members_calls(&scenario) - before.0, writes(&scenario) - before.1), (3, 0));
    assert_eq!((&job["status"], &job["both"], &job["only_here"]), (&json!("done"), &json!(11), &json!(9)), "{job}");
    let found = lines(&scenario, &job);
    assert!(found.contains(&(1, "both".into(), "in_list".into())), "{found:?}");
    assert_eq!(found.len(), 710);
    // The other sync goes on.
    let inside = BTreeMap::from([(101, (1..=PEOPLE).collect()), (102, BTreeSet::from([1, 2]))]);
    scenario.deliver(BEGIN + 3_600_000, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("settled");
    let store = scenario.driver.sim.lock();
    assert_eq!(store.marketo.members(OTHER).map(BTreeSet::len), Some(702));
}

#[test]
fn with_failing_calls_and_dying_functions_it_ends_the_same() {
    for seed in 0..6 {
        let mut scenario = world(seed);
        let id = sync(&mut scenario, LIST, "report_only");
        scenario.driver.sim.lock().faults = usual_faults(seed);
        let job = compare(&mut scenario, &id);
        scenario.driver.sim.lock().faults = Faults::NONE;
        check(&scenario, &job, "report_only");
        scenario.settle().expect("settled");
        let notes = |(_, key): &&(ports::Table, ports::Key)| key.pk.contains("/notes/");
        assert_eq!(scenario.driver.sim.lock().tables.keys().filter(notes).count(), 0, "{seed}: every note is burnt");
    }
}

/// Marketo refuses pages of members with a code.
fn refuse(scenario: &Scenario, which: Which, code: u16) {
    fail(scenario, which, FaultAnswer::Code(code));
}

/// Pages of members fail so.
fn fail(scenario: &Scenario, which: Which, answer: FaultAnswer) {
    let fault = Fault { kind: Some(Kind::Members), which, answer, commit: Commit::default() };
    scenario.driver.sim.lock().marketo.inject(fault);
}

#[test]
fn a_reading_whose_pages_time_out_sets_aside_no_list_that_is_written() {
    let mut scenario = world(5);
    let id = sync(&mut scenario, LIST, "now");
    let (status, other) = scenario.request("POST", "/syncs", &json!({"audience_id": "aam:102", "list": {"id": OTHER}}));
    assert_eq!(status, 201, "{other}");
    scenario.settle().expect("settled");
    fail(&scenario, Which::All, FaultAnswer::Drop);
    let before = members_calls(&scenario);
    let body = json!({"list_id": OTHER, "start": true});
    let (status, job) = scenario.request("POST", &format!("/syncs/{id}/compare"), &body);
    assert_eq!(status, 202, "{job}");
    scenario.driver.run_for(10 * 60_000);
    assert!(members_calls(&scenario) >= before + 5, "it is tried again each minute");
    let key = BellKey::list(&MunchkinId::parse(MUNCHKIN).expect("valid"), OTHER);
    let bell = run(bell::look(&scenario.driver.deps(), &key)).expect("a bell");
    assert!(!bell.stuck && bell.failures == 0, "{bell:?}");
    scenario.driver.sim.lock().marketo.clear_faults();
    let path = format!("/comparisons/{}", job["id"].as_str().expect("an id"));
    scenario.driver.run_for(5 * 60_000);
    let (_, done) = scenario.request("GET", &path, &Value::Null);
    assert_eq!((&done["members"], done["why"].as_str()), (&json!(701), None), "{done}");
    scenario.settle().expect("settled");
}

#[test]
fn a_list_that_is_gone_ends_the_comparison_and_a_forgotten_place_begins_it_anew() {
    let mut scenario = world(4);
    let id = sync(&mut scenario, LIST, "report_only");
    refuse(&scenario, Which::Nth(2), 1003);
    let job = compare(&mut scenario, &id);
    check(&scenario, &job, "report_only");
    assert_eq!(members_calls(&scenario), 5, "one page, one that was refused, and three");
    for (code, calls) in [(1013, 1), (1003, 4)] {
        refuse(&scenario, Which::All, code);
        let before = members_calls(&scenario);
        let job = compare(&mut scenario, &id);
        assert_eq!((&job["status"], &job["url"]), (&json!("failed"), &Value::Null), "{job}");
        assert!(job["why"].as_str().expect("words").contains(&code.to_string()), "{job}");
        assert_eq!(members_calls(&scenario) - before, calls);
        scenario.driver.sim.lock().marketo.clear_faults();
    }
    scenario.settle().expect("settled");
}
