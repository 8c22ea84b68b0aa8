//! What Adobe may answer about its folders and audiences.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use adobe::{Audience, PlatformFolder};
use domain::{AudienceId, OrgId};
use futures::executor::block_on;
use http::{Request, Response};
use ports::Failure;
use serde_json::{Value, json};
use state::Deps;

use crate::support::{Outside, world};

const TOKEN: &str = "/ims/token/v3";

fn org() -> OrgId {
    OrgId::parse("0123456789ABCDEF01234567@AdobeOrg").expect("an organisation")
}

fn uuid(n: usize) -> String {
    format!("{n:08x}-2222-3333-4444-555555555555")
}

fn id(n: usize) -> AudienceId {
    AudienceId::aep(&uuid(n)).expect("a UUID")
}

fn response(status: u16, body: &Value) -> Response<Vec<u8>> {
    Response::builder().status(status).body(body.to_string().into_bytes()).expect("a response")
}

/// An Adobe that gives tokens, and answers the rest so: path and parameters to status and body.
fn adobe(
    sandbox: &str,
    mut answer: impl FnMut(&str, &BTreeMap<String, String>) -> (u16, Value) + Send + 'static,
) -> (Deps, Arc<Outside>) {
    world(sandbox, move |_, request: &Request<Vec<u8>>| {
        if request.uri().path() == TOKEN {
            return response(200, &json!({"access_token": "eyJ.sample", "expires_in": 86_399}));
        }
        if request.uri().host() != Some("adobe.test") {
            let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header("x-gw-ims-org-id"), Some("0123456789ABCDEF01234567@AdobeOrg"));
            assert_eq!(header("x-sandbox-name"), Some("prod"));
            assert_eq!(header("x-api-key"), Some("sample-client"));
        }
        let params = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned();
        let (status, body) = answer(request.uri().path(), &params.collect());
        response(status, &body)
    })
}

fn asked(outside: &Outside) -> Vec<String> {
    let asked = outside.asked.lock().expect("no panic");
    asked.iter().filter(|uri| !uri.ends_with(TOKEN)).cloned().collect()
}

fn row(n: usize) -> Value {
    json!({
        "id": uuid(n), "audienceId": uuid(n), "name": format!("Audience {n}"), "description": "of a guide",
        "creationTime": 1_767_323_045_000_u64, "type": "SegmentDefinition", "lifecycleState": "published",
        "originName": "REAL_TIME_CUSTOMER_PROFILE", "namespace": "AEPSegments",
    })
}

fn audience(n: usize) -> Audience {
    Audience { id: id(n), name: format!("Audience {n}"), description: "of a guide".into(), published: true }
}

/// How an answer names its next page.
#[derive(Debug, Clone, Copy)]
enum Next {
    Text,
    Number,
    Link,
    Missing,
    /// Always another one, even after the last.
    Endless,
}

#[test]
fn pages_are_followed_however_the_next_one_is_named() {
    const ALL: usize = 230;
    for next in [Next::Text, Next::Number, Next::Link, Next::Missing, Next::Endless] {
        let (deps, outside) = adobe("prod", move |path, params| {
            assert_eq!(path, "/data/core/ups/audiences");
            let number = |name: &str| params[name].parse::<usize>().expect("a number");
            let (start, limit) = (number("start"), number("limit"));
            let rows: Vec<Value> = (start..ALL.min(start + limit)).map(row).collect();
            let after = start + rows.len();
            let mut page = json!({"totalCount": ALL, "pageSize": rows.len()});
            let mut links = json!({});
            match next {
                Next::Text if after < ALL => page["next"] = json!(after.to_string()),
                Next::Number if after < ALL => page["next"] = json!(after),
                Next::Link if after < ALL => {
                    links["next"] =
                        json!({"href": format!("@/audiences?start={after}&limit={limit}&totalCount={ALL}")});
                }
                Next::Endless => page["next"] = json!((after + 1).to_string()),
                _ => {}
            }
            (200, json!({"children": rows, "_page": page, "_links": links}))
        });
        let found = block_on(adobe::audiences(&deps, &org())).expect("audiences");
        let pages = asked(&outside).len();
        if matches!(next, Next::Endless) {
            assert!(pages <= 4, "{pages} pages");
        } else {
            assert_eq!((found, pages), ((0..ALL).map(audience).collect::<Vec<_>>(), 3), "{next:?}");
        }
    }
}

