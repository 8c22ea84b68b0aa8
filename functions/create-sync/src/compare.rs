//! The people of a sync beside the members of any other list. The list-writer reads the members; what each difference means
//! is worked out here, while somebody asks for the answer.

mod strangers;

use std::collections::BTreeMap;

use domain::limits::{DAY_MS, MARKETO_BATCH};
use domain::sayings::{READING_EXPIRED, READING_TOO_LONG};
use domain::{LeadId, LeadSet, ListId, MunchkinId, Said};
use marketo::Marketo;
use ports::{Failure, Key, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::budget::Purpose;
use state::lists::{Report, read_leads, report_key};
use state::readings::{self, MembersJob};
use state::syncs::{Start, Status, Subscription, Sync, sync_key, syncs};
use state::{Deps, Doc, Step, doc, load, time};

use crate::control::{not_now, open};
use crate::orders::unknown;
use crate::places::{Class, Places};
use crate::problem::{Answer, Problem, true_or_false};
use crate::routes::{Request, Response};
use crate::said;
use crate::sheet::{self, Block, Rows, Sheet};
use strangers::Strangers;

const COLUMNS: [&str; 4] = ["marketo_id", "where", "code", "reason"];
/// Comparisons of a subscription that are under way at once. Ours: each of them reads a whole list.
const OPEN_MOST: usize = 5;
/// A job whose list has not been read by then, in ms, is given up. Numbers are kept for a week.
const GIVEN_UP_MS: u64 = readings::KEPT_MS - DAY_MS;
/// One request works for so long, in ms, or looks at as many people as a slice of other work has records. Ours: below the
/// function's 30 s by enough for the last of it.
const WORK_MS: u64 = 8_000;
/// After so many people what was found of them is written down. Ours: some seconds of work.
const STEP: usize = 6_000;

/// The row of a comparison: key `comparison/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Comparison {
    v: u8,
    id: String,
    sync: String,
    list: ListId,
    list_name: String,
    /// When it was asked for, in ms.
    at: u64,
    /// When both sides were put side by side, in ms: our side is as of then, which may be long after the members were read,
    /// and what was found expires a day after.
    compared_at: u64,
    /// Object key of a [`Found`], once the members were read.
    found: Option<String>,
    sheet: Option<Sheet>,
    outcome: Option<Outcome>,
}

/// What a comparison has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    both: u64,
    only_there: u64,
    only_here: u64,
    explained: Vec<Explained>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Explained {
    side: String,
    code: String,
    count: u64,
    sentence: String,
}

/// Both sides, as they were when they were put side by side; and who of the other list's people has been looked up so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Found {
    v: u8,
    blocks: Vec<Block>,
    only_there: LeadSet,
    /// Whom we ever knew to be in the sync's list by our doing.
    knew: LeadSet,
    /// Up to whom of those only there has been looked.
    upto: Option<LeadId>,
    strangers: BTreeMap<String, LeadSet>,
}

const fn until(job: &Comparison) -> u64 {
    job.at + readings::KEPT_MS
}

fn key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("comparison/{id}"))
}

