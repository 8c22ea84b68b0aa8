//! Looks whether the list is as we know it. Whoever is missing or too many is doubted first, and Marketo is asked about
//! them once any call of ours is over: a person is never called taken out, or added, by hand on account of one look.

use domain::limits::{DAY_MS, LATE_EFFECT_MS, MARKETO_BATCH};
use domain::list::{Comparison, Wishes};
use domain::{LeadId, LeadSet};
use marketo::class::Class;
use marketo::{CallError, ExtractStatus, Marketo, Membership, parse_extract};
use state::Deps;
use state::budget::Purpose;
use state::lists::OpenList;

use crate::bulk::is_refused;

/// People who are looked at once a day (issue: "1,000 people of each list").
const SAMPLE: u64 = 1_000;
/// Calls for doubtful people in one turn; the rest waits for the next.
const CALLS: usize = 4;
/// A list of more of our people than this is compared by bulk extract. Ours: a hundred pages.
const EXTRACT_ABOVE: u64 = 30_000;
/// An extract is asked about no more often than this, in ms (Marketo, "bulk extract": its state changes each 60 s).
const EXTRACT_POLL_MS: u64 = 60_000;

/// Asks Marketo about the people whose membership is doubtful.
pub(crate) async fn doubts(
    deps: &Deps,
    marketo: Marketo<'_>,
    open: &mut OpenList,
    wishes: &Wishes,
) -> Result<(), CallError> {
    if wishes.rests() {
        return Ok(());
    }
    for _ in 0..CALLS {
        let asked = open.state.doubtful(deps.now(), MARKETO_BATCH);
        if asked.is_empty() {
            return Ok(());
        }
        let found = ask(marketo, open.head.list, &asked).await?;
        open.state.asked(&asked, &found.members, &found.not_members, &wishes.wanted());
    }
    Ok(())
}

/// When the next sample is due, in ms; `None`: there is nobody to look at.
pub(crate) fn sample_at(deps: &Deps, open: &OpenList, wishes: &Wishes) -> Option<u64> {
    let some = !open.state.sure.is_empty() && !wishes.rests();
    some.then(|| open.head.verified_at + deps.settings.scaled(DAY_MS))
}

/// Has a sample taken as soon as the calls of a load are over for certain.
pub(crate) fn soon(deps: &Deps, open: &mut OpenList) {
    let (late, day) = (deps.settings.scaled(LATE_EFFECT_MS), deps.settings.scaled(DAY_MS));
    open.head.verified_at = (deps.now() + late).saturating_sub(day);
}

/// Once a day, and after a load: looks at some of those whom we know we put there.
pub(crate) async fn sample(
    deps: &Deps,
    marketo: Marketo<'_>,
    open: &mut OpenList,
    wishes: &Wishes,
) -> Result<(), CallError> {
    if sample_at(deps, open, wishes).is_none_or(|at| at > deps.now()) {
        return Ok(());
    }
    let sample = some_of(&open.state.sure, SAMPLE, deps.ports.random.next_u64());
    for part in sample.chunks(MARKETO_BATCH) {
        let found = ask(marketo.calling_for(Purpose::Bulk), open.head.list, part).await?;
        let missing: Vec<LeadId> =
            found.not_members.iter().filter(|lead| !open.state.hold.contains_key(lead)).collect();
        open.state.doubt(missing, deps.settings.scaled(LATE_EFFECT_MS), deps.now());
    }
    open.head.verified_at = deps.now();
    Ok(())
}

/// How the whole list is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Nobody asked for it, or it is done.
    No,
    /// Its members are to be read page by page.
    ByPages,
    /// An extract is under way: look again at this time, in ms.
    At(u64),
}

