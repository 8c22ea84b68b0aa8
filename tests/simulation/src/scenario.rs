//! A small random world, what happens in it, and the reference model of where it must end.

use std::collections::{BTreeMap, BTreeSet};

use cookie_ingest::{Answer, Counts, HttpEvent, Ingest};
use create_sync::{Caller, Request, handle};
use domain::limits::FUNCTION_MS;
use domain::list::{GuardSettings, State};
use domain::{AudienceId, LeadId, ListId, MunchkinId};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Marketo};
use ports::{Outgoing, Queue};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use scheduled_incremental_sync::{Arrival, arrived};
use serde_json::{Value, json};
use state::syncs::{Leaving, MembersBefore, Start, Status, Sync, Target};
use world::types::{Folder, Lead, Library, List, MarketoData, Segment};

use crate::driver::{Driver, settings};
use crate::fakes::{Faults, Sim};

/// The subscription.
pub const MUNCHKIN: &str = "123-ABC-456";
/// Its IMS organisation.
pub const ORG: &str = "0123456789ABCDEF01234567@AdobeOrg";
/// When the world begins, in ms: 2026-01-01, noon.
pub const BEGIN: u64 = 1_767_268_800_000;
/// The list that exists from the beginning.
pub const LIST: u64 = 1001;
const SIDS: [u64; 3] = [101, 102, 103];
const ECIDS: u64 = 8;
const TOKENS: u64 = 6;
const LEADS: u64 = 6;

/// An origin from which pages may send, once the subscription allows it.
pub const PAGE: &str = "https://www.example.com";

/// A beacon of a page.
#[must_use]
pub fn beacon(body: &Value, cookies: &[&str], origin: &str) -> HttpEvent {
    HttpEvent {
        method: "POST".into(),
        path: "/beacon".into(),
        headers: vec![("origin".into(), origin.into()), ("content-type".into(), "text/plain".into())],
        cookies: cookies.iter().map(|cookie| (*cookie).to_owned()).collect(),
        body: body.to_string().into_bytes(),
        ..HttpEvent::default()
    }
}

/// The n-th ECID, as 38 digits.
#[must_use]
pub fn ecid(n: u64) -> String {
    format!("{n:038}")
}

/// The n-th token.
#[must_use]
pub fn token(n: u64) -> String {
    format!("_mch-example.com-{}-{n}", 1_700_000_000_000u64 + n)
}

/// The row of an active sync that feeds a list, as `POST /syncs` writes it with every choice left to its default.
#[must_use]
pub fn active_sync(munchkin: &MunchkinId, audience: AudienceId, list: ListId, ours: bool) -> Sync {
    Sync {
        v: 1,
        id: format!("{list:016x}"),
        munchkin: munchkin.clone(),
        audience_name: format!("Audience {audience}"),
        audience,
        list: Target { id: Some(list), name: format!("List {list}"), folder_id: None, ours },
        leaving: Leaving::Remove,
        members_before: MembersBefore::Keep,
        start: Start::Now,
        status: Status::Active,
        why: None,
        from_pass: None,
        run_pass: None,
        frozen: None,
        guard: GuardSettings::default(),
        generation: 0,
        created_at: BEGIN,
    }
}

/// Last sight of a match that expires half an hour after the world begins, in ms.
const EXPIRING: u64 = BEGIN + 1_800_000 - 396 * 86_400_000;

/// Whom an erasure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erase {
    /// A cookie.
    Token(u64),
    /// A browser.
    Ecid(u64),
    /// A person, by Marketo's id.
    Lead(u64),
    /// A person by the email that the lead of this id has; by the id where it has none.
    Email(u64),
}

/// A Marketo instance with these people and one list, [`LIST`], which these of them are in.
#[must_use]
pub fn instance(leads: Vec<Lead>, members: BTreeSet<u64>) -> MarketoData {
    MarketoData {
        munchkin_id: MUNCHKIN.into(),
        org_id: Some(ORG.into()),
        hipaa_ready: false,
        cookie_sync: true,
        leads,
        lists: vec![List { id: LIST, name: "VIP".into(), members }],
    }
}

/// Whether somebody is in any set of what is known of a list.
#[must_use]
pub fn knows(state: &State, lead: LeadId) -> bool {
    let State { sure, may, theirs, restore, tied, kept_out, dropped, approved, .. } = state;
    let sets = [sure, may, theirs, restore, tied, kept_out, dropped, approved];
    let more = state.kept_by.values().chain(state.left.values()).chain(state.came.values());
    sets.into_iter().chain(more).any(|set| set.contains(lead))
        || [&state.hold, &state.doubts, &state.newcomers].iter().any(|people| people.contains_key(&lead))
        || state.failed.contains_key(&lead)
}

/// An audience library with these segments, in one folder.
#[must_use]
pub fn library(sids: impl IntoIterator<Item = u64>) -> Library {
    let segment = |sid| Segment { sid, folder_id: 1, name: format!("Audience {sid}") };
    Library {
        folders: vec![Folder { folder_id: 1, parent_folder_id: 0, name: "Retail".into() }],
        segments: sids.into_iter().map(segment).collect(),
        ..Library::default()
    }
}

