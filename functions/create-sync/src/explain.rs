//! Why somebody is in a list, or is not: the chain from the browser to the list, and its first link that is missing.

use serde_json::Value;
use state::Deps;
use state::syncs::Subscription;

use crate::problem::{Answer, Problem};
use crate::routes::Request;

/// `POST /explain`.
pub(crate) async fn explain(
    _deps: &Deps,
    _subscription: &Subscription,
    _request: &Request,
    _deadline: u64,
) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
