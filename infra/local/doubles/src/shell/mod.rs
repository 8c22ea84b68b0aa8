//! The doubles behind HTTP on loopback, with a control API under `/_control/` and a page to look at.
//!
//! Marketo's control API (JSON in, JSON out; a refused body is 4xx):
//!
//! | route | body | does |
//! |---|---|---|
//! | `GET /_control/` | | the page |
//! | `GET /_control/lists` | | `[{"id","name","members"}]` |
//! | `GET /_control/world` | | the subscription in the shape of `marketo.json` |
//! | `GET`, `DELETE /_control/calls` | | the log of calls; forget it |
//! | `GET /_control/pending` | | `{"next_visible_activity_at","last_visible_activity_at","next_late_effect_at"}` |
//! | `POST /_control/lead` | a lead of `marketo.json` | a lead appears or changes |
//! | `POST /_control/form` | `{"token","email"}` | a visitor fills a form |
//! | `POST /_control/merge` | `{"winner","losers"}` | leads are merged |
//! | `POST /_control/delete` | `{"id"}` | a lead is deleted |
//! | `POST /_control/add`, `/_control/remove` | `{"list","lead"}` | by hand (activities 24 and 25) |
//! | `POST`, `DELETE /_control/faults` | a [`Fault`](crate::marketo::Fault) | make a call go wrong; clear |
//! | `POST /_control/refuse` | `{"lead","code"}` | adds, removals and imports skip this lead with this code; null: no more |
//! | `POST /_control/expire-token` | | the token answers 602 |
//! | `POST /_control/token-edge` | `{"ms"}` | the token has this much of its life left |
//! | `POST /_control/other-calls` | `{"calls","latency_ms"}` | another tool calls now: `{"taken"}`, the rest was refused |
//! | `POST /_control/make-list` | `{"name","folder","workspace"}` | a list, its name taken or not: `{"id"}` |
//! | `POST /_control/latency` | `{"ms"}` | every call takes that long |
//!
//! Adobe's:
//!
//! | route | body | does |
//! |---|---|---|
//! | `GET /_control/` | | the page |
//! | `GET /_control/segments` | | `[{"sid","name","folder_id","count"}]` |
//! | `GET /_control/audiences` | | Experience Platform's: `[{"id","name","count"}]` |
//! | `POST /_control/member` | a [`Change`](crate::adobe::Change) | an ECID joins or leaves a segment |
//! | `POST /_control/profile` | `{"profile","ecid","audience","member"}` | a profile (absent: that of the ECID, or a new one) gets the ECID, and joins or leaves the audience if one is named |
//! | `POST /_control/rename`, `/_control/delete` | `{"audience","name"}` | a segment or an audience, by its id |
//! | `POST /_control/deliver` | `{"mode":"next" \| "full" \| "iter"}` | a file goes into the bucket: `{"name"}` |
//! | `POST /_control/files` | `{"feed","shape","faults"}` | a delivery of any [`Shape`](crate::adobe::Shape) goes into the feed's folder (absent: none), with [`Faults`](crate::adobe::Faults): `{"names","lost"}` |
//! | `GET /_control/streams` | | `[{"destination","url","faults","taken","failed","lost","late"}]` |
//! | `POST /_control/streams` | `{"url","stream","oauth","every_ms","faults"}` | declares a [`Stream`](crate::adobe::Stream) to a receiver on loopback; `oauth`: `{"url","client_id","client_secret","form"}`; without `every_ms` it is sent only on demand |
//! | `POST /_control/streams/send` | | every stream sends what changed, and all is answered or given up: as `GET` |
//! | `POST /_control/streams/faults` | [`Faults`](crate::adobe::Faults) | what goes wrong with every stream from now on |
//! | `POST /_control/expire-tokens` | | tokens answer 401 |

mod adobe;
mod marketo;
mod page;
mod stream;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

pub use adobe::adobe_router;
pub use marketo::marketo_router;

/// The shell itself reads no more than this; the doubles' own limits are lower.
const BODY_BYTES: usize = 16 * 1024 * 1024;

/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A clock: milliseconds since the epoch.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Puts a delivered file (name, bytes) where the feed looks for it. An error is shown to whoever asked.
pub type Deliver = Arc<dyn Fn(String, Vec<u8>) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A double that HTTP and its owner share.
pub struct Shared<T> {
    core: Mutex<T>,
    now: Now,
}

impl<T> Shared<T> {
    /// Shares a core.
    pub fn new(core: T, now: Now) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(core), now })
    }

    /// The core, for as long as the guard lives: never across an await.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // A core that panicked shows it in the test that made it; the others go on.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time on this double's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.now)()
    }
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// The machine's clock.
#[must_use]
pub fn system_clock() -> Now {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the shell is where a double meets real time")]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Marks a response in place of which the connection is to close.
#[derive(Debug, Clone, Copy)]
struct Dropped;

/// Serves a router on a listener (bind it to loopback) until the future is dropped; connections end with it.
///
/// It speaks to hyper directly, because a double must be able to close a connection without an answer.
pub async fn serve(listener: tokio::net::TcpListener, router: Router) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // The peer went away before it was accepted, or there are no descriptors left for a moment.
                Err(_) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        // Small answers must not wait for more; without it they only come later.
        stream.set_nodelay(true).unwrap_or_default();
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let answer = router.call(request);
            async move {
                let Ok(response) = answer.await;
                if response.extensions().get::<Dropped>().is_some() {
                    return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
                }
                Ok(response)
            }
        });
        connections.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            // An error here is a connection that one of the two sides gave up: nothing to do about it.
            http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await.unwrap_or_default();
        });
    }
}

/// Reads a request whole, or says 413.
async fn whole(request: Request) -> Result<http::Request<Vec<u8>>, Response> {
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, BODY_BYTES).await {
        Ok(bytes) => Ok(http::Request::from_parts(parts, bytes.to_vec())),
        Err(_) => Err(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
    }
}

/// Turns a core's answer into the shell's.
fn sent(response: http::Response<Vec<u8>>) -> Response {
    response.map(Body::from)
}

/// Refuses what another web site sends by the visitor's browser: a foreign origin, or a name that is not loopback.
async fn same_origin(request: Request, next: Next) -> Response {
    if is_local(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "this page is for the machine it runs on").into_response()
}

fn is_local(headers: &header::HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
        && text(header::ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
}

/// Says in the control API whether something was done.
fn done(done: bool) -> Response {
    if done {
        axum::Json(serde_json::json!({"done": true})).into_response()
    } else {
        (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(serde_json::json!({"done": false}))).into_response()
    }
}
