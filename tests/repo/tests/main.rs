//! Invariants of the repository, as ordinary tests.

mod canaries;
mod contract;
mod dependencies;
mod documents;
mod secrets;
mod template;

use std::path::{Path, PathBuf};

use lambda::Uses;

/// The functions: name, folder and binary are the same; and what their code says that they use.
const FUNCTIONS: [(&str, Uses); 5] = [
    ("create-sync", create_sync::USES),
    ("cookie-ingest", cookie_ingest::USES),
    ("audience-ingest", audience_ingest::USES),
    ("scheduled-incremental-sync", scheduled_incremental_sync::USES),
    ("list-writer", list_writer::USES),
];

/// The workspace's folder.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace's folder")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
