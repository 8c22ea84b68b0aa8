//! The same in-memory ports with the time that each call takes, and many calls under way at once, on a virtual clock:
//! for measurements of rates and of freshness.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use doubles::marketo::Marketo;
use ports::{
    Announcement, Bus, Clock, Credentials, Expect, Http, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError,
    PortResult, Ports, Queue, Queues, Random, Read, Secrets, StreamSecrets, Table, Tables, Vendor,
};
use rand::Rng as _;

use crate::fakes::{Sim, is_adobes};

/// What is told of each call that reached Marketo: the request, the time in ms, and Marketo after it.
pub type Watch = Arc<dyn Fn(&http::Request<Vec<u8>>, u64, &Marketo) + Send + Sync>;

/// Least and greatest time of a call, in ms. Ours, as seen within one region; what Marketo takes is the double's.
const TABLES: (u64, u64) = (3, 8);
const OBJECTS: (u64, u64) = (15, 40);
const QUEUES: (u64, u64) = (5, 15);
const NETWORK: (u64, u64) = (15, 35);
/// Items of a page that a table reads in a millisecond.
const ITEMS_PER_MS: u64 = 25;

/// Ports over a simulated world that take their time.
#[derive(Clone)]
pub struct Timed {
    /// The world.
    pub sim: Sim,
    timers: Arc<Mutex<Timers>>,
    watch: Watch,
}

#[derive(Default)]
struct Timers {
    due: BinaryHeap<Reverse<(u64, u64)>>,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
    stopped: bool,
    /// Raised whenever there may be something for whoever polls a queue.
    news: u64,
    listening: Vec<Waker>,
}

impl std::fmt::Debug for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Timed(..)")
    }
}

