//! What a sync would do, before it is made.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use domain::base::Base;
use domain::identity::{LeadRecord, Seen, TokenRecord};
use domain::limits::DAY_MS;
use domain::{AudienceId, Ecid, LeadSet, Token};
use doubles::marketo::Kind;
use futures::executor::block_on;
use ports::{Key, Queue, Table};
use serde_json::{Value, json};
use state::Settings;
use state::audience::{head_key, replace_base};
use state::bell::{self, Ring};
use state::budget::{Pushback, push_back};
use state::edges::Noted;
use state::identity::{save_lead, save_token};
use state::lists::{OpenList, Want, want_key};
use state::previews::{Counted, Preview, Status, put_preview};
use state::syncs::Start;
use world::types::Lead;

use crate::support::{MUNCHKIN, ORG, START, World, munchkin};

fn ecid(n: u64) -> Ecid {
    Ecid::from_number(u128::from(n)).expect("an ECID")
}

fn audience() -> AudienceId {
    AudienceId::aam(102)
}

/// An audience of 20 browsers that nobody follows: 1 to 6 of known people, 7 and 8 of anonymous ones, 9 to 12 of whom
/// Marketo was never asked, 13 by Marketo's own word of person 20; nobody has seen the others with a cookie. People 1, 2
/// and 3 are in the list 1001.
fn world() -> World {
    let mut world = World::new();
    // Slices of three records, so that there are several.
    world.deps.settings =
        Arc::new(Settings { slice_records: 3, match_lifetime_ms: 396 * DAY_MS, ..(*world.deps.settings).clone() });
    let deps = &world.deps;
    let base = Base::new((1..=20).map(ecid), START + 1);
    assert!(block_on(replace_base(deps, &munchkin(), &audience(), &base, START + 1, None)).expect("a base"));
    for n in 1..=12 {
        let token = Token::parse(&format!("_mch-example.com-{}-{n}", 1_700_000_000_000u64 + n)).expect("a token");
        let mut record = TokenRecord::new(token);
        record.ecids.insert(ecid(n), Seen { first: START, last: START });
        record.parked = true;
        if n <= 8 {
            (record.lead, record.known, record.asked_at) = (Some(n), n <= 6, Some(START));
        }
        assert!(block_on(save_token(deps, &munchkin(), &record, None, &Noted::needless())).expect("saved"));
    }
    let mut record = LeadRecord::new(20);
    (record.known, record.ecids) = (true, BTreeSet::from([ecid(13)]));
    assert!(block_on(save_lead(deps, &munchkin(), &record, None, &Noted::needless())).expect("saved"));
    {
        let mut marketo = world.marketo();
        for id in [6, 20] {
            let email = Some(format!("{id}@example.com"));
            marketo.upsert_lead(START, Lead { id, email, cookies: Vec::new(), ecids: Vec::new() });
        }
        for id in [2, 3] {
            assert!(marketo.add_by_hand(START, 1001, id));
        }
    }
    // Nothing of that is a preview's.
    world.rung();
    world.wait(1_000);
    world
}

/// Lets the audiences' workers do what they were rung for, until nobody rings. Returns the number of their slices.
fn work(world: &World) -> usize {
    let mut slices = 0;
    for _ in 0..500 {
        let sent = std::mem::take(&mut *world.outside.sent.lock().expect("unlocked"));
        let rings = sent.into_iter().filter(|(queue, _)| *queue == Queue::AudienceWork);
        let rings: Vec<Ring> = rings.map(|(_, message)| serde_json::from_str(&message.body).expect("a ring")).collect();
        if rings.is_empty() {
            return slices;
        }
        for ring in rings {
            slices += 1;
            // Who dies leaves it to the sweep.
            block_on(scheduled_incremental_sync::handle(&world.deps, &ring, world.deps.now() + 120_000)).ok();
        }
    }
    panic!("an audience rings itself for ever");
}

fn preview(world: &World, list: &Value) -> String {
    let (status, job) = world.post("/syncs/preview", &json!({"audience_id": "aam:102", "list": list}));
    assert_eq!((status, &job["status"], &job["people"]), (202, &json!("counting"), &Value::Null), "{job}");
    let answer = world.ask("GET", &format!("/previews/{}", job["id"].as_str().expect("an id")), &[], b"");
    assert_eq!(answer.status, 200);
    job["id"].as_str().expect("an id").to_owned()
}

