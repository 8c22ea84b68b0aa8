//! Measurements on the local stack.
//!
//! `cargo run --release -p bench -- settle [--json]`: how long a world of 100,000 ECIDs, 30,000 matches and 10,000
//! leads takes to settle, Marketo's limits lifted (issue 2 asks for two minutes on two cores with the profile of
//! `cargo run`: leave `--release` out for that one). The lists are compared with the reference model; a difference
//! is an error.
//!
//! `cargo run --release -p bench -- writer [SCENARIO] [--json]`: the list-writer at the full speed that Marketo allows, on
//! a virtual clock ([`writer`]). What it prints with `--json` is kept in `writer.jsonl`, and a test compares it; whoever
//! changes a figure on purpose writes that file anew with this command.
//!
//! `cargo run --release -p bench -- beacons [--json]`: what beacons cost of DynamoDB, SQS and Lambda, per 1,000
//! ([`beacons`]). Recorded in `beacons.jsonl`, and compared in the same way; `prices.json` makes dollars of it.
//!
//! `cargo run --release -p bench -- freshness [--json]`: how soon 8, 40 and 300 lists show each kind of change, around the
//! clock ([`promise`]). A smaller one is a test of the simulation.
//!
//! `cargo run --release -p bench -- first-sync [--tokens N] [--people N] [--json]`: a first sync of 5 million tokens that
//! nobody has asked about and 2 million known people. It takes hours of one core, and 2.3 GB.
//!
//! `cargo run --release -p bench -- spike [--json]`: beacons at the highest rate that this machine sustains, for a
//! minute ([`spike`]). An error if one of them is lost that was answered 2xx, or if it is fewer than 400 a second.
//!
//! `cargo run --release -p bench -- events [--json]`: signed messages of a stream at the highest rate that this machine
//! sustains, for a minute ([`events`]). An error if one of them is lost that was answered 200, or if the 99th of a hundred
//! answers takes a second.
//!
//! `cargo run --release -p bench -- download [--people N] [--refused PERCENT] [--json]`: everybody of a sync of two million
//! people as CSV, request by request (`simulation::download`): requests, parts, bytes, reads and writes, a processor's time
//! and memory. An error if S3 would not take the parts, or if half of the function's time or memory were not enough. The
//! counts are kept in `download.jsonl`, and a test of the simulation compares them.
//!
//! `cargo run --release -p bench -- import [--all] [--size N] [--segments N] [--churn PERCENT] [--changes N] [--json]`: a full
//! file of so many ECIDs, each in so many segments, the one of the day after, and one of what changed ([`import`]). An error if
//! one takes more than 16 bytes of memory a membership beside a constant. Without any flag but `--json` the counts are those of
//! `import.jsonl`, which a test of the simulation compares; `--all` goes up to ten million ECIDs.
//!
//! `cargo run --release -p bench -- delta [--size N] [--json]`: a hundred changes, one in a hundred, and somebody who becomes
//! known ([`delta`]). An error if they cost more than they may (design, P4). Recorded in `delta.jsonl`, and compared.
//!
//! `cargo run --release -p bench -- whole [--size N] [--churn PERCENT] [--days N] [--json]`: a full file from `incoming/` to
//! *want* of three audiences, and the one of the day after ([`whole`]): what it uses of AWS, a processor's time with that of the
//! SDK, and memory.
//!
//! `cargo run --release -p bench -- parts [--json]`: a day in which nothing happens, tokens that are asked about again, people
//! written to a list, and a visitor who becomes known ([`parts`]). Recorded in `parts.jsonl`, and compared.
//!
//! `cargo run -p bench -- cost [--json | --readme]`: what a month costs, for three sizes of user, by what is recorded and
//! `prices.json` ([`cost`]). `--readme` writes the README's section anew, which a test compares. What is assumed is changed by
//! flags: `--views`, `--visiting-percent`, `--new-percent`, `--churn-percent`, `--known-per-thousand`, `--files-a-day`,
//! `--syncs`, `--ms`, `--beacon-ms`, `--log-bytes`, `--metrics`.
//!
//! `cargo run --release -p bench -- codecs [--size N] [--json]`: its kernels, each by itself ([`codecs`]).
//!
//! `cargo run --release -p bench -- versus-duckdb [--size N] [--json]`: the same file parsed, compared and joined by us and by
//! DuckDB ([`versus`]). An error if they find anything different. Needs python3, and puts DuckDB into `.tools/`.
//!
//! `cargo run --release -p bench -- growth [--size N] [--json]`: cost and time of a first load and of a hundred changes, up to
//! ten million ECIDs ([`growth`]); draws `infra/docs/growth.svg`.
//!
//! `cargo run --release -p bench -- packages [--json | --record]`: size of each function's zip, crates that are linked, and how long
//! a new process takes to its first event ([`packages`]). An error if a zip is over 3 MB (design, P7), or anything but the time is
//! other than in `packages.jsonl`, which `--record` prints. The zips must have been built.

