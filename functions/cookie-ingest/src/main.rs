//! The Lambda function `cookie-ingest`: wiring only.

use cookie_ingest::{Match, post_matches, store};
use lambda::{HttpEvent, http_answer};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start("cookie-ingest", &cookie_ingest::USES).await?;
    let deps = lambda::deps(&app).await;
    lambda::run(app, move |_, invocation| {
        let deps = deps.clone();
        async move {
            match HttpEvent::read(&invocation.event) {
                Some(request) => {
                    let answer = post_matches(&deps, &request.body).await?;
                    Ok(http_answer(answer.status, "application/json", &[], answer.body.to_string().as_bytes()))
                }
                None => {
                    lambda::run_whole(invocation, |matches: Vec<Match>| async move { store(&deps, &matches).await })
                        .await
                }
            }
        }
    })
    .await
}
