//! Marketo's limits are shared with every other integration of the instance. One item a subscription bounds the rate
//! and the day's calls of all functions together, spreads small writes over the day, and slows down when Marketo says
//! that somebody else is calling too.
//!
//! Who may spend what is decided by [`Purpose`]: each leaves the others their parts of the day. A part that nobody
//! uses shrinks as the day passes, and so it is lent.

mod outlook;

use domain::MunchkinId;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use ports::{Key, Table};
use serde::{Deserialize, Serialize};

use crate::{Deps, Step, update};

pub use outlook::{Outlook, outlook};

/// Marketo's rolling window of calls, in ms (Marketo, "integration best practices": 100 calls in 20 s).
pub const WINDOW_MS: u64 = 20_000;
/// Calls of an instance in that window (the same page).
pub const WINDOW_CALLS: f64 = 100.0;
/// Calls of an instance at once (the same page).
pub const CALLS_AT_ONCE: f64 = 10.0;
/// A place in the window is used again this long after Marketo would allow it, in ms: calls reach Marketo later than
/// they were permitted, and not all equally late. Ours; 1.3 % of the rate.
const SLACK_MS: u64 = 250;
/// While the day's calls are used evenly, a quiet time is made up for by calls of this time, in ms. Ours.
const BURST_MS: u64 = 600_000;
/// Part of the day's calls that small writes leave for what nobody planned; where less is free, calls are scarce. Ours.
const UNPLANNED: f64 = 0.01;
/// After 606 our rate is multiplied by this. With [`RECOVERY`] it settles where one call in two hundred is refused.
const BACK_OFF: f64 = 0.9;
/// Calls in a window that each permitted call wins back.
const RECOVERY: f64 = 1.0 / 64.0;
/// "Midnight US Central" may mean standard time all year round: a 607 this short after midnight, in ms, says so.
const STANDARD_TIME_MS: u64 = 90 * 60_000;
/// Marketo's clock and ours differ by less than this, in ms: a 607 this short after midnight says only that Marketo's day is
/// not over yet. Ours.
const CLOCKS_DIFFER_MS: u64 = 5 * 60_000;
/// Then it is tried again after this time, in ms: a handful of calls. Ours.
const NEARLY_MIDNIGHT_MS: u64 = 60_000;
/// How long the answer 615 keeps everybody away, in ms.
const CROWDED_MS: u64 = 1_000;
/// The control plane's [`Lease`] ends by itself after this time, in ms: as long as the client waits for an answer
/// (`marketo::CALL_TIMEOUT_MS`).
pub const LEASE_MS: u64 = 40_000;
/// Part of our share of the day's calls that whoever may only look may spend, all of them together. Ours: with the usual
/// share of the usual quota 250 calls, which is a dozen previews of existing lists, or a question about a person every
/// two minutes of a working day.
const VIEWERS: f64 = 0.01;
/// The same, at least, in calls. Ours: of a small share a hundredth would not do for one day's looking.
const VIEWERS_LEAST: u64 = 100;

/// What a call is for, in the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Somebody waits for the answer. One at a time: see [`Lease`].
    Control,
    /// The activity log, the state of jobs, the use of the quota: at least 5 % of the day's calls.
    Poll,
    /// Who owns which token: at least 20 %.
    LookUp,
    /// Changes of a list that do not fill a call: at least 25 %.
    Write,
    /// Full calls of a large load, and reading whole lists: what the others leave.
    Bulk,
}

impl Purpose {
    const ALL: [Purpose; 5] = [Purpose::Control, Purpose::Poll, Purpose::LookUp, Purpose::Write, Purpose::Bulk];

    /// Part of the day's calls that is kept for it (design, invariant 7; the part of small writes is ours).
    const fn kept(self) -> f64 {
        match self {
            Purpose::Control | Purpose::Bulk => 0.0,
            Purpose::Poll => 0.05,
            Purpose::LookUp => 0.20,
            Purpose::Write => 0.25,
        }
    }

    /// Whose parts it leaves to them.
    const fn leaves_to(self, other: Purpose) -> bool {
        matches!(self, Purpose::LookUp | Purpose::Write | Purpose::Bulk) && self as u8 != other as u8
    }
}

