//! Where feeds stand: how each is to be understood, what it delivered, and what was made of it.

use std::collections::{BTreeMap, BTreeSet};

use domain::feed::Control;
use domain::limits::{DAY_MS, HOUR_MS};
use domain::planted::{Guard, holds};
use domain::{AudienceId, Ecid, MunchkinId, Said};
use ports::{Due, Expect, Item, Key, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::runs::newest_first;
use crate::{Deps, Step, doc, load, update};

/// The feed of files that lie in no folder of a declared feed.
pub const DEFAULT_FEED: &str = "default";

/// How a feed is to be understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Version of this shape.
    #[serde(default = "one")]
    pub v: u8,
    /// Its name: the folder of its files under `incoming/`, or the part of the address that its stream calls.
    pub id: String,
    /// What comes by it.
    #[serde(default)]
    pub kind: Kind,
    /// Files: whether a full delivery is a snapshot, so that whoever is absent from it has left.
    #[serde(default)]
    pub snapshots: bool,
    /// Files: how a delivery is known to be whole.
    #[serde(default)]
    pub completeness: Completeness,
    /// With [`Completeness::QuietPeriod`]: a delivery is whole once no part has come for this many minutes.
    #[serde(default = "quiet_minutes")]
    pub quiet_minutes: u64,
    /// Files: a file tells what was so this many minutes before the time that it bears. What a stream said since then
    /// survives it.
    #[serde(default)]
    pub lag_minutes: u64,
    /// Files: how often Adobe delivers, in hours, for the sentence that says how late a list can be.
    #[serde(default = "every_hours")]
    pub every_hours: u64,
    /// Experience Platform files: whether they are full exports; else they hold what changed.
    #[serde(default)]
    pub full: bool,
    /// Experience Platform: the audiences that are mapped to the destination. Files: for names that tell no audience,
    /// where there is exactly one. Streams: entries of other audiences count only if Adobe marks them as mapped.
    #[serde(default)]
    pub audiences: BTreeSet<AudienceId>,
    /// Experience Platform files: the column with the ECID; `None`: the one whose name ends in `ECID`.
    #[serde(default)]
    pub ecid_column: Option<String>,
    /// Experience Platform files: the column with the status; `None`: the one whose name ends in `.status`, if any.
    #[serde(default)]
    pub status_column: Option<String>,
    /// Experience Platform files: what stands there for members; without regard to case.
    #[serde(default = "status_inside")]
    pub status_inside: Vec<String>,
    /// Experience Platform files: what stands there for those who left; without regard to case.
    #[serde(default = "status_outside")]
    pub status_outside: Vec<String>,
    /// Audience Manager streams: the field of a user that carries the ECID, `AAM_UUID` or `DataPartner_UUID`.
    #[serde(default)]
    pub ecid_field: Option<String>,
    /// Audience Manager streams: the header with the signature, in lower case.
    #[serde(default = "signature_header")]
    pub signature_header: String,
    /// Audience Manager streams: how it is made.
    #[serde(default)]
    pub signature: Signature,
}

const fn one() -> u8 {
    1
}

const fn quiet_minutes() -> u64 {
    30
}

const fn every_hours() -> u64 {
    24
}

/// What stands in the status column of Experience Platform's files for members. The statuses of XDM, and the word of its
/// screens (Adobe, "Export segment membership" and "Profile attributes").
fn status_inside() -> Vec<String> {
    ["realized", "existing", "active"].map(str::to_owned).to_vec()
}

/// The same for those who left.
fn status_outside() -> Vec<String> {
    ["exited", "expired"].map(str::to_owned).to_vec()
}

fn signature_header() -> String {
    "x-signature".to_owned()
}

impl Feed {
    /// A feed of this kind with every choice left to its default.
    #[must_use]
    pub fn new(id: &str, kind: Kind) -> Self {
        Self {
            v: one(),
            id: id.to_owned(),
            kind,
            snapshots: false,
            completeness: Completeness::default(),
            quiet_minutes: quiet_minutes(),
            lag_minutes: 0,
            every_hours: every_hours(),
            full: false,
            audiences: BTreeSet::new(),
            ecid_column: None,
            status_column: None,
            status_inside: status_inside(),
            status_outside: status_outside(),
            ecid_field: None,
            signature_header: signature_header(),
            signature: Signature::default(),
        }
    }

