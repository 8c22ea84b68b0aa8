//! The script that puts credentials into secrets, with a double of the AWS CLI.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::root;

/// Knows secrets as files of its folder, notes its words in `words`, and takes values from standard input only. A file `deleted-…`
/// says that the secret is scheduled for deletion: it is still described, and takes nothing.
const AWS: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$@" >>"$folder/words"
value() { [ "$5" = "--secret-string" ] && [ "$6" = "file:///dev/stdin" ] && cat; }
name=$(echo "$4" | tr / -)
file=$folder/secret-$name deleted=
[ ! -f "$folder/deleted-$name" ] || deleted=2026-11-23T08:00:00.123000+01:00
arn=arn:aws:secretsmanager:eu-north-1:111122223333:secret:$4-AbCdEf
case "$2" in
    describe-secret)
        [ -f "$file" ] || exit 254
        [ "$6" != "[ARN, DeletedDate]" ] || arn="$arn	${deleted:-None}" ;;
    create-secret) [ ! -f "$file" ] || exit 254; value "$@" >"$file" || exit 252 ;;
    put-secret-value) [ -f "$file" ] && [ -z "$deleted" ] || exit 254; value "$@" >"$file" || exit 252 ;;
    *) exit 252 ;;
esac
echo "$arn"
"#;

fn folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let aws = folder.path().join("aws");
    std::fs::write(&aws, AWS).expect("written");
    std::fs::set_permissions(&aws, std::fs::Permissions::from_mode(0o755)).expect("may run");
    folder
}

/// What it prints when this is typed.
fn typed(folder: &TempDir, lines: &str) -> Output {
    let path = std::env::var("PATH").expect("PATH");
    let mut child = Command::new(root().join("infra/secrets"))
        .arg("carts")
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the script");
    child.stdin.take().expect("standard input").write_all(lines.as_bytes()).expect("typed");
    child.wait_with_output().expect("its end")
}

fn stored(folder: &TempDir, name: &str) -> Value {
    let text = std::fs::read_to_string(folder.path().join(format!("secret-carts-{name}"))).expect("a secret");
    serde_json::from_str(&text).expect("JSON")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn credentials_go_into_two_secrets_and_are_shown_nowhere() {
    let folder = folder();
    let output = typed(&folder, "marketo-id\nmarketo \"quoted\\secret\nadobe-id\nadobe-secret\n");
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let arn = |name: &str| format!("arn:aws:secretsmanager:eu-north-1:111122223333:secret:carts/{name}-AbCdEf");
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [format!("MarketoSecretArn={}", arn("marketo")), format!("AdobeSecretArn={}", arn("adobe"))]
    );
    let marketo = stored(&folder, "marketo");
    assert_eq!(marketo["client_id"], "marketo-id");
    assert_eq!(marketo["client_secret"], "marketo \"quoted\\secret");
    assert_eq!(stored(&folder, "adobe")["client_secret"], "adobe-secret");
    let words = std::fs::read_to_string(folder.path().join("words")).expect("what the CLI was told");
    for shown in [&words, &printed, &text(&output.stderr)] {
        assert!(!shown.contains("secret\n") && !shown.contains("quoted"), "{shown}");
    }

    // Rotated; and left alone.
    let output = typed(&folder, "\nadobe-id\nanother\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert_eq!(stored(&folder, "adobe")["client_secret"], "another");
    assert_eq!(stored(&folder, "marketo")["client_id"], "marketo-id");
}

#[test]
fn an_empty_secret_is_an_error_that_says_so() {
    let folder = folder();
    let output = typed(&folder, "marketo-id\n\n");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("the client secret of Marketo is empty"), "{}", text(&output.stderr));
    let output = typed(&folder, "\n");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("there is no secret carts/marketo yet"), "{}", text(&output.stderr));
}

#[test]
fn a_secret_that_is_scheduled_for_deletion_takes_nothing_until_it_is_restored() {
    let folder = folder();
    assert!(typed(&folder, "marketo-id\nmarketo-secret\nadobe-id\nadobe-secret\n").status.success());
    let mark = folder.path().join("deleted-carts-marketo");
    std::fs::write(&mark, "").expect("written");
    for lines in ["another-id\nanother\n\n", "\n\n"] {
        let output = typed(&folder, lines);
        let said = text(&output.stderr);
        assert!(!output.status.success());
        assert_eq!(text(&output.stdout), "", "no parameter names it");
        assert!(
            said.contains("the secret carts/marketo is scheduled for deletion; nothing was stored for Marketo"),
            "{said}"
        );
        assert!(said.contains("aws secretsmanager restore-secret --secret-id carts/marketo\n"), "{said}");
        assert_eq!(stored(&folder, "marketo")["client_id"], "marketo-id");
    }

    // Restored; and the other one is deleted.
    std::fs::rename(mark, folder.path().join("deleted-carts-adobe")).expect("renamed");
    let output = typed(&folder, "another-id\nanother\n\n");
    assert!(!output.status.success());
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert!(
        text(&output.stderr).contains("the secret carts/adobe is scheduled for deletion"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(stored(&folder, "marketo")["client_id"], "another-id");
}
