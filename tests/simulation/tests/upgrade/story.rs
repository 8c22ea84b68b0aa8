//! A small world with something of everything, as a version leaves it: rows of tables, objects, messages that wait, Marketo. It is
//! kept under `tests/fixtures/v<version>/` ([`Left`]), and later versions go on from it.
//!
//! The world stops in the midst of work, as it does when another version is deployed: a pass is under way, a call to Marketo
//! was not answered, a mass change is held, half a delivery has come, an erasure is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::limits::FUNCTION_MS;
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Commit, Fault, FaultAnswer, Kind, Marketo, Which};
use ports::{Due, Expect, Item, Key, Outgoing, Queue, Table, Tables as _};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scheduled_incremental_sync::{Arrival, arrived};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::bell::{self, BellKey};
use world::types::{Lead, List};

use simulation::fakes::{Sim, run};
use simulation::scenario::{BEGIN, LIST, MUNCHKIN, ORG, Scenario, Streamed, ecid, instance, library, token};

/// A list of old friends, which a sync adopts.
pub const FRIENDS: u64 = 1002;
/// Segments of the world.
const SIDS: [u64; 3] = [101, 102, 103];
/// Marketo refuses to add this person, with this code.
const REFUSED: (u64, u16) = (16, 1007);
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Who is in which list.
pub type Members = BTreeMap<String, BTreeSet<u64>>;

/// Everything that outlives a deployment.
#[derive(Debug, Clone)]
pub struct Left {
    /// What the test has to know beside it.
    pub about: About,
    /// Rows by table.
    pub rows: Vec<Row>,
    /// Objects by key.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Messages that wait in queues.
    pub messages: Vec<Waiting>,
    /// What Marketo holds.
    pub marketo: marketo::State,
}

/// What a test has to know beside the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// When the world stopped, in ms.
    pub now: u64,
    /// Requests to the control plane so far: idempotency keys bear their numbers.
    pub requests: u64,
    /// Syncs by the name that the story gives them.
    pub syncs: BTreeMap<String, String>,
    /// Jobs by what they are: paths of the API.
    pub jobs: BTreeMap<String, String>,
    /// Number of the request that made the sync `fresh`.
    pub made_by: u64,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the table.
    pub table: String,
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
    /// Revision.
    pub rev: u64,
    /// The document.
    pub doc: Value,
    /// Its place in the index `due`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<(String, u64)>,
    /// When the table may delete it, in s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Name of the queue.
    pub queue: String,
    /// Its group, of a FIFO queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it says.
    pub body: Value,
}

/// An object: text, or bytes in base64.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// The name of a table in the fixtures.
#[must_use]
pub const fn table_name(table: Table) -> &'static str {
    match table {
        Table::Syncs => "syncs",
        Table::Identity => "identity",
        Table::Audiences => "audiences",
        Table::Lists => "lists",
        Table::Doorbells => "doorbells",
    }
}

/// The name of a queue in the fixtures.
#[must_use]
pub const fn queue_name(queue: Queue) -> &'static str {
    match queue {
        Queue::Matches => "matches",
        Queue::Events => "events",
        Queue::IdentityWork => "identity-work",
        Queue::AudienceWork => "audience-work",
        Queue::ListWrites => "list-writes",
    }
}

fn lines<T: Serialize>(values: impl IntoIterator<Item = T>) -> String {
    let line = |value| serde_json::to_string(&value).expect("JSON") + "\n";
    values.into_iter().map(line).collect()
}

fn read_lines<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Vec<T> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

