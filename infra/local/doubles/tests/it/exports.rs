//! Bulk lead extract.

use ::http::Method;
use doubles::marketo::{Kind, Settings};
use serde_json::{Value, json};

use crate::rig::{Rig, START, code, ecid, lead, token};

const CREATE: &str = "/bulk/v1/leads/export/create.json";

fn wanted(from: &str, to: &str) -> Value {
    json!({"fields": ["id", "email", "cookies", "ecids"], "format": "CSV",
           "filter": {"createdAt": {"startAt": from, "endAt": to}}})
}

fn of_november() -> Value {
    wanted("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
}

fn create(rig: &mut Rig) -> String {
    let answer = rig.json(CREATE, &of_november());
    assert_eq!(answer["result"][0]["status"], "Created");
    answer["result"][0]["exportId"].as_str().expect("an id").to_owned()
}

fn enqueue(rig: &mut Rig, id: &str) -> String {
    code(&rig.json(&format!("/bulk/v1/leads/export/{id}/enqueue.json"), &json!({})))
}

fn status(rig: &mut Rig, id: &str) -> Value {
    rig.get(&format!("/bulk/v1/leads/export/{id}/status.json"))["result"][0].clone()
}

#[test]
fn an_export_goes_through_its_statuses_to_a_file() {
    let mut rig = Rig::plain();
    let id = create(&mut rig);
    let file = format!("/bulk/v1/leads/export/{id}/file.json");
    assert_eq!(enqueue(&mut rig, &id), "");
    assert_eq!(status(&mut rig, &id)["status"], "Queued");
    assert_eq!(code(&rig.get(&file)), "1003");
    rig.now = START + 30_000;
    assert_eq!(status(&mut rig, &id)["status"], "Processing");
    // Still within the run: the file shows the database at its end.
    rig.core.upsert_lead(START + 40_000, lead(7, Some("g\"@example.com"), &[7], &[]));
    rig.core.delete(START + 130_000, 1);
    rig.now = START + 130_000;
    let done = status(&mut rig, &id);
    assert_eq!((done["status"].as_str(), done["numberOfRecords"].as_u64()), (Some("Completed"), Some(7)));
    assert_eq!(done["finishedAt"], "2026-11-20T00:02:00Z");
    let (http, body) = rig.raw(Method::GET, &file, None, "");
    let text = String::from_utf8(body).expect("UTF-8");
    assert_eq!((http, done["fileSize"].as_u64()), (200, Some(text.len() as u64)));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "id,email,cookies,ecids");
    assert_eq!(lines[1], format!("1,a@example.com,\"{},{}\",{}", token(1), token(11), ecid(1)));
    assert_eq!(lines[4], "4,d@example.com,null,null");
    assert_eq!(lines[7], format!("7,\"g\"\"@example.com\",{},null", token(7)));
    let early: Vec<bool> =
        rig.core.calls().iter().filter(|c| c.kind == Kind::ExportStatus).map(|c| c.early_poll).collect();
    assert_eq!(early, [false, true, false], "the second came before 60 s had passed");
}

#[test]
fn part_of_a_file_can_be_asked_for() {
    let mut rig = Rig::plain();
    let id = create(&mut rig);
    enqueue(&mut rig, &id);
    rig.now += 120_000;
    let request = ::http::Request::builder()
        .uri(format!("/bulk/v1/leads/export/{id}/file.json"))
        .header("authorization", format!("Bearer {}", rig.token))
        .header("range", "bytes=3-7")
        .body(Vec::new())
        .expect("a request");
    let response = rig.core.handle(rig.now, &request).response.expect("an answer");
    assert_eq!((response.status().as_u16(), response.body().as_slice()), (206, b"email".as_slice()));
}

