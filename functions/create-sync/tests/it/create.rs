//! Making syncs: every refusal, every crash, one list.

use std::sync::atomic::Ordering;

use domain::planted::{Guard, take_out};
use doubles::marketo::{self, Commit, Fault, FaultAnswer, Kind, Which};
use serde_json::{Value, json};
use state::bell::BellKey;
use state::budget::LEASE_MS;
use state::syncs::{Start, Status};

use crate::support::{MUNCHKIN, ORG, START, World, munchkin};

fn carts() -> Value {
    json!({"audience_id": "aam:101", "list": {"name": "Carts"}})
}

fn fault(world: &World, answer: FaultAnswer, commit: Commit) {
    let fault = Fault { kind: Some(Kind::AssetCreate), which: Which::Nth(1), answer, commit };
    world.outside.marketo.lock().expect("unlocked").inject(fault);
}

/// No sync, no row on its way, no list.
fn nothing_half_made(world: &World) {
    assert_eq!(world.get("/syncs"), (200, json!([])));
    assert!(world.rows("creating/").is_empty());
    assert_eq!(world.list_names().len(), 2);
}

#[test]
fn a_new_list_is_made_and_bears_the_id_of_its_sync() {
    let world = World::new();
    world.handled(BellKey::identity(&munchkin()));
    world.rung();
    let (status, sync) = world.post("/syncs", &carts());
    assert_eq!(status, 201, "{sync}");
    assert_eq!((&sync["status"], &sync["list"]["ours"]), (&json!("active"), &json!(true)));
    assert_eq!((&sync["audience_delivered"], &sync["leaving"]), (&json!(true), &json!("remove")));
    let (id, list) = (sync["id"].as_str().expect("an id"), sync["list"]["id"].as_u64().expect("a list"));
    {
        let marketo = world.outside.marketo.lock().expect("unlocked");
        let made = &marketo.lists()[&list];
        assert_eq!((made.name.as_str(), made.folder), ("Carts", 12));
        assert_eq!(made.description, format!("audience-sync {id}"));
    }
    let row = world.row(id).expect("a row");
    assert_eq!((row.status, row.from_pass, row.list.id), (Status::Active, Some(1), Some(list)));
    let rung = world.rung();
    for (kind, of) in [("audience", "aam:101".to_owned()), ("identity", String::new()), ("list", list.to_string())] {
        assert!(rung.contains(&(kind.to_owned(), of)), "{kind}");
    }
    assert!(world.rows("creating/").is_empty());
    assert_eq!(world.get(&format!("/syncs/{id}")), (200, sync));
}

#[test]
fn an_existing_list_is_fed_and_is_not_ours() {
    let world = World::new();
    let body = json!({
        "audience_id": "aam:102", "list": {"id": 1001}, "leaving": "keep", "members_before": "adopt", "unheard_of": 1,
    });
    let (status, sync) = world.post("/syncs", &body);
    assert_eq!(status, 201, "{sync}");
    assert_eq!(sync["list"], json!({"id": 1001, "name": "VIP", "folder_id": 12, "ours": false}));
    assert_eq!((&sync["leaving"], &sync["members_before"]), (&json!("keep"), &json!("adopt")));
    assert_eq!(sync["audience_delivered"], false);
    assert_eq!(world.row(sync["id"].as_str().expect("an id")).expect("a row").from_pass, None);
}

#[test]
fn report_only_touches_no_list() {
    let world = World::new();
    let (status, sync) =
        world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"name": "VIP"}, "start": "report_only"}));
    assert_eq!((status, &sync["list"]["id"]), (201, &Value::Null), "{sync}");
    assert!(world.outside.marketo.lock().expect("unlocked").calls().is_empty(), "Marketo is not asked");
    // The same pair may begin for good beside it.
    assert_eq!(world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1001}})).0, 201);
    let row = world.row(sync["id"].as_str().expect("an id")).expect("a row");
    assert_eq!((row.start, row.status), (Start::ReportOnly, Status::Active));
}

#[test]
fn closed_doors_refuse_a_new_sync() {
    for (change, word) in [
        (json!({"hipaa_ready": true}), "HIPAA"),
        (json!({"org_id": null}), "organisation"),
        (json!({"cookie_sync": false}), "cookie sync"),
    ] {
        let world = World::new();
        let mut subscription = json!({"munchkin_id": MUNCHKIN, "org_id": ORG});
        for (field, value) in change.as_object().expect("an object") {
            subscription[field] = value.clone();
        }
        assert_eq!(world.put("/subscription", &subscription).0, 200);
        for body in [carts(), json!({"audience_id": "aam:101", "list": {"id": 1001}})] {
            let (status, problem) = world.post("/syncs", &body);
            assert_eq!(status, 403);
            assert!(problem["detail"].as_str().expect("words").contains(word), "{problem}");
        }
        assert!(world.outside.marketo.lock().expect("unlocked").calls().is_empty());
        nothing_half_made(&world);
    }
}

