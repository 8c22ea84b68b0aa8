//! The set-up check, row by row, over doubles in the state that each row is about.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use create_sync::{Caller, Request, Role};
use domain::limits::{DAY_MS, HOUR_MS};
use domain::{AudienceId, Said};
use doubles::marketo::{Kind, Permission, Settings};
use futures::executor::block_on;
use ports::{Expect, Key, Table};
use serde_json::{Value, json};
use state::feeds::{
    Feed, FeedState, FullDelivery, Import, ImportStatus, Kind as FeedKind, feed_key, feed_state_key, import_key,
    index_import,
};
use state::identity::{Intake, intake_key};
use state::syncs::{Extract, IdentityHead, identity_key};

use crate::support::{MUNCHKIN, ORG, START, World, munchkin};

const PAGE: &str = "https://www.example.com";

/// The answer, made anew, as though nobody had asked before.
fn check(world: &World) -> Value {
    for subscription in [MUNCHKIN, "none"] {
        let key = Key::new(subscription, "setup");
        block_on(world.deps.ports.tables.delete(Table::Syncs, &key, Expect::Anything)).expect("deleted");
    }
    let (status, answer) = world.get("/setup?fresh=1");
    assert_eq!(status, 200, "{answer}");
    answer
}

/// A row: its status and its reason.
fn row<'a>(answer: &'a Value, code: &str) -> &'a Value {
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["code"] == code).unwrap_or_else(|| panic!("no row {code}: {answer}"))
}

#[track_caller]
fn assert_row(answer: &Value, code: &str, status: &str, reason: &str) {
    let row = row(answer, code);
    assert_eq!((&row["status"], &row["values"]["reason"]), (&json!(status), &json!(reason)), "{row}");
    for member in ["title", "tried", "means", "who", "where", "area"] {
        assert!(row[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {row}");
    }
}

fn means(answer: &Value, code: &str) -> String {
    row(answer, code)["means"].as_str().expect("words").to_owned()
}

fn codes(answer: &Value, status: &str) -> Vec<String> {
    let rows = answer["rows"].as_array().expect("rows").iter().filter(|row| row["status"] == status);
    rows.map(|row| row["code"].as_str().expect("a code").to_owned()).collect()
}

fn declare(world: &World, change: &Value) {
    let mut body = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "origins": [PAGE]});
    body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    assert_eq!(world.put("/subscription", &body).0, 200);
}

fn feed_state(world: &World, feed: &str, state: &FeedState) {
    world.store(Table::Syncs, feed_state_key(&munchkin(), feed), state);
}

fn import(world: &World, feed: &str, at: u64, status: ImportStatus, why: Option<&str>) -> Import {
    let import = Import {
        v: 1,
        id: format!("import-{at}"),
        key: format!("incoming/{feed}/file"),
        feed: feed.to_owned(),
        delivery: None,
        status,
        why: why.map(|why| Said::of_before(why.to_owned())),
        started_at: at,
        ended_at: Some(at + 1),
        rows: 10,
        rejected: 0,
        rejects: Vec::new(),
        taken: [(AudienceId::aam(101), 10)].into(),
        rejected_by: [].into(),
        not_named: Vec::new(),
    };
    world.store(Table::Syncs, import_key(&munchkin(), &import.id), &import);
    block_on(index_import(&world.deps, &munchkin(), at, &import.id)).expect("a line");
    import
}

fn put(world: &World, key: &str) {
    block_on(world.deps.ports.objects.put(key, Bytes::from_static(b"row"))).expect("stored");
}

/// What pages have shown, with so many page views of which so many carried both cookies.
fn pages(world: &World, at: u64, all: u64, both: u64) {
    let mut intake = Intake { v: 1, new_public: 5, ..Intake::default() };
    intake.saw(at, all, both);
    world.store(Table::Identity, intake_key(&munchkin(), at), &intake);
}

