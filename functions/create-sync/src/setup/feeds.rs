//! What comes from Adobe: the bucket, and what each feed has brought.

use std::collections::{BTreeMap, BTreeSet};

use domain::Said;
use domain::sayings::{TOO_LARGE_TO_COUNT, TOO_LARGE_TO_TAKE};
use ports::{Failure, PortError, PortResult};
use serde_json::json;
use state::feeds::{DEFAULT_FEED, Feed, FeedState, Import, ImportStatus, Kind, feed_state, feeds};
use state::{Deps, time};

use super::{About, Area, Check, Row, in_time};
use crate::paging::Paging;
use crate::problem::Answer;
use crate::{runs, said};

/// Where Adobe's files lie.
const INCOMING: &str = "incoming/";
/// Records of files that are read at once: those of one batch.
const PAGE: usize = 100;
/// Records of files that are looked at, at most. Ours: a feed whose last file is older than so many others has the time
/// that its audiences were last named.
const LOOKED_AT: usize = 500;
/// A stream that is silent for longer than this, in ms, has perhaps stopped. Ours: twice the rhythm of a daily feed.
const SILENT_MS: u64 = 48 * domain::limits::HOUR_MS;

const OPERATOR: &str = "Operator of audience-sync";
const ADOBE: &str = "Adobe Customer Care, or the Experience Platform administrator who set the destination up";
const DESTINATION: &str = "The destination at Adobe";

const BUCKET: About = About {
    code: "bucket",
    area: Area::Feeds,
    title: "Bucket for Adobe's files",
    who: OPERATOR,
    place: "AWS: S3, the bucket's policy and object ownership (see infra/docs/setup.md)",
};
const FILE: About = About { code: "last_file", area: Area::Feeds, title: "Last file", who: ADOBE, place: DESTINATION };
const IDS: About =
    About { code: "id_type", area: Area::Feeds, title: "Type of the ids", who: ADOBE, place: DESTINATION };
const SNAPSHOT: About = About {
    code: "snapshot",
    area: Area::Feeds,
    title: "Snapshots",
    who: OPERATOR,
    place: "Feeds, or PUT /feeds/{id}: snapshots",
};
const STREAM: About = About { code: "stream", area: Area::Feeds, title: "Stream", who: ADOBE, place: DESTINATION };

pub(super) async fn rows(check: &Check<'_>) -> Answer<Vec<Row>> {
    let Check { deps, subscription, until, .. } = check;
    let munchkin = &subscription.munchkin_id;
    let mut all = feeds(deps, munchkin).await?;
    all.sort_by(|a, b| a.id.cmp(&b.id));
    // The feed of files that lie in no declared folder is there without being declared.
    let files = |feed: &Feed| !feed.kind.is_stream();
    let is_declared = all.iter().any(|feed| feed.id == DEFAULT_FEED);
    let brought = !is_declared && feed_state(deps, munchkin, DEFAULT_FEED).await? != FeedState::default();
    let mut wanted: BTreeSet<&str> = all.iter().filter(|feed| files(feed)).map(|feed| feed.id.as_str()).collect();
    if brought {
        wanted.insert(DEFAULT_FEED);
    }
    let imports = latest(check, wanted).await?;
    let mut rows = vec![bucket(deps, *until, !imports.is_empty()).await];
    if !is_declared && (brought || imports.contains_key(DEFAULT_FEED) || all.is_empty()) {
        all.insert(0, Feed::new(DEFAULT_FEED, Kind::AamFiles));
    }
    for feed in all.iter().filter(|feed| files(feed)) {
        let state = feed_state(deps, munchkin, &feed.id).await?;
        let import = imports.get(&feed.id);
        let of = |row: Row| row.with("feed", json!(feed.id));
        rows.push(of(last_file(feed, &state, import, deps.now())));
        rows.push(of(id_type(feed, &state, import)));
        rows.push(of(snapshot(feed, &state)));
    }
    let streams: Vec<&Feed> = all.iter().filter(|feed| !files(feed)).collect();
    if streams.is_empty() {
        let means = "No stream is declared: lists are as late as the files are.";
        rows.push(STREAM.not_used("none", means));
    }
    for feed in streams {
        let state = feed_state(deps, munchkin, &feed.id).await?;
        rows.push(stream(feed, &state, deps.now()).with("feed", json!(feed.id)));
    }
    Ok(rows)
}

