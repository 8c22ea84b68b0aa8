//! The index of all static lists of a subscription: 20,000 lists are 67 calls to Marketo, too many for one request of
//! a person who searches. One object holds all lists; a row points to it and says how far the next one is.
//!
//! Whoever searches [`want`]s a fresh index; the identity work builds it page by page with [`begin`], [`keep`] and
//! [`publish`], and goes on after a death where the last kept page ended.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::limits::{HOUR_MS, MARKETO_BATCH};
use domain::{ListId, MunchkinId};
use ports::{Failure, Key, Table};
use serde::{Deserialize, Serialize};

use crate::bell::{self, BellKey};
use crate::{Deps, Doc, Step, load, update};

/// An index is fresh for this time, in ms; a larger one for longer.
const FRESH_MS: u64 = 15 * 60_000;
/// Each page of an index keeps it fresh for this time, in ms, so that building costs a call a minute at most, however
/// often people search. Ours.
const FRESH_PER_PAGE_MS: u64 = 60_000;
/// A build that takes longer than this, in ms, begins anew: what it read at first is too old. Ours.
const BUILD_MS: u64 = HOUR_MS;
/// Lists of an index; an instance with more is searched by exact name only. Ours: 1,000 calls.
pub const LISTS_MOST: u64 = 300_000;
/// Attempts to read an object that is replaced meanwhile.
const ATTEMPTS: usize = 3;

/// A list, as the index holds it: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Marketo's id.
    pub id: ListId,
    /// Its name.
    pub name: String,
    /// Its workspace, where Marketo tells.
    pub workspace: Option<String>,
}

/// The row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Version of this shape.
    pub v: u8,
    /// The index that is searched; absent before the first was built.
    pub published: Option<Published>,
    /// Since when somebody wants a fresh one, in ms.
    pub wanted_at: Option<u64>,
    /// The one being built.
    pub building: Option<Building>,
}

/// An index that can be searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Object key of its lines.
    pub key: String,
    /// A list made after this time, in ms, may be missing.
    pub as_of: u64,
    /// How many lists.
    pub count: u64,
}

/// How far the building of an index is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Building {
    /// When it began, in ms.
    pub since: u64,
    /// Marketo's paging token of what comes next; absent at the beginning.
    pub next: Option<String>,
    /// Object keys of the lines read so far.
    pub parts: Vec<String>,
    /// Lists read so far.
    pub count: u64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first of them: exact names, then names that begin with the text, then the others; each by name.
    pub lists: Vec<Listed>,
    /// How many there are.
    pub count: usize,
}

fn key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "lists-index")
}

/// The row as it stands.
pub async fn read(deps: &Deps, munchkin: &MunchkinId) -> Step<Index> {
    let found: Option<Doc<Index>> = load(deps, Table::Syncs, &key(munchkin)).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

async fn change<R>(deps: &Deps, munchkin: &MunchkinId, mut f: impl FnMut(&mut Index) -> Step<(bool, R)>) -> Step<R> {
    update(
        deps,
        Table::Syncs,
        &key(munchkin),
        |found: Option<Index>| {
            let mut index = found.unwrap_or_default();
            index.v = 1;
            let (changed, answer) = f(&mut index)?;
            Ok((changed.then_some(index), answer))
        },
        |_| None,
    )
    .await
}

/// Asks for a fresh index, unless the one that is there is fresh or somebody has asked already.
pub async fn want(deps: &Deps, munchkin: &MunchkinId) -> Step<()> {
    let now = deps.now();
    let asked = change(deps, munchkin, |index| {
        let is_fresh = |published: &Published| {
            let pages = published.count.div_ceil(MARKETO_BATCH as u64);
            now < published.as_of + deps.settings.scaled(FRESH_MS.max(pages * FRESH_PER_PAGE_MS))
        };
        let ask = index.wanted_at.is_none() && !index.published.as_ref().is_some_and(is_fresh);
        if ask {
            index.wanted_at = Some(now);
        }
        Ok((ask, ask))
    })
    .await?;
    if asked {
        bell::mark(deps, &BellKey::identity(munchkin)).await?;
    }
    Ok(())
}

/// Searches the names of an index's lists, without regard to case. `None`: it was replaced meanwhile too often, or
/// there is none.
pub async fn search(deps: &Deps, munchkin: &MunchkinId, text: &str, limit: usize) -> Step<Option<(Published, Found)>> {
    for _ in 0..ATTEMPTS {
        let Some(published) = read(deps, munchkin).await?.published else { return Ok(None) };
        if let Some(bytes) = deps.ports.objects.get(&published.key).await? {
            return Ok(Some((published, pick(lines(&bytes)?, text, limit))));
        }
    }
    Ok(None)
}

/// Those of some lists whose name contains a text, as [`search`] orders them.
#[must_use]
pub fn pick(lists: Vec<Listed>, text: &str, limit: usize) -> Found {
    let text = text.trim().to_lowercase();
    let rank = |list: Listed| {
        let name = list.name.to_lowercase();
        let rank = match name.find(&text)? {
            0 if name.len() == text.len() => 0,
            0 => 1,
            _ => 2,
        };
        Some((rank, name, list.id, list))
    };
    let mut found: Vec<_> = lists.into_iter().filter_map(rank).collect();
    found.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
    let count = found.len();
    Found { lists: found.into_iter().take(limit).map(|(.., list)| list).collect(), count }
}

fn lines(bytes: &[u8]) -> Step<Vec<Listed>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lists: Result<Vec<Listed>, _> = lines.map(serde_json::from_slice).collect();
    lists.map_err(|_| Failure::fail("the index of lists is damaged"))
}

