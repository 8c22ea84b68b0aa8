//! Reads all members of a list, page by page, over as many turns as it takes: a list of a million has 3,334 pages.

use domain::limits::HOUR_MS;
use domain::{LeadSet, MunchkinId};
use marketo::{CallError, Marketo};
use state::lists::{Reading, read_leads, write_leads};
use state::{Deps, Step};

use crate::tied;

/// Pages of one turn; then the next dirty list of the subscription has its turn.
const PAGES_PER_TURN: usize = 40;
/// A reading that began longer ago than this, in ms, begins anew: Marketo's paging tokens may be forgotten. Ours.
const STALE_MS: u64 = 24 * HOUR_MS;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// All members.
    pub(crate) all: LeadSet,
    /// Those who are known and tied to an ECID, where that was asked.
    pub(crate) tied: LeadSet,
}

/// Whom to ask, and for what.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) deps: &'a Deps,
    pub(crate) marketo: Marketo<'a>,
    pub(crate) munchkin: &'a MunchkinId,
    pub(crate) list: u64,
    pub(crate) deadline: u64,
}

impl Asking<'_> {
    /// Reads on, from where `reading` stands. `None`: there is more, and `reading` says where to go on; the caller
    /// stores it. `fields`: `id`, or what ties members to ECIDs.
    pub(crate) async fn read_on(
        self,
        reading: &mut Option<Reading>,
        fields: &str,
    ) -> Result<Option<Members>, CallError> {
        let now = self.deps.now();
        let stale = self.deps.settings.scaled(STALE_MS);
        let mut before = reading.take().filter(|reading| reading.began_at + stale > now);
        let mut members = Members::default();
        if let Some(found) = &before {
            match (read_leads(self.deps, &found.members).await, read_leads(self.deps, &found.tied).await) {
                (Ok(all), Ok(tied)) => members = Members { all, tied },
                // Somebody died after it had replaced them, and before it said so: from the beginning then.
                _ => before = None,
            }
        }
        let began_at = before.as_ref().map_or(now, |before| before.began_at);
        let mut next = before.as_ref().map(|before| before.next.clone());
        let mut ended = Ok(());
        for _ in 0..PAGES_PER_TURN {
            if self.deps.now() + self.deps.settings.scaled(marketo::MARGIN_MS) > self.deadline {
                break;
            }
            let page = async {
                let slot = self.marketo.slot().await?;
                self.marketo.members_page(slot, self.list, fields, next.as_deref()).await
            };
            match page.await {
                Ok((rows, more)) => {
                    members.all.extend(rows.iter().map(|row| row.id));
                    if fields != "id" {
                        members.tied.add_all(&tied(self.deps, self.munchkin, &rows).await?);
                    }
                    if more.is_none() {
                        self.forget(before).await?;
                        return Ok(Some(members));
                    }
                    next = more;
                }
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        // A refused page may be one whose token was forgotten: from the beginning then.
        if let Some(next) = next.filter(|_| !matches!(ended, Err(CallError::Refused { .. }))) {
            *reading = Some(Reading {
                began_at,
                next,
                members: write_leads(self.deps, "reading", &members.all).await?,
                tied: write_leads(self.deps, "reading", &members.tied).await?,
            });
        }
        self.forget(before).await?;
        ended.map(|()| None)
    }

    async fn forget(self, reading: Option<Reading>) -> Step<()> {
        for key in reading.into_iter().flat_map(|reading| [reading.members, reading.tied]) {
            self.deps.ports.objects.delete(&key).await?;
        }
        Ok(())
    }
}
