//! Whom to tell that something is wrong, and what is wrong at present.
//!
//! An incident is one row: what it is about, and who is still to be told that it began or ended. A check that dies
//! between telling and noting it tells once more, with the same id.

use std::collections::{BTreeMap, BTreeSet};

use domain::limits::DAY_MS;
use domain::{ListId, MunchkinId};
use ports::{Expect, Item, Key, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Deps, Doc, Step, doc, load};

/// A list deviates where its size differs by more than so many per cent from the median of its last 14 days (issue 6).
pub const DEVIATION_PERCENT: u64 = 20;
/// An incident that has ended is kept for so long, in ms. Ours: as long as runs.
const ENDED_KEPT_MS: u64 = 90 * DAY_MS;

/// Whom to tell, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerts {
    /// Version of this shape.
    pub v: u8,
    /// Webhooks, by the names that an operator gave them.
    pub webhooks: BTreeMap<String, Webhook>,
    /// When a list deviates, in per cent.
    pub deviation_percent: u64,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { v: 1, webhooks: BTreeMap::new(), deviation_percent: DEVIATION_PERCENT }
    }
}

/// A webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its address, which may itself be a secret.
    pub url: String,
    /// What it takes.
    pub form: Form,
    /// Headers of each request, such as an authorization. They are never shown again.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("form", &self.form).finish_non_exhaustive()
    }
}

/// What a webhook takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The incident as plain JSON.
    #[default]
    Json,
    /// Slack's incoming webhooks: `{"text"}`.
    Slack,
    /// Microsoft Teams' workflows: a message with an adaptive card.
    Teams,
}

macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident = $name:literal,)*) => {
        /// What may be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum IncidentKind {
            $($(#[$about])* #[serde(rename = $name)] $kind,)*
        }

        impl IncidentKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name, as it is stored and told.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// A sync was paused or stopped by something other than an operator.
    SyncStopped = "sync_stopped",
    /// Work on a sync failed several times and rests.
    Stuck = "stuck",
    /// A feed is late.
    FeedLate = "feed_late",
    /// A list's size is far from the median of its last 14 days.
    ListDeviates = "list_deviates",
    /// A run takes three times its usual.
    RunSlow = "run_slow",
    /// A delivery waits for an operator.
    DeliveryHeld = "delivery_held",
    /// A mass change waits for an operator.
    ChangeHeld = "change_held",
    /// Our share of Marketo's daily quota is used up.
    QuotaUsedUp = "quota_used_up",
    /// A dead-letter queue is not empty.
    DeadLetters = "dead_letters",
}

/// What is, or was, wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Version of this shape.
    pub v: u8,
    /// Its id: of the kind, what it is about, and when it began.
    pub id: String,
    /// What is wrong.
    pub kind: IncidentKind,
    /// What it is about: a sync, a feed, a list, a queue. Nothing personal.
    pub subject: String,
    /// In a sentence.
    pub sentence: String,
    /// The numbers and names of the sentence.
    pub values: Value,
    /// Since when, in ms.
    pub since: u64,
    /// Until when, in ms.
    pub ended_at: Option<u64>,
    /// Who is still to be told that it began.
    pub owed: BTreeSet<String>,
    /// Who is still to be told that it ended.
    pub owed_end: BTreeSet<String>,
}

/// What the checks of a subscription remember.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Version of this shape.
    pub v: u8,
    /// When the last check began, in ms.
    pub at: u64,
    /// By list: the last run that the bus has heard of.
    pub runs: BTreeMap<ListId, u64>,
}

/// The key of a subscription's alerts.
#[must_use]
pub fn alerts_key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "alerts")
}

/// The key of what its checks remember.
#[must_use]
pub fn checked_key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "alerts-checked")
}

/// Whom to tell.
pub async fn alerts(deps: &Deps, munchkin: &MunchkinId) -> Step<Alerts> {
    let found: Option<Doc<Alerts>> = load(deps, Table::Syncs, &alerts_key(munchkin)).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

/// The incidents of a subscription: those that last, and the last of each kind and subject that have ended.
pub async fn incidents(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<Doc<Incident>>> {
    doc::all(deps, Table::Syncs, munchkin.as_str(), "incident/").await
}

/// Writes an incident over the revision that was read (`None`: it is new). `false`: somebody was faster.
pub async fn save_incident(deps: &Deps, munchkin: &MunchkinId, incident: &Incident, rev: Option<u64>) -> Step<bool> {
    let key = Key::new(munchkin.as_str(), format!("incident/{}/{}", incident.kind.name(), incident.subject));
    let until = incident.ended_at.map(|ended| (ended + ENDED_KEPT_MS) / 1_000);
    let item = Item { expires_at: until, ..doc::item(key, incident, rev, None)? };
    Ok(deps.ports.tables.put(Table::Syncs, item, rev.map_or(Expect::Absent, Expect::Rev)).await?)
}
