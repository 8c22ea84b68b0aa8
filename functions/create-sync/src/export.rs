//! All that an operator has set up, to be set up elsewhere: the subscription, its feeds and its syncs. No member, no
//! match and no secret is in it.

use std::collections::BTreeMap;

use domain::sayings::{
    IMPORT_BOTH, IMPORT_FEED_KIND, IMPORT_HIPAA, IMPORT_LEAVING, IMPORT_MEMBERS_BEFORE, IMPORT_PAUSED, IMPORT_TIME_OVER,
};
use domain::{ListId, MunchkinId, Said};
use ports::Failure;
use serde_json::{Map, Value, json};
use state::feeds::feeds as declared;
use state::syncs::{Start, Status, Subscription, Sync};
use state::{Deps, syncs};

use crate::problem::{Answer, Problem, true_or_false};
use crate::routes::{Request, Response};
use crate::{control, create, feeds, orders, said, view};

/// Version of what is exported.
const VERSION: u64 = 1;
/// An import begins nothing that it may not end before its time is over, in ms.
const RESERVE_MS: u64 = 8_000;
/// Fields of an exported sync beside those of `POST /syncs`.
const PAUSED: &str = "paused";

/// `GET /export`. Stopped syncs are over, and stay behind.
pub(crate) async fn export(deps: &Deps, subscription: &Subscription) -> Answer<Value> {
    let munchkin = &subscription.munchkin_id;
    let feeds: BTreeMap<String, Value> =
        declared(deps, munchkin).await?.into_iter().map(|feed| (feed.id.clone(), feeds::declaration(&feed))).collect();
    let syncs = view::in_order(deps, munchkin).await?;
    let syncs: Vec<Value> = syncs.iter().filter(|sync| is_live(sync)).map(of_sync).collect();
    Ok(json!({"version": VERSION, "subscription": settings(subscription), "feeds": feeds, "syncs": syncs}))
}

const fn is_live(sync: &Sync) -> bool {
    matches!(sync.status, Status::Creating | Status::Active | Status::Paused)
}

/// The body of `PUT /subscription` that makes it again.
fn settings(subscription: &Subscription) -> Value {
    let mut all = json!(subscription);
    if let Some(all) = all.as_object_mut() {
        all.remove("v");
    }
    all
}

/// The body of `POST /syncs` that makes it again, its list both by id and by name, and whether it is paused.
fn of_sync(sync: &Sync) -> Value {
    json!({
        "audience_id": sync.audience,
        "list": {"id": sync.list.id, "name": sync.list.name, "folder_id": sync.list.folder_id},
        "leaving": sync.leaving,
        "members_before": sync.members_before,
        "start": sync.start,
        "guard": sync.guard,
        PAUSED: sync.status == Status::Paused,
    })
}

/// One thing that an import is about, and what would become of it.
struct Change {
    what: &'static str,
    name: String,
    change: &'static str,
    fields: Vec<String>,
    why: Option<Said>,
    done: Option<bool>,
}

impl Change {
    fn new(what: &'static str, name: impl Into<String>, change: &'static str) -> Self {
        Self { what, name: name.into(), change, fields: Vec::new(), why: None, done: None }
    }

    fn cannot(what: &'static str, name: impl Into<String>, why: Said) -> Self {
        Self { why: Some(why), ..Self::new(what, name, "cannot") }
    }

    /// Adds, changes or leaves what stands there.
    fn of(what: &'static str, name: impl Into<String>, stands: Option<&Value>, wanted: &Value) -> Self {
        let Some(stands) = stands else { return Self::new(what, name, "add") };
        let fields = differences(stands, wanted);
        Self { fields: fields.clone(), ..Self::new(what, name, if fields.is_empty() { "same" } else { "change" }) }
    }

    fn json(&self) -> Value {
        let Self { what, name, change, fields, why, done } = self;
        let mut row = json!({"what": what, "name": name, "change": change, "fields": fields});
        said::put(&mut row, "why", why.as_ref());
        if let Some(done) = done {
            row["done"] = json!(done);
        }
        row
    }

    /// Notes how it went.
    fn ended(&mut self, outcome: Answer<()>) {
        self.done = Some(outcome.is_ok());
        if let Err(problem) = outcome {
            self.why = Some(problem.said().clone());
        }
    }
}

/// Members in which two objects differ.
fn differences(stands: &Value, wanted: &Value) -> Vec<String> {
    let empty = Map::new();
    let (stands, wanted) = (stands.as_object().unwrap_or(&empty), wanted.as_object().unwrap_or(&empty));
    let differs = |name: &&String| wanted.get(*name) != stands.get(*name);
    wanted.keys().filter(differs).cloned().collect()
}

