//! The files that Adobe's double delivers, in every shape.

use std::collections::BTreeSet;
use std::io::Read;

use doubles::adobe::{Adobe, Columns, Export, Format, Info, Key, Numbering, Outbound, Settings, Shape};
use serde_json::{Value, json};

use crate::platform::{audiences, uuid};
use crate::rig::ecid;

/// 2026-01-02T03:04:05Z
const TIME: u64 = 1_767_323_045_000;

fn unzip(bytes: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).map(|_| text)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Four ECIDs in 101, the first of them in 102 as well.
fn segments() -> Adobe {
    let mut core = Adobe::new(Settings::default(), audiences(3), TIME);
    for n in 1..=4 {
        assert!(core.set_member(101, &ecid(n), true));
    }
    assert!(core.set_member(102, &ecid(1), true));
    core
}

fn outbound(core: &mut Adobe, shape: Outbound) -> Vec<(String, Vec<u8>)> {
    core.files(TIME, &Shape::AudienceManager(shape))
}

fn export(core: &mut Adobe, time_ms: u64, shape: &Export) -> Vec<(String, String)> {
    let files = core.files(time_ms, &Shape::Platform(shape.clone()));
    files.into_iter().map(|(name, bytes)| (name, text(&bytes).to_owned())).collect()
}

