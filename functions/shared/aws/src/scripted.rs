//! Tests of what no emulator does on demand: throttling, unprocessed rests, failed entries, unknown outcomes.
//! The SDK runs whole; only its HTTP client is a script.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use ports::{
    Announcement, Bus, Credentials as Shown, Expect, Item, Key, Outgoing, PortError, PortResult, Queue, Queues, Read,
    Secrets, StreamSecrets, Table, Tables, Vendor,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{DynamoTables, EventBridge, KeptSecrets, Source, SqsQueues};

/// The bodies of the requests that were made.
type Seen = Arc<Mutex<Vec<Value>>>;

#[derive(Debug, Clone)]
struct Script {
    answers: Vec<(u16, Value)>,
    seen: Seen,
}

impl HttpConnector for Script {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = serde_json::from_slice(request.body().bytes().expect("a body in memory")).expect("JSON");
        let mut seen = self.seen.lock().expect("no panic before");
        let (status, answer) = self.answers.get(seen.len()).expect("a scripted answer");
        seen.push(body);
        let status = (*status).try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(answer.to_string()))))
    }
}

/// A configuration whose n-th request is answered by the n-th of `answers`; more requests than answers fail the test.
fn scripted(answers: Vec<(u16, Value)>) -> (SdkConfig, Seen) {
    let seen = Seen::default();
    let script = Script { answers, seen: Arc::clone(&seen) };
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test")))
        .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(script.clone())))
        .build();
    (sdk, seen)
}

fn fault(code: &str) -> Value {
    json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "canary of an item"})
}

fn tables(sdk: &SdkConfig) -> DynamoTables {
    DynamoTables::new(crate::dynamo_client(sdk), BTreeMap::from([(Table::Lists, "lists".to_owned())]))
}

fn queues(sdk: &SdkConfig) -> SqsQueues {
    let urls = [(Queue::Matches, "https://sqs/1/m"), (Queue::ListWrites, "https://sqs/1/l.fifo")];
    let urls = urls.into_iter().map(|(queue, url)| (queue, url.to_owned())).collect();
    SqsQueues::new(crate::sqs_client(sdk), urls, "https://sqs".to_owned())
}

fn item(sk: &str) -> Item {
    Item { key: Key::new("p", sk), rev: 2, doc: json!({}), due: None, expires_at: None }
}

#[tokio::test]
async fn a_conditional_put_of_unknown_outcome_is_not_repeated() {
    for expect in [Expect::Absent, Expect::Rev(1)] {
        let (sdk, seen) = scripted(vec![(500, fault("InternalServerError"))]);
        let error = tables(&sdk).put(Table::Lists, item("a"), expect).await.expect_err("unknown");
        assert!(matches!(error, PortError::Unknown { .. }), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(seen.lock().expect("no panic").len(), 1);

        let (sdk, seen) = scripted(vec![(500, fault("InternalServerError"))]);
        let error = tables(&sdk).delete(Table::Lists, &Key::new("p", "a"), expect).await.expect_err("unknown");
        assert!(matches!(error, PortError::Unknown { .. }), "{error}");
        assert_eq!(seen.lock().expect("no panic").len(), 1);
    }
}

#[tokio::test]
async fn a_throttled_conditional_put_is_repeated_with_its_condition() {
    let throttled = || (400, fault("ProvisionedThroughputExceededException"));
    let (sdk, seen) = scripted(vec![throttled(), throttled(), (200, json!({}))]);
    assert!(tables(&sdk).put(Table::Lists, item("a"), Expect::Rev(1)).await.expect("the third succeeds"));
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), 3);
    for request in &*seen {
        assert_eq!(request["ConditionExpression"], "rev = :rev");
        assert_eq!(request["ExpressionAttributeValues"], json!({":rev": {"N": "1"}}));
    }
}

#[tokio::test]
async fn a_store_that_keeps_throttling_is_unavailable() {
    let (sdk, seen) = scripted(vec![(400, fault("ThrottlingException")); 4]);
    let error = tables(&sdk).put(Table::Lists, item("a"), Expect::Absent).await.expect_err("throttled");
    assert!(matches!(error, PortError::Unavailable { .. }), "{error}");
    assert_eq!(seen.lock().expect("no panic").len(), 4);
}

#[tokio::test]
async fn a_failed_condition_is_an_answer() {
    let (sdk, _) = scripted(vec![(400, fault("ConditionalCheckFailedException"))]);
    assert!(!tables(&sdk).put(Table::Lists, item("a"), Expect::Absent).await.expect("an answer"));
}

