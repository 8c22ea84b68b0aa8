//! What a month costs, for three sizes of user: the recorded counts of the other benchmarks times `prices.json`. The README's
//! table is written by it. What no count tells is assumed in plain sight, or named as left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, ensure};
use domain::Token;
use domain::identity::{Seen, TokenRecord};
use domain::limits::DAY_MS;
use ports::Item;
use serde::Serialize;
use serde::de::DeserializeOwned;
use simulation::counted;
use simulation::import::{Counts as Imported, Delivery, munchkin};
use simulation::promise::LATENCY_MS;
use stack::template::Template;
use state::identity::ecid_to_token;

use crate::beacons::Measured as Beacons;
use crate::flags::Flags;
use crate::import::{SEGMENTS, dollars};
use crate::parts::{Counts as Used, Part};
use crate::rig::{Prices, price, prices, root};
use crate::whole::{self, Counts as Whole};

/// The sizes, in ECIDs.
const SIZES: [u64; 3] = [10_000, 1_000_000, 10_000_000];
/// Days of a month.
const MONTH: u64 = 30;
/// The tag shows a pair again after so many days (`functions/cookie-ingest/tag/tag.js`).
const TAG_DAYS: u64 = 7;
/// Files stay in the bucket for so many days (`infra/template.yaml`).
const FILES_DAYS: u64 = 35;
/// What was replaced lies in the bucket for so many more days (`infra/template.yaml`).
const VERSIONS_DAYS: u64 = 7;
/// Requests of an event source mapping to a queue that is empty, a minute: five pollers, each of which waits 20 s
/// (Lambda's documentation; of FIFO queues it says nothing else).
const POLLS_A_MINUTE: u64 = 15;
/// Bytes that DynamoDB bills for each item, and for each entry of an index, beside what it holds.
const ITEM_BYTES: u64 = 100;
/// Of five tokens so many are of somebody known, as in `whole`.
const KNOWN_OF_FIVE: u64 = 2;
/// Design, P2: ten million rows in three segments each take at most 60 s.
const FILE_MS_A_MILLION: u64 = 6_000;
/// One line of the API's access log, in bytes.
const ACCESS_LOG_BYTES: u64 = 250;
/// Where the README's section begins and ends.
const BEGINS: &str = "<!-- cost: written by `cargo run -p bench -- cost --readme` -->\n";
const ENDS: &str = "<!-- end of cost -->\n";

/// What is assumed of a user: a flag each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Assumed {
    /// Page views of a browser that comes, a month.
    views: u64,
    /// Of a hundred browsers that have shown a token, those that come in a month.
    visiting: u64,
    /// Of a hundred beacons, those that show a new pair.
    new: u64,
    /// Of a hundred members of an audience, those who are others a day later.
    churn: u64,
    /// Of a thousand browsers, those whose visitor becomes known in a month.
    known: u64,
    /// Full files a day.
    files: u64,
    /// Syncs.
    syncs: u64,
    /// How long an invocation takes beside its calls to Marketo, in ms.
    ms: u64,
    /// How long a beacon takes, in ms.
    beacon_ms: u64,
    /// Bytes of log of an invocation.
    log_bytes: u64,
    /// Metrics that CloudWatch makes of the functions' logs.
    metrics: u64,
}

const ASSUMED: Assumed = Assumed {
    views: 20,
    visiting: 50,
    new: 5,
    churn: 1,
    known: 10,
    files: 1,
    syncs: SEGMENTS,
    ms: 100,
    beacon_ms: 10,
    log_bytes: 1_000,
    metrics: 8,
};

const FLAGS: [&str; 11] = [
    "--views",
    "--visiting-percent",
    "--new-percent",
    "--churn-percent",
    "--known-per-thousand",
    "--files-a-day",
    "--syncs",
    "--ms",
    "--beacon-ms",
    "--log-bytes",
    "--metrics",
];

