//! What a process remembers between two invocations, so that what happens all the time costs no read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::limits::SIGHT_GRAIN_MS;
use domain::{Ecid, MunchkinId, Token};
use ports::Table;
use sha2::{Digest as _, Sha256};
use state::syncs::{HintSecrets, Subscription, hint_secrets_key, subscriptions};
use state::{Deps, Step, load};

use crate::message::Views;

/// Settings that were read are good for this long, in ms: a change is seen within a minute.
pub(crate) const GOOD_MS: u64 = 60_000;
/// Where they refuse somebody they are read again if they are older than this, in ms: what was just allowed is allowed
/// soon, and whoever is refused all the time costs a read a second at most.
pub(crate) const RECHECK_MS: u64 = 1_000;
/// Pairs that one process remembers: about 2 MB.
const PAIRS: usize = 50_000;
/// A pair that is stored is remembered for this long, in ms: an erased visitor who comes back is soon seen.
const STORED_MS: u64 = 15 * 60_000;
/// A pair that was put into the queue is remembered for this long, in ms: a double click costs nothing. It may be
/// dropped on the other side of the queue, and then its next sight must count.
const QUEUED_MS: u64 = 60_000;

/// What a process remembers.
#[derive(Debug)]
pub(crate) struct Warm {
    /// Nobody outside knows it, so that nobody can choose a pair that is taken for another one.
    key: [u8; 16],
    pairs: Mutex<Pairs>,
    subscriptions: Kept<(), Subscriptions>,
    /// Of subscriptions that exist: as many as those.
    secrets: Kept<MunchkinId, HintSecrets>,
    /// Page views that no message has told yet. Of subscriptions that exist, likewise.
    views: Mutex<BTreeMap<MunchkinId, Views>>,
}

/// The subscriptions, by Munchkin id.
pub(crate) type Subscriptions = BTreeMap<MunchkinId, Subscription>;

impl Warm {
    /// A process that has just begun. `random`: 128 bits that nobody can guess.
    pub(crate) fn new(random: [u64; 2]) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random[0].to_le_bytes());
        key[8..].copy_from_slice(&random[1].to_le_bytes());
        Self {
            key,
            pairs: Mutex::default(),
            subscriptions: Kept::default(),
            secrets: Kept::default(),
            views: Mutex::default(),
        }
    }

    /// The subscriptions, read at most so long ago (ms). Where they cannot be read, those of before count.
    pub(crate) async fn subscriptions(&self, deps: &Deps, good_for: u64) -> Step<Arc<Subscriptions>> {
        let read = async {
            let all = subscriptions(deps).await?;
            Ok(all.into_iter().map(|found| (found.munchkin_id.clone(), found)).collect())
        };
        self.subscriptions.get((), deps.now(), good_for, read).await
    }

    /// A subscription's hint secrets, likewise.
    pub(crate) async fn secrets(&self, deps: &Deps, munchkin: &MunchkinId, good_for: u64) -> Step<Arc<HintSecrets>> {
        let read = async {
            let found = load(deps, Table::Syncs, &hint_secrets_key(munchkin)).await?;
            Ok(found.map_or_else(HintSecrets::default, |found| found.value))
        };
        self.secrets.get(munchkin.clone(), deps.now(), good_for, read).await
    }

    /// A number that stands for a pair. It says nothing of it to whoever does not know the key.
    pub(crate) fn pair(&self, munchkin: &MunchkinId, ecid: Ecid, token: &Token) -> u64 {
        hashed(&[&self.key, munchkin.as_str().as_bytes(), &ecid.number().to_le_bytes(), token.as_str().as_bytes()])
    }

    /// Whether nothing is to be done about a pair.
    pub(crate) fn remembers(&self, pair: u64, now: u64) -> bool {
        lock(&self.pairs).remembers(pair, now)
    }

    /// A pair is stored, with this last sight (ms).
    pub(crate) fn is_stored(&self, pair: u64, last_sight: u64, now: u64) {
        let until = now.saturating_add(STORED_MS).min(last_sight.saturating_add(SIGHT_GRAIN_MS));
        lock(&self.pairs).remember(pair, until);
    }

    /// Pages were viewed.
    pub(crate) fn viewed(&self, munchkin: &MunchkinId, views: Views) {
        let mut all = lock(&self.views);
        match all.get_mut(munchkin) {
            Some(known) => *known += views,
            None => _ = all.insert(munchkin.clone(), views),
        }
    }

    /// The page views that no message has told yet. From now on this one's sender tells them.
    pub(crate) fn take_views(&self, munchkin: &MunchkinId) -> Option<Views> {
        lock(&self.views).remove(munchkin)
    }

    /// A pair was put into the queue.
    pub(crate) fn is_queued(&self, pair: u64, now: u64) {
        lock(&self.pairs).remember(pair, now.saturating_add(QUEUED_MS));
    }
}

