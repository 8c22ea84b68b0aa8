//! The local stack in a process of its own, for the test that kills it with SIGKILL and starts it again on the same
//! folder. The doubles of Marketo and Adobe are not in it: Marketo forgets nothing because we die.
//!
//! Its only argument is JSON: `{"data", "bin", "parameters"}`. It says in a line of JSON where it answers, then answers
//! each line of standard input with a line. It ends when standard input does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use stack::{Options, Port, Stack};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Deserialize)]
struct Asked {
    /// Folder of the state.
    data: PathBuf,
    /// Folder of the function binaries.
    bin: PathBuf,
    /// Template parameters.
    parameters: BTreeMap<String, String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = std::env::args().nth(1).context("an argument")?;
    let asked: Asked = serde_json::from_str(&asked).context("the argument")?;
    let stack = stack::start(Options {
        template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml"),
        data_dir: asked.data,
        bin_dir: asked.bin,
        parameters: asked.parameters,
        port: Port::Exact(0),
        // They are in the log files.
        log: Arc::new(|_| {}),
    })
    .await?;
    let bucket = stack.template().buckets.first().context("a bucket")?.name.clone();
    answer(&json!({"api": stack.url(), "bucket": format!("{}/{bucket}", stack.endpoints().s3)}))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.as_str() {
            "look" => answer(&look(&stack).await)?,
            "tick" => {
                stack.tick().await;
                answer(&Value::Null)?;
            }
            _ => anyhow::bail!("{line:?} is no order"),
        }
    }
    stack.shutdown().await;
    Ok(())
}

/// What is under way: `{"messages", "dead", "running"}`.
async fn look(stack: &Stack) -> Value {
    let (mut messages, mut dead) = (0, vec![]);
    for queue in stack.queues().await {
        let held = queue.visible + queue.in_flight;
        messages += held;
        if queue.dead && held > 0 {
            dead.push(queue.name);
        }
    }
    json!({"messages": messages, "dead": dead, "running": stack.invocations_in_flight()})
}

fn answer(value: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}
