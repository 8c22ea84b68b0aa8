//! The tag on the pages. A beacon that repeats writes nothing, so that page views are counted together with new pairs,
//! which are written anyway: on a site without a new visitor for an hour nothing is seen here.

use domain::limits::{DAY_MS, HOUR_MS};
use ports::Table;
use serde_json::{Value, json};
use state::identity::{HourOfViews, Intake, intake_key};
use state::{Doc, load, time};

use super::{About, Area, Check, Row};
use crate::problem::Answer;

/// Share of page views that ought to carry both cookies. Ours: below it more is taken from what pages say than from
/// browsers.
const ENOUGH: f64 = 0.5;

const SEEN: About = About {
    code: "tag_seen",
    area: Area::Tag,
    title: "Tag seen in the last hour",
    who: "Whoever runs the website",
    place: "The pages on which munchkin.js runs: the line that GET /tag shows; origins in Settings",
};
const COOKIES: About = About {
    code: "tag_cookies",
    area: Area::Tag,
    title: "Page views that carried both cookies",
    who: "Whoever runs the website and its DNS",
    place: "The address of the API: a name of the website's own domain (see the tag's README)",
};

pub(super) async fn rows(check: &Check<'_>) -> Answer<Vec<Row>> {
    let Check { deps, subscription, .. } = check;
    let now = deps.now();
    let mut hours: Vec<HourOfViews> = Vec::new();
    let mut new_today = 0;
    // The hour before may be yesterday's.
    for day in [now.saturating_sub(DAY_MS), now] {
        let key = intake_key(&subscription.munchkin_id, day);
        let found: Option<Doc<Intake>> = load(deps, Table::Identity, &key).await?;
        let intake = found.map(|found| found.value).unwrap_or_default();
        new_today = intake.new_public;
        hours.extend(intake.views);
    }
    let closed = if let Some(why) = subscription.takes_no_matches() {
        Some(("closed", format!("Nothing is taken from pages: {}.", why.english)))
    } else if subscription.origins.is_empty() {
        let means = "No page may send: origins are empty. If browsers are to be matched by the tag, name the website's origins; \
                     matches from your servers and Marketo's field ecids need none.";
        Some(("no_origins", means.to_owned()))
    } else {
        None
    };
    if let Some((reason, means)) = closed {
        return Ok([SEEN, COOKIES].map(|about| about.not_used(reason, means.clone())).to_vec());
    }
    Ok(vec![seen(&hours, new_today, now), cookies(&hours, now)])
}

fn seen(hours: &[HourOfViews], new_today: u64, now: u64) -> Row {
    let tried = "when a page last showed a browser that was new";
    let with = |row: Row, at: Value| row.with("last_at", at).with("new_pairs_today", json!(new_today));
    let Some(last) = hours.iter().map(|hour| hour.last_at).max() else {
        let means = "No page has sent anything since yesterday. Put the tag on the pages, name their origins, and open one that \
                     has both an ECID and a Munchkin cookie, in a browser that was not there before.";
        return with(SEEN.not_seen("never", tried, means), Value::Null);
    };
    let at = time(last);
    if now.saturating_sub(last) <= HOUR_MS {
        let means = format!("The tag was seen in the last hour, last at {at}.");
        return with(SEEN.ok("seen", tried, means), json!(at));
    }
    let means = format!(
        "The tag was last seen at {at}. Only browsers that are new tell of it: at night or on a small site an hour without one \
         is no fault; on a busy site the tag is gone from the pages, or its requests are blocked."
    );
    with(SEEN.not_ok("silent", tried, means), json!(at))
}

#[expect(clippy::cast_precision_loss)]
fn cookies(hours: &[HourOfViews], now: u64) -> Row {
    let tried = "the page views that the tag told of in this hour and the one before";
    let recent = hours.iter().filter(|views| views.hour + 1 >= now / HOUR_MS);
    let (all, both) = recent.fold((0, 0), |(all, both), views| (all + views.all, both + views.both));
    if all == 0 {
        let means = "The tag has told of no page view in this hour and the one before.";
        return COOKIES.not_seen("no_views", tried, means);
    }
    let share = both as f64 / all as f64;
    let percent = both * 100 / all;
    // What the number does not say: whether pages have both cookies at all.
    let meant = "Counted are page views of which the tag told, once a week and browser: those with an ECID and a Munchkin cookie \
                 on the page. A page view without both sends nothing and is not counted.";
    let with = |row: Row| row.with("all", json!(all)).with("both", json!(both)).with("share", json!(share));
    if share >= ENOUGH {
        let means = format!("{both} of {all} page views ({percent} %) carried both cookies themselves. {meant}");
        return with(COOKIES.ok("carried", tried, means));
    }
    let means = format!(
        "Only {both} of {all} page views ({percent} %) carried both cookies themselves; of the others a script on the page \
         said what they are, which counts less. Serve the API under a name of the website's own domain. {meant}"
    );
    with(COOKIES.not_ok("few", tried, means))
}
