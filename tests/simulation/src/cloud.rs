//! The platform's part on the virtual clock: queues hand out messages as event source mappings do, with their windows
//! and FIFO groups, the schedule ticks each minute, and whoever outlives its time is stopped.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use cookie_ingest::Counts;
use domain::limits::FUNCTION_MS;
use futures::StreamExt as _;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use ports::{Clock as _, Failure, Ports, Queue};
use state::{Deps, Settings};

use crate::driver::{self, VISIBILITY_MS};
use crate::fakes::Message;
use crate::timed::Timed;

/// From a message in the queue to the handler's first line, in ms: an event source mapping that polls.
const DELIVERY_MS: u64 = 30;
/// Standard queues gather messages for this long, in ms (`infra/template.yaml`: one second).
const WINDOW_MS: u64 = 1_000;
/// Messages of one batch of a standard queue (`infra/template.yaml`).
const BATCH: usize = 100;
/// The schedule's rhythm, in ms.
const TICK_MS: u64 = 60_000;
/// A message that is to be retried soon comes again after this time where its handler names none, in ms.
const SOON_MS: u64 = 5_000;

/// Work of the platform.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Functions, queues and the schedule. Each function has one warm process, whatever runs in it side by side.
pub struct Cloud {
    /// The world and its clock.
    pub timed: Timed,
    /// What the functions work with.
    pub deps: Deps,
    writer: Deps,
    ingest: Deps,
    /// Invocations that were stopped at their deadline.
    pub stopped: Cell<u64>,
    /// Invocations that failed and were tried again.
    pub failed: Cell<u64>,
}

/// Settings as in AWS (`functions/shared/lambda/src/deps.rs`), at half of a quota.
#[must_use]
pub fn settings(quota_per_day: u64) -> Settings {
    Settings {
        quota_per_day,
        pass_above: 100,
        slice_records: 400_000,
        entries_at_once: 1 << 25,
        run_above: 1_000,
        ..driver::settings()
    }
}

impl Cloud {
    /// Functions over these ports, which stand on the clock of `timed`.
    #[must_use]
    pub fn new(timed: &Timed, ports: &Ports, settings: &Settings) -> Rc<Self> {
        Self::beside(timed, ports, ports, settings)
    }

    /// The same, with ports of its own for the list-writer.
    #[must_use]
    pub fn beside(timed: &Timed, ports: &Ports, writer: &Ports, settings: &Settings) -> Rc<Self> {
        let deps = |ports: &Ports| Deps::new(ports.clone(), settings.clone());
        Rc::new(Self {
            timed: timed.clone(),
            deps: deps(ports),
            writer: deps(writer),
            ingest: deps(ports),
            stopped: Cell::new(0),
            failed: Cell::new(0),
        })
    }

    /// Everything that runs by itself: every queue, and the schedule.
    #[must_use]
    pub fn work(self: &Rc<Self>) -> Vec<Work> {
        let mut work: Vec<Work> = vec![Box::pin(self.clone().tick())];
        for queue in Queue::ALL {
            work.push(Box::pin(self.clone().serve(queue)));
        }
        work
    }

    async fn tick(self: Rc<Self>) {
        loop {
            self.timed.sleep_ms(TICK_MS).await;
            let deadline = self.deps.now() + FUNCTION_MS;
            let ticked = scheduled_incremental_sync::tick(&self.deps, deadline).await;
            let resumed = create_sync::resume(&self.deps).await;
            self.failed.set(self.failed.get() + u64::from(ticked.is_err()) + u64::from(resumed.is_err()));
        }
    }

    async fn serve(self: Rc<Self>, queue: Queue) {
        let gathering = Rc::new(Cell::new(false));
        let mut running: FuturesUnordered<Work> = FuturesUnordered::new();
        loop {
            let seen = self.timed.news();
            if queue.is_fifo() {
                for message in self.first_of_each_group(queue) {
                    running.push(Box::pin(self.clone().one(message)));
                }
            } else if !gathering.get() && !self.take(queue, 0).1 {
                gathering.set(true);
                running.push(Box::pin(self.clone().gather(queue, gathering.clone())));
            }
            let news = std::pin::pin!(self.timed.wait_for_news(seen));
            if running.is_empty() {
                news.await;
            } else {
                select(news, running.next()).await;
            }
        }
    }

