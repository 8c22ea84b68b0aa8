//! Big loads by bulk import: one job at a time a list, and only lists that we made
//! (`infra/docs/decisions/17-bulk-import-on-our-own-lists.md`).
//!
//! The order is that of every call: the intent is stored before the job is started, and nobody of a job that runs, or
//! of which nobody knows whether it runs, is removed. What Marketo does with a file of ids alone is not documented, so a
//! job's word is checked; where it is not good enough, additions go by ordinary calls for a day.

use domain::LeadSet;
use domain::limits::{DAY_MS, MARKETO_BATCH};
use domain::list::{Plan, State};
use marketo::class::{Class, LATER_MS};
use marketo::{CallError, IMPORT_LEADS, Import, ImportId, ImportState, MARGIN_MS};
use state::budget::Purpose;
use state::lists::OpenList;

use crate::verify::some_of;
use crate::write::Writer;

/// A job is asked about no more often than this, in ms (Marketo, "bulk lead import": every 5 to 30 s).
const POLL_MS: u64 = 30_000;
/// A job of unknown outcome is over after this, in ms, and a known one that still runs leaves its people to ordinary
/// calls. Ours: Marketo names no limit; two run and ten wait, and one takes minutes.
const FORGOTTEN_MS: u64 = DAY_MS;
/// Where more than one in so many of a job's people failed, it is the file that is not understood. Ours.
const TRUSTED_ONE_IN: u64 = 10;

/// Whether Marketo refused this one request, not us as a whole.
pub(crate) fn is_refused(error: &CallError) -> bool {
    matches!(error, CallError::Refused { .. }) && !matches!(error.class(), Some(Class::Alarm | Class::RetryThenAlarm))
}

