//! Leads by filter.

use doubles::marketo::Settings;
use serde_json::json;

use crate::rig::{MUNCHKIN, Rig, code, cookie, encoded, ids, lead, token};

const TUNNEL: &str = "/rest/v1/leads.json?_method=GET";

#[test]
fn cookies_find_their_leads_by_get_and_by_tunnelled_post() {
    let mut rig = Rig::plain();
    let values = format!("{},{},{}", cookie(11), cookie(1), cookie(99));
    let query = format!("filterType=cookies&filterValues={values}&fields=id,email,cookies");
    let expected = json!([{"id": 1, "email": "a@example.com", "cookies": format!("{},{}", token(1), token(11))}]);
    assert_eq!(rig.get(&format!("/rest/v1/leads.json?{query}"))["result"], expected);
    assert_eq!(rig.form(TUNNEL, &query)["result"], expected);
}

#[test]
fn an_anonymous_lead_comes_without_email_and_fields_are_honoured() {
    let mut rig = Rig::plain();
    let values = format!("filterType=cookies&filterValues={},{}", cookie(2), cookie(3));
    let answer = rig.form(TUNNEL, &format!("{values}&fields=email"));
    assert_eq!(answer["result"], json!([{"id": 2, "email": "b@example.com"}, {"id": 3}]));
    let answer = rig.form(TUNNEL, &format!("{values}&fields=id,ecids"));
    assert_eq!(answer["result"], json!([{"id": 2}, {"id": 3, "ecids": crate::rig::ecid(3)}]));
    let answer = rig.form(TUNNEL, &format!("{values}&fields=shoeSize"));
    assert_eq!(code(&answer), "1006");
    let answer = rig.form(TUNNEL, &values);
    assert_eq!(answer["result"][0]["createdAt"], "2026-11-10T00:00:00Z");
}

#[test]
fn one_malformed_cookie_spoils_the_call() {
    let mut rig = Rig::plain();
    for bad in [token(1), format!("id:{MUNCHKIN}%26token:x"), format!("id:999-XYZ-999%26token:{}", token(1))] {
        let form = format!("filterType=cookies&filterValues={},{bad}", cookie(1));
        assert_eq!(code(&rig.form(TUNNEL, &form)), "1012", "{bad}");
    }
}

#[test]
fn ids_and_emails_are_filters_and_ecids_are_not() {
    let mut rig = Rig::plain();
    assert_eq!(ids(&rig.get("/rest/v1/leads.json?filterType=id&filterValues=5,1,77,1")), [1, 5]);
    assert_eq!(ids(&rig.get("/rest/v1/leads.json?filterType=email&filterValues=D@example.com")), [4]);
    assert_eq!(ids(&rig.get("/rest/v1/leads.json?filterType=id&filterValues=77")), [0; 0]);
    assert_eq!(code(&rig.get("/rest/v1/leads.json?filterType=ecids&filterValues=1")), "1011");
    assert_eq!(code(&rig.get("/rest/v1/leads.json?filterType=id&filterValues=x")), "1001");
    assert_eq!(code(&rig.get("/rest/v1/leads.json?filterType=id")), "1002");
}

#[test]
fn three_hundred_values_pass_and_one_more_does_not() {
    let mut rig = Rig::plain();
    let values = |n: u64| (1..=n).map(cookie).collect::<Vec<_>>().join(",");
    let form = |n| format!("filterType=cookies&filterValues={}", values(n));
    assert_eq!(ids(&rig.form(TUNNEL, &form(300))), [1, 2, 3, 5, 6]);
    assert_eq!(code(&rig.form(TUNNEL, &form(301))), "1003");
}

#[test]
fn results_page_by_token() {
    let mut rig = Rig::plain();
    let query = "filterType=id&filterValues=1,2,3&batchSize=2";
    let first = rig.get(&format!("/rest/v1/leads.json?{query}"));
    assert_eq!(ids(&first), [1, 2]);
    let next = encoded(&first["nextPageToken"]);
    let second = rig.form(TUNNEL, &format!("{query}&nextPageToken={next}"));
    assert_eq!(ids(&second), [3]);
    assert!(second.get("nextPageToken").is_none());
    assert_eq!(code(&rig.get(&format!("/rest/v1/leads.json?{query}&nextPageToken=A+B"))), "1003");
}

#[test]
fn more_than_a_thousand_hits_are_refused() {
    let mut rig = Rig::plain();
    for id in 1_000..2_001 {
        rig.core.upsert_lead(rig.now, lead(id, Some("same@example.com"), &[], &[]));
    }
    let by_email = "/rest/v1/leads.json?filterType=email&filterValues=same@example.com";
    assert_eq!(code(&rig.get(by_email)), "1003");
    rig.core.delete(rig.now, 2_000);
    assert_eq!(ids(&rig.get(by_email)).len(), 300);
}

#[test]
fn an_instance_without_the_ecids_field_answers_1006() {
    let mut rig = Rig::new(Settings { ecids_field: false, ..Settings::default() });
    assert_eq!(code(&rig.get("/rest/v1/leads.json?filterType=id&filterValues=1&fields=id,ecids")), "1006");
    assert_eq!(code(&rig.get("/rest/v1/lists/1001/leads.json?fields=id,ecids")), "1006");
}

#[test]
fn one_lead_and_its_lists() {
    let mut rig = Rig::plain();
    assert_eq!(ids(&rig.get("/rest/v1/lead/5.json?fields=id,email")), [5]);
    assert_eq!(code(&rig.get("/rest/v1/lead/77.json")), "1004");
    let lists = rig.get("/rest/v1/leads/5/listMembership.json");
    let lists: Vec<_> = lists["result"].as_array().expect("rows").iter().map(|row| row["listId"].as_u64()).collect();
    assert_eq!(lists, [Some(1001), Some(1005)]);
    let fields = rig.get("/rest/v1/leads/describe2.json");
    assert_eq!(fields["result"][0]["searchableFields"], json!([["cookies"], ["email"], ["id"]]));
}
