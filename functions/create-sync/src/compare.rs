//! The people of a sync beside the members of any other list.

use serde_json::Value;
use state::Deps;
use state::syncs::{Subscription, Sync};

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// `POST /syncs/{id}/compare`.
pub(crate) async fn post(_deps: &Deps, _sync: &Sync, _request: &Request, _deadline: u64) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `GET /comparisons/{id}`.
pub(crate) async fn get(_deps: &Deps, _subscription: &Subscription, _id: &str) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
