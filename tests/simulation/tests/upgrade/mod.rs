//! Today's code over what earlier versions left: their rows and objects are read without loss, their messages are understood, and
//! the world goes on to the right lists.

mod story;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cookie_ingest::{Hint, Match, Message};
use domain::identity::{LeadRecord, TokenRecord};
use domain::list::State;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use simulation::fakes::run;
use state::bell::{Bell, Ring};
use state::feeds::Events;
use state::{alerts, audience, edges, erase, feeds, lists, lists_index, previews, readings, runs, syncs};
use story::{Left, Row, ask, at_rest, at_the_end, go_further, members, play, until};

/// The folders of all versions that were released.
fn versions() -> Vec<(String, Left)> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let folders = std::fs::read_dir(fixtures).expect("fixtures").map(|entry| entry.expect("an entry").path());
    let is_version = |folder: &PathBuf| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix('v').is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    };
    let mut found: Vec<PathBuf> = folders.filter(is_version).collect();
    found.sort();
    assert!(!found.is_empty(), "no version has left anything");
    found.into_iter().map(|folder| (folder.display().to_string(), Left::read(&folder))).collect()
}

/// What today's code makes of a document: read as its type and written again. `None`: it cannot be read.
type Again = fn(&Value) -> Option<Value>;

fn again<T: DeserializeOwned + Serialize>(doc: &Value) -> Option<Value> {
    serde_json::to_value(serde_json::from_value::<T>(doc.clone()).ok()?).ok()
}

/// Rows by table and the beginning of their sort keys, or by their partition where that tells more. `None`: the type is its
/// function's own; which of the tests below sees that such a row still counts stands beside it.
fn kinds(row: &Row) -> (&'static str, Option<Again>) {
    let sk = row.sk.as_str();
    let head = sk.split('/').next().unwrap_or_default();
    match (row.table.as_str(), row.pk.rsplit('/').next().unwrap_or_default(), head) {
        ("syncs", "subscriptions", _) => ("a subscription", Some(again::<syncs::Subscription>)),
        ("syncs", "audit", _) => ("the audit log", None),
        ("syncs", "backstop", _) => ("when files and the library were last listed", None),
        ("syncs", _, "sync") => ("a sync", Some(again::<syncs::Sync>)),
        ("syncs", _, "feed") => ("a feed", Some(again::<feeds::Feed>)),
        ("syncs", _, "feed-state") => ("what a feed brought", Some(again::<feeds::FeedState>)),
        ("syncs", _, "import") => ("the record of a file", Some(again::<feeds::Import>)),
        ("syncs", _, "import-at") => ("a file by time", Some(again::<feeds::ImportLine>)),
        ("syncs", _, "delivery") => ("a delivery", Some(again::<feeds::Delivery>)),
        ("syncs", _, "hint-secrets") => ("secrets of hints", Some(again::<syncs::HintSecrets>)),
        ("syncs", _, "erase") => ("an erasure", Some(again::<erase::Job>)),
        ("syncs", _, "identity") => ("cursors", Some(again::<syncs::IdentityHead>)),
        ("syncs", _, "lists-index") => ("the index of lists", Some(again::<lists_index::Index>)),
        ("syncs", _, "preview") => ("a preview", Some(again::<previews::Preview>)),
        ("syncs", _, "reading") => ("a reading of members", Some(again::<readings::MembersJob>)),
        ("syncs", _, "alerts") => ("whom to tell", Some(again::<alerts::Alerts>)),
        ("syncs", _, "alerts-checked") => ("when it was looked what is wrong", Some(again::<alerts::Checked>)),
        ("syncs", _, "incident") => ("an incident", Some(again::<alerts::Incident>)),
        ("syncs", _, "budget") => ("the budget", None),
        ("syncs", _, "idempotency" | "pair" | "creating") => ("the making of a sync", None),
        ("syncs", _, "comparison" | "download") => ("a job of the control plane", None),
        ("syncs", _, "setup") => ("the set-up check", None),
        ("identity", _, "erased") => ("an ECID that was erased", None),
        ("identity", "edges", "head") => ("the edges", Some(again::<edges::Head>)),
        ("identity", "changed", _) => ("tokens that are about to be written", None),
        ("identity", "intake", _) => ("new pairs of a day", Some(again::<state::identity::Intake>)),
        ("identity", "look", _) => ("a hint", None),
        ("identity", _, _) if row.pk.contains("/lt/") || row.pk.contains("/e/") => ("a hint", None),
        ("identity", _, _) if row.pk.contains("/t/") => ("a token", Some(again::<TokenRecord>)),
        ("identity", _, _) if row.pk.contains("/l/") => ("a lead", Some(again::<LeadRecord>)),
        ("audiences", _, "head") => ("an audience", Some(again::<audience::Head>)),
        ("audiences", _, "e") => ("the latest word of an ECID", Some(again::<audience::Overlay>)),
        ("audiences", _, "todo") => ("an ECID to look at", Some(again::<audience::Todo>)),
        ("lists", _, "list") => ("a list", Some(again::<lists::ListHead>)),
        ("lists", _, "want") => ("who is wanted", Some(again::<lists::Want>)),
        ("lists", _, "report") => ("a report", Some(again::<lists::Report>)),
        ("lists", "departures", _) => ("a merge", Some(again::<lists::Departure>)),
        ("lists", "erased", _) => ("a list's answer to an erasure", Some(again::<erase::Answer>)),
        ("lists", _, _) if row.pk.contains("/runs/") => ("a run", Some(again::<runs::Run>)),
        ("lists", _, _) if row.pk.contains("/history/") => ("a size", Some(again::<runs::Size>)),
        ("lists", _, _) if row.pk.contains("/notes/") => ("a note to a list's writer", None),
        ("doorbells", _, _) => ("a doorbell", Some(again::<Bell>)),
        _ => panic!("no kind of row is known of {} {} {sk}", row.table, row.pk),
    }
}

