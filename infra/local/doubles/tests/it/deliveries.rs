//! What Adobe's shell delivers and streams, over real HTTP, with Adobe's patience and with faults.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post as routed;
use doubles::adobe::{Adobe, Faults, Settings};
use doubles::shell::{Deliver, Shared, adobe_router, serve, system_clock};
use serde_json::{Value, json};

use crate::http::client;
use crate::platform::{audiences, uuid};
use crate::rig::ecid;

/// What a receiver got, and how it answers next; without a plan, 200.
#[derive(Default)]
struct Got {
    messages: Vec<(HeaderMap, Value)>,
    answers: VecDeque<Answer>,
}

enum Answer {
    Status(u16),
    /// Only when nobody waits any more.
    Never,
}

type Inbox = Arc<Mutex<Got>>;

async fn receive(State(inbox): State<Inbox>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let answer = {
        let mut got = inbox.lock().expect("the inbox");
        got.messages.push((parts.headers, serde_json::from_slice(&body).expect("JSON")));
        got.answers.pop_front()
    };
    match answer {
        None => StatusCode::OK.into_response(),
        Some(Answer::Status(status)) => StatusCode::from_u16(status).expect("a status").into_response(),
        Some(Answer::Never) => std::future::pending().await,
    }
}

async fn token(headers: HeaderMap, body: String) -> Response {
    // client:secret
    let by_header = headers.get("authorization").is_some_and(|value| value == "Basic Y2xpZW50OnNlY3JldA==")
        && body == "grant_type=client_credentials";
    let by_form = body == "grant_type=client_credentials&client_id=client&client_secret=secret";
    if !by_header && !by_form {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let token = if by_form { "by the form" } else { "by the header" };
    axum::Json(json!({"token_type": "Bearer", "access_token": token})).into_response()
}

struct Rig {
    base: String,
    receiver: String,
    inbox: Inbox,
    core: Arc<Shared<Adobe>>,
    files: Arc<Mutex<Vec<String>>>,
}

async fn start(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(serve(listener, router));
    base
}

impl Rig {
    async fn new() -> Self {
        let (inbox, files): (Inbox, Arc<Mutex<Vec<String>>>) = Default::default();
        let router = Router::new().route("/events", routed(receive)).route("/token", routed(token));
        let receiver = start(router.with_state(Arc::clone(&inbox))).await;
        let core = Shared::new(Adobe::new(Settings::default(), audiences(2), system_clock()()), system_clock());
        let seen = Arc::clone(&files);
        let deliver: Deliver = Arc::new(move |name, _| {
            seen.lock().expect("the files").push(name);
            Box::pin(async { Ok(()) })
        });
        let base = start(adobe_router(Arc::clone(&core), deliver)).await;
        Self { base, receiver, inbox, core, files }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = client().post(format!("{}/_control/{path}", self.base));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default())
    }

    /// Declares a stream; `rest` is merged over the address.
    async fn declare(&self, rest: &Value) -> (u16, Value) {
        let mut body = json!({"url": format!("{}/events", self.receiver)});
        for (name, value) in rest.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.post("streams", &body).await
    }

    /// Sends, and says what was taken, what failed, what was lost and what is late in all.
    async fn send(&self) -> [u64; 4] {
        let (status, shown) = self.post("streams/send", &json!({})).await;
        assert_eq!(status, 200);
        ["taken", "failed", "lost", "late"].map(|field| shown[0][field].as_u64().expect("a number"))
    }

    fn joins(&self, ids: std::ops::RangeInclusive<u64>) {
        for n in ids {
            assert!(self.core.lock().set_member(101, &ecid(n), true));
        }
    }

    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inbox.lock().expect("the inbox").answers.extend(answers);
    }

    /// The ECIDs of what came since the last look.
    fn came(&self) -> Vec<u64> {
        let messages = std::mem::take(&mut self.inbox.lock().expect("the inbox").messages);
        let users = messages.iter().map(|(_, body)| body["Users"][0]["AAM_UUID"].as_str().expect("an id"));
        users.map(|id| id.parse().expect("digits")).collect()
    }
}

