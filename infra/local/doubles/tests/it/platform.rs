//! Experience Platform's library, and what is changed in both libraries.

use ::http::Request;
use doubles::adobe::{Adobe, Lifecycle, Settings};
use serde_json::{Value, json};
use world::types::{Audience, Library, PlatformFolder, Segment};

use crate::adobe::library;
use crate::rig::{START, ecid};

const ORG: &str = "0123456789ABCDEF01234567@AdobeOrg";
const HEADERS: [(&str, &str); 2] = [("x-gw-ims-org-id", ORG), ("x-sandbox-name", "prod")];

/// The id of the n-th audience or folder.
pub fn uuid(n: u64) -> String {
    format!("{n:08}-2222-4333-8444-555555555555")
}

pub fn audiences(n: u64) -> Library {
    let audience = |n| Audience { id: uuid(n), name: format!("Audience {n}"), external: n == 3 };
    let folder = |n, parent: Option<u64>| PlatformFolder {
        id: uuid(n),
        parent_id: parent.map(uuid),
        name: format!("Folder {n}"),
    };
    Library {
        audiences: (1..=n).map(audience).collect(),
        platform_folders: vec![folder(71, None), folder(72, Some(71)), folder(73, None)],
        ..library()
    }
}

fn token(core: &mut Adobe) -> String {
    let request = Request::post("/ims/token/v3").header("content-type", "application/x-www-form-urlencoded");
    let form = "grant_type=client_credentials&client_id=sample-client&client_secret=sample-secret&scope=openid";
    let answer = core.handle(START, &request.body(form.into()).expect("a request"));
    let answer: Value = serde_json::from_slice(answer.body()).expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

fn call(core: &mut Adobe, uri: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let token = token(core);
    let mut request =
        Request::get(uri).header("authorization", format!("Bearer {token}")).header("x-api-key", "sample-client");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = core.handle(START, &request.body(Vec::new()).expect("a request"));
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).expect("JSON"))
}

fn get(core: &mut Adobe, uri: &str) -> (u16, Value) {
    call(core, uri, &HEADERS)
}

fn names(page: &Value) -> Vec<&str> {
    page["children"].as_array().expect("children").iter().filter_map(|row| row["name"].as_str()).collect()
}

#[test]
fn audiences_come_in_pages_that_name_the_next_one() {
    let mut core = Adobe::new(Settings::default(), audiences(3), START);
    let (status, first) = get(&mut core, "/data/core/ups/audiences?start=0&limit=2&sort=name:asc");
    assert_eq!((status, names(&first)), (200, vec!["Audience 1", "Audience 2"]));
    assert_eq!(first["_page"], json!({"totalCount": 3, "pageSize": 2, "next": "1"}));
    assert_eq!(first["_links"]["next"]["href"], "@/audiences?start=1&limit=2&totalCount=3");
    let (_, last) = get(&mut core, "/data/core/ups/audiences?start=1&limit=2&sort=name:asc");
    assert_eq!((names(&last), &last["_page"]["next"]), (vec!["Audience 3"], &Value::Null));
    assert_eq!(names(&get(&mut core, "/data/core/ups/audiences").1).len(), 3);
    let (_, found) = get(&mut core, &format!("/data/core/ups/audiences?property=audienceId=={}", uuid(2)));
    assert_eq!(names(&found), ["Audience 2"]);
    for bad in ["limit=0", "start=x", "sort=colour:asc", "sort=name:up", "property=name==A"] {
        assert_eq!(get(&mut core, &format!("/data/core/ups/audiences?{bad}")).0, 400, "{bad}");
    }

    let settings = Settings { openapi: true, ..Settings::default() };
    let mut core = Adobe::new(settings, audiences(3), START);
    let (_, first) = get(&mut core, "/data/core/ups/audiences?limit=2");
    assert_eq!((&first["_page"]["next"], &first["children"][0]["lifecycle"]), (&json!(1), &json!("published")));
    assert!(first["children"][0]["lifecycleState"].is_null());
}

