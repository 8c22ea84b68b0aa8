use serde_json::{Value, json};

use super::*;
use crate::{
    feed::FeedFile,
    folder,
    testing::fixture,
    types::{Audience, Folder, Lead, Library, List, MarketoData, Match, Segment, Streamed},
};

/// ECID and token number n.
fn e(n: u64) -> String {
    format!("{n:038}")
}

fn t(n: u64) -> String {
    format!("_mch-example.com-1700000000000-{n}")
}

fn person(id: u64, tokens: &[u64], ecids: &[u64]) -> Lead {
    let email = Some(format!("{id}@example.com"));
    Lead { id, email, cookies: tokens.iter().map(|n| t(*n)).collect(), ecids: ecids.iter().map(|n| e(*n)).collect() }
}

fn anonymous(id: u64, tokens: &[u64]) -> Lead {
    Lead { email: None, ..person(id, tokens, &[]) }
}

fn seen(ecid: u64, token: u64) -> Match {
    Match { ecid: e(ecid), token: t(token), seen_at: "2026-11-01T00:00:00Z".to_owned() }
}

/// The n-th file; rows of ECID, segments, removed.
fn file(n: u64, mode: &str, split: &str, rows: &[(u64, &str, &str)]) -> FeedFile {
    let text: String =
        rows.iter().map(|(ecid, segments, removed)| format!("{}\t{segments}\t{removed}\n", e(*ecid))).collect();
    FeedFile::new(format!("S3_1_2_X_{mode}_{}{split}.sync", 1_700_000_000_000 + n), text.into_bytes())
}

fn full(n: u64, rows: &[(u64, &str, &str)]) -> FeedFile {
    file(n, "full", "", rows)
}

/// Leads 1 to 4, each with one browser whose token and ECID have the lead's number; list 50 holds lead 2 and
/// lead 9, whom no ECID is tied to; audiences 101 and 102.
fn world(syncs: Value, files: Vec<FeedFile>) -> World {
    let segment = |sid| Segment { sid, folder_id: 1, name: format!("segment {sid}") };
    let folder = Folder { folder_id: 1, parent_folder_id: 0, name: "folder".to_owned() };
    let mut leads: Vec<Lead> = (1..=4).map(|id| person(id, &[id], &[])).collect();
    leads.push(person(9, &[], &[]));
    World {
        library: Library { folders: vec![folder], segments: vec![segment(101), segment(102)], ..Library::default() },
        marketo: MarketoData {
            munchkin_id: "123-ABC-456".to_owned(),
            org_id: Some("0123456789ABCDEF01234567@AdobeOrg".to_owned()),
            hipaa_ready: false,
            cookie_sync: true,
            leads,
            lists: vec![List { id: 50, name: "old".to_owned(), members: [2, 9].into() }],
        },
        matches: (1..=4).map(|n| seen(n, n)).collect(),
        feeds: BTreeMap::new(),
        syncs: syncs.as_array().expect("an array").clone(),
        files,
        later: Vec::new(),
    }
}

fn old(options: Value) -> Value {
    let mut body = json!({"audience_id": "aam:101", "list": {"id": 50}});
    body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
    json!([body])
}

#[track_caller]
fn holds(world: &World, after: usize, list: u64, members: &[u64]) {
    assert_eq!(lists(world, after)[&list], members.iter().copied().collect::<BTreeSet<_>>(), "after {after} files");
}

fn later(world: &mut World, after_file: usize, event: Event) {
    world.later.push(crate::types::Later { after_file, event });
}

#[test]
fn the_model_stays_under_a_hundred_lines() {
    let (model, _) = include_str!("../reference.rs").split_once("#[cfg(test)]").expect("tests come last");
    let code = model.lines().map(str::trim);
    let code = code.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    assert!(code < 100, "{code} lines");
}

/// A fixture's world, and whether it ends with the lists that its folder says.
fn fixture_of(name: &str) -> World {
    let world = folder::read(&fixture(name)).expect("good");
    assert_eq!(unknown(&world), Vec::<String>::new());
    let text = std::fs::read_to_string(fixture(name).join("out/lists.json")).expect("the fixture is there");
    let expected: Vec<List> = serde_json::from_str(&text).expect("lists");
    let expected: BTreeMap<u64, BTreeSet<u64>> = expected.into_iter().map(|list| (list.id, list.members)).collect();
    assert_eq!(lists(&world, world.files.len()), expected);
    world
}

