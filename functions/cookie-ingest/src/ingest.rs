//! The function: which route a request is for.

use std::sync::Arc;

use lambda::{Counts, HttpEvent};
use state::{Deps, Step};

use crate::answer::{Answer, problem};
use crate::beacon::post_beacon;
use crate::hints::post_hints;
use crate::matches::post_matches;
use crate::tag;
use crate::warm::Warm;

/// The function in one process, with what it remembers. Cheap to clone; one a process.
#[derive(Debug, Clone)]
pub struct Ingest {
    deps: Deps,
    warm: Arc<Warm>,
}

impl Ingest {
    /// A process that has just begun.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let random = [deps.ports.random.next_u64(), deps.ports.random.next_u64()];
        Self { deps, warm: Arc::new(Warm::new(random)) }
    }

    /// Answers a request, and counts what became of it.
    pub async fn request(&self, request: &HttpEvent, counts: &Counts) -> Step<Answer> {
        let deps = &self.deps;
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/beacon") => Ok(post_beacon(deps, &self.warm, request, counts).await),
            ("POST", "/hints") => post_hints(deps, &self.warm, request, counts).await,
            ("POST", "/matches") => post_matches(deps, &request.body).await,
            ("GET", "/tag.js") => Ok(tag::script(request)),
            ("GET", "/tag") => tag::snippet(deps, request).await,
            ("GET", path) if path.starts_with("/tag/") => Ok(tag::file(request, &path["/tag/".len()..])),
            _ => Ok(problem(404, "Not found", "there is nothing here")),
        }
    }
}
