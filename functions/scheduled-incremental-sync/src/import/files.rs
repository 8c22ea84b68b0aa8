//! Reads a delivery's files, piece by piece, and as often as is needed.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::feed::Mode;
use domain::sayings::{FILE_EMPTY_CUT, FILE_EMPTY_SIZE, FILE_GONE, NOT_WHOLE_CUT, NOT_WHOLE_SIZE};
use domain::{AudienceId, Said};
use feeds::aep::{FileName, Format, Shape};
use feeds::{File, Sink};
use ports::Failure;
use serde::{Deserialize, Serialize};
use state::feeds::{Delivery, Feed, Import, Kind, Part};
use state::{Deps, Step};

use super::audience_of;
use super::content::{Count, Counting, Counts, Filling, Library, Taken, Unit};

/// Bytes of a file that are fetched at once, and of small files that are kept until they are read again. Ours: a request costs
/// as much as 17 MB-months.
const PIECE: u64 = 8 << 20;

pub(super) const REPLACED: &str = "a file was replaced while it was read";

/// What is wrong with a part as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fault {
    /// Its compressed data end too early.
    Cut,
    /// It has another size than its control file says.
    Size,
}

impl Fault {
    pub(super) const fn not_whole(self) -> Said {
        match self {
            Self::Cut => NOT_WHOLE_CUT.plain(),
            Self::Size => NOT_WHOLE_SIZE.plain(),
        }
    }

    /// The same, where nothing could be read at all.
    pub(super) const fn empty(self) -> Said {
        match self {
            Self::Cut => FILE_EMPTY_CUT.plain(),
            Self::Size => FILE_EMPTY_SIZE.plain(),
        }
    }
}

/// One part that was read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Looked {
    pub(super) name: String,
    pub(super) part: Part,
    pub(super) record: Import,
    /// Why the delivery is not whole on account of this part.
    pub(super) fault: Option<Fault>,
    /// Why nothing of it could be taken.
    pub(super) refused: Option<Said>,
    /// Rows and entries that could not be read; those of audiences that the library does not hold are not among them.
    pub(super) unreadable: u64,
    /// Its lines, as control files count them.
    pub(super) lines: u64,
}

/// What became of reading a part.
enum Reading {
    /// How far it could be read, and its bytes.
    Ended(Result<feeds::Read, Said>, u64),
    /// It is not there, or not as it was when it came.
    Gone,
    /// The time was too short.
    Late,
}

/// The files of a delivery.
pub(super) struct Files<'a> {
    deps: &'a Deps,
    feed: &'a Feed,
    delivery: &'a Delivery,
    library: Library,
    /// When reading stops, in ms.
    until: u64,
    /// Small files, by their keys: they need not be fetched again.
    kept: BTreeMap<String, Bytes>,
}

impl<'a> Files<'a> {
    pub(super) const fn new(
        deps: &'a Deps,
        feed: &'a Feed,
        delivery: &'a Delivery,
        library: Library,
        until: u64,
    ) -> Self {
        Self { deps, feed, delivery, library, until, kept: BTreeMap::new() }
    }

    /// Tells how files are understood: what was counted under another digest says nothing.
    pub(super) fn digest(&self) -> u32 {
        let mut digest = crc32fast::Hasher::new();
        digest.update(format!("{:?}", self.feed).as_bytes());
        self.library.digest(&mut digest);
        digest.finalize()
    }

