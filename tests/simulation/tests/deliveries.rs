//! Files of every shape: whole or in parts, with a control file or without, early, late, twice, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Waker};

use domain::limits::{DAY_MS, FUNCTION_MS};
use domain::sayings::{IDS_MEET_NOBODY_AAM, NEVER_WHOLE, NOT_WHOLE_ROWS};
use domain::{AudienceId, MunchkinId};
use doubles::adobe::{Columns, Info, Key, Numbering, Outbound, Shape};
use ports::Table;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scheduled_incremental_sync::{Arrival, arrived};
use serde_json::{Value, json};
use simulation::driver::settings;
use simulation::fakes::{etag, run};
use simulation::scenario::{BEGIN, LIST, MUNCHKIN, ORG, Scenario, ecid, instance, token};
use state::Settings;
use state::audience::{Head, head_key};
use state::facts::RUNS_KEPT;
use state::feeds::{FeedState, Import, ImportStatus};
use world::types::{Audience, Lead};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Six people, each with a browser of their own; audience 101 feeds the list.
fn world(feed: &Value) -> Scenario {
    let lead =
        |id: u64| Lead { id, email: Some(format!("p{id}@example.com")), cookies: vec![token(id)], ecids: Vec::new() };
    let data = instance((1..=6).map(lead).collect(), BTreeSet::new());
    let mut scenario = Scenario::with(1, SmallRng::seed_from_u64(1), data);
    declare(&mut scenario, "default", feed);
    for n in 1..=6 {
        scenario.see(n, n);
    }
    scenario.create(101, &json!({"id": LIST})).expect("a sync");
    scenario
}

fn declare(scenario: &mut Scenario, id: &str, feed: &Value) -> Value {
    let (status, answer) = scenario.request("PUT", &format!("/feeds/{id}"), feed);
    assert!(status < 300, "{status} {answer}");
    answer
}

/// From now on these ECIDs are in a segment at Adobe, and no others.
fn set(scenario: &Scenario, sid: u64, ecids: &[u64]) {
    let mut store = scenario.driver.sim.lock();
    let now = store.now;
    for n in 1..=8 {
        store.adobe.set_member_at(now, sid, &ecid(n), ecids.contains(&n));
    }
}

fn files(scenario: &Scenario, time: u64, shape: Outbound) -> Vec<(String, Vec<u8>)> {
    scenario.driver.sim.lock().adobe.files(time, &Shape::AudienceManager(shape))
}

/// A file arrives below `incoming/` and is taken in as far as it can be.
fn arrive(scenario: &mut Scenario, file: &(String, Vec<u8>)) {
    let key = format!("incoming/{}", file.0);
    scenario.driver.sim.lock().objects.insert(key, file.1.clone().into());
    notice(scenario, file);
}

/// Notice comes of a file as it was at some time.
fn notice(scenario: &mut Scenario, (path, body): &(String, Vec<u8>)) {
    let deps = scenario.driver.deps();
    let arrival = Arrival { key: format!("incoming/{path}"), etag: etag(body) };
    let name = format!("{path} {}", deps.fresh_id());
    scenario.driver.start(&name, async move { arrived(&deps, &arrival, deps.now() + FUNCTION_MS).await });
    while scenario.driver.is_running(&name) {
        if !scenario.driver.step() {
            scenario.driver.leap();
        }
    }
    assert!(scenario.driver.finished(&name), "{path} was not taken in");
}

fn members(scenario: &mut Scenario) -> Vec<u64> {
    scenario.driver.settle(6 * HOUR).expect("rest");
    scenario.driver.sim.lock().marketo.members(LIST).into_iter().flatten().copied().collect()
}

fn imports(scenario: &Scenario) -> Vec<Import> {
    let store = scenario.driver.sim.lock();
    let rows = store.tables.iter().filter(|((table, key), _)| *table == Table::Syncs && key.sk.starts_with("import/"));
    rows.map(|(_, item)| serde_json::from_value(item.doc.clone()).expect("an import")).collect()
}

fn feed_state(scenario: &Scenario, feed: &str) -> FeedState {
    let store = scenario.driver.sim.lock();
    let row = store.tables.iter().find(|((_, key), _)| key.sk == format!("feed-state/{feed}"));
    serde_json::from_value(row.expect("a state").1.doc.clone()).expect("a state")
}

