//! Counts an audience for previews: reads as a pass does, in slices, and publishes nothing.
//!
//! All previews that wait for one audience share one reading: of the first of them, by whose row it goes on. Dying
//! anywhere is harmless: the row says how far it came, and rows that are counted are only struck from the head again.

use bytes::Bytes;
use domain::sayings::NOT_COUNTED;
use domain::{AudienceId, MunchkinId};
use ports::Failure;
use state::audience::Members;
use state::bell::Next;
use state::previews::{Counted, Preview, Status, change_preview, preview, strike};
use state::{Deps, Step};

use crate::pass::{begin, put_by, read_on, take_up};

/// Attempts to count before a preview is given up. Ours: the key of the audience is set aside after as many, and must not
/// be because of a preview.
const ATTEMPTS: u32 = 2;

/// Does one slice of the counting.
pub(crate) async fn slice(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    members: &Members<'_>,
    deadline: u64,
) -> Step<Next> {
    let mut waiting = Vec::new();
    for id in &members.head().previews {
        match preview(deps, munchkin, id).await?.filter(|preview| preview.status == Status::Counting) {
            Some(preview) => waiting.push(preview),
            None => strike(deps, munchkin, audience, id).await?,
        }
    }
    // The one that is being read already, or else that which was asked for first.
    waiting.sort_by_key(|preview| (preview.pass.is_none(), preview.requested_at));
    let Some(first) = waiting.first().cloned() else { return Ok(Next::Done(None)) };
    match count(deps, munchkin, members, &first, deadline).await {
        Ok(Some((counted, garbage))) => {
            for preview in waiting {
                let tell = |row: &mut Preview| tell(row, &counted);
                change_preview(deps, munchkin, &preview, tell).await?;
                strike(deps, munchkin, audience, &preview.id).await?;
            }
            for key in garbage {
                deps.ports.objects.delete(&key).await?;
            }
        }
        Ok(None) => {}
        Err(failure @ Failure::Outage { .. }) => return Err(failure),
        Err(failure) => {
            let given_up = change_preview(deps, munchkin, &first, fail).await?;
            if given_up.is_some_and(|preview| preview.status == Status::Counting) {
                return Err(failure);
            }
            tracing::warn!(audience.id = %audience, preview.id = %first.id, reason = %failure, "a preview cannot be counted");
            strike(deps, munchkin, audience, &first.id).await?;
        }
    }
    Ok(Next::Again)
}

/// Reads on for a preview. Returns what was counted, and objects that are garbage then; `None`: there is more to read.
async fn count(
    deps: &Deps,
    munchkin: &MunchkinId,
    members: &Members<'_>,
    preview: &Preview,
    deadline: u64,
) -> Step<Option<(Counted, Vec<String>)>> {
    let mut pass = match preview.pass.clone() {
        Some(pass) => pass,
        None => begin(deps, members, 0).await?,
    };
    let (members, mut found) = take_up(deps, &mut pass).await?;
    let slice = read_on(deps, munchkin, &mut pass, &members, &mut found, false, deadline).await?;
    if !slice.whole {
        let replaced = put_by(deps, &mut pass, &found).await?;
        let mine = |row: &mut Preview| {
            let mine = row.pass == preview.pass && row.status == Status::Counting;
            if mine {
                row.pass = Some(pass.clone());
                row.failures = 0;
            }
            mine
        };
        let row = change_preview(deps, munchkin, preview, mine).await?;
        // Somebody else reads, too: a message that came twice. What replaced nothing expires.
        if row.is_some_and(|row| row.pass.as_ref() == Some(&pass))
            && let Some(replaced) = replaced
        {
            deps.ports.objects.delete(&replaced).await?;
        }
        return Ok(None);
    }
    let (counts, people) = found.count();
    // Where objects expire: nobody deletes those of a preview, for others may share them.
    let people_key = format!("runs/preview/{}", deps.fresh_id());
    deps.ports.objects.put(&people_key, Bytes::from(people.to_bytes())).await?;
    let (not_asked, to_look_up) = (found.not_asked(), found.to_look_up());
    let counted = Counted { as_of: pass.as_of, counts, not_asked, to_look_up, people_key };
    Ok(Some((counted, [Some(pass.members.key), pass.found_key].into_iter().flatten().collect())))
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
    // From the beginning: an object of the reading may be gone.
    row.pass = None;
    if row.failures > ATTEMPTS && row.status == Status::Counting {
        row.status = Status::Failed;
        row.why = Some(NOT_COUNTED.plain());
    }
    true
}
