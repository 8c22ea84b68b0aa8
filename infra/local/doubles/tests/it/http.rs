//! The shell, over real HTTP.

use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use doubles::adobe::Adobe;
use doubles::marketo::{Marketo, Settings};
use doubles::shell::{Deliver, Now, Shared, adobe_router, marketo_router, serve, system_clock};
use serde_json::{Value, json};

use crate::rig::{MUNCHKIN, cookie, data, ecid, lead, token};

/// Serves a router until the test ends.
async fn start(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, router));
    format!("http://{address}")
}

/// One client for all tests, as making one is slow; it keeps no connection, as each test has its own runtime.
pub fn client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let builder = reqwest::Client::builder().pool_max_idle_per_host(0);
        builder.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
    });
    CLIENT.clone()
}

async fn body(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

async fn get(url: String, token: &str) -> Value {
    body(client().get(url).bearer_auth(token).send().await.expect("an answer")).await
}

async fn post(url: String, json: &Value) -> reqwest::Response {
    let request = client().post(url).header("content-type", "application/json").body(json.to_string());
    request.send().await.expect("an answer")
}

async fn marketo(settings: Settings) -> (String, String, Arc<Shared<Marketo>>) {
    on_clock(settings, system_clock()).await
}

async fn on_clock(settings: Settings, clock: Now) -> (String, String, Arc<Shared<Marketo>>) {
    let shared = Shared::new(Marketo::new(settings, data(), clock()), clock);
    let base = start(marketo_router(Arc::clone(&shared))).await;
    let form = "grant_type=client_credentials&client_id=sample-client&client_secret=sample-secret";
    let token = get(format!("{base}/identity/oauth/token?{form}"), "").await;
    (base, token["access_token"].as_str().expect("a token").to_owned(), shared)
}

#[tokio::test]
async fn marketo_answers_over_http() {
    let (base, access, shared) = marketo(Settings { latency_ms: 5, ..Settings::default() }).await;
    let form = format!("filterType=cookies&filterValues={}&fields=id,email", cookie(1));
    let request = client().post(format!("{base}/rest/v1/leads.json?_method=GET")).bearer_auth(&access);
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = body(request.send().await.expect("an answer")).await;
    assert_eq!(answer["result"], json!([{"id": 1, "email": "a@example.com"}]));
    let answer = client().delete(format!("{base}/rest/v1/lists/1001/leads.json?id=1")).bearer_auth(&access);
    assert_eq!(body(answer.send().await.expect("an answer")).await["result"][0]["status"], "removed");
    assert!(shared.lock().members(1001).is_some_and(|members| !members.contains(&1)));
}

#[tokio::test]
async fn the_control_api_moves_the_world() {
    let (base, _, shared) = marketo(Settings::default()).await;
    let control = |path: &str| format!("{base}/_control/{path}");
    assert!(post(control("lead"), &json!(lead(8, None, &[8], &[]))).await.status().is_success());
    let filled = body(post(control("form"), &json!({"token": token(8), "email": "h@example.com"})).await).await;
    assert_eq!(filled["id"], 8);
    assert!(post(control("merge"), &json!({"winner": 8, "losers": [1]})).await.status().is_success());
    assert!(post(control("delete"), &json!({"id": 2})).await.status().is_success());
    assert_eq!(post(control("delete"), &json!({"id": 2})).await.status(), 422);
    assert!(post(control("add"), &json!({"list": 1005, "lead": 8})).await.status().is_success());
    assert!(post(control("remove"), &json!({"list": 1005, "lead": 5})).await.status().is_success());
    let lists = get(control("lists"), "").await;
    let expected =
        json!([{"id": 1001, "name": "VIP", "members": [5, 8]}, {"id": 1005, "name": "Newsletter", "members": [8]}]);
    assert_eq!(lists, expected);
    assert!(get(control("pending"), "").await["next_visible_activity_at"].is_u64());
    assert_eq!(get(control("world"), "").await["munchkin_id"], MUNCHKIN);
    assert_eq!(get(control("calls"), "").await["calls"][0]["kind"], "token");
    assert!(client().delete(control("calls")).send().await.expect("an answer").status().is_success());
    assert!(shared.lock().calls().is_empty());
}

#[tokio::test]
async fn a_fault_closes_the_connection_without_an_answer() {
    let (base, access, shared) = marketo(Settings::default()).await;
    let fault = json!({"kind": "list_remove", "which": {"nth": 1}, "answer": "drop", "commit": "after"});
    assert!(post(format!("{base}/_control/faults"), &fault).await.status().is_success());
    let call = client().delete(format!("{base}/rest/v1/lists/1001/leads.json?id=1")).bearer_auth(&access).send();
    assert!(call.await.is_err());
    assert_eq!(shared.lock().members(1001).map(std::collections::BTreeSet::len), Some(1));
    assert_eq!(get(format!("{base}/rest/v1/lists.json?id=1001"), &access).await["success"], true);
    assert!(post(format!("{base}/_control/expire-token"), &json!({})).await.status().is_success());
    assert_eq!(get(format!("{base}/rest/v1/lists.json"), &access).await["errors"][0]["code"], "602");
}

#[tokio::test]
async fn the_control_api_makes_lists_refuses_leads_and_calls_for_others() {
    let (base, access, shared) = on_clock(Settings::default(), Arc::new(|| crate::rig::START)).await;
    let control = |path: &str, json: Value| {
        let url = format!("{base}/_control/{path}");
        async move { post(url, &json).await }
    };
    let made = body(control("make-list", json!({"name": "VIP", "folder": 31, "workspace": "EMEA"})).await).await;
    assert_eq!((&made["id"], shared.lock().lists()[&1006].workspace.as_str()), (&json!(1006), "EMEA"));
    assert!(control("refuse", json!({"lead": 2, "code": 1008})).await.status().is_success());
    assert!(control("add", json!({"list": 1006, "lead": 1})).await.status().is_success());
    let fault = json!({"kind": "list_add", "which": "all", "answer": {"http": 503}, "commit": "before"});
    assert!(control("faults", fault).await.status().is_success());
    let add = |list: u64| {
        let request = client().post(format!("{base}/rest/v1/lists/{list}/leads.json?id=2")).bearer_auth(&access);
        async move { request.send().await.expect("an answer") }
    };
    assert_eq!(add(1006).await.status(), 503);
    assert!(client().delete(format!("{base}/_control/faults")).send().await.expect("an answer").status().is_success());
    assert_eq!(body(add(1006).await).await["result"][0]["reasons"][0]["code"], "1008");
    let other = body(control("other-calls", json!({"calls": 12, "latency_ms": 450})).await).await;
    assert_eq!(other["taken"], 10);
    assert_eq!(body(add(1006).await).await["errors"][0]["code"], "615");
    assert!(control("token-edge", json!({"ms": 900})).await.status().is_success());
    let form = "grant_type=client_credentials&client_id=sample-client&client_secret=sample-secret";
    assert_eq!(get(format!("{base}/identity/oauth/token?{form}"), "").await["expires_in"], 0);
    assert_eq!(shared.lock().members(1006).map(std::collections::BTreeSet::len), Some(1));
}

#[tokio::test]
async fn the_control_api_closes_doors_and_opens_them_again() {
    let (base, access, shared) = marketo(Settings::default()).await;
    let doors = |json: Value| {
        let url = format!("{base}/_control/doors");
        async move { post(url, &json).await.status().is_success() }
    };
    assert!(doors(json!({"missing_permissions": ["read_lead"], "others_used": 7})).await);
    let leads = format!("{base}/rest/v1/leads.json?filterType=id&filterValues=1");
    assert_eq!(get(leads.clone(), &access).await["errors"][0]["code"], "603");
    assert_eq!(shared.lock().used_today(), 8);
    assert!(doors(json!({"missing_permissions": [], "client_secret": "another", "ecids_field": false})).await);
    assert_eq!(get(leads.clone(), &access).await["success"], true);
    assert_eq!(get(format!("{leads}&fields=ecids"), &access).await["errors"][0]["code"], "1006");
    assert_eq!(shared.lock().settings().client_secret, "another");
    assert!(doors(json!({"allowlisted": false})).await);
    assert_eq!(get(leads, &access).await["errors"][0]["code"], "603");
    assert!(!doors(json!({"nothing": 1})).await);
}

#[tokio::test]
async fn eleven_calls_at_once_are_one_too_many() {
    // On a clock that stands still no call ends before the last has begun, however slow the machine.
    let settings = Settings { latency_ms: 1, ..Settings::default() };
    let (base, access, _) = on_clock(settings, Arc::new(|| crate::rig::START)).await;
    let calls = (0..11).map(|_| get(format!("{base}/rest/v1/lists.json"), &access));
    let answers = futures::future::join_all(calls).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer["success"] == false).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["errors"][0]["code"], "615");
}

