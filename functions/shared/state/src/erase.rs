//! Jobs that erase a person. The control plane writes the job; the identity work carries it out on the identity table
//! and tells the lists; each list's writer answers once the people are out of its list and forgotten.

use std::collections::BTreeSet;

use domain::{Ecid, LeadId, LeadSet, ListId, MunchkinId, Token};
use ports::{Due, Expect, Key, Read, Table};
use serde::{Deserialize, Serialize};

use crate::{Deps, Doc, Step, doc, load, save};

/// A job that erases a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Version of this shape.
    pub v: u8,
    /// Its id: ours, 16 hex digits.
    pub id: String,
    /// Whom it concerns; forgotten when the job is done.
    pub subject: Option<Subject>,
    /// When it was asked for, in ms: no sight up to then counts any more.
    pub requested_at: u64,
    /// How far it is.
    pub phase: Phase,
    /// The people who were tied to the subject; forgotten when the job is done.
    pub people: LeadSet,
    /// Those of them whom the lists are told to take out; forgotten when the job is done.
    #[serde(default)]
    pub out: LeadSet,
    /// Cookies (tokens) that were forgotten.
    pub tokens: u64,
    /// Browsers (ECIDs) whose tie was forgotten.
    pub ecids: u64,
    /// People (leads) who left the lists, or were in none.
    pub people_out: u64,
    /// People who stay in an audience by another browser, or have come back since.
    pub people_stay: u64,
    /// Lists whose writers were told.
    pub lists: BTreeSet<ListId>,
    /// Notes of what changed are read up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// When they were told last, in ms.
    #[serde(default)]
    pub told_at: u64,
    /// When it is looked at next, in ms: the longer it waits for others, the more seldom.
    #[serde(default)]
    pub look_at: u64,
    /// When it was done, in ms.
    pub done_at: Option<u64>,
}

impl Job {
    /// A job that nobody has begun, asked for at a time (ms).
    #[must_use]
    pub fn new(id: String, subject: Subject, requested_at: u64) -> Self {
        Self {
            v: 1,
            id,
            subject: Some(subject),
            requested_at,
            phase: Phase::Forgetting,
            people: LeadSet::new(),
            out: LeadSet::new(),
            tokens: 0,
            ecids: 0,
            people_out: 0,
            people_stay: 0,
            lists: BTreeSet::new(),
            notes: None,
            told_at: 0,
            look_at: requested_at,
            done_at: None,
        }
    }
}

/// Whom a job concerns. An email is not among them: it is turned into lead ids before anything is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A browser.
    Ecid(Ecid),
    /// A cookie.
    Token(Token),
    /// People, with all of their cookies.
    Leads(BTreeSet<LeadId>),
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// What ties the person is looked for and forgotten.
    Forgetting,
    /// The audiences work out who is wanted without it, and Marketo's merges of before are read.
    Leaving,
    /// The people are taken out of the lists.
    Lists,
    /// Done.
    Done,
}

/// What became of a job's people in one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Version of this shape.
    pub v: u8,
    /// People whom we had put there, and who are out of it.
    pub out: u64,
    /// People who stay: they were there before us, or another browser of theirs brought them back meanwhile.
    pub stay: u64,
    /// When, in ms.
    pub at: u64,
}

/// The key of a job.
#[must_use]
pub fn job_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("erase/{id}"))
}

/// Writes a job over revision `rev`. `false`: somebody was faster.
pub async fn save_job(deps: &Deps, munchkin: &MunchkinId, job: &Job, rev: Option<u64>) -> Step<bool> {
    let due = (job.phase != Phase::Done).then(|| Due { pk: open(munchkin), at: job.look_at });
    save(deps, Table::Syncs, job_key(munchkin, &job.id), job, rev, due).await
}

/// A job as it stands.
pub async fn job(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<Option<Doc<Job>>> {
    load(deps, Table::Syncs, &job_key(munchkin, id)).await
}

fn open(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/erase")
}

/// A time, in ms, after any at which a job may be looked at, and small enough for a number of DynamoDB's.
const LATEST: u64 = u64::MAX >> 12;
/// Jobs that one run takes up, at most; more are shown as this many.
const JOBS: usize = 100;

/// Jobs that are not done, those first that are to be looked at first.
pub async fn open_jobs(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<Doc<Job>>> {
    let mut jobs = Vec::new();
    for item in deps.ports.tables.due(Table::Syncs, &open(munchkin), LATEST, JOBS).await? {
        // The index lags: what counts is the item.
        jobs.extend(load::<Job>(deps, Table::Syncs, &item.key).await?.filter(|job| job.value.phase != Phase::Done));
    }
    Ok(jobs)
}

fn answers_pk(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/erased")
}

/// Answers a job for one list, after the state that has forgotten the people was published. Answering twice is harmless.
pub async fn answer(deps: &Deps, munchkin: &MunchkinId, job: &str, list: ListId, answer: &Answer) -> Step<()> {
    let item = doc::item(Key::new(answers_pk(munchkin), format!("{job}/{list}")), answer, None, None)?;
    // The first answer counts: a repeat finds nobody any more.
    deps.ports.tables.put(Table::Lists, item, Expect::Absent).await?;
    Ok(())
}

/// The lists' answers to a job.
pub async fn answers(deps: &Deps, munchkin: &MunchkinId, job: &Job) -> Step<Vec<(ListId, Answer)>> {
    let keys: Vec<Key> =
        job.lists.iter().map(|list| Key::new(answers_pk(munchkin), format!("{}/{list}", job.id))).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let items = deps.ports.tables.batch_get(Table::Lists, &keys, Read::Consistent).await?;
    let mut found = Vec::new();
    for item in items {
        let list = item.key.sk.rsplit_once('/').and_then(|(_, list)| list.parse().ok());
        if let Some(list) = list {
            found.push((list, doc::read::<Answer>(item)?.value));
        }
    }
    found.sort_by_key(|(list, _)| *list);
    Ok(found)
}
