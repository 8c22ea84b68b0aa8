//! Files from `incoming/` to the audiences, of any size (`simulation::import`): what it uses of AWS, a processor's time and
//! memory.

use std::io::Write;

use anyhow::bail;
use simulation::counted::Usage;
use simulation::import::{Delivery, ENTRIES_AT_ONCE, Measured, Plan, measure};

use crate::flags::Flags;
use crate::rig::{Prices, price, prices};

/// Sizes of the table.
const SIZES: [u64; 3] = [10_000, 1_000_000, 10_000_000];
/// Segments of the world of the bars (design, P2).
pub const SEGMENTS: u64 = 3;
/// One in a hundred is new from file to file (design, P4 and P5).
const CHURN_PERCENT: u64 = 1;
/// ECIDs that change (design, P4).
pub const CHANGES: u64 = 100;
/// Churn of the table, in percent.
const CHURNS: [u64; 4] = [0, 1, 10, 100];
/// Segments of the table.
const MANY_SEGMENTS: [u64; 3] = [1, 10, 100];
/// Memberships of a file that the table goes up to. Ours: a billion would need 50 GB of disk, and an hour.
const TABLE_MOST: u64 = 100_000_000;
/// Memberships of a file that are recorded. Ours: a test compares them with the profile of the tests.
const RECORDED_MOST: u64 = 3_000_000;

/// The plan of a size and so many segments, with everything else as it is in the bars.
pub const fn plan_of(ecids: u64, segments: u64) -> Plan {
    Plan { ecids, segments, churn_percent: CHURN_PERCENT, changes: CHANGES, at_once: ENTRIES_AT_ONCE }
}

/// Each size with each churn, and with each number of segments.
fn table() -> impl Iterator<Item = Plan> {
    SIZES.into_iter().flat_map(|ecids| {
        let plan = plan_of(ecids, SEGMENTS);
        let churns = CHURNS.into_iter().map(move |churn_percent| Plan { churn_percent, ..plan });
        churns.chain(MANY_SEGMENTS.into_iter().map(move |segments| Plan { segments, ..plan }))
    })
}

/// What the command line asks for.
fn plans(flags: &Flags) -> Vec<Plan> {
    if flags.has("--all") {
        return table().filter(|plan| plan.ecids * plan.segments <= TABLE_MOST).collect();
    }
    let one = |flag| flags.number(flag);
    if one("--size").or(one("--segments")).or(one("--churn")).or(one("--changes")).is_none() {
        return table().filter(|plan| plan.ecids * plan.segments <= RECORDED_MOST).collect();
    }
    let usual = plan_of(one("--size").unwrap_or(SIZES[1]), SEGMENTS);
    vec![Plan {
        segments: one("--segments").unwrap_or(usual.segments),
        churn_percent: one("--churn").unwrap_or(usual.churn_percent),
        changes: one("--changes").unwrap_or(usual.changes),
        ..usual
    }]
}

/// Runs `import [--all | --size N --segments N --churn PERCENT --changes N] [--json]`; without either, the part of the table
/// that is recorded in `import.jsonl`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size", "--segments", "--churn", "--changes"], &["--all", "--json"])?;
    let prices = prices()?;
    let mut out = std::io::stdout().lock();
    for plan in plans(&flags) {
        for measured in measure(plan) {
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

/// Dollars by the prices file, without the function's time.
#[expect(clippy::cast_precision_loss)]
pub fn dollars(used: Usage, prices: &Prices) -> anyhow::Result<f64> {
    let price = |name| price(prices, name);
    Ok(used.object_reads as f64 * price("s3_get")?
        + used.object_writes as f64 * price("s3_put")?
        + used.half_read_units as f64 / 2.0 * price("dynamodb_read_unit")?
        + used.write_units as f64 * price("dynamodb_write_unit")?)
}

#[expect(clippy::cast_precision_loss)]
fn show(out: &mut impl Write, measured: &Measured, prices: &Prices) -> anyhow::Result<()> {
    let counts = measured.counts;
    let used = counts.usage;
    let dollars = dollars(used, prices)?;
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
    let Plan { ecids, segments, churn_percent, changes, .. } = counts.plan;
    let what = match counts.delivery {
        Delivery::First => format!("{ecids} ECIDs in {segments} segments"),
        Delivery::Again => format!("{ecids} ECIDs in {segments} segments, {churn_percent} % of them others"),
        Delivery::Changes => format!("{changes} of {ecids} ECIDs in {segments} segments have changed"),
    };
    writeln!(out, "{what}: {:.1} MB, {} memberships", mb(counts.file_bytes), counts.memberships)?;
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

#[cfg(test)]
mod tests {
    use simulation::import::Counts;

    use super::*;

    #[test]
    fn what_is_recorded_is_what_the_command_measures() {
        let recorded: Vec<Counts> =
            include_str!("../import.jsonl").lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        let measured = |words: &[&str]| {
            let flags = Flags::read(words, &["--size"], &["--all", "--json"]).expect("flags");
            let each = |plan| Delivery::ALL.map(|delivery| (plan, delivery));
            plans(&flags).into_iter().flat_map(each).collect::<Vec<_>>()
        };
        let recorded: Vec<(Plan, Delivery)> = recorded.iter().map(|counts| (counts.plan, counts.delivery)).collect();
        assert_eq!(measured(&["--json"]), recorded);
        let all = measured(&["--all"]);
        assert!(recorded.iter().all(|one| all.contains(one)) && all.len() > recorded.len());
        assert_eq!(measured(&["--size", "500"])[0].0, plan_of(500, SEGMENTS));
    }
}