/// A world in which everything has been set up and has worked.
fn well() -> World {
    let world = World::with_platform();
    declare(&world, &json!({}));
    let (status, _) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"name": "New"}}));
    assert_eq!(status, 201);
    let body = json!({"kind": "aam-files", "snapshots": true});
    assert_eq!(world.put("/feeds/default", &body).0, 200);
    assert_eq!(world.put("/feeds/live", &json!({"kind": "aep-stream"})).0, 200);
    let full = FullDelivery {
        delivery: "d".into(),
        version: 1,
        time: START,
        held: [(AudienceId::aam(101), 10)].into(),
        absent: [(AudienceId::aam(101), 3)].into(),
        snapshot: true,
    };
    feed_state(&world, "default", &FeedState { v: 1, met_at: Some(START), full: vec![full], ..FeedState::default() });
    feed_state(&world, "live", &FeedState { v: 1, heard_at: Some(START), taken: 4, ..FeedState::default() });
    import(&world, "default", START, ImportStatus::Done, None);
    put(&world, "incoming/S3_1_2_full_1795132800000.sync.gz");
    pages(&world, START, 10, 9);
    world.marketo().clear_calls();
    world
}

/// Calls to Marketo since the log was cleared, without those for a token.
fn calls(world: &World) -> Vec<Kind> {
    world.marketo().calls().iter().map(|call| call.kind).filter(|kind| *kind != Kind::Token).collect()
}

#[test]
fn where_everything_is_set_up_every_row_is_ok() {
    let world = well();
    let answer = check(&world);
    assert_eq!(answer["checked_at"], "2026-11-20T00:00:00Z");
    assert_eq!(
        codes(&answer, "ok"),
        [
            "subscription",
            "hipaa",
            "ims_organisation",
            "cookie_sync",
            "marketo_credentials",
            "marketo_ip_allowlist",
            "marketo_read_lead",
            "marketo_read_write_lead",
            "marketo_read_activity",
            "marketo_read_asset",
            "marketo_read_write_asset",
            "marketo_quota",
            "marketo_ecids",
            "adobe_credentials",
            "audience_manager_library",
            "experience_platform_library",
            "experience_platform_folders",
            "bucket",
            "last_file",
            "id_type",
            "snapshot",
            "stream",
            "tag_seen",
            "tag_cookies",
        ],
        "{answer}"
    );
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(24));
    for row in answer["rows"].as_array().expect("rows") {
        let code = row["code"].as_str().expect("a code");
        assert_row(&answer, code, "ok", row["values"]["reason"].as_str().expect("a reason"));
    }
    // Each asks once, nothing is changed, and nobody who exists is named.
    use Kind::{Activities, Folders, IsMember, Leads, Lists, PagingToken, Usage};
    assert_eq!(calls(&world), [Usage, Leads, Lists, IsMember, PagingToken, Folders]);
    assert!(!calls(&world).contains(&Activities));
    assert!(!answer.to_string().contains("sample-secret"), "{answer}");
}

#[test]
fn before_anything_is_set_up_the_rows_say_where_to_begin() {
    let world = World::bare();
    let answer = check(&world);
    assert_row(&answer, "subscription", "not_ok", "none");
    assert_row(&answer, "adobe_credentials", "ok", "taken");
    assert_row(&answer, "audience_manager_library", "ok", "shown");
    assert_row(&answer, "bucket", "not_seen_yet", "empty");
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(4));
    assert_eq!(calls(&world), []);

    let world = World::new();
    let answer = check(&world);
    assert_row(&answer, "marketo_read_write_asset", "not_seen_yet", "not_used_yet");
    assert_row(&answer, "experience_platform_library", "not_used", "no_sandbox");
    assert_row(&answer, "experience_platform_folders", "not_used", "no_sandbox");
    assert_row(&answer, "last_file", "not_seen_yet", "none");
    assert_row(&answer, "id_type", "not_seen_yet", "no_file");
    assert_row(&answer, "snapshot", "not_used", "switched_off");
    assert_row(&answer, "stream", "not_used", "none");
    assert_row(&answer, "tag_seen", "not_used", "no_origins");
    assert_eq!(codes(&answer, "not_ok"), Vec::<String>::new());
}

