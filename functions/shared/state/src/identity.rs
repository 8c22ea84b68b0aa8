//! Where tokens, leads and their hints stand.
//!
//! A token's item is the only truth of its edges. ECID → token, ECID → lead and lead → token are hints, written
//! before the edge they lead to and checked against it.

use std::collections::{BTreeMap, BTreeSet};

use domain::edges::Source;
use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::{DAY_MS, HOUR_MS};
use domain::planted::{Guard, holds};
use domain::{Ecid, LeadId, MunchkinId, Token};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use ports::{Due, Expect, Item, Key, Read, Table};
use serde::{Deserialize, Serialize};

use crate::edges::{Noted, source_of};
use crate::{Deps, Doc, Step, doc};

/// Partitions over which the tokens of a subscription are spread, and as many for its leads.
pub const SHARDS: u32 = 16;

/// The key of a token's item.
#[must_use]
pub fn token_key(munchkin: &MunchkinId, token: &Token) -> Key {
    let shard = token.as_str().bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    Key::new(token_shard(munchkin, shard % SHARDS), token.as_str())
}

/// The partition that holds one shard of a subscription's tokens.
#[must_use]
pub fn token_shard(munchkin: &MunchkinId, shard: u32) -> String {
    format!("{munchkin}/t/{shard:02}")
}

/// The key of a lead's item.
#[must_use]
pub fn lead_key(munchkin: &MunchkinId, lead: LeadId) -> Key {
    Key::new(lead_shard(munchkin, u32::try_from(lead % u64::from(SHARDS)).unwrap_or(0)), format!("{lead:020}"))
}

/// The partition that holds one shard of a subscription's leads.
#[must_use]
pub fn lead_shard(munchkin: &MunchkinId, shard: u32) -> String {
    format!("{munchkin}/l/{shard:02}")
}

fn ecid_hints(munchkin: &MunchkinId, ecid: Ecid) -> String {
    format!("{munchkin}/e/{}", ecid.text())
}

/// The partition that holds the hints of one shard of a subscription's leads, in the order of the leads.
fn lead_hints(munchkin: &MunchkinId, lead: LeadId) -> String {
    format!("{munchkin}/lt/{:02}", lead % u64::from(SHARDS))
}

fn hints_of(lead: LeadId) -> String {
    format!("{lead:020}/")
}

/// The hint that leads from an ECID to a token.
#[must_use]
pub fn ecid_to_token(munchkin: &MunchkinId, ecid: Ecid, token: &Token) -> Key {
    Key::new(ecid_hints(munchkin, ecid), format!("t/{}", token.as_str()))
}

/// The hint that leads from an ECID to a lead.
#[must_use]
pub fn ecid_to_lead(munchkin: &MunchkinId, ecid: Ecid, lead: LeadId) -> Key {
    Key::new(ecid_hints(munchkin, ecid), format!("l/{lead:020}"))
}

/// The hint that leads from a lead to a token.
#[must_use]
pub fn lead_to_token(munchkin: &MunchkinId, lead: LeadId, token: &Token) -> Key {
    Key::new(lead_hints(munchkin, lead), format!("{}{}", hints_of(lead), token.as_str()))
}

/// Writes hints, before the edges that they lead to. Each gets a revision of its own, so that whoever forgets a hint
/// ([`save_forgetting`], [`forget_hints`]) never takes away one that was written meanwhile.
pub async fn put_hints(deps: &Deps, hints: impl IntoIterator<Item = Key>) -> Step<()> {
    let fresh = |key| {
        // A number that JSON and DynamoDB keep exactly, and never 0.
        let rev = deps.ports.random.next_u64() >> 12 | 1;
        Item { key, rev, doc: serde_json::json!({"v": 1}), due: None, expires_at: None }
    };
    let items: Vec<Item> = hints.into_iter().map(fresh).collect();
    if items.is_empty() {
        return Ok(());
    }
    Ok(deps.ports.tables.put_all(Table::Identity, items).await?)
}

