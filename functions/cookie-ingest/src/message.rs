//! What the queue `matches` carries.

use domain::{Ecid, LeadId, MunchkinId, Token};
use ports::{Failure, Outgoing};
use serde::{Deserialize, Serialize};
use state::{Step, V1};

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// A pair that was seen.
    Match(Match),
    /// Somebody asks to look.
    Hint(Hint),
}

/// An ECID seen beside a Munchkin token: the message, and the fact. Key: the subscription, the token and the ECID.
/// Storing it twice, late or out of order ends in the same record.
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
    /// Page views of which the process that sends this has not told yet. They ride along: a count that had a message of
    /// its own would cost a write. A message that comes twice may count twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views: Option<Views>,
}

/// Page views of which the tag told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// All of them.
    pub all: u64,
    /// Those whose request carried both cookies itself.
    pub both: u64,
}

impl std::ops::AddAssign for Views {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.both += other.both;
    }
}

/// Look at this token or lead now. Key: the subscription, and the token or lead. It carries no fact: looking twice learns
/// nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Version of this shape.
    pub v: V1,
    /// The subscription.
    pub munchkin_id: MunchkinId,
    /// At what.
    pub look_at: LookAt,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookAt {
    /// A cookie: who owns it?
    Token(Token),
    /// A lead: which cookies does it own?
    LeadId(LeadId),
}

/// A message as the queue takes it.
pub(crate) fn outgoing<T: Serialize>(message: &T) -> Step<Outgoing> {
    let body = serde_json::to_string(message).map_err(|_| Failure::fail("a message cannot be written as JSON"))?;
    Ok(Outgoing { body, group: None, dedup: None })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn a_match() -> Value {
        json!({"v": 1, "munchkin_id": "123-ABC-456", "ecid": "1".repeat(38),
            "token": "_mch-example.com-1700000000000-12345", "seen_at": 5})
    }

    fn read(message: &Value) -> Option<Message> {
        serde_json::from_str(&message.to_string()).ok()
    }

    #[test]
    fn both_kinds_are_read_back_and_a_match_of_before_is_not_a_pages() {
        let mut message = a_match();
        let Some(Message::Match(found)) = read(&message) else { panic!("a match") };
        assert!(!found.public);
        message["public"] = json!(true);
        message["later"] = json!([1]);
        assert_eq!(read(&message), Some(Message::Match(Match { public: true, ..found.clone() })));
        let views = Some(Views { all: 3, both: 1 });
        let with_views = Match { public: true, views, ..found.clone() };
        let body = outgoing(&with_views).unwrap().body;
        assert_eq!(serde_json::from_str(&body).ok(), Some(Message::Match(with_views)));
        for look_at in [LookAt::Token(found.token.clone()), LookAt::LeadId(7)] {
            let hint = Hint { v: V1, munchkin_id: found.munchkin_id.clone(), look_at };
            assert_eq!(serde_json::from_str(&outgoing(&hint).unwrap().body).ok(), Some(Message::Hint(hint)));
        }
    }

    #[test]
    fn what_is_neither_or_of_another_version_is_not_read() {
        let mut other = a_match();
        other["v"] = json!(2);
        assert_eq!(read(&other), None);
        other = a_match();
        other["ecid"] = json!(5);
        assert_eq!(read(&other), None);
        assert_eq!(read(&json!({"v": 2, "munchkin_id": "123-ABC-456", "look_at": {"lead_id": 7}})), None);
        assert_eq!(read(&json!({"v": 1, "munchkin_id": "123-ABC-456", "look_at": {"email": "x"}})), None);
    }
}
