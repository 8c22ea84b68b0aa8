//! The calls of the control plane at Marketo: one at a time, whoever asks, and only so many for those who may only look.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use create_sync::{Caller, Request, Response, Role, handle};
use domain::limits::{DAY_MS, HOUR_MS};
use doubles::marketo::Kind;
use futures::executor::block_on;
use futures::future::{join, join_all};
use ports::{Clock, Http, Key, PortResult, Ports, Table};
use serde_json::{Value, json};
use state::budget::{LEASE_MS, Permit, Purpose, permit, standing};
use state::lists::write_leads;
use state::previews::{Status, There, preview};
use state::{Deps, Settings};

use crate::support::{MUNCHKIN, Outside, World, munchkin};

/// A call takes so many turns of the others, each of so many ms.
const TURNS: usize = 25;
const TURN_MS: u64 = 10;

/// Ports over which several functions are under way together, on one clock: calls turn it, and where none is under way,
/// whoever waits.
struct Shared {
    outside: Arc<Outside>,
    under_way: AtomicU64,
    /// Of those, at Marketo: now, and at most.
    in_flight: AtomicU64,
    most: AtomicU64,
}

/// Lets the others go on.
async fn turn() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait]
impl Http for Shared {
    async fn send(&self, request: http::Request<Vec<u8>>, timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let counts = u64::from(request.uri().path().starts_with("/rest/"));
        let in_flight = self.in_flight.fetch_add(counts, Ordering::Relaxed) + counts;
        self.most.fetch_max(in_flight, Ordering::Relaxed);
        for _ in 0..TURNS {
            self.outside.sleep_ms(TURN_MS).await;
            turn().await;
        }
        let answer = Http::send(&*self.outside, request, timeout_ms).await;
        self.in_flight.fetch_sub(counts, Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        answer
    }
}

#[async_trait]
impl Clock for Shared {
    fn now_ms(&self) -> u64 {
        self.outside.now_ms()
    }
    async fn sleep_ms(&self, ms: u64) {
        let until = self.now_ms() + ms;
        while self.now_ms() < until {
            if self.under_way.load(Ordering::Relaxed) == 0 {
                self.outside.sleep_ms(1).await;
            }
            turn().await;
        }
    }
}

fn shared(world: &World) -> Arc<Shared> {
    let (outside, none) = (world.outside.clone(), || AtomicU64::new(0));
    Arc::new(Shared { outside, under_way: none(), in_flight: none(), most: none() })
}

/// A function of its own, which has just begun.
fn function(world: &World, shared: &Arc<Shared>) -> Deps {
    let ports = Ports { http: shared.clone(), clock: shared.clone(), ..world.deps.ports.clone() };
    Deps::new(ports, (*world.deps.settings).clone())
}

fn request(method: &str, path: &str, body: &Value, role: Role) -> Request {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Request {
        method: method.into(),
        path: path.into(),
        query: query.split('&').filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect(),
        body: if method == "GET" { Vec::new() } else { body.to_string().into_bytes() },
        caller: Some(Caller { name: "somebody".into(), role }),
        ..Request::default()
    }
}

fn ask(world: &World, method: &str, path: &str, body: &Value, role: Role) -> Response {
    let request = request(method, path, body, role);
    let asked = (request.method.clone(), request.path.clone());
    let response = block_on(handle(&world.deps, request, world.deps.now() + 30_000));
    crate::contract::check(&asked.0, &asked.1, &response);
    response
}

fn detail(response: &Response) -> String {
    let body: Value = serde_json::from_slice(&response.body).expect("JSON");
    body["detail"].as_str().expect("a sentence").to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
}

fn calls(world: &World) -> usize {
    world.marketo().calls().iter().filter(|call| call.kind != Kind::Token).count()
}

#[test]
fn two_requests_at_once_make_one_call_at_a_time() {
    let world = World::new();
    let shared = shared(&world);
    let (one, other) = (function(&world, &shared), function(&world, &shared));
    let deadline = world.deps.now() + 30_000;
    let get = |deps| handle(deps, request("GET", "/list-folders", &Value::Null, Role::Operator), deadline);
    let (first, second) = block_on(join(get(&one), get(&other)));
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(calls(&world), 2);
    assert_eq!(shared.most.load(Ordering::Relaxed), 1);
}

#[test]
fn whatever_a_browser_asks_at_once_is_asked_one_after_the_other() {
    let world = World::new();
    let shared = shared(&world);
    let email = json!({"email": "1@example.com"});
    let preview = json!({"audience_id": "aam:101", "list": {"id": 1001}});
    let asked = [
        ("GET", "/list-folders", &Value::Null),
        ("GET", "/lists?search=VIP", &Value::Null),
        ("POST", "/explain", &email),
        ("POST", "/syncs/preview", &preview),
        ("GET", "/setup", &Value::Null),
    ];
    let deadline = world.deps.now() + 30_000;
    let answers = asked.map(|(method, path, body)| {
        let deps = function(&world, &shared);
        async move { handle(&deps, request(method, path, body, Role::Operator), deadline).await }
    });
    let answers = block_on(join_all(answers));
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 202, 200]);
    assert!(calls(&world) >= 9, "{}", calls(&world));
    assert_eq!(shared.most.load(Ordering::Relaxed), 1);
}