#[test]
fn names_follow_the_grammar_of_outbound_files() {
    let names = |shape: Outbound| {
        let files = outbound(&mut segments(), Outbound { gzip: false, root: "1_2_X".to_owned(), ..shape });
        files.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let split = |numbering| Outbound { parts: 2, numbering, ..Outbound::default() };
    assert_eq!(names(Outbound::default()), ["S3_1_2_X_full_1767323045000.sync"]);
    let macro_page = Outbound { sync_type: "s3".to_owned(), full: false, seconds: true, ..Outbound::default() };
    assert_eq!(names(macro_page), ["s3_1_2_X_iter_1767323045.sync"]);
    assert_eq!(
        names(split(Numbering::FirstNone)),
        ["S3_1_2_X_full_1767323045000.sync", "S3_1_2_X_full_1767323045000001.sync"]
    );
    assert_eq!(
        names(split(Numbering::FromZero)),
        ["S3_1_2_X_full_1767323045000000.sync", "S3_1_2_X_full_1767323045000001.sync"]
    );
    assert_eq!(
        names(split(Numbering::FromOne)),
        ["S3_1_2_X_full_1767323045000001.sync", "S3_1_2_X_full_1767323045000002.sync"]
    );
    assert_eq!(
        names(split(Numbering::Hyphen)),
        ["S3_1_2_X_full_1767323045000-1.sync", "S3_1_2_X_full_1767323045000-2.sync"]
    );
    let seconds = Outbound { seconds: true, ..split(Numbering::FromOne) };
    assert_eq!(names(seconds), ["S3_1_2_X_full_1767323045-1.sync", "S3_1_2_X_full_1767323045-2.sync"]);
}

#[test]
fn parts_together_hold_every_row_once_and_the_control_file_counts_them() {
    for gzip in [true, false] {
        let shape = Outbound { parts: 3, info: Info::Strict, gzip, header: true, ..Outbound::default() };
        let files = outbound(&mut segments(), shape);
        let (info, parts) = files.split_last().expect("files");
        let texts: Vec<String> = parts
            .iter()
            .map(|(_, bytes)| if gzip { unzip(bytes).expect("gzip") } else { text(bytes).to_owned() })
            .collect();
        assert!(texts.iter().all(|text| text.starts_with("MCID\tSEGMENTS\tREMOVED\n")));
        let rows: Vec<&str> = texts.iter().flat_map(|text| text.lines().skip(1)).collect();
        assert_eq!((texts.len(), rows.len()), (3, 4));
        assert_eq!(rows[0], format!("{}\t101,102\t", ecid(1)));

        assert_eq!(info.0, "S3_1234_20914_Sample_full_1767323045000.info");
        let said: Value = serde_json::from_slice(&info.1).expect("strict JSON");
        assert_eq!(said["Totals"]["FileName"], "S3_1234_20914_Sample_full_1767323045000.sync");
        assert_eq!((&said["Totals"]["TotalNumberFiles"], &said["Totals"]["TotalNumberLines"]), (&json!(3), &json!(7)));
        let bytes: usize = parts.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(said["Totals"]["TotalByteSize"], json!(bytes));
        for (at, (name, bytes)) in parts.iter().enumerate() {
            let file = &said["Files"][at];
            assert_eq!((&file["FileName"], &file["FileByteSize"]), (&json!(name), &json!(bytes.len())));
            assert_eq!((&file["FileSequenceNumber"], file["md5"].as_str().map(str::len)), (&json!(at + 1), Some(32)));
        }
    }
}

#[test]
fn the_samples_control_file_is_no_json() {
    let shape = Outbound { info: Info::Unquoted, gzip: false, ..Outbound::default() };
    let files = outbound(&mut segments(), shape);
    let info = text(&files[1].1);
    let begin = "{ Files: [ { FileByteSize: 180, FileLineCount: 4, FileName: \"S3_1234_20914_Sample_full_1767323045000.sync\", FileSequenceNumber: 1, md5: \"";
    assert!(info.starts_with(begin), "{info}");
    assert!(info.contains("TotalNumberLines: 4 } }"));
    assert!(serde_json::from_str::<Value>(info).is_err());
}

#[test]
fn rows_follow_the_template() {
    let rows = |shape: Outbound| {
        let mut core = segments();
        core.skip(&shape.root);
        assert!(core.set_member(102, &ecid(1), false) && core.set_member(103, &ecid(2), true));
        text(&outbound(&mut core, Outbound { gzip: false, ..shape })[0].1).to_owned()
    };
    let (one, two) = (ecid(1), ecid(2));
    let iter = |columns| Outbound { full: false, columns, ..Outbound::default() };
    assert_eq!(rows(iter(Columns::Tab)), format!("{one}\t\t102\n{two}\t103\t\n"));
    assert_eq!(rows(iter(Columns::Space)), format!("{one}  102\n{two} 103 \n"));
    assert_eq!(rows(iter(Columns::TwoSpaces)), format!("{one}    102\n{two}  103  \n"));
    let crlf = Outbound { crlf: true, header: true, ..iter(Columns::Space) };
    assert_eq!(rows(crlf), format!("MCID SEGMENTS REMOVED\r\n{one}  102\r\n{two} 103 \r\n"));
    let full = rows(Outbound::default());
    assert!(full.starts_with(&format!("{one}\t101\t102\n{two}\t101,103\t\n")), "what left is told beside what is");
}

#[test]
fn a_segment_that_is_not_mapped_is_never_named() {
    let mut core = segments();
    let mapped = Some(BTreeSet::from([102, 104]));
    let shape = Outbound { gzip: false, mapped, ..Outbound::default() };
    assert_eq!(text(&outbound(&mut core, shape.clone())[0].1), format!("{}\t102\t\n", ecid(1)));
    assert!(core.set_member(101, &ecid(2), false) && core.set_member(102, &ecid(3), true));
    let iter = Outbound { full: false, ..shape };
    assert_eq!(text(&outbound(&mut core, iter)[0].1), format!("{}\t102\t\n", ecid(3)));
}

#[test]
fn audience_managers_own_ids_look_like_ecids_and_are_none() {
    let shape = Outbound { key: Key::Uuid, gzip: false, ..Outbound::default() };
    let files = outbound(&mut segments(), shape);
    let ids: BTreeSet<&str> = text(&files[0].1).lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(ids.len(), 4);
    for id in ids {
        assert!(id.len() == 38 && id.bytes().all(|b| b.is_ascii_digit()), "{id}");
        assert!((1..=4).all(|n| ecid(n) != id));
    }
}

#[test]
fn a_cut_file_ends_too_early() {
    for gzip in [true, false] {
        let shape = Outbound { gzip, cut: true, parts: 2, ..Outbound::default() };
        let files = outbound(&mut segments(), shape);
        let whole = outbound(&mut segments(), Outbound { gzip, parts: 2, ..Outbound::default() });
        assert_eq!(files[0], whole[0]);
        assert!(files[1].1.len() < whole[1].1.len() && whole[1].1.starts_with(&files[1].1));
        assert!(!gzip || unzip(&files[1].1).is_err());
    }
}

#[test]
fn each_destination_counts_its_own_changes() {
    let mut core = segments();
    let iter = |root: &str| Outbound { full: false, gzip: false, root: root.to_owned(), ..Outbound::default() };
    let lines = |core: &mut Adobe, root: &str| text(&outbound(core, iter(root))[0].1).lines().count();
    assert_eq!((lines(&mut core, "a"), lines(&mut core, "a")), (4, 0));
    assert!(core.set_member(101, &ecid(1), false));
    assert_eq!((lines(&mut core, "a"), lines(&mut core, "b"), lines(&mut core, "b")), (1, 4, 0));
    core.skip("c");
    assert_eq!(lines(&mut core, "c"), 0);
    let kept = core.state().clone();
    let mut again = Adobe::from_state(Settings::default(), kept);
    assert!(again.set_member(101, &ecid(2), false) && again.delete_segment(102));
    assert_eq!((lines(&mut again, "a"), lines(&mut again, "c")), (1, 1));
}

/// Two profiles in the first audience, of whom the first has two ECIDs; one in the second.
fn profiles() -> Adobe {
    let mut core = Adobe::new(Settings::default(), audiences(2), TIME);
    for (profile, n) in [(1, 11), (1, 12), (2, 21)] {
        assert!(core.add_ecid(TIME, profile, &ecid(n)));
    }
    for (profile, audience) in [(1, 1), (2, 1), (2, 2)] {
        assert!(core.set_profile(TIME, profile, &uuid(audience), true));
    }
    core
}

#[test]
fn each_audience_has_a_csv_of_its_own() {
    let mut core = profiles();
    let files = export(&mut core, TIME, &Export::default());
    let head = "identityMap.ECID,segmentMembership.seg_namespace.seg_id.status,segmentMembership.seg_namespace.seg_id.lastQualificationTime\n";
    let row = |n| format!("{},realized,2026-01-02T03:04:05Z\n", ecid(n));
    assert_eq!(
        files,
        [
            (
                format!("Sample_segment{}_20260102030405.csv", uuid(1)),
                format!("{head}{}{}{}", row(11), row(12), row(21))
            ),
            (format!("Sample_segment{}_20260102030405.csv", uuid(2)), format!("{head}{}", row(21))),
        ]
    );
}

#[test]
fn a_csv_is_written_as_it_was_set_up() {
    let shape = Export {
        audiences: Some([uuid(2)].into()),
        delimiter: ';',
        crlf: true,
        ecid_column: "ECID".to_owned(),
        status: Some(["Active", "Expired"].map(str::to_owned)),
        id_in_header: true,
        id_in_name: false,
        folders: true,
        ..Export::default()
    };
    let files = export(&mut profiles(), TIME, &shape);
    let id = uuid(2);
    let text = format!(
        "ECID;segmentMembership.ups.{id}.status;segmentMembership.ups.{id}.lastQualificationTime\r\n{};Active;2026-01-02T03:04:05Z\r\n",
        ecid(21)
    );
    assert_eq!(files, [(format!("{id}/Sample_20260102030405.csv"), text)]);

    let plain = Export { status: None, time_in_name: false, folders: false, id_in_name: false, ..shape.clone() };
    let files = export(&mut profiles(), TIME, &plain);
    assert_eq!(files, [("Sample.csv".to_owned(), format!("ECID\r\n{}\r\n", ecid(21)))]);

    let quoted = Export { quotes: true, crlf: false, ..plain };
    let files = export(&mut profiles(), TIME, &quoted);
    let mut reader = csv::ReaderBuilder::new().delimiter(b';').from_reader(files[0].1.as_bytes());
    assert_eq!(reader.headers().expect("a header"), vec!["person.name.fullName", "ECID"]);
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows, [vec!["Doe; \"Number\"\n2".to_owned(), ecid(21)]]);
}