async fn write<'a>(deps: &Deps, munchkin: &MunchkinId, lists: impl Iterator<Item = &'a Listed>) -> Step<String> {
    let mut bytes = Vec::new();
    for list in lists {
        serde_json::to_writer(&mut bytes, list).map_err(|_| Failure::fail("the index of lists cannot be written"))?;
        bytes.push(b'\n');
    }
    let key = format!("lists-index/{munchkin}/{}", deps.fresh_id());
    deps.ports.objects.put(&key, Bytes::from(bytes)).await?;
    Ok(key)
}

/// The build to go on with, a fresh one if somebody wants it; `None`: there is nothing to do.
pub async fn begin(deps: &Deps, munchkin: &MunchkinId) -> Step<Option<Building>> {
    let index = read(deps, munchkin).await?;
    let now = deps.now();
    let is_old = |building: &Building| now > building.since + deps.settings.scaled(BUILD_MS);
    match index.building {
        None if index.wanted_at.is_none() => return Ok(None),
        Some(building) if !is_old(&building) => return Ok(Some(building)),
        _ => {}
    }
    let fresh = Building { since: now, next: None, parts: Vec::new(), count: 0 };
    let left = change(deps, munchkin, |index| {
        Ok((true, index.building.replace(fresh.clone()).map(|old| old.parts).unwrap_or_default()))
    })
    .await?;
    sweep(deps, left).await?;
    Ok(Some(fresh))
}

/// Keeps what was read and where it ended. An error means that somebody else builds too: leave it to them.
pub async fn keep(
    deps: &Deps,
    munchkin: &MunchkinId,
    building: &Building,
    lists: &[Listed],
    next: &str,
) -> Step<Building> {
    let mut after = building.clone();
    after.parts.push(write(deps, munchkin, lists.iter()).await?);
    after.count += lists.len() as u64;
    after.next = Some(next.to_owned());
    change(deps, munchkin, |index| {
        is_ours(index, building)?;
        index.building = Some(after.clone());
        Ok((true, ()))
    })
    .await?;
    Ok(after)
}

/// Publishes the index: what was kept, and the last lists read. A list that moved from one page to another while they
/// were read is in it once.
pub async fn publish(deps: &Deps, munchkin: &MunchkinId, building: &Building, last: Vec<Listed>) -> Step<()> {
    let mut all = BTreeMap::new();
    for part in &building.parts {
        let bytes = deps.ports.objects.get(part).await?;
        let bytes = bytes.ok_or_else(|| Failure::retry("a part of the index of lists is gone"))?;
        all.extend(lines(&bytes)?.into_iter().map(|list| (list.id, list)));
    }
    all.extend(last.into_iter().map(|list| (list.id, list)));
    let key = write(deps, munchkin, all.values()).await?;
    let published = Published { key, as_of: building.since, count: all.len() as u64 };
    let old = change(deps, munchkin, |index| {
        is_ours(index, building)?;
        index.building = None;
        index.wanted_at = None;
        Ok((true, index.published.replace(published.clone())))
    })
    .await?;
    let mut left = building.parts.clone();
    left.extend(old.map(|old| old.key));
    sweep(deps, left).await
}

/// Gives a build up: until somebody wants an index again.
pub async fn drop_build(deps: &Deps, munchkin: &MunchkinId, building: &Building) -> Step<()> {
    change(deps, munchkin, |index| {
        is_ours(index, building)?;
        index.building = None;
        index.wanted_at = None;
        Ok((true, ()))
    })
    .await?;
    sweep(deps, building.parts.clone()).await
}

fn is_ours(index: &Index, building: &Building) -> Step<()> {
    if index.building.as_ref() == Some(building) {
        return Ok(());
    }
    Err(Failure::retry("somebody else builds this index of lists"))
}

async fn sweep(deps: &Deps, keys: Vec<String>) -> Step<()> {
    for key in keys {
        deps.ports.objects.delete(&key).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &Found) -> Vec<&str> {
        found.lists.iter().map(|list| list.name.as_str()).collect()
    }

    #[test]
    fn exact_names_come_first_then_beginnings_then_the_rest() {
        let list = |(id, name): (u64, &str)| Listed { id, name: name.to_owned(), workspace: None };
        let all = [(1, "All carts"), (2, "Carts 2"), (3, "CARTS"), (4, "Buyers"), (5, "carts"), (6, "Carts 1")];
        let all: Vec<Listed> = all.into_iter().map(list).collect();
        let found = pick(all.clone(), " Carts ", 10);
        assert_eq!(names(&found), ["CARTS", "carts", "Carts 1", "Carts 2", "All carts"]);
        let found = pick(all.clone(), "carts", 2);
        assert_eq!((names(&found), found.count), (vec!["CARTS", "carts"], 5));
        assert_eq!(pick(all.clone(), "", 3).count, 6, "an empty text finds everything");
        assert_eq!(pick(all, "no such", 3).count, 0);
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_damage_is_an_error() {
        let read = lines(b"{\"id\":7,\"name\":\"a\\nb\",\"workspace\":\"EMEA\"}\n").expect("a line");
        assert_eq!(read, [Listed { id: 7, name: "a\nb".into(), workspace: Some("EMEA".into()) }]);
        assert!(lines(b"{\"id\":7").is_err());
    }
}