#[test]
fn the_fixtures_end_as_their_readmes_say() {
    let world = fixture_of("tiny");
    holds(&world, 0, 1001, &[100_002]);
    holds(&world, 1, 1001, &[100_001, 100_002, 100_003]);
    holds(&world, 1, 1002, &[100_001, 100_004]);

    let mut world = fixture_of("shapes");
    holds(&world, 5, 1001, &[100_001, 100_002]);
    holds(&world, 5, 1002, &[100_001, 100_002, 100_004]);
    holds(&world, 5, 1003, &[100_003, 100_005]);
    world.later.clear();
    holds(&world, 5, 1001, &[100_001, 100_002, 100_003]);
    holds(&world, 5, 1002, &[100_001]);
}

#[test]
fn people_join_and_leave_and_earlier_members_stay() {
    let mut w = world(
        old(json!({})),
        vec![full(1, &[(1, "101", ""), (2, "101", ""), (3, "101,102", "")]), full(2, &[(1, "101", "")])],
    );
    holds(&w, 0, 50, &[2, 9]);
    holds(&w, 1, 50, &[1, 2, 3, 9]);
    holds(&w, 2, 50, &[1, 2, 9]);
    w.syncs = vec![old(json!({"leaving": "keep"}))[0].clone()];
    holds(&w, 2, 50, &[1, 2, 3, 9]);
    w.syncs = vec![old(json!({"members_before": "adopt"}))[0].clone()];
    holds(&w, 1, 50, &[1, 2, 3, 9]);
    holds(&w, 2, 50, &[1, 9]);
}

#[test]
fn two_audiences_on_one_list_are_a_union() {
    let files = vec![full(1, &[(1, "101", ""), (3, "101,102", "")]), full(2, &[(3, "102", ""), (4, "101", "")])];
    let two = |options: Value| {
        let mut syncs = old(json!({}));
        let mut second = old(options)[0].clone();
        second["audience_id"] = json!("aam:102");
        syncs.as_array_mut().expect("an array").push(second);
        syncs
    };
    let w = world(two(json!({})), files.clone());
    holds(&w, 1, 50, &[1, 2, 3, 9]);
    holds(&w, 2, 50, &[2, 3, 4, 9]);
    // Who was ever wanted by the sync that keeps stays; who only the other one wanted leaves.
    let mut three = files.clone();
    three.push(full(3, &[(4, "101,102", "")]));
    holds(&world(two(json!({"leaving": "keep"})), three), 3, 50, &[2, 3, 4, 9]);
    holds(&world(two(json!({"members_before": "adopt"})), files.clone()), 2, 50, &[3, 4, 9]);
    holds(&world(two(json!({"members_before": "adopt", "leaving": "keep"})), files), 2, 50, &[2, 3, 4, 9]);
}

#[test]
fn an_audience_that_no_file_names_moves_nobody() {
    let adopt = old(json!({"members_before": "adopt"}));
    let w = world(adopt, vec![full(1, &[(1, "102", "")]), full(2, &[(1, "101", "")]), full(3, &[(1, "102", "")])]);
    holds(&w, 1, 50, &[2, 9]); // not delivered
    holds(&w, 2, 50, &[1, 9]);
    holds(&w, 3, 50, &[1, 9]); // delivered once, not named again: as it was
}

#[test]
fn only_a_whole_full_file_is_a_snapshot() {
    let w = world(
        old(json!({})),
        vec![
            full(1, &[(1, "101", ""), (3, "101", "")]),
            file(2, "full", "001", &[(4, "101", "")]),
            file(3, "iter", "", &[(3, "", "101")]),
            full(4, &[(4, "101", ""), (1, "102", "101"), (3, "101", "101")]),
        ],
    );
    holds(&w, 2, 50, &[1, 2, 3, 4, 9]);
    holds(&w, 3, 50, &[1, 2, 4, 9]);
    holds(&w, 4, 50, &[2, 3, 4, 9]); // the removed column of a full file says nothing
}