impl Assumed {
    fn read(flags: &Flags) -> anyhow::Result<Self> {
        let mut assumed = ASSUMED;
        let fields = [
            &mut assumed.views,
            &mut assumed.visiting,
            &mut assumed.new,
            &mut assumed.churn,
            &mut assumed.known,
            &mut assumed.files,
            &mut assumed.syncs,
            &mut assumed.ms,
            &mut assumed.beacon_ms,
            &mut assumed.log_bytes,
            &mut assumed.metrics,
        ];
        for (flag, field) in FLAGS.into_iter().zip(fields) {
            *field = flags.number(flag).unwrap_or(*field);
        }
        for (flag, part, whole) in [
            ("--visiting-percent", assumed.visiting, 100),
            ("--new-percent", assumed.new, 100),
            ("--churn-percent", assumed.churn, 100),
            ("--known-per-thousand", assumed.known, 1_000),
        ] {
            ensure!(part <= whole, "{flag} takes at most {whole}");
        }
        Ok(assumed)
    }
}

/// The counts that are recorded, and what the template declares.
struct Recorded {
    beacons: Vec<Beacons>,
    imports: Vec<Imported>,
    whole: Vec<Whole>,
    parts: Vec<Used>,
    prices: Prices,
    template: Template,
    /// Resources of the template by type.
    resources: BTreeMap<&'static str, u64>,
}

fn lines<T: DeserializeOwned>(name: &'static str, text: &str) -> anyhow::Result<Vec<T>> {
    text.lines().map(|line| serde_json::from_str(line).context(name)).collect()
}

impl Recorded {
    fn read() -> anyhow::Result<Self> {
        let path = root().join("infra/template.yaml");
        let text = std::fs::read_to_string(&path).context("the template")?;
        let declared = |kind: &'static str| {
            let line = format!("Type: {kind}");
            (kind, text.lines().filter(|found| found.trim() == line).count() as u64)
        };
        let parameters = BTreeMap::from([("Auth".to_owned(), "none".to_owned())]);
        Ok(Self {
            beacons: lines("beacons.jsonl", include_str!("../beacons.jsonl"))?,
            imports: lines("import.jsonl", include_str!("../import.jsonl"))?,
            whole: lines("whole.jsonl", include_str!("../whole.jsonl"))?,
            parts: lines("parts.jsonl", include_str!("../parts.jsonl"))?,
            prices: prices()?,
            template: stack::template::read(&path, &parameters, "http://127.0.0.1:1")?,
            resources: ["AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "ScheduleV2"].map(declared).into(),
        })
    }

    fn price(&self, name: &str) -> anyhow::Result<f64> {
        price(&self.prices, name)
    }

    fn part(&self, part: Part) -> anyhow::Result<&Used> {
        self.parts.iter().find(|used| used.part == part).context("parts.jsonl")
    }

    fn beacons(&self, scenario: &str) -> anyhow::Result<&Beacons> {
        self.beacons.iter().find(|one| one.scenario == scenario).context("beacons.jsonl")
    }

    /// The counts of a full file, of the largest size that was recorded and is not above this one, and how often it stands for it.
    fn whole(&self, ecids: u64, day: u64) -> anyhow::Result<(&Whole, f64)> {
        let fitting = self.whole.iter().filter(|one| one.day == day && one.ecids <= ecids);
        let counts = fitting.max_by_key(|one| one.ecids).context("whole.jsonl")?;
        Ok((counts, times(ecids, counts.ecids)))
    }

    /// Memory of a function, in GB.
    fn gigabytes(&self, function: &str) -> anyhow::Result<f64> {
        let declared = self.template.functions.iter().find(|one| one.binary == function);
        Ok(number(declared.with_context(|| format!("the template has no {function}"))?.memory_mb) / 1_024.0)
    }

