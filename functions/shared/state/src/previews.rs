//! Previews: jobs that find out what a sync would do, before it is made. The control plane writes the job; the worker of
//! its audience counts, in slices; and while somebody looks at it the control plane asks Marketo who is in the list
//! already. Beside the row, its place in the audience's head and objects that expire, a preview writes nothing.

use domain::limits::DAY_MS;
use domain::report::AudienceCounts;
use domain::{AudienceId, MunchkinId, Said};
use ports::{Key, Table};
use serde::{Deserialize, Serialize};

use crate::audience::{Head, head_key};
use crate::doc::update_until;
use crate::syncs::{Leaving, MembersBefore, Start, Target};
use crate::{Deps, Step, load, update};

/// A job is forgotten after this time, in ms.
pub const KEPT_MS: u64 = DAY_MS;

/// A preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Version of this shape.
    pub v: u8,
    /// Its id: ours, 16 hex digits.
    pub id: String,
    /// The audience.
    pub audience: AudienceId,
    /// Its name.
    pub audience_name: String,
    /// The list; without an id it would be made.
    pub list: Target,
    /// Who would leave the list.
    pub leaving: Leaving,
    /// What would happen to people who are there already.
    pub members_before: MembersBefore,
    /// Whether the list would be written at all.
    pub start: Start,
    /// When it was asked for, in ms.
    pub requested_at: u64,
    /// How far it is.
    pub status: Status,
    /// Why it failed.
    pub why: Option<Said>,
    /// The edges that the counting waits for ([`crate::edges`]).
    pub edges: Option<u64>,
    /// Attempts to count that failed.
    pub failures: u32,
    /// What was counted.
    pub counted: Option<Counted>,
    /// Who is in the list already, as far as that is known.
    pub there: Option<There>,
}

impl Preview {
    /// The audience is counted. Of a list that would be made nothing is to be asked, nor where there is nobody to ask about.
    pub fn counted_as(&mut self, counted: Counted) {
        self.edges = None;
        let nobody_to_ask = self.list.id.is_none() || counted.counts.people == 0;
        if nobody_to_ask {
            self.there = Some(There::default());
        }
        self.status = if nobody_to_ask { Status::Done } else { Status::Asking };
        self.counted = Some(counted);
    }
}

/// How far a preview is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its audience is being counted.
    Counting,
    /// Marketo is asked who is in the list, while somebody looks.
    Asking,
    /// Everything is known.
    Done,
    /// It cannot be done.
    Failed,
}

/// What was counted of an audience.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The moment of which it is true, in ms.
    pub as_of: u64,
    /// What became of every ECID.
    pub counts: AudienceCounts,
    /// ECIDs of nobody known, of whose tokens Marketo was never asked about at least one.
    pub not_asked: u64,
    /// Tokens that a sync would ask about at once.
    pub to_look_up: u64,
    /// Object key of the people counted.
    pub people_key: String,
}

/// Who of the people is in the list already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct There {
    /// People who are there by our doing, or of whom a writer has learned that they were there before.
    pub told: u64,
    /// People who would stay out: somebody took them out by hand, or dropped their addition.
    pub kept_out: u64,
    /// People of whom only Marketo knows.
    pub unsure: u64,
    /// We made the list, so a writer asks Marketo about nobody.
    pub ours: bool,
    /// Object key of those of the unsure who are asked about.
    pub sample_key: String,
    /// How many these are.
    pub sample: u64,
    /// How many of these have been asked about.
    pub asked: u64,
    /// How many of those are in the list.
    pub members: u64,
}

impl There {
    /// People who are in the list, reckoned from those who were asked about; `None`: nobody was asked about yet.
    #[must_use]
    pub fn already(&self) -> Option<u64> {
        if self.unsure == 0 {
            return Some(self.told);
        }
        // At most as many people as a list holds, times as many as are asked about: far below 2^64.
        let of_unsure = (self.unsure * self.members + self.asked / 2).checked_div(self.asked)?;
        Some(self.told + of_unsure)
    }
}

/// The key of a preview.
#[must_use]
pub fn preview_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("preview/{id}"))
}

/// A preview that is not forgotten yet.
pub async fn preview(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<Option<Preview>> {
    let found = load::<Preview>(deps, Table::Syncs, &preview_key(munchkin, id)).await?.map(|doc| doc.value);
    // The table sweeps it days later.
    Ok(found.filter(|preview| deps.now() < preview.requested_at + KEPT_MS))
}

/// Writes a preview for the first time.
pub async fn put_preview(deps: &Deps, munchkin: &MunchkinId, preview: &Preview) -> Step<()> {
    let until = preview.requested_at + KEPT_MS;
    let key = preview_key(munchkin, &preview.id);
    update_until(deps, Table::Syncs, &key, |_: Option<Preview>| Ok((Some(preview.clone()), ())), until).await
}

/// Changes a preview. `change` returns `false` to leave it as it is. Returns it as it stands then, if it is there.
pub async fn change_preview(
    deps: &Deps,
    munchkin: &MunchkinId,
    before: &Preview,
    mut change: impl FnMut(&mut Preview) -> bool,
) -> Step<Option<Preview>> {
    let until = before.requested_at + KEPT_MS;
    let change = |found: Option<Preview>| {
        let Some(mut preview) = found else { return Ok((None, None)) };
        let changed = change(&mut preview);
        Ok((changed.then(|| preview.clone()), Some(preview)))
    };
    update_until(deps, Table::Syncs, &preview_key(munchkin, &before.id), change, until).await
}

/// Asks the audience's worker to count for a preview; it is rung by the caller. `false`: no delivery has ever named the
/// audience.
pub async fn enlist(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, id: &str) -> Step<bool> {
    change_list(deps, munchkin, audience, |previews| previews.insert(id.to_owned())).await
}

/// The preview needs no counting any more.
pub async fn strike(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, id: &str) -> Step<()> {
    change_list(deps, munchkin, audience, |previews| previews.remove(id)).await?;
    Ok(())
}

async fn change_list(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    change: impl Fn(&mut std::collections::BTreeSet<String>) -> bool,
) -> Step<bool> {
    update(
        deps,
        Table::Audiences,
        &head_key(munchkin, audience),
        |head: Option<Head>| {
            let Some(mut head) = head else { return Ok((None, false)) };
            let changed = change(&mut head.previews);
            Ok((changed.then_some(head), true))
        },
        |_| None,
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_reckoned_from_those_who_were_asked_about() {
        let there = |told, unsure, asked, members| There { told, unsure, asked, members, ..There::default() }.already();
        assert_eq!(there(3, 0, 0, 0), Some(3));
        assert_eq!(there(3, 10, 0, 0), None);
        assert_eq!(there(3, 10, 10, 4), Some(7));
        assert_eq!(there(0, 7_000, 6_000, 1_500), Some(1_750));
        assert_eq!(there(0, 10, 3, 2), Some(7));
    }
}
