//! What every handler gets: the ports, the settings, and what a warm process may remember.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::base::Base;
use ports::{Credentials, PortResult, Ports, Vendor};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{Cause, Causes};

/// Settings of the deployment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Every time-out, interval and window is multiplied by it. 1 in AWS; less in the local stack.
    pub time_scale: f64,
    /// Our share of each of Marketo's limits (calls in 20 s, calls at once, calls a day), above 0 and at most 1.
    pub quota_share: f64,
    /// Calls a day that Marketo allows the instance, all tools together.
    pub quota_per_day: u64,
    /// How long a match counts after its last sight, in ms; not scaled.
    pub match_lifetime_ms: u64,
    /// Marketo's REST host; empty: `https://{munchkinId}.mktorest.com`.
    pub marketo_url: String,
    /// Adobe's IMS.
    pub ims_url: String,
    /// Audience Manager's API.
    pub aam_url: String,
    /// Experience Platform's API.
    pub aep_url: String,
    /// The API of Experience Platform's folders.
    pub aep_folders_url: String,
    /// The sandbox of Experience Platform; empty: it is not used.
    pub aep_sandbox: String,
    /// Scopes of Adobe's credential, separated by commas.
    pub adobe_scopes: String,
    /// Pending rows of an audience above which a whole pass is cheaper than one look-up each.
    pub pass_above: usize,
    /// Identity records that one slice of a pass reads.
    pub slice_records: usize,
    /// Entries of a delivery that stand in memory at once, 16 bytes each.
    pub entries_at_once: u64,
    /// Facts of a delivery about one audience above which they are written as a set, and not as a row each
    /// ([`crate::facts`]).
    pub run_above: usize,
    /// What was said of an audience is folded into its snapshot after this time, in ms: a file that is later says nothing
    /// about it. An eighth of it is longer than an invocation lasts.
    pub fold_after_ms: u64,
}

impl Settings {
    /// A duration of the design, in ms, on this deployment's clock; at least 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn scaled(&self, ms: u64) -> u64 {
        ((ms as f64 * self.time_scale) as u64).max(1)
    }
}

/// What a handler works with. Cheap to clone; one a process.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The world.
    pub ports: Ports,
    /// The deployment's settings.
    pub settings: Arc<Settings>,
    /// Access tokens, with the time (ms) until which they are used.
    tokens: Arc<Mutex<HashMap<Vendor, (SecretString, u64)>>>,
    credentials: Arc<Mutex<HashMap<Vendor, Kept>>>,
    renewal: Arc<futures::lock::Mutex<()>>,
    bases: Arc<Mutex<Vec<CachedBase>>>,
    /// Why whatever is done with these is done.
    why: Causes,
    /// Whoever asks may only look.
    viewer: bool,
}

/// Credentials that this process has read.
#[derive(Debug, Clone)]
struct Kept {
    credentials: Credentials,
    /// When they were last read because the vendor refused them, in ms.
    read_again: Option<u64>,
}

/// After credentials were refused they are read again at most this often, in ms: a rotation is seen soon, and wrong
/// credentials do not cost a call to Secrets Manager each time. Ours.
const READ_AGAIN_MS: u64 = 60_000;

type CachedBase = (String, Arc<Base>);

/// Members that a warm process may hold in memory, over all audiences: 64 MB.
const CACHED_MEMBERS: usize = 4_000_000;

impl Deps {
    /// Fresh dependencies: a cold process.
    #[must_use]
    pub fn new(ports: Ports, settings: Settings) -> Self {
        Self {
            ports,
            settings: Arc::new(settings),
            tokens: Arc::default(),
            credentials: Arc::default(),
            renewal: Arc::default(),
            bases: Arc::default(),
            why: Causes::new(),
            viewer: false,
        }
    }

    /// The same dependencies for work that is done for these reasons: keys that are marked with them learn why.
    #[must_use]
    pub fn because(&self, why: impl IntoIterator<Item = Cause>) -> Self {
        Self { why: why.into_iter().collect(), ..self.clone() }
    }

    /// Why whatever is done with these is done; empty: nobody said.
    #[must_use]
    pub const fn why(&self) -> &Causes {
        &self.why
    }

