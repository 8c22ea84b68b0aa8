//! What a sync would do, before it is made: a job that counts and asks, and changes nothing.
//!
//! The worker of the audience counts ([`state::previews`]); Marketo is asked here, and only while somebody polls. Every
//! step is written down by itself and on condition of what it was made from, so a request that comes twice or dies in
//! between asks Marketo once more at most, and the job ends the same.

use domain::limits::MARKETO_BATCH;
use domain::sayings::{LIST_GONE, MEMBERSHIP_REFUSED, NOT_DELIVERED};
use domain::{LeadId, LeadSet, MunchkinId, Said};
use marketo::{CallError, IMPORT_LEADS, Marketo};
use ports::{Failure, Table};
use serde_json::{Value, json};
use state::audience::{Head, head_key};
use state::bell::BellKey;
use state::budget::{Outlook, Purpose, outlook};
use state::lists::{OpenList, read_leads};
use state::previews::{Counted, KEPT_MS, Preview, Status, There, change_preview, enlist, preview, put_preview};
use state::syncs::{IdentityHead, Start, Subscription, Sync, identity_key};
use state::{Deps, Doc, Step, bell, doc, load, syncs, time};

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};
use crate::{create, said};

/// Calls to Marketo for one preview: 6,000 people. Ours.
const CALLS: u64 = 20;
/// Calls of one request, one after the other: the control plane has one in flight. Ours.
const CALLS_A_REQUEST: usize = 5;
/// No call is begun when the request has less than this left, in ms. Ours: Marketo seldom takes longer.
const RESERVE_MS: u64 = 15_000;
/// What was counted for another preview of the audience is taken for this one up to this age, in ms. Ours: whoever makes
/// up their mind about a list asks several times.
const FRESH_MS: u64 = 5 * 60_000;
/// An audience that has not counted for so long is asked once more, in ms. Ours.
const ASK_AGAIN_MS: u64 = 60_000;

/// `POST /syncs/preview`.
pub(crate) async fn post(
    deps: &Deps,
    subscription: &Subscription,
    request: &Request,
    deadline: u64,
) -> Answer<Response> {
    let munchkin = &subscription.munchkin_id;
    let sync = create::would_be(deps, subscription, &request.json()?, &deps.fresh_id(), deadline).await?;
    let mut job = new(deps, sync);
    let head: Option<Doc<Head>> = load(deps, Table::Audiences, &head_key(munchkin, &job.audience)).await?;
    match &head {
        None => {
            job.status = Status::Failed;
            job.why = Some(NOT_DELIVERED.plain());
        }
        Some(head) => {
            if let Some(counted) = counted_before(deps, munchkin, &job, &head.value).await? {
                job.counted_as(counted);
            }
        }
    }
    // The row first: the worker strikes previews of which there is none.
    put_preview(deps, munchkin, &job).await?;
    if job.status == Status::Counting {
        ask_to_count(deps, munchkin, &job).await?;
    }
    let location = format!("/previews/{}", job.id);
    let body = show(deps, subscription, &job).await?;
    Ok(Response { headers: vec![("location", location)], ..Response::json(202, &body) })
}

fn new(deps: &Deps, sync: Sync) -> Preview {
    Preview {
        v: 1,
        id: sync.id,
        audience: sync.audience,
        audience_name: sync.audience_name,
        list: sync.list,
        leaving: sync.leaving,
        members_before: sync.members_before,
        start: sync.start,
        requested_at: deps.now(),
        status: Status::Counting,
        why: None,
        edges: None,
        failures: 0,
        counted: None,
        there: None,
    }
}

/// What was counted for another preview just now, if since then no delivery has named the audience and Marketo was not asked
/// about any cookie (which is noted once a minute).
async fn counted_before(deps: &Deps, munchkin: &MunchkinId, job: &Preview, head: &Head) -> Step<Option<Counted>> {
    let others: Vec<Doc<Preview>> = doc::all(deps, Table::Syncs, munchkin.as_str(), "preview/").await?;
    let same = others.into_iter().map(|other| other.value).filter(|other| other.audience == job.audience);
    let last = same.filter_map(|other| other.counted).max_by_key(|counted| counted.as_of);
    let identity: Option<Doc<IdentityHead>> = load(deps, Table::Syncs, &identity_key(munchkin)).await?;
    let asked_at = identity.map_or(0, |identity| identity.value.asked_at);
    let since = deps.now().saturating_sub(deps.settings.scaled(FRESH_MS)).max(head.delivered_at + 1).max(asked_at);
    Ok(last.filter(|counted| counted.as_of >= since))
}

