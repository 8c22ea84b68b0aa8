//! The kernels of an import and of a pass, each by itself: how many items a second, and how much memory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;

use anyhow::{Context as _, ensure};
use domain::base::{Base, absent, mix, sort};
use domain::edges::{Census, Edge, Source, of_token};
use domain::feed::Mode;
use domain::identity::{Seen, TokenRecord};
use domain::rows::{Encoder, decode};
use domain::{Ecid, LeadSet, Said, Token};
use feeds::{File, Named, Sink};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use simulation::counted::{forget_peak, peak_bytes, processor_seconds};

use crate::flags::Flags;

/// Items without `--size`.
const SIZE: u64 = 1_000_000;
/// Any seed would do; this one is always the same.
const SEED: u64 = 7;
/// One ECID of so many is another one in the second set.
const CHURN: u64 = 100;
/// One ECID of so many has a match.
const MATCHED: usize = 2;
/// One lead of so many is in a set of leads.
const ONE_OF: u64 = 5;

/// Takes nothing but the count.
struct Count(u64);

impl Sink for Count {
    fn take(&mut self, _: u64, _: Named<'_>, ecid: Ecid, _: bool) {
        self.0 += black_box(ecid.number() & 1) as u64 | 1;
    }

    fn reject(&mut self, _: u64, _: &Said) {}
}

/// Runs `codecs [--size N] [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size"], &["--json"])?;
    let (size, json) = (flags.number("--size").unwrap_or(SIZE), flags.has("--json"));
    ensure!(size >= CHURN, "--size takes at least {CHURN}");
    let mut rng = SmallRng::seed_from_u64(SEED);
    let ecids: Vec<Ecid> =
        (0..size + size / CHURN).filter_map(|_| Ecid::from_number(rng.random_range(0..10_u128.pow(38)))).collect();
    let (first, second) = (&ecids[..usize::try_from(size)?], &ecids[ecids.len() - usize::try_from(size)?..]);

    let text: Vec<u8> = first.iter().flat_map(|ecid| format!("{}\t101\t\n", ecid.text()).into_bytes()).collect();
    timed("parse", size, json, || {
        let mut count = Count(0);
        File::aam(Mode::Full).read(&text, &mut count).map_err(|why| anyhow::anyhow!("{why}"))?;
        ensure!(count.0 == size, "{} of {size} were read", count.0);
        Ok(())
    })?;
    drop(text);
    let mut rows: Vec<u128> = first.iter().copied().map(mix).collect();
    timed("shuffle", size, json, || {
        sort(&mut rows);
        Ok(())
    })?;
    let old = Base::of_rows(rows, 0);
    let new = Base::new(second.iter().copied(), 1);
    timed("diff", 2 * size, json, || {
        let (mut left, mut right) = (new.rows(), old.rows());
        let (gone, come) = (absent(old.rows(), &mut left), absent(new.rows(), &mut right));
        ensure!(gone as u64 == size / CHURN && come == gone, "{gone} gone and {come} come");
        Ok(())
    })?;
    let mut edges = Vec::new();
    let token = Token::parse("_mch-example.com-1790000000000-12345").context("a token")?;
    let mut record = TokenRecord { asked_at: Some(1), ..TokenRecord::new(token) };
    for (number, ecid) in first.iter().step_by(MATCHED).enumerate() {
        (record.lead, record.known) = (Some(number as u64 + 1), true);
        record.ecids = BTreeMap::from([(*ecid, Seen { first: 1, last: 1 })]);
        of_token(&record, Source::token(number as u128), u64::MAX, &mut edges);
    }
    edges.sort_unstable();
    timed("join", size + edges.len() as u64, json, || {
        let mut census = Census::new(0);
        census.join(&mut new.rows(), &mut &edges[..], true, |_| {});
        let found = census.end().counts;
        ensure!(found.audience == size && found.known > 0, "{found:?}");
        Ok(())
    })?;
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(0, &mut bytes);
    timed("edge codec, out", edges.len() as u64, json, || {
        encoder.rows(&edges, &mut bytes);
        encoder.end(&mut bytes);
        Ok(())
    })?;
    timed("edge codec, in", edges.len() as u64, json, || {
        ensure!(decode::<Edge>(&bytes).is_some_and(|(read, _)| read == edges), "other edges were read");
        Ok(())
    })?;
    drop(edges);
    let mut bytes = Vec::new();
    timed("page codec, out", size, json, || {
        bytes = new.encode();
        Ok(())
    })?;
    timed("page codec, in", size, json, || {
        ensure!(Base::decode(&bytes).as_ref() == Some(&new), "another set was read");
        Ok(())
    })?;
    let leads: LeadSet = (0..size).map(|n| n * ONE_OF + rng.random_range(0..ONE_OF)).collect();
    timed("bitmap codec, out", size, json, || {
        bytes = leads.to_bytes();
        Ok(())
    })?;
    timed("bitmap codec, in", size, json, || {
        ensure!(LeadSet::from_bytes(&bytes).as_ref() == Some(&leads), "another set was read");
        Ok(())
    })?;
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn timed(name: &str, items: u64, json: bool, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let before = forget_peak();
    let began = processor_seconds();
    work().with_context(|| name.to_owned())?;
    let seconds = processor_seconds().zip(began).map(|(ended, began)| ended - began);
    let bytes = peak_bytes().zip(before).map(|(peak, before)| peak.saturating_sub(before));
    let a_second = seconds.map(|seconds| items as f64 / seconds);
    let mut out = std::io::stdout().lock();
    if json {
        let line = json!({"kernel": name, "items": items, "processor_seconds": seconds, "items_a_second": a_second, "bytes": bytes});
        writeln!(out, "{line}")?;
    } else {
        let told = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.1}"));
        writeln!(
            out,
            "{name:<17} {items:>10} items  {:>8} s of a processor  {:>8} M items a second  {:>8} MB",
            seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.3}")),
            told(a_second.map(|rate| rate / 1e6)),
            told(bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))),
        )?;
    }
    Ok(())
}
