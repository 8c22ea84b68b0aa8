//! What every handler gets: the ports, the settings, and what a warm process may remember.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::base::Base;
use ports::Ports;

/// Settings of the deployment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Every time-out, interval and window is multiplied by it. 1 in AWS; less in the local stack.
    pub time_scale: f64,
    /// Our share of each of Marketo's limits (calls in 20 s, calls at once, calls a day), above 0 and at most 1.
    pub quota_share: f64,
    /// Calls a day that Marketo allows the instance, all tools together.
    pub quota_per_day: u64,
    /// Marketo's REST host; empty: `https://{munchkinId}.mktorest.com`.
    pub marketo_url: String,
    /// Marketo's custom service.
    pub marketo: Credentials,
    /// Adobe's IMS.
    pub ims_url: String,
    /// Audience Manager's API.
    pub aam_url: String,
    /// Adobe's OAuth server-to-server credential.
    pub adobe: Credentials,
    /// Scopes of that credential, separated by commas.
    pub adobe_scopes: String,
    /// Pending rows of an audience above which a whole pass is cheaper than one look-up each.
    pub pass_above: usize,
    /// Identity records that one slice of a pass reads.
    pub slice_records: usize,
}

/// A client id and its secret.
#[derive(Clone)]
pub struct Credentials {
    /// Client id.
    pub id: String,
    /// Client secret; never printed.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
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
    /// Access tokens by client id, with the time (ms) until which they are used.
    tokens: Arc<Mutex<HashMap<String, (String, u64)>>>,
    renewal: Arc<futures::lock::Mutex<()>>,
    bases: Arc<Mutex<Vec<CachedBase>>>,
}

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
            renewal: Arc::default(),
            bases: Arc::default(),
        }
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

    /// The access token of a client id that is still good, if this process has one.
    #[must_use]
    pub fn access_token(&self, client_id: &str) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(client_id).filter(|(_, until)| *until > self.now()).map(|(token, _)| token.clone())
    }

    /// Remembers an access token of a client id until a time in ms.
    pub fn keep_access_token(&self, client_id: &str, token: &str, until: u64) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(client_id.to_owned(), (token.to_owned(), until));
    }

    /// Waits until nobody in this process asks for an access token, and keeps others from asking until the guard is
    /// dropped. Look for the token once more under the guard: somebody may have brought it meanwhile.
    pub async fn renewal(&self) -> futures::lock::MutexGuard<'_, ()> {
        self.renewal.lock().await
    }

    /// Forgets an access token that was refused. Another one, which somebody has brought meanwhile, is kept.
    pub fn refuse_access_token(&self, client_id: &str, refused: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.get(client_id).is_some_and(|(token, _)| token == refused) {
            tokens.remove(client_id);
        }
    }

    /// Forgets an access token that is not taken any more.
    pub fn forget_access_token(&self, client_id: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(client_id);
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
