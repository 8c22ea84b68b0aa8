//! Stores matches that came through the queue. A match is keyed by token and ECID; storing it twice, late or out of
//! order ends in the same record.

use std::collections::{BTreeMap, HashSet};

use domain::identity::{Sight, TokenRecord};
use domain::planted::{Guard, holds};
use domain::{MunchkinId, Token};
use futures::future::join_all;
use ports::{Failure, Table};
use state::bell::BellKey;
use state::identity::{ecid_to_token, put_hints, save_token, token_key};
use state::syncs::subscriptions;
use state::{Deps, Step, bell, load};

use crate::message::Match;

/// Tokens written at once.
const AT_ONCE: usize = 16;
/// Attempts before the message is tried again later.
const ATTEMPTS: usize = 20;

/// Stores a batch of matches. On an error the whole batch comes again, which changes nothing for those stored.
pub async fn store(deps: &Deps, matches: &[Match]) -> Step<()> {
    // The doors are checked here too: a subscription may have been closed while the match lay in the queue.
    let open: HashSet<MunchkinId> = subscriptions(deps)
        .await?
        .into_iter()
        .filter(|subscription| subscription.refused().is_none() && subscription.cookie_sync)
        .map(|subscription| subscription.munchkin_id)
        .collect();
    let mut by_token: BTreeMap<(&MunchkinId, &Token), Vec<&Match>> = BTreeMap::new();
    for found in matches.iter().filter(|found| open.contains(&found.munchkin_id)) {
        by_token.entry((&found.munchkin_id, &found.token)).or_default().push(found);
    }
    let groups: Vec<_> = by_token.into_iter().collect();
    for groups in groups.chunks(AT_ONCE) {
        let stored = groups.iter().map(|((munchkin, token), sights)| store_token(deps, munchkin, token, sights));
        for stored in join_all(stored).await {
            stored?;
        }
    }
    // Rung even if nothing was new: an earlier attempt may have died between storing and ringing.
    let rung: HashSet<&MunchkinId> = groups.iter().map(|((munchkin, _), _)| *munchkin).collect();
    for munchkin in rung {
        bell::mark(deps, &BellKey::identity(munchkin)).await?;
    }
    Ok(())
}

async fn store_token(deps: &Deps, munchkin: &MunchkinId, token: &Token, sights: &[&Match]) -> Step<()> {
    for _ in 0..ATTEMPTS {
        let found: Option<state::Doc<TokenRecord>> = load(deps, Table::Identity, &token_key(munchkin, token)).await?;
        let rev = found.as_ref().map(|found| found.rev);
        let mut record = found.map_or_else(|| TokenRecord::new(token.clone()), |found| found.value);
        let mut hints = Vec::new();
        let mut changed = false;
        for sight in sights {
            match record.sight(sight.ecid, sight.seen_at) {
                Sight::Repeat | Sight::SetAside | Sight::Erased => {}
                Sight::Later => changed = true,
                Sight::New => {
                    changed = true;
                    hints.push(ecid_to_token(munchkin, sight.ecid, token));
                }
            }
        }
        if !changed {
            return Ok(());
        }
        // Hints first: whoever sees the edge must find it from its other end.
        if !hints.is_empty() {
            put_hints(deps, hints).await?;
        }
        if save_token(deps, munchkin, &record, rev).await? || !holds(Guard::TokenRevision) {
            return Ok(());
        }
    }
    Err(Failure::retry("a token is written by too many at once"))
}
