//! Whom to tell that something is wrong, and what is wrong at present. `scheduled-incremental-sync` looks for it and tells.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use domain::MunchkinId;
use domain::said::Said;
use ports::Table;
use serde_json::{Value, json};
use state::alerts::{Alerts, DEVIATION_PERCENT, Form, Webhook, alerts, alerts_key, incidents};
use state::{Deps, time, update};

use crate::orders::unknown;
use crate::problem::{Answer, Problem, Wrong, one_of, whole_number};
use crate::routes::Request;

/// Webhooks of a subscription. Ours: each check calls them one after the other.
const WEBHOOKS: usize = 5;
/// Longest name of a webhook, longest address and longest value of a header, in bytes. Ours.
const NAME_BYTES: usize = 64;
const URL_BYTES: usize = 2_000;
/// Headers of a webhook. Ours.
const HEADERS: usize = 20;
/// Headers that are the request's own.
const OWN: [&str; 5] = ["host", "content-length", "content-type", "transfer-encoding", "connection"];

/// `GET /alerts`: the settings, without what is secret in them, and the incidents, the latest first.
pub(crate) async fn get(deps: &Deps, munchkin: &MunchkinId) -> Answer<Value> {
    let mut body = shown(&alerts(deps, munchkin).await?);
    let mut found: Vec<_> = incidents(deps, munchkin).await?.into_iter().map(|found| found.value).collect();
    found.sort_by_key(|incident| std::cmp::Reverse((incident.ended_at.is_none(), incident.since)));
    let rows = found.iter().map(|incident| {
        json!({
            "id": incident.id,
            "kind": incident.kind,
            "subject": incident.subject,
            "sentence": incident.sentence,
            "values": incident.values,
            "since": time(incident.since),
            "ended_at": incident.ended_at.map(time),
            "not_told_yet": incident.owed.union(&incident.owed_end).collect::<Vec<_>>(),
        })
    });
    body["incidents"] = rows.collect();
    Ok(body)
}

/// `PUT /alerts`. A webhook whose address or headers are left out keeps those that it has, for they are never shown again.
pub(crate) async fn put(deps: &Deps, munchkin: &MunchkinId, request: &Request) -> Answer<Value> {
    let body = request.json()?;
    let local = request.sign_in.is_none();
    let kept = update(
        deps,
        Table::Syncs,
        &alerts_key(munchkin),
        |found: Option<Alerts>| match read(&body, &found.unwrap_or_default(), local) {
            Ok(alerts) => Ok((Some(alerts.clone()), Ok(alerts))),
            Err(problem) => Ok((None, Err(problem))),
        },
        |_| None,
    )
    .await?;
    Ok(shown(&kept?))
}

fn shown(alerts: &Alerts) -> Value {
    let hook = |hook: &Webhook| json!({"form": hook.form, "host": host(&hook.url), "headers": hook.headers.keys().collect::<Vec<_>>()});
    let webhooks: BTreeMap<&String, Value> = alerts.webhooks.iter().map(|(name, one)| (name, hook(one))).collect();
    json!({"webhooks": webhooks, "deviation_percent": alerts.deviation_percent})
}

/// The host of an address: what stands behind it is often a secret.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn read(body: &Value, before: &Alerts, local: bool) -> Answer<Alerts> {
    let mut errors = unknown(body, &["webhooks", "deviation_percent"], "");
    let mut alerts = Alerts { v: 1, webhooks: BTreeMap::new(), deviation_percent: DEVIATION_PERCENT };
    match &body["webhooks"] {
        Value::Null => {}
        Value::Object(hooks) if hooks.len() <= WEBHOOKS => {
            for (name, hook) in hooks {
                if let Some(hook) = webhook(name, hook, before.webhooks.get(name), local, &mut errors) {
                    alerts.webhooks.insert(name.clone(), hook);
                }
            }
        }
        _ => {
            let detail = format!("expected an object: at most {WEBHOOKS} webhooks by their names");
            errors.push(("/webhooks".into(), Said::new("expected_webhooks", detail).with("most", WEBHOOKS)));
        }
    }
    match (
        &body["deviation_percent"],
        body["deviation_percent"].as_u64().filter(|percent| (1..=1_000).contains(percent)),
    ) {
        (Value::Null, _) => {}
        (_, Some(percent)) => alerts.deviation_percent = percent,
        _ => errors.push(("/deviation_percent".into(), whole_number(1, 1_000))),
    }
    if errors.is_empty() { Ok(alerts) } else { Err(Problem::fields(errors)) }
}

