//! Experience Platform's JSON exports.

use domain::said::Saying;
use domain::sayings::{
    NO_AUDIENCE, PROFILE_BROKEN, PROFILE_NO_ECID, PROFILE_NO_OBJECT, PROFILE_NO_UUID, PROFILE_STATUS, PROFILE_TOO_LONG,
    PROFILE_TOO_MANY, SEVERAL_STATUSES,
};
use domain::{AudienceId, Ecid, Said};
use serde_json::Value;

use super::{Shape, in_column, last_part};
use crate::profile::{self, ENTRIES_MAX, member};
use crate::{Named, RECORD_MAX, Read, Sink};

/// Reads a JSON export: an array of profiles, one profile, or one a line. A profile's place, which the sink is told as its
/// line, is its number in an array, else its line.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    shape: Shape<'a>,
    bad_status: Said,
    objects: Objects,
    /// Whether the file told an audience.
    told: bool,
    /// It tells none, neither by its first profile nor by its name.
    refused: bool,
}

impl<'a> Json<'a> {
    pub(crate) fn new(shape: Shape<'a>) -> Self {
        let bad_status = PROFILE_STATUS.worded(format!("status: missing or unknown: {}", shape.statuses()));
        Self { shape, bad_status, objects: Objects::default(), told: false, refused: false }
    }

    pub(crate) fn feed(&mut self, piece: &[u8], sink: &mut dyn Sink) {
        let Self { shape, bad_status, objects, told, refused } = self;
        if *refused {
            return;
        }
        let mut taking = Taking { shape, sink, bad_status, told, refused };
        objects.feed(piece, |place, text| taking.object(place, text));
    }

    /// `cut`: what stands last is not whole.
    pub(crate) fn end(mut self, cut: bool, sink: &mut dyn Sink) -> Result<Read, Said> {
        let Self { shape, bad_status, objects, told, refused } = &mut self;
        let mut taking = Taking { shape, sink, bad_status, told, refused };
        let read = objects.end(cut, |place, text| taking.object(place, text));
        if self.refused { Err(NO_AUDIENCE.plain()) } else { Ok(read) }
    }
}

/// Where a file of objects stands.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    #[default]
    Between,
    /// In something that is no object.
    Other,
    Object {
        depth: usize,
        in_text: bool,
        escaped: bool,
    },
}

/// Takes each object out of the outermost array, or of those that follow each other, as their bytes come.
#[derive(Debug, Default)]
struct Objects {
    read: Read,
    at: At,
    text: Vec<u8>,
    too_long: bool,
    /// `None`: nothing was read yet.
    in_array: Option<bool>,
    open_arrays: u64,
    /// Whether the first object stood on one line, where it stands in no array: then all of them do.
    one_a_line: Option<bool>,
    offset: u64,
    line_ends: u64,
    in_line: bool,
    /// Line and place of what is being read.
    first_line: u64,
    place: u64,
}