    /// The same dependencies for a request of somebody who may only look: their calls to Marketo have a bound of their own
    /// ([`crate::budget`]).
    #[must_use]
    pub fn for_viewer(&self) -> Self {
        Self { viewer: true, ..self.clone() }
    }

    /// Whether whoever asks may only look.
    #[must_use]
    pub const fn is_for_viewer(&self) -> bool {
        self.viewer
    }

    /// Now, in ms since the epoch.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.ports.clock.now_ms()
    }

    /// A fresh id of 16 hex digits.
    #[must_use]
    pub fn fresh_id(&self) -> String {
        format!("{:016x}", self.ports.random.next_u64())
    }

    /// The vendor's credentials: read once, and then remembered.
    pub async fn credentials(&self, vendor: Vendor) -> PortResult<Credentials> {
        if let Some(kept) = self.kept().get(&vendor) {
            return Ok(kept.credentials.clone());
        }
        let credentials = self.ports.secrets.read(vendor).await?;
        // Two that read at once: the first one's count, so that everybody shows the same.
        let mut kept = self.kept();
        let kept = kept.entry(vendor).or_insert(Kept { credentials, read_again: None });
        Ok(kept.credentials.clone())
    }

    /// Other credentials than those that the vendor has just refused, as after a rotation; `None`: there are none.
    /// They are read again at most once a minute ([`READ_AGAIN_MS`]).
    pub async fn credentials_instead_of(
        &self,
        vendor: Vendor,
        refused: &Credentials,
    ) -> PortResult<Option<Credentials>> {
        let now = self.now();
        {
            let mut kept = self.kept();
            let Some(kept) = kept.get_mut(&vendor) else { return Ok(None) };
            if kept.credentials != *refused {
                return Ok(Some(kept.credentials.clone()));
            }
            let wait = self.settings.scaled(READ_AGAIN_MS);
            if kept.read_again.is_some_and(|at| now < at.saturating_add(wait)) {
                return Ok(None);
            }
            // Marked before the call, so that a failing one is not repeated at once either.
            kept.read_again = Some(now);
        }
        let credentials = self.ports.secrets.read(vendor).await?;
        let other = (credentials != *refused).then(|| credentials.clone());
        self.kept().insert(vendor, Kept { credentials, read_again: Some(now) });
        Ok(other)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Vendor, Kept>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<Vendor, (SecretString, u64)>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vendor's access token that is still good, if this process has one.
    #[must_use]
    pub fn access_token(&self, vendor: Vendor) -> Option<SecretString> {
        self.tokens().get(&vendor).filter(|(_, until)| *until > self.now()).map(|(token, _)| token.clone())
    }

    /// Remembers an access token until a time in ms.
    pub fn keep_access_token(&self, vendor: Vendor, token: SecretString, until: u64) {
        self.tokens().insert(vendor, (token, until));
    }

    /// Waits until nobody in this process asks for an access token, and keeps others from asking until the guard is
    /// dropped. Look for the token once more under the guard: somebody may have brought it meanwhile.
    pub async fn renewal(&self) -> futures::lock::MutexGuard<'_, ()> {
        self.renewal.lock().await
    }

    /// Forgets an access token that was refused. Another one, which somebody has brought meanwhile, is kept.
    pub fn refuse_access_token(&self, vendor: Vendor, refused: &SecretString) {
        let mut tokens = self.tokens();
        if tokens.get(&vendor).is_some_and(|(token, _)| token.expose_secret() == refused.expose_secret()) {
            tokens.remove(&vendor);
        }
    }

    /// Forgets an access token that is not taken any more.
    pub fn forget_access_token(&self, vendor: Vendor) {
        self.tokens().remove(&vendor);
    }

    pub(crate) fn cached_base(&self, key: &str) -> Option<Arc<Base>> {
        let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.iter().find(|(cached, _)| cached == key).map(|(_, base)| base.clone())
    }

    pub(crate) fn cache_base(&self, key: &str, base: &Arc<Base>) {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.push((key.to_owned(), base.clone()));
        while bases.len() > 1 && bases.iter().map(|(_, base)| base.len()).sum::<usize>() > CACHED_MEMBERS {
            bases.remove(0);
        }
        if bases.len() > 64 {
            bases.remove(0);
        }
    }
}
