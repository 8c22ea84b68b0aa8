//! [`Http`] over reqwest (hyper and rustls), and the client that the SDK stands on too.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use ports::{Http, PortError, PortResult};

const SERVICE: &str = "http";
/// A connection that does not stand after this long will not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are dropped early: one that the other side closed while the function slept would turn the
/// next call's outcome into an unknown.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// A client that follows no redirect (a secret must not follow one), repeats nothing (whether a call may be repeated is the
/// caller's to say), and takes no proxy from the environment.
pub(crate) fn strict(connect_timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(connect_timeout)
}

/// The client.
///
/// # Errors
/// When the TLS roots of the machine cannot be read.
pub(crate) fn built(builder: reqwest::ClientBuilder) -> anyhow::Result<reqwest::Client> {
    // Not the cause itself: reqwest's texts may hold URLs.
    builder.build().map_err(|_| anyhow::anyhow!("the HTTP client could not be made"))
}

/// HTTP to Marketo and Adobe.
#[derive(Debug, Clone)]
pub struct ReqwestHttp {
    client: reqwest::Client,
}

impl ReqwestHttp {
    /// A client with its own connection pool.
    ///
    /// # Errors
    /// When the TLS roots of the machine cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        let client = strict(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("audience-sync/", env!("CARGO_PKG_VERSION")));
        Ok(Self { client: built(client)? })
    }
}

#[async_trait]
impl Http for ReqwestHttp {
    async fn send(&self, request: http::Request<Vec<u8>>, timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>> {
        let mut request = reqwest::Request::try_from(request)
            .map_err(|_| PortError::Refused { service: SERVICE, reason: "the URL is not one".to_owned() })?;
        *request.timeout_mut() = Some(Duration::from_millis(timeout_ms));
        let answer = self.client.execute(request).await.map_err(|error| port_error(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(|error| port_error(&error))?;
        let mut response = http::Response::new(body.to_vec());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Our own words only: the error's text holds the URL.
fn port_error(error: &reqwest::Error) -> PortError {
    let (sent, reason) = if error.is_connect() {
        (false, "no connection")
    } else if error.is_timeout() {
        (true, "time-out")
    } else if error.is_builder() {
        return PortError::Refused { service: SERVICE, reason: "the request could not be built".to_owned() };
    } else if error.is_body() || error.is_decode() {
        (true, "the answer was cut short or garbled")
    } else {
        (true, "connection dropped")
    };
    let reason = match error.source().and_then(io_kind) {
        Some(kind) => format!("{reason} ({kind})"),
        None => reason.to_owned(),
    };
    if sent {
        PortError::Unknown { service: SERVICE, reason }
    } else {
        PortError::Unavailable { service: SERVICE, reason }
    }
}

/// The kind of the input-output error at the root, a fixed set of words.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// No answer, and the connection stays open.
    const HANG: &str = "hang";

    /// A server that reads one request, answers with `answer` and closes.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.expect("a request");
            assert!(read > 0);
            if answer == HANG {
                std::future::pending::<()>().await;
            }
            stream.write_all(answer.as_bytes()).await.expect("written");
        });
        format!("http://{address}/path?secret-canary")
    }

    async fn call(url: &str, timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>> {
        let request = http::Request::get(url).body(Vec::new()).expect("a request");
        ReqwestHttp::new().expect("a client").send(request, timeout_ms).await
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_redirects_are_not_followed() {
        let url = server("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nok").await;
        let answer = call(&url, 5_000).await.expect("an answer");
        assert_eq!(answer.status(), 302);
        assert_eq!(answer.headers()["location"], "/elsewhere");
        assert_eq!(answer.body(), b"ok");
    }

    #[tokio::test]
    async fn a_refused_connection_is_unavailable_and_all_else_unknown_without_the_url() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let closed = format!("http://{}/?secret-canary", listener.local_addr().expect("an address"));
        drop(listener);
        let refused = call(&closed, 5_000).await.expect_err("nobody listens");
        assert!(matches!(refused, PortError::Unavailable { .. }), "{refused}");

        let dropped = call(&server("").await, 5_000).await.expect_err("closed without an answer");
        assert!(matches!(dropped, PortError::Unknown { .. }), "{dropped}");

        let cut = call(&server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut").await, 5_000).await;
        let cut = cut.expect_err("cut short");
        assert!(matches!(cut, PortError::Unknown { .. }), "{cut}");

        let late = call(&server(HANG).await, 200).await.expect_err("no answer in time");
        assert!(matches!(late, PortError::Unknown { .. }), "{late}");

        for error in [refused, dropped, cut, late] {
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