/// Saves a record in which edges are gone, and forgets the hints that led to them. They are read *before* the record is
/// saved, and forgotten after it: whoever makes such an edge anew meanwhile has written its hint after that reading, or
/// loses against this save and begins again. `false`, as from `save`: somebody was faster, and nothing is forgotten.
pub async fn save_forgetting(deps: &Deps, lost: &[Key], save: impl Future<Output = Step<bool>>) -> Step<bool> {
    let hints = if lost.is_empty() {
        Vec::new()
    } else {
        deps.ports.tables.batch_get(Table::Identity, lost, Read::Consistent).await?
    };
    let saved = save.await?;
    if saved {
        let hints: Vec<(Key, u64)> = hints.into_iter().map(|item| (item.key, item.rev)).collect();
        forget_hints(deps, &hints).await?;
    }
    Ok(saved)
}

/// Forgets hints, unless they were written again meanwhile.
pub async fn forget_hints(deps: &Deps, hints: &[(Key, u64)]) -> Step<()> {
    for (key, rev) in hints {
        deps.ports.tables.delete(Table::Identity, key, Expect::Rev(*rev)).await?;
    }
    Ok(())
}

/// The partition of the index `due` that holds what the audiences are to be told of.
#[must_use]
pub fn tell_pk(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/tell")
}

/// The partition of the index `due` that holds the tokens that Marketo is to be asked about.
#[must_use]
pub fn ask_pk(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/ask")
}

/// How long after its last ECID's end a token's item is swept by the table itself, in ms: our own sweep, which tells the
/// audiences, has long been there by then (design §5: 30 days).
const BROOM_MS: u64 = 30 * DAY_MS;

/// A token that was first seen so long ago, in ms, and never asked about is asked about before those that have waited for
/// longer. Ours: with a backlog, the promise of ten minutes is for what is new.
const FRESH_MS: u64 = 2 * 3_600_000;
/// How much earlier than it is due such a token stands in the index, in ms: before all others.
const FIRST_MS: u64 = 3_650 * DAY_MS;

/// The item of a token's record, over revision `rev`.
pub fn token_item(deps: &Deps, munchkin: &MunchkinId, record: &TokenRecord, rev: Option<u64>) -> Step<Item> {
    let now = deps.now();
    let lifetime = deps.settings.match_lifetime_ms;
    // Intervals are the design's durations on this deployment's clock; the life of a match is a setting.
    // Behind the millions of a first sync nobody waits who has just been seen, or of whom somebody says to look now.
    let seen_now = |first: u64| now < first.saturating_add(deps.settings.scaled(FRESH_MS));
    let first = record.hinted || (record.asked_at.is_none() && record.ecids.values().any(|seen| seen_now(seen.first)));
    let look = record.due(now).map(|at| {
        if at <= now {
            if first { at.saturating_sub(FIRST_MS) } else { at }
        } else {
            record.asked_at.map_or(at, |asked| asked + deps.settings.scaled(at.saturating_sub(asked)))
        }
    });
    let due = [look, record.expires_at(lifetime)].into_iter().flatten().min();
    let mut item = doc::item(
        token_key(munchkin, &record.token),
        record,
        rev,
        due.map(|at| Due { pk: if record.unpropagated { tell_pk(munchkin) } else { ask_pk(munchkin) }, at }),
    )?;
    // What the audiences have not been told is never swept. Erased ones stay as long as a match of before could come:
    // one that is older has expired.
    let ends =
        record.ecids.values().map(|seen| seen.last).chain(record.erased_at).chain(record.erased.values().copied());
    let ends = ends.max().unwrap_or(0).saturating_add(lifetime).max(now).saturating_add(BROOM_MS);
    item.expires_at = (!record.unpropagated).then_some(ends / 1_000);
    Ok(item)
}

/// Writes a token's record on condition of its revision, which was noted ([`crate::edges::note`]). `false`: somebody was
/// faster.
pub async fn save_token(
    deps: &Deps,
    munchkin: &MunchkinId,
    record: &TokenRecord,
    rev: Option<u64>,
    noted: &Noted,
) -> Step<bool> {
    debug_assert!(noted.covers(source_of(&record.token)), "a token is written without a note");
    let item = token_item(deps, munchkin, record, rev)?;
    let expect = match rev {
        _ if !holds(Guard::TokenRevision) => Expect::Anything,
        None => Expect::Absent,
        Some(rev) => Expect::Rev(rev),
    };
    Ok(deps.ports.tables.put(Table::Identity, item, expect).await?)
}

