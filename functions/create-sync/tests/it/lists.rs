//! The search among 20,000 lists: by an index that the identity work builds, and by exact name.

use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Which};
use futures::executor::block_on;
use marketo::{CallError, Marketo};
use scheduled_incremental_sync::index_lists;
use serde_json::{Value, json};
use state::budget::{Permit, Purpose, permit};
use state::lists_index::{Index, Listed, begin, keep, publish, read, want};

use crate::support::{MUNCHKIN, ORG, START, World, munchkin};

/// Lists beside the two of every world.
const MADE: u64 = 19_998;
/// Pages of 300 lists.
const PAGES: usize = 67;
const MINUTE_MS: u64 = 60_000;

fn many_lists() -> World {
    let world = World::new();
    for number in 0..MADE {
        world.marketo().make_list(START, &format!("list-{number}"), 31, "EMEA");
    }
    world.marketo().clear_calls();
    world.rung();
    world
}

/// The answer of a search, and the calls that it made.
fn search(world: &World, text: &str) -> (Value, usize) {
    world.marketo().clear_calls();
    let (status, answer) = world.get(&format!("/lists?search={text}"));
    assert_eq!(status, 200, "{answer}");
    let calls = world.marketo().calls().iter().filter(|call| call.kind != Kind::Token).count();
    (answer, calls)
}

fn names(answer: &Value) -> Vec<&str> {
    answer["lists"].as_array().expect("lists").iter().map(|list| list["name"].as_str().expect("a name")).collect()
}

/// One visit of the identity work.
fn visit(world: &World) -> Result<bool, CallError> {
    let munchkin = munchkin();
    let deadline = world.deps.now() + 120_000;
    let marketo = Marketo::new(&world.deps, &munchkin, deadline, Purpose::LookUp);
    block_on(index_lists(&world.deps, &munchkin, marketo, deadline))
}

#[test]
fn an_index_does_not_wait_for_the_call_of_somebody_else() {
    let world = many_lists();
    built(&world);
    let dead = block_on(permit(&world.deps, &munchkin(), Purpose::Control, 1)).expect("a permit");
    assert!(matches!(dead, Permit::Lease(_)), "{dead:?}");
    let begun = world.deps.now();
    let (answer, calls) = search(&world, "list-1999");
    assert_eq!(
        (names(&answer)[0], &answer["complete"], calls),
        ("list-1999", &json!(true), 0),
        "known by just that name"
    );
    assert_eq!(world.deps.now(), begun);
    let (answer, calls) = search(&world, "ist-1999");
    assert_eq!((&answer["complete"], calls), (&json!(false), 0));
    assert!(!names(&answer).is_empty() && world.deps.now() <= begun + 2_000, "{}", world.deps.now() - begun);
}

fn index(world: &World) -> Index {
    block_on(read(&world.deps, &munchkin())).expect("a row")
}

fn built(world: &World) {
    search(world, "list-1");
    assert!(!visit(world).expect("built"));
    assert_eq!(index(world).published.map(|published| published.count), Some(MADE + 2));
    world.rung();
}

#[test]
fn before_there_is_an_index_the_exact_name_and_the_first_page_are_searched() {
    let world = many_lists();
    world.handled(state::bell::BellKey::identity(&munchkin()));
    let (answer, calls) = search(&world, "list-19997");
    assert_eq!((names(&answer), calls), (vec!["list-19997"], 2));
    assert_eq!((&answer["complete"], &answer["as_of"]), (&json!(false), &Value::Null));
    assert!(answer["note"].as_str().expect("words").contains("being built"), "{answer}");
    assert!(world.rung().contains(&("identity".to_owned(), String::new())), "the index is wanted");
    let (answer, calls) = search(&world, "IST-29");
    assert_eq!((names(&answer)[0], calls), ("list-29", 2), "of the first page");
    assert!(world.rung().is_empty(), "it is wanted already");
    assert_eq!(search(&world, "").1, 1, "the first page alone");
}

