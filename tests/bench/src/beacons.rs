//! What beacons cost: read units, write units and queue requests, counted in front of the embedded servers while the
//! real function runs. Every figure is a count: the same on every machine.
//!
//! The two sides of the queue are counted one after the other, with the queue paused in between: how full the batches
//! of a trickle are depends on the time, those of a full queue do not. The settings are read once a minute and process,
//! and each line begins just after that.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use stack::usage::{QueueUsage, TableUsage, Usage};

use crate::rig::{FUNCTION, MATCHES, Pair, Pairs, Processes, Rig, build, price, prices};

/// Beacons of a line.
const BEACONS: u64 = 2_000;
/// One of so many is new in the line of 95 %.
const ONE_NEW_OF: usize = 20;

/// What a line measured, per 1,000 beacons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Share of repeats, and of what process.
    pub scenario: String,
    /// Part of the beacons that show a pair that is stored already, in percent.
    pub repeats_percent: u64,
    /// From the request to the answer.
    pub answering: Used,
    /// From the queue to the table.
    pub storing: Used,
    /// All of it by the prices file, a million beacons: API, invocations, tables, queue. Without the functions' time and
    /// the logs, which no count tells.
    pub dollars_per_million: f64,
}

/// What was used, per 1,000 beacons.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Read units.
    pub read_units: f64,
    /// Write units.
    pub write_units: f64,
    /// Requests to DynamoDB.
    pub dynamodb_requests: f64,
    /// Requests of 64 KB to the queue of matches.
    pub queue_requests: f64,
    /// Invocations of the function.
    pub invocations: f64,
}

impl Used {
    fn of(usage: &Usage) -> Self {
        let TableUsage { requests, read_units, write_units } = usage.tables_of(FUNCTION);
        let queue: QueueUsage = usage.queue(MATCHES);
        let invocations = usage.invocations.get(FUNCTION).copied().unwrap_or_default();
        let per_1000 = |count: f64| count * 1_000.0 / BEACONS as f64;
        Self {
            read_units: per_1000(read_units),
            write_units: per_1000(write_units),
            dynamodb_requests: per_1000(requests as f64),
            queue_requests: per_1000(queue.requests() as f64),
            invocations: per_1000(invocations as f64),
        }
    }
}

/// Runs all lines.
pub fn run() -> anyhow::Result<Vec<Measured>> {
    let bin_dir = build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(measure(bin_dir))
}

async fn measure(bin_dir: std::path::PathBuf) -> anyhow::Result<Vec<Measured>> {
    let rig = Rig::start(bin_dir, Processes::One).await?;
    let mut pairs = Pairs::default();
    let known = pairs.next(BEACONS);
    let mut mixed = known.clone();
    for slot in mixed.iter_mut().skip(ONE_NEW_OF - 1).step_by(ONE_NEW_OF) {
        *slot = pairs.next(1).remove(0);
    }
    let mut lines = vec![
        line(&rig, "new", 0, &known, true).await?,
        line(&rig, "repeats_95_cold", 95, &mixed, true).await?,
        line(&rig, "repeats_100_cold", 100, &known, true).await?,
    ];
    lines.push(line(&rig, "repeats_100_warm", 100, &known, false).await?);
    rig.stack.shutdown().await;
    Ok(lines)
}

/// Sends the beacons while the queue is paused, then lets it drain. `cold`: to a process that remembers nothing.
async fn line(rig: &Rig, name: &str, repeats: u64, beacons: &[Pair], cold: bool) -> anyhow::Result<Measured> {
    let pause = rig.stack.pause(MATCHES).await;
    if cold {
        rig.fresh_process().await?;
    }
    let begun = rig.stack.usage();
    rig.beacons(beacons).await.with_context(|| name.to_owned())?;
    let answered = rig.stack.usage();
    drop(pause);
    rig.drained().await.with_context(|| name.to_owned())?;
    let (answering, storing) = (Used::of(&answered.since(&begun)), Used::of(&rig.stack.usage().since(&answered)));
    Ok(Measured {
        scenario: name.to_owned(),
        repeats_percent: repeats,
        answering,
        storing,
        dollars_per_million: dollars(answering, storing)?,
    })
}

/// A million beacons, to the tenth of a cent.
fn dollars(answering: Used, storing: Used) -> anyhow::Result<f64> {
    let prices = prices()?;
    let price = |name| price(&prices, name);
    let side = |used: Used| -> anyhow::Result<f64> {
        Ok(used.read_units * price("dynamodb_read_unit")?
            + used.write_units * price("dynamodb_write_unit")?
            + used.queue_requests * price("sqs_standard_request")?
            + used.invocations * price("lambda_request")?)
    };
    let per_1000 = side(answering)? + side(storing)? + 1_000.0 * price("http_api_request")?;
    Ok((per_1000 * 1_000.0 * 1_000.0).round() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../beacons.jsonl");

    /// Whoever changes a figure on purpose writes the file anew:
    /// `cargo run --release -p bench -- beacons --json > tests/bench/beacons.jsonl`.
    #[test]
    fn beacons_cost_what_is_recorded_and_repeats_next_to_nothing() {
        let recorded: Vec<Measured> =
            RECORDED.lines().map(|line| serde_json::from_str(line).expect("a line of beacons.jsonl")).collect();
        let measured = run().expect("measured");
        assert_eq!(measured, recorded);
        let line = |name: &str| measured.iter().find(|one| one.scenario == name).expect(name);
        // Design, bar P1.
        for name in ["repeats_100_cold", "repeats_100_warm"] {
            let Measured { answering, storing, .. } = line(name);
            assert!(answering.read_units <= 500.0, "{name}");
            assert_eq!(answering.write_units + storing.write_units + storing.read_units, 0.0, "{name}");
            assert_eq!(answering.queue_requests + storing.queue_requests, 0.0, "{name}");
        }
        assert_eq!(line("repeats_100_warm").answering.read_units, 0.0);
        // Each new pair is in the queue before it is answered.
        assert!(line("new").answering.queue_requests >= 1_000.0);
    }

    #[test]
    fn counts_become_dollars_by_the_prices_file() {
        let nothing =
            Used { read_units: 0.0, write_units: 0.0, dynamodb_requests: 0.0, queue_requests: 0.0, invocations: 0.0 };
        let used = Used { read_units: 500.0, write_units: 0.0, invocations: 1_000.0, ..nothing };
        // A million requests, invocations and halves of read units.
        assert_eq!(dollars(used, nothing).expect("prices"), 1.0 + 0.2 + 0.063);
        let used = Used { write_units: 2_000.0, queue_requests: 1_000.0, ..nothing };
        assert_eq!(dollars(nothing, used).expect("prices"), 1.0 + 1.25 + 0.4);
    }
}