    /// The first message of each FIFO group, unless it is in flight.
    fn first_of_each_group(&self, queue: Queue) -> Vec<Message> {
        let mut store = self.timed.sim.lock();
        let now = store.now;
        let mut groups = std::collections::HashSet::new();
        let mut ready = Vec::new();
        for message in store.messages.iter_mut().filter(|message| message.queue == queue) {
            if groups.insert(message.group.clone()) && message.visible_at <= now {
                message.visible_at = now + VISIBILITY_MS;
                ready.push(message.clone());
            }
        }
        ready
    }

    /// Takes up to so many messages of a standard queue, and tells whether it holds none.
    fn take(&self, queue: Queue, most: usize) -> (Vec<Message>, bool) {
        let mut store = self.timed.sim.lock();
        let now = store.now;
        let visible = |message: &&mut Message| message.queue == queue && message.visible_at <= now;
        let mut taken = Vec::new();
        let mut none = true;
        for message in store.messages.iter_mut().filter(visible) {
            none = false;
            if taken.len() == most {
                break;
            }
            message.visible_at = now + VISIBILITY_MS;
            message.received += 1;
            taken.push(message.clone());
        }
        (taken, none)
    }

    async fn gather(self: Rc<Self>, queue: Queue, gathering: Rc<Cell<bool>>) {
        self.timed.sleep_ms(WINDOW_MS).await;
        let (batch, _) = self.take(queue, BATCH);
        gathering.set(false);
        // The rest, and what comes meanwhile, is another batch's.
        self.timed.tell();
        self.invoke(batch).await;
    }

    async fn one(self: Rc<Self>, message: Message) {
        self.timed.sleep_ms(DELIVERY_MS).await;
        self.invoke(vec![message]).await;
    }

    /// Invokes a function with a batch. What fails comes again, as the queue's consumer asks or when its visibility ends.
    async fn invoke(&self, batch: Vec<Message>) {
        let Some(queue) = batch.first().map(|message| message.queue) else { return };
        let deadline = self.deps.now() + FUNCTION_MS;
        let handled = std::pin::pin!(self.handle(queue, &batch, deadline));
        let time = std::pin::pin!(self.timed.sleep_ms(FUNCTION_MS));
        let again = match select(handled, time).await {
            Either::Left((Ok(()), _)) => None,
            Either::Left((Err(Failure::Retry { after_ms, .. }), _)) => Some(after_ms.unwrap_or(SOON_MS)),
            Either::Left((Err(_), _)) => Some(VISIBILITY_MS),
            Either::Right(_) => {
                self.stopped.set(self.stopped.get() + 1);
                Some(VISIBILITY_MS - FUNCTION_MS)
            }
        };
        let ids: Vec<u64> = batch.iter().map(|message| message.id).collect();
        match again {
            None => self.timed.sim.lock().messages.retain(|message| !ids.contains(&message.id)),
            Some(after) => {
                self.failed.set(self.failed.get() + 1);
                self.timed.sleep_ms(after).await;
                let mut store = self.timed.sim.lock();
                let now = store.now;
                store.messages.iter_mut().filter(|message| ids.contains(&message.id)).for_each(|message| {
                    message.visible_at = now;
                });
            }
        }
        self.timed.tell();
    }

    async fn handle(&self, queue: Queue, batch: &[Message], deadline: u64) -> Result<(), Failure> {
        let first = &batch[0].body;
        let ring = || serde_json::from_str(first).map_err(|_| Failure::fail("not a ring"));
        match queue {
            Queue::Matches => {
                let found: Vec<cookie_ingest::Message> = read(batch)?;
                cookie_ingest::store(&self.ingest, &found, &Counts::default()).await
            }
            Queue::Events => {
                let fresh = batch.iter().all(|message| message.received == 1);
                let found: Vec<state::feeds::Events> = read(batch)?;
                scheduled_incremental_sync::heard(&self.deps, &found, fresh).await
            }
            Queue::ListWrites => list_writer::handle(&self.writer, &ring()?, deadline).await,
            Queue::IdentityWork | Queue::AudienceWork => {
                scheduled_incremental_sync::handle(&self.deps, &ring()?, deadline).await
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(batch: &[Message]) -> Result<Vec<T>, Failure> {
    let read = batch.iter().map(|message| serde_json::from_str(&message.body));
    read.collect::<Result<_, _>>().map_err(|_| Failure::fail("a body that cannot be read"))
}
