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
use scheduled_incremental_sync::Arrival;
use state::{Deps, Settings};

use crate::fakes::Sim;
use crate::kinds::Kind;
use crate::{logs, noted};

/// Visibility time-out of the queues, in ms: six times the function's.
pub const VISIBILITY_MS: u64 = 6 * FUNCTION_MS;
const TICK_MS: u64 = 60_000;
/// Time between two ticks while nothing happens for long, in ms: its minutes would be most of what there is to play.
const SLOW_TICK_MS: u64 = 2 * 3_600_000;
/// A tick comes late by at most this, in ms.
const LATE_TICK_MS: u64 = 5 * 60_000;
/// Clocks differ by at most this from ours, in ms: far more than those of Lambda's machines do.
const SKEW_MS: i64 = 2_000;

type Work = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

struct Invocation {
    work: Work,
    /// It does not move before this time, in ms: it sleeps, or is frozen.
    still_until: u64,
    /// What its process remembers, and which function that is of.
    process: Option<(Function, Deps)>,
    /// The file of which it has been given notice.
    arrival: Option<Arrival>,
    /// Messages to acknowledge.
    messages: Vec<u64>,
    /// Its FIFO group.
    group: Option<(Queue, String)>,
    /// When Lambda stops it, in ms.
    deadline: u64,
    /// A name to find it by.
    name: Option<String>,
}

impl Invocation {
    /// Whether it may move now, or is to be stopped.
    const fn moves_at(&self, now: u64) -> bool {
        self.still_until <= now || self.deadline < now
    }

    fn of(work: Work, deadline: u64) -> Self {
        Self {
            work,
            still_until: 0,
            process: None,
            arrival: None,
            messages: Vec::new(),
            group: None,
            deadline,
            name: None,
        }
    }
}

/// The functions that work on messages: a process serves one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Function {
    CookieIngest,
    Scheduled,
    ListWriter,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Self::CookieIngest => "cookie-ingest",
            Self::Scheduled => "scheduled-incremental-sync",
            Self::ListWriter => "list-writer",
        }
    }
}

const fn reader_of(queue: Queue) -> Function {
    match queue {
        Queue::Matches => Function::CookieIngest,
        Queue::Events | Queue::IdentityWork | Queue::AudienceWork => Function::Scheduled,
        Queue::ListWrites => Function::ListWriter,
    }
}

/// The queues, the functions and the clock.
pub struct Driver {
    /// The world.
    pub sim: Sim,
    settings: Settings,
    running: Vec<Invocation>,
    next_tick: u64,
    /// Whether the tick comes by itself.
    pub ticking: bool,
    /// Time between two ticks, in ms.
    tick_ms: u64,
    /// Messages that were handed out too often.
    pub dead: u64,
    /// Invocations that were begun.
    pub invocations: u64,
    finished: HashSet<String>,
    /// Processes that wait for their next invocation.
    warm: Vec<(Function, Deps)>,
    /// Notices of files, and when they come, in ms.
    notices: Vec<(u64, Arrival)>,
    /// Nobody looks for rings that were lost.
    pub sweep_is_off: bool,
    /// Rows of deliveries that are whole: they are to be taken in before there is rest.
    pub whole: HashSet<String>,
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
            tick_ms: TICK_MS,
            dead: 0,
            invocations: 0,
            finished: HashSet::new(),
            warm: Vec::new(),
            notices: Vec::new(),
            sweep_is_off: false,
            whole: HashSet::new(),
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

    /// The same, of the function of this name.
    #[must_use]
    pub fn deps_of(&self, function: &'static str) -> Deps {
        Deps::new(noted::of(function, self.sim.ports()), self.settings.clone())
    }

    /// A process of a function: one that has served before, or a cold one, whose clock may differ.
    fn process(&mut self, function: Function) -> Deps {
        let mut store = self.sim.lock();
        let waiting = self.warm.iter().position(|(waiting, _)| *waiting == function);
        let chance = store.faults.warm;
        if let Some(index) = waiting
            && store.strikes(chance, Kind::Warm)
        {
            return self.warm.swap_remove(index).1;
        }
        let skew = store.faults.skew;
        let skew = if store.strikes(skew, Kind::Skew) { store.rng.random_range(-SKEW_MS..=SKEW_MS) } else { 0 };
        drop(store);
        Deps::new(noted::of(function.name(), self.sim.ports_with_clock(skew)), self.settings.clone())
    }

    /// Notice of a file comes in a while, in ms; until it was taken it comes again.
    pub fn notify(&mut self, in_ms: u64, arrival: Arrival) {
        let at = self.sim.lock().now + in_ms;
        self.notices.push((at, arrival));
    }

