//! Which endpoint a request is for.

use http::{Method, Request};
use serde::{Deserialize, Serialize};

use super::{Refusal, exports};
use crate::wire::Params;

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `/identity/oauth/token`.
    Token,
    /// Leads by filter.
    Leads,
    /// One lead by id.
    Lead,
    /// Searchable fields (`describe2`).
    Describe,
    /// The lists of one lead.
    ListsOfLead,
    /// Add to a list.
    ListAdd,
    /// Remove from a list.
    ListRemove,
    /// Ask who is in a list.
    IsMember,
    /// Read a list's members.
    Members,
    /// Query lists.
    Lists,
    /// One list by id.
    List,
    /// Create a static list.
    AssetCreate,
    /// Browse static lists.
    AssetBrowse,
    /// A static list by name.
    AssetByName,
    /// A static list by id.
    AssetGet,
    /// Change name or description.
    AssetUpdate,
    /// Delete a static list.
    AssetDelete,
    /// Browse folders.
    Folders,
    /// A folder by name.
    FolderByName,
    /// A folder by id.
    Folder,
    /// A paging token for activities.
    PagingToken,
    /// Activities.
    Activities,
    /// Deleted leads.
    DeletedLeads,
    /// Calls of today.
    Usage,
    /// Calls of the last seven days.
    UsageWeek,
    /// Errors of today.
    Errors,
    /// Errors of the last seven days.
    ErrorsWeek,
    /// Create an export.
    ExportCreate,
    /// Put an export into the queue.
    ExportEnqueue,
    /// How an export stands.
    ExportStatus,
    /// An export's file.
    ExportFile,
    /// Cancel an export.
    ExportCancel,
    /// Load a file of leads into a list.
    ImportCreate,
    /// How an import stands.
    ImportStatus,
    /// Rows of an import that failed.
    ImportFailures,
    /// Rows of an import that were taken with a warning.
    ImportWarnings,
    /// No such endpoint, or not with this method.
    Unknown,
}

/// An endpoint with the number in its path, and whether its parameters stand in a form body as well.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) form: bool,
}

