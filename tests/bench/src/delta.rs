//! What changed of an audience, from `incoming/` to *want*, whatever its size (`simulation::deltas`; design, bar P4).

use std::io::Write as _;

use anyhow::ensure;
use simulation::deltas::{Change, Counts, measure};

use crate::flags::Flags;
use crate::import::dollars;
use crate::rig::prices;

/// Sizes that are recorded in `delta.jsonl`.
const SIZES: [u64; 2] = [10_000, 1_000_000];
/// Audiences of which somebody who becomes known is in each.
const MANY: [u64; 3] = [1, 10, 20];
/// Issue 7: what one ECID in a hundred of ten million may cost when it is another one, in dollars.
const HUNDREDTH_DOLLARS: f64 = 0.02;

/// Runs `delta [--size N] [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size"], &["--json"])?;
    let sizes = flags.number("--size").map_or(SIZES.to_vec(), |size| vec![size]);
    ensure!(sizes.iter().all(|size| *size >= SIZES[0]), "--size takes at least {}", SIZES[0]);
    let prices = prices()?;
    let of = |members: u64| {
        // Of many audiences the size would only take memory.
        let many = MANY.into_iter().filter(move |many| *many == 1 || members == SIZES[0]);
        let known = many.map(move |many| (Change::Known, members, many));
        [(Change::Hundred, members, 1), (Change::Hundredth, members, 1)].into_iter().chain(known)
    };
    let mut out = std::io::stdout().lock();
    for (change, members, audiences) in sizes.into_iter().flat_map(of) {
        let counts = measure(change, members, audiences);
        let cost = dollars(counts.usage, &prices)?;
        if flags.has("--json") {
            writeln!(out, "{}", serde_json::to_string(&counts)?)?;
        } else {
            show(&mut out, &counts, cost)?;
        }
        match change {
            Change::Hundred => ensure!(counts.is_within_bar(), "P4 is missed: {counts:?}"),
            Change::Hundredth => ensure!(cost <= HUNDREDTH_DOLLARS, "a hundredth costs ${cost}"),
            Change::Known => {}
        }
    }
    Ok(())
}

fn show(out: &mut impl std::io::Write, counts: &Counts, cost: f64) -> anyhow::Result<()> {
    let Counts { change, members, audiences, usage } = counts;
    let what = match change {
        Change::Hundred => "a hundred of them change",
        Change::Hundredth => "one in a hundred is another one",
        Change::Known => "somebody becomes known",
    };
    let reads = usage.half_read_units.div_ceil(2);
    writeln!(
        out,
        "{members:>9} members, {audiences:>2} audiences, {what:<31}: {reads:>4} read units, {:>4} write units; S3: {:>3} reads, {:>3} writes; ${cost:.6}",
        usage.write_units, usage.object_reads, usage.object_writes,
    )?;
    Ok(())
}
