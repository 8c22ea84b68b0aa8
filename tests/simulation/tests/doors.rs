//! The prerequisites hold at every door, and bad input gets a clear answer while the good rows go through.

use std::collections::BTreeSet;
use std::io::Write as _;

use cookie_ingest::{Answer, Counts, HttpEvent, Ingest};
use domain::limits::{ECIDS_PER_TOKEN, FUNCTION_MS};
use ports::Queue;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scheduled_incremental_sync::{Arrival, arrived};
use serde_json::{Value, json};
use simulation::scenario::{LIST, MUNCHKIN, ORG, PAGE, Scenario, beacon, ecid, instance, token};
use world::types::Lead;

fn world() -> Scenario {
    let lead =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: vec![token(id)], ecids: Vec::new() };
    let data = instance(vec![lead(1), lead(2)], BTreeSet::new());
    Scenario::with(1, SmallRng::seed_from_u64(1), data)
}

fn subscription(scenario: &mut Scenario, change: &Value) {
    let mut body = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "extract_since": "2025-12-20T00:00:00Z"});
    body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    let (status, answer) = scenario.request("PUT", "/subscription", &body);
    assert!(status < 300, "{status} {answer}");
}

fn a_match() -> Value {
    json!({"org_id": ORG, "munchkin_id": MUNCHKIN, "ecid": ecid(1), "token": token(1), "seen_at": "2026-01-01T12:00:00Z"})
}

fn with(field: &str, value: Value) -> Value {
    let mut item = a_match();
    item[field] = value;
    item
}

/// A file arrives and is taken in; its record.
fn import(scenario: &mut Scenario, name: &str, body: &[u8]) -> Value {
    let key = format!("incoming/{name}");
    scenario.driver.sim.lock().objects.insert(key.clone(), body.to_vec().into());
    let deps = scenario.driver.deps();
    let arrival = Arrival { etag: scenario.driver.sim.tag(&key), key };
    scenario.driver.start(name, async move { arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await });
    while scenario.driver.is_running(name) {
        if !scenario.driver.step() {
            scenario.driver.leap();
        }
    }
    let store = scenario.driver.sim.lock();
    let record = store.tables.iter().find(|((_, key), _)| key.sk.starts_with(&format!("import/{name}.")));
    record.expect("a record").1.doc.clone()
}

fn calls_to_lists(scenario: &Scenario) -> usize {
    scenario.driver.sim.lock().marketo.members(LIST).map_or(0, BTreeSet::len)
}

#[test]
fn each_item_of_a_batch_is_answered_by_itself() {
    let mut scenario = world();
    let number: Value = serde_json::from_str("12345678901234567890").expect("a number");
    let items = json!([
        a_match(),
        with("ecid", number),
        with("ecid", json!("123")),
        with("token", json!("id:999-ZZZ-999&token:_mch-example.com-1700000000001-1")),
        with("token", json!("nonsense")),
        with("munchkin_id", json!("999-ZZZ-999")),
        with("org_id", json!("FFFFFFFFFFFFFFFFFFFFFFFF@AdobeOrg")),
        with("seen_at", json!("yesterday")),
        with("a field that nobody knows", json!(1)),
        "text",
        with("token", json!(format!("id%3A{MUNCHKIN}%26token%3A{}", token(2)))),
    ]);
    let (status, body) = scenario.post_matches(items.to_string().as_bytes());
    assert_eq!(status, 200);
    let results = body["results"].as_array().expect("results");
    let seen: Vec<(&str, &str)> = results
        .iter()
        .map(|result| (result["status"].as_str().unwrap_or(""), result["field"].as_str().unwrap_or("")))
        .collect();
    let refused = |field| ("refused", field);
    assert_eq!(
        seen,
        [
            ("accepted", ""),
            refused("ecid"),
            refused("ecid"),
            refused("token"),
            refused("token"),
            refused("munchkin_id"),
            refused("org_id"),
            refused("seen_at"),
            ("accepted", ""),
            refused(""),
            ("accepted", "")
        ]
    );
    assert!(results[1]["reason"].as_str().is_some_and(|reason| reason.contains("JSON number")));
    assert!(results[3]["reason"].as_str().is_some_and(|reason| reason.contains("another Munchkin id")));
    assert!(!body.to_string().contains(&ecid(1)), "no answer repeats an ECID");
}

