//! Who owns which token: one worker a subscription follows Marketo's activities, asks about tokens, and reads the
//! ECIDs that Marketo itself has stored.

mod erase;

use std::collections::{BTreeMap, BTreeSet};

use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::{DAY_MS, HOUR_MS, MARKETO_BATCH};
use domain::planted::{Guard, holds};
use domain::{Ecid, LeadId, LeadSet, ListId, MunchkinId, Token};
use futures::FutureExt as _;
use jiff::Timestamp;
use marketo::class::Class;
use marketo::{CallError, DELETE, ExtractStatus, LeadRow, MARGIN_MS, MERGE, Marketo, parse_extract};
use ports::{Expect, Failure, Item, Table};
use state::bell::{BellKey, Next};
use state::budget::{self, Purpose};
use state::edges::{Noted, note};
use state::identity::{
    ask_pk, ecid_to_lead, erased_ecids, forget_hints, hints_of_lead, lead_to_token, leads, put_hints, save_lead,
    save_token, tell_pk, tokens, wanted_looks,
};
use state::lists::{Departure, departure_key, heads};
use state::notes::{self, Note};
use state::syncs::{ExtractJob, IdentityHead, Start, Subscription, identity_key};
use state::{Cause, Deps, Doc, Step, bell, doc, load, save, syncs};

use crate::propagate::{many, memberships, propagate};

/// Activities are polled this often, in ms.
const POLL_MS: u64 = 60_000;
/// The same while more tokens wait for a look-up than one call takes, in ms. Five million tokens and two million people
/// take 23,334 of the 25,000 calls of half a day's quota; a call each minute would be 1,440.
const POLL_CROWDED_MS: u64 = 3 * 60_000;
/// While more tokens wait for a look-up than one call takes, the audiences are told this often, in ms: each time they
/// work out everything anew.
const TELL_MS: u64 = 10 * 60_000;
/// The same once the day has hardly any calls left for look-ups, in ms: of ten minutes there would be some 50 answers then,
/// and each time a pass reads every token. Ours.
const TELL_SCARCE_MS: u64 = HOUR_MS;
/// Leads that somebody asks to look at are read this often, in ms: what comes within it shares a call.
const LOOK_MS: u64 = 10_000;
/// How often Marketo is asked what everybody has used of the day's quota, in ms: 96 calls a day.
const USE_MS: u64 = 15 * 60_000;
/// A token of which nothing is learned while many wait counts as asked about so often: it is asked about again a day
/// later, and not after an hour (`TokenRecord::due`). Three million anonymous visitors asked about again after one hour,
/// two, four and eight would cost more calls than the day has, before the last token was asked about once.
const ASKED_IN_A_CROWD: u32 = 5;
/// How often the activity log is read for what was done to lists, in ms: 144 calls a day where little happens.
const CHANGES_MS: u64 = 10 * 60_000;
/// Pages of that log read at once, 300 lines each. A large load of our own fills more; then the rest is skipped, and
/// found by comparing members.
const CHANGES_PAGES: usize = 10;
/// Marketo allows the status of an extract to be asked this often, in ms.
const EXTRACT_POLL_MS: u64 = 60_000;
/// An extract covers at most 31 days (Marketo, bulk extract); one second less, to be safe at the edges.
const EXTRACT_WINDOW_MS: u64 = 31 * DAY_MS - 1_000;
/// How far back the first extract reaches where the subscription does not say, in ms. Ours.
const EXTRACT_BACK_MS: u64 = 730 * DAY_MS;

pub(crate) async fn work(deps: &Deps, munchkin: &MunchkinId, deadline: u64) -> Step<Next> {
    let Some(subscription) = syncs::subscription(deps, munchkin).await? else { return Ok(Next::Done(None)) };
    if subscription.refused().is_some() {
        return Ok(Next::Done(None));
    }
    let head: Option<Doc<IdentityHead>> = load(deps, Table::Syncs, &identity_key(munchkin)).await?;
    let rev = head.as_ref().map(|head| head.rev);
    let head = head.map_or_else(|| IdentityHead { v: 1, ..IdentityHead::default() }, |head| head.value);
    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::LookUp);
    let mut worker =
        Worker { deps, munchkin, marketo, subscription, head, rev, deadline, crowded: false, hinted: false };
    match worker.run().await {
        Ok(next) => Ok(next),
        // A timer, and not a rest: what needs no call to Marketo goes on meanwhile.
        // Nor do look-ups that wait for their part of the day hold up the activity log.
        Err(CallError::Wait(until)) => Ok(Next::Done(Some(until.min(worker.next_poll())))),
        Err(error) => Err(error.into()),
    }
}

