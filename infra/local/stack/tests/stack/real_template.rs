//! Rules over the template that is deployed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_yaml_ng::Value;
use stack::template::{Template, read};
use stack::{LogLine, Options, Port};

use crate::eventually;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../template.yaml")
}

/// Without the parameters that only AWS has.
fn open() -> BTreeMap<String, String> {
    BTreeMap::from([("Auth".to_owned(), "none".to_owned()), ("EventBus".to_owned(), String::new())])
}

fn template() -> Template {
    read(&path(), &open(), "http://127.0.0.1:1").expect("the template is readable without other parameters")
}

#[test]
fn it_declares_the_functions_by_their_binaries() {
    let binaries: BTreeSet<_> = template().functions.into_iter().map(|function| function.binary).collect();
    assert_eq!(binaries, stack::FUNCTIONS.map(str::to_owned).into());
}

#[test]
fn every_queue_has_a_dead_letter_queue_and_a_long_enough_visibility_time_out() {
    let template = template();
    // Six with one each, and the one of the ticks.
    assert_eq!(template.queues.len(), 13);
    for queue in template.queues.iter().filter(|queue| !queue.dead) {
        assert!(queue.redrive.as_ref().is_some_and(|(_, most)| *most >= 5), "{}", queue.name);
        let readers: Vec<_> =
            template.functions.iter().filter(|f| f.sources.iter().any(|source| source.queue == queue.name)).collect();
        assert_eq!(readers.len(), 1, "{}", queue.name);
        // A late effect of a dead process may come up to 180 s after it (design, invariant 5).
        let late_effect_s = if readers[0].timeout_s > 30 { 180 } else { 0 };
        assert!(queue.visibility_s >= 6 * readers[0].timeout_s, "{}", queue.name);
        assert!(queue.visibility_s >= readers[0].timeout_s + late_effect_s, "{}", queue.name);
    }
}

#[test]
fn every_mapping_reports_item_failures_and_serial_queues_have_batches_of_one() {
    for function in template().functions {
        for source in function.sources {
            assert!(source.report_item_failures, "{}", source.queue);
            assert!(!source.queue.ends_with(".fifo") || source.batch_size == 1, "{}", source.queue);
        }
    }
}

#[test]
fn the_function_that_faces_browsers_holds_no_secret() {
    let template = template();
    let ingest = template.functions.iter().find(|function| function.name == "cookie-ingest").expect("cookie-ingest");
    let is_secret = |key: &&String| ["MARKETO", "ADOBE", "STREAM"].iter().any(|holder| key.starts_with(holder));
    let held: Vec<_> = ingest.environment.keys().filter(is_secret).collect();
    assert!(held.is_empty(), "{held:?}");
}

#[test]
fn a_function_may_read_the_secrets_of_the_vendors_that_it_calls_and_no_others() {
    let yaml: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path()).expect("template")).expect("YAML");
    let mut functions = 0;
    for resource in yaml["Resources"].as_mapping().expect("resources").values() {
        if resource["Type"] != "AWS::Serverless::Function" {
            continue;
        }
        functions += 1;
        let environment = &resource["Properties"]["Environment"]["Variables"];
        let called = ["Marketo", "Adobe"].into_iter().filter(|vendor| {
            let client = format!("{}_CLIENT_ID", vendor.to_uppercase());
            let arn = &environment[format!("{}_SECRET_ARN", vendor.to_uppercase())];
            assert_eq!(environment.get(client).is_some(), !arn.is_null(), "{vendor}");
            !arn.is_null()
        });
        let mut needed: BTreeSet<String> = called.map(|vendor| format!("{vendor}SecretArn")).collect();
        let binary = resource["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a binary");
        // It calls nobody: what it holds is what Adobe shows to it.
        if binary == "audience-ingest" {
            assert!(needed.is_empty(), "{needed:?}");
            needed.insert("StreamSecretArn".to_owned());
        }
        assert_eq!(needed.is_empty(), binary == "cookie-ingest", "{binary}");
        let Value::Tagged(role) = &resource["Properties"]["Role"] else { panic!("{binary} has no role of its own") };
        let role = role.value.as_str().and_then(|role| role.strip_suffix(".Arn")).expect("a role");
        assert_eq!(readable_secrets(&yaml["Resources"][role]), needed, "{binary}");
    }
    assert_eq!(functions, stack::FUNCTIONS.len());
}

