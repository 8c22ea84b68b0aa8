//! Files that arrive: at once or in parts, in any order, late, twice, or never.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::HOUR_MS;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use scheduled_incremental_sync::Arrival;
use serde_json::{Value, json};

use crate::kinds::{Kind, Kinds};
use crate::scenario::{ECIDS, File, FileOf, Plan, Scenario, ecid};

/// The feed whose deliveries come in parts.
const FEED: &str = "parts";
/// What is made certain by a quiet time, in minutes.
const QUIET_MINUTES: u64 = 20;
/// A part, or a file that is stored again, comes at most this much later, in ms.
const LATE_MS: u64 = 20 * 60_000;
/// A delivery of which a part never came is taken for what it is after this time, in ms: a day, and until somebody looks.
const GIVEN_UP_MS: u64 = 25 * HOUR_MS;

/// An object that is stored at some time.
#[derive(Debug, Clone)]
struct Put {
    /// In ms.
    at: u64,
    /// Its key.
    key: String,
    body: Vec<u8>,
    /// What it is a part of, and its rows.
    part: Option<(u64, Rows)>,
}

/// What a file says of ECIDs: in which segments they are, and which they left.
type Rows = BTreeMap<u64, (Vec<u64>, Vec<u64>)>;

/// A full delivery in parts that is not whole.
#[derive(Debug)]
struct Open {
    /// The row of the delivery.
    row: String,
    /// What it says once it is whole.
    whole: FileOf,
    /// What has come.
    come: Rows,
    /// Parts and control files that are missing.
    missing: usize,
}

/// What arrives later, and what is not whole.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    later: Vec<Put>,
    /// Parts that do not come while the world is played.
    lost: Vec<Put>,
    /// By the time that the delivery bears.
    open: BTreeMap<u64, Open>,
    /// Whether deliveries are whole by a quiet time; else by a control file.
    quiet: bool,
}

/// The rows of a file, by ECID.
fn rows(inside: &BTreeMap<u64, BTreeSet<u64>>, outside: &BTreeMap<u64, BTreeSet<u64>>) -> Rows {
    let mut rows = Rows::new();
    for (sid, ecids) in inside {
        ecids.iter().for_each(|e| rows.entry(*e).or_default().0.push(*sid));
    }
    for (sid, ecids) in outside {
        ecids.iter().for_each(|e| rows.entry(*e).or_default().1.push(*sid));
    }
    rows
}

/// The same as Audience Manager writes it.
fn text(rows: &Rows, end: &str) -> Vec<u8> {
    let list = |sids: &[u64]| sids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let line = |(e, (inside, outside)): (&u64, &(Vec<u64>, Vec<u64>))| {
        format!("{}\t{}\t{}{end}", ecid(*e), list(inside), list(outside))
    };
    rows.iter().map(line).collect::<String>().into_bytes()
}

/// The same by segment.
fn by_segment(rows: &Rows) -> FileOf {
    let mut file = FileOf { snapshot: false, inside: BTreeMap::new(), outside: BTreeMap::new() };
    for (e, (inside, outside)) in rows {
        for sid in inside {
            file.inside.entry(*sid).or_default().insert(*e);
        }
        for sid in outside {
            file.outside.entry(*sid).or_default().insert(*e);
        }
    }
    file
}

impl Scenario {
    /// Declares the feed of deliveries in parts, where there are any. That a quiet time makes a delivery whole holds only while
    /// whatever comes is noticed in time.
    pub(crate) fn declare_parts(&mut self, plan: Plan) {
        if !plan.kinds.has(Kind::Parts) {
            return;
        }
        let late = [Kind::Notice, Kind::Kill, Kind::Freeze, Kind::Unavailable, Kind::Unknown, Kind::Truncated];
        self.arrivals.quiet = !late.iter().any(|kind| plan.kinds.has(*kind)) && self.rng.random_bool(0.5);
        let feed = if self.arrivals.quiet {
            json!({"snapshots": true, "completeness": "quiet-period", "quiet_minutes": QUIET_MINUTES})
        } else {
            json!({"snapshots": true, "completeness": "info"})
        };
        self.request("PUT", &format!("/feeds/{FEED}"), &feed);
    }

