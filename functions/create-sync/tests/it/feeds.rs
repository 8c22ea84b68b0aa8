//! Feeds: what may be declared, what is refused, what they brought, and what waits for an operator.

use std::collections::BTreeMap;

use domain::sayings::RECORD_NO_ECID;
use domain::{AudienceId, Said};
use futures::executor::block_on;
use ports::Table;
use serde_json::{Value, json};
use state::feeds::{
    Delivery, FeedState, FullDelivery, Import, ImportStatus, Progress, Reject, Turns, delivery_key, feed_state_key,
    import_key, index_import,
};
use state::load;

use crate::support::{START, World, munchkin};

const AUDIENCE: &str = "aep:11111111-2222-3333-4444-555555555555";

/// Pointers and details of what is wrong.
fn wrong(world: &World, body: &Value) -> BTreeMap<String, String> {
    let (status, problem) = world.put("/feeds/f", body);
    assert_eq!(status, 400, "{body} -> {problem}");
    let errors = problem["errors"].as_array().expect("errors").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    errors.map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
}

#[test]
fn the_feed_of_files_is_declared_as_ever() {
    let world = World::new();
    let body = json!({"snapshots": true, "completeness": "single-file"});
    let (status, feed) = world.put("/feeds/default", &body);
    assert_eq!(status, 200);
    let expected = json!({
        "id": "default", "kind": "aam-files", "declared": true, "snapshots": true, "completeness": "single-file",
        "quiet_minutes": 30, "lag_minutes": 0, "every_hours": 24,
        "lateness": "this feed is delivered once a day; the list can be up to 26 hours behind Adobe",
        "came": {"named": {}, "met_at": null},
        "would_have_left": feed["would_have_left"],
        "under_way": [],
    });
    assert_eq!(feed, expected);
    let sentence = feed["would_have_left"]["sentence"].as_str().expect("words");
    assert!(sentence.contains("no full delivery") && sentence.contains("cannot be shown"), "{sentence}");
    assert_eq!(feed["would_have_left"]["deliveries"], json!([]));
    assert_eq!(world.get("/feeds").1, json!([expected]));
    assert_eq!(world.put("/feeds/a%20b", &body).0, 400);
}

#[test]
fn every_kind_takes_its_own_settings() {
    let world = World::new();
    let all = [
        json!({
            "kind": "aam-files", "snapshots": true, "completeness": "info", "quiet_minutes": 5, "lag_minutes": 60,
            "every_hours": 12,
        }),
        json!({
            "kind": "aep-files", "snapshots": true, "full": true, "completeness": "manifest", "quiet_minutes": 1440,
            "lag_minutes": 10080, "every_hours": 744, "audiences": [AUDIENCE], "ecid_column": "ecid",
            "status_column": "state", "status_inside": ["in"], "status_outside": ["out"],
        }),
        json!({
            "kind": "aam-stream", "ecid_field": "DataPartner_UUID", "signature_header": "x-adobe-hmac",
            "signature": "md5",
        }),
        json!({"kind": "aep-stream", "audiences": [AUDIENCE]}),
    ];
    for body in all {
        let id = body["kind"].as_str().expect("a kind");
        let (status, feed) = world.put(&format!("/feeds/{id}"), &body);
        assert_eq!(status, 200, "{feed}");
        for (field, value) in body.as_object().expect("settings") {
            assert_eq!(&feed[field], value, "{id} {field}");
        }
    }
    let feeds = world.get("/feeds").1;
    let kinds: Vec<&Value> = feeds.as_array().expect("feeds").iter().map(|feed| &feed["kind"]).collect();
    assert_eq!(kinds, ["aam-files", "aam-stream", "aep-files", "aep-stream"]);
    assert_eq!((&feeds[1]["snapshots"], &feeds[1]["lateness"]), (&Value::Null, &Value::Null));
    let (_, feed) = world.put(
        "/feeds/aam-stream",
        &json!({
            "kind": "aam-stream", "ecid_field": "AAM_UUID", "signature_header": "X-Signed",
        }),
    );
    assert_eq!((&feed["signature_header"], &feed["signature"]), (&json!("x-signed"), &json!("sha256")));
}