/// The row: recent sends, and the day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Rate {
    v: u8,
    /// Send times within the window, ms, ascending, and what for.
    sends: Vec<(u64, Purpose)>,
    /// Who was refused for want of a place in the window, and when: small users get their part before large ones.
    waiting: Vec<(u64, Purpose)>,
    /// Nothing is sent before this time, in ms (606, 607, 615).
    closed_until: u64,
    /// Our share of each limit, in per cent, where an operator has set it; absent: the deployment's.
    #[serde(default)]
    share_percent: Option<u64>,
    /// Calls in a window that Marketo seems to have left for us; absent: our share.
    #[serde(default)]
    window: Option<f64>,
    /// Calls at once that Marketo seems to have left for us; absent: our share.
    #[serde(default)]
    at_once: Option<f64>,
    /// Midnight (ms) at which today's count ends.
    day_ends: u64,
    /// Our calls today, by purpose.
    used: [u64; Purpose::ALL.len()],
    /// Calls of other tools today, as far as Marketo has told.
    others: u64,
    /// When Marketo told, in ms.
    others_at: u64,
    /// The next small write is due then, in ms.
    next_write: u64,
    /// Whose call the control plane has under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control: Option<Lease>,
    /// Calls today for those who may only look: part of the control plane's.
    #[serde(default)]
    viewers: u64,
}

/// The right to make the control plane's only call. Each of its requests runs in a function of its own, so the row says
/// whose turn it is, in the same write that permits the call. It ends by itself, should its holder die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Tells it from the lease of whoever came after it.
    id: u64,
    /// When it ends, in ms. A call that it was given for is not waited for any longer.
    pub until: u64,
}

/// Whether calls may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// So many, now.
    Go(usize),
    /// One of the control plane's, now. It is given back ([`give_back`]) once its answer is known.
    Lease(Lease),
    /// None before this time, in ms.
    Wait(u64),
    /// The control plane has a call under way: until this time, in ms, if nobody gives its lease back before.
    Taken(u64),
    /// Whoever may only look has no calls left before this time, in ms.
    ViewersWait(u64),
}

/// Marketo's answer to a call too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushback {
    /// 606: too many calls in the window.
    Rate,
    /// 615: too many at once.
    AtOnce,
    /// 607: the day's quota is used up.
    Day,
}

/// Where the day's calls stand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Calls that we may still make today.
    pub left: u64,
    /// Our calls today.
    pub ours: u64,
    /// Calls of other tools today, as far as Marketo has told.
    pub others: u64,
    /// Our share of the day, in calls. Where other tools have used more than theirs, less is left than that.
    pub share: u64,
    /// When the day ends, in ms.
    pub day_ends: u64,
    /// Time between two small writes that the rest of the day affords, in ms.
    pub between_writes_ms: u64,
    /// A change that comes now waits this long for its call, in ms, before anything that fills a call.
    pub next_write_in_ms: u64,
    /// Calls that those who may only look may still make today, if as many are left at all.
    pub viewers_left: u64,
}

fn key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "budget")
}

/// How many of our calls at once the list-writer makes: our share of Marketo's ten, less one for the identity worker,
/// which is alone by its queue, and one for the control plane, which is alone by its [`Lease`]; at least one. Bounded so,
/// and not by a count of calls in flight, which would be wrong after a death. With a share below 0.3 the three of them
/// may have three calls in flight together, which is more than that share of ten. It follows the deployment's share: one
/// that an operator has set lowers what a permit gives at once, and not this.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn writes_at_once(deps: &Deps) -> usize {
    ((CALLS_AT_ONCE * deps.settings.quota_share) as usize).saturating_sub(2).max(1)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
impl Rate {
    /// The row as of now.
    fn at(found: Option<Self>, now: u64, window: u64) -> Self {
        let mut rate = found.unwrap_or(Rate { v: 1, ..Rate::default() });
        if now >= rate.day_ends {
            rate = Self {
                day_ends: next_midnight(now),
                used: [0; Purpose::ALL.len()],
                others: 0,
                others_at: 0,
                next_write: 0,
                viewers: 0,
                ..rate
            };
        }
        rate.sends.retain(|(sent, _)| sent + window > now);
        // Two windows: who waits for the next free place asks again when others do.
        rate.waiting.retain(|(since, _)| since + 2 * window > now);
        rate
    }

    fn ours(&self) -> u64 {
        self.used.iter().sum()
    }

    /// Our share of each of Marketo's limits, above 0 and at most 1.
    fn share(&self, deps: &Deps) -> f64 {
        self.share_percent.map_or(deps.settings.quota_share, |percent| percent as f64 / 100.0)
    }

