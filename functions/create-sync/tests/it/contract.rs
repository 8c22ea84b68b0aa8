//! Every answer that a test of this suite gets is one of those that the contract knows: its status, its type, its
//! members. A member that the contract does not describe is a mistake here, though callers must bear one.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use create_sync::Response;
use serde_json::Value;

use crate::support::World;

static CONTRACT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).expect("JSON"));

/// What a reference leads to.
fn found(value: &Value) -> &Value {
    let target = value["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.map_or(value, |pointer| CONTRACT.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")))
}

/// The operation that a request is for; a path that names every segment beats one that leaves one open.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let fits = |pattern: &str| {
        let pattern: Vec<&str> = pattern.trim_end_matches('/').split('/').collect();
        pattern.len() == parts.len()
            && pattern.iter().zip(&parts).all(|(want, have)| want.starts_with('{') || want == have)
    };
    let paths = CONTRACT["paths"].as_object().expect("paths").iter();
    let fitting = paths.filter(|(path, item)| fits(path) && item.get(method.to_lowercase()).is_some());
    let best = fitting.min_by_key(|(path, _)| path.matches('{').count());
    best.map(|(_, item)| &item[method.to_lowercase()])
}

/// Checks an answer against the contract.
pub fn check(method: &str, path: &str, response: &Response) {
    // Unknown routes are answered, but not described.
    let Some(operation) = operation(method, path) else {
        assert!([404, 405].contains(&response.status), "{method} {path} is not in the contract");
        return;
    };
    let status = response.status.to_string();
    let answers = &operation["responses"];
    let answer = answers.get(&status).unwrap_or_else(|| panic!("{method} {path}: {status} is not in the contract"));
    let answer = found(answer);
    let kind = response.content_type.split(';').next().unwrap_or_default();
    if kind.is_empty() {
        assert!(answer["content"].is_null(), "{method} {path}: {status} has no body");
        return;
    }
    let schema = answer["content"].get(kind).unwrap_or_else(|| panic!("{method} {path}: {status} as {kind}"));
    let is_packed = response.headers.iter().any(|(name, _)| *name == "content-encoding");
    if kind.ends_with("json") && !is_packed {
        let body: Value = serde_json::from_slice(&response.body).expect("JSON");
        if let Err(wrong) = fit(&body, &schema["schema"], "") {
            panic!("{method} {path}: {status}: {wrong} in {body}");
        }
        if kind == "application/problem+json" {
            for said in std::iter::once(&body).chain(body["errors"].as_array().into_iter().flatten()) {
                let names: BTreeSet<&str> =
                    said["values"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, values_of(said["code"].as_str().expect("a code")), "{method} {path}: {said}");
            }
        }
    }
    let described = answer["headers"].as_object();
    for name in ["link", "location", "retry-after", "www-authenticate"] {
        let sent = response.headers.iter().any(|(header, _)| *header == name);
        let is_described = described.is_some_and(|headers| headers.contains_key(name));
        assert!(!sent || is_described, "{method} {path}: {status}: header {name}");
    }
}

/// The names of the values that come with a code of a problem.
fn values_of(code: &str) -> BTreeSet<&'static str> {
    let names = CONTRACT["components"]["schemas"]["ProblemValues"]["x-values"][code].as_array();
    names.into_iter().flatten().map(|name| name.as_str().expect("a name")).collect()
}

/// Codes of problems, as the contract names them.
fn codes() -> BTreeSet<&'static str> {
    let codes = CONTRACT["components"]["schemas"]["ProblemCode"]["enum"].as_array().expect("codes");
    codes.iter().map(|code| code.as_str().expect("a code")).collect()
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the contract names the type {other}"),
    }
}

