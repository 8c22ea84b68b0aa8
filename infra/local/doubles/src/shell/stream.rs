//! Streams that the shell sends: to whom, with which proof, with Adobe's patience, and what goes wrong on the way.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::Shared;
use crate::adobe::{Adobe, Faults, Message, Stream};

/// A stream to send.
#[derive(Clone, Deserialize)]
pub(super) struct Wanted {
    /// Where messages go: plain HTTP on loopback.
    url: String,
    stream: Stream,
    /// Asked for an access token that goes with every message.
    #[serde(default)]
    oauth: Option<OAuth>,
    /// How often it is sent by itself, in ms; absent: only when the control API says so.
    #[serde(default)]
    every_ms: Option<u64>,
    #[serde(default)]
    faults: Faults,
}

#[derive(Clone, Deserialize)]
struct OAuth {
    url: String,
    client_id: String,
    client_secret: String,
    /// The client stands in the form, as Experience Platform may send it; else in the header.
    #[serde(default)]
    form: bool,
}

/// What became of a stream's messages.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Sent {
    /// Taken by the receiver; one that is sent twice counts twice.
    taken: u64,
    /// Attempts that were not answered well in time.
    failed: u64,
    /// Messages that were given up, or never sent.
    lost: u64,
    /// Messages that come behind the next ones.
    late: u64,
}

struct Running {
    wanted: Wanted,
    sent: Sent,
    held: Vec<Message>,
    /// Which declaration this is, so that the task of an earlier one ends.
    number: u64,
}

/// All streams of a double, by destination. Its lock is held while one is sent: messages keep their order.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Declared>>);

#[derive(Default)]
struct Declared {
    running: BTreeMap<String, Running>,
    last: u64,
}

/// A stream as the control API shows it: no secret.
#[derive(Serialize)]
pub(super) struct Shown {
    pub(super) destination: String,
    pub(super) url: String,
    pub(super) faults: Faults,
    #[serde(flatten)]
    pub(super) sent: Sent,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} taken, {} attempts failed, {} lost, {} late", self.taken, self.failed, self.lost, self.late)
    }
}

impl Streams {
    /// Declares a stream, in place of an earlier one to the same destination. `false`: its addresses are not loopback.
    pub(super) async fn declare(&self, shared: &Arc<Shared<Adobe>>, wanted: Wanted) -> bool {
        let urls = wanted.oauth.iter().map(|oauth| &oauth.url).chain([&wanted.url]);
        if urls.into_iter().any(|url| target(url).is_none()) {
            return false;
        }
        let destination = wanted.stream.destination().to_owned();
        let every = wanted.every_ms.map(|ms| Duration::from_millis(ms.max(1)));
        let mut declared = self.0.lock().await;
        declared.last += 1;
        let number = declared.last;
        let running = Running { wanted, sent: Sent::default(), held: Vec::new(), number };
        declared.running.insert(destination.clone(), running);
        drop(declared);
        if let Some(every) = every {
            tokio::spawn(send_often(Arc::downgrade(&self.0), Arc::downgrade(shared), destination, number, every));
        }
        true
    }

    /// What goes wrong with every stream from now on.
    pub(super) async fn go_wrong(&self, faults: Faults) {
        self.0.lock().await.running.values_mut().for_each(|running| running.wanted.faults = faults);
    }

    /// Sends what every stream has to tell, and says what became of it.
    pub(super) async fn send(&self, shared: &Shared<Adobe>) -> Vec<Shown> {
        let mut declared = self.0.lock().await;
        for running in declared.running.values_mut() {
            running.send(shared).await;
        }
        shown(&declared)
    }

    /// What became of all messages so far.
    pub(super) async fn shown(&self) -> Vec<Shown> {
        shown(&*self.0.lock().await)
    }
}

fn shown(declared: &Declared) -> Vec<Shown> {
    let show = |(destination, running): (&String, &Running)| Shown {
        destination: destination.clone(),
        url: running.wanted.url.clone(),
        faults: running.wanted.faults,
        sent: running.sent,
    };
    declared.running.iter().map(show).collect()
}

