//! Makes syncs. The sync's row comes first, in state `creating`; a new list bears the sync's id in its description,
//! so that whoever goes on after a crash knows it for ours.
//!
//! Rows beside the sync's own: `idempotency/<key>` holds what a request with that key was answered;
//! `creating/<sync>` stands from before the sync's row until everybody has been rung, and says when Marketo was last
//! asked to make the list; `pair/<audience>/<list>/<start>` lets only one sync at a time feed a list from an
//! audience.

use std::collections::BTreeSet;

use domain::limits::{HOUR_MS, LATE_EFFECT_MS};
use domain::planted::{Guard, holds};
use domain::sayings::STOPPED_WITHOUT_LIST;
use domain::{AudienceId, ListId, MunchkinId, Said};
use marketo::class::Class;
use marketo::{CALL_TIMEOUT_MS, CallError, ListAsset, Marketo, SEND_WITHIN_MS};
use ports::{Expect, Key, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::audience::want_pass;
use state::bell::BellKey;
use state::budget::Purpose;
use state::rest::{rest, ring_list};
use state::syncs::{
    GuardSettings, Leaving, MembersBefore, Start, Status, Subscription, Sync, Target, change_sync, sync_key,
};
use state::{Cause, Deps, Doc, Step, bell, doc, load, save, syncs, update};

use crate::lists::named;
use crate::orders::read_guard;
use crate::problem::{Answer, Problem, Wrong, one_of};
use crate::routes::{Request, Response, load_sync};
use crate::{library, view};

/// Longest name of a list, in characters (Marketo's asset API).
const NAME_CHARACTERS: usize = 255;
/// Longest `Idempotency-Key`, in bytes. Ours.
const KEY_BYTES: usize = 255;
/// Marketo's folder for the database's lists, where it is as Marketo sets it up.
const GROUP_LISTS: u64 = 12;
/// A row `creating/…` whose sync was never written is swept after this time, in ms.
const ABANDONED_MS: u64 = HOUR_MS;

/// What `POST /syncs` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    audience: AudienceId,
    list: WantedList,
    leaving: Leaving,
    members_before: MembersBefore,
    start: Start,
    #[serde(default)]
    guard: GuardSettings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedList {
    Id(ListId),
    Name { name: String, folder_id: Option<u64> },
}

impl Wanted {
    fn read(body: &Value) -> Answer<Self> {
        let mut errors: Vec<Wrong> = Vec::new();
        let audience = body["audience_id"].as_str().and_then(AudienceId::parse);
        if audience.is_none() {
            let detail = format!("expected {}", AudienceId::EXPECTED);
            errors.push(("/audience_id".into(), Said::new("expected_audience", detail)));
        }
        let list = WantedList::read(&body["list"]).map_err(|error| errors.push(error)).ok();
        let leaving = choice(body, "leaving", &["remove", "keep"], &mut errors);
        let members_before = choice(body, "members_before", &["keep", "adopt"], &mut errors);
        let start = choice(body, "start", &["now", "report_only"], &mut errors);
        let guard = read_guard(&body["guard"], "/guard", GuardSettings::default(), &mut errors);
        match (audience, list) {
            (Some(audience), Some(list)) if errors.is_empty() => {
                Ok(Self { audience, list, leaving, members_before, start, guard })
            }
            _ => Err(Problem::fields(errors)),
        }
    }
}

impl WantedList {
    fn read(list: &Value) -> Result<Self, Wrong> {
        let wrong = |pointer: &str, said: Said| Err((pointer.to_owned(), said));
        let (id, name, folder) = (&list["id"], &list["name"], &list["folder_id"]);
        match (id.is_null(), name.is_null()) {
            (true, true) => {
                let detail = r#"expected {"id": 1001} for an existing list or {"name": "…"} for a new one"#;
                return wrong("/list", Said::new("expected_list", detail));
            }
            (false, false) => {
                return wrong("/list", Said::new("list_id_and_name", "expected either an id or a name, not both"));
            }
            (false, true) => {
                return match id.as_u64().filter(|id| *id > 0) {
                    Some(id) => Ok(Self::Id(id)),
                    None => wrong(
                        "/list/id",
                        Said::new("expected_list_id", "expected the list's id as a number such as 1001"),
                    ),
                };
            }
            (true, false) => {}
        }
        let folder_id = folder.as_u64().filter(|id| *id > 0);
        if folder_id.is_none() && !folder.is_null() {
            let detail = "expected a folder's id as a number; GET /list-folders lists them";
            return wrong("/list/folder_id", Said::new("expected_list_folder", detail));
        }
        // Marketo trims names.
        let name = name.as_str().unwrap_or_default().trim();
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS || name.chars().any(char::is_control) {
            let detail = format!("expected a text of 1 to {NAME_CHARACTERS} characters, without control characters");
            return wrong("/list/name", Said::new("expected_list_name", detail).with("most", NAME_CHARACTERS));
        }
        Ok(Self::Name { name: name.to_owned(), folder_id })
    }
}

/// Whether a body has the shape that `POST /syncs` takes.
pub(crate) fn checked(body: &Value) -> Answer<()> {
    Wanted::read(body).map(drop)
}

/// One of the words of an enumeration; absent or null is its default.
fn choice<T: Default + serde::de::DeserializeOwned>(
    body: &Value,
    field: &str,
    words: &[&str],
    errors: &mut Vec<Wrong>,
) -> T {
    if body[field].is_null() {
        return T::default();
    }
    serde_json::from_value(body[field].clone()).unwrap_or_else(|_| {
        errors.push((format!("/{field}"), one_of(words)));
        T::default()
    })
}

/// What a request with a certain `Idempotency-Key` was answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Once {
    v: u8,
    wanted: Wanted,
    /// The sync that it makes.
    sync: String,
    /// The final answer, once there is one.
    answer: Option<(u16, String)>,
    created_at: u64,
}

