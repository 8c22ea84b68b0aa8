//! The world around a handler: tables and a bucket in memory, a clock that stands still but for sleeps, and an answer to
//! every call, which is what is fuzzed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use ports::{
    Clock, Credentials, Expect, Http, Item, Key, NoBus, ObjectInfo, Objects, Outgoing, Page, PortError, PortResult,
    Ports, Queue, Queues, Random, Read, Secrets, Table, Tables, Vendor,
};
use state::{Deps, Settings};

/// 2026-11-20T00:00:00Z, in ms.
pub(crate) const NOW: u64 = 1_795_132_800_000;
/// Time that an invocation has, in ms.
pub(crate) const LIFE: u64 = 120_000;
/// Calls after which whoever makes them would never end. More than the rate allows within [`LIFE`].
const CALLS: u64 = 5_000;

/// What is answered to a call.
pub(crate) type Answer = Box<dyn Fn(&Request<Vec<u8>>) -> Option<Response<Vec<u8>>> + Send + Sync>;

pub(crate) struct Outside {
    items: Mutex<BTreeMap<(Table, Key), Item>>,
    objects: Mutex<BTreeMap<String, Bytes>>,
    sent: Mutex<Vec<(Queue, Outgoing)>>,
    answer: Answer,
    calls: AtomicU64,
    now: AtomicU64,
    random: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outside {
    /// An empty world whose calls are answered so; `None`: the connection is dropped.
    pub(crate) fn new(answer: Answer) -> (Deps, Arc<Self>) {
        let outside = Arc::new(Self {
            items: Mutex::default(),
            objects: Mutex::default(),
            sent: Mutex::default(),
            answer,
            calls: AtomicU64::new(0),
            now: AtomicU64::new(NOW),
            random: AtomicU64::new(0),
        });
        let url = |name: &str| format!("https://{name}.test");
        let settings = Settings {
            time_scale: 1.0,
            quota_share: 0.5,
            quota_per_day: 50_000,
            match_lifetime_ms: 396 * 86_400_000,
            marketo_url: url("marketo"),
            ims_url: url("ims"),
            aam_url: url("aam"),
            aep_url: url("aep"),
            aep_folders_url: url("folders"),
            aep_sandbox: "prod".to_owned(),
            adobe_scopes: String::new(),
            pass_above: 100,
            slice_records: 1_000,
            entries_at_once: 1_000,
            run_above: 1_000,
            fold_after_ms: 8 * 86_400_000,
        };
        let ports = Ports {
            tables: outside.clone(),
            objects: outside.clone(),
            queues: outside.clone(),
            http: outside.clone(),
            bus: Arc::new(NoBus),
            secrets: outside.clone(),
            clock: outside.clone(),
            random: outside.clone(),
        };
        (Deps::new(ports, settings), outside)
    }

    /// Calls that were made.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What was put into queues.
    pub(crate) fn sent(&self) -> Vec<(Queue, Outgoing)> {
        lock(&self.sent).clone()
    }
}

/// Runs work over these ports: nothing in them waits.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(ended) = work.as_mut().poll(&mut context) {
            return ended;
        }
    }
    panic!("it waits for something that never comes");
}

#[async_trait]
impl Tables for Outside {
    async fn get(&self, table: Table, key: &Key, _: Read) -> PortResult<Option<Item>> {
        Ok(lock(&self.items).get(&(table, key.clone())).cloned())
    }

    async fn batch_get(&self, table: Table, keys: &[Key], _: Read) -> PortResult<Vec<Item>> {
        let items = lock(&self.items);
        let keys: std::collections::BTreeSet<&Key> = keys.iter().collect();
        Ok(keys.into_iter().filter_map(|key| items.get(&(table, key.clone())).cloned()).collect())
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        let mut items = lock(&self.items);
        let key = (table, item.key.clone());
        let holds = holds(items.get(&key), expect);
        if holds {
            items.insert(key, item);
        }
        Ok(holds)
    }

    async fn put_all(&self, table: Table, all: Vec<Item>) -> PortResult<()> {
        lock(&self.items).extend(all.into_iter().map(|item| ((table, item.key.clone()), item)));
        Ok(())
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        let mut items = lock(&self.items);
        let key = (table, key.clone());
        let holds = holds(items.get(&key), expect);
        if holds {
            items.remove(&key);
        }
        Ok(holds)
    }

    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        _: Read,
    ) -> PortResult<Page> {
        let items = lock(&self.items);
        let fits = |(of, key): &(Table, Key)| {
            *of == table && key.pk == pk && key.sk.starts_with(prefix) && after.is_none_or(|after| *key.sk > *after)
        };
        let mut found: Vec<Item> =
            items.iter().filter(|(key, _)| fits(key)).take(limit + 1).map(|(_, item)| item.clone()).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|item| item.key.sk.clone());
        Ok(Page { items: found, next })
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        let items = lock(&self.items);
        let due = |item: &Item| item.due.as_ref().is_some_and(|due| due.pk == due_pk && due.at <= until);
        let mut found: Vec<Item> =
            items.iter().filter(|((of, _), item)| *of == table && due(item)).map(|(_, item)| item.clone()).collect();
        found.sort_by_key(|item| item.due.as_ref().map(|due| due.at));
        found.truncate(limit);
        Ok(found)
    }
}

fn holds(found: Option<&Item>, expect: Expect) -> bool {
    match expect {
        Expect::Anything => true,
        Expect::Absent => found.is_none(),
        Expect::Rev(rev) => found.is_some_and(|item| item.rev == rev),
    }
}

#[async_trait]
impl Objects for Outside {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        Ok(lock(&self.objects).get(key).cloned())
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        let place = |n: u64, most: usize| usize::try_from(n).unwrap_or(usize::MAX).min(most);
        let piece = |body: &Bytes| {
            let from = place(from, body.len());
            body.slice(from..from + place(len, body.len() - from))
        };
        Ok(lock(&self.objects).get(key).map(piece))
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        lock(&self.objects).insert(key.to_owned(), body);
        Ok(())
    }

    async fn list(&self, _: &str, _: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        Ok(Vec::new())
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        lock(&self.objects).remove(key);
        Ok(())
    }
}

#[async_trait]
impl Queues for Outside {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        lock(&self.sent).extend(messages.into_iter().map(|message| (queue, message)));
        Ok(())
    }
}

#[async_trait]
impl Http for Outside {
    async fn send(&self, request: Request<Vec<u8>>, _: u64) -> PortResult<Response<Vec<u8>>> {
        assert!(self.calls.fetch_add(1, Ordering::Relaxed) < CALLS, "it calls without end");
        let dropped = || PortError::Unknown { service: "vendor", reason: "no answer".to_owned() };
        (self.answer)(&request).ok_or_else(dropped)
    }
}

#[async_trait]
impl Secrets for Outside {
    async fn read(&self, _: Vendor) -> PortResult<Credentials> {
        Ok(Credentials::new("client", "secret"))
    }
}

#[async_trait]
impl Clock for Outside {
    fn now_ms(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Random for Outside {
    fn next_u64(&self) -> u64 {
        self.random.fetch_add(1, Ordering::Relaxed)
    }
}