impl Left {
    /// Writes it down, a file for each kind of thing.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let put = |name: &str, text: String| std::fs::write(folder.join(name), text);
        put("about.json", serde_json::to_string_pretty(&self.about).expect("JSON") + "\n")?;
        put("tables.jsonl", lines(&self.rows))?;
        put("messages.jsonl", lines(&self.messages))?;
        let stored = self.objects.iter().map(|(key, bytes)| {
            let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
            let base64 = text.is_none().then(|| STANDARD.encode(bytes));
            Stored { key: key.clone(), text, base64 }
        });
        put("objects.jsonl", lines(stored))?;
        put("marketo.json", serde_json::to_string(&self.marketo).expect("JSON") + "\n")
    }

    /// Reads what [`Left::write`] wrote.
    ///
    /// # Panics
    /// If a file is missing, or is none of ours.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let text =
            |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bytes = |stored: Stored| match (stored.text, stored.base64) {
            (Some(text), _) => (stored.key, text.into_bytes()),
            (None, encoded) => (stored.key, STANDARD.decode(encoded.unwrap_or_default()).expect("base64")),
        };
        Self {
            about: serde_json::from_str(&text("about.json")).expect("about.json"),
            rows: read_lines(folder, "tables.jsonl"),
            objects: read_lines(folder, "objects.jsonl").into_iter().map(bytes).collect(),
            messages: read_lines(folder, "messages.jsonl"),
            marketo: serde_json::from_str(&text("marketo.json")).expect("marketo.json"),
        }
    }

    fn of(scenario: &Scenario, about: About) -> Self {
        let store = scenario.driver.sim.lock();
        let row = |((table, key), item): (&(Table, Key), &Item)| Row {
            table: table_name(*table).to_owned(),
            pk: key.pk.clone(),
            sk: key.sk.clone(),
            rev: item.rev,
            doc: item.doc.clone(),
            due: item.due.as_ref().map(|due| (due.pk.clone(), due.at)),
            expires_at: item.expires_at,
        };
        let waiting = store.messages.iter().map(|message| Waiting {
            queue: queue_name(message.queue).to_owned(),
            group: message.group.clone(),
            body: serde_json::from_str(&message.body).expect("a message is JSON"),
        });
        Self {
            about: About { now: store.now, ..about },
            rows: store.tables.iter().map(row).collect(),
            objects: store.objects.iter().map(|(key, body)| (key.clone(), body.to_vec())).collect(),
            messages: waiting.collect(),
            marketo: store.marketo.state().clone(),
        }
    }

    /// The world goes on with today's code.
    ///
    /// # Panics
    /// If a table or a queue has another name today.
    #[must_use]
    pub fn go_on(&self) -> Scenario {
        let marketo = Marketo::from_state(marketo::Settings::default(), self.marketo.clone());
        let adobe = Adobe::new(adobe::Settings::default(), library(SIDS), self.about.now);
        let sim = Sim::new(1, self.about.now, marketo, adobe);
        for row in &self.rows {
            let table = Table::ALL.into_iter().find(|table| table_name(*table) == row.table).expect("a table of today");
            let due = row.due.clone().map(|(pk, at)| Due { pk, at });
            let key = Key::new(row.pk.as_str(), row.sk.as_str());
            let item = Item { key, rev: row.rev, doc: row.doc.clone(), due, expires_at: row.expires_at };
            assert!(run(sim.put(table, item, Expect::Absent)).expect("written"), "{} {} twice", row.pk, row.sk);
        }
        let mut store = sim.lock();
        store.objects = self.objects.iter().map(|(key, body)| (key.clone(), Bytes::from(body.clone()))).collect();
        for message in &self.messages {
            let queue =
                Queue::ALL.into_iter().find(|queue| queue_name(*queue) == message.queue).expect("a queue of today");
            store
                .enqueue(queue, Outgoing { body: message.body.to_string(), group: message.group.clone(), dedup: None });
        }
        store.sent.clear();
        store.marketo.refuse_lead(REFUSED.0, Some(REFUSED.1));
        store.now = self.about.now;
        drop(store);
        Scenario::over(sim, SmallRng::seed_from_u64(1), self.about.requests)
    }
}

