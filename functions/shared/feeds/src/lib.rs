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