#[test]
fn what_does_not_exist_is_refused_by_name() {
    let world = World::new();
    let (status, problem) = world.post("/syncs", &json!({"audience_id": "aam:999", "list": {"id": 1001}}));
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/audience_id")));
    let (status, problem) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 4711}}));
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/list/id")));
    // An existing folder that holds no lists, and one that is not there.
    for folder in [41, 999] {
        let body = json!({"audience_id": "aam:101", "list": {"name": "Carts", "folder_id": folder}});
        let (status, problem) = world.post("/syncs", &body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/list/folder_id")), "{problem}");
    }
    nothing_half_made(&world);
}

#[test]
fn wrong_fields_are_named_all_at_once() {
    let world = World::new();
    let (status, problem) =
        world.post("/syncs", &json!({"audience_id": 101, "list": {}, "leaving": "stay", "start": 1}));
    assert_eq!((status, &problem["type"]), (400, &json!("about:blank")));
    let pointers: Vec<&Value> = problem["errors"].as_array().expect("errors").iter().map(|e| &e["pointer"]).collect();
    assert_eq!(pointers, ["/audience_id", "/list", "/leaving", "/start"]);
    for list in [
        json!({"id": "1001"}),
        json!({"id": 0}),
        json!({"name": " "}),
        json!({"name": "x".repeat(256)}),
        json!({"name": "a\nb"}),
        json!({"id": 1001, "name": "VIP"}),
        json!({"name": "Carts", "folder_id": "12"}),
        json!("VIP"),
    ] {
        let (status, problem) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": list}));
        assert_eq!(status, 400, "{list}");
        assert!(problem["errors"][0]["pointer"].as_str().expect("a pointer").starts_with("/list"), "{problem}");
    }
    assert_eq!(world.ask("POST", "/syncs", &[], b"{").status, 400);
    assert_eq!(world.ask("POST", "/syncs", &[], b"[]").status, 400);
    assert_eq!(world.ask("POST", "/syncs", &[], &vec![b' '; create_sync::BODY_BYTES + 1]).status, 413);
    nothing_half_made(&world);
}

#[test]
fn a_taken_name_offers_the_list_that_has_it() {
    let world = World::new();
    let (status, problem) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"name": " VIP "}}));
    let list = json!({"id": 1001, "name": "VIP", "folder_id": 12, "workspace": "Default"});
    assert_eq!((status, &problem["existing_lists"]), (409, &json!([list])));
    let detail = problem["detail"].as_str().expect("words");
    assert!(["1001", "folder 12", "Default"].iter().all(|part| detail.contains(part)), "{detail}");
    nothing_half_made(&world);
}

#[test]
fn all_lists_of_a_taken_name_are_shown() {
    let world = World::new();
    let other = world.marketo().make_list(START, "VIP", 31, "EMEA");
    let (status, problem) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"name": "VIP"}}));
    assert_eq!(status, 409, "{problem}");
    let rows = json!([
        {"id": 1001, "name": "VIP", "folder_id": 12, "workspace": "Default"},
        {"id": other, "name": "VIP", "folder_id": 31, "workspace": "EMEA"},
    ]);
    assert_eq!(problem["existing_lists"], rows);
    let detail = problem["detail"].as_str().expect("words");
    assert!(["2 lists", "1001", "EMEA"].iter().all(|part| detail.contains(part)), "{detail}");
    assert_eq!(world.get("/syncs"), (200, json!([])));
    assert!(world.marketo().calls().iter().all(|call| call.kind != Kind::AssetCreate), "nothing was asked to be made");
}

#[test]
fn a_name_that_somebody_takes_just_before_us_names_their_list() {
    for taken_name_code in [709, 1017] {
        let world = World::with(marketo::Settings { taken_name_code, ..marketo::Settings::default() });
        world.outside.rival.lock().expect("unlocked").replace("Carts".into());
        let (status, problem) = world.post("/syncs", &carts());
        assert_eq!(status, 409, "{problem}");
        let list = &problem["existing_lists"][0];
        assert_eq!((&list["folder_id"], &list["workspace"]), (&json!(31), &json!("EMEA")));
        assert_eq!(world.get("/syncs"), (200, json!([])));
        // With a comma the other's list cannot be searched for, and it is in no folder of ours.
        let body = json!({"audience_id": "aam:101", "list": {"name": "Carts, new", "folder_id": 32}});
        world.outside.rival.lock().expect("unlocked").replace("Carts, new".into());
        let (status, problem) = world.post("/syncs", &body);
        assert_eq!((status, &problem["existing_lists"]), (409, &json!([])), "{problem}");
        assert!(world.rows("creating/").is_empty());
    }
}