#[test]
fn each_wrong_setting_is_named_with_what_would_be_right() {
    let world = World::new();
    for (body, pointer, words) in [
        (json!({}), "/snapshots", "true or false"),
        (json!({"snapshots": "yes"}), "/snapshots", "true or false"),
        (json!({"kind": "files"}), "/kind", "\"aam-files\", \"aep-files\", \"aam-stream\", \"aep-stream\""),
        (
            json!({"snapshots": true, "completeness": "guess"}),
            "/completeness",
            "\"single-file\", \"info\", \"quiet-period\"",
        ),
        (json!({"snapshots": true, "completeness": "manifest"}), "/completeness", "\"info\""),
        (json!({"kind": "aep-files", "snapshots": false, "completeness": "info"}), "/completeness", "\"manifest\""),
        (json!({"snapshots": true, "quiet_minutes": 0}), "/quiet_minutes", "from 1 to 1440"),
        (json!({"snapshots": true, "lag_minutes": -1}), "/lag_minutes", "from 0 to 10080"),
        (json!({"snapshots": true, "every_hours": 24.5}), "/every_hours", "from 1 to 744"),
        (
            json!({"snapshots": true, "every_hour": 24}),
            "/every_hour",
            "no such setting; the settings of aam-files are kind, snapshots",
        ),
        (json!({"snapshots": true, "full": true}), "/full", "a setting of aep-files alone"),
        (json!({"snapshots": true, "audiences": []}), "/audiences", "aep-files and aep-stream alone"),
        (json!({"kind": "aep-files", "snapshots": true}), "/snapshots", "\"full\": true"),
        (json!({"kind": "aep-files", "snapshots": false, "full": 1}), "/full", "true or false"),
        (json!({"kind": "aep-files", "snapshots": false, "audiences": ["aam:101"]}), "/audiences", "aep:1111"),
        (json!({"kind": "aep-files", "snapshots": false, "ecid_column": " "}), "/ecid_column", "1 to 255 characters"),
        (json!({"kind": "aep-files", "snapshots": false, "status_inside": []}), "/status_inside", "1 to 20 words"),
        (
            json!({"kind": "aep-files", "snapshots": false, "status_outside": ["Realized"]}),
            "/status_outside",
            "stands in status_inside too",
        ),
        (json!({"kind": "aam-stream"}), "/ecid_field", "\"AAM_UUID\" or \"DataPartner_UUID\""),
        (json!({"kind": "aam-stream", "ecid_field": "UUID"}), "/ecid_field", "\"AAM_UUID\" or \"DataPartner_UUID\""),
        (
            json!({"kind": "aam-stream", "ecid_field": "AAM_UUID", "signature": "sha512"}),
            "/signature",
            "\"sha256\", \"sha1\", \"md5\"",
        ),
        (
            json!({"kind": "aam-stream", "ecid_field": "AAM_UUID", "signature_header": "a b"}),
            "/signature_header",
            "name of a header",
        ),
        (
            json!({"kind": "aam-stream", "ecid_field": "AAM_UUID", "snapshots": true}),
            "/snapshots",
            "aam-files and aep-files alone",
        ),
        (json!({"kind": "aep-stream", "ecid_field": "AAM_UUID"}), "/ecid_field", "aam-stream alone"),
    ] {
        let errors = wrong(&world, &body);
        assert!(
            errors.len() == 1 && errors.get(pointer).is_some_and(|detail| detail.contains(words)),
            "{body}: {errors:?}"
        );
    }
    let several = wrong(&world, &json!({"kind": "aep-files", "full": "x", "every_hours": 0, "signature": "md5"}));
    assert_eq!(several.keys().collect::<Vec<_>>(), ["/every_hours", "/full", "/signature", "/snapshots"]);
    assert_eq!(world.get("/feeds").1, json!([]), "nothing was declared");
}

#[test]
fn a_feed_keeps_its_kind() {
    let world = World::new();
    assert_eq!(world.put("/feeds/f", &json!({"snapshots": false})).0, 200);
    assert_eq!(world.put("/feeds/f", &json!({"snapshots": true})).0, 200, "its settings may change");
    let (status, problem) = world.put("/feeds/f", &json!({"kind": "aep-stream"}));
    assert_eq!((status, &problem["errors"][0]["pointer"]), (409, &json!("/kind")));
    assert!(problem["detail"].as_str().expect("words").contains("declared as aam-files"), "{problem}");
    assert_eq!(world.get("/feeds").1[0]["snapshots"], true);
}

fn full(delivery: &str, time: u64, absent: &[(u64, u64)], snapshot: bool) -> FullDelivery {
    let absent = absent.iter().map(|(sid, count)| (AudienceId::aam(*sid), *count)).collect();
    let held = BTreeMap::from([(AudienceId::aam(101), 900), (AudienceId::aam(103), 40)]);
    FullDelivery { delivery: delivery.into(), version: 1, time, held, absent, snapshot }
}