#[test]
fn a_hipaa_ready_instance_is_not_asked_anything() {
    let world = well();
    declare(&world, &json!({"hipaa_ready": true}));
    let answer = check(&world);
    assert_row(&answer, "hipaa", "not_ok", "marked");
    for code in ["marketo_credentials", "marketo_ip_allowlist", "marketo_read_lead", "marketo_quota", "marketo_ecids"] {
        assert_row(&answer, code, "not_seen_yet", "hipaa");
    }
    assert_row(&answer, "tag_seen", "not_used", "closed");
    assert!(world.marketo().calls().is_empty(), "not even for a token");
}

#[test]
fn an_organisation_that_is_not_mapped_and_cookie_sync_that_is_off_are_named() {
    let world = well();
    declare(&world, &json!({"org_id": null}));
    let answer = check(&world);
    assert_row(&answer, "ims_organisation", "not_ok", "not_mapped");
    assert_row(&answer, "experience_platform_library", "not_seen_yet", "no_organisation");
    // Whoever sets up can try the rest already.
    assert_row(&answer, "marketo_read_lead", "ok", "granted");

    declare(&world, &json!({"cookie_sync": false}));
    let answer = check(&world);
    assert_row(&answer, "ims_organisation", "ok", "mapped");
    assert_row(&answer, "cookie_sync", "not_ok", "off");
    assert_row(&answer, "marketo_ecids", "not_used", "cookie_sync_off");
    assert_row(&answer, "tag_cookies", "not_used", "closed");
}

#[test]
fn credentials_that_marketo_does_not_take_are_named_though_an_older_token_is_still_good() {
    let world = well();
    assert_row(&check(&world), "marketo_credentials", "ok", "taken");
    world.marketo().clear_calls();
    world.marketo().set_secret("another-secret");
    let answer = check(&world);
    assert_row(&answer, "marketo_credentials", "not_ok", "refused");
    assert_row(&answer, "marketo_ip_allowlist", "not_seen_yet", "not_signed_in");
    for code in ["marketo_read_lead", "marketo_read_write_lead", "marketo_read_activity", "marketo_read_asset"] {
        assert_row(&answer, code, "not_seen_yet", "not_tried");
    }
    assert_row(&answer, "marketo_ecids", "not_seen_yet", "not_tried");
    assert_row(&answer, "marketo_quota", "ok", "left_by_our_count");
    assert_eq!(calls(&world), []);
    assert!(!answer.to_string().contains("sample-secret"), "{answer}");
}

#[test]
fn each_missing_permission_has_its_own_row() {
    let world = well();
    for (permission, code) in [
        (Permission::ReadLead, "marketo_read_lead"),
        (Permission::ReadWriteLead, "marketo_read_write_lead"),
        (Permission::ReadActivity, "marketo_read_activity"),
        (Permission::ReadAsset, "marketo_read_asset"),
    ] {
        world.marketo().set_missing([permission]);
        let answer = check(&world);
        assert_row(&answer, code, "not_ok", "missing");
        assert_eq!(codes(&answer, "not_ok"), [code], "{answer}");
        assert_row(&answer, "marketo_ip_allowlist", "ok", "open");
        assert!(row(&answer, code)["where"].as_str().expect("words").contains("Roles"));
    }
    // Who may not read people cannot be told about their fields.
    world.marketo().set_missing([Permission::ReadLead]);
    assert_row(&check(&world), "marketo_ecids", "not_seen_yet", "denied");
    // Nobody tries to make a list; one that was made before tells.
    world.marketo().set_missing([Permission::ReadWriteAsset]);
    assert_row(&check(&world), "marketo_read_write_asset", "ok", "used");
}

