//! Everybody whom a sync concerns, as CSV.

use serde_json::Value;
use state::Deps;
use state::syncs::{Subscription, Sync};

use crate::problem::{Answer, Problem};
use crate::routes::Response;

/// `POST /syncs/{id}/download`.
pub(crate) async fn post(_deps: &Deps, _sync: &Sync) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `GET /downloads/{id}`.
pub(crate) async fn get(_deps: &Deps, _subscription: &Subscription, _id: &str) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
