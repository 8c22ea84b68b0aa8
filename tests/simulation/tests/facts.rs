//! What is said of an audience beside snapshots: as rows or as runs, folded or not, in whatever order it comes and wherever
//! somebody dies, the latest word counts.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use domain::base::{Base, mix};
use domain::fact::{Fact, RANK_FILE, RANK_STREAM, Streamed, inside, latest};
use domain::{AudienceId, Ecid, MunchkinId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use ports::Table;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use simulation::driver;
use simulation::fakes::{Faults, Sim, run};
use simulation::scenario::{BEGIN, MUNCHKIN, instance};
use state::audience::{Head, Members, Said, head_key, replace_base, take_said};
use state::facts::{NewRun, RUNS_KEPT, take_run};
use state::{Deps, Settings, Step, load, update};
use world::types::Library;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Nothing comes later than this; it is folded after a day.
const LATE: u64 = 23 * HOUR;
const ECIDS: u64 = 24;
/// Worlds; `SEEDS=10000` plays more.
const SEEDS: u64 = 100;

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("a Munchkin id")
}

fn audience() -> AudienceId {
    AudienceId::aam(101)
}

fn ecid(n: u64) -> Ecid {
    Ecid::from_number(n.into()).expect("an ECID")
}

fn rows(ecids: &BTreeSet<u64>) -> Vec<u128> {
    let mut rows: Vec<u128> = ecids.iter().map(|n| mix(ecid(*n))).collect();
    rows.sort_unstable();
    rows
}

/// What happened over all worlds, so that nothing is tested in vain.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    full: u64,
    folded: u64,
    forgotten: u64,
    cut: u64,
    stale: u64,
}

