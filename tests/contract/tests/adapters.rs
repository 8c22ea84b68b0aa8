//! The contract suite over the real adapters: the SDK over the wire, to servers inside this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use aws_types::SdkConfig;
use contract::{Handed, Receives};
use ports::{Expect, Item, Key, PortError, Queue, Read, Table, Tables};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// The bus of the tests.
const BUS: &str = "contract-bus";
const BUCKET: &str = "contract-bucket";

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn sdk(address: SocketAddr) -> SdkConfig {
    let variable = move |name: &str| match name {
        "AWS_REGION" => Some("us-east-1".to_owned()),
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("test".to_owned()),
        "AWS_ENDPOINT_URL" => Some(format!("http://{address}")),
        _ => None,
    };
    aws::sdk_config(variable).expect("a configuration")
}

/// A fresh DynamoDB with every table: keys `pk`, `sk`, index `due` with all attributes.
async fn dynamo() -> aws_sdk_dynamodb::Client {
    let (listener, address) = listener().await;
    let database = dynoxide::Database::memory().expect("a database");
    tokio::spawn(dynoxide::server::serve_on(listener, database));
    let client = aws::dynamo_client(&sdk(address));
    for table in Table::ALL {
        let attribute = |name: &str, kind: ScalarAttributeType| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().expect("an attribute")
        };
        let key = |name: &str, kind: KeyType| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("a key")
        };
        let due = GlobalSecondaryIndex::builder()
            .index_name("due")
            .key_schema(key("due_pk", KeyType::Hash))
            .key_schema(key("due_at", KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build()
            .expect("an index");
        client
            .create_table()
            .table_name(real_name(table))
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("pk", ScalarAttributeType::S))
            .attribute_definitions(attribute("sk", ScalarAttributeType::S))
            .attribute_definitions(attribute("due_pk", ScalarAttributeType::S))
            .attribute_definitions(attribute("due_at", ScalarAttributeType::N))
            .key_schema(key("pk", KeyType::Hash))
            .key_schema(key("sk", KeyType::Range))
            .global_secondary_indexes(due)
            .send()
            .await
            .expect("create table");
    }
    client
}

fn real_name(table: Table) -> String {
    format!("contract-{}", table.env())
}

fn names() -> BTreeMap<Table, String> {
    Table::ALL.into_iter().map(|table| (table, real_name(table))).collect()
}

#[tokio::test]
async fn dynamo_keeps_the_contract_of_tables() {
    let tables = aws::DynamoTables::new(dynamo().await, names());
    tables.warm().await;
    contract::tables(&tables).await;
}

#[tokio::test]
async fn a_table_that_is_not_there_or_not_ours_is_refused() {
    let client = dynamo().await;
    let key = Key::new("a", "b");

    let none = aws::DynamoTables::new(client.clone(), BTreeMap::new());
    let error = none.get(Table::Lists, &key, Read::Consistent).await.expect_err("not configured");
    assert!(matches!(&error, PortError::Refused { reason, .. } if reason.contains("LISTS_TABLE")), "{error}");

    let missing = BTreeMap::from([(Table::Lists, "no-such-table".to_owned())]);
    let tables = aws::DynamoTables::new(client, missing);
    let error = tables.get(Table::Lists, &key, Read::Consistent).await.expect_err("no such table");
    assert!(matches!(&error, PortError::Refused { reason, .. } if reason.contains("ResourceNotFound")), "{error}");
    let item = Item { key, rev: 1, doc: serde_json::json!({}), due: None, expires_at: None };
    let error = tables.put(Table::Lists, item, Expect::Absent).await.expect_err("no such table");
    assert!(matches!(error, PortError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn s3_keeps_the_contract_of_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listener, address) = listener().await;
    let service = {
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a file system");
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single("test", "test"));
        builder.build()
    };
    tokio::spawn(async move {
        let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let connection =
                server.serve_connection(hyper_util::rt::TokioIo::new(stream), service.clone()).into_owned();
            tokio::spawn(async move { connection.await.map_err(|error| eprintln!("connection: {error}")) });
        }
    });
    let client = aws::s3_client(&sdk(address), true);
    client.create_bucket().bucket(BUCKET).send().await.expect("create bucket");
    let objects = aws::S3Objects::new(client, BUCKET.to_owned());
    contract::objects(&objects).await;
    contract::addresses(&objects, fetch).await;
}

/// Reads an address as a browser does: status, head, body.
async fn fetch(address: &str) -> (u16, String, Vec<u8>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (host, path) = address.strip_prefix("http://").expect("HTTP").split_once('/').expect("a path");
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("a connection");
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head, answer[end + 4..].to_vec())
}

/// Receives after which a message is dead.
const MOST_RECEIVED: usize = 2;

fn sqs_name(queue: Queue, dead: bool) -> String {
    let dead = if dead { "-dead" } else { "" };
    let end = if queue.is_fifo() { ".fifo" } else { "" };
    format!("contract-{}{dead}{end}", queue.env().to_ascii_lowercase())
}