#[test]
fn an_audience_tells_its_origin_and_its_times() {
    let mut core = Adobe::new(Settings::default(), audiences(3), START);
    let (status, one) = get(&mut core, &format!("/data/core/ups/audiences/{}", uuid(1)));
    assert_eq!((status, &one["type"], &one["creationTime"]), (200, &json!("SegmentDefinition"), &json!(START)));
    assert_eq!((&one["lifecycleState"], &one["imsOrgId"]), (&json!("published"), &json!(ORG)));
    let (_, three) = get(&mut core, &format!("/data/core/ups/audiences/{}", uuid(3)));
    // Microseconds, as the sample of an audience that was brought in has them.
    assert_eq!((&three["type"], &three["creationTime"]), (&json!("ExternalSegment"), &json!(START * 1_000)));
    assert_eq!(get(&mut core, &format!("/data/core/ups/audiences/{}", uuid(4))).0, 404);
}

#[test]
fn a_call_names_key_organisation_and_sandbox() {
    let settings = Settings { org_id: Some(ORG.to_owned()), ..Settings::default() };
    let mut core = Adobe::new(settings, audiences(1), START);
    let uri = "/data/core/ups/audiences?limit=1";
    assert_eq!(call(&mut core, uri, &HEADERS).0, 200);
    assert_eq!(call(&mut core, uri, &HEADERS[..1]).0, 400);
    assert_eq!(call(&mut core, uri, &HEADERS[1..]).0, 400);
    assert_eq!(call(&mut core, uri, &[HEADERS[0], ("x-sandbox-name", "dev")]).0, 403);
    let other = ("x-gw-ims-org-id", "0123456789ABCDEF01234568@AdobeOrg");
    assert_eq!(call(&mut core, uri, &[other, HEADERS[1]]).0, 403);
    let keyless = Request::get(uri).header(HEADERS[0].0, ORG).header("x-sandbox-name", "prod").body(Vec::new());
    assert_eq!(core.handle(START, &keyless.expect("a request")).status(), 403);
    core.expire_tokens();
    let stale = Request::get(uri).header("x-api-key", "sample-client").header("authorization", "Bearer old");
    assert_eq!(core.handle(START, &stale.body(Vec::new()).expect("a request")).status(), 401);

    core.refuse_platform(Some("UPAPI-113740"));
    let (status, refused) = call(&mut core, uri, &HEADERS);
    assert_eq!((status, &refused["error_code"]), (403, &json!("UPAPI-113740")));
    assert_eq!(call(&mut core, "/v1/segments/101", &[]).0, 200, "Audience Manager has other rights");
    core.refuse_platform(None);
    core.refuse_manager(true);
    assert_eq!(call(&mut core, "/v1/folders/segments/", &[]).0, 403);
    assert_eq!(call(&mut core, uri, &HEADERS).0, 200);
    core.refuse_manager(false);
    assert_eq!(call(&mut core, "/v1/folders/segments/", &[]).0, 200);
}

#[test]
fn folders_are_walked_from_the_root() {
    for openapi in [false, true] {
        let mut core = Adobe::new(Settings { openapi, ..Settings::default() }, audiences(1), START);
        let (status, root) = get(&mut core, "/unifiedfolders/folders/segment/root");
        assert_eq!((status, &root["noun"], &root["parentId"]), (200, &json!("segment"), &Value::Null));
        assert_eq!(root["children"].is_array(), !openapi, "its description has no children there");
        let root = root["id"].as_str().expect("an id").to_owned();
        let (_, top) = get(&mut core, &format!("/unifiedfolders/folders/segment/{root}/subfolders"));
        assert_eq!(names(&top), ["Folder 71", "Folder 73"]);
        assert_eq!(top["children"][0]["parentId"], json!(root));
        let (_, below) = get(&mut core, &format!("/unifiedfolders/folders/segment/{}/subfolders", uuid(71)));
        assert_eq!((names(&below), &below["children"][0]["parentId"]), (vec!["Folder 72"], &json!(uuid(71))));
        let (_, none) = get(&mut core, &format!("/unifiedfolders/folders/segment/{}/subfolders", uuid(72)));
        assert_eq!(none["children"], json!([]));
        assert_eq!(get(&mut core, &format!("/unifiedfolders/folders/segment/{}", uuid(74))).0, 404);
    }
}

