//! Finds Marketo's static lists: all of one exact name, and by a part of the name in the index of all lists.

use std::collections::BTreeSet;

use domain::MunchkinId;
use marketo::{CallError, ListAsset, Marketo};
use serde_json::{Value, json};
use state::budget::Purpose;
use state::lists_index::{self, Found, Listed, pick};
use state::{Deps, time};

use crate::problem::Answer;

/// Lists of one answer.
const LISTS: usize = 50;
/// An index that answers does so although somebody else's call is under way, after this time, in ms, before scaling. Ours:
/// a call takes a few hundred.
const WAIT_MS: u64 = 2_000;
/// Lists of one name that are looked at one by one. Ours: more are shown without their folder.
const NAMESAKES: usize = 20;

/// Every list of exactly this name. Marketo's searches by name do not find names with a comma: those are looked for in
/// the folder where ours is or would be.
pub(crate) async fn named(marketo: &Marketo<'_>, name: &str, folder: u64) -> Result<Vec<ListAsset>, CallError> {
    if name.contains(',') {
        return marketo.lists_in_folder(marketo.slot().await?, folder, name).await;
    }
    let mut found = Vec::new();
    for (place, row) in marketo.lists_named(marketo.slot().await?, name).await?.into_iter().enumerate() {
        if place >= NAMESAKES {
            found.push(row);
        } else if let Some(list) = marketo.list(marketo.slot().await?, row.id).await? {
            // The lead database knows neither the folder nor, everywhere, the description; the asset no workspace.
            found.push(ListAsset { workspace: list.workspace.or(row.workspace), ..list });
        }
    }
    if found.is_empty() {
        // The two searches need not agree; this one is the documented way to ask before a list is made.
        found.extend(marketo.list_named(marketo.slot().await?, name).await?);
    }
    Ok(found)
}

fn listed(list: ListAsset) -> Listed {
    Listed { id: list.id, name: list.name, workspace: list.workspace }
}

/// `GET /lists?search=`.
///
/// The index answers without a call where it holds a list of just that name. Else Marketo is asked for the exact name
/// too, so that a list made a minute ago is found; and while there is no index yet, for its first page.
pub(crate) async fn search(deps: &Deps, munchkin: &MunchkinId, text: &str, deadline: u64) -> Answer<Value> {
    let text = text.trim();
    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Control);
    lists_index::want(deps, munchkin).await?;
    let indexed = lists_index::search(deps, munchkin, text, LISTS).await?;
    let (published, known) = indexed.unzip();
    let mut known = known.unwrap_or(Found { lists: Vec::new(), count: 0 });
    let mut complete = published.is_some();
    let mut told: Vec<Listed> = Vec::new();
    let is_known = known.lists.iter().any(|list| list.name.to_lowercase() == text.to_lowercase());
    if !is_known && text.contains(',') {
        // Marketo cannot search for it.
        complete = false;
    } else if !is_known && !text.is_empty() {
        let asked = if complete { marketo.waiting_at_most(WAIT_MS) } else { marketo };
        let answer = match asked.slot().await {
            Ok(slot) => asked.lists_named(slot, text).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(found) => told.extend(found.into_iter().map(listed)),
            // The index answers although Marketo does not.
            Err(CallError::Wait(_) | CallError::ViewersWait { .. } | CallError::Taken(_) | CallError::Unknown(_))
                if complete =>
            {
                complete = false
            }
            Err(error) => return Err(error.into()),
        }
    }
    if published.is_none() {
        let (first, _) = marketo.lists_page(marketo.slot().await?, None).await?;
        known = pick(first.into_iter().map(listed).collect(), text, LISTS);
    }
    let before = known.lists.len();
    let newer: BTreeSet<u64> = told.iter().map(|list| list.id).collect();
    known.lists.retain(|list| !newer.contains(&list.id));
    let count = known.count - (before - known.lists.len()) + told.len();
    told.append(&mut known.lists);
    let note = match (&published, complete) {
        (None, _) => Some(
            "the index of all lists is being built: until then only the exact name and Marketo's first 300 lists are \
             searched",
        ),
        (Some(_), false) => Some("Marketo could not be asked by this name: lists newer than the index are not found"),
        (Some(_), true) => None,
    };
    Ok(json!({
        "lists": pick(told, text, LISTS).lists,
        "count": count,
        "as_of": published.map(|published| time(published.as_of)),
        "complete": complete,
        "note": note,
    }))
}
