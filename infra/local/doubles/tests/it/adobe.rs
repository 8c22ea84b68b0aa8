//! Adobe's core.

use std::io::Read;

use ::http::Request;
use doubles::adobe::{Adobe, Change, Delivery, Settings};
use serde_json::{Value, json};
use world::types::{Folder, Library, Segment};

use crate::rig::{START, ecid};

pub fn library() -> Library {
    let folder =
        |folder_id, parent_folder_id, name: &str| Folder { folder_id, parent_folder_id, name: name.to_owned() };
    let segment = |sid, folder_id, name: &str| Segment { sid, folder_id, name: name.to_owned() };
    Library {
        folders: vec![folder(1, 0, "Retail"), folder(2, 1, "Cart \"1\""), folder(3, 0, "Travel")],
        segments: (101..=112).map(|sid| segment(sid, 1 + sid % 3, &format!("Audience {sid}"))).collect(),
        ..Library::default()
    }
}

struct Rig {
    core: Adobe,
    now: u64,
    token: String,
}

impl Rig {
    fn new() -> Self {
        let mut rig =
            Self { core: Adobe::new(Settings::default(), library(), START), now: START, token: String::new() };
        rig.sign_in();
        rig
    }

    fn sign_in(&mut self) {
        let (status, body) = self.post_token("sample-secret");
        assert_eq!((status, body["expires_in"].as_u64()), (200, Some(86_399)));
        self.token = body["access_token"].as_str().expect("a token").to_owned();
    }

    fn post_token(&mut self, secret: &str) -> (u16, Value) {
        let form = format!(
            "grant_type=client_credentials&client_id=sample-client&client_secret={secret}&scope=openid,AdobeID"
        );
        let request = Request::post("/ims/token/v3").header("content-type", "application/x-www-form-urlencoded");
        let answer = self.core.handle(self.now, &request.body(form.into_bytes()).expect("a request"));
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).expect("JSON"))
    }

    fn get(&mut self, uri: &str) -> (u16, Value) {
        let request = Request::get(uri)
            .header("authorization", format!("Bearer {}", self.token))
            .header("x-api-key", "sample-client");
        let answer = self.core.handle(self.now, &request.body(Vec::new()).expect("a request"));
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).expect("JSON"))
    }
}

fn rows(gz: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gz).read_to_string(&mut text).expect("gzip");
    text
}

#[test]
fn ims_gives_a_token_and_audience_manager_asks_for_it_and_the_key() {
    let mut rig = Rig::new();
    assert_eq!(rig.post_token("wrong").0, 401);
    assert_eq!(rig.get("/v1/segments/101").0, 200);
    let no_key = Request::get("/v1/segments/").header("authorization", format!("Bearer {}", rig.token));
    assert_eq!(rig.core.handle(rig.now, &no_key.body(Vec::new()).expect("a request")).status(), 403);
    rig.now += 86_399_000;
    let late = Request::get("/v1/segments/")
        .header("authorization", format!("Bearer {}", rig.token))
        .header("x-api-key", "sample-client");
    let answer = rig.core.handle(rig.now, &late.body(Vec::new()).expect("a request"));
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"].to_str().expect("text");
    assert!(challenge.contains("error=\"invalid_token\""));
}

#[test]
fn segments_come_bare_or_wrapped() {
    let mut rig = Rig::new();
    let (_, bare) = rig.get("/v1/segments/");
    assert_eq!(bare.as_array().map(Vec::len), Some(12));
    assert_eq!(bare[0]["sid"], 101);
    let (_, paged) = rig.get("/v1/segments/?page=1");
    assert_eq!((&paged["total"], &paged["page"], &paged["pageSize"]), (&json!(12), &json!(1), &json!(10)));
    assert_eq!(paged["list"].as_array().map(Vec::len), Some(2));
    let (_, found) = rig.get("/v1/segments?folderId=1&search=AUDIENCE&sortBy=sid&descending=true");
    let sids: Vec<_> = found.as_array().expect("an array").iter().map(|row| row["sid"].as_u64()).collect();
    assert_eq!(sids, [Some(111), Some(108), Some(105), Some(102)]);
    assert_eq!(rig.get("/v1/segments/7").0, 404);
    assert_eq!(rig.get("/v1/segments/?page=x").0, 400);
}

#[test]
fn folders_are_nested() {
    let mut rig = Rig::new();
    let (_, folders) = rig.get("/v1/folders/segments/");
    assert_eq!(folders.as_array().map(Vec::len), Some(2));
    let below = &folders[0]["subFolders"][0];
    assert_eq!(
        (&below["folderId"], &below["parentFolderId"], &below["subFolders"]),
        (&json!(2), &json!(1), &json!([]))
    );
    assert_eq!(below["path"], "/Retail/Cart \"1\"");
}

#[test]
fn a_full_file_holds_everybody_and_an_iter_file_what_changed() {
    let mut rig = Rig::new();
    for (sid, n) in [(102, 1), (101, 1), (101, 2), (103, 3)] {
        assert!(rig.core.set_member(sid, &ecid(n), true));
    }
    let (name, bytes) = rig.core.full_file(1_486_140_844_000);
    assert_eq!(name, "S3_1234_20914_Sample_full_1486140844000.sync.gz");
    let (one, two, three) = (ecid(1), ecid(2), ecid(3));
    assert_eq!(rows(&bytes), format!("{one}\t101,102\t\n{two}\t101\t\n{three}\t103\t\n"));
    for (sid, n, member) in [(101, 1, false), (103, 1, true), (103, 3, false), (101, 2, false), (101, 2, true)] {
        assert!(rig.core.set_member(sid, &ecid(n), member));
    }
    let before = rig.core.state().clone();
    let (name, bytes) = rig.core.iter_file(1_486_140_845_000);
    assert_eq!(name, "S3_1234_20914_Sample_iter_1486140845000.sync.gz");
    assert_eq!(rows(&bytes), format!("{one}\t103\t101\n{three}\t\t103\n"));
    assert_eq!(rows(&rig.core.iter_file(1_486_140_846_000).1), "", "nothing has changed since");
    let mut again = Adobe::from_state(Settings::default(), before);
    assert_eq!((again.count(101), again.count(103)), (1, 1));
    // The third is in nothing any more, and so in no full file.
    assert_eq!(rows(&again.full_file(1_486_140_845_000).1), format!("{one}\t102,103\t101\n{two}\t101\t\n"));
}

#[test]
fn the_next_file_is_the_planned_one() {
    let mut rig = Rig::new();
    rig.core.plan(Delivery::Changes(vec![Change { sid: 101, ecid: ecid(7), member: true }]));
    rig.core.plan(Delivery::File { name: "own.sync".to_owned(), bytes: b"x".to_vec() });
    assert_eq!(rig.core.count(101), 0);
    let first = rig.core.next_file(START);
    assert_eq!((rows(&first.1), rig.core.count(101)), (format!("{}\t101\t\n", ecid(7)), 1));
    assert_eq!(rig.core.next_file(START), ("own.sync".to_owned(), b"x".to_vec()));
    assert_eq!(rows(&rig.core.next_file(START + 1).1), format!("{}\t101\t\n", ecid(7)));
    assert_eq!(rig.core.delivered(), 3);
}

#[test]
fn only_ecids_and_known_segments_become_members() {
    let mut rig = Rig::new();
    assert!(!rig.core.set_member(7, &ecid(1), true));
    assert!(!rig.core.set_member(101, "123", true));
    assert_eq!(rig.core.count(101), 0);
}
