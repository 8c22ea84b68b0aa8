//! What is shown, as JSON.

use std::collections::BTreeMap;

use domain::report::{AudienceCounts, MemberCounts, PeopleCounts};
use domain::said::Said;
use domain::{AudienceId, MunchkinId};
use marketo::Marketo;
use ports::{Failure, Table};
use serde_json::{Value, json};
use state::audience::{Head, head_key};
use state::bell::{self, Bell, BellKey, Kind};
use state::erase;
use state::feeds::{Feed, Import, ImportStatus};
use state::identity::{Intake, ask_pk, intake_key, tell_pk};
use state::lists::{self, Held, Left, ListHead, RefusedPerson, Report, Want, report_key, want_key};
use state::syncs::{IdentityHead, Start, Status, Subscription, Sync, identity_key};
use state::{Deps, Doc, budget, load, time};

use crate::deliveries::{UnderWay, of_files};
use crate::freshness::freshness;
use crate::once::Once;
use crate::paging::Paging;
use crate::problem::{Answer, Problem};
use crate::progress::progress;
use crate::routes::{Request, Response};
use crate::runs::{feed_of, latest, sentence};
use crate::said;
use crate::sources::{NotDelivered, Source, not_delivered, sources};

/// Imports of which `GET /status` tells.
const IMPORTS: usize = 100;
/// Bytes of a page of imports, at most. Ours: an answer of Lambda's has at most 6 MB, in which each quotation mark counts
/// twice, and a record may name a thousand audiences.
const IMPORTS_BYTES: usize = 3_000_000;
/// Refused people of one answer: an answer of Lambda's has at most 6 MB. The counts by code are whole.
const REFUSED_SHOWN: usize = 15_000;
/// Due tokens that are counted, at most.
const DUE: usize = 1_000;

/// The id of one of Marketo's folders.
pub(crate) fn folder_id(folder: &Value) -> Option<u64> {
    folder["id"].as_u64().or_else(|| folder["folderId"]["id"].as_u64())
}

/// A mass change that waits for an operator.
pub(crate) fn held(held: &Held) -> Value {
    let Held { id, since, why, remove, add, of } = held;
    let mut row = json!({"id": id, "since": time(*since), "removals": remove, "additions": add, "of": of});
    said::put(&mut row, "why", Some(why));
    row
}

/// Everything about a sync that its views are made of.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) sync: Sync,
    pub(crate) head: Option<Head>,
    pub(crate) want: Option<Want>,
    pub(crate) list: Option<ListHead>,
    pub(crate) list_bell: Bell,
    pub(crate) audience_bell: Bell,
    pub(crate) report: Option<Report>,
    /// Declared feeds of the subscription.
    feeds: Vec<Feed>,
}

impl Seen {
    pub(crate) async fn read(deps: &Deps, sync: &Sync, once: &Once<'_>) -> Answer<Self> {
        let (munchkin, audience) = (&sync.munchkin, &sync.audience);
        // In the order in which one rings the next, and each before what its work writes: nothing slips through between two
        // reads.
        let audience_bell = bell::look(deps, &BellKey::audience(munchkin, audience)).await?;
        let (mut list, mut list_bell) = (None, Bell::default());
        if let (Start::Now, Some(id)) = (sync.start, sync.list.id) {
            list_bell = bell::look(deps, &BellKey::list(munchkin, id)).await?;
            list = value(load(deps, Table::Lists, &lists::head_key(munchkin, id)).await?);
        }
        let want: Option<Want> = value(load(deps, Table::Lists, &want_key(munchkin, audience)).await?);
        Ok(Self {
            head: value(load(deps, Table::Audiences, &head_key(munchkin, audience)).await?),
            // What was wanted before the sync began may be stale.
            want: want.filter(|want| sync.from_pass.is_none_or(|pass| want.pass >= pass)),
            list,
            list_bell,
            audience_bell,
            report: value(load(deps, Table::Lists, &report_key(munchkin, &sync.id)).await?),
            feeds: once.feeds().await?.to_vec(),
            sync: sync.clone(),
        })
    }

