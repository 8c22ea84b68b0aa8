//! How far a sync is, step by step.

use futures::executor::block_on;
use ports::Table;
use serde_json::{Value, json};
use state::audience::{Head, Waiting, head_key};
use state::bell::{self, BellKey};
use state::budget::{Permit, Purpose, Pushback, permit, push_back};
use state::edges::Noted;
use state::identity::save_token;
use state::lists::OpenList;
use state::syncs::{IdentityHead, identity_key};

use domain::identity::{Seen, TokenRecord};
use domain::{AudienceId, Ecid, LeadSet, Token};

use crate::support::{START, World, munchkin};

fn sync(world: &World, audience: u64) -> String {
    let body = json!({"audience_id": format!("aam:{audience}"), "list": {"id": 1001}});
    let (status, sync) = world.post("/syncs", &body);
    assert_eq!(status, 201, "{sync}");
    sync["id"].as_str().expect("an id").to_owned()
}

fn progress(world: &World, id: &str) -> Value {
    let (status, sync) = world.get(&format!("/syncs/{id}"));
    assert_eq!(status, 200, "{sync}");
    let progress = sync["progress"].clone();
    assert!(progress["sentence"].as_str().is_some_and(|sentence| sentence.ends_with('.')), "{progress}");
    progress
}

fn step(world: &World, id: &str) -> String {
    progress(world, id)["step"].as_str().expect("a step").to_owned()
}

fn set(leads: impl IntoIterator<Item = u64>) -> LeadSet {
    leads.into_iter().collect()
}

/// A cookie that was seen beside an ECID.
fn cookie(n: u64) -> TokenRecord {
    let token = Token::parse(&format!("_mch-example.com-{}-{n}", 1_700_000_000_000 + n)).expect("a token");
    let mut record = TokenRecord::new(token);
    let ecid = Ecid::from_number(u128::from(n + 1)).expect("an ECID");
    record.ecids.insert(ecid, Seen { first: START, last: START });
    record
}

/// As if the list's writer had done what was rung for, and these people were in the list by us.
fn written(world: &World, sure: LeadSet) {
    let mut list = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a list");
    list.state.may = sure.clone();
    list.state.sure = sure;
    block_on(list.publish(&world.deps)).expect("published");
}

#[test]
fn every_step_is_told() {
    let world = World::new();
    assert_eq!(step(&world, &sync(&world, 102)), "waiting_for_delivery");
    let id = sync(&world, 101);
    assert_eq!(
        progress(&world, &id),
        json!({
            "step": "counting", "done": 0, "of": 7, "unit": "browsers", "estimate_seconds": null,
            "sentence": "Who of the audience is a known person is being worked out.",
        })
    );

    // Its pass is published, and the list's writer has not begun.
    world.want(101, &(1..=700).collect::<Vec<u64>>(), 1);
    let key = head_key(&munchkin(), &AudienceId::aam(101));
    let head = |waiting: Option<Waiting>| {
        let mut head = Head::new(AudienceId::aam(101), START);
        (head.pass_wanted, head.pass_done, head.waiting) = (1, 1, waiting);
        world.store(Table::Audiences, key.clone(), &head);
    };
    head(None);
    let shown = progress(&world, &id);
    assert_eq!((&shown["step"], &shown["done"], &shown["of"]), (&json!("writing"), &json!(0), &json!(700)));
    // Three times two calls: on a list that we did not make they are asked about first.
    assert_eq!((&shown["unit"], &shown["estimate_seconds"]), (&json!("people"), &json!(5)), "{shown}");
    written(&world, set(1..=300));
    let shown = progress(&world, &id);
    assert_eq!((&shown["done"], &shown["estimate_seconds"]), (&json!(300), &json!(4)), "{shown}");

    // A day that has no calls left.
    let until = block_on(push_back(&world.deps, &munchkin(), Pushback::Day)).expect("pushed back");
    let shown = progress(&world, &id);
    assert_eq!((&shown["step"], &shown["of"]), (&json!("waiting_for_calls"), &json!(700)));
    let wait = (until - world.deps.now()) / 1_000;
    assert!(shown["estimate_seconds"].as_u64().is_some_and(|seconds| (wait..wait + 60).contains(&seconds)), "{shown}");
    world.wait(until - world.deps.now());
    assert_eq!(step(&world, &id), "writing");

    world.hold(1001, "h1");
    assert_eq!(step(&world, &id), "held");
    written(&world, set(1..=700));
    let mut list = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a list");
    (list.head.held, list.head.left.remove) = (None, 0);
    block_on(list.publish(&world.deps)).expect("published");
    // What was rung for is still to be done: of the audience, then of its list.
    assert_eq!(step(&world, &id), "counting");
    assert_eq!(progress(&world, &id)["of"], Value::Null, "no pass is asked for");
    world.handled(BellKey::audience(&munchkin(), &AudienceId::aam(101)));
    assert_eq!(step(&world, &id), "writing");
    assert_eq!(progress(&world, &id)["estimate_seconds"], Value::Null);
    world.handled(BellKey::list(&munchkin(), 1001));
    assert_eq!(step(&world, &id), "in_step");
    assert_eq!(progress(&world, &id)["estimate_seconds"], Value::Null);

    assert_eq!(world.post(&format!("/syncs/{id}/pause"), &json!({})).0, 200);
    assert_eq!(step(&world, &id), "paused");
    assert_eq!(world.post(&format!("/syncs/{id}/stop"), &json!({"people": "keep"})).0, 200);
    assert_eq!(step(&world, &id), "stopped");
}

