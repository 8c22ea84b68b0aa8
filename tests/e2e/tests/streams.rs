//! Both streams, from Adobe's request to the list and out of it again, with the real functions.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::run::{Data, Running, eventually, get, post, start};
use crate::tests::{address, lists};

pub const VIP: u64 = 1001;
pub const ANNA: u64 = 100_001;
pub const BEN: u64 = 100_002;
pub const CARLA: u64 = 100_003;
/// Browsers of Anna and of Carla.
const ANNAS: u32 = 1;
pub const CARLAS: u32 = 4;
const AUDIENCE: &str = "11111111-2222-3333-4444-555555555555";
// What the local stack's receiver knows.
pub const KEY: &str = "sample-secret-key";
const OLD_KEY: &str = "sample-secret-old-key";
const TOKEN: &str = "sample-secret-token";

/// A running stack with the five people of the fixture, both files delivered and settled.
pub struct Stack {
    pub data: Data,
    pub running: Running,
    client: Client,
    pub api: String,
    marketo: String,
}

impl Stack {
    pub async fn begin(data: Data) -> Self {
        let mut running = start(&data, &["--port", "0"]);
        let api = address(&mut running, "Open ").await;
        let marketo = address(&mut running, "        Marketo's world: ").await;
        let client = Client::builder().no_proxy().build().expect("client");
        let stack = Self { data, running, client, api, marketo };
        stack.until("the second file", VIP, &[ANNA, BEN]).await;
        stack
    }

    async fn members(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        lists(&get(&format!("{}/lists", self.marketo)).await)
    }

    /// Waits until a list holds exactly these people.
    pub async fn until(&self, what: &str, list: u64, people: &[u64]) {
        let people: BTreeSet<u64> = people.iter().copied().collect();
        let look = || async { (self.members().await.get(&list) == Some(&people)).then_some(()) };
        eventually(what, look).await;
    }

    pub async fn declare(&self, feed: &str, settings: Value) {
        let put = self.client.put(format!("{}/feeds/{feed}", self.api)).body(settings.to_string()).send();
        let answer = put.await.expect("answer");
        assert!(answer.status().is_success(), "{}", String::from_utf8_lossy(&answer.bytes().await.expect("body")));
    }

    /// Sends what Adobe sends; status and body.
    async fn send(&self, path: &str, header: (&str, &str), kind: &str, body: &str) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.api)).header(header.0, header.1);
        let answer = request.header("content-type", kind).body(body.to_owned()).send().await.expect("answer");
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("body");
        assert!(status != 200 || !path.ends_with("/events") || body.is_empty(), "200 and nothing else");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A message of Audience Manager with this signature.
    pub async fn signed(&self, signature: &str, body: &str) -> u16 {
        self.send("/feeds/web/events", ("X-Signature", signature), "application/json", body).await.0
    }

    /// A message of Experience Platform with this token.
    async fn shown(&self, token: &str, body: &str) -> u16 {
        let token = format!("Bearer {token}");
        self.send("/feeds/live/events", ("Authorization", &token), "application/json", body).await.0
    }
}

pub fn signature(key: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    STANDARD.encode(mac.chain_update(body).finalize().into_bytes())
}

/// What Audience Manager says of segment 101 on the day after the last file.
pub fn user(ecid: u32, status: u8, second: u8) -> String {
    let time = format!("Tue Nov 03 09:00:{second:02} UTC 2026");
    let segment = json!({"Segment_ID": "101", "Status": status.to_string(), "DateTime": time});
    let user = json!({"AAM_UUID": format!("{:038}", 77), "DataPartner_UUID": format!("{ecid:038}"),
        "AAM_Regions": ["9"], "Segments": [segment]});
    json!({"User_DPID": "111", "User_count": "1", "Users": [user]}).to_string()
}

/// What Experience Platform says of a profile on that day.
fn profile(ecids: &[u32], status: &str, second: u8) -> String {
    let time = format!("2026-11-03T09:00:{second:02}Z");
    let ids: Vec<Value> = ecids.iter().map(|ecid| json!({"id": format!("{ecid:038}")})).collect();
    json!([{"identityMap": {"ecid": ids}, "segmentMembership": {"ups": {
        AUDIENCE: {"lastQualificationTime": time, "status": status, "name": "Live"},
        "66666666-7777-8888-9999-000000000000": {"lastQualificationTime": time, "status": "realized"}}}}])
    .to_string()
}

