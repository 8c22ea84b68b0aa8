//! Readings of all members of a list, any list: the control plane asks for one by a note to the list's bell, and the
//! list-writer, who alone calls Marketo's list-membership endpoints, carries it out. The row is the list-writer's once it is
//! there.

use domain::limits::DAY_MS;
use domain::{ListId, MunchkinId, Said};
use ports::{Expect, Key, Table};
use serde::{Deserialize, Serialize};

use crate::lists::Reading;
use crate::notes::{Note, leave};
use crate::{Deps, Doc, Step, doc, load};

/// A reading is remembered for this time, in ms; of what it found, the bucket keeps a day's.
pub const KEPT_MS: u64 = 7 * DAY_MS;

/// How far a reading is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersJob {
    /// Version of this shape.
    pub v: u8,
    /// Its id.
    pub id: String,
    /// The list.
    pub list: ListId,
    /// When it was asked for, in ms.
    pub asked_at: u64,
    /// When a note for it was last left, in ms.
    pub noted_at: u64,
    /// Where it goes on.
    #[serde(default)]
    pub reading: Option<Reading>,
    /// How often it began anew because Marketo refused a page.
    #[serde(default)]
    pub restarts: u32,
    /// When all members had been read, in ms.
    #[serde(default)]
    pub read_at: Option<u64>,
    /// How many they are.
    #[serde(default)]
    pub count: u64,
    /// Object key of their set.
    #[serde(default)]
    pub members: Option<String>,
    /// Why it was given up.
    #[serde(default)]
    pub why: Option<Said>,
}

impl MembersJob {
    /// Whether there is nothing left to read.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.members.is_some() || self.why.is_some()
    }
}

fn key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("reading/{id}"))
}

/// The object that holds the members a reading has found. It expires after a day.
pub fn members_key(deps: &Deps, id: &str) -> String {
    format!("downloads/{id}.members-{}", deps.fresh_id())
}

/// Asks for a reading. Asking once more for the same is harmless: its row stays, and notes may come twice.
pub async fn ask(deps: &Deps, munchkin: &MunchkinId, list: ListId, id: &str) -> Step<()> {
    let now = deps.now();
    let job = MembersJob {
        v: 1,
        id: id.to_owned(),
        list,
        asked_at: now,
        noted_at: now,
        reading: None,
        restarts: 0,
        read_at: None,
        count: 0,
        members: None,
        why: None,
    };
    // The row comes first: a note without one is forgotten.
    save(deps, munchkin, &job, None).await?;
    leave(deps, munchkin, list, &Note::Read { job: id.to_owned() }).await
}

/// A reading, as it stands.
pub async fn find(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<Option<Doc<MembersJob>>> {
    load(deps, Table::Syncs, &key(munchkin, id)).await
}

/// Writes a reading over the revision that was read. `false`: somebody was faster.
pub async fn save(deps: &Deps, munchkin: &MunchkinId, job: &MembersJob, rev: Option<u64>) -> Step<bool> {
    let mut item = doc::item(key(munchkin, &job.id), job, rev, None)?;
    item.expires_at = Some((job.asked_at + KEPT_MS) / 1_000);
    Ok(deps.ports.tables.put(Table::Syncs, item, rev.map_or(Expect::Absent, Expect::Rev)).await?)
}

/// Somebody waits for a reading that was asked for so long ago (ms) and has not begun: its note may never have been left. Each
/// further note waits as long as all before it, so that they stay a handful.
const UNHEARD_MS: u64 = 15 * 60_000;

/// Leaves the note of a reading once more where it may have been lost with whoever asked.
pub async fn remind(deps: &Deps, munchkin: &MunchkinId, mut job: Doc<MembersJob>) -> Step<()> {
    let (now, value) = (deps.now(), &mut job.value);
    let begun = value.reading.is_some() || value.is_over();
    let wait = deps.settings.scaled(UNHEARD_MS).max(value.noted_at - value.asked_at);
    if begun || now < value.noted_at + wait {
        return Ok(());
    }
    value.noted_at = now;
    if save(deps, munchkin, value, Some(job.rev)).await? {
        leave(deps, munchkin, value.list, &Note::Read { job: value.id.clone() }).await?;
    }
    Ok(())
}
