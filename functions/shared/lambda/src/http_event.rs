//! HTTP events of API Gateway (payload 2.0) and their answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A request, as API Gateway hands it on.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HttpEvent {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, from its slash on, without the stage.
    pub path: String,
    /// The query as it came, without the question mark.
    pub query: String,
    /// Headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Cookies, each `name=value`. Payload 2.0 has them beside the headers, not among them. May hold personal values.
    pub cookies: Vec<String>,
    /// The body, decoded. May hold personal values.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for HttpEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpEvent").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

impl HttpEvent {
    /// Reads an event; `None` if it is not an HTTP event of payload 2.0.
    #[must_use]
    pub fn read(event: &Value) -> Option<Self> {
        let http = &event["requestContext"]["http"];
        let text = event["body"].as_str().unwrap_or_default();
        let body =
            if event["isBase64Encoded"] == true { STANDARD.decode(text).ok()? } else { text.as_bytes().to_vec() };
        let headers = event["headers"].as_object().into_iter().flatten();
        let cookies = event["cookies"].as_array().into_iter().flatten();
        Some(Self {
            method: http["method"].as_str()?.to_owned(),
            path: event["rawPath"].as_str()?.to_owned(),
            query: event["rawQueryString"].as_str().unwrap_or_default().to_owned(),
            headers: headers
                .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned())))
                .collect(),
            cookies: cookies.filter_map(|cookie| cookie.as_str().map(str::to_owned)).collect(),
            body,
        })
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The answer to an HTTP event. Bodies are UTF-8 text; one without a content type has none.
#[must_use]
pub fn http_answer(status: u16, content_type: &str, headers: &[(&str, String)], body: &[u8]) -> Value {
    let mut all = serde_json::Map::new();
    if !content_type.is_empty() {
        all.insert("content-type".to_owned(), json!(content_type));
    }
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    json!({
        "statusCode": status,
        "headers": all,
        "body": String::from_utf8_lossy(body),
        "isBase64Encoded": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_and_anything_else_is_not() {
        let event = json!({
            "version": "2.0", "rawPath": "/lists", "rawQueryString": "search=a%20b", "headers": {"X-A": "1"},
            "cookies": ["a=1", "b=2"], "requestContext": {"http": {"method": "GET"}}, "body": "aGk=",
            "isBase64Encoded": true,
        });
        let read = HttpEvent::read(&event).unwrap();
        assert_eq!((read.method.as_str(), read.path.as_str(), read.query.as_str()), ("GET", "/lists", "search=a%20b"));
        assert_eq!((read.header("x-a"), read.header("x-b")), (Some("1"), None));
        assert_eq!((read.cookies, read.body), (vec!["a=1".to_owned(), "b=2".to_owned()], b"hi".to_vec()));
        assert_eq!(HttpEvent::read(&json!({"Records": []})), None);
    }

    #[test]
    fn an_answer_without_content_has_no_content_type() {
        let headers =
            |content_type, body| http_answer(200, content_type, &[("a", "b".into())], body)["headers"].clone();
        assert_eq!(headers("text/plain", b"hi"), json!({"content-type": "text/plain", "a": "b"}));
        assert_eq!(headers("", b""), json!({"a": "b"}));
    }
}
