//! One table in memory, Marketo's double behind HTTP, and a script for what the double does not say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use domain::MunchkinId;
use doubles::marketo::{Marketo as Double, Settings as DoubleSettings};
use futures::executor::block_on;
use marketo::{Marketo, Slot};
use ports::{
    Clock, Credentials, Expect, Http, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError, PortResult, Ports,
    Queue, Queues, Random, Read, Secrets, Table, Tables, Vendor,
};
use state::budget::Purpose;
use state::{Deps, Settings};
use world::types::{Lead, List, MarketoData};

pub const MUNCHKIN: &str = "123-ABC-456";
/// 2026-11-20T00:00:00Z.
pub const START: u64 = 1_795_132_800_000;
/// A list with the members 1 and 2, of five leads.
pub const LIST: u64 = 1001;
/// Time that the invocation of a test has, in ms.
pub const LIFE: u64 = 120_000;

/// What is said in place of the double.
#[derive(Debug, Clone)]
pub enum Said {
    Answer(u16, String),
    Dropped,
}

/// A request as it left.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: String,
    pub uri: String,
    pub authorization: String,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn asks_for_token(&self) -> bool {
        self.uri.contains("/identity/oauth/token")
    }
}

pub struct Outside {
    items: Mutex<BTreeMap<(Table, Key), Item>>,
    double: Mutex<Double>,
    /// Answers to the next calls, one each.
    pub script: Mutex<VecDeque<Said>>,
    /// The answer to every call.
    pub always: Mutex<Option<Said>>,
    /// Remaining lives of the next access tokens, in seconds.
    pub lives: Mutex<VecDeque<u64>>,
    sent: Mutex<Vec<Sent>>,
    /// The secret that is kept for us. The double takes `sample-secret`.
    secret: Mutex<String>,
    /// How often it was read.
    secrets_read: AtomicU64,
    now: AtomicU64,
    /// Identity takes this long, in ms.
    pub identity_takes: AtomicU64,
    random: AtomicU64,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

fn not_here<T>() -> PortResult<T> {
    Err(PortError::Refused { service: "test", reason: "the client has no business here".into() })
}

#[async_trait]
impl Tables for Outside {
    async fn get(&self, table: Table, key: &Key, _: Read) -> PortResult<Option<Item>> {
        Ok(lock(&self.items).get(&(table, key.clone())).cloned())
    }
    async fn batch_get(&self, _: Table, _: &[Key], _: Read) -> PortResult<Vec<Item>> {
        not_here()
    }
    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        let mut items = lock(&self.items);
        let found = items.get(&(table, item.key.clone())).map(|item| item.rev);
        let holds = match expect {
            Expect::Anything => true,
            Expect::Absent => found.is_none(),
            Expect::Rev(rev) => found == Some(rev),
        };
        if holds {
            items.insert((table, item.key.clone()), item);
        }
        Ok(holds)
    }
    async fn put_all(&self, _: Table, _: Vec<Item>) -> PortResult<()> {
        not_here()
    }
    async fn delete(&self, _: Table, _: &Key, _: Expect) -> PortResult<bool> {
        not_here()
    }
    async fn query(&self, _: Table, _: &str, _: &str, _: Option<&str>, _: usize, _: Read) -> PortResult<Page> {
        not_here()
    }
    async fn due(&self, _: Table, _: &str, _: u64, _: usize) -> PortResult<Vec<Item>> {
        not_here()
    }
}

#[async_trait]
impl Objects for Outside {
    async fn get(&self, _: &str) -> PortResult<Option<Bytes>> {
        not_here()
    }
    async fn get_range(&self, _: &str, _: u64, _: u64) -> PortResult<Option<Bytes>> {
        not_here()
    }
    async fn put(&self, _: &str, _: Bytes) -> PortResult<()> {
        not_here()
    }
    async fn list(&self, _: &str, _: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        not_here()
    }
    async fn delete(&self, _: &str) -> PortResult<()> {
        not_here()
    }
}

#[async_trait]
impl Queues for Outside {
    async fn send(&self, _: Queue, _: Vec<Outgoing>) -> PortResult<()> {
        not_here()
    }
}

fn response(status: u16, body: &str) -> http::Response<Vec<u8>> {
    http::Response::builder().status(status).body(body.as_bytes().to_vec()).expect("a response")
}