fn in_every_order<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    (0..items.len())
        .flat_map(|first| {
            let mut rest = items.to_vec();
            let item = rest.remove(first);
            in_every_order(&rest).into_iter().map(move |mut order| {
                order.insert(0, item.clone());
                order
            })
        })
        .collect()
}

fn snapshots(completeness: &str) -> Value {
    json!({"snapshots": true, "completeness": completeness})
}

#[test]
fn parts_and_their_control_file_make_a_snapshot_in_every_order_and_not_before_the_last_of_them() {
    let shapes = [
        (Numbering::FirstNone, Info::Unquoted),
        (Numbering::FromOne, Info::Strict),
        (Numbering::FromZero, Info::Strict),
        (Numbering::Hyphen, Info::Unquoted),
    ];
    for (numbering, info) in shapes {
        for order in in_every_order(&[0, 1, 2, 3]) {
            let mut scenario = world(&snapshots("info"));
            set(&scenario, 101, &[1, 2, 3, 4, 5]);
            let first = files(&scenario, BEGIN + 1, Outbound { info, ..Outbound::default() });
            first.iter().for_each(|file| arrive(&mut scenario, file));
            assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5]);

            set(&scenario, 101, &[1, 2, 6]);
            let shape = Outbound { parts: 3, numbering, info, ..Outbound::default() };
            let second = files(&scenario, BEGIN + 2, shape);
            assert_eq!(second.len(), 4);
            for (come, index) in order.iter().enumerate() {
                assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5], "{come} of four, {order:?}");
                arrive(&mut scenario, &second[*index]);
                // And a second notice of the same.
                arrive(&mut scenario, &second[*index]);
            }
            assert_eq!(members(&mut scenario), [1, 2, 6], "{numbering:?} {order:?}");
            assert!(imports(&scenario).iter().all(|import| import.status == ImportStatus::Done));
        }
    }
}

#[test]
fn a_part_that_never_comes_takes_nobody_out_and_one_that_comes_late_does() {
    let mut scenario = world(&snapshots("info"));
    set(&scenario, 101, &[1, 2, 3, 4, 5]);
    let whole = Outbound { info: Info::Strict, ..Outbound::default() };
    files(&scenario, BEGIN + 1, whole).iter().for_each(|file| arrive(&mut scenario, file));
    set(&scenario, 101, &[1, 2, 6]);
    let parts = Outbound { parts: 3, info: Info::Strict, ..Outbound::default() };
    let parts = files(&scenario, BEGIN + 2, parts);
    // Rows come in the order of their ECIDs: the last part holds the sixth.
    for index in [2, 3, 0] {
        arrive(&mut scenario, &parts[index]);
    }
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5]);
    let waits = imports(&scenario).into_iter().filter(|import| import.status == ImportStatus::Waiting).count();
    assert_eq!(waits, 2);
    scenario.driver.run_for(25 * HOUR);
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5, 6], "its rows count, and absence says nothing");
    let is = |import: &Import, saying| import.why.as_ref().is_some_and(|why| why.is(saying));
    assert_eq!(imports(&scenario).iter().filter(|import| is(import, &NEVER_WHOLE)).count(), 2);
    arrive(&mut scenario, &parts[1]);
    assert_eq!(members(&mut scenario), [1, 2, 6]);
}

#[test]
fn an_old_notice_of_a_part_that_was_stored_again_does_not_take_its_place() {
    for old_first in [true, false] {
        let mut scenario = world(&snapshots("info"));
        set(&scenario, 101, &[1, 2, 3, 4, 5]);
        let whole = Outbound { info: Info::Strict, ..Outbound::default() };
        files(&scenario, BEGIN + 1, whole).iter().for_each(|file| arrive(&mut scenario, file));
        set(&scenario, 101, &[1, 2, 6]);
        let parts = files(&scenario, BEGIN + 2, Outbound { parts: 2, info: Info::Strict, ..Outbound::default() });
        let old = (parts[0].0.clone(), b"something else".to_vec());
        if old_first {
            arrive(&mut scenario, &old);
        }
        arrive(&mut scenario, &parts[0]);
        // Its own notice comes once more, or only now.
        notice(&mut scenario, &old);
        parts[1..].iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(members(&mut scenario), [1, 2, 6]);
        assert!(imports(&scenario).iter().all(Import::is_over), "{:?}", imports(&scenario));
    }
}

