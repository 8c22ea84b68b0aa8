//! Streams, from Adobe's request to the list: what is proven, what is durable, and what comes twice.

use std::collections::{BTreeMap, BTreeSet};

use audience_ingest::{Answer, Counts, HttpEvent, Receiver};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::{AudienceId, MunchkinId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ports::{Item, Key, Queue, StreamSecrets, Table};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use sha2::Sha256;
use simulation::fakes::{Faults, run};
use simulation::scenario::{LIST, MUNCHKIN, ORG, Scenario, active_sync, ecid, instance, token};
use state::feeds::{Events, Feed, FeedState, Kind, feed_key, feed_state};
use state::syncs::{Sync, sync_key};
use state::update;
use world::types::Lead;

const KEY: &str = "a-new-key";
const OLD_KEY: &str = "an-old-key";
const TOKEN: &str = "a-token";
const AUDIENCE: &str = "11111111-2222-3333-4444-555555555555";

/// A world in which lead n owns token n, is known, and was seen with ECID n; with a stream of each kind, and a feed of
/// files.
fn world(leads: u64) -> Scenario {
    let lead =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: vec![token(id)], ecids: Vec::new() };
    let data = instance((1..=leads).map(lead).collect(), BTreeSet::new());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    scenario.driver.ticking = false;
    for n in 1..=leads {
        scenario.see(n, n);
    }
    declare(&scenario, &Feed { ecid_field: Some("AAM_UUID".into()), ..Feed::new("web", Kind::AamStream) });
    declare(&scenario, &Feed::new("live", Kind::AepStream));
    declare(&scenario, &Feed::new("files", Kind::AamFiles));
    secrets(&scenario, &json!({"web": {"keys": [KEY, OLD_KEY]}, "live": {"tokens": [TOKEN]}}));
    scenario
}

fn munchkin() -> MunchkinId {
    MunchkinId::parse(MUNCHKIN).expect("valid")
}

fn declare(scenario: &Scenario, feed: &Feed) {
    let changed = |_: Option<Feed>| Ok((Some(feed.clone()), ()));
    let key = feed_key(&munchkin(), &feed.id);
    run(update(&scenario.driver.deps(), Table::Syncs, &key, changed, |_| None)).expect("a table");
}

fn secrets(scenario: &Scenario, feeds: &Value) {
    let secrets = StreamSecrets::parse(&json!({ "feeds": feeds }).to_string()).expect("secrets");
    scenario.driver.sim.lock().streams = Some(secrets);
}

fn receiver(scenario: &Scenario) -> Receiver {
    run(Receiver::begin(scenario.driver.deps()))
}

/// Lets time pass, and nothing else happen.
fn pass(scenario: &Scenario, ms: u64) {
    let mut store = scenario.driver.sim.lock();
    let now = store.now;
    store.advance(now + ms);
}

fn ask(receiver: &Receiver, request: &HttpEvent) -> (Answer, BTreeMap<&'static str, u64>) {
    let counts = Counts::default();
    let answer = run(receiver.request(request, &counts));
    (answer, counts.all())
}

fn status(receiver: &Receiver, request: &HttpEvent) -> u16 {
    ask(receiver, request).0.status
}

fn request(path: &str, header: (&str, &str), body: &[u8]) -> HttpEvent {
    HttpEvent {
        method: "POST".into(),
        path: path.into(),
        headers: vec![(header.0.into(), header.1.into())],
        body: body.to_vec(),
        ..HttpEvent::default()
    }
}

fn signature(key: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    STANDARD.encode(mac.chain_update(body).finalize().into_bytes())
}

/// A message of Audience Manager about segment 101, at noon of the world's first day and some seconds.
fn users(ecids: &[u64], inside: bool, second: u64) -> Vec<u8> {
    let segment = json!({"Segment_ID": "101", "Status": u8::from(inside).to_string(),
        "DateTime": format!("Thu Jan 01 12:00:{second:02} UTC 2026")});
    let user = |n: &u64| json!({"AAM_UUID": ecid(*n), "DataPartner_UUID": "1", "Segments": [segment]});
    json!({"User_count": "1", "Users": ecids.iter().map(user).collect::<Vec<_>>()}).to_string().into_bytes()
}

fn signed(body: &[u8]) -> HttpEvent {
    request("/feeds/web/events", ("x-signature", &signature(KEY, body)), body)
}

/// A profile of Experience Platform.
fn profile(ecids: &[u64], status: &str) -> Vec<u8> {
    let ids: Vec<Value> = ecids.iter().map(|n| json!({"id": ecid(*n)})).collect();
    json!({"identityMap": {"ecid": ids}, "segmentMembership": {"ups": {AUDIENCE:
        {"lastQualificationTime": "2026-01-01T12:00:10Z", "status": status, "name": "mapped"}}}})
    .to_string()
    .into_bytes()
}

