//! The browser tag: the script itself, by two kinds of address, and the line that a page needs to load it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda::HttpEvent;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha384};
use state::syncs::{Subscription, subscriptions};
use state::{Deps, Step};

use crate::answer::{Answer, problem};

const SCRIPT: &str = include_str!("../tag/tag.js");
/// Hexadecimal digits of the script's SHA-256 in its file name.
const DIGITS: usize = 16;
/// Browsers ask again after 5 minutes whether there is a newer one.
const SHORT: &str = "public, max-age=300";
/// A year, the longest that browsers keep anything: this address never shows anything else.
const LONG: &str = "public, max-age=31536000, immutable";

/// The first digits of the script's SHA-256.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let hash = Sha256::digest(SCRIPT).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    hash[..DIGITS].to_owned()
});

/// `GET /tag.js`: the script as it is today.
pub(crate) fn script(request: &HttpEvent) -> Answer {
    served(request, SHORT)
}

/// `GET /tag/{file}`: the script by its hash, for good. A page that names an older one gets today's, so that it goes on
/// working.
pub(crate) fn file(request: &HttpEvent, name: &str) -> Answer {
    match name.strip_suffix(".js") {
        Some(hash) if hash == *HASH => served(request, LONG),
        Some(hash) if hash.len() == DIGITS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
            served(request, SHORT)
        }
        _ => problem(404, "Not found", "expected 16 hexadecimal digits and .js; GET /tag says which"),
    }
}

fn served(request: &HttpEvent, cache: &str) -> Answer {
    let etag = format!("\"{}\"", *HASH);
    let mut known = request.header("if-none-match").unwrap_or_default().split(',').map(str::trim);
    let fresh = known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag);
    let headers = vec![
        ("cache-control", cache.to_owned()),
        ("etag", etag),
        ("access-control-allow-origin", "*".to_owned()),
        ("cross-origin-resource-policy", "cross-origin".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ];
    let (status, body) = if fresh { (304, Vec::new()) } else { (200, SCRIPT.as_bytes().to_vec()) };
    Answer { status, content_type: "text/javascript; charset=utf-8", headers, body }
}

/// `GET /tag`: the script's file name and integrity, and the line for a page.
pub(crate) async fn snippet(deps: &Deps, request: &HttpEvent) -> Step<Answer> {
    let all = subscriptions(deps).await?;
    let mut query = form_urlencoded::parse(request.query.as_bytes());
    let wanted = query.find(|(name, _)| name == "munchkin_id").map(|(_, value)| value.into_owned());
    let subscription = match wanted {
        Some(wanted) => all.iter().find(|one| one.munchkin_id.as_str() == wanted),
        None if all.len() > 1 => {
            return Ok(problem(400, "Which subscription?", "there are several: say which with ?munchkin_id="));
        }
        None => all.first(),
    };
    let Some(subscription) = subscription else {
        return Ok(problem(404, "No subscription", "there is no such subscription; PUT /subscription makes one"));
    };
    Ok(page_line(subscription, request))
}

fn page_line(subscription: &Subscription, request: &HttpEvent) -> Answer {
    let host = request.header("host").unwrap_or_default();
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)) {
        return problem(400, "Which host?", "the header Host is not the name of a host");
    }
    let org = match (subscription.refused(), &subscription.org_id) {
        (Some(why), _) => return problem(409, "Closed", why.english),
        (None, None) => return problem(409, "Closed", "no IMS organisation is mapped"),
        (None, Some(org)) => org,
    };
    // API Gateway always says https; the local stack says nothing and knows no TLS.
    let scheme = if request.header("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    let file = format!("tag/{}.js", *HASH);
    let munchkin = &subscription.munchkin_id;
    // Without the integrity: a page that has it stops working with the next version of the tag.
    let snippet = format!(
        "<script async src=\"{scheme}://{host}/{file}\" data-org=\"{org}\" data-munchkin=\"{munchkin}\"></script>"
    );
    let integrity = format!("sha384-{}", STANDARD.encode(Sha384::digest(SCRIPT)));
    Answer::json(200, &json!({"file": file, "integrity": integrity, "snippet": snippet}))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn asked(headers: &[(&str, &str)]) -> HttpEvent {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HttpEvent { method: "GET".into(), headers, ..HttpEvent::default() }
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
        answer.headers.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn the_script_is_kept_for_good_under_its_own_hash_and_briefly_elsewhere() {
        let name = format!("{}.js", *HASH);
        for (answer, cache) in [
            (script(&asked(&[])), SHORT),
            (file(&asked(&[]), &name), LONG),
            (file(&asked(&[]), "0123456789abcdef.js"), SHORT),
        ] {
            assert_eq!((answer.status, header(&answer, "cache-control")), (200, cache));
            assert_eq!(
                (answer.content_type, answer.body.as_slice()),
                ("text/javascript; charset=utf-8", SCRIPT.as_bytes())
            );
            assert_eq!(header(&answer, "access-control-allow-origin"), "*");
            assert_eq!(header(&answer, "cross-origin-resource-policy"), "cross-origin");
            assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        }
        for name in ["0123456789abcdef", "0123456789abcde.js", "0123456789ABCDEF.js", "../../secret.js", ""] {
            assert_eq!(file(&asked(&[]), name).status, 404, "{name}");
        }
    }

    #[test]
    fn who_has_the_script_is_not_sent_it_again() {
        let etag = header(&script(&asked(&[])), "etag").to_owned();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
            let answer = script(&asked(&[("if-none-match", &known)]));
            assert_eq!((answer.status, answer.body.len(), header(&answer, "etag")), (304, 0, etag.as_str()), "{known}");
        }
        assert_eq!(script(&asked(&[("if-none-match", "\"other\"")])).status, 200);
    }

    #[test]
    fn the_line_for_a_page_names_organisation_and_subscription() {
        let subscription: Subscription = serde_json::from_value(json!({
            "munchkin_id": "123-ABC-456", "org_id": "0123456789ABCDEF01234567@AdobeOrg",
        }))
        .unwrap();
        let answer =
            page_line(&subscription, &asked(&[("host", "collect.example.com"), ("x-forwarded-proto", "https")]));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let expected = format!(
            "<script async src=\"https://collect.example.com/tag/{}.js\" \
             data-org=\"0123456789ABCDEF01234567@AdobeOrg\" data-munchkin=\"123-ABC-456\"></script>",
            *HASH
        );
        assert_eq!((answer.status, &body["snippet"]), (200, &json!(expected)));
        assert!(body["integrity"].as_str().is_some_and(|text| text.starts_with("sha384-") && text.len() == 71));
        assert_eq!(page_line(&subscription, &asked(&[("host", "a\"><script>")])).status, 400);
        let closed = Subscription { hipaa_ready: true, ..subscription };
        assert_eq!(page_line(&closed, &asked(&[("host", "collect.example.com")])).status, 409);
    }
}
