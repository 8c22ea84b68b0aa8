//! Marketo's limits are shared: one item of recent send times a subscription bounds the rate of all functions.

use domain::MunchkinId;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use ports::{Key, Table};
use serde::{Deserialize, Serialize};

use crate::{Deps, Step, update};

/// Marketo's rolling window of calls, in ms (100 calls in 20 s).
pub const WINDOW_MS: u64 = 20_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Rate {
    v: u8,
    /// Send times within the window, ms, ascending.
    sends: Vec<u64>,
    /// Midnight (ms) at which today's count ends.
    day_ends: u64,
    /// Calls today.
    used: u64,
}

/// Whether a call may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Now.
    Go,
    /// Not before this time, in ms.
    Wait(u64),
}

fn key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "budget")
}

/// Asks for one call to Marketo, and counts it if it may go.
pub async fn permit(deps: &Deps, munchkin: &MunchkinId) -> Step<Permit> {
    let now = deps.now();
    let window = deps.settings.scaled(WINDOW_MS);
    update(
        deps,
        Table::Syncs,
        &key(munchkin),
        |found: Option<Rate>| {
            let mut rate = found.unwrap_or(Rate { v: 1, ..Rate::default() });
            if now >= rate.day_ends {
                rate.day_ends = next_midnight(now);
                rate.used = 0;
            }
            if rate.used >= deps.settings.calls_per_day {
                return Ok((None, Permit::Wait(rate.day_ends)));
            }
            rate.sends.retain(|sent| sent + window > now);
            if rate.sends.len() >= deps.settings.calls_per_window {
                return Ok((
                    None,
                    Permit::Wait(rate.sends[rate.sends.len() - deps.settings.calls_per_window] + window),
                ));
            }
            rate.sends.push(now);
            rate.used += 1;
            Ok((Some(rate), Permit::Go))
        },
        |_| None,
    )
    .await
}

/// Calls counted today.
pub async fn used_today(deps: &Deps, munchkin: &MunchkinId) -> Step<u64> {
    let rate = crate::load::<Rate>(deps, Table::Syncs, &key(munchkin)).await?;
    Ok(rate.map_or(0, |doc| if deps.now() < doc.value.day_ends { doc.value.used } else { 0 }))
}

/// The next midnight US Central after `now`, both in ms: when Marketo's daily quota begins anew.
#[must_use]
pub fn next_midnight(now: u64) -> u64 {
    let fallback = (now / 86_400_000 + 1) * 86_400_000 + 6 * 3_600_000;
    let compute = || -> Result<u64, jiff::Error> {
        let zone = TimeZone::get("America/Chicago")?;
        let now = Timestamp::from_millisecond(i64::try_from(now).unwrap_or(i64::MAX))?;
        let midnight = now.to_zoned(zone).start_of_day()?.checked_add(1.day())?.start_of_day()?;
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
}
