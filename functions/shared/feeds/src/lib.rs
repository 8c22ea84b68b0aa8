//! Reads what Adobe delivers: files of Audience Manager and of Experience Platform, their control files, and the messages
//! of both streams. Pure functions of bytes: none panics on any bytes, and no error text holds what stood there.
//!
//! One parsed form comes out of all of them: an audience, an ECID, and whether it is in.

pub mod aam;
pub mod aep;
pub mod date;
pub mod gz;
pub mod info;
mod lines;
mod loose;
pub mod manifest;
mod profile;
pub mod stream;

use domain::{AudienceId, Ecid, Said};

pub use lines::RECORD_MAX;

/// Which audience an entry is about, as its source names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// A segment of Audience Manager, by its id. No text is made of it for each of millions of entries.
    Segment(u64),
    /// An audience by our id.
    Audience(&'a AudienceId),
}

/// What takes in a file's rows.
pub trait Sink {
    /// An entry that says whether an ECID is in an audience. `line` counts from 1.
    fn take(&mut self, line: u64, audience: Named<'_>, ecid: Ecid, inside: bool);

    /// A row or an entry that cannot be taken: what was wrong and what would be right, never what stood there.
    fn reject(&mut self, line: u64, reason: &Said);
}

/// How far a file could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Rows that are not blank and not the header.
    pub rows: u64,
    /// All lines, blank ones and the header included, as control files count them.
    pub lines: u64,
    /// Its data end too early: it is compressed and was cut, or its last value has no end. What came before was read;
    /// the row in which it ends was not.
    pub cut: bool,
}

/// A file that is read as its bytes come: compressed or not, of one of the kinds that Adobe delivers. What is held of it is
/// one row, and a piece of what was decompressed.
#[derive(Debug)]
pub struct File<'a> {
    unpack: gz::Unpack,
    rows: Rows<'a>,
}

#[derive(Debug)]
enum Rows<'a> {
    Aam(aam::Rows),
    Csv(aep::Csv<'a>),
    Json(aep::Json<'a>),
}

impl<'a> File<'a> {
    fn of(rows: Rows<'a>) -> Self {
        Self { unpack: gz::Unpack::default(), rows }
    }

    /// An outbound file of Audience Manager.
    #[must_use]
    pub fn aam(mode: domain::feed::Mode) -> Self {
        Self::of(Rows::Aam(aam::Rows::new(mode)))
    }

    /// A CSV export of Experience Platform.
    #[must_use]
    pub fn csv(shape: aep::Shape<'a>) -> Self {
        Self::of(Rows::Csv(aep::Csv::new(shape)))
    }

    /// A JSON export of Experience Platform.
    #[must_use]
    pub fn json(shape: aep::Shape<'a>) -> Self {
        Self::of(Rows::Json(aep::Json::new(shape)))
    }

    /// Reads the next bytes, however many.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let Self { unpack, rows } = self;
        unpack.feed(bytes, |piece| rows.feed(piece, sink));
    }

    /// That were all.
    ///
    /// # Errors
    /// The file as a whole cannot be understood, since a column is missing or no audience is told: says what was looked for
    /// and what to do. Nothing was taken then.
    pub fn end(self, sink: &mut dyn Sink) -> Result<Read, Said> {
        let Self { unpack, mut rows } = self;
        let cut = unpack.end(|piece| rows.feed(piece, sink));
        match rows {
            Rows::Aam(rows) => Ok(rows.end(cut, sink)),
            Rows::Csv(rows) => rows.end(cut, sink),
            Rows::Json(rows) => rows.end(cut, sink),
        }
    }

    /// Reads bytes that are all there.
    ///
    /// # Errors
    /// As [`File::end`].
    pub fn read(self, bytes: &[u8], sink: &mut dyn Sink) -> Result<Read, Said> {
        self.by_pieces(bytes, usize::MAX, sink)
    }

    /// The same, so many bytes at a time.
    ///
    /// # Errors
    /// As [`File::end`].
    pub fn by_pieces(mut self, bytes: &[u8], size: usize, sink: &mut dyn Sink) -> Result<Read, Said> {
        for piece in bytes.chunks(size) {
            self.feed(piece, sink);
        }
        self.end(sink)
    }
}

impl Rows<'_> {
    fn feed(&mut self, piece: &[u8], sink: &mut dyn Sink) {
        match self {
            Rows::Aam(rows) => rows.feed(piece, sink),
            Rows::Csv(rows) => rows.feed(piece, sink),
            Rows::Json(rows) => rows.feed(piece, sink),
        }
    }
}

/// A sink that keeps everything, for tests.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Line, audience, ECID, in or out.
    taken: Vec<(u64, String, Ecid, bool)>,
    rejected: Vec<(u64, String)>,
}

#[cfg(test)]
impl Sink for Kept {
    fn take(&mut self, line: u64, audience: Named<'_>, ecid: Ecid, inside: bool) {
        let audience = match audience {
            Named::Segment(sid) => AudienceId::aam(sid).to_string(),
            Named::Audience(id) => id.to_string(),
        };
        self.taken.push((line, audience, ecid, inside));
    }

    fn reject(&mut self, line: u64, reason: &Said) {
        self.rejected.push((line, reason.to_string()));
    }
}

#[cfg(test)]
impl Kept {
    /// What was taken, without ECIDs: line, audience, in or out.
    fn told(&self) -> Vec<(u64, &str, bool)> {
        self.taken.iter().map(|(line, audience, _, inside)| (*line, audience.as_str(), *inside)).collect()
    }
}
