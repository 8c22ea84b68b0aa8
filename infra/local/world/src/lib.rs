//! A world to synchronise: what Adobe's library, Marketo's database and the browsers hold, read from a folder
//! or generated from a seed, and the reference model of what Marketo's lists must then come to hold.

pub mod feed;
pub mod folder;
pub mod reference;
pub mod sample;
pub mod syncs;
pub mod types;

#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use types::{Later, Library, MarketoData, Match};

/// Everything that a run starts from, and everything that happens during it.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// Adobe's folders and segments.
    pub library: Library,
    /// Marketo's leads and lists at the start.
    pub marketo: MarketoData,
    /// What browsers have shown before the start.
    pub matches: Vec<Match>,
    /// Bodies of `PUT /feeds/{id}`, by id; none: one feed `default` of Audience Manager's full files.
    pub feeds: BTreeMap<String, serde_json::Value>,
    /// Bodies of `POST /syncs`, in order.
    pub syncs: Vec<serde_json::Value>,
    /// Feed files in the order in which they arrive: by the time in the name; those without one come last.
    pub files: Vec<feed::FeedFile>,
    /// What happens between the files, ordered by `after_file`.
    pub later: Vec<Later>,
}
