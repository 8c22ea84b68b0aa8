//! Beside DuckDB, on the same rows and the same machine (design, bar P5), and beside one DynamoDB item a member.
//!
//! Both sides keep what they have from the day before: DuckDB two tables, we two sorted objects. Then today's outbound file
//! comes, as text. Each parses it, finds who came and who left, and joins who is in with the matches. Ours is what the
//! functions run: `feeds`, [`state::bases`], [`domain::base`] and [`domain::edges`], in one thread; DuckDB has two. Each
//! run is a process of its own, and the sides take turns.

use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::io::{BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use domain::base::{absent, mix, sort};
use domain::edges::{Census, Edge, Source, of_token};
use domain::feed::Mode;
use domain::identity::{Seen, TokenRecord};
use domain::{Ecid, Said, Token};
use feeds::{Named, Sink};
use ports::Failure;
use serde::{Deserialize, Serialize};
use serde_json::json;
use simulation::cloud::settings;
use simulation::counted::{Counted, peak_bytes, processor_seconds, world};
use simulation::fakes::run as poll;
use simulation::import::{Delivery, ecid};
use simulation::promise::QUOTA;
use state::Deps;
use state::audience::BaseRef;
use state::bases::{Reader, Writer};
use tokio::time::Instant;

use crate::flags::Flags;
use crate::import;
use crate::rig::{price, prices, root};

/// ECIDs without `--size`.
const SIZE: u64 = 1_000_000;
/// Alternating runs of which the median counts; odd.
const RUNS: usize = 7;
/// One of so many ECIDs is another one today.
const CHURN: u64 = 100;
/// One ECID of so many has a match.
const MATCHED: u64 = 2;
/// One ECID of so many has a lead of its own; others share one.
const LEADS: u64 = 5;
/// One match of so many is of somebody whom Marketo does not know.
const UNKNOWN: u64 = 4;
/// The segment of the files.
const SEGMENT: u64 = 101;
/// Bytes of the file that are read at once. Ours: they stay in a processor's cache, as what comes over a network does.
const PIECE: usize = 1 << 20;
/// A line has at least so many bytes: the ECID and two TABs.
const LINE: u64 = 40;
/// Design, bar P5: so many times as fast in diff and join, and with parsing; part of the memory.
const BARS: [f64; 3] = [5.0, 3.0, 0.25];
/// Any seed would do: nothing here is left to chance.
const SEED: u64 = 7;
/// The command that runs our side in a process of its own.
pub const OURS: &str = "versus-duckdb-ours";

/// What a step took, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Took {
    wall: f64,
    processor: f64,
}

/// What was found: the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    added: u64,
    removed: u64,
    /// ECIDs with a match.
    matched: u64,
    /// ECIDs whose match is of a known lead.
    known: u64,
    /// Known leads.
    people: u64,
}

/// One run of one side.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Side {
    name: String,
    /// The file's text into numbers.
    parse: Took,
    /// The numbers into a set.
    sort: Took,
    /// Who came and who left: `EXCEPT` both ways.
    diff: Took,
    /// The same by one join, which tells how many and not who; DuckDB alone.
    #[serde(default)]
    full_join: Option<Took>,
    /// Whose match is of whom.
    join: Took,
    /// The most memory of the process, in MB.
    peak_mb: f64,
    found: Found,
}

/// What our side keeps from the day before.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    old: BaseRef,
    edges: BaseRef,
}

/// Runs `versus-duckdb [--size N] [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size"], &["--json"])?;
    let size = flags.number("--size").unwrap_or(SIZE);
    ensure!(size >= CHURN, "--size takes at least {CHURN}");
    let python = python()?;
    let folder = tempfile::tempdir().context("a folder for the files")?;
    prepare(folder.path(), size)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(side(Command::new(std::env::current_exe()?).arg(OURS).arg(folder.path()))?);
        let script = root().join("tests/bench/duckdb/side.py");
        theirs.push(side(Command::new(&python).arg(script).arg(folder.path()))?);
    }
    drop(folder);
    for one in ours.iter().chain(&theirs) {
        ensure!(one.found == ours[0].found, "{} found {:?}, not {:?}", one.name, one.found, ours[0].found);
    }
    let plain = plain(size)?;
    let mut out = std::io::stdout().lock();
    if flags.has("--json") {
        let [diff_join, with_parsing, memory] = ratios(&ours, &theirs);
        let all = json!({
            "ecids": size, "runs": RUNS, "found": ours[0].found, "ours": median_of(&ours), "duckdb": median_of(&theirs),
            "times_as_fast": {"diff_join": diff_join, "with_parsing": with_parsing}, "part_of_memory": memory,
            "plain": plain,
        });
        writeln!(out, "{all}")?;
        return Ok(());
    }
    show(&mut out, size, &ours, &theirs)?;
    show_plain(&mut out, size, &plain)
}