    /// In one sentence, how far a list that this feed fills can be behind Adobe; `None`: a stream.
    #[must_use]
    pub fn lateness(&self) -> Option<String> {
        if self.kind.is_stream() {
            return None;
        }
        let often = match self.every_hours {
            24 => "once a day".to_owned(),
            168 => "once a week".to_owned(),
            1 => "every hour".to_owned(),
            hours if hours % 24 == 0 => format!("every {} days", hours / 24),
            hours => format!("every {hours} hours"),
        };
        let behind = self.behind_hours();
        Some(format!("this feed is delivered {often}; the list can be up to {behind} hours behind Adobe"))
    }

    /// How far a list that this feed of files fills can be behind Adobe, in hours.
    #[must_use]
    pub const fn behind_hours(&self) -> u64 {
        self.every_hours + LATE_HOURS + self.lag_minutes.div_ceil(60)
    }

    /// Whether the feed has been silent for longer than twice its rhythm; never for a stream.
    #[must_use]
    pub fn is_overdue(&self, last: u64, now: u64) -> bool {
        !self.kind.is_stream() && now > last.saturating_add(2 * self.every_hours.max(1) * HOUR_MS)
    }
}

/// What Adobe takes to write a file after its time, and we to take it in, in hours. Ours: Adobe documents none.
const LATE_HOURS: u64 = 2;

/// What comes by a feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Audience Manager's outbound files.
    #[default]
    AamFiles,
    /// Experience Platform's exports of files.
    AepFiles,
    /// Audience Manager's real-time outbound messages.
    AamStream,
    /// Experience Platform's HTTP API destination.
    AepStream,
}

impl Kind {
    /// Whether it comes by HTTP.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Kind::AamStream | Kind::AepStream)
    }
}

/// How a delivery is known to be whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Completeness {
    /// One file is all; a name with a split number never is.
    #[default]
    SingleFile,
    /// Audience Manager's `.info` file names all parts.
    Info,
    /// Experience Platform's manifest names all parts.
    Manifest,
    /// No further part came for a while.
    QuietPeriod,
}

/// How Audience Manager signs a message: HMAC of the raw body, in base64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// HMAC-SHA256.
    #[default]
    Sha256,
    /// HMAC-SHA1.
    Sha1,
    /// HMAC-MD5.
    Md5,
}

/// The key of a feed.
#[must_use]
pub fn feed_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("feed/{id}"))
}

