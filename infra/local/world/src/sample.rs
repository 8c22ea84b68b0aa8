//! Generated worlds: the same seed always gives the same world.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::json;

use crate::{
    World,
    feed::{FeedFile, gzip},
    types::{Event, Folder, Later, Lead, Library, List, MarketoData, Match, Segment},
};

/// When the second file of a sample is made: 2026-11-02T00:00:00Z, in milliseconds. The first is a day older.
pub const SAMPLE_TIME_MS: u64 = 1_793_577_600_000;

/// A day in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// How large a world is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// ECIDs that the feed names; at least as many as matches and leads together.
    pub ecids: usize,
    /// Matches that browsers have shown before the start; at least 3 for 2 known leads.
    pub matches: usize,
    /// Leads known at the start, at least 32. Each part of the cast is a 32nd of them; a quarter more are anonymous.
    pub leads: usize,
}

impl Size {
    /// The sample world of `cargo run`.
    pub const SAMPLE: Size = Size { ecids: 50_000, matches: 20_000, leads: 8_000 };
    /// The world of the bench.
    pub const BENCH: Size = Size { ecids: 100_000, matches: 30_000, leads: 10_000 };
}

/// Members of each audience: sid → ECIDs.
pub type Members = BTreeMap<u64, BTreeSet<String>>;

/// A generated world, and what its two files say.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The world.
    pub world: World,
    /// Members at the first delivery.
    pub first: Members,
    /// Members at the second.
    pub second: Members,
}

/// The sample world.
#[must_use]
pub fn sample(seed: u64) -> Sample {
    generate(seed, Size::SAMPLE, SAMPLE_TIME_MS)
}

/// A world of another size.
///
/// # Panics
/// If the size breaks the bounds that [`Size`] names.
#[must_use]
pub fn sized(seed: u64, ecids: usize, matches: usize, leads: usize) -> Sample {
    generate(seed, Size { ecids, matches, leads }, SAMPLE_TIME_MS)
}

/// A world whose second file is made at `time_ms`; the first a day, the matches up to three weeks before.
///
/// # Panics
/// If the size breaks the bounds that [`Size`] names.
#[must_use]
pub fn generate(seed: u64, size: Size, time_ms: u64) -> Sample {
    assert!(
        size.leads >= 32 && size.matches >= size.leads * 3 / 2 && size.ecids >= size.matches + size.leads,
        "size out of bounds"
    );
    let mut maker = Maker::new(seed, size, time_ms);
    maker.people();
    let (first, second) = maker.audiences();
    maker.world(first, second)
}

/// An audience to generate.
struct Audience {
    sid: u64,
    folder: u64,
    name: &'static str,
    /// Per cent of the ECIDs that are in it.
    share: u32,
}

/// Folders: id, parent, name.
const FOLDERS: [(u64, u64, &str); 4] = [(1, 0, "Retail"), (2, 1, "Web shop"), (3, 0, "Loyalty"), (4, 0, "Newsletter")];

/// The last one has no sync: it is left for the visitor.
const AUDIENCES: [Audience; 6] = [
    Audience { sid: 101, folder: 2, name: "Cart abandoners", share: 12 },
    Audience { sid: 102, folder: 2, name: "Returning visitors", share: 30 },
    Audience { sid: 103, folder: 3, name: "Gold members", share: 8 },
    Audience { sid: 104, folder: 4, name: "Newsletter readers", share: 20 },
    Audience { sid: 105, folder: 3, name: "Store visitors", share: 10 },
    Audience { sid: 106, folder: 1, name: "Price watchers", share: 15 },
];

const VIP: u64 = 1001;
const CART: u64 = 1002;

/// The first lead's id.
const FIRST_LEAD: u64 = 100_001;

struct Maker {
    rng: StdRng,
    size: Size,
    time_ms: u64,
    /// A 32nd of the known leads: how many play each part.
    part: usize,
    /// The ECIDs, in no order; those before `used` belong to somebody or have a match.
    ecids: Vec<String>,
    used: usize,
    /// ECIDs that must be in this audience at first, so that what happens to their people can be seen on a list.
    placed: BTreeMap<usize, u64>,
    leads: Vec<Lead>,
    matches: Vec<Match>,
    lists: Vec<List>,
    later: Vec<Later>,
}

impl Maker {
    fn new(seed: u64, size: Size, time_ms: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ecids = BTreeSet::new();
        while ecids.len() < size.ecids {
            ecids.insert(format!("{:038}", rng.random_range(1..10_u128.pow(38))));
        }
        let mut ecids: Vec<String> = ecids.into_iter().collect();
        ecids.shuffle(&mut rng);
        let list = |id, name: &str| List { id, name: name.to_owned(), members: BTreeSet::new() };
        let lists = vec![
            list(VIP, "VIP customers"),
            list(CART, "Cart abandoners (e-mail)"),
            list(1003, "Event guests"),
            list(1004, "Partners"),
        ];
        let (leads, matches, later) = (Vec::new(), Vec::new(), Vec::new());
        let placed = BTreeMap::new();
        Self { rng, size, time_ms, part: size.leads / 32, ecids, used: 0, placed, leads, matches, lists, later }
    }

