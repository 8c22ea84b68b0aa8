//! Messages of a stream at the highest rate that this machine sustains. Everything runs here: the senders, the API, the
//! functions and the queue, so that the rate says something about this machine only; how long an answer takes at that
//! rate, and that nothing is lost, say something about the code. Nobody takes from the queue meanwhile, so that what was
//! answered 200 can be counted there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rig::{EVENTS, KEY, Processes, Rig, build};

/// Users of a message: the most that Audience Manager sends (contracts, 5.3).
const USERS: u64 = 10;
/// Segments of a user. Any number would do.
const SEGMENTS: u64 = 3;
/// Entries of a message.
pub const ENTRIES: u64 = USERS * SEGMENTS;
/// Issue 5: a second.
const MOST_P99_MS: u64 = 1_000;
/// How long the best number of senders is held, as for beacons.
const HOLD: Duration = Duration::from_secs(60);
/// How long each number of senders is tried.
const TRY: Duration = Duration::from_secs(5);
/// Senders at once that are tried, in turn.
const SENDERS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Any seed would do; this one is always the same.
const SEED: u64 = 5;

/// A minute at the highest rate.
#[derive(Debug)]
pub struct Held {
    /// Senders at once.
    pub senders: usize,
    /// Messages a second, answered 200.
    pub rate: f64,
    /// Answered 200.
    pub answered: u64,
    /// Everything else by status; 0 is no answer.
    pub others: BTreeMap<u16, u64>,
    /// Answered 200, and not in the queue.
    pub lost: u64,
    /// Half of the answers come within this time.
    pub p50_ms: u64,
    /// 99 of a hundred.
    pub p99_ms: u64,
    /// All of them.
    pub max_ms: u64,
}

impl Held {
    /// As a line of JSON.
    pub fn json(&self) -> Value {
        json!({
            "senders": self.senders, "rate": self.rate.round(), "entries_a_message": ENTRIES,
            "answered_200": self.answered, "others": self.others, "lost": self.lost, "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms, "max_ms": self.max_ms,
        })
    }

    /// An error where a bar is missed.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.lost == 0, "{} messages were answered 200 and are lost", self.lost);
        ensure!(self.others.is_empty(), "messages were answered otherwise: {:?}", self.others);
        ensure!(self.p99_ms < MOST_P99_MS, "p99 is {} ms; the bar is {MOST_P99_MS}", self.p99_ms);
        Ok(())
    }
}

/// Finds the best number of senders whose answers come in time, holds it for a minute, and counts what is in the queue.
pub fn run() -> anyhow::Result<Held> {
    let bin_dir = build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let rig = Rig::start(bin_dir, Processes::Many).await?;
        let _paused = rig.stack.pause(EVENTS).await;
        // Loopback: a proxy of the environment must not see it.
        let client = reqwest::Client::builder().no_proxy().build().context("the HTTP client")?;
        let feed = json!({"kind": "aam-stream", "ecid_field": "DataPartner_UUID"});
        let declared = client.put(format!("{}/feeds/web", rig.stack.url())).body(feed.to_string()).send().await?;
        ensure!(declared.status().is_success(), "the feed is answered {}", declared.status());
        let target =
            Arc::new(Target { client, url: format!("{}/feeds/web/events", rig.stack.url()), made: AtomicU64::new(0) });
        let mut best = (0.0, SENDERS[0]);
        for senders in SENDERS {
            let sent = send(&target, senders, TRY).await?;
            let rate = sent.times.len() as f64 / TRY.as_secs_f64();
            if rate > best.0 && sent.part(99) < MOST_P99_MS {
                best = (rate, senders);
            }
        }
        let before = queued(&rig).await?;
        let senders = best.1;
        let began = Instant::now();
        let sent = send(&target, senders, HOLD).await?;
        let rate = sent.times.len() as f64 / began.elapsed().as_secs_f64();
        let answered = sent.times.len() as u64;
        let lost = answered.saturating_sub(queued(&rig).await? - before);
        let (p50_ms, p99_ms, max_ms) = (sent.part(50), sent.part(99), sent.part(100));
        Ok(Held { senders, rate, answered, others: sent.others, lost, p50_ms, p99_ms, max_ms })
    })
}

