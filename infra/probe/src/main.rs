//! `cargo run -p probe -- --list <id> --lead <id>`: may bulk import be switched on for this Marketo instance?

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use lexopt::{Arg, ValueExt as _};
use ports::Credentials;
use probe::{Instance, probe};

const HELP: &str = "\
Asks a live Marketo instance whether bulk import may be switched on for it (bulk_import_above of PUT /subscription).

cargo run -p probe -- --list ID --lead ID

  --list ID   a static list to try it with: the person joins it
  --lead ID   a person who is not in that list

MARKETO_BASE_URL, MARKETO_CLIENT_ID and MARKETO_CLIENT_SECRET stand in the environment. It takes about six calls of the
day's quota and a minute or more. Exit status: 0 it may, 1 it may not, 2 nothing was found out.
";

fn arguments() -> anyhow::Result<Option<(u64, u64)>> {
    let (mut list, mut lead) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("list") => list = Some(parser.value()?.parse()?),
            Arg::Long("lead") => lead = Some(parser.value()?.parse()?),
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some((list.context("--list is missing")?, lead.context("--lead is missing")?)))
}

fn variable(name: &'static str) -> anyhow::Result<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| format!("{name} is not set"))
}

fn say(text: &str) {
    // Whoever closed the output does not want to know.
    writeln!(std::io::stdout(), "{text}").unwrap_or_default();
}

async fn run() -> anyhow::Result<ExitCode> {
    let Some((list, lead)) = arguments()? else {
        say(HELP);
        return Ok(ExitCode::SUCCESS);
    };
    let instance = Instance {
        url: variable("MARKETO_BASE_URL")?,
        credentials: Credentials::new(variable("MARKETO_CLIENT_ID")?, variable("MARKETO_CLIENT_SECRET")?),
        time_scale: 1.0,
    };
    let verdict = probe(instance, list, lead, &mut say).await?;
    if verdict.works {
        say(&format!("Bulk import may be switched on: {}.", verdict.why));
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("Leave bulk import off: {}.", verdict.why));
    Ok(ExitCode::from(1))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        writeln!(std::io::stderr(), "Nothing was found out: {error:#}").unwrap_or_default();
        ExitCode::from(2)
    })
}
