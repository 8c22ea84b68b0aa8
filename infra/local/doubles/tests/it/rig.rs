//! A subscription of six people, a clock, and short ways to call.

use ::http::{Method, Request};
use doubles::marketo::{Marketo, Settings};
use serde_json::Value;
use world::types::{Lead, List, MarketoData};

/// 2026-11-20T00:00:00Z.
pub const START: u64 = 1_795_132_800_000;
pub const MUNCHKIN: &str = "123-ABC-456";

pub fn token(n: u64) -> String {
    format!("_mch-example.com-1700000000000-{n:05}")
}

/// A cookie as a filter value, percent-encoded.
pub fn cookie(n: u64) -> String {
    format!("id:{MUNCHKIN}%26token:{}", token(n))
}

pub fn ecid(n: u64) -> String {
    format!("{n:038}")
}

pub fn lead(id: u64, email: Option<&str>, cookies: &[u64], ecids: &[u64]) -> Lead {
    Lead {
        id,
        email: email.map(str::to_owned),
        cookies: cookies.iter().map(|n| token(*n)).collect(),
        ecids: ecids.iter().map(|n| ecid(*n)).collect(),
    }
}

pub fn data() -> MarketoData {
    let list = |id, name: &str, members: &[u64]| List {
        id,
        name: name.to_owned(),
        members: members.iter().copied().collect(),
    };
    MarketoData {
        munchkin_id: MUNCHKIN.to_owned(),
        org_id: Some("0123456789ABCDEF01234567@AdobeOrg".to_owned()),
        hipaa_ready: false,
        cookie_sync: true,
        leads: vec![
            lead(1, Some("a@example.com"), &[1, 11], &[1]),
            lead(2, Some("b@example.com"), &[2], &[]),
            lead(3, None, &[3], &[3]),
            lead(4, Some("d@example.com"), &[], &[]),
            lead(5, Some("e@example.com"), &[5], &[]),
            lead(6, None, &[6], &[]),
        ],
        lists: vec![list(1001, "VIP", &[1, 5]), list(1005, "Newsletter", &[5])],
    }
}

pub struct Rig {
    pub core: Marketo,
    pub now: u64,
    pub token: String,
}

impl Rig {
    pub fn new(settings: Settings) -> Self {
        Self::with(settings, data())
    }

    pub fn with(settings: Settings, data: MarketoData) -> Self {
        Self::begun(settings, data, START)
    }

    /// The six people at another time, such as `2026-03-08T05:59:59.999Z`.
    pub fn at(settings: Settings, time: &str) -> Self {
        Self::begun(settings, data(), ms(time))
    }

    fn begun(settings: Settings, data: MarketoData, now: u64) -> Self {
        let mut rig = Self { core: Marketo::new(settings, data, now), now, token: String::new() };
        rig.sign_in();
        rig
    }

    pub fn plain() -> Self {
        Self::new(Settings::default())
    }

    pub fn sign_in(&mut self) -> u64 {
        let uri = "/identity/oauth/token?grant_type=client_credentials&client_id=sample-client\
                   &client_secret=sample-secret";
        let (status, body) = self.call(Method::GET, uri, None, "");
        assert_eq!(status, 200);
        self.token = body["access_token"].as_str().expect("a token").to_owned();
        body["expires_in"].as_u64().expect("a life")
    }

    /// Status and body; status 0: dropped.
    pub fn call(&mut self, method: Method, uri: &str, content_type: Option<&str>, body: &str) -> (u16, Value) {
        let (status, body) = self.raw(method, uri, content_type, body);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub fn raw(&mut self, method: Method, uri: &str, content_type: Option<&str>, body: &str) -> (u16, Vec<u8>) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{MUNCHKIN}.mktorest.com{uri}"))
            .header("authorization", format!("Bearer {}", self.token));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(body.as_bytes().to_vec()).expect("a request");
        match self.core.handle(self.now, &request).response {
            Some(response) => (response.status().as_u16(), response.into_body()),
            None => (0, Vec::new()),
        }
    }

    pub fn get(&mut self, uri: &str) -> Value {
        let (status, body) = self.call(Method::GET, uri, None, "");
        assert_eq!(status, 200, "{uri}");
        body
    }

    pub fn form(&mut self, uri: &str, body: &str) -> Value {
        let (status, body) = self.call(Method::POST, uri, Some("application/x-www-form-urlencoded"), body);
        assert_eq!(status, 200, "{uri}");
        body
    }

    pub fn json(&mut self, uri: &str, body: &Value) -> Value {
        let (status, body) = self.call(Method::POST, uri, Some("application/json"), &body.to_string());
        assert_eq!(status, 200, "{uri}");
        body
    }

    pub fn delete(&mut self, uri: &str) -> Value {
        let (status, body) = self.call(Method::DELETE, uri, None, "");
        assert_eq!(status, 200, "{uri}");
        body
    }

    /// Adds by JSON body; the rows' statuses or codes.
    pub fn add(&mut self, list: u64, ids: &[u64]) -> Vec<String> {
        let input: Vec<Value> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
        rows(&self.json(&format!("/rest/v1/lists/{list}/leads.json"), &serde_json::json!({"input": input})))
    }

    pub fn remove(&mut self, list: u64, ids: &[u64]) -> Vec<String> {
        let ids: Vec<String> = ids.iter().map(|id| format!("id={id}")).collect();
        rows(&self.delete(&format!("/rest/v1/lists/{list}/leads.json?{}", ids.join("&"))))
    }

    pub fn members(&self, list: u64) -> Vec<u64> {
        self.core.members(list).expect("a list").iter().copied().collect()
    }

    /// A cheap call, and the code it answers.
    pub fn probe(&mut self) -> String {
        code(&self.get("/rest/v1/lists.json?id=1001"))
    }
}

/// A time in milliseconds since the epoch.
pub fn ms(time: &str) -> u64 {
    let at: jiff::Timestamp = time.parse().expect("a time");
    u64::try_from(at.as_millisecond()).expect("after 1970")
}

/// The error's code; empty: success.
pub fn code(body: &Value) -> String {
    if body["success"] == true {
        return String::new();
    }
    body["errors"][0]["code"].as_str().expect("a code as a string").to_owned()
}

/// Each row's status, or the code it was skipped for.
pub fn rows(body: &Value) -> Vec<String> {
    assert_eq!(code(body), "");
    let rows = body["result"].as_array().expect("rows");
    let of = |row: &Value| match row["status"].as_str() {
        Some("skipped") => row["reasons"][0]["code"].as_str().expect("a code").to_owned(),
        status => status.expect("a status").to_owned(),
    };
    rows.iter().map(of).collect()
}

/// The ids of a result.
pub fn ids(body: &Value) -> Vec<u64> {
    assert_eq!(code(body), "");
    body["result"].as_array().expect("rows").iter().map(|row| row["id"].as_u64().expect("an id")).collect()
}

/// A paging token, percent-encoded.
pub fn encoded(token: &Value) -> String {
    form_urlencoded::byte_serialize(token.as_str().expect("a token").as_bytes()).collect()
}
