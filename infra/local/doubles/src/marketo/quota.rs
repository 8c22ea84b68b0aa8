//! The limits that every caller of the instance shares, and the days that count against them.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::{Answer, CONCURRENT_CALLS, Kind, Marketo, RATE_CALLS, RATE_WINDOW_MS, Refusal};

/// The user of our calls: the `scope` of the access token.
pub const OUR_USER: &str = "api@example.com";
/// The user of everybody else's calls.
pub const OTHER_USER: &str = "other@example.com";

/// Days that `last7days` tells of, today included.
const DAYS: usize = 7;
const DAY_MS: u64 = 86_400_000;

/// When the quota's day begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuotaDay {
    /// At midnight in Chicago, with daylight saving.
    #[default]
    Central,
    /// At 06:00 UTC all year: Central Standard Time, read to the letter.
    FixedCst,
}

/// What was called on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Day {
    /// `2026-11-20`; empty: no call has come yet.
    date: String,
    ours: u32,
    others: u32,
    /// Answers by Marketo's code, everybody's.
    errors: BTreeMap<u16, u32>,
}

impl Day {
    fn total(&self) -> u32 {
        self.ours.saturating_add(self.others)
    }

    fn usage(&self) -> String {
        let Self { date, ours, others, .. } = self;
        let others = match others {
            0 => String::new(),
            others => format!(r#",{{"userId":"{OTHER_USER}","count":{others}}}"#),
        };
        let total = self.total();
        format!(r#"{{"date":"{date}","total":{total},"users":[{{"userId":"{OUR_USER}","count":{ours}}}{others}]}}"#)
    }

    fn errors(&self) -> String {
        let (date, total) = (&self.date, self.errors.values().sum::<u32>());
        let rows = self.errors.iter().map(|(code, count)| format!(r#"{{"errorCode":"{code}","count":{count}}}"#));
        let rows = rows.collect::<Vec<_>>().join(",");
        format!(r#"{{"date":"{date}","total":{total},"errors":[{rows}]}}"#)
    }
}

impl Marketo {
    /// Calls that counted against today's quota, other tools' too.
    #[must_use]
    pub fn used_today(&self) -> u32 {
        self.state.today.total()
    }

    /// A call of another tool on the same instance. It takes a place in the rolling window, in flight (for
    /// `latency_ms`) and in the day's quota as one of ours would, and stands in no log. `false`: it was refused
    /// itself (606, 607, 615).
    pub fn other_call(&mut self, now_ms: u64, latency_ms: u64) -> bool {
        let now = self.advance(now_ms);
        self.in_flight.retain(|until| *until > now);
        let refused = self.take_place(now).err().map_or(0, |Refusal(code, _)| code);
        if refused == 0 && latency_ms > 0 {
            self.in_flight.push(now + latency_ms);
        }
        let today = &mut self.state.today;
        if counts(refused) {
            today.others = today.others.saturating_add(1);
        }
        if refused != 0 {
            *today.errors.entry(refused).or_default() += 1;
        }
        refused == 0
    }

    /// Other tools have made so many calls more today, at some other time than now.
    pub fn others_used(&mut self, now_ms: u64, calls: u32) {
        self.advance(now_ms);
        let today = &mut self.state.today;
        today.others = today.others.saturating_add(calls);
    }

    /// A place within the daily quota, the rate and the concurrency, in this order.
    pub(super) fn take_place(&mut self, now: u64) -> Result<(), Refusal> {
        let window = self.scaled(RATE_WINDOW_MS);
        while self.window.front().is_some_and(|at| at + window <= now) {
            self.window.pop_front();
        }
        if !self.settings.limits {
            return Ok(());
        }
        if self.used_today() >= self.settings.daily_quota {
            return Err(Refusal(607, format!("Daily quota '{}' reached", self.settings.daily_quota)));
        }
        // A refused call takes no place in the window, or a caller that keeps trying would never get in.
        if self.window.len() >= RATE_CALLS {
            return Err(Refusal(606, format!("Max rate limit '{RATE_CALLS}' exceeded with in '20' secs")));
        }
        if self.in_flight.len() >= CONCURRENT_CALLS {
            return Err(Refusal(615, format!("Concurrent access limit '{CONCURRENT_CALLS}' reached")));
        }
        self.window.push_back(now);
        Ok(())
    }

    /// Counts a call of ours: identity never counts, nor what the gateway refused for its size or its token.
    pub(super) fn count(&mut self, kind: Kind, answer: &Answer) {
        if kind == Kind::Token {
            return;
        }
        let today = &mut self.state.today;
        if !matches!(answer.status, 401 | 413 | 414) && counts(answer.code) {
            today.ours = today.ours.saturating_add(1);
        }
        if answer.code != 0 {
            *today.errors.entry(answer.code).or_default() += 1;
        }
    }

    /// Begins the quota's day anew once its midnight has passed.
    pub(super) fn begin_day(&mut self, now: u64) {
        if now < self.day_until {
            return;
        }
        let (date, until) = day_of(self.settings.quota_day, now);
        self.day_until = until;
        let date = date.to_string();
        if date == self.state.today.date {
            return;
        }
        let today = Day { date, ..Day::default() };
        let past = std::mem::replace(&mut self.state.today, today);
        if !past.date.is_empty() {
            self.state.past.push(past);
        }
        let surplus = self.state.past.len().saturating_sub(DAYS);
        self.state.past.drain(..surplus);
        self.state.exported_bytes = 0;
        self.forget_old_exports(now);
        self.forget_old_imports(now);
        self.plan_jobs();
    }

    pub(super) fn usage(&mut self) -> Answer {
        let row = self.state.today.usage();
        self.success(&format!("\"result\":[{row}]"))
    }

    pub(super) fn usage_of_week(&mut self, now: u64) -> Answer {
        let rows = self.week(now, Day::usage);
        self.success(&format!("\"result\":[{rows}]"))
    }

    pub(super) fn errors(&mut self) -> Answer {
        let row = self.state.today.errors();
        self.success(&format!("\"result\":[{row}]"))
    }

    pub(super) fn errors_of_week(&mut self, now: u64) -> Answer {
        let rows = self.week(now, Day::errors);
        self.success(&format!("\"result\":[{rows}]"))
    }

    /// Today and the six days before it, the newest first; days without any call have no row.
    fn week(&self, now: u64, row: impl Fn(&Day) -> String) -> String {
        let (today, _) = day_of(self.settings.quota_day, now);
        let first = today.saturating_sub(6.days()).to_string();
        let days = self.state.past.iter().filter(|day| day.date >= first);
        let days = std::iter::once(&self.state.today).chain(days.rev());
        days.map(row).collect::<Vec<_>>().join(",")
    }
}

/// Whether a call that was answered with this code counts against the quota: the starred codes do not.
fn counts(code: u16) -> bool {
    !matches!(code, 601 | 602 | 604 | 605 | 607 | 608 | 611)
}

/// The date of the quota's day, and when it ends.
fn day_of(kind: QuotaDay, now_ms: u64) -> (Date, u64) {
    let zone = match kind {
        QuotaDay::Central => jiff::tz::get!("America/Chicago"),
        QuotaDay::FixedCst => TimeZone::fixed(Offset::constant(-6)),
    };
    let at = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX);
    let at = at.to_zoned(zone);
    let midnight = at.tomorrow().and_then(|tomorrow| tomorrow.start_of_day());
    let until = midnight.ok().and_then(|midnight| u64::try_from(midnight.timestamp().as_millisecond()).ok());
    (at.date(), until.unwrap_or(now_ms + DAY_MS))
}
