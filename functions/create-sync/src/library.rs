//! The audience library: folders and audiences of Audience Manager and of Experience Platform, in one tree. Their ids
//! carry the source: `aam:12`, `aep:<id>`.

use std::collections::{BTreeMap, BTreeSet};

use adobe::{Audience, PlatformFolder};
use domain::said::Said;
use domain::{AudienceId, OrgId};
use ports::{Failure, Read, Table};
use serde_json::{Value, json};
use state::audience::{Head, head_key};
use state::syncs::Subscription;
use state::{Deps, doc, time};

use crate::paging::Paging;
use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

const AUDIENCE_MANAGER: &str = "Audience Manager";
const PLATFORM: &str = "Experience Platform";
/// The folder that all of Experience Platform stands in. The second: Audience Manager, where it does not answer.
const PLATFORM_TOP: &str = "aep:root";
const MANAGER_TOP: &str = "aam:root";

/// The library that an audience is of.
pub(crate) fn origin(audience: &AudienceId) -> &'static str {
    if audience.uuid().is_some() { PLATFORM } else { AUDIENCE_MANAGER }
}

/// The organisation whose Experience Platform is browsed, if the deployment uses it.
fn organisation<'a>(deps: &Deps, subscription: Option<&'a Subscription>) -> Option<&'a OrgId> {
    subscription?.org_id.as_ref().filter(|_| adobe::is_used(deps))
}

/// `GET /folders`. Where both are used, one that does not answer does not hide the other.
pub(crate) async fn folders(deps: &Deps, subscription: Option<&Subscription>) -> Answer<Value> {
    let row = |id: String, parent: Option<String>, name: &str, origin: &str| json!({"id": id, "parent_id": parent, "name": name, "origin": origin});
    // Stands for a whole library that does not answer.
    let away = |id: &str, library: &str| json!({"id": id, "parent_id": null, "name": library, "origin": library, "unreachable": true});
    let mut rows = Vec::new();
    let org = organisation(deps, subscription);
    let manager = adobe::folders(deps).await;
    match (manager, org) {
        (Ok(folders), _) => rows.extend(folders.iter().map(|folder| {
            let parent = folder.parent_id.map(|parent| format!("aam:{parent}"));
            row(format!("aam:{}", folder.id), parent, &folder.name, AUDIENCE_MANAGER)
        })),
        (Err(failure), None) => return Err(failure.into()),
        (Err(failure), Some(_)) => {
            unreachable_now(&failure, AUDIENCE_MANAGER);
            rows.push(away(MANAGER_TOP, AUDIENCE_MANAGER));
        }
    }
    let Some(org) = org else { return Ok(Value::Array(rows)) };
    match adobe::aep_folders(deps, org).await {
        Ok(folders) => {
            rows.push(row(PLATFORM_TOP.into(), None, PLATFORM, PLATFORM));
            rows.extend(folders.iter().map(|folder| {
                let parent =
                    folder.parent_id.as_ref().map_or_else(|| PLATFORM_TOP.to_owned(), |id| format!("aep:{id}"));
                row(format!("aep:{}", folder.id), Some(parent), &folder.name, PLATFORM)
            }));
        }
        Err(failure) => {
            unreachable_now(&failure, PLATFORM);
            rows.push(away(PLATFORM_TOP, PLATFORM));
        }
    }
    Ok(Value::Array(rows))
}

fn unreachable_now(failure: &Failure, library: &str) {
    tracing::warn!(reason = %failure, library, "a part of the audience library is not shown");
}

/// An audience of either library.
struct Listed {
    id: AudienceId,
    name: String,
    description: String,
}

impl Listed {
    /// The order of the rows, which are of one library: numbers by their size.
    fn key(&self) -> String {
        self.id.sid().map_or_else(|| self.id.uuid().unwrap_or_default().to_owned(), |sid| format!("{sid:020}"))
    }
}