#[test]
fn a_list_whose_sets_are_replaced_while_they_are_read_is_not_said_to_be_in_step() {
    let world = World::new();
    let id = sync(&world, 101);
    world.want(101, &(1..=700).collect::<Vec<u64>>(), 1);
    written(&world, set(1..=300));
    let mut list = block_on(OpenList::open(&world.deps, &munchkin(), 1001)).expect("a list");
    (list.head.left.add, list.head.left.remove) = (400, 5);
    block_on(list.publish(&world.deps)).expect("published");
    let before = progress(&world, &id);
    assert_eq!((&before["step"], &before["done"], &before["of"]), (&json!("writing"), &json!(300), &json!(700)));
    // As if it were replaced with each look.
    for key in world.objects("sets/want/") {
        block_on(world.deps.ports.objects.delete(&key)).expect("deleted");
    }
    assert_eq!(progress(&world, &id), before, "what the writer said last");
}

#[test]
fn cookies_that_wait_for_a_look_up_are_a_step_while_they_wait() {
    let world = World::new();
    let id = sync(&world, 101);
    world.want(101, &[], 1);
    written(&world, set([]));
    world.handled(BellKey::audience(&munchkin(), &AudienceId::aam(101)));
    world.handled(BellKey::list(&munchkin(), 1001));
    let waiting = |tokens| Some(Waiting { as_of: START, tokens, of: 4_000, took_ms: 0, look_ups: 0, calls: 0 });
    let head = |waiting: Option<Waiting>| {
        let mut head = Head::new(AudienceId::aam(101), START);
        (head.pass_wanted, head.pass_done, head.waiting) = (1, 1, waiting);
        world.store(Table::Audiences, head_key(&munchkin(), &AudienceId::aam(101)), &head);
    };
    head(waiting(3_000));
    assert_eq!(step(&world, &id), "in_step", "nobody waits any more");
    for n in 0..300 {
        assert!(block_on(save_token(&world.deps, &munchkin(), &cookie(n), None, &Noted::needless())).expect("saved"));
    }
    let crowd = IdentityHead { v: 1, told_at: START + 1, ..IdentityHead::default() };
    world.store(Table::Syncs, identity_key(&munchkin()), &crowd);
    let shown = progress(&world, &id);
    assert_eq!((&shown["step"], &shown["unit"]), (&json!("asking_marketo"), &json!("cookies")));
    assert_eq!((&shown["done"], &shown["of"]), (&json!(1_000), &json!(4_000)));
    // Ten look-ups at one and a half a second, and the rings; nobody of the first thousand was known.
    assert_eq!(shown["estimate_seconds"], 9, "{shown}");
    world.wait(2_000);
    let permit = block_on(permit(&world.deps, &munchkin(), Purpose::LookUp, 3)).expect("a permit");
    assert_eq!(permit, Permit::Go(3));
    let shown = progress(&world, &id);
    assert_eq!((&shown["done"], &shown["estimate_seconds"]), (&json!(1_900), &json!(7)), "{shown}");
    // The crowd is over, and those that wait are others.
    let calm = IdentityHead { v: 1, calm_at: START + 1, ..IdentityHead::default() };
    world.store(Table::Syncs, identity_key(&munchkin()), &calm);
    assert_eq!(step(&world, &id), "in_step");
}

