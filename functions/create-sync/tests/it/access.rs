//! Who may do what.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use create_sync::{Caller, Needs, ROUTES, Request, Response, Role, SignIn, handle};
use futures::executor::block_on;
use lambda::HttpEvent;
use serde_json::{Value, json};

use crate::support::World;

fn access() -> lambda::Access {
    lambda::Access {
        authority: "https://id.example/pool".into(),
        audience: "api".into(),
        client_id: "console".into(),
        scope: "openid profile".into(),
        token_origin: "https://pool.auth.example".into(),
        claim: "cognito:groups".into(),
        operator: "operator".into(),
        viewer: "viewer".into(),
    }
}

/// Asks as the function does where tokens are asked for: by the claims that the authorizer hands on.
fn ask(world: &World, method: &str, path: &str, claims: Option<&[(&str, &str)]>) -> Response {
    let claims = claims.map(|claims| {
        claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    });
    let access = access();
    let request = Request {
        method: method.into(),
        path: path.into(),
        caller: Caller::of(Some(&access), claims.as_ref(), None),
        sign_in: SignIn::of(Some(&access)),
        ..Request::default()
    };
    block_on(handle(&world.deps, request, world.deps.now() + 30_000))
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).expect("JSON")
}

/// A path of the route.
fn path(pattern: &str) -> String {
    pattern.replace('*', "nothing")
}

const OPERATOR: &[(&str, &str)] = &[("sub", "olga"), ("cognito:groups", "[operator]")];
const VIEWER: &[(&str, &str)] = &[("sub", "vera"), ("cognito:groups", "[viewer]")];
const NOBODY: &[(&str, &str)] = &[("sub", "nora"), ("cognito:groups", "[everybody]")];

#[test]
fn every_control_route_refuses_whoever_shows_no_token() {
    let world = World::new();
    let mut public = Vec::new();
    for (method, pattern, needs) in ROUTES {
        let answer = ask(&world, method, &path(pattern), None);
        if needs == Needs::Nothing {
            assert_ne!(answer.status, 401, "{method} {pattern}");
            public.push(format!("{method} {pattern}"));
            continue;
        }
        assert_eq!(answer.status, 401, "{method} {pattern}");
        assert!(answer.headers.contains(&("www-authenticate", "Bearer".to_owned())), "{method} {pattern}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(ask(&world, method, &path(pattern), Some(NOBODY)).status, 403, "{method} {pattern}");
    }
    assert_eq!(public, ["GET /", "GET /console/config", "GET /console/*", "GET /openapi.json"]);
}

#[test]
fn a_viewer_looks_and_an_operator_changes() {
    for (method, pattern, needs) in ROUTES {
        // A world each: some of them change it.
        let world = World::new();
        let viewer = ask(&world, method, &path(pattern), Some(VIEWER));
        assert_eq!(viewer.status == 403, needs == Needs::Operator, "{method} {pattern}");
        if needs == Needs::Operator {
            assert_eq!(body(&viewer)["needs"], "operator", "{method} {pattern}");
        }
        let operator = ask(&world, method, &path(pattern), Some(OPERATOR));
        assert!(![401, 403].contains(&operator.status), "{method} {pattern}");
    }
    // Only what is named here may be asked with a POST by a viewer.
    let asks = ROUTES.iter().filter(|(method, _, needs)| *method != "GET" && *needs == Needs::Viewer);
    let asks: Vec<&str> = asks.map(|(_, pattern, _)| *pattern).collect();
    assert_eq!(asks, ["/syncs/preview", "/explain", "/syncs/*/download"]);
}

#[test]
fn everybody_learns_who_they_are() {
    let world = World::new();
    for (claims, name, role) in [(OPERATOR, "olga", "operator"), (VIEWER, "vera", "viewer")] {
        let answer = ask(&world, "GET", "/me", Some(claims));
        assert_eq!((answer.status, body(&answer)), (200, json!({"name": name, "role": role})));
    }
    let answer = ask(&world, "GET", "/me", Some(NOBODY));
    assert_eq!((answer.status, &body(&answer)["needs"]), (403, &json!("viewer")));
    // Where nobody is asked.
    assert_eq!(world.get("/me"), (200, json!({"name": "local", "role": "operator"})));
    assert_eq!(Caller::local().role, Role::Operator);
}

#[test]
fn the_console_learns_where_to_sign_in_and_nothing_secret() {
    let world = World::new();
    let answer = ask(&world, "GET", "/console/config", None);
    let expected = json!({
        "authority": "https://id.example/pool", "client_id": "console", "scope": "openid profile", "audience": "api",
    });
    assert_eq!((answer.status, &body(&answer)["auth"]), (200, &expected));
    let members: Vec<String> = body(&answer).as_object().expect("an object").keys().cloned().collect();
    assert_eq!(members, ["auth", "version"]);
    assert_eq!(world.get("/console/config").1["auth"], Value::Null);
    // It may connect there, and nowhere else.
    let policy = |response: &Response| {
        let found = response.headers.iter().find(|(name, _)| *name == "content-security-policy");
        found.expect("a policy").1.clone()
    };
    let page = policy(&ask(&world, "GET", "/", None));
    assert!(page.contains("connect-src 'self' https://id.example https://pool.auth.example;"), "{page}");
    assert!(policy(&world.ask("GET", "/", &[], &[])).contains("connect-src 'self';"));
}

#[test]
fn an_event_of_the_api_says_who_calls_by_its_claims_and_its_token_together() {
    let world = World::new();
    let payload = URL_SAFE_NO_PAD.encode(json!({"cognito:groups": ["everybody", "operator"]}).to_string());
    let token = format!("Bearer e30.{payload}.c2ln");
    let groups = json!({"sub": "olga", "cognito:groups": "[everybody operator]"});
    let status = |claims: &Value, headers: Value| {
        let event = json!({
            "version": "2.0", "rawPath": "/import", "rawQueryString": "", "headers": headers, "body": "{}",
            "requestContext": {"http": {"method": "POST"}, "authorizer": {"jwt": {"claims": claims}}},
        });
        let request = Request::of(HttpEvent::read(&event).expect("an event"), Some(&access()));
        block_on(handle(&world.deps, request, world.deps.now() + 30_000)).status
    };
    assert_eq!(status(&groups, json!({"authorization": token})), 400, "an operator, whose body says nothing");
    // Without the token nobody can tell these two names from one.
    assert_eq!(status(&groups, json!({})), 403);
    assert_eq!(status(&json!({"sub": "olga", "cognito:groups": "[operator]"}), json!({})), 400);
    assert_eq!(status(&json!({"sub": "vera", "cognito:groups": "[viewer]"}), json!({"authorization": token})), 403);
    assert_eq!(status(&Value::Null, json!({"authorization": token})), 401, "nobody has verified it");
}