impl Writer<'_> {
    /// Looks after the job under way, and starts one where more additions wait than the subscription's setting. Returns
    /// when to look again, in ms; `None`: there is no job, and additions go by ordinary calls.
    pub(crate) async fn import(&self, open: &mut OpenList) -> Result<Option<u64>, CallError> {
        if let Some(import) = &open.state.import {
            let Some(id) = import.id else {
                if import.until <= self.deps.now() {
                    open.state.imported(None);
                }
                return Ok(None);
            };
            let due = import.polled_at + self.deps.settings.scaled(POLL_MS);
            if due > self.deps.now() {
                return Ok(Some(due));
            }
            if let Some(due) = self.poll(open, id).await? {
                return Ok(Some(due));
            }
        }
        let now = self.deps.now();
        let plan = open.state.plan(self.wishes, now);
        if open.state.held.is_some() || !self.goes_by_import(&open.state, &plan, now) {
            return Ok(None);
        }
        if now + self.deps.settings.scaled(MARGIN_MS) > self.deadline {
            return Ok(Some(now));
        }
        self.start(open, plan.add.iter().take(IMPORT_LEADS).collect()).await
    }

    /// Whether the additions of a plan are too many for ordinary calls.
    pub(crate) fn goes_by_import(&self, state: &State, plan: &Plan, now: u64) -> bool {
        let free = state.import.as_ref().is_none_or(|import| import.is_under_way(now));
        let many = self.import_above.is_some_and(|above| plan.add.len() > above);
        self.ours && free && many && state.no_import_before <= now
    }

    /// Starts a job. Returns when to look again; `None`: go on by ordinary calls.
    async fn start(&self, open: &mut OpenList, leads: LeadSet) -> Result<Option<u64>, CallError> {
        let (deps, list) = (self.deps, open.head.list);
        let marketo = self.marketo.calling_for(Purpose::Bulk);
        let slot = match marketo.slot().await {
            Ok(slot) => slot,
            // Removals and small changes need not wait for that.
            Err(CallError::Wait(until)) => return Ok(Some(self.soon(until))),
            Err(error) => return Err(error),
        };
        let now = deps.now();
        open.state.count(&leads.iter().collect::<Vec<_>>(), true, self.wishes, now);
        open.state.intend_import(leads.clone(), now, now + deps.settings.scaled(FORGOTTEN_MS));
        // A sync that keeps its people keeps them from the moment of the intent.
        open.state.settle(self.wishes);
        self.recorder.begin(deps, &mut open.head);
        open.publish(deps).await?;
        let error = match marketo.start_import(slot, list, &leads).await {
            Ok(id) => {
                if let Some(import) = &mut open.state.import {
                    import.id = Some(id);
                }
                // At once: without its number the job is an unknown one.
                open.publish(deps).await?;
                tracing::info!(list.id = list, import.people = leads.len(), "a bulk import was started");
                return Ok(Some(now + deps.settings.scaled(POLL_MS)));
            }
            Err(error @ CallError::Unknown(_)) => {
                self.recorder.failed(deps, &mut open.head, &error);
                tracing::warn!(list.id = list, "a bulk import may or may not have been started");
                return Ok(None);
            }
            Err(error) => error,
        };
        open.state.take_back_import();
        match error {
            CallError::Wait(until) => Ok(Some(self.soon(until))),
            error if is_refused(&error) && error.class() != Some(Class::StopSync) => {
                self.recorder.failed(deps, &mut open.head, &error);
                self.without_imports(open, &error.to_string());
                Ok(None)
            }
            error => Err(error),
        }
    }

    /// What is left for big loads may be used up for the day: the list is looked at before that all the same.
    fn soon(&self, until: u64) -> u64 {
        until.min(self.deps.now() + self.deps.settings.scaled(LATER_MS))
    }

    /// Asks how the job goes. Returns when to ask again; `None`: it is over.
    async fn poll(&self, open: &mut OpenList, id: ImportId) -> Result<Option<u64>, CallError> {
        let marketo = self.marketo.calling_for(Purpose::Poll);
        let status = match marketo.import_status(marketo.slot().await?, id).await {
            Ok(status) => status,
            Err(error) if is_refused(&error) => {
                // Marketo does not know it, or not any more: it is an unknown job from here on.
                if let Some(import) = &mut open.state.import {
                    import.id = None;
                }
                self.without_imports(open, &error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let now = self.deps.now();
        if let Some(import) = &mut open.state.import {
            import.polled_at = now;
        }
        if status.state == ImportState::Running {
            return Ok(Some(now + self.deps.settings.scaled(POLL_MS)));
        }
        let unsure = self.unsure(open, id, status).await?;
        let unsure_people = unsure.as_ref().map(LeadSet::len);
        let before = open.state.sure.len();
        open.state.imported(unsure.as_ref());
        self.recorder.imported(self.deps, &mut open.head, open.state.sure.len().saturating_sub(before));
        if unsure.is_none() {
            self.without_imports(open, "it failed, or its people are not in the list");
        }
        let (list, people) = (open.head.list, status.processed);
        tracing::info!(
            list.id = list,
            import.people = people,
            import.unsure = unsure_people,
            "a bulk import has ended"
        );
        Ok(None)
    }

    /// Additions go by ordinary calls for a day.
    fn without_imports(&self, open: &mut OpenList, why: &str) {
        open.state.no_import_before = self.deps.now() + self.deps.settings.scaled(DAY_MS);
        tracing::error!(list.id = open.head.list, why, "no bulk import into this list for a day");
    }

    /// Those of an ended job of whom Marketo does not say that they are in the list: they failed, were taken with a
    /// warning, or are found not to be members. An ordinary call tells why, with Marketo's code. `None`: all of them.
    async fn unsure(&self, open: &OpenList, id: ImportId, status: Import) -> Result<Option<LeadSet>, CallError> {
        let Some(import) = &open.state.import else { return Ok(None) };
        // People who were merged or deleted meanwhile are not among the leads any more.
        let all_read = status.processed + status.failed >= import.leads.len();
        if status.state == ImportState::Failed || !all_read {
            return Ok(None);
        }
        let marketo = self.marketo.calling_for(Purpose::Poll);
        let mut unsure = LeadSet::new();
        for (failed, rows) in [(true, status.failed), (false, status.warned)] {
            if rows == 0 {
                continue;
            }
            let slot = marketo.slot().await?;
            let file =
                if failed { marketo.import_failures(slot, id).await } else { marketo.import_warnings(slot, id).await };
            let file: LeadSet = match file {
                Ok(file) => file.into_iter().map(|(lead, _)| lead).collect(),
                Err(error) if is_refused(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            if file.len() < rows {
                // Some rows cannot be read back to people.
                return Ok(None);
            }
            unsure.add_all(&file);
        }
        let too_many = |some: &LeadSet, of: u64| some.len() * TRUSTED_ONE_IN > of;
        unsure = unsure.and(&import.leads);
        if too_many(&unsure, import.leads.len()) {
            return Ok(None);
        }
        let some = some_of(&import.leads.minus(&unsure), MARKETO_BATCH as u64, self.deps.ports.random.next_u64());
        if some.is_empty() {
            return Ok(Some(unsure));
        }
        let found = marketo.membership(marketo.slot().await?, open.head.list, &some).await?;
        if too_many(&found.not_members, some.len() as u64) {
            return Ok(None);
        }
        unsure.add_all(&found.not_members);
        Ok(Some(unsure))
    }
}