/// A world in which things happen.
pub struct Scenario {
    /// The functions, the queues and the clock.
    pub driver: Driver,
    rng: SmallRng,
    /// ECID and token, with the last sight, in ms.
    matches: BTreeMap<(u64, u64), u64>,
    /// No sight of this token up to then counts, in ms.
    erased_tokens: BTreeMap<u64, u64>,
    /// No sight of this ECID up to then counts, in ms.
    erased_ecids: BTreeMap<u64, u64>,
    /// People whose ECIDs in Marketo do not count any more.
    erased_people: BTreeSet<u64>,
    /// Into whom somebody was merged.
    merged: BTreeMap<u64, u64>,
    /// What files said, by time: audience, ECID, and in or out; a snapshot clears its audience first.
    files: BTreeMap<u64, File>,
    /// What streams said.
    streams: Vec<Streamed>,
    syncs: Vec<SyncModel>,
    /// Members before us, by list.
    theirs: BTreeMap<u64, BTreeSet<u64>>,
    /// People who stay by the choice of a stopped sync, by list.
    kept: BTreeMap<u64, BTreeSet<u64>>,
    /// Merged from one who was there before us and one who was not, while nobody had asked: nobody can know.
    either: BTreeSet<u64>,
    /// Cookies that have moved from one lead to another.
    moved: BTreeSet<String>,
    next_lead: u64,
    requests: u64,
    /// What happened, for the one who reads a failure.
    story: Vec<String>,
}

#[derive(Debug, Clone)]
struct File {
    snapshot: bool,
    inside: BTreeMap<u64, BTreeSet<u64>>,
    outside: BTreeMap<u64, BTreeSet<u64>>,
}

/// One entry of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Streamed {
    /// The segment.
    pub sid: u64,
    /// The ECID.
    pub ecid: u64,
    /// When it changed, in ms.
    pub changed: u64,
    /// Up to when the source vouches for it, in ms.
    pub as_of: u64,
    /// In or out.
    pub inside: bool,
}

#[derive(Debug, Clone)]
struct SyncModel {
    id: String,
    sid: u64,
    list: u64,
    paused: bool,
    over: bool,
}

fn leads_of_world(rng: &mut SmallRng) -> Vec<Lead> {
    (1..=LEADS)
        .map(|id| Lead {
            id,
            email: rng.random_bool(0.6).then(|| format!("p{id}@example.com")),
            cookies: (1..=TOKENS).filter(|n| n % LEADS == id % LEADS && rng.random_bool(0.6)).map(token).collect(),
            ecids: (1..=ECIDS).filter(|_| rng.random_bool(0.08)).map(ecid).collect(),
        })
        .collect()
}

