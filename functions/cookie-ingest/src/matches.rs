//! `POST /matches`: each item is checked by itself; repeats are dropped, new ones are durable in the queue before
//! the answer.

use std::collections::BTreeMap;

use domain::identity::{Sight, has_expired};
use domain::limits::{DAY_MS, MATCHES_PER_REQUEST};
use domain::{Ecid, MunchkinId, OrgId};
use jiff::Timestamp;
use ports::{Key, Queue, Read, Table};
use serde_json::{Value, json};
use state::identity::token_key;
use state::syncs::{Subscription, subscriptions};
use state::{Deps, Step, V1, doc};

use crate::answer::{Answer, problem};
use crate::fields::{Refusal, expected, refusal, text, token};
use crate::message::{Match, outgoing};

/// Largest body, in bytes: 500 items of a generous 1 KB.
const MAX_BODY: usize = 512 * 1024;

/// Takes one match or a list of up to 500 and answers for each: `accepted`, `known` (seen within 30 days: nothing
/// is written), `set_aside` (the token is over its cap) or `refused` with field and reason.
pub(crate) async fn post_matches(deps: &Deps, body: &[u8]) -> Step<Answer> {
    if body.len() > MAX_BODY {
        return Ok(problem(
            413,
            "Too large",
            &format!("the body has over {MAX_BODY} bytes; send fewer matches at once"),
        ));
    }
    let items = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(items)) => items,
        Ok(item @ Value::Object(_)) => vec![item],
        _ => {
            return Ok(problem(400, "Not a match", "expected one match as a JSON object, or a JSON array of them"));
        }
    };
    if items.len() > MATCHES_PER_REQUEST {
        let detail = format!("{} matches at once; expected at most {MATCHES_PER_REQUEST}", items.len());
        return Ok(problem(400, "Too many matches", &detail));
    }
    let subscriptions: BTreeMap<MunchkinId, Subscription> =
        subscriptions(deps).await?.into_iter().map(|found| (found.munchkin_id.clone(), found)).collect();
    let now = deps.now();
    let lifetime = deps.settings.match_lifetime_ms;
    let checked: Vec<Result<Match, Refusal>> =
        items.iter().map(|item| check(item, &subscriptions, now, lifetime)).collect();

    let keys: Vec<Key> = checked.iter().flatten().map(|found| token_key(&found.munchkin_id, &found.token)).collect();
    let mut records = BTreeMap::new();
    // Eventually consistent, half the price: what it misses is found again when it is stored.
    for item in deps.ports.tables.batch_get(Table::Identity, &keys, Read::Eventual).await? {
        let key = item.key.clone();
        records.insert(key, doc::read::<domain::identity::TokenRecord>(item)?.value);
    }
    let mut results = Vec::new();
    let mut messages = Vec::new();
    for (index, found) in checked.into_iter().enumerate() {
        results.push(match found {
            Err(refusal) => refusal.of(index),
            Ok(found) => {
                let record = records.get(&token_key(&found.munchkin_id, &found.token));
                let status = match record.map_or(Sight::New, |record| record.look(found.ecid, found.seen_at)) {
                    // Nothing tells that somebody was erased.
                    Sight::Repeat | Sight::Erased => "known",
                    Sight::SetAside => "set_aside",
                    Sight::Later | Sight::New => {
                        messages.push(outgoing(&found)?);
                        "accepted"
                    }
                };
                json!({"index": index, "status": status})
            }
        });
    }
    if !messages.is_empty() {
        deps.ports.queues.send(Queue::Matches, messages).await?;
    }
    Ok(Answer::json(200, &json!({"results": results})))
}

fn check(
    item: &Value,
    subscriptions: &BTreeMap<MunchkinId, Subscription>,
    now: u64,
    lifetime: u64,
) -> Result<Match, Refusal> {
    let Value::Object(item) = item else { return Err(refusal("", "expected a JSON object")) };
    let org_id = OrgId::parse(text(item, "org_id")?).ok_or_else(|| expected("org_id", OrgId::EXPECTED))?;
    let munchkin_id =
        MunchkinId::parse(text(item, "munchkin_id")?).ok_or_else(|| expected("munchkin_id", MunchkinId::EXPECTED))?;
    let ecid = match item.get("ecid") {
        Some(Value::Number(_)) => {
            return Err(refusal("ecid", "found a JSON number; expected a string of 38 digits, or digits are lost"));
        }
        _ => Ecid::parse(text(item, "ecid")?).ok_or_else(|| expected("ecid", "a string of 38 digits"))?,
    };
    let token = token(item, &munchkin_id)?;
    let seen_at = match item.get("seen_at") {
        None | Some(Value::Null) => now,
        Some(_) => {
            let time = text(item, "seen_at")?.parse::<Timestamp>();
            let time = time.map_err(|_| expected("seen_at", "a time such as 2026-11-01T00:00:00Z"))?;
            // A page's clock is not to be trusted: nothing is seen after it is received.
            u64::try_from(time.as_millisecond()).unwrap_or(0).min(now)
        }
    };
    if has_expired(seen_at, lifetime, now) {
        return Err(refusal("seen_at", format!("over {} days ago: such a match has expired", lifetime / DAY_MS)));
    }
    let Some(subscription) = subscriptions.get(&munchkin_id) else {
        return Err(refusal("munchkin_id", "no subscription has this Munchkin id"));
    };
    if let Some(why) = subscription.takes_no_matches() {
        return Err(refusal("munchkin_id", why.english));
    }
    if subscription.org_id.as_ref() != Some(&org_id) {
        return Err(refusal("org_id", "another IMS organisation is mapped to this subscription"));
    }
    Ok(Match { v: V1, munchkin_id, ecid, token, seen_at, public: false, views: None })
}
