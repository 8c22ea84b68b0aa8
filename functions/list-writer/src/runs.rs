//! Notes what a run did, in the list's head: counts are stored together with the state that they describe.
//!
//! A run begins with the first call that changes the list, or when somebody is refused or a mass change is held. Calls
//! that only look (a report that comes later, the daily sample) are of no run, unless an operator asked for them. It ends
//! when nothing is left to do, or when the list rests for longer than [`REST_MS`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::list::{Answer, Refusal};
use marketo::CallError;
use state::bell::Next;
use state::lists::{ListHead, OpenList};
use state::runs::{NO_CLEAR_ANSWER, Run, save_run};
use state::syncs::{Status, Sync};
use state::{Cause, Causes, Deps, Step};

/// A run is over when its list rests for longer than this, in ms. Ours: longer than one rests between two looks at a bulk
/// import, or after Marketo was silent.
const REST_MS: u64 = 5 * 60_000;

/// Notes what one handling of a list does.
#[derive(Debug)]
pub(crate) struct Recorder {
    syncs: BTreeSet<String>,
    why: Causes,
    /// Calls that are in no run yet.
    calls: AtomicU64,
}

impl Recorder {
    /// For the syncs of a list; `why` it is handled.
    pub(crate) fn new(syncs: &[Sync], why: Causes) -> Self {
        let ids = |of: &dyn Fn(&Sync) -> bool| -> BTreeSet<String> {
            syncs.iter().filter(|sync| of(sync)).map(|sync| sync.id.clone()).collect()
        };
        let mut taking_part = ids(&|sync| sync.status != Status::StoppedKeeping);
        if taking_part.is_empty() {
            // People are erased from a list whose syncs are all over.
            taking_part = ids(&|_| true);
        }
        Self { syncs: taking_part, why, calls: AtomicU64::new(0) }
    }

    /// Where Marketo's client counts.
    pub(crate) const fn calls(&self) -> &AtomicU64 {
        &self.calls
    }

    /// The run under way, or a new one. Its number follows from the stored head: whoever dies before that is written
    /// begins the same run again.
    fn run<'a>(&self, deps: &Deps, head: &'a mut ListHead) -> &'a mut Run {
        if head.run.is_none() {
            head.runs += 1;
        }
        let (number, list) = (head.runs, head.list);
        let run = head.run.get_or_insert_with(|| Run { v: 1, number, list, began_at: deps.now(), ..Run::default() });
        run.syncs.extend(self.syncs.iter().cloned());
        run.causes.extend(&self.why);
        run.calls += self.calls.swap(0, Ordering::Relaxed);
        run
    }

    /// Calls that change the list are about to go out.
    pub(crate) fn begin(&self, deps: &Deps, head: &mut ListHead) {
        self.run(deps, head);
    }

    /// A clear answer for one person.
    pub(crate) fn answered(&self, deps: &Deps, head: &mut ListHead, adding: bool, answer: &Answer) {
        match answer {
            Answer::Done if adding => self.run(deps, head).added += 1,
            Answer::Done => self.run(deps, head).removed += 1,
            Answer::Refused(refusal) => self.refused(deps, head, refusal),
        }
    }

    /// People came into the list by a bulk import.
    pub(crate) fn imported(&self, deps: &Deps, head: &mut ListHead, people: u64) {
        self.run(deps, head).added += people;
    }

    /// Somebody was refused.
    pub(crate) fn refused(&self, deps: &Deps, head: &mut ListHead, refusal: &Refusal) {
        let run = self.run(deps, head);
        run.refused += 1;
        run.failed(&refusal.code, &refusal.request_id);
    }

    /// A mass change of so many people is held from now on.
    pub(crate) fn held(&self, deps: &Deps, head: &mut ListHead, people: u64) {
        self.run(deps, head).held = people;
    }

    /// A call went wrong. What only has to wait did not.
    pub(crate) fn failed(&self, deps: &Deps, head: &mut ListHead, error: &CallError) {
        match error {
            CallError::Refused { code, request_id } => self.run(deps, head).failed(code, request_id),
            CallError::Unknown(_) => self.run(deps, head).failed(NO_CLEAR_ANSWER, ""),
            CallError::Wait(_) | CallError::ViewersWait { .. } | CallError::Taken(_) | CallError::Ours(_) => {}
        }
    }

    /// Before the head is written: takes in the calls, and ends the run if nothing is left to do. The run's row is written
    /// first; whoever dies before the head is written goes on with the run, and writes the row once more.
    pub(crate) async fn close(&self, deps: &Deps, open: &mut OpenList, next: Option<Next>) -> Step<()> {
        let asked = self.why.contains(&Cause::ByHand) && self.calls.load(Ordering::Relaxed) > 0;
        if open.head.run.is_none() && !asked {
            return Ok(());
        }
        let now = deps.now();
        let run = self.run(deps, &mut open.head);
        let over = match next {
            Some(Next::Done(_)) => true,
            Some(Next::Rest(until)) => until > now + deps.settings.scaled(REST_MS),
            Some(Next::Again) | None => false,
        };
        if over {
            run.ended_at = Some(now);
            save_run(deps, &open.munchkin, run).await?;
            open.head.run = None;
        }
        Ok(())
    }
}
