//! Looks up in Adobe's library what the audiences of our syncs are called, and whether they are still there.
//!
//! Replay is harmless: a name that stands is left alone, and a sync that is stopped is not stopped again.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::{DAY_MS, HOUR_MS};
use domain::sayings::{AUDIENCE_DELETED_AAM, AUDIENCE_DELETED_AEP};
use domain::{AudienceId, MunchkinId, OrgId};
use ports::{Expect, Key, Table};
use serde::{Deserialize, Serialize};
use state::rest::rest;
use state::syncs::{Status, Sync, change_sync, subscriptions, syncs};
use state::{Deps, Step, load, save, update};

/// Adobe's library is looked at this often, in ms. Ours.
const EVERY_MS: u64 = 15 * 60_000;
/// An audience is deleted once Adobe has not known it for this long, in ms. Ours: a mistake at Adobe's can be mended
/// within it, and nobody comes back from a stop.
const PATIENCE_MS: u64 = HOUR_MS;
/// The same where the library shows nothing at all, in ms: rather the credential may have lost its rights.
const PATIENCE_WITH_NOTHING_MS: u64 = DAY_MS;
/// Time that must be left for one audience, in ms: a token and two calls, each of which may take 20 s.
const MARGIN_MS: u64 = 60_000;

/// When the library was last looked at, and how far. DynamoDB keeps objects only, so not the bare number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Looked {
    v: u8,
    /// In ms.
    at: u64,
    /// The audience after which to go on, in order; `None`: that look has ended.
    after: Option<(MunchkinId, AudienceId)>,
}

/// An audience that Adobe does not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Absent {
    v: u8,
    /// Since when, in ms.
    since: u64,
}

fn looked_key() -> Key {
    Key::new("backstop", "library")
}

fn absent_key(munchkin: &MunchkinId, audience: &AudienceId) -> Key {
    Key::new(munchkin.as_str(), format!("absent/{audience}"))
}

/// Brings names up to date, and stops the syncs of deleted audiences. What Adobe does not answer is left for the next
/// look: that is no word about any audience.
pub(crate) async fn refresh(deps: &Deps, deadline: u64) -> Step<()> {
    let now = deps.now();
    let every = deps.settings.scaled(EVERY_MS);
    let begun = update(
        deps,
        Table::Syncs,
        &looked_key(),
        |last: Option<Looked>| {
            let last = last.unwrap_or_default();
            if last.after.is_some() {
                return Ok((None, Some(last)));
            }
            if last.at > 0 && now < last.at + every {
                return Ok((None, None));
            }
            let fresh = Looked { v: 1, at: now, after: None };
            Ok((Some(fresh.clone()), Some(fresh)))
        },
        |_| None,
    )
    .await?;
    let Some(begun) = begun else { return Ok(()) };
    let mut after = begun.after.clone();
    let mut silent: BTreeSet<bool> = BTreeSet::new();
    for (place, (org, mine)) in followed(deps).await? {
        if begun.after.as_ref().is_some_and(|after| place <= *after) {
            continue;
        }
        if deps.now() + deps.settings.scaled(MARGIN_MS) > deadline {
            // What was not even begun begins anew with the next tick.
            let looked = if after.is_some() { Looked { after, ..begun } } else { Looked { v: 1, ..Looked::default() } };
            return update(deps, Table::Syncs, &looked_key(), |_| Ok((Some(looked.clone()), ())), |_| None).await;
        }
        let (munchkin, audience) = &place;
        // One library of the two may be out.
        let platform = audience.uuid().is_some();
        let answers = !silent.contains(&platform) && (!platform || adobe::is_used(deps));
        if answers {
            match name(deps, &org, audience).await {
                Ok(Some(name)) => found(deps, munchkin, audience, &name, &mine).await?,
                Ok(None) => missed(deps, &org, munchkin, audience, &mine).await?,
                Err(failure) => {
                    tracing::warn!(audience.id = %audience, reason = %failure, "an audience cannot be looked up now");
                    silent.insert(platform);
                }
            }
        }
        after = Some(place);
    }
    if begun.after.is_some() {
        let looked = Looked { after: None, ..begun };
        update(deps, Table::Syncs, &looked_key(), |_| Ok((Some(looked.clone()), ())), |_| None).await?;
    }
    Ok(())
}

