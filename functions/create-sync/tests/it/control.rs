//! Pausing, resuming, stopping, running; subscriptions and feeds.

use serde_json::{Value, json};
use state::bell::BellKey;
use state::syncs::Status;

use crate::support::{MUNCHKIN, ORG, START, World, munchkin};

/// A sync whose audience has had a pass.
fn running() -> (World, String) {
    let world = World::new();
    let (status, sync) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1001}}));
    assert_eq!(status, 201);
    world.want(101, &[1, 2, 3], 1);
    world.rung();
    (world, sync["id"].as_str().expect("an id").to_owned())
}

fn has_rung(world: &World, kind: &str) -> bool {
    world.rung().iter().any(|(rung, _)| rung == kind)
}

#[test]
fn a_pause_keeps_what_was_wanted_and_a_resume_forgets_it() {
    let (world, id) = running();
    world.handled(BellKey::list(&munchkin(), 1001));
    let (status, sync) = world.post(&format!("/syncs/{id}/pause"), &json!({}));
    assert_eq!((status, &sync["status"], &sync["generation"]), (200, &json!("paused"), &json!(2)));
    let row = world.row(&id).expect("a row");
    assert_eq!(world.leads(row.frozen.as_deref().expect("kept")), [1, 2, 3]);
    assert!(has_rung(&world, "list"));
    // Asked again: nothing changes, not even what is kept.
    world.want(101, &[4], 2);
    assert_eq!(world.post(&format!("/syncs/{id}/pause"), &json!({})).0, 200);
    assert_eq!(world.row(&id).expect("a row"), row);

    let (status, sync) = world.post(&format!("/syncs/{id}/resume"), &json!({}));
    assert_eq!((status, &sync["status"], &sync["why"]), (200, &json!("active"), &Value::Null));
    let row = world.row(&id).expect("a row");
    assert_eq!((row.frozen, row.from_pass, row.generation), (None, Some(1), 3));
    assert!(has_rung(&world, "list"));
}

#[test]
fn a_pause_keeps_both_sets_where_another_is_published_meanwhile() {
    let (world, id) = running();
    let row = world.want_row(101, &[3, 4], 2);
    world.outside.meanwhile.lock().expect("unlocked").replace(row);
    assert_eq!(world.post(&format!("/syncs/{id}/pause"), &json!({})).0, 200);
    let row = world.row(&id).expect("a row");
    assert_eq!(world.leads(row.frozen.as_deref().expect("kept")), [1, 2, 3, 4]);
}

#[test]
fn a_want_from_before_the_sync_is_not_kept() {
    let (world, id) = running();
    world.want(101, &[1, 2, 3], 0);
    assert_eq!(world.post(&format!("/syncs/{id}/pause"), &json!({})).0, 200);
    assert_eq!(world.row(&id).expect("a row").frozen, None);
}

#[test]
fn a_sync_whose_list_was_deleted_is_not_resumed() {
    let (world, id) = running();
    assert_eq!(world.post(&format!("/syncs/{id}/pause"), &json!({})).0, 200);
    // As an operator deletes it in Marketo.
    let token = world.marketo_token();
    let delete = http::Request::post("http://marketo.test/rest/asset/v1/staticList/1001/delete.json")
        .header("authorization", format!("Bearer {token}"))
        .body(Vec::new())
        .expect("a request");
    assert_eq!(world.marketo().handle(START, &delete).response.expect("an answer").status(), 200);
    let row = world.row(&id).expect("a row");
    let (status, problem) = world.post(&format!("/syncs/{id}/resume"), &json!({}));
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().expect("words");
    assert!(detail.contains("1001") && detail.contains("VIP"), "{detail}");
    assert_eq!(world.row(&id).expect("a row"), row, "nothing changed");
}

#[test]
fn a_stop_keeps_people_or_takes_them_out_and_is_final() {
    let (world, id) = running();
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({"people": "all"})).0, 400);
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({})).0, 200);
    let row = world.row(&id).expect("a row");
    assert_eq!((row.status, row.generation), (Status::StoppedKeeping, 2));
    assert_eq!(world.leads(row.frozen.as_deref().expect("kept")), [1, 2, 3]);
    for what in ["pause", "resume", "run"] {
        assert_eq!(world.post(&format!("/syncs/{id}/{what}"), &json!({})).0, 409, "{what}");
    }
    let (status, sync) = world.post(&format!("/syncs/{id}/stop"), &json!({"people": "take_out"}));
    assert_eq!((status, &sync["status"]), (200, &json!("stopped_leaving")));
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({"people": "keep"})).0, 409);
    assert_eq!(world.row(&id).expect("a row").status, Status::StoppedLeaving);
}

