//! Many rows of one size as one immutable object, written and read by pieces: what is held of it is one piece.
//!
//! Layout, big-endian: header (magic, four zeros, as-of u64), rows, fences if the rows have them, trailer (count u64, CRC-32
//! of the rows, magic). What all rows decide stands last, so that an object of any size is written while it is merged.

use std::marker::PhantomData;

use crc32fast::Hasher;

/// Rows between two fences.
pub const FENCE_ROWS: u64 = 256;
/// Bytes of a fence.
pub const FENCE: u64 = 16;
/// Bytes before the first row.
pub const HEADER: u64 = 16;
/// Bytes after the last fence.
pub const TRAILER: usize = 16;

/// A row of such an object.
pub trait Row: Copy {
    /// Its bytes, at least [`FENCE`] of them.
    const SIZE: u64;
    /// Marks an object of such rows, and their layout.
    const MAGIC: [u8; 4];
    /// Ends it. Without it, an object that is cut after a row of zeros would end as an empty one does.
    const END: [u8; 4];
    /// Whether the first bytes of every 256th row stand once more behind the rows, so that one row is found by one ranged read.
    const FENCED: bool;

    /// Adds its bytes.
    fn put(self, out: &mut Vec<u8>);

    /// Adds the rows of which [`Row::put`] wrote these bytes.
    fn take(bytes: &[u8], out: &mut Vec<Self>);
}

/// When an object's rows were so, in ms, by its header; `None`: these bytes begin no object of such rows.
#[must_use]
pub fn as_of<R: Row>(header: &[u8]) -> Option<u64> {
    (header.get(..8)? == [&R::MAGIC[..], &[0; 4]].concat()).then_some(())?;
    Some(u64::from_be_bytes(header.get(8..16)?.try_into().ok()?))
}

/// Where the fences of an object of so many rows stand, or would stand: offset and length in bytes. `None`: no object is so
/// long.
#[must_use]
pub const fn fences_at<R: Row>(count: u64) -> Option<(u64, u64)> {
    // 2^54 rows of up to 64 bytes are 2^60 bytes.
    if count >> 54 != 0 {
        return None;
    }
    let fences = if R::FENCED { count.div_ceil(FENCE_ROWS) * FENCE } else { 0 };
    Some((HEADER + count * R::SIZE, fences))
}

/// Where the last bytes of an object of so many rows stand: offset and length in bytes. `None`: no object is so long.
#[must_use]
pub const fn trailer_at<R: Row>(count: u64) -> Option<(u64, u64)> {
    match fences_at::<R>(count) {
        Some((from, length)) => Some((from + length, TRAILER as u64)),
        None => None,
    }
}

/// Writes rows piece by piece.
#[derive(Debug)]
pub struct Encoder<R> {
    crc: Hasher,
    count: u64,
    fences: Vec<u8>,
    row: PhantomData<R>,
}

impl<R: Row> Encoder<R> {
    /// Begins rows that were so at a time, in ms.
    #[must_use]
    pub fn begin(as_of: u64, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&R::MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&as_of.to_be_bytes());
        Self { crc: Hasher::new(), count: 0, fences: Vec::new(), row: PhantomData }
    }

    /// Adds rows, all of them after those before.
    pub fn rows(&mut self, rows: &[R], out: &mut Vec<u8>) {
        let begin = out.len();
        out.reserve(rows.len() * usize::try_from(R::SIZE).unwrap_or_default());
        for row in rows {
            let at = out.len();
            row.put(out);
            if R::FENCED && self.count.is_multiple_of(FENCE_ROWS) {
                self.fences.extend_from_slice(&out[at..at + FENCE as usize]);
            }
            self.count += 1;
        }
        self.crc.update(&out[begin..]);
    }

    /// Ends it. Returns how many rows it has.
    pub fn end(self, out: &mut Vec<u8>) -> u64 {
        out.extend_from_slice(&self.fences);
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.crc.finalize().to_be_bytes());
        out.extend_from_slice(&R::END);
        self.count
    }
}

/// Checks rows that are read piece by piece.
#[derive(Debug)]
pub struct Check<R> {
    crc: Hasher,
    count: u64,
    read: u64,
    row: PhantomData<R>,
}

impl<R: Row> Check<R> {
    /// Of an object of so many rows.
    #[must_use]
    pub fn new(count: u64) -> Self {
        Self { crc: Hasher::new(), count, read: 0, row: PhantomData }
    }

    /// Looks at a piece: the bytes of whole rows, as they follow each other from [`HEADER`] on. [`Row::take`] reads them.
    pub fn look(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.read += bytes.len() as u64 / R::SIZE;
    }

    /// Whether all rows were read, and as they were written; by the last 16 bytes of the object.
    #[must_use]
    pub fn is_whole(&self, trailer: &[u8]) -> bool {
        let mut expected = self.count.to_be_bytes().to_vec();
        expected.extend_from_slice(&self.crc.clone().finalize().to_be_bytes());
        expected.extend_from_slice(&R::END);
        self.read == self.count && trailer == expected
    }
}

/// All rows of an object, and when they were so, in ms; `None` if the bytes are cut, altered or something else.
#[must_use]
pub fn decode<R: Row>(bytes: &[u8]) -> Option<(Vec<R>, u64)> {
    let (rest, trailer) = bytes.split_last_chunk::<TRAILER>()?;
    let count = u64::from_be_bytes(trailer[..8].try_into().ok()?);
    let (header, rest) = rest.split_at_checked(usize::try_from(HEADER).ok()?)?;
    let as_of = as_of::<R>(header)?;
    let (from, length) = fences_at::<R>(count)?;
    if u64::try_from(rest.len()).ok()? != from.checked_add(length)?.checked_sub(HEADER)? {
        return None;
    }
    let bytes = rest.get(..usize::try_from(count * R::SIZE).ok()?)?;
    let mut check = Check::<R>::new(count);
    check.look(bytes);
    check.is_whole(trailer).then(|| {
        let mut rows = Vec::with_capacity(bytes.len() / usize::try_from(R::SIZE).unwrap_or(usize::MAX));
        R::take(bytes, &mut rows);
        (rows, as_of)
    })
}