/// `POST /import`: says what would change, and with `"apply": true` changes it. What only Marketo or Adobe can tell (a name
/// that is taken, an audience that is gone) shows when it is applied. It may be sent again, also after it has stopped
/// half-way: what stands already is left alone.
pub(crate) async fn import(deps: &Deps, request: &Request, deadline: u64) -> Answer<Value> {
    let body = request.json()?;
    let mut errors = orders::unknown(&body, &["export", "apply", "munchkin_id"], "");
    let apply = match &body["apply"] {
        Value::Null => false,
        Value::Bool(apply) => *apply,
        _ => {
            errors.push(("/apply".into(), true_or_false()));
            false
        }
    };
    let export = &body["export"];
    if export["version"] != VERSION {
        let detail = format!("expected {VERSION}: what GET /export answers");
        errors.push(("/export/version".into(), Said::new("export_version", detail).with("version", VERSION)));
    }
    let other = &body["munchkin_id"];
    let target = other.as_str().and_then(MunchkinId::parse);
    if target.is_none() && !other.is_null() {
        let detail = format!("expected {}, or nothing", MunchkinId::EXPECTED);
        errors.push(("/munchkin_id".into(), Said::new("expected_munchkin_id", detail)));
    }
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let exported = control::read_subscription(&export["subscription"])
        .map_err(|problem| problem.within("/export/subscription"))?;
    let feeds = entries(&export["feeds"])?;
    let syncs = match &export["syncs"] {
        Value::Null => Vec::new(),
        Value::Array(syncs) => syncs.clone(),
        _ => {
            return Err(Problem::fields(vec![("/export/syncs".into(), Said::new("export_syncs", "expected a list"))]));
        }
    };
    let munchkin = target.unwrap_or_else(|| exported.munchkin_id.clone());
    let same_instance = munchkin == exported.munchkin_id;

    let mut changes = Vec::new();
    let stands = syncs::subscription(deps, &munchkin).await?;
    let mut wanted = Subscription { munchkin_id: munchkin.clone(), ..exported };
    if let Some(stands) = stands.as_ref().filter(|_| !same_instance) {
        // These are facts about an instance, and no settings of the export.
        wanted.org_id.clone_from(&stands.org_id);
        wanted.hipaa_ready = stands.hipaa_ready;
        wanted.cookie_sync = stands.cookie_sync;
        wanted.extract_since.clone_from(&stands.extract_since);
    }
    let mut change =
        Change::of("subscription", munchkin.as_str(), stands.as_ref().map(settings).as_ref(), &settings(&wanted));
    if stands.is_some_and(|stands| stands.hipaa_ready && !wanted.hipaa_ready) {
        change = Change::cannot("subscription", munchkin.as_str(), IMPORT_HIPAA.plain());
    }
    if apply && matches!(change.change, "add" | "change") {
        let request = with_body("PUT", &settings(&wanted));
        change.ended(control::put_subscription(deps, &request).await.map(drop));
    }
    changes.push(change);

    let standing = declared(deps, &munchkin).await?;
    for (id, wanted) in feeds {
        let stands = standing.iter().find(|feed| feed.id == id).map(feeds::declaration);
        let mut change = match feeds::checked(&id, &wanted) {
            Ok(feed) => Change::of("feed", &id, stands.as_ref(), &feeds::declaration(&feed)),
            Err(problem) => Change::cannot("feed", &id, problem.said().clone()),
        };
        if stands.is_some_and(|stands| stands["kind"] != wanted["kind"]) {
            change = Change::cannot("feed", &id, IMPORT_FEED_KIND.plain());
        }
        if apply && matches!(change.change, "add" | "change") {
            change.ended(feeds::put(deps, &munchkin, &id, &with_body("PUT", &wanted)).await.map(drop));
        }
        changes.push(change);
    }

    let standing = view::in_order(deps, &munchkin).await?;
    let standing: Vec<&Sync> = standing.iter().filter(|sync| is_live(sync)).collect();
    for (place, wanted) in syncs.iter().enumerate() {
        let name = format!("{} → {}", text(&wanted["audience_id"]), text(&wanted["list"]["name"]));
        let body = body_of(wanted, same_instance);
        let stands = standing.iter().find(|sync| feeds_same(sync, &body, wanted)).copied();
        let mut change = sync_change(&name, place, &body, wanted, stands);
        if apply && matches!(change.change, "add" | "change") {
            if deps.now() + deps.settings.scaled(RESERVE_MS) > deadline {
                change.done = Some(false);
                change.why = Some(IMPORT_TIME_OVER.plain());
            } else {
                let outcome = set_up(deps, &munchkin, &body, wanted, stands, deadline).await;
                change.ended(outcome);
            }
        }
        changes.push(change);
    }
    let changes: Vec<Value> = changes.iter().map(Change::json).collect();
    Ok(json!({"munchkin_id": munchkin, "changes": changes}))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn entries(feeds: &Value) -> Answer<Vec<(String, Value)>> {
    match feeds {
        Value::Null => Ok(Vec::new()),
        Value::Object(feeds) => Ok(feeds.iter().map(|(id, feed)| (id.clone(), feed.clone())).collect()),
        _ => {
            let said = Said::new("export_feeds", "expected an object: settings by the feed's id");
            Err(Problem::fields(vec![("/export/feeds".into(), said)]))
        }
    }
}

fn with_body(method: &str, body: &Value) -> Request {
    Request { method: method.to_owned(), body: body.to_string().into_bytes(), ..Request::default() }
}

/// The body of `POST /syncs`. In the instance that it comes from a list goes by its id; in another one by its name, for
/// ids are of one instance.
fn body_of(wanted: &Value, same_instance: bool) -> Value {
    let mut body = wanted.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove(PAUSED);
    }
    let list = &wanted["list"];
    body["list"] = match list["id"].as_u64().filter(|_| same_instance) {
        Some(id) => json!({"id": id}),
        // Folders have other ids there.
        None if !same_instance => json!({"name": list["name"]}),
        None => json!({"name": list["name"], "folder_id": list["folder_id"]}),
    };
    body
}

