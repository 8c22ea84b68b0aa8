//! What a function is not given: every call is refused.

use async_trait::async_trait;
use bytes::Bytes;
use ports::{Credentials, Http, ObjectInfo, Objects, PortError, PortResult, Secrets, Vendor};

/// In the place of the bucket, of HTTP and of secrets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absent;

fn refused<T>(service: &'static str) -> PortResult<T> {
    Err(PortError::Refused { service, reason: "the function is given none".to_owned() })
}

#[async_trait]
impl Objects for Absent {
    async fn get(&self, _: &str) -> PortResult<Option<Bytes>> {
        refused("objects")
    }

    async fn get_range(&self, _: &str, _: u64, _: u64) -> PortResult<Option<Bytes>> {
        refused("objects")
    }

    async fn put(&self, _: &str, _: Bytes) -> PortResult<()> {
        refused("objects")
    }

    async fn list(&self, _: &str, _: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        refused("objects")
    }

    async fn delete(&self, _: &str) -> PortResult<()> {
        refused("objects")
    }
}

#[async_trait]
impl Http for Absent {
    async fn send(&self, _: http::Request<Vec<u8>>, _: u64) -> PortResult<http::Response<Vec<u8>>> {
        refused("http")
    }
}

#[async_trait]
impl Secrets for Absent {
    async fn read(&self, _: Vendor) -> PortResult<Credentials> {
        refused("secrets")
    }
}
