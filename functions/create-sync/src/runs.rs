//! What was done to the list of a sync, and how large it was.

use state::Deps;
use state::syncs::Sync;

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// `GET /syncs/{id}/rejects`.
pub(crate) async fn rejects(_deps: &Deps, _sync: &Sync, _request: &Request) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `GET /syncs/{id}/runs`.
pub(crate) async fn runs(_deps: &Deps, _sync: &Sync, _request: &Request) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `GET /syncs/{id}/history`.
pub(crate) async fn history(_deps: &Deps, _sync: &Sync, _request: &Request) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}
