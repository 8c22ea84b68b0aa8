//! Who did what, and when.

use state::Deps;

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// `GET /audit`.
pub(crate) async fn audit(_deps: &Deps, _request: &Request) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}
