//! The local stack: DynamoDB, SQS, S3 and EventBridge on loopback ports, and a runner that reads our SAM template and drives the
//! real function binaries as Lambda, its event sources and API Gateway would.
//!
//! [`start`] gives a running [`Stack`]; its state lives in a folder and survives a restart. Nothing here knows what
//! the functions do.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod binaries;
pub mod bus;
pub mod calls;
mod dynamo;
pub mod gateway;
mod http_server;
mod kept;
pub mod poller;
pub mod runtime;
mod s3;
mod schedule;
pub mod sqs;
pub mod template;
pub mod usage;

pub use binaries::{FUNCTIONS, build_functions};
pub use kept::Exchanges;

/// Region of everything.
pub const REGION: &str = "us-east-1";
/// Account of everything.
pub const ACCOUNT: &str = "000000000000";
/// `AWS::StackName`.
pub const STACK_NAME: &str = "local";
/// Access key that the embedded servers know.
pub const ACCESS_KEY: &str = "local";
/// Its secret, which guards nothing.
pub const SECRET_KEY: &str = "local-secret";

/// Scaled time-outs stop here: a real process needs seconds on a busy machine.
pub const SHORTEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How far above a function's time-out a scaled visibility time-out stays, in seconds.
const VISIBILITY_MARGIN_S: u64 = 1;
/// How many ports [`Port::Preferred`] tries before it takes any.
const PORTS_TRIED: u16 = 20;
/// How long a start waits for the data folder, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a shutdown waits for invocations in flight.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// What a stack is started with.
pub struct Options {
    /// SAM template.
    pub template: PathBuf,
    /// Folder of the state; made if missing. One stack at a time.
    pub data_dir: PathBuf,
    /// Folder of the function binaries, named as in `Metadata.BuildProperties.Binary`.
    pub bin_dir: PathBuf,
    /// Template parameters.
    pub parameters: BTreeMap<String, String>,
    /// Port of the HTTP API.
    pub port: Port,
    /// Gets every line that a function writes and what the runner has to say. They also go to `logs/` in the data
    /// folder.
    pub log: LogSink,
}

/// Where log lines go.
pub type LogSink = Arc<dyn Fn(LogLine) + Send + Sync>;

/// A loopback port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// This one; an error if it is busy. 0 is any free one.
    Exact(u16),
    /// This one, or the next free one.
    Preferred(u16),
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Function's name, `stack`, or `api` for the access log.
    pub function: String,
    /// Who wrote it.
    pub stream: Stream,
    /// The line.
    pub text: String,
}

/// Who wrote a line, or whom it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The function, to standard output.
    Stdout,
    /// The function, to standard error.
    Stderr,
    /// The runner, about the function.
    Runner,
}

/// How many messages a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// Queue's name.
    pub name: String,
    /// Messages that wait.
    pub visible: u64,
    /// Messages that were received and neither deleted nor visible again.
    pub in_flight: u64,
    /// A dead-letter queue.
    pub dead: bool,
}

/// Addresses of the embedded servers, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// DynamoDB.
    pub dynamodb: String,
    /// SQS.
    pub sqs: String,
    /// S3.
    pub s3: String,
    /// EventBridge.
    pub events: String,
}

/// A queue that its mapping does not read until this is dropped.
pub struct Pause {
    _gate: tokio::sync::OwnedMutexGuard<()>,
}

/// A running stack. Dropping it ends everything at once; [`Stack::shutdown`] lets invocations finish.
pub struct Stack {
    url: String,
    endpoints: Endpoints,
    template: template::Template,
    functions: Vec<Arc<runtime::Function>>,
    tickers: Vec<schedule::Ticker>,
    sqs: sqs::Sqs,
    s3: s3::S3,
    buses: bus::Buses,
    in_flight: Arc<AtomicUsize>,
    gateway: Arc<gateway::Gateway>,
    meter: usage::Meter,
    stop: watch::Sender<bool>,
    pollers: JoinSet<()>,
    /// Aborted when dropped.
    servers: JoinSet<()>,
    /// Holds the data folder; unlocked when dropped.
    _lock: File,
}

