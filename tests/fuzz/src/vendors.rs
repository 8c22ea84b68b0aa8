//! What must hold of whatever Marketo and Adobe answer: it is read as the answer's JSON says by its own words, what it leaves
//! open stays open, nobody calls without end, and no error repeats what stood in it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use domain::{AudienceId, LeadSet, MunchkinId, OrgId, Token, list};
use http::Response;
use marketo::{CallError, LeadRow, Marketo, parse_extract};
use ports::Failure;
use regex::bytes::Regex;
use serde_json::Value;
use state::Deps;
use state::budget::Purpose;

use crate::outside::{LIFE, NOW, Outside, run};
use crate::{MUNCHKIN, ORG};

/// A status, by a byte of the input; 0: the connection is dropped.
const STATUSES: [u16; 16] = [200, 200, 200, 200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 413, 502, 0];
/// What no error may repeat.
static PERSONAL: LazyLock<Regex> = LazyLock::new(|| crate::regex(r"[0-9]{20}|_mch-|@"));

fn response(status: u16, body: &[u8]) -> Option<Response<Vec<u8>>> {
    (status != 0).then(|| Response::builder().status(status).body(body.to_vec()).expect("a response"))
}

/// Tokens are given, and everything else is answered so.
fn world(status: u16, body: &[u8]) -> (Deps, std::sync::Arc<Outside>) {
    let body = body.to_vec();
    Outside::new(Box::new(move |request| {
        if request.uri().path().ends_with("/oauth/token") || request.uri().path().starts_with("/ims/") {
            return response(200, br#"{"access_token":"given","expires_in":3600}"#);
        }
        response(status, &body)
    }))
}

fn tells_nothing(said: &str) {
    assert!(!PERSONAL.is_match(said.as_bytes()), "{said}");
}

/// A number, or a text that is one.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The rows of a successful answer, if it is one.
fn rows(status: u16, body: &[u8]) -> Option<Vec<Value>> {
    let answer: Value = serde_json::from_slice(body).ok().filter(|_| (200..300).contains(&status))?;
    (answer["success"] == true).then(|| match &answer["result"] {
        Value::Array(rows) => rows.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    })
}

fn ids(rows: &[Value], is_it: impl Fn(&Value) -> bool) -> BTreeSet<u64> {
    rows.iter().filter(|row| is_it(row)).filter_map(|row| number(&row["id"])).collect()
}

fn status_is(row: &Value, expected: &str) -> bool {
    row["status"].as_str().is_some_and(|status| status.eq_ignore_ascii_case(expected))
}

/// Marketo's answer to any call. The first byte says which, the second its HTTP status.
pub fn marketo(data: &[u8]) {
    let [which, status, body @ ..] = data else { return };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let (deps, _outside) = world(status, body);
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    let marketo = Marketo::new(&deps, &munchkin, NOW + LIFE, Purpose::Poll);
    let said = rows(status, body);
    let failed = |error: &CallError, writes: bool| {
        tells_nothing(&error.to_string());
        // A refusal says that nothing was done: only Marketo's own word, or a status that says so, is one.
        if writes && let CallError::Refused { .. } = error {
            let answer: Value = serde_json::from_slice(body).unwrap_or_default();
            assert!(matches!(status, 401 | 413) || !answer["errors"].is_null(), "{status} is no refusal");
        }
        assert!(
            said.is_none() || !writes || matches!(error, CallError::Unknown(_)),
            "a success that is refused: {error}"
        );
    };
    let call = async {
        let slot = marketo.slot().await.expect("a slot");
        match which % 16 {
            0 | 1 => {
                let add = which % 16 == 0;
                let people = [1, 2, 3];
                let answer =
                    if add { marketo.add(slot, 7, &people).await } else { marketo.remove(slot, 7, &people).await };
                match answer {
                    Err(error) => failed(&error, true),
                    Ok(read) => {
                        let said = said.as_ref().expect("only a success has rows");
                        let all = ids(said, |_| true);
                        let words: &[&str] = if add { &["added", "memberof"] } else { &["removed", "notmemberof"] };
                        let done = ids(said, |row| {
                            words.iter().any(|word| status_is(row, word))
                                || (!add && row["reasons"].to_string().contains("1015"))
                        });
                        for (lead, answer) in read {
                            assert!(all.contains(&lead), "nobody is answered for who has no row");
                            assert!(answer != list::Answer::Done || done.contains(&lead), "done without a word of it");
                        }
                    }
                }
            }
            2 => match marketo.membership(slot, 7, &[1, 2]).await {
                Err(error) => failed(&error, false),
                Ok(read) => {
                    let said = said.as_ref().expect("only a success has rows");
                    let set = |found: &LeadSet| found.iter().collect::<BTreeSet<_>>();
                    assert_eq!(set(&read.members), ids(said, |row| status_is(row, "memberof")));
                    assert_eq!(set(&read.not_members), ids(said, |row| status_is(row, "notmemberof")));
                }
            },
            3 => {
                let token = Token::parse("_mch-example.com-1700000000000-12345").expect("a token");
                people(marketo.leads_by_cookies(slot, &[&token]).await, said.as_deref(), failed);
            }
            4 => people(marketo.leads_by_id(slot, &[1, 2], true).await, said.as_deref(), failed),
            5 => {
                let page = marketo.members_page(slot, 7, "id,email,cookies,ecids", Some("next")).await;
                people(page.map(|page| page.0), said.as_deref(), failed);
            }
            6 => match marketo.activities(slot, "token").await {
                Err(error) => failed(&error, false),
                Ok(page) => {
                    let said = said.as_ref().expect("only a success has rows");
                    let expected =
                        said.iter().filter_map(|row| Some((number(&row["leadId"])?, number(&row["activityTypeId"])?)));
                    assert!(expected.eq(page.rows.iter().map(|row| (row.lead, row.kind))));
                }
            },
            7 => match marketo.list_changes(slot, "token").await {
                Err(error) => failed(&error, false),
                Ok(page) => {
                    let said = said.as_ref().expect("only a success has rows");
                    let expected = said.iter().filter_map(|row| {
                        let added = match number(&row["activityTypeId"])? {
                            24 => true,
                            25 => false,
                            _ => return None,
                        };
                        Some((number(&row["leadId"])?, number(&row["primaryAttributeValueId"])?, added))
                    });
                    assert!(expected.eq(page.rows.iter().map(|row| (row.lead, row.list, row.added))));
                }
            },
            8 => marketo.lists_named(slot, "VIP").await.map_or_else(
                |error| failed(&error, false),
                |lists| assert!(lists.iter().all(|list| list.name == "VIP")),
            ),
            9 => drop(marketo.lists_in_folder(slot, 12, "VIP").await.map_err(|error| failed(&error, false))),
            10 => match marketo.create_list(slot, "VIP", 12, "").await {
                Err(error) => failed(&error, true),
                Ok(list) => assert!(said.as_ref().is_some_and(|said| ids(said, |_| true).contains(&list.id))),
            },
            11 => match marketo.start_import(slot, 7, &[1, 2].into_iter().collect()).await {
                Err(error) => failed(&error, true),
                Ok(id) => assert!(String::from_utf8_lossy(body).contains(&id.to_string())),
            },
            12 => drop(marketo.import_status(slot, 5).await.map_err(|error| failed(&error, false))),
            13 => drop(marketo.import_failures(slot, 5).await.map_err(|error| failed(&error, false))),
            14 => drop(marketo.use_by_user(slot).await.map_err(|error| failed(&error, false))),
            _ => match marketo.extract_file(slot, "job", None).await {
                Err(error) => failed(&error, false),
                Ok(file) => extract(&file),
            },
        }
    };
    run(call);
}

/// People as the rows say, where all was one page.
fn people(read: Result<Vec<LeadRow>, CallError>, said: Option<&[Value]>, failed: impl Fn(&CallError, bool)) {
    match read {
        Err(error) => failed(&error, false),
        Ok(read) => {
            let said = said.expect("only a success has rows");
            for row in read {
                let is_known = |row: &Value| row["email"].as_str().is_some_and(|email| !email.trim().is_empty());
                let same = said.iter().filter(|said| number(&said["id"]) == Some(row.id));
                let known: BTreeSet<bool> = same.map(is_known).collect();
                assert!(known.contains(&row.known), "known by an email, and not otherwise");
            }
        }
    }
}

/// A file of an extract: what was read of it is read again from a file that is made of it.
fn extract(file: &[u8]) {
    let read = parse_extract(file);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["ecids", "id", "cookies", "email"]).expect("a header");
    for row in &read {
        let joined = |parts: Vec<String>| if parts.is_empty() { "null".to_owned() } else { parts.join(",") };
        let ecids = joined(row.ecids.iter().map(|ecid| ecid.text()).collect());
        let cookies = joined(row.cookies.iter().map(|token| token.as_str().to_owned()).collect());
        let email = if row.known { "a@example.com" } else { "null" };
        writer.write_record([ecids.as_str(), &row.id.to_string(), &cookies, email]).expect("a row");
    }
    assert_eq!(parse_extract(&writer.into_inner().expect("a file")), read);
}

