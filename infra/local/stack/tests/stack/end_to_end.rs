//! Whole stacks with a real function binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use serde_json::{Value, json};
use stack::runtime::InvokeError;
use stack::{LogLine, Options, Port, Stack, Stream, start};

use crate::eventually;

/// A stack in a folder, with what its functions wrote.
struct Running {
    stack: Stack,
    lines: Arc<Mutex<Vec<LogLine>>>,
}

fn options(folder: &Path, lines: &Arc<Mutex<Vec<LogLine>>>) -> Options {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_stack-test-function"));
    let lines = Arc::clone(lines);
    Options {
        template: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stack/template.yaml"),
        data_dir: folder.to_owned(),
        bin_dir: binary.parent().expect("folder").to_owned(),
        parameters: BTreeMap::new(),
        port: Port::Exact(0),
        log: Arc::new(move |line| lines.lock().expect("lock").push(line)),
    }
}

impl Running {
    async fn new(folder: &Path) -> Self {
        let lines = Arc::default();
        let stack = start(options(folder, &lines)).await.expect("stack");
        Self { stack, lines }
    }

    async fn invoke(&self, function: &str, event: Value) -> Result<Value, InvokeError> {
        let answer = self.stack.invoke(function, Bytes::from(event.to_string())).await.expect("function");
        answer.map(|answer| serde_json::from_slice(&answer).expect("answer"))
    }

    fn said(&self, part: &str) -> usize {
        let lines = self.lines.lock().expect("lock");
        lines.iter().filter(|line| line.stream == Stream::Stdout && line.text.contains(part)).count()
    }

    async fn hears(&self, part: &str) {
        eventually(part, || async { (self.said(part) > 0).then_some(()) }).await;
    }

    async fn depth(&self, queue: &str) -> u64 {
        let queues = self.stack.queues().await;
        queues.iter().find(|one| one.name == queue).map(|one| one.visible + one.in_flight).expect("queue")
    }

    async fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::config::Builder::from(&crate::sdk()).endpoint_url(self.stack.endpoints().sqs);
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    async fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config =
            aws_sdk_dynamodb::config::Builder::from(&crate::sdk()).endpoint_url(self.stack.endpoints().dynamodb);
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    async fn s3(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&crate::sdk())
            .endpoint_url(self.stack.endpoints().s3)
            .force_path_style(true);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    fn url(&self, queue: &str) -> String {
        format!("{}/{}/{queue}", self.stack.endpoints().sqs, stack::ACCOUNT)
    }
}

/// The event that the function was given: it echoes it.
async fn event_of(answer: reqwest::Response) -> Value {
    let body = answer.bytes().await.expect("body");
    serde_json::from_slice::<Value>(&body).expect("json")["event"].clone()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

#[tokio::test]
async fn a_function_runs_with_its_environment_and_deadline_and_stays_warm() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("time");
    let first = running.invoke("worker", json!({ "now_ms": now_ms })).await.expect("answer");
    // The deadline is the time-out (1 s) after the hand-over; starting the process took some of the margin.
    let left_ms = first["left_ms"].as_u64().expect("left");
    assert!((900..30_000).contains(&left_ms), "{left_ms}");
    let environment = &first["environment"];
    assert_eq!(environment["TABLE"], "local-Things");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_NAME"], "worker");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "256");
    assert_eq!(environment["AWS_REGION"], "us-east-1");
    assert_eq!(environment["TIME_SCALE"], "1");
    let endpoint = format!("{}/worker", running.stack.endpoints().sqs);
    assert_eq!(environment["AWS_ENDPOINT_URL_SQS"], json!(endpoint));
    assert!(environment.get("HOME").is_none(), "the caller's environment does not leak");
    let second = running.invoke("worker", json!({})).await.expect("answer");
    assert_eq!(first["pid"], second["pid"]);
    running.stack.shutdown().await;
}

#[tokio::test]
async fn errors_and_panics_are_answers_and_keep_the_process() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let pid = running.invoke("worker", json!({})).await.expect("answer")["pid"].clone();
    for command in ["fail", "panic"] {
        let error = running.invoke("worker", json!({ "do": command })).await.expect_err("an error");
        assert!(matches!(&error, InvokeError::Function { message, .. } if message.contains("as told")), "{error}");
    }
    assert_eq!(running.invoke("worker", json!({})).await.expect("answer")["pid"], pid);
    running.stack.shutdown().await;
}

