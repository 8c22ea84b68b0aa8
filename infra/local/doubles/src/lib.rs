//! Strict doubles of Marketo and Adobe.
//!
//! Each double's core is a plain synchronous library that is given the time: the simulation and the benches run
//! it on a virtual clock. [`shell`] is the same core behind HTTP, with a control API and a page to look at.
//! Shapes, limits and error codes follow the wire contracts (Marketo sections 1.1–1.11, Adobe 5.0–5.5).
//!
//! What a core assumes: the time it is given never runs backwards (an earlier time is taken for the latest one
//! seen), and all times are milliseconds since the epoch.

pub mod adobe;
pub mod marketo;
pub mod shell;
mod wire;

pub use shell::{Deliver, Now, Shared, adobe_router, marketo_router, serve, system_clock};