    /// Calls that those who may only look may still make today.
    fn viewers_left(&self, deps: &Deps) -> u64 {
        let share = deps.settings.quota_per_day as f64 * self.share(deps);
        ((share * VIEWERS) as u64).max(VIEWERS_LEAST).saturating_sub(self.viewers)
    }

    /// Calls that are ours today: our share, or less where other tools have used more than theirs.
    fn allowance(&self, deps: &Deps) -> f64 {
        let quota = deps.settings.quota_per_day;
        (quota as f64 * self.share(deps)).min(quota.saturating_sub(self.others) as f64).max(0.0)
    }

    /// Part of the day that is left, 0 to 1.
    fn rest(&self, now: u64) -> f64 {
        (self.day_ends.saturating_sub(now) as f64 / domain::limits::DAY_MS as f64).min(1.0)
    }

    fn left(&self, deps: &Deps) -> f64 {
        self.allowance(deps) - self.ours() as f64
    }

    /// Calls that are kept at a moment for those to whom this purpose leaves theirs: what is left of their part, and
    /// no more than the rest of the day is worth.
    fn kept_from(&self, deps: &Deps, purpose: Purpose, at: u64) -> f64 {
        let (allowance, rest) = (self.allowance(deps), self.rest(at));
        let others = Purpose::ALL.into_iter().filter(|other| purpose.leaves_to(*other));
        others
            .map(|other| {
                let part = other.kept() * allowance;
                (part - self.used[other as usize] as f64).clamp(0.0, part * rest)
            })
            .sum()
    }

    /// When the day allows one more call for this purpose, in ms; now, or later.
    fn day_allows(&self, deps: &Deps, purpose: Purpose, now: u64) -> u64 {
        let left = self.left(deps) - 1.0;
        if left < 0.0 {
            return self.day_ends;
        }
        if left >= self.kept_from(deps, purpose, now) {
            return now;
        }
        // What is kept for others shrinks with the day: the first moment at which it is little enough.
        let (mut early, mut late) = (now, self.day_ends);
        while early + 1 < late {
            let middle = early.midpoint(late);
            if left >= self.kept_from(deps, purpose, middle) { late = middle } else { early = middle }
        }
        late
    }

    /// Places in the window for this purpose, or when the next is free.
    fn places(&self, deps: &Deps, purpose: Purpose, window: u64) -> Result<usize, u64> {
        let share = WINDOW_CALLS * self.share(deps);
        let ours = self.window.unwrap_or(share).min(share).max(1.0);
        let sent = |purpose: Purpose| self.sends.iter().filter(|(_, sent)| *sent == purpose).count();
        let kept: usize = self
            .waiting
            .iter()
            .filter(|(_, other)| *other < purpose)
            .map(|(_, other)| ((other.kept().max(0.05) * ours).ceil() as usize).saturating_sub(sent(*other)))
            .sum();
        // However small our share, not all of it is kept for those who wait.
        let taken = self.sends.len() + kept.min((ours as usize).saturating_sub(1));
        let free = (ours as usize).saturating_sub(taken);
        if free > 0 {
            return Ok(free);
        }
        let over = (taken + 1).saturating_sub(ours as usize).min(self.sends.len());
        Err(self.sends.get(over.saturating_sub(1)).map_or(u64::MAX, |(sent, _)| sent + window))
    }

    /// Time between two small writes, in ms, before scaling: what is left for them, evenly.
    fn between_writes(&self, deps: &Deps, now: u64) -> f64 {
        let left = (self.left(deps) - self.allowance(deps) * UNPLANNED).max(0.0);
        let rest = self.day_ends.saturating_sub(now) as f64;
        let passed = (domain::limits::DAY_MS as f64 - rest).max(domain::limits::HOUR_MS as f64);
        let others: u64 = Purpose::ALL[..3].iter().map(|purpose| self.used[*purpose as usize]).sum();
        let others = others as f64 / passed * rest;
        // However much the others use, small writes keep their part.
        let ours = (left - others).max(left * Purpose::Write.kept());
        if ours < 1.0 { rest } else { rest / ours }
    }

    /// How many of the calls that have a place go at once.
    fn going(&self, deps: &Deps, wanted: usize) -> usize {
        let share = CALLS_AT_ONCE * self.share(deps);
        let day = self.left(deps).max(1.0) as usize;
        wanted.min(self.at_once.unwrap_or(share).max(1.0) as usize).min(day).max(1)
    }