/// Writes a lead's record on condition of its revision, which was noted. `false`: somebody was faster.
pub async fn save_lead(
    deps: &Deps,
    munchkin: &MunchkinId,
    record: &LeadRecord,
    rev: Option<u64>,
    noted: &Noted,
) -> Step<bool> {
    debug_assert!(noted.covers(Source::lead(record.lead)), "a lead is written without a note");
    let due = record.unpropagated.then(|| Due { pk: tell_pk(munchkin), at: deps.now() });
    doc::save(deps, Table::Identity, lead_key(munchkin, record.lead), record, rev, due).await
}

/// The records of these tokens that exist.
pub async fn tokens<'a>(
    deps: &Deps,
    munchkin: &MunchkinId,
    tokens: impl IntoIterator<Item = &'a Token>,
) -> Step<Vec<Doc<TokenRecord>>> {
    let keys: BTreeSet<Key> = tokens.into_iter().map(|token| token_key(munchkin, token)).collect();
    many(deps, keys).await
}

/// The records of these leads that exist.
pub async fn leads(
    deps: &Deps,
    munchkin: &MunchkinId,
    leads: impl IntoIterator<Item = LeadId>,
) -> Step<Vec<Doc<LeadRecord>>> {
    let keys: BTreeSet<Key> = leads.into_iter().map(|lead| lead_key(munchkin, lead)).collect();
    many(deps, keys).await
}

async fn many<T: serde::de::DeserializeOwned>(deps: &Deps, keys: BTreeSet<Key>) -> Step<Vec<Doc<T>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<Key> = keys.into_iter().collect();
    let items = deps.ports.tables.batch_get(Table::Identity, &keys, Read::Consistent).await?;
    items.into_iter().map(doc::read).collect()
}

/// Where the hints of an ECID lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EcidHints {
    /// Tokens that may have been seen beside it.
    pub tokens: Vec<Token>,
    /// Leads for which Marketo may have stored it.
    pub leads: Vec<LeadId>,
    /// When it was erased, in ms: no sight of it up to then counts.
    pub erased_at: Option<u64>,
}

/// The hints of an ECID, and whether it was erased.
pub async fn hints_of_ecid(deps: &Deps, munchkin: &MunchkinId, ecid: Ecid) -> Step<EcidHints> {
    let mut hints = EcidHints::default();
    for item in partition(deps, &ecid_hints(munchkin, ecid), "").await? {
        let sk = item.key.sk.as_str();
        if let Some(token) = sk.strip_prefix("t/").and_then(Token::parse) {
            hints.tokens.push(token);
        } else if let Some(lead) = sk.strip_prefix("l/").and_then(|lead| lead.parse().ok()) {
            hints.leads.push(lead);
        } else if sk == ERASED {
            hints.erased_at = Some(doc::read::<Erased>(item)?.value.erased_at);
        }
    }
    Ok(hints)
}

const ERASED: &str = "erased";

/// What stays of an ECID that was erased.
#[derive(Debug, Serialize, Deserialize)]
struct Erased {
    v: u8,
    erased_at: u64,
}

/// Writes down that an ECID was erased at a time (ms): no sight of it up to then makes an edge. It stays as long as a
/// match of before could come. An older request takes nothing back.
pub async fn erase_ecid(deps: &Deps, munchkin: &MunchkinId, ecid: Ecid, erased_at: u64) -> Step<()> {
    let until = erased_at.saturating_add(deps.settings.match_lifetime_ms).saturating_add(BROOM_MS);
    let later = |found: Option<Erased>| {
        let known = found.is_some_and(|found| found.erased_at >= erased_at);
        Ok(((!known).then_some(Erased { v: 1, erased_at }), ()))
    };
    doc::update_until(deps, Table::Identity, &Key::new(ecid_hints(munchkin, ecid), ERASED), later, until).await
}

/// Those of the ECIDs that were erased.
pub async fn erased_ecids(
    deps: &Deps,
    munchkin: &MunchkinId,
    ecids: impl IntoIterator<Item = Ecid>,
) -> Step<BTreeSet<Ecid>> {
    let keys: BTreeMap<Key, Ecid> =
        ecids.into_iter().map(|ecid| (Key::new(ecid_hints(munchkin, ecid), ERASED), ecid)).collect();
    if keys.is_empty() {
        return Ok(BTreeSet::new());
    }
    let wanted: Vec<Key> = keys.keys().cloned().collect();
    let items = deps.ports.tables.batch_get(Table::Identity, &wanted, Read::Consistent).await?;
    Ok(items.iter().filter_map(|item| keys.get(&item.key).copied()).collect())
}