/// Who is in which list, by the lists' names.
#[must_use]
pub fn members(scenario: &Scenario) -> Members {
    let lists = scenario.driver.sim.lock().marketo.lists_dump();
    lists.into_iter().map(|list| (list.name, list.members)).collect()
}

fn of(name: &str, people: &[u64]) -> (String, BTreeSet<u64>) {
    (name.to_owned(), people.iter().copied().collect())
}

/// Who is in which list once the world that was left has come to rest. 1 was put back; 2, 9 and 10 were in `VIP` before us or by
/// hand; 5 was erased, 6 deleted, 7 merged into 8; 16 is refused; what `Fresh` lacks and has too much is held; `Resting` rests;
/// 17 is no friend of anybody's, and was there.
#[must_use]
pub fn at_rest() -> Members {
    Members::from([
        of("VIP", &[1, 2, 3, 8, 9, 10, 13, 14, 15]),
        of("Old friends", &[4, 11, 14, 17]),
        of("Fresh", &[1, 3, 4, 10]),
        of("Resting", &[8, 9, 13]),
        of("Stopped", &[3, 4, 14]),
    ])
}

/// The same after [`go_further`].
#[must_use]
pub fn at_the_end() -> Members {
    Members::from([
        of("VIP", &[2, 8, 9, 10, 12, 13]),
        of("Old friends", &[4, 14, 17]),
        of("Fresh", &[3, 10, 14, 15]),
        of("Resting", &[8, 9, 12, 13]),
        of("Stopped", &[3, 4, 14]),
    ])
}

/// A request that must succeed; its answer.
fn order(scenario: &mut Scenario, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = scenario.request(method, path, body);
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    answer
}