#[test]
fn a_function_that_died_with_its_call_under_way_is_waited_for_and_no_longer() {
    let world = World::new();
    let dead = block_on(permit(&world.deps, &munchkin(), Purpose::Control, 1)).expect("a permit");
    let Permit::Lease(lease) = dead else { panic!("{dead:?}") };
    let begun = world.deps.now();
    let refused = ask(&world, "GET", "/list-folders", &Value::Null, Role::Operator);
    let seconds = (lease.until - world.deps.now()).div_ceil(1_000);
    let after = header(&refused, "retry-after").and_then(|after| after.parse::<u64>().ok()).expect("seconds");
    assert_eq!(refused.status, 503);
    assert!((seconds..=seconds + 1).contains(&after), "{after} of {seconds}");
    // Nobody's part of the calls is used up.
    assert!(detail(&refused).contains("one at a time"), "{}", detail(&refused));
    // It waited, and would have had time for its call.
    let waited = world.deps.now() - begun;
    assert!((14_000..=15_000).contains(&waited), "{waited}");
    assert_eq!(calls(&world), 0);
    world.wait(lease.until - world.deps.now() - 1_000);
    assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Operator).status, 200);
    assert!((LEASE_MS..LEASE_MS + 1_000).contains(&(world.deps.now() - begun)));
    // The one that came after has given back its own.
    assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Operator).status, 200);
    assert!((LEASE_MS..LEASE_MS + 1_000).contains(&(world.deps.now() - begun)));
}

#[test]
fn the_set_up_check_says_and_keeps_nothing_of_a_call_of_somebody_else() {
    let world = World::new();
    let dead = block_on(permit(&world.deps, &munchkin(), Purpose::Control, 1)).expect("a permit");
    let Permit::Lease(lease) = dead else { panic!("{dead:?}") };
    let rows = || {
        let answer = ask(&world, "GET", "/setup", &Value::Null, Role::Operator);
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let rows = answer["rows"].as_array().expect("rows").iter();
        let of_marketo = rows.filter(|row| row["area"] == "marketo");
        of_marketo.map(|row| row["values"]["reason"].as_str().expect("a reason").to_owned()).collect::<Vec<_>>()
    };
    let told = rows();
    assert!(told.iter().any(|reason| reason == "not_in_time"), "{told:?}");
    assert!(!told.iter().any(|reason| reason == "limits"), "{told:?}");
    assert!(world.rows("setup").is_empty());
    world.wait(lease.until - world.deps.now());
    let told = rows();
    assert!(!told.iter().any(|reason| reason == "not_in_time"), "{told:?}");
    assert_eq!(world.rows("setup").len(), 1);
}

#[test]
fn a_viewer_whose_part_ends_within_the_set_up_check_is_told_so_and_nobody_else_is() {
    let mut world = World::new();
    world.deps.settings = Arc::new(Settings { quota_per_day: 1_000, ..(*world.deps.settings).clone() });
    for _ in 0..97 {
        world.wait(1_000);
        assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Viewer).status, 200);
    }
    let before = calls(&world);
    let refused = ask(&world, "GET", "/setup", &Value::Null, Role::Viewer);
    assert_eq!((refused.status, calls(&world) - before), (503, 3), "{}", detail(&refused));
    assert!(detail(&refused).contains("viewers"), "{}", detail(&refused));
    assert!(world.rows("setup").is_empty());
    let answer = ask(&world, "GET", "/setup", &Value::Null, Role::Operator);
    assert!(!String::from_utf8_lossy(&answer.body).contains("used up until"), "{}", answer.status);
}

#[test]
fn a_call_costs_the_budgets_row_two_writes() {
    let world = World::new();
    let rev = || {
        let tables = world.tables();
        let row = tables.iter().find(|((table, key), _)| *table == Table::Syncs && key.sk == "budget");
        row.map_or(0, |(_, item)| item.rev)
    };
    let before = rev();
    assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Operator).status, 200);
    assert_eq!((calls(&world), rev() - before), (1, 2));
    // That of a viewer costs no more.
    let before = rev();
    assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Viewer).status, 200);
    assert_eq!((calls(&world), rev() - before), (2, 2));
}

