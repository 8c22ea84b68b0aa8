//! [`Tables`] over DynamoDB.
//!
//! An item's attributes: `pk`, `sk` (strings, the primary key), `rev` (number), `doc` (the document as JSON
//! text: a map of attributes costs several times as much to read and write), and where they apply `due_pk` (string) and `due_at` (number, ms), the key of the index `due` with all attributes projected,
//! and `expires_at` (number, s), the table's TTL attribute.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Config;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, PutRequest, WriteRequest};
use futures::{StreamExt, TryStreamExt, stream};
use ports::{Due, Expect, Item, Key, Page, PortError, PortResult, Read, Table, Tables};

use crate::connect::retries;
use crate::errors::{Meaning, meaning, port_error, symptom};
use crate::system::{back_off, while_unavailable};

const SERVICE: &str = "dynamodb";
/// The sparse index of every table that has due items.
const DUE_INDEX: &str = "due";
/// Keys of one BatchGetItem: the service's limit.
const KEYS_PER_GET: usize = 100;
/// Items of one BatchWriteItem: the service's limit.
const ITEMS_PER_WRITE: usize = 25;
/// Batches under way at once. 8 × 25 items are 200 write units at a time, a fifth of one partition's 1,000 a second.
const BATCHES_AT_ONCE: usize = 8;
/// Rounds without any progress of what a batch call left unprocessed, before we give up: about 5 s of pauses.
const IDLE_ROUNDS: u32 = 8;

type Attributes = HashMap<String, AttributeValue>;

/// The tables in DynamoDB.
#[derive(Debug, Clone)]
pub struct DynamoTables {
    client: Client,
    names: BTreeMap<Table, String>,
}

impl DynamoTables {
    /// `names` holds the real name of each table that this function may use; a call on another one is refused.
    #[must_use]
    pub fn new(client: Client, names: BTreeMap<Table, String>) -> Self {
        Self { client, names }
    }

    /// Opens the connection with one read of half a unit, so that the first request does not wait for it.
    /// Whether it worked is of no interest: the first real call will tell.
    pub async fn warm(&self) {
        let Some(table) = self.names.keys().next() else { return };
        if let Err(error) = self.get(*table, &Key::new("warm", "warm"), Read::Eventual).await {
            tracing::debug!(%error, "could not open the connection ahead of time");
        }
    }

    fn name(&self, table: Table) -> PortResult<&str> {
        self.names
            .get(&table)
            .map(String::as_str)
            .ok_or_else(|| PortError::Refused { service: SERVICE, reason: format!("{} is not set", table.env()) })
    }

    /// One page of BatchGetItem until nothing is left unprocessed.
    async fn get_page(&self, name: &str, keys: Vec<Attributes>, read: Read) -> PortResult<Vec<Item>> {
        let mut found = Vec::with_capacity(keys.len());
        let mut left = keys;
        let mut idle = 0;
        loop {
            let asked = left.len();
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(left))
                .consistent_read(read == Read::Consistent)
                .build()
                .map_err(|_| broken("BatchGetItem"))?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(name, wanted)
                .send()
                .await
                .map_err(|error| port_error(SERVICE, "BatchGetItem", &error))?;
            for attributes in answer.responses.into_iter().flat_map(HashMap::into_values).flatten() {
                found.push(to_item(attributes)?);
            }
            left =
                answer.unprocessed_keys.into_iter().flat_map(HashMap::into_values).flat_map(|rest| rest.keys).collect();
            if left.is_empty() {
                return Ok(found);
            }
            idle = pause(idle, asked, left.len(), "BatchGetItem").await?;
        }
    }

    /// One page of BatchWriteItem until nothing is left unprocessed.
    async fn write_page(&self, name: &str, writes: Vec<WriteRequest>) -> PortResult<()> {
        let mut left = writes;
        let mut idle = 0;
        loop {
            let asked = left.len();
            let answer = self
                .client
                .batch_write_item()
                .request_items(name, left)
                .send()
                .await
                .map_err(|error| port_error(SERVICE, "BatchWriteItem", &error))?;
            left = answer.unprocessed_items.into_iter().flat_map(HashMap::into_values).flatten().collect();
            if left.is_empty() {
                return Ok(());
            }
            idle = pause(idle, asked, left.len(), "BatchWriteItem").await?;
        }
    }
}

