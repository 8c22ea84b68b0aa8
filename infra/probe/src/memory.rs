//! Ports of one process: the shared budget lives in memory, and nothing else is stored or sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ports::{
    Credentials, Expect, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortError, PortResult, Ports, Queue, Queues,
    Read, Secrets, Table, Tables, Vendor,
};

/// Ports that reach Marketo and remember rows until the process ends.
///
/// # Errors
/// When the TLS roots of the machine cannot be read.
pub(crate) fn ports(marketo: Credentials) -> anyhow::Result<Ports> {
    let memory = Arc::new(Memory { marketo, rows: Mutex::default() });
    Ok(Ports {
        tables: memory.clone(),
        objects: memory.clone(),
        queues: memory.clone(),
        http: Arc::new(aws::ReqwestHttp::new()?),
        bus: Arc::new(ports::NoBus),
        secrets: memory,
        clock: Arc::new(aws::SystemClock),
        random: Arc::new(aws::SystemRandom),
    })
}

struct Memory {
    marketo: Credentials,
    rows: Mutex<HashMap<(Table, Key), Item>>,
}

impl Memory {
    fn rows(&self) -> MutexGuard<'_, HashMap<(Table, Key), Item>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_here<T>() -> PortResult<T> {
    Err(PortError::Refused { service: "memory", reason: "a probe only keeps single rows".to_owned() })
}

#[async_trait]
impl Tables for Memory {
    async fn get(&self, table: Table, key: &Key, _: Read) -> PortResult<Option<Item>> {
        Ok(self.rows().get(&(table, key.clone())).cloned())
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        let mut rows = self.rows();
        let place = (table, item.key.clone());
        let holds = match expect {
            Expect::Anything => true,
            Expect::Absent => !rows.contains_key(&place),
            Expect::Rev(rev) => rows.get(&place).is_some_and(|item| item.rev == rev),
        };
        if holds {
            rows.insert(place, item);
        }
        Ok(holds)
    }

    async fn batch_get(&self, _: Table, _: &[Key], _: Read) -> PortResult<Vec<Item>> {
        not_here()
    }

    async fn put_all(&self, _: Table, _: Vec<Item>) -> PortResult<()> {
        not_here()
    }

    async fn delete(&self, _: Table, _: &Key, _: Expect) -> PortResult<bool> {
        not_here()
    }

    async fn query(&self, _: Table, _: &str, _: &str, _: Option<&str>, _: usize, _: Read) -> PortResult<Page> {
        not_here()
    }

    async fn due(&self, _: Table, _: &str, _: u64, _: usize) -> PortResult<Vec<Item>> {
        not_here()
    }
}

#[async_trait]
impl Objects for Memory {
    async fn get(&self, _: &str) -> PortResult<Option<Bytes>> {
        not_here()
    }

    async fn get_range(&self, _: &str, _: u64, _: u64) -> PortResult<Option<Bytes>> {
        not_here()
    }

    async fn put(&self, _: &str, _: Bytes) -> PortResult<()> {
        not_here()
    }

    async fn list(&self, _: &str, _: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        not_here()
    }

    async fn delete(&self, _: &str) -> PortResult<()> {
        not_here()
    }
}

#[async_trait]
impl Queues for Memory {
    async fn send(&self, _: Queue, _: Vec<Outgoing>) -> PortResult<()> {
        not_here()
    }
}

#[async_trait]
impl Secrets for Memory {
    async fn read(&self, vendor: Vendor) -> PortResult<Credentials> {
        match vendor {
            Vendor::Marketo => Ok(self.marketo.clone()),
            Vendor::Adobe => not_here(),
        }
    }
}