/// Runs our side over what [`prepare`] has left in a folder, and prints it as JSON.
pub fn ours(folder: &Path) -> anyhow::Result<()> {
    let side = poll(our_side(folder))?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&side)?)?;
    Ok(())
}

/// Runs a side in its own process.
fn side(command: &mut Command) -> anyhow::Result<Side> {
    let output = command.stderr(std::process::Stdio::inherit()).output().context("running one side")?;
    ensure!(output.status.success(), "a side ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what a side printed")
}

/// Python with DuckDB, installed into `.tools/` if it is not there in this version.
fn python() -> anyhow::Result<PathBuf> {
    let (tools, requirements) = (root().join(".tools/duckdb"), root().join("tests/bench/duckdb/requirements.txt"));
    let (stamp, python) = (tools.join("requirements.txt"), tools.join("bin/python"));
    let wanted = read_to_string(&requirements).context("duckdb/requirements.txt")?;
    if read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(python);
    }
    let step = |command: &mut Command| -> anyhow::Result<()> {
        let status = command.status().context("running python3")?;
        ensure!(status.success(), "DuckDB could not be installed ({status})");
        Ok(())
    };
    step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&tools))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    step(Command::new(&python).args(pip).arg(&requirements))?;
    std::fs::write(stamp, wanted).context("the stamp in .tools/duckdb")?;
    Ok(python)
}

fn deps(folder: &Path) -> Deps {
    Deps::new(Counted::new(world(SEED, []), folder.to_owned()).ports(), settings(QUOTA))
}

/// The lead of a match, if Marketo knows it.
fn lead_of(number: u64, size: u64) -> Option<u64> {
    (!number.is_multiple_of(UNKNOWN)).then(|| 1 + number % (size / LEADS))
}

/// Writes both files and the matches, and what our side keeps from the day before.
fn prepare(folder: &Path, size: u64) -> anyhow::Result<()> {
    let create = |name: &str| Ok::<_, anyhow::Error>(BufWriter::new(File::create(folder.join(name))?));
    let changed = size / CHURN;
    for (name, numbers) in [("old.tsv", 0..size), ("new.tsv", changed..changed + size)] {
        let mut file = create(name)?;
        for number in numbers {
            writeln!(file, "{:038}\t{SEGMENT}\t", ecid(number))?;
        }
        file.flush()?;
    }
    let mut file = create("matches.tsv")?;
    let mut edges = Vec::new();
    let token = Token::parse("_mch-example.com-1790000000000-12345").context("a token")?;
    let mut record = TokenRecord { asked_at: Some(1), ..TokenRecord::new(token) };
    for number in 0..size / MATCHED {
        let ecid = ecid(number * MATCHED);
        (record.lead, record.known) = (lead_of(number, size), lead_of(number, size).is_some());
        record.ecids = BTreeMap::from([(Ecid::from_number(ecid).context("an ECID")?, Seen { first: 1, last: 1 })]);
        of_token(&record, Source::token(u128::from(number)), u64::MAX, &mut edges);
        // Nothing between two TABs is NULL.
        let lead = record.lead.map(|lead| lead.to_string()).unwrap_or_default();
        writeln!(file, "{ecid:038}\t{lead}")?;
    }
    file.flush()?;
    edges.sort_unstable();
    let mut rows: Vec<u128> = (0..size).filter_map(|number| Ecid::from_number(ecid(number))).map(mix).collect();
    rows.sort_unstable();
    let deps = deps(folder);
    let kept = poll(async {
        let mut old = Writer::begin(&deps, "sets", 0);
        old.rows(&rows).await?;
        let mut known = Writer::begin(&deps, "edges", 0);
        known.rows(&edges).await?;
        Ok::<_, Failure>(Kept { old: old.end().await?, edges: known.end().await? })
    })?;
    Ok(std::fs::write(folder.join("kept.json"), serde_json::to_string(&kept)?)?)
}

/// Who is in the segment.
struct Rows(Vec<u128>);

impl Sink for Rows {
    fn take(&mut self, _: u64, audience: Named<'_>, ecid: Ecid, inside: bool) {
        if inside && audience == Named::Segment(SEGMENT) {
            self.0.push(mix(ecid));
        }
    }

    fn reject(&mut self, _: u64, _: &Said) {}
}

/// Times what lies between two calls.
struct Clock {
    wall: Instant,
    processor: f64,
}

impl Clock {
    fn start() -> anyhow::Result<Self> {
        Ok(Self { wall: Instant::now(), processor: processor_seconds().context("this system tells no times")? })
    }

