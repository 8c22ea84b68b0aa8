//! A data folder: reading one, with every fault named, and writing one.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    World,
    feed::{FeedFile, is_ecid},
    types::{
        Audience, Event, Folder, Later, Lead, Library, List, MarketoData, Match, PlatformFolder, Segment, Streamed,
    },
};

/// How many faults are told one by one; further ones are counted.
pub const FAULTS_SHOWN: usize = 20;

/// What is wrong with a folder: one line a fault, `file:line: field: expected …, found …`. It never holds a value
/// of the files, for that may be personal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors {
    /// The first [`FAULTS_SHOWN`] faults, a line each.
    pub lines: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

impl Errors {
    fn push(&mut self, line: String) {
        if self.lines.len() < FAULTS_SHOWN {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))?;
        if self.more > 0 { write!(f, "\n… and {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for Errors {}

/// Reads a data folder: `library.json`, `marketo.json` and `incoming/` must be there; `matches.jsonl`,
/// `syncs.json`, `later.jsonl` and `feeds.json` may be missing, which is the same as empty.
///
/// # Errors
/// All faults of all files.
pub fn read(dir: &Path) -> Result<World, Errors> {
    let errors = RefCell::new(Errors::default());
    if !dir.is_dir() {
        errors.borrow_mut().push("the data folder: expected a folder, found none".to_owned());
        return Err(errors.into_inner());
    }
    let library = load(dir, "library.json", true, &errors);
    let marketo = load(dir, "marketo.json", true, &errors);
    let matches = load(dir, "matches.jsonl", false, &errors);
    let syncs = load(dir, "syncs.json", false, &errors);
    let later = load(dir, "later.jsonl", false, &errors);
    let feeds = load(dir, "feeds.json", false, &errors);
    let files = incoming(dir, &errors);

    let library =
        library.and_then(|text| Source::new("library.json", &text, &errors).whole().and_then(|n| read_library(&n)));
    let marketo =
        marketo.and_then(|text| Source::new("marketo.json", &text, &errors).whole().and_then(|n| read_marketo(&n)));
    let matches = matches.map(|text| Source::new("matches.jsonl", &text, &errors).each_line(read_match));
    let feeds = feeds.map(|text| Source::new("feeds.json", &text, &errors).whole().and_then(|n| read_feeds(&n)));
    let syncs = syncs
        .map(|text| Source::new("syncs.json", &text, &errors).whole().map(|n| n.each(read_sync)).unwrap_or_default());
    let later =
        later.map(|text| read_later(&Source::new("later.jsonl", &text, &errors), marketo.as_ref(), files.len()));

    let errors = errors.into_inner();
    match (library, marketo) {
        (Some(library), Some(marketo)) if errors.lines.is_empty() => Ok(World {
            library,
            marketo,
            matches: matches.unwrap_or_default(),
            feeds: feeds.flatten().unwrap_or_default(),
            syncs: syncs.unwrap_or_default(),
            files,
            later: later.unwrap_or_default(),
        }),
        _ => Err(errors),
    }
}

/// Writes a world as a data folder. The folder should be new or empty: files of another world are not taken out.
///
/// # Errors
/// What the file system says.
pub fn write(world: &World, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("incoming"))?;
    fs::write(dir.join("library.json"), serde_json::to_vec_pretty(&world.library)?)?;
    fs::write(dir.join("marketo.json"), serde_json::to_vec_pretty(&world.marketo)?)?;
    fs::write(dir.join("syncs.json"), serde_json::to_vec_pretty(&world.syncs)?)?;
    fs::write(dir.join("matches.jsonl"), json_lines(&world.matches)?)?;
    fs::write(dir.join("later.jsonl"), json_lines(&world.later)?)?;
    if !world.feeds.is_empty() {
        fs::write(dir.join("feeds.json"), serde_json::to_vec_pretty(&world.feeds)?)?;
    }
    for file in &world.files {
        let path = dir.join("incoming").join(&file.name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, &file.bytes)?;
    }
    Ok(())
}

fn json_lines<T: Serialize>(items: &[T]) -> io::Result<String> {
    let mut text = String::new();
    for item in items {
        text.push_str(&serde_json::to_string(item)?);
        text.push('\n');
    }
    Ok(text)
}

// ---- files -------------------------------------------------------------------------------------------------

fn load(dir: &Path, file: &str, required: bool, errors: &RefCell<Errors>) -> Option<String> {
    let found = match fs::read(dir.join(file)) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Some(text),
            Err(_) => "other bytes".to_owned(),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound && !required => return None,
        Err(e) if e.kind() == io::ErrorKind::NotFound => "none".to_owned(),
        Err(e) => format!("one that cannot be read ({})", e.kind()),
    };
    errors.borrow_mut().push(format!("{file}: expected a file of UTF-8 text, found {found}"));
    None
}

/// The files that will arrive, in order; those in a sub-folder are of the feed with that name. A file that is not for
/// us is kept: its import says so. Hidden files (`.gitkeep`, `.DS_Store`) are passed over.
fn incoming(dir: &Path, errors: &RefCell<Errors>) -> Vec<FeedFile> {
    let mut files = Vec::new();
    if dir.join("incoming").is_dir() {
        incoming_of(&dir.join("incoming"), "", &mut files, errors);
    } else {
        let fault = "incoming: expected a folder with the feeds' files (it may be empty), found none";
        errors.borrow_mut().push(fault.to_owned());
    }
    files.sort_by(|a, b| a.order().cmp(&b.order()));
    files
}

/// Those of a folder, whose names below `incoming/` begin with `above`, and of the folders in it.
fn incoming_of(folder: &Path, above: &str, files: &mut Vec<FeedFile>, errors: &RefCell<Errors>) {
    let fail = |what: &str| errors.borrow_mut().push(format!("incoming: expected {what}"));
    let Ok(entries) = fs::read_dir(folder) else {
        fail("folders that can be read, found another");
        return;
    };
    for entry in entries {
        let Some((name, path)) = entry.ok().and_then(|e| Some((e.file_name().into_string().ok()?, e.path()))) else {
            fail("files with names in UTF-8, found another name");
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            incoming_of(&path, &format!("{above}{name}/"), files, errors);
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => files.push(FeedFile::new(format!("{above}{name}"), bytes)),
            Err(e) => fail(&format!("files that can be read, found one that cannot ({})", e.kind())),
        }
    }
}

// ---- JSON with places --------------------------------------------------------------------------------------

/// One file's text, and where its faults go.
#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
    errors: &'a RefCell<Errors>,
}

