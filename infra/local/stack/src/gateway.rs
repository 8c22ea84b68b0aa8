//! The HTTP API: turns requests into payload-2.0 events by the template's routes.
//!
//! Limits of API Gateway's HTTP APIs that a caller can meet: 10,240 bytes of request line and headers, 30 s, and
//! Lambda's 6 MB an event. The authorizer and the throttles are AWS's part and are absent here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::poller::{EVENT_LIMIT, Target};
use crate::runtime::InvokeError;
use crate::template::Route;
use crate::{ACCOUNT, Exchanges, LogLine, LogSink, Stream, now_ms};

/// API Gateway's limit of request line and header values together, in bytes.
pub const HEAD_LIMIT: usize = 10_240;
/// API Gateway's limit of a body, in bytes (10 MB). Lambda's smaller one is on the whole event.
pub const BODY_LIMIT: usize = 10 * 1024 * 1024;
/// API Gateway's limit of an integration.
pub const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The name under which the access log is written: a request a line.
pub const ACCESS_LOG: &str = "api";
/// Variables that the access log may show here, and what stands for one that a request does not have.
pub const LOG_VARIABLES: [&str; 6] = [
    "$context.requestId",
    "$context.routeKey",
    "$context.status",
    "$context.responseLength",
    "$context.integrationLatency",
    "$context.requestTimeEpoch",
];
const ABSENT: &str = "-";

/// Routes and the functions behind them.
pub struct Gateway {
    routes: Vec<(Route, Arc<dyn Target>)>,
    access_log: Option<(BTreeMap<String, String>, LogSink)>,
    edge_4xx: Mutex<BTreeMap<u16, u64>>,
    exchanges: Exchanges,
}

/// What the access log tells of a request.
struct Seen {
    request_id: String,
    /// When it came, in ms.
    at: u64,
    /// The route that fits it.
    route_key: Option<String>,
    /// How long its function took, in ms; `None`: no function was asked.
    latency_ms: Option<u64>,
}

/// A route that fits a request.
struct Found<'a> {
    route: &'a Route,
    target: &'a Arc<dyn Target>,
    parameters: BTreeMap<String, String>,
}

impl Gateway {
    /// A gateway over these routes.
    #[must_use]
    pub fn new(routes: Vec<(Route, Arc<dyn Target>)>) -> Self {
        Self { routes, access_log: None, edge_4xx: Mutex::default(), exchanges: Exchanges::default() }
    }

    /// Writes down the address of each request and the body of each error.
    #[must_use]
    pub fn with_exchanges(mut self, exchanges: Exchanges) -> Self {
        self.exchanges = exchanges;
        self
    }

    /// Writes a line a request to `log`, under the name [`ACCESS_LOG`]: the template's names with the values of their
    /// variables ([`LOG_VARIABLES`]). An empty format writes none.
    #[must_use]
    pub fn with_access_log(mut self, format: BTreeMap<String, String>, log: LogSink) -> Self {
        self.access_log = (!format.is_empty()).then_some((format, log));
        self
    }

    /// Answers of 400 to 499 that no function gave, by status: since the start.
    #[must_use]
    pub fn edge_4xx(&self) -> BTreeMap<u16, u64> {
        self.edge_4xx.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request_id = uuid::Uuid::new_v4().to_string();
        self.exchanges.url(request.uri());
        let mut seen = Seen { request_id, at: now_ms(), route_key: None, latency_ms: None };
        let answer = self.answer(request, &mut seen).await;
        if answer.status().is_client_error() && seen.latency_ms.is_none() {
            let mut counts = self.edge_4xx.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(answer.status().as_u16()).or_default() += 1;
        }
        if let Some((format, log)) = &self.access_log {
            log(LogLine { function: ACCESS_LOG.to_owned(), stream: Stream::Runner, text: seen.line(format, &answer) });
        }
        if !self.exchanges.are_kept() || answer.status().as_u16() < 400 {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        // It is in memory already, so that reading it cannot fail.
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        self.exchanges.error(&body);
        Ok(Response::from_parts(head, Body::from(body)))
    }

    async fn answer<B>(&self, request: Request<B>, seen: &mut Seen) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        if head_size(&head) > HEAD_LIMIT {
            return message(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large");
        }
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned();
        let Some(Found { route, target, parameters }) = self.find(head.method.as_str(), &path) else {
            return message(StatusCode::NOT_FOUND, "Not Found");
        };
        let route_key = format!("{} {}", route.method, route.path);
        seen.route_key = Some(route_key.clone());
        let body = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
            }
            Err(_) => return message(StatusCode::BAD_REQUEST, "Bad Request"),
        };
        let event = Bytes::from(event(&route_key, seen, &head, &path, parameters, &body).to_string());
        if event.len() > EVENT_LIMIT {
            return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
        }
        let began = now_ms();
        let answer = tokio::time::timeout(INTEGRATION_TIMEOUT, target.invoke(event)).await;
        seen.latency_ms = Some(now_ms().saturating_sub(began));
        match answer {
            Ok(Ok(answer)) => answer_of(&answer)
                .unwrap_or_else(|| message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
            Err(_) | Ok(Err(InvokeError::Stopping)) => message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            Ok(Err(_)) => message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        }
    }

