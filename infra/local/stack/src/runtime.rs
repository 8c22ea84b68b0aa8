//! Runs function binaries and speaks the Lambda Runtime API to them.
//!
//! One process serves one invocation at a time and stays warm for the next. Each process has its own loopback
//! server, so that `AWS_LAMBDA_RUNTIME_API` is plain `host:port`. A time-out kills the process; a process that ends
//! fails its invocation, and the next invocation starts a new one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::poller::{EVENT_LIMIT, Target};
use crate::usage::Meter;
use crate::{ACCOUNT, LogLine, LogSink, REGION, Stream, now_ms};

/// How long a process may take until it asks for its first event. Lambda's limit is 10 s; a debug binary on a busy
/// machine gets more.
const INIT_LIMIT: Duration = Duration::from_secs(30);
/// Most processes of one function. Lambda's default is 1,000 an account.
pub const DEFAULT_PROCESSES: usize = 10;
/// Longest part of a function's error message that is logged, in bytes.
const ERROR_SHOWN: usize = 500;

/// Why an invocation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// The function answered with an error (or a panic that its runtime caught).
    #[error("function error {kind}: {message}")]
    Function {
        /// `errorType`.
        kind: String,
        /// `errorMessage`.
        message: String,
    },
    /// The process ended in the middle of the invocation.
    #[error("the process ended: {0}")]
    Crashed(String),
    /// The function ran longer than its time-out, and was killed.
    #[error("timed out after {0} ms")]
    TimedOut(u64),
    /// The process did not come up.
    #[error("did not start: {0}")]
    Init(String),
    /// The event is larger than Lambda takes.
    #[error("the event has {0} bytes, above Lambda's 6 MB")]
    TooLarge(usize),
    /// The stack is shutting down.
    #[error("the stack is shutting down")]
    Stopping,
}

/// What a function is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Function name.
    pub name: String,
    /// Binary.
    pub binary: PathBuf,
    /// Time-out of one invocation.
    pub timeout: Duration,
    /// Memory in MB; told to the function, not enforced.
    pub memory_mb: u64,
    /// Environment of the template, and the endpoints.
    pub environment: BTreeMap<String, String>,
    /// Most processes at a time.
    pub processes: usize,
}

/// A function with its processes.
pub struct Function {
    settings: Settings,
    permits: Semaphore,
    idle: Mutex<Vec<Arc<Process>>>,
    all: Mutex<HashMap<u64, Arc<Process>>>,
    next_id: AtomicU64,
    in_flight: Arc<AtomicUsize>,
    meter: Meter,
    log: LogSink,
    stopping: watch::Sender<bool>,
}

/// One invocation on its way to a process.
struct Pending {
    request_id: String,
    event: Bytes,
    /// Told when the process has fetched the event.
    fetched: oneshot::Sender<()>,
    reply: oneshot::Sender<Result<Bytes, InvokeError>>,
}

struct Process {
    id: u64,
    pending: mpsc::Sender<Pending>,
    /// Whether it has asked for an event.
    asked: watch::Receiver<bool>,
    /// `Some(how)` once the process has ended.
    ended: watch::Receiver<Option<String>>,
    kill: mpsc::Sender<()>,
}

impl Process {
    fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    async fn end(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_) => "unknown".to_owned(),
        }
    }

    fn kill(&self) {
        // A full channel means that the kill is on its way; a closed one that the process is gone.
        self.kill.try_send(()).ok();
    }
}

/// Shared by the handlers of one process's Runtime API.
struct Api {
    timeout: Duration,
    arn: String,
    pending: tokio::sync::Mutex<mpsc::Receiver<Pending>>,
    current: Mutex<HashMap<String, oneshot::Sender<Result<Bytes, InvokeError>>>>,
    init_error: Mutex<Option<String>>,
    asked: watch::Sender<bool>,
}

