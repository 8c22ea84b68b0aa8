//! The report of a sync: the stored result of one pass, with one `as_of`.

use domain::report::account;
use marketo::{CallError, Marketo};
use ports::Table;
use state::bell::Next;
use state::lists::{OpenList, Report, Want, read_leads, report_key};
use state::syncs::Sync;
use state::{Deps, update};

/// A list rests this long between two reports for each call that reading it takes, in ms: under two per cent of half a
/// day's quota, whatever the list's size.
const REST_PER_CALL_MS: u64 = 180_000;

/// Writes the reports of the syncs whose audience has had a pass since the last one. The list's members are read
/// once, and only then. Returns when to come back for reports that wait.
pub(crate) async fn write(
    deps: &Deps,
    marketo: &Marketo<'_>,
    open: &mut OpenList,
    syncs: &[Sync],
    wishes: &domain::list::Wishes,
    wants: &[Option<Want>],
) -> Result<Next, CallError> {
    let mut members = None;
    let mut waiting = false;
    for (sync, want) in syncs.iter().zip(wants) {
        let Some(want) = want.as_ref().filter(|_| sync.follows()) else { continue };
        if !open.head.report_is_due(sync, want, deps.now()) {
            waiting |= open.head.is_unreported(sync, want);
            continue;
        }
        let members = match &members {
            Some(members) => members,
            None => members.insert(marketo.members(open.head.list).await?),
        };
        let people = read_leads(deps, &want.report.people_key).await?;
        let (people, members) = account(&people, members, &open.state, wishes);
        let report = Report {
            v: 1,
            as_of: deps.now(),
            pass: want.pass,
            audience: want.report.counts.clone(),
            people,
            members: Some(members),
            refused: Vec::new(),
            freshness_seconds: 0,
        };
        let key = report_key(&open.munchkin, &sync.id);
        update(deps, Table::Lists, &key, |_: Option<Report>| Ok((Some(report.clone()), ())), |_| None).await?;
        open.head.reported.insert(sync.id.clone(), want.pass);
    }
    if let Some(members) = &members {
        let calls = members.len() / 300 + 1;
        open.head.report_at = deps.now() + calls * deps.settings.scaled(REST_PER_CALL_MS);
    }
    Ok(Next::Done(waiting.then_some(open.head.report_at)))
}