#[tokio::test]
async fn a_crash_fails_the_invocation_and_the_next_one_gets_a_new_process() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let error = running.invoke("worker", json!({ "do": "crash" })).await.expect_err("an error");
    assert_eq!(error, InvokeError::Crashed("exit status: 7".into()));
    running.invoke("worker", json!({})).await.expect("answer");
    running.stack.shutdown().await;
}

#[tokio::test]
async fn a_time_out_kills_the_process() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let pid = running.invoke("worker", json!({})).await.expect("answer")["pid"].clone();
    let error = running.invoke("worker", json!({ "do": "hang" })).await.expect_err("an error");
    assert_eq!(error, InvokeError::TimedOut(1_000));
    assert_ne!(running.invoke("worker", json!({})).await.expect("answer")["pid"], pid);
    running.stack.shutdown().await;
}

#[tokio::test]
async fn a_function_that_does_not_start_says_why() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let error = running.invoke("broken", json!({})).await.expect_err("an error");
    assert!(matches!(error, InvokeError::Init(_)), "{error}");
    let lines = running.lines.lock().expect("lock").clone();
    assert!(lines.iter().any(|line| line.function == "broken" && line.text.contains("will not start")), "{lines:?}");
    running.stack.shutdown().await;
}

#[tokio::test]
async fn init_lasts_until_the_first_question_for_an_event_and_leaves_no_process() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let pid = running.invoke("worker", json!({})).await.expect("answer")["pid"].clone();
    running.stack.init("worker").await.expect("it asks for an event");
    assert_eq!(running.invoke("worker", json!({})).await.expect("answer")["pid"], pid, "it stood aside");
    let error = running.stack.init("broken").await.expect_err("it ends before");
    assert!(error.to_string().starts_with("broken ended before its first event: exit status: 1"), "{error}");
    assert!(running.stack.init("nobody").await.is_err());
    running.stack.shutdown().await;
}

#[tokio::test]
async fn a_killed_idle_process_costs_nothing_and_a_killed_busy_one_its_invocation() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    running.hears("s3:TestEvent").await;
    eventually("it is idle", || async { (running.stack.invocations_in_flight() == 0).then_some(()) }).await;
    running.invoke("reader", json!({})).await.expect("answer");
    running.stack.kill("reader").await.expect("kill");
    running.invoke("reader", json!({})).await.expect("a new process answers");
    let (busy, ()) = tokio::join!(running.invoke("reader", json!({ "do": "hang" })), async {
        running.hears("hanging").await;
        assert_eq!(running.stack.invocations_in_flight(), 1);
        running.stack.kill("reader").await.expect("kill");
    });
    assert!(matches!(&busy, Err(InvokeError::Crashed(how)) if how.contains("signal: 9")), "{busy:?}");
    assert_eq!(running.stack.invocations_in_flight(), 0);
    assert!(running.stack.kill("nobody").await.is_err());
    running.stack.shutdown().await;
}

#[tokio::test]
async fn messages_reach_the_function_and_poison_the_dead_letters() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let sqs = running.sqs().await;
    for body in ["hello", r#"{"do":"crash"}"#] {
        sqs.send_message().queue_url(running.url("local-Work")).message_body(body).send().await.expect("send");
    }
    running.hears("message hello").await;
    eventually("a dead letter", || async {
        (running.depth("local-Work").await == 0 && running.depth("local-WorkDead").await > 0).then_some(())
    })
    .await;
    running.stack.shutdown().await;
}

#[tokio::test]
async fn requests_become_events_and_answers_responses() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", running.stack.url());

    let request = http.post(url("/do/a%20b?x=1&x=2&y=%C3%A9")).header("cookie", "c=1; d=2").header("X-Two", "1");
    let answer = request.header("content-type", "application/json").body(r#"{"a":1}"#).send().await.expect("answer");
    assert_eq!(answer.status(), 200);
    let event = event_of(answer).await;
    assert_eq!(event["version"], "2.0");
    assert_eq!(event["routeKey"], "ANY /do/{id}");
    assert_eq!(event["rawPath"], "/do/a b");
    assert_eq!(event["rawQueryString"], "x=1&x=2&y=%C3%A9");
    assert_eq!(event["queryStringParameters"], json!({ "x": "1,2", "y": "é" }));
    assert_eq!(event["pathParameters"], json!({ "id": "a b" }));
    assert_eq!(event["cookies"], json!(["c=1", "d=2"]));
    assert_eq!(event["headers"]["x-two"], "1");
    assert_eq!(event["requestContext"]["http"]["method"], "POST");
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(r#"{"a":1}"#), &json!(false)));

    let answer = http.put(url("/do/x")).header("content-type", "application/gzip").body(vec![0x1f, 0x8b, 0xff]);
    let event = event_of(answer.send().await.expect("answer")).await;
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("H4v/"), &json!(true)));

    let answer = http.get(url("/do/fixed?do=answer")).send().await.expect("answer");
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-made"], "yes");
    let cookies: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(answer.text().await.expect("body"), "hi");
    running.stack.shutdown().await;
}

