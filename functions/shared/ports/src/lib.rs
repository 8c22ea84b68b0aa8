//! What the functions need from the world, as traits: tables, objects, queues, HTTP, secrets, time and randomness.
//!
//! Handlers take a [`Ports`] and nothing else, so that the same code runs over AWS, over the local stack and
//! over the simulation. Adapters live elsewhere; this crate holds only the contracts, and each comment here is
//! part of the contract: one suite (`contract` in the adapters' tests) is run against every implementation.

mod credentials;
mod failure;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use credentials::{Credentials, StreamSecret, StreamSecrets, Vendor};
pub use failure::Failure;

/// The tables. Each name is the logical one; the real name comes from the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Subscriptions, feeds, syncs, imports, cursors, budgets.
    Syncs,
    /// Tokens, leads, and the hints that lead to them.
    Identity,
    /// Audience heads, overlay rows and pending work.
    Audiences,
    /// List states and *want* pointers.
    Lists,
    /// Doorbells: one small row a key, saying since when it is dirty and until when it rests.
    Doorbells,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 5] = [Table::Syncs, Table::Identity, Table::Audiences, Table::Lists, Table::Doorbells];

    /// The environment variable that holds the real name.
    #[must_use]
    pub const fn env(self) -> &'static str {
        match self {
            Table::Syncs => "SYNCS_TABLE",
            Table::Identity => "IDENTITY_TABLE",
            Table::Audiences => "AUDIENCES_TABLE",
            Table::Lists => "LISTS_TABLE",
            Table::Doorbells => "DOORBELLS_TABLE",
        }
    }
}

/// The queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Matches that passed validation (standard).
    Matches,
    /// Entries of streams that passed verification (standard).
    Events,
    /// Doorbell of a subscription's identity work (FIFO, group = Munchkin id).
    IdentityWork,
    /// Doorbell of an audience (FIFO, group = Munchkin id and audience).
    AudienceWork,
    /// Doorbell of a subscription's lists (FIFO, group = Munchkin id).
    ListWrites,
}

impl Queue {
    /// Every queue that our code sends to.
    pub const ALL: [Queue; 5] =
        [Queue::Matches, Queue::Events, Queue::IdentityWork, Queue::AudienceWork, Queue::ListWrites];

    /// The environment variable that holds the queue's URL.
    #[must_use]
    pub const fn env(self) -> &'static str {
        match self {
            Queue::Matches => "MATCHES_QUEUE_URL",
            Queue::Events => "EVENTS_QUEUE_URL",
            Queue::IdentityWork => "IDENTITY_WORK_QUEUE_URL",
            Queue::AudienceWork => "AUDIENCE_WORK_QUEUE_URL",
            Queue::ListWrites => "LIST_WRITES_QUEUE_URL",
        }
    }

    /// FIFO queues need a group and a deduplication id; standard ones must have neither.
    #[must_use]
    pub const fn is_fifo(self) -> bool {
        !matches!(self, Queue::Matches | Queue::Events)
    }
}

/// Primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key; items of one partition are ordered by its bytes.
    pub sk: String,
}

impl Key {
    /// A key of two parts.
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }
}

/// When an item wants to be looked at: its place in the sparse index `due` of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Partition of the index.
    pub pk: String,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// One item of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Primary key.
    pub key: Key,
    /// Raised by every write; the condition of the next one. At least 1 once stored.
    pub rev: u64,
    /// The document: a JSON object.
    pub doc: serde_json::Value,
    /// Present: the item stands in the index `due`.
    pub due: Option<Due>,
    /// Seconds since the epoch after which the store may delete the item by itself (a broom, days late).
    pub expires_at: Option<u64>,
}

/// Condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There must be no item with this key.
    Absent,
    /// The stored item must have this `rev`.
    Rev(u64),
    /// No condition.
    Anything,
}

/// Consistency of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Sees every write that was answered before the read began.
    Consistent,
    /// May miss recent writes; half the price.
    Eventual,
}

/// One page of a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// Items in the order of their sort keys.
    pub items: Vec<Item>,
    /// Present: there may be more; pass it as `after` of the next call.
    pub next: Option<String>,
}

