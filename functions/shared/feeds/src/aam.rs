//! Audience Manager's outbound files: their names and their lines.

use domain::Ecid;
use domain::feed::Mode;
use domain::said::Saying;
use domain::sayings::{
    ROW_AMBIGUOUS, ROW_NO_ECID, ROW_NO_REMOVED, ROW_NO_SEGMENT, ROW_SPACED_LIST, ROW_TOO_FEW, ROW_TOO_LONG,
    ROW_TOO_MANY,
};

use crate::lines::Lines;
use crate::{Named, Read, Sink};

/// What a file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName {
    /// `full`: every segment of each user; `iter`: what changed.
    pub mode: Mode,
    /// When the file was made, in ms.
    pub time: u64,
    /// Number of the part, where the delivery was split; the first part has none.
    pub split: Option<u64>,
}

impl FileName {
    /// Reads `…_full_<time>[split].sync[.gz]`, where the time has 13 digits (ms) or 10 (s), and a split number is glued to a
    /// time of 13 digits with three or more digits of its own, or set off by `-`, as the sample of a control file has it.
    /// `None`: it is another name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        read_stem(stem(name)?).map(|(_, file)| file)
    }

    /// Whether the name is that of a control file, `<root>.info`.
    #[must_use]
    pub fn is_control(name: &str) -> bool {
        control_stem(name).is_some()
    }

    /// Mode and time in the name of a control file, `<root>.info`; `None`: it is another name.
    #[must_use]
    pub fn parse_control(name: &str) -> Option<Self> {
        read_stem(control_stem(name)?).map(|(_, file)| file)
    }

    /// What all parts of a delivery and its control file have in common: the name without folders, split number and ending.
    /// `None`: not the name of either.
    #[must_use]
    pub fn root(name: &str) -> Option<&str> {
        read_stem(stem(name).or_else(|| control_stem(name))?).map(|(root, _)| root)
    }
}

fn stem(name: &str) -> Option<&str> {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".sync")
}

fn control_stem(name: &str) -> Option<&str> {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".info")
}

/// Reads from the right, since everything before the mode is left to the template. Also returns the root.
fn read_stem(stem: &str) -> Option<(&str, FileName)> {
    let (rest, end) = stem.rsplit_once('_')?;
    let mode = match rest.rsplit('_').next().unwrap_or(rest) {
        "full" => Mode::Full,
        "iter" => Mode::Iter,
        _ => return None,
    };
    let (digits, set_off) = end.split_once('-').map_or((end, None), |(digits, split)| (digits, Some(split)));
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (time, glued) = match digits.len() {
        10 => (digits.parse::<u64>().ok()? * 1000, None),
        13 => (digits.parse().ok()?, None),
        16..=24 => (digits[..13].parse().ok()?, Some(&digits[13..])),
        _ => return None,
    };
    let split = match (glued, set_off) {
        (Some(_), Some(_)) => return None,
        (None, None) => None,
        (Some(split), None) | (None, Some(split)) => {
            Some(split.parse().ok().filter(|_| split.bytes().all(|b| b.is_ascii_digit()))?)
        }
    };
    let after_time = glued.map_or(0, str::len) + set_off.map_or(0, |split| split.len() + 1);
    Some((&stem[..stem.len() - after_time], FileName { mode, time, split }))
}

/// Above every segment id that an [`domain::AudienceId`] can hold: 18 digits.
const SEGMENT_END: u64 = 1_000_000_000_000_000_000;

/// Reads a file's lines, whichever template they are of: three columns with a TAB between each, or three with spaces, where
/// an empty one can be told only at the end of a line. Line ends are LF or CRLF; a byte order mark is skipped, and so is a
/// header: the first line that is not blank, if it does not begin with a digit. Of a full file the removed segments are not
/// read: it lists what each user is in.
///
/// An entry that is no segment id is rejected by itself, the others of its line are taken.
#[derive(Debug)]
pub(crate) struct Rows {
    mode: Mode,
    lines: Lines,
    at: At,
}

/// How far the lines are read.
#[derive(Debug)]
struct At {
    read: Read,
    /// No line has come yet that is not blank.
    first: bool,
}

