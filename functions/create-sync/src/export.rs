//! All that an operator has set up, to be set up elsewhere.

use serde_json::Value;
use state::Deps;
use state::syncs::Subscription;

use crate::problem::{Answer, Problem};
use crate::routes::Request;

/// `GET /export`.
pub(crate) async fn export(_deps: &Deps, _subscription: &Subscription) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `POST /import`.
pub(crate) async fn import(_deps: &Deps, _request: &Request, _deadline: u64) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