/// `POST /syncs/{id}/compare`: says what it takes, and with `"start": true` begins.
pub(crate) async fn post(deps: &Deps, sync: &Sync, request: &Request, deadline: u64) -> Answer<Response> {
    open(deps, sync).await?;
    let body = request.json()?;
    let mut errors = unknown(&body, &["list_id", "start"], "");
    let list = body["list_id"].as_u64().filter(|id| (1..=u64::from(u32::MAX)).contains(id));
    if list.is_none() {
        let detail = "expected Marketo's id of a static list, as a number";
        errors.push(("/list_id".into(), Said::new("expected_list_id", detail)));
    }
    let start = body["start"].as_bool().unwrap_or(false);
    if !body["start"].is_null() && !body["start"].is_boolean() {
        errors.push(("/start".into(), true_or_false()));
    }
    let Some(list) = list.filter(|_| errors.is_empty()) else { return Err(Problem::fields(errors)) };
    if sync.start == Start::Now && sync.list.id == Some(list) {
        let detail = "this is the list that the sync writes: POST /syncs/{id}/verify compares that one";
        return Err(Problem::at(422, "/list_id", Said::new("compare_own_list", detail)));
    }
    if matches!(sync.status, Status::StoppedKeeping | Status::StoppedLeaving) {
        return Err(not_now(sync, "compared"));
    }
    if !Places::open(deps, sync).await?.counted || sync.status == Status::Creating {
        let detail = "nobody has been counted for this sync yet: its first pass is under way";
        return Err(Problem::new(409, Said::new("not_counted_yet", detail)));
    }
    let marketo = Marketo::new(deps, &sync.munchkin, deadline, Purpose::Control);
    let Some(found) = marketo.list(marketo.slot().await?, list).await? else {
        let said = Said::new("list_unknown", format!("Marketo has no static list with id {list}"))
            .with("id", list.to_string());
        return Err(Problem::at(422, "/list_id", said));
    };
    let jobs = jobs(deps, &sync.munchkin).await?;
    if !start {
        return Ok(Response::json(200, &estimate(deps, sync, list, &found.name, &jobs).await?));
    }
    let mut under_way = 0;
    for (job, reading) in &jobs {
        under_way += usize::from(job.outcome.is_none() && given_up(job, reading.as_ref(), deps.now()).is_none());
    }
    if under_way >= OPEN_MOST {
        let detail = format!("{under_way} comparisons are under way already: please wait for one of them");
        return Err(Problem::new(409, Said::new("comparisons_under_way", detail).with("count", under_way)));
    }
    let job = Comparison {
        v: 1,
        id: deps.fresh_id(),
        sync: sync.id.clone(),
        list,
        list_name: found.name,
        at: deps.now(),
        compared_at: 0,
        found: None,
        sheet: None,
        outcome: None,
    };
    if !sheet::save(deps, key(&sync.munchkin, &job.id), &job, None, until(&job)).await? {
        return Err(Failure::retry("an id was taken").into());
    }
    // Whoever dies before this: the first who asks how far it is asks for the reading.
    readings::ask(deps, &sync.munchkin, list, &job.id).await?;
    let mut response = Response::json(202, &show(deps, &job, None).await?);
    response.headers.push(("location", format!("/comparisons/{}", job.id)));
    Ok(response)
}