#[test]
fn an_address_outside_of_the_allow_list_is_told_from_a_missing_permission() {
    let world = well();
    world.marketo().set_allowlisted(false);
    let answer = check(&world);
    assert_row(&answer, "marketo_credentials", "ok", "taken");
    assert_row(&answer, "marketo_ip_allowlist", "not_ok", "shut");
    for code in ["marketo_read_lead", "marketo_read_write_lead", "marketo_read_activity", "marketo_read_asset"] {
        assert_row(&answer, code, "not_seen_yet", "shut");
    }
    assert_eq!(codes(&answer, "not_ok"), ["marketo_ip_allowlist"]);
    // A role with nothing but the right to ask for the usage is no matter of the address.
    world.marketo().set_allowlisted(true);
    use Permission::{ReadActivity, ReadAsset, ReadLead, ReadWriteAsset, ReadWriteLead};
    world.marketo().set_missing([ReadLead, ReadWriteLead, ReadActivity, ReadAsset, ReadWriteAsset]);
    let answer = check(&world);
    assert_row(&answer, "marketo_ip_allowlist", "ok", "open");
    assert_eq!(codes(&answer, "not_ok").len(), 4);
}

#[test]
fn an_instance_without_the_field_ecids_is_named() {
    let world = well();
    world.marketo().set_ecids_field(false);
    let answer = check(&world);
    assert_row(&answer, "marketo_ecids", "not_ok", "missing");
    assert_row(&answer, "marketo_read_lead", "ok", "granted");
    assert_eq!(codes(&answer, "not_ok"), ["marketo_ecids"]);
    // What the daily extract was told, where the field is there by now, and where nobody may look.
    let extract = Extract { no_ecids: true, ..Extract::default() };
    world.store(Table::Syncs, identity_key(&munchkin()), &IdentityHead { v: 1, extract, ..IdentityHead::default() });
    world.marketo().set_ecids_field(true);
    assert_row(&check(&world), "marketo_ecids", "not_ok", "came_late");
    world.marketo().set_missing([Permission::ReadLead]);
    assert_row(&check(&world), "marketo_ecids", "not_ok", "missing");
}

#[test]
fn what_is_left_of_the_day_and_who_uses_it_is_shown() {
    let world = well();
    world.marketo().others_used(START, 1_000);
    let answer = check(&world);
    assert_row(&answer, "marketo_quota", "ok", "left");
    let values = &row(&answer, "marketo_quota")["values"];
    // The last of our calls may not be in Marketo's count yet.
    assert!((990..=1_000).contains(&values["others"].as_u64().expect("a number")), "{values}");
    assert_eq!((&values["per_day"], &values["share"]), (&json!(50_000), &json!(25_000)));
    let users: Vec<_> = values["users"].as_array().expect("users").iter().map(|user| &user["user"]).collect();
    assert_eq!(users, ["api@example.com", "other@example.com"]);
    assert_eq!(values["users"][1]["calls"], 1_000);
    let (left, ours) = (values["left"].as_u64().expect("a number"), values["ours"].as_u64().expect("a number"));
    assert_eq!(left + ours, 25_000);

    world.marketo().others_used(START, 29_500);
    let answer = check(&world);
    assert_row(&answer, "marketo_quota", "not_ok", "others_use_more");
    assert!(means(&answer, "marketo_quota").contains("of the day's 50000 calls"), "{answer}");

    // Nothing is left: Marketo answers 607, and nothing else is tried.
    world.marketo().others_used(START, 30_000);
    world.marketo().clear_calls();
    let answer = check(&world);
    assert_row(&answer, "marketo_quota", "not_ok", "used_up");
    assert_row(&answer, "marketo_credentials", "ok", "taken");
    assert_row(&answer, "marketo_read_lead", "not_seen_yet", "not_tried");
    assert_row(&answer, "marketo_ip_allowlist", "not_seen_yet", "limits");
    assert_eq!(calls(&world), [Kind::Usage]);
}

