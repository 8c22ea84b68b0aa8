//! The contract of [`Bus`].

use ports::{Announcement, Bus};
use serde_json::{Value, json};

/// Runs the whole contract of [`Bus`] on a bus of which nobody has heard anything. `heard` tells what came by it, the oldest
/// first: kind and event.
///
/// # Panics
/// With the sentence that does not hold.
pub async fn bus(bus: &dyn Bus, mut heard: impl AsyncFnMut() -> Vec<(String, Value)>) {
    bus.announce(Vec::new()).await.expect("announcing nothing is no error");
    assert_eq!(heard().await, [], "and nobody hears of it");

    // More than one request holds, and every kind of text.
    let announcement =
        |n: usize| Announcement { kind: "Run finished", detail: json!({"n": n, "text": "ä\u{1F600}\"\n"}) };
    let all: Vec<Announcement> = (0..23).map(announcement).collect();
    bus.announce(all.clone()).await.expect("announced");
    let large = Announcement { kind: "Incident began", detail: json!({"fill": "x".repeat(190_000)}) };
    bus.announce(vec![large.clone()]).await.expect("announced");
    let told: Vec<(String, Value)> =
        all.into_iter().chain([large]).map(|one| (one.kind.to_owned(), one.detail)).collect();
    assert!(heard().await == told, "each is heard once, in order, as it was said");
}
