//! A sync's people beside another list, whose members the list-writer has read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use domain::base::Base;
use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::DAY_MS;
use domain::list::Refusal;
use domain::sayings::LIST_GONE;
use domain::{AudienceId, Ecid, LeadId, LeadSet, Token};
use futures::executor::block_on;
use serde_json::{Value, json};
use state::audience::{Said, replace_base, take_said};
use state::bell::{self, BellKey};
use state::edges::Noted;
use state::identity::{ecid_to_token, hints_of_leads, lead_to_token, put_hints, save_lead, save_token};
use state::lists::OpenList;
use state::notes::Note;
use state::readings;

use crate::support::{START, World, munchkin};

const OTHER: u64 = 1002;

fn ecid(n: u64) -> Ecid {
    Ecid::parse(&format!("{n:038}")).expect("an ECID")
}

fn running(start: &str) -> (World, String) {
    let world = World::new();
    let body = json!({"audience_id": "aam:101", "list": {"id": 1001}, "start": start});
    let (status, sync) = world.post("/syncs", &body);
    assert_eq!(status, 201, "{sync}");
    (world, sync["id"].as_str().expect("an id").to_owned())
}

/// A lead owns a token that these browsers have shown.
fn owns(world: &World, lead: LeadId, known: bool, ecids: impl IntoIterator<Item = u64>) {
    let token = Token::parse(&format!("_mch-example.com-1700000000000-{lead}")).expect("a token");
    let mut record = TokenRecord::new(token.clone());
    let mut hints = vec![lead_to_token(&munchkin(), lead, &token)];
    for n in ecids {
        record.sight(ecid(n), START);
        hints.push(ecid_to_token(&munchkin(), ecid(n), &token));
    }
    record.owned_by(Some(lead), known);
    block_on(put_hints(&world.deps, hints)).expect("written");
    assert!(block_on(save_token(&world.deps, &munchkin(), &record, None, &Noted::needless())).expect("written"));
}

fn left(world: &World, lead: LeadId, into: Option<LeadId>) {
    let mut record = LeadRecord::new(lead);
    record.left(into);
    assert!(block_on(save_lead(&world.deps, &munchkin(), &record, None, &Noted::needless())).expect("written"));
}

fn start(world: &World, id: &str) -> String {
    let (status, job) = world.post(&format!("/syncs/{id}/compare"), &json!({"list_id": OTHER, "start": true}));
    assert_eq!(
        (status, &job["status"], &job["list_name"]),
        (202, &json!("reading"), &json!("<script>alert(1)</script>"))
    );
    job["id"].as_str().expect("an id").to_owned()
}

/// As the list-writer does.
fn read(world: &World, job: &str, members: &[LeadId]) {
    let found = block_on(readings::find(&world.deps, &munchkin(), job)).expect("read").expect("a reading");
    let mut reading = found.value;
    let key = readings::members_key(&world.deps, job);
    let set: LeadSet = members.iter().copied().collect();
    block_on(world.deps.ports.objects.put(&key, set.to_bytes().into())).expect("written");
    (reading.members, reading.read_at, reading.count) = (Some(key), Some(world.deps.now()), set.len());
    assert!(block_on(readings::save(&world.deps, &munchkin(), &reading, Some(found.rev))).expect("saved"));
}

fn wait(world: &World, job: &str) -> Value {
    for _ in 0..100 {
        let (status, job) = world.get(&format!("/comparisons/{job}"));
        assert_eq!(status, 200, "{job}");
        if job["status"] != "reading" {
            return job;
        }
    }
    panic!("a comparison that never ends");
}

fn lines(world: &World, job: &str) -> Vec<(u64, String, String)> {
    let bytes = block_on(world.deps.ports.objects.get(&format!("downloads/{job}.csv"))).expect("read").expect("a file");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    assert!(text.starts_with("\"marketo_id\",\"where\",\"code\",\"reason\"\r\n"), "{text}");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        assert!(cells[3].len() > 15, "each line has its reason: {line}");
        (cells[0].parse().expect("a number"), cells[1].to_owned(), cells[2].to_owned())
    };
    let mut rows: Vec<(u64, String, String)> = text.lines().skip(1).map(row).collect();
    rows.sort();
    rows
}

