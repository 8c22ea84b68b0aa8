//! Each case runs over a fake queue and over the embedded SQS, so that neither can lie alone.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use stack::poller::{Mapping, Received, Source, Target, run};
use stack::runtime::InvokeError;
use stack::sqs::Sqs;
use stack::template::Queue;
use stack::usage::Meter;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::eventually;

/// Visibility time-out of the queues here, in seconds: the shortest that SQS knows.
const VISIBILITY_S: u64 = 1;
/// Receives before a message goes to the dead letters.
const MOST_RECEIVES: u64 = 2;

/// A queue with the few rules that a poller depends on.
#[derive(Default)]
struct Fake {
    messages: Mutex<Vec<Waiting>>,
    dead: Mutex<Vec<String>>,
}

struct Waiting {
    id: String,
    body: String,
    group: Option<String>,
    receives: u64,
    hidden_until: Option<Instant>,
}

#[async_trait]
impl Source for Fake {
    async fn receive(&self, most: usize, wait: Duration) -> anyhow::Result<Vec<Received>> {
        let end = Instant::now() + wait;
        loop {
            let taken = self.take(most);
            if !taken.is_empty() || Instant::now() >= end {
                return Ok(taken);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn delete(&self, receipts: &[String]) -> anyhow::Result<()> {
        self.messages.lock().expect("lock").retain(|one| !receipts.contains(&format!("{}/{}", one.id, one.receives)));
        Ok(())
    }
}

impl Fake {
    fn send(&self, body: &str, group: Option<&str>) {
        let mut messages = self.messages.lock().expect("lock");
        let id = format!("m{}-{body}", messages.len());
        let (body, group) = (body.to_owned(), group.map(str::to_owned));
        messages.push(Waiting { id, body, group, receives: 0, hidden_until: None });
    }

    fn take(&self, most: usize) -> Vec<Received> {
        let now = Instant::now();
        let mut messages = self.messages.lock().expect("lock");
        let hidden = |one: &Waiting| one.hidden_until.is_some_and(|until| until > now);
        let blocked: Vec<_> = messages.iter().filter(|one| hidden(one)).filter_map(|one| one.group.clone()).collect();
        let mut taken = vec![];
        let mut dead = vec![];
        for one in messages.iter_mut() {
            if taken.len() == most || hidden(one) || one.group.as_ref().is_some_and(|group| blocked.contains(group)) {
                continue;
            }
            if one.receives == MOST_RECEIVES {
                dead.push(one.id.clone());
                self.dead.lock().expect("lock").push(one.body.clone());
                continue;
            }
            one.receives += 1;
            one.hidden_until = Some(now + Duration::from_secs(VISIBILITY_S));
            taken.push(Received {
                message_id: one.id.clone(),
                receipt: format!("{}/{}", one.id, one.receives),
                group: one.group.clone(),
                record: json!({
                    "messageId": one.id, "body": one.body, "attributes": { "MessageGroupId": one.group },
                }),
            });
        }
        messages.retain(|one| !dead.contains(&one.id));
        taken
    }
}

/// A queue under test.
enum Under {
    Fake(Arc<Fake>),
    Embedded { sqs: Sqs, queue: &'static str, sent: AtomicUsize, _folder: tempfile::TempDir },
}

impl Under {
    async fn both(fifo: bool) -> [Self; 2] {
        let folder = tempfile::tempdir().expect("folder");
        let (queue, dead) = if fifo { ("work.fifo", "dead.fifo") } else { ("work", "dead") };
        let make = |name: &str, redrive| Queue {
            name: name.to_owned(),
            fifo,
            visibility_s: VISIBILITY_S,
            attributes: if fifo {
                BTreeMap::from([("DeduplicationScope".into(), "messageGroup".into())])
            } else {
                BTreeMap::new()
            },
            redrive,
            dead: name == dead,
        };
        let queues = vec![make(dead, None), make(queue, Some((dead.to_owned(), MOST_RECEIVES)))];
        let sqs = Sqs::open(&folder.path().join("journal"), 9, queues, Meter::default(), |queue| queue.visibility_s)
            .await
            .expect("sqs");
        [Self::Fake(Arc::default()), Self::Embedded { sqs, queue, sent: AtomicUsize::new(0), _folder: folder }]
    }

    async fn send(&self, body: &str, group: Option<&str>) {
        match self {
            Self::Fake(fake) => fake.send(body, group),
            Self::Embedded { sqs, queue, sent, .. } => match group {
                None => sqs.send(queue, body.to_owned()).await.expect("send"),
                Some(group) => {
                    let dedup = sent.fetch_add(1, Ordering::SeqCst).to_string();
                    sqs.send_to_group(queue, body.to_owned(), group, &dedup).await.expect("send");
                }
            },
        }
    }

    fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Fake(fake) => Arc::clone(fake) as Arc<dyn Source>,
            Self::Embedded { sqs, queue, .. } => sqs.source(queue),
        }
    }

    /// Messages in the queue, and in its dead letters.
    async fn left(&self) -> (usize, usize) {
        match self {
            Self::Fake(fake) => (fake.messages.lock().expect("lock").len(), fake.dead.lock().expect("lock").len()),
            Self::Embedded { sqs, .. } => {
                let depths = sqs.depths().await;
                let sum = |dead| {
                    let of = depths.iter().filter(|depth| depth.dead == dead);
                    usize::try_from(of.map(|depth| depth.visible + depth.in_flight).sum::<u64>()).expect("depth")
                };
                (sum(false), sum(true))
            }
        }
    }

    async fn empty(&self) {
        eventually("the queue is empty", || async { (self.left().await.0 == 0).then_some(()) }).await;
    }
}

/// Runs the case over both queues at once: most of it is waiting.
async fn on_both(fifo: bool, case: impl AsyncFn(Under)) {
    let [fake, embedded] = Under::both(fifo).await;
    tokio::join!(case(fake), case(embedded));
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, InvokeError>> + Send>>;

/// A function made of a closure over the records; remembers the bodies of each batch.
struct Function<F> {
    handler: F,
    batches: Mutex<Vec<(Instant, Vec<String>)>>,
}

#[async_trait]
impl<F: Fn(Vec<Value>) -> Answer + Send + Sync> Target for Function<F> {
    async fn invoke(&self, event: Bytes) -> Result<Bytes, InvokeError> {
        let event: Value = serde_json::from_slice(&event).expect("event");
        let records = event["Records"].as_array().expect("records").clone();
        let bodies = records.iter().map(body_of).collect();
        self.batches.lock().expect("lock").push((Instant::now(), bodies));
        (self.handler)(records).await.map(|answer| Bytes::from(answer.to_string()))
    }
}

fn body_of(record: &Value) -> String {
    record["body"].as_str().expect("body").to_owned()
}

fn function<F: Fn(Vec<Value>) -> Answer + Send + Sync>(handler: F) -> Arc<Function<F>> {
    Arc::new(Function { handler, batches: Mutex::default() })
}

fn mapping() -> Mapping {
    Mapping {
        queue: "work".into(),
        fifo: false,
        batch_size: 10,
        window: Duration::ZERO,
        report_item_failures: true,
        concurrency: 4,
    }
}

/// A poller at work; stops with [`Polling::stop`].
struct Polling {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Polling {
    fn start(mapping: Mapping, under: &Under, target: Arc<dyn Target>) -> Self {
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(run(mapping, under.source(), target, stop.subscribe(), |_| {}));
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("poller");
    }
}

#[tokio::test]
async fn a_batch_gathers_for_the_window_and_stays_below_its_size() {
    on_both(false, async |under: Under| {
        for n in 0..25 {
            under.send(&n.to_string(), None).await;
        }
        let target = function(|_| Box::pin(async { Ok(Value::Null) }));
        let mapping = Mapping { batch_size: 20, window: Duration::from_millis(300), concurrency: 1, ..mapping() };
        let polling = Polling::start(mapping, &under, Arc::clone(&target) as Arc<dyn Target>);
        under.empty().await;
        polling.stop().await;
        let sizes: Vec<_> = target.batches.lock().expect("lock").iter().map(|(_, bodies)| bodies.len()).collect();
        assert_eq!(sizes, [20, 5]);
    })
    .await;
}

#[tokio::test]
async fn only_the_named_messages_come_again() {
    on_both(false, async |under: Under| {
        for body in ["good", "bad", "fine"] {
            under.send(body, None).await;
        }
        let seen: Arc<AtomicUsize> = Arc::default();
        let target = function({
            let seen = Arc::clone(&seen);
            move |records| {
                let bad: Vec<_> = records
                    .iter()
                    .filter(|record| body_of(record) == "bad" && seen.fetch_add(1, Ordering::SeqCst) == 0)
                    .map(|record| json!({ "itemIdentifier": record["messageId"] }))
                    .collect();
                Box::pin(async move { Ok(json!({ "batchItemFailures": bad })) })
            }
        });
        let polling = Polling::start(mapping(), &under, Arc::clone(&target) as Arc<dyn Target>);
        under.empty().await;
        polling.stop().await;
        let mut counts: HashMap<String, usize> = HashMap::new();
        for body in target.batches.lock().expect("lock").iter().flat_map(|(_, bodies)| bodies) {
            *counts.entry(body.clone()).or_default() += 1;
        }
        assert_eq!(counts, HashMap::from([("good".into(), 1), ("bad".into(), 2), ("fine".into(), 1)]));
    })
    .await;
}

/// What the first invocation answers, so that the whole batch must come again.
async fn whole_batch_comes_again(first: fn() -> Result<Value, InvokeError>) {
    on_both(false, async |under: Under| {
        under.send("a", None).await;
        under.send("b", None).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let target = function({
            let calls = Arc::clone(&calls);
            move |_| {
                let answer = if calls.fetch_add(1, Ordering::SeqCst) == 0 { first() } else { Ok(json!({})) };
                Box::pin(async move { answer })
            }
        });
        let mapping = Mapping { concurrency: 1, ..mapping() };
        let polling = Polling::start(mapping, &under, Arc::clone(&target) as Arc<dyn Target>);
        under.empty().await;
        polling.stop().await;
        let batches = target.batches.lock().expect("lock");
        let mut bodies: Vec<_> = batches.iter().flat_map(|(_, bodies)| bodies.clone()).collect();
        bodies.sort();
        assert_eq!(bodies, ["a", "a", "b", "b"]);
        assert_eq!(batches[0].1.len(), 2);
        // Hidden until then: the poller itself never brings a message back early.
        let hidden = batches[1].0 - batches[0].0;
        assert!(hidden >= Duration::from_millis(VISIBILITY_S * 1_000 - 100), "hidden for {hidden:?}");
    })
    .await;
}

#[tokio::test]
async fn a_function_error_returns_the_whole_batch_after_its_visibility_time_out() {
    whole_batch_comes_again(|| Err(InvokeError::Crashed("killed".into()))).await;
}

#[tokio::test]
async fn an_unknown_item_identifier_fails_the_whole_batch() {
    whole_batch_comes_again(|| Ok(json!({ "batchItemFailures": [{ "itemIdentifier": "nobody" }] }))).await;
}

#[tokio::test]
async fn an_empty_item_identifier_fails_the_whole_batch() {
    whole_batch_comes_again(|| Ok(json!({ "batchItemFailures": [{ "itemIdentifier": "" }] }))).await;
}

#[tokio::test]
async fn a_missing_item_identifier_fails_the_whole_batch() {
    whole_batch_comes_again(|| Ok(json!({ "batchItemFailures": [{}] }))).await;
}

#[tokio::test]
async fn an_answer_of_another_shape_fails_the_whole_batch() {
    whole_batch_comes_again(|| Ok(json!("fine"))).await;
}

#[tokio::test]
async fn without_item_failures_any_answer_acknowledges_the_batch() {
    on_both(false, async |under: Under| {
        under.send("a", None).await;
        let target = function(|_| Box::pin(async { Ok(json!({ "batchItemFailures": [{}] })) }));
        let mapping = Mapping { report_item_failures: false, ..mapping() };
        let polling = Polling::start(mapping, &under, Arc::clone(&target) as Arc<dyn Target>);
        under.empty().await;
        polling.stop().await;
        assert_eq!(target.batches.lock().expect("lock").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn poison_goes_to_the_dead_letters() {
    on_both(false, async |under: Under| {
        under.send("poison", None).await;
        let target = function(|_| Box::pin(async { Err(InvokeError::Crashed("again".into())) }));
        let polling = Polling::start(mapping(), &under, Arc::clone(&target) as Arc<dyn Target>);
        eventually("a dead letter", || async { (under.left().await == (0, 1)).then_some(()) }).await;
        polling.stop().await;
        let calls = target.batches.lock().expect("lock").len();
        assert_eq!(u64::try_from(calls).expect("calls"), MOST_RECEIVES);
    })
    .await;
}

#[tokio::test]
async fn of_a_group_one_batch_is_in_flight_and_groups_run_in_parallel() {
    on_both(true, async |under: Under| {
        for n in 0..3 {
            under.send(&format!("a{n}"), Some("a")).await;
            under.send(&format!("b{n}"), Some("b")).await;
        }
        // Per group: batches in flight. Both groups' first batches wait for each other.
        let running: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let most: Arc<AtomicUsize> = Arc::default();
        let met = Arc::new((AtomicUsize::new(0), Notify::new()));
        let target = function({
            let (running, most, met) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&met));
            move |records| {
                let group = records[0]["attributes"]["MessageGroupId"].as_str().expect("group").to_owned();
                let (running, most, met) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&met));
                Box::pin(async move {
                    let now = {
                        let mut running = running.lock().expect("lock");
                        let count = running.entry(group.clone()).or_default();
                        *count += 1;
                        *count
                    };
                    most.fetch_max(now, Ordering::SeqCst);
                    if met.0.fetch_add(1, Ordering::SeqCst) == 0 {
                        met.1.notified().await;
                    } else {
                        met.1.notify_one();
                    }
                    *running.lock().expect("lock").entry(group).or_default() -= 1;
                    Ok(Value::Null)
                })
            }
        });
        let mapping = Mapping { fifo: true, batch_size: 1, ..mapping() };
        let polling = Polling::start(mapping, &under, Arc::clone(&target) as Arc<dyn Target>);
        under.empty().await;
        polling.stop().await;
        assert_eq!(most.load(Ordering::SeqCst), 1, "two batches of one group at a time");
        let batches = target.batches.lock().expect("lock");
        for group in ["a", "b"] {
            let order: Vec<_> =
                batches.iter().flat_map(|(_, bodies)| bodies).filter(|body| body.starts_with(group)).cloned().collect();
            assert_eq!(order, [format!("{group}0"), format!("{group}1"), format!("{group}2")]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_group_whose_batch_outlives_its_visibility_time_out_does_not_run_twice() {
    on_both(true, async |under: Under| {
        under.send("slow", Some("a")).await;
        let running: Arc<AtomicUsize> = Arc::default();
        let most: Arc<AtomicUsize> = Arc::default();
        let target = function({
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            move |_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                Box::pin(async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(VISIBILITY_S * 1_000 + 500)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(Value::Null)
                })
            }
        });
        let mapping = Mapping { fifo: true, batch_size: 1, ..mapping() };
        let polling = Polling::start(mapping, &under, Arc::clone(&target) as Arc<dyn Target>);
        eventually("handled or dead", || async { (under.left().await.0 == 0).then_some(()) }).await;
        polling.stop().await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
    })
    .await;
}

/// Two messages of one group; the second is handed to a receive that waits while the first is being deleted, as SQS
/// does it, and the deletion ends only after the poller has come back for more.
#[derive(Default)]
struct Handover {
    receives: AtomicUsize,
    deleting: Notify,
    came_back: Notify,
}

#[async_trait]
impl Source for Handover {
    async fn receive(&self, _most: usize, _wait: Duration) -> anyhow::Result<Vec<Received>> {
        let body = match self.receives.fetch_add(1, Ordering::SeqCst) {
            0 => "first",
            1 => {
                self.deleting.notified().await;
                "second"
            }
            2 => {
                self.came_back.notify_one();
                std::future::pending().await
            }
            _ => std::future::pending().await,
        };
        let record = json!({"messageId": body, "body": body, "attributes": { "MessageGroupId": "a" }});
        Ok(vec![Received { message_id: body.into(), receipt: body.into(), group: Some("a".into()), record }])
    }

    async fn delete(&self, receipts: &[String]) -> anyhow::Result<()> {
        if receipts == ["first"] {
            self.deleting.notify_one();
            self.came_back.notified().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_next_message_of_a_group_may_come_while_the_last_one_is_being_deleted() {
    let target = function(|_| Box::pin(async { Ok(Value::Null) }));
    let mapping = Mapping { fifo: true, batch_size: 1, ..mapping() };
    let stop = watch::Sender::new(false);
    let source: Arc<dyn Source> = Arc::new(Handover::default());
    let polled: Arc<dyn Target> = Arc::clone(&target) as Arc<dyn Target>;
    let task = tokio::spawn(run(mapping, source, polled, stop.subscribe(), |_| {}));
    eventually("both handled", || async { (target.batches.lock().expect("lock").len() == 2).then_some(()) }).await;
    task.abort();
}

#[tokio::test]
async fn maximum_concurrency_bounds_the_batches_in_flight() {
    on_both(false, async |under: Under| {
        for n in 0..12 {
            under.send(&n.to_string(), None).await;
        }
        let running: Arc<AtomicUsize> = Arc::default();
        let most: Arc<AtomicUsize> = Arc::default();
        let target = function({
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            move |_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                Box::pin(async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(Value::Null)
                })
            }
        });
        let mapping = Mapping { batch_size: 1, concurrency: 2, ..mapping() };
        let polling = Polling::start(mapping, &under, Arc::clone(&target) as Arc<dyn Target>);
        under.empty().await;
        polling.stop().await;
        assert_eq!(most.load(Ordering::SeqCst), 2);
    })
    .await;
}