/// A feed as it was declared.
pub async fn feed(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<Option<Feed>> {
    Ok(load(deps, Table::Syncs, &feed_key(munchkin, id)).await?.map(|doc| doc.value))
}

/// All declared feeds of a subscription.
pub async fn feeds(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<Feed>> {
    let found = doc::all(deps, Table::Syncs, munchkin.as_str(), "feed/").await?;
    Ok(found.into_iter().map(|doc: crate::Doc<Feed>| doc.value).collect())
}

/// What a feed has brought so far. A message that comes twice may count twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedState {
    /// Version of this shape.
    pub v: u8,
    /// The audiences that it named, each with the time (ms) of the latest file that did.
    pub named: BTreeMap<AudienceId, u64>,
    /// When one of its ids was found among the matches, in ms: they are ECIDs.
    pub met_at: Option<u64>,
    /// An operator applied a delivery whose ids met nobody: its ids are ECIDs.
    #[serde(default)]
    pub believed: bool,
    /// Its last full deliveries, the newest last: of each audience the last two, where it has one file each.
    pub full: Vec<FullDelivery>,
    /// When its stream last sent anything that was taken, in ms.
    pub heard_at: Option<u64>,
    /// Entries of its stream that were taken.
    pub taken: u64,
    /// Entries of its stream about audiences that are not mapped to the destination.
    pub ignored: u64,
    /// Entries of its stream that could not be taken.
    pub rejected: u64,
    /// The last of those, with reasons, at most [`domain::limits::REJECTS_KEPT`].
    pub rejects: Vec<Reject>,
}

/// What the names of audiences that one feed named may take, in bytes; the oldest are forgotten. Ours: a row of DynamoDB has
/// at most 400 KB.
const NAMED_BYTES: usize = 180_000;
/// What full deliveries that are remembered may take, in bytes. Ours, likewise.
const FULL_BYTES: usize = 150_000;
/// Audiences of one full delivery that are remembered: those from which most people are absent. Ours, likewise.
const AUDIENCES_KEPT: usize = 500;

impl FeedState {
    /// Notes that files of a time (ms) named these audiences.
    pub fn name<'a>(&mut self, audiences: impl IntoIterator<Item = &'a AudienceId>, time: u64) {
        for audience in audiences {
            let last = self.named.entry(audience.clone()).or_default();
            *last = time.max(*last);
        }
        while self.named.keys().map(entry_bytes).sum::<usize>() > NAMED_BYTES {
            let oldest = self.named.iter().min_by_key(|(_, time)| **time).map(|(audience, _)| audience.clone());
            let Some(oldest) = oldest else { break };
            self.named.remove(&oldest);
        }
    }

    /// Notes a full delivery, or more of one. The first word about an audience of a version counts: once it was taken nobody is
    /// absent any more.
    pub fn remember(&mut self, mut full: FullDelivery) {
        let same = |known: &FullDelivery| known.delivery == full.delivery && known.version == full.version;
        // Whoever began with fewer of its parts may end later.
        if self.full.iter().any(|known| known.delivery == full.delivery && known.version > full.version) {
            return;
        }
        if let Some(known) = self.full.extract_if(.., |known| same(known)).next() {
            full.held.extend(known.held);
            full.absent.extend(known.absent);
        }
        self.full.retain(|known| known.delivery != full.delivery);
        let mut by_absent: Vec<(u64, AudienceId)> =
            full.absent.iter().map(|(audience, absent)| (*absent, audience.clone())).collect();
        by_absent.sort_by(|a, b| b.cmp(a));
        for (_, audience) in by_absent.drain(..).skip(AUDIENCES_KEPT) {
            full.absent.remove(&audience);
            full.held.remove(&audience);
        }
        self.full.push(full);
        self.full.sort_by_key(|known| known.time);
        let (mut newer, mut bytes) = (BTreeMap::<AudienceId, usize>::new(), 0);
        let mut kept = Vec::new();
        while let Some(known) = self.full.pop() {
            let needed = known.held.keys().any(|audience| newer.get(audience).is_none_or(|count| *count < 2));
            bytes += 2 * known.held.keys().map(entry_bytes).sum::<usize>() + 200;
            if kept.len() < 2 || (needed && bytes <= FULL_BYTES) {
                for audience in known.held.keys() {
                    *newer.entry(audience.clone()).or_default() += 1;
                }
                kept.push(known);
            }
        }
        kept.reverse();
        self.full = kept;
    }
}

/// What an entry of a map by audience takes in JSON, in bytes: the id, a time or a number, and what is between them.
fn entry_bytes(audience: &AudienceId) -> usize {
    audience.as_str().len() + 18
}

/// A full delivery, and who is absent from it. While it is taken, as far as it is; without audiences that are so large that
/// they are taken as facts in several parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullDelivery {
    /// Its id.
    pub delivery: String,
    /// The version of it that was looked at.
    #[serde(default)]
    pub version: u64,
    /// Its time, in ms.
    pub time: u64,
    /// By audience: ECIDs that it held. The 500 audiences from which most are absent.
    pub held: BTreeMap<AudienceId, u64>,
    /// By audience: members that it did not hold. They left if it was taken as a snapshot; else they would have.
    pub absent: BTreeMap<AudienceId, u64>,
    /// Whether it was taken as a snapshot.
    pub snapshot: bool,
}

/// The key of what a feed has brought.
#[must_use]
pub fn feed_state_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("feed-state/{id}"))
}

