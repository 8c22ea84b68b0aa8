//! What must be set up at Marketo, at Adobe and on the pages, row by row: what was tried, what it means, and who can mend
//! it where. Everything that is tried is harmless, and what cannot be tried so is told from what the real work has done.

mod adobe;
mod feeds;
mod marketo;
mod subscription;
mod tag;

use ports::{Failure, Key, Table};
use serde::Serialize;
use serde_json::{Map, Value, json};
use state::doc::update_until;
use state::syncs::{IdentityHead, Subscription, Sync, identity_key};
use state::{Deps, Doc, load, time};

use crate::access::Role;
use crate::problem::Answer;
use crate::routes::Request;
use crate::view::in_order;

/// How long an answer is given again, in ms, before scaling: somebody who reloads the page costs no call. Ours.
const KEPT_MS: u64 = 60_000;
/// Largest answer that is kept, in bytes. Ours: an item of `DynamoDB` has at most 400 KB, and a larger answer (hundreds of
/// feeds) is made anew each time.
const KEPT_BYTES: usize = 300_000;
/// The value of a row that names Marketo's API users, which are addresses of people: it is shown to operators with an
/// answer that was made for them, and kept nowhere.
const USERS: &str = "users";
/// What is not answered so long before the function's end is not waited for any more, in ms: the answer must still be
/// written. Ours.
const MARGIN_MS: u64 = 3_000;

/// The reason of a row that could not be tried in time.
const NOT_IN_TIME: &str = "not_in_time";

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Area {
    Subscription,
    Marketo,
    Adobe,
    Feeds,
    Tag,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It was tried, and it is so.
    Ok,
    /// It was tried, and it is not so.
    NotOk,
    /// Nothing tells yet, or nothing could be tried.
    NotSeenYet,
    /// It is not needed here.
    NotUsed,
}

/// What a row always says, however it is.
#[derive(Debug, Clone, Copy)]
struct About {
    /// Stable.
    code: &'static str,
    area: Area,
    title: &'static str,
    /// Who can mend it.
    who: &'static str,
    /// Where.
    place: &'static str,
}

/// A row of the answer.
#[derive(Debug, Clone, Serialize)]
struct Row {
    code: &'static str,
    area: Area,
    status: Status,
    title: &'static str,
    tried: String,
    means: String,
    who: &'static str,
    #[serde(rename = "where")]
    place: &'static str,
    /// `reason`, which with the code says which sentence `means` is; and the numbers and names in it.
    values: Map<String, Value>,
}

impl About {
    fn row(self, status: Status, reason: &str, tried: impl Into<String>, means: impl Into<String>) -> Row {
        let Self { code, area, title, who, place } = self;
        let values = Map::from_iter([("reason".to_owned(), json!(reason))]);
        Row { code, area, status, title, tried: tried.into(), means: means.into(), who, place, values }
    }

    fn ok(self, reason: &str, tried: impl Into<String>, means: impl Into<String>) -> Row {
        self.row(Status::Ok, reason, tried, means)
    }

    fn not_ok(self, reason: &str, tried: impl Into<String>, means: impl Into<String>) -> Row {
        self.row(Status::NotOk, reason, tried, means)
    }

    fn not_seen(self, reason: &str, tried: impl Into<String>, means: impl Into<String>) -> Row {
        self.row(Status::NotSeenYet, reason, tried, means)
    }

    fn not_used(self, reason: &str, means: impl Into<String>) -> Row {
        self.row(Status::NotUsed, reason, "nothing", means)
    }

    /// It could not be tried before the answer was due.
    fn not_in_time(self, tried: impl Into<String>) -> Row {
        self.not_seen(
            NOT_IN_TIME,
            tried,
            "There was no answer in time. Ask again; if it stays so, look at the vendor's status.",
        )
    }
}

impl Row {
    fn with(mut self, name: &str, value: Value) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }
}

/// What the rows are made of.
struct Check<'a> {
    deps: &'a Deps,
    subscription: &'a Subscription,
    syncs: Vec<Sync>,
    identity: IdentityHead,
    /// Nothing is waited for after this time, in ms.
    until: u64,
}

