//! The event source mapping: takes messages from a queue and hands them to a function in batches.
//!
//! What Lambda promises, and what this keeps: messages of a batch are deleted only after the function answered; a
//! failed function leaves the whole batch hidden until its visibility time-out; with `ReportBatchItemFailures` only
//! the named messages stay, and an answer that cannot be understood means that all of them stay; of a FIFO group one
//! batch is in flight at a time, groups run in parallel. Dead letters are the queue's own work, at the next receive.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::runtime::InvokeError;

/// Most messages that SQS gives at once.
const RECEIVE_MOST: usize = 10;
/// Long poll. Lambda's own is 20 s; a short one ends quicker and costs nothing here.
const RECEIVE_WAIT: Duration = Duration::from_secs(2);
/// How often a queue is looked at while a batch gathers.
const GATHER_EVERY: Duration = Duration::from_millis(50);
/// Wait after a failed receive.
const RECEIVE_BACKOFF: Duration = Duration::from_millis(200);
/// Lambda's limit of an event, in bytes (Lambda quotas: 6 MB, synchronous).
pub const EVENT_LIMIT: usize = 6 * 1024 * 1024;
/// Batches in flight of a mapping that sets no limit. AWS: up to 1,250; this machine is smaller.
pub const DEFAULT_CONCURRENCY: usize = 5;

/// A message that was received and not yet deleted.
#[derive(Debug, Clone)]
pub struct Received {
    /// The message's id: what a function names in `itemIdentifier`.
    pub message_id: String,
    /// Handle that deletes it.
    pub receipt: String,
    /// FIFO group.
    pub group: Option<String>,
    /// The message as Lambda shows it in `Records`.
    pub record: Value,
}

/// A queue.
#[async_trait]
pub trait Source: Send + Sync {
    /// At most `most` messages, which are then hidden for the queue's visibility time-out; waits up to `wait`
    /// (whole seconds) for the first. Of a FIFO group with a hidden message it gives nothing more.
    async fn receive(&self, most: usize, wait: Duration) -> anyhow::Result<Vec<Received>>;
    /// Deletes messages.
    async fn delete(&self, receipts: &[String]) -> anyhow::Result<()>;
}

/// A function.
#[async_trait]
pub trait Target: Send + Sync {
    /// Runs the function once.
    async fn invoke(&self, event: Bytes) -> Result<Bytes, InvokeError>;
}

/// Settings of a mapping.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Name for log lines.
    pub queue: String,
    /// FIFO queue.
    pub fifo: bool,
    /// Most messages a batch.
    pub batch_size: usize,
    /// How long a batch may gather after its first message.
    pub window: Duration,
    /// `ReportBatchItemFailures`.
    pub report_item_failures: bool,
    /// Most batches in flight.
    pub concurrency: usize,
}

/// Polls until `stop` turns true, then waits for the batches in flight. `log` hears what went wrong.
pub async fn run(
    mapping: Mapping,
    source: Arc<dyn Source>,
    target: Arc<dyn Target>,
    mut stop: watch::Receiver<bool>,
    log: impl Fn(String) + Send + Sync + 'static,
) {
    let permits = Arc::new(Semaphore::new(mapping.concurrency));
    let groups: Arc<Mutex<HashSet<String>>> = Arc::default();
    let mapping = Arc::new(mapping);
    let log: Arc<dyn Fn(String) + Send + Sync> = Arc::new(log);
    let mut batches = JoinSet::new();
    loop {
        let permit = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let gathered = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            gathered = gather(&mapping, source.as_ref()) => gathered,
        };
        let messages = match gathered {
            Ok(messages) => messages,
            Err(error) => {
                log(format!("{}: receive failed: {error:#}", mapping.queue));
                tokio::time::sleep(RECEIVE_BACKOFF).await;
                continue;
            }
        };
        // A group whose batch outlives its visibility time-out must still not run twice at a time: what came too
        // early stays hidden and comes again.
        let messages = claim(&groups, messages);
        if messages.is_empty() {
            continue;
        }
        let (mapping, source, target) = (Arc::clone(&mapping), Arc::clone(&source), Arc::clone(&target));
        let (groups, log) = (Arc::clone(&groups), Arc::clone(&log));
        batches.spawn(async move {
            let claimed =
                Claimed { names: messages.iter().filter_map(|message| message.group.clone()).collect(), groups };
            if let Err(problem) = batch(&mapping, source.as_ref(), target.as_ref(), messages, claimed).await {
                log(format!("{}: {problem}", mapping.queue));
            }
            drop(permit);
        });
        while batches.try_join_next().is_some() {}
    }
    while batches.join_next().await.is_some() {}
}