    /// The cast. Each lead is first of its part; the rest have one browser, some of them two.
    fn people(&mut self) {
        let part = self.part;
        for pair in 0..part {
            // A shared device: one ECID beside the tokens of two people.
            let (one, two, ecid) = (self.known(), self.known(), self.ecid());
            let (first, second) = (self.browser(one, ecid), self.browser(two, ecid));
            if pair < part / 8 {
                // The second person's form was filled in the first one's browser: the token changes hands.
                let mut lead = self.leads[two].clone();
                lead.cookies = vec![second, first];
                self.after(1, Event::Lead(lead));
            }
        }
        for n in 0..3 * part {
            let lead = self.known(); // several browsers: 2, 3 or 4
            (0..2 + n % 3).for_each(|_| self.own_browser(lead));
        }
        for n in 0..part {
            let lead = self.seen(n); // deleted, most of them after the first file
            let event = Event::Delete(self.leads[lead].id);
            self.after(if n % 10 == 0 { 2 } else { 1 }, event);
        }
        for n in 0..part {
            let (winner, loser) = (self.seen(n), self.seen(n + 1)); // merged
            if n % 10 == 1 {
                self.member(VIP, loser); // there before us, and so is the winner from then on
            }
            let (winner, losers) = (self.leads[winner].id, vec![self.leads[loser].id]);
            self.after(if n % 10 == 0 { 2 } else { 1 }, Event::Merge { winner, losers });
        }
        for n in 0..part {
            let (list, sid) = if n % 2 == 0 { (VIP, 103) } else { (CART, 101) };
            let (both, only) = (self.known(), self.known()); // on a list already: and in its audience; and never seen
            let ecid = self.ecid();
            self.placed.insert(ecid, sid);
            self.browser(both, ecid);
            self.member(list, both);
            self.member(list, only);
        }
        for n in 0..part {
            let (lead, ecid) = (self.known(), self.ecid()); // known to Marketo alone, by its own field
            self.leads[lead].ecids.push(self.ecids[ecid].clone());
            self.placed.insert(ecid, AUDIENCES[n % 5].sid);
        }
        for _ in 0..part {
            self.known(); // no ECID at all
        }
        while self.leads.len() < self.size.leads {
            let lead = self.known();
            self.own_browser(lead);
            if self.rng.random_ratio(1, 10) {
                self.own_browser(lead);
            }
        }
        for n in 0..self.size.leads / 4 {
            let lead = self.seen(n); // anonymous; the first of them become known
            self.leads[lead].email = None;
            if n < 2 * part {
                let mut known = self.leads[lead].clone();
                known.email = Some(email(known.id));
                self.after(1 + n % 2, Event::Lead(known));
            }
        }
        for list in [2, 3] {
            for _ in 0..part / 4 {
                let id = self.leads[self.rng.random_range(0..self.size.leads)].id;
                self.lists[list].members.insert(id); // lists that nobody feeds
            }
        }
        while self.matches.len() < self.size.matches {
            let (ecid, token) = (self.ecid(), self.token()); // tokens that Marketo does not know
            self.matched(ecid, token);
        }
        for n in 0..part / 4 {
            // Marketo has the cookie, but the two cookies are seen side by side only later, and then the form comes.
            let (lead, ecid, token, seen_at) = (self.known(), self.ecid(), self.token(), self.seen_at());
            self.leads[lead].cookies.push(token.clone());
            let known = self.leads[lead].clone();
            self.leads[lead].email = None;
            self.after(1 + n % 2, Event::Match(Match { ecid: self.ecids[ecid].clone(), token, seen_at }));
            self.after(1 + n % 2, Event::Lead(known));
        }
        self.matches.shuffle(&mut self.rng);
        self.later.sort_by_key(|later| later.after_file);
    }

    fn known(&mut self) -> usize {
        let id = FIRST_LEAD + self.leads.len() as u64;
        self.leads.push(Lead { id, email: Some(email(id)), cookies: Vec::new(), ecids: Vec::new() });
        self.leads.len() - 1
    }

    /// A known lead with one browser whose ECID is in one of the five synced audiences.
    fn seen(&mut self, n: usize) -> usize {
        let (lead, ecid) = (self.known(), self.ecid());
        self.placed.insert(ecid, AUDIENCES[n % 5].sid);
        self.browser(lead, ecid);
        lead
    }

    fn own_browser(&mut self, lead: usize) {
        let ecid = self.ecid();
        self.browser(lead, ecid);
    }

    fn browser(&mut self, lead: usize, ecid: usize) -> String {
        let token = self.token();
        self.leads[lead].cookies.push(token.clone());
        self.matched(ecid, token.clone());
        token
    }

    fn matched(&mut self, ecid: usize, token: String) {
        let seen_at = self.seen_at();
        self.matches.push(Match { ecid: self.ecids[ecid].clone(), token, seen_at });
    }

    /// An ECID that nobody has yet.
    fn ecid(&mut self) -> usize {
        self.used += 1;
        self.used - 1
    }