    /// S3, DynamoDB, the requests to FIFO queues and the invocations of one of the parts.
    fn dollars_of(&self, used: &Used) -> anyhow::Result<f64> {
        Ok(dollars(used.usage, &self.prices)?
            + number(used.index_moves) * self.price("dynamodb_write_unit")?
            + number(3 * used.messages) * self.price("sqs_fifo_request")?
            + number(used.scheduled + used.writer) * self.price("lambda_request")?)
    }
}

#[expect(clippy::cast_precision_loss)]
const fn number(count: u64) -> f64 {
    count as f64
}

fn times(of: u64, each: u64) -> f64 {
    number(of) / number(each)
}

/// A month of one size.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Month {
    ecids: u64,
    /// In dollars, by what it is for.
    dollars: Vec<(&'static str, f64)>,
    /// The first full file, in dollars, once.
    first_file: f64,
    /// Calls to Marketo a day.
    marketo_calls_a_day: f64,
}

impl Month {
    fn total(&self) -> f64 {
        self.dollars.iter().map(|(_, dollars)| dollars).sum()
    }
}

/// How often Marketo is asked in a month about a token whose browser was seen last, in ms, at `last`, counted from its begin.
fn asks(last: u64, known: bool, is_new: bool) -> anyhow::Result<f64> {
    let token = Token::parse("_mch-example.com-1700000000000-10000").context("a token")?;
    let mut record = TokenRecord::new(token);
    let ecid = domain::Ecid::from_number(1).context("an ECID")?;
    record.ecids.insert(ecid, Seen { first: last, last });
    record.known = known;
    let begin = 60 * DAY_MS;
    if !is_new {
        (record.asked, record.asked_at) = (if known { 0 } else { 10 }, Some(begin));
    }
    let (mut now, mut count) = (begin, 0);
    while let Some(due) = record.due_to_ask(now).filter(|due| *due < begin + MONTH * DAY_MS) {
        now = due.max(now);
        record.was_asked(now);
        count += 1;
    }
    Ok(number(count))
}

/// Bytes of a token with what leads to it, as DynamoDB bills them.
fn token_bytes() -> u64 {
    let key = ecid_to_token(&munchkin(), whole::ecid_of(0), &whole::token(0));
    let hint = Item { key, rev: 1, doc: serde_json::json!({"v": 1}), due: None, expires_at: None };
    // It stands in the index whole.
    2 * (whole::token_bytes() + ITEM_BYTES) + counted::size(&hint) + ITEM_BYTES
}

