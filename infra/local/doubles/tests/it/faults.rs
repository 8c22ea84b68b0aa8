//! Calls that go wrong.

use ::http::Method;
use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Settings, Which};

use serde_json::{Value, json};

use crate::rig::{Rig, START, code, rows};

fn nth(kind: Kind, n: u32, answer: FaultAnswer, commit: Commit) -> Fault {
    Fault { kind: Some(kind), which: Which::Nth(n), answer, commit }
}

fn add(rig: &mut Rig) -> u16 {
    rig.raw(Method::POST, "/rest/v1/lists/1001/leads.json?id=2", None, "").0
}

#[test]
fn before_the_commit_nothing_happened() {
    let mut rig = Rig::plain();
    rig.core.inject(nth(Kind::ListAdd, 1, FaultAnswer::Http502, Commit::Before));
    assert_eq!((add(&mut rig), rig.members(1001)), (502, vec![1, 5]));
    assert_eq!((add(&mut rig), rig.members(1001)), (200, vec![1, 2, 5]));
    assert_eq!(rig.core.faults_waiting(), 0);
}

#[test]
fn after_the_commit_it_has_happened() {
    let mut rig = Rig::plain();
    rig.core.inject(nth(Kind::ListAdd, 1, FaultAnswer::Drop, Commit::After));
    assert_eq!((add(&mut rig), rig.members(1001)), (0, vec![1, 2, 5]));
    assert_eq!(rig.core.calls().last().map(|call| call.status), Some(0));
}

#[test]
fn a_late_commit_lands_on_the_doubles_clock() {
    let mut rig = Rig::plain();
    let late = Commit::Late { after_ms: 60_000 };
    rig.core.inject(nth(Kind::ListAdd, 1, FaultAnswer::Code(604), late));
    let (_, answer) = rig.call(Method::POST, "/rest/v1/lists/1001/leads.json?id=2", None, "");
    assert_eq!(code(&answer), "604");
    assert_eq!(rig.core.next_late_effect_at(), Some(START + 60_000));
    rig.now += 59_999;
    assert_eq!(rig.remove(1001, &[2]), ["1015"], "it has not landed yet");
    rig.now += 1;
    rig.core.tick(rig.now);
    assert_eq!(rig.members(1001), [1, 2, 5]);
    assert_eq!(rig.core.next_late_effect_at(), None);
}

#[test]
fn late_effects_land_in_order_before_what_comes_after_them() {
    let mut rig = Rig::new(Settings { time_scale: 0.1, ..Settings::default() });
    let late = |after_ms| Commit::Late { after_ms };
    rig.core.inject(nth(Kind::ListAdd, 1, FaultAnswer::Drop, late(500_000)));
    rig.core.inject(nth(Kind::ListRemove, 1, FaultAnswer::Drop, late(1_000)));
    rig.raw(Method::POST, "/rest/v1/lists/1001/leads.json?id=1&id=2", None, "");
    rig.raw(Method::DELETE, "/rest/v1/lists/1001/leads.json?id=1", None, "");
    assert_eq!(rig.core.next_late_effect_at(), Some(START + 100));
    // A lead that is gone when the add lands is not added. 180 s is the longest, scaled.
    assert!(rig.core.delete(START + 17_999, 2));
    assert_eq!(rig.members(1001), [5]);
    rig.core.tick(START + 18_000);
    assert_eq!(rig.members(1001), [1, 5]);
}

#[test]
fn a_list_made_late_exists_late() {
    let mut rig = Rig::plain();
    rig.core.inject(nth(Kind::AssetCreate, 1, FaultAnswer::Drop, Commit::Late { after_ms: 1_000 }));
    let form = "folder=%7B%22id%22%3A12%2C%22type%22%3A%22Folder%22%7D&name=New";
    let urlencoded = Some("application/x-www-form-urlencoded");
    assert_eq!(rig.raw(Method::POST, "/rest/asset/v1/staticLists.json", urlencoded, form).0, 0);
    assert!(rig.get("/rest/asset/v1/staticList/byName.json?name=New").get("result").is_none());
    rig.now += 1_000;
    assert_eq!(rig.get("/rest/asset/v1/staticList/byName.json?name=New")["result"][0]["id"], 1006);
}

#[test]
fn the_nth_matching_call_is_hit_and_no_other() {
    let mut rig = Rig::plain();
    rig.core.inject(nth(Kind::ListAdd, 2, FaultAnswer::Code(608), Commit::Before));
    assert_eq!(rig.probe(), "");
    assert_eq!(rig.add(1001, &[2]), ["added"]);
    let (_, answer) = rig.call(Method::POST, "/rest/v1/lists/1001/leads.json?id=3", None, "");
    assert_eq!(code(&answer), "608");
    assert_eq!(rig.add(1001, &[3]), ["added"]);
}

#[test]
fn a_share_of_the_calls_is_hit_the_same_for_the_same_seed() {
    let run = |seed| {
        let mut rig = Rig::new(Settings { seed, limits: false, ..Settings::default() });
        rig.core.inject(Fault {
            kind: None,
            which: Which::Share(0.25),
            answer: FaultAnswer::Code(611),
            commit: Commit::Before,
        });
        (0..1_000).map(|_| rig.probe() == "611").collect::<Vec<_>>()
    };
    let hits = run(1);
    assert_eq!(hits, run(1));
    assert_ne!(hits, run(2));
    let count = hits.iter().filter(|hit| **hit).count();
    assert!((200..300).contains(&count), "{count}");
}

