//! What the syncs of one subscription share: an answer that shows many of them reads it once.

use std::collections::BTreeMap;

use domain::{AudienceId, MunchkinId};
use ports::Table;
use state::audience::{Head, Waiting, head_key};
use state::budget::{Outlook, outlook};
use state::feeds::{Feed, feed_state, feeds};
use state::identity::tell_pk;
use state::syncs::{IdentityHead, followed, identity_key};
use state::{Deps, Doc, Step, edges, load};
use tokio::sync::{Mutex, OnceCell};

use crate::deliveries::{self, UnderWay};
use crate::freshness::last_match;

/// What was read so far. It is of one answer and one subscription.
pub(crate) struct Once<'a> {
    deps: &'a Deps,
    munchkin: &'a MunchkinId,
    identity: OnceCell<IdentityHead>,
    outlook: OnceCell<Outlook>,
    waiting: OnceCell<Vec<(AudienceId, Waiting)>>,
    untold: OnceCell<bool>,
    edges: OnceCell<Option<edges::Head>>,
    last_match: OnceCell<Option<u64>>,
    feeds: OnceCell<Vec<Feed>>,
    under_way: OnceCell<Vec<UnderWay>>,
    /// By feed.
    heard_at: Mutex<BTreeMap<String, Option<u64>>>,
}

impl<'a> Once<'a> {
    pub(crate) fn new(deps: &'a Deps, munchkin: &'a MunchkinId) -> Self {
        Self {
            deps,
            munchkin,
            identity: OnceCell::new(),
            outlook: OnceCell::new(),
            waiting: OnceCell::new(),
            untold: OnceCell::new(),
            edges: OnceCell::new(),
            last_match: OnceCell::new(),
            feeds: OnceCell::new(),
            under_way: OnceCell::new(),
            heard_at: Mutex::default(),
        }
    }

    /// How far the look-ups are.
    pub(crate) async fn identity(&self) -> Step<&IdentityHead> {
        let read = async || {
            let found: Option<Doc<IdentityHead>> = load(self.deps, Table::Syncs, &identity_key(self.munchkin)).await?;
            Ok(found.map(|found| found.value).unwrap_or_default())
        };
        self.identity.get_or_try_init(read).await
    }

    /// What calls there will be.
    pub(crate) async fn outlook(&self) -> Step<&Outlook> {
        self.outlook.get_or_try_init(async || outlook(self.deps, self.munchkin).await).await
    }

    /// What waits for look-ups, by followed audience.
    pub(crate) async fn waiting(&self) -> Step<&[(AudienceId, Waiting)]> {
        let read = async || {
            let mut waiting = Vec::new();
            for audience in followed(self.deps, self.munchkin).await? {
                let head = load::<Head>(self.deps, Table::Audiences, &head_key(self.munchkin, &audience)).await?;
                waiting.extend(head.and_then(|head| head.value.waiting).map(|of| (audience, of)));
            }
            Ok(waiting)
        };
        self.waiting.get_or_try_init(read).await.map(Vec::as_slice)
    }

    /// How far the edges are that passes wait for.
    pub(crate) async fn edges(&self) -> Step<Option<&edges::Head>> {
        let read = async || Ok(edges::head(self.deps, self.munchkin).await?.map(|edges| edges.value));
        self.edges.get_or_try_init(read).await.map(Option::as_ref)
    }

    /// Whether something was learned of tokens or people that no audience has been told yet: it may wait for an hour while
    /// many cookies are asked about.
    pub(crate) async fn untold(&self) -> Step<bool> {
        let read = async || {
            let (tables, partition) = (&self.deps.ports.tables, tell_pk(self.munchkin));
            Ok(!tables.due(Table::Identity, &partition, self.deps.now(), 1).await?.is_empty())
        };
        self.untold.get_or_try_init(read).await.copied()
    }

    /// The declared feeds.
    pub(crate) async fn feeds(&self) -> Step<&[Feed]> {
        self.feeds.get_or_try_init(async || feeds(self.deps, self.munchkin).await).await.map(Vec::as_slice)
    }

    /// Deliveries that are being taken in: those that began first come first.
    pub(crate) async fn under_way(&self) -> Step<&[UnderWay]> {
        let read = async || deliveries::under_way(self.deps, self.munchkin).await;
        self.under_way.get_or_try_init(read).await.map(Vec::as_slice)
    }

    /// When a stream last said anything about any audience, in ms.
    pub(crate) async fn heard_at(&self, feed: &str) -> Step<Option<u64>> {
        let mut all = self.heard_at.lock().await;
        if let Some(heard) = all.get(feed) {
            return Ok(*heard);
        }
        let heard = feed_state(self.deps, self.munchkin, feed).await?.heard_at;
        all.insert(feed.to_owned(), heard);
        Ok(heard)
    }

    /// When a match that was new last came, in ms.
    pub(crate) async fn last_match(&self) -> Step<Option<u64>> {
        self.last_match.get_or_try_init(async || last_match(self.deps, self.munchkin).await).await.copied()
    }
}
