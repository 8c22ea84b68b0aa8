//! What a sync would do, before it is made: a job that counts and asks, and changes nothing.

use serde_json::Value;
use state::Deps;
use state::syncs::Subscription;

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// `POST /syncs/preview`.
pub(crate) async fn post(
    _deps: &Deps,
    _subscription: &Subscription,
    _request: &Request,
    _deadline: u64,
) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `GET /previews/{id}`.
pub(crate) async fn get(_deps: &Deps, _subscription: &Subscription, _id: &str, _deadline: u64) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
