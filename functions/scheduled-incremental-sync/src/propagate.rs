//! Tells the audiences that something about tokens or leads changed.

use std::collections::{BTreeMap, BTreeSet};

use domain::identity::{LeadRecord, TokenRecord};
use domain::planted::{Guard, holds};
use domain::{AudienceId, Ecid, LeadId, MunchkinId};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use ports::Key;
use state::audience::{Members, add_todo, want_pass};
use state::bell::BellKey;
use state::edges::Noted;
use state::identity::{ecid_to_lead, ecid_to_token, lead_to_token, save_forgetting, save_lead, save_token};
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
) -> Step<BTreeMap<AudienceId, BTreeSet<Ecid>>> {
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
        for ecid in &token.value.former_ecids {
            // Its lead is not found from an ECID that it has no more.
            changed.entry(*ecid).or_default().extend(token.value.former.iter().chain(&token.value.lead));
        }
    }
    for lead in &leads {
        for ecid in lead.value.ecids.iter().chain(&lead.value.former) {
            changed.entry(*ecid).or_default().insert(lead.value.lead);
        }
    }
    let ecids: BTreeSet<Ecid> = changed.keys().copied().collect();
    for audience in syncs::followed(deps, munchkin).await? {
        let Some(members) = Members::open(deps, munchkin, &audience).await? else { continue };
        // An ECID that has just left may be looked at after its former leads are forgotten here: told of them now.
        let inside = members.which_ever(&ecids).await?;
        if inside.is_empty() {
            continue;
        }
        if !holds(Guard::WriteBeforeRing) {
            bell::mark(deps, &BellKey::audience(munchkin, &audience)).await?;
        }
        if bulk || inside.len() > deps.settings.pass_above {
            want_pass(deps, munchkin, &audience).await?;
        } else {
            many(inside.iter().map(|ecid| add_todo(deps, munchkin, &audience, *ecid, &changed[ecid]).boxed())).await?;
        }
        if holds(Guard::WriteBeforeRing) {
            bell::mark(deps, &BellKey::audience(munchkin, &audience)).await?;
        }
    }
    // Lost to somebody who changed one of them again: then that one is told again.
    many(tokens.into_iter().map(|token| token_told(deps, munchkin, token).boxed())).await?;
    many(leads.into_iter().map(|lead| lead_told(deps, munchkin, lead).boxed())).await?;
    Ok(())
}

/// The audiences have been told of a token: forgets the hints to what it had, and then that there was something to tell.
async fn token_told(deps: &Deps, munchkin: &MunchkinId, mut token: Doc<TokenRecord>) -> Step<()> {
    let noted = &Noted::needless();
    let record = &token.value;
    let ecids = record.former_ecids.iter().filter(|ecid| !record.ecids.contains_key(ecid));
    let leads = record.former.iter().filter(|lead| Some(**lead) != record.lead);
    let lost: Vec<Key> = ecids
        .map(|ecid| ecid_to_token(munchkin, *ecid, &record.token))
        .chain(leads.map(|lead| lead_to_token(munchkin, *lead, &record.token)))
        .collect();
    if !lost.is_empty() {
        let save = save_token(deps, munchkin, &token.value, Some(token.rev), noted);
        if !save_forgetting(deps, &lost, save).await? {
            return Ok(());
        }
        token.rev += 1;
    }
    token.value.was_propagated();
    save_token(deps, munchkin, &token.value, Some(token.rev), noted).await?;
    Ok(())
}

/// The same of a lead.
async fn lead_told(deps: &Deps, munchkin: &MunchkinId, mut lead: Doc<LeadRecord>) -> Step<()> {
    let noted = &Noted::needless();
    let record = &lead.value;
    let ecids = record.former.iter().filter(|ecid| !record.ecids.contains(ecid));
    let lost: Vec<Key> = ecids.map(|ecid| ecid_to_lead(munchkin, *ecid, record.lead)).collect();
    if !lost.is_empty() {
        let save = save_lead(deps, munchkin, &lead.value, Some(lead.rev), noted);
        if !save_forgetting(deps, &lost, save).await? {
            return Ok(());
        }
        lead.rev += 1;
    }
    lead.value.was_propagated();
    save_lead(deps, munchkin, &lead.value, Some(lead.rev), noted).await?;
    Ok(())
}