/// A sync on its way.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Making {
    v: u8,
    since: u64,
    /// When Marketo was last asked to make the list, in ms; absent if it certainly was not.
    tried_at: Option<u64>,
}

/// Who feeds a list from an audience.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair {
    v: u8,
    sync: String,
}

fn once_key(munchkin: &MunchkinId, key: &str) -> Key {
    Key::new(munchkin.as_str(), format!("idempotency/{key}"))
}

fn making_key(munchkin: &MunchkinId, id: &str) -> Key {
    Key::new(munchkin.as_str(), format!("creating/{id}"))
}

/// How far the making of a sync came.
enum Outcome {
    Made(Sync),
    /// Still under way: [`resume`] goes on.
    Later(Sync),
    /// It cannot be made.
    Refused(Problem),
}

/// `POST /syncs`.
pub(crate) async fn post(
    deps: &Deps,
    subscription: &Subscription,
    request: &Request,
    deadline: u64,
) -> Answer<Response> {
    let wanted = Wanted::read(&request.json()?)?;
    let Some(key) = request.header("idempotency-key") else {
        return create(deps, subscription, &wanted, &deps.fresh_id(), deadline).await;
    };
    if key.is_empty() || key.len() > KEY_BYTES || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let detail = format!("the header Idempotency-Key takes 1 to {KEY_BYTES} visible ASCII characters");
        return Err(Problem::new(400, Said::new("idempotency_key", detail).with("most", KEY_BYTES)));
    }
    let row = once_key(&subscription.munchkin_id, key);
    let fresh = Once { v: 1, wanted: wanted.clone(), sync: deps.fresh_id(), answer: None, created_at: deps.now() };
    let once = update(
        deps,
        Table::Syncs,
        &row,
        |found: Option<Once>| match found {
            Some(once) if holds(Guard::RepeatsAreOneRequest) => Ok((None, once)),
            _ => Ok((Some(fresh.clone()), fresh.clone())),
        },
        |_| None,
    )
    .await?;
    if once.wanted != wanted {
        let detail = "this Idempotency-Key was used before, with another body: take a fresh key";
        return Err(Problem::new(422, Said::new("idempotency_key_used", detail)));
    }
    if let Some((status, body)) = once.answer {
        return Ok(stored(status, body));
    }
    let answer = create(deps, subscription, &wanted, &once.sync, deadline).await;
    let answer = answer.unwrap_or_else(|problem| problem.response());
    // 202 and failures of ours are not the last word.
    if answer.status == 202 || answer.status >= 500 {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let kept = update(
        deps,
        Table::Syncs,
        &row,
        |found: Option<Once>| {
            let mut once = found.unwrap_or_else(|| fresh.clone());
            match once.answer.clone() {
                Some(other) => Ok((None, other)),
                None => {
                    once.answer = Some((answer.status, text.clone()));
                    Ok((Some(once), (answer.status, text.clone())))
                }
            }
        },
        |_| None,
    )
    .await?;
    Ok(if kept.1 == text { answer } else { stored(kept.0, kept.1) })
}

