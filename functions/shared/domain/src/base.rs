//! A big set of ECIDs as one immutable object: 16 bytes a member, ordered by a hash that can be undone, with a
//! fence every 256 rows, so that one member is found by one ranged read of 4 KB.

use std::num::NonZero;
use std::thread::available_parallelism;

use crate::Ecid;
use crate::rows::{self, Encoder, Row};
pub use crate::rows::{FENCE_ROWS, HEADER};

/// Bytes of a row.
pub const ROW: u64 = 16;
const FACTOR: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;

/// A member's row: what [`mix`] makes of its ECID.
impl Row for u128 {
    const SIZE: u64 = ROW;
    const MAGIC: [u8; 4] = *b"ASB2";
    const END: [u8; 4] = *b"2BSA";
    const FENCED: bool = true;

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn take(bytes: &[u8], out: &mut Vec<Self>) {
        out.extend(bytes.as_chunks().0.iter().map(|row| u128::from_be_bytes(*row)));
    }
}

/// Spreads ECIDs evenly over all `u128`; one to one. (An odd factor and a shift can both be undone; the factor
/// is 2^128 divided by the golden ratio.)
#[must_use]
pub const fn mix(ecid: Ecid) -> u128 {
    let mut x = ecid.number();
    x ^= x >> 67;
    x = x.wrapping_mul(FACTOR);
    x ^= x >> 61;
    x
}

/// The ECID of a row; `None`: no ECID has this row.
#[must_use]
pub const fn unmix(row: u128) -> Option<Ecid> {
    // The factor's inverse modulo 2^128, by Newton's method: each step doubles the bits that are right, from the first three.
    const INVERSE: u128 = {
        let mut inverse = FACTOR;
        let mut step = 0;
        while step < 6 {
            inverse = inverse.wrapping_mul(2_u128.wrapping_sub(FACTOR.wrapping_mul(inverse)));
            step += 1;
        }
        inverse
    };
    let mut x = row ^ (row >> 61) ^ (row >> 122);
    x = x.wrapping_mul(INVERSE);
    x ^= x >> 67;
    Ecid::from_number(x)
}

/// Fewer rows than this are sorted sooner than another thread has begun. Ours.
const MANY: usize = 1 << 17;

/// Brings rows into their order, in place and on all cores, and leaves each once.
pub fn sort(rows: &mut Vec<u128>) {
    let cores = if rows.len() < MANY { 1 } else { available_parallelism().map_or(1, NonZero::get) };
    sort_halves(rows, 127, cores);
    rows.dedup();
}

/// Rows are spread evenly ([`mix`]): half of them has a bit, which all those above it have in common.
fn sort_halves(rows: &mut [u128], bit: u32, cores: usize) {
    if cores < 2 || bit == 0 {
        rows.sort_unstable();
        return;
    }
    let mut without = 0;
    for at in 0..rows.len() {
        // Without a branch: nobody can guess the bit.
        let lacks = rows[at] >> bit & 1 == 0;
        rows.swap(at, without);
        without += usize::from(lacks);
    }
    let (low, high) = rows.split_at_mut(without);
    std::thread::scope(|scope| {
        scope.spawn(|| sort_halves(low, bit - 1, cores / 2));
        sort_halves(high, bit - 1, cores / 2);
    });
}

/// A whole set in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base {
    rows: Vec<u128>,
    as_of: u64,
}

impl Base {
    /// A set of ECIDs, in any order, duplicates allowed. `as_of` in ms.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = Ecid>, as_of: u64) -> Self {
        let mut rows: Vec<u128> = members.into_iter().map(mix).collect();
        sort(&mut rows);
        Self { rows, as_of }
    }

    /// How many members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When this was so, in ms.
    #[must_use]
    pub const fn as_of(&self) -> u64 {
        self.as_of
    }

    /// A set of rows that ascend, none twice.
    #[must_use]
    pub fn of_rows(rows: Vec<u128>, as_of: u64) -> Self {
        debug_assert!(rows.is_sorted_by(|one, next| one < next));
        Self { rows, as_of }
    }

    /// The row of a member, counted from 0; `None` if it is not in the set.
    #[must_use]
    pub fn row(&self, ecid: Ecid) -> Option<usize> {
        self.rows.binary_search(&mix(ecid)).ok()
    }

    /// The rows, ascending: what [`mix`] makes of each member.
    #[must_use]
    pub fn rows(&self) -> &[u128] {
        &self.rows
    }

    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.rows.len() * 16 + self.rows.len() / 16 + 48);
        let mut encoder = Encoder::begin(self.as_of, &mut bytes);
        encoder.rows(&self.rows, &mut bytes);
        encoder.end(&mut bytes);
        bytes
    }

    /// Reads what [`Base::encode`] wrote; `None` if the bytes are cut, altered or something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rows::decode(bytes).map(|(rows, as_of)| Self { rows, as_of })
    }
}

