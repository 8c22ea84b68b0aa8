//! Reads all members of a list for the control plane, which compares them with the people of a sync: of any list, also of one
//! that no sync writes. Nothing is written to the list, and nothing is remembered of it beside the job.

use domain::sayings::{LIST_GONE, MEMBERS_REFUSED};
use domain::{ListId, MunchkinId};
use marketo::class::Class;
use marketo::{CallError, Marketo};
use ports::Failure;
use state::bell::Next;
use state::budget::Purpose;
use state::notes::{Note, Notes, burn};
use state::readings::{self, MembersJob};
use state::{Deps, Step};

use crate::is_short;
use crate::reading::Asking;

/// A reading that is refused begins anew so often, for Marketo may have forgotten its place, before it is given up. Ours.
const RESTARTS: u32 = 3;
/// A reading that failed goes on after this time, in ms. Ours: what it failed of is Marketo's time-out, for the most part.
const FAILED_REST_MS: u64 = 60_000;

/// The same as [`go_on`], but what fails here, unless everything would, is nothing of the list's: it goes on after a rest,
/// and whatever is written to the list is not set aside for it.
pub(crate) async fn turn(
    deps: &Deps,
    munchkin: &MunchkinId,
    list: ListId,
    notes: &Notes,
    deadline: u64,
) -> Step<Option<Next>> {
    match go_on(deps, munchkin, list, notes, deadline).await {
        Err(failure) if !matches!(failure, Failure::Outage { .. }) => {
            tracing::warn!(list.id = list, reason = %failure, "a reading of members failed, and goes on after a rest");
            Ok(Some(Next::Done(Some(deps.now() + deps.settings.scaled(FAILED_REST_MS)))))
        }
        other => other,
    }
}

/// Goes on with the oldest reading that a note asks for, for one turn. `None`: no note asks for any. Whoever dies in
/// between goes on where the job's row stands: the note stays until the job is over, and a note of a job that is over, or
/// not there any more, is burnt.
async fn go_on(deps: &Deps, munchkin: &MunchkinId, list: ListId, notes: &Notes, deadline: u64) -> Step<Option<Next>> {
    let mut next = None;
    for (key, note) in &notes.found {
        let Note::Read { job } = note else { continue };
        if next.is_some() {
            // The next one has its turn after the other lists of the subscription.
            next = next.map(|next| if matches!(next, Next::Done(None)) { Next::Again } else { next });
            continue;
        }
        let found = readings::find(deps, munchkin, job).await?.filter(|found| found.value.list == list);
        let Some(found) = found.filter(|found| !found.value.is_over()) else {
            burn(deps, key).await?;
            continue;
        };
        let mut job = found.value;
        let read = slice(deps, munchkin, &mut job, deadline).await;
        if !readings::save(deps, munchkin, &job, Some(found.rev)).await? {
            return Err(Failure::retry("somebody else reads this list"));
        }
        if job.is_over() {
            burn(deps, key).await?;
        }
        next = Some(read?);
    }
    Ok(next)
}

/// Reads on. The job says where it stands, also after an error.
async fn slice(deps: &Deps, munchkin: &MunchkinId, job: &mut MembersJob, deadline: u64) -> Step<Next> {
    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Bulk);
    let asking = Asking { deps, marketo, munchkin, list: job.list, deadline };
    match asking.read_on(&mut job.reading, "id").await {
        Ok(None) => Ok(Next::Again),
        Ok(Some(members)) => {
            let key = readings::members_key(deps, &job.id);
            deps.ports.objects.put(&key, members.all.to_bytes().into()).await?;
            job.count = members.all.len();
            job.members = Some(key);
            job.read_at = Some(deps.now());
            Ok(Next::Done(None))
        }
        Err(CallError::Wait(until)) if is_short(deps, until) => Ok(Next::Again),
        Err(CallError::Wait(until)) => Ok(Next::Done(Some(until))),
        // Not of this list: nobody is answered now.
        Err(error) if matches!(error.class(), Some(Class::Alarm | Class::RetryThenAlarm)) => Err(error.into()),
        Err(CallError::Refused { code, .. }) if code == "1013" => {
            job.why = Some(LIST_GONE.plain());
            Ok(Next::Done(None))
        }
        Err(CallError::Refused { .. }) if job.restarts < RESTARTS => {
            job.restarts += 1;
            Ok(Next::Again)
        }
        Err(CallError::Refused { code, request_id }) => {
            job.why = Some(MEMBERS_REFUSED.with([("code", code.into()), ("request_id", request_id.into())]));
            Ok(Next::Done(None))
        }
        Err(error) => Err(error.into()),
    }
}
