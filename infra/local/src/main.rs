//! `cargo run`: the whole of audience-sync on this machine, with doubles of Marketo and Adobe.
//!
//! The world is a generated sample or a folder of one's own. Exit codes: 0 done, 1 it went wrong or did not settle,
//! 2 a wrong flag or a faulty data folder, 130 stopped by the user before the end. `check` has codes of its own.

mod api;
mod args;
mod check;
mod deployment;
mod feeds;
mod play;
mod reports;
mod screen;
mod settle;
mod state;

use std::io::Write as _;
use std::process::ExitCode;

use args::Command;
use play::{Local, Prepared};
use screen::Screen;

/// The user stopped a run that had not come to its end (128 + SIGINT).
const STOPPED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1), std::env::var("AUDIENCE_SYNC_TOKEN").ok()) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Check(check)) => return check::run(&check).await,
        Ok(Command::Help) => {
            std::io::stdout().write_all(args::HELP.as_bytes()).ok();
            return ExitCode::SUCCESS;
        }
        Err(error) => return wrong(&error),
    };
    let screen = Screen::new(args.json);
    match run(args, &screen).await {
        Ok(code) => code,
        Err(error) => match error.downcast::<play::Faulty>() {
            Ok(faulty) => wrong(&faulty.0),
            Err(error) => {
                screen.say(&format!("error: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

fn wrong(error: &str) -> ExitCode {
    for line in error.lines() {
        // Without a terminal nobody reads it; the exit code says the same.
        writeln!(std::io::stderr(), "error: {line}").ok();
    }
    ExitCode::from(2)
}

async fn run(args: args::Args, screen: &Screen) -> anyhow::Result<ExitCode> {
    let once = args.once;
    let prepared = tokio::select! {
        prepared = Prepared::new(args, screen) => prepared?,
        () = asked_to_stop() => return Ok(ExitCode::from(STOPPED)),
    };
    let mut local = Local::start(prepared, screen).await?;
    let ended = tokio::select! {
        ended = local.play() => Some(ended),
        () = asked_to_stop() => None,
    };
    if !once && matches!(ended, Some(Ok(()))) {
        local.invite();
        asked_to_stop().await;
    }
    if ended.is_none() || !once {
        screen.step("Stopping; the state is kept");
    }
    local.stop().await?;
    match ended {
        Some(ended) => ended.map(|()| ExitCode::SUCCESS),
        None => Ok(ExitCode::from(STOPPED)),
    }
}

/// Ctrl-C, or the signal that asks a process to end.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    tokio::signal::ctrl_c().await.ok();
}
