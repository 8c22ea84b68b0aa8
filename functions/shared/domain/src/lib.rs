//! The rules of audience-sync: ids, facts, feeds, who owns what, and what to do to a list.
//!
//! Everything here is a pure function of its arguments: no AWS, no async runtime, no clock, no randomness.

pub mod base;
pub mod cookie;
pub mod edges;
pub mod fact;
pub mod feed;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod list;
pub mod origin;
pub mod planted;
pub mod report;
pub mod rows;
pub mod said;
pub mod sayings;
mod set;

pub use ids::{AudienceId, Ecid, LeadId, ListId, MunchkinId, OrgId, Token};
pub use said::Said;
pub use set::LeadSet;
