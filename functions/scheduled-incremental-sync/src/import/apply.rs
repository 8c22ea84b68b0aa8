//! Puts what a delivery says into the audiences.

use std::collections::{BTreeMap, BTreeSet};

use domain::base::Base;
use domain::fact::{Fact, RANK_FILE};
use domain::{AudienceId, Ecid, MunchkinId};
use futures::FutureExt as _;
use ports::Table;
use state::audience::{Head, Members, Said, add_todo, head_key, replace_base, take_said, want_pass};
use state::bell::BellKey;
use state::feeds::Feed;
use state::syncs::followed;
use state::{Cause, Deps, Step, bell, update};

use super::content::Sides;
use crate::propagate::many;

/// Facts that are written before the deadline is looked at.
const CHUNK: usize = 256;
/// Time that is kept to write down how far it came, in ms.
const RESERVE_MS: u64 = 10_000;

/// A delivery's time, and what it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    /// The time that it bears, in ms.
    pub(super) time: u64,
    /// Up to when it knows what was, in ms.
    pub(super) as_of: u64,
}

impl When {
    pub(super) fn of(feed: &Feed, time: u64) -> Self {
        Self { time, as_of: time.saturating_sub(feed.lag_minutes.saturating_mul(60_000)) }
    }
}

/// Members of each of the audiences that a full delivery does not hold.
pub(super) async fn absent(
    deps: &Deps,
    munchkin: &MunchkinId,
    content: &BTreeMap<AudienceId, Sides>,
) -> Step<BTreeMap<AudienceId, u64>> {
    let mut absent = BTreeMap::new();
    for (audience, sides) in content {
        let count = match Members::open(deps, munchkin, audience).await? {
            None => 0,
            Some(members) => members.effective().await?.absent_from(&Base::new(sides.inside.iter().copied(), 0)),
        };
        absent.insert(audience.clone(), count as u64);
    }
    Ok(absent)
}

/// Each audience that a snapshot names is replaced whole; one that it does not name is left as it is.
pub(super) async fn snapshots(
    deps: &Deps,
    munchkin: &MunchkinId,
    feed: &str,
    when: When,
    content: BTreeMap<AudienceId, Sides>,
) -> Step<()> {
    let deps = &deps.because([Cause::File]);
    let mut replaced = Vec::new();
    for (audience, sides) in content {
        let base = Base::new(sides.inside, when.as_of);
        if replace_base(deps, munchkin, &audience, &base, when.as_of, Some((feed, when.time))).await? {
            replaced.push(audience);
        }
    }
    // Read after the heads were written: a sync that is created meanwhile sees either the head, or is seen here.
    let followed = followed(deps, munchkin).await?;
    for audience in replaced.iter().filter(|audience| followed.contains(audience)) {
        bell::mark(deps, &BellKey::audience(munchkin, audience)).await?;
    }
    Ok(())
}

/// Every row is a fact of its own; absence says nothing. `done`: so many of them, in this order, were written before.
/// Returns how many are written now if the time was too short; `None`: all.
pub(super) async fn facts(
    deps: &Deps,
    munchkin: &MunchkinId,
    feed: &str,
    when: When,
    content: BTreeMap<AudienceId, Sides>,
    done: u64,
    deadline: u64,
) -> Step<Option<u64>> {
    let deps = &deps.because([Cause::File]);
    let deadline = deadline.saturating_sub(deps.settings.scaled(RESERVE_MS));
    let mut written = 0;
    for (audience, sides) in content {
        let count = sides.len();
        if written + count <= done {
            written += count;
            continue;
        }
        let now = deps.now();
        // First the head: whoever reads it from here on looks at the overlay.
        update(
            deps,
            Table::Audiences,
            &head_key(munchkin, &audience),
            |head: Option<Head>| {
                let mut head = head.unwrap_or_else(|| Head::new(audience.clone(), now));
                head.named(now, feed, when.time);
                head.has_overlay = true;
                Ok((Some(head), ()))
            },
            |_| None,
        )
        .await?;
        let all: Vec<(Ecid, bool)> = sides
            .inside
            .iter()
            .map(|ecid| (*ecid, true))
            .chain(sides.outside.iter().map(|ecid| (*ecid, false)))
            .collect();
        let skip = usize::try_from(done.saturating_sub(written)).unwrap_or(usize::MAX);
        for (index, chunk) in all.chunks(CHUNK).enumerate().skip(skip / CHUNK) {
            if deps.now() > deadline {
                return Ok(Some(written + (index * CHUNK) as u64));
            }
            let facts = chunk.iter().map(|&(ecid, inside)| {
                let fact = Fact { time: when.as_of, rank: RANK_FILE, inside };
                take_said(deps, munchkin, &audience, ecid, Said::File(fact)).boxed()
            });
            many(facts).await?;
        }
        written += count;
        if !followed(deps, munchkin).await?.contains(&audience) {
            continue;
        }
        // Rung even where the facts were known: an earlier attempt may have died before it rang.
        let changed: BTreeSet<Ecid> = all.into_iter().map(|(ecid, _)| ecid).collect();
        if changed.len() > deps.settings.pass_above {
            want_pass(deps, munchkin, &audience).await?;
        } else {
            for ecid in changed {
                add_todo(deps, munchkin, &audience, ecid, &BTreeSet::new()).await?;
            }
        }
        bell::mark(deps, &BellKey::audience(munchkin, &audience)).await?;
    }
    Ok(None)
}