#[test]
fn a_match_that_has_expired_is_refused_and_one_of_a_token_over_its_cap_is_set_aside() {
    let mut scenario = world();
    // The world begins on 2026-01-01 at noon, and a match lives for 396 days.
    let at = |time: &str| with("seen_at", json!(time));
    let items = json!([at("2024-12-01T12:00:00Z"), at("2024-12-02T12:00:00Z")]);
    let (_, body) = scenario.post_matches(items.to_string().as_bytes());
    let results = &body["results"];
    assert_eq!((&results[0]["status"], &results[0]["field"]), (&json!("refused"), &json!("seen_at")));
    assert!(results[0]["reason"].as_str().is_some_and(|reason| reason.contains("396 days")), "{body}");
    assert_eq!(results[1]["status"], "accepted");

    let over = ECIDS_PER_TOKEN as u64 + 1;
    (1..=over).for_each(|e| scenario.see(e, 1));
    scenario.driver.run_until_stored();
    let item = |e: u64| with("ecid", json!(ecid(e)));
    let (_, body) = scenario.post_matches(json!([item(over), item(over + 1)]).to_string().as_bytes());
    assert_eq!((&body["results"][0]["status"], &body["results"][1]["status"]), (&json!("known"), &json!("set_aside")));
}

#[test]
fn a_body_over_a_limit_is_refused_and_says_which() {
    let mut scenario = world();
    let many = json!(vec![a_match(); 501]);
    assert_eq!(scenario.post_matches(many.to_string().as_bytes()).0, 400);
    assert_eq!(scenario.post_matches(&vec![b' '; 600 * 1024]).0, 413);
    assert_eq!(scenario.post_matches(b"{").0, 400);
}

#[test]
fn a_repeat_within_thirty_days_writes_nothing() {
    let mut scenario = world();
    scenario.post_matches(a_match().to_string().as_bytes());
    scenario.settle().expect("rest");
    let (writes, sent) = {
        let store = scenario.driver.sim.lock();
        (store.writes, store.sent.len())
    };
    scenario.driver.ticking = false;
    let (_, body) = scenario.post_matches(json!([a_match(), a_match()]).to_string().as_bytes());
    assert_eq!(body["results"][1]["status"], "known");
    let store = scenario.driver.sim.lock();
    assert_eq!((store.writes, store.sent.len()), (writes, sent));
}

#[test]
fn hipaa_no_match_is_stored_no_file_is_read_no_list_is_called() {
    let mut scenario = world();
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    let file = format!("{}\t101\t\n", ecid(1));
    import(&mut scenario, "S3_1_full_1767268800001.sync", file.as_bytes());
    // A match that lies in the queue when the door closes.
    scenario.see(1, 1);
    subscription(&mut scenario, &json!({"hipaa_ready": true}));
    let (_, body) = scenario.post_matches(a_match().to_string().as_bytes());
    assert_eq!(body["results"][0]["status"], "refused");
    assert!(body.to_string().contains("HIPAA"));
    let (_, counted) = {
        let ingest = Ingest::new(scenario.driver.deps());
        answered(&mut scenario, &ingest, beacon(&pair(), &[], PAGE))
    };
    assert_eq!(counted, ["beacon_refused_door"]);
    let record = import(&mut scenario, "S3_1_full_1767268800002.sync", file.as_bytes());
    assert_eq!((&record["status"], &record["rows"]), (&json!("refused"), &json!(0)));
    assert!(record["why"]["sentence"].as_str().is_some_and(|why| why.contains("HIPAA")));
    scenario.driver.run_for(600_000);
    assert_eq!(calls_to_lists(&scenario), 0);
    let (_, syncs) = scenario.request("GET", "/syncs", &Value::Null);
    assert!(syncs.to_string().contains("paused") && syncs.to_string().contains("HIPAA"), "{syncs}");
    let refused = scenario.create(102, &json!({"id": LIST})).expect_err("a closed door");
    assert!((400..500).contains(&refused.0) && refused.1.to_string().contains("HIPAA"), "{refused:?}");
}

