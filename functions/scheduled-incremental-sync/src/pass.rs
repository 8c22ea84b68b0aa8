//! A pass over an audience: joins its members with the subscription's edges ([`state::edges`]), and counts what became of
//! every ECID. What changes meanwhile stands in rows of work, which are applied before the pass publishes.

use std::collections::BTreeSet;

use domain::base::{mix, unmix};
use domain::edges::{Census, Edge, Found};
use domain::planted::{Guard, holds};
use domain::{AudienceId, Ecid, MunchkinId, Token};
use futures::FutureExt as _;
use ports::{Failure, Item, Table};
use state::audience::{Head, Members, Pass, Waiting, head_key};
use state::bases::Reader;
use state::bell::{BellKey, Next};
use state::budget::outlook;
use state::identity::{hints_of_ecid, tokens};
use state::lists::{AudienceReport, Want, want_key, write_leads};
use state::{Deps, Doc, Step, bell, edges, load, save, update};

use crate::audience::{apply, forget, publish, ring_lists, todos, wake};
use crate::edges::RESERVE_MS;
use crate::propagate::many;
use crate::sizes;

/// Who waits for edges looks again after this time, in ms, should nobody ring. Ours.
pub(crate) const LOOK_AGAIN_MS: u64 = 60_000;
/// ECIDs whose tokens are woken before the time is looked at.
const WOKEN_AT_ONCE: usize = 500;

/// Takes tokens out of their rest, for the audience is followed.
pub(crate) struct Waking<'a> {
    deps: &'a Deps,
    munchkin: &'a MunchkinId,
    deadline: u64,
    /// Up to this row they are awake.
    upto: Option<u128>,
    /// ECIDs that were looked at in this slice.
    looked: usize,
    /// A token was woken that Marketo is to be asked about.
    woken: bool,
    /// How long that took, in ms.
    ms: u64,
}

impl Waking<'_> {
    /// `false`: the slice is over.
    async fn rows(&mut self, rows: Vec<u128>) -> Step<bool> {
        let rows: Vec<u128> = rows.into_iter().filter(|row| self.upto.is_none_or(|upto| *row > upto)).collect();
        for some in rows.chunks(WOKEN_AT_ONCE.min(self.deps.settings.slice_records)) {
            let late = self.deps.now() + self.deps.settings.scaled(RESERVE_MS) > self.deadline;
            if self.looked >= self.deps.settings.slice_records || (late && self.looked > 0) {
                return Ok(false);
            }
            let began = self.deps.now();
            self.wake(some.iter().filter_map(|row| unmix(*row)).collect()).await?;
            self.ms += self.deps.now().saturating_sub(began);
            self.looked += some.len();
            self.upto = some.last().copied();
        }
        Ok(true)
    }

    async fn wake(&mut self, ecids: BTreeSet<Ecid>) -> Step<()> {
        let (deps, munchkin) = (self.deps, self.munchkin);
        let hints = many(ecids.iter().map(|ecid| hints_of_ecid(deps, munchkin, *ecid).boxed())).await?;
        let hinted: BTreeSet<&Token> = hints.iter().flat_map(|hints| &hints.tokens).collect();
        let mut beside = tokens(deps, munchkin, hinted).await?;
        beside.retain(|token| token.value.ecids.keys().any(|ecid| ecids.contains(ecid)));
        self.woken |= wake(deps, munchkin, beside).await?;
        Ok(())
    }
}

/// Counts an audience. `None`: `waking` has more to do than one slice.
pub(crate) async fn count(
    deps: &Deps,
    members: &Members<'_>,
    edges: &edges::Head,
    mut waking: Option<&mut Waking<'_>>,
) -> Step<Option<Found>> {
    let mut census = Census::new(edges.as_of);
    let mut members = members.rows().await?;
    let mut reader = edges.base.clone().map(|base| Reader::new(deps, base));
    let mut left: Vec<Edge> = Vec::new();
    while let Some(piece) = members.next().await? {
        let mut piece = &piece[..];
        while !piece.is_empty() {
            let (mut some, mut rest) = (&left[..], Vec::new());
            census.join(&mut piece, &mut some, reader.is_none(), |row| rest.push(row));
            left.drain(..left.len() - some.len());
            if let Some(waking) = &mut waking
                && !waking.rows(rest).await?
            {
                return Ok(None);
            }
            if let (false, Some(more)) = (piece.is_empty(), &mut reader) {
                match more.next().await? {
                    Some(mut edges) => left.append(&mut edges),
                    None => reader = None,
                }
            }
        }
    }
    Ok(Some(census.end()))
}