impl Rows {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, lines: Lines::default(), at: At { read: Read::default(), first: true } }
    }

    pub(crate) fn feed(&mut self, piece: &[u8], sink: &mut dyn Sink) {
        self.lines.feed(piece, |line| self.at.line(line, self.mode, sink));
    }

    /// `cut`: the line that stands last is not whole.
    pub(crate) fn end(mut self, cut: bool, sink: &mut dyn Sink) -> Read {
        if !cut {
            self.lines.end(|line| self.at.line(line, self.mode, sink));
        }
        Read { cut, ..self.at.read }
    }
}

impl At {
    fn line(&mut self, line: Option<&[u8]>, mode: Mode, sink: &mut dyn Sink) {
        let read = &mut self.read;
        read.lines += 1;
        let Some(mut line) = line else {
            read.rows += 1;
            self.first = false;
            sink.reject(read.lines, &ROW_TOO_LONG.plain());
            return;
        };
        if read.lines == 1 {
            line = without_mark(line);
        }
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return;
        }
        let starts_otherwise =
            || line.iter().find(|byte| **byte != b' ').is_some_and(|b| !b.is_ascii_digit() && *b != b'\t');
        if std::mem::take(&mut self.first) && starts_otherwise() {
            return;
        }
        read.rows += 1;
        if let Err(reason) = row(line, mode, read.lines, sink) {
            sink.reject(read.lines, &reason.plain());
        }
    }
}

/// Without the byte order mark that some programs put before UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Reads a line without its line end.
fn row(line: &[u8], mode: Mode, number: u64, sink: &mut dyn Sink) -> Result<(), Saying> {
    let (ecid, segments, removed) = match begin_of(line) {
        Some((ecid, rest)) => {
            let [segments, removed] = two_columns(rest)?;
            (ecid, segments, removed)
        }
        None => {
            let [ecid, segments, removed] = if line.contains(&b'\t') { by_tabs(line)? } else { by_spaces(line)? };
            (ecid_of(ecid.trim_ascii()).ok_or(ROW_NO_ECID)?, segments, removed)
        }
    };
    entries(segments, |sid| match sid {
        Some(sid) => sink.take(number, Named::Segment(sid), ecid, true),
        None => sink.reject(number, &ROW_NO_SEGMENT.plain()),
    });
    if mode == Mode::Iter {
        entries(removed, |sid| match sid {
            Some(sid) => sink.take(number, Named::Segment(sid), ecid, false),
            None => sink.reject(number, &ROW_NO_REMOVED.plain()),
        });
    }
    Ok(())
}

/// An ECID with a TAB behind it, as nearly all lines begin, and what comes then.
fn begin_of(line: &[u8]) -> Option<(Ecid, &[u8])> {
    let (digits, rest) = line.split_at_checked(Ecid::DIGITS)?;
    let (b'\t', rest) = rest.split_first()? else { return None };
    Some((ecid_of(digits)?, rest))
}

fn by_tabs(line: &[u8]) -> Result<[&[u8]; 3], Saying> {
    let (ecid, rest) = split_tab(line).ok_or(ROW_TOO_FEW)?;
    let [segments, removed] = two_columns(rest)?;
    Ok([ecid, segments, removed])
}

fn two_columns(rest: &[u8]) -> Result<[&[u8]; 2], Saying> {
    // Short, mostly: shorter than a search of many bytes at a time takes to begin.
    let tab = rest.iter().position(|byte| *byte == b'\t').ok_or(ROW_TOO_FEW)?;
    let (segments, rest) = (&rest[..tab], &rest[tab + 1..]);
    if rest.is_empty() {
        return Ok([segments, rest]);
    }
    // Two TABs as one separator would put what a user is in where we look for what it left.
    match split_tab(rest) {
        Some((_, more)) if !more.trim_ascii().is_empty() => Err(ROW_TOO_MANY),
        Some((removed, _)) => Ok([segments, removed]),
        None => Ok([segments, rest]),
    }
}

