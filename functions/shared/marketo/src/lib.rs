//! Marketo's REST interface, as far as a sync needs it.
//!
//! Every call asks the shared budget first, carries its token in the header, and ends in a clear answer or in a
//! [`CallError`] that says whether it may have taken effect.

mod answer;
pub mod class;
mod extract;
mod imports;
mod leads;
mod lists;
mod usage;

use std::sync::atomic::{AtomicU64, Ordering};

use domain::MunchkinId;
use http::{Method, Request, Response};
use ports::{Credentials, Failure, PortError, Vendor};
use secrecy::{ExposeSecret as _, SecretString};
use state::Deps;
use state::budget::{LEASE_MS, Lease, Permit, Purpose, Pushback, give_back, permit, push_back_and_end};

use class::{Class, LATER_MS, RETRY_DELAYS_MS, TOKEN_REST_MS, class_of};

pub use answer::Answer;
pub use extract::{ExtractStatus, parse_extract};
pub use imports::{IMPORT_LEADS, Import, ImportId, ImportState};
pub use leads::{Activity, ActivityPage, DELETE, LeadRow, ListChange, ListChangePage, MERGE};
pub use lists::{ListAsset, Membership, RowAnswer};
pub use usage::DayUse;

/// Why a call has no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Certainly without effect; nothing before this time (ms).
    #[error("nothing may be sent to Marketo for now")]
    Wait(u64),
    /// Certainly without effect: whoever may only look has used up their part of the day's calls.
    #[error("viewers have used up their part of the day's calls to Marketo")]
    ViewersWait {
        /// When it begins anew, in ms.
        until: u64,
        /// How long that is, in ms.
        in_ms: u64,
    },
    /// Certainly without effect: the control plane has another call under way, which may take for so long yet, in ms.
    #[error("the control plane has another call to Marketo under way")]
    Taken(u64),
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

impl CallError {
    /// What is done about it; `None`: nothing was sent, or nothing may be sent for now.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        match self {
            CallError::Refused { code, .. } => Some(class_of(code)),
            CallError::Unknown(_) => Some(Class::Unknown),
            CallError::Wait(_) | CallError::ViewersWait { .. } | CallError::Taken(_) | CallError::Ours(_) => None,
        }
    }
}

/// An outage only where the whole instance refuses us (401, 603, 616, 703, and 614 in the end): then no other key
/// would fare better. Everything else concerns one key, which is set aside after three failures and tried again by
/// the sweep, so that it neither blocks the others nor is lost.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match (error.class(), error) {
            (_, CallError::Ours(failure)) => failure,
            (Some(Class::Alarm | Class::RetryThenAlarm), error) => Failure::Outage { reason: error.to_string() },
            (_, other) => Failure::retry(other.to_string()),
        }
    }
}

/// How long we wait for an answer, in ms. Marketo's own time-outs are 30 to 90 s.
pub const CALL_TIMEOUT_MS: u64 = 40_000;
const _: () = assert!(LEASE_MS >= CALL_TIMEOUT_MS, "a call would outlast its lease");
const _: () = assert!(LEASE_MS > SEND_WITHIN_MS, "a call would begin after its lease");
/// A wait of up to a window is slept through if the invocation has this much time left after it, in ms: enough for
/// the call and for writing down its answer.
pub const MARGIN_MS: u64 = 45_000;
/// A call that changes something leaves within this time of its slot, its repetitions included, in ms; otherwise it
/// does not leave at all. So a hold that reckons from the slot needs this much beside Marketo's lateness. Ours.
pub const SEND_WITHIN_MS: u64 = 30_000;
/// Whoever finds the control plane's lease taken looks again after this time, in ms. Ours: a call takes a few hundred.
const LEASE_POLL_MS: u64 = 200;
/// It is waited for as long as that leaves this much time for the call, in ms. Ours: Marketo seldom takes longer.
const LEASE_MARGIN_MS: u64 = 15_000;
/// Our token is used until this long before its expiry, or for half its remaining life if that is shorter, in ms. It is
/// not scaled, for Marketo's tokens live as long on any clock.
const TOKEN_MARGIN_MS: u64 = 30_000;
/// A token that has no life left is asked for anew after this time, in ms: Marketo counts in seconds.
const TOKEN_EDGE_MS: u64 = 1_000;
/// So often a token is asked for until it has some life left. Ours.
const TOKEN_ATTEMPTS: usize = 3;