fn stored(status: u16, body: String) -> Response {
    let content_type = if status < 400 { "application/json" } else { "application/problem+json" };
    Response { status, content_type, body: body.into_bytes(), headers: Vec::new() }
}

/// The sync that `POST /syncs` would make of this body, after every check that can be made before anything is written.
pub(crate) async fn would_be(
    deps: &Deps,
    subscription: &Subscription,
    body: &Value,
    id: &str,
    deadline: u64,
) -> Answer<Sync> {
    validate(deps, subscription, &Wanted::read(body)?, id, deadline).await
}

async fn create(
    deps: &Deps,
    subscription: &Subscription,
    wanted: &Wanted,
    id: &str,
    deadline: u64,
) -> Answer<Response> {
    let munchkin = &subscription.munchkin_id;
    let sync = match load_sync(deps, munchkin, id).await? {
        Some(found) => found.value,
        None => {
            let sync = validate(deps, subscription, wanted, id, deadline).await?;
            if sync.list.id.is_none() && sync.start == Start::Now && !holds(Guard::RowBeforeList) {
                return careless(deps, sync, deadline).await;
            }
            begin(deps, &sync).await?;
            sync
        }
    };
    match go_on(deps, sync, deadline).await? {
        Outcome::Made(sync) => {
            let location = format!("/syncs/{}", sync.id);
            let body = view::sync(deps, &sync).await?;
            Ok(Response { headers: vec![("location", location)], ..Response::json(201, &body) })
        }
        Outcome::Later(sync) => {
            let location = format!("/syncs/{}", sync.id);
            let body = view::sync(deps, &sync).await?;
            Ok(Response { headers: vec![("location", location)], ..Response::json(202, &body) })
        }
        Outcome::Refused(problem) => {
            withdraw(deps, munchkin, id).await?;
            Err(problem)
        }
    }
}

/// Checks everything that can be checked before anything is written.
async fn validate(deps: &Deps, subscription: &Subscription, wanted: &Wanted, id: &str, deadline: u64) -> Answer<Sync> {
    door(subscription)?;
    if !subscription.cookie_sync {
        let detail = "cookie sync is switched off for this Marketo subscription, so no new sync is made: \
             switch it on in Marketo and say so with PUT /subscription";
        return Err(Problem::new(403, Said::new("create_without_cookie_sync", detail)));
    }
    let munchkin = &subscription.munchkin_id;
    let audience_name = library::name(deps, subscription, &wanted.audience).await?;
    let all: Vec<Sync> = syncs::syncs(deps, munchkin).await?.into_iter().map(|sync| sync.value).collect();
    let same = |sync: &&Sync| is_live(sync) && sync.audience == wanted.audience && sync.start == wanted.start;
    let feeding = |list: ListId| all.iter().filter(same).find(|sync| sync.list.id == Some(list));
    let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Control);
    let list = match &wanted.list {
        WantedList::Id(list) => {
            if let Some(sync) = feeding(*list) {
                return Err(feeds_already("/list/id", sync));
            }
            let found = marketo.list(marketo.slot().await?, *list).await?;
            let Some(found) = found else {
                let detail =
                    format!("Marketo has no static list with id {list}; GET /lists?search= finds lists by name");
                return Err(Problem::at(
                    422,
                    "/list/id",
                    Said::new("list_unknown", detail).with("id", list.to_string()),
                ));
            };
            Target { id: Some(found.id), name: found.name, folder_id: found.folder_id, ours: false }
        }
        WantedList::Name { name, folder_id } => {
            if let Some(sync) = all.iter().filter(same).find(|sync| sync.list.id.is_none() && sync.list.name == *name) {
                return Err(feeds_already("/list/name", sync));
            }
            let mut folder_id = *folder_id;
            if wanted.start == Start::Now {
                let folder = match folder_id {
                    Some(folder) => folder,
                    None => default_folder(&marketo).await?,
                };
                folder_id = Some(folder);
                let found = named(&marketo, name, folder).await?;
                if let Some(sync) = found.iter().find_map(|list| feeding(list.id)) {
                    return Err(feeds_already("/list/name", sync));
                }
                if !found.is_empty() {
                    return Err(taken(&found));
                }
            }
            Target { id: None, name: name.clone(), folder_id, ours: false }
        }
    };
    Ok(Sync {
        v: 1,
        id: id.to_owned(),
        munchkin: munchkin.clone(),
        audience: wanted.audience.clone(),
        audience_name,
        list,
        leaving: wanted.leaving,
        members_before: wanted.members_before,
        start: wanted.start,
        status: Status::Creating,
        why: None,
        from_pass: None,
        run_pass: None,
        frozen: None,
        guard: wanted.guard,
        generation: 0,
        created_at: deps.now(),
    })
}