/// The endpoint, or the code for one that is not there.
pub(super) fn target_of(request: &Request<Vec<u8>>) -> Result<Target, (Kind, Refusal)> {
    let path = request.uri().path();
    let mut method = request.method();
    let mut form = false;
    // A POST that stands for a GET whose URI would be too long: on the lead database only.
    if method == Method::POST
        && path.starts_with("/rest/v1/")
        && Params::of_query(request.uri().query()).get("_method").is_some_and(|given| given == "GET")
    {
        method = &Method::GET;
        form = true;
    }
    let not_found = || (Kind::Unknown, Refusal::new(610, "Requested resource not found"));
    let number = |text: &str| text.parse::<u64>().map_err(|_| not_found());
    let last = |text: &str| number(text.strip_suffix(".json").unwrap_or("-"));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let get = method == Method::GET;
    let post = method == Method::POST;
    let (kind, id) = match parts.as_slice() {
        ["identity", "oauth", "token"] if get || post => {
            form = post;
            (Kind::Token, 0)
        }
        ["rest", "v1", rest @ ..] => match rest {
            ["leads.json"] if get => (Kind::Leads, 0),
            ["lead", id] if get => (Kind::Lead, last(id)?),
            ["leads", "describe2.json"] if get => (Kind::Describe, 0),
            ["leads", id, "listMembership.json"] if get => (Kind::ListsOfLead, number(id)?),
            ["lists" | "list", id, "leads.json"] => match *method {
                Method::GET => (Kind::Members, number(id)?),
                Method::POST => (Kind::ListAdd, number(id)?),
                Method::DELETE => (Kind::ListRemove, number(id)?),
                _ => return Err(not_supported()),
            },
            ["lists", id, "leads", "ismember.json"] if get => (Kind::IsMember, number(id)?),
            ["lists.json"] if get => (Kind::Lists, 0),
            ["lists", id] if get => (Kind::List, last(id)?),
            ["activities", "pagingtoken.json"] if get => (Kind::PagingToken, 0),
            ["activities.json"] if get => (Kind::Activities, 0),
            ["activities", "deletedleads.json"] if get => (Kind::DeletedLeads, 0),
            ["stats", "usage.json"] if get => (Kind::Usage, 0),
            ["stats", "usage", "last7days.json"] if get => (Kind::UsageWeek, 0),
            ["stats", "errors.json"] if get => (Kind::Errors, 0),
            ["stats", "errors", "last7days.json"] if get => (Kind::ErrorsWeek, 0),
            ["leads.json" | "lists.json" | "activities.json"]
            | ["lead" | "lists", _]
            | ["leads", "describe2.json"]
            | ["leads", _, "listMembership.json"]
            | ["lists", _, "leads", "ismember.json"]
            | ["activities", "pagingtoken.json" | "deletedleads.json"]
            | ["stats", "usage.json" | "errors.json"]
            | ["stats", "usage" | "errors", "last7days.json"] => return Err(not_supported()),
            _ => return Err(not_found()),
        },
        ["rest", "asset", "v1", rest @ ..] => match rest {
            ["staticLists.json"] if get => (Kind::AssetBrowse, 0),
            ["staticLists.json"] if post => {
                form = true;
                (Kind::AssetCreate, 0)
            }
            ["staticList", "byName.json"] if get => (Kind::AssetByName, 0),
            ["staticList", id, "delete.json"] if post => (Kind::AssetDelete, number(id)?),
            ["staticList", id] if get => (Kind::AssetGet, last(id)?),
            ["staticList", id] if post => {
                form = true;
                (Kind::AssetUpdate, last(id)?)
            }
            ["folders.json"] if get => (Kind::Folders, 0),
            ["folder", "byName.json"] if get => (Kind::FolderByName, 0),
            ["folder", id] if get => (Kind::Folder, last(id)?),
            ["staticLists.json" | "folders.json"] | ["staticList" | "folder", _] | ["staticList", _, "delete.json"] => {
                return Err(not_supported());
            }
            _ => return Err(not_found()),
        },
        ["bulk", "v1", "leads.json"] if post => (Kind::ImportCreate, 0),
        ["bulk", "v1", "leads", "batch", id] if get => (Kind::ImportStatus, last(id)?),
        ["bulk", "v1", "leads", "batch", id, "failures.json"] if get => (Kind::ImportFailures, number(id)?),
        ["bulk", "v1", "leads", "batch", id, "warnings.json"] if get => (Kind::ImportWarnings, number(id)?),
        ["bulk", "v1", "leads.json"]
        | ["bulk", "v1", "leads", "batch", _]
        | ["bulk", "v1", "leads", "batch", _, "failures.json" | "warnings.json"] => return Err(not_supported()),
        ["bulk", "v1", "leads", "export", rest @ ..] => match rest {
            ["create.json"] if post => (Kind::ExportCreate, 0),
            [id, "enqueue.json"] if post => (Kind::ExportEnqueue, exports::number_of(id).ok_or_else(not_found)?),
            [id, "cancel.json"] if post => (Kind::ExportCancel, exports::number_of(id).ok_or_else(not_found)?),
            [id, "status.json"] if get => (Kind::ExportStatus, exports::number_of(id).ok_or_else(not_found)?),
            [id, "file.json"] if get => (Kind::ExportFile, exports::number_of(id).ok_or_else(not_found)?),
            ["create.json"] | [_, "enqueue.json" | "cancel.json" | "status.json" | "file.json"] => {
                return Err(not_supported());
            }
            _ => return Err(not_found()),
        },
        _ => return Err(not_found()),
    };
    Ok(Target { kind, id, form })
}

fn not_supported() -> (Kind, Refusal) {
    (Kind::Unknown, Refusal::new(605, "HTTP method not supported"))
}
