//! What was done to the list of a sync, how large it was, and which lines of its feeds were not taken.

use std::collections::BTreeSet;

use domain::MunchkinId;
use ports::{Failure, Key, Read, Table};
use serde_json::{Value, json};
use state::audience::{Head, head_key};
use state::feeds::{
    DEFAULT_FEED, IMPORTS_BY_TIME, Import, ImportLine, Reject, feed_state, feeds, import_key, import_line_key,
};
use state::lists::{ListHead, head_key as list_head_key};
use state::runs::{NO_CLEAR_ANSWER, Run, Size, history_pk, newest_first, runs_pk};
use state::syncs::{Start, Sync};
use state::{Deps, Doc, doc, load, time};

use crate::paging::{Paging, bad_cursor};
use crate::problem::Answer;
use crate::routes::{Request, Response};
use crate::said;

/// `GET /syncs/{id}/runs`: the newest first. One that is under way has no end yet.
pub(crate) async fn runs(deps: &Deps, sync: &Sync, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let (Start::Now, Some(list)) = (sync.start, sync.list.id) else {
        return Ok(paging.answer(request, Vec::new(), None));
    };
    let head: Option<Doc<ListHead>> = load(deps, Table::Lists, &list_head_key(&sync.munchkin, list)).await?;
    let open = head.and_then(|head| head.value.run);
    let number = open.as_ref().map(|run| run.number);
    // Several syncs may feed a list, and some of them since yesterday.
    let of_sync = |run: &Run| run.syncs.contains(&sync.id);
    // The row of a run may stand there before the list's head says that it is over.
    let kept = |run: &Run| of_sync(run) && Some(run.number) != number;
    let (mut rows, mut next) = paging.query(deps, Table::Lists, &runs_pk(&sync.munchkin, list), "", kept).await?;
    if let Some(open) = open.filter(|run| paging.after.is_none() && of_sync(run)) {
        rows.insert(0, open);
        if rows.len() > paging.limit {
            rows.truncate(paging.limit);
            next = rows.last().map(|run| newest_first(run.number));
        }
    }
    Ok(paging.answer(request, rows.iter().map(shown).collect(), next))
}

fn shown(run: &Run) -> Value {
    let failures: Vec<Value> = run
        .failures
        .iter()
        .map(|(code, failed)| {
            let request_id = Some(&failed.request_id).filter(|id| !id.is_empty());
            // Of a run of before several were kept there is the one.
            let one = request_id.map(std::slice::from_ref).unwrap_or_default();
            let request_ids = if failed.request_ids.is_empty() { one } else { &failed.request_ids[..] };
            json!({
                "code": code,
                "count": failed.count,
                "request_id": request_id,
                "request_ids": request_ids,
                "sentence": sentence(code),
            })
        })
        .collect();
    json!({
        "id": run.id(),
        "sync_ids": run.syncs,
        "started_at": time(run.began_at),
        "ended_at": run.ended_at.map(time),
        "duration_ms": run.ended_at.map(|ended| ended.saturating_sub(run.began_at)),
        "cause": run.causes.last().map_or_else(|| json!("unknown"), |cause| json!(cause)),
        "causes": run.causes,
        "added": run.added,
        "removed": run.removed,
        "refused": run.refused,
        "held": run.held,
        "calls": run.calls,
        "failures": failures,
    })
}

/// What a code means: Marketo's, or one of ours where Marketo gave none.
pub(crate) fn sentence(code: &str) -> &'static str {
    match code {
        NO_CLEAR_ANSWER => {
            "No clear answer came: nobody of that call is touched until it can take effect no more, and then they are \
             looked at again."
        }
        "none" => "Marketo named everybody but this person, who is left alone for a day.",
        code => marketo::class::sentence(code),
    }
}

/// `GET /syncs/{id}/history`: the oldest first.
pub(crate) async fn history(deps: &Deps, sync: &Sync, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let pk = history_pk(&sync.munchkin, &sync.id);
    let (rows, next) = paging.query(deps, Table::Lists, &pk, "", |_: &Size| true).await?;
    let rows = rows.into_iter().map(|size| {
        let Size { at, browsers, addressable, known, people, in_list, members, .. } = size;
        json!({
            "at": time(at),
            "browsers": browsers,
            "addressable": addressable,
            "known": known,
            "people": people,
            "in_list": in_list,
            "members": members,
        })
    });
    Ok(paging.answer(request, rows.collect(), next))
}

/// Files that one answer looks at. Ours: most have no rejected line, and an answer has 30 s.
const FILES: usize = 500;
/// Cursors of streams and of files begin so.
const STREAM: &str = "s.";
const FILE: &str = "f.";