    fn took(&mut self) -> anyhow::Result<Took> {
        let now = Self::start()?;
        let took = Took { wall: (now.wall - self.wall).as_secs_f64(), processor: now.processor - self.processor };
        *self = now;
        Ok(took)
    }
}

async fn our_side(folder: &Path) -> anyhow::Result<Side> {
    let deps = deps(folder);
    let kept: Kept = serde_json::from_str(&read_to_string(folder.join("kept.json"))?)?;
    let mut clock = Clock::start()?;
    let rows = parse(&folder.join("new.tsv"))?;
    let parse = clock.took()?;
    let mut rows = rows;
    sort(&mut rows);
    let sort = clock.took()?;
    let (added, removed) = diff(&deps, kept.old, &rows).await?;
    let diff = clock.took()?;
    let found = join(&deps, kept.edges, &rows).await?;
    let join = clock.took()?;
    let peak = peak_bytes().context("this system tells no memory")?;
    let found = Found {
        added,
        removed,
        matched: found.counts.audience - found.counts.no_match,
        known: found.counts.known,
        people: found.counts.people,
    };
    Ok(Side { name: "ours".to_owned(), parse, sort, diff, full_join: None, join, peak_mb: mb(peak), found })
}

/// The rows of a file, in its order. An import counts first, so as to reserve what it needs; here the length tells enough.
fn parse(path: &Path) -> anyhow::Result<Vec<u128>> {
    let mut file = File::open(path)?;
    let mut rows = Rows(Vec::with_capacity(usize::try_from(file.metadata()?.len() / LINE)?));
    let mut reader = feeds::File::aam(Mode::Full);
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            break;
        }
        reader.feed(&piece[..length], &mut rows);
    }
    reader.end(&mut rows).map_err(|why| anyhow::anyhow!("{why}"))?;
    Ok(rows.0)
}

/// How many rows came, and how many left.
async fn diff(deps: &Deps, old: BaseRef, new: &[u128]) -> Result<(u64, u64), Failure> {
    let (mut added, mut removed, mut rest) = (0, 0, new);
    let mut reader = Reader::<u128>::new(deps, old);
    while let Some(piece) = reader.next().await? {
        let upto = piece.last().map_or(0, |last| rest.partition_point(|row| row <= last));
        let (some, more) = rest.split_at(upto);
        added += absent(some, &mut &piece[..]);
        removed += absent(&piece, &mut &some[..]);
        rest = more;
    }
    Ok(((added + rest.len()) as u64, removed as u64))
}

/// What became of each row, as a pass counts it.
async fn join(deps: &Deps, edges: BaseRef, mut members: &[u128]) -> Result<domain::edges::Found, Failure> {
    let mut census = Census::new(0);
    let mut reader = Some(Reader::<Edge>::new(deps, edges));
    let mut left = Vec::new();
    while !members.is_empty() {
        let mut some = &left[..];
        census.join(&mut members, &mut some, reader.is_none(), |_| {});
        left.drain(..left.len() - some.len());
        if let (false, Some(more)) = (members.is_empty(), &mut reader) {
            match more.next().await? {
                Some(mut edges) => left.append(&mut edges),
                None => reader = None,
            }
        }
    }
    Ok(census.end())
}

