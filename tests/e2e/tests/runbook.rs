//! Each page of `infra/docs/runbook.md`, tried out: what it is about is brought about on the local stack, with the real functions,
//! what it says one will see is looked at, what it says is done, and it ends well. A test bears the name of its page.
//!
//! A function is deployed wrongly by putting a script in the place of its binary. The embedded SQS has no move task: a dead letter
//! is received from the dead-letter queue and sent to the queue again, which is what that task does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Which};
use doubles::system_clock;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use stack::{ACCOUNT, LogLine, Options, Port, Stack, Stream};
use tempfile::TempDir;
use world::World;

use crate::run::{FUNCTIONS, eventually, program};
use crate::vendors::Vendors;

const RUNBOOK: &str = include_str!("../../../infra/docs/runbook.md");
const ORIGIN: &str = "https://www.example.com";
const ANNA: u64 = 100_001;
const BEN: u64 = 100_002;
const CARLA: u64 = 100_003;
const EVA: u64 = 100_005;
const VIP: u64 = 1001;
const RETURNING: u64 = 1002;
const MATCHES: &str = "local-matches";
const DEAD_MATCHES: &str = "local-matches-dead";

/// The functions' own binaries, built once.
fn built() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        // It takes the functions away that somebody has built before, so it comes first.
        program();
        stack::build_functions(&mut |_| {}).expect("the functions")
    };
    BUILT.get_or_init(build).clone()
}

/// A deployment with the five people of the fixture.
struct Rig {
    folder: TempDir,
    world: World,
    vendors: Vendors,
    client: Client,
    parameters: BTreeMap<String, String>,
    lines: Arc<Mutex<Vec<LogLine>>>,
    stack: Option<Stack>,
}

impl Rig {
    /// Deployed, with the subscription, the feed and nothing else.
    async fn deployed() -> Self {
        let real = built();
        let folder = TempDir::new().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        for name in FUNCTIONS {
            symlink(real.join(name), bin.join(name)).expect("a link");
        }
        let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
        // Whatever fails again and again is dead soon.
        let template = template.replace("maxReceiveCount: 100\n", "maxReceiveCount: 2\n");
        fs::write(folder.path().join("template.yaml"), template).expect("the template");

        let world = world::folder::read(&root().join("tests/fixtures/tiny")).expect("the fixture");
        let vendors = Vendors::of(&world).await;
        let parameters = vendors.parameters.clone();
        let client = Client::builder().no_proxy().build().expect("a client");
        let lines = Arc::default();
        let mut rig = Self { folder, world, vendors, client, parameters, lines, stack: None };
        rig.start().await;
        rig.set_up().await;
        rig
    }

    /// The same, with matches, syncs and the first file: `VIP` holds Anna and Carla, and Ben, who was there before.
    async fn settled() -> Self {
        let rig = Self::deployed().await;
        rig.send_matches().await;
        rig.make_syncs().await;
        rig.deliver(0).await;
        rig.until("the first file", VIP, &[ANNA, BEN, CARLA]).await;
        rig.until("the first file", RETURNING, &[ANNA]).await;
        rig.settle().await;
        rig
    }

    async fn start(&mut self) {
        let lines = Arc::clone(&self.lines);
        let options = Options {
            template: self.folder.path().join("template.yaml"),
            data_dir: self.state(),
            bin_dir: self.folder.path().join("bin"),
            parameters: self.parameters.clone(),
            port: Port::Exact(0),
            log: Arc::new(move |line| lines.lock().expect("lines").push(line)),
        };
        self.stack = Some(stack::start(options).await.expect("the stack starts"));
    }

    async fn stop(&mut self) {
        self.stack.take().expect("a running stack").shutdown().await;
        // The tables' file is whole once SQLite has taken its log away.
        eventually("closed tables", async || {
            let files =
                fs::read_dir(self.state()).expect("the state").map(|entry| entry.expect("an entry").file_name());
            let open = files.into_iter().any(|name| name.to_string_lossy().ends_with("-wal"));
            (!open).then_some(())
        })
        .await;
    }

    fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("a running stack")
    }

    /// Where tables, objects and queues are kept.
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    async fn set_up(&self) {
        self.subscribe(&json!({"extract_since": self.vendors.extract_since()})).await;
        self.api(Method::PUT, "/feeds/default", &json!({"snapshots": true, "completeness": "single-file"})).await;
    }

    /// Sets the subscription up with these settings beside what it is.
    async fn subscribe(&self, more: &Value) {
        let m = &self.world.marketo;
        let mut body = json!({"munchkin_id": m.munchkin_id, "org_id": m.org_id, "origins": [ORIGIN]});
        for (name, value) in more.as_object().expect("settings") {
            body[name] = value.clone();
        }
        self.api(Method::PUT, "/subscription", &body).await;
    }

    async fn make_syncs(&self) {
        for (n, sync) in self.world.syncs.iter().enumerate() {
            let body = json!(sync);
            eventually("the sync", async || {
                let path = format!("{}/syncs", self.stack().url());
                let request = self.client.post(path).header("idempotency-key", n.to_string()).body(body.to_string());
                let status = request.send().await.expect("an answer").status().as_u16();
                assert!(status < 300 || status == 503, "{status}");
                // 202: its list is being made.
                matches!(status, 200 | 201).then_some(())
            })
            .await;
        }
    }

    /// A request to the API that must succeed.
    async fn api(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method.clone(), format!("{}{path}", self.stack().url()));
        let request = if method == Method::GET { request } else { request.body(body.to_string()) };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a body");
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    /// The report of a sync, once everybody it wants is as it should be. While a list's state is being replaced the answer may
    /// be 503: whoever looks asks again.
    async fn reported(&self, sync: &str, people: u64) -> Option<()> {
        let path = format!("{}/syncs/{sync}/report", self.stack().url());
        let answer = self.client.get(path).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        assert!([200, 404, 503].contains(&status), "{status} {text}");
        let report: Value = serde_json::from_str(&text).unwrap_or_default();
        (report["people"] == people && report["waiting"] == 0).then_some(())
    }

    async fn get(&self, path: &str) -> Value {
        self.api(Method::GET, path, &Value::Null).await
    }

    async fn sync_of(&self, list: u64) -> String {
        let syncs = self.get("/syncs").await;
        let mine = syncs
            .as_array()
            .expect("syncs")
            .iter()
            .find(|sync| sync["list"]["id"] == list && sync["status"] != "stopped");
        mine.expect("a sync")["id"].as_str().expect("an id").to_owned()
    }

    /// What a server of the site sends: an ECID beside a token.
    fn a_match(&self, ecid: u32, token: &str, seen_at: &str) -> Value {
        let m = &self.world.marketo;
        json!({"org_id": m.org_id, "munchkin_id": m.munchkin_id, "ecid": format!("{ecid:038}"), "token": token, "seen_at": seen_at})
    }

    async fn send_matches(&self) {
        let m = &self.world.marketo;
        let item = |one: &world::types::Match| json!({"org_id": m.org_id, "munchkin_id": m.munchkin_id, "ecid": one.ecid, "token": one.token, "seen_at": one.seen_at});
        let all: Value = self.world.matches.iter().map(item).collect();
        self.api(Method::POST, "/matches", &all).await;
    }

    /// A page view: status.
    async fn page_view(&self, ecid: u32, token: &str, more: &[(&str, String)]) -> u16 {
        let m = &self.world.marketo;
        let body =
            json!({"org_id": m.org_id, "munchkin_id": m.munchkin_id, "ecid": format!("{ecid:038}"), "token": token});
        let mut request = self.client.post(format!("{}/beacon", self.stack().url())).header("origin", ORIGIN);
        for (name, value) in more {
            request = request.header(*name, value);
        }
        let answer = request.header("content-type", "text/plain").body(body.to_string()).send().await;
        answer.expect("an answer").status().as_u16()
    }

    async fn deliver(&self, n: usize) {
        let file = &self.world.files[n];
        self.stack().put_object(&format!("incoming/{}", file.name), file.bytes.to_vec()).await.expect("stored");
    }

    fn members(&self, list: u64) -> BTreeSet<u64> {
        self.vendors.marketo.lock().members(list).cloned().unwrap_or_default()
    }

    async fn until(&self, what: &str, list: u64, people: &[u64]) {
        let people: BTreeSet<u64> = people.iter().copied().collect();
        eventually(what, async || (self.members(list) == people).then_some(())).await;
    }

    /// Waits until nothing is left to do.
    async fn settle(&self) {
        eventually("rest", async || {
            let held: u64 = self.stack().queues().await.iter().map(|queue| queue.visible + queue.in_flight).sum();
            let status = self.get("/status").await;
            (held == 0 && self.stack().invocations_in_flight() == 0 && status["settled"] == true).then_some(())
        })
        .await;
    }

    /// How many messages lie in a queue.
    async fn depth(&self, queue: &str) -> u64 {
        let queues = self.stack().queues().await;
        queues.iter().filter(|found| found.name == queue).map(|found| found.visible + found.in_flight).sum()
    }

    /// What a function has logged at this level since so many lines of all.
    fn logged(&self, function: &str, level: &str, since: usize) -> Vec<Value> {
        let lines = self.lines.lock().expect("lines");
        let mine = lines[since..].iter().filter(|line| line.function == function && line.stream == Stream::Stdout);
        let lines = mine.filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
        lines.filter(|line| line["level"] == level).collect()
    }

    /// Waits until a function's errors since so many lines of all name this reason.
    async fn until_error(&self, function: &str, reason: &str, since: usize) {
        eventually(&format!("an error of {function}: {reason}"), async || {
            let said = serde_json::to_string(&self.logged(function, "ERROR", since)).expect("JSON");
            said.contains(reason).then_some(())
        })
        .await;
    }

    /// How many answers of this status the API's access log has by a route since so many lines of all.
    fn answered(&self, route: &str, status: &str, since: usize) -> usize {
        let lines = self.lines.lock().expect("lines");
        let mine = lines[since..].iter().filter(|line| line.function == "api");
        let rows = mine.map(|line| serde_json::from_str::<Value>(&line.text).expect("JSON"));
        rows.filter(|row| row["routeKey"] == route && row["status"] == status).count()
    }

    /// The wide events of a function.
    fn metrics(&self, function: &str) -> Vec<Value> {
        let lines = self.lines.lock().expect("lines");
        let mine = lines.iter().filter(|line| line.function == function);
        let lines = mine.filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
        lines.filter(|line| line.get("_aws").is_some()).collect()
    }

    fn now(&self) -> usize {
        self.lines.lock().expect("lines").len()
    }

    /// Deploys a function anew; with a variable of its environment that somebody got wrong, or as it should be.
    async fn deploy(&self, function: &str, wrong: Option<&str>) {
        let (path, real) = (self.folder.path().join("bin").join(function), built().join(function));
        fs::remove_file(&path).expect("the binary");
        match wrong {
            None => symlink(real, &path).expect("a link"),
            Some(wrong) => {
                fs::write(&path, format!("#!/bin/sh\n{wrong} exec {}\n", real.display())).expect("a script");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
            }
        }
        self.stack().kill(function).await.expect("no process of before");
    }

    /// A call to SQS, as the AWS CLI makes it.
    async fn sqs(&self, action: &str, queue: &str, more: &Value) -> Value {
        let endpoint = self.stack().endpoints().sqs;
        let mut body = json!({"QueueUrl": format!("{endpoint}/{ACCOUNT}/{queue}")});
        for (name, value) in more.as_object().expect("arguments") {
            body[name] = value.clone();
        }
        let request = self.client.post(&endpoint).header("x-amz-target", format!("AmazonSQS.{action}"));
        let answer = request.header("content-type", "application/x-amz-json-1.0").body(body.to_string()).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        assert_eq!(status, 200, "{action} {queue}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A call to DynamoDB.
    async fn dynamodb(&self, action: &str, body: &Value) -> Value {
        let request = self.client.post(self.stack().endpoints().dynamodb);
        let request = request.header("x-amz-target", format!("DynamoDB_20120810.{action}"));
        // The embedded server asks for a signature, and does not check it.
        let signed = "AWS4-HMAC-SHA256 Credential=outside/20261123/us-east-1/dynamodb/aws4_request, \
            SignedHeaders=host, Signature=0";
        let request = request.header("authorization", signed).header("x-amz-date", "20261123T000000Z");
        let answer = request.header("content-type", "application/x-amz-json-1.0").body(body.to_string()).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        assert_eq!(status, 200, "{action}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Writes a row: what hours or days that a test does not wait for would have left.
    async fn put_row(&self, table: &str, pk: &str, sk: &str, doc: &Value) {
        let item = json!({"pk": {"S": pk}, "sk": {"S": sk}, "rev": {"N": "1000000"}, "doc": {"S": doc.to_string()}});
        self.dynamodb("PutItem", &json!({"TableName": table, "Item": item})).await;
    }

    /// The log has a line by which the template's alarm of this kind of incident goes off, and the console tells of it as well.
    async fn until_told(&self, kind: &str, since: usize) {
        eventually("the line of the alarm", async || {
            let lines = self.logged("scheduled-incremental-sync", "WARN", since);
            lines.iter().any(|line| line["incident"] == kind).then_some(())
        })
        .await;
        eventually("the incident", async || self.lasts(kind).await.then_some(())).await;
    }

    async fn until_over(&self, kind: &str) {
        eventually("the incident is over", async || (!self.lasts(kind).await).then_some(())).await;
    }

    async fn lasts(&self, kind: &str) -> bool {
        let alerts = self.get("/alerts").await;
        let all = alerts["incidents"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["kind"] == kind && one["ended_at"].is_null())
    }

    /// Deployed again with other parameters.
    async fn redeploy(&mut self, parameters: &[(&str, &str)]) {
        self.stop().await;
        for (name, value) in parameters {
            self.parameters.insert((*name).to_owned(), (*value).to_owned());
        }
        self.start().await;
    }

    /// Puts the messages of a dead-letter queue back, as `start-message-move-task` does; how many.
    async fn redrive(&self, dead: &str, queue: &str) -> usize {
        let mut moved = 0;
        loop {
            let asked = json!({"MaxNumberOfMessages": 10, "AttributeNames": ["All"], "VisibilityTimeout": 30});
            let found = self.sqs("ReceiveMessage", dead, &asked).await;
            let Some(messages) = found["Messages"].as_array().filter(|messages| !messages.is_empty()) else {
                return moved;
            };
            for message in messages {
                let mut again = json!({"MessageBody": message["Body"]});
                if let Some(group) = message["Attributes"]["MessageGroupId"].as_str() {
                    again["MessageGroupId"] = json!(group);
                    again["MessageDeduplicationId"] = json!(format!("redriven {}", message["MessageId"]));
                }
                self.sqs("SendMessage", queue, &again).await;
                self.sqs("DeleteMessage", dead, &json!({"ReceiptHandle": message["ReceiptHandle"]})).await;
                moved += 1;
            }
        }
    }

    /// Calls to Marketo of this kind so far.
    fn calls(&self, kind: Kind) -> usize {
        self.vendors.marketo.lock().calls().iter().filter(|call| call.kind == kind).count()
    }

    async fn end(mut self) {
        self.stop().await;
        let lines = self.lines.lock().expect("lines");
        let personal = lines.iter().find(|line| repo::canaries::personal(&line.text).is_some());
        assert!(personal.is_none(), "a log holds a personal value: {:?}", personal.map(|line| &line.function));
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// *VIP* with the second file: Carla leaves.
const AFTER_THE_SECOND: &[u64] = &[ANNA, BEN];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_a_dead_letter_queue() {
    let rig = Rig::settled().await;
    let since = rig.now();
    let pause = rig.stack().pause(MATCHES).await;
    let bens = rig.a_match(7, "_mch-example.com-1793000000000-10003", "2026-10-29T00:00:00Z");
    rig.api(Method::POST, "/matches", &bens).await;
    // Matches cannot be stored: the function names a table that is not there.
    rig.deploy("cookie-ingest", Some("IDENTITY_TABLE=local-NoSuchTable")).await;
    drop(pause);
    eventually("a dead letter", async || (rig.depth(DEAD_MATCHES).await == 1).then_some(())).await;
    assert_eq!(rig.depth(MATCHES).await, 0);
    // What the page says to look at.
    let errors = rig.logged("cookie-ingest", "ERROR", since);
    let said = serde_json::to_string(&errors).expect("JSON");
    assert!(said.contains("dynamodb"), "the log names what was wrong: {said}");
    // The console tells as well.
    eventually("an incident", async || {
        let alerts = rig.get("/alerts").await;
        let all = alerts["incidents"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["kind"] == "dead_letters" && one["subject"] == DEAD_MATCHES).then_some(())
    })
    .await;
    assert_eq!(rig.members(RETURNING), BTreeSet::from([ANNA]), "Ben's match is not stored");

    rig.deploy("cookie-ingest", None).await;
    assert_eq!(rig.redrive(DEAD_MATCHES, MATCHES).await, 1);
    rig.until("Ben joins by his match", RETURNING, &[ANNA, BEN]).await;
    assert_eq!(rig.depth(DEAD_MATCHES).await, 0);

    // A ring of a later version is dead at once, and may be purged: the table says what it said.
    let since = rig.now();
    let munchkin = &rig.world.marketo.munchkin_id;
    let ring = json!({"v": 2, "kind": "list", "munchkin": munchkin, "id": VIP.to_string(), "version": 9});
    let later = json!({"MessageBody": ring.to_string(), "MessageGroupId": munchkin, "MessageDeduplicationId": "later"});
    rig.sqs("SendMessage", "local-list-writes.fifo", &later).await;
    let dead = "local-list-writes-dead.fifo";
    eventually("a dead ring", async || (rig.depth(dead).await == 1).then_some(())).await;
    assert!(!rig.logged("list-writer", "ERROR", since).is_empty());
    // The embedded SQS purges no queue either.
    let found = rig.sqs("ReceiveMessage", dead, &json!({})).await;
    let receipt = &found["Messages"][0]["ReceiptHandle"];
    rig.sqs("DeleteMessage", dead, &json!({"ReceiptHandle": receipt})).await;
    rig.deliver(1).await;
    rig.until("the second file, beside it", VIP, &[ANNA, BEN]).await;
    assert_eq!(rig.depth(dead).await, 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_waits() {
    let rig = Rig::settled().await;
    let since = rig.now();
    let queue = "local-list-writes.fifo";
    // As if somebody had disabled the event source mapping.
    let pause = rig.stack().pause(queue).await;
    rig.deliver(1).await;
    eventually("a message that waits", async || (rig.depth(queue).await > 0).then_some(())).await;
    // Nothing fails, and nothing is lost: it waits.
    eventually("others go on", async || {
        let imports = rig.get("/imports").await;
        imports.as_array().expect("imports").iter().filter(|import| import["status"] == "done").nth(1).map(|_| ())
    })
    .await;
    assert_eq!(rig.logged("list-writer", "ERROR", since), Vec::<Value>::new());
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]), "the list falls behind");
    drop(pause);
    rig.until("the list follows", VIP, AFTER_THE_SECOND).await;

    // A table cannot be reached: messages fail and return, and the function itself does not fail.
    let since = rig.now();
    let outcomes = rig.metrics("cookie-ingest").len();
    let pause = rig.stack().pause(MATCHES).await;
    let carlas = rig.a_match(7, "_mch-example.com-1793000000000-10004", "2026-10-29T00:00:00Z");
    rig.api(Method::POST, "/matches", &carlas).await;
    rig.deploy("cookie-ingest", Some("AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:9")).await;
    drop(pause);
    eventually("the alarm's metric", async || {
        let is_one = |event: &Value| {
            let names = event["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().cloned().unwrap_or_default();
            event["records_failed"].as_u64() > Some(0) && names.iter().any(|metric| metric["Name"] == "records_failed")
        };
        rig.metrics("cookie-ingest")[outcomes..].iter().any(is_one).then_some(())
    })
    .await;
    assert!(rig.metrics("cookie-ingest")[outcomes..].iter().all(|event| event["outcome"] == "ok"));
    // What the page says to look at names the reason.
    let said = serde_json::to_string(&rig.logged("cookie-ingest", "WARN", since)).expect("JSON");
    assert!(said.contains("will be tried again") && said.contains("dynamodb"), "{said}");
    rig.deploy("cookie-ingest", None).await;
    // It may be dead by now.
    eventually("the match is stored", async || {
        rig.redrive(DEAD_MATCHES, MATCHES).await;
        (rig.members(VIP) == BTreeSet::from([ANNA, BEN, CARLA])).then_some(())
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_fails() {
    let rig = Rig::settled().await;
    let since = rig.now();
    rig.deploy("list-writer", Some("LISTS_TABLE=local-NoSuchTable")).await;
    rig.deliver(1).await;
    rig.until_error("list-writer", "dynamodb", since).await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]));
    rig.deploy("list-writer", None).await;
    rig.until("the list follows", VIP, AFTER_THE_SECOND).await;

    // Marketo does not take the credentials any more: an operator has made new ones.
    let since = rig.now();
    rig.deploy("list-writer", Some("MARKETO_CLIENT_SECRET=wrong")).await;
    let carlas = rig.a_match(7, "_mch-example.com-1793000000000-10004", "2026-10-29T00:00:00Z");
    rig.api(Method::POST, "/matches", &carlas).await;
    rig.until_error("list-writer", "Marketo refused a request with code 401", since).await;
    rig.deploy("list-writer", None).await;
    rig.until("Carla joins", RETURNING, &[ANNA, CARLA, EVA]).await;

    // One that is killed logs nothing itself; the platform says so, and the message comes again.
    let since = rig.now();
    rig.deploy("scheduled-incremental-sync", Some("true; kill -9 $$;")).await;
    rig.stack().tick().await;
    let said = |rig: &Rig| {
        let lines = rig.lines.lock().expect("lines");
        let of_it = |line: &&LogLine| line.function == "scheduled-incremental-sync" && line.stream == Stream::Runner;
        lines[since..].iter().filter(of_it).map(|line| line.text.clone()).collect::<Vec<_>>()
    };
    eventually("what the platform says", async || (!said(&rig).is_empty()).then_some(())).await;
    assert_eq!(rig.logged("scheduled-incremental-sync", "ERROR", since), Vec::<Value>::new());
    rig.deploy("scheduled-incremental-sync", None).await;
    let bens = rig.a_match(7, "_mch-example.com-1793000000000-10003", "2026-10-29T00:00:00Z");
    rig.api(Method::POST, "/matches", &bens).await;
    rig.until("Ben joins", RETURNING, &[ANNA, BEN, CARLA, EVA]).await;
    rig.end().await;
}

/// The local stack lets requests wait where Lambda refuses them; that messages wait and none is lost is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_throttled() {
    let mut rig = Rig::settled().await;
    rig.stop().await;
    let path = rig.folder.path().join("template.yaml");
    let mut template = fs::read_to_string(&path).expect("the template");
    for name in FUNCTIONS {
        let binary = format!("        Binary: {name}\n    Properties:\n");
        assert!(template.contains(&binary), "{name}");
        template = template.replace(&binary, &format!("{binary}      ReservedConcurrentExecutions: 1\n"));
    }
    fs::write(&path, template).expect("the template");
    rig.start().await;
    let pause = rig.stack().pause(MATCHES).await;
    let bens = rig.a_match(7, "_mch-example.com-1793000000000-10003", "2026-10-29T00:00:00Z");
    let mut all = vec![bens];
    for n in 0..200 {
        all.push(rig.a_match(
            1_000 + n,
            &format!("_mch-example.com-1793000001000-{}", 10_000 + n),
            "2026-10-29T00:00:00Z",
        ));
    }
    rig.api(Method::POST, "/matches", &json!(all)).await;
    assert!(rig.depth(MATCHES).await > 1, "they wait");
    rig.deliver(1).await;
    drop(pause);
    rig.until("the second file", VIP, AFTER_THE_SECOND).await;
    rig.until("Ben joins by his match", RETURNING, &[ANNA, BEN, EVA]).await;
    eventually("nothing waits any more", async || (rig.depth(MATCHES).await == 0).then_some(())).await;
    assert_eq!(rig.depth(DEAD_MATCHES).await, 0, "none is lost");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_refuses_requests() {
    let rig = Rig::settled().await;
    let before = rig.stack().edge_4xx();
    let since = rig.now();
    let cookie = [("cookie", format!("long={}", "x".repeat(11_000)))];
    for _ in 0..3 {
        assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &cookie).await, 431);
    }
    let unknown = rig.client.get(format!("{}/wp-login.php", rig.stack().url())).send().await.expect("an answer");
    assert_eq!(unknown.status().as_u16(), 404);
    let body = "{}".to_owned();
    let stranger = rig.client.post(format!("{}/feeds/web/events", rig.stack().url())).body(body).send().await;
    let stranger = stranger.expect("an answer").status().as_u16();
    assert!((400..500).contains(&stranger), "{stranger}");
    let refused = rig.stack().edge_4xx();
    let more = |status: u16| refused.get(&status).copied().unwrap_or(0) - before.get(&status).copied().unwrap_or(0);
    assert_eq!((more(431), more(404)), (3, 1), "the API counts its own refusals: {refused:?}");
    // The access log tells of each by its status, and by its route where one was found.
    assert_eq!((rig.answered("-", "431", since), rig.answered("-", "404", since)), (3, 1));
    assert_eq!(rig.answered("POST /feeds/{id}/events", &stranger.to_string(), since), 1);
    // Everybody else is served.
    assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &[]).await, 204);
    rig.until("Ben joins by his page view", RETURNING, &[ANNA, BEN]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_fails() {
    let rig = Rig::settled().await;
    let since = rig.now();
    let outcomes = rig.metrics("cookie-ingest").len();
    // No queue takes a pair, and no table tells what there is.
    rig.deploy("cookie-ingest", Some("AWS_ENDPOINT_URL_SQS=http://127.0.0.1:9")).await;
    assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &[]).await, 503);
    rig.deploy("create-sync", Some("SYNCS_TABLE=local-NoSuchTable")).await;
    let lists = rig.client.get(format!("{}/lists", rig.stack().url())).send().await.expect("an answer");
    assert_eq!(lists.status().as_u16(), 503);
    // The access log tells the routes, the functions' logs the reason; for Lambda none has failed.
    assert_eq!((rig.answered("POST /beacon", "503", since), rig.answered("GET /lists", "503", since)), (1, 1));
    rig.until_error("cookie-ingest", "a beacon is lost", since).await;
    rig.until_error("create-sync", "dynamodb", since).await;
    eventually("the wide event", async || (rig.metrics("cookie-ingest").len() > outcomes).then_some(())).await;
    assert!(rig.metrics("cookie-ingest")[outcomes..].iter().all(|event| event["outcome"] == "ok"));

    rig.deploy("cookie-ingest", None).await;
    rig.deploy("create-sync", None).await;
    // The tag shows the pair again.
    assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &[]).await, 204);
    rig.until("Ben joins by his page view", RETURNING, &[ANNA, BEN]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ticks_have_stopped() {
    // As if somebody had disabled the schedules: the next tick is hours away. (CloudFormation would refuse such a rate.)
    let mut rig = Rig::settled().await;
    rig.redeploy(&[("TickRate", "rate(20 days)")]).await;
    let since = rig.now();
    let outcomes = rig.metrics("scheduled-incremental-sync").len();
    // What nobody rings stays undone: here the ring of a match is lost.
    let queue = "local-identity-work.fifo";
    let pause = rig.stack().pause(queue).await;
    let bens = rig.a_match(7, "_mch-example.com-1793000000000-10003", "2026-10-29T00:00:00Z");
    rig.api(Method::POST, "/matches", &bens).await;
    eventually("a ring", async || (rig.depth(queue).await > 0).then_some(())).await;
    let found = rig.sqs("ReceiveMessage", queue, &json!({})).await;
    let ring = &found["Messages"][0];
    assert!(ring["Body"].as_str().is_some_and(|body| body.contains(&rig.world.marketo.munchkin_id)), "{ring}");
    rig.sqs("DeleteMessage", queue, &json!({"ReceiptHandle": ring["ReceiptHandle"]})).await;
    drop(pause);
    assert_eq!(rig.metrics("scheduled-incremental-sync").len(), outcomes, "not even a tick");
    assert_eq!(rig.logged("scheduled-incremental-sync", "ERROR", since), Vec::<Value>::new());
    assert_eq!(rig.members(RETURNING), BTreeSet::from([ANNA]));

    rig.redeploy(&[("TickRate", "rate(1 minute)")]).await;
    rig.until("the tick rings what is left", RETURNING, &[ANNA, BEN]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_new_pairs_than_the_cap() {
    let rig = Rig::settled().await;
    rig.subscribe(&json!({"new_pairs_per_day": 5})).await;
    rig.deploy("cookie-ingest", None).await;
    for n in 0..100 {
        let token = format!("_mch-example.com-1793000002000-{}", 10_000 + n);
        assert_eq!(rig.page_view(2_000 + n, &token, &[]).await, 204);
    }
    eventually("the alarm's metric", async || {
        let sampled: u64 =
            rig.metrics("cookie-ingest").iter().filter_map(|event| event["pairs_sampled_out"].as_u64()).sum();
        (sampled > 0).then_some(())
    })
    .await;
    // The first page of the console says so.
    let shown = eventually("the console's numbers", async || {
        let today = rig.get("/status").await["browsers_today"].clone();
        (today["beyond_the_days_cap"].as_u64() > Some(0)).then_some(today)
    })
    .await;
    assert!(shown["new_pairs_from_pages"].as_u64() > Some(0), "{shown}");
    rig.subscribe(&json!({"new_pairs_per_day": 1_000_000})).await;
    // A new process has read the settings; those that run read them again within a minute.
    rig.deploy("cookie-ingest", None).await;
    assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &[]).await, 204);
    rig.until("Ben joins by his page view", RETURNING, &[ANNA, BEN]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_late() {
    // The files of the fixture bear names of weeks ago.
    let rig = Rig::settled().await;
    rig.until_told("feed_late", 0).await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]), "nobody is taken out because of it");
    let feeds = rig.get("/feeds").await;
    assert_eq!(feeds[0]["id"], "default", "{feeds}");
    // Adobe delivers again.
    let file = &rig.world.files[1];
    let (head, _) = file.name.rsplit_once('_').expect("a time");
    let name = format!("incoming/{head}_{}.sync", system_clock()());
    rig.stack().put_object(&name, file.bytes.to_vec()).await.expect("stored");
    rig.until("the list follows", VIP, AFTER_THE_SECOND).await;
    rig.until_over("feed_late").await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_is_used_up() {
    let mut rig = Rig::settled().await;
    let since = rig.now();
    rig.redeploy(&[("QuotaShare", "0.05"), ("QuotaCallsPerDay", "1000")]).await;
    // Fifty calls a day: whatever is left of them is used by what comes.
    for n in 0..80 {
        let token = format!("_mch-example.com-1793000003000-{}", 10_000 + n);
        rig.api(Method::POST, "/matches", &rig.a_match(3_000 + n, &token, "2026-10-29T00:00:00Z")).await;
    }
    rig.until_told("quota_used_up", since).await;
    let budget = rig.get("/status").await["budget"].clone();
    assert!(budget["ours_today"].as_u64() > Some(40) && budget["others_today"] == 0, "{budget}");
    rig.deliver(1).await;
    eventually("the file is taken in all the same", async || {
        let imports = rig.get("/imports").await;
        imports.as_array().expect("imports").iter().filter(|import| import["status"] == "done").nth(1).map(|_| ())
    })
    .await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]), "the list waits");
    // There is room in Marketo's quota.
    rig.redeploy(&[("QuotaShare", "0.5"), ("QuotaCallsPerDay", "50000")]).await;
    rig.until("the list follows", VIP, AFTER_THE_SECOND).await;
    rig.until_over("quota_used_up").await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_deviates() {
    let rig = Rig::settled().await;
    let since = rig.now();
    let sync = rig.sync_of(VIP).await;
    // As if it had had a hundred people for a week.
    let partition = format!("{}/history/{sync}", rig.world.marketo.munchkin_id);
    let now = system_clock()();
    for days in 1..=7_u64 {
        let at = now - days * 86_400_000;
        let size = json!({"v": 1, "at": at, "browsers": 300, "addressable": 200, "known": 100, "people": 100, "in_list": 100, "members": 100});
        rig.put_row("local-ListsTable", &partition, &format!("{:020}", at / 3_600_000), &size).await;
    }
    rig.until_told("list_deviates", since).await;
    let history = rig.get(&format!("/syncs/{sync}/history")).await;
    let members: Vec<u64> =
        history.as_array().expect("sizes").iter().filter_map(|size| size["members"].as_u64()).collect();
    assert!(members.starts_with(&[100; 7]) && members.last() <= Some(&3), "{history}");
    assert!(!rig.get(&format!("/syncs/{sync}/runs")).await.as_array().expect("runs").is_empty());
    // A delivery was wrong: paused, delivered anew, resumed.
    rig.api(Method::POST, &format!("/syncs/{sync}/pause"), &json!({})).await;
    rig.until_over("list_deviates").await;
    rig.deliver(1).await;
    rig.until("another list follows", RETURNING, &[ANNA, EVA]).await;
    rig.settle().await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]), "paused");
    rig.api(Method::POST, &format!("/syncs/{sync}/resume"), &json!({})).await;
    rig.until("the list follows the newest delivery", VIP, AFTER_THE_SECOND).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_stuck() {
    let rig = Rig::settled().await;
    let since = rig.now();
    // An object that is missed: somebody has deleted it.
    let states = rig.state().join("s3/local-bucket/lists").join(rig.world.marketo.munchkin_id.as_str()).join("1001");
    let aside = rig.folder.path().join("aside");
    fs::rename(&states, &aside).expect("the list's state");
    rig.deliver(1).await;
    rig.until_told("stuck", since).await;
    let said = serde_json::to_string(&rig.logged("list-writer", "ERROR", since)).expect("JSON");
    assert!(said.contains("a key is stuck") && said.contains("a list's state is gone"), "{said}");
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]));
    rig.until("another list goes on", RETURNING, &[ANNA, EVA]).await;
    // Its delete marker is taken away, as on the page of restored tables.
    fs::rename(&aside, &states).expect("the list's state");
    let sync = rig.sync_of(VIP).await;
    rig.api(Method::POST, &format!("/syncs/{sync}/run"), &json!({})).await;
    rig.until("the list follows", VIP, AFTER_THE_SECOND).await;
    rig.until_over("stuck").await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuild_a_sync_from_nothing() {
    let mut rig = Rig::settled().await;
    let export = rig.get("/export").await;
    // Every table is lost, and every set; what Adobe has delivered is still in the bucket.
    rig.stop().await;
    lose_tables(&rig.state());
    let (added, removed) = (rig.calls(Kind::ListAdd), rig.calls(Kind::ListRemove));
    rig.start().await;
    let nothing = rig.client.get(format!("{}/syncs", rig.stack().url())).send().await.expect("an answer");
    assert_eq!(nothing.status().as_u16(), 404, "there is not even a subscription");
    // 1. What was set up comes back, each list by its id.
    let import = json!({"export": export, "apply": true});
    let done = |answer: &Value| {
        let changes = answer["changes"].as_array().expect("changes").clone();
        changes.iter().all(|change| change["change"] == "same" || change["done"] == true)
    };
    eventually("the import", async || done(&rig.api(Method::POST, "/import", &import).await).then_some(())).await;
    // 2. The files that are there are found again; nobody has to send them.
    eventually("the file is found", async || {
        let imports = rig.get("/imports").await;
        imports.as_array().expect("imports").iter().any(|import| import["status"] == "done").then_some(())
    })
    .await;
    rig.settle().await;
    // 3. Matches come again: from the site's servers, or as browsers come.
    rig.send_matches().await;
    rig.settle().await;
    let sync = rig.sync_of(VIP).await;
    rig.api(Method::POST, &format!("/syncs/{sync}/run"), &json!({})).await;
    eventually("everybody is wanted again", async || rig.reported(&sync, 3).await).await;
    rig.settle().await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]), "nobody was taken out");
    assert_eq!(rig.members(RETURNING), BTreeSet::from([ANNA]));
    assert_eq!(rig.calls(Kind::ListRemove), removed);
    assert_eq!(rig.calls(Kind::ListAdd), added, "everybody was there");
    // 4. Whoever we had put there counts as a member of before: they stay. Whoever comes now is ours.
    rig.deliver(1).await;
    rig.until("Eva joins", RETURNING, &[ANNA, EVA]).await;
    rig.settle().await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN, CARLA]), "Carla left the audience, and stays");

    // 5. Where the list was fed by nobody else: its sync anew, with the members of before taken over.
    rig.api(Method::POST, &format!("/syncs/{sync}/stop"), &json!({"people": "keep"})).await;
    let again = json!({"audience_id": "aam:101", "list": {"id": VIP}, "members_before": "adopt"});
    rig.api(Method::POST, "/syncs", &again).await;
    rig.until("whoever is tied to a browser outside the audience leaves", VIP, &[ANNA]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_tables_from_point_in_time_recovery() {
    let mut rig = Rig::settled().await;
    // The moment to which the tables will be restored.
    rig.stop().await;
    let (state, kept) = (rig.state(), rig.folder.path().join("kept"));
    copy(&state, &kept);
    rig.start().await;
    // What happens after it: the second file, and a page view.
    rig.deliver(1).await;
    rig.until("the second file", VIP, AFTER_THE_SECOND).await;
    assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &[]).await, 204);
    rig.until("Ben joins by his page view", RETURNING, &[ANNA, BEN, EVA]).await;
    rig.settle().await;
    rig.stop().await;

    // The tables are those of before; the objects are today's, and some that the tables point to were deleted since.
    lose_tables_only(&state);
    for name in tables(&kept) {
        fs::copy(kept.join(&name), state.join(&name)).expect("a table's file");
    }
    let since = rig.now();
    let removed = rig.calls(Kind::ListRemove);
    rig.start().await;
    eventually("whoever finds its object gone says so", async || {
        let lines = rig.lines.lock().expect("lines");
        lines[since..].iter().any(|line| line.text.contains("is gone")).then_some(())
    })
    .await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN]), "nobody's list is written meanwhile");
    assert_eq!(rig.calls(Kind::ListRemove), removed);
    // What was deleted since then comes back, as versions of the bucket do.
    rig.stop().await;
    put_back(&kept.join("s3"), &state.join("s3"));
    rig.start().await;
    // The file is found again, and taken in; Carla, whom the tables hold for a member, is out and stays out.
    rig.until("the lists as the files say", VIP, AFTER_THE_SECOND).await;
    eventually("the second file is taken in again", async || {
        let imports = rig.get("/imports").await;
        (imports.as_array().expect("imports").iter().filter(|import| import["status"] == "done").count() == 2)
            .then_some(())
    })
    .await;
    rig.settle().await;
    assert_eq!(rig.members(VIP), BTreeSet::from([ANNA, BEN]));
    // What pages showed since is lost until they show it again: nobody is taken out on that account.
    assert_eq!(rig.members(RETURNING), BTreeSet::from([ANNA, BEN, EVA]));
    assert_eq!(rig.page_view(7, "_mch-example.com-1793000000000-10003", &[]).await, 204);
    rig.settle().await;
    let sync = rig.sync_of(RETURNING).await;
    rig.api(Method::POST, &format!("/syncs/{sync}/run"), &json!({})).await;
    eventually("Ben is wanted again", async || rig.reported(&sync, 3).await).await;
    rig.api(Method::POST, &format!("/syncs/{sync}/verify"), &json!({})).await;
    rig.settle().await;
    assert_eq!(rig.members(RETURNING), BTreeSet::from([ANNA, BEN, EVA]));
    rig.end().await;
}

