//! Static lists as assets, and the folders they lie in.

use serde::Deserialize;

use super::{Answer, ListState, Marketo, Outcome, Refusal, page_size};
use crate::wire::{Params, iso, parse_time, push_json};

/// The folder of the database's lists.
pub const GROUP_LISTS: u64 = 12;

/// A folder of the asset tree.
struct Folder {
    id: u64,
    parent: u64,
    name: &'static str,
    kind: &'static str,
    path: &'static str,
    system: bool,
}

/// Folders do not change here: they are browsed, not made.
const FOLDERS: [Folder; 6] = [
    Folder { id: 10, parent: 10, name: "Lead Database", kind: "Zone", path: "/Lead Database", system: true },
    Folder { id: 11, parent: 10, name: "Default", kind: "Zone", path: "/Lead Database/Default", system: true },
    Folder {
        id: GROUP_LISTS,
        parent: 11,
        name: "Group Lists",
        kind: "List",
        path: "/Lead Database/Default/Group Lists",
        system: true,
    },
    Folder {
        id: 31,
        parent: GROUP_LISTS,
        name: "Audiences",
        kind: "List",
        path: "/Lead Database/Default/Group Lists/Audiences",
        system: false,
    },
    Folder {
        id: 32,
        parent: GROUP_LISTS,
        name: "Events",
        kind: "List",
        path: "/Lead Database/Default/Group Lists/Events",
        system: false,
    },
    Folder { id: 41, parent: 11, name: "Emails", kind: "Email", path: "/Lead Database/Default/Emails", system: true },
];

/// Rows of a page unless asked otherwise, and at most.
const PAGE: (usize, usize) = (20, 200);
const NAME_CHARACTERS: usize = 255;

#[derive(Deserialize)]
struct FolderRef {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
}

impl Marketo {
    pub(super) fn asset_create(&mut self, now: u64, params: &Params<'_>) -> Outcome {
        let folder = folder_ref(params.filled("folder").ok_or_else(|| Refusal::new(701, "folder cannot be blank"))?)?;
        let folder = FOLDERS
            .iter()
            .find(|known| known.id == folder)
            .ok_or_else(|| Refusal::new(710, "Parent folder not found"))?;
        if folder.kind != "List" {
            return Err(Refusal::new(711, "Incorrect folder type"));
        }
        let name = self.free_name(params.filled("name"), None)?;
        let description = params.get("description").unwrap_or_default().to_owned();
        let id = self.insert_list(now, name, description, folder.id, super::default_workspace());
        Ok(self.asset_get(id))
    }

    /// Somebody makes an empty list in Marketo itself, where several may have one name. Its id is returned. A
    /// folder that is none of the tree can be browsed by its own id only.
    pub fn make_list(&mut self, now_ms: u64, name: &str, folder: u64, workspace: &str) -> u64 {
        let now = self.advance(now_ms);
        self.insert_list(now, name.to_owned(), String::new(), folder, workspace.to_owned())
    }

    fn insert_list(&mut self, now: u64, name: String, description: String, folder: u64, workspace: String) -> u64 {
        let id = self.state.next_list;
        self.state.next_list += 1;
        self.lists_by_name.entry(name.clone()).or_default().insert(id);
        let members = std::collections::BTreeSet::new();
        let list = ListState { name, description, folder, workspace, created_ms: now, updated_ms: now, members };
        self.state.lists.insert(id, list);
        id
    }

    fn forget_name(&mut self, id: u64, name: &str) {
        if let Some(ids) = self.lists_by_name.get_mut(name) {
            ids.remove(&id);
            if ids.is_empty() {
                self.lists_by_name.remove(name);
            }
        }
    }

    pub(super) fn asset_update(&mut self, now: u64, id: u64, params: &Params<'_>) -> Outcome {
        if !self.state.lists.contains_key(&id) {
            return Ok(self.nothing());
        }
        let name = match params.get("name") {
            None => None,
            Some(name) => Some(self.free_name(Some(name), Some(id))?),
        };
        let description = params.get("description").map(str::to_owned);
        let Some(list) = self.state.lists.get_mut(&id) else { return Ok(self.nothing()) };
        list.description = description.unwrap_or_else(|| list.description.clone());
        list.updated_ms = now;
        if let Some(name) = name {
            let before = std::mem::replace(&mut list.name, name.clone());
            self.forget_name(id, &before);
            self.lists_by_name.entry(name).or_default().insert(id);
        }
        Ok(self.asset_get(id))
    }

    pub(super) fn asset_delete(&mut self, id: u64) -> Answer {
        let Some(list) = self.state.lists.remove(&id) else { return self.nothing() };
        self.forget_name(id, &list.name);
        self.state.gone_lists.insert(id, list.name);
        self.assets(&[format!("{{\"id\":{id}}}")])
    }

    pub(super) fn asset_get(&mut self, id: u64) -> Answer {
        let rows: Vec<String> = self.state.lists.get(&id).map(|list| row(id, list)).into_iter().collect();
        self.assets(&rows)
    }

    /// Of several lists with one name only the first is shown. A name with a comma is never found: the vendor's
    /// search cannot.
    pub(super) fn asset_by_name(&mut self, params: &Params<'_>) -> Outcome {
        let name = params.filled("name").ok_or_else(|| Refusal::missing("name"))?;
        let ids = self.lists_by_name.get(name).filter(|_| !name.contains(','));
        Ok(match ids.and_then(|ids| ids.first().copied()) {
            None => self.nothing(),
            Some(id) => self.asset_get(id),
        })
    }