#[tokio::test]
async fn whoever_enters_by_audience_managers_stream_joins_and_whoever_exits_leaves() {
    let stack = Stack::begin(Data::tiny()).await;
    stack.declare("web", json!({"kind": "aam-stream", "ecid_field": "DataPartner_UUID"})).await;
    let enter = user(CARLAS, 1, 1);
    // Perhaps its process has read the feeds just before this one was declared.
    eventually("the feed", async || (stack.signed("none", &enter).await == 401).then_some(())).await;

    let right = signature(KEY, &enter);
    assert_eq!(stack.signed(&right, &enter.replace("\"1\"", "\"0\"")).await, 401, "it was altered");
    assert_eq!(stack.signed(&signature("another key", &enter), &enter).await, 401);
    assert_eq!(stack.signed(&signature(KEY, "{"), "{").await, 400);
    let get = stack.client.get(format!("{}/feeds/web/events", stack.api)).send().await.expect("answer");
    assert_eq!(get.status().as_u16(), 405);
    assert_eq!(stack.signed(&right, &enter).await, 200);
    stack.until("Carla in the list", VIP, &[ANNA, BEN, CARLA]).await;

    // It comes again, with the old key: the person who leaves is the one of the later entry.
    let exit = user(CARLAS, 0, 2);
    assert_eq!(stack.signed(&signature(OLD_KEY, &exit), &exit).await, 200);
    assert_eq!(stack.signed(&right, &enter).await, 200);
    stack.until("Carla out of the list", VIP, &[ANNA, BEN]).await;
    stack.running.interrupt().await;
    stack.data.assert_logs_tell_nothing();
}

#[tokio::test]
async fn all_browsers_of_a_profile_enter_and_exit_by_experience_platforms_stream() {
    let data = Data::tiny();
    let mut library = data.json("library.json");
    library["audiences"] = json!([{"id": AUDIENCE, "name": "Live"}]);
    data.put("library.json", library.to_string());
    let stack = Stack::begin(data).await;
    stack.declare("live", json!({"kind": "aep-stream"})).await;
    let sync = json!({"audience_id": format!("aep:{AUDIENCE}"), "list": {"name": "Live"}});
    let (status, made) = post(&format!("{}/syncs", stack.api), &sync).await;
    assert!(status < 300, "{status} {made}");
    let path = format!("{}/syncs/{}", stack.api, made["id"].as_str().expect("an id"));
    let list = eventually("the list", async || get(&path).await["list"]["id"].as_u64()).await;
    let enter = profile(&[ANNAS, CARLAS], "realized", 1);
    eventually("the feed", async || (stack.shown("none", &enter).await == 401).then_some(())).await;
    assert_eq!(stack.shown(TOKEN, &enter).await, 200);
    stack.until("both of the profile", list, &[ANNA, CARLA]).await;

    // The exit comes with a token that we gave out ourselves.
    let basic = |secret: &str| format!("Basic {}", STANDARD.encode(format!("sample-client:{secret}")));
    let form = "application/x-www-form-urlencoded;charset=UTF-8";
    let grant = "grant_type=client_credentials";
    let wrong = stack.send("/feeds/live/token", ("Authorization", &basic("wrong")), form, grant).await;
    assert_eq!(wrong, (401, json!({"error": "invalid_client"})));
    let (status, given) =
        stack.send("/feeds/live/token", ("Authorization", &basic("sample-secret")), form, grant).await;
    assert_eq!((status, &given["token_type"]), (200, &json!("Bearer")));
    let token = given["access_token"].as_str().expect("a token");
    assert_eq!(stack.shown(token, &profile(&[ANNAS], "exited", 2)).await, 200);
    stack.until("Anna out of the list", list, &[CARLA]).await;
    let feeds = get(&format!("{}/feeds", stack.api)).await;
    let live = feeds.as_array().expect("feeds").iter().find(|feed| feed["id"] == "live").expect("the feed");
    assert_eq!((&live["came"]["taken"], &live["came"]["ignored"]), (&json!(3), &json!(2)), "{live}");
    stack.running.interrupt().await;
    stack.data.assert_logs_tell_nothing();
}
