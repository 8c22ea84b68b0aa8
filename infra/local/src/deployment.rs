//! Where the functions run: on the embedded stack, or on one that another program deploys (`--stack`; `tests/emulator`).
//!
//! That program is asked at one address, JSON in, JSON out:
//!
//! | request | body | does |
//! |---|---|---|
//! | `POST /deploy` | `{"folder", "fresh", "binaries", "parameters"}` | deploys the template, or updates what it deployed for this folder unless it is to be fresh: `{"url", "token"}` of the API, the address without a slash at its end |
//! | `PUT /objects/{key}` | bytes | stores an object in the bucket |
//! | `POST /tick` | | fires every schedule, and answers when the functions have |
//! | `GET /work` | | `{"queues": [{"name", "visible", "in_flight", "dead"}], "running"}`: messages, and invocations that no queue shows |
//! | `POST /stop` | | nobody drives the deployment any more; the functions' logs go to `logs/` in the folder |

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use stack::{Options, QueueDepth, Stack};

/// How long a deployment may take, and anything else that is asked for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause between two looks at the embedded stack while work is under way.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// The same elsewhere, where a look takes dozens of slow calls.
const LOOK_ELSEWHERE_EVERY: Duration = Duration::from_secs(1);

/// A running deployment.
pub(crate) enum Deployment {
    /// In this process.
    Embedded(Box<Stack>),
    /// Somewhere else.
    Elsewhere(Elsewhere),
}

/// What is under way.
pub(crate) struct Work {
    /// How many messages each queue holds.
    pub(crate) queues: Vec<QueueDepth>,
    /// Invocations.
    pub(crate) running: usize,
}

impl Deployment {
    /// Starts the embedded stack, or has `deployer` deploy one. `fresh`: nothing of an earlier run is to be there.
    pub(crate) async fn start(options: Options, deployer: Option<&str>, fresh: bool) -> anyhow::Result<Self> {
        match deployer {
            None => Ok(Self::Embedded(Box::new(stack::start(options).await?))),
            Some(deployer) => Ok(Self::Elsewhere(Elsewhere::deploy(deployer, &options, fresh).await?)),
        }
    }

    /// The API's address, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Embedded(stack) => stack.url(),
            Self::Elsewhere(elsewhere) => &elsewhere.url,
        }
    }

    /// What the API wants to be shown; `None`: nothing.
    pub(crate) fn token(&self) -> Option<&str> {
        match self {
            Self::Embedded(_) => None,
            Self::Elsewhere(elsewhere) => elsewhere.token.as_deref(),
        }
    }

    /// Stores an object in the bucket.
    pub(crate) async fn put_object(&self, key: &str, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        match self {
            Self::Embedded(stack) => stack.put_object(key, bytes).await,
            Self::Elsewhere(elsewhere) => {
                elsewhere.ask(Method::PUT, &format!("/objects/{key}"), bytes.into()).await.map(drop)
            }
        }
    }

    /// Fires every schedule now, and waits until their functions have answered.
    pub(crate) async fn tick(&self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(stack) => {
                stack.tick().await;
                Ok(())
            }
            Self::Elsewhere(elsewhere) => elsewhere.ask(Method::POST, "/tick", Bytes::new()).await.map(drop),
        }
    }

    /// What is under way now.
    pub(crate) async fn work(&self) -> anyhow::Result<Work> {
        match self {
            Self::Embedded(stack) => Ok(Work { queues: stack.queues().await, running: stack.invocations_in_flight() }),
            Self::Elsewhere(elsewhere) => elsewhere.work().await,
        }
    }

    /// Pause between two looks while work is under way.
    pub(crate) fn look_every(&self) -> Duration {
        match self {
            Self::Embedded(_) => LOOK_EVERY,
            Self::Elsewhere(_) => LOOK_ELSEWHERE_EVERY,
        }
    }

    /// Ends it: the embedded stack when its invocations have finished; another one is left where it is.
    pub(crate) async fn shutdown(self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(stack) => {
                stack.shutdown().await;
                Ok(())
            }
            Self::Elsewhere(elsewhere) => elsewhere.ask(Method::POST, "/stop", Bytes::new()).await.map(drop),
        }
    }
}

/// A stack that another program deploys.
pub(crate) struct Elsewhere {
    client: reqwest::Client,
    deployer: String,
    url: String,
    token: Option<String>,
}

impl Elsewhere {
    async fn deploy(deployer: &str, options: &Options, fresh: bool) -> anyhow::Result<Self> {
        // Loopback: a proxy of the environment must not see it.
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().context("the HTTP client")?;
        let mut elsewhere = Self { client, deployer: deployer.to_owned(), url: String::new(), token: None };
        let path = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        std::fs::create_dir_all(&options.data_dir).context("cannot make the data folder")?;
        let order = json!({
            "folder": path(&options.data_dir),
            "fresh": fresh,
            "binaries": path(&options.bin_dir),
            "parameters": options.parameters,
        });
        let answer = elsewhere.ask(Method::POST, "/deploy", Bytes::from(order.to_string())).await?;
        elsewhere.url = answer["url"].as_str().context("the deployer names no address")?.to_owned();
        elsewhere.token = answer["token"].as_str().map(str::to_owned);
        Ok(elsewhere)
    }

    async fn work(&self) -> anyhow::Result<Work> {
        #[derive(Deserialize)]
        struct Depth {
            name: String,
            visible: u64,
            in_flight: u64,
            dead: bool,
        }
        #[derive(Deserialize)]
        struct Answer {
            queues: Vec<Depth>,
            running: usize,
        }
        let Answer { queues, running } = serde_json::from_value(self.ask(Method::GET, "/work", Bytes::new()).await?)?;
        let queues = queues.into_iter().map(|Depth { name, visible, in_flight, dead }| QueueDepth {
            name,
            visible,
            in_flight,
            dead,
        });
        Ok(Work { queues: queues.collect(), running })
    }

    /// One request. It is not made again: the deployer is on this machine.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let request = self.client.request(method, format!("{}{path}", self.deployer)).body(body);
        let answer = request.send().await.with_context(|| format!("no answer of the deployer to {path}"))?;
        let status = answer.status();
        let body = answer.bytes().await.with_context(|| format!("no answer of the deployer to {path}"))?;
        ensure!(status.is_success(), "the deployer answers {path} with {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}