/// Kinds that have to be in the fixture, so that it cannot become poorer.
const KINDS: [&str; 36] = [
    "a delivery",
    "a doorbell",
    "a feed",
    "a file by time",
    "a hint",
    "a job of the control plane",
    "a lead",
    "a list",
    "a list's answer to an erasure",
    "a merge",
    "a preview",
    "a report",
    "a run",
    "a size",
    "a subscription",
    "a sync",
    "a token",
    "an ECID that was erased",
    "an audience",
    "an erasure",
    "an incident",
    "cursors",
    "secrets of hints",
    "the audit log",
    "the budget",
    "the edges",
    "the index of lists",
    "the latest word of an ECID",
    "the making of a sync",
    "the record of a file",
    "tokens that are about to be written",
    "what a feed brought",
    "when files and the library were last listed",
    "when it was looked what is wrong",
    "who is wanted",
    "whom to tell",
];

/// Whether a value says no more than its absence does.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(said) => !said,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

/// What stood there before and is not there any more. Something that is there under another name, beside it, is not lost.
fn lost(before: &Value, after: &Value, place: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut new: Vec<&Value> =
                after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, v)| v).collect();
            for (name, value) in before {
                let place = format!("{place}.{name}");
                match after.get(name) {
                    Some(after) => lost(value, after, &place, found),
                    None if is_nothing(value) => {}
                    None => match new.iter().position(|other| *other == value) {
                        Some(renamed) => {
                            new.remove(renamed);
                        }
                        None => found.push(place),
                    },
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).for_each(|(before, after)| lost(before, after, &format!("{place}[]"), found));
        }
        _ if before == after => {}
        _ => found.push(place.to_owned()),
    }
}

fn assert_kept(what: &str, doc: &Value, again: Again) {
    let after = again(doc).unwrap_or_else(|| panic!("{what} cannot be read any more: {doc}"));
    let mut found = Vec::new();
    lost(doc, &after, what, &mut found);
    assert!(found.is_empty(), "lost of {doc}: {found:?}");
}

#[test]
fn every_row_of_earlier_versions_is_read_and_nothing_of_it_is_lost() {
    for (version, left) in versions() {
        let mut seen = BTreeSet::new();
        for row in &left.rows {
            let (kind, again) = kinds(row);
            seen.insert(kind);
            if let Some(again) = again {
                assert_kept(&format!("{kind} ({version}, {} {})", row.pk, row.sk), &row.doc, again);
            }
        }
        // What says the most of each that is at work.
        for (kind, field) in [("a doorbell", "dirty_since"), ("a doorbell", "taken_at"), ("a delivery", "parts")] {
            let says = |row: &&Row| kinds(row).0 == kind && !is_nothing(&row.doc[field]);
            assert!(left.rows.iter().any(|row| says(&row)), "{version}: {kind} without {field}");
        }
        let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !seen.contains(kind)).collect();
        assert!(missing.is_empty(), "{version} has no row of the kinds {missing:?}");
    }
}