#[test]
fn no_organisation_and_cookie_sync_off_close_their_doors() {
    for (change, word) in [(json!({"org_id": null}), "organisation"), (json!({"cookie_sync": false}), "ookie sync")] {
        let mut scenario = world();
        subscription(&mut scenario, &change);
        let (_, body) = scenario.post_matches(a_match().to_string().as_bytes());
        assert_eq!(body["results"][0]["status"], "refused", "{word}");
        assert!(body.to_string().contains(word), "{body}");
        let refused = scenario.create(101, &json!({"id": LIST})).expect_err("a closed door");
        assert!((400..500).contains(&refused.0) && refused.1.to_string().contains(word), "{refused:?}");
    }
}

fn pair() -> Value {
    json!({"org_id": ORG, "munchkin_id": MUNCHKIN, "ecid": ecid(1), "token": token(1)})
}

/// What a beacon is answered, and as what it is counted.
fn answered(scenario: &mut Scenario, ingest: &Ingest, request: HttpEvent) -> (Answer, Vec<&'static str>) {
    let counts = Counts::default();
    let answer = scenario.ask(ingest, request, &counts).expect("an answer");
    (answer, counts.all().into_keys().collect())
}

#[test]
fn a_beacon_is_answered_alike_whatever_becomes_of_it() {
    let mut scenario = world();
    subscription(&mut scenario, &json!({"origins": [PAGE]}));
    scenario.driver.ticking = false;
    let ingest = Ingest::new(scenario.driver.deps());
    let said = |field: &str, value: Value| {
        let mut body = pair();
        body[field] = value;
        beacon(&body, &[], PAGE)
    };
    let with_body = |body: &[u8]| HttpEvent { body: body.to_vec(), ..beacon(&pair(), &[], PAGE) };
    let good = || beacon(&pair(), &[], PAGE);
    let anonymous = HttpEvent { headers: Vec::new(), ..good() };
    let mut answers = Vec::new();
    for (request, count) in [
        (good(), "beacon_new"),
        (good(), "beacon_remembered"),
        (beacon(&pair(), &[], "https://www.example.org"), "beacon_refused_origin"),
        (beacon(&pair(), &[], "null"), "beacon_refused_origin"),
        (anonymous, "beacon_refused_origin"),
        (beacon(&pair(), &["mkto_opt_out=true"], PAGE), "beacon_opted_out"),
        (said("munchkin_id", json!("999-ZZZ-999")), "beacon_refused_door"),
        (said("org_id", json!("FFFFFFFFFFFFFFFFFFFFFFFF@AdobeOrg")), "beacon_refused_door"),
        (said("munchkin_id", json!(5)), "beacon_refused_malformed"),
        (said("ecid", json!(5)), "beacon_refused_malformed"),
        (said("token", json!("_mch-nonsense")), "beacon_refused_malformed"),
        (with_body(b""), "beacon_refused_malformed"),
        (with_body(b"[[["), "beacon_refused_malformed"),
        (with_body(b"\xff\xfe"), "beacon_refused_malformed"),
        (said("later", json!("x".repeat(8 * 1024))), "beacon_refused_malformed"),
        (said("later", json!({"x": [1]})), "beacon_remembered"),
    ] {
        let (answer, counted) = answered(&mut scenario, &ingest, request);
        assert_eq!(counted, [count]);
        answers.push(answer);
    }
    scenario.driver.run_until_stored();
    for change in [json!({"hipaa_ready": true}), json!({"org_id": null}), json!({"cookie_sync": false}), json!({})] {
        let mut change = change;
        change["origins"] = json!([PAGE]);
        let known = change.as_object().is_some_and(|change| change.len() == 1);
        subscription(&mut scenario, &change);
        // A cold process.
        let cold = Ingest::new(scenario.driver.deps());
        let (answer, counted) = answered(&mut scenario, &cold, good());
        assert_eq!(counted, [if known { "beacon_known" } else { "beacon_refused_door" }], "{change}");
        answers.push(answer);
    }
    assert_eq!((answers[0].status, answers[0].headers.len(), answers[0].body.len()), (204, 0, 0));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "nothing in an answer tells what became of a beacon");
    let sent = scenario.driver.sim.lock().sent.iter().filter(|(queue, _)| *queue == Queue::Matches).count();
    assert_eq!(sent, 1);
}

