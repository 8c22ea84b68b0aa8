//! What must hold of our own doors, whoever calls and whatever they send: events of API Gateway, beacons, batches of matches,
//! hints, and the API with its paths, queries, cursors, keys and bodies.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use cookie_ingest::{Counts, Ingest, Message};
use create_sync::{Caller, ROUTES, Request, Role};
use domain::MunchkinId;
use lambda::HttpEvent;
use ports::{Expect, Item, Queue, Table, Tables as _};
use regex::bytes::Regex;
use serde_json::{Value, json};
use state::syncs::{HintSecret, HintSecrets, hint_secrets_key, subscription_key};

use crate::outside::{LIFE, NOW, Outside, run};
use crate::{MUNCHKIN, ORG, text};

const ORIGIN: &str = "https://www.example.com";
const SECRET: &str = "hint-secret";

/// A world with one subscription, whose pages may send matches, and with one secret of hints. Nobody answers any call.
fn world() -> (state::Deps, std::sync::Arc<Outside>) {
    let (deps, outside) = Outside::new(Box::new(|_| None));
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    let subscription =
        json!({"v": 1, "munchkin_id": MUNCHKIN, "org_id": format!("{ORG}@AdobeOrg"), "origins": [ORIGIN]});
    let secrets = HintSecrets { v: 1, valid: vec![HintSecret::of(SECRET, "00".to_owned(), NOW)] };
    for (key, doc) in [(subscription_key(&munchkin), subscription), (hint_secrets_key(&munchkin), json!(secrets))] {
        let item = Item { key, rev: 1, doc, due: None, expires_at: None };
        assert!(run(outside.put(Table::Syncs, item, Expect::Absent)).expect("stored"));
    }
    (deps, outside)
}

/// An event of API Gateway: what is read of it is what stands there.
pub fn http_event(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    let Some(read) = HttpEvent::read(&event) else { return };
    assert_eq!(event["requestContext"]["http"]["method"], read.method.as_str());
    assert_eq!(event["rawPath"], read.path.as_str());
    if event["isBase64Encoded"] != true {
        assert_eq!(event["body"].as_str().unwrap_or_default().as_bytes(), read.body);
    }
    for (name, value) in &read.headers {
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(read.header(name).is_some(), "{value}");
    }
    assert_eq!(read.claims.is_some(), event["requestContext"]["authorizer"]["jwt"]["claims"].is_object());
    let shown = format!("{read:?}");
    assert!(
        read.body.len() < 8
            || !shown.contains(&String::from_utf8_lossy(&read.body).into_owned())
            || read.path.len() > 8
    );
    // What a deployment with roles makes of it never gives somebody a role who was given none.
    let access = lambda::Access {
        claim: "groups".to_owned(),
        operator: "operators".to_owned(),
        viewer: "viewers".to_owned(),
        authority: String::new(),
        audience: String::new(),
        client_id: String::new(),
        scope: String::new(),
        token_origin: String::new(),
    };
    let told = read.claims.as_ref().and_then(|claims| claims.get("groups").cloned()).unwrap_or_default();
    let request = Request::of(read, Some(&access));
    for (role, name) in [(Role::Operator, "operators"), (Role::Viewer, "viewers")] {
        assert!(request.caller.as_ref().is_none_or(|caller| caller.role != role) || told.contains(name), "{told}");
    }
}