fn look(world: &World, id: &str) -> Value {
    let (status, job) = world.get(&format!("/previews/{id}"));
    assert_eq!(status, 200, "{job}");
    job
}

/// Kinds of the calls since the log was cleared.
fn calls(world: &World) -> Vec<Kind> {
    let calls: Vec<Kind> = world.marketo().calls().iter().map(|call| call.kind).collect();
    calls.into_iter().filter(|kind| *kind != Kind::Token).collect()
}

fn counts(job: &Value) -> Vec<u64> {
    let fields = ["browsers", "no_match", "set_aside", "anonymous", "addressable", "known", "people", "not_asked"];
    fields.iter().map(|field| job[field].as_u64().expect(field)).collect()
}

#[test]
fn a_new_list_is_counted_and_asks_nobody_and_writes_nothing_but_the_job() {
    let world = world();
    let before = world.tables();
    let id = preview(&world, &json!({"name": "Carts"}));
    assert!(work(&world) > 3, "in slices");
    let job = look(&world, &id);
    assert_eq!(job["status"], "done", "{job}");
    assert_eq!(counts(&job), [20, 7, 0, 6, 13, 7, 7, 4]);
    assert_eq!(job["list"], json!({"id": null, "name": "Carts", "folder_id": 12, "new": true}));
    assert_eq!((&job["already_there"], &job["already_there_asked"], &job["to_add"]), (&json!(0), &json!(0), &json!(7)));
    assert_eq!(job["calls"], json!({"look_ups": 1, "membership": 0, "additions": 1, "total": 2}));
    // At 50 calls in 20.25 seconds.
    assert_eq!((&job["seconds"], &job["why"], &job["code"]), (&json!(1), &Value::Null, &Value::Null));
    assert!(job.get("to_add_is_estimate").is_none());

    let marketo = world.marketo();
    assert!(
        marketo.calls().iter().all(|call| !matches!(call.kind, Kind::AssetCreate | Kind::ListAdd | Kind::IsMember))
    );
    assert_eq!(marketo.lists().len(), 2);
    drop(marketo);
    // Beside the job: the edges that it is counted by, the budget, doorbells, and a head whose queue is empty again.
    let after = world.tables();
    let changed: BTreeSet<(Table, &str)> = after
        .iter()
        .filter(|(key, item)| before.get(key) != Some(item))
        .map(|((table, key), _)| (*table, key.sk.as_str()))
        .collect();
    let row = format!("preview/{id}");
    let bell = format!("{MUNCHKIN}/aam:102");
    let edges = format!("{MUNCHKIN}/");
    let allowed = [
        (Table::Identity, "head"),
        (Table::Doorbells, edges.as_str()),
        (Table::Syncs, "budget"),
        (Table::Syncs, row.as_str()),
        (Table::Doorbells, bell.as_str()),
        (Table::Audiences, "head"),
    ];
    assert!(changed.iter().all(|change| allowed.contains(change)), "{changed:?}");
    assert!(before.keys().all(|key| after.contains_key(key)));
    let head = (Table::Audiences, head_key(&munchkin(), &audience()));
    assert_eq!(before[&head].doc, after[&head].doc);
    // Forgotten after a day, by the table itself.
    let row = &after[&(Table::Syncs, Key::new(MUNCHKIN, row))];
    assert!(row.expires_at.is_some_and(|at| at * 1_000 <= world.deps.now() + DAY_MS));
    world.wait(DAY_MS);
    assert_eq!(world.get(&format!("/previews/{id}")).0, 404);
}

