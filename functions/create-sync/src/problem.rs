//! Refusals, as RFC 9457 problem details: each names the field, what was wrong and what would be right, in English and by a
//! code with values, so that the console can say it in the language of the screen.

use domain::said::Said;
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
    said: Said,
    errors: Vec<Wrong>,
    /// Members beside the standard ones.
    more: Map<String, Value>,
    headers: Vec<(&'static str, String)>,
}

/// JSON pointer into the body, and what is wrong there.
pub(crate) type Wrong = (String, Said);

pub(crate) type Answer<T> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(status: u16, said: Said) -> Self {
        Self { status, said, errors: Vec::new(), more: Map::new(), headers: Vec::new() }
    }

    /// One or more fields of the body are wrong.
    pub(crate) fn fields(errors: Vec<Wrong>) -> Self {
        let said = match errors.as_slice() {
            [wrong] => with_pointer(wrong),
            several => {
                Said::new("fields_wrong", format!("{} fields are wrong", several.len())).with("count", several.len())
            }
        };
        Self { errors, ..Self::new(400, said) }
    }

    /// One field is well formed, but names what does not exist or may not be used.
    pub(crate) fn at(status: u16, pointer: &str, said: Said) -> Self {
        Self { errors: vec![(pointer.to_owned(), said.clone())], ..Self::new(status, said) }
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
        if let [wrong] = self.errors.as_slice() {
            self.said = with_pointer(wrong);
        }
        self
    }

    /// What was wrong, and what would be right.
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    pub(crate) fn response(&self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
        });
        say(&mut body, &self.said);
        let row = |(pointer, said): &Wrong| {
            let mut row = json!({"pointer": pointer});
            say(&mut row, said);
            row
        };
        if !self.errors.is_empty() {
            body["errors"] = self.errors.iter().map(row).collect();
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

/// Puts a sentence into a body: `detail`, its `code`, and its `values` where it names any.
fn say(body: &mut Value, said: &Said) {
    body["detail"] = json!(said.sentence);
    body["code"] = json!(said.code);
    if !said.values.is_empty() {
        body["values"] = json!(said.values);
    }
}

/// A field's sentence where it stands alone.
fn with_pointer((pointer, said): &Wrong) -> Said {
    Said { sentence: format!("{pointer}: {said}").into(), ..said.clone() }
}

/// `expected "keep" or "take_out"`.
pub(crate) fn one_of(words: &[&str]) -> Said {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let detail = match quoted.as_slice() {
        [first, last] => format!("expected {first} or {last}"),
        [only] => format!("expected {only}"),
        several => format!("expected one of {}", several.join(", ")),
    };
    Said::new("expected_one_of", detail).with("words", words.join(", "))
}

pub(crate) fn true_or_false() -> Said {
    Said::new("expected_flag", "expected true or false")
}

pub(crate) fn whole_number(least: u64, most: u64) -> Said {
    let said = Said::new("expected_number", format!("expected a whole number from {least} to {most}"));
    said.with("least", least).with("most", most)
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
                Self::new(503, Said::new("try_again", format!("{failure}; please try again")))
                    .header("retry-after", "5")
            }
            Failure::Outage { .. } => {
                tracing::error!(reason = %failure, "a request could not be answered: a dependency is out");
                Self::new(503, Said::new("dependency_out", failure.to_string())).header("retry-after", "60")
            }
            Failure::Fail { .. } => {
                tracing::error!(reason = %failure, "a request failed");
                Self::new(500, Said::new("failed", failure.to_string()))
            }
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match (error.class(), error) {
            (_, CallError::Wait(_)) => {
                let detail = "Marketo's limit or our share of it is used up for now; please try again";
                Self::new(503, Said::new("marketo_busy", detail)).header("retry-after", "20")
            }
            (_, CallError::ViewersWait { until, in_ms }) => {
                let detail = format!(
                    "viewers have used up their part of today's calls to Marketo: it begins anew at midnight US Central ({}); \
                     operators are not concerned",
                    time(until)
                );
                let said = Said::new("viewers_wait", detail).with("time", time(until));
                Self::new(503, said).header("retry-after", in_ms.div_ceil(1_000).to_string())
            }
            (_, CallError::Taken(ms)) => {
                let detail =
                    "another request has a call to Marketo under way, and they go one at a time; please try again";
                let retry_after = ms.div_ceil(1_000).to_string();
                Self::new(503, Said::new("marketo_taken", detail)).header("retry-after", retry_after)
            }
            // The whole instance refuses us.
            (Some(Class::Alarm | Class::RetryThenAlarm), error) => {
                let code = if let CallError::Refused { code, .. } = &error { code.clone() } else { String::new() };
                let problem = Self::from(Failure::from(error));
                let said = Said::new("marketo_out", problem.said.sentence.clone()).with("code", code);
                Self { said, ..problem }
            }
            (_, CallError::Refused { code, request_id }) => {
                let detail = format!("Marketo refused a request with code {code} (its request id: {request_id})");
                Self::new(502, Said::new("marketo_refused", detail).with("code", code).with("request_id", request_id))
            }
            (_, other) => Failure::from(other).into(),
        }
    }
}