/// What a feed has brought so far.
pub async fn feed_state(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<FeedState> {
    let found = load(deps, Table::Syncs, &feed_state_key(munchkin, id)).await?;
    Ok(found.map(|doc| doc.value).unwrap_or_default())
}

/// Writes down what a feed has brought.
pub async fn change_feed_state(
    deps: &Deps,
    munchkin: &MunchkinId,
    id: &str,
    mut change: impl FnMut(&mut FeedState),
) -> Step<()> {
    let changed = |found: Option<FeedState>| {
        let mut state = found.unwrap_or_default();
        state.v = 1;
        change(&mut state);
        Ok((Some(state), ()))
    };
    update(deps, Table::Syncs, &feed_state_key(munchkin, id), changed, |_| None).await
}

/// The record of one arrived file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Version of this shape.
    pub v: u8,
    /// Its id.
    pub id: String,
    /// The object's key.
    pub key: String,
    /// The feed; empty in records of before there were several.
    #[serde(default)]
    pub feed: String,
    /// The delivery that it is a part of; `None`: a control file, or one that was refused by its name.
    #[serde(default)]
    pub delivery: Option<String>,
    /// How far it is.
    pub status: ImportStatus,
    /// Why it was refused, is held, or waits.
    pub why: Option<Said>,
    /// When it began, in ms.
    pub started_at: u64,
    /// When it ended, in ms.
    pub ended_at: Option<u64>,
    /// Rows read.
    pub rows: u64,
    /// Rows and entries that could not be taken.
    pub rejected: u64,
    /// The first of those, with line and reason.
    pub rejects: Vec<Reject>,
    /// Memberships taken, by audience.
    pub taken: BTreeMap<AudienceId, u64>,
    /// Entries that could not be taken, by audience, where they name one.
    #[serde(default)]
    pub rejected_by: BTreeMap<AudienceId, u64>,
    /// The audiences that the feed named before and this delivery does not.
    #[serde(default)]
    pub not_named: Vec<AudienceId>,
}

impl Import {
    /// Whether nothing more becomes of the file.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.status, ImportStatus::Done | ImportStatus::Refused)
    }
}

/// A row or an entry that could not be taken. The row itself stays in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Line in the file, or place of the user or profile in the message, from 1.
    pub line: u64,
    /// What was wrong and what would be right.
    pub reason: String,
    /// The same for programs; `None`: it was stored before reasons had codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What differs between two reasons of one code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Value>,
}

impl Reject {
    /// The rejection of a line.
    #[must_use]
    pub fn new(line: u64, reason: &Said) -> Self {
        let Said { sentence, code, values } = reason;
        Self {
            line,
            reason: sentence.to_string(),
            code: code.as_ref().map(ToString::to_string),
            values: values.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        }
    }
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportStatus {
    /// Under way.
    Running,
    /// Waits for the other parts of its delivery.
    Waiting,
    /// Waits for an operator.
    Held,
    /// Taken in.
    Done,
    /// Not for us, unreadable, dropped by an operator, or at a closed door.
    Refused,
}

/// The key of an import's record.
#[must_use]
pub fn import_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("import/{id}"))
}

/// Files that belong together: all parts of what Adobe calls one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Version of this shape.
    pub v: u8,
    /// The subscription.
    pub munchkin: MunchkinId,
    /// The feed.
    pub feed: String,
    /// Its id within the feed.
    pub id: String,
    /// The time that its files' names bear, in ms, if they bear one.
    pub time: Option<u64>,
    /// Whether it lists everybody; else what changed.
    pub full: bool,
    /// The parts that have come, by file name.
    pub parts: BTreeMap<String, Part>,
    /// What the control file says, if it has come.
    pub control: Option<Control>,
    /// When its first part or control file came, in ms.
    pub began_at: u64,
    /// When the latest came, in ms.
    pub latest_at: u64,
    /// How many times something came: a turn that has read an older number starts again.
    pub version: u64,
    /// The version that was taken in; `None`: none yet.
    pub taken: Option<u64>,
    /// How much of this version is taken already, where one invocation was too short for all.
    #[serde(default)]
    pub progress: Progress,
    /// The invocations that have begun to take it in.
    #[serde(default)]
    pub turns: Turns,
    /// Why it waits for an operator, if it does.
    pub held: Option<Said>,
    /// What the operator said: to be applied (`true`) or dropped.
    pub decided: Option<bool>,
    /// An operator applied it although its ids met nobody, and then it waited for something else.
    #[serde(default)]
    pub believed: bool,
    /// When somebody is to look at it although nothing comes, in ms.
    pub look_at: Option<u64>,
}

