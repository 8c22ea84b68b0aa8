//! A secret that changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use doubles::adobe::{Adobe, Settings};
use futures::executor::block_on;
use ports::{Failure, Vendor};
use state::Deps;
use world::types::Library;

use crate::support::{Outside, START, world};

/// The double, whose 401 is told with this status, and our secret.
fn double(secret: &'static str, refusal: u16) -> (Deps, Arc<Outside>) {
    let mut double = Adobe::new(Settings::default(), Library::default(), START);
    let (deps, outside) = world("", move |now, request| {
        let mut response = double.handle(now, request);
        if response.status() == 401 {
            *response.status_mut() = refusal.try_into().expect("a status");
        }
        response
    });
    *outside.secret.lock().expect("no panic") = secret;
    (deps, outside)
}

#[test]
fn a_secret_that_was_rotated_is_read_again_at_once() {
    // Adobe may say `invalid_client` with either status.
    for refusal in [401, 400] {
        let (deps, outside) = double("old", refusal);
        block_on(deps.credentials(Vendor::Adobe)).expect("read at the start");
        *outside.secret.lock().expect("no panic") = "sample-secret";
        assert_eq!(block_on(adobe::segments(&deps)).expect("segments"), []);
        assert_eq!(outside.secrets_read.load(Ordering::Relaxed), 2);
        let shown = format!("{deps:?}");
        assert!(!shown.contains("sample-secret") && !shown.contains("eyJ"), "a secret in debug output");
    }
}

#[test]
fn a_secret_that_stays_refused_is_read_again_once_a_minute() {
    let (deps, outside) = double("wrong", 401);
    for _ in 0..2 {
        let failure = block_on(adobe::segments(&deps)).expect_err("no token");
        assert!(matches!(failure, Failure::Outage { .. }), "{failure}");
        assert!(!format!("{failure:?}").contains("wrong"));
        assert_eq!(outside.secrets_read.load(Ordering::Relaxed), 2);
    }
    *outside.secret.lock().expect("no panic") = "sample-secret";
    outside.now.fetch_add(60_000, Ordering::Relaxed);
    assert_eq!(block_on(adobe::segments(&deps)).expect("segments"), []);
    assert_eq!(outside.secrets_read.load(Ordering::Relaxed), 3);
}
