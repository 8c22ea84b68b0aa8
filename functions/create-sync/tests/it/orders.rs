//! What operators decide about a list: each decision is a note to its writer, who is roused.

use serde_json::{Value, json};
use state::bell::BellKey;
use state::notes::Note;

use crate::support::{MUNCHKIN, ORG, World, munchkin};

fn running() -> (World, String) {
    let world = World::new();
    let (status, sync) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1001}}));
    assert_eq!(status, 201);
    world.handled(BellKey::list(&munchkin(), 1001));
    world.rung();
    (world, sync["id"].as_str().expect("an id").to_owned())
}

fn has_rung(world: &World) -> bool {
    world.rung().contains(&("list".to_owned(), "1001".to_owned()))
}

#[test]
fn people_are_put_back_by_their_ids_or_all() {
    let (world, id) = running();
    let path = format!("/syncs/{id}/put-back");
    for (body, leads) in [(json!({"lead_ids": [1, 2]}), Some(vec![1, 2])), (json!({}), None)] {
        let (status, sync) = world.post(&path, &body);
        assert_eq!((status, &sync["id"]), (202, &json!(id)));
        assert_eq!(world.notes(1001).last(), Some(&Note::PutBack { leads }));
        assert!(has_rung(&world));
        world.wait(1_000);
    }
    // A misspelt field does not mean everybody.
    for (body, pointer) in [
        (json!({"leads": [1]}), "/leads"),
        (json!({"lead_ids": []}), "/lead_ids"),
        (json!({"lead_ids": ["1"]}), "/lead_ids"),
        (json!({"lead_ids": [1, 0]}), "/lead_ids"),
        (json!({"lead_ids": 1}), "/lead_ids"),
    ] {
        let (status, problem) = world.post(&path, &body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!(pointer)), "{body}");
    }
    assert_eq!(world.notes(1001).len(), 2);
}

#[test]
fn what_is_held_is_decided_by_its_id() {
    let (world, id) = running();
    let path = format!("/syncs/{id}/held");
    let apply = json!({"held": "00000000000000aa", "decision": "apply"});
    let (status, problem) = world.post(&path, &apply);
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().expect("words").contains("nothing is held"), "{problem}");
    world.hold(1001, "00000000000000bb");
    let (status, problem) = world.post(&path, &apply);
    assert_eq!((status, &problem["held"]["id"]), (409, &json!("00000000000000bb")));
    assert!(problem["detail"].as_str().expect("words").contains("00000000000000bb"), "{problem}");
    assert!(world.notes(1001).is_empty() && !has_rung(&world));
    for (decision, apply) in [("apply", true), ("drop", false)] {
        let (status, sync) = world.post(&path, &json!({"held": "00000000000000bb", "decision": decision}));
        assert_eq!((status, &sync["held"]["removals"]), (202, &json!(400)));
        assert_eq!(world.notes(1001).last(), Some(&Note::Decide { held: "00000000000000bb".into(), apply }));
        assert!(has_rung(&world));
        world.wait(1_000);
    }
    let (status, problem) = world.post(&path, &json!({"decision": "maybe"}));
    assert_eq!((status, problem["errors"].as_array().expect("errors").len()), (400, 2));
}

#[test]
fn a_whole_list_is_verified_on_request() {
    let (world, id) = running();
    assert_eq!(world.post(&format!("/syncs/{id}/verify"), &json!({})).0, 202);
    assert_eq!(world.notes(1001), [Note::VerifyAll]);
    assert!(has_rung(&world));
}

#[test]
fn a_guard_is_changed_field_by_field() {
    let (world, id) = running();
    let path = format!("/syncs/{id}/guard");
    let (status, sync) = world.post(&path, &json!({"removals_percent": 50}));
    assert_eq!((status, &sync["guard"]["removals_percent"]), (200, &json!(50)));
    assert!(has_rung(&world), "what is held may be a mass change no longer");
    let (_, sync) = world.post(&path, &json!({"additions_at_least": 10}));
    let guard = json!({"removals_percent": 50, "removals_at_least": 100, "additions_at_least": 10});
    assert_eq!(sync["guard"], guard);
    assert_eq!(world.get(&format!("/syncs/{id}")).1["guard"], guard);
    for (body, pointer) in
        [(json!({"removals_at_least": 0}), "/removals_at_least"), (json!({"percent": 1}), "/percent")]
    {
        let (status, problem) = world.post(&path, &body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!(pointer)));
    }
    assert_eq!(world.row(&id).expect("a row").generation, 1, "its status has not changed");
}

#[test]
fn nothing_is_ordered_where_no_list_is_written() {
    let (world, id) = running();
    let (_, report) =
        world.post("/syncs", &json!({"audience_id": "aam:103", "list": {"id": 1001}, "start": "report_only"}));
    let report = report["id"].as_str().expect("an id").to_owned();
    let bodies = [("put-back", json!({})), ("verify", json!({})), ("held", json!({"held": "a", "decision": "drop"}))];
    for (what, body) in &bodies {
        assert_eq!(world.post(&format!("/syncs/{report}/{what}"), body).0, 409, "{what}");
    }
    world.hold(1001, "a");
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({"people": "take_out"})).0, 200);
    for (what, status) in [("put-back", 409), ("verify", 409), ("guard", 409), ("held", 202)] {
        let body = bodies.iter().find(|(name, _)| *name == what).map_or_else(|| json!({}), |(_, body)| body.clone());
        assert_eq!(world.post(&format!("/syncs/{id}/{what}"), &body).0, status, "{what}");
    }
    world.put("/subscription", &json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "hipaa_ready": true}));
    for (what, body) in &bodies {
        let (status, problem): (u16, Value) = world.post(&format!("/syncs/{id}/{what}"), body);
        assert_eq!(status, 403, "{what}: {problem}");
    }
}
