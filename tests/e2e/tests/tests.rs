//! The tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use world::feed::gzip;

use crate::run::{Data, FUNCTIONS, bin_dir, eventually, get, once, post, program, start};

/// `lists.json` as list id → members.
pub fn lists(value: &Value) -> BTreeMap<u64, BTreeSet<u64>> {
    let lists = value.as_array().expect("lists");
    let one = |list: &Value| {
        let members = list["members"].as_array().expect("members").iter();
        (list["id"].as_u64().expect("id"), members.map(|id| id.as_u64().expect("lead")).collect())
    };
    lists.iter().map(one).collect()
}

/// Reports without the time that differs in each run.
fn timeless(mut reports: Value) -> Value {
    for report in reports.as_array_mut().expect("reports") {
        let as_of = report["as_of"].take();
        assert!(as_of.is_string());
    }
    reports
}

fn fixture(name: &str, file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name).join("out").join(file);
    serde_json::from_slice(&std::fs::read(path).expect(file)).expect(file)
}

/// Where the program says that a part of it answers.
pub async fn address(running: &mut crate::run::Running, of: &str) -> String {
    let rest = running.line(of).await;
    rest.split_whitespace().next().expect("an address").trim_end_matches('/').to_owned()
}

#[tokio::test]
async fn five_people_end_as_the_readme_says_with_functions_built_by_the_run_itself() {
    let data = Data::tiny();
    once(&data, &["--json"]).await;
    for name in FUNCTIONS {
        assert!(bin_dir().join(name).is_file(), "{name} was not built");
    }
    assert_eq!(data.json("out/lists.json"), fixture("tiny", "lists.json"));
    assert_eq!(timeless(data.json("out/reports.json")), timeless(fixture("tiny", "reports.json")));
    // Standard output holds the reports and nothing else; the table went to standard error.
    assert_eq!(data.text("stdout"), data.text("out/reports.json"));
    assert!(data.text("stderr").contains("Cart abandoners"));
    data.assert_logs_tell_nothing();
}

#[tokio::test]
async fn split_files_exports_and_a_stream_end_as_the_readme_says() {
    let data = Data::fixture("shapes");
    once(&data, &[]).await;
    assert_eq!(data.json("out/lists.json"), fixture("shapes", "lists.json"));
    data.assert_logs_tell_nothing();
}