fn bearer(body: &[u8], token: &str) -> HttpEvent {
    request("/feeds/live/events", ("authorization", &format!("Bearer {token}")), body)
}

fn queued(scenario: &Scenario) -> Vec<Events> {
    let store = scenario.driver.sim.lock();
    let sent = store.sent.iter().filter(|(queue, _)| *queue == Queue::Events);
    sent.map(|(_, message)| serde_json::from_str(&message.body).expect("events")).collect()
}

fn members(scenario: &Scenario) -> BTreeSet<u64> {
    scenario.driver.sim.lock().marketo.members(LIST).cloned().unwrap_or_default()
}

fn settle(scenario: &mut Scenario) {
    scenario.driver.ticking = true;
    scenario.driver.settle(6 * 3_600_000).expect("rest");
    scenario.driver.ticking = false;
}

#[test]
fn whoever_enters_by_a_stream_joins_and_whoever_exits_leaves_and_a_repeat_writes_nothing() {
    let mut scenario = world(3);
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    settle(&mut scenario);
    pass(&scenario, 120_000);
    let receiver = receiver(&scenario);
    let enter = signed(&users(&[1, 2], true, 10));
    let (answer, counts) = ask(&receiver, &enter);
    let nothing = Answer { status: 200, content_type: "", headers: Vec::new(), body: Vec::new() };
    assert_eq!((answer, counts), (nothing, BTreeMap::from([("events_taken", 2)])));
    settle(&mut scenario);
    assert_eq!(members(&scenario), BTreeSet::from([1, 2]));

    // What came again, early or late, changes nothing but the feed's own numbers.
    let tables = |scenario: &Scenario| -> BTreeMap<(Table, Key), Item> {
        let kept = |(table, key): &(Table, Key)| *table != Table::Doorbells && !key.sk.starts_with("feed-state/");
        scenario.driver.sim.lock().tables.clone().into_iter().filter(|(key, _)| kept(key)).collect()
    };
    let before = tables(&scenario);
    let writes = scenario.driver.sim.lock().writes;
    assert_eq!(status(&receiver, &enter), 200);
    while !scenario.driver.sim.lock().messages.is_empty() {
        scenario.driver.run_for(1_000);
    }
    assert!(tables(&scenario) == before, "a repeat has changed a table");
    assert_eq!(scenario.driver.sim.lock().writes, writes + 1, "the feed's numbers");
    let state: FeedState = run(feed_state(&scenario.driver.deps(), &munchkin(), "web")).expect("a table");
    assert_eq!(state.taken, 4);

    assert_eq!(status(&receiver, &signed(&users(&[1], false, 20))), 200);
    settle(&mut scenario);
    assert_eq!(members(&scenario), BTreeSet::from([2]));
    assert_eq!(status(&receiver, &enter), 200);
    settle(&mut scenario);
    assert_eq!(members(&scenario), BTreeSet::from([2]), "an older entry came late");
}

#[test]
fn a_message_is_in_the_queue_before_200_and_else_nothing_is_promised() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let message = signed(&users(&[1], true, 0));
    let break_ = |faults: Faults| scenario.driver.sim.lock().faults = faults;

    break_(Faults { unavailable: 1.0, ..Faults::NONE });
    let (answer, counts) = ask(&receiver, &message);
    assert_eq!((answer.status, counts), (503, BTreeMap::from([("events_lost", 1)])), "no table");
    break_(Faults::NONE);
    assert_eq!(status(&receiver, &message), 200);
    assert_eq!(queued(&scenario).len(), 1);

    // The feeds are known now; what is down is the queue.
    break_(Faults { unavailable: 1.0, ..Faults::NONE });
    let (answer, counts) = ask(&receiver, &message);
    assert_eq!((answer.status, counts), (503, BTreeMap::from([("events_lost", 1)])));
    assert!(answer.headers.contains(&("retry-after", "1".to_owned())));
    assert_eq!(queued(&scenario).len(), 1);
    break_(Faults { unknown: 1.0, ..Faults::NONE });
    assert_eq!(status(&receiver, &message), 503, "nobody knows");
    break_(Faults::NONE);
    assert_eq!(status(&receiver, &message), 200);
    assert!(queued(&scenario).len() >= 2);
}

