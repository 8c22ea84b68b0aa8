//! From the environment to clients: read once, made once, during the function's init.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::{ReconnectMode, RetryConfig};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use ports::{Bus, Http, NoBus, Objects, Ports, Queue, Secrets, StreamSecrets, Table, Vendor};

use crate::absent::Absent;
use crate::{
    DynamoTables, EventBridge, KeptSecrets, ReqwestHttp, S3Objects, Source, SqsQueues, SystemClock, SystemRandom,
    sdk_config,
};

// The time-outs are not scaled by TIME_SCALE: they bound real input and output, which does not get faster in a test.

/// One attempt of a DynamoDB, SQS or Secrets Manager call. They answer within tens of milliseconds; a batch within
/// hundreds.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// All attempts of one such call: below the shortest function time-out (30 s) by enough to report.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(12);
/// One attempt of an S3 call until its headers: objects of up to some hundred MB are sent in one put.
const OBJECT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// All attempts of one S3 call: half of the longest function time-out (120 s).
const OBJECT_OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Opening of the connections ahead of time. Lambda gives init 10 s; where nothing answers, the first event gets the rest.
const WARM_TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts of calls that may be repeated: the SDK's own default, said aloud. Conditional writes have one
/// (see `dynamo.rs`).
const ATTEMPTS: u32 = 3;

/// The real names behind the logical ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Table names.
    pub tables: BTreeMap<Table, String>,
    /// Queue URLs.
    pub queues: BTreeMap<Queue, String>,
    /// The bucket's name; empty: none.
    pub bucket: String,
    /// URLs of the dead-letter queues whose depth may be asked.
    pub dead_queues: Vec<String>,
    /// The event bus, by name or ARN; empty: none.
    pub bus: String,
}

impl Names {
    /// Reads [`Table::env`], [`Queue::env`], `BUCKET`, `DEAD_QUEUE_URLS` (separated by commas) and `EVENT_BUS`. What is not set or empty is not there: a function is
    /// given only what it may use, and a call on anything else is refused with the variable's name.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        Self {
            tables: Table::ALL.into_iter().filter_map(|table| Some((table, set(table.env())?))).collect(),
            queues: Queue::ALL.into_iter().filter_map(|queue| Some((queue, set(queue.env())?))).collect(),
            bucket: set("BUCKET").unwrap_or_default(),
            dead_queues: set("DEAD_QUEUE_URLS")
                .map_or_else(Vec::new, |urls| urls.split(',').map(str::to_owned).collect()),
            bus: set("EVENT_BUS").unwrap_or_default(),
        }
    }
}

/// What a function's `main` needs: the ports, and the queues once more for what only the platform's shell does
/// (a message's visibility).
#[derive(Debug, Clone)]
pub struct Wiring {
    /// Everything that a handler may touch.
    pub ports: Ports,
    /// The queues' adapter.
    pub queues: Arc<SqsQueues>,
}

/// What a function is given beside tables and queues. It is known while the function is compiled, so that what it is not given
/// is not linked into it either.
pub trait Parts {
    /// The bucket.
    const BUCKET: bool;
    /// HTTP to vendors and webhooks.
    const HTTP: bool;
    /// Secrets.
    const SECRETS: bool;
    /// The bus; no function that has it needs one to be named.
    const BUS: bool;
}

