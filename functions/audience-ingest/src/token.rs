//! `POST /feeds/{id}/token`: Adobe asks us for an access token (OAuth 2.0, client credentials). A token holds its own end
//! and a proof of it by the client's secret, so that nothing is kept, and a secret that goes takes its tokens along.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use lambda::HttpEvent;
use ports::{Credentials, StreamSecret};
use secrecy::ExposeSecret as _;
use serde_json::json;
use sha2::Sha256;

use crate::answer::Answer;
use crate::proof::{after_scheme, is_same};

/// How long a token is good, in seconds. Ours: Adobe's own last a day.
const LIFE_S: u64 = 3_600;
/// Sets the keys of tokens apart from any other use of a client's secret.
const PURPOSE: &[u8] = b"audience-sync access token";
/// Bytes of a token's end.
const END: usize = size_of::<u64>();

/// Answers a request for a token. `name`: of the feed, with its subscription; `now` in ms.
pub(crate) fn answer(request: &HttpEvent, secret: &StreamSecret, name: &str, now: u64) -> Answer {
    let fields: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
    let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    if field("grant_type") != Some("client_credentials") {
        return refusal(400, "unsupported_grant_type");
    }
    let in_header = request.header("authorization").and_then(|value| after_scheme(value, "basic")).and_then(basic);
    let in_body = || Some((field("client_id")?.to_owned(), field("client_secret")?.to_owned()));
    let shown = in_header.or_else(in_body);
    let client = shown.and_then(|(id, key)| secret.clients.iter().find(|client| is(client, &id, &key)));
    let Some(token) = client.and_then(|client| issue(client, name, now)) else {
        return refusal(401, "invalid_client");
    };
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": LIFE_S});
    Answer::json(200, &body).with("cache-control", "no-store")
}

/// RFC 6749, 5.2.
fn refusal(status: u16, error: &str) -> Answer {
    Answer::json(status, &json!({"error": error})).with("cache-control", "no-store")
}