/// An object's listing entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key in the bucket.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag, without quotes.
    pub etag: String,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// JSON text, at most 256 KiB.
    pub body: String,
    /// Message group (FIFO queues only).
    pub group: Option<String>,
    /// Deduplication id, `<key>/<version>` (FIFO queues only). Good for five minutes.
    pub dedup: Option<String>,
}

/// What can go wrong at a port. All of them mean: try the whole message again later.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Certainly nothing was done (throttled, refused connection).
    #[error("{service} is busy or unreachable: {reason}")]
    Unavailable {
        /// Which dependency.
        service: &'static str,
        /// Our own words; never the payload.
        reason: String,
    },
    /// Nobody knows whether it was done (time-out, dropped connection).
    #[error("outcome unknown at {service}: {reason}")]
    Unknown {
        /// Which dependency.
        service: &'static str,
        /// Our own words; never the payload.
        reason: String,
    },
    /// The dependency refuses for a reason that a retry does not mend (no such table, access denied).
    #[error("{service} refused: {reason}")]
    Refused {
        /// Which dependency.
        service: &'static str,
        /// Our own words; never the payload.
        reason: String,
    },
}

/// Result of a port call.
pub type PortResult<T> = Result<T, PortError>;

/// A key-value store with conditional writes, ordered partitions and one sparse index per table.
#[async_trait]
pub trait Tables: Send + Sync {
    /// The item, or `None`.
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>>;

    /// Those of the items that exist, in no order. Any number of keys; duplicates are allowed.
    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>>;

    /// Stores `item` whole (replacing what stands there) if the condition holds. `false`: it did not hold and
    /// nothing was written. The caller sets `item.rev`, above the one it read.
    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool>;

    /// Stores all items without a condition, in any order, any number. On an error some may have been written.
    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()>;

    /// Deletes the item if the condition holds. `false`: it did not hold. Deleting what is not there with
    /// [`Expect::Anything`] is `true`.
    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool>;

    /// Items of one partition whose sort keys begin with `prefix` and come after `after`, in order, at most
    /// `limit` (fewer may come although there are more: then `next` is set).
    async fn query(
        &self,
        table: Table,
        pk: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        read: Read,
    ) -> PortResult<Page>;

    /// Items of the index `due` in partition `due_pk` whose time is at most `until` (ms), earliest first, at
    /// most `limit`. Eventually consistent: what is missed is found by a later call.
    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>>;
}

/// The bucket.
#[async_trait]
pub trait Objects: Send + Sync {
    /// The whole object, or `None`.
    async fn get(&self, key: &str) -> PortResult<Option<Bytes>>;

    /// `len` bytes from `from` (fewer at the end of the object), or `None` if there is no such object.
    async fn get_range(&self, key: &str, from: u64, len: u64) -> PortResult<Option<Bytes>>;

    /// As [`Objects::get_range`], of the object that has this entity tag; `None` also where another one stands there by now. So
    /// what is read in several pieces is of one object. Where nothing else is said, nothing is read.
    async fn get_range_of(&self, _key: &str, _etag: &str, _from: u64, _len: u64) -> PortResult<Option<Bytes>> {
        Err(PortError::Refused { service: "objects", reason: "no object is read by its tag here".to_owned() })
    }

    /// Stores the object. Our own objects are written once, under a fresh key.
    async fn put(&self, key: &str, body: Bytes) -> PortResult<()>;

    /// Objects whose keys begin with `prefix` and come after `after`, in order of their keys, at most 1,000.
    async fn list(&self, prefix: &str, after: Option<&str>) -> PortResult<Vec<ObjectInfo>>;

    /// Deletes the object; one that is not there is no error.
    async fn delete(&self, key: &str) -> PortResult<()>;

    /// Begins an object that comes in parts, and returns what its parts and its end must name. Begun and never ended, it
    /// goes away by itself. Where nothing else is said, objects in parts are refused.
    async fn begin_parts(&self, _key: &str) -> PortResult<String> {
        Err(no_parts())
    }

