//! Logs that outlive the stacks that wrote them: whoever runs many stacks in folders that are thrown away names one
//! folder in `STACK_LOGS_DIR`, and finds there what all of them have logged, which addresses were asked for, and what
//! callers were told when something went wrong.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use http::Uri;

/// The variable that names the folder.
const LOGS_DIR: &str = "STACK_LOGS_DIR";

/// A fresh folder under [`LOGS_DIR`], if that is set.
pub(crate) fn folder() -> anyhow::Result<Option<PathBuf>> {
    let Some(parent) = std::env::var_os(LOGS_DIR).filter(|folder| !folder.is_empty()) else { return Ok(None) };
    let folder = PathBuf::from(parent).join(uuid::Uuid::new_v4().to_string());
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Some(folder))
}

/// Writes down what no log of AWS's or ours holds, but browsers, proxies and callers keep: the address of each request
/// (`urls.log`) and the body of each answer of 400 or more (`errors.log`).
#[derive(Debug, Clone, Default)]
pub struct Exchanges(Option<Arc<Files>>);

#[derive(Debug)]
struct Files {
    urls: Mutex<File>,
    errors: Mutex<File>,
}

impl Exchanges {
    /// Files in a fresh folder under `STACK_LOGS_DIR`; without that variable nothing is written down.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn open() -> anyhow::Result<Self> {
        folder()?.map(|folder| Self::open_in(&folder)).transpose().map(Option::unwrap_or_default)
    }

    fn open_in(folder: &Path) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let file = OpenOptions::new().create(true).append(true).open(folder.join(name));
            file.map(Mutex::new).with_context(|| format!("cannot write {name}"))
        };
        Ok(Self(Some(Arc::new(Files { urls: file("urls.log")?, errors: file("errors.log")? }))))
    }

    /// Whether anything is written down.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes down an address.
    pub fn url(&self, uri: &Uri) {
        if let Some(files) = &self.0 {
            write(&files.urls, uri.path_and_query().map_or("", |address| address.as_str()).as_bytes());
        }
    }

    /// Writes down what a caller was told.
    pub fn error(&self, body: &[u8]) {
        if let Some(files) = &self.0 {
            write(&files.errors, body);
        }
    }
}

fn write(file: &Mutex<File>, line: &[u8]) {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    // A full disk must not stop the servers.
    file.write_all(&[line, b"\n"].concat()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_errors_are_lines_of_their_files() {
        let folder = tempfile::tempdir().expect("folder");
        let kept = Exchanges::open_in(folder.path()).expect("files");
        assert!(kept.are_kept() && !Exchanges::default().are_kept());
        kept.url(&Uri::from_static("http://host/path?query=1"));
        kept.error(b"{}");
        kept.error(b"why");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        assert_eq!((read("urls.log").as_str(), read("errors.log").as_str()), ("/path?query=1\n", "{}\nwhy\n"));
    }
}
