//! Marketo's limits are shared: what the budget permits, to whom and when, over the real rows.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use create_sync::{Caller, Request};
use domain::MunchkinId;
use domain::limits::{DAY_MS, HOUR_MS};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Kind, Marketo};
use futures::future::join_all;
use ports::Table;
use simulation::driver::settings;
use simulation::fakes::{Sim, run};
use simulation::promise::{instance, put, subscription};
use simulation::scenario::{MUNCHKIN, ORG};
use simulation::timed::Timed;
use state::budget::{
    LEASE_MS, Lease, Permit, Purpose, Pushback, Standing, book, give_back, learn_use, next_midnight, permit, push_back,
    push_back_and_end, standing, writes_at_once,
};
use state::syncs::subscription_key;
use state::{Deps, Settings};
use std::collections::BTreeSet;
use world::types::{Library, MarketoData};

/// 2026-01-20, midnight US Central, in ms: the day has 24 hours.
const MIDNIGHT: u64 = 1_768_888_800_000;

struct Rig {
    sim: Sim,
    deps: Deps,
    munchkin: MunchkinId,
}

fn nobody() -> MarketoData {
    MarketoData {
        munchkin_id: MUNCHKIN.into(),
        org_id: Some(ORG.into()),
        hipaa_ready: false,
        cookie_sync: true,
        leads: Vec::new(),
        lists: Vec::new(),
    }
}

fn rig(share: f64, quota: u64) -> Rig {
    let sim = Sim::new(
        1,
        MIDNIGHT,
        Marketo::new(marketo::Settings::default(), nobody(), MIDNIGHT),
        Adobe::new(adobe::Settings::default(), Library::default(), MIDNIGHT),
    );
    // Only the test turns the clock.
    sim.lock().port_ms = 0;
    let deps = Deps::new(sim.ports(), Settings { quota_share: share, quota_per_day: quota, ..settings() });
    Rig { sim, deps, munchkin: MunchkinId::parse(MUNCHKIN).unwrap() }
}

impl Rig {
    fn at(&self, ms: u64) -> &Self {
        self.sim.lock().now = ms;
        self
    }

    fn ask(&self, purpose: Purpose, wanted: usize) -> Permit {
        run(permit(&self.deps, &self.munchkin, purpose, wanted)).unwrap()
    }

    /// Takes as many calls as are permitted by the end of this moment.
    fn take(&self, purpose: Purpose) -> usize {
        let mut taken = 0;
        while let Permit::Go(calls) = self.ask(purpose, 10) {
            taken += calls;
        }
        taken
    }

