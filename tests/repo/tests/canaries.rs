//! The step of `.ci/run` that looks for personal values can fail.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::read;

fn look_at(paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_canaries")).args(paths).output().expect("the program")
}

#[test]
fn a_planted_line_fails_the_step_and_is_not_repeated() {
    let folder = TempDir::new().expect("folder");
    let logs = folder.path().join("stack-1");
    std::fs::create_dir(&logs).expect("folder");
    std::fs::write(logs.join("api.log"), "{\"status\":\"204\"}\n").expect("log");
    let clean = look_at(&[folder.path()]);
    assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    assert_eq!(clean.stdout, b"1 lines in 1 files, 0 personal\n");

    let ecid = "00000000000000000000000000000000000007";
    std::fs::write(logs.join("cookie-ingest.log"), format!("started\nfound {ecid}\n")).expect("log");
    let planted = look_at(&[folder.path()]);
    assert_eq!(planted.status.code(), Some(1));
    let said = String::from_utf8(planted.stderr).expect("text");
    assert!(said.contains("cookie-ingest.log:2: an ECID") && !said.contains(ecid), "{said}");
}

#[test]
fn logs_that_are_missing_or_empty_fail_the_step() {
    let folder = TempDir::new().expect("folder");
    assert_eq!(look_at(&[folder.path()]).status.code(), Some(2));
    assert_eq!(look_at(&[&folder.path().join("nowhere")]).status.code(), Some(2));
    assert_eq!(look_at(&[]).status.code(), Some(2));
}

#[test]
fn the_gate_looks_at_the_logs_of_its_whole_test_run() {
    let gate = read(".ci/run");
    let set = gate.find("export STACK_LOGS_DIR=").expect(".ci/run keeps the stacks' logs");
    let tests = gate.find("$tests --locked").expect(".ci/run runs the tests");
    let find = |step: &str| gate.find(step).unwrap_or_else(|| panic!(".ci/run has no step {step}"));
    let look = find("\"$bin/canaries\" \"$STACK_LOGS_DIR\"");
    assert!(set < tests && tests < look && tests < find("\"$bin/permissions\" \"$STACK_LOGS_DIR\""));
}