/// The answer to somebody who asks Marketo or Adobe for a token. The first byte says whom and the status.
pub fn vendor_token(data: &[u8]) {
    let [which, body @ ..] = data else { return };
    let status = STATUSES[usize::from(*which) % STATUSES.len()];
    let said = body.to_vec();
    let (deps, _outside) = Outside::new(Box::new(move |_| response(status, &said)));
    if which & 16 == 0 {
        let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
        let marketo = Marketo::new(&deps, &munchkin, NOW + LIFE, Purpose::Poll);
        match run(marketo.slot()) {
            Err(error) => tells_nothing(&error.to_string()),
            Ok(_) => assert!((200..300).contains(&status), "a token by HTTP {status}"),
        }
    } else if let Err(failure) = run(adobe::segments(&deps)) {
        tells_nothing(&failure.to_string());
    }
}

/// Adobe's answer to any call. The first byte says which, the second its HTTP status.
pub fn adobe(data: &[u8]) {
    let [which, status, body @ ..] = data else { return };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let (deps, outside) = world(status, body);
    let org = OrgId::parse(&format!("{ORG}@AdobeOrg")).expect("an organisation");
    let audience = AudienceId::aep("11111111-2222-3333-4444-555555555555").expect("an audience");
    let answer: Option<Value> = serde_json::from_slice(body).ok().filter(|_| status == 200);
    let told = String::from_utf8_lossy(body);
    let failed = |failure: &Failure| tells_nothing(&failure.to_string());
    match which % 6 {
        0 => match run(::adobe::segments(&deps)) {
            Err(failure) => failed(&failure),
            Ok(found) => {
                let answer = answer.expect("only an answer tells of a library");
                assert!(answer.is_array() || answer.as_object().is_some_and(|of| of.values().any(Value::is_array)));
                let sids: BTreeSet<u64> = found.iter().map(|one| one.sid).collect();
                assert!(sids.iter().all(|sid| told.contains(&sid.to_string())));
                assert_eq!(sids.len(), found.len(), "each once");
                let is_id = |sid: &u64| AudienceId::parse(AudienceId::aam(*sid).as_str()).is_some();
                assert!(sids.iter().all(is_id), "an id that cannot be read again");
            }
        },
        1 => match run(::adobe::segment(&deps, 5)) {
            Err(failure) => failed(&failure),
            Ok(None) => assert_eq!(status, 404, "only 404 says that there is none"),
            Ok(Some(found)) => assert_eq!(Some(found.sid), answer.and_then(|answer| number(&answer["sid"]))),
        },
        2 => match run(::adobe::folders(&deps)) {
            Err(failure) => failed(&failure),
            Ok(found) => assert!(found.iter().all(|folder| told.contains(&folder.id.to_string()))),
        },
        3 => match run(::adobe::audiences(&deps, &org)) {
            Err(failure) => failed(&failure),
            Ok(found) => {
                assert!(answer.is_some_and(|answer| answer["children"].is_array()), "an answer of another shape");
                let ids: BTreeSet<&AudienceId> = found.iter().map(|one| &one.id).collect();
                assert_eq!(ids.len(), found.len(), "each once");
            }
        },
        4 => match run(::adobe::audience(&deps, &org, &audience)) {
            Err(failure) => failed(&failure),
            Ok(found) => assert_eq!(found.is_none(), status == 404, "only 404 says that there is none"),
        },
        _ => match run(::adobe::aep_folders(&deps, &org)) {
            Err(failure) => failed(&failure),
            Ok(found) => {
                let ids: BTreeSet<&str> = found.iter().map(|one| one.id.as_str()).collect();
                assert_eq!(ids.len(), found.len(), "each once");
            }
        },
    }
    assert!(outside.calls() > 0);
}