#[test]
fn a_delivery_without_a_control_file_is_whole_when_it_has_been_quiet_and_no_number_is_missing() {
    let mut scenario = world(&json!({"snapshots": true, "completeness": "quiet-period", "quiet_minutes": 20}));
    set(&scenario, 101, &[1, 2, 3, 4, 5]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    scenario.driver.run_for(25 * MINUTE);
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5]);
    set(&scenario, 101, &[1, 2, 6]);
    let parts = files(&scenario, BEGIN + 2, Outbound { parts: 3, ..Outbound::default() });
    arrive(&mut scenario, &parts[2]);
    arrive(&mut scenario, &parts[0]);
    scenario.driver.run_for(2 * HOUR);
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5], "the second part has not come");
    arrive(&mut scenario, &parts[1]);
    scenario.driver.run_for(10 * MINUTE);
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5], "a fourth part might come");
    scenario.driver.run_for(15 * MINUTE);
    assert_eq!(members(&mut scenario), [1, 2, 6]);
}

#[test]
fn a_control_file_that_tells_of_other_sizes_or_lines_makes_no_snapshot() {
    for (says, field) in [("another size", "\"FileByteSize\": "), ("lines", "\"TotalNumberLines\": ")] {
        let mut scenario = world(&snapshots("info"));
        set(&scenario, 101, &[1, 2, 3]);
        let whole = Outbound { info: Info::Strict, ..Outbound::default() };
        files(&scenario, BEGIN + 1, whole.clone()).iter().for_each(|file| arrive(&mut scenario, file));
        set(&scenario, 101, &[1, 6]);
        let mut second = files(&scenario, BEGIN + 2, whole);
        let control = second.last_mut().expect("a control file");
        let text = String::from_utf8(control.1.clone()).expect("text");
        control.1 = text.replace(field, &format!("{field}1")).into_bytes();
        assert_ne!(text.as_bytes(), control.1, "{text}");
        second.iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(members(&mut scenario), [1, 2, 3, 6]);
        let whys: Vec<String> =
            imports(&scenario).iter().filter_map(|import| Some(import.why.as_ref()?.to_string())).collect();
        assert!(whys.iter().any(|why| why.contains(says) && why.contains("nobody left")), "{whys:?}");
    }
}

#[test]
fn every_shape_of_row_says_the_same() {
    let plain = Outbound { gzip: false, ..Outbound::default() };
    let shapes = [
        plain.clone(),
        Outbound { crlf: true, ..plain.clone() },
        Outbound { header: true, ..plain.clone() },
        Outbound { seconds: true, sync_type: "s3".into(), ..plain.clone() },
        Outbound { columns: Columns::Tab, gzip: true, header: true, crlf: true, ..plain.clone() },
    ];
    for shape in shapes {
        let mut scenario = world(&snapshots("single-file"));
        set(&scenario, 101, &[1, 2, 3]);
        files(&scenario, BEGIN, shape.clone()).iter().for_each(|file| arrive(&mut scenario, file));
        set(&scenario, 101, &[3, 4]);
        files(&scenario, BEGIN + 1_000, shape.clone()).iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(members(&mut scenario), [3, 4], "{shape:?}");
        assert!(imports(&scenario).iter().all(|import| import.rejected == 0), "{shape:?}");
    }
    // With spaces an empty column cannot be told: who both came and left is read, whoever did one of the two is not.
    for columns in [Columns::Space, Columns::TwoSpaces] {
        let mut scenario = world(&snapshots("single-file"));
        set(&scenario, 101, &[1, 2]);
        set(&scenario, 102, &[3]);
        files(&scenario, BEGIN, plain.clone()).iter().for_each(|file| arrive(&mut scenario, file));
        set(&scenario, 101, &[2, 3]);
        set(&scenario, 102, &[1]);
        let iter = Outbound { full: false, columns, ..plain.clone() };
        files(&scenario, BEGIN + 1, iter).iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(members(&mut scenario), [2, 3], "{columns:?}");
    }
}

