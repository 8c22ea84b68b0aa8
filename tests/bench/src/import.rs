//! Files from `incoming/` to the audiences, of any size (`simulation::import`): what it uses of AWS, a processor's time and
//! memory.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, bail};
use simulation::import::{ENTRIES_AT_ONCE, Measured, Plan, measure};

use crate::flags::Flags;
use crate::rig::prices;

/// Without a size: those that are recorded in `import.jsonl`.
const SIZES: [u64; 2] = [10_000, 1_000_000];
/// Segments of the world of the bars (design, P2).
const SEGMENTS: u64 = 3;
/// One in a hundred is new from file to file (design, P4 and P5).
const CHURN_PERMILLE: u64 = 10;

/// Runs `import [--size N] [--segments N] [--churn PERMILLE] [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size", "--segments", "--churn"], &["--json"])?;
    let sizes = flags.number("--size").map_or(SIZES.to_vec(), |size| vec![size]);
    let segments = flags.number("--segments").unwrap_or(SEGMENTS);
    let churn_permille = flags.number("--churn").unwrap_or(CHURN_PERMILLE);
    let prices = prices()?;
    let mut out = std::io::stdout().lock();
    for ecids in sizes {
        for measured in measure(Plan { ecids, segments, churn_permille, at_once: ENTRIES_AT_ONCE }) {
            if flags.has("--json") {
                writeln!(out, "{}", serde_json::to_string(&measured.counts)?)?;
            } else {
                show(&mut out, &measured, &prices)?;
            }
            if let Some(bytes) = measured.bytes.filter(|bytes| *bytes > measured.bytes_allowed()) {
                bail!("{bytes} bytes of memory were used, {} are allowed", measured.bytes_allowed());
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn show(out: &mut impl Write, measured: &Measured, prices: &BTreeMap<String, f64>) -> anyhow::Result<()> {
    let counts = measured.counts;
    let price = |name: &str| prices.get(name).copied().with_context(|| format!("prices.json has no {name}"));
    let used = counts.usage;
    let dollars = used.object_reads as f64 * price("s3_get")?
        + used.object_writes as f64 * price("s3_put")?
        + used.half_read_units as f64 / 2.0 * price("dynamodb_read_unit")?
        + used.write_units as f64 * price("dynamodb_write_unit")?;
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let time = measured.seconds.map_or("its time is not told by this system".to_owned(), |seconds| {
        format!(
            "{seconds:.2} s of a processor, {:.1} M memberships a second",
            counts.memberships as f64 / seconds / 1e6
        )
    });
    let memory = measured.bytes.map_or("its memory is not told by this system".to_owned(), |bytes| {
        format!("{:.0} MB ({:.0} allowed)", mb(bytes), mb(measured.bytes_allowed()))
    });
    writeln!(
        out,
        "{} ECIDs in {} segments{}: {:.1} MB, {} memberships",
        counts.plan.ecids,
        counts.plan.segments,
        if counts.again { ", the day after" } else { "" },
        mb(counts.file_bytes),
        counts.memberships,
    )?;
    writeln!(out, "  {time}, {memory}, {} invocations", counts.slices)?;
    writeln!(
        out,
        "  S3: {} reads ({:.1} MB), {} writes ({:.1} MB); DynamoDB: {:.1} read units, {} write units; ${dollars:.6}",
        used.object_reads,
        mb(used.bytes_read),
        used.object_writes,
        mb(used.bytes_written),
        used.half_read_units as f64 / 2.0,
        used.write_units,
    )?;
    Ok(())
}
