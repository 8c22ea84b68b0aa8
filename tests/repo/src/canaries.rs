//! Personal values of the tests' own worlds, looked for where none may be: in log lines, metrics, access logs, errors
//! and what the test run prints. Bodies of messages and items are no logs.
//!
//! A step of `.ci/run` looks through everything that its test run has left behind. Every stack writes its logs once
//! more under `STACK_LOGS_DIR`, if that is set.

use std::path::{Path, PathBuf};

/// Digits of an ECID.
const ECID_DIGITS: usize = 38;
/// Secrets of the local stack and what begins or holds the tokens and cookies of its world.
const TEXTS: [(&str, &str); 9] = [
    ("sample-secret", "a client secret"),
    ("local-secret", "a secret access key"),
    ("eyJhbGciOi", "an access token of Adobe"),
    ("00000000-1111-2222-3333-", "an access token of Marketo"),
    ("Bearer ", "an authorization header"),
    ("id:123-ABC-456&token:", "a Marketo cookie"),
    ("id%3A123-ABC-456%26token%3A", "a Marketo cookie"),
    ("kndctr_0123456789ABCDEF01234567_AdobeOrg_identity=", "an Adobe cookie"),
    ("MCMID|", "an Adobe cookie"),
];

/// What a line holds that must not be there; `None`: nothing.
#[must_use]
pub fn personal(line: &str) -> Option<&'static str> {
    if line.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() == ECID_DIGITS) {
        return Some("an ECID");
    }
    // In a log even the bare name of the cookie or the beginning of a token says that somebody printed too much.
    if line.match_indices("_mch-").any(|(at, found)| names_a_value(&line[at + found.len()..])) {
        return Some("a Munchkin token");
    }
    if line.match_indices("_mkto_trk").any(|(at, found)| line[at + found.len()..].starts_with(['=', ':', '"'])) {
        return Some("a Marketo cookie");
    }
    let line = &line.replace("%40", "@");
    if line.match_indices('@').any(|(at, _)| is_email(&line[..at], &line[at + 1..])) {
        return Some("an email address");
    }
    TEXTS.into_iter().find(|(text, _)| line.contains(text)).map(|(_, what)| what)
}

/// A token's text goes on with a host or digits; `_mch-…` in a sentence does not.
fn names_a_value(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_email(before: &str, after: &str) -> bool {
    let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let end = after.find(|c: char| !host(c)).unwrap_or(after.len());
    let top = after[..end].trim_end_matches('.').rsplit_once('.').map_or("", |(_, top)| top);
    before.ends_with(|c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c))
        && top.len() >= 2
        && top.chars().all(|c| c.is_ascii_alphabetic())
}

/// What was looked at, and what was found in it.
#[derive(Debug, Default)]
pub struct Looked {
    /// Files.
    pub files: usize,
    /// Lines.
    pub lines: usize,
    /// File and line of each find, and what it is: never the line itself.
    pub found: Vec<(PathBuf, usize, &'static str)>,
}

/// Looks through a file, or through all files under a folder.
///
/// # Errors
/// When something cannot be read.
pub fn look(path: &Path, looked: &mut Looked) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            look(&entry?.path(), looked)?;
        }
        return Ok(());
    }
    looked.files += 1;
    let bytes = std::fs::read(path)?;
    for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        looked.lines += 1;
        if let Some(what) = personal(line) {
            looked.found.push((path.to_owned(), index + 1, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line of each kind, as a careless log would hold it.
    const PLANTED: [&str; 13] = [
        r#"{"level":"WARN","message":"bad row","ecid":"00000000000000000000000000000000000001"}"#,
        "duplicate 12345678901234567890123456789012345678,",
        r#"{"message":"looking at _mch-example.com-1793000000000-10003"}"#,
        "GET /people/someone%40x?token=_mch-1",
        "cookie: _mkto_trk=x",
        r#"{"_mkto_trk":"x"}"#,
        "lead anna@example.com is known",
        "/leads?filterValues=anna%40example.com",
        r#"{"email":"b.c+d@mail.example.co"}"#,
        "client_secret=sample-secret",
        "Authorization: Bearer x",
        "cookie id:123-ABC-456&token:x",
        "AMCV MCMID|1",
    ];

    const HARMLESS: [&str; 9] = [
        r#"{"function":"cookie-ingest","outcome":"ok","duration_ms":3,"beacon_new":1}"#,
        r#"{"requestTimeEpoch":"1795320000000","routeKey":"POST /beacon","status":"204"}"#,
        "test cookie::tests::a_mkto_trk_value_is_read ... ok",
        "expected a Munchkin token (_mch-…) or the value of the cookie _mkto_trk",
        "org 0123456789ABCDEF01234567@AdobeOrg",
        "1234567890123456789012345678901234567 has 37 digits",
        "123456789012345678901234567890123456789 has 39",
        "Compiling thing v1.0.0 (git+https://host/@scope/thing@1.2.3)",
        "arn:aws:sqs:us-east-1:000000000000:local-matches",
    ];

    #[test]
    fn what_is_planted_is_found_and_what_is_harmless_is_not() {
        for line in PLANTED {
            assert!(personal(line).is_some(), "{line}");
        }
        for line in HARMLESS {
            assert_eq!(personal(line), None, "{line}");
        }
    }
}