/// Waits before the rest of a batch is sent again; an error after [`IDLE_ROUNDS`] rounds in a row that did nothing.
async fn pause(idle: u32, asked: usize, left: usize, operation: &str) -> PortResult<u32> {
    let idle = if left < asked { 0 } else { idle + 1 };
    if idle == IDLE_ROUNDS {
        return Err(PortError::Unavailable {
            service: SERVICE,
            reason: format!("{operation}: {left} items stay unprocessed"),
        });
    }
    back_off(idle).await;
    Ok(idle)
}

#[async_trait]
impl Tables for DynamoTables {
    async fn get(&self, table: Table, key: &Key, read: Read) -> PortResult<Option<Item>> {
        let answer = self
            .client
            .get_item()
            .table_name(self.name(table)?)
            .set_key(Some(key_attributes(key)))
            .consistent_read(read == Read::Consistent)
            .send()
            .await
            .map_err(|error| port_error(SERVICE, "GetItem", &error))?;
        answer.item.map(to_item).transpose()
    }

    async fn batch_get(&self, table: Table, keys: &[Key], read: Read) -> PortResult<Vec<Item>> {
        let name = self.name(table)?;
        // The service refuses a batch that names a key twice.
        let mut distinct: Vec<&Key> = keys.iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let pages: Vec<Vec<Attributes>> =
            distinct.chunks(KEYS_PER_GET).map(|page| page.iter().map(|key| key_attributes(key)).collect()).collect();
        stream::iter(pages.into_iter().map(|page| self.get_page(name, page, read)))
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_concat()
            .await
    }

    async fn put(&self, table: Table, item: Item, expect: Expect) -> PortResult<bool> {
        let name = self.name(table)?;
        let attributes = from_item(item)?;
        while_unavailable(|| async {
            let (condition, values) = condition(expect);
            let call = self
                .client
                .put_item()
                .table_name(name)
                .set_item(Some(attributes.clone()))
                .set_condition_expression(condition)
                .set_expression_attribute_values(values);
            let sent = match once(expect) {
                Some(config) => call.customize().config_override(config).send().await,
                None => call.send().await,
            };
            match sent {
                Ok(_) => Ok(true),
                Err(error) if meaning(symptom(&error)) == Meaning::ConditionFailed => Ok(false),
                Err(error) => Err(port_error(SERVICE, "PutItem", &error)),
            }
        })
        .await
    }

    async fn put_all(&self, table: Table, items: Vec<Item>) -> PortResult<()> {
        let name = self.name(table)?;
        // The service refuses a batch that names a key twice; of two items with one key the later one stands.
        let mut distinct = BTreeMap::new();
        for item in items {
            distinct.insert(item.key.clone(), item);
        }
        let mut writes = Vec::with_capacity(distinct.len());
        for item in distinct.into_values() {
            let put =
                PutRequest::builder().set_item(Some(from_item(item)?)).build().map_err(|_| broken("BatchWriteItem"))?;
            writes.push(WriteRequest::builder().put_request(put).build());
        }
        let pages: Vec<Vec<WriteRequest>> = writes.chunks(ITEMS_PER_WRITE).map(<[_]>::to_vec).collect();
        stream::iter(pages.into_iter().map(|page| self.write_page(name, page)))
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_collect()
            .await
    }

