//! What the functions ask of AWS: which function took which action on which resource. It is written down where logs are kept
//! ([`crate::kept`]), a line each, so that the template's permissions can be compared with it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use http::{HeaderMap, Method, Uri, header};

use crate::ACCESS_KEY;
use crate::usage::{MAPPING, OUTSIDE};

/// The file's name.
pub const FILE: &str = "calls.log";

/// Writes calls down, each once. Clones write into the same file.
#[derive(Debug, Clone, Default)]
pub struct Calls(Option<Arc<Mutex<Kept>>>);

#[derive(Debug)]
struct Kept {
    lines: BTreeSet<String>,
    file: File,
}

impl Calls {
    /// A file in a fresh folder under `STACK_LOGS_DIR`; without that variable nothing is written down.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open() -> anyhow::Result<Self> {
        let Some(folder) = crate::kept::folder()? else { return Ok(Self::default()) };
        let file = OpenOptions::new().create(true).append(true).open(folder.join(FILE));
        let kept = Kept { lines: BTreeSet::new(), file: file.context("cannot write calls")? };
        Ok(Self(Some(Arc::new(Mutex::new(kept)))))
    }

    /// Whether anything is written down.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes down that `caller` took `action` (as IAM names it) on `resource`, which bears the name that it has here. Whoever
    /// is no function is left out.
    pub(crate) fn seen(&self, caller: &str, action: &str, resource: &str) {
        let Some(kept) = &self.0 else { return };
        if [OUTSIDE, MAPPING, ACCESS_KEY].contains(&caller) {
            return;
        }
        let line = format!("{caller} {action} {resource}");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lines.insert(line.clone()) {
            // A full disk must not stop the servers.
            kept.file.write_all(format!("{line}\n").as_bytes()).ok();
        }
    }
}

/// The access key with which a request is signed, in its head or its address.
pub(crate) fn signed_by<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let head = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let head = head.and_then(|text| Some(text.split_once("Credential=")?.1));
    let query = || Some(uri.query()?.split_once("X-Amz-Credential=")?.1);
    let credential = head.or_else(query)?;
    credential.split(['/', '%']).next()
}

/// What IAM calls a request to S3, and on what it needs it: the bucket, or the objects in it (`name/*`).
pub(crate) fn of_s3(method: &Method, uri: &Uri) -> Option<(&'static str, String)> {
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let has = |name: &str| {
        let query = uri.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == name)
    };
    let action = match *method {
        Method::GET | Method::HEAD if key.is_empty() => return Some(("s3:ListBucket", bucket.to_owned())),
        Method::GET if has("uploadId") => "s3:ListMultipartUploadParts",
        Method::GET | Method::HEAD => "s3:GetObject",
        Method::DELETE if has("uploadId") => "s3:AbortMultipartUpload",
        Method::DELETE => "s3:DeleteObject",
        Method::POST if has("delete") => "s3:DeleteObject",
        Method::PUT | Method::POST => "s3:PutObject",
        _ => return None,
    };
    Some((action, format!("{bucket}/*")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_s3_is_named_as_iam_names_it() {
        let of = |method: Method, uri: &str| of_s3(&method, &uri.parse().expect("an address")).expect("an action");
        let objects = |action| (action, "b/*".to_owned());
        assert_eq!(of(Method::GET, "/b?list-type=2&prefix=x"), ("s3:ListBucket", "b".to_owned()));
        assert_eq!(of(Method::GET, "/b/a/key"), objects("s3:GetObject"));
        assert_eq!(of(Method::PUT, "/b/a/key?partNumber=1&uploadId=u"), objects("s3:PutObject"));
        assert_eq!(of(Method::POST, "/b/a/key?uploads"), objects("s3:PutObject"));
        assert_eq!(of(Method::DELETE, "/b/a/key"), objects("s3:DeleteObject"));
        assert_eq!(of(Method::DELETE, "/b/a/key?uploadId=u"), objects("s3:AbortMultipartUpload"));
    }

    #[test]
    fn who_signed_stands_in_the_head_or_in_the_address() {
        let mut headers = HeaderMap::new();
        let plain = Uri::from_static("/b/key");
        assert_eq!(signed_by(&headers, &plain), None);
        let signed = Uri::from_static("/b/key?X-Amz-Credential=create-sync%2F20261123%2Fus-east-1");
        assert_eq!(signed_by(&headers, &signed), Some("create-sync"));
        let value = "AWS4-HMAC-SHA256 Credential=list-writer/20261123/us-east-1/s3/aws4_request, Signature=x";
        headers.insert(header::AUTHORIZATION, header::HeaderValue::from_static(value));
        assert_eq!(signed_by(&headers, &plain), Some("list-writer"));
    }
}
