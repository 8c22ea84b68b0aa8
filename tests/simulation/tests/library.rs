//! What Adobe's library says later on: an audience renamed there shows its new name; one deleted there stops its syncs
//! and changes no list, and nothing but a lasting and certain "no such audience" does.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::HOUR_MS;
use doubles::marketo::{self, Kind};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scheduled_incremental_sync::tick;
use serde_json::{Value, json};
use simulation::driver::settings;
use simulation::fakes::{Faults, run};
use simulation::scenario::{BEGIN, FileOf, LIST, MUNCHKIN, Scenario, ecid, instance, usual_faults};
use state::Settings;
use world::types::{Audience, Lead, Segment};

const MINUTE: u64 = 60_000;
/// Longer than two looks lie apart.
const LOOK: u64 = 16 * MINUTE;
/// Two audiences of Experience Platform.
const PLATFORM: &str = "11111111-2222-3333-4444-555555555555";
const STAYS: &str = "22222222-2222-3333-4444-555555555555";

/// A world in which lead n is known and owns ECID n, as Marketo says.
fn world(seed: u64) -> Scenario {
    let lead =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: vec![ecid(id)] };
    let data = instance((1..=4).map(lead).collect(), BTreeSet::from([4]));
    let scenario = Scenario::beside(marketo::Settings::default(), seed, SmallRng::seed_from_u64(seed), data);
    for (id, name) in [(PLATFORM, "Loyal"), (STAYS, "Another")] {
        let audience = Audience { id: id.into(), name: name.into(), external: false };
        assert!(scenario.driver.sim.lock().adobe.add_audience(BEGIN, audience));
    }
    scenario
}

fn deliver(scenario: &mut Scenario, time: u64, ecids: &[u64]) {
    let inside = BTreeMap::from([(101, ecids.iter().copied().collect()), (102, BTreeSet::from([1]))]);
    scenario.deliver(BEGIN + time, FileOf { snapshot: true, inside, outside: BTreeMap::new() });
    scenario.settle().expect("settled");
}

fn shown(scenario: &mut Scenario, id: &str) -> Value {
    scenario.request("GET", &format!("/syncs/{id}"), &Value::Null).1
}

fn members(scenario: &Scenario) -> BTreeSet<u64> {
    scenario.driver.sim.lock().marketo.members(LIST).cloned().expect("the list")
}

/// Calls that would change a list.
fn changes(scenario: &Scenario) -> usize {
    let store = scenario.driver.sim.lock();
    let is_change = |kind: Kind| matches!(kind, Kind::ListAdd | Kind::ListRemove);
    store.marketo.calls().iter().filter(|call| is_change(call.kind)).count()
}

/// Whether we remember that Adobe does not know an audience.
fn is_absent(scenario: &Scenario, audience: &str) -> bool {
    let store = scenario.driver.sim.lock();
    store.tables.keys().any(|(_, key)| key.pk == MUNCHKIN && key.sk == format!("absent/{audience}"))
}

fn platform_sync(scenario: &mut Scenario) -> String {
    let body = json!({"audience_id": format!("aep:{PLATFORM}"), "list": {"id": LIST}});
    let (status, sync) = scenario.request("POST", "/syncs", &body);
    assert_eq!((status, &sync["audience_name"]), (201, &json!("Loyal")), "{sync}");
    sync["id"].as_str().expect("an id").to_owned()
}

#[test]
fn an_audience_renamed_at_adobe_shows_its_new_name() {
    let mut scenario = world(1);
    let ids = [
        scenario.create(101, &json!({"id": LIST})).expect("a sync"),
        scenario.create(101, &json!({"name": "Another"})).expect("a second one"),
        platform_sync(&mut scenario),
    ];
    let other = scenario.create(102, &json!({"id": LIST})).expect("of another audience");
    scenario.request("POST", &format!("/syncs/{}/pause", ids[1]), &Value::Null);
    scenario.driver.run_for(LOOK);
    {
        let adobe = &mut scenario.driver.sim.lock().adobe;
        assert!(adobe.rename_segment(BEGIN + HOUR_MS, 101, "Carts <new>"));
        assert!(adobe.rename_audience(BEGIN + HOUR_MS, PLATFORM, "Most loyal"));
    }
    scenario.driver.run_for(LOOK);
    let names = ids.each_ref().map(|id| shown(&mut scenario, id)["audience_name"].clone());
    assert_eq!(names, ["Carts <new>", "Carts <new>", "Most loyal"]);
    assert_eq!(shown(&mut scenario, &other)["audience_name"], "Audience 102");
    assert_eq!(shown(&mut scenario, &ids[0])["status"], "active");
    assert_eq!(shown(&mut scenario, &ids[1])["status"], "paused");
}