#[test]
fn the_index_answers_without_a_call_and_what_is_newer_is_found_by_its_name() {
    let world = many_lists();
    built(&world);
    let (answer, calls) = search(&world, "list-1999");
    assert_eq!((calls, &answer["complete"], &answer["note"]), (0, &json!(true), &Value::Null));
    assert_eq!((&answer["count"], names(&answer)[0]), (&json!(9), "list-1999"));
    assert_eq!(answer["lists"][0]["workspace"], "EMEA");
    assert_eq!(answer["as_of"], "2026-11-20T00:00:00Z");
    let (answer, calls) = search(&world, "vip");
    assert_eq!((names(&answer), calls), (vec!["VIP"], 0));
    let (answer, calls) = search(&world, "ST-1");
    assert_eq!((calls, answer["lists"].as_array().expect("lists").len()), (1, 50));
    assert!(answer["count"].as_u64().expect("a number") > 11_000, "{}", answer["count"]);
    // Made a minute ago.
    let new = world.marketo().make_list(world.deps.now(), "brand-new", 12, "Default");
    let (answer, calls) = search(&world, "brand-new");
    assert_eq!((calls, &answer["complete"], &answer["count"]), (1, &json!(true), &json!(1)));
    assert_eq!(answer["lists"], json!([{"id": new, "name": "brand-new", "workspace": "Default"}]));
    // Nobody can search for a comma.
    let (answer, calls) = search(&world, "a,b");
    assert_eq!((calls, &answer["complete"]), (0, &json!(false)));
    assert!(world.rung().is_empty(), "the index is fresh");
}

#[test]
fn the_index_is_renewed_and_leaves_nothing_behind() {
    let world = many_lists();
    built(&world);
    let old = world.objects("lists-index/");
    assert_eq!(old.len(), 1, "{old:?}");
    assert!(!visit(&world).expect("nothing to do"));
    world.handled(state::bell::BellKey::identity(&munchkin()));
    world.marketo().make_list(world.deps.now(), "brand-new", 12, "Default");
    world.wait(20 * MINUTE_MS);
    search(&world, "vip");
    assert_eq!(index(&world).wanted_at, None, "67 pages stay fresh for 67 minutes");
    world.wait(60 * MINUTE_MS);
    assert_eq!(search(&world, "vip").1, 0, "the old one still answers");
    assert!(index(&world).wanted_at.is_some() && world.rung().contains(&("identity".to_owned(), String::new())));
    world.marketo().clear_calls();
    assert!(!visit(&world).expect("built"));
    let calls = world.marketo().calls().iter().filter(|call| call.kind == Kind::Lists).count();
    assert_eq!(calls, PAGES);
    let (answer, calls) = search(&world, "brand-new");
    assert_eq!((names(&answer), calls), (vec!["brand-new"], 0));
    let new = world.objects("lists-index/");
    assert_eq!(new.len(), 1, "{new:?}");
    assert_ne!(new, old);
}

#[test]
fn dying_anywhere_while_it_is_built_costs_ten_calls_and_no_list() {
    let world = many_lists();
    search(&world, "vip");
    let kept = |world: &World| index(world).building.map_or(0, |building| building.count);
    let mut deaths = 0;
    for lives in (7..).step_by(13) {
        let before = kept(&world);
        world.marketo().clear_calls();
        world.outside.dies_after(lives);
        let ended = visit(&world);
        world.outside.revive();
        let read = 300 * world.marketo().calls().iter().filter(|call| call.kind == Kind::Lists).count() as u64;
        if ended.is_err() {
            assert!(before + read <= kept(&world) + 3_000, "{read} lists were read, {before} before");
        }
        match ended {
            Ok(more) => {
                assert!(!more);
                break;
            }
            Err(_) => deaths += 1,
        }
        // While it is being built, what is there is searched.
        if deaths == 5 {
            let (answer, _) = search(&world, "list-19997");
            assert_eq!((names(&answer), &answer["complete"]), (vec!["list-19997"], &json!(false)));
        }
        assert!(deaths < 100, "it comes to an end");
        world.wait(20_000);
    }
    assert!(deaths > 5, "{deaths}");
    let published = index(&world).published.expect("an index");
    assert_eq!(published.count, MADE + 2);
    let (answer, calls) = search(&world, "list-19997");
    assert_eq!((names(&answer), calls), (vec!["list-19997"], 0));
}

