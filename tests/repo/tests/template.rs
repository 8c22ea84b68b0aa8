//! What the template must say, whatever else it says.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml_ng::Value;
use stack::template::{Function, Queue, Template};

use crate::{FUNCTIONS, read, root};

/// How long after we gave up on a call to Marketo it may still take effect, in seconds.
const LATE_EFFECT_S: u64 = 180;
/// Fourteen days, in seconds: the longest that SQS keeps a message.
const RETENTION: &str = "1209600";

pub fn template() -> Template {
    // The one parameter that has a default for AWS only.
    let parameters = BTreeMap::from([("Auth".to_owned(), "none".to_owned())]);
    stack::template::read(&root().join("infra/template.yaml"), &parameters, "http://127.0.0.1:1")
        .expect("the template is readable without any other parameter")
}

/// Each function of the template, with what its code says that it uses.
fn functions() -> Vec<(Function, lambda::Uses)> {
    let mut found = template().functions;
    assert_eq!(found.len(), FUNCTIONS.len());
    FUNCTIONS
        .into_iter()
        .map(|(name, uses)| {
            let index = found.iter().position(|function| function.binary == name);
            (found.remove(index.unwrap_or_else(|| panic!("the template has no function {name}"))), uses)
        })
        .collect()
}

fn is_read_by(queue: &Queue, function: &Function) -> bool {
    function.sources.iter().any(|source| source.queue == queue.name)
}

#[test]
fn the_environment_is_what_the_code_declares() {
    for (function, uses) in functions() {
        let declared = uses.variables();
        for name in function.environment.keys() {
            let known = declared.iter().any(|variable| variable.name == name);
            assert!(known, "{}: the code does not read {name}", function.name);
        }
        for variable in declared.iter().filter(|variable| variable.default.is_none()) {
            let set = function.environment.contains_key(variable.name);
            assert!(set, "{}: the template does not set {}", function.name, variable.name);
        }
    }
}

#[test]
fn a_queue_outlasts_its_function() {
    let template = template();
    let functions = functions();
    for queue in template.queues.iter().filter(|queue| !queue.dead) {
        let readers: Vec<_> = functions.iter().filter(|(function, _)| is_read_by(queue, function)).collect();
        let [(reader, uses)] = readers.as_slice() else { panic!("{} has {} readers", queue.name, readers.len()) };
        assert!(queue.visibility_s >= 6 * reader.timeout_s, "{}", queue.name);
        // Only a call to Marketo can take effect after its sender is dead.
        if uses.marketo {
            assert!(queue.visibility_s >= reader.timeout_s + LATE_EFFECT_S, "{}", queue.name);
        }
    }
}

#[test]
fn nothing_is_lost_in_a_queue() {
    let template = template();
    let mut fed = 0;
    for queue in &template.queues {
        let retention = queue.attributes.get("MessageRetentionPeriod").map(String::as_str);
        assert_eq!(retention, Some(RETENTION), "{}", queue.name);
        if queue.dead {
            continue;
        }
        fed += 1;
        let (dead, most) = queue.redrive.as_ref().unwrap_or_else(|| panic!("{} has no redrive", queue.name));
        assert!(*most >= 5, "{}: {most} receives", queue.name);
        let dead = template.queues.iter().find(|other| other.name == *dead).expect("the dead-letter queue exists");
        assert_eq!(dead.fifo, queue.fifo, "{}", queue.name);
    }
    // Every queue that the code sends to, and S3's notices.
    assert_eq!(fed, ports::Queue::ALL.len() + 1);
}

#[test]
fn a_tick_that_cannot_be_delivered_is_kept() {
    let template = template();
    let ticks: Vec<_> = template.functions.iter().flat_map(|function| &function.schedules).collect();
    assert_eq!(ticks.len(), 2);
    for tick in ticks {
        let dead = tick.dead_letters.as_ref().unwrap_or_else(|| panic!("{} has no dead-letter queue", tick.name));
        assert!(template.queues.iter().any(|queue| queue.name == *dead && !queue.fifo), "{dead}");
    }
    for (name, function) in resources("AWS::Serverless::Function") {
        for (event, declared) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if declared["Type"] == "ScheduleV2" {
                assert!(!declared["Properties"]["RetryPolicy"].is_null(), "{name}: {event:?}");
            }
        }
    }
}

#[test]
fn every_mapping_reports_the_messages_that_failed() {
    for (function, _) in functions() {
        for source in &function.sources {
            assert!(source.report_item_failures, "{} reads {}", function.name, source.queue);
        }
    }
}

/// The resources of a type, with their names.
fn resources(kind: &str) -> Vec<(String, Value)> {
    let yaml: Value = serde_yaml_ng::from_str(&read("infra/template.yaml")).expect("YAML");
    let all = yaml["Resources"].as_mapping().expect("Resources");
    let found = all.iter().filter(|(_, resource)| resource["Type"] == kind);
    found.map(|(name, resource)| (name.as_str().expect("a name").to_owned(), resource.clone())).collect()
}

