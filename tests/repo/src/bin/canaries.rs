//! `cargo run -p repo --bin canaries -- PATH...`: looks for personal values in files and folders of logs. Exit codes:
//! 0 nothing was found, 1 something was, 2 there was nothing to look at or it cannot be read.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use repo::canaries::{Looked, look};

fn main() -> ExitCode {
    let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
    let mut looked = Looked::default();
    for path in std::env::args_os().skip(1) {
        let before = looked.lines;
        if let Err(error) = look(Path::new(&path), &mut looked) {
            writeln!(errors, "error: {}: {error}", path.display()).ok();
            return ExitCode::from(2);
        }
        // Logs that are not there say nothing about what would be in them.
        if looked.lines == before {
            writeln!(errors, "error: {} holds no line", path.display()).ok();
            return ExitCode::from(2);
        }
    }
    for (path, line, what) in &looked.found {
        writeln!(errors, "{}:{line}: {what}", path.display()).ok();
    }
    writeln!(out, "{} lines in {} files, {} personal", looked.lines, looked.files, looked.found.len()).ok();
    if looked.lines == 0 {
        return ExitCode::from(2);
    }
    if looked.found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
