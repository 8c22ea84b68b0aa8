//! The contract of [`Queues`].

use ports::{Outgoing, PortError, Queue, Queues};

/// What a test finds in a queue after sending, however it looks: each message's body and group, in any order
/// across groups, in the order of sending within one.
pub type Received = Vec<(String, Option<String>)>;

/// Runs the whole contract of [`Queues`] on one standard queue and one FIFO queue, both empty at the start.
/// `receive` empties a queue and says what was in it; receiving is not the port's part.
///
/// # Panics
/// With the sentence that does not hold.
pub async fn queues<F>(queues: &dyn Queues, mut receive: F)
where
    F: AsyncFnMut(Queue, usize) -> Received,
{
    queues.send(Queue::Matches, Vec::new()).await.expect("sending nothing is no error");

    // More than one batch holds, by count and by bytes.
    let plain = |n: usize, size: usize| Outgoing {
        body: format!("{{\"n\":{n},\"fill\":\"{}\"}}", "x".repeat(size)),
        group: None,
        dedup: None,
    };
    let messages: Vec<Outgoing> = (0..25).map(|n| plain(n, 10)).chain((25..30).map(|n| plain(n, 100_000))).collect();
    let mut want: Vec<String> = messages.iter().map(|message| message.body.clone()).collect();
    queues.send(Queue::Matches, messages).await.expect("send");
    let mut got: Vec<String> = receive(Queue::Matches, want.len()).await.into_iter().map(|(body, _)| body).collect();
    want.sort_unstable();
    got.sort_unstable();
    got.dedup();
    assert!(got == want, "every message arrives");

    let rung = |group: &str, n: usize| Outgoing {
        body: format!("{{\"group\":\"{group}\",\"n\":{n}}}"),
        group: Some(group.to_owned()),
        dedup: Some(format!("{group}/{n}")),
    };
    let messages: Vec<Outgoing> = (0..12).flat_map(|n| [rung("a", n), rung("b", n)]).collect();
    queues.send(Queue::ListWrites, messages.clone()).await.expect("send");
    queues.send(Queue::ListWrites, messages[..3].to_vec()).await.expect("send again");
    let got = receive(Queue::ListWrites, messages.len()).await;
    for group in ["a", "b"] {
        let want: Vec<&str> = messages
            .iter()
            .filter(|message| message.group.as_deref() == Some(group))
            .map(|message| message.body.as_str())
            .collect();
        let got: Vec<&str> =
            got.iter().filter(|(_, of)| of.as_deref() == Some(group)).map(|(body, _)| body.as_str()).collect();
        assert_eq!(got, want, "a group keeps its order, and a repeated deduplication id adds nothing");
    }

    let wrong = [
        (Queue::Matches, Outgoing { group: Some("g".to_owned()), ..plain(0, 1) }),
        (Queue::Matches, Outgoing { dedup: Some("d/1".to_owned()), ..plain(0, 1) }),
        (Queue::Matches, plain(0, 256 * 1024)),
        (Queue::ListWrites, Outgoing { group: None, ..rung("g", 0) }),
        (Queue::ListWrites, Outgoing { dedup: None, ..rung("g", 0) }),
    ];
    for (queue, message) in wrong {
        let sent = queues.send(queue, vec![message]).await;
        assert!(
            matches!(sent, Err(PortError::Refused { .. })),
            "a message that {queue:?} cannot hold is refused: {sent:?}"
        );
    }
}
