//! What is deployed of each function: its zip, how many crates are linked into it, and how long a new process takes until it
//! asks for its first event.
//!
//! Zips are those of `cargo lambda build --release --arm64 --output-format zip`. The time is that of this machine's own binary of
//! the release profile, on the local stack: without TLS, and on another processor than Lambda's. It is told, and never compared.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use stack::FUNCTIONS;

use crate::flags::Flags;
use crate::rig::{Processes, Rig, root};

/// The bar of each zip, in bytes.
const LARGEST_ZIP: u64 = 3_000_000;
/// Those that miss it, and what they must not exceed: they call the vendors, read and write the bucket, and hold most of the code
/// that is ours. Whoever brings one under the bar takes it out.
const LARGER: [(&str, u64); 3] =
    [("create-sync", 4_700_000), ("scheduled-incremental-sync", 5_200_000), ("list-writer", 3_900_000)];
/// How far a zip may be from its record, in percent: linkers differ a little from one machine to the next.
const TOLERANCE_PERCENT: u64 = 2;
/// What Lambda runs: the template's `Architectures`.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Processes of which the middle one counts.
const STARTS: usize = 5;
/// What makes the zips.
const BUILD: &str = "`.ci/long packages` builds them";
const RECORDED: &str = include_str!("../packages.jsonl");

/// One function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    function: String,
    /// `None`: no zip is there.
    zip_bytes: Option<u64>,
    /// Crates that are linked, ours among them; not those that only run while it is built.
    crates: usize,
    /// Not compared, and not in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    init_ms: Option<u64>,
}

/// What `--json` prints of one.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    package: &'a Package,
    /// What the zip may have.
    most_bytes: u64,
}

/// Runs `packages [--record] [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &[], &["--json", "--record"])?;
    let program = std::env::current_exe().context("where this program is")?;
    let folder = program.parent().context("the program's folder")?;
    let zips = folder.parent().context("the target folder")?.join("lambda");
    let one = |function: &str| -> anyhow::Result<Package> {
        Ok(Package {
            function: function.to_owned(),
            zip_bytes: zip_bytes(&zips, function),
            crates: crates(function)?,
            init_ms: None,
        })
    };
    let mut packages = FUNCTIONS.into_iter().map(one).collect::<anyhow::Result<Vec<_>>>()?;
    if !flags.has("--record") && FUNCTIONS.iter().all(|function| folder.join(function).is_file()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
        runtime.block_on(init(folder, &mut packages))?;
    }
    let mut out = std::io::stdout().lock();
    for package in &packages {
        if flags.has("--json") {
            let told = Told { package, most_bytes: most(&package.function) };
            writeln!(out, "{}", serde_json::to_string(&told)?)?;
        } else if flags.has("--record") {
            writeln!(out, "{}", serde_json::to_string(package)?)?;
        } else {
            show(&mut out, package)?;
        }
    }
    for Package { function, zip_bytes, .. } in &packages {
        let Some(bytes) = zip_bytes else { bail!("there is no zip of {function} in {}: {BUILD}", zips.display()) };
        ensure!(*bytes <= most(function), "the zip of {function} has {bytes} bytes, and may have {}", most(function));
    }
    let differences = if flags.has("--record") { Vec::new() } else { differences(&packages, &recorded()?) };
    ensure!(differences.is_empty(), "other than recorded: {}", differences.join("; "));
    Ok(())
}

/// What the zip of a function may have, in bytes.
fn most(function: &str) -> u64 {
    LARGER.iter().find(|(larger, _)| *larger == function).map_or(LARGEST_ZIP, |(_, most)| *most)
}

fn show(out: &mut impl std::io::Write, package: &Package) -> anyhow::Result<()> {
    let Package { function, zip_bytes, crates, init_ms } = package;
    let zip = zip_bytes.map_or_else(|| "not built".to_owned(), |bytes| format!("{:.2} MB", bytes as f64 / 1e6));
    let init = init_ms.map_or_else(|| "not built".to_owned(), |ms| format!("{ms} ms"));
    let most = most(function) as f64 / 1e6;
    writeln!(out, "{function:<27} zip {zip} (at most {most} MB)  {crates} crates  init here {init}")?;
    Ok(())
}

