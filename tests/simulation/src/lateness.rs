//! How late a fact shows in Marketo's lists while nothing goes wrong and nobody looks for rings that were lost: each within a
//! bound of its kind.

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng as _;

use crate::kinds::{Kind, Kinds};
use crate::scenario::{ECIDS, FileOf, LEADS, SIDS, Scenario, Streamed, TOKENS};

/// Facts that come one after the other at the end of a world.
const FACTS: usize = 3;

/// What brings somebody into a list or takes them out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// A browser shows an ECID beside a token.
    Match,
    /// A stream says of one ECID that it is in an audience, or has left it.
    Stream,
    /// A file comes, whole.
    File,
    /// A form ties a cookie to an email, and Marketo's log of activities alone tells of it.
    Form,
    /// Marketo's record of somebody changes, and its log of activities alone tells of it.
    Lead,
    /// Two people become one in Marketo, and its log of activities alone tells of it.
    Merge,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Match, Self::Stream, Self::File, Self::Form, Self::Lead, Self::Merge];

    /// The lists show it within this time, in ms. Ours: what is told to us takes seconds; Marketo's log of activities is read
    /// each minute, and whoever it names may have to be asked about after that.
    #[must_use]
    pub const fn bound_ms(self) -> u64 {
        let minutes = match self {
            Self::Match | Self::Stream | Self::File => 5,
            Self::Form | Self::Lead | Self::Merge => 10,
        };
        minutes * 60_000
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Match => "match",
            Self::Stream => "entry of a stream",
            Self::File => "file",
            Self::Form => "form",
            Self::Lead => "change of a lead",
            Self::Merge => "merge",
        })
    }
}

/// How many facts changed who is wanted, and how long the slowest of them took, in ms; by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lateness(BTreeMap<Fact, (u64, u64)>);

impl Lateness {
    fn note(&mut self, fact: Fact, took_ms: u64) {
        let (times, slowest) = self.0.entry(fact).or_default();
        *times += 1;
        *slowest = took_ms.max(*slowest);
    }

    /// Adds what was seen elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (fact, (times, slowest)) in &other.0 {
            let mine = self.0.entry(*fact).or_default();
            *mine = (mine.0 + times, mine.1.max(*slowest));
        }
    }

    /// Each kind of fact: how many changed who is wanted, and how long the slowest took, in ms.
    pub fn iter(&self) -> impl Iterator<Item = (Fact, u64, u64)> {
        self.0.iter().map(|(fact, (times, slowest))| (*fact, *times, *slowest))
    }
}

impl Scenario {
    /// In a world at rest in which nobody looks for lost rings, some facts come, one after the other: each shows in the lists
    /// within its bound. Not where other tools have used up the calls: then whoever is wanted waits for the next day.
    pub(crate) fn last_facts(&mut self) -> Result<(), String> {
        let follows = self.syncs.iter().any(|sync| !sync.over);
        if !self.driver.sweep_is_off || !follows || self.kinds.has(Kind::OtherTools) {
            return Ok(());
        }
        self.kinds = Kinds::happenings();
        for _ in 0..FACTS {
            let fact = Fact::ALL[self.rng.random_range(0..Fact::ALL.len())];
            let before = self.wanted_anywhere();
            let began = self.now();
            self.tell_fact(fact);
            if self.wanted_anywhere() != before {
                let took = self.until_lists_show(fact, began)?;
                self.lateness.note(fact, took);
            }
            self.settle()?;
        }
        self.check()
    }

    fn tell_fact(&mut self, fact: Fact) {
        let now = self.now();
        match fact {
            Fact::Match => {
                let (e, t) = (self.any(ECIDS), self.any(TOKENS));
                self.see(e, t);
            }
            Fact::Stream => {
                let (sid, ecid, inside) = (self.any_sid(), self.any(ECIDS), self.rng.random_bool(0.6));
                self.hear(Streamed { sid, ecid, changed: now, as_of: now, inside });
            }
            Fact::File => {
                let inside = BTreeMap::from([(self.any_sid(), self.some_ecids(0.4))]);
                let snapshot = inside.values().all(|ecids| !ecids.is_empty()) && self.rng.random_bool(0.5);
                let outside = BTreeMap::from([(self.any_sid(), self.some_ecids(0.4))]);
                let outside = if snapshot { BTreeMap::new() } else { outside };
                self.deliver(now, FileOf { snapshot, inside, outside });
            }
            Fact::Form => self.random_form(),
            Fact::Lead => self.random_lead(),
            Fact::Merge => {
                let (winner, loser) = (self.any(LEADS), self.any(LEADS));
                self.merge(winner, loser);
            }
        }
    }

    fn any_sid(&mut self) -> u64 {
        SIDS[self.rng.random_range(0..SIDS.len())]
    }

    /// Runs until the lists are as the model says. Returns how long that took, in ms.
    fn until_lists_show(&mut self, fact: Fact, began: u64) -> Result<u64, String> {
        loop {
            if self.driver.step() {
                continue;
            }
            let took = self.now() - began;
            let Err(wrong) = self.check_lists() else { return Ok(took) };
            if took > fact.bound_ms() {
                return Err(format!("a {fact} is not in the lists after {} s: {wrong}", took / 1_000));
            }
            self.driver.leap();
        }
    }
}
