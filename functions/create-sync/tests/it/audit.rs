//! The audit log.

use std::collections::BTreeSet;

use ports::Table;
use serde_json::{Value, json};

use crate::support::{MUNCHKIN, ORG, START, World};

fn rows(world: &World) -> Vec<Value> {
    world.get("/audit?limit=500").1.as_array().expect("rows").clone()
}

fn make(world: &World) -> String {
    let body = json!({"audience_id": "aam:101", "list": {"id": 1001}, "leaving": "remove", "members_before": "keep", "start": "now"});
    let (status, made) = world.post("/syncs", &body);
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

#[test]
fn whatever_changes_something_leaves_a_row_and_nothing_else_does() {
    let world = World::new();
    let id = make(&world);
    world.wait(1_000);
    for (order, body) in [
        ("pause", json!({})),
        ("resume", json!({})),
        ("run", json!({})),
        ("guard", json!({"removals_percent": 40})),
        ("put-back", json!({"lead_ids": [1, 2, 3]})),
        ("verify", json!({})),
        ("stop", json!({"people": "take_out"})),
    ] {
        world.wait(1_000);
        let (status, answer) = world.post(&format!("/syncs/{id}/{order}"), &body);
        assert!(status < 300, "{order}: {answer}");
    }
    world.put("/feeds/live", &json!({"kind": "aam-stream", "ecid_field": "AAM_UUID"}));
    world.post("/subscription/hint-secrets", &json!({}));
    // Refused, or nothing but looked at.
    assert_eq!(world.post(&format!("/syncs/{id}/run"), &json!({})).0, 409);
    assert_eq!(world.post("/syncs", &json!({})).0, 400);
    assert_eq!(world.post("/nowhere", &json!({})).0, 404);
    world.get("/syncs");
    world.get(&format!("/syncs/{id}/report"));
    world.post("/explain", &json!({"lead_id": 1}));
    world.post("/syncs/preview", &json!({"audience_id": "aam:101", "list": {"id": 1002}, "start": "now"}));

    let rows = rows(&world);
    let what: BTreeSet<&str> = rows.iter().map(|row| row["what"].as_str().expect("what")).collect();
    let wanted = [
        "feed.change",
        "subscription.change",
        "subscription.hint_secret",
        "sync.create",
        "sync.guard",
        "sync.pause",
        "sync.put_back",
        "sync.resume",
        "sync.run",
        "sync.stop",
        "sync.verify",
    ];
    assert_eq!(what, BTreeSet::from(wanted));
    assert_eq!(rows.len(), wanted.len());
    let row = |what: &str| rows.iter().find(|row| row["what"] == what).expect("a row");
    let create = row("sync.create");
    assert_eq!((&create["who"], &create["subject"], &create["status"]), (&json!("local"), &json!(id), &json!(201)));
    assert_eq!((&create["detail"]["audience_id"], &create["detail"]["list"]["id"]), (&json!("aam:101"), &json!(1001)));
    assert_eq!(create["at"], "2026-11-20T00:00:00Z");
    assert_eq!(row("sync.put_back")["detail"], json!({"people": 3}));
    assert_eq!(row("sync.guard")["detail"], json!({"removals_percent": 40}));
    assert_eq!(row("sync.stop")["detail"], json!({"people": "take_out"}));
    assert_eq!(row("subscription.change")["subject"], MUNCHKIN);
    let (newest, oldest) = (&rows[0]["at"], &rows[rows.len() - 1]["at"]);
    assert!(newest.as_str() > oldest.as_str(), "{newest} and {oldest}");
}

/// The request has a row, and so has each change that it made; what it left alone or could not do has none.
#[test]
fn an_import_leaves_a_row_for_each_change_that_was_done() {
    let world = World::new();
    assert_eq!(world.put("/feeds/same", &json!({"kind": "aam-files", "snapshots": false})).0, 200);
    make(&world);
    let mut export = world.get("/export").1;
    export["subscription"]["new_pairs_per_day"] = json!(77);
    export["feeds"]["live"] = json!({"kind": "aep-stream"});
    export["feeds"]["wrong"] = json!({"kind": "aam-stream"});
    export["syncs"][0]["guard"] = json!({"removals_percent": 10});
    let before = rows(&world).len();
    world.wait(1_000);
    world.post("/import", &json!({"export": export}));
    assert_eq!(rows(&world).len(), before, "nothing but looked at");
    let (status, answer) = world.post("/import", &json!({"export": export, "apply": true}));
    assert_eq!(status, 200, "{answer}");
    let new: Vec<Value> = rows(&world).into_iter().filter(|row| row["at"] == "2026-11-20T00:00:01Z").collect();
    let row = |what: &str| new.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no {what}: {new:?}"));
    assert_eq!(new.len(), 4, "{new:?}");
    assert_eq!(row("settings.import")["detail"], json!({"changes_done": 3}));
    for (what, subject, change, fields) in [
        ("import.subscription", MUNCHKIN, "change", json!(["new_pairs_per_day"])),
        ("import.feed", "live", "add", json!([])),
        ("import.sync", "aam:101 → VIP", "change", json!(["guard"])),
    ] {
        let row = row(what);
        assert_eq!((&row["subject"], &row["who"]), (&json!(subject), &json!("local")));
        assert_eq!(row["detail"], json!({"change": change, "fields": fields}), "{what}");
    }
}

/// A person's ECID, token and email reach neither the log nor any row that is kept for ever.
#[test]
fn whoever_is_erased_is_not_named() {
    let world = World::new();
    let ecid = "12345678901234567890123456789012345678";
    for body in [json!({"ecid": ecid}), json!({"email": "1@example.com"}), json!({"lead_id": 4_711})] {
        world.wait(1_000);
        let (status, job) = world.post("/people/erase", &body);
        assert_eq!(status, 202, "{job}");
        let row = &rows(&world)[0];
        assert_eq!((&row["what"], &row["detail"]), (&json!("people.erase"), &json!({})));
    }
    let kept = world.tables().into_iter().filter(|((table, key), _)| *table == Table::Syncs && key.pk == "audit");
    let kept: String = kept.map(|(_, item)| item.doc.to_string()).collect();
    for personal in [ecid, "example.com", "4711"] {
        assert!(!kept.contains(personal), "{personal}");
    }
}

#[test]
fn the_log_is_paged_and_downloaded_as_a_table_that_no_spreadsheet_runs() {
    let world = World::new();
    for feed in ["-1", "a", "b"] {
        world.wait(1_000);
        assert_eq!(world.put(&format!("/feeds/{feed}"), &json!({"kind": "aam-files", "snapshots": false})).0, 200);
    }
    let first = world.ask("GET", "/audit?format=csv&limit=3", &[], b"");
    assert_eq!((first.status, first.content_type), (200, "text/csv; charset=utf-8"));
    let text = String::from_utf8(first.body).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "a heading and three rows");
    assert_eq!(lines[0], r#""id","at","who","what","subject","detail","status""#);
    assert!(
        lines[1].contains(r#""2026-11-20T00:00:03Z","local","feed.change","b","{""kind"":""aam-files""#),
        "{}",
        lines[1]
    );
    assert!(lines[3].contains(r#""feed.change","'-1","#), "{}", lines[3]);
    let link = first.headers.iter().find(|(name, _)| *name == "link").expect("there is more").1.clone();
    assert!(link.starts_with("</audit?format=csv&limit=3&after="), "{link}");
    let path = link.trim_start_matches('<').split('>').next().expect("an address").to_owned();
    let second = world.ask("GET", &path, &[], b"");
    let text = String::from_utf8(second.body).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("subscription.change") && text.contains(ORG));
    assert_eq!(second.headers.iter().filter(|(name, _)| *name == "link").count(), 0);
    assert_eq!(world.get("/audit?format=xml").0, 400);
}

/// The change is done: nobody is told that it failed.
#[test]
fn a_row_that_cannot_be_written_does_not_undo_the_change() {
    let world = World::new();
    world.wait(START);
    let body = json!({"kind": "aam-files", "snapshots": false}).to_string();
    // With fewer calls of ports the change itself dies; with more, its row; and with enough, neither.
    let (mut unlogged, mut logged) = (0, 0);
    for calls in 1..40 {
        let feed = format!("feed-{calls}");
        world.outside.dies_after(calls);
        let response = world.ask("PUT", &format!("/feeds/{feed}"), &[], body.as_bytes());
        world.outside.revive();
        let stands = world.rows("feed/").contains(&format!("feed/{feed}"));
        let noted = rows(&world).iter().any(|row| row["subject"] == *feed);
        if response.status < 400 {
            assert!(stands, "{calls}");
            unlogged += usize::from(!noted);
            logged += usize::from(noted);
        } else {
            assert!(!noted, "{calls}: a refused request has a row");
        }
    }
    assert!(unlogged > 0 && logged > 0, "{unlogged} without a row, {logged} with one");
}
