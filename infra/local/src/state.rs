//! What outlives a restart: the doubles' worlds and how far the run has come. (The stack keeps its own state.)

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Version of this shape.
    pub(crate) v: u8,
    /// The moment that the sample world was generated for, in ms.
    pub(crate) world_time_ms: u64,
    /// The sample world's seed; absent for a data folder.
    pub(crate) seed: Option<u64>,
    /// Subscription and feed are declared.
    pub(crate) declared: bool,
    /// Matches handed in, from the first on.
    pub(crate) matches: usize,
    /// What became of each sync of the world, from the first on: its id, or `None` where it was refused.
    pub(crate) syncs: Vec<Option<String>>,
    /// Files delivered and settled, by name.
    pub(crate) files: Vec<String>,
    /// After how many of the files the later events have happened.
    pub(crate) later: usize,
}

/// The folder of a run's state, held for this process.
pub(crate) struct StateDir {
    path: PathBuf,
    /// What each file held when it was last written, so that nothing is written twice.
    written: Mutex<BTreeMap<&'static str, u64>>,
    _lock: File,
}

const LOCK: &str = "in-use";

impl StateDir {
    /// Takes the folder; with `fresh`, empties it.
    pub(crate) fn take(path: &Path, fresh: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let lock = File::create(path.join(LOCK)).with_context(|| format!("cannot write in {}", path.display()))?;
        ensure!(lock.try_lock().is_ok(), "another run uses {}: stop it first", path.display());
        if fresh {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if entry.file_name() == LOCK {
                    continue;
                }
                let gone = if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                };
                gone.with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        Ok(Self { path: path.to_owned(), written: Mutex::default(), _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file; `None`: there is none.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.path.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let found = serde_json::from_slice(&bytes);
        Ok(Some(found.with_context(|| format!("{} is damaged; --fresh begins anew", path.display()))?))
    }

    /// Writes a file whole, or leaves the old one.
    pub(crate) fn write<T: Serialize>(&self, name: &'static str, value: &T) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        let mut hash = DefaultHasher::new();
        bytes.hash(&mut hash);
        let hash = hash.finish();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.get(name) == Some(&hash) {
            return Ok(());
        }
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        fs::write(&new, bytes)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        written.insert(name, hash);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_unless_fresh_and_held_by_one() {
        let folder = std::env::temp_dir().join(format!("local-state-{}", std::process::id()));
        let progress = Progress { matches: 3, ..Progress::default() };
        let first = StateDir::take(&folder, true).expect("folder");
        first.write("progress.json", &progress).expect("write");
        assert!(StateDir::take(&folder, true).is_err());
        drop(first);
        let again = StateDir::take(&folder, false).expect("folder");
        assert_eq!(again.read::<Progress>("progress.json").expect("read"), Some(progress));
        drop(again);
        let fresh = StateDir::take(&folder, true).expect("folder");
        assert_eq!(fresh.read::<Progress>("progress.json").expect("read"), None);
        fs::remove_dir_all(&folder).expect("clean up");
    }
}