/// Comparisons that are remembered, with their readings.
async fn jobs(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<(Comparison, Option<MembersJob>)>> {
    let found: Vec<Doc<Comparison>> = doc::all(deps, Table::Syncs, munchkin.as_str(), "comparison/").await?;
    let now = deps.now();
    let mut jobs = Vec::new();
    for job in found.into_iter().map(|job| job.value).filter(|job| now < until(job)) {
        let reading = readings::find(deps, munchkin, &job.id).await?;
        jobs.push((job, reading.map(|reading| reading.value)));
    }
    Ok(jobs)
}

/// What reading a list takes. How many members a list has nobody tells but who reads it: known are those that a sync of ours
/// has read for its report, and those that were read for another comparison.
async fn estimate(
    deps: &Deps,
    sync: &Sync,
    list: ListId,
    name: &str,
    jobs: &[(Comparison, Option<MembersJob>)],
) -> Answer<Value> {
    let read = jobs.iter().filter_map(|(job, reading)| Some((job, reading.as_ref()?)));
    let read = read.filter(|(job, _)| job.list == list);
    let mut size = read.filter_map(|(_, reading)| Some((reading.read_at?, reading.count))).max();
    for other in syncs(deps, &sync.munchkin).await? {
        let other = other.value;
        if other.start == Start::Now && other.list.id == Some(list) {
            let report: Option<Doc<Report>> = load(deps, Table::Lists, &report_key(&sync.munchkin, &other.id)).await?;
            let members = report.and_then(|report| Some((report.value.as_of, report.value.members?.total())));
            size = size.max(members);
        }
    }
    let calls = size.map(|(_, members)| members.div_ceil(MARKETO_BATCH as u64).max(1));
    let sentence = match (calls, size) {
        (Some(calls), Some((at, members))) => format!(
            "The list had {members} members at {}: reading them takes {calls} calls to Marketo, {MARKETO_BATCH} \
             members a call.",
            time(at)
        ),
        _ => format!(
            "Marketo does not tell how many members a list has before they are read: it takes one call for each \
             {MARKETO_BATCH} of them."
        ),
    };
    Ok(json!({
        "list_id": list,
        "list_name": name,
        "calls": calls,
        "calls_at_least": calls.unwrap_or(1),
        "members": size.map(|(_, members)| members),
        "members_at": size.map(|(at, _)| time(at)),
        "sentence": sentence,
    }))
}

/// `GET /comparisons/{id}`: goes on where the members have been read, and shows how far it is. Whoever dies here, or asks
/// twice at once, does the same work once more: the row is written on condition of its revision, and what it points to is
/// written under fresh keys.
pub(crate) async fn get(deps: &Deps, subscription: &Subscription, id: &str) -> Answer<Value> {
    let munchkin = &subscription.munchkin_id;
    let Some(found) = sheet::find(deps, &key(munchkin, id), until).await? else {
        let detail = "there is no comparison with this id; each is forgotten after a week";
        return Err(Problem::new(404, Said::new("comparison_unknown", detail)));
    };
    let mut reading = readings::find(deps, munchkin, id).await?;
    let Doc { value: mut job, mut rev } = found;
    let over = given_up(&job, reading.as_ref().map(|reading| &reading.value), deps.now());
    match &reading {
        _ if job.outcome.is_some() || over.is_some() => {}
        None => readings::ask(deps, munchkin, job.list, id).await?,
        Some(Doc { value: MembersJob { members: Some(members), .. }, .. }) => {
            let began = deps.now();
            let mut left = deps.settings.slice_records;
            while job.outcome.is_none() && left > 0 && deps.now() < began + deps.settings.scaled(WORK_MS) {
                let looked = step(deps, munchkin, &mut job, members).await?;
                if !sheet::save(deps, key(munchkin, id), &job, Some(rev), until(&job)).await? {
                    // Somebody else asks too, and has gone on.
                    let found = sheet::find(deps, &key(munchkin, id), until).await?;
                    let forgotten = || Said::new("comparison_unknown", "the comparison was forgotten meanwhile");
                    job = found.ok_or_else(|| Problem::new(404, forgotten()))?.value;
                    break;
                }
                rev += 1;
                left = left.saturating_sub(looked);
            }
        }
        Some(_) => {
            if let Some(found) = reading.take() {
                readings::remind(deps, munchkin, found.clone()).await?;
                reading = Some(found);
            }
        }
    }
    show(deps, &job, reading.map(|reading| reading.value).as_ref()).await
}

/// One step of the work. Returns how many people it has looked at, at least one.
async fn step(deps: &Deps, munchkin: &MunchkinId, job: &mut Comparison, members: &str) -> Step<usize> {
    let sync: Option<Doc<Sync>> = load(deps, Table::Syncs, &sync_key(munchkin, &job.sync)).await?;
    let sync = sync.ok_or_else(|| Failure::fail("the sync of a comparison is gone"))?.value;
    let Some(key) = &job.found else {
        let now = deps.now();
        let found = side_by_side(&Places::open(deps, &sync).await?, &read_leads(deps, members).await?);
        job.found = Some(keep(deps, &job.id, &found).await?);
        job.compared_at = now;
        return Ok(1);
    };
    if let Some(sheet) = &mut job.sheet {
        sheet::go_on(deps, sheet).await?;
        if sheet.is_written {
            job.outcome = Some(outcome(&read(deps, key).await?));
        }
        return Ok(1);
    }
    let mut found = read(deps, key).await?;
    let upto = found.upto;
    let rest = found.only_there.iter().skip_while(|lead| upto.is_some_and(|upto| *lead <= upto));
    let next: Vec<LeadId> = rest.take(STEP.min(deps.settings.slice_records)).collect();
    let Some(last) = next.last().copied() else {
        let rows = Rows { v: 1, columns: COLUMNS.map(str::to_owned).into(), blocks: blocks(&found) };
        job.sheet = Some(sheet::begin(deps, &job.id, &rows).await?);
        return Ok(1);
    };
    let strangers = Strangers { deps, munchkin, audience: &sync.audience, knew: &found.knew };
    let began = deps.now();
    let (mut looked, mut upto) = (Vec::new(), last);
    for people in next.chunks(strangers::AT_ONCE) {
        looked.extend(strangers.look(people).await?);
        upto = *people.last().unwrap_or(&last);
        if deps.now() >= began + deps.settings.scaled(WORK_MS / 2) {
            break;
        }
    }
    let count = looked.len();
    for (code, lead) in looked {
        found.strangers.entry(code.to_owned()).or_default().insert(lead);
    }
    found.upto = Some(upto);
    job.found = Some(keep(deps, &job.id, &found).await?);
    Ok(count)
}

async fn keep(deps: &Deps, id: &str, found: &Found) -> Step<String> {
    let key = format!("downloads/{id}.found-{}", deps.fresh_id());
    let bytes = serde_json::to_vec(found).map_err(|_| Failure::fail("a comparison cannot be written as JSON"))?;
    deps.ports.objects.put(&key, bytes.into()).await?;
    Ok(key)
}

async fn read(deps: &Deps, key: &str) -> Step<Found> {
    let bytes = deps.ports.objects.get(key).await?;
    let bytes = bytes.ok_or_else(|| Failure::fail("what a comparison has found is gone: please begin anew"))?;
    serde_json::from_slice(&bytes).map_err(|_| Failure::fail("what a comparison has found is damaged"))
}

fn side_by_side(places: &Places, there: &LeadSet) -> Found {
    let here = &places.want;
    let block = |side: &str, class: Class| Block {
        cells: vec![side.to_owned(), class.place.state.to_owned(), sentence_here(side, &class)],
        leads: class.leads,
        ..Block::default()
    };
    let both = places.wanted(&here.and(there)).into_iter().map(|class| block("both", class));
    let only_here = places.wanted(&here.minus(there)).into_iter().map(|class| block("only_here", class));
    Found {
        v: 1,
        blocks: both.chain(only_here).collect(),
        only_there: there.minus(here),
        knew: places.knew(),
        upto: None,
        strangers: BTreeMap::new(),
    }
}

/// What is known of somebody whom the audience wants.
fn sentence_here(side: &str, class: &Class) -> String {
    let ours = match class.place.state {
        "report_only" if side == "both" => return "In the audience, and in the other list.".to_owned(),
        "report_only" => {
            return "In the audience by what we know. Whoever fills the other list has not added them yet, or cannot tie \
                    them to the audience."
                .to_owned();
        }
        _ => class.place.sentence(),
    };
    format!("In the audience by what we know. In the sync's own list: {}{}", ours[..1].to_lowercase(), &ours[1..])
}

/// Everything that was found, as lines of the file.
fn blocks(found: &Found) -> Vec<Block> {
    let mut blocks = found.blocks.clone();
    blocks.extend(found.strangers.iter().map(|(code, leads)| Block {
        cells: vec!["only_there".to_owned(), code.clone(), strangers::sentence(code).to_owned()],
        leads: leads.clone(),
        ..Block::default()
    }));
    blocks
}

fn outcome(found: &Found) -> Outcome {
    let mut outcome = Outcome { both: 0, only_there: 0, only_here: 0, explained: Vec::new() };
    for Block { cells, leads, .. } in blocks(found) {
        let [side, code, sentence] = &cells[..] else { continue };
        match side.as_str() {
            "both" => {
                outcome.both += leads.len();
                continue;
            }
            "only_here" => outcome.only_here += leads.len(),
            _ => outcome.only_there += leads.len(),
        }
        let (side, code, sentence) = (side.clone(), code.clone(), sentence.clone());
        outcome.explained.push(Explained { side, code, count: leads.len(), sentence });
    }
    outcome
}

/// Why a comparison that has come to nothing is given up, if so.
fn given_up(job: &Comparison, reading: Option<&MembersJob>, now: u64) -> Option<Said> {
    if let Some(why) = reading.and_then(|reading| reading.why.clone()) {
        return Some(why);
    }
    let forgotten = reading.and_then(|reading| reading.read_at).is_some_and(|at| now >= at + sheet::KEPT_MS);
    if forgotten {
        return Some(READING_EXPIRED.plain());
    }
    (now >= job.at + GIVEN_UP_MS).then_some(READING_TOO_LONG.plain())
}

async fn show(deps: &Deps, job: &Comparison, reading: Option<&MembersJob>) -> Answer<Value> {
    let why = given_up(job, reading, deps.now()).filter(|_| job.outcome.is_none());
    let status = match (&job.outcome, &why) {
        (Some(_), _) => "done",
        (None, Some(_)) => "failed",
        (None, None) => "reading",
    };
    let (mut url, mut url_until) = (Value::Null, Value::Null);
    if let Some(sheet) = &job.sheet {
        let filename = format!("comparison-{}-{}.csv", job.sync, job.list);
        (url, url_until) = sheet::address(deps, sheet, job.compared_at, &filename).await?;
    }
    let outcome = job.outcome.as_ref();
    let mut shown = json!({
        "id": job.id,
        "sync_id": job.sync,
        "list_id": job.list,
        "list_name": job.list_name,
        "status": status,
        "as_of": reading.and_then(|reading| reading.read_at).map(time),
        "ours_as_of": job.found.as_ref().map(|_| time(job.compared_at)),
        "members": reading.and_then(|reading| reading.read_at.map(|_| reading.count)),
        "both": outcome.map(|outcome| outcome.both),
        "only_there": outcome.map(|outcome| outcome.only_there),
        "only_here": outcome.map(|outcome| outcome.only_here),
        "explained": outcome.map_or(&[][..], |outcome| &outcome.explained),
        "url": url,
        "url_until": url_until,
    });
    said::put(&mut shown, "why", why.as_ref());
    Ok(shown)
}
