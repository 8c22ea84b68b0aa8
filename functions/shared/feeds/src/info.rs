//! Audience Manager's control files, `<root>.info`: which parts a delivery has. One may come before its data.

use domain::Said;
use domain::feed::{Control, FileSize};
use serde_json::Value;

use crate::aam::FileName;
use crate::loose::{self, count, last_component, wrong};
use crate::profile::member;

/// Reads a control file. It need not be strict JSON, as Adobe's own sample is not: names may stand without quotes, and a
/// comma after the last entry. Numbers may be texts; names of files lose their folders. The time is that of the delivery's
/// name.
///
/// # Errors
/// Says which field is missing or wrong, and what would be right.
pub fn parse(bytes: &[u8]) -> Result<Control, Said> {
    let value = loose::parse(bytes)?;
    let files =
        member(&value, "Files").and_then(Value::as_array).ok_or_else(|| wrong("Files", "a list of the parts"))?;
    let mut control = Control::default();
    let mut time = None;
    for (at, file) in files.iter().enumerate() {
        let field = |name: &str| format!("Files[{at}].{name}");
        let name = member(file, "FileName").and_then(Value::as_str).and_then(last_component);
        let name = name.ok_or_else(|| wrong(&field("FileName"), "the name of a part"))?;
        let number = |name: &str| count(member(file, name)).map_err(|()| wrong(&field(name), "a whole number"));
        let size = FileSize { bytes: number("FileByteSize")?, lines: number("FileLineCount")? };
        if control.files.insert(name.to_owned(), size).is_some_and(|other| other != size) {
            return Err(wrong(&field("FileName"), "each part once"));
        }
        time = time.or_else(|| FileName::parse(name));
    }
    if let Some(totals) = member(&value, "Totals").filter(|totals| !totals.is_null()) {
        let number =
            |name: &str| count(member(totals, name)).map_err(|()| wrong(&format!("Totals.{name}"), "a whole number"));
        control.total_files = number("TotalNumberFiles")?;
        control.total_lines = number("TotalNumberLines")?;
        let of_all = member(totals, "FileName").and_then(Value::as_str).and_then(FileName::parse);
        time = of_all.or(time);
    }
    control.time = time.map(|file| file.time);
    Ok(control)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Adobe's sample, with its digest written out.
    const SAMPLE: &str = r#"{ Files: [ { FileByteSize: 1000, FileLineCount: 20, FileName: "s3_1234_5678_full_1700000000000-1.sync.gz", FileSequenceNumber: 1, md5: "0cc175b9c0f1b6a831c399e269772661" } ],
  Totals: { FileName: "s3_1234_5678_full_1700000000000.sync", TotalByteSize: 4000, TotalNumberFiles: 4, TotalNumberLines: 80 } }"#;

    fn strict(sample: &str) -> String {
        let mut text = sample.to_owned();
        for name in [
            "Files",
            "FileByteSize",
            "FileLineCount",
            "FileName",
            "FileSequenceNumber",
            "md5",
            "Totals",
            "TotalByteSize",
            "TotalNumberFiles",
            "TotalNumberLines",
        ] {
            text = text.replace(&format!(" {name}:"), &format!(" \"{name}\":"));
        }
        text
    }

    #[test]
    fn the_sample_is_read_and_so_is_strict_json() {
        let expected = Control {
            files: BTreeMap::from([(
                "s3_1234_5678_full_1700000000000-1.sync.gz".to_owned(),
                FileSize { bytes: Some(1000), lines: Some(20) },
            )]),
            total_files: Some(4),
            total_lines: Some(80),
            time: Some(1_700_000_000_000),
        };
        assert_eq!(parse(SAMPLE.as_bytes()), Ok(expected.clone()));
        let strict = strict(SAMPLE);
        serde_json::from_str::<Value>(&strict).unwrap();
        assert_eq!(parse(strict.as_bytes()), Ok(expected.clone()));
        let texts = strict.replace(": 1000", ": \"1000\"").replace(": 20,", ": \"20\",").replace(": 4,", ":\"4\",");
        assert_eq!(parse(texts.as_bytes()), Ok(expected.clone()));
        let folders =
            SAMPLE.replace("s3_1234", "bucket/folder/s3_1234").replace("} ]", "}, ]").replace("80 }", "80, }");
        assert_eq!(parse(folders.as_bytes()), Ok(expected));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let control = parse(br#"{"Files": [{"FileName": "a_iter_1449756724.sync"}, {"FileName": "b.sync"}]}"#).unwrap();
        assert_eq!(control.files.len(), 2);
        assert!(control.files.values().all(|size| *size == FileSize::default()));
        assert_eq!((control.total_files, control.total_lines, control.time), (None, None, Some(1_449_756_724_000)));
        assert_eq!(parse(b"{Files:[],Totals:null}"), Ok(Control::default()));
    }

    #[test]
    fn errors_name_the_field_and_not_the_value() {
        for (text, field) in [
            ("{}", "Files"),
            ("[]", "Files"),
            ("{Files: 7}", "Files"),
            ("{Files: [1]}", "Files[0].FileName"),
            ("{Files: [{FileName: \"a\"}, {FileName: \"a/\"}]}", "Files[1].FileName"),
            ("{Files: [{FileName: \"a\", FileByteSize: \"jane\"}]}", "Files[0].FileByteSize"),
            ("{Files: [{FileName: \"a\", FileLineCount: -1}]}", "Files[0].FileLineCount"),
            ("{Files: [{FileName: \"a\", FileLineCount: 1}, {FileName: \"x/a\"}]}", "Files[1].FileName"),
            ("{Files: [], Totals: {TotalNumberFiles: \"jane\"}}", "Totals.TotalNumberFiles"),
            ("{Files: [], Totals: {TotalNumberLines: 1.5}}", "Totals.TotalNumberLines"),
        ] {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(
                why.sentence.contains(&format!(": {field}: expected")) && !why.sentence.contains("jane"),
                "{text}: {why}"
            );
            assert_eq!((why.code(), &why.values["field"]), (Some("control_field"), &Value::from(field)));
        }
    }

    proptest! {
        #[test]
        fn a_printed_control_file_gives_itself_back(
            files in prop::collection::btree_map("[a-z]{1,9}\\.sync", (any::<Option<u64>>(), any::<Option<u64>>()), 0..5),
            total_files: Option<u64>,
            total_lines: Option<u64>,
        ) {
            let control = Control {
                files: files.into_iter().map(|(name, (bytes, lines))| (name, FileSize { bytes, lines })).collect(),
                total_files,
                total_lines,
                time: None,
            };
            let files: Vec<Value> = control.files.iter().map(|(name, size)| serde_json::json!({
                "FileName": name, "FileByteSize": size.bytes, "FileLineCount": size.lines,
            })).collect();
            let text = serde_json::json!({
                "Totals": {"TotalNumberFiles": total_files, "TotalNumberLines": total_lines}, "Files": files,
            }).to_string();
            prop_assert_eq!(parse(text.as_bytes()), Ok(control));
        }
    }
}