impl Function {
    /// A function without processes; the first invocation starts one. `in_flight` and `meter` count invocations.
    #[must_use]
    pub fn new(settings: Settings, in_flight: Arc<AtomicUsize>, meter: Meter, log: LogSink) -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(settings.processes),
            settings,
            idle: Mutex::default(),
            all: Mutex::default(),
            next_id: AtomicU64::new(1),
            in_flight,
            meter,
            log,
            stopping: watch::Sender::new(false),
        })
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Kills every process (SIGKILL) and waits until they are gone.
    pub async fn kill(&self) {
        let all: Vec<_> = lock(&self.all).values().cloned().collect();
        for process in &all {
            process.kill();
        }
        for process in all {
            process.end().await;
        }
    }

    /// Refuses further invocations and kills every process, without waiting.
    pub fn kill_now(&self) {
        self.stopping.send_replace(true);
        lock(&self.all).values().for_each(|process| process.kill());
    }

    /// Refuses further invocations and kills every process.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        self.kill().await;
    }

    /// Starts a process, and ends it as soon as it asks for its first event: what Lambda calls init. How long that took.
    ///
    /// # Errors
    /// When the process ends or hangs before.
    pub async fn init(self: &Arc<Self>) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let process = self.spawn().await?;
        let mut asked = process.asked.clone();
        let took = tokio::select! {
            Ok(_) = asked.wait_for(|asked| *asked) => Ok(begun.elapsed()),
            how = process.end() => Err(anyhow::anyhow!("{} ended before its first event: {how}", self.name())),
            () = tokio::time::sleep(INIT_LIMIT) => {
                Err(anyhow::anyhow!("{} asked for no event within {INIT_LIMIT:?}", self.name()))
            }
        };
        process.kill();
        process.end().await;
        took
    }

    /// Runs the function once. The invocation goes on when the caller stops waiting, as in Lambda.
    pub async fn run(self: &Arc<Self>, event: Bytes) -> Result<Bytes, InvokeError> {
        if event.len() > EVENT_LIMIT {
            return Err(InvokeError::TooLarge(event.len()));
        }
        let function = Arc::clone(self);
        self.meter.invocation(&self.settings.name);
        let counted = Counted::new(&self.in_flight);
        let task = tokio::spawn(async move {
            let _counted = counted;
            function.run_once(event).await
        });
        let result = task.await.unwrap_or_else(|error| Err(InvokeError::Crashed(error.to_string())));
        if let Err(error) = &result {
            self.say(format!("invocation failed: {}", shorten(&error.to_string())));
        }
        result
    }

    async fn run_once(self: &Arc<Self>, event: Bytes) -> Result<Bytes, InvokeError> {
        let _permit = self.permits.acquire().await.map_err(|_| InvokeError::Stopping)?;
        loop {
            let warm = self.take_idle();
            let was_warm = warm.is_some();
            if *self.stopping.borrow() {
                return Err(InvokeError::Stopping);
            }
            let process = match warm {
                Some(process) => process,
                None => self.spawn().await.map_err(|error| InvokeError::Init(format!("{error:#}")))?,
            };
            let (fetched, fetched_here) = oneshot::channel();
            let (reply, reply_here) = oneshot::channel();
            let request_id = uuid::Uuid::new_v4().to_string();
            let sent = process.pending.send(Pending { request_id, event: event.clone(), fetched, reply }).await;
            let started = async {
                match fetched_here.await {
                    Ok(()) => {}
                    // The server went away: the process's end says why.
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = started, if sent.is_ok() => {}
                // Nothing was handed out, so a process that died while it was idle costs nothing.
                _ = process.end(), if was_warm => continue,
                how = process.end() => return Err(InvokeError::Init(how)),
                () = tokio::time::sleep(INIT_LIMIT) => {
                    process.kill();
                    return Err(InvokeError::Init(format!("no event was asked for within {INIT_LIMIT:?}")));
                }
            }
            return self.await_reply(&process, reply_here).await;
        }
    }

    async fn await_reply(
        &self,
        process: &Arc<Process>,
        reply: oneshot::Receiver<Result<Bytes, InvokeError>>,
    ) -> Result<Bytes, InvokeError> {
        let replied = async {
            match reply.await {
                Ok(result) => result,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = replied => {
                lock(&self.idle).push(Arc::clone(process));
                result
            }
            how = process.end() => Err(InvokeError::Crashed(how)),
            () = tokio::time::sleep(self.settings.timeout) => {
                process.kill();
                process.end().await;
                Err(InvokeError::TimedOut(u64::try_from(self.settings.timeout.as_millis()).unwrap_or(u64::MAX)))
            }
        }
    }

    fn take_idle(&self) -> Option<Arc<Process>> {
        let mut idle = lock(&self.idle);
        while let Some(process) = idle.pop() {
            if !process.has_ended() {
                return Some(process);
            }
        }
        None
    }

    fn say(&self, text: String) {
        (self.log)(LogLine { function: self.settings.name.clone(), stream: Stream::Runner, text });
    }

    async fn spawn(self: &Arc<Self>) -> anyhow::Result<Arc<Process>> {
        let settings = &self.settings;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no loopback port for the Runtime API")?;
        let address = listener.local_addr()?;
        let (pending, pending_here) = mpsc::channel(1);
        let (asked, asked_here) = watch::channel(false);
        let api = Arc::new(Api {
            timeout: settings.timeout,
            arn: format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", settings.name),
            pending: tokio::sync::Mutex::new(pending_here),
            current: Mutex::default(),
            init_error: Mutex::default(),
            asked,
        });
        let mut command = Command::new(&settings.binary);
        command
            .env_clear()
            .envs(["PATH", "TMPDIR", "LLVM_PROFILE_FILE"].iter().filter_map(|k| std::env::var(k).ok().map(|v| (k, v))))
            .envs(&settings.environment)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &settings.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", settings.memory_mb.to_string())
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", settings.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("local-{id}"))
            .env("_HANDLER", "bootstrap")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start the binary of {} ({})", settings.name, settings.binary.display()))?;
        self.pipe(child.stdout.take(), Stream::Stdout);
        self.pipe(child.stderr.take(), Stream::Stderr);
        let (ended, ended_here) = watch::channel(None);
        let (kill, mut kill_here) = mpsc::channel(1);
        let server = tokio::spawn(serve(listener, Arc::clone(&api)));
        let function = Arc::downgrade(self);
        tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                // `None`: nobody holds the process any more.
                _ = kill_here.recv() => match child.kill().await {
                    Ok(()) => child.wait().await,
                    Err(error) => Err(error),
                },
            };
            let mut how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            if let Some(error) = lock(&api.init_error).take() {
                how = format!("{error} ({how})");
            }
            // Handlers that are writing an answer get to finish it: the invocation prefers an answer to an end.
            server.abort();
            if let Some(function) = function.upgrade() {
                lock(&function.all).remove(&id);
                if how != "exit status: 0" && !*function.stopping.borrow() {
                    function.say(format!("process ended: {}", shorten(&how)));
                }
            }
            ended.send_replace(Some(how));
        });
        let process = Arc::new(Process { id, pending, asked: asked_here, ended: ended_here, kill });
        lock(&self.all).insert(process.id, Arc::clone(&process));
        if process.has_ended() {
            lock(&self.all).remove(&process.id);
        }
        Ok(process)
    }

    fn pipe(self: &Arc<Self>, from: Option<impl AsyncRead + Send + Unpin + 'static>, stream: Stream) {
        let Some(from) = from else { return };
        let (log, function) = (Arc::clone(&self.log), self.settings.name.clone());
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                log(LogLine { function: function.clone(), stream, text });
            }
        });
    }
}