#[test]
fn a_name_that_is_taken_by_our_own_list_is_ours() {
    for code in [709, 1017] {
        let world = World::new();
        fault(&world, FaultAnswer::Code(code), Commit::After);
        let (status, sync) = world.post("/syncs", &carts());
        assert_eq!((status, &sync["list"]["ours"]), (201, &json!(true)), "{code}: {sync}");
        assert_eq!(world.list_names().len(), 3);
    }
}

#[test]
fn a_list_is_ours_by_the_id_of_its_sync_and_by_nothing_else() {
    let world = World::new();
    let (_, first) = world.post("/syncs", &carts());
    let id = first["id"].as_str().expect("an id");
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({})).0, 200);
    // Made by us, for another sync, which is over: it is a list like any other.
    let (status, problem) = world.post("/syncs", &carts());
    assert_eq!((status, &problem["existing_lists"][0]["id"]), (409, &first["list"]["id"]));
}

#[test]
fn an_unknown_outcome_of_a_name_with_a_comma_is_found_in_the_folder() {
    let world = World::new();
    fault(&world, FaultAnswer::Html, Commit::After);
    let (status, sync) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"name": "Carts, new"}}));
    assert_eq!((status, &sync["list"]["ours"]), (201, &json!(true)), "{sync}");
    assert_eq!(world.list_names().len(), 3);
}

#[test]
fn the_guard_of_a_sync_is_set_with_it() {
    let world = World::new();
    let (_, sync) = world.post("/syncs", &carts());
    let usual = json!({"removals_percent": 30, "removals_at_least": 100, "additions_at_least": 5000});
    assert_eq!(sync["guard"], usual);
    let mut body = json!({"audience_id": "aam:103", "list": {"id": 1001}, "guard": {"removals_percent": 5}});
    let (status, sync) = world.post("/syncs", &body);
    assert_eq!(
        (status, &sync["guard"]["removals_percent"], &sync["guard"]["removals_at_least"]),
        (201, &json!(5), &json!(100))
    );
    body["guard"] = json!({"removals_percent": 101, "removals_at_least": "1", "removals": 1});
    let (status, problem) = world.post("/syncs", &body);
    let pointers: Vec<&Value> = problem["errors"].as_array().expect("errors").iter().map(|e| &e["pointer"]).collect();
    assert_eq!(status, 400);
    assert_eq!(pointers, ["/guard/removals_percent", "/guard/removals_at_least", "/guard/removals"]);
    body["guard"] = json!("strict");
    assert_eq!(world.post("/syncs", &body).1["errors"][0]["pointer"], "/guard");
}

#[test]
fn a_name_with_a_comma_is_found_although_marketo_cannot() {
    let world = World::new();
    let body = json!({"audience_id": "aam:101", "list": {"name": "Carts, new"}});
    let (status, sync) = world.post("/syncs", &body);
    assert_eq!(status, 201, "{sync}");
    let (status, problem) = world.post("/syncs", &json!({"audience_id": "aam:103", "list": {"name": "Carts, new"}}));
    assert_eq!((status, &problem["existing_lists"][0]["id"]), (409, &sync["list"]["id"]));
}

#[test]
fn an_audience_feeds_a_list_once_until_it_is_stopped() {
    let world = World::new();
    let (_, first) = world.post("/syncs", &carts());
    let list = first["list"]["id"].clone();
    for body in [carts(), json!({"audience_id": "aam:101", "list": {"id": list}})] {
        let (status, problem) = world.post("/syncs", &body);
        assert_eq!((status, &problem["existing_sync"]["id"]), (409, &first["id"]), "{problem}");
    }
    let body = json!({"audience_id": "aam:101", "list": {"id": list}});
    assert_eq!(
        world.post("/syncs", &json!({"audience_id": "aam:103", "list": {"id": list}})).0,
        201,
        "another audience"
    );
    let id = first["id"].as_str().expect("an id");
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({})).0, 200);
    assert_eq!(world.post("/syncs", &body).0, 201);
    assert_eq!(world.post("/syncs", &body).0, 409);
}