/// How many of some rows the others do not hold. Both ascend; `others` is then at the first row that may still be of
/// interest to rows that come after these.
pub fn absent(rows: &[u128], others: &mut &[u128]) -> usize {
    let mut rest = *others;
    let absent = rows
        .iter()
        .filter(|row| {
            while rest.first().is_some_and(|other| other < *row) {
                rest = &rest[1..];
            }
            rest.first() != Some(row)
        })
        .count();
    *others = rest;
    absent
}

/// A piece of a set with what was said since folded in: rows and whether each is in. All ascend. `said` is then at the first
/// word that comes after the piece; with `is_last` nothing does.
pub fn fold(rows: &[u128], said: &mut &[(u128, bool)], is_last: bool, out: &mut Vec<u128>) {
    let mut words = *said;
    for row in rows {
        while let Some(((word, inside), rest)) = words.split_first().filter(|((word, _), _)| word < row) {
            if *inside {
                out.push(*word);
            }
            words = rest;
        }
        match words.split_first() {
            Some(((word, inside), rest)) if word == row => {
                words = rest;
                if *inside {
                    out.push(*row);
                }
            }
            _ => out.push(*row),
        }
    }
    if is_last {
        out.extend(words.iter().filter(|(_, inside)| *inside).map(|(word, _)| *word));
        words = &[];
    }
    *said = words;
}

fn read_rows(bytes: &[u8]) -> Vec<u128> {
    bytes.chunks_exact(16).filter_map(|row| row.try_into().ok().map(u128::from_be_bytes)).collect()
}

/// Where the fences of a set of so many members stand: offset and length in bytes. `None`: no object is so long.
#[must_use]
pub const fn fences_at(count: u64) -> Option<(u64, u64)> {
    rows::fences_at::<u128>(count)
}

/// The fences of a set: enough to find the block that would hold a member.
#[derive(Debug, Clone)]
pub struct Fences(Vec<u128>);

impl Fences {
    /// From the bytes at [`fences_at`].
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self(read_rows(bytes))
    }

    /// Offset and length in bytes of the block that holds the ECID if any does; `None`: it is not in the set.
    #[must_use]
    pub fn block(&self, ecid: Ecid, count: u64) -> Option<(u64, u64)> {
        let index = self.0.partition_point(|fence| *fence <= mix(ecid)).checked_sub(1)? as u64;
        let first = index * FENCE_ROWS;
        Some((HEADER + first * ROW, (count - first).min(FENCE_ROWS) * ROW))
    }
}