fn one_a_message(rest: &Value) -> Value {
    let mut body = json!({"stream": {"audience_manager": {"users": 1}}});
    for (name, value) in rest.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn audience_manager_signs_and_tries_once_more() {
    let rig = Rig::new().await;
    let signature = json!({"header": "X-Signature", "key": "shared", "algorithm": "sha256"});
    let stream = json!({"stream": {"audience_manager": {"users": 1, "signature": signature}}});
    assert_eq!(rig.declare(&stream).await.0, 200);
    rig.joins(1..=3);
    // 204 is a failure, as is any other success; the second message is given up.
    rig.answers([Answer::Status(204), Answer::Status(200), Answer::Status(503), Answer::Status(503)]);
    assert_eq!(rig.send().await, [2, 3, 1, 0]);
    let first = rig.inbox.lock().expect("the inbox").messages[0].0.clone();
    assert_eq!(
        (&first["user-agent"], first["x-signature"].len()),
        (&"Adobe Audience Manager Iris".parse().expect("text"), 44)
    );
    assert_eq!(rig.came(), [1, 1, 2, 2, 3]);
    assert_eq!(rig.send().await, [2, 3, 1, 0], "there is nothing new");
}

#[tokio::test]
async fn experience_platform_waits_two_seconds_and_tries_twice_more() {
    let rig = Rig::new().await;
    let oauth = json!({"url": format!("{}/token", rig.receiver), "client_id": "client", "client_secret": "secret"});
    assert_eq!(rig.declare(&json!({"stream": {"platform": {}}, "oauth": oauth})).await.0, 200);
    let member = json!({"ecid": ecid(1), "audience": uuid(1), "member": true});
    assert_eq!(rig.post("profile", &member).await.0, 200);
    rig.answers([Answer::Never, Answer::Status(500), Answer::Status(202)]);
    let began = tokio::time::Instant::now();
    assert_eq!(rig.send().await, [1, 2, 0, 0]);
    assert!(began.elapsed() >= Duration::from_secs(2));
    let messages = std::mem::take(&mut rig.inbox.lock().expect("the inbox").messages);
    assert_eq!((messages.len(), &messages[0].0["authorization"]), (3, &"Bearer by the header".parse().expect("text")));
    assert_eq!(messages[0].1["identityMap"]["ecid"][0]["id"], json!(ecid(1)));
    let mut by_form = oauth.clone();
    by_form["form"] = json!(true);
    assert_eq!(rig.declare(&json!({"stream": {"platform": {}}, "oauth": by_form})).await.0, 200);
    assert_eq!(rig.post("profile", &json!({"ecid": ecid(2), "audience": uuid(1), "member": true})).await.0, 200);
    assert_eq!(rig.send().await, [1, 0, 0, 0]);
    let messages = std::mem::take(&mut rig.inbox.lock().expect("the inbox").messages);
    assert_eq!(messages[0].0["authorization"], "Bearer by the form");
    // Nobody listens any more.
    assert_eq!(rig.declare(&json!({"stream": {"platform": {}}, "url": "http://127.0.0.1:1/"})).await.0, 200);
    assert_eq!(rig.post("profile", &json!({"ecid": ecid(1), "audience": uuid(2), "member": true})).await.0, 200);
    assert_eq!(rig.send().await, [0, 3, 1, 0]);
}

#[tokio::test]
async fn messages_are_lost_late_out_of_order_and_doubled() {
    let rig = Rig::new().await;
    assert_eq!(rig.declare(&one_a_message(&json!({"faults": {"reversed": true}}))).await.0, 200);
    rig.joins(1..=3);
    assert_eq!(rig.send().await, [3, 0, 0, 0]);
    assert_eq!(rig.came(), [3, 2, 1]);
    assert_eq!(rig.post("streams/faults", &json!({"late": true, "twice": true})).await.0, 200);
    rig.joins(4..=5);
    assert_eq!(rig.send().await, [5, 0, 0, 1]);
    assert_eq!(rig.came(), [5, 5]);
    assert_eq!(rig.post("streams/faults", &json!({"lost": true})).await.0, 200);
    rig.joins(6..=7);
    assert_eq!(rig.send().await, [7, 0, 1, 0]);
    assert_eq!(rig.came(), [7, 4]);

    let page = format!("{}/_control/page/stream", rig.base);
    rig.joins(8..=8);
    let form = client().post(page).header("content-type", "application/x-www-form-urlencoded").body("twice=on");
    assert_eq!(form.send().await.expect("an answer").status(), 303);
    assert_eq!(rig.came(), [8, 8]);
    let html =
        client().get(format!("{}/_control/", rig.base)).send().await.expect("a page").text().await.expect("HTML");
    assert!(html.contains("send the stream now") && html.contains("9 taken, 0 attempts failed, 1 lost, 0 late"));
}

#[tokio::test]
async fn a_stream_goes_by_itself_and_only_to_loopback() {
    let rig = Rig::new().await;
    for url in ["https://127.0.0.1/events", "http://example.com/events", "nowhere"] {
        assert_eq!(rig.declare(&one_a_message(&json!({"url": url}))).await.0, 422, "{url}");
    }
    assert_eq!(rig.declare(&one_a_message(&json!({"every_ms": 5}))).await.0, 200);
    for n in 1..=2 {
        rig.joins(n..=n);
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            match rig.came().as_slice() {
                [] => assert!(tokio::time::Instant::now() < end, "message {n} does not come"),
                came => {
                    assert_eq!(came, [n]);
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_delivery_goes_into_its_feeds_folder_with_its_faults() {
    let rig = Rig::new().await;
    rig.joins(1..=4);
    let shape = json!({"audience_manager": {"parts": 2, "info": "strict", "gzip": false}});
    let (status, said) = rig.post("files", &json!({"feed": "web", "shape": shape, "faults": {"reversed": true}})).await;
    let names: Vec<&str> = said["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert_eq!((status, names.len()), (200, 3));
    assert!(names[0].starts_with("web/S3_1234_20914_Sample_full_") && names[0].ends_with(".info"), "{names:?}");
    let (_, said) = rig.post("files", &json!({"shape": shape, "faults": {"lost": true, "late": true}})).await;
    assert_eq!((said["names"].as_array().map(Vec::len), &said["lost"]), (Some(1), &json!(1)));
    let (_, said) = rig.post("files", &json!({})).await;
    assert_eq!(said["names"].as_array().map(Vec::len), Some(2), "what was late, behind the new one");
    assert_eq!(rig.files.lock().expect("the files").len(), 6);
}

#[tokio::test]
async fn the_control_api_changes_both_libraries() {
    let rig = Rig::new().await;
    let member = json!({"ecid": ecid(1), "audience": uuid(1), "member": true});
    assert_eq!(rig.post("profile", &member).await.0, 200);
    assert_eq!(rig.post("profile", &json!({"profile": 1, "ecid": ecid(2)})).await.0, 200);
    assert_eq!(rig.post("profile", &json!({"ecid": "1", "audience": uuid(1), "member": true})).await.0, 422);
    let shown = client().get(format!("{}/_control/audiences", rig.base)).send().await.expect("an answer");
    let shown: Value = serde_json::from_slice(&shown.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(shown[0], json!({"id": uuid(1), "name": "Audience 1", "count": 2}));
    for audience in ["101".to_owned(), uuid(2)] {
        assert_eq!(rig.post("rename", &json!({"audience": audience, "name": "New"})).await.0, 200);
        assert_eq!(rig.post("rename", &json!({"audience": audience})).await.0, 422);
    }
    assert_eq!(rig.core.lock().library().segments[0].name, "New");
    for audience in ["101".to_owned(), uuid(2)] {
        assert_eq!(rig.post("delete", &json!({"audience": audience})).await.0, 200);
        assert_eq!(rig.post("delete", &json!({"audience": audience})).await.0, 422);
    }
    assert_eq!(rig.core.lock().library().audiences.len(), 1);
}

#[test]
fn faults_keep_everything_but_what_is_lost() {
    let all = Faults { lost: true, late: true, reversed: true, twice: true };
    let mut held = vec![0];
    assert_eq!(all.arriving(vec![1, 2, 3, 4], &mut held), (vec![4, 3, 4, 3, 0], 1));
    assert_eq!(held, [2]);
    assert_eq!(Faults::default().arriving(Vec::new(), &mut held), (vec![2], 0));
    assert!(held.is_empty());
}
