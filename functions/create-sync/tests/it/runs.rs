//! Runs, sizes over time, rejected lines, freshness, and pages of all lists.

use std::collections::{BTreeMap, BTreeSet};

use create_sync::Response;
use domain::limits::HOUR_MS;
use domain::{AudienceId, Said};
use futures::executor::block_on;
use ports::Table;
use serde_json::{Value, json};
use state::audience::{Head, head_key};
use state::feeds::{FeedState, Import, ImportStatus, Reject, feed_state_key, import_key, index_import};
use state::identity::{Intake, intake_key};
use state::lists::{ListHead, OpenList, head_key as list_head_key};
use state::runs::{NO_CLEAR_ANSWER, Run, Size, save_run, save_size};
use state::syncs::{IdentityHead, identity_key};
use state::{Cause, Causes};

use crate::support::{START, World, munchkin};

fn sync(world: &World, audience: &str, list: u64) -> String {
    let body = json!({"audience_id": audience, "list": {"id": list}, "leaving": "remove", "members_before": "keep", "start": "now"});
    let (status, made) = world.post("/syncs", &body);
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

fn run(number: u64, sync: &str) -> Run {
    Run {
        v: 1,
        number,
        list: 1001,
        syncs: BTreeSet::from([sync.to_owned()]),
        began_at: START + number * HOUR_MS,
        ended_at: Some(START + number * HOUR_MS + 1_500),
        causes: Causes::from([Cause::Schedule, Cause::File]),
        added: number,
        calls: 3,
        ..Run::default()
    }
}

/// The address in the header `link`.
fn next(response: &Response) -> Option<String> {
    let link = response.headers.iter().find(|(name, _)| *name == "link")?;
    let address = link.1.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(address.to_owned())
}

/// All rows, page by page, and how many pages there were.
fn all(world: &World, path: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut path, mut pages) = (Vec::new(), path.to_owned(), 0);
    loop {
        let response = world.ask("GET", &path, &[], b"");
        assert_eq!(response.status, 200, "{path}");
        let page: Value = serde_json::from_slice(&response.body).expect("JSON");
        rows.extend(page.as_array().expect("a bare array").clone());
        pages += 1;
        match next(&response) {
            // The rig splits queries and does not decode them.
            Some(address) => path = address.replace("%2F", "/"),
            None => return (rows, pages),
        }
    }
}

