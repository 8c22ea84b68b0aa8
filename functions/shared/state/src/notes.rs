//! Notes to the writer of a list: what operators decide about it, and what Marketo's activity log says was done to
//! it. A note is a row of its own: the list's state has one writer.

use domain::{LeadId, LeadSet, ListId, MunchkinId};
use ports::{Expect, Key, Read, Table};
use serde::{Deserialize, Serialize};

use crate::bell::BellKey;
use crate::{Cause, Deps, Step, bell, doc};

/// What somebody tells the writer of a list. Reading a note twice is harmless: people are sets, and a decision names
/// what it decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Note {
    /// Marketo's activity log names people; what happened to them is looked at before anything is concluded.
    Seen {
        /// Added to the list, by anybody.
        added: LeadSet,
        /// Removed from it, by anybody.
        removed: LeadSet,
        /// Something about them changed.
        touched: LeadSet,
    },
    /// People who were taken out by hand, or whose addition was dropped, may be added again.
    PutBack {
        /// Who; `None`: everybody.
        leads: Option<Vec<LeadId>>,
    },
    /// An operator decided about a mass change.
    Decide {
        /// The id of what was held, as it was shown.
        held: String,
        /// Whether it is to be done.
        apply: bool,
    },
    /// The whole list is to be compared with what we know of it.
    VerifyAll,
    /// All members are to be read, for a job of the control plane ([`crate::readings`]); of a list that no sync writes,
    /// too. The note stays until the job is over.
    Read {
        /// The job's id.
        job: String,
    },
    /// People are to be erased: they leave the list if we put them there, whatever any sync keeps, and are then
    /// forgotten. Answered by [`crate::erase::answer`], once that is confirmed.
    Erase {
        /// The job's id.
        job: String,
        /// Who.
        leads: LeadSet,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    v: u8,
    note: Note,
}

fn pk(munchkin: &MunchkinId, list: ListId) -> String {
    format!("{munchkin}/notes/{list}")
}

/// Notes that one handling of a list reads, at most; the rest waits for the next.
pub const NOTES: usize = 200;

/// Leaves a note and rings the list; what an operator decides rouses a list that rests.
pub async fn leave(deps: &Deps, munchkin: &MunchkinId, list: ListId, note: &Note) -> Step<()> {
    let key = Key::new(pk(munchkin, list), format!("{:020}-{}", deps.now(), deps.fresh_id()));
    let item = doc::item(key, &Row { v: 1, note: note.clone() }, None, None)?;
    deps.ports.tables.put(Table::Lists, item, Expect::Anything).await?;
    let key = BellKey::list(munchkin, list);
    match note {
        Note::Seen { .. } => bell::mark(deps, &key).await,
        // Somebody asked, but nothing is done to the list: no run is to be told of.
        Note::Read { .. } => bell::rouse(&deps.because(None), &key).await,
        _ => bell::rouse(&deps.because([Cause::ByHand]), &key).await,
    }
}

/// The oldest notes of a list.
#[derive(Debug, Default)]
pub struct Notes {
    /// The notes, and the keys to [`burn`] once they have been taken in.
    pub found: Vec<(Key, Note)>,
    /// Rows of another version, which can only be burnt.
    pub unreadable: Vec<Key>,
    /// Whether there are more.
    pub more: bool,
}

/// The oldest notes of a list. One that cannot be read is said so in the log, and hinders nobody.
pub async fn read(deps: &Deps, munchkin: &MunchkinId, list: ListId) -> Step<Notes> {
    let page = deps.ports.tables.query(Table::Lists, &pk(munchkin, list), "", None, NOTES, Read::Consistent).await?;
    let mut notes = Notes { more: page.next.is_some(), ..Notes::default() };
    for item in page.items {
        let key = item.key.clone();
        match doc::read::<Row>(item) {
            Ok(row) => notes.found.push((key, row.value.note)),
            Err(_) => {
                tracing::error!(list.id = list, "a note to a list cannot be read by this version and is forgotten");
                notes.unreadable.push(key);
            }
        }
    }
    Ok(notes)
}

/// Forgets a note, after the state that has taken it in was published.
pub async fn burn(deps: &Deps, key: &Key) -> Step<()> {
    deps.ports.tables.delete(Table::Lists, key, Expect::Anything).await?;
    Ok(())
}
