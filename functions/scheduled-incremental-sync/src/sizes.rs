//! Keeps how large the audiences of syncs were that only report: their report is what a pass has found. Those of the
//! others are kept by the writers of their lists.

use domain::report::AudienceCounts;
use domain::{AudienceId, MunchkinId};
use state::runs::{Size, save_size};
use state::syncs::{Start, syncs};
use state::{Deps, Step};

/// After a pass with this number was published, of a time in ms. Whoever publishes it again writes the same rows.
pub(crate) async fn keep(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    pass: u64,
    as_of: u64,
    counts: &AudienceCounts,
) -> Step<()> {
    let size = Size {
        v: 1,
        at: as_of,
        browsers: counts.audience,
        addressable: counts.addressable(),
        known: counts.known,
        people: counts.people,
        in_list: None,
        members: None,
    };
    for sync in syncs(deps, munchkin).await? {
        let sync = sync.value;
        // What was found before a sync began is no report of its.
        let reported = sync.from_pass.is_none_or(|first| pass >= first);
        if sync.start == Start::ReportOnly && sync.audience == *audience && sync.follows() && reported {
            save_size(deps, munchkin, &sync.id, &size).await?;
        }
    }
    Ok(())
}