    /// The sync itself, and live numbers apart from it.
    pub(crate) fn json(&self, now: u64) -> Value {
        let Sync { id, munchkin, audience, audience_name, list, leaving, members_before, start, status, .. } =
            &self.sync;
        let delivered = self.head.is_some();
        let mut row = json!({
            "id": id,
            "status": status,
            "munchkin_id": munchkin,
            "audience_id": audience,
            "audience_name": audience_name,
            "audience_delivered": delivered,
            "delivered": delivered,
            "sources": self.sources(now).iter().map(Source::json).collect::<Vec<_>>(),
            "not_delivered": self.not_delivered().map(|not| not.json()),
            "list": {"id": list.id, "name": list.name, "folder_id": list.folder_id, "ours": list.ours},
            "leaving": leaving,
            "members_before": members_before,
            "start": start,
            "guard": self.sync.guard,
            "held": self.held().map(held),
            "generation": self.sync.generation,
            "created_at": time(self.sync.created_at),
            "live": self.live(),
        });
        said::put(&mut row, "why", self.sync.why.as_ref());
        row
    }

    /// The feeds that name the audience.
    pub(crate) fn sources(&self, now: u64) -> Vec<Source> {
        sources(self.head.as_ref(), &self.feeds, now)
    }

    /// Why nothing comes about the audience, if so.
    pub(crate) fn not_delivered(&self) -> Option<NotDelivered> {
        not_delivered(&self.sync, self.head.as_ref())
    }

    /// What waits for an operator on the sync's list.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.list.as_ref()?.held.as_ref()
    }

    /// Numbers of this moment. They stand beside the report and not in it: they are of no one instant.
    fn live(&self) -> Value {
        let left = self.list.as_ref().map(|head| &head.left);
        json!({
            "wanted": self.want.as_ref().map(|want| want.count),
            "list": self.sync.list.id.map(|_| json!({
                "to_add": left.map(|left| left.add),
                "to_remove": left.map(|left| left.remove),
                "on_hold": left.map(|left| left.hold),
                "failed": left.map(|left| left.failed),
                "handled_at": self.list.as_ref().filter(|head| head.handled_at > 0).map(|head| time(head.handled_at)),
                "work": work(&self.list_bell),
            })),
            "audience": {
                "size": self.head.as_ref().and_then(|head| head.base.as_ref()).map(|base| base.count),
                "delivered_at": self.head.as_ref().map(|head| time(head.delivered_at)),
                "pass_wanted": self.head.as_ref().map(|head| head.pass_wanted),
                "pass_done": self.head.as_ref().map(|head| head.pass_done),
                "work": work(&self.audience_bell),
            },
        })
    }

    /// The report; `None`: the first pass is under way.
    pub(crate) fn report(&self, now: u64) -> Option<Value> {
        let without_list = |as_of: u64, audience: AudienceCounts, people: PeopleCounts| Report {
            v: 1,
            as_of,
            pass: 0,
            audience,
            people,
            members: None,
            refused: Vec::new(),
            refused_key: None,
            freshness_seconds: 0,
        };
        if self.head.is_none() {
            let nothing = without_list(now, AudienceCounts::default(), PeopleCounts::default());
            let mut report = self.counted(&nothing);
            report["delivered"] = json!(false);
            report["note"] = json!("no delivery has named this audience yet, which is not the same as an empty one");
            return Some(report);
        }
        if self.sync.start == Start::ReportOnly {
            let found = &self.want.as_ref()?.report;
            let people = PeopleCounts { waiting: found.counts.people, ..PeopleCounts::default() };
            return Some(self.counted(&without_list(found.as_of, found.counts.clone(), people)));
        }
        Some(self.counted(self.report.as_ref()?))
    }

    fn counted(&self, report: &Report) -> Value {
        let Report { audience, people, members, .. } = report;
        let mut failed = BTreeMap::from([("1004".to_owned(), 0)]);
        failed.extend(people.failed.clone());
        let reasons: Vec<Value> = people
            .failed
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(code, count)| json!({"code": code, "count": count, "sentence": sentence(code)}))
            .collect();
        json!({
            "sync_id": self.sync.id,
            "audience_id": self.sync.audience,
            "list_id": self.sync.list.id,
            "as_of": time(report.as_of),
            "delivered": true,
            "audience": audience.audience,
            "no_match": audience.no_match,
            "set_aside": audience.set_aside,
            "anonymous": audience.anonymous,
            "addressable": audience.addressable(),
            "known": audience.known,
            "people": audience.people,
            "in_list": {"ours": people.ours, "before_us": people.before_us},
            "waiting": people.waiting,
            "kept_out": people.kept_out,
            "dropped": people.dropped,
            "failed": failed,
            "reasons": reasons,
            "held": self.held().map(held),
            "refused": report.refused.iter().map(refused).collect::<Vec<_>>(),
            "members_in_marketo": members.as_ref().map(MemberCounts::total),
            "members": members,
            "freshness_seconds": Some(report.freshness_seconds).filter(|seconds| *seconds > 0),
        })
    }
}

