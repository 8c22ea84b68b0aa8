//! A message of a stream as it goes into the queue.

use domain::MunchkinId;
use domain::limits::REJECTS_KEPT;
use feeds::stream::Message;
use ports::Outgoing;
use state::feeds::{Entry, Events, Reject};
use state::{Failure, Step, V1};

/// Entries of one message of the queue. Ours: the consumer takes a hundred messages at once.
const ENTRIES_MOST: usize = 500;
/// Bytes of one message of the queue: below the 256 KiB that SQS took before August 2025, by enough for its envelope.
const BYTES_MOST: usize = 200 * 1000;
/// Letters of the reason of a rejected entry.
const REASON_MOST: usize = 300;

/// The messages for the queue: none if there is nothing to tell. What was ignored and rejected stands in the first one.
pub(crate) fn outgoing(munchkin: &MunchkinId, feed: &str, received_at: u64, message: Message) -> Step<Vec<Outgoing>> {
    let Message { entries, ignored, rejected } = message;
    let mut events = Events {
        v: V1,
        munchkin_id: munchkin.clone(),
        feed: feed.to_owned(),
        received_at,
        entries: Vec::new(),
        ignored,
        rejected: rejected.len() as u64,
        rejects: rejected.into_iter().take(REJECTS_KEPT).map(|(line, reason)| reject(line, &reason)).collect(),
    };
    let mut entries =
        entries.into_iter().map(|entry| Entry { audience: entry.audience, ecid: entry.ecid, said: entry.said });
    let mut messages = Vec::new();
    loop {
        events.entries = entries.by_ref().take(ENTRIES_MOST).collect();
        if events.entries.is_empty() && events.ignored == 0 && events.rejected == 0 {
            return Ok(messages);
        }
        push(&mut messages, &events)?;
        (events.ignored, events.rejected) = (0, 0);
        events.rejects.clear();
    }
}

fn reject(line: u64, reason: &str) -> Reject {
    Reject { line, reason: reason.chars().take(REASON_MOST).collect() }
}

/// As one message, or as two halves if it is too large.
fn push(messages: &mut Vec<Outgoing>, events: &Events) -> Step<()> {
    let body = serde_json::to_string(events).map_err(|_| Failure::fail("events cannot be written as JSON"))?;
    if body.len() <= BYTES_MOST || events.entries.len() < 2 {
        messages.push(Outgoing { body, group: None, dedup: None });
        return Ok(());
    }
    let (first, second) = events.entries.split_at(events.entries.len() / 2);
    push(messages, &Events { entries: first.to_vec(), ..events.clone() })?;
    let rest = Events { entries: second.to_vec(), ignored: 0, rejected: 0, rejects: Vec::new(), ..events.clone() };
    push(messages, &rest)
}
