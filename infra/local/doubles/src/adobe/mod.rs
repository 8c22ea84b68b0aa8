//! The core of the Adobe double: the IMS token, Audience Manager's library, and the files it delivers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;

use ::world::types::{Folder, Library, Segment};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::wire::{Params, push_json};

/// Life of an access token as IMS states it, in seconds.
pub const TOKEN_LIFE_S: u64 = 86_399;
/// Rows of a page unless asked otherwise.
const PAGE: usize = 10;
/// Beginning of the files' names: sync type, destination, master data provider, alias.
const FILE_ROOT: &str = "S3_1234_20914_Sample";

/// How the double behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the Developer Console's credential; also the API key.
    pub client_id: String,
    /// Of the credential.
    pub client_secret: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { client_id: "sample-client".to_owned(), client_secret: "sample-secret".to_owned() }
    }
}

/// One change of an audience: the segment, the ECID, and whether it is in from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The segment.
    pub sid: u64,
    /// 38 digits.
    pub ecid: String,
    /// In or out.
    pub member: bool,
}

/// What the next delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// A file made elsewhere.
    File {
        /// Its name.
        name: String,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// The audiences change, and a full file shows it.
    Changes(Vec<Change>),
}

/// Everything that outlives a restart of the double.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    library: Library,
    /// Each ECID (38 digits) and its segments.
    members: BTreeMap<String, BTreeSet<u64>>,
    /// Each ECID that changed since the last file, and whether it was in the segment when that was written.
    changed: BTreeMap<String, BTreeMap<u64, bool>>,
    planned: VecDeque<Delivery>,
    created_ms: u64,
    delivered: u64,
}

/// An IMS organisation's Audience Manager.
#[derive(Debug)]
pub struct Adobe {
    settings: Settings,
    state: State,
    /// Members per segment.
    counts: BTreeMap<u64, usize>,
    /// Tokens and until when they are good.
    tokens: Vec<(String, u64)>,
    issued: u64,
}

impl Adobe {
    /// Audience Manager with this library and no members.
    #[must_use]
    pub fn new(settings: Settings, library: Library, now_ms: u64) -> Self {
        Self::from_state(settings, State { library, created_ms: now_ms, ..State::default() })
    }

    /// As an earlier run left it (see [`Adobe::state`]).
    #[must_use]
    pub fn from_state(settings: Settings, state: State) -> Self {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for sid in state.members.values().flatten() {
            *counts.entry(*sid).or_default() += 1;
        }
        Self { settings, state, counts, tokens: Vec::new(), issued: 0 }
    }

