//! The contract of the API agrees with the template and with the code.

use std::collections::{BTreeMap, BTreeSet};

use create_sync::Needs;
use serde_json::{Value, json};

use crate::read;
use crate::template::{PUBLIC, template};

/// Methods of OpenAPI that a path may have here.
const METHODS: [&str; 3] = ["get", "post", "put"];

fn contract() -> Value {
    serde_json::from_str(&read("functions/create-sync/openapi.json")).expect("JSON")
}

/// Every operation, by method and path.
fn operations() -> BTreeMap<String, Value> {
    let contract = contract();
    assert_eq!(contract["openapi"], "3.1.0");
    let mut found = BTreeMap::new();
    for (path, item) in contract["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            assert!(METHODS.contains(&method.as_str()), "{method} {path}");
            found.insert(format!("{} {path}", method.to_uppercase()), operation.clone());
        }
    }
    found
}

/// What of the contract a caller must show: nothing, a token of the API's issuer, or something of its own.
fn shown(operation: &Value) -> &'static str {
    match operation["security"].as_array().expect("security").as_slice() {
        [] => "nothing",
        [one] if *one == json!({"token": []}) => "token",
        _ => "proof",
    }
}

#[test]
fn the_contract_has_every_route_of_the_template_and_no_other() {
    let routes = template().functions.into_iter().flat_map(|function| function.routes);
    let expected: BTreeSet<String> = routes.map(|route| format!("{} {}", route.method, route.path)).collect();
    let found: BTreeSet<String> = operations().into_keys().collect();
    assert_eq!(found, expected);
}

#[test]
fn what_needs_a_token_stands_behind_the_authorizer_and_nothing_else_does() {
    let operations = operations();
    for route in template().functions.into_iter().flat_map(|function| function.routes) {
        let key = format!("{} {}", route.method, route.path);
        assert_eq!(route.public, shown(&operations[&key]) != "token", "{key}");
    }
    let of = |what: &str| {
        let of = operations.iter().filter(|(_, operation)| shown(operation) == what);
        of.map(|(key, _)| key.as_str()).collect::<Vec<&str>>()
    };
    let proof = ["POST /feeds/{id}/events", "POST /feeds/{id}/token", "POST /hints"];
    assert_eq!(of("proof"), proof);
    let public: Vec<&str> = PUBLIC.into_iter().filter(|route| !proof.contains(route)).collect();
    assert_eq!(of("nothing"), public);
}

#[test]
fn the_control_plane_answers_the_routes_of_the_contract_to_whom_it_says() {
    let control = template().functions.into_iter().find(|function| function.binary == "create-sync");
    let operations = operations();
    let mut documented = BTreeMap::new();
    for route in control.expect("create-sync").routes {
        let key = format!("{} {}", route.method, route.path);
        let needs = operations[&key]["x-role"].as_str().unwrap_or("nothing").to_owned();
        let path: Vec<&str> =
            route.path.split('/').map(|part| if part.starts_with('{') { "*" } else { part }).collect();
        documented.insert(format!("{} {}", route.method, path.join("/")), needs);
    }
    let word = |needs| match needs {
        Needs::Nothing => "nothing",
        Needs::Viewer => "viewer",
        Needs::Operator => "operator",
    };
    let routes = create_sync::ROUTES.iter();
    let coded = routes.map(|(method, path, needs)| (format!("{method} {path}"), word(*needs).to_owned())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn references_lead_somewhere_and_everything_that_is_named_is_used() {
    let contract = contract();
    let mut used = BTreeSet::new();
    let mut todo = vec![&contract];
    while let Some(value) = todo.pop() {
        if let Some(target) = value["$ref"].as_str() {
            let pointer = target.strip_prefix('#').expect("within the contract");
            assert!(contract.pointer(pointer).is_some(), "{target}");
            used.insert(pointer.to_owned());
        }
        match value {
            Value::Array(items) => todo.extend(items),
            Value::Object(members) => todo.extend(members.values()),
            _ => {}
        }
    }
    for kind in ["schemas", "parameters", "responses"] {
        for name in contract["components"][kind].as_object().expect("components").keys() {
            assert!(used.contains(&format!("/components/{kind}/{name}")), "{kind}: {name}");
        }
    }
}

#[test]
fn every_operation_says_what_it_does_and_how_it_refuses() {
    let mut ids = BTreeSet::new();
    for (key, operation) in operations() {
        let id = operation["operationId"].as_str().expect("an id").to_owned();
        assert!(ids.insert(id), "{key}: its id is another one's too");
        assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{key}");
        let answers = operation["responses"].as_object().expect("responses");
        for (place, path) in key.match_indices('{').zip(key.split('{').skip(1)) {
            let name = path.split('}').next().expect("a name");
            let parameters = operation["parameters"].as_array().unwrap_or_else(|| panic!("{key}: {place:?}"));
            let is_named = |parameter: &&Value| {
                let own = parameter["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
                let parameter = own.map_or((*parameter).clone(), |own| contract().pointer(own).expect("there").clone());
                parameter["in"] == "path" && parameter["name"] == name
            };
            assert_eq!(parameters.iter().filter(is_named).count(), 1, "{key}: {name}");
        }
        if shown(&operation) == "token" {
            assert!(answers.contains_key("401"), "{key}");
        }
        if operation["x-role"].is_string() {
            assert!(["403", "500", "503"].iter().all(|status| answers.contains_key(*status)), "{key}");
        }
    }
}
