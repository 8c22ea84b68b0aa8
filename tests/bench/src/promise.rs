//! The promise of freshness at full size, on the virtual clock (`simulation::promise`, `simulation::first`): how soon
//! lists show each kind of change, and how long a first sync takes. Counts and virtual times, the same on every machine.

use std::io::Write as _;

use anyhow::ensure;
use domain::limits::{DAY_MS, HOUR_MS};
use simulation::{first, promise};

use crate::flags::Flags;

/// Midnight US Central on 2026-01-20, in ms: a day of 24 hours begins.
const MIDNIGHT: u64 = 1_768_888_800_000;
/// Design, bar P6: lists, and 95 of 100 entries and exits within so many seconds.
const BARS: [(u64, f64); 3] = [(8, 120.0), (40, 360.0), (300, 2_700.0)];
/// Issue 5: 95 of 100 within ten minutes, in seconds. Of many lists the calls of the day decide (bar P6).
const SOON: f64 = 600.0;
/// Issue 5: never later, in seconds.
const MOST: f64 = 7_200.0;

/// Tokens of a first sync that nobody has asked about, and known people (issue 5).
const TOKENS: u64 = 5_000_000;
const PEOPLE: u64 = 2_000_000;

/// One change a second over so many lists, a day and a night long.
fn around_the_clock(lists: u64) -> promise::Plan {
    promise::Plan {
        lists,
        people: 24_000 / lists,
        // Changes begin when the day is three hours old.
        begin: MIDNIGHT,
        changing_ms: DAY_MS,
        stream_every_ms: 1_200,
        people_every_ms: 12_000,
        spent: 0,
        seed: 1,
    }
}

/// Prints the table of bar P6; an error where it, or the promise, is missed.
pub fn freshness(json: bool) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    for (lists, bar) in BARS {
        let measured = promise::measure(&around_the_clock(lists));
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(&measured)?)?;
        } else {
            let calls: Vec<String> =
                measured.days.iter().map(|day| format!("{} of {}", day.calls, day.allowed)).collect();
            writeln!(
                out,
                "{lists} lists: calls by day {}; in 20 s: {}; at once: {}; refused: {}",
                calls.join(", "),
                measured.most_in_20_seconds,
                measured.most_at_once,
                measured.refused,
            )?;
            for (fact, took) in &measured.took {
                writeln!(
                    out,
                    "  {:<8} {:>6}  p50 {:>6.0} s  p95 {:>6.0} s  max {:>6.0} s  missing {}",
                    format!("{fact:?}"),
                    took.changes,
                    took.p50_seconds,
                    took.p95_seconds,
                    took.max_seconds,
                    took.missing,
                )?;
            }
        }
        for (fact, took) in &measured.took {
            // Who becomes known waits for the log to be read, besides.
            let bar = match fact {
                promise::Fact::Enters | promise::Fact::Leaves => bar,
                promise::Fact::Matched | promise::Fact::Known => bar.max(SOON),
            };
            if took.p95_seconds > bar || took.max_seconds > MOST || took.missing > 0 {
                missed.push(format!("{lists} lists, {fact:?}: {took:?}"));
            }
        }
        if measured.days.iter().any(|day| day.calls > day.allowed) {
            missed.push(format!("{lists} lists: more calls than our share"));
        }
    }
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

/// What the command line asks for.
pub fn first_plan(words: &[&str]) -> anyhow::Result<(first::Plan, bool)> {
    let flags = Flags::read(words, &["--tokens", "--people"], &["--json"])?;
    let plan = first::Plan {
        tokens: flags.number("--tokens").unwrap_or(TOKENS),
        known: flags.number("--people").unwrap_or(PEOPLE),
        quota: promise::QUOTA,
        share: 0.5,
        // The worst moment: the 24 hours that follow have one day's calls. At any other they have parts of two.
        begin: MIDNIGHT,
        patience_ms: 30 * HOUR_MS,
        aloud: true,
    };
    ensure!(plan.known > 0 && plan.known <= plan.tokens, "each person has a token");
    Ok((plan, flags.has("--json")))
}

/// Prints how a first sync went; an error if it took longer than a day.
pub fn first_sync(words: &[&str]) -> anyhow::Result<()> {
    let (plan, json) = first_plan(words)?;
    let measured = first::measure(&plan);
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&measured)?)?;
    } else {
        let first::Measured { tokens, known, in_list, hours, first_hours, asked_hours, .. } = measured;
        let at = |hours: Option<f64>| hours.map_or("never".to_owned(), |hours| format!("{hours:.2} h"));
        writeln!(out, "{tokens} tokens, {known} known people, {in_list} of them in the list")?;
        writeln!(
            out,
            "first in the list after {}, every token asked about after {}",
            at(first_hours),
            at(asked_hours)
        )?;
        writeln!(out, "list written by then: {:.0} %", measured.written_when_asked * 100.0)?;
        writeln!(out, "whole after {}", at(hours))?;
        for day in &measured.days {
            writeln!(
                out,
                "{} of {} calls of a day, {} left: {:?}",
                day.calls,
                day.allowed,
                day.allowed - day.calls,
                day.kinds
            )?;
        }
        writeln!(
            out,
            "in 20 s: {}; at once: {}; refused: {}; passes: {}; most rings of its own in a row: {}; stopped: {}; failed: {}",
            measured.most_in_20_seconds,
            measured.most_at_once,
            measured.refused,
            measured.passes,
            measured.most_laps,
            measured.stopped,
            measured.failed,
        )?;
    }
    ensure!(!measured.held && !measured.stuck, "a mass change was held, or a key was set aside");
    ensure!(measured.hours.is_some_and(|hours| hours <= 24.0), "it took more than a day");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_first_sync_is_asked_for() {
        let (plan, json) = first_plan(&["--tokens", "600", "--people", "200", "--json"]).expect("a plan");
        assert_eq!((plan.tokens, plan.known, json), (600, 200, true));
        assert!(first_plan(&["--people", "9", "--tokens", "8"]).is_err());
    }
}
