//! What must hold of the readers of Adobe's files and messages. The judges are regular expressions for Audience Manager's
//! lines and for dates, the crate csv for CSV, serde_json for JSON, and the printed form of what was read.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use domain::feed::{Control, Mode};
use domain::{AudienceId, Ecid, Said};
use feeds::aep::{self, Shape};
use feeds::stream::{self, Message};
use feeds::{File, Named, Read, Sink, aam, date, gz, info, manifest};
use regex::bytes::Regex;
use serde_json::{Value, json};

use crate::{regex, text};

/// An audience of the seeds.
const AUDIENCE: &str = "aep:11111111-2222-3333-4444-555555555555";
/// When messages are received, in ms: 2026-01-02T03:05:05Z.
const NOW: u64 = 1_767_323_105_000;
/// A name in the seeds that no reason may repeat.
const NAME: &str = "jane";

/// Keeps everything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Line, audience, ECID, in or out.
    taken: Vec<(u64, AudienceId, Ecid, bool)>,
    rejected: Vec<(u64, String)>,
}

impl Sink for Kept {
    fn take(&mut self, line: u64, audience: Named<'_>, ecid: Ecid, inside: bool) {
        let audience = match audience {
            Named::Segment(sid) => AudienceId::aam(sid),
            Named::Audience(id) => id.clone(),
        };
        assert_eq!(AudienceId::parse(audience.as_str()).as_ref(), Some(&audience));
        self.taken.push((line, audience, ecid, inside));
    }

    fn reject(&mut self, line: u64, reason: &Said) {
        says_nothing_personal(reason);
        says_nothing_personal(json!(reason.values).to_string());
        self.rejected.push((line, reason.to_string()));
    }
}

impl Kept {
    /// What was taken, whatever the place.
    fn told(&self) -> Vec<(&AudienceId, Ecid, bool)> {
        self.taken.iter().map(|(_, audience, ecid, inside)| (audience, *ecid, *inside)).collect()
    }

    fn reasons(&self) -> Vec<&str> {
        self.rejected.iter().map(|(_, reason)| reason.as_str()).collect()
    }

    /// Lines count from 1 and never go back.
    fn is_in_order(&self) {
        for lines in
            [self.taken.iter().map(|row| row.0).collect::<Vec<_>>(), self.rejected.iter().map(|row| row.0).collect()]
        {
            assert!(lines.first().is_none_or(|first| *first >= 1) && lines.is_sorted());
        }
    }
}

/// A reason is a sentence of ours: nothing that could be an id, an address or the seeds' name.
fn says_nothing_personal(reason: impl AsRef<str>) {
    let reason = reason.as_ref();
    static DIGITS: LazyLock<Regex> = LazyLock::new(|| regex("[0-9]{7}"));
    let personal = reason.contains('@') || reason.contains(NAME) || DIGITS.is_match(reason.as_bytes());
    assert!(!reason.is_empty() && reason.len() < 400 && reason.is_ascii() && !personal, "{reason}");
}

/// What begins as gzip does would be unpacked: the same without its first byte.
fn not_compressed(data: &[u8]) -> &[u8] {
    if data.starts_with(&[0x1f, 0x8b]) { &data[1..] } else { data }
}

/// Lines of Audience Manager's files: exactly what regular expressions find in them.
pub fn aam_lines(data: &[u8]) {
    for mode in [Mode::Full, Mode::Iter] {
        let mut kept = Kept::default();
        let data = not_compressed(data);
        let read = File::aam(mode).read(data, &mut kept).expect("of Audience Manager's files all are read");
        let (expected, rejected, rows, lines) = by_lines(data, mode);
        assert_eq!(read, Read { rows, lines, cut: false });
        assert_eq!(kept.taken, expected);
        assert_eq!(kept.rejected.iter().map(|(line, _)| *line).collect::<Vec<_>>(), rejected);
        let mut again = Kept::default();
        assert_eq!(File::aam(mode).by_pieces(data, 1 + data.len() % 7, &mut again), Ok(read));
        assert_eq!(again, kept);
    }
}

type Taken = Vec<(u64, AudienceId, Ecid, bool)>;

