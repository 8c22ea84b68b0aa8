//! Invariants of the repository itself: who may depend on whom, what the template must say, that the documents agree
//! with the code (all of it in `tests/main.rs`), and that nothing personal is in what a test run leaves behind
//! ([`canaries`]).

pub mod canaries;
