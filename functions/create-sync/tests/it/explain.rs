//! Why somebody is in a list, or is not: each missing link in a world in which just that one is missing.

use std::collections::BTreeSet;

use domain::base::Base;
use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::DAY_MS;
use domain::list::{Held, MassChange, Refusal, State};
use domain::{AudienceId, Ecid, LeadId, LeadSet, Token};
use futures::executor::block_on;
use serde_json::{Value, json};
use state::audience::replace_base;
use state::edges::Noted;
use state::identity::{ecid_to_lead, ecid_to_token, lead_to_token, put_hints, save_lead, save_token, tokens};
use state::lists::OpenList;

use crate::support::{START, World, munchkin};

const LIST: u64 = 1001;

fn ecid(n: u64) -> Ecid {
    Ecid::parse(&format!("{n:038}")).expect("an ECID")
}

fn token(n: u64) -> Token {
    Token::parse(&format!("_mch-example.com-1700000000000-{n}")).expect("a token")
}

/// A world with a running sync of audience 101, which holds ECID 7.
fn running() -> (World, String) {
    let world = World::new();
    let (status, sync) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": LIST}}));
    assert_eq!(status, 201, "{sync}");
    members(&world, 101, &[7]);
    world.want(101, &[], 9);
    (world, sync["id"].as_str().expect("an id").to_owned())
}

fn members(world: &World, sid: u64, ecids: &[u64]) {
    let base = Base::new(ecids.iter().map(|n| ecid(*n)), START);
    let (munchkin, audience) = (munchkin(), AudienceId::aam(sid));
    let replaced = replace_base(&world.deps, &munchkin, &audience, &base, START, None);
    assert!(block_on(replaced).expect("a base"));
}

/// A browser shows an ECID beside a token at a time, and what Marketo said about the token.
fn see(world: &World, e: u64, t: u64, at: u64, told: impl Fn(&mut TokenRecord)) {
    let found = block_on(tokens(&world.deps, &munchkin(), [&token(t)])).expect("read").pop();
    let rev = found.as_ref().map(|found| found.rev);
    let mut record = found.map_or_else(|| TokenRecord::new(token(t)), |found| found.value);
    record.sight(ecid(e), at);
    told(&mut record);
    let mut hints = vec![ecid_to_token(&munchkin(), ecid(e), &token(t))];
    hints.extend(record.lead.map(|lead| lead_to_token(&munchkin(), lead, &token(t))));
    block_on(put_hints(&world.deps, hints)).expect("written");
    assert!(block_on(save_token(&world.deps, &munchkin(), &record, rev, &Noted::needless())).expect("written"));
}

fn owned(lead: LeadId, known: bool) -> impl Fn(&mut TokenRecord) {
    move |record| {
        record.owned_by(Some(lead), known);
        record.was_asked(START + 60_000);
    }
}

fn lead(world: &World, id: LeadId, told: impl Fn(&mut LeadRecord)) {
    let mut record = LeadRecord::new(id);
    told(&mut record);
    let hints = record.ecids.iter().map(|ecid| ecid_to_lead(&munchkin(), *ecid, id)).collect::<Vec<_>>();
    block_on(put_hints(&world.deps, hints)).expect("written");
    assert!(block_on(save_lead(&world.deps, &munchkin(), &record, None, &Noted::needless())).expect("written"));
}

fn list(world: &World, change: impl Fn(&mut State)) {
    let mut open = block_on(OpenList::open(&world.deps, &munchkin(), LIST)).expect("a list");
    change(&mut open.state);
    block_on(open.publish(&world.deps)).expect("published");
}

