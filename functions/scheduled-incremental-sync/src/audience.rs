//! Works out who is wanted in one audience: by rows of work, or by a pass where that is cheaper.

use std::collections::BTreeSet;

use domain::identity::TokenRecord;
use domain::planted::{Guard, holds};
use domain::{AudienceId, Ecid, LeadSet, MunchkinId};
use futures::FutureExt as _;
use ports::{Expect, Failure, Item, Read, Table};
use state::audience::{Members, Todo, pk, want_pass};
use state::bell::{BellKey, Next};
use state::doc;
use state::edges::{Noted, note};
use state::identity::{save_token, tokens};
use state::lists::{AudienceReport, Want, read_leads, want_key, write_leads};
use state::syncs::Start;
use state::{Deps, Doc, Step, bell, load, save, syncs};

use crate::look::Look;
use crate::propagate::many;
use crate::{pass, preview};

pub(crate) async fn work(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, deadline: u64) -> Step<Next> {
    let followed = syncs::followed(deps, munchkin).await?.contains(audience);
    if !followed {
        // Nobody tells an audience that nobody follows of changes: what a pass has found goes stale.
        pass::abandon(deps, munchkin, audience).await?;
    }
    let Some(members) = Members::open(deps, munchkin, audience).await? else { return Ok(Next::Done(None)) };
    let next = if followed { follow(deps, munchkin, audience, &members, deadline).await? } else { Next::Done(None) };
    // Behind what the lists wait for.
    if next == Next::Done(None) && !members.head().previews.is_empty() {
        return preview::work(deps, munchkin, audience, &members).await;
    }
    if next == Next::Done(None) && members.head().is_to_fold(deps) {
        members.fold(deadline).await?;
        return Ok(Next::Again);
    }
    Ok(next)
}

async fn follow(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    members: &Members<'_>,
    deadline: u64,
) -> Step<Next> {
    let head = members.head();
    if head.pass.is_some() || head.pass_wanted > head.pass_done {
        return pass::slice(deps, munchkin, audience, deadline).await;
    }
    let limit = deps.settings.pass_above + 1;
    let todos = todos(deps, munchkin, audience, limit).await?;
    let want: Option<Doc<Want>> = load(deps, Table::Lists, &want_key(munchkin, audience)).await?;
    let Some(want) = want.filter(|_| todos.len() < limit) else {
        want_pass(deps, munchkin, audience).await?;
        return Ok(Next::Again);
    };
    if todos.is_empty() {
        return Ok(Next::Done(None));
    }
    // Opened before these rows were read, it may not know that there are words of files and streams beside the base: the first of
    // them is written before its row of work.
    let opened_again = if head.has_overlay { None } else { Members::open(deps, munchkin, audience).await? };
    let members = opened_again.as_ref().unwrap_or(members);
    let mut wanted = read_leads(deps, &want.value.key).await?;
    let before = wanted.clone();
    apply(deps, munchkin, members, &todos, &mut wanted).await?;
    if wanted != before {
        let (report, pass) = (want.value.report.clone(), want.value.pass);
        publish(deps, munchkin, audience, Some(want), &wanted, report, pass).await?;
    }
    // Rung even if nothing changed: an earlier attempt may have died between the two.
    if wanted != before || holds(Guard::RungThoughNothingIsNew) {
        ring_lists(deps, munchkin, audience, false).await?;
    }
    forget(deps, &todos).await?;
    Ok(Next::Done(None))
}

/// Recomputes the leads that the rows of work concern.
pub(crate) async fn apply(
    deps: &Deps,
    munchkin: &MunchkinId,
    members: &Members<'_>,
    todos: &[Item],
    wanted: &mut LeadSet,
) -> Step<()> {
    let (mut ecids, mut former) = (BTreeSet::new(), BTreeSet::new());
    for item in todos {
        let ecid = item.key.sk.strip_prefix("todo/").and_then(Ecid::parse);
        ecids.insert(ecid.ok_or_else(|| Failure::fail("a row of work has no ECID in its key"))?);
        former.extend(doc::read::<Todo>(item.clone())?.value.leads);
    }
    let mut look = Look::new(deps, munchkin, members);
    let (mut concerned, inside) = look.concerned(&ecids).await?;
    if wake(deps, munchkin, inside).await? {
        bell::mark(deps, &BellKey::identity(munchkin)).await?;
    }
    concerned.extend(former);
    let inside =
        if holds(Guard::AnyBrowserCounts) { look.wanted(&concerned).await? } else { look.seen_inside(&concerned) };
    for lead in concerned {
        if inside.contains(&lead) {
            wanted.insert(lead);
        } else {
            wanted.remove(lead);
        }
    }
    Ok(())
}

