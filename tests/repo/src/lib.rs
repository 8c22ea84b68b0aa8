//! Invariants of the repository itself: who may depend on whom, what the template must say, and that the documents
//! agree with the code. All of it is in `tests/main.rs`.
