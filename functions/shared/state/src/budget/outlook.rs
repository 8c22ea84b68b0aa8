//! How long calls will take, reckoned from the budget as it stands.

use domain::MunchkinId;
use domain::limits::DAY_MS;

use super::{Purpose, Rate, WINDOW_CALLS, read, windows};
use crate::{Deps, Step};

/// Days that are looked ahead, at most. Ours: what takes longer than a month is not waited for.
const DAYS: usize = 31;

/// What the budget says of the calls to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// When this was so, in ms.
    pub now: u64,
    /// Calls that we may still make today.
    pub left: f64,
    /// Calls of those that are kept for others at this moment; fewer and fewer until the day ends.
    pub kept: f64,
    /// Calls that are ours on a whole day.
    pub allowance: f64,
    /// When the day ends, in ms.
    pub day_ends: u64,
    /// Nothing is sent before this time, in ms.
    pub closed_until: u64,
    /// Calls a second that the rolling window allows us, as Marketo's answers have left it.
    pub per_second: f64,
    /// Look-ups today.
    pub look_ups_today: u64,
    /// Look-ups and calls that change lists, today.
    pub calls_today: u64,
    /// The first moment at which the day allows a look-up, in ms; now, or later.
    pub look_up_at: u64,
    /// The same of a change of a list.
    pub write_at: u64,
    /// A small change that comes now waits so long for its call, in ms.
    pub next_write_in_ms: u64,
}

/// Reads it.
#[expect(clippy::cast_precision_loss)]
pub async fn outlook(deps: &Deps, munchkin: &MunchkinId) -> Step<Outlook> {
    let now = deps.now();
    let rate = read(deps, munchkin).await?;
    let seconds = windows(deps) as f64 / 1_000.0;
    let share = WINDOW_CALLS * rate.share(deps);
    let per_second = rate.window.unwrap_or(share).min(share).max(1.0) / seconds;
    let open = |rate: &Rate, purpose| rate.day_allows(deps, purpose, now).max(rate.closed_until).max(now);
    Ok(Outlook {
        now,
        left: rate.left(deps).max(0.0),
        kept: rate.kept_from(deps, Purpose::LookUp, now),
        allowance: rate.allowance(deps),
        day_ends: rate.day_ends,
        closed_until: rate.closed_until.max(now),
        per_second,
        look_ups_today: rate.used[Purpose::LookUp as usize],
        calls_today: [Purpose::LookUp, Purpose::Write, Purpose::Bulk].iter().map(|of| rate.used[*of as usize]).sum(),
        look_up_at: open(&rate, Purpose::LookUp),
        write_at: open(&rate, Purpose::Write),
        next_write_in_ms: rate.next_write.saturating_sub(now),
    })
}

impl Outlook {
    /// Seconds until so many calls are made at the pace that the window allows, if nobody else makes any: what the day has
    /// left is used first, then what it keeps for others as it is lent, which is evenly until its end; and what is left
    /// then is done on the days after. `None`: not within a month.
    #[must_use]
    #[expect(clippy::cast_precision_loss)]
    pub fn seconds(&self, calls: f64) -> Option<f64> {
        let mut calls = calls;
        let mut passed = self.closed_until.saturating_sub(self.now) as f64 / 1_000.0;
        let mut day_ends = self.day_ends.saturating_sub(self.now) as f64 / 1_000.0;
        let (mut left, mut kept) = (self.left, self.kept);
        // On a day that begins, a look-up and a large load leave the same part to others, nearly.
        let fresh = Purpose::ALL.iter().filter(|other| Purpose::LookUp.leaves_to(**other)).map(|other| other.kept());
        let kept_of_a_day = fresh.sum::<f64>() * self.allowance;
        for _ in 0..DAYS {
            let at_pace = calls / self.per_second;
            if calls <= left - kept {
                return Some(passed + at_pace);
            }
            if calls <= left {
                let rest = (day_ends - passed).max(0.0);
                let lent = rest * (calls - left + kept) / kept.max(1.0);
                return Some(passed + at_pace.max(lent));
            }
            calls -= left;
            passed = passed.max(day_ends);
            (left, kept) = (self.allowance, kept_of_a_day);
            day_ends += DAY_MS as f64 / 1_000.0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(left: f64, kept: f64) -> Outlook {
        Outlook {
            now: 0,
            left,
            kept,
            allowance: 1_000.0,
            day_ends: 36_000_000,
            closed_until: 0,
            per_second: 2.0,
            look_ups_today: 0,
            calls_today: 0,
            look_up_at: 0,
            write_at: 0,
            next_write_in_ms: 0,
        }
    }

    fn seconds(outlook: Outlook, calls: f64) -> u64 {
        outlook.seconds(calls).map_or(u64::MAX, |seconds| seconds.round() as u64)
    }

    #[test]
    fn calls_go_at_the_pace_of_the_window_as_long_as_the_day_has_some() {
        assert_eq!(seconds(outlook(500.0, 200.0), 300.0), 150);
        let closed = Outlook { closed_until: 20_000, ..outlook(500.0, 200.0) };
        assert_eq!(seconds(closed, 300.0), 170);
    }

    #[test]
    fn what_is_kept_for_others_is_lent_until_the_day_ends() {
        // Half of the 200 that are kept: half of the ten hours that are left.
        assert_eq!(seconds(outlook(500.0, 200.0), 400.0), 18_000);
        assert_eq!(seconds(outlook(500.0, 200.0), 500.0), 36_000);
    }

    #[test]
    fn the_rest_is_done_on_the_days_after() {
        assert_eq!(seconds(outlook(500.0, 200.0), 600.0), 36_000 + 50);
        // A day keeps 30 % for others: all of the next day's are used at its end.
        assert_eq!(seconds(outlook(500.0, 200.0), 1_500.0), 36_000 + 86_400);
        assert_eq!(seconds(outlook(500.0, 200.0), 1_600.0), 36_000 + 86_400 + 50);
        assert_eq!(seconds(outlook(0.0, 0.0), 1_000_000.0), u64::MAX);
    }
}
