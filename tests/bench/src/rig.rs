//! A real stack for beacons: the real function binaries over HTTP, nothing else at work. The schedules rest, and nobody
//! handles identity work, so that whatever is counted comes from beacons.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use stack::{Options, Pause, Port, Stack};
use tokio::time::Instant;

/// The function that is measured.
pub const FUNCTION: &str = "cookie-ingest";
/// Its queue.
pub const MATCHES: &str = "local-matches";
/// The queue of entries of streams.
pub const EVENTS: &str = "local-events";
/// The key of the feed `web`.
pub const KEY: &str = "bench-key";
const STREAM_SECRETS: &str = r#"{"feeds": {"web": {"keys": ["bench-key"]}}}"#;
const IDENTITY_WORK: &str = "local-identity-work.fifo";
const ORG: &str = "0123456789ABCDEF01234567@AdobeOrg";
const MUNCHKIN: &str = "123-ABC-456";
const ORIGIN: &str = "https://www.example.com";
/// Any seed would do; this one is always the same.
const SEED: u64 = 4;
/// How long a queue may take to empty.
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A pair that no other number has.
#[derive(Debug, Clone)]
pub struct Pair {
    /// What the tag would send.
    pub body: String,
    /// The token in it.
    pub token: String,
}

/// Pairs from here on; each begins where the one before ended.
#[derive(Debug, Default)]
pub struct Pairs {
    made: u64,
}

impl Pairs {
    /// The next `count` pairs.
    pub fn next(&mut self, count: u64) -> Vec<Pair> {
        let first = self.made;
        self.made += count;
        (first..self.made).map(pair).collect()
    }
}

fn pair(number: u64) -> Pair {
    let ecid = SmallRng::seed_from_u64(SEED ^ number << 8).random_range(0..10_u128.pow(38));
    let token = format!("_mch-example.com-{}-{:05}", 1_790_000_000_000 + number, number % 100_000);
    let body = json!({"org_id": ORG, "ecid": format!("{ecid:038}"), "munchkin_id": MUNCHKIN, "token": token});
    Pair { body: body.to_string(), token }
}

/// How many processes of the function there are at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processes {
    /// One: what it remembers does not depend on who came first.
    One,
    /// As many as the stack starts.
    Many,
}