#[test]
fn the_outcome_of_an_existing_list_is_what_the_preview_said() {
    let world = world();
    let id = preview(&world, &json!({"id": 1001}));
    work(&world);
    world.marketo().clear_calls();
    let job = look(&world, &id);
    assert_eq!(job["status"], "done", "{job}");
    assert_eq!((&job["already_there"], &job["already_there_asked"], &job["to_add"]), (&json!(3), &json!(7), &json!(4)));
    assert_eq!(job["calls"], json!({"look_ups": 1, "membership": 1, "additions": 1, "total": 3}));
    assert_eq!(calls(&world), [Kind::IsMember]);
    look(&world, &id);
    assert_eq!(calls(&world).len(), 1, "and nothing more");

    // The same pass, made for a sync.
    assert_eq!(world.post("/syncs", &json!({"audience_id": "aam:102", "list": {"id": 1001}})).0, 201);
    work(&world);
    let want: Want = block_on(state::load(&world.deps, Table::Lists, &want_key(&munchkin(), &audience())))
        .expect("read")
        .expect("a pass")
        .value;
    let of = &want.report.counts;
    let told = [of.audience, of.no_match, of.set_aside, of.anonymous, of.addressable(), of.known, of.people];
    assert_eq!(counts(&job)[..7], told);
    assert_eq!(world.leads(&want.report.people_key), [1, 2, 3, 4, 5, 6, 20]);
}

#[test]
fn nobody_who_is_there_by_our_doing_is_asked_about_and_nobody_counts_who_stays_out() {
    let world = world();
    let id = preview(&world, &json!({"id": 1001}));
    work(&world);
    let set = |leads: &[u64]| leads.iter().copied().collect::<LeadSet>();
    let mut list = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a list");
    (list.state.may, list.state.sure) = (set(&[4, 5]), set(&[4]));
    (list.state.theirs, list.state.kept_out) = (set(&[1]), set(&[6]));
    block_on(list.publish(&world.deps)).expect("published");
    let job = look(&world, &id);
    // 4 and 5 by us, 1 before us; 2, 3 and 20 are asked about, and 2 and 3 are there.
    assert_eq!(
        (&job["already_there"], &job["already_there_asked"], &job["kept_out"], &job["to_add"]),
        (&json!(5), &json!(3), &json!(1), &json!(1)),
        "{job}"
    );
}

#[test]
fn a_preview_that_dies_anywhere_ends_the_same() {
    let outcome = |mut job: Value| {
        for field in ["id", "as_of", "requested_at", "left_today", "seconds"] {
            job[field] = Value::Null;
        }
        job
    };
    let healthy = {
        let world = world();
        let id = preview(&world, &json!({"id": 1001}));
        work(&world);
        outcome(look(&world, &id))
    };
    assert_eq!(healthy["status"], "done");
    let mut deaths = 0;
    for lives in (1..).step_by(7) {
        let world = world();
        world.outside.dies_after(lives);
        let body = json!({"audience_id": "aam:102", "list": {"id": 1001}});
        let mut id: Option<String> = None;
        let mut job = Value::Null;
        for _ in 0..20 {
            if id.is_none() {
                let (status, job) = world.post("/syncs/preview", &body);
                id = job["id"].as_str().filter(|_| status == 202).map(str::to_owned);
            }
            work(&world);
            if let Some(id) = &id {
                job = world.get(&format!("/previews/{id}")).1;
                if job["status"] == "done" {
                    break;
                }
            }
            if !world.outside.is_alive() {
                deaths += 1;
                world.outside.revive();
            }
            // Whoever left its key dirty, or died holding it, is found by the sweep.
            world.wait(30 * 60_000);
            block_on(bell::sweep(&world.deps)).expect("swept");
        }
        assert_eq!(outcome(job), healthy, "after {lives} calls");
        if world.outside.is_alive() && deaths > 0 && lives > 400 {
            break;
        }
    }
    assert!(deaths > 10, "{deaths}");
}