/// The newest file of each feed: of the wanted ones as far back as [`LOOKED_AT`], of others where they are met on the way.
async fn latest(check: &Check<'_>, mut wanted: BTreeSet<&str>) -> Answer<BTreeMap<String, Import>> {
    let mut latest: BTreeMap<String, Import> = BTreeMap::new();
    let mut paging = Paging { limit: PAGE, after: None };
    for _ in 0..LOOKED_AT / PAGE {
        let (found, next) = runs::latest(check.deps, &check.subscription.munchkin_id, &paging).await?;
        // The newest first: of a feed the first one counts.
        for import in found.into_iter().filter_map(|(_, import)| import) {
            let feed = runs::feed_of(&import);
            wanted.remove(feed);
            if !latest.contains_key(feed) {
                latest.insert(feed.to_owned(), import);
            }
        }
        if wanted.is_empty() || next.is_none() {
            break;
        }
        paging.after = next;
    }
    Ok(latest)
}

/// Whether files can be listed and read. Who may write is Adobe's to try: a file that has come is the proof. `came`: one
/// has, although it may be gone.
pub(super) async fn bucket(deps: &Deps, until: u64, came: bool) -> Row {
    let tried = "listing incoming/, and reading the first byte of a file there";
    let listed = in_time(deps, until, deps.ports.objects.list(INCOMING, None)).await;
    let listed = match listed {
        None => return BUCKET.not_in_time(tried),
        Some(listed) => listed,
    };
    let files = match listed {
        Ok(files) => files,
        Err(error) => return closed(tried, "not_listed", "the bucket cannot be listed", error),
    };
    let Some(file) = files.iter().rev().find(|file| file.size > 0) else {
        return if came {
            BUCKET.ok("came_before", tried, "Files have come before; none of the last 35 days is there.")
        } else {
            let means = "The bucket can be listed. Whether Adobe may write there shows with its first file.";
            BUCKET.not_seen("empty", tried, means)
        };
    };
    let read = in_time(deps, until, deps.ports.objects.get_range(&file.key, 0, 1)).await;
    match read {
        None => BUCKET.not_in_time(tried),
        Some(read) => readable(tried, read.map(|found| found.is_some())),
    }
}

fn readable(tried: &str, read: PortResult<bool>) -> Row {
    match read {
        // Gone meanwhile: it could be listed, and files come.
        Ok(_) => BUCKET.ok("readable", tried, "Adobe's files arrive and can be read."),
        Err(error) => {
            let why = "a file that arrived cannot be read. Is the bucket's object ownership \"bucket owner enforced\"? Else \
                       files belong to whoever wrote them";
            closed(tried, "not_readable", why, error)
        }
    }
}

fn closed(tried: &str, reason: &str, what: &str, error: PortError) -> Row {
    match Failure::from(error) {
        Failure::Outage { reason: why } => {
            BUCKET.not_ok(reason, tried, format!("No file is taken in: {what} ({why})."))
        }
        failure => {
            BUCKET.not_seen("no_answer", tried, format!("There was no clear answer ({}).", super::words(&failure)))
        }
    }
}

fn last_file(feed: &Feed, state: &FeedState, import: Option<&Import>, now: u64) -> Row {
    let tried = "the records of the files that came";
    let id = &feed.id;
    let named = state.named.values().max().copied();
    let Some(at) = import.map(|import| import.started_at).or(named) else {
        let means = format!("No file has come by the feed \"{id}\" yet.");
        return FILE.not_seen("none", tried, means);
    };
    let came = time(at);
    let with = |row: Row| {
        row.with("came_at", json!(came))
            .with("import", json!(import.map(|import| &import.id)))
            .with("rows", json!(import.map(|import| import.rows)))
            .with("rejected", json!(import.map(|import| import.rejected)))
    };
    let why = |import: &Import| import.why.as_ref().map_or("no reason is kept", Said::as_ref).to_owned();
    match import {
        Some(import) if import.status == ImportStatus::Refused => {
            let means = format!("The last file of the feed \"{id}\" was not taken in: {}.", why(import));
            return with(
                FILE.not_ok("refused", tried, means)
                    .with("why", json!(import.why.as_ref().map(Said::as_ref)))
                    .with("why_code", json!(import.why.as_ref().and_then(Said::code)))
                    .with("why_values", said::values(import.why.as_ref())),
            );
        }
        Some(import) if import.status == ImportStatus::Held => {
            let means = format!("The last file of the feed \"{id}\" is held: {}. Apply it or drop it.", why(import));
            return with(
                FILE.not_ok("held", tried, means)
                    .with("why", json!(import.why.as_ref().map(Said::as_ref)))
                    .with("why_code", json!(import.why.as_ref().and_then(Said::code)))
                    .with("why_values", said::values(import.why.as_ref())),
            );
        }
        Some(import) if import.rows > 0 && import.rejected >= import.rows => {
            let means = format!("Of the {} rows of the last file none could be taken: see its reasons.", import.rows);
            return with(FILE.not_ok("all_rejected", tried, means));
        }
        _ => {}
    }
    if feed.is_overdue(at, now) {
        let hours = feed.every_hours;
        let means = format!(
            "The last file of the feed \"{id}\" came {came}, though one is delivered every {hours} hours: ask whether it \
             still is."
        );
        return with(FILE.not_ok("overdue", tried, means).with("every_hours", json!(hours)));
    }
    let under_way = import.is_some_and(|import| matches!(import.status, ImportStatus::Running | ImportStatus::Waiting));
    let (reason, what) =
        if under_way { ("under_way", "came and is being taken in") } else { ("taken", "was taken in") };
    with(FILE.ok(reason, tried, format!("The last file of the feed \"{id}\" {what}: {came}.")))
}