#[test]
fn turning_snapshots_on_shows_who_would_have_left() {
    let world = World::new();
    let state = FeedState {
        v: 1,
        named: BTreeMap::from([(AudienceId::aam(101), START)]),
        met_at: Some(START),
        full: vec![full("a", START, &[(101, 100), (103, 0)], false), full("b", START + 1_000, &[(101, 0)], true)],
        ..FeedState::default()
    };
    world.store(Table::Syncs, feed_state_key(&munchkin(), "default"), &state);
    let (_, feeds) = world.get("/feeds");
    assert_eq!((&feeds[0]["id"], &feeds[0]["declared"]), (&json!("default"), &json!(false)), "it came undeclared");

    let (_, feed) = world.put("/feeds/default", &json!({"snapshots": true, "completeness": "single-file"}));
    let left = &feed["would_have_left"];
    assert_eq!(
        left["deliveries"][1],
        json!({
            "delivery": "a", "time": "2026-11-20T00:00:00Z", "snapshot": false, "held": {"aam:101": 900, "aam:103": 40},
            "absent": {"aam:101": 100, "aam:103": 0}, "held_total": 940, "absent_total": 100,
            "sentence": "the full delivery of 2026-11-20T00:00:00Z held 940 memberships; 100 of before were absent from it \
                         (aam:101: 100), so that at most as many people would have left",
        })
    );
    assert_eq!((&left["deliveries"][0]["delivery"], &left["deliveries"][0]["absent_total"]), (&json!("b"), &json!(0)));
    assert!(left["deliveries"][0]["sentence"].as_str().expect("words").contains("nobody was absent"));
    assert_eq!(feed["came"], json!({"named": {"aam:101": "2026-11-20T00:00:00Z"}, "met_at": "2026-11-20T00:00:00Z"}));
    assert_eq!(world.get("/feeds").1, json!([feed]));
}

#[test]
fn what_a_stream_brought_is_shown_with_a_hint() {
    let world = World::new();
    world.put("/feeds/live", &json!({"kind": "aep-stream"}));
    let came = world.get("/feeds").1[0]["came"].clone();
    assert_eq!((&came["heard_at"], &came["taken"], &came["hint"]), (&Value::Null, &json!(0), &Value::Null));
    let state = FeedState {
        v: 1,
        heard_at: Some(START),
        taken: 5,
        ignored: 2,
        rejected: 1,
        rejects: vec![Reject::new(3, &RECORD_NO_ECID.with([("column", 2.into())]))],
        ..FeedState::default()
    };
    world.store(Table::Syncs, feed_state_key(&munchkin(), "live"), &state);
    let came = world.get("/feeds").1[0]["came"].clone();
    assert_eq!(
        (&came["heard_at"], &came["taken"], &came["ignored"], &came["rejected"]),
        (&json!("2026-11-20T00:00:00Z"), &json!(5), &json!(2), &json!(1))
    );
    let reason = "column 2 (ECID): expected an ECID of 38 digits";
    let rejected = json!({"line": 3, "reason": reason, "code": "record_no_ecid", "values": {"column": 2}});
    assert_eq!(came["rejects"], json!([rejected]));
    assert!(came["hint"].as_str().expect("words").contains("Include Segment Names"), "{came}");
}

fn import(world: &World, id: &str, delivery: Option<&str>, status: ImportStatus) {
    let import = Import {
        v: 1,
        id: id.into(),
        key: format!("incoming/{id}"),
        feed: "default".into(),
        delivery: delivery.map(str::to_owned),
        status,
        why: Some(Said::new("ids_meet_nobody_aam", "these look like <Audience Manager> UUIDs").with("looked", 7)),
        started_at: START,
        ended_at: None,
        rows: 0,
        rejected: 0,
        rejects: Vec::new(),
        taken: BTreeMap::new(),
        rejected_by: BTreeMap::new(),
        not_named: Vec::new(),
    };
    world.store(Table::Syncs, import_key(&munchkin(), id), &import);
    block_on(index_import(&world.deps, &munchkin(), START, id)).expect("a line");
}

fn delivery(world: &World, id: &str, held: Option<&str>) {
    let mut delivery = Delivery::new(&munchkin(), "default", id, START);
    delivery.held = held.map(|held| Said::of_before(held.to_owned()));
    world.store(Table::Syncs, delivery_key(&munchkin(), "default", id), &delivery);
}

