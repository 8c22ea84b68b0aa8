//! What an operator has set up is exported, and imported elsewhere after a look at what would change.

use serde_json::{Value, json};

use crate::support::{MUNCHKIN, World};

/// A stack with a feed and three syncs, one of them paused and one a report only.
fn set_up() -> World {
    let world = World::new();
    let feed = json!({"kind": "aam-files", "snapshots": true, "every_hours": 12});
    assert_eq!(world.put("/feeds/daily", &feed).0, 200);
    let guard = json!({"removals_percent": 10});
    for body in [
        json!({"audience_id": "aam:101", "list": {"id": 1001}, "leaving": "keep", "guard": guard}),
        json!({"audience_id": "aam:103", "list": {"name": "Buyers"}}),
        json!({"audience_id": "aam:101", "list": {"name": "Only a report"}, "start": "report_only"}),
    ] {
        let (status, sync) = world.post("/syncs", &body);
        assert_eq!(status, 201, "{sync}");
        world.wait(1_000);
    }
    let (_, syncs) = world.get("/syncs");
    let paused = syncs[1]["id"].as_str().expect("an id").to_owned();
    assert_eq!(world.post(&format!("/syncs/{paused}/pause"), &json!({})).0, 200);
    world
}

fn changes(body: &Value) -> Vec<(String, String)> {
    let word = |change: &Value, name: &str| change[name].as_str().expect("a word").to_owned();
    let changes = body["changes"].as_array().expect("changes");
    changes.iter().map(|change| (word(change, "what"), word(change, "change"))).collect()
}

fn all(change: &str) -> Vec<(String, String)> {
    ["subscription", "feed", "sync", "sync", "sync"].map(|what| (what.to_owned(), change.to_owned())).to_vec()
}

/// Rows that an import may write.
fn written(world: &World) -> Vec<String> {
    ["sync/", "feed/", "creating/", "pair/", "idempotency/"].iter().flat_map(|prefix| world.rows(prefix)).collect()
}