impl Scenario {
    /// A world of a seed, set up and settled, without syncs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let members: BTreeSet<u64> = (1..=LEADS).filter(|_| rng.random_bool(0.25)).collect();
        let data = instance(leads_of_world(&mut rng), members.clone());
        Self::with(seed, rng, data)
    }

    /// A world that holds exactly this.
    #[must_use]
    pub fn with(seed: u64, rng: SmallRng, data: MarketoData) -> Self {
        Self::beside(marketo::Settings { log_calls: false, ..marketo::Settings::default() }, seed, rng, data)
    }

    /// The same beside a Marketo that behaves so.
    #[must_use]
    pub fn beside(marketo: marketo::Settings, seed: u64, rng: SmallRng, data: MarketoData) -> Self {
        let theirs = data.lists.iter().map(|list| (list.id, list.members.clone())).collect();
        let next_lead = data.leads.iter().map(|lead| lead.id).max().unwrap_or(0) + 1;
        let sim = Sim::new(
            seed,
            BEGIN,
            Marketo::new(marketo, data, BEGIN),
            Adobe::new(adobe::Settings::default(), library(SIDS), BEGIN),
        );
        let mut scenario = Self {
            driver: Driver::new(sim, settings()),
            rng,
            matches: BTreeMap::new(),
            erased_tokens: BTreeMap::new(),
            erased_ecids: BTreeMap::new(),
            erased_people: BTreeSet::new(),
            merged: BTreeMap::new(),
            files: BTreeMap::new(),
            streams: Vec::new(),
            syncs: Vec::new(),
            theirs,
            kept: BTreeMap::new(),
            either: BTreeSet::new(),
            moved: BTreeSet::new(),
            next_lead,
            requests: 0,
            story: Vec::new(),
        };
        scenario.request(
            "PUT",
            "/subscription",
            &json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "extract_since": "2025-12-20T00:00:00Z"}),
        );
        scenario.request("PUT", "/feeds/default", &json!({"snapshots": true, "completeness": "single-file"}));
        scenario
    }

    /// Sends a request to the control plane until it is answered, as a careful client does; the same idempotency key
    /// each time. Returns the last answer.
    pub fn request(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.requests += 1;
        if method != "GET" {
            self.tell(format!("{method} {path} {body}"));
        }
        let answer = std::rc::Rc::new(std::cell::RefCell::new(None));
        for attempt in 0..100 {
            let name = format!("request {} {attempt}", self.requests);
            let request = Request {
                method: method.into(),
                path: path.into(),
                query: Vec::new(),
                headers: vec![("idempotency-key".into(), format!("k{}", self.requests))],
                body: body.to_string().into_bytes(),
                caller: Some(Caller::local()),
                sign_in: None,
            };
            let deps = self.driver.deps();
            let answered = answer.clone();
            self.driver.start(&name, async move {
                let response = handle(&deps, request, deps.now() + 30_000).await;
                *answered.borrow_mut() =
                    Some((response.status, serde_json::from_slice(&response.body).unwrap_or(Value::Null)));
                Ok(())
            });
            while self.driver.is_running(&name) {
                if !self.driver.step() {
                    self.driver.leap();
                }
            }
            match answer.borrow_mut().take() {
                Some((status, body)) if status < 500 => return (status, body),
                _ => {}
            }
            self.driver.run_for(2_000);
        }
        (0, Value::Null)
    }

    /// Creates a sync and waits until its list is there. Returns its id, or the refusal.
    pub fn create(&mut self, sid: u64, list: &Value) -> Result<String, (u16, Value)> {
        let body = json!({"audience_id": format!("aam:{sid}"), "list": list});
        let (status, answer) = self.request("POST", "/syncs", &body);
        let Some(id) = answer["id"].as_str().filter(|_| status < 300).map(str::to_owned) else {
            return Err((status, answer));
        };
        for _ in 0..200 {
            let (_, view) = self.request("GET", &format!("/syncs/{id}"), &Value::Null);
            if let Some(list) = view["list"]["id"].as_u64().filter(|_| view["status"] == "active") {
                self.syncs.push(SyncModel { id: id.clone(), sid, list, paused: false, over: false });
                return Ok(id);
            }
            self.driver.run_for(10_000);
        }
        Err((0, json!("a sync that is being made for ever")))
    }

    /// Posts matches to cookie-ingest, as the collector of a site does. Returns status and body.
    pub fn post_matches(&mut self, body: &[u8]) -> (u16, Value) {
        let request =
            HttpEvent { method: "POST".into(), path: "/matches".into(), body: body.to_vec(), ..HttpEvent::default() };
        let ingest = Ingest::new(self.driver.deps());
        let answer = self.ask(&ingest, request, &Counts::default()).expect("an answer");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Sends a request to a process of cookie-ingest, while the world goes on. `None`: the invocation failed.
    pub fn ask(&mut self, ingest: &Ingest, request: HttpEvent, counts: &Counts) -> Option<Answer> {
        let answer = std::rc::Rc::new(std::cell::RefCell::new(None));
        let (ingest, counts, answered) = (ingest.clone(), counts.clone(), answer.clone());
        self.requests += 1;
        let name = format!("ingest {}", self.requests);
        self.driver.start(&name, async move {
            *answered.borrow_mut() = Some(ingest.request(&request, &counts).await?);
            Ok(())
        });
        while self.driver.is_running(&name) {
            if !self.driver.step() {
                self.driver.leap();
            }
        }
        answer.take()
    }

    /// A browser shows an ECID beside a token.
    pub fn see(&mut self, e: u64, t: u64) {
        let now = self.driver.sim.lock().now;
        self.see_at(e, t, now);
    }

    /// A browser showed an ECID beside a token at a time (ms), and the message comes now.
    pub fn see_at(&mut self, e: u64, t: u64, at: u64) {
        self.note_match(e, t, at);
        self.tell(format!("match {e} {t} of {}s", at.cast_signed().wrapping_sub(BEGIN.cast_signed()) / 1000));
        let found = json!({"v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(e), "token": token(t), "seen_at": at});
        let message = Outgoing { body: found.to_string(), group: None, dedup: None };
        self.driver.sim.lock().enqueue(Queue::Matches, message);
    }

    /// Tells the model of a match.
    pub fn note_match(&mut self, e: u64, t: u64, at: u64) {
        let erased = self.erased_tokens.get(&t).max(self.erased_ecids.get(&e));
        if erased.is_none_or(|erased| *erased < at) {
            let last = self.matches.entry((e, t)).or_insert(at);
            *last = at.max(*last);
        }
    }

    /// Whether the match of a pair counts: it was seen, not erased, and has not expired.
    fn is_match(&self, e: u64, t: u64) -> bool {
        let now = self.driver.sim.lock().now;
        self.matches.get(&(e, t)).is_some_and(|last| last + settings().match_lifetime_ms > now)
    }

    /// Erases whoever is meant, and waits until that is done. What Marketo says is settled before, so that the model knows
    /// who that is.
    pub fn erase(&mut self, subject: &Erase) -> Result<(), String> {
        let faults = std::mem::replace(&mut self.driver.sim.lock().faults, Faults::NONE);
        self.settle()?;
        self.driver.sim.lock().faults = faults;
        let (body, people) = self.note_erase(subject);
        let (status, job) = self.request("POST", "/people/erase", &body);
        if status != 202 {
            return Err(format!("an erasure was not taken: {status} {job}"));
        }
        let path = format!("/people/erase/{}", job["id"].as_str().unwrap_or_default());
        for round in 0..500 {
            if round == 30 {
                // Where everything fails again and again, five minutes of it are enough.
                self.driver.sim.lock().faults = Faults::NONE;
            }
            self.driver.run_for(10_000);
            // All of them: where the first answer was lost there are two jobs.
            let open = self.request("GET", "/status", &Value::Null).1["erasures_open"] != 0;
            if !open && self.request("GET", &path, &Value::Null).1["status"] == "done" {
                self.driver.sim.lock().faults = faults;
                // Nobody keeps them any more, unless some audience wants them by another browser.
                let followed: BTreeSet<u64> =
                    self.syncs.iter().filter(|sync| !sync.over).map(|sync| sync.sid).collect();
                let wanted: BTreeSet<u64> = followed.into_iter().flat_map(|sid| self.wanted_by(sid)).collect();
                for kept in self.kept.values_mut() {
                    kept.retain(|lead| !people.contains(lead) || wanted.contains(lead));
                }
                return Ok(());
            }
        }
        Err(format!("an erasure never ends: {}", self.request("GET", &path, &Value::Null).1))
    }

    /// Who a lead is after the merges so far.
    fn survivor(&self, mut lead: u64) -> u64 {
        while let Some(winner) = self.merged.get(&lead) {
            lead = *winner;
        }
        lead
    }

    /// Somebody to be erased. Not by the id of somebody who was merged: of a merge before the activity log was followed
    /// nobody knows.
    fn anybody(&mut self) -> u64 {
        let lead = self.any(LEADS);
        self.survivor(lead)
    }

    /// Follows an erasure in the model. Returns the request, and the people who are concerned.
    pub fn note_erase(&mut self, subject: &Erase) -> (Value, BTreeSet<u64>) {
        let store = self.driver.sim.lock();
        let now = store.now;
        let owner = |t: u64| store.marketo.owner_of(&token(t));
        let leads = store.marketo.leads();
        let mut people = BTreeSet::new();
        let mut gone = BTreeSet::new();
        let body = match *subject {
            Erase::Token(t) => {
                gone.insert(t);
                people.extend(owner(t));
                json!({"token": token(t)})
            }
            Erase::Ecid(e) => {
                // A match that has expired ties nobody any more.
                let good = |last: &u64| last + settings().match_lifetime_ms > now;
                let mine = self.matches.iter().filter(|((other, _), last)| *other == e && good(last));
                let beside = mine.filter_map(|((_, t), _)| owner(*t));
                people.extend(beside);
                // What was erased before ties nobody any more.
                let tied = |id: &u64| !self.erased_people.contains(id) && !self.erased_ecids.contains_key(&e);
                let direct = leads.iter().filter(|(id, lead)| lead.ecids.contains(&ecid(e)) && tied(id));
                people.extend(direct.map(|(id, _)| *id));
                self.erased_ecids.insert(e, now);
                self.matches.retain(|(other, _), _| *other != e);
                json!({"ecid": ecid(e)})
            }
            Erase::Lead(id) | Erase::Email(id) => {
                let email = store.marketo.lead(id).and_then(|lead| lead.email.clone());
                let by_email = matches!(subject, Erase::Email(_)).then_some(email).flatten();
                people.insert(id);
                let same = leads.iter().filter(|(_, lead)| by_email.is_some() && lead.email == by_email);
                people.extend(same.map(|(id, _)| *id));
                people.insert(self.survivor(id));
                gone.extend((1..=TOKENS).filter(|t| owner(*t).is_some_and(|owner| people.contains(&owner))));
                self.erased_people.extend(&people);
                by_email.map_or_else(|| json!({"lead_id": id}), |email| json!({"email": email}))
            }
        };
        drop(store);
        for t in gone {
            self.erased_tokens.insert(t, now);
            self.matches.retain(|(_, other), _| *other != t);
        }
        (body, people)
    }

    /// A file arrives, possibly twice.
    pub fn deliver(&mut self, time: u64, file: FileOf) {
        let FileOf { snapshot, inside, outside } = file;
        let mode = if snapshot { "full" } else { "iter" };
        let name = format!("S3_1_2_Sample_{mode}_{time}.sync");
        let mut rows: BTreeMap<u64, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
        for (sid, ecids) in &inside {
            ecids.iter().for_each(|e| rows.entry(*e).or_default().0.push(*sid));
        }
        for (sid, ecids) in &outside {
            ecids.iter().for_each(|e| rows.entry(*e).or_default().1.push(*sid));
        }
        let list = |sids: &[u64]| sids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let text: String = rows
            .iter()
            .map(|(e, (inside, outside))| format!("{}\t{}\t{}\n", ecid(*e), list(inside), list(outside)))
            .collect();
        let key = format!("incoming/{name}");
        self.tell(format!("{name}: in {inside:?}, out {outside:?}"));
        self.driver.sim.lock().objects.insert(key.clone(), text.into_bytes().into());
        self.files.insert(time, File { snapshot, inside, outside });
        let twice = self.rng.random_bool(0.2);
        for copy in 0..=u8::from(twice) {
            let deps = self.driver.deps();
            let arrival = Arrival { key: key.clone(), etag: self.driver.sim.tag(&key) };
            self.driver.start(&format!("{name} {copy}"), async move {
                arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await
            });
        }
    }

    /// A stream says something; the message waits in its queue.
    pub fn hear(&mut self, said: Streamed) {
        let received_at = self.driver.sim.lock().now;
        self.tell(format!("stream {said:?}"));
        self.streams.push(said);
        let Streamed { sid, ecid: e, changed, as_of, inside } = said;
        let entry = json!({
            "audience": format!("aam:{sid}"), "ecid": ecid(e), "changed": changed, "as_of": as_of, "inside": inside,
        });
        let body = json!({
            "v": 1, "munchkin_id": MUNCHKIN, "feed": "live", "received_at": received_at, "entries": [entry],
        });
        let message = Outgoing { body: body.to_string(), group: None, dedup: None };
        self.driver.sim.lock().enqueue(Queue::Events, message);
    }

    fn random_stream(&mut self) {
        let now = self.driver.sim.lock().now;
        let changed = self.rng.random_range(BEGIN..=now);
        // One source vouches for what it repeats, the other one does not.
        let as_of = if self.rng.random_bool(0.5) { now } else { changed };
        let (sid, e) = (SIDS[self.rng.random_range(0..SIDS.len())], self.any(ECIDS));
        let said = Streamed { sid, ecid: e, changed, as_of, inside: self.rng.random_bool(0.6) };
        self.hear(said);
    }

    /// Marketo merges two people.
    pub fn merge(&mut self, winner: u64, loser: u64) {
        let merged = {
            let mut store = self.driver.sim.lock();
            let now = store.now;
            store.marketo.lead(loser).is_some() && winner != loser && store.marketo.merge(now, winner, &[loser])
        };
        if merged {
            self.note_merge(winner, loser);
        }
    }

    fn delete(&mut self, lead: u64) {
        self.tell(format!("delete {lead}"));
        let mut store = self.driver.sim.lock();
        let now = store.now;
        store.marketo.delete(now, lead);
    }

    fn tell(&mut self, what: String) {
        let now = self.driver.sim.lock().now - BEGIN;
        self.story.push(format!("{:>9.3}s {what}", now as f64 / 1000.0));
    }

    /// What happened so far, and what the functions know of the lists.
    #[must_use]
    pub fn story(&self) -> String {
        let mut story = self.story.join("\n");
        let objects = self.driver.sim.lock().objects.clone();
        for (key, body) in &objects {
            if key.starts_with("lists/")
                && let Ok(state) = serde_json::from_slice::<domain::list::State>(body)
            {
                story.push_str(&format!("\n{key}: {state:?}"));
            }
        }
        for ((table, key), item) in &self.driver.sim.lock().tables {
            story.push_str(&format!("\n{table:?} {} {}: {}", key.pk, key.sk, item.doc));
        }
        story
    }

    fn any(&mut self, upto: u64) -> u64 {
        self.rng.random_range(1..=upto)
    }

    fn some_ecids(&mut self, chance: f64) -> BTreeSet<u64> {
        (1..=ECIDS).filter(|_| self.rng.random_bool(chance)).collect()
    }

    /// Waits for rest, with every file taken in.
    pub fn settle(&mut self) -> Result<(), String> {
        self.retry_files();
        let ended = self.driver.settle(6 * 3_600_000);
        self.retry_files();
        ended.and_then(|()| self.driver.settle(6 * 3_600_000))
    }

    /// What a lost notification leaves behind is found by the backstop; here at once.
    fn retry_files(&mut self) {
        let keys: Vec<String> =
            self.driver.sim.lock().objects.keys().filter(|key| key.starts_with("incoming/")).cloned().collect();
        for key in keys {
            let deps = self.driver.deps();
            let arrival = Arrival { key: key.clone(), etag: self.driver.sim.tag(&key) };
            self.driver.start(&key, async move { arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await });
        }
    }

    /// Lets random things happen, with faults; then ends the faults and waits for rest.
    pub fn play(&mut self, faults: Faults) -> Result<(), String> {
        let steps = self.rng.random_range(10..24);
        self.driver.sim.lock().faults = faults;
        for _ in 0..steps {
            match self.rng.random_range(0..25) {
                22.. => self.random_stream(),
                0..5 => {
                    let (e, t) = (self.any(ECIDS), self.any(TOKENS));
                    match self.rng.random_range(0..5) {
                        // A message that was late: it may be about somebody who was erased meanwhile.
                        0 => self.see_at(e, t, BEGIN),
                        // A match that ends within this world.
                        1 => self.see_at(e, t, EXPIRING),
                        _ => self.see(e, t),
                    }
                }
                20..22 => {
                    let subject = match self.rng.random_range(0..4) {
                        0 => Erase::Token(self.any(TOKENS)),
                        1 => Erase::Ecid(self.any(ECIDS)),
                        2 => Erase::Lead(self.anybody()),
                        _ => Erase::Email(self.anybody()),
                    };
                    self.erase(&subject)?;
                }
                5..9 => self.random_file(),
                9..11 => {
                    let (t, p) = (self.any(TOKENS), self.any(LEADS + 2));
                    self.moved.insert(token(t));
                    let mut store = self.driver.sim.lock();
                    let now = store.now;
                    let email = format!("p{p}@example.com");
                    let before: BTreeSet<u64> = store.marketo.leads().keys().copied().collect();
                    let owner = store.marketo.owner_of(&token(t));
                    let person = store.marketo.fill_form(now, &token(t), &email);
                    let after: BTreeSet<u64> = store.marketo.leads().keys().copied().collect();
                    drop(store);
                    self.tell(format!("form {t} {email} -> {person}"));
                    // A form may merge an anonymous visitor into the person who has the email.
                    if let Some(gone) = owner.filter(|owner| before.contains(owner) && !after.contains(owner)) {
                        self.note_merge(person, gone);
                    }
                    self.next_lead = self.next_lead.max(person + 1);
                }
                11..13 => self.random_lead(),
                13 => {
                    let (winner, loser) = (self.any(LEADS), self.any(LEADS));
                    self.merge(winner, loser);
                }
                14 => {
                    let lead = self.any(LEADS);
                    // A cookie that moves and dies with its new owner before anybody looks is found by the backstop
                    // a week later: longer than these worlds last.
                    let lost = self
                        .driver
                        .sim
                        .lock()
                        .marketo
                        .lead(lead)
                        .is_some_and(|lead| lead.cookies.iter().any(|cookie| self.moved.contains(cookie)));
                    if !lost {
                        self.delete(lead);
                    }
                }
                15..18 => self.random_create()?,
                18 => self.pause_or_resume(),
                _ => self.stop_one()?,
            }
            let pause = self.rng.random_range(0..240_000);
            self.driver.run_for(pause);
        }
        self.driver.sim.lock().faults = Faults::NONE;
        self.resume_all();
        self.settle()
    }

    /// Follows a merge in the model. Where one of the two was there before us, or the loser was there by our doing
    /// and the winner may be asked about before the merge is told, nobody can know: such a winner may stay.
    fn note_merge(&mut self, winner: u64, loser: u64) {
        self.tell(format!("merge {loser} into {winner}"));
        self.merged.insert(loser, winner);
        let ours = self.driver.sim.lock().marketo.members(LIST).is_some_and(|members| members.contains(&winner));
        let mut unknown = self.either.remove(&loser) || ours;
        for members in self.theirs.values_mut() {
            let (before, after) = (members.remove(&loser), members.contains(&winner));
            unknown |= before != after;
            if before {
                members.insert(winner);
            }
        }
        if unknown {
            self.either.insert(winner);
        }
        for kept in self.kept.values_mut() {
            if kept.remove(&loser) {
                kept.insert(winner);
            }
        }
    }

    fn random_file(&mut self) {
        // Files arrive in any order of their times.
        let mut time = BEGIN + self.rng.random_range(0..7_200_000);
        while self.files.contains_key(&time) {
            time += 1;
        }
        let snapshot = self.rng.random_bool(0.5);
        let mut file = FileOf { snapshot, inside: BTreeMap::new(), outside: BTreeMap::new() };
        for sid in SIDS {
            if snapshot {
                file.inside.insert(sid, self.some_ecids(0.4));
            } else {
                file.inside.insert(sid, self.some_ecids(0.12));
                let left = self.some_ecids(0.12);
                file.outside.insert(sid, left);
            }
        }
        file.inside.retain(|_, ecids| !ecids.is_empty());
        file.outside.retain(|_, ecids| !ecids.is_empty());
        if !file.inside.is_empty() || !file.outside.is_empty() {
            self.deliver(time, file);
        }
    }

    fn random_lead(&mut self) {
        let known: Vec<u64> = self.driver.sim.lock().marketo.leads().keys().copied().collect();
        let id = if known.is_empty() || self.rng.random_bool(0.2) {
            self.next_lead += 1;
            self.next_lead - 1
        } else {
            known[self.rng.random_range(0..known.len())]
        };
        // A cookie moves to another lead, and never to nobody.
        let held = self.driver.sim.lock().marketo.lead(id).map_or_else(Vec::new, |lead| lead.cookies.clone());
        let lead = Lead {
            id,
            email: self.rng.random_bool(0.7).then(|| format!("p{id}@example.com")),
            cookies: held.into_iter().chain((1..=TOKENS).filter(|_| self.rng.random_bool(0.2)).map(token)).collect(),
            ecids: (1..=ECIDS).filter(|_| self.rng.random_bool(0.1)).map(ecid).collect(),
        };
        self.tell(format!("lead {lead:?}"));
        self.moved.extend(lead.cookies.iter().cloned());
        let mut store = self.driver.sim.lock();
        let now = store.now;
        store.marketo.upsert_lead(now, lead);
    }

    fn random_create(&mut self) -> Result<(), String> {
        let sid = SIDS[self.rng.random_range(0..SIDS.len())];
        let list = match self.rng.random_range(0..3) {
            0 => {
                let name = format!("New {}", self.rng.random_range(0..2));
                match self.syncs.first() {
                    Some(sync) if sync.list != LIST => json!({"id": sync.list}),
                    _ => json!({"name": name}),
                }
            }
            _ => json!({"id": LIST}),
        };
        match self.create(sid, &list) {
            Ok(_) | Err((400..=499, _)) => Ok(()),
            Err((status, answer)) => Err(format!("a sync was not created: {status} {answer}")),
        }
    }

    /// Whether a sync of this audience on this list is alive.
    #[must_use]
    pub fn lives(&self, sid: u64, list: u64) -> Option<usize> {
        self.syncs.iter().position(|sync| sync.sid == sid && sync.list == list && !sync.over)
    }

    fn turn(&mut self, index: usize, verb: &str) -> u16 {
        let path = format!("/syncs/{}/{verb}", self.syncs[index].id);
        self.request("POST", &path, &json!({"people": "take_out"})).0
    }

    /// Pauses a sync, or resumes a paused one.
    pub fn toggle(&mut self, index: usize) {
        let verb = if self.syncs[index].paused { "resume" } else { "pause" };
        if self.turn(index, verb) < 300 {
            self.syncs[index].paused = !self.syncs[index].paused;
        }
    }

    fn pause_or_resume(&mut self) {
        if let Some(index) = self.syncs.iter().position(|sync| !sync.over) {
            self.toggle(index);
        }
    }

    /// Stops a sync and takes its people out.
    pub fn stop_taking_out(&mut self, index: usize) {
        self.turn(index, "stop");
        self.syncs[index].over = true;
    }

    /// Resumes what is paused.
    pub fn resume_all(&mut self) {
        for index in 0..self.syncs.len() {
            if self.syncs[index].paused && !self.syncs[index].over {
                self.toggle(index);
            }
        }
    }

    /// Stops a sync and leaves its people. Settles before, so that the model knows who they are.
    pub fn stop_keeping(&mut self, index: usize) -> Result<(), String> {
        let faults = std::mem::replace(&mut self.driver.sim.lock().faults, Faults::NONE);
        if self.syncs[index].paused {
            self.toggle(index);
        }
        self.settle()?;
        let path = format!("/syncs/{}/stop", self.syncs[index].id);
        self.request("POST", &path, &json!({"people": "keep"}));
        self.settle()?;
        self.syncs[index].over = true;
        let sync = self.syncs[index].clone();
        // A paused sync takes nobody over.
        let active = self.syncs.iter().filter(|other| other.list == sync.list && !other.over && !other.paused);
        let others: BTreeSet<u64> = active.flat_map(|other| self.wanted_by(other.sid)).collect();
        let mut kept = self.wanted_by(sync.sid);
        kept.retain(|lead| !others.contains(lead));
        self.kept.entry(sync.list).or_default().extend(kept);
        self.driver.sim.lock().faults = faults;
        Ok(())
    }

    fn stop_one(&mut self) -> Result<(), String> {
        let Some(index) = self.syncs.iter().position(|sync| !sync.over) else { return Ok(()) };
        if self.rng.random_bool(0.5) {
            self.stop_taking_out(index);
            return Ok(());
        }
        self.stop_keeping(index)
    }

    // ---- The reference model: from the raw inputs to the lists, nothing shared with the functions. ----

    fn audience(&self, sid: u64) -> BTreeSet<u64> {
        (1..=ECIDS).filter(|e| self.is_member(sid, *e)).collect()
    }

    /// The latest word counts: of a snapshot, of another file, or of the streams; at one time the streams', and an exit.
    fn is_member(&self, sid: u64, e: u64) -> bool {
        let mut words: Vec<(u64, u8, bool)> = Vec::new();
        for (time, file) in &self.files {
            let inside = file.inside.get(&sid);
            if inside.is_some_and(|ecids| file.snapshot || ecids.contains(&e)) {
                words.push((*time, 1, !inside.is_some_and(|ecids| ecids.contains(&e))));
            }
            if file.outside.get(&sid).is_some_and(|ecids| ecids.contains(&e)) {
                words.push((*time, 1, true));
            }
        }
        // Among the streams' words the latest change counts; it stands for the time up to which it is vouched for, which is
        // kept to ten minutes.
        let mine = self.streams.iter().filter(|said| said.sid == sid && said.ecid == e);
        let last =
            mine.map(|said| (said.changed, !said.inside, said.changed.max(said.as_of / 600_000 * 600_000))).max();
        words.extend(last.map(|(_, out, as_of)| (as_of, 2, out)));
        words.into_iter().max().is_some_and(|(_, _, out)| !out)
    }

    fn wanted_by(&self, sid: u64) -> BTreeSet<u64> {
        let members = self.audience(sid);
        let pairs: Vec<(u64, u64)> = self.matches.keys().copied().filter(|(e, t)| self.is_match(*e, *t)).collect();
        let store = self.driver.sim.lock();
        let mut wanted = BTreeSet::new();
        for (id, lead) in store.marketo.leads() {
            let mine = pairs.iter().filter(|(_, t)| store.marketo.owner_of(&token(*t)) == Some(*id));
            let by_token = mine.map(|(e, _)| *e).any(|e| members.contains(&e));
            let told = |e: &u64| !self.erased_people.contains(id) && !self.erased_ecids.contains_key(e);
            let mut direct = lead.ecids.iter().filter_map(|text| text.parse().ok()).filter(told);
            let direct = direct.any(|e: u64| members.contains(&e));
            if lead.email.is_some() && (by_token || direct) {
                wanted.insert(*id);
            }
        }
        wanted
    }

    fn wanted(&self, list: u64) -> BTreeSet<u64> {
        let active = self.syncs.iter().filter(|sync| sync.list == list && !sync.over);
        active.flat_map(|sync| self.wanted_by(sync.sid)).collect()
    }

    /// Compares what Marketo holds with the model.
    pub fn check(&mut self) -> Result<(), String> {
        let lists: BTreeSet<u64> = self.driver.sim.lock().marketo.lists().keys().copied().collect();
        for list in lists {
            let wanted = self.wanted(list);
            // Whoever an active sync wants again is that sync's from then on.
            let live: BTreeSet<u64> = self.driver.sim.lock().marketo.leads().keys().copied().collect();
            let mut must: BTreeSet<u64> = wanted.clone();
            must.extend(self.theirs.get(&list).into_iter().flatten().filter(|lead| !self.either.contains(lead)));
            must.retain(|lead| live.contains(lead));
            let mut may = must.clone();
            may.extend(&self.either);
            may.extend(self.kept.get(&list).into_iter().flatten());
            let members = self.driver.sim.lock().marketo.members(list).cloned().unwrap_or_default();
            let missing: Vec<u64> = must.difference(&members).copied().collect();
            let surplus: Vec<u64> = members.difference(&may).copied().collect();
            if !missing.is_empty() || !surplus.is_empty() {
                return Err(format!(
                    "list {list}: missing {missing:?}, surplus {surplus:?}; wanted {wanted:?}, members {members:?}, \
                     theirs {:?}, syncs {:?}",
                    self.theirs.get(&list),
                    self.syncs
                ));
            }
        }
        self.check_reports()
    }

    fn check_reports(&mut self) -> Result<(), String> {
        let ids: Vec<String> = self.syncs.iter().filter(|sync| !sync.over).map(|sync| sync.id.clone()).collect();
        for id in ids {
            let (status, report) = self.request("GET", &format!("/syncs/{id}/report"), &Value::Null);
            if status != 200 || report["delivered"] == false {
                continue;
            }
            let number = |name: &str| report[name].as_u64().unwrap_or(u64::MAX / 8);
            let ecids = number("no_match") + number("set_aside") + number("anonymous") + number("known");
            let failed: u64 = report["failed"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
            let inside =
                report["in_list"]["ours"].as_u64().unwrap_or(0) + report["in_list"]["before_us"].as_u64().unwrap_or(0);
            let members: u64 =
                report["members"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
            let sums = ecids == number("audience")
                && inside + failed + number("waiting") == number("people")
                && members == number("members_in_marketo");
            if !sums {
                return Err(format!("a report does not add up: {report}"));
            }
        }
        Ok(())
    }
}

/// What a file holds, by segment.
pub struct FileOf {
    /// A full file of a feed that delivers snapshots.
    pub snapshot: bool,
    /// ECIDs in the segment.
    pub inside: BTreeMap<u64, BTreeSet<u64>>,
    /// ECIDs that left it.
    pub outside: BTreeMap<u64, BTreeSet<u64>>,
}

/// Faults as the random runs have them.
#[must_use]
pub fn usual_faults(seed: u64) -> Faults {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xfa17);
    let mut some = |p: f64| if rng.random_bool(0.6) { p } else { 0.0 };
    Faults {
        unavailable: some(0.01),
        unknown: some(0.01),
        marketo_silence: some(0.15),
        kill: some(0.01),
        redeliver: some(0.2),
        delay: some(0.3),
    }
}

/// One run of a seed: plays, settles, and compares.
pub fn run(seed: u64) -> Result<(), String> {
    let mut scenario = Scenario::new(seed);
    let outcome = scenario.play(usual_faults(seed)).and_then(|()| scenario.check());
    outcome.map_err(|fault| format!("{fault}\n{}", scenario.story()))
}
