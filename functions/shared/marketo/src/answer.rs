//! Marketo's envelope: almost every failure is HTTP 200 with `success: false` and a code.

use http::Response;
use ports::Failure;
use serde_json::Value;

use crate::CallError;

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
    /// Reads a response. Codes that say that nothing was executed come as [`CallError::Refused`]; whatever leaves
    /// that open comes as [`CallError::Unknown`].
    pub fn read(response: Response<Vec<u8>>) -> Result<Self, CallError> {
        let status = response.status();
        if status.as_u16() == 413 || status.as_u16() == 414 || status.as_u16() == 401 {
            return Err(CallError::Refused { code: status.as_str().to_owned(), request_id: String::new() });
        }
        let Ok(body) = serde_json::from_slice::<Value>(response.body()) else {
            return Err(CallError::Unknown(format!("HTTP {} without JSON", status.as_u16())));
        };
        let request_id = text(&body["requestId"]).unwrap_or_default();
        if !status.is_success() {
            return Err(CallError::Unknown(format!("HTTP {}", status.as_u16())));
        }
        if body["success"].as_bool() != Some(true) {
            let code = body["errors"].get(0).and_then(|error| text(&error["code"]));
            return Err(match code.as_deref() {
                None => CallError::Unknown("an answer without success and without a code".to_owned()),
                // Time-outs of Marketo's own, and errors that nobody explains: they may have been executed.
                Some("604" | "502" | "500" | "611") => CallError::Unknown(format!("code {}", code.unwrap_or_default())),
                Some(code) => CallError::Refused { code: code.to_owned(), request_id },
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

    fn read(status: u16, body: &str) -> Result<Answer, CallError> {
        Answer::read(Response::builder().status(status).body(body.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_envelope_is_read() {
        let answer =
            read(200, r#"{"requestId":"r","success":true,"result":[{"id":1}],"nextPageToken":"n","moreResult":true}"#)
                .unwrap();
        assert_eq!((answer.result.len(), answer.next.as_deref(), answer.more), (1, Some("n"), true));
        assert!(read(200, r#"{"success":true,"warnings":["No assets found"]}"#).unwrap().result.is_empty());
        assert_eq!(read(200, r#"{"success":true,"result":{"id":1}}"#).unwrap().result.len(), 1);
    }

    #[test]
    fn what_may_have_been_executed_is_told_from_what_was_not() {
        for (status, body) in [
            (502, ""),
            (200, "<html>"),
            (200, ""),
            (200, r#"{"success":false}"#),
            (200, r#"{"success":false,"errors":[{"code":"604"}]}"#),
            (500, "{}"),
        ] {
            assert!(matches!(read(status, body), Err(CallError::Unknown(_))), "{status} {body}");
        }
        for body in [r#"{"success":false,"errors":[{"code":"606"}]}"#, r#"{"success":false,"errors":[{"code":1013}]}"#]
        {
            assert!(matches!(read(200, body), Err(CallError::Refused { .. })), "{body}");
        }
        assert!(matches!(read(414, ""), Err(CallError::Refused { code, .. }) if code == "414"));
    }
}