/// A client of one subscription, for one invocation.
#[derive(Debug, Clone, Copy)]
pub struct Marketo<'a> {
    deps: &'a Deps,
    munchkin: &'a MunchkinId,
    deadline: u64,
    purpose: Purpose,
    /// Counts the calls.
    calls: Option<&'a AtomicU64>,
}

/// The right to send one call now. Whoever does not send one gives it back ([`Marketo::give_back`]).
#[derive(Debug)]
pub struct Slot {
    /// Since when, in ms.
    since: u64,
    /// The control plane's calls go one at a time.
    lease: Option<Lease>,
}

/// Whether a call changes anything at Marketo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing that matters: an unknown outcome is simply no answer.
    Reads,
    /// It does.
    Writes,
}

/// A call, to be sent as often as it takes.
#[derive(Debug)]
struct Call<'a> {
    effect: Effect,
    method: Method,
    path_and_query: &'a str,
    /// Content type and body.
    body: Option<(&'static str, Vec<u8>)>,
}

impl<'a> Call<'a> {
    const fn get(path_and_query: &'a str) -> Self {
        Self { effect: Effect::Reads, method: Method::GET, path_and_query, body: None }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

impl<'a> Marketo<'a> {
    /// A client that sleeps through short waits until `deadline` (ms) and no longer.
    #[must_use]
    pub const fn new(deps: &'a Deps, munchkin: &'a MunchkinId, deadline: u64, purpose: Purpose) -> Self {
        Self { deps, munchkin, deadline, purpose, calls: None }
    }

    /// The same client for calls of another purpose.
    #[must_use]
    pub const fn calling_for(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// The same client, which counts the calls that it sends. Asking for an access token is none: it is free.
    #[must_use]
    pub const fn counting(self, calls: &'a AtomicU64) -> Self {
        Self { calls: Some(calls), ..self }
    }

    /// The same client, which waits for another call of the control plane for so long at most, in ms, before scaling: for
    /// calls that the answer can do without.
    #[must_use]
    pub fn waiting_at_most(self, ms: u64) -> Self {
        let deadline = self.deps.now() + self.deps.settings.scaled(LEASE_MARGIN_MS + ms);
        Self { deadline: self.deadline.min(deadline), ..self }
    }

    /// Waits for the right to send one call. Take it *before* writing an intent, so that the intent's hold counts
    /// from the moment the call goes out.
    pub async fn slot(&self) -> Result<Slot, CallError> {
        self.slots(1).await?.pop().ok_or_else(|| Failure::retry("a permit for no call").into())
    }

    /// Waits for the right to send at least one call and at most `wanted`, at once.
    pub async fn slots(&self, wanted: usize) -> Result<Vec<Slot>, CallError> {
        loop {
            // Before the permit: a call leaves soon after it, so that calls reach Marketo at the pace of the permits.
            self.token().await?;
            let now = self.deps.now();
            match permit(self.deps, self.munchkin, self.purpose, wanted).await? {
                Permit::Go(calls) => return Ok((0..calls).map(|_| Slot { since: now, lease: None }).collect()),
                Permit::Lease(lease) => return Ok(vec![Slot { since: now, lease: Some(lease) }]),
                Permit::Taken(until) => {
                    let pause = self.deps.settings.scaled(LEASE_POLL_MS);
                    if now + pause + self.deps.settings.scaled(LEASE_MARGIN_MS) >= self.deadline {
                        return Err(CallError::Taken(until.saturating_sub(now)));
                    }
                    self.deps.ports.clock.sleep_ms(pause).await;
                }
                Permit::ViewersWait(until) => {
                    return Err(CallError::ViewersWait { until, in_ms: until.saturating_sub(now) });
                }
                Permit::Wait(until) if until + self.deps.settings.scaled(MARGIN_MS) < self.deadline => {
                    self.deps.ports.clock.sleep_ms(until.saturating_sub(now).max(1)).await;
                }
                Permit::Wait(until) => return Err(CallError::Wait(until)),
            }
        }
    }

    /// Gives a slot back whose call is not made after all.
    pub async fn give_back(&self, slot: Slot) {
        self.end(slot.lease).await;
    }

    async fn end(&self, lease: Option<Lease>) {
        if let Some(lease) = lease {
            give_back(self.deps, self.munchkin, lease).await;
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
        self.call(slot, Call::get(path_and_query)).await
    }

    /// Sends a call and reads its answer.
    async fn call(&self, slot: Slot, call: Call<'_>) -> Result<Answer, CallError> {
        self.resting(self.fetch(slot, &call, Answer::read).await)
    }

    /// A queue of Marketo's that is full: nothing for a while.
    fn resting<T>(&self, answer: Result<T, CallError>) -> Result<T, CallError> {
        match answer {
            Err(error) if error.class() == Some(Class::Later) => Err(self.rest(LATER_MS)),
            other => other,
        }
    }

    fn rest(&self, ms: u64) -> CallError {
        CallError::Wait(self.deps.now() + self.deps.settings.scaled(ms))
    }

    /// Sends a call, again where its class says so ([`class`]), each time with a new slot.
    async fn fetch<T>(
        &self,
        slot: Slot,
        call: &Call<'_>,
        read: fn(Response<Vec<u8>>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let Slot { mut since, mut lease } = slot;
        let mut renewed = false;
        let mut delays = RETRY_DELAYS_MS.iter();
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(error) => {
                    self.end(lease).await;
                    return Err(error);
                }
            };
            if self.deps.now() > since + self.deps.settings.scaled(SEND_WITHIN_MS) {
                // Certainly without effect: the caller begins anew.
                self.end(lease).await;
                return Err(CallError::Wait(self.deps.now()));
            }
            let sent = self.send(&token, call, lease).await;
            // Without an answer the call may be under way still: its lease ends when nobody would wait for it any more.
            let lease_over = lease.take().filter(|_| !matches!(sent, Err(CallError::Unknown(_))));
            let answer = sent.and_then(read);
            if let Some(pushback) = answer.as_ref().err().and_then(CallError::class).and_then(pushback) {
                let until = push_back_and_end(self.deps, self.munchkin, pushback, lease_over).await?;
                return Err(CallError::Wait(until));
            }
            self.end(lease_over).await;
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match error.class() {
                Some(Class::RenewToken) => {
                    self.deps.refuse_access_token(Vendor::Marketo, &token);
                    if renewed {
                        return Err(self.rest(TOKEN_REST_MS));
                    }
                    renewed = true;
                }
                Some(class @ (Class::RetrySoon | Class::RetryThenAlarm)) => match delays.next() {
                    Some(&delay) if self.pause(self.deps.settings.scaled(delay)).await => {}
                    Some(&delay) => return Err(self.rest(delay)),
                    None if class == Class::RetrySoon => return Err(self.rest(LATER_MS)),
                    None => return Err(error),
                },
                Some(Class::Unknown) if call.effect == Effect::Reads => {
                    return Err(Failure::retry(error.to_string()).into());
                }
                _ => return Err(error),
            }
            let again = self.slot().await?;
            lease = again.lease;
            if call.effect == Effect::Reads {
                since = again.since;
            }
        }
    }

    /// Sleeps, unless that leaves too little time. `false`: it did not.
    async fn pause(&self, ms: u64) -> bool {
        let fits = self.deps.now() + ms + self.deps.settings.scaled(MARGIN_MS) < self.deadline;
        if fits {
            self.deps.ports.clock.sleep_ms(ms).await;
        }
        fits
    }

    async fn send(
        &self,
        token: &SecretString,
        call: &Call<'_>,
        lease: Option<Lease>,
    ) -> Result<Response<Vec<u8>>, CallError> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", self.base(), call.path_and_query))
            .header("authorization", format!("Bearer {}", token.expose_secret()));
        let body = match &call.body {
            Some((content_type, bytes)) => {
                request = request.header("content-type", *content_type);
                bytes.clone()
            }
            None => Vec::new(),
        };
        let request = request.body(body).map_err(|_| Failure::fail("a request to Marketo cannot be built"))?;
        if let Some(calls) = self.calls {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        // No longer than nobody else may call.
        let left = lease.map_or(u64::MAX, |lease| lease.until.saturating_sub(self.deps.now()));
        self.transport(request, self.timeout().min(left)).await
    }

    fn timeout(&self) -> u64 {
        self.deps.settings.scaled(CALL_TIMEOUT_MS)
    }

    async fn transport(&self, request: Request<Vec<u8>>, timeout: u64) -> Result<Response<Vec<u8>>, CallError> {
        match self.deps.ports.http.send(request, timeout).await {
            Ok(response) => Ok(response),
            Err(PortError::Unknown { reason, .. }) => Err(CallError::Unknown(reason)),
            Err(error) => Err(CallError::Ours(error.into())),
        }
    }

    /// A token with some life left. Calls that are under way together ask for it once: Marketo hands out the same
    /// one anyway, with a life that shrinks.
    async fn token(&self) -> Result<SecretString, CallError> {
        if let Some(token) = self.deps.access_token(Vendor::Marketo) {
            return Ok(token);
        }
        let _alone = self.deps.renewal().await;
        if let Some(token) = self.deps.access_token(Vendor::Marketo) {
            return Ok(token);
        }
        for attempt in 1..=TOKEN_ATTEMPTS {
            let asked_at = self.deps.now();
            let (token, seconds) = self.ask_for_token().await?;
            if seconds > 0 {
                let life = seconds.saturating_mul(1_000);
                let until = asked_at.saturating_add(life - TOKEN_MARGIN_MS.min(life / 2));
                self.deps.keep_access_token(Vendor::Marketo, token.clone(), until);
                return Ok(token);
            }
            if attempt == TOKEN_ATTEMPTS || !self.pause(TOKEN_EDGE_MS).await {
                break;
            }
        }
        Err(self.rest(TOKEN_REST_MS))
    }

    /// Asks for a token, once more if the credentials were refused and there are others by now.
    async fn ask_for_token(&self) -> Result<(SecretString, u64), CallError> {
        let credentials = self.deps.credentials(Vendor::Marketo).await.map_err(Failure::from)?;
        match self.ask_for_token_with(&credentials).await {
            Err(error @ CallError::Refused { .. }) => {
                let other = self.deps.credentials_instead_of(Vendor::Marketo, &credentials).await;
                match other.map_err(Failure::from)? {
                    Some(other) => self.ask_for_token_with(&other).await,
                    None => Err(error),
                }
            }
            asked => asked,
        }
    }

    async fn ask_for_token_with(&self, credentials: &Credentials) -> Result<(SecretString, u64), CallError> {
        // As a form: what stands in an address ends up in logs.
        let form = query(&[
            ("grant_type", "client_credentials"),
            ("client_id", credentials.id.expose_secret()),
            ("client_secret", credentials.secret.expose_secret()),
        ]);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/identity/oauth/token", self.base()))
            .header("content-type", FORM)
            .body(form.into_bytes())
            .map_err(|_| Failure::fail("a request to Marketo cannot be built"))?;
        match self.transport(request, self.timeout()).await {
            Ok(response) => answer::read_token(&response).map(|(token, seconds)| (token.into(), seconds)),
            // Asking for a token changes nothing, so an unknown outcome is no doubt.
            Err(CallError::Unknown(reason)) => Err(Failure::retry(reason).into()),
            Err(error) => Err(error),
        }
    }
}

/// Answers that say that a call was one too many.
const fn pushback(class: Class) -> Option<Pushback> {
    match class {
        Class::NextWindow => Some(Pushback::Rate),
        Class::FewerAtOnce => Some(Pushback::AtOnce),
        Class::Midnight => Some(Pushback::Day),
        _ => None,
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    serializer.extend_pairs(pairs);
    serializer.finish()
}
