//! What the template must say, whatever else it says.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml_ng::Value;
use stack::template::{Function, Queue, Template};

use repo::permissions::{Allowed, EVERYTHING, EXCEPT, Permission, allowed, differences};

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
                // The scheduler is done once Lambda has taken the tick; what is throttled or fails after that is Lambda's.
                let taken = &function["Properties"]["EventInvokeConfig"];
                assert_eq!(taken["MaximumRetryAttempts"].as_u64(), Some(0), "{name}");
                assert_eq!(taken["MaximumEventAgeInSeconds"].as_u64(), Some(60), "{name}");
                let kept = &taken["DestinationConfig"]["OnFailure"];
                assert_eq!(kept["Type"].as_str(), Some("SQS"), "{name}");
                assert_eq!(of_tag(&kept["Destination"], &name), "TicksDeadQueue.Arn", "{name}");
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

/// The text of a tagged value, such as `!GetAtt A.Arn`; `of` says whose it is.
fn of_tag<'a>(value: &'a Value, of: &str) -> &'a str {
    let Value::Tagged(tagged) = value else { panic!("{of}: no tag but {value:?}") };
    tagged.value.as_str().unwrap_or_else(|| panic!("{of}: no text in {value:?}"))
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
        // What a table pointed to at the time to which it is restored (infra/docs/runbook.md).
        assert_eq!(bucket["Properties"]["VersioningConfiguration"]["Status"].as_str(), Some("Enabled"), "{name}");
        let rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"].as_sequence().expect("rules");
        let kept =
            rules.iter().find(|rule| rule["Id"].as_str() == Some("deleted")).expect("a rule of what was deleted");
        assert_eq!(kept["NoncurrentVersionExpiration"]["NoncurrentDays"].as_u64(), Some(7), "{name}");
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

/// Each group of a FIFO queue may take a place: one for a subscription is few, one for an audience is not.
#[test]
fn queues_take_only_so_many_places() {
    let template = template();
    for function in &template.functions {
        for source in &function.sources {
            let bounded = source.maximum_concurrency.is_some();
            let by_subscription =
                source.queue.ends_with("identity-work.fifo") || source.queue.ends_with("list-writes.fifo");
            assert_eq!(bounded, !by_subscription, "{} reads {}", function.name, source.queue);
        }
    }
}

/// SAM asks for a hidden parameter until something is typed, and a credential in a parameter is no secret.
#[test]
fn a_deployment_takes_credentials_from_secrets_only() {
    let yaml: Value = serde_yaml_ng::from_str(&read("infra/template.yaml")).expect("YAML");
    for (name, parameter) in yaml["Parameters"].as_mapping().expect("Parameters") {
        assert!(parameter["NoEcho"].is_null(), "{name:?} has no default on Enter");
        assert!(!parameter["Default"].is_null(), "{name:?} has no default");
        assert!(!parameter["Description"].is_null(), "{name:?} is not described");
    }
    let rule = serde_yaml_ng::to_string(&yaml["Rules"]["CredentialsStandInSecrets"]).expect("YAML");
    assert!(rule.contains("RuleCondition: !Not\n- !Equals\n  - !Ref Auth\n  - none\n"), "{rule}");
    let local = ["MarketoClientId", "MarketoClientSecret", "AdobeClientId", "AdobeClientSecret", "StreamSecrets"];
    for name in ["MarketoSecretArn", "AdobeSecretArn"].iter().chain(&local) {
        assert!(rule.contains(&format!("!Ref {name}\n")), "{name}: {rule}");
    }
}

#[test]
fn a_function_may_do_what_is_named_and_nothing_else() {
    let allowed = allowed(&read("infra/template.yaml")).expect("permissions");
    assert!(allowed.len() > 50, "{}", allowed.len());
    for one in &allowed {
        let (permission, statement) = (&one.permission, one.statement.as_str());
        assert!(!permission.action.contains('*'), "{permission}");
        let everything = EVERYTHING.iter().any(|(excepted, _)| *excepted == statement);
        assert_eq!(permission.resource == "*", everything, "{statement}: {permission}");
        if permission.function == "cookie-ingest" {
            assert!(!permission.action.starts_with("secretsmanager:"), "browsers reach it: {permission}");
        }
    }
    for (statement, _) in EXCEPT.iter().chain(&EVERYTHING) {
        assert!(allowed.iter().any(|one| one.statement == *statement), "{statement} is excepted, and is not there");
    }
    // What SAM would add by itself is for every queue and every log of the account.
    for (name, function) in resources("AWS::Serverless::Function") {
        assert!(function["Properties"]["Policies"].is_null(), "{name}");
    }
    for (name, role) in resources("AWS::IAM::Role") {
        assert!(role["Properties"]["ManagedPolicyArns"].is_null(), "{name}");
    }
}