#[tokio::test]
async fn the_gateway_keeps_the_limits_of_aws() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", running.stack.url());
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("answer").status().as_u16();

    assert_eq!(status(http.get(url("/nowhere"))).await, 404);
    assert_eq!(status(http.get(url("/do/x")).header("x-long", "y".repeat(10_000))).await, 200);
    assert_eq!(status(http.get(url("/do/x")).header("x-long", "y".repeat(10_240))).await, 431);
    // What a big site's cookies do.
    assert_eq!(status(http.get(url("/do/x")).header("cookie", format!("a={}", "y".repeat(10_240)))).await, 431);
    assert_eq!(status(http.get(url(&format!("/do/{}", "y".repeat(10_240))))).await, 431);
    assert_eq!(status(http.post(url("/do/x")).body(vec![b'x'; 6 * 1024 * 1024])).await, 413);
    assert_eq!(status(http.get(url("/do/x?do=fail"))).await, 500);
    assert_eq!(status(http.get(url("/do/x?do=crash"))).await, 500);
    assert_eq!(status(http.get(url("/do/x?do=hang"))).await, 500);
    assert_eq!(status(http.get(url("/do/x?do=large"))).await, 500);
    // A 4xx of the function's own is none of the gateway's.
    assert_eq!(status(http.get(url("/do/x?do=refuse"))).await, 422);
    assert_eq!(running.stack.edge_4xx(), BTreeMap::from([(404, 1), (413, 1), (431, 3)]));
    running.stack.shutdown().await;
}

#[tokio::test]
async fn each_request_is_a_line_of_the_access_log_without_anything_of_the_caller() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", running.stack.url());
    let request = http.post(url("/do/canary?x=canary")).header("cookie", "c=canary").header("user-agent", "canary");
    assert_eq!(request.body("canary").send().await.expect("answer").status(), 200);
    assert_eq!(http.get(url("/canary?canary")).send().await.expect("answer").status(), 404);
    running.stack.shutdown().await;
    let log = std::fs::read_to_string(folder.path().join("logs/api.log")).expect("the access log");
    assert!(!log.contains("canary"), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [served, refused] = lines.as_slice() else { panic!("{log}") };
    assert_eq!((&served["routeKey"], &served["status"]), (&json!("ANY /do/{id}"), &json!("200")));
    assert!(served["latency"].as_str().is_some_and(|ms| ms.parse::<u64>().is_ok()), "{served}");
    assert!(served["length"].as_str().is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 0)), "{served}");
    assert_eq!(
        (&refused["routeKey"], &refused["status"], &refused["latency"]),
        (&json!("-"), &json!("404"), &json!("-"))
    );
}

#[tokio::test]
async fn a_put_tells_the_function_once_per_object_under_its_prefix() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    running.hears("s3:TestEvent").await;
    running.stack.put_object("elsewhere/x", "1").await.expect("put");
    running.stack.put_object("incoming/a b+é.sync", "12345").await.expect("put");
    let s3 = running.s3().await;
    let body = aws_sdk_s3::primitives::ByteStream::from_static(b"from outside");
    s3.put_object().bucket("local-bucket").key("incoming/sdk").body(body).send().await.expect("put");
    running.hears("incoming/sdk").await;
    running.hears("incoming/a+b%2B%C3%A9.sync").await;
    let line = running.lines.lock().expect("lock").iter().find(|line| line.text.contains("a+b")).cloned();
    let text = line.expect("line").text;
    let event: Value = serde_json::from_str(text.trim_start_matches("message ")).expect("event");
    let record = &event["Records"][0];
    assert_eq!(record["eventName"], "ObjectCreated:Put");
    assert_eq!(record["s3"]["bucket"]["name"], "local-bucket");
    assert_eq!(record["s3"]["object"]["size"], 5);
    // MD5 of "12345".
    assert_eq!(record["s3"]["object"]["eTag"], "827ccb0eea8a706c4c34a16891f84e7b");
    assert_eq!(running.said("elsewhere"), 0);
    let object = s3.get_object().bucket("local-bucket").key("incoming/a b+é.sync").send().await.expect("get");
    assert_eq!(object.body.collect().await.expect("body").into_bytes(), "12345");
    running.stack.shutdown().await;

    let again = Running::new(folder.path()).await;
    again.invoke("reader", json!({})).await.expect("answer");
    again.stack.put_object("incoming/second", "1").await.expect("put");
    again.hears("incoming/second").await;
    assert_eq!(again.said("s3:TestEvent"), 0, "the test event is sent once per bucket");
    again.stack.shutdown().await;
}

