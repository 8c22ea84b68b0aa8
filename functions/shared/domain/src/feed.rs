//! Audience Manager's outbound files: their names and their lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Ecid;

/// What a file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName {
    /// `full`: every segment of each user; `iter`: what changed.
    pub mode: Mode,
    /// When the file was made, in ms.
    pub time: u64,
    /// Number of the part, where the delivery was split.
    pub split: Option<u64>,
}

/// Sync mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Complete list for each user.
    Full,
    /// Changes since the last file.
    Iter,
}

impl FileName {
    /// Reads `…_full_<time>[split].sync[.gz]`, where the time has 13 digits (ms) or 10 (s) and a split number of
    /// three or more digits is glued to a 13-digit time. The error says what was expected.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a name that ends in _full_<time>.sync or _iter_<time>.sync (or .sync.gz), with a time of 10 or 13 digits";
        let name = name.rsplit('/').next().unwrap_or(name);
        let stem = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".sync").ok_or(EXPECTED)?;
        let (rest, digits) = stem.rsplit_once('_').ok_or(EXPECTED)?;
        let mode = match rest.rsplit('_').next().unwrap_or(rest) {
            "full" => Mode::Full,
            "iter" => Mode::Iter,
            _ => return Err(EXPECTED),
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EXPECTED);
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| EXPECTED);
        let (time, split) = match digits.len() {
            10 => (number(digits)? * 1000, None),
            13 => (number(digits)?, None),
            16..=24 => (number(&digits[..13])?, Some(number(&digits[13..])?)),
            _ => return Err(EXPECTED),
        };
        Ok(Self { mode, time, split })
    }

    /// Whether the name says that the file is compressed.
    #[must_use]
    pub fn is_gzip(name: &str) -> bool {
        name.ends_with(".gz")
    }
}

/// What a control file (`.info`, manifest) says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// File names, without folders, each with its size in bytes and its lines, where they are told.
    pub files: BTreeMap<String, FileSize>,
    /// How many files there are, if that is told.
    pub total_files: Option<u64>,
    /// How many lines they have together, blank ones and headers included, if that is told.
    pub total_lines: Option<u64>,
    /// The time that it bears, in ms, if it bears one.
    pub time: Option<u64>,
}

/// What a control file says of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSize {
    /// Size in bytes.
    pub bytes: Option<u64>,
    /// Lines, blank ones and headers included.
    pub lines: Option<u64>,
}

/// One row of a file with the template `MCID<TAB>segments<TAB>removed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The device.
    pub ecid: Ecid,
    /// Segments that it is in, as written.
    pub segments: &'a str,
    /// Segments that it left, as written.
    pub removed: &'a str,
}

/// Reads a line without its line end. The error says which column, what was wrong and what would be right.
pub fn parse_line(line: &str) -> Result<Row<'_>, &'static str> {
    let mut columns = line.split('\t');
    let (Some(ecid), Some(segments), Some(removed)) = (columns.next(), columns.next(), columns.next()) else {
        return Err("too few columns: expected MCID<TAB>segments<TAB>removed segments");
    };
    let ecid = Ecid::parse(ecid).ok_or("column 1 (MCID): expected an ECID of 38 digits")?;
    Ok(Row { ecid, segments, removed })
}

/// The segment ids of a column; an entry that is not a number comes as an error.
pub fn segments(column: &str) -> impl Iterator<Item = Result<u64, &'static str>> + '_ {
    column
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.parse().map_err(|_| "expected segment ids, separated by commas"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_right() {
        let parse = |name| FileName::parse(name).map(|file| (file.mode, file.time, file.split));
        assert_eq!(
            parse("S3_1234_20914_XYZCustomer_full_1486140844000.sync.gz"),
            Ok((Mode::Full, 1_486_140_844_000, None))
        );
        assert_eq!(parse("incoming/S3_1_full_1486140844000001.sync.gz"), Ok((Mode::Full, 1_486_140_844_000, Some(1))));
        assert_eq!(parse("s3_215_888_iter_1449756724.sync"), Ok((Mode::Iter, 1_449_756_724_000, None)));
        for bad in [
            "x.csv",
            "a_full_.sync",
            "a_full_12.sync",
            "a_part_1486140844000.sync",
            "full1486140844000.sync",
            "a_full_148614084400x.sync",
            "a_full_14861408440001.sync",
        ] {
            assert!(FileName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_read_and_the_error_names_the_column() {
        let digits = "1".repeat(38);
        let line = format!("{digits}\t1,2\t3");
        let row = parse_line(&line).unwrap();
        assert_eq!(segments(row.segments).collect::<Result<Vec<_>, _>>(), Ok(vec![1, 2]));
        assert_eq!(segments(row.removed).collect::<Result<Vec<_>, _>>(), Ok(vec![3]));
        assert!(parse_line(&format!("{digits}\t1")).unwrap_err().contains("columns"));
        assert!(parse_line("12\t1\t").unwrap_err().contains("column 1"));
        assert_eq!(segments("").count(), 0);
        assert!(segments("1,x").any(|entry| entry.is_err()));
    }
}