/// Goes on with the comparison of the whole list that an operator asked for: of a long one by bulk extract.
pub(crate) async fn whole(deps: &Deps, marketo: Marketo<'_>, open: &mut OpenList) -> Result<Whole, CallError> {
    let Some(comparison) = &open.state.comparison else { return Ok(Whole::No) };
    let short = open.state.sure.len() <= EXTRACT_ABOVE;
    if comparison.by_pages || (comparison.job.is_none() && short) {
        return Ok(Whole::ByPages);
    }
    let job = comparison.job.clone();
    // A handful of calls, so that nobody else feels them.
    let marketo = marketo.calling_for(Purpose::Poll);
    let gone = |error: &CallError| job.is_none() && error.class() == Some(Class::StopSync);
    match extract(deps, marketo, open, job.as_deref()).await {
        Err(error) if is_refused(&error) && !gone(&error) => Ok(by_pages(open, &error.to_string())),
        other => other,
    }
}

fn by_pages(open: &mut OpenList, why: &str) -> Whole {
    tracing::warn!(list.id = open.head.list, why, "the extract of a list went wrong: its members are read by pages");
    open.state.comparison = Some(Comparison { by_pages: true, ..Comparison::default() });
    Whole::ByPages
}

/// One step of the extract.
async fn extract(
    deps: &Deps,
    marketo: Marketo<'_>,
    open: &mut OpenList,
    job: Option<&str>,
) -> Result<Whole, CallError> {
    let poll = deps.settings.scaled(EXTRACT_POLL_MS);
    let Some(job) = job else {
        let job = marketo.create_list_extract(marketo.slot().await?, open.head.list).await?;
        open.state.extracting(job.clone(), deps.now());
        marketo.enqueue_extract(marketo.slot().await?, &job).await?;
        return Ok(Whole::At(deps.now() + poll));
    };
    let polled_at = open.state.comparison.as_ref().map_or(0, |comparison| comparison.polled_at);
    if polled_at + poll > deps.now() {
        return Ok(Whole::At(polled_at + poll));
    }
    let status = marketo.extract_status(marketo.slot().await?, job).await?;
    if let Some(comparison) = &mut open.state.comparison {
        comparison.polled_at = deps.now();
    }
    match status {
        // Its queue was full.
        ExtractStatus::Created => marketo.enqueue_extract(marketo.slot().await?, job).await?,
        ExtractStatus::Pending => {}
        ExtractStatus::Failed => return Ok(by_pages(open, "it failed")),
        ExtractStatus::Completed { bytes } => {
            let file = marketo.extract_file(marketo.slot().await?, job, bytes).await?;
            let members: LeadSet = parse_extract(&file).into_iter().map(|row| row.id).collect();
            if members.is_empty() {
                return Ok(by_pages(open, "it names nobody"));
            }
            open.state.extracted(&members, deps.settings.scaled(LATE_EFFECT_MS), deps.now());
            return Ok(Whole::No);
        }
    }
    Ok(Whole::At(deps.now() + poll))
}

async fn ask(marketo: Marketo<'_>, list: u64, leads: &[LeadId]) -> Result<Membership, CallError> {
    marketo.membership(marketo.slot().await?, list, leads).await
}

/// Every k-th from a chance beginning, so that at most `many` are taken.
pub(crate) fn some_of(leads: &LeadSet, many: u64, chance: u64) -> Vec<LeadId> {
    let step = leads.len().div_ceil(many).max(1);
    let from = chance % step;
    leads.iter().zip(0u64..).filter(|(_, index)| index % step == from).map(|(lead, _)| lead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_right_size_and_reaches_everybody_some_day() {
        let leads: LeadSet = (1..=2_500).collect();
        let samples: Vec<Vec<LeadId>> = (0..3).map(|chance| some_of(&leads, 1_000, chance)).collect();
        assert!(samples.iter().all(|sample| (833..=834).contains(&sample.len())));
        let all: LeadSet = samples.into_iter().flatten().collect();
        assert_eq!(all.len(), 2_500);
        assert_eq!(some_of(&(1..=7).collect(), 1_000, 5).len(), 7);
        assert!(some_of(&LeadSet::new(), 1_000, 5).is_empty());
    }
}
