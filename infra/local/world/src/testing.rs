//! What the tests share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The fixture of five people.
pub fn tiny() -> PathBuf {
    fixture("tiny")
}

/// A data folder that stands among the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures").join(name)
}

/// A folder of its own for one test, gone with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("world-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(dir.join("incoming")).expect("a scratch folder can be made");
        Self(dir)
    }

    /// With a copy of the fixture's input files.
    pub fn tiny() -> Self {
        let scratch = Self::new();
        for file in ["library.json", "marketo.json", "matches.jsonl", "syncs.json", "later.jsonl"] {
            fs::copy(tiny().join(file), scratch.0.join(file)).expect("the fixture is there");
        }
        for entry in fs::read_dir(tiny().join("incoming")).expect("the fixture is there") {
            let entry = entry.expect("the fixture can be listed");
            fs::copy(entry.path(), scratch.0.join("incoming").join(entry.file_name())).expect("copied");
        }
        scratch
    }

    pub fn put(&self, file: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.join(file), content).expect("written");
        self
    }

    pub fn remove(&self, file: &str) -> &Self {
        fs::remove_file(self.0.join(file)).expect("removed");
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the scratch folder can be taken away");
    }
}