/// Groups that are busy until this is dropped.
struct Claimed {
    names: Vec<String>,
    groups: Arc<Mutex<HashSet<String>>>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut busy = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            busy.remove(name);
        }
    }
}

/// The messages whose groups were free; those groups are busy now.
fn claim(groups: &Mutex<HashSet<String>>, messages: Vec<Received>) -> Vec<Received> {
    let mut busy = groups.lock().unwrap_or_else(PoisonError::into_inner);
    let before = busy.clone();
    messages
        .into_iter()
        .filter(|message| match &message.group {
            None => true,
            Some(group) if before.contains(group) => false,
            Some(group) => {
                busy.insert(group.clone());
                true
            }
        })
        .collect()
}

/// Waits for a first message, then gathers until the batch is full, as large as an event may be, or the window ends.
async fn gather(mapping: &Mapping, source: &dyn Source) -> anyhow::Result<Vec<Received>> {
    let size = |messages: &[Received]| messages.iter().map(|m| m.record.to_string().len()).sum::<usize>();
    let mut messages = source.receive(mapping.batch_size.min(RECEIVE_MOST), RECEIVE_WAIT).await?;
    if messages.is_empty() || mapping.window.is_zero() {
        return Ok(messages);
    }
    let end = Instant::now() + mapping.window;
    let mut bytes = size(&messages);
    // A message is at most 256 KiB, so ten more always fit below this mark.
    while messages.len() < mapping.batch_size && bytes < EVENT_LIMIT / 2 && Instant::now() < end {
        let more = source.receive((mapping.batch_size - messages.len()).min(RECEIVE_MOST), Duration::ZERO).await?;
        if more.is_empty() {
            tokio::time::sleep_until(end.min(Instant::now() + GATHER_EVERY)).await;
        }
        bytes += size(&more);
        messages.extend(more);
    }
    Ok(messages)
}

/// Runs one batch and deletes what succeeded. An error is what to tell the log; what it concerns stays hidden.
async fn batch(
    mapping: &Mapping,
    source: &dyn Source,
    target: &dyn Target,
    messages: Vec<Received>,
    claimed: Claimed,
) -> Result<(), String> {
    let records: Vec<&Value> = messages.iter().map(|message| &message.record).collect();
    let event = Bytes::from(json!({ "Records": records }).to_string());
    let answer = target.invoke(event).await.map_err(|error| format!("batch failed: {error}"))?;
    // Before the delete: that lets the queue give the group's next message to a receive that is waiting already, and
    // a group still marked busy would leave it hidden for a whole visibility time-out.
    drop(claimed);
    let failed = if mapping.report_item_failures { failures(&answer, &messages)? } else { HashSet::new() };
    let receipts: Vec<String> = messages
        .iter()
        .filter(|message| !failed.contains(&message.message_id))
        .map(|message| message.receipt.clone())
        .collect();
    source.delete(&receipts).await.map_err(|error| format!("delete failed: {error:#}"))?;
    if failed.is_empty() { Ok(()) } else { Err(format!("{} of {} messages failed", failed.len(), messages.len())) }
}

/// The messages that the function's answer names as failed. An error: the whole batch failed.
fn failures(answer: &[u8], messages: &[Received]) -> Result<HashSet<String>, String> {
    let whole = |why: &str| format!("the whole batch failed: {why}");
    if answer.is_empty() {
        return Ok(HashSet::new());
    }
    let answer: Value = serde_json::from_slice(answer).map_err(|_| whole("the answer is not JSON"))?;
    let items = match &answer {
        Value::Null => return Ok(HashSet::new()),
        Value::Object(object) => match object.get("batchItemFailures") {
            None | Some(Value::Null) => return Ok(HashSet::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(whole("batchItemFailures is not a list")),
        },
        _ => return Err(whole("the answer is not an object")),
    };
    let mut failed = HashSet::new();
    for item in items {
        let id = item.get("itemIdentifier").and_then(Value::as_str).unwrap_or_default();
        if !messages.iter().any(|message| message.message_id == id) {
            return Err(whole("an itemIdentifier is empty or unknown"));
        }
        failed.insert(id.to_owned());
    }
    Ok(failed)
}