#[test]
fn an_audience_deleted_at_adobe_stops_its_syncs_and_changes_no_list() {
    let mut scenario = world(2);
    let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    let other = scenario.create(102, &json!({"name": "Another"})).expect("of another audience");
    let platform = platform_sync(&mut scenario);
    deliver(&mut scenario, 1_000, &[1, 2]);
    assert_eq!(members(&scenario), BTreeSet::from([1, 2, 4]));
    {
        let adobe = &mut scenario.driver.sim.lock().adobe;
        assert!(adobe.delete_segment(101) && adobe.delete_audience(PLATFORM));
    }
    scenario.driver.run_for(50 * MINUTE);
    assert!(is_absent(&scenario, "aam:101"));
    assert_eq!(shown(&mut scenario, &id)["status"], "active", "Adobe may still mend it");
    let before = changes(&scenario);
    scenario.driver.run_for(40 * MINUTE);
    let sync = shown(&mut scenario, &id);
    assert_eq!(sync["status"], "stopped_keeping", "{sync}");
    assert_eq!(
        sync["why"],
        "the audience \"Audience 101\" (aam:101) was deleted in Audience Manager; nobody was taken out of the list. \
         Choose another audience with a new sync"
    );
    let why = shown(&mut scenario, &platform)["why"].clone();
    assert!(why.as_str().expect("words").contains("was deleted in Experience Platform"), "{why}");
    assert_eq!(shown(&mut scenario, &other)["status"], "active");
    assert!(!is_absent(&scenario, "aam:101"), "there is nothing left to do");

    // Whatever is delivered about it still: its people stay, and no call is made.
    deliver(&mut scenario, 2_000, &[3]);
    scenario.driver.run_for(30 * HOUR_MS);
    assert_eq!(members(&scenario), BTreeSet::from([1, 2, 4]));
    assert_eq!(changes(&scenario), before);
}

#[test]
fn an_audience_that_is_found_again_within_the_hour_stops_nothing() {
    let mut scenario = world(3);
    let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    for _ in 0..3 {
        assert!(scenario.driver.sim.lock().adobe.delete_segment(101));
        scenario.driver.run_for(40 * MINUTE);
        assert!(is_absent(&scenario, "aam:101"));
        let segment = Segment { sid: 101, folder_id: 1, name: "Carts".into() };
        assert!(scenario.driver.sim.lock().adobe.add_segment(BEGIN, segment));
        scenario.driver.run_for(LOOK);
        assert!(!is_absent(&scenario, "aam:101"), "each absence counts by itself");
    }
    let sync = shown(&mut scenario, &id);
    assert_eq!((&sync["status"], &sync["audience_name"]), (&json!("active"), &json!("Carts")));
}

#[test]
fn an_outage_a_refusal_and_a_wrong_address_are_no_word_about_any_audience() {
    let mut scenario = world(4);
    let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
    let platform = platform_sync(&mut scenario);
    scenario.driver.run_for(LOOK);
    scenario.driver.sim.lock().adobe.refuse_platform(Some("UPAPI-113752"));
    scenario.driver.run_for(3 * HOUR_MS);
    assert!(!is_absent(&scenario, &format!("aep:{PLATFORM}")));
    assert_eq!(shown(&mut scenario, &platform)["status"], "active");
    scenario.driver.sim.lock().adobe.refuse_platform(None);

    // One that is really gone, in a library that is not asked any more.
    assert!(scenario.driver.sim.lock().adobe.delete_audience(PLATFORM));
    scenario.driver.set(Settings { aep_sandbox: String::new(), ..settings() });
    scenario.driver.run_for(3 * HOUR_MS);
    assert_eq!(shown(&mut scenario, &platform)["status"], "active");

    // Everything is answered with 404.
    scenario.driver.set(Settings { aam_url: "http://adobe/v1/elsewhere".into(), ..settings() });
    scenario.driver.run_for(3 * HOUR_MS);
    assert!(is_absent(&scenario, "aam:101"));
    assert_eq!(shown(&mut scenario, &id)["status"], "active", "the listing does not answer either");
    scenario.driver.set(settings());
    scenario.driver.run_for(2 * HOUR_MS);
    assert!(!is_absent(&scenario, "aam:101"));
    assert_eq!(shown(&mut scenario, &id)["status"], "active");
    assert_eq!(shown(&mut scenario, &platform)["status"], "stopped_keeping", "now it is certain");
}

