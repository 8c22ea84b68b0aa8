//! Experience Platform: its audiences and folders by REST, and the profiles that are in them.

use std::collections::{BTreeMap, BTreeSet};

use ::world::types::{Audience, PlatformFolder};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Adobe, is_ecid};
use crate::wire::Params;

/// Rows of a page unless asked otherwise, once there is any parameter.
const PAGE: usize = 100;
/// Id of the folder that holds all others.
const ROOT: &str = "00000000-0000-4000-8000-000000000000";

/// How far an audience's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Not in use yet.
    Draft,
    /// In use: what an audience is at first.
    Published,
    /// Not in use any more.
    Inactive,
    /// Put away.
    Archived,
}

/// One person as Experience Platform sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// In the order in which they were learnt.
    pub(super) ecids: Vec<String>,
    /// By the audience's id.
    pub(super) audiences: BTreeMap<String, Membership>,
}

/// Whether a profile is in an audience, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    pub(super) inside: bool,
    /// `lastQualificationTime`, in ms.
    pub(super) since_ms: u64,
    /// When the profile first came into the audience, in ms.
    pub(super) first_ms: u64,
}

impl Profile {
    /// Every audience that it is in, for a destination that was told nothing so far.
    pub(super) fn news(&self) -> BTreeMap<String, bool> {
        let inside = self.audiences.iter().filter(|(_, membership)| membership.inside);
        inside.map(|(id, _)| (id.clone(), false)).collect()
    }
}

impl Adobe {
    /// Gives a profile another ECID; it is made if it is new. All ECIDs of a profile share its audiences. `false`: not
    /// 38 digits.
    pub fn add_ecid(&mut self, time_ms: u64, profile: u64, ecid: &str) -> bool {
        self.seen(time_ms);
        if !is_ecid(ecid) {
            return false;
        }
        let about = self.state.profiles.entry(profile).or_default();
        if !about.ecids.iter().any(|known| known == ecid) {
            about.ecids.push(ecid.to_owned());
            self.touch(profile);
        }
        true
    }

    /// Puts a profile into an audience, or takes it out; a profile that is new has no ECID. `false`: no such audience.
    pub fn set_profile(&mut self, time_ms: u64, profile: u64, audience: &str, member: bool) -> bool {
        let time_ms = self.seen(time_ms);
        if !self.has_audience(audience) {
            return false;
        }
        let audiences = &mut self.state.profiles.entry(profile).or_default().audiences;
        let was = audiences.get(audience).is_some_and(|membership| membership.inside);
        if was != member {
            let first_ms = audiences.get(audience).map_or(time_ms, |membership| membership.first_ms);
            audiences.insert(audience.to_owned(), Membership { inside: member, since_ms: time_ms, first_ms });
            for untold in self.state.destinations.values_mut() {
                untold.audiences.entry(profile).or_default().entry(audience.to_owned()).or_insert(was);
            }
        }
        true
    }

    /// Writes an attribute of a profile, with the same value or another: streams tell it once more.
    pub fn touch(&mut self, profile: u64) {
        self.state.destinations.values_mut().for_each(|untold| _ = untold.touched.insert(profile));
    }

    /// The profiles that have an ECID.
    #[must_use]
    pub fn profiles_of(&self, ecid: &str) -> Vec<u64> {
        let having = self.state.profiles.iter().filter(|(_, about)| about.ecids.iter().any(|known| known == ecid));
        having.map(|(profile, _)| *profile).collect()
    }

    /// A number that no profile has.
    #[must_use]
    pub fn new_profile(&self) -> u64 {
        self.state.profiles.keys().next_back().map_or(1, |last| last + 1)
    }

    /// The ECIDs of all profiles that are in an audience: what a destination ought to know.
    #[must_use]
    pub fn audience_members(&self, audience: &str) -> BTreeSet<String> {
        let profiles = self.state.profiles.values();
        let inside = profiles.filter(|about| about.audiences.get(audience).is_some_and(|membership| membership.inside));
        inside.flat_map(|about| about.ecids.iter().cloned()).collect()
    }

    /// A new audience. `false`: its id is taken.
    pub fn add_audience(&mut self, time_ms: u64, audience: Audience) -> bool {
        let new = !self.has_audience(&audience.id);
        if new {
            self.audience_edited(time_ms, &audience.id);
            self.state.library.audiences.push(audience);
        }
        new
    }

    /// Another name for an audience. `false`: no such audience.
    pub fn rename_audience(&mut self, time_ms: u64, id: &str, name: &str) -> bool {
        let found = self.state.library.audiences.iter_mut().find(|audience| audience.id == id);
        let found = found.map(|audience| name.clone_into(&mut audience.name)).is_some();
        if found {
            self.audience_edited(time_ms, id);
        }
        found
    }

    /// Moves an audience on in its life. `false`: no such audience.
    pub fn set_lifecycle(&mut self, time_ms: u64, id: &str, lifecycle: Lifecycle) -> bool {
        let found = self.has_audience(id);
        if found {
            self.state.lifecycles.insert(id.to_owned(), lifecycle);
            self.audience_edited(time_ms, id);
        }
        found
    }

