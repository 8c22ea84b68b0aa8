//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, ValueExt as _};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Runs audience-sync on this machine alone: a sample world (or your own data), strict doubles of Marketo and Adobe,
and the real functions on embedded DynamoDB, SQS and S3.

cargo run -- [--data DIR] [--once] [--json] [--fresh] [--no-limits] [--port N] [--seed N] [--stack URL]
cargo run -- check [--url URL] [--token TOKEN] [--munchkin-id ID]

  --data DIR    the world comes from this folder (library.json, marketo.json, matches.jsonl, feeds.json, syncs.json,
                incoming/, later.jsonl); its state is kept in DIR/.state, and --once writes DIR/out
  --once        play the whole world, from the beginning and without a browser; exit 0 when everything has settled
  --json        print the reports as JSON; everything else goes to standard error
  --fresh       forget the state that an earlier run kept
  --no-limits   lift Marketo's limits (calls in 20 s, calls in flight, calls a day)
  --port N      port of the page and the API; it must be free (default: 8787, or the next free one)
  --seed N      another sample world (default: 1)
  --stack URL   instead of the embedded stack, the one that the program at this address deploys (tests/emulator)
  --help        this text

check asks a running deployment what is set up and what is not, and prints it row by row: exit 0 all is well or not
seen yet, 1 something is not as it must be, 2 it could not be asked.

  --url URL         the address of its API (default: http://127.0.0.1:8787, the local stack)
  --token TOKEN     the token of an operator or viewer; better in the variable AUDIENCE_SYNC_TOKEN, where no list of
                    processes shows it
  --munchkin-id ID  which Marketo instance, where there are several

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
    /// Who deploys the stack; `None`: the embedded one is started.
    pub(crate) stack: Option<String>,
}

impl Default for Args {
    fn default() -> Self {
        Self { data: None, once: false, json: false, fresh: false, no_limits: false, port: None, seed: 1, stack: None }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// The stack and a world in it.
    Run(Args),
    /// What is set up at a running deployment.
    Check(Check),
    /// The text about all this.
    Help,
}

/// A deployment to be asked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The address of its API.
    pub(crate) url: String,
    /// Who asks.
    pub(crate) token: Option<String>,
    /// About which subscription; `None`: the only one.
    pub(crate) munchkin_id: Option<String>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Check {
    /// The part of the query that names the subscription.
    pub(crate) fn subscription(&self) -> String {
        self.munchkin_id.as_ref().map(|id| format!("&munchkin_id={id}")).unwrap_or_default()
    }
}

/// The address of the local stack.
const LOCAL: &str = "http://127.0.0.1:8787";

/// Reads the command line, without the program's name. `token`: the one of the environment.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>, token: Option<String>) -> Result<Command, String> {
    let mut words = words.into_iter().peekable();
    if words.next_if(|word| word == "check").is_some() {
        return check(words, token);
    }
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
            Arg::Long("stack") => args.stack = Some(text(&mut parser, "--stack takes an address")?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(format!("{}; --help lists the flags", other.unexpected())),
        }
    }
    Ok(Command::Run(args))
}

fn check(words: impl Iterator<Item = OsString>, token: Option<String>) -> Result<Command, String> {
    let mut check = Check { url: LOCAL.to_owned(), token, munchkin_id: None };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Arg::Long("url") => check.url = text(&mut parser, "--url takes an address")?,
            Arg::Long("token") => check.token = Some(text(&mut parser, "--token takes a token")?),
            Arg::Long("munchkin-id") => {
                let id = text(&mut parser, "--munchkin-id takes an id such as 123-ABC-456")?;
                if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                    return Err("--munchkin-id takes an id such as 123-ABC-456".to_owned());
                }
                check.munchkin_id = Some(id);
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(format!("{}; --help lists the flags", other.unexpected())),
        }
    }
    // As a shell leaves it where a variable is not set.
    check.token = check.token.filter(|token| !token.is_empty());
    Ok(Command::Check(check))
}

fn text(parser: &mut lexopt::Parser, expected: &str) -> Result<String, String> {
    parser.value().ok().and_then(|value| value.into_string().ok()).ok_or_else(|| expected.to_owned())
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

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from), Some("of-the-environment".to_owned()))
    }

    #[test]
    fn every_flag_is_read() {
        assert_eq!(read(""), Ok(Command::Run(Args::default())));
        let all = read("--data d --once --json --fresh --no-limits --port 9000 --seed 7 --stack http://127.0.0.1:9")
            .expect("flags");
        let expected = Args {
            data: Some("d".into()),
            once: true,
            json: true,
            fresh: true,
            no_limits: true,
            port: Some(9000),
            seed: 7,
            stack: Some("http://127.0.0.1:9".to_owned()),
        };
        assert_eq!(all, Command::Run(expected));
        assert_eq!(read("--once --help"), Ok(Command::Help));
    }

    #[test]
    fn check_asks_the_local_stack_unless_told_otherwise_and_shows_no_token() {
        let check = |url: &str, token: &str, id: Option<&str>| {
            let (url, token) = (url.to_owned(), Some(token.to_owned()));
            Ok(Command::Check(Check { url, token, munchkin_id: id.map(str::to_owned) }))
        };
        assert_eq!(read("check"), check(LOCAL, "of-the-environment", None));
        let all = "check --url https://api.example.com --token of-the-line --munchkin-id 123-ABC-456";
        assert_eq!(read(all), check("https://api.example.com", "of-the-line", Some("123-ABC-456")));
        assert_eq!(read("check --help"), Ok(Command::Help));
        let read = read(all).expect("flags");
        assert!(!format!("{read:?}").contains("of-the-line"), "{read:?}");
        let Command::Check(check) = read else { panic!("check") };
        assert_eq!(check.subscription(), "&munchkin_id=123-ABC-456");
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        for line in [
            "check --nope",
            "check stray",
            "check --url",
            "check --munchkin-id a&b",
            "--url x",
            "--once check",
            "--nope",
            "stray",
            "--port",
            "--port x",
            "--port 70000",
            "--seed -1",
            "--stack",
            "--data",
            "--once=yes",
        ] {
            let error = read(line).expect_err(line);
            assert!(!error.is_empty() && !error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn help_names_every_flag() {
        for flag in [
            "--data",
            "--once",
            "--json",
            "--fresh",
            "--no-limits",
            "--port",
            "--seed",
            "--stack",
            "--help",
            "--url",
            "--token",
        ] {
            assert!(HELP.contains(flag), "{flag}");
        }
    }
}