fn split_tab(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'\t', bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn by_spaces(line: &[u8]) -> Result<[&[u8]; 3], Saying> {
    let mut columns = line.split(|byte| *byte == b' ').filter(|column| !column.is_empty());
    let columns = [columns.next(), columns.next(), columns.next(), columns.next()];
    let open_end = line.ends_with(b" ");
    let spaced = |column: &[u8]| column.starts_with(b",") || column.ends_with(b",");
    match columns {
        [_, _, _, Some(_)] => Err(ROW_SPACED_LIST),
        [_, Some(segments), Some(removed), _] if spaced(segments) || spaced(removed) => Err(ROW_SPACED_LIST),
        [Some(ecid), Some(segments), Some(removed), None] => Ok([ecid, segments, removed]),
        [Some(ecid), Some(segments), None, _] if open_end => Ok([ecid, segments, b""]),
        [_, Some(_), None, _] => Err(ROW_AMBIGUOUS),
        // Neither in nor out of anything.
        [Some(ecid), None, ..] if open_end => Ok([ecid, b"", b""]),
        _ => Err(ROW_TOO_FEW),
    }
}

/// Reads 38 digits, eight at a time: files hold hundreds of millions of them.
#[inline]
pub(crate) fn ecid_of(text: &[u8]) -> Option<Ecid> {
    let text: &[u8; Ecid::DIGITS] = text.try_into().ok()?;
    let (eights, _) = text.as_chunks::<8>();
    let [a, b, c, d] = eights else { return None };
    // The last eight overlap with those before them: 38 = 4 × 8 + 6.
    let last: &[u8; 8] = text.last_chunk()?;
    if ![a, b, c, d, last].into_iter().fold(true, |all, eight| all & are_digits(eight)) {
        return None;
    }
    let (a, b, c, d, last) = (eight(a), eight(b), eight(c), eight(d), eight(last));
    // Both halves are below 10^16 < 2^64.
    let high = u128::from(a * 100_000_000 + b) * 10u128.pow(22);
    let low = u128::from(c * 100_000_000 + d) * 10u128.pow(6);
    Ecid::from_number(high + low + u128::from(last % 1_000_000))
}

/// Whether these are eight digits.
#[inline]
fn are_digits(bytes: &[u8; 8]) -> bool {
    let word = u64::from_le_bytes(*bytes);
    // A byte from 0x30 to 0x39 has the high half 3, and still has it after 6 was added.
    let all_threes = |word: u64| word & 0xf0f0_f0f0_f0f0_f0f0 == 0x3030_3030_3030_3030;
    all_threes(word) & all_threes(word.wrapping_add(0x0606_0606_0606_0606))
}

/// The number of eight digits, all of them at once (D. Lemire, "Quickly parsing eight digits").
#[inline]
fn eight(digits: &[u8; 8]) -> u64 {
    let ones = u64::from_le_bytes(*digits) & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
}

/// A number of at most 19 digits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// Gives the segment ids of a column; `None` for an entry that is none.
fn entries(column: &[u8], mut each: impl FnMut(Option<u64>)) {
    let mut rest = column;
    while !rest.is_empty() {
        // As nearly all entries are: digits and nothing else, up to the next comma.
        let mut sid = 0_u64;
        let mut end = 0;
        while let Some(digit) = rest.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            sid = sid.wrapping_mul(10).wrapping_add(digit.into());
            end += 1;
        }
        let is_plain = (1..19).contains(&end) && rest.get(end).is_none_or(|byte| *byte == b',');
        if !is_plain {
            end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
        }
        let (entry, after) = rest.split_at(end);
        if is_plain {
            each(Some(sid).filter(|sid| *sid > 0));
        } else if !entry.trim_ascii().is_empty() {
            each(segment(entry.trim_ascii()));
        }
        rest = after.get(1..).unwrap_or_default();
    }
}

