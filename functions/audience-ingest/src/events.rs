//! A message of a stream as it goes into the queue.

use domain::MunchkinId;
use domain::limits::REJECTS_KEPT;
use feeds::stream::Message;
use ports::Outgoing;
use state::feeds::{Entry, Events, Reject};
use state::{Failure, Step, V1};

/// Entries of one message of the queue. Ours: with as many rejects as are kept it stays below 200 KB, and SQS took 256 KiB
/// before August 2025.
const ENTRIES_MOST: usize = 500;

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
        rejects: rejected.into_iter().take(REJECTS_KEPT).map(|(line, reason)| Reject::new(line, &reason)).collect(),
    };
    let entry = |entry: feeds::stream::Entry| Entry { audience: entry.audience, ecid: entry.ecid, said: entry.said };
    let mut entries = entries.into_iter().map(entry);
    let mut messages = Vec::new();
    loop {
        events.entries = entries.by_ref().take(ENTRIES_MOST).collect();
        if events.entries.is_empty() && events.ignored == 0 && events.rejected == 0 {
            return Ok(messages);
        }
        let body = serde_json::to_string(&events).map_err(|_| Failure::fail("events cannot be written as JSON"))?;
        messages.push(Outgoing { body, group: None, dedup: None });
        (events.ignored, events.rejected) = (0, 0);
        events.rejects.clear();
    }
}

#[cfg(test)]
mod tests {
    use domain::fact::Streamed;
    use domain::sayings::ALL;
    use domain::{AudienceId, Ecid};

    use super::*;

    #[test]
    fn the_largest_message_is_below_what_the_queue_takes() {
        let audience = AudienceId::aep("11111111-2222-3333-4444-555555555555").unwrap();
        let said = Streamed { changed: u64::MAX, as_of: u64::MAX, inside: false };
        let entry = feeds::stream::Entry { audience, ecid: Ecid::from_number(10_u128.pow(38) - 1).unwrap(), said };
        let of_streams =
            ALL.iter().filter(|saying| ["stream_", "profile_"].iter().any(|at| saying.code.starts_with(at)));
        let longest = of_streams.max_by_key(|saying| saying.english.len()).unwrap();
        let longest = longest.with([("field", "DataPartner_UUID".into())]);
        let message = Message {
            entries: vec![entry; ENTRIES_MOST + 1],
            ignored: u64::MAX,
            rejected: vec![(u64::MAX, longest); 2 * REJECTS_KEPT],
        };
        let munchkin = MunchkinId::parse("123-ABC-456").unwrap();
        let messages = outgoing(&munchkin, &"f".repeat(1_000), u64::MAX, message).unwrap();
        let bytes: Vec<usize> = messages.iter().map(|message| message.body.len()).collect();
        assert!(bytes.len() == 2 && bytes.iter().all(|bytes| *bytes < 200_000), "{bytes:?}");
    }
}
