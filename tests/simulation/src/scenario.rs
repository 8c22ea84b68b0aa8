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

use crate::arrivals::Arrivals;
use crate::driver::{Driver, settings};
use crate::fakes::{Faults, Sim};
use crate::kinds::{Counts as Struck, Kind, Kinds};
use crate::lateness::Lateness;
use crate::logs;
use crate::play::Watch;
use crate::refusals::Refusals;

/// The subscription.
pub const MUNCHKIN: &str = "123-ABC-456";
/// Its IMS organisation.
pub const ORG: &str = "0123456789ABCDEF01234567@AdobeOrg";
/// When the world begins, in ms: 2026-01-01, noon.
pub const BEGIN: u64 = 1_767_268_800_000;
/// The list that exists from the beginning.
pub const LIST: u64 = 1001;
pub(crate) const SIDS: [u64; 3] = [101, 102, 103];
pub(crate) const ECIDS: u64 = 8;
pub(crate) const TOKENS: u64 = 6;
pub(crate) const LEADS: u64 = 6;

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
pub(crate) const EXPIRING: u64 = BEGIN + 1_800_000 - 396 * 86_400_000;

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
    pub(crate) rng: SmallRng,
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
    pub(crate) files: BTreeMap<u64, File>,
    /// What streams said.
    streams: Vec<Streamed>,
    pub(crate) syncs: Vec<SyncModel>,
    /// Members before us, by list.
    pub(crate) theirs: BTreeMap<u64, BTreeSet<u64>>,
    /// People who stay by the choice of a stopped sync, by list.
    pub(crate) kept: BTreeMap<u64, BTreeSet<u64>>,
    /// Merged from one who was there before us and one who was not, while nobody had asked: nobody can know.
    pub(crate) either: BTreeSet<u64>,
    /// Cookies that have moved from one lead to another.
    pub(crate) moved: BTreeSet<String>,
    pub(crate) next_lead: u64,
    requests: u64,
    /// What happened, for the one who reads a failure.
    story: Vec<String>,
    /// What may happen.
    pub(crate) kinds: Kinds,
    /// What must hold all along.
    pub(crate) watch: Watch,
    /// Files that arrive later.
    pub(crate) arrivals: Arrivals,
    /// What Marketo refuses.
    pub(crate) refusals: Refusals,
    /// How late the last facts were.
    pub(crate) lateness: Lateness,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    pub(crate) snapshot: bool,
    pub(crate) inside: BTreeMap<u64, BTreeSet<u64>>,
    pub(crate) outside: BTreeMap<u64, BTreeSet<u64>>,
}

