//! Beacons at the highest rate that this machine sustains. Everything runs here: the senders, the API, the functions,
//! the queue and the table, so that the rate says something about this machine only; that nothing is lost says
//! something about the code.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rig::{Pairs, Processes, Rig, build};

/// Issue 4: beacons a second at least.
const LEAST_RATE: f64 = 400.0;
/// Issue 4: a minute.
const HOLD: Duration = Duration::from_secs(60);
/// How long each number of senders is tried.
const TRY: Duration = Duration::from_secs(5);
/// Senders at once that are tried, in turn.
const SENDERS: [usize; 5] = [2, 4, 8, 16, 32];
/// Pairs that a sender takes at a time.
const CHUNK: u64 = 64;

/// What a spike did.
#[derive(Debug)]
pub struct Spike {
    /// Senders at once.
    pub senders: usize,
    /// Beacons a second, answered 2xx.
    pub rate: f64,
    /// Answered 2xx.
    pub answered: u64,
    /// Everything else by status; 0 is no answer.
    pub others: BTreeMap<u16, u64>,
    /// Answered 2xx, and after the queue was empty not in the table.
    pub lost: u64,
    /// From the last beacon until the queue was empty, in seconds.
    pub drained_seconds: f64,
}

impl Spike {
    /// As a line of JSON.
    pub fn json(&self) -> Value {
        json!({
            "senders": self.senders, "rate": self.rate.round(), "answered_2xx": self.answered, "others": self.others,
            "lost": self.lost, "drained_seconds": self.drained_seconds.round(),
        })
    }

    /// An error where a bar is missed.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.lost == 0, "{} beacons were answered 2xx and are lost", self.lost);
        ensure!(self.rate >= LEAST_RATE, "{:.0} beacons a second; the bar is {LEAST_RATE}", self.rate);
        Ok(())
    }
}

/// Finds the best number of senders, holds it for a minute, and looks for what was answered 2xx.
pub fn run() -> anyhow::Result<Spike> {
    let bin_dir = build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let rig = Arc::new(Rig::start(bin_dir, Processes::Many).await?);
        let pairs = Arc::new(tokio::sync::Mutex::new(Pairs::default()));
        let mut best = (0.0, SENDERS[0]);
        for senders in SENDERS {
            let sent = send(&rig, &pairs, senders, TRY).await?;
            let rate = sent.tokens.len() as f64 / TRY.as_secs_f64();
            if rate > best.0 {
                best = (rate, senders);
            }
        }
        rig.drained().await?;
        let senders = best.1;
        let began = Instant::now();
        let sent = send(&rig, &pairs, senders, HOLD).await?;
        let rate = sent.tokens.len() as f64 / began.elapsed().as_secs_f64();
        let ended = Instant::now();
        rig.drained().await?;
        let drained_seconds = ended.elapsed().as_secs_f64();
        let stored = rig.stored().await?;
        let lost = sent.tokens.iter().filter(|token| !stored.contains(*token)).count() as u64;
        let answered = sent.tokens.len() as u64;
        Ok(Spike { senders, rate, answered, others: sent.others, lost, drained_seconds })
    })
}

/// What became of beacons.
#[derive(Debug, Default)]
struct Sent {
    /// Tokens of those that were answered 2xx.
    tokens: Vec<String>,
    others: BTreeMap<u16, u64>,
}

async fn send(
    rig: &Arc<Rig>,
    pairs: &Arc<tokio::sync::Mutex<Pairs>>,
    senders: usize,
    during: Duration,
) -> anyhow::Result<Sent> {
    let end = Instant::now() + during;
    let mut tasks = JoinSet::new();
    let unanswered = Arc::new(AtomicU64::new(0));
    for _ in 0..senders {
        let (rig, pairs, unanswered) = (Arc::clone(rig), Arc::clone(pairs), Arc::clone(&unanswered));
        tasks.spawn(async move {
            let mut sent = Sent::default();
            while Instant::now() < end {
                let chunk = pairs.lock().await.next(CHUNK);
                for pair in chunk {
                    if Instant::now() >= end {
                        break;
                    }
                    match rig.beacon(&pair.body).await {
                        Ok(status) if (200..300).contains(&status) => sent.tokens.push(pair.token),
                        Ok(status) => *sent.others.entry(status).or_default() += 1,
                        Err(_) => {
                            unanswered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
            sent
        });
    }
    let mut all = Sent::default();
    for sent in tasks.join_all().await {
        all.tokens.extend(sent.tokens);
        for (status, count) in sent.others {
            *all.others.entry(status).or_default() += count;
        }
    }
    let unanswered = unanswered.load(Ordering::Relaxed);
    if unanswered > 0 {
        all.others.insert(0, unanswered);
    }
    Ok(all)
}
