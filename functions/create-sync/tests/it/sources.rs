//! What a sync says about where its members come from.

use domain::AudienceId;
use domain::limits::HOUR_MS;
use ports::Table;
use serde_json::{Value, json};
use state::audience::{BaseRef, Head, Missing, head_key};

use crate::support::{PLATFORM, START, World, munchkin};

const FIRST: &str = "2026-11-20T00:00:00Z";

fn sync(world: &World, audience: &str) -> String {
    let (status, sync) = world.post("/syncs", &json!({"audience_id": audience, "list": {"id": 1001}}));
    assert_eq!(status, 201, "{sync}");
    sync["id"].as_str().expect("an id").to_owned()
}

fn shown(world: &World, id: &str) -> Value {
    world.get(&format!("/syncs/{id}")).1
}

fn head(world: &World, sid: u64, change: impl Fn(&mut Head)) {
    let audience = AudienceId::aam(sid);
    let mut head = Head::new(audience.clone(), START);
    head.base = Some(BaseRef { key: "base".into(), count: 7, as_of: START });
    change(&mut head);
    world.store(Table::Audiences, head_key(&munchkin(), &audience), &head);
}

#[test]
fn a_sync_says_how_late_its_list_can_be() {
    let world = World::new();
    let id = sync(&world, "aam:101");
    let late = "this feed is delivered once a day; the list can be up to 26 hours behind Adobe";
    let source = json!({
        "feed": "default", "kind": "aam-files", "last_at": FIRST,
        "lateness": late, "every_hours": 24, "behind_hours": 26, "overdue": null,
    });
    assert_eq!(shown(&world, &id)["sources"], json!([source]), "a head of before feeds were told apart");

    world.put("/feeds/hourly", &json!({"snapshots": false, "every_hours": 1, "lag_minutes": 90}));
    head(&world, 101, |head| head.feeds.extend([("default".into(), START), ("hourly".into(), START + HOUR_MS)]));
    let sources = shown(&world, &id)["sources"].clone();
    assert_eq!(sources[0]["lateness"], late);
    assert_eq!(sources[1]["lateness"], "this feed is delivered every hour; the list can be up to 5 hours behind Adobe");
    assert_eq!((&sources[1]["every_hours"], &sources[1]["behind_hours"]), (&json!(1), &json!(5)));
}

#[test]
fn a_feed_that_is_silent_for_twice_its_rhythm_is_overdue() {
    let world = World::new();
    let id = sync(&world, "aam:101");
    world.wait(48 * HOUR_MS);
    assert_eq!(shown(&world, &id)["sources"][0]["overdue"], Value::Null);
    world.wait(1);
    let overdue = shown(&world, &id)["sources"][0]["overdue"].as_str().expect("words").to_owned();
    assert!(overdue.contains(FIRST) && overdue.contains("ask Adobe whether it still is"), "{overdue}");
}

#[test]
fn what_a_stream_fills_is_as_late_as_the_stream() {
    let world = World::new();
    let id = sync(&world, "aam:101");
    world.put("/feeds/live", &json!({"kind": "aam-stream", "ecid_field": "AAM_UUID"}));
    head(&world, 101, |head| head.feeds.extend([("default".into(), START), ("live".into(), START)]));
    world.wait(100 * HOUR_MS);
    let sources = shown(&world, &id)["sources"].clone();
    let lateness: Vec<&Value> = sources.as_array().expect("sources").iter().map(|source| &source["lateness"]).collect();
    assert_eq!(lateness, [&Value::Null, &Value::Null]);
    assert_eq!(sources[0]["behind_hours"], Value::Null);
    assert_eq!((&sources[1]["kind"], &sources[1]["overdue"]), (&json!("aam-stream"), &Value::Null));
    assert_eq!(sources[1]["last_at"], FIRST);
}

#[test]
fn an_audience_that_was_never_mapped_says_what_to_ask_adobe() {
    let world = World::with_platform();
    let manager = sync(&world, "aam:102");
    let sentence = "no delivery has named this audience yet: ask Adobe to map segment 102 to the destination";
    let not = shown(&world, &manager);
    assert_eq!(not["not_delivered"], json!({"feed": null, "since": null, "sentence": sentence}));
    assert_eq!(not["sources"], json!([]));
    let platform = sync(&world, &format!("aep:{PLATFORM}"));
    let sentence = "no delivery has named this audience yet: activate this audience to the destination";
    assert_eq!(shown(&world, &platform)["not_delivered"]["sentence"], sentence);
    let empty = json!({"decision": "empty"});
    assert_eq!(world.post(&format!("/syncs/{manager}/not-delivered"), &empty).0, 409, "there is nobody to remove");
    world.post(&format!("/syncs/{manager}/stop"), &json!({}));
    assert_eq!(shown(&world, &manager)["not_delivered"], Value::Null, "it is over");
}

#[test]
fn an_audience_that_vanished_is_empty_only_if_an_operator_says_so() {
    let world = World::new();
    let id = sync(&world, "aam:101");
    let path = format!("/syncs/{id}/not-delivered");
    let empty = json!({"decision": "empty"});
    assert_eq!(world.post(&path, &empty).0, 409, "it is delivered");
    head(&world, 101, |head| {
        head.feeds.insert("default".into(), START);
        head.missing = Some(Missing { feed: "default".into(), since: START + 1_000 });
    });
    let not = shown(&world, &id)["not_delivered"].clone();
    assert_eq!((&not["feed"], &not["since"]), (&json!("default"), &json!("2026-11-20T00:00:01Z")));
    let sentence = not["sentence"].as_str().expect("words");
    for words in ["nobody was removed on its account", "map segment 101 to the destination again", &path] {
        assert!(sentence.contains(words), "{sentence}");
    }
    for wrong in [json!({}), json!({"decision": "drop"}), json!({"decision": "empty", "all": true})] {
        assert_eq!(world.post(&path, &wrong).0, 400, "{wrong}");
    }
    world.rung();
    let (status, answer) = world.post(&path, &empty);
    assert_eq!((status, &answer["id"]), (202, &json!(id)));
    assert!(world.rung().contains(&("audience".to_owned(), "aam:101".to_owned())));
    assert_eq!(shown(&world, &id)["not_delivered"], Value::Null);
    assert_eq!(world.post(&path, &empty).0, 409, "it was said");
}
