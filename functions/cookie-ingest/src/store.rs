//! Takes in what came through the queue: stores matches, and notes what is to be looked at. A match is keyed by token
//! and ECID; storing it twice, late or out of order ends in the same record.

use std::collections::{BTreeMap, BTreeSet};

use domain::identity::{Sight, TokenRecord, has_expired};
use domain::limits::{DAY_MS, TOKENS_PER_ECID};
use domain::planted::{Guard, holds};
use domain::{Ecid, MunchkinId, Token};
use futures::future::{join_all, try_join_all};
use lambda::Counts;
use ports::{Failure, Key, Table};
use state::bell::BellKey;
use state::edges::{Noted, note, source_of};
use state::identity::{
    Intake, ecid_to_token, hints_of_ecid, intake_key, put_hints, save_forgetting, save_token, token_key, tokens,
    want_look,
};
use state::syncs::{Subscription, subscriptions};
use state::{Cause, Deps, Doc, Step, bell, doc, load};

use crate::message::{LookAt, Match, Message, Views};
use crate::warm::hashed;

/// Tokens written at once.
const AT_ONCE: usize = 16;
/// Attempts before the message is tried again later.
const ATTEMPTS: usize = 20;
/// Beyond the day's cap one visitor in so many is kept.
const SAMPLE: u64 = 10;
/// How long a day's numbers are kept, in ms.
const INTAKE_KEPT_MS: u64 = 100 * DAY_MS;
/// When the last match of a server came is noted to this time, in ms: it costs no write a match. Ours.
const LAST_GRAIN_MS: u64 = 10 * 60_000;

/// What came for one subscription.
#[derive(Default)]
struct Batch<'a> {
    sights: BTreeMap<&'a Token, BTreeMap<Ecid, Sights>>,
    hints: BTreeSet<&'a LookAt>,
    /// Page views of which the messages tell, each with its time in ms.
    views: Vec<(u64, Views)>,
}

/// When a pair was seen, in ms, each time once.
struct Sights {
    times: BTreeSet<u64>,
    /// Only pages have shown it.
    public: bool,
}

/// What became of the pairs of a batch.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    new: u64,
    later: u64,
    erased: u64,
    token_over_cap: u64,
    ecid_over_cap: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.new += other.new;
        self.later += other.later;
        self.erased += other.erased;
        self.token_over_cap += other.token_over_cap;
        self.ecid_over_cap += other.ecid_over_cap;
    }
}

/// Takes in a batch, and counts what became of it. On an error the whole batch comes again, which changes nothing for
/// what was stored; the counts may count it twice.
pub async fn store(deps: &Deps, messages: &[Message], counts: &Counts) -> Step<()> {
    // The doors are checked here too: a subscription may have been closed while the message lay in the queue.
    let open: Vec<Subscription> = subscriptions(deps)
        .await?
        .into_iter()
        .filter(|subscription| subscription.takes_no_matches().is_none())
        .collect();
    let mut batches: BTreeMap<&MunchkinId, Batch> = BTreeMap::new();
    for message in messages {
        match message {
            Message::Match(found) if is_expired(deps, found) => counts.add("pairs_expired", 1),
            Message::Match(found) => {
                let batch = batches.entry(&found.munchkin_id).or_default();
                let sights = batch.sights.entry(&found.token).or_default();
                let sights = sights.entry(found.ecid).or_insert(Sights { times: BTreeSet::new(), public: true });
                sights.times.insert(found.seen_at);
                sights.public &= found.public;
                batch.views.extend(found.views.map(|views| (found.seen_at, views)));
            }
            Message::Hint(hint) => {
                batches.entry(&hint.munchkin_id).or_default().hints.insert(&hint.look_at);
            }
        }
    }
    for subscription in &open {
        let munchkin = &subscription.munchkin_id;
        let Some(batch) = batches.remove(munchkin) else { continue };
        let hints = batch.hints.clone();
        let why = (!hints.is_empty()).then_some(Cause::Hint);
        let stored = store_matches(deps, subscription, batch, counts).await;
        if holds(Guard::FailedMatchesComeAgain) {
            stored?;
        }
        // After the matches: a hint is on a token that we know.
        for hint in hints {
            look_at(deps, munchkin, hint, counts).await?;
        }
        // Rung even if nothing was new: an earlier attempt may have died between storing and ringing.
        bell::mark(&deps.because(why), &BellKey::identity(munchkin)).await?;
    }
    Ok(())
}

/// The identity work would let it expire at once.
fn is_expired(deps: &Deps, found: &Match) -> bool {
    has_expired(found.seen_at, deps.settings.match_lifetime_ms, deps.now())
}