/// Whether a value fits a schema, of the part of JSON Schema that the contract uses; else where it does not.
fn fit(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{at}: {what}"));
    if schema["$ref"].is_string() {
        return fit(value, found(schema), at);
    }
    for (keyword, all) in [("anyOf", false), ("oneOf", true)] {
        let Some(choices) = schema[keyword].as_array() else { continue };
        let outcomes: Vec<_> = choices.iter().map(|choice| fit(value, choice, at)).collect();
        let fitting = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        if fitting == 0 || (all && fitting > 1) {
            let why: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
            return wrong(&format!("fits {fitting} of {keyword}: {}", why.join("; ")));
        }
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(value, kind)) {
        return wrong(&format!("is no {}", kinds.join(" or ")));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return wrong("is none of its words");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("is another word");
    }
    if value.as_i64().zip(schema["minimum"].as_i64()).is_some_and(|(number, least)| number < least) {
        return wrong("is too small");
    }
    if schema["format"] == "date-time" && value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_err()) {
        return wrong("is no time");
    }
    if let Some(items) = value.as_array().filter(|_| schema["items"].is_object()) {
        for (place, item) in items.iter().enumerate() {
            fit(item, &schema["items"], &format!("{at}/{place}"))?;
        }
    }
    let Some(members) = value.as_object() else { return Ok(()) };
    let properties = schema["properties"].as_object();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return wrong(&format!("lacks {name}"));
        }
    }
    let named: BTreeSet<&String> = properties.into_iter().flat_map(|properties| properties.keys()).collect();
    for (name, member) in members {
        let at = format!("{at}/{name}");
        match (properties.and_then(|properties| properties.get(name)), &schema["additionalProperties"]) {
            (Some(Value::Bool(true)), _) => {}
            (Some(schema), _) => fit(member, schema, &at)?,
            (None, more @ Value::Object(_)) => fit(member, more, &at)?,
            // An object of which nothing is said may hold anything.
            (None, _) if named.is_empty() => {}
            (None, _) => return Err(format!("{at}: the contract does not describe it")),
        }
    }
    Ok(())
}

/// What stands between braces.
fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

#[test]
fn every_refusal_can_be_said_in_the_three_languages_of_the_console() {
    let catalogue: Value = serde_json::from_str(include_str!("../../console/catalogue.json")).expect("JSON");
    let catalogue = catalogue.as_object().expect("keys");
    for code in codes() {
        let entry = catalogue.get(&format!("said.{code}")).unwrap_or_else(|| panic!("the catalogue lacks said.{code}"));
        for language in ["en", "fr", "sv"] {
            let text = entry[language].as_str().unwrap_or_else(|| panic!("said.{code}: {language}"));
            let unfilled: Vec<&str> = placeholders(text).difference(&values_of(code)).copied().collect();
            assert!(unfilled.is_empty(), "said.{code}: {language}: no value fills {unfilled:?}");
        }
    }
    let said: BTreeSet<&str> = catalogue.keys().filter_map(|key| key.strip_prefix("said.")).collect();
    assert_eq!(said, codes(), "nobody says the others");
}

#[test]
fn every_code_of_a_refusal_is_in_the_contract() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut written = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).expect("text");
            let rest = text.split("Said::new(").skip(1);
            written.extend(
                rest.filter_map(|rest| Some(rest.trim_start().strip_prefix('"')?.split_once('"')?.0.to_owned())),
            );
        }
    }
    let written: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    assert_eq!(written.symmetric_difference(&codes()).copied().collect::<Vec<_>>(), [""; 0], "in one of them only");
    assert!(values_of("resume_without_list").contains("list") && values_of("try_again").is_empty());
}

#[test]
fn no_code_means_two_things() {
    let sayings: BTreeSet<&str> = domain::sayings::ALL.iter().map(|saying| saying.code).collect();
    assert_eq!(sayings.intersection(&codes()).copied().collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn what_stands_is_not_replaced_by_a_body_that_is_missing() {
    let world = World::new();
    let hook = serde_json::json!({"webhooks": {"team": {"url": "https://hooks.example.com/x"}}});
    assert_eq!(world.put("/alerts", &hook).0, 200);
    for path in ["/alerts", "/subscription", "/feeds/default"] {
        let answer = world.ask("PUT", path, &[], &[]);
        check("PUT", path, &answer);
        assert_eq!(answer.status, 400, "{path}");
    }
    assert!(world.get("/alerts").1["webhooks"]["team"].is_object());
}

#[test]
fn what_the_contract_does_not_describe_is_seen() {
    let schema = |name: &str| serde_json::json!({"$ref": format!("#/components/schemas/{name}")});
    let me = serde_json::json!({"name": "n", "role": "viewer"});
    assert_eq!(fit(&me, &schema("Me"), ""), Ok(()));
    for (pointer, value) in [("/role", "owner".into()), ("/name", 1.into()), ("/name", Value::Null)] {
        let mut wrong = me.clone();
        *wrong.pointer_mut(pointer).expect("a member") = value;
        assert!(fit(&wrong, &schema("Me"), "").is_err(), "{wrong}");
    }
    let mut more = me.clone();
    more["more"] = true.into();
    assert!(fit(&more, &schema("Me"), "").unwrap_err().contains("/more"));
    assert!(fit(&serde_json::json!({"name": "n"}), &schema("Me"), "").unwrap_err().contains("role"));
    assert!(operation("GET", "/syncs/preview").is_some_and(|found| found["operationId"] == "getSync"));
    assert!(operation("POST", "/syncs/preview").is_some_and(|found| found["operationId"] == "preview"));
    assert!(operation("GET", "/").is_some() && operation("GET", "/nothing").is_none());
}