/// What is to be taken from lines, the lines of what is to be rejected, and how many rows and lines there are.
fn by_lines(data: &[u8], mode: Mode) -> (Taken, Vec<u64>, u64, u64) {
    static BLANK: LazyLock<Regex> = LazyLock::new(|| regex(r"(?-u)^[ \t]*$"));
    static HEADER: LazyLock<Regex> = LazyLock::new(|| regex(r"(?s-u)^ *[^0-9 \t]"));
    static TABS: LazyLock<Regex> =
        LazyLock::new(|| regex(r"(?s-u)^[ \r\x0c]*([0-9]{38})[ \r\x0c]*\t([^\t]*)\t([^\t]*)(?:\t[ \t\r\x0c]*)?$"));
    static SPACES: LazyLock<Regex> = LazyLock::new(|| {
        regex(concat!(
            r"(?s-u)^ *[\r\x0c]*([0-9]{38})[\r\x0c]*",
            r"(?: +([^ \t,]|[^ \t,][^ \t]*[^ \t,]) +([^ \t,]|[^ \t,][^ \t]*[^ \t,]) *| +([^ \t]+) +| +)$"
        ))
    });
    static SEGMENT: LazyLock<Regex> = LazyLock::new(|| regex("^0*([1-9][0-9]{0,17})$"));

    let (mut taken, mut rejected, mut rows, mut lines) = (Vec::new(), Vec::new(), 0, 0);
    let mut first = true;
    let all: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
    for line in all {
        lines += 1;
        let mut line = line.strip_suffix(b"\n").unwrap_or(line);
        if lines == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if BLANK.is_match(line) {
            continue;
        }
        if std::mem::take(&mut first) && HEADER.is_match(line) {
            continue;
        }
        rows += 1;
        let form = if line.contains(&b'\t') { &TABS } else { &SPACES };
        let Some(found) = form.captures(line) else {
            rejected.push(lines);
            continue;
        };
        let ecid = str::from_utf8(&found[1]).ok().and_then(Ecid::parse).expect("an ECID");
        let part = |number: usize| found.get(number).map_or(&b""[..], |part| part.as_bytes());
        let inside = if part(4).is_empty() { part(2) } else { part(4) };
        let outside = if mode == Mode::Iter { part(3) } else { b"" };
        for (list, inside) in [(inside, true), (outside, false)] {
            for entry in list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
                match SEGMENT.captures(entry).filter(|_| entry.len() <= 19) {
                    Some(sid) => {
                        let id = AudienceId::parse(&format!("aam:{}", String::from_utf8_lossy(&sid[1])));
                        taken.push((lines, id.expect("an audience"), ecid, inside));
                    }
                    None => rejected.push(lines),
                }
            }
        }
    }
    (taken, rejected, rows, lines)
}

/// Compressed files: plain bytes stay as they are, and a file that is cut says the beginning of what the whole one says.
pub fn compressed(data: &[u8]) {
    let mut plain = Vec::new();
    let mut unpack = gz::Unpack::default();
    unpack.feed(data, |piece| plain.extend_from_slice(piece));
    let is_cut = unpack.end(|piece| plain.extend_from_slice(piece));
    if !data.starts_with(&[0x1f, 0x8b]) {
        assert!(!is_cut && plain == data);
    }
    let mut kept = Kept::default();
    let all = |data: &[u8], kept: &mut Kept| File::aam(Mode::Iter).read(data, kept).expect("all are read");
    let read = all(data, &mut kept);
    assert_eq!(read.cut, is_cut);
    kept.is_in_order();
    if read.cut {
        let complete = plain.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut again = Kept::default();
        // Plain bytes may begin as gzip does: a line of these says nothing.
        let begins = usize::from(plain.starts_with(&[0x1f, 0x8b]));
        all(&plain[begins.min(complete)..complete], &mut again);
        if begins == 0 {
            assert_eq!(again, kept);
        }
    } else if data.starts_with(&[0x1f, 0x8b]) {
        let mut cut = Kept::default();
        let half = all(&data[..data.len() / 2], &mut cut);
        assert!(
            half.rows <= read.rows && kept.taken.starts_with(&cut.taken) && kept.rejected.starts_with(&cut.rejected)
        );
    }
}