#[test]
fn a_cursor_that_counts_pages_and_one_that_stands_still_both_end() {
    // As in the guide's example: the second page of two rows is named "1".
    let (deps, outside) = adobe("prod", |_, params| {
        let rows: Vec<Value> = if params["start"] == "0" { (0..2).map(row).collect() } else { vec![row(2)] };
        (200, json!({"children": rows, "_page": {"totalCount": 3, "pageSize": 2, "next": "1"}}))
    });
    assert_eq!(block_on(adobe::audiences(&deps, &org())).expect("audiences").len(), 3);
    assert_eq!(asked(&outside).len(), 2);
    let (deps, outside) = adobe("prod", |_, _| (200, json!({"children": [row(0)], "_page": {"next": "1"}})));
    assert_eq!(block_on(adobe::audiences(&deps, &org())).expect("audiences"), [audience(0)]);
    assert_eq!(asked(&outside).len(), 2, "a page that brings nothing new is the last one");
}

#[test]
fn drafts_and_the_like_are_marked_and_rows_without_a_uuid_left_out() {
    let (deps, _) = adobe("prod", |_, _| {
        let with = |n: usize, field: &str, value: &str| {
            let mut row = row(n);
            row["lifecycleState"] = Value::Null;
            row[field] = json!(value);
            row
        };
        // An ExternalSegment of the OpenAPI description: microseconds, and `lifecycle`.
        let mut external = with(3, "lifecycle", "published");
        external["creationTime"] = json!(1_767_323_045_000_000_u64);
        let rows = json!([
            with(0, "lifecycleState", "draft"),
            with(1, "lifecycle", "archived"),
            with(2, "description", "of a guide"),
            external,
            with(4, "id", "12345"),
        ]);
        (200, json!({"children": rows, "_page": {"totalCount": 5}}))
    });
    let found = block_on(adobe::audiences(&deps, &org())).expect("audiences");
    let published: Vec<(AudienceId, bool)> = found.into_iter().map(|one| (one.id, one.published)).collect();
    assert_eq!(published, [(id(0), false), (id(1), false), (id(2), true), (id(3), true)]);
}

#[test]
fn one_audience_is_there_or_not_and_anything_else_is_no_word_about_it() {
    for (status, body, expected) in [
        (200, row(7), Ok(Some(audience(7)))),
        (404, json!({"title": "Not found"}), Ok(None)),
        (500, json!({}), Err("HTTP 500")),
        (200, json!({"message": "maintenance"}), Err("something else")),
    ] {
        let (deps, outside) = adobe("prod", move |_, _| (status, body.clone()));
        let found = block_on(adobe::audience(&deps, &org(), &id(7)));
        match expected {
            Ok(expected) => assert_eq!(found.expect("an answer"), expected),
            Err(words) => {
                let failure = found.expect_err("a failure");
                assert!(matches!(failure, Failure::Retry { .. }) && failure.to_string().contains(words), "{failure}");
            }
        }
        assert_eq!(asked(&outside), [format!("http://platform.test/data/core/ups/audiences/{}", uuid(7))]);
    }
    for (status, body, there) in [(200, json!({"sid": "7", "name": "Seven"}), true), (404, json!({}), false)] {
        let (deps, outside) = adobe("", move |_, _| (status, body.clone()));
        let found = block_on(adobe::segment(&deps, 7)).expect("an answer");
        assert_eq!(found.map(|segment| segment.name), there.then(|| "Seven".to_owned()));
        assert_eq!(asked(&outside), ["http://adobe.test/v1/segments/7"]);
    }
    let (deps, _) = adobe("", |_, _| (200, json!([])));
    assert!(matches!(block_on(adobe::segment(&deps, 7)), Err(Failure::Retry { .. })));
}

#[test]
fn a_listing_that_is_not_there_is_not_an_empty_one() {
    let (deps, _) = adobe("prod", |_, _| (404, json!({})));
    assert!(matches!(block_on(adobe::audiences(&deps, &org())), Err(Failure::Retry { .. })));
    assert!(matches!(block_on(adobe::aep_folders(&deps, &org())), Err(Failure::Retry { .. })));
    assert!(matches!(block_on(adobe::segments(&deps)), Err(Failure::Retry { .. })));
    assert!(matches!(block_on(adobe::folders(&deps)), Err(Failure::Retry { .. })));
}

