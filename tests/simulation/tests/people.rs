//! What brings people in and lets them go beside files and activities: hints, the end of a match, and erasure.

use std::collections::{BTreeMap, BTreeSet};

use domain::planted::{Guard, take_out};
use doubles::marketo::{self, Commit, Fault, FaultAnswer, Kind, Which};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use simulation::fakes::run;
use simulation::scenario::{BEGIN, Erase, FileOf, LIST, MUNCHKIN, Scenario, ecid, instance, token};
use state::Settings;
use state::erase::{Job, Phase, Subject, save_job};
use world::types::Lead;

const DAY: u64 = 86_400_000;

fn lead(id: u64, tokens: &[u64]) -> Lead {
    let cookies = tokens.iter().map(|n| token(*n)).collect();
    Lead { id, email: Some(format!("p{id}@example.com")), cookies, ecids: Vec::new() }
}

/// Two known people with a token each, ECIDs 1 and 2 in the audience, and a sync that follows it.
fn world() -> Scenario {
    let data = instance(vec![lead(1, &[1]), lead(2, &[2])], BTreeSet::new());
    // The activity log is late by an hour.
    let marketo = marketo::Settings { activity_lag_ms: 3_600_000, ..marketo::Settings::default() };
    let mut scenario = Scenario::beside(marketo, 1, SmallRng::seed_from_u64(1), data);
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, BTreeSet::from([1, 2]))]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    settle(&mut scenario);
    scenario
}

fn settle(scenario: &mut Scenario) {
    scenario.driver.settle(6 * 3_600_000).expect("rest");
}

fn members(scenario: &Scenario) -> Vec<u64> {
    let members = scenario.driver.sim.lock().marketo.members(LIST).cloned();
    members.unwrap_or_default().into_iter().collect()
}

fn hint(scenario: &mut Scenario, look_at: &Value) {
    let body = json!({"v": 1, "munchkin_id": MUNCHKIN, "look_at": look_at}).to_string();
    let message = ports::Outgoing { body, group: None, dedup: None };
    scenario.driver.sim.lock().enqueue(ports::Queue::Matches, message);
}

/// Keys and documents of the identity table that name one of these.
fn traces(scenario: &Scenario, of: &[String]) -> Vec<String> {
    let store = scenario.driver.sim.lock();
    let rows = store.tables.iter().filter(|((table, _), _)| *table == ports::Table::Identity);
    let rows = rows.map(|((_, key), item)| format!("{} {} {}", key.pk, key.sk, item.doc));
    rows.filter(|row| of.iter().any(|text| row.contains(text.as_str()))).collect()
}

/// A visitor of nobody's becomes somebody's while the activity log stands still: who hints is heard, who does not waits
/// for the next interval.
#[test]
fn a_hint_on_a_lead_or_a_token_is_looked_at_without_an_activity() {
    for (look_at, expected) in
        [(json!({"lead_id": 2}), vec![2]), (json!({"token": token(7)}), vec![2]), (Value::Null, vec![])]
    {
        let mut scenario = world();
        scenario.see(1, 7);
        settle(&mut scenario);
        assert_eq!(members(&scenario), Vec::<u64>::new());
        {
            let mut store = scenario.driver.sim.lock();
            let now = store.now;
            store.marketo.upsert_lead(now, lead(2, &[2, 7]));
        }
        if !look_at.is_null() {
            hint(&mut scenario, &look_at);
        }
        scenario.driver.run_for(180_000);
        assert_eq!(members(&scenario), expected, "{look_at}");
    }
}

/// Many hints share a call, and a flood of them costs one call in ten seconds.
#[test]
fn hints_on_leads_share_a_call() {
    let mut scenario = world();
    let began = {
        let mut store = scenario.driver.sim.lock();
        store.marketo.clear_calls();
        store.now
    };
    for lead in 0..600 {
        hint(&mut scenario, &json!({"lead_id": 1_000 + lead}));
    }
    settle(&mut scenario);
    let store = scenario.driver.sim.lock();
    let looks: Vec<(u64, u64)> = store.marketo.calls().iter().filter_map(|call| look(began, call)).collect();
    assert_eq!(looks.iter().map(|(_, leads)| leads).sum::<u64>(), 600, "{looks:?}");
    assert!(looks.windows(2).all(|two| two[1].0 - two[0].0 >= 10_000), "{looks:?}");
    assert!(looks.len() < 10, "{looks:?}");
}

