//! Audience Manager's outbound files: names and rows, as far as the generator and the reference need them.
//! The product has its own parser; this one is separate on purpose, so that the two check each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// A file as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedFile {
    /// Name below `incoming/`; the folder in it, if there is one, is the feed's name.
    pub name: String,
    /// The bytes as delivered (gzip if the name ends in `.gz`).
    pub bytes: Vec<u8>,
    /// The time of the delivery that it belongs to, in milliseconds since the epoch; `None`: nothing tells it.
    pub time_ms: Option<u64>,
}

impl FeedFile {
    /// A file whose time is read from its name; that of a manifest from the names that it lists.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        let name = name.into();
        let time_ms = time_of(&name).or_else(|| listed(&name, &bytes).iter().filter_map(|file| time_of(file)).max());
        Self { name, bytes, time_ms }
    }

    /// The feed's name: that of the folder, `default` without one.
    #[must_use]
    pub fn feed(&self) -> &str {
        self.name.split_once('/').map_or("default", |(feed, _)| feed)
    }

    /// Place in the order of arrival: by time, then by name; without a time, last.
    #[must_use]
    pub fn order(&self) -> (u64, &str) {
        (self.time_ms.unwrap_or(u64::MAX), &self.name)
    }

    /// The content as text; `None` if it cannot be unpacked or is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if !self.name.ends_with(".gz") {
            return String::from_utf8(self.bytes.clone()).ok();
        }
        let mut text = String::new();
        GzDecoder::new(self.bytes.as_slice()).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// What the file says, `single-file`: a full file is a snapshot unless its name bears a split number. `None`:
    /// it is refused whole, for its name is none of ours or its text cannot be read.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        let (name, text) = Name::parse(&self.name).zip(self.text())?;
        let mut facts = Facts { snapshot: name.full && !name.split, ..Facts::default() };
        for row in rows(&text) {
            for sid in row.segments {
                facts.joined.entry(sid).or_default().insert(row.ecid.to_owned());
            }
            for sid in row.removed.into_iter().filter(|_| !name.full) {
                facts.left.entry(sid).or_default().insert(row.ecid.to_owned());
            }
        }
        Some(facts)
    }
}

/// The time in a name of Audience Manager's data or control files, or of Experience Platform's exports.
fn time_of(name: &str) -> Option<u64> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    if let Some(root) = name.strip_suffix(".info") {
        return Name::parse(&format!("{root}.sync")).map(|parsed| parsed.time_ms);
    }
    if let Some(stem) = name.strip_suffix(".csv").or_else(|| name.strip_suffix(".json")) {
        return export_time(stem);
    }
    Name::parse(name).map(|parsed| parsed.time_ms)
}

/// `…_yyyyMMddHHmmss` or `…_yyyyMMdd_HHmmss`, and perhaps the number of a part behind it, in milliseconds since the
/// epoch.
fn export_time(stem: &str) -> Option<u64> {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = stem.split('_').collect();
    let whole = parts.iter().rev().find(|part| digits(part, 14)).map(|part| (*part).to_owned());
    let text = whole.or_else(|| {
        let pair = parts.windows(2).rev().find(|pair| digits(pair[0], 8) && digits(pair[1], 6))?;
        Some(pair.concat())
    })?;
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    u64::try_from(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond()).ok()
}

/// The names that a manifest of Experience Platform or a control file of Audience Manager lists, without folders; none:
/// it is neither.
#[must_use]
pub fn listed(name: &str, bytes: &[u8]) -> Vec<String> {
    let name = name.rsplit('/').next().unwrap_or(name);
    if name.ends_with(".info") {
        // Not always JSON: the names are what stands in quotes before the totals, and is a name.
        let text = String::from_utf8_lossy(bytes);
        let files = text.split("Totals").next().unwrap_or_default();
        return files.split('"').filter(|name| Name::parse(name).is_some()).map(str::to_owned).collect();
    }
    if !name.starts_with("manifest-") {
        return Vec::new();
    }
    let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let results = manifest["exportResults"].as_array().into_iter().flatten();
    results.filter_map(|result| result["name"].as_str().map(str::to_owned)).collect()
}

/// What a file says of each audience (by sid) that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The file is a whole snapshot: who is not in `joined` of an audience that it names has left that audience.
    pub snapshot: bool,
    /// ECIDs that are in the audience.
    pub joined: BTreeMap<u64, BTreeSet<String>>,
    /// ECIDs that have left it; the same row's or file's `joined` yields to it.
    pub left: BTreeMap<u64, BTreeSet<String>>,
}

/// What a file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// `full`, not `iter`.
    pub full: bool,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// The name bears a split number: the file is one of several.
    pub split: bool,
}

