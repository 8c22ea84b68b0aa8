//! HTTP answers.

use serde_json::{Value, json};

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Of the body; empty: there is none.
    pub content_type: &'static str,
    /// Further headers; names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) const fn empty(status: u16) -> Self {
        Self { status, content_type: "", headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { status, content_type: "application/json", headers: Vec::new(), body }
    }
}

/// Why a request as a whole was not taken (RFC 9457).
pub(crate) fn problem(status: u16, title: &str, detail: &str) -> Answer {
    let body = json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
    Answer { content_type: "application/problem+json", ..Answer::json(status, &body) }
}