/// The first 64 bits of the SHA-256 of these, one after the other.
pub(crate) fn hashed(parts: &[&[u8]]) -> u64 {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settings that were read.
#[derive(Debug)]
struct Kept<K, T>(Mutex<BTreeMap<K, Read<T>>>);

#[derive(Debug)]
struct Read<T> {
    value: Arc<T>,
    /// When, in ms.
    at: u64,
}

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, T> Kept<K, T> {
    async fn get(&self, key: K, now: u64, good_for: u64, read: impl Future<Output = Step<T>>) -> Step<Arc<T>> {
        let kept = lock(&self.0).get(&key).map(|kept| (kept.value.clone(), now < kept.at.saturating_add(good_for)));
        if let Some((value, true)) = kept {
            return Ok(value);
        }
        match read.await {
            Ok(value) => {
                let value = Arc::new(value);
                lock(&self.0).insert(key, Read { value: value.clone(), at: now });
                Ok(value)
            }
            Err(failure) => {
                let (value, _) = kept.ok_or(failure)?;
                tracing::warn!("settings cannot be read: those of before count");
                Ok(value)
            }
        }
    }
}

/// Pairs, each with the time (ms) until which it is remembered. At most [`PAIRS`]: the oldest go first.
#[derive(Debug, Default)]
struct Pairs {
    until: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl Pairs {
    fn remembers(&self, pair: u64, now: u64) -> bool {
        self.until.get(&pair).is_some_and(|until| now < *until)
    }

    fn remember(&mut self, pair: u64, until: u64) {
        if self.until.insert(pair, until).is_none() {
            self.order.push_back(pair);
        }
        if self.order.len() > PAIRS
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_pair_is_remembered_for_a_quarter_of_an_hour_and_never_past_its_next_write() {
        let warm = Warm::new([1, 2]);
        warm.is_stored(7, 1_000, 1_000);
        assert!(warm.remembers(7, 1_000) && warm.remembers(7, 1_000 + STORED_MS - 1));
        assert!(!warm.remembers(7, 1_000 + STORED_MS) && !warm.remembers(8, 1_000));

        let now = 1_000 + SIGHT_GRAIN_MS - 10;
        warm.is_stored(7, 1_000, now);
        assert!(warm.remembers(7, now + 9) && !warm.remembers(7, now + 10));
    }

    #[test]
    fn a_queued_pair_is_remembered_for_a_minute() {
        let warm = Warm::new([1, 2]);
        warm.is_queued(7, 1_000);
        assert!(warm.remembers(7, 1_000 + QUEUED_MS - 1) && !warm.remembers(7, 1_000 + QUEUED_MS));
        // What is found stored afterwards is remembered as such.
        warm.is_stored(7, 1_000, 2_000);
        assert!(warm.remembers(7, 1_000 + QUEUED_MS));
    }

    #[test]
    fn the_oldest_pairs_are_forgotten_first_and_memory_is_bounded() {
        let mut pairs = Pairs::default();
        for pair in 0..=(PAIRS as u64) {
            pairs.remember(pair, 10);
            pairs.remember(pair, 20);
        }
        assert!(!pairs.remembers(0, 5) && pairs.remembers(1, 5) && pairs.remembers(PAIRS as u64, 19));
        assert_eq!((pairs.until.len(), pairs.order.len()), (PAIRS, PAIRS));
    }

    #[test]
    fn page_views_are_told_once() {
        let warm = Warm::new([1, 2]);
        let munchkin = |text| MunchkinId::parse(text).unwrap();
        let (one, other) = (munchkin("123-ABC-456"), munchkin("123-ABC-457"));
        warm.viewed(&one, Views { all: 1, both: 1 });
        warm.viewed(&one, Views { all: 1, both: 0 });
        assert_eq!((warm.take_views(&other), warm.take_views(&one)), (None, Some(Views { all: 2, both: 1 })));
        assert_eq!(warm.take_views(&one), None);
    }

    #[test]
    fn a_pairs_number_depends_on_all_of_it_and_on_the_key() {
        let munchkin = |text| MunchkinId::parse(text).unwrap();
        let token = |n: u32| Token::parse(&format!("_mch-example.com-1700000000000-{n}")).unwrap();
        let ecid = |n| Ecid::from_number(n).unwrap();
        let numbers = [
            Warm::new([1, 2]).pair(&munchkin("123-ABC-456"), ecid(1), &token(1)),
            Warm::new([1, 3]).pair(&munchkin("123-ABC-456"), ecid(1), &token(1)),
            Warm::new([1, 2]).pair(&munchkin("123-ABC-457"), ecid(1), &token(1)),
            Warm::new([1, 2]).pair(&munchkin("123-ABC-456"), ecid(2), &token(1)),
            Warm::new([1, 2]).pair(&munchkin("123-ABC-456"), ecid(1), &token(2)),
        ];
        let different: std::collections::BTreeSet<u64> = numbers.into_iter().collect();
        assert_eq!(different.len(), numbers.len());
        assert_eq!(numbers[0], Warm::new([1, 2]).pair(&munchkin("123-ABC-456"), ecid(1), &token(1)));
    }
}