/// Audiences with the syncs that are not stopped, in order.
type Followed = BTreeMap<(MunchkinId, AudienceId), (OrgId, Vec<Sync>)>;

async fn followed(deps: &Deps) -> Step<Followed> {
    let mut found = Followed::new();
    for subscription in subscriptions(deps).await? {
        let Some(org) = subscription.org_id.clone().filter(|_| subscription.refused().is_none()) else { continue };
        for sync in syncs(deps, &subscription.munchkin_id).await? {
            let sync = sync.value;
            if !matches!(sync.status, Status::StoppedKeeping | Status::StoppedLeaving) {
                let place = (sync.munchkin.clone(), sync.audience.clone());
                found.entry(place).or_insert_with(|| (org.clone(), Vec::new())).1.push(sync);
            }
        }
    }
    Ok(found)
}

/// What Adobe calls an audience; `None`: it knows none with this id.
async fn name(deps: &Deps, org: &OrgId, audience: &AudienceId) -> Step<Option<String>> {
    match audience.sid() {
        Some(sid) => Ok(adobe::segment(deps, sid).await?.map(|segment| segment.name)),
        None => Ok(adobe::audience(deps, org, audience).await?.map(|audience| audience.name)),
    }
}

async fn found(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, name: &str, mine: &[Sync]) -> Step<()> {
    let key = absent_key(munchkin, audience);
    if let Some(absent) = load::<Absent>(deps, Table::Syncs, &key).await? {
        deps.ports.tables.delete(Table::Syncs, &key, Expect::Rev(absent.rev)).await?;
    }
    for sync in mine.iter().filter(|sync| !name.is_empty() && sync.audience_name != name) {
        change_sync(deps, munchkin, &sync.id, |row| {
            let changed = row.audience_name != name;
            name.clone_into(&mut row.audience_name);
            changed
        })
        .await?;
    }
    Ok(())
}

async fn missed(deps: &Deps, org: &OrgId, munchkin: &MunchkinId, audience: &AudienceId, mine: &[Sync]) -> Step<()> {
    let key = absent_key(munchkin, audience);
    let now = deps.now();
    let Some(absent) = load::<Absent>(deps, Table::Syncs, &key).await? else {
        tracing::warn!(audience.id = %audience, "Adobe does not know an audience any more");
        save(deps, Table::Syncs, key, &Absent { v: 1, since: now }, None, None).await?;
        return Ok(());
    };
    let is_over = |patience| now >= absent.value.since + deps.settings.scaled(patience);
    if !is_over(PATIENCE_MS) {
        return Ok(());
    }
    // A wrong address, or a credential that sees less than before, must not stop anything.
    match listed(deps, org, audience).await {
        Ok(all) if all.contains(audience) => return Ok(()),
        Ok(all) if all.is_empty() && !is_over(PATIENCE_WITH_NOTHING_MS) => return Ok(()),
        Ok(_) => {}
        Err(failure) => {
            tracing::warn!(audience.id = %audience, reason = %failure, "it cannot be told whether an audience is gone");
            return Ok(());
        }
    }
    let saying = if audience.uuid().is_some() { AUDIENCE_DELETED_AEP } else { AUDIENCE_DELETED_AAM };
    for sync in mine {
        let why = saying.with([("name", sync.audience_name.as_str().into()), ("audience", audience.as_str().into())]);
        rest(deps, sync, Status::StoppedKeeping, &why).await?;
        tracing::warn!(sync.id = %sync.id, audience.id = %audience, "a sync was stopped: its audience was deleted");
    }
    deps.ports.tables.delete(Table::Syncs, &key, Expect::Rev(absent.rev)).await?;
    Ok(())
}

/// All audiences that the library of this one lists.
async fn listed(deps: &Deps, org: &OrgId, audience: &AudienceId) -> Step<BTreeSet<AudienceId>> {
    Ok(match audience.sid() {
        Some(_) => adobe::segments(deps).await?.iter().map(|segment| AudienceId::aam(segment.sid)).collect(),
        None => adobe::audiences(deps, org).await?.into_iter().map(|listed| listed.id).collect(),
    })
}