fn explain(world: &World, body: &Value) -> Value {
    let (tables, objects) = (world.tables(), world.objects(""));
    let (status, answer) = world.post("/explain", body);
    assert_eq!(status, 200, "{answer}");
    let budget = |key: &ports::Key| key.sk == "budget";
    let after = world.tables();
    let changed = after.iter().filter(|(key, item)| !budget(&key.1) && tables.get(key) != Some(item)).count();
    assert_eq!((changed, world.objects("")), (0, objects), "nothing is written");
    for named in [&body["ecid"], &body["token"], &body["email"]] {
        if let Some(named) = named.as_str() {
            assert!(!answer.to_string().contains(named), "nobody is named: {answer}");
        }
    }
    for field in ["sentence", "what_helps"] {
        assert!(answer["missing"][field].as_str().is_some_and(|words| words.len() > 10), "{answer}");
    }
    answer
}

/// The code of the first missing link, for the browser with ECID 7.
fn missing(world: &World) -> Value {
    explain(world, &json!({"ecid": ecid(7).text()}))["missing"]["code"].clone()
}

#[test]
fn nothing_is_known_of_whom_nobody_has_seen() {
    let (world, _) = running();
    for body in [
        json!({"ecid": ecid(99).text()}),
        json!({"token": token(99).as_str()}),
        json!({"lead_id": 99}),
        json!({"email": "3@example.com"}),
        json!({"email": "nobody@example.com"}),
    ] {
        let answer = explain(&world, &body);
        assert_eq!(answer["missing"]["code"], "nothing_known", "{body}: {answer}");
    }
}

#[test]
fn an_email_costs_one_call_and_is_kept_nowhere() {
    let (world, _) = running();
    see(&world, 7, 1, START, owned(3, true));
    world.marketo().clear_calls();
    let answer = explain(&world, &json!({"email": "3@Example.com"}));
    let leads = |call: &&doubles::marketo::Call| call.kind != doubles::marketo::Kind::Token;
    assert_eq!(world.marketo().calls().iter().filter(leads).count(), 1);
    assert_eq!((&answer["people"][0]["lead_id"], &answer["subject"]), (&json!(3), &json!("email")));
    let stored = world.tables().values().any(|item| item.doc.to_string().to_lowercase().contains("3@example"));
    assert!(!stored, "no email");
}

#[test]
fn a_browser_outside_of_the_audience() {
    let (world, _) = running();
    see(&world, 8, 1, START, owned(3, true));
    let answer = explain(&world, &json!({"ecid": ecid(8).text()}));
    assert_eq!(answer["missing"]["code"], "not_in_audience");
    let audience = &answer["browsers"][0]["audiences"][0];
    assert_eq!((&audience["inside"], &audience["said_at"]), (&json!(false), &json!("2026-11-20T00:00:00Z")));
    assert_eq!(explain(&world, &json!({"lead_id": 3}))["missing"]["code"], "not_in_audience");
    assert_eq!(explain(&world, &json!({"token": token(1).as_str()}))["missing"]["code"], "not_in_audience");
}

#[test]
fn an_audience_that_no_delivery_has_named() {
    let world = World::new();
    world.post("/syncs", &json!({"audience_id": "aam:102", "list": {"id": LIST}}));
    see(&world, 7, 1, START, owned(3, true));
    assert_eq!(missing(&world), "not_delivered");
}

#[test]
fn a_browser_that_nobody_has_seen_beside_a_cookie() {
    let (world, _) = running();
    assert_eq!(missing(&world), "no_match");
    // A person whom Marketo knows, and whom nothing ties to a browser.
    lead(&world, 5, |record| {
        record.told(true, BTreeSet::new(), START);
    });
    assert_eq!(explain(&world, &json!({"lead_id": 5}))["missing"]["code"], "no_match");
}

#[test]
fn a_match_of_long_ago() {
    let (world, _) = running();
    see(&world, 7, 1, START - 400 * DAY_MS, owned(3, true));
    assert_eq!(missing(&world), "match_expired");
}

#[test]
fn a_browser_or_a_cookie_over_its_cap() {
    let (world, _) = running();
    for t in 1..=11 {
        see(&world, 7, t, START, owned(3, true));
    }
    assert_eq!(missing(&world), "set_aside_browser");
    let (world, _) = running();
    for e in 7..=57 {
        see(&world, e, 1, START, owned(3, true));
    }
    assert_eq!(missing(&world), "set_aside_cookie");
    assert_eq!(explain(&world, &json!({"token": token(1).as_str()}))["browsers_not_shown"], 31);
}

