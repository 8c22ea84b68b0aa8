//! Where subscriptions, feeds, syncs, imports and cursors stand.

pub use domain::list::GuardSettings;
use domain::said::Saying;
use domain::sayings::{COOKIE_SYNC_OFF, HIPAA, NO_ORGANISATION};
use domain::{AudienceId, ListId, MunchkinId, OrgId, Said};
use ports::{Key, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Deps, Doc, Step, doc, load};

/// One Marketo instance, mapped to one IMS organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Version of this shape.
    #[serde(default = "one")]
    pub v: u8,
    /// The Munchkin id.
    pub munchkin_id: MunchkinId,
    /// The organisation; `None`: none is mapped.
    pub org_id: Option<OrgId>,
    /// A HIPAA-ready instance must not be used with this integration.
    #[serde(default)]
    pub hipaa_ready: bool,
    /// Whether cookie sync is switched on.
    #[serde(default = "yes")]
    pub cookie_sync: bool,
    /// Leads created before this time (RFC 3339) are not extracted; `None`: two years before the first extract.
    #[serde(default)]
    pub extract_since: Option<String>,
    /// More additions than this that one of our own lists waits for go by bulk import; `None`: never.
    #[serde(default)]
    pub bulk_import_above: Option<u64>,
    /// Origins of pages whose tag may send matches, such as `https://www.example.com` or `https://*.example.com`; none:
    /// no page may.
    #[serde(default)]
    pub origins: Vec<String>,
    /// New pairs that pages may show a day (UTC); beyond it only some are kept, and an alarm is raised.
    #[serde(default = "new_pairs_per_day")]
    pub new_pairs_per_day: u64,
    /// Our share of each of Marketo's limits, in per cent from 1 to 100; `None`: the deployment's.
    #[serde(default)]
    pub quota_share_percent: Option<u64>,
}

/// The secrets with which form handlers and webhooks may leave hints: only what is needed to recognise one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintSecrets {
    /// Version of this shape.
    pub v: u8,
    /// The newest two, the newest first: the older one stays valid until there is a third, so that it can be replaced
    /// without a gap.
    pub valid: Vec<HintSecret>,
}

/// What is kept of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintSecret {
    /// Salt, in hexadecimal digits.
    pub salt: String,
    /// SHA-256 of the salt's and the secret's text, in hexadecimal digits. The secret has 256 random bits, so that a slow
    /// hash would add nothing.
    pub hash: String,
    /// When it was made, in ms.
    pub made_at: u64,
}

impl HintSecret {
    /// What is kept of a secret.
    #[must_use]
    pub fn of(secret: &str, salt: String, made_at: u64) -> Self {
        let hash = Self::digest(&salt, secret);
        Self { salt, hash, made_at }
    }

    /// Whether this is the secret. What the comparison's time could tell is how much of a salted hash fits.
    #[must_use]
    pub fn is(&self, secret: &str) -> bool {
        Self::digest(&self.salt, secret) == self.hash
    }

    fn digest(salt: &str, secret: &str) -> String {
        let digest = Sha256::new().chain_update(salt).chain_update(secret).finalize();
        digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// The key of a subscription's hint secrets.
#[must_use]
pub fn hint_secrets_key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "hint-secrets")
}

const fn new_pairs_per_day() -> u64 {
    domain::limits::NEW_PAIRS_PER_DAY
}

const fn one() -> u8 {
    1
}

const fn yes() -> bool {
    true
}

impl Subscription {
    /// Why this subscription must not be used at all, if so.
    #[must_use]
    pub const fn refused(&self) -> Option<Saying> {
        if self.hipaa_ready {
            return Some(HIPAA);
        }
        if self.org_id.is_none() {
            return Some(NO_ORGANISATION);
        }
        None
    }

    /// Why it takes no matches and no hints, if so.
    #[must_use]
    pub const fn takes_no_matches(&self) -> Option<Saying> {
        match self.refused() {
            None if !self.cookie_sync => Some(COOKIE_SYNC_OFF),
            refused => refused,
        }
    }
}

/// A sync: an audience feeds a static list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Version of this shape.
    pub v: u8,
    /// Its id: ours, 16 hex digits.
    pub id: String,
    /// The subscription.
    pub munchkin: MunchkinId,
    /// The audience.
    pub audience: AudienceId,
    /// Its name, as Adobe last called it.
    pub audience_name: String,
    /// The list.
    pub list: Target,
    /// Who leaves the list.
    pub leaving: Leaving,
    /// What happens to people who were in the list before.
    pub members_before: MembersBefore,
    /// Whether lists are written at all.
    pub start: Start,
    /// Where it stands.
    pub status: Status,
    /// In words for people: why it is paused or refused.
    pub why: Option<Said>,
    /// The audience's pass from which on *want* counts for this sync; `None`: the audience was not delivered then,
    /// and the first pass will do.
    pub from_pass: Option<u64>,
    /// The pass that an operator asked for last: its report is made at once.
    #[serde(default)]
    pub run_pass: Option<u64>,
    /// Object key of what it wanted when it was paused or stopped.
    pub frozen: Option<String>,
    /// When a change of its list is a mass change.
    #[serde(default)]
    pub guard: GuardSettings,
    /// Raised by each change of status.
    pub generation: u64,
    /// When it was made, in ms.
    pub created_at: u64,
}

/// The list of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Marketo's id; `None` until the list is made.
    pub id: Option<ListId>,
    /// Its name.
    pub name: String,
    /// The folder of a new list.
    pub folder_id: Option<u64>,
    /// Whether we made it.
    pub ours: bool,
}

