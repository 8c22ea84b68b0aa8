//! Experience Platform. Where the deployment names no sandbox it is not used: then nothing is asked, and everything is
//! empty.

use std::collections::{BTreeSet, VecDeque};

use domain::{AudienceId, OrgId};
use serde_json::Value;
use state::{Deps, Step};

use crate::ims::{self, Api};
use crate::{number, text};

/// An audience of Experience Platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// `aep:<uuid>`.
    pub id: AudienceId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Whether it stands in the library: it is published, or nothing is said about that. Drafts, inactive and archived
    /// ones do not.
    pub published: bool,
}

impl Audience {
    fn read(row: &Value) -> Option<Self> {
        let lifecycle = [&row["lifecycleState"], &row["lifecycle"]].into_iter().find_map(Value::as_str);
        Some(Self {
            id: AudienceId::aep(row["id"].as_str()?)?,
            name: text(&row["name"]),
            description: text(&row["description"]),
            published: lifecycle.is_none_or(|state| state.eq_ignore_ascii_case("published")),
        })
    }
}

/// A folder of Experience Platform's audiences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformFolder {
    /// Adobe's id.
    pub id: String,
    /// The folder above; `None` at the top.
    pub parent_id: Option<String>,
    /// Its name.
    pub name: String,
    /// Audiences that it names as its own. Adobe documents no other way from an audience to its folder, and not this
    /// one for certain.
    pub audiences: BTreeSet<AudienceId>,
}

/// Audiences of one page. The example of Adobe's guide; it documents no maximum.
const PAGE: u64 = 100;
/// Folders that are read, each with a call of its own. Ours: what an answer within 30 s has time for.
const FOLDERS_MOST: usize = 100;
/// Adobe's name of the folder above all.
const ROOT: &str = "root";

/// Whether the deployment uses Experience Platform.
#[must_use]
pub fn is_used(deps: &Deps) -> bool {
    !deps.settings.aep_sandbox.is_empty()
}

/// All audiences, whatever their state of life.
///
/// Pages are followed by what the answer names as next (text or number), else by its link, else by how many rows there
/// were; never further than the total, and never onto a page that brings nothing new.
pub async fn audiences(deps: &Deps, org: &OrgId) -> Step<Vec<Audience>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    if !is_used(deps) {
        return Ok(found);
    }
    let mut start = 0;
    loop {
        let path = format!("/data/core/ups/audiences?start={start}&limit={PAGE}&sort=updateTime:desc");
        let answer = get(deps, org, Api::Platform, &path).await?;
        let answer = answer.ok_or_else(|| ims::not_there(Api::Platform))?;
        // An answer of another shape is not an empty library: whatever it names would be taken for deleted.
        let rows = answer["children"].as_array().ok_or_else(|| ims::unreadable(Api::Platform))?;
        let before = seen.len();
        for row in rows {
            if seen.insert(text(&row["id"])) {
                found.extend(Audience::read(row));
            }
        }
        let (all, read) = (number(&answer["_page"]["totalCount"]), seen.len() as u64);
        if read == before as u64 || all.is_some_and(|all| read >= all) {
            return Ok(found);
        }
        // A total that is not reached says that there is more, although no next page is named.
        let more = all.map(|_| start + rows.len() as u64);
        match next(&answer).or(more).filter(|next| *next > start) {
            Some(next) => start = next,
            None => return Ok(found),
        }
    }
}

/// Where the next page starts, as the answer says it.
fn next(answer: &Value) -> Option<u64> {
    number(&answer["_page"]["next"]).or_else(|| {
        let link = &answer["_links"]["next"];
        let (_, query) = link["href"].as_str().or(link.as_str())?.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == "start")?.1.parse().ok()
    })
}

/// One audience, whatever its state of life; `None`: Experience Platform has none with this id, or is not used.
pub async fn audience(deps: &Deps, org: &OrgId, id: &AudienceId) -> Step<Option<Audience>> {
    let Some(uuid) = id.uuid() else { return Ok(None) };
    if !is_used(deps) {
        return Ok(None);
    }
    let answer = get(deps, org, Api::Platform, &format!("/data/core/ups/audiences/{uuid}")).await?;
    let Some(answer) = answer else { return Ok(None) };
    Audience::read(&answer).map(Some).ok_or_else(|| ims::unreadable(Api::Platform))
}

/// All folders, parents before their children. The folder above all is not among them.
pub async fn aep_folders(deps: &Deps, org: &OrgId) -> Step<Vec<PlatformFolder>> {
    let mut found: Vec<PlatformFolder> = Vec::new();
    if !is_used(deps) {
        return Ok(found);
    }
    let mut seen = BTreeSet::new();
    let mut waiting = VecDeque::from([ROOT.to_owned()]);
    let mut calls = 0;
    while let Some(id) = waiting.pop_front() {
        calls += 1;
        if calls > FOLDERS_MOST {
            tracing::warn!(folders = found.len(), "Experience Platform has more folders than are shown");
            break;
        }
        let path = format!("/unifiedfolders/folders/segment/{}/subfolders", escaped(&id));
        let answer = get(deps, org, Api::Folders, &path).await?;
        let answer = match answer {
            Some(answer) => answer,
            None if id == ROOT => return Err(ims::not_there(Api::Folders)),
            // Deleted meanwhile.
            None => continue,
        };
        // The folder itself with its children, or the bare children.
        let children = answer["children"].as_array().or(answer.as_array()).map_or(&[][..], Vec::as_slice);
        let parent_id = (id != ROOT).then_some(id);
        take(children, parent_id.as_deref(), &mut seen, &mut found, &mut waiting);
    }
    Ok(found)
}

/// Takes in what stands in a folder: folders, and audiences by their ids.
fn take(
    children: &[Value],
    parent: Option<&str>,
    seen: &mut BTreeSet<String>,
    found: &mut Vec<PlatformFolder>,
    waiting: &mut VecDeque<String>,
) {
    for child in children {
        if let Some(id) = named_audience(child) {
            if let Some(folder) = found.iter_mut().find(|folder| Some(folder.id.as_str()) == parent) {
                folder.audiences.insert(id);
            }
        } else if let Some(id) = child["id"].as_str().filter(|id| !id.is_empty() && *id != ROOT)
            && seen.insert(id.to_owned())
        {
            let name = text(&child["name"]);
            let parent_id = parent.map(str::to_owned);
            found.push(PlatformFolder { id: id.to_owned(), parent_id, name, audiences: BTreeSet::new() });
            waiting.push_back(id.to_owned());
            let below = child["children"].as_array().map_or(&[][..], Vec::as_slice);
            take(below, Some(id), seen, found, waiting);
        }
    }
}

/// The audience that a folder's child is, if it is one: its bare id, or what Adobe calls no folder.
fn named_audience(child: &Value) -> Option<AudienceId> {
    match child {
        Value::String(id) => AudienceId::aep(id),
        child if child["namespace"].is_string() || child["audienceId"].is_string() => {
            AudienceId::aep(child["id"].as_str()?)
        }
        _ => None,
    }
}

/// A folder's id as a part of a path.
fn escaped(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect()
}

async fn get(deps: &Deps, org: &OrgId, api: Api, path: &str) -> Step<Option<Value>> {
    let headers = [("x-gw-ims-org-id", org.as_str()), ("x-sandbox-name", deps.settings.aep_sandbox.as_str())];
    ims::get(deps, api, path, &headers).await
}
