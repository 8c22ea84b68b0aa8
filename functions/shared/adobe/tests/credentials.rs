//! Adobe's double behind HTTP, and a secret that changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use doubles::adobe::{Adobe, Settings as DoubleSettings};
use futures::executor::block_on;
use ports::{
    Clock, Credentials, Expect, Failure, Http, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError, PortResult,
    Ports, Queue, Queues, Random, Read, Secrets, Table, Tables, Vendor,
};
use state::{Deps, Settings};
use world::types::Library;

struct Outside {
    double: Mutex<Adobe>,
    now: AtomicU64,
    /// The secret that is kept for us. The double takes `sample-secret`.
    secret: Mutex<&'static str>,
    secrets_read: AtomicU64,
    /// Status with which the double's 401 is told.
    refusal: u16,
}

fn not_here<T>() -> PortResult<T> {
    Err(PortError::Refused { service: "test", reason: "the client has no business here".into() })
}

#[async_trait]
impl Tables for Outside {
    async fn get(&self, _: Table, _: &Key, _: Read) -> PortResult<Option<Item>> {
        not_here()
    }
    async fn batch_get(&self, _: Table, _: &[Key], _: Read) -> PortResult<Vec<Item>> {
        not_here()
    }
    async fn put(&self, _: Table, _: Item, _: Expect) -> PortResult<bool> {
        not_here()
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

#[async_trait]
impl Http for Outside {
    async fn send(&self, request: http::Request<Vec<u8>>, _: u64) -> PortResult<http::Response<Vec<u8>>> {
        let mut response = self.double.lock().expect("no panic").handle(self.now_ms(), &request);
        if response.status() == 401 {
            *response.status_mut() = self.refusal.try_into().expect("a status");
        }
        Ok(response)
    }
}

#[async_trait]
impl Secrets for Outside {
    async fn read(&self, vendor: Vendor) -> PortResult<Credentials> {
        assert_eq!(vendor, Vendor::Adobe);
        self.secrets_read.fetch_add(1, Ordering::Relaxed);
        Ok(Credentials::new("sample-client", *self.secret.lock().expect("no panic")))
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
        0
    }
}

fn world(secret: &'static str, refusal: u16) -> (Deps, Arc<Outside>) {
    let library = Library::default();
    let start = 1_795_132_800_000;
    let outside = Arc::new(Outside {
        double: Mutex::new(Adobe::new(DoubleSettings::default(), library, start)),
        now: AtomicU64::new(start),
        secret: Mutex::new(secret),
        secrets_read: AtomicU64::new(0),
        refusal,
    });
    let settings = Settings {
        time_scale: 1.0,
        quota_share: 0.5,
        quota_per_day: 50_000,
        match_lifetime_ms: 396 * 86_400_000,
        marketo_url: String::new(),
        ims_url: "http://adobe.test".into(),
        aam_url: "http://adobe.test".into(),
        aep_url: "http://adobe.test".into(),
        aep_folders_url: "http://adobe.test".into(),
        aep_sandbox: String::new(),
        adobe_scopes: "openid".into(),
        pass_above: 100,
        slice_records: 1_000,
    };
    let ports = Ports {
        tables: outside.clone(),
        objects: outside.clone(),
        queues: outside.clone(),
        http: outside.clone(),
        secrets: outside.clone(),
        clock: outside.clone(),
        random: outside.clone(),
    };
    (Deps::new(ports, settings), outside)
}

#[test]
fn a_secret_that_was_rotated_is_read_again_at_once() {
    // Adobe may say `invalid_client` with either status.
    for refusal in [401, 400] {
        let (deps, outside) = world("old", refusal);
        block_on(deps.credentials(Vendor::Adobe)).expect("read at the start");
        *outside.secret.lock().expect("no panic") = "sample-secret";
        assert_eq!(block_on(adobe::segments(&deps)).expect("segments"), []);
        assert_eq!(outside.secrets_read.load(Ordering::Relaxed), 2);
        let shown = format!("{deps:?}");
        assert!(!shown.contains("sample-secret") && !shown.contains("eyJ"), "a secret in debug output");
    }
}

#[test]
fn a_secret_that_stays_refused_is_read_again_once_a_minute() {
    let (deps, outside) = world("wrong", 401);
    for _ in 0..2 {
        let failure = block_on(adobe::segments(&deps)).expect_err("no token");
        assert!(matches!(failure, Failure::Outage { .. }), "{failure}");
        assert!(!format!("{failure:?}").contains("wrong"));
        assert_eq!(outside.secrets_read.load(Ordering::Relaxed), 2);
    }
    *outside.secret.lock().expect("no panic") = "sample-secret";
    outside.now.fetch_add(60_000, Ordering::Relaxed);
    assert_eq!(block_on(adobe::segments(&deps)).expect("segments"), []);
    assert_eq!(outside.secrets_read.load(Ordering::Relaxed), 3);
}