    pub(super) fn asset_browse(&mut self, params: &Params<'_>) -> Outcome {
        let folder = params.filled("folder").map(folder_ref).transpose()?;
        let time = |name: &str| match params.filled(name) {
            None => Ok(None),
            Some(text) => parse_time(text).map(Some).ok_or_else(|| Refusal(704, format!("Bad date in '{name}'"))),
        };
        let (earliest, latest) = (time("earliestUpdatedAt")?, time("latestUpdatedAt")?);
        let lists = self.state.lists.iter();
        let lists = lists.filter(|(_, list)| folder.is_none_or(|folder| is_within(list.folder, folder)));
        let lists = lists.filter(|(_, list)| earliest.is_none_or(|at| list.updated_ms >= at));
        let lists = lists.filter(|(_, list)| latest.is_none_or(|at| list.updated_ms <= at));
        let (offset, size) = page(params)?;
        let rows: Vec<String> = lists.skip(offset).take(size).map(|(id, list)| row(*id, list)).collect();
        Ok(self.assets(&rows))
    }

    pub(super) fn folders(&mut self, params: &Params<'_>) -> Outcome {
        let root = params.filled("root").map_or(Ok(FOLDERS[0].id), folder_ref)?;
        let depth = page_size(params, "maxDepth", 2, FOLDERS.len())?;
        let (offset, size) = page(params)?;
        let found = FOLDERS.iter().filter(|folder| depth_below(folder.id, root).is_some_and(|below| below <= depth));
        let rows: Vec<String> = found.skip(offset).take(size).map(folder_row).collect();
        Ok(self.assets(&rows))
    }

    pub(super) fn folder_by_name(&mut self, params: &Params<'_>) -> Outcome {
        let name = params.filled("name").ok_or_else(|| Refusal::missing("name"))?;
        let rows: Vec<String> = FOLDERS.iter().filter(|folder| folder.name == name).map(folder_row).collect();
        Ok(self.assets(&rows))
    }

    pub(super) fn folder(&mut self, id: u64) -> Answer {
        let rows: Vec<String> = FOLDERS.iter().filter(|folder| folder.id == id).map(folder_row).collect();
        self.assets(&rows)
    }

    fn free_name(&self, name: Option<&str>, of: Option<u64>) -> Result<String, Refusal> {
        let name = name.map(str::trim).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Refusal::new(701, "name cannot be blank"))?;
        if name.chars().count() > NAME_CHARACTERS {
            return Err(Refusal(701, format!("name cannot be longer than {NAME_CHARACTERS} characters")));
        }
        if self.lists_by_name.get(name).is_some_and(|ids| ids.iter().any(|id| Some(*id) != of)) {
            return Err(Refusal::new(self.settings.taken_name_code, "Static List with the same name already exists"));
        }
        Ok(name.to_owned())
    }

    /// Nothing found: no `result` at all, but a warning.
    fn nothing(&mut self) -> Answer {
        self.success(r#""errors":[],"warnings":["No assets found for the given search criteria."]"#)
    }

    fn assets(&mut self, rows: &[String]) -> Answer {
        if rows.is_empty() {
            return self.nothing();
        }
        self.success(&format!("\"errors\":[],\"warnings\":[],\"result\":[{}]", rows.join(",")))
    }
}

/// `{"id":12,"type":"Folder"}`.
fn folder_ref(text: &str) -> Result<u64, Refusal> {
    let folder: FolderRef = serde_json::from_str(text).map_err(|_| Refusal::new(1001, "Invalid value for folder"))?;
    if !folder.kind.eq_ignore_ascii_case("folder") {
        return Err(Refusal::new(711, "Incorrect folder type"));
    }
    Ok(folder.id)
}

fn page(params: &Params<'_>) -> Result<(usize, usize), Refusal> {
    let size = page_size(params, "maxReturn", PAGE.0, PAGE.1)?;
    match params.filled("offset").map(str::parse::<usize>) {
        None => Ok((0, size)),
        Some(Ok(offset)) => Ok((offset, size)),
        Some(Err(_)) => Err(Refusal::new(1001, "Invalid value for parameter 'offset'")),
    }
}

/// How many steps a folder lies below another; 0: it is that folder.
fn depth_below(mut id: u64, root: u64) -> Option<usize> {
    for depth in 0..FOLDERS.len() {
        if id == root {
            return FOLDERS.iter().any(|folder| folder.id == root).then_some(depth);
        }
        id = FOLDERS.iter().find(|folder| folder.id == id)?.parent;
    }
    None
}

fn is_within(id: u64, root: u64) -> bool {
    id == root || depth_below(id, root).is_some()
}

/// The odd date of the asset API.
fn asset_date(ms: u64) -> String {
    format!("{}+0000", iso(ms))
}

fn row(id: u64, list: &ListState) -> String {
    let mut out = format!("{{\"id\":{id},\"name\":");
    push_json(&mut out, &list.name);
    if !list.description.is_empty() {
        out.push_str(",\"description\":");
        push_json(&mut out, &list.description);
    }
    let (created, updated, folder) = (asset_date(list.created_ms), asset_date(list.updated_ms), list.folder);
    let mut workspace = String::new();
    push_json(&mut workspace, &list.workspace);
    out.push_str(&format!(
        r#","createdAt":"{created}","updatedAt":"{updated}","folder":{{"id":{folder},"type":"Folder"}},"workspace":{workspace},"computedUrl":"https://app-xxxx.marketo.com/#ST{id}A1"}}"#
    ));
    out
}

fn folder_row(folder: &Folder) -> String {
    let Folder { id, parent, name, kind, path, system } = folder;
    format!(
        r#"{{"name":"{name}","folderId":{{"id":{id},"type":"Folder"}},"folderType":"{kind}","parent":{{"id":{parent},"type":"Folder"}},"path":"{path}","isArchive":false,"isSystem":{system},"accessZoneId":1,"workspace":"Default","id":{id}}}"#
    )
}