/// Between the last look-up and its end: told to no audience yet, rung, counted, rung for the list.
#[test]
fn a_sync_is_not_in_step_before_what_the_last_look_up_found_is_in_its_list() {
    let world = World::new();
    let id = sync(&world, 101);
    world.want(101, &[], 1);
    written(&world, set([]));
    let (audience, list) = (BellKey::audience(&munchkin(), &AudienceId::aam(101)), BellKey::list(&munchkin(), 1001));
    world.handled(audience.clone());
    world.handled(list.clone());
    let mut head = Head::new(AudienceId::aam(101), START);
    (head.pass_wanted, head.pass_done) = (1, 1);
    head.waiting = Some(Waiting { as_of: START, tokens: 300, of: 300, took_ms: 4_000, look_ups: 0, calls: 0 });
    let store = |head: &Head| world.store(Table::Audiences, head_key(&munchkin(), &AudienceId::aam(101)), head);
    store(&head);
    let mut cookie = cookie(1);
    cookie.owned_by(Some(7), true);
    cookie.was_asked(START + 5_000);
    assert!(block_on(save_token(&world.deps, &munchkin(), &cookie, None, &Noted::needless())).expect("saved"));
    world.wait(6_000);
    // The pass, two calls that add, and the rings.
    let shown = progress(&world, &id);
    assert_eq!((&shown["step"], &shown["estimate_seconds"]), (&json!("counting"), &json!(7)), "{shown}");
    cookie.was_propagated();
    assert!(block_on(save_token(&world.deps, &munchkin(), &cookie, Some(1), &Noted::needless())).expect("saved"));
    let shown = progress(&world, &id);
    assert_eq!(shown["step"], "in_step", "nobody was rung for it: it is in no audience");

    block_on(bell::mark(&world.deps, &audience)).expect("marked");
    assert_eq!(step(&world, &id), "counting");
    head.pass_wanted = 2;
    store(&head);
    assert_eq!(step(&world, &id), "counting");
    (head.pass_done, head.waiting) = (2, None);
    store(&head);
    world.want(101, &[7], 2);
    block_on(bell::mark(&world.deps, &list)).expect("marked");
    world.handled(audience);
    assert_eq!(step(&world, &id), "writing");
    written(&world, set([7]));
    assert_eq!(step(&world, &id), "writing", "its writer is not done yet");
    world.handled(list);
    assert_eq!(step(&world, &id), "in_step");

    // Learned since, and told to nobody while another audience has many cookies to ask about.
    let mut cookie = self::cookie(2);
    cookie.owned_by(Some(8), true);
    cookie.was_asked(START + 6_000);
    assert!(block_on(save_token(&world.deps, &munchkin(), &cookie, None, &Noted::needless())).expect("saved"));
    assert_eq!(step(&world, &id), "news_waiting");
    cookie.was_propagated();
    assert!(block_on(save_token(&world.deps, &munchkin(), &cookie, Some(1), &Noted::needless())).expect("saved"));
    assert_eq!(step(&world, &id), "in_step");
}
