//! What Experience Platform's JSON says of a profile, in files and in messages alike.

use domain::Ecid;
use domain::said::Saying;
use domain::sayings::{PROFILE_MEMBERSHIP, PROFILE_NOT_A_TEXT, PROFILE_NOT_AN_ECID};
use serde_json::Value;

use crate::aam::ecid_of;

/// Most entries (ECIDs times memberships) of one profile, and of one message. Ours; Experience Platform keeps 50 identities
/// of a profile and allows 250 audiences of a destination (Adobe, "Guardrails"), and sends at most 10 profiles at once.
pub(crate) const ENTRIES_MAX: usize = 125_000;

/// A member of an object, without regard to case.
pub(crate) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let object = object.as_object()?;
    object.get(name).or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// The ECIDs of a profile's identity map, whatever the case of their namespace.
pub(crate) fn of_map(profile: &Value) -> Vec<Result<Ecid, Saying>> {
    let mut found = Vec::new();
    for (namespace, ids) in member(profile, "identityMap").and_then(Value::as_object).into_iter().flatten() {
        if namespace.eq_ignore_ascii_case("ecid") {
            collect(ids, &mut found);
        }
    }
    found
}

/// The ECIDs in a text, in an object's `id`, or in a list of these.
pub(crate) fn collect(value: &Value, found: &mut Vec<Result<Ecid, Saying>>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| collect_one(one, found)),
        one => collect_one(one, found),
    }
}

fn collect_one(value: &Value, found: &mut Vec<Result<Ecid, Saying>>) {
    match value.get("id").unwrap_or(value) {
        Value::String(text) => found.push(ecid_of(text.trim().as_bytes()).ok_or(PROFILE_NOT_AN_ECID)),
        Value::Number(_) => found.push(Err(PROFILE_NOT_A_TEXT)),
        Value::Null => {}
        _ => found.push(Err(PROFILE_NOT_AN_ECID)),
    }
}

/// The entries of a profile's segment membership, of all namespaces: the audience's id as it stands there, and the entry.
/// `None`: the profile tells no membership at all.
pub(crate) fn memberships(profile: &Value) -> Option<Result<Vec<(&str, &Value)>, Saying>> {
    let membership = member(profile, "segmentMembership").filter(|membership| !membership.is_null())?;
    let Some(namespaces) = membership.as_object() else { return Some(Err(PROFILE_MEMBERSHIP)) };
    let mut all = Vec::new();
    for entries in namespaces.values() {
        match entries {
            Value::Object(entries) => all.extend(entries.iter().map(|(id, entry)| (id.as_str(), entry))),
            Value::Null => {}
            _ => return Some(Err(PROFILE_MEMBERSHIP)),
        }
    }
    Some(Ok(all))
}
