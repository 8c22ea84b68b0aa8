//! What a process remembers between two requests, so that most of them cost one message in the queue and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::MunchkinId;
use futures::future::{Either, select};
use ports::{PortError, StreamSecrets};
use state::feeds::{Feed, feeds};
use state::syncs::{Subscription, subscriptions};
use state::{Deps, Failure, Step};

/// Settings that were read are good for this long, in ms: a change is seen within a minute.
pub(crate) const GOOD_MS: u64 = 60_000;
/// Where they refuse somebody they are read again if they are older than this, in ms: what was just declared is taken
/// soon, and whoever is refused all the time costs a read a second at most.
pub(crate) const RECHECK_MS: u64 = 1_000;
/// The secrets are read anew after this time, in ms: one that was taken away soon counts no more.
const SECRETS_GOOD_MS: u64 = 10 * 60_000;
/// After a proof failed they are read again at most this often, in ms: a rotation is seen soon, and wrong proofs do not
/// cost a call to Secrets Manager each.
const SECRETS_AGAIN_MS: u64 = 60_000;
/// Where they could not be read they are tried again after this time, in ms.
const SECRETS_RETRY_MS: u64 = 1_000;
/// What one reading of them may take, in ms: less than Adobe waits.
const SECRETS_PATIENCE_MS: u64 = 800;

/// How long a process that knows the feeds of before waits for those of now, in ms of real time. Ours: what is left of the 2 s
/// that Experience Platform gives.
const DOORS_PATIENCE_MS: u64 = 500;

/// What a process remembers.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    doors: Mutex<Option<(Arc<Doors>, u64)>>,
    secrets: Mutex<Secrets>,
    /// Feeds without a secret, of which it has told.
    told: Mutex<BTreeSet<String>>,
}

/// The streams of each subscription, by their ids.
pub(crate) type Doors = BTreeMap<MunchkinId, (Subscription, BTreeMap<String, Feed>)>;

#[derive(Debug, Default)]
struct Secrets {
    found: Option<Arc<StreamSecrets>>,
    /// When they are to be read next, in ms.
    next: u64,
    /// When they were last read because a proof failed, in ms.
    again: Option<u64>,
}

impl Warm {
    /// The streams, read at most so long ago (ms). Where they cannot be read, those of before count.
    pub(crate) async fn doors(&self, deps: &Deps, good_for: u64) -> Step<Arc<Doors>> {
        let now = deps.now();
        let kept = lock(&self.doors).clone();
        if let Some((doors, at)) = &kept
            && now < at.saturating_add(good_for)
        {
            return Ok(doors.clone());
        }
        // Whoever has none must wait for them; a table that hangs is no reason to answer nobody else.
        let read = match &kept {
            None => Some(read_doors(deps).await),
            Some(_) => within(deps, DOORS_PATIENCE_MS, read_doors(deps)).await,
        };
        let hangs = || Failure::retry("the table of feeds does not answer");
        match read.unwrap_or_else(|| Err(hangs())) {
            Ok(doors) => {
                let doors = Arc::new(doors);
                *lock(&self.doors) = Some((doors.clone(), now));
                Ok(doors)
            }
            Err(failure) => {
                let (doors, _) = kept.ok_or(failure)?;
                tracing::warn!("feeds cannot be read: those of before count");
                Ok(doors)
            }
        }
    }

    /// The secrets; `None`: they could not be read so far. Where they cannot be read now, those of before count.
    pub(crate) async fn secrets(&self, deps: &Deps) -> Option<Arc<StreamSecrets>> {
        let now = deps.now();
        {
            let mut kept = lock(&self.secrets);
            if now < kept.next {
                return kept.found.clone();
            }
            // Marked before the call, so that a failing one is not repeated at once.
            kept.next = now.saturating_add(deps.settings.scaled(SECRETS_RETRY_MS));
        }
        self.read_secrets(deps, now).await;
        lock(&self.secrets).found.clone()
    }

    /// The secrets as they are now, since those of before refused somebody. `None`: they were read again for that reason
    /// less than a minute ago, or cannot be read.
    pub(crate) async fn secrets_again(&self, deps: &Deps) -> Option<Arc<StreamSecrets>> {
        let now = deps.now();
        {
            let mut kept = lock(&self.secrets);
            let wait = deps.settings.scaled(SECRETS_AGAIN_MS);
            if kept.again.is_some_and(|at| now < at.saturating_add(wait)) {
                return None;
            }
            kept.again = Some(now);
        }
        self.read_secrets(deps, now).await.then(|| lock(&self.secrets).found.clone())?
    }

    async fn read_secrets(&self, deps: &Deps, now: u64) -> bool {
        let read = within(deps, SECRETS_PATIENCE_MS, deps.ports.secrets.streams()).await;
        match read {
            Some(Ok(found)) => {
                let mut kept = lock(&self.secrets);
                kept.found = Some(Arc::new(found));
                kept.next = now.saturating_add(deps.settings.scaled(SECRETS_GOOD_MS));
                true
            }
            Some(Err(error @ PortError::Refused { .. })) => {
                tracing::error!(reason = %error, "the secrets of streams cannot be read");
                false
            }
            Some(Err(error)) => {
                tracing::warn!(reason = %error, "the secrets of streams cannot be read now");
                false
            }
            None => {
                tracing::warn!("the secrets of streams did not come in time");
                false
            }
        }
    }

    /// Says in the log, once a process, that a feed has no secret.
    pub(crate) fn tell_no_secret(&self, name: &str) {
        if lock(&self.told).insert(name.to_owned()) {
            tracing::warn!(feed = name, "a stream has no secret: whatever it sends is refused");
        }
    }
}

async fn read_doors(deps: &Deps) -> Step<Doors> {
    let mut doors = Doors::new();
    for subscription in subscriptions(deps).await? {
        let feeds = feeds(deps, &subscription.munchkin_id).await?;
        let streams =
            feeds.into_iter().filter(|feed| feed.kind.is_stream()).map(|feed| (feed.id.clone(), feed)).collect();
        doors.insert(subscription.munchkin_id.clone(), (subscription, streams));
    }
    Ok(doors)
}

/// What work comes to within some time; `None`: it was given up. The time is real: what it bounds does not get faster in a
/// test.
pub(crate) async fn within<T>(deps: &Deps, ms: u64, work: impl Future<Output = T>) -> Option<T> {
    let (work, time) = (std::pin::pin!(work), deps.ports.clock.sleep_ms(ms));
    match select(work, time).await {
        Either::Left((ended, _)) => Some(ended),
        Either::Right(_) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
