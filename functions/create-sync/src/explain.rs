//! Why somebody is in a list, or is not: the chain from the browser to the list, and its first link that is missing.
//! Nothing is written, and nobody is named in the answer but by Marketo's ids.

mod chain;
mod missing;

use std::collections::BTreeMap;

use domain::{AudienceId, LeadId};
use serde_json::{Value, json};
use state::syncs::{Status, Subscription, Sync, syncs};
use state::{Deps, Step, time};

use crate::create::door;
use crate::people::subject;
use crate::places::{Place, Places};
use crate::problem::Answer;
use crate::routes::Request;

use chain::{Browser, Chain, Match, Person};
use missing::Stood;

/// `POST /explain`.
pub(crate) async fn explain(
    deps: &Deps,
    subscription: &Subscription,
    request: &Request,
    deadline: u64,
) -> Answer<Value> {
    let munchkin = &subscription.munchkin_id;
    let body = request.json()?;
    if !body["email"].is_null() {
        // Marketo is asked about it.
        door(subscription)?;
    }
    let (name, subject) = subject(deps, munchkin, &body, deadline).await?;
    let syncs: Vec<Sync> = syncs(deps, munchkin).await?.into_iter().map(|sync| sync.value).collect();
    let followed: BTreeMap<AudienceId, String> = syncs
        .iter()
        .filter(|sync| sync.follows() || sync.status == Status::Creating)
        .map(|sync| (sync.audience.clone(), sync.audience_name.clone()))
        .collect();
    let chain = Chain::of(deps, munchkin, &subject, &followed).await?;
    let mut stood = Vec::new();
    for sync in &syncs {
        stood.extend(stand(deps, sync, &chain).await?);
    }
    let missing = missing::first(name, &chain, &stood);
    Ok(json!({
        "subject": name,
        "people": chain.people.values().map(person).collect::<Vec<_>>(),
        "browsers": chain.browsers.iter().zip(1..).map(|(one, n)| browser(one, n, &followed)).collect::<Vec<_>>(),
        "browsers_not_shown": chain.browsers_not_shown,
        "lists": stood.iter().map(list).collect::<Vec<_>>(),
        "missing": missing,
    }))
}

/// Where the people of a chain stand in a sync's list.
async fn stand<'a>(deps: &Deps, sync: &'a Sync, chain: &Chain) -> Step<Vec<Stood<'a>>> {
    if chain.people.is_empty() {
        return Ok(Vec::new());
    }
    let places = Places::open(deps, sync).await?;
    let lives = sync.follows() || sync.status == Status::Creating;
    let one = |lead: LeadId| {
        let wanted = lives && (places.want.contains(lead) || chain.ties(lead, &sync.audience));
        match places.of(lead, wanted) {
            Some(place) => Some(Stood { sync, lead, wanted, place }),
            None => lives.then_some(Stood { sync, lead, wanted, place: Place { state: "not_wanted", code: None } }),
        }
    };
    Ok(chain.people.keys().filter_map(|lead| one(*lead)).collect())
}

fn person(person: &Person) -> Value {
    json!({
        "lead_id": person.lead,
        "known": person.known,
        "gone": person.gone,
        "merged_into": person.merged_into,
        "as_of": person.as_of.map(time),
    })
}

fn browser(browser: &Browser, n: u64, names: &BTreeMap<AudienceId, String>) -> Value {
    let text = browser.ecid.text();
    let audiences = browser.audiences.iter().map(|(audience, said)| {
        json!({
            "audience_id": audience,
            "name": names.get(audience),
            "delivered": said.is_some(),
            "inside": said.as_ref().is_some_and(|said| said.inside),
            "said_at": said.as_ref().and_then(|said| said.at).map(time),
        })
    });
    let matches = browser.matches.iter().zip(1..).map(|(found, n): (&Match, u64)| {
        json!({
            "n": n,
            "seen_at": time(found.seen_at),
            "lead_id": found.lead,
            "known": found.lead.map(|_| found.known),
            "looked_up_at": found.asked_at.map(time),
            "state": found.state.name(),
        })
    });
    json!({
        "n": n,
        "ecid_ends": &text[text.len() - 4..],
        "audiences": audiences.collect::<Vec<_>>(),
        "matches": matches.collect::<Vec<_>>(),
        "from_marketo": browser.from_marketo,
    })
}

fn list(stood: &Stood<'_>) -> Value {
    let Stood { sync, lead, wanted, place } = stood;
    json!({
        "sync_id": sync.id,
        "audience_name": sync.audience_name,
        "list_id": sync.list.id,
        "list_name": sync.list.name,
        "wanted": wanted,
        "state": place.state,
        "code": place.code,
        "sentence": place.sentence(),
        "lead_id": lead,
    })
}
