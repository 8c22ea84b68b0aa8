//! `POST /beacon`: a page shows a pair. Anybody can call it, so nothing that it says is trusted, and the answer is the
//! same whatever became of it.

use domain::cookie::{parse_mkto_trk, shown};
use domain::identity::{Sight, TokenRecord};
use domain::origin::OriginPattern;
use domain::{Ecid, MunchkinId, Token};
use lambda::{Counts, HttpEvent};
use ports::{Queue, Read, Table};
use serde_json::Value;
use state::identity::token_key;
use state::{Deps, Step, V1, doc};

use crate::answer::Answer;
use crate::message::{Match, Views, outgoing};
use crate::warm::{GOOD_MS, RECHECK_MS, Subscriptions, Warm};

/// Largest body, in bytes: ten times what the tag sends.
const MAX_BODY: usize = 8 * 1024;

/// What became of a beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// In the queue: a new pair, or one whose last sight moves.
    New,
    /// Stored already, or not to be stored.
    Known,
    /// Known, and this process remembers.
    Remembered,
    /// Not from a page that may send.
    RefusedOrigin,
    /// It does not show a pair.
    RefusedMalformed,
    /// The subscription does not take it.
    RefusedDoor,
    /// The visitor opted out.
    OptedOut,
    /// It could not be kept.
    Lost,
}

impl Outcome {
    /// Its name among the counts of the invocation.
    const fn count(self) -> &'static str {
        match self {
            Self::New => "beacon_new",
            Self::Known => "beacon_known",
            Self::Remembered => "beacon_remembered",
            Self::RefusedOrigin => "beacon_refused_origin",
            Self::RefusedMalformed => "beacon_refused_malformed",
            Self::RefusedDoor => "beacon_refused_door",
            Self::OptedOut => "beacon_opted_out",
            Self::Lost => "beacon_lost",
        }
    }
}

/// Takes a pair. 204 whether it is new, known or refused; 503 only where it could not be kept.
pub(crate) async fn post_beacon(deps: &Deps, warm: &Warm, request: &HttpEvent, counts: &Counts) -> Answer {
    let outcome = match admitted(deps, warm, request).await {
        Ok((found, carried)) => {
            warm.viewed(&found.munchkin_id, Views { all: 1, both: u64::from(carried) });
            take(deps, warm, &found).await
        }
        Err(outcome) => outcome,
    };
    counts.add(outcome.count(), 1);
    Answer::empty(if outcome == Outcome::Lost { 503 } else { 204 })
}

/// What the body says. All of it may be missing.
#[derive(Default)]
struct Said {
    munchkin_id: Option<MunchkinId>,
    org_id: Option<String>,
    ecid: Option<Ecid>,
    token: Option<Token>,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let text = |field: &str| body[field].as_str();
        Self {
            munchkin_id: text("munchkin_id").and_then(MunchkinId::parse),
            org_id: text("org_id").map(str::to_owned),
            ecid: text("ecid").and_then(Ecid::parse),
            token: text("token").and_then(Token::parse),
        }
    }
}

/// The pair that a beacon shows, if it may, and whether the request carried both cookies itself.
async fn admitted(deps: &Deps, warm: &Warm, request: &HttpEvent) -> Result<(Match, bool), Outcome> {
    if request.body.len() > MAX_BODY {
        return Err(Outcome::RefusedMalformed);
    }
    let said = Said::read(&request.body);
    let now = deps.now();
    let mut good_for = GOOD_MS;
    loop {
        // Without them nobody can say whether it may be kept, so nothing is promised.
        let subscriptions = warm.subscriptions(deps, good_for).await.map_err(|failure| {
            tracing::error!(reason = %failure, "a beacon is lost: the subscriptions cannot be read");
            Outcome::Lost
        })?;
        match check(&subscriptions, &said, request, now) {
            // Perhaps the settings were changed just now.
            Err(Outcome::RefusedDoor | Outcome::RefusedOrigin) if good_for > RECHECK_MS => good_for = RECHECK_MS,
            checked => return checked,
        }
    }
}