struct World {
    sim: Sim,
    deps: Deps,
    rng: SmallRng,
    /// Calls fail, and work is cut off.
    rough: bool,
    munchkin: MunchkinId,
    said: BTreeMap<u64, Fact>,
    snapshot: Option<(u64, BTreeSet<u64>)>,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let marketo = Marketo::new(marketo::Settings::default(), instance(Vec::new(), BTreeSet::new()), BEGIN);
        let sim = Sim::new(seed, BEGIN, marketo, Adobe::new(adobe::Settings::default(), Library::default(), BEGIN));
        let deps = Deps::new(sim.ports(), Settings { fold_after_ms: 24 * HOUR, ..driver::settings() });
        let rng = SmallRng::seed_from_u64(seed);
        Self {
            sim,
            deps,
            rng,
            rough: seed % 2 == 1,
            munchkin: munchkin(),
            said: BTreeMap::new(),
            snapshot: None,
            seen: Seen::default(),
        }
    }

    fn now(&self) -> u64 {
        self.sim.lock().now
    }

    /// A time that is told of now, to the hour: many are the same.
    fn told(&mut self) -> u64 {
        let late = self.rng.random_range(0..LATE);
        (self.now() - late) / HOUR * HOUR
    }

    fn some(&mut self) -> BTreeSet<u64> {
        let part = self.rng.random_range(0.0..0.6);
        (0..ECIDS).filter(|_| self.rng.random_bool(part)).collect()
    }

    /// Does work as a function would: it may fail, or be cut off in its midst, and then it is done again.
    fn work<T>(&mut self, work: impl AsyncFn(&Deps) -> Step<T>) -> T {
        let deps = self.deps.clone();
        if !self.rough {
            return run(work(&deps)).expect("nothing goes wrong");
        }
        self.sim.lock().faults = Faults { unavailable: 0.03, unknown: 0.05, ..Faults::NONE };
        loop {
            let mut polls = self.rng.random_range(1..120);
            let mut attempt = pin!(work(&deps));
            let mut context = Context::from_waker(Waker::noop());
            let ended = loop {
                match attempt.as_mut().poll(&mut context) {
                    Poll::Ready(ended) => break ended.ok(),
                    Poll::Pending if polls == 0 => break None,
                    Poll::Pending => polls -= 1,
                }
            };
            // Once more, although it was done: a message comes twice.
            match ended {
                Some(ended) if self.rng.random_bool(0.8) => {
                    self.sim.lock().faults = Faults::NONE;
                    return ended;
                }
                _ => self.seen.cut += 1,
            }
        }
    }

    fn say(&mut self, ecids: &BTreeSet<u64>, fact: Fact) {
        for n in ecids {
            let word = latest(self.said.get(n).copied(), Some(fact)).expect("a word");
            self.said.insert(*n, word);
        }
    }

    fn row(&mut self, n: u64, said: Said) {
        self.work(async |deps| {
            let change = |head: Option<Head>| {
                let mut head = head.unwrap_or_else(|| Head::new(audience(), deps.now()));
                head.has_overlay = true;
                Ok((Some(head), ()))
            };
            update(deps, Table::Audiences, &head_key(&munchkin(), &audience()), change, |_| None).await?;
            take_said(deps, &munchkin(), &audience(), ecid(n), said).await
        });
    }

    fn delivery(&mut self, number: u64) {
        let (time, come, left) = (self.told(), self.some(), self.some());
        let (inside, outside) = (rows(&come), rows(&left));
        let of = format!("delivery {number}");
        let new = NewRun { of: &of, feed: "default", named_at: time, time, inside: &inside, outside: &outside };
        if come.is_empty() && left.is_empty() {
            return;
        }
        let taken = self.work(async |deps| take_run(deps, &munchkin(), &audience(), new).await);
        let fact = |inside| Fact { time, rank: RANK_FILE, inside };
        if taken.is_some() {
            self.seen.runs += 1;
        } else {
            self.seen.full += 1;
            for (ecids, inside) in [(&come, true), (&left, false)] {
                for n in ecids {
                    self.row(*n, Said::File(fact(inside)));
                }
            }
        }
        self.say(&come, fact(true));
        self.say(&left, fact(false));
    }

    fn stream(&mut self) {
        let (time, n, inside) = (self.told(), self.rng.random_range(0..ECIDS), self.rng.random_bool(0.5));
        self.row(n, Said::Stream(Streamed { changed: time, as_of: time, inside }));
        self.say(&BTreeSet::from([n]), Fact { time, rank: RANK_STREAM, inside });
    }

    fn full(&mut self) {
        let (as_of, members) = (self.told(), self.some());
        if self.snapshot.as_ref().is_some_and(|(known, _)| *known == as_of) {
            return;
        }
        let base = Base::new(members.iter().map(|n| ecid(*n)), as_of);
        self.work(async |deps| replace_base(deps, &munchkin(), &audience(), &base, as_of, None).await);
        if self.snapshot.as_ref().is_none_or(|(known, _)| *known < as_of) {
            self.snapshot = Some((as_of, members));
        }
    }

    fn expected(&self) -> BTreeSet<u64> {
        let as_of = self.snapshot.as_ref().map(|(as_of, _)| *as_of);
        let held = |n: &u64| self.snapshot.as_ref().is_some_and(|(_, members)| members.contains(n));
        (0..ECIDS).filter(|n| inside(held(n), as_of, self.said.get(n).copied())).collect()
    }

    fn head(&self) -> Option<Head> {
        run(load(&self.deps, Table::Audiences, &head_key(&munchkin(), &audience())))
            .expect("a table")
            .map(|doc: state::Doc<Head>| doc.value)
    }

    fn rows(&self) -> usize {
        self.sim.lock().tables.keys().filter(|(_, key)| key.sk.starts_with("e/")).count()
    }

    /// Folds what is old, while somebody has the audience open as it was.
    fn fold(&mut self) {
        let is_due = |world: &Self| world.head().is_some_and(|head| head.is_to_fold(&world.deps));
        if !is_due(self) {
            return;
        }
        let (deps, munchkin) = (self.deps.clone(), self.munchkin.clone());
        let open = || run(Members::open(&deps, &munchkin, &audience())).expect("open").expect("delivered");
        let (stale, rows, base) = (open(), self.rows(), self.head().and_then(|head| head.base));
        self.work(async |deps| {
            let members = Members::open(deps, &munchkin, &audience()).await?.expect("delivered");
            members.fold(deps.now() + 120_000).await
        });
        self.seen.folded += u64::from(self.head().and_then(|head| head.base) != base);
        self.seen.forgotten += (rows - self.rows()) as u64;
        assert!(!is_due(self), "nothing is left to fold for now");
        let all = (0..ECIDS).map(ecid).collect();
        if let Ok(found) = run(stale.which(&all)) {
            self.seen.stale += 1;
            assert_eq!(numbers(&found), self.expected(), "whoever had it open reads the same, or nothing");
        }
    }

    fn check(&self) {
        let Some(head) = self.head() else { return };
        assert!(head.runs.len() <= RUNS_KEPT);
        let as_of = head.base.as_ref().map(|base| base.as_of);
        assert!(head.runs.iter().all(|run| Some(run.time) >= as_of), "what is older than the base is gone");
        // By a cold process.
        let deps = Deps::new(self.sim.ports(), (*self.deps.settings).clone());
        let members = run(Members::open(&deps, &self.munchkin, &audience())).expect("open").expect("delivered");
        let (all, expected) = ((0..ECIDS).map(ecid).collect(), self.expected());
        let (found, ever) = run(members.which_and_ever(&all)).expect("read");
        assert_eq!(numbers(&found), expected);
        assert!(found.is_subset(&ever));
        assert_eq!(run(members.effective()).expect("read").rows(), rows(&expected));
        let said = run(members.said(&all)).expect("read");
        for n in 0..ECIDS {
            let (word, told) = (self.said.get(&n).copied(), said.get(&ecid(n)).copied());
            assert!(
                told == word || word.is_some_and(|word| Some(word.time) <= as_of),
                "{n}: {told:?} and not {word:?}"
            );
        }
        if !self.rough {
            let sets = head.runs.into_iter().flat_map(|run| run.into_sets()).chain(head.base);
            let named: BTreeSet<String> = sets.map(|set| set.key).collect();
            let stored: BTreeSet<String> = self.sim.lock().objects.keys().cloned().collect();
            assert_eq!(stored, named, "what nobody names is deleted");
        }
    }
}