/// A subscription that must not be used at all.
pub(crate) fn door(subscription: &Subscription) -> Answer<()> {
    match subscription.refused() {
        None => Ok(()),
        Some(why) if subscription.hipaa_ready => Err(Problem::new(403, Said::new("hipaa_ready", why.english))),
        Some(why) => {
            let detail = format!("{}: say which one with PUT /subscription", why.english);
            Err(Problem::new(403, Said::new("org_missing", detail)))
        }
    }
}

const fn is_live(sync: &Sync) -> bool {
    !matches!(sync.status, Status::StoppedKeeping | Status::StoppedLeaving)
}

fn feeds_already(pointer: &str, sync: &Sync) -> Problem {
    let detail = format!(
        "{} already feeds the list \"{}\" by sync {}: stop that one first, or choose another list",
        sync.audience, sync.list.name, sync.id
    );
    let said = Said::new("feeds_already", detail)
        .with("audience", json!(sync.audience))
        .with("list", sync.list.name.clone())
        .with("sync", sync.id.clone());
    Problem::at(409, pointer, said).with("existing_sync", json!({"id": sync.id}))
}

/// The name is taken, by lists that are not ours.
fn taken(lists: &[ListAsset]) -> Problem {
    let place = |list: &ListAsset| {
        let folder = list.folder_id.map(|folder| format!(" in folder {folder}"));
        let workspace = list.workspace.as_ref().map(|workspace| format!(" of the workspace \"{workspace}\""));
        format!("{}{}{}", list.id, folder.unwrap_or_default(), workspace.unwrap_or_default())
    };
    let places = lists.iter().map(place).collect::<Vec<_>>().join(", ");
    let said = match lists {
        [] => Said::new(
            "list_taken_unseen",
            "Marketo says that this name is taken, and does not show by which list: choose another name",
        ),
        [list] => {
            let detail = format!(
                "Marketo has a list of this name already, {places}: choose another name, or feed that list with \
                 {{\"id\": {}}}",
                list.id
            );
            Said::new("list_taken", detail).with("id", list.id.to_string())
        }
        several => {
            let count = several.len();
            let detail = format!(
                "Marketo has {count} lists of this name already, {places}: choose another name, or feed one of them by \
                 its id"
            );
            Said::new("list_taken_often", detail).with("lists", count)
        }
    };
    let row = |list: &ListAsset| json!({"id": list.id, "name": list.name, "folder_id": list.folder_id, "workspace": list.workspace});
    Problem::at(409, "/list/name", said).with("existing_lists", lists.iter().map(row).collect())
}

async fn default_folder(marketo: &Marketo<'_>) -> Answer<u64> {
    let folders = marketo.list_folders(marketo.slot().await?).await?;
    let lists = folders.iter().filter(|folder| folder["folderType"] == "List");
    let ids: Vec<u64> = lists.filter_map(view::folder_id).collect();
    let first = ids.iter().find(|id| **id == GROUP_LISTS).or(ids.first());
    first.copied().ok_or_else(|| {
        let detail = "Marketo shows no folder for lists: name one that the API user may use";
        Problem::at(422, "/list/folder_id", Said::new("no_list_folder", detail))
    })
}

/// Writes the sync's row, and before it the row by which [`resume`] finds it.
async fn begin(deps: &Deps, sync: &Sync) -> Step<()> {
    let making = Making { v: 1, since: deps.now(), tried_at: None };
    save(deps, Table::Syncs, making_key(&sync.munchkin, &sync.id), &making, None, None).await?;
    // Lost to a twin with the same Idempotency-Key: it wrote the same.
    save(deps, Table::Syncs, sync_key(&sync.munchkin, &sync.id), sync, None, None).await?;
    Ok(())
}