/// `GET /folders/{id}/audiences`: by id. A bare number is a folder of Audience Manager.
pub(crate) async fn audiences(
    deps: &Deps,
    subscription: &Subscription,
    folder: &str,
    request: &Request,
) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let mut listed = match folder.split_once(':') {
        None => in_manager(deps, folder).await?,
        Some(("aam", id)) => in_manager(deps, id).await?,
        Some(("aep", id)) => in_platform(deps, subscription, id).await?,
        Some(_) => return Err(no_folder("Adobe")),
    };
    listed.sort_by_cached_key(Listed::key);
    let (listed, next) = paging.of(listed, Listed::key);
    let munchkin = &subscription.munchkin_id;
    let keys: Vec<_> = listed.iter().map(|audience| head_key(munchkin, &audience.id)).collect();
    let items = deps.ports.tables.batch_get(Table::Audiences, &keys, Read::Eventual).await;
    let mut heads = BTreeMap::new();
    for item in items.map_err(Failure::from)? {
        let head: Head = doc::read(item)?.value;
        heads.insert(head.audience.clone(), head);
    }
    let rows = listed.iter().map(|audience| {
        let head = heads.get(&audience.id);
        json!({
            "audience_id": audience.id,
            "name": audience.name,
            "description": audience.description,
            "origin": origin(&audience.id),
            "delivered": head.is_some(),
            "size": head.and_then(|head| head.base.as_ref()).map(|base| base.count),
            "delivered_at": head.map(|head| time(head.delivered_at)),
        })
    });
    Ok(paging.answer(request, rows.collect(), next))
}

fn no_folder(library: &str) -> Problem {
    let detail = format!("{library} has no folder with this id; GET /folders lists them");
    Problem::new(404, Said::new("folder_unknown", detail).with("library", library))
}

async fn in_manager(deps: &Deps, folder: &str) -> Answer<Vec<Listed>> {
    // Shown while Audience Manager does not answer: then this says why.
    let folder = if folder == "root" { Some(0) } else { folder.parse().ok() };
    let folder: u64 = folder.ok_or_else(|| no_folder(AUDIENCE_MANAGER))?;
    let mut segments = adobe::segments(deps).await?;
    segments.retain(|segment| segment.folder_id == folder);
    if segments.is_empty() && folder != 0 && !adobe::folders(deps).await?.iter().any(|known| known.id == folder) {
        return Err(no_folder(AUDIENCE_MANAGER));
    }
    let listed = |segment: adobe::Segment| {
        let adobe::Segment { sid, name, description, .. } = segment;
        Listed { id: AudienceId::aam(sid), name, description }
    };
    Ok(segments.into_iter().map(listed).collect())
}

async fn in_platform(deps: &Deps, subscription: &Subscription, folder: &str) -> Answer<Vec<Listed>> {
    let Some(org) = organisation(deps, Some(subscription)) else {
        return Err(Problem::new(404, not_used(subscription)));
    };
    let top = folder == "root";
    let folders = match adobe::aep_folders(deps, org).await {
        Ok(folders) => folders,
        // The folders are another service: without it everything stands at the top.
        Err(failure) if top => {
            unreachable_now(&failure, PLATFORM);
            Vec::new()
        }
        Err(failure) => return Err(failure.into()),
    };
    let mine = folders.iter().find(|known| known.id == folder);
    if !top && mine.is_none() {
        return Err(no_folder(PLATFORM));
    }
    let placed: BTreeSet<&AudienceId> = folders.iter().flat_map(|folder| &folder.audiences).collect();
    let is_here = |audience: &Audience| {
        let named = |folder: &PlatformFolder| folder.audiences.contains(&audience.id);
        // Where no folder names it, nobody knows where it is.
        mine.map_or_else(|| !placed.contains(&audience.id), named)
    };
    let found = adobe::audiences(deps, org).await?;
    let found = found.into_iter().filter(|audience| audience.published && is_here(audience));
    Ok(found.map(|Audience { id, name, description, .. }| Listed { id, name, description }).collect())
}

fn not_used(subscription: &Subscription) -> Said {
    if subscription.org_id.is_none() {
        Said::new("org_missing", "no IMS organisation is mapped to this Marketo subscription")
    } else {
        let detail = "Experience Platform is not set up here: name its sandbox with the parameter AdobeAepSandbox";
        Said::new("platform_not_set_up", detail)
    }
}

/// What Adobe calls an audience; a problem where there is no such one.
pub(crate) async fn name(deps: &Deps, subscription: &Subscription, audience: &AudienceId) -> Answer<String> {
    let library = origin(audience);
    let found = match audience.sid() {
        Some(sid) => adobe::segment(deps, sid).await?.map(|segment| segment.name),
        None => match organisation(deps, Some(subscription)) {
            None => return Err(Problem::at(422, "/audience_id", not_used(subscription))),
            Some(org) => adobe::audience(deps, org, audience).await?.map(|audience| audience.name),
        },
    };
    let what = if audience.uuid().is_some() { "audience" } else { "segment" };
    found.ok_or_else(|| {
        let detail = format!("{library} has no {what} for {audience}; GET /folders/{{id}}/audiences lists them");
        let said = Said::new("audience_unknown", detail).with("library", library).with("audience", json!(audience));
        Problem::at(422, "/audience_id", said)
    })
}
