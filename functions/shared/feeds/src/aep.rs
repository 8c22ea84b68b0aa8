//! Experience Platform's exports of files: their names, and what CSV and JSON have in common.

mod csv;
mod json;

use domain::AudienceId;

pub(crate) use csv::Csv;
pub(crate) use json::Json;

use crate::date;

/// What a file's name and folders say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// The audience, where the name holds `segment<UUID>` or one of the folders is a UUID.
    pub audience: Option<AudienceId>,
    /// When the export was made, in ms: `_yyyyMMddHHmmss` or `_yyyyMMdd_HHmmss`, in UTC.
    pub time: Option<u64>,
    /// Number of the part, counted from 1: an export above 5 M rows goes on in files that end in `_2`, `_3` and so on.
    pub part: u64,
    /// What all parts of one export share: folders and name, without part and ending.
    pub stem: String,
    /// What it holds.
    pub format: Format,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values, whatever the separator.
    Csv,
    /// JSON: an array, one object, or one object a line.
    Json,
}

/// Most digits of a part's number. 999 parts are 5 billion rows; with more digits a year would look like a part.
const PART_DIGITS: usize = 3;
/// Letters of a UUID.
const UUID: usize = 36;

impl FileName {
    /// Reads the path of a file below `incoming/`; `None`: its name ends neither in `.csv` nor in `.json`, with or without
    /// `.gz`.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let plain = without_ending(path, ".gz").unwrap_or(path);
        let (whole, format) = without_ending(plain, ".csv")
            .map(|whole| (whole, Format::Csv))
            .or_else(|| without_ending(plain, ".json").map(|whole| (whole, Format::Json)))?;
        let (folders, name) = whole.rsplit_once('/').unwrap_or(("", whole));
        let split = part(name);
        let name = split.map_or(name, |(name, _)| name);
        let stem = &whole[..folders.len() + usize::from(whole.contains('/')) + name.len()];
        let audience = in_name(name).or_else(|| folders.rsplit('/').find_map(AudienceId::aep));
        Some(Self {
            audience,
            time: time(name),
            part: split.map_or(1, |(_, part)| part),
            stem: stem.to_owned(),
            format,
        })
    }
}

/// Without an ending in whatever case.
fn without_ending<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(ending.len())?;
    name.get(at..)?.eq_ignore_ascii_case(ending).then(|| &name[..at])
}

/// The name before `_2`, `_3`…, and that number. What belongs to a time is no part.
fn part(name: &str) -> Option<(&str, u64)> {
    let (before, digits) = name.rsplit_once('_')?;
    let plain = digits.len() <= PART_DIGITS && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let number = digits.parse().ok().filter(|number| plain && *number >= 2)?;
    Some((before, number))
}

/// The last time in a name.
fn time(name: &str) -> Option<u64> {
    let words: Vec<&str> = name.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
    (0..words.len()).rev().find_map(|at| {
        let word = words[at];
        match word.len() {
            14 => word.split_at_checked(8).and_then(|(day, time)| date::digits(day, time)),
            8 => date::digits(word, words.get(at + 1)?),
            _ => None,
        }
    })
}

/// The audience in `…segment<UUID>…`, in whatever case.
fn in_name(name: &str) -> Option<AudienceId> {
    const BEFORE: &str = "segment";
    let lower = name.to_ascii_lowercase();
    lower.match_indices(BEFORE).find_map(|(at, _)| {
        let begin = at + BEFORE.len();
        AudienceId::aep(lower.get(begin..begin + UUID)?)
    })
}

/// How a feed's files are to be understood.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The audience that a file is about, if its content does not tell one.
    pub audience: Option<&'a AudienceId>,
    /// The column with the ECID; `None`: the one whose name is or ends in `ECID`.
    pub ecid_column: Option<&'a str>,
    /// The column with the status; `None`: the one whose name is or ends in `status`. Without one, everybody is in.
    pub status_column: Option<&'a str>,
    /// What stands there for members; without regard to case.
    pub inside: &'a [String],
    /// What stands there for those who left; without regard to case.
    pub outside: &'a [String],
}

