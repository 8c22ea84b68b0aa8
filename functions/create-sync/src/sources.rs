//! Where a sync's members come from, how late that can be, and what to ask Adobe where nothing comes.

use state::time;
use std::collections::BTreeMap;

use domain::AudienceId;
use serde_json::{Value, json};
use state::audience::{Head, Missing};
use state::feeds::{DEFAULT_FEED, Feed, Kind};
use state::syncs::{Status, Sync};

/// A feed that names the sync's audience.
#[derive(Debug)]
pub(crate) struct Source {
    feed: Feed,
    /// When it last did, in ms; of streams to the hour.
    last: u64,
    lateness: Option<String>,
    overdue: Option<String>,
}

impl Source {
    /// The feed's id.
    pub(crate) fn feed(&self) -> &str {
        &self.feed.id
    }

    /// Whether it comes by HTTP.
    pub(crate) const fn is_stream(&self) -> bool {
        self.feed.kind.is_stream()
    }

    /// When it last named the audience, in ms; of streams to the hour.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn json(&self) -> Value {
        let Self { feed, last, lateness, overdue } = self;
        // What the sentence says, for whoever says it in another language.
        let said = lateness.as_ref();
        json!({
            "feed": feed.id,
            "kind": feed.kind,
            "last_at": time(*last),
            "lateness": lateness,
            "every_hours": said.map(|_| feed.every_hours),
            "behind_hours": said.map(|_| feed.behind_hours()),
            "overdue": overdue,
        })
    }
}

/// The feeds that name an audience. A list that a stream fills is as late as the stream, whatever else comes.
pub(crate) fn sources(head: Option<&Head>, feeds: &[Feed], now: u64) -> Vec<Source> {
    let Some(head) = head else { return Vec::new() };
    // Before feeds were told apart, there was one.
    let before = BTreeMap::from([(DEFAULT_FEED.to_owned(), head.delivered_at)]);
    let named = if head.feeds.is_empty() { &before } else { &head.feeds };
    let declared = |id: &str| feeds.iter().find(|feed| feed.id == id).cloned();
    let found: Vec<(Feed, u64)> =
        named.iter().map(|(id, last)| (declared(id).unwrap_or_else(|| Feed::new(id, Kind::AamFiles)), *last)).collect();
    let streamed = found.iter().any(|(feed, _)| feed.kind.is_stream());
    let source = |(feed, last): (Feed, u64)| {
        let overdue = feed.is_overdue(last, now).then(|| {
            let hours = feed.every_hours;
            format!(
                "nothing about this audience has come by the feed \"{}\" since {}, though it is delivered every {hours} \
                 hours: ask Adobe whether it still is",
                feed.id,
                time(last)
            )
        });
        Source { lateness: feed.lateness().filter(|_| !streamed), overdue, feed, last }
    };
    found.into_iter().map(source).collect()
}

/// An audience that is not delivered, which is not the same as an empty one.
#[derive(Debug)]
pub(crate) struct NotDelivered {
    missing: Option<Missing>,
    sentence: String,
}

impl NotDelivered {
    pub(crate) fn json(&self) -> Value {
        let missing = self.missing.as_ref();
        json!({
            "feed": missing.map(|missing| &missing.feed),
            "since": missing.map(|missing| time(missing.since)),
            "sentence": self.sentence,
        })
    }
}

/// Why nothing comes about the audience of a sync, and what to do; `None`: it is delivered, or the sync is over.
pub(crate) fn not_delivered(sync: &Sync, head: Option<&Head>) -> Option<NotDelivered> {
    if matches!(sync.status, Status::StoppedKeeping | Status::StoppedLeaving) {
        return None;
    }
    let audience = &sync.audience;
    let Some(head) = head else {
        let sentence = match audience.sid() {
            Some(sid) => {
                format!("no delivery has named this audience yet: ask Adobe to map segment {sid} to the destination")
            }
            None => "no delivery has named this audience yet: activate this audience to the destination".to_owned(),
        };
        return Some(NotDelivered { missing: None, sentence });
    };
    let missing = head.missing.clone()?;
    let sentence = format!(
        "the full delivery of {} by the feed \"{}\" did not name this audience, though earlier ones did: nobody was \
         removed on its account. {}; if the audience is really empty, say so: POST /syncs/{}/not-delivered \
         {{\"decision\":\"empty\"}}",
        time(missing.since),
        missing.feed,
        again(audience),
        sync.id
    );
    Some(NotDelivered { missing: Some(missing), sentence })
}

fn again(audience: &AudienceId) -> String {
    match audience.sid() {
        Some(sid) => format!("Ask Adobe to map segment {sid} to the destination again"),
        None => "Activate the audience to the destination again".to_owned(),
    }
}