fn refused(person: &RefusedPerson) -> Value {
    let RefusedPerson { lead, code, request_id, at, sentence } = person;
    json!({"lead_id": lead, "code": code, "request_id": request_id, "at": time(*at), "sentence": sentence})
}

fn value<T>(doc: Option<Doc<T>>) -> Option<T> {
    doc.map(|doc| doc.value)
}

/// What a doorbell says about its key's work.
fn work(bell: &Bell) -> Value {
    json!({
        "dirty": bell.dirty_since.is_some() || bell.done < bell.version,
        "rests_until": bell.not_before.map(time),
        "next_at": bell.wake_at.map(time),
        "stuck": bell.stuck,
    })
}

/// `GET /syncs/{id}`, and what `POST /syncs` answers.
pub(crate) async fn sync(deps: &Deps, sync: &Sync) -> Answer<Value> {
    one_of(deps, sync, &Once::new(deps, &sync.munchkin)).await
}

async fn one_of(deps: &Deps, sync: &Sync, once: &Once<'_>) -> Answer<Value> {
    let seen = Seen::read(deps, sync, once).await?;
    let mut found = seen.json(deps.now());
    found["freshness"] = freshness(&seen.sources(deps.now()), once).await?;
    found["progress"] = progress(deps, &seen, once).await?;
    Ok(found)
}

/// `GET /syncs`.
pub(crate) async fn syncs(deps: &Deps, munchkin: &MunchkinId, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let all = in_order(deps, munchkin).await?;
    let (page, next) = paging.of(all, |sync| format!("{:020}-{}", sync.created_at, sync.id));
    let (mut found, once) = (Vec::new(), Once::new(deps, munchkin));
    for one in page {
        found.push(one_of(deps, &one, &once).await?);
    }
    Ok(paging.answer(request, found, next))
}

/// The syncs of a subscription, oldest first.
pub(crate) async fn in_order(deps: &Deps, munchkin: &MunchkinId) -> Answer<Vec<Sync>> {
    let found = state::syncs::syncs(deps, munchkin).await?;
    let mut found: Vec<Sync> = found.into_iter().map(|sync| sync.value).collect();
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(found)
}

/// `GET /syncs/{id}/report`.
pub(crate) async fn report(deps: &Deps, sync: &Sync) -> Answer<Value> {
    let seen = Seen::read(deps, sync, &Once::new(deps, &sync.munchkin)).await?;
    let mut found = seen.report(deps.now());
    if let (Some(found), Some(key)) = (&mut found, seen.report.as_ref().and_then(|report| report.refused_key.as_ref()))
        && let Some(bytes) = deps.ports.objects.get(key).await.map_err(Failure::from)?
    {
        let all: Vec<RefusedPerson> =
            serde_json::from_slice(&bytes).map_err(|_| Failure::fail("a report's object is damaged"))?;
        found["refused"] = all.iter().take(REFUSED_SHOWN).map(refused).collect();
    }
    found.ok_or_else(|| {
        let said = match sync.status {
            Status::Creating => {
                Said::new("report_waits_for_list", "there is no report yet: the list of this sync is being made")
            }
            Status::Active => Said::new("report_waits_for_pass", "there is no report yet: the first pass is under way"),
            Status::Paused => {
                Said::new("report_paused", "there is no report: the sync was paused before its first pass ended")
            }
            Status::StoppedKeeping | Status::StoppedLeaving => {
                Said::new("report_stopped", "there is no report: the sync was stopped before its first pass ended")
            }
        };
        Problem::new(404, said)
    })
}

/// `GET /list-folders`: the folders that may hold lists.
pub(crate) async fn list_folders(marketo: &Marketo<'_>) -> Answer<Value> {
    let found = marketo.list_folders(marketo.slot().await?).await?;
    let lists = found.iter().filter(|folder| folder["folderType"] == "List");
    Ok(lists.map(|folder| json!({"id": folder_id(folder), "name": folder["name"], "path": folder["path"]})).collect())
}

