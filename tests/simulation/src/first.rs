//! A first sync: an audience whose browsers have been seen beside tokens that nobody has asked Marketo about, and a new
//! list. Tokens stand in a store of 40 bytes each, so that five million of them fit; everything else is as everywhere in
//! the simulation.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use create_sync::{Caller, Request, handle};
use domain::base::Base;
use domain::identity::{Seen, TokenRecord};
use domain::limits::{DAY_MS, HOUR_MS};
use domain::{AudienceId, Ecid, LeadId, ListId, MunchkinId, Token};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Kind};
use ports::{Clock as _, Due, Expect, Item, Key, Page, PortResult, Ports, Read, Table, Tables};
use serde::Serialize;
use serde_json::{Map, Value};
use state::Settings;
use state::audience::{BaseRef, Head, head_key, want_pass};
use state::bell::{self, BellKey};
use state::identity::{SHARDS, ask_pk, tell_pk, token_key, token_shard};
use state::syncs::{subscription_key, sync_key};
use world::types::{Lead, Library, List, MarketoData};

use crate::cloud::{Cloud, Work, settings};
use crate::fakes::Sim;
use crate::promise::{Day, days, instance, most_in_a_window, put, subscription};
use crate::scenario::{MUNCHKIN, ORG, active_sync};
use crate::timed::Timed;

const LIST: ListId = 1_001;
/// The world is looked at this often, in ms.
const LOOK_MS: u64 = 10_000;
/// Every match was seen this long before the sync is made, in ms.
const SEEN_BEFORE_MS: u64 = 10 * DAY_MS;
const TOKEN: &str = "_mch-example.com-";
const TOKENS_FROM: u64 = 1_700_000_000_000;

/// A first sync.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Browsers of the audience, each with an ECID and a token of its own. Nobody has asked about any of them.
    pub tokens: u64,
    /// Of these, known people.
    pub known: u64,
    /// Calls a day of the instance.
    pub quota: u64,
    /// Our share of them, and of the calls in 20 seconds.
    pub share: f64,
    /// When the sync is made, in ms.
    pub begin: u64,
    /// When nobody waits any longer, in ms after that.
    pub patience_ms: u64,
    /// Tells on standard error how far it is, each hour.
    pub aloud: bool,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Browsers.
    pub tokens: u64,
    /// Known people.
    pub known: u64,
    /// Known people in the list at the end.
    pub in_list: u64,
    /// Hours until the list held all of them; `None`: it never did.
    pub hours: Option<f64>,
    /// Hours until the first of them was in the list.
    pub first_hours: Option<f64>,
    /// Hours until each token had been asked about.
    pub asked_hours: Option<f64>,
    /// Part of the list that was written when the last token was asked about.
    pub written_when_asked: f64,
    /// By day.
    pub days: Vec<Day>,
    /// Most of our calls in any 20 seconds.
    pub most_in_20_seconds: usize,
    /// Most of our calls at once.
    pub most_at_once: u32,
    /// Calls that Marketo refused as too many (606, 607, 615).
    pub refused: usize,
    /// Passes over the audience.
    pub passes: u64,
    /// Most rings that a key gave itself in a row; at 1,000 it is set aside.
    pub most_laps: u64,
    /// Whether a key was set aside.
    pub stuck: bool,
    /// Whether a mass change was held.
    pub held: bool,
    /// Invocations that were stopped at their deadline.
    pub stopped: u64,
    /// Invocations that failed and were tried again.
    pub failed: u64,
}

impl Plan {
    /// The person behind a token, counted from 1: known people are spread evenly among the tokens.
    fn owner(&self, n: u64) -> Option<LeadId> {
        let before = (n - 1) * self.known / self.tokens;
        (n * self.known / self.tokens > before).then_some(n)
    }
}

fn name(n: u64) -> String {
    format!("{TOKEN}{}-{:05}", TOKENS_FROM + n, n % 100_000)
}

/// The token of this name. They bear numbers of equal length, so that their names are ordered as their numbers are.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix(TOKEN)?.split('-').next()?.parse::<u64>().ok()?.checked_sub(TOKENS_FROM)
}

fn ecid(n: u64) -> Ecid {
    Ecid::from_number(u128::from(n)).expect("an ECID")
}

/// What is known of a token, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    due_at: u64,
    asked_at: u64,
    rev: u32,
    lead: u32,
    asked: u32,
    flags: u8,
    /// In which partition of the index it stands.
    due: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    Nowhere,
    Ask,
    Tell,
}