#[test]
fn an_answer_comes_before_adobe_hangs_up() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let message = signed(&users(&[1], true, 0));
    scenario.driver.sim.lock().port_ms = 1_000;
    let began = scenario.driver.deps().now();
    assert_eq!(status(&receiver, &message), 503);
    let took = scenario.driver.deps().now() - began;
    assert!(took <= 3_000, "{took} ms");
    scenario.driver.sim.lock().port_ms = 2;
    assert_eq!(status(&receiver, &message), 200);
}

#[test]
fn without_the_right_proof_nothing_is_read_and_nothing_is_queued() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let body = users(&[1], true, 0);
    let mut tampered = signed(&body);
    tampered.body = users(&[2], true, 0);
    let mut unproven = signed(&body);
    unproven.headers.clear();
    for (case, request) in [
        ("tampered", tampered),
        ("without a signature", unproven),
        ("another key", request("/feeds/web/events", ("x-signature", &signature("other", &body)), &body)),
        ("not to be read either", request("/feeds/web/events", ("x-signature", "x"), b"not JSON")),
        ("a token instead", request("/feeds/web/events", ("authorization", &format!("Bearer {TOKEN}")), &body)),
        ("another token", bearer(&profile(&[1], "realized"), "other")),
        ("a signature instead", request("/feeds/live/events", ("x-signature", &signature(KEY, &body)), &body)),
    ] {
        let (answer, counts) = ask(&receiver, &request);
        assert_eq!((answer.status, counts), (401, BTreeMap::from([("events_refused_proof", 1)])), "{case}");
        assert_eq!(answer.content_type, "application/problem+json");
        let text = String::from_utf8(answer.body).expect("text");
        let header = if request.path.contains("live") { "authorization" } else { "x-signature" };
        assert!(text.contains(header) && !text.contains(KEY) && !text.contains(TOKEN), "{case}: {text}");
    }
    assert_eq!(queued(&scenario), []);
    assert_eq!(status(&receiver, &signed(&body)), 200);
}

#[test]
fn a_feed_without_a_secret_takes_nothing() {
    let scenario = world(0);
    secrets(&scenario, &json!({"other": {"tokens": [TOKEN]}, "live": {}}));
    let receiver = receiver(&scenario);
    let empty = Hmac::<Sha256>::new_from_slice(b"").expect("any length");
    let body = users(&[1], true, 0);
    let of_nothing = STANDARD.encode(empty.chain_update(&body).finalize().into_bytes());
    assert_eq!(status(&receiver, &request("/feeds/web/events", ("x-signature", &of_nothing), &body)), 401);
    assert_eq!(status(&receiver, &bearer(&profile(&[1], "realized"), "")), 401);
    assert_eq!(queued(&scenario), []);
}

#[test]
fn a_closed_door_is_told_to_whoever_has_a_proof_and_nothing_is_queued() {
    let mut scenario = world(0);
    let receiver = receiver(&scenario);
    let body = users(&[1], true, 0);
    assert_eq!(status(&receiver, &signed(&body)), 200);
    let closed = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "hipaa_ready": true});
    assert!(scenario.request("PUT", "/subscription", &closed).0 < 300);
    pass(&scenario, 60_000);
    let (answer, counts) = ask(&receiver, &signed(&body));
    assert_eq!((answer.status, counts), (403, BTreeMap::new()));
    assert!(String::from_utf8_lossy(&answer.body).contains("HIPAA"));
    assert_eq!(status(&receiver, &request("/feeds/web/events", ("x-signature", "x"), &body)), 401);
    assert_eq!(queued(&scenario).len(), 1);
}

#[test]
fn a_rotated_key_is_taken_at_once_and_one_that_was_taken_away_ends_soon() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let body = users(&[1], true, 0);
    let by = |key: &str| request("/feeds/web/events", ("x-signature", &signature(key, &body)), &body);
    let reads = || scenario.driver.sim.lock().streams_read;
    assert_eq!((status(&receiver, &by(KEY)), status(&receiver, &by(OLD_KEY)), reads()), (200, 200, 1));
    secrets(&scenario, &json!({"web": {"keys": ["newest", KEY]}}));
    assert_eq!((status(&receiver, &by("newest")), reads()), (200, 2));
    // Wrong ones cost one reading a minute.
    for _ in 0..5 {
        assert_eq!(status(&receiver, &by("wrong")), 401);
    }
    assert_eq!((status(&receiver, &by(OLD_KEY)), reads()), (401, 2));
    pass(&scenario, 60_000);
    assert_eq!((status(&receiver, &by("wrong")), reads()), (401, 3));

    // Nobody is refused meanwhile, and yet the old one ends.
    secrets(&scenario, &json!({"web": {"keys": ["newest"]}}));
    assert_eq!(status(&receiver, &by(KEY)), 200);
    pass(&scenario, 10 * 60_000);
    assert_eq!((status(&receiver, &by(KEY)), status(&receiver, &by("newest"))), (401, 200));
}