    async fn delete(&self, table: Table, key: &Key, expect: Expect) -> PortResult<bool> {
        let name = self.name(table)?;
        while_unavailable(|| async {
            let (condition, values) = condition(expect);
            let call = self
                .client
                .delete_item()
                .table_name(name)
                .set_key(Some(key_attributes(key)))
                .set_condition_expression(condition)
                .set_expression_attribute_values(values);
            let sent = match once(expect) {
                Some(config) => call.customize().config_override(config).send().await,
                None => call.send().await,
            };
            match sent {
                Ok(_) => Ok(true),
                Err(error) if meaning(symptom(&error)) == Meaning::ConditionFailed => Ok(false),
                Err(error) => Err(port_error(SERVICE, "DeleteItem", &error)),
            }
        })
        .await
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
        let name = self.name(table)?;
        let start = match start(prefix, after) {
            Start::Nowhere => return Ok(Page::default()),
            _ if limit == 0 => return Ok(Page::default()),
            Start::Beginning => None,
            Start::After(sk) => Some(key_attributes(&Key::new(pk, sk))),
        };
        let mut call = self
            .client
            .query()
            .table_name(name)
            .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
            .set_exclusive_start_key(start)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .consistent_read(read == Read::Consistent);
        // begins_with refuses an empty string.
        call = if prefix.is_empty() {
            call.key_condition_expression("pk = :pk")
        } else {
            call.key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
        };
        let answer = call.send().await.map_err(|error| port_error(SERVICE, "Query", &error))?;
        let items = answer.items.into_iter().flatten().map(to_item).collect::<PortResult<_>>()?;
        let next = match answer.last_evaluated_key {
            Some(mut key) => Some(take_string(&mut key, "sk")?),
            None => None,
        };
        Ok(Page { items, next })
    }

    async fn due(&self, table: Table, due_pk: &str, until: u64, limit: usize) -> PortResult<Vec<Item>> {
        let name = self.name(table)?;
        let mut items = Vec::new();
        let mut start = None;
        while items.len() < limit {
            let answer = self
                .client
                .query()
                .table_name(name)
                .index_name(DUE_INDEX)
                .key_condition_expression("due_pk = :pk AND due_at <= :until")
                .expression_attribute_values(":pk", AttributeValue::S(due_pk.to_owned()))
                .expression_attribute_values(":until", AttributeValue::N(until.to_string()))
                .set_exclusive_start_key(start)
                .limit(i32::try_from(limit - items.len()).unwrap_or(i32::MAX))
                .send()
                .await
                .map_err(|error| port_error(SERVICE, "Query", &error))?;
            for attributes in answer.items.into_iter().flatten() {
                items.push(to_item(attributes)?);
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(items)
    }
}

/// Where a query begins.
#[derive(Debug, PartialEq, Eq)]
enum Start<'a> {
    Beginning,
    After(&'a str),
    /// All that has the prefix comes before `after`.
    Nowhere,
}

/// The service refuses a start key outside of what the query's condition allows.
fn start<'a>(prefix: &str, after: Option<&'a str>) -> Start<'a> {
    match after {
        Some(sk) if sk.starts_with(prefix) && !sk.is_empty() => Start::After(sk),
        Some(sk) if sk > prefix => Start::Nowhere,
        _ => Start::Beginning,
    }
}

/// No retries inside the SDK for a conditional write: after an attempt with an unknown outcome the next one would
/// meet our own first write and answer "condition failed", which the caller must be able to believe. Repeats
/// happen in [`while_unavailable`], only when certainly nothing was done.
fn once(expect: Expect) -> Option<aws_sdk_dynamodb::config::Builder> {
    (expect != Expect::Anything).then(|| Config::builder().retry_config(retries(1)))
}

fn condition(expect: Expect) -> (Option<String>, Option<Attributes>) {
    match expect {
        Expect::Absent => (Some("attribute_not_exists(pk)".to_owned()), None),
        Expect::Rev(rev) => {
            let values = HashMap::from([(":rev".to_owned(), AttributeValue::N(rev.to_string()))]);
            (Some("rev = :rev".to_owned()), Some(values))
        }
        Expect::Anything => (None, None),
    }
}

fn key_attributes(key: &Key) -> Attributes {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key.pk.clone())),
        ("sk".to_owned(), AttributeValue::S(key.sk.clone())),
    ])
}