#[test]
fn a_held_delivery_is_applied_or_dropped() {
    let world = World::new();
    import(&world, "held", Some("d1"), ImportStatus::Held);
    import(&world, "done", Some("d2"), ImportStatus::Done);
    import(&world, "info", None, ImportStatus::Done);
    delivery(&world, "d1", Some("these look like UUIDs"));
    delivery(&world, "d2", None);
    let (_, imports) = world.get("/imports");
    let held: Vec<&Value> =
        imports.as_array().expect("imports").iter().filter(|import| import["status"] == "held").collect();
    assert_eq!(held.len(), 1);
    assert_eq!((&held[0]["id"], &held[0]["why"]), (&json!("held"), &json!("these look like <Audience Manager> UUIDs")));
    assert_eq!((&held[0]["why_code"], &held[0]["why_values"]), (&json!("ids_meet_nobody_aam"), &json!({"looked": 7})));

    world.wait(5_000);
    for (decision, apply) in [("apply", true), ("apply", true), ("drop", false)] {
        let (status, answer) = world.post("/imports/decide", &json!({"import": "held", "decision": decision}));
        assert_eq!((status, &answer["delivery"]), (202, &json!("d1")), "{answer}");
        let key = delivery_key(&munchkin(), "default", "d1");
        let row = block_on(load::<Delivery>(&world.deps, Table::Syncs, &key)).expect("read").expect("a row").value;
        assert_eq!((row.decided, row.look_at), (Some(apply), Some(START + 5_000)));
    }
    for not_held in ["done", "info"] {
        let body = json!({"import": not_held, "decision": "apply"});
        assert_eq!(world.post("/imports/decide", &body).0, 409, "{not_held}");
    }
    assert_eq!(world.post("/imports/decide", &json!({"import": "x", "decision": "apply"})).0, 404);
    let (status, problem) = world.post("/imports/decide", &json!({"decision": "maybe", "why": "so"}));
    let errors = problem["errors"].as_array().expect("errors");
    let pointers: Vec<&Value> = errors.iter().map(|error| &error["pointer"]).collect();
    assert_eq!((status, pointers), (400, vec![&json!("/why"), &json!("/decision"), &json!("/import")]));
}

#[test]
fn what_is_being_taken_in_says_how_far_it_is() {
    let world = World::new();
    for (id, status) in [
        ("counting", ImportStatus::Running),
        ("taking", ImportStatus::Waiting),
        ("applied", ImportStatus::Held),
        ("held", ImportStatus::Held),
        ("waits", ImportStatus::Waiting),
        ("done", ImportStatus::Done),
    ] {
        import(&world, id, Some(id), status);
        let mut delivery = Delivery::new(&munchkin(), "default", id, START);
        delivery.version = 1;
        let since = if id == "taking" { START - 60_000 } else { START };
        delivery.turns = Turns { since, count: u64::from(id != "waits") * 3, in_vain: 1, ended: 0 };
        if id == "taking" {
            delivery.progress = Progress { plan: 7, taken: 12, entries: 30, ..Progress::default() };
        }
        delivery.held = ["applied", "held"].contains(&id).then(|| Said::new("too_large_to_count", "it is too large"));
        delivery.decided = Some(true).filter(|_| id == "applied");
        delivery.taken = Some(1).filter(|_| id == "done");
        world.store(Table::Syncs, delivery_key(&munchkin(), "default", id), &delivery);
    }
    let counting = |id: &str| {
        json!({
            "delivery": id, "step": "counting", "done": null, "of": null, "unit": null, "since": "2026-11-20T00:00:00Z",
            "invocations": 3, "sentence": "its entries are being counted",
        })
    };
    let taking = json!({
        "delivery": "taking", "step": "taking", "done": 12, "of": 30, "unit": "entries", "since": "2026-11-19T23:59:00Z",
        "invocations": 3, "sentence": "12 of its 30 entries are taken",
    });
    let (_, imports) = world.get("/imports");
    let shown: BTreeMap<&str, &Value> = imports
        .as_array()
        .expect("imports")
        .iter()
        .map(|row| (row["id"].as_str().expect("an id"), &row["progress"]))
        .collect();
    let none = Value::Null;
    let expected = [
        ("applied", &counting("applied")),
        ("counting", &counting("counting")),
        ("done", &none),
        ("held", &none),
        ("taking", &taking),
        ("waits", &none),
    ];
    assert_eq!(shown, expected.into());

    let (_, feed) = world.put("/feeds/default", &json!({"snapshots": true}));
    assert_eq!(feed["under_way"][0], taking, "the one that began first");
    assert_eq!(feed["under_way"].as_array().map(Vec::len), Some(3));
    world.put("/feeds/other", &json!({"snapshots": true}));
    let (_, feeds) = world.get("/feeds");
    assert_eq!((&feeds[0], &feeds[1]["under_way"]), (&feed, &json!([])));

    let (_, sync) = world.post("/syncs", &json!({"audience_id": "aam:102", "list": {"id": 1001}}));
    assert_eq!(
        sync["progress"],
        json!({
            "step": "reading_delivery", "done": 12, "of": 30, "unit": "entries", "estimate_seconds": null,
            "sentence": "No delivery has named the audience yet. One is being read: 12 of its 30 entries are taken.",
        })
    );
}
