//! A world for the tests: tables, objects and queues in memory, and the doubles of Marketo and Adobe behind HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use create_sync::{Caller, Request, Response, handle};
use domain::report::{AudienceCounts, MemberCounts, PeopleCounts};
use domain::{AudienceId, LeadSet, MunchkinId, Said};
use doubles::adobe::{self, Adobe, Lifecycle};
use doubles::marketo::{self, Marketo};
use futures::executor::block_on;
use ports::{
    Clock, Credentials, Expect, Http, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError, PortResult, Ports,
    Queue, Queues, Random, Read, Secrets, Table, Tables, Vendor,
};
use serde_json::{Value, json};
use state::audience::{BaseRef, Head, head_key};
use state::bell::{self, BellKey, Next, Ring};
use state::lists::{
    AudienceReport, Held, OpenList, RefusedPerson, Report, Want, head_key as list_head_key, report_key, want_key,
    write_leads,
};
use state::notes::{self, Note};
use state::syncs::{Sync, sync_key};
use state::{Deps, Settings, load, save};
use world::types::{Audience, Folder, Lead, Library, List, MarketoData, PlatformFolder, Segment};

pub const MUNCHKIN: &str = "123-ABC-456";
pub const ORG: &str = "0123456789ABCDEF01234567@AdobeOrg";
/// 2026-11-20T00:00:00Z.
pub const START: u64 = 1_795_132_800_000;

/// An audience of Experience Platform, a draft, and a folder.
pub const PLATFORM: &str = "11111111-2222-3333-4444-555555555555";
pub const DRAFT: &str = "22222222-2222-3333-4444-555555555555";
pub const PLATFORM_FOLDER: &str = "33333333-2222-3333-4444-555555555555";

/// Everything outside the functions.
pub struct Outside {
    items: Mutex<BTreeMap<(Table, Key), Item>>,
    objects: Mutex<BTreeMap<String, Bytes>>,
    parts: Mutex<BTreeMap<String, BTreeMap<u16, Bytes>>>,
    pub sent: Mutex<Vec<(Queue, Outgoing)>>,
    pub marketo: Mutex<Marketo>,
    adobe: Mutex<Adobe>,
    /// Audience Manager does not answer.
    pub no_manager: AtomicBool,
    /// The bucket may not be listed.
    pub no_listing: AtomicBool,
    /// Its objects may not be read in part.
    pub no_reading: AtomicBool,
    pub now: AtomicU64,
    random: AtomicU64,
    /// The process dies as soon as Marketo has made a list.
    pub die_after_list: AtomicBool,
    dead: AtomicBool,
    /// Calls of ports until the process dies.
    lives: AtomicU64,
    /// Somebody else makes a list of this name just before ours is made.
    pub rival: Mutex<Option<String>>,
    /// Items of a page at most.
    pub page: AtomicUsize,
    /// Requests that read, as the services count them: of tables, and of the bucket.
    pub table_reads: AtomicU64,
    pub object_reads: AtomicU64,
    /// A row of the lists that somebody writes just when a sync's people are copied.
    pub meanwhile: Mutex<Option<Item>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

impl Outside {
    fn alive(&self) -> PortResult<()> {
        let lives = self.lives.load(Ordering::Relaxed);
        self.lives.store(lives.saturating_sub(1), Ordering::Relaxed);
        if lives == 0 || self.dead.load(Ordering::Relaxed) {
            return Err(PortError::Unavailable { service: "test", reason: "the process died".into() });
        }
        Ok(())
    }

    /// Lets the process die after so many calls of ports.
    pub fn dies_after(&self, calls: u64) {
        self.lives.store(calls, Ordering::Relaxed);
    }

    /// Whether it would have gone on.
    pub fn is_alive(&self) -> bool {
        self.lives.load(Ordering::Relaxed) > 0
    }

    pub fn revive(&self) {
        self.lives.store(u64::MAX, Ordering::Relaxed);
        self.dead.store(false, Ordering::Relaxed);
        self.die_after_list.store(false, Ordering::Relaxed);
    }

