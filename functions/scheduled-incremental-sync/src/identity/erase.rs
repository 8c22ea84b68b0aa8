//! Erases people: forgets what ties them to browsers, waits until no audience wants them on that account, and has
//! them taken out of the lists. Each step can be repeated: the job's row says how far it is, and what is forgotten stays
//! forgotten by the marks that the records keep.

use std::collections::BTreeSet;

use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::MARKETO_BATCH;
use domain::{Ecid, LeadId, LeadSet, Token};
use marketo::CallError;
use marketo::class::Class;
use ports::Failure;
use state::audience::Members;
use state::erase::{Job, Phase, Subject, answers, open_jobs, save_job};
use state::identity::{erase_ecid, hints_of_ecid, hints_of_lead, leads, save_lead, save_token, tokens};
use state::lists::{Want, heads, read_leads, want_key, write_leads};
use state::notes::{self, Note};
use state::syncs::change_sync;
use state::{Doc, Step, load, syncs};

use super::Worker;
use crate::audience::is_wanted;

/// How often an erasure that waits for others is looked at, in ms.
const LOOK_AGAIN_MS: u64 = 10_000;

/// What ties the person, as it was found.
#[derive(Default)]
struct Ties {
    tokens: BTreeSet<Token>,
    ecids: BTreeSet<Ecid>,
    people: LeadSet,
}

impl Worker<'_> {
    /// Goes on with the erasures. Returns when to look again, in ms.
    pub(super) async fn erase(&mut self) -> Result<Option<u64>, CallError> {
        let mut open = false;
        for mut job in open_jobs(self.deps, self.munchkin).await? {
            if job.value.phase == Phase::Forgetting {
                self.forget(&mut job).await?;
                self.tell_audiences().await?;
            }
            if job.value.phase == Phase::Leaving {
                self.leave(&mut job).await?;
            }
            if job.value.phase == Phase::Lists {
                self.confirm(&mut job).await?;
            }
            open |= job.value.phase != Phase::Done;
        }
        Ok(open.then(|| self.deps.now() + self.deps.settings.scaled(LOOK_AGAIN_MS)))
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
        job.value.tokens = job.value.tokens.max(ties.tokens.len() as u64);
        job.value.ecids = job.value.ecids.max(ties.ecids.len() as u64);
        self.save_job(job).await?;
        for token in &ties.tokens {
            self.forget_token(token, &subject, at).await?;
        }
        match &subject {
            Subject::Token(_) => {}
            Subject::Ecid(ecid) => {
                for lead in ties.people.iter() {
                    self.forget_lead(lead, |record| record.erase_ecid(*ecid)).await?;
                }
            }
            Subject::Leads(leads) => {
                for lead in leads {
                    self.forget_lead(*lead, |record| record.erase(at)).await?;
                }
            }
        }
        job.value.phase = Phase::Leaving;
        Ok(self.save_job(job).await?)
    }

    /// What ties the subject to people and browsers.
    async fn ties(&self, subject: &Subject) -> Result<Ties, CallError> {
        let mut ties = Ties::default();
        match subject {
            Subject::Leads(leads) => {
                ties.people.extend(leads.iter().copied());
                let ids: Vec<LeadId> = leads.iter().copied().collect();
                for ids in ids.chunks(MARKETO_BATCH) {
                    // Marketo's cookies too: one that we have not met yet must not tie them again by an old match.
                    let rows = self.marketo.leads_by_id(self.marketo.slot().await?, ids, false).await?;
                    ties.tokens.extend(rows.into_iter().flat_map(|row| row.cookies));
                }
                for lead in leads {
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
                Err(error) if error.class() == Some(Class::Split) && part.len() == 1 => {}
                Err(error) if error.class() == Some(Class::Split) => parts.extend(part.chunks(1)),
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
            if !news || save_token(self.deps, self.munchkin, &record, rev).await? {
                return Ok(());
            }
        }
    }

    async fn forget_lead(&self, lead: LeadId, mut forget: impl FnMut(&mut LeadRecord) -> bool) -> Step<()> {
        loop {
            let found = leads(self.deps, self.munchkin, [lead]).await?.pop();
            let rev = found.as_ref().map(|found| found.rev);
            let mut record = found.map_or_else(|| LeadRecord::new(lead), |found| found.value);
            if !forget(&mut record) || save_lead(self.deps, self.munchkin, &record, rev).await? {
                return Ok(());
            }
        }
    }

    /// Once no audience wants them on account of what was forgotten, the lists are told.
    async fn leave(&mut self, job: &mut Doc<Job>) -> Result<(), CallError> {
        let (deps, munchkin) = (self.deps, self.munchkin);
        let mut out = job.value.people.clone();
        for audience in syncs::followed(deps, munchkin).await? {
            let want: Option<Doc<Want>> = load(deps, ports::Table::Lists, &want_key(munchkin, &audience)).await?;
            let Some(want) = want else { continue };
            let wanted = read_leads(deps, &want.value.key).await?.and(&job.value.people);
            if wanted.is_empty() {
                continue;
            }
            let Some(members) = Members::open(deps, munchkin, &audience).await? else { continue };
            for lead in wanted.iter() {
                if !is_wanted(deps, munchkin, &members, lead).await? {
                    // The audience has not worked it out yet.
                    return Ok(());
                }
                // By another browser, or come back since.
                out.remove(lead);
            }
        }
        self.forget_frozen(&out).await?;
        job.value.people_out = out.len();
        job.value.people_stay = job.value.people.len() - out.len();
        if !out.is_empty() {
            job.value.lists = heads(deps, munchkin).await?.into_iter().map(|head| head.list).collect();
        }
        for list in &job.value.lists {
            let note = Note::Erase { job: job.value.id.clone(), leads: out.clone() };
            notes::leave(deps, munchkin, *list, &note).await?;
        }
        job.value.phase = Phase::Lists;
        Ok(self.save_job(job).await?)
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

    /// Once every list has answered, the job itself forgets whom it concerned.
    async fn confirm(&mut self, job: &mut Doc<Job>) -> Result<(), CallError> {
        let answered = answers(self.deps, self.munchkin, &job.value).await?;
        if answered.len() < job.value.lists.len() {
            return Ok(());
        }
        job.value.subject = None;
        job.value.people = LeadSet::new();
        job.value.phase = Phase::Done;
        job.value.done_at = Some(self.deps.now());
        Ok(self.save_job(job).await?)
    }
}