/// Sends one stream again and again, until it is declared anew or the double is gone.
async fn send_often(
    streams: Weak<Mutex<Declared>>,
    shared: Weak<Shared<Adobe>>,
    destination: String,
    number: u64,
    every: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let (Some(streams), Some(shared)) = (streams.upgrade(), shared.upgrade()) else { return };
        let mut declared = streams.lock().await;
        let Some(running) = declared.running.get_mut(&destination).filter(|running| running.number == number) else {
            return;
        };
        running.send(&shared).await;
    }
}

impl Running {
    async fn send(&mut self, shared: &Shared<Adobe>) {
        let now = shared.now_ms();
        let messages = shared.lock().events(now, &self.wanted.stream);
        let (messages, lost) = self.wanted.faults.arriving(messages, &mut self.held);
        self.sent.lost += lost as u64;
        self.sent.late = self.held.len() as u64;
        if messages.is_empty() {
            return;
        }
        let (patience, retries, good) = self.wanted.stream.patience();
        let patience = Duration::from_millis(patience);
        let token = match &self.wanted.oauth {
            Some(oauth) => token(oauth, patience).await,
            None => None,
        };
        for mut message in messages {
            message.headers.extend(token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
            let mut taken = false;
            for _ in 0..=retries {
                let answer = post(&self.wanted.url, &message, patience).await;
                taken = answer.is_some_and(|(status, _)| good.contains(&status));
                if taken {
                    break;
                }
                self.sent.failed += 1;
            }
            if taken {
                self.sent.taken += 1;
            } else {
                self.sent.lost += 1;
            }
        }
    }
}

/// An access token by client credentials; `None`: none was given.
async fn token(oauth: &OAuth, patience: Duration) -> Option<String> {
    let OAuth { client_id, client_secret, .. } = oauth;
    let media = "application/x-www-form-urlencoded;charset=UTF-8".to_owned();
    let mut headers = vec![("content-type".to_owned(), media)];
    let mut pairs = vec![("grant_type", "client_credentials")];
    if oauth.form {
        pairs.extend([("client_id", client_id.as_str()), ("client_secret", client_secret)]);
    } else {
        let basic = STANDARD.encode(format!("{client_id}:{client_secret}"));
        headers.push(("authorization".to_owned(), format!("Basic {basic}")));
    }
    let form: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let message = Message { body: form.into_bytes(), headers };
    let (status, body) = post(&oauth.url, &message, patience).await?;
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    (status == 200).then(|| body["access_token"].as_str().map(str::to_owned)).flatten()
}

/// Host and port of an address on loopback; `None`: another one, or not plain HTTP.
fn target(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| matches!(*host, "127.0.0.1" | "localhost" | "[::1]"))?;
    let port = uri.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    (uri.scheme_str() == Some("http")).then(|| (format!("{host}:{port}"), path.to_owned()))
}

/// One POST, and its answer if there is one in time.
async fn post(url: &str, message: &Message, patience: Duration) -> Option<(u16, Vec<u8>)> {
    let (host, path) = target(url)?;
    let mut request = Request::post(path).header(header::HOST, &host);
    for (name, value) in &message.headers {
        request = request.header(name, value);
    }
    let request = request.body(Body::from(message.body.clone())).ok()?;
    let answer = async {
        let stream = TcpStream::connect(&host).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let exchange = async {
            let answer = sender.send_request(request).await.ok()?;
            let status = answer.status().as_u16();
            let body = axum::body::to_bytes(Body::new(answer.into_body()), super::BODY_BYTES).await.ok()?;
            Some((status, body.to_vec()))
        };
        // The connection drives the exchange; when it ends first, the answer is in or will never come.
        let exchange = std::pin::pin!(exchange);
        let connection = std::pin::pin!(connection);
        match futures::future::select(exchange, connection).await {
            futures::future::Either::Left((answer, _)) => answer,
            futures::future::Either::Right((_, exchange)) => exchange.await,
        }
    };
    tokio::time::timeout(patience, answer).await.ok().flatten()
}