/// Everybody in a place of their own.
fn everybody(world: &World) {
    world.want(101, &[1, 2, 3, 4], 9);
    let base = Base::new([7, 8, 9, 11].map(ecid), START);
    let audience = AudienceId::aam(101);
    assert!(block_on(replace_base(&world.deps, &munchkin(), &audience, &base, START, None)).expect("a base"));
    let fact = domain::fact::Fact { time: START + 1, rank: domain::fact::RANK_FILE, inside: false };
    block_on(take_said(&world.deps, &munchkin(), &audience, ecid(9), Said::File(fact))).expect("said");
    // The row says that there are such words.
    let key = state::audience::head_key(&munchkin(), &audience);
    let mut head: state::audience::Head = block_on(state::load(&world.deps, ports::Table::Audiences, &key))
        .expect("read")
        .map(|doc: state::Doc<_>| doc.value)
        .expect("a head");
    head.has_overlay = true;
    world.store(ports::Table::Audiences, key, &head);
    owns(world, 20, true, [50]);
    owns(world, 21, true, [9]);
    owns(world, 22, false, [7]);
    owns(world, 23, true, [8]);
    owns(world, 24, true, 11..=61);
    left(world, 25, Some(1));
    left(world, 26, None);
}

fn there() -> Vec<LeadId> {
    vec![1, 2, 20, 21, 22, 23, 24, 25, 26, 27]
}

fn expected(both: &str, only_here: [&str; 2]) -> Vec<(u64, String, String)> {
    let row = |(lead, side, code): (u64, &str, &str)| (lead, side.to_owned(), code.to_owned());
    [
        (1, "both", both),
        (2, "both", both),
        (3, "only_here", only_here[0]),
        (4, "only_here", only_here[1]),
        (20, "only_there", "not_in_audience"),
        (21, "only_there", "left_audience"),
        (22, "only_there", "anonymous"),
        (23, "only_there", "waiting"),
        (24, "only_there", "set_aside"),
        (25, "only_there", "merged"),
        (26, "only_there", "gone"),
        (27, "only_there", "no_browser"),
    ]
    .map(row)
    .into()
}

#[test]
fn both_sides_are_explained_for_a_sync_that_only_reports() {
    let (world, id) = running("report_only");
    everybody(&world);
    let job = start(&world, &id);
    assert_eq!(world.notes(OTHER), [Note::Read { job: job.clone() }]);
    assert!(world.rung().contains(&("list".to_owned(), OTHER.to_string())));
    let bell = block_on(bell::look(&world.deps, &BellKey::list(&munchkin(), OTHER))).expect("a bell");
    assert!(bell.dirty_since.is_some() && bell.causes.is_empty(), "no run by hand is to be told of: {bell:?}");
    assert_eq!(world.get(&format!("/comparisons/{job}")).1["status"], "reading");
    read(&world, &job, &there());
    world.marketo().clear_calls();
    // Nobody asks for an hour.
    world.wait(3_600_000);
    let done = wait(&world, &job);
    assert_eq!(done["ours_as_of"], "2026-11-20T01:00:00Z");
    assert_eq!((&done["both"], &done["only_there"], &done["only_here"]), (&json!(2), &json!(8), &json!(2)), "{done}");
    assert_eq!((&done["members"], &done["as_of"]), (&json!(10), &json!("2026-11-20T00:00:00Z")));
    assert_eq!(lines(&world, &job), expected("report_only", ["report_only", "report_only"]));
    let explained = done["explained"].as_array().expect("rows");
    let sum = |side: &str| {
        explained.iter().filter(|row| row["side"] == side).filter_map(|row| row["count"].as_u64()).sum::<u64>()
    };
    assert_eq!((sum("only_there"), sum("only_here"), sum("both")), (8, 2, 0));
    assert!(explained.iter().all(|row| row["sentence"].as_str().is_some_and(|words| words.ends_with('.'))), "{done}");
    assert!(
        done["url"]
            .as_str()
            .expect("an address")
            .ends_with(&format!("seconds=900&filename=comparison-{id}-{OTHER}.csv"))
    );
    assert!(world.marketo().calls().is_empty(), "what it means is worked out without Marketo");
    // The numbers stay for a week, the file for a day.
    world.wait(DAY_MS - 3_600_000);
    let (_, later) = world.get(&format!("/comparisons/{job}"));
    assert_eq!((&later["status"], &later["both"], &later["url"]), (&json!("done"), &json!(2), &Value::Null));
    world.wait(6 * DAY_MS);
    assert_eq!(world.get(&format!("/comparisons/{job}")).0, 404);
}

#[test]
fn whoever_is_only_here_is_explained_by_where_they_stand_and_whom_we_let_go_has_left() {
    let (world, id) = running("now");
    everybody(&world);
    let mut open = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a list");
    open.state.sure = LeadSet::from_iter([1, 2, 27]);
    open.state.may = LeadSet::from_iter([1, 2, 27]);
    open.state.kept_out = LeadSet::from_iter([3]);
    open.state.failed = [(4, Refusal { code: "1008".into(), at: START, request_id: "r".into() })].into();
    block_on(open.publish(&world.deps)).expect("published");
    let job = start(&world, &id);
    read(&world, &job, &there());
    assert_eq!(wait(&world, &job)["status"], "done");
    let mut expected = expected("in_list", ["kept_out", "refused"]);
    expected[11].2 = "left_audience".into();
    assert_eq!(lines(&world, &job), expected);
}