    /// A token of either of the two forms.
    fn token(&mut self) -> String {
        if self.rng.random_ratio(1, 4) {
            return format!("_mch-example.com-{:032x}", self.rng.random::<u128>());
        }
        let ms = self.time_ms - self.rng.random_range(DAY_MS..300 * DAY_MS);
        format!("_mch-example.com-{ms:013}-{}", self.rng.random_range(10_000..100_000))
    }

    /// Between three weeks and a day before the second file.
    fn seen_at(&mut self) -> String {
        let ms = self.time_ms - self.rng.random_range(DAY_MS..21 * DAY_MS);
        let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
    }

    fn member(&mut self, list: u64, lead: usize) {
        let id = self.leads[lead].id;
        self.lists.iter_mut().filter(|l| l.id == list).for_each(|l| _ = l.members.insert(id));
    }

    fn after(&mut self, after_file: usize, event: Event) {
        self.later.push(Later { after_file, event });
    }

    /// Who is in which audience, at first and then. One ECID in fifty comes only with the second file; one member
    /// in twenty leaves. Every ECID is in at least one audience in at least one of the files.
    fn audiences(&mut self) -> (Members, Members) {
        let (mut first, mut second) = (Members::new(), Members::new());
        for (n, ecid) in self.ecids.iter().enumerate() {
            let placed = self.placed.get(&n);
            let late = placed.is_none() && self.rng.random_ratio(1, 50);
            let rng = &mut self.rng;
            let drawn = AUDIENCES.iter().filter(|a| rng.random_ratio(a.share, 100) || placed == Some(&a.sid));
            let mut sids: Vec<u64> = drawn.map(|a| a.sid).collect();
            if sids.is_empty() {
                sids.push(AUDIENCES[self.rng.random_range(0..AUDIENCES.len())].sid);
            }
            for sid in sids {
                if !late {
                    first.entry(sid).or_default().insert(ecid.clone());
                }
                if late || !self.rng.random_ratio(1, 20) {
                    second.entry(sid).or_default().insert(ecid.clone());
                }
            }
            if !late && self.rng.random_ratio(1, 50) {
                let sid = AUDIENCES[self.rng.random_range(0..AUDIENCES.len())].sid;
                second.entry(sid).or_default().insert(ecid.clone());
            }
        }
        (first, second)
    }

    fn world(self, first: Members, second: Members) -> Sample {
        let folder = |(id, parent, name): (u64, u64, &str)| Folder {
            folder_id: id,
            parent_folder_id: parent,
            name: name.to_owned(),
        };
        let segment = |a: &Audience| Segment { sid: a.sid, folder_id: a.folder, name: a.name.to_owned() };
        let none = Members::new();
        let world = World {
            library: Library {
                folders: FOLDERS.into_iter().map(folder).collect(),
                segments: AUDIENCES.iter().map(segment).collect(),
                ..Library::default()
            },
            marketo: MarketoData {
                munchkin_id: "123-ABC-456".to_owned(),
                org_id: Some("0123456789ABCDEF01234567@AdobeOrg".to_owned()),
                hipaa_ready: false,
                cookie_sync: true,
                leads: self.leads,
                lists: self.lists,
            },
            matches: self.matches,
            feeds: BTreeMap::new(),
            syncs: vec![
                json!({"audience_id": "aam:101", "list": {"id": CART}}),
                json!({"audience_id": "aam:102", "list": {"name": "Returning visitors"}}),
                json!({"audience_id": "aam:103", "list": {"id": VIP}}),
                json!({"audience_id": "aam:104", "list": {"name": "Newsletter readers"}, "leaving": "keep"}),
                json!({"audience_id": "aam:105", "list": {"id": VIP}}),
            ],
            files: vec![file(self.time_ms - DAY_MS, &none, &first), file(self.time_ms, &first, &second)],
            later: self.later,
        };
        Sample { world, first, second }
    }
}

/// RFC 2606 keeps this domain free of real people.
fn email(lead: u64) -> String {
    format!("person{lead}@example.com")
}

/// A full file as Adobe writes it: a row for each ECID in any audience, `MCID<TAB>segments<TAB>removed`.
fn file(time_ms: u64, before: &Members, now: &Members) -> FeedFile {
    let mut rows: BTreeMap<&str, [Vec<String>; 2]> = BTreeMap::new();
    for (sid, ecids) in now {
        ecids.iter().for_each(|ecid| rows.entry(ecid).or_default()[0].push(sid.to_string()));
    }
    for (sid, ecids) in before {
        let left = ecids.iter().filter(|ecid| !now.get(sid).is_some_and(|ecids| ecids.contains(*ecid)));
        left.for_each(|ecid| rows.entry(ecid).or_default()[1].push(sid.to_string()));
    }
    let mut text = String::with_capacity(rows.len() * 56);
    for (ecid, [segments, removed]) in rows.into_iter().filter(|(_, [segments, _])| !segments.is_empty()) {
        _ = writeln!(text, "{ecid}\t{}\t{}", segments.join(","), removed.join(","));
    }
    FeedFile::new(format!("S3_1234_20914_Sample_full_{time_ms:013}.sync.gz"), gzip(&text))
}

#[cfg(test)]
mod tests;
