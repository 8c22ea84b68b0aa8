//! Notes what each function asks of AWS, as the local stack does (`infra/local/stack/src/calls.rs`), for the template's
//! permissions: worlds at random come by what the end-to-end tests never do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ports::{
    Announcement, Bus, Expect, Item, Key, ObjectInfo, Objects, Outgoing, Page, PortResult, Ports, Queue, Queues, Read,
    Table, Tables,
};
use repo::permissions::Permission;

/// The dead-letter queues whose messages are counted.
const DEAD: [&str; 6] = ["matches", "events", "incoming", "identity-work", "audience-work", "list-writes"];

static NOTED: OnceLock<Mutex<BTreeSet<Permission>>> = OnceLock::new();

/// Begins to note; from then on for the whole process, of worlds that are made later.
pub fn listen() {
    NOTED.get_or_init(Mutex::default);
}

/// Everything that was noted.
#[must_use]
pub fn noted() -> BTreeSet<Permission> {
    NOTED.get().map(|noted| noted.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// Ports that note what goes through them, if somebody listens.
pub(crate) fn of(function: &'static str, ports: Ports) -> Ports {
    let Some(noted) = NOTED.get() else { return ports };
    let noting = Arc::new(Noting { function, inner: ports.clone(), noted });
    Ports { tables: noting.clone(), objects: noting.clone(), queues: noting.clone(), bus: noting, ..ports }
}

struct Noting {
    function: &'static str,
    inner: Ports,
    noted: &'static Mutex<BTreeSet<Permission>>,
}

impl Noting {
    fn note(&self, action: &str, resource: String) {
        let permission = Permission { function: self.function.to_owned(), action: action.to_owned(), resource };
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(permission);
    }

    fn table(&self, action: &str, table: Table) {
        self.note(action, format!("local-{table:?}Table"));
    }

    fn objects(&self, action: &str) {
        self.note(action, "local-bucket/*".to_owned());
    }
}

#[async_trait]
impl Tables for Noting {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        self.table("dynamodb:GetItem", table);
        self.inner.tables.get(table, key, read).await
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        self.table("dynamodb:BatchGetItem", table);
        self.inner.tables.batch_get(table, keys, read).await
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        self.table("dynamodb:PutItem", table);
        self.inner.tables.put(table, item, expect).await
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        self.table("dynamodb:BatchWriteItem", table);
        self.inner.tables.put_all(table, items).await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        self.table("dynamodb:DeleteItem", table);
        self.inner.tables.delete(table, key, expect).await
    }

    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        read: Read,
    ) -> PortResult<Page> {
        self.table("dynamodb:Query", table);
        self.inner.tables.query(table, pk, prefix, after, limit, read).await
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        self.note("dynamodb:Query", format!("local-{table:?}Table/index/due"));
        self.inner.tables.due(table, due_pk, until, limit).await
    }
}

#[async_trait]
impl Objects for Noting {
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>> {
        self.objects("s3:GetObject");
        self.inner.objects.get(key).await
    }

    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.objects("s3:GetObject");
        self.inner.objects.get_range(key, from, len).await
    }

    async fn get_range_of(&self, key: &str, tag: &str, from: u64, len: u64) -> PortResult<Option<Bytes>> {
        self.objects("s3:GetObject");
        self.inner.objects.get_range_of(key, tag, from, len).await
    }

    async fn put(&self, key: &str, body: Bytes) -> PortResult<()> {
        self.objects("s3:PutObject");
        self.inner.objects.put(key, body).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>> {
        self.note("s3:ListBucket", "local-bucket".to_owned());
        self.inner.objects.list(prefix, after).await
    }

    async fn delete(&self, key: &str) -> PortResult<()> {
        self.objects("s3:DeleteObject");
        self.inner.objects.delete(key).await
    }

    async fn begin_parts(&self, key: &str) -> PortResult<String> {
        self.objects("s3:PutObject");
        self.inner.objects.begin_parts(key).await
    }

    async fn put_part(&self, key: &str, upload: &str, number: u16, body: Bytes) -> PortResult<String> {
        self.objects("s3:PutObject");
        self.inner.objects.put_part(key, upload, number, body).await
    }

    async fn end_parts(&self, key: &str, upload: &str, tags: &[String]) -> PortResult<()> {
        self.objects("s3:PutObject");
        self.inner.objects.end_parts(key, upload, tags).await
    }

    async fn sign(&self, key: &str, seconds: u64, filename: &str) -> PortResult<String> {
        // Whoever holds the address reads with the function's permission.
        self.objects("s3:GetObject");
        self.inner.objects.sign(key, seconds, filename).await
    }
}

#[async_trait]
impl Queues for Noting {
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()> {
        let name = match queue {
            Queue::Matches => "local-matches",
            Queue::Events => "local-events",
            Queue::IdentityWork => "local-identity-work.fifo",
            Queue::AudienceWork => "local-audience-work.fifo",
            Queue::ListWrites => "local-list-writes.fifo",
        };
        self.note("sqs:SendMessage", name.to_owned());
        self.inner.queues.send(queue, messages).await
    }

    async fn dead_letters(&self) -> PortResult<BTreeMap<String, u64>> {
        for name in DEAD {
            let fifo = if name.ends_with('k') || name.starts_with("list") { ".fifo" } else { "" };
            self.note("sqs:GetQueueAttributes", format!("local-{name}-dead{fifo}"));
        }
        self.inner.queues.dead_letters().await
    }
}

#[async_trait]
impl Bus for Noting {
    async fn announce(&self, announcements: Vec<Announcement>) -> PortResult<()> {
        self.note("events:PutEvents", "event-bus".to_owned());
        self.inner.bus.announce(announcements).await
    }
}
