//! What leaves the process as text: log lines in JSON, one wide event an invocation, nothing personal.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tracing::{Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

/// Our own crates: the only ones whose lines below WARN are let through. Libraries print requests and answers at
/// DEBUG and TRACE, and these hold items, messages and secrets.
const OURS: [&str; 12] = [
    "adobe",
    "audience_ingest",
    "aws",
    "cookie_ingest",
    "create_sync",
    "domain",
    "feeds",
    "lambda",
    "list_writer",
    "marketo",
    "scheduled_incremental_sync",
    "state",
];
/// Libraries whose names begin with one of ours (a filter's target is a prefix).
const NOT_OURS: [&str; 6] = ["aws_config", "aws_runtime", "aws_sdk", "aws_sig", "aws_smithy", "lambda_runtime"];

/// Sets the process's log and panic hook up. The first call counts.
pub(crate) fn init(level: Level) {
    if tracing::subscriber::set_global_default(subscriber(level, std::io::stdout)).is_ok() {
        std::panic::set_hook(Box::new(report_panic));
    }
}

fn subscriber<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let ours = OURS.iter().map(|name| (*name, LevelFilter::from_level(level)));
    let libraries = NOT_OURS.iter().map(|name| (*name, LevelFilter::WARN));
    let filter = Targets::new().with_default(LevelFilter::WARN).with_targets(ours.chain(libraries));
    let lines = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    Registry::default().with(lines.with_writer(writer).with_filter(filter))
}

/// A panic's message may quote a payload (`unwrap` on an error prints it): only its place is told.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(|location| format!("{}:{}", location.file(), location.line()));
    tracing::error!(panic.place = place.as_deref().unwrap_or("unknown"), "panic");
}

/// A value that may pass through logs and errors without being seen there.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
#[serde(transparent)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for use, never for a log.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The value, for use, never for a log.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> From<T> for Redacted<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> std::fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> std::fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What an invocation counted. Clones count into the same place. The names are constants of the code, so that
/// nothing personal can become one.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    /// Adds `by` to the count `name`.
    pub fn add(&self, name: &'static str, by: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += by;
    }

    /// All counts.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The counts of which CloudWatch makes a metric, by function: those that an alarm watches. Each is billed for the hours in which
/// there was one ($0.30 a month, <https://aws.amazon.com/cloudwatch/pricing/>), which is more than everything else costs a small
/// user: none is made of a count of 0.
pub const METRICS: [&str; 2] = ["pairs_sampled_out", "records_failed"];

/// What a function is called.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// In the README.
    pub function: &'a str,
    /// In its account: two stages have two of each.
    pub deployed: &'a str,
}

/// The wide event of one invocation in CloudWatch's Embedded Metric Format: one line, which a query can read whole, and from
/// which CloudWatch makes metrics of the counts among [`METRICS`].
#[must_use]
pub fn emf_line(names: Names<'_>, outcome: &str, at_ms: u64, duration_ms: u64, counts: &Counts) -> String {
    let mut line = serde_json::Map::new();
    let mut metrics = Vec::new();
    for (name, count) in counts.all() {
        if METRICS.contains(&name) && count > 0 {
            metrics.push(json!({"Name": name, "Unit": "Count"}));
        }
        line.insert(name.to_owned(), count.into());
    }
    // After the counts, so that none of them can take the place of these.
    line.insert("function".to_owned(), names.function.into());
    line.insert("FunctionName".to_owned(), names.deployed.into());
    line.insert("outcome".to_owned(), outcome.into());
    line.insert("duration_ms".to_owned(), duration_ms.into());
    let directive = json!({
        "Timestamp": at_ms,
        "CloudWatchMetrics": [
            {"Namespace": "audience-sync", "Dimensions": [["FunctionName"]], "Metrics": metrics}
        ],
    });
    line.insert("_aws".to_owned(), directive);
    Value::Object(line).to_string()
}

/// Prints a line to standard output as a whole.
pub(crate) fn print_line(line: &str) {
    // A closed standard output is no reason to fail an invocation whose work is done.
    if std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).is_err() {
        tracing::warn!("standard output is closed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(subscriber(level, move || writer.clone()), log);
        let bytes = buffer.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn our_lines_are_json_and_libraries_are_silent_below_warn() {
        let log = logged(Level::TRACE, || {
            tracing::trace!(target: "list_writer::pass", { batch.size = 3 }, "ours");
            tracing::debug!(target: "aws_smithy_runtime::client", "canary");
            tracing::debug!(target: "aws_sdk_dynamodb::operation", "canary");
            tracing::info!(target: "lambda_runtime::layers", "canary");
            tracing::debug!(target: "hyper_util::client", "canary");
            tracing::info!(target: "reqwest::connect", "canary");
            tracing::warn!(target: "hyper_util::client", "a warning");
        });
        assert!(!log.contains("canary"), "{log}");
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert_eq!((&lines[0]["message"], &lines[0]["batch.size"]), (&json!("ours"), &json!(3)));
        assert_eq!(lines[1]["message"], "a warning");
    }

    #[test]
    fn the_level_is_that_of_our_crates() {
        let log = logged(Level::INFO, || {
            tracing::debug!(target: "aws::sqs", "too fine");
            tracing::info!(target: "aws::sqs", "fine");
        });
        assert_eq!(log.lines().count(), 1);
    }

    #[test]
    fn a_redacted_value_shows_nowhere() {
        let secret: Redacted<String> = serde_json::from_str("\"canary\"").expect("a string");
        let log = logged(Level::INFO, || {
            tracing::info!(target: "lambda", ?secret, text = %secret, "{secret} {secret:?}");
        });
        assert!(log.contains("[redacted]") && !log.contains("canary"), "{log}");
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn the_wide_event_is_one_line_of_embedded_metrics() {
        let counts = Counts::default();
        counts.add("records", 3);
        counts.clone().add("records", 2);
        counts.add("outcome", 7);
        counts.add("pairs_sampled_out", 1);
        counts.add("records_failed", 0);
        let names = Names { function: "list-writer", deployed: "prod-list-writer" };
        let line = emf_line(names, "ok", 1_700_000_000_000, 12, &counts);
        assert!(!line.contains('\n'));
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&event["function"], &event["FunctionName"]), (&json!("list-writer"), &json!("prod-list-writer")));
        assert_eq!(event["outcome"], "ok", "a count cannot take its place");
        assert_eq!((&event["records"], &event["duration_ms"]), (&json!(5), &json!(12)));
        assert_eq!(event["_aws"]["Timestamp"], 1_700_000_000_000_u64);
        let metrics = &event["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(metrics["Dimensions"], json!([["FunctionName"]]));
        assert_eq!(metrics["Metrics"], json!([{"Name": "pairs_sampled_out", "Unit": "Count"}]), "the others are free");
        assert_eq!(event["records_failed"], 0, "and in the line all the same");
    }

    #[test]
    fn a_panics_message_is_not_logged() {
        let log = logged(Level::INFO, || {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(report_panic));
            let caught = std::panic::catch_unwind(|| panic!("canary"));
            std::panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert!(log.contains("telemetry.rs:") && !log.contains("canary"), "{log}");
    }
}
