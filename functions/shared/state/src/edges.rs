//! Where a subscription's edges stand ([`domain::edges`]): one immutable object that passes join their members with, and
//! notes of what was changed since it was made.
//!
//! Whoever changes a token's or a lead's record notes it *before* the write. Whoever brings the edges up to date reads the
//! notes, and then the records that they name; a note is passed over only when whoever wrote it cannot live any more. So an
//! edge that was written before somebody asked for them is in the edges that they get.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use domain::edges::Source;
use domain::limits::{DAY_MS, FUNCTION_MS};
use domain::planted::{Guard, holds};
use domain::{AudienceId, LeadId, MunchkinId, Token};
use ports::{Expect, Key, Read, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::audience::BaseRef;
use crate::bell::{self, BellKey};
use crate::identity::SHARDS;
use crate::{Deps, Doc, Step, doc, load, update};

/// How long after a note its write may still come, in ms: a function lives half as long; the rest is for clocks that differ.
pub const GRACE_MS: u64 = 2 * FUNCTION_MS;
/// Notes are swept by the table itself after this time, in ms. Ours.
const KEPT_MS: u64 = 3 * DAY_MS;
/// Edges that lack the notes of a longer time are read anew, in ms: the oldest notes may be swept.
pub const NOTED_MS: u64 = 2 * DAY_MS;
/// Partitions of tokens, and then of leads: each is read from beginning to end.
pub const PARTITIONS: u32 = 2 * SHARDS;
/// Tokens and leads of one note. Ours: some 15 KB, of an item's 400.
const PER_NOTE: usize = 300;

/// What a subscription's edges are, and how far they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of this shape.
    pub v: u8,
    /// They are asked for, by number.
    pub wanted: u64,
    /// The number that they answer.
    pub done: u64,
    /// The object; absent: they were never read.
    pub base: Option<BaseRef>,
    /// Every record that was written before is in it, in ms.
    pub as_of: u64,
    /// Notes up to then are in it for good, in ms.
    pub upto: u64,
    /// Tokens and leads when they were last read one by one.
    pub records: u64,
    /// They are being brought up to date.
    pub job: Option<Job>,
    /// Audiences that wait, each for a number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<AudienceId, u64>,
    /// Objects of before, each with the time from which on nobody can read it any more, in ms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced: BTreeMap<String, u64>,
}

/// Edges that are being brought up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub number: u64,
    /// Every record is read; absent: those that the notes name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
}

/// Every record is being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// When it began, in ms.
    pub since: u64,
    /// The partition that is read: first those of tokens, then those of leads.
    pub shard: u32,
    /// The sort key after which to read on.
    pub after: Option<String>,
    /// Records that were read.
    pub records: u64,
    /// What was found, each in order by itself.
    pub parts: Vec<BaseRef>,
}

impl Head {
    /// The number that whoever asks now waits for: a job under way may have read before the write that they know of.
    fn next(&self) -> u64 {
        self.job.as_ref().map_or(self.done, |job| job.number) + 1
    }
}

/// The key of a subscription's edges.
#[must_use]
pub fn head_key(munchkin: &MunchkinId) -> Key {
    Key::new(format!("{munchkin}/edges"), "head")
}

/// A subscription's edges as they stand.
pub async fn head(deps: &Deps, munchkin: &MunchkinId) -> Step<Option<Doc<Head>>> {
    load(deps, Table::Identity, &head_key(munchkin)).await
}

/// Asks for edges in which every record is that was written before now. Returns the number that stands for them.
/// `audience`: who is rung then.
pub async fn want(deps: &Deps, munchkin: &MunchkinId, audience: Option<&AudienceId>) -> Step<u64> {
    let change = |found: Option<Head>| {
        let mut head = found.unwrap_or_default();
        head.v = 1;
        let number = head.next();
        head.wanted = head.wanted.max(number);
        if let Some(audience) = audience {
            head.waiting.insert(audience.clone(), number);
        }
        Ok((Some(head), number))
    };
    let number = update(deps, Table::Identity, &head_key(munchkin), change, |_| None).await?;
    bell::mark(deps, &BellKey::edges(munchkin)).await?;
    Ok(number)
}

/// The edges that a number stands for; `None`: they are not there yet, and the audience is rung when they are.
pub async fn ready(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, number: u64) -> Step<Option<Head>> {
    let Some(head) = head(deps, munchkin).await? else { return Ok(None) };
    if head.value.done >= number {
        return Ok(Some(head.value));
    }
    if head.value.waiting.get(audience) != Some(&number) {
        let change = |found: Option<Head>| {
            let mut head = found.unwrap_or_default();
            head.waiting.insert(audience.clone(), number);
            Ok((Some(head), ()))
        };
        update(deps, Table::Identity, &head_key(munchkin), change, |_| None).await?;
    }
    bell::mark(deps, &BellKey::edges(munchkin)).await?;
    Ok(None)
}

/// Where a token's edges are from. A digest that nobody can choose: whoever makes up tokens must not meet another's.
#[must_use]
pub fn source_of(token: &Token) -> Source {
    let digest = Sha256::digest(token.as_str().as_bytes());
    Source::token(digest.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
}

/// The proof that changes of these records are noted.
#[derive(Debug, Default)]
pub struct Noted {
    needless: bool,
    sources: HashSet<Source>,
}

impl Noted {
    /// For a write that changes nothing of which edges tell: who owns the token, what it was seen beside, whether it was asked
    /// about, and whether it rests.
    #[must_use]
    pub fn needless() -> Self {
        Self { needless: true, sources: HashSet::new() }
    }

    /// Whether a write of this one is noted.
    #[must_use]
    pub fn covers(&self, source: Source) -> bool {
        self.needless || self.sources.contains(&source)
    }
}

/// A note.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    v: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<Token>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leads: Vec<LeadId>,
    /// Tokens of which nothing is left, by their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
}