/// Who leaves the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// Who leaves the audience leaves the list.
    #[default]
    Remove,
    /// Nobody leaves.
    Keep,
}

/// What happens to people who were in the list before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MembersBefore {
    /// They stay.
    #[default]
    Keep,
    /// Those whom we can tie to an ECID leave like ours.
    Adopt,
}

/// Whether lists are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// From now on.
    #[default]
    Now,
    /// Never: everything is computed, and no list is touched.
    ReportOnly,
}

/// Where a sync stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its list is being made.
    Creating,
    /// It follows its audience.
    Active,
    /// Its list is not written; facts are still taken in.
    Paused,
    /// Over; its people stay in the list.
    StoppedKeeping,
    /// Over; its people leave the list.
    StoppedLeaving,
}

impl Sync {
    /// Whether its audience is followed.
    #[must_use]
    pub const fn follows(&self) -> bool {
        matches!(self.status, Status::Active | Status::Paused)
    }
}

/// What the identity work of a subscription remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityHead {
    /// Version of this shape.
    pub v: u8,
    /// Marketo's paging token of the activity log.
    pub cursor: Option<String>,
    /// When activities were last polled to their end, in ms.
    pub polled_at: u64,
    /// When the audiences were last told while many tokens wait for a first look-up, in ms; 0: there are not many.
    #[serde(default)]
    pub told_at: u64,
    /// When the audiences had been told of the last of many tokens that waited for a first look-up, in ms.
    #[serde(default)]
    pub calm_at: u64,
    /// When leads were last read because somebody asked to, in ms.
    #[serde(default)]
    pub looked_at: u64,
    /// When Marketo was last asked about tokens or leads, in ms, to the minute; 0: never.
    #[serde(default)]
    pub asked_at: u64,
    /// Marketo's paging token of what was done to lists.
    #[serde(default)]
    pub changes_cursor: Option<String>,
    /// When that was last read, in ms.
    #[serde(default)]
    pub changes_at: u64,
    /// Lines in the log of merges and deletions that count.
    pub departures: u64,
    /// Lines of that log of which the lists have been told.
    pub departures_rung: u64,
    /// The bulk extract of leads with their ECIDs.
    pub extract: Extract,
}

/// How far the bulk extract is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extract {
    /// Leads created before this time (ms) have been extracted.
    pub upto: Option<u64>,
    /// The job under way.
    pub job: Option<ExtractJob>,
    /// When the job was last looked at, in ms.
    pub polled_at: u64,
    /// When all leads had been extracted, in ms.
    pub done_at: Option<u64>,
    /// The instance has no field `ecids` (1006).
    pub no_ecids: bool,
    /// When Marketo last said so, in ms; a day later it is asked again.
    #[serde(default)]
    pub refused_at: u64,
}

/// A job of the bulk extract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractJob {
    /// Marketo's id of it.
    pub id: String,
    /// Whether it was put into Marketo's queue.
    pub enqueued: bool,
    /// When it was created, in ms: the truth of its rows is at least that old.
    pub created_at: u64,
    /// The end of its window, in ms.
    pub upto: u64,
}

const SUBSCRIPTIONS: &str = "subscriptions";

/// The key of a subscription.
#[must_use]
pub fn subscription_key(munchkin: &MunchkinId) -> Key {
    Key::new(SUBSCRIPTIONS, munchkin.as_str())
}

/// The key of a sync.
#[must_use]
pub fn sync_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("sync/{id}"))
}

/// The key of a subscription's identity head.
#[must_use]
pub fn identity_key(munchkin: &MunchkinId) -> Key {
    Key::new(munchkin.as_str(), "identity")
}

/// All subscriptions.
pub async fn subscriptions(deps: &Deps) -> Step<Vec<Subscription>> {
    let found = doc::all(deps, Table::Syncs, SUBSCRIPTIONS, "").await?;
    Ok(found.into_iter().map(|doc: Doc<Subscription>| doc.value).collect())
}

/// One subscription.
pub async fn subscription(deps: &Deps, munchkin: &MunchkinId) -> Step<Option<Subscription>> {
    Ok(load(deps, Table::Syncs, &subscription_key(munchkin)).await?.map(|doc| doc.value))
}

/// All syncs of a subscription, stopped ones included.
pub async fn syncs(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<Doc<Sync>>> {
    doc::all(deps, Table::Syncs, munchkin.as_str(), "sync/").await
}

/// The audiences that some sync of the subscription follows.
pub async fn followed(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<AudienceId>> {
    let mut audiences: Vec<AudienceId> = syncs(deps, munchkin)
        .await?
        .into_iter()
        .filter(|sync| sync.value.follows())
        .map(|sync| sync.value.audience)
        .collect();
    audiences.sort();
    audiences.dedup();
    Ok(audiences)
}

/// Changes a sync's row. `change` returns `false` to leave it as it is.
pub async fn change_sync(
    deps: &Deps,
    munchkin: &MunchkinId,
    id: &str,
    mut change: impl FnMut(&mut Sync) -> bool,
) -> Step<Option<Sync>> {
    crate::update(
        deps,
        Table::Syncs,
        &sync_key(munchkin, id),
        |found: Option<Sync>| {
            let Some(mut sync) = found else { return Ok((None, None)) };
            let changed = change(&mut sync);
            Ok((changed.then(|| sync.clone()), Some(sync)))
        },
        |_| None,
    )
    .await
}