#[tokio::test]
async fn writes_that_a_batch_leaves_unprocessed_are_sent_again_and_only_they() {
    let write = |sk: &str| json!({"PutRequest": {"Item": {"pk": {"S": "p"}, "sk": {"S": sk}}}});
    let rest = json!({"UnprocessedItems": {"lists": [write("b"), write("c")]}});
    let (sdk, seen) = scripted(vec![(200, rest), (200, json!({"UnprocessedItems": {}}))]);
    tables(&sdk).put_all(Table::Lists, vec![item("a"), item("b"), item("c")]).await.expect("all written");
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1]["RequestItems"]["lists"], json!([write("b"), write("c")]));
}

#[tokio::test]
async fn keys_that_a_batch_leaves_unprocessed_are_asked_again_and_only_they() {
    let stored = |sk: &str| json!({"pk": {"S": "p"}, "sk": {"S": sk}, "rev": {"N": "2"}, "doc": {"S": "{}"}});
    let key = |sk: &str| json!({"pk": {"S": "p"}, "sk": {"S": sk}});
    let (sdk, seen) = scripted(vec![
        (
            200,
            json!({"Responses": {"lists": [stored("a")]}, "UnprocessedKeys": {"lists": {"Keys": [key("b")], "ConsistentRead": true}}}),
        ),
        (200, json!({"Responses": {"lists": [stored("b")]}})),
    ]);
    let keys = [Key::new("p", "a"), Key::new("p", "b")];
    let found = tables(&sdk).batch_get(Table::Lists, &keys, Read::Consistent).await.expect("all read");
    assert_eq!(found, [item("a"), item("b")]);
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen[1]["RequestItems"]["lists"], json!({"Keys": [key("b")], "ConsistentRead": true}));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_never_progresses_is_unavailable() {
    let rest = json!({"UnprocessedItems": {"lists": [{"PutRequest": {"Item": {"pk": {"S": "p"}, "sk": {"S": "a"}}}}]}});
    let (sdk, seen) = scripted(vec![(200, rest); 20]);
    let error = tables(&sdk).put_all(Table::Lists, vec![item("a")]).await.expect_err("no progress");
    assert!(matches!(error, PortError::Unavailable { .. }), "{error}");
    assert!((2..20).contains(&seen.lock().expect("no panic").len()));
}

fn message(n: usize) -> Outgoing {
    Outgoing { body: format!("{{\"n\":{n}}}"), group: None, dedup: None }
}

fn sent(id: &str) -> Value {
    json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "x"})
}

fn failed(id: &str, sender_fault: bool) -> Value {
    json!({"Id": id, "Code": "InternalError", "SenderFault": sender_fault})
}

#[tokio::test]
async fn failed_entries_are_sent_again_and_only_they() {
    let (sdk, seen) = scripted(vec![
        (200, json!({"Successful": [sent("0"), sent("2")], "Failed": [failed("1", false)]})),
        (200, json!({"Successful": [sent("1")], "Failed": []})),
    ]);
    queues(&sdk).send(Queue::Matches, (0..3).map(message).collect()).await.expect("all sent");
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen[0]["Entries"].as_array().map(Vec::len), Some(3));
    assert_eq!(seen[1]["Entries"], json!([{"Id": "1", "MessageBody": "{\"n\":1}"}]));
}

