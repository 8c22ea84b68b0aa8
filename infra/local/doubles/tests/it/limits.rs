//! Token, rate, concurrency, quota, sizes.

use ::http::Method;
use doubles::marketo::{Kind, Marketo, Permission, Settings};

use crate::rig::{Rig, START, code, data};

/// 06:00 UTC, midnight US Central, after START.
const MIDNIGHT: u64 = START + 6 * 3_600_000;

#[test]
fn token_is_shared_and_its_life_shrinks_until_a_new_one_comes() {
    let mut rig = Rig::plain();
    let first = rig.token.clone();
    rig.now += 600_000;
    assert_eq!(rig.sign_in(), 3_000);
    assert_eq!(rig.token, first);
    rig.now = START + 3_599_999;
    assert_eq!(rig.sign_in(), 0);
    assert_eq!(rig.probe(), "");
    rig.now = START + 3_600_000;
    assert_eq!(rig.probe(), "602");
    assert_eq!(rig.sign_in(), 3_600);
    assert_ne!(rig.token, first);
    assert_eq!(rig.probe(), "");
    rig.token = first;
    assert_eq!(rig.probe(), "602");
    rig.token = "nobody's".to_owned();
    assert_eq!(rig.probe(), "601");
}

#[test]
fn a_token_can_be_brought_to_the_edge_of_its_life() {
    let mut rig = Rig::plain();
    let first = rig.token.clone();
    rig.core.token_edge(rig.now, 2_500);
    assert_eq!(rig.sign_in(), 2);
    rig.now += 1_700;
    assert_eq!((rig.sign_in(), rig.token == first, rig.probe().as_str()), (0, true, ""));
    rig.now += 800;
    assert_eq!(rig.probe(), "602");
    rig.core.token_edge(rig.now, 2_500);
    assert_eq!(rig.probe(), "602", "what has expired stays so");
    assert_eq!(rig.sign_in(), 3_600);
    assert_ne!(rig.token, first);
}

#[test]
fn token_counts_in_the_header_only() {
    let mut rig = Rig::plain();
    let token = std::mem::take(&mut rig.token);
    assert_eq!(code(&rig.get(&format!("/rest/v1/lists.json?access_token={token}"))), "601");
}

#[test]
fn identity_takes_a_form_and_refuses_bad_credentials_with_401() {
    let mut rig = Rig::plain();
    let form = |secret: &str| format!("grant_type=client_credentials&client_id=sample-client&client_secret={secret}");
    let good = rig.form("/identity/oauth/token", &form("sample-secret"));
    assert_eq!(good["access_token"], rig.token.as_str());
    let urlencoded = Some("application/x-www-form-urlencoded");
    let (status, body) = rig.call(Method::POST, "/identity/oauth/token", urlencoded, &form("wrong"));
    assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")));
    assert_eq!(rig.core.used_today(), 0, "identity does not count");
}

#[test]
fn the_101st_call_of_a_window_is_refused_and_the_window_rolls() {
    let mut rig = Rig::plain();
    for call in 0..100 {
        rig.now = START + call * 100;
        assert_eq!(rig.probe(), "", "call {call}");
    }
    assert_eq!(rig.probe(), "606");
    rig.now = START + 19_999;
    assert_eq!(rig.probe(), "606");
    // The first call leaves the window: room for one, not for two.
    rig.now = START + 20_000;
    assert_eq!(rig.probe(), "");
    assert_eq!(rig.probe(), "606");
    rig.now = START + 20_100;
    assert_eq!(rig.probe(), "");
}

#[test]
fn the_window_scales() {
    let mut rig = Rig::new(Settings { time_scale: 0.01, ..Settings::default() });
    for _ in 0..100 {
        assert_eq!(rig.probe(), "");
    }
    rig.now += 199;
    assert_eq!(rig.probe(), "606");
    rig.now += 1;
    assert_eq!(rig.probe(), "");
}

#[test]
fn the_11th_call_in_flight_is_refused() {
    let mut rig = Rig::new(Settings { latency_ms: 50, ..Settings::default() });
    for _ in 0..10 {
        assert_eq!(rig.probe(), "");
    }
    assert_eq!(rig.probe(), "615");
    assert_eq!(rig.core.calls().last().map(|call| (call.in_flight, call.code)), Some((11, 615)));
    rig.now += 50;
    assert_eq!(rig.probe(), "");
    assert_eq!(rig.core.calls().last().map(|call| call.in_flight), Some(1));
}

#[test]
fn the_quota_ends_and_begins_anew_at_midnight_central() {
    let mut rig = Rig::new(Settings { daily_quota: 3, ..Settings::default() });
    rig.now = MIDNIGHT - 1;
    rig.sign_in();
    assert_eq!((0..4).map(|_| rig.probe()).collect::<Vec<_>>(), ["", "", "", "607"]);
    rig.now = MIDNIGHT;
    rig.sign_in();
    assert_eq!(rig.probe(), "");
    assert_eq!(rig.core.used_today(), 1);
}

#[test]
fn usage_tells_the_calls_of_the_day_in_central_time() {
    let mut rig = Rig::plain();
    rig.probe();
    rig.token.push('x');
    assert_eq!(rig.probe(), "601");
    rig.token.pop();
    let usage = rig.get("/rest/v1/stats/usage.json");
    // START is 18:00 of the day before in Central time. The refused token did not count.
    assert_eq!(
        (usage["result"][0]["date"].as_str(), usage["result"][0]["total"].as_u64()),
        (Some("2026-11-19"), Some(1))
    );
}

#[test]
fn no_limits_lifts_rate_concurrency_and_quota() {
    let settings = Settings { limits: false, daily_quota: 5, latency_ms: 50, ..Settings::default() };
    let mut rig = Rig::new(settings);
    for _ in 0..150 {
        assert_eq!(rig.probe(), "");
    }
}