const KNOWN: u8 = 1;
const UNPROPAGATED: u8 = 2;
const DOUBTED: u8 = 4;
const PARKED: u8 = 8;
const HINTED: u8 = 16;

/// The tokens of the world, and nothing else of the table.
struct Tokens {
    munchkin: MunchkinId,
    plan: Plan,
    seen: Seen,
    rows: Vec<Row>,
    /// The table's partitions of tokens, which of them each token is in, and the tokens of each.
    partitions: Vec<String>,
    partition: Vec<u8>,
    shards: Vec<Vec<u32>>,
    ask: BTreeSet<(u64, u32)>,
    tell: BTreeSet<(u64, u32)>,
    unasked: u64,
}

impl Tokens {
    fn new(munchkin: &MunchkinId, plan: Plan) -> Self {
        // Nobody followed an audience with them, so they rest.
        let row = Row { due_at: 0, asked_at: 0, rev: 1, lead: 0, asked: 0, flags: PARKED, due: Standing::Nowhere };
        let seen_at = plan.begin - SEEN_BEFORE_MS;
        let count = usize::try_from(plan.tokens).expect("as many as fit");
        let partitions: BTreeMap<String, usize> =
            (0..SHARDS).map(|shard| (token_shard(munchkin, shard), shard as usize)).collect();
        let mut shards = vec![Vec::new(); SHARDS as usize];
        let mut partition = Vec::with_capacity(count);
        for n in 1..=plan.tokens {
            let token = Token::parse(&name(n)).expect("a token");
            let shard = partitions[&token_key(munchkin, &token).pk];
            shards[shard].push(u32::try_from(n).expect("as many as fit"));
            partition.push(u8::try_from(shard).expect("a shard"));
        }
        Self {
            munchkin: munchkin.clone(),
            plan,
            seen: Seen { first: seen_at, last: seen_at },
            rows: vec![row; count],
            partitions: partitions.into_keys().collect(),
            partition,
            shards,
            ask: BTreeSet::new(),
            tell: BTreeSet::new(),
            unasked: plan.tokens,
        }
    }

    fn token(&self, n: u32) -> Token {
        Token::parse(&name(u64::from(n))).expect("a token")
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let n = number(&key.sk).filter(|n| (1..=self.plan.tokens).contains(n))?;
        key.pk.contains("/t/").then(|| u32::try_from(n).ok()).flatten()
    }

    fn record(&self, n: u32) -> TokenRecord {
        let row = &self.rows[n as usize - 1];
        let flag = |flag: u8| row.flags & flag != 0;
        TokenRecord {
            ecids: [(ecid(u64::from(n)), self.seen)].into(),
            lead: (row.lead > 0).then_some(u64::from(row.lead)),
            known: flag(KNOWN),
            unpropagated: flag(UNPROPAGATED),
            doubted: flag(DOUBTED),
            parked: flag(PARKED),
            hinted: flag(HINTED),
            asked_at: (row.asked_at > 0).then_some(row.asked_at),
            asked: row.asked,
            ..TokenRecord::new(self.token(n))
        }
    }

    fn item(&self, n: u32) -> Item {
        let row = &self.rows[n as usize - 1];
        let pk = match row.due {
            Standing::Nowhere => None,
            Standing::Ask => Some(ask_pk(&self.munchkin)),
            Standing::Tell => Some(tell_pk(&self.munchkin)),
        };
        let name = name(u64::from(n));
        // By hand, and without what is a default: passes read hundreds of millions of them.
        let flag = |flag: u8| Value::Bool(row.flags & flag != 0);
        let sight = Value::Array(vec![self.seen.first.into(), self.seen.last.into()]);
        let mut doc = Map::new();
        doc.insert("v".into(), 1.into());
        doc.insert("token".into(), name.clone().into());
        doc.insert("ecids".into(), Value::Object(Map::from_iter([(ecid(u64::from(n)).text(), sight)])));
        doc.insert("known".into(), flag(KNOWN));
        doc.insert("unpropagated".into(), flag(UNPROPAGATED));
        doc.insert("parked".into(), flag(PARKED));
        doc.insert("asked".into(), row.asked.into());
        if row.flags & DOUBTED != 0 {
            doc.insert("doubted".into(), true.into());
        }
        if row.flags & HINTED != 0 {
            doc.insert("hinted".into(), true.into());
        }
        if row.lead > 0 {
            doc.insert("lead".into(), row.lead.into());
        }
        if row.asked_at > 0 {
            doc.insert("asked_at".into(), row.asked_at.into());
        }
        Item {
            key: Key::new(self.partitions[usize::from(self.partition[n as usize - 1])].clone(), name),
            rev: u64::from(row.rev),
            doc: Value::Object(doc),
            due: pk.map(|pk| Due { pk, at: row.due_at }),
            expires_at: None,
        }
    }