#[test]
fn the_same_key_answers_the_same() {
    let world = World::new();
    let first = world.post_once("k1", &carts());
    assert_eq!(first.0, 201);
    assert_eq!(world.post_once("k1", &carts()), first);
    assert_eq!(world.list_names().len(), 3);
    assert_eq!(world.post_once("k1", &json!({"audience_id": "aam:101", "list": {"id": 1001}})).0, 422);
    // A refusal, too.
    let taken = world.post_once("k2", &json!({"audience_id": "aam:103", "list": {"name": "VIP"}}));
    assert_eq!(taken.0, 409);
    assert_eq!(world.post_once("k2", &json!({"audience_id": "aam:103", "list": {"name": "VIP"}})), taken);
    assert_eq!(world.post_once("not visible", &carts()).0, 400);
}

/// The process dies between the making of the list and the second write of the row, and the client tries again.
fn crash_and_retry(world: &World) -> (u16, Value) {
    world.outside.die_after_list.store(true, Ordering::Relaxed);
    let (status, _) = world.post_once("k", &carts());
    assert_eq!(status, 503);
    assert_eq!(world.list_names().len(), 3, "the list was made");
    world.outside.revive();
    // The call that it died with keeps others from Marketo for as long as it may take.
    world.wait(LEASE_MS);
    world.post_once("k", &carts())
}

#[test]
fn l_list_made_then_crash_then_the_same_key_gives_one_list() {
    let world = World::new();
    let (status, sync) = crash_and_retry(&world);
    assert_eq!((status, &sync["list"]["ours"]), (201, &json!(true)), "{sync}");
    assert_eq!(world.list_names().len(), 3);
    assert_eq!(world.get("/syncs").1.as_array().expect("syncs").len(), 1);
    assert!(world.rows("creating/").is_empty());
}

#[test]
fn l_without_its_guard_the_retry_meets_a_list_that_nobody_knows() {
    let world = World::new();
    take_out(Some(Guard::RowBeforeList));
    let (status, problem) = crash_and_retry(&world);
    take_out(None);
    assert_eq!(status, 409, "{problem}");
}

#[test]
fn a_crash_before_the_answer_is_finished_by_the_schedule() {
    let world = World::new();
    world.outside.die_after_list.store(true, Ordering::Relaxed);
    assert_eq!(world.post("/syncs", &carts()).0, 503);
    world.outside.revive();
    world.wait(LEASE_MS);
    world.rung();
    world.resume();
    let (_, syncs) = world.get("/syncs");
    assert_eq!((&syncs[0]["status"], &syncs[0]["list"]["ours"]), (&json!("active"), &json!(true)));
    assert!(world.rung().iter().any(|(kind, _)| kind == "audience"));
    assert_eq!(world.list_names().len(), 3);
}

#[test]
fn an_unknown_outcome_that_took_effect_is_found_at_once() {
    let world = World::new();
    fault(&world, FaultAnswer::Http502, Commit::After);
    let (status, sync) = world.post("/syncs", &carts());
    assert_eq!((status, &sync["list"]["ours"]), (201, &json!(true)), "{sync}");
}

#[test]
fn an_unknown_outcome_that_lands_late_makes_one_list() {
    let world = World::new();
    fault(&world, FaultAnswer::Drop, Commit::Late { after_ms: 170_000 });
    let begun = world.deps.now();
    let (status, sync) = world.post_once("k", &carts());
    assert_eq!((status, &sync["status"]), (202, &json!("creating")));
    assert!(world.deps.now() < begun + 1_000, "it waits for itself: {}", world.deps.now() - begun);
    assert_eq!(world.get("/status").1["creating"], 1);
    for _ in 0..4 {
        world.wait(60_000);
        world.resume();
    }
    assert_eq!(world.list_names().len(), 3);
    let (status, again) = world.post_once("k", &carts());
    assert_eq!((status, &again["id"], &again["status"]), (201, &sync["id"], &json!("active")));
    let creates =
        world.outside.marketo.lock().expect("unlocked").calls().iter().filter(|c| c.kind == Kind::AssetCreate).count();
    assert_eq!(creates, 1, "asked once");
}

