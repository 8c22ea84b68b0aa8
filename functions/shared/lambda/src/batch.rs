//! One SQS batch: each record parsed by itself, handled by itself, answered by itself.
//!
//! - A record that fails is named in the answer, so that only it returns; the others are acknowledged.
//! - When a dependency is down the invocation as a whole fails: partial failures switch off the poller's back-off.
//! - A record without a message id fails the invocation: an answer cannot name it, and an empty name in the answer
//!   would mean that the whole batch failed, silently.
//! - On a FIFO queue nothing overtakes: after a failed record the later ones of its group fail too, unhandled.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{Either, join_all, select};
use ports::{Clock, Failure, PortResult, Random};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::runtime::{App, Invocation};
use crate::telemetry::Counts;

/// What is kept of an invocation's time to set the visibility of failed records and to answer.
pub const RESERVE_MS: u64 = 1_000;
/// Part of a message's default wait per time that it was received.
const WAIT_STEP_MS: u64 = 2_000;
/// Receives after which the default wait grows no more: 20 s.
const WAIT_STEPS_AT_MOST: u64 = 10;

/// An SQS event: what we use of it. Unknown fields are tolerated.
#[derive(Debug, Clone, Deserialize)]
pub struct SqsEvent {
    /// The messages.
    #[serde(rename = "Records")]
    pub records: Vec<SqsRecord>,
}

/// One message of an SQS event.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsRecord {
    /// Names the record in the answer; empty: it was missing.
    #[serde(default)]
    pub message_id: String,
    /// For changing its visibility.
    #[serde(default)]
    pub receipt_handle: String,
    /// Our JSON, as text. May hold personal values.
    #[serde(default)]
    pub body: String,
    /// What SQS says of the message.
    #[serde(default)]
    pub attributes: Attributes,
    /// ARN of the queue.
    #[serde(default, rename = "eventSourceARN")]
    pub event_source_arn: String,
}

/// What SQS says of a message; it writes numbers as texts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Attributes {
    /// How often it was received, this time included.
    pub approximate_receive_count: Option<String>,
    /// Its group (FIFO queues only).
    pub message_group_id: Option<String>,
}

impl std::fmt::Debug for SqsRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqsRecord").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

impl SqsRecord {
    /// How often the message was received, this time included; at least 1.
    fn receives(&self) -> u64 {
        let count = self.attributes.approximate_receive_count.as_deref();
        count.and_then(|count| count.parse().ok()).unwrap_or(1).max(1)
    }

    /// The queue's name: the last part of its ARN.
    fn queue(&self) -> &str {
        self.event_source_arn.rsplit(':').next().unwrap_or_default()
    }
}

/// The answer to an SQS event: the records that are to return.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Empty: all are acknowledged.
    pub batch_item_failures: Vec<ItemFailure>,
}

/// One record that is to return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Its message id.
    pub item_identifier: String,
}

/// A message as its handler sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message<T> {
    /// The parsed body.
    pub body: T,
    /// The queue's name.
    pub queue: String,
    /// How often it was received, this time included.
    pub receives: u64,
    /// Until when the handler may work, in milliseconds since the epoch. It is dropped then.
    pub deadline_ms: u64,
}

impl<T> std::fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// When a received message returns.
#[async_trait]
pub trait Visibility: Send + Sync {
    /// Hides it for `seconds` from now. `queue_arn` and `receipt_handle` are the record's.
    async fn hide(&self, queue_arn: &str, receipt_handle: &str, seconds: u64) -> PortResult<()>;
}

/// Handles an invocation's SQS event, record by record, in order, and gives the answer for Lambda.
///
/// # Errors
/// When nothing is to be acknowledged: the event is no SQS event, a record has no message id, or a handler
/// answered [`Failure::Outage`].
pub async fn run_batch<T, H, F>(app: &App, invocation: Invocation, handler: H) -> anyhow::Result<serde_json::Value>
where
    T: DeserializeOwned,
    H: Fn(Message<T>) -> F,
    F: Future<Output = Result<(), Failure>> + Send,
{
    // The parser's text may quote the event.
    let event: SqsEvent =
        serde_json::from_value(invocation.event).map_err(|_| anyhow::anyhow!("the event is no SQS event"))?;
    let runner = Runner {
        clock: &*app.ports.clock,
        random: &*app.ports.random,
        visibility: &*app.visibility,
        counts: &invocation.counts,
        time_scale: app.config.time_scale,
        stop_ms: invocation.deadline_ms.saturating_sub(RESERVE_MS),
    };
    let response = runner.run(event, handler).await?;
    Ok(serde_json::to_value(response)?)
}