impl From<FileOf> for File {
    fn from(FileOf { snapshot, inside, outside }: FileOf) -> Self {
        Self { snapshot, inside, outside }
    }
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
pub(crate) struct SyncModel {
    pub(crate) id: String,
    pub(crate) sid: u64,
    pub(crate) list: u64,
    pub(crate) paused: bool,
    pub(crate) over: bool,
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
        // What Marketo is asked is looked at in the end.
        Self::beside(marketo::Settings::default(), seed, rng, data)
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
        let mut scenario = Self::over(sim, rng, 0);
        scenario.theirs = theirs;
        scenario.next_lead = next_lead;
        scenario.request(
            "PUT",
            "/subscription",
            &json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "extract_since": "2025-12-20T00:00:00Z"}),
        );
        scenario.request("PUT", "/feeds/default", &json!({"snapshots": true, "completeness": "single-file"}));
        scenario
    }

    /// A world as it is found, of which the model knows nothing. So many requests have been sent.
    #[must_use]
    pub fn over(sim: Sim, rng: SmallRng, requests: u64) -> Self {
        Self {
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
            theirs: BTreeMap::new(),
            kept: BTreeMap::new(),
            either: BTreeSet::new(),
            moved: BTreeSet::new(),
            next_lead: 0,
            requests,
            story: Vec::new(),
            kinds: Kinds::NONE,
            watch: Watch::default(),
            arrivals: Arrivals::default(),
            refusals: Refusals::default(),
            lateness: Lateness::default(),
        }
    }

    /// How many requests to the control plane were sent so far.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Sends a request to the control plane until it is answered, as a careful client does; the same idempotency key
    /// each time. Returns the last answer.
    pub fn request(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.requests += 1;
        if method != "GET" {
            self.tell(format!("{method} {path} {body}"));
        }
        let answer = std::rc::Rc::new(std::cell::RefCell::new(None));
        let mut last = Value::Null;
        for attempt in 0..100 {
            if attempt == 5 {
                self.allow();
            }
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
            let deps = self.driver.deps_of("create-sync");
            let answered = answer.clone();
            self.driver.start(&name, async move {
                // It is large, and would be moved from hand to hand.
                let response = Box::pin(handle(&deps, request, deps.now() + 30_000)).await;
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
                Some((_, body)) => last = body,
                None => {}
            }
            // Where the day's calls are used up it takes until midnight.
            self.driver.run_for(if attempt < 20 { 2_000 } else { 90_000 });
        }
        (0, last)
    }

    /// Creates a sync and waits until its list is there. Returns its id, or the refusal.
    pub fn create(&mut self, sid: u64, list: &Value) -> Result<String, (u16, Value)> {
        let body = json!({"audience_id": format!("aam:{sid}"), "list": list});
        let (status, answer) = self.request("POST", "/syncs", &body);
        let Some(id) = answer["id"].as_str().filter(|_| status < 300).map(str::to_owned) else {
            return Err((status, answer));
        };
        for round in 0..200 {
            if round == 50 {
                self.allow();
            }
            let (_, view) = self.request("GET", &format!("/syncs/{id}"), &Value::Null);
            if let Some(list) = view["list"]["id"].as_u64().filter(|_| view["status"] == "active") {
                self.syncs.push(SyncModel { id: id.clone(), sid, list, paused: false, over: false });
                return Ok(id);
            }
            if view["why_code"] == "list_gone" {
                // Its list was not found just when it began.
                self.request("POST", &format!("/syncs/{id}/resume"), &json!({}));
            }
            self.driver.run_for(10_000);
        }
        Err((0, json!("a sync that is being made for ever")))
    }

    /// Posts matches to cookie-ingest, as the collector of a site does. Returns status and body.
    pub fn post_matches(&mut self, body: &[u8]) -> (u16, Value) {
        let request =
            HttpEvent { method: "POST".into(), path: "/matches".into(), body: body.to_vec(), ..HttpEvent::default() };
        let ingest = Ingest::new(self.driver.deps_of("cookie-ingest"));
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
        let found = json!({
            "v": 1, "munchkin_id": MUNCHKIN, "ecid": ecid(e), "token": token(t), "seen_at": at,
            "public": false, "views": {"all": 1, "both": 0},
        });
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
        self.in_peace(Self::settle)?;
        let faults = self.driver.sim.lock().faults;
        // What was seen just before counts as seen before, whoever's clock says so.
        self.driver.run_for(5_000);
        let (body, people) = self.note_erase(subject);
        let (status, job) = self.request("POST", "/people/erase", &body);
        if status != 202 {
            return Err(format!("an erasure was not taken: {status} {job}"));
        }
        let path = format!("/people/erase/{}", job["id"].as_str().unwrap_or_default());
        for round in 0..250 {
            if round == 15 {
                // Where everything fails again and again, five minutes of it are enough.
                self.driver.sim.lock().faults = Faults::NONE;
            }
            self.driver.run_for(20_000);
            // All of them: where the first answer was lost there are two jobs.
            let done = self.request("GET", &path, &Value::Null).1["status"] == "done";
            if done && self.request("GET", "/status", &Value::Null).1["erasures_open"] == 0 {
                self.driver.sim.lock().faults = faults;
                // Nobody keeps them any more, unless some audience wants them by another browser.
                let followed: BTreeSet<u64> =
                    self.syncs.iter().filter(|sync| !sync.over).map(|sync| sync.sid).collect();
                let wanted: BTreeSet<u64> = followed.into_iter().flat_map(|sid| self.wanted_by(sid)).collect();
                // Forgotten, and so not known to have been taken out by hand.
                for out in self.watch.out.values_mut() {
                    self.either.extend(out.iter().filter(|lead| people.contains(lead)));
                    out.retain(|lead| !people.contains(lead));
                }
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
    pub(crate) fn anybody(&mut self) -> u64 {
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
        self.note_exits(&file);
        let key = self.deliver_whole(time, &file);
        self.files.insert(time, File::from(file));
        if self.kinds != Kinds::NONE {
            return;
        }
        let twice = self.rng.random_bool(0.2);
        for copy in 0..=u8::from(twice) {
            let deps = self.driver.deps_of("scheduled-incremental-sync");
            let arrival = Arrival { key: key.clone(), etag: self.driver.sim.tag(&key) };
            self.driver.start(&format!("{key} {copy}"), async move {
                arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await
            });
        }
    }

    /// A stream says something; the message waits in its queue.
    pub fn hear(&mut self, said: Streamed) {
        let received_at = self.driver.sim.lock().now;
        self.tell(format!("stream {said:?}"));
        self.streams.push(said);
        if !said.inside {
            self.watch.exits.insert((said.sid, said.ecid));
        }
        let Streamed { sid, ecid: e, changed, as_of, inside } = said;
        let entry = json!({
            "audience": format!("aam:{sid}"), "ecid": ecid(e), "changed": changed, "as_of": as_of, "inside": inside,
        });
        let body = json!({
            "v": 1, "munchkin_id": MUNCHKIN, "feed": "live", "received_at": received_at, "entries": [entry],
            "ignored": 0, "rejected": 0, "rejects": [],
        });
        let message = Outgoing { body: body.to_string(), group: None, dedup: None };
        self.driver.sim.lock().enqueue(Queue::Events, message);
    }

    /// Marketo merges two people.
    pub fn merge(&mut self, winner: u64, loser: u64) {
        let (merged, before) = {
            let mut store = self.driver.sim.lock();
            let (now, before) = (store.now, store.marketo.lists_dump());
            let there = store.marketo.lead(loser).is_some() && winner != loser;
            (there && store.marketo.merge(now, winner, &[loser]), before)
        };
        if merged {
            self.note_merge(winner, loser, &before);
        }
    }

    /// Whose a cookie is in Marketo.
    pub(crate) fn owner_of(&self, t: u64) -> Option<u64> {
        self.driver.sim.lock().marketo.owner_of(&token(t))
    }

    pub(crate) fn delete(&mut self, lead: u64) {
        self.tell(format!("delete {lead}"));
        let mut store = self.driver.sim.lock();
        let now = store.now;
        store.marketo.delete(now, lead);
    }

    pub(crate) fn now(&self) -> u64 {
        self.driver.sim.lock().now
    }

    pub(crate) fn tell(&mut self, what: String) {
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

    pub(crate) fn any(&mut self, upto: u64) -> u64 {
        self.rng.random_range(1..=upto)
    }

    pub(crate) fn some_ecids(&mut self, chance: f64) -> BTreeSet<u64> {
        (1..=ECIDS).filter(|_| self.rng.random_bool(chance)).collect()
    }

    /// Waits for rest, with every file taken in.
    pub fn settle(&mut self) -> Result<(), String> {
        let patience = self.patience();
        if self.driver.sweep_is_off {
            // No notice is lost in such a world.
            self.driver.settle(patience)?;
        } else {
            self.retry_files();
            self.driver.settle(patience)?;
        }
        // Whoever had Marketo's answer already, and was slow, may have paused a sync since.
        if self.resume_where_no_list_was_found() {
            self.driver.settle(patience)?;
        }
        self.audit()?;
        self.note_rest();
        Ok(())
    }

    /// What a lost notification leaves behind is found by the backstop; here at once.
    fn retry_files(&mut self) {
        let keys: Vec<String> =
            self.driver.sim.lock().objects.keys().filter(|key| key.starts_with("incoming/")).cloned().collect();
        for key in keys {
            let deps = self.driver.deps_of("scheduled-incremental-sync");
            let arrival = Arrival { key: key.clone(), etag: self.driver.sim.tag(&key) };
            self.driver.start(&key, async move { arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await });
        }
    }

    /// Follows a merge in the model. Where one of the two was there before us, or the loser alone was there by our doing
    /// and the winner may be asked about before the merge is told, nobody can know: such a winner may stay. `before`: who
    /// was in the lists before it.
    pub(crate) fn note_merge(&mut self, winner: u64, loser: u64, before: &[List]) {
        self.tell(format!("merge {loser} into {winner}"));
        self.merged.insert(loser, winner);
        let heir = before.iter().any(|list| list.members.contains(&loser) && !list.members.contains(&winner));
        let mut unknown = self.either.remove(&loser) || heir;
        for members in self.theirs.values_mut() {
            let (before, after) = (members.remove(&loser), members.contains(&winner));
            unknown |= before != after;
            if before {
                members.insert(winner);
            }
        }
        for out in self.watch.out.values_mut() {
            unknown |= out.remove(&loser) | out.remove(&winner);
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

    pub(crate) fn pause_or_resume(&mut self) {
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
        self.in_peace(|scenario| scenario.stop_and_keep(index))
    }

    fn stop_and_keep(&mut self, index: usize) -> Result<(), String> {
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
        Ok(())
    }

    pub(crate) fn stop_one(&mut self) -> Result<(), String> {
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

    /// Why anybody is wanted in an audience: the person, the ECID, and the token between them unless Marketo told it.
    pub(crate) fn ties(&self, sid: u64) -> BTreeSet<(u64, u64, Option<u64>)> {
        let members = self.audience(sid);
        let pairs = self.matches.keys().copied().filter(|(e, t)| members.contains(e) && self.is_match(*e, *t));
        let pairs: Vec<(u64, u64)> = pairs.collect();
        let store = self.driver.sim.lock();
        let mut ties = BTreeSet::new();
        for (e, t) in pairs {
            ties.extend(store.marketo.owner_of(&token(t)).map(|lead| (lead, e, Some(t))));
        }
        for (id, lead) in store.marketo.leads() {
            let told = |e: &u64| !self.erased_people.contains(id) && !self.erased_ecids.contains_key(e);
            let direct = lead.ecids.iter().filter_map(|text| text.parse().ok()).filter(told);
            ties.extend(direct.filter(|e| members.contains(e)).map(|e| (*id, e, None)));
        }
        ties.retain(|(lead, ..)| store.marketo.lead(*lead).is_some_and(|lead| lead.email.is_some()));
        ties
    }

    fn wanted_by(&self, sid: u64) -> BTreeSet<u64> {
        self.ties(sid).into_iter().map(|(lead, ..)| lead).collect()
    }

    pub(crate) fn wanted(&self, list: u64) -> BTreeSet<u64> {
        let active = self.syncs.iter().filter(|sync| sync.list == list && !sync.over);
        active.flat_map(|sync| self.wanted_by(sync.sid)).collect()
    }

    /// Who is wanted in which list.
    pub(crate) fn wanted_anywhere(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let lists: BTreeSet<u64> = self.syncs.iter().map(|sync| sync.list).collect();
        lists.into_iter().map(|list| (list, self.wanted(list))).collect()
    }

    /// Compares what Marketo holds with the model, and adds up the reports.
    pub fn check(&mut self) -> Result<(), String> {
        self.check_lists()?;
        self.check_reports()
    }

    /// Compares what Marketo holds with the model.
    pub(crate) fn check_lists(&self) -> Result<(), String> {
        let lists: BTreeSet<u64> = self.driver.sim.lock().marketo.lists().keys().copied().collect();
        for list in lists {
            let wanted = self.wanted(list);
            // Whoever an active sync wants again is that sync's from then on.
            let live: BTreeSet<u64> = self.driver.sim.lock().marketo.leads().keys().copied().collect();
            let mut must: BTreeSet<u64> = wanted.clone();
            must.extend(self.theirs.get(&list).into_iter().flatten().filter(|lead| !self.either.contains(lead)));
            must.retain(|lead| live.contains(lead) && !self.either.contains(lead));
            let out = self.watch.out.get(&list).cloned().unwrap_or_default();
            must.retain(|lead| !out.contains(lead));
            let mut may = must.clone();
            may.extend(&self.either);
            may.extend(wanted.iter().filter(|lead| !out.contains(lead)));
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
        Ok(())
    }

    /// Marketo has not refused a call for being one too many, unless other tools or a fault made it so.
    fn check_calls(&self) -> Result<(), String> {
        if self.kinds.has(Kind::OtherTools) {
            return Ok(());
        }
        let store = self.driver.sim.lock();
        let refused = |call: &&marketo::Call| matches!(call.code, 606 | 607 | 615) && !call.fault;
        let refused = store.marketo.calls().iter().find(refused);
        refused.map_or(Ok(()), |call| Err(format!("a call too many: {call:?}")))
    }

    /// What was seen is seen once more: nothing is written.
    fn repeat(&mut self) -> Result<(), String> {
        let recent = |(pair, at): (&(u64, u64), &u64)| (*at >= BEGIN).then_some((*pair, *at));
        let Some(((e, t), at)) = self.matches.iter().find_map(recent) else { return Ok(()) };
        let seen = json!([{
            "munchkin_id": MUNCHKIN, "org_id": ORG, "ecid": ecid(e), "token": token(t), "seen_at": state::time(at),
        }]);
        let seen = seen.to_string();
        let ticking = std::mem::replace(&mut self.driver.ticking, false);
        let mut writes = Vec::new();
        // One of them may note when a server's last one came, which is noted now and then: whichever comes when that is due.
        while writes.len() < 2 || (writes.len() == 2 && writes[0] == 0 && writes[1] == 1) {
            let before = self.driver.sim.lock().writes;
            let (status, answer) = self.post_matches(seen.as_bytes());
            if status != 200 {
                return Err(format!("a match was not taken: {status} {answer}"));
            }
            self.driver.run_until_stored();
            writes.push(self.driver.sim.lock().writes - before);
        }
        self.driver.ticking = ticking;
        if writes.last() == Some(&0) {
            Ok(())
        } else {
            Err(format!("a repeated match of {e} and {t} made {writes:?} writes"))
        }
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
                && inside + failed + number("waiting") + number("kept_out") + number("dropped") == number("people")
                && members == number("members_in_marketo");
            if !sums {
                return Err(format!("a report does not add up: {report}"));
            }
        }
        Ok(())
    }
}

/// What a file holds, by segment.
#[derive(Debug)]
pub struct FileOf {
    /// A full file of a feed that delivers snapshots.
    pub snapshot: bool,
    /// ECIDs in the segment.
    pub inside: BTreeMap<u64, BTreeSet<u64>>,
    /// ECIDs that left it.
    pub outside: BTreeMap<u64, BTreeSet<u64>>,
}

/// What becomes of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The seed: the world, and every chance in it.
    pub seed: u64,
    /// How many things happen.
    pub steps: usize,
    /// What may go wrong or happen.
    pub kinds: Kinds,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0xfa17);
        let steps = rng.random_range(4..14);
        // Some worlds have little trouble and some have all of it.
        let chance: f64 = [0.25, 0.6, 0.6, 0.9][rng.random_range(0..4)];
        let kinds = Kind::ALL.iter().filter(|kind| {
            // What happens is not what goes wrong: without it there is nothing to see.
            rng.random_bool(if kind.happens() { chance.max(0.8) } else { chance })
        });
        let mut plan = Self { seed, steps, kinds: kinds.fold(Kinds::NONE, |kinds, kind| kinds.with(*kind)) };
        if plan.sweep_is_off() {
            for kind in [Kind::Unavailable, Kind::Unknown, Kind::Kill, Kind::Freeze, Kind::DeadLetter, Kind::Notice] {
                plan.kinds = plan.kinds.without(kind);
            }
        }
        plan
    }

    /// Whether nobody looks for rings that were lost: in a third of the worlds. In these nothing happens that only they mend:
    /// nobody dies, and every call to a port is answered.
    #[must_use]
    pub const fn sweep_is_off(&self) -> bool {
        self.seed.is_multiple_of(3)
    }

    /// The faults of the ports and of the queues.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let some = |kind, chance| if self.kinds.has(kind) { chance } else { 0.0 };
        Faults {
            unavailable: some(Kind::Unavailable, 0.01),
            unknown: some(Kind::Unknown, 0.01),
            marketo_silence: some(Kind::Silence, 0.15),
            kill: some(Kind::Kill, 0.01),
            redeliver: some(Kind::Redeliver, 0.2),
            delay: some(Kind::Delay, 0.3),
            freeze: some(Kind::Freeze, 0.002),
            dead_letter: some(Kind::DeadLetter, 0.01),
            other_version: some(Kind::OtherVersion, 0.2),
            older_version: some(Kind::OlderVersion, 0.3),
            truncated: some(Kind::Truncated, 0.03),
            warm: some(Kind::Warm, 0.8),
            skew: some(Kind::Skew, 0.5),
            stale: some(Kind::Stale, 0.3),
            late_tick: some(Kind::LateTick, 0.8),
        }
    }
}

/// Faults as the random runs have them.
#[must_use]
pub fn usual_faults(seed: u64) -> Faults {
    Plan::of(seed).faults()
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// Whether everything was as it must be, and else what was wrong.
    pub outcome: Result<(), String>,
    /// What happened, and what the functions know; empty if all went well.
    pub story: String,
    /// What struck.
    pub counts: Struck,
    /// A digest of every call to a port and every message.
    pub trace: u64,
    /// How late the last facts were.
    pub lateness: Lateness,
    /// Calls to ports.
    pub calls: u64,
    /// Invocations.
    pub invocations: u64,
    /// Time that went by in the world, in ms.
    pub virtual_ms: u64,
}

impl Run {
    /// A run that ended so before anything was counted.
    #[must_use]
    pub fn ended(outcome: Result<(), String>) -> Self {
        let counts = Struck::default();
        let lateness = Lateness::default();
        Self { outcome, story: String::new(), counts, trace: 0, lateness, calls: 0, invocations: 0, virtual_ms: 0 }
    }
}

/// One run of a plan: plays, settles, and compares.
#[must_use]
pub fn run_plan(plan: Plan) -> Run {
    logs::listen();
    // What another seed left is not this one's.
    drop(logs::heard());
    let mut scenario = Scenario::new(plan.seed);
    let outcome = scenario.play(plan).and_then(|()| scenario.check()).and_then(|()| scenario.say_that_lists_are_gone());
    let outcome = outcome.and_then(|()| scenario.last_facts());
    let outcome = outcome.and_then(|()| scenario.end_of_waiting());
    let outcome = outcome.and_then(|()| scenario.check_calls());
    let outcome = outcome.and_then(|()| scenario.repeat()).and_then(|()| logs::heard().map_or(Ok(()), Err));
    let story = if outcome.is_err() { scenario.story() } else { String::new() };
    let (invocations, lateness) = (scenario.driver.invocations, scenario.lateness.clone());
    let store = scenario.driver.sim.lock();
    let mut counts = store.counts.clone();
    for call in store.marketo.calls() {
        match call.code {
            603 => counts.count(Kind::Denied),
            1006 => counts.count(Kind::NoField),
            1012 => counts.count(Kind::BadCookie),
            1013 if call.fault => counts.count(Kind::NoList),
            _ if call.fault => counts.count(Kind::Answer),
            _ => {}
        }
    }
    let virtual_ms = store.now - BEGIN;
    Run { outcome, story, counts, trace: store.trace.0, lateness, calls: store.calls, invocations, virtual_ms }
}

/// One run of a seed; what was wrong.
pub fn run(seed: u64) -> Result<(), String> {
    run_plan(Plan::of(seed)).outcome
}
