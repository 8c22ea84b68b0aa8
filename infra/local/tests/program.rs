//! What the program says to whoever calls it wrongly. With this test beside it, `cargo test --workspace` builds the program, which
//! the end-to-end tests run.

use std::process::Command;

#[test]
fn a_wrong_flag_is_named() {
    let answer = Command::new(env!("CARGO_BIN_EXE_local")).arg("--fastest").output().expect("an answer");
    let said = String::from_utf8(answer.stderr).expect("text");
    assert!(answer.status.code() == Some(2) && said.contains("--fastest"), "{said}");
}