/// Handles an invocation's SQS event as a whole, for work that is cheaper together: each body is parsed by itself, a
/// bad one returns alone, and the good ones return together if the handler fails.
///
/// # Errors
/// As [`run_batch`].
pub async fn run_whole<T, H, F>(invocation: Invocation, handler: H) -> anyhow::Result<serde_json::Value>
where
    T: DeserializeOwned,
    H: FnOnce(Vec<T>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let event: SqsEvent =
        serde_json::from_value(invocation.event).map_err(|_| anyhow::anyhow!("the event is no SQS event"))?;
    if event.records.iter().any(|record| record.message_id.is_empty()) {
        anyhow::bail!("a record has no message id");
    }
    invocation.counts.add("records", event.records.len() as u64);
    let mut bodies = Vec::new();
    let (mut good, mut failed) = (Vec::new(), Vec::new());
    for record in event.records {
        let failure = ItemFailure { item_identifier: record.message_id.clone() };
        match serde_json::from_str::<T>(&record.body) {
            Ok(body) => {
                bodies.push(body);
                good.push(failure);
            }
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                tracing::error!(
                    message.id = record.message_id,
                    "the body is not what this queue carries ({:?} at line {line}, column {column})",
                    error.classify()
                );
                failed.push(failure);
            }
        }
    }
    match handler(bodies).await {
        Ok(()) => {}
        Err(Failure::Outage { reason }) => anyhow::bail!("outage: {reason}"),
        Err(failure) => {
            tracing::warn!(reason = %failure, "the batch will be tried again");
            failed.append(&mut good);
        }
    }
    invocation.counts.add("records_failed", failed.len() as u64);
    Ok(serde_json::to_value(Response { batch_item_failures: failed })?)
}

/// Handles an invocation's SQS event as a whole, as [`run_whole`] does, with what [`run_batch`] gives: the handler sees how
/// often each message was received, ends with the deadline, and may panic; messages that are to be tried again return
/// after some seconds, and a bad body at once, until the dead-letter queue takes it.
///
/// # Errors
/// As [`run_batch`].
pub async fn run_together<T, H, F>(app: &App, invocation: Invocation, handler: H) -> anyhow::Result<serde_json::Value>
where
    T: DeserializeOwned,
    H: FnOnce(Vec<Message<T>>) -> F,
    F: Future<Output = Result<(), Failure>> + Send,
{
    let event: SqsEvent =
        serde_json::from_value(invocation.event).map_err(|_| anyhow::anyhow!("the event is no SQS event"))?;
    let runner = Runner {
        clock: &*app.ports.clock,
        random: &*app.ports.random,
        visibility: &*app.visibility,
        counts: &invocation.counts,
        time_scale: app.config.time_scale,
        stop_ms: invocation.deadline_ms.saturating_sub(RESERVE_MS),
    };
    let response = runner.together(event, handler).await?;
    Ok(serde_json::to_value(response)?)
}

struct Runner<'a> {
    clock: &'a dyn Clock,
    random: &'a dyn Random,
    visibility: &'a dyn Visibility,
    counts: &'a Counts,
    time_scale: f64,
    stop_ms: u64,
}

/// How one record ended, other than well.
enum Ended {
    /// It returns after so many milliseconds.
    Returns(u64),
    /// The invocation is over.
    Outage(String),
}