impl Objects {
    /// Gives the text of each object that ends in this piece, or why it cannot be read, until `each` wants no more.
    fn feed(&mut self, piece: &[u8], mut each: impl FnMut(u64, Result<&[u8], Saying>) -> bool) {
        for &byte in piece {
            // How the object that ends here is to be given, if one does.
            let mut ended: Option<Option<Saying>> = None;
            match &mut self.at {
                At::Between => match byte {
                    b' ' | b'\t' | b'\r' | b'\n' | b',' => {}
                    // The byte order mark.
                    0xef | 0xbb | 0xbf if self.offset < 3 => {}
                    b'[' => {
                        self.in_array.get_or_insert(true);
                        self.open_arrays += 1;
                    }
                    b']' => self.open_arrays = self.open_arrays.saturating_sub(1),
                    _ => {
                        let in_array = *self.in_array.get_or_insert(false);
                        self.read.rows += 1;
                        self.first_line = self.line_ends + 1;
                        self.place = if in_array { self.read.rows } else { self.first_line };
                        self.at = if byte == b'{' {
                            self.text.push(byte);
                            At::Object { depth: 1, in_text: false, escaped: false }
                        } else {
                            At::Other
                        };
                    }
                },
                At::Other => {
                    if matches!(byte, b'\n' | b',') {
                        ended = Some(Some(PROFILE_NO_OBJECT));
                    }
                }
                At::Object { depth, in_text, escaped } => {
                    if self.text.len() < RECORD_MAX {
                        self.text.push(byte);
                    } else {
                        self.too_long = true;
                    }
                    match byte {
                        // No text of JSON holds one as it is.
                        b'\n' if *in_text || self.one_a_line == Some(true) => ended = Some(Some(PROFILE_BROKEN)),
                        _ if *escaped => *escaped = false,
                        b'\\' if *in_text => *escaped = true,
                        b'"' => *in_text = !*in_text,
                        _ if *in_text => {}
                        b'{' | b'[' => *depth += 1,
                        b'}' | b']' => {
                            *depth -= 1;
                            if *depth == 0 {
                                ended = Some(None);
                            }
                        }
                        _ => {}
                    }
                }
            }
            if let Some(wrong) = ended {
                let object = match wrong {
                    Some(reason) => Err(reason),
                    None if self.too_long => Err(PROFILE_TOO_LONG),
                    None => Ok(&self.text[..]),
                };
                if object.is_ok() && self.in_array == Some(false) {
                    self.one_a_line.get_or_insert(self.first_line == self.line_ends + 1);
                }
                if !each(self.place, object) {
                    return;
                }
                self.at = At::Between;
                self.text.clear();
                self.too_long = false;
            }
            self.offset += 1;
            self.line_ends += u64::from(byte == b'\n');
            self.in_line = byte != b'\n';
        }
    }

    /// That was all. `cut`: what stands last is not whole.
    fn end(&mut self, cut: bool, mut each: impl FnMut(u64, Result<&[u8], Saying>) -> bool) -> Read {
        let mut read = self.read;
        read.cut = cut;
        match self.at {
            At::Other => {
                each(self.place, Err(PROFILE_NO_OBJECT));
            }
            // It was begun, and cannot be read.
            At::Object { .. } => {
                read.rows -= 1;
                read.cut = true;
            }
            At::Between => read.cut |= self.open_arrays > 0,
        }
        read.lines = self.line_ends + u64::from(self.in_line);
        read
    }
}

struct Taking<'a> {
    shape: &'a Shape<'a>,
    sink: &'a mut dyn Sink,
    bad_status: &'a Said,
    told: &'a mut bool,
    refused: &'a mut bool,
}

impl Taking<'_> {
    /// Takes an object. Returns whether the file is read on.
    fn object(&mut self, place: u64, text: Result<&[u8], Saying>) -> bool {
        let profile = text.and_then(|text| serde_json::from_slice(text).map_err(|_| PROFILE_NO_OBJECT));
        let outcome = profile.and_then(|profile| self.profile(place, &profile));
        if let Err(reason) = outcome
            && !*self.refused
        {
            self.sink.reject(place, &reason.plain());
        }
        !*self.refused
    }

    fn profile(&mut self, place: u64, profile: &Value) -> Result<(), Saying> {
        if !profile.is_object() {
            return Err(PROFILE_NO_OBJECT);
        }
        let entries = self.entries(profile)?;
        *self.told = true;
        let mut found = Vec::new();
        match self.shape.ecid_column {
            Some(name) => {
                if let Some(value) = field(profile, name) {
                    profile::collect(value, &mut found);
                }
            }
            None => {
                found = profile::of_map(profile);
                if found.is_empty()
                    && let Some((_, value)) = flat(profile, "ecid").next()
                {
                    profile::collect(value, &mut found);
                }
            }
        }
        if found.is_empty() {
            return Err(PROFILE_NO_ECID);
        }
        if found.len().saturating_mul(entries.len()) > ENTRIES_MAX {
            return Err(PROFILE_TOO_MANY);
        }
        let mut ecids: Vec<Ecid> = Vec::with_capacity(found.len());
        for ecid in found {
            match ecid {
                Ok(ecid) => ecids.push(ecid),
                Err(reason) => self.sink.reject(place, &reason.plain()),
            }
        }
        for (audience, status) in entries {
            let inside = match status {
                None => Some(true),
                Some(status) => status.as_str().and_then(|status| self.shape.status(status)),
            };
            match inside {
                Some(inside) => {
                    for &ecid in &ecids {
                        self.sink.take(place, Named::Audience(&audience), ecid, inside);
                    }
                }
                None => self.sink.reject(place, self.bad_status),
            }
        }
        Ok(())
    }

    /// The audiences of a profile, each with its status, where one is told.
    fn entries<'p>(&mut self, profile: &'p Value) -> Result<Vec<(AudienceId, Option<&'p Value>)>, Saying> {
        if let Some(memberships) = profile::memberships(profile) {
            let all: Vec<_> = memberships?
                .into_iter()
                .filter_map(|(id, entry)| {
                    Some((AudienceId::aep(id)?, Some(member(entry, "status").unwrap_or(&Value::Null))))
                })
                .collect();
            return if all.is_empty() { Err(PROFILE_NO_UUID) } else { Ok(all) };
        }
        let fields = profile.as_object().into_iter().flatten();
        let all: Vec<_> =
            fields.clone().filter_map(|(name, value)| Some((in_column(name, "status")?, Some(value)))).collect();
        if !all.is_empty() {
            return Ok(all);
        }
        let of_time = fields.clone().find_map(|(name, _)| in_column(name, "lastQualificationTime"));
        let Some(audience) = of_time.or_else(|| self.shape.audience.cloned()) else {
            *self.refused = !*self.told;
            return Err(NO_AUDIENCE);
        };
        let status = match self.shape.status_column {
            Some(name) => Some(field(profile, name).unwrap_or(&Value::Null)),
            None => {
                let mut statuses = flat(profile, "status");
                let first = statuses.next().map(|(_, value)| value);
                if statuses.next().is_some() {
                    return Err(SEVERAL_STATUSES);
                }
                first
            }
        };
        Ok(vec![(audience, status)])
    }
}

