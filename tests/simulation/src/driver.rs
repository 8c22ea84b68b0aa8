//! Drives the real handlers in one thread: queues hand out messages as SQS does, invocations live as Lambda's do,
//! and chance decides who moves next.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use cookie_ingest::Counts;
use domain::limits::{FUNCTION_MS, LATE_EFFECT_MS};
use ports::{Failure, Queue};
use rand::Rng as _;
use state::{Deps, Settings};

use crate::fakes::Sim;

/// Visibility time-out of the queues, in ms: six times the function's.
pub const VISIBILITY_MS: u64 = 6 * FUNCTION_MS;
const TICK_MS: u64 = 60_000;

type Work = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

struct Invocation {
    work: Work,
    /// Messages to acknowledge.
    messages: Vec<u64>,
    /// Its FIFO group.
    group: Option<(Queue, String)>,
    /// When Lambda stops it, in ms.
    deadline: u64,
    /// A name to find it by.
    name: Option<String>,
}

/// The queues, the functions and the clock.
pub struct Driver {
    /// The world.
    pub sim: Sim,
    settings: Settings,
    running: Vec<Invocation>,
    next_tick: u64,
    /// Whether the minute's tick comes by itself.
    pub ticking: bool,
    /// Messages that were handed out too often.
    pub dead: u64,
    /// Invocations that were begun.
    pub invocations: u64,
    finished: HashSet<String>,
    /// Polls in a row that moved nothing.
    idle: usize,
}

/// The settings of the simulated deployment.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        time_scale: 1.0,
        quota_share: 0.5,
        quota_per_day: 50_000,
        match_lifetime_ms: 396 * 86_400_000,
        marketo_url: "http://marketo".into(),
        ims_url: "http://adobe".into(),
        aam_url: "http://adobe".into(),
        aep_url: "http://adobe".into(),
        aep_folders_url: "http://adobe".into(),
        aep_sandbox: "prod".into(),
        adobe_scopes: "scope".into(),
        pass_above: 6,
        slice_records: 7,
        entries_at_once: 5,
        run_above: 2,
        fold_after_ms: 8 * 86_400_000,
    }
}

impl Driver {
    /// A driver over a world.
    #[must_use]
    pub fn new(sim: Sim, settings: Settings) -> Self {
        let next_tick = sim.lock().now + TICK_MS;
        Self {
            sim,
            settings,
            running: Vec::new(),
            next_tick,
            ticking: true,
            dead: 0,
            invocations: 0,
            finished: HashSet::new(),
            idle: 0,
        }
    }

    /// Deploys other settings.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Dependencies of a cold process.
    #[must_use]
    pub fn deps(&self) -> Deps {
        Deps::new(self.sim.ports(), self.settings.clone())
    }

    /// Starts work that no queue asked for (a request, a file, a tick). `finished` tells by its name whether it
    /// ended well.
    pub fn start(&mut self, name: &str, work: impl Future<Output = Result<(), Failure>> + 'static) {
        let deadline = self.sim.lock().now + FUNCTION_MS;
        let name = Some(name.to_owned());
        self.running.push(Invocation { work: Box::pin(work), messages: Vec::new(), group: None, deadline, name });
        self.invocations += 1;
    }

    /// Whether work of this name ended well.
    #[must_use]
    pub fn finished(&self, name: &str) -> bool {
        self.finished.contains(name)
    }