/// A request of today's, while the world stands still.
pub fn ask(
    scenario: &Scenario,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    key: Option<String>,
    body: &Value,
) -> (u16, Value) {
    let request = create_sync::Request {
        method: method.into(),
        path: path.into(),
        query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        headers: key.into_iter().map(|key| ("idempotency-key".to_owned(), key)).collect(),
        body: body.to_string().into_bytes(),
        caller: Some(create_sync::Caller::local()),
        sign_in: None,
    };
    let deps = scenario.driver.deps();
    let answer = run(create_sync::handle(&deps, request, deps.now() + 30_000));
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

fn lead(id: u64) -> Lead {
    let known = id != 12;
    // 13 is tied by what Marketo has stored, 17 by nothing.
    let cookies = if matches!(id, 13 | 17) { Vec::new() } else { vec![token(id)] };
    let ecids = if id == 13 { vec![ecid(13)] } else { Vec::new() };
    Lead { id, email: known.then(|| format!("p{id}@example.com")), cookies, ecids }
}

/// A full file of the default feed, at this time: by segment, its ECIDs.
fn full(scenario: &mut Scenario, key: &str, inside: &[(u64, &[u64])]) {
    let mut rows: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (sid, ecids) in inside {
        for e in *ecids {
            rows.entry(*e).or_default().push(sid.to_string());
        }
    }
    let text: String = rows.iter().map(|(e, sids)| format!("{}\t{}\t\n", ecid(*e), sids.join(","))).collect();
    arrive(scenario, key, text);
}

/// A file is stored, and notice of it comes.
fn arrive(scenario: &mut Scenario, name: &str, text: String) {
    let key = format!("incoming/{name}");
    scenario.driver.sim.lock().objects.insert(key.clone(), text.into());
    let deps = scenario.driver.deps();
    let arrival = Arrival { etag: scenario.driver.sim.tag(&key), key };
    scenario.driver.start(name, async move { arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await });
}

fn hear(scenario: &mut Scenario, sid: u64, e: u64, inside: bool) {
    let now = scenario.driver.sim.lock().now;
    scenario.hear(Streamed { sid, ecid: e, changed: now, as_of: now, inside });
}

/// Lets the world go on until its lists are so.
///
/// # Panics
/// If they are not within a day of it, or a message has died on the way.
pub fn until(scenario: &mut Scenario, what: &str, expected: &Members) {
    let patience = scenario.driver.sim.lock().now + 24 * HOUR;
    loop {
        let found = members(scenario);
        if found == *expected {
            break;
        }
        assert!(
            scenario.driver.sim.lock().now < patience,
            "{what}: {found:?}, and not {expected:?}\n{}",
            scenario.story()
        );
        scenario.driver.run_for(MINUTE);
    }
    // It stays so.
    scenario.driver.run_for(HOUR);
    assert_eq!(members(scenario), *expected, "{what}, an hour later");
    assert_eq!(scenario.driver.dead, 0, "{what}: messages were handed out too often");
}

/// Plays the world, and stops it.
///
/// # Panics
/// If anything is not as the story says.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a story")]
pub fn play() -> Left {
    let mut data = instance((1..=17).map(lead).collect(), BTreeSet::from([2, 9]));
    data.lists.push(List { id: FRIENDS, name: "Old friends".into(), members: BTreeSet::from([3, 17]) });
    let mut scenario = Scenario::beside(marketo::Settings::default(), 1, SmallRng::seed_from_u64(1), data);
    let world = &mut scenario;
    world.driver.sim.lock().marketo.refuse_lead(REFUSED.0, Some(REFUSED.1));
    let subscription = json!({
        "munchkin_id": MUNCHKIN, "org_id": ORG, "extract_since": "2025-12-20T00:00:00Z",
        "origins": ["https://www.example.com"], "new_pairs_per_day": 5_000,
    });
    order(world, "PUT", "/subscription", &subscription);
    order(world, "POST", "/subscription/hint-secrets", &json!({}));
    order(world, "PUT", "/alerts", &json!({"webhooks": {"ours": {"url": "https://hook.test/json", "form": "json"}}}));
    order(
        world,
        "PUT",
        "/feeds/default",
        &json!({"snapshots": true, "completeness": "single-file", "every_hours": 12}),
    );
    order(world, "PUT", "/feeds/web", &json!({"snapshots": true, "completeness": "info", "lag_minutes": 5}));
    order(world, "PUT", "/feeds/live", &json!({"kind": "aam-stream", "ecid_field": "DataPartner_UUID"}));
    let shop = json!({"kind": "aep-files", "snapshots": false, "completeness": "manifest", "ecid_column": "ecid"});
    order(world, "PUT", "/feeds/shop", &shop);

    for n in (1..=12).chain(14..=16) {
        world.see(n, n);
    }
    let first: [(u64, &[u64]); 3] =
        [(101, &[1, 2, 3, 4, 5, 6, 16]), (102, &[5, 6, 7, 8, 9, 12, 13]), (103, &[3, 4, 14])];
    full(world, &format!("S3_1_2_Sample_full_{}.sync", BEGIN + 1_000), &first);
    let mut syncs = BTreeMap::new();
    let mut made_by = 0;
    for (name, sid, list) in [
        ("vip", 101, json!({"id": LIST})),
        ("vip_too", 102, json!({"id": LIST})),
        ("fresh", 101, json!({"name": "Fresh"})),
        ("resting", 102, json!({"name": "Resting"})),
        ("stopped", 103, json!({"name": "Stopped"})),
    ] {
        if name == "fresh" {
            made_by = world.requests() + 1;
        }
        syncs.insert(name.to_owned(), world.create(sid, &list).expect("a sync"));
    }
    for (name, body) in [
        ("friends", json!({"audience_id": "aam:103", "list": {"id": FRIENDS}, "members_before": "adopt"})),
        ("counted", json!({"audience_id": "aam:103", "list": {"name": "Only counted"}, "start": "report_only"})),
    ] {
        let made = order(world, "POST", "/syncs", &body);
        syncs.insert(name.to_owned(), made["id"].as_str().expect("an id").to_owned());
    }
    let began = Members::from([
        of("VIP", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 13]),
        of("Old friends", &[3, 4, 14, 17]),
        of("Fresh", &[1, 2, 3, 4, 5, 6]),
        of("Resting", &[5, 6, 7, 8, 9, 13]),
        of("Stopped", &[3, 4, 14]),
    ]);
    until(world, "the first file", &began);
    come(world, 21);

    // People, by hand and at Marketo.
    {
        let mut store = world.driver.sim.lock();
        let now = store.now;
        assert!(store.marketo.remove_by_hand(now, LIST, 1) && store.marketo.add_by_hand(now, LIST, 10));
        assert!(store.marketo.merge(now, 8, &[7]) && store.marketo.delete(now, 6));
    }
    world.driver.run_for(HOUR);
    order(world, "POST", &format!("/syncs/{}/stop", syncs["stopped"]), &json!({"people": "keep"}));
    let mut jobs = BTreeMap::new();
    let mut job = |name: &str, path: &str, answer: &Value| {
        jobs.insert(name.to_owned(), format!("{path}/{}", answer["id"].as_str().expect("an id")));
    };
    let erased = order(world, "POST", "/people/erase", &json!({"ecid": ecid(5)}));
    job("erased", "/people/erase", &erased);
    world.driver.run_for(2 * HOUR);
    order(world, "POST", &format!("/syncs/{}/pause", syncs["resting"]), &json!({}));

    // Audiences, by a stream and by a file of what changed.
    hear(world, 101, 10, true);
    hear(world, 101, 2, false);
    let time = world.driver.sim.lock().now;
    let changed = format!("{}\t103\t\n{}\t\t103\nnot-an-ecid\t103\t\n", ecid(11), ecid(3));
    arrive(world, &format!("S3_1_2_Sample_iter_{time}.sync"), changed);
    let changed = Members::from([
        of("VIP", &[2, 3, 4, 8, 9, 10, 13]),
        of("Old friends", &[4, 11, 14, 17]),
        of("Fresh", &[1, 3, 4, 10]),
        of("Resting", &[8, 9, 13]),
        of("Stopped", &[3, 4, 14]),
    ]);
    until(world, "what changed", &changed);

    // What operators look at.
    assert_eq!(ask(world, "GET", "/lists", &[("search", "V")], None, &Value::Null).0, 200);
    let preview = json!({"audience_id": "aam:102", "list": {"id": FRIENDS}});
    let answer = order(world, "POST", "/syncs/preview", &preview);
    job("preview", "/previews", &answer);
    let fresh = format!("/syncs/{}", syncs["fresh"]);
    let answer = order(world, "POST", &format!("{fresh}/download"), &json!({}));
    job("download", "/downloads", &answer);
    let answer = order(world, "POST", &format!("{fresh}/compare"), &json!({"list_id": FRIENDS, "start": true}));
    job("comparison", "/comparisons", &answer);
    for _ in 0..20 {
        for path in jobs.values() {
            order(world, "GET", path, &Value::Null);
        }
        world.driver.run_for(10_000);
    }
    world.driver.sim.lock().dead_letters.insert("sim-matches-dead".to_owned(), 3);
    world.driver.run_for(11 * MINUTE);

    // From here on whatever leaves Fresh is a mass of people; 4 leaves.
    let guard = json!({"removals_percent": 0, "removals_at_least": 1, "additions_at_least": 5_000});
    order(world, "POST", &format!("{fresh}/guard"), &guard);
    hear(world, 101, 4, false);
    let mut held = changed;
    held.insert("VIP".into(), BTreeSet::from([2, 3, 8, 9, 10, 13]));
    until(world, "a mass change", &held);
    let shown = order(world, "GET", &fresh, &Value::Null);
    assert_eq!(shown["held"]["removals"], 1, "{shown}");

    // Half a delivery, of a later time than the one that is taken in last.
    let early = world.driver.sim.lock().now;
    world.driver.run_for(10 * MINUTE);
    let time = world.driver.sim.lock().now;
    arrive(world, &format!("web/S3_1_2_Web_full_{time}.sync"), format!("{}\t103\t\n", ecid(4)));
    world.driver.run_for(MINUTE);
    // A call to Marketo that is not answered: 14 enters, by a stream, and is added.
    let lost =
        Fault { kind: Some(Kind::ListAdd), which: Which::Nth(1), answer: FaultAnswer::Drop, commit: Commit::After };
    world.driver.sim.lock().marketo.inject(lost);
    hear(world, 101, 14, true);
    let is_held = |scenario: &Scenario| {
        let store = scenario.driver.sim.lock();
        store.objects.iter().any(|(key, body)| {
            let state = || serde_json::from_slice::<domain::list::State>(body).expect("a list's state");
            key.starts_with(&format!("lists/{MUNCHKIN}/{LIST}/")) && !state().hold.is_empty()
        })
    };
    for _ in 0..10_000 {
        if is_held(world) && world.driver.sim.lock().marketo.members(LIST).is_some_and(|members| members.contains(&14))
        {
            break;
        }
        if !world.driver.step() {
            world.driver.leap();
        }
    }
    assert!(is_held(world), "somebody whose addition was not answered");
    // Operators, at the last moment.
    order(world, "POST", &format!("/syncs/{}/put-back", syncs["vip"]), &json!({"lead_ids": [1]}));
    let answer = order(world, "POST", "/people/erase", &json!({"lead_id": 11_111}));
    jobs.insert("erasing".to_owned(), format!("/people/erase/{}", answer["id"].as_str().expect("an id")));
    // A full file whose passes are under way.
    let second: [(u64, &[u64]); 3] = [(101, &[1, 3, 10, 14, 15, 16]), (102, &[7, 8, 9, 12, 13]), (103, &[4, 11, 14])];
    full(world, &format!("S3_1_2_Sample_full_{early}.sync"), &second);
    let passes = |scenario: &Scenario| {
        let store = scenario.driver.sim.lock();
        store
            .tables
            .iter()
            .any(|((table, key), item)| *table == Table::Audiences && key.sk == "head" && !item.doc["pass"].is_null())
    };
    for _ in 0..100_000 {
        if passes(world) {
            break;
        }
        if !world.driver.step() {
            world.driver.leap();
        }
    }
    assert!(passes(world), "a pass under way");
    wait(world);
    let about = About { now: 0, requests: world.requests(), syncs, jobs, made_by };
    Left::of(&scenario, about)
}

