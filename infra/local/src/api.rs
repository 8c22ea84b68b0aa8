//! Our own HTTP API, as any client would use it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde_json::Value;

/// How long one request may take: the API's own time-out is 30 s.
const TIMEOUT: Duration = Duration::from_secs(35);
/// How often a request is made that fails on our side or the machine's.
const ATTEMPTS: u32 = 40;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(250);

/// A client of the API.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// Why a request was refused.
    pub(crate) fn reason(&self) -> String {
        let detail = self.body["detail"].as_str().or(self.body["message"].as_str()).unwrap_or("no reason given");
        // Field errors say more than the sentence above them.
        let errors = self.body["errors"].as_array().into_iter().flatten();
        let errors: Vec<&str> = errors.filter_map(|error| error["detail"].as_str()).collect();
        if errors.is_empty() { detail.to_owned() } else { errors.join("; ") }
    }
}

impl Api {
    /// A client of the API at `url` (without a slash at the end).
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        // Loopback: a proxy of the environment must not see it.
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("the HTTP client")?;
        Ok(Self { client, url: url.to_owned(), token: None })
    }

    /// Shows this token with each request.
    pub(crate) fn with_token(self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self }
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, &[], None).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(method, path, &[], Some(body)).await
    }

    /// One request. It is made again after a failure that is not the caller's (5xx, 429, no answer): every route
    /// that we use may be called twice.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let answer = async {
                let response = request.send().await?;
                let status = response.status().as_u16();
                Ok::<_, reqwest::Error>((status, response.bytes().await?))
            };
            match answer.await {
                Ok((status, bytes)) if status < 500 && status != 429 => {
                    return Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) });
                }
                Ok((status, _)) => last = format!("HTTP {status}"),
                Err(error) if error.is_timeout() => last = "no answer in time".to_owned(),
                Err(_) => last = "no answer".to_owned(),
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("{method} {path} fails again and again: {last}")
    }
}