impl<'a> Source<'a> {
    fn new(file: &'a str, text: &'a str, errors: &'a RefCell<Errors>) -> Self {
        Self { file, text, errors }
    }

    fn fault(&self, offset: usize, field: &str, expected: &str, found: &str) {
        let line = 1 + self.text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count();
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        self.errors.borrow_mut().push(format!("{}:{line}: {field}expected {expected}, found {found}", self.file));
    }

    fn offset(&self, part: &str) -> usize {
        part.as_ptr() as usize - self.text.as_ptr() as usize
    }

    fn parse(&self, part: &'a str) -> Option<Node<'a>> {
        match serde_json::from_str::<&RawValue>(part) {
            Ok(raw) => Some(Node { source: *self, raw, field: String::new() }),
            Err(e) => {
                let before: usize = part.split_inclusive('\n').take(e.line().saturating_sub(1)).map(str::len).sum();
                let found = format!("something else at column {}", e.column());
                self.fault(self.offset(part) + before, "", "valid JSON", &found);
                None
            }
        }
    }

    fn whole(&self) -> Option<Node<'a>> {
        self.parse(self.text)
    }

    /// Each line that is not blank, as an object.
    fn each_line<T>(&self, mut read: impl FnMut(&Node<'a>) -> Option<T>) -> Vec<T> {
        let lines = self.text.lines().filter(|line| !line.trim().is_empty());
        lines.filter_map(|line| self.parse(line).and_then(|node| read(&node))).collect()
    }
}

/// A JSON value that knows its place in the file.
struct Node<'a> {
    source: Source<'a>,
    raw: &'a RawValue,
    field: String,
}

impl<'a> Node<'a> {
    /// Records that something else was expected here; `None`, so that it can end a reader.
    fn expected<T>(&self, expected: &str) -> Option<T> {
        let found = match self.raw.get().as_bytes().first() {
            Some(b'"') => format!("a string of {} characters", self.text().map_or(0, |s| s.chars().count())),
            Some(b'{') => "an object".to_owned(),
            Some(b'[') => "an array".to_owned(),
            Some(b't' | b'f') => "a boolean".to_owned(),
            Some(b'n') => "null".to_owned(),
            _ => "a number".to_owned(),
        };
        self.wrong(expected, &found)
    }