/// Does one slice of a pass: begins it, wakes tokens, or publishes it.
pub(crate) async fn slice(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, deadline: u64) -> Step<Next> {
    let key = head_key(munchkin, audience);
    let Some(mut head) = load::<Head>(deps, Table::Audiences, &key).await? else { return Ok(Next::Done(None)) };
    if head.value.pass.is_none() {
        // Published before anything is read, so that whoever asks for a pass from here on gets another one, and rows of work
        // stay.
        let number = head.value.pass_wanted.max(head.value.pass_done + 1);
        head.value.pass = Some(Pass { number, began: deps.now(), edges: None, woken: None, waking_ms: 0 });
        if !save(deps, Table::Audiences, key.clone(), &head.value, Some(head.rev), None).await? {
            return Ok(Next::Again);
        }
        head.rev += 1;
    }
    let Some(mut pass) = head.value.pass.clone() else { return Ok(Next::Again) };
    let number = match pass.edges {
        Some(number) => number,
        None => {
            // Asked for after the pass was published: what was written before is in them, what comes after is in rows of work.
            let number = edges::want(deps, munchkin, Some(audience)).await?;
            pass.edges = Some(number);
            head.value.pass = Some(pass.clone());
            checkpoint(deps, munchkin, audience, &mut head).await?;
            number
        }
    };
    let Some(edges) = edges::ready(deps, munchkin, audience, number).await? else {
        return Ok(Next::Done(Some(deps.now() + deps.settings.scaled(LOOK_AGAIN_MS))));
    };
    let Some(members) = Members::open(deps, munchkin, audience).await? else { return Ok(Next::Done(None)) };
    let upto = pass.woken.map(mix);
    let mut waking = Waking { deps, munchkin, deadline, upto, looked: 0, woken: false, ms: pass.waking_ms };
    let found = count(deps, &members, &edges, Some(&mut waking)).await?;
    if waking.woken {
        bell::mark(deps, &BellKey::identity(munchkin)).await?;
    }
    let Some(found) = found else {
        (pass.woken, pass.waking_ms) = (waking.upto.and_then(unmix), waking.ms);
        head.value.pass = Some(pass);
        checkpoint(deps, munchkin, audience, &mut head).await?;
        return Ok(Next::Again);
    };
    let applied = finish(deps, munchkin, audience, pass.number, edges.as_of, &found).await?;
    head.value.pass_done = pass.number;
    head.value.pass = None;
    let calls = outlook(deps, munchkin).await?;
    // As if it had begun with nothing to wake: so the next one does.
    let took_ms = deps.now().saturating_sub(pass.began).saturating_sub(waking.ms);
    head.value.waiting = Some(Waiting {
        as_of: deps.now() - took_ms,
        tokens: found.to_look_up,
        of: found.inside,
        took_ms,
        look_ups: calls.look_ups_today,
        calls: calls.calls_today,
    });
    checkpoint(deps, munchkin, audience, &mut head).await?;
    // Not before: whoever dies between publishing and here publishes again, from edges of before, and without these rows what
    // they say would be lost.
    forget(deps, &applied).await?;
    // Again: rows of work may be left, or another pass asked for.
    Ok(Next::Again)
}

/// Gives up a pass under way; its number is never published.
pub(crate) async fn abandon(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId) -> Step<()> {
    update(
        deps,
        Table::Audiences,
        &head_key(munchkin, audience),
        |head: Option<Head>| {
            let given_up = head.and_then(|mut head| {
                let pass = head.pass.take()?;
                head.pass_done = head.pass_done.max(pass.number);
                head.pass_wanted = head.pass_wanted.max(pass.number + 1);
                Some(head)
            });
            Ok((given_up, ()))
        },
        |_| None,
    )
    .await
}

async fn checkpoint(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, head: &mut Doc<Head>) -> Step<()> {
    let key = head_key(munchkin, audience);
    for _ in 0..10 {
        if save(deps, Table::Audiences, key.clone(), &head.value, Some(head.rev), None).await? {
            head.rev += 1;
            return Ok(());
        }
        // A delivery may have changed the head meanwhile; another pass may not.
        let Some(now) = load::<Head>(deps, Table::Audiences, &key).await? else { break };
        let (ours, theirs) = (head.value.pass.as_ref(), now.value.pass.as_ref());
        let number = ours.map_or(head.value.pass_done, |pass| pass.number);
        if theirs.is_some_and(|pass| pass.number > number) || now.value.pass_done > head.value.pass_done {
            break;
        }
        let Head { pass, pass_done, waiting, .. } = head.value.clone();
        let merged = Head { pass, pass_done, waiting, ..now.value };
        *head = Doc { value: merged, rev: now.rev };
    }
    Err(Failure::retry("somebody else passes over this audience"))
}

/// Publishes what a pass has found. Returns the rows of work that it has applied.
async fn finish(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    number: u64,
    as_of: u64,
    found: &Found,
) -> Step<Vec<Item>> {
    let want: Option<Doc<Want>> = load(deps, Table::Lists, &want_key(munchkin, audience)).await?;
    // Those beyond stay, and are handled next.
    let todos = todos(deps, munchkin, audience, deps.settings.pass_above.max(100)).await?;
    let mut wanted = found.people.clone();
    if holds(Guard::ReplayBeforePublish)
        && let Some(members) = Members::open(deps, munchkin, audience).await?
    {
        apply(deps, munchkin, &members, &todos, &mut wanted).await?;
    }
    let people_key = write_leads(deps, "people", &found.people).await?;
    let report = AudienceReport { as_of, counts: found.counts.clone(), people_key };
    publish(deps, munchkin, audience, want, &wanted, report, number).await?;
    ring_lists(deps, munchkin, audience, true).await?;
    sizes::keep(deps, munchkin, audience, number, as_of, &found.counts).await?;
    Ok(todos)
}
