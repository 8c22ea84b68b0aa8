//! What the program says to whoever calls it wrongly. With this test beside it, `cargo test --workspace` builds the program, for
//! the gate's comparisons.

use std::process::Command;

#[test]
fn a_wrong_word_is_answered_with_what_there_is() {
    let bench = || Command::new(env!("CARGO_BIN_EXE_bench"));
    let answer = bench().arg("fastest").output().expect("an answer");
    let said = String::from_utf8(answer.stderr).expect("text");
    assert_eq!(answer.status.code(), Some(2), "{said}");
    assert!(said.starts_with("usage: ") && said.contains("versus-duckdb"), "{said}");
    let answer = bench().args(["cost", "--views", "many"]).output().expect("an answer");
    let said = String::from_utf8(answer.stderr).expect("text");
    assert!(answer.status.code() == Some(1) && said.contains("--views"), "{said}");
}