#[test]
fn only_the_range_counts_and_it_is_at_most_31_days() {
    let mut rig = Rig::plain();
    let mut refused = |from: &str, to: &str| code(&rig.json(CREATE, &wanted(from, to)));
    assert_eq!(refused("2026-11-01T00:00:00Z", "2026-12-02T00:00:00Z"), "");
    assert_eq!(refused("2026-11-01T00:00:00Z", "2026-12-02T00:00:01Z"), "1003");
    assert_eq!(refused("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"), "1003");
    assert_eq!(refused("2026-11-01T00:00:00.000Z", "2026-11-02T00:00:00Z"), "1003");
    let mut other = of_november();
    other["filter"] = json!({"updatedAt": {}});
    assert_eq!(code(&rig.json(CREATE, &other)), "1035");
    other["filter"] = json!({});
    assert_eq!(code(&rig.json(CREATE, &other)), "1003");
    other["filter"] = of_november()["filter"].clone();
    other["filter"]["staticListId"] = json!(1001);
    assert_eq!(code(&rig.json(CREATE, &other)), "1003", "exactly one filter");
    other["filter"] = json!({"staticListId": 7});
    assert_eq!(code(&rig.json(CREATE, &other)), "1013");
    let answer = rig.json(CREATE, &wanted("2026-11-11T00:00:00Z", "2026-11-20T00:00:00Z"));
    let id = answer["result"][0]["exportId"].as_str().expect("an id").to_owned();
    enqueue(&mut rig, &id);
    rig.now += 120_000;
    assert_eq!(status(&mut rig, &id)["numberOfRecords"], 0, "everybody was created on the 10th");
}

#[test]
fn a_list_can_be_exported() {
    let mut rig = Rig::plain();
    let answer = rig.json(CREATE, &json!({"fields": ["id"], "filter": {"staticListId": 1001}}));
    let id = answer["result"][0]["exportId"].as_str().expect("an id").to_owned();
    enqueue(&mut rig, &id);
    rig.now += 120_000;
    let (_, body) = rig.raw(Method::GET, &format!("/bulk/v1/leads/export/{id}/file.json"), None, "");
    assert_eq!(body, b"id\n1\n5\n");
}

#[test]
fn two_run_ten_wait_and_the_next_is_1029() {
    let mut rig = Rig::new(Settings { limits: false, ..Settings::default() });
    let ids: Vec<String> = (0..13).map(|_| create(&mut rig)).collect();
    assert_eq!(enqueue(&mut rig, &ids[0]), "");
    assert_eq!(enqueue(&mut rig, &ids[0]), "1029", "already queued");
    assert_eq!(enqueue(&mut rig, &ids[1]), "");
    rig.now += 30_000;
    for id in &ids[2..12] {
        assert_eq!(enqueue(&mut rig, id), "");
    }
    assert_eq!(enqueue(&mut rig, &ids[12]), "1029");
    rig.now = START + 120_000;
    let states: Vec<Value> = ids[..5].iter().map(|id| status(&mut rig, id)["status"].clone()).collect();
    assert_eq!(states, ["Completed", "Completed", "Processing", "Processing", "Queued"]);
}

#[test]
fn fields_and_jobs_that_are_not_there() {
    let mut rig = Rig::new(Settings { ecids_field: false, ..Settings::default() });
    assert_eq!(code(&rig.json(CREATE, &of_november())), "1006");
    let unknown = "/bulk/v1/leads/export/ce45a7a1-f19d-4ce2-882c-00000000000f/status.json";
    assert_eq!(code(&rig.get(unknown)), "1013");
}

#[test]
fn the_length_scales() {
    let mut rig = Rig::new(Settings { time_scale: 0.01, ..Settings::default() });
    let id = create(&mut rig);
    enqueue(&mut rig, &id);
    rig.now += 1_200;
    assert_eq!(status(&mut rig, &id)["status"], "Completed");
}

#[test]
fn a_file_is_kept_for_seven_days() {
    let mut rig = Rig::plain();
    let id = create(&mut rig);
    enqueue(&mut rig, &id);
    let uri = format!("/bulk/v1/leads/export/{id}/status.json");
    rig.now = START + 6 * 86_400_000;
    rig.sign_in();
    assert_eq!(status(&mut rig, &id)["status"], "Completed");
    rig.now = START + 8 * 86_400_000;
    rig.sign_in();
    assert_eq!(code(&rig.get(&uri)), "1013");
    assert_ne!(create(&mut rig), id, "an id is never given twice");
}
