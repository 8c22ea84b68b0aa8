//! The calls against the double.

use std::collections::BTreeSet;

use domain::LeadSet;
use futures::executor::block_on;
use marketo::{CallError, ExtractStatus, Import, ImportState, parse_extract};
use ports::Failure;

use crate::support::{LIST, START, World};

const MINUTE: u64 = 60_000;

fn set(leads: &[u64]) -> LeadSet {
    leads.iter().copied().collect()
}

#[test]
fn members_others_and_the_gone_are_told_apart() {
    let world = World::new();
    world.double().delete(START, 5);
    let found = block_on(world.client().membership(world.slot(), LIST, &[1, 3, 5, 99])).expect("an answer");
    assert_eq!(found, marketo::Membership { members: set(&[1]), not_members: set(&[3]), gone: set(&[5, 99]) });
}

#[test]
fn the_use_of_the_day_counts_other_tools_too() {
    let world = World::new();
    for _ in 0..7 {
        assert!(world.double().other_call(START, 0));
    }
    block_on(world.client().membership(world.slot(), LIST, &[1])).expect("an answer");
    let used = block_on(world.client().use_today(world.slot())).expect("an answer").expect("a day").1;
    assert!((8..=9).contains(&used), "{used}");
}

#[test]
fn changes_of_lists_are_followed_by_a_cursor_of_their_own() {
    let world = World::new();
    let client = world.client();
    let mut token = block_on(client.paging_token(world.slot(), "2026-11-20T00:00:00Z")).expect("a token");
    block_on(client.add(world.slot(), LIST, &[3])).expect("added");
    world.double().remove_by_hand(START, LIST, 1);
    world.double().delete(START, 5);
    world.pass(MINUTE);
    let mut rows = Vec::new();
    loop {
        let page = block_on(world.client().list_changes(world.slot(), &token)).expect("a page");
        rows.extend(page.rows);
        token = page.next;
        if !page.more {
            break;
        }
    }
    let seen: Vec<(u64, u64, bool)> = rows.iter().map(|row| (row.lead, row.list, row.added)).collect();
    assert_eq!(seen, [(3, LIST, true), (1, LIST, false)]);
    assert!(rows.iter().all(|row| row.at.is_some() && !row.guid.is_empty()), "{rows:?}");
}

#[test]
fn lists_are_found_by_their_exact_name_and_by_page() {
    let world = World::new();
    let client = world.client();
    block_on(client.create_list(world.slot(), "VIP, Europe", 12, "audience-sync x")).expect("a list");
    block_on(client.create_list(world.slot(), "VIP Europe", 12, "")).expect("a list");
    let found = block_on(client.lists_named(world.slot(), "VIP")).expect("an answer");
    assert_eq!(found.iter().map(|list| list.id).collect::<Vec<_>>(), [LIST]);
    assert!(found[0].workspace.is_some());
    assert!(
        block_on(client.lists_named(world.slot(), "vip")).expect("an answer").iter().all(|list| list.name == "vip")
    );
    let comma = block_on(client.lists_in_folder(world.slot(), 12, "VIP, Europe")).expect("an answer");
    assert_eq!(comma.iter().map(|list| list.description.as_str()).collect::<Vec<_>>(), ["audience-sync x"]);
    assert_eq!(block_on(client.lists_in_folder(world.slot(), 12, "Nobody")).expect("an answer"), []);
    let (page, next) = block_on(client.lists_page(world.slot(), None)).expect("a page");
    assert_eq!((page.len(), next), (3, None));
}

