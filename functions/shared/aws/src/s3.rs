//! [`Objects`] over S3.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Object};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ports::{ObjectInfo, Objects, PortError, PortResult};

use crate::errors::{Meaning, Symptom, from_symptom, meaning, port_error, symptom};

const SERVICE: &str = "s3";
/// Objects of one listing: the service's limit and the port's promise.
const LISTED: usize = 1000;
/// Questions for tags that a listing lacks, under way at once.
const HEADS_AT_ONCE: usize = 8;
/// 1 PiB; the service's largest object is 50 TB.
const LONGER_THAN_ANY: u64 = 1 << 50;

/// The bucket in S3.
#[derive(Debug, Clone)]
pub struct S3Objects {
    client: Client,
    bucket: String,
}

impl S3Objects {
    /// `bucket`: its name; empty: this function has none, and every call is refused.
    #[must_use]
    pub fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Opens the connection with a question for an object that is not there, so that the first request does not wait for
    /// it. Whether it worked is of no interest: the first real call will tell.
    pub async fn warm(&self) {
        if self.bucket.is_empty() {
            return;
        }
        if let Err(error) = self.head("warm").await {
            tracing::debug!(%error, "could not open the connection ahead of time");
        }
    }

    fn bucket(&self) -> PortResult<&str> {
        if self.bucket.is_empty() {
            return Err(PortError::Refused { service: SERVICE, reason: "BUCKET is not set".to_owned() });
        }
        Ok(&self.bucket)
    }

    /// The bytes; `None`: there is no such object, or it has not the tag that is asked for.
    async fn read(&self, key: &str, range: Option<String>, tag: Option<&str>) -> PortResult<Option<Bytes>> {
        let sent = self.client.get_object().bucket(self.bucket()?).key(key).set_range(range).send().await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                return match meaning(symptom(&error)) {
                    Meaning::NoSuchObject => Ok(None),
                    // This answer names no tag: an object that took the place of a longer one looks like its end.
                    Meaning::BehindTheEnd => match tag {
                        None => Ok(Some(Bytes::new())),
                        Some(tag) => self.nothing_of(key, tag).await,
                    },
                    _ => Err(port_error(SERVICE, "GetObject", &error)),
                };
            }
        };
        // Told from the answer: not every server heeds a condition.
        if tag.is_some_and(|tag| answer.e_tag.as_deref().unwrap_or_default().trim_matches('"') != tag) {
            return Ok(None);
        }
        match answer.body.collect().await {
            Ok(body) => Ok(Some(body.into_bytes())),
            Err(_) => Err(from_symptom(SERVICE, "GetObject", Symptom::Dropped)),
        }
    }

    /// No bytes, if the object has this tag.
    async fn nothing_of(&self, key: &str, tag: &str) -> PortResult<Option<Bytes>> {
        Ok(self.head(key).await?.filter(|found| found.trim_matches('"') == tag).map(|_| Bytes::new()))
    }

    /// The object's tag, empty if the server gives none, or `None` if there is no such object.
    async fn head(&self, key: &str) -> PortResult<Option<String>> {
        match self.client.head_object().bucket(self.bucket()?).key(key).send().await {
            Ok(answer) => Ok(Some(answer.e_tag.unwrap_or_default())),
            Err(error) if meaning(symptom(&error)) == Meaning::NoSuchObject => Ok(None),
            Err(error) => Err(port_error(SERVICE, "HeadObject", &error)),
        }
    }

    /// A listing's entry; `None`: the object went away meanwhile. S3 lists every object with its tag; a server
    /// that does not (s3s-fs) is asked for it.
    async fn info(&self, object: Object) -> PortResult<Option<ObjectInfo>> {
        let (Some(key), Some(size)) = (object.key, object.size.and_then(|size| u64::try_from(size).ok())) else {
            return Ok(None);
        };
        let etag = match object.e_tag {
            Some(etag) => etag,
            None => match self.head(&key).await? {
                Some(etag) => etag,
                None => return Ok(None),
            },
        };
        Ok(Some(ObjectInfo { key, size, etag: etag.trim_matches('"').to_owned() }))
    }
}

/// The header of a range that is not empty.
fn range(from: u64, len: u64) -> String {
    let last = from.saturating_add(len - 1);
    // Servers refuse numbers near 2^64; behind the largest object a range needs no end.
    let end = if last < LONGER_THAN_ANY { last.to_string() } else { String::new() };
    format!("bytes={from}-{end}")
}

