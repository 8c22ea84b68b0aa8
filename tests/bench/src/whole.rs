//! A delivery from `incoming/` to *want* (design, P2): files, edges and passes by the real handlers. Objects stand in a folder.
//! Tokens come through the real SDK, whose HTTP client answers with pages that are made up on the spot: what that costs is not
//! counted.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use aws::DynamoTables;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use domain::identity::{Seen, TokenRecord};
use domain::{AudienceId, Ecid, LeadId, Token};
use ports::{Expect, Item, Key, Page, PortResult, Ports, Queue, Read, Table, Tables};
use scheduled_incremental_sync::{Arrival, arrived, handle};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simulation::cloud::settings;
use simulation::counted::{Counted, Usage, forget_peak, peak_bytes, processor_seconds};
use simulation::fakes::Sim;
use simulation::import::{self, Plan, munchkin};
use simulation::promise::put;
use simulation::scenario::{BEGIN, active_sync};
use state::bell::Ring;
use state::identity::{ecid_to_token, token_key};
use state::lists::{Want, want_key};
use state::syncs::sync_key;
use state::{Deps, load};
use tokio::time::Instant;

use crate::flags::Flags;
use crate::import::{dollars, plan_of};
use crate::rig::{Prices, prices};

/// Without a size: that which is recorded in `whole.jsonl`.
const SIZES: [u64; 2] = [10_000, 1_000_000];
/// Audiences, each of all ECIDs (design, P2).
const AUDIENCES: u64 = 3;
/// One in a hundred is new from day to day (design, P4).
const CHURN_PERCENT: u64 = 1;
/// Files, one a day.
const DAYS: u64 = 2;
const DAY_MS: u64 = 86_400_000;
const DEADLINE_MS: u64 = 120_000;
/// Calls of a day: nothing here is written to Marketo.
const QUOTA: u64 = 50_000;

/// What was used until every audience's *want* was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// ECIDs, each in all audiences.
    pub ecids: u64,
    /// Tokens, each seen beside one ECID of the first day.
    pub tokens: u64,
    /// Audiences.
    pub audiences: u64,
    /// 0: nobody has read the edges before; later: a full file, and nothing else is new.
    pub day: u64,
    /// Known people of each audience.
    pub people: u64,
    /// Invocations.
    pub invocations: u64,
    /// What was used of S3 and DynamoDB.
    pub usage: Usage,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// What was counted.
    pub counts: Counts,
    /// Processor time, in seconds, without that of whoever answers in place of DynamoDB.
    pub seconds: f64,
    /// From the beginning to the end, in seconds, without the same.
    pub wall: f64,
    /// The most memory beyond what stood before, in bytes.
    pub bytes: u64,
}

