//! What the files and the messages of a world say, by the settings of their feed, as far as the reference model knows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    World,
    feed::{FeedFile, is_ecid, listed},
    types::Streamed,
};

/// Why it cannot be told what comes of a world: a line for each file of which the reference does not know enough.
#[must_use]
pub fn unknown(world: &World) -> Vec<String> {
    let why = |file: &FeedFile| Some(format!("{}: {}", file.name, Feed::of(world, file).unknown(file)?));
    world.files.iter().filter_map(why).collect()
}

/// Who is in which audience.
#[derive(Default)]
pub(super) struct Audiences {
    /// The audiences that a file or a message has named, with their ECIDs.
    pub(super) named: BTreeMap<String, BTreeSet<String>>,
    /// What a stream said last of an audience and an ECID: newer than any file.
    streamed: BTreeMap<(String, String), bool>,
    /// Files that have come, by feed and name.
    parts: BTreeMap<(String, String), Said>,
    /// Lists of files that are not complete, by feed.
    awaited: Vec<(String, BTreeSet<String>)>,
}

impl Audiences {
    /// A message of a stream.
    pub(super) fn hear(&mut self, said: Streamed) {
        self.streamed.insert((said.audience, said.ecid), said.member);
        self.streams_win();
    }

    /// A file.
    pub(super) fn deliver(&mut self, world: &World, file: &FeedFile) {
        let feed = Feed::of(world, file);
        if let Some(names) = feed.lists(file) {
            self.awaited.push((file.feed().to_owned(), names));
        } else if let Some(said) = feed.said(file) {
            if said.snapshot {
                self.named.retain(|audience, _| !said.joined.contains_key(audience));
            }
            self.add(&said);
            let name = file.name.rsplit('/').next().unwrap_or_default();
            self.parts.insert((file.feed().to_owned(), name.to_owned()), said);
        }
        // What a list names is whole when the last of it is there, whichever that is.
        let mut at = 0;
        while let Some((feed, names)) = self.awaited.get(at) {
            let keys: Vec<_> = names.iter().map(|name| (feed.clone(), name.clone())).collect();
            if !keys.iter().all(|key| self.parts.contains_key(key)) {
                at += 1;
                continue;
            }
            self.awaited.remove(at);
            let parts: Vec<Said> = keys.iter().filter_map(|key| self.parts.remove(key)).collect();
            self.named.retain(|audience, _| !parts.iter().any(|said| said.joined.contains_key(audience)));
            parts.iter().for_each(|said| self.add(said));
        }
        self.streams_win();
    }

    fn add(&mut self, said: &Said) {
        for (audience, ecids) in &said.joined {
            self.named.entry(audience.clone()).or_default().extend(ecids.iter().cloned());
        }
        for (audience, ecids) in &said.left {
            self.named.entry(audience.clone()).or_default().retain(|ecid| !ecids.contains(ecid));
        }
    }

    fn streams_win(&mut self) {
        for ((audience, ecid), member) in &self.streamed {
            let ecids = self.named.entry(audience.clone()).or_default();
            _ = if *member { ecids.insert(ecid.clone()) } else { ecids.remove(ecid) };
        }
    }
}

/// A feed of files, as `feeds.json` declares it.
#[derive(Debug, Clone, Copy)]
struct Feed<'a> {
    body: Option<&'a Value>,
}

/// What a file says of each audience that it names.
#[derive(Debug, Default)]
struct Said {
    /// By itself it is all that there is of these audiences.
    snapshot: bool,
    joined: BTreeMap<String, BTreeSet<String>>,
    left: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Feed<'a> {
    /// The feed of a file.
    fn of(world: &'a World, file: &FeedFile) -> Self {
        Self { body: world.feeds.get(file.feed()) }
    }