/// How much of a delivery is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Tells the plan that is followed from others: from another one nobody can go on.
    #[serde(default)]
    pub plan: u32,
    /// The last unit that is: whether its entries were taken as facts, its audience, and its part.
    pub unit: Option<(bool, AudienceId, u32)>,
    /// Facts of the next unit that are written.
    pub facts: u64,
    /// Entries that are taken.
    #[serde(default)]
    pub taken: u64,
    /// Entries that are to be taken of all files; 0: they are being counted.
    #[serde(default)]
    pub entries: u64,
    /// Object with what was counted so far: whoever goes on need not count again.
    #[serde(default)]
    pub counted: Option<String>,
}

impl Progress {
    /// Whether anything is taken: what may hold the delivery back was looked at before.
    #[must_use]
    pub const fn is_begun(&self) -> bool {
        self.unit.is_some() || self.facts > 0
    }
}

/// The invocations that have begun to take in a version of a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// When the first one began, in ms; 0: none has.
    pub since: u64,
    /// How many they are.
    pub count: u64,
    /// The last ones that came no further, without those that had little time; the one that is under way is among them.
    pub in_vain: u32,
    /// Those of them that ended when their time was over. Of the others, each was killed, by whatever.
    #[serde(default)]
    pub ended: u32,
}

impl Turns {
    /// The one that is under way came further than those before.
    pub const fn came_further(&mut self) {
        self.in_vain = 0;
        self.ended = 0;
    }
}

impl Delivery {
    /// A delivery of which nothing has come yet.
    #[must_use]
    pub fn new(munchkin: &MunchkinId, feed: &str, id: &str, now: u64) -> Self {
        Self {
            v: 1,
            munchkin: munchkin.clone(),
            feed: feed.to_owned(),
            id: id.to_owned(),
            time: None,
            full: false,
            parts: BTreeMap::new(),
            control: None,
            began_at: now,
            latest_at: now,
            version: 0,
            taken: None,
            progress: Progress::default(),
            turns: Turns::default(),
            held: None,
            decided: None,
            believed: false,
            look_at: None,
        }
    }

    /// Something came, at a time (ms): what was taken or held before is looked at anew.
    pub fn came(&mut self, now: u64) {
        self.version += 1;
        self.progress = Progress::default();
        self.turns = Turns::default();
        self.latest_at = now;
        self.held = None;
        self.decided = None;
        self.believed = false;
    }

    /// An invocation begins to take it in, at a time (ms). `is_fair`: it has as much time as one can expect.
    pub fn begin(&mut self, now: u64, is_fair: bool) {
        let Turns { since, count, in_vain, .. } = &mut self.turns;
        if *count == 0 {
            *since = now;
        }
        *count += 1;
        *in_vain += u32::from(is_fair);
    }

    /// It came further than before.
    pub fn came_further(&mut self, progress: &Progress) {
        self.progress = progress.clone();
        self.turns.came_further();
    }

    /// Its time, in ms: of its files' names, or of its control file, or else when it came.
    #[must_use]
    pub fn as_of(&self) -> u64 {
        self.time.or_else(|| self.control.as_ref()?.time).unwrap_or(self.latest_at)
    }
}

/// A part of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Object key.
    pub key: String,
    /// Entity tag.
    pub etag: String,
    /// Its number, where its name bears one.
    pub number: Option<u64>,
    /// Id of its import record.
    pub import: String,
}

/// The key of a delivery.
#[must_use]
pub fn delivery_key(munchkin: &MunchkinId, feed: &str, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("delivery/{feed}/{id}"))
}

/// The partition of the index `due` that holds deliveries to look at.
pub const DELIVERIES_DUE: &str = "deliveries";

/// Reads, changes and writes a delivery. `change` returns `false` to leave it as it is. `None`: there is none.
pub async fn change_delivery<R>(
    deps: &Deps,
    key: &Key,
    mut change: impl FnMut(&mut Option<Delivery>) -> (bool, R),
) -> Step<R> {
    let changed = |mut found: Option<Delivery>| {
        let (changed, answer) = change(&mut found);
        Ok((found.filter(|_| changed), answer))
    };
    let due = |delivery: &Delivery| delivery.look_at.map(|at| Due { pk: DELIVERIES_DUE.into(), at });
    // Nobody looks at it any more after the files themselves are gone.
    let until = deps.now().saturating_add(RECORDS_MS);
    doc::update_due_until(deps, Table::Syncs, key, changed, due, until).await
}

