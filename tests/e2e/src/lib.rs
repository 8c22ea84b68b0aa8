//! End-to-end tests of the two commands; they are in `tests/main.rs`.
