//! The probe against the double, over HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;

use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Marketo, Settings, Which};
use doubles::{Shared, marketo_router, serve, system_clock};
use ports::Credentials;
use probe::{Instance, Verdict, probe};
use world::types::{Lead, List, MarketoData};

const LIST: u64 = 1001;
/// Both clocks run so much faster; a wait of 30 s takes 1.5 s.
const SCALE: f64 = 0.05;

/// An instance with three people, of whom the first is in the list.
async fn instance(settings: Settings) -> (Instance, Arc<Shared<Marketo>>) {
    let lead = |id| Lead { id, email: Some(format!("p{id}@example.com")), cookies: Vec::new(), ecids: Vec::new() };
    let data = MarketoData {
        munchkin_id: "123-ABC-456".into(),
        org_id: None,
        hipaa_ready: false,
        cookie_sync: true,
        leads: (1..=3).map(lead).collect(),
        lists: vec![List { id: LIST, name: "Probe".into(), members: BTreeSet::from([1]) }],
    };
    let settings = Settings { time_scale: SCALE, import_ms: 10_000, ..settings };
    let clock = system_clock();
    let shared = Shared::new(Marketo::new(settings, data, clock()), clock);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, marketo_router(Arc::clone(&shared))));
    let credentials = Credentials::new("sample-client", "sample-secret");
    (Instance { url: format!("http://{address}/rest/"), credentials, time_scale: SCALE }, shared)
}

async fn ask(instance: Instance, lead: u64) -> (Verdict, Vec<String>) {
    let mut told = Vec::new();
    let verdict = probe(instance, LIST, lead, &mut |text| told.push(text.to_owned())).await.expect("a verdict");
    (verdict, told)
}

#[tokio::test]
async fn an_instance_that_takes_files_of_ids_alone_may_have_it_switched_on() {
    let (instance, shared) = instance(Settings::default()).await;
    let (verdict, told) = ask(instance, 2).await;
    assert!(verdict.works, "{verdict:?} {told:?}");
    assert!(shared.lock().members(LIST).expect("the list").contains(&2));
    assert!(told.iter().any(|text| text.contains("1 rows taken, 0 failed")), "{told:?}");
}

#[tokio::test]
async fn an_instance_that_wants_more_than_ids_is_found_out_with_its_reason() {
    let (instance, _shared) = instance(Settings { id_only_import: false, ..Settings::default() }).await;
    let (verdict, told) = ask(instance, 2).await;
    assert!(!verdict.works && verdict.why.contains("not in the list"), "{verdict:?}");
    assert!(told.iter().any(|text| text.contains("No field to update")), "{told:?}");
}

#[tokio::test]
async fn nothing_is_imported_where_it_would_prove_nothing() {
    let (instance, shared) = instance(Settings::default()).await;
    let again =
        |lead| ask(Instance { credentials: instance.credentials.clone(), url: instance.url.clone(), ..instance }, lead);
    let (member, _) = again(1).await;
    let (unknown, _) = again(9).await;
    assert!(member.why.contains("already") && unknown.why.contains("does not show"), "{member:?} {unknown:?}");
    assert!(shared.lock().calls().iter().all(|call| call.kind != Kind::ImportCreate));
}

#[tokio::test]
async fn a_refusal_is_a_verdict_with_marketos_code_and_silence_is_none() {
    let (instance, shared) = instance(Settings::default()).await;
    let fault = |answer| Fault { kind: Some(Kind::ImportCreate), which: Which::Nth(1), answer, commit: Commit::Before };
    shared.lock().inject(fault(FaultAnswer::Code(1002)));
    let copy = Instance { credentials: instance.credentials.clone(), url: instance.url.clone(), time_scale: SCALE };
    let (verdict, _) = ask(copy, 2).await;
    assert!(!verdict.works && verdict.why.contains("code 1002"), "{verdict:?}");
    shared.lock().inject(fault(FaultAnswer::Drop));
    let error = probe(instance, LIST, 2, &mut |_| ()).await.expect_err("nobody knows");
    assert!(error.to_string().contains("unknown"), "{error}");
}
