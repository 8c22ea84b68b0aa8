//! Browsing, reports and status.

use std::collections::BTreeMap;

use domain::{AudienceId, Said};
use futures::executor::block_on;
use ports::Table;
use serde_json::{Value, json};
use state::feeds::{Import, ImportStatus, Reject, import_key, index_import};

use crate::support::{START, World, munchkin};

fn make(world: &World, audience: &str, list: Value, start: &str) -> String {
    let (status, sync) = world.post("/syncs", &json!({"audience_id": audience, "list": list, "start": start}));
    assert_eq!(status, 201, "{sync}");
    sync["id"].as_str().expect("an id").to_owned()
}

#[test]
fn the_report_has_the_published_shape_and_its_sums_hold() {
    let world = World::new();
    let id = make(&world, "aam:101", json!({"id": 1001}), "now");
    assert_eq!(world.get(&format!("/syncs/{id}/report")).0, 404, "the first pass is under way");
    world.report(&id);
    let (status, report) = world.get(&format!("/syncs/{id}/report"));
    assert_eq!(status, 200);
    assert_eq!(
        report,
        json!({
            "sync_id": id, "audience_id": "aam:101", "list_id": 1001, "as_of": "2026-11-20T00:01:01.5Z",
            "delivered": true, "audience": 7, "no_match": 3, "set_aside": 1, "anonymous": 1, "addressable": 4,
            "known": 2, "people": 7, "in_list": {"ours": 1, "before_us": 1}, "waiting": 1,
            "kept_out": 1, "dropped": 1, "held": null, "failed": {"1004": 0, "1007": 2}, "members_in_marketo": 6,
            "reasons": [{"code": "1007", "count": 2, "sentence": "Marketo finds several people for this key."}],
            "refused": [{
                "lead_id": 4, "code": "1007", "request_id": "1a2b#3", "at": "2026-11-20T00:00:00Z",
                "sentence": "Several <people> match.",
            }],
            "freshness_seconds": 120,
            "members": {
                "in_audience_by_us": 1, "in_audience_before_us": 1, "before_us_only": 4, "by_another_sync": 0,
                "kept": 0, "waiting_to_leave": 0,
            },
        })
    );
}

#[test]
fn report_only_reports_from_the_pass_and_an_undelivered_audience_says_so() {
    let world = World::new();
    let id = make(&world, "aam:101", json!({"name": "Later"}), "report_only");
    assert_eq!(world.get(&format!("/syncs/{id}/report")).0, 404);
    world.want(101, &[1, 2], 1);
    let (_, report) = world.get(&format!("/syncs/{id}/report"));
    assert_eq!((&report["waiting"], &report["people"], &report["list_id"]), (&json!(2), &json!(2), &Value::Null));
    assert_eq!(
        (&report["in_list"], &report["members_in_marketo"]),
        (&json!({"ours": 0, "before_us": 0}), &Value::Null)
    );

    let id = make(&world, "aam:102", json!({"id": 1001}), "now");
    let (status, report) = world.get(&format!("/syncs/{id}/report"));
    assert_eq!((status, &report["delivered"], &report["audience"]), (200, &json!(false), &json!(0)));
    assert_eq!(report["as_of"], "2026-11-20T00:00:00Z");
    assert!(report["note"].is_string());
}

#[test]
fn status_tells_what_everything_waits_for() {
    let world = World::bare();
    assert_eq!(world.get("/status").1["settled"], true, "nothing is set up");
    let world = World::new();
    let (_, status) = world.get("/status");
    assert_eq!((&status["settled"], &status["extract_pending"]), (&json!(false), &json!(true)));
    assert_eq!(status["dirty"], json!({"identity": 1, "edges": 0, "audience": 0, "list": 0}));
    make(&world, "aam:101", json!({"id": 1001}), "now");
    world.want(101, &[1], 1);
    let (_, status) = world.get("/status");
    assert_eq!(status["dirty"], json!({"identity": 1, "edges": 0, "audience": 1, "list": 1}));
    assert_eq!((&status["passes_pending"], &status["reports_pending"]), (&json!(1), &json!(1)));
    assert!(status["calls_today"].as_u64().expect("a number") > 0);
    assert!(status["waits_for"].as_array().expect("words").len() >= 5, "{status}");
}

