//! HTTP events of API Gateway (payload 2.0) and their answers.

use std::collections::BTreeMap;

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
    /// Claims of the token that the API's JWT authorizer has verified; `None`: no authorizer stood before the route.
    /// Texts all of them: of a list the authorizer makes `[one two]`. May hold personal values.
    pub claims: Option<BTreeMap<String, String>>,
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
        let sent = event["body"].as_str().unwrap_or_default();
        let body =
            if event["isBase64Encoded"] == true { STANDARD.decode(sent).ok()? } else { sent.as_bytes().to_vec() };
        let headers = event["headers"].as_object().into_iter().flatten();
        let cookies = event["cookies"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let claims = event["requestContext"]["authorizer"]["jwt"]["claims"].as_object();
        Some(Self {
            method: http["method"].as_str()?.to_owned(),
            path: event["rawPath"].as_str()?.to_owned(),
            query: event["rawQueryString"].as_str().unwrap_or_default().to_owned(),
            headers: headers
                .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned())))
                .collect(),
            cookies: cookies.filter_map(|cookie| cookie.as_str().map(str::to_owned)).collect(),
            body,
            claims: claims.map(|claims| claims.iter().map(|(name, value)| (name.clone(), text(value))).collect()),
        })
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The answer to an HTTP event. One without a content type has no body. A body that is not UTF-8 text, such as a
/// compressed one, travels as base64.
#[must_use]
pub fn http_answer(status: u16, content_type: &str, headers: &[(&str, String)], body: &[u8]) -> Value {
    let mut all = serde_json::Map::new();
    if !content_type.is_empty() {
        all.insert("content-type".to_owned(), json!(content_type));
    }
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    let text = std::str::from_utf8(body);
    json!({
        "statusCode": status,
        "headers": all,
        "body": text.map_or_else(|_| STANDARD.encode(body), str::to_owned),
        "isBase64Encoded": text.is_err(),
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
        assert_eq!(read.claims, None);
        assert_eq!(HttpEvent::read(&json!({"Records": []})), None);
    }

    #[test]
    fn claims_are_those_that_the_authorizer_has_verified() {
        let event = json!({
            "rawPath": "/", "headers": {"authorization": "Bearer x"},
            "requestContext": {
                "http": {"method": "GET"},
                "authorizer": {"jwt": {"claims": {"sub": "s", "cognito:groups": "[a b]", "exp": 7}, "scopes": null}},
            },
        });
        let claims = HttpEvent::read(&event).unwrap().claims.unwrap();
        let claims: Vec<(&str, &str)> = claims.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(claims, [("cognito:groups", "[a b]"), ("exp", "7"), ("sub", "s")]);
    }

    #[test]
    fn an_answer_without_content_has_no_content_type() {
        let headers =
            |content_type, body| http_answer(200, content_type, &[("a", "b".into())], body)["headers"].clone();
        assert_eq!(headers("text/plain", b"hi"), json!({"content-type": "text/plain", "a": "b"}));
        assert_eq!(headers("", b""), json!({"a": "b"}));
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        let body = |body| {
            let answer = http_answer(200, "text/plain", &[], body);
            (answer["body"].clone(), answer["isBase64Encoded"].clone())
        };
        assert_eq!(body("å".as_bytes()), (json!("å"), json!(false)));
        assert_eq!(body(b"\x1f\x8b\x08"), (json!("H4sI"), json!(true)));
    }
}