    fn wrong<T>(&self, expected: &str, found: &str) -> Option<T> {
        self.source.fault(self.source.offset(self.raw.get()), &self.field, expected, found);
        None
    }

    fn text(&self) -> Option<String> {
        serde_json::from_str(self.raw.get()).ok()
    }

    fn fields(&self) -> Option<Fields<'_, 'a>> {
        match serde_json::from_str(self.raw.get()) {
            Ok(fields) => Some(Fields { node: self, fields }),
            Err(_) => self.expected("an object"),
        }
    }

    fn each<T>(&self, mut read: impl FnMut(&Node<'a>) -> Option<T>) -> Vec<T> {
        let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(self.raw.get()) else {
            self.expected::<()>("an array");
            return Vec::new();
        };
        let node = |(i, raw)| Node { source: self.source, raw, field: format!("{}[{i}]", self.field) };
        items.into_iter().enumerate().filter_map(|item| read(&node(item))).collect()
    }

    fn string(&self, expected: &str, good: impl Fn(&str) -> bool) -> Option<String> {
        match self.text().filter(|text| good(text)) {
            Some(text) => Some(text),
            None => self.expected(expected),
        }
    }

    fn id(&self) -> Option<u64> {
        match serde_json::from_str(self.raw.get()) {
            Ok(id) if id > 0 => Some(id),
            _ => self.expected("a positive integer"),
        }
    }

    fn new_id(&self, taken: &mut BTreeSet<u64>) -> Option<u64> {
        let id = self.id()?;
        if taken.insert(id) { Some(id) } else { self.wrong("an id that stands once", "one that stood before") }
    }

    fn new_uuid(&self, taken: &mut BTreeSet<String>) -> Option<String> {
        let id = self.string("a UUID in lower case", is_uuid)?;
        if taken.insert(id.clone()) { Some(id) } else { self.wrong("an id that stands once", "one that stood before") }
    }

    fn name(&self) -> Option<String> {
        self.string("a name", |s| !s.trim().is_empty())
    }

    fn bool(&self) -> Option<bool> {
        serde_json::from_str(self.raw.get()).ok().or_else(|| self.expected("true or false"))
    }

    fn ecid(&self) -> Option<String> {
        self.string("a string of 38 digits", is_ecid)
    }

    fn token(&self) -> Option<String> {
        self.string("a Munchkin token such as _mch-example.com-1700000000000-12345", is_token)
    }
}

/// The fields of an object. Those that nobody asks for are ignored.
struct Fields<'n, 'a> {
    node: &'n Node<'a>,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'_, 'a> {
    fn maybe(&self, name: &str) -> Option<Node<'a>> {
        let raw = *self.fields.get(name)?;
        let dot = if self.node.field.is_empty() { "" } else { "." };
        Some(Node { source: self.node.source, raw, field: format!("{}{dot}{name}", self.node.field) })
    }

    fn need(&self, name: &str) -> Option<Node<'a>> {
        self.maybe(name).or_else(|| self.node.wrong(&format!("the field \"{name}\""), "none"))
    }

