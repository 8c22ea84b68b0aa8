//! Who may do what.

use serde_json::Value;

use crate::problem::{Answer, Problem};
use crate::routes::Request;

/// `GET /me`.
pub(crate) fn me(_request: &Request) -> Answer<Value> {
    Err(Problem::new(501, "this route is not there yet"))
}
