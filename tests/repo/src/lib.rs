//! Invariants of the repository itself: who may depend on whom, what the template must say, that the documents agree
//! with the code (all of it in `tests/main.rs`); that nothing personal is in what a test run leaves behind ([`canaries`]), and
//! that the functions may do what they did in it, and nothing else ([`permissions`]).

pub mod canaries;
pub mod permissions;
