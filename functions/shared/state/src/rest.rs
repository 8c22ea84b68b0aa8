//! How a sync comes to rest: paused or stopped, by an operator, with its subscription, or because its audience is gone.

use domain::{LeadSet, Said};
use ports::{Failure, Table};

use crate::bell::BellKey;
use crate::lists::{Want, read_leads, want_key, write_leads};
use crate::syncs::{Start, Status, Sync, change_sync};
use crate::{Deps, Doc, Step, bell, load};

/// Attempts to read a set that is replaced meanwhile.
const ATTEMPTS: usize = 5;

/// Rings the list of a sync that writes one.
pub async fn ring_list(deps: &Deps, sync: &Sync) -> Step<()> {
    match (sync.start, sync.list.id) {
        (Start::Now, Some(list)) => bell::mark(deps, &BellKey::list(&sync.munchkin, list)).await,
        _ => Ok(()),
    }
}

/// What a sync wants at present, and the key of that set; as the list-writer reads it.
async fn wanted(deps: &Deps, sync: &Sync) -> Step<Option<(String, LeadSet)>> {
    for _ in 0..ATTEMPTS {
        let want: Option<Doc<Want>> = load(deps, Table::Lists, &want_key(&sync.munchkin, &sync.audience)).await?;
        let want = want.map(|want| want.value);
        let Some(want) = want.filter(|want| sync.from_pass.is_none_or(|pass| want.pass >= pass)) else {
            return Ok(None);
        };
        match read_leads(deps, &want.key).await {
            Ok(leads) => return Ok(Some((want.key, leads))),
            // Replaced between the two reads.
            Err(Failure::Retry { .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::retry("what the sync wants is replaced too often"))
}

/// Whether a status may follow another: nobody comes back from a stop, and a stop that keeps people may still let
/// them go.
const fn may_rest(from: Status, to: Status) -> bool {
    match to {
        Status::Paused => matches!(from, Status::Active),
        Status::StoppedKeeping => matches!(from, Status::Creating | Status::Active | Status::Paused),
        Status::StoppedLeaving => !matches!(from, Status::StoppedLeaving),
        Status::Creating | Status::Active => false,
    }
}

/// Lets a sync rest (paused or stopped) and rings its list. What it wanted is kept beside it: those people stay
/// where they are.
pub async fn rest(deps: &Deps, sync: &Sync, status: Status, why: &Said) -> Step<Sync> {
    let before = if sync.start == Start::Now { wanted(deps, sync).await? } else { None };
    let mut frozen = None;
    if let Some((_, leads)) = &before {
        frozen = Some(write_leads(deps, "frozen", leads).await?);
    }
    let mut was = sync.status;
    let changed = change_sync(deps, &sync.munchkin, &sync.id, |row| {
        was = row.status;
        if !may_rest(row.status, status) {
            return false;
        }
        if row.status == Status::Active {
            row.frozen.clone_from(&frozen);
        }
        row.status = status;
        row.why = Some(why.clone());
        row.generation += 1;
        true
    })
    .await?;
    let mut row = changed.ok_or_else(|| Failure::fail("a sync is gone"))?;
    if was == Status::Active && sync.start == Start::Now && status != Status::StoppedLeaving {
        // The writer may have followed a set that was published between our read and our write.
        let after = wanted(deps, &row).await?;
        if let Some((key, leads)) = after
            && before.as_ref().is_none_or(|(old, _)| *old != key)
        {
            let mut both = before.map(|(_, leads)| leads).unwrap_or_default();
            both.add_all(&leads);
            let key = write_leads(deps, "frozen", &both).await?;
            let generation = row.generation;
            let again = change_sync(deps, &sync.munchkin, &sync.id, |row| {
                let same = row.generation == generation;
                if same {
                    row.frozen = Some(key.clone());
                }
                same
            })
            .await?;
            row = again.unwrap_or(row);
        }
    }
    ring_list(deps, &row).await?;
    Ok(row)
}