/// When leads were asked about, in ms since the beginning, and how many.
fn look(began: u64, call: &marketo::Call) -> Option<(u64, u64)> {
    (call.kind == marketo::Kind::Leads).then(|| (call.at_ms - began, u64::from(call.ids)))
}

#[test]
fn a_match_ends_and_whoever_is_tied_by_nothing_else_leaves() {
    let mut scenario = world();
    let lifetime = 396 * DAY;
    // Person 1 by one browser that was seen long ago; person 2 by such a one, and by one of today.
    scenario.see_at(1, 1, BEGIN + 7_200_000 - lifetime);
    scenario.see_at(1, 2, BEGIN + 7_200_000 - lifetime);
    scenario.see(2, 2);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1, 2]);
    scenario.driver.run_for(7_200_000);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [2]);
    // Neither edge nor hint is left of what ended.
    assert_eq!(traces(&scenario, &[ecid(1)]), Vec::<String>::new());
    // The broom comes 30 days later, and to nobody of whom there is something to tell.
    let store = scenario.driver.sim.lock();
    let tokens = store
        .tables
        .iter()
        .filter(|((table, key), _)| *table == ports::Table::Identity && key.pk.starts_with(&format!("{MUNCHKIN}/t/")));
    for ((_, key), item) in tokens {
        assert!(item.doc["unpropagated"] == false);
        let swept = item.expires_at.expect("an end") * 1_000;
        let ends = if key.sk == token(1) { store.now } else { BEGIN + lifetime };
        assert!(swept.abs_diff(ends + 30 * DAY) < DAY, "{}: {swept}", key.sk);
    }
}

/// A setting below the default takes hold where tokens are looked at.
#[test]
fn a_shorter_life_ends_matches_at_their_next_look() {
    let mut scenario = world();
    scenario.see_at(1, 1, BEGIN - 40 * DAY);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1]);
    scenario.driver.set(Settings { match_lifetime_ms: 31 * DAY, ..simulation::driver::settings() });
    scenario.driver.run_for(8 * DAY);
    assert_eq!(members(&scenario), Vec::<u64>::new());
}

/// Nothing of an erased person is left but the marks, and the marks say when.
#[test]
fn an_erasure_leaves_marks_and_nothing_else() {
    for subject in [Erase::Lead(1), Erase::Email(1), Erase::Token(1), Erase::Ecid(1)] {
        let mut scenario = world();
        scenario.see(1, 1);
        scenario.see(2, 2);
        settle(&mut scenario);
        assert_eq!(members(&scenario), [1, 2]);
        scenario.erase(&subject).expect("done");
        settle(&mut scenario);
        assert_eq!(members(&scenario), [2], "{subject:?}");
        // Of a browser the cookie stays the person's: it is that pair that was erased.
        let names = if matches!(subject, Erase::Ecid(_)) { vec![ecid(1)] } else { vec![ecid(1), token(1)] };
        let left = traces(&scenario, &names);
        assert!(!left.is_empty() && left.iter().all(|row| is_a_mark(row, &subject)), "{subject:?}: {left:?}");
        // What was late does not bring them back, and the next visit does.
        scenario.see_at(1, 1, BEGIN);
        settle(&mut scenario);
        assert_eq!(members(&scenario), [2], "{subject:?}");
        scenario.see(1, 1);
        settle(&mut scenario);
        assert_eq!(members(&scenario), [1, 2], "{subject:?}");
    }
}

/// Whether a row says that something was erased, and nothing else of it.
fn is_a_mark(row: &str, subject: &Erase) -> bool {
    let (key, doc) = row.split_once(" {").expect("a document");
    let doc: Value = serde_json::from_str(&format!("{{{doc}")).expect("JSON");
    let none = |field: &str| doc[field].as_object().is_none_or(serde_json::Map::is_empty);
    let no_one = |field: &str| doc[field].as_array().is_none_or(Vec::is_empty);
    let marked = ["erased_at", "erased", "erased_ecids"].iter().any(|field| !doc[*field].is_null());
    // Of a browser, the cookie and its owner are not what was erased.
    let owner = matches!(subject, Erase::Ecid(_)) || doc["token"].is_null() || doc["lead"].is_null();
    let hint = ["/lt/", " t/", " l/"].iter().any(|part| key.contains(part));
    marked && !hint && owner && none("ecids") && no_one("ecids") && no_one("former") && no_one("former_ecids")
}

/// A job as `POST /people/erase` writes it, for whatever id.
fn job(id: u64, now: u64) -> Job {
    Job::new(format!("{id:016x}"), Subject::Leads(BTreeSet::from([id])), now)
}