/// Reads the environment, makes every client, opens the connections. `sources`: where the credentials are of
/// the vendors that the function calls; `streams`: where the secrets of streams are, if it needs them.
///
/// # Errors
/// When the region or a key is not set, or the HTTP client cannot be made.
pub async fn connect<P: Parts>(
    sources: BTreeMap<Vendor, Source>,
    streams: Option<Source<StreamSecrets>>,
) -> anyhow::Result<Wiring> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let sdk = sdk_config(variable)?;
    let names = Names::read(variable);

    let tables = Arc::new(DynamoTables::new(dynamo_client(&sdk), names.tables));
    let base = variable("AWS_ENDPOINT_URL_SQS").or_else(|| variable("AWS_ENDPOINT_URL")).unwrap_or_else(|| {
        let region = sdk.region().map_or("us-east-1", |region| region.as_ref());
        format!("https://sqs.{region}.amazonaws.com")
    });
    let queues = Arc::new(SqsQueues::new(sqs_client(&sdk), names.queues, base).with_dead_queues(names.dead_queues));
    let mut opened: Vec<BoxFuture<'_, ()>> = vec![tables.warm().boxed(), queues.warm().boxed()];
    let objects: Arc<dyn Objects> = if P::BUCKET {
        let path_style = variable("AWS_ENDPOINT_URL_S3").is_some();
        let objects = Arc::new(S3Objects::new(s3_client(&sdk, path_style), names.bucket));
        let warm = Arc::clone(&objects);
        opened.push(async move { warm.warm().await }.boxed());
        objects
    } else {
        Arc::new(Absent)
    };
    open(opened).await;

    let bus: Arc<dyn Bus> = if P::BUS && !names.bus.is_empty() {
        Arc::new(EventBridge::new(bus_client(&sdk), names.bus))
    } else {
        Arc::new(NoBus)
    };
    let http: Arc<dyn Http> = if P::HTTP { Arc::new(ReqwestHttp::new()?) } else { Arc::new(Absent) };
    let secrets: Arc<dyn Secrets> =
        if P::SECRETS { Arc::new(KeptSecrets::new(secrets_client(&sdk), sources, streams)) } else { Arc::new(Absent) };
    let ports = Ports {
        tables,
        objects,
        queues: queues.clone(),
        http,
        bus,
        secrets,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    Ok(Wiring { ports, queues })
}

/// Opens the connections to what a function uses, side by side, so that its first event does not wait for one handshake after
/// the other: with 128 MB a function has a fourteenth of a processor. Secrets Manager's is opened by whoever reads the
/// credentials. Not opened ahead are those to Marketo and Adobe, whose hosts partly stand in the tables and who drop what is
/// idle, and for whom no visitor of a page waits; nor EventBridge's, which hears of incidents only.
async fn open(connections: Vec<BoxFuture<'_, ()>>) {
    if tokio::time::timeout(WARM_TIMEOUT, join_all(connections)).await.is_err() {
        tracing::warn!("not every connection stood in time; the first event opens the rest");
    }
}

fn timeouts(attempt: Duration, operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(attempt).operation_timeout(operation).build()
}

/// So many attempts at one operation. The SDK would have its own HTTP client close the connection of a failed attempt, and
/// complain of ours, which cannot: a service that answers 5xx is reached by another of its hosts or not, as it likes.
pub(crate) fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard().with_max_attempts(attempts).with_reconnect_mode(ReconnectMode::ReuseAllConnections)
}

/// A DynamoDB client with our time-outs and retries.
#[must_use]
pub fn dynamo_client(sdk: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(sdk)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
        .retry_config(retries(ATTEMPTS))
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// An S3 client with our time-outs and retries. `path_style`: for an endpoint of our own, whose host name does
/// not take the bucket as a prefix.
#[must_use]
pub fn s3_client(sdk: &SdkConfig, path_style: bool) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(sdk)
        .force_path_style(path_style)
        .timeout_config(timeouts(OBJECT_ATTEMPT_TIMEOUT, OBJECT_OPERATION_TIMEOUT))
        .retry_config(retries(ATTEMPTS))
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// An SQS client with our time-outs and retries.
#[must_use]
pub fn sqs_client(sdk: &SdkConfig) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::config::Builder::from(sdk)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
        .retry_config(retries(ATTEMPTS))
        .build();
    aws_sdk_sqs::Client::from_conf(config)
}

/// An EventBridge client with our time-outs and retries.
#[must_use]
pub fn bus_client(sdk: &SdkConfig) -> aws_sdk_eventbridge::Client {
    let config = aws_sdk_eventbridge::config::Builder::from(sdk)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
        .retry_config(retries(ATTEMPTS))
        .build();
    aws_sdk_eventbridge::Client::from_conf(config)
}

