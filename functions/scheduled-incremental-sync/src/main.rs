//! The Lambda function `scheduled-incremental-sync`: wiring only.

use lambda::{Failure, Message};
use scheduled_incremental_sync::{USES, arrivals, arrived, handle, tick};
use serde_json::Value;
use state::Deps;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start("scheduled-incremental-sync", &USES).await?;
    let deps = lambda::deps(&app).await;
    lambda::run(app, move |app, invocation| {
        let deps = deps.clone();
        async move {
            if invocation.event.get("Records").is_none() {
                tick(&deps, invocation.deadline_ms).await?;
                return Ok(Value::Null);
            }
            lambda::run_batch(&app, invocation, |message| one(deps.clone(), message)).await
        }
    })
    .await
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
