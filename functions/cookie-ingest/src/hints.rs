//! `POST /hints`: a form handler or a webhook of Marketo asks to look at a token or a lead now. It shows a secret of its
//! own, of which we keep a salted hash.

use domain::limits::{LEAD_ID_MOST, MARKETO_BATCH};
use domain::{LeadId, MunchkinId};
use lambda::{Counts, HttpEvent};
use ports::Queue;
use serde_json::{Map, Value, json};
use state::syncs::Subscription;
use state::{Deps, Step, V1};

use crate::answer::{Answer, problem};
use crate::fields::{Refusal, TOKEN_FIELDS, expected, is_given, refusal, text, token};
use crate::message::{Hint, LookAt, outgoing};
use crate::warm::{GOOD_MS, RECHECK_MS, Warm};

/// Largest body, in bytes: 300 of the longest tokens.
const MAX_BODY: usize = 128 * 1024;
/// Hints in one request: as many as one call to Marketo looks up.
const MAX_HINTS: usize = MARKETO_BATCH;
/// The header that holds the secret.
const SECRET: &str = "x-hint-secret";

/// Takes one hint or a list of up to 300. 202 once they are in the queue, with an answer for each; 400 if none was good.
pub(crate) async fn post_hints(deps: &Deps, warm: &Warm, request: &HttpEvent, counts: &Counts) -> Step<Answer> {
    let Some(secret) = request.header(SECRET) else { return Ok(unauthorised(counts)) };
    if request.body.len() > MAX_BODY {
        return Ok(problem(413, "Too large", &format!("the body has over {MAX_BODY} bytes; send fewer hints at once")));
    }
    let Some(body) = read(request) else {
        return Ok(problem(400, "Not a hint", "expected a JSON object, or fields as a form sends them"));
    };
    let Some(munchkin_id) = text(&body, "munchkin_id").ok().and_then(MunchkinId::parse) else {
        return Ok(problem(400, "Not a hint", &format!("munchkin_id: expected {}", MunchkinId::EXPECTED)));
    };
    let Some(subscription) = authorised(deps, warm, &munchkin_id, secret).await? else {
        return Ok(unauthorised(counts));
    };
    if let Some(why) = subscription.takes_no_matches() {
        return Ok(problem(403, "Closed", why.english));
    }
    let items = match body.get("hints") {
        None => vec![Value::Object(body)],
        // Beside a list it would be nobody's.
        Some(_) if body.keys().any(|name| is_email(name)) => return Ok(problem(400, "An email", NO_EMAIL)),
        Some(Value::Array(items)) if items.len() <= MAX_HINTS => items.clone(),
        Some(_) => {
            return Ok(problem(400, "Not hints", &format!("hints: expected a list of at most {MAX_HINTS}")));
        }
    };
    let mut results = Vec::new();
    let mut messages = Vec::new();
    for (index, item) in items.iter().enumerate() {
        results.push(match check(item, &munchkin_id) {
            Ok(look_at) => {
                messages.push(outgoing(&Hint { v: V1, munchkin_id: munchkin_id.clone(), look_at })?);
                json!({"index": index, "status": "accepted"})
            }
            Err(refusal) => refusal.of(index),
        });
    }
    counts.add("hints_accepted", messages.len() as u64);
    counts.add("hints_refused", (items.len() - messages.len()) as u64);
    let status = if messages.is_empty() { 400 } else { 202 };
    if !messages.is_empty() {
        deps.ports.queues.send(Queue::Matches, messages).await?;
    }
    Ok(Answer::json(status, &json!({"results": results})))
}

/// The same whether the secret is missing or wrong, or there is no such subscription.
fn unauthorised(counts: &Counts) -> Answer {
    counts.add("hints_unauthorised", 1);
    problem(401, "Not allowed", "expected the secret of this subscription in the header x-hint-secret")
}

/// The body's fields, from JSON or from a form; `None`: it is neither.
fn read(request: &HttpEvent) -> Option<Map<String, Value>> {
    let kind = request.header("content-type").unwrap_or_default().trim_start().to_ascii_lowercase();
    if kind.starts_with("application/x-www-form-urlencoded") {
        let fields = form_urlencoded::parse(&request.body).into_owned();
        return Some(fields.map(|(name, value)| (name, Value::String(value))).collect());
    }
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(body)) => Some(body),
        _ => None,
    }
}

