//! The report of a sync: the stored result of one pass, with one `as_of`.

use domain::limits::LATE_EFFECT_MS;
use domain::list::{Refusal, Wishes};
use domain::report::{MemberCounts, account};
use domain::{LeadId, LeadSet};
use marketo::{CallError, Marketo};
use ports::{Failure, Table};
use state::bell::Next;
use state::budget::{self, Purpose};
use state::lists::{OpenList, REFUSED_NAMED, RefusedPerson, Report, Want, read_leads, report_key};
use state::runs::{HISTORY_GRAIN_MS, Size, save_size};
use state::syncs::Sync;
use state::{Deps, Step, update};

use crate::reading::Asking;

/// A list rests this long between two reports for each call that reading it takes, in ms: under two per cent of half a
/// day's quota, whatever the list's size.
const REST_PER_CALL_MS: u64 = 180_000;

/// A visit to a list that gathers small changes takes about so many calls: one adds, one removes.
const CALLS_PER_VISIT: u64 = 2;

/// What the reports of a list are made of.
pub(crate) struct Reporting<'a> {
    pub(crate) deps: &'a Deps,
    pub(crate) marketo: Marketo<'a>,
    pub(crate) syncs: &'a [Sync],
    pub(crate) wishes: &'a Wishes,
    pub(crate) wants: &'a [Option<Want>],
    pub(crate) deadline: u64,
    /// Until then (ms) a first load comes in stages.
    pub(crate) looked_until: u64,
}

/// Whether the sizes of a report are kept: one an hour. A report of the same pass may be our own, of somebody who died
/// before they were written; the row is the hour's in any case.
const fn is_kept(before: &Report, report: &Report) -> bool {
    before.as_of / HISTORY_GRAIN_MS != report.as_of / HISTORY_GRAIN_MS || before.pass == report.pass
}

fn size(report: &Report) -> Size {
    let Report { as_of, audience, people, members, .. } = report;
    Size {
        v: 1,
        at: *as_of,
        browsers: audience.audience,
        addressable: audience.addressable(),
        known: audience.known,
        people: audience.people,
        in_list: Some(people.ours + people.before_us),
        members: members.as_ref().map(MemberCounts::total),
    }
}

impl Reporting<'_> {
    /// Writes the reports of the syncs whose audience has had a pass since the last one. The list's members are read
    /// once, and only then, or where an operator asks (`verify_all`); the reading is compared with what we know.
    /// `lists`: how many lists share the day's calls. Returns when to come back for reports that wait.
    pub(crate) async fn write(&self, open: &mut OpenList, lists: usize, verify_all: bool) -> Result<Next, CallError> {
        let deps = self.deps;
        let mut members = None;
        if verify_all {
            members = self.read_members(open).await?;
            if members.is_none() {
                return Ok(Next::Again);
            }
        }
        let mut waiting = None;
        for (sync, want) in self.syncs.iter().zip(self.wants) {
            let Some(want) = want.as_ref().filter(|_| sync.follows()) else { continue };
            let due = open.head.report_is_due(sync, want, deps.now());
            // After the first stage of a load the next report comes when the load is over: reading a list that grows
            // would take the calls that fill it.
            let stage = deps.now() < self.looked_until
                && open.head.reported.contains_key(&sync.id)
                && !open.state.loaded.contains(&sync.id)
                && sync.run_pass.is_none();
            if (!due || stage) && members.is_none() {
                if open.head.is_unreported(sync, want) {
                    let at = if stage { self.looked_until } else { open.head.report_at };
                    waiting = Some(waiting.map_or(at, |other: u64| other.min(at)));
                }
                continue;
            }
            let members = match &members {
                Some(members) => members,
                None => match self.read_members(open).await? {
                    Some(all) => members.insert(all),
                    None => return Ok(Next::Again),
                },
            };
            let report = self.report(open, want, members, lists).await?;
            let key = report_key(&open.munchkin, &sync.id);
            let mut new_size = true;
            let replaced = update(
                deps,
                Table::Lists,
                &key,
                |found: Option<Report>| {
                    new_size = found.as_ref().is_none_or(|found| is_kept(found, &report));
                    Ok((Some(report.clone()), found.and_then(|found| found.refused_key)))
                },
                |_| None,
            )
            .await?;
            if new_size {
                save_size(deps, &open.munchkin, &sync.id, &size(&report)).await?;
            }
            if let Some(replaced) = replaced.filter(|key| Some(key) != report.refused_key.as_ref()) {
                deps.ports.objects.delete(&replaced).await.map_err(Failure::from)?;
            }
            open.head.reported.insert(sync.id.clone(), want.pass);
        }
        if let Some(members) = &members {
            let calls = members.len() / 300 + 1;
            open.head.report_at = deps.now() + calls * deps.settings.scaled(REST_PER_CALL_MS);
            waiting = waiting.map(|at: u64| at.max(open.head.report_at));
        }
        Ok(Next::Done(waiting))
    }

    /// Reads all members; who is missing or too many is doubted. `None`: there is more to read.
    async fn read_members(&self, open: &mut OpenList) -> Result<Option<LeadSet>, CallError> {
        let deps = self.deps;
        let munchkin = open.munchkin.clone();
        let asking = Asking {
            deps,
            marketo: self.marketo.calling_for(Purpose::Bulk),
            munchkin: &munchkin,
            list: open.head.list,
            deadline: self.deadline,
        };
        let Some(members) = asking.read_on(&mut open.head.reading, "id").await? else { return Ok(None) };
        let members = members.all;
        open.state.compared(&members, deps.settings.scaled(LATE_EFFECT_MS), deps.now());
        if open.state.comparison.as_ref().is_some_and(|comparison| comparison.job.is_none()) {
            open.state.comparison = None;
        }
        Ok(Some(members))
    }

    async fn report(&self, open: &OpenList, want: &Want, members: &LeadSet, lists: usize) -> Step<Report> {
        let deps = self.deps;
        let people = read_leads(deps, &want.report.people_key).await?;
        let of_audience = |lead: &&LeadId| people.contains(**lead) && !members.contains(**lead);
        let refused = open.state.failed.keys().filter(of_audience).filter_map(|lead| {
            let Refusal { code, at, request_id } = open.state.failed.get(lead)?.clone();
            let sentence = marketo::class::sentence(&code).to_owned();
            Some(RefusedPerson { lead: *lead, code, request_id, at, sentence })
        });
        let mut refused: Vec<RefusedPerson> = refused.collect();
        let mut refused_key = None;
        if refused.len() > REFUSED_NAMED {
            let key = format!("sets/refused/{}", deps.fresh_id());
            let bytes = serde_json::to_vec(&refused).map_err(|_| Failure::fail("a report cannot be written"))?;
            deps.ports.objects.put(&key, bytes.into()).await?;
            refused_key = Some(key);
            refused.truncate(REFUSED_NAMED);
        }
        let (people, members) = account(&people, members, &open.state, self.wishes);
        let standing = budget::standing(deps, &open.munchkin).await?;
        let visit = standing.between_writes_ms * CALLS_PER_VISIT * lists.max(1) as u64;
        Ok(Report {
            v: 1,
            as_of: deps.now(),
            pass: want.pass,
            audience: want.report.counts.clone(),
            people,
            members: Some(members),
            refused,
            refused_key,
            freshness_seconds: visit.max(standing.next_write_in_ms) / 1_000,
        })
    }
}