    fn holds(&self, table: Table, key: &Key, expect: Expect) -> bool {
        let items = lock(&self.items);
        let found = items.get(&(table, key.clone())).map(|item| item.rev);
        match expect {
            Expect::Anything => true,
            Expect::Absent => found.is_none(),
            Expect::Rev(rev) => found == Some(rev),
        }
    }
}

#[async_trait]
impl Tables for Outside {
    async fn get(&self, table: Table, key: &Key, _: Read) -> PortResult<Option<Item>> {
        self.alive()?;
        self.table_reads.fetch_add(1, Ordering::Relaxed);
        Ok(lock(&self.items).get(&(table, key.clone())).cloned())
    }
    async fn batch_get(&self, table: Table, keys: &[Key], _: Read) -> PortResult<Vec<Item>> {
        self.alive()?;
        // DynamoDB: at most 100 keys a request.
        self.table_reads.fetch_add(keys.len().div_ceil(100) as u64, Ordering::Relaxed);
        let items = lock(&self.items);
        Ok(keys
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|key| items.get(&(table, key.clone())).cloned())
            .collect())
    }
    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        self.alive()?;
        let holds = self.holds(table, &item.key, expect);
        if holds {
            lock(&self.items).insert((table, item.key.clone()), item);
        }
        Ok(holds)
    }
    async fn put_all(&self, table: Table, all: Vec<Item>) -> PortResult<()> {
        self.alive()?;
        lock(&self.items).extend(all.into_iter().map(|item| ((table, item.key.clone()), item)));
        Ok(())
    }
    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        self.alive()?;
        let holds = self.holds(table, key, expect);
        if holds {
            lock(&self.items).remove(&(table, key.clone()));
        }
        Ok(holds)
    }
    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        _: Read,
    ) -> PortResult<Page> {
        self.alive()?;
        self.table_reads.fetch_add(1, Ordering::Relaxed);
        let items = lock(&self.items);
        let of = items.range((table, Key::new(pk, ""))..).take_while(|((of, key), _)| *of == table && key.pk == pk);
        let found =
            of.filter(|((_, key), _)| key.sk.starts_with(prefix) && after.is_none_or(|after| key.sk.as_str() > after));
        let size = limit.min(self.page.load(Ordering::Relaxed));
        let mut items: Vec<Item> = found.map(|(_, item)| item.clone()).take(size + 1).collect();
        let next = (items.len() > size).then(|| items[size - 1].key.sk.clone());
        items.truncate(size);
        Ok(Page { items, next })
    }
    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.alive()?;
        let items = lock(&self.items);
        let due = |item: &&Item| item.due.as_ref().is_some_and(|due| due.pk == due_pk && due.at <= until);
        Ok(items
            .iter()
            .filter(|((of, _), _)| *of == table)
            .map(|(_, item)| item)
            .filter(due)
            .take(limit)
            .cloned()
            .collect())
    }
}

