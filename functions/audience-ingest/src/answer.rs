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
    /// Taken: Adobe counts anything but this as a failure.
    pub(crate) const fn taken() -> Self {
        Self { status: 200, content_type: "", headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { status, content_type: "application/json", headers: Vec::new(), body }
    }

    pub(crate) fn with(mut self, header: &'static str, value: &str) -> Self {
        self.headers.push((header, value.to_owned()));
        self
    }
}

/// Why a request was not taken (RFC 9457).
pub(crate) fn problem(status: u16, title: &str, detail: &str) -> Answer {
    let body = json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
    Answer { content_type: "application/problem+json", ..Answer::json(status, &body) }
}

/// Nobody was at fault but we; Adobe's next attempt may find us well.
pub(crate) fn busy() -> Answer {
    problem(503, "Not taken", "the message could not be made durable: send it again").with("retry-after", "1")
}
