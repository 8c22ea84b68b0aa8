//! What the SDK stands on: what Lambda sets in the environment, and the HTTP stack that the vendors are called with.
//! Why neither is the SDK's own: `infra/docs/decisions/43-one-http-stack.md`.

use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

use crate::http::{built, strict};

/// A connection inside one region stands within milliseconds; the TLS handshake at 128 MB takes some hundreds. Not scaled by
/// TIME_SCALE, like every time-out of real input and output.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The SDK's configuration from the environment that Lambda sets: `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN` (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>), and from what leads
/// elsewhere: `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_<service>`, `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT`
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>). Empty is unset. Nothing else is looked at: no
/// file of profiles, no metadata service.
///
/// # Errors
/// When the region or a key is not set, or the HTTP client cannot be made.
pub fn sdk_config(variable: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> anyhow::Result<SdkConfig> {
    let set = move |name: &str| variable(name).filter(|value| !value.is_empty());
    let needed = |name: &str| set(name).ok_or_else(|| anyhow::anyhow!("{name} is not set; Lambda sets it"));
    let on = |name: &str| set(name).map(|value| value.eq_ignore_ascii_case("true"));
    let credentials = Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?,
        needed("AWS_SECRET_ACCESS_KEY")?,
        set("AWS_SESSION_TOKEN"),
        None,
        "Lambda",
    );
    // The SDK reckons checksums over what was sent: nothing is to be unpacked below it.
    let http = Http(built(strict(CONNECT_TIMEOUT).no_gzip())?);
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(needed("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http);
    config
        .set_endpoint_url(set("AWS_ENDPOINT_URL"))
        .set_use_fips(on("AWS_USE_FIPS_ENDPOINT"))
        .set_use_dual_stack(on("AWS_USE_DUALSTACK_ENDPOINT"));
    Ok(config.service_config(Endpoints(set)).build())
}

/// The endpoints of single services.
struct Endpoints<F>(F);

impl<F> std::fmt::Debug for Endpoints<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endpoints")
    }
}

impl<F: Fn(&str) -> Option<String> + Send + Sync> LoadServiceConfig for Endpoints<F> {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().replace([' ', '-'], "_").to_uppercase();
        (self.0)(&format!("{}_{service}", key.env()))
    }
}

/// The SDK's requests over our client. How long an attempt may take is bounded above it; how long connecting may, in the client.
#[derive(Debug, Clone)]
struct Http(reqwest::Client);

impl HttpClient for Http {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let request = request.map(reqwest::Body::wrap);
            let request = reqwest::Request::try_from(request).map_err(|error| ConnectorError::user(error.into()))?;
            let answer: http::Response<reqwest::Body> = client.execute(request).await.map_err(failed)?.into();
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// All that can happen to a request on its way may not happen the next time; `errors.rs` tells what was never sent.
fn failed(error: reqwest::Error) -> ConnectorError {
    if error.is_builder() {
        ConnectorError::user(error.into())
    } else if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use ports::{Expect, Item, Key, PortError, PortResult, Table, Tables as _};
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn environment(more: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> + Send + Sync + 'static {
        let set =
            [("AWS_REGION", "eu-north-1"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret-canary")];
        let all: BTreeMap<_, _> = set.into_iter().chain(more.iter().copied()).collect();
        move |name| all.get(name).map(|&value| value.to_owned())
    }

    fn endpoint(config: &SdkConfig, service: &str) -> Option<String> {
        let key = ServiceConfigKey::builder().service_id(service).profile("endpoint_url").env("AWS_ENDPOINT_URL");
        config.service_config()?.load_config(key.build().expect("a key"))
    }

    #[test]
    fn what_lambda_does_not_set_is_named_and_no_value_is() {
        for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            let error = sdk_config(environment(&[(name, "")])).expect_err("not set");
            assert_eq!(error.to_string(), format!("{name} is not set; Lambda sets it"));
        }
        let config = sdk_config(environment(&[])).expect("a configuration");
        assert_eq!(config.region().map(Region::as_ref), Some("eu-north-1"));
        assert_eq!((config.endpoint_url(), config.use_fips(), config.use_dual_stack()), (None, None, None));
        assert_eq!(endpoint(&config, "SQS"), None);
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn endpoints_lead_elsewhere_for_all_services_and_for_one() {
        let config = sdk_config(environment(&[
            ("AWS_ENDPOINT_URL", "http://all"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://secrets"),
            ("AWS_ENDPOINT_URL_SQS", ""),
            ("AWS_USE_FIPS_ENDPOINT", "true"),
            ("AWS_USE_DUALSTACK_ENDPOINT", "false"),
        ]));
        let config = config.expect("a configuration");
        assert_eq!(config.endpoint_url(), Some("http://all"));
        assert_eq!(endpoint(&config, "Secrets Manager").as_deref(), Some("http://secrets"));
        assert_eq!(endpoint(&config, "SQS"), None);
        assert_eq!((config.use_fips(), config.use_dual_stack()), (Some(true), Some(false)));
    }

    /// A write under a condition, which has one attempt.
    async fn put(endpoint: &'static str) -> PortResult<bool> {
        let sdk = sdk_config(environment(&[("AWS_ENDPOINT_URL", endpoint)])).expect("a configuration");
        let tables = crate::DynamoTables::new(crate::dynamo_client(&sdk), [(Table::Lists, "lists".to_owned())].into());
        let item = Item { key: Key::new("p", "canary"), rev: 1, doc: json!({}), due: None, expires_at: None };
        tables.put(Table::Lists, item, Expect::Absent).await
    }

    /// A server that reads something, answers with `answer` and closes; where it is and how often it was called.
    async fn server(answer: &'static str) -> (&'static str, tokio::sync::mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).leak();
        let (call, calls) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(stream.read(&mut [0; 4096]).await.expect("a request") > 0);
                stream.write_all(answer.as_bytes()).await.expect("written");
                call.send(()).expect("the test listens");
            }
        });
        (url, calls)
    }

    #[tokio::test]
    async fn what_was_never_sent_is_unavailable_and_what_has_no_answer_is_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let closed = format!("http://{}", listener.local_addr().expect("an address")).leak();
        drop(listener);
        let error = put(closed).await.expect_err("nobody listens");
        assert!(matches!(error, PortError::Unavailable { .. }), "{error}");

        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}", "no HTTP\r\n\r\n"] {
            let (url, mut calls) = server(answer).await;
            let error = put(url).await.expect_err("cut");
            assert!(matches!(error, PortError::Unknown { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
            assert!(calls.recv().await.is_some() && calls.try_recv().is_err(), "one attempt");
        }
    }

    /// Those who are on call read the errors of the log.
    #[tokio::test]
    async fn a_service_that_is_busy_is_no_error_of_the_log() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&log);
        let lines = tracing_subscriber::fmt().with_writer(move || Lines(Arc::clone(&to)));
        let _guard = tracing::subscriber::set_default(lines.with_max_level(tracing::Level::WARN).finish());
        let (url, mut calls) = server("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}").await;
        put(url).await.expect_err("busy");
        assert!(calls.recv().await.is_some());
        assert_eq!(String::from_utf8_lossy(&log.lock().expect("lines")), "");
        tracing::warn!("seen");
        assert!(String::from_utf8_lossy(&log.lock().expect("lines")).contains("seen"));
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lines").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (elsewhere, mut followed) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        let answer = format!("HTTP/1.1 307 Elsewhere\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
        let (url, mut calls) = server(answer.leak()).await;
        put(url).await.expect_err("no answer of the service");
        assert!(calls.recv().await.is_some() && followed.try_recv().is_err());
    }
}