#[async_trait]
impl Target for Arc<Function> {
    async fn invoke(&self, event: Bytes) -> Result<Bytes, InvokeError> {
        self.run(event).await
    }
}

/// Counts an invocation while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(listener: TcpListener, api: Arc<Api>) {
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .layer(DefaultBodyLimit::disable())
        .with_state(api);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::debug!(%error, "runtime API ended");
    }
}

async fn next(State(api): State<Arc<Api>>) -> Response<Body> {
    api.asked.send_replace(true);
    let Some(pending) = api.pending.lock().await.recv().await else {
        return status(StatusCode::GONE, "{}");
    };
    let deadline = now_ms() + u64::try_from(api.timeout.as_millis()).unwrap_or(u64::MAX / 2);
    let trace = format!("Root=1-{:08x}-{};Sampled=0", now_ms() / 1_000, &pending.request_id.replace('-', "")[..24]);
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("Lambda-Runtime-Aws-Request-Id", &pending.request_id)
        .header("Lambda-Runtime-Deadline-Ms", deadline)
        .header("Lambda-Runtime-Invoked-Function-Arn", &api.arn)
        .header("Lambda-Runtime-Trace-Id", trace)
        .body(Body::from(pending.event));
    lock(&api.current).insert(pending.request_id, pending.reply);
    // Nobody listens when the invocation was given up meanwhile; its process is being killed then.
    pending.fetched.send(()).ok();
    answer.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR, "{}"))
}

async fn response(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    if body.len() > EVENT_LIMIT {
        let message = format!("the response has {} bytes, above Lambda's 6 MB", body.len());
        finish(&api, &id, Err(InvokeError::Function { kind: "Function.ResponseSizeTooLarge".into(), message }));
        return status(StatusCode::PAYLOAD_TOO_LARGE, "{}");
    }
    finish(&api, &id, Ok(body))
}

async fn error(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    let (kind, message) = diagnostic(&body);
    finish(&api, &id, Err(InvokeError::Function { kind, message }))
}

async fn init_error(State(api): State<Arc<Api>>, body: Bytes) -> Response<Body> {
    let (kind, message) = diagnostic(&body);
    *lock(&api.init_error) = Some(format!("init error {kind}: {message}"));
    status(StatusCode::ACCEPTED, r#"{"status":"OK"}"#)
}

fn finish(api: &Api, id: &str, result: Result<Bytes, InvokeError>) -> Response<Body> {
    match lock(&api.current).remove(id) {
        Some(reply) => {
            // The invocation may have been given up; the process is being killed then.
            reply.send(result).ok();
            status(StatusCode::ACCEPTED, r#"{"status":"OK"}"#)
        }
        None => status(
            StatusCode::BAD_REQUEST,
            r#"{"errorType":"InvalidRequestID","errorMessage":"no such invocation is in flight"}"#,
        ),
    }
}

fn diagnostic(body: &[u8]) -> (String, String) {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(|v| v.as_str()).unwrap_or("unknown").to_owned();
    (text("errorType"), text("errorMessage"))
}

fn status(code: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response
}

fn shorten(text: &str) -> &str {
    let end = (0..=ERROR_SHOWN.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
