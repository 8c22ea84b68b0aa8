//! The change feed.

use doubles::marketo::Settings;
use serde_json::Value;

use crate::rig::{Rig, START, code, encoded, lead};

fn since(rig: &mut Rig, when: &str) -> String {
    encoded(&rig.get(&format!("/rest/v1/activities/pagingtoken.json?sinceDatetime={when}"))["nextPageToken"])
}

fn read(rig: &mut Rig, types: &str, token: &str) -> Value {
    rig.get(&format!("/rest/v1/activities.json?activityTypeIds={types}&nextPageToken={token}"))
}

#[test]
fn a_lead_is_gone_before_its_activity_can_be_read() {
    let mut rig = Rig::plain();
    let token = since(&mut rig, "2026-11-20T00:00:00Z");
    assert!(rig.core.merge(rig.now, 1, &[2]));
    assert_eq!(rig.core.next_visible_activity_at(), Some(START + 5_000));
    rig.now += 4_999;
    assert_eq!(rig.add(1001, &[2]), ["1004"]);
    let early = read(&mut rig, "32", &token);
    assert!(early.get("result").is_none());
    assert_eq!(early["moreResult"], false);
    rig.now += 1;
    let token = encoded(&early["nextPageToken"]);
    let row = read(&mut rig, "32", &token)["result"][0].clone();
    assert_eq!(rig.core.next_visible_activity_at(), None);
    assert_eq!((row["leadId"].as_u64(), row["activityTypeId"].as_u64()), (Some(1), Some(32)));
    assert_eq!(row["activityDate"], "2026-11-20T00:00:00Z");
    let losers = row["attributes"].as_array().expect("attributes").iter().find(|a| a["name"] == "Merge IDs");
    assert_eq!(losers.expect("Merge IDs")["value"], "[2]");
    assert!(row["marketoGUID"].is_string());
}

#[test]
fn pages_hold_300_and_may_be_empty_although_more_follows() {
    let mut rig = Rig::plain();
    for id in 1_000..1_650 {
        rig.core.upsert_lead(rig.now, lead(id, None, &[], &[]));
    }
    rig.core.delete(rig.now, 1_000);
    rig.now += 5_000;
    let mut token = since(&mut rig, "2026-11-20");
    let (mut sizes, mut guids) = (Vec::new(), std::collections::BTreeSet::new());
    loop {
        let page = read(&mut rig, "12,37", &token);
        let rows = page["result"].as_array().expect("rows");
        sizes.push(rows.len());
        guids.extend(rows.iter().map(|row| row["marketoGUID"].to_string()));
        token = encoded(&page["nextPageToken"]);
        if page["moreResult"] == false {
            break;
        }
    }
    assert_eq!((sizes, guids.len()), (vec![300, 300, 51], 651));
    // Only the last of the 651 is a deletion: two pages without a row come first.
    let token = since(&mut rig, "2026-11-20");
    let first = read(&mut rig, "37", &token);
    assert!(first.get("result").is_none() && first["moreResult"] == true);
    let second = read(&mut rig, "37", &encoded(&first["nextPageToken"]));
    let third = read(&mut rig, "37", &encoded(&second["nextPageToken"]));
    assert_eq!((third["result"][0]["leadId"].as_u64(), third["moreResult"].as_bool()), (Some(1_000), Some(false)));
    let deleted =
        rig.get(&format!("/rest/v1/activities/deletedleads.json?nextPageToken={}", encoded(&second["nextPageToken"])));
    assert_eq!(deleted["result"][0]["leadId"], 1_000);
}