#[test]
fn faults_read_from_json() {
    let text = r#"{"kind":"list_add","which":{"nth":1},"answer":{"code":604},"commit":{"late":{"after_ms":9}}}"#;
    let fault: Fault = serde_json::from_str(text).expect("a fault");
    assert_eq!(fault, nth(Kind::ListAdd, 1, FaultAnswer::Code(604), Commit::Late { after_ms: 9 }));
    let text = r#"{"which":{"share":0.5},"answer":"http502"}"#;
    let fault: Fault = serde_json::from_str(text).expect("a fault");
    assert_eq!((fault.kind, fault.answer, fault.commit), (None, FaultAnswer::Http502, Commit::Before));
}

/// What an add of 1, 2 and 99 answers when this fault strikes: status, text, body.
fn struck(rig: &mut Rig, answer: FaultAnswer, commit: Commit) -> (u16, String, Value) {
    rig.core.inject(nth(Kind::ListAdd, 1, answer, commit));
    let (status, body) = rig.raw(Method::POST, "/rest/v1/lists/1001/leads.json?id=1&id=2&id=99", None, "");
    let text = String::from_utf8(body).expect("UTF-8");
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    (status, text, json)
}

#[test]
fn every_documented_code_can_be_answered() {
    let mut rig = Rig::new(Settings { limits: false, ..Settings::default() });
    for wanted in (601..=616).chain(701..=719).chain(1001..=1080) {
        let (status, _, body) = struck(&mut rig, FaultAnswer::Code(wanted), Commit::Before);
        assert_eq!((status, code(&body)), (200, wanted.to_string()));
        let (_, _, body) = struck(&mut rig, FaultAnswer::NumberCode(wanted), Commit::Before);
        assert_eq!((&body["success"], &body["errors"][0]["code"]), (&json!(false), &json!(wanted)));
        assert_eq!(rig.core.calls().last().map(|call| (call.code, call.fault)), Some((wanted, true)));
    }
    assert_eq!(rig.members(1001), [1, 5]);
}

#[test]
fn every_status_and_every_empty_shape_can_be_answered() {
    let mut rig = Rig::plain();
    for wanted in [401, 413, 414, 500, 502, 503] {
        let (status, text, _) = struck(&mut rig, FaultAnswer::Http(wanted), Commit::Before);
        assert!(status == wanted && text.starts_with("<html>"), "{status} {text}");
    }
    assert_eq!(rig.core.used_today(), 3, "500, 502 and 503 count");
    let (status, text, _) = struck(&mut rig, FaultAnswer::Html, Commit::Before);
    assert!(status == 200 && text.contains("<h1>200 OK</h1>"), "{text}");
    assert_eq!(struck(&mut rig, FaultAnswer::NoErrors, Commit::Before).2["success"], false);
    let (_, _, body) = struck(&mut rig, FaultAnswer::EmptyErrors, Commit::Before);
    assert_eq!((&body["success"], &body["errors"]), (&json!(false), &json!([])));
    assert_eq!(rig.members(1001), [1, 5]);
    let (status, text, _) = struck(&mut rig, FaultAnswer::Empty, Commit::After);
    assert_eq!((status, text.as_str(), rig.members(1001)), (200, "", vec![1, 2, 5]));
}

#[test]
fn the_true_answer_comes_in_other_shapes() {
    let mut rig = Rig::plain();
    let (_, _, body) = struck(&mut rig, FaultAnswer::NumberCodes, Commit::Before);
    assert_eq!(body["result"][2]["reasons"][0]["code"], 1004);
    assert_eq!(rig.members(1001), [1, 2, 5], "it took effect");
    let (_, _, body) = struck(&mut rig, FaultAnswer::ObjectResult, Commit::Before);
    assert_eq!(body["result"], json!({"id": 1, "status": "added"}));
    let ids = |body: &Value| -> Vec<u64> {
        body["result"].as_array().expect("rows").iter().map(|row| row["id"].as_u64().expect("an id")).collect()
    };
    for _ in 0..20 {
        let (_, _, body) = struck(&mut rig, FaultAnswer::Shuffled, Commit::Before);
        let mut order = ids(&body);
        assert_ne!(order, [1, 2, 99]);
        order.sort_unstable();
        assert_eq!(order, [1, 2, 99]);
        let (_, _, body) = struck(&mut rig, FaultAnswer::MissingRow, Commit::Before);
        assert_eq!(ids(&body).len(), 2);
    }
}

#[test]
fn all_calls_of_a_kind_go_wrong_until_cleared() {
    let mut rig = Rig::plain();
    let text = r#"{"kind":"list_add","which":"all","answer":{"http":503}}"#;
    rig.core.inject(serde_json::from_str(text).expect("a fault"));
    assert_eq!((add(&mut rig), add(&mut rig), rig.probe().as_str()), (503, 503, ""));
    rig.core.clear_faults();
    assert_eq!(add(&mut rig), 200);
}

#[test]
fn a_refused_lead_is_skipped_until_it_is_refused_no_more() {
    let mut rig = Rig::plain();
    rig.core.refuse_lead(2, Some(1008));
    rig.core.refuse_lead(5, Some(1007));
    rig.core.refuse_lead(99, Some(1008));
    for _ in 0..2 {
        assert_eq!(rig.add(1001, &[2, 3, 5, 99]), ["1008", "added", "1007", "1004"]);
        assert_eq!(rig.remove(1001, &[3, 5, 4]), ["removed", "1007", "1015"]);
    }
    assert_eq!(rig.members(1001), [1, 5]);
    rig.core.clear_faults();
    assert_eq!(rows(&rig.get("/rest/v1/lists/1001/leads/ismember.json?id=2,5")), ["notmemberof", "memberof"]);
    rig.core.refuse_lead(2, None);
    assert_eq!(rig.add(1001, &[2, 5]), ["added", "1007"]);
}