#[test]
fn a_busy_moment_is_no_fault() {
    let world = World::with(Settings { limits: true, ..Settings::default() });
    for _ in 0..100 {
        assert!(world.marketo().other_call(START, 0));
    }
    let answer = check(&world);
    assert_row(&answer, "marketo_quota", "ok", "left_by_our_count");
    assert_row(&answer, "marketo_ip_allowlist", "not_seen_yet", "limits");
    assert_row(&answer, "marketo_read_lead", "not_seen_yet", "not_tried");
    assert_eq!(codes(&answer, "not_ok"), Vec::<String>::new());
}

#[test]
fn what_adobe_refuses_is_told_apart() {
    let world = well();
    world.adobe().refuse_manager(true);
    let answer = check(&world);
    assert_row(&answer, "adobe_credentials", "ok", "taken");
    assert_row(&answer, "audience_manager_library", "not_ok", "refused");
    assert!(means(&answer, "audience_manager_library").contains("group"));
    assert_eq!(codes(&answer, "not_ok"), ["audience_manager_library"]);

    world.adobe().refuse_manager(false);
    world.adobe().refuse_platform(Some("UPAPI-113752"));
    let answer = check(&world);
    assert_eq!(codes(&answer, "not_ok"), ["experience_platform_library", "experience_platform_folders"]);
    assert!(means(&answer, "experience_platform_library").contains("UPAPI-113752"));
    assert_eq!(row(&answer, "experience_platform_library")["values"]["sandbox"], "prod");

    world.adobe().refuse_platform(None);
    world.adobe().set_secret("another-secret");
    let answer = check(&world);
    assert_eq!(codes(&answer, "not_ok"), ["adobe_credentials"]);
    for code in ["audience_manager_library", "experience_platform_library", "experience_platform_folders"] {
        assert_row(&answer, code, "not_seen_yet", "not_signed_in");
    }

    world.adobe().set_secret("sample-secret");
    world.outside.no_manager.store(true, Ordering::Relaxed);
    let answer = check(&world);
    assert_row(&answer, "audience_manager_library", "not_seen_yet", "no_answer");
    assert_row(&answer, "experience_platform_library", "ok", "shown");
}

#[test]
fn who_uses_experience_platform_alone_does_not_need_audience_manager() {
    let world = World::with_platform();
    world.adobe().refuse_manager(true);
    assert_row(&check(&world), "audience_manager_library", "not_used", "not_needed");
    assert_eq!(world.put("/feeds/default", &json!({"snapshots": false})).0, 200);
    assert_row(&check(&world), "audience_manager_library", "not_ok", "refused");
}

#[test]
fn a_bucket_that_may_not_be_listed_or_read_is_named() {
    let world = well();
    world.outside.no_reading.store(true, Ordering::Relaxed);
    let answer = check(&world);
    assert_row(&answer, "bucket", "not_ok", "not_readable");
    assert!(means(&answer, "bucket").contains("object ownership"));
    world.outside.no_listing.store(true, Ordering::Relaxed);
    assert_row(&check(&world), "bucket", "not_ok", "not_listed");

    // Files are kept for 35 days; their records for longer.
    let world = World::new();
    import(&world, "default", START, ImportStatus::Done, None);
    assert_row(&check(&world), "bucket", "ok", "came_before");
}

