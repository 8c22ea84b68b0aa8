//! Bulk lead import.

use ::http::Method;
use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Settings, Which};
use serde_json::{Value, json};

use crate::rig::{Rig, START, code};

const FORM: &str = "multipart/form-data; boundary=\"b0undary\"";

fn form(file: &str) -> String {
    format!(
        "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ids.csv\"\r\n\
         Content-Type: text/csv\r\n\r\n{file}\r\n--b0undary--\r\n"
    )
}

fn import(rig: &mut Rig, query: &str, file: &str) -> Value {
    let (status, body) = rig.call(Method::POST, &format!("/bulk/v1/leads.json?{query}"), Some(FORM), &form(file));
    assert_eq!(status, 200);
    body
}

fn into_list(rig: &mut Rig, list: u64, file: &str) -> Value {
    import(rig, &format!("format=csv&lookupField=id&listId={list}"), file)
}

fn status(rig: &mut Rig, batch: u64) -> Value {
    rig.get(&format!("/bulk/v1/leads/batch/{batch}.json"))["result"][0].clone()
}

fn text(rig: &mut Rig, batch: u64, file: &str) -> String {
    let (_, body) = rig.raw(Method::GET, &format!("/bulk/v1/leads/batch/{batch}/{file}.json"), None, "");
    String::from_utf8(body).expect("UTF-8")
}

#[test]
fn a_file_of_ids_fills_a_list_when_it_ends() {
    let mut rig = Rig::plain();
    let answer = into_list(&mut rig, 1001, "id\n2\n1\n99\n\"x\"\"y\"\n3\n");
    assert_eq!(answer["result"], json!([{"batchId": 7001, "importId": "7001", "status": "Queued"}]));
    assert_eq!(rig.core.calls().last().map(|call| (call.kind, call.ids)), Some((Kind::ImportCreate, 5)));
    rig.now = START + 30_000;
    assert_eq!(status(&mut rig, 7001)["status"], "Importing");
    let (_, early) = rig.call(Method::GET, "/bulk/v1/leads/batch/7001/failures.json", None, "");
    assert_eq!(code(&early), "1003");
    assert_eq!(rig.members(1001), [1, 5]);
    rig.core.delete(START + 40_000, 3);
    rig.now = START + 60_000;
    let done = status(&mut rig, 7001);
    assert_eq!((&done["status"], &done["numOfLeadsProcessed"]), (&json!("Complete"), &json!(2)));
    assert_eq!((&done["numOfRowsFailed"], &done["numOfRowsWithWarning"]), (&json!(3), &json!(0)));
    assert_eq!(done["message"], "Import completed with errors, 2 records imported (2 members), 3 failed");
    assert_eq!(rig.members(1001), [1, 2, 5]);
    assert!(rig.core.lead(99).is_none(), "nobody is created");
    let failures =
        "id,Import Failure Reason\n99,Lead not found\n\"x\"\"y\",Invalid value for field 'id'\n3,Lead not found\n";
    assert_eq!(text(&mut rig, 7001, "failures"), failures);
    assert_eq!(text(&mut rig, 7001, "warnings"), "id,Import Warning Reason\n");
    let joined: Vec<_> = rig.core.activities().iter().filter(|a| a.type_id == 24).map(|a| (a.lead, a.at_ms)).collect();
    assert_eq!(joined, [(2, START + 60_000)], "1 was in before");
}

#[test]
fn rows_with_a_warning_are_taken() {
    let mut rig = Rig::plain();
    rig.core.refuse_lead(3, Some(1008));
    let file = "id;email\n2;b@example.com\n4;nobody\n3;c@example.com\n";
    let answer = import(&mut rig, "format=ssv&lookupField=id&listId=1005", file);
    assert_eq!(code(&answer), "");
    rig.now += 60_000;
    assert_eq!(status(&mut rig, 7001)["numOfRowsWithWarning"], 1);
    assert_eq!(text(&mut rig, 7001, "warnings"), "id;email;Import Warning Reason\n4;nobody;Invalid email address\n");
    let failures = "id;email;Import Failure Reason\n3;c@example.com;Access denied to partition\n";
    assert_eq!(text(&mut rig, 7001, "failures"), failures);
    assert_eq!(rig.members(1005), [2, 4, 5]);
    assert_eq!(rig.core.lead(4).and_then(|lead| lead.email.as_deref()), Some("d@example.com"));
}

#[test]
fn an_instance_may_fail_every_row_of_an_id_only_file() {
    let mut rig = Rig::new(Settings { id_only_import: false, ..Settings::default() });
    into_list(&mut rig, 1001, "id\n2\n3\n");
    rig.now += 60_000;
    let done = status(&mut rig, 7001);
    assert_eq!((&done["status"], &done["numOfRowsFailed"]), (&json!("Complete"), &json!(2)));
    assert_eq!(rig.members(1001), [1, 5]);
}