/// The latest imports, newest first.
async fn latest_imports(deps: &Deps, munchkin: &MunchkinId) -> Answer<Vec<Import>> {
    let (found, _) = latest(deps, munchkin, &Paging { limit: IMPORTS, after: None }).await?;
    Ok(found.into_iter().filter_map(|(_, import)| import).collect())
}

/// `GET /imports`: the newest first. A page whose records are large may be short although there is more.
pub(crate) async fn imports(deps: &Deps, munchkin: &MunchkinId, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let (found, mut next) = latest(deps, munchkin, &paging).await?;
    let under_way = of_files(deps, munchkin, found.iter().filter_map(|(_, import)| import.as_ref())).await?;
    let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
    for (key, import) in found {
        if let Some(import) = import {
            let mut row = json!(import);
            said::put(&mut row, "why", import.why.as_ref());
            row["rejects"] = import.rejects.iter().map(said::rejected).collect();
            row["started_at"] = json!(time(import.started_at));
            row["ended_at"] = json!(import.ended_at.map(time));
            let delivery = (feed_of(&import).to_owned(), import.delivery.clone().unwrap_or_default());
            row["progress"] = json!(under_way.get(&delivery).map(UnderWay::json));
            row["duration_ms"] = json!(import.ended_at.map(|ended| ended.saturating_sub(import.started_at)));
            bytes += row.to_string().len();
            if bytes > IMPORTS_BYTES && !rows.is_empty() {
                next = last;
                break;
            }
            rows.push(row);
        }
        last = Some(key);
    }
    Ok(paging.answer(request, rows, next))
}

/// How many keys of each kind wait for work.
#[derive(Debug, Default)]
struct Bells {
    dirty: BTreeMap<&'static str, u64>,
    stuck: u64,
    /// The earliest time (ms) at which something happens by itself.
    next_at: Option<u64>,
}

async fn bells(deps: &Deps, munchkin: &MunchkinId) -> Answer<Bells> {
    let now = deps.now();
    let mut all = Bells::default();
    all.dirty.extend(Kind::ALL.map(|kind| (kind.name(), 0)));
    for (key, bell) in bell::all(deps, munchkin).await? {
        let overdue = bell.wake_at.is_some_and(|at| at <= now);
        let is_dirty = bell.dirty_since.is_some() || bell.done < bell.version || overdue;
        *all.dirty.entry(key.kind.name()).or_default() += u64::from(is_dirty);
        all.stuck += u64::from(bell.stuck);
        let next = [all.next_at, bell.not_before.filter(|_| is_dirty), bell.wake_at];
        all.next_at = next.into_iter().flatten().min();
    }
    Ok(all)
}