/// A body that comes to the collection. The first byte says by which door: `/beacon`, `/matches` or `/hints`.
///
/// A beacon is answered alike whatever it holds. Of the others each item has its answer, no answer repeats a token or an
/// ECID, and what goes into the queue is a message that reads, of this subscription, with 38 digits and no email.
pub fn collected(data: &[u8]) {
    static TOKEN: LazyLock<Regex> = LazyLock::new(|| crate::regex(r"_mch-[0-9A-Za-z._-]+-[0-9a-f]+"));
    let [door, body @ ..] = data else { return };
    let (deps, outside) = world();
    let path = ["/beacon", "/matches", "/hints"][usize::from(*door) % 3];
    let request = HttpEvent {
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers: vec![
            ("origin".to_owned(), ORIGIN.to_owned()),
            ("x-hint-secret".to_owned(), SECRET.to_owned()),
            ("content-type".to_owned(), "application/json".to_owned()),
        ],
        // A header is text: the second half of the doors' byte lets the body be the cookies as well.
        cookies: if *door >= 128 { vec![text(body).into_owned()] } else { Vec::new() },
        body: body.to_vec(),
        ..HttpEvent::default()
    };
    let answer = run(Ingest::new(deps).request(&request, &Counts::default())).expect("nothing here fails");
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(!TOKEN.is_match(&answer.body), "an answer repeats a token: {shown}");
    assert!(!shown.contains(&"1".repeat(38)), "an answer repeats an ECID: {shown}");
    if path == "/beacon" {
        assert_eq!((answer.status, answer.body.len()), (204, 0), "a beacon is answered alike");
    } else {
        assert!((200..500).contains(&answer.status), "{}", answer.status);
        if !answer.body.is_empty() {
            serde_json::from_slice::<Value>(&answer.body).expect("JSON");
        }
    }
    if path == "/matches" && answer.status == 200 {
        let items = said.as_ref().map_or(0, |said| said.as_array().map_or(1, Vec::len));
        let results: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let results = results["results"].as_array().expect("results");
        assert_eq!(results.len(), items, "each item has its answer");
        let accepted = results.iter().filter(|result| result["status"] == "accepted").count();
        assert_eq!(outside.sent().len(), accepted, "what is accepted is in the queue, and nothing else");
    }
    for (queue, message) in outside.sent() {
        assert_eq!(queue, Queue::Matches);
        let read: Message = serde_json::from_str(&message.body).expect("a message that reads");
        let munchkin = match &read {
            Message::Match(found) => {
                assert!(found.seen_at <= NOW, "seen after it was received");
                assert_eq!(found.public, path == "/beacon");
                let digits = found.ecid.text();
                assert!(
                    *door >= 128 || text(body).contains(&digits) || shown_escaped(body, &digits),
                    "an ECID of nobody's"
                );
                &found.munchkin_id
            }
            Message::Hint(hint) => &hint.munchkin_id,
        };
        assert_eq!(munchkin.as_str(), MUNCHKIN);
    }
}

/// Whether a JSON text holds these digits in any of its texts, some of them perhaps escaped.
fn shown_escaped(body: &[u8], digits: &str) -> bool {
    fn holds(value: &Value, digits: &str) -> bool {
        match value {
            Value::String(text) => text.contains(digits),
            Value::Array(items) => items.iter().any(|item| holds(item, digits)),
            Value::Object(fields) => fields.values().any(|field| holds(field, digits)),
            _ => false,
        }
    }
    serde_json::from_slice::<Value>(body).is_ok_and(|said| holds(&said, digits))
}

/// A request of the API: a line `METHOD /path?query`, a line with the idempotency key, and the body.
///
/// It is answered, by JSON where it is about data; a fault of the caller's is 4xx with a code, and only a vendor whom nobody
/// reaches makes it 5xx. A change that is refused changes nothing but what a job or an audit writes.
pub fn api(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (line, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let body = parts.next().unwrap_or_default();
    let line = text(line);
    let (method, target) = line.split_once(' ').unwrap_or(("GET", &line));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (deps, outside) = world();
    let event = HttpEvent {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: vec![("idempotency-key".to_owned(), text(key).into_owned())],
        body: body.to_vec(),
        ..HttpEvent::default()
    };
    let mut request = Request::of(event, None);
    request.caller = Some(Caller { name: "fuzz".to_owned(), role: Role::Operator });
    let answer = run(create_sync::handle(&deps, request, NOW + LIFE));
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    let methods: BTreeSet<&str> = ROUTES.iter().map(|(method, ..)| *method).collect();
    assert!(answer.status < 400 || answer.content_type.ends_with("json"), "{shown}");
    assert!(answer.status < 300 || answer.status >= 400 || answer.status == 304, "{}", answer.status);
    assert!(methods.contains(method) || answer.status >= 400, "{method} is no method of ours");
    if answer.status >= 500 {
        assert!(outside.calls() > 0, "{} without a call to anybody: {shown}", answer.status);
    }
    if answer.content_type.ends_with("json") && !answer.body.is_empty() {
        let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
        if answer.status >= 400 {
            assert_eq!(said["status"], answer.status, "{shown}");
            assert!(said["detail"].is_string() && said["title"].is_string(), "{shown}");
        }
    }
    // Headers are one line each, of what HTTP allows.
    for (name, value) in &answer.headers {
        assert!(http::HeaderValue::from_str(value).is_ok(), "{name}: {value:?}");
    }
}