#[test]
fn viewers_have_a_part_of_the_day_and_operators_the_rest() {
    let mut world = World::new();
    // A hundredth of a half of 30,000 calls.
    world.deps.settings = Arc::new(Settings { quota_per_day: 30_000, ..(*world.deps.settings).clone() });
    let folders = |role| {
        world.wait(1_000);
        ask(&world, "GET", "/list-folders", &Value::Null, role)
    };
    for _ in 0..150 {
        assert_eq!(folders(Role::Viewer).status, 200);
        assert_eq!(folders(Role::Operator).status, 200);
    }
    let refused = folders(Role::Viewer);
    assert_eq!(refused.status, 503);
    let sentence = detail(&refused);
    assert!(sentence.contains("viewers") && sentence.contains("midnight US Central"), "{sentence}");
    let ends = block_on(standing(&world.deps, &munchkin())).expect("a standing").day_ends;
    let seconds = (ends - world.deps.now()).div_ceil(1_000).to_string();
    assert_eq!(header(&refused, "retry-after"), Some(seconds.as_str()));
    assert_eq!(calls(&world), 300);
    // Whatever else would call Marketo is refused likewise, and what would not is answered.
    let email = json!({"email": "1@example.com"});
    let preview = json!({"audience_id": "aam:101", "list": {"id": 1001}});
    for (method, path, body) in
        [("POST", "/explain", &email), ("POST", "/syncs/preview", &preview), ("GET", "/setup", &Value::Null)]
    {
        let refused = ask(&world, method, path, body, Role::Viewer);
        assert_eq!(refused.status, 503, "{method} {path}");
        assert_eq!(detail(&refused), sentence);
    }
    let token = json!({"token": "_mch-example.com-1700000000000-1"});
    assert_eq!(ask(&world, "POST", "/explain", &token, Role::Viewer).status, 200);
    assert_eq!(ask(&world, "GET", "/syncs", &Value::Null, Role::Viewer).status, 200);
    assert_eq!(calls(&world), 300);
    assert_eq!(folders(Role::Operator).status, 200);
    // It begins anew with the day.
    world.wait(ends - world.deps.now());
    assert_eq!(folders(Role::Viewer).status, 200);
}

#[test]
fn of_a_small_share_viewers_have_a_hundred_calls() {
    let mut world = World::new();
    world.deps.settings = Arc::new(Settings { quota_per_day: 1_000, ..(*world.deps.settings).clone() });
    let left = || block_on(standing(&world.deps, &munchkin())).expect("a standing").viewers_left;
    assert_eq!(left(), 100);
    assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Viewer).status, 200);
    assert_eq!(left(), 99);
    assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Operator).status, 200);
    assert_eq!(left(), 99);
    world.wait(DAY_MS + HOUR_MS);
    assert_eq!(left(), 100);
}

#[test]
fn a_preview_that_a_viewer_may_not_go_on_with_says_so_and_an_operator_goes_on() {
    let mut world = World::new();
    world.deps.settings = Arc::new(Settings { quota_per_day: 1_000, ..(*world.deps.settings).clone() });
    let body = json!({"audience_id": "aam:101", "list": {"id": 1001}});
    let asked = ask(&world, "POST", "/syncs/preview", &body, Role::Operator);
    let asked: Value = serde_json::from_slice(&asked.body).expect("JSON");
    let id = asked["id"].as_str().expect("an id");
    // Counted, and about to ask about two people.
    let mut job = block_on(preview(&world.deps, &munchkin(), id)).expect("read").expect("a preview");
    let people = [1, 2].into_iter().collect();
    job.status = Status::Asking;
    job.there = Some(There {
        unsure: 2,
        sample: 2,
        sample_key: block_on(write_leads(&world.deps, "people", &people)).expect("written"),
        ..There::default()
    });
    world.store(Table::Syncs, Key::new(MUNCHKIN, format!("preview/{id}")), &job);
    for _ in 0..100 {
        world.wait(1_000);
        assert_eq!(ask(&world, "GET", "/list-folders", &Value::Null, Role::Viewer).status, 200);
    }
    let path = format!("/previews/{id}");
    let refused = ask(&world, "GET", &path, &Value::Null, Role::Viewer);
    assert_eq!(refused.status, 503);
    assert!(detail(&refused).contains("viewers"), "{}", detail(&refused));
    assert_eq!(ask(&world, "GET", &path, &Value::Null, Role::Operator).status, 200);
    let job = block_on(preview(&world.deps, &munchkin(), id)).expect("read").expect("a preview");
    assert_eq!(job.there.map(|there| (there.asked, there.members)), Some((2, 1)));
    assert_eq!(job.status, Status::Done);
    // What is done may be looked at.
    assert_eq!(ask(&world, "GET", &path, &Value::Null, Role::Viewer).status, 200);
}