#[test]
fn an_older_full_file_that_comes_after_newer_increments_undoes_none_of_them() {
    let mut scenario = world(&snapshots("single-file"));
    set(&scenario, 101, &[1, 2, 3]);
    let full = files(&scenario, BEGIN + 10, Outbound::default());
    files(&scenario, BEGIN + 11, Outbound { full: false, ..Outbound::default() });
    set(&scenario, 101, &[2, 3, 4]);
    let iter = files(&scenario, BEGIN + 20, Outbound { full: false, ..Outbound::default() });
    iter.iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [4]);
    full.iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [2, 3, 4]);
}

#[test]
fn what_is_newer_than_a_full_files_lag_survives_it() {
    let mut scenario = world(&json!({"snapshots": true, "lag_minutes": 60}));
    set(&scenario, 101, &[1, 2, 3]);
    let row = |n: u64, inside: &str, outside: &str| format!("{}\t{inside}\t{outside}\n", ecid(n));
    let at = |ms: u64, mode: &str| format!("S3_1_2_X_{mode}_{}.sync", BEGIN + ms);
    // The file bears noon, and knows what was an hour before.
    let left = (at(90 * MINUTE, "iter"), row(1, "", "101").into_bytes());
    let full = (at(100 * MINUTE, "full"), (row(1, "101", "") + &row(2, "101", "")).into_bytes());
    arrive(&mut scenario, &left);
    arrive(&mut scenario, &full);
    // An incremental file has the same lag.
    assert_eq!(members(&mut scenario), [1, 2]);
    let mut scenario = world(&json!({"snapshots": true, "lag_minutes": 60}));
    declare(&mut scenario, "live", &json!({"kind": "aam-files", "snapshots": false}));
    arrive(&mut scenario, &(format!("live/{}", left.0), left.1));
    arrive(&mut scenario, &full);
    assert_eq!(members(&mut scenario), [2], "another feed's word of ten minutes before counts");
}

#[test]
fn each_feed_has_a_folder_and_settings_of_its_own() {
    let mut scenario = world(&snapshots("single-file"));
    declare(&mut scenario, "facts", &json!({"snapshots": false}));
    set(&scenario, 101, &[1, 2, 3]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    set(&scenario, 101, &[4]);
    for (name, body) in files(&scenario, BEGIN + 2, Outbound::default()) {
        arrive(&mut scenario, &(format!("facts/{name}"), body));
    }
    assert_eq!(members(&mut scenario), [1, 2, 3, 4], "nobody leaves on account of a feed without snapshots");
    // A folder that no feed has is the default's.
    for (name, body) in files(&scenario, BEGIN + 3, Outbound::default()) {
        arrive(&mut scenario, &(format!("some/where/{name}"), body));
    }
    assert_eq!(members(&mut scenario), [4]);
    let by_feed: BTreeMap<String, usize> =
        imports(&scenario).into_iter().fold(BTreeMap::new(), |mut counts, import| {
            *counts.entry(import.feed).or_default() += 1;
            counts
        });
    assert_eq!(by_feed, BTreeMap::from([("default".to_owned(), 2), ("facts".to_owned(), 1)]));
}

#[test]
fn without_snapshots_the_last_two_full_deliveries_tell_how_many_would_have_left() {
    let mut scenario = world(&json!({"snapshots": false}));
    for (index, ecids) in [vec![1, 2, 3, 4, 5], vec![1, 2, 3], vec![1, 6]].into_iter().enumerate() {
        set(&scenario, 101, &ecids);
        let time = BEGIN + 1 + index as u64;
        files(&scenario, time, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    }
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5, 6]);
    let told: Vec<(u64, u64, u64)> = feed_state(&scenario, "default")
        .full
        .iter()
        .map(|full| (full.time - BEGIN, full.held[&AudienceId::aam(101)], full.absent[&AudienceId::aam(101)]))
        .collect();
    assert_eq!(told, [(2, 3, 2), (3, 2, 4)]);
    let answer = declare(&mut scenario, "default", &snapshots("single-file"));
    let told = &answer["would_have_left"]["deliveries"];
    assert_eq!((&told[0]["absent_total"], &told[1]["absent_total"]), (&json!(4), &json!(2)), "{answer}");
}