/// Runs `whole [--size N] [--churn PERCENT] [--days N] [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &["--size", "--churn", "--days"], &["--json"])?;
    let sizes = flags.number("--size").map_or(SIZES.to_vec(), |size| vec![size]);
    let churn_percent = flags.number("--churn").unwrap_or(CHURN_PERCENT);
    let days = flags.number("--days").unwrap_or(DAYS);
    let prices = prices()?;
    let mut out = std::io::stdout().lock();
    for ecids in sizes {
        for measured in measure(ecids, churn_percent, days)? {
            if flags.has("--json") {
                writeln!(out, "{}", serde_json::to_string(&measured.counts)?)?;
            } else {
                show(&mut out, &measured, &prices)?;
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn show(out: &mut impl Write, measured: &Measured, prices: &Prices) -> anyhow::Result<()> {
    let Measured { counts, seconds, wall, bytes } = measured;
    let used = counts.usage;
    let dollars = dollars(used, prices)?;
    let when = if counts.day == 0 { "every edge is read" } else { "a full file, the edges stand" };
    writeln!(
        out,
        "{} ECIDs in {} audiences, {} tokens, {} known people ({when}): {wall:.1} s, {seconds:.1} s of a processor, {:.0} MB, ${dollars:.4}",
        counts.ecids,
        counts.audiences,
        counts.tokens,
        counts.people,
        *bytes as f64 / f64::from(1 << 20),
    )?;
    writeln!(
        out,
        "  {} invocations; S3: {} reads, {} writes; DynamoDB: {:.1} read units, {} write units",
        counts.invocations,
        used.object_reads,
        used.object_writes,
        used.half_read_units as f64 / 2.0,
        used.write_units,
    )?;
    Ok(())
}

/// Takes in a full file of so many ECIDs for each day.
pub fn measure(ecids: u64, churn_percent: u64, days: u64) -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir().context("a folder for the bucket")?;
    let sim = import::world(AUDIENCES);
    let bucket = Counted::new(sim.clone(), folder.path().to_owned());
    let whole = Arc::new(Whole::new(bucket.clone(), ecids / 2));
    let ports = Ports { tables: whole.clone(), ..bucket.ports() };
    let deps = Deps::new(ports, settings(QUOTA));
    // The SDK wants a runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        for sid in 1..=AUDIENCES {
            let sync = active_sync(&munchkin(), AudienceId::aam(sid), 1_000 + sid, false);
            put(&sim, Table::Syncs, sync_key(&munchkin(), &sync.id), &sync);
        }
        let mut all = Vec::new();
        for day in 0..days {
            let plan = Plan { churn_percent, ..plan_of(ecids, AUDIENCES) };
            all.push(one_day(&deps, &bucket, &whole, &sim, plan, day).await?);
        }
        Ok(all)
    })
}

async fn one_day(
    deps: &Deps,
    bucket: &Counted,
    whole: &Whole,
    sim: &Sim,
    plan: Plan,
    day: u64,
) -> anyhow::Result<Measured> {
    sim.lock().now = BEGIN + day * DAY_MS;
    sim.lock().messages.clear();
    let changed = plan.ecids * plan.churn_percent / 100;
    let key = format!("incoming/S3_1_2_full_{}.sync.gz", BEGIN + day * DAY_MS);
    let length = import::write(&bucket.path(&key), plan, day * changed);
    let arrival = Arrival { key, etag: Counted::tag(length) };
    let before = forget_peak().unwrap_or_default();
    let (began, used) = (processor_seconds().unwrap_or_default(), whole.usage());
    let clock = Instant::now();
    let outside = whole.outside_seconds();
    let mut invocations = 1;
    arrived(deps, &arrival, deps.now() + DEADLINE_MS).await?;
    while let Some(ring) = next_ring(sim) {
        handle(deps, &ring?, deps.now() + DEADLINE_MS).await?;
        invocations += 1;
        ensure!(invocations < 10_000, "it never ends");
    }
    let outside = whole.outside_seconds() - outside;
    let (seconds, wall) =
        (processor_seconds().unwrap_or_default() - began - outside, clock.elapsed().as_secs_f64() - outside);
    let bytes = peak_bytes().unwrap_or_default().saturating_sub(before);
    let usage = whole.usage().since(used);
    let first = day * changed;
    let expected = (0..plan.ecids / 2).filter(|t| 2 * t >= first && owner(*t).is_some()).count() as u64;
    for sid in 1..=AUDIENCES {
        let want: Option<state::Doc<Want>> =
            load(deps, Table::Lists, &want_key(&munchkin(), &AudienceId::aam(sid))).await?;
        let want = want.context("no want was published")?.value;
        let counts = &want.report.counts;
        let matched = (plan.ecids - first).div_ceil(2);
        ensure!(
            (want.count, counts.audience, counts.known, counts.known + counts.anonymous)
                == (expected, plan.ecids, expected, matched),
            "audience {sid} has {} people, {expected} were expected, and {counts:?}",
            want.count
        );
    }
    let counts = Counts {
        ecids: plan.ecids,
        tokens: plan.ecids / 2,
        audiences: AUDIENCES,
        day,
        people: expected,
        invocations,
        usage,
    };
    Ok(Measured { counts, seconds, wall, bytes })
}