#[test]
fn runs_are_shown_newest_first_with_their_cause_and_what_went_wrong() {
    let world = World::new();
    let id = sync(&world, "aam:101", 1001);
    let path = format!("/syncs/{id}/runs");
    assert_eq!(world.get(&path), (200, json!([])));
    for number in 1..=5 {
        let of = if number == 3 { "another sync" } else { &id };
        block_on(save_run(&world.deps, &munchkin(), &run(number, of))).expect("saved");
    }
    let mut under_way = Run { ended_at: None, causes: Causes::new(), held: 7, refused: 2, ..run(6, &id) };
    for request in ["1#a", "1#b"] {
        under_way.failed("1004", request);
    }
    under_way.failed(NO_CLEAR_ANSWER, "");
    let head = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a head").head;
    let head = ListHead { runs: 6, run: Some(under_way.clone()), ..head };
    world.store(Table::Lists, list_head_key(&munchkin(), 1001), &head);

    let (runs, pages) = all(&world, &format!("{path}?limit=2"));
    assert_eq!(pages, 3);
    let numbers: Vec<&str> = runs.iter().map(|run| run["id"].as_str().expect("an id")).collect();
    assert_eq!(numbers, ["1001-6", "1001-5", "1001-4", "1001-2", "1001-1"]);
    assert_eq!(all(&world, &path).0, runs, "whatever the size of the pages");
    assert_eq!(all(&world, &format!("{path}?limit=1")), (runs.clone(), 5));
    let five = json!({
        "id": "1001-5", "sync_ids": [id], "started_at": "2026-11-20T05:00:00Z", "ended_at": "2026-11-20T05:00:01.5Z",
        "duration_ms": 1_500, "cause": "file", "causes": ["schedule", "file"], "added": 5, "removed": 0, "refused": 0,
        "held": 0, "calls": 3, "failures": [],
    });
    assert_eq!(runs[1], five);
    assert_eq!((&runs[0]["ended_at"], &runs[0]["duration_ms"]), (&Value::Null, &Value::Null));
    assert_eq!((&runs[0]["cause"], &runs[0]["held"], &runs[0]["refused"]), (&json!("unknown"), &json!(7), &json!(2)));
    let failures = runs[0]["failures"].as_array().expect("failures");
    assert_eq!((&failures[0]["code"], &failures[0]["count"]), (&json!("1004"), &json!(2)));
    assert_eq!((&failures[0]["request_id"], &failures[0]["request_ids"]), (&json!("1#b"), &json!(["1#a", "1#b"])));
    assert_eq!(failures[0]["sentence"], marketo::class::sentence("1004"));
    assert_eq!((&failures[1]["code"], &failures[1]["request_id"]), (&json!("no_answer"), &Value::Null));

    // Whoever wrote the row of a run died before the list's head said so: it is one run.
    block_on(save_run(&world.deps, &munchkin(), &Run { ended_at: Some(START), ..under_way })).expect("saved");
    assert_eq!(all(&world, &path).0, runs);
    // The table sweeps days late.
    world.wait(90 * 24 * HOUR_MS + 5 * HOUR_MS);
    let numbers: Vec<Value> = all(&world, &path).0.iter().map(|run| run["id"].clone()).collect();
    assert_eq!(numbers, [json!("1001-6"), json!("1001-5")]);
}

#[test]
fn sizes_are_kept_by_the_hour_and_shown_oldest_first() {
    let world = World::new();
    let id = sync(&world, "aam:101", 1001);
    let size = |at: u64, people: u64| Size {
        v: 1,
        at,
        browsers: 9,
        addressable: 8,
        known: 7,
        people,
        in_list: Some(5),
        members: None,
    };
    for (at, people) in [(START + 2 * HOUR_MS, 3), (START + 1, 1), (START + HOUR_MS - 1, 2)] {
        block_on(save_size(&world.deps, &munchkin(), &id, &size(at, people))).expect("saved");
    }
    let (rows, pages) = all(&world, &format!("/syncs/{id}/history?limit=1"));
    assert_eq!((rows.len(), pages), (2, 2), "one an hour");
    let first = json!({
        "at": "2026-11-20T00:59:59.999Z", "browsers": 9, "addressable": 8, "known": 7, "people": 2, "in_list": 5,
        "members": null,
    });
    assert_eq!((&rows[0], &rows[1]["people"]), (&first, &json!(3)));
}

fn file(world: &World, id: &str, feed: &str, at: u64, lines: u64) {
    let reject = |line| Reject::new(line, &Said::new("row_no_ecid", format!("line {line} of {id}")));
    let import = Import {
        v: 1,
        id: id.into(),
        key: format!("incoming/{feed}/{id}"),
        feed: feed.into(),
        delivery: None,
        status: ImportStatus::Done,
        why: None,
        started_at: at,
        ended_at: Some(at + 1_000),
        rows: 9,
        rejected: lines,
        rejects: (1..=lines).map(reject).collect(),
        taken: BTreeMap::new(),
        rejected_by: BTreeMap::new(),
        not_named: Vec::new(),
    };
    world.store(Table::Syncs, import_key(&munchkin(), id), &import);
    block_on(index_import(&world.deps, &munchkin(), at, id)).expect("a line");
}