#[test]
fn segments_are_made_renamed_put_to_rest_and_deleted() {
    let mut core = Adobe::new(Settings::default(), library(), START);
    assert!(core.set_member(101, &ecid(1), true) && core.set_member(102, &ecid(1), true));
    assert!(core.rename_segment(START + 5, 101, "Another name"));
    let (_, shown) = get(&mut core, "/v1/segments/101");
    assert_eq!((&shown["name"], &shown["updateTime"]), (&json!("Another name"), &json!(START + 5)));
    assert!(core.set_active(START + 6, 102, false));
    assert_eq!(get(&mut core, "/v1/segments/102").1["status"], "INACTIVE");
    let rows = |page: &Value| page.as_array().map(Vec::len);
    assert_eq!(rows(&get(&mut core, "/v1/segments/?status=ACTIVE").1), Some(11));
    assert!(core.set_active(START + 7, 102, true));
    assert_eq!(get(&mut core, "/v1/segments/102").1["status"], "ACTIVE");
    assert!(core.delete_segment(101));
    assert_eq!(get(&mut core, "/v1/segments/101").0, 404);
    assert_eq!(rows(&get(&mut core, "/v1/segments/").1), Some(11));
    assert!(!core.is_member(101, &ecid(1)) && core.is_member(102, &ecid(1)));
    let new = || Segment { sid: 120, folder_id: 1, name: "New".to_owned() };
    assert!(core.add_segment(START + 8, new()) && !core.add_segment(START + 9, new()));
    assert_eq!(get(&mut core, "/v1/segments/120").1["name"], "New");
    assert!(
        !core.rename_segment(START, 101, "Gone") && !core.delete_segment(101) && !core.set_active(START, 101, true)
    );
}

#[test]
fn audiences_are_made_renamed_moved_on_and_deleted() {
    let mut core = Adobe::new(Settings::default(), audiences(2), START);
    let uri = format!("/data/core/ups/audiences/{}", uuid(1));
    assert!(core.rename_audience(START + 5_000, &uuid(1), "Another name"));
    assert!(core.set_lifecycle(START + 6_000, &uuid(1), Lifecycle::Archived));
    let (_, shown) = get(&mut core, &uri);
    assert_eq!((&shown["name"], &shown["lifecycleState"]), (&json!("Another name"), &json!("archived")));
    assert_eq!(shown["updateTime"], json!(START + 6_000));
    let (_, latest) = get(&mut core, "/data/core/ups/audiences?sort=updateTime:desc&limit=1");
    assert_eq!(names(&latest), ["Another name"]);
    assert!(core.add_ecid(START, 1, &ecid(1)) && core.set_profile(START, 1, &uuid(1), true));
    assert!(core.delete_audience(&uuid(1)));
    assert_eq!(get(&mut core, &uri).0, 404);
    assert!(core.audience_members(&uuid(1)).is_empty());
    assert!(!core.set_profile(START, 1, &uuid(1), true) && !core.delete_audience(&uuid(1)));
    let new = Audience { id: uuid(9), name: "New".to_owned(), external: false };
    assert!(core.add_audience(START, new.clone()) && !core.add_audience(START, new));
    assert_eq!(names(&get(&mut core, "/data/core/ups/audiences").1), ["Audience 2", "New"]);
}

#[test]
fn all_ecids_of_a_profile_share_its_audiences() {
    let mut core = Adobe::new(Settings::default(), audiences(2), START);
    assert!(!core.add_ecid(START, 7, "123"));
    assert!(core.add_ecid(START, 7, &ecid(1)) && core.set_profile(START, 7, &uuid(1), true));
    assert!(core.add_ecid(START, 7, &ecid(2)) && core.add_ecid(START, 8, &ecid(2)));
    assert_eq!(core.audience_members(&uuid(1)), [ecid(1), ecid(2)].into());
    assert_eq!((core.profiles_of(&ecid(2)), core.new_profile()), (vec![7, 8], 9));
    assert!(core.set_profile(START, 7, &uuid(1), false));
    assert!(core.audience_members(&uuid(1)).is_empty());
    let again = Adobe::from_state(Settings::default(), core.state().clone());
    assert_eq!(again.profiles_of(&ecid(1)), [7]);
}