/// Takes back a sync that could not be made.
async fn withdraw(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<()> {
    let key = sync_key(munchkin, id);
    let found: Option<Doc<Sync>> = load(deps, Table::Syncs, &key).await?;
    if let Some(found) = found
        && found.value.status == Status::Creating
    {
        deps.ports.tables.delete(Table::Syncs, &key, Expect::Rev(found.rev)).await?;
    }
    deps.ports.tables.delete(Table::Syncs, &making_key(munchkin, id), Expect::Anything).await?;
    Ok(())
}

/// Goes on with a sync whose row is written, wherever it stopped.
async fn go_on(deps: &Deps, sync: Sync, deadline: u64) -> Step<Outcome> {
    match sync.status {
        Status::Creating => make(deps, sync, deadline).await,
        Status::StoppedKeeping if sync.list.id.is_none() && sync.start == Start::Now => {
            let why = sync.why.unwrap_or(STOPPED_WITHOUT_LIST.plain());
            Ok(Outcome::Refused(Problem::new(409, Said::new("sync_stopped_unmade", why.sentence))))
        }
        _ => {
            announce(deps, &sync).await?;
            Ok(Outcome::Made(sync))
        }
    }
}

async fn make(deps: &Deps, sync: Sync, deadline: u64) -> Step<Outcome> {
    let subscription = syncs::subscription(deps, &sync.munchkin).await?;
    if subscription.is_none_or(|subscription| subscription.refused().is_some()) {
        return Ok(Outcome::Later(sync));
    }
    if let Some(list) = sync.list.id {
        if let Some(other) = claim(deps, &sync, list).await? {
            return Ok(Outcome::Refused(feeds_already("/list/id", &other)));
        }
        return finish(deps, sync, None).await;
    }
    if sync.start == Start::ReportOnly {
        return finish(deps, sync, None).await;
    }
    match make_list(deps, &sync, deadline).await {
        Ok(Made::Ours(list)) => finish(deps, sync, Some(list)).await,
        Ok(Made::Refused(problem)) => Ok(Outcome::Refused(problem)),
        Ok(Made::Unclear) => Ok(Outcome::Later(sync)),
        Err(error) => {
            tracing::warn!(sync.id = %sync.id, reason = %error, "a list is not made yet");
            Ok(Outcome::Later(sync))
        }
    }
}

enum Made {
    Ours(ListAsset),
    Unclear,
    Refused(Problem),
}

/// Makes the list of a sync, unless it was made before.
async fn make_list(deps: &Deps, sync: &Sync, deadline: u64) -> Result<Made, CallError> {
    let marketo = Marketo::new(deps, &sync.munchkin, deadline, Purpose::Control);
    let Target { name, folder_id, .. } = &sync.list;
    let folder = folder_id.unwrap_or(GROUP_LISTS);
    let looked_at = deps.now();
    match there(sync, named(&marketo, name, folder).await?) {
        Some(Ok(list)) => return Ok(Made::Ours(list)),
        Some(Err(others)) => return Ok(Made::Refused(taken(&others))),
        None => {}
    }
    let slot = marketo.slot().await?;
    if !may_try(deps, sync, looked_at).await? {
        marketo.give_back(slot).await;
        return Ok(Made::Unclear);
    }
    let error = match marketo.create_list(slot, name, folder, &format!("audience-sync {}", sync.id)).await {
        Ok(list) => return Ok(Made::Ours(list)),
        Err(CallError::Unknown(_)) => {
            // Without an answer our own call keeps us away from Marketo for as long as it may take: the next tick looks.
            let marketo = marketo.waiting_at_most(0);
            return Ok(match there(sync, named(&marketo, name, folder).await?) {
                Some(Ok(list)) => Made::Ours(list),
                // Another one's, or not there yet: what we asked for may still land.
                _ => Made::Unclear,
            });
        }
        Err(error) => error,
    };
    // Certainly without effect.
    tried(deps, sync, None).await?;
    let code = match (error.class(), error) {
        (Some(Class::Alarm | Class::RetryThenAlarm), error) => return Err(error),
        (_, CallError::Refused { code, .. }) => code,
        (_, other) => return Err(other),
    };
    Ok(match code.as_str() {
        // The name is taken. A call of ours of which we know nothing any more may have made that list.
        "709" | "1017" => match there(sync, named(&marketo, name, folder).await?) {
            Some(Ok(list)) => Made::Ours(list),
            Some(Err(others)) => Made::Refused(taken(&others)),
            None => Made::Refused(taken(&[])),
        },
        "710" | "711" => {
            let detail = format!(
                "Marketo takes no list into folder {folder} (code {code}); GET /list-folders lists those that do"
            );
            let said = Said::new("folder_takes_no_list", detail).with("folder", folder.to_string()).with("code", code);
            Made::Refused(Problem::at(422, "/list/folder_id", said))
        }
        _ => {
            let detail = format!("Marketo refused to make this list with code {code}");
            Made::Refused(Problem::at(422, "/list", Said::new("list_refused", detail).with("code", code)))
        }
    })
}

/// Ours among the lists of one name, or else the others. Ours bears the sync's id in its description: nothing else
/// makes a list ours.
fn there(sync: &Sync, mut found: Vec<ListAsset>) -> Option<Result<ListAsset, Vec<ListAsset>>> {
    if let Some(place) = found.iter().position(|list| list.description.contains(&sync.id)) {
        return Some(Ok(found.swap_remove(place)));
    }
    (!found.is_empty()).then_some(Err(found))
}

/// Takes the right to ask Marketo for the list: not where an earlier call could still take effect when we looked.
async fn may_try(deps: &Deps, sync: &Sync, looked_at: u64) -> Step<bool> {
    let now = deps.now();
    let patience = deps.settings.scaled(SEND_WITHIN_MS + CALL_TIMEOUT_MS + LATE_EFFECT_MS);
    update(
        deps,
        Table::Syncs,
        &making_key(&sync.munchkin, &sync.id),
        |found: Option<Making>| {
            let mut making = found.unwrap_or(Making { v: 1, since: now, tried_at: None });
            if making.tried_at.is_some_and(|tried| looked_at < tried + patience) {
                return Ok((None, false));
            }
            making.tried_at = Some(now);
            Ok((Some(making), true))
        },
        |_| None,
    )
    .await
}

async fn tried(deps: &Deps, sync: &Sync, at: Option<u64>) -> Step<()> {
    let key = making_key(&sync.munchkin, &sync.id);
    let change = |found: Option<Making>| Ok((found.map(|making| Making { tried_at: at, ..making }), ()));
    update(deps, Table::Syncs, &key, change, |_| None).await
}

/// Claims a list for this audience. Returns the sync that feeds it already, if there is one.
async fn claim(deps: &Deps, sync: &Sync, list: ListId) -> Step<Option<Sync>> {
    let start = if sync.start == Start::Now { "now" } else { "report_only" };
    let key = Key::new(sync.munchkin.as_str(), format!("pair/{}/{list}/{start}", sync.audience));
    loop {
        let found: Option<Doc<Pair>> = load(deps, Table::Syncs, &key).await?;
        if let Some(pair) = &found {
            if pair.value.sync == sync.id {
                return Ok(None);
            }
            let other: Option<Doc<Sync>> =
                load(deps, Table::Syncs, &sync_key(&sync.munchkin, &pair.value.sync)).await?;
            if let Some(other) = other
                && is_live(&other.value)
            {
                return Ok(Some(other.value));
            }
        }
        let pair = Pair { v: 1, sync: sync.id.clone() };
        if save(deps, Table::Syncs, key.clone(), &pair, found.map(|pair| pair.rev), None).await? {
            return Ok(None);
        }
    }
}

/// Lets the sync begin. `list`: the one that we made.
async fn finish(deps: &Deps, sync: Sync, list: Option<ListAsset>) -> Step<Outcome> {
    let (munchkin, id) = (&sync.munchkin, &sync.id);
    let from_pass = want_pass(deps, munchkin, &sync.audience).await?;
    let changed = change_sync(deps, munchkin, id, |sync| {
        if sync.status != Status::Creating {
            return false;
        }
        if let Some(list) = &list {
            sync.list.id = Some(list.id);
            sync.list.ours = true;
        }
        sync.from_pass = from_pass;
        sync.status = Status::Active;
        sync.generation += 1;
        true
    })
    .await?;
    let Some(mut sync) = changed else {
        let detail = "the sync was withdrawn while its list was being made";
        return Ok(Outcome::Refused(Problem::new(409, Said::new("sync_withdrawn", detail))));
    };
    // Whoever closed the subscription meanwhile may have looked before this sync was active.
    let subscription = syncs::subscription(deps, munchkin).await?;
    if let (Status::Active, Some(why)) = (sync.status, subscription.as_ref().and_then(Subscription::refused)) {
        sync = rest(deps, &sync, Status::Paused, &why.plain()).await?;
    }
    announce(deps, &sync).await?;
    Ok(Outcome::Made(sync))
}

/// Rings everybody whom a new sync concerns; then it needs no [`resume`] any more.
async fn announce(deps: &Deps, sync: &Sync) -> Step<()> {
    let munchkin = &sync.munchkin;
    bell::mark(deps, &BellKey::audience(munchkin, &sync.audience)).await?;
    bell::mark(deps, &BellKey::identity(munchkin)).await?;
    // Where another sync follows the audience, the pass may have been published before this one was active.
    ring_list(deps, sync).await?;
    deps.ports.tables.delete(Table::Syncs, &making_key(munchkin, &sync.id), Expect::Anything).await?;
    Ok(())
}

/// Guard l taken out: the list first, without our id, and the row after.
async fn careless(deps: &Deps, mut sync: Sync, deadline: u64) -> Answer<Response> {
    let marketo = Marketo::new(deps, &sync.munchkin, deadline, Purpose::Control);
    let folder = sync.list.folder_id.unwrap_or(GROUP_LISTS);
    let list = marketo.create_list(marketo.slot().await?, &sync.list.name, folder, "").await?;
    sync.list.id = Some(list.id);
    sync.list.ours = true;
    sync.from_pass = want_pass(deps, &sync.munchkin, &sync.audience).await?;
    sync.status = Status::Active;
    save(deps, Table::Syncs, sync_key(&sync.munchkin, &sync.id), &sync, None, None).await?;
    announce(deps, &sync).await?;
    Ok(Response::json(201, &view::sync(deps, &sync).await?))
}

/// Finishes the syncs that were left half-made. Called by a schedule, each minute; it may be called at any time.
pub async fn resume(deps: &Deps) -> Step<()> {
    // An operator has asked for each of them.
    let deps = &deps.because([Cause::ByHand]);
    let mut failed = None;
    for subscription in syncs::subscriptions(deps).await? {
        if subscription.refused().is_some() {
            continue;
        }
        let munchkin = &subscription.munchkin_id;
        let all = syncs::syncs(deps, munchkin).await?;
        let creating = all.into_iter().filter(|sync| sync.value.status == Status::Creating);
        let mut ids: BTreeSet<String> = creating.map(|sync| sync.value.id).collect();
        ids.extend(on_their_way(deps, munchkin).await?);
        for id in ids {
            if let Err(failure) = resume_one(deps, munchkin, &id).await {
                tracing::warn!(sync.id = %id, reason = %failure, "a sync cannot be finished now");
                failed.get_or_insert(failure);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn on_their_way(deps: &Deps, munchkin: &MunchkinId) -> Step<Vec<String>> {
    let (mut ids, mut after) = (Vec::new(), None::<String>);
    loop {
        let read = ports::Read::Consistent;
        let tables = &deps.ports.tables;
        let page = tables.query(Table::Syncs, munchkin.as_str(), "creating/", after.as_deref(), 1000, read).await?;
        for item in page.items {
            let Some(id) = item.key.sk.strip_prefix("creating/").map(str::to_owned) else { continue };
            let making: Making = doc::read(item)?.value;
            if load::<Sync>(deps, Table::Syncs, &sync_key(munchkin, &id)).await?.is_some() {
                ids.push(id);
            } else if deps.now() > making.since + deps.settings.scaled(ABANDONED_MS) {
                tables.delete(Table::Syncs, &making_key(munchkin, &id), Expect::Anything).await?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(ids);
        }
    }
}

async fn resume_one(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Step<()> {
    let Some(found) = load::<Sync>(deps, Table::Syncs, &sync_key(munchkin, id)).await? else { return Ok(()) };
    // Never waits for its turn: the next tick comes.
    let outcome = go_on(deps, found.value, deps.now()).await?;
    if let Outcome::Refused(problem) = outcome {
        // Nobody waits for an answer any more, so the row stays and says why.
        change_sync(deps, munchkin, id, |sync| {
            if sync.status != Status::Creating {
                return false;
            }
            sync.status = Status::StoppedKeeping;
            sync.generation += 1;
            sync.why = Some(problem.said().clone());
            true
        })
        .await?;
        deps.ports.tables.delete(Table::Syncs, &making_key(munchkin, id), Expect::Anything).await?;
    }
    Ok(())
}