    fn index(&mut self, standing: Standing) -> Option<&mut BTreeSet<(u64, u32)>> {
        match standing {
            Standing::Nowhere => None,
            Standing::Ask => Some(&mut self.ask),
            Standing::Tell => Some(&mut self.tell),
        }
    }

    fn write(&mut self, n: u32, item: Item) {
        let record: TokenRecord = serde_json::from_value(item.doc).expect("a record");
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let standing = match &item.due {
            None => Standing::Nowhere,
            Some(due) if due.pk == tell_pk(&self.munchkin) => Standing::Tell,
            Some(_) => Standing::Ask,
        };
        let row = Row {
            rev: u32::try_from(item.rev).expect("a revision"),
            lead: u32::try_from(record.lead.unwrap_or(0)).expect("a lead id"),
            asked_at: record.asked_at.unwrap_or(0),
            asked: record.asked,
            flags: flag(KNOWN, record.known)
                | flag(UNPROPAGATED, record.unpropagated)
                | flag(DOUBTED, record.doubted)
                | flag(PARKED, record.parked)
                | flag(HINTED, record.hinted),
            due: standing,
            due_at: item.due.map_or(0, |due| due.at),
        };
        let old = std::mem::replace(&mut self.rows[n as usize - 1], row);
        assert_eq!(self.record(n), record, "a token that this store cannot hold");
        if let Some(index) = self.index(old.due) {
            index.remove(&(old.due_at, n));
        }
        if let Some(index) = self.index(row.due) {
            index.insert((row.due_at, n));
        }
        self.unasked -= u64::from(old.asked_at == 0 && row.asked_at > 0);
    }

    fn page(&self, shard: usize, after: Option<&str>, limit: usize) -> Page {
        let all = &self.shards[shard];
        let after = after.and_then(number).unwrap_or(0);
        let from = all.partition_point(|n| u64::from(*n) <= after);
        let items: Vec<Item> = all[from..].iter().take(limit).map(|n| self.item(*n)).collect();
        let more = from + items.len() < all.len();
        Page { next: more.then(|| items.last().map(|item| item.key.sk.clone())).flatten(), items }
    }

    /// Hints of a lead, which begin with it, or of an ECID, whose partition it is: whose they are, and their sort keys. Where
    /// each of them leads is known without any: they are not stored.
    fn hints(&self, pk: &str, sk: &str) -> Option<Vec<String>> {
        let of_lead = pk.contains("/lt/").then(|| sk.split_once('/')).flatten().map(|(lead, _)| (lead, lead));
        let of_ecid = pk.split_once("/e/").map(|(_, ecid)| (ecid, "t"));
        let (whose, before) = of_lead.or(of_ecid)?;
        let n: Option<u64> = whose.parse().ok().filter(|n| (1..=self.plan.tokens).contains(n));
        Some(n.iter().map(|n| format!("{before}/{}", name(*n))).collect())
    }
}

/// Tables whose tokens stand in the packed store.
#[derive(Clone)]
struct Packed {
    timed: Timed,
    tokens: Arc<Mutex<Tokens>>,
}

impl Packed {
    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, table: Table, key: &Key) -> Option<u32> {
        (table == Table::Identity).then(|| self.lock().find(key)).flatten()
    }
}