async fn store_matches(deps: &Deps, subscription: &Subscription, batch: Batch<'_>, counts: &Counts) -> Step<()> {
    let munchkin = &subscription.munchkin_id;
    let mut sights = batch.sights;
    let found = tokens(deps, munchkin, sights.keys().copied()).await?;
    let mut records: BTreeMap<Token, Doc<TokenRecord>> =
        found.into_iter().map(|found| (found.value.token.clone(), found)).collect();
    let noted = keep_to_the_cap(deps, subscription, &mut sights, &records, &batch.views, counts).await?;

    let groups: Vec<_> = sights.into_iter().map(|(token, sights)| (token, sights, records.remove(token))).collect();
    let mut tally = Tally::default();
    let mut groups = groups.into_iter().peekable();
    while groups.peek().is_some() {
        let some: Vec<_> = groups.by_ref().take(AT_ONCE).collect();
        // One note of all those whose edges change, as far as that is known by now.
        let changing = some.iter().filter(|(_, sights, found)| changes(found.as_ref(), sights));
        let noted = &note(deps, munchkin, changing.map(|(token, ..)| *token), []).await?;
        let some = some.into_iter();
        let stored = some.map(|(token, sights, found)| store_token(deps, munchkin, token, sights, found, noted));
        for stored in join_all(stored).await {
            tally += stored?;
        }
    }
    for (name, count) in [
        ("pairs_new", tally.new),
        ("pairs_later", tally.later),
        ("pairs_erased", tally.erased),
        ("token_over_cap", tally.token_over_cap),
        ("ecid_over_cap", tally.ecid_over_cap),
    ] {
        if count > 0 {
            counts.add(name, count);
        }
    }
    if tally.new > 0 && !noted {
        note_last(deps, munchkin).await?;
    }
    if tally.token_over_cap + tally.ecid_over_cap > 0 {
        take_in(deps, munchkin, |intake| {
            intake.token_over_cap += tally.token_over_cap;
            intake.ecid_over_cap += tally.ecid_over_cap;
        })
        .await?;
    }
    Ok(())
}

/// Counts the new pairs that pages have shown, and drops those beyond the day's cap whose visitor is not in the sample.
/// They are counted before they are written, so that the cap holds; a batch that comes again counts again, and so does a
/// pair that was dropped and is shown again. Page views are counted with them and only with them: the row is written then
/// anyway. Returns whether there were any.
async fn keep_to_the_cap(
    deps: &Deps,
    subscription: &Subscription,
    sights: &mut BTreeMap<&Token, BTreeMap<Ecid, Sights>>,
    records: &BTreeMap<Token, Doc<TokenRecord>>,
    views: &[(u64, Views)],
    counts: &Counts,
) -> Step<bool> {
    let munchkin = &subscription.munchkin_id;
    let mut new: Vec<(&Token, Ecid)> = Vec::new();
    for (token, sights) in sights.iter() {
        let record = records.get(*token).map(|found| &found.value);
        let is_new = |ecid: Ecid, at: u64| record.is_none_or(|record| record.look(ecid, at) == Sight::New);
        let public =
            sights.iter().filter(|(ecid, pair)| pair.public && pair.times.iter().any(|at| is_new(**ecid, *at)));
        new.extend(public.map(|(ecid, _)| (*token, *ecid)));
    }
    if new.is_empty() {
        return Ok(false);
    }
    let (cap, now) = (subscription.new_pairs_per_day, deps.now());
    let dropped = take_in(deps, munchkin, |intake| {
        let room = usize::try_from(cap.saturating_sub(intake.new_public)).unwrap_or(usize::MAX);
        let beyond = new.get(room..).unwrap_or_default();
        // Who chooses only tokens that are kept comes to twice the cap and no further.
        let mut kept = intake.over_day_cap - intake.sampled_out;
        let mut is_kept = |token: &Token| {
            let keep = kept < cap && in_sample(munchkin, token);
            kept += u64::from(keep);
            keep
        };
        let dropped: Vec<_> = beyond.iter().copied().filter(|(token, _)| !is_kept(token)).collect();
        intake.new_public += new.len() as u64;
        intake.last_at = Some(now);
        intake.over_day_cap += beyond.len() as u64;
        intake.sampled_out += dropped.len() as u64;
        for (at, Views { all, both }) in views {
            intake.saw(*at, *all, *both);
        }
        dropped
    })
    .await?;
    if !dropped.is_empty() {
        let pairs = dropped.len() as u64;
        tracing::error!(
            subscription = %munchkin,
            pairs,
            cap,
            "more new pairs came from pages today than the cap allows: these were dropped, a sample is kept"
        );
        counts.add("pairs_sampled_out", pairs);
    }
    for (token, ecid) in dropped {
        if let Some(pairs) = sights.get_mut(token) {
            pairs.remove(&ecid);
        }
    }
    Ok(true)
}