impl Name {
    /// Reads `…_full_<time>[split].sync[.gz]`. The time has 13 digits (ms) or 10 (s); a split number of at least
    /// three digits is glued to a time of 13, or any behind a hyphen.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".sync")?;
        let (rest, digits) = stem.rsplit_once('_')?;
        let mode = rest.rsplit('_').next()?;
        let full = mode == "full";
        // The control file's sample numbers the parts so: `…_full_1700000000000-1.sync`.
        let (digits, part) = digits.split_once('-').map_or((digits, None), |(time, part)| (time, Some(part)));
        if !(full || mode == "iter") || !digits.bytes().chain(part.unwrap_or("1").bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (time_ms, split) = match digits.len() {
            10 => (digits.parse::<u64>().ok()? * 1000, false),
            13 => (digits.parse().ok()?, false),
            16..=24 => (digits.get(..13)?.parse().ok()?, true),
            _ => return None,
        };
        Some(Self { full, time_ms, split: split || part.is_some() })
    }
}

/// One good row of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// 38 digits.
    pub ecid: &'a str,
    /// Segments the ECID is in.
    pub segments: Vec<u64>,
    /// Segments it has left (without meaning in a `full` file).
    pub removed: Vec<u64>,
}

/// The good rows of a file's text; bad ones are passed over.
pub fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    text.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        let (ecid, segments, removed) = (columns.next()?, columns.next()?, columns.next()?);
        is_ecid(ecid).then(|| Row { ecid, segments: sids(segments), removed: sids(removed) })
    })
}

fn sids(column: &str) -> Vec<u64> {
    column.split(',').filter_map(|sid| sid.trim().parse().ok()).collect()
}

/// Whether this is an ECID: exactly 38 digits.
#[must_use]
pub fn is_ecid(text: &str) -> bool {
    text.len() == 38 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Packs a file's text as Adobe does. Equal texts give equal bytes: the header holds no time.
#[must_use]
pub fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_mode_time_and_split() {
        let parsed = |name| Name::parse(name).map(|n| (n.full, n.time_ms, n.split));
        assert_eq!(parsed("S3_1234_20914_XYZ_full_1486140844000.sync.gz"), Some((true, 1_486_140_844_000, false)));
        assert_eq!(parsed("S3_1234_20914_XYZ_full_1486140844000001.sync.gz"), Some((true, 1_486_140_844_000, true)));
        assert_eq!(parsed("s3_215_888_iter_1449756724.sync"), Some((false, 1_449_756_724_000, false)));
        for other in
            ["notes.txt", "x_full_1486140844000.info", "x_full_14861.sync", "full.sync", "x_all_1486140844000.sync"]
        {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn every_file_of_a_delivery_bears_its_time() {
        let time = |name: &str| FeedFile::new(name, Vec::new()).time_ms;
        let export = Some(1_767_322_923_000);
        assert_eq!(time("web/S3_1234_20914_XYZ_full_1486140844000-2.sync.gz"), Some(1_486_140_844_000));
        assert_eq!(time("s3_1234_20914_XYZ_iter_1486140844000.info"), Some(1_486_140_844_000));
        assert_eq!(time("aep/Shop_segment11111111-2222-3333-4444-555555555555_20260102030203.csv"), export);
        assert_eq!(time("Shop_audience-a_20260102_030203_2.json.gz"), export);
        assert_eq!(time("Shop_segment11111111.csv"), None);
        let manifest = br#"{"exportResults":[{"name":"Shop_20260102030203.csv"},{"name":"Shop_20260101030203.csv"}]}"#;
        assert_eq!(FeedFile::new("aep/manifest-1-2.json", manifest.to_vec()).time_ms, export);
        assert_eq!(FeedFile::new("aep/other-1-2.json", manifest.to_vec()).time_ms, None);
        assert_eq!(
            (FeedFile::new("aep/a.csv", vec![]).feed(), FeedFile::new("a.csv", vec![]).feed()),
            ("aep", "default")
        );
    }

    #[test]
    fn bad_rows_are_passed_over_and_good_ones_kept() {
        let good = "00000000000000000000000000000000000001";
        let text = format!("{good}\t101,102\t103\r\n{good}\nshort\t101\t\n\n{good}\t\t101\n");
        let rows: Vec<_> = rows(&text).map(|r| (r.segments, r.removed)).collect();
        assert_eq!(rows, [(vec![101, 102], vec![103]), (vec![], vec![101])]);
    }

    #[test]
    fn a_truncated_gzip_has_no_text() {
        let bytes = gzip("some text that is long enough to be cut");
        let file = |bytes: &[u8]| FeedFile::new("x_full_1486140844000.sync.gz", bytes.to_vec());
        assert_eq!(file(&bytes).text().as_deref(), Some("some text that is long enough to be cut"));
        assert_eq!(file(&bytes[..bytes.len() - 9]).text(), None);
    }
}