#[tokio::test]
async fn accepted_messages_and_items_survive_a_restart() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    let sqs = running.sqs().await;
    let parked = running.url("local-Parked");
    for body in ["gone", "kept"] {
        sqs.send_message().queue_url(&parked).message_body(body).send().await.expect("send");
    }
    let got = sqs.receive_message().queue_url(&parked).send().await.expect("receive");
    let message = &got.messages()[0];
    assert_eq!(message.body(), Some("gone"));
    let receipt = message.receipt_handle().expect("receipt");
    sqs.delete_message().queue_url(&parked).receipt_handle(receipt).send().await.expect("delete");
    let entry = |id: &str| {
        aws_sdk_sqs::types::SendMessageBatchRequestEntry::builder()
            .id(id)
            .message_body(format!("ring {id}"))
            .message_group_id("g")
            .message_deduplication_id("same")
            .build()
            .expect("entry")
    };
    let fifo = running.url("local-ParkedFifo.fifo");
    let batch = sqs.send_message_batch().queue_url(&fifo).entries(entry("1")).entries(entry("2"));
    assert_eq!(batch.send().await.expect("batch").successful().len(), 2);
    let item = running.dynamodb().await.put_item().table_name("local-Things");
    item.item("pk", AttributeValue::S("x".into())).send().await.expect("put");
    // As if killed: nothing gets a chance to be tidy.
    drop(running);

    for _ in 0..2 {
        let running = Running::new(folder.path()).await;
        assert_eq!(running.depth("local-Parked").await, 1);
        assert_eq!(running.depth("local-ParkedFifo.fifo").await, 1, "a duplicate stays a duplicate");
        let got =
            running.dynamodb().await.get_item().table_name("local-Things").key("pk", AttributeValue::S("x".into()));
        assert!(got.send().await.expect("get").item().is_some());
        running.stack.shutdown().await;
    }
}

#[tokio::test]
async fn schedules_tick_at_their_scaled_rate_and_on_demand() {
    let folder = folder();
    let running = Running::new(folder.path()).await;
    running.stack.tick().await;
    running.hears(r#"scheduled "Scheduled Event" "aws.scheduler""#).await;
    assert_eq!(running.said("scheduled"), 1, "at scale 1 the next tick is a minute away");
    running.stack.shutdown().await;

    let lines = Arc::default();
    let mut scaled = options(folder.path(), &lines);
    scaled.parameters.insert("TimeScale".into(), "0.001".into());
    let running = Running { stack: start(scaled).await.expect("stack"), lines };
    eventually("three ticks", || async { (running.said("scheduled") >= 3).then_some(()) }).await;
    running.stack.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said() {
    let folder = folder();
    let lines = Arc::default();
    let error = |result: anyhow::Result<Stack>| format!("{:#}", result.err().expect("an error"));
    let mut missing = options(folder.path(), &lines);
    missing.bin_dir = folder.path().to_owned();
    assert!(error(start(missing).await).contains("is missing: "));

    let running = Running::new(folder.path()).await;
    assert!(error(start(options(folder.path(), &lines)).await).contains("another stack uses the data folder"));
    let other = tempfile::tempdir().expect("folder");
    let mut busy = options(other.path(), &lines);
    let port = running.stack.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("port");
    busy.port = Port::Exact(port);
    assert!(error(start(busy).await).contains(&format!("port {port} is not free")));
    let mut next = options(other.path(), &lines);
    next.port = Port::Preferred(port);
    let second = start(next).await.expect("the next free port");
    assert_ne!(second.url(), running.stack.url());
    second.shutdown().await;
    running.stack.shutdown().await;
}
