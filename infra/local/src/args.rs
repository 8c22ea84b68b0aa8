//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, ValueExt as _};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Runs audience-sync on this machine alone: a sample world (or your own data), strict doubles of Marketo and Adobe,
and the real functions on embedded DynamoDB, SQS and S3.

cargo run -- [--data DIR] [--once] [--json] [--fresh] [--no-limits] [--port N] [--seed N]

  --data DIR    the world comes from this folder (library.json, marketo.json, matches.jsonl, feeds.json, syncs.json,
                incoming/, later.jsonl); its state is kept in DIR/.state, and --once writes DIR/out
  --once        play the whole world, from the beginning and without a browser; exit 0 when everything has settled
  --json        print the reports as JSON; everything else goes to standard error
  --fresh       forget the state that an earlier run kept
  --no-limits   lift Marketo's limits (calls in 20 s, calls in flight, calls a day)
  --port N      port of the page and the API; it must be free (default: 8787, or the next free one)
  --seed N      another sample world (default: 1)
  --help        this text

The local world's clock runs twenty times as fast as the real one: what takes a minute in AWS takes three seconds
here, and Marketo's 100 calls in 20 s are 100 calls in 1 s.
";

/// Flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    /// Data folder; `None`: the sample world.
    pub(crate) data: Option<PathBuf>,
    pub(crate) once: bool,
    pub(crate) json: bool,
    pub(crate) fresh: bool,
    pub(crate) no_limits: bool,
    /// `None`: the default, or the next free one.
    pub(crate) port: Option<u16>,
    pub(crate) seed: u64,
}

impl Default for Args {
    fn default() -> Self {
        Self { data: None, once: false, json: false, fresh: false, no_limits: false, port: None, seed: 1 }
    }
}

/// Reads the command line, without the program's name. `None`: help was asked for.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Option<Args>, String> {
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Arg::Long("data") => {
                args.data = Some(PathBuf::from(parser.value().map_err(|_| "--data takes a folder".to_owned())?));
            }
            Arg::Long("once") => args.once = true,
            Arg::Long("json") => args.json = true,
            Arg::Long("fresh") => args.fresh = true,
            Arg::Long("no-limits") => args.no_limits = true,
            Arg::Long("port") => args.port = Some(number(&mut parser, "--port takes a number from 0 to 65535")?),
            Arg::Long("seed") => args.seed = number(&mut parser, "--seed takes a whole number")?,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(format!("{}; --help lists the flags", other.unexpected())),
        }
    }
    Ok(Some(args))
}

fn number<T: std::str::FromStr>(parser: &mut lexopt::Parser, expected: &str) -> Result<T, String>
where
    T::Err: Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
{
    parser.value().and_then(|value| value.parse()).map_err(|_| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Args>, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_flag_is_read() {
        assert_eq!(read(""), Ok(Some(Args::default())));
        let all = read("--data d --once --json --fresh --no-limits --port 9000 --seed 7").expect("flags");
        let expected = Args {
            data: Some("d".into()),
            once: true,
            json: true,
            fresh: true,
            no_limits: true,
            port: Some(9000),
            seed: 7,
        };
        assert_eq!(all, Some(expected));
        assert_eq!(read("--once --help"), Ok(None));
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        for line in ["--nope", "stray", "--port", "--port x", "--port 70000", "--seed -1", "--data", "--once=yes"] {
            let error = read(line).expect_err(line);
            assert!(!error.is_empty() && !error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn help_names_every_flag() {
        for flag in ["--data", "--once", "--json", "--fresh", "--no-limits", "--port", "--seed", "--help"] {
            assert!(HELP.contains(flag), "{flag}");
        }
    }
}