    /// A file of the default feed arrives; in a world in which nothing is said of kinds nobody is told. Returns its key.
    pub(crate) fn deliver_whole(&mut self, time: u64, file: &FileOf) -> String {
        let rows = rows(&file.inside, &file.outside);
        let name = format!("S3_1_2_Sample_{}_{time}.sync", mode(file));
        self.tell(format!("{name}: in {:?}, out {:?}", file.inside, file.outside));
        let key = format!("incoming/{name}");
        let body = text(&rows, "\n");
        if self.kinds == Kinds::NONE {
            self.driver.sim.lock().objects.insert(key.clone(), body.into());
            return key;
        }
        self.driver.whole.insert(format!("delivery/default/{}", name.trim_end_matches(".sync").to_ascii_lowercase()));
        self.store(&key, body);
        if self.kinds.has(Kind::PutAgain) && self.rng.random_bool(0.3) {
            let end = if self.rng.random_bool(0.5) { "\n" } else { "\r\n" };
            self.again(&key, text(&rows, end));
        }
        key
    }

    /// A file is stored again, and says the same.
    fn again(&mut self, key: &str, body: Vec<u8>) {
        let at = self.now() + self.rng.random_range(0..LATE_MS);
        self.arrivals.later.push(Put { at, key: key.to_owned(), body, part: None });
    }

    /// A file arrives in two or three parts.
    pub(crate) fn deliver_parts(&mut self, time: u64, file: FileOf) {
        let all = rows(&file.inside, &file.outside);
        let count = self.rng.random_range(2..=3).min(all.len()).max(1);
        let mut parts = vec![Rows::new(); count];
        for (at, (e, row)) in all.into_iter().enumerate() {
            // Each has one; the rest by chance.
            let part = if at < count { at } else { self.rng.random_range(0..count) };
            parts[part].insert(e, row);
        }
        let stem = format!("S3_1_2_Parts_{}_{time}", mode(&file));
        // Of numbers that begin with 1 nobody can say without a control file whether the first is missing.
        let numbering = self.rng.random_range(0..if self.arrivals.quiet { 3 } else { 4 });
        let name = |part: usize| match numbering {
            0 if part == 0 => format!("{stem}.sync"),
            0 | 1 => format!("{stem}{part:03}.sync"),
            2 => format!("{stem}-{}.sync", part + 1),
            _ => format!("{stem}{:03}.sync", part + 1),
        };
        self.tell(format!("{stem}: in {:?}, out {:?}, in {count} parts", file.inside, file.outside));
        let now = self.now();
        let mut puts: Vec<Put> = Vec::new();
        let mut about: Vec<Value> = Vec::new();
        for (number, rows) in parts.into_iter().enumerate() {
            let body = text(&rows, "\n");
            about.push(json!({"FileName": name(number), "FileByteSize": body.len(), "FileLineCount": rows.len()}));
            let key = format!("incoming/{FEED}/{}", name(number));
            puts.push(Put { at: now, key, body, part: Some((time, rows)) });
        }
        if !self.arrivals.quiet {
            let control = json!({"Files": about, "Totals": {"TotalNumberFiles": count}}).to_string().into_bytes();
            let key = format!("incoming/{FEED}/{stem}.info");
            puts.push(Put { at: now, key, body: control, part: Some((time, Rows::new())) });
        }
        // Without a control file the number of the last part alone tells that others are to come.
        let first = if self.arrivals.quiet { puts.pop() } else { None };
        puts.shuffle(&mut self.rng);
        let lost = self.kinds.has(Kind::PartMissing) && !puts.is_empty() && self.rng.random_bool(0.4);
        let lost = if lost { puts.pop() } else { None };
        for put in &mut puts {
            if self.rng.random_bool(0.5) {
                put.at += self.rng.random_range(0..LATE_MS);
            }
        }
        if file.snapshot {
            let missing = puts.len() + usize::from(first.is_some()) + usize::from(lost.is_some());
            let row = format!("delivery/{FEED}/{}", stem.to_ascii_lowercase());
            self.arrivals.open.insert(time, Open { row, whole: file, come: Rows::new(), missing });
        }
        if let Some(lost) = lost {
            self.driver.sim.lock().counts.count(Kind::PartMissing);
            self.tell(format!("{} does not come", lost.key));
            self.arrivals.lost.push(lost);
        }
        if let Some(first) = first {
            self.put(first);
        }
        self.arrivals.later.extend(puts);
        self.arrive();
    }

    /// Whatever is to be stored by now is.
    pub(crate) fn arrive(&mut self) {
        let now = self.now();
        let due: Vec<Put> = self.arrivals.later.extract_if(.., |put| put.at <= now).collect();
        due.into_iter().for_each(|put| self.put(put));
    }