#[test]
fn long_uris_and_bodies_are_refused_by_http_status() {
    let mut rig = Rig::plain();
    let long = "x".repeat(8 * 1024);
    let (status, _) = rig.raw(Method::GET, &format!("/rest/v1/lists.json?name={long}"), None, "");
    assert_eq!(status, 414);
    let (status, _) = rig.raw(Method::GET, &format!("/rest/asset/v1/staticList/byName.json?name={long}"), None, "");
    assert_eq!(status, 200, "the asset API takes 65 KiB");
    let body = " ".repeat(1024 * 1024 + 1);
    let (status, _) = rig.raw(Method::POST, "/rest/v1/lists/1001/leads.json", Some("application/json"), &body);
    assert_eq!(status, 413);
    assert_eq!(rig.core.used_today(), 1);
}

#[test]
fn unknown_paths_methods_and_content_types_have_their_codes() {
    let mut rig = Rig::plain();
    assert_eq!(code(&rig.get("/rest/v1/nothing.json")), "610");
    assert_eq!(code(&rig.form("/rest/v1/lists.json", "")), "605");
    assert_eq!(code(&rig.form("/rest/v1/lists/1001/leads.json", "id=1")), "612");
    let (_, body) = rig.call(Method::POST, "/rest/v1/lists/1001/leads.json", Some("application/json"), "{");
    assert_eq!(code(&body), "609");
}

#[test]
fn the_log_tells_every_call_and_can_be_off() {
    let mut rig = Rig::plain();
    rig.core.clear_calls();
    rig.add(1001, &[1, 2, 3]);
    let call = rig.core.calls()[0].clone();
    assert_eq!((call.kind, call.ids, call.status, call.code, call.at_ms), (Kind::ListAdd, 3, 200, 0, START));
    let mut rig = Rig::new(Settings { log_calls: false, ..Settings::default() });
    rig.probe();
    assert!(rig.core.calls().is_empty());
}

#[test]
fn the_state_survives_a_restart() {
    let mut rig = Rig::plain();
    rig.add(1001, &[2]);
    rig.core.delete(rig.now, 4);
    let kept = serde_json::to_vec(rig.core.state()).expect("state as JSON");
    let again = Marketo::from_state(Settings::default(), serde_json::from_slice(&kept).expect("the same state"));
    assert_eq!(again.state(), rig.core.state());
    assert_eq!(again.owner_of(&crate::rig::token(11)), Some(1));
    assert_ne!(again.data(), data());
}

#[test]
fn a_role_without_a_permission_is_refused_as_an_address_outside_is_and_both_count() {
    let calls = [
        ("/rest/v1/leads.json?filterType=id&filterValues=1", Permission::ReadLead),
        ("/rest/v1/lists/1001/leads/ismember.json?id=1", Permission::ReadWriteLead),
        ("/rest/v1/activities/pagingtoken.json?sinceDatetime=2026-11-19T00:00:00Z", Permission::ReadActivity),
        ("/rest/asset/v1/folders.json?maxReturn=200", Permission::ReadAsset),
    ];
    let mut rig = Rig::plain();
    for (uri, permission) in calls {
        rig.core.set_missing([permission]);
        assert_eq!(code(&rig.get(uri)), "603", "{uri}");
        // Any role may ask how much was used.
        assert_eq!(code(&rig.get("/rest/v1/stats/usage.json")), "", "{uri}");
        rig.core.set_missing([]);
        assert_eq!(code(&rig.get(uri)), "", "{uri}");
    }
    rig.core.set_missing([Permission::ReadWriteAsset]);
    let form = "folder=%7B%22id%22%3A12%2C%22type%22%3A%22Folder%22%7D&name=New";
    assert_eq!(code(&rig.form("/rest/asset/v1/staticLists.json", form)), "603");
    rig.core.set_missing([]);
    let used = rig.core.used_today();
    rig.core.set_allowlisted(false);
    assert_eq!(code(&rig.get("/rest/v1/stats/usage.json")), "603");
    assert_eq!(rig.core.used_today(), used + 1);
    assert!(rig.sign_in() > 0, "a token is given to everybody");
    rig.core.set_allowlisted(true);
    assert_eq!(rig.probe(), "");
}

#[test]
fn what_other_tools_used_counts_towards_the_day_and_stands_in_the_usage() {
    let mut rig = Rig::plain();
    rig.core.others_used(rig.now, 49_998);
    let usage = rig.get("/rest/v1/stats/usage.json");
    assert_eq!(usage["result"][0]["users"][1]["count"], 49_998);
    rig.probe();
    assert_eq!(rig.probe(), "607");
}

#[test]
fn another_secret_and_a_field_that_goes_are_the_administrators_to_choose() {
    let mut rig = Rig::plain();
    let form = "grant_type=client_credentials&client_id=sample-client&client_secret=sample-secret";
    rig.core.set_secret("another");
    let urlencoded = Some("application/x-www-form-urlencoded");
    let (status, body) = rig.call(Method::POST, "/identity/oauth/token", urlencoded, form);
    assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")));
    assert_eq!(rig.probe(), "", "a token that was given stays good");
    rig.core.set_secret("sample-secret");
    assert!(rig.form("/identity/oauth/token", form)["access_token"].is_string());
    let uri = "/rest/v1/leads.json?filterType=id&filterValues=1&fields=id,ecids";
    rig.core.set_ecids_field(false);
    assert_eq!(code(&rig.get(uri)), "1006");
    rig.core.set_ecids_field(true);
    assert_eq!(code(&rig.get(uri)), "");
}