#[tokio::test]
async fn an_entry_that_the_queue_will_never_take_is_refused() {
    let (sdk, seen) = scripted(vec![(200, json!({"Successful": [], "Failed": [failed("0", true)]}))]);
    let error = queues(&sdk).send(Queue::Matches, vec![message(0)]).await.expect_err("our fault");
    assert!(matches!(error, PortError::Refused { .. }), "{error}");
    assert_eq!(seen.lock().expect("no panic").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn entries_that_keep_failing_are_an_error() {
    let (sdk, seen) = scripted(vec![(200, json!({"Successful": [], "Failed": [failed("0", false)]})); 20]);
    let error = queues(&sdk).send(Queue::Matches, vec![message(0)]).await.expect_err("failing");
    assert!(matches!(error, PortError::Unavailable { .. }), "{error}");
    assert_eq!(seen.lock().expect("no panic").len(), 6);
}

#[tokio::test]
async fn a_fifo_message_carries_its_group_and_deduplication_id() {
    let (sdk, seen) = scripted(vec![(200, json!({"Successful": [sent("0")], "Failed": []}))]);
    let rung = Outgoing { group: Some("g".to_owned()), dedup: Some("k/1".to_owned()), ..message(0) };
    queues(&sdk).send(Queue::ListWrites, vec![rung]).await.expect("sent");
    let entry = seen.lock().expect("no panic")[0]["Entries"][0].clone();
    assert_eq!((entry["MessageGroupId"].as_str(), entry["MessageDeduplicationId"].as_str()), (Some("g"), Some("k/1")));
}

#[tokio::test]
async fn a_message_is_hidden_by_the_handle_that_received_it() {
    let (sdk, seen) = scripted(vec![(200, json!({}))]);
    queues(&sdk).set_visibility("arn:aws:sqs:us-east-1:1:m", "handle", 7).await.expect("set");
    assert_eq!(
        seen.lock().expect("no panic")[0],
        json!({"QueueUrl": "https://sqs/1/m", "ReceiptHandle": "handle", "VisibilityTimeout": 7})
    );
}

const ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:marketo-AbCdEf";

/// Marketo's credentials from a Secrets Manager that answers so, and the requests that it saw.
async fn read(status: u16, answer: Value) -> (PortResult<Shown>, Vec<Value>) {
    let (sdk, seen) = scripted(vec![(status, answer)]);
    let sources = BTreeMap::from([(Vendor::Marketo, Source::SecretsManager(ARN.to_owned()))]);
    let found = KeptSecrets::new(crate::secrets_client(&sdk), sources, None).read(Vendor::Marketo).await;
    let seen = seen.lock().expect("no panic").clone();
    (found, seen)
}

/// The error of a secret that is this text, which holds a canary.
async fn refusal(text: &str) -> String {
    let (found, _) = read(200, json!({"ARN": ARN, "SecretString": text})).await;
    let error = found.expect_err("malformed");
    assert!(matches!(error, PortError::Refused { .. }), "{error}");
    assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_secret_is_read_by_its_arn() {
    let text = r#"{"client_id": "canary-id", "client_secret": "canary-secret", "note": 1}"#;
    let (found, seen) = read(200, json!({"ARN": ARN, "Name": "marketo", "SecretString": text})).await;
    let found = found.expect("credentials");
    assert_eq!(found, Shown::new("canary-id", "canary-secret"));
    assert!(!format!("{found:?}").contains("canary"));
    assert_eq!(seen, [json!({"SecretId": ARN})]);
}

#[tokio::test]
async fn a_malformed_secret_is_refused_by_what_is_missing_and_not_quoted() {
    for (text, missing) in [
        (r#"{"client_secret": "canary"}"#, "`client_id`"),
        (r#"{"client_id": "canary"}"#, "`client_secret`"),
        (r#"{"client_id": "canary", "client_secret": ""}"#, "`client_secret`"),
        (r#"{"client_id": "canary", "client_secret": ["canary"]}"#, "`client_secret`"),
        ("canary", "not a JSON object"),
        (r#""canary""#, "not a JSON object"),
        ("", "not a JSON object"),
    ] {
        let error = refusal(text).await;
        assert!(error.contains("Marketo") && error.contains(missing), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_secret_of_bytes_is_no_text() {
    let (found, _) = read(200, json!({"ARN": ARN, "SecretBinary": "Y2FuYXJ5"})).await;
    assert!(found.expect_err("bytes").to_string().contains("not a JSON object"));
}

#[tokio::test]
async fn a_secret_that_we_may_not_read_is_refused_without_the_services_words() {
    for code in ["AccessDeniedException", "ResourceNotFoundException", "DecryptionFailure"] {
        let (found, seen) = read(400, json!({"__type": code, "Message": "canary"})).await;
        let error = found.expect_err("refused");
        assert!(matches!(error, PortError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(code) && !format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(seen.len(), 1);
    }
}

#[tokio::test]
async fn credentials_of_the_environment_ask_nobody_and_those_of_nobody_are_refused() {
    let (sdk, seen) = scripted(Vec::new());
    let ours = Shown::new("canary", "canary");
    let sources = BTreeMap::from([(Vendor::Adobe, Source::Environment(ours.clone()))]);
    let secrets = KeptSecrets::new(crate::secrets_client(&sdk), sources, None);
    assert!(!format!("{secrets:?}").contains("canary"));
    assert_eq!(secrets.read(Vendor::Adobe).await.expect("ours"), ours);
    let error = secrets.read(Vendor::Marketo).await.expect_err("not declared");
    assert!(matches!(error, PortError::Refused { .. }), "{error}");
    assert!(seen.lock().expect("no panic").is_empty());
}

/// Secrets of streams that stand at the ARN.
fn at_the_arn(client: aws_sdk_secretsmanager::Client) -> KeptSecrets {
    KeptSecrets::new(client, BTreeMap::new(), Some(Source::SecretsManager(ARN.to_owned())))
}

#[tokio::test]
async fn secrets_of_streams_are_read_by_their_arn_and_not_remembered() {
    let text = |key: &str| json!({"ARN": ARN, "SecretString": json!({"feeds": {"web": {"keys": [key]}}}).to_string()});
    let (sdk, seen) = scripted(vec![(200, text("canary-1")), (200, text("canary-2"))]);
    let secrets = at_the_arn(crate::secrets_client(&sdk));
    for expected in ["canary-1", "canary-2"] {
        let found = secrets.streams().await.expect("secrets");
        assert!(!format!("{found:?} {secrets:?}").contains("canary"));
        assert_eq!(found.of("123-ABC-456", "web").expect("a feed").keys[0].expose_secret(), expected);
    }
    assert_eq!(*seen.lock().expect("no panic"), [json!({"SecretId": ARN}), json!({"SecretId": ARN})]);
}

#[tokio::test]
async fn malformed_secrets_of_streams_are_refused_and_those_of_nobody_too() {
    let malformed = json!({"ARN": ARN, "SecretString": r#"{"feeds": {"web": {"keys": "canary"}}}"#});
    let bytes = json!({"ARN": ARN, "SecretBinary": "Y2FuYXJ5"});
    for (answer, what) in [(malformed, "`keys`"), (bytes, "a JSON object")] {
        let (sdk, _) = scripted(vec![(200, answer)]);
        let error = at_the_arn(crate::secrets_client(&sdk)).streams().await.expect_err("malformed");
        assert!(matches!(error, PortError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(what) && !format!("{error:?} {error}").contains("canary"), "{error:?}");
    }
    let (sdk, seen) = scripted(Vec::new());
    let none = KeptSecrets::new(crate::secrets_client(&sdk), BTreeMap::new(), None);
    assert!(matches!(none.streams().await, Err(PortError::Refused { .. })));
    let given = StreamSecrets::parse(r#"{"feeds": {"web": {"tokens": ["canary"]}}}"#).expect("secrets");
    let given = KeptSecrets::new(crate::secrets_client(&sdk), BTreeMap::new(), Some(Source::Environment(given)));
    assert_eq!(given.streams().await.expect("ours").of("123-ABC-456", "web").expect("a feed").tokens.len(), 1);
    assert!(seen.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn an_event_that_the_bus_did_not_take_is_a_failure_that_names_its_code() {
    let announce = |answer: Value| async move {
        let (sdk, seen) = scripted(vec![(200, answer)]);
        let bus = EventBridge::new(crate::bus_client(&sdk), "default".to_owned());
        let one = Announcement { kind: "Incident began", detail: json!({"kind": "feed_late"}) };
        let answer = bus.announce(vec![one]).await;
        (answer, seen.lock().expect("no panic")[0].clone())
    };
    let (answer, sent) = announce(json!({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})).await;
    answer.expect("taken");
    let entry = &sent["Entries"][0];
    assert_eq!((&entry["Source"], &entry["DetailType"]), (&json!("audience-sync"), &json!("Incident began")));
    assert_eq!((&entry["EventBusName"], &entry["Detail"]), (&json!("default"), &json!(r#"{"kind":"feed_late"}"#)));

    let refused =
        json!({"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "canary"}]});
    let error = announce(refused).await.0.expect_err("not taken");
    assert!(format!("{error}").contains("InternalFailure") && !format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn dead_letters_are_counted_by_queue_and_empty_queues_are_left_out() {
    let depth = |count: &str| (200, json!({"Attributes": {"ApproximateNumberOfMessages": count}}));
    let (sdk, seen) = scripted(vec![depth("0"), depth("3")]);
    let urls = ["https://sqs/1/m-dead", "https://sqs/1/l-dead.fifo"].map(str::to_owned).to_vec();
    let found = queues(&sdk).with_dead_queues(urls).dead_letters().await.expect("an answer");
    assert_eq!(found, BTreeMap::from([("l-dead.fifo".to_owned(), 3)]));
    assert_eq!(seen.lock().expect("no panic").len(), 2);
    let (sdk, _) = scripted(Vec::new());
    assert!(queues(&sdk).dead_letters().await.expect("nobody is asked").is_empty());
}
