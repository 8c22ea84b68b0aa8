//! A big set of ECIDs as one immutable object: 16 bytes a member, ordered by a hash that can be undone, with a
//! fence every 256 rows, so that one member is found by one ranged read of 4 KB.
//!
//! Layout, big-endian: header (magic `ASB1`, CRC-32 of the rows, count u64, as-of u64), rows, fences.

use crate::Ecid;

/// Rows between two fences: 256 × 16 bytes = 4 KB, one ranged read.
pub const FENCE_ROWS: u64 = 256;
/// Bytes of the header.
pub const HEADER: u64 = 24;
const ROW: u64 = 16;
const MAGIC: &[u8; 4] = b"ASB1";

/// Spreads ECIDs evenly over all `u128`; one to one. (An odd factor and a shift can both be undone; the factor
/// is 2^128 divided by the golden ratio.)
#[must_use]
pub const fn mix(ecid: Ecid) -> u128 {
    let mut x = ecid.number();
    x ^= x >> 67;
    x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    x ^= x >> 61;
    x
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
        rows.sort_unstable();
        rows.dedup();
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

    /// The row of a member, counted from 0; `None` if it is not in the set.
    #[must_use]
    pub fn row(&self, ecid: Ecid) -> Option<usize> {
        self.rows.binary_search(&mix(ecid)).ok()
    }

    /// How many members the other set does not hold.
    #[must_use]
    pub fn absent_from(&self, other: &Base) -> usize {
        self.rows.iter().filter(|row| other.rows.binary_search(row).is_err()).count()
    }

    /// The same set with `add` in and `remove` out (a member in both is out).
    #[must_use]
    pub fn with(&self, add: impl IntoIterator<Item = Ecid>, remove: impl IntoIterator<Item = Ecid>) -> Self {
        let mut out: Vec<u128> = remove.into_iter().map(mix).collect();
        out.sort_unstable();
        let mut rows = self.rows.clone();
        rows.extend(add.into_iter().map(mix));
        rows.sort_unstable();
        rows.dedup();
        rows.retain(|row| out.binary_search(row).is_err());
        Self { rows, as_of: self.as_of }
    }

    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity(self.rows.len() * 16);
        for row in &self.rows {
            rows.extend_from_slice(&row.to_be_bytes());
        }
        let mut bytes = Vec::with_capacity(rows.len() + 64 + rows.len() / 200);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&crc32fast::hash(&rows).to_be_bytes());
        bytes.extend_from_slice(&(self.rows.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&self.as_of.to_be_bytes());
        bytes.extend_from_slice(&rows);
        for row in self.rows.iter().step_by(256) {
            bytes.extend_from_slice(&row.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Base::encode`] wrote; `None` if the bytes are cut, altered or something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(usize::try_from(HEADER).ok()?)?;
        if &header[..4] != MAGIC {
            return None;
        }
        let crc = u32::from_be_bytes(header[4..8].try_into().ok()?);
        let count = u64::from_be_bytes(header[8..16].try_into().ok()?);
        let as_of = u64::from_be_bytes(header[16..24].try_into().ok()?);
        let rows = rest.get(..usize::try_from(count.checked_mul(ROW)?).ok()?)?;
        if crc32fast::hash(rows) != crc {
            return None;
        }
        Some(Self { rows: read_rows(rows), as_of })
    }
}

fn read_rows(bytes: &[u8]) -> Vec<u128> {
    bytes.chunks_exact(16).filter_map(|row| row.try_into().ok().map(u128::from_be_bytes)).collect()
}

/// Where the fences of a set of `count` members stand: offset and length in bytes.
#[must_use]
pub const fn fences_at(count: u64) -> (u64, u64) {
    (HEADER + count * ROW, count.div_ceil(FENCE_ROWS) * ROW)
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

    fn ecid(n: u128) -> Ecid {
        Ecid::from_number(n).unwrap()
    }

    #[test]
    fn every_member_is_found_whole_and_by_block_and_nobody_else_is() {
        let base = Base::new((0..1000).map(|n| ecid(n * 7)), 42);
        let bytes = base.encode();
        assert_eq!(Base::decode(&bytes).unwrap(), base);
        let (from, len) = fences_at(1000);
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
    fn cut_or_altered_bytes_are_refused() {
        let bytes = Base::new((0..300).map(ecid), 1).encode();
        for cut in [0, 10, 24, 500, 24 + 300 * 16 - 1] {
            assert_eq!(Base::decode(&bytes[..cut]), None);
        }
        let mut altered = bytes.clone();
        altered[100] ^= 1;
        assert_eq!(Base::decode(&altered), None);
        assert!(Base::decode(&Base::default().encode()).unwrap().is_empty());
    }

    #[test]
    fn changes_are_merged_and_an_exit_wins() {
        let base = Base::new((0..10).map(ecid), 1).with([ecid(20), ecid(3)], [ecid(3), ecid(5)]);
        assert_eq!(base.len(), 9);
        assert!(base.row(ecid(20)).is_some() && base.row(ecid(3)).is_none() && base.row(ecid(5)).is_none());
    }
}
