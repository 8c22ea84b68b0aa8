//! Marketo's envelope: almost every failure is HTTP 200 with `success: false` and a code.

use http::Response;
use ports::Failure;
use serde_json::Value;

use crate::CallError;
use crate::class::{Class, class_of};

/// A successful answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `result`, empty where Marketo sent none.
    pub result: Vec<Value>,
    /// Paging token.
    pub next: Option<String>,
    /// `moreResult`.
    pub more: bool,
    /// Marketo's request id.
    pub request_id: String,
}

impl Answer {
    /// Reads a response. A code comes as [`CallError::Refused`] if it says that nothing was executed; whatever leaves
    /// that open comes as [`CallError::Unknown`].
    pub fn read(response: Response<Vec<u8>>) -> Result<Self, CallError> {
        let status = response.status();
        if matches!(status.as_u16(), 401 | 413 | 414) {
            return Err(CallError::Refused { code: status.as_str().to_owned(), request_id: String::new() });
        }
        if !status.is_success() {
            return Err(CallError::Unknown(format!("HTTP {}", status.as_u16())));
        }
        if response.body().is_empty() {
            return Err(CallError::Unknown("an empty answer".to_owned()));
        }
        let Ok(body) = serde_json::from_slice::<Value>(response.body()) else {
            return Err(CallError::Unknown("an answer that is not JSON".to_owned()));
        };
        let request_id = text(&body["requestId"]).unwrap_or_default();
        if body["success"].as_bool() != Some(true) {
            return Err(match code(&body["errors"]) {
                None => CallError::Unknown("an answer without success and without a code".to_owned()),
                Some(code) if class_of(&code) == Class::Unknown => CallError::Unknown(format!("code {}", plain(&code))),
                Some(code) => CallError::Refused { code, request_id },
            });
        }
        let result = match &body["result"] {
            Value::Array(rows) => rows.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        Ok(Self {
            result,
            next: text(&body["nextPageToken"]),
            more: body["moreResult"].as_bool() == Some(true),
            request_id,
        })
    }
}

/// Reads a file. A refusal comes as JSON in its place.
pub fn read_file(response: Response<Vec<u8>>) -> Result<Vec<u8>, CallError> {
    let first = response.body().iter().find(|byte| !byte.is_ascii_whitespace());
    if response.status().is_success() && !matches!(first, Some(b'{' | b'<')) {
        return Ok(response.into_body());
    }
    match Answer::read(response) {
        Err(error) => Err(error),
        Ok(_) => Ok(Vec::new()),
    }
}

/// The code of the first of `errors` or `reasons`, which may be an array or a single one.
pub fn code(reasons: &Value) -> Option<String> {
    let first = if reasons.is_array() { &reasons[0] } else { reasons };
    text(&first["code"])
}

/// What an error's text may hold of a code: Marketo's codes are numbers, and whatever else comes may be anything.
fn plain(code: &str) -> &str {
    if code.len() <= 5 && code.bytes().all(|byte| byte.is_ascii_digit()) { code } else { "that is no number" }
}

/// A string, or a number as a string.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A number, or a string that holds one.
pub fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The token and its remaining life in seconds.
pub fn read_token(response: &Response<Vec<u8>>) -> Result<(String, u64), CallError> {
    if response.status().as_u16() == 401 {
        return Err(CallError::Refused { code: "401".to_owned(), request_id: String::new() });
    }
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    match text(&body["access_token"]) {
        Some(token) if response.status().is_success() => Ok((token, number(&body["expires_in"]).unwrap_or(0))),
        _ => Err(Failure::retry("Marketo gave no access token").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Response<Vec<u8>> {
        Response::builder().status(status).body(body.as_bytes().to_vec()).unwrap()
    }

    fn read(status: u16, body: &str) -> Result<Answer, CallError> {
        Answer::read(response(status, body))
    }

    #[test]
    fn the_envelope_is_read() {
        let answer =
            read(200, r#"{"requestId":"r","success":true,"result":[{"id":1}],"nextPageToken":"n","moreResult":true}"#)
                .unwrap();
        assert_eq!((answer.result.len(), answer.next.as_deref(), answer.more), (1, Some("n"), true));
        assert!(read(200, r#"{"success":true,"errors":[],"warnings":["No assets found"]}"#).unwrap().result.is_empty());
        assert_eq!(read(200, r#"{"success":true,"result":{"id":1}}"#).unwrap().result.len(), 1);
        assert!(read(200, r#"{"success":true,"result":null}"#).unwrap().result.is_empty());
    }

    #[test]
    fn what_may_have_been_executed_is_told_from_what_was_not() {
        for (status, body) in [
            (502, ""),
            (200, "<html>"),
            (200, ""),
            (200, "[]"),
            (200, r#"{"result":[]}"#),
            (200, r#"{"success":false}"#),
            (200, r#"{"success":false,"errors":[]}"#),
            (200, r#"{"success":false,"errors":null}"#),
            (200, r#"{"success":false,"errors":[{"message":"x"}]}"#),
            (200, r#"{"success":false,"errors":[{"code":"604"}]}"#),
            (200, r#"{"success":false,"errors":[{"code":"4711"}]}"#),
            (500, "{}"),
            (302, ""),
        ] {
            assert!(matches!(read(status, body), Err(CallError::Unknown(_))), "{status} {body}");
        }
        for body in [
            r#"{"success":false,"errors":[{"code":"1013"}]}"#,
            r#"{"success":false,"errors":[{"code":1013}]}"#,
            r#"{"success":false,"errors":{"code":"1013"}}"#,
        ] {
            assert!(matches!(read(200, body), Err(CallError::Refused { code, .. }) if code == "1013"), "{body}");
        }
        assert!(matches!(read(414, ""), Err(CallError::Refused { code, .. }) if code == "414"));
    }

    #[test]
    fn a_code_that_is_no_code_does_not_reach_an_error_text() {
        let error = read(200, r#"{"success":false,"errors":[{"code":"ann@example.com"}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "the outcome of a call to Marketo is unknown: code that is no number");
    }

    #[test]
    fn a_file_is_told_from_a_refusal_and_from_a_page() {
        assert_eq!(read_file(response(200, "id\n1\n")).unwrap(), b"id\n1\n");
        assert!(read_file(response(200, "")).unwrap().is_empty());
        assert!(matches!(
            read_file(response(200, r#"{"success":false,"errors":[{"code":"1003"}]}"#)),
            Err(CallError::Refused { code, .. }) if code == "1003"
        ));
        assert!(matches!(read_file(response(200, "\n<html>")), Err(CallError::Unknown(_))));
        assert!(matches!(read_file(response(502, "")), Err(CallError::Unknown(_))));
    }

    #[test]
    fn a_token_has_a_remaining_life_of_any_length() {
        let token = |body: &str| read_token(&response(200, body)).unwrap();
        assert_eq!(token(r#"{"access_token":"t","expires_in":3599}"#), ("t".to_owned(), 3_599));
        for body in ["\"7\"", "7"] {
            assert_eq!(token(&format!(r#"{{"access_token":"t","expires_in":{body}}}"#)).1, 7);
        }
        for body in [r#"{"access_token":"t","expires_in":-1}"#, r#"{"access_token":"t"}"#] {
            assert_eq!(token(body).1, 0, "{body}");
        }
        assert!(matches!(read_token(&response(401, "")), Err(CallError::Refused { code, .. }) if code == "401"));
        assert!(matches!(read_token(&response(200, "{}")), Err(CallError::Ours(Failure::Retry { .. }))));
    }
}