fn store(scenario: &Scenario, job: &Job) {
    let munchkin = domain::MunchkinId::parse(MUNCHKIN).expect("valid");
    assert!(run(save_job(&scenario.driver.deps(), &munchkin, job, None)).expect("a table"));
}

/// A hint or an erasure with an id that Marketo does not take for one holds nobody up.
#[test]
fn an_id_that_marketo_refuses_keeps_nobody_from_their_look_up() {
    let mut scenario = world();
    let wrong = 99_999_999_999;
    for lead in [wrong, 3, 4] {
        hint(&mut scenario, &json!({"lead_id": lead}));
    }
    let now = scenario.driver.sim.lock().now;
    store(&scenario, &job(wrong, now));
    scenario.see(1, 1);
    settle(&mut scenario);
    scenario.driver.run_for(120_000);
    assert_eq!(members(&scenario), [1]);
    assert_eq!(scenario.request("GET", "/status", &Value::Null).1["erasures_open"], 0);
}

/// Erasures that wait for a list do not stand before later ones.
#[test]
fn many_erasures_that_wait_hold_up_no_later_one() {
    let mut scenario = world();
    let now = scenario.driver.sim.lock().now;
    for n in 0..150 {
        // A list that nobody writes never answers.
        let out = domain::LeadSet::from_iter([900]);
        let (phase, lists) = (Phase::Lists, BTreeSet::from([9_999]));
        let at = now - DAY;
        store(&scenario, &Job { phase, lists, out, look_at: at, told_at: now, ..job(n, at) });
    }
    scenario.see(1, 1);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1]);
    let (status, job) = scenario.request("POST", "/people/erase", &json!({"lead_id": 1}));
    assert_eq!(status, 202);
    scenario.driver.run_for(600_000);
    let path = format!("/people/erase/{}", job["id"].as_str().expect("an id"));
    assert_eq!(scenario.request("GET", &path, &Value::Null).1["status"], "done");
    assert_eq!(members(&scenario), Vec::<u64>::new());
}

/// Tokens that rest stand in the index by the end of their matches; after that moved, they do not stand before others.
#[test]
fn a_longer_life_leaves_nobody_behind_the_tokens_that_rest() {
    let mut scenario = world();
    let now = scenario.driver.sim.lock().now;
    for t in 100..450 {
        // Nobody follows an audience that holds ECID 5.
        scenario.see_at(5, t, now + 7_200_000 - 396 * DAY);
    }
    settle(&mut scenario);
    scenario.driver.set(Settings { match_lifetime_ms: 730 * DAY, ..simulation::driver::settings() });
    scenario.driver.run_for(3 * 3_600_000);
    scenario.see(1, 1);
    scenario.driver.run_for(600_000);
    assert_eq!(members(&scenario), [1]);
}

/// The id of somebody who was merged means the one into whom they were merged.
#[test]
fn whoever_was_merged_is_erased_as_the_one_they_are_now() {
    let mut scenario = world();
    scenario.see(1, 1);
    settle(&mut scenario);
    scenario.merge(2, 1);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [2]);
    scenario.erase(&Erase::Lead(1)).expect("done");
    settle(&mut scenario);
    assert_eq!(members(&scenario), Vec::<u64>::new());
}

/// Two people share a browser: erasing one of their cookies leaves the other's tie alone.
#[test]
fn a_neighbour_on_a_shared_browser_stays() {
    let mut scenario = world();
    scenario.see(1, 1);
    scenario.see(1, 2);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1, 2]);
    scenario.erase(&Erase::Token(1)).expect("done");
    settle(&mut scenario);
    assert_eq!(members(&scenario), [2]);
}

/// A match of before the erasure comes after it.
#[test]
fn o_a_late_match_of_somebody_who_was_erased() {
    let wrong = || {
        let mut scenario = world();
        let seen = scenario.driver.sim.lock().now;
        scenario.see(1, 1);
        settle(&mut scenario);
        scenario.erase(&Erase::Token(1)).expect("done");
        scenario.see_at(1, 1, seen);
        settle(&mut scenario);
        members(&scenario) != Vec::<u64>::new()
    };
    assert!(!wrong(), "with every guard in place");
    take_out(Some(Guard::ErasedStaysErased));
    let without = wrong();
    take_out(None);
    assert!(without, "nothing goes wrong without the guard");
}