#[test]
fn a_cookie_about_which_marketo_was_not_asked_or_knows_nobody() {
    let (world, _) = running();
    see(&world, 7, 1, START, |_| {});
    assert_eq!(missing(&world), "not_asked");
    see(&world, 7, 1, START, |record| record.parked = true);
    let answer = explain(&world, &json!({"ecid": ecid(7).text()}));
    assert_eq!(
        (&answer["missing"]["code"], &answer["browsers"][0]["matches"][0]["state"]),
        (&json!("not_asked"), &json!("doubted"))
    );
    see(&world, 7, 1, START, |record| record.was_asked(START + 1_000));
    let answer = explain(&world, &json!({"ecid": ecid(7).text()}));
    assert_eq!(answer["missing"]["code"], "nobody");
    assert_eq!(answer["browsers"][0]["matches"][0]["looked_up_at"], "2026-11-20T00:00:01Z");
}

#[test]
fn an_anonymous_person() {
    let (world, _) = running();
    see(&world, 7, 1, START, owned(3, false));
    let answer = explain(&world, &json!({"ecid": ecid(7).text()}));
    assert_eq!(answer["missing"]["code"], "anonymous");
    assert_eq!((&answer["people"][0]["known"], &answer["browsers"][0]["ecid_ends"]), (&json!(false), &json!("0007")));
    // By Marketo's own word, too.
    let (world, _) = running();
    lead(&world, 3, |record| {
        record.told(false, BTreeSet::from([ecid(7)]), START);
    });
    let answer = explain(&world, &json!({"ecid": ecid(7).text()}));
    assert_eq!(
        (&answer["missing"]["code"], &answer["browsers"][0]["from_marketo"]),
        (&json!("anonymous"), &json!([3]))
    );
}

#[test]
fn a_person_who_was_deleted_and_one_who_was_merged() {
    let (world, _) = running();
    lead(&world, 3, |record| {
        record.told(true, BTreeSet::from([ecid(7)]), START);
        record.left(None);
    });
    assert_eq!(explain(&world, &json!({"lead_id": 3}))["missing"]["code"], "gone");
    lead(&world, 4, |record| {
        record.left(Some(5));
    });
    see(&world, 7, 1, START, owned(5, true));
    list(&world, |state| {
        state.sure.insert(5);
        state.may.insert(5);
    });
    let answer = explain(&world, &json!({"lead_id": 4}));
    assert_eq!(
        (&answer["missing"]["code"], &answer["people"][0]["merged_into"]),
        (&Value::Null, &json!(5)),
        "{answer}"
    );
}

/// A world in which everything is there for lead 3 up to the list.
fn tied() -> (World, String) {
    let (world, id) = running();
    see(&world, 7, 1, START, owned(3, true));
    (world, id)
}

#[test]
fn a_person_in_the_list_misses_nothing() {
    let (world, id) = tied();
    world.want(101, &[3], 9);
    for by_us in [true, false] {
        list(&world, |state| {
            *state = State { v: 1, ..State::default() };
            if by_us {
                state.sure.insert(3);
                state.may.insert(3);
            } else {
                state.theirs.insert(3);
            }
        });
        for body in [json!({"ecid": ecid(7).text()}), json!({"lead_id": 3}), json!({"email": "3@example.com"})] {
            let answer = explain(&world, &body);
            assert_eq!(answer["missing"]["code"], Value::Null, "{answer}");
            let row = &answer["lists"][0];
            let state = if by_us { "in_list" } else { "before_us" };
            assert_eq!((&row["state"], &row["wanted"], &row["sync_id"]), (&json!(state), &json!(true), &json!(id)));
            let found = &answer["browsers"][0]["matches"][0];
            assert_eq!(
                (&found["state"], &found["lead_id"], &found["known"]),
                (&json!("counts"), &json!(3), &json!(true))
            );
        }
    }
}