#[tokio::test]
async fn the_page_escapes_and_its_buttons_work() {
    let mut world = data();
    world.lists[0].name = "<script>alert(1)</script>".to_owned();
    world.leads[0].email = Some("\"><img src=x>@example.com".to_owned());
    let shared = Shared::new(Marketo::new(Settings::default(), world, system_clock()()), system_clock());
    let base = start(marketo_router(Arc::clone(&shared))).await;
    let page = client().get(format!("{base}/_control/?said=%3Cb%3E&find=%22%3E%3Cimg")).send().await.expect("a page");
    assert!(
        page.headers()["content-security-policy"].to_str().is_ok_and(|policy| policy.starts_with("default-src 'none'"))
    );
    let html = page.text().await.expect("HTML");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && html.contains("&lt;b&gt;"));
    assert!(
        html.contains("value=\"&quot;&gt;&lt;img\"") && html.contains("<td>&quot;&gt;&lt;img src=x&gt;@example.com")
    );
    assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("http"));
    let button = |path: &str, form: String| {
        let request = client().post(format!("{base}/_control/page/{path}"));
        request.header("content-type", "application/x-www-form-urlencoded").body(form)
    };
    let answer = button("form", format!("token={}&email=c@example.com", token(3))).send().await.expect("an answer");
    assert_eq!(answer.status(), 303);
    assert!(shared.lock().lead(3).is_some_and(|lead| lead.email.is_some()));
    assert_eq!(button("merge", "winner=1&losers=2, 3".to_owned()).send().await.expect("an answer").status(), 303);
    for (member, members) in [(true, vec![1, 4, 5]), (false, vec![1, 5])] {
        let form = format!("list=1001&lead=4&member={member}");
        assert_eq!(button("member", form).send().await.expect("an answer").status(), 303);
        assert_eq!(shared.lock().members(1001).map(|all| all.iter().copied().collect()), Some(members));
    }
    assert_eq!(button("delete", "id=1".to_owned()).send().await.expect("an answer").status(), 303);
    assert_eq!(shared.lock().leads().keys().copied().collect::<Vec<_>>(), [4, 5, 6]);
    let foreign = button("delete", "id=4".to_owned()).header("origin", "https://elsewhere.example");
    assert_eq!(foreign.send().await.expect("an answer").status(), 403);
    assert!(shared.lock().lead(4).is_some());
}

