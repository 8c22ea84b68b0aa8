//! What the functions keep, and how they call one another: typed rows over the tables, the doorbells, and the
//! steps that more than one function takes.
//!
//! Rows are read, changed and written back on condition of their revision; whoever loses reads again.

pub mod alerts;
pub mod audience;
pub mod bases;
pub mod bell;
pub mod budget;
mod cause;
pub mod deps;
pub mod doc;
pub mod edges;
pub mod erase;
pub mod facts;
pub mod feeds;
pub mod identity;
pub mod lists;
pub mod lists_index;
mod merge;
pub mod notes;
pub mod previews;
pub mod readings;
pub mod rest;
pub mod runs;
pub mod syncs;
mod version;

pub use cause::{Cause, Causes};
pub use deps::{Deps, Settings};
pub use doc::{Doc, load, save, update};
pub use ports::Failure;
pub use version::V1;

/// Result of a step on a message path.
pub type Step<T> = Result<T, Failure>;

/// A time (ms) as RFC 3339.
#[must_use]
pub fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or_default().to_string()
}