#[test]
fn every_list_of_earlier_versions_is_read_and_nothing_of_it_is_lost() {
    for (version, left) in versions() {
        let states = left.objects.iter().filter(|(key, _)| key.starts_with("lists/"));
        let states: Vec<Value> = states.map(|(_, body)| serde_json::from_slice(body).expect("JSON")).collect();
        for state in &states {
            assert_kept(&format!("a list's state ({version})"), state, again::<State>);
        }
        let says = |name: &str| states.iter().any(|state| !is_nothing(&state[name]));
        for name in ["sure", "may", "theirs", "hold", "failed", "kept_by", "kept_out", "held", "left", "loaded"] {
            assert!(says(name), "{version}: no list has {name}");
        }
        for folder in ["sets/base/", "sets/edges/", "sets/want/", "runs/", "incoming/", "lists-index/", "downloads/"] {
            assert!(left.objects.keys().any(|key| key.starts_with(folder)), "{version} has no {folder}");
        }
    }
}

/// A message of `matches` is one of two, which are told apart by what they hold.
fn of_matches(body: &Value) -> Option<Value> {
    match serde_json::from_value(body.clone()).ok()? {
        Message::Match(_) => again::<Match>(body),
        Message::Hint(_) => again::<Hint>(body),
    }
}

#[test]
fn every_message_of_earlier_versions_is_understood_and_nothing_of_it_is_lost() {
    for (version, left) in versions() {
        let mut seen = BTreeSet::new();
        for message in &left.messages {
            let again: Again = match message.queue.as_str() {
                "matches" => of_matches,
                "events" => again::<Events>,
                _ => again::<Ring>,
            };
            assert_kept(&format!("a message of {} ({version})", message.queue), &message.body, again);
            let is_hint = !message.body["look_at"].is_null();
            let kind = message.body["kind"].as_str().unwrap_or(if is_hint { "hint" } else { "" });
            seen.insert(format!("{} {kind}", message.queue));
        }
        let expected = [
            "audience-work audience",
            "audience-work edges",
            "events ",
            "identity-work identity",
            "list-writes list",
            "matches ",
            "matches hint",
        ];
        for kind in expected {
            assert!(seen.contains(kind), "{version} has no message {kind:?}: {seen:?}");
        }
    }
}

#[test]
fn the_world_of_earlier_versions_goes_on_to_the_right_lists_and_new_facts_go_through() {
    for (version, left) in versions() {
        let mut world = left.go_on();
        until(&mut world, &version, &at_rest());
        go_further(&mut world, &left.about);
        until(&mut world, &format!("{version}, later"), &at_the_end());
        assert_eq!(world.driver.settle(6 * 3_600_000), Ok(()), "{version}");
        let store = world.driver.sim.lock();
        let stuck = store.tables.values().any(|item| item.doc["stuck"] == json!(true));
        assert!(!stuck, "{version}: a key is set aside");
    }
}

/// The messages of an earlier version alone, given to today's handlers, do what they are there for.
#[test]
fn messages_of_earlier_versions_act() {
    for (version, left) in versions() {
        let mut without = left.clone();
        without.messages.clear();
        let looks = |left: &Left| {
            let mut world = left.go_on();
            world.driver.run_for(5 * 60_000);
            let store = world.driver.sim.lock();
            let row = |name: &str| {
                let found = store.tables.iter().find(|((_, key), _)| key.sk == name);
                found.map(|(_, item)| item.doc.clone()).unwrap_or_default()
            };
            let live = row("feed-state/live");
            // Page views ride along with a match.
            let views: Vec<Value> = store
                .tables
                .iter()
                .filter(|((_, key), _)| key.pk.ends_with("/intake"))
                .map(|(_, item)| item.doc.clone())
                .collect();
            (live["taken"].as_u64(), live["rejected"].as_u64(), live["ignored"].as_u64(), views)
        };
        let ((taken, rejected, ignored, views), (before_taken, before_rejected, before_ignored, before_views)) =
            (looks(&left), looks(&without));
        let more = |after: Option<u64>, before: Option<u64>| after.unwrap_or(0) - before.unwrap_or(0);
        assert_eq!(more(taken, before_taken), 2, "{version}: entries of two messages");
        assert_eq!((more(rejected, before_rejected), more(ignored, before_ignored)), (1, 2), "{version}");
        assert_ne!(views, before_views, "{version}: page views");
    }
}