/// Messages that wait. Each request is one.
async fn queued(rig: &Rig) -> anyhow::Result<u64> {
    let queues = rig.stack.queues().await;
    let events = queues.iter().find(|queue| queue.name == EVENTS).context("the queue of events")?;
    Ok(events.visible + events.in_flight)
}

/// Where messages go.
struct Target {
    client: reqwest::Client,
    url: String,
    /// Messages so far.
    made: AtomicU64,
}

impl Target {
    /// The next message, which no other is like, and its signature.
    fn next(&self) -> (String, String) {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let mut random = SmallRng::seed_from_u64(SEED ^ number << 8);
        let segment = |sid: u64| json!({"Segment_ID": sid.to_string(), "Status": "1", "DateTime": "Fri Jan 02 03:04:05 UTC 2026"});
        let segments: Vec<Value> = (101..101 + SEGMENTS).map(segment).collect();
        let users = (0..USERS).map(|_| {
            let ecid = format!("{:038}", random.random_range(0..10_u128.pow(38)));
            json!({"AAM_UUID": "1", "DataPartner_UUID": ecid, "AAM_Regions": ["9"], "Segments": segments})
        });
        let users: Vec<Value> = users.collect();
        let body = json!({"User_DPID": "1", "User_count": USERS.to_string(), "Users": users}).to_string();
        let mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key has any length");
        let signature = STANDARD.encode(mac.chain_update(&body).finalize().into_bytes());
        (body, signature)
    }

    async fn send(&self) -> anyhow::Result<(u16, u64)> {
        let (body, signature) = self.next();
        let request = self.client.post(&self.url).header("x-signature", signature);
        let began = Instant::now();
        let answer = request.header("content-type", "application/json").body(body).send().await.context("a message")?;
        let status = answer.status().as_u16();
        // The connection is used again only when the answer was read.
        answer.bytes().await.context("a message's answer")?;
        Ok((status, u64::try_from(began.elapsed().as_millis())?))
    }
}

/// What became of messages.
#[derive(Debug, Default)]
struct Sent {
    /// How long each took that was answered 200, in ms; in order.
    times: Vec<u64>,
    others: BTreeMap<u16, u64>,
}

impl Sent {
    /// The time within which this part of a hundred was answered, in ms.
    fn part(&self, of_hundred: usize) -> u64 {
        let place = (self.times.len() * of_hundred).div_ceil(100).saturating_sub(1);
        self.times.get(place).copied().unwrap_or_default()
    }
}

async fn send(target: &Arc<Target>, senders: usize, during: Duration) -> anyhow::Result<Sent> {
    let end = Instant::now() + during;
    let mut tasks = JoinSet::new();
    for _ in 0..senders {
        let target = Arc::clone(target);
        tasks.spawn(async move {
            let mut sent = Sent::default();
            while Instant::now() < end {
                match target.send().await {
                    Ok((200, ms)) => sent.times.push(ms),
                    Ok((status, _)) => *sent.others.entry(status).or_default() += 1,
                    Err(_) => *sent.others.entry(0).or_default() += 1,
                }
            }
            sent
        });
    }
    let mut all = Sent::default();
    for sent in tasks.join_all().await {
        all.times.extend(sent.times);
        for (status, count) in sent.others {
            *all.others.entry(status).or_default() += count;
        }
    }
    all.times.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_hundred_are_times_that_were_measured() {
        let sent = |times: Vec<u64>| Sent { times, others: BTreeMap::new() };
        let hundred = sent((1..=100).collect());
        assert_eq!((hundred.part(50), hundred.part(99), hundred.part(100)), (50, 99, 100));
        assert_eq!((sent(vec![7]).part(50), sent(vec![7]).part(99), sent(Vec::new()).part(99)), (7, 7, 0));
    }
}