/// A stream says something and more that cannot be taken, and a page is seen by a browser that is in no audience.
fn come(scenario: &mut Scenario, e: u64) {
    let mut store = scenario.driver.sim.lock();
    let now = store.now;
    let reject = json!({
        "line": 3, "reason": "the profile names no ECID", "code": "profile_no_ecid", "values": {"field": "ECID"},
    });
    let events = json!({
        "v": 1, "munchkin_id": MUNCHKIN, "feed": "live", "received_at": now, "ignored": 2, "rejected": 1, "rejects": [reject],
        "entries": [{"audience": "aam:103", "ecid": ecid(14), "changed": now, "as_of": now, "inside": true}],
    });
    let seen = json!({
        "v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(e), "token": token(10), "seen_at": now, "public": true,
        "views": {"all": 7, "both": 3},
    });
    for (queue, body) in [(Queue::Events, events), (Queue::Matches, seen)] {
        store.enqueue(queue, Outgoing { body: body.to_string(), group: None, dedup: None });
    }
}

/// Messages of every kind wait: 8 leaves 102, a page is seen, somebody hints; and a list is dirty.
fn wait(scenario: &mut Scenario) {
    hear(scenario, 102, 8, false);
    scenario.see(15, 15);
    come(scenario, 20);
    let munchkin = domain::MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    run(bell::mark(&scenario.driver.deps(), &BellKey::list(&munchkin, FRIENDS))).expect("marked");
    let mut store = scenario.driver.sim.lock();
    let of_token = json!({"v": 1, "munchkin_id": MUNCHKIN, "look_at": {"token": token(12)}});
    let of_lead = json!({"v": 1, "munchkin_id": MUNCHKIN, "look_at": {"lead_id": 13}});
    for body in [of_token, of_lead] {
        store.enqueue(Queue::Matches, Outgoing { body: body.to_string(), group: None, dedup: None });
    }
    // A ring of each kind: whoever is rung for nothing does nothing.
    for (queue, kind, id, group) in [
        (Queue::IdentityWork, "identity", String::new(), MUNCHKIN.to_owned()),
        (Queue::AudienceWork, "edges", String::new(), format!("{MUNCHKIN}/edges")),
        (Queue::AudienceWork, "audience", "aam:101".to_owned(), format!("{MUNCHKIN}/aam:101")),
        (Queue::ListWrites, "list", LIST.to_string(), MUNCHKIN.to_owned()),
    ] {
        let body = json!({"v": 1, "kind": kind, "munchkin": MUNCHKIN, "id": id, "version": 1});
        store.enqueue(queue, Outgoing { body: body.to_string(), group: Some(group), dedup: None });
    }
}