#[test]
fn an_incremental_export_has_the_two_documented_holes() {
    let with = Export { audiences: Some([uuid(1)].into()), full: false, ..Export::default() };
    let without = Export { destination: "without".to_owned(), status: None, ..with.clone() };
    let mut core = profiles();
    let lines = |files: &[(String, String)]| files.iter().flat_map(|(_, text)| text.lines().skip(1)).count();
    // The first is a full backfill.
    assert_eq!(lines(&export(&mut core, TIME, &with)), 3);
    assert_eq!(lines(&export(&mut core, TIME, &without)), 3);
    assert!(export(&mut core, TIME, &with).is_empty(), "nothing is new");

    // A new ECID of an old member is told by no incremental export.
    assert!(core.add_ecid(TIME, 1, &ecid(13)));
    assert!(export(&mut core, TIME, &with).is_empty());
    assert_eq!(lines(&export(&mut core, TIME, &Export { full: true, ..with.clone() })), 4);

    // Who leaves is told only by a status column.
    assert!(core.set_profile(TIME + 1_000, 1, &uuid(1), false));
    let left = export(&mut core, TIME + 1_000, &with);
    assert_eq!(lines(&left), 3);
    assert!(left[0].1.contains(&format!("{},exited,2026-01-02T03:04:06Z\n", ecid(13))));
    assert!(export(&mut core, TIME, &without).is_empty());
    let full = export(&mut core, TIME, &Export { full: true, ..with });
    assert_eq!(lines(&full), 1, "a full file leaves out who left");
}

