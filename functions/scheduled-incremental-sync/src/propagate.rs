//! Tells the audiences that something about tokens or leads changed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use domain::identity::{LeadRecord, TokenRecord};
use domain::{AudienceId, Ecid, LeadId, MunchkinId};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use state::audience::{Members, add_todo, want_pass};
use state::bell::BellKey;
use state::identity::{save_lead, save_token};
use state::{Deps, Doc, Step, bell, syncs};

/// Requests to a table that are under way at a time. Ours: one after the other, a bulk of tokens is bound by the
/// network's latency alone.
const AT_ONCE: usize = 16;

/// Does independent pieces of work, some at a time, in any order. The first failure ends it.
pub(crate) async fn many<'a, T: 'a>(work: impl Iterator<Item = BoxFuture<'a, Step<T>>>) -> Step<Vec<T>> {
    let work: Vec<BoxFuture<'a, Step<T>>> = work.collect();
    futures::stream::iter(work).buffer_unordered(AT_ONCE).try_collect().await
}

/// For each audience that a sync follows, those of the ECIDs that are in it.
pub(crate) async fn memberships(
    deps: &Deps,
    munchkin: &MunchkinId,
    ecids: &BTreeSet<Ecid>,
) -> Step<BTreeMap<AudienceId, HashSet<Ecid>>> {
    let mut found = BTreeMap::new();
    for audience in syncs::followed(deps, munchkin).await? {
        if let Some(members) = Members::open(deps, munchkin, &audience).await? {
            found.insert(audience, members.which(ecids).await?);
        }
    }
    Ok(found)
}

/// Writes the work into the audiences, rings them, and only then forgets that there was something to tell. `bulk`: by
/// passes, whatever the number of rows.
pub(crate) async fn propagate(
    deps: &Deps,
    munchkin: &MunchkinId,
    tokens: Vec<Doc<TokenRecord>>,
    leads: Vec<Doc<LeadRecord>>,
    bulk: bool,
) -> Step<()> {
    let mut changed: BTreeMap<Ecid, BTreeSet<LeadId>> = BTreeMap::new();
    for token in &tokens {
        for ecid in token.value.ecids.keys() {
            // Who owns it now is found from the ECID; who owned it before is not.
            changed.entry(*ecid).or_default().extend(&token.value.former);
        }
    }
    for lead in &leads {
        for ecid in lead.value.ecids.iter().chain(&lead.value.former) {
            changed.entry(*ecid).or_default().insert(lead.value.lead);
        }
    }
    let ecids: BTreeSet<Ecid> = changed.keys().copied().collect();
    for (audience, inside) in memberships(deps, munchkin, &ecids).await? {
        if inside.is_empty() {
            continue;
        }
        if bulk || inside.len() > deps.settings.pass_above {
            want_pass(deps, munchkin, &audience).await?;
        } else {
            many(inside.iter().map(|ecid| add_todo(deps, munchkin, &audience, *ecid, &changed[ecid]).boxed())).await?;
        }
        bell::mark(deps, &BellKey::audience(munchkin, &audience)).await?;
    }
    let (mut tokens, mut leads) = (tokens, leads);
    tokens.iter_mut().for_each(|token| token.value.was_propagated());
    leads.iter_mut().for_each(|lead| lead.value.was_propagated());
    // Lost to somebody who changed one of them again: then that one is told again.
    many(tokens.iter().map(|token| save_token(deps, munchkin, &token.value, Some(token.rev)).boxed())).await?;
    many(leads.iter().map(|lead| save_lead(deps, munchkin, &lead.value, Some(lead.rev)).boxed())).await?;
    Ok(())
}
