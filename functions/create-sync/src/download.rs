//! Everybody whom a sync concerns, as CSV: where each of them stands in the list, why, and since when where that is known.

use domain::MunchkinId;
use domain::limits::DAY_MS;
use domain::said::Said;
use domain::sayings::DOWNLOAD_EXPIRED;
use ports::{Failure, Key};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::Deps;
use state::syncs::{Subscription, Sync};

use crate::places::{Class, Places};
use crate::problem::{Answer, Problem};
use crate::routes::Response;
use crate::said;
use crate::sheet::{self, Block, KEPT_MS, Rows, Sheet};

const COLUMNS: [&str; 4] = ["marketo_id", "state", "reason", "since"];

/// The row of a download: key `download/<id>`. It is forgotten after a day, and the file with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Download {
    v: u8,
    id: String,
    sync: String,
    /// When it was asked for, in ms: the moment of which it is true.
    at: u64,
    sheet: Sheet,
}

const fn until(job: &Download) -> u64 {
    job.at + DAY_MS
}

fn key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("download/{id}"))
}

fn block(class: Class) -> Block {
    let reason = class.place.sentence();
    Block {
        cells: vec![class.place.state.to_owned(), reason],
        leads: class.leads,
        timed: true,
        since: class.since,
        each: class.each,
    }
}

/// `POST /syncs/{id}/download`: freezes where everybody stands now. The file is written while somebody asks for it.
pub(crate) async fn post(deps: &Deps, sync: &Sync) -> Answer<Response> {
    let places = Places::open(deps, sync).await?;
    if !places.counted && sync.follows() {
        let detail = "nobody has been counted for this sync yet: its first pass is under way";
        return Err(Problem::new(409, Said::new("not_counted_yet", detail)));
    }
    let rows = Rows {
        v: 1,
        columns: COLUMNS.map(str::to_owned).into(),
        blocks: places.all().into_iter().map(block).collect(),
    };
    let id = deps.fresh_id();
    let sheet = sheet::begin(deps, &id, &rows).await?;
    let job = Download { v: 1, id, sync: sync.id.clone(), at: deps.now(), sheet };
    // Whoever dies before this has made nothing but an object that expires.
    if !sheet::save(deps, key(&sync.munchkin, &job.id), &job, None, until(&job)).await? {
        return Err(Failure::retry("an id was taken").into());
    }
    let mut response = Response::json(202, &show(deps, &job).await?);
    response.headers.push(("location", format!("/downloads/{}", job.id)));
    Ok(response)
}

/// `GET /downloads/{id}`: writes on, and shows how far it is.
pub(crate) async fn get(deps: &Deps, subscription: &Subscription, id: &str) -> Answer<Value> {
    let key = key(&subscription.munchkin_id, id);
    let Some(found) = sheet::find(deps, &key, until).await? else {
        let detail = "there is no download with this id; each is forgotten after a day";
        return Err(Problem::new(404, Said::new("download_unknown", detail)));
    };
    let (rev, mut job) = (found.rev, found.value);
    if !job.sheet.is_written && deps.now() < job.at + KEPT_MS {
        sheet::go_on(deps, &mut job.sheet).await?;
        sheet::save(deps, key, &job, Some(rev), until(&job)).await?;
    }
    show(deps, &job).await
}

async fn show(deps: &Deps, job: &Download) -> Answer<Value> {
    let (url, url_until) = sheet::address(deps, &job.sheet, job.at, &format!("people-{}.csv", job.sync)).await?;
    let late = deps.now() >= job.at + KEPT_MS;
    let mut shown = json!({
        "id": job.id,
        "sync_id": job.sync,
        "status": if late { "failed" } else if job.sheet.is_written { "done" } else { "working" },
        "as_of": state::time(job.at),
        "rows": job.sheet.lines,
        "url": url,
        "url_until": url_until,
    });
    said::put(&mut shown, "why", late.then_some(DOWNLOAD_EXPIRED.plain()).as_ref());
    Ok(shown)
}