impl Timed {
    /// Ports over a world whose clock they turn from now on.
    #[must_use]
    pub fn new(sim: Sim, watch: Watch) -> Self {
        sim.lock().port_ms = 0;
        Self { sim, timers: Arc::default(), watch }
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> Ports {
        let ports = Arc::new(self.clone());
        Ports {
            tables: ports.clone(),
            objects: ports.clone(),
            queues: ports.clone(),
            http: ports.clone(),
            bus: ports.clone(),
            secrets: ports.clone(),
            clock: ports.clone(),
            random: ports,
        }
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, (least, most): (u64, u64)) {
        let ms = self.sim.lock().rng.random_range(least..=most);
        self.sleep_ms(ms).await;
    }

    /// The time of one request to a table that answers with so many items, for ports that stand before these.
    pub async fn table_request(&self, items: usize) {
        self.take(TABLES).await;
        // A page of 1,000 small items is a third of a megabyte. Ours: DynamoDB documents no such time.
        self.sleep_ms(items as u64 / ITEMS_PER_MS).await;
    }

    /// How much has happened in the queues.
    #[must_use]
    pub fn news(&self) -> u64 {
        self.timers().news
    }

    /// Tells whoever polls a queue that there may be something.
    pub fn tell(&self) {
        let listening = {
            let mut timers = self.timers();
            timers.news += 1;
            std::mem::take(&mut timers.listening)
        };
        listening.into_iter().for_each(Waker::wake);
    }

    /// Waits until more has happened in the queues than `seen`.
    pub async fn wait_for_news(&self, seen: u64) {
        poll_fn(|context| {
            let mut timers = self.timers();
            if timers.news > seen {
                return Poll::Ready(());
            }
            timers.listening.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends [`Timed::run`] as soon as nothing moves at this moment.
    pub fn stop(&self) {
        self.timers().stopped = true;
    }

    /// Runs work side by side until a moment (ms), until it is stopped, or until none of it waits for anything.
    pub fn run(&self, work: Vec<Pin<Box<dyn Future<Output = ()>>>>, until: u64) {
        let mut tasks: Vec<Task> = work.into_iter().map(Task::new).collect();
        loop {
            let mut moved = false;
            for task in &mut tasks {
                moved |= task.poll();
            }
            tasks.retain(|task| !task.ended);
            if moved {
                continue;
            }
            if self.timers().stopped {
                return;
            }
            let Some(Reverse((at, id))) = self.timers().due.pop() else { return };
            if at > until {
                self.sim.lock().now = until;
                return;
            }
            let mut store = self.sim.lock();
            store.now = store.now.max(at);
            drop(store);
            let waker = self.timers().wakers.remove(&id);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

struct Task {
    work: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    ended: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    fn new(work: Pin<Box<dyn Future<Output = ()>>>) -> Self {
        Self { work, woken: Arc::new(Woken(AtomicBool::new(true))), ended: false }
    }

    fn poll(&mut self) -> bool {
        if !self.woken.0.swap(false, Ordering::Relaxed) {
            return false;
        }
        let waker = Waker::from(self.woken.clone());
        self.ended = self.work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        true
    }
}

struct Sleep {
    timed: Timed,
    until: u64,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timed.sim.lock().now >= self.until {
            return Poll::Ready(());
        }
        let timed = self.timed.clone();
        let mut timers = timed.timers();
        let id = match self.id {
            Some(id) => id,
            None => {
                timers.next += 1;
                let id = timers.next;
                timers.due.push(Reverse((self.until, id)));
                self.id = Some(id);
                id
            }
        };
        timers.wakers.insert(id, context.waker().clone());
        Poll::Pending
    }
}

#[async_trait]
impl Clock for Timed {
    fn now_ms(&self) -> u64 {
        self.sim.lock().now
    }

    async fn sleep_ms(&self, ms: u64) {
        let until = self.sim.lock().now + ms;
        Sleep { timed: self.clone(), until, id: None }.await;
    }
}

impl Random for Timed {
    fn next_u64(&self) -> u64 {
        Random::next_u64(&self.sim)
    }
}

#[async_trait]
impl Secrets for Timed {
    async fn read(&self, vendor: Vendor) -> PortResult<Credentials> {
        self.sim.read(vendor).await
    }

    async fn streams(&self) -> PortResult<StreamSecrets> {
        self.sim.streams().await
    }
}

#[async_trait]
impl Http for Timed {
    async fn send(&self, request: http::Request<Vec<u8>>, timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>> {
        let unknown = || PortError::Unknown { service: "HTTP", reason: "no answer".into() };
        self.take(NETWORK).await;
        let reply = {
            let mut store = self.sim.lock();
            let now = store.now;
            if is_adobes(request.uri().path()) {
                return Ok(store.adobe.handle(now, &request));
            }
            let reply = store.marketo.handle(now, &request);
            (self.watch)(&request, now, &store.marketo);
            reply
        };
        self.sleep_ms(reply.latency_ms.min(timeout_ms)).await;
        self.take(NETWORK).await;
        if reply.latency_ms > timeout_ms {
            return Err(unknown());
        }
        reply.response.ok_or_else(unknown)
    }
}

#[async_trait]
impl Tables for Timed {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        self.take(TABLES).await;
        Tables::get(&self.sim, table, key, read).await
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        self.take(TABLES).await;
        self.sim.batch_get(table, keys, read).await
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        self.take(TABLES).await;
        Tables::put(&self.sim, table, item, expect).await
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        self.take(TABLES).await;
        self.sim.put_all(table, items).await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        self.take(TABLES).await;
        Tables::delete(&self.sim, table, key, expect).await
    }

    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        read: Read,
    ) -> PortResult<Page> {
        self.take(TABLES).await;
        self.sim.query(table, pk, prefix, after, limit, read).await
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.take(TABLES).await;
        self.sim.due(table, due_pk, until, limit).await
    }
}

#[async_trait]
impl Objects for Timed {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.take(OBJECTS).await;
        Objects::get(&self.sim, key).await
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.take(OBJECTS).await;
        self.sim.get_range(key, from, len).await
    }

    async fn get_range_of(&self, key: &str, etag: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.take(OBJECTS).await;
        self.sim.get_range_of(key, etag, from, len).await
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        self.take(OBJECTS).await;
        Objects::put(&self.sim, key, body).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        self.take(OBJECTS).await;
        self.sim.list(prefix, after).await
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        self.take(OBJECTS).await;
        Objects::delete(&self.sim, key).await
    }

    async fn begin_parts(&self, key: &str) -> PortResult<String> {
        self.take(OBJECTS).await;
        self.sim.begin_parts(key).await
    }

    async fn put_part(&self, key: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        self.take(OBJECTS).await;
        self.sim.put_part(key, upload, number, body).await
    }

    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        self.take(OBJECTS).await;
        self.sim.end_parts(key, upload, tags).await
    }

    async fn sign(&self, key: &str, seconds: u64, filename: &str) -> PortResult<String> {
        self.sim.sign(key, seconds, filename).await
    }
}

#[async_trait]
impl Queues for Timed {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        self.take(QUEUES).await;
        let sent = Queues::send(&self.sim, queue, messages).await;
        self.tell();
        sent
    }

    async fn dead_letters(&self) -> PortResult<BTreeMap<String, u64>> {
        self.take(QUEUES).await;
        Queues::dead_letters(&self.sim).await
    }
}

#[async_trait]
impl Bus for Timed {
    async fn announce(&self, announcements: Vec<Announcement>) -> PortResult<()> {
        self.take(QUEUES).await;
        self.sim.announce(announcements).await
    }
}