#[test]
fn an_answer_of_marketos_that_ends_the_paging_ends_the_build_until_somebody_searches_again() {
    let world = many_lists();
    search(&world, "vip");
    let fault = |nth, answer| Fault { kind: Some(Kind::Lists), which: Which::Nth(nth), answer, commit: Commit::Before };
    world.marketo().inject(fault(3, FaultAnswer::Code(1003)));
    assert!(!visit(&world).expect("given up"));
    let row = index(&world);
    assert_eq!((row.published, row.building, row.wanted_at), (None, None, None));
    assert!(world.objects("lists-index/").is_empty());
    built(&world);
    // The quota is used up: the index answers, and says what it cannot know.
    world.marketo().inject(fault(1, FaultAnswer::Code(607)));
    let (answer, _) = search(&world, "ist-1999");
    assert_eq!((&answer["complete"], &answer["count"]), (&json!(false), &json!(9)), "{answer}");
    assert!(answer["note"].as_str().expect("words").contains("newer"), "{answer}");
    assert_eq!(search(&world, "list-1999").0["complete"], true, "no call was needed");
}

#[test]
fn a_small_index_is_fresh_for_a_quarter_of_an_hour() {
    let world = World::new();
    search(&world, "vip");
    assert!(!visit(&world).expect("built"));
    for (minutes, wanted) in [(14, false), (2, true)] {
        world.wait(minutes * MINUTE_MS);
        search(&world, "vip");
        assert_eq!(index(&world).wanted_at.is_some(), wanted, "after {minutes} minutes more");
    }
}

#[test]
fn an_index_has_one_builder_and_each_list_once() {
    let world = World::new();
    let (deps, munchkin) = (&world.deps, &munchkin());
    let list = |id, name: &str| Listed { id, name: name.to_owned(), workspace: None };
    assert_eq!(block_on(begin(deps, munchkin)).expect("read"), None, "nobody wants one");
    block_on(want(deps, munchkin)).expect("wanted");
    let first = block_on(begin(deps, munchkin)).expect("begun").expect("a build");
    let second = block_on(keep(deps, munchkin, &first, &[list(1, "one"), list(2, "two")], "t")).expect("kept");
    assert_eq!(block_on(begin(deps, munchkin)).expect("read"), Some(second.clone()), "it goes on");
    // Whoever began at the same time and was slower.
    assert!(block_on(keep(deps, munchkin, &first, &[list(9, "nine")], "t")).is_err());
    assert!(block_on(publish(deps, munchkin, &first, vec![list(9, "nine")])).is_err());
    // The list moved to the next page, under a new name, while they were read.
    block_on(publish(deps, munchkin, &second, vec![list(2, "zwei"), list(3, "three")])).expect("published");
    let (published, found) = block_on(state::lists_index::search(deps, munchkin, "", 9)).expect("read").expect("found");
    assert_eq!((published.count, found.count), (3, 3));
    assert!(found.lists.contains(&list(2, "zwei")), "{found:?}");
}

/// What must not be used is not asked. Whoever wants to be forgotten is looked up all the same.
#[test]
fn a_subscription_that_must_not_be_used_is_asked_for_no_list_no_folder_and_nobody() {
    for change in [json!({"hipaa_ready": true}), json!({"org_id": null})] {
        let world = World::new();
        let mut body = json!({"munchkin_id": MUNCHKIN, "org_id": ORG});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        assert_eq!(world.put("/subscription", &body).0, 200);
        let person = json!({"email": "1@example.com"});
        for (status, problem) in [
            world.get("/lists?search=vip"),
            world.get("/lists"),
            world.get("/list-folders"),
            world.post("/explain", &person),
        ] {
            assert_eq!(status, 403, "{problem}");
        }
        assert!(world.marketo().calls().is_empty());
        assert_eq!(world.post("/explain", &json!({"lead_id": 1})).0, 200, "it costs no call");
        assert_eq!(world.post("/people/erase", &person).0, 202);
    }
}

#[test]
fn a_build_that_takes_too_long_begins_anew() {
    let world = World::new();
    let (deps, munchkin) = (&world.deps, &munchkin());
    block_on(want(deps, munchkin)).expect("wanted");
    let first = block_on(begin(deps, munchkin)).expect("begun").expect("a build");
    block_on(keep(deps, munchkin, &first, &[], "t")).expect("kept");
    world.wait(61 * MINUTE_MS);
    let fresh = block_on(begin(deps, munchkin)).expect("begun").expect("a build");
    assert_eq!((fresh.next, fresh.since), (None, world.deps.now()));
    assert!(world.objects("lists-index/").is_empty(), "what was kept is swept");
}
