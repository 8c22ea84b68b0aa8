//! Fields of the items of a request, and why an item was refused.

use domain::cookie::parse_mkto_trk;
use domain::{MunchkinId, Token};
use serde_json::{Map, Value, json};

/// Why an item was refused. The reason never repeats the value.
#[derive(Debug)]
pub(crate) struct Refusal {
    field: &'static str,
    reason: String,
}

impl Refusal {
    /// The answer for the item at an index.
    pub(crate) fn of(self, index: usize) -> Value {
        json!({"index": index, "status": "refused", "field": self.field, "reason": self.reason})
    }
}

pub(crate) fn refusal(field: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal { field, reason: reason.into() }
}

pub(crate) fn expected(field: &'static str, what: &str) -> Refusal {
    refusal(field, format!("expected {what}"))
}

pub(crate) fn text<'a>(item: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, Refusal> {
    match item.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(expected(field, "a string")),
        None => Err(refusal(field, "is missing")),
    }
}

/// The token as it is, or inside a raw `_mkto_trk` cookie.
pub(crate) fn token(item: &Map<String, Value>, munchkin_id: &MunchkinId) -> Result<Token, Refusal> {
    let field = TOKEN_FIELDS.into_iter().find(|field| is_given(item, field)).unwrap_or("token");
    let value = text(item, field)?;
    if let Some(token) = Token::parse(value) {
        return Ok(token);
    }
    match parse_mkto_trk(value) {
        Some((owner, _)) if owner != *munchkin_id => Err(refusal(field, "a token of another Munchkin id")),
        Some((_, token)) => Ok(token),
        None => Err(expected(field, "a Munchkin token (_mch-…) or the value of the cookie _mkto_trk")),
    }
}

/// Fields that may hold a token; the first that is given counts.
pub(crate) const TOKEN_FIELDS: [&str; 3] = ["token", "cookie", "_mkto_trk"];

/// Whether a field holds anything. Forms send what they do not know as an empty text.
pub(crate) fn is_given(item: &Map<String, Value>, field: &str) -> bool {
    item.get(field).is_some_and(|value| !value.is_null() && *value != "")
}