/// The subscription, if this is one of its secrets.
async fn authorised(deps: &Deps, warm: &Warm, munchkin_id: &MunchkinId, secret: &str) -> Step<Option<Subscription>> {
    // Perhaps the secret was made just now: what was read before is read again before anybody is refused.
    for good_for in [GOOD_MS, RECHECK_MS] {
        let subscriptions = warm.subscriptions(deps, good_for).await?;
        let Some(subscription) = subscriptions.get(munchkin_id) else { continue };
        let secrets = warm.secrets(deps, munchkin_id, good_for).await?;
        if secrets.valid.iter().any(|valid| valid.is(secret)) {
            return Ok(Some(subscription.clone()));
        }
    }
    Ok(None)
}

const NO_EMAIL: &str = "send the lead id: no email is stored or queued";

/// Whether a field is an email by its name: `email`, `Email Address`, `email_address`.
fn is_email(name: &str) -> bool {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ["email", "emailaddress"].contains(&letters.to_ascii_lowercase().as_str())
}

fn check(item: &Value, munchkin_id: &MunchkinId) -> Result<LookAt, Refusal> {
    let Value::Object(item) = item else { return Err(refusal("", "expected a JSON object")) };
    if item.keys().any(|name| is_email(name)) {
        return Err(refusal("email", NO_EMAIL));
    }
    match (TOKEN_FIELDS.iter().any(|field| is_given(item, field)), is_given(item, "lead_id")) {
        (true, false) => token(item, munchkin_id).map(LookAt::Token),
        (false, true) => lead_id(&item["lead_id"]).map(LookAt::LeadId),
        (true, true) => Err(refusal("lead_id", "expected a token or a lead id, and not both")),
        (false, false) => Err(refusal("token", "expected a token or a lead id")),
    }
}

/// A number, or its digits as text.
fn lead_id(value: &Value) -> Result<LeadId, Refusal> {
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = value.as_u64().or_else(|| value.as_str().filter(digits)?.parse().ok());
    id.filter(|id| (1..=LEAD_ID_MOST).contains(id)).ok_or_else(|| expected("lead_id", "Marketo's id of a lead"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "_mch-example.com-1700000000000-12345";

    fn outcome(item: &Value) -> Result<LookAt, String> {
        let munchkin_id = MunchkinId::parse("123-ABC-456").unwrap();
        check(item, &munchkin_id).map_err(|refusal| refusal.of(0)["field"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_hint_is_a_token_or_a_lead_id_and_never_an_email() {
        let token = domain::Token::parse(TOKEN).unwrap();
        for (item, expected) in [
            (json!({"token": TOKEN}), Ok(LookAt::Token(token.clone()))),
            (
                json!({"_mkto_trk": format!("id:123-ABC-456&token:{TOKEN}"), "lead_id": ""}),
                Ok(LookAt::Token(token.clone())),
            ),
            (json!({"token": "", "cookie": format!("id:123-ABC-456&token:{TOKEN}")}), Ok(LookAt::Token(token.clone()))),
            (json!({"lead_id": 7}), Ok(LookAt::LeadId(7))),
            (json!({"lead_id": "7", "token": "", "other": [1]}), Ok(LookAt::LeadId(7))),
            (json!({"_mkto_trk": format!("id:999-ABC-456&token:{TOKEN}")}), Err("_mkto_trk")),
            (json!({"lead_id": 0}), Err("lead_id")),
            (json!({"lead_id": -1}), Err("lead_id")),
            (json!({"lead_id": 2_147_483_648_u64}), Err("lead_id")),
            (json!({"lead_id": "7x"}), Err("lead_id")),
            (json!({"lead_id": "99999999999999999999"}), Err("lead_id")),
            (json!({"lead_id": 7, "token": TOKEN}), Err("lead_id")),
            (json!({"token": 7}), Err("token")),
            (json!({}), Err("token")),
            (json!({"lead_id": 7, "email": ""}), Err("email")),
            (json!({"lead_id": 7, "Email Address": "x"}), Err("email")),
            (json!("text"), Err("")),
        ] {
            assert_eq!(outcome(&item), expected.map_err(str::to_owned), "{item}");
        }
    }

    #[test]
    fn forms_and_json_are_read_alike() {
        let request = |kind: &str, body: &str| HttpEvent {
            headers: vec![("content-type".into(), kind.into())],
            body: body.as_bytes().to_vec(),
            ..HttpEvent::default()
        };
        let form = request("application/x-www-form-urlencoded; charset=UTF-8", "munchkin_id=123-ABC-456&lead_id=7");
        let json = request("application/json", r#"{"munchkin_id": "123-ABC-456", "lead_id": "7"}"#);
        assert_eq!(read(&form), read(&json));
        assert!(read(&form).is_some_and(|fields| fields["lead_id"] == "7"));
        assert_eq!(read(&request("application/json", "lead_id=7")), None);
        assert_eq!(read(&request("application/json", "[]")), None);
    }
}
