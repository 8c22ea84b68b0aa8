//! Erasing people, the secrets of hints, and what pages may do.

use std::collections::BTreeSet;

use domain::LeadSet;
use futures::executor::block_on;
use serde_json::{Value, json};
use state::erase::{self, Answer, Job, Phase, Subject};
use state::identity::{Intake, intake_key};
use state::load;
use state::syncs::{HintSecrets, hint_secrets_key};

use crate::support::{MUNCHKIN, ORG, START, World, munchkin};

fn job(world: &World, id: &Value) -> Job {
    let id = id.as_str().expect("an id");
    block_on(erase::job(&world.deps, &munchkin(), id)).expect("a table").expect("a job").value
}

#[test]
fn an_erasure_is_a_job_that_names_no_email() {
    let world = World::new();
    world.rung();
    let ecid = format!("{:038}", 7);
    let token = "_mch-example.com-1700000000000-1";
    for (body, subject) in [
        (json!({"ecid": ecid}), Subject::Ecid(domain::Ecid::parse(&ecid).expect("valid"))),
        (json!({"token": token}), Subject::Token(domain::Token::parse(token).expect("valid"))),
        (json!({"lead_id": 3}), Subject::Leads(BTreeSet::from([3]))),
        (json!({"email": "3@Example.com"}), Subject::Leads(BTreeSet::from([3]))),
        (json!({"email": "nobody@example.com"}), Subject::Leads(BTreeSet::new())),
    ] {
        let (status, answer) = world.post("/people/erase", &body);
        assert_eq!((status, &answer["status"]), (202, &json!("forgetting")), "{answer}");
        let stored = job(&world, &answer["id"]);
        assert_eq!((stored.subject.as_ref(), stored.requested_at), (Some(&subject), START));
        assert!(!serde_json::to_string(&stored).expect("JSON").to_lowercase().contains("3@example"), "no email");
        // What is answered names nobody: not even what was asked for.
        for value in [ecid.as_str(), token, "3@"] {
            assert!(!answer.to_string().contains(value), "{answer}");
        }
        assert!(world.rung().contains(&("identity".to_owned(), String::new())));
    }
}

#[test]
fn a_job_says_which_lists_have_answered() {
    let world = World::new();
    let (_, answer) = world.post("/people/erase", &json!({"lead_id": 3}));
    let id = answer["id"].as_str().expect("an id").to_owned();
    let mut stored = job(&world, &answer["id"]);
    stored.phase = Phase::Lists;
    stored.people = LeadSet::from_iter([3]);
    stored.lists = BTreeSet::from([1001, 1002]);
    stored.people_out = 1;
    assert!(block_on(erase::save_job(&world.deps, &munchkin(), &stored, Some(1))).expect("a table"));
    let said = Answer { v: 1, out: 1, stay: 0, at: START };
    block_on(erase::answer(&world.deps, &munchkin(), &id, 1002, &said)).expect("a table");
    // A repeat finds nobody any more, and counts for nothing.
    block_on(erase::answer(&world.deps, &munchkin(), &id, 1002, &Answer { out: 0, ..said })).expect("a table");
    let (status, shown) = world.get(&format!("/people/erase/{id}"));
    assert_eq!((status, &shown["status"], &shown["lists_waiting"]), (200, &json!("lists"), &json!([1001])));
    assert_eq!((&shown["lists"][0]["list_id"], &shown["lists"][0]["taken_out"]), (&json!(1002), &json!(1)));
    let (_, status) = world.get("/status");
    assert_eq!((&status["erasures_open"], &status["settled"]), (&json!(1), &json!(false)));
    assert_eq!(world.get("/people/erase/0000000000000000").0, 404);
}

#[test]
fn who_is_to_be_erased_is_said_in_exactly_one_way() {
    let world = World::new();
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"ecid": null}), ""),
        (json!({"lead_id": 1, "email": "a@example.com"}), ""),
        (json!({"lead": 1}), "/lead"),
        (json!({"lead_id": "1"}), "/lead_id"),
        (json!({"lead_id": 0}), "/lead_id"),
        (json!({"ecid": 12345}), "/ecid"),
        (json!({"ecid": "12345"}), "/ecid"),
        (json!({"token": "abc"}), "/token"),
        (json!({"email": "a,b@example.com"}), "/email"),
        (json!({"email": "@example.com"}), "/email"),
    ] {
        let (status, problem) = world.post("/people/erase", &body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!(pointer)), "{body}: {problem}");
        assert!(!problem.to_string().contains("b@example"), "an error quotes nobody");
    }
}

#[test]
fn two_hint_secrets_are_valid_and_only_hashes_of_them_are_kept() {
    let world = World::new();
    let made: Vec<String> = (0..3)
        .map(|_| {
            world.wait(1_000);
            let (status, answer) = world.post("/subscription/hint-secrets", &json!({}));
            assert_eq!((status, &answer["header"]), (201, &json!("x-hint-secret")));
            answer["secret"].as_str().expect("a secret").to_owned()
        })
        .collect();
    assert!(made.iter().all(|secret| secret.len() == 64));
    let kept = block_on(load::<HintSecrets>(&world.deps, ports::Table::Syncs, &hint_secrets_key(&munchkin())));
    let kept = kept.expect("a table").expect("a row").value;
    let valid = |secret: &str| kept.valid.iter().any(|kept| kept.is(secret));
    assert_eq!(made.iter().map(|secret| valid(secret)).collect::<Vec<_>>(), [false, true, true]);
    assert!(!valid("") && !valid(&made[2][1..]));
    let row = serde_json::to_string(&kept).expect("JSON");
    assert!(made.iter().all(|secret| !row.contains(secret.as_str())));
    assert_ne!(kept.valid[0].salt, kept.valid[1].salt);
}

#[test]
fn pages_that_may_send_matches_are_named_by_their_origin() {
    let world = World::new();
    let body = |origins: Value| json!({"munchkin_id": MUNCHKIN, "org_id": ORG, "origins": origins});
    let (status, stored) =
        world.put("/subscription", &body(json!(["https://www.example.com", "https://*.example.org"])));
    assert_eq!((status, &stored["new_pairs_per_day"]), (200, &json!(1_000_000)));
    assert_eq!(world.get("/subscription").1["origins"], json!(["https://www.example.com", "https://*.example.org"]));
    for bad in [json!("https://www.example.com"), json!(["https://www.example.com/"]), json!(["*"]), json!([1])] {
        let (status, problem) = world.put("/subscription", &body(bad));
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!("/origins")));
    }
    let mut bad = body(json!([]));
    bad["new_pairs_per_day"] = json!(-1);
    assert_eq!(world.put("/subscription", &bad).1["errors"][0]["pointer"], "/new_pairs_per_day");
}

#[test]
fn what_was_not_taken_in_is_shown() {
    let world = World::new();
    let today = Intake {
        v: 1,
        new_public: 1_200,
        over_day_cap: 200,
        sampled_out: 180,
        token_over_cap: 3,
        ecid_over_cap: 4,
        ..Intake::default()
    };
    world.store(ports::Table::Identity, intake_key(&munchkin(), START), &today);
    let (_, status) = world.get("/status");
    assert_eq!(
        status["browsers_today"],
        json!({
            "new_pairs_from_pages": 1_200, "beyond_the_days_cap": 200, "of_those_not_kept": 180,
            "not_stored_cookie_over_cap": 3, "not_stored_browser_over_cap": 4,
        })
    );
}