mod beacons;
mod codecs;
mod cost;
mod delta;
mod events;
mod flags;
mod growth;
mod import;
mod packages;
mod parts;
mod promise;
mod rig;
mod spike;
mod versus;
mod whole;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use simulation::download;
use world::reference;
use world::sample::{self, Size};

use crate::flags::Flags;

/// Issue 2: two minutes.
const BAR: Duration = Duration::from_secs(120);
/// Any seed would do; this one is always the same.
const SEED: u64 = 1;
const USAGE: &str = "usage: cargo run [--release] -p bench -- settle [--json] | writer [SCENARIO] [--json] | \
                     beacons [--json] | spike [--json] | events [--json] | freshness [--json] | \
                     download [--people N] [--refused PERCENT] [--json] | \
                     import [--all | --size N --segments N --churn PERCENT --changes N] [--json] | \
                     delta [--size N] [--json] | codecs [--size N] [--json] | \
                     parts [--json] | cost [--json | --readme] [ASSUMPTION N]... | \
                     whole [--size N] [--churn PERCENT] [--days N] [--json] | \
                     versus-duckdb [--size N] [--json] | growth [--size N] [--json] | \
                     packages [--json | --record] | \
                     first-sync [--tokens N] [--people N] [--json]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        ["settle"] => settle(false),
        ["settle", "--json"] => settle(true),
        ["writer", words @ ..] => {
            let json = words.contains(&"--json");
            let only = words.iter().copied().find(|word| !word.starts_with("--"));
            show(&writer::run(only), json)
        }
        ["beacons"] => beacons::run().and_then(|measured| show_beacons(&measured, false)),
        ["beacons", "--json"] => beacons::run().and_then(|measured| show_beacons(&measured, true)),
        ["download", words @ ..] => show_download(words),
        ["import", words @ ..] => import::run(words),
        ["delta", words @ ..] => delta::run(words),
        ["parts", words @ ..] => parts::run(words),
        ["cost", words @ ..] => cost::run(words),
        ["codecs", words @ ..] => codecs::run(words),
        ["growth", words @ ..] => growth::run(words),
        ["packages", words @ ..] => packages::run(words),
        ["versus-duckdb", words @ ..] => versus::run(words),
        [versus::OURS, folder] => versus::ours(Path::new(folder)),
        ["whole", words @ ..] => whole::run(words),
        ["freshness"] => promise::freshness(false),
        ["freshness", "--json"] => promise::freshness(true),
        ["first-sync", words @ ..] => promise::first_sync(words),
        ["spike"] => spike::run().and_then(|spike| show_spike(&spike, false)),
        ["spike", "--json"] => spike::run().and_then(|spike| show_spike(&spike, true)),
        ["events"] => events::run().and_then(|held| show_events(&held, false)),
        ["events", "--json"] => events::run().and_then(|held| show_events(&held, true)),
        _ => {
            writeln!(std::io::stderr(), "{USAGE}").ok();
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

/// One line a scenario.
fn show(measured: &[writer::Measured], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for one in measured {
        if json {
            writeln!(out, "{}", serde_json::to_string(one)?)?;
            continue;
        }
        writeln!(
            out,
            "{:<26} {:>6} of {:>6} calls  {:>7.2} people a call ({:.2} % full)  606: {}  615: {}  at once: {}  in 20 s: {}  p50 {:.0} s  p95 {:.0} s  max {:.0} s  missing {}",
            one.scenario,
            one.used_calls,
            one.allowed_calls,
            one.people_per_call.mean,
            one.people_per_call.full * 100.0,
            one.answers_606,
            one.answers_615,
            one.most_at_once,
            one.most_in_20_seconds,
            one.p50_seconds,
            one.p95_seconds,
            one.max_seconds,
            one.missing,
        )?;
    }
    Ok(())
}

/// One line a scenario, per 1,000 beacons.
fn show_beacons(measured: &[beacons::Measured], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for one in measured {
        if json {
            writeln!(out, "{}", serde_json::to_string(one)?)?;
            continue;
        }
        writeln!(out, "{:<18} ${:.3} a million", one.scenario, one.dollars_per_million)?;
        for (side, used) in [("answering", one.answering), ("storing", one.storing)] {
            writeln!(
                out,
                "  {side:<10} {:>7.1} read units  {:>7.1} write units  {:>7.1} DynamoDB requests  {:>7.1} queue requests  {:>7.1} invocations",
                used.read_units, used.write_units, used.dynamodb_requests, used.queue_requests, used.invocations,
            )?;
        }
    }
    Ok(())
}

/// Measures and prints a download.
fn show_download(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--people", "--refused"], &["--json"])?;
    let people = flags.number("--people").unwrap_or(download::PEOPLE);
    let refused = flags.number("--refused").unwrap_or(download::REFUSED_PERCENT);
    let measured = download::measure(people, refused);
    let mut out = std::io::stdout().lock();
    let counts = measured.counts;
    if flags.has("--json") {
        writeln!(out, "{}", serde_json::to_string(&counts)?)?;
    } else {
        let seconds = |seconds: Option<f64>| match seconds {
            Some(seconds) => format!("{seconds:.2} s ({:.1} s at its share of one)", measured.at_its_share(seconds)),
            None => "not told by this system".to_owned(),
        };
        writeln!(
            out,
            "{} people, {} of them refused: {} lines, {} bytes",
            counts.people, counts.refused, counts.lines, counts.bytes
        )?;
        writeln!(
            out,
            "requests that write on: {}; parts: {}, of {} to {} bytes but for the last one",
            counts.slices, counts.parts, counts.smallest_part, counts.largest_part
        )?;
        writeln!(
            out,
            "S3: {} reads, {} writes; DynamoDB: {} reads, {} writes",
            counts.object_reads, counts.object_writes, counts.table_reads, counts.table_writes
        )?;
        writeln!(
            out,
            "a processor's time: {} to begin, {} for the slowest slice",
            seconds(measured.begin_seconds),
            seconds(measured.slice_seconds)
        )?;
        match measured.peak_mb {
            Some(peak) => writeln!(
                out,
                "memory: at most {peak:.0} MB of the function's {:.0} MB, with all that the ports hold",
                measured.function_mb
            )?,
            None => writeln!(out, "memory: not told by this system")?,
        }
    }
    measured.check().map_err(anyhow::Error::msg)
}

fn show_spike(spike: &spike::Spike, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", spike.json())?;
    } else {
        writeln!(
            out,
            "{:.0} beacons a second by {} senders: {} answered 2xx, others {:?}, lost {}; the queue was empty after {:.0} s",
            spike.rate, spike.senders, spike.answered, spike.others, spike.lost, spike.drained_seconds,
        )?;
    }
    spike.check()
}