#[test]
fn files_that_cannot_be_read_and_bad_rows_change_nothing() {
    let mut foreign = full(2, &[(4, "101", "")]);
    foreign.name = "other.txt".to_owned();
    let mut cut = full(3, &[(4, "101", "")]);
    cut.name.push_str(".gz");
    let mut bad = full(4, &[(1, "101", ""), (3, "101,999,x", "")]);
    bad.bytes.extend(b"4\t101\t\n00000000000000000000000000000000000004\n");
    let w = world(old(json!({})), vec![full(1, &[(1, "101", "")]), foreign, cut, bad, full(5, &[])]);
    for (after, members) in [(1, vec![1, 2, 9]), (3, vec![1, 2, 9]), (4, vec![1, 2, 3, 9]), (5, vec![1, 2, 3, 9])] {
        holds(&w, after, 50, &members);
    }
}

#[test]
fn a_person_is_whoever_owns_a_token_or_has_the_ecid_in_marketo() {
    let mut w = world(old(json!({})), vec![full(1, &[(1, "101", ""), (5, "101", ""), (6, "101", ""), (7, "101", "")])]);
    w.marketo.leads.extend([person(5, &[], &[5]), anonymous(6, &[6]), person(7, &[1], &[])]);
    w.matches.extend([seen(6, 6), seen(7, 77)]);
    holds(&w, 1, 50, &[2, 5, 7, 9]); // token 1 is lead 7's: the last one wins; lead 6 is anonymous; 77 is nobody's
    later(&mut w, 1, Event::Lead(person(6, &[6], &[])));
    holds(&w, 1, 50, &[2, 5, 6, 7, 9]);
    later(&mut w, 1, Event::Lead(person(1, &[1], &[])));
    later(&mut w, 1, Event::Match(seen(7, 3)));
    holds(&w, 1, 50, &[1, 2, 3, 5, 6, 9]);
    // An event states the lead whole: what it does not repeat is gone.
    later(&mut w, 1, Event::Lead(person(1, &[], &[])));
    later(&mut w, 1, Event::Lead(person(5, &[], &[])));
    later(&mut w, 1, Event::Lead(anonymous(6, &[6])));
    holds(&w, 1, 50, &[2, 3, 9]);
}

#[test]
fn over_a_cap_the_whole_key_is_set_aside() {
    let mut w = world(old(json!({})), vec![full(1, &[(1, "101", ""), (3, "101", ""), (100, "101", "")])]);
    w.marketo.leads.push(person(5, &[], &[1]));
    w.matches.extend((11..20).map(|token| seen(1, token)));
    w.matches.extend((101..150).map(|ecid| seen(ecid, 3)));
    holds(&w, 1, 50, &[1, 2, 3, 5, 9]); // 10 tokens, 50 ECIDs
    w.matches.push(seen(1, 20));
    holds(&w, 1, 50, &[2, 3, 9]);
    w.matches.push(seen(100, 3));
    holds(&w, 1, 50, &[2, 9]);
}

#[test]
fn a_merge_unites_and_a_deletion_ends() {
    let rows = [(1, "101", ""), (3, "101", "")];
    let mut w = world(old(json!({})), vec![full(1, &rows), full(2, &[(3, "101", "")])]);
    later(&mut w, 1, Event::Merge { winner: 1, losers: vec![2] });
    later(&mut w, 1, Event::Delete(3));
    holds(&w, 1, 50, &[1, 9]);
    holds(&w, 2, 50, &[1, 9]); // the loser was there before us, so the winner stays

    w.later.clear();
    later(&mut w, 1, Event::Merge { winner: 4, losers: vec![1, 3] });
    holds(&w, 1, 50, &[2, 4, 9]);
    holds(&w, 2, 50, &[2, 4, 9]); // still wanted for lead 3's ECID
    later(&mut w, 2, Event::Delete(4));
    holds(&w, 2, 50, &[2, 9]);
    // What names a lead that is gone is passed over.
    later(&mut w, 2, Event::Merge { winner: 2, losers: vec![4, 2] });
    later(&mut w, 2, Event::Merge { winner: 1, losers: vec![2] });
    later(&mut w, 2, Event::Delete(1));
    holds(&w, 2, 50, &[2, 9]);
}

#[test]
fn a_merge_with_a_known_lead_makes_an_anonymous_winner_known() {
    let mut w = world(old(json!({})), vec![full(1, &[(6, "101", "")])]);
    w.marketo.leads.push(anonymous(6, &[6]));
    w.matches.push(seen(6, 6));
    holds(&w, 1, 50, &[2, 9]);
    later(&mut w, 1, Event::Merge { winner: 6, losers: vec![4] });
    holds(&w, 1, 50, &[2, 6, 9]);
}