/// Notes that new matches have just come from a server, unless that was noted a moment ago.
async fn note_last(deps: &Deps, munchkin: &MunchkinId) -> Step<()> {
    let now = deps.now();
    let found: Option<Doc<Intake>> = load(deps, Table::Identity, &intake_key(munchkin, now)).await?;
    let last = found.and_then(|found| found.value.last_at);
    if last.is_some_and(|at| at + deps.settings.scaled(LAST_GRAIN_MS) > now) {
        return Ok(());
    }
    take_in(deps, munchkin, |intake| intake.last_at = intake.last_at.max(Some(now))).await
}

/// Whether a visitor is kept beyond the day's cap: always the same ones, with all of their pairs. Who knows how can
/// choose a token that is kept; more pairs than the cap are an alarm in any case.
fn in_sample(munchkin: &MunchkinId, token: &Token) -> bool {
    hashed(&[munchkin.as_str().as_bytes(), token.as_str().as_bytes()]).is_multiple_of(SAMPLE)
}

/// Changes the day's numbers of a subscription.
async fn take_in<R>(deps: &Deps, munchkin: &MunchkinId, mut change: impl FnMut(&mut Intake) -> R) -> Step<R> {
    let now = deps.now();
    let change = |found: Option<Intake>| {
        let mut intake = found.unwrap_or_default();
        intake.v = 1;
        let answer = change(&mut intake);
        Ok((Some(intake), answer))
    };
    let until = now.saturating_add(INTAKE_KEPT_MS);
    doc::update_until(deps, Table::Identity, &intake_key(munchkin, now), change, until).await
}

/// What an ECID's other tokens and its erasure mean for a new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is stored.
    Stored {
        /// The ECID goes over its cap with it, and counts for nobody any more.
        fills: bool,
    },
    /// The ECID is over its cap already.
    OverCap,
}

/// Whether any of the sights changes what a token was seen beside.
fn changes(found: Option<&Doc<TokenRecord>>, sights: &BTreeMap<Ecid, Sights>) -> bool {
    let changes =
        |ecid: Ecid, at: u64| found.is_none_or(|found| matches!(found.value.look(ecid, at), Sight::New | Sight::Later));
    sights.iter().any(|(ecid, sights)| sights.times.iter().any(|at| changes(*ecid, *at)))
}

async fn store_token(
    deps: &Deps,
    munchkin: &MunchkinId,
    token: &Token,
    sights: BTreeMap<Ecid, Sights>,
    mut found: Option<Doc<TokenRecord>>,
    noted: &Noted,
) -> Step<Tally> {
    let source = source_of(token);
    // ECIDs whose hints were put, in this attempt or in one that lost.
    let mut put = BTreeSet::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            found = load(deps, Table::Identity, &token_key(munchkin, token)).await?;
        }
        let rev = found.as_ref().map(|found| found.rev);
        let mut record = found.take().map_or_else(|| TokenRecord::new(token.clone()), |found| found.value);
        let new = new_ecids(&record, &sights);
        // Hints first: whoever sees the edge must find it from its other end. Then the hints are read: an erasure of
        // the ECID writes its mark before it reads them, so that one of the two sees the other.
        put.extend(new.iter().copied());
        if holds(Guard::HintBeforeEdge) {
            put_hints(deps, new.iter().map(|ecid| ecid_to_token(munchkin, *ecid, token))).await?;
        }
        let read = new.iter().map(|ecid| verdict(deps, munchkin, *ecid, token));
        let (mut verdicts, mut changed) = (BTreeMap::new(), false);
        for (ecid, (verdict, erased_at)) in new.iter().zip(try_join_all(read).await?) {
            verdicts.insert(*ecid, verdict);
            // The mark is noted here too, so that the match does nothing when it comes again.
            if let Some(at) = erased_at.filter(|at| sights[ecid].times.first().is_some_and(|first| first <= at)) {
                changed |= record.erase_ecid(*ecid, at);
            }
        }
        let (tally, moved) = apply(&mut record, &sights, &verdicts);
        changed |= moved;
        let without_edge = put.iter().filter(|ecid| !record.ecids.contains_key(ecid));
        let without_edge: Vec<Key> = without_edge.map(|ecid| ecid_to_token(munchkin, *ecid, token)).collect();
        if !changed && without_edge.is_empty() {
            return Ok(tally);
        }
        // The record is written even if only a hint is to be forgotten: whoever stores the same pair at this moment
        // loses against that write, and puts its hint anew.
        let own;
        let noted = if noted.covers(source) {
            noted
        } else {
            // Somebody has changed it meanwhile.
            own = note(deps, munchkin, [token], []).await?;
            &own
        };
        let save = save_token(deps, munchkin, &record, rev, noted);
        if save_forgetting(deps, &without_edge, save).await? || !holds(Guard::TokenRevision) {
            if !holds(Guard::HintBeforeEdge) {
                put_hints(deps, new.iter().map(|ecid| ecid_to_token(munchkin, *ecid, token))).await?;
            }
            return Ok(tally);
        }
    }
    Err(Failure::retry("a token is written by too many at once"))
}

