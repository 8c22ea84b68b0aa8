//! How fresh what we know of an audience is, source by source.

use domain::MunchkinId;
use ports::{Read, Table};
use serde_json::{Value, json};
use state::identity::{Intake, intake_key};
use state::{Deps, Step, doc, time};

use crate::once::Once;
use crate::problem::Answer;
use crate::sources::Source;

/// The member `freshness` of `GET /syncs/{id}`: when each source last said anything. `sources`: the feeds that name the
/// audience.
pub(crate) async fn freshness(sources: &[Source], once: &Once<'_>) -> Answer<Value> {
    let files = sources.iter().filter(|source| !source.is_stream()).map(Source::last).max();
    let mut events = None;
    for source in sources.iter().filter(|source| source.is_stream()) {
        // What the audience's own row says is of the hour.
        let heard = once.heard_at(source.feed()).await?;
        events = events.max(heard).max(Some(source.last()));
    }
    let looked = Some(once.identity().await?.asked_at).filter(|at| *at > 0);
    Ok(json!({
        "last_file_at": files.map(time),
        "last_event_at": events.map(time),
        "last_match_at": once.last_match().await?.map(time),
        "last_look_up_at": looked.map(time),
    }))
}

/// When a match that was new last came, from a page or, to ten minutes, from a server, in ms: the newest of the days that
/// are kept and had any. A match that is seen again costs no write, and so does not count.
pub(crate) async fn last_match(deps: &Deps, munchkin: &MunchkinId) -> Step<Option<u64>> {
    let pk = intake_key(munchkin, deps.now()).pk;
    let (mut last, mut after) = (None, None::<String>);
    loop {
        let page = deps.ports.tables.query(Table::Identity, &pk, "", after.as_deref(), 200, Read::Eventual).await?;
        for item in page.items {
            last = last.max(doc::read::<Intake>(item)?.value.last_at);
        }
        after = page.next;
        if after.is_none() {
            return Ok(last);
        }
    }
}
