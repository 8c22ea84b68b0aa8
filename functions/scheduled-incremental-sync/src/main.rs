//! The Lambda function `scheduled-incremental-sync`: wiring only.

use lambda::{Failure, Message};
use scheduled_incremental_sync::{arrivals, arrived, handle, heard, tick};
use serde_json::Value;
use state::Deps;
use state::feeds::Events;

struct ScheduledIncrementalSync;

impl lambda::Function for ScheduledIncrementalSync {
    const NAME: &'static str = "scheduled-incremental-sync";
    const USES: lambda::Uses = scheduled_incremental_sync::USES;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start::<ScheduledIncrementalSync>().await?;
    let deps = lambda::deps(&app).await;
    lambda::run(app, move |app, invocation| {
        let deps = deps.clone();
        async move {
            if invocation.event.get("Records").is_none() {
                tick(&deps, invocation.deadline_ms).await?;
                return Ok(Value::Null);
            }
            if is_of_streams(&invocation.event) {
                return lambda::run_together(&app, invocation, |messages| all(deps, messages)).await;
            }
            lambda::run_batch(&app, invocation, |message| one(deps.clone(), message)).await
        }
    })
    .await
}

/// Whether a batch is of the queue of entries of streams. An event is of one queue.
fn is_of_streams(event: &Value) -> bool {
    let source = event["Records"][0]["eventSourceARN"].as_str().unwrap_or_default();
    source.ends_with("-events")
}

/// What streams said, together.
async fn all(deps: Deps, messages: Vec<Message<Events>>) -> Result<(), Failure> {
    let fresh = messages.iter().all(|message| message.receives == 1);
    let events: Vec<Events> = messages.into_iter().map(|message| message.body).collect();
    heard(&deps, &events, fresh).await
}

/// A ring, or a notification of the bucket.
async fn one(deps: Deps, message: Message<Value>) -> Result<(), Failure> {
    if let Some(arrivals) = arrivals(&message.body) {
        for arrival in arrivals {
            arrived(&deps, &arrival, message.deadline_ms).await?;
        }
        return Ok(());
    }
    let ring = serde_json::from_value(message.body).map_err(|_| Failure::fail("neither a ring nor a notification"))?;
    handle(&deps, &ring, message.deadline_ms).await
}
