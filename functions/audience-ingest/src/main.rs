//! The Lambda function `audience-ingest`: wiring only.

use audience_ingest::Receiver;
use lambda::{HttpEvent, http_answer};

struct AudienceIngest;

impl lambda::Function for AudienceIngest {
    const NAME: &'static str = "audience-ingest";
    const USES: lambda::Uses = audience_ingest::USES;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start::<AudienceIngest>().await?;
    let receiver = Receiver::begin(lambda::deps(&app).await).await;
    lambda::run(app, move |_, invocation| {
        let receiver = receiver.clone();
        async move {
            let request = HttpEvent::read(&invocation.event);
            let request = request.ok_or_else(|| anyhow::anyhow!("the event is no HTTP request"))?;
            let answer = receiver.request(&request, &invocation.counts).await;
            Ok(http_answer(answer.status, answer.content_type, &answer.headers, &answer.body))
        }
    })
    .await
}