#[async_trait]
impl Objects for Outside {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.object_reads.fetch_add(1, Ordering::Relaxed);
        Ok(lock(&self.objects).get(key).cloned())
    }
    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        if self.no_reading.load(Ordering::Relaxed) {
            return Err(PortError::Refused { service: "S3", reason: "GetObject: AccessDenied".into() });
        }
        self.object_reads.fetch_add(1, Ordering::Relaxed);
        let cut = |bytes: &Bytes| {
            let end = bytes.len().min((from + len) as usize);
            bytes.slice((from as usize).min(end)..end)
        };
        Ok(lock(&self.objects).get(key).map(cut))
    }
    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        if key.starts_with("sets/frozen/")
            && let Some(item) = lock(&self.meanwhile).take()
        {
            lock(&self.items).insert((Table::Lists, item.key.clone()), item);
        }
        lock(&self.objects).insert(key.to_owned(), body);
        Ok(())
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        if self.no_listing.load(Ordering::Relaxed) {
            return Err(PortError::Refused { service: "S3", reason: "ListObjectsV2: AccessDenied".into() });
        }
        let objects = lock(&self.objects);
        let found =
            objects.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        let info = |(key, body): (&String, &Bytes)| ObjectInfo {
            key: key.clone(),
            size: body.len() as u64,
            etag: String::new(),
        };
        Ok(found.take(1_000).map(info).collect())
    }
    async fn delete(&self, key: &str) -> PortResult<()> {
        lock(&self.objects).remove(key);
        Ok(())
    }
    async fn begin_parts(&self, _: &str) -> PortResult<String> {
        self.alive()?;
        let upload = format!("upload-{:x}", self.next_u64());
        lock(&self.parts).insert(upload.clone(), BTreeMap::new());
        Ok(upload)
    }
    async fn put_part(&self, _: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        self.alive()?;
        let tag = format!("{number}-{}", body.len());
        let mut parts = lock(&self.parts);
        let no_upload = || PortError::Refused { service: "S3", reason: "NoSuchUpload".into() };
        parts.get_mut(upload).ok_or_else(no_upload)?.insert(number, body);
        Ok(tag)
    }
    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        self.alive()?;
        let Some(parts) = lock(&self.parts).remove(upload) else {
            assert!(lock(&self.objects).contains_key(key), "ended, and no object is there");
            return Ok(());
        };
        assert!(parts.values().rev().skip(1).all(|body| body.len() >= 5 << 20), "a part that S3 would refuse");
        let found = parts.iter().map(|(number, body)| format!("{number}-{}", body.len()));
        assert_eq!(found.collect::<Vec<String>>(), tags);
        let whole = parts.into_values().collect::<Vec<Bytes>>().concat();
        lock(&self.objects).insert(key.to_owned(), whole.into());
        Ok(())
    }
    async fn sign(&self, key: &str, seconds: u64, filename: &str) -> PortResult<String> {
        Ok(format!("https://bucket.test/{key}?seconds={seconds}&filename={filename}"))
    }
}

#[async_trait]
impl Queues for Outside {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        self.alive()?;
        lock(&self.sent).extend(messages.into_iter().map(|message| (queue, message)));
        Ok(())
    }
}

#[async_trait]
impl Http for Outside {
    async fn send(&self, request: http::Request<Vec<u8>>, _: u64) -> PortResult<http::Response<Vec<u8>>> {
        self.alive()?;
        let now = self.now_ms();
        if request.uri().host() == Some("adobe.test") {
            if self.no_manager.load(Ordering::Relaxed) && request.uri().path().starts_with("/v1/") {
                return Err(PortError::Unavailable { service: "adobe", reason: "connection refused".into() });
            }
            return Ok(lock(&self.adobe).handle(now, &request));
        }
        let makes = request.method() == http::Method::POST && request.uri().path().ends_with("/staticLists.json");
        if let Some(name) = lock(&self.rival).take_if(|_| makes) {
            lock(&self.marketo).make_list(now, &name, 31, "EMEA");
        }
        let lists = lock(&self.marketo).lists().len();
        let response = lock(&self.marketo).handle(now, &request).response;
        if self.die_after_list.load(Ordering::Relaxed) && lock(&self.marketo).lists().len() > lists {
            self.dead.store(true, Ordering::Relaxed);
        }
        response.ok_or_else(|| PortError::Unknown { service: "marketo", reason: "dropped".into() })
    }
}

#[async_trait]
impl Secrets for Outside {
    async fn read(&self, _: Vendor) -> PortResult<Credentials> {
        Ok(Credentials::new("sample-client", "sample-secret"))
    }
}

