//! Experience Platform's manifests, `manifest-<destination>-<run>.json`: which files an export has. One may come before or
//! after them.

use domain::Said;
use domain::feed::{Control, FileSize};
use serde_json::Value;

use crate::date::{RFC3339_EXPECTED, rfc3339};
use crate::loose::{self, count, last_component, wrong};
use crate::profile::member;

/// The name of a manifest without folders, beginning and ending: destination and run; `None`: not a manifest's name.
#[must_use]
pub fn id(name: &str) -> Option<&str> {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.strip_prefix("manifest-")?.strip_suffix(".json").filter(|id| !id.is_empty())
}

/// Whether a name is that of a manifest.
#[must_use]
pub fn is_manifest(name: &str) -> bool {
    id(name).is_some()
}

/// Reads a manifest. Names of files lose their folders. The time is that for which the run was scheduled.
///
/// # Errors
/// Says which field is missing or wrong, and what would be right.
pub fn parse(bytes: &[u8]) -> Result<Control, Said> {
    let value = loose::parse(bytes)?;
    let results = member(&value, "exportResults").and_then(Value::as_array);
    let results = results.ok_or_else(|| wrong("exportResults", "a list of the exported files"))?;
    let mut control = Control::default();
    for (at, result) in results.iter().enumerate() {
        let name = member(result, "name").and_then(Value::as_str).and_then(last_component);
        let name = name.ok_or_else(|| wrong(&format!("exportResults[{at}].name"), "the name of a file"))?;
        let bytes = count(member(result, "size"))
            .map_err(|()| wrong(&format!("exportResults[{at}].size"), "a whole number of bytes"))?;
        let size = FileSize { bytes, lines: None };
        if control.files.insert(name.to_owned(), size).is_some_and(|other| other != size) {
            return Err(wrong(&format!("exportResults[{at}].name"), "each file once"));
        }
    }
    control.total_files = Some(control.files.len() as u64);
    control.time = match member(&value, "scheduledTime") {
        None | Some(Value::Null) => None,
        Some(time) => {
            let time = time.as_str().and_then(rfc3339);
            Some(time.ok_or_else(|| wrong("scheduledTime", RFC3339_EXPECTED))?)
        }
    };
    Ok(control)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Adobe's sample.
    const SAMPLE: &str = r#"{"flowRunId":"11111111-2222-3333-4444-555555555555","scheduledTime":"2026-01-02T01:00:00Z","exportResults":[{"sinkPath":"/destination/output001","name":"s3_audience-a_20260102_010203.json","size":1234}]}"#;

    #[test]
    fn the_sample_is_read() {
        let file = FileSize { bytes: Some(1234), lines: None };
        let expected = Control {
            files: BTreeMap::from([("s3_audience-a_20260102_010203.json".to_owned(), file)]),
            total_files: Some(1),
            total_lines: None,
            time: Some(1_767_315_600_000),
        };
        assert_eq!(parse(SAMPLE.as_bytes()), Ok(expected.clone()));
        let other = SAMPLE.replace("1234", "\"1234\"").replace("s3_", "a/s3_").replace("00Z", "00+0000");
        assert_eq!(parse(other.as_bytes()), Ok(expected.clone()));
        assert_eq!(
            parse(SAMPLE.replace("\"scheduledTime\":\"2026-01-02T01:00:00Z\",", "").as_bytes()),
            Ok(Control { time: None, ..expected })
        );
        assert_eq!(parse(br#"{"exportResults":[]}"#).unwrap().total_files, Some(0));
    }

    #[test]
    fn names_tell_manifests_from_exports() {
        assert_eq!(id("a/b/manifest-1111-2222.json"), Some("1111-2222"));
        for other in ["manifest-.json", "manifest.json", "manifest-1111.csv", "a_manifest-1.json", "manifest-1/a.json"]
        {
            assert!(!is_manifest(other), "{other}");
        }
    }

    #[test]
    fn errors_name_the_field_and_not_the_value() {
        for (text, field) in [
            ("{}", "exportResults"),
            (r#"{"exportResults":{}}"#, "exportResults"),
            (r#"{"exportResults":[{}]}"#, "exportResults[0].name"),
            (r#"{"exportResults":[{"name":"a","size":"jane"}]}"#, "exportResults[0].size"),
            (r#"{"exportResults":[{"name":"a","size":1},{"name":"a","size":2}]}"#, "exportResults[1].name"),
            (r#"{"exportResults":[],"scheduledTime":"jane"}"#, "scheduledTime"),
        ] {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(
                why.sentence.contains(&format!(": {field}: expected")) && !why.sentence.contains("jane"),
                "{text}: {why}"
            );
        }
        assert!(parse(b"jane").unwrap_err().sentence.contains("not JSON"));
    }
}