#[test]
fn an_unknown_outcome_without_effect_is_tried_again_when_it_can_no_longer_land() {
    let world = World::new();
    fault(&world, FaultAnswer::Code(604), Commit::Before);
    let (status, sync) = world.post("/syncs", &carts());
    assert_eq!(status, 202);
    world.wait(60_000);
    world.resume();
    assert_eq!(world.list_names().len(), 2, "it might still land");
    world.wait(200_000);
    world.resume();
    assert_eq!(world.list_names().len(), 3);
    let (_, now) = world.get(&format!("/syncs/{}", sync["id"].as_str().expect("an id")));
    assert_eq!((&now["status"], &now["list"]["ours"]), (&json!("active"), &json!(true)));
}

#[test]
fn a_name_that_is_taken_meanwhile_stops_the_sync_and_says_why() {
    let world = World::new();
    fault(&world, FaultAnswer::Code(604), Commit::Before);
    let (status, sync) = world.post_once("k", &carts());
    assert_eq!(status, 202);
    let fine = json!({"audience_id": "aam:103", "list": {"name": "Carts"}});
    assert_eq!(world.post("/syncs", &fine).0, 201);
    world.wait(310_000);
    world.resume();
    let (_, now) = world.get(&format!("/syncs/{}", sync["id"].as_str().expect("an id")));
    assert_eq!(now["status"], "stopped_keeping");
    assert!(now["why"].as_str().expect("words").contains("name"), "{now}");
    assert_eq!(world.post_once("k", &carts()).0, 409);
    assert_eq!(world.list_names().len(), 3);
}

/// Lets the process die after each of its calls in turn. `again`: what follows then. Answers, for each, how many
/// lists and how many active syncs there are.
fn dying_everywhere(body: &Value, again: impl Fn(&World)) -> Vec<(usize, usize)> {
    let mut ends = Vec::new();
    for calls in 0.. {
        let world = World::new();
        world.handled(BellKey::identity(&munchkin()));
        world.outside.dies_after(calls);
        world.post_once("k", body);
        let done = world.outside.is_alive();
        world.outside.revive();
        again(&world);
        let (_, syncs) = world.get("/syncs");
        let syncs = syncs.as_array().expect("syncs");
        let active: Vec<&Value> = syncs.iter().filter(|sync| sync["status"] == "active").collect();
        assert_eq!(active.len(), syncs.len(), "after {calls} calls: {syncs:?}");
        assert!(world.rows("creating/").is_empty() || active.is_empty(), "after {calls} calls");
        if !active.is_empty() {
            // Marked; a ring that was lost is rung by the sweep.
            let dirty = &world.get("/status").1["dirty"];
            assert_eq!(*dirty, json!({"identity": 1, "edges": 0, "audience": 1, "list": 1}), "after {calls} calls");
        }
        ends.push((world.list_names().len() - 2, active.len()));
        if done {
            return ends;
        }
    }
    ends
}

#[test]
fn dying_anywhere_and_trying_again_makes_one_list_and_one_sync() {
    for (body, lists) in [(carts(), 1), (json!({"audience_id": "aam:101", "list": {"id": 1001}}), 0)] {
        let again = |world: &World| {
            // A create that may still land is waited for.
            world.wait(310_000);
            assert_eq!(world.post_once("k", &body).0, 201);
            assert_eq!(world.post_once("k", &body).0, 201);
        };
        let ends = dying_everywhere(&body, again);
        assert!(ends.len() > 20, "{}", ends.len());
        assert!(ends.iter().all(|end| *end == (lists, 1)), "{ends:?}");
    }
}

#[test]
fn dying_anywhere_leaves_nothing_that_the_schedule_does_not_finish() {
    let again = |world: &World| {
        world.wait(310_000);
        world.resume();
    };
    let ends = dying_everywhere(&carts(), again);
    // Before the row is written nothing was done, and after it everything is.
    let begun = ends.iter().position(|end| *end == (1, 1)).expect("made");
    assert!(begun > 3 && ends[..begun].iter().all(|end| *end == (0, 0)), "{ends:?}");
    assert!(ends[begun..].iter().all(|end| *end == (1, 1)), "{ends:?}");
}

#[test]
fn a_sync_on_its_way_can_be_stopped() {
    let world = World::new();
    fault(&world, FaultAnswer::Code(604), Commit::Before);
    let (status, sync) = world.post("/syncs", &carts());
    assert_eq!(status, 202);
    let id = sync["id"].as_str().expect("an id");
    assert_eq!(world.post(&format!("/syncs/{id}/pause"), &json!({})).0, 409);
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({})).0, 200);
    world.wait(310_000);
    world.resume();
    assert_eq!(world.row(id).expect("a row").status, Status::StoppedKeeping);
    assert_eq!(world.list_names().len(), 2);
    assert!(world.rows("creating/").is_empty());
}
