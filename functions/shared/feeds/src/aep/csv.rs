//! Experience Platform's CSV exports.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use domain::said::Saying;
use domain::sayings::{
    FILE_NO_DECLARED_ECID, FILE_NO_DECLARED_STATUS, FILE_NO_ECID_COLUMN, NO_AUDIENCE, RECORD_NO_ECID, RECORD_NO_STATUS,
    RECORD_OPEN_QUOTE, RECORD_REWRITTEN, RECORD_SHORT, RECORD_STATUS, RECORD_TOO_FEW, RECORD_TOO_LONG, RECORD_TOO_MANY,
    SEVERAL_STATUSES,
};
use domain::{AudienceId, Ecid, Said};

use super::{Shape, in_column, last_part};
use crate::aam::{ecid_of, without_mark};
use crate::{Named, RECORD_MAX, Read, Sink};

/// The separators that Experience Platform offers.
const DELIMITERS: [u8; 5] = [b',', b';', b'\t', b'|', b':'];
/// Most columns of a file. Ours; an export has at most 50 attributes (Adobe, "Guardrails for destinations").
const COLUMNS_MAX: usize = 10_000;

/// Reads a CSV export: its first line is the header; values may be quoted; line ends are LF or CRLF. The separator is the one
/// under which the header has a column with the ECID.
#[derive(Debug)]
pub(crate) struct Csv<'a> {
    shape: Shape<'a>,
    at: At,
    rows: u64,
}

#[derive(Debug)]
enum At {
    /// In the first line, of which this has come.
    Header(Vec<u8>),
    Rows {
        columns: Box<Columns>,
        records: Box<Records>,
        /// The next record is the header.
        is_header: bool,
    },
    /// The file as a whole cannot be understood.
    Refused(Said),
}

impl<'a> Csv<'a> {
    pub(crate) fn new(shape: Shape<'a>) -> Self {
        Self { shape, at: At::Header(Vec::new()), rows: 0 }
    }

    pub(crate) fn feed(&mut self, piece: &[u8], sink: &mut dyn Sink) {
        match &mut self.at {
            At::Header(header) => {
                let end = memchr::memchr2(b'\r', b'\n', piece).map(|end| end + 1);
                let (line, rest) = piece.split_at(end.unwrap_or(piece.len()));
                // Of a line that is longer no column would be found.
                header.extend_from_slice(&line[..line.len().min(RECORD_MAX.saturating_sub(header.len()))]);
                if end.is_some() {
                    self.header(sink);
                    self.feed(rest, sink);
                }
            }
            At::Rows { columns, records, is_header } => {
                let (shape, rows) = (&self.shape, &mut self.rows);
                records.feed(piece, |line, record| columns.take(line, &record, shape, is_header, rows, sink));
            }
            At::Refused(_) => {}
        }
    }

    /// The first line is whole.
    fn header(&mut self, sink: &mut dyn Sink) {
        let At::Header(header) = &mut self.at else { return };
        let header = without_mark(header).to_vec();
        self.at = match columns(&header, &self.shape) {
            Ok((delimiter, columns)) => {
                At::Rows { columns: Box::new(columns), records: Box::new(Records::new(delimiter)), is_header: true }
            }
            Err(why) => At::Refused(why),
        };
        self.feed(&header, sink);
    }

    /// `cut`: what stands last is not whole.
    pub(crate) fn end(mut self, mut cut: bool, sink: &mut dyn Sink) -> Result<Read, Said> {
        if matches!(self.at, At::Header(_)) {
            if cut {
                return Ok(Read { cut, ..Read::default() });
            }
            self.header(sink);
        }
        match self.at {
            At::Header(_) => Ok(Read::default()),
            At::Refused(why) => Err(why),
            At::Rows { columns, mut records, mut is_header } => {
                let (shape, rows) = (&self.shape, &mut self.rows);
                if !cut {
                    cut = records.end(|line, record| columns.take(line, &record, shape, &mut is_header, rows, sink));
                }
                Ok(Read { rows: self.rows, lines: records.lines(), cut })
            }
        }
    }
}

/// Which columns of a file are of use.
#[derive(Debug)]
struct Columns {
    /// How many there are.
    count: usize,
    ecid: usize,
    /// The audiences that the file tells, each with the column of its status, if there is one.
    audiences: Vec<(AudienceId, Option<usize>)>,
    /// Why a status is rejected: column and expected literals, for each audience.
    bad_status: Vec<[Said; 2]>,
    bad_ecid: [Said; 3],
}