async fn ask_to_count(deps: &Deps, munchkin: &MunchkinId, job: &Preview) -> Step<()> {
    if enlist(deps, munchkin, &job.audience, &job.id).await? {
        bell::mark(deps, &BellKey::audience(munchkin, &job.audience)).await?;
    }
    Ok(())
}

/// `GET /previews/{id}`.
pub(crate) async fn get(deps: &Deps, subscription: &Subscription, id: &str, deadline: u64) -> Answer<Value> {
    let munchkin = &subscription.munchkin_id;
    let Some(mut job) = preview(deps, munchkin, id).await? else {
        let hours = KEPT_MS / domain::limits::HOUR_MS;
        let detail = format!("there is no preview with this id: they are kept for {hours} hours");
        return Err(Problem::new(404, Said::new("preview_unknown", detail).with("hours", hours)));
    };
    match job.status {
        Status::Counting if deps.now() > job.requested_at + deps.settings.scaled(ASK_AGAIN_MS) => {
            // Whoever posted it may have died before the audience was told.
            ask_to_count(deps, munchkin, &job).await?;
        }
        Status::Asking => job = ask(deps, subscription, job, deadline).await?,
        Status::Counting | Status::Done | Status::Failed => {}
    }
    show(deps, subscription, &job).await
}

/// Asks Marketo about some more of the people.
async fn ask(deps: &Deps, subscription: &Subscription, mut job: Preview, deadline: u64) -> Answer<Preview> {
    let munchkin = &subscription.munchkin_id;
    // The first step asks nobody.
    for _ in 0..CALLS_A_REQUEST + usize::from(job.there.is_none()) {
        if job.status != Status::Asking || deps.now() + deps.settings.scaled(RESERVE_MS) > deadline {
            break;
        }
        let learnt = match (&job.there, subscription.refused()) {
            (_, Some(why)) => Err(why.plain()),
            (None, None) => tell_apart(deps, munchkin, &job).await,
            (Some(there), None) => ask_some(deps, munchkin, &job, there, deadline).await?,
        };
        let learnt = match learnt {
            Ok(Some(there)) => Ok(there),
            // Nobody answers now: who polls again asks again.
            Ok(None) => break,
            Err(why) => Err(why),
        };
        let before = job.there.clone();
        let change = |row: &mut Preview| {
            // A poll beside this one has asked about the same people.
            let same = row.there == before && row.status == Status::Asking;
            if same {
                match &learnt {
                    Ok(there) => {
                        row.status = if there.asked < there.sample { Status::Asking } else { Status::Done };
                        row.there = Some(there.clone());
                    }
                    Err(why) => {
                        row.status = Status::Failed;
                        row.why = Some(why.clone());
                    }
                }
            }
            same
        };
        job = change_preview(deps, munchkin, &job, change).await?.unwrap_or(job);
    }
    Ok(job)
}

/// What was learnt; `None`: nothing for now; or why nothing can be.
type Learnt = Result<Option<There>, Said>;

/// Something of ours fails: whoever polls again tries again.
fn later(failure: &Failure) -> Learnt {
    tracing::warn!(reason = %failure, "a preview cannot go on now");
    Ok(None)
}

/// Tells those of whom we know whether they are in the list from those of whom only Marketo knows.
async fn tell_apart(deps: &Deps, munchkin: &MunchkinId, job: &Preview) -> Learnt {
    let apart = async {
        let (Some(list), Some(counted)) = (job.list.id, &job.counted) else { return Ok(There::default()) };
        let people = read_leads(deps, &counted.people_key).await?;
        let state = OpenList::open(deps, munchkin, list).await?.state;
        let made = |sync: &Doc<Sync>| sync.value.list.id == Some(list) && sync.value.list.ours;
        let ours = syncs::syncs(deps, munchkin).await?.iter().any(made) && !state.others_forgotten;
        let mut out = people.and(&state.kept_out);
        out.add_all(&people.and(&state.dropped));
        let rest = people.minus(&out);
        let mut told = rest.and(&state.may);
        told.add_all(&rest.and(&state.theirs));
        let unsure = rest.minus(&told);
        let sample = spread(&unsure, CALLS * MARKETO_BATCH as u64);
        Ok::<There, Failure>(There {
            told: told.len(),
            kept_out: out.len(),
            unsure: unsure.len(),
            ours,
            sample: sample.len(),
            sample_key: write_sample(deps, &sample).await?,
            asked: 0,
            members: 0,
        })
    };
    match apart.await {
        Ok(there) => Ok(Some(there)),
        Err(failure) => later(&failure),
    }
}