/// The names of files.
pub fn names(data: &[u8]) {
    static AAM: LazyLock<Regex> = LazyLock::new(|| {
        regex(concat!(
            r"(?s)(?:^|/)((?:[^/]*_)?(full|iter)_",
            r"(?:([0-9]{13})([0-9]{3,11})|([0-9]{13})(?:-([0-9]+))?|([0-9]{10})(?:-([0-9]+))?))(\.sync|\.info)(?:\.gz)?$"
        ))
    });
    let name = text(data);
    let found = AAM.captures(name.as_bytes());
    let of_name = |number: usize| found.as_ref().and_then(|found| str::from_utf8(found.get(number)?.as_bytes()).ok());
    let ending = of_name(9);
    let split = of_name(4).or(of_name(6)).or(of_name(8));
    let time = of_name(3).or(of_name(5)).map(|time| time.parse().expect("ms"));
    let expected = ending.zip(split.map_or(Some(None), |split| split.parse().ok().map(Some))).map(|(_, split)| {
        let mode = if of_name(2) == Some("full") { Mode::Full } else { Mode::Iter };
        let seconds = || of_name(7).expect("a time").parse::<u64>().expect("seconds") * 1000;
        aam::FileName { mode, time: time.unwrap_or_else(seconds), split }
    });
    assert_eq!(aam::FileName::parse(&name), expected.filter(|_| ending == Some(".sync")));
    assert_eq!(aam::FileName::parse_control(&name), expected.filter(|_| ending == Some(".info")));
    let root = aam::FileName::root(&name);
    assert_eq!(root.is_some(), expected.is_some());
    if let (Some(root), Some(file)) = (root, expected) {
        assert!(name.rsplit('/').next().is_some_and(|name| name.starts_with(root)));
        let part = format!("{root}-{}.sync.gz", file.split.unwrap_or(2));
        assert_eq!(aam::FileName::root(&part), Some(root));
        let control = aam::FileName::parse_control(&format!("{root}.info"));
        assert_eq!(control, Some(aam::FileName { split: None, ..file }));
    }

    if let Some(file) = aep::FileName::parse(&name) {
        assert!(name.starts_with(&file.stem) && file.part >= 1);
        for (part, ending) in [(2, "csv"), (999, "JSON.gz")] {
            let other = aep::FileName::parse(&format!("{}_{part}.{ending}", file.stem)).expect("a file");
            assert_eq!(other.part, part);
            assert_eq!((&other.audience, other.time, &other.stem), (&file.audience, file.time, &file.stem));
        }
    }
    if let Some(id) = manifest::id(&name) {
        assert!(name.ends_with(&format!("manifest-{id}.json")));
    }
}

/// JSON with its names without quotes where they need none, and with a comma after each last entry.
fn loosely(value: &Value) -> String {
    static NAME: LazyLock<Regex> = LazyLock::new(|| regex("^[A-Za-z0-9_.$+-]+$"));
    let all = |parts: Vec<String>| parts.iter().map(|part| format!(" {part} ,\r\n")).collect::<String>();
    match value {
        Value::Array(values) => format!("[{}]", all(values.iter().map(loosely).collect())),
        Value::Object(members) => {
            let name = |name: &String| {
                if NAME.is_match(name.as_bytes()) { name.clone() } else { Value::from(name.as_str()).to_string() }
            };
            let members = members.iter().map(|(key, value)| format!("{} : {}", name(key), loosely(value)));
            format!("{{{}}}", all(members.collect()))
        }
        other => other.to_string(),
    }
}

/// What was read of a control file reads again from its printed form, strict or not.
fn control(data: &[u8], parse: fn(&[u8]) -> Result<Control, Said>, print: fn(&Control) -> Value) {
    let read = parse(data);
    if let Err(reason) = &read {
        says_nothing_personal(reason);
    }
    if let Ok(strict) = serde_json::from_slice::<Value>(data) {
        for printed in [strict.to_string(), loosely(&strict)] {
            let again = parse(printed.as_bytes());
            assert_eq!(again.as_ref().ok(), read.as_ref().ok());
        }
    }
    if let Ok(control) = read {
        let printed = print(&control);
        assert_eq!(parse(printed.to_string().as_bytes()).as_ref(), Ok(&control));
        assert_eq!(parse(loosely(&printed).as_bytes()), Ok(control));
    }
}