fn month(recorded: &Recorded, assumed: &Assumed, ecids: u64) -> anyhow::Result<Month> {
    let price = |name| recorded.price(name);
    let percent = |of: f64, percent: u64| of * number(percent) / 100.0;
    let days = number(MONTH);
    let browsers = number(ecids / 2);
    let visiting = percent(browsers, assumed.visiting);
    let beacons = visiting * number(assumed.views.min(MONTH.div_ceil(TAG_DAYS)));
    let new = percent(beacons, assumed.new);
    let syncs = times(assumed.syncs, SEGMENTS);

    // Whoever comes again and again was seen just now; of the others the last sight is more than a month old.
    let known = times(KNOWN_OF_FIVE, 5);
    let (recent, long_ago) = (90 * DAY_MS, 0);
    let of_a_visitor = known * asks(recent, true, false)? + (1.0 - known) * asks(recent, false, false)?;
    let more_for_new = asks(recent, false, true)? - asks(recent, false, false)?;
    let asked =
        visiting * of_a_visitor + (browsers - visiting) * asks(long_ago, false, false)? + new * more_for_new.max(0.0);
    let look_up = recorded.part(Part::LookUp)?;
    let look_ups = asked / number(look_up.times);

    let of_known = recorded.part(Part::Known)?;
    let become_known = browsers * number(assumed.known) / 1_000.0 * syncs;

    // As many come as leave, and two of ten ECIDs are of somebody known.
    let written = recorded.part(Part::Written)?;
    let people = times(ecids, 5);
    let changes = percent(people, 2 * assumed.churn) * days * number(assumed.syncs) / number(written.times);

    let idle = recorded.part(Part::Idle)?;
    let (file, scale) = recorded.whole(ecids, 1)?;
    let files = days * number(assumed.files);
    let of_a_file = |file: &Whole, scale: f64| -> anyhow::Result<f64> {
        Ok((dollars(file.usage, &recorded.prices)? * scale * syncs)
            + number(file.invocations) * (price("lambda_request")? + 3.0 * price("sqs_fifo_request")?))
    };

    let queues = |fifo: bool| {
        let read = recorded.template.queues.iter().filter(|queue| !queue.dead && queue.fifo == fifo);
        number(read.count() as u64)
    };
    let minutes = days * 1_440.0;
    let polls = minutes * number(POLLS_A_MINUTE);
    let declared = |kind| number(recorded.resources.get(kind).copied().unwrap_or_default());
    // The other schedule goes on with syncs that are half made; usually there are none.
    let schedules = declared("ScheduleV2");
    let resuming = minutes * (schedules - 1.0);
    let nothing_happens = days * recorded.dollars_of(idle)? * syncs.max(1.0)
        + minutes * schedules * price("scheduler_invocation")?
        + resuming * price("lambda_request")?
        + polls * (queues(false) * price("sqs_standard_request")? + queues(true) * price("sqs_fifo_request")?);

    // Gigabytes that lie there.
    let rows = browsers * number(token_bytes()) / 1e9;
    let imported =
        recorded.imports.iter().filter(|one| one.delivery == Delivery::First && one.plan.segments == SEGMENTS);
    let imported = imported.filter(|one| one.plan.ecids <= ecids).max_by_key(|one| one.plan.ecids);
    let imported = imported.context("import.jsonl")?;
    let kept = number(imported.file_bytes) * times(ecids, imported.plan.ecids) * number(FILES_DAYS * assumed.files);
    let (first, first_scale) = recorded.whole(ecids, 0)?;
    let replaced = number(file.usage.bytes_written * VERSIONS_DAYS * assumed.files) * scale * syncs;
    let objects = (kept + number(first.usage.bytes_written) * first_scale * syncs + replaced) / 1e9;

    // GB-seconds.
    let waits = |calls: f64| calls * number(LATENCY_MS);
    let ms = number(assumed.ms);
    let calls = look_ups * number(look_up.marketo_calls) + days * number(idle.marketo_calls);
    let scheduled = days * number(idle.scheduled)
        + look_ups * number(look_up.scheduled)
        + files * number(file.invocations)
        + become_known * number(of_known.scheduled);
    let writing = changes * number(written.marketo_calls) + become_known * number(of_known.marketo_calls);
    let writer = days * number(idle.writer) + changes * number(written.writer) + become_known * number(of_known.writer);
    let file_ms = files * times(ecids, 1_000_000) * number(FILE_MS_A_MILLION);
    let fresh = recorded.beacons("new")?;
    let stored = new * (fresh.storing.invocations / 1_000.0);
    let gb_seconds = ((beacons + stored) * number(assumed.beacon_ms) * recorded.gigabytes("cookie-ingest")?
        + (scheduled * ms + waits(calls) + file_ms) * recorded.gigabytes("scheduled-incremental-sync")?
        + (writer * ms + waits(writing)) * recorded.gigabytes("list-writer")?
        + resuming * ms * recorded.gigabytes("create-sync")?)
        / 1_000.0;
    let logged = (beacons + stored + scheduled + writer + resuming) * number(assumed.log_bytes)
        + beacons * number(ACCESS_LOG_BYTES);

    let secrets = ["Marketo's", "Adobe's", "those of streams"].len() as u64;
    let lines = vec![
        (
            "beacons that repeat a pair",
            (beacons - new) * recorded.beacons("repeats_100_cold")?.dollars_per_million / 1e6,
        ),
        ("beacons with a new pair", new * fresh.dollars_per_million / 1e6),
        ("files, from the bucket to who is wanted", files * of_a_file(file, scale)?),
        ("look-ups at Marketo", look_ups * recorded.dollars_of(look_up)?),
        ("people who become known", become_known * recorded.dollars_of(of_known)?),
        ("people written to lists", changes * recorded.dollars_of(written)?),
        ("when nothing happens: ticks, activities, polls of queues", nothing_happens),
        ("the functions' time", gb_seconds * price("lambda_gb_second_arm64")?),
        (
            "tables that lie there, and their backup",
            rows * (price("dynamodb_gb_month")? + price("dynamodb_pitr_gb_month")?),
        ),
        ("objects that lie there", objects * price("s3_gb_month")?),
        ("logs", logged / 1e9 * price("logs_gb")?),
        (
            "alarms, metrics, dashboards, secrets",
            declared("AWS::CloudWatch::Alarm") * price("cloudwatch_alarm_month")?
                + number(assumed.metrics) * price("cloudwatch_metric_month")?
                + declared("AWS::CloudWatch::Dashboard") * price("cloudwatch_dashboard_month")?
                + number(secrets) * price("secret_month")?,
        ),
    ];
    Ok(Month {
        ecids,
        dollars: lines,
        first_file: of_a_file(first, first_scale)?,
        marketo_calls_a_day: (calls + writing) / days,
    })
}