#[test]
fn previews_of_one_audience_share_one_reading() {
    let world = world();
    let first = preview(&world, &json!({"name": "One"}));
    let second = preview(&world, &json!({"name": "Two"}));
    let slices = work(&world);
    let (one, two) = (look(&world, &first), look(&world, &second));
    assert_eq!((&one["status"], &two["status"]), (&json!("done"), &json!("done")));
    assert_eq!(one["as_of"], two["as_of"]);
    assert!(slices < 15, "{slices}");
    // One that comes soon after takes the same, until a delivery names the audience.
    world.wait(60_000);
    let body = json!({"audience_id": "aam:102", "list": {"name": "Three"}});
    let (status, job) = world.post("/syncs/preview", &body);
    assert_eq!((status, &job["status"], &job["as_of"]), (202, &json!("done"), &one["as_of"]));
    let base = Base::new((1..=3).map(ecid), world.deps.now());
    let by = Some(("default", world.deps.now()));
    assert!(
        block_on(replace_base(&world.deps, &munchkin(), &audience(), &base, world.deps.now(), by)).expect("a base")
    );
    let (_, job) = world.post("/syncs/preview", &body);
    assert_eq!(job["status"], "counting");
    work(&world);
    let job = look(&world, job["id"].as_str().expect("an id"));
    assert_eq!(counts(&job), [3, 0, 0, 0, 3, 3, 3, 0]);
}

#[test]
fn what_a_sync_is_refused_for_a_preview_is_refused_for_in_the_same_words() {
    let world = world();
    assert_eq!(world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1002}})).0, 201);
    for body in [
        json!({}),
        json!({"audience_id": "aam:102"}),
        json!({"audience_id": "aam:999", "list": {"id": 1001}}),
        json!({"audience_id": "aam:102", "list": {"id": 4711}}),
        json!({"audience_id": "aam:102", "list": {"name": "VIP"}}),
        json!({"audience_id": "aam:102", "list": {"name": " "}}),
        json!({"audience_id": "aam:102", "list": {"name": "New", "folder_id": "x"}}),
        json!({"audience_id": "aam:101", "list": {"id": 1002}}),
        json!({"audience_id": "aam:102", "list": {"id": 1001}, "leaving": "perhaps"}),
    ] {
        let preview = world.post("/syncs/preview", &body);
        assert!((400..500).contains(&preview.0), "{body}: {preview:?}");
        assert_eq!(preview, world.post("/syncs", &body), "{body}");
    }
    assert!(world.rows("preview/").is_empty());
    for change in [json!({"hipaa_ready": true}), json!({"org_id": null}), json!({"cookie_sync": false})] {
        let mut subscription = json!({"munchkin_id": MUNCHKIN, "org_id": ORG});
        for (field, value) in change.as_object().expect("an object") {
            subscription[field] = value.clone();
        }
        assert_eq!(world.put("/subscription", &subscription).0, 200);
        world.marketo().clear_calls();
        let body = json!({"audience_id": "aam:102", "list": {"id": 1001}});
        let preview = world.post("/syncs/preview", &body);
        assert_eq!(preview.0, 403);
        assert_eq!(preview, world.post("/syncs", &body));
        assert!(world.rows("preview/").is_empty() && world.marketo().calls().is_empty());
    }
}

#[test]
fn an_audience_that_was_never_delivered_is_not_an_empty_one() {
    let world = World::new();
    world.rung();
    let (status, job) = world.post("/syncs/preview", &json!({"audience_id": "aam:102", "list": {"id": 1001}}));
    assert_eq!((status, &job["status"], &job["code"]), (202, &json!("failed"), &json!("not_delivered")));
    assert_eq!((&job["browsers"], &job["to_add"]), (&Value::Null, &Value::Null));
    assert!(job["why"].as_str().is_some_and(|why| why.contains("no delivery has named")));
    assert_eq!(look(&world, job["id"].as_str().expect("an id"))["status"], "failed");
    assert!(world.rung().is_empty());
}