#[test]
fn new_lists_count_up_and_refused_syncs_do_nothing() {
    let syncs = json!([
        {"audience_id": "aam:101", "list": {"name": "dry"}, "start": "report_only"},
        {"audience_id": "aam:101", "list": {"name": "old"}},
        {"audience_id": "aam:999", "list": {"name": "unknown audience"}},
        {"audience_id": "aam:101", "list": {"id": 77}},
        {"audience_id": "aam:101", "list": {"name": "new"}},
        {"audience_id": "aam:102", "list": {"name": "newer"}},
        {"audience_id": "aam:102", "list": {"id": 51}},
        {"audience_id": "aam:101", "list": {"id": 51}, "leaving": "keep"},
    ]);
    let mut w = world(syncs, vec![full(1, &[(1, "101", ""), (3, "102", "")]), full(2, &[(4, "101", "")])]);
    assert_eq!(lists(&w, 0).into_keys().collect::<Vec<_>>(), [50, 51, 52]);
    holds(&w, 2, 50, &[2, 9]);
    holds(&w, 2, 51, &[3, 4]);
    holds(&w, 2, 52, &[3]);

    let refused = |change: fn(&mut MarketoData)| {
        let mut w = w.clone();
        change(&mut w.marketo);
        lists(&w, 2)
    };
    let changes: [fn(&mut MarketoData); 3] = [|m| m.hipaa_ready = true, |m| m.cookie_sync = false, |m| m.org_id = None];
    for change in changes {
        assert_eq!(refused(change), BTreeMap::from([(50, BTreeSet::from([2, 9]))]));
    }
    later(&mut w, 2, Event::Delete(2));
    w.marketo.hipaa_ready = true;
    holds(&w, 2, 50, &[9]); // that is Marketo's doing, not ours
}

const PLATFORM: &str = "11111111-2222-3333-4444-555555555555";

/// Lists 50's sync is of an audience of Experience Platform, whose feed `shop` is declared so.
fn platform(feed: Value, files: &[(&str, &str)]) -> World {
    let mut syncs = old(json!({}));
    syncs[0]["audience_id"] = json!(format!("aep:{PLATFORM}"));
    let files = files.iter().map(|(name, text)| FeedFile::new(format!("shop/{name}"), text.as_bytes().to_vec()));
    let mut w = world(syncs, files.collect());
    w.library.audiences.push(Audience { id: PLATFORM.to_owned(), name: "Shop".to_owned(), external: false });
    w.feeds.insert("shop".to_owned(), feed);
    w
}

#[test]
fn split_files_are_a_snapshot_once_all_that_the_control_file_names_are_there() {
    let root = "S3_1_2_X_full_1700000000002";
    let names = format!(
        r#"{{ Files: [ {{ FileName: "{root}001.sync" }}, {{ FileName: "{root}002.sync" }} ], Totals: {{ FileName: "{root}.sync" }} }}"#
    );
    let info = FeedFile::new(format!("{root}.info"), names.into_bytes());
    let part = |split, row| file(2, "full", split, &[row]);
    let (one, two) = (part("001", (1, "101", "")), part("002", (3, "101", "")));
    let first = full(1, &[(4, "101", "")]);
    for rest in [[&info, &one, &two], [&one, &info, &two], [&two, &one, &info]] {
        let files = [&first].into_iter().chain(rest).cloned().collect();
        let mut w = world(old(json!({})), files);
        w.feeds.insert("default".to_owned(), json!({"snapshots": true, "completeness": "single-file"}));
        holds(&w, 4, 50, &[1, 2, 3, 4, 9]);
        // The first file has no control file, and so takes nobody out either.
        w.feeds.insert("default".to_owned(), json!({"snapshots": true, "completeness": "info"}));
        assert!(unknown(&w).is_empty());
        holds(&w, 1, 50, &[2, 4, 9]);
        holds(&w, 4, 50, &[1, 2, 3, 9]);
        w.feeds.insert("default".to_owned(), json!({"snapshots": false, "completeness": "info"}));
        holds(&w, 4, 50, &[1, 2, 3, 4, 9]);
    }
}