#[async_trait]
impl Tables for Packed {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        let Some(n) = self.find(table, key) else { return self.timed.get(table, key, read).await };
        self.timed.table_request(1).await;
        Ok(Some(self.lock().item(n)))
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        let found: BTreeSet<u32> = keys.iter().filter_map(|key| self.find(table, key)).collect();
        if found.is_empty() {
            return self.timed.batch_get(table, keys, read).await;
        }
        assert_eq!(found.len(), keys.len(), "tokens are asked for by themselves");
        self.timed.table_request(found.len()).await;
        let tokens = self.lock();
        Ok(found.into_iter().map(|n| tokens.item(n)).collect())
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        let Some(n) = self.find(table, &item.key) else { return Tables::put(&self.timed, table, item, expect).await };
        self.timed.table_request(1).await;
        let mut tokens = self.lock();
        let rev = u64::from(tokens.rows[n as usize - 1].rev);
        let holds = match expect {
            Expect::Anything => true,
            Expect::Absent => false,
            Expect::Rev(expected) => expected == rev,
        };
        if holds {
            tokens.write(n, item);
        }
        Ok(holds)
    }

    async fn put_all(&self, table: Table, mut items: Vec<Item>) -> PortResult<()> {
        if table == Table::Identity {
            let tokens = self.lock();
            items.retain(|item| tokens.hints(&item.key.pk, &item.key.sk).is_none());
        }
        self.timed.put_all(table, items).await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        assert!(self.find(table, key).is_none(), "nobody deletes a token");
        Tables::delete(&self.timed, table, key, expect).await
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
        let page = {
            let tokens = self.lock();
            let shard = pk.split_once("/t/").and_then(|(_, shard)| shard.parse::<usize>().ok());
            match shard.filter(|_| table == Table::Identity) {
                Some(shard) => Some(tokens.page(shard, after, limit)),
                None => tokens.hints(pk, prefix).filter(|_| table == Table::Identity).map(|found| {
                    let item = |sk: &String| Item {
                        key: Key::new(pk, sk.clone()),
                        rev: 1,
                        doc: serde_json::json!({"v": 1}),
                        due: None,
                        expires_at: None,
                    };
                    Page { items: found.iter().map(item).collect(), next: None }
                }),
            }
        };
        let Some(page) = page else { return self.timed.query(table, pk, prefix, after, limit, read).await };
        self.timed.table_request(page.items.len()).await;
        Ok(page)
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        let mut found = self.timed.due(table, due_pk, until, limit).await?;
        if table == Table::Identity {
            let tokens = self.lock();
            let index = if due_pk == tell_pk(&tokens.munchkin) { &tokens.tell } else { &tokens.ask };
            let due = index.range(..=(until, u32::MAX)).take(limit.saturating_sub(found.len()));
            found.extend(due.map(|(_, n)| tokens.item(*n)));
        }
        Ok(found)
    }
}

/// What the control plane told of the sync at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// When, in ms after the sync was made.
    pub at: u64,
    /// The member `progress` of `GET /syncs/{id}`.
    pub progress: Value,
    /// People in the list at that moment.
    pub members: u64,
}

/// What is seen of the list, and when.
#[derive(Default)]
struct Sighted {
    first: Option<u64>,
    whole: Option<u64>,
    asked: Option<(u64, u64)>,
    laps: u64,
    stuck: bool,
    held: bool,
    told: Vec<Told>,
}

/// Makes the sync and waits until its list holds everybody.
#[must_use]
pub fn measure(plan: &Plan) -> Measured {
    live(plan, false).0
}

/// The same, while somebody looks at the sync each ten seconds.
#[must_use]
pub fn told(plan: &Plan) -> (Measured, Vec<Told>) {
    live(plan, true)
}

fn live(plan: &Plan, looked_at: bool) -> (Measured, Vec<Told>) {
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    let audience = AudienceId::parse("aam:101").expect("an audience id");
    let lead = |n: u64| {
        let id = plan.owner(n)?;
        Some(Lead { id, email: Some(format!("p{id}@example.com")), cookies: vec![name(n)], ecids: Vec::new() })
    };
    let data = MarketoData {
        munchkin_id: MUNCHKIN.into(),
        org_id: Some(ORG.into()),
        hipaa_ready: false,
        cookie_sync: false,
        leads: (1..=plan.tokens).filter_map(lead).collect(),
        lists: vec![List { id: LIST, name: "New".into(), members: BTreeSet::new() }],
    };
    let adobe = Adobe::new(adobe::Settings::default(), Library::default(), plan.begin);
    let sim = Sim::new(1, plan.begin, instance(data, plan.quota, plan.begin), adobe);
    put(&sim, Table::Syncs, subscription_key(&munchkin), &subscription(&munchkin, false));
    let sync = active_sync(&munchkin, audience.clone(), LIST, true);
    put(&sim, Table::Syncs, sync_key(&munchkin, &sync.id), &sync);
    let base = Base::new((1..=plan.tokens).map(ecid), plan.begin - HOUR_MS);
    sim.lock().objects.insert("sets/base/first".into(), base.encode().into());
    let base = BaseRef { key: "sets/base/first".into(), count: plan.tokens, as_of: plan.begin - HOUR_MS };
    let head = Head { base: Some(base), ..Head::new(audience.clone(), plan.begin - HOUR_MS) };
    put(&sim, Table::Audiences, head_key(&munchkin, &audience), &head);

    let timed = Timed::new(sim, Arc::new(|_, _, _| {}));
    let tokens = Arc::new(Mutex::new(Tokens::new(&munchkin, *plan)));
    let packed = Packed { timed: timed.clone(), tokens };
    let ports = Ports { tables: Arc::new(packed.clone()), ..timed.ports() };
    let cloud = Cloud::new(&timed, &ports, &Settings { quota_share: plan.share, ..settings(plan.quota) });
    let seen = Rc::new(RefCell::new(Sighted::default()));
    let mut work = cloud.work();
    work.push(Box::pin(begin(cloud.clone(), munchkin, audience.clone())));
    let watching: Work = Box::pin(watch(cloud.clone(), packed, *plan, seen.clone(), looked_at.then_some(sync.id)));
    work.push(watching);
    timed.run(work, plan.begin + plan.patience_ms);

    let seen = seen.borrow();
    let store = timed.sim.lock();
    let calls: Vec<&marketo::Call> = store.marketo.calls().iter().filter(|call| call.kind != Kind::Token).collect();
    let hours = |at: u64| (at - plan.begin) as f64 / HOUR_MS as f64;
    let passes = store.tables.iter().find(|((table, key), _)| *table == Table::Audiences && key.sk == "head");
    let measured = Measured {
        tokens: plan.tokens,
        known: plan.known,
        in_list: store.marketo.members(LIST).map_or(0, |members| members.len() as u64),
        hours: seen.whole.map(hours),
        first_hours: seen.first.map(hours),
        asked_hours: seen.asked.map(|(at, _)| hours(at)),
        written_when_asked: seen.asked.map_or(0.0, |(_, members)| members as f64 / plan.known as f64),
        days: days(&calls, (plan.quota as f64 * plan.share) as u64),
        most_in_20_seconds: most_in_a_window(&calls),
        most_at_once: calls.iter().map(|call| call.in_flight).max().unwrap_or(0),
        refused: calls.iter().filter(|call| matches!(call.code, 606 | 607 | 615)).count(),
        passes: passes.and_then(|(_, item)| item.doc["pass_done"].as_u64()).unwrap_or(0),
        most_laps: seen.laps,
        stuck: seen.stuck,
        held: seen.held,
        stopped: cloud.stopped.get(),
        failed: cloud.failed.get(),
    };
    (measured, seen.told.clone())
}