#[test]
fn an_export_says_all_and_is_the_same_where_it_comes_from() {
    let world = set_up();
    let (status, export) = world.get("/export");
    assert_eq!(status, 200);
    assert_eq!(export["subscription"]["munchkin_id"], MUNCHKIN);
    assert_eq!(export["feeds"]["daily"]["every_hours"], 12);
    let syncs = export["syncs"].as_array().expect("syncs");
    assert_eq!(syncs[0]["guard"]["removals_percent"], 10);
    assert_eq!(syncs.iter().map(|sync| sync["paused"] == true).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(syncs[1]["list"]["name"], "Buyers");

    let before = written(&world);
    let (status, answer) = world.post("/import", &json!({"export": export}));
    assert_eq!((status, changes(&answer)), (200, all("same")), "{answer}");
    assert_eq!(written(&world), before);
}

#[test]
fn an_import_says_what_it_would_do_and_then_does_it_once() {
    let export = set_up().get("/export").1;
    let world = World::bare();
    let (status, answer) = world.post("/import", &json!({"export": export}));
    assert_eq!((status, changes(&answer)), (200, all("add")), "{answer}");
    assert!(written(&world).is_empty() && world.get("/subscription").0 == 404);

    // Elsewhere nobody has made the list yet: by its name it is made, by its id it is missing.
    let (status, answer) = world.post("/import", &json!({"export": export, "apply": true}));
    assert_eq!(status, 200, "{answer}");
    let done = |answer: &Value| -> Vec<Option<bool>> {
        answer["changes"].as_array().expect("changes").iter().map(|change| change["done"].as_bool()).collect()
    };
    assert_eq!(done(&answer), [Some(true), Some(true), Some(true), Some(false), Some(true)], "{answer}");
    assert!(answer["changes"][3]["why"].as_str().expect("a reason").contains("no static list with id"), "{answer}");

    // Into another instance the lists go by their names: one that is there already is somebody else's, the others are made.
    let mut other = export.clone();
    other["syncs"][0]["list"] = json!({"id": 77, "name": "VIP"});
    let world = World::bare();
    let body = json!({"export": other, "munchkin_id": "999-XYZ-000", "apply": true});
    let (status, answer) = world.post("/import", &body);
    assert_eq!(status, 200);
    assert_eq!(done(&answer), [Some(true), Some(true), Some(false), Some(true), Some(true)], "{answer}");
    let why = answer["changes"][2]["why"].as_str().expect("a reason");
    assert!(why.contains("Marketo has a list of this name already"), "{answer}");
    let (_, syncs) = world.get("/syncs");
    assert_eq!(syncs.as_array().expect("syncs").len(), 2);
    assert!(world.list_names().contains(&"Buyers".to_owned()));
    assert_eq!(syncs[0]["status"], "paused");

    // Once more changes nothing of what is done.
    let before = written(&world);
    let (_, again) = world.post("/import", &body);
    let words: Vec<String> = changes(&again).into_iter().map(|(_, change)| change).collect();
    assert_eq!(words, ["same", "same", "add", "same", "same"], "{again}");
    assert_eq!(done(&again), [None, None, Some(false), None, None]);
    assert_eq!(written(&world), before);
}

#[test]
fn what_is_a_fact_about_an_instance_stays_and_a_hipaa_mark_is_not_taken_back() {
    let mut export = set_up().get("/export").1;
    export["subscription"]["new_pairs_per_day"] = json!(77);
    let world = World::new();
    let marked = json!({"munchkin_id": MUNCHKIN, "org_id": crate::support::ORG, "hipaa_ready": true});
    assert_eq!(world.put("/subscription", &marked).0, 200);
    let body = json!({"export": export, "apply": true});
    let (_, answer) = world.post("/import", &body);
    assert_eq!((&answer["changes"][0]["change"], &answer["changes"][0]["done"]), (&json!("cannot"), &Value::Null));
    assert_eq!(world.get("/subscription").1["hipaa_ready"], true);

    // From elsewhere: settings come, facts stay.
    export["subscription"]["munchkin_id"] = json!("999-XYZ-000");
    let body = json!({"export": export, "munchkin_id": MUNCHKIN, "apply": true});
    let (_, answer) = world.post("/import", &body);
    assert_eq!(answer["changes"][0]["fields"], json!(["new_pairs_per_day"]), "{answer}");
    let (_, now) = world.get("/subscription");
    assert_eq!((&now["hipaa_ready"], &now["new_pairs_per_day"]), (&json!(true), &json!(77)));
}

#[test]
fn what_differs_is_named_and_what_cannot_be_changed_is_said() {
    let world = set_up();
    let mut export = world.get("/export").1;
    export["subscription"]["cookie_sync"] = json!(false);
    export["feeds"]["daily"]["every_hours"] = json!(24);
    export["feeds"]["stream"] = json!({"kind": "aam-stream"});
    export["syncs"][0]["guard"]["removals_percent"] = json!(20);
    export["syncs"][1]["leaving"] = json!("keep");
    export["syncs"][2]["audience_id"] = json!("101");
    let (_, answer) = world.post("/import", &json!({"export": export}));
    let words: Vec<String> = changes(&answer).into_iter().map(|(_, change)| change).collect();
    assert_eq!(words, ["change", "change", "cannot", "change", "cannot", "cannot"], "{answer}");
    let of = |place: usize| &answer["changes"][place];
    assert_eq!(of(0)["fields"], json!(["cookie_sync"]));
    assert_eq!(of(1)["fields"], json!(["every_hours"]));
    assert!(of(2)["why"].as_str().expect("a reason").contains("ecid_field"));
    assert_eq!(of(3)["fields"], json!(["guard"]));
    assert!(of(4)["why"].as_str().expect("a reason").starts_with("leaving of a sync cannot be changed"));
    assert!(of(5)["why"].as_str().expect("a reason").starts_with("/export/syncs/2/audience_id: expected"));

    for (body, pointer) in [
        (json!({}), "/export/version"),
        (json!({"export": {"version": 1, "subscription": {}}}), "/export/subscription/munchkin_id"),
        (json!({"export": export, "apply": "yes"}), "/apply"),
        (json!({"export": export, "dry": true}), "/dry"),
    ] {
        let (status, problem) = world.post("/import", &body);
        let pointers: Vec<&Value> =
            problem["errors"].as_array().expect("errors").iter().map(|error| &error["pointer"]).collect();
        assert!(status == 400 && pointers.contains(&&json!(pointer)), "{problem}");
    }
}
