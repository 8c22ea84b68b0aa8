//! The simulation's ports keep the same contract as the real ones, so that the simulation does not lie.

use contract::{Handed, Receives};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use ports::Queue;
use simulation::driver::VISIBILITY_MS;
use simulation::fakes::{Sim, run};
use simulation::scenario::{BEGIN, MUNCHKIN};
use world::types::{Library, MarketoData};

fn sim() -> Sim {
    let data = MarketoData {
        munchkin_id: MUNCHKIN.into(),
        org_id: None,
        hipaa_ready: false,
        cookie_sync: true,
        leads: Vec::new(),
        lists: Vec::new(),
    };
    let marketo = Marketo::new(marketo::Settings::default(), data, BEGIN);
    Sim::new(1, BEGIN, marketo, Adobe::new(adobe::Settings::default(), Library::default(), BEGIN))
}

#[test]
fn tables() {
    run(contract::tables(&sim()));
}

#[test]
fn objects() {
    run(contract::objects(&sim()));
}

#[test]
fn queues() {
    let sim = sim();
    run(contract::queues(&sim, async |queue, _| {
        let mut store = sim.lock();
        let found = store.messages.iter().filter(|message| message.queue == queue);
        let found = found.map(|message| (message.body.clone(), message.group.clone())).collect();
        store.messages.retain(|message| message.queue != queue);
        found
    }));
}

/// What the driver hands out to the functions.
struct Hands(Sim);

impl Receives for Hands {
    async fn receive(&mut self, queue: Queue) -> Option<Handed> {
        let mut store = self.0.lock();
        let ready = store.receivable(|_, _| false);
        let of_queue = |id: &u64| store.messages.iter().any(|message| message.id == *id && message.queue == queue);
        let id = ready.into_iter().find(of_queue)?;
        let message = store.hand_out(id)?;
        Some(Handed { handle: id.to_string(), body: message.body })
    }

    async fn delete(&mut self, _: Queue, handle: &str) {
        self.0.lock().delete_message(handle.parse().expect("a handle"));
    }

    async fn wait(&mut self) {
        let mut store = self.0.lock();
        let later = store.now + VISIBILITY_MS;
        store.advance(later);
    }

    async fn dead(&mut self, queue: Queue) -> u64 {
        self.0.lock().dead.iter().filter(|(_, message)| message.queue == queue).count() as u64
    }
}

#[test]
fn receiving() {
    let sim = sim();
    run(contract::receiving(&sim, &mut Hands(sim.clone()), 5));
}

#[test]
fn bus() {
    let sim = sim();
    run(contract::bus(&sim, async || {
        let announced = &sim.lock().announced;
        announced.iter().map(|one| (one.kind.to_owned(), one.detail.clone())).collect()
    }));
}