#[test]
fn whoever_dies_and_whoever_asks_twice_ends_the_same() {
    let (world, id) = running("report_only");
    everybody(&world);
    let job = start(&world, &id);
    read(&world, &job, &there());
    let path = format!("/comparisons/{job}");
    let mut done = false;
    for calls in 1..200 {
        world.outside.dies_after(calls % 25 + 1);
        let answer = world.ask("GET", &path, &[], b"");
        world.outside.revive();
        done = answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("\"done\"");
        if done {
            break;
        }
    }
    assert!(done, "it never ends");
    assert_eq!(lines(&world, &job), expected("report_only", ["report_only", "report_only"]));
    let (first, second) = (world.get(&path), world.get(&path));
    assert_eq!(first, second);
}

/// The instance has nine thousand leads from 10,001 on, and every third of them is in the other list: of each ten of those,
/// six were never tied, three are tied to browsers outside the audience, and one has let go of it. The audience has 600,000 browsers.
#[test]
fn people_of_a_big_list_are_looked_up_together() {
    let (world, id) = running("report_only");
    world.want(101, &[1], 9);
    let base = Base::new((1_000_000..1_600_000).map(ecid), START);
    assert!(
        block_on(replace_base(&world.deps, &munchkin(), &AudienceId::aam(101), &base, START, None)).expect("a base")
    );
    let mut there = Vec::new();
    for n in 0..9_000 {
        let lead = 10_001 + n;
        let is_there = n % 3 == 0;
        let kind = n / 3 % 10;
        if is_there {
            there.push(lead);
        }
        match kind {
            0..6 => {}
            6 => left(&world, lead, None),
            _ => owns(&world, lead, true, [lead]),
        }
    }
    let job = start(&world, &id);
    read(&world, &job, &there);
    let mut deps = world.deps.clone();
    let mut settings = (*deps.settings).clone();
    settings.slice_records = 400_000;
    deps.settings = std::sync::Arc::new(settings);
    let world = World { deps, outside: world.outside.clone() };
    world.outside.page.store(1_000, Ordering::Relaxed);
    let reads =
        || (world.outside.table_reads.load(Ordering::Relaxed), world.outside.object_reads.load(Ordering::Relaxed));
    let before = reads();
    let done = wait(&world, &job);
    let after = reads();
    assert_eq!((&done["status"], &done["only_there"]), (&json!("done"), &json!(3_000)), "{done}");
    let codes = done["explained"].as_array().expect("rows").iter();
    let codes: BTreeMap<&str, u64> =
        codes.filter_map(|row| Some((row["code"].as_str()?, row["count"].as_u64()?))).collect();
    assert_eq!(
        (codes["no_browser"], codes["gone"], codes["not_in_audience"]),
        (1_800, 300, 900),
        "and nobody else but ours: {codes:?}"
    );
    // A thousand people: 26 and 69. One by one they were 1,020 and 600: a question for each, and two for each browser. Of the
    // bucket it would be 10 with gaps of 32 KB, most of whose bytes nobody asked for in a bigger base (decision 33).
    let (tables, objects) = ((after.0 - before.0) / 3, (after.1 - before.1) / 3);
    assert!(tables <= 30, "{tables} requests to the tables for a thousand people");
    assert!(objects <= 72, "{objects} requests to the bucket for a thousand people");
}

#[test]
fn hints_of_many_leads_are_those_of_each_wherever_pages_end() {
    let world = World::new();
    // Lead n has n % 5 tokens; leads of one shard, and of all, close together and far apart.
    let token =
        |lead: u64, n: u64| Token::parse(&format!("_mch-example.com-17000000000{n:02}-{lead}")).expect("a token");
    let hints = (1..=900).flat_map(|lead| (0..lead % 5).map(move |n| (lead, n)));
    let hints = hints.map(|(lead, n)| lead_to_token(&munchkin(), lead, &token(lead, n)));
    block_on(put_hints(&world.deps, hints)).expect("written");
    for page in [1, 2, 7, 1_000] {
        world.outside.page.store(page, Ordering::Relaxed);
        for leads in [
            vec![],
            vec![4],
            vec![5, 10, 905, 100_000],
            (16..=32).collect(),
            (1..=900).collect(),
            (1..=900).step_by(16).collect(),
            (1..=900).step_by(97).collect(),
            vec![1, 17, 33, 890, 899, 900],
        ] {
            let all = leads.iter().filter(|lead| **lead <= 900);
            let each: BTreeSet<Token> = all.flat_map(|lead| (0..lead % 5).map(|n| token(*lead, n))).collect();
            let before = world.outside.table_reads.load(Ordering::Relaxed);
            let found = block_on(hints_of_leads(&world.deps, &munchkin(), leads.iter().copied())).expect("read");
            let reads = world.outside.table_reads.load(Ordering::Relaxed) - before;
            assert_eq!(found.len(), each.len(), "each once");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), each, "pages of {page}: {leads:?}");
            assert!(
                page < 1_000 || reads <= leads.len() as u64,
                "never more than one for each lead: {reads} of {leads:?}"
            );
        }
    }
}

