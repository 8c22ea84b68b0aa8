//! Small pieces that both doubles share: parameters, JSON text, dates.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;

/// Query and form parameters in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Those of a query string.
    pub(crate) fn of_query(query: Option<&'a str>) -> Self {
        let mut params = Self::default();
        params.extend(query.unwrap_or_default().as_bytes());
        params
    }

    /// Adds those of a form body.
    pub(crate) fn extend(&mut self, form: &'a [u8]) {
        self.0.extend(form_urlencoded::parse(form));
    }

    /// The first with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// Like `get`, but an empty one is none.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.trim().is_empty())
    }

    /// All with this name.
    pub(crate) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json(out: &mut String, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Appends a number.
pub(crate) fn push_number(out: &mut String, number: u64) {
    // Writing to a String cannot fail.
    write!(out, "{number}").unwrap_or_default();
}

/// `2026-01-02T03:04:05Z`; fractions of a second are cut off.
pub(crate) fn iso(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "9999-12-31T23:59:59Z".to_owned(), |at| at.to_string())
}

/// A date and time with an offset, or a date alone (midnight UTC), in milliseconds since the epoch.
pub(crate) fn parse_time(text: &str) -> Option<u64> {
    let parsed = text.parse::<Timestamp>().ok().or_else(|| format!("{text}T00:00:00Z").parse::<Timestamp>().ok())?;
    u64::try_from(parsed.as_millisecond()).ok()
}

/// The parts of a multipart form, each with its name; `None`: the body is not one.
pub(crate) fn form_parts<'b>(content_type: &str, body: &'b [u8]) -> Option<Vec<(String, &'b [u8])>> {
    let boundary = content_type.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?.trim_matches('"');
    if boundary.is_empty() {
        return None;
    }
    let between = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(between.trim_start().as_bytes())?;
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n")?;
        let (head, content) = cut(rest, b"\r\n\r\n")?;
        let (content, after) = cut(content, between.as_bytes())?;
        let head = std::str::from_utf8(head).ok()?;
        let of_name = head.split([';', '\r', '\n']).find_map(|part| part.trim().strip_prefix("name="));
        parts.push((of_name?.trim_matches('"').to_owned(), content));
        rest = after;
    }
    Some(parts)
}

/// What stands before and after the first `mark`.
fn cut<'b>(bytes: &'b [u8], mark: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}