    /// The most specific route: fewest variable parts, `{name+}` last, then the method before `ANY`.
    fn find(&self, method: &str, path: &str) -> Option<Found<'_>> {
        self.routes
            .iter()
            .filter(|(route, _)| route.method == "ANY" || route.method == method)
            .filter_map(|(route, target)| {
                let (rank, parameters) = matches(&route.path, path)?;
                Some(((rank, route.method == "ANY"), route, target, parameters))
            })
            .min_by_key(|(rank, ..)| *rank)
            .map(|(_, route, target, parameters)| Found { route, target, parameters })
    }
}

impl Seen {
    fn line(&self, format: &BTreeMap<String, String>, answer: &Response<Body>) -> String {
        let value = |variable: &str| match variable {
            "$context.requestId" => Some(self.request_id.clone()),
            "$context.routeKey" => self.route_key.clone(),
            "$context.status" => Some(answer.status().as_u16().to_string()),
            "$context.responseLength" => hyper::body::Body::size_hint(answer.body()).exact().map(|n| n.to_string()),
            "$context.integrationLatency" => self.latency_ms.map(|ms| ms.to_string()),
            "$context.requestTimeEpoch" => Some(self.at.to_string()),
            _ => None,
        };
        let line = format.iter().map(|(name, variable)| {
            let value = value(variable).unwrap_or_else(|| ABSENT.to_owned());
            (name.clone(), Value::String(value))
        });
        Value::Object(line.collect()).to_string()
    }
}

/// Whether `path` fits `pattern`, with how loosely (smaller is more specific) and the path parameters.
fn matches(pattern: &str, path: &str) -> Option<(usize, BTreeMap<String, String>)> {
    let mut parameters = BTreeMap::new();
    let mut rank = 0;
    let mut rest: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let parts: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix("+}")) {
            let tail = rest.join("/");
            if rest.is_empty() || tail.is_empty() || index + 1 != parts.len() {
                return None;
            }
            parameters.insert(name.to_owned(), tail);
            return Some((rank + 1_000, parameters));
        }
        if rest.is_empty() {
            return None;
        }
        let value = rest.remove(0);
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) if !value.is_empty() => {
                parameters.insert(name.to_owned(), value.to_owned());
                rank += 1;
            }
            None if *part == value => {}
            _ => return None,
        }
    }
    rest.is_empty().then_some((rank, parameters))
}

fn head_size(head: &http::request::Parts) -> usize {
    let line = head.method.as_str().len() + head.uri.to_string().len() + " HTTP/1.1  \r\n".len();
    line + head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}

fn event(
    key: &str,
    seen: &Seen,
    head: &http::request::Parts,
    path: &str,
    parameters: BTreeMap<String, String>,
    body: &Bytes,
) -> Value {
    let query = head.uri.query().unwrap_or_default();
    let mut queries: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        append(&mut queries, key.into_owned(), &value);
    }
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    let mut cookies = vec![];
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        if name == header::COOKIE {
            cookies.extend(value.split("; ").map(str::to_owned));
        } else {
            append(&mut headers, name.as_str().to_owned(), &value);
        }
    }
    let header = |name: HeaderName| headers.get(name.as_str()).cloned().unwrap_or_default();
    let domain = header(header::HOST);
    let mut event = json!({
        "version": "2.0",
        "routeKey": key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": domain,
            "domainPrefix": "local",
            "http": {
                "method": head.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": header(header::USER_AGENT),
            },
            "requestId": seen.request_id,
            "routeKey": key,
            "stage": "$default",
            "time": clf_time(seen.at),
            "timeEpoch": seen.at,
        },
        "isBase64Encoded": false,
    });
    if !queries.is_empty() {
        event["queryStringParameters"] = json!(queries);
    }
    if !cookies.is_empty() {
        event["cookies"] = json!(cookies);
    }
    if !parameters.is_empty() {
        event["pathParameters"] = json!(parameters);
    }
    if !body.is_empty() {
        let text = is_text(&head.headers).then(|| std::str::from_utf8(body).ok()).flatten();
        event["isBase64Encoded"] = json!(text.is_none());
        event["body"] = json!(text.map_or_else(|| STANDARD.encode(body), str::to_owned));
    }
    event
}