/// Starts a stack. When this returns, every server answers and every poller polls.
pub async fn start(options: Options) -> anyhow::Result<Stack> {
    let data = &options.data_dir;
    std::fs::create_dir_all(data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let lock = lock(data).await?;
    let log = file_log(data, Arc::clone(&options.log))?;

    let gateway_listener = bind(options.port).await?;
    let sqs_listener = bind(Port::Exact(0)).await?;
    let sqs_port = sqs_listener.local_addr()?.port();
    let dynamodb_listener = bind(Port::Exact(0)).await?;
    let s3_listener = bind(Port::Exact(0)).await?;
    let bus_listener = bind(Port::Exact(0)).await?;
    let endpoints = Endpoints {
        dynamodb: address(&dynamodb_listener)?,
        sqs: address(&sqs_listener)?,
        s3: address(&s3_listener)?,
        events: address(&bus_listener)?,
    };
    let url = address(&gateway_listener)?;

    let template = template::read(&options.template, &options.parameters, &endpoints.sqs)?;
    for function in &template.functions {
        let binary = options.bin_dir.join(&function.binary);
        ensure!(binary.is_file(), "the binary of {} is missing: {}", function.name, binary.display());
    }
    let meter = usage::Meter::with_calls(calls::Calls::open()?);
    let database = dynamo::open(&data.join("dynamodb.sqlite"), &template.tables)?;
    let scale = template.time_scale;
    let visibility = |queue: &template::Queue| visibility_s(queue, &template);
    let journal = data.join("queues.jsonl");
    let sqs = sqs::Sqs::open(&journal, sqs_port, template.queues.clone(), meter.clone(), visibility).await?;
    let names: Vec<String> = template.functions.iter().map(|function| function.name.clone()).collect();
    let s3 = s3::S3::open(&data.join("s3"), template.buckets.clone(), names.clone(), sqs.clone()).await?;
    let buses = bus::Buses::open(&data.join("events.jsonl"), template.event_bus.as_deref())?;
    let mut servers = JoinSet::new();
    let behind = bind(Port::Exact(0)).await?;
    servers.spawn(dynamo::serve(dynamodb_listener, dynamo::Front::new(behind.local_addr()?, meter.clone())));
    servers.spawn(dynamo::serve_unmetered(behind, database.clone()));
    servers.spawn(dynamo::sweep(database));
    servers.spawn(sqs.clone().serve(sqs_listener, names));
    servers.spawn(s3.clone().serve(s3_listener, meter.calls().clone()));
    servers.spawn(buses.clone().serve(bus_listener, meter.calls().clone()));

    let in_flight: Arc<AtomicUsize> = Arc::default();
    let stop = watch::Sender::new(false);
    let mut pollers = JoinSet::new();
    let (mut functions, mut tickers, mut routes) = (vec![], vec![], vec![]);
    for declared in &template.functions {
        let settings = settings(declared, &options.bin_dir, &endpoints, scale);
        let function = runtime::Function::new(settings, Arc::clone(&in_flight), meter.clone(), Arc::clone(&log));
        let target: Arc<dyn poller::Target> = Arc::new(Arc::clone(&function));
        for source in &declared.sources {
            let mapping = mapping(source);
            let (name, log) = (declared.name.clone(), Arc::clone(&log));
            let say = move |text| log(LogLine { function: name.clone(), stream: Stream::Runner, text });
            let queue = sqs.source(&source.queue);
            pollers.spawn(poller::run(mapping, queue, Arc::clone(&target), stop.subscribe(), say));
        }
        for schedule in &declared.schedules {
            let ticker = schedule::Ticker::new(schedule.clone(), scale, Arc::clone(&target));
            pollers.spawn(ticker.clone().run(stop.subscribe()));
            tickers.push(ticker);
        }
        routes.extend(declared.routes.iter().map(|route| (route.clone(), Arc::clone(&target))));
        functions.push(function);
    }
    let gateway = gateway::Gateway::new(routes).with_access_log(template.api.access_log.clone(), log);
    let gateway = Arc::new(gateway.with_exchanges(Exchanges::open()?));
    let answering = Arc::clone(&gateway);
    let service = hyper::service::service_fn(move |request| {
        let gateway = Arc::clone(&answering);
        async move { gateway.handle(request).await }
    });
    servers.spawn(http_server::serve(gateway_listener, service));
    Ok(Stack {
        url,
        endpoints,
        template,
        functions,
        tickers,
        sqs,
        s3,
        buses,
        in_flight,
        gateway,
        meter,
        stop,
        pollers,
        servers,
        _lock: lock,
    })
}

impl Stack {
    /// Address of the HTTP API, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Addresses of the embedded servers.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints.clone()
    }

    /// What the template declares: names of tables, queues and buckets among it.
    #[must_use]
    pub fn template(&self) -> &template::Template {
        &self.template
    }

    /// Stores an object in the bucket, and tells the queues as S3 does.
    pub async fn put_object(&self, key: &str, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        self.s3.put(key, bytes.into()).await
    }

    /// What has come by the event buses, the oldest first, as rules and targets get it; `event-bus-name` says by which. It
    /// stands in `events.jsonl` in the data folder.
    pub fn events(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        self.buses.events()
    }

    /// Fires every schedule now, and waits until their functions have answered.
    pub async fn tick(&self) {
        let mut ticks = JoinSet::new();
        for ticker in &self.tickers {
            let ticker = ticker.clone();
            ticks.spawn(async move { ticker.fire().await });
        }
        ticks.join_all().await;
    }

    /// How many messages each queue holds.
    pub async fn queues(&self) -> Vec<QueueDepth> {
        self.sqs.depths().await
    }

    /// Stops a queue's event source mapping, as `Enabled: false` does in AWS. When this returns nothing is taken from
    /// the queue any more until the pause is dropped; batches that were taken before may still run.
    pub async fn pause(&self, queue: &str) -> Pause {
        self.sqs.pause(queue).await
    }

    /// What AWS would bill for everything since the start.
    #[must_use]
    pub fn usage(&self) -> usage::Usage {
        self.meter.read()
    }

    /// Answers of 400 to 499 that the API gave without asking a function, by status, since the start.
    #[must_use]
    pub fn edge_4xx(&self) -> BTreeMap<u16, u64> {
        self.gateway.edge_4xx()
    }

    /// Invocations that run or wait for a process.
    #[must_use]
    pub fn invocations_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Invokes a function by name with an event of the caller's.
    pub async fn invoke(&self, function: &str, event: Bytes) -> anyhow::Result<Result<Bytes, runtime::InvokeError>> {
        Ok(self.function(function)?.run(event).await)
    }

    /// How long a new process of a function takes until it asks for its first event ([`runtime::Function::init`]).
    pub async fn init(&self, function: &str) -> anyhow::Result<Duration> {
        self.function(function)?.init().await
    }

    /// Kills the function's processes (SIGKILL), and waits until they are gone.
    pub async fn kill(&self, function: &str) -> anyhow::Result<()> {
        self.function(function)?.kill().await;
        Ok(())
    }

    fn function(&self, name: &str) -> anyhow::Result<&Arc<runtime::Function>> {
        self.functions.iter().find(|one| one.name() == name).with_context(|| format!("there is no function {name}"))
    }

    /// Takes no more messages, gives invocations in flight a moment, then kills the functions. What was not finished
    /// comes again after the next start.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let finish = async { while self.pollers.join_next().await.is_some() {} };
        // Late ones are killed below; their messages are in the journal.
        tokio::time::timeout(SHUTDOWN_GRACE, finish).await.ok();
        for function in &self.functions {
            function.stop().await;
        }
        self.pollers.shutdown().await;
        self.servers.shutdown().await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for function in &self.functions {
            function.kill_now();
        }
    }
}