/// A segment's id.
pub(crate) fn segment(digits: &[u8]) -> Option<u64> {
    number(digits).filter(|sid| (1..SEGMENT_END).contains(sid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{File, Kept};

    const ONE: &str = "12345678901234567890123456789012345678";

    fn read_all(text: &[u8], mode: Mode) -> (Read, Kept) {
        let mut kept = Kept::default();
        let result = File::aam(mode).read(text, &mut kept).unwrap();
        for size in [1, 7, 64] {
            let mut again = Kept::default();
            assert_eq!(File::aam(mode).by_pieces(text, size, &mut again).unwrap(), result);
            assert_eq!(again, kept);
        }
        (result, kept)
    }

    /// What one line says, or the first reason.
    fn one(line: &str, mode: Mode) -> Result<Vec<(u64, bool)>, String> {
        let (result, kept) = read_all(line.as_bytes(), mode);
        assert_eq!(result.rows, 1, "{line}");
        match kept.rejected.into_iter().next() {
            Some((number, reason)) => {
                assert_eq!(number, 1);
                Err(reason)
            }
            None => Ok(kept.taken.iter().map(|(_, id, _, inside)| (id[4..].parse().unwrap(), *inside)).collect()),
        }
    }

    #[test]
    fn names_are_read_from_the_right() {
        let parse = |name| FileName::parse(name).map(|file| (file.mode, file.time, file.split));
        assert_eq!(
            parse("S3_1234_20914_XYZCustomer_full_1486140844000.sync.gz"),
            Some((Mode::Full, 1_486_140_844_000, None))
        );
        assert_eq!(
            parse("incoming/S3_1_full_1486140844000001.sync.gz"),
            Some((Mode::Full, 1_486_140_844_000, Some(1)))
        );
        assert_eq!(parse("s3_215_888_iter_1449756724.sync"), Some((Mode::Iter, 1_449_756_724_000, None)));
        assert_eq!(parse("ftp_1_iter_1449756724-12.sync"), Some((Mode::Iter, 1_449_756_724_000, Some(12))));
        assert_eq!(parse("s3_1234_5678_full_1700000000000-1.sync.gz"), Some((Mode::Full, 1_700_000_000_000, Some(1))));
        assert_eq!(parse("full_1486140844000.sync"), Some((Mode::Full, 1_486_140_844_000, None)));
        for bad in [
            "x.csv",
            "a_full_.sync",
            "a_full_12.sync",
            "a_part_1486140844000.sync",
            "full1486140844000.sync",
            "a_full_148614084400x.sync",
            "a_full_14861408440001.sync",
            "a_full_1486140844000-.sync",
            "a_full_1486140844000-+1.sync",
            "a_full_1486140844000001-1.sync",
            "a_full_1486140844000.info",
            "a_full_\u{0661}\u{0662}\u{0663}\u{0664}\u{0665}.sync",
        ] {
            assert_eq!(FileName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn control_files_and_parts_share_their_root() {
        let name = "in/S3_1234_20914_XYZCustomer_full_1486140844000.info";
        assert!(FileName::is_control(name) && !FileName::is_control("a_full_1486140844000.sync"));
        let control = FileName::parse_control(name).unwrap();
        assert_eq!((control.mode, control.time), (Mode::Full, 1_486_140_844_000));
        assert_eq!(FileName::parse_control("read-me.info"), None);
        let root = Some("S3_1234_20914_XYZCustomer_full_1486140844000");
        for part in [
            name,
            "S3_1234_20914_XYZCustomer_full_1486140844000.sync",
            "x/S3_1234_20914_XYZCustomer_full_1486140844000001.sync.gz",
            "S3_1234_20914_XYZCustomer_full_1486140844000-7.sync.gz",
        ] {
            assert_eq!(FileName::root(part), root, "{part}");
        }
        assert_eq!(FileName::root("x.csv"), None);
    }

    #[test]
    fn tabs_are_exact() {
        assert_eq!(one(&format!("{ONE}\t1,2\t3"), Mode::Iter), Ok(vec![(1, true), (2, true), (3, false)]));
        assert_eq!(one(&format!("{ONE}\t1, 2 ,\t\r\n"), Mode::Iter), Ok(vec![(1, true), (2, true)]));
        assert_eq!(one(&format!("{ONE}\t\t3"), Mode::Iter), Ok(vec![(3, false)]));
        assert_eq!(one(&format!("{ONE}\t\t"), Mode::Iter), Ok(vec![]));
        assert_eq!(one(&format!("{ONE}\t1\t2\t"), Mode::Iter), Ok(vec![(1, true), (2, false)]));
        assert_eq!(one(&format!("{ONE}\t1"), Mode::Iter), Err(ROW_TOO_FEW.english.into()));
        assert_eq!(one(&format!("{ONE}\t\t1\t2"), Mode::Iter), Err(ROW_TOO_MANY.english.into()));
        assert_eq!(one("12\t1\t", Mode::Iter), Err(ROW_NO_ECID.english.into()));
    }

    #[test]
    fn runs_of_spaces_are_columns_where_that_is_clear() {
        assert_eq!(
            one(&format!("{ONE}  24,26,27  25,28"), Mode::Iter),
            Ok(vec![(24, true), (26, true), (27, true), (25, false), (28, false)])
        );
        assert_eq!(one(&format!("{ONE} 24 25\r\n"), Mode::Iter), Ok(vec![(24, true), (25, false)]));
        assert_eq!(one(&format!("{ONE} 24,26 "), Mode::Iter), Ok(vec![(24, true), (26, true)]));
        assert_eq!(one(&format!("{ONE}  "), Mode::Iter), Ok(vec![]));
        // Of nothing that it is in, and two that it left? Or the other way round?
        for mode in [Mode::Iter, Mode::Full] {
            assert_eq!(one(&format!("{ONE}  25,28"), mode), Err(ROW_AMBIGUOUS.english.into()));
            assert_eq!(one(&format!("{ONE} 24, 26"), mode), Err(ROW_SPACED_LIST.english.into()));
            assert_eq!(one(&format!("{ONE} 24 ,26"), mode), Err(ROW_SPACED_LIST.english.into()));
            assert_eq!(one(&format!("{ONE} 24, 26, 27 "), mode), Err(ROW_SPACED_LIST.english.into()));
            assert_eq!(one(ONE, mode), Err(ROW_TOO_FEW.english.into()));
        }
    }

    #[test]
    fn a_full_file_says_what_each_user_is_in_and_nothing_else() {
        assert_eq!(one(&format!("{ONE}\t1\t2,x"), Mode::Full), Ok(vec![(1, true)]));
        assert_eq!(one(&format!("{ONE} 1 2"), Mode::Full), Ok(vec![(1, true)]));
    }

    #[test]
    fn entries_that_are_no_segment_ids_are_rejected_alone() {
        let text = format!("{ONE}\t1,x,0,+3,1000000000000000000,007,99999999999999999999999\t-2,5");
        let (result, kept) = read_all(text.as_bytes(), Mode::Iter);
        assert_eq!((result.rows, result.lines), (1, 1));
        assert_eq!(kept.told(), [(1, "aam:1", true), (1, "aam:7", true), (1, "aam:5", false)]);
        assert_eq!(kept.rejected.iter().filter(|(_, reason)| reason == ROW_NO_SEGMENT.english).count(), 5);
        assert_eq!(kept.rejected.iter().filter(|(_, reason)| reason == ROW_NO_REMOVED.english).count(), 1);
    }

    #[test]
    fn headers_blank_lines_and_the_byte_order_mark_are_no_rows() {
        for header in ["MCID\tSEGMENTS\tREMOVED", "UUID SEGS REMOVED", "\u{feff}Experience Cloud ID\tA\tB"] {
            let text = format!("{header}\r\n\r\n{ONE}\t1\t\r\n \n");
            let (result, kept) = read_all(text.as_bytes(), Mode::Iter);
            assert_eq!((result.rows, result.lines), (1, 4), "{header}");
            assert_eq!(kept.told(), [(3, "aam:1", true)]);
            assert_eq!(kept.rejected, []);
        }
        let (result, kept) = read_all(format!("\u{feff}{ONE}\t1\t\n").as_bytes(), Mode::Iter);
        assert_eq!((result.rows, kept.taken.len()), (1, 1));
        // Digits of the wrong number, or a number that a spreadsheet has rewritten, are not a header.
        for first in ["1234\t1\t", "1.2E+37\t1\t", "\t1\t2"] {
            let (result, kept) = read_all(first.as_bytes(), Mode::Iter);
            assert_eq!((result.rows, result.lines), (1, 1));
            assert_eq!(kept.rejected, [(1, ROW_NO_ECID.english.to_owned())]);
        }
        // A header in the middle is a row that cannot be read.
        let (result, kept) = read_all(format!("{ONE}\t1\t\nMCID\tA\tB\n").as_bytes(), Mode::Iter);
        assert_eq!((result.rows, kept.rejected.len()), (2, 1));
        assert_eq!(read_all(b"", Mode::Full).0, Read::default());
    }

    #[test]
    fn a_cut_file_gives_its_whole_rows_and_not_the_one_in_which_it_ends() {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write as _;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        for number in 0..1000 {
            writeln!(encoder, "{number:038}\t123456,7890\t1").unwrap();
        }
        let whole = encoder.finish().unwrap();
        let mut kept = Kept::default();
        let result = File::aam(Mode::Full).read(&whole, &mut kept).unwrap();
        assert_eq!((result.rows, result.cut, kept.taken.len()), (1000, false, 2000));
        for end in (20..whole.len()).step_by(997) {
            let mut kept = Kept::default();
            let result = File::aam(Mode::Full).read(&whole[..end], &mut kept).unwrap();
            assert!(result.cut);
            assert_eq!(kept.taken.len() as u64, result.rows * 2);
            assert!(kept.taken.iter().all(|(_, id, ..)| id == "aam:123456" || id == "aam:7890"));
        }
    }

    #[test]
    fn no_reason_repeats_what_stood_there() {
        let text = format!("jane@example.com\t1\t\njane@example.com\t1\t\n{ONE}\tjane@example.com\tjane@example.com\n");
        let (_, kept) = read_all(text.as_bytes(), Mode::Iter);
        assert_eq!(kept.rejected.len(), 3);
        assert!(kept.rejected.iter().all(|(_, reason)| !reason.contains("jane") && !reason.contains(ONE)));
    }

    proptest! {
        #[test]
        fn an_ecid_is_read_as_its_type_reads_it(text in "[0-9]{38}|[0-9]{37}[^0-9]|[0-9]{0,40}", at in 0..38usize, byte: u8) {
            prop_assert_eq!(ecid_of(text.as_bytes()), Ecid::parse(&text));
            let mut bytes = text.into_bytes();
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
            prop_assert_eq!(ecid_of(&bytes), str::from_utf8(&bytes).ok().and_then(Ecid::parse));
        }

        #[test]
        fn what_is_written_is_read_again(
            rows in prop::collection::vec(
                (
                    (0..10u128.pow(38)).prop_map(|number| Ecid::from_number(number).unwrap()),
                    prop::collection::vec(1..SEGMENT_END, 1..4),
                    prop::collection::vec(1..SEGMENT_END, 1..4),
                ),
                0..20,
            ),
            tabs: bool,
            crlf: bool,
            header: bool,
        ) {
            let separator = if tabs { "\t" } else { "  " };
            let end = if crlf { "\r\n" } else { "\n" };
            let list = |sids: &[u64]| sids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let mut text = if header { format!("MCID{separator}SEGMENTS{separator}REMOVED{end}") } else { String::new() };
            let mut expected = Vec::new();
            for (number, (ecid, inside, outside)) in rows.iter().enumerate() {
                let line = number as u64 + 1 + u64::from(header);
                text += &[ecid.text(), list(inside), list(outside)].join(separator);
                text += end;
                expected.extend(inside.iter().map(|sid| (line, format!("aam:{sid}"), *ecid, true)));
                expected.extend(outside.iter().map(|sid| (line, format!("aam:{sid}"), *ecid, false)));
            }
            let (result, kept) = read_all(text.as_bytes(), Mode::Iter);
            prop_assert_eq!(result, Read { rows: rows.len() as u64, lines: rows.len() as u64 + u64::from(header), cut: false });
            prop_assert_eq!(kept, Kept { taken: expected, rejected: Vec::new() });
        }
    }
}
