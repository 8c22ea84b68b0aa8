//! The contract of [`Queues`], and of what hands out what was sent.

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

/// Hands out messages as a function gets them.
#[allow(async_fn_in_trait)]
pub trait Receives {
    /// Hands out one message of a queue, if there is one that may be handed out now.
    async fn receive(&mut self, queue: Queue) -> Option<Handed>;
    /// Acknowledges a message.
    async fn delete(&mut self, queue: Queue, handle: &str);
    /// Lets so much time pass that whatever is hidden may be handed out again.
    async fn wait(&mut self);
    /// How many messages of a queue are in its dead-letter queue.
    async fn dead(&mut self, queue: Queue) -> u64;
}

/// A message that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// What acknowledges it.
    pub handle: String,
    /// Its body.
    pub body: String,
}

/// Runs the whole contract of receiving, on a standard queue and a FIFO queue, both empty at the start, whose messages go
/// to a dead-letter queue after `most` receives.
///
/// # Panics
/// With the sentence that does not hold.
pub async fn receiving(queues: &dyn Queues, hands: &mut impl Receives, most: usize) {
    let plain = |body: &str| Outgoing { body: body.to_owned(), group: None, dedup: None };
    let rung = |group: &str, n: usize| Outgoing {
        body: format!("{group}{n}"),
        group: Some(group.to_owned()),
        dedup: Some(format!("{group}/{n}")),
    };
    let body = |handed: &Option<Handed>| handed.as_ref().map(|handed| handed.body.clone());

    queues.send(Queue::Matches, vec![plain("once")]).await.expect("send");
    let first = hands.receive(Queue::Matches).await;
    assert_eq!(body(&first).as_deref(), Some("once"), "a message is handed out");
    assert_eq!(hands.receive(Queue::Matches).await, None, "what was handed out is hidden");
    hands.wait().await;
    let again = hands.receive(Queue::Matches).await;
    assert_eq!(body(&again).as_deref(), Some("once"), "what nobody has acknowledged comes again");
    hands.delete(Queue::Matches, &again.expect("it").handle).await;
    hands.wait().await;
    assert_eq!(hands.receive(Queue::Matches).await, None, "what was acknowledged never comes again");

    let sent = vec![rung("a", 1), rung("a", 2), rung("b", 1)];
    queues.send(Queue::ListWrites, sent).await.expect("send");
    let mut handed = Vec::new();
    while let Some(one) = hands.receive(Queue::ListWrites).await {
        handed.push(one);
    }
    let mut bodies: Vec<&str> = handed.iter().map(|one| one.body.as_str()).collect();
    bodies.sort_unstable();
    assert_eq!(
        bodies,
        ["a1", "b1"],
        "of a group nothing is handed out while one of it is hidden; other groups do not wait"
    );
    let of_b = handed.iter().find(|one| one.body == "b1").expect("b's");
    hands.delete(Queue::ListWrites, &of_b.handle).await;
    hands.wait().await;
    let first = hands.receive(Queue::ListWrites).await.expect("a's first");
    assert_eq!(first.body, "a1", "of a group the first comes again before the second comes at all");
    hands.delete(Queue::ListWrites, &first.handle).await;
    let second = hands.receive(Queue::ListWrites).await.expect("a's second");
    assert_eq!(second.body, "a2", "the second comes as soon as the first was acknowledged");
    hands.delete(Queue::ListWrites, &second.handle).await;
    // Within five minutes.
    queues.send(Queue::ListWrites, vec![rung("d", 1)]).await.expect("send");
    let once = hands.receive(Queue::ListWrites).await.expect("d's");
    hands.delete(Queue::ListWrites, &once.handle).await;
    queues.send(Queue::ListWrites, vec![rung("d", 1)]).await.expect("send again");
    assert_eq!(
        hands.receive(Queue::ListWrites).await,
        None,
        "a deduplication id counts although its message was acknowledged"
    );

    queues.send(Queue::ListWrites, vec![rung("c", 1), rung("c", 2)]).await.expect("send");
    for _ in 0..most {
        assert_eq!(body(&hands.receive(Queue::ListWrites).await).as_deref(), Some("c1"), "it comes again");
        hands.wait().await;
    }
    assert_eq!(hands.dead(Queue::ListWrites).await, 0, "nothing is dead before it was handed out too often");
    // The receive that finds it handed out too often moves it.
    let next = match hands.receive(Queue::ListWrites).await {
        None => hands.receive(Queue::ListWrites).await,
        next => next,
    };
    assert_eq!(hands.dead(Queue::ListWrites).await, 1, "what was handed out too often is dead");
    let next = next.expect("what comes after a dead letter");
    assert_eq!(next.body, "c2", "a dead letter does not block its group");
    hands.delete(Queue::ListWrites, &next.handle).await;
}