/// A running stack with a subscription.
pub struct Rig {
    /// The stack.
    pub stack: Stack,
    client: reqwest::Client,
    _identity: Pause,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// Starts it. `bin_dir` holds the functions.
    pub async fn start(bin_dir: PathBuf, processes: Processes) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the stack")?;
        let mut template = std::fs::read_to_string(root().join("infra/template.yaml")).context("the template")?;
        if processes == Processes::One {
            let binary = format!("        Binary: {FUNCTION}\n    Properties:\n");
            ensure!(template.contains(&binary), "the template declares {FUNCTION} otherwise");
            template = template.replace(&binary, &format!("{binary}      ReservedConcurrentExecutions: 1\n"));
        }
        let path = folder.path().join("template.yaml");
        std::fs::write(&path, template).context("the template")?;
        let parameters = [
            // Nothing ticks while somebody measures.
            ("TickRate", "rate(365 days)"),
            ("Auth", "none"),
            ("MarketoClientId", "bench"),
            ("MarketoClientSecret", "bench"),
            ("AdobeClientId", "bench"),
            ("AdobeClientSecret", "bench"),
            ("StreamSecrets", STREAM_SECRETS),
        ];
        let stack = stack::start(Options {
            template: path,
            data_dir: folder.path().join("stack"),
            bin_dir,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            port: Port::Exact(0),
            log: Arc::new(|_| {}),
        })
        .await?;
        let identity = stack.pause(IDENTITY_WORK).await;
        // Loopback: a proxy of the environment must not see it.
        let client = reqwest::Client::builder().no_proxy().build().context("the HTTP client")?;
        let rig = Self { stack, client, _identity: identity, _folder: folder };
        let subscription = json!({
            "munchkin_id": MUNCHKIN, "org_id": ORG, "origins": [ORIGIN], "new_pairs_per_day": 1_000_000_000_u64,
        });
        let request = rig.client.put(format!("{}/subscription", rig.stack.url()));
        let request = request.header("content-type", "application/json").body(subscription.to_string());
        let status = request.send().await.context("declaring the subscription")?.status().as_u16();
        ensure!(status == 201, "the subscription is answered {status}");
        Ok(rig)
    }

    /// Sends one beacon as a page does; its status.
    pub async fn beacon(&self, body: &str) -> anyhow::Result<u16> {
        let request = self.client.post(format!("{}/beacon", self.stack.url())).header("origin", ORIGIN);
        let request = request.header("content-type", "text/plain;charset=UTF-8").body(body.to_owned());
        let answer = request.send().await.context("a beacon")?;
        let status = answer.status().as_u16();
        // The connection is used again only when the answer was read.
        answer.bytes().await.context("a beacon's answer")?;
        Ok(status)
    }

    /// Sends beacons one after the other; each must be answered 204.
    pub async fn beacons(&self, pairs: &[Pair]) -> anyhow::Result<()> {
        for pair in pairs {
            let status = self.beacon(&pair.body).await?;
            ensure!(status == 204, "a beacon is answered {status}");
        }
        Ok(())
    }

    /// A new process that has read the settings and remembers no pair.
    pub async fn fresh_process(&self) -> anyhow::Result<()> {
        self.stack.kill(FUNCTION).await?;
        // It shows no pair, which is found out only after the settings are read.
        let status = self.beacon("{}").await?;
        ensure!(status == 204, "a beacon is answered {status}");
        Ok(())
    }

    /// Waits until the queue of matches is empty and nothing runs. A dead letter is an error.
    pub async fn drained(&self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let queues = self.stack.queues().await;
            let dead: u64 = queues.iter().filter(|queue| queue.dead).map(|queue| queue.visible).sum();
            ensure!(dead == 0, "{dead} dead letters");
            let left: u64 =
                queues.iter().filter(|queue| queue.name == MATCHES).map(|queue| queue.visible + queue.in_flight).sum();
            if left == 0 && self.stack.invocations_in_flight() == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{left} matches are still in the queue");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The sort keys of the identity table: tokens among them.
    pub async fn stored(&self) -> anyhow::Result<HashSet<String>> {
        let mut found = HashSet::new();
        let mut from = Value::Null;
        loop {
            let mut request = json!({"TableName": "local-IdentityTable", "ProjectionExpression": "sk"});
            if !from.is_null() {
                request["ExclusiveStartKey"] = from;
            }
            let answer = self
                .client
                .post(self.stack.endpoints().dynamodb)
                .header("content-type", "application/x-amz-json-1.0")
                .header("x-amz-target", "DynamoDB_20120810.Scan")
                .header("x-amz-date", "20261122T000000Z")
                .header(
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=local/20261122/us-east-1/dynamodb/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature=none",
                )
                .body(request.to_string())
                .send()
                .await
                .context("reading the identity table")?;
            let mut page: Value = serde_json::from_slice(&answer.bytes().await?).context("the identity table")?;
            let items = page["Items"].as_array().context("the identity table cannot be read")?;
            found.extend(items.iter().filter_map(|item| item["sk"]["S"].as_str().map(str::to_owned)));
            from = page["LastEvaluatedKey"].take();
            if from.is_null() {
                return Ok(found);
            }
        }
    }
}

/// Builds the functions with this program's profile.
pub fn build() -> anyhow::Result<PathBuf> {
    stack::build_functions(&mut |_| {})
}

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Prices by name, each of one unit, in dollars.
pub type Prices = BTreeMap<String, f64>;

/// The price of one unit, in dollars.
pub fn price(prices: &Prices, name: &str) -> anyhow::Result<f64> {
    prices.get(name).copied().with_context(|| format!("prices.json has no {name}"))
}

/// What `prices.json` holds.
pub fn prices() -> anyhow::Result<Prices> {
    let file: Value = serde_json::from_str(include_str!("../prices.json")).context("prices.json")?;
    let prices = file["prices"].as_object().context("prices.json")?;
    let one = |(name, price): (&String, &Value)| {
        let (dollars, per) = (price["dollars"].as_f64()?, price["per"].as_f64()?);
        (price["source"].is_string() && price["date"].is_string()).then(|| (name.clone(), dollars / per))
    };
    prices.iter().map(one).collect::<Option<_>>().context("a price needs dollars, per, source and date")
}