#[test]
fn what_is_stored_can_be_recovered_and_is_not_deleted_with_the_stack() {
    let tables = resources("AWS::DynamoDB::Table");
    assert_eq!(tables.len(), ports::Table::ALL.len());
    let (buckets, queues) = (resources("AWS::S3::Bucket"), resources("AWS::SQS::Queue"));
    for (name, table) in &tables {
        let properties = &table["Properties"];
        let recovers = &properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        assert_eq!(recovers.as_bool(), Some(true), "{name}");
        assert_eq!(properties["DeletionProtectionEnabled"].as_bool(), Some(true), "{name}");
        assert_eq!(properties["SSESpecification"]["SSEEnabled"].as_bool(), Some(true), "{name}");
    }
    for (name, kept) in tables.iter().chain(&buckets) {
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert_eq!(kept[policy].as_str(), Some("Retain"), "{name}");
        }
    }
    for (name, bucket) in &buckets {
        assert!(!bucket["Properties"]["BucketEncryption"].is_null(), "{name}");
        let blocks = bucket["Properties"]["PublicAccessBlockConfiguration"].as_mapping().expect("all of them");
        assert!(blocks.len() == 4 && blocks.values().all(|blocks| blocks.as_bool() == Some(true)), "{name}");
    }
    for (name, queue) in &queues {
        assert_eq!(queue["Properties"]["SqsManagedSseEnabled"].as_bool(), Some(true), "{name}");
    }
}

#[test]
fn nobody_reads_the_bucket_without_encryption() {
    let policies = resources("AWS::S3::BucketPolicy");
    assert_eq!(policies.len(), resources("AWS::S3::Bucket").len());
    let statement = &policies[0].1["Properties"]["PolicyDocument"]["Statement"][0];
    assert_eq!((statement["Effect"].as_str(), statement["Action"].as_str()), (Some("Deny"), Some("s3:*")));
    assert_eq!(statement["Condition"]["Bool"]["aws:SecureTransport"].as_str(), Some("false"));
}

/// `sam build` runs cargo in that folder. In the workspace's own, cargo knows only the programs of its default member.
#[test]
fn each_function_is_built_in_the_folder_of_its_crate() {
    let functions = resources("AWS::Serverless::Function");
    assert_eq!(functions.len(), FUNCTIONS.len());
    for (name, function) in functions {
        let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a binary");
        let folder = format!("../functions/{binary}");
        assert_eq!(function["Properties"]["CodeUri"].as_str(), Some(folder.as_str()), "{name}");
    }
}

#[test]
fn logs_end_and_functions_are_built_for_arm() {
    let yaml: Value = serde_yaml_ng::from_str(&read("infra/template.yaml")).expect("YAML");
    assert_eq!(yaml["Globals"]["Function"]["Architectures"][0].as_str(), Some("arm64"));
    let groups = resources("AWS::Logs::LogGroup");
    assert!(groups.iter().all(|(_, group)| !group["Properties"]["RetentionInDays"].is_null()));
    for (name, function) in resources("AWS::Serverless::Function") {
        assert!(function["Properties"]["Architectures"].is_null(), "{name}");
        let Value::Tagged(group) = &function["Properties"]["LoggingConfig"]["LogGroup"] else {
            panic!("{name} makes a log group of its own, which keeps everything for ever")
        };
        let group = group.value.as_str().expect("a name");
        assert!(groups.iter().any(|(other, _)| other == group), "{name}: {group}");
    }
}

/// FIFO queues go by group; the others would take every place of the account's.
#[test]
fn standard_queues_take_only_so_many_places() {
    let template = template();
    for function in &template.functions {
        for source in &function.sources {
            let queue = template.queues.iter().find(|queue| queue.name == source.queue).expect("a queue");
            let bounded = source.maximum_concurrency.is_some();
            assert_eq!(bounded, !queue.fifo, "{} reads {}", function.name, queue.name);
        }
    }
}

#[test]
fn those_and_only_those_that_ring_themselves_may_do_so() {
    let functions = resources("AWS::Serverless::Function");
    let allowed: BTreeSet<&str> = functions
        .iter()
        .filter(|(_, function)| function["Properties"]["RecursiveLoop"] == "Allow")
        .map(|(_, function)| function["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a binary"))
        .collect();
    // cookie-ingest sends to a queue that it reads, but never while it reads it.
    assert_eq!(allowed, BTreeSet::from(["list-writer", "scheduled-incremental-sync"]));
}

/// What anybody may call: browsers, webhooks and Adobe's streams have no token of the API's issuer, and whoever is to sign
/// in needs the console first. The functions behind them trust nobody.
pub const PUBLIC: [&str; 11] = [
    "GET /",
    "GET /console/config",
    "GET /console/{file}",
    "GET /feeds/{id}/events",
    "GET /openapi.json",
    "GET /tag.js",
    "GET /tag/{file}",
    "POST /beacon",
    "POST /feeds/{id}/events",
    "POST /feeds/{id}/token",
    "POST /hints",
];