/// Tokens of an audience that is followed are asked about: takes those that rest, being in none or about to be found in none,
/// out of their rest. Returns whether there were any.
pub(crate) async fn wake(deps: &Deps, munchkin: &MunchkinId, mut tokens: Vec<Doc<TokenRecord>>) -> Step<bool> {
    tokens.retain(|token| token.value.parked || token.value.doubted);
    let noted = &note(deps, munchkin, tokens.iter().map(|token| &token.value.token), []).await?;
    let woken = many(tokens.into_iter().map(|token| wake_one(deps, munchkin, token, noted).boxed())).await?;
    Ok(woken.contains(&true))
}

async fn wake_one(deps: &Deps, munchkin: &MunchkinId, mut token: Doc<TokenRecord>, noted: &Noted) -> Step<bool> {
    loop {
        if !token.value.is_wanted() {
            return Ok(false);
        }
        if save_token(deps, munchkin, &token.value, Some(token.rev), noted).await? {
            return Ok(true);
        }
        match tokens(deps, munchkin, [&token.value.token]).await?.pop() {
            Some(now) => token = now,
            None => return Ok(false),
        }
    }
}

/// Publishes who is wanted: a new object, then its pointer on condition of the one that was read.
pub(crate) async fn publish(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    old: Option<Doc<Want>>,
    wanted: &LeadSet,
    report: AudienceReport,
    pass: u64,
) -> Step<()> {
    let key = write_leads(deps, "want", wanted).await?;
    let (rev, mut replaced, garbage) = match old {
        None => (None, Vec::new(), Vec::new()),
        Some(old) => (Some(old.rev), vec![old.value.key, old.value.report.people_key], old.value.replaced),
    };
    replaced.retain(|old| !old.is_empty() && *old != key && *old != report.people_key);
    let want = Want { v: 1, audience: audience.clone(), key, count: wanted.len(), pass, report, replaced };
    if !save(deps, Table::Lists, want_key(munchkin, audience), &want, rev, None).await? {
        return Err(Failure::retry("somebody else works out this audience"));
    }
    for key in garbage {
        deps.ports.objects.delete(&key).await?;
    }
    Ok(())
}

/// Rings the lists that the audience feeds. `much`: what is wanted may have changed so much that even a list that
/// gathers small changes is looked at now.
pub(crate) async fn ring_lists(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, much: bool) -> Step<()> {
    for sync in syncs::syncs(deps, munchkin).await? {
        let sync = sync.value;
        if let (true, Start::Now, Some(list)) = (sync.audience == *audience && sync.follows(), sync.start, sync.list.id)
        {
            let key = BellKey::list(munchkin, list);
            if much { bell::rouse(deps, &key).await? } else { bell::mark(deps, &key).await? }
        }
    }
    Ok(())
}

/// Rows of work, at most `limit`.
pub(crate) async fn todos(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, limit: usize) -> Step<Vec<Item>> {
    let pk = pk(munchkin, audience);
    Ok(deps.ports.tables.query(Table::Audiences, &pk, "todo/", None, limit, Read::Consistent).await?.items)
}

/// Deletes rows of work that were done, unless somebody added to them meanwhile.
pub(crate) async fn forget(deps: &Deps, todos: &[Item]) -> Step<()> {
    for item in todos {
        let expect = if holds(Guard::AddedWorkStays) { Expect::Rev(item.rev) } else { Expect::Anything };
        deps.ports.tables.delete(Table::Audiences, &item.key, expect).await?;
    }
    Ok(())
}