/// Digits in threes.
fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn dollars_of(dollars: f64) -> String {
    if dollars > 0.0 && dollars < 0.005 { "< 0.01".to_owned() } else { format!("{dollars:.2}") }
}

/// The table, what it assumes, and what it leaves out.
fn markdown(assumed: &Assumed, months: &[Month]) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").ok();
    let row = |name: &str, cells: Vec<String>| format!("| {name} | {} |", cells.join(" | "));
    let each = |cell: &dyn Fn(&Month) -> String| months.iter().map(cell).collect::<Vec<_>>();
    line(format_args!(
        "{}",
        row("a month, in dollars", each(&|month| format!("{} ECIDs", grouped(number(month.ecids)))))
    ));
    line(format_args!("|---{}|", "|---:".repeat(months.len())));
    for (place, (name, _)) in months.first().map_or(&[][..], |month| &month.dollars).iter().enumerate() {
        line(format_args!("{}", row(name, each(&|month| dollars_of(month.dollars[place].1)))));
    }
    let bold = |text: String| format!("**{text}**");
    line(format_args!("{}", row("**all of it**", each(&|month| bold(dollars_of(month.total()))))));
    line(format_args!("{}", row("once: the first full file", each(&|month| dollars_of(month.first_file)))));
    line(format_args!("{}", row("Marketo calls a day", each(&|month| grouped(month.marketo_calls_a_day)))));
    let Assumed { views, visiting, new, churn, known, files, syncs, ms, beacon_ms, log_bytes, metrics } = assumed;
    let pages = views.min(&MONTH.div_ceil(TAG_DAYS)).to_owned();
    let file_s = FILE_MS_A_MILLION / 1_000;
    line(format_args!(
        "
It assumes, each changeable by a flag: {syncs} syncs, of audiences of all ECIDs; half of the ECIDs were seen beside a token, and two of
five of these are of somebody known; {visiting} % of these browsers come in a month, with {views} page views each, of which the tag sends
{pages} (a pair again after {TAG_DAYS} days); {new} % of what it sends is a new pair; {files} full file a day, {churn} % of its ECIDs others than
the day before; {known} of 1,000 of these browsers are of somebody who becomes known in a month. An invocation takes {ms} ms and {LATENCY_MS} ms a call to Marketo, a beacon
{beacon_ms} ms, a file {file_s} s a million ECIDs; an invocation logs {log_bytes} bytes; CloudWatch makes {metrics} metrics of the logs.

Counts are those of `tests/bench/*.jsonl`, which tests compare; those of a full file of ten million ECIDs are ten times those of one
million. Prices are those of `tests/bench/prices.json`: us-east-1, without free tier; some are unconfirmed. Left out: the API's other
routes and its metrics by route, streams, previews, downloads and comparisons, transfer to the internet, KMS, CloudFront and WAF,
NAT for a fixed address, and Marketo and Adobe themselves. Marketo calls beyond our share of the day's quota (25,000 of 50,000) would
wait for the next day."
    ));
    text
}