#[test]
fn what_differs_between_allowed_and_used_is_told() {
    let of = |function: &str, action: &str, resource: &str| Permission {
        function: function.to_owned(),
        action: action.to_owned(),
        resource: resource.to_owned(),
    };
    let given = |permission: Permission, statement: &str| Allowed { permission, statement: statement.to_owned() };
    let allowed = [
        given(of("f", "sqs:SendMessage", "q"), "Ring"),
        given(of("f", "sqs:DeleteMessage", "q"), "Ring"),
        given(of("f", "sqs:ReceiveMessage", "q"), "Poll"),
    ];
    let called = BTreeSet::from([of("f", "sqs:SendMessage", "q"), of("g", "sqs:SendMessage", "q")]);
    assert_eq!(
        differences(&allowed, &called),
        ["used, and not allowed: g sqs:SendMessage q", "allowed by Ring, and never used: f sqs:DeleteMessage q",]
    );
}

/// What CloudFormation cannot change of a table without replacing it: a name, and the keys.
#[test]
fn no_update_replaces_a_table() {
    let tables = resources("AWS::DynamoDB::Table");
    // A resource of another name is another resource.
    let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["SyncsTable", "IdentityTable", "AudiencesTable", "ListsTable", "DoorbellsTable"]);
    for (name, table) in tables {
        let properties = &table["Properties"];
        let attributes = properties["AttributeDefinitions"].as_sequence().expect("attributes").iter();
        let of = |attribute: &Value, what: &str| attribute[what].as_str().expect("a text").to_owned();
        let typed = |one: &Value| format!("{} {}", of(one, "AttributeName"), of(one, "AttributeType"));
        assert_eq!(attributes.map(typed).collect::<Vec<_>>(), ["pk S", "sk S", "due_pk S", "due_at N"], "{name}");
        for fixed in ["TableName", "LocalSecondaryIndexes", "ImportSourceSpecification"] {
            assert!(properties[fixed].is_null(), "{name}: {fixed}");
        }
        // As version 0.1.0 has them.
        let keys = |schema: &Value| {
            let of = |index: usize, what: &str| schema[index][what].as_str().expect("a key").to_owned();
            assert!(schema[2].is_null());
            [of(0, "AttributeName"), of(0, "KeyType"), of(1, "AttributeName"), of(1, "KeyType")].join(" ")
        };
        assert_eq!(keys(&properties["KeySchema"]), "pk HASH sk RANGE", "{name}");
        // An index can be made anew without the table; ours is what the code asks for by name.
        let index = &properties["GlobalSecondaryIndexes"][0];
        assert_eq!(index["IndexName"].as_str(), Some("due"), "{name}");
        assert_eq!(keys(&index["KeySchema"]), "due_pk HASH due_at RANGE", "{name}");
    }
}

/// Names that are unique in an account or a region hold the stack's.
#[test]
fn two_stages_of_one_account_do_not_meet() {
    let named = [
        ("AWS::SQS::Queue", "QueueName"),
        ("AWS::Logs::LogGroup", "LogGroupName"),
        ("AWS::CloudWatch::Dashboard", "DashboardName"),
    ];
    for (kind, property) in named {
        for (name, resource) in resources(kind) {
            let text = of_tag(&resource["Properties"][property], &name);
            assert!(text.contains("${AWS::StackName}"), "{name}: {property}");
        }
    }
    for (name, function) in resources("AWS::Serverless::Function") {
        assert!(function["Properties"]["FunctionName"].is_null(), "{name}");
        for (event, declared) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if declared["Type"] != "ScheduleV2" {
                continue;
            }
            // SAM would name the schedule after the function and the event.
            let text = of_tag(&declared["Properties"]["Name"], &name);
            assert!(text.contains("${AWS::StackName}"), "{name}: {event:?}");
        }
    }
}

