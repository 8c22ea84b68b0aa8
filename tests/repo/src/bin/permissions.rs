//! `cargo run -p repo --bin permissions -- FOLDER`: compares what the template allows the functions with what they were seen
//! to ask of AWS by the stacks that kept their logs in FOLDER. Exit codes: 0 they agree, 1 they do not, 2 there is nothing to
//! compare.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use repo::permissions::{allowed, called, differences};

fn main() -> ExitCode {
    let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        writeln!(errors, "error: name the folder of the logs").ok();
        return ExitCode::from(2);
    };
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
    let read = || -> Result<_, String> {
        let template = std::fs::read_to_string(template).map_err(|error| format!("the template: {error}"))?;
        Ok((allowed(&template)?, called(&folder).map_err(|error| format!("{}: {error}", folder.display()))?))
    };
    let (allowed, called) = match read() {
        Ok(both) => both,
        Err(error) => {
            writeln!(errors, "error: {error}").ok();
            return ExitCode::from(2);
        }
    };
    if called.is_empty() {
        writeln!(errors, "error: {} holds no calls", folder.display()).ok();
        return ExitCode::from(2);
    }
    let differences = differences(&allowed, &called);
    for line in &differences {
        writeln!(errors, "{line}").ok();
    }
    writeln!(out, "{} allowed, {} called, {} differences", allowed.len(), called.len(), differences.len()).ok();
    if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
