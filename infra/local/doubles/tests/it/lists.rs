//! Membership.

use serde_json::json;

use crate::rig::{Rig, code, encoded, ids, rows};

#[test]
fn add_answers_added_for_members_and_1004_for_the_gone() {
    let mut rig = Rig::plain();
    assert_eq!(rig.add(1001, &[5, 99, 2]), ["added", "1004", "added"]);
    assert_eq!(rig.members(1001), [1, 2, 5]);
    let by_query = rig.form("/rest/v1/lists/1001/leads.json?id=3&id=4,99", "");
    assert_eq!(rows(&by_query), ["added", "added", "1004"]);
}

#[test]
fn remove_answers_1015_for_those_not_in_and_1004_for_the_gone() {
    let mut rig = Rig::plain();
    assert_eq!(rig.remove(1001, &[1, 2, 99]), ["removed", "1015", "1004"]);
    assert_eq!(rig.remove(1001, &[1]), ["1015"]);
    assert_eq!(rig.members(1001), [5]);
}

#[test]
fn is_member_tells_three_things() {
    let mut rig = Rig::plain();
    let answer = rig.get("/rest/v1/lists/1001/leads/ismember.json?id=1,2&id=99");
    assert_eq!(rows(&answer), ["memberof", "notmemberof", "1004"]);
}

#[test]
fn an_unknown_list_is_1013_and_a_batch_has_300_ids() {
    let mut rig = Rig::plain();
    assert_eq!(code(&rig.delete("/rest/v1/lists/7/leads.json?id=1")), "1013");
    assert_eq!(code(&rig.json("/rest/v1/lists/7/leads.json", &json!({"input": [{"id": 1}]}))), "1013");
    assert_eq!(code(&rig.get("/rest/v1/lists/7/leads.json")), "1013");
    let many: Vec<u64> = (1..=300).collect();
    assert_eq!(rig.remove(1001, &many).len(), 300);
    let input: Vec<_> = (1..=301).map(|id| json!({"id": id})).collect();
    assert_eq!(code(&rig.json("/rest/v1/lists/1001/leads.json", &json!({"input": input}))), "1003");
    assert_eq!(code(&rig.json("/rest/v1/lists/1001/leads.json", &json!({"input": []}))), "1002");
    assert_eq!(code(&rig.json("/rest/v1/lists/1001/leads.json", &json!({"input": [{"id": "x"}]}))), "1001");
    assert_eq!(code(&rig.delete("/rest/v1/lists/1001/leads.json")), "1002");
}

#[test]
fn members_move_between_pages_while_one_pages() {
    let mut rig = Rig::plain();
    rig.add(1001, &[2, 3, 4]);
    let first = rig.get("/rest/v1/lists/1001/leads.json?batchSize=2&fields=id");
    assert_eq!(ids(&first), [1, 2]);
    rig.core.remove_by_hand(rig.now, 1001, 1);
    let next = encoded(&first["nextPageToken"]);
    let second = rig.get(&format!("/rest/v1/list/1001/leads.json?batchSize=2&fields=id&nextPageToken={next}"));
    assert_eq!(ids(&second), [4, 5], "3 moved to the page that was read already");
    assert!(second.get("nextPageToken").is_none());
}

#[test]
fn lists_are_queried_by_id_and_name_in_pages() {
    let mut rig = Rig::plain();
    assert_eq!(ids(&rig.get("/rest/v1/lists.json?id=1005&id=7")), [1005]);
    assert_eq!(ids(&rig.get("/rest/v1/lists.json?name=VIP")), [1001]);
    assert_eq!(ids(&rig.get("/rest/v1/lists/1001.json")), [1001]);
    assert_eq!(code(&rig.get("/rest/v1/lists/7.json")), "1013");
    let first = rig.get("/rest/v1/lists.json?batchSize=1");
    let second =
        rig.get(&format!("/rest/v1/lists.json?batchSize=1&nextPageToken={}", encoded(&first["nextPageToken"])));
    assert_eq!((ids(&first), ids(&second)), (vec![1001], vec![1005]));
    assert!(second.get("nextPageToken").is_none());
}
