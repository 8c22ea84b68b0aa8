//! The simulation's ports keep the same contract as the real ones, so that the simulation does not lie.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use simulation::fakes::Sim;
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

/// Every port call yields once and is ready at the next poll.
fn run<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(ended) = work.as_mut().poll(&mut context) {
            return ended;
        }
    }
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