/// Files of the tables in a state folder.
fn tables(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state).expect("the state").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("a name"));
    names.filter(|name| name.starts_with("dynamodb.sqlite")).collect()
}

/// Deletes the tables and what waits in queues.
fn lose_tables_only(state: &Path) {
    for name in tables(state) {
        fs::remove_file(state.join(name)).expect("a table's file");
    }
    fs::remove_file(state.join("queues.jsonl")).expect("the queues");
}

/// Deletes the tables, what waits in queues, and every object but what Adobe has delivered.
fn lose_tables(state: &Path) {
    lose_tables_only(state);
    let mut folders = vec![state.join("s3")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name == "sets" || name == "lists") {
                fs::remove_dir_all(&path).expect("sets");
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// Copies what is not there.
fn put_back(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            put_back(&path, &target);
        } else if !target.exists() {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// What the dashboard's widgets read of the log, field by field.
fn fields_of_widgets() -> Vec<BTreeSet<String>> {
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let queries =
        template.lines().filter_map(|line| line.split_once("\"query\": \"SOURCE '${ScheduledIncrementalSyncLog}' | "));
    let fields = |query: &str| -> BTreeSet<String> {
        let mut fields = BTreeSet::new();
        for opening in ["ispresent(", "max(", "sum(", "latest("] {
            fields.extend(query.split(opening).skip(1).filter_map(|rest| rest.split_once(')')).map(|(name, _)| name));
        }
        let (_, groups) = query.split_once(" by ").expect("groups");
        let groups = groups.split(['|', '"']).next().expect("groups").split(',').map(str::trim);
        fields.extend(groups.filter(|group| !group.starts_with("bin(")));
        // CloudWatch's own.
        fields.retain(|field| !field.starts_with('@'));
        fields.into_iter().map(str::to_owned).collect()
    };
    queries.map(|(_, query)| fields(query)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_finds_its_lines() {
    let widgets = fields_of_widgets();
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert!(widgets.contains(&of(&["refusals", "code"])) && widgets.len() == 5, "{widgets:?}");
    // Its feed is late, and Marketo refuses one call.
    let rig = Rig::settled().await;
    let refused = Fault {
        kind: Some(Kind::ListAdd),
        which: Which::Nth(1),
        answer: FaultAnswer::Code(611),
        commit: Commit::Before,
    };
    rig.vendors.marketo.lock().inject(refused);
    rig.deliver(1).await;
    rig.until("the list follows all the same", RETURNING, &[ANNA, EVA]).await;
    for widget in widgets {
        eventually(&format!("a line with {widget:?}"), async || {
            let lines = ["INFO", "WARN"].map(|level| rig.logged("scheduled-incremental-sync", level, 0)).concat();
            lines.iter().any(|line| widget.iter().all(|field| line.get(field).is_some())).then_some(())
        })
        .await;
    }
    rig.end().await;
}

#[test]
fn each_page_of_the_runbook_was_tried() {
    let source = include_str!("runbook.rs");
    let headings = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")));
    let names = headings.map(|heading| heading.to_lowercase().replace([' ', '-'], "_"));
    let untried: Vec<String> = names.filter(|name| !source.contains(&format!("async fn {name}()"))).collect();
    assert!(untried.is_empty(), "pages without a test of their name: {untried:?}");
}