/// Audience Manager's control files.
pub fn aam_control(data: &[u8]) {
    control(data, info::parse, |control| {
        let files: Vec<Value> = control
            .files
            .iter()
            .map(|(name, size)| json!({"FileName": name, "FileByteSize": size.bytes, "FileLineCount": size.lines}))
            .collect();
        let name = control.time.map(|time| format!("a_full_{time:013}.sync"));
        json!({
            "Files": files,
            "Totals": {
                "FileName": name,
                "TotalNumberFiles": control.total_files,
                "TotalNumberLines": control.total_lines.map(|lines| lines.to_string()),
            },
        })
    });
}

/// Experience Platform's manifests.
pub fn aep_manifest(data: &[u8]) {
    control(data, manifest::parse, |control| {
        let files: Vec<Value> =
            control.files.iter().map(|(name, size)| json!({"name": format!("a/{name}"), "size": size.bytes})).collect();
        let time = control.time.map(|time| {
            let time = i64::try_from(time).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
            time.expect("a time").to_string()
        });
        json!({"exportResults": files, "scheduledTime": time})
    });
}

/// Runs with one of the shapes that feeds can have, by the length of the data.
fn shaped(data: &[u8], run: impl FnOnce(&Shape<'_>)) {
    let audience = AudienceId::parse(AUDIENCE).filter(|_| !data.len().is_multiple_of(3));
    let inside = ["realized", "existing", "active"].map(str::to_owned);
    let outside = ["exited", "expired"].map(str::to_owned);
    let declared = data.windows(7).any(|word| word == b"visitor");
    let column = |name| if declared { Some(name) } else { None };
    run(&Shape {
        audience: audience.as_ref(),
        ecid_column: column("visitor"),
        status_column: column("state"),
        inside: &inside,
        outside: &outside,
    });
}

/// CSV files: rows and ECIDs are those that the crate csv finds under one of the separators, in the same order.
pub fn aep_csv(data: &[u8]) {
    let data = not_compressed(data);
    shaped(data, |shape| {
        let mut kept = Kept::default();
        let result = File::csv(*shape).read(data, &mut kept);
        let mut again = Kept::default();
        assert_eq!(File::csv(*shape).by_pieces(data, 1 + data.len() % 7, &mut again), result);
        assert_eq!(again, kept);
        kept.is_in_order();
        match result {
            Err(reason) => {
                says_nothing_personal(&reason);
                assert_eq!(kept, Kept::default());
            }
            Ok(read) => {
                let rejected: BTreeSet<u64> = kept.rejected.iter().map(|(line, _)| *line).collect();
                assert!(rejected.len() as u64 <= read.rows);
                let ends = data.iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(read.lines, (ends + usize::from(data.last().is_some_and(|last| *last != b'\n'))) as u64);
                assert!(read.cut || b",;\t|:".iter().any(|delimiter| is_in(&kept, read.rows, data, *delimiter)));
            }
        }
    });
}

/// Whether the crate csv finds these rows and ECIDs under this separator.
fn is_in(kept: &Kept, rows: u64, data: &[u8], delimiter: u8) -> bool {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(data);
    let records: Vec<csv::ByteRecord> = reader
        .byte_records()
        .map(|record| record.expect("a record of bytes"))
        .skip(1)
        .filter(|record| record.len() > 1 || record.iter().any(|field| !field.trim_ascii().is_empty()))
        .collect();
    let mut left = records.iter();
    let mut line = None;
    let found = kept.taken.iter().all(|(number, _, ecid, _)| {
        let digits = ecid.text();
        let again = line.replace((*number, *ecid)) == Some((*number, *ecid));
        again || left.any(|record| record.iter().any(|field| field.trim_ascii() == digits.as_bytes()))
    });
    found && records.len() as u64 == rows
}

/// JSON files: an array, one object and one a line say the same of the profiles that serde_json finds.
pub fn aep_json(data: &[u8]) {
    let data = not_compressed(data);
    shaped(data, |shape| {
        let mut kept = Kept::default();
        let result = File::json(*shape).read(data, &mut kept);
        let mut again = Kept::default();
        assert_eq!(File::json(*shape).by_pieces(data, 1 + data.len() % 7, &mut again), result);
        assert_eq!(again, kept);
        kept.is_in_order();
        if let Err(reason) = &result {
            says_nothing_personal(reason);
            assert_eq!(kept.taken, []);
        }
        let profiles = match serde_json::from_slice::<Value>(data) {
            Ok(Value::Array(values)) if values.iter().all(Value::is_object) => values,
            Ok(value) if value.is_object() => vec![value],
            _ => return,
        };
        let rows = profiles.len() as u64;
        let one_a_line: String = profiles.iter().map(|profile| format!("{profile}\n")).collect();
        let array = Value::Array(profiles);
        for (printed, lines) in
            [(one_a_line, rows), (array.to_string(), 1), (serde_json::to_string_pretty(&array).expect("JSON"), 0)]
        {
            let mut again = Kept::default();
            let other = File::json(*shape).read(printed.as_bytes(), &mut again);
            assert_eq!(other.is_ok(), result.is_ok());
            assert_eq!((again.told(), again.reasons()), (kept.told(), kept.reasons()));
            if let Ok(other) = other {
                assert_eq!((other.rows, other.cut), (rows, false));
                assert!(lines == 0 || other.lines == lines);
            }
        }
    });
}

/// Checks what holds of each message, and returns it.
fn message(result: Result<Message, String>) -> Option<Message> {
    match result {
        Err(reason) => {
            says_nothing_personal(&reason);
            None
        }
        Ok(message) => {
            for (place, reason) in &message.rejected {
                assert!(*place >= 1);
                says_nothing_personal(reason);
            }
            assert!(
                message.entries.iter().all(|entry| entry.said.changed <= entry.said.as_of && entry.said.as_of <= NOW)
            );
            Some(message)
        }
    }
}

/// Messages of Audience Manager: numbers and texts of digits say the same, and each user speaks for itself.
pub fn aam_stream(data: &[u8]) {
    for field in ["AAM_UUID", "DataPartner_UUID"] {
        let read = message(stream::aam(data, field, NOW));
        let Ok(value) = serde_json::from_slice::<Value>(data) else { continue };
        let again = |value: &Value| message(stream::aam(value.to_string().as_bytes(), field, NOW));
        assert_eq!(again(&value), read);
        let Some(read) = read else { continue };
        assert!(
            read.entries.iter().all(|entry| entry.audience.sid().is_some() && entry.said.changed == entry.said.as_of)
        );
        assert_eq!(read.ignored, 0);
        assert_eq!(again(&as_numbers(&value)), Some(read.clone()));
        let Some(users) = value["Users"].as_array() else { continue };
        let each: Vec<Message> = users.iter().filter_map(|user| again(&json!({"Users": [user]}))).collect();
        assert_eq!(each.iter().flat_map(|one| one.entries.clone()).collect::<Vec<_>>(), read.entries);
        assert_eq!(each.iter().map(|one| one.rejected.len()).sum::<usize>(), read.rejected.len());
    }
}

/// With the segments' ids and states as numbers, where they are texts of digits.
fn as_numbers(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(as_numbers).collect(),
        Value::Object(members) => {
            let number = |name: &String, value: &Value| {
                let digits = value.as_str().filter(|digits| !digits.starts_with('0') || digits.len() == 1);
                let digits =
                    digits.filter(|digits| digits.len() < 19 && digits.bytes().all(|byte| byte.is_ascii_digit()));
                let number = digits.and_then(|digits| digits.parse::<u64>().ok());
                let counts = ["segment_id", "status"].contains(&name.to_ascii_lowercase().as_str());
                number.filter(|_| counts).map_or_else(|| as_numbers(value), Value::from)
            };
            Value::Object(members.iter().map(|(name, value)| (name.clone(), number(name, value))).collect())
        }
        other => other.clone(),
    }
}