#[test]
fn it_says_first_what_it_takes_and_writes_nothing() {
    let (world, id) = running("report_only");
    let path = format!("/syncs/{id}/compare");
    let body = json!({"list_id": OTHER});
    assert_eq!(world.post(&path, &body).0, 409, "nobody has been counted yet");
    world.want(101, &[1], 9);
    let before = world.rows("").len();
    let (status, estimate) = world.post(&path, &body);
    assert_eq!((status, &estimate["calls"], &estimate["calls_at_least"]), (200, &Value::Null, &json!(1)), "{estimate}");
    assert!(estimate["sentence"].as_str().expect("words").contains("300"), "{estimate}");
    assert_eq!((world.rows("").len(), world.notes(OTHER).len()), (before, 0));
    // Of a list that was read before it is known.
    let job = start(&world, &id);
    read(&world, &job, &(1..=901).collect::<Vec<_>>());
    let (_, estimate) = world.post(&path, &body);
    assert_eq!((&estimate["calls"], &estimate["members"]), (&json!(4), &json!(901)), "{estimate}");
    // And of one that another sync writes, by its report: it has 6 members.
    let (_, other) = world.post("/syncs", &json!({"audience_id": "aam:103", "list": {"id": OTHER}}));
    world.wait(120_000);
    world.report(other["id"].as_str().expect("an id"));
    let (_, estimate) = world.post(&path, &body);
    assert_eq!((&estimate["calls"], &estimate["members"]), (&json!(1), &json!(6)), "the later word counts: {estimate}");
}

#[test]
fn what_cannot_be_compared_is_refused_at_its_field() {
    let (world, id) = running("now");
    world.want(101, &[1], 9);
    let path = format!("/syncs/{id}/compare");
    for (body, status, pointer) in [
        (json!({}), 400, "/list_id"),
        (json!({"list_id": "1002"}), 400, "/list_id"),
        (json!({"list_id": OTHER, "start": 1}), 400, "/start"),
        (json!({"list_id": OTHER, "begin": true}), 400, "/begin"),
        (json!({"list_id": 1001}), 422, "/list_id"),
        (json!({"list_id": 4711}), 422, "/list_id"),
    ] {
        let (found, problem) = world.post(&path, &body);
        let pointers: BTreeSet<&str> = problem["errors"]
            .as_array()
            .expect("fields")
            .iter()
            .filter_map(|error| error["pointer"].as_str())
            .collect();
        assert_eq!((found, pointers.contains(pointer)), (status, true), "{body}: {problem}");
    }
    for _ in 0..5 {
        start(&world, &id);
    }
    let (status, problem) = world.post(&path, &json!({"list_id": OTHER, "start": true}));
    assert_eq!(status, 409, "{problem}");
    assert_eq!(world.get("/comparisons/0000000000000000").0, 404);
}

#[test]
fn a_reading_that_failed_says_why_and_one_whose_note_was_lost_is_asked_for_again() {
    let (world, id) = running("report_only");
    world.want(101, &[1], 9);
    let job = start(&world, &id);
    let note = Note::Read { job: job.clone() };
    let path = format!("/comparisons/{job}");
    world.get(&path);
    assert_eq!(world.notes(OTHER), std::slice::from_ref(&note));
    world.wait(16 * 60_000);
    world.get(&path);
    world.get(&path);
    assert_eq!(world.notes(OTHER), [note.clone(), note], "once more, and not with each look");
    let found = block_on(readings::find(&world.deps, &munchkin(), &job)).expect("read").expect("a reading");
    let mut reading = found.value;
    reading.why = Some(LIST_GONE.plain());
    assert!(block_on(readings::save(&world.deps, &munchkin(), &reading, Some(found.rev))).expect("saved"));
    let (_, failed) = world.get(&path);
    assert_eq!((&failed["status"], &failed["url"]), (&json!("failed"), &Value::Null));
    assert!(failed["why"].as_str().expect("words").contains("1013"), "{failed}");
}