/// The next ring of an audience, or of the edges.
fn next_ring(sim: &Sim) -> Option<anyhow::Result<Ring>> {
    let mut store = sim.lock();
    let place = store.messages.iter().position(|message| message.queue == Queue::AudienceWork)?;
    Some(serde_json::from_str(&store.messages.remove(place).body).context("a ring"))
}

/// Two of five tokens are of somebody known.
const fn owner(number: u64) -> Option<LeadId> {
    if number % 5 < 2 { Some(number + 1) } else { None }
}

/// Tables in memory, but for tokens: these are made up as they are asked for.
struct Whole {
    rest: Arc<Counted>,
    tokens: DynamoTables,
    pages: Arc<Pages>,
}

impl Whole {
    fn new(rest: Arc<Counted>, count: u64) -> Self {
        let pages = Arc::new(Pages::new(count));
        let answers = Arc::clone(&pages);
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "bench", "bench", None, None, "bench",
            )))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(Answers(Arc::clone(&answers)))))
            .build();
        let names = BTreeMap::from([(Table::Identity, "identity".to_owned())]);
        Self { rest, tokens: DynamoTables::new(aws::dynamo_client(&sdk), names), pages }
    }

    fn usage(&self) -> Usage {
        let mut usage = self.rest.usage();
        usage.half_read_units += self.pages.half_read_units.load(Ordering::Relaxed);
        usage
    }

    fn outside_seconds(&self) -> f64 {
        *self.pages.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// DynamoDB in this process.
#[derive(Debug)]
struct Answers(Arc<Pages>);

impl HttpConnector for Answers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let began = processor_seconds().unwrap_or_default();
        let body = self.0.answer(request.body().bytes().unwrap_or_default());
        self.0.spent(processor_seconds().unwrap_or_default() - began);
        let status = 200.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

/// Makes pages up.
#[derive(Debug)]
struct Pages {
    /// By partition, its tokens in order.
    shards: BTreeMap<String, Vec<u32>>,
    /// ECIDs that were seen, in order, each with its token.
    seen: Vec<(Ecid, u32)>,
    half_read_units: AtomicU64,
    seconds: Mutex<f64>,
}

impl Pages {
    fn new(count: u64) -> Self {
        let munchkin = munchkin();
        let mut shards: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut seen: Vec<(Ecid, u32)> = Vec::new();
        for number in 0..count {
            let pk = token_key(&munchkin, &token(number)).pk;
            let place = u32::try_from(number).expect("fewer than four thousand million");
            shards.entry(pk).or_default().push(place);
            seen.push((ecid_of(number), place));
        }
        seen.sort_unstable();
        Self { shards, seen, half_read_units: AtomicU64::new(0), seconds: Mutex::new(0.0) }
    }

    /// The hints of an ECID.
    fn hints(&self, ecid: Ecid) -> Page {
        self.half_read_units.fetch_add(2, Ordering::Relaxed);
        let found = self.seen.binary_search_by_key(&ecid, |(seen, _)| *seen).ok();
        let item = |place: usize| Item {
            key: ecid_to_token(&munchkin(), ecid, &token(u64::from(self.seen[place].1))),
            rev: 1,
            doc: json!({"v": 1}),
            due: None,
            expires_at: None,
        };
        Page { items: found.map(item).into_iter().collect(), next: None }
    }

    fn spent(&self, seconds: f64) {
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner) += seconds;
    }

    /// The answer to a consistent query.
    fn answer(&self, body: &[u8]) -> String {
        let query: Value = serde_json::from_slice(body).unwrap_or_default();
        let pk = query["ExpressionAttributeValues"][":pk"]["S"].as_str().unwrap_or_default();
        let numbers = self.shards.get(pk).map(Vec::as_slice).unwrap_or_default();
        let after = query["ExclusiveStartKey"]["sk"]["S"].as_str();
        let from =
            after.map_or(0, |after| numbers.partition_point(|number| token(u64::from(*number)).as_str() <= after));
        let limit = usize::try_from(query["Limit"].as_u64().unwrap_or_default()).unwrap_or_default();
        let page = &numbers[from..numbers.len().min(from + limit)];
        let (mut items, mut bytes) = (Vec::with_capacity(page.len()), 0);
        for number in page {
            let (item, size) = item(pk, u64::from(*number));
            items.push(item);
            bytes += size;
        }
        // A consistent read of 4 KB is a unit.
        self.half_read_units.fetch_add(2 * bytes.max(1).div_ceil(4_096), Ordering::Relaxed);
        let mut answer = json!({"Count": items.len(), "ScannedCount": items.len()});
        if from + page.len() < numbers.len()
            && let Some(last) = page.last()
        {
            answer["LastEvaluatedKey"] = json!({"pk": {"S": pk}, "sk": {"S": token(u64::from(*last)).as_str()}});
        }
        answer["Items"] = Value::Array(items);
        answer.to_string()
    }
}