fn from_item(item: Item) -> PortResult<Attributes> {
    if !item.doc.is_object() {
        return Err(PortError::Refused { service: SERVICE, reason: "a document is not an object".to_owned() });
    }
    let mut attributes = key_attributes(&item.key);
    attributes.insert("rev".to_owned(), AttributeValue::N(item.rev.to_string()));
    attributes.insert("doc".to_owned(), AttributeValue::S(item.doc.to_string()));
    if let Some(Due { pk, at }) = item.due {
        attributes.insert("due_pk".to_owned(), AttributeValue::S(pk));
        attributes.insert("due_at".to_owned(), AttributeValue::N(at.to_string()));
    }
    if let Some(seconds) = item.expires_at {
        attributes.insert("expires_at".to_owned(), AttributeValue::N(seconds.to_string()));
    }
    Ok(attributes)
}

fn to_item(mut attributes: Attributes) -> PortResult<Item> {
    let key = Key::new(take_string(&mut attributes, "pk")?, take_string(&mut attributes, "sk")?);
    let rev = take_number(&mut attributes, "rev")?.ok_or_else(|| malformed("rev"))?;
    let doc = serde_json::from_str(&take_string(&mut attributes, "doc")?).map_err(|_| malformed("doc"))?;
    let due = match take_number(&mut attributes, "due_at")? {
        Some(at) => Some(Due { pk: take_string(&mut attributes, "due_pk")?, at }),
        None => None,
    };
    let expires_at = take_number(&mut attributes, "expires_at")?;
    Ok(Item { key, rev, doc, due, expires_at })
}

fn take_string(attributes: &mut Attributes, name: &'static str) -> PortResult<String> {
    match attributes.remove(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(malformed(name)),
    }
}

fn take_number(attributes: &mut Attributes, name: &'static str) -> PortResult<Option<u64>> {
    match attributes.remove(name) {
        None => Ok(None),
        Some(AttributeValue::N(text)) => text.parse().map(Some).map_err(|_| malformed(name)),
        Some(_) => Err(malformed(name)),
    }
}

/// An item that this adapter did not write.
fn malformed(attribute: &str) -> PortError {
    PortError::Refused { service: SERVICE, reason: format!("an item's attribute `{attribute}` is not ours") }
}

/// A request that lacks a required part: our own mistake.
fn broken(operation: &str) -> PortError {
    PortError::Refused { service: SERVICE, reason: format!("{operation}: the request could not be built") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_begins_where_its_condition_allows() {
        assert_eq!(start("", None), Start::Beginning);
        assert_eq!(start("", Some("")), Start::Beginning);
        assert_eq!(start("b#", None), Start::Beginning);
        assert_eq!(start("b#", Some("a")), Start::Beginning);
        assert_eq!(start("b#", Some("b")), Start::Beginning);
        assert_eq!(start("b#", Some("b#1")), Start::After("b#1"));
        assert_eq!(start("b#", Some("b#")), Start::After("b#"));
        assert_eq!(start("b#", Some("c")), Start::Nowhere);
        assert_eq!(start("", Some("x")), Start::After("x"));
    }

    #[test]
    fn an_items_attributes_are_the_documented_ones() {
        let item = Item {
            key: Key::new("p", "s"),
            rev: 3,
            doc: serde_json::json!({"a": 1}),
            due: Some(Due { pk: "d".to_owned(), at: 5 }),
            expires_at: Some(7),
        };
        let attributes = from_item(item.clone()).expect("an object");
        let mut names: Vec<&str> = attributes.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["doc", "due_at", "due_pk", "expires_at", "pk", "rev", "sk"]);
        assert_eq!(attributes["rev"], AttributeValue::N("3".to_owned()));
        assert_eq!(attributes["due_at"], AttributeValue::N("5".to_owned()));
        assert_eq!(attributes["expires_at"], AttributeValue::N("7".to_owned()));
        assert_eq!(attributes["doc"], AttributeValue::S("{\"a\":1}".to_owned()));
        assert_eq!(to_item(attributes).expect("ours"), item);
        let text = Item { doc: serde_json::json!("text"), ..item };
        assert!(matches!(from_item(text), Err(PortError::Refused { .. })));
    }
}
