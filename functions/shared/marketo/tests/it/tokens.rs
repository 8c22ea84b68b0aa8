//! Access tokens: asked for once, kept while they live, and seen by nobody else.

use futures::executor::block_on;
use futures::future::join_all;
use marketo::CallError;
use marketo::class::TOKEN_REST_MS;
use ports::{Failure, Vendor};
use secrecy::{ExposeSecret as _, SecretString};

use crate::support::{LIST, START, World, lock};

fn asks(world: &World) -> usize {
    block_on(world.client().membership(world.slot(), LIST, &[1])).expect("an answer");
    world.counted().0
}

/// The error of a call for which there is no token.
fn without_token(world: &World) -> CallError {
    let client = world.client();
    let call = async { client.membership(client.slot().await?, LIST, &[1]).await };
    block_on(call).expect_err("no token")
}

fn eight_at_once(world: &World) -> (usize, usize) {
    let client = world.client();
    let all = join_all((0..8).map(|_| async {
        let slot = client.slot().await.expect("a slot");
        client.add(slot, LIST, &[3]).await
    }));
    assert!(block_on(all).iter().all(Result::is_ok));
    world.counted()
}

#[test]
fn calls_that_are_under_way_together_ask_for_one_token() {
    let world = World::new();
    assert_eq!(eight_at_once(&world), (1, 8));
    // Marketo takes it no more: each is refused once, and one of them renews.
    world.double().expire_token();
    assert_eq!(eight_at_once(&world), (1, 16));
}

#[test]
fn a_token_is_kept_until_half_a_minute_before_its_end() {
    let world = World::new();
    assert_eq!(asks(&world), 1);
    world.pass(3_600_000 - 31_000);
    assert_eq!(asks(&world), 0);
    world.pass(1_000);
    // Marketo hands out the same one with the half minute that is left, and it is used for half of that.
    assert_eq!(asks(&world), 1);
    world.pass(14_000);
    assert_eq!(asks(&world), 0);
    world.pass(1_500);
    assert_eq!(asks(&world), 1);
    world.pass(20_000);
    assert_eq!(asks(&world), 1);
    assert_eq!(asks(&world), 0);
}

#[test]
fn a_token_without_any_life_is_asked_for_again_a_second_later() {
    let world = World::new();
    assert_eq!(asks(&world), 1);
    world.double().token_edge(START, 900);
    world.deps.forget_access_token(Vendor::Marketo);
    assert_eq!(asks(&world), 2);
    assert_eq!(world.now(), START + 1_000);
}

#[test]
fn a_token_that_never_has_any_life_is_asked_for_three_times() {
    let world = World::new();
    lock(&world.outside.lives).extend([0, 0, 0]);
    let error = without_token(&world);
    assert!(matches!(error, CallError::Wait(until) if until == START + 2_000 + TOKEN_REST_MS), "{error:?}");
    assert_eq!(world.counted(), (3, 0));
}

#[test]
fn wrong_credentials_are_an_alarm_and_no_call_is_sent() {
    let world = World::new();
    world.keep_secret("wrong");
    let error = without_token(&world);
    assert!(matches!(&error, CallError::Refused { code, .. } if code == "401"), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("wrong"));
    assert!(matches!(Failure::from(error), Failure::Outage { .. }));
    assert_eq!(world.counted(), (1, 0));
}

#[test]
fn a_secret_that_was_rotated_is_read_again_at_once() {
    let world = World::new();
    world.keep_secret("old");
    block_on(world.deps.credentials(Vendor::Marketo)).expect("read at the start");
    world.keep_secret("sample-secret");
    world.slot();
    // Once with the old secret and once with the new one, which is remembered.
    assert_eq!((world.counted(), world.secrets_read()), ((2, 0), 2));
    world.deps.forget_access_token(Vendor::Marketo);
    world.slot();
    assert_eq!((world.counted(), world.secrets_read()), ((1, 0), 2));
}

#[test]
fn a_secret_that_stays_refused_is_read_again_once_a_minute() {
    let world = World::new();
    world.keep_secret("wrong");
    without_token(&world);
    assert_eq!(world.secrets_read(), 2);
    world.keep_secret("sample-secret");
    world.pass(59_999);
    without_token(&world);
    assert_eq!(world.secrets_read(), 2);
    world.pass(1);
    world.slot();
    assert_eq!(world.secrets_read(), 3);
}

#[test]
fn token_and_secret_stand_nowhere_but_in_their_places() {
    let world = World::new();
    let client = world.client();
    block_on(client.add(world.slot(), LIST, &[3])).expect("added");
    block_on(client.remove(world.slot(), LIST, &[3])).expect("removed");
    block_on(client.leads_by_id(world.slot(), &[1], true)).expect("leads");
    block_on(client.create_list(world.slot(), "New", 12, "d")).expect("a list");
    block_on(client.create_list_extract(world.slot(), LIST)).expect("an extract");
    block_on(client.start_import(world.slot(), LIST, &[4].into_iter().collect())).expect("an import");
    block_on(client.use_today(world.slot())).expect("the use");
    let token = world.deps.access_token(Vendor::Marketo).expect("a token");
    let token = token.expose_secret();
    let sent = world.sent();
    assert_eq!(sent.len(), 8);
    for request in sent {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let identity = request.asks_for_token();
        assert_eq!(body.contains("sample-secret"), identity, "{}", request.uri);
        assert!(!request.uri.contains("sample-secret") && !request.uri.contains(token), "a secret in an address");
        assert!(!body.contains(token), "{}", request.uri);
        assert_eq!(request.authorization == format!("Bearer {token}"), !identity, "{}", request.uri);
    }
    let shown = format!("{:?}", world.deps);
    assert!(!shown.contains("sample-secret") && !shown.contains(token), "a secret in debug output");
}

#[test]
fn only_the_token_that_was_refused_is_forgotten() {
    let world = World::new();
    let kept = || world.deps.access_token(Vendor::Marketo).map(|token| token.expose_secret().to_owned());
    let (old, new) = (SecretString::from("old"), SecretString::from("new"));
    world.deps.keep_access_token(Vendor::Marketo, new.clone(), START + 1);
    world.deps.refuse_access_token(Vendor::Marketo, &old);
    assert_eq!(kept().as_deref(), Some("new"));
    world.deps.refuse_access_token(Vendor::Adobe, &new);
    assert_eq!(kept().as_deref(), Some("new"));
    world.deps.refuse_access_token(Vendor::Marketo, &new);
    assert_eq!(kept(), None);
}