#[test]
fn a_token_begins_at_its_date() {
    let mut rig = Rig::plain();
    rig.core.delete(rig.now, 2);
    rig.core.delete(rig.now + 60_000, 3);
    rig.now += 120_000;
    let token = since(&mut rig, "2026-11-20T00:00:30Z");
    let page = read(&mut rig, "37", &token);
    assert_eq!(page["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["result"][0]["leadId"], 3);
}

#[test]
fn bad_parameters_have_their_codes() {
    let mut rig = Rig::plain();
    let token = since(&mut rig, "2026-11-20");
    assert_eq!(code(&read(&mut rig, "1,2,3,4,5,6,7,8,9,10,11", &token)), "1003");
    assert_eq!(code(&read(&mut rig, "1,2,3,4,5,6,7,8,9,10", &token)), "");
    assert_eq!(code(&read(&mut rig, "32", "garbage")), "1003");
    assert_eq!(code(&rig.get("/rest/v1/activities.json?activityTypeIds=1")), "1002");
    assert_eq!(code(&rig.get("/rest/v1/activities/pagingtoken.json?sinceDatetime=yesterday")), "704");
}

#[test]
fn the_lag_scales() {
    let mut rig = Rig::new(Settings { time_scale: 0.01, ..Settings::default() });
    rig.core.delete(rig.now, 2);
    assert_eq!(rig.core.next_visible_activity_at(), Some(START + 50));
}

#[test]
fn every_real_change_of_a_membership_is_24_or_25() {
    let mut rig = Rig::plain();
    let token = since(&mut rig, "2026-11-20");
    rig.add(1001, &[1, 2, 99]);
    rig.remove(1001, &[2, 4]);
    assert!(rig.core.add_by_hand(rig.now, 1005, 4) && !rig.core.add_by_hand(rig.now, 1005, 4));
    assert!(rig.core.remove_by_hand(rig.now, 1005, 4));
    assert!(rig.core.merge(rig.now, 2, &[1]));
    rig.core.delete(rig.now, 5);
    rig.now += 4_999;
    assert!(read(&mut rig, "24,25", &token).get("result").is_none(), "they lag like all others");
    rig.now += 1;
    rig.form("/rest/asset/v1/staticList/1005/delete.json", "");
    let page = read(&mut rig, "24,25", &token);
    let rows: Vec<_> = page["result"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_u64().expect("a number");
            let list = row["primaryAttributeValue"].as_str().expect("a name");
            (number("activityTypeId"), number("leadId"), number("primaryAttributeValueId"), list)
        })
        .collect();
    let vip = |kind, lead| (kind, lead, 1001, "VIP");
    let newsletter = |kind, lead| (kind, lead, 1005, "Newsletter");
    assert_eq!(rows, [vip(24, 2), vip(25, 2), newsletter(24, 4), newsletter(25, 4)]);
    assert_eq!(read(&mut rig, "25", &token)["result"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_big_load_does_not_hide_the_rest_and_is_read_page_by_page() {
    let mut data = crate::rig::data();
    data.leads = (1..=3_000).map(|id| lead(id, None, &[], &[])).collect();
    let mut rig = Rig::with(Settings { limits: false, ..Settings::default() }, data);
    let token = since(&mut rig, "2026-11-20");
    rig.core.delete(rig.now, 1);
    for first in (2..3_000).step_by(300) {
        rig.add(1001, &(first..(first + 300).min(3_000)).collect::<Vec<_>>());
    }
    rig.core.delete(rig.now, 2);
    rig.now += 5_000;
    let page = read(&mut rig, "12,37", &token);
    assert_eq!((page["result"].as_array().map(Vec::len), page["moreResult"].as_bool()), (Some(2), Some(false)));
    let (mut token, mut leads) = (token, std::collections::BTreeSet::new());
    let mut pages = 0;
    loop {
        let page = read(&mut rig, "24", &token);
        leads.extend(page["result"].as_array().into_iter().flatten().map(|row| row["leadId"].to_string()));
        pages += 1;
        token = encoded(&page["nextPageToken"]);
        if page["moreResult"] == false {
            break;
        }
    }
    assert_eq!((pages, leads.len()), (10, 2_997), "5 was in already");
}