#[test]
fn an_audience_that_vanishes_from_full_files_keeps_its_people_until_an_operator_says_that_it_is_empty() {
    let mut scenario = world(&snapshots("single-file"));
    set(&scenario, 101, &[1, 2, 3]);
    set(&scenario, 102, &[4]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [1, 2, 3]);
    let unmapped = Outbound { mapped: Some(BTreeSet::from([102])), ..Outbound::default() };
    files(&scenario, BEGIN + 2, unmapped.clone()).iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [1, 2, 3]);
    let last = imports(&scenario).pop().expect("an import");
    assert_eq!(last.not_named, [AudienceId::aam(101)]);
    // Named again: everything is as before.
    set(&scenario, 101, &[1, 2]);
    files(&scenario, BEGIN + 3, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [1, 2]);
    files(&scenario, BEGIN + 4, unmapped).iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [1, 2]);
    let (munchkin, audience) = (MunchkinId::parse(MUNCHKIN).expect("an id"), AudienceId::aam(101));
    let deps = scenario.driver.deps();
    scenario.driver.start("empty", async move {
        assert!(state::audience::declare_empty(&deps, &munchkin, &audience).await?);
        assert!(!state::audience::declare_empty(&deps, &munchkin, &audience).await?, "it is empty, and not missing");
        state::bell::mark(&deps, &state::bell::BellKey::audience(&munchkin, &audience)).await
    });
    assert_eq!(members(&mut scenario), Vec::<u64>::new());
    assert!(scenario.driver.finished("empty"));
}