fn webhook(
    name: &str,
    hook: &Value,
    before: Option<&Webhook>,
    local: bool,
    errors: &mut Vec<Wrong>,
) -> Option<Webhook> {
    let at = |field: &str| format!("/webhooks/{name}{field}");
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    // "bus" is the event bus.
    if name.is_empty() || name.len() > NAME_BYTES || name == "bus" || !name.bytes().all(plain) {
        let expected = "expected a name of 1 to 64 letters, digits, dots, hyphens and underscores, other than \"bus\"";
        errors.push(("/webhooks".into(), Said::new("webhook_name", expected).with("most", NAME_BYTES)));
        return None;
    }
    if !hook.is_object() {
        let expected = r#"expected an object such as {"url": "https://…", "form": "slack"}"#;
        errors.push((at(""), Said::new("webhook_shape", expected)));
        return None;
    }
    let wrong = errors.len();
    errors.extend(unknown(hook, &["url", "form", "headers"], &at("")));
    let url = match (&hook["url"], before) {
        (Value::Null, Some(before)) => before.url.clone(),
        (url, _) => url.as_str().filter(|url| is_url(url, local)).map(str::to_owned).unwrap_or_else(|| {
            let expected = "expected a public address that begins with https://, without user name or space";
            errors.push((at("/url"), Said::new("webhook_url", expected)));
            String::new()
        }),
    };
    let form = match &hook["form"] {
        Value::Null => before.map_or_else(Form::default, |before| before.form),
        form => serde_json::from_value(form.clone()).unwrap_or_else(|_| {
            errors.push((at("/form"), one_of(&["json", "slack", "teams"])));
            Form::default()
        }),
    };
    let headers = match (&hook["headers"], before) {
        // What is secret goes to the host that it was said for, and to no other.
        (Value::Null, Some(before)) if origin(&before.url) == origin(&url) => before.headers.clone(),
        (Value::Null, Some(before)) if !before.headers.is_empty() => {
            let expected = "expected the headers once more: they were said for another host";
            errors.push((at("/headers"), Said::new("webhook_headers_again", expected)));
            BTreeMap::new()
        }
        (Value::Null, _) => BTreeMap::new(),
        (headers, _) => match headers_of(headers) {
            Some(headers) => headers,
            None => {
                let own = OWN.join(", ");
                let expected = format!("expected an object of at most {HEADERS} headers with text, other than {own}");
                let said = Said::new("webhook_headers", expected).with("most", HEADERS).with("own", own);
                errors.push((at("/headers"), said));
                BTreeMap::new()
            }
        },
    };
    (errors.len() == wrong).then_some(Webhook { url, form, headers })
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> (bool, &str) {
    (url.starts_with("https://"), host(url))
}

/// An address in the open: encrypted, and not of a network that only the function sees. On a machine whose ports nobody else
/// reaches (`local`) its own ones may be called, too.
fn is_url(url: &str, local: bool) -> bool {
    let plain = url.len() <= URL_BYTES && url.bytes().all(|b| b.is_ascii_graphic());
    let host = host(url);
    if !plain || host.is_empty() || host.contains('@') {
        return false;
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let inside = name == "localhost"
        || name.parse::<Ipv4Addr>().is_ok_and(|ip| {
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast()
        })
        // A public webhook has a name; of IPv6 addresses too many forms mean the same.
        || name.parse::<Ipv6Addr>().is_ok();
    if inside { local && url.starts_with("http://") } else { url.starts_with("https://") }
}

fn headers_of(headers: &Value) -> Option<BTreeMap<String, String>> {
    let headers = headers.as_object().filter(|headers| headers.len() <= HEADERS)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    headers
        .iter()
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let is_name = (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(token) && !OWN.contains(&&*name);
            let value = value
                .as_str()
                .filter(|value| value.len() <= URL_BYTES && value.bytes().all(|b| b.is_ascii_graphic() || b == b' '))?;
            is_name.then(|| (name, value.to_owned()))
        })
        .collect()
}
