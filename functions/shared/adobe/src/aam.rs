//! Audience Manager.

use std::collections::BTreeSet;

use domain::AudienceId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::{Deps, Step};

use crate::ims::{self, Api};
use crate::{number, text};

/// A folder of Audience Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Adobe's id.
    pub id: u64,
    /// The folder above; `None` at the top.
    pub parent_id: Option<u64>,
    /// Its name.
    pub name: String,
}

/// A segment: an audience of Audience Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Adobe's id; the audience is `aam:<sid>`.
    pub sid: u64,
    /// Its folder.
    pub folder_id: u64,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
}

impl Segment {
    fn read(row: &Value) -> Option<Self> {
        // A number that no audience's id can hold would be written into rows that nobody can read again.
        let sid = number(&row["sid"]).filter(|sid| AudienceId::parse(AudienceId::aam(*sid).as_str()).is_some())?;
        Some(Self {
            sid,
            folder_id: number(&row["folderId"]).unwrap_or(0),
            name: text(&row["name"]),
            description: text(&row["description"]),
        })
    }
}

/// Segments of one page. Adobe documents no maximum; its default is 10.
const PAGE: usize = 500;

/// All segments, each once. Pages are followed until one brings nothing new: a service that does not know our parameters, or
/// counts otherwise than it shows, would answer for ever.
pub async fn segments(deps: &Deps) -> Step<Vec<Segment>> {
    let (mut found, mut read, mut seen) = (Vec::new(), 0, BTreeSet::new());
    for page in 0.. {
        let answer = get(deps, &format!("/v1/segments/?page={page}&pageSize={PAGE}")).await?;
        let answer = answer.ok_or_else(|| ims::not_there(Api::AudienceManager))?;
        let rows = rows(&answer).ok_or_else(|| ims::unreadable(Api::AudienceManager))?;
        read += rows.len();
        let before = seen.len();
        found.extend(rows.iter().filter_map(Segment::read).filter(|segment| seen.insert(segment.sid)));
        // A page may hold fewer rows than we asked for: where the answer tells how many there are, that counts.
        let whole = number(&answer["total"]).map_or(rows.len() < PAGE, |total| read as u64 >= total);
        // A bare array is everything at once, whatever was asked.
        if answer.is_array() || seen.len() == before || whole {
            break;
        }
    }
    Ok(found)
}

/// One segment; `None`: Audience Manager has none with this id.
pub async fn segment(deps: &Deps, sid: u64) -> Step<Option<Segment>> {
    let Some(answer) = get(deps, &format!("/v1/segments/{sid}")).await? else { return Ok(None) };
    Segment::read(&answer).map(Some).ok_or_else(|| ims::unreadable(Api::AudienceManager))
}

/// All folders of segments, parents before their children.
pub async fn folders(deps: &Deps) -> Step<Vec<Folder>> {
    let answer = get(deps, "/v1/folders/segments/").await?;
    let answer = answer.ok_or_else(|| ims::not_there(Api::AudienceManager))?;
    let mut found = Vec::new();
    let mut waiting: Vec<&Value> = match &answer {
        Value::Object(object) if object.contains_key("folderId") => vec![&answer],
        other => rows(other).ok_or_else(|| ims::unreadable(Api::AudienceManager))?.iter().rev().collect(),
    };
    while let Some(folder) = waiting.pop() {
        let Some(id) = number(&folder["folderId"]) else { continue };
        let parent_id = number(&folder["parentFolderId"]).filter(|parent| *parent != 0 && *parent != id);
        found.push(Folder { id, parent_id, name: text(&folder["name"]) });
        waiting.extend(folder["subFolders"].as_array().into_iter().flatten().rev());
    }
    Ok(found)
}

async fn get(deps: &Deps, path: &str) -> Step<Option<Value>> {
    ims::get(deps, Api::AudienceManager, path, &[]).await
}

/// The rows of a bare array, or of an object that wraps one.
fn rows(answer: &Value) -> Option<&[Value]> {
    match answer {
        Value::Array(rows) => Some(rows),
        Value::Object(object) => object.values().find_map(Value::as_array).map(Vec::as_slice),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_and_wrapped_answers_have_the_same_rows() {
        let bare = serde_json::json!([{"sid": 1}]);
        let wrapped = serde_json::json!({"total": 1, "page": 0, "list": [{"sid": 1}]});
        assert_eq!(rows(&bare), rows(&wrapped));
        assert_eq!(rows(&serde_json::json!({"message": "try again"})), None, "which is not an empty library");
    }
}