/// How long the records of files and deliveries are kept, in ms (issue 6: runs of the last 90 days).
const RECORDS_MS: u64 = 90 * DAY_MS;

/// What the keys of the index of files begin with.
pub const IMPORTS_BY_TIME: &str = "import-at/";

/// A line of the index of files: where their records stand, the newest first. Reading the latest must not read all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportLine {
    /// Version of this shape.
    pub v: u8,
    /// The id of the record.
    pub id: String,
    /// When the import began, in ms. A line of another time than the record's is of somebody who died before the record
    /// was written, and says nothing.
    pub started_at: u64,
}

/// The key of a line of that index.
#[must_use]
pub fn import_line_key(munchkin: &MunchkinId, started_at: u64, id: &str) -> Key {
    // An id holds the name of a file: it may be long, and of any letters.
    let digest = Sha256::digest(id);
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Key::new(munchkin.as_str(), format!("{IMPORTS_BY_TIME}{}/{short}", newest_first(started_at)))
}

/// Writes the line of a file that has just come, before its record.
pub async fn index_import(deps: &Deps, munchkin: &MunchkinId, started_at: u64, id: &str) -> Step<()> {
    let line = ImportLine { v: 1, id: id.to_owned(), started_at };
    let item = doc::item(import_line_key(munchkin, started_at, id), &line, None, None)?;
    let until = started_at.saturating_add(RECORDS_MS);
    let item = Item { expires_at: Some(until / 1_000), ..item };
    deps.ports.tables.put(Table::Syncs, item, Expect::Anything).await?;
    Ok(())
}

/// Writes the record of a file. One that is over is ended anew at most: two may be at work on a file, and the slower one
/// does not open again what the other one has ended, since nobody would come to end it.
pub async fn save_import(deps: &Deps, munchkin: &MunchkinId, record: &Import) -> Step<()> {
    let until = record.started_at.saturating_add(RECORDS_MS);
    let key = import_key(munchkin, &record.id);
    let newer = |found: Option<Import>| {
        let reopens = found.is_some_and(|found| found.is_over()) && !record.is_over();
        Ok(((!reopens || !holds(Guard::OverStaysOver)).then(|| record.clone()), ()))
    };
    doc::update_until(deps, Table::Syncs, &key, newer, until).await
}

/// What came by a stream, as it waits in the queue `events`: verified, with every entry a fact of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Version of this shape.
    pub v: crate::V1,
    /// The subscription.
    pub munchkin_id: MunchkinId,
    /// The feed.
    pub feed: String,
    /// When the request came, in ms.
    pub received_at: u64,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Entries about audiences that are not mapped to the destination.
    #[serde(default)]
    pub ignored: u64,
    /// Entries that could not be taken.
    #[serde(default)]
    pub rejected: u64,
    /// The first of those.
    #[serde(default)]
    pub rejects: Vec<Reject>,
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The audience.
    pub audience: AudienceId,
    /// The device.
    pub ecid: Ecid,
    /// What was said.
    #[serde(flatten)]
    pub said: domain::fact::Streamed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_of_before_there_were_several_kinds_is_still_read() {
        let feed: Feed =
            serde_json::from_str(r#"{"v":1,"id":"default","snapshots":true,"completeness":"single-file"}"#).unwrap();
        assert_eq!(feed, Feed { snapshots: true, ..Feed::new("default", Kind::AamFiles) });
    }

    #[test]
    fn the_page_says_how_late_a_list_can_be() {
        let feed = Feed::new("default", Kind::AamFiles);
        let sentence = "this feed is delivered once a day; the list can be up to 26 hours behind Adobe";
        assert_eq!(feed.lateness().as_deref(), Some(sentence));
        let often = Feed { every_hours: 3, lag_minutes: 60, ..feed.clone() };
        let sentence = "this feed is delivered every 3 hours; the list can be up to 6 hours behind Adobe";
        assert_eq!(often.lateness().as_deref(), Some(sentence));
        assert_eq!(Feed::new("live", Kind::AepStream).lateness(), None);
        assert!(feed.is_overdue(0, 49 * HOUR_MS) && !feed.is_overdue(0, 48 * HOUR_MS));
    }
}