#[test]
fn what_is_forbidden_says_what_to_grant() {
    for code in ["UPAPI-113740", "UPAPI-113752"] {
        let body = json!({"type": "http://ns.adobe.com/x", "status": 403, "report": {"code": code}, "detail": "no"});
        let (deps, _) = adobe("prod", move |_, _| (403, body.clone()));
        let failure = block_on(adobe::audiences(&deps, &org())).expect_err("forbidden");
        let words = failure.to_string();
        assert!(matches!(failure, Failure::Outage { .. }), "{failure}");
        assert!(words.contains(code) && words.contains("role") && words.contains("\"prod\""), "{words}");
    }
    let (deps, _) = adobe("prod", |_, _| (403, json!({})));
    let words = block_on(adobe::segment(&deps, 7)).expect_err("forbidden").to_string();
    assert!(words.contains("HTTP 403: put the credential's technical account"), "{words}");
}

#[test]
fn a_token_that_is_refused_is_renewed_once() {
    let (deps, outside) = adobe("prod", |_, _| (401, json!({})));
    let failure = block_on(adobe::audience(&deps, &org(), &id(1))).expect_err("refused");
    assert!(matches!(failure, Failure::Outage { .. }), "{failure}");
    assert_eq!(asked(&outside).len(), 2);
    assert_eq!(outside.asked.lock().expect("no panic").len(), 4, "a token before each");
}

#[test]
fn without_a_sandbox_nothing_is_asked_and_everything_is_empty() {
    let (deps, outside) = adobe("", |_, _| (500, json!({})));
    assert!(!adobe::is_used(&deps));
    assert_eq!(block_on(adobe::audiences(&deps, &org())).expect("nothing"), []);
    assert_eq!(block_on(adobe::audience(&deps, &org(), &id(1))).expect("nothing"), None);
    assert_eq!(block_on(adobe::aep_folders(&deps, &org())).expect("nothing"), []);
    assert_eq!(asked(&outside), Vec::<String>::new());
}

#[test]
fn folders_are_read_level_by_level_and_a_circle_ends() {
    let (deps, outside) = adobe("prod", |path, _| {
        let folder = |id: &str, name: &str, children: Value| json!({"id": id, "name": name, "noun": "segment", "status": "IN_USE", "children": children});
        let children = match path.strip_prefix("/unifiedfolders/folders/segment/").expect("of segments") {
            "root/subfolders" => json!([folder("a", "Retail", json!([])), folder("b", "Empty", json!([]))]),
            // An audience by its id, a folder with one of its own, and the folder above once more.
            "a/subfolders" => json!([uuid(1), folder("c", "Shop", json!([row(2)])), folder("a", "Retail", json!([]))]),
            "b/subfolders" => return (404, json!({})),
            "c/subfolders" => json!([]),
            other => panic!("{other}"),
        };
        (200, folder("top", "root", children))
    });
    let folder = |id: &str, parent: Option<&str>, name: &str, audiences: &[usize]| PlatformFolder {
        id: id.into(),
        parent_id: parent.map(str::to_owned),
        name: name.into(),
        audiences: audiences.iter().map(|n| self::id(*n)).collect::<BTreeSet<_>>(),
    };
    assert_eq!(
        block_on(adobe::aep_folders(&deps, &org())).expect("folders"),
        [folder("a", None, "Retail", &[1]), folder("b", None, "Empty", &[]), folder("c", Some("a"), "Shop", &[2])]
    );
    assert_eq!(asked(&outside).len(), 4);
}

#[test]
fn a_smaller_page_of_segments_than_was_asked_for_is_not_the_last_one() {
    let (deps, outside) = adobe("", |_, params| {
        let page: usize = params["page"].parse().expect("a number");
        let rows: Vec<Value> = (page * 100..(page * 100 + 100).min(250)).map(|sid| json!({"sid": sid + 1})).collect();
        (200, json!({"list": rows, "total": 250, "page": page, "pageSize": 100}))
    });
    assert_eq!(block_on(adobe::segments(&deps)).expect("segments").len(), 250);
    assert_eq!(asked(&outside).len(), 3);
}
