//! What a deployment uses in its everyday life, part by part: nothing happens, tokens are asked about again, people are written
//! to a list, somebody becomes known. The real handlers on the virtual clock, over ports that count; the writer's are counted by
//! themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use domain::base::Base;
use domain::identity::{Seen, TokenRecord};
use domain::limits::{DAY_MS, HOUR_MS};
use domain::{AudienceId, Ecid, Token};
use doubles::adobe::{self, Adobe};
use doubles::marketo::Kind;
use ports::{Clock as _, Expect, Ports, Queue, Table};
use scheduled_incremental_sync::{Arrival, arrived};
use serde::{Deserialize, Serialize};
use state::audience::replace_base;
use state::bell::{self, BellKey};
use state::feeds::{DEFAULT_FEED, Feed, Kind as FeedKind, feed_key};
use state::identity::{ecid_to_token, lead_to_token, put_hints, token_item};
use state::syncs::{subscription_key, sync_key};
use world::types::{Lead, List, MarketoData};

use simulation::cloud::{Cloud, settings};
use simulation::counted::{Counted, Usage};
use simulation::fakes::{Sim, run as finish};
use simulation::import::{self as imported, munchkin};
use simulation::promise::{QUOTA, instance, put, subscription};
use simulation::scenario::{BEGIN, LIST, active_sync, library};
use simulation::timed::Timed;

use crate::flags::Flags;
use crate::import::dollars;
use crate::rig::{price, prices};

/// Syncs, each of an audience of its own with the same members, and of a list of its own.
pub const SYNCS: u64 = 3;
/// ECIDs of each audience.
const MEMBERS: u64 = 10_000;
/// Known people of them, who are in every list from the first hour on.
const PEOPLE: u64 = 600;
/// Visitors whom Marketo does not know yet; they are asked about again.
pub const ASKED: u64 = 3_000;
/// Known people who enter one of the audiences.
pub const WRITTEN: u64 = 3_000;
/// ECID of somebody who becomes known.
const VISITOR: u64 = MEMBERS - 1;
/// Nothing is counted before, in ms: lists are loaded.
const WARM_MS: u64 = 3 * HOUR_MS;
/// Within the hour in which they are due, tokens are due after this time, in ms.
const WITHIN_MS: u64 = HOUR_MS / 6;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Nothing, for a day: ticks, Marketo's activities, its `ecids`, a sample of each list.
    Idle,
    /// Tokens are asked about again, and Marketo knows nobody.
    LookUp,
    /// People are added to a list that was there before us: what the writer uses.
    Written,
    /// One visitor fills a form, and joins every list.
    Known,
}

/// What was counted: the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What happened.
    pub part: Part,
    /// How often: days, tokens or people.
    pub times: u64,
    /// Syncs.
    pub syncs: u64,
    /// Invocations that scheduled-incremental-sync had.
    pub scheduled: u64,
    /// Invocations that the list-writer had.
    pub writer: u64,
    /// Messages to FIFO queues; each is sent, received and deleted.
    pub messages: u64,
    /// Calls to Marketo.
    pub marketo_calls: u64,
    /// What was used of S3 and DynamoDB.
    pub usage: Usage,
    /// Write units beside those of `usage`: an entry that moves within the index `due` is taken out and put in.
    pub index_moves: u64,
}

/// What was counted since the beginning.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    at: u64,
    rest: Side,
    writer: Side,
    calls: u64,
}

/// The same of one function.
#[derive(Debug, Clone, Copy)]
struct Side {
    usage: Usage,
    moves: u64,
    messages: u64,
}

impl Side {
    const fn since(self, begun: Self) -> Self {
        Self {
            usage: self.usage.since(begun.usage),
            moves: self.moves - begun.moves,
            messages: self.messages - begun.messages,
        }
    }

    /// Without what another time of the same length, in which nothing happened, used as well.
    const fn beyond(self, idle: Self) -> Self {
        Self {
            usage: self.usage.beyond(idle.usage),
            moves: self.moves.saturating_sub(idle.moves),
            messages: self.messages.saturating_sub(idle.messages),
        }
    }