    /// The items of an array that may be missing.
    fn each<T>(&self, name: &str, read: impl FnMut(&Node<'a>) -> Option<T>) -> Vec<T> {
        self.maybe(name).map(|node| node.each(read)).unwrap_or_default()
    }

    /// The items of an array that must be there.
    fn need_each<T>(&self, name: &str, read: impl FnMut(&Node<'a>) -> Option<T>) -> Vec<T> {
        self.need(name).map(|node| node.each(read)).unwrap_or_default()
    }

    fn one_of(&self, name: &str, words: [&str; 2]) {
        if let Some(node) = self.maybe(name) {
            node.string(&format!("\"{}\" or \"{}\"", words[0], words[1]), |s| words.contains(&s));
        }
    }
}

// ---- the files' shapes -------------------------------------------------------------------------------------

fn read_library(node: &Node<'_>) -> Option<Library> {
    let fields = node.fields()?;
    let mut parents = BTreeMap::new();
    fields.each("folders", |n| {
        let raw = |key| serde_json::from_str::<u64>(n.fields()?.fields.get(key)?.get()).ok();
        parents.insert(raw("folderId")?, raw("parentFolderId")?);
        Some(())
    });
    let mut taken = BTreeSet::new();
    let folders = fields.need_each("folders", |n| {
        let f = n.fields()?;
        let (id, parent, name) = (f.need("folderId"), f.need("parentFolderId"), f.need("name"));
        let (folder_id, name) = (id.and_then(|n| n.new_id(&mut taken)), name.and_then(|n| n.name()));
        let parent = parent.and_then(|n| match serde_json::from_str::<u64>(n.raw.get()) {
            Ok(parent) if reaches_root(parent, &parents) => Some(parent),
            Ok(_) => n.wrong("0 or the folderId of a folder that is not below this one", "another number"),
            Err(_) => n.expected("0 or the folderId of a folder"),
        });
        Some(Folder { folder_id: folder_id?, parent_folder_id: parent?, name: name? })
    });
    let mut taken = BTreeSet::new();
    let segments = fields.need_each("segments", |n| {
        let f = n.fields()?;
        let (sid, folder, name) = (f.need("sid"), f.need("folderId"), f.need("name"));
        let (sid, name) = (sid.and_then(|n| n.new_id(&mut taken)), name.and_then(|n| n.name()));
        let folder_id = folder.and_then(|n| match n.id()? {
            id if parents.contains_key(&id) => Some(id),
            _ => n.wrong("the folderId of a folder", "another number"),
        });
        Some(Segment { sid: sid?, folder_id: folder_id?, name: name? })
    });
    let mut taken = BTreeSet::new();
    let audiences = fields.each("audiences", |n| {
        let f = n.fields()?;
        let (id, name) = (f.need("id"), f.need("name"));
        let (id, name) = (id.and_then(|n| n.new_uuid(&mut taken)), name.and_then(|n| n.name()));
        let external = f.maybe("external").map_or(Some(false), |n| n.bool());
        Some(Audience { id: id?, name: name?, external: external? })
    });
    let mut taken = BTreeSet::new();
    let platform_folders = fields.each("platform_folders", |n| {
        let f = n.fields()?;
        // A folder stands after the one above it, so that no circle can be written.
        let parent = f.maybe("parentId").filter(|n| n.raw.get() != "null");
        let parent_id = match parent {
            None => Some(None),
            Some(n) => match n.text().filter(|id| taken.contains(id)) {
                Some(id) => Some(Some(id)),
                None => n.wrong("the id of a folder that stands above this one, or null", "something else"),
            },
        };
        let (id, name) = (f.need("id"), f.need("name"));
        let (id, name) = (id.and_then(|n| n.new_uuid(&mut taken)), name.and_then(|n| n.name()));
        Some(PlatformFolder { id: id?, parent_id: parent_id?, name: name? })
    });
    Some(Library { folders, segments, audiences, platform_folders })
}

/// Bodies of `PUT /feeds/{id}`, by id, as they stand. Whether they are right, the API says.
fn read_feeds(node: &Node<'_>) -> Option<BTreeMap<String, serde_json::Value>> {
    let fields = node.fields()?;
    for id in fields.fields.keys() {
        if let Some(body) = fields.maybe(id) {
            body.fields();
        }
    }
    serde_json::from_str(node.raw.get()).ok()
}

fn reaches_root(mut folder: u64, parents: &BTreeMap<u64, u64>) -> bool {
    for _ in 0..=parents.len() {
        match parents.get(&folder) {
            _ if folder == 0 => return true,
            Some(parent) => folder = *parent,
            None => return false,
        }
    }
    false
}

fn read_marketo(node: &Node<'_>) -> Option<MarketoData> {
    let fields = node.fields()?;
    let munchkin = "a Munchkin id such as 123-ABC-456";
    let munchkin_id = fields.need("munchkin_id").and_then(|n| n.string(munchkin, is_munchkin_id));
    let org = "24 digits or capital letters and @AdobeOrg, or null";
    let org_id = fields.maybe("org_id").filter(|n| n.raw.get() != "null").and_then(|n| n.string(org, is_org_id));
    let hipaa_ready = fields.maybe("hipaa_ready").and_then(|n| n.bool()).unwrap_or(false);
    let cookie_sync = fields.maybe("cookie_sync").and_then(|n| n.bool()).unwrap_or(true);
    let mut ids = BTreeSet::new();
    let leads = fields.need_each("leads", |n| read_lead(n, Some(&mut ids)));
    let (mut list_ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    let lists = fields.each("lists", |n| {
        let f = n.fields()?;
        let (id, name) = (f.need("id"), f.need("name"));
        let id = id.and_then(|n| n.new_id(&mut list_ids));
        let name = name.and_then(|n| match n.name()? {
            name if names.insert(name.clone()) => Some(name),
            _ => n.wrong("a name that no other list has", "one that stood before"),
        });
        let members = f.each("members", |n| match n.id()? {
            id if ids.contains(&id) => Some(id),
            _ => n.wrong("the id of a lead in leads", "another number"),
        });
        Some(List { id: id?, name: name?, members: members.into_iter().collect() })
    });
    Some(MarketoData { munchkin_id: munchkin_id?, org_id, hipaa_ready, cookie_sync, leads, lists })
}

/// A lead; with `taken`, its id must be new.
fn read_lead(node: &Node<'_>, taken: Option<&mut BTreeSet<u64>>) -> Option<Lead> {
    let f = node.fields()?;
    let id = f.need("id").and_then(|n| taken.map_or_else(|| n.id(), |taken| n.new_id(taken)));
    let email = f.maybe("email").filter(|n| n.raw.get() != "null");
    let email = email.and_then(|n| n.string("an email address or null", |s| s.contains('@')));
    let (cookies, ecids) = (f.each("cookies", Node::token), f.each("ecids", Node::ecid));
    Some(Lead { id: id?, email, cookies, ecids })
}

fn read_match(node: &Node<'_>) -> Option<Match> {
    let f = node.fields()?;
    let (ecid, token, seen_at) = (f.need("ecid"), f.need("token"), f.need("seen_at"));
    let (ecid, token) = (ecid.and_then(|n| n.ecid()), token.and_then(|n| n.token()));
    let time = "a time such as 2026-11-01T00:00:00Z (RFC 3339)";
    let seen_at = seen_at.and_then(|n| n.string(time, |s| s.parse::<jiff::Timestamp>().is_ok()));
    Some(Match { ecid: ecid?, token: token?, seen_at: seen_at? })
}

/// What an audience's id is.
const AUDIENCE: &str = "aam: and the sid of a segment, such as aam:101, or aep: and the id of an audience";

fn is_audience(text: &str) -> bool {
    text.strip_prefix("aam:").is_some_and(is_positive) || text.strip_prefix("aep:").is_some_and(is_uuid)
}

/// A body of `POST /syncs`, as it stands. Whether audience and list exist, the API says.
fn read_sync(node: &Node<'_>) -> Option<serde_json::Value> {
    let f = node.fields()?;
    f.need("audience_id").and_then(|n| n.string(AUDIENCE, is_audience));
    if let Some(list) = f.need("list")
        && let Some(l) = list.fields()
    {
        match (l.maybe("id"), l.maybe("name")) {
            (Some(id), None) => drop(id.id()),
            (None, Some(name)) => drop(name.name()),
            (Some(_), Some(_)) => list.wrong::<()>("either id or name", "both").unwrap_or_default(),
            (None, None) => list.wrong::<()>("either id or name", "neither").unwrap_or_default(),
        }
        l.maybe("folder_id").and_then(|n| n.id());
    }
    f.one_of("leaving", ["remove", "keep"]);
    f.one_of("members_before", ["keep", "adopt"]);
    f.one_of("start", ["now", "report_only"]);
    serde_json::from_str(node.raw.get()).ok()
}

fn read_later(source: &Source<'_>, marketo: Option<&MarketoData>, files: usize) -> Vec<Later> {
    let expected = format!("the number of a file, 1 to {files}");
    let mut later = source.each_line(|node| {
        let f = node.fields()?;
        let after_file = f.need("after_file").and_then(|n| match n.id()? {
            number if number <= files as u64 => usize::try_from(number).ok(),
            _ => n.wrong(&expected, "a larger number"),
        });
        let kinds = ["lead", "match", "merge", "delete", "stream"];
        let events: Vec<_> = kinds.iter().filter_map(|kind| Some((*kind, f.maybe(kind)?))).collect();
        let [(kind, what)] = events.as_slice() else {
            return node.wrong("exactly one of lead, match, merge, delete and stream", &events.len().to_string());
        };
        let event = match *kind {
            "lead" => Event::Lead(read_lead(what, None)?),
            "match" => Event::Match(read_match(what)?),
            "delete" => Event::Delete(what.id()?),
            "stream" => Event::Stream(read_streamed(what)?),
            _ => read_merge(what)?,
        };
        let place = Node { source: *source, raw: what.raw, field: what.field.clone() };
        Some((Later { after_file: after_file?, event }, place))
    });
    later.sort_by_key(|(later, _)| later.after_file);
    if let Some(marketo) = marketo {
        check_leads(marketo, &later);
    }
    later.into_iter().map(|(later, _)| later).collect()
}

/// What a stream says of one membership. Whether the audience exists, its receiver says.
fn read_streamed(node: &Node<'_>) -> Option<Streamed> {
    let f = node.fields()?;
    let audience = f.need("audience").and_then(|n| match serde_json::from_str::<u64>(n.raw.get()) {
        Ok(sid) => Some(format!("aam:{sid}")),
        Err(_) => n.string(AUDIENCE, is_audience),
    });
    let ecid = f.need("ecid").and_then(|n| n.ecid());
    let member = f.need("member").and_then(|n| n.bool());
    Some(Streamed { audience: audience?, ecid: ecid?, member: member? })
}

/// Marketo gives no id twice, and nothing happens to a lead that is not there.
fn check_leads(marketo: &MarketoData, later: &[(Later, Node<'_>)]) {
    let mut there: BTreeSet<u64> = marketo.leads.iter().map(|lead| lead.id).collect();
    let mut gone = BTreeSet::<u64>::new();
    for (later, place) in later {
        let (named, leaving): (Vec<u64>, &[u64]) = match &later.event {
            Event::Match(_) | Event::Stream(_) => continue,
            Event::Lead(lead) => {
                if gone.contains(&lead.id) {
                    place.wrong::<()>("a lead that was not deleted or merged before", "one that was");
                }
                there.insert(lead.id);
                continue;
            }
            Event::Delete(lead) => (vec![*lead], std::slice::from_ref(lead)),
            Event::Merge { winner, losers } => (losers.iter().chain([winner]).copied().collect(), losers),
        };
        if !named.iter().all(|id| there.contains(id)) {
            place.wrong::<()>("ids of leads that are there at that time", "another number");
        }
        there.retain(|id| !leaving.contains(id));
        gone.extend(leaving);
    }
}

fn read_merge(node: &Node<'_>) -> Option<Event> {
    let f = node.fields()?;
    let winner = f.need("winner").and_then(|n| n.id());
    let losers = f.need_each("losers", |n| match n.id()? {
        id if Some(id) == winner => n.wrong("another lead than the winner", "the winner"),
        id => Some(id),
    });
    Some(Event::Merge { winner: winner?, losers })
}

fn is_positive(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0') && text.parse::<u64>().is_ok()
}

/// A UUID in lower case.
fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// `AAA-BBB-CCC`: three digits, three capital letters, three digits.
fn is_munchkin_id(text: &str) -> bool {
    text.len() == 11
        && text.bytes().enumerate().all(|(i, b)| match i {
            3 | 7 => b == b'-',
            4..=6 => b.is_ascii_uppercase(),
            _ => b.is_ascii_digit(),
        })
}

fn is_org_id(text: &str) -> bool {
    text.strip_suffix("@AdobeOrg")
        .is_some_and(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()))
}

/// `_mch-<domain>-<13 digits>-<1 to 5 digits>` or `_mch-<domain>-<30 to 32 hex digits>`; the domain may hold
/// hyphens, so it is read from the right.
fn is_token(text: &str) -> bool {
    let digits =
        |s: &str, len: std::ops::RangeInclusive<usize>| len.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    let hex = |s: &str| (30..=32).contains(&s.len()) && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let Some((rest, last)) = text.strip_prefix("_mch-").and_then(|rest| rest.rsplit_once('-')) else { return false };
    let classic = || rest.rsplit_once('-').is_some_and(|(domain, ms)| !domain.is_empty() && digits(ms, 13..=13));
    (hex(last) && !rest.is_empty()) || (digits(last, 1..=5) && classic())
}

#[cfg(test)]
mod tests;
