//! Marketo's REST interface, as far as a sync needs it.
//!
//! Every call asks the shared budget first, carries its token in the header, and ends in a clear answer or in a
//! [`CallError`] that says whether it may have taken effect.

mod answer;
mod extract;
mod leads;
mod lists;

use domain::MunchkinId;
use http::{Method, Request, Response};
use ports::{Failure, PortError};
use state::Deps;
use state::budget::{Permit, Purpose, Pushback, permit, push_back};

pub use answer::Answer;
pub use extract::{ExtractStatus, parse_extract};
pub use leads::{Activity, ActivityPage, DELETE, LeadRow, MERGE};
pub use lists::{ListAsset, RowAnswer};

/// Why a call has no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Certainly without effect; nothing before this time (ms).
    #[error("nothing may be sent to Marketo for now")]
    Wait(u64),
    /// It may or may not take effect, now or later.
    #[error("the outcome of a call to Marketo is unknown: {0}")]
    Unknown(String),
    /// Marketo refused the whole request: certainly without effect.
    #[error("Marketo refused a request with code {code}")]
    Refused {
        /// Marketo's code, or the HTTP status.
        code: String,
        /// Marketo's request id.
        request_id: String,
    },
    /// Our own side failed before anything was sent.
    #[error(transparent)]
    Ours(#[from] Failure),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Ours(failure) => failure,
            CallError::Refused { ref code, .. } if code == "401" || code == "603" => {
                Failure::Outage { reason: error.to_string() }
            }
            other => Failure::retry(other.to_string()),
        }
    }
}

/// How long we wait for an answer, in ms. Marketo's own time-outs are 30 to 90 s.
pub const CALL_TIMEOUT_MS: u64 = 40_000;
/// A wait of up to a window is slept through if the invocation has this much time left after it, in ms: enough for
/// the call and for writing down its answer.
pub const MARGIN_MS: u64 = 45_000;
/// Our token is used until this long before its expiry, in ms.
const TOKEN_MARGIN_MS: u64 = 30_000;

/// A client of one subscription, for one invocation.
#[derive(Debug, Clone, Copy)]
pub struct Marketo<'a> {
    deps: &'a Deps,
    munchkin: &'a MunchkinId,
    deadline: u64,
    purpose: Purpose,
}

/// The right to send one call now.
#[derive(Debug)]
pub struct Slot(());

impl<'a> Marketo<'a> {
    /// A client that sleeps through short waits until `deadline` (ms) and no longer.
    #[must_use]
    pub const fn new(deps: &'a Deps, munchkin: &'a MunchkinId, deadline: u64, purpose: Purpose) -> Self {
        Self { deps, munchkin, deadline, purpose }
    }

    /// The same client for calls of another purpose.
    #[must_use]
    pub const fn calling_for(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// Waits for the right to send one call. Take it *before* writing an intent, so that the intent's hold counts
    /// from the moment the call goes out.
    pub async fn slot(&self) -> Result<Slot, CallError> {
        self.slots(1).await?.pop().ok_or_else(|| Failure::retry("a permit for no call").into())
    }

    /// Waits for the right to send at least one call and at most `wanted`, at once.
    pub async fn slots(&self, wanted: usize) -> Result<Vec<Slot>, CallError> {
        loop {
            let now = self.deps.now();
            match permit(self.deps, self.munchkin, self.purpose, wanted).await? {
                Permit::Go(calls) => return Ok((0..calls).map(|_| Slot(())).collect()),
                Permit::Wait(until) if until + self.deps.settings.scaled(MARGIN_MS) < self.deadline => {
                    self.deps.ports.clock.sleep_ms(until.saturating_sub(now).max(1)).await;
                }
                Permit::Wait(until) => return Err(CallError::Wait(until)),
            }
        }
    }

    fn base(&self) -> String {
        let url = &self.deps.settings.marketo_url;
        if url.is_empty() {
            format!("https://{}.mktorest.com", self.munchkin.as_str().to_ascii_lowercase())
        } else {
            url.trim_end_matches('/').to_owned()
        }
    }

    async fn get(&self, slot: Slot, path_and_query: &str) -> Result<Answer, CallError> {
        self.call(slot, Method::GET, path_and_query, None).await
    }

    /// Sends a request; a token that Marketo no longer takes is renewed once and the request is sent once more.
    async fn call(
        &self,
        slot: Slot,
        method: Method,
        path_and_query: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Answer, CallError> {
        let response = self.send(slot, &method, path_and_query, body.clone()).await?;
        let answer = self.read(response).await;
        if !matches!(&answer, Err(CallError::Refused { code, .. }) if code == "601" || code == "602") {
            return answer;
        }
        self.deps.forget_access_token(&self.deps.settings.marketo.id);
        let slot = self.slot().await?;
        let response = self.send(slot, &method, path_and_query, body).await?;
        self.read(response).await
    }

    async fn send(
        &self,
        _slot: Slot,
        method: &Method,
        path_and_query: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Response<Vec<u8>>, CallError> {
        let token = self.token().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path_and_query}", self.base()))
            .header("authorization", format!("Bearer {token}"));
        let body = match body {
            Some((content_type, bytes)) => {
                request = request.header("content-type", content_type);
                bytes
            }
            None => Vec::new(),
        };
        let request = request.body(body).map_err(|_| Failure::fail("a request to Marketo cannot be built"))?;
        self.transport(request).await
    }

    async fn transport(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, CallError> {
        let timeout = self.deps.settings.scaled(CALL_TIMEOUT_MS);
        match self.deps.ports.http.send(request, timeout).await {
            Ok(response) => Ok(response),
            Err(PortError::Unknown { reason, .. }) => Err(CallError::Unknown(reason)),
            Err(error) => Err(CallError::Ours(error.into())),
        }
    }

    async fn read(&self, response: Response<Vec<u8>>) -> Result<Answer, CallError> {
        let error = match Answer::read(response) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let CallError::Refused { code, .. } = &error else { return Err(error) };
        let pushback = match code.as_str() {
            "606" => Pushback::Rate,
            "607" => Pushback::Day,
            "615" => Pushback::AtOnce,
            "608" | "713" | "719" | "1019" => {
                return Err(CallError::Wait(self.deps.now() + self.deps.settings.scaled(30_000)));
            }
            _ => return Err(error),
        };
        Err(CallError::Wait(push_back(self.deps, self.munchkin, pushback).await?))
    }

    async fn token(&self) -> Result<String, CallError> {
        let credentials = &self.deps.settings.marketo;
        let now = self.deps.now();
        if let Some(token) = self.deps.access_token(&credentials.id) {
            return Ok(token);
        }
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &credentials.id)
            .append_pair("client_secret", &credentials.secret)
            .finish();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/identity/oauth/token", self.base()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.into_bytes())
            .map_err(|_| Failure::fail("a request to Marketo cannot be built"))?;
        let response = match self.transport(request).await {
            Ok(response) => response,
            // Asking for a token changes nothing, so an unknown outcome is no doubt.
            Err(CallError::Unknown(reason)) => return Err(Failure::retry(reason).into()),
            Err(error) => return Err(error),
        };
        let (token, seconds) = answer::read_token(&response)?;
        let until = (now + seconds * 1000).saturating_sub(TOKEN_MARGIN_MS);
        self.deps.keep_access_token(&credentials.id, &token, until);
        Ok(token)
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    serializer.extend_pairs(pairs);
    serializer.finish()
}