    const fn with(self, other: Self) -> Self {
        Self {
            usage: self.usage.and(other.usage),
            moves: self.moves + other.moves,
            messages: self.messages + other.messages,
        }
    }
}

struct World {
    sim: Sim,
    cloud: Rc<Cloud>,
    rest: Arc<Counted>,
    writer: Arc<Counted>,
    folder: PathBuf,
    found: Mutex<Vec<Counts>>,
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn ecid(n: u64) -> Ecid {
    Ecid::from_number(imported::ecid(n)).expect("an ECID")
}

fn token(n: u64) -> Token {
    Token::parse(&format!("_mch-example.com-{}-1", 1_700_000_000_000 + n)).expect("a token")
}

/// The lead of an ECID's browser.
const fn lead(n: u64) -> u64 {
    100_001 + n
}

/// Known from the beginning, and in the audiences; or known, and to come.
fn known() -> impl Iterator<Item = u64> {
    (0..PEOPLE).chain(MEMBERS..MEMBERS + WRITTEN)
}

/// Lives through all of it.
///
/// # Panics
/// If anything fails, or a list does not come to hold whom it should.
fn measure() -> Vec<Counts> {
    let world = Rc::new(World::new());
    let mut work = world.cloud.work();
    work.push(Box::pin(world.clone().story()));
    world.cloud.timed.run(work, BEGIN + WARM_MS + DAY_MS + 5 * HOUR_MS);
    let mut found = world.found.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *found)
}