#[test]
fn the_last_file_of_a_feed_tells_whether_it_was_taken_in() {
    let world = well();
    for (at, status, reason) in [
        (START + 1, ImportStatus::Running, "under_way"),
        (START + 2, ImportStatus::Waiting, "under_way"),
        (START + 3, ImportStatus::Done, "taken"),
    ] {
        import(&world, "default", at, status, None);
        assert_row(&check(&world), "last_file", "ok", reason);
    }
    import(&world, "default", START + 4, ImportStatus::Refused, Some("its name says nothing"));
    let answer = check(&world);
    assert_row(&answer, "last_file", "not_ok", "refused");
    assert!(means(&answer, "last_file").contains("its name says nothing"));
    assert_eq!(row(&answer, "last_file")["values"]["feed"], "default");
    let mut rejected = import(&world, "default", START + 5, ImportStatus::Done, None);
    rejected.rejected = 10;
    world.store(Table::Syncs, import_key(&munchkin(), &rejected.id), &rejected);
    assert_row(&check(&world), "last_file", "not_ok", "all_rejected");
    import(&world, "default", START + 6, ImportStatus::Done, None);
    world.wait(3 * DAY_MS);
    let answer = check(&world);
    assert_row(&answer, "last_file", "not_ok", "overdue");
    assert_eq!(row(&answer, "last_file")["values"]["every_hours"], 24);
}

#[test]
fn the_last_file_of_each_feed_is_found_among_the_newest_five_hundred() {
    let world = World::new();
    let body = json!({"kind": "aam-files", "snapshots": false});
    for feed in ["busy", "quiet", "silent"] {
        assert_eq!(world.put(&format!("/feeds/{feed}"), &body).0, 200);
    }
    import(&world, "silent", START, ImportStatus::Done, None);
    import(&world, "quiet", START + 1, ImportStatus::Refused, Some("its name says nothing"));
    import(&world, "quiet", START + 2, ImportStatus::Done, None);
    for at in 3..=501 {
        import(&world, "busy", START + at, ImportStatus::Done, None);
    }
    let answer = check(&world);
    let rows = answer["rows"].as_array().expect("rows").iter().filter(|row| row["code"] == "last_file");
    let found: Vec<_> = rows.map(|row| (&row["values"]["feed"], &row["values"]["import"])).collect();
    let id = |after: u64| json!(format!("import-{}", START + after));
    let wanted = [("busy", id(501)), ("quiet", id(2)), ("silent", Value::Null)];
    let wanted: Vec<(Value, Value)> = wanted.into_iter().map(|(feed, import)| (json!(feed), import)).collect();
    assert_eq!(found, wanted.iter().map(|(feed, import)| (feed, import)).collect::<Vec<_>>());
}

#[test]
fn ids_that_met_nobody_are_told_from_ecids() {
    let world = well();
    assert_row(&check(&world), "id_type", "ok", "met");
    feed_state(&world, "default", &FeedState { v: 1, ..FeedState::default() });
    assert_row(&check(&world), "id_type", "not_seen_yet", "not_met");
    import(&world, "default", START + 1, ImportStatus::Held, Some("none of its ids was ever met"));
    let answer = check(&world);
    assert_row(&answer, "id_type", "not_ok", "held");
    assert_row(&answer, "last_file", "not_ok", "held");
    feed_state(&world, "default", &FeedState { v: 1, believed: true, ..FeedState::default() });
    assert_row(&check(&world), "id_type", "ok", "believed");
}

#[test]
fn whether_anybody_leaves_by_being_absent_is_shown() {
    let world = well();
    let answer = check(&world);
    assert_row(&answer, "snapshot", "ok", "taken");
    assert_eq!(row(&answer, "snapshot")["values"]["absent"], 3);
    feed_state(&world, "default", &FeedState { v: 1, ..FeedState::default() });
    assert_row(&check(&world), "snapshot", "not_seen_yet", "none");
    let feed = Feed::new("default", FeedKind::AamFiles);
    world.store(Table::Syncs, feed_key(&munchkin(), "default"), &feed);
    assert_row(&check(&world), "snapshot", "not_used", "switched_off");
    world.store(Table::Syncs, feed_key(&munchkin(), "default"), &Feed { kind: FeedKind::AepFiles, ..feed });
    assert_row(&check(&world), "snapshot", "not_used", "incremental");
}