#[async_trait]
impl Clock for Outside {
    fn now_ms(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
    async fn sleep_ms(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Random for Outside {
    fn next_u64(&self) -> u64 {
        self.random.fetch_add(1, Ordering::Relaxed)
    }
}

/// A stack with one subscription, three audiences (101 and 103 delivered) and two lists.
pub struct World {
    pub deps: Deps,
    pub outside: Arc<Outside>,
}

pub fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("a Munchkin id")
}

fn marketo_data() -> MarketoData {
    let lead = |id| Lead { id, email: Some(format!("{id}@example.com")), cookies: Vec::new(), ecids: Vec::new() };
    let list = |id, name: &str| List { id, name: name.to_owned(), members: BTreeSet::from([1]) };
    MarketoData {
        munchkin_id: MUNCHKIN.to_owned(),
        org_id: Some(ORG.to_owned()),
        hipaa_ready: false,
        cookie_sync: true,
        leads: (1..=5).map(lead).collect(),
        lists: vec![list(1001, "VIP"), list(1002, "<script>alert(1)</script>")],
    }
}

fn library() -> Library {
    let folder = |folder_id, parent_folder_id, name: &str| Folder { folder_id, parent_folder_id, name: name.into() };
    let segment = |sid, name: &str| Segment { sid, folder_id: 2, name: name.into() };
    let audience = |id: &str, name: &str| Audience { id: id.into(), name: name.into(), external: false };
    Library {
        folders: vec![folder(1, 0, "Retail"), folder(2, 1, "Shop")],
        segments: vec![segment(101, "Carts"), segment(102, "Never delivered"), segment(103, "Buyers")],
        audiences: vec![audience(PLATFORM, "Loyal"), audience(DRAFT, "A draft")],
        platform_folders: vec![PlatformFolder { id: PLATFORM_FOLDER.into(), parent_id: None, name: "Europe".into() }],
    }
}

impl World {
    /// The stack as it is before anybody set up a subscription.
    pub fn bare() -> Self {
        Self::over(marketo::Settings::default(), "")
    }

    /// The same, over a Marketo with these settings, and in a sandbox of Experience Platform if one is named.
    fn over(settings: marketo::Settings, sandbox: &str) -> Self {
        let outside = Arc::new(Outside {
            items: Mutex::default(),
            objects: Mutex::default(),
            parts: Mutex::default(),
            sent: Mutex::default(),
            marketo: Mutex::new(Marketo::new(settings, marketo_data(), START)),
            adobe: Mutex::new(Adobe::new(adobe::Settings::default(), library(), START)),
            no_manager: AtomicBool::new(false),
            no_listing: AtomicBool::new(false),
            no_reading: AtomicBool::new(false),
            now: AtomicU64::new(START),
            random: AtomicU64::new(0xA000_0000_0000_0000),
            die_after_list: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            lives: AtomicU64::new(u64::MAX),
            rival: Mutex::default(),
            // Two, so that paging is always exercised.
            page: AtomicUsize::new(2),
            table_reads: AtomicU64::new(0),
            object_reads: AtomicU64::new(0),
            meanwhile: Mutex::default(),
        });
        let settings = Settings {
            time_scale: 1.0,
            quota_share: 0.5,
            quota_per_day: 50_000,
            match_lifetime_ms: 396 * 86_400_000,
            marketo_url: "http://marketo.test".into(),
            ims_url: "http://adobe.test".into(),
            aam_url: "http://adobe.test".into(),
            aep_url: "http://adobe.test".into(),
            aep_folders_url: "http://adobe.test".into(),
            aep_sandbox: sandbox.into(),
            adobe_scopes: "openid".into(),
            pass_above: 100,
            slice_records: 1_000,
            entries_at_once: 1_000,
            run_above: 1_000,
            fold_after_ms: 8 * 86_400_000,
        };
        let ports = Ports {
            tables: outside.clone(),
            objects: outside.clone(),
            queues: outside.clone(),
            http: outside.clone(),
            bus: Arc::new(ports::NoBus),
            secrets: outside.clone(),
            clock: outside.clone(),
            random: outside.clone(),
        };
        Self { deps: Deps::new(ports, settings), outside }
    }

    pub fn new() -> Self {
        Self::with(marketo::Settings::default())
    }

    pub fn with(settings: marketo::Settings) -> Self {
        Self::over(settings, "").set_up()
    }

    /// The stack with Experience Platform.
    pub fn with_platform() -> Self {
        let world = Self::over(marketo::Settings::default(), "prod").set_up();
        world.adobe().set_lifecycle(START, DRAFT, Lifecycle::Draft);
        world
    }

    fn set_up(self) -> Self {
        let world = self;
        let (status, _) = world.put("/subscription", &json!({"munchkin_id": MUNCHKIN, "org_id": ORG}));
        assert_eq!(status, 201);
        for sid in [101, 103] {
            world.deliver(sid);
        }
        world
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let request = Request {
            method: method.into(),
            path: path.into(),
            query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.to_vec(),
            caller: Some(Caller::local()),
            sign_in: None,
        };
        let asked = (request.method.clone(), request.path.clone());
        let response = block_on(handle(&self.deps, request, self.deps.now() + 30_000));
        crate::contract::check(&asked.0, &asked.1, &response);
        response
    }

    fn json(response: &Response) -> (u16, Value) {
        let body: Value = serde_json::from_slice(&response.body).expect("JSON");
        let problem = response.content_type == "application/problem+json";
        assert_eq!(problem, response.status >= 400, "{body}");
        if problem {
            assert_eq!(body["status"], response.status);
            assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{body}");
        }
        (response.status, body)
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        Self::json(&self.ask("GET", path, &[], b""))
    }

    pub fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        Self::json(&self.ask("PUT", path, &[], body.to_string().as_bytes()))
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        Self::json(&self.ask("POST", path, &[], body.to_string().as_bytes()))
    }

    pub fn post_once(&self, key: &str, body: &Value) -> (u16, Value) {
        Self::json(&self.ask("POST", "/syncs", &[("idempotency-key", key)], body.to_string().as_bytes()))
    }

    pub fn resume(&self) {
        block_on(create_sync::resume(&self.deps)).expect("resumed");
    }

    /// The names of Marketo's lists.
    pub fn list_names(&self) -> Vec<String> {
        lock(&self.outside.marketo).lists().values().map(|list| list.name.clone()).collect()
    }

    pub fn row(&self, id: &str) -> Option<Sync> {
        let key = sync_key(&munchkin(), id);
        block_on(load::<Sync>(&self.deps, Table::Syncs, &key)).expect("read").map(|doc| doc.value)
    }

    /// Sort keys of the subscription's rows with this prefix.
    pub fn rows(&self, prefix: &str) -> Vec<String> {
        let items = lock(&self.outside.items);
        let keys = items.keys().filter(|(table, key)| *table == Table::Syncs && key.pk == MUNCHKIN);
        keys.filter(|(_, key)| key.sk.starts_with(prefix)).map(|(_, key)| key.sk.clone()).collect()
    }

    /// Bodies of the rings since the last call: kind and id.
    pub fn rung(&self) -> BTreeSet<(String, String)> {
        let sent = std::mem::take(&mut *lock(&self.outside.sent));
        let read = |(_, message): &(Queue, Outgoing)| {
            let body: Value = serde_json::from_str(&message.body).expect("JSON");
            (body["kind"].as_str().expect("a kind").to_owned(), body["id"].as_str().unwrap_or_default().to_owned())
        };
        sent.iter().map(read).collect()
    }

    pub fn deliver(&self, sid: u64) {
        let audience = AudienceId::aam(sid);
        let mut head = Head::new(audience.clone(), START);
        head.base = Some(BaseRef { key: "base".into(), count: 7, as_of: START });
        let key = head_key(&munchkin(), &audience);
        assert!(block_on(save(&self.deps, Table::Audiences, key, &head, None, None)).expect("saved"));
    }

    /// Publishes what an audience wants, as a pass does.
    pub fn want(&self, sid: u64, leads: &[u64], pass: u64) {
        let item = self.want_row(sid, leads, pass);
        lock(&self.outside.items).insert((Table::Lists, item.key.clone()), item);
    }

    /// The row that a pass publishes.
    pub fn want_row(&self, sid: u64, leads: &[u64], pass: u64) -> Item {
        let audience = AudienceId::aam(sid);
        let set: LeadSet = leads.iter().copied().collect();
        let key = block_on(write_leads(&self.deps, "want", &set)).expect("written");
        let counts =
            AudienceCounts { audience: 7, no_match: 3, set_aside: 1, anonymous: 1, known: 2, people: set.len() };
        let report = AudienceReport { as_of: START + 5, counts, ..AudienceReport::default() };
        let want = Want { v: 1, audience: audience.clone(), key, count: set.len(), pass, report, replaced: Vec::new() };
        state::doc::item(want_key(&munchkin(), &audience), &want, None, None).expect("JSON")
    }

    pub fn report(&self, sync: &str) {
        let report = Report {
            v: 1,
            as_of: START + 61_500,
            pass: 1,
            audience: AudienceCounts { audience: 7, no_match: 3, set_aside: 1, anonymous: 1, known: 2, people: 7 },
            people: PeopleCounts {
                ours: 1,
                before_us: 1,
                waiting: 1,
                kept_out: 1,
                dropped: 1,
                failed: BTreeMap::from([("1007".into(), 2)]),
            },
            members: Some(MemberCounts {
                in_audience_by_us: 1,
                in_audience_before_us: 1,
                before_us_only: 4,
                ..MemberCounts::default()
            }),
            refused: vec![RefusedPerson {
                lead: 4,
                code: "1007".into(),
                request_id: "1a2b#3".into(),
                at: START,
                sentence: "Several <people> match.".into(),
            }],
            refused_key: None,
            freshness_seconds: 120,
        };
        self.store(Table::Lists, report_key(&munchkin(), sync), &report);
    }

    /// A list of which a mass change is held.
    pub fn hold(&self, list: u64, id: &str) {
        let mut head = block_on(OpenList::open(&self.deps, &munchkin(), list)).expect("a head").head;
        head.left.remove = 400;
        head.held = Some(Held {
            id: id.to_owned(),
            since: START + 1_000,
            why: Said::new("held_removals", "400 of 500 people <would> leave").with("removals", 400).with("of", 500),
            remove: 400,
            add: 2,
            of: 500,
        });
        self.store(Table::Lists, list_head_key(&munchkin(), list), &head);
    }

    /// The notes to the writer of a list.
    pub fn notes(&self, list: u64) -> Vec<Note> {
        let notes = block_on(notes::read(&self.deps, &munchkin(), list)).expect("notes");
        notes.found.into_iter().map(|(_, note)| note).collect()
    }

    /// Adobe's double.
    pub fn adobe(&self) -> MutexGuard<'_, Adobe> {
        lock(&self.outside.adobe)
    }

