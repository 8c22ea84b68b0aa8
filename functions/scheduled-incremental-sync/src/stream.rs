//! Takes in what streams said: each entry is a timed fact, and absence says nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::fact::Streamed;
use domain::limits::{HOUR_MS, REJECTS_KEPT};
use domain::planted::{Guard, holds};
use domain::{AudienceId, Ecid, MunchkinId};
use futures::FutureExt as _;
use ports::Table;
use state::audience::{Head, Members, Said, add_todo, head_key, take_said, want_pass};
use state::bell::BellKey;
use state::feeds::{Events, change_feed_state};
use state::syncs::{followed, subscription};
use state::{Cause, Deps, Step, bell, load, update};

use crate::propagate::many;

/// Experience Platform repeats all memberships of a profile with each change of it. Up to when they are vouched for is
/// kept with this grain, in ms, so that most repeats write nothing. Ours.
const AS_OF_GRAIN_MS: u64 = 10 * 60_000;
/// A message that is older than this has perhaps been handled before, and died before it rang, in ms. Ours: above any
/// time that a message spends in a queue that is served.
const STALE_MS: u64 = 5 * 60_000;

/// What was said about the audiences of a subscription, and by which feeds.
#[derive(Default)]
struct Heard {
    said: BTreeMap<AudienceId, BTreeMap<Ecid, Streamed>>,
    feeds: BTreeMap<AudienceId, BTreeMap<String, u64>>,
    fresh: bool,
}

/// Takes in messages. `fresh`: each comes for the first time. A second time they change nothing, and ring again.
pub async fn heard(deps: &Deps, messages: &[Events], fresh: bool) -> Step<()> {
    let deps = &deps.because([Cause::Stream]);
    let mut all: BTreeMap<MunchkinId, Heard> = BTreeMap::new();
    for message in messages {
        let heard = all.entry(message.munchkin_id.clone()).or_insert_with(|| Heard { fresh, ..Heard::default() });
        heard.fresh &= deps.now() < message.received_at.saturating_add(deps.settings.scaled(STALE_MS));
        for entry in &message.entries {
            // What a source says of the future is so now.
            let changed = entry.said.changed.min(message.received_at);
            let as_of = entry.said.as_of.min(message.received_at);
            let as_of = changed.max(as_of - as_of % AS_OF_GRAIN_MS);
            let said = Streamed { changed, as_of, inside: entry.said.inside };
            let known = heard.said.entry(entry.audience.clone()).or_default().entry(entry.ecid).or_insert(said);
            if said.beats(*known) {
                *known = said;
            }
            let feeds = heard.feeds.entry(entry.audience.clone()).or_default();
            let at = feeds.entry(message.feed.clone()).or_default();
            *at = (*at).max(message.received_at);
        }
    }
    let (mut failed, mut open) = (None, BTreeSet::new());
    for (munchkin, heard) in &all {
        match subscription(deps, munchkin).await? {
            Some(subscription) if subscription.refused().is_none() => {}
            _ => {
                tracing::warn!("a stream's entries are for a subscription that must not be used, and are dropped");
                continue;
            }
        }
        open.insert(munchkin);
        for (audience, said) in &heard.said {
            // What goes wrong with one audience is no reason for the others to wait.
            if let Err(failure) = take(deps, munchkin, audience, said, heard).await {
                failed.get_or_insert(failure);
            }
        }
    }
    if let Some(failure) = failed.filter(|_| holds(Guard::FailedEntriesComeAgain)) {
        return Err(failure);
    }
    let taken: Vec<&Events> = messages.iter().filter(|message| open.contains(&message.munchkin_id)).collect();
    count(deps, &taken).await
}

async fn take(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    said: &BTreeMap<Ecid, Streamed>,
    heard: &Heard,
) -> Step<()> {
    name(deps, munchkin, audience, &heard.feeds[audience]).await?;
    let Some(members) = Members::open(deps, munchkin, audience).await? else { return Ok(()) };
    let ecids: BTreeSet<Ecid> = said.keys().copied().collect();
    let sets = &members.in_sets(&ecids).await?;
    let taken = said.iter().map(|(&ecid, &streamed)| {
        async move {
            let (before, after) = take_said(deps, munchkin, audience, ecid, Said::Stream(streamed)).await?;
            Ok((ecid, sets.inside(ecid, before) != sets.inside(ecid, after)))
        }
        .boxed()
    });
    let taken: HashMap<Ecid, bool> = many(taken).await?.into_iter().collect();
    if !followed(deps, munchkin).await?.contains(audience) {
        return Ok(());
    }
    // A file that came meanwhile may say otherwise than those we compared with.
    let head: Option<state::Doc<Head>> = load(deps, Table::Audiences, &head_key(munchkin, audience)).await?;
    let known = members.head();
    let same_sets = head.is_some_and(|head| head.value.base == known.base && head.value.runs == known.runs);
    let all = !heard.fresh || !same_sets;
    let changed: Vec<Ecid> = ecids.into_iter().filter(|ecid| all || taken[ecid]).collect();
    if changed.is_empty() {
        return Ok(());
    }
    if changed.len() > deps.settings.pass_above {
        want_pass(deps, munchkin, audience).await?;
    } else {
        for ecid in changed {
            add_todo(deps, munchkin, audience, ecid, &BTreeSet::new()).await?;
        }
    }
    bell::mark(deps, &BellKey::audience(munchkin, audience)).await
}

/// Sees to it that the audience has a head that tells of overlay rows, before there are any.
async fn name(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, feeds: &BTreeMap<String, u64>) -> Step<()> {
    let now = deps.now();
    let change = |head: Option<Head>| {
        let known = head.as_ref().is_some_and(|head| {
            let recent = |(feed, at): (&String, &u64)| head.feeds.get(feed).is_some_and(|last| at < &(last + HOUR_MS));
            head.has_overlay && head.missing.is_none() && feeds.iter().all(recent)
        });
        if known {
            return Ok((None, ()));
        }
        let mut head = head.unwrap_or_else(|| Head::new(audience.clone(), now));
        head.has_overlay = true;
        for (feed, at) in feeds {
            head.named(now, feed, *at);
        }
        Ok((Some(head), ()))
    };
    update(deps, Table::Audiences, &head_key(munchkin, audience), change, |_| None).await
}

/// Writes down what each feed has brought. Last: until then the messages come again.
async fn count(deps: &Deps, messages: &[&Events]) -> Step<()> {
    let mut feeds: BTreeMap<(&MunchkinId, &str), Vec<&Events>> = BTreeMap::new();
    for message in messages {
        feeds.entry((&message.munchkin_id, &message.feed)).or_default().push(message);
    }
    for ((munchkin, feed), messages) in feeds {
        change_feed_state(deps, munchkin, feed, |state| {
            for message in &messages {
                state.heard_at = state.heard_at.max(Some(message.received_at));
                state.taken += message.entries.len() as u64;
                state.ignored += message.ignored;
                state.rejected += message.rejected;
                state.rejects.extend(message.rejects.iter().cloned());
            }
            let over = state.rejects.len().saturating_sub(REJECTS_KEPT);
            state.rejects.drain(..over);
        })
        .await?;
    }
    Ok(())
}
