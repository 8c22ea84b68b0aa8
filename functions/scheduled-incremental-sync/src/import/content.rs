//! What files say, by audience. A delivery may hold more than stands in memory: it is read once to count, and then as often
//! as is needed to take so many entries at a time.

use std::collections::{BTreeMap, BTreeSet};

use domain::base::{mix, sort};
use domain::limits::REJECTS_KEPT;
use domain::sayings::UNKNOWN_AUDIENCE;
use domain::{AudienceId, Ecid, Said};
use feeds::{Named, Sink};
use serde::{Deserialize, Serialize};
use state::feeds::{Import, Reject};

/// Audiences that the library does not hold and whose entries are counted one by one, of one file. Ours: they stand in
/// the import's record.
const UNKNOWN_COUNTED: usize = 100;
/// Ids that stand for all of a delivery, at least, if it has so many. Ours.
const SAMPLE: usize = 1_000;

/// The audiences that there are.
pub(super) struct Library {
    /// `None`: nobody can say.
    all: Option<BTreeSet<AudienceId>>,
    segments: BTreeSet<u64>,
}

impl Library {
    pub(super) fn new(all: Option<BTreeSet<AudienceId>>) -> Self {
        let segments = all.iter().flatten().filter_map(AudienceId::sid).collect();
        Self { all, segments }
    }

    /// Tells it from others.
    pub(super) fn digest(&self, digest: &mut crc32fast::Hasher) {
        digest.update(&[u8::from(self.all.is_some())]);
        for audience in self.all.iter().flatten() {
            digest.update(audience.as_str().as_bytes());
            digest.update(b"\n");
        }
    }

    fn holds(&self, audience: Named<'_>) -> bool {
        self.all.as_ref().is_none_or(|all| match audience {
            Named::Segment(sid) => self.segments.contains(&sid),
            Named::Audience(audience) => all.contains(audience),
        })
    }
}

fn id(audience: Named<'_>) -> AudienceId {
    match audience {
        Named::Segment(sid) => AudienceId::aam(sid),
        Named::Audience(audience) => audience.clone(),
    }
}

/// Something for each audience. Segments stand by their number: no text is made for each of millions of entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ByAudience<T> {
    segments: BTreeMap<u64, T>,
    audiences: BTreeMap<AudienceId, T>,
}

impl<T> Default for ByAudience<T> {
    fn default() -> Self {
        Self { segments: BTreeMap::new(), audiences: BTreeMap::new() }
    }
}

impl<T: Default> ByAudience<T> {
    fn entry(&mut self, audience: Named<'_>) -> &mut T {
        match audience {
            Named::Segment(sid) => self.segments.entry(sid).or_default(),
            // Looked up first: `entry` would want a text of its own.
            Named::Audience(audience) if self.audiences.contains_key(audience) => {
                self.audiences.entry(audience.clone()).or_default()
            }
            Named::Audience(audience) => self.audiences.entry(audience.clone()).or_default(),
        }
    }
}

/// Entries of one audience.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) inside: u64,
    pub(super) outside: u64,
}

impl Count {
    pub(super) const fn all(self) -> u64 {
        self.inside + self.outside
    }
}

/// What a delivery holds: how many entries of which audience, and some of its ids.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    counts: ByAudience<Count>,
    sample: Sample,
}

impl Counts {
    /// By audience.
    pub(super) fn by_audience(&self) -> BTreeMap<AudienceId, Count> {
        let mut all = self.counts.audiences.clone();
        all.extend(self.counts.segments.iter().map(|(sid, count)| (AudienceId::aam(*sid), *count)));
        all
    }

    /// Some ids, evenly spread over all entries; of few entries these are all.
    pub(super) fn sample(&self) -> &[Ecid] {
        &self.sample.ids
    }
}

/// Every so many-th id.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sample {
    every: u64,
    met: u64,
    ids: Vec<Ecid>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { every: 1, met: 0, ids: Vec::new() }
    }
}

impl Sample {
    fn meet(&mut self, ecid: Ecid) {
        if self.met.is_multiple_of(self.every) {
            if self.ids.len() == 2 * SAMPLE {
                self.every *= 2;
                let mut keep = false;
                self.ids.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            if self.met.is_multiple_of(self.every) {
                self.ids.push(ecid);
            }
        }
        self.met += 1;
    }
}

/// Counts one file's entries, and keeps its record.
pub(super) struct Counting<'a> {
    library: &'a Library,
    record: &'a mut Import,
    counts: &'a mut Counts,
    of_file: ByAudience<u64>,
    unknown: u64,
}

impl<'a> Counting<'a> {
    pub(super) fn new(library: &'a Library, record: &'a mut Import, counts: &'a mut Counts) -> Self {
        // An earlier turn may have counted.
        record.rows = 0;
        record.rejected = 0;
        record.rejects.clear();
        record.rejected_by.clear();
        Self { library, record, counts, of_file: ByAudience::default(), unknown: 0 }
    }

