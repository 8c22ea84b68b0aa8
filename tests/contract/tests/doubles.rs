//! Marketo's and Adobe's doubles answer alike whether they are called as a library, as the simulation does, or over HTTP by
//! our adapter, as the real functions do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use contract::{Answers, Came};
use doubles::adobe::{self, Adobe};
use doubles::marketo::{self, Commit, Fault, FaultAnswer, Marketo, Which};
use doubles::{Now, Shared};
use http::{Request, Response};
use ports::{Http, PortError, PortResult};
use tokio::net::TcpListener;
use world::types::{Folder, Lead, Library, List, MarketoData, Segment};

/// 2026-11-20T00:00:00Z. The clock stands still, so that times in answers are the same.
const NOW: u64 = 1_795_132_800_000;

/// A double, called as a library.
struct Called<F>(Mutex<F>);

#[async_trait]
impl<F> Http for Called<F>
where
    F: FnMut(&Request<Vec<u8>>) -> Option<Response<Vec<u8>>> + Send,
{
    async fn send(&self, request: Request<Vec<u8>>, _: u64) -> PortResult<Response<Vec<u8>>> {
        let answer = (self.0.lock().expect("no test panics within"))(&request);
        answer.ok_or_else(|| PortError::Unknown { service: "http", reason: "connection dropped".to_owned() })
    }
}

fn marketo() -> Marketo {
    let lead = |id: u64| Lead {
        id,
        email: Some(format!("{id}@example.com")),
        cookies: vec![format!("_mch-example.com-1700000000000-1000{id}")],
        ecids: vec![format!("{id:038}")],
    };
    let data = MarketoData {
        munchkin_id: "123-ABC-456".to_owned(),
        org_id: None,
        hipaa_ready: false,
        cookie_sync: true,
        leads: (1..=5).map(lead).collect(),
        lists: vec![List { id: 1001, name: "VIP".to_owned(), members: BTreeSet::from([1, 2]) }],
    };
    let mut double = Marketo::new(marketo::Settings::default(), data, NOW);
    let nth = |n, answer| Fault { kind: None, which: Which::Nth(n), answer, commit: Commit::default() };
    // After whoever asks has logged in.
    for (n, answer) in [(4, FaultAnswer::Drop), (6, FaultAnswer::Http502), (8, FaultAnswer::Empty)] {
        double.inject(nth(n, answer));
    }
    double
}

fn adobe() -> Adobe {
    let library = Library {
        folders: vec![Folder { folder_id: 1, parent_folder_id: 0, name: "Retail".to_owned() }],
        segments: vec![Segment { sid: 101, folder_id: 1, name: "Cart".to_owned() }],
        ..Library::default()
    };
    let org_id = Some("0123456789ABCDEF01234567@AdobeOrg".to_owned());
    Adobe::new(adobe::Settings { org_id, sandbox: "prod".to_owned(), ..adobe::Settings::default() }, library, NOW)
}

/// Serves a router on a loopback port; its address.
async fn serve(router: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(doubles::serve(listener, router));
    format!("http://{address}")
}

fn clock() -> Now {
    Arc::new(|| NOW)
}

fn same(called: Answers, over_http: Answers) {
    assert_eq!(called.len(), over_http.len());
    for (one, other) in called.into_iter().zip(over_http) {
        assert_eq!(one, other);
    }
}

#[tokio::test]
async fn marketo_answers_alike_as_a_library_and_over_http() {
    let mut double = marketo();
    let library = Called(Mutex::new(move |request: &Request<Vec<u8>>| double.handle(NOW, request).response));
    let called = contract::marketo_answers(&library, "http://marketo.test").await;
    let url = serve(doubles::marketo_router(Shared::new(marketo(), clock()))).await;
    let over_http = contract::marketo_answers(&aws::ReqwestHttp::new().expect("a client"), &url).await;
    // Successes, refusals within a success, other statuses and drops are all among them.
    let has = |is_it: &dyn Fn(&Came) -> bool| called.iter().any(|(_, one)| is_it(one));
    let holds =
        |text: &str| has(&|one| one.as_ref().is_ok_and(|(_, _, body)| String::from_utf8_lossy(body).contains(text)));
    for text in ["\"success\":true", "\"606\"", "\"1004\""] {
        assert!(holds(text), "{text}");
    }
    assert!(has(&Result::is_err));
    assert!(has(&|one| one.as_ref().is_ok_and(|(status, ..)| *status == 502)));
    same(called, over_http);
}

#[tokio::test]
async fn adobe_answers_alike_as_a_library_and_over_http() {
    let mut double = adobe();
    let library = Called(Mutex::new(move |request: &Request<Vec<u8>>| Some(double.handle(NOW, request))));
    let called = contract::adobe_answers(&library, "http://adobe.test").await;
    let deliver: doubles::Deliver = Arc::new(|_, _| Box::pin(async { Ok(()) }));
    let url = serve(doubles::adobe_router(Shared::new(adobe(), clock()), deliver)).await;
    let over_http = contract::adobe_answers(&aws::ReqwestHttp::new().expect("a client"), &url).await;
    let statuses: BTreeSet<u16> = called.iter().filter_map(|(_, one)| one.as_ref().ok().map(|one| one.0)).collect();
    assert!(statuses.is_superset(&BTreeSet::from([200, 401, 404])), "{statuses:?}");
    same(called, over_http);
}
