//! What every function's `main` is made of: configuration, telemetry, the batch runner, the loop with Lambda.
//!
//! A function's `main` only wires:
//!
//! ```no_run
//! # struct ListWriter;
//! # impl lambda::Function for ListWriter {
//! #     const NAME: &'static str = "list-writer";
//! #     const USES: lambda::Uses = lambda::Uses::NOTHING;
//! # }
//! # async fn handle(_: lambda::App, _: lambda::Invocation) -> anyhow::Result<serde_json::Value> { Ok(().into()) }
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let app = lambda::start::<ListWriter>().await?;
//!     lambda::run(app, handle).await
//! }
//! ```

mod batch;
mod config;
mod deps;
mod http_event;
mod runtime;
mod telemetry;

pub use batch::{Message, RESERVE_MS, Response, SqsEvent, SqsRecord, Visibility, run_batch, run_together, run_whole};
pub use config::{Access, Adobe, Config, ConfigError, Marketo, Quota, Uses, Variable};
pub use deps::deps;
pub use http_event::{HttpEvent, http_answer};
pub use ports::Failure;
pub use runtime::{App, Function, Invocation, run, start};
pub use telemetry::{Counts, METRICS, Names, Redacted, emf_line};
