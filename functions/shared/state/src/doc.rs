//! Typed documents in tables.

use domain::planted::{Guard, holds};
use ports::{Due, Expect, Failure, Item, Key, Read, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Deps, Step};

/// A document and the revision at which it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc<T> {
    /// The document.
    pub value: T,
    /// Its revision: the condition of the next write.
    pub rev: u64,
}

/// Attempts of a read-change-write before the message is tried again later.
const ATTEMPTS: usize = 30;

/// Reads a document.
pub fn read<T: DeserializeOwned>(item: Item) -> Step<Doc<T>> {
    let rev = item.rev;
    match serde_json::from_value(item.doc) {
        Ok(value) => Ok(Doc { value, rev }),
        // Serde's text may quote the value: say only where.
        Err(_) => Err(Failure::fail(format!(
            "a stored {} cannot be read by this version",
            std::any::type_name::<T>().rsplit("::").next().unwrap_or("row")
        ))),
    }
}

/// The item of a document to be written over revision `rev` (`None`: for the first time).
pub fn item<T: Serialize>(key: Key, value: &T, rev: Option<u64>, due: Option<Due>) -> Step<Item> {
    let doc = serde_json::to_value(value).map_err(|_| Failure::fail("a row cannot be written as JSON"))?;
    Ok(Item { key, rev: rev.unwrap_or(0) + 1, doc, due, expires_at: None })
}

/// The document with this key, read consistently.
pub async fn load<T: DeserializeOwned>(deps: &Deps, table: Table, key: &Key) -> Step<Option<Doc<T>>> {
    deps.ports.tables.get(table, key, Read::Consistent).await?.map(read).transpose()
}

/// Writes a document over the revision that was read (`None`: there was none). `false`: somebody was faster.
pub async fn save<T: Serialize>(
    deps: &Deps,
    table: Table,
    key: Key,
    value: &T,
    rev: Option<u64>,
    due: Option<Due>,
) -> Step<bool> {
    let expect = rev.map_or(Expect::Absent, Expect::Rev);
    Ok(deps.ports.tables.put(table, item(key, value, rev, due)?, expect).await?)
}

/// Reads, changes and writes until nobody was faster. `change` returns `None` to leave things as they are; what it
/// returns beside the new document is the answer.
pub async fn update<T, R>(
    deps: &Deps,
    table: Table,
    key: &Key,
    change: impl FnMut(Option<T>) -> Step<(Option<T>, R)>,
    due: impl Fn(&T) -> Option<Due>,
) -> Step<R>
where
    T: Serialize + DeserializeOwned,
{
    update_item(deps, table, key, change, |value, item| item.due = due(value)).await
}

/// The same where most often nothing stands there: it is written as for the first time, and read only where that fails.
pub async fn insert_or_update<T, R>(
    deps: &Deps,
    table: Table,
    key: &Key,
    mut change: impl FnMut(Option<T>) -> Step<(Option<T>, R)>,
) -> Step<R>
where
    T: Serialize + DeserializeOwned,
{
    let (first, answer) = change(None)?;
    let Some(first) = first else { return Ok(answer) };
    if save(deps, table, key.clone(), &first, None, None).await? {
        return Ok(answer);
    }
    update(deps, table, key, change, |_| None).await
}

/// The same for a row that the table may sweep by itself after a time (ms).
pub async fn update_until<T, R>(
    deps: &Deps,
    table: Table,
    key: &Key,
    change: impl FnMut(Option<T>) -> Step<(Option<T>, R)>,
    until: u64,
) -> Step<R>
where
    T: Serialize + DeserializeOwned,
{
    update_item(deps, table, key, change, |_, item| item.expires_at = Some(until / 1_000)).await
}

/// The same for a row that also wants to be looked at.
pub async fn update_due_until<T, R>(
    deps: &Deps,
    table: Table,
    key: &Key,
    change: impl FnMut(Option<T>) -> Step<(Option<T>, R)>,
    due: impl Fn(&T) -> Option<Due>,
    until: u64,
) -> Step<R>
where
    T: Serialize + DeserializeOwned,
{
    let finish = |value: &T, item: &mut Item| {
        item.due = due(value);
        item.expires_at = Some(until / 1_000);
    };
    update_item(deps, table, key, change, finish).await
}

async fn update_item<T, R>(
    deps: &Deps,
    table: Table,
    key: &Key,
    mut change: impl FnMut(Option<T>) -> Step<(Option<T>, R)>,
    finish: impl Fn(&T, &mut Item),
) -> Step<R>
where
    T: Serialize + DeserializeOwned,
{
    for _ in 0..ATTEMPTS {
        let found = load::<T>(deps, table, key).await?;
        let rev = found.as_ref().map(|doc| doc.rev);
        let (changed, answer) = change(found.map(|doc| doc.value))?;
        let Some(value) = changed else { return Ok(answer) };
        let mut item = item(key.clone(), &value, rev, None)?;
        finish(&value, &mut item);
        let expect = if holds(Guard::UpdatesAreConditional) {
            rev.map_or(Expect::Absent, Expect::Rev)
        } else {
            Expect::Anything
        };
        if deps.ports.tables.put(table, item, expect).await? {
            return Ok(answer);
        }
    }
    Err(Failure::retry("a row is written by too many at once"))
}

/// All documents of a partition whose sort keys begin with `prefix`, in order.
pub async fn all<T: DeserializeOwned>(deps: &Deps, table: Table, pk: &str, prefix: &str) -> Step<Vec<Doc<T>>> {
    Ok(all_by_key(deps, table, pk, prefix).await?.into_iter().map(|(_, doc)| doc).collect())
}

/// The same, with their keys.
pub async fn all_by_key<T: DeserializeOwned>(
    deps: &Deps,
    table: Table,
    pk: &str,
    prefix: &str,
) -> Step<Vec<(Key, Doc<T>)>> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = deps.ports.tables.query(table, pk, prefix, after.as_deref(), 1000, Read::Consistent).await?;
        for item in page.items {
            found.push((item.key.clone(), read(item)?));
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}
