//! What files say, gathered by audience.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::REJECTS_KEPT;
use domain::sayings::UNKNOWN_AUDIENCE;
use domain::{AudienceId, Ecid, Said};
use feeds::{Named, Sink};
use state::feeds::{Import, Reject};

/// Audiences that the library does not hold and whose entries are counted one by one, of one file. Ours: they stand in
/// the import's record.
const UNKNOWN_COUNTED: usize = 100;

/// Who is in and who is out, by audience.
#[derive(Debug, Default)]
pub(super) struct Content {
    segments: BTreeMap<u64, Sides>,
    audiences: BTreeMap<AudienceId, Sides>,
}

/// What was said of one audience.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) inside: Vec<Ecid>,
    pub(super) outside: Vec<Ecid>,
}

impl Sides {
    pub(super) fn len(&self) -> u64 {
        (self.inside.len() + self.outside.len()) as u64
    }

    fn add(&mut self, other: Self) {
        self.inside.extend(other.inside);
        self.outside.extend(other.outside);
    }
}

impl Content {
    /// Adds what another part says.
    pub(super) fn add(&mut self, other: Self) {
        for (sid, sides) in other.segments {
            self.segments.entry(sid).or_default().add(sides);
        }
        for (audience, sides) in other.audiences {
            self.audiences.entry(audience).or_default().add(sides);
        }
    }

    /// By audience.
    pub(super) fn by_audience(self) -> BTreeMap<AudienceId, Sides> {
        let mut all = self.audiences;
        all.extend(self.segments.into_iter().map(|(sid, sides)| (AudienceId::aam(sid), sides)));
        all
    }

    /// How many entries there are, by audience.
    fn counts(&self) -> BTreeMap<AudienceId, u64> {
        let segments = self.segments.iter().map(|(sid, sides)| (AudienceId::aam(*sid), sides.len()));
        let audiences = self.audiences.iter().map(|(audience, sides)| (audience.clone(), sides.len()));
        segments.chain(audiences).collect()
    }
}

/// Takes in one file's rows, and keeps its record.
pub(super) struct Taking<'a> {
    /// The audiences that there are; `None`: nobody can say.
    library: Option<&'a BTreeSet<AudienceId>>,
    segments: BTreeSet<u64>,
    record: &'a mut Import,
    content: Content,
    unknown: u64,
}

impl<'a> Taking<'a> {
    pub(super) fn new(library: Option<&'a BTreeSet<AudienceId>>, record: &'a mut Import) -> Self {
        // An earlier turn may have counted.
        record.rows = 0;
        record.rejected = 0;
        record.rejects.clear();
        record.rejected_by.clear();
        let segments = library.into_iter().flatten().filter_map(AudienceId::sid).collect();
        Self { library, segments, record, content: Content::default(), unknown: 0 }
    }

    /// What was taken, and how many rows and entries could not be read; the record then says how many.
    pub(super) fn end(self) -> (Content, u64) {
        self.record.taken = self.content.counts();
        (self.content, self.record.rejected - self.unknown)
    }

    fn unknown(&mut self, line: u64, audience: AudienceId) {
        let counted = self.record.rejected_by.len();
        if counted < UNKNOWN_COUNTED || self.record.rejected_by.contains_key(&audience) {
            *self.record.rejected_by.entry(audience).or_default() += 1;
        }
        self.unknown += 1;
        self.reject(line, &UNKNOWN_AUDIENCE.plain());
    }
}

impl Sink for Taking<'_> {
    fn take(&mut self, line: u64, audience: Named<'_>, ecid: Ecid, inside: bool) {
        let sides = match audience {
            Named::Segment(sid) if self.library.is_none() || self.segments.contains(&sid) => {
                self.content.segments.entry(sid).or_default()
            }
            Named::Segment(sid) => return self.unknown(line, AudienceId::aam(sid)),
            Named::Audience(audience) if self.library.is_none_or(|library| library.contains(audience)) => {
                if !self.content.audiences.contains_key(audience) {
                    self.content.audiences.insert(audience.clone(), Sides::default());
                }
                let Some(sides) = self.content.audiences.get_mut(audience) else { return };
                sides
            }
            Named::Audience(audience) => return self.unknown(line, audience.clone()),
        };
        let side = if inside { &mut sides.inside } else { &mut sides.outside };
        side.push(ecid);
    }

    fn reject(&mut self, line: u64, reason: &Said) {
        self.record.rejected += 1;
        if self.record.rejects.len() < REJECTS_KEPT {
            self.record.rejects.push(Reject::new(line, reason));
        }
    }
}