#[test]
fn a_preview_leaves_a_pass_under_way_and_what_it_publishes_alone() {
    let world = world();
    assert_eq!(world.post("/syncs", &json!({"audience_id": "aam:102", "list": {"id": 1001}})).0, 201);
    let ring = || {
        let message = {
            let mut sent = world.outside.sent.lock().expect("unlocked");
            let first = sent.iter().position(|(queue, _)| *queue == Queue::AudienceWork).expect("a ring");
            sent.remove(first).1
        };
        let ring: Ring = serde_json::from_str(&message.body).expect("a ring");
        block_on(scheduled_incremental_sync::handle(&world.deps, &ring, world.deps.now() + 120_000)).expect("handled");
    };
    ring();
    let head = || world.tables()[&(Table::Audiences, head_key(&munchkin(), &audience()))].doc.clone();
    assert_eq!(head()["pass"]["number"], 1);
    let sent = std::mem::take(&mut *world.outside.sent.lock().expect("unlocked"));
    let id = preview(&world, &json!({"name": "Beside"}));
    world.outside.sent.lock().expect("unlocked").extend(sent);
    while head()["pass_done"] == 0 {
        assert_eq!(look(&world, &id)["status"], "counting");
        ring();
    }
    let want = || world.tables()[&(Table::Lists, want_key(&munchkin(), &audience()))].clone();
    let published = want();
    work(&world);
    assert_eq!((head()["pass_done"].clone(), head()["pass"].clone()), (json!(1), Value::Null));
    assert_eq!(want(), published);
    let job = look(&world, &id);
    assert_eq!(job["status"], "done");
    assert_eq!(counts(&job)[..7], [20, 7, 0, 6, 13, 7, 7]);
}

/// A preview that is counted, of these people.
fn asking(world: &World, people: u64) -> String {
    let set: LeadSet = (1..=people).collect();
    let people_key = block_on(state::lists::write_leads(&world.deps, "test", &set)).expect("written");
    let (status, job) = world.post("/syncs/preview", &json!({"audience_id": "aam:101", "list": {"id": 1001}}));
    assert_eq!(status, 202);
    let id = job["id"].as_str().expect("an id").to_owned();
    let found = block_on(state::previews::preview(&world.deps, &munchkin(), &id)).expect("read").expect("a job");
    let mut counted = Counted { people_key, as_of: START, ..Counted::default() };
    counted.counts.people = people;
    let mut job: Preview = found;
    job.counted_as(counted);
    assert_eq!((job.status, job.start), (Status::Asking, Start::Now));
    block_on(put_preview(&world.deps, &munchkin(), &job)).expect("written");
    world.marketo().clear_calls();
    id
}

#[test]
fn at_most_twenty_calls_ask_about_a_sample_and_only_while_somebody_looks() {
    let world = World::new();
    {
        let mut marketo = world.marketo();
        for id in 1..=7_000 {
            let email = Some(format!("{id}@example.com"));
            marketo.upsert_lead(START, Lead { id, email, cookies: Vec::new(), ecids: Vec::new() });
            if id % 4 == 0 {
                marketo.add_by_hand(START, 1001, id);
            }
        }
    }
    let id = asking(&world, 7_000);
    world.wait(60_000);
    assert!(calls(&world).is_empty(), "nobody looks");
    let mut seen = HashSet::new();
    for polls in 1..=4u64 {
        let job = look(&world, &id);
        assert_eq!(job["already_there_asked"], polls * 1_500);
        assert_eq!(job["status"], if polls < 4 { "asking" } else { "done" });
        assert_eq!(job["to_add_is_estimate"], true);
        seen.insert(job["to_add"].as_u64().expect("a number"));
        let there = job["already_there"].as_u64().expect("a number");
        // 1,750 and the one who was there from the beginning, to a part in twenty.
        assert!(there.abs_diff(1_751) < 90, "{there}");
        assert_eq!(there + job["to_add"].as_u64().expect("a number"), 7_000);
    }
    look(&world, &id);
    assert_eq!(calls(&world), vec![Kind::IsMember; 20]);
    assert!(world.marketo().calls().iter().all(|call| call.kind == Kind::Token || call.ids == 300));
    assert_eq!(look(&world, &id)["calls"]["membership"], 24);
}

#[test]
fn while_marketo_is_busy_a_preview_stays_asking() {
    let world = World::new();
    let id = asking(&world, 5);
    let until = block_on(push_back(&world.deps, &munchkin(), Pushback::Rate)).expect("pushed back");
    let job = look(&world, &id);
    assert_eq!((&job["status"], &job["already_there"], &job["to_add"]), (&json!("asking"), &Value::Null, &Value::Null));
    assert!(calls(&world).is_empty());
    world.wait(until - world.deps.now());
    let job = look(&world, &id);
    assert_eq!(
        (&job["status"], &job["already_there"], &job["to_add"]),
        (&json!("done"), &json!(1), &json!(4)),
        "{job}"
    );
    assert!(job.get("to_add_is_estimate").is_none());
}