/// The fields of a profile whose name is or ends in this one.
fn flat<'a>(profile: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let fields = profile.as_object().into_iter().flatten();
    fields.filter(move |(key, _)| last_part(key).eq_ignore_ascii_case(name))
}

/// A field by its name, or by its path.
fn field<'a>(profile: &'a Value, name: &str) -> Option<&'a Value> {
    let name = name.trim();
    member(profile, name).or_else(|| name.split('.').try_fold(profile, |value, part| member(value, part)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{File, Kept};

    const ONE: &str = "12345678901234567890123456789012345678";
    const TWO: &str = "09931076965856026570390653077113735069";
    const ID: &str = "11111111-2222-3333-4444-55555555abcd";
    const OTHER: &str = "66666666-7777-8888-9999-000000000000";

    fn read_as(text: &[u8], audience: Option<&str>, columns: [Option<&str>; 2]) -> Result<(Read, Kept), String> {
        let inside = ["realized".to_owned(), "Active".to_owned()];
        let outside = ["exited".to_owned()];
        let audience = audience.map(|id| AudienceId::aep(id).unwrap());
        let [ecid_column, status_column] = columns;
        let shape =
            Shape { audience: audience.as_ref(), ecid_column, status_column, inside: &inside, outside: &outside };
        let mut kept = Kept::default();
        let result = File::json(shape).read(text, &mut kept);
        let mut again = Kept::default();
        assert_eq!(File::json(shape).by_pieces(text, 1 + text.len() % 7, &mut again), result);
        assert_eq!(again, kept);
        result.map(|read| (read, kept)).map_err(|why| why.to_string())
    }

    fn read(text: &str) -> (Read, Kept) {
        read_as(text.as_bytes(), Some(OTHER), [None, None]).unwrap()
    }

    fn profile(ecid: &str, status: &str) -> String {
        format!(
            r#"{{"identityMap":{{"ECID":[{{"id":"{ecid}"}}]}},"segmentMembership":{{"ups":{{"{ID}":{{"status":"{status}","lastQualificationTime":"2026-01-02T03:04:05Z"}}}}}},"name":"a\"}}]\\"}}"#
        )
    }

    fn audience() -> String {
        format!("aep:{ID}")
    }

    #[test]
    fn an_array_one_object_and_one_a_line_say_the_same() {
        let (one, two) = (profile(ONE, "realized"), profile(TWO, "EXITED"));
        let id = audience();
        for text in [
            format!("[{one},{two}]"),
            format!("\u{feff}[\n  {one},\n  {two}\n]\n"),
            format!("{one}\n{two}\n"),
            format!("{one}\r\n{two}"),
            format!("{one} {two}"),
            format!("{}\n{}", one.replace(',', ",\n"), two.replace(":{", ":\n{")),
        ] {
            let (result, kept) = read(&text);
            assert_eq!((result.rows, result.cut), (2, false), "{text}");
            let told: Vec<_> =
                kept.taken.iter().map(|(_, id, ecid, inside)| (id.clone(), ecid.text(), *inside)).collect();
            assert_eq!(told, [(id.clone(), ONE.to_owned(), true), (id.clone(), TWO.to_owned(), false)], "{text}");
            assert_eq!(kept.rejected, []);
            assert_eq!(result.lines as usize, text.lines().count());
        }
        assert_eq!(read(&one).1.told(), [(1, id.as_str(), true)]);
        assert_eq!(read("").0, Read::default());
        assert_eq!(read(" [ ] \n").0, Read { rows: 0, lines: 1, cut: false });
    }

    #[test]
    fn a_place_is_the_number_in_an_array_and_the_line_elsewhere() {
        let (one, two) = (profile(ONE, "realized"), profile(TWO, "exited"));
        let places = |text: &str| read(text).1.taken.iter().map(|(place, ..)| *place).collect::<Vec<_>>();
        assert_eq!(places(&format!("[\n\n{one},{two}]")), [1, 2]);
        assert_eq!(places(&format!("\n{one}\n\n{two}")), [2, 4]);
    }

    #[test]
    fn a_profile_speaks_of_each_of_its_ecids_and_audiences() {
        let text = format!(
            r#"{{"identityMap":{{"ecid":[{{"id":"{ONE}"}},{{"id":"{TWO}"}}],"Email":[{{"id":"x"}}]}},
            "segmentMembership":{{"ups":{{"{ID}":{{"status":"exited"}}}},"x":{{"{OTHER}":{{"status":"active"}},"123":{{"status":"x"}}}}}}}}"#
        );
        let (result, kept) = read_as(text.as_bytes(), None, [None, None]).unwrap();
        assert_eq!((result.rows, kept.rejected), (1, vec![]));
        let mut told: Vec<_> =
            kept.taken.iter().map(|(_, id, ecid, inside)| (&id[4..], ecid.text(), *inside)).collect();
        told.sort();
        let (one, two) = (ONE.to_owned(), TWO.to_owned());
        assert_eq!(told, [(ID, two.clone(), false), (ID, one.clone(), false), (OTHER, two, true), (OTHER, one, true)]);
    }

    #[test]
    fn flat_fields_are_read_as_columns_are() {
        let other = format!("aep:{OTHER}");
        let (_, kept) =
            read(&format!(r#"{{"identityMap.ECID":"{ONE}","segmentMembership.ups.{ID}.status":"exited"}}"#));
        assert_eq!(kept.told(), [(1, audience().as_str(), false)]);
        let (_, kept) = read(&format!(r#"{{"ECID":["{ONE}"],"status":"exited"}}"#));
        assert_eq!(kept.told(), [(1, other.as_str(), false)]);
        let (_, kept) = read(&format!(r#"{{"ecid":"{ONE}","segmentMembership":null}}"#));
        assert_eq!(kept.told(), [(1, other.as_str(), true)]);
        let columns = [Some("_tenant.id.visitor"), Some("state")];
        let text = format!(r#"{{"_tenant":{{"id":{{"visitor":"{ONE}"}}}},"status":"x","State":"exited"}}"#);
        let (_, kept) = read_as(text.as_bytes(), Some(OTHER), columns).unwrap();
        assert_eq!(kept.told(), [(1, other.as_str(), false)]);
        // Declared, and not there.
        let (_, kept) =
            read_as(format!(r#"{{"ECID":"{ONE}"}}"#).as_bytes(), Some(OTHER), [None, Some("state")]).unwrap();
        assert_eq!((kept.taken.len(), kept.rejected.len()), (0, 1));
    }

    #[test]
    fn profiles_that_cannot_be_read_are_rejected_beside_good_ones() {
        let good = profile(ONE, "realized");
        let lines = [
            good.clone(),
            profile("1234", "realized"),
            profile(ONE, "jane"),
            "jane".to_owned(),
            "{\"a\":\"jane}".to_owned(),
            "{\"a\":{\"b\":1}".to_owned(),
            "{\"identityMap\":{}}".to_owned(),
            format!("{{\"identityMap\":{{\"ECID\":[{{\"id\":{ONE}}}]}}}}"),
            "{jane:1}".to_owned(),
            "7".to_owned(),
            format!("{{\"ECID\":\"{ONE}\",\"segmentMembership\":{{\"ups\":{{}}}}}}"),
            format!("{{\"ECID\":\"{ONE}\",\"segmentMembership\":7}}"),
            format!("{{\"ECID\":\"{ONE}\",\"a.status\":7,\"b.status\":8}}"),
            good.clone(),
        ];
        let (result, kept) = read(&(lines.join("\n") + "\n"));
        assert_eq!(result, Read { rows: 14, lines: 14, cut: false });
        assert_eq!(kept.told(), [(1, audience().as_str(), true), (14, audience().as_str(), true)]);
        let places: Vec<u64> = kept.rejected.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, (2..14).collect::<Vec<_>>());
        assert!(kept.rejected.iter().all(|(_, reason)| !reason.contains("jane") && !reason.contains("1234")));
        assert!(kept.rejected[1].1.contains("realized, Active (in) or exited (out)"));
        let (result, kept) = read(&format!("[7, {good}, \"x\", {good}, null]"));
        assert_eq!((result.rows, kept.taken.len(), kept.rejected.len()), (5, 2, 3));
    }

    #[test]
    fn a_file_of_no_audience_is_refused() {
        let text = format!("{{\"ECID\":\"{ONE}\"}}\n");
        assert!(read_as(text.repeat(3).as_bytes(), None, [None, None]).unwrap_err().contains("%SEGMENT_ID%"));
        // Where the first profile tells one, the others are rejected alone.
        let (_, kept) = read_as((profile(ONE, "realized") + "\n" + &text).as_bytes(), None, [None, None]).unwrap();
        assert_eq!((kept.taken.len(), kept.rejected.len()), (1, 1));
    }

    #[test]
    fn a_file_that_ends_too_early_gives_its_whole_profiles() {
        let one = profile(ONE, "realized");
        for (text, rows) in [
            (format!("[{one},{one}"), 2),
            (format!("[{one},{}", &one[..50]), 1),
            (format!("{one}\n{}", &one[..50]), 1),
            (format!("[{one},"), 1),
        ] {
            let (result, kept) = read(&text);
            assert_eq!(
                (result.rows, result.cut, kept.taken.len(), kept.rejected.len()),
                (rows, true, rows as usize, 0),
                "{text}"
            );
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        for number in 0..300 {
            writeln!(encoder, "{}", profile(&format!("{number:038}"), "exited")).unwrap();
        }
        let whole = encoder.finish().unwrap();
        for end in (11..whole.len()).step_by(5003) {
            let inside = ["realized".to_owned()];
            let outside = ["exited".to_owned()];
            let shape =
                Shape { audience: None, ecid_column: None, status_column: None, inside: &inside, outside: &outside };
            let mut kept = Kept::default();
            let result = File::json(shape).read(&whole[..end], &mut kept).unwrap();
            assert_eq!((result.cut, kept.taken.len() as u64, kept.rejected.len()), (true, result.rows, 0));
        }
    }

    #[test]
    fn a_profile_that_is_too_long_is_left_out() {
        let long = format!("{{\"a\":\"{}\",\"ECID\":\"{ONE}\"}}", "x".repeat(RECORD_MAX));
        let (result, kept) = read(&format!("[{long},{}]", profile(ONE, "realized")));
        assert_eq!((result.rows, kept.taken.len()), (2, 1));
        assert_eq!(kept.rejected, [(1, PROFILE_TOO_LONG.english.to_owned())]);
        let many = vec![format!("\"{ONE}\""); 20_000].join(",");
        let ids: Vec<String> = (0..10)
            .map(|at| format!("\"11111111-2222-3333-4444-55555555000{at}\":{{\"status\":\"exited\"}}"))
            .collect();
        let (_, kept) = read(&format!("{{\"ECID\":[{many}],\"segmentMembership\":{{\"ups\":{{{}}}}}}}", ids.join(",")));
        assert_eq!((kept.taken.len(), kept.rejected), (0, vec![(1, PROFILE_TOO_MANY.english.to_owned())]));
    }
}
