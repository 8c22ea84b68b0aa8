//! The embedded S3, which tells queues of new objects as S3 does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, S3Result};
use s3s_fs::FileSystem;
use serde_json::json;
use tokio::net::TcpListener;

use crate::calls::{self, Calls};
use crate::sqs::Sqs;
use crate::template::Bucket;
use crate::{ACCESS_KEY, REGION, SECRET_KEY, now_ms};

/// Characters of a key that S3 leaves as they are in a notification.
const KEY_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// The buckets of the stack.
#[derive(Clone)]
pub struct S3 {
    service: S3Service,
    root: PathBuf,
    buckets: Arc<Vec<Bucket>>,
    sqs: Sqs,
    sequence: Arc<AtomicU64>,
}

/// Signed requests are checked, unsigned ones (our own) pass.
struct Everybody;

#[async_trait::async_trait]
impl S3Access for Everybody {
    async fn check(&self, _: &mut S3AccessContext<'_>) -> S3Result<()> {
        Ok(())
    }
}

impl S3 {
    /// Makes the buckets under `root`, and sends each notified queue its `s3:TestEvent` once. `callers` are access keys beside
    /// [`ACCESS_KEY`].
    pub async fn open(root: &Path, buckets: Vec<Bucket>, callers: Vec<String>, sqs: Sqs) -> anyhow::Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        for bucket in &buckets {
            std::fs::create_dir_all(root.join(&bucket.name))?;
            for (index, notification) in bucket.notifications.iter().enumerate() {
                let mark = root.join(format!(".test-event-{}-{index}", bucket.name));
                if !mark.exists() {
                    let event = json!({
                        "Service": "Amazon S3",
                        "Event": "s3:TestEvent",
                        "Time": iso(now_ms()),
                        "Bucket": bucket.name,
                        "RequestId": uuid::Uuid::new_v4().simple().to_string(),
                        "HostId": "local",
                    });
                    sqs.send(&notification.queue, event.to_string()).await?;
                    std::fs::write(&mark, "")?;
                }
            }
        }
        let files = FileSystem::new(root).map_err(|error| anyhow!("S3 folder {}: {error:?}", root.display()))?;
        let mut builder = S3ServiceBuilder::new(files);
        let mut keys = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        for caller in callers {
            keys.register(caller, SECRET_KEY.into());
        }
        builder.set_auth(keys);
        builder.set_access(Everybody);
        Ok(Self {
            service: builder.build(),
            root: root.to_owned(),
            buckets: Arc::new(buckets),
            sqs,
            sequence: Arc::default(),
        })
    }

    /// Serves the S3 protocol until the task is aborted.
    pub async fn serve(self, listener: TcpListener, calls: Calls) {
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let s3 = self.clone();
            if let Some(caller) = calls::signed_by(request.headers(), request.uri())
                && let Some((action, resource)) = calls::of_s3(request.method(), request.uri())
            {
                calls.seen(caller, action, &resource);
            }
            async move { s3.handle(request.map(Body::from)).await }
        });
        crate::http_server::serve(listener, service).await;
    }

    /// Stores an object in the only bucket, as a delivery from outside does.
    pub async fn put(&self, key: &str, bytes: Bytes) -> anyhow::Result<()> {
        ensure!(self.buckets.len() == 1, "the template has {} buckets, not one", self.buckets.len());
        let path = format!("/{}/{}", self.buckets[0].name, utf8_percent_encode(key, KEY_PLAIN));
        let request = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-length", bytes.len())
            .body(Body::from(bytes))?;
        let response = self.handle(request).await.map_err(|error| anyhow!("put {key}: {error:?}"))?;
        ensure!(response.status().is_success(), "put {key}: S3 answered {}", response.status());
        Ok(())
    }

    async fn handle(&self, request: Request<Body>) -> Result<Response<Body>, HttpError> {
        let created = created(&request);
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        let response = self.service.call(request).await?;
        if let Some(event) = created
            && response.status() == StatusCode::OK
            && let Some((bucket, key)) = path.trim_start_matches('/').split_once('/')
        {
            let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).unwrap_or_default();
            // The object is stored: an event that cannot be sent is what the schedule's backstop is for.
            if let Err(error) = self.notify(event, bucket, key, etag.trim_matches('"')).await {
                tracing::warn!(error = %format!("{error:#}"), "an S3 notification was not sent");
            }
        }
        Ok(response)
    }

    async fn notify(&self, event: &str, bucket: &str, key: &str, etag: &str) -> anyhow::Result<()> {
        let Some(bucket) = self.buckets.iter().find(|one| one.name == bucket) else { return Ok(()) };
        let told: BTreeMap<_, _> = bucket
            .notifications
            .iter()
            .filter(|one| key.starts_with(&one.prefix) && key.ends_with(&one.suffix))
            .map(|one| (&one.queue, one))
            .collect();
        for queue in told.into_keys() {
            let size = tokio::fs::metadata(self.root.join(&bucket.name).join(key)).await.map_or(0, |m| m.len());
            let now = now_ms();
            let sequencer = format!("{now:012X}{:06X}", self.sequence.fetch_add(1, Ordering::Relaxed));
            let body = json!({ "Records": [{
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventTime": iso(now),
                "eventName": event,
                "userIdentity": { "principalId": "local" },
                "requestParameters": { "sourceIPAddress": "127.0.0.1" },
                "responseElements": { "x-amz-request-id": uuid::Uuid::new_v4().simple().to_string() },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "local",
                    "bucket": {
                        "name": bucket.name,
                        "ownerIdentity": { "principalId": "local" },
                        "arn": format!("arn:aws:s3:::{}", bucket.name),
                    },
                    "object": {
                        "key": utf8_percent_encode(key, KEY_PLAIN).to_string().replace("%20", "+"),
                        "size": size,
                        "eTag": etag,
                        "sequencer": sequencer,
                    },
                },
            }]});
            self.sqs.send(queue, body.to_string()).await?;
        }
        Ok(())
    }
}

/// The event of a request that makes an object.
fn created(request: &Request<Body>) -> Option<&'static str> {
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == name);
    match *request.method() {
        // Sub-resources (?tagging, ?acl) and parts make no object.
        Method::PUT if has("partNumber") || has("tagging") || has("acl") || has("retention") || has("legal-hold") => {
            None
        }
        Method::PUT if request.headers().contains_key("x-amz-copy-source") => Some("ObjectCreated:Copy"),
        Method::PUT => Some("ObjectCreated:Put"),
        Method::POST if has("uploadId") => Some("ObjectCreated:CompleteMultipartUpload"),
        _ => None,
    }
}

/// A time (ms) as AWS writes it.
pub(crate) fn iso(now: u64) -> String {
    let time = i64::try_from(now).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