#[test]
fn a_large_folder_is_read_page_by_page_and_every_list_of_the_name_is_found() {
    let world = World::new();
    let row = |n: u64| format!(r#"{{"id":{n},"name":"L{n}"}}"#);
    let page = |rows: Vec<String>| format!(r#"{{"success":true,"errors":[],"result":[{}]}}"#, rows.join(","));
    world.say(200, &page((0..200).map(row).collect()));
    world.say(200, &page((200..310).map(row).collect()));
    let found = block_on(world.client().lists_in_folder(world.slot(), 12, "L305")).expect("an answer");
    assert_eq!(found.iter().map(|list| list.id).collect::<Vec<_>>(), [305]);
    let offsets: Vec<bool> = world.sent().iter().map(|sent| sent.uri.contains("offset=200")).collect();
    assert_eq!(offsets, [false, false, true]);
    // The shape without `result`: a warning is an empty answer.
    world.say(200, &page((0..200).map(row).collect()));
    world.say(200, r#"{"success":true,"errors":[],"requestId":"r","warnings":["No assets found"]}"#);
    assert_eq!(block_on(world.client().lists_in_folder(world.slot(), 12, "x")).expect("an answer"), []);
}

#[test]
fn an_import_fills_a_list_and_tells_who_failed() {
    let world = World::new();
    world.double().delete(START, 5);
    let id = block_on(world.client().start_import(world.slot(), LIST, &set(&[3, 4, 5]))).expect("an import");
    let mut import = block_on(world.client().import_status(world.slot(), id)).expect("a status");
    assert_eq!(import.state, ImportState::Running);
    for _ in 0..60 {
        if import.state != ImportState::Running {
            break;
        }
        world.pass(MINUTE);
        import = block_on(world.client().import_status(world.slot(), id)).expect("a status");
    }
    let Import { state, failed, warned, .. } = import;
    assert_eq!((state, failed, warned), (ImportState::Complete, 1, 0));
    assert_eq!(world.double().members(LIST), Some(&BTreeSet::from([1, 2, 3, 4])));
    let failures = block_on(world.client().import_failures(world.slot(), id)).expect("a file");
    assert!(failures.len() == 1 && failures[0].0 == 5 && !failures[0].1.is_empty(), "{failures:?}");
    assert_eq!(block_on(world.client().import_warnings(world.slot(), id)).expect("a file"), []);
}

#[test]
fn the_members_of_a_list_are_extracted_with_their_ids_alone() {
    let world = World::new();
    let id = block_on(world.client().create_list_extract(world.slot(), LIST)).expect("a job");
    block_on(world.client().enqueue_extract(world.slot(), &id)).expect("enqueued");
    // Enqueued twice: Marketo says 1029, and it is well.
    block_on(world.client().enqueue_extract(world.slot(), &id)).expect("enqueued");
    world.pass(10 * MINUTE);
    let status = block_on(world.client().extract_status(world.slot(), &id)).expect("a status");
    let ExtractStatus::Completed { bytes } = status else { panic!("{status:?}") };
    let file = block_on(world.client().extract_file(world.slot(), &id, bytes)).expect("a file");
    assert_eq!(parse_extract(&file).iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_file_that_is_cut_is_not_taken_for_the_whole() {
    let world = World::new();
    let id = block_on(world.client().create_list_extract(world.slot(), LIST)).expect("a job");
    for (body, bytes) in [("", Some(7)), ("id\n1\n", Some(7))] {
        world.say(200, body);
        let cut = block_on(world.client().extract_file(world.slot(), &id, bytes)).expect_err("an error");
        assert!(matches!(cut, CallError::Ours(Failure::Retry { .. })), "{body:?}: {cut:?}");
    }
    // Whether a file of nobody has a line of columns is not documented.
    for bytes in [None, Some(0)] {
        world.say(200, "");
        assert_eq!(block_on(world.client().extract_file(world.slot(), &id, bytes)).expect("a file"), b"");
    }
    world.say(200, "id\n1\n2\n");
    assert_eq!(block_on(world.client().extract_file(world.slot(), &id, Some(7))).expect("a file"), b"id\n1\n2\n");
}

#[test]
fn a_list_that_is_not_there_is_an_answer() {
    for body in [
        r#"{"success":true,"errors":[],"requestId":"r","warnings":["No assets found"]}"#,
        r#"{"success":false,"errors":[{"code":"702"}]}"#,
        r#"{"success":false,"errors":[{"code":"1013"}]}"#,
        r#"{"success":false,"errors":[{"code":"610"}]}"#,
    ] {
        let world = World::new();
        world.say(200, body);
        assert_eq!(block_on(world.client().list(world.slot(), LIST)).expect("an answer"), None, "{body}");
    }
}