    fn begin_notices(&mut self, now: u64) {
        while let Some(index) = self.notices.iter().position(|(at, _)| *at <= now) {
            let (_, arrival) = self.notices.swap_remove(index);
            let deps = self.process(Function::Scheduled);
            let process = Some((Function::Scheduled, deps.clone()));
            let noticed = arrival.clone();
            let work =
                async move { scheduled_incremental_sync::arrived(&deps, &noticed, deps.now() + FUNCTION_MS).await };
            self.begin(Invocation {
                process,
                arrival: Some(arrival),
                ..Invocation::of(Box::pin(work), now + FUNCTION_MS)
            });
        }
    }

    fn begin(&mut self, invocation: Invocation) {
        self.invocations += 1;
        self.running.push(invocation);
    }

    /// Starts work that no queue asked for (a request, a file, a tick). `finished` tells by its name whether it
    /// ended well.
    pub fn start(&mut self, name: &str, work: impl Future<Output = Result<(), Failure>> + 'static) {
        let deadline = self.sim.lock().now + FUNCTION_MS;
        self.begin(Invocation { name: Some(name.to_owned()), ..Invocation::of(Box::pin(work), deadline) });
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
            let mut store = self.sim.lock();
            let late = store.faults.late_tick;
            let late = if store.strikes(late, Kind::LateTick) { store.rng.random_range(0..LATE_TICK_MS) } else { 0 };
            drop(store);
            self.next_tick = now + self.tick_ms + late;
            let deps = self.process(Function::Scheduled);
            self.start("tick", async move { scheduled_incremental_sync::tick(&deps, deps.now() + FUNCTION_MS).await });
            let deps = self.deps_of("create-sync");
            self.start("resume", async move { Box::pin(create_sync::resume(&deps)).await });
        }
        self.begin_notices(now);
        self.sim.lock().put_back();
        let ready = self.ready_messages();
        let awake = self.running.iter().filter(|run| run.moves_at(now)).count();
        let choices = awake + usize::from(!ready.is_empty());
        if choices == 0 {
            return false;
        }
        if ready.is_empty() && self.idle > 8 * awake {
            // Each waits for something else than time.
            self.idle = 0;
            return false;
        }
        let choice = self.sim.lock().rng.random_range(0..choices);
        if choice == awake {
            let which = self.sim.lock().rng.random_range(0..ready.len());
            self.deliver(ready[which]);
            return true;
        }
        let mut awake = self.running.iter().enumerate().filter(|(_, run)| run.moves_at(now));
        let index = awake.nth(choice).map_or(0, |(index, _)| index);
        self.poll(index);
        true
    }

    /// Messages that may be handed out now: of a FIFO group none while one of it is being handled, either.
    fn ready_messages(&self) -> Vec<u64> {
        self.sim.lock().receivable(|queue, group| {
            let mut groups = self.running.iter().filter_map(|run| run.group.as_ref());
            groups.any(|(other, key)| *other == queue && key == group)
        })
    }

    fn deliver(&mut self, id: u64) {
        let (message, extra) = {
            let mut store = self.sim.lock();
            let now = store.now;
            let dead_letter = store.faults.dead_letter;
            let handed = store.hand_out(id);
            let Some(message) = handed.filter(|_| !store.strikes(dead_letter, Kind::DeadLetter)) else {
                // In the dead-letter queue, and put back by an operator within the hour.
                let later = store.rng.random_range(60_000..3_600_000);
                store.bury(id, now + later);
                drop(store);
                self.dead += 1;
                return;
            };
            // A standard queue hands out several at once.
            let mut extra = Vec::new();
            if !message.queue.is_fifo() {
                let most = store.rng.random_range(0..10);
                for other in &mut store.messages {
                    if other.queue == message.queue && other.id != id && other.visible_at <= now && extra.len() < most {
                        other.visible_at = now + VISIBILITY_MS;
                        other.received += 1;
                        extra.push(other.clone());
                    }
                }
            }
            (message, extra)
        };
        let function = reader_of(message.queue);
        let deps = self.process(function);
        let process = Some((function, deps.clone()));
        // Lambda tells the process by when it must be done, by the process's own clock.
        let own_deadline = deps.now() + FUNCTION_MS;
        let deadline = self.sim.lock().now + FUNCTION_MS;
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
                list_writer::handle(&deps, &ring, own_deadline).await
            }),
            Queue::IdentityWork | Queue::AudienceWork => Box::pin(async move {
                let ring = serde_json::from_str(&body).map_err(|_| Failure::fail("not a ring"))?;
                scheduled_incremental_sync::handle(&deps, &ring, own_deadline).await
            }),
        };
        let group = message.group.map(|group| (message.queue, group));
        self.begin(Invocation { messages, group, process, ..Invocation::of(work, deadline) });
    }

    fn poll(&mut self, index: usize) {
        let before = {
            let mut store = self.sim.lock();
            let kill = store.faults.kill;
            let now = store.now;
            if store.strikes(kill, Kind::Kill) || now > self.running[index].deadline {
                drop(store);
                // Its messages come back when their visibility ends.
                let run = self.running.swap_remove(index);
                self.notices.extend(run.arrival.map(|arrival| (now + VISIBILITY_MS, arrival)));
                return;
            }
            let freeze = store.faults.freeze;
            if store.strikes(freeze, Kind::Freeze) {
                // Half of them for longer than it may live.
                self.running[index].still_until = now + store.rng.random_range(0..2 * FUNCTION_MS);
                return;
            }
            store.wakes_at = None;
            store.moves
        };
        let mut context = Context::from_waker(Waker::noop());
        match self.running[index].work.as_mut().poll(&mut context) {
            std::task::Poll::Pending => {
                let store = self.sim.lock();
                let moved = store.moves != before;
                self.idle = if moved { 0 } else { self.idle + 1 };
                if let Some(at) = store.wakes_at.filter(|_| !moved) {
                    // It does nothing but sleep.
                    self.running[index].still_until = at;
                }
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
        self.warm.extend(run.process);
        if let Err(failure) = &outcome {
            // The runtime logs why an invocation failed.
            logs::look_at(&failure.to_string());
            self.notices.extend(run.arrival.map(|arrival| (now + 5_000, arrival)));
        }
        match outcome {
            Ok(()) => {
                let redeliver = store.faults.redeliver;
                for id in run.messages {
                    if store.strikes(redeliver, Kind::Redeliver) {
                        if let Some(message) = store.messages.iter_mut().find(|message| message.id == id) {
                            // Its deletion was lost.
                            message.received = message.received.min(2);
                        }
                    } else {
                        store.delete_message(id);
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
        let dead = store.dead.iter().map(|(at, _)| *at).min();
        let late = store.late.iter().map(|(at, _)| *at).min();
        let tick = self.ticking.then_some(self.next_tick);
        let notice = self.notices.iter().map(|(at, _)| *at).min();
        let next = [messages, dead, late, tick, notice].into_iter().flatten().min().unwrap_or(now + TICK_MS);
        let wakes =
            |run: &Invocation| if run.still_until > now { run.still_until.min(run.deadline + 1) } else { now + 1_000 };
        let next = self.running.iter().map(wakes).fold(next, u64::min);
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

    /// Runs for a long time in which nothing happens: ticks are seldom.
    pub fn run_idly_for(&mut self, ms: u64) {
        self.tick_ms = SLOW_TICK_MS;
        self.run_for(ms);
        self.tick_ms = TICK_MS;
        self.next_tick = self.next_tick.min(self.sim.lock().now + TICK_MS);
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
        let waiting = store.messages.len() + store.dead.len() + self.notices.len();
        if !self.running.is_empty() || waiting > 0 {
            return Some(format!("{} running, {waiting} messages", self.running.len()));
        }
        if !store.late.is_empty() {
            return Some("calls that land late".into());
        }
        let is_there = |list: u64| store.marketo.lists().contains_key(&list);
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
                (ports::Table::Lists, sk)
                    if sk.strip_prefix("list/").and_then(|id| id.parse().ok()).is_some_and(is_there) =>
                {
                    let left = &doc["left"];
                    if left["add"] != 0 || left["remove"] != 0 || left["hold"] != 0 {
                        return Some(format!("{sk} has {left}"));
                    }
                }
                (ports::Table::Syncs, sk) if self.whole.contains(sk) => {
                    let is_open = |part: &serde_json::Value| {
                        let import = format!("import/{}", part["import"].as_str().unwrap_or_default());
                        let import = store.tables.get(&(*table, ports::Key::new(key.pk.as_str(), import)));
                        import.is_none_or(|import| !matches!(import.doc["status"].as_str(), Some("done" | "refused")))
                    };
                    if doc["parts"].as_object().is_some_and(|parts| parts.values().any(is_open)) {
                        return Some(format!("{sk} is whole and not taken in"));
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
                // It may be active already: the row goes last, and until then it is gone on with.
                (ports::Table::Syncs, sk) if sk.starts_with("creating/") => {
                    return Some("a sync that is being made".into());
                }
                // Of a content that was stored over nobody is told any more: where whoever began with it died before anything
                // was noted, its record stays until it expires.
                (ports::Table::Syncs, sk)
                    if sk.starts_with("import/")
                        && doc["status"] == "running"
                        && store.objects.get(doc["key"].as_str().unwrap_or_default()).is_some_and(|body| {
                            doc["id"].as_str().is_some_and(|id| id.ends_with(&crate::fakes::etag(body)))
                        }) =>
                {
                    return Some("a file that is being taken in".into());
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