    /// Whatever is to be stored later is stored now.
    pub(crate) fn arrive_all(&mut self) {
        let later = std::mem::take(&mut self.arrivals.later);
        later.into_iter().for_each(|put| self.put(put));
    }

    fn put(&mut self, put: Put) {
        let Put { key, body, part, .. } = put;
        let is_again = part.is_none();
        let kind = if is_again { Kind::PutAgain } else { Kind::Parts };
        self.driver.sim.lock().counts.count(kind);
        self.tell(format!("{key} is stored{}", if is_again { " again" } else { "" }));
        if let Some((time, rows)) = part {
            if self.kinds.has(Kind::PutAgain) && self.rng.random_bool(0.2) {
                self.again(&key, body.clone());
            }
            self.note_part(time, rows);
        }
        self.store(&key, body);
    }

    /// Tells the model of a part: of changes each counts by itself, a full delivery once it is whole.
    fn note_part(&mut self, time: u64, rows: Rows) {
        let Some(open) = self.arrivals.open.get_mut(&time) else {
            let part = by_segment(&rows);
            self.note_exits(&part);
            let file = self.files.entry(time).or_default();
            part.inside.into_iter().for_each(|(sid, ecids)| file.inside.entry(sid).or_default().extend(ecids));
            part.outside.into_iter().for_each(|(sid, ecids)| file.outside.entry(sid).or_default().extend(ecids));
            return;
        };
        open.come.extend(rows);
        open.missing -= 1;
        if open.missing == 0
            && let Some(Open { row, whole, .. }) = self.arrivals.open.remove(&time)
        {
            self.note_exits(&whole);
            self.driver.whole.insert(row);
            self.files.insert(time, File::from(whole));
        }
    }

    /// From now on whoever a file says has left may be taken out.
    pub(crate) fn note_exits(&mut self, file: &FileOf) {
        for (sid, ecids) in &file.outside {
            self.watch.exits.extend(ecids.iter().map(|e| (*sid, *e)));
        }
        if file.snapshot {
            for (sid, ecids) in &file.inside {
                self.watch.exits.extend((1..=ECIDS).filter(|e| !ecids.contains(e)).map(|e| (*sid, e)));
            }
        }
    }

    /// An object is stored, and notice of it is given: most often at once.
    fn store(&mut self, key: &str, body: Vec<u8>) {
        self.driver.sim.lock().objects.insert(key.to_owned(), body.into());
        let arrival = Arrival { key: key.to_owned(), etag: self.driver.sim.tag(key) };
        let strikes = self.kinds.has(Kind::Notice) && self.rng.random_bool(0.5);
        if !strikes {
            self.driver.notify(0, arrival);
            return;
        }
        self.driver.sim.lock().counts.count(Kind::Notice);
        let late = self.rng.random_range(0..600_000);
        match self.rng.random_range(0..3) {
            // Lost: the backstop finds the file.
            0 => {}
            1 => self.driver.notify(late, arrival),
            _ => {
                self.driver.notify(0, arrival.clone());
                self.driver.notify(late, arrival);
            }
        }
    }

    /// So much time passes that nobody waits any longer for parts that have not come: what has come counts, and absence says
    /// nothing.
    pub(crate) fn a_day_passes(&mut self) {
        self.tell("a day passes".into());
        // A day of refusals for being too fast would leave us hardly any calls, as is meant.
        self.driver.sim.lock().marketo.clear_faults();
        self.driver.run_idly_for(GIVEN_UP_MS);
        self.answer_otherwise();
        for (time, open) in &self.arrivals.open {
            self.files.insert(*time, File::from(by_segment(&open.come)));
        }
    }

    /// After the end: what never came comes after all, or time passes until nobody waits for it any more. Then what has come
    /// counts, and absence says nothing.
    pub(crate) fn end_of_waiting(&mut self) -> Result<(), String> {
        if self.arrivals.lost.is_empty() {
            return Ok(());
        }
        match self.rng.random_range(0..4) {
            0 | 1 => return Ok(()),
            2 => {
                let lost = std::mem::take(&mut self.arrivals.lost);
                lost.into_iter().for_each(|put| self.put(put));
                self.arrive_all();
            }
            _ => {
                self.a_day_passes();
            }
        }
        self.settle()?;
        self.check()
    }
}

const fn mode(file: &FileOf) -> &'static str {
    if file.snapshot { "full" } else { "iter" }
}