#[test]
fn these_routes_are_public_and_no_others() {
    let routes = template().functions.into_iter().flat_map(|function| function.routes);
    let (public, guarded): (Vec<_>, Vec<_>) = routes.partition(|route| route.public);
    let public: BTreeSet<String> = public.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(public, PUBLIC.map(str::to_owned).into());
    assert!(guarded.len() > 20, "{}", guarded.len());
}

#[test]
fn public_routes_are_throttled() {
    let throttles = template().api.throttles;
    for route in PUBLIC {
        let throttle = throttles.get(route).unwrap_or_else(|| panic!("{route} has no throttle"));
        assert!(throttle.rate >= 1.0 && throttle.burst >= 1, "{route}");
    }
}

#[test]
fn the_access_log_holds_nothing_personal() {
    let log = template().api.access_log;
    let variables: BTreeSet<&str> = log.values().map(String::as_str).collect();
    // Everything else that API Gateway offers may name a person: addresses, paths, queries, headers, claims.
    let harmless = [
        "$context.integrationLatency",
        "$context.requestId",
        "$context.requestTimeEpoch",
        "$context.responseLength",
        "$context.routeKey",
        "$context.status",
    ];
    assert_eq!(variables, harmless.into());
}

/// The alarms, with their names.
fn alarms() -> Vec<(String, Value)> {
    let alarms = resources("AWS::CloudWatch::Alarm").into_iter();
    alarms.map(|(name, alarm)| (name, alarm["Properties"].clone())).collect()
}

#[test]
fn alarms_watch_what_is_counted() {
    let mut watched = BTreeSet::new();
    for (name, alarm) in alarms() {
        let metric = alarm["MetricName"].as_str().expect("a metric");
        let dimension = &alarm["Dimensions"][0];
        assert!(alarm["Dimensions"][1].is_null(), "{name}");
        // The tag of YAML says how the value is found; what it is found in is what counts.
        let of = match &dimension["Value"] {
            Value::Tagged(tagged) => tagged.value.as_str().expect("a resource").to_owned(),
            value => value.as_str().expect("a name").to_owned(),
        };
        let namespace = alarm["Namespace"].as_str().expect("a namespace");
        if namespace == "audience-sync" {
            // Ours: a count of the function's invocations, which is a metric by function.
            let sources = std::fs::read_dir(root().join("functions").join(&of).join("src")).expect("its sources");
            let counted = format!(".add(\"{metric}\"");
            let counts = |path: &std::path::Path| std::fs::read_to_string(path).expect("a source").contains(&counted);
            assert!(sources.map(|entry| entry.expect("a file").path()).any(|path| counts(&path)), "{of}: {metric}");
        }
        let by = dimension["Name"].as_str().expect("a name");
        assert!(watched.insert(format!("{namespace} {metric} {by} {of}")), "{name} watches what another one does");
    }
    let mut expected = BTreeSet::from([
        "AWS/ApiGateway 4xx ApiId HttpApi".to_owned(),
        "audience-sync pairs_sampled_out function cookie-ingest".to_owned(),
    ]);
    for (name, _) in resources("AWS::Serverless::Function") {
        expected.extend(["Errors", "Throttles"].map(|what| format!("AWS/Lambda {what} FunctionName {name}")));
    }
    for (name, queue) in resources("AWS::SQS::Queue") {
        let is_dead = queue["Properties"]["RedrivePolicy"].is_null();
        let what = if is_dead { "ApproximateNumberOfMessagesVisible" } else { "ApproximateAgeOfOldestMessage" };
        expected.insert(format!("AWS/SQS {what} QueueName {name}.QueueName"));
    }
    assert_eq!(watched, expected, "each function, each queue and each dead-letter queue has its alarms");
}

#[test]
fn alarms_are_heard_and_name_their_page() {
    let runbook = read("infra/docs/runbook.md");
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: BTreeSet<String> = headings.map(|heading| heading.to_lowercase().replace(' ', "-")).collect();
    let mut named = BTreeSet::new();
    for (name, alarm) in alarms() {
        let Value::Tagged(action) = &alarm["AlarmActions"] else { panic!("{name} is heard by nobody") };
        assert_eq!(action.value[0].as_str(), Some("AlarmsAreHeard"), "{name}");
        let text = alarm["AlarmDescription"].as_str().expect("a description");
        let (_, anchor) =
            text.split_once("Runbook: infra/docs/runbook.md#").unwrap_or_else(|| panic!("{name}: no page"));
        assert!(anchors.contains(anchor), "{name}: the runbook has no page {anchor}");
        named.insert(anchor.to_owned());
    }
    assert_eq!(anchors, named, "each page belongs to an alarm");
}
