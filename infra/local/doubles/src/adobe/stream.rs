//! The messages that Adobe streams, made from the double's own state.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use md5::Md5;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::files::{Key, hex, uuid};
use super::{Adobe, Untold};
use crate::wire::iso;

/// Users of one message of Audience Manager, and profiles of one of Experience Platform, at most.
const AT_ONCE: usize = 10;
/// How long Experience Platform repeats that a profile has left an audience, in ms.
const EXITED_SHOWN_MS: u64 = 30 * 86_400_000;

/// A stream of one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Audience Manager's real-time outbound transfer.
    AudienceManager(RealTime),
    /// Experience Platform's HTTP API destination.
    Platform(HttpApi),
}

/// Audience Manager's real-time outbound transfer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct RealTime {
    /// The destination's id.
    pub destination: String,
    /// The segments that are mapped to the destination. `None`: all.
    pub mapped: Option<BTreeSet<u64>>,
    /// Users of one message, 1 to 10.
    pub users: usize,
    /// Numbers are numbers, as the table of types says; else strings, as in the sample.
    pub numbers: bool,
    /// `AAM_Destination_ID`, as in the table; else `AAM_Destination_Id`, as in the sample.
    pub upper_id: bool,
    /// With `AAM_Regions`.
    pub regions: bool,
    /// The daily batch: only what changed since the last message; else all segments of each user who changed.
    pub batch: bool,
    /// What `AAM_UUID` carries; the other id stands in `DataPartner_UUID`.
    pub key: Key,
    /// How messages are signed. `None`: they are not.
    pub signature: Option<Signature>,
}

impl Default for RealTime {
    fn default() -> Self {
        Self {
            destination: "333".to_owned(),
            mapped: None,
            users: AT_ONCE,
            numbers: false,
            upper_id: false,
            regions: true,
            batch: false,
            key: Key::Ecid,
            signature: None,
        }
    }
}

/// Experience Platform's HTTP API destination.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct HttpApi {
    /// The destination's id.
    pub destination: String,
    /// The audiences that are mapped to the destination. `None`: all.
    pub audiences: Option<BTreeSet<String>>,
    /// Audiences of the same merge policy that are not mapped show up as well.
    pub unmapped: bool,
    /// Profiles of one message, 1 to 10; only an array holds several.
    pub profiles: usize,
    /// A message is an array; else an object.
    pub array: bool,
    /// The namespace is `ECID`; else `ecid`.
    pub upper_namespace: bool,
    /// Times end in `+0000`; else in `Z`.
    pub offset: bool,
    /// Memberships that are not new have the status `existing`.
    pub existing: bool,
    /// "Include Segment Names": mapped audiences bear their name.
    pub names: bool,
    /// "Include Segment Timestamps".
    pub timestamps: bool,
    /// The bearer token of each message. `None`: no authorization.
    pub token: Option<String>,
}

impl Default for HttpApi {
    fn default() -> Self {
        Self {
            destination: "aaaaaaaa-0000-4000-8000-000000000002".to_owned(),
            audiences: None,
            unmapped: false,
            profiles: AT_ONCE,
            array: false,
            upper_namespace: false,
            offset: false,
            existing: false,
            names: false,
            timestamps: false,
            token: None,
        }
    }
}

impl Stream {
    /// The destination's id.
    #[must_use]
    pub fn destination(&self) -> &str {
        match self {
            Self::AudienceManager(stream) => &stream.destination,
            Self::Platform(stream) => &stream.destination,
        }
    }

    /// How long the sender waits for an answer, in ms; how often it tries again; and which answers content it.
    #[must_use]
    pub fn patience(&self) -> (u64, usize, std::ops::RangeInclusive<u16>) {
        match self {
            // Any other success counts as a failure.
            Self::AudienceManager(_) => (3_000, 1, 200..=200),
            Self::Platform(_) => (2_000, 2, 200..=299),
        }
    }
}