fn mb(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// The median of a figure over all runs of a side.
fn median(runs: &[Side], of: impl Fn(&Side) -> f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Each figure's median.
fn median_of(runs: &[Side]) -> Side {
    let took = |of: fn(&Side) -> Took| Took {
        wall: median(runs, |side| of(side).wall),
        processor: median(runs, |side| of(side).processor),
    };
    Side {
        name: runs[0].name.clone(),
        parse: took(|side| side.parse),
        sort: took(|side| side.sort),
        diff: took(|side| side.diff),
        full_join: runs[0].full_join.map(|_| took(|side| side.full_join.unwrap_or_default())),
        join: took(|side| side.join),
        peak_mb: median(runs, |side| side.peak_mb),
        found: runs[0].found,
    }
}

/// How many times as fast we are in diff and join, and with parsing; and what part of the memory we take.
fn ratios(ours: &[Side], theirs: &[Side]) -> [f64; 3] {
    let diff_join = |side: &Side| side.diff.wall + side.join.wall;
    let all = |side: &Side| side.parse.wall + side.sort.wall + diff_join(side);
    [
        median(theirs, diff_join) / median(ours, diff_join),
        median(theirs, all) / median(ours, all),
        median(ours, |side| side.peak_mb) / median(theirs, |side| side.peak_mb),
    ]
}

#[expect(clippy::cast_precision_loss)]
fn show(out: &mut impl Write, size: u64, ours: &[Side], theirs: &[Side]) -> anyhow::Result<()> {
    let Found { added, removed, matched, known, people } = ours[0].found;
    writeln!(
        out,
        "{size} ECIDs: {added} came, {removed} left, {matched} of them have a match, {known} of a known lead, {people} leads"
    )?;
    writeln!(out, "median of {RUNS} alternating runs: seconds (of a processor), M items a second")?;
    for side in [median_of(ours), median_of(theirs)] {
        writeln!(out, "  {}: at most {:.0} MB", side.name, side.peak_mb)?;
        let steps = [
            ("parse", side.parse, size),
            ("sort", side.sort, size),
            ("diff", side.diff, 2 * size),
            ("diff by one FULL JOIN", side.full_join.unwrap_or_default(), 2 * size),
            ("join", side.join, size + size / MATCHED),
        ];
        for (name, took, items) in steps.into_iter().filter(|(_, took, _)| took.wall > 0.0) {
            let rate = items as f64 / took.wall / 1e6;
            writeln!(out, "    {name:<21} {:>7.3} ({:>6.3})  {rate:>7.1}", took.wall, took.processor)?;
        }
    }
    let [diff_join, with_parsing, memory] = ratios(ours, theirs);
    writeln!(
        out,
        "diff and join: {diff_join:.1} times as fast (bar: {}); with parsing: {with_parsing:.1} times (bar: {}); memory: {memory:.2} of DuckDB's (bar: {})",
        BARS[0], BARS[1], BARS[2]
    )?;
    Ok(())
}

/// One DynamoDB item a member, beside ours: what is counted, and dollars by the prices file.
#[derive(Debug, Clone, Copy, Serialize)]
struct Plain {
    /// Write units of the first day.
    first_writes: u64,
    /// `BatchGetItem` of a hundred members each, of the second day: for who is new, and for everybody's matches.
    requests: u64,
    /// Read units of these.
    reads: u64,
    /// Write units of the second day.
    writes: u64,
    /// What the first day costs.
    first_dollars: f64,
    /// What the second day costs, although nothing has looked for who left.
    dollars: f64,
    /// What an import of ours costs on the first day: S3 and DynamoDB.
    our_first_dollars: f64,
    /// What it costs on the second day.
    our_dollars: f64,
}

#[expect(clippy::cast_precision_loss)]
fn plain(size: u64) -> anyhow::Result<Plain> {
    let prices = prices()?;
    let price = |name| price(&prices, name);
    let ours = simulation::import::measure(import::plan_of(size, 1));
    let cost = |delivery: Delivery| {
        let of = ours.iter().find(|measured| measured.counts.delivery == delivery).context("a file")?;
        import::dollars(of.counts.usage, &prices)
    };
    // An item of a member is far below 1 KB to write, and below the 4 KB of half a unit to read, if consistency may wait.
    let (requests, reads, writes) = (2 * size.div_ceil(100), size, 2 * (size / CHURN));
    Ok(Plain {
        first_writes: size,
        requests,
        reads,
        writes,
        first_dollars: size as f64 * price("dynamodb_write_unit")?,
        dollars: reads as f64 * price("dynamodb_read_unit")? + writes as f64 * price("dynamodb_write_unit")?,
        our_first_dollars: cost(Delivery::First)?,
        our_dollars: cost(Delivery::Again)?,
    })
}

fn show_plain(out: &mut impl Write, size: u64, plain: &Plain) -> anyhow::Result<()> {
    let Plain { first_writes, requests, reads, writes, .. } = plain;
    writeln!(
        out,
        "one DynamoDB item a member, {size} of them, beside an import of ours (prices.json; no function's time):"
    )?;
    writeln!(
        out,
        "  first day: {first_writes} write units, ${:.2}; ours ${:.6}",
        plain.first_dollars, plain.our_first_dollars
    )?;
    writeln!(
        out,
        "  a day later: {requests} BatchGetItem with {reads} read units, {writes} write units, ${:.2}; ours ${:.6}",
        plain.dollars, plain.our_dollars
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn our_side_finds_what_was_put_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let size = 10_000;
        prepare(folder.path(), size).expect("prepared");
        let found = poll(our_side(folder.path())).expect("our side").found;
        let members = size / CHURN..size / CHURN + size;
        let matched: Vec<u64> = (0..size / MATCHED).filter(|number| members.contains(&(number * MATCHED))).collect();
        let leads: Vec<u64> = matched.iter().filter_map(|number| lead_of(*number, size)).collect();
        let expected = Found {
            added: 100,
            removed: 100,
            matched: matched.len() as u64,
            known: leads.len() as u64,
            people: leads.iter().collect::<BTreeSet<_>>().len() as u64,
        };
        assert_eq!(found, expected);
        assert!(expected.people < expected.known && expected.known < expected.matched);
    }
}