/// Parameters whose ARNs a function's role may read as secrets. A secret that is named any other way fails the test.
fn readable_secrets(role: &Value) -> BTreeSet<String> {
    let policies = role["Properties"]["Policies"].as_sequence().expect("policies").iter();
    let statements =
        policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_sequence().expect("statements"));
    let mut found = BTreeSet::new();
    for statement in statements {
        let statement = match statement {
            Value::Tagged(condition) => &condition.value[1],
            plain => plain,
        };
        let actions: Vec<_> = statement["Action"].as_sequence().expect("actions").iter().collect();
        if !actions.iter().any(|action| action.as_str().is_some_and(|name| name.starts_with("secretsmanager:"))) {
            continue;
        }
        assert_eq!(actions, ["secretsmanager:GetSecretValue"]);
        for resource in statement["Resource"].as_sequence().expect("resources") {
            let Value::Tagged(reference) = resource else { panic!("{resource:?}") };
            assert_eq!(reference.tag, "Ref");
            found.insert(reference.value.as_str().expect("a name").to_owned());
        }
    }
    found
}

#[test]
fn no_secret_is_resolved_into_the_template() {
    let text = std::fs::read_to_string(path()).expect("template");
    assert!(!text.contains("{{resolve:"));
}

#[test]
fn policies_name_each_action() {
    let text = std::fs::read_to_string(path()).expect("template");
    let mut denied = false;
    for line in text.lines().map(str::trim) {
        match line {
            "Effect: Deny" => denied = true,
            "Effect: Allow" => denied = false,
            _ => {}
        }
        let wild = line.ends_with(":*") && !line.starts_with("- Event:");
        assert!(denied || !wild, "a wildcard action is allowed: {line}");
    }
}

#[test]
fn its_environment_has_the_names_that_the_code_reads() {
    let template = template();
    let all: BTreeSet<&str> =
        template.functions.iter().flat_map(|function| function.environment.keys()).map(String::as_str).collect();
    for name in ports::Table::ALL.map(ports::Table::env) {
        assert!(all.contains(name), "{name}");
    }
    for queue in ports::Queue::ALL {
        let url = template.functions.iter().find_map(|function| function.environment.get(queue.env()));
        assert_eq!(url.map(|url| url.ends_with(".fifo")), Some(queue.is_fifo()), "{}", queue.env());
    }
    assert!(all.contains("BUCKET"));
}

#[tokio::test]
async fn the_local_stack_runs_it() {
    let folder = tempfile::tempdir().expect("folder");
    let binaries = folder.path().join("bin");
    std::fs::create_dir(&binaries).expect("folder");
    for name in stack::FUNCTIONS {
        let binary = env!("CARGO_BIN_EXE_stack-test-function");
        std::os::unix::fs::symlink(binary, binaries.join(name)).expect("link");
    }
    let lines: Arc<Mutex<Vec<LogLine>>> = Arc::default();
    let heard = Arc::clone(&lines);
    let options = Options {
        template: path(),
        data_dir: folder.path().join("data"),
        bin_dir: binaries,
        parameters: open(),
        port: Port::Exact(0),
        log: Arc::new(move |line| heard.lock().expect("lock").push(line)),
    };
    let stack = stack::start(options).await.expect("the stack starts");
    for (path, function, route) in
        [("/", "create-sync", "GET /"), ("/syncs/s1/report", "create-sync", "GET /syncs/{id}/report")]
    {
        let answer = reqwest::get(format!("{}{path}", stack.url())).await.expect("answer").bytes().await.expect("body");
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["environment"]["AWS_LAMBDA_FUNCTION_NAME"], function);
        assert_eq!(answer["event"]["routeKey"], route);
    }
    stack.put_object("incoming/x.sync", "1").await.expect("put");
    stack.tick().await;
    let said = |function: &str, part: &str| {
        lines.lock().expect("lock").iter().any(|line| line.function == function && line.text.contains(part))
    };
    eventually("the notice", || async { said("scheduled-incremental-sync", "incoming/x.sync").then_some(()) }).await;
    assert!(said("scheduled-incremental-sync", "Scheduled Event"));
    assert!(said("create-sync", "Scheduled Event"));
    stack.shutdown().await;
}
