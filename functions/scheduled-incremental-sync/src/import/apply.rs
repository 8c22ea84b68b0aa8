//! Puts what a delivery says into the audiences.

use std::collections::BTreeSet;

use domain::base::{absent, unmix};
use domain::fact::{Fact, RANK_FILE};
use domain::{AudienceId, Ecid, MunchkinId};
use futures::FutureExt as _;
use ports::{Failure, Table};
use state::audience::{BaseRef, Head, Members, Rows, SETS, Said, add_todo, head_key, point_to, take_said, want_pass};
use state::bases::Writer;
use state::bell::BellKey;
use state::facts::{NewRun, take_run};
use state::feeds::Feed;
use state::syncs::followed;
use state::{Cause, Deps, Step, bell, update};

use super::content::{Taken, Unit};
use crate::propagate::many;

/// Facts that are written before the deadline is looked at.
const CHUNK: usize = 256;
/// Time that is kept to write down how far it came, in ms.
pub(super) const RESERVE_MS: u64 = 10_000;

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

/// Who was in an audience before, in the order of rows.
pub(super) struct Before<'a> {
    rows: Option<Rows<'a>>,
    piece: Vec<u128>,
    /// Rows of the piece that were looked at.
    seen: usize,
}

impl<'a> Before<'a> {
    pub(super) async fn open(deps: &'a Deps, munchkin: &'a MunchkinId, audience: &AudienceId) -> Step<Self> {
        let rows = match Members::open(deps, munchkin, audience).await? {
            None => None,
            Some(members) => Some(members.rows().await?),
        };
        Ok(Self { rows, piece: Vec::new(), seen: 0 })
    }

    /// How many of those up to a row (`None`: of all that are left) are not among `inside`.
    pub(super) async fn absent(&mut self, inside: &[u128], end: Option<u128>) -> Step<u64> {
        let (mut count, mut inside) = (0, inside);
        loop {
            let left = &self.piece[self.seen..];
            let now = end.map_or(left.len(), |end| left.partition_point(|row| *row < end));
            count += absent(&left[..now], &mut inside);
            self.seen += now;
            if self.seen < self.piece.len() {
                return Ok(count as u64);
            }
            let Some(rows) = &mut self.rows else { return Ok(count as u64) };
            match rows.next().await? {
                Some(piece) => (self.piece, self.seen) = (piece, 0),
                None => self.rows = None,
            }
        }
    }
}

/// A snapshot that is being written.
pub(super) struct Snapshot<'a> {
    writer: Writer<'a, u128>,
    before: Before<'a>,
    absent: u64,
}

/// A snapshot that is written, and that nothing points to yet.
pub(super) struct Written {
    pub(super) unit: Unit,
    pub(super) base: BaseRef,
    pub(super) absent: u64,
}

impl<'a> Snapshot<'a> {
    pub(super) fn begin(deps: &'a Deps, when: When, before: Before<'a>) -> Self {
        Self { writer: Writer::begin(deps, SETS, when.as_of), before, absent: 0 }
    }

    pub(super) async fn part(&mut self, taken: &Taken) -> Step<()> {
        self.absent += self.before.absent(&taken.inside, taken.unit.end()).await?;
        self.writer.rows(&taken.inside).await
    }

    pub(super) async fn end(self, unit: Unit) -> Step<Written> {
        Ok(Written { unit, base: self.writer.end().await?, absent: self.absent })
    }
}

/// Each of these audiences is replaced whole.
pub(super) async fn snapshots(
    deps: &Deps,
    munchkin: &MunchkinId,
    feed: &str,
    when: When,
    written: Vec<Written>,
) -> Step<()> {
    let deps = &deps.because([Cause::File]);
    let mut replaced = Vec::new();
    for Written { unit, base, .. } in written {
        if point_to(deps, munchkin, &unit.audience, base, Some((feed, when.time))).await? {
            replaced.push(unit.audience);
        }
    }
    // Read after the heads were written: a sync that is created meanwhile sees either the head, or is seen here.
    let followed = followed(deps, munchkin).await?;
    for audience in replaced.iter().filter(|audience| followed.contains(audience)) {
        bell::mark(deps, &BellKey::audience(munchkin, audience)).await?;
    }
    Ok(())
}

/// Where facts come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) feed: &'a str,
    pub(super) when: When,
    /// Tells what is taken from anything else that ever is.
    pub(super) of: &'a str,
}

/// Every row is a fact of its own; absence says nothing. `done`: so many of them, in this order, were written before.
/// Returns how many are written now if the time was too short; `None`: all.
pub(super) async fn facts(
    deps: &Deps,
    munchkin: &MunchkinId,
    origin: Origin<'_>,
    taken: Taken,
    done: u64,
    deadline: u64,
) -> Step<Option<u64>> {
    let deps = &deps.because([Cause::File]);
    if taken.inside.len() + taken.outside.len() > deps.settings.run_above && run(deps, munchkin, origin, &taken).await?
    {
        return Ok(None);
    }
    let deadline = deadline.saturating_sub(deps.settings.scaled(RESERVE_MS));
    let Origin { feed, when, .. } = origin;
    let Taken { unit: Unit { audience, .. }, inside, outside } = taken;
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
    let count = inside.len() + outside.len();
    let mut written = usize::try_from(done).unwrap_or(usize::MAX);
    while written < count {
        if deps.now() > deadline {
            return Ok(Some(written as u64));
        }
        let end = count.min(written + CHUNK);
        let facts = (written..end).map(|place| {
            let (row, inside) = match place.checked_sub(inside.len()) {
                None => (inside[place], true),
                Some(place) => (outside[place], false),
            };
            let audience = &audience;
            async move {
                let fact = Fact { time: when.as_of, rank: RANK_FILE, inside };
                take_said(deps, munchkin, audience, ecid(row)?, Said::File(fact)).await
            }
            .boxed()
        });
        many(facts).await?;
        written = end;
    }
    if !followed(deps, munchkin).await?.contains(&audience) {
        return Ok(None);
    }
    // Rung even where the facts were known: an earlier attempt may have died before it rang.
    if count > deps.settings.pass_above {
        want_pass(deps, munchkin, &audience).await?;
    } else {
        let changed: BTreeSet<u128> = inside.into_iter().chain(outside).collect();
        for row in changed {
            add_todo(deps, munchkin, &audience, ecid(row)?, &BTreeSet::new()).await?;
        }
    }
    bell::mark(deps, &BellKey::audience(munchkin, &audience)).await?;
    Ok(None)
}

/// Many facts are one run of them. `false`: there is no room for it.
async fn run(deps: &Deps, munchkin: &MunchkinId, origin: Origin<'_>, taken: &Taken) -> Step<bool> {
    let Taken { unit: Unit { audience, part, .. }, inside, outside } = taken;
    let Origin { feed, when, of } = origin;
    let of = &format!("{of}/{part}");
    let new = NewRun { of, feed, named_at: when.time, time: when.as_of, inside, outside };
    let Some(head) = take_run(deps, munchkin, audience, new).await? else { return Ok(false) };
    // Rung even where the run was known: an earlier attempt may have died before it rang.
    if head.is_to_fold(deps) || followed(deps, munchkin).await?.contains(audience) {
        bell::mark(deps, &BellKey::audience(munchkin, audience)).await?;
    }
    Ok(true)
}

fn ecid(row: u128) -> Step<Ecid> {
    unmix(row).ok_or_else(|| Failure::fail("a row of no ECID"))
}