#[test]
fn a_library_that_shows_nothing_at_all_is_believed_after_a_day() {
    let mut scenario = world(6);
    let ids = [101, 102].map(|sid| scenario.create(sid, &json!({"name": format!("List {sid}")})).expect("a sync"));
    for sid in [101, 102, 103] {
        assert!(scenario.driver.sim.lock().adobe.delete_segment(sid));
    }
    scenario.driver.run_for(23 * HOUR_MS);
    let statuses = ids.each_ref().map(|id| shown(&mut scenario, id)["status"].clone());
    assert_eq!(statuses, ["active", "active"], "the credential may have lost its rights");
    scenario.driver.run_for(2 * HOUR_MS);
    let statuses = ids.each_ref().map(|id| shown(&mut scenario, id)["status"].clone());
    assert_eq!(statuses, ["stopped_keeping", "stopped_keeping"]);
}

#[test]
fn what_one_tick_has_no_time_for_the_next_one_does() {
    let mut scenario = world(5);
    let ids: Vec<String> = [101, 102, 103]
        .map(|sid| scenario.create(sid, &json!({"name": format!("List {sid}")})).expect("a sync"))
        .into();
    scenario.driver.run_for(LOOK);
    scenario.driver.ticking = false;
    for sid in [101, 102, 103] {
        assert!(scenario.driver.sim.lock().adobe.rename_segment(BEGIN + HOUR_MS, sid, "Renamed"));
    }
    scenario.driver.run_for(LOOK);
    let mut renamed = Vec::new();
    while renamed.last() != Some(&3) {
        assert!(renamed.len() < 10, "{renamed:?}");
        let deps = scenario.driver.deps();
        // A minute is kept for each audience: there is time for about one.
        run(tick(&deps, deps.now() + MINUTE + 15_000 + 120)).expect("a tick");
        scenario.driver.run_for(MINUTE);
        let names = ids.iter().map(|id| shown(&mut scenario, id)["audience_name"].clone());
        renamed.push(names.filter(|name| name == "Renamed").count());
    }
    assert!(renamed.len() > 1 && renamed.is_sorted(), "{renamed:?}");
}

#[test]
fn with_failing_calls_and_dying_functions_it_ends_the_same() {
    for seed in 0..8 {
        let mut scenario = world(seed);
        let id = scenario.create(101, &json!({"id": LIST})).expect("a sync");
        let other = scenario.create(102, &json!({"name": "Another"})).expect("of another audience");
        deliver(&mut scenario, 1_000, &[1, 2]);
        {
            let adobe = &mut scenario.driver.sim.lock().adobe;
            assert!(adobe.delete_segment(101) && adobe.rename_segment(BEGIN + HOUR_MS, 102, "Renamed"));
        }
        scenario.driver.sim.lock().faults = usual_faults(seed);
        scenario.driver.run_for(6 * HOUR_MS);
        scenario.driver.sim.lock().faults = Faults::NONE;
        scenario.driver.run_for(3 * HOUR_MS);
        let sync = shown(&mut scenario, &id);
        assert_eq!((seed, &sync["status"]), (seed, &json!("stopped_keeping")), "{sync}");
        let other = shown(&mut scenario, &other);
        assert_eq!((&other["status"], &other["audience_name"]), (&json!("active"), &json!("Renamed")), "{seed}");
        deliver(&mut scenario, 2_000, &[3]);
        assert_eq!(members(&scenario), BTreeSet::from([1, 2, 4]), "{seed}");
    }
}