#[test]
fn the_dashboard_shows_every_queue_and_function_and_reckons_with_our_prices() {
    let dashboards = resources("AWS::CloudWatch::Dashboard");
    let [(_, dashboard)] = dashboards.as_slice() else { panic!("{} dashboards", dashboards.len()) };
    let Value::Tagged(body) = &dashboard["Properties"]["DashboardBody"] else { panic!("no body") };
    let text = body.value.as_str().expect("a text");
    let body: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert!(body["widgets"].as_array().is_some_and(|widgets| widgets.len() >= 8));
    for (name, _) in resources("AWS::SQS::Queue") {
        assert!(text.contains(&format!("${{{name}.QueueName}}")), "{name}");
    }
    let prices: serde_json::Value = serde_json::from_str(&read("tests/bench/prices.json")).expect("prices");
    let price = |name: &str| {
        let price = &prices["prices"][name];
        let (dollars, per) = (price["dollars"].as_f64().expect("dollars"), price["per"].as_u64().expect("per"));
        if per == 1 { format!("* {dollars}") } else { format!("* {dollars} / {per}") }
    };
    let names =
        ["dynamodb_write_unit", "dynamodb_read_unit", "lambda_gb_second_arm64", "lambda_request", "http_api_request"];
    for name in names {
        assert!(text.contains(&price(name)), "{name}: {}", price(name));
    }
    for (index, (name, function)) in resources("AWS::Serverless::Function").into_iter().enumerate() {
        assert!(text.contains(&format!("[\"AWS/Lambda\", \"Errors\", \"FunctionName\", \"${{{name}}}\"]")), "{name}");
        let memory = function["Properties"]["MemorySize"].as_u64().expect("memory");
        assert!(text.contains(&format!("FILL(d{index}, 0) * {memory}")), "{name}: {memory} MB");
        assert!(text.contains(&format!("\"${{{name}}}\", {{\"id\": \"d{index}\"")), "{name}");
    }
    let watched = read("functions/scheduled-incremental-sync/src/watched.rs");
    for field in ["waits_seconds", "calls_ours", "calls_allowance", "code", "refusals", "incident", "subject"] {
        assert!(text.contains(field) && watched.contains(field), "{field}");
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

/// A filter of the log counts what the alarm watches: an incident that the code knows.
fn assert_is_filtered(name: &str, alarm: &Value) {
    let metric = alarm["MetricName"].as_str().expect("a metric");
    let counts = |(_, filter): &(String, Value)| {
        let to = &filter["Properties"]["MetricTransformations"][0];
        to["MetricName"].as_str() == Some(metric) && to["MetricNamespace"] == alarm["Namespace"]
    };
    let filters: Vec<_> = resources("AWS::Logs::MetricFilter").into_iter().filter(counts).collect();
    let [(_, filter)] = filters.as_slice() else { panic!("{name}: {} filters count {metric}", filters.len()) };
    let pattern = filter["Properties"]["FilterPattern"].as_str().expect("a pattern");
    let kind = pattern.strip_prefix("{ $.incident = \"").and_then(|rest| rest.strip_suffix("\" }")).expect(pattern);
    assert!(read("functions/shared/state/src/alerts.rs").contains(&format!(" = \"{kind}\",")), "no incident {kind}");
    // Where the incidents are looked for, and under that name.
    assert_eq!(of_tag(&filter["Properties"]["LogGroupName"], name), "ScheduledIncrementalSyncLog");
    assert!(read("functions/scheduled-incremental-sync/src/watched.rs").contains("incident = kind.name()"));
}

#[test]
fn alarms_watch_what_is_counted() {
    let mut watched = BTreeSet::new();
    for (name, alarm) in alarms() {
        let metric = alarm["MetricName"].as_str().expect("a metric");
        if alarm["Dimensions"].is_null() {
            assert_is_filtered(&name, &alarm);
            assert!(watched.insert(format!("incident {metric}")), "{name} watches what another one does");
            continue;
        }
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
            assert!(lambda::METRICS.contains(&metric), "{name}: the wide event makes no metric {metric}");
            let (_, function) = resources("AWS::Serverless::Function")
                .into_iter()
                .find(|(name, _)| *name == of)
                .unwrap_or_else(|| panic!("{name}: there is no function {of}"));
            let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a binary").to_owned();
            // By itself, or by what all functions begin with.
            let folders =
                [root().join("functions").join(binary).join("src"), root().join("functions/shared/lambda/src")];
            let sources = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("its sources"));
            let counted = format!(".add(\"{metric}\"");
            let counts = |path: &std::path::Path| std::fs::read_to_string(path).expect("a source").contains(&counted);
            let mut files = sources.map(|entry| entry.expect("a file").path()).filter(|path| path.is_file());
            assert!(files.any(|path| counts(&path)), "{of}: {metric}");
        }
        let by = dimension["Name"].as_str().expect("a name");
        assert!(watched.insert(format!("{namespace} {metric} {by} {of}")), "{name} watches what another one does");
    }
    let mut expected = BTreeSet::from([
        "AWS/ApiGateway 4xx ApiId HttpApi".to_owned(),
        "AWS/ApiGateway 5xx ApiId HttpApi".to_owned(),
        "AWS/Lambda AsyncEventsReceived FunctionName ScheduledIncrementalSyncFunction".to_owned(),
        "audience-sync pairs_sampled_out FunctionName CookieIngestFunction".to_owned(),
    ]);
    // Whoever reads a standard queue: the age of its oldest message does not tell of those that return again and again.
    for (name, function) in resources("AWS::Serverless::Function") {
        let events = serde_yaml_ng::to_string(&function["Properties"]["Events"]).expect("YAML");
        if ["MatchesQueue.Arn", "EventsQueue.Arn", "IncomingQueue.Arn"].iter().any(|queue| events.contains(queue)) {
            expected.insert(format!("audience-sync records_failed FunctionName {name}"));
        }
    }
    expected.extend(["feed_late", "quota_used_up", "list_deviates", "stuck"].map(|kind| format!("incident {kind}")));
    for (name, _) in resources("AWS::Serverless::Function") {
        expected.extend(["Errors", "Throttles"].map(|what| format!("AWS/Lambda {what} FunctionName {name}")));
    }
    for (name, queue) in resources("AWS::SQS::Queue") {
        let is_dead = queue["Properties"]["RedrivePolicy"].is_null();
        // Dead ticks are sent there, and lie there for nothing; other dead letters are moved there, which is no sending.
        let what = match (is_dead, name.as_str()) {
            (true, "TicksDeadQueue") => "NumberOfMessagesSent",
            (true, _) => "ApproximateNumberOfMessagesVisible",
            (false, _) => "ApproximateAgeOfOldestMessage",
        };
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

/// What an engineer types at night. `$(named X)` asks CloudFormation for a part of the template, and a name in backquotes is an
/// alarm's or a queue's.
#[test]
fn what_the_runbook_and_the_page_of_deploying_name_is_in_the_template() {
    let yaml: Value = serde_yaml_ng::from_str(&read("infra/template.yaml")).expect("YAML");
    let parts: Vec<&str> =
        yaml["Resources"].as_mapping().expect("Resources").keys().map(|name| name.as_str().expect("a name")).collect();
    let mut named = 0;
    for page in ["infra/docs/runbook.md", "infra/docs/deploy.md"] {
        let text = read(page);
        for rest in text.split("$(named ").skip(1) {
            let (name, _) = rest.split_once(')').expect("an end");
            // A loop's variable stands for the beginning.
            let found = match name.split_once('}') {
                Some((_, ending)) => parts.iter().any(|part| part.ends_with(ending)),
                None => parts.contains(&name),
            };
            assert!(found, "{page}: the template has no {name}");
            named += 1;
        }
        for word in text.split('`').skip(1).step_by(2) {
            let is_name = word.starts_with(|first: char| first.is_ascii_uppercase())
                && word.chars().all(|letter| letter.is_ascii_alphanumeric());
            if is_name && ["Queue", "AreDead", "Wait"].iter().any(|ending| word.ends_with(ending)) {
                assert!(parts.contains(&word), "{page}: the template has no {word}");
                named += 1;
            }
        }
    }
    assert!(named > 30, "{named} names");
}