/// The queues of the real template, embedded as in the local stack; what is handed out is hidden for so many seconds.
async fn sqs(journal: &std::path::Path, visibility_s: u64) -> (stack::sqs::Sqs, BTreeMap<Queue, String>, SocketAddr) {
    let (listener, address) = listener().await;
    let queue = |queue: Queue, dead: bool| stack::template::Queue {
        name: sqs_name(queue, dead),
        fifo: queue.is_fifo(),
        visibility_s,
        attributes: BTreeMap::new(),
        redrive: (!dead).then(|| (sqs_name(queue, true), MOST_RECEIVED as u64)),
        dead,
    };
    // The dead-letter queues first: the others name them.
    let all = [true, false].into_iter().flat_map(|dead| Queue::ALL.map(|one| queue(one, dead)));
    let queues: Vec<stack::template::Queue> = all.collect();
    let meter = stack::usage::Meter::default();
    let (journal, visibility) = (journal.join("queues"), |queue: &stack::template::Queue| queue.visibility_s);
    let sqs = stack::sqs::Sqs::open(&journal, address.port(), queues, meter, visibility).await.expect("the queues");
    tokio::spawn(sqs.clone().serve(listener, Vec::new()));
    let urls = Queue::ALL.into_iter().map(|one| (one, sqs.url(&sqs_name(one, false)))).collect();
    (sqs, urls, address)
}

#[tokio::test]
async fn sqs_keeps_the_contract_of_queues() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sqs, urls, address) = sqs(folder.path(), 60).await;
    let client = aws::sqs_client(&sdk(address));
    let adapter = aws::SqsQueues::new(client, urls.clone(), format!("http://{address}"));
    contract::queues(&adapter, async |queue, count| {
        let name = urls[&queue].rsplit('/').next().expect("a name").to_owned();
        let source = sqs.source(&name);
        let mut found = Vec::new();
        // A FIFO queue hands out one message of a group at a time.
        while found.len() < count {
            let some = source.receive(10, Duration::ZERO).await.expect("received");
            assert!(!some.is_empty(), "{} of {count} messages arrive", found.len());
            let receipts: Vec<String> = some.iter().map(|one| one.receipt.clone()).collect();
            found.extend(
                some.into_iter().map(|one| (one.record["body"].as_str().expect("a body").to_owned(), one.group)),
            );
            source.delete(&receipts).await.expect("deleted");
        }
        assert!(source.receive(10, Duration::ZERO).await.expect("received").is_empty(), "and no more");
        found
    })
    .await;
}

/// What the embedded queues hand out to the functions.
struct Hands(stack::sqs::Sqs);

/// Far longer than anything is hidden.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Receives for Hands {
    async fn receive(&mut self, queue: Queue) -> Option<Handed> {
        let source = self.0.source(&sqs_name(queue, false));
        let found = source.receive(1, Duration::ZERO).await.expect("received").pop()?;
        let body = found.record["body"].as_str().expect("a body").to_owned();
        Some(Handed { handle: found.receipt, body })
    }

    async fn delete(&mut self, queue: Queue, handle: &str) {
        let source = self.0.source(&sqs_name(queue, false));
        source.delete(&[handle.to_owned()]).await.expect("deleted");
    }

    async fn wait(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.0.depths().await.iter().any(|depth| depth.in_flight > 0) {
            assert!(Instant::now() < end, "what is hidden is not for ever");
            sleep(LOOK_EVERY).await;
        }
    }

    async fn dead(&mut self, queue: Queue) -> u64 {
        let name = sqs_name(queue, true);
        let depths = self.0.depths().await;
        depths.iter().find(|depth| depth.name == name).map_or(0, |depth| depth.visible + depth.in_flight)
    }
}

#[tokio::test]
async fn sqs_keeps_the_contract_of_receiving() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sqs, urls, address) = sqs(folder.path(), 1).await;
    let client = aws::sqs_client(&sdk(address));
    let adapter = aws::SqsQueues::new(client, urls, format!("http://{address}"));
    contract::receiving(&adapter, &mut Hands(sqs), MOST_RECEIVED).await;
}

#[tokio::test]
async fn event_bridge_keeps_the_contract_of_the_bus() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listener, address) = listener().await;
    let buses = stack::bus::Buses::open(&folder.path().join("events"), Some(BUS)).expect("the buses");
    tokio::spawn(buses.clone().serve(listener, stack::calls::Calls::default()));
    let adapter = aws::EventBridge::new(aws::bus_client(&sdk(address)), BUS.to_owned());
    contract::bus(&adapter, async || {
        let events = buses.events().expect("events").into_iter();
        events
            .map(|event| (event["detail-type"].as_str().expect("a kind").to_owned(), event["detail"].clone()))
            .collect()
    })
    .await;
}