    /// How many rows and entries could not be read; the record then says how many were taken.
    pub(super) fn end(self) -> u64 {
        let ByAudience { segments, audiences } = self.of_file;
        let segments = segments.into_iter().map(|(sid, count)| (AudienceId::aam(sid), count));
        self.record.taken = audiences.into_iter().chain(segments).collect();
        self.record.rejected - self.unknown
    }
}

impl Sink for Counting<'_> {
    fn take(&mut self, line: u64, audience: Named<'_>, ecid: Ecid, inside: bool) {
        if !self.library.holds(audience) {
            let counted = self.record.rejected_by.len();
            let id = id(audience);
            if counted < UNKNOWN_COUNTED || self.record.rejected_by.contains_key(&id) {
                *self.record.rejected_by.entry(id).or_default() += 1;
            }
            self.unknown += 1;
            return self.reject(line, &UNKNOWN_AUDIENCE.plain());
        }
        *self.of_file.entry(audience) += 1;
        let count = self.counts.counts.entry(audience);
        let side = if inside { &mut count.inside } else { &mut count.outside };
        *side += 1;
        self.counts.sample.meet(ecid);
    }

    fn reject(&mut self, line: u64, reason: &Said) {
        self.record.rejected += 1;
        if self.record.rejects.len() < REJECTS_KEPT {
            self.record.rejects.push(Reject::new(line, reason));
        }
    }
}

/// What is taken at once: an audience, or one of the parts of a large one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit {
    /// Its entries are facts, each of its own; else they are a snapshot, which says who is in and nothing else.
    pub(super) facts: bool,
    pub(super) audience: AudienceId,
    /// The part, counted from 0: ECIDs fall into parts by their row of a set, so that each part's rows come after those of
    /// the part before.
    pub(super) part: u32,
    /// Parts of the audience.
    pub(super) parts: u32,
}

impl Unit {
    /// Where it stands in the order: what comes after it was not taken when it was the last one.
    pub(super) fn place(&self) -> (bool, AudienceId, u32) {
        (self.facts, self.audience.clone(), self.part)
    }

    /// Entries of it, of so many of its audience: parts differ by chance.
    pub(super) fn entries(&self, count: Count) -> u64 {
        let all = if self.facts { count.all() } else { count.inside };
        let parts = u64::from(self.parts);
        all / parts + u64::from(u64::from(self.part) < all % parts)
    }

    pub(super) const fn is_last(&self) -> bool {
        self.part + 1 == self.parts
    }

    /// The first row that no part up to this one holds; `None`: it is the last.
    pub(super) fn end(&self) -> Option<u128> {
        if self.is_last() {
            return None;
        }
        // The least row whose part is the next one.
        let first = (u128::from(self.part + 1) << 32).div_ceil(u128::from(self.parts));
        Some(first << 96)
    }

    fn holds(&self, row: u128) -> bool {
        self.parts == 1 || ((row >> 96) * u128::from(self.parts)) >> 32 == u128::from(self.part)
    }
}

/// The order in which a delivery is taken, in groups of at most `at_once` entries: snapshots before facts, audiences in their
/// order. `is_snapshot`: whether the delivery is one of an audience.
pub(super) fn plan(
    counts: &BTreeMap<AudienceId, Count>,
    at_once: u64,
    is_snapshot: impl Fn(&AudienceId) -> bool,
) -> Vec<Vec<Unit>> {
    let at_once = at_once.max(1);
    let mut groups: Vec<Vec<Unit>> = Vec::new();
    let mut room = 0;
    for facts in [false, true] {
        for (audience, count) in counts.iter().filter(|(audience, _)| is_snapshot(audience) != facts) {
            let entries = if facts { count.all() } else { count.inside };
            let parts = u32::try_from(entries.div_ceil(at_once)).unwrap_or(u32::MAX).max(1);
            let units = (0..parts).map(|part| Unit { facts, audience: audience.clone(), part, parts });
            if parts > 1 {
                groups.extend(units.map(|unit| vec![unit]));
                room = 0;
                continue;
            }
            match groups.last_mut() {
                Some(group) if entries <= room => group.extend(units),
                _ => {
                    groups.push(units.collect());
                    room = at_once;
                }
            }
            room -= entries.min(room);
        }
    }
    groups
}

/// What is said of one unit, as rows of a set ([`mix`]): ascending, none twice.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) unit: Unit,
    pub(super) inside: Vec<u128>,
    pub(super) outside: Vec<u128>,
}

/// Takes the entries of a group out of files.
pub(super) struct Filling<'a> {
    library: &'a Library,
    places: ByAudience<Option<usize>>,
    all: Vec<Taken>,
}

