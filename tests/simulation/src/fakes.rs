//! In-memory ports on a virtual clock. Every call first yields once, so that the driver may stop a handler at any
//! await; then it may fail, or take effect without telling.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use doubles::adobe::Adobe;
use doubles::marketo::Marketo;
use ports::{
    Announcement, Bus, Clock, Credentials, Expect, Http, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError,
    PortResult, Ports, Queue, Queues, Random, Read, Secrets, StreamSecrets, Table, Tables, Vendor,
};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::driver::VISIBILITY_MS;
use crate::kinds::{Counts, Kind};

/// Runs work over these ports to its end: every call yields once and is ready at the next poll.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let Poll::Ready(ended) = work.as_mut().poll(&mut context) {
            return ended;
        }
    }
}

/// How often things go wrong, each a chance per call.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// A port call fails without effect.
    pub unavailable: f64,
    /// A port call takes effect (or not) and nobody is told.
    pub unknown: f64,
    /// A call to Marketo that changes something is answered by silence; its effect may land late.
    pub marketo_silence: f64,
    /// A handler is dropped at an await.
    pub kill: f64,
    /// A message is delivered again although it was acknowledged.
    pub redeliver: f64,
    /// A message is delivered later than it could be.
    pub delay: f64,
    /// A handler does not move for a while, at an await.
    pub freeze: f64,
    /// A message that is handed out goes to the dead-letter queue instead, and is put back later.
    pub dead_letter: f64,
    /// A message bears a field that nobody knows.
    pub other_version: f64,
    /// A message lacks the fields that an older version did not know.
    pub older_version: f64,
    /// An object's body ends before its length.
    pub truncated: f64,
    /// An invocation is served by a process that has served one before.
    pub warm: f64,
    /// A process whose clock is fast or slow by up to two seconds.
    pub skew: f64,
    /// An eventually consistent read sees what stood there up to two seconds ago.
    pub stale: f64,
    /// The minute's tick comes late.
    pub late_tick: f64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        unavailable: 0.0,
        unknown: 0.0,
        marketo_silence: 0.0,
        kill: 0.0,
        redeliver: 0.0,
        delay: 0.0,
        freeze: 0.0,
        dead_letter: 0.0,
        other_version: 0.0,
        older_version: 0.0,
        truncated: 0.0,
        warm: 0.0,
        skew: 0.0,
        stale: 0.0,
        late_tick: 0.0,
    };
}

/// A message in a queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// Order of arrival.
    pub id: u64,
    /// Its queue.
    pub queue: Queue,
    /// Its body.
    pub body: String,
    /// Its group.
    pub group: Option<String>,
    /// Nobody gets it before this time, in ms.
    pub visible_at: u64,
    /// How often it was handed out.
    pub received: u32,
}

/// Everything that outlives a process.
#[derive(Debug)]
pub struct Store {
    /// Virtual time, in ms.
    pub now: u64,
    /// The one source of chance.
    pub rng: SmallRng,
    /// What goes wrong at present.
    pub faults: Faults,
    /// Tables.
    pub tables: BTreeMap<(Table, Key), Item>,
    due: BTreeMap<(Table, String, u64, Key), ()>,
    /// What stood there before the latest writes: when it was written over (ms), where, and what it was; the oldest first.
    past: VecDeque<(u64, (Table, Key), Option<Item>)>,
    /// Bucket.
    pub objects: BTreeMap<String, Bytes>,
    /// Parts of objects that are not whole yet, by upload.
    parts: BTreeMap<String, BTreeMap<u16, Bytes>>,
    /// Queues.
    pub messages: Vec<Message>,
    /// Dead letters, and when somebody puts them back, in ms.
    pub dead: Vec<(u64, Message)>,
    /// Everything that was ever sent, in order; nothing of what is sent while calls are watched.
    pub sent: Vec<(Queue, Outgoing)>,
    /// Conditional and other writes to tables that took effect.
    pub writes: u64,
    dedup: HashMap<(Queue, String, String), u64>,
    next_message: u64,
    /// Marketo.
    pub marketo: Marketo,
    /// Adobe.
    pub adobe: Adobe,
    /// Calls to Marketo that land later.
    pub late: Vec<(u64, http::Request<Vec<u8>>)>,
    /// The secrets of streams; `None`: they cannot be read.
    pub streams: Option<StreamSecrets>,
    /// How often those were read.
    pub streams_read: u64,
    /// Everything that was announced on the bus, in order.
    pub announced: Vec<Announcement>,
    /// Bodies that the webhook took, in order, with its path.
    pub hooked: Vec<(String, serde_json::Value)>,
    /// The webhook answers 503.
    pub hook_is_down: bool,
    /// Messages in dead-letter queues, by queue.
    pub dead_letters: BTreeMap<String, u64>,
    /// Port calls so far.
    pub calls: u64,
    /// How often anybody began or ended a call to a port.
    pub moves: u64,
    /// When the first of those who were found asleep since this was forgotten wakes, in ms.
    pub wakes_at: Option<u64>,
    /// Virtual time that a port call takes, in ms; 0 where somebody else turns the clock.
    pub port_ms: u64,
    /// Whoever looks for rings that were lost finds none; what rests is found when its time has come.
    pub sweep_is_off: bool,
    /// Whether what calls to Marketo do is looked at.
    pub watching: bool,
    /// Whom calls took out of which list, since somebody looked.
    pub removed: Vec<(u64, u64)>,
    /// When calls were sent to Marketo within its window, in ms.
    window: VecDeque<u64>,
    /// What must never be, and was.
    pub wrong: Option<String>,
    /// What struck so far.
    pub counts: Counts,
    /// A digest of every call to a port and every message, in their order.
    pub trace: Trace,
}