fn named_by(world: &World, feeds: &[(&str, u64)]) {
    let audience = AudienceId::aam(101);
    let mut head = Head::new(audience.clone(), START);
    head.feeds = feeds.iter().map(|(feed, at)| ((*feed).to_owned(), *at)).collect();
    world.store(Table::Audiences, head_key(&munchkin(), &audience), &head);
}

#[test]
fn rejected_lines_of_the_feeds_that_name_the_audience_are_shown_page_by_page() {
    let world = World::new();
    let id = sync(&world, "aam:101", 1001);
    let path = format!("/syncs/{id}/rejects");
    for (feed, body) in [
        ("live", json!({"kind": "aam-stream", "ecid_field": "AAM_UUID"})),
        ("other", json!({"kind": "aam-files", "snapshots": false})),
    ] {
        assert_eq!(world.put(&format!("/feeds/{feed}"), &body).0, 200);
    }
    named_by(&world, &[("default", START), ("live", START)]);
    let rejects =
        [(1, "older"), (2, "newer")].map(|(line, reason)| Reject::new(line, &Said::of_before(reason))).to_vec();
    world.store(Table::Syncs, feed_state_key(&munchkin(), "live"), &FeedState { rejects, ..FeedState::default() });
    for (name, feed, at, lines) in
        [("a", "default", 1, 3), ("b", "other", 2, 2), ("c", "default", 3, 0), ("d é/(1).sync", "default", 4, 2)]
    {
        file(&world, name, feed, START + at, lines);
    }
    let (rows, _) = all(&world, &path);
    let reasons: Vec<&str> = rows.iter().map(|row| row["reason"].as_str().expect("a reason")).collect();
    let wanted = [
        "newer",
        "older",
        "line 1 of d é/(1).sync",
        "line 2 of d é/(1).sync",
        "line 1 of a",
        "line 2 of a",
        "line 3 of a",
    ];
    assert_eq!(reasons, wanted);
    let of_stream = json!({
        "feed": "live", "file": null, "line": 2, "reason": "newer", "code": null, "values": null, "at": null,
    });
    assert_eq!(rows[0], of_stream, "it was stored before reasons had codes");
    let of_file = json!({
        "feed": "default", "file": "incoming/default/d é/(1).sync", "line": 1, "reason": "line 1 of d é/(1).sync",
        "code": "row_no_ecid", "values": {}, "at": "2026-11-20T00:00:01.004Z",
    });
    assert_eq!(rows[2], of_file);
    for limit in 1..=4 {
        assert_eq!(all(&world, &format!("{path}?limit={limit}")).0, rows, "pages of {limit}");
    }
    for after in ["x", "s.x", "f.1", "f.a.b", "f./x.1", "f.1/nobody.x"] {
        assert_eq!(world.get(&format!("{path}?after={after}")).0, 400, "{after}");
    }
    let unnamed = sync(&world, "aam:102", 1002);
    assert_eq!(world.get(&format!("/syncs/{unnamed}/rejects")).1, json!([]), "nothing names its audience");
}

#[test]
fn a_sync_says_how_fresh_each_of_its_sources_is() {
    let world = World::new();
    let id = sync(&world, "aam:101", 1001);
    let fresh = |world: &World| world.get(&format!("/syncs/{id}")).1["freshness"].clone();
    named_by(&world, &[]);
    assert_eq!(fresh(&world)["last_event_at"], Value::Null);
    assert_eq!(fresh(&world)["last_match_at"], Value::Null);
    assert_eq!(fresh(&world)["last_look_up_at"], Value::Null);
    assert_eq!(world.put("/feeds/live", &json!({"kind": "aam-stream", "ecid_field": "AAM_UUID"})).0, 200);
    named_by(&world, &[("default", START + 1_000), ("live", START + 2_000)]);
    let heard = FeedState { heard_at: Some(START + 9_000), ..FeedState::default() };
    world.store(Table::Syncs, feed_state_key(&munchkin(), "live"), &heard);
    let head = IdentityHead { v: 1, asked_at: START + 4_000, ..IdentityHead::default() };
    world.store(Table::Syncs, identity_key(&munchkin()), &head);
    // The last new match was of the day before, and some came today that were not.
    let yesterday = START - 5_000;
    let intake = Intake { v: 1, last_at: Some(yesterday), ..Intake::default() };
    world.store(Table::Identity, intake_key(&munchkin(), yesterday), &intake);
    world.store(Table::Identity, intake_key(&munchkin(), START), &Intake { v: 1, ..Intake::default() });
    let wanted = json!({
        "last_file_at": "2026-11-20T00:00:01Z", "last_event_at": "2026-11-20T00:00:09Z",
        "last_match_at": "2026-11-19T23:59:55Z", "last_look_up_at": "2026-11-20T00:00:04Z",
    });
    assert_eq!(fresh(&world), wanted);
}

