//! Sets of ECIDs ([`domain::base`]) and edges ([`domain::edges`]) as objects of the bucket, written and read by pieces: of a
//! set of any size no more than a piece stands in memory.

use bytes::Bytes;
use domain::rows::{Check, Encoder, HEADER, Row, TRAILER, trailer_at};
use ports::Failure;

use crate::audience::BaseRef;
use crate::{Deps, Step};

/// Bytes of a piece, at most, and more than half as many: 8 MiB, above S3's least size of a part (5 MiB). Ours: a request
/// costs as much as 17 MB-months, and one piece stands in memory.
const PIECE_BYTES: u64 = 8 << 20;

/// Bytes of a piece of one of many, at least.
const LEAST_BYTES: u64 = 1 << 20;

/// Rows of a piece.
const fn piece_rows<R: Row>() -> u64 {
    PIECE_BYTES / R::SIZE
}

/// Writes a set under a fresh key. One that is never ended leaves nothing but an upload that expires.
pub struct Writer<'a, R> {
    deps: &'a Deps,
    key: String,
    as_of: u64,
    encoder: Encoder<R>,
    bytes: Vec<u8>,
    /// The upload and the tags of its parts, once there is more than one piece.
    upload: Option<(String, Vec<String>)>,
}

impl<'a, R: Row> Writer<'a, R> {
    /// Begins a set below a prefix that was so at a time, in ms.
    #[must_use]
    pub fn begin(deps: &'a Deps, prefix: &str, as_of: u64) -> Self {
        let mut bytes = Vec::new();
        let encoder = Encoder::begin(as_of, &mut bytes);
        Self { deps, key: format!("{prefix}/{}", deps.fresh_id()), as_of, encoder, bytes, upload: None }
    }

    /// Adds rows: ascending, none twice, and all of them after those before.
    pub async fn rows(&mut self, rows: &[R]) -> Step<()> {
        for piece in rows.chunks(usize::try_from(piece_rows::<R>()).unwrap_or(usize::MAX)) {
            self.encoder.rows(piece, &mut self.bytes);
            if self.bytes.len() as u64 >= piece_rows::<R>() * R::SIZE {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    async fn put_part(&mut self) -> Step<()> {
        let objects = &self.deps.ports.objects;
        if self.upload.is_none() {
            self.upload = Some((objects.begin_parts(&self.key).await?, Vec::new()));
        }
        let Some((upload, tags)) = &mut self.upload else { return Ok(()) };
        let number = u16::try_from(tags.len() + 1).map_err(|_| Failure::fail("a set of too many parts"))?;
        let body = Bytes::from(std::mem::take(&mut self.bytes));
        tags.push(objects.put_part(&self.key, upload, number, body).await?);
        Ok(())
    }

    /// Ends it: from here on it is there.
    pub async fn end(mut self) -> Step<BaseRef> {
        let encoder = std::mem::replace(&mut self.encoder, Encoder::begin(0, &mut Vec::new()));
        let count = encoder.end(&mut self.bytes);
        if self.upload.is_some() {
            self.put_part().await?;
        }
        let objects = &self.deps.ports.objects;
        match self.upload {
            Some((upload, tags)) => objects.end_parts(&self.key, &upload, &tags).await?,
            None => objects.put(&self.key, self.bytes.into()).await?,
        }
        Ok(BaseRef { key: self.key, count, as_of: self.as_of })
    }
}

/// Rows that are given at a time, at most. Ours: they stay in a processor's cache while they are looked at.
const AT_ONCE: usize = 2_048;

/// Reads a set's rows, ascending, piece by piece.
pub struct Reader<'a, R> {
    deps: &'a Deps,
    base: BaseRef,
    check: Check<R>,
    /// Rows that were read.
    read: u64,
    /// Rows of a piece.
    piece: u64,
    /// What was read of the bucket and not yet given.
    left: Bytes,
}

impl<'a, R: Row> Reader<'a, R> {
    /// From its first row on.
    #[must_use]
    pub fn new(deps: &'a Deps, base: BaseRef) -> Self {
        Self::one_of(deps, base, 1)
    }

    /// The same where so many are read side by side: all of their pieces together are no larger than the only one's, but none
    /// is smaller than 1 MiB, or requests would grow with the square of their number.
    #[must_use]
    pub fn one_of(deps: &'a Deps, base: BaseRef, many: u64) -> Self {
        let check = Check::new(base.count);
        let piece = (piece_rows::<R>() / many.max(1)).max(LEAST_BYTES / R::SIZE);
        Self { deps, base, check, read: 0, piece, left: Bytes::new() }
    }

    /// The next rows; `None`: that were all. The last ones are given only if all are as they were written.
    pub async fn next(&mut self) -> Step<Option<Vec<R>>> {
        if self.left.is_empty() {
            if self.read == self.base.count {
                return Ok(None);
            }
            self.left = self.fetch().await?;
        }
        let size = usize::try_from(R::SIZE).unwrap_or(usize::MAX);
        let some = self.left.split_to(self.left.len().min(AT_ONCE * size));
        let mut rows = Vec::with_capacity(some.len() / size);
        R::take(&some, &mut rows);
        Ok(Some(rows))
    }

    /// The bytes of the next piece.
    async fn fetch(&mut self) -> Step<Bytes> {
        let damaged = || Failure::fail("a set is damaged");
        let left = self.base.count - self.read;
        let count = left.min(self.piece);
        let from = HEADER + self.read * R::SIZE;
        // The last piece brings what stands behind the rows: one request less.
        let (trailer, length) = trailer_at::<R>(self.base.count).ok_or_else(damaged)?;
        let end = if count == left { trailer + length } else { from + count * R::SIZE };
        let bytes = self.deps.ports.objects.get_range(&self.base.key, from, end - from).await?;
        let mut bytes = bytes.ok_or_else(|| Failure::retry("a set is gone: it was replaced"))?;
        if bytes.len() as u64 != end - from {
            return Err(damaged());
        }
        let rest = bytes.split_off(usize::try_from(count * R::SIZE).unwrap_or_default());
        self.check.look(&bytes);
        self.read += count;
        if count == left && !self.check.is_whole(rest.get(rest.len() - TRAILER..).unwrap_or_default()) {
            return Err(damaged());
        }
        Ok(bytes)
    }
}