fn numbers(ecids: &BTreeSet<Ecid>) -> BTreeSet<u64> {
    ecids.iter().map(|ecid| u64::try_from(ecid.number()).expect("a small one")).collect()
}

#[test]
fn the_latest_word_counts_as_a_row_and_in_a_run_and_folded() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let mut world = World::new(seed);
        // Now and then, or one upon the other.
        let pause = if seed % 3 == 0 { 10 * MINUTE } else { 6 * HOUR };
        let snapshots = seed % 5 != 0;
        world.sim.lock().now += LATE;
        for number in 0..80 {
            match world.rng.random_range(0..10) {
                0..=4 => world.delivery(number),
                5..=7 => world.stream(),
                8 if snapshots => world.full(),
                _ => {}
            }
            world.check();
            let pause = world.rng.random_range(0..pause);
            world.sim.lock().now += pause;
            world.fold();
            world.check();
        }
        let Seen { runs, full, folded, forgotten, cut, stale } = world.seen;
        all.runs += runs;
        all.full += full;
        all.folded += folded;
        all.forgotten += forgotten;
        all.cut += cut;
        all.stale += stale;
    }
    let Seen { runs, full, folded, forgotten, cut, stale } = all;
    assert!([runs, full, folded, forgotten, cut, stale].iter().all(|count| *count > 0), "{all:?}");
}

#[test]
fn of_rows_that_cannot_be_read_in_time_as_many_are_forgotten_as_can_and_the_rest_later() {
    let mut world = World::new(0);
    world.sim.lock().now += LATE;
    let time = world.now();
    let say = |world: &mut World, n, time, inside| world.row(n, Said::File(Fact { time, rank: RANK_FILE, inside }));
    (0..2_500).for_each(|n| say(&mut world, n, time, n % 2 == 0));
    say(&mut world, 5_000, time + 1, true);
    let fold = |world: &World, ms: u64| {
        assert!(world.head().is_some_and(|head| head.is_to_fold(&world.deps)));
        let members = run(Members::open(&world.deps, &world.munchkin, &audience())).expect("open").expect("delivered");
        run(members.fold(world.deps.now() + 40_000 + ms)).expect("folded");
    };
    let members = |world: &World| world.head().and_then(|head| head.base).map(|base| base.count);
    // None of them counts for nobody yet, so that to read some of them again would help nobody.
    world.sim.lock().now += 25 * HOUR;
    fold(&world, 1);
    assert!(members(&world).is_none() && !world.head().is_some_and(|head| head.is_to_fold(&world.deps)), "another day");
    world.sim.lock().now += 25 * HOUR;
    fold(&world, 60_000);
    assert_eq!((members(&world), world.rows()), (Some(1_251), 2_501));
    let time = world.now();
    say(&mut world, 1, time, true);
    say(&mut world, 9_999, time, true);
    world.sim.lock().now += 25 * HOUR;
    for (ms, left) in [(1, 1_503), (1, 504), (60_000, 3)] {
        fold(&world, ms);
        assert_eq!(world.rows(), left);
    }
    assert_eq!(members(&world), Some(1_253), "with what was not folded before");
    assert!(!world.head().is_some_and(|head| head.is_to_fold(&world.deps)));
}