/// As the control plane does once the list is there.
async fn begin(cloud: Rc<Cloud>, munchkin: MunchkinId, audience: AudienceId) {
    want_pass(&cloud.deps, &munchkin, &audience).await.expect("nothing fails here");
    bell::mark(&cloud.deps, &BellKey::audience(&munchkin, &audience)).await.expect("nothing fails here");
}

async fn watch(cloud: Rc<Cloud>, packed: Packed, plan: Plan, seen: Rc<RefCell<Sighted>>, looked_at: Option<String>) {
    loop {
        cloud.timed.sleep_ms(LOOK_MS).await;
        if let Some(sync) = &looked_at {
            let at = cloud.deps.now();
            let (path, caller) = (format!("/syncs/{sync}"), Some(Caller::local()));
            let request = Request { method: "GET".into(), path, caller, ..Request::default() };
            let answer = handle(&cloud.deps, request, at + 30_000).await;
            let sync: Value = serde_json::from_slice(&answer.body).expect("JSON");
            let members = cloud.timed.sim.lock().marketo.members(LIST).map_or(0, |members| members.len() as u64);
            seen.borrow_mut().told.push(Told { at: at - plan.begin, progress: sync["progress"].clone(), members });
        }
        let unasked = packed.lock().unasked;
        let store = cloud.timed.sim.lock();
        let (now, members) = (store.now, store.marketo.members(LIST).map_or(0, |members| members.len() as u64));
        let mut seen = seen.borrow_mut();
        if plan.aloud && (now - plan.begin) % (HOUR_MS / 2) < LOOK_MS {
            let hours = (now - plan.begin) as f64 / HOUR_MS as f64;
            let calls = store.marketo.calls().len();
            writeln!(std::io::stderr(), "{hours:.1} h: {unasked} unasked, {members} in the list, {calls} calls").ok();
        }
        if members > 0 {
            seen.first.get_or_insert(now);
        }
        if unasked == 0 {
            seen.asked.get_or_insert((now, members));
        }
        for ((table, key), item) in store.tables.range((Table::Lists, Key::new("", ""))..) {
            match table {
                Table::Lists if key.sk.starts_with("list/") => seen.held |= !item.doc["held"].is_null(),
                Table::Doorbells => {
                    seen.laps = seen.laps.max(item.doc["laps"].as_u64().unwrap_or(0));
                    seen.stuck |= item.doc["stuck"] == true;
                }
                _ => {}
            }
        }
        if members == plan.known {
            seen.whole = Some(now);
            cloud.timed.stop();
            return;
        }
    }
}
