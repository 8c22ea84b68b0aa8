//! What all readers of deliveries share: the mode of a file, and what a control file says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sync mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Complete list for each user.
    Full,
    /// Changes since the last file.
    Iter,
}

/// What a control file (`.info`, manifest) says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// File names, without folders, each with its size in bytes and its lines, where they are told.
    pub files: BTreeMap<String, FileSize>,
    /// How many files there are, if that is told.
    pub total_files: Option<u64>,
    /// How many lines they have together, blank ones and headers included, if that is told.
    pub total_lines: Option<u64>,
    /// The time that it bears, in ms, if it bears one.
    pub time: Option<u64>,
}

/// What a control file says of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSize {
    /// Size in bytes.
    pub bytes: Option<u64>,
    /// Lines, blank ones and headers included.
    pub lines: Option<u64>,
}