/// What work answers, if it does before a time (ms). Only what reads is given up so.
async fn in_time<T>(deps: &Deps, until: u64, work: impl Future<Output = T>) -> Option<T> {
    let left = until.saturating_sub(deps.now());
    if left == 0 {
        return None;
    }
    tokio::select! {
        biased;
        done = work => Some(done),
        () = deps.ports.clock.sleep_ms(left) => None,
    }
}

/// `GET /setup`. With `?fresh=1` nothing is taken from an earlier answer: for operators, once in [`KEPT_MS`], because it
/// spends calls.
pub(crate) async fn check(
    deps: &Deps,
    subscription: Option<&Subscription>,
    request: &Request,
    deadline: u64,
) -> Answer<Value> {
    let key = Key::new(subscription.map_or("none", |subscription| subscription.munchkin_id.as_str()), "setup");
    let about = json!(subscription);
    let now = deps.now();
    let recent = |at: &Value| at.as_u64().is_some_and(|at| now < at.saturating_add(deps.settings.scaled(KEPT_MS)));
    let is_operator = request.caller().role >= Role::Operator;
    let kept: Option<Doc<Value>> = load(deps, Table::Syncs, &key).await?;
    let kept = kept.map(|kept| kept.value).filter(|kept| kept["v"] == 2).unwrap_or_default();
    let fresh = is_operator && request.param("fresh") == Some("1") && !recent(&kept["fresh_at"]);
    // Another answer was given to other settings.
    if !fresh && kept["subscription"] == about && recent(&kept["at"]) {
        return Ok(kept["answer"].clone());
    }
    let mut rows = rows(deps, subscription, deadline.saturating_sub(MARGIN_MS)).await?;
    let whole = json!({"checked_at": time(now), "rows": rows});
    for row in &mut rows {
        row.values.remove(USERS);
    }
    let answer = json!({"checked_at": time(now), "rows": rows});
    let fresh_at = if fresh { json!(now) } else { kept["fresh_at"].clone() };
    // Whoever asks again for what was not answered in time is not given the same answer.
    let is_whole = !rows.iter().any(|row| row.area == Area::Marketo && row.values["reason"] == NOT_IN_TIME);
    let kept = json!({"v": 2, "at": now, "fresh_at": fresh_at, "subscription": about, "answer": answer});
    if is_whole && kept.to_string().len() <= KEPT_BYTES {
        let until = now.saturating_add(deps.settings.scaled(KEPT_MS));
        // The last answer counts: of two that were made at once either will do.
        update_until(deps, Table::Syncs, &key, |_: Option<Value>| Ok((Some(kept.clone()), ())), until).await?;
    }
    Ok(if is_operator { whole } else { answer })
}

async fn rows(deps: &Deps, subscription: Option<&Subscription>, until: u64) -> Answer<Vec<Row>> {
    let Some(subscription) = subscription else {
        let mut rows = vec![subscription::nobody()];
        let (adobe, bucket) = tokio::join!(adobe::without_subscription(deps, until), feeds::bucket(deps, until, false));
        rows.extend(adobe);
        rows.push(bucket);
        return Ok(rows);
    };
    let munchkin = &subscription.munchkin_id;
    let found: Option<Doc<IdentityHead>> = load(deps, Table::Syncs, &identity_key(munchkin)).await?;
    let identity = found.map(|found| found.value).unwrap_or_default();
    let check = Check { deps, subscription, syncs: in_order(deps, munchkin).await?, identity, until };
    // Marketo's calls go one after the other: of the calls at once the control plane has one.
    let (marketo, adobe, feeds, tag) =
        tokio::join!(marketo::rows(&check), adobe::rows(&check), feeds::rows(&check), tag::rows(&check));
    let mut rows = subscription::rows(subscription);
    rows.extend(marketo?);
    rows.extend(adobe);
    rows.extend(feeds?);
    rows.extend(tag?);
    Ok(rows)
}

/// Why nothing came of a try, in words.
fn words(failure: &Failure) -> &str {
    match failure {
        Failure::Retry { reason, .. } | Failure::Fail { reason } | Failure::Outage { reason } => reason,
    }
}