#[test]
fn what_the_control_plane_of_earlier_versions_made_is_shown() {
    for (version, left) in versions() {
        let about = &left.about;
        let mut world = left.go_on();
        let before = members(&world);
        let mut get = |path: &str| {
            let (status, answer) = world.request("GET", path, &Value::Null);
            assert_eq!(status, 200, "{version}: {path} {answer}");
            answer
        };
        for path in ["/syncs", "/subscription", "/feeds", "/imports", "/alerts", "/status", "/setup", "/export"] {
            get(path);
        }
        for (name, id) in &about.syncs {
            for part in ["", "/report", "/runs", "/history", "/rejects"] {
                // What was never counted has no report.
                if part != "/report" || !["stopped"].contains(&name.as_str()) {
                    get(&format!("/syncs/{id}{part}"));
                }
            }
        }
        let audit = get("/audit");
        let done: BTreeSet<&str> =
            audit.as_array().expect("rows").iter().filter_map(|row| row["what"].as_str()).collect();
        for what in ["sync.create", "sync.pause", "sync.stop", "feed.change", "subscription.change", "people.erase"] {
            assert!(done.contains(what), "{version}: {what} is not in {done:?}");
        }
        for (name, path) in &about.jobs {
            let job = get(path);
            let status = job["status"].as_str().unwrap_or_default();
            assert!(status == "done" || name == "erasing", "{version}: {name} is {job}");
        }
        let erased = get(&about.jobs["erased"]);
        assert_eq!(erased["people_out_of_audiences"], 1, "{version}: {erased}");
        let budget = run(state::budget::standing(&world.driver.deps(), &munchkin())).expect("the budget");
        assert!(budget.ours > 0, "{version}: calls of today are forgotten");
        // The same request again, with its key: the sync that it made, and no other list.
        let body = json!({"audience_id": "aam:101", "list": {"name": "Fresh"}});
        let (status, made) = ask(&world, "POST", "/syncs", &[], Some(format!("k{}", about.made_by)), &body);
        assert!(status < 300, "{version}: {status} {made}");
        assert_eq!(made["id"], about.syncs["fresh"].as_str(), "{version}: {made}");
        // Another one for the same audience and list is none.
        let (status, answer) =
            world.request("POST", "/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1001}}));
        assert_eq!(status, 409, "{version}: {answer}");
        assert_eq!(members(&world).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        // Nothing that a tick reads is unreadable.
        let deps = world.driver.deps();
        run(scheduled_incremental_sync::tick(&deps, deps.now() + 120_000)).expect("a tick");
        run(create_sync::resume(&deps)).expect("what was begun goes on");
    }
}

fn munchkin() -> domain::MunchkinId {
    domain::MunchkinId::parse(simulation::scenario::MUNCHKIN).expect("a Munchkin id")
}

/// What is written anew today is complete as well, so that the next version's fixtures can be. With `FIXTURES` it is written into
/// that folder.
#[test]
fn the_story_can_be_played_and_leaves_what_later_versions_need() {
    let left = play();
    if let Some(folder) = std::env::var_os("FIXTURES") {
        left.write(Path::new(&folder)).expect("written");
    }
    let size: usize = left.rows.iter().map(|row| row.doc.to_string().len()).sum();
    assert!(size < 300_000, "{size} bytes of rows");
    let mut world = left.go_on();
    until(&mut world, "today's", &at_rest());
}

#[test]
fn a_field_that_is_renamed_is_missed_and_one_that_keeps_its_old_name_is_not() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Renamed {
        #[serde(default)]
        since: Option<u64>,
    }
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Kept {
        #[serde(default, alias = "dirty_since")]
        since: Option<u64>,
    }
    let before = json!({"dirty_since": 5});
    let found = |again: Again| {
        let mut found = Vec::new();
        lost(&before, &again(&before).expect("read"), "row", &mut found);
        found
    };
    assert_eq!(found(again::<Renamed>), ["row.dirty_since"]);
    assert_eq!(found(again::<Kept>), Vec::<String>::new());
}