/// `GET /status`: what is left to do, so that a local runner can tell when everything has settled. The queues are
/// not seen from here.
pub(crate) async fn status(deps: &Deps, subscription: Option<&Subscription>) -> Answer<Value> {
    let now = deps.now();
    let Some(subscription) = subscription else {
        return Ok(json!({
            "now": now,
            "munchkin_id": null,
            "refused": null,
            "settled": true,
            "waits_for": [],
            "dirty": {"identity": 0, "edges": 0, "audience": 0, "list": 0},
            "stuck": 0,
            "next_at": null,
            "outstanding": [],
            "held": [],
            "due_tokens": 0,
            "extract_pending": false,
            "activities_polled_at": 0,
            "calls_today": 0,
            "passes_pending": 0,
            "reports_pending": 0,
            "creating": 0,
            "imports_running": 0,
        }));
    };
    let munchkin = &subscription.munchkin_id;
    let refused = subscription.refused();
    let bells = bells(deps, munchkin).await?;
    let identity: Option<IdentityHead> = value(load(deps, Table::Syncs, &identity_key(munchkin)).await?);
    let identity = identity.unwrap_or_default();
    let extract_pending = refused.is_none()
        && subscription.cookie_sync
        && !identity.extract.no_ecids
        && identity.extract.done_at.is_none();
    let mut due_tokens = 0;
    // Of a subscription that must not be used, nobody looks at them.
    if refused.is_none() {
        for partition in [tell_pk(munchkin), ask_pk(munchkin)] {
            let due = deps.ports.tables.due(Table::Identity, &partition, now, DUE).await;
            due_tokens += due.map_err(ports::Failure::from)?.len();
        }
    }

    let (mut creating, mut passes, mut reports) = (0, 0, 0);
    let mut outstanding: BTreeMap<u64, Left> = BTreeMap::new();
    let mut waiting: BTreeMap<u64, Value> = BTreeMap::new();
    let mut audiences: BTreeMap<AudienceId, bool> = BTreeMap::new();
    let once = Once::new(deps, munchkin);
    for sync in in_order(deps, munchkin).await? {
        creating += u64::from(sync.status == Status::Creating);
        let seen = Seen::read(deps, &sync, &once).await?;
        if sync.follows() {
            let pending =
                seen.head.as_ref().is_some_and(|head| head.pass.is_some() || head.pass_wanted > head.pass_done);
            audiences.insert(sync.audience.clone(), pending);
        }
        let (Start::Now, Some(list)) = (sync.start, sync.list.id) else { continue };
        let due = match (&seen.list, &seen.want) {
            (Some(head), Some(want)) => head.report_is_due(&sync, want, now),
            (None, want) => want.is_some(),
            (Some(_), None) => false,
        };
        reports += u64::from(sync.status == Status::Active && due);
        if let Some(head) = seen.list {
            if let Some(change) = &head.held {
                let mut row = held(change);
                row["list_id"] = json!(list);
                waiting.insert(list, row);
            }
            outstanding.insert(list, head.left);
        }
    }
    passes += audiences.values().filter(|pending| **pending).count();
    let imports = latest_imports(deps, munchkin).await?;
    let erasing = erase::open_jobs(deps, munchkin).await?.len() as u64;
    let intake: Option<Intake> = value(load(deps, Table::Identity, &intake_key(munchkin, now)).await?);
    let intake = intake.unwrap_or_default();
    let imports_running = imports.iter().filter(|import| import.status == ImportStatus::Running).count();
    // A list that waits for an operator is written by nobody: what is left there is no work of ours.
    let left =
        |(list, left): (&u64, &Left)| left.hold + if waiting.contains_key(list) { 0 } else { left.add + left.remove };
    let left: u64 = outstanding.iter().map(left).sum();

    let count = |name: &str| bells.dirty.get(name).copied().unwrap_or(0);
    let mut waits_for = Vec::new();
    for (number, what) in [
        (count("identity"), "identity work"),
        (count("edges"), "edges to bring up to date"),
        (count("audience"), "audiences to work out"),
        (count("list"), "lists to handle"),
        (left, "people to add, to remove or on hold"),
        (due_tokens as u64, "tokens or leads to look at"),
        (u64::from(extract_pending), "bulk extract of leads"),
        (passes as u64, "passes over audiences"),
        (reports, "reports"),
        (creating, "syncs whose list is being made"),
        (imports_running as u64, "files being taken in"),
        (erasing, "people being erased"),
    ] {
        if number > 0 {
            waits_for.push(format!("{number} {what}"));
        }
    }
    let lists: Vec<Value> = outstanding
        .iter()
        .map(|(list, left)| {
            json!({"list_id": list, "add": left.add, "remove": left.remove, "hold": left.hold, "failed": left.failed})
        })
        .collect();
    let budget = budget::standing(deps, munchkin).await?;
    Ok(json!({
        "now": now,
        "munchkin_id": munchkin,
        "refused": refused.map(|why| why.english),
        "settled": waits_for.is_empty(),
        "waits_for": waits_for,
        "dirty": bells.dirty,
        "stuck": bells.stuck,
        "next_at": bells.next_at,
        "outstanding": lists,
        "held": waiting.into_values().collect::<Vec<_>>(),
        "due_tokens": due_tokens,
        "extract_pending": extract_pending,
        "activities_polled_at": identity.polled_at,
        "calls_today": budget.ours,
        "budget": {
            "left_today": budget.left,
            "ours_today": budget.ours,
            "others_today": budget.others,
            "day_ends": time(budget.day_ends),
            "seconds_between_small_writes": budget.between_writes_ms / 1000,
            "next_small_write_in_seconds": budget.next_write_in_ms / 1000,
        },
        "passes_pending": passes,
        "reports_pending": reports,
        "creating": creating,
        "imports_running": imports_running,
        "erasures_open": erasing,
        "browsers_today": {
            "new_pairs_from_pages": intake.new_public,
            "beyond_the_days_cap": intake.over_day_cap,
            "of_those_not_kept": intake.sampled_out,
            "not_stored_cookie_over_cap": intake.token_over_cap,
            "not_stored_browser_over_cap": intake.ecid_over_cap,
        },
    }))
}