/// A token of the world.
pub fn token(number: u64) -> Token {
    Token::parse(&format!("_mch-example.com-{}-{}", 1_700_000_000_000 + number, 10_000 + number % 90_000))
        .expect("a token")
}

/// The ECID that a token was seen beside.
pub fn ecid_of(number: u64) -> Ecid {
    Ecid::from_number(import::ecid(2 * number)).expect("an ECID")
}

/// Bytes of a token's item as DynamoDB counts them.
pub fn token_bytes() -> u64 {
    item(&token_key(&munchkin(), &token(0)).pk, 0).1
}

/// A token's item as the adapter writes it, and its bytes as DynamoDB counts them. It was seen once, and asked about.
fn item(pk: &str, number: u64) -> (Value, u64) {
    let mut record = TokenRecord::new(token(number));
    record.ecids.insert(ecid_of(number), Seen { first: BEGIN - DAY_MS, last: BEGIN - DAY_MS });
    (record.lead, record.known) = (owner(number), owner(number).is_some());
    (record.asked_at, record.asked) = (Some(BEGIN - DAY_MS / 2), 5);
    let doc = serde_json::to_string(&record).expect("JSON");
    let due = BEGIN + DAY_MS;
    let due_pk = format!("{}/ask", munchkin());
    let sk = record.token.as_str();
    let names = "pkskrevdocdue_pkdue_atexpires_at".len();
    let size = (names + pk.len() + sk.len() + 2 + doc.len() + due_pk.len() + 8 + 6) as u64;
    let item = json!({
        "pk": {"S": pk}, "sk": {"S": sk}, "rev": {"N": "3"}, "doc": {"S": doc},
        "due_pk": {"S": due_pk}, "due_at": {"N": due.to_string()}, "expires_at": {"N": (due / 1_000 + 40_000_000).to_string()},
    });
    (item, size)
}

#[async_trait]
impl Tables for Whole {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        Tables::get(&*self.rest, table, key, read).await
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        self.rest.batch_get(table, keys, read).await
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        Tables::put(&*self.rest, table, item, expect).await
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        self.rest.put_all(table, items).await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        Tables::delete(&*self.rest, table, key, expect).await
    }

    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        read: Read,
    ) -> PortResult<Page> {
        if table == Table::Identity && self.pages.shards.contains_key(pk) {
            return self.tokens.query(table, pk, prefix, after, limit, read).await;
        }
        let of_ecid = pk.strip_prefix(&format!("{}/e/", munchkin())).and_then(Ecid::parse);
        if let (Table::Identity, Some(ecid)) = (table, of_ecid) {
            return Ok(self.pages.hints(ecid));
        }
        self.rest.query(table, pk, prefix, after, limit, read).await
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.rest.due(table, due_pk, until, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_uses_what_is_recorded_until_everybody_is_wanted() {
        let recorded: Vec<Counts> =
            include_str!("../whole.jsonl").lines().map(|line| serde_json::from_str(line).expect("counts")).collect();
        let measured = SIZES.iter().flat_map(|size| measure(*size, CHURN_PERCENT, DAYS).expect("measured"));
        let counts: Vec<Counts> = measured.map(|measured| measured.counts).collect();
        assert_eq!(counts, recorded, "written anew by `cargo run -p bench -- whole --json > tests/bench/whole.jsonl`");
    }
}