/// New facts, and what operators do, in a world that has gone on and come to rest.
///
/// # Panics
/// If a request is refused.
pub fn go_further(scenario: &mut Scenario, about: &About) {
    let fresh = format!("/syncs/{}", about.syncs["fresh"]);
    let held = order(scenario, "GET", &fresh, &Value::Null)["held"]["id"].clone();
    order(scenario, "POST", &format!("{fresh}/held"), &json!({"held": held, "decision": "apply"}));
    let mut applied = at_rest();
    applied.insert("Fresh".into(), BTreeSet::from([1, 3, 10, 14, 15]));
    until(scenario, "what was held", &applied);
    let guard = json!({"removals_percent": 30, "removals_at_least": 100, "additions_at_least": 5_000});
    order(scenario, "POST", &format!("{fresh}/guard"), &guard);
    order(scenario, "POST", &format!("/syncs/{}/resume", about.syncs["resting"]), &json!({}));
    order(scenario, "POST", &format!("/syncs/{}/stop", about.syncs["vip"]), &json!({"people": "take_out"}));
    {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        store.marketo.fill_form(now, &token(12), "p12@example.com");
    }
    // A page that was seen before it was erased.
    scenario.see_at(5, 5, BEGIN + MINUTE);
    // The other half of the delivery, and its control file.
    let (stem, part) = {
        let store = scenario.driver.sim.lock();
        let (key, body) =
            store.objects.iter().find(|(key, _)| key.starts_with("incoming/web/")).expect("half a delivery");
        let name = key.strip_prefix("incoming/web/").and_then(|name| name.strip_suffix(".sync"));
        (name.expect("a name").to_owned(), body.len())
    };
    let rest = format!("{}\t103\t\n", ecid(14));
    let file = |name: String, bytes: usize| json!({"FileName": name, "FileByteSize": bytes, "FileLineCount": 1});
    let files = json!([file(format!("{stem}.sync"), part), file(format!("{stem}001.sync"), rest.len())]);
    arrive(scenario, &format!("web/{stem}001.sync"), rest);
    let control = json!({"Files": files, "Totals": {"TotalNumberFiles": 2}});
    arrive(scenario, &format!("web/{stem}.info"), control.to_string());
    scenario.driver.run_for(10 * MINUTE);
    let time = scenario.driver.sim.lock().now;
    let third: [(u64, &[u64]); 2] = [(101, &[3, 5, 10, 14, 15, 16]), (102, &[7, 9, 12, 13])];
    full(scenario, &format!("S3_1_2_Sample_full_{time}.sync"), &third);
}
