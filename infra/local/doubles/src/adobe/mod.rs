//! The core of the Adobe double: the IMS token, the library of Audience Manager and of Experience Platform, the files
//! that both deliver, and the messages that both stream.

mod aam;
mod aep;
mod faults;
mod files;
mod ims;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ::world::types::Library;
use http::{Method, Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

pub use aep::Lifecycle;
pub use faults::Faults;
pub use files::{Columns, Export, Format, Info, Key, Numbering, Outbound, Shape};
pub use ims::TOKEN_LIFE_S;
pub use stream::{Algorithm, HttpApi, Message, RealTime, Signature, Stream};

use crate::wire::Params;

/// How the double behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the Developer Console's credential; also the API key.
    pub client_id: String,
    /// Of the credential.
    pub client_secret: String,
    /// The IMS organisation that Experience Platform knows; `None`: any of the right form.
    pub org_id: Option<String>,
    /// The sandbox of Experience Platform.
    pub sandbox: String,
    /// Where the two differ, Experience Platform answers as its `OpenAPI` description says and not as its guide does:
    /// `_page.next` is an integer, `lifecycle` stands for `lifecycleState`, and a folder does not show its children.
    pub openapi: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: "sample-client".to_owned(),
            client_secret: "sample-secret".to_owned(),
            org_id: None,
            sandbox: "prod".to_owned(),
            openapi: false,
        }
    }
}

/// One change of an audience: the segment, the ECID, and whether it is in from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The segment.
    pub sid: u64,
    /// 38 digits.
    pub ecid: String,
    /// In or out.
    pub member: bool,
}

/// What the next delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// A file made elsewhere.
    File {
        /// Its name.
        name: String,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// The audiences change, and a full file shows it.
    Changes(Vec<Change>),
}

/// Everything that outlives a restart of the double.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    library: Library,
    /// Each ECID (38 digits) and its segments.
    members: BTreeMap<String, BTreeSet<u64>>,
    /// When an ECID last came into a segment or left it.
    #[serde(default)]
    turned: BTreeMap<String, BTreeMap<u64, u64>>,
    #[serde(default)]
    inactive: BTreeSet<u64>,
    /// People of Experience Platform.
    #[serde(default)]
    profiles: BTreeMap<u64, aep::Profile>,
    #[serde(default)]
    lifecycles: BTreeMap<String, Lifecycle>,
    /// When a segment or an audience was last changed, by its id.
    #[serde(default)]
    edited: BTreeMap<String, u64>,
    /// What each destination was not told yet.
    #[serde(default)]
    destinations: BTreeMap<String, Untold>,
    planned: VecDeque<Delivery>,
    created_ms: u64,
    #[serde(default)]
    latest_ms: u64,
    delivered: u64,
}

/// What changed since a destination was last told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Untold {
    /// Each ECID that changed, and whether it was in the segment then.
    segments: BTreeMap<String, BTreeMap<u64, bool>>,
    /// Each profile that changed, and whether it was in the audience then.
    audiences: BTreeMap<u64, BTreeMap<String, bool>>,
    /// Profiles that have another ECID, or of which an attribute was written.
    touched: BTreeSet<u64>,
}

/// An IMS organisation's Audience Manager and Experience Platform.
#[derive(Debug)]
pub struct Adobe {
    settings: Settings,
    state: State,
    /// Members per segment.
    counts: BTreeMap<u64, usize>,
    /// Tokens and until when they are good.
    tokens: Vec<(String, u64)>,
    issued: u64,
    /// The code with which Experience Platform refuses every call.
    platform_refuses: Option<String>,
    /// Audience Manager refuses every call.
    manager_refuses: bool,
}

impl Adobe {
    /// A library, and no members.
    #[must_use]
    pub fn new(settings: Settings, library: Library, now_ms: u64) -> Self {
        Self::from_state(settings, State { library, created_ms: now_ms, latest_ms: now_ms, ..State::default() })
    }

