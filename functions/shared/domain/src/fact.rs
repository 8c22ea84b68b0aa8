//! Facts about membership, and their total order.

use serde::{Deserialize, Serialize};

use crate::planted::{Guard, holds};

/// What a source said about one ECID and one audience. Facts are ordered by time, then by the rank of the
/// source; at a tie an exit wins. So the order of arrival never matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// When it was so, in milliseconds since the epoch.
    pub time: u64,
    /// Rank of the source; higher wins at the same time.
    pub rank: u8,
    /// In the audience, or out of it.
    pub inside: bool,
}

impl Fact {
    /// Whether this fact takes the place of `other`.
    #[must_use]
    pub fn beats(self, other: Fact) -> bool {
        self.order() > other.order()
    }

    /// Its place in the total order.
    #[must_use]
    pub const fn order(self) -> (u64, u8, bool) {
        (self.time, self.rank, !self.inside)
    }
}

/// The one of two facts that counts.
#[must_use]
pub fn latest(one: Option<Fact>, other: Option<Fact>) -> Option<Fact> {
    one.into_iter().chain(other).max_by_key(|fact| fact.order())
}

/// Whether an ECID is in the audience, from the snapshot's word (taken at `as_of`) and the overlay's.
#[must_use]
pub fn inside(in_base: bool, as_of: Option<u64>, overlay: Option<Fact>) -> bool {
    let base = as_of.map(|time| Fact { time, rank: RANK_FILE, inside: in_base });
    match (base, overlay) {
        (Some(base), Some(overlay)) if overlay.beats(base) && holds(Guard::WordsSurviveSnapshots) => overlay.inside,
        (Some(base), _) => base.inside,
        (None, Some(overlay)) => overlay.inside,
        (None, None) => false,
    }
}

/// Rank of facts that come from files.
pub const RANK_FILE: u8 = 1;
/// Rank of facts that come from streams: at the same time they are the newer word.
pub const RANK_STREAM: u8 = 2;

/// What a stream said about one ECID and one audience.
///
/// Among streams the later change counts (`changed`), at a tie an exit. Against files and snapshots it stands for the
/// time at which the source vouched for it (`as_of`): Experience Platform repeats every membership of a profile whenever
/// something about the profile changes, and leaves the time of the change as it was, so that a new ECID of an old member
/// comes with an old `changed`. Audience Manager does not vouch: there both times are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// When it changed, in ms since the epoch.
    pub changed: u64,
    /// Up to when it is known to have been so, in ms since the epoch; never before `changed`.
    pub as_of: u64,
    /// In the audience, or out of it.
    pub inside: bool,
}

impl Streamed {
    /// Whether this takes the place of `other`. A total order, so that the order of arrival never matters.
    #[must_use]
    pub fn beats(self, other: Streamed) -> bool {
        (self.changed, !self.inside, self.as_of) > (other.changed, !other.inside, other.as_of)
    }
}

/// Everything that was said about one ECID and one audience, apart from snapshots: one word of files and one of streams,
/// each by its own order. Were there a single place for both, three facts of two orders could beat one another in a
/// circle, and the order of arrival would count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// The latest word of a file.
    pub file: Option<Fact>,
    /// The latest word of a stream.
    pub stream: Option<Streamed>,
}

impl Told {
    /// Takes in what a file says. Returns whether that changes anything.
    pub fn by_file(&mut self, fact: Fact) -> bool {
        let newer = self.file.is_none_or(|known| fact.beats(known)) || !holds(Guard::LaterWordCounts);
        if newer {
            self.file = Some(fact);
        }
        newer
    }

    /// Takes in what a stream says. Returns whether that changes anything.
    pub fn by_stream(&mut self, said: Streamed) -> bool {
        let newer = self.stream.is_none_or(|known| said.beats(known)) || !holds(Guard::LaterWordCounts);
        if newer {
            self.stream = Some(said);
        }
        newer
    }

    /// What counts beside a snapshot.
    #[must_use]
    pub fn word(self) -> Option<Fact> {
        let stream =
            self.stream.map(|said| Fact { time: said.as_of.max(said.changed), rank: RANK_STREAM, inside: said.inside });
        latest(self.file, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_beats_earlier_and_an_exit_wins_a_tie() {
        let fact = |time, inside| Fact { time, rank: RANK_FILE, inside };
        assert!(fact(2, true).beats(fact(1, false)));
        assert!(!fact(1, false).beats(fact(2, true)));
        assert!(fact(1, false).beats(fact(1, true)));
        assert!(!fact(1, true).beats(fact(1, false)));
        assert!(!fact(1, true).beats(fact(1, true)));
        for (one, other) in [(fact(2, true), fact(1, false)), (fact(1, false), fact(1, true))] {
            assert_eq!(latest(Some(other), Some(one)), Some(one));
            assert_eq!(latest(Some(one), Some(other)), Some(one));
        }
        assert_eq!(latest(None, Some(fact(1, true))), Some(fact(1, true)));
        assert_eq!(latest(None, None), None);
    }

    #[test]
    fn overlay_rows_newer_than_the_snapshot_survive_it() {
        let out = Fact { time: 5, rank: RANK_FILE, inside: false };
        assert!(!inside(true, Some(4), Some(out)));
        assert!(inside(true, Some(6), Some(out)));
        assert!(!inside(true, Some(5), Some(out)));
        assert!(!inside(false, None, None));
        assert!(inside(false, None, Some(Fact { inside: true, ..out })));
    }

    #[test]
    fn what_counts_does_not_depend_on_the_order_of_arrival() {
        enum Said {
            File(Fact),
            Stream(Streamed),
        }
        let mut all = Vec::new();
        for time in 1..=3 {
            for inside in [true, false] {
                all.push(Said::File(Fact { time, rank: RANK_FILE, inside }));
                for as_of in time..=4 {
                    all.push(Said::Stream(Streamed { changed: time, as_of, inside }));
                }
            }
        }
        let take = |told: &mut Told, said: &Said| match *said {
            Said::File(fact) => told.by_file(fact),
            Said::Stream(streamed) => told.by_stream(streamed),
        };
        for a in &all {
            for b in &all {
                for c in &all {
                    let told = |order: [&Said; 3]| {
                        let mut told = Told::default();
                        for said in order {
                            take(&mut told, said);
                            assert!(!take(&mut told, said), "a repeat changes nothing");
                        }
                        told.word()
                    };
                    let first = told([a, b, c]);
                    for order in [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
                        assert_eq!(told(order), first);
                    }
                }
            }
        }
    }

    #[test]
    fn a_platform_that_repeats_an_old_membership_vouches_for_it_anew() {
        let mut told = Told::default();
        // A new ECID of an old member, after a snapshot that did not hold it.
        told.by_stream(Streamed { changed: 10, as_of: 100, inside: true });
        assert!(inside(false, Some(50), told.word()));
        assert!(!inside(false, Some(150), told.word()));
        // The exit keeps the time of the entry: at a tie it wins.
        told.by_stream(Streamed { changed: 10, as_of: 120, inside: false });
        assert!(!inside(true, Some(50), told.word()));
        assert!(!told.by_stream(Streamed { changed: 10, as_of: 130, inside: true }));
    }
}