    /// Stores one part, and returns its tag. Parts are numbered from 1 to 10,000 and have 5 MiB or more, but for the last
    /// one. The same number again replaces.
    async fn put_part(&self, _key: &str, _upload: &str, _number: u16, _body: Bytes) -> PortResult<String> {
        Err(no_parts())
    }

    /// Makes the object of its parts, given their tags in order. Once more, after it was made, changes nothing.
    async fn end_parts(&self, _key: &str, _upload: &str, _tags: &[String]) -> PortResult<()> {
        Err(no_parts())
    }

    /// An address under which anybody who has it may read the object for so many seconds, and which a browser saves as a CSV
    /// file of this name (letters, digits, `-`, `_` and `.`). Nobody looks whether the object is there. Where nothing else
    /// is said, no address is given.
    async fn sign(&self, _key: &str, _seconds: u64, _filename: &str) -> PortResult<String> {
        Err(PortError::Refused { service: "objects", reason: "no addresses are given here".to_owned() })
    }
}

fn no_parts() -> PortError {
    PortError::Refused { service: "objects", reason: "no objects in parts are stored here".to_owned() }
}

/// The queues, for sending. Receiving is the platform's part.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Sends all messages, split as the queue demands. An error means that some may have been sent.
    async fn send(&self, queue: Queue, messages: Vec<Outgoing>) -> PortResult<()>;

    /// How many messages lie in each dead-letter queue, by its name; about as many, and only those that are not empty.
    /// Where the function is given none, there are none.
    async fn dead_letters(&self) -> PortResult<BTreeMap<String, u64>> {
        Ok(BTreeMap::new())
    }
}

/// Something that happened and that others may act upon: an event of the deployment's event bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// What kind of thing, such as `Incident began`: the event's detail type.
    pub kind: &'static str,
    /// The event: a JSON object without anything personal, at most 200 KB.
    pub detail: serde_json::Value,
}

/// The event bus.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Announces all of them. An error means that some may have been announced.
    async fn announce(&self, announcements: Vec<Announcement>) -> PortResult<()>;
}

/// The bus of a deployment that has none: nobody hears anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBus;

#[async_trait]
impl Bus for NoBus {
    async fn announce(&self, _: Vec<Announcement>) -> PortResult<()> {
        Ok(())
    }
}

/// HTTP to Marketo and Adobe, and to the webhooks that an operator names.
#[async_trait]
pub trait Http: Send + Sync {
    /// Sends one request and reads the whole answer, at most `timeout_ms`. [`PortError::Unavailable`] only if
    /// the request certainly did not reach the other side.
    async fn send(&self, request: http::Request<Vec<u8>>, timeout_ms: u64) -> PortResult<http::Response<Vec<u8>>>;
}

/// Where the vendors' credentials are kept, and the proofs that we ask of those who send streams.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The credentials as they stand there now: nothing is remembered from an earlier call.
    /// [`PortError::Refused`]: there are none, or they are malformed. No error holds a value.
    async fn read(&self, vendor: Vendor) -> PortResult<Credentials>;

    /// The secrets of streams, likewise. Where nothing else is said, there are none.
    async fn streams(&self) -> PortResult<StreamSecrets> {
        Err(PortError::Refused { service: "secrets", reason: "streams: the function is given none".to_owned() })
    }
}

/// Time.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn now_ms(&self) -> u64;

    /// Waits.
    async fn sleep_ms(&self, ms: u64);
}

/// Randomness, for ids, jitter and secrets: nobody can guess the next number.
pub trait Random: Send + Sync {
    /// A fresh random number.
    fn next_u64(&self) -> u64;
}

/// Everything a handler may touch.
#[derive(Clone)]
pub struct Ports {
    /// Tables.
    pub tables: Arc<dyn Tables>,
    /// Bucket.
    pub objects: Arc<dyn Objects>,
    /// Queues.
    pub queues: Arc<dyn Queues>,
    /// HTTP to Marketo and Adobe, and to webhooks.
    pub http: Arc<dyn Http>,
    /// The event bus.
    pub bus: Arc<dyn Bus>,
    /// The vendors' credentials, and the secrets of streams.
    pub secrets: Arc<dyn Secrets>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}