/// Messages of Experience Platform: one profile is a list of one, each speaks for itself, and an audience that is not mapped
/// is counted and never taken.
pub fn aep_stream(data: &[u8]) {
    let mapped = BTreeSet::from([AudienceId::parse(AUDIENCE).expect("an audience")]);
    for audiences in [&mapped, &BTreeSet::new()] {
        let read = message(stream::aep(data, audiences, NOW));
        let Ok(value) = serde_json::from_slice::<Value>(data) else { continue };
        let again = |value: &Value| message(stream::aep(value.to_string().as_bytes(), audiences, NOW));
        assert_eq!(again(&value), read);
        let Some(read) = read else { continue };
        assert!(read.entries.iter().all(|entry| entry.audience.uuid().is_some() && entry.said.as_of == NOW));
        let profiles = match &value {
            Value::Array(profiles) => profiles.clone(),
            one => {
                assert_eq!(again(&json!([one])), Some(read.clone()));
                vec![value.clone()]
            }
        };
        let each: Vec<Message> = profiles.iter().filter_map(|profile| again(&json!([profile]))).collect();
        assert_eq!(each.iter().flat_map(|one| one.entries.clone()).collect::<Vec<_>>(), read.entries);
        assert_eq!(each.iter().map(|one| one.ignored).sum::<u64>(), read.ignored);
        assert_eq!(each.iter().map(|one| one.rejected.len()).sum::<usize>(), read.rejected.len());
        // What does not count for being declared counts for the mark that it bears.
        if audiences.is_empty() && !text(data).contains("mappingCreatedAt") && !text(data).contains("name") {
            assert!(read.entries.is_empty() || text(data).contains('\\'));
        }
    }
}

