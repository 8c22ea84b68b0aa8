//! Erases people: forgets what ties them to browsers, waits until no audience wants them on that account, and has
//! them taken out of the lists. Each step can be repeated: the job's row says how far it is, and what is forgotten stays
//! forgotten by the marks that the records keep.

use std::collections::BTreeSet;

use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::{HOUR_MS, MARKETO_BATCH};
use domain::planted::{Guard, holds};
use domain::{Ecid, LeadId, LeadSet, ListId, Token};
use marketo::CallError;
use ports::{Failure, Table};
use state::audience::Members;
use state::edges::{forget_notes, note, note_gone, want};
use state::erase::{Job, Phase, Subject, answers, open_jobs, save_job};
use state::identity::{erase_ecid, hints_of_ecid, hints_of_lead, leads, save_lead, save_token, tokens};
use state::lists::{Want, heads, read_leads, want_key, write_leads};
use state::notes::{self, Note};
use state::syncs::change_sync;
use state::{Doc, Step, doc, save, syncs};

use super::Worker;
use crate::look::is_wanted;

/// How often an erasure that waits for others is looked at, in ms.
const LOOK_AGAIN_MS: u64 = 10_000;
/// By this time after a merge, in ms, the activity log is taken to tell of it. Ours: Marketo documents no such time.
const MERGE_NEWS_MS: u64 = 60_000;

/// What ties the person, as it was found.
#[derive(Default)]
struct Ties {
    tokens: BTreeSet<Token>,
    ecids: BTreeSet<Ecid>,
    people: LeadSet,
}

/// Notes of what changed are read for so long before others have their turn, in ms. Ours.
const NOTES_MS: u64 = 15_000;

