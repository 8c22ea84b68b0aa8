//! What must be set up at Marketo and Adobe, row by row.

use serde_json::Value;
use state::Deps;
use state::syncs::Subscription;

use crate::problem::{Answer, Problem};

/// `GET /setup`.
pub(crate) async fn check(_deps: &Deps, _subscription: Option<&Subscription>, _deadline: u64) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