#[test]
fn no_page_may_send_until_its_origin_is_allowed_and_then_soon() {
    let mut scenario = world();
    subscription(&mut scenario, &json!({}));
    scenario.driver.ticking = false;
    let ingest = Ingest::new(scenario.driver.deps());
    let send = |scenario: &mut Scenario| answered(scenario, &ingest, beacon(&pair(), &[], PAGE)).1;
    assert_eq!(send(&mut scenario), ["beacon_refused_origin"]);
    subscription(&mut scenario, &json!({"origins": ["https://*.example.com"]}));
    let later = scenario.driver.sim.lock().now + 1_000;
    scenario.driver.sim.lock().advance(later);
    assert_eq!(send(&mut scenario), ["beacon_new"], "a warm process sees within a second what is allowed");
}

#[test]
fn good_rows_of_a_bad_file_go_through_and_the_bad_ones_are_kept() {
    let mut scenario = world();
    let text = format!(
        "{}\t101,102\t\n{}\t101\nnot an ECID\t101\t\n{}\t101,999\t\n\n{}\t101,x\t\r\n",
        ecid(1),
        ecid(2),
        ecid(3),
        ecid(4)
    );
    let record = import(&mut scenario, "S3_1_full_1767268800001.sync", text.as_bytes());
    assert_eq!((&record["status"], &record["rows"], &record["rejected"]), (&json!("done"), &json!(5), &json!(4)));
    assert_eq!(record["taken"], json!({"aam:101": 3, "aam:102": 1}));
    let lines: Vec<u64> =
        record["rejects"].as_array().expect("rejects").iter().filter_map(|reject| reject["line"].as_u64()).collect();
    assert_eq!(lines, [2, 3, 4, 6]);
    assert!(record["rejects"][0]["reason"].as_str().is_some_and(|reason| reason.contains("too few columns")));
    assert!(!record.to_string().contains("not an ECID"), "a row's content is not repeated");
}

#[test]
fn a_file_that_is_cut_empty_or_not_for_us_says_so_and_nobody_leaves_on_its_account() {
    let mut scenario = world();
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    scenario.see(1, 1);
    scenario.see(2, 2);
    let rows = |ecids: &[u64]| ecids.iter().map(|n| format!("{}\t101\t\n", ecid(*n))).collect::<String>();
    import(&mut scenario, "S3_1_full_1767268800001.sync", rows(&[1, 2]).as_bytes());
    scenario.settle().expect("rest");
    assert_eq!(calls_to_lists(&scenario), 2);

    let many: Vec<u64> = (1_000..9_000).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all((rows(&[1]) + &rows(&many)).as_bytes()).expect("memory");
    let whole = gzip.finish().expect("memory");
    let record = import(&mut scenario, "S3_1_full_1767268800002.sync.gz", &whole[..whole.len() / 2]);
    assert_eq!(record["status"], "done");
    assert!(record["why"]["sentence"].as_str().is_some_and(|why| why.contains("not whole")), "{record}");
    assert!(record["rows"].as_u64().is_some_and(|rows| rows > 100));

    let empty = import(&mut scenario, "S3_1_full_1767268800003.sync", b"");
    assert_eq!((&empty["status"], &empty["why"]["sentence"]), (&json!("refused"), &json!("the file is empty")));
    let other = import(&mut scenario, "holiday.jpg", b"x");
    assert!(other["why"]["sentence"].as_str().is_some_and(|why| why.contains("not a file for us")), "{other}");
    scenario.settle().expect("rest");
    assert_eq!(calls_to_lists(&scenario), 2);
}