fn check(subscriptions: &Subscriptions, said: &Said, request: &HttpEvent, now: u64) -> Result<(Match, bool), Outcome> {
    let in_cookies = || {
        let mut ids = munchkin_ids(&request.cookies).peekable();
        ids.peek()?;
        // Of several subscriptions' cookies the one that is ours counts.
        Some(ids.find_map(|id| subscriptions.get(&id)))
    };
    let named = said.munchkin_id.as_ref().map(|id| subscriptions.get(id));
    let subscription = named.or_else(in_cookies).ok_or(Outcome::RefusedMalformed)?.ok_or(Outcome::RefusedDoor)?;
    let org = subscription.org_id.as_ref().ok_or(Outcome::RefusedDoor)?;
    let other_org = said.org_id.as_ref().is_some_and(|said| said != org.as_str());
    if subscription.takes_no_matches().is_some() || other_org {
        return Err(Outcome::RefusedDoor);
    }
    let origin = request.header("origin").unwrap_or_default();
    let mut patterns = subscription.origins.iter().filter_map(|pattern| OriginPattern::parse(pattern));
    if !patterns.any(|pattern| pattern.allows(origin)) {
        return Err(Outcome::RefusedOrigin);
    }
    let shown = shown(request.cookies.iter().map(String::as_str), org, &subscription.munchkin_id);
    if shown.opted_out {
        return Err(Outcome::OptedOut);
    }
    let carried = shown.ecid.is_some() && shown.token.is_some();
    // The browser's own cookies before what the page says.
    let ecid = shown.ecid.or(said.ecid).ok_or(Outcome::RefusedMalformed)?;
    let token = shown.token.or_else(|| said.token.clone()).ok_or(Outcome::RefusedMalformed)?;
    let munchkin_id = subscription.munchkin_id.clone();
    Ok((Match { v: V1, munchkin_id, ecid, token, seen_at: now, public: true, views: None }, carried))
}

/// The Munchkin ids in a request's cookies.
fn munchkin_ids(cookies: &[String]) -> impl Iterator<Item = MunchkinId> {
    let cookies = cookies.iter().flat_map(|cookie| cookie.split(';'));
    let values = cookies.filter_map(|cookie| cookie.trim().strip_prefix("_mkto_trk="));
    values.filter_map(|value| parse_mkto_trk(value).map(|(munchkin, _)| munchkin))
}

async fn take(deps: &Deps, warm: &Warm, found: &Match) -> Outcome {
    let pair = warm.pair(&found.munchkin_id, found.ecid, &found.token);
    if warm.remembers(pair, found.seen_at) {
        return Outcome::Remembered;
    }
    let record = record(deps, found).await.unwrap_or_else(|failure| {
        // What cannot be looked up counts as new: it waits in the queue until the table answers again.
        tracing::warn!(reason = %failure, "a token cannot be read: its pair goes into the queue");
        None
    });
    if let Some(record) = record {
        match record.look(found.ecid, found.seen_at) {
            Sight::Repeat => {
                let last_sight = record.ecids.get(&found.ecid).map_or(0, |seen| seen.last);
                warm.is_stored(pair, last_sight, found.seen_at);
                return Outcome::Known;
            }
            Sight::SetAside | Sight::Erased => return Outcome::Known,
            Sight::Later | Sight::New => {}
        }
    }
    // Counts ride along with what goes into the queue anyway: a beacon that repeats writes nothing.
    let views = warm.take_views(&found.munchkin_id);
    if let Err(failure) = enqueue(deps, &Match { views, ..found.clone() }).await {
        if let Some(views) = views {
            warm.viewed(&found.munchkin_id, views);
        }
        tracing::error!(reason = %failure, "a beacon is lost: it cannot be put into the queue");
        return Outcome::Lost;
    }
    warm.is_queued(pair, found.seen_at);
    Outcome::New
}

async fn enqueue(deps: &Deps, found: &Match) -> Step<()> {
    Ok(deps.ports.queues.send(Queue::Matches, vec![outgoing(found)?]).await?)
}

/// Half a read unit: what an eventually consistent read misses goes into the queue and is found when it is stored.
async fn record(deps: &Deps, found: &Match) -> Step<Option<TokenRecord>> {
    let key = token_key(&found.munchkin_id, &found.token);
    let item = deps.ports.tables.get(Table::Identity, &key, Read::Eventual).await?;
    Ok(item.map(doc::read).transpose()?.map(|record| record.value))
}
