//! The members of an audience in the order of their rows: what a snapshot holds, with what was said beside it folded in.

use std::sync::Arc;

use domain::base::{Base, fold};
use domain::fact::{Fact, inside};

use crate::Step;
use crate::bases::Reader;

/// Rows of one set that are taken in a step, at most. Ours: what is taken stands in memory once more, of each of the sets.
const STEP: usize = 1 << 15;

/// The rows of one set, ascending: a piece of them stands in memory.
pub(crate) struct Ascending<'a> {
    piece: Piece,
    /// Rows of the piece that were taken.
    taken: usize,
    rest: Option<Reader<'a, u128>>,
}

enum Piece {
    Shared(Arc<Base>),
    Own(Vec<u128>),
}

impl<'a> Ascending<'a> {
    pub(crate) const fn none() -> Self {
        Self { piece: Piece::Own(Vec::new()), taken: 0, rest: None }
    }

    pub(crate) const fn of(set: Arc<Base>) -> Self {
        Self { piece: Piece::Shared(set), taken: 0, rest: None }
    }

    pub(crate) const fn read(reader: Reader<'a, u128>) -> Self {
        Self { piece: Piece::Own(Vec::new()), taken: 0, rest: Some(reader) }
    }

    fn left(&self) -> &[u128] {
        let all = match &self.piece {
            Piece::Shared(set) => set.rows(),
            Piece::Own(rows) => rows,
        };
        &all[self.taken..]
    }

    /// Sees to it that a row stands in memory, if any is left.
    async fn fill(&mut self) -> Step<()> {
        while self.left().is_empty() {
            let Some(reader) = &mut self.rest else { return Ok(()) };
            match reader.next().await? {
                Some(rows) => (self.piece, self.taken) = (Piece::Own(rows), 0),
                None => self.rest = None,
            }
        }
        Ok(())
    }

    /// The last row of a step as far as this set is concerned; `None`: all of its rows can be taken.
    fn bound(&self, step: usize) -> Option<u128> {
        let left = self.left();
        match left.get(step - 1) {
            Some(row) if left.len() > step => Some(*row),
            _ => left.last().copied().filter(|_| self.rest.is_some()),
        }
    }

    /// The rows that stand in memory up to this one (`None`: all).
    fn take(&mut self, end: Option<u128>) -> &[u128] {
        let left = self.left();
        let count = end.map_or(left.len(), |end| left.partition_point(|row| *row <= end));
        self.taken += count;
        let Self { piece, taken, .. } = self;
        let all = match piece {
            Piece::Shared(set) => set.rows(),
            Piece::Own(rows) => rows,
        };
        &all[*taken - count..*taken]
    }

    /// All rows that stand in memory.
    fn take_piece(&mut self) -> Vec<u128> {
        match std::mem::replace(&mut self.piece, Piece::Own(Vec::new())) {
            Piece::Own(rows) if self.taken == 0 => rows,
            Piece::Own(rows) => rows[std::mem::take(&mut self.taken)..].to_vec(),
            Piece::Shared(set) => set.rows()[std::mem::take(&mut self.taken)..].to_vec(),
        }
    }
}

