//! The audience library: both of Adobe's in one tree.

use std::sync::atomic::Ordering;

use domain::AudienceId;
use ports::Table;
use serde_json::{Value, json};
use state::audience::{Head, head_key};

use crate::support::{DRAFT, PLATFORM, PLATFORM_FOLDER, START, World, munchkin};

fn manager() -> Vec<Value> {
    let row = |id: &str, parent: Value, name: &str| json!({"id": id, "parent_id": parent, "name": name, "origin": "Audience Manager"});
    vec![row("aam:1", Value::Null, "Retail"), row("aam:2", json!("aam:1"), "Shop")]
}

#[test]
fn audience_manager_alone_is_browsed() {
    let world = World::new();
    assert_eq!(world.get("/folders").1, Value::Array(manager()));
    for id in ["2", "aam:2"] {
        let (_, audiences) = world.get(&format!("/folders/{id}/audiences"));
        assert_eq!((&audiences[0]["audience_id"], &audiences[0]["size"]), (&json!("aam:101"), &json!(7)));
        assert_eq!(audiences[0]["origin"], "Audience Manager");
        assert_eq!((&audiences[1]["delivered"], &audiences[1]["size"]), (&json!(false), &Value::Null));
        assert_eq!(audiences[0]["delivered_at"], "2026-11-20T00:00:00Z");
    }
    assert_eq!(world.get("/folders/1/audiences").1, json!([]));
    for unknown in ["9", "x", "aam:9", "aam:x", "web:1", "aep:root"] {
        assert_eq!(world.get(&format!("/folders/{unknown}/audiences")).0, 404, "{unknown}");
    }
    assert!(world.get("/list-folders").1.as_array().expect("folders").iter().any(|folder| folder["id"] == 12));
}

#[test]
fn both_libraries_stand_in_one_tree_marked_with_their_origin() {
    let world = World::with_platform();
    let row = |id: &str, parent: Value, name: &str| json!({"id": id, "parent_id": parent, "name": name, "origin": "Experience Platform"});
    let folder = format!("aep:{PLATFORM_FOLDER}");
    let mut tree = manager();
    tree.push(row("aep:root", Value::Null, "Experience Platform"));
    tree.push(row(&folder, json!("aep:root"), "Europe"));
    assert_eq!(world.get("/folders").1, Value::Array(tree));
    // Published audiences stand at the top: no API tells which folder one is in.
    let (_, audiences) = world.get("/folders/aep:root/audiences");
    let id = format!("aep:{PLATFORM}");
    assert_eq!(
        audiences,
        json!([{
            "audience_id": id, "name": "Loyal", "description": "", "origin": "Experience Platform",
            "delivered": false, "size": null, "delivered_at": null,
        }])
    );
    let audience = AudienceId::parse(&id).expect("an audience");
    let head = Head::new(audience.clone(), START);
    world.store(Table::Audiences, head_key(&munchkin(), &audience), &head);
    assert_eq!(world.get("/folders/aep:root/audiences").1[0]["delivered"], true);
    assert_eq!(world.get(&format!("/folders/{folder}/audiences")).1, json!([]));
    assert_eq!(world.get("/folders/aep:nowhere/audiences").0, 404);
    assert_eq!(world.get("/folders/2/audiences").1[0]["audience_id"], "aam:101");
}

#[test]
fn a_library_that_does_not_answer_does_not_hide_the_other() {
    let world = World::with_platform();
    world.adobe().refuse_platform(Some("UPAPI-113752"));
    let (status, folders) = world.get("/folders");
    let folders = folders.as_array().expect("an array").clone();
    assert_eq!((status, &folders[..2]), (200, &manager()[..]));
    let away = |folder: &Value| (folder["name"].clone(), folder["unreachable"].clone());
    assert_eq!((folders.len(), away(&folders[2])), (3, (json!("Experience Platform"), json!(true))));
    assert!(folders[..2].iter().all(|folder| folder.get("unreachable").is_none()));
    let (status, problem) = world.get("/folders/aep:root/audiences");
    let detail = problem["detail"].as_str().expect("words");
    assert!(status == 503 && detail.contains("UPAPI-113752") && detail.contains("role"), "{problem}");

    world.adobe().refuse_platform(None);
    world.outside.no_manager.store(true, Ordering::Relaxed);
    let (status, folders) = world.get("/folders");
    assert_eq!((status, &folders[0]["id"]), (200, &json!("aam:root")));
    assert_eq!((away(&folders[0]), &folders[1]["id"]), ((json!("Audience Manager"), json!(true)), &json!("aep:root")));
    assert_eq!(world.get("/folders/aam:root/audiences").0, 503);
    assert_eq!(world.get("/folders/aep:root/audiences").1[0]["name"], "Loyal");
    // Where it is all there is, the answer says so.
    let world = World::new();
    world.outside.no_manager.store(true, Ordering::Relaxed);
    assert_eq!(world.get("/folders").0, 503);
}

#[test]
fn a_sync_follows_an_audience_of_either_library() {
    let world = World::with_platform();
    let body = |audience: &str| json!({"audience_id": audience, "list": {"id": 1001}});
    let (status, sync) = world.post("/syncs", &body(&format!("aep:{PLATFORM}")));
    assert_eq!((status, &sync["audience_name"]), (201, &json!("Loyal")), "{sync}");
    assert_eq!(
        sync["not_delivered"]["sentence"],
        "no delivery has named this audience yet: activate this audience to the destination"
    );
    let unknown = "aep:99999999-2222-3333-4444-555555555555";
    let (status, problem) = world.post("/syncs", &body(unknown));
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/audience_id")));
    assert!(problem["detail"].as_str().expect("words").starts_with("Experience Platform has no audience for"));
    let (status, problem) = world.post("/syncs", &body("aam:999"));
    assert_eq!(status, 422);
    assert!(problem["detail"].as_str().expect("words").starts_with("Audience Manager has no segment for aam:999"));
    // One that is not published yet is there.
    assert_eq!(world.post("/syncs", &body(&format!("aep:{DRAFT}"))).0, 201);

    let (status, problem) = World::new().post("/syncs", &body(&format!("aep:{PLATFORM}")));
    assert!(status == 422 && problem["detail"].as_str().expect("words").contains("AdobeAepSandbox"), "{problem}");
}

#[test]
fn a_folder_of_many_audiences_is_answered_page_by_page() {
    let world = World::new();
    let all: Vec<Value> = world.get("/folders/2/audiences").1.as_array().expect("audiences").clone();
    assert!(all.len() > 1);
    let mut seen = Vec::new();
    let mut path = Some("/folders/2/audiences?limit=1".to_owned());
    while let Some(asked) = path {
        let answer = world.ask("GET", &asked, &[], b"");
        let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(page.as_array().map(Vec::len), Some(1), "{asked}");
        seen.extend(page.as_array().cloned().unwrap_or_default());
        let link = answer.headers.iter().find(|(name, _)| *name == "link");
        path = link.map(|(_, link)| link.trim_start_matches('<').split('>').next().expect("an address").to_owned());
    }
    assert_eq!(seen, all);
    assert_eq!(world.get("/folders/2/audiences?limit=0").0, 400);
}
