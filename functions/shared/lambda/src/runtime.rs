//! The loop with Lambda.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use ports::{Clock, PortResult, Ports};
use serde_json::Value;
use tracing::Instrument;

use crate::batch::Visibility;
use crate::config::{Config, Uses};
use crate::telemetry::{self, Counts, Names, emf_line};

/// What a function has for as long as its process lives.
#[derive(Clone)]
pub struct App {
    /// The function's name, as in the README.
    pub function: &'static str,
    /// Its environment.
    pub config: Arc<Config>,
    /// Everything that a handler may touch.
    pub ports: Ports,
    /// When a message returns.
    pub visibility: Arc<dyn Visibility>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "App({})", self.function)
    }
}

/// One invocation.
pub struct Invocation {
    /// The event as it came. May hold personal values.
    pub event: Value,
    /// When the platform ends this invocation, in milliseconds since the epoch.
    pub deadline_ms: u64,
    /// What goes into the invocation's wide event.
    pub counts: Counts,
}

impl std::fmt::Debug for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invocation").field("deadline_ms", &self.deadline_ms).finish_non_exhaustive()
    }
}

/// A function, as its `main` declares it. What it does not use is not linked into it.
pub trait Function {
    /// Its name, as in the README.
    const NAME: &'static str;
    /// What it uses.
    const USES: Uses;
}

struct Parts<F>(PhantomData<F>);

impl<F: Function> aws::Parts for Parts<F> {
    const BUCKET: bool = F::USES.bucket;
    const HTTP: bool = F::USES.marketo || F::USES.adobe || F::USES.alerts;
    const SECRETS: bool = F::USES.marketo || F::USES.adobe || F::USES.streams;
    const BUS: bool = F::USES.alerts;
}

/// Everything before the first invocation: environment, log, panic hook, clients, connections.
///
/// # Errors
/// When a variable is missing or malformed (named in the error), or a client cannot be made.
pub async fn start<F: Function>() -> anyhow::Result<App> {
    let config = F::USES.load(|name| std::env::var(name).ok())?;
    telemetry::init(config.log_level);
    let aws::Wiring { ports, queues } = aws::connect::<Parts<F>>(config.secrets(), config.streams.clone()).await?;
    Ok(App { function: F::NAME, config: Arc::new(config), ports, visibility: Arc::new(SqsVisibility(queues)) })
}

/// Asks Lambda for events, one at a time, until the platform ends the process.
///
/// # Errors
/// When the connection with Lambda breaks, or `handler` cannot go on.
pub async fn run<H, F>(app: App, handler: H) -> anyhow::Result<()>
where
    H: Fn(App, Invocation) -> F,
    F: Future<Output = anyhow::Result<Value>> + Send,
{
    let deployed = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let names = Names { function: app.function, deployed: &deployed };
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        let span = tracing::info_span!("invocation", request.id = event.context.request_id);
        let handle = |invocation| handler(app.clone(), invocation);
        let LambdaEvent { payload, context } = event;
        invoke(names, &*app.ports.clock, payload, context.deadline, handle, telemetry::print_line).instrument(span)
    }))
    .await
    .map_err(|error| anyhow::anyhow!("the Lambda runtime ended: {error}"))
}

/// One invocation: the handler, its error or panic, its wide event.
async fn invoke<F>(
    names: Names<'_>,
    clock: &dyn Clock,
    event: Value,
    deadline_ms: u64,
    handle: impl FnOnce(Invocation) -> F,
    print: impl Fn(&str),
) -> Result<Value, Diagnostic>
where
    F: Future<Output = anyhow::Result<Value>>,
{
    let began = clock.now_ms();
    let counts = Counts::default();
    let invocation = Invocation { event, deadline_ms, counts: counts.clone() };
    // Called inside the future, so that a panic before the first await is caught too.
    let handled = AssertUnwindSafe(async { handle(invocation).await }).catch_unwind().await;
    let (outcome, answer) = match handled {
        Ok(Ok(answer)) => ("ok", Ok(answer)),
        Ok(Err(error)) => {
            // The one place that logs the chain; the platform gets the outermost text only.
            tracing::error!(error = format!("{error:#}"), "the invocation failed");
            ("error", Err(error.to_string()))
        }
        // The hook has told where; the panic's own text may quote a payload and goes nowhere.
        Err(_) => ("panic", Err("the handler panicked".to_owned())),
    };
    print(&emf_line(names, outcome, began, clock.now_ms().saturating_sub(began), &counts));
    answer.map_err(|error_message| Diagnostic { error_type: outcome.to_owned(), error_message })
}

/// [`Visibility`] over SQS.
struct SqsVisibility(Arc<aws::SqsQueues>);

#[async_trait]
impl Visibility for SqsVisibility {
    async fn hide(&self, queue_arn: &str, receipt_handle: &str, seconds: u64) -> PortResult<()> {
        self.0.set_visibility(queue_arn, receipt_handle, seconds).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

    /// Each reading is 5 ms after the one before.
    struct Ticking(Mutex<u64>);

    #[async_trait]
    impl Clock for Ticking {
        fn now_ms(&self) -> u64 {
            let mut now = self.0.lock().expect("no panic");
            *now += 5;
            *now
        }

        async fn sleep_ms(&self, _: u64) {}
    }

    /// The answer and the wide event of one invocation.
    async fn invoked<F>(handle: impl FnOnce(Invocation) -> F) -> (Result<Value, Diagnostic>, Value)
    where
        F: Future<Output = anyhow::Result<Value>>,
    {
        let (clock, lines) = (Ticking(Mutex::new(0)), Mutex::new(Vec::new()));
        let print = |line: &str| lines.lock().expect("no panic").push(line.to_owned());
        let names = Names { function: "list-writer", deployed: "" };
        let answer = invoke(names, &clock, json!({"a": 1}), 99, handle, print).await;
        let lines = lines.into_inner().expect("no panic");
        assert_eq!(lines.len(), 1, "one wide event an invocation");
        (answer, serde_json::from_str(&lines[0]).expect("JSON"))
    }

    #[tokio::test]
    async fn every_invocation_leaves_one_wide_event() {
        let (answer, event) = invoked(async |invocation: Invocation| {
            invocation.counts.add("records", 4);
            assert_eq!(invocation.deadline_ms, 99);
            Ok(invocation.event)
        })
        .await;
        assert_eq!(answer.expect("an answer"), json!({"a": 1}));
        assert_eq!((&event["outcome"], &event["records"], &event["duration_ms"]), (&json!("ok"), &json!(4), &json!(5)));

        let (answer, event) = invoked(async |invocation: Invocation| {
            invocation.counts.add("records", 1);
            Err(anyhow::anyhow!("inner").context("outer"))
        })
        .await;
        let diagnostic = answer.expect_err("failed");
        assert_eq!((diagnostic.error_type.as_str(), diagnostic.error_message.as_str()), ("error", "outer"));
        assert_eq!((&event["outcome"], &event["records"]), (&json!("error"), &json!(1)));
    }

    #[tokio::test]
    async fn a_panic_fails_the_invocation_without_its_text() {
        let at_once = |_| -> std::future::Ready<anyhow::Result<Value>> { panic!("canary") };
        let (answer, event) = invoked(at_once).await;
        assert_eq!(answer.expect_err("failed").error_message, "the handler panicked");
        assert_eq!(event["outcome"], "panic");
        assert!(!event.to_string().contains("canary"));

        let (answer, _) = invoked(async |_| panic!("canary")).await;
        assert_eq!(answer.expect_err("failed").error_message, "the handler panicked");
    }
}