#[test]
fn a_shared_ecid_has_the_row_of_whoever_qualified_last() {
    let mut core = profiles();
    assert!(core.add_ecid(TIME, 3, &ecid(21)) && core.set_profile(TIME + 5_000, 3, &uuid(2), true));
    let shape = Export { audiences: Some([uuid(2)].into()), ..Export::default() };
    let files = export(&mut core, TIME, &shape);
    assert_eq!(files[0].1.lines().nth(1), Some(&*format!("{},realized,2026-01-02T03:04:10Z", ecid(21))));
    assert_eq!(files[0].1.lines().count(), 2);
}

#[test]
fn json_exports_hold_an_object_for_each_profile() {
    let shape = Export { format: Format::JsonArray, audiences: Some([uuid(1)].into()), ..Export::default() };
    let files = export(&mut profiles(), TIME, &shape);
    assert_eq!(files[0].0, format!("Sample_segment{}_20260102030405.json", uuid(1)));
    let rows: Vec<Value> = serde_json::from_str(&files[0].1).expect("an array");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["identityMap"]["ECID"], json!([{"id": ecid(11)}, {"id": ecid(12)}]));
    let membership = json!({"status": "realized", "lastQualificationTime": "2026-01-02T03:04:05Z"});
    assert_eq!(rows[0]["segmentMembership"]["ups"][uuid(1)], membership);

    let shape = Export { format: Format::JsonLines, status: None, ..shape };
    let files = export(&mut profiles(), TIME, &shape);
    let rows: Vec<Value> = files[0].1.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows[1], json!({"identityMap": {"ECID": [{"id": ecid(21)}]}}));
}

#[test]
fn large_exports_are_split_and_listed_in_the_manifest() {
    let shape = Export { rows_per_file: 2, gzip: true, manifest: true, folders: true, ..Export::default() };
    let files = profiles().files(TIME, &Shape::Platform(shape.clone()));
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let stem = |n| format!("{}/Sample_segment{}_20260102030405", uuid(n), uuid(n));
    assert_eq!(names[..3], [stem(1) + ".csv.gz", stem(1) + "_2.csv.gz", stem(2) + ".csv.gz"]);
    assert_eq!(unzip(&files[1].1).expect("gzip").lines().count(), 2, "each part has the header");
    assert!(names[3].starts_with("manifest-aaaaaaaa-0000-4000-8000-000000000001-"), "{}", names[3]);
    let manifest: Value = serde_json::from_slice(&files[3].1).expect("JSON");
    assert_eq!(manifest["scheduledTime"], "2026-01-02T03:04:05Z");
    assert!(names[3].ends_with(&format!("{}.json", manifest["flowRunId"].as_str().expect("a run"))));
    let listed: Vec<(&str, u64)> = manifest["exportResults"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|file| Some((file["name"].as_str()?, file["size"].as_u64()?)))
        .collect();
    let real: Vec<(&str, u64)> =
        files[..3].iter().map(|(name, bytes)| (name.rsplit('/').next().expect("a name"), bytes.len() as u64)).collect();
    assert_eq!(listed, real);
    let cut = profiles().files(TIME, &Shape::Platform(Export { cut: true, ..shape }));
    assert!(unzip(&cut[2].1).is_err() && cut[3] == files[3]);
}

#[test]
fn shapes_are_read_from_json() {
    let shape: Shape =
        serde_json::from_value(json!({"audience_manager": {"parts": 2, "info": "unquoted"}})).expect("a shape");
    assert_eq!(shape, Shape::AudienceManager(Outbound { parts: 2, info: Info::Unquoted, ..Outbound::default() }));
    let shape: Shape =
        serde_json::from_value(json!({"platform": {"format": "json_lines", "delimiter": "|"}})).expect("a shape");
    assert_eq!(shape, Shape::Platform(Export { format: Format::JsonLines, delimiter: '|', ..Export::default() }));
}