fn missing_ecid(shape: &Shape<'_>) -> Said {
    match shape.ecid_column {
        Some(name) => FILE_NO_DECLARED_ECID.with([("column", name.into())]),
        None => FILE_NO_ECID_COLUMN.plain(),
    }
}

/// Finds the separator and the columns.
fn columns(header: &[u8], shape: &Shape<'_>) -> Result<(u8, Columns), Said> {
    // The name that is found must not itself hold a separator: with `status;identityMap.ECID` the comma would find one column
    // that ends in `.ECID`.
    let is_ecid = |name: &str| match shape.ecid_column {
        Some(wanted) => name.eq_ignore_ascii_case(wanted.trim()),
        None => last_part(name).eq_ignore_ascii_case("ecid") && !name.bytes().any(|byte| DELIMITERS.contains(&byte)),
    };
    let found = DELIMITERS.iter().find_map(|&delimiter| {
        let names = names(header, delimiter);
        let ecid = names.iter().position(|name| is_ecid(name))?;
        Some((delimiter, names, ecid))
    });
    let Some((delimiter, names, ecid)) = found else { return Err(missing_ecid(shape)) };

    let statuses = status_columns(&names, shape)?;
    let of_time = names.iter().find_map(|name| in_column(name, "lastQualificationTime"));
    let mut audiences: Vec<(AudienceId, Option<usize>)> =
        statuses.iter().filter_map(|&at| Some((in_column(&names[at], "status")?, Some(at)))).collect();
    if audiences.is_empty() {
        let audience = of_time.or_else(|| shape.audience.cloned()).ok_or(NO_AUDIENCE.plain())?;
        match statuses[..] {
            [] => audiences.push((audience, None)),
            [at] => audiences.push((audience, Some(at))),
            _ => return Err(SEVERAL_STATUSES.plain()),
        }
    }
    let bad_status = |(_, at): &(AudienceId, Option<usize>)| {
        let column = at.map_or(0, |at| at + 1);
        let literals = shape.statuses();
        // Which they are stands in the feed's settings, too.
        [(RECORD_NO_STATUS, "empty"), (RECORD_STATUS, "unknown")].map(|(saying, what)| {
            saying.worded(format!("column {column} (status): {what}: {literals}")).with("column", column)
        })
    };
    let columns = Columns {
        count: names.len(),
        ecid,
        bad_status: audiences.iter().map(bad_status).collect(),
        audiences,
        bad_ecid: [RECORD_NO_ECID, RECORD_REWRITTEN, RECORD_SHORT]
            .map(|saying| saying.with([("column", (ecid + 1).into())])),
    };
    Ok((delimiter, columns))
}

/// The columns with a status: the declared one; else those of audiences; else the one that is named so.
fn status_columns(names: &[String], shape: &Shape<'_>) -> Result<Vec<usize>, Said> {
    if let Some(wanted) = shape.status_column {
        let found = names.iter().position(|name| name.eq_ignore_ascii_case(wanted.trim()));
        return found.map(|at| vec![at]).ok_or_else(|| FILE_NO_DECLARED_STATUS.with([("column", wanted.into())]));
    }
    let all: Vec<usize> = (0..names.len()).filter(|&at| last_part(&names[at]).eq_ignore_ascii_case("status")).collect();
    let of_audiences: Vec<usize> =
        all.iter().copied().filter(|&at| in_column(&names[at], "status").is_some()).collect();
    if !of_audiences.is_empty() {
        return Ok(of_audiences);
    }
    // Other fields of a profile have a status as well.
    let membership =
        |at: &usize| names[*at].get(..18).is_some_and(|begin| begin.eq_ignore_ascii_case("segmentMembership."));
    let of_membership: Vec<usize> = all.iter().copied().filter(membership).collect();
    Ok(if of_membership.is_empty() { all } else { of_membership })
}

/// The names of a header's columns under a separator.
fn names(header: &[u8], delimiter: u8) -> Vec<String> {
    let mut all = Vec::new();
    let mut records = Records::new(delimiter);
    let mut each = |_: u64, record: Result<Record<'_>, Saying>| {
        if let (Ok(record), true) = (record, all.is_empty()) {
            all = (0..record.len()).map(|at| String::from_utf8_lossy(record.field(at)).trim().to_owned()).collect();
        }
    };
    records.feed(header, &mut each);
    records.end(&mut each);
    all
}

