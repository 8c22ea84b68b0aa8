//! The Lambda function `cookie-ingest`: wiring only.

use cookie_ingest::{Ingest, Message, store};
use lambda::{HttpEvent, http_answer};

struct CookieIngest;

impl lambda::Function for CookieIngest {
    const NAME: &'static str = "cookie-ingest";
    const USES: lambda::Uses = cookie_ingest::USES;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start::<CookieIngest>().await?;
    let deps = lambda::deps(&app).await;
    let ingest = Ingest::new(deps.clone());
    lambda::run(app, move |_, invocation| {
        let (ingest, deps) = (ingest.clone(), deps.clone());
        async move {
            match HttpEvent::read(&invocation.event) {
                Some(request) => {
                    let answer = ingest.request(&request, &invocation.counts).await?;
                    Ok(http_answer(answer.status, answer.content_type, &answer.headers, &answer.body))
                }
                None => {
                    let counts = invocation.counts.clone();
                    let take = |messages: Vec<Message>| async move { store(&deps, &messages, &counts).await };
                    lambda::run_whole(invocation, take).await
                }
            }
        }
    })
    .await
}