    /// Marketo's double.
    pub fn marketo(&self) -> MutexGuard<'_, Marketo> {
        lock(&self.outside.marketo)
    }

    /// A token, as an operator's own tool gets one.
    pub fn marketo_token(&self) -> String {
        let uri = "http://marketo.test/identity/oauth/token?grant_type=client_credentials&client_id=sample-client\
                   &client_secret=sample-secret";
        let request = http::Request::get(uri).body(Vec::new()).expect("a request");
        let response = self.marketo().handle(START, &request).response.expect("an answer");
        let body: Value = serde_json::from_slice(response.body()).expect("JSON");
        body["access_token"].as_str().expect("a token").to_owned()
    }

    /// Everything that stands in the tables.
    pub fn tables(&self) -> BTreeMap<(Table, Key), Item> {
        lock(&self.outside.items).clone()
    }

    /// Keys of the objects that begin so.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        lock(&self.outside.objects).keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub fn store<T: serde::Serialize>(&self, table: Table, key: Key, value: &T) {
        let item = state::doc::item(key, value, None, None).expect("JSON");
        lock(&self.outside.items).insert((table, item.key.clone()), item);
    }

    /// As if the first ring of a key had been handled.
    pub fn handled(&self, key: BellKey) {
        let ring = Ring { v: state::V1, key, version: 1 };
        block_on(bell::handle(&self.deps, &ring, || async { Ok(Next::Done(None)) })).expect("handled");
    }

    pub fn leads(&self, key: &str) -> Vec<u64> {
        block_on(state::lists::read_leads(&self.deps, key)).expect("a set").iter().collect()
    }

    pub fn wait(&self, ms: u64) {
        self.outside.now.fetch_add(ms, Ordering::Relaxed);
    }
}