fn id_type(feed: &Feed, state: &FeedState, import: Option<&Import>) -> Row {
    let tried = "whether ids of its files were met among the browsers that were seen";
    let id = &feed.id;
    if let Some(met_at) = state.met_at.map(time) {
        let means = format!("The ids of the feed \"{id}\" are ECIDs: some were met among the browsers that were seen.");
        return IDS.ok("met", tried, means).with("met_at", json!(met_at));
    }
    if state.believed {
        return IDS.ok(
            "believed",
            tried,
            "An operator has said that the ids are ECIDs, by applying a delivery that was held.",
        );
    }
    let too_large = |why: &Said| why.is(&TOO_LARGE_TO_COUNT) || why.is(&TOO_LARGE_TO_TAKE);
    let held = import.filter(|import| import.status == ImportStatus::Held);
    if held.is_some_and(|import| !import.why.as_ref().is_some_and(too_large)) {
        let means = format!(
            "The last delivery of the feed \"{id}\" is held, and none of its ids was ever met: perhaps they are no ECIDs. An \
             Audience Manager UUID has 38 digits too. Ask for a template with MCID, and see the reason beside the file."
        );
        return IDS.not_ok("held", tried, means);
    }
    if import.is_none() && state.named.is_empty() {
        return IDS.not_seen("no_file", tried, "No file has come yet.");
    }
    let means = "None of the ids was met yet among the browsers that were seen. Until one is, nobody can tell ECIDs from \
                 Audience Manager's own ids, which look the same.";
    IDS.not_seen("not_met", tried, means)
}

fn snapshot(feed: &Feed, state: &FeedState) -> Row {
    let tried = "the feed's settings, and its last full delivery";
    let id = &feed.id;
    if feed.kind == Kind::AepFiles && !feed.full {
        let means =
            format!("The feed \"{id}\" brings what changed: whoever leaves is named by the column of the status.");
        return SNAPSHOT.not_used("incremental", means);
    }
    if !feed.snapshots {
        let means = format!(
            "Full deliveries of the feed \"{id}\" do not count as snapshots: nobody leaves a list by being absent from one. \
             Look at who would have left, and switch it on."
        );
        return SNAPSHOT.not_used("switched_off", means);
    }
    match state.full.last() {
        Some(full) if full.snapshot => {
            let (at, absent) = (time(full.time), full.absent.values().sum::<u64>());
            let means = format!(
                "The full delivery of {at} was taken as a snapshot: {absent} browsers that were absent from it have left."
            );
            SNAPSHOT.ok("taken", tried, means).with("time", json!(at)).with("absent", json!(absent))
        }
        _ => {
            let means = format!(
                "No full delivery of the feed \"{id}\" was taken as a snapshot yet: nobody leaves before one is."
            );
            SNAPSHOT.not_seen("none", tried, means)
        }
    }
}

fn stream(feed: &Feed, state: &FeedState, now: u64) -> Row {
    let tried = "what the stream has brought";
    let id = &feed.id;
    let FeedState { heard_at, taken, ignored, rejected, .. } = state;
    let with = |row: Row| {
        row.with("heard_at", json!(heard_at.map(time)))
            .with("taken", json!(taken))
            .with("ignored", json!(ignored))
            .with("rejected", json!(rejected))
    };
    let Some(heard) = *heard_at else {
        if *rejected > 0 || *ignored > 0 {
            let means = format!(
                "The stream \"{id}\" is heard, and nothing of it could be taken: {rejected} entries could not be read, and \
                 {ignored} were about audiences that are not mapped. GET /feeds shows why."
            );
            return with(STREAM.not_ok("nothing_taken", tried, means));
        }
        let means = format!(
            "Nothing has come by the stream \"{id}\" yet. What is not signed as agreed is refused and not counted: if Adobe \
             says that it sends, compare the secret and the address."
        );
        return with(STREAM.not_seen("not_heard", tried, means));
    };
    let at = time(heard);
    if now > heard.saturating_add(SILENT_MS) {
        let means =
            format!("The stream \"{id}\" was last heard {at}, more than two days ago: ask whether it still sends.");
        return with(STREAM.not_ok("silent", tried, means));
    }
    with(STREAM.ok("heard", tried, format!("The stream \"{id}\" was last heard {at}.")))
}