fn show_events(held: &events::Held, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", held.json())?;
    } else {
        writeln!(
            out,
            "{:.0} messages a second by {} senders, {} entries each: {} answered 200, others {:?}, lost {}; p50 {} ms  p99 {} ms  max {} ms",
            held.rate,
            held.senders,
            events::ENTRIES,
            held.answered,
            held.others,
            held.lost,
            held.p50_ms,
            held.p99_ms,
            held.max_ms,
        )?;
    }
    held.check()
}

fn settle(json: bool) -> anyhow::Result<()> {
    let local = build_local()?;
    let Size { ecids, matches, leads } = Size::BENCH;
    let world = sample::sized(SEED, ecids, matches, leads).world;
    let folder = tempfile::tempdir().context("a folder for the world")?;
    world::folder::write(&world, folder.path()).context("writing the world")?;
    let status = Command::new(&local)
        .args(["--once", "--no-limits", "--port", "0", "--data"])
        .arg(folder.path())
        .stdin(Stdio::null())
        // Its progress is for the eye; standard output is for the result.
        .stdout(std::io::stderr())
        .status()
        .context("running the local stack")?;
    if !status.success() {
        bail!("the local stack ended with {status}; its folder is kept: {}", folder.keep().display());
    }

    let stats = read(&folder.path().join(".state/stats.json"))?;
    let found = lists(&read(&folder.path().join("out/lists.json"))?)?;
    let expected = reference::lists(&world, world.files.len());
    let wrong = differences(&expected, &found);
    let seconds = stats["seconds"].as_f64().context("seconds")?;
    let calls = stats["marketo_calls"].as_object().cloned().unwrap_or_default();
    let total: u64 = calls.values().filter_map(Value::as_u64).sum();
    let mut out = std::io::stdout().lock();
    if json {
        let result = json!({
            "ecids": ecids, "matches": matches, "leads": leads, "seconds": seconds, "bar_seconds": BAR.as_secs(),
            "marketo_calls": calls, "marketo_calls_total": total, "lists_wrong": wrong,
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "{ecids} ECIDs, {matches} matches, {leads} leads: settled in {seconds:.1} s (bar {BAR:?})")?;
        writeln!(out, "Marketo calls: {total}")?;
        for (kind, count) in calls {
            writeln!(out, "  {kind:<20}{count:>8}")?;
        }
    }
    ensure!(wrong.is_empty(), "the lists differ from the reference model: {}", wrong.join("; "));
    Ok(())
}

/// Builds the local stack with this program's own profile and into its target folder.
fn build_local() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    let folder = program.parent().context("the program's folder")?;
    let target = folder.parent().context("the target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("{} is not in a target folder", program.display()),
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "-p", "local", "--bin", "local", "--profile", profile, "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .stdout(Stdio::null())
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "cargo could not build the local stack ({status})");
    Ok(folder.join("local"))
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

type Lists = BTreeMap<u64, BTreeSet<u64>>;

fn lists(value: &Value) -> anyhow::Result<Lists> {
    let one = |list: &Value| {
        let members = list["members"].as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        Some((list["id"].as_u64()?, members))
    };
    value.as_array().and_then(|lists| lists.iter().map(one).collect()).context("lists.json has another shape")
}

/// What is wrong, list by list: counts only.
fn differences(expected: &Lists, found: &Lists) -> Vec<String> {
    let ids: BTreeSet<u64> = expected.keys().chain(found.keys()).copied().collect();
    let none = BTreeSet::new();
    let mut wrong = Vec::new();
    for id in ids {
        let (want, have) = (expected.get(&id).unwrap_or(&none), found.get(&id).unwrap_or(&none));
        let (missing, extra) = (want.difference(have).count(), have.difference(want).count());
        if missing + extra > 0 {
            wrong.push(format!("list {id}: {missing} missing, {extra} too many"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_by_list() {
        let expected = lists(&json!([{"id": 1, "members": [1, 2]}, {"id": 2, "members": []}])).expect("lists");
        let found = lists(&json!([{"id": 1, "members": [2, 3, 4]}, {"id": 2, "members": []}])).expect("lists");
        assert_eq!(differences(&expected, &found), ["list 1: 1 missing, 2 too many"]);
        assert!(lists(&json!({})).is_err());
    }
}
