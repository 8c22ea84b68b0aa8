//! Runs seeds of the whole-system simulation.
//!
//! `cargo run --release -p simulation -- --seeds N [--from S] [--planted NAME] [--json]`: N seeds from S on (0), on all cores.
//! `--planted` takes a guard out ([`domain::planted::Guard`]) and says after how many seeds that is found. Exit status: 0 if no
//! seed failed, or the planted bug was found; 1 otherwise; 2 if a flag is wrong.
//!
//! `--table [--seeds N]`: the table of `infra/docs/simulation.md`, measured: after how many of N seeds each planted bug is found.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use domain::planted::Guard;
use simulation::campaign::{Campaign, Outcome, as_json, cores, found_after, per_second, run, tell};
use simulation::counted::processor_seconds;

/// Worlds are many small pieces of memory: the system's own allocator takes a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Failures that are told with their stories.
const TOLD: usize = 3;
/// Failures after which the rest is not run.
const GIVE_UP_AFTER: usize = 100;

fn read(mut words: impl Iterator<Item = String>) -> Result<(Campaign, bool), String> {
    let mut campaign = Campaign { from: 0, seeds: 1_000, planted: None, give_up_after: GIVE_UP_AFTER };
    let mut json = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} takes a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{word} takes a whole number"));
        match word.as_str() {
            "--seeds" => campaign.seeds = number(value()?)?,
            "--from" => campaign.from = number(value()?)?,
            "--planted" => {
                let name = value()?;
                let names = || Guard::ALL.map(|guard| format!("{guard:?}")).join(", ");
                let guard = Guard::parse(&name).ok_or_else(|| format!("no guard {name}; there are {}", names()))?;
                campaign.planted = Some(guard);
            }
            "--json" => json = true,
            _ => return Err(format!("unknown flag {word}")),
        }
    }
    Ok((campaign, json))
}

fn print(campaign: Campaign, outcome: &Outcome, seconds: f64, busy: Option<f64>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for failing in outcome.failures.iter().take(TOLD) {
        writeln!(out, "{}", tell(failing, campaign.planted))?;
    }
    for failing in outcome.failures.iter().skip(TOLD) {
        writeln!(out, "seed {}: {}", failing.seed, failing.fault.lines().next().unwrap_or_default())?;
    }
    writeln!(out, "seeds      {}", outcome.seeds)?;
    writeln!(out, "failures   {}", outcome.failures.len())?;
    writeln!(out, "time       {seconds:.1} s")?;
    writeln!(out, "per second {:.0} on {} cores", per_second(outcome, seconds), cores())?;
    if let Some(busy) = busy {
        writeln!(out, "a core     {:.0} per second of its work ({busy:.1} s)", per_second(outcome, busy))?;
    }
    let hours = outcome.virtual_ms / 3_600_000;
    writeln!(out, "in them    {} invocations, {} calls, {hours} hours", outcome.invocations, outcome.calls)?;
    writeln!(out, "trace      {:016x}", outcome.trace)?;
    for (kind, times) in outcome.counts.iter() {
        writeln!(out, "{times:>12} {}", kind.name())?;
    }
    for (fact, times, slowest_ms) in outcome.lateness.iter() {
        writeln!(
            out,
            "{times:>12} of the kind {fact}: in the lists after {} s at the latest",
            slowest_ms.div_ceil(1_000)
        )?;
    }
    if let Some(guard) = campaign.planted {
        match found_after(campaign, outcome) {
            Some(seeds) => writeln!(out, "{guard:?}: found after {seeds} seeds")?,
            None => writeln!(out, "{guard:?}: not found in {} seeds", outcome.seeds)?,
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how long the run takes is reported; nothing depends on it")]
fn main() -> ExitCode {
    let (flag, words): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word == "--table");
    let (campaign, json) = match read(words.into_iter()) {
        Ok(read) => read,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    if !flag.is_empty() {
        let printed = simulation::planted::table(campaign.seeds, |line| writeln!(std::io::stdout(), "{line}"));
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let began = Instant::now();
    let shows = std::io::stderr().is_terminal();
    let told = std::sync::atomic::AtomicU64::new(0);
    let named = std::sync::atomic::AtomicUsize::new(0);
    let outcome = run(campaign, |seeds, failures| {
        // At once: the rest may take an hour.
        for failing in &failures[named.swap(failures.len(), std::sync::atomic::Ordering::Relaxed)..] {
            eprintln!("seed {} fails", failing.seed);
        }
        let failures = failures.len();
        // On a terminal five times a second, elsewhere each minute.
        let due = began.elapsed().as_secs() / 60;
        if shows || told.fetch_max(due, std::sync::atomic::Ordering::Relaxed) < due {
            let end = if shows { "\r" } else { "\n" };
            eprint!("{seeds} of {} seeds, {failures} failures, {} s{end}", campaign.seeds, began.elapsed().as_secs());
        }
    });
    let (seconds, busy) = (began.elapsed().as_secs_f64(), processor_seconds());
    let printed = if json {
        writeln!(std::io::stdout(), "{}", as_json(campaign, &outcome, seconds, busy))
    } else {
        print(campaign, &outcome, seconds, busy)
    };
    let well = if campaign.planted.is_some() { !outcome.failures.is_empty() } else { outcome.failures.is_empty() };
    if well && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