#[test]
fn two_run_ten_wait_and_a_list_takes_one_at_a_time() {
    let mut rig = Rig::new(Settings { limits: false, ..Settings::default() });
    let lists: Vec<u64> = (0..13).map(|n| rig.core.make_list(START, &format!("L{n}"), 12, "Default")).collect();
    for list in &lists[..12] {
        assert_eq!(code(&into_list(&mut rig, *list, "id\n1\n")), "");
        assert_eq!(code(&into_list(&mut rig, *list, "id\n2\n")), "1019");
    }
    assert_eq!(code(&into_list(&mut rig, lists[12], "id\n1\n")), "1016");
    rig.now = START + 1;
    let states: Vec<Value> = (7001..7004).map(|batch| status(&mut rig, batch)["status"].clone()).collect();
    assert_eq!(states, ["Importing", "Importing", "Queued"]);
    rig.now = START + 60_000;
    let states: Vec<Value> = (7001..7006).map(|batch| status(&mut rig, batch)["status"].clone()).collect();
    assert_eq!(states, ["Complete", "Complete", "Importing", "Importing", "Queued"]);
    assert_eq!(code(&into_list(&mut rig, lists[12], "id\n1\n")), "");
    assert_eq!(code(&into_list(&mut rig, lists[0], "id\n2\n")), "", "its first import has ended");
    rig.now = START + 420_000;
    rig.core.tick(rig.now);
    assert!(lists.iter().all(|list| rig.core.members(*list).is_some_and(|members| !members.is_empty())));
}

#[test]
fn early_polls_are_marked_and_lengths_scale() {
    let mut rig = Rig::new(Settings { time_scale: 0.1, ..Settings::default() });
    into_list(&mut rig, 1001, "id\n2\n");
    for wait in [0, 499, 500, 5_001] {
        rig.now += wait;
        status(&mut rig, 7001);
    }
    let polls = rig.core.calls().iter().filter(|call| call.kind == Kind::ImportStatus);
    assert_eq!(polls.map(|call| call.early_poll).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(status(&mut rig, 7001)["status"], "Complete");
}

#[test]
fn a_list_that_is_deleted_meanwhile_fails_the_import() {
    let mut rig = Rig::plain();
    into_list(&mut rig, 1005, "id\n2\n");
    rig.form("/rest/asset/v1/staticList/1005/delete.json", "");
    rig.now += 60_000;
    let done = status(&mut rig, 7001);
    assert_eq!((&done["status"], &done["numOfLeadsProcessed"]), (&json!("Failed"), &json!(0)));
}

#[test]
fn what_is_no_import_has_its_code() {
    let mut rig = Rig::plain();
    assert_eq!(code(&into_list(&mut rig, 7, "id\n1\n")), "1013");
    assert_eq!(code(&into_list(&mut rig, 1001, "id\n")), "1003");
    assert_eq!(code(&into_list(&mut rig, 1001, "email\na@example.com\n")), "1003");
    assert_eq!(code(&into_list(&mut rig, 1001, "id,shoeSize\n1,44\n")), "1006");
    assert_eq!(code(&import(&mut rig, "format=csv&listId=1001", "id\n1\n")), "1003", "the default is email");
    assert_eq!(code(&import(&mut rig, "format=xls&lookupField=id", "id\n1\n")), "1003");
    assert_eq!(code(&import(&mut rig, "lookupField=id", "id\n1\n")), "1002");
    let mut post = |content_type: &str, body: &str| {
        let uri = "/bulk/v1/leads.json?format=csv&lookupField=id";
        code(&rig.call(Method::POST, uri, Some(content_type), body).1)
    };
    assert_eq!(post("text/csv", "id\n1\n"), "612");
    assert_eq!(post(FORM, "id\n1\n"), "613");
    assert_eq!(post("multipart/form-data", &form("id\n1\n")), "613");
    assert_eq!(post(FORM, &form("id\n1\n").replace("name=\"file\"", "name=\"other\"")), "1002");
    assert_eq!(code(&rig.get("/bulk/v1/leads/batch/7001.json")), "1013");
    assert_eq!(code(&rig.get("/bulk/v1/leads.json")), "605");
}

#[test]
fn a_file_has_less_than_ten_megabytes() {
    let mut rig = Rig::plain();
    let frame = form("").len();
    let mut put = |bytes: usize| {
        let mut file = "id\n2\n".to_owned();
        file.push_str(&"3\n".repeat((bytes - frame - file.len()) / 2));
        let uri = "/bulk/v1/leads.json?format=csv&lookupField=id&listId=1001";
        rig.raw(Method::POST, uri, Some(FORM), &form(&file)).0
    };
    assert_eq!((put(10_000_004), put(9_999_996)), (413, 200));
    rig.now += 60_000;
    rig.core.tick(rig.now);
    assert_eq!(rig.members(1001), [1, 2, 3, 5]);
}

#[test]
fn an_import_whose_answer_is_lost_runs_all_the_same() {
    let mut rig = Rig::plain();
    let which = Which::Nth(1);
    let (answer, commit) = (FaultAnswer::Http(502), Commit::Late { after_ms: 10_000 });
    rig.core.inject(Fault { kind: Some(Kind::ImportCreate), which, answer, commit });
    let uri = "/bulk/v1/leads.json?format=csv&lookupField=id&listId=1001";
    assert_eq!(rig.raw(Method::POST, uri, Some(FORM), &form("id\n2\n")).0, 502);
    rig.core.tick(START + 69_999);
    assert_eq!(rig.members(1001), [1, 5]);
    rig.core.tick(START + 70_000);
    assert_eq!(rig.members(1001), [1, 2, 5]);
}