    /// What to keep for the next run.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Folders and segments.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.state.library
    }

    /// How many ECIDs a segment has.
    #[must_use]
    pub fn count(&self, sid: u64) -> usize {
        self.counts.get(&sid).copied().unwrap_or(0)
    }

    /// Whether an ECID is in a segment.
    #[must_use]
    pub fn is_member(&self, sid: u64, ecid: &str) -> bool {
        self.state.members.get(ecid).is_some_and(|sids| sids.contains(&sid))
    }

    /// Puts an ECID into a segment, or takes it out. `false`: no such segment, or not 38 digits.
    pub fn set_member(&mut self, sid: u64, ecid: &str, member: bool) -> bool {
        let known = self.state.library.segments.iter().any(|segment| segment.sid == sid);
        if !known || ecid.len() != 38 || !ecid.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        let was = self.is_member(sid, ecid);
        if was == member {
            return true;
        }
        self.state.changed.entry(ecid.to_owned()).or_default().entry(sid).or_insert(was);
        let sids = self.state.members.entry(ecid.to_owned()).or_default();
        let count = self.counts.entry(sid).or_default();
        if member {
            sids.insert(sid);
            *count += 1;
        } else {
            sids.remove(&sid);
            *count -= 1;
        }
        if sids.is_empty() {
            self.state.members.remove(ecid);
        }
        true
    }

    /// Adds to what [`Adobe::next_file`] will deliver.
    pub fn plan(&mut self, delivery: Delivery) {
        self.state.planned.push_back(delivery);
    }

    /// Takes back a file that could not be delivered: it is the next one again.
    pub fn take_back(&mut self, name: String, bytes: Vec<u8>) {
        self.state.delivered = self.state.delivered.saturating_sub(1);
        self.state.planned.push_front(Delivery::File { name, bytes });
    }

    /// How many deliveries are planned.
    #[must_use]
    pub fn planned(&self) -> usize {
        self.state.planned.len()
    }

    /// How many files were written so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.state.delivered
    }

    /// The next file: the one planned, or the one that shows the planned changes, or else a full file of now.
    pub fn next_file(&mut self, time_ms: u64) -> (String, Vec<u8>) {
        match self.state.planned.pop_front() {
            Some(Delivery::File { name, bytes }) => {
                self.state.delivered += 1;
                (name, bytes)
            }
            Some(Delivery::Changes(changes)) => {
                for change in changes {
                    self.set_member(change.sid, &change.ecid, change.member);
                }
                self.full_file(time_ms)
            }
            None => self.full_file(time_ms),
        }
    }

    /// Every ECID that is in a segment, with all its segments: name and gzipped rows
    /// `MCID<TAB>segments<TAB>removed`. The removed column (left since the last file) is to be ignored in a full
    /// file. The next `iter` counts from here.
    pub fn full_file(&mut self, time_ms: u64) -> (String, Vec<u8>) {
        let changed = std::mem::take(&mut self.state.changed);
        let mut rows = String::new();
        for (ecid, sids) in &self.state.members {
            let removed = changed.get(ecid).into_iter().flatten();
            let removed = removed.filter(|(sid, was)| **was && !sids.contains(sid)).map(|(sid, _)| sid);
            push_row(&mut rows, ecid, sids.iter(), removed);
        }
        self.file("full", time_ms, &rows)
    }

    /// What changed since the last file, likewise: segments come into and segments left.
    pub fn iter_file(&mut self, time_ms: u64) -> (String, Vec<u8>) {
        let changed = std::mem::take(&mut self.state.changed);
        let mut rows = String::new();
        for (ecid, sids) in &changed {
            let now = |sid: &u64| self.state.members.get(ecid).is_some_and(|sids| sids.contains(sid));
            let came: Vec<&u64> = sids.iter().filter(|(sid, was)| !**was && now(sid)).map(|(sid, _)| sid).collect();
            let left: Vec<&u64> = sids.iter().filter(|(sid, was)| **was && !now(sid)).map(|(sid, _)| sid).collect();
            if !came.is_empty() || !left.is_empty() {
                push_row(&mut rows, ecid, came.into_iter(), left.into_iter());
            }
        }
        self.file("iter", time_ms, &rows)
    }

    fn file(&mut self, mode: &str, time_ms: u64, rows: &str) -> (String, Vec<u8>) {
        self.state.delivered += 1;
        let mut gz = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory cannot fail.
        let bytes = gz.write_all(rows.as_bytes()).and_then(|()| gz.finish()).unwrap_or_default();
        (format!("{FILE_ROOT}_{mode}_{time_ms:013}.sync.gz"), bytes)
    }

    /// Answers one call.
    pub fn handle(&mut self, now_ms: u64, request: &Request<Vec<u8>>) -> Response<Vec<u8>> {
        let path = request.uri().path();
        if path == "/ims/token/v3" {
            return if request.method() == Method::POST {
                self.token(now_ms, request)
            } else {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use POST")
            };
        }
        let Some(path) = path.strip_prefix("/v1/") else {
            return error(StatusCode::NOT_FOUND, "404", "Not found");
        };
        if let Some(refused) = self.refusal(now_ms, request) {
            return refused;
        }
        if request.method() != Method::GET {
            return error(StatusCode::METHOD_NOT_ALLOWED, "405", "Method not allowed");
        }
        let params = Params::of_query(request.uri().query());
        match path.trim_end_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["segments"] => self.segments(&params),
            ["segments", sid] => {
                let segment = sid.parse().ok().and_then(|sid: u64| {
                    let mut segments = self.state.library.segments.iter();
                    segments.find(|segment| segment.sid == sid)
                });
                match segment {
                    Some(segment) => json(StatusCode::OK, self.segment(segment)),
                    None => error(StatusCode::NOT_FOUND, "not_found", "Segment not found"),
                }
            }
            ["folders", "segments"] => json(StatusCode::OK, self.folders()),
            _ => error(StatusCode::NOT_FOUND, "not_found", "Not found"),
        }
    }

    /// Every call gives a new token; the older ones stay good.
    fn token(&mut self, now_ms: u64, request: &Request<Vec<u8>>) -> Response<Vec<u8>> {
        let form = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !form.is_some_and(|form| form.starts_with("application/x-www-form-urlencoded")) {
            return error(StatusCode::BAD_REQUEST, "invalid_request", "a form body is required");
        }
        let mut params = Params::default();
        params.extend(request.body());
        if params.get("grant_type") != Some("client_credentials") {
            return error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "client_credentials is required");
        }
        if params.filled("scope").is_none() {
            return error(StatusCode::BAD_REQUEST, "invalid_scope", "no scope requested");
        }
        if params.get("client_id") != Some(&self.settings.client_id)
            || params.get("client_secret") != Some(&self.settings.client_secret)
        {
            return error(StatusCode::UNAUTHORIZED, "invalid_client", "invalid client credentials");
        }
        self.tokens.retain(|(_, until)| *until > now_ms);
        self.issued += 1;
        let token = format!("eyJhbGciOiJub25lIn0.{:016x}.{:04x}", now_ms, self.issued);
        self.tokens.push((token.clone(), now_ms + TOKEN_LIFE_S * 1_000));
        json(
            StatusCode::OK,
            format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{TOKEN_LIFE_S}}}"#),
        )
    }

    /// Makes every token given so far answer 401.
    pub fn expire_tokens(&mut self) {
        self.tokens.clear();
    }

    /// The answer to a call without the right key and token.
    fn refusal(&self, now_ms: u64, request: &Request<Vec<u8>>) -> Option<Response<Vec<u8>>> {
        let key = request.headers().get("x-api-key").and_then(|value| value.to_str().ok());
        if key != Some(&self.settings.client_id) {
            let message = if key.is_none() { "Api Key is required" } else { "Api Key is invalid" };
            return Some(json(StatusCode::FORBIDDEN, format!(r#"{{"error_code":"403000","message":"{message}"}}"#)));
        }
        let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|token| token.strip_prefix("Bearer "));
        if self.tokens.iter().any(|(known, until)| Some(known.as_str()) == token && *until > now_ms) {
            return None;
        }
        let mut refused = error(StatusCode::UNAUTHORIZED, "invalid_token", "Invalid access token");
        let challenge = header::HeaderValue::from_static("Bearer realm=\"aam\", error=\"invalid_token\"");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Some(refused)
    }

    /// A bare array; with a paging parameter, an object round it.
    fn segments(&self, params: &Params<'_>) -> Response<Vec<u8>> {
        let number = |name: &str, default: usize| match params.filled(name) {
            None => Some(default),
            Some(text) => text.parse::<usize>().ok(),
        };
        let (Some(page), Some(size)) = (number("page", 0), number("pageSize", PAGE)) else {
            return error(StatusCode::BAD_REQUEST, "bad_request", "page and pageSize must be numbers");
        };
        let folder = params.filled("folderId").map(str::parse::<u64>);
        let search = params.filled("search").map(str::to_lowercase);
        let mut found: Vec<&Segment> = self.state.library.segments.iter().collect();
        found.retain(|segment| folder.as_ref().is_none_or(|id| id.as_ref() == Ok(&segment.folder_id)));
        found.retain(|segment| search.as_ref().is_none_or(|text| segment.name.to_lowercase().contains(text)));
        match params.filled("sortBy") {
            Some("name") => found.sort_by(|a, b| a.name.cmp(&b.name).then(a.sid.cmp(&b.sid))),
            Some("sid") => found.sort_by_key(|segment| segment.sid),
            _ => {}
        }
        if params.get("descending") == Some("true") {
            found.reverse();
        }
        let rows = |found: &mut dyn Iterator<Item = &&Segment>| {
            found.map(|segment| self.segment(segment)).collect::<Vec<_>>().join(",")
        };
        if params.get("page").is_none() && params.get("pageSize").is_none() {
            return json(StatusCode::OK, format!("[{}]", rows(&mut found.iter())));
        }
        let total = found.len();
        let list = rows(&mut found.iter().skip(page.saturating_mul(size)).take(size));
        json(StatusCode::OK, format!(r#"{{"list":[{list}],"total":{total},"page":{page},"pageSize":{size}}}"#))
    }

    fn segment(&self, segment: &Segment) -> String {
        let Segment { sid, folder_id, name } = segment;
        let created = self.state.created_ms;
        let mut out = format!(r#"{{"sid":{sid},"name":"#);
        push_json(&mut out, name);
        out.push_str(&format!(
            r#","description":"","folderId":{folder_id},"dataSourceId":20914,"segmentRule":"{sid}T","mergeRuleDataSourceId":20914,"createTime":{created},"updateTime":{created},"pid":1234,"status":"ACTIVE","integrationCode":""}}"#
        ));
        out
    }

    /// Folders within folders. One whose parent is not there stands at the top.
    fn folders(&self) -> String {
        let folders = &self.state.library.folders;
        let known: BTreeSet<u64> = folders.iter().map(|folder| folder.folder_id).collect();
        let mut below: BTreeMap<u64, Vec<&Folder>> = BTreeMap::new();
        for folder in folders {
            let parent = folder.parent_folder_id;
            let top = !known.contains(&parent) || parent == folder.folder_id;
            below.entry(if top { 0 } else { parent }).or_default().push(folder);
        }
        let mut out = String::new();
        push_folders(&mut out, &mut below, 0, "/");
        out
    }
}

/// Takes the folders out of `below` while it writes them, so that a circle ends.
fn push_folders(out: &mut String, below: &mut BTreeMap<u64, Vec<&Folder>>, parent: u64, path: &str) {
    out.push('[');
    for (at, folder) in below.remove(&parent).unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}{}/", folder.name);
        out.push_str(if at == 0 { "{" } else { ",{" });
        out.push_str(&format!(
            r#""folderId":{},"parentFolderId":{},"path":"#,
            folder.folder_id, folder.parent_folder_id
        ));
        push_json(out, path.trim_end_matches('/'));
        out.push_str(",\"name\":");
        push_json(out, &folder.name);
        out.push_str(",\"subFolders\":");
        push_folders(out, below, folder.folder_id, &path);
        out.push('}');
    }
    out.push(']');
}

fn push_row<'a>(
    rows: &mut String,
    ecid: &str,
    segments: impl Iterator<Item = &'a u64>,
    removed: impl Iterator<Item = &'a u64>,
) {
    let list = |sids: &mut dyn Iterator<Item = &'a u64>| sids.map(u64::to_string).collect::<Vec<_>>().join(",");
    rows.push_str(ecid);
    rows.push('\t');
    rows.push_str(&list(&mut { segments }));
    rows.push('\t');
    rows.push_str(&list(&mut { removed }));
    rows.push('\n');
}

fn json(status: StatusCode, body: String) -> Response<Vec<u8>> {
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Vec<u8>> {
    json(status, format!(r#"{{"error":"{code}","error_description":"{message}"}}"#))
}