/// Marketo has told an ECID of a lead; then the field goes away, and comes back.
#[test]
fn without_the_field_ecids_nobody_loses_theirs_and_a_day_later_it_is_asked_for_again() {
    let with = |id: u64| Lead { ecids: vec![ecid(id)], ..lead(id, &[]) };
    let data = instance(vec![with(1), lead(2, &[])], BTreeSet::new());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, BTreeSet::from([1, 2]))]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1]);
    // Something happens to both, and Marketo answers 1006 to whoever asks for their ECIDs.
    scenario.driver.sim.lock().marketo.set_ecids_field(false);
    for id in [1, 2] {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        store.marketo.upsert_lead(now, with(id));
    }
    scenario.driver.run_for(3_600_000);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1], "nobody said that the first one lost it, or that the second one has one");
    scenario.driver.sim.lock().marketo.set_ecids_field(true);
    scenario.driver.run_for(DAY + 3_600_000);
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1, 2]);
}

/// A list is deleted in Marketo before it was looked at after its first load; then somebody else is wanted in it.
#[test]
fn a_list_that_was_deleted_is_asked_about_once_and_its_sync_says_so() {
    let mut scenario = Scenario::beside(
        marketo::Settings::default(),
        1,
        SmallRng::seed_from_u64(1),
        instance(vec![lead(1, &[1]), lead(2, &[2])], BTreeSet::new()),
    );
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, BTreeSet::from([1, 2]))]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.see(1, 1);
    let sync = scenario.create(101, &json!({"name": "New"})).expect("a sync");
    settle(&mut scenario);
    {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        let list = store.marketo.lists().keys().copied().max().expect("a list");
        assert_eq!(store.marketo.members(list), Some(&BTreeSet::from([1])));
        assert!(store.marketo.delete_list(now, list));
    }
    scenario.see(2, 2);
    scenario.driver.run_for(DAY);
    let (_, view) = scenario.request("GET", &format!("/syncs/{sync}"), &Value::Null);
    assert_eq!((&view["status"], &view["why_code"]), (&json!("paused"), &json!("list_gone")), "{view}");
    let store = scenario.driver.sim.lock();
    let asked = store.marketo.calls().iter().filter(|call| call.code == 1013).count();
    assert!((1..=3).contains(&asked), "asked {asked} times");
}

/// A merge may have taken somebody out who was there before us. Marketo does not find the list when they are to be put back,
/// nor when its sync has been stopped; and nobody will resume that.
#[test]
fn whoever_was_there_before_us_is_put_back_although_the_list_was_not_found_for_a_while() {
    let data = instance(vec![lead(1, &[1]), lead(2, &[2]), lead(3, &[])], BTreeSet::from([2]));
    let mut scenario = Scenario::beside(marketo::Settings::default(), 1, SmallRng::seed_from_u64(1), data);
    let now = scenario.driver.sim.lock().now;
    let inside = BTreeMap::from([(101, BTreeSet::from([1, 2]))]);
    scenario.deliver(now, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    for e in [1, 2] {
        scenario.see(e, e);
    }
    let sync = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    settle(&mut scenario);
    assert_eq!(members(&scenario), [1, 2]);
    let adds = |scenario: &Scenario| -> Vec<u16> {
        let store = scenario.driver.sim.lock();
        store.marketo.calls().iter().filter(|call| call.kind == Kind::ListAdd).map(|call| call.code).collect()
    };
    let before = adds(&scenario).len();
    let gone = || Fault {
        kind: Some(Kind::ListAdd),
        which: Which::Nth(1),
        answer: FaultAnswer::Code(1013),
        commit: Commit::Before,
    };
    scenario.driver.sim.lock().marketo.inject(gone());
    scenario.merge(3, 2);
    scenario.driver.run_for(3_600_000);
    assert_eq!(scenario.request("GET", &format!("/syncs/{sync}"), &Value::Null).1["why_code"], "list_gone");
    scenario.driver.sim.lock().marketo.inject(gone());
    let stopped = scenario.request("POST", &format!("/syncs/{sync}/stop"), &json!({"people": "keep"}));
    assert_eq!(stopped.0, 200, "{stopped:?}");
    scenario.driver.run_for(3_600_000);
    assert_eq!(adds(&scenario)[before..], [1013, 1013]);
    scenario.driver.run_for(DAY);
    settle(&mut scenario);
    assert_eq!(adds(&scenario)[before..], [1013, 1013, 0], "looked for once more, after a day, and then no more");
    assert_eq!(members(&scenario), [1, 3]);
}
