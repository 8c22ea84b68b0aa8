//! The console's static files, and the contract of the API.

use crate::problem::{Answer, Problem};
use crate::routes::{Request, Response};

/// `GET /console/{file}`.
pub(crate) fn file(_request: &Request, _file: &str) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}

/// `GET /openapi.json`.
pub(crate) fn contract(_request: &Request) -> Answer<Response> {
    Err(Problem::new(501, "this route is not there yet"))
}
