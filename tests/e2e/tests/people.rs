//! People, from a page view to a list and out of it again, with the real functions.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::run::{Data, Running, client, eventually, get, post, start};
use crate::tests::{address, lists};

const ORIGIN: &str = "https://www.example.com";
const ORG: &str = "0123456789ABCDEF01234567@AdobeOrg";
const MUNCHKIN: &str = "123-ABC-456";
const VIP: u64 = 1001;
const ANNA: u64 = 100_001;

/// A running stack with the five people of the fixture, both files delivered and settled.
struct Stack {
    data: Data,
    running: Running,
    api: String,
    marketo: String,
}

impl Stack {
    async fn begin() -> Self {
        let data = Data::tiny();
        let mut running = start(&data, &["--port", "0"]);
        let api = address(&mut running, "Open ").await;
        let marketo = address(&mut running, "        Marketo's world: ").await;
        let stack = Self { data, running, api, marketo };
        stack.until("the second file", |members| members == &BTreeSet::from([ANNA, 100_002])).await;
        let subscription = json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "origins": [ORIGIN]});
        let client = client();
        let put = client.put(format!("{}/subscription", stack.api)).body(subscription.to_string()).send();
        assert_eq!(put.await.expect("answer").status(), StatusCode::OK);
        stack
    }

    /// Waits until the list *VIP* is as it should be.
    async fn until(&self, what: &str, is_right: impl Fn(&BTreeSet<u64>) -> bool) {
        let look = || async {
            let found = lists(&get(&format!("{}/lists", self.marketo)).await);
            is_right(&found[&VIP]).then_some(())
        };
        eventually(what, look).await;
    }

    /// A page view: the tag sends what it sees.
    async fn page_view(&self, ecid: u32, token: &str) {
        let body = json!({"org_id": ORG, "munchkin_id": MUNCHKIN, "ecid": format!("{ecid:038}"), "token": token});
        let request = client().post(format!("{}/beacon", self.api)).header("origin", ORIGIN);
        let answer = request.header("content-type", "text/plain").body(body.to_string()).send().await;
        assert_eq!(answer.expect("answer").status(), StatusCode::NO_CONTENT);
    }

    async fn end(self) {
        self.running.interrupt().await;
        self.data.assert_logs_tell_nothing();
    }
}

/// A visitor is seen, fills a form, and Marketo's webhook says so: the list holds them, and how long that took is
/// printed (`--nocapture`).
#[tokio::test]
async fn from_a_form_post_with_a_hint_to_the_list() {
    let stack = Stack::begin().await;
    let (status, made) = post(&format!("{}/subscription/hint-secrets", stack.api), &json!({})).await;
    assert_eq!(status, 201);
    let token = "_mch-example.com-1793000000000-10009";
    // E7 is in both audiences.
    stack.page_view(7, token).await;
    let began = Instant::now();
    let fill = json!({"token": token, "email": "fay@example.com"});
    let (_, filled) = post(&format!("{}/form", stack.marketo), &fill).await;
    let fay = filled["id"].as_u64().expect("a lead");
    let hint = |secret: &str, body: Value| {
        let request = client().post(format!("{}/hints", stack.api)).header("x-hint-secret", secret);
        request.header("content-type", "application/json").body(body.to_string()).send()
    };
    let body = json!({"munchkin_id": MUNCHKIN, "lead_id": fay});
    assert_eq!(hint("wrong", body.clone()).await.expect("answer").status(), StatusCode::UNAUTHORIZED);
    let secret = made["secret"].as_str().expect("a secret");
    assert_eq!(hint(secret, body).await.expect("answer").status(), StatusCode::ACCEPTED);
    stack.until("Fay in the list", |members| members.contains(&fay)).await;
    eprintln!("from the form post to the list: {} ms on a clock 20 times as fast", began.elapsed().as_millis());
    stack.end().await;
}

#[tokio::test]
async fn an_erased_person_leaves_and_comes_back_by_a_new_visit_alone() {
    let stack = Stack::begin().await;
    let (status, job) = post(&format!("{}/people/erase", stack.api), &json!({"email": "anna@example.com"})).await;
    assert_eq!(status, 202, "{job}");
    let path = format!("{}/people/erase/{}", stack.api, job["id"].as_str().expect("an id"));
    let done = || async { Some(get(&path).await).filter(|job| job["status"] == "done") };
    let job = eventually("the erasure", done).await;
    assert_eq!((&job["people_out_of_audiences"], &job["people_who_stay"]), (&json!(1), &json!(0)), "{job}");
    assert_eq!(job["cookies_forgotten"], 2, "{job}");
    let taken_out: u64 =
        job["lists"].as_array().expect("lists").iter().filter_map(|list| list["taken_out"].as_u64()).sum();
    assert_eq!((taken_out, &job["lists_waiting"]), (2, &json!([])), "{job}");
    stack.until("Anna out of the list", |members| members == &BTreeSet::from([100_002])).await;
    // An old page view that was late brings nobody back.
    let old = json!({
        "org_id": ORG, "munchkin_id": MUNCHKIN, "ecid": format!("{:038}", 7),
        "token": "_mch-example.com-1793000000000-10001", "seen_at": "2026-10-29T00:00:00Z",
    });
    let (status, answer) = post(&format!("{}/matches", stack.api), &old).await;
    assert_eq!((status, &answer["results"][0]["status"]), (200, &json!("known")), "nothing tells that it was erased");
    stack.page_view(7, "_mch-example.com-1793000000000-10001").await;
    stack.until("Anna back in the list", |members| members.contains(&ANNA)).await;
    stack.end().await;
}