#[async_trait]
impl Objects for S3Objects {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.read(key, None, None).await
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        // HTTP cannot say "no bytes"; a range without an end it can answer would be the whole object.
        if len == 0 {
            return Ok(self.head(key).await?.map(|_| Bytes::new()));
        }
        self.read(key, Some(range(from, len)), None).await
    }

    async fn get_range_of(&self, key: &str, etag: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        if len == 0 {
            return self.nothing_of(key, etag).await;
        }
        self.read(key, Some(range(from, len)), Some(etag)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        // The SDK may repeat this: the same key gets the same bytes.
        self.client
            .put_object()
            .bucket(self.bucket()?)
            .key(key)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|error| port_error(SERVICE, "PutObject", &error))?;
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        let bucket = self.bucket()?;
        let mut listed: Vec<ObjectInfo> = Vec::new();
        let mut token = None;
        // A page may hold fewer objects than there are; only the flag says that it was the last.
        loop {
            let room = i32::try_from(LISTED - listed.len()).unwrap_or(i32::MAX);
            let page = self
                .client
                .list_objects_v2()
                .bucket(bucket)
                .prefix(prefix)
                .set_start_after(after.map(str::to_owned))
                .set_continuation_token(token)
                .max_keys(room)
                .send()
                .await
                .map_err(|error| port_error(SERVICE, "ListObjectsV2", &error))?;
            let objects = stream::iter(page.contents.unwrap_or_default()).map(|object| self.info(object));
            let objects: Vec<_> = objects.buffered(HEADS_AT_ONCE).try_collect().await?;
            listed.extend(objects.into_iter().flatten());
            token = page.next_continuation_token;
            if listed.len() >= LISTED || page.is_truncated != Some(true) || token.is_none() {
                return Ok(listed);
            }
        }
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        match self.client.delete_object().bucket(self.bucket()?).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) if meaning(symptom(&error)) == Meaning::NoSuchObject => Ok(()),
            Err(error) => Err(port_error(SERVICE, "DeleteObject", &error)),
        }
    }

    async fn begin_parts(&self, key: &str) -> PortResult<String> {
        let begun = self.client.create_multipart_upload().bucket(self.bucket()?).key(key).send().await;
        let begun = begun.map_err(|error| port_error(SERVICE, "CreateMultipartUpload", &error))?;
        begun.upload_id.ok_or_else(|| from_symptom(SERVICE, "CreateMultipartUpload", Symptom::BadAnswer))
    }

    async fn put_part(&self, key: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        let sent = self
            .client
            .upload_part()
            .bucket(self.bucket()?)
            .key(key)
            .upload_id(upload)
            .part_number(number.into())
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|error| port_error(SERVICE, "UploadPart", &error))?;
        sent.e_tag.ok_or_else(|| from_symptom(SERVICE, "UploadPart", Symptom::BadAnswer))
    }

    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        let part = |(tag, number): (&String, i32)| CompletedPart::builder().part_number(number).e_tag(tag).build();
        let parts =
            CompletedMultipartUpload::builder().set_parts(Some(tags.iter().zip(1..).map(part).collect())).build();
        let ended = self
            .client
            .complete_multipart_upload()
            .bucket(self.bucket()?)
            .key(key)
            .upload_id(upload)
            .multipart_upload(parts)
            .send()
            .await;
        match ended {
            Ok(_) => Ok(()),
            // An upload that was ended is forgotten: if the object is there, this was the second time.
            Err(_) if self.head(key).await?.is_some() => Ok(()),
            Err(error) => Err(port_error(SERVICE, "CompleteMultipartUpload", &error)),
        }
    }

    async fn sign(&self, key: &str, seconds: u64, filename: &str) -> PortResult<String> {
        let config = PresigningConfig::expires_in(Duration::from_secs(seconds))
            .map_err(|_| PortError::Refused { service: SERVICE, reason: "sign: at most a week".to_owned() })?;
        let signed = self
            .client
            .get_object()
            .bucket(self.bucket()?)
            .key(key)
            .response_content_type("text/csv; charset=utf-8")
            .response_content_disposition(format!("attachment; filename=\"{filename}\""))
            .presigned(config)
            .await
            .map_err(|error| port_error(SERVICE, "sign", &error))?;
        Ok(signed.uri().to_owned())
    }
}
