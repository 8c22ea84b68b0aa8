//! The files that Adobe delivers, made from the double's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use md5::Md5;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Adobe;
use super::aep::Membership;
use crate::wire::iso;

/// A delivery of one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// An outbound file of Audience Manager.
    AudienceManager(Outbound),
    /// A file export of Experience Platform.
    Platform(Export),
}

impl Default for Shape {
    fn default() -> Self {
        Self::AudienceManager(Outbound::default())
    }
}

/// An outbound delivery of Audience Manager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Outbound {
    /// The destination: master data provider and alias in the names. Changes count from its last delivery.
    pub root: String,
    /// First in the names: `S3`, `s3`, `ftp` or `http`.
    pub sync_type: String,
    /// `full`: everybody who is in a segment; else `iter`: what changed.
    pub full: bool,
    /// The time in the names has 10 digits (s), not 13 (ms).
    pub seconds: bool,
    /// In how many files; 1 is not split.
    pub parts: usize,
    /// How parts are numbered.
    pub numbering: Numbering,
    /// The control file.
    pub info: Info,
    /// Compressed, with a name that ends in `.gz`.
    pub gzip: bool,
    /// Lines end in CR LF.
    pub crlf: bool,
    /// A first line with the columns' names.
    pub header: bool,
    /// What stands between the columns.
    pub columns: Columns,
    /// Which id a row is about.
    pub key: Key,
    /// The segments that are mapped to the destination: no other is ever named. `None`: all.
    pub mapped: Option<BTreeSet<u64>>,
    /// The last file of data ends too early.
    pub cut: bool,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            root: "1234_20914_Sample".to_owned(),
            sync_type: "S3".to_owned(),
            full: true,
            seconds: false,
            parts: 1,
            numbering: Numbering::FirstNone,
            info: Info::None,
            gzip: true,
            crlf: false,
            header: false,
            columns: Columns::Tab,
            key: Key::Ecid,
            mapped: None,
            cut: false,
        }
    }
}

/// How the parts of a split file are numbered. Behind a time of 10 digits a glued number could not be told from one of
/// 13, so that there all parts are numbered as by [`Numbering::Hyphen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbering {
    /// Glued to the time: none, 001, 002, …
    FirstNone,
    /// Glued to the time: 000, 001, …
    FromZero,
    /// Glued to the time: 001, 002, …
    FromOne,
    /// As the sample of a control file has it: -1, -2, …
    Hyphen,
}

/// Whether there is a control file, `.info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Info {
    /// None.
    None,
    /// In JSON.
    Strict,
    /// As the sample has it: with names that are not quoted.
    Unquoted,
}

/// What stands between the columns of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Columns {
    /// A tab.
    Tab,
    /// A space.
    Space,
    /// Two spaces, as the printed example has it.
    TwoSpaces,
}

/// Which id a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The ECID (the macro `MCID`).
    Ecid,
    /// Audience Manager's own id (the macro `UUID`): 38 digits as well, and no ECID.
    Uuid,
}