    /// Wins back what 606 and 615 took.
    fn recover(&mut self, deps: &Deps, calls: usize) {
        let of = self.share(deps);
        let won =
            |cap: Option<f64>, share: f64| cap.map(|cap| cap + RECOVERY * calls as f64).filter(|cap| *cap < share * of);
        self.window = won(self.window, WINDOW_CALLS);
        self.at_once = won(self.at_once, CALLS_AT_ONCE);
    }
}

fn windows(deps: &Deps) -> u64 {
    deps.settings.scaled(WINDOW_MS + SLACK_MS)
}

/// Changes the row as of now. `change` says whether it is to be written, and answers.
async fn change<R>(deps: &Deps, munchkin: &MunchkinId, mut change: impl FnMut(&mut Rate, u64) -> (bool, R)) -> Step<R> {
    update(
        deps,
        Table::Syncs,
        &key(munchkin),
        |found: Option<Rate>| {
            let now = deps.now();
            let mut rate = Rate::at(found, now, windows(deps));
            let (changed, answer) = change(&mut rate, now);
            Ok((changed.then_some(rate), answer))
        },
        |_| None,
    )
    .await
}

/// Asks for up to `wanted` calls to Marketo, and counts those that may go. The control plane gets one, and a lease.
pub async fn permit(deps: &Deps, munchkin: &MunchkinId, purpose: Purpose, wanted: usize) -> Step<Permit> {
    let window = windows(deps);
    let (control, viewer) = (purpose == Purpose::Control, deps.is_for_viewer());
    let id = if control { deps.ports.random.next_u64() } else { 0 };
    change(deps, munchkin, |rate, now| {
        // Written the time before, and the answer was lost.
        if let Some(lease) = rate.control.filter(|lease| control && lease.id == id) {
            return (false, Permit::Lease(lease));
        }
        if control && viewer && rate.viewers_left(deps) == 0 {
            return (false, Permit::ViewersWait(rate.day_ends));
        }
        if rate.closed_until > now {
            return (false, Permit::Wait(rate.closed_until));
        }
        let day = rate.day_allows(deps, purpose, now);
        if day > now {
            return (false, Permit::Wait(day));
        }
        if let Some(lease) = rate.control.filter(|lease| control && lease.until > now) {
            return (false, Permit::Taken(lease.until));
        }
        let free = match rate.places(deps, purpose, window) {
            Ok(free) => free,
            Err(at) => {
                let at = at.clamp(now + 1, now + window);
                let noted = purpose == Purpose::Bulk || rate.waiting.iter().any(|(_, other)| *other == purpose);
                if !noted {
                    rate.waiting.push((now, purpose));
                }
                return (!noted, Permit::Wait(at));
            }
        };
        let going = if control { 1 } else { rate.going(deps, wanted.min(free)) };
        rate.waiting.retain(|(_, other)| *other != purpose);
        for _ in 0..going {
            rate.sends.push((now, purpose));
            rate.used[purpose as usize] += 1;
        }
        rate.recover(deps, going);
        if !control {
            return (true, Permit::Go(going));
        }
        rate.viewers += u64::from(viewer);
        let lease = Lease { id, until: now + deps.settings.scaled(LEASE_MS) };
        rate.control = Some(lease);
        (true, Permit::Lease(lease))
    })
    .await
}

impl Rate {
    /// Ends a lease, unless it ended by itself and somebody else has taken another since. `false`: so it was.
    fn end(&mut self, lease: Lease) -> bool {
        let held = self.control.is_some_and(|held| held.id == lease.id);
        if held {
            self.control = None;
        }
        held
    }
}

/// Gives a lease back once the answer to its call is known, or the call is not made. Costs the control plane one read and
/// one write of the row for each call; nobody else pays it. Nothing depends on it: a lease ends by itself, too.
pub async fn give_back(deps: &Deps, munchkin: &MunchkinId, lease: Lease) {
    if let Err(failure) = change(deps, munchkin, |rate, _| (rate.end(lease), ())).await {
        tracing::warn!(reason = %failure, "a lease of the control plane is left to end by itself");
    }
}

/// Marketo refused a call as one too many: everybody keeps away for a while. Returns until when, in ms.
pub async fn push_back(deps: &Deps, munchkin: &MunchkinId, pushback: Pushback) -> Step<u64> {
    push_back_and_end(deps, munchkin, pushback, None).await
}

