//! Reads what Adobe delivers: files of Audience Manager and of Experience Platform, their control files, and the messages
//! of both streams. Pure functions of bytes.
//!
//! One parsed form comes out of all of them: an audience, an ECID, and whether it is in.

use domain::{AudienceId, Ecid};

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
    fn reject(&mut self, line: u64, reason: &str);
}

/// How far a file could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Rows that are not blank and not the header.
    pub rows: u64,
    /// All lines, blank ones and the header included, as control files count them.
    pub lines: u64,
    /// Its data end too early: it is compressed and was cut, or its last value has no end.
    pub cut: bool,
}