/// Tokens that a lead may own.
pub async fn hints_of_lead(deps: &Deps, munchkin: &MunchkinId, lead: LeadId) -> Step<Vec<Token>> {
    let items = partition(deps, &lead_hints(munchkin, lead), &hints_of(lead)).await?;
    Ok(items.iter().filter_map(|item| lead_hint(&item.key.sk)).map(|(_, token)| token).collect())
}

/// Hints that are read for each lead that is asked for, where others lie between. Ours: they are below the 4 KB that a
/// query of one lead's would be billed.
const HINTS_A_LEAD: usize = 30;
/// Hints of one page. DynamoDB ends it at 1 MB, which is more.
const HINTS_A_PAGE: usize = 1_000;

/// Tokens that any of many leads may own. Where the leads lie close together, a page tells of many of them; where they do
/// not, it costs no more than [`hints_of_lead`] of each.
pub async fn hints_of_leads(
    deps: &Deps,
    munchkin: &MunchkinId,
    leads: impl IntoIterator<Item = LeadId>,
) -> Step<Vec<Token>> {
    let mut shards: BTreeMap<String, BTreeSet<LeadId>> = BTreeMap::new();
    for lead in leads {
        shards.entry(lead_hints(munchkin, lead)).or_default().insert(lead);
    }
    let read: Vec<BoxFuture<'_, Step<Vec<Token>>>> =
        shards.iter().map(|(pk, leads)| hints_in_order(deps, pk, leads).boxed()).collect();
    stream::iter(read).buffer_unordered(SHARDS as usize).try_concat().await
}

/// The same of leads of one shard: reads its hints in their order, and leaps to the next lead that is asked for.
async fn hints_in_order(deps: &Deps, pk: &str, leads: &BTreeSet<LeadId>) -> Step<Vec<Token>> {
    let mut found = Vec::new();
    let mut next = leads.first().copied();
    let (mut after, mut limit) = (String::new(), HINTS_A_LEAD);
    while let Some(lead) = next {
        after = after.max(hints_of(lead));
        let page = deps.ports.tables.query(Table::Identity, pk, "", Some(&after), limit, Read::Consistent).await?;
        let hints = page.items.iter().filter_map(|item| lead_hint(&item.key.sk));
        found.extend(hints.filter(|(lead, _)| leads.contains(lead)).map(|(_, token)| token));
        let (Some(more), Some(upto)) = (page.next, page.items.last().and_then(|item| lead_hint(&item.key.sk))) else {
            break;
        };
        // The last lead of a page may have more hints than it shows.
        next = leads.range(upto.0..).next().copied();
        let told = leads.range(lead..upto.0).count() + 1;
        limit = (told * HINTS_A_LEAD).min(HINTS_A_PAGE);
        after = more;
    }
    Ok(found)
}

/// The lead and the token that a hint is of, by its sort key.
fn lead_hint(sk: &str) -> Option<(LeadId, Token)> {
    let (lead, token) = sk.split_once('/')?;
    Some((lead.parse().ok()?, Token::parse(token)?))
}

async fn partition(deps: &Deps, pk: &str, prefix: &str) -> Step<Vec<Item>> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page =
            deps.ports.tables.query(Table::Identity, pk, prefix, after.as_deref(), 1000, Read::Consistent).await?;
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

fn looks(munchkin: &MunchkinId) -> String {
    format!("{munchkin}/look")
}

/// Notes that somebody asks to look at a lead now; the identity work takes such notes up.
pub async fn want_look(deps: &Deps, munchkin: &MunchkinId, lead: LeadId) -> Step<()> {
    put_hints(deps, [Key::new(looks(munchkin), format!("{lead:020}"))]).await
}

/// Leads that somebody asks to look at, at most `limit`, each with the note to forget ([`forget_hints`]) once that was
/// done.
pub async fn wanted_looks(deps: &Deps, munchkin: &MunchkinId, limit: usize) -> Step<Vec<(LeadId, (Key, u64))>> {
    let page = deps.ports.tables.query(Table::Identity, &looks(munchkin), "", None, limit, Read::Consistent).await?;
    Ok(page.items.into_iter().filter_map(|item| Some((item.key.sk.parse().ok()?, (item.key, item.rev)))).collect())
}