#[test]
fn each_declared_feed_has_rows_of_its_own() {
    let world = well();
    assert_eq!(world.put("/feeds/daily", &json!({"kind": "aep-files", "snapshots": false})).0, 200);
    let answer = check(&world);
    let of = |code: &str| -> Vec<&Value> {
        let rows = answer["rows"].as_array().expect("rows").iter().filter(|row| row["code"] == code);
        rows.map(|row| &row["values"]["feed"]).collect()
    };
    for code in ["last_file", "id_type", "snapshot"] {
        assert_eq!(of(code), ["daily", "default"], "{code}");
    }
    assert_eq!(of("stream"), ["live"]);
}

#[test]
fn a_stream_is_heard_or_not() {
    let world = well();
    feed_state(&world, "live", &FeedState::default());
    assert_row(&check(&world), "stream", "not_seen_yet", "not_heard");
    feed_state(&world, "live", &FeedState { v: 1, rejected: 4, ..FeedState::default() });
    assert_row(&check(&world), "stream", "not_ok", "nothing_taken");
    feed_state(&world, "live", &FeedState { v: 1, heard_at: Some(START), taken: 1, ..FeedState::default() });
    assert_row(&check(&world), "stream", "ok", "heard");
    world.wait(49 * HOUR_MS);
    assert_row(&check(&world), "stream", "not_ok", "silent");
}

#[test]
fn the_tag_is_seen_in_the_last_hour_or_not() {
    let world = World::new();
    declare(&world, &json!({}));
    let answer = check(&world);
    assert_row(&answer, "tag_seen", "not_seen_yet", "never");
    assert_row(&answer, "tag_cookies", "not_seen_yet", "no_views");

    // Of the hour before, which is yesterday's: it is just after midnight.
    pages(&world, START - HOUR_MS / 2, 10, 4);
    let answer = check(&world);
    assert_row(&answer, "tag_seen", "ok", "seen");
    assert_row(&answer, "tag_cookies", "not_ok", "few");
    assert_eq!(row(&answer, "tag_cookies")["values"]["share"], 0.4);
    assert_eq!(row(&answer, "tag_seen")["values"]["last_at"], "2026-11-19T23:30:00Z");

    pages(&world, START, 10, 10);
    let answer = check(&world);
    assert_eq!(
        (&row(&answer, "tag_cookies")["values"]["all"], &row(&answer, "tag_cookies")["values"]["both"]),
        (&json!(20), &json!(14))
    );
    assert_row(&answer, "tag_cookies", "ok", "carried");
    assert!(means(&answer, "tag_cookies").contains("not counted"), "what it leaves out is said");

    world.wait(3 * HOUR_MS);
    let answer = check(&world);
    assert_row(&answer, "tag_seen", "not_ok", "silent");
    assert_row(&answer, "tag_cookies", "not_seen_yet", "no_views");
}

#[test]
fn an_answer_is_given_again_for_a_minute_unless_asked_or_set_up_otherwise() {
    let world = well();
    world.get("/setup");
    let first = world.get("/setup").1;
    let made = calls(&world).len();
    world.marketo().set_missing([Permission::ReadLead]);
    world.wait(59_000);
    assert_eq!(world.get("/setup").1, first);
    assert_eq!(world.get("/setup?for=sync").1, first);
    assert_eq!(calls(&world).len(), made, "it costs nothing");
    // A viewer's wish for another one costs nothing either; an operator's is heard once a minute.
    assert_eq!(as_viewer(&world, &[("fresh", "1")])["checked_at"], first["checked_at"]);
    assert_eq!(calls(&world).len(), made);
    assert_ne!(world.get("/setup?fresh=1").1["checked_at"], first["checked_at"]);
    assert_eq!(calls(&world).len(), 2 * made);
    world.get("/setup?fresh=1");
    assert_eq!(calls(&world).len(), 2 * made);

    declare(&world, &json!({"cookie_sync": false}));
    assert_row(&world.get("/setup").1, "cookie_sync", "not_ok", "off");
    assert_eq!(calls(&world).len(), 3 * made);
    world.get("/setup?fresh=1");
    assert_eq!(calls(&world).len(), 3 * made, "that there is another answer opens no door");
    world.wait(60_000);
    assert_ne!(world.get("/setup").1["checked_at"], first["checked_at"]);
    assert_eq!(calls(&world).len(), 4 * made);
    world.get("/setup?fresh=1");
    assert_eq!(calls(&world).len(), 5 * made);
    assert_eq!(world.rows("setup"), ["setup"], "one row, which is written over");
}