/// Whether a block (the bytes at [`Fences::block`]) holds the ECID.
#[must_use]
pub fn block_holds(block: &[u8], ecid: Ecid) -> bool {
    read_rows(block).binary_search(&mix(ecid)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Check, trailer_at};

    fn ecid(n: u128) -> Ecid {
        Ecid::from_number(n).unwrap()
    }

    #[test]
    fn every_member_is_found_whole_and_by_block_and_nobody_else_is() {
        let base = Base::new((0..1000).map(|n| ecid(n * 7)), 42);
        let bytes = base.encode();
        assert_eq!(Base::decode(&bytes).unwrap(), base);
        let (from, len) = fences_at(1000).unwrap();
        let fences = Fences::decode(&bytes[from as usize..(from + len) as usize]);
        for n in 0..7000 {
            let inside = n % 7 == 0;
            assert_eq!(base.row(ecid(n)).is_some(), inside);
            let by_block = fences
                .block(ecid(n), 1000)
                .is_some_and(|(from, len)| block_holds(&bytes[from as usize..(from + len) as usize], ecid(n)));
            assert_eq!(by_block, inside);
        }
    }

    #[test]
    fn an_ecid_comes_back_from_its_row() {
        for n in (0..1_000).chain((0..38).map(|digits| 10_u128.pow(digits) - 1)).chain([10_u128.pow(38) - 1]) {
            assert_eq!(unmix(mix(ecid(n))), Some(ecid(n)));
        }
    }

    #[test]
    fn cut_or_altered_bytes_are_refused() {
        let bytes = Base::new((0..300).map(ecid), 1).encode();
        for cut in 0..bytes.len() {
            assert_eq!(Base::decode(&bytes[..cut]), None);
        }
        let fences = fences_at(300).unwrap();
        // Fences lead to rows, and what they lead to is compared with what is looked for: they are not checked.
        let unchecked = 8..16;
        for at in (0..bytes.len()).filter(|at| !unchecked.contains(at) && !within(fences, *at)) {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(Base::decode(&altered), None, "{at}");
        }
        assert!(Base::decode(&Base::default().encode()).unwrap().is_empty());
        assert_eq!(fences_at(u64::MAX), None);
    }

    fn within((from, length): (u64, u64), at: usize) -> bool {
        (from..from + length).contains(&(at as u64))
    }

    #[test]
    fn a_set_that_is_written_and_read_by_pieces_is_the_same() {
        let base = Base::new((0..2_000).map(|n| ecid(n * 11)), 9);
        for size in [1, 255, 256, 257, 5_000] {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::begin(9, &mut bytes);
            for rows in base.rows().chunks(size) {
                encoder.rows(rows, &mut bytes);
            }
            assert_eq!(encoder.end(&mut bytes), 2_000);
            assert_eq!(bytes, base.encode());
            let mut check = Check::<u128>::new(2_000);
            let mut rows: Vec<u128> = Vec::new();
            for piece in bytes[HEADER as usize..][..2_000 * ROW as usize].chunks(size * ROW as usize) {
                check.look(piece);
                Row::take(piece, &mut rows);
            }
            let (from, length) = trailer_at::<u128>(2_000).unwrap();
            assert_eq!(from + length, bytes.len() as u64);
            assert!(check.is_whole(&bytes[from as usize..]));
            assert_eq!(rows, base.rows());
        }
    }

    #[test]
    fn rows_are_in_their_order_on_any_number_of_cores() {
        let mut all: Vec<u128> = (0..u128::try_from(MANY).unwrap()).map(|n| mix(ecid(n * n % 100_003))).collect();
        let expected: Vec<u128> = std::collections::BTreeSet::from_iter(all.clone()).into_iter().collect();
        for cores in 1..6 {
            let mut rows = all.clone();
            sort_halves(&mut rows, 127, cores);
            assert!(rows.is_sorted());
        }
        sort(&mut all);
        assert_eq!(all, expected);
        // Not spread at all.
        let mut few = vec![3, 1, 2, 1];
        sort(&mut few);
        assert_eq!(few, [1, 2, 3]);
        sort_halves(&mut few, 127, 8);
        assert_eq!(few, [1, 2, 3]);
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_folded_and_compared_as_whole_sets_are(
            rows in proptest::collection::btree_set(0..60_u128, 0..40),
            said in proptest::collection::btree_map(0..60_u128, proptest::bool::ANY, 0..40),
            others in proptest::collection::btree_set(0..60_u128, 0..40),
            size in 1..50_usize,
        ) {
            let rows: Vec<u128> = rows.into_iter().collect();
            let mut expected: std::collections::BTreeSet<u128> = rows.iter().copied().collect();
            for (row, inside) in &said {
                if *inside { expected.insert(*row); } else { expected.remove(row); }
            }
            let said: Vec<(u128, bool)> = said.into_iter().collect();
            let (mut left, mut folded) = (&said[..], Vec::new());
            for piece in rows.chunks(size) {
                fold(piece, &mut left, false, &mut folded);
            }
            fold(&[], &mut left, true, &mut folded);
            proptest::prop_assert!(left.is_empty());
            proptest::prop_assert_eq!(&folded, &expected.into_iter().collect::<Vec<_>>());

            let sorted: Vec<u128> = others.iter().copied().collect();
            let mut left = &sorted[..];
            let counted: usize = rows.chunks(size).map(|piece| absent(piece, &mut left)).sum();
            proptest::prop_assert_eq!(counted, rows.iter().filter(|row| !others.contains(row)).count());
        }
    }
}
