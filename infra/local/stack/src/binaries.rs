//! Builds the function binaries.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// The functions' packages, which are also their binaries' names.
pub const FUNCTIONS: [&str; 5] =
    ["create-sync", "cookie-ingest", "audience-ingest", "scheduled-incremental-sync", "list-writer"];

/// Builds the functions with one `cargo build`, with the profile and into the target folder of the running
/// program, and returns the folder that holds them. `progress` gets cargo's lines.
/// Blocks for as long as cargo takes.
pub fn build_functions(progress: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    let place = Place::of(&program)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--bins", "--profile", &place.profile, "--target-dir"]).arg(&place.target);
    command.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../Cargo.toml"));
    for package in FUNCTIONS {
        command.args(["-p", package]);
    }
    // Set by the outer cargo for this program; a build script that watches them would rebuild each time.
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(|key| key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(key);
        }
    }
    command.env("CARGO_TERM_COLOR", "never").env("CARGO_TERM_PROGRESS_WHEN", "never");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo to build the functions")?;
    let output = child.stderr.take().context("cargo's output")?;
    for line in BufReader::new(output).lines() {
        progress(&line.context("cargo's output")?);
    }
    let status = child.wait().context("waiting for cargo")?;
    ensure!(status.success(), "cargo could not build the functions ({status})");
    for binary in FUNCTIONS {
        let path = place.folder.join(binary);
        ensure!(path.is_file(), "cargo built no {}", path.display());
    }
    Ok(place.folder)
}

/// Where cargo put a program.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Target folder.
    target: PathBuf,
    /// Profile's name.
    profile: String,
    /// Folder of the binaries.
    folder: PathBuf,
}

impl Place {
    /// A program is `<target>/<profile>/name`, a test `<target>/<profile>/deps/name`.
    fn of(program: &Path) -> anyhow::Result<Self> {
        let mut folder = program.parent().context("the program has no folder")?;
        if folder.ends_with("deps") || folder.ends_with("examples") {
            folder = folder.parent().context("the program has no folder")?;
        }
        let (Some(target), Some(name)) = (folder.parent(), folder.file_name().and_then(|name| name.to_str())) else {
            bail!("{} is not in a target folder", program.display());
        };
        let profile = if name == "debug" { "dev" } else { name };
        Ok(Self { target: target.to_owned(), profile: profile.to_owned(), folder: folder.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(program: &str) -> (String, String, String) {
        let place = Place::of(Path::new(program)).expect("place");
        (place.target.display().to_string(), place.profile, place.folder.display().to_string())
    }

    #[test]
    fn profile_and_target_come_from_the_program() {
        let words = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(place("/t/debug/local"), words("/t", "dev", "/t/debug"));
        assert_eq!(place("/t/debug/deps/e2e-0a"), words("/t", "dev", "/t/debug"));
        assert_eq!(place("/t/release/local"), words("/t", "release", "/t/release"));
        assert_eq!(place("/t/bench/deps/b"), words("/t", "bench", "/t/bench"));
        assert!(Place::of(Path::new("/")).is_err());
    }
}
