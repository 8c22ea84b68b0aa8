//! Whether a file's ids are ECIDs at all. An Audience Manager UUID looks the same and meets nobody.

use std::collections::BTreeSet;

use domain::identity::TokenRecord;
use domain::limits::{DAY_MS, SIGHT_GRAIN_MS};
use domain::sayings::{IDS_MEET_NOBODY_AAM, IDS_MEET_NOBODY_AEP};
use domain::{Ecid, MunchkinId, Said};
use futures::FutureExt as _;
use ports::{Read, Table};
use state::feeds::{FeedState, Kind};
use state::identity::{SHARDS, hints_of_ecid, token_shard};
use state::{Deps, Step, doc};

use crate::propagate::many;

/// Recent matches without which nothing can be said (issue 5).
const MATCHES: usize = 1_000;
/// How old the last sight of a recent match may be, in ms: a fortnight, and the grain in which it is stored.
const RECENT_MS: u64 = 14 * DAY_MS + SIGHT_GRAIN_MS;
/// Token records of one read.
const PAGE: usize = 500;
/// Ids of a delivery that are looked up, at most.
const LOOKED_UP: usize = 1_000;
/// Ids that are looked up before it is asked whether one has met: most deliveries meet with the first of them.
const AT_ONCE: usize = 32;

/// Why a delivery of so many entries is to be held, if so: its ids meet none of the subscription's recent matches. `sample`:
/// some of its ids, evenly spread; of a small one all.
pub(super) async fn suspicion(
    deps: &Deps,
    munchkin: &MunchkinId,
    kind: Kind,
    state: &FeedState,
    entries: u64,
    sample: &[Ecid],
) -> Step<Suspicion> {
    // A small file may meet nobody by chance: once the feed has shown that it brings ECIDs, it is believed.
    if entries == 0 || state.believed || (state.met_at.is_some() && entries < MATCHES as u64) {
        return Ok(Suspicion::Nothing);
    }
    let some: BTreeSet<Ecid> = sample.iter().copied().step_by(sample.len().div_ceil(LOOKED_UP).max(1)).collect();
    let some: Vec<Ecid> = some.into_iter().collect();
    for ecids in some.chunks(AT_ONCE) {
        let hints = many(ecids.iter().map(|ecid| hints_of_ecid(deps, munchkin, *ecid).boxed())).await?;
        if hints.iter().any(|hints| !hints.tokens.is_empty() || !hints.leads.is_empty()) {
            return Ok(Suspicion::Met);
        }
    }
    if !has_matches(deps, munchkin).await? {
        return Ok(Suspicion::Nothing);
    }
    let saying = match kind {
        Kind::AepFiles | Kind::AepStream => IDS_MEET_NOBODY_AEP,
        Kind::AamFiles | Kind::AamStream => IDS_MEET_NOBODY_AAM,
    };
    Ok(Suspicion::Held(saying.with([("looked", some.len().into()), ("matches", MATCHES.into())])))
}

/// Whether the subscription has so many recent matches that something can be said.
async fn has_matches(deps: &Deps, munchkin: &MunchkinId) -> Step<bool> {
    let since = deps.now().saturating_sub(RECENT_MS);
    let mut matches = 0;
    for shard in 0..SHARDS {
        let mut after: Option<String> = None;
        loop {
            let pk = token_shard(munchkin, shard);
            let page =
                deps.ports.tables.query(Table::Identity, &pk, "", after.as_deref(), PAGE, Read::Eventual).await?;
            for item in page.items {
                let record: TokenRecord = doc::read(item)?.value;
                matches += record.ecids.values().filter(|seen| seen.last >= since).count();
            }
            if matches >= MATCHES {
                return Ok(true);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(false)
}

/// What became of the look at a delivery's ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing can be said.
    Nothing,
    /// One of them was found among the matches.
    Met,
    /// None was: the reason to hold it.
    Held(Said),
}
