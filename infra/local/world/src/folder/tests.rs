use crate::testing::{Scratch, tiny};

use super::*;

const ECID: &str = "00000000000000000000000000000000000001";
const TOKEN: &str = "_mch-example.com-1793000000000-10001";

/// The lines with which the fixture is refused once `file` holds `content`.
fn refused(file: &str, content: &str) -> Vec<String> {
    read(Scratch::tiny().put(file, content).0.as_path()).expect_err("refused").lines
}

#[track_caller]
fn refuses(file: &str, content: &str, line: &str) {
    assert_eq!(refused(file, content), [line]);
}

fn marketo(rest: &str) -> String {
    format!(r#"{{"munchkin_id":"123-ABC-456",{rest}}}"#)
}

#[test]
fn the_fixture_is_read() {
    let world = read(&tiny()).expect("good");
    assert_eq!(world.library.segments.len(), 2);
    assert_eq!(world.marketo.leads.len(), 5);
    assert!(world.marketo.cookie_sync && !world.marketo.hipaa_ready);
    assert_eq!(world.matches.len(), 6);
    assert_eq!(world.syncs[0], serde_json::json!({"audience_id": "aam:101", "list": {"id": 1001}}));
    assert_eq!(
        world.files.iter().map(|f| f.time_ms).collect::<Vec<_>>(),
        [Some(1_793_491_200_000), Some(1_793_577_600_000)]
    );
    assert!(matches!(&world.later[0], Later { after_file: 1, event: Event::Lead(lead) } if lead.id == 100_004));
}

#[test]
fn what_is_written_is_read_again() {
    let scratch = Scratch::new();
    let mut world = read(&tiny()).expect("good");
    world.later.extend([
        Later { after_file: 2, event: Event::Match(world.matches[0].clone()) },
        Later { after_file: 2, event: Event::Merge { winner: 100_001, losers: vec![100_002] } },
        Later { after_file: 2, event: Event::Delete(100_003) },
    ]);
    write(&world, &scratch.0).expect("written");
    assert_eq!(read(&scratch.0), Ok(world.clone()));
    let text = fs::read_to_string(scratch.0.join("later.jsonl")).expect("written");
    assert!(text.contains(
        "\n{\"after_file\":2,\"merge\":{\"winner\":100001,\"losers\":[100002]}}\n{\"after_file\":2,\"delete\":100003}\n"
    ));
    assert_eq!(serde_json::from_str::<Later>(text.lines().next().expect("a line")).expect("read"), world.later[0]);
}

#[test]
fn some_files_may_be_missing_and_others_may_not() {
    let scratch = Scratch::tiny();
    for file in ["matches.jsonl", "syncs.json", "later.jsonl"] {
        scratch.remove(file);
    }
    let world = read(&scratch.0).expect("good");
    assert!(world.matches.is_empty() && world.syncs.is_empty() && world.later.is_empty());

    scratch.remove("library.json").remove("marketo.json");
    fs::rename(scratch.0.join("incoming"), scratch.0.join("other")).expect("renamed");
    assert_eq!(
        read(&scratch.0).expect_err("refused").to_string(),
        [
            "library.json: expected a file of UTF-8 text, found none",
            "marketo.json: expected a file of UTF-8 text, found none",
            "incoming: expected a folder with the feeds' files (it may be empty), found none",
        ]
        .join("\n")
    );
    let none = read(&scratch.0.join("nowhere")).expect_err("refused");
    assert_eq!(none.to_string(), "the data folder: expected a folder, found none");
}

#[test]
fn files_arrive_by_the_time_in_the_name_and_foreign_ones_last() {
    let scratch = Scratch::tiny();
    scratch.put("incoming/a.txt", "not for us").put("incoming/z_iter_1449756724.sync", "").put("incoming/.gitkeep", "");
    let names = read(&scratch.0).expect("good").files.into_iter().map(|f| f.name).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "z_iter_1449756724.sync",
            "S3_1234_20914_Tiny_full_1793491200000.sync",
            "S3_1234_20914_Tiny_full_1793577600000.sync",
            "a.txt"
        ]
    );
}