/// Repeated names are joined by commas.
fn append(map: &mut BTreeMap<String, String>, name: String, value: &str) {
    map.entry(name).and_modify(|all| *all = format!("{all},{value}")).or_insert_with(|| value.to_owned());
}

/// Content types whose bodies API Gateway hands over as text; everything else is base64.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return true };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || ["application/json", "application/xml", "application/javascript"].contains(&kind.as_str())
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// `22/Nov/2026:10:00:00 +0000`.
fn clf_time(now: u64) -> String {
    let time = i64::try_from(now).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// The function's answer as HTTP; `None` if it is malformed.
fn answer_of(answer: &[u8]) -> Option<Response<Body>> {
    let value: Value = serde_json::from_slice(answer).ok()?;
    let Some(code) = value.get("statusCode") else {
        // Payload 2.0: an answer without status is the body of a 200.
        let mut response = Response::new(Body::from(value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Some(response);
    };
    let body = value.get("body").and_then(Value::as_str).unwrap_or_default();
    let encoded = value.get("isBase64Encoded").and_then(Value::as_bool).unwrap_or_default();
    let body = if encoded { STANDARD.decode(body).ok()? } else { body.as_bytes().to_vec() };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(u16::try_from(code.as_u64()?).ok()?).ok()?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (name, value) in value.get("headers").and_then(Value::as_object).into_iter().flatten() {
        response.headers_mut().insert(name.parse::<HeaderName>().ok()?, text(value).parse().ok()?);
    }
    for cookie in value.get("cookies").and_then(Value::as_array).into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, text(cookie).parse().ok()?);
    }
    if !response.headers().contains_key(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    Some(response)
}

fn message(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({ "message": text }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, path: &str) -> Option<Vec<String>> {
        matches(pattern, path).map(|(_, parameters)| parameters.into_values().collect())
    }

    #[test]
    fn paths_fit_patterns() {
        assert_eq!(fits("/", "/"), Some(vec![]));
        assert_eq!(fits("/syncs", "/syncs"), Some(vec![]));
        assert_eq!(fits("/syncs", "/syncs/1"), None);
        assert_eq!(fits("/syncs/{id}", "/syncs"), None);
        assert_eq!(fits("/syncs/{id}", "/syncs/"), None);
        assert_eq!(fits("/syncs/{id}/report", "/syncs/a b/report"), Some(vec!["a b".to_owned()]));
        assert_eq!(fits("/app/{proxy+}", "/app/a/b.js"), Some(vec!["a/b.js".to_owned()]));
        assert_eq!(fits("/app/{proxy+}", "/app/"), None);
    }

    struct Never;

    #[async_trait::async_trait]
    impl Target for Never {
        async fn invoke(&self, _: Bytes) -> Result<Bytes, InvokeError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_does_not_answer_within_30_s_is_a_503() {
        let route = Route { method: "GET".into(), path: "/".into(), public: true };
        let gateway = Gateway::new(vec![(route, Arc::new(Never))]);
        let began = tokio::time::Instant::now();
        let Ok(answer) = gateway.handle(Request::new(http_body_util::Empty::<Bytes>::new())).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(began.elapsed() >= INTEGRATION_TIMEOUT);
    }

    #[test]
    fn malformed_answers_are_refused() {
        assert!(answer_of(b"not json").is_none());
        assert!(answer_of(br#"{"statusCode":"x"}"#).is_none());
        assert!(answer_of(br#"{"statusCode":200,"body":"%","isBase64Encoded":true}"#).is_none());
        assert!(answer_of(br#"{"statusCode":200,"headers":{"a b":"c"}}"#).is_none());
        assert_eq!(answer_of(br#"{"statusCode":204}"#).map(|r| r.status()), Some(StatusCode::NO_CONTENT));
    }
}