    /// Whether work of this name is under way.
    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.running.iter().any(|run| run.name.as_deref() == Some(name))
    }

    /// One step of the world. `false`: nothing can move before the next tick of the clock.
    pub fn step(&mut self) -> bool {
        let now = self.sim.lock().now;
        if self.ticking && now >= self.next_tick {
            self.next_tick = now + TICK_MS;
            let deps = self.deps();
            self.start("tick", async move { scheduled_incremental_sync::tick(&deps, deps.now() + FUNCTION_MS).await });
            let deps = self.deps();
            self.start("resume", async move { create_sync::resume(&deps).await });
        }
        let ready = self.ready_messages();
        let choices = self.running.len() + usize::from(!ready.is_empty());
        if choices == 0 {
            return false;
        }
        if ready.is_empty() && self.idle > 8 * self.running.len() {
            // Sleepers all.
            self.idle = 0;
            return false;
        }
        let choice = self.sim.lock().rng.random_range(0..choices);
        if choice == self.running.len() {
            let which = self.sim.lock().rng.random_range(0..ready.len());
            self.deliver(ready[which]);
            return true;
        }
        self.poll(choice);
        true
    }

    fn ready_messages(&self) -> Vec<u64> {
        let store = self.sim.lock();
        let busy: HashSet<(Queue, String)> = self.running.iter().filter_map(|run| run.group.clone()).collect();
        let mut blocked = HashSet::new();
        let mut ready = Vec::new();
        let mut messages: Vec<_> = store.messages.iter().collect();
        messages.sort_by_key(|message| message.id);
        for message in messages {
            let Some(group) = &message.group else {
                if message.visible_at <= store.now {
                    ready.push(message.id);
                }
                continue;
            };
            let key = (message.queue, group.clone());
            // Only the first of a group, and only if none of it is in flight.
            if blocked.insert(key.clone()) && !busy.contains(&key) && message.visible_at <= store.now {
                ready.push(message.id);
            }
        }
        ready
    }

    fn deliver(&mut self, id: u64) {
        let (message, extra) = {
            let mut store = self.sim.lock();
            let now = store.now;
            let Some(index) = store.messages.iter().position(|message| message.id == id) else { return };
            store.messages[index].visible_at = now + VISIBILITY_MS;
            store.messages[index].received += 1;
            if store.messages[index].received > 5 {
                // To the dead-letter queue, and put back by an operator an hour later.
                store.messages[index].received = 0;
                store.messages[index].visible_at = now + 3_600_000;
                drop(store);
                self.dead += 1;
                return;
            }
            let message = store.messages[index].clone();
            // A standard queue hands out several at once.
            let mut extra = Vec::new();
            if !message.queue.is_fifo() {
                for other in store.messages.iter_mut() {
                    if other.queue == message.queue && other.id != id && other.visible_at <= now && extra.len() < 3 {
                        other.visible_at = now + VISIBILITY_MS;
                        other.received += 1;
                        extra.push(other.clone());
                    }
                }
            }
            (message, extra)
        };
        let deps = self.deps();
        let deadline = deps.now() + FUNCTION_MS;
        let body = message.body.clone();
        let mut messages = vec![message.id];
        let work: Work = match message.queue {
            Queue::Matches => {
                messages.extend(extra.iter().map(|message| message.id));
                let bodies: Vec<String> = std::iter::once(body).chain(extra.into_iter().map(|m| m.body)).collect();
                Box::pin(async move {
                    let messages: Vec<cookie_ingest::Message> =
                        bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
                    cookie_ingest::store(&deps, &messages, &Counts::default()).await
                })
            }
            Queue::Events => {
                messages.extend(extra.iter().map(|message| message.id));
                let fresh = message.received == 1 && extra.iter().all(|message| message.received == 1);
                let bodies: Vec<String> = std::iter::once(body).chain(extra.into_iter().map(|m| m.body)).collect();
                Box::pin(async move {
                    let messages: Vec<state::feeds::Events> =
                        bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
                    scheduled_incremental_sync::heard(&deps, &messages, fresh).await
                })
            }
            Queue::ListWrites => Box::pin(async move {
                let ring = serde_json::from_str(&body).map_err(|_| Failure::fail("not a ring"))?;
                list_writer::handle(&deps, &ring, deadline).await
            }),
            Queue::IdentityWork | Queue::AudienceWork => Box::pin(async move {
                let ring = serde_json::from_str(&body).map_err(|_| Failure::fail("not a ring"))?;
                scheduled_incremental_sync::handle(&deps, &ring, deadline).await
            }),
        };
        self.invocations += 1;
        let group = message.group.map(|group| (message.queue, group));
        self.running.push(Invocation { work, messages, group, deadline, name: None });
    }

    fn poll(&mut self, index: usize) {
        let before = {
            let mut store = self.sim.lock();
            let kill = store.faults.kill;
            let killed = kill > 0.0 && store.rng.random_bool(kill);
            if killed || store.now > self.running[index].deadline {
                drop(store);
                // Its messages come back when their visibility ends.
                self.running.swap_remove(index);
                return;
            }
            store.calls
        };
        let mut context = Context::from_waker(Waker::noop());
        match self.running[index].work.as_mut().poll(&mut context) {
            std::task::Poll::Pending => {
                // A sleeper does not move.
                let moved = self.sim.lock().calls != before;
                self.idle = if moved { 0 } else { self.idle + 1 };
            }
            std::task::Poll::Ready(outcome) => {
                self.idle = 0;
                let run = self.running.swap_remove(index);
                self.end(run, outcome);
            }
        }
    }

    fn end(&mut self, run: Invocation, outcome: Result<(), Failure>) {
        let mut store = self.sim.lock();
        let now = store.now;
        match outcome {
            Ok(()) => {
                let redeliver = store.faults.redeliver;
                for id in run.messages {
                    let again = redeliver > 0.0 && store.rng.random_bool(redeliver);
                    if again {
                        if let Some(message) = store.messages.iter_mut().find(|message| message.id == id) {
                            // Its deletion was lost.
                            message.received = message.received.min(2);
                        }
                    } else {
                        store.messages.retain(|message| message.id != id);
                    }
                }
                if let Some(name) = run.name {
                    self.finished.insert(name);
                }
            }
            Err(Failure::Retry { after_ms, .. }) => {
                for message in store.messages.iter_mut().filter(|message| run.messages.contains(&message.id)) {
                    message.visible_at = now + after_ms.unwrap_or(5_000);
                }
            }
            Err(Failure::Fail { .. } | Failure::Outage { .. }) => {}
        }
    }

    /// Jumps to the next moment at which something can happen.
    pub fn leap(&mut self) {
        let mut store = self.sim.lock();
        let now = store.now;
        let messages = store.messages.iter().map(|message| message.visible_at).filter(|at| *at > now).min();
        let late = store.late.iter().map(|(at, _)| *at).min();
        let tick = self.ticking.then_some(self.next_tick);
        let next = [messages, late, tick].into_iter().flatten().min().unwrap_or(now + TICK_MS);
        // Sleepers wake within a second of their time.
        let next = if self.running.is_empty() { next } else { next.min(now + 1_000) };
        store.advance(next.max(now + 1));
    }

    /// Runs for some virtual time.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.sim.lock().now + ms;
        while self.sim.lock().now < until {
            if !self.step() {
                self.leap();
            }
        }
    }

    /// Runs until all matches are stored, and nothing else but what that needs: other queues are not served.
    pub fn run_until_stored(&mut self) {
        loop {
            let next = self.ready_messages().into_iter().find(|id| {
                let store = self.sim.lock();
                store.messages.iter().any(|message| message.id == *id && message.queue == Queue::Matches)
            });
            let Some(id) = next else { return };
            self.deliver(id);
            while let Some(index) = self.running.len().checked_sub(1) {
                self.poll(index);
            }
        }
    }

    /// Runs until there is nothing left to do, or until the given virtual time is over. Returns what was left.
    pub fn settle(&mut self, ms: u64) -> Result<(), String> {
        let until = self.sim.lock().now + ms;
        let mut last = String::from("nothing was looked at");
        while self.sim.lock().now < until {
            if self.step() {
                continue;
            }
            match self.unsettled() {
                None => return Ok(()),
                Some(left) => last = left,
            }
            self.leap();
        }
        Err(last)
    }

    /// What is left to do, if anything.
    #[must_use]
    pub fn unsettled(&self) -> Option<String> {
        let store = self.sim.lock();
        let now = store.now;
        if !self.running.is_empty() || !store.messages.is_empty() {
            return Some(format!("{} running, {} messages", self.running.len(), store.messages.len()));
        }
        if !store.late.is_empty() {
            return Some("calls that land late".into());
        }
        let visible = store.marketo.last_visible_activity_at().max(store.marketo.next_visible_activity_at());
        for ((table, key), item) in &store.tables {
            let doc = &item.doc;
            let number = |name: &str| doc[name].as_u64();
            match (table, key.sk.as_str()) {
                (ports::Table::Doorbells, _) => {
                    let wakes = number("wake_at").is_some_and(|at| at <= now);
                    if number("dirty_since").is_some() || wakes || number("done") < number("version") {
                        return Some(format!("{} {} is dirty", key.pk, key.sk));
                    }
                }
                (ports::Table::Lists, sk) if sk.starts_with("list/") => {
                    let left = &doc["left"];
                    if left["add"] != 0 || left["remove"] != 0 || left["hold"] != 0 {
                        return Some(format!("{sk} has {left}"));
                    }
                }
                (ports::Table::Syncs, "identity") => {
                    let polled = number("polled_at").unwrap_or(0);
                    if visible.is_some_and(|at| at > polled) {
                        return Some("activities that nobody has read".into());
                    }
                    if doc["extract"]["done_at"].is_null() && doc["extract"]["no_ecids"] != true {
                        return Some(format!("an extract under way: {doc}"));
                    }
                }
                (ports::Table::Syncs, sk) if sk.starts_with("sync/") && doc["status"] == "creating" => {
                    return Some("a sync that is being made".into());
                }
                (ports::Table::Identity, _) if key.pk.ends_with("/look") => {
                    return Some("a lead that somebody asks to look at".into());
                }
                (ports::Table::Identity, _) if item.due.as_ref().is_some_and(|due| due.at <= now) => {
                    return Some("a token or lead that is due".into());
                }
                (ports::Table::Audiences, "head") if !doc["pass"].is_null() => {
                    return Some("a pass under way".into());
                }
                _ => {}
            }
        }
        None
    }
}

const _: () = assert!(VISIBILITY_MS >= FUNCTION_MS + LATE_EFFECT_MS);