#[test]
fn feeds_have_folders_and_settings_of_their_own() {
    let scratch = Scratch::tiny();
    fs::create_dir_all(scratch.0.join("incoming/shop/audience-a")).expect("made");
    let feeds = r#"{"shop": {"kind": "aep-files", "full": true}, "web": {"snapshots": false}}"#;
    let manifest = r#"{"exportResults":[{"name":"Shop_20261101000000.csv"}]}"#;
    scratch
        .put("feeds.json", feeds)
        .put("incoming/shop/audience-a/Shop_20261101000000.csv", "identityMap.ECID\n")
        .put("incoming/shop/manifest-1-2.json", manifest)
        .put("incoming/S3_1234_20914_Tiny_full_1793491200000.info", "{}");
    let world = read(&scratch.0).expect("good");
    let names: Vec<_> = world.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "S3_1234_20914_Tiny_full_1793491200000.info",
            "S3_1234_20914_Tiny_full_1793491200000.sync",
            "shop/audience-a/Shop_20261101000000.csv",
            "shop/manifest-1-2.json",
            "S3_1234_20914_Tiny_full_1793577600000.sync",
        ]
    );
    assert_eq!(world.feeds["shop"]["kind"], "aep-files");
    let copy = Scratch::new();
    write(&world, &copy.0).expect("written");
    assert_eq!(read(&copy.0).expect("good"), world);
    refuses("feeds.json", r#"{"shop": 1}"#, "feeds.json:1: shop: expected an object, found a number");
}

#[test]
fn experience_platform_stands_beside_audience_manager_in_the_library() {
    let (one, two) = ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000");
    let library = |parent: &str, id: &str| {
        format!(
            r#"{{"folders":[],"segments":[],"audiences":[{{"id":"{id}","name":"Shop","external":true}}],
            "platform_folders":[{{"id":"{one}","name":"Top"}},{{"id":"{two}","parentId":"{parent}","name":"Below"}}]}}"#
        )
    };
    let world = read(Scratch::tiny().put("library.json", library(one, one)).0.as_path()).expect("good");
    assert_eq!(world.library.audiences, [Audience { id: one.to_owned(), name: "Shop".to_owned(), external: true }]);
    assert_eq!(world.library.platform_folders[1].parent_id.as_deref(), Some(one));
    let wrong = "library.json:2: platform_folders[1].parentId: expected the id of a folder that stands above this one, or null, found something else";
    assert_eq!(refused("library.json", &library(two, one)), [wrong]);
    let wrong = "library.json:1: audiences[0].id: expected a UUID in lower case, found a string of 3 characters";
    assert_eq!(refused("library.json", &library(one, "abc")), [wrong]);
}