/// A file export of Experience Platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Export {
    /// The destination's id, in the manifest's name. Incremental exports count from its last one.
    pub destination: String,
    /// The destination's name, first in the files' names.
    pub name: String,
    /// The audiences that are activated to the destination; each has files of its own. `None`: all.
    pub audiences: Option<BTreeSet<String>>,
    /// Everybody who is in; else incremental: who came, and who left if there is a status column.
    pub full: bool,
    /// CSV or JSON.
    pub format: Format,
    /// Between the columns: `,`, `;`, `|`, `:` or a tab.
    pub delimiter: char,
    /// Every cell stands in quotes, beside a first column of which the cells hold delimiters, quotes and line ends.
    pub quotes: bool,
    /// Lines end in CR LF.
    pub crlf: bool,
    /// Name of the column with the ECID.
    pub ecid_column: String,
    /// What the status column says of those inside and of those who left; `None`: there is no such column, nor one
    /// with the time.
    pub status: Option<[String; 2]>,
    /// The status column's name bears the audience's id, and not the words `seg_namespace.seg_id`.
    pub id_in_header: bool,
    /// The file's name bears the audience's id.
    pub id_in_name: bool,
    /// The file's name bears the time.
    pub time_in_name: bool,
    /// Each audience has a folder with its id as name.
    pub folders: bool,
    /// A file with more rows is split.
    pub rows_per_file: usize,
    /// Compressed, with a name that ends in `.gz`.
    pub gzip: bool,
    /// A manifest lists all files of the run.
    pub manifest: bool,
    /// The last file of data ends too early.
    pub cut: bool,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            destination: "aaaaaaaa-0000-4000-8000-000000000001".to_owned(),
            name: "Sample".to_owned(),
            audiences: None,
            full: true,
            format: Format::Csv,
            delimiter: ',',
            quotes: false,
            crlf: false,
            ecid_column: "identityMap.ECID".to_owned(),
            status: Some(["realized", "exited"].map(str::to_owned)),
            id_in_header: false,
            id_in_name: true,
            time_in_name: true,
            folders: false,
            rows_per_file: 5_000_000,
            gzip: false,
            manifest: false,
            cut: false,
        }
    }
}

/// What an export is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A row for each ECID.
    Csv,
    /// An array with an object for each profile.
    JsonArray,
    /// An object for each profile, a line each.
    JsonLines,
}

/// A file: its name below the feed's folder, and what it holds.
type File = (String, Vec<u8>);

impl Adobe {
    /// Writes a delivery: the files of data in order, then the control file or manifest. In which order they arrive,
    /// and whether, is the caller's affair.
    pub fn files(&mut self, time_ms: u64, shape: &Shape) -> Vec<File> {
        self.seen(time_ms);
        match shape {
            Shape::AudienceManager(outbound) => self.outbound(time_ms, outbound),
            Shape::Platform(export) => self.export(time_ms, export),
        }
    }

    /// Every ECID that is in a segment, with all its segments: name and gzipped rows
    /// `MCID<TAB>segments<TAB>removed`. The removed column (left since the last file) is to be ignored in a full
    /// file. The next `iter` counts from here.
    pub fn full_file(&mut self, time_ms: u64) -> File {
        self.files(time_ms, &Shape::default()).swap_remove(0)
    }

    /// What changed since the last file, likewise: segments come into and segments left.
    pub fn iter_file(&mut self, time_ms: u64) -> File {
        let outbound = Outbound { full: false, ..Outbound::default() };
        self.files(time_ms, &Shape::AudienceManager(outbound)).swap_remove(0)
    }

    fn outbound(&mut self, time_ms: u64, shape: &Outbound) -> Vec<File> {
        let rows = self.rows(shape);
        let mode = if shape.full { "full" } else { "iter" };
        let time = if shape.seconds { format!("{:010}", time_ms / 1_000) } else { format!("{time_ms:013}") };
        let stem = format!("{}_{}_{mode}_{time}", shape.sync_type, shape.root);
        let parts = shape.parts.max(1);
        let size = rows.len().div_ceil(parts).max(1);
        let mut files = Vec::new();
        let mut about = Vec::new();
        for part in 0..parts {
            let number = match shape.numbering {
                _ if parts == 1 => String::new(),
                Numbering::Hyphen => format!("-{}", part + 1),
                _ if shape.seconds => format!("-{}", part + 1),
                Numbering::FirstNone if part == 0 => String::new(),
                Numbering::FirstNone | Numbering::FromZero => format!("{part:03}"),
                Numbering::FromOne => format!("{:03}", part + 1),
            };
            let mut lines: Vec<&str> = Vec::new();
            if shape.header {
                lines.push(match (shape.key, shape.columns) {
                    (Key::Ecid, Columns::Tab) => "MCID\tSEGMENTS\tREMOVED",
                    (Key::Ecid, _) => "MCID SEGMENTS REMOVED",
                    (Key::Uuid, Columns::Tab) => "UUID\tSEGMENTS\tREMOVED",
                    (Key::Uuid, _) => "UUID SEGMENTS REMOVED",
                });
            }
            lines.extend(rows.iter().skip(part * size).take(size).map(String::as_str));
            let end = if shape.crlf { "\r\n" } else { "\n" };
            let text: String = lines.iter().flat_map(|line| [*line, end]).collect();
            let name = format!("{stem}{number}.sync{}", if shape.gzip { ".gz" } else { "" });
            let bytes = packed(text, shape.gzip);
            about.push((name.clone(), bytes.len(), lines.len(), hex(&Md5::digest(&bytes))));
            files.push((name, bytes));
        }
        self.state.delivered += files.len() as u64;
        if shape.cut {
            cut_last(&mut files);
        }
        if shape.info != Info::None {
            let text = info(&format!("{stem}.sync"), &about);
            let text = if shape.info == Info::Unquoted { unquoted(&text) } else { text };
            files.push((format!("{stem}.info"), text.into_bytes()));
        }
        files
    }

