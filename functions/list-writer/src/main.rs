//! The Lambda function `list-writer`: wiring only.

use state::bell::Ring;

struct ListWriter;

impl lambda::Function for ListWriter {
    const NAME: &'static str = "list-writer";
    const USES: lambda::Uses = list_writer::USES;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = lambda::start::<ListWriter>().await?;
    let deps = lambda::deps(&app).await;
    lambda::run(app, move |app, invocation| {
        let deps = deps.clone();
        async move {
            lambda::run_batch(&app, invocation, |message: lambda::Message<Ring>| {
                let deps = deps.clone();
                async move { list_writer::handle(&deps, &message.body, message.deadline_ms).await }
            })
            .await
        }
    })
    .await
}