impl World {
    fn new() -> Self {
        let lists = (0..SYNCS).map(|n| List { id: LIST + n, name: format!("List {n}"), members: BTreeSet::new() });
        let leads = known().map(|n| Lead {
            id: lead(n),
            email: Some(format!("p{n}@example.com")),
            cookies: vec![token(n).as_str().to_owned()],
            ecids: Vec::new(),
        });
        let data = MarketoData {
            leads: leads.collect(),
            lists: lists.collect(),
            ..simulation::scenario::instance(Vec::new(), BTreeSet::new())
        };
        let adobe = Adobe::new(adobe::Settings::default(), library(101..101 + SYNCS), BEGIN);
        let sim = Sim::new(1, BEGIN, instance(data, QUOTA, BEGIN), adobe);
        let folder = std::env::temp_dir().join(format!("parts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the bucket");
        let (rest, writer) = (Counted::new(sim.clone(), folder.clone()), Counted::new(sim.clone(), folder.clone()));
        // What is there from the beginning is written before the clock is turned.
        finish(Self::fill(&sim, &rest));
        let timed = Timed::new(sim.clone(), Arc::new(|_, _, _| {}));
        let ports =
            |counted: &Arc<Counted>| Ports { tables: counted.clone(), objects: counted.clone(), ..timed.ports() };
        let cloud = Cloud::beside(&timed, &ports(&rest), &ports(&writer), &settings(QUOTA));
        Self { sim, cloud, rest, writer, folder, found: Mutex::default() }
    }

    async fn fill(sim: &Sim, bucket: &Arc<Counted>) {
        let munchkin = munchkin();
        let deps = state::Deps::new(bucket.ports(), settings(QUOTA));
        put(sim, Table::Syncs, subscription_key(&munchkin), &subscription(&munchkin, true));
        let feed = Feed { snapshots: true, ..Feed::new(DEFAULT_FEED, FeedKind::AamFiles) };
        put(sim, Table::Syncs, feed_key(&munchkin, DEFAULT_FEED), &feed);
        let base = Base::new((0..MEMBERS).map(ecid), BEGIN - HOUR_MS);
        for n in 0..SYNCS {
            let audience = AudienceId::aam(101 + n);
            let sync = active_sync(&munchkin, audience.clone(), LIST + n, false);
            put(sim, Table::Syncs, sync_key(&munchkin, &sync.id), &sync);
            let replaced = replace_base(&deps, &munchkin, &audience, &base, BEGIN - HOUR_MS, None).await;
            assert!(replaced.expect("written"));
            bell::mark(&deps, &BellKey::audience(&munchkin, &audience)).await.expect("rung");
        }
        bell::mark(&deps, &BellKey::identity(&munchkin)).await.expect("rung");
        let asked = PEOPLE..PEOPLE + ASKED;
        // Nobody is due in the day that is counted, but whoever is asked about again just after it.
        let due = BEGIN + WARM_MS + DAY_MS + HOUR_MS + WITHIN_MS;
        for n in known().chain(asked.clone()).chain([VISITOR]) {
            let token = token(n);
            let is_known = !asked.contains(&n) && n != VISITOR;
            let seen = Seen { first: BEGIN - DAY_MS, last: BEGIN - DAY_MS };
            let asked_at = if asked.contains(&n) { due - DAY_MS } else { due };
            let record = TokenRecord {
                ecids: BTreeMap::from([(ecid(n), seen)]),
                lead: is_known.then(|| lead(n)),
                known: is_known,
                asked_at: Some(asked_at),
                asked: if is_known { 0 } else { 7 },
                ..TokenRecord::new(token.clone())
            };
            let hints = is_known.then(|| lead_to_token(&munchkin, lead(n), &token));
            put_hints(&deps, hints.into_iter().chain([ecid_to_token(&munchkin, ecid(n), &token)]))
                .await
                .expect("hints");
            let item = token_item(&deps, &munchkin, &record, None).expect("JSON");
            let written = deps.ports.tables.put(Table::Identity, item, Expect::Absent).await;
            assert!(written.expect("written"));
        }
    }

    fn snapshot(&self) -> Snapshot {
        let store = self.sim.lock();
        let messages = |wanted: &dyn Fn(Queue) -> bool| {
            store.sent.iter().filter(|(queue, _)| queue.is_fifo() && wanted(*queue)).count() as u64
        };
        let side =
            |counted: &Counted, messages| Side { usage: counted.usage(), moves: counted.index_moves(), messages };
        Snapshot {
            at: store.now,
            rest: side(&self.rest, messages(&|queue| queue != Queue::ListWrites)),
            writer: side(&self.writer, messages(&|queue| queue == Queue::ListWrites)),
            calls: store.marketo.calls().iter().filter(|call| call.kind != Kind::Token).count() as u64,
        }
    }

    /// What was counted until now and since a moment.
    fn since(&self, begun: Snapshot) -> Snapshot {
        let now = self.snapshot();
        Snapshot {
            at: now.at - begun.at,
            rest: now.rest.since(begun.rest),
            writer: now.writer.since(begun.writer),
            calls: now.calls - begun.calls,
        }
    }

    fn note(&self, part: Part, times: u64, ticks: u64, rest: Option<Side>, writer: Side, marketo_calls: u64) {
        let both = rest.map_or(writer, |rest| rest.with(writer));
        let counts = Counts {
            part,
            times,
            syncs: SYNCS,
            scheduled: ticks + rest.map_or(0, |rest| rest.messages),
            writer: writer.messages,
            messages: both.messages,
            marketo_calls,
            usage: both.usage,
            index_moves: both.moves,
        };
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(counts);
    }

    /// How many people a list has.
    fn members(&self, list: u64) -> u64 {
        self.sim.lock().marketo.members(list).map_or(0, |members| members.len() as u64)
    }

    async fn sleep_until(&self, at: u64) {
        let timed = &self.cloud.timed;
        timed.sleep_ms(at.saturating_sub(timed.now_ms())).await;
    }

    /// One hour, and what it used.
    async fn hour(&self) -> Snapshot {
        let begun = self.snapshot();
        self.sleep_until(begun.at + HOUR_MS).await;
        self.since(begun)
    }

    async fn story(self: Rc<Self>) {
        self.sleep_until(BEGIN + WARM_MS).await;
        for n in 0..SYNCS {
            assert_eq!(self.members(LIST + n), PEOPLE, "the first load is over");
        }
        let begun = self.snapshot();
        self.sleep_until(begun.at + DAY_MS).await;
        let day = self.since(begun);
        self.note(Part::Idle, 1, DAY_MS / 60_000, Some(day.rest), day.writer, day.calls);

        let idle = self.hour().await;
        let hour = self.hour().await;
        let (rest, writer) = (hour.rest.beyond(idle.rest), hour.writer.beyond(idle.writer));
        assert_eq!(writer.messages, 0, "nobody is known, so that no list changes");
        assert!(hour.calls >= idle.calls + ASKED / 300, "all of them were asked about");
        self.note(Part::LookUp, ASKED, 0, Some(rest), writer, hour.calls.saturating_sub(idle.calls));

        self.enter().await;
        let hour = self.hour().await;
        assert_eq!(self.members(LIST), PEOPLE + WRITTEN, "they are all in the list");
        self.note(
            Part::Written,
            WRITTEN,
            0,
            None,
            hour.writer.beyond(idle.writer),
            hour.calls.saturating_sub(idle.calls),
        );

        {
            let mut store = self.sim.lock();
            let now = store.now;
            store.marketo.fill_form(now, token(VISITOR).as_str(), "visitor@example.com");
        }
        let hour = self.hour().await;
        for (n, before) in (0..SYNCS).zip([PEOPLE + WRITTEN, PEOPLE, PEOPLE]) {
            assert_eq!(self.members(LIST + n), before + 1, "the visitor is in list {n}");
        }
        let (rest, writer) = (hour.rest.beyond(idle.rest), hour.writer.beyond(idle.writer));
        self.note(Part::Known, 1, 0, Some(rest), writer, hour.calls.saturating_sub(idle.calls));
        self.cloud.timed.stop();
    }

    /// Known people enter an audience, by a file of what changed.
    async fn enter(&self) {
        let deps = &self.cloud.deps;
        let key = format!("incoming/S3_1_2_iter_{}.sync", deps.now());
        let line = |n: u64| format!("{}\t101\t\n", ecid(n).text());
        let text: String = (MEMBERS..MEMBERS + WRITTEN).map(line).collect();
        std::fs::write(self.rest.path(&key), &text).expect("a file");
        let arrival = Arrival { key, etag: Counted::tag(text.len() as u64) };
        arrived(deps, &arrival, deps.now() + 120_000).await.expect("taken in");
    }
}

/// Runs `parts [--json]`.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let flags = Flags::read(words, &[], &["--json"])?;
    let prices = prices()?;
    let mut out = std::io::stdout().lock();
    for counts in measure() {
        if flags.has("--json") {
            writeln!(out, "{}", serde_json::to_string(&counts)?)?;
            continue;
        }
        let what = match counts.part {
            Part::Idle => "day in which nothing happens",
            Part::LookUp => "tokens asked about again",
            Part::Written => "people written to a list",
            Part::Known => "visitor who becomes known",
        };
        let used = counts.usage;
        #[expect(clippy::cast_precision_loss)]
        let moves = counts.index_moves as f64 * price(&prices, "dynamodb_write_unit")?;
        writeln!(
            out,
            "{:>5} {what:<30}: {:>6.1} read units, {:>6} write units; S3: {:>4} reads, {:>4} writes; {:>4} messages; {:>4} calls to Marketo; ${:.6}",
            counts.times,
            used.half_read_units.div_ceil(2),
            used.write_units + counts.index_moves,
            used.object_reads,
            used.object_writes,
            counts.messages,
            counts.marketo_calls,
            dollars(used, &prices)? + moves,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everyday_life_uses_is_what_is_recorded() {
        let recorded: Vec<Counts> =
            include_str!("../parts.jsonl").lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        assert_eq!(
            measure(),
            recorded,
            "written anew by `cargo run -p bench -- parts --json > tests/bench/parts.jsonl`"
        );
    }
}
