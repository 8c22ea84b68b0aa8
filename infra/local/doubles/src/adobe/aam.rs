//! Audience Manager: its library by REST, and the segments of each ECID.

use std::collections::{BTreeMap, BTreeSet};

use ::world::types::{Folder, Segment};
use http::{Response, StatusCode};

use super::{Adobe, error, is_ecid, json};
use crate::wire::{Params, push_json};

/// Rows of a page unless asked otherwise.
const PAGE: usize = 10;

impl Adobe {
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

    /// The ECIDs of a segment.
    #[must_use]
    pub fn members(&self, sid: u64) -> BTreeSet<String> {
        let of = self.state.members.iter().filter(|(_, sids)| sids.contains(&sid));
        of.map(|(ecid, _)| ecid.clone()).collect()
    }

    /// Puts an ECID into a segment, or takes it out, at the latest time that the double has seen. `false`: no such
    /// segment, or not 38 digits.
    pub fn set_member(&mut self, sid: u64, ecid: &str, member: bool) -> bool {
        self.set_member_at(self.state.latest_ms, sid, ecid, member)
    }

    /// The same at this time.
    pub fn set_member_at(&mut self, time_ms: u64, sid: u64, ecid: &str, member: bool) -> bool {
        let time_ms = self.seen(time_ms);
        if !self.has_segment(sid) || !is_ecid(ecid) {
            return false;
        }
        let was = self.is_member(sid, ecid);
        if was == member {
            return true;
        }
        for untold in self.state.destinations.values_mut() {
            untold.segments.entry(ecid.to_owned()).or_default().entry(sid).or_insert(was);
        }
        self.state.turned.entry(ecid.to_owned()).or_default().insert(sid, time_ms);
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

    /// From now on every call of Audience Manager's library answers 403, as to a technical account in no group; `false`:
    /// no more.
    pub fn refuse_manager(&mut self, refuse: bool) {
        self.manager_refuses = refuse;
    }

    /// When an ECID last came into a segment or left it, in ms.
    pub(super) fn turned_at(&self, sid: u64, ecid: &str) -> u64 {
        let turned = self.state.turned.get(ecid).and_then(|sids| sids.get(&sid));
        turned.copied().unwrap_or(self.state.created_ms)
    }

    /// A new segment. `false`: its id is taken.
    pub fn add_segment(&mut self, time_ms: u64, segment: Segment) -> bool {
        let new = !self.has_segment(segment.sid);
        if new {
            self.edited(time_ms, segment.sid);
            self.state.library.segments.push(segment);
        }
        new
    }

    /// Another name for a segment. `false`: no such segment.
    pub fn rename_segment(&mut self, time_ms: u64, sid: u64, name: &str) -> bool {
        let found = self.state.library.segments.iter_mut().find(|segment| segment.sid == sid);
        let found = found.map(|segment| name.clone_into(&mut segment.name)).is_some();
        if found {
            self.edited(time_ms, sid);
        }
        found
    }

    /// Makes a segment `ACTIVE` or `INACTIVE`. `false`: no such segment.
    pub fn set_active(&mut self, time_ms: u64, sid: u64, active: bool) -> bool {
        if active {
            self.state.inactive.remove(&sid);
        } else if self.has_segment(sid) {
            self.state.inactive.insert(sid);
        }
        if self.has_segment(sid) {
            self.edited(time_ms, sid);
        }
        self.has_segment(sid)
    }

    /// Takes a segment away: it is 404 and in no listing, and no file or message names it any more. `false`: no such
    /// segment.
    pub fn delete_segment(&mut self, sid: u64) -> bool {
        let found = self.has_segment(sid);
        self.state.library.segments.retain(|segment| segment.sid != sid);
        self.state.members.retain(|_, sids| {
            sids.remove(&sid);
            !sids.is_empty()
        });
        for untold in self.state.destinations.values_mut() {
            untold.segments.values_mut().for_each(|sids| _ = sids.remove(&sid));
        }
        self.counts.remove(&sid);
        found
    }

    pub(super) fn has_segment(&self, sid: u64) -> bool {
        self.state.library.segments.iter().any(|segment| segment.sid == sid)
    }

    /// The segments that are there and mapped to a destination; `None`: all are mapped.
    pub(super) fn mapped(&self, mapped: Option<&BTreeSet<u64>>) -> BTreeSet<u64> {
        let sids = self.state.library.segments.iter().map(|segment| segment.sid);
        sids.filter(|sid| mapped.is_none_or(|mapped| mapped.contains(sid))).collect()
    }

    fn edited(&mut self, time_ms: u64, sid: u64) {
        let time_ms = self.seen(time_ms);
        self.state.edited.insert(sid.to_string(), time_ms);
    }

    /// `GET /v1/…`
    pub(super) fn audience_manager(&self, path: &str, params: &Params<'_>) -> Response<Vec<u8>> {
        match path.trim_end_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["segments"] => self.segments(params),
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
        match params.filled("status") {
            Some("ACTIVE") => found.retain(|segment| !self.state.inactive.contains(&segment.sid)),
            Some("INACTIVE") => found.retain(|segment| self.state.inactive.contains(&segment.sid)),
            _ => {}
        }
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
        let updated = self.state.edited.get(&sid.to_string()).copied().unwrap_or(created);
        let status = if self.state.inactive.contains(sid) { "INACTIVE" } else { "ACTIVE" };
        let mut out = format!(r#"{{"sid":{sid},"name":"#);
        push_json(&mut out, name);
        out.push_str(&format!(
            r#","description":"","folderId":{folder_id},"dataSourceId":20914,"segmentRule":"{sid}T","mergeRuleDataSourceId":20914,"createTime":{created},"updateTime":{updated},"pid":1234,"status":"{status}","integrationCode":""}}"#
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