/// The same, where the call was the control plane's: its lease is given back in the same write.
pub async fn push_back_and_end(
    deps: &Deps,
    munchkin: &MunchkinId,
    pushback: Pushback,
    lease: Option<Lease>,
) -> Step<u64> {
    change(deps, munchkin, |rate, now| {
        if let Some(lease) = lease {
            rate.end(lease);
        }
        let share = rate.share(deps);
        // Several calls that were under way together are refused together: that is one refusal.
        let first = rate.closed_until <= now;
        let until = match pushback {
            Pushback::Rate => {
                if first {
                    rate.window = Some((rate.window.unwrap_or(WINDOW_CALLS * share) * BACK_OFF).max(1.0));
                }
                now + windows(deps)
            }
            Pushback::AtOnce => {
                if first {
                    rate.at_once = Some((rate.at_once.unwrap_or(CALLS_AT_ONCE * share) / 2.0).max(1.0));
                }
                let jitter = deps.ports.random.next_u64() % CROWDED_MS;
                now + deps.settings.scaled(CROWDED_MS + jitter)
            }
            Pushback::Day => day_begins_again(now),
        };
        rate.closed_until = rate.closed_until.max(until);
        (true, rate.closed_until)
    })
    .await
}

/// When to try again after 607: the next midnight; or, at one, a minute later, for our clock may be fast; or, just after one, an
/// hour later, for Marketo's day may follow standard time.
fn day_begins_again(now: u64) -> u64 {
    let midnight = next_midnight(now);
    let before = next_midnight(now.saturating_sub(STANDARD_TIME_MS));
    match now.checked_sub(before) {
        None => midnight,
        Some(since) if since < CLOCKS_DIFFER_MS => now + NEARLY_MIDNIGHT_MS,
        Some(_) => before + STANDARD_TIME_MS,
    }
}

/// Books the calls of a visit to a list that fills no call. Returns when they are due, in ms; in the past, or now:
/// at once. Visits come at the pace that the rest of the day affords, in the order in which they were booked.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub async fn book(deps: &Deps, munchkin: &MunchkinId, calls: usize) -> Step<u64> {
    change(deps, munchkin, |rate, now| {
        let due = rate.next_write.max(now.saturating_sub(deps.settings.scaled(BURST_MS)));
        let step = rate.between_writes(deps, now) * calls as f64 * deps.settings.time_scale;
        rate.next_write = due + step as u64;
        (true, due.min(rate.day_ends))
    })
    .await
}

/// An operator has set our share of each of Marketo's limits, in per cent from 1 to 100; `None`: the deployment's counts.
pub async fn set_share(deps: &Deps, munchkin: &MunchkinId, percent: Option<u64>) -> Step<()> {
    change(deps, munchkin, |rate, _| {
        let changed = rate.share_percent != percent;
        rate.share_percent = percent;
        (changed, ())
    })
    .await
}

/// Marketo told how many calls were made on a day (`2026-11-22`, US Central), by everybody; `None`: it would not tell.
/// `asked_at`: just before it was asked, in ms. The word of another day says nothing of today: Marketo's count may lag,
/// and its day may follow standard time.
pub async fn learn_use(deps: &Deps, munchkin: &MunchkinId, used: Option<(String, u64)>, asked_at: u64) -> Step<()> {
    change(deps, munchkin, |rate, now| {
        let today = next_midnight(asked_at) == rate.day_ends;
        if today {
            if let Some((_, everybody)) = used.as_ref().filter(|(date, _)| *date == central_date(asked_at)) {
                rate.others = everybody.saturating_sub(rate.ours());
            }
            rate.others_at = now;
        }
        (today, ())
    })
    .await
}

/// Whether the day has hardly any calls left for this purpose at present: less than a hundredth of it.
pub async fn is_scarce(deps: &Deps, munchkin: &MunchkinId, purpose: Purpose) -> Step<bool> {
    let rate = read(deps, munchkin).await?;
    let free = rate.left(deps) - rate.kept_from(deps, purpose, deps.now());
    Ok(free < rate.allowance(deps) * UNPLANNED)
}

/// When Marketo was last asked for everybody's use of the day, in ms; 0: not today.
pub async fn use_learned_at(deps: &Deps, munchkin: &MunchkinId) -> Step<u64> {
    Ok(read(deps, munchkin).await?.others_at)
}