/// The members of an audience, ascending by [`domain::base::mix`], piece by piece: of each set one piece stands in memory, and
/// the words of rows.
pub struct Rows<'a> {
    base: Ascending<'a>,
    as_of: Option<u64>,
    /// Sets of ECIDs of which the same was said.
    runs: Vec<(Fact, Ascending<'a>)>,
    /// What rows say, ascending.
    said: Vec<(u128, Fact)>,
    /// Words of rows that are folded in.
    folded: usize,
    step: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(
        base: Ascending<'a>,
        as_of: Option<u64>,
        runs: Vec<(Fact, Ascending<'a>)>,
        mut said: Vec<(u128, Fact)>,
    ) -> Self {
        said.sort_unstable_by_key(|(row, _)| *row);
        Self { base, as_of, runs, said, folded: 0, step: STEP }
    }

    /// The next members; `None`: that were all.
    pub async fn next(&mut self) -> Step<Option<Vec<u128>>> {
        loop {
            self.base.fill().await?;
            for (_, run) in &mut self.runs {
                run.fill().await?;
            }
            self.runs.retain(|(_, run)| !run.left().is_empty());
            if self.runs.is_empty() && self.folded == self.said.len() {
                let rows = self.base.take_piece();
                return Ok((!rows.is_empty()).then_some(rows));
            }
            let members = self.step();
            if !members.is_empty() {
                return Ok(Some(members));
            }
        }
    }

    /// Folds what stands in memory, as far as no set that is still read can have rows.
    fn step(&mut self) -> Vec<u128> {
        let sets = std::iter::once(&self.base).chain(self.runs.iter().map(|(_, run)| run));
        let end = sets.filter_map(|set| set.bound(self.step)).min();
        let said = &self.said[self.folded..];
        let count = end.map_or(said.len(), |end| said.partition_point(|(row, _)| *row <= end));
        let mut facts = said[..count].to_vec();
        self.folded += count;
        for (fact, run) in &mut self.runs {
            facts.extend(run.take(end).iter().map(|row| (*row, *fact)));
        }
        facts.sort_unstable_by_key(|(row, fact)| (*row, fact.order()));
        let latest = facts.chunk_by(|(one, _), (next, _)| one == next).filter_map(<[_]>::last);
        // An older word than the snapshot's says nothing: the ECID is in where the snapshot holds it.
        let words: Vec<(u128, bool)> = latest
            .filter_map(|(row, fact)| {
                let held = inside(true, self.as_of, Some(*fact));
                (held == inside(false, self.as_of, Some(*fact))).then_some((*row, held))
            })
            .collect();
        let rows = self.base.take(end);
        let mut members = Vec::with_capacity(rows.len() + words.len());
        fold(rows, &mut &words[..], true, &mut members);
        members
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use domain::fact::{RANK_FILE, RANK_STREAM, latest};
    use futures::FutureExt as _;

    use super::*;

    fn set(rows: &BTreeSet<u128>) -> Ascending<'static> {
        Ascending::of(Arc::new(Base::of_rows(rows.iter().copied().collect(), 0)))
    }

    proptest::proptest! {
        #[test]
        fn whoever_is_in_by_the_latest_word_is_a_member(
            base in proptest::option::of(proptest::collection::btree_set(0..50_u128, 0..40)),
            runs in proptest::collection::vec(
                (1..9_u64, proptest::bool::ANY, proptest::collection::btree_set(0..50_u128, 0..30)), 0..6),
            said in proptest::collection::btree_map(0..50_u128, (1..9_u64, proptest::bool::ANY, proptest::bool::ANY), 0..20),
            step in 1..40_usize,
        ) {
            let as_of = base.as_ref().map(|_| 4);
            let runs: Vec<(Fact, BTreeSet<u128>)> = runs
                .into_iter()
                .map(|(time, inside, rows)| (Fact { time, rank: RANK_FILE, inside }, rows))
                .collect();
            let rank = |stream| if stream { RANK_STREAM } else { RANK_FILE };
            let said: BTreeMap<u128, Fact> = said
                .into_iter()
                .map(|(row, (time, inside, stream))| (row, Fact { time, rank: rank(stream), inside }))
                .collect();
            let is_member = |row: &u128| {
                let of_runs = runs.iter().filter(|(_, rows)| rows.contains(row)).map(|(fact, _)| *fact);
                let word = of_runs.chain(said.get(row).copied()).fold(None, |word, fact| latest(word, Some(fact)));
                inside(base.as_ref().is_some_and(|base| base.contains(row)), as_of, word)
            };
            let expected: Vec<u128> = (0..50).filter(is_member).collect();

            let sets = runs.iter().map(|(fact, rows)| (*fact, set(rows))).collect();
            let words = said.iter().rev().map(|(row, fact)| (*row, *fact)).collect();
            let mut rows = Rows::new(base.as_ref().map_or(Ascending::none(), set), as_of, sets, words);
            rows.step = step;
            let mut found = Vec::new();
            while let Some(mut piece) = rows.next().now_or_never().unwrap().unwrap() {
                proptest::prop_assert!(!piece.is_empty());
                found.append(&mut piece);
            }
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