#[test]
fn a_person_whom_the_list_waits_for() {
    let (world, id) = tied();
    // The audience has not been counted since.
    let answer = explain(&world, &json!({"ecid": ecid(7).text()}));
    assert_eq!(
        (&answer["missing"]["code"], &answer["missing"]["list_id"]),
        (&json!("waiting"), &json!(LIST)),
        "{answer}"
    );
    world.want(101, &[3], 9);
    assert_eq!(missing(&world), "waiting");
    list(&world, |state| {
        state.may.insert(3);
        state.hold.insert(3, START + 210_000);
    });
    let answer = explain(&world, &json!({"lead_id": 3}));
    assert_eq!((&answer["missing"]["code"], &answer["lists"][0]["state"]), (&json!("waiting"), &json!("on_hold")));
    list(&world, |state| {
        state.hold.clear();
        let change = MassChange { add: LeadSet::from_iter([3]), ..MassChange::default() };
        state.held = Some(Held { id: "h".into(), since: START, change });
    });
    assert_eq!(missing(&world), "held");
    list(&world, |state| state.held = None);
    world.post(&format!("/syncs/{id}/pause"), &json!({}));
    assert_eq!(missing(&world), "paused");
}

#[test]
fn a_person_who_stays_out() {
    let (world, _) = tied();
    world.want(101, &[3], 9);
    let with = |change: &dyn Fn(&mut State)| {
        list(&world, |state| {
            *state = State { v: 1, ..State::default() };
            change(state);
        });
        let answer = explain(&world, &json!({"ecid": ecid(7).text()}));
        (answer["missing"]["code"].clone(), answer["missing"]["marketo_code"].clone())
    };
    let refusal = |code: &str| Refusal { code: code.into(), at: START, request_id: "1a2b#3".into() };
    assert_eq!(with(&|state| assert!(state.kept_out.insert(3))), (json!("kept_out"), Value::Null));
    assert_eq!(with(&|state| assert!(state.dropped.insert(3))), (json!("dropped"), Value::Null));
    assert_eq!(with(&|state| drop(state.failed.insert(3, refusal("1004")))), (json!("gone"), json!("1004")));
    assert_eq!(with(&|state| drop(state.failed.insert(3, refusal("1008")))), (json!("refused"), json!("1008")));
}

#[test]
fn a_sync_that_only_reports_and_people_who_are_not_wanted_any_more() {
    let world = World::new();
    let body = json!({"audience_id": "aam:101", "list": {"id": LIST}, "start": "report_only"});
    assert_eq!(world.post("/syncs", &body).0, 201);
    members(&world, 101, &[7]);
    see(&world, 7, 1, START, owned(3, true));
    assert_eq!(missing(&world), "report_only");

    let (world, _) = running();
    see(&world, 8, 1, START, owned(3, true));
    list(&world, |state| {
        state.sure.insert(3);
        state.may.insert(3);
    });
    let answer = explain(&world, &json!({"lead_id": 3}));
    assert_eq!((&answer["lists"][0]["state"], &answer["lists"][0]["wanted"]), (&json!("to_leave"), &json!(false)));
    list(&world, |state| {
        state.kept_by.insert("dropped".into(), LeadSet::from_iter([3]));
    });
    assert_eq!(explain(&world, &json!({"lead_id": 3}))["lists"][0]["state"], "kept");
    list(&world, |state| *state = State { v: 1, ..State::default() });
    assert_eq!(explain(&world, &json!({"lead_id": 3}))["lists"][0]["state"], "not_wanted");
}

#[test]
fn who_is_meant_is_said_in_exactly_one_way() {
    let (world, _) = running();
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"lead_id": 1, "email": "a@example.com"}), ""),
        (json!({"ecid": "12"}), "/ecid"),
        (json!({"lead_id": "1"}), "/lead_id"),
        (json!({"token": 5}), "/token"),
        (json!({"who": 5}), "/who"),
    ] {
        let (status, problem) = world.post("/explain", &body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!(pointer)), "{body}: {problem}");
    }
}