/// As somebody who may look and no more.
fn as_viewer(world: &World, query: &[(&str, &str)]) -> Value {
    let request = Request {
        method: "GET".into(),
        path: "/setup".into(),
        query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        caller: Some(Caller { name: "viewer".into(), role: Role::Viewer }),
        ..Request::default()
    };
    let response = block_on(create_sync::handle(&world.deps, request, world.deps.now() + 30_000));
    crate::contract::check("GET", "/setup", &response);
    assert_eq!(response.status, 200);
    serde_json::from_slice(&response.body).expect("JSON")
}

#[test]
fn who_makes_marketos_calls_is_told_to_operators_and_kept_nowhere() {
    let world = well();
    world.marketo().others_used(START, 1_000);
    let whole = check(&world);
    assert!(whole.to_string().contains("other@example.com"), "{whole}");
    // What is kept, and what a viewer is told who is the first to ask.
    let kept = as_viewer(&world, &[]);
    world.wait(60_000);
    let made = as_viewer(&world, &[]);
    assert_ne!(kept["checked_at"], made["checked_at"]);
    for answer in [kept, made] {
        let values = &row(&answer, "marketo_quota")["values"];
        assert_eq!((&values["user_count"], &values["users"]), (&json!(2), &Value::Null), "{values}");
        assert!(!answer.to_string().contains("@example.com"), "{answer}");
    }
    for ((table, key), item) in world.tables() {
        assert!(!item.doc.to_string().contains("other@example.com"), "{table:?} {key:?}");
    }
}

#[test]
fn an_answer_that_is_too_large_to_be_kept_is_given_all_the_same() {
    let world = well();
    import(&world, "default", START + 1, ImportStatus::Refused, Some(&"no ".repeat(100_000)));
    let answer = check(&world);
    assert_row(&answer, "last_file", "not_ok", "refused");
    assert!(world.rows("setup").is_empty());
}

#[test]
fn what_could_not_be_tried_in_time_says_so() {
    let world = well();
    let request =
        Request { method: "GET".into(), path: "/setup".into(), caller: Some(Caller::local()), ..Request::default() };
    let response = block_on(create_sync::handle(&world.deps, request, START + 1_000));
    let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
    for code in ["marketo_credentials", "adobe_credentials", "bucket"] {
        assert_row(&answer, code, "not_seen_yet", "not_in_time");
    }
    assert_row(&answer, "marketo_read_lead", "not_seen_yet", "not_tried");
    // What is stored is shown all the same.
    assert_row(&answer, "last_file", "ok", "taken");
    assert!(world.marketo().calls().is_empty());
}

#[test]
fn nothing_is_written_but_the_answer() {
    let world = well();
    let mut before = world.tables();
    world.rung();
    for _ in 0..3 {
        check(&world);
    }
    let mut after = world.tables();
    // The answer, and how many calls were made.
    for sort_key in ["setup", "budget"] {
        let key = (Table::Syncs, ports::Key::new(MUNCHKIN, sort_key));
        before.remove(&key);
        assert!(after.remove(&key).is_some(), "{sort_key}");
    }
    assert_eq!(after, before);
    assert!(world.rung().is_empty());
    assert_eq!(world.list_names(), ["VIP", "<script>alert(1)</script>", "New"]);
}