    fn text(self, field: &str) -> Option<&'a str> {
        self.body.and_then(|body| body[field].as_str())
    }

    fn platform(self) -> bool {
        self.text("kind") == Some("aep-files")
    }

    /// Whether what is absent from a whole delivery has left.
    fn snapshots(self) -> bool {
        self.body.is_none_or(|body| body["snapshots"] == true) && (!self.platform() || self.full())
    }

    fn full(self) -> bool {
        self.body.is_some_and(|body| body["full"] == true)
    }

    fn completeness(self) -> &'a str {
        self.text("completeness").unwrap_or("single-file")
    }

    fn words(self, field: &str, default: &[&str]) -> Vec<String> {
        let own = self.body.and_then(|body| body[field].as_array());
        let own = own.map(|words| words.iter().filter_map(Value::as_str).map(str::to_lowercase).collect());
        own.unwrap_or_else(|| default.iter().map(|word| (*word).to_owned()).collect())
    }

    /// The files that a control file or a manifest lists, where that decides what is whole.
    fn lists(self, file: &FeedFile) -> Option<BTreeSet<String>> {
        let control = matches!(self.completeness(), "info" | "manifest");
        let names: BTreeSet<String> = listed(&file.name, &file.bytes).into_iter().collect();
        (control && self.snapshots() && !names.is_empty()).then_some(names)
    }

    /// What a file says; `None`: it is refused whole, or tells of no members.
    fn said(self, file: &FeedFile) -> Option<Said> {
        if self.platform() {
            return self.table(file);
        }
        let facts = file.facts()?;
        let named = |sides: BTreeMap<u64, BTreeSet<String>>| {
            sides.into_iter().map(|(sid, ecids)| (format!("aam:{sid}"), ecids)).collect()
        };
        let snapshot = facts.snapshot && self.snapshots() && self.completeness() == "single-file";
        Some(Said { snapshot, joined: named(facts.joined), left: named(facts.left) })
    }

    /// A CSV of one audience, without quotes.
    fn table(self, file: &FeedFile) -> Option<Said> {
        let stem = file.name.strip_suffix(".gz").unwrap_or(&file.name);
        let text = if stem.ends_with(".csv") { file.text()? } else { return None };
        let mut lines = text.lines();
        let head = lines.next()?;
        let is_ecid_column = |name: &str| match self.text("ecid_column") {
            Some(column) => name == column,
            None => name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("ecid")),
        };
        let is_status_column = |name: &str| match self.text("status_column") {
            Some(column) => name == column,
            None => name == "status" || name.ends_with(".status"),
        };
        let delimiter = [',', ';', '|', '\t', ':'].into_iter().find(|d| head.split(*d).any(is_ecid_column))?;
        let place = |is: &dyn Fn(&str) -> bool| head.split(delimiter).position(is);
        let (ecid, status) = (place(&is_ecid_column)?, place(&is_status_column));
        let audience = uuid_in(head).or_else(|| uuid_in(&file.name)).or_else(|| {
            let audiences = self.body.and_then(|body| body["audiences"].as_array())?;
            if audiences.len() == 1 { audiences[0].as_str().and_then(uuid_in) } else { None }
        })?;
        let inside = self.words("status_inside", &["realized", "existing", "active"]);
        let outside = self.words("status_outside", &["exited", "expired"]);
        let (mut joined, mut left) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            let cells: Vec<&str> = line.split(delimiter).collect();
            let Some(ecid) = cells.get(ecid).filter(|ecid| is_ecid(ecid)) else { continue };
            let said = status.map(|status| cells.get(status).map(|word| word.to_lowercase()).unwrap_or_default());
            if said.as_ref().is_none_or(|said| inside.contains(said)) {
                joined.insert((*ecid).to_owned());
            } else if said.is_some_and(|said| outside.contains(&said)) {
                left.insert((*ecid).to_owned());
            }
        }
        let audience = format!("aep:{audience}");
        let snapshot = self.snapshots() && self.completeness() == "single-file";
        Some(Said { snapshot, joined: [(audience.clone(), joined)].into(), left: [(audience, left)].into() })
    }

    /// Why it cannot be told what comes of a file; `None`: it can.
    fn unknown(self, file: &FeedFile) -> Option<&'static str> {
        let name = file.name.strip_suffix(".gz").unwrap_or(&file.name);
        let folder = file.feed() != "default";
        if folder && self.body.is_none() {
            return Some("its feed is not declared");
        }
        if self.snapshots() && self.completeness() == "quiet-period" {
            return Some("when its delivery counts as whole depends on the clock");
        }
        if !listed(&file.name, &file.bytes).is_empty() {
            return None;
        }
        if !self.platform() {
            let text = if file.facts().is_some() { file.text().unwrap_or_default() } else { return None };
            let tabs = text.lines().all(|line| line.trim().is_empty() || line.contains('\t'));
            return (!tabs).then_some("its columns are not divided by tabs");
        }
        if name.ends_with(".json") {
            return Some("it is in JSON");
        }
        let Some(said) = self.said(file) else { return Some("it tells of no audience that is known here") };
        let split = name.strip_suffix(".csv").and_then(|stem| stem.rsplit_once('_'));
        let split = split.is_some_and(|(_, part)| part.len() < 6 && part.bytes().all(|b| b.is_ascii_digit()));
        match () {
            () if file.text().is_some_and(|text| text.contains('"')) => Some("it has quotes"),
            () if said.snapshot && split => Some("it is split, and nothing says when it is whole"),
            () if self.snapshots() && said.joined.values().all(BTreeSet::is_empty) => Some("nobody is in it"),
            () => None,
        }
    }
}

/// The first UUID in a text.
fn uuid_in(text: &str) -> Option<String> {
    const LENGTH: usize = 36;
    let is_uuid = |part: &[u8]| {
        part.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
    };
    let found = text.as_bytes().windows(LENGTH).find(|part| is_uuid(part))?;
    String::from_utf8(found.to_ascii_lowercase()).ok()
}