fn settings(function: &template::Function, bin_dir: &Path, endpoints: &Endpoints, scale: f64) -> runtime::Settings {
    let mut environment = function.environment.clone();
    let own = [
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
        // Of S3 and EventBridge the key says who asks.
        ("AWS_ACCESS_KEY_ID", &function.name),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        // Without keys or region the SDK would look for an instance's metadata, and wait.
        ("AWS_EC2_METADATA_DISABLED", "true"),
        // The path says who asks, for the meter.
        ("AWS_ENDPOINT_URL_DYNAMODB", &format!("{}/{}", endpoints.dynamodb, function.name)),
        ("AWS_ENDPOINT_URL_SQS", &format!("{}/{}", endpoints.sqs, function.name)),
        ("AWS_ENDPOINT_URL_S3", &endpoints.s3),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", &endpoints.events),
        ("TIME_SCALE", &scale.to_string()),
    ];
    environment.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    runtime::Settings {
        name: function.name.clone(),
        binary: bin_dir.join(&function.binary),
        timeout: scaled_timeout(function.timeout_s, scale),
        memory_mb: function.memory_mb,
        environment,
        processes: function.reserved.map_or(runtime::DEFAULT_PROCESSES, |most| most.min(runtime::DEFAULT_PROCESSES)),
    }
}

fn mapping(source: &template::EventSource) -> poller::Mapping {
    poller::Mapping {
        queue: source.queue.clone(),
        fifo: source.queue.ends_with(".fifo"),
        batch_size: source.batch_size,
        window: Duration::from_secs(source.window_s),
        report_item_failures: source.report_item_failures,
        concurrency: source.maximum_concurrency.unwrap_or(poller::DEFAULT_CONCURRENCY),
    }
}

