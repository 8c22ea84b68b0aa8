//! What becomes of the bodies in `syncs.json`: which of them the API accepts, and the list that each then feeds.

use std::collections::BTreeMap;

use crate::World;

/// A sync that was accepted and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// `aam:<sid>` or `aep:<id>`.
    pub audience: String,
    /// The list, old or new.
    pub list: u64,
    /// `leaving` is `keep`.
    pub keep: bool,
    /// `members_before` is `adopt`.
    pub adopt: bool,
}

/// The syncs that run, in order. A body is passed over if the API refuses it (a prerequisite of the subscription,
/// an unknown audience or list, a taken name, the same audience twice on a list) or if it only reports, for then
/// nothing is written. A new list gets the id above the highest so far.
#[must_use]
pub fn accepted(world: &World) -> Vec<Accepted> {
    let m = &world.marketo;
    let mut lists: BTreeMap<u64, &str> = m.lists.iter().map(|l| (l.id, l.name.as_str())).collect();
    let mut accepted: Vec<Accepted> = Vec::new();
    if m.hipaa_ready || !m.cookie_sync || m.org_id.is_none() {
        return accepted;
    }
    for body in world.syncs.iter().filter(|body| body["start"] != "report_only") {
        let audience = body["audience_id"].as_str().unwrap_or_default();
        let mut segments = world.library.segments.iter();
        let known = match audience.strip_prefix("aep:") {
            Some(id) => world.library.audiences.iter().any(|audience| audience.id == id),
            None => segments.any(|segment| format!("aam:{}", segment.sid) == audience),
        };
        if !known {
            continue;
        }
        let (id, name) = (body["list"]["id"].as_u64(), body["list"]["name"].as_str());
        let list = match (id.filter(|id| lists.contains_key(id)), name) {
            (Some(id), None) => id,
            (None, Some(name)) if !lists.values().any(|taken| *taken == name) => {
                let id = lists.keys().max().map_or(1, |id| id + 1);
                lists.insert(id, name);
                id
            }
            _ => continue,
        };
        if accepted.iter().all(|sync| (sync.audience.as_str(), sync.list) != (audience, list)) {
            let (keep, adopt) = (body["leaving"] == "keep", body["members_before"] == "adopt");
            accepted.push(Accepted { audience: audience.to_owned(), list, keep, adopt });
        }
    }
    accepted
}
