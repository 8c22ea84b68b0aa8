//! The control plane's calls: one at a time, by a lease.

use futures::executor::block_on;
use marketo::CallError;
use state::budget::LEASE_MS;

use crate::support::{LIFE, LIST, START, Said, World, lock};

/// Whether the next call of the control plane may go at once.
fn is_free(world: &World) -> bool {
    let before = world.now();
    let client = world.control_until(before + LIFE);
    block_on(async {
        let slot = client.slot().await.expect("a slot");
        client.give_back(slot).await;
    });
    world.now() == before
}

#[test]
fn an_answer_ends_the_lease_whatever_it_says() {
    for (status, body) in [
        (200, r#"{"requestId":"r","success":true,"result":[]}"#),
        (200, r#"{"requestId":"r","success":false,"errors":[{"code":"603","message":"m"}]}"#),
        (200, r#"{"requestId":"r","success":false,"errors":[{"code":"1013","message":"m"}]}"#),
        (502, ""),
        (401, ""),
    ] {
        let world = World::new();
        world.say(status, body);
        let client = world.control_until(START + LIFE);
        let asked = block_on(async { client.membership(client.slot().await?, LIST, &[1]).await });
        assert_eq!(asked.is_ok(), body.contains("true"), "{status} {body}");
        assert!(is_free(&world), "{status} {body}");
    }
}

#[test]
fn a_call_too_many_ends_it_with_the_write_that_says_so() {
    let world = World::new();
    world.say(200, r#"{"requestId":"r","success":false,"errors":[{"code":"615","message":"m"}]}"#);
    let client = world.control_until(START + LIFE);
    let error = block_on(async { client.membership(client.slot().await?, LIST, &[1]).await }).expect_err("too many");
    let CallError::Wait(until) = error else { panic!("{error:?}") };
    world.pass(until - START);
    assert!(is_free(&world));
}

#[test]
fn without_an_answer_it_lasts_as_long_as_a_call_may() {
    let world = World::new();
    lock(&world.outside.script).push_back(Said::Dropped);
    let client = world.control_until(START + LIFE);
    block_on(async { client.membership(client.slot().await?, LIST, &[1]).await }).expect_err("no answer");
    let slot = block_on(client.slot()).expect("a slot");
    assert!((LEASE_MS..LEASE_MS + 1_000).contains(&(world.now() - START)), "{}", world.now() - START);
    block_on(client.give_back(slot));
    assert!(is_free(&world));
}

#[test]
fn what_certainly_did_not_leave_ends_it() {
    let world = World::new();
    let client = world.control_until(START + LIFE);
    let slot = block_on(client.slot()).expect("a slot");
    // The slot has grown too old.
    world.pass(marketo::SEND_WITHIN_MS + 1);
    block_on(client.membership(slot, LIST, &[1])).expect_err("too late");
    assert!(is_free(&world));
}

#[test]
fn who_can_do_without_waits_for_it_no_longer_than_they_say() {
    let world = World::new();
    let holder = block_on(world.control_until(START + LIFE).slot()).expect("a slot");
    for (most, waited) in [(0, 0..1), (2_000, 1_000..2_001)] {
        let begun = world.now();
        let client = world.control_until(START + LIFE).waiting_at_most(most);
        let error = block_on(client.slot()).expect_err("taken");
        assert!(matches!(error, CallError::Taken(_)), "{error:?}");
        assert!(waited.contains(&(world.now() - begun)), "{}", world.now() - begun);
    }
    // A deadline is not moved.
    assert!(block_on(world.control_until(world.now()).waiting_at_most(2_000).slot()).is_err());
    block_on(world.control_until(START + LIFE).give_back(holder));
}

#[test]
fn it_is_waited_for_as_long_as_the_deadline_leaves_time_for_the_call() {
    let world = World::new();
    let holder = block_on(world.control_until(START + LIFE).slot()).expect("a slot");
    let error = block_on(world.control_until(START + 30_000).slot()).expect_err("taken");
    let CallError::Taken(ms) = error else { panic!("{error:?}") };
    assert_eq!(world.now() + ms, START + LEASE_MS);
    assert!((14_000..15_000).contains(&(world.now() - START)));
    // Who has longer waits until it ends. What its holder then gives back is another's.
    let client = world.control_until(START + LIFE);
    let slot = block_on(client.slot()).expect("a slot");
    let taken_over = world.now();
    assert!(taken_over - START >= LEASE_MS);
    block_on(client.give_back(holder));
    block_on(world.control_until(taken_over + 20_000).slot()).expect_err("taken");
    block_on(client.give_back(slot));
    assert!(is_free(&world));
}