/// Whether so many tokens wait for their first look-up that what is new comes in stages: of a full call's worth at least half
/// was never asked about. Those that are asked about again, some each minute of a large instance for ever, are no crowd.
const fn is_crowd(waiting: usize, never_asked: usize) -> bool {
    waiting == MARKETO_BATCH && 2 * never_asked >= MARKETO_BATCH
}

struct Worker<'a> {
    deps: &'a Deps,
    munchkin: &'a MunchkinId,
    marketo: Marketo<'a>,
    subscription: Subscription,
    head: IdentityHead,
    rev: Option<u64>,
    deadline: u64,
    /// More tokens wait for a look-up than one call takes.
    crowded: bool,
    /// Leads were read because somebody asked to.
    hinted: bool,
}

impl Worker<'_> {
    async fn run(&mut self) -> Result<Next, CallError> {
        if self.head.departures_rung < self.head.departures {
            self.ring_lists().await?;
        }
        let now = self.deps.now();
        let asking = self.deps.ports.tables.due(Table::Identity, &ask_pk(self.munchkin), now, MARKETO_BATCH).await;
        let asking = asking.map_err(Failure::from)?;
        let never_asked = asking.iter().filter(|item| item.doc["asked_at"].is_null()).count();
        let backlog = is_crowd(asking.len(), never_asked);
        if !backlog || self.is_time_to_tell(now).await? {
            self.tell_audiences().await?;
            if backlog {
                self.head.told_at = self.deps.now();
                self.save().await?;
            } else if self.head.told_at != 0 && !self.late() {
                // Everybody has been told of the last of them.
                self.head.told_at = 0;
                self.head.calm_at = self.deps.now();
                self.save().await?;
                // Their loads are over with what the audiences make of that.
                self.ring_lists().await?;
            }
        }
        if self.head.cursor.is_none() {
            // Begun before the first look-up, so that nothing that happens after an answer is missed.
            let slot = self.polling().slot().await?;
            self.head.cursor = Some(self.marketo.paging_token(slot, &now_text(self.deps)).await?);
            self.save().await?;
        }
        let often = if backlog { POLL_CROWDED_MS } else { POLL_MS };
        if self.deps.now() >= self.head.polled_at + self.deps.settings.scaled(often) && !self.poll().await? {
            return Ok(Next::Again);
        }
        self.learn_use().await?;
        if let Err(error) = self.read_changes(if backlog { 1 } else { CHANGES_PAGES }).await {
            match error {
                CallError::Wait(_) => return Err(error),
                // What was done by hand is found by comparing members, too; the rest of this work does not wait for it.
                error => {
                    tracing::warn!(munchkin.id = %self.munchkin, error = %error, "what was done to lists cannot be read")
                }
            }
            self.head.changes_cursor = None;
            self.head.changes_at = self.deps.now();
            self.save().await?;
        }
        let erasing = self.erase().await?;
        let looks = self.look_where_asked().await?;
        if !self.ask().await? {
            return Ok(Next::Again);
        }
        // Once for all answers: told one by one, they would keep every audience at work all the while.
        self.tell_audiences().await?;
        let extract = self.extract().await?;
        self.tell_audiences().await?;
        if crate::lists_index::go_on(self.deps, self.munchkin, self.marketo, self.deadline).await? {
            return Ok(Next::Again);
        }
        let poll = self.head.polled_at + self.deps.settings.scaled(POLL_MS);
        Ok(Next::Done([Some(poll), extract, looks, erasing].into_iter().flatten().min()))
    }

    async fn is_time_to_tell(&self, now: u64) -> Step<bool> {
        let since = |ms: u64| now >= self.head.told_at + self.deps.settings.scaled(ms);
        Ok(since(TELL_SCARCE_MS)
            || (since(TELL_MS) && !budget::is_scarce(self.deps, self.munchkin, Purpose::LookUp).await?))
    }

    async fn save(&mut self) -> Step<()> {
        if !save(self.deps, Table::Syncs, identity_key(self.munchkin), &self.head, self.rev, None).await? {
            return Err(Failure::retry("somebody else does this subscription's identity work"));
        }
        self.rev = Some(self.rev.unwrap_or(0) + 1);
        Ok(())
    }

    /// When the activity log is read next, in ms.
    fn next_poll(&self) -> u64 {
        self.head.polled_at.max(self.deps.now()) + self.deps.settings.scaled(POLL_MS)
    }

    /// The same client, for calls that look what is new.
    const fn polling(&self) -> Marketo<'_> {
        self.marketo.calling_for(Purpose::Poll)
    }

    fn late(&self) -> bool {
        self.deps.now() + self.deps.settings.scaled(MARGIN_MS) > self.deadline
    }

    /// Records of a partition of the index that are due, at most one call's worth. The index lags: what counts is the
    /// item.
    async fn due(&self, partition: &str) -> Step<(Vec<Doc<TokenRecord>>, Vec<Doc<LeadRecord>>)> {
        let now = self.deps.now();
        let items = self.deps.ports.tables.due(Table::Identity, partition, now, MARKETO_BATCH).await?;
        let is_lead = |item: &Item| {
            item.doc.get("lead").is_some_and(serde_json::Value::is_u64) && item.doc.get("token").is_none()
        };
        let lead_ids: Vec<LeadId> =
            items.iter().filter(|item| is_lead(item)).filter_map(|item| item.key.sk.parse().ok()).collect();
        let names: Vec<Token> =
            items.iter().filter(|item| !is_lead(item)).filter_map(|item| Token::parse(&item.key.sk)).collect();
        Ok((tokens(self.deps, self.munchkin, &names).await?, leads(self.deps, self.munchkin, lead_ids).await?))
    }

    /// Tells the audiences of everything that changed.
    async fn tell_audiences(&self) -> Step<()> {
        let why = self.deps.why().iter().copied().chain(self.hinted.then_some(Cause::Hint));
        let deps = &self.deps.because(why);
        let mut bulk = false;
        loop {
            let (mut tokens, mut leads) = self.due(&tell_pk(self.munchkin)).await?;
            tokens.retain(|token| token.value.unpropagated);
            leads.retain(|lead| lead.value.unpropagated);
            let count = tokens.len() + leads.len();
            if count == 0 || self.late() {
                return Ok(());
            }
            // More than one page: passes are cheaper than row after row, for the rest of it too.
            bulk |= count == MARKETO_BATCH;
            propagate(deps, self.munchkin, tokens, leads, bulk).await?;
        }
    }

    /// Reads the leads that somebody asks to look at. Returns when those that are left have their turn, in ms.
    async fn look_where_asked(&mut self) -> Result<Option<u64>, CallError> {
        let wanted = wanted_looks(self.deps, self.munchkin, MARKETO_BATCH).await?;
        if wanted.is_empty() {
            return Ok(None);
        }
        let now = self.deps.now();
        let next = self.head.looked_at + self.deps.settings.scaled(LOOK_MS);
        if now < next {
            return Ok(Some(next));
        }
        let (leads, notes): (Vec<LeadId>, Vec<_>) = wanted.into_iter().unzip();
        let mut parts = vec![leads.as_slice()];
        while let Some(part) = parts.pop() {
            match self.read_again(part, Purpose::LookUp).await {
                // Too much for one call, or one that Marketo does not take for an id: in halves, down to that one.
                Err(CallError::Refused { .. }) if part.len() == 1 => {}
                Err(CallError::Refused { .. }) => parts.extend(part.chunks(part.len().div_ceil(2))),
                other => other?,
            }
        }
        forget_hints(self.deps, &notes).await?;
        self.hinted = true;
        self.head.looked_at = now;
        self.head.asked_at = now;
        self.save().await?;
        Ok((leads.len() == MARKETO_BATCH).then(|| now + self.deps.settings.scaled(LOOK_MS)))
    }

    /// Asks Marketo about every token that is due. `false`: there is more, and no time.
    async fn ask(&mut self) -> Result<bool, CallError> {
        loop {
            if self.late() {
                return Ok(false);
            }
            let now = self.deps.now();
            let (mut due, _) = self.due(&ask_pk(self.munchkin)).await?;
            let never_asked = due.iter().filter(|token| token.value.asked_at.is_none()).count();
            self.crowded = is_crowd(due.len(), never_asked);
            due.retain(|token| !token.value.unpropagated);
            if self.expire(&mut due, now).await? {
                continue;
            }
            let resting: Vec<Doc<TokenRecord>> = due.extract_if(.., |token| token.value.due(now).is_none()).collect();
            if !resting.is_empty() {
                // They stand in the index at a time of before, as where the life of matches was made longer: written
                // again, they stand where they belong, and not before those who wait.
                self.save_tokens(&resting).await?;
                continue;
            }
            if due.is_empty() {
                return Ok(true);
            }
            let ecids: BTreeSet<Ecid> = due.iter().flat_map(|token| token.value.ecids.keys().copied()).collect();
            let inside = memberships(self.deps, self.munchkin, &ecids).await?;
            let is_inside = |token: &Doc<TokenRecord>| {
                inside.values().any(|inside| token.value.ecids.keys().any(|ecid| inside.contains(ecid)))
            };
            let (batch, mut outside): (Vec<_>, Vec<_>) = due.into_iter().partition(is_inside);
            for token in &mut outside {
                // Nobody follows it: first doubted, then, if it is still so, parked.
                if token.value.doubted {
                    token.value.parked = true;
                } else {
                    token.value.doubted = true;
                }
            }
            self.save_tokens(&outside).await?;
            let mut parts = vec![batch];
            while let Some(part) = parts.pop() {
                if part.is_empty() {
                    continue;
                }
                match self.look_up(&part).await {
                    // One bad cookie, too many leads behind the values, or too large a request: in halves.
                    Err(error) if error.class() == Some(Class::Split) => {
                        if let [token] = part.as_slice() {
                            let noted = note(self.deps, self.munchkin, [&token.value.token], []).await?;
                            self.answered(token.clone(), None, &noted).await?;
                        } else {
                            let (left, right) = part.split_at(part.len() / 2);
                            parts.extend([left.to_vec(), right.to_vec()]);
                        }
                    }
                    other => other?,
                }
            }
        }
    }

    /// Drops matches whose time is over. Returns whether there were any.
    async fn expire(&self, due: &mut [Doc<TokenRecord>], now: u64) -> Step<bool> {
        let lifetime = self.deps.settings.match_lifetime_ms;
        let expired = due.iter_mut().filter_map(|token| token.value.expire(now, lifetime).then(|| token.clone()));
        let expired: Vec<Doc<TokenRecord>> = expired.collect();
        self.save_tokens(&expired).await?;
        Ok(!expired.is_empty())
    }

    /// Writes records; whoever was faster has written another one.
    async fn save_tokens(&self, tokens: &[Doc<TokenRecord>]) -> Step<()> {
        let (deps, munchkin) = (self.deps, self.munchkin);
        let noted = &note(deps, munchkin, tokens.iter().map(|token| &token.value.token), []).await?;
        many(tokens.iter().map(|token| save_token(deps, munchkin, &token.value, Some(token.rev), noted).boxed()))
            .await?;
        Ok(())
    }

    async fn look_up(&mut self, batch: &[Doc<TokenRecord>]) -> Result<(), CallError> {
        let slot = self.marketo.slot().await?;
        let names: Vec<&Token> = batch.iter().map(|token| &token.value.token).collect();
        let rows = self.marketo.leads_by_cookies(slot, &names).await?;
        let now = self.deps.now();
        if now >= self.head.asked_at + self.deps.settings.scaled(POLL_MS) {
            // To the minute: it is shown, and nothing else.
            self.head.asked_at = now;
            self.save().await?;
        }
        let mut owners: BTreeMap<&Token, Vec<&LeadRow>> = BTreeMap::new();
        for row in &rows {
            for token in &row.cookies {
                owners.entry(token).or_default().push(row);
            }
        }
        let mut hints = Vec::new();
        for token in batch {
            if let Some([row]) = owners.get(&token.value.token).map(Vec::as_slice)
                && token.value.lead != Some(row.id)
            {
                hints.push(lead_to_token(self.munchkin, row.id, &token.value.token));
            }
        }
        put_hints(self.deps, hints).await?;
        let owner = |token: &Doc<TokenRecord>| match owners.get(&token.value.token).map(Vec::as_slice) {
            _ if !holds(Guard::RowsByName) => {
                let mut pairs = batch.iter().zip(&rows);
                pairs.find(|(asked, _)| asked.value.token == token.value.token).map(|(_, row)| (row.id, row.known))
            }
            Some([row]) => Some((row.id, row.known)),
            // Two owners cannot be: Marketo is in the middle of something, and is asked again.
            _ => None,
        };
        let this = &*self;
        let noted = &note(self.deps, self.munchkin, names, []).await?;
        many(batch.iter().map(|token| this.answered(token.clone(), owner(token), noted).boxed())).await?;
        // No row dissolves nothing; but the owner that we hold it for can be asked what it shows.
        let lost: BTreeSet<LeadId> = batch
            .iter()
            .filter(|token| !owners.contains_key(&token.value.token))
            .filter_map(|token| token.value.lead)
            .collect();
        if !lost.is_empty() {
            let lost: Vec<LeadId> = lost.into_iter().collect();
            self.read_again(&lost, Purpose::LookUp).await?;
        }
        Ok(())
    }

    /// Marketo answered about a token; `None`: no row, which by itself dissolves nothing.
    async fn answered(&self, mut token: Doc<TokenRecord>, owner: Option<(LeadId, bool)>, noted: &Noted) -> Step<()> {
        if !holds(Guard::AnswerRevision)
            && let Some(now) = tokens(self.deps, self.munchkin, [&token.value.token]).await?.pop()
        {
            token = now;
        }
        if let Some((lead, known)) = owner {
            token.value.owned_by(Some(lead), known);
        }
        token.value.doubted = false;
        if self.crowded {
            token.value.asked = token.value.asked.max(ASKED_IN_A_CROWD);
        }
        token.value.was_asked(self.deps.now());
        // Changed since the call: the answer is old, and Marketo is asked again.
        save_token(self.deps, self.munchkin, &token.value, Some(token.rev), noted).await?;
        Ok(())
    }

    /// Reads on in the activity log. `false`: there is more, and no time.
    async fn poll(&mut self) -> Result<bool, CallError> {
        loop {
            let Some(cursor) = self.head.cursor.clone() else { return Ok(true) };
            let began = self.deps.now();
            let page = self.polling().activities(self.polling().slot().await?, &cursor).await?;
            let mut touched = BTreeSet::new();
            let mut departures = Vec::new();
            for row in page.rows {
                let (winner, gone) = match row.kind {
                    MERGE => (Some(self.survivor(row.lead).await?), row.losers),
                    DELETE => (None, BTreeSet::from([row.lead])),
                    _ => {
                        touched.insert(row.lead);
                        continue;
                    }
                };
                for lead in &gone {
                    self.departed(*lead, winner).await?;
                }
                touched.extend(winner);
                let number = self.head.departures + departures.len() as u64 + 1;
                departures.push(Departure { v: 1, number, winner, gone });
            }
            for line in &departures {
                let item = doc::item(departure_key(self.munchkin, line.number), line, None, None)?;
                self.deps.ports.tables.put(Table::Lists, item, Expect::Anything).await.map_err(Failure::from)?;
            }
            let touched: Vec<LeadId> = touched.into_iter().collect();
            for leads in touched.chunks(MARKETO_BATCH) {
                self.read_again(leads, Purpose::Poll).await?;
            }
            self.tell_refused(&touched).await?;
            self.head.cursor = Some(page.next);
            self.head.departures += departures.len() as u64;
            if !page.more {
                self.head.polled_at = began;
            }
            self.save().await?;
            if !departures.is_empty() {
                self.ring_lists().await?;
            }
            if !page.more {
                return Ok(true);
            }
            if self.late() {
                return Ok(false);
            }
        }
    }

    /// Learns how much of the day's quota everybody has used.
    async fn learn_use(&self) -> Result<(), CallError> {
        let asked_at = self.deps.now();
        if asked_at < budget::use_learned_at(self.deps, self.munchkin).await? + self.deps.settings.scaled(USE_MS) {
            return Ok(());
        }
        let used = match self.polling().use_today(self.polling().slot().await?).await {
            Ok(used) => used,
            // A role that may not read it: what others use is felt as 606 and 607.
            Err(CallError::Refused { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(budget::learn_use(self.deps, self.munchkin, used, asked_at).await?)
    }

    /// Reads on in the log of what was done to lists, by us and by others, and tells the writers. At most so many pages:
    /// those of a load are full of our own.
    async fn read_changes(&mut self, pages: usize) -> Result<(), CallError> {
        let now = self.deps.now();
        if now < self.head.changes_at + self.deps.settings.scaled(CHANGES_MS) {
            return Ok(());
        }
        let polling = self.marketo.calling_for(Purpose::Poll);
        let mut cursor = match self.head.changes_cursor.clone() {
            Some(cursor) => cursor,
            None => polling.paging_token(polling.slot().await?, &now_text(self.deps)).await?,
        };
        let mut seen: BTreeMap<ListId, (LeadSet, LeadSet)> = BTreeMap::new();
        let mut more = true;
        for _ in 0..pages {
            let page = polling.list_changes(polling.slot().await?, &cursor).await?;
            for row in page.rows {
                let (added, removed) = seen.entry(row.list).or_default();
                if row.added {
                    added.insert(row.lead)
                } else {
                    removed.insert(row.lead)
                };
            }
            cursor = page.next;
            more = page.more;
            if !more {
                break;
            }
        }
        for list in self.written_lists().await? {
            if let Some((added, removed)) = seen.remove(&list) {
                let note = Note::Seen { added, removed, touched: LeadSet::new() };
                notes::leave(self.deps, self.munchkin, list, &note).await?;
            }
        }
        self.head.changes_cursor = (!more).then_some(cursor);
        self.head.changes_at = now;
        self.save().await?;
        Ok(())
    }

    /// The lists that are written for some sync.
    async fn written_lists(&self) -> Step<BTreeSet<ListId>> {
        let syncs = syncs::syncs(self.deps, self.munchkin).await?;
        let written = syncs.into_iter().filter(|sync| sync.value.start == Start::Now);
        Ok(written.filter_map(|sync| sync.value.list.id).collect())
    }

    /// Something about these leads changed: lists that Marketo refused some of them for try again.
    async fn tell_refused(&self, touched: &[LeadId]) -> Step<()> {
        if touched.is_empty() {
            return Ok(());
        }
        for head in heads(self.deps, self.munchkin).await? {
            if head.left.failed > 0 {
                let touched = touched.iter().copied().collect();
                let note = Note::Seen { added: LeadSet::new(), removed: LeadSet::new(), touched };
                notes::leave(self.deps, self.munchkin, head.list, &note).await?;
            }
        }
        Ok(())
    }

    /// Merges and deletions concern every list.
    async fn ring_lists(&mut self) -> Step<()> {
        for list in self.written_lists().await? {
            bell::mark(self.deps, &BellKey::list(self.munchkin, list)).await?;
        }
        self.head.departures_rung = self.head.departures;
        self.save().await
    }

    /// Who a lead is now, if it was merged into others before: merges are learned in any order.
    async fn survivor(&self, mut lead: LeadId) -> Step<LeadId> {
        for _ in 0..20 {
            match leads(self.deps, self.munchkin, [lead]).await?.pop().and_then(|record| record.value.merged_into) {
                Some(winner) => lead = winner,
                None => break,
            }
        }
        Ok(lead)
    }

    /// A lead is gone: its tokens belong to the winner, or to nobody.
    async fn departed(&self, lead: LeadId, winner: Option<LeadId>) -> Step<()> {
        if winner == Some(lead) {
            return Ok(());
        }
        loop {
            let hints = hints_of_lead(self.deps, self.munchkin, lead).await?;
            let mut mine = tokens(self.deps, self.munchkin, &hints).await?;
            mine.retain(|token| token.value.lead == Some(lead));
            if mine.is_empty() {
                break;
            }
            if let Some(winner) = winner {
                let hints = mine.iter().map(|token| lead_to_token(self.munchkin, winner, &token.value.token));
                put_hints(self.deps, hints).await?;
            }
            let noted = note(self.deps, self.munchkin, mine.iter().map(|token| &token.value.token), []).await?;
            for mut token in mine {
                let known = token.value.known;
                token.value.owned_by(winner, known);
                token.value.hinted = true;
                save_token(self.deps, self.munchkin, &token.value, Some(token.rev), &noted).await?;
            }
        }
        loop {
            let record = leads(self.deps, self.munchkin, [lead]).await?.pop();
            let rev = record.as_ref().map(|record| record.rev);
            let mut record = record.map_or_else(|| LeadRecord::new(lead), |record| record.value);
            if !record.left(winner) {
                return Ok(());
            }
            let noted = note(self.deps, self.munchkin, [], [lead]).await?;
            if save_lead(self.deps, self.munchkin, &record, rev, &noted).await? {
                return Ok(());
            }
        }
    }

    /// Reads leads again, of which something was heard.
    async fn read_again(&mut self, ids: &[LeadId], purpose: Purpose) -> Result<(), CallError> {
        let marketo = self.marketo.calling_for(purpose);
        let mut before: BTreeMap<LeadId, Vec<Doc<TokenRecord>>> = BTreeMap::new();
        for &lead in ids {
            let hints = hints_of_lead(self.deps, self.munchkin, lead).await?;
            let mut mine = tokens(self.deps, self.munchkin, &hints).await?;
            mine.retain(|token| token.value.lead == Some(lead));
            before.insert(lead, mine);
        }
        let asked_at = self.deps.now();
        let with_ecids = !self.head.extract.no_ecids;
        let slot = marketo.slot().await?;
        let (rows, with_ecids) = match marketo.leads_by_id(slot, ids, with_ecids).await {
            Err(CallError::Refused { code, .. }) if code == "1006" && with_ecids => {
                self.go_without_ecids().await?;
                (marketo.leads_by_id(marketo.slot().await?, ids, false).await?, false)
            }
            other => (other?, with_ecids),
        };
        for row in &rows {
            self.heard(row, before.remove(&row.id).unwrap_or_default()).await?;
        }
        // An extract under way holds an older word, which must not count when it comes.
        let remember = self.head.extract.job.is_some();
        self.told(&rows, asked_at, Told { with_ecids, remember }).await?;
        Ok(())
    }

    /// The instance has no field `ecids`, for now.
    async fn go_without_ecids(&mut self) -> Step<()> {
        self.head.extract.no_ecids = true;
        self.head.extract.refused_at = self.deps.now();
        self.save().await
    }

    /// Marketo showed a lead's cookies. `before`: the tokens that we held for its own just before the call.
    async fn heard(&self, row: &LeadRow, before: Vec<Doc<TokenRecord>>) -> Step<()> {
        let ours: BTreeSet<Token> = before.iter().map(|token| token.value.token.clone()).collect();
        let mut changed = before;
        changed.retain_mut(|token| {
            if row.cookies.contains(&token.value.token) {
                token.value.owned_by(Some(row.id), row.known)
            } else {
                // The lead's own row does not show it any more: nobody's, until Marketo names another.
                token.value.owned_by(None, false)
            }
        });
        self.save_tokens(&changed).await?;
        let new: Vec<&Token> = row.cookies.iter().filter(|token| !ours.contains(*token)).collect();
        for mut token in tokens(self.deps, self.munchkin, new).await? {
            // Heard, and not yet asked: the look-up by cookie decides, within seconds.
            token.value.hinted = true;
            save_token(self.deps, self.munchkin, &token.value, Some(token.rev), &Noted::needless()).await?;
        }
        Ok(())
    }

    /// Marketo showed leads, as of a moment.
    async fn told(&self, rows: &[LeadRow], as_of: u64, Told { with_ecids, remember }: Told) -> Step<()> {
        for rows in rows.chunks(100) {
            let records = leads(self.deps, self.munchkin, rows.iter().map(|row| row.id)).await?;
            let mut records: BTreeMap<LeadId, Doc<LeadRecord>> =
                records.into_iter().map(|record| (record.value.lead, record)).collect();
            let (mut hints, mut changed) = (Vec::new(), Vec::new());
            for row in rows {
                let record = records.remove(&row.id);
                if record.is_none() && row.ecids.is_empty() && !remember {
                    continue;
                }
                let rev = record.as_ref().map(|record| record.rev);
                let mut record = record.map_or_else(|| LeadRecord::new(row.id), |record| record.value);
                // A field that was not asked for takes nothing away.
                let ecids = if with_ecids { row.ecids.clone() } else { record.ecids.clone() };
                let changed_now = record.told(row.known, ecids, as_of);
                if changed_now || rev.is_none() {
                    hints.extend(record.ecids.iter().map(|ecid| ecid_to_lead(self.munchkin, *ecid, row.id)));
                    changed.push((record, rev));
                }
            }
            put_hints(self.deps, hints).await?;
            // After the hints, and before the records: whoever erases an ECID writes its mark, and then reads the hints.
            let ecids: BTreeSet<Ecid> =
                changed.iter().flat_map(|(record, _): &(LeadRecord, _)| &record.ecids).copied().collect();
            let erased = erased_ecids(self.deps, self.munchkin, ecids).await?;
            for (record, _) in &mut changed {
                for ecid in record.ecids.intersection(&erased).copied().collect::<Vec<_>>() {
                    record.erase_ecid(ecid);
                }
            }
            let (deps, munchkin) = (self.deps, self.munchkin);
            let noted = &note(deps, munchkin, [], changed.iter().map(|(record, _)| record.lead)).await?;
            let saved =
                many(changed.iter().map(|(record, rev)| save_lead(deps, munchkin, record, *rev, noted).boxed()));
            if saved.await?.contains(&false) {
                return Err(Failure::retry("a lead's record was changed by somebody else"));
            }
        }
        Ok(())
    }

    /// Goes on with the bulk extract. Returns when to look again, in ms.
    async fn extract(&mut self) -> Result<Option<u64>, CallError> {
        if !self.subscription.cookie_sync {
            return Ok(None);
        }
        let day = self.deps.settings.scaled(DAY_MS);
        let again = self.head.extract.refused_at.saturating_add(day);
        if self.head.extract.no_ecids && self.deps.now() < again {
            return Ok(Some(again));
        }
        match self.extract_step().await {
            Err(CallError::Refused { code, .. }) if code == "1006" => {
                self.head.extract.job = None;
                self.go_without_ecids().await?;
                tracing::warn!(munchkin.id = %self.munchkin, "this instance has no field ecids (1006): matches come from browsers alone");
                Ok(Some(self.head.extract.refused_at.saturating_add(day)))
            }
            other => other.map(Some),
        }
    }

    async fn extract_step(&mut self) -> Result<u64, CallError> {
        loop {
            let now = self.deps.now();
            let day = self.deps.settings.scaled(DAY_MS);
            let poll = self.deps.settings.scaled(EXTRACT_POLL_MS);
            let Some(job) = self.head.extract.job.clone() else {
                if let Some(done_at) = self.head.extract.done_at
                    && now < done_at + day
                {
                    return Ok(done_at + day);
                }
                let from = self.head.extract.upto.unwrap_or_else(|| self.extract_since(now));
                let upto = now.min(from + EXTRACT_WINDOW_MS);
                let id = self.polling().create_extract(self.polling().slot().await?, from, upto).await?;
                self.head.extract.done_at = None;
                // Marketo takes the field.
                self.head.extract.no_ecids = false;
                self.head.extract.job = Some(ExtractJob { id, enqueued: false, created_at: now, upto });
                self.save().await?;
                continue;
            };
            if !job.enqueued {
                self.polling().enqueue_extract(self.polling().slot().await?, &job.id).await?;
                self.head.extract.job = Some(ExtractJob { enqueued: true, ..job });
                self.head.extract.polled_at = now;
                self.save().await?;
                return Ok(now + poll);
            }
            if now < self.head.extract.polled_at + poll {
                return Ok(self.head.extract.polled_at + poll);
            }
            match self.polling().extract_status(self.polling().slot().await?, &job.id).await? {
                ExtractStatus::Pending => {
                    self.head.extract.polled_at = now;
                    self.save().await?;
                    return Ok(now + poll);
                }
                ExtractStatus::Created => {
                    self.head.extract.polled_at = now;
                    self.head.extract.job = Some(ExtractJob { enqueued: false, ..job });
                    self.save().await?;
                    return Ok(now + poll);
                }
                ExtractStatus::Failed => self.head.extract.job = None,
                ExtractStatus::Completed { bytes } => {
                    let file = self.polling().extract_file(self.polling().slot().await?, &job.id, bytes).await?;
                    let told = Told { with_ecids: true, remember: false };
                    self.told(&parse_extract(&file), job.created_at, told).await?;
                    self.head.extract.job = None;
                    let whole = job.upto >= job.created_at;
                    // Each day anew, whole: what changed without a trace is found then.
                    self.head.extract.upto = (!whole).then_some(job.upto);
                    self.head.extract.done_at = whole.then_some(now);
                }
            }
            self.save().await?;
            if self.late() {
                return Ok(self.deps.now());
            }
        }
    }

    fn extract_since(&self, now: u64) -> u64 {
        let since = self.subscription.extract_since.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        since.map_or(now.saturating_sub(EXTRACT_BACK_MS), |time| u64::try_from(time.as_millisecond()).unwrap_or(0))
    }
}

/// How leads were shown.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// The field `ecids` was asked for.
    with_ecids: bool,
    /// That a lead has none is remembered also where nothing is known of it yet.
    remember: bool,
}

fn now_text(deps: &Deps) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(deps.now()).unwrap_or(0)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
