//! Facts about membership, and their total order.

use serde::{Deserialize, Serialize};

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
        (self.time, self.rank, !self.inside) > (other.time, other.rank, !other.inside)
    }
}

/// Whether an ECID is in the audience, from the snapshot's word (taken at `as_of`) and the overlay's.
#[must_use]
pub fn inside(in_base: bool, as_of: Option<u64>, overlay: Option<Fact>) -> bool {
    let base = as_of.map(|time| Fact { time, rank: RANK_FILE, inside: in_base });
    match (base, overlay) {
        (Some(base), Some(overlay)) if overlay.beats(base) => overlay.inside,
        (Some(base), _) => base.inside,
        (None, Some(overlay)) => overlay.inside,
        (None, None) => false,
    }
}

/// Rank of facts that come from files.
pub const RANK_FILE: u8 = 1;

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
}
