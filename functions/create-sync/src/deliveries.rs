//! Deliveries that are being taken in, and how far they are.

use std::collections::{BTreeMap, BTreeSet};

use domain::MunchkinId;
use ports::{Key, Read, Table};
use serde_json::{Value, json};
use state::feeds::{Delivery, IMPORTS_BY_TIME, Import, ImportLine, ImportStatus, delivery_key, import_key};
use state::{Deps, Step, doc, time};

use crate::runs::feed_of;

/// Files that are looked through for deliveries under way, the newest. Ours: of a delivery any file will do.
const FILES: usize = 100;

/// A delivery that is being taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnderWay {
    pub(crate) feed: String,
    pub(crate) delivery: String,
    /// Entries that are taken, of how many; `None`: they are being counted.
    pub(crate) part: Option<(u64, u64)>,
    /// When the first invocation began, in ms.
    since: u64,
    invocations: u64,
}

impl UnderWay {
    fn of(delivery: &Delivery) -> Option<Self> {
        let Delivery { feed, id, progress, turns, .. } = delivery;
        let waits = delivery.held.is_some() && delivery.decided != Some(true);
        let is_over = delivery.taken == Some(delivery.version);
        (turns.count > 0 && !waits && !is_over).then(|| Self {
            feed: feed.clone(),
            delivery: id.clone(),
            part: Some((progress.taken.min(progress.entries), progress.entries)).filter(|(_, of)| *of > 0),
            since: turns.since,
            invocations: turns.count,
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "delivery": self.delivery,
            "step": if self.part.is_some() { "taking" } else { "counting" },
            "done": self.part.map(|(done, _)| done),
            "of": self.part.map(|(_, of)| of),
            "unit": self.part.map(|_| "entries"),
            "since": time(self.since),
            "invocations": self.invocations,
            "sentence": self.sentence(),
        })
    }

    /// How far it is, as a part of a sentence.
    pub(crate) fn sentence(&self) -> String {
        match self.part {
            Some((done, of)) => format!("{done} of its {of} entries are taken"),
            None => "its entries are being counted".to_owned(),
        }
    }
}

/// Those of the deliveries of these files that are being taken in, by feed and id.
pub(crate) async fn of_files<'a>(
    deps: &Deps,
    munchkin: &MunchkinId,
    imports: impl IntoIterator<Item = &'a Import>,
) -> Step<BTreeMap<(String, String), UnderWay>> {
    let open = imports.into_iter().filter(|import| {
        // What is held may have been decided about.
        matches!(import.status, ImportStatus::Running | ImportStatus::Waiting | ImportStatus::Held)
    });
    let key = |import: &Import| Some(delivery_key(munchkin, feed_of(import), import.delivery.as_ref()?));
    let keys: BTreeSet<Key> = open.filter_map(key).collect();
    let mut found = BTreeMap::new();
    if keys.is_empty() {
        return Ok(found);
    }
    let keys: Vec<Key> = keys.into_iter().collect();
    for item in deps.ports.tables.batch_get(Table::Syncs, &keys, Read::Eventual).await? {
        if let Some(one) = UnderWay::of(&doc::read(item)?.value) {
            found.insert((one.feed.clone(), one.delivery.clone()), one);
        }
    }
    Ok(found)
}

/// All that are being taken in: those that began first come first.
pub(crate) async fn under_way(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<UnderWay>> {
    let tables = &deps.ports.tables;
    let (mut keys, mut after) = (Vec::new(), None::<String>);
    while keys.len() < FILES {
        let (pk, left) = (munchkin.as_str(), FILES - keys.len());
        let page = tables.query(Table::Syncs, pk, IMPORTS_BY_TIME, after.as_deref(), left, Read::Eventual).await?;
        for item in page.items {
            keys.push(import_key(munchkin, &doc::read::<ImportLine>(item)?.value.id));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut imports: Vec<Import> = Vec::new();
    for item in tables.batch_get(Table::Syncs, &keys, Read::Eventual).await? {
        imports.push(doc::read(item)?.value);
    }
    let mut all: Vec<UnderWay> = of_files(deps, munchkin, &imports).await?.into_values().collect();
    all.sort_by_key(|one| one.since);
    Ok(all)
}