#[test]
fn a_delivery_whose_ids_meet_none_of_a_thousand_matches_is_held_until_an_operator_decides() {
    for decision in ["apply", "drop"] {
        let mut scenario = world(&snapshots("single-file"));
        set(&scenario, 101, &[1, 2, 3]);
        let uuids = Outbound { key: Key::Uuid, ..Outbound::default() };
        files(&scenario, BEGIN + 1, uuids.clone()).iter().for_each(|file| arrive(&mut scenario, file));
        let status = |scenario: &Scenario| imports(scenario).last().map(|import| import.status);
        assert_eq!(status(&scenario), Some(ImportStatus::Done), "of so few matches nothing can be said");
        for n in 100..1_100 {
            scenario.see(n, n);
        }
        members(&mut scenario);
        files(&scenario, BEGIN + 2, uuids.clone()).iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(status(&scenario), Some(ImportStatus::Held));
        let held = imports(&scenario).pop().expect("an import");
        let why = held.why.expect("a reason");
        assert!(why.is(&IDS_MEET_NOBODY_AAM) && why.sentence.contains("MCID"), "{why}");
        let body = json!({"import": held.id, "decision": decision});
        let (code, answer) = scenario.request("POST", "/imports/decide", &body);
        assert_eq!(code, 202, "{answer}");
        scenario.driver.run_for(2 * MINUTE);
        let expected = if decision == "apply" { ImportStatus::Done } else { ImportStatus::Refused };
        assert_eq!(status(&scenario), Some(expected));
        // ECIDs meet, and from then on a small file is believed that meets nobody.
        files(&scenario, BEGIN + 3, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(members(&mut scenario), [1, 2, 3]);
        set(&scenario, 101, &[7, 8]);
        files(&scenario, BEGIN + 4, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(status(&scenario), Some(ImportStatus::Done));
        assert_eq!(members(&mut scenario), Vec::<u64>::new());
    }
}

#[test]
fn the_first_part_of_a_split_delivery_that_was_taken_for_all_of_it_gives_back_whom_the_others_hold() {
    let mut scenario = world(&snapshots("single-file"));
    set(&scenario, 101, &[1, 2, 3, 4, 5]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    set(&scenario, 101, &[1, 2, 3, 4]);
    let parts = files(&scenario, BEGIN + 2, Outbound { parts: 2, ..Outbound::default() });
    for order in [[0, 1], [1, 0]] {
        for index in order {
            arrive(&mut scenario, &parts[index]);
        }
        assert_eq!(members(&mut scenario), [1, 2, 3, 4], "{order:?}");
    }
}

#[test]
fn a_delivery_whose_first_part_has_no_number_and_has_not_come_is_not_whole() {
    let mut scenario = world(&json!({"snapshots": true, "completeness": "quiet-period", "quiet_minutes": 20}));
    set(&scenario, 101, &[1, 2, 3, 4, 5]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    scenario.driver.run_for(25 * MINUTE);
    set(&scenario, 101, &[1, 2, 3, 4]);
    let parts = files(&scenario, BEGIN + 2, Outbound { parts: 3, ..Outbound::default() });
    arrive(&mut scenario, &parts[1]);
    arrive(&mut scenario, &parts[2]);
    scenario.driver.run_for(2 * HOUR);
    assert_eq!(members(&mut scenario), [1, 2, 3, 4, 5]);
    arrive(&mut scenario, &parts[0]);
    scenario.driver.run_for(40 * MINUTE);
    assert_eq!(members(&mut scenario), [1, 2, 3, 4]);
}

#[test]
fn a_full_file_of_which_many_rows_cannot_be_read_makes_nobody_leave() {
    let mut scenario = world(&snapshots("single-file"));
    set(&scenario, 101, &[1, 2, 3]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    // With spaces a row without removed segments is ambiguous, and with it the one who stands in it.
    let text = format!("{}\t101\t\n{} 101\n", ecid(1), ecid(2));
    arrive(&mut scenario, &(format!("S3_1_2_X_full_{}.sync", BEGIN + 2), text.into_bytes()));
    assert_eq!(members(&mut scenario), [1, 2, 3]);
    let why = imports(&scenario).pop().and_then(|import| import.why);
    assert_eq!(why, Some(NOT_WHOLE_ROWS.with([("unreadable", 1.into()), ("rows", 2.into())])));
}

#[test]
fn parts_that_wait_are_not_taken_in_after_their_subscription_was_closed() {
    let mut scenario = world(&snapshots("info"));
    set(&scenario, 101, &[1, 2]);
    let parts = files(&scenario, BEGIN + 1, Outbound { info: Info::Strict, ..Outbound::default() });
    arrive(&mut scenario, &parts[0]);
    let closed = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "hipaa_ready": true});
    let (status, answer) = scenario.request("PUT", "/subscription", &closed);
    assert_eq!(status, 200, "{answer}");
    scenario.driver.run_for(30 * HOUR);
    arrive(&mut scenario, &parts[0]);
    let status: Vec<ImportStatus> = imports(&scenario).into_iter().map(|import| import.status).collect();
    assert_eq!(status, [ImportStatus::Refused]);
    let named = scenario.driver.sim.lock().tables.keys().any(|(_, key)| key.sk.starts_with("feed-state/"));
    assert!(!named, "nothing of it was read");
}

#[test]
fn what_an_export_of_one_audience_tells_of_another_is_no_snapshot_of_that_one() {
    let mut scenario = world(&snapshots("single-file"));
    let export = json!({"kind": "aep-files", "full": true, "snapshots": true});
    declare(&mut scenario, "daily", &export);
    let [one, other] = ["11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"];
    for (id, name) in [(one, "One"), (other, "Other")] {
        let mut store = scenario.driver.sim.lock();
        let now = store.now;
        store.adobe.add_audience(now, Audience { id: id.into(), name: name.into(), external: false });
    }
    let profile = |n: u64, memberships: &[(&str, &str)]| {
        let told: serde_json::Map<String, Value> =
            memberships.iter().map(|(id, status)| ((*id).to_owned(), json!({"status": status}))).collect();
        json!({"identityMap": {"ECID": [{"id": ecid(n)}]}, "segmentMembership": {"ups": told}}).to_string() + "\n"
    };
    let file = |id: &str, second: u64, rows: String| {
        (format!("daily/Sample_segment{id}_202601011200{second:02}.json"), rows.into_bytes())
    };
    arrive(&mut scenario, &file(other, 1, (1..=3).map(|n| profile(n, &[(other, "realized")])).collect()));
    // Nothing of the audience that the file is of can be read; the profiles tell of the other one, too.
    arrive(&mut scenario, &file(one, 2, profile(1, &[(one, "nonsense"), (other, "realized")])));
    scenario.driver.settle(HOUR).expect("rest");
    let deps = scenario.driver.deps();
    let (munchkin, audience) = (MunchkinId::parse(MUNCHKIN).expect("an id"), AudienceId::aep(other).expect("a UUID"));
    let members = run(state::audience::Members::open(&deps, &munchkin, &audience)).expect("tables").expect("delivered");
    assert_eq!(run(members.effective()).expect("objects").len(), 3);
}

/// The head of the audience that feeds the list.
fn head(scenario: &Scenario) -> Head {
    let (munchkin, audience) = (MunchkinId::parse(MUNCHKIN).expect("an id"), AudienceId::aam(101));
    let found = run(state::load(&scenario.driver.deps(), Table::Audiences, &head_key(&munchkin, &audience)));
    found.expect("a table").expect("delivered").value
}

/// What says of so many people that they came, or of so many that they left, at a time.
fn changes(time: u64, came: &[u64], left: &[u64]) -> (String, Vec<u8>) {
    let row = |n: &u64, came: &str, left: &str| format!("{}\t{came}\t{left}\n", ecid(*n));
    let came = came.iter().map(|n| row(n, "101", ""));
    let text: String = came.chain(left.iter().map(|n| row(n, "", "101"))).collect();
    (format!("S3_1_2_X_iter_{time}.sync"), text.into_bytes())
}

#[test]
fn wherever_somebody_dies_who_takes_facts_in_they_are_one_run_and_are_told() {
    for cut in (0..).step_by(3) {
        let mut scenario = world(&snapshots("single-file"));
        set(&scenario, 101, &[1, 2, 3]);
        files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
        assert_eq!(members(&mut scenario), [1, 2, 3]);
        let (path, body) = changes(BEGIN + 10, &[4, 5], &[1, 2]);
        let key = format!("incoming/{path}");
        scenario.driver.sim.lock().objects.insert(key.clone(), body.clone().into());
        let whole = {
            let (deps, arrival) = (scenario.driver.deps(), Arrival { key, etag: etag(&body) });
            let mut work = std::pin::pin!(arrived(&deps, &arrival, deps.now() + FUNCTION_MS));
            let mut context = Context::from_waker(Waker::noop());
            (0..cut).any(|_| work.as_mut().poll(&mut context).is_ready())
        };
        arrive(&mut scenario, &(path, body));
        assert_eq!(head(&scenario).runs.len(), 1, "after {cut} calls");
        assert_eq!(members(&mut scenario), [3, 4, 5], "after {cut} calls");
        if whole {
            return;
        }
    }
}

#[test]
fn beyond_the_room_for_runs_facts_are_rows_and_what_is_old_is_folded() {
    let mut scenario = world(&snapshots("single-file"));
    scenario.driver.set(Settings { run_above: 0, entries_at_once: 100, ..settings() });
    set(&scenario, 101, &[1, 2]);
    files(&scenario, BEGIN + 1, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [1, 2]);
    let rows = |scenario: &Scenario| {
        scenario.driver.sim.lock().tables.keys().filter(|(_, key)| key.sk.starts_with("e/")).count()
    };
    let begin = BEGIN + HOUR;
    for n in 0..20 {
        let (came, left): ([u64; 2], [u64; 2]) = if n % 2 == 0 { ([3, 4], [1, 2]) } else { ([1, 2], [3, 4]) };
        arrive(&mut scenario, &changes(begin + n, &came, &left));
        assert_eq!(members(&mut scenario), came, "{n}");
        assert_eq!(head(&scenario).runs.len() as u64, (n + 1).min(RUNS_KEPT as u64));
    }
    assert_eq!(rows(&scenario), 4);
    // When something comes again after more than eight days.
    let now = scenario.driver.sim.lock().now + 9 * DAY_MS;
    scenario.driver.sim.lock().advance(now);
    arrive(&mut scenario, &changes(now, &[5], &[]));
    assert_eq!(members(&mut scenario), [1, 2, 5]);
    let folded = head(&scenario);
    assert_eq!(
        (folded.runs.len(), folded.base.as_ref().map(|base| (base.as_of, base.count))),
        (0, Some((begin + 19, 2)))
    );
    // What is as old says nothing any more; what is not does, late as it is.
    arrive(&mut scenario, &changes(begin + 18, &[6], &[1]));
    arrive(&mut scenario, &changes(now - DAY_MS, &[4], &[2]));
    assert_eq!(members(&mut scenario), [1, 4, 5]);
    assert_eq!(head(&scenario).runs.len(), 1);
    // A full file forgets the runs that are older.
    set(&scenario, 101, &[2]);
    files(&scenario, now + 10, Outbound::default()).iter().for_each(|file| arrive(&mut scenario, file));
    assert_eq!(members(&mut scenario), [2]);
    assert_eq!(head(&scenario).runs, []);
    let objects: Vec<String> = scenario.driver.sim.lock().objects.keys().cloned().collect();
    assert_eq!(objects.iter().filter(|key| key.starts_with("sets/base/") || key.starts_with("sets/facts/")).count(), 1);
}