    /// Reads a part to count what it holds. `None`: the time was too short, and `counts` hold some of it.
    pub(super) async fn look(
        &mut self,
        name: &str,
        part: &Part,
        mut record: Import,
        counts: &mut Counts,
    ) -> Step<Option<Looked>> {
        let mut counting = Counting::new(&self.library, &mut record, counts);
        let mut keep = None;
        let read = self.read(name, part, &mut counting, &mut keep).await?;
        let unreadable = counting.end();
        if let Some(whole) = keep
            && self.kept.values().map(Bytes::len).sum::<usize>() as u64 + whole.len() as u64 <= PIECE
        {
            self.kept.insert(part.key.clone(), whole);
        }
        let (name, part) = (name.to_owned(), part.clone());
        let read = match read {
            Reading::Late => return Ok(None),
            Reading::Gone => Err(FILE_GONE.plain()),
            Reading::Ended(read, bytes) => read.map(|read| (read, bytes)),
        };
        let (read, bytes) = match read {
            Ok(read) => read,
            Err(why) => {
                return Ok(Some(Looked { name, part, record, fault: None, refused: Some(why), unreadable, lines: 0 }));
            }
        };
        record.rows = read.rows;
        let told = self.delivery.control.iter().flat_map(|control| &control.files);
        let told = told.filter(|(file, _)| file.eq_ignore_ascii_case(&name)).find_map(|(_, size)| size.bytes);
        let fault = if read.cut {
            Some(Fault::Cut)
        } else if told.is_some_and(|told| told != bytes) {
            Some(Fault::Size)
        } else {
            None
        };
        Ok(Some(Looked { name, part, record, fault, refused: None, unreadable, lines: read.lines }))
    }

    /// Reads the parts again to take what they say of a group. `None`: the time was too short.
    pub(super) async fn take(
        &self,
        group: &[Unit],
        looked: &[Looked],
        counts: &BTreeMap<AudienceId, Count>,
    ) -> Step<Option<Vec<Taken>>> {
        let mut filling = Filling::new(&self.library, group, counts);
        for Looked { name, part, .. } in looked.iter().filter(|looked| looked.refused.is_none()) {
            match self.read(name, part, &mut filling, &mut None).await? {
                Reading::Ended(..) => {}
                Reading::Gone => return Err(Failure::retry(REPLACED)),
                Reading::Late => return Ok(None),
            }
        }
        Ok(Some(filling.end()))
    }

    /// Reads a part. `whole`: the whole of it, if it came in one piece.
    async fn read(
        &self,
        name: &str,
        part: &Part,
        sink: &mut (impl Sink + Send),
        whole: &mut Option<Bytes>,
    ) -> Step<Reading> {
        let audience = audience_of(self.feed, &part.key);
        let shape = Shape {
            audience: audience.as_ref(),
            ecid_column: self.feed.ecid_column.as_deref(),
            status_column: self.feed.status_column.as_deref(),
            inside: &self.feed.status_inside,
            outside: &self.feed.status_outside,
        };
        let mut file = match (self.feed.kind, FileName::parse(name).map(|file| file.format)) {
            (Kind::AepFiles, Some(Format::Json)) => File::json(shape),
            (Kind::AepFiles, _) => File::csv(shape),
            _ => File::aam(if self.delivery.full { Mode::Full } else { Mode::Iter }),
        };
        if let Some(kept) = self.kept.get(&part.key) {
            file.feed(kept, sink);
            return Ok(Reading::Ended(file.end(sink), kept.len() as u64));
        }
        let mut from = 0;
        loop {
            if self.deps.now() > self.until {
                return Ok(Reading::Late);
            }
            let objects = &self.deps.ports.objects;
            let piece = match part.etag.as_str() {
                // A notice without a tag: whatever stands there.
                "" => objects.get_range(&part.key, from, PIECE).await?,
                tag => objects.get_range_of(&part.key, tag, from, PIECE).await?,
            };
            let piece = match piece {
                Some(piece) => piece,
                None if from == 0 => return Ok(Reading::Gone),
                // What was counted of it must not stay.
                None => return Err(Failure::retry(REPLACED)),
            };
            file.feed(&piece, sink);
            let length = piece.len() as u64;
            if from == 0 && length < PIECE {
                *whole = Some(piece);
            }
            from += length;
            if length < PIECE {
                return Ok(Reading::Ended(file.end(sink), from));
            }
        }
    }
}