impl Shape<'_> {
    /// Whether a status means in or out; `None`: none of the configured literals.
    fn status(&self, text: &str) -> Option<bool> {
        let text = text.trim();
        let among = |literals: &[String]| literals.iter().any(|literal| literal.trim().eq_ignore_ascii_case(text));
        match text {
            "" => None,
            _ if among(self.outside) => Some(false),
            _ if among(self.inside) => Some(true),
            _ => None,
        }
    }

    /// Which literals are expected, for error messages.
    fn statuses(&self) -> String {
        format!("expected one of {} (in) or {} (out)", self.inside.join(", "), self.outside.join(", "))
    }
}

/// The last part of a column's name or of a path of fields.
fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The audience in `segmentMembership.<namespace>.<UUID>.<field>`.
fn in_column(name: &str, field: &str) -> Option<AudienceId> {
    let mut parts = name.trim().rsplit('.');
    let of_field = parts.next()?.eq_ignore_ascii_case(field);
    let audience = AudienceId::aep(parts.next()?)?;
    let _namespace = parts.next()?;
    (of_field && parts.next()?.eq_ignore_ascii_case("segmentMembership")).then_some(audience)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-3333-4444-55555555abcd";

    #[test]
    fn names_tell_audience_time_and_part() {
        let parse = |path: &str| {
            let name = FileName::parse(path).unwrap();
            (name.audience.map(|id| id.as_str()[4..].to_owned()), name.time, name.part, name.stem)
        };
        let time = Some(1_767_323_045_000);
        let id = Some(ID.to_owned());
        assert_eq!(
            parse(&format!("s3_segment{ID}_20260102030405.csv")),
            (id.clone(), time, 1, format!("s3_segment{ID}_20260102030405"))
        );
        assert_eq!(
            parse(&format!("feed/s3_segment{}_20260102030405_3.csv.gz", ID.to_uppercase())),
            (id.clone(), time, 3, format!("feed/s3_segment{}_20260102030405", ID.to_uppercase()))
        );
        assert_eq!(
            parse(&format!("feed/{ID}/a/s3_audience-a_20260102_030405_2.JSON.gz")),
            (id, time, 2, format!("feed/{ID}/a/s3_audience-a_20260102_030405"))
        );
        assert_eq!(parse("audience.json"), (None, None, 1, "audience".into()));
        assert_eq!(parse("a_20260102_030405.csv"), (None, time, 1, "a_20260102_030405".into()));
    }

    #[test]
    fn what_only_looks_like_a_time_or_a_part_is_neither() {
        for (name, time, part) in [
            ("vip_2026.csv", None, 1),
            ("vip_1.csv", None, 1),
            ("vip_02.csv", None, 1),
            ("vip_x2.csv", None, 1),
            ("a_20261302030405.csv", None, 1),
            ("a_20260102_990405.csv", None, 1),
            ("segment20260102-2222-3333-4444-555555555555.csv", None, 1),
            ("20260102030405_a_2.csv", Some(1_767_323_045_000), 2),
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}_2.csv", None, 2),
        ] {
            let read = FileName::parse(name).unwrap();
            assert_eq!((read.time, read.part), (time, part), "{name}");
        }
        for bad in ["a.parquet", "a", "", "csv", "\u{e9}.cs\u{e9}"] {
            assert_eq!(FileName::parse(bad), None, "{bad}");
        }
        assert_eq!(FileName::parse("x/segment1111.csv").unwrap().audience, None);
        assert_eq!(FileName::parse(&format!("manifest/{ID}1/a.csv")).unwrap().audience, None);
    }

    #[test]
    fn the_name_is_nearer_than_the_folder_and_a_folder_nearer_than_one_above_it() {
        let other = ID.replace('1', "9");
        let audience = |path: String| FileName::parse(&path).unwrap().audience.unwrap().uuid().unwrap().to_owned();
        assert_eq!(audience(format!("{other}/a_segment{ID}.csv")), ID);
        assert_eq!(audience(format!("{other}/{ID}/a.csv")), ID);
    }

    #[test]
    fn columns_tell_their_audience() {
        let name = format!("segmentMembership.ups.{ID}.status");
        assert_eq!(in_column(&name, "status"), AudienceId::aep(ID));
        assert_eq!(in_column(&name, "lastQualificationTime"), None);
        assert_eq!(in_column("segmentMembership.seg_namespace.seg_id.status", "status"), None);
        assert_eq!(in_column(&format!("{ID}.status"), "status"), None);
    }
}