#[test]
fn secrets_that_cannot_be_read_close_a_cold_process_and_leave_a_warm_one_as_it_is() {
    let scenario = world(0);
    let warm = receiver(&scenario);
    let secrets = scenario.driver.sim.lock().streams.take();
    let cold = receiver(&scenario);
    pass(&scenario, 20 * 60_000);
    let message = signed(&users(&[1], true, 0));
    assert_eq!((status(&warm, &message), status(&cold, &message)), (200, 503));
    let reads = scenario.driver.sim.lock().streams_read;
    assert_eq!((status(&warm, &message), status(&cold, &message)), (200, 503));
    assert_eq!(scenario.driver.sim.lock().streams_read, reads, "they are tried once a second");
    scenario.driver.sim.lock().streams = secrets;
    pass(&scenario, 1_000);
    assert_eq!((status(&warm, &message), status(&cold, &message)), (200, 200));
}

#[test]
fn other_feeds_methods_and_sizes_are_refused_alike() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let body = users(&[1], true, 0);
    let to = |path: &str, query: &str| HttpEvent { path: path.into(), query: query.into(), ..signed(&body) };
    let unknown = ask(&receiver, &to("/feeds/nobody/events", "")).0;
    assert_eq!(unknown.status, 404);
    for (path, query) in [
        ("/feeds/files/events", ""),
        ("/feeds/default/events", ""),
        ("/feeds/web/events", "munchkin_id=999-ABC-456"),
        ("/feeds/web/events", "munchkin_id=nonsense"),
        ("/feeds/files/token", ""),
    ] {
        assert_eq!(ask(&receiver, &to(path, query)).0, unknown, "{path} {query}");
    }
    assert_eq!(status(&receiver, &to("/feeds/web/other", "")), 404);
    assert_eq!(status(&receiver, &to("/feeds/web/events", &format!("a=1&munchkin_id={MUNCHKIN}"))), 200);
    assert_eq!(status(&receiver, &HttpEvent { method: "GET".into(), ..signed(&body) }), 405);
    assert_eq!(status(&receiver, &signed(&vec![b' '; 5 * 1024 * 1024 + 1])), 413);
    assert_eq!(status(&receiver, &signed(&vec![b' '; 5 * 1024 * 1024])), 400);
    assert_eq!(queued(&scenario).len(), 1);

    // One that is declared just now is found at once.
    declare(&scenario, &Feed::new("nobody", Kind::AepStream));
    pass(&scenario, 1_000);
    assert_eq!(status(&receiver, &to("/feeds/nobody/events", "")), 401);
}

#[test]
fn of_several_subscriptions_the_query_names_one_and_its_own_secret_counts() {
    let mut scenario = world(0);
    let other = "999-ZZZ-999";
    let subscription = json!({"munchkin_id": other, "org_id": ORG});
    assert!(scenario.request("PUT", "/subscription", &subscription).0 < 300);
    secrets(&scenario, &json!({"live": {"tokens": ["any"]}, format!("{MUNCHKIN}/live"): {"tokens": [TOKEN]}}));
    let receiver = receiver(&scenario);
    let body = profile(&[1], "realized");
    let to = |query: &str, token: &str| HttpEvent { query: query.into(), ..bearer(&body, token) };
    let own = format!("munchkin_id={MUNCHKIN}");
    assert_eq!(status(&receiver, &to("", TOKEN)), 404, "which?");
    assert_eq!(status(&receiver, &to(&format!("munchkin_id={other}"), "any")), 404, "it has no such feed");
    assert_eq!((status(&receiver, &to(&own, TOKEN)), status(&receiver, &to(&own, "any"))), (200, 401));
    assert!(queued(&scenario).iter().all(|events| events.munchkin_id == munchkin()));
}