/// Id and secret of `Basic`.
fn basic(value: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// RFC 6749 has both encoded like a form's fields before they are joined; many a client leaves that out.
fn is(client: &Credentials, id: &str, secret: &str) -> bool {
    let is = |id: &str, secret: &str| {
        is_same(client.id.expose_secret(), id) & is_same(client.secret.expose_secret(), secret)
    };
    is(id, secret) | is(&decoded(id), &decoded(secret))
}

fn decoded(text: &str) -> String {
    // As the only value of a form, with what would end it made harmless.
    let text = format!("v={}", text.replace('&', "%26"));
    form_urlencoded::parse(text.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A token for a feed, from `now` (ms) on.
pub(crate) fn issue(client: &Credentials, name: &str, now: u64) -> Option<String> {
    let end = (now / 1_000).saturating_add(LIFE_S).to_be_bytes();
    let mut token = end.to_vec();
    token.extend_from_slice(&mac(client, name, &end)?.finalize().into_bytes());
    Some(URL_SAFE_NO_PAD.encode(token))
}

/// Whether one of the clients was given this token for this feed, and it has not ended. `now` in ms.
pub(crate) fn is_valid(token: &str, clients: &[Credentials], name: &str, now: u64) -> bool {
    let Ok(token) = URL_SAFE_NO_PAD.decode(token) else { return false };
    let Some((end, proof)) = token.split_first_chunk::<END>() else { return false };
    let is_by = |client| mac(client, name, end).is_some_and(|mac| mac.verify_slice(proof).is_ok());
    now / 1_000 < u64::from_be_bytes(*end) && clients.iter().any(is_by)
}

/// The proof of a token's end, to be finished or compared. `None` never comes: such a key may have any length.
fn mac(client: &Credentials, name: &str, end: &[u8; END]) -> Option<Hmac<Sha256>> {
    let key = Hmac::<Sha256>::new_from_slice(client.secret.expose_secret().as_bytes()).ok()?;
    let key = key.chain_update(PURPOSE).chain_update(client.id.expose_secret()).finalize().into_bytes();
    Some(Hmac::<Sha256>::new_from_slice(&key).ok()?.chain_update(name).chain_update(end))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const NAME: &str = "123-ABC-456/live";
    const NOW: u64 = 1_767_268_800_000;

    fn secret(clients: &[(&str, &str)]) -> StreamSecret {
        let clients = clients.iter().map(|(id, secret)| Credentials::new(*id, *secret)).collect();
        StreamSecret { clients, ..StreamSecret::default() }
    }

    fn ask(basic: Option<&str>, body: &str, secret: &StreamSecret) -> (u16, Value) {
        let value = |text: &str| ("authorization".to_owned(), format!("Basic {}", STANDARD.encode(text)));
        let request = HttpEvent {
            headers: basic.map(value).into_iter().collect(),
            body: body.as_bytes().to_vec(),
            ..HttpEvent::default()
        };
        let answer = answer(&request, secret, NAME, NOW);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    const GRANT: &str = "grant_type=client_credentials";

    #[test]
    fn a_client_gets_a_token_by_the_header_or_by_the_body_and_shows_it_for_an_hour() {
        let secret = secret(&[("new", "b"), ("old", "a:b+&%")]);
        let body = |id, key| {
            let fields = form_urlencoded::Serializer::new(GRANT.to_owned());
            { fields }.append_pair("client_id", id).append_pair("client_secret", key).finish()
        };
        for (basic, body) in [
            (Some("new:b"), GRANT.to_owned()),
            (Some("old:a:b+&%"), GRANT.to_owned()),
            (Some("old:a%3Ab%2B%26%25"), GRANT.to_owned()),
            (None, body("old", "a:b+&%")),
            (None, body("new", "b")),
        ] {
            let (status, answer) = ask(basic, &body, &secret);
            assert_eq!((status, &answer["token_type"], &answer["expires_in"]), (200, &json!("Bearer"), &json!(3600)));
            let token = answer["access_token"].as_str().unwrap();
            let is_valid = |name, now| is_valid(token, &secret.clients, name, now);
            assert!(is_valid(NAME, NOW) && is_valid(NAME, NOW + 3_599_999));
            assert!(!is_valid(NAME, NOW + 3_600_000), "it has ended");
            assert!(!is_valid("123-ABC-457/live", NOW) && !is_valid("123-ABC-456/other", NOW), "of another feed");
        }
    }

    #[test]
    fn wrong_clients_and_other_grants_are_refused() {
        let secret = secret(&[("id", "secret")]);
        let invalid = (401, json!({"error": "invalid_client"}));
        for (basic, body) in [
            (Some("id:wrong"), GRANT),
            (Some("wrong:secret"), GRANT),
            (Some("id"), GRANT),
            (None, GRANT),
            (None, "grant_type=client_credentials&client_id=id"),
            (None, "grant_type=client_credentials&client_id=id&client_secret="),
        ] {
            assert_eq!(ask(basic, body, &secret), invalid, "{basic:?} {body}");
        }
        assert_eq!(ask(Some("id:secret"), GRANT, &StreamSecret::default()), invalid);
        for body in ["", "grant_type=password", "{\"grant_type\":\"client_credentials\"}"] {
            assert_eq!(
                ask(Some("id:secret"), body, &secret),
                (400, json!({"error": "unsupported_grant_type"})),
                "{body}"
            );
        }
    }

    #[test]
    fn a_secret_that_goes_takes_its_tokens_along() {
        let old = Credentials::new("id", "old");
        let token = issue(&old, NAME, NOW).unwrap();
        let new = Credentials::new("id", "new");
        assert!(is_valid(&token, &[new.clone(), old], NAME, NOW), "both count for a while");
        assert!(!is_valid(&token, &[new], NAME, NOW));
        assert!(!is_valid(&token, &[Credentials::new("other", "old")], NAME, NOW));
    }

    #[test]
    fn a_token_that_was_altered_is_none() {
        let client = [Credentials::new("id", "secret")];
        let token = issue(&client[0], NAME, NOW).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for place in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[place] ^= 1;
            assert!(!is_valid(&URL_SAFE_NO_PAD.encode(altered), &client, NAME, NOW), "{place}");
        }
        for token in ["", "AAAA", &token[1..], &format!("{token}AA"), "not base64!"] {
            assert!(!is_valid(token, &client, NAME, NOW));
        }
    }
}
