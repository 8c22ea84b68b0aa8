//! Refusals, as RFC 9457 problem details: each names the field, what was wrong and what would be right.

use marketo::CallError;
use marketo::class::Class;
use ports::Failure;
use serde_json::{Map, Value, json};
use state::time;

use crate::routes::Response;

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    detail: String,
    /// JSON pointer into the body, and what is wrong there.
    errors: Vec<(String, String)>,
    /// Members beside the standard ones.
    more: Map<String, Value>,
    headers: Vec<(&'static str, String)>,
}

pub(crate) type Answer<T> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), more: Map::new(), headers: Vec::new() }
    }

    /// One or more fields of the body are wrong.
    pub(crate) fn fields(errors: Vec<(String, String)>) -> Self {
        let detail = match errors.as_slice() {
            [(pointer, detail)] => format!("{pointer}: {detail}"),
            _ => format!("{} fields are wrong", errors.len()),
        };
        Self { errors, ..Self::new(400, detail) }
    }

    /// One field is well formed, but names what does not exist or may not be used.
    pub(crate) fn at(status: u16, pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { errors: vec![(pointer.to_owned(), detail.clone())], ..Self::new(status, detail) }
    }

    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, where what was read stands deeper in the body.
    pub(crate) fn within(mut self, prefix: &str) -> Self {
        for (pointer, _) in &mut self.errors {
            pointer.insert_str(0, prefix);
        }
        if let [(pointer, detail)] = self.errors.as_slice() {
            self.detail = format!("{pointer}: {detail}");
        }
        self
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn response(&self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            let errors = self.errors.iter().map(|(pointer, detail)| json!({"pointer": pointer, "detail": detail}));
            body["errors"] = errors.collect();
        }
        for (name, value) in &self.more {
            body[name] = value.clone();
        }
        Response {
            content_type: "application/problem+json",
            headers: self.headers.clone(),
            ..Response::json(self.status, &body)
        }
    }
}

const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::Retry { .. } => {
                tracing::warn!(reason = %failure, "a request could not be answered now");
                Self::new(503, format!("{failure}; please try again")).header("retry-after", "5")
            }
            Failure::Outage { .. } => {
                tracing::error!(reason = %failure, "a request could not be answered: a dependency is out");
                Self::new(503, failure.to_string()).header("retry-after", "60")
            }
            Failure::Fail { .. } => {
                tracing::error!(reason = %failure, "a request failed");
                Self::new(500, failure.to_string())
            }
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match (error.class(), error) {
            (_, CallError::Wait(_)) => {
                Self::new(503, "Marketo's limit or our share of it is used up for now; please try again")
                    .header("retry-after", "20")
            }
            (_, CallError::ViewersWait { until, in_ms }) => {
                let detail = format!(
                    "viewers have used up their part of today's calls to Marketo: it begins anew at midnight US Central ({}); \
                     operators are not concerned",
                    time(until)
                );
                Self::new(503, detail).header("retry-after", in_ms.div_ceil(1_000).to_string())
            }
            // The whole instance refuses us.
            (Some(Class::Alarm | Class::RetryThenAlarm), error) => Failure::from(error).into(),
            (_, CallError::Refused { code, request_id }) => {
                Self::new(502, format!("Marketo refused a request with code {code} (its request id: {request_id})"))
            }
            (_, other) => Failure::from(other).into(),
        }
    }
}