/// `GET /syncs/{id}/rejects`: first those of streams, then those of files, the newest file first. A page may be short
/// although there is more: then the link says where it goes on.
pub(crate) async fn rejects(deps: &Deps, sync: &Sync, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let munchkin = &sync.munchkin;
    let named = feeds_that_name(deps, sync).await?;
    let mut rows: Vec<(String, Value)> = Vec::new();
    let after = paging.after.as_deref();

    if after.is_none_or(|after| after.starts_with(STREAM)) {
        let from = match after.and_then(|after| after.strip_prefix(STREAM)) {
            Some(text) => text.parse::<usize>().map_err(|_| bad_cursor())?.saturating_add(1),
            None => 0,
        };
        let mut all = Vec::new();
        for feed in feeds(deps, munchkin).await?.into_iter().filter(|feed| feed.kind.is_stream()) {
            if named.contains(&feed.id) {
                let state = feed_state(deps, munchkin, &feed.id).await?;
                // The newest last, and no time of their own.
                all.extend(state.rejects.iter().rev().map(|reject| row(&feed.id, None, reject, None)));
            }
        }
        let all = all.into_iter().enumerate().skip(from);
        rows.extend(all.map(|(at, row)| (format!("{STREAM}{at}"), row)));
    }
    let mut line = match after.and_then(|after| after.strip_prefix(FILE)) {
        Some(text) => {
            let (line, at) = text.rsplit_once('.').ok_or_else(bad_cursor)?;
            let at: usize = at.parse().map_err(|_| bad_cursor())?;
            let key = Key::new(munchkin.as_str(), format!("{IMPORTS_BY_TIME}{line}"));
            let place: Doc<ImportLine> = load(deps, Table::Syncs, &key).await?.ok_or_else(bad_cursor)?;
            let key = import_key(munchkin, &place.value.id);
            let found: Option<Doc<Import>> = load(deps, Table::Syncs, &key).await?;
            let found = found.map(|found| found.value).filter(|import| named.contains(feed_of(import)));
            rows.extend(found.iter().flat_map(|import| of_file(import, line)).skip(at.saturating_add(1)));
            Some(line.to_owned())
        }
        None if after.is_none_or(|after| after.starts_with(STREAM)) => None,
        None => return Err(bad_cursor()),
    };
    let mut looked = 0;
    let mut more = true;
    while rows.len() <= paging.limit && looked < FILES && more {
        let page = Paging { limit: paging.limit.min(100), after: line.clone() };
        let (imports, next) = latest(deps, munchkin, &page).await?;
        looked += page.limit;
        for (key, import) in &imports {
            if let Some(import) = import.as_ref().filter(|import| named.contains(feed_of(import))) {
                rows.extend(of_file(import, key));
            }
            line = Some(key.clone());
        }
        more = next.is_some();
    }
    let next = if rows.len() > paging.limit {
        rows.truncate(paging.limit);
        rows.last().map(|(cursor, _)| cursor.clone())
    } else {
        // All lines of that file have been shown.
        line.filter(|_| more).map(|line| format!("{FILE}{line}.{}", usize::MAX >> 1))
    };
    Ok(paging.answer(request, rows.into_iter().map(|(_, row)| row).collect(), next))
}

/// The feeds that name the sync's audience.
async fn feeds_that_name(deps: &Deps, sync: &Sync) -> Answer<BTreeSet<String>> {
    let head: Option<Doc<Head>> = load(deps, Table::Audiences, &head_key(&sync.munchkin, &sync.audience)).await?;
    let Some(head) = head.map(|head| head.value) else { return Ok(BTreeSet::new()) };
    if head.feeds.is_empty() {
        // Before feeds were told apart, there was one.
        return Ok(BTreeSet::from([DEFAULT_FEED.to_owned()]));
    }
    Ok(head.feeds.into_keys().collect())
}

/// The feed of a file. In records of before there were several feeds none is named.
pub(crate) fn feed_of(import: &Import) -> &str {
    if import.feed.is_empty() { DEFAULT_FEED } else { &import.feed }
}

/// The rejected lines of a file, each with its cursor.
fn of_file<'a>(import: &'a Import, line: &'a str) -> impl Iterator<Item = (String, Value)> + 'a {
    let at = import.ended_at.unwrap_or(import.started_at);
    import.rejects.iter().enumerate().map(move |(index, reject)| {
        (format!("{FILE}{line}.{index}"), row(feed_of(import), Some(&import.key), reject, Some(at)))
    })
}

fn row(feed: &str, file: Option<&str>, reject: &Reject, at: Option<u64>) -> Value {
    let mut row = said::rejected(reject);
    row["feed"] = json!(feed);
    row["file"] = json!(file);
    row["at"] = json!(at.map(time));
    row
}

/// A page of the records of files, the newest first, each with its place in the index; `None`: the record is gone, or is
/// of another time. The second part: the cursor of the next page.
pub(crate) async fn latest(
    deps: &Deps,
    munchkin: &MunchkinId,
    paging: &Paging,
) -> Answer<(Vec<(String, Option<Import>)>, Option<String>)> {
    let (lines, next) =
        paging.query(deps, Table::Syncs, munchkin.as_str(), IMPORTS_BY_TIME, |_: &ImportLine| true).await?;
    let keys: Vec<Key> = lines.iter().map(|line| import_key(munchkin, &line.id)).collect();
    let items = deps.ports.tables.batch_get(Table::Syncs, &keys, Read::Consistent).await;
    let mut found: Vec<Import> = Vec::new();
    for item in items.map_err(Failure::from)? {
        found.push(doc::read(item)?.value);
    }
    let place = |line: ImportLine| {
        let import = found.iter().find(|import| import.id == line.id && import.started_at == line.started_at).cloned();
        let key = import_line_key(munchkin, line.started_at, &line.id).sk;
        (key[IMPORTS_BY_TIME.len()..].to_owned(), import)
    };
    Ok((lines.into_iter().map(place).collect(), next))
}