impl Worker<'_> {
    /// Goes on with the erasures. Returns when to look again, in ms.
    pub(super) async fn erase(&mut self) -> Result<Option<u64>, CallError> {
        let now = self.deps.now();
        let mut next = None::<u64>;
        for mut job in open_jobs(self.deps, self.munchkin).await? {
            if job.value.look_at <= now && !self.late() {
                match self.go_on(&mut job).await {
                    Ok(()) => {}
                    Err(CallError::Wait(until)) => return Err(CallError::Wait(until)),
                    // One that cannot be carried out now must not keep the others, and the look-ups, from their turn.
                    Err(error) => {
                        tracing::warn!(erasure.id = %job.value.id, error = %error, "an erasure does not get on");
                    }
                }
            }
            if job.value.phase != Phase::Done {
                next = Some(next.map_or(job.value.look_at, |at| at.min(job.value.look_at)));
            }
        }
        Ok(next)
    }

    async fn go_on(&mut self, job: &mut Doc<Job>) -> Result<(), CallError> {
        // Whatever becomes of it: looked at again, the later the longer it has waited.
        let now = self.deps.now();
        let waited = now.saturating_sub(job.value.requested_at) / 4;
        let pause = waited.clamp(self.deps.settings.scaled(LOOK_AGAIN_MS), self.deps.settings.scaled(HOUR_MS));
        job.value.look_at = now + pause;
        self.save_job(job).await?;
        if job.value.phase == Phase::Forgetting {
            self.forget(job).await?;
            self.tell_audiences().await?;
        }
        if job.value.phase == Phase::Leaving {
            self.leave(job).await?;
        }
        if job.value.phase == Phase::Lists {
            self.confirm(job).await?;
        }
        Ok(())
    }

    async fn save_job(&self, job: &mut Doc<Job>) -> Step<()> {
        if !save_job(self.deps, self.munchkin, &job.value, Some(job.rev)).await? {
            return Err(Failure::retry("an erasure is carried out by somebody else"));
        }
        job.rev += 1;
        Ok(())
    }

    async fn forget(&mut self, job: &mut Doc<Job>) -> Result<(), CallError> {
        let at = job.value.requested_at;
        let Some(subject) = job.value.subject.clone() else {
            return Err(Failure::fail("an erasure without a subject").into());
        };
        if let Subject::Ecid(ecid) = &subject {
            // The mark first: whoever stores a match of it from now on sees the mark, or is seen by us.
            erase_ecid(self.deps, self.munchkin, *ecid, at).await?;
        }
        let ties = self.ties(&subject).await?;
        // Who they are is written down before what ties them is forgotten.
        job.value.people.add_all(&ties.people);
        let heirs = self.survivors(&job.value.people).await?;
        job.value.people.add_all(&heirs);
        job.value.tokens = job.value.tokens.max(ties.tokens.len() as u64);
        job.value.ecids = job.value.ecids.max(ties.ecids.len() as u64);
        self.save_job(job).await?;
        if !matches!(subject, Subject::Ecid(_)) {
            let until = self.deps.now() + self.deps.settings.scaled(NOTES_MS);
            let notes = job.value.notes.take();
            job.value.notes = forget_notes(self.deps, self.munchkin, &ties.tokens, notes, until).await?;
            if job.value.notes.is_some() {
                return Ok(self.save_job(job).await?);
            }
        }
        for token in &ties.tokens {
            self.forget_token(token, &subject, at).await?;
        }
        match &subject {
            Subject::Token(_) => {}
            Subject::Ecid(ecid) => {
                // Also those for whom Marketo's word is being written at this moment: it loses against the mark.
                let hinted = hints_of_ecid(self.deps, self.munchkin, *ecid).await?.leads;
                for lead in job.value.people.iter().chain(hinted).collect::<BTreeSet<LeadId>>() {
                    self.forget_lead(lead, |record| record.erase_ecid(*ecid)).await?;
                }
            }
            Subject::Leads(_) => {
                for lead in job.value.people.clone().iter() {
                    self.forget_lead(lead, |record| record.erase(at)).await?;
                }
            }
        }
        // The edges that passes join tell of them, too.
        want(self.deps, self.munchkin, None).await?;
        job.value.phase = Phase::Leaving;
        Ok(self.save_job(job).await?)
    }

    /// What ties the subject to people and browsers.
    async fn ties(&self, subject: &Subject) -> Result<Ties, CallError> {
        let mut ties = Ties::default();
        match subject {
            Subject::Leads(leads) => {
                ties.people.extend(leads.iter().copied());
                for lead in leads {
                    // Whoever was merged is the one into whom they were merged.
                    ties.people.insert(self.survivor(*lead).await?);
                }
                let ids: Vec<LeadId> = ties.people.iter().collect();
                // Marketo's cookies too: one that we have not met yet must not tie them again by an old match.
                ties.tokens.extend(self.cookies(&ids).await?);
                for lead in &ids {
                    let hints = hints_of_lead(self.deps, self.munchkin, *lead).await?;
                    let mine = tokens(self.deps, self.munchkin, &hints).await?;
                    let mine = mine.into_iter().filter(|token| token.value.lead == Some(*lead));
                    ties.tokens.extend(mine.map(|token| token.value.token));
                }
                for record in state::identity::leads(self.deps, self.munchkin, ids).await? {
                    ties.ecids.extend(record.value.ecids);
                }
            }
            Subject::Token(token) => {
                ties.tokens.insert(token.clone());
            }
            Subject::Ecid(ecid) => {
                let hints = hints_of_ecid(self.deps, self.munchkin, *ecid).await?;
                ties.tokens.extend(hints.tokens);
                for record in leads(self.deps, self.munchkin, hints.leads).await? {
                    if record.value.ecids.contains(ecid) {
                        ties.people.insert(record.value.lead);
                    }
                }
                ties.ecids.insert(*ecid);
            }
        }
        let mut shown = Vec::new();
        for record in tokens(self.deps, self.munchkin, &ties.tokens).await? {
            let record = record.value;
            match subject {
                Subject::Leads(_) => ties.ecids.extend(record.ecids.into_keys()),
                Subject::Token(_) => {
                    ties.people.extend(record.lead);
                    ties.ecids.extend(record.ecids.into_keys());
                }
                Subject::Ecid(ecid) if record.ecids.contains_key(ecid) => {
                    ties.people.extend(record.lead);
                    shown.push(record.token);
                }
                Subject::Ecid(_) => {}
            }
        }
        if let Subject::Token(token) = subject {
            shown.push(token.clone());
        }
        ties.people.add_all(&self.owners(&shown).await?);
        Ok(ties)
    }

    /// Who these people are now, after the merges of which the activity log has told.
    async fn survivors(&self, people: &LeadSet) -> Step<LeadSet> {
        let mut survivors = LeadSet::new();
        for lead in people.iter() {
            survivors.insert(self.survivor(lead).await?);
        }
        Ok(survivors)
    }

    /// The cookies of these leads, as Marketo says.
    async fn cookies(&self, leads: &[LeadId]) -> Result<BTreeSet<Token>, CallError> {
        let mut cookies = BTreeSet::new();
        let mut parts: Vec<&[LeadId]> = leads.chunks(MARKETO_BATCH).collect();
        while let Some(part) = parts.pop() {
            match self.marketo.leads_by_id(self.marketo.slot().await?, part, false).await {
                Ok(rows) => cookies.extend(rows.into_iter().flat_map(|row| row.cookies)),
                Err(CallError::Refused { .. }) if part.len() == 1 => {}
                Err(CallError::Refused { .. }) => parts.extend(part.chunks(1)),
                Err(error) => return Err(error),
            }
        }
        Ok(cookies)
    }

    /// Who owns these tokens, as Marketo says: of one in no audience that is followed we have never asked.
    async fn owners(&self, tokens: &[Token]) -> Result<LeadSet, CallError> {
        let mut owners = LeadSet::new();
        let mut parts: Vec<&[Token]> = tokens.chunks(MARKETO_BATCH).collect();
        while let Some(part) = parts.pop() {
            match self.marketo.leads_by_cookies(self.marketo.slot().await?, &part.iter().collect::<Vec<_>>()).await {
                Ok(rows) => {
                    let owning = rows.into_iter().filter(|row| part.iter().any(|token| row.cookies.contains(token)));
                    owners.extend(owning.map(|row| row.id));
                }
                // One bad cookie, or too many: one by one; of one that Marketo does not read it knows no owner.
                Err(CallError::Refused { .. }) if part.len() == 1 => {}
                Err(CallError::Refused { .. }) => parts.extend(part.chunks(1)),
                Err(error) => return Err(error),
            }
        }
        Ok(owners)
    }

    /// A token that we have not met gets its mark too: a match of it may be on its way.
    async fn forget_token(&self, token: &Token, subject: &Subject, at: u64) -> Step<()> {
        loop {
            let found = tokens(self.deps, self.munchkin, [token]).await?.pop();
            let rev = found.as_ref().map(|found| found.rev);
            let mut record = found.map_or_else(|| TokenRecord::new(token.clone()), |found| found.value);
            let news = match subject {
                Subject::Ecid(ecid) => record.erase_ecid(*ecid, at),
                Subject::Token(_) | Subject::Leads(_) => record.erase(at),
            };
            if !news {
                // Forgotten before. Whoever has come again since was taken out of the notes.
                if !record.ecids.is_empty() {
                    note(self.deps, self.munchkin, [token], []).await?;
                }
                return Ok(());
            }
            // Whoever has come again since is a token like any other.
            let noted = if record.ecids.is_empty() {
                note_gone(self.deps, self.munchkin, token).await?
            } else {
                note(self.deps, self.munchkin, [token], []).await?
            };
            if save_token(self.deps, self.munchkin, &record, rev, &noted).await? {
                return Ok(());
            }
        }
    }

    async fn forget_lead(&self, lead: LeadId, mut forget: impl FnMut(&mut LeadRecord) -> bool) -> Step<()> {
        loop {
            let found = leads(self.deps, self.munchkin, [lead]).await?.pop();
            let rev = found.as_ref().map(|found| found.rev);
            let mut record = found.map_or_else(|| LeadRecord::new(lead), |found| found.value);
            if !forget(&mut record) {
                return Ok(());
            }
            let noted = note(self.deps, self.munchkin, [], [lead]).await?;
            if save_lead(self.deps, self.munchkin, &record, rev, &noted).await? {
                return Ok(());
            }
        }
    }

    /// Once no audience wants them on account of what was forgotten, the lists are told.
    async fn leave(&mut self, job: &mut Doc<Job>) -> Result<(), CallError> {
        let (deps, munchkin) = (self.deps, self.munchkin);
        if holds(Guard::MergesBeforeErasing) {
            // A list that learned of a merge of before only after it had answered would take its winner for somebody whom
            // we put there. Nobody waits long: this work reads the log each few minutes, or does not get as far as here.
            if self.head.polled_at < job.value.requested_at + deps.settings.scaled(MERGE_NEWS_MS) {
                return Ok(());
            }
            if !self.survivors(&job.value.people).await?.minus(&job.value.people).is_empty() {
                // Merged meanwhile: what ties them as the one they are now is forgotten, too.
                job.value.phase = Phase::Forgetting;
                return Ok(self.save_job(job).await?);
            }
        }
        let mut out = job.value.people.clone();
        let followed = syncs::followed(deps, munchkin).await?;
        let wants: Vec<Doc<Want>> = doc::all(deps, Table::Lists, munchkin.as_str(), "want/").await?;
        let (wants, rest): (Vec<_>, Vec<_>) =
            wants.into_iter().partition(|want| followed.contains(&want.value.audience));
        for want in wants {
            let wanted = read_leads(deps, &want.value.key).await?.and(&job.value.people);
            if wanted.is_empty() {
                continue;
            }
            let Some(members) = Members::open(deps, munchkin, &want.value.audience).await? else { continue };
            for lead in wanted.iter() {
                if !is_wanted(deps, munchkin, &members, lead).await? {
                    // The audience has not worked it out yet.
                    return Ok(());
                }
                // By another browser, or come back since.
                out.remove(lead);
            }
        }
        for want in rest {
            self.forget_wanted(want, &out).await?;
        }
        self.forget_frozen(&out).await?;
        job.value.people_out = out.len();
        job.value.people_stay = job.value.people.len() - out.len();
        if !out.is_empty() {
            job.value.lists = heads(deps, munchkin).await?.into_iter().map(|head| head.list).collect();
        }
        job.value.out = out;
        // Before the first list is told: all of them are told of the same people.
        job.value.phase = Phase::Lists;
        Ok(self.save_job(job).await?)
    }

    /// What was last worked out for an audience that nobody follows any more names people too.
    async fn forget_wanted(&self, mut want: Doc<Want>, out: &LeadSet) -> Step<()> {
        let wanted = read_leads(self.deps, &want.value.key).await?;
        if wanted.and(out).is_empty() {
            return Ok(());
        }
        let old = std::mem::replace(&mut want.value.key, write_leads(self.deps, "want", &wanted.minus(out)).await?);
        want.value.count = wanted.minus(out).len();
        let key = want_key(self.munchkin, &want.value.audience);
        if save(self.deps, Table::Lists, key, &want.value, Some(want.rev), None).await? {
            self.deps.ports.objects.delete(&old).await?;
        }
        Ok(())
    }

    /// What a sync wanted when it was paused or stopped names people too.
    async fn forget_frozen(&self, out: &LeadSet) -> Step<()> {
        for sync in syncs::syncs(self.deps, self.munchkin).await? {
            let Some(key) = sync.value.frozen else { continue };
            let frozen = read_leads(self.deps, &key).await?;
            if frozen.and(out).is_empty() {
                continue;
            }
            let without = write_leads(self.deps, "frozen", &frozen.minus(out)).await?;
            change_sync(self.deps, self.munchkin, &sync.value.id, |sync| {
                let same = sync.frozen.as_ref() == Some(&key);
                if same {
                    sync.frozen = Some(without.clone());
                }
                same
            })
            .await?;
            self.deps.ports.objects.delete(&key).await?;
        }
        Ok(())
    }

    /// Tells the lists, again after an hour those that have not answered. Once every one has, the job itself forgets whom it
    /// concerned.
    async fn confirm(&mut self, job: &mut Doc<Job>) -> Result<(), CallError> {
        let now = self.deps.now();
        let answered: BTreeSet<ListId> =
            answers(self.deps, self.munchkin, &job.value).await?.into_iter().map(|(list, _)| list).collect();
        let waiting: Vec<ListId> = job.value.lists.difference(&answered).copied().collect();
        if waiting.is_empty() {
            job.value.subject = None;
            job.value.people = LeadSet::new();
            job.value.out = LeadSet::new();
            job.value.phase = Phase::Done;
            job.value.done_at = Some(now);
            return Ok(self.save_job(job).await?);
        }
        if now >= job.value.told_at + self.deps.settings.scaled(HOUR_MS) {
            for list in waiting {
                let note = Note::Erase { job: job.value.id.clone(), leads: job.value.out.clone() };
                notes::leave(self.deps, self.munchkin, list, &note).await?;
            }
            job.value.told_at = now;
            self.save_job(job).await?;
        }
        Ok(())
    }
}