impl Columns {
    /// Takes a record, unless it is the header.
    fn take(
        &self,
        line: u64,
        record: &Result<Record<'_>, Saying>,
        shape: &Shape<'_>,
        is_header: &mut bool,
        rows: &mut u64,
        sink: &mut dyn Sink,
    ) {
        if std::mem::take(is_header) {
            return;
        }
        *rows += 1;
        match record {
            Ok(record) => self.row(record, line, shape, sink),
            Err(reason) => sink.reject(line, &reason.plain()),
        }
    }

    fn row(&self, record: &Record<'_>, line: u64, shape: &Shape<'_>, sink: &mut dyn Sink) {
        if record.len() < self.count {
            return sink.reject(line, &RECORD_TOO_FEW.plain());
        }
        if (self.count..record.len()).any(|at| !record.field(at).trim_ascii().is_empty()) {
            return sink.reject(line, &RECORD_TOO_MANY.plain());
        }
        let text = record.field(self.ecid).trim_ascii();
        let Some(ecid) = ecid_of(text) else { return sink.reject(line, &self.bad_ecid[misread(text)]) };
        for ((audience, column), [empty, unknown]) in self.audiences.iter().zip(&self.bad_status) {
            let Some(column) = *column else {
                sink.take(line, Named::Audience(audience), ecid, true);
                continue;
            };
            let text = record.field(column).trim_ascii();
            match std::str::from_utf8(text).ok().and_then(|text| shape.status(text)) {
                Some(inside) => sink.take(line, Named::Audience(audience), ecid, inside),
                // With columns of several audiences a profile need not have to do with each of them.
                None if text.is_empty() && self.audiences.len() > 1 => {}
                None if text.is_empty() => sink.reject(line, empty),
                None => sink.reject(line, unknown),
            }
        }
    }
}

/// What is wrong with an ECID, as an index of [`Columns::bad_ecid`].
fn misread(text: &[u8]) -> usize {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let others = text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'e' | b'E' | b'+'));
    if digits > 0 && digits < text.len() && others {
        1
    } else if digits == text.len() && (30..Ecid::DIGITS).contains(&digits) {
        2
    } else {
        0
    }
}

/// One record.
struct Record<'a> {
    text: &'a [u8],
    /// Where each field ends.
    ends: &'a [usize],
}

impl Record<'_> {
    fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field; an empty one where there is none.
    fn field(&self, at: usize) -> &[u8] {
        let begin = if at == 0 { 0 } else { self.ends.get(at - 1).copied().unwrap_or(usize::MAX) };
        self.ends.get(at).and_then(|end| self.text.get(begin..*end)).unwrap_or_default()
    }
}

/// Reads records as their bytes come, with a bound on what is kept of one, since a quote that is left open turns the rest of a
/// file into a single value.
#[derive(Debug)]
struct Records {
    reader: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Line ends that were read.
    line_ends: u64,
    /// Whether something stands after the last line end.
    in_line: bool,
    begun: Begun,
}

/// Of the record that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Begun {
    /// Bytes so far.
    length: usize,
    /// Fields so far.
    fields: usize,
    /// Its first line; `None`: none is being read.
    line: Option<u64>,
    too_long: bool,
}

impl Records {
    fn new(delimiter: u8) -> Self {
        Self {
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            text: vec![0; 1 << 12],
            ends: vec![0; 1 << 6],
            line_ends: 0,
            in_line: false,
            begun: Begun::default(),
        }
    }

    /// Lines so far.
    const fn lines(&self) -> u64 {
        self.line_ends + self.in_line as u64
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.line_ends += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.in_line = bytes.last().map_or(self.in_line, |last| *last != b'\n');
    }

    /// Gives each record that ends in this piece and is not blank, the header too, with the line in which it begins, or why it
    /// cannot be read.
    fn feed(&mut self, piece: &[u8], mut each: impl FnMut(u64, Result<Record<'_>, Saying>)) {
        let mut rest = piece;
        loop {
            if self.begun.line.is_none() {
                // The reader would pass over these too, but not say so.
                let blank = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
                self.passed(&rest[..blank]);
                rest = &rest[blank..];
            }
            if rest.is_empty() {
                return;
            }
            self.begun.line.get_or_insert(self.line_ends + 1);
            let begun = self.begun;
            let (result, used, bytes, ends) =
                self.reader.read_record(rest, &mut self.text[begun.length..], &mut self.ends[begun.fields..]);
            self.passed(&rest[..used]);
            rest = &rest[used..];
            let (length, fields) = (begun.length + bytes, begun.fields + ends);
            self.begun = Begun { length, fields, ..begun };
            match result {
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
                ReadRecordResult::OutputFull if length < RECORD_MAX => self.text.resize(2 * length, 0),
                ReadRecordResult::OutputEndsFull if fields < COLUMNS_MAX => self.ends.resize(2 * fields, 0),
                // From here on only its end is looked for.
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    self.begun = Begun { length: 0, fields: 0, too_long: true, ..begun };
                }
                ReadRecordResult::Record => self.give(&mut each),
            }
        }
    }

