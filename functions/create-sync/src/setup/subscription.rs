//! What was declared about the Marketo instance. Nobody can be asked about it: these rows repeat what was said.

use serde_json::json;
use state::syncs::Subscription;

use super::{About, Area, Row};

const OPERATOR: &str = "Operator of audience-sync";
const SETTINGS: &str = "Settings, or PUT /subscription";
const SAID: &str = "what was declared with PUT /subscription";

const SUBSCRIPTION: About =
    About { code: "subscription", area: Area::Subscription, title: "Marketo instance", who: OPERATOR, place: SETTINGS };
const HIPAA: About =
    About { code: "hipaa", area: Area::Subscription, title: "HIPAA mark", who: OPERATOR, place: SETTINGS };
const ORGANISATION: About = About {
    code: "ims_organisation",
    area: Area::Subscription,
    title: "IMS organisation",
    who: "Marketo administrator, who is an administrator of the organisation too",
    place: "Marketo: Admin > Integration > Adobe Organization Mapping; then here: Settings, or PUT /subscription",
};
const COOKIE_SYNC: About = About {
    code: "cookie_sync",
    area: Area::Subscription,
    title: "Cookie sync",
    who: "Marketo administrator",
    place: "Marketo: Admin > Integration > Adobe Organization Mapping; then here: Settings, or PUT /subscription",
};

/// There is no subscription.
pub(super) fn nobody() -> Row {
    SUBSCRIPTION.not_ok(
        "none",
        SAID,
        "No Marketo instance is set up, so that Marketo, feeds and pages cannot be looked at. Say which it is.",
    )
}

pub(super) fn rows(subscription: &Subscription) -> Vec<Row> {
    let Subscription { munchkin_id, org_id, hipaa_ready, cookie_sync, .. } = subscription;
    let means = format!("The Marketo instance {munchkin_id} is set up.");
    let instance = SUBSCRIPTION.ok("set_up", SAID, means).with("munchkin_id", json!(munchkin_id));
    let hipaa = if *hipaa_ready {
        let means = "The instance is marked HIPAA-ready: this integration must not be used with it. Nothing is taken in, no \
                     list is written, and Marketo is not asked anything.";
        HIPAA.not_ok("marked", SAID, means)
    } else {
        let means = "The instance is said not to be HIPAA-ready. Marketo does not tell: whoever set this up must know.";
        HIPAA.ok("not_marked", SAID, means)
    };
    let organisation = match org_id {
        Some(org) => {
            let means = "This organisation is said to be mapped to the instance: its ECIDs are the ones that count.";
            ORGANISATION.ok("mapped", SAID, means).with("org_id", json!(org))
        }
        None => {
            let means = "No IMS organisation is mapped to the instance: no match is taken, and no sync can be created.";
            ORGANISATION.not_ok("not_mapped", SAID, means)
        }
    };
    let cookies = if *cookie_sync {
        COOKIE_SYNC.ok("on", SAID, "Cookie sync is said to be on: browsers are matched with people.")
    } else {
        let means = "Cookie sync is off: no new browser is matched with a person, so that lists do not grow.";
        COOKIE_SYNC.not_ok("off", SAID, means)
    };
    vec![instance, hipaa, organisation, cookies]
}
