//! The simulation's ports keep the same contract as the real ones, so that the simulation does not lie.

use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
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

#[test]
fn bus() {
    let sim = sim();
    run(contract::bus(&sim, async || {
        let announced = &sim.lock().announced;
        announced.iter().map(|one| (one.kind.to_owned(), one.detail.clone())).collect()
    }));
}