/// A Secrets Manager client with our time-outs and retries. Its endpoint is `AWS_ENDPOINT_URL_SECRETS_MANAGER`, where
/// that is set.
#[must_use]
pub fn secrets_client(sdk: &SdkConfig) -> aws_sdk_secretsmanager::Client {
    let config = aws_sdk_secretsmanager::config::Builder::from(sdk)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
        .retry_config(retries(ATTEMPTS))
        .build();
    aws_sdk_secretsmanager::Client::from_conf(config)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ports::{Key, Outgoing, Queues as _, Read, Tables as _};
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server of HTTP, and how many connections it has taken.
    struct Server {
        url: String,
        connections: Arc<AtomicUsize>,
    }

    impl Server {
        /// `answers`: each request by 404; otherwise none.
        async fn start(answers: bool) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let connections = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&connections);
            tokio::spawn(async move {
                let mut silent = Vec::new();
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    if answers {
                        tokio::spawn(answer(stream));
                    } else {
                        silent.push(stream);
                    }
                }
            });
            Self { url, connections }
        }

        fn connections(&self) -> usize {
            self.connections.load(Ordering::SeqCst)
        }
    }

    /// Answers requests until the other side closes.
    async fn answer(stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            let words = line.trim().to_ascii_lowercase();
            if let Some(value) = words.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if words.is_empty() {
                stream.read_exact(&mut vec![0; length]).await.expect("a body");
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.expect("written");
                length = 0;
            }
            line.clear();
        }
    }

    fn sdk(server: &Server) -> SdkConfig {
        let url = server.url.clone();
        let variable = move |name: &str| match name {
            "AWS_REGION" => Some("us-east-1".to_owned()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("test".to_owned()),
            "AWS_ENDPOINT_URL" => Some(url.clone()),
            _ => None,
        };
        sdk_config(variable).expect("a configuration")
    }

    /// DynamoDB, S3 and SQS at these addresses.
    fn adapters(servers: &[Server; 3]) -> (DynamoTables, S3Objects, SqsQueues) {
        let [dynamodb, s3, sqs] = servers;
        let tables = [(Table::Lists, "lists".to_owned())].into();
        let urls = [(Queue::Matches, format!("{}/0/matches", sqs.url))].into();
        (
            DynamoTables::new(dynamo_client(&sdk(dynamodb)), tables),
            S3Objects::new(s3_client(&sdk(s3), true), "bucket".to_owned()),
            SqsQueues::new(sqs_client(&sdk(sqs)), urls, sqs.url.clone()),
        )
    }

    #[tokio::test]
    async fn what_is_called_later_finds_its_connection_open() {
        let servers = [Server::start(true).await, Server::start(true).await, Server::start(true).await];
        let (tables, objects, queues) = adapters(&servers);
        open(vec![tables.warm().boxed(), objects.warm().boxed(), queues.warm().boxed()]).await;
        assert_eq!(servers.each_ref().map(Server::connections), [1, 1, 1]);

        tables.get(Table::Lists, &Key::new("a", "b"), Read::Eventual).await.expect_err("404");
        assert!(objects.get("key").await.expect("an answer").is_none());
        let message = Outgoing { body: "{}".to_owned(), group: None, dedup: None };
        queues.send(Queue::Matches, vec![message]).await.expect_err("404");
        assert_eq!(servers.each_ref().map(Server::connections), [1, 1, 1]);
    }

    #[tokio::test]
    async fn what_a_function_is_not_given_is_not_connected_with() {
        let servers = [Server::start(true).await, Server::start(true).await, Server::start(true).await];
        let [dynamodb, s3, sqs] = &servers;
        let tables = DynamoTables::new(dynamo_client(&sdk(dynamodb)), BTreeMap::new());
        let objects = S3Objects::new(s3_client(&sdk(s3), true), String::new());
        let queues = SqsQueues::new(sqs_client(&sdk(sqs)), BTreeMap::new(), sqs.url.clone());
        open(vec![tables.warm().boxed(), objects.warm().boxed(), queues.warm().boxed()]).await;
        assert_eq!(servers.each_ref().map(Server::connections), [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn init_waits_only_so_long_for_what_does_not_answer() {
        let servers = [Server::start(false).await, Server::start(true).await, Server::start(true).await];
        let (tables, objects, queues) = adapters(&servers);
        let begun = tokio::time::Instant::now();
        open(vec![tables.warm().boxed(), objects.warm().boxed(), queues.warm().boxed()]).await;
        assert_eq!(begun.elapsed().as_secs(), WARM_TIMEOUT.as_secs());
    }

    #[test]
    fn names_come_from_the_declared_variables_and_empty_is_unset() {
        let names = Names::read(|name| match name {
            "LISTS_TABLE" => Some("app-lists".to_owned()),
            "SYNCS_TABLE" => Some(String::new()),
            "LIST_WRITES_QUEUE_URL" => Some("http://127.0.0.1/0/q.fifo".to_owned()),
            _ => None,
        });
        assert_eq!(names.tables, BTreeMap::from([(Table::Lists, "app-lists".to_owned())]));
        assert_eq!(names.queues, BTreeMap::from([(Queue::ListWrites, "http://127.0.0.1/0/q.fifo".to_owned())]));
        assert_eq!(names.bucket, "");
    }
}