impl Runner<'_> {
    async fn run<T, H, F>(&self, event: SqsEvent, handler: H) -> anyhow::Result<Response>
    where
        T: DeserializeOwned,
        H: Fn(Message<T>) -> F,
        F: Future<Output = Result<(), Failure>> + Send,
    {
        if event.records.iter().any(|record| record.message_id.is_empty()) {
            anyhow::bail!("a record has no message id");
        }
        self.counts.add("records", event.records.len() as u64);
        let mut response = Response::default();
        let mut blocked = HashSet::new();
        for record in &event.records {
            let group = record.attributes.message_group_id.as_deref();
            let waits_for_group = group.is_some_and(|group| blocked.contains(group));
            let wait_ms = if waits_for_group {
                self.counts.add("records_behind_failed", 1);
                self.wait_ms(record)
            } else if self.clock.now_ms() >= self.stop_ms {
                self.counts.add("records_not_begun", 1);
                // Not this record's fault: it returns at once.
                0
            } else {
                let span = tracing::info_span!(
                    "record",
                    message.id = record.message_id,
                    message.receives = record.receives(),
                    queue = record.queue()
                );
                match self.one(record, &handler).instrument(span).await {
                    Ok(()) => continue,
                    Err(Ended::Returns(wait_ms)) => wait_ms,
                    Err(Ended::Outage(reason)) => anyhow::bail!("outage: {reason}"),
                }
            };
            if let Some(group) = group {
                blocked.insert(group);
            }
            self.hide(record, wait_ms).await;
            response.batch_item_failures.push(ItemFailure { item_identifier: record.message_id.clone() });
        }
        self.counts.add("records_failed", response.batch_item_failures.len() as u64);
        Ok(response)
    }

    /// Parses and handles one record; says in the log how it ended.
    async fn one<T, H, F>(&self, record: &SqsRecord, handler: &H) -> Result<(), Ended>
    where
        T: DeserializeOwned,
        H: Fn(Message<T>) -> F,
        F: Future<Output = Result<(), Failure>> + Send,
    {
        let handled = match self.message(record) {
            Ok(message) => self.bounded(|| handler(message)).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = handled else { return Ok(()) };
        match failure {
            Failure::Retry { reason, after_ms } => {
                tracing::warn!(reason, "the message will be tried again");
                self.counts.add("records_retried", 1);
                Err(Ended::Returns(after_ms.unwrap_or_else(|| self.wait_ms(record))))
            }
            // Back soon, so that it reaches the dead-letter queue soon and its group goes on.
            Failure::Fail { reason } => {
                tracing::error!(reason, "the message is for the dead-letter queue");
                self.counts.add("records_refused", 1);
                Err(Ended::Returns(0))
            }
            Failure::Outage { reason } => Err(Ended::Outage(reason)),
        }
    }

    /// Parses the good bodies and handles them together.
    async fn together<T, H, F>(&self, event: SqsEvent, handler: H) -> anyhow::Result<Response>
    where
        T: DeserializeOwned,
        H: FnOnce(Vec<Message<T>>) -> F,
        F: Future<Output = Result<(), Failure>> + Send,
    {
        if event.records.iter().any(|record| record.message_id.is_empty()) {
            anyhow::bail!("a record has no message id");
        }
        self.counts.add("records", event.records.len() as u64);
        let (mut messages, mut good, mut returning) = (Vec::new(), Vec::new(), Vec::new());
        for record in &event.records {
            match self.message(record) {
                Ok(message) => {
                    messages.push(message);
                    good.push(record);
                }
                Err(failure) => {
                    tracing::error!(message.id = record.message_id, reason = %failure, "for the dead-letter queue");
                    self.counts.add("records_refused", 1);
                    returning.push((record, 0));
                }
            }
        }
        let handled = if messages.is_empty() { Ok(()) } else { self.bounded(|| handler(messages)).await };
        match handled {
            Ok(()) => {}
            Err(Failure::Outage { reason }) => anyhow::bail!("outage: {reason}"),
            Err(Failure::Retry { reason, after_ms }) => {
                tracing::warn!(reason, "the batch will be tried again");
                self.counts.add("records_retried", good.len() as u64);
                let wait_ms = |record| after_ms.unwrap_or_else(|| self.wait_ms(record));
                returning.extend(good.into_iter().map(|record| (record, wait_ms(record))));
            }
            Err(Failure::Fail { reason }) => {
                tracing::error!(reason, "the batch cannot be handled");
                self.counts.add("records_refused", good.len() as u64);
                // Apart from one another: one of them may be the cause.
                returning.extend(good.into_iter().map(|record| (record, self.wait_ms(record))));
            }
        }
        self.counts.add("records_failed", returning.len() as u64);
        // At once: there is a second for all of them.
        join_all(returning.iter().map(|(record, wait_ms)| self.hide(record, *wait_ms))).await;
        let failed = |record: &SqsRecord| ItemFailure { item_identifier: record.message_id.clone() };
        Ok(Response { batch_item_failures: returning.into_iter().map(|(record, _)| failed(record)).collect() })
    }

    /// A record as its handler sees it.
    fn message<T: DeserializeOwned>(&self, record: &SqsRecord) -> Result<Message<T>, Failure> {
        let body = serde_json::from_str::<T>(&record.body).map_err(|error| {
            // The parser's text may quote the body; its place and kind do not.
            Failure::fail(format!(
                "the body is not what this queue carries ({:?} at line {}, column {})",
                error.classify(),
                error.line(),
                error.column()
            ))
        })?;
        let queue = record.queue().to_owned();
        Ok(Message { body, queue, receives: record.receives(), deadline_ms: self.stop_ms })
    }

    /// Runs the handler until the deadline and catches its panic.
    async fn bounded<F>(&self, handle: impl FnOnce() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>> + Send,
    {
        // Called inside the future, so that a panic before the first await is caught too.
        let handled = AssertUnwindSafe(async { handle().await }).catch_unwind();
        let time = self.clock.sleep_ms(self.stop_ms.saturating_sub(self.clock.now_ms()));
        match select(std::pin::pin!(handled), time).await {
            Either::Left((Ok(ended), _)) => ended,
            // Retried, for a panic may come of a passing state; the dead-letter queue bounds it.
            Either::Left((Err(_), _)) => {
                self.counts.add("panics", 1);
                Err(Failure::retry("the handler panicked"))
            }
            Either::Right(_) => Err(Failure::retry("the handler ran into the deadline")),
        }
    }

    /// The default wait: 2 s for each receive so far, up to 20 s, and as much again at random up to 2 s.
    fn wait_ms(&self, record: &SqsRecord) -> u64 {
        let ms = WAIT_STEP_MS * record.receives().min(WAIT_STEPS_AT_MOST) + self.random.next_u64() % WAIT_STEP_MS;
        crate::config::scaled_ms(ms, self.time_scale)
    }

    /// Without this, the message would stay hidden for the queue's whole visibility time-out, minutes, and a FIFO
    /// group with it. That is all that a failure here costs.
    async fn hide(&self, record: &SqsRecord, wait_ms: u64) {
        let seconds = wait_ms.div_ceil(1_000);
        if let Err(error) = self.visibility.hide(&record.event_source_arn, &record.receipt_handle, seconds).await {
            tracing::warn!(%error, message.id = record.message_id, "the message's visibility could not be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::{Value, json};

    use super::*;

    /// A clock that stands until somebody sleeps or a handler moves it.
    #[derive(Default)]
    struct Stopped(AtomicU64);

    #[async_trait]
    impl Clock for Stopped {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        async fn sleep_ms(&self, ms: u64) {
            // Only a handler that waits for ever gives way to this.
            tokio::task::yield_now().await;
            self.0.fetch_add(ms, Ordering::SeqCst);
        }
    }

    struct Fixed(u64);

    impl Random for Fixed {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    #[derive(Default)]
    struct Hidden(Mutex<Vec<(String, u64)>>);

    #[async_trait]
    impl Visibility for Hidden {
        async fn hide(&self, queue_arn: &str, receipt_handle: &str, seconds: u64) -> PortResult<()> {
            assert_eq!(queue_arn, "arn:aws:sqs:us-east-1:1:work");
            self.0.lock().expect("no panic").push((receipt_handle.to_owned(), seconds));
            Err(ports::PortError::Unavailable { service: "sqs", reason: "a lost call is no matter".to_owned() })
        }
    }

    #[derive(Debug, Deserialize, PartialEq, Eq)]
    struct Body {
        n: u64,
    }

    fn record(id: &str, body: &str, group: Option<&str>) -> Value {
        json!({
            "messageId": id,
            "receiptHandle": format!("handle-{id}"),
            "body": body,
            "attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "1", "MessageGroupId": group},
            "messageAttributes": {},
            "md5OfBody": "x",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:1:work",
            "awsRegion": "us-east-1",
        })
    }

    struct Ran {
        response: anyhow::Result<Vec<String>>,
        handled: Vec<u64>,
        hidden: Vec<(String, u64)>,
        counts: std::collections::BTreeMap<&'static str, u64>,
    }

    /// Runs a batch whose handler does what `act` says of a message's number.
    async fn run(records: Vec<Value>, act: fn(u64, &Stopped) -> Act) -> Ran {
        let event = serde_json::from_value(json!({"Records": records})).expect("an event");
        let (clock, hidden, counts) = (Stopped::default(), Hidden::default(), Counts::default());
        let handled = Mutex::new(Vec::new());
        let runner = Runner {
            clock: &clock,
            random: &Fixed(700),
            visibility: &hidden,
            counts: &counts,
            time_scale: 1.0,
            stop_ms: 10_000,
        };
        let response = runner
            .run(event, |message: Message<Body>| {
                assert_eq!((message.queue.as_str(), message.receives, message.deadline_ms), ("work", 2, 10_000));
                handled.lock().expect("no panic").push(message.body.n);
                let act = act(message.body.n, &clock);
                async move {
                    match act {
                        Act::End(end) => end,
                        Act::Panic => panic!("on purpose"),
                        Act::Hang => std::future::pending().await,
                    }
                }
            })
            .await;
        Ran {
            response: response
                .map(|response| response.batch_item_failures.into_iter().map(|item| item.item_identifier).collect()),
            handled: handled.into_inner().expect("no panic"),
            hidden: hidden.0.into_inner().expect("no panic"),
            counts: counts.all(),
        }
    }

    enum Act {
        End(Result<(), Failure>),
        Panic,
        Hang,
    }

    fn ok(_: u64, _: &Stopped) -> Act {
        Act::End(Ok(()))
    }

    fn body(n: u64) -> String {
        json!({"n": n, "unknown": true}).to_string()
    }

    fn hid(id: &str, seconds: u64) -> (String, u64) {
        (format!("handle-{id}"), seconds)
    }

    #[tokio::test]
    async fn all_well_acknowledges_all() {
        let ran = run(vec![record("a", &body(1), None), record("b", &body(2), None)], ok).await;
        assert_eq!(ran.response.expect("an answer"), Vec::<String>::new());
        assert_eq!(ran.handled, [1, 2]);
        assert_eq!(ran.hidden, []);
        assert_eq!((ran.counts["records"], ran.counts["records_failed"]), (2, 0));
    }

    #[tokio::test]
    async fn one_bad_body_fails_alone_and_soon() {
        for bad in ["", "not JSON", "{\"n\":\"one\"}", "[]"] {
            let ran = run(vec![record("a", bad, None), record("b", &body(2), None)], ok).await;
            assert_eq!(ran.response.expect("an answer"), ["a"]);
            assert_eq!(ran.handled, [2]);
            assert_eq!(ran.hidden, [hid("a", 0)]);
            assert_eq!(ran.counts["records_refused"], 1);
        }
    }

    #[tokio::test]
    async fn a_retry_returns_when_it_said_or_after_some_seconds() {
        let records = (1..=4).map(|n| record(&n.to_string(), &body(n), None)).collect();
        let ran = run(records, |n, _| {
            Act::End(match n {
                1 => Err(Failure::retry("lost a race")),
                2 => Err(Failure::Retry { reason: "told to wait".to_owned(), after_ms: Some(61_001) }),
                3 => Err(Failure::Retry { reason: "at once".to_owned(), after_ms: Some(0) }),
                _ => Ok(()),
            })
        })
        .await;
        assert_eq!(ran.response.expect("an answer"), ["1", "2", "3"]);
        // Received twice: 4 s and 700 ms of jitter.
        assert_eq!(ran.hidden, [hid("1", 5), hid("2", 62), hid("3", 0)]);
        assert_eq!(ran.counts["records_retried"], 3);
    }

    #[tokio::test]
    async fn a_failure_for_good_returns_until_the_dead_letter_queue_takes_it() {
        let ran = run(vec![record("a", &body(1), None)], |_, _| Act::End(Err(Failure::fail("unknown version")))).await;
        assert_eq!(ran.response.expect("an answer"), ["a"]);
        assert_eq!(ran.hidden, [hid("a", 0)]);
    }

    #[tokio::test]
    async fn an_outage_fails_the_invocation_and_begins_no_more() {
        let records = (1..=3).map(|n| record(&n.to_string(), &body(n), None)).collect();
        let ran = run(records, |n, _| {
            Act::End(if n == 2 { Err(Failure::Outage { reason: "no such table".to_owned() }) } else { Ok(()) })
        })
        .await;
        assert_eq!(ran.response.expect_err("no answer").to_string(), "outage: no such table");
        assert_eq!(ran.handled, [1, 2]);
    }

    #[tokio::test]
    async fn a_panic_fails_its_record_alone() {
        let records = (1..=3).map(|n| record(&n.to_string(), &body(n), None)).collect();
        let ran = run(records, |n, _| if n == 2 { Act::Panic } else { Act::End(Ok(())) }).await;
        assert_eq!(ran.response.expect("an answer"), ["2"]);
        assert_eq!(ran.handled, [1, 2, 3]);
        assert_eq!(ran.counts["panics"], 1);
    }

    #[tokio::test]
    async fn a_panic_before_the_first_await_fails_its_record_alone() {
        let act = |n: u64, _: &Stopped| if n == 1 { panic!("on purpose") } else { Act::End(Ok(())) };
        let ran = run(vec![record("a", &body(1), None), record("b", &body(2), None)], act).await;
        assert_eq!(ran.response.expect("an answer"), ["a"]);
        assert_eq!(ran.handled, [1, 2]);
    }

    #[tokio::test]
    async fn no_record_begins_after_the_deadline() {
        let records = (1..=3).map(|n| record(&n.to_string(), &body(n), None)).collect();
        let ran = run(records, |_, clock| {
            clock.0.store(10_000, Ordering::SeqCst);
            Act::End(Ok(()))
        })
        .await;
        assert_eq!(ran.response.expect("an answer"), ["2", "3"]);
        assert_eq!(ran.handled, [1]);
        assert_eq!(ran.hidden, [hid("2", 0), hid("3", 0)]);
        assert_eq!(ran.counts["records_not_begun"], 2);
    }

    #[tokio::test]
    async fn a_handler_that_hangs_is_dropped_at_the_deadline() {
        let records = (1..=2).map(|n| record(&n.to_string(), &body(n), None)).collect();
        let ran = run(records, |_, _| Act::Hang).await;
        assert_eq!(ran.response.expect("an answer"), ["1", "2"]);
        assert_eq!(ran.handled, [1]);
    }

    #[tokio::test]
    async fn nothing_overtakes_in_a_group() {
        let records = vec![
            record("a1", &body(1), Some("a")),
            record("b1", &body(2), Some("b")),
            record("a2", &body(3), Some("a")),
            record("b2", &body(4), Some("b")),
        ];
        let ran = run(records, |n, _| Act::End(if n == 1 { Err(Failure::retry("later")) } else { Ok(()) })).await;
        assert_eq!(ran.response.expect("an answer"), ["a1", "a2"]);
        assert_eq!(ran.handled, [1, 2, 4]);
        // Both are shown again: a group with one hidden message stays blocked as a whole.
        assert_eq!(ran.hidden, [hid("a1", 5), hid("a2", 5)]);
    }

    #[tokio::test]
    async fn a_record_without_a_message_id_fails_the_invocation_before_anything_is_handled() {
        for missing in [json!({"body": "{\"n\":2}"}), record("", &body(2), None)] {
            let ran = run(vec![record("a", &body(1), None), missing], ok).await;
            assert!(ran.response.is_err());
            assert_eq!(ran.handled, [0u64; 0]);
        }
    }

    /// Handles a batch as a whole and ends as `end` says; what was handled, how often each was received, what returns.
    async fn together(
        records: Vec<Value>,
        end: fn() -> Act,
    ) -> (anyhow::Result<Vec<String>>, Vec<(u64, u64)>, Vec<(String, u64)>) {
        let event = serde_json::from_value(json!({"Records": records})).expect("an event");
        let (clock, hidden, counts) = (Stopped::default(), Hidden::default(), Counts::default());
        let handled = Mutex::new(Vec::new());
        let runner = Runner {
            clock: &clock,
            random: &Fixed(700),
            visibility: &hidden,
            counts: &counts,
            time_scale: 1.0,
            stop_ms: 10_000,
        };
        let response = runner.together(event, |messages: Vec<Message<Body>>| {
            let seen = messages.iter().map(|message| (message.body.n, message.receives)).collect();
            *handled.lock().expect("no panic") = seen;
            let end = end();
            async move {
                match end {
                    Act::End(end) => end,
                    Act::Panic => panic!("on purpose"),
                    Act::Hang => std::future::pending().await,
                }
            }
        });
        let named = |response: Response| response.batch_item_failures.into_iter().map(|item| item.item_identifier);
        let response = response.await.map(|response| named(response).collect());
        (response, handled.into_inner().expect("no panic"), hidden.0.into_inner().expect("no panic"))
    }

    #[tokio::test]
    async fn together_the_good_ones_are_handled_and_return_after_some_seconds_and_a_bad_one_at_once() {
        let mut first = record("c", &body(3), None);
        first["attributes"]["ApproximateReceiveCount"] = json!("1");
        let records = vec![record("a", &body(1), None), record("b", "not JSON", None), first];
        let (response, handled, hidden) = together(records.clone(), || Act::End(Ok(()))).await;
        assert_eq!((response.expect("an answer"), handled), (vec!["b".to_owned()], vec![(1, 2), (3, 1)]));
        assert_eq!(hidden, [hid("b", 0)]);

        let ends: [fn() -> Act; 4] = [
            || Act::End(Err(Failure::retry("throttled"))),
            || Act::End(Err(Failure::fail("one of them"))),
            || Act::Panic,
            || Act::Hang,
        ];
        for end in ends {
            let (response, _, hidden) = together(records.clone(), end).await;
            assert_eq!(response.expect("an answer"), ["b", "a", "c"]);
            assert_eq!(hidden, [hid("b", 0), hid("a", 5), hid("c", 3)]);
        }
    }

    #[tokio::test]
    async fn together_an_outage_fails_the_invocation_and_nothing_but_bad_ones_reaches_no_handler() {
        let outage = || Act::End(Err(Failure::Outage { reason: "no such table".to_owned() }));
        let (response, _, hidden) = together(vec![record("a", &body(1), None)], outage).await;
        assert_eq!((response.expect_err("no answer").to_string().as_str(), hidden.len()), ("outage: no such table", 0));
        let (response, handled, _) = together(vec![record("a", "", None)], outage).await;
        assert_eq!((response.expect("an answer"), handled.len()), (vec!["a".to_owned()], 0));
        assert!(together(vec![record("", &body(1), None)], outage).await.0.is_err());
    }

    #[test]
    fn the_answer_has_lambdas_shape_and_a_record_shows_no_body() {
        let response = Response { batch_item_failures: vec![ItemFailure { item_identifier: "a".to_owned() }] };
        let value = serde_json::to_value(response).expect("JSON");
        assert_eq!(value, json!({"batchItemFailures": [{"itemIdentifier": "a"}]}));
        let record: SqsRecord = serde_json::from_value(record("a", "canary", None)).expect("a record");
        assert!(!format!("{record:?}").contains("canary"));
    }

    #[tokio::test]
    async fn of_a_whole_batch_a_bad_body_returns_alone_and_the_good_ones_together() {
        let event = json!({"Records": [{"messageId": "a", "body": "1"}, {"messageId": "b", "body": "x"}, {"messageId": "c", "body": "2"}]});
        let invocation = || Invocation { event: event.clone(), deadline_ms: 0, counts: Counts::default() };
        let answer = run_whole(invocation(), async |bodies: Vec<u32>| {
            assert_eq!(bodies, [1, 2]);
            Ok(())
        });
        assert_eq!(answer.await.unwrap(), json!({"batchItemFailures": [{"itemIdentifier": "b"}]}));
        let answer = run_whole(invocation(), async |_: Vec<u32>| Err(Failure::retry("later"))).await.unwrap();
        assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 3);
        let outage = run_whole(invocation(), async |_: Vec<u32>| Err(Failure::Outage { reason: "down".into() }));
        assert!(outage.await.is_err());
    }
}
