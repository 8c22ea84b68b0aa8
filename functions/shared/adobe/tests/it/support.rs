//! What is outside of the client: an Adobe that answers as a test says, and a secret that changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use ports::{
    Clock, Credentials, Expect, Http, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError, PortResult, Ports,
    Queue, Queues, Random, Read, Secrets, Table, Tables, Vendor,
};
use state::{Deps, Settings};

pub const START: u64 = 1_795_132_800_000;

type Answer = dyn FnMut(u64, &Request<Vec<u8>>) -> Response<Vec<u8>> + Send;

pub struct Outside {
    answer: Mutex<Box<Answer>>,
    /// The addresses that were called.
    pub asked: Mutex<Vec<String>>,
    pub now: AtomicU64,
    /// The secret that is kept for us. The double takes `sample-secret`.
    pub secret: Mutex<&'static str>,
    pub secrets_read: AtomicU64,
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
        let mut asked = self.asked.lock().expect("no panic");
        asked.push(request.uri().to_string());
        Ok(self.answer.lock().expect("no panic")(self.now_ms(), &request))
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

/// A client in this sandbox, and an Adobe that answers so.
pub fn world(
    sandbox: &str,
    answer: impl FnMut(u64, &Request<Vec<u8>>) -> Response<Vec<u8>> + Send + 'static,
) -> (Deps, Arc<Outside>) {
    let outside = Arc::new(Outside {
        answer: Mutex::new(Box::new(answer)),
        asked: Mutex::default(),
        now: AtomicU64::new(START),
        secret: Mutex::new("sample-secret"),
        secrets_read: AtomicU64::new(0),
    });
    let settings = Settings {
        time_scale: 1.0,
        quota_share: 0.5,
        quota_per_day: 50_000,
        match_lifetime_ms: 396 * 86_400_000,
        marketo_url: String::new(),
        ims_url: "http://adobe.test".into(),
        aam_url: "http://adobe.test".into(),
        aep_url: "http://platform.test".into(),
        aep_folders_url: "http://folders.test/".into(),
        aep_sandbox: sandbox.into(),
        adobe_scopes: "openid".into(),
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
    (Deps::new(ports, settings), outside)
}