#[test]
fn experience_platform_asks_us_for_a_token_and_shows_it_until_its_secret_goes() {
    let scenario = world(0);
    let clients = |secrets: &[&str]| {
        let client = |secret: &&str| json!({"client_id": "adobe", "client_secret": secret});
        json!({"live": {"clients": secrets.iter().map(client).collect::<Vec<_>>()}})
    };
    secrets(&scenario, &clients(&["old"]));
    let receiver = receiver(&scenario);
    let ask_token = |secret: &str| {
        let basic = format!("Basic {}", STANDARD.encode(format!("adobe:{secret}")));
        let request = request("/feeds/live/token", ("authorization", &basic), b"grant_type=client_credentials");
        let (answer, counts) = ask(&receiver, &request);
        assert_eq!(counts, BTreeMap::new());
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, body["access_token"].as_str().unwrap_or_default().to_owned())
    };
    let body = profile(&[1], "realized");
    let (status_, old) = ask_token("old");
    assert_eq!((status_, status(&receiver, &bearer(&body, &old))), (200, 200));
    assert_eq!(ask_token("new").0, 401);
    // The rotation: both count, then one.
    secrets(&scenario, &clients(&["new", "old"]));
    pass(&scenario, 60_000);
    let (status_, new) = ask_token("new");
    assert_eq!(status_, 200);
    assert_eq!((status(&receiver, &bearer(&body, &old)), status(&receiver, &bearer(&body, &new))), (200, 200));
    secrets(&scenario, &clients(&["new"]));
    pass(&scenario, 10 * 60_000);
    assert_eq!((status(&receiver, &bearer(&body, &old)), status(&receiver, &bearer(&body, &new))), (401, 200));
    pass(&scenario, 3_600_000);
    assert_eq!(status(&receiver, &bearer(&body, &new)), 401, "its hour is over");
}

#[test]
fn a_large_message_becomes_several_and_what_was_not_taken_is_told_once() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let (ecids, bad) = ((1..=1_201).collect::<Vec<u64>>(), json!({"Segments": []}));
    let mut message: Value = serde_json::from_slice(&users(&ecids, true, 0)).expect("JSON");
    for _ in 0..150 {
        message["Users"].as_array_mut().expect("users").push(bad.clone());
    }
    let (answer, counts) = ask(&receiver, &signed(message.to_string().as_bytes()));
    assert_eq!((answer.status, counts), (200, BTreeMap::from([("events_rejected", 150), ("events_taken", 1_201)])));
    let sent = queued(&scenario);
    let of = |read: fn(&Events) -> usize| sent.iter().map(read).collect::<Vec<_>>();
    assert_eq!(of(|events| events.entries.len()), [500, 500, 201]);
    assert_eq!(of(|events| events.rejects.len()), [100, 0, 0]);
    assert_eq!(sent.iter().map(|events| events.rejected).collect::<Vec<_>>(), [150, 0, 0]);
    let told: BTreeSet<u128> =
        sent.iter().flat_map(|events| &events.entries).map(|entry| entry.ecid.number()).collect();
    assert_eq!(told.len(), 1_201);
    let bytes: Vec<usize> = scenario.driver.sim.lock().sent.iter().map(|(_, message)| message.body.len()).collect();
    assert!(bytes.iter().all(|bytes| *bytes < 200_000), "{bytes:?}");
}

#[test]
fn what_is_ignored_is_told_without_an_entry_and_nothing_at_all_is_not() {
    let scenario = world(0);
    let receiver = receiver(&scenario);
    let mut unmapped: Value = serde_json::from_slice(&profile(&[1], "realized")).expect("JSON");
    unmapped["segmentMembership"]["ups"][AUDIENCE].as_object_mut().expect("an object").remove("name");
    let (answer, counts) = ask(&receiver, &bearer(unmapped.to_string().as_bytes(), TOKEN));
    assert_eq!((answer.status, counts), (200, BTreeMap::from([("events_ignored", 1)])));
    let sent = queued(&scenario);
    assert_eq!((sent.len(), sent[0].entries.len(), sent[0].ignored), (1, 0, 1));
    assert_eq!(status(&receiver, &signed(br#"{"Users": []}"#)), 200);
    assert_eq!(queued(&scenario).len(), 1);

    let (answer, counts) = ask(&receiver, &signed(b"{}"));
    assert_eq!((answer.status, counts), (400, BTreeMap::from([("events_unreadable", 1)])));
    assert!(String::from_utf8_lossy(&answer.body).contains("Users"));
}

#[test]
fn all_ecids_of_a_profile_enter_by_experience_platform() {
    let mut scenario = world(3);
    let sync = active_sync(&munchkin(), AudienceId::aep(AUDIENCE).expect("a UUID"), LIST, false);
    let changed = |_: Option<Sync>| Ok((Some(sync.clone()), ()));
    let key = sync_key(&munchkin(), &sync.id);
    run(update(&scenario.driver.deps(), Table::Syncs, &key, changed, |_| None)).expect("a table");
    settle(&mut scenario);
    let receiver = receiver(&scenario);
    assert_eq!(status(&receiver, &bearer(&profile(&[1, 2], "realized"), TOKEN)), 200);
    settle(&mut scenario);
    assert_eq!(members(&scenario), BTreeSet::from([1, 2]));
}