    /// Takes an audience away: it is 404 and in no listing, and no file or message names it any more. `false`: no such
    /// audience.
    pub fn delete_audience(&mut self, id: &str) -> bool {
        let found = self.has_audience(id);
        self.state.library.audiences.retain(|audience| audience.id != id);
        self.state.profiles.values_mut().for_each(|about| _ = about.audiences.remove(id));
        for untold in self.state.destinations.values_mut() {
            untold.audiences.values_mut().for_each(|audiences| _ = audiences.remove(id));
        }
        found
    }

    /// From now on every call of Experience Platform's library answers 403 with this code, such as `UPAPI-113740`
    /// (external audiences are off) or `UPAPI-113752` (no access to their labels); `None`: no more.
    pub fn refuse_platform(&mut self, code: Option<&str>) {
        self.platform_refuses = code.map(str::to_owned);
    }

    pub(super) fn has_audience(&self, id: &str) -> bool {
        self.state.library.audiences.iter().any(|audience| audience.id == id)
    }

    fn audience_edited(&mut self, time_ms: u64, id: &str) {
        let time_ms = self.seen(time_ms);
        self.state.edited.insert(id.to_owned(), time_ms);
    }

    /// `GET /data/core/ups/audiences…` and `/unifiedfolders/folders/segment/…`
    pub(super) fn platform(&self, request: &Request<Vec<u8>>, params: &Params<'_>) -> Response<Vec<u8>> {
        let org = match self.organisation(request) {
            Ok(org) => org,
            Err(refused) => return *refused,
        };
        if let Some(code) = &self.platform_refuses {
            return problem(StatusCode::FORBIDDEN, code, "Access is denied");
        }
        match request.uri().path().trim_end_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["", "data", "core", "ups", "audiences"] => self.audiences(org, params),
            ["", "data", "core", "ups", "audiences", id] => {
                let found = self.state.library.audiences.iter().find(|audience| audience.id == *id);
                match found {
                    Some(audience) => answer(&self.audience(org, audience)),
                    None => problem(StatusCode::NOT_FOUND, "UPAPI-113703", "The audience was not found"),
                }
            }
            ["", "unifiedfolders", "folders", "segment", id] => self.folder(org, id, false),
            ["", "unifiedfolders", "folders", "segment", id, "subfolders"] => self.folder(org, id, true),
            _ => problem(StatusCode::NOT_FOUND, "404", "Not found"),
        }
    }

    /// The organisation of a call, or the answer to one that does not name it or the sandbox.
    fn organisation<'r>(&self, request: &'r Request<Vec<u8>>) -> Result<&'r str, Box<Response<Vec<u8>>>> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let refuse = |status, code: &str, message: &str| Err(Box::new(problem(status, code, message)));
        let Some(org) = header("x-gw-ims-org-id") else {
            return refuse(StatusCode::BAD_REQUEST, "400", "The header x-gw-ims-org-id is required");
        };
        let is_org = org
            .strip_suffix("@AdobeOrg")
            .is_some_and(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()));
        if !is_org || self.settings.org_id.as_ref().is_some_and(|known| known != org) {
            return refuse(StatusCode::FORBIDDEN, "403", "The organisation is not known");
        }
        match header("x-sandbox-name") {
            None => refuse(StatusCode::BAD_REQUEST, "400", "The header x-sandbox-name is required"),
            Some(sandbox) if sandbox != self.settings.sandbox => {
                refuse(StatusCode::FORBIDDEN, "403", "The sandbox is not known")
            }
            Some(_) => Ok(org),
        }
    }

    /// A page; without any parameter, everything. `start` counts pages, as the guide's sample shows: of three
    /// audiences with two a page, the next page is `1`.
    fn audiences(&self, org: &str, params: &Params<'_>) -> Response<Vec<u8>> {
        let number = |name: &str, default: usize| match params.filled(name) {
            None => Some(default),
            Some(text) => text.parse::<usize>().ok(),
        };
        let (Some(start), Some(limit @ 1..)) = (number("start", 0), number("limit", PAGE)) else {
            return problem(StatusCode::BAD_REQUEST, "400", "start and limit must be numbers");
        };
        let mut found: Vec<&Audience> = self.state.library.audiences.iter().collect();
        if let Some(property) = params.filled("property") {
            let Some(id) = property.strip_prefix("audienceId==") else {
                return problem(StatusCode::BAD_REQUEST, "400", "property must be audienceId==X");
            };
            found.retain(|audience| audience.id == id);
        }
        if let Some(name) = params.filled("name") {
            found.retain(|audience| audience.name == name);
        }
        if let Some(sort) = params.filled("sort") {
            let (field, order) = sort.split_once(':').unwrap_or((sort, "asc"));
            match field {
                "name" => found.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id))),
                "updateTime" => found.sort_by_key(|audience| (self.updated(audience), audience.id.as_str())),
                _ => return problem(StatusCode::BAD_REQUEST, "400", "sort must be name or updateTime"),
            }
            match order {
                "asc" => {}
                "desc" => found.reverse(),
                _ => return problem(StatusCode::BAD_REQUEST, "400", "sort must end in :asc or :desc"),
            }
        }
        let total = found.len();
        let everything = ["start", "limit", "sort", "property", "name"].iter().all(|name| params.get(name).is_none());
        let limit = if everything { total.max(1) } else { limit };
        let children: Vec<Value> = found
            .iter()
            .skip(start.saturating_mul(limit))
            .take(limit)
            .map(|audience| self.audience(org, audience))
            .collect();
        let mut page = json!({"totalCount": total, "pageSize": children.len()});
        let mut links = json!({});
        if start.saturating_add(1).saturating_mul(limit) < total {
            let next = start + 1;
            page["next"] = if self.settings.openapi { json!(next) } else { json!(next.to_string()) };
            links["next"] = json!({"href": format!("@/audiences?start={next}&limit={limit}&totalCount={total}")});
        }
        answer(&json!({"children": children, "_page": page, "_links": links}))
    }

    fn updated(&self, audience: &Audience) -> u64 {
        self.state.edited.get(&audience.id).copied().unwrap_or(self.state.created_ms)
    }

    fn audience(&self, org: &str, audience: &Audience) -> Value {
        let Audience { id, name, external } = audience;
        let (created, updated) = (self.state.created_ms, self.updated(audience));
        let lifecycle = self.state.lifecycles.get(id).copied().unwrap_or(Lifecycle::Published);
        let mut shown = json!({
            "id": id, "audienceId": id, "schema": {"name": "_xdm.context.profile"}, "profileInstanceId": "ups",
            "imsOrgId": org, "isSystem": false, "name": name, "description": "",
            "sandbox": {"sandboxId": ROOT, "sandboxName": self.settings.sandbox, "type": "production", "default": true},
            // The samples bear microseconds where an audience was brought in.
            "creationTime": if *external { created * 1_000 } else { created },
            "createEpoch": created / 1_000, "updateTime": updated, "updateEpoch": updated / 1_000,
            "_etag": format!("\"{updated:x}\""), "dependents": [], "dependencies": [], "labels": ["core/C1"],
            "dataGovernancePolicy": {"excludeOptOut": true}, "ttlInDays": 60,
        });
        let word = if self.settings.openapi { "lifecycle" } else { "lifecycleState" };
        shown[word] = json!(lifecycle);
        let rest = if *external {
            json!({"type": "ExternalSegment", "originName": "CUSTOM_UPLOAD", "namespace": "CustomerAudienceUpload"})
        } else {
            json!({
                "type": "SegmentDefinition", "originName": "REAL_TIME_CUSTOMER_PROFILE", "namespace": "AEPSegments",
                "expression": {"type": "PQL", "format": "pql/text", "value": "workAddress.country = \"US\""},
                "mergePolicyId": "99999999-8888-4777-8666-555555555555",
                "evaluationInfo": {"batch": {"enabled": false}, "continuous": {"enabled": true},
                    "synchronous": {"enabled": false}},
            })
        };
        for (field, value) in rest.as_object().into_iter().flatten() {
            shown[field] = value.clone();
        }
        shown
    }

    /// A folder, with those in it if `below`.
    fn folder(&self, org: &str, id: &str, below: bool) -> Response<Vec<u8>> {
        let root = PlatformFolder { id: ROOT.to_owned(), parent_id: None, name: "root".to_owned() };
        let folders = &self.state.library.platform_folders;
        let folder = match id {
            "root" | ROOT => Some(&root),
            id => folders.iter().find(|folder| folder.id == id),
        };
        let Some(folder) = folder else {
            return problem(StatusCode::NOT_FOUND, "404", "The folder was not found");
        };
        let mut shown = self.folder_alone(org, folder);
        if below || !self.settings.openapi {
            let inside = folders.iter().filter(|other| other.parent_id.as_deref().unwrap_or(ROOT) == folder.id);
            let inside = inside.map(|child| {
                let mut shown = self.folder_alone(org, child);
                shown["children"] = json!([]);
                shown
            });
            shown["children"] = inside.collect();
        }
        answer(&shown)
    }

    fn folder_alone(&self, org: &str, folder: &PlatformFolder) -> Value {
        let parent = if folder.id == ROOT { None } else { Some(folder.parent_id.as_deref().unwrap_or(ROOT)) };
        json!({
            "id": folder.id, "name": folder.name, "noun": "segment", "parentId": parent, "imsOrg": org,
            "sandboxId": ROOT, "sandboxName": self.settings.sandbox, "createdBy": null, "modifiedBy": null,
            "createdAt": crate::wire::iso(self.state.created_ms), "modifiedAt": crate::wire::iso(self.state.created_ms),
            "status": "IN_USE", "_links": {"self": {"href": format!("/folders/segment/{}", folder.id)}},
        })
    }
}

fn answer(body: &Value) -> Response<Vec<u8>> {
    super::json(StatusCode::OK, body.to_string())
}

/// A refusal as Experience Platform words it.
fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Vec<u8>> {
    let kind = format!("http://ns.adobe.com/aep/errors/{code}");
    let body = json!({"type": kind, "title": detail, "status": status.as_u16(), "error_code": code, "detail": detail});
    super::json(status, body.to_string())
}
