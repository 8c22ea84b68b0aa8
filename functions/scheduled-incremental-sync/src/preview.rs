//! Counts an audience for previews: joins as a pass does, and publishes nothing.
//!
//! All previews that wait for one audience share one counting: of that which was asked for first. Dying anywhere is harmless:
//! it counts again, and rows that are counted are only struck from the head again.

use bytes::Bytes;
use domain::edges::Found;
use domain::sayings::NOT_COUNTED;
use domain::{AudienceId, MunchkinId};
use ports::Failure;
use state::audience::Members;
use state::bell::Next;
use state::previews::{Counted, Preview, Status, change_preview, preview, strike};
use state::{Deps, Step, edges};

use crate::pass::{LOOK_AGAIN_MS, count};

/// Attempts to count before a preview is given up. Ours: the key of the audience is set aside after as many, and must not
/// be because of a preview.
const ATTEMPTS: u32 = 2;

/// Counts, as soon as the edges are there.
pub(crate) async fn work(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    members: &Members<'_>,
) -> Step<Next> {
    let mut waiting = Vec::new();
    for id in &members.head().previews {
        match preview(deps, munchkin, id).await?.filter(|preview| preview.status == Status::Counting) {
            Some(preview) => waiting.push(preview),
            None => strike(deps, munchkin, audience, id).await?,
        }
    }
    // That which was asked for first.
    waiting.sort_by_key(|preview| preview.requested_at);
    let Some(first) = waiting.first().cloned() else { return Ok(Next::Done(None)) };
    match count_for(deps, munchkin, members, &first).await {
        Ok(Some(counted)) => {
            for preview in waiting {
                let tell = |row: &mut Preview| tell(row, &counted);
                change_preview(deps, munchkin, &preview, tell).await?;
                strike(deps, munchkin, audience, &preview.id).await?;
            }
            Ok(Next::Again)
        }
        Ok(None) => Ok(Next::Done(Some(deps.now() + deps.settings.scaled(LOOK_AGAIN_MS)))),
        Err(failure @ Failure::Outage { .. }) => Err(failure),
        Err(failure) => {
            let given_up = change_preview(deps, munchkin, &first, fail).await?;
            if given_up.is_some_and(|preview| preview.status == Status::Counting) {
                return Err(failure);
            }
            tracing::warn!(audience.id = %audience, preview.id = %first.id, reason = %failure, "a preview cannot be counted");
            strike(deps, munchkin, audience, &first.id).await?;
            Ok(Next::Again)
        }
    }
}

/// Counts for a preview; `None`: the edges are not there yet.
async fn count_for(
    deps: &Deps,
    munchkin: &MunchkinId,
    members: &Members<'_>,
    preview: &Preview,
) -> Step<Option<Counted>> {
    let audience = &members.head().audience;
    let number = match preview.edges {
        Some(number) => number,
        None => {
            let number = edges::want(deps, munchkin, Some(audience)).await?;
            let note = |row: &mut Preview| {
                let first = row.edges.is_none() && row.status == Status::Counting;
                if first {
                    row.edges = Some(number);
                }
                first
            };
            change_preview(deps, munchkin, preview, note).await?;
            number
        }
    };
    let Some(edges) = edges::ready(deps, munchkin, audience, number).await? else { return Ok(None) };
    let Some(found) = count(deps, members, &edges, None).await? else { return Ok(None) };
    // Where objects expire: nobody deletes those of a preview, for others may share them.
    let people_key = format!("runs/preview/{}", deps.fresh_id());
    deps.ports.objects.put(&people_key, Bytes::from(found.people.to_bytes())).await?;
    let Found { counts, not_asked, to_look_up, .. } = found;
    Ok(Some(Counted { as_of: edges.as_of, counts, not_asked, to_look_up, people_key }))
}

/// Writes down what was counted. Who dies before counts again.
fn tell(row: &mut Preview, counted: &Counted) -> bool {
    let waits = row.status == Status::Counting;
    if waits {
        row.counted_as(counted.clone());
    }
    waits
}

fn fail(row: &mut Preview) -> bool {
    row.failures += 1;
    // From the beginning: an object may be gone.
    row.edges = None;
    if row.failures > ATTEMPTS && row.status == Status::Counting {
        row.status = Status::Failed;
        row.why = Some(NOT_COUNTED.plain());
    }
    true
}