/// `timeout x scale`, but not below [`SHORTEST_TIMEOUT`] (or the time-out itself, when that is shorter).
fn scaled_timeout(timeout_s: u64, scale: f64) -> Duration {
    let timeout = Duration::from_secs(timeout_s);
    timeout.mul_f64(scale).max(SHORTEST_TIMEOUT.min(timeout))
}

/// Scaled visibility time-out in seconds: above the scaled time-out of the functions that read the queue, or a
/// message would come again while it is being handled.
fn visibility_s(queue: &template::Queue, template: &template::Template) -> u64 {
    let scaled = Duration::from_secs(queue.visibility_s).mul_f64(template.time_scale);
    let readers = template.functions.iter().filter(|f| f.sources.iter().any(|source| source.queue == queue.name));
    let longest = readers.map(|f| scaled_timeout(f.timeout_s, template.time_scale)).max().unwrap_or_default();
    let least = if longest.is_zero() { 0 } else { longest.as_secs() + VISIBILITY_MARGIN_S };
    let scaled_s = scaled.as_secs() + u64::from(scaled.subsec_nanos() > 0);
    scaled_s.max(least.min(queue.visibility_s))
}

/// Takes the data folder for this process. A stack that has just ended may leave its lock for an instant to a child
/// that some thread is starting (between fork and exec it holds every file), so one look is not enough.
async fn lock(data: &Path) -> anyhow::Result<File> {
    let lock = File::create(data.join("lock")).context("cannot write in the data folder")?;
    let end = tokio::time::Instant::now() + LOCK_PATIENCE;
    while lock.try_lock().is_err() {
        ensure!(tokio::time::Instant::now() < end, "another stack uses the data folder {}", data.display());
        tokio::time::sleep(LOCK_LOOK_EVERY).await;
    }
    Ok(lock)
}

/// Binds a loopback port.
async fn bind(port: Port) -> anyhow::Result<TcpListener> {
    match port {
        Port::Exact(port) => {
            TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port} is not free"))
        }
        Port::Preferred(first) => {
            for port in (first..=u16::MAX).take(usize::from(PORTS_TRIED)) {
                if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
                    return Ok(listener);
                }
            }
            TcpListener::bind(("127.0.0.1", 0)).await.context("no loopback port is free")
        }
    }
}

fn address(listener: &TcpListener) -> anyhow::Result<String> {
    Ok(format!("http://{}", listener.local_addr()?))
}

/// Writes each line to `logs/<function>.log` in the data folder, and where logs are kept ([`kept`]), then hands it on.
fn file_log(data: &Path, next: LogSink) -> anyhow::Result<LogSink> {
    let logs = data.join("logs");
    std::fs::create_dir_all(&logs).context("cannot make the folder of the logs")?;
    let folders: Vec<PathBuf> = std::iter::once(logs).chain(kept::folder()?).collect();
    let files: Mutex<BTreeMap<String, Vec<File>>> = Mutex::default();
    Ok(Arc::new(move |line: LogLine| {
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let files_of = files.entry(line.function.clone()).or_insert_with(|| {
            let names = folders.iter().map(|folder| folder.join(format!("{}.log", line.function)));
            names.filter_map(|name| OpenOptions::new().create(true).append(true).open(name).ok()).collect()
        });
        for file in files_of {
            // A full disk must not stop the functions; the callback still has the line.
            writeln!(file, "{}", line.text).ok();
        }
        drop(files);
        next(line);
    }))
}

/// Who asks: the first part of a path, which [`settings`] gives each function; without it, somebody outside.
fn caller_of(path: &str) -> &str {
    match path.trim_start_matches('/').split('/').next() {
        Some(caller) if !caller.is_empty() => caller,
        _ => usage::OUTSIDE,
    }
}

/// Milliseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "the stack is the world's clock for the functions")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_times_keep_their_order() {
        assert_eq!(scaled_timeout(120, 1.0), Duration::from_secs(120));
        assert_eq!(scaled_timeout(120, 0.5), Duration::from_secs(60));
        assert_eq!(scaled_timeout(120, 0.01), SHORTEST_TIMEOUT);
        assert_eq!(scaled_timeout(2, 0.01), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_busy_port_is_an_error_or_the_next_one() {
        let busy = bind(Port::Exact(0)).await.expect("any port");
        let port = busy.local_addr().expect("address").port();
        let error = bind(Port::Exact(port)).await.expect_err("busy");
        assert!(error.to_string().contains(&port.to_string()));
        let other = bind(Port::Preferred(port)).await.expect("another port");
        assert_ne!(other.local_addr().expect("address").port(), port);
    }
}