    /// The control plane's call.
    fn lease(&self) -> Lease {
        match self.ask(Purpose::Control, 5) {
            Permit::Lease(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    fn give_back(&self, lease: Lease) {
        run(give_back(&self.deps, &self.munchkin, lease));
    }

    /// How often the row was written.
    fn writes(&self) -> u64 {
        let store = self.sim.lock();
        store.tables.iter().find(|((_, key), _)| key.sk == "budget").map_or(0, |(_, item)| item.rev)
    }

    fn standing(&self) -> Standing {
        run(standing(&self.deps, &self.munchkin)).unwrap()
    }

    fn book(&self, calls: usize) -> u64 {
        run(book(&self.deps, &self.munchkin, calls)).unwrap()
    }
}

#[test]
fn the_share_applies_to_the_window_to_calls_at_once_and_to_the_day() {
    for (share, window, at_once, day) in [(0.5, 50, 5, 25_000), (1.0, 100, 10, 50_000), (0.2, 20, 2, 10_000)] {
        let rig = rig(share, 50_000);
        assert_eq!(rig.ask(Purpose::Poll, 100), Permit::Go(at_once));
        assert_eq!(rig.standing().left + at_once as u64, day);
        assert_eq!(at_once + rig.take(Purpose::Poll), window);
        // Not before the first of them is more than 20 s old.
        rig.at(MIDNIGHT + 20_000);
        assert!(matches!(rig.ask(Purpose::Poll, 1), Permit::Wait(_)));
        rig.at(MIDNIGHT + 20_250);
        assert_eq!(rig.take(Purpose::Poll), window);
    }
}

#[test]
fn who_looks_up_and_who_polls_get_their_part_of_a_window_that_a_load_fills() {
    let rig = rig(0.5, 50_000);
    assert_eq!(rig.take(Purpose::Bulk), 50);
    assert!(matches!(rig.ask(Purpose::LookUp, 1), Permit::Wait(_)));
    rig.at(MIDNIGHT + 20_250);
    // Ten of fifty are kept for the look-ups that wait, and no more than that.
    assert_eq!(rig.take(Purpose::Bulk), 40);
    assert_eq!(rig.take(Purpose::LookUp), 10);
    rig.at(MIDNIGHT + 40_500);
    // Once nobody waits, everything is lent.
    assert_eq!(rig.ask(Purpose::LookUp, 1), Permit::Go(1));
    assert_eq!(rig.take(Purpose::Bulk), 49);
}

#[test]
fn a_load_leaves_half_of_the_rest_of_the_day_and_small_writes_leave_a_quarter() {
    let rig = rig(0.5, 4_000);
    let mut taken = [0; 2];
    let mut now = MIDNIGHT;
    for (index, purpose) in [Purpose::Bulk, Purpose::Write].into_iter().enumerate() {
        loop {
            now += 21_000;
            let some = rig.at(now).take(purpose);
            if some == 0 {
                break;
            }
            taken[index] += some;
        }
    }
    // Of 2,000 calls; a little more is free because the day has begun to pass.
    assert!((1_000..1_030).contains(&taken[0]), "{taken:?}");
    assert!((500..530).contains(&taken[1]), "{taken:?}");
    // The look-ups' fifth is there, and the polls' twentieth after it.
    now += 21_000;
    assert!(rig.at(now).take(Purpose::LookUp) > 0);
    assert!(rig.at(now + 21_000).take(Purpose::Poll) > 0);
    // What nobody uses is lent as the day passes.
    let Permit::Wait(at) = rig.at(now + 42_000).ask(Purpose::Write, 1) else { panic!("too much") };
    assert!(at > now && at < MIDNIGHT + DAY_MS);
    assert!(matches!(rig.at(at + 1).ask(Purpose::Write, 1), Permit::Go(1)));
    assert!(rig.at(MIDNIGHT + DAY_MS - 60_000).take(Purpose::Bulk) > 0);
}

#[test]
fn what_other_tools_use_is_not_ours() {
    let rig = rig(0.5, 50_000);
    rig.take(Purpose::Poll);
    rig.at(MIDNIGHT + HOUR_MS);
    // 45,000 of 50,000 are gone: we have what is left, not our half.
    let today = || "2026-01-20".to_owned();
    run(learn_use(&rig.deps, &rig.munchkin, Some((today(), 45_050)), MIDNIGHT + HOUR_MS)).unwrap();
    let found = rig.standing();
    assert_eq!((found.ours, found.others, found.left), (50, 45_000, 4_950));
    // A word of yesterday does not count today, whether it was asked for then or only now.
    rig.at(MIDNIGHT + DAY_MS + 1);
    run(learn_use(&rig.deps, &rig.munchkin, Some((today(), 49_000)), MIDNIGHT + DAY_MS - 1)).unwrap();
    run(learn_use(&rig.deps, &rig.munchkin, Some((today(), 50_000)), MIDNIGHT + DAY_MS + 1)).unwrap();
    let found = rig.standing();
    assert_eq!((found.ours, found.others, found.left), (0, 0, 25_000));
}

#[test]
fn a_607_parks_everybody_until_midnight_also_on_the_days_of_23_and_25_hours() {
    // Noon US Central on a usual day, and on both days on which the clocks change.
    for (noon, hours) in [(MIDNIGHT + 12 * HOUR_MS, 12), (1_772_989_200_000, 12), (1_793_556_000_000, 12)] {
        let rig = rig(0.5, 50_000);
        rig.at(noon);
        let until = run(push_back(&rig.deps, &rig.munchkin, Pushback::Day)).unwrap();
        assert_eq!(until, noon + hours * HOUR_MS);
        assert_eq!(until, next_midnight(noon));
        for purpose in [Purpose::Control, Purpose::Poll, Purpose::LookUp, Purpose::Write, Purpose::Bulk] {
            assert_eq!(rig.at(until - 1).ask(purpose, 1), Permit::Wait(until));
        }
        assert_eq!(rig.at(until).ask(Purpose::Bulk, 1), Permit::Go(1));
    }
}

#[test]
fn a_606_closes_the_window_for_everybody_lowers_the_rate_and_is_forgotten_slowly() {
    let rig = rig(0.5, 50_000);
    let until = run(push_back(&rig.deps, &rig.munchkin, Pushback::Rate)).unwrap();
    // Of calls that were under way together all are refused: that is one refusal.
    run(push_back(&rig.deps, &rig.munchkin, Pushback::Rate)).unwrap();
    assert_eq!(rig.ask(Purpose::Poll, 1), Permit::Wait(until));
    assert_eq!(rig.at(until).take(Purpose::Poll), 45);
    let mut now = until;
    let mut windows = 0;
    loop {
        now += 21_000;
        windows += 1;
        if rig.at(now).take(Purpose::Poll) == 50 {
            break;
        }
        assert!(windows < 20, "the rate does not come back");
    }
    assert!(windows > 3, "the rate came back at once");
}

#[test]
fn a_615_halves_the_calls_at_once_for_a_while() {
    let rig = rig(1.0, 50_000);
    let until = run(push_back(&rig.deps, &rig.munchkin, Pushback::AtOnce)).unwrap();
    assert!((MIDNIGHT + 1_000..MIDNIGHT + 2_000).contains(&until), "jittered");
    assert_eq!(rig.at(until).ask(Purpose::Bulk, 10), Permit::Go(5));
}

#[test]
fn small_visits_come_in_order_at_the_pace_of_the_day_and_never_outlast_it() {
    let rig = rig(0.5, 50_000);
    // A quiet time is made up for; then each waits for those before it.
    let due: Vec<u64> = (0..400).map(|_| rig.book(2)).collect();
    assert!(due.is_sorted());
    assert!(due[..80].iter().all(|due| *due <= MIDNIGHT));
    let steps: BTreeSet<u64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 24,750 calls a day, two at a time: every 7 s.
    assert!(steps.iter().all(|step| (6_900..7_100).contains(step)), "{steps:?}");
    let last = (0..30_000).fold(0, |_, _| rig.book(2));
    assert_eq!(last, MIDNIGHT + DAY_MS, "what does not fit waits for the next day and no longer");
    assert!(rig.at(MIDNIGHT + DAY_MS).book(2) <= MIDNIGHT + DAY_MS);
}

#[test]
fn the_control_plane_has_one_call_under_way_and_nobody_else_waits_for_it() {
    let rig = rig(0.5, 50_000);
    let lease = rig.lease();
    assert_eq!((lease.until, rig.writes()), (MIDNIGHT + LEASE_MS, 1));
    assert_eq!(rig.ask(Purpose::Control, 1), Permit::Taken(lease.until));
    // Whoever finds it taken writes nothing, and is not counted.
    assert_eq!((rig.writes(), rig.standing().ours), (1, 1));
    assert_eq!(rig.ask(Purpose::LookUp, 1), Permit::Go(1));
    rig.give_back(lease);
    assert_eq!(rig.writes(), 3);
    let next = rig.lease();
    // Once more, as by a function that hears late: another's lease stays.
    rig.give_back(lease);
    assert_eq!((rig.ask(Purpose::Control, 1), rig.writes()), (Permit::Taken(next.until), 4));
}

#[test]
fn a_lease_whose_holder_died_ends_by_itself_and_its_late_return_ends_nobody_elses() {
    let rig = rig(0.5, 50_000);
    let dead = rig.lease();
    assert_eq!(rig.at(dead.until - 1).ask(Purpose::Control, 1), Permit::Taken(dead.until));
    let next = rig.at(dead.until).lease();
    rig.give_back(dead);
    assert_eq!(rig.ask(Purpose::Control, 1), Permit::Taken(next.until));
}

#[test]
fn a_call_too_many_gives_the_lease_back_in_the_write_that_says_so() {
    let rig = rig(0.5, 50_000);
    let lease = rig.lease();
    let until = run(push_back_and_end(&rig.deps, &rig.munchkin, Pushback::AtOnce, Some(lease))).unwrap();
    assert_eq!((rig.ask(Purpose::Control, 1), rig.writes()), (Permit::Wait(until), 2));
    assert!(matches!(rig.at(until).ask(Purpose::Control, 1), Permit::Lease(_)));
}

#[test]
fn viewers_spend_a_hundredth_of_our_share_and_a_hundred_calls_at_least() {
    for (quota, part) in [(50_000, 250), (4_000, 100)] {
        let mut rig = rig(0.5, quota);
        assert_eq!(rig.standing().viewers_left, part);
        let operator = rig.deps.clone();
        rig.deps = operator.for_viewer();
        let mut now = MIDNIGHT;
        for _ in 0..part {
            now += 1_000;
            let lease = rig.at(now).lease();
            rig.give_back(lease);
        }
        let (written, end) = (rig.writes(), MIDNIGHT + DAY_MS);
        assert_eq!(rig.ask(Purpose::Control, 1), Permit::ViewersWait(end));
        assert_eq!((rig.writes(), rig.standing().viewers_left), (written, 0));
        rig.deps = operator.clone();
        let lease = rig.at(now + 1_000).lease();
        rig.give_back(lease);
        rig.deps = operator.for_viewer();
        rig.at(end).lease();
        assert_eq!(rig.standing().viewers_left, part - 1);
    }
}

/// The list-writer, the identity worker and six requests of a browser side by side, each a function of its own, with the
/// time that calls take. The double's log is the judge: it has every call but those for tokens.
#[test]
fn all_functions_together_have_no_more_calls_at_once_than_our_share() {
    let munchkin = MunchkinId::parse(MUNCHKIN).unwrap();
    let adobe = Adobe::new(adobe::Settings::default(), Library::default(), MIDNIGHT);
    let sim = Sim::new(1, MIDNIGHT, instance(nobody(), 50_000, MIDNIGHT), adobe);
    put(&sim, Table::Syncs, subscription_key(&munchkin), &subscription(&munchkin, true));
    let timed = Timed::new(sim.clone(), Arc::new(|_, _, _| {}));
    let function = || Deps::new(timed.ports(), settings());
    let answers = Rc::new(RefCell::new(Vec::new()));
    let mut work: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for _ in 0..6 {
        let (deps, answers) = (function(), answers.clone());
        work.push(Box::pin(async move {
            for _ in 0..3 {
                let (path, caller) = ("/list-folders".to_owned(), Some(Caller::local()));
                let request = Request { method: "GET".into(), path, caller, ..Request::default() };
                let answer = create_sync::handle(&deps, request, deps.now() + 30_000).await;
                answers.borrow_mut().push(answer.status);
            }
        }));
    }
    for (purpose, waves) in [(Purpose::Write, 5), (Purpose::LookUp, 10)] {
        let (deps, munchkin) = (function(), munchkin.clone());
        work.push(Box::pin(async move {
            let at_once = if purpose == Purpose::Write { writes_at_once(&deps) } else { 1 };
            for _ in 0..waves {
                let client = ::marketo::Marketo::new(&deps, &munchkin, deps.now() + 120_000, purpose);
                let slots = client.slots(at_once).await.unwrap();
                join_all(slots.into_iter().map(|slot| client.list(slot, 1))).await;
            }
        }));
    }
    timed.run(work, MIDNIGHT + HOUR_MS);
    assert_eq!(*answers.borrow(), [200; 18]);
    let store = sim.lock();
    let at_once = |kind: fn(Kind) -> bool| {
        let calls = store.marketo.calls().iter().filter(|call| kind(call.kind));
        calls.map(|call| call.in_flight).max()
    };
    assert_eq!(at_once(|kind| kind != Kind::Token), Some(5), "ten, of which a half is ours");
    assert!(at_once(|kind| kind == Kind::Folders).is_some(), "the control plane's are among them");
}
