//! What the queue `matches` carries.

use domain::{Ecid, MunchkinId, Token};
use ports::{Failure, Outgoing};
use serde::{Deserialize, Serialize};
use state::{Step, V1};

/// An ECID seen beside a Munchkin token: the message, and the fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Version of this shape.
    pub v: V1,
    /// The subscription.
    pub munchkin_id: MunchkinId,
    /// The device.
    pub ecid: Ecid,
    /// The token.
    pub token: Token,
    /// When, in ms; never after it was received.
    pub seen_at: u64,
    /// Shown by a page, which anybody can be: it counts towards the day's cap.
    #[serde(default)]
    pub public: bool,
}

/// A message as the queue takes it.
pub(crate) fn outgoing<T: Serialize>(message: &T) -> Step<Outgoing> {
    let body = serde_json::to_string(message).map_err(|_| Failure::fail("a message cannot be written as JSON"))?;
    Ok(Outgoing { body, group: None, dedup: None })
}
