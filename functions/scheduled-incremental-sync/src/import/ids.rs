//! Whether a file's ids are ECIDs at all. An Audience Manager UUID looks the same and meets nobody.

use std::collections::{BTreeMap, BTreeSet};

use domain::identity::TokenRecord;
use domain::limits::{DAY_MS, SIGHT_GRAIN_MS};
use domain::{AudienceId, Ecid, MunchkinId};
use ports::{Read, Table};
use state::feeds::{FeedState, Kind};
use state::identity::{SHARDS, hints_of_ecid, token_shard};
use state::{Deps, Step, doc};

use super::content::Sides;

/// Recent matches without which nothing can be said (issue 5).
const MATCHES: usize = 1_000;
/// How old the last sight of a recent match may be, in ms: a fortnight, and the grain in which it is stored.
const RECENT_MS: u64 = 14 * DAY_MS + SIGHT_GRAIN_MS;
/// Token records of one read.
const PAGE: usize = 500;
/// Ids of the file that are looked up one by one before it is held.
const LOOKED_UP: usize = 1_000;

/// Why a delivery is to be held, if so: its ids meet none of the subscription's recent matches.
pub(super) async fn suspicion(
    deps: &Deps,
    munchkin: &MunchkinId,
    kind: Kind,
    state: &FeedState,
    content: &BTreeMap<AudienceId, Sides>,
) -> Step<Suspicion> {
    let ids: BTreeSet<Ecid> =
        content.values().flat_map(|sides| sides.inside.iter().chain(&sides.outside)).copied().collect();
    // A small file may meet nobody by chance: once the feed has shown that it brings ECIDs, it is believed.
    if ids.is_empty() || (state.met_at.is_some() && ids.len() < MATCHES) {
        return Ok(Suspicion::Nothing);
    }
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
                for (ecid, seen) in &record.ecids {
                    if ids.contains(ecid) {
                        return Ok(Suspicion::Met);
                    }
                    matches += usize::from(seen.last >= since);
                }
            }
            after = page.next;
            if after.is_none() || matches >= MATCHES {
                break;
            }
        }
        if matches >= MATCHES {
            break;
        }
    }
    if matches < MATCHES {
        return Ok(Suspicion::Nothing);
    }
    // The matches that were read are some of many: ask for those of the file's ids, evenly spread.
    let step = ids.len().div_ceil(LOOKED_UP).max(1);
    for ecid in ids.iter().step_by(step) {
        let hints = hints_of_ecid(deps, munchkin, *ecid).await?;
        if !hints.tokens.is_empty() || !hints.leads.is_empty() {
            return Ok(Suspicion::Met);
        }
    }
    let ask = match kind {
        Kind::AepFiles | Kind::AepStream => {
            "Ask whoever set the destination up to map the identity namespace ECID to the column of ids"
        }
        Kind::AamFiles | Kind::AamStream => {
            "Ask Adobe to key the destination's files by MCID (the Experience Cloud ID) and not by UUID"
        }
    };
    let count = ids.len();
    Ok(Suspicion::Held(format!(
        "these look like Audience Manager UUIDs and not ECIDs: the delivery's {count} ids meet none of at least \
         {MATCHES} recent matches of this subscription. {ask}, then drop this delivery. If they are ECIDs, apply it"
    )))
}

/// What became of the look at a delivery's ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing can be said.
    Nothing,
    /// One of them was found among the matches.
    Met,
    /// None was: the reason to hold it.
    Held(String),
}