/// Calls of ports that an answer takes.
fn calls(world: &World, path: &str) -> u64 {
    let is_answered = |lives: &u64| {
        world.outside.dies_after(*lives);
        let status = world.ask("GET", path, &[], b"").status;
        world.outside.revive();
        status == 200
    };
    (1..).find(is_answered).expect("an answer")
}

/// What all syncs share is not read again for each of them.
#[test]
fn another_sync_of_a_page_costs_only_what_is_its_own() {
    let world = World::new();
    let (mut page, mut alone) = (0, 0);
    for list in ["One", "Two", "Three"] {
        let body = json!({"audience_id": "aam:101", "list": {"name": list}});
        let (status, made) = world.post("/syncs", &body);
        assert_eq!(status, 201, "{made}");
        world.want(101, &[1, 2], 9);
        let id = made["id"].as_str().expect("an id");
        (page, alone) = (calls(&world, "/syncs"), calls(&world, &format!("/syncs/{id}")));
    }
    // Subscriptions, where the look-ups are, the last match, and what calls there will be are read once.
    assert!(page <= alone + 2 * (alone - 4), "{page} calls for three, {alone} for one");
}

#[test]
fn unknown_routes_and_methods_are_told_apart() {
    let world = World::new();
    assert_eq!(world.get("/nowhere").0, 404);
    assert_eq!(world.get("/syncs/0000000000000000").0, 404);
    let answer = world.ask("DELETE", "/syncs", &[], b"");
    assert_eq!((answer.status, answer.headers), (405, vec![("allow", "GET, POST".to_owned())]));
    assert_eq!(world.ask("GET", "/syncs/x/pause", &[], b"").status, 405);
    let elsewhere = [("sec-fetch-site", "cross-site")];
    assert_eq!(world.ask("POST", "/syncs", &elsewhere, b"{}").status, 403);
}

fn import(world: &World) {
    let import = Import {
        v: 1,
        id: "f1".into(),
        key: "incoming/<b>.sync".into(),
        status: ImportStatus::Done,
        why: None,
        started_at: START,
        ended_at: Some(START + 1_000),
        rows: 9,
        rejected: 3,
        rejects: vec![Reject::new(4, &Said::of_before("expected 38 digits & got <12>"))],
        taken: BTreeMap::from([(AudienceId::aam(101), 6)]),
        feed: "default".into(),
        delivery: None,
        rejected_by: BTreeMap::new(),
        not_named: Vec::new(),
    };
    world.store(Table::Syncs, import_key(&munchkin(), "f1"), &import);
    block_on(index_import(&world.deps, &munchkin(), START, "f1")).expect("a line");
}

#[test]
fn what_became_of_a_file_is_shown() {
    let world = World::new();
    import(&world);
    let (_, imports) = world.get("/imports");
    assert_eq!((&imports[0]["rejects"][0]["line"], &imports[0]["duration_ms"]), (&json!(4), &json!(1_000)));
    assert_eq!((&imports[0]["key"], &imports[0]["rejected"]), (&json!("incoming/<b>.sync"), &json!(3)));
    assert_eq!(imports[0]["rejects"][0]["reason"], "expected 38 digits & got <12>");
}

#[test]
fn a_held_list_is_shown_and_does_not_keep_the_system_busy() {
    let world = World::new();
    let id = make(&world, "aam:101", json!({"id": 1001}), "now");
    assert_eq!(world.get(&format!("/syncs/{id}")).1["held"], Value::Null);
    assert_eq!(world.get("/status").1["held"], json!([]));
    world.hold(1001, "00000000000000aa");
    let held = json!({
        "id": "00000000000000aa", "since": "2026-11-20T00:00:01Z", "why": "400 of 500 people <would> leave",
        "why_code": "held_removals", "why_values": {"removals": 400, "of": 500}, "removals": 400, "additions": 2, "of": 500,
    });
    assert_eq!(world.get(&format!("/syncs/{id}")).1["held"], held);
    let (_, status) = world.get("/status");
    assert_eq!((&status["held"][0]["list_id"], &status["held"][0]["id"]), (&json!(1001), &held["id"]));
    assert_eq!(status["outstanding"][0]["remove"], 400);
    let waits = status["waits_for"].as_array().expect("words");
    assert!(!waits.iter().any(|what| what.as_str().expect("words").contains("people to add")), "{status}");
}
