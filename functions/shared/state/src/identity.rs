//! Where tokens, leads and their hints stand.
//!
//! A token's item is the only truth of its edges. ECID → token, ECID → lead and lead → token are hints, written
//! before the edge they lead to and checked against it.

use std::collections::BTreeSet;

use domain::identity::{LeadRecord, TokenRecord};
use domain::planted::{Guard, holds};
use domain::{Ecid, LeadId, MunchkinId, Token};
use ports::{Due, Expect, Item, Key, Read, Table};

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

fn lead_hints(munchkin: &MunchkinId, lead: LeadId) -> String {
    format!("{munchkin}/lt/{lead}")
}

fn hint(pk: String, sk: String) -> Item {
    Item { key: Key::new(pk, sk), rev: 1, doc: serde_json::json!({"v": 1}), due: None, expires_at: None }
}

/// The hint that leads from an ECID to a token.
#[must_use]
pub fn ecid_to_token(munchkin: &MunchkinId, ecid: Ecid, token: &Token) -> Item {
    hint(ecid_hints(munchkin, ecid), format!("t/{}", token.as_str()))
}

/// The hint that leads from an ECID to a lead.
#[must_use]
pub fn ecid_to_lead(munchkin: &MunchkinId, ecid: Ecid, lead: LeadId) -> Item {
    hint(ecid_hints(munchkin, ecid), format!("l/{lead:020}"))
}

/// The hint that leads from a lead to a token.
#[must_use]
pub fn lead_to_token(munchkin: &MunchkinId, lead: LeadId, token: &Token) -> Item {
    hint(lead_hints(munchkin, lead), token.as_str().to_owned())
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

/// The item of a token's record, over revision `rev`.
pub fn token_item(deps: &Deps, munchkin: &MunchkinId, record: &TokenRecord, rev: Option<u64>) -> Step<Item> {
    let now = deps.now();
    // Intervals are the design's durations on this deployment's clock.
    let due = record.due(now).map(|at| {
        if at <= now {
            at
        } else {
            record.asked_at.map_or(at, |asked| asked + deps.settings.scaled(at.saturating_sub(asked)))
        }
    });
    doc::item(
        token_key(munchkin, &record.token),
        record,
        rev,
        due.map(|at| Due { pk: if record.unpropagated { tell_pk(munchkin) } else { ask_pk(munchkin) }, at }),
    )
}

/// Writes a token's record on condition of its revision. `false`: somebody was faster.
pub async fn save_token(deps: &Deps, munchkin: &MunchkinId, record: &TokenRecord, rev: Option<u64>) -> Step<bool> {
    let item = token_item(deps, munchkin, record, rev)?;
    let expect = match rev {
        _ if !holds(Guard::TokenRevision) => Expect::Anything,
        None => Expect::Absent,
        Some(rev) => Expect::Rev(rev),
    };
    Ok(deps.ports.tables.put(Table::Identity, item, expect).await?)
}

/// Writes a lead's record on condition of its revision. `false`: somebody was faster.
pub async fn save_lead(deps: &Deps, munchkin: &MunchkinId, record: &LeadRecord, rev: Option<u64>) -> Step<bool> {
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
}

/// The hints of an ECID.
pub async fn hints_of_ecid(deps: &Deps, munchkin: &MunchkinId, ecid: Ecid) -> Step<EcidHints> {
    let mut hints = EcidHints::default();
    for sk in sort_keys(deps, &ecid_hints(munchkin, ecid)).await? {
        if let Some(token) = sk.strip_prefix("t/").and_then(Token::parse) {
            hints.tokens.push(token);
        } else if let Some(lead) = sk.strip_prefix("l/").and_then(|lead| lead.parse().ok()) {
            hints.leads.push(lead);
        }
    }
    Ok(hints)
}

/// Tokens that a lead may own.
pub async fn hints_of_lead(deps: &Deps, munchkin: &MunchkinId, lead: LeadId) -> Step<Vec<Token>> {
    let keys = sort_keys(deps, &lead_hints(munchkin, lead)).await?;
    Ok(keys.iter().filter_map(|sk| Token::parse(sk)).collect())
}

async fn sort_keys(deps: &Deps, pk: &str) -> Step<Vec<String>> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = deps.ports.tables.query(Table::Identity, pk, "", after.as_deref(), 1000, Read::Consistent).await?;
        found.extend(page.items.into_iter().map(|item| item.key.sk));
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}
