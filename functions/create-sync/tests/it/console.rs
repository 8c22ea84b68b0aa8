//! The console's static files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use create_sync::Response;
use flate2::read::GzDecoder;

use crate::support::World;

/// The folder of the console.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/console");

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
}

#[test]
fn every_file_of_the_console_is_served_as_it_is() {
    let world = World::bare();
    let mut tags = BTreeSet::new();
    for entry in std::fs::read_dir(FOLDER).expect("the folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        // It goes out in one language at a time.
        if name == "catalogue.json" {
            continue;
        }
        let bytes = std::fs::read(entry.path()).expect("a file");
        let path = format!("/console/{name}");
        let plain = world.ask("GET", &path, &[], b"");
        assert_eq!(plain.status, 200, "{name} is not among the files of console.rs");
        assert!(plain.body == bytes, "{name} is served otherwise");
        let expected = match name.rsplit_once('.').expect("an ending").1 {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "json" => "application/json",
            other => panic!("{name}: what is {other}?"),
        };
        assert_eq!(plain.content_type, expected);
        assert_eq!(header(&plain, "x-content-type-options"), "nosniff");
        assert_eq!(header(&plain, "content-encoding"), "");

        let packed = world.ask("GET", &path, &[("accept-encoding", "br, gzip;q=0.8")], b"");
        assert_eq!(header(&packed, "content-encoding"), "gzip");
        let mut out = Vec::new();
        GzDecoder::new(packed.body.as_slice()).read_to_end(&mut out).expect("gzip");
        assert_eq!(out, bytes);
        for answer in [&plain, &packed] {
            assert!(tags.insert(header(answer, "etag").to_owned()), "{name}: one tag for each form of each file");
        }
    }
    let catalogue = std::fs::read(format!("{FOLDER}/catalogue.json")).expect("the catalogue");
    let catalogue: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&catalogue).expect("JSON");
    for language in ["en", "fr", "sv"] {
        let answer = world.ask("GET", &format!("/console/catalogue.{language}.json"), &[], b"");
        assert_eq!((answer.status, answer.content_type), (200, "application/json"));
        assert!(tags.insert(header(&answer, "etag").to_owned()), "{language}");
        let found: BTreeMap<String, String> = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(found.len() == catalogue.len() && found.iter().all(|(key, text)| catalogue[key][language] == *text));
    }
    assert_eq!(world.ask("GET", "/console/catalogue.json", &[], b"").status, 404);
    assert_eq!(world.ask("GET", "/console/none.js", &[], b"").status, 404);
    assert_eq!(world.ask("GET", "/console/Cargo.toml", &[], b"").status, 404);
}

#[test]
fn the_first_page_loads_nothing_from_elsewhere() {
    let world = World::bare();
    let answer = world.ask("GET", "/", &[], b"");
    assert_eq!((answer.status, answer.content_type), (200, "text/html; charset=utf-8"));
    assert_eq!(answer.body, world.ask("GET", "/console/index.html", &[], b"").body);
    let html = String::from_utf8(answer.body.clone()).expect("text");
    assert!(!html.contains("//"), "nothing is loaded from elsewhere");
    assert_eq!(
        header(&answer, "content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
}

#[test]
fn what_a_browser_has_is_not_sent_again() {
    let world = World::bare();
    let ask = |headers: &[(&str, &str)]| world.ask("GET", "/console/app.js", headers, b"");
    let first = ask(&[("accept-encoding", "gzip")]);
    assert_eq!(header(&first, "cache-control"), "no-cache", "it is asked for each time");
    let tag = header(&first, "etag");
    assert!(tag.starts_with('"') && tag.ends_with('"'), "a strong one");
    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = ask(&[("accept-encoding", "gzip"), ("if-none-match", &known)]);
        assert_eq!((again.status, again.content_type, again.body.len()), (304, "", 0), "{known}");
        assert_eq!(header(&again, "etag"), tag);
    }
    assert_eq!(ask(&[("if-none-match", tag)]).status, 200, "the tag of the other form");
    assert_eq!(ask(&[("accept-encoding", "gzip"), ("if-none-match", "\"other\"")]).status, 200);
    let refused = ask(&[("accept-encoding", "gzip;q=0, identity")]);
    assert_eq!(header(&refused, "content-encoding"), "");
}

#[test]
fn the_user_guide_is_served_in_three_languages() {
    let world = World::bare();
    for (language, words) in [("en", "# User guide"), ("fr", "# Guide de l'utilisateur"), ("sv", "# Användarhandbok")]
    {
        let answer = world.ask("GET", &format!("/console/guide.{language}.md"), &[], b"");
        assert_eq!((answer.status, answer.content_type), (200, "text/plain; charset=utf-8"));
        assert!(String::from_utf8(answer.body).expect("text").starts_with(words), "{language}");
    }
}