    /// That was all. Returns whether the data end too early.
    fn end(&mut self, mut each: impl FnMut(u64, Result<Record<'_>, Saying>)) -> bool {
        let Begun { length, fields, line: Some(line), .. } = self.begun else { return false };
        // A line end ends the last record, unless it becomes a part of a quoted value.
        self.text.resize(length.max(self.text.len()) + 1, 0);
        self.ends.resize(fields.max(self.ends.len()) + 1, 0);
        let (result, _, bytes, ends) =
            self.reader.read_record(b"\n", &mut self.text[length..], &mut self.ends[fields..]);
        if bytes > 0 || !matches!(result, ReadRecordResult::Record) {
            each(line, Err(RECORD_OPEN_QUOTE));
            return true;
        }
        self.begun.fields += ends;
        self.give(&mut each);
        false
    }

    /// The record that was being read is whole.
    fn give(&mut self, each: &mut impl FnMut(u64, Result<Record<'_>, Saying>)) {
        let Begun { length, fields, line, too_long } = std::mem::take(&mut self.begun);
        let Some(line) = line else { return };
        let record = Record { text: &self.text[..length], ends: &self.ends[..fields] };
        if too_long {
            each(line, Err(RECORD_TOO_LONG));
        } else if fields > 1 || !record.field(0).trim_ascii().is_empty() {
            each(line, Ok(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::{File, Kept};

    const ONE: &str = "12345678901234567890123456789012345678";
    const TWO: &str = "09931076965856026570390653077113735069";
    const ID: &str = "11111111-2222-3333-4444-55555555abcd";

    fn literals() -> [Vec<String>; 2] {
        [
            ["realized", "existing", "active"].map(str::to_owned).to_vec(),
            ["exited", "expired"].map(str::to_owned).to_vec(),
        ]
    }

    fn audience() -> AudienceId {
        AudienceId::aep(&ID.replace('1', "9")).unwrap()
    }

    fn read_as(
        text: &[u8],
        audience: Option<&AudienceId>,
        ecid_column: Option<&str>,
        status_column: Option<&str>,
    ) -> Result<(Read, Kept), String> {
        let [inside, outside] = literals();
        let shape = Shape { audience, ecid_column, status_column, inside: &inside, outside: &outside };
        let mut kept = Kept::default();
        let result = File::csv(shape).read(text, &mut kept);
        for size in [1, 3, 50] {
            let mut again = Kept::default();
            assert_eq!(File::csv(shape).by_pieces(text, size, &mut again), result);
            assert_eq!(again, kept);
        }
        result.map(|read| (read, kept)).map_err(|why| why.to_string()).inspect_err(|why| assert!(!why.contains(ONE)))
    }

    fn read(text: &str) -> (Read, Kept) {
        read_as(text.as_bytes(), Some(&audience()), None, None).unwrap()
    }

    #[test]
    fn the_audience_and_the_status_stand_in_the_columns() {
        let header = format!(
            "identityMap.ECID,segmentMembership.ups.{ID}.status,segmentMembership.ups.{ID}.lastQualificationTime"
        );
        let text = format!(
            "{header}\n{ONE},realized,2026-11-20T01:02:03Z\n{TWO},EXITED,2026-11-20T01:02:03Z\n{ONE},Active,\n"
        );
        let (result, kept) = read(&text);
        assert_eq!(result, Read { rows: 3, lines: 4, cut: false });
        let id = AudienceId::aep(ID).unwrap();
        assert_eq!(kept.told(), [(2, id.as_str(), true), (3, id.as_str(), false), (4, id.as_str(), true)]);
        assert_eq!(kept.taken[1].2.text(), TWO);
        assert_eq!(kept.rejected, []);
    }

    #[test]
    fn without_them_the_file_s_audience_counts_and_everybody_is_in() {
        let (_, kept) = read(&format!("ECID\n{ONE}\n"));
        assert_eq!(kept.told(), [(2, audience().as_str(), true)]);
        let sample = "identityMap.ECID,segmentMembership.seg_namespace.seg_id.status,segmentMembership.seg_namespace.seg_id.lastQualificationTime";
        let (_, kept) = read(&format!("{sample}\n{ONE},exited,2026-11-20T01:02:03Z\n"));
        assert_eq!(kept.told(), [(2, audience().as_str(), false)]);
        // A time alone tells the audience, but nobody's exit.
        let (_, kept) = read(&format!("ECID,segmentMembership.ups.{ID}.lastQualificationTime\n{ONE},x\n"));
        assert_eq!(kept.told(), [(2, format!("aep:{ID}").as_str(), true)]);
    }

    #[test]
    fn every_separator_quotes_the_mark_and_every_line_end_are_read() {
        for delimiter in [",", ";", "\t", "|", ":"] {
            for (mark, quote, end) in [("", "", "\n"), ("\u{feff}", "\"", "\r\n")] {
                let line =
                    |fields: [&str; 3]| fields.map(|field| format!("{quote}{field}{quote}")).join(delimiter) + end;
                let text =
                    format!("{mark}{}{}", line(["status", "a.b", "identityMap.ECID"]), line(["exited", "x", ONE]));
                let (result, kept) = read(&text);
                assert_eq!(result, Read { rows: 1, lines: 2, cut: false }, "{text:?}");
                assert_eq!(kept.told(), [(2, audience().as_str(), false)], "{text:?}");
            }
        }
    }

    #[test]
    fn old_line_ends_lose_no_row() {
        let (result, kept) = read(&format!("ECID,status\r{ONE},exited\r\r{TWO},realized\r"));
        assert_eq!((result.rows, result.lines, kept.taken.len()), (2, 1, 2));
    }

    #[test]
    fn a_quoted_value_may_hold_separators_quotes_and_line_ends() {
        let text = format!("name,ECID,status\n\"a, \"\"b\"\"\r\n\r\nc\",{ONE},realized\n\n  \n\"\",{TWO},exited");
        let (result, kept) = read(&text);
        assert_eq!(result, Read { rows: 2, lines: 7, cut: false });
        assert_eq!(kept.told(), [(2, audience().as_str(), true), (7, audience().as_str(), false)]);
    }

    #[test]
    fn rows_that_cannot_be_read_name_the_column_and_not_the_value() {
        let text = format!(
            "status,ECID\nrealized,1.23456789012346E+37\nrealized,jane@example.com\nrealized,{}\n,{ONE}\njane,{ONE}\nrealized\n{}\nrealized,{ONE},x\nrealized,{ONE},",
            &TWO[1..],
            "realized,\"\"",
        );
        let (result, kept) = read(&text);
        assert_eq!(result, Read { rows: 9, lines: 10, cut: false });
        assert_eq!(kept.told(), [(10, audience().as_str(), true)]);
        let reasons: Vec<&str> = kept.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
        let literals = "expected one of realized, existing, active (in) or exited, expired (out)";
        assert!(reasons[0].starts_with("column 2 (ECID)") && reasons[0].contains("spreadsheet"), "{}", reasons[0]);
        assert_eq!(reasons[1], "column 2 (ECID): expected an ECID of 38 digits");
        assert!(reasons[2].contains("leading zeros"), "{}", reasons[2]);
        assert_eq!(reasons[3], format!("column 1 (status): empty: {literals}"));
        assert_eq!(reasons[4], format!("column 1 (status): unknown: {literals}"));
        assert_eq!(reasons[5], RECORD_TOO_FEW.english);
        assert_eq!(reasons[6], "column 2 (ECID): expected an ECID of 38 digits");
        assert_eq!(reasons[7], RECORD_TOO_MANY.english);
        assert_eq!(reasons.len(), 8);
    }

    #[test]
    fn declared_columns_count_and_a_file_without_them_is_refused() {
        let text = format!("ECID,visitor,status,state\n{TWO},{ONE},exited,realized\n");
        let id = audience();
        let (_, kept) = read_as(text.as_bytes(), Some(&id), Some("Visitor"), Some("state")).unwrap();
        assert_eq!((kept.taken[0].2.text().as_str(), kept.taken[0].3), (ONE, true));
        let refused = |text: &str, ecid, status| read_as(text.as_bytes(), Some(&id), ecid, status).unwrap_err();
        assert!(refused(&text, Some("other"), None).contains("other"));
        assert!(refused(&text, None, Some("other")).contains("other"));
        assert!(refused("name,age\njane,7\n", None, None).contains(".ECID"));
        assert!(refused("", None, None).contains(".ECID"));
        assert!(refused(&"x".repeat(3 << 20), None, None).contains(".ECID"));
        assert!(refused(&format!("ECID,a.status,b.status\n{ONE},x,y"), None, None).contains("status_column"));
        assert!(read_as(format!("ECID\n{ONE}\n").as_bytes(), None, None, None).unwrap_err().contains("%SEGMENT_ID%"));
    }

    #[test]
    fn another_field_s_status_is_not_that_of_the_membership() {
        let text = format!("ECID,loyalty.status,segmentMembership.ups.{ID}.status\n{ONE},gold,exited\n");
        assert_eq!(read(&text).1.told(), [(2, format!("aep:{ID}").as_str(), false)]);
    }

    #[test]
    fn columns_of_several_audiences_speak_each_for_itself() {
        let other = ID.replace('1', "7");
        let text = format!(
            "ECID,segmentMembership.ups.{ID}.status,segmentMembership.ups.{other}.status\n{ONE},realized,\n{ONE},exited,realized\n"
        );
        let (_, kept) = read(&text);
        let (id, other) = (format!("aep:{ID}"), format!("aep:{other}"));
        assert_eq!(kept.told(), [(2, id.as_str(), true), (3, id.as_str(), false), (3, other.as_str(), true)]);
    }

    #[test]
    fn a_quote_that_is_left_open_ends_the_file_too_early() {
        let text = format!("name,ECID\nx,{ONE}\n\"y,{TWO}\nz,{ONE}\n");
        let (result, kept) = read(&text);
        assert_eq!(result, Read { rows: 2, lines: 4, cut: true });
        assert_eq!((kept.taken.len(), kept.rejected), (1, vec![(3, RECORD_OPEN_QUOTE.english.to_owned())]));
        let long = format!("name,ECID\n\"{}\",{TWO}\nx,{ONE}\n", "line\n".repeat(300_000));
        let (result, kept) = read(&long);
        assert_eq!((result.rows, result.cut, kept.taken.len()), (2, false, 1));
        assert_eq!(kept.rejected, [(2, RECORD_TOO_LONG.english.to_owned())]);
    }

    #[test]
    fn a_cut_file_gives_its_whole_rows() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        writeln!(encoder, "ECID,status").unwrap();
        for number in 0..1000 {
            writeln!(encoder, "{number:038},exited").unwrap();
        }
        let whole = encoder.finish().unwrap();
        let [inside, outside] = literals();
        let id = audience();
        let shape =
            Shape { audience: Some(&id), ecid_column: None, status_column: None, inside: &inside, outside: &outside };
        for end in (11..whole.len()).step_by(1001) {
            let mut kept = Kept::default();
            let result = File::csv(shape).read(&whole[..end], &mut kept).unwrap();
            assert!(result.cut);
            assert_eq!(kept.taken.len() as u64, result.rows);
            assert_eq!(kept.rejected, []);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_columns_does_not_matter(
            order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
            delimiter in prop::sample::select(DELIMITERS.to_vec()),
            rows in prop::collection::vec((0..10u128.pow(38), any::<bool>(), "[ -~]{0,8}"), 0..10),
        ) {
            let status = format!("segmentMembership.ups.{ID}.status");
            let write = |fields: [&str; 4]| {
                let fields: Vec<String> = order.iter().map(|&at: &usize| format!("\"{}\"", fields[at].replace('"', "\"\""))).collect();
                fields.join(str::from_utf8(&[delimiter]).unwrap()) + "\n"
            };
            let mut text = write(["identityMap.ECID", &status, "name", "age"]);
            let mut expected = Vec::new();
            for (number, (ecid, inside, name)) in rows.into_iter().enumerate() {
                let ecid = Ecid::from_number(ecid).unwrap();
                text += &write([&ecid.text(), if inside { "existing" } else { "exited" }, &name, "7"]);
                expected.push((number as u64 + 2, format!("aep:{ID}"), ecid, inside));
            }
            let (_, kept) = read(&text);
            prop_assert_eq!(kept, Kept { taken: expected, rejected: Vec::new() });
        }
    }
}