#[test]
fn broken_json_is_refused_with_its_line() {
    refuses(
        "library.json",
        "{\n  \"folders\": [,]\n}",
        "library.json:2: expected valid JSON, found something else at column 15",
    );
    let line = format!(r#"{{"ecid":"{ECID}","token":"{TOKEN}","seen_at":"2026-11-01T00:00:00Z"}}"#);
    let broken = format!("{line}\n\n{{\"ecid\": \n{line}\n");
    refuses("matches.jsonl", &broken, "matches.jsonl:3: expected valid JSON, found something else at column 9");
    refuses("syncs.json", "", "syncs.json:1: expected valid JSON, found something else at column 0");
    let bytes = read(&Scratch::tiny().put("syncs.json", [0xff]).0).expect_err("refused");
    assert_eq!(bytes.to_string(), "syncs.json: expected a file of UTF-8 text, found other bytes");
}

#[test]
fn a_match_needs_38_digits_a_token_and_a_time() {
    let cases = [
        (format!(r#"{{"ecid":{ECID}9,"token":"{TOKEN}","seen_at":"2026-11-01T00:00:00Z"}}"#).replace(":0", ":1"),
            "ecid: expected a string of 38 digits, found a number".to_owned()),
        (format!(r#"{{"ecid":"{ECID}0","token":"{TOKEN}","seen_at":"2026-11-01T00:00:00Z"}}"#),
            "ecid: expected a string of 38 digits, found a string of 39 characters".to_owned()),
        (format!(r#"{{"ecid":null,"token":"{TOKEN}","seen_at":"2026-11-01T00:00:00Z"}}"#),
            "ecid: expected a string of 38 digits, found null".to_owned()),
        (format!(r#"{{"token":"{TOKEN}","seen_at":"2026-11-01T00:00:00Z"}}"#),
            "expected the field \"ecid\", found none".to_owned()),
        (format!(r#"{{"ecid":"{ECID}","token":"secret","seen_at":"2026-11-01T00:00:00Z"}}"#),
            "token: expected a Munchkin token such as _mch-example.com-1700000000000-12345, found a string of 6 characters".to_owned()),
        (format!(r#"{{"ecid":"{ECID}","token":"{TOKEN}","seen_at":"yesterday"}}"#),
            "seen_at: expected a time such as 2026-11-01T00:00:00Z (RFC 3339), found a string of 9 characters".to_owned()),
        ("[1]".to_owned(), "expected an object, found an array".to_owned()),
    ];
    let good = format!(r#"{{"ecid":"{ECID}","token":"{TOKEN}","seen_at":"2026-11-01T00:00:00Z","more":1}}"#);
    for (line, expected) in cases {
        refuses("matches.jsonl", &format!("{good}\n{line}\n"), &format!("matches.jsonl:2: {expected}"));
    }
}

#[test]
fn tokens_of_both_forms_are_read_from_the_right() {
    for good in [
        TOKEN,
        "_mch-my-shop.co.uk-1700000000000-1",
        "_mch-a.com-97bf4361ef4433921a6da262e8df45a",
        "_mch-a.com-0123456789abcdef0123456789abcdef",
    ] {
        assert!(is_token(good), "{good}");
    }
    for bad in [
        "",
        "_mch-",
        "mch-a.com-1700000000000-1",
        "_mch-1700000000000-1",
        "_mch-a.com-170000000000-1",
        "_mch-a.com-1700000000000-123456",
        "_mch-a.com-97bf",
    ] {
        assert!(!is_token(bad), "{bad}");
    }
}

#[test]
fn the_subscription_is_checked() {
    let lines = refused(
        "marketo.json",
        "{\n\"munchkin_id\":\"123-abc-456\",\n\"org_id\":\"short@AdobeOrg\",\n\"hipaa_ready\":\"no\",\n\"leads\":[\n]}",
    );
    // The event in later.jsonl and the fixture's members are not blamed for a file that could not be read.
    assert_eq!(
        lines,
        [
            "marketo.json:2: munchkin_id: expected a Munchkin id such as 123-ABC-456, found a string of 11 characters",
            "marketo.json:3: org_id: expected 24 digits or capital letters and @AdobeOrg, or null, found a string of 14 characters",
            "marketo.json:4: hipaa_ready: expected true or false, found a string of 2 characters",
        ]
    );
    refuses("marketo.json", "[]", "marketo.json:1: expected an object, found an array");
    refuses("marketo.json", &marketo(r#""lists":[]"#), "marketo.json:1: expected the field \"leads\", found none");
}

#[test]
fn leads_are_checked() {
    let line = |lead: &str| refused("marketo.json", &marketo(&format!("\n\"leads\":[{{\"id\":100004}},\n{lead}]")));
    let cases = [
        (r#"{"id":100004}"#, "leads[1].id: expected an id that stands once, found one that stood before"),
        (r#"{"id":0}"#, "leads[1].id: expected a positive integer, found a number"),
        (r#"{"id":-1}"#, "leads[1].id: expected a positive integer, found a number"),
        (r#"{"id":"1"}"#, "leads[1].id: expected a positive integer, found a string of 1 characters"),
        (
            r#"{"id":1,"email":"x"}"#,
            "leads[1].email: expected an email address or null, found a string of 1 characters",
        ),
        (r#"{"id":1,"cookies":{}}"#, "leads[1].cookies: expected an array, found an object"),
        (
            r#"{"id":1,"ecids":["1"]}"#,
            "leads[1].ecids[0]: expected a string of 38 digits, found a string of 1 characters",
        ),
        (r#"{"id":1,"ecids":[1]}"#, "leads[1].ecids[0]: expected a string of 38 digits, found a number"),
    ];
    for (lead, expected) in cases {
        assert_eq!(line(lead), [format!("marketo.json:3: {expected}")]);
    }
    let cookie = line(r#"{"id":1,"cookies":["a"]}"#);
    assert!(cookie[0].starts_with("marketo.json:3: leads[1].cookies[0]: expected a Munchkin token"), "{cookie:?}");
}

#[test]
fn lists_are_checked() {
    let lines = refused(
        "marketo.json",
        &marketo(
            "\"leads\":[{\"id\":100004}],\"lists\":[{\"id\":1,\"name\":\"A\",\"members\":[100004]},\n{\"id\":1,\"name\":\"A\",\"members\":[\n7]},\n{\"id\":2,\"name\":\" \"}]",
        ),
    );
    assert_eq!(
        lines,
        [
            "marketo.json:2: lists[1].id: expected an id that stands once, found one that stood before",
            "marketo.json:2: lists[1].name: expected a name that no other list has, found one that stood before",
            "marketo.json:3: lists[1].members[0]: expected the id of a lead in leads, found another number",
            "marketo.json:4: lists[2].name: expected a name, found a string of 1 characters",
        ]
    );
}

#[test]
fn the_library_is_checked() {
    let lines = refused(
        "library.json",
        r#"{"folders":[
{"folderId":1,"parentFolderId":0,"name":"A"},
{"folderId":1,"parentFolderId":0,"name":"B"},
{"folderId":2,"parentFolderId":9,"name":"C"},
{"folderId":3,"parentFolderId":4,"name":"D"},
{"folderId":4,"parentFolderId":3,"name":"E"},
{"folderId":5,"name":"F"}],
"segments":[
{"sid":101,"folderId":1,"name":"A"},
{"sid":101,"folderId":1,"name":"B"},
{"sid":102,"folderId":9,"name":"C"}]}"#,
    );
    let parent = "expected 0 or the folderId of a folder that is not below this one, found another number";
    assert_eq!(
        lines,
        [
            "library.json:3: folders[1].folderId: expected an id that stands once, found one that stood before"
                .to_owned(),
            format!("library.json:4: folders[2].parentFolderId: {parent}"),
            format!("library.json:5: folders[3].parentFolderId: {parent}"),
            format!("library.json:6: folders[4].parentFolderId: {parent}"),
            "library.json:7: folders[5]: expected the field \"parentFolderId\", found none".to_owned(),
            "library.json:10: segments[1].sid: expected an id that stands once, found one that stood before".to_owned(),
            "library.json:11: segments[2].folderId: expected the folderId of a folder, found another number".to_owned(),
        ]
    );
}

#[test]
fn syncs_are_checked_for_their_shape_alone() {
    let unknown = r#"[{"audience_id":"aam:999","list":{"id":77},"more":1}]"#;
    assert_eq!(read(&Scratch::tiny().put("syncs.json", unknown).0).expect("the API says no, not we").syncs.len(), 1);
    let lines = refused(
        "syncs.json",
        r#"[{"audience_id":"101","list":{"id":1}},
{"audience_id":"aam:x","list":{"id":1,"name":"A"}},
{"audience_id":"aam:1","list":{}},
{"audience_id":"aam:1","list":{"name":"A","folder_id":"f"},"leaving":"stay","members_before":1,"start":"later"},
{"list":7}]"#,
    );
    let audience = "expected aam: and the sid of a segment, such as aam:101, or aep: and the id of an audience";
    assert_eq!(
        lines,
        [
            format!("syncs.json:1: [0].audience_id: {audience}, found a string of 3 characters"),
            format!("syncs.json:2: [1].audience_id: {audience}, found a string of 5 characters"),
            "syncs.json:2: [1].list: expected either id or name, found both".to_owned(),
            "syncs.json:3: [2].list: expected either id or name, found neither".to_owned(),
            "syncs.json:4: [3].list.folder_id: expected a positive integer, found a string of 1 characters".to_owned(),
            "syncs.json:4: [3].leaving: expected \"remove\" or \"keep\", found a string of 4 characters".to_owned(),
            "syncs.json:4: [3].members_before: expected \"keep\" or \"adopt\", found a number".to_owned(),
            "syncs.json:4: [3].start: expected \"now\" or \"report_only\", found a string of 5 characters".to_owned(),
            "syncs.json:5: [4]: expected the field \"audience_id\", found none".to_owned(),
            "syncs.json:5: [4].list: expected an object, found a number".to_owned(),
        ]
    );
}

#[test]
fn later_events_are_checked_in_the_order_in_which_they_happen() {
    let lines = refused(
        "later.jsonl",
        r#"{"after_file":2,"delete":100006}
{"after_file":1,"lead":{"id":100006}}
{"after_file":3,"delete":100001}
{"after_file":0,"delete":100001}
{"after_file":1}
{"after_file":1,"delete":100001,"merge":{"winner":1,"losers":[2]}}
{"after_file":1,"merge":{"winner":100001,"losers":[100001]}}
{"after_file":1,"merge":{"winner":100001,"losers":[100002]}}
{"after_file":2,"delete":100002}
{"after_file":2,"lead":{"id":100002}}
{"after_file":2,"match":{"ecid":"1"}}"#,
    );
    let one = "expected exactly one of lead, match, merge, delete and stream";
    assert_eq!(
        lines,
        [
            "later.jsonl:3: after_file: expected the number of a file, 1 to 2, found a larger number".to_owned(),
            "later.jsonl:4: after_file: expected a positive integer, found a number".to_owned(),
            format!("later.jsonl:5: {one}, found 0"),
            format!("later.jsonl:6: {one}, found 2"),
            "later.jsonl:7: merge.losers[0]: expected another lead than the winner, found the winner".to_owned(),
            "later.jsonl:11: match: expected the field \"token\", found none".to_owned(),
            "later.jsonl:11: match: expected the field \"seen_at\", found none".to_owned(),
            "later.jsonl:11: match.ecid: expected a string of 38 digits, found a string of 1 characters".to_owned(),
            "later.jsonl:9: delete: expected ids of leads that are there at that time, found another number".to_owned(),
            "later.jsonl:10: lead: expected a lead that was not deleted or merged before, found one that was"
                .to_owned(),
        ]
    );
}

#[test]
fn twenty_faults_are_told_and_the_rest_counted() {
    let errors = read(&Scratch::tiny().put("matches.jsonl", "7\n".repeat(23)).0).expect_err("refused");
    assert_eq!((errors.lines.len(), errors.more), (20, 3));
    assert!(errors.to_string().ends_with("matches.jsonl:20: expected an object, found a number\n… and 3 more"));
}

#[test]
fn no_fault_tells_a_value() {
    let secret = "31415926535897932384626433832795028841@example.com";
    let body = format!(
        r#"{{"munchkin_id":"{secret}","org_id":"{secret}","leads":[{{"id":1,"email":"{secret}","cookies":["{secret}"],"ecids":["{secret}"]}}],"lists":[{{"id":"{secret}","name":"A"}}]}}"#
    );
    let errors = read(&Scratch::tiny().put("marketo.json", body).0).expect_err("refused").to_string();
    assert!(errors.lines().count() >= 5 && !errors.contains("31415"), "{errors}");
}

#[test]
fn a_stream_names_its_audience_by_number_or_by_id() {
    let scratch = Scratch::tiny();
    let line = |audience: &str| {
        format!(r#"{{"after_file":1,"stream":{{"audience":{audience},"ecid":"{ECID}","member":true}}}}"#) + "\n"
    };
    let platform = r#""aep:11111111-2222-3333-4444-555555555555""#;
    scratch.put("later.jsonl", line("101") + &line(platform));
    let world = read(&scratch.0).expect("good");
    let said =
        |audience: &str| Event::Stream(Streamed { audience: audience.to_owned(), ecid: ECID.to_owned(), member: true });
    assert_eq!(world.later[0].event, said("aam:101"));
    assert_eq!(world.later[1].event, said(platform.trim_matches('"')));
    let copy = Scratch::new();
    write(&world, &copy.0).expect("written");
    assert_eq!(read(&copy.0).expect("good").later, world.later);
    let wrong = "later.jsonl:1: stream.audience: expected aam: and the sid of a segment, such as aam:101, or aep: and the id of an audience, found a string of 3 characters";
    assert_eq!(refused("later.jsonl", &line("\"abc\"")), [wrong]);
}