#[tokio::test]
async fn adobe_answers_and_delivers_over_http() {
    let delivered: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let seen = Arc::clone(&delivered);
    let deliver: Deliver = Arc::new(move |name, bytes| {
        let seen = Arc::clone(&seen);
        Box::pin(async move {
            let mut seen = seen.lock().map_err(|_| "poisoned".to_owned())?;
            seen.push((name, bytes.len()));
            if seen.len() == 1 { Err("the bucket is away".to_owned()) } else { Ok(()) }
        })
    });
    let core = Adobe::new(doubles::adobe::Settings::default(), crate::adobe::library(), system_clock()());
    let base = start(adobe_router(Shared::new(core, system_clock()), deliver)).await;
    let form = "grant_type=client_credentials&client_id=sample-client&client_secret=sample-secret&scope=openid";
    let request = client().post(format!("{base}/ims/token/v3")).body(form);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let access = body(request.send().await.expect("an answer")).await;
    let request = client().get(format!("{base}/v1/segments/?page=0&pageSize=1")).header("x-api-key", "sample-client");
    let request = request.bearer_auth(access["access_token"].as_str().expect("a token"));
    assert_eq!(body(request.send().await.expect("an answer")).await["total"], 12);
    let change = json!({"sid": 101, "ecid": ecid(1), "member": true});
    assert!(post(format!("{base}/_control/member"), &change).await.status().is_success());
    assert_eq!(get(format!("{base}/_control/segments"), "").await[0]["count"], 1);
    assert_eq!(post(format!("{base}/_control/deliver"), &json!({"mode": "next"})).await.status(), 502);
    let again = client().post(format!("{base}/_control/page/deliver")).body("mode=next");
    let again = again.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer");
    assert!(again.headers()["location"].to_str().is_ok_and(|to| to.contains("Delivered+S3_1234_20914_Sample_full_")));
    let files = delivered.lock().expect("the files").clone();
    assert_eq!((files.len(), &files[0]), (2, &files[1]), "what failed is delivered again");
    let html = client().get(format!("{base}/_control/")).send().await.expect("a page").text().await.expect("HTML");
    assert!(html.contains("Audience 101") && html.contains("deliver the next file"));
}
