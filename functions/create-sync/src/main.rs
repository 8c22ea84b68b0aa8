//! The Lambda function `create-sync`: wiring only.

use create_sync::{Caller, Request, SignIn, USES, handle, resume};
use lambda::{HttpEvent, http_answer};
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start("create-sync", &USES).await?;
    let deps = lambda::deps(&app).await;
    lambda::run(app, move |app, invocation| {
        let deps = deps.clone();
        async move {
            let Some(event) = HttpEvent::read(&invocation.event) else {
                resume(&deps).await?;
                return Ok(Value::Null);
            };
            let query = form_urlencoded::parse(event.query.as_bytes()).into_owned().collect();
            let access = app.config.access.as_ref();
            let caller = Caller::of(access, event.claims.as_ref(), event.header("authorization"));
            let sign_in = SignIn::of(access);
            let HttpEvent { method, path, headers, body, .. } = event;
            let request = Request { method, path, query, headers, body, caller, sign_in };
            let answer = handle(&deps, request, invocation.deadline_ms).await;
            Ok(http_answer(answer.status, answer.content_type, &answer.headers, &answer.body))
        }
    })
    .await
}