impl<'a> Filling<'a> {
    /// With room for exactly what there is, where an audience has one part: 16 bytes an entry.
    pub(super) fn new(library: &'a Library, group: &[Unit], counts: &BTreeMap<AudienceId, Count>) -> Self {
        let mut places = ByAudience::default();
        let mut all = Vec::with_capacity(group.len());
        for (place, unit) in group.iter().enumerate() {
            let named = unit.audience.sid().map_or(Named::Audience(&unit.audience), Named::Segment);
            *places.entry(named) = Some(place);
            let count = counts.get(&unit.audience).copied().unwrap_or_default();
            // Parts differ by chance: by less than a thousandth, where there are a million entries.
            let of = |entries: u64| entries / u64::from(unit.parts);
            let room = |entries: u64| if unit.parts == 1 { entries } else { of(entries) + of(entries) / 256 };
            let with_room = |entries: u64| Vec::with_capacity(usize::try_from(room(entries)).unwrap_or_default());
            let outside = if unit.facts { with_room(count.outside) } else { Vec::new() };
            all.push(Taken { unit: unit.clone(), inside: with_room(count.inside), outside });
        }
        Self { library, places, all }
    }

    /// What was taken, in the group's order.
    pub(super) fn end(mut self) -> Vec<Taken> {
        for side in self.all.iter_mut().flat_map(|taken| [&mut taken.inside, &mut taken.outside]) {
            sort(side);
        }
        self.all
    }
}

impl Sink for Filling<'_> {
    fn take(&mut self, _: u64, audience: Named<'_>, ecid: Ecid, inside: bool) {
        let place = match audience {
            Named::Segment(sid) => self.places.segments.get(&sid),
            Named::Audience(audience) => self.places.audiences.get(audience),
        };
        let Some(taken) = place.copied().flatten().and_then(|place| self.all.get_mut(place)) else { return };
        let row = mix(ecid);
        if !taken.unit.holds(row) || !self.library.holds(audience) {
            return;
        }
        let side = match inside {
            true => &mut taken.inside,
            false if taken.unit.facts => &mut taken.outside,
            false => return,
        };
        // There is room for all; of a part of a large audience it is reckoned, and one ECID may stand there very often.
        if side.len() == side.capacity() {
            sort(side);
        }
        side.push(row);
    }

    fn reject(&mut self, _: u64, _: &Said) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(sid: u64) -> AudienceId {
        AudienceId::aam(sid)
    }

    fn counts(all: &[(u64, u64, u64)]) -> BTreeMap<AudienceId, Count> {
        all.iter().map(|&(sid, inside, outside)| (audience(sid), Count { inside, outside })).collect()
    }

    #[test]
    fn snapshots_come_first_and_no_group_holds_more_than_fits() {
        let counts = counts(&[(1, 4, 9), (2, 5, 9), (3, 2, 3), (4, 25, 0), (5, 1, 0), (6, 4, 4)]);
        let told: Vec<String> = plan(&counts, 10, |audience| !matches!(audience.sid(), Some(3 | 6)))
            .iter()
            .map(|group| {
                let unit =
                    |unit: &Unit| format!("{}{}.{}", if unit.facts { "f" } else { "s" }, unit.audience, unit.part);
                group.iter().map(unit).collect::<Vec<_>>().join(" ").replace("aam:", "")
            })
            .collect();
        assert_eq!(told, ["s1.0 s2.0", "s4.0", "s4.1", "s4.2", "s5.0 f3.0", "f6.0"]);
        // Whoever goes on with the next unit leaves none out.
        let units: Vec<Unit> = plan(&counts, 10, |_| true).concat();
        assert!(units.is_sorted() && units.len() == 8);
    }

    #[test]
    fn every_ecid_falls_into_one_part_and_parts_follow_each_other() {
        for parts in [1, 2, 3, 7] {
            let units: Vec<Unit> =
                (0..parts).map(|part| Unit { facts: false, audience: audience(1), part, parts }).collect();
            for number in 0..500_u128 {
                let ecid = Ecid::from_number(number * 0x1234_5678_9ABC_DEF0_1234).unwrap();
                let row = mix(ecid);
                let held: Vec<&Unit> = units.iter().filter(|unit| unit.holds(row)).collect();
                let [unit] = held[..] else { panic!("{parts} parts: in {}", held.len()) };
                assert!(unit.end().is_none_or(|end| row < end));
                let before = unit.part.checked_sub(1).and_then(|part| units[part as usize].end());
                assert!(before.is_none_or(|begin| row >= begin));
            }
        }
    }

    #[test]
    fn a_sample_is_spread_evenly_and_of_few_it_is_all() {
        let ecid = |n: u64| Ecid::from_number(n.into()).unwrap();
        for count in [0, 1, 1_999, 2_000, 2_001, 10_000, 1_000_000] {
            let mut sample = Sample::default();
            (0..count).for_each(|n| sample.meet(ecid(n)));
            let every = sample.every;
            assert_eq!(sample.ids, (0..count).step_by(usize::try_from(every).unwrap()).map(ecid).collect::<Vec<_>>());
            assert!(sample.ids.len() <= 2 * SAMPLE && (every == 1 || sample.ids.len() >= SAMPLE), "{count}");
        }
    }
}