/// Where the day's calls stand.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub async fn standing(deps: &Deps, munchkin: &MunchkinId) -> Step<Standing> {
    let now = deps.now();
    let rate = read(deps, munchkin).await?;
    let between = rate.between_writes(deps, now) * deps.settings.time_scale;
    Ok(Standing {
        left: rate.left(deps).max(0.0) as u64,
        ours: rate.ours(),
        others: rate.others,
        share: (deps.settings.quota_per_day as f64 * rate.share(deps)) as u64,
        day_ends: rate.day_ends,
        between_writes_ms: between as u64,
        next_write_in_ms: rate.next_write.saturating_sub(now).max(rate.closed_until.saturating_sub(now)),
        viewers_left: rate.viewers_left(deps),
    })
}

async fn read(deps: &Deps, munchkin: &MunchkinId) -> Step<Rate> {
    let found = crate::load::<Rate>(deps, Table::Syncs, &key(munchkin)).await?;
    Ok(Rate::at(found.map(|doc| doc.value), deps.now(), windows(deps)))
}

/// US Central, by whose days Marketo's quota goes. One zone is linked, and not the database of all.
const CENTRAL: TimeZone = jiff::tz::get!("America/Chicago");

/// The date in US Central at a time in ms.
fn central_date(at: u64) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(at).unwrap_or(0)).unwrap_or_default();
    time.to_zoned(CENTRAL).date().to_string()
}

/// The next midnight US Central after `now`, both in ms: when Marketo's daily quota begins anew.
#[must_use]
pub fn next_midnight(now: u64) -> u64 {
    let fallback = (now / 86_400_000 + 1) * 86_400_000 + 6 * 3_600_000;
    let compute = || -> Result<u64, jiff::Error> {
        let now = Timestamp::from_millisecond(i64::try_from(now).unwrap_or(i64::MAX))?;
        let midnight = now.to_zoned(CENTRAL).start_of_day()?.checked_add(1.day())?.start_of_day()?;
        Ok(u64::try_from(midnight.timestamp().as_millisecond()).unwrap_or(u64::MAX))
    };
    compute().unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    #[test]
    fn a_lease_is_ended_by_its_holder_and_by_nobody_who_had_it_before() {
        let lease = |id| Lease { id, until: 40_000 };
        let mut rate = Rate { control: Some(lease(2)), ..Rate::default() };
        assert!(!rate.end(lease(1)));
        assert_eq!(rate.control, Some(lease(2)));
        assert!(rate.end(lease(2)));
        assert_eq!(rate.control, None);
        assert!(!rate.end(lease(2)));
    }

    #[test]
    fn a_row_of_before_there_were_leases_is_read_and_a_free_lease_is_not_written() {
        let written = serde_json::to_value(Rate { v: 1, viewers: 3, ..Rate::default() }).unwrap();
        assert!(written.get("control").is_none());
        let mut before = written.clone();
        before.as_object_mut().unwrap().remove("viewers");
        let rate: Rate = serde_json::from_value(before).unwrap();
        assert_eq!((rate.control, rate.viewers), (None, 0));
    }

    #[test]
    fn midnight_is_central_in_winter_in_summer_and_across_both_switches() {
        for (now, then) in [
            ("2026-01-10T12:00:00Z", "2026-01-11T06:00:00Z"),
            ("2026-07-10T12:00:00Z", "2026-07-11T05:00:00Z"),
            ("2026-03-08T07:00:00Z", "2026-03-09T05:00:00Z"),
            ("2026-11-01T06:00:00Z", "2026-11-02T06:00:00Z"),
            ("2026-01-11T06:00:00Z", "2026-01-12T06:00:00Z"),
        ] {
            assert_eq!(next_midnight(ms(now)), ms(then), "{now}");
        }
    }

    #[test]
    fn a_607_at_midnight_is_tried_again_a_minute_later_and_then_when_the_day_begins_in_standard_time() {
        for (now, then) in [
            ("2026-07-10T12:00:00Z", "2026-07-11T05:00:00Z"),
            ("2026-07-11T05:00:00Z", "2026-07-11T05:01:00Z"),
            ("2026-07-11T05:04:59Z", "2026-07-11T05:05:59Z"),
            ("2026-07-11T05:05:00Z", "2026-07-11T06:30:00Z"),
            ("2026-01-11T06:00:01Z", "2026-01-11T06:01:01Z"),
            ("2026-07-11T06:31:00Z", "2026-07-12T05:00:00Z"),
            ("2026-03-08T06:10:00Z", "2026-03-08T07:30:00Z"),
            ("2026-03-09T05:10:00Z", "2026-03-09T06:30:00Z"),
        ] {
            assert_eq!(day_begins_again(ms(now)), ms(then), "{now}");
        }
    }
}
