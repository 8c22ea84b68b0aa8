//! The meter: figures as AWS documents them, worked out by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, PutRequest, WriteRequest};
use stack::usage::{MAPPING, OUTSIDE, QueueUsage, TableUsage, Usage};
use stack::{Options, Port, Stack};

use crate::eventually;

async fn running(folder: &tempfile::TempDir) -> Stack {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_stack-test-function"));
    let options = Options {
        template: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stack/template.yaml"),
        data_dir: folder.path().to_owned(),
        bin_dir: binary.parent().expect("folder").to_owned(),
        parameters: BTreeMap::new(),
        port: Port::Exact(0),
        log: Arc::new(|_| {}),
    };
    stack::start(options).await.expect("the stack starts")
}

async fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(&crate::sdk()).endpoint_url(endpoint);
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

/// An item of exactly `bytes`: names and values count.
fn item(key: &str, bytes: usize) -> BTreeMap<String, AttributeValue> {
    let rest = bytes - "pk".len() - key.len() - "fill".len();
    [("pk".to_owned(), text(key)), ("fill".to_owned(), text(&"x".repeat(rest)))].into()
}

const TABLE: &str = "local-Things";

/// What a step used of the table.
struct Steps<'a> {
    stack: &'a Stack,
    before: Usage,
}

impl Steps<'_> {
    fn used(&mut self) -> (u64, f64, f64) {
        let now = self.stack.usage();
        let TableUsage { requests, read_units, write_units } = now.since(&self.before).tables_of(OUTSIDE);
        self.before = now;
        (requests, read_units, write_units)
    }
}

#[tokio::test]
async fn units_are_what_aws_documents() {
    let folder = tempfile::tempdir().expect("folder");
    let stack = running(&folder).await;
    let db = dynamodb(&stack.endpoints().dynamodb).await;
    let mut steps = Steps { stack: &stack, before: stack.usage() };
    let put = |item: BTreeMap<String, AttributeValue>| {
        db.put_item().table_name(TABLE).set_item(Some(item.into_iter().collect()))
    };

    // A write unit is 1 KB that has begun.
    put(item("small", 1_024)).send().await.expect("put");
    assert_eq!(steps.used(), (1, 0.0, 1.0));
    put(item("larger", 1_229)).send().await.expect("put");
    assert_eq!(steps.used(), (1, 0.0, 2.0));

    // A read unit is 4 KB that has begun, half of it when eventually consistent, and is paid for nothing too.
    let get = |key: &str| db.get_item().table_name(TABLE).key("pk", text(key));
    get("small").send().await.expect("get");
    assert_eq!(steps.used(), (1, 0.5, 0.0));
    let found = get("small").consistent_read(true).send().await.expect("get");
    assert_eq!(steps.used(), (1, 1.0, 0.0));
    assert!(found.consumed_capacity().is_none(), "nobody asked");
    get("nobody").send().await.expect("get");
    assert_eq!(steps.used(), (1, 0.5, 0.0));
    put(item("page", 4_097)).send().await.expect("put");
    get("page").consistent_read(true).send().await.expect("get");
    assert_eq!(steps.used(), (2, 2.0, 5.0));

    // In a batch each item is rounded by itself.
    let keys = ["small", "larger", "page", "nobody"].map(|key| [("pk".to_owned(), text(key))].into());
    let keys = KeysAndAttributes::builder().set_keys(Some(keys.into())).build().expect("keys");
    let found = db.batch_get_item().request_items(TABLE, keys).send().await.expect("batch");
    assert_eq!(found.responses().expect("items")[TABLE].len(), 3);
    assert_eq!(steps.used(), (1, 0.5 + 0.5 + 1.0 + 0.5, 0.0));
    let puts = [item("b1", 100), item("b2", 2_000)].map(|item| {
        let put = PutRequest::builder().set_item(Some(item.into_iter().collect())).build().expect("item");
        WriteRequest::builder().put_request(put).build()
    });
    db.batch_write_item().request_items(TABLE, puts.into()).send().await.expect("batch");
    assert_eq!(steps.used(), (1, 0.0, 3.0));

    // An index that the item stands in is written too.
    let mut due = item("due", 100);
    due.insert("due_pk".to_owned(), text("d"));
    due.insert("due_at".to_owned(), AttributeValue::N("1".to_owned()));
    put(due).send().await.expect("put");
    assert_eq!(steps.used(), (1, 0.0, 2.0));

    // A write whose condition does not hold is billed by the size of what was sent.
    let refused = put(item("small", 1_500)).condition_expression("attribute_not_exists(pk)").send().await;
    assert!(refused.is_err());
    assert_eq!(steps.used(), (1, 0.0, 2.0));

    // Whoever asks is told.
    let ask = aws_sdk_dynamodb::types::ReturnConsumedCapacity::Total;
    let told = get("small").return_consumed_capacity(ask).send().await.expect("get");
    assert_eq!(told.consumed_capacity().and_then(|told| told.capacity_units()), Some(0.5));
    assert_eq!(steps.used(), (1, 0.5, 0.0));
    stack.shutdown().await;
}

#[tokio::test]
async fn who_asks_is_told_apart_by_the_path() {
    let folder = tempfile::tempdir().expect("folder");
    let stack = running(&folder).await;
    let db = dynamodb(&format!("{}/worker", stack.endpoints().dynamodb)).await;
    db.get_item().table_name(TABLE).key("pk", text("x")).send().await.expect("get");
    let usage = stack.usage();
    assert_eq!(usage.tables_of("worker").read_units, 0.5);
    assert_eq!(usage.tables_of(OUTSIDE), TableUsage::default());
    stack.shutdown().await;
}

#[tokio::test]
async fn a_paused_queue_fills_and_is_drained_in_whole_batches() {
    let folder = tempfile::tempdir().expect("folder");
    let stack = running(&folder).await;
    let config = aws_sdk_sqs::config::Builder::from(&crate::sdk()).endpoint_url(stack.endpoints().sqs);
    let sqs = aws_sdk_sqs::Client::from_conf(config.build());
    let url = format!("{}/{}/local-Work", stack.endpoints().sqs, stack::ACCOUNT);
    let pause = stack.pause("local-Work").await;
    let before = stack.usage();
    for n in 0..30 {
        sqs.send_message().queue_url(&url).message_body(format!("m{n}")).send().await.expect("send");
    }
    // 70,000 bytes are two requests.
    sqs.send_message().queue_url(&url).message_body("x".repeat(70_000)).send().await.expect("send");
    let depth = async || stack.queues().await.into_iter().find(|queue| queue.name == "local-Work").expect("queue");
    assert_eq!((depth().await.visible, depth().await.in_flight), (31, 0));
    drop(pause);
    eventually("an empty queue", || async {
        let depth = depth().await;
        (depth.visible + depth.in_flight == 0).then_some(())
    })
    .await;
    let used = stack.usage().since(&before);
    let sent = used.queues[&(OUTSIDE.to_owned(), "local-Work".to_owned())];
    assert_eq!(sent, QueueUsage { sends: 32, ..QueueUsage::default() });
    // Three receives of ten, and one of the large message: two requests.
    let mapping = used.queues[&(MAPPING.to_owned(), "local-Work".to_owned())];
    assert_eq!((mapping.receives, mapping.deletes), (5, 4));
    assert_eq!(used.invocations["worker"], 4);
    stack.shutdown().await;
}