/// Times: exactly those that a regular expression finds, at the moment that the calendar's arithmetic gives.
pub fn times(data: &[u8]) {
    static SPELLED: LazyLock<Regex> = LazyLock::new(|| {
        regex(concat!(
            r"(?i-u)^[ \t\r\n\x0c]*[^ \t\r\n\x0c]{3}[ \t\r\n\x0c]+",
            r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[ \t\r\n\x0c]+([0-9]{1,2})[ \t\r\n\x0c]+",
            r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})[ \t\r\n\x0c]+(?-i:UTC)[ \t\r\n\x0c]+([0-9]{1,4})[ \t\r\n\x0c]*$"
        ))
    });
    static RFC3339: LazyLock<Regex> = LazyLock::new(|| {
        regex(concat!(
            r"(?-u)^([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?",
            r"(?:Z|([+-])([0-9]{2}):?([0-9]{2}))$"
        ))
    });
    let Ok(written) = str::from_utf8(data) else { return };
    let spelled = SPELLED.captures(data).and_then(|found| {
        let month = found[1].to_ascii_lowercase();
        let months: Vec<&[u8]> = b"janfebmaraprmayjunjulaugsepoctnovdec".chunks(3).collect();
        let month = months.iter().position(|name| *name == month)? + 1;
        let number = |at: usize| parsed(&found[at]);
        millis([number(6), month as i64, number(2), number(3), number(4), number(5)], 0)
    });
    assert_eq!(date::spelled(written), spelled);
    // Jiff reads more of ISO 8601 than Adobe writes: what is of Adobe's form must be read, and read rightly.
    if let Some(found) = RFC3339.captures(data) {
        let number = |at: usize| found.get(at).map_or(0, |found| parsed(found.as_bytes()));
        let sign = if found.get(8).is_some_and(|sign| sign.as_bytes() == b"-") { -1 } else { 1 };
        // Jiff takes offsets up to 25:59.
        let is_offset = number(9) < 26 && number(10) < 60;
        let offset = sign * (number(9) * 60 + number(10));
        let moment = millis([number(1), number(2), number(3), number(4), number(5), number(6)], offset);
        let expected = moment.map(|moment| moment + u64::try_from(number(7)).unwrap_or_default()).filter(|_| is_offset);
        assert_eq!(date::rfc3339(written), expected);
    }
    if let Some(time) = date::rfc3339(written) {
        let time =
            i64::try_from(time).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok()).expect("a time");
        assert_eq!(date::rfc3339(&time.to_string()).map(i64::try_from), Some(Ok(time.as_millisecond())));
    }
}

fn parsed(digits: &[u8]) -> i64 {
    String::from_utf8_lossy(digits).parse().expect("digits")
}

/// Ms of a civil time with an offset in minutes (H. Hinnant, "days from civil"); `None`: there is no such time, or it was
/// before 1970.
fn millis([year, month, day, hour, minute, second]: [i64; 6], offset: i64) -> Option<u64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let shifted = year - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second.min(59) - offset * 60;
    u64::try_from(seconds * 1000).ok()
}
