//! [`Queues`] over SQS: the one place that sends messages.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use futures::{StreamExt, TryStreamExt, stream};
use ports::{Outgoing, PortError, PortResult, Queue, Queues};

use crate::errors::port_error;
use crate::system::back_off;

const SERVICE: &str = "sqs";
/// Entries of one SendMessageBatch: the service's limit.
pub const ENTRIES_PER_BATCH: usize = 10;
/// Bytes of all bodies of one SendMessageBatch, and of one message. (SQS has allowed 1 MiB since August 2025;
/// we keep to the older limit, which every emulator and every event source knows.)
pub const BYTES_PER_BATCH: usize = 256 * 1024;
/// Batches under way at once on a standard queue. A FIFO queue takes them one by one, in order.
const BATCHES_AT_ONCE: usize = 8;
/// Times that one batch's failed entries are sent again: about 1.5 s of pauses.
const REPEATS: u32 = 5;
/// The longest that a message can stay hidden, in seconds: the service's limit (12 hours).
const HIDDEN_AT_MOST_S: u64 = 43_200;

/// The queues in SQS.
#[derive(Debug, Clone)]
pub struct SqsQueues {
    client: Client,
    urls: BTreeMap<Queue, String>,
    base: String,
    dead: Vec<String>,
}

impl SqsQueues {
    /// `urls` holds the URL of each queue that this function may send to; a call on another one is refused.
    /// `base`: where a queue's URL begins when only its ARN is known, e.g. `https://sqs.eu-west-1.amazonaws.com`.
    #[must_use]
    pub fn new(client: Client, urls: BTreeMap<Queue, String>, base: String) -> Self {
        Self { client, urls, base, dead: Vec::new() }
    }

    /// The dead-letter queues whose depth may be asked, by their URLs.
    #[must_use]
    pub fn with_dead_queues(self, dead: Vec<String>) -> Self {
        Self { dead, ..self }
    }

    /// Opens the connection with an empty batch, so that the first message does not wait for it. SQS refuses the batch, and
    /// asks for no permission but the one to send. Whether it worked is of no interest: the first real call will tell.
    pub async fn warm(&self) {
        let Some(url) = self.urls.values().next() else { return };
        let answer = self.client.send_message_batch().queue_url(url).set_entries(Some(Vec::new())).send().await;
        // A refusal has come by the connection.
        if let Err(error) = answer.map_err(|error| port_error(SERVICE, "SendMessageBatch", &error))
            && !matches!(error, PortError::Refused { .. })
        {
            tracing::debug!(%error, "could not open the connection ahead of time");
        }
    }

    /// About how many messages wait in a queue.
    async fn depth(&self, url: &str) -> PortResult<u64> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
            .send()
            .await
            .map_err(|error| port_error(SERVICE, "GetQueueAttributes", &error))?;
        let depth = answer.attributes().and_then(|all| all.get(&QueueAttributeName::ApproximateNumberOfMessages));
        Ok(depth.and_then(|depth| depth.parse().ok()).unwrap_or(0))
    }

    /// Hides a received message for `seconds` from now (at most 12 hours), so that it returns then and not after
    /// the queue's whole visibility time-out. `queue_arn` is the record's `eventSourceARN`.
    pub async fn set_visibility(&self, queue_arn: &str, receipt_handle: &str, seconds: u64) -> PortResult<()> {
        let url = queue_url(&self.base, queue_arn)
            .ok_or_else(|| refused("ChangeMessageVisibility: the event source is no queue".to_owned()))?;
        self.client
            .change_message_visibility()
            .queue_url(url)
            .receipt_handle(receipt_handle)
            .visibility_timeout(i32::try_from(seconds.min(HIDDEN_AT_MOST_S)).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| port_error(SERVICE, "ChangeMessageVisibility", &error))?;
        Ok(())
    }

    async fn send_batch(&self, url: &str, mut entries: Vec<SendMessageBatchRequestEntry>) -> PortResult<()> {
        let mut attempt = 0;
        loop {
            let answer = self
                .client
                .send_message_batch()
                .queue_url(url)
                .set_entries(Some(entries.clone()))
                .send()
                .await
                .map_err(|error| port_error(SERVICE, "SendMessageBatch", &error))?;
            if let Some(fault) = answer.failed.iter().find(|entry| entry.sender_fault) {
                return Err(refused(format!("SendMessageBatch: {}", fault.code)));
            }
            // What was neither sent nor failed counts as failed: an entry must not vanish.
            entries.retain(|entry| !answer.successful.iter().any(|sent| sent.id == entry.id));
            if entries.is_empty() {
                return Ok(());
            }
            if attempt == REPEATS {
                return Err(PortError::Unavailable {
                    service: SERVICE,
                    reason: format!("SendMessageBatch: {} entries keep failing", entries.len()),
                });
            }
            back_off(attempt).await;
            attempt += 1;
        }
    }
}

