//! IMS: access tokens, and what a call without the right headers is answered.

use http::{Request, Response, StatusCode, header};

use super::{Adobe, error, json};
use crate::wire::Params;

/// Life of an access token as IMS states it, in seconds.
pub const TOKEN_LIFE_S: u64 = 86_399;

impl Adobe {
    /// Every call gives a new token; the older ones stay good.
    pub(super) fn token(&mut self, now_ms: u64, request: &Request<Vec<u8>>) -> Response<Vec<u8>> {
        let form = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !form.is_some_and(|form| form.starts_with("application/x-www-form-urlencoded")) {
            return error(StatusCode::BAD_REQUEST, "invalid_request", "a form body is required");
        }
        let mut params = Params::default();
        params.extend(request.body());
        if params.get("grant_type") != Some("client_credentials") {
            return error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "client_credentials is required");
        }
        if params.filled("scope").is_none() {
            return error(StatusCode::BAD_REQUEST, "invalid_scope", "no scope requested");
        }
        if params.get("client_id") != Some(&self.settings.client_id)
            || params.get("client_secret") != Some(&self.settings.client_secret)
        {
            return error(StatusCode::UNAUTHORIZED, "invalid_client", "invalid client credentials");
        }
        self.tokens.retain(|(_, until)| *until > now_ms);
        self.issued += 1;
        let token = format!("eyJhbGciOiJub25lIn0.{:016x}.{:04x}", now_ms, self.issued);
        self.tokens.push((token.clone(), now_ms + TOKEN_LIFE_S * 1_000));
        json(
            StatusCode::OK,
            format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{TOKEN_LIFE_S}}}"#),
        )
    }

    /// Makes every token given so far answer 401.
    pub fn expire_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Gives the credential another secret. Tokens that were given stay good.
    pub fn set_secret(&mut self, secret: &str) {
        secret.clone_into(&mut self.settings.client_secret);
    }

    /// The answer to a call without the right key and token.
    pub(super) fn refusal(&self, now_ms: u64, request: &Request<Vec<u8>>) -> Option<Response<Vec<u8>>> {
        let key = request.headers().get("x-api-key").and_then(|value| value.to_str().ok());
        if key != Some(&self.settings.client_id) {
            let message = if key.is_none() { "Api Key is required" } else { "Api Key is invalid" };
            return Some(json(StatusCode::FORBIDDEN, format!(r#"{{"error_code":"403000","message":"{message}"}}"#)));
        }
        let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|token| token.strip_prefix("Bearer "));
        if self.tokens.iter().any(|(known, until)| Some(known.as_str()) == token && *until > now_ms) {
            return None;
        }
        let mut refused = error(StatusCode::UNAUTHORIZED, "invalid_token", "Invalid access token");
        let challenge = header::HeaderValue::from_static("Bearer realm=\"aam\", error=\"invalid_token\"");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Some(refused)
    }
}