#[test]
fn a_report_groups_who_was_refused_by_marketos_code() {
    let world = World::new();
    let id = sync(&world, "aam:101", 1001);
    world.report(&id);
    let (_, report) = world.get(&format!("/syncs/{id}/report"));
    let wanted = json!([{"code": "1007", "count": 2, "sentence": marketo::class::sentence("1007")}]);
    assert_eq!(report["reasons"], wanted);
}

/// An answer has at most 6 MB: a page of large records is short, and says where it goes on.
#[test]
fn a_page_of_large_records_is_cut_and_none_is_left_out() {
    let world = World::new();
    for at in 1..=9 {
        file(&world, &format!("file-{at}"), "default", START + at, 10_000);
    }
    let first = world.ask("GET", "/imports", &[], b"");
    assert!(first.body.len() > 1_000_000 && first.body.len() < 3_100_000, "{}", first.body.len());
    let (imports, pages) = all(&world, "/imports");
    let ids: Vec<&str> = imports.iter().map(|import| import["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, (1..=9).rev().map(|at| format!("file-{at}")).collect::<Vec<_>>());
    assert!((2..9).contains(&pages), "{pages}");
}

#[test]
fn every_list_is_paged_and_says_where_the_next_page_is() {
    let world = World::new();
    let made: Vec<String> = [(101, 1001), (103, 1002), (101, 1002)]
        .map(|(audience, list)| {
            world.wait(1_000);
            sync(&world, &format!("aam:{audience}"), list)
        })
        .to_vec();
    let (syncs, pages) = all(&world, "/syncs?limit=1");
    let ids: Vec<&Value> = syncs.iter().map(|sync| &sync["id"]).collect();
    assert_eq!((ids, pages), (made.iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect(), 3));

    for feed in ["a", "b", "c"] {
        assert_eq!(world.put(&format!("/feeds/{feed}"), &json!({"kind": "aam-files", "snapshots": false})).0, 200);
    }
    let (feeds, pages) = all(&world, "/feeds?limit=2");
    assert_eq!(
        (feeds.iter().map(|feed| feed["id"].clone()).collect::<Vec<_>>(), pages),
        (vec![json!("a"), json!("b"), json!("c")], 2)
    );

    for (name, at) in [("x", 5), ("y", 9), ("z", 7)] {
        file(&world, name, "default", START + at, 0);
    }
    // A line of somebody who died before its record was written, and one of a time that the record does not bear.
    block_on(index_import(&world.deps, &munchkin(), START + 6, "nobody")).expect("a line");
    block_on(index_import(&world.deps, &munchkin(), START + 4, "z")).expect("a line");
    let (imports, _) = all(&world, "/imports?limit=1");
    let ids: Vec<&str> = imports.iter().map(|import| import["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["y", "z", "x"]);
    for path in ["/syncs", "/feeds", "/imports", "/audit"] {
        for wrong in ["limit=0", "limit=501", "after=", "after=a+b"] {
            assert_eq!(world.get(&format!("{path}?{wrong}")).0, 400, "{path}?{wrong}");
        }
    }
}