/// What a subscription took in on one day (UTC), in numbers. A message that comes twice may count twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intake {
    /// Version of this shape.
    pub v: u8,
    /// New pairs that browsers showed.
    pub new_public: u64,
    /// New pairs that browsers showed beyond the day's cap, of which only some were kept.
    pub over_day_cap: u64,
    /// Those of them that were not kept.
    pub sampled_out: u64,
    /// Pairs that were not stored because their token is over its cap.
    pub token_over_cap: u64,
    /// Pairs that were not stored because their ECID is over its cap.
    pub ecid_over_cap: u64,
    /// When the last new pair came, in ms; `None`: none did, or none that is counted here.
    #[serde(default)]
    pub last_at: Option<u64>,
    /// What pages sent, by the hour: the latest [`HOURS_OF_VIEWS`] hours of which something is known, the newest last.
    #[serde(default)]
    pub views: Vec<HourOfViews>,
}

/// Hours of page views that a day's row tells of: the running one and the one before. Few, so that the row stays below the
/// 1 KB that one write unit holds.
pub const HOURS_OF_VIEWS: usize = 2;

/// Page views of which the tag has told, in one hour. They come with new pairs, so that they cost no write of their own:
/// what was seen since the last new pair of a process is not counted yet, and is lost if the process ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourOfViews {
    /// The hour, counted since the epoch.
    pub hour: u64,
    /// When the latest came, in ms.
    pub last_at: u64,
    /// All of them.
    pub all: u64,
    /// Those whose request carried both cookies itself, so that nothing had to be taken from what the page said.
    pub both: u64,
}

impl Intake {
    /// Counts page views of which a message told that came at a time (ms).
    pub fn saw(&mut self, at: u64, all: u64, both: u64) {
        let hour = at / HOUR_MS;
        let place = match self.views.binary_search_by_key(&hour, |views| views.hour) {
            Ok(place) => place,
            Err(place) => {
                self.views.insert(place, HourOfViews { hour, ..HourOfViews::default() });
                place
            }
        };
        let views = &mut self.views[place];
        views.last_at = views.last_at.max(at);
        views.all += all;
        views.both += both;
        let surplus = self.views.len().saturating_sub(HOURS_OF_VIEWS);
        self.views.drain(..surplus);
    }
}

/// The key of a day's intake, in the identity table.
#[must_use]
pub fn intake_key(munchkin: &MunchkinId, at: u64) -> Key {
    let day = Timestamp::from_millisecond(i64::try_from(at).unwrap_or(0)).unwrap_or_default();
    Key::new(format!("{munchkin}/intake"), day.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_views_are_counted_by_the_hour_and_the_latest_two_hours_are_kept() {
        let mut intake = Intake::default();
        for (at, all, both) in [(5, 3, 1), (HOUR_MS, 1, 1), (HOUR_MS - 1, 2, 0), (HOUR_MS + 7, 1, 0)] {
            intake.saw(at, all, both);
        }
        let hour = |hour, last_at, all, both| HourOfViews { hour, last_at, all, both };
        assert_eq!(intake.views, [hour(0, HOUR_MS - 1, 5, 1), hour(1, HOUR_MS + 7, 2, 1)]);
        intake.saw(2 * HOUR_MS, 1, 1);
        assert_eq!(intake.views, [hour(1, HOUR_MS + 7, 2, 1), hour(2, 2 * HOUR_MS, 1, 1)]);
        // What is older than what is kept is not.
        intake.saw(0, 1, 1);
        assert_eq!(intake.views.len(), 2);
        assert_eq!(intake.views[0].hour, 1);
    }

    #[test]
    fn numbers_of_before_page_views_were_counted_are_read() {
        let before = r#"{"v":1,"new_public":1,"over_day_cap":0,"sampled_out":0,"token_over_cap":0,"ecid_over_cap":0}"#;
        let intake: Intake = serde_json::from_str(before).unwrap();
        assert_eq!(intake, Intake { v: 1, new_public: 1, ..Intake::default() });
    }
}