/// Whether a sync feeds the same list from the same audience.
fn feeds_same(sync: &Sync, body: &Value, wanted: &Value) -> bool {
    let start = if wanted["start"].is_null() { json!(Start::default()) } else { wanted["start"].clone() };
    let list = match body["list"]["id"].as_u64() {
        Some(id) => sync.list.id == Some(id as ListId),
        None => body["list"]["name"] == json!(sync.list.name),
    };
    json!(sync.audience) == body["audience_id"] && list && json!(sync.start) == start
}

fn sync_change(name: &str, place: usize, body: &Value, wanted: &Value, stands: Option<&Sync>) -> Change {
    if !wanted[PAUSED].is_boolean() && !wanted[PAUSED].is_null() {
        let why = IMPORT_PAUSED.with([("field", format!("/export/syncs/{place}/{PAUSED}").into())]);
        return Change::cannot("sync", name, why);
    }
    if let Err(problem) = create::checked(body) {
        let problem = problem.within(&format!("/export/syncs/{place}"));
        return Change::cannot("sync", name, problem.said().clone());
    }
    let Some(stands) = stands else { return Change::new("sync", name, "add") };
    let (mut have, mut want) = (of_sync(stands), wanted.clone());
    if let (Some(have), Some(want)) = (have["guard"].as_object().cloned(), want["guard"].as_object_mut()) {
        // A guard that names some of its numbers leaves the others as they stand.
        have.into_iter().for_each(|(name, value)| _ = want.entry(name).or_insert(value));
    }
    for side in [&mut have, &mut want] {
        if let Some(fields) = side.as_object_mut() {
            fields.remove("list");
            // What is not said is left as it stands.
            fields.retain(|_, value| !value.is_null());
        }
    }
    let change = Change::of("sync", name, Some(&have), &want);
    let fixed: Vec<&str> = change
        .fields
        .iter()
        .map(String::as_str)
        .filter(|field| matches!(*field, "leaving" | "members_before"))
        .collect();
    let why = match fixed[..] {
        [] => return change,
        ["leaving"] => IMPORT_LEAVING,
        ["members_before"] => IMPORT_MEMBERS_BEFORE,
        _ => IMPORT_BOTH,
    };
    Change { fields: change.fields.clone(), ..Change::cannot("sync", name, why.plain()) }
}

/// Makes or changes one sync.
async fn set_up(
    deps: &Deps,
    munchkin: &MunchkinId,
    body: &Value,
    wanted: &Value,
    stands: Option<&Sync>,
    deadline: u64,
) -> Answer<()> {
    let id = match stands {
        Some(sync) => {
            if !wanted["guard"].is_null() {
                orders::guard(deps, sync.clone(), &with_body("POST", &wanted["guard"])).await?;
            }
            sync.id.clone()
        }
        None => {
            let subscription = syncs::subscription(deps, munchkin).await?;
            let missing = || Said::new("subscription_missing", "the subscription could not be set up");
            let subscription = subscription.ok_or_else(|| Problem::new(404, missing()))?;
            made(deps, &subscription, body, deadline).await?
        }
    };
    let sync = crate::routes::load_sync(deps, munchkin, &id).await?.map(|found| found.value);
    match (sync, wanted[PAUSED].as_bool()) {
        (Some(sync), Some(true)) if sync.status == Status::Active => control::pause(deps, sync).await.map(drop),
        (Some(sync), Some(false)) if sync.status == Status::Paused => {
            control::resume(deps, sync, deadline).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// Makes a sync. Returns its id. A list that only has the same name is another list, with people of its own: it is not
/// fed unless the export names its id.
async fn made(deps: &Deps, subscription: &Subscription, body: &Value, deadline: u64) -> Answer<String> {
    id_of(&create::post(deps, subscription, &with_body("POST", body), deadline).await?)
}

fn id_of(answer: &Response) -> Answer<String> {
    let sync: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let id = sync["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Failure::fail("a sync was made and its id is not in the answer").into())
}