#[test]
fn an_export_tells_of_the_audience_that_it_names() {
    let (one, two) = ("a_20260101000000.csv", "a_20260102000000.csv");
    let head = format!("identityMap.ECID;segmentMembership.ups.{PLATFORM}.status");
    let full = |ecids: &[u64]| ecids.iter().fold(head.clone(), |text, n| format!("{text}\n{};Realized", e(*n)));
    let whole = json!({"kind": "aep-files", "snapshots": true, "full": true});
    let w = platform(whole.clone(), &[(one, &full(&[1, 3])), (two, &full(&[4]))]);
    assert!(unknown(&w).is_empty());
    holds(&w, 1, 50, &[1, 2, 3, 9]);
    holds(&w, 2, 50, &[2, 4, 9]);
    let news = format!("{};exited\r\n{};active\r\nnonsense;active\r\n{};else", e(3), e(4), e(1));
    let news = format!("{head}\r\n{news}\r\n");
    let w = platform(json!({"kind": "aep-files"}), &[(one, &full(&[1, 3])), (two, &news)]);
    holds(&w, 2, 50, &[1, 2, 4, 9]);

    // Files without a status column, named by their folder, whole with the manifest.
    let plain = |n| format!("ECID\n{}\n", e(n));
    let (first, second) = (format!("{PLATFORM}/x_20260102000000.csv"), format!("{PLATFORM}/x_20260102000000_2.csv"));
    let manifest = r#"{"exportResults":[{"name":"x_20260102000000.csv"},{"name":"x_20260102000000_2.csv"}]}"#;
    let mut by_manifest = whole.clone();
    by_manifest["completeness"] = json!("manifest");
    let files =
        [(one, full(&[1])), (&*first, plain(3)), ("manifest-1-2.json", manifest.to_owned()), (&*second, plain(4))];
    let w = platform(by_manifest, &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    assert!(unknown(&w).is_empty());
    holds(&w, 3, 50, &[1, 2, 3, 9]);
    holds(&w, 4, 50, &[2, 3, 4, 9]);
}

#[test]
fn what_a_stream_says_is_newer_than_any_file() {
    let mut w = world(old(json!({})), vec![full(1, &[(1, "101", "")]), full(2, &[(1, "101", ""), (4, "101", "")])]);
    let said = |n, member| Event::Stream(Streamed { audience: "aam:101".to_owned(), ecid: e(n), member });
    later(&mut w, 1, said(3, true));
    later(&mut w, 1, said(1, false));
    holds(&w, 1, 50, &[2, 3, 9]);
    holds(&w, 2, 50, &[2, 3, 4, 9]);
}

#[test]
fn the_reference_says_what_it_does_not_know() {
    let whole = json!({"kind": "aep-files", "snapshots": true, "full": true});
    let name = format!("x_segment{PLATFORM}_20260102000000");
    let text = format!("ECID\n{}\n", e(1));
    let why = |feed: &Value, name: &str, text: &str| {
        let lines = unknown(&platform(feed.clone(), &[(name, text)]));
        lines.first().map(|line| line.split_once(": ").expect("a reason").1.to_owned()).unwrap_or_default()
    };
    assert_eq!(why(&whole, &format!("{name}.csv"), &text), "");
    assert_eq!(why(&whole, &format!("{name}.json"), "[]"), "it is in JSON");
    assert_eq!(why(&whole, "x_20260102000000.csv", &text), "it tells of no audience that is known here");
    assert_eq!(why(&whole, &format!("{name}.csv"), "\"ECID\"\n"), "it tells of no audience that is known here");
    assert_eq!(why(&whole, &format!("{name}.csv"), &format!("{text}\"\"\n")), "it has quotes");
    assert_eq!(why(&whole, &format!("{name}_2.csv"), &text), "it is split, and nothing says when it is whole");
    assert_eq!(why(&whole, &format!("{name}.csv"), "ECID\n"), "nobody is in it");
    let mut quiet = whole.clone();
    quiet["completeness"] = json!("quiet-period");
    let clock = "when its delivery counts as whole depends on the clock";
    assert_eq!(why(&quiet, &format!("{name}.csv"), &text), clock);
    let spaces = FeedFile::new("s3_1_2_X_iter_1700000000000.sync", format!("{} 101 \n", e(1)).into_bytes());
    let w = world(old(json!({})), vec![spaces.clone()]);
    assert_eq!(unknown(&w), ["s3_1_2_X_iter_1700000000000.sync: its columns are not divided by tabs"]);
    let elsewhere = FeedFile { name: format!("web/{}", spaces.name), ..spaces };
    let w = world(old(json!({})), vec![elsewhere]);
    assert_eq!(unknown(&w), ["web/s3_1_2_X_iter_1700000000000.sync: its feed is not declared"]);
}