async fn write_sample(deps: &Deps, sample: &LeadSet) -> Step<String> {
    // Where objects expire.
    let key = format!("runs/preview/{}", deps.fresh_id());
    deps.ports.objects.put(&key, sample.to_bytes().into()).await?;
    Ok(key)
}

/// At most so many of them, evenly spread: those with low ids have been in Marketo for longest, and in more of its lists.
fn spread(leads: &LeadSet, most: u64) -> LeadSet {
    let len = leads.len();
    if len <= most {
        return leads.clone();
    }
    // The i-th is taken where i * most / len rises: exactly `most` times.
    let rises = |i: u64| (i + 1) * most / len > i * most / len;
    leads.iter().zip(0..).filter(|(_, i)| rises(*i)).map(|(lead, _)| lead).collect()
}

/// Asks about the next people of the sample.
async fn ask_some(deps: &Deps, munchkin: &MunchkinId, job: &Preview, there: &There, deadline: u64) -> Answer<Learnt> {
    let Some(list) = job.list.id else { return Ok(Ok(Some(there.clone()))) };
    let sample = match read_leads(deps, &there.sample_key).await {
        Ok(sample) => sample,
        Err(failure) => return Ok(later(&failure)),
    };
    let asked = usize::try_from(there.asked).unwrap_or(usize::MAX);
    let batch: Vec<LeadId> = sample.iter().skip(asked).take(MARKETO_BATCH).collect();
    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Control);
    let answer = match marketo.slot().await {
        Ok(slot) => marketo.membership(slot, list, &batch).await,
        Err(error) => Err(error),
    };
    Ok(match answer {
        Ok(found) => {
            let members = batch.iter().filter(|lead| found.members.contains(**lead)).count() as u64;
            let asked = there.asked + batch.len() as u64;
            Ok(Some(There { asked, members: there.members + members, ..there.clone() }))
        }
        Err(CallError::Refused { code, .. }) if code == "1013" => Err(LIST_GONE.plain()),
        Err(CallError::Refused { code, request_id }) => {
            Err(MEMBERSHIP_REFUSED.with([("code", code.into()), ("request_id", request_id.into())]))
        }
        // Marketo, or our share of it, is busy.
        Err(CallError::Wait(_) | CallError::Taken(_) | CallError::Unknown(_)) => Ok(None),
        // Others may go on with the preview; whoever polls is told why they may not.
        Err(error @ CallError::ViewersWait { .. }) => return Err(error.into()),
        Err(CallError::Ours(failure)) => later(&failure),
    })
}

/// Calls to Marketo that a sync would make at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls {
    look_ups: u64,
    membership: u64,
    additions: u64,
}

impl Calls {
    /// - Look-ups: 300 tokens a call, of those about which a sync would ask at once.
    /// - Membership: 300 people a call, of those of whom only Marketo knows whether they are in the list; none on a list
    ///   that we made, or would make. An adopted list is read whole besides, whose size nobody knows before.
    /// - Additions: 300 people a call, or a file of some hundred thousand where the subscription's bulk imports take them
    ///   (its state is asked about each half a minute, which is not reckoned).
    ///
    /// People whom the look-ups make known are added besides: how many is what the look-ups tell. A sync that only reports
    /// calls for look-ups alone.
    fn of(job: &Preview, counted: &Counted, there: &There, to_add: u64, import_above: Option<u64>) -> Self {
        let full = |people: u64| people.div_ceil(MARKETO_BATCH as u64);
        let look_ups = full(counted.to_look_up);
        if job.start == Start::ReportOnly {
            return Self { look_ups, membership: 0, additions: 0 };
        }
        let ours = job.list.id.is_none() || there.ours;
        let imported = ours && import_above.is_some_and(|above| to_add > above);
        let additions = if imported { to_add.div_ceil(IMPORT_LEADS as u64) } else { full(to_add) };
        Self { look_ups, membership: if ours { 0 } else { full(there.unsure) }, additions }
    }