/// The ECIDs that the sights add to a token.
fn new_ecids(record: &TokenRecord, sights: &BTreeMap<Ecid, Sights>) -> Vec<Ecid> {
    let mut record = record.clone();
    let mut new = Vec::new();
    for (ecid, sights) in sights {
        let is_new = sights.times.iter().filter(|at| record.sight(*ecid, **at) == Sight::New).count() > 0;
        new.extend(is_new.then_some(*ecid));
    }
    new
}

/// What is to become of a new pair, whose hint has been put, and when its ECID was erased.
async fn verdict(deps: &Deps, munchkin: &MunchkinId, ecid: Ecid, token: &Token) -> Step<(Verdict, Option<u64>)> {
    let hints = hints_of_ecid(deps, munchkin, ecid).await?;
    let others: Vec<&Token> = hints.tokens.iter().filter(|other| *other != token).collect();
    // A hint may lead nowhere, so only those that were followed keep a pair out. For the ECID's people to be told each
    // hint counts: of two that go over the cap at the same time at least one sees the other's.
    if others.len() > TOKENS_PER_ECID {
        let records = tokens(deps, munchkin, others.iter().copied()).await?;
        if records.iter().filter(|record| record.value.ecids.contains_key(&ecid)).count() > TOKENS_PER_ECID {
            return Ok((Verdict::OverCap, hints.erased_at));
        }
    }
    Ok((Verdict::Stored { fills: others.len() >= TOKENS_PER_ECID }, hints.erased_at))
}

/// Applies the sights to a record. Returns what became of them, and whether the record changed.
fn apply(
    record: &mut TokenRecord,
    sights: &BTreeMap<Ecid, Sights>,
    verdicts: &BTreeMap<Ecid, Verdict>,
) -> (Tally, bool) {
    let (mut tally, mut changed) = (Tally::default(), false);
    for (ecid, sights) in sights {
        for at in &sights.times {
            match (record.look(*ecid, *at), verdicts.get(ecid)) {
                (Sight::Repeat, _) => {}
                (Sight::Erased, _) => tally.erased += 1,
                (Sight::Later, _) => {
                    record.sight(*ecid, *at);
                    tally.later += 1;
                    changed = true;
                }
                (Sight::New, Some(Verdict::Stored { fills })) => {
                    record.sight(*ecid, *at);
                    // The ECID's other people leave, also where this token is nobody's.
                    record.unpropagated |= fills;
                    tally.new += 1;
                    changed = true;
                }
                (Sight::New, Some(Verdict::OverCap)) => tally.ecid_over_cap += 1,
                // New without a hint: the token had no room for it, and a neighbour was kept out since.
                (Sight::SetAside, _) | (Sight::New, None) => tally.token_over_cap += 1,
            }
        }
    }
    (tally, changed)
}

async fn look_at(deps: &Deps, munchkin: &MunchkinId, hint: &LookAt, counts: &Counts) -> Step<()> {
    match hint {
        LookAt::Token(token) => hint_token(deps, munchkin, token, counts).await,
        LookAt::LeadId(lead) => {
            counts.add("hints_taken", 1);
            want_look(deps, munchkin, *lead).await
        }
    }
}

/// A token that we do not know yet is left: its first sight is looked up at once anyway.
async fn hint_token(deps: &Deps, munchkin: &MunchkinId, token: &Token, counts: &Counts) -> Step<()> {
    for _ in 0..ATTEMPTS {
        let found: Option<Doc<TokenRecord>> = load(deps, Table::Identity, &token_key(munchkin, token)).await?;
        let Some(Doc { value: mut record, rev }) = found else {
            counts.add("hints_unknown", 1);
            return Ok(());
        };
        if record.hinted {
            return Ok(());
        }
        record.hinted = true;
        // It is asked about within seconds.
        if save_token(deps, munchkin, &record, Some(rev), &Noted::needless()).await? {
            counts.add("hints_taken", 1);
            return Ok(());
        }
    }
    Err(Failure::retry("a token is written by too many at once"))
}