#[tokio::test]
async fn a_wrong_flag_or_a_faulty_folder_is_one_line_and_exit_code_2() {
    let run = |words: &[&str]| {
        let output = Command::new(program()).args(words).output().expect("the program");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    for words in [&["--nope"][..], &["--port", "x"], &["--data"], &["--data", "/no/such/folder", "--once"]] {
        let (code, said) = run(words);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{words:?}: {said}");
    }
    let ecid = "00000000000000000000000000000000000001";
    for (file, content, expected) in [
        ("library.json", "{\"folders\": [], \"segments\": 1}".to_owned(), "library.json:1: segments"),
        ("marketo.json", "{\n \"munchkin_id\": 5".to_owned(), "marketo.json:"),
        ("matches.jsonl", format!("{{\"ecid\": {ecid}, \"token\": \"_mch-a-1\"}}\n"), "matches.jsonl:1"),
        ("syncs.json", "[{\"list\": {}}]".to_owned(), "syncs.json:1"),
        ("later.jsonl", "{\"after_file\": 99, \"delete\": 1}\n".to_owned(), "later.jsonl:1: after_file"),
    ] {
        let data = Data::tiny();
        data.put(file, &content);
        let (code, said) = run(&["--once", "--data", data.path().to_str().expect("UTF-8")]);
        assert_eq!(code, Some(2), "{file}: {said}");
        assert!(said.lines().all(|line| line.starts_with("error: ")) && said.contains(expected), "{file}: {said}");
        assert!(!said.contains(ecid), "{file}");
        assert!(!data.path().join("out").exists());
    }
    let data = Data::tiny();
    std::fs::remove_file(data.path().join("marketo.json")).expect("removed");
    let (code, said) = run(&["--data", data.path().to_str().expect("UTF-8")]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("marketo.json"), "{said}");
}

#[tokio::test]
async fn a_busy_port_that_was_asked_for_is_an_error() {
    let busy = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = busy.local_addr().expect("address").port().to_string();
    let data = Data::tiny();
    let mut running = start(&data, &["--once", "--port", &port]);
    assert_eq!(running.end().await.code(), Some(1));
    assert!(running.output("stdout").contains(&format!("port {port} is not free")), "{}", running.output("stdout"));
}

/// Good rows go through, bad ones are kept with line and reason; the default port moves on when it is busy.
#[tokio::test]
async fn bad_files_are_told_of_and_good_rows_count() {
    // Whoever holds the default port, it is not free for the run.
    let _busy = TcpListener::bind(("127.0.0.1", 8787));
    let data = Data::tiny();
    let e = |n: u32| format!("{n:038}");
    let bad = format!("{}\t101,999\t\nonly-one-column\nnot-an-ecid\t101\t\n{}\t102\t\n{}\t101\t\n", e(2), e(5), e(4));
    data.put("incoming/S3_1234_20914_Tiny_iter_1793577600001.sync", bad);
    let whole = gzip(&(1..400).map(|n| format!("{}\t101\t\n", e(n * 7919 + 100))).collect::<String>());
    data.put("incoming/S3_1234_20914_Tiny_iter_1793577600002.sync.gz", &whole[..whole.len() / 2]);
    data.put("incoming/S3_1234_20914_Tiny_iter_1793577600003.sync", "");
    data.put("incoming/readme.txt", "nothing for us");
    let mut running = start(&data, &[]);
    let url = address(&mut running, "Open ").await;
    assert!(!url.ends_with(":8787"), "{url}");
    assert!(running.output("stdout").contains("port 8787 is busy"), "{}", running.output("stdout"));

    let imports = get(&format!("{url}/imports")).await;
    let import = |part: &str| {
        let imports = imports.as_array().expect("imports");
        imports.iter().find(|import| import["key"].as_str().is_some_and(|key| key.contains(part))).expect(part).clone()
    };
    let rows = import("1793577600001");
    assert_eq!((&rows["status"], &rows["rows"], &rows["rejected"]), (&json!("done"), &json!(5), &json!(3)));
    let rejects = rows["rejects"].as_array().expect("rejects");
    let lines: Vec<u64> = rejects.iter().map(|reject| reject["line"].as_u64().expect("line")).collect();
    assert_eq!(lines, [1, 2, 3]);
    for (reject, word) in rejects.iter().zip(["audience library", "column", "38 digits"]) {
        assert!(reject["reason"].as_str().is_some_and(|reason| reason.contains(word)), "{reject}");
    }
    let cut = import("1793577600002");
    assert!(cut["why"].as_str().is_some_and(|why| why.contains("not whole")), "{cut}");
    assert_eq!(import("1793577600003")["status"], "refused");
    let stranger = import("readme.txt");
    assert_eq!(stranger["status"], "refused");
    assert!(stranger["why"].as_str().is_some_and(|why| why.contains("not a file for us")), "{stranger}");

    // Carla (E4) is back by the good row of the bad file; nobody else moved.
    let marketo = address(&mut running, "        Marketo's world: ").await;
    let found = lists(&get(&format!("{marketo}/lists")).await);
    assert_eq!(found[&1001], BTreeSet::from([100_001, 100_002, 100_003]));
    assert_eq!(found[&1002], BTreeSet::from([100_001, 100_004, 100_005]));
    running.interrupt().await;
    data.assert_logs_tell_nothing();
}

/// What was answered 2xx is not lost by a stop, and a file that comes twice changes nothing.
#[tokio::test]
async fn a_restart_loses_nothing_and_a_file_may_come_twice() {
    let data = Data::tiny();
    let mut running = start(&data, &["--port", "0"]);
    let url = address(&mut running, "Open ").await;
    let syncs = get(&format!("{url}/syncs")).await;
    let imports = get(&format!("{url}/imports")).await.as_array().expect("imports").len();
    assert_eq!((syncs.as_array().expect("syncs").len(), imports), (2, 2));
    // E7 is in both audiences; seen beside Ben's token it brings him into the second list.
    let ben = json!({
        "org_id": "0123456789ABCDEF01234567@AdobeOrg", "munchkin_id": "123-ABC-456",
        "ecid": format!("{:038}", 7), "token": "_mch-example.com-1793000000000-10003", "seen_at": "2026-10-29T00:00:00Z",
    });
    let (status, answer) = post(&format!("{url}/matches"), &ben).await;
    assert_eq!((status, &answer["results"][0]["status"]), (200, &json!("accepted")));
    running.interrupt().await;

    // As if the run had been killed before it wrote down that the second file was delivered.
    let mut progress = data.json(".state/progress.json");
    let files = progress["files"].as_array_mut().expect("files");
    assert_eq!(files.len(), 2);
    files.pop();
    data.put(".state/progress.json", progress.to_string());

    let mut running = start(&data, &["--port", "0"]);
    let url = address(&mut running, "Open ").await;
    assert!(running.output("stdout").contains("Going on"), "{}", running.output("stdout"));
    let again = get(&format!("{url}/syncs")).await;
    let ids = |syncs: &Value| -> Vec<Value> {
        syncs.as_array().expect("syncs").iter().map(|sync| sync["id"].clone()).collect()
    };
    assert_eq!(ids(&again), ids(&syncs));
    assert_eq!(get(&format!("{url}/imports")).await.as_array().expect("imports").len(), imports);
    let marketo = address(&mut running, "        Marketo's world: ").await;
    let expected = BTreeMap::from([
        (1001, BTreeSet::from([100_001, 100_002])),
        (1002, BTreeSet::from([100_001, 100_002, 100_004, 100_005])),
    ]);
    let found = || async {
        let found = lists(&get(&format!("{marketo}/lists")).await);
        (found == expected).then_some(())
    };
    eventually("Ben in the second list", found).await;
    running.interrupt().await;
    data.assert_logs_tell_nothing();
}

/// At a HIPAA-ready subscription every door is closed.
#[tokio::test]
async fn a_hipaa_ready_subscription_gets_nothing() {
    let data = Data::tiny();
    let mut marketo = data.json("marketo.json");
    marketo["hipaa_ready"] = json!(true);
    data.put("marketo.json", marketo.to_string());
    once(&data, &[]).await;
    assert_eq!(data.json("out/reports.json"), json!([]));
    assert_eq!(lists(&data.json("out/lists.json")), BTreeMap::from([(1001, BTreeSet::from([100_002]))]));
    let said = data.text("stdout");
    assert!(said.contains("6 refused") && said.contains("sync 1 is refused") && said.contains("HIPAA"), "{said}");
}