    /// As an earlier run left it (see [`Adobe::state`]).
    #[must_use]
    pub fn from_state(settings: Settings, state: State) -> Self {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for sid in state.members.values().flatten() {
            *counts.entry(*sid).or_default() += 1;
        }
        Self { settings, state, counts, tokens: Vec::new(), issued: 0, platform_refuses: None, manager_refuses: false }
    }

    /// What to keep for the next run.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Folders, segments and audiences.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.state.library
    }

    /// Adds to what [`Adobe::next_file`] will deliver.
    pub fn plan(&mut self, delivery: Delivery) {
        self.state.planned.push_back(delivery);
    }

    /// Takes back a file that could not be delivered: it is the next one again.
    pub fn take_back(&mut self, name: String, bytes: Vec<u8>) {
        self.state.delivered = self.state.delivered.saturating_sub(1);
        self.state.planned.push_front(Delivery::File { name, bytes });
    }

    /// How many deliveries are planned.
    #[must_use]
    pub fn planned(&self) -> usize {
        self.state.planned.len()
    }

    /// How many files of data were written so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.state.delivered
    }

    /// The next file: the one planned, or the one that shows the planned changes, or else a full file of now.
    pub fn next_file(&mut self, time_ms: u64) -> (String, Vec<u8>) {
        match self.state.planned.pop_front() {
            Some(Delivery::File { name, bytes }) => {
                self.state.delivered += 1;
                (name, bytes)
            }
            Some(Delivery::Changes(changes)) => {
                for change in changes {
                    self.set_member_at(time_ms, change.sid, &change.ecid, change.member);
                }
                self.full_file(time_ms)
            }
            None => self.full_file(time_ms),
        }
    }

    /// Answers one call.
    pub fn handle(&mut self, now_ms: u64, request: &Request<Vec<u8>>) -> Response<Vec<u8>> {
        let path = request.uri().path();
        if path == "/ims/token/v3" {
            return if request.method() == Method::POST {
                self.token(now_ms, request)
            } else {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use POST")
            };
        }
        let known = ["/v1/", "/data/core/ups/audiences", "/unifiedfolders/folders/segment/"];
        if !known.iter().any(|root| path.starts_with(root)) {
            return error(StatusCode::NOT_FOUND, "404", "Not found");
        }
        if let Some(refused) = self.refusal(now_ms, request) {
            return refused;
        }
        if request.method() != Method::GET {
            return error(StatusCode::METHOD_NOT_ALLOWED, "405", "Method not allowed");
        }
        let params = Params::of_query(request.uri().query());
        match path.strip_prefix("/v1/") {
            Some(_) if self.manager_refuses => error(StatusCode::FORBIDDEN, "403", "Access is denied"),
            Some(path) => self.audience_manager(path, &params),
            None => self.platform(request, &params),
        }
    }

    /// The time, or the latest one seen if that is later.
    fn seen(&mut self, time_ms: u64) -> u64 {
        self.state.latest_ms = self.state.latest_ms.max(time_ms);
        self.state.latest_ms
    }

    /// What a destination was not told yet, which counts as told from now on. A destination that was told nothing so
    /// far is told everybody.
    fn untold(&mut self, destination: &str) -> Untold {
        if let Some(known) = self.state.destinations.get_mut(destination) {
            return std::mem::take(known);
        }
        self.state.destinations.insert(destination.to_owned(), Untold::default());
        let outside = |sids: &BTreeSet<u64>| sids.iter().map(|sid| (*sid, false)).collect();
        let segments = self.state.members.iter().map(|(ecid, sids)| (ecid.clone(), outside(sids))).collect();
        let audiences = self.state.profiles.iter().map(|(profile, about)| (*profile, about.news())).collect();
        Untold { segments, audiences, touched: BTreeSet::new() }
    }
}

/// Whether this is an ECID: exactly 38 digits.
fn is_ecid(text: &str) -> bool {
    text.len() == 38 && text.bytes().all(|b| b.is_ascii_digit())
}

fn json(status: StatusCode, body: String) -> Response<Vec<u8>> {
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Vec<u8>> {
    json(status, format!(r#"{{"error":"{code}","error_description":"{message}"}}"#))
}