/// A digest of what happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace(pub u64);

impl Trace {
    /// Takes in what happened.
    pub fn note(&mut self, what: &[u8]) {
        let mut state = self.0;
        for part in what.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            // FNV-1a by words, and turned, so that high bits come down.
            state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        self.0 = (state ^ what.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A handle on the store; it is the ports.
#[derive(Debug, Clone)]
pub struct Sim(Arc<Mutex<Store>>);

/// A message that was handed out so often goes to the dead-letter queue when it would be once more, as the template has it.
const MOST_RECEIVED: u32 = 5;
const DEDUP_MS: u64 = 300_000;
/// Eventually consistent reads see what stood there at most this long ago, in ms: ours; DynamoDB's most often take a second.
const STALE_MS: u64 = 2_000;

impl Sim {
    /// An empty world at a moment.
    #[must_use]
    pub fn new(seed: u64, now: u64, marketo: Marketo, adobe: Adobe) -> Self {
        Self(Arc::new(Mutex::new(Store {
            now,
            rng: SmallRng::seed_from_u64(seed),
            faults: Faults::NONE,
            tables: BTreeMap::new(),
            due: BTreeMap::new(),
            past: VecDeque::new(),
            objects: BTreeMap::new(),
            parts: BTreeMap::new(),
            messages: Vec::new(),
            dead: Vec::new(),
            sent: Vec::new(),
            writes: 0,
            dedup: HashMap::new(),
            next_message: 0,
            marketo,
            adobe,
            late: Vec::new(),
            streams: None,
            streams_read: 0,
            announced: Vec::new(),
            hooked: Vec::new(),
            hook_is_down: false,
            dead_letters: BTreeMap::new(),
            calls: 0,
            moves: 0,
            wakes_at: None,
            port_ms: 2,
            sweep_is_off: false,
            watching: false,
            removed: Vec::new(),
            window: VecDeque::new(),
            wrong: None,
            counts: Counts::default(),
            trace: Trace::default(),
        })))
    }

    /// The store, for looking and for turning the world.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entity tag of an object.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn tag(&self, key: &str) -> String {
        etag(self.lock().objects.get(key).expect("an object"))
    }

    /// The ports over this store.
    #[must_use]
    pub fn ports(&self) -> Ports {
        let sim = Arc::new(self.clone());
        Ports {
            tables: sim.clone(),
            objects: sim.clone(),
            queues: sim.clone(),
            http: sim.clone(),
            bus: sim.clone(),
            secrets: sim.clone(),
            clock: sim.clone(),
            random: sim,
        }
    }

    /// The ports of a process whose clock is fast by so many ms.
    #[must_use]
    pub fn ports_with_clock(&self, fast_ms: i64) -> Ports {
        let mut ports = self.ports();
        if fast_ms != 0 {
            ports.clock = Arc::new(FastClock { sim: self.clone(), fast_ms });
        }
        ports
    }

    async fn step(&self) {
        let mut yielded = false;
        poll_fn(|context| {
            self.lock().moves += 1;
            if yielded {
                Poll::Ready(())
            } else {
                yielded = true;
                // Several calls of one handler may be under way: each asks to be polled again.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }

    /// Yields, counts, and decides whether this call goes wrong. `what` is concerned.
    async fn enter(&self, service: &'static str, writes: bool, what: &str) -> PortResult<bool> {
        self.step().await;
        let mut store = self.lock();
        store.calls += 1;
        store.now += store.port_ms;
        let now = store.now;
        store.trace.note(&now.to_le_bytes());
        store.trace.note(what.as_bytes());
        let faults = store.faults;
        if store.strikes(faults.unavailable, Kind::Unavailable) {
            return Err(PortError::Unavailable { service, reason: "throttled".into() });
        }
        if store.strikes(faults.unknown, Kind::Unknown) {
            if writes && store.rng.random_bool(0.5) {
                // It takes effect, and the answer is lost.
                return Ok(true);
            }
            return Err(unknown(service));
        }
        Ok(false)
    }

    /// What is read of an object, unless the connection is cut meanwhile: S3 tells a body's length before it, so that the
    /// adapter sees an error (`functions/shared/aws/src/s3.rs`) and never a shorter body.
    fn whole(&self, body: Option<Bytes>) -> PortResult<Option<Bytes>> {
        let mut store = self.lock();
        let chance = store.faults.truncated;
        let cut = body.as_ref().is_some_and(|body| !body.is_empty()) && store.strikes(chance, Kind::Truncated);
        if cut { Err(unknown("S3")) } else { Ok(body) }
    }
}

/// The entity tag of an object: one that another content does not have.
#[must_use]
pub fn etag(body: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn unknown(service: &'static str) -> PortError {
    PortError::Unknown { service, reason: "no answer".into() }
}

impl Store {
    /// Whether something of this chance goes wrong now; it is counted.
    pub fn strikes(&mut self, chance: f64, kind: Kind) -> bool {
        let strikes = chance > 0.0 && self.rng.random_bool(chance);
        if strikes {
            self.counts.count(kind);
        }
        strikes
    }

    fn write(&mut self, table: Table, item: Item) {
        self.writes += 1;
        self.erase(table, &item.key);
        if let Some(due) = &item.due {
            self.due.insert((table, due.pk.clone(), due.at, item.key.clone()), ());
        }
        self.tables.insert((table, item.key.clone()), item);
    }

    fn erase(&mut self, table: Table, key: &Key) {
        let place = (table, key.clone());
        let old = self.tables.remove(&place);
        if let Some(due) = old.as_ref().and_then(|old| old.due.clone()) {
            self.due.remove(&(table, due.pk, due.at, key.clone()));
        }
        if self.faults.stale > 0.0 {
            let now = self.now;
            while self.past.front().is_some_and(|(at, ..)| at + STALE_MS < now) {
                self.past.pop_front();
            }
            self.past.push_back((now, place, old));
        }
    }

    /// An item as a read of this consistency sees it.
    fn seen(&mut self, table: Table, key: &Key, read: Read) -> Option<Item> {
        let place = (table, key.clone());
        let now = self.now;
        if read == Read::Eventual && self.faults.stale > 0.0 {
            let past = self.past.iter().find(|(at, past, _)| at + STALE_MS >= now && *past == place);
            if let Some(past) = past.map(|(_, _, item)| item.clone())
                && self.strikes(self.faults.stale, Kind::Stale)
            {
                return past;
            }
        }
        self.tables.get(&place).cloned()
    }

    fn holds(&self, table: Table, key: &Key, expect: Expect) -> bool {
        let stored = self.tables.get(&(table, key.clone()));
        match expect {
            Expect::Anything => true,
            Expect::Absent => stored.is_none(),
            Expect::Rev(rev) => stored.is_some_and(|item| item.rev == rev),
        }
    }

    /// Puts a message into a queue, as its service would.
    pub fn enqueue(&mut self, queue: Queue, message: Outgoing) {
        if let (Some(group), Some(dedup)) = (&message.group, &message.dedup) {
            let key = (queue, group.clone(), dedup.clone());
            let now = self.now;
            if self.dedup.get(&key).is_some_and(|at| at + DEDUP_MS > now) {
                return;
            }
            self.dedup.insert(key, now);
        }
        if !self.watching {
            self.sent.push((queue, message.clone()));
        }
        self.next_message += 1;
        self.trace.note(message.body.as_bytes());
        let late = if self.strikes(self.faults.delay, Kind::Delay) { self.rng.random_range(0..90_000) } else { 0 };
        let mut body = message.body;
        if let Some(older) = Some(self.faults.older_version).filter(|chance| *chance > 0.0).and_then(|_| older(&body))
            && self.strikes(self.faults.older_version, Kind::OlderVersion)
        {
            body = older;
        }
        if self.strikes(self.faults.other_version, Kind::OtherVersion)
            && let Some(members) = body.strip_prefix('{')
        {
            body = format!(r#"{{"of_a_later_version":[],{members}"#);
        }
        self.messages.push(Message {
            id: self.next_message,
            queue,
            body,
            group: message.group,
            visible_at: self.now + late,
            received: 0,
        });
    }

    /// Messages that may be handed out now, in the order in which they came: of a FIFO group the first one alone, unless it is
    /// hidden, or its group is `busy`.
    pub fn receivable(&self, busy: impl Fn(Queue, &str) -> bool) -> Vec<u64> {
        let mut blocked: Vec<(Queue, &str)> = Vec::new();
        let mut ready = Vec::new();
        for message in &self.messages {
            let visible = message.visible_at <= self.now;
            let Some(group) = &message.group else {
                if visible {
                    ready.push(message.id);
                }
                continue;
            };
            let key = (message.queue, group.as_str());
            if blocked.contains(&key) {
                continue;
            }
            blocked.push(key);
            if visible && !busy(message.queue, group) {
                ready.push(message.id);
            }
        }
        ready
    }

    /// Hands out a message, which is hidden from then on. `None`: there is none, or it was handed out too often, and is dead.
    pub fn hand_out(&mut self, id: u64) -> Option<Message> {
        let now = self.now;
        let message = self.messages.iter_mut().find(|message| message.id == id)?;
        if message.received >= MOST_RECEIVED {
            self.bury(id, u64::MAX);
            return None;
        }
        message.received += 1;
        message.visible_at = now + VISIBILITY_MS;
        Some(message.clone())
    }

    /// A message goes to the dead-letter queue, or is there; somebody puts it back at this time, in ms.
    pub fn bury(&mut self, id: u64, until: u64) {
        if let Some(index) = self.messages.iter().position(|message| message.id == id) {
            self.dead.push((until, self.messages.remove(index)));
        } else if let Some((at, _)) = self.dead.iter_mut().find(|(_, message)| message.id == id) {
            *at = until;
        }
    }

    /// Whoever was to put dead letters back by now has: they come after whatever is in their queue.
    pub fn put_back(&mut self) {
        let now = self.now;
        for (_, message) in self.dead.extract_if(.., |(at, _)| *at <= now) {
            self.messages.push(Message { received: 0, visible_at: now, ..message });
        }
    }

    /// A message was acknowledged.
    pub fn delete_message(&mut self, id: u64) {
        self.messages.retain(|message| message.id != id);
    }

    /// Lets time pass: late calls to Marketo land.
    pub fn advance(&mut self, to: u64) {
        self.now = self.now.max(to);
        let now = self.now;
        let mut landing: Vec<(u64, http::Request<Vec<u8>>)> = Vec::new();
        self.late.retain(|(at, request)| {
            if *at <= now {
                landing.push((*at, request.clone()));
            }
            *at > now
        });
        for (_, request) in landing {
            self.watch(|marketo| marketo.handle(now, &request));
        }
        self.watch(|marketo| marketo.tick(now));
    }

    /// Whatever calls of ours do to the lists meanwhile is noted.
    fn watch<R>(&mut self, act: impl FnOnce(&mut Marketo) -> R) -> R {
        if !self.watching {
            return act(&mut self.marketo);
        }
        let before: Vec<(u64, BTreeSet<u64>)> =
            self.marketo.lists().iter().map(|(id, list)| (*id, list.members.clone())).collect();
        let done = act(&mut self.marketo);
        for (list, before) in before {
            let Some(after) = self.marketo.members(list) else { continue };
            self.removed.extend(before.difference(after).map(|lead| (list, *lead)));
        }
        done
    }

    /// Notes a call to Marketo: no window of 20 s holds more of them than our share (half) of 100.
    fn note_call(&mut self, path: &str) {
        if !self.watching || path.starts_with("/identity/") {
            return;
        }
        let now = self.now;
        while self.window.front().is_some_and(|at| at + 20_000 <= now) {
            self.window.pop_front();
        }
        self.window.push_back(now);
        if self.window.len() > 50 {
            self.wrong = Some(format!("{} calls to Marketo within 20 s, at {now}", self.window.len()));
        }
    }
}

#[async_trait]
impl Tables for Sim {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        self.enter("DynamoDB", false, &key.sk).await?;
        Ok(self.lock().seen(table, key, read))
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        self.enter("DynamoDB", false, "batch").await?;
        let mut store = self.lock();
        let mut keys: Vec<&Key> = keys.iter().collect();
        keys.sort();
        keys.dedup();
        Ok(keys.into_iter().filter_map(|key| store.seen(table, key, read)).collect())
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        let lost = self.enter("DynamoDB", true, &item.key.sk).await?;
        let mut store = self.lock();
        let holds = store.holds(table, &item.key, expect);
        if holds {
            store.write(table, item);
        }
        if lost { Err(unknown("DynamoDB")) } else { Ok(holds) }
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        let lost = self.enter("DynamoDB", true, "all").await?;
        let mut store = self.lock();
        for item in items {
            if lost && store.rng.random_bool(0.5) {
                continue;
            }
            store.write(table, item);
        }
        if lost { Err(unknown("DynamoDB")) } else { Ok(()) }
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        let lost = self.enter("DynamoDB", true, &key.sk).await?;
        let mut store = self.lock();
        let holds = store.holds(table, key, expect);
        if holds {
            store.erase(table, key);
        }
        if lost { Err(unknown("DynamoDB")) } else { Ok(holds) }
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
        self.enter("DynamoDB", false, prefix).await?;
        let mut store = self.lock();
        let from = after.filter(|after| *after >= prefix).map_or_else(
            || Bound::Included((table, Key::new(pk, prefix))),
            |after| Bound::Excluded((table, Key::new(pk, after))),
        );
        let mut items: Vec<Item> = store
            .tables
            .range((from, Bound::Unbounded))
            .take_while(|((found, key), _)| *found == table && key.pk == pk && key.sk.starts_with(prefix))
            .take(limit + 1)
            .map(|(_, item)| item.clone())
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(|item| item.key.sk.clone()) } else { None };
        if read == Read::Eventual && store.faults.stale > 0.0 {
            items = items.iter().filter_map(|item| store.seen(table, &item.key, read)).collect();
        }
        Ok(Page { items, next })
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.enter("DynamoDB", false, due_pk).await?;
        let mut store = self.lock();
        let from = (table, due_pk.to_owned(), 0, Key::new("", ""));
        let keys: Vec<Key> = store
            .due
            .range(from..)
            .take_while(|((found, pk, at, _), ())| *found == table && pk == due_pk && *at <= until)
            .take(limit)
            .map(|((_, _, _, key), ())| key.clone())
            .collect();
        // The index may show an item as it was, as long as that was to be looked at too.
        let mut items: Vec<Item> = keys.iter().filter_map(|key| store.seen(table, key, Read::Eventual)).collect();
        items.retain(|item| item.due.as_ref().is_some_and(|due| due.pk == due_pk && due.at <= until));
        if store.sweep_is_off {
            items.retain(|item| table != Table::Doorbells || !is_lost(item, until));
        }
        Ok(items)
    }
}

/// Whether a doorbell is looked at only because somebody's ring, or the one who took it, was lost.
fn is_lost(item: &Item, now: u64) -> bool {
    let time = |name: &str| item.doc[name].as_u64();
    let comes = |name: &str| time(name).is_some_and(|at| at <= now);
    let rested = time("dirty_since").is_some() && comes("not_before");
    !rested && !comes("wake_at")
}

/// Fields of messages that an older version did not know: each has a default.
const LATER_FIELDS: [&str; 5] = ["public", "views", "ignored", "rejected", "rejects"];

/// A message as an older version would have written it; `None`: just so.
fn older(body: &str) -> Option<String> {
    if !LATER_FIELDS.iter().any(|name| body.contains(name)) {
        return None;
    }
    let serde_json::Value::Object(mut members) = serde_json::from_str(body).ok()? else { return None };
    let now = members.len();
    members.retain(|name, _| !LATER_FIELDS.contains(&name.as_str()));
    (members.len() < now).then(|| serde_json::Value::Object(members).to_string())
}

/// So many bytes from there, or fewer at the end.
fn range(body: &Bytes, from: u64, len: u64) -> Bytes {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(body.len());
    let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)).min(body.len());
    body.slice(from..to)
}

#[async_trait]
impl Objects for Sim {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.enter("S3", false, key).await?;
        let body = self.lock().objects.get(key).cloned();
        self.whole(body)
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.enter("S3", false, key).await?;
        let body = self.lock().objects.get(key).map(|body| range(body, from, len));
        self.whole(body)
    }

    async fn get_range_of(&self, key: &str, tag: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.enter("S3", false, key).await?;
        let body = self.lock().objects.get(key).filter(|body| etag(body) == tag).map(|body| range(body, from, len));
        self.whole(body)
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        let lost = self.enter("S3", true, key).await?;
        self.lock().objects.insert(key.to_owned(), body);
        if lost { Err(unknown("S3")) } else { Ok(()) }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        self.enter("S3", false, prefix).await?;
        let store = self.lock();
        let found = store
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        Ok(found
            .take(1000)
            .map(|(key, body)| ObjectInfo { key: key.clone(), size: body.len() as u64, etag: etag(body) })
            .collect())
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        let lost = self.enter("S3", true, key).await?;
        self.lock().objects.remove(key);
        if lost { Err(unknown("S3")) } else { Ok(()) }
    }

    async fn begin_parts(&self, key: &str) -> PortResult<String> {
        self.enter("S3", false, key).await?;
        let mut store = self.lock();
        let upload = format!("upload-{:016x}", store.rng.random::<u64>());
        store.parts.insert(upload.clone(), BTreeMap::new());
        Ok(upload)
    }

    async fn put_part(&self, key: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        let lost = self.enter("S3", true, key).await?;
        let tag = etag(&body);
        let mut store = self.lock();
        let parts = store.parts.get_mut(upload).ok_or_else(|| no_upload("S3"))?;
        parts.insert(number, body);
        if lost { Err(unknown("S3")) } else { Ok(tag) }
    }

    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        let lost = self.enter("S3", true, key).await?;
        let mut store = self.lock();
        match store.parts.remove(upload) {
            None if store.objects.contains_key(key) => {}
            None => return Err(no_upload("S3")),
            Some(parts) => {
                let found: Vec<(u16, String)> = parts.iter().map(|(number, body)| (*number, etag(body))).collect();
                let named: Vec<(u16, String)> = (1..).zip(tags.iter().cloned()).collect();
                // S3: every part but the last one has 5 MiB or more.
                let small = parts.values().rev().skip(1).any(|body| body.len() < 5 << 20);
                if found != named || small {
                    return Err(PortError::Refused { service: "S3", reason: "parts that do not fit".into() });
                }
                store.objects.insert(key.to_owned(), parts.into_values().collect::<Vec<Bytes>>().concat().into());
            }
        }
        if lost { Err(unknown("S3")) } else { Ok(()) }
    }

    async fn sign(&self, key: &str, seconds: u64, filename: &str) -> PortResult<String> {
        Ok(format!("https://bucket.test/{key}?seconds={seconds}&filename={filename}"))
    }
}

fn no_upload(service: &'static str) -> PortError {
    PortError::Refused { service, reason: "NoSuchUpload".into() }
}

#[async_trait]
impl Queues for Sim {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        let lost = self.enter("SQS", true, "send").await?;
        // A body has at most 256 KiB; a FIFO message has a group and a deduplication id, a standard one neither.
        let fits = |message: &Outgoing| {
            let fifo = (message.group.is_some(), message.dedup.is_some()) == (queue.is_fifo(), queue.is_fifo());
            message.body.len() < 256 * 1024 && fifo
        };
        if !messages.iter().all(fits) {
            return Err(PortError::Refused { service: "SQS", reason: "a message that this queue cannot hold".into() });
        }
        let mut store = self.lock();
        for message in messages {
            if lost && store.rng.random_bool(0.5) {
                continue;
            }
            store.enqueue(queue, message);
        }
        if lost { Err(unknown("SQS")) } else { Ok(()) }
    }

    async fn dead_letters(&self) -> PortResult<BTreeMap<String, u64>> {
        self.enter("SQS", false, "dead letters").await?;
        Ok(self.lock().dead_letters.clone())
    }
}

#[async_trait]
impl Bus for Sim {
    async fn announce(&self, announcements: Vec<Announcement>) -> PortResult<()> {
        let lost = self.enter("EventBridge", true, "announce").await?;
        self.lock().announced.extend(announcements);
        if lost { Err(unknown("EventBridge")) } else { Ok(()) }
    }
}

/// The host of the webhook of somebody who wants to know.
pub const HOOK: &str = "hook.test";

/// Whether an address is one of Adobe's interfaces.
#[must_use]
pub fn is_adobes(path: &str) -> bool {
    ["/ims/", "/v1/", "/data/core/ups/", "/unifiedfolders/"].iter().any(|adobe| path.starts_with(adobe))
}

#[async_trait]
impl Http for Sim {
    async fn send(&self, request: http::Request<Vec<u8>>, _timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>> {
        self.step().await;
        let mut store = self.lock();
        store.calls += 1;
        store.now += 50;
        let now = store.now;
        let faults = store.faults;
        store.trace.note(&now.to_le_bytes());
        store.trace.note(request.uri().path().as_bytes());
        store.trace.note(request.body());
        if store.strikes(faults.unavailable, Kind::Unavailable) {
            return Err(PortError::Unavailable { service: "HTTP", reason: "connection refused".into() });
        }
        let path = request.uri().path();
        if request.uri().host() == Some(HOOK) {
            if store.hook_is_down {
                return Ok(http::Response::builder().status(503).body(Vec::new()).unwrap_or_default());
            }
            let body = serde_json::from_slice(request.body()).unwrap_or_default();
            let path = path.to_owned();
            store.hooked.push((path, body));
            return Ok(http::Response::new(Vec::new()));
        }
        if is_adobes(path) {
            return Ok(store.adobe.handle(now, &request));
        }
        store.note_call(path);
        let changes = (path.contains("/lists/") && request.method() != http::Method::GET)
            || path.ends_with("/staticLists.json") && request.method() == http::Method::POST;
        if store.strikes(faults.marketo_silence, Kind::Silence) {
            match store.rng.random_range(0..3) {
                0 => {}
                1 if changes => {
                    let at = now + store.rng.random_range(1..domain::limits::LATE_EFFECT_MS - 1_000);
                    store.late.push((at, request));
                }
                _ => {
                    store.watch(|marketo| marketo.handle(now, &request));
                }
            }
            return Err(unknown("HTTP"));
        }
        match store.watch(|marketo| marketo.handle(now, &request)).response {
            Some(response) => Ok(response),
            None => Err(unknown("HTTP")),
        }
    }
}

#[async_trait]
impl Secrets for Sim {
    /// What both doubles take. At once: a process reads them before its first message.
    async fn read(&self, _: Vendor) -> PortResult<Credentials> {
        Ok(Credentials::new("sample-client", "sample-secret"))
    }

    async fn streams(&self) -> PortResult<StreamSecrets> {
        let mut store = self.lock();
        store.streams_read += 1;
        let down = || PortError::Unavailable { service: "secrets", reason: "down".into() };
        store.streams.clone().ok_or_else(down)
    }
}

#[async_trait]
impl Clock for Sim {
    fn now_ms(&self) -> u64 {
        self.lock().now
    }

    async fn sleep_ms(&self, ms: u64) {
        let until = self.lock().now + ms;
        poll_fn(|context| {
            let mut store = self.lock();
            if store.now >= until {
                store.moves += 1;
                return Poll::Ready(());
            }
            store.wakes_at = Some(store.wakes_at.map_or(until, |at| at.min(until)));
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// A clock that is fast, or slow.
struct FastClock {
    sim: Sim,
    fast_ms: i64,
}

#[async_trait]
impl Clock for FastClock {
    fn now_ms(&self) -> u64 {
        self.sim.now_ms().saturating_add_signed(self.fast_ms)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.sim.sleep_ms(ms).await;
    }
}

impl Random for Sim {
    fn next_u64(&self) -> u64 {
        self.lock().rng.random()
    }
}