/// How Audience Manager signs a message: the base64 of the HMAC over the raw body, in a header.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Signature {
    /// The header's name, as agreed with Adobe.
    pub header: String,
    /// The key.
    pub key: String,
    /// The hash.
    pub algorithm: Algorithm,
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signature").field("header", &self.header).field("algorithm", &self.algorithm).finish()
    }
}

/// The hash of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// HMAC-SHA256.
    Sha256,
    /// HMAC-SHA1.
    Sha1,
    /// HMAC-MD5.
    Md5,
}

impl Signature {
    /// What the header holds for this body.
    #[must_use]
    pub fn of(&self, body: &[u8]) -> String {
        macro_rules! mac {
            ($hash:ty) => {{
                // HMAC takes a key of any length.
                let mac = Hmac::<$hash>::new_from_slice(self.key.as_bytes());
                mac.map(|mut mac| {
                    mac.update(body);
                    STANDARD.encode(mac.finalize().into_bytes())
                })
                .unwrap_or_default()
            }};
        }
        match self.algorithm {
            Algorithm::Sha256 => mac!(Sha256),
            Algorithm::Sha1 => mac!(Sha1),
            Algorithm::Md5 => mac!(Md5),
        }
    }
}

/// A message: a POST with these headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// JSON.
    pub body: Vec<u8>,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Adobe {
    /// What changed since the last call for the same destination, as messages. At the first call that is everybody,
    /// unless [`Adobe::skip`] came before.
    pub fn events(&mut self, time_ms: u64, stream: &Stream) -> Vec<Message> {
        let time_ms = self.seen(time_ms);
        match stream {
            Stream::AudienceManager(real_time) => {
                let untold = self.untold(&real_time.destination);
                self.real_time(time_ms, real_time, &untold)
            }
            Stream::Platform(http) => {
                let untold = self.untold(&http.destination);
                self.http_api(time_ms, http, &untold)
            }
        }
    }

    /// What a destination (a stream's or an export's, or the root of outbound files) was not told yet, it will never
    /// be told as a change.
    pub fn skip(&mut self, destination: &str) {
        self.state.destinations.insert(destination.to_owned(), Untold::default());
    }

    fn real_time(&self, time_ms: u64, stream: &RealTime, untold: &Untold) -> Vec<Message> {
        let mapped = self.mapped(stream.mapped.as_ref());
        let mapped = |sid: &u64| mapped.contains(sid);
        let number = |number: &str| match number.parse::<u64>() {
            Ok(parsed) if stream.numbers => json!(parsed),
            _ => json!(number),
        };
        let mut users = Vec::new();
        for (ecid, changed) in &untold.segments {
            if !changed.keys().any(mapped) {
                continue;
            }
            let mut sids: BTreeSet<u64> = changed.keys().copied().collect();
            if !stream.batch {
                sids.extend(self.state.members.get(ecid).into_iter().flatten());
            }
            let segments = sids.iter().filter(|sid| mapped(sid)).map(|sid| {
                let status = if self.is_member(*sid, ecid) { "1" } else { "0" };
                json!({"Segment_ID": number(&sid.to_string()), "Status": number(status),
                    "DateTime": written_out(self.turned_at(*sid, ecid))})
            });
            let (first, second) = match stream.key {
                Key::Ecid => (ecid.clone(), uuid(ecid)),
                Key::Uuid => (uuid(ecid), ecid.clone()),
            };
            let mut user = json!({"AAM_UUID": first, "DataPartner_UUID": second});
            if stream.regions {
                user["AAM_Regions"] = json!(["9"]);
            }
            user["Segments"] = segments.collect();
            users.push(user);
        }
        let messages = users.chunks(stream.users.clamp(1, AT_ONCE)).map(|users| {
            let destination = if stream.upper_id { "AAM_Destination_ID" } else { "AAM_Destination_Id" };
            let body = json!({
                "ProcessTime": written_out(time_ms), "User_DPID": number("111"), "Client_ID": number("222"),
                destination: number(&stream.destination), "User_count": number(&users.len().to_string()), "Users": users,
            });
            let body = body.to_string().into_bytes();
            let mut headers = headers(&[
                ("content-type", "application/json"),
                ("user-agent", "Adobe Audience Manager Iris"),
            ]);
            if let Some(signature) = &stream.signature {
                headers.push((signature.header.to_lowercase(), signature.of(&body)));
            }
            Message { body, headers }
        });
        messages.collect()
    }

    fn http_api(&self, time_ms: u64, stream: &HttpApi, untold: &Untold) -> Vec<Message> {
        let mapped = |id: &str| stream.audiences.as_ref().is_none_or(|audiences| audiences.contains(id));
        let time = |ms: u64| {
            let text = iso(ms);
            if stream.offset { text.replace('Z', "+0000") } else { text }
        };
        let profiles: BTreeSet<u64> = untold.audiences.keys().chain(&untold.touched).copied().collect();
        let mut shown = Vec::new();
        for profile in profiles {
            let Some(about) = self.state.profiles.get(&profile) else { continue };
            let changed = untold.audiences.get(&profile);
            let news = changed.is_some_and(|changed| changed.keys().any(|id| mapped(id)));
            let current = about.audiences.iter().filter(|(_, membership)| {
                membership.inside || time_ms.saturating_sub(membership.since_ms) < EXITED_SHOWN_MS
            });
            let current: Vec<_> = current.filter(|(id, _)| stream.unmapped || mapped(id)).collect();
            let repeated = untold.touched.contains(&profile) && current.iter().any(|(id, _)| mapped(id));
            if !(news || repeated) {
                continue;
            }
            let mut memberships = Map::new();
            for (id, membership) in current {
                let status = match (membership.inside, changed.is_some_and(|changed| changed.contains_key(id))) {
                    (false, _) => "exited",
                    (true, false) if stream.existing => "existing",
                    (true, _) => "realized",
                };
                let mut entry = json!({"lastQualificationTime": time(membership.since_ms), "status": status});
                if stream.names && mapped(id) {
                    let audience = self.state.library.audiences.iter().find(|audience| audience.id == *id);
                    entry["name"] = json!(audience.map(|audience| &audience.name));
                }
                if stream.timestamps {
                    entry["createdAt"] = json!(membership.first_ms);
                    entry["updatedAt"] = json!(membership.since_ms);
                    if mapped(id) {
                        entry["mappingCreatedAt"] = json!(self.state.created_ms);
                        entry["mappingUpdatedAt"] = json!(self.state.created_ms);
                    }
                }
                memberships.insert(id.clone(), entry);
            }
            let ecids: Vec<Value> = about.ecids.iter().map(|ecid| json!({"id": ecid})).collect();
            let namespace = if stream.upper_namespace { "ECID" } else { "ecid" };
            let email = hex(&Sha256::digest(format!("person{profile}@example.com")));
            shown.push(json!({
                "person": {"name": {"firstName": "Sample"}},
                "segmentMembership": {"ups": memberships},
                "identityMap": {namespace: ecids, "email_lc_sha256": [{"id": email}]},
            }));
        }
        let size = if stream.array { stream.profiles.clamp(1, AT_ONCE) } else { 1 };
        let messages = shown.chunks(size).map(|profiles| {
            let body = if stream.array { json!(profiles) } else { profiles[0].clone() };
            let mut headers = headers(&[("content-type", "application/json")]);
            if let Some(token) = &stream.token {
                headers.push(("authorization".to_owned(), format!("Bearer {token}")));
            }
            Message { body: body.to_string().into_bytes(), headers }
        });
        messages.collect()
    }
}

fn headers(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// `Fri Jan 02 03:04:05 UTC 2026`
fn written_out(time_ms: u64) -> String {
    let at = i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX);
    at.strftime("%a %b %d %H:%M:%S UTC %Y").to_string()
}