/// Runs `cost [--json | --readme] [--views N …]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &FLAGS, &["--json", "--readme"])?;
    let assumed = Assumed::read(&flags)?;
    let months = months(&assumed)?;
    if flags.has("--readme") {
        ensure!(assumed == ASSUMED, "the README shows what is assumed without flags");
        let path = root().join("README.md");
        let readme = std::fs::read_to_string(&path).context("README.md")?;
        let (before, _, after) = parts_of(&readme).context("README.md has no section of costs")?;
        std::fs::write(&path, format!("{before}{BEGINS}{}{ENDS}{after}", section(&assumed, &months)))?;
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    if flags.has("--json") {
        writeln!(out, "{}", serde_json::json!({"assumed": assumed, "months": months}))?;
    } else {
        write!(out, "{}", markdown(&assumed, &months))?;
    }
    Ok(())
}

fn months(assumed: &Assumed) -> anyhow::Result<Vec<Month>> {
    let recorded = Recorded::read()?;
    SIZES.into_iter().map(|ecids| month(&recorded, assumed, ecids)).collect()
}

fn section(assumed: &Assumed, months: &[Month]) -> String {
    format!("\n{}\n", markdown(assumed, months))
}

/// What stands before the section of costs, in it, and after it.
fn parts_of(readme: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = readme.split_once(BEGINS)?;
    let (section, after) = rest.split_once(ENDS)?;
    Some((before, section, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_what_the_command_finds() {
        let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
        let (_, found, _) = parts_of(&readme).expect("a section of costs");
        let expected = section(&ASSUMED, &months(&ASSUMED).expect("months"));
        assert_eq!(found, expected, "written anew by `cargo run -p bench -- cost --readme`");
    }

    #[test]
    fn more_of_anything_costs_more_and_only_where_it_is_used() {
        let base = months(&ASSUMED).expect("months");
        let grows = |assumed: Assumed, parts: &[&str]| {
            for (before, after) in base.iter().zip(months(&assumed).expect("months")) {
                for ((name, before), (_, after)) in before.dollars.iter().zip(after.dollars) {
                    // Each invocation takes time, and is logged.
                    if parts.contains(name) {
                        assert!(after > *before, "{name} of {assumed:?}");
                    } else if !["the functions' time", "logs"].contains(name) {
                        assert!((after - before).abs() < 1e-9, "{name} of {assumed:?}");
                    }
                }
            }
        };
        let beacons = ["beacons that repeat a pair", "beacons with a new pair", "look-ups at Marketo"];
        grows(Assumed { visiting: 60, ..ASSUMED }, &beacons);
        grows(Assumed { churn: 2, ..ASSUMED }, &["people written to lists"]);
        grows(Assumed { known: 20, ..ASSUMED }, &["people who become known"]);
        grows(Assumed { metrics: 61, ..ASSUMED }, &["alarms, metrics, dashboards, secrets"]);
        grows(Assumed { ms: 200, ..ASSUMED }, &["the functions' time"]);
        grows(Assumed { files: 2, ..ASSUMED }, &["files, from the bucket to who is wanted", "objects that lie there"]);
    }

    #[test]
    fn tokens_are_asked_about_as_the_intervals_say() {
        let recent = 90 * DAY_MS;
        // Weekly, daily, and five times more on the first day.
        assert_eq!(asks(recent, true, false).expect("asks"), 4.0);
        assert_eq!(asks(recent, false, false).expect("asks"), 29.0);
        assert_eq!(asks(0, false, false).expect("asks"), 4.0);
        assert!(asks(recent, false, true).expect("asks") > 33.0);
    }
}
