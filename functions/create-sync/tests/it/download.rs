//! Everybody of a sync as CSV.

use domain::limits::{DAY_MS, HOUR_MS};
use domain::list::{Held, MassChange, Refusal, State};
use domain::{LeadId, LeadSet};
use futures::executor::block_on;
use ports::{Expect, Table};
use serde_json::{Value, json};
use state::lists::OpenList;

use crate::support::{START, World, munchkin};

fn running() -> (World, String) {
    let world = World::new();
    let (status, sync) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1001}}));
    assert_eq!(status, 201, "{sync}");
    (world, sync["id"].as_str().expect("an id").to_owned())
}

fn list(world: &World, change: impl Fn(&mut State)) {
    let mut open = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a list");
    change(&mut open.state);
    block_on(open.publish(&world.deps)).expect("published");
}

/// Asks for the file until it is there. Returns the last answer, and how often it was asked for.
fn wait(world: &World, path: &str) -> (Value, usize) {
    for asked in 1..100 {
        let (status, job) = world.get(path);
        assert_eq!(status, 200, "{job}");
        if job["status"] != "working" {
            return (job, asked);
        }
        assert_eq!((&job["url"], &job["url_until"]), (&Value::Null, &Value::Null));
    }
    panic!("a file that is never written");
}

fn file(world: &World, job: &Value) -> String {
    let key = format!("downloads/{}.csv", job["id"].as_str().expect("an id"));
    let bytes = block_on(world.deps.ports.objects.get(&key)).expect("read").expect("a file");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn set(leads: impl IntoIterator<Item = LeadId>) -> LeadSet {
    leads.into_iter().collect()
}

#[test]
fn each_person_stands_in_one_line_with_state_reason_and_since() {
    let (world, id) = running();
    world.want(101, &[1, 2, 3, 4, 5, 6, 7, 8, 9], 9);
    list(&world, |state| {
        state.sure = set([1, 20, 21]);
        state.may = set([1, 6, 20, 21, 22]);
        state.theirs = set([2, 30]);
        state.kept_out = set([3]);
        state.dropped = set([4]);
        let refused = |code: &str| Refusal { code: code.into(), at: START + 1_500, request_id: "1a2b#3".into() };
        state.failed = [(5, refused("1008")), (7, refused("1004"))].into();
        state.hold = [(6, START + 210_000)].into();
        let change = MassChange { add: set([8]), remove: set([21]), ..MassChange::default() };
        state.held = Some(Held { id: "h".into(), since: START + 2_000, change });
        state.kept_by = [("another".to_owned(), set([20]))].into();
    });
    let (status, job) = world.post(&format!("/syncs/{id}/download"), &json!({}));
    assert_eq!((status, &job["status"], &job["rows"]), (202, &json!("working"), &json!(12)), "{job}");
    let path = format!("/downloads/{}", job["id"].as_str().expect("an id"));
    let location = world.ask("POST", &format!("/syncs/{id}/download"), &[], b"").headers;
    assert!(location.iter().any(|(name, value)| *name == "location" && value.starts_with("/downloads/")));
    // What changes after the request is not in the file.
    list(&world, |state| *state = State { v: 1, ..State::default() });
    let (job, _) = wait(&world, &path);
    assert_eq!((&job["status"], &job["why"]), (&json!("done"), &Value::Null));
    let until = job["url_until"].as_str().expect("a time");
    assert_eq!(until, "2026-11-20T00:15:00Z", "a quarter of an hour");
    let expected = format!("downloads/{}.csv?seconds=900&filename=people-{id}.csv", job["id"].as_str().expect("an id"));
    assert!(job["url"].as_str().expect("an address").ends_with(&expected), "{job}");
    let text = file(&world, &job);
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines[0], r#""marketo_id","state","reason","since""#);
    let mut rows: Vec<Vec<&str>> =
        lines[1..].iter().map(|line| line[1..line.len() - 1].split("\",\"").collect()).collect();
    rows.sort_by_key(|row| row[0].parse::<u64>().expect("a number"));
    let short: Vec<(&str, &str, &str)> = rows.iter().map(|row| (row[0], row[1], row[3])).collect();
    assert_eq!(
        short,
        [
            ("1", "in_list", ""),
            ("2", "before_us", ""),
            ("3", "kept_out", ""),
            ("4", "dropped", ""),
            ("5", "refused", "2026-11-20T00:00:01.5Z"),
            ("6", "on_hold", ""),
            ("7", "gone", "2026-11-20T00:00:01.5Z"),
            ("8", "held", "2026-11-20T00:00:02Z"),
            ("9", "waiting", ""),
            ("20", "kept", ""),
            ("21", "to_leave", "2026-11-20T00:00:02Z"),
            ("22", "to_leave", ""),
        ]
    );
    assert!(rows[4][2].starts_with("Marketo refused with code 1008: "), "{:?}", rows[4]);
    assert!(rows.iter().all(|row| row[2].len() > 10 && row[2].ends_with('.')), "{rows:?}");
}

#[test]
fn a_file_of_many_parts_is_written_over_several_requests_whoever_dies() {
    let (world, id) = running();
    let many = 700_000;
    let everybody: Vec<u64> = (1..=many).collect();
    world.want(101, &everybody, 9);
    list(&world, |state| state.sure = set(1..=many / 2));
    let (_, job) = world.post(&format!("/syncs/{id}/download"), &json!({}));
    let path = format!("/downloads/{}", job["id"].as_str().expect("an id"));
    // Dies after each number of calls once, and is asked again.
    let mut died = 0;
    loop {
        world.outside.dies_after(died + 3);
        let answer = world.ask("GET", &path, &[], b"");
        let alive = world.outside.is_alive();
        world.outside.revive();
        if alive && answer.status == 200 && !String::from_utf8_lossy(&answer.body).contains("\"working\"") {
            break;
        }
        died += 1;
        assert!(died < 60, "it never ends");
    }
    assert!(died > 3, "it died {died} times");
    let (job, _) = wait(&world, &path);
    let text = file(&world, &job);
    assert!(text.len() > 3 * (8 << 20), "several parts: {} bytes", text.len());
    let ids = text.lines().skip(1).map(|line| line[1..].split('"').next().and_then(|id| id.parse::<u64>().ok()));
    assert!(ids.eq((1..=many).map(Some)), "each once, and in order");
    assert_eq!((text.matches("in_list").count(), job["rows"].as_u64()), (350_000, Some(many)));
}

#[test]
fn who_was_there_before_us_is_said_to_leave_an_adopted_list() {
    for (members_before, leaves) in [("keep", false), ("adopt", true)] {
        let world = World::new();
        let body = json!({"audience_id": "aam:101", "list": {"id": 1001}, "members_before": members_before});
        let (_, sync) = world.post("/syncs", &body);
        world.want(101, &[1], 9);
        list(&world, |state| {
            state.theirs = set([1, 2, 3, 4]);
            state.tied = set([1, 2, 4]);
            state.restore = set([4]);
        });
        let (_, job) = world.post(&format!("/syncs/{}/download", sync["id"].as_str().expect("an id")), &json!({}));
        let (job, _) = wait(&world, &format!("/downloads/{}", job["id"].as_str().expect("an id")));
        let text = file(&world, &job);
        assert_eq!(text.lines().count(), 2 + usize::from(leaves), "{text}");
        assert!(text.contains("\"1\",\"before_us\""), "{text}");
        assert_eq!(text.contains("\"2\",\"to_leave\",\"Was there before us"), leaves, "{text}");
    }
}

#[test]
fn an_upload_that_was_ended_and_not_noted_is_found_again_or_begun_anew() {
    let (world, id) = running();
    let many = 600_000;
    world.want(101, &(1..=many).collect::<Vec<u64>>(), 9);
    let (_, job) = world.post(&format!("/syncs/{id}/download"), &json!({}));
    let path = format!("/downloads/{}", job["id"].as_str().expect("an id"));
    assert_eq!(world.get(&path).1["status"], "working", "more parts than one request writes");
    let row = |key: &ports::Key| key.sk.starts_with("download/");
    let (_, before) = world.tables().into_iter().find(|((_, key), _)| row(key)).expect("the job's row");
    let (job, _) = wait(&world, &path);
    let whole = file(&world, &job);
    assert_eq!(whole.lines().count() as u64, many + 1);
    for there in [true, false] {
        // Whoever ended the upload died before the row was written.
        let (tables, objects) = (&world.deps.ports.tables, &world.deps.ports.objects);
        block_on(tables.put(Table::Syncs, before.clone(), Expect::Anything)).expect("written");
        if !there {
            let key = format!("downloads/{}.csv", job["id"].as_str().expect("an id"));
            block_on(objects.delete(&key)).expect("deleted");
        }
        let (job, asked) = wait(&world, &path);
        assert_eq!((&job["status"], asked == 1), (&json!("done"), there), "{job}");
        assert!(file(&world, &job) == whole, "the same bytes");
    }
}

#[test]
fn of_nobody_the_file_has_its_columns_and_a_job_ends_after_a_day() {
    let (world, id) = running();
    let path = format!("/syncs/{id}/download");
    assert_eq!(world.post(&path, &json!({})).0, 409, "nobody has been counted yet");
    world.want(101, &[], 9);
    let (_, job) = world.post(&path, &json!({}));
    let path = format!("/downloads/{}", job["id"].as_str().expect("an id"));
    let (job, asked) = wait(&world, &path);
    assert_eq!((file(&world, &job).lines().count(), asked, &job["rows"]), (1, 1, &json!(0)));
    world.wait(DAY_MS - HOUR_MS);
    let (_, job) = world.get(&path);
    assert_eq!((&job["status"], &job["url"]), (&json!("failed"), &Value::Null), "the file may be gone any time");
    world.wait(HOUR_MS);
    assert_eq!(world.get(&path).0, 404);
    assert_eq!(world.get("/downloads/0000000000000000").0, 404);
}

#[test]
fn a_sync_that_only_reports_names_whom_it_would_add() {
    let world = World::new();
    let body = json!({"audience_id": "aam:101", "list": {"id": 1001}, "start": "report_only"});
    let (_, sync) = world.post("/syncs", &body);
    world.want(101, &[4, 5], 9);
    let (_, job) = world.post(&format!("/syncs/{}/download", sync["id"].as_str().expect("an id")), &json!({}));
    let (job, _) = wait(&world, &format!("/downloads/{}", job["id"].as_str().expect("an id")));
    let text = file(&world, &job);
    assert_eq!(text.matches("\"report_only\",\"The sync only reports").count(), 2, "{text}");
}