fn zip_bytes(zips: &Path, function: &str) -> Option<u64> {
    let zip = std::fs::metadata(zips.join(function).join("bootstrap.zip"));
    zip.ok().map(|zip| zip.len())
}

/// How many crates are linked into a function, each version counting.
fn crates(function: &str) -> anyhow::Result<usize> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["tree", "--locked", "--package", function, "--target", TARGET]);
    cargo.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let output = cargo.current_dir(root()).output().context("running cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("cargo tree")?;
    let crates: BTreeSet<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    Ok(crates.len())
}

/// Measures init.
async fn init(binaries: &Path, packages: &mut [Package]) -> anyhow::Result<()> {
    let rig = Rig::start(binaries.to_owned(), Processes::Many).await?;
    for package in packages {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            times.push(rig.stack.init(&package.function).await?);
        }
        times.sort_unstable();
        package.init_ms = u64::try_from(times[STARTS / 2].as_millis()).ok();
    }
    rig.stack.shutdown().await;
    Ok(())
}

fn recorded() -> anyhow::Result<Vec<Package>> {
    let lines = RECORDED.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("packages.jsonl")
}

/// What is not as it was recorded.
fn differences(found: &[Package], recorded: &[Package]) -> Vec<String> {
    let difference = |one: &Package| {
        let name = &one.function;
        let Some(before) = recorded.iter().find(|before| before.function == *name) else {
            return Some(format!("{name} is not recorded"));
        };
        if one.crates != before.crates {
            return Some(format!("{name}: {} crates, and not {}", one.crates, before.crates));
        }
        let (Some(now), Some(before)) = (one.zip_bytes, before.zip_bytes) else {
            return Some(format!("{name}: no size is recorded"));
        };
        let off = now.abs_diff(before) * 100 > before * TOLERANCE_PERCENT;
        off.then(|| format!("{name}: a zip of {now} bytes, and not of {before}"))
    };
    found.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(zip_bytes: u64, crates: usize) -> Package {
        Package { function: "list-writer".to_owned(), zip_bytes: Some(zip_bytes), crates, init_ms: None }
    }

    /// Whoever changes a figure on purpose builds the zips and writes the file anew:
    /// `cargo run --release -p bench -- packages --record > tests/bench/packages.jsonl`.
    #[test]
    fn as_many_crates_are_linked_as_recorded_and_each_zip_was_within_the_bar() {
        let recorded = recorded().expect("packages.jsonl");
        assert_eq!(recorded.iter().map(|one| one.function.as_str()).collect::<Vec<_>>(), FUNCTIONS);
        for one in recorded {
            assert_eq!(crates(&one.function).expect("cargo tree"), one.crates, "{}", one.function);
            let bytes = one.zip_bytes.expect("a size is recorded");
            assert!(bytes <= most(&one.function), "{}: {bytes}", one.function);
            let larger = LARGER.iter().any(|(larger, _)| *larger == one.function);
            assert_eq!(larger, bytes > LARGEST_ZIP, "{}: {bytes}", one.function);
        }
    }

    #[test]
    fn a_zip_may_be_a_little_off_its_record_and_the_crates_may_not() {
        let recorded = [package(1_000_000, 200)];
        for same in [package(1_000_000, 200), package(1_020_000, 200), package(980_000, 200)] {
            assert_eq!(differences(&[same], &recorded), [""; 0]);
        }
        for (found, said) in [
            (package(1_020_001, 200), "list-writer: a zip of 1020001 bytes, and not of 1000000"),
            (package(979_999, 200), "list-writer: a zip of 979999 bytes, and not of 1000000"),
            (package(1_000_000, 201), "list-writer: 201 crates, and not 200"),
        ] {
            assert_eq!(differences(&[found], &recorded), [said]);
        }
        assert_eq!(differences(&[package(1, 1)], &[]), ["list-writer is not recorded"]);
        let unmeasured = Package { zip_bytes: None, ..package(0, 200) };
        assert_eq!(differences(&[package(1, 200)], &[unmeasured]), ["list-writer: no size is recorded"]);
    }
}