fn notes_pk(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/changed")
}

/// Notes that these records are about to be written, by whoever does so within their invocation.
pub async fn note<'a>(
    deps: &Deps,
    munchkin: &MunchkinId,
    tokens: impl IntoIterator<Item = &'a Token>,
    leads: impl IntoIterator<Item = LeadId>,
) -> Step<Noted> {
    let tokens: BTreeSet<&Token> = tokens.into_iter().collect();
    let leads: BTreeSet<LeadId> = leads.into_iter().collect();
    let sources = tokens.iter().map(|token| source_of(token)).chain(leads.iter().map(|lead| Source::lead(*lead)));
    let noted = Noted { needless: false, sources: sources.collect() };
    if !holds(Guard::NoteBeforeWrite) {
        return Ok(noted);
    }
    let (tokens, leads): (Vec<&Token>, Vec<LeadId>) = (tokens.into_iter().collect(), leads.into_iter().collect());
    let of_tokens = tokens.chunks(PER_NOTE).map(|some| Note {
        v: 1,
        tokens: some.iter().map(|token| (*token).clone()).collect(),
        ..Note::default()
    });
    let of_leads = leads.chunks(PER_NOTE).map(|some| Note { v: 1, leads: some.to_vec(), ..Note::default() });
    put_notes(deps, munchkin, of_tokens.chain(of_leads).collect()).await?;
    Ok(noted)
}

/// Notes that everything of a token is about to be forgotten, without naming it.
pub async fn note_gone(deps: &Deps, munchkin: &MunchkinId, token: &Token) -> Step<Noted> {
    let source = source_of(token);
    put_notes(deps, munchkin, vec![Note { v: 1, gone: vec![source.text()], ..Note::default() }]).await?;
    Ok(Noted { needless: false, sources: HashSet::from([source]) })
}

async fn put_notes(deps: &Deps, munchkin: &MunchkinId, notes: Vec<Note>) -> Step<()> {
    let now = deps.now();
    let mut items = Vec::new();
    for note in notes {
        let key = Key::new(notes_pk(munchkin), format!("{now:020}/{}", deps.fresh_id()));
        let mut item = doc::item(key, &note, None, None)?;
        item.expires_at = Some((now + KEPT_MS) / 1_000);
        items.push(item);
    }
    if !items.is_empty() {
        deps.ports.tables.put_all(Table::Identity, items).await?;
    }
    Ok(())
}

/// Takes tokens out of all notes whose write cannot come any more: what is noted when they are forgotten stands for them.
/// Begins behind `after`. Returns where to go on if it is not done at a time (`until`, in ms).
pub async fn forget_notes(
    deps: &Deps,
    munchkin: &MunchkinId,
    tokens: &BTreeSet<Token>,
    mut after: Option<String>,
    until: u64,
) -> Step<Option<String>> {
    let pk = notes_pk(munchkin);
    let upto = format!("{:020}", deps.now().saturating_sub(deps.settings.scaled(GRACE_MS)));
    loop {
        let page = deps.ports.tables.query(Table::Identity, &pk, "", after.as_deref(), 1_000, Read::Consistent).await?;
        for item in page.items {
            if item.key.sk > upto {
                return Ok(None);
            }
            let (key, expires_at) = (item.key.clone(), item.expires_at);
            let Doc { value: mut note, rev } = doc::read::<Note>(item)?;
            let before = note.tokens.len();
            note.tokens.retain(|token| !tokens.contains(token));
            if note.tokens.len() < before {
                let mut item = doc::item(key, &note, Some(rev), None)?;
                item.expires_at = expires_at;
                // Nobody else changes a note; one that the table swept meanwhile stays away.
                deps.ports.tables.put(Table::Identity, item, Expect::Rev(rev)).await?;
            }
        }
        after = page.next;
        if after.is_none() || deps.now() >= until {
            return Ok(after);
        }
    }
}

/// What was noted.
#[derive(Debug, Default)]
pub struct Changed {
    /// Tokens.
    pub tokens: BTreeSet<Token>,
    /// Leads.
    pub leads: BTreeSet<LeadId>,
    /// Tokens of which nothing was left, unless they are named, too.
    pub gone: BTreeSet<Source>,
}

impl Changed {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len() + self.leads.len() + self.gone.len()
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was noted after a time, in ms; of more than `most` records some more than that.
pub async fn noted_since(deps: &Deps, munchkin: &MunchkinId, since: u64, most: usize) -> Step<Changed> {
    let (pk, mut changed) = (notes_pk(munchkin), Changed::default());
    // Behind all notes of that time.
    let mut after = Some(format!("{since:020}0"));
    while let Some(from) = after {
        let page = deps.ports.tables.query(Table::Identity, &pk, "", Some(&from), 1_000, Read::Consistent).await?;
        for item in page.items {
            let note = doc::read::<Note>(item)?.value;
            changed.tokens.extend(note.tokens);
            changed.leads.extend(note.leads);
            changed.gone.extend(note.gone.iter().filter_map(|text| Source::parse(text)));
        }
        after = page.next.filter(|_| changed.len() <= most);
    }
    Ok(changed)
}
