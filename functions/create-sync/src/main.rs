//! The Lambda function `create-sync`: wiring only.

use create_sync::{Request, handle, resume};
use lambda::{HttpEvent, http_answer};
use serde_json::Value;

struct CreateSync;

impl lambda::Function for CreateSync {
    const NAME: &'static str = "create-sync";
    const USES: lambda::Uses = create_sync::USES;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start::<CreateSync>().await?;
    let deps = lambda::deps(&app).await;
    lambda::run(app, move |app, invocation| {
        let deps = deps.clone();
        async move {
            let Some(event) = HttpEvent::read(&invocation.event) else {
                resume(&deps).await?;
                return Ok(Value::Null);
            };
            let request = Request::of(event, app.config.access.as_ref());
            let answer = handle(&deps, request, invocation.deadline_ms).await;
            Ok(http_answer(answer.status, answer.content_type, &answer.headers, &answer.body))
        }
    })
    .await
}