#[async_trait]
impl Http for Outside {
    async fn send(&self, request: http::Request<Vec<u8>>, _: u64) -> PortResult<http::Response<Vec<u8>>> {
        // Calls that are under way together meet here.
        let mut waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
        let sent = Sent {
            method: request.method().to_string(),
            uri: request.uri().to_string(),
            authorization: header("authorization").unwrap_or_default(),
            body: request.body().clone(),
        };
        let identity = sent.asks_for_token();
        lock(&self.sent).push(sent);
        let said = if identity {
            self.now.fetch_add(self.identity_takes.load(Ordering::Relaxed), Ordering::Relaxed);
            let life = lock(&self.lives).pop_front();
            life.map(|life| Said::Answer(200, format!(r#"{{"access_token":"scripted","expires_in":{life}}}"#)))
        } else {
            lock(&self.script).pop_front().or_else(|| lock(&self.always).clone())
        };
        let dropped = || PortError::Unknown { service: "marketo", reason: "no answer".into() };
        match said {
            Some(Said::Answer(status, body)) => Ok(response(status, &body)),
            Some(Said::Dropped) => Err(dropped()),
            None => lock(&self.double).handle(self.now_ms(), &request).response.ok_or_else(dropped),
        }
    }
}

#[async_trait]
impl Secrets for Outside {
    async fn read(&self, _: Vendor) -> PortResult<Credentials> {
        self.secrets_read.fetch_add(1, Ordering::Relaxed);
        Ok(Credentials::new("sample-client", lock(&self.secret).clone()))
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

pub struct World {
    pub deps: Deps,
    pub outside: Arc<Outside>,
    munchkin: MunchkinId,
}

impl World {
    pub fn new() -> Self {
        let lead = |id| Lead { id, email: Some(format!("{id}@example.com")), cookies: Vec::new(), ecids: Vec::new() };
        let list = List { id: LIST, name: "VIP".to_owned(), members: BTreeSet::from([1, 2]) };
        let data = MarketoData {
            munchkin_id: MUNCHKIN.to_owned(),
            org_id: None,
            hipaa_ready: false,
            cookie_sync: true,
            leads: (1..=5).map(lead).collect(),
            lists: vec![list],
        };
        let outside = Arc::new(Outside {
            items: Mutex::default(),
            double: Mutex::new(Double::new(DoubleSettings::default(), data, START)),
            script: Mutex::default(),
            always: Mutex::default(),
            lives: Mutex::default(),
            sent: Mutex::default(),
            secret: Mutex::new("sample-secret".to_owned()),
            secrets_read: AtomicU64::new(0),
            now: AtomicU64::new(START),
            identity_takes: AtomicU64::new(0),
            random: AtomicU64::new(0),
        });
        let settings = Settings {
            time_scale: 1.0,
            quota_share: 0.5,
            quota_per_day: 50_000,
            match_lifetime_ms: 396 * 86_400_000,
            marketo_url: "http://marketo.test".into(),
            ims_url: String::new(),
            aam_url: String::new(),
            aep_url: String::new(),
            aep_folders_url: String::new(),
            aep_sandbox: String::new(),
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
            bus: Arc::new(ports::NoBus),
            secrets: outside.clone(),
            clock: outside.clone(),
            random: outside.clone(),
        };
        let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
        Self { deps: Deps::new(ports, settings), outside, munchkin }
    }

    /// A client of an invocation that has just begun.
    pub fn client(&self) -> Marketo<'_> {
        self.client_until(self.now() + LIFE)
    }

    pub fn client_until(&self, deadline: u64) -> Marketo<'_> {
        Marketo::new(&self.deps, &self.munchkin, deadline, Purpose::Poll)
    }

    /// A client of the control plane, which may make one call at a time.
    pub fn control_until(&self, deadline: u64) -> Marketo<'_> {
        Marketo::new(&self.deps, &self.munchkin, deadline, Purpose::Control)
    }

    pub fn slot(&self) -> Slot {
        block_on(self.client().slot()).expect("a slot")
    }

    pub fn double(&self) -> MutexGuard<'_, Double> {
        lock(&self.outside.double)
    }

    pub fn now(&self) -> u64 {
        self.outside.now_ms()
    }

    pub fn pass(&self, ms: u64) {
        self.outside.now.fetch_add(ms, Ordering::Relaxed);
    }

    /// What is kept for us as Marketo's secret from now on.
    pub fn keep_secret(&self, secret: &str) {
        *lock(&self.outside.secret) = secret.to_owned();
    }

    /// How often it was read.
    pub fn secrets_read(&self) -> u64 {
        self.outside.secrets_read.load(Ordering::Relaxed)
    }

    pub fn say(&self, status: u16, body: &str) {
        lock(&self.outside.script).push_back(Said::Answer(status, body.to_owned()));
    }

    /// Every request since the last time.
    pub fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut lock(&self.outside.sent))
    }

    /// Requests since the last time: those for a token, and the others.
    pub fn counted(&self) -> (usize, usize) {
        let (identity, others): (Vec<Sent>, Vec<Sent>) = self.sent().into_iter().partition(Sent::asks_for_token);
        (identity.len(), others.len())
    }
}
