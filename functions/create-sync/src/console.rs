//! The console's static files, and the contract of the API.
//!
//! The files stand in the function itself: whoever deploys it builds nothing else. Everything that the console shows
//! comes from the documented API.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::OnceLock;

use domain::said::Said;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::access::SignIn;
use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// The page that loads the others.
pub(crate) const INDEX: &str = "index.html";

/// A file of the console.
struct File {
    name: &'static str,
    bytes: &'static [u8],
    sent: OnceLock<Sent>,
}

/// What is made of a file once in the life of a process.
struct Sent {
    tag: String,
    plain: Cow<'static, [u8]>,
    compressed: Vec<u8>,
}

macro_rules! files {
    ($($name:literal),* $(,)?; $($words:literal),* $(,)?; $($guide:literal),* $(,)?) => {
        [
            $(File { name: $words, bytes: include_bytes!("../console/catalogue.json"), sent: OnceLock::new() },)*
            $(File { name: $name, bytes: include_bytes!(concat!("../console/", $name)), sent: OnceLock::new() },)*
            $(File {
                name: $guide,
                bytes: include_bytes!(concat!("../../../infra/docs/", $guide)),
                sent: OnceLock::new(),
            },)*
        ]
    };
}

/// All of them, the catalogue by language, and the user guide; a test compares them with the folder.
static FILES: [File; 37] = files![
    "alerts.js",
    "api.js",
    "app.js",
    "audit.js",
    "auth.js",
    "chart.js",
    "combobox.js",
    "compare.js",
    "create-done.js",
    "create-list.js",
    "create.js",
    "destination.js",
    "dom.js",
    "explain.js",
    "feeds.js",
    "figures.js",
    "funnel.js",
    "help.js",
    "home.js",
    "index.html",
    "matters.js",
    "parts.js",
    "preview.js",
    "runs.js",
    "settings.js",
    "setup.js",
    "steps.js",
    "style.css",
    "sync.js",
    "tree.js",
    "words.js";
    "catalogue.en.json",
    "catalogue.fr.json",
    "catalogue.sv.json";
    "guide.en.md",
    "guide.fr.md",
    "guide.sv.md",
];

impl File {
    fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("json") => "application/json",
            // Readable as it is.
            Some("md") => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        }
    }

    fn sent(&self) -> &Sent {
        self.sent.get_or_init(|| {
            let language = self.name.strip_prefix("catalogue.").and_then(|rest| rest.strip_suffix(".json"));
            let plain = match language {
                None => Cow::Borrowed(self.bytes),
                Some(language) => Cow::Owned(in_language(self.bytes, language)),
            };
            let tag: String = Sha256::digest(&plain).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
            let mut out = GzEncoder::new(Vec::new(), Compression::best());
            // Into memory: neither can fail. If it did, the file would be sent as it is.
            let compressed = out.write_all(&plain).and_then(|()| out.finish()).unwrap_or_default();
            Sent { tag, plain, compressed }
        })
    }
}

/// The catalogue in one of its languages: a browser loads a third of it.
fn in_language(catalogue: &[u8], language: &str) -> Vec<u8> {
    let all: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(catalogue).unwrap_or_default();
    let one = |(key, mut words): (String, BTreeMap<String, String>)| Some((key, words.remove(language)?));
    let found: BTreeMap<String, String> = all.into_iter().filter_map(one).collect();
    serde_json::to_vec(&found).unwrap_or_default()
}

/// What the console's pages may load and ask. `origins`: where they sign in, beside the API itself.
fn policy(origins: &[String]) -> String {
    let mut connect = "'self'".to_owned();
    for origin in origins {
        connect.push(' ');
        connect.push_str(origin);
    }
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src {connect}; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// `GET /console/{file}`, and `GET /` as [`INDEX`].
pub(crate) fn file(request: &Request, name: &str) -> Answer<Response> {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return Err(Problem::new(404, Said::new("file_unknown", "the console has no such file")));
    };
    let sent = file.sent();
    let is_packed = takes_gzip(request) && !sent.compressed.is_empty();
    // One tag for each form of the file: the bytes differ.
    let tag = format!("\"{}{}\"", sent.tag, if is_packed { "-gz" } else { "" });
    let origins = request.sign_in.as_ref().map(SignIn::origins).unwrap_or_default();
    let mut headers = vec![
        ("etag", tag.clone()),
        // Kept, but asked for again: after an update nobody runs half of the old console.
        ("cache-control", "no-cache".to_owned()),
        ("vary", "accept-encoding".to_owned()),
        ("content-security-policy", policy(&origins)),
        ("x-content-type-options", "nosniff".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
    ];
    if is_known(request, &tag) {
        return Ok(Response { status: 304, content_type: "", body: Vec::new(), headers });
    }
    let body = if is_packed {
        headers.push(("content-encoding", "gzip".to_owned()));
        sent.compressed.clone()
    } else {
        sent.plain.to_vec()
    };
    Ok(Response { status: 200, content_type: file.content_type(), body, headers })
}

/// Whether `accept-encoding` names gzip, and not with `q=0`.
fn takes_gzip(request: &Request) -> bool {
    let accepted = request.header("accept-encoding").unwrap_or_default();
    accepted.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = |part: &str| {
            let quality = part.strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok());
            quality.is_some_and(|quality| quality <= 0.0)
        };
        is_gzip && !parts.any(is_refused)
    })
}

/// Whether the browser has this very file. A proxy may have made the tag a weak one.
fn is_known(request: &Request, tag: &str) -> bool {
    let known = request.header("if-none-match").unwrap_or_default();
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// The contract of the API, as OpenAPI 3.1.
const CONTRACT: &str = include_str!("../openapi.json");

/// `GET /openapi.json`.
pub(crate) fn contract() -> Response {
    let headers = vec![("cache-control", "no-cache".to_owned()), ("x-content-type-options", "nosniff".to_owned())];
    Response { status: 200, content_type: "application/json", body: CONTRACT.into(), headers }
}