    /// The rows of an outbound delivery, without line ends.
    fn rows(&mut self, shape: &Outbound) -> Vec<String> {
        let untold = self.untold(&shape.root).segments;
        let mapped = self.mapped(shape.mapped.as_ref());
        let mapped = |sid: &u64| mapped.contains(sid);
        let members = &self.state.members;
        let mut rows = Vec::new();
        let mut push = |ecid: &str, segments: &[u64], removed: &[u64]| {
            let key = if shape.key == Key::Uuid { uuid(ecid) } else { ecid.to_owned() };
            let list = |sids: &[u64]| sids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let between = match shape.columns {
                Columns::Tab => "\t",
                Columns::Space => " ",
                Columns::TwoSpaces => "  ",
            };
            rows.push([key, list(segments), list(removed)].join(between));
        };
        if shape.full {
            for (ecid, sids) in members {
                let inside: Vec<u64> = sids.iter().copied().filter(mapped).collect();
                let left = untold.get(ecid).into_iter().flatten().filter(|(sid, was)| **was && !sids.contains(sid));
                let left: Vec<u64> = left.map(|(sid, _)| *sid).filter(mapped).collect();
                if !inside.is_empty() {
                    push(ecid, &inside, &left);
                }
            }
        } else {
            for (ecid, sids) in &untold {
                let now = |sid: &u64| members.get(ecid).is_some_and(|sids| sids.contains(sid));
                let turned = |to: bool| {
                    let turned = sids.iter().filter(move |(sid, was)| **was != to && now(sid) == to);
                    turned.map(|(sid, _)| *sid).filter(mapped).collect::<Vec<u64>>()
                };
                let (came, left) = (turned(true), turned(false));
                if !came.is_empty() || !left.is_empty() {
                    push(ecid, &came, &left);
                }
            }
        }
        rows
    }

    fn export(&mut self, time_ms: u64, shape: &Export) -> Vec<File> {
        // A full export is a run of its own: what an incremental one has still to tell stays.
        let untold = if shape.full { BTreeMap::new() } else { self.untold(&shape.destination).audiences };
        let chosen = |id: &String| shape.audiences.as_ref().is_none_or(|audiences| audiences.contains(id));
        let ids: Vec<String> = self.state.library.audiences.iter().map(|audience| audience.id.clone()).collect();
        let mut files = Vec::new();
        for id in ids.iter().filter(|id| chosen(id)) {
            let told = self.told(id, shape, &untold);
            if told.is_empty() && !shape.full {
                continue;
            }
            files.extend(export_files(time_ms, id, &told, shape));
        }
        self.state.delivered += files.len() as u64;
        let manifest = shape.manifest.then(|| manifest(time_ms, shape, &files));
        if shape.cut {
            cut_last(&mut files);
        }
        files.extend(manifest);
        files
    }