#[async_trait]
impl Queues for SqsQueues {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        let url = self.urls.get(&queue).ok_or_else(|| refused(format!("{} is not set", queue.env())))?;
        // All are checked before any is sent.
        for message in &messages {
            check(queue, message)?;
        }
        let sizes: Vec<usize> = messages.iter().map(|message| message.body.len()).collect();
        let batches =
            split(&sizes).into_iter().map(|range| entries(&messages[range])).collect::<PortResult<Vec<_>>>()?;
        let at_once = if queue.is_fifo() { 1 } else { BATCHES_AT_ONCE };
        stream::iter(batches.into_iter().map(|batch| self.send_batch(url, batch))).buffered(at_once).try_collect().await
    }

    async fn dead_letters(&self) -> PortResult<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        for url in &self.dead {
            let depth = self.depth(url).await?;
            if depth > 0 {
                found.insert(url.rsplit('/').next().unwrap_or_default().to_owned(), depth);
            }
        }
        Ok(found)
    }
}

fn refused(reason: String) -> PortError {
    PortError::Refused { service: SERVICE, reason }
}

/// A message that the queue would refuse is our own mistake.
fn check(queue: Queue, message: &Outgoing) -> PortResult<()> {
    let fault = if message.body.is_empty() {
        "a message is empty"
    } else if message.body.len() > BYTES_PER_BATCH {
        "a message is over 256 KiB"
    } else if queue.is_fifo() && (message.group.is_none() || message.dedup.is_none()) {
        "a FIFO queue's message needs a group and a deduplication id"
    } else if !queue.is_fifo() && (message.group.is_some() || message.dedup.is_some()) {
        "a standard queue's message has neither group nor deduplication id"
    } else {
        return Ok(());
    };
    Err(refused(format!("{queue:?}: {fault}")))
}

fn entries(messages: &[Outgoing]) -> PortResult<Vec<SendMessageBatchRequestEntry>> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(&message.body)
                .set_message_group_id(message.group.clone())
                .set_message_deduplication_id(message.dedup.clone())
                .build()
                .map_err(|_| refused("SendMessageBatch: the request could not be built".to_owned()))
        })
        .collect()
}

/// Cuts messages of these sizes (bytes) into batches, in order, each within both limits.
fn split(sizes: &[usize]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, size) in sizes.iter().enumerate() {
        if index > start && (index - start == ENTRIES_PER_BATCH || bytes + size > BYTES_PER_BATCH) {
            batches.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < sizes.len() {
        batches.push(start..sizes.len());
    }
    batches
}

/// `arn:aws:sqs:<region>:<account>:<name>` → `<base>/<account>/<name>`.
fn queue_url(base: &str, arn: &str) -> Option<String> {
    let mut parts = arn.splitn(6, ':');
    let (account, name) = (parts.nth(4)?, parts.next()?);
    if !arn.contains(":sqs:") || account.is_empty() || name.is_empty() {
        return None;
    }
    Some(format!("{}/{account}/{name}", base.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_hold_every_message_in_order_and_keep_both_limits(
            sizes in prop::collection::vec(prop_oneof![1usize..=2000, 1usize..=BYTES_PER_BATCH], 0..60)
        ) {
            let batches = split(&sizes);
            let mut next = 0;
            for batch in &batches {
                prop_assert_eq!(batch.start, next);
                prop_assert!(!batch.is_empty());
                prop_assert!(batch.len() <= ENTRIES_PER_BATCH);
                prop_assert!(sizes[batch.clone()].iter().sum::<usize>() <= BYTES_PER_BATCH);
                next = batch.end;
            }
            prop_assert_eq!(next, sizes.len());
            // No batch could have taken the next message too: there are no more batches than needed in order.
            for pair in batches.windows(2) {
                let bytes: usize = sizes[pair[0].start..=pair[1].start].iter().sum();
                prop_assert!(pair[0].len() == ENTRIES_PER_BATCH || bytes > BYTES_PER_BATCH);
            }
        }
    }

    #[test]
    fn a_message_that_the_queue_would_refuse_is_found_before_sending() {
        let message = |body: &str, group: Option<&str>, dedup: Option<&str>| Outgoing {
            body: body.to_owned(),
            group: group.map(str::to_owned),
            dedup: dedup.map(str::to_owned),
        };
        assert!(check(Queue::Matches, &message("{}", None, None)).is_ok());
        assert!(check(Queue::ListWrites, &message("{}", Some("g"), Some("k/1"))).is_ok());
        assert!(check(Queue::ListWrites, &message("{}", Some("g"), None)).is_err());
        assert!(check(Queue::ListWrites, &message("{}", None, Some("k/1"))).is_err());
        assert!(check(Queue::Matches, &message("{}", Some("g"), None)).is_err());
        assert!(check(Queue::Matches, &message("", None, None)).is_err());
        assert!(check(Queue::Matches, &message(&"x".repeat(BYTES_PER_BATCH), None, None)).is_ok());
        assert!(check(Queue::Matches, &message(&"x".repeat(BYTES_PER_BATCH + 1), None, None)).is_err());
    }

    #[test]
    fn a_queues_url_follows_from_its_arn() {
        assert_eq!(
            queue_url("http://127.0.0.1:9324/", "arn:aws:sqs:us-east-1:000000000000:list-writes.fifo").as_deref(),
            Some("http://127.0.0.1:9324/000000000000/list-writes.fifo")
        );
        assert_eq!(queue_url("http://x", "arn:aws:sns:us-east-1:000000000000:topic"), None);
        assert_eq!(queue_url("http://x", "nonsense"), None);
    }
}