    const fn total(self) -> u64 {
        self.look_ups + self.membership + self.additions
    }

    /// Seconds that they take: `total / rate`, where the rate is that of the rolling window of 20 seconds, which is our
    /// share of Marketo's 100 calls (50 where it is a half), or less where Marketo has refused some. Where today's share
    /// has fewer calls left than that takes, the rest of the day and the days after are reckoned ([`Outlook::seconds`]).
    /// Where the additions do not fill a call they wait besides, as every small change does, for a call that the rest of
    /// the day affords.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn seconds(self, to_add: u64, outlook: &Outlook) -> Option<u64> {
        let small = self.additions > 0 && !to_add.is_multiple_of(MARKETO_BATCH as u64);
        let wait = if small { outlook.next_write_in_ms as f64 / 1_000.0 } else { 0.0 };
        Some((outlook.seconds(self.total() as f64)? + wait).ceil() as u64)
    }
}

/// The job as JSON.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
async fn show(deps: &Deps, subscription: &Subscription, job: &Preview) -> Answer<Value> {
    let outlook = outlook(deps, &subscription.munchkin_id).await?;
    let (counted, there) = (job.counted.as_ref(), job.there.as_ref());
    let already = there.and_then(There::already);
    let count = |number: fn(&Counted) -> u64| counted.map(number);
    let to_add = counted.zip(there).zip(already).map(|((counted, there), already)| {
        counted.counts.people.saturating_sub(there.kept_out).saturating_sub(already)
    });
    let calls = counted.zip(there).zip(to_add).map(|((counted, there), to_add)| {
        let calls = Calls::of(job, counted, there, to_add, subscription.bulk_import_above);
        (calls, calls.seconds(to_add, &outlook))
    });
    let (list, why) = (&job.list, job.why.as_ref());
    let mut shown = json!({
        "id": job.id,
        "status": job.status,
        "code": why.and_then(Said::code),
        "why": why.map(Said::as_ref),
        "values": said::values(why),
        "audience_id": job.audience,
        "audience_name": job.audience_name,
        "list": {"id": list.id, "name": list.name, "folder_id": list.folder_id, "new": list.id.is_none()},
        "leaving": job.leaving,
        "members_before": job.members_before,
        "start": job.start,
        "requested_at": time(job.requested_at),
        "as_of": count(|counted| counted.as_of).map(time),
        "browsers": count(|counted| counted.counts.audience),
        "no_match": count(|counted| counted.counts.no_match),
        "set_aside": count(|counted| counted.counts.set_aside),
        "anonymous": count(|counted| counted.counts.anonymous),
        "addressable": count(|counted| counted.counts.addressable()),
        "known": count(|counted| counted.counts.known),
        "people": count(|counted| counted.counts.people),
        "not_asked": count(|counted| counted.not_asked),
        "already_there": already,
        "already_there_asked": there.map_or(0, |there| there.asked),
        "kept_out": there.map(|there| there.kept_out),
        "to_add": to_add,
        "calls": calls.map(|(calls, _)| json!({
            "look_ups": calls.look_ups,
            "membership": calls.membership,
            "additions": calls.additions,
            "total": calls.total(),
        })),
        "seconds": calls.and_then(|(_, seconds)| seconds),
        "left_today": outlook.left as u64,
        "campaigns": "each person added or removed fires every campaign that listens to this list",
    });
    if there.is_some_and(|there| there.asked < there.unsure) {
        shown["to_add_is_estimate"] = json!(true);
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_evenly_and_exactly_as_large_as_it_may_be() {
        let all: LeadSet = (1..=1_000).collect();
        assert_eq!(spread(&all, 1_000), all);
        let some: Vec<LeadId> = spread(&all, 7).iter().collect();
        assert_eq!(some.len(), 7);
        assert!(some.windows(2).all(|pair| (142..=144).contains(&(pair[1] - pair[0]))), "{some:?}");
        assert_eq!(spread(&(1..=3).collect(), 2).len(), 2);
    }
}