    /// What an export says of one audience: each profile with its ECIDs. A new ECID of a profile that was told before
    /// is no news to an incremental export, and without a status column nobody leaves.
    fn told(&self, id: &str, shape: &Export, untold: &BTreeMap<u64, BTreeMap<String, bool>>) -> Vec<Told<'_>> {
        let mut told = Vec::new();
        for (profile, about) in &self.state.profiles {
            let Some(membership) = about.audiences.get(id) else { continue };
            let was = untold.get(profile).and_then(|audiences| audiences.get(id));
            let tell = match (shape.full, was) {
                (true, _) => membership.inside,
                (false, None) => false,
                (false, Some(_)) if membership.inside => true,
                (false, Some(was)) => *was && shape.status.is_some(),
            };
            if tell && !about.ecids.is_empty() {
                told.push(Told { profile: *profile, ecids: &about.ecids, membership: *membership });
            }
        }
        told
    }
}

/// A profile as an export of one audience tells it.
struct Told<'a> {
    profile: u64,
    ecids: &'a [String],
    membership: Membership,
}

/// The files of one audience.
fn export_files(time_ms: u64, id: &str, told: &[Told<'_>], shape: &Export) -> Vec<File> {
    let (head, rows) = match shape.format {
        Format::Csv => csv_rows(id, told, shape),
        Format::JsonArray | Format::JsonLines => {
            (None, told.iter().map(|told| json_row(id, told, shape).to_string()).collect())
        }
    };
    let end = if shape.crlf { "\r\n" } else { "\n" };
    let extension = if shape.format == Format::Csv { "csv" } else { "json" };
    let mut stem = if shape.folders { format!("{id}/{}", shape.name) } else { shape.name.clone() };
    if shape.id_in_name {
        write!(stem, "_segment{id}").unwrap_or_default();
    }
    if shape.time_in_name {
        write!(stem, "_{}", compact(time_ms)).unwrap_or_default();
    }
    let size = shape.rows_per_file.max(1);
    let mut files = Vec::new();
    for part in 0..rows.len().div_ceil(size).max(1) {
        let rows = rows.iter().skip(part * size).take(size).map(String::as_str);
        let text = if shape.format == Format::JsonArray {
            format!("[{}]", rows.collect::<Vec<_>>().join(","))
        } else {
            head.as_deref().into_iter().chain(rows).flat_map(|line| [line, end]).collect()
        };
        let number = if part == 0 { String::new() } else { format!("_{}", part + 1) };
        let name = format!("{stem}{number}.{extension}{}", if shape.gzip { ".gz" } else { "" });
        files.push((name, packed(text, shape.gzip)));
    }
    files
}

/// The header and the rows of a CSV export. An ECID of several profiles has the row of the one that qualified last.
fn csv_rows(id: &str, told: &[Told<'_>], shape: &Export) -> (Option<String>, Vec<String>) {
    let mut by_ecid: BTreeMap<&str, (&Membership, u64)> = BTreeMap::new();
    for told in told {
        for ecid in told.ecids {
            let place = by_ecid.entry(ecid).or_insert((&told.membership, told.profile));
            if place.0.since_ms < told.membership.since_ms {
                *place = (&told.membership, told.profile);
            }
        }
    }
    let line = |cells: &[String]| {
        let quoted = cells
            .iter()
            .map(|cell| if shape.quotes { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() });
        quoted.collect::<Vec<_>>().join(&shape.delimiter.to_string())
    };
    let audience = if shape.id_in_header { format!("ups.{id}") } else { "seg_namespace.seg_id".to_owned() };
    let mut head = vec![shape.ecid_column.clone()];
    if shape.status.is_some() {
        let of = |what: &str| format!("segmentMembership.{audience}.{what}");
        head.extend([of("status"), of("lastQualificationTime")]);
    }
    if shape.quotes {
        head.insert(0, "person.name.fullName".to_owned());
    }
    let rows = by_ecid.into_iter().map(|(ecid, (membership, profile))| {
        let mut cells = vec![ecid.to_owned()];
        if let Some([inside, outside]) = &shape.status {
            let status = if membership.inside { inside } else { outside };
            cells.extend([status.clone(), iso(membership.since_ms)]);
        }
        if shape.quotes {
            cells.insert(0, format!("Doe{} \"Number\"\n{profile}", shape.delimiter));
        }
        line(&cells)
    });
    (Some(line(&head)), rows.collect())
}

fn json_row(id: &str, told: &Told<'_>, shape: &Export) -> Value {
    let ecids: Vec<Value> = told.ecids.iter().map(|ecid| json!({"id": ecid})).collect();
    let mut row = json!({"identityMap": {"ECID": ecids}});
    if let Some([inside, outside]) = &shape.status {
        let status = if told.membership.inside { inside } else { outside };
        let time = iso(told.membership.since_ms);
        row["segmentMembership"] = json!({"ups": {id: {"status": status, "lastQualificationTime": time}}});
    }
    row
}

fn manifest(time_ms: u64, shape: &Export, files: &[File]) -> File {
    let hash = hex(&Sha256::digest(format!("{} {time_ms}", shape.destination)));
    let run = format!("{}-{}-4{}-8{}-{}", &hash[..8], &hash[8..12], &hash[12..15], &hash[15..18], &hash[18..30]);
    let results: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| {
            let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
            let sink = format!("/{}", [shape.name.as_str(), folder].join("/").trim_end_matches('/'));
            json!({"sinkPath": sink, "name": name, "size": bytes.len()})
        })
        .collect();
    let body = json!({"flowRunId": run, "scheduledTime": iso(time_ms), "exportResults": results});
    (format!("manifest-{}-{run}.json", shape.destination), body.to_string().into_bytes())
}

/// A control file about data files: name, bytes, lines, MD5.
fn info(name: &str, about: &[(String, usize, usize, String)]) -> String {
    let files = about.iter().enumerate().map(|(at, (name, bytes, lines, md5))| {
        format!(
            r#"{{ "FileByteSize": {bytes}, "FileLineCount": {lines}, "FileName": "{name}", "FileSequenceNumber": {}, "md5": "{md5}" }}"#,
            at + 1
        )
    });
    let (bytes, lines) = about.iter().fold((0, 0), |sum, file| (sum.0 + file.1, sum.1 + file.2));
    format!(
        "{{ \"Files\": [ {} ],\n  \"Totals\": {{ \"FileName\": \"{name}\", \"TotalByteSize\": {bytes}, \"TotalNumberFiles\": {}, \"TotalNumberLines\": {lines} }} }}\n",
        files.collect::<Vec<_>>().join(",\n    "),
        about.len(),
    )
}

/// The same without quotes round the names of fields.
fn unquoted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        let (inside, next) = after.split_once('"').unwrap_or((after, ""));
        let quote = if next.starts_with(':') { "" } else { "\"" };
        out.extend([before, quote, inside, quote]);
        rest = next;
    }
    out + rest
}

fn packed(text: String, gzip: bool) -> Vec<u8> {
    if !gzip {
        return text.into_bytes();
    }
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail.
    gz.write_all(text.as_bytes()).and_then(|()| gz.finish()).unwrap_or_default()
}

fn cut_last(files: &mut [File]) {
    if let Some((_, bytes)) = files.last_mut() {
        bytes.truncate(bytes.len() * 2 / 3);
    }
}

/// Audience Manager's own id of a device: 38 digits that tell nothing of its ECID.
pub(super) fn uuid(ecid: &str) -> String {
    let hash = Sha256::digest(format!("UUID {ecid}"));
    let number = hash.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    format!("{:038}", number % 10_u128.pow(38))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `yyyyMMddHHmmss`
fn compact(time_ms: u64) -> String {
    let at = i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX);
    at.strftime("%Y%m%d%H%M%S").to_string()
}