#[test]
fn a_run_asks_for_a_pass_and_rouses_everybody() {
    let (world, id) = running();
    assert_eq!(world.post(&format!("/syncs/{id}/run"), &json!({})).0, 200);
    let rung = world.rung();
    let kinds: Vec<&str> = rung.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["audience", "identity", "list"]);
    assert_eq!(world.get("/status").1["passes_pending"], 1);
}

#[test]
fn marking_a_running_subscription_pauses_its_syncs_and_says_why() {
    for (change, word) in [("hipaa_ready", "HIPAA"), ("org_id", "organisation")] {
        let (world, id) = running();
        let mut closed = json!({"munchkin_id": MUNCHKIN, "org_id": ORG});
        closed[change] = if change == "org_id" { Value::Null } else { json!(true) };
        let (status, body) = world.put("/subscription", &closed);
        assert_eq!((status, &body["paused_syncs"]), (200, &json!([id])));
        let (_, sync) = world.get(&format!("/syncs/{id}"));
        assert_eq!(sync["status"], "paused");
        assert!(sync["why"].as_str().expect("words").contains(word), "{sync}");
        assert!(world.row(&id).expect("a row").frozen.is_some());
        for what in ["resume", "run"] {
            assert_eq!(world.post(&format!("/syncs/{id}/{what}"), &json!({})).0, 403, "{what}");
        }
        // Opened again, an operator resumes it.
        assert_eq!(world.put("/subscription", &json!({"munchkin_id": MUNCHKIN, "org_id": ORG})).0, 200);
        assert_eq!(world.get(&format!("/syncs/{id}")).1["status"], "paused");
        assert_eq!(world.post(&format!("/syncs/{id}/resume"), &json!({})).0, 200);
    }
}

#[test]
fn a_sync_on_its_way_is_not_finished_behind_a_closed_door() {
    let world = World::new();
    world.outside.die_after_list.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"name": "Carts"}})).0, 503);
    world.outside.revive();
    world.put("/subscription", &json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "hipaa_ready": true}));
    let calls = world.outside.marketo.lock().expect("unlocked").calls().len();
    world.resume();
    assert_eq!(world.outside.marketo.lock().expect("unlocked").calls().len(), calls, "no call is made");
    assert_eq!(world.get("/syncs").1[0]["status"], "creating");
}

#[test]
fn subscriptions_are_checked_and_chosen() {
    let world = World::bare();
    assert_eq!(world.get("/subscription").0, 404);
    assert_eq!(world.get("/syncs").0, 404);
    let (status, problem) = world.put(
        "/subscription",
        &json!({"munchkin_id": "x", "org_id": "y", "hipaa_ready": "no", "extract_since": "yesterday",
                "bulk_import_above": 299}),
    );
    assert_eq!((status, problem["errors"].as_array().expect("errors").len()), (400, 5));
    assert_eq!(world.put("/subscription", &json!({"munchkin_id": MUNCHKIN, "org_id": ORG})).0, 201);
    assert!(has_rung(&world, "identity"));
    let chosen = world.get("/subscription").1;
    assert_eq!((&chosen["cookie_sync"], &chosen["bulk_import_above"]), (&json!(true), &Value::Null));
    let import = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "bulk_import_above": 20_000});
    assert_eq!(world.put("/subscription", &import).0, 200);
    assert_eq!(world.get("/subscription").1["bulk_import_above"], 20_000);
    assert_eq!(world.put("/subscription", &json!({"munchkin_id": "999-ZZZ-999", "org_id": ORG})).0, 201);
    let (status, problem) = world.get("/syncs");
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().expect("words").contains("munchkin_id"), "{problem}");
    assert_eq!(problem["munchkin_ids"], json!([MUNCHKIN, "999-ZZZ-999"]), "for a program to choose from");
    assert_eq!(world.get("/syncs?munchkin_id=999-ZZZ-999").0, 200);
    assert_eq!(world.get("/syncs?munchkin_id=111-AAA-111").0, 404);
}
