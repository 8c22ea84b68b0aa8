//! Marketo's shell.

use std::sync::Arc;
use std::time::Duration;

use ::world::types::Lead;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::page::{back, escape, grouped, page};
use super::{Dropped, Shared, done, same_origin, sent, whole};
use crate::marketo::{Fault, LeadState, Marketo, Permission};

type Double = Arc<Shared<Marketo>>;

/// People of each kind that the page shows.
const SHOWN: usize = 12;

/// Marketo's REST API, its control API and its page. The simplest use:
/// `serve(listener, marketo_router(Shared::new(core, system_clock())))`.
pub fn marketo_router(double: Arc<Shared<Marketo>>) -> Router {
    let control = Router::new()
        .route("/_control/", get(show))
        .route("/_control/page/form", post(page_form))
        .route("/_control/page/merge", post(page_merge))
        .route("/_control/page/delete", post(page_delete))
        .route("/_control/page/member", post(page_member))
        .route("/_control/lists", get(|State(double): State<Double>| async move { Json(double.lock().lists_dump()) }))
        .route("/_control/world", get(|State(double): State<Double>| async move { Json(double.lock().data()) }))
        .route("/_control/calls", get(calls).delete(clear_calls))
        .route("/_control/pending", get(pending))
        .route("/_control/lead", post(lead))
        .route("/_control/form", post(form))
        .route("/_control/merge", post(merge))
        .route("/_control/delete", post(delete))
        .route("/_control/add", post(add))
        .route("/_control/remove", post(remove))
        .route("/_control/faults", post(inject).delete(clear_faults))
        .route("/_control/refuse", post(refuse))
        .route("/_control/expire-token", post(expire_token))
        .route("/_control/token-edge", post(token_edge))
        .route("/_control/other-calls", post(other_calls))
        .route("/_control/doors", post(doors))
        .route("/_control/make-list", post(make_list))
        .route("/_control/latency", post(latency))
        .layer(axum::extract::DefaultBodyLimit::max(super::BODY_BYTES))
        .layer(axum::middleware::from_fn(same_origin));
    Router::new().fallback(answer).merge(control).with_state(double)
}

async fn answer(State(double): State<Double>, request: Request) -> Response {
    let request = match whole(request).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let reply = double.lock().handle(double.now_ms(), &request);
    if reply.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(reply.latency_ms)).await;
    }
    match reply.response {
        Some(response) => sent(response),
        None => {
            let mut response = Response::default();
            response.extensions_mut().insert(Dropped);
            response
        }
    }
}

#[derive(Deserialize)]
struct FormFill {
    token: String,
    email: String,
}

#[derive(Deserialize)]
struct Merge {
    winner: u64,
    losers: Vec<u64>,
}

#[derive(Deserialize)]
struct Id {
    id: u64,
}

#[derive(Deserialize)]
struct Membership {
    list: u64,
    lead: u64,
}

#[derive(Deserialize)]
struct Refuse {
    lead: u64,
    code: Option<u16>,
}

#[derive(Deserialize)]
struct OtherCalls {
    calls: u32,
    #[serde(default)]
    latency_ms: u64,
}

/// What the instance's administrator changes; what is not named stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Doors {
    missing_permissions: Option<Vec<Permission>>,
    allowlisted: Option<bool>,
    client_secret: Option<String>,
    ecids_field: Option<bool>,
    /// Calls that other tools have made today, besides those of before.
    others_used: Option<u32>,
}

#[derive(Deserialize)]
struct NewList {
    name: String,
    folder: u64,
    workspace: String,
}

#[derive(Deserialize)]
struct Latency {
    ms: u64,
}

async fn calls(State(double): State<Double>) -> Response {
    Json(json!({"calls": double.lock().calls()})).into_response()
}

async fn clear_calls(State(double): State<Double>) -> Response {
    double.lock().clear_calls();
    done(true)
}

async fn pending(State(double): State<Double>) -> Response {
    let now = double.now_ms();
    let mut core = double.lock();
    core.tick(now);
    Json(json!({
        "next_visible_activity_at": core.next_visible_activity_at(),
        "last_visible_activity_at": core.last_visible_activity_at(),
        "next_late_effect_at": core.next_late_effect_at(),
    }))
    .into_response()
}

async fn lead(State(double): State<Double>, Json(lead): Json<Lead>) -> Response {
    double.lock().upsert_lead(double.now_ms(), lead);
    done(true)
}

async fn form(State(double): State<Double>, Json(fill): Json<FormFill>) -> Response {
    let id = double.lock().fill_form(double.now_ms(), &fill.token, &fill.email);
    Json(json!({"done": true, "id": id})).into_response()
}

async fn merge(State(double): State<Double>, Json(merge): Json<Merge>) -> Response {
    done(double.lock().merge(double.now_ms(), merge.winner, &merge.losers))
}

async fn delete(State(double): State<Double>, Json(Id { id }): Json<Id>) -> Response {
    done(double.lock().delete(double.now_ms(), id))
}

async fn add(State(double): State<Double>, Json(Membership { list, lead }): Json<Membership>) -> Response {
    done(double.lock().add_by_hand(double.now_ms(), list, lead))
}

async fn remove(State(double): State<Double>, Json(Membership { list, lead }): Json<Membership>) -> Response {
    done(double.lock().remove_by_hand(double.now_ms(), list, lead))
}

async fn inject(State(double): State<Double>, Json(fault): Json<Fault>) -> Response {
    double.lock().inject(fault);
    done(true)
}

async fn clear_faults(State(double): State<Double>) -> Response {
    double.lock().clear_faults();
    done(true)
}

async fn refuse(State(double): State<Double>, Json(Refuse { lead, code }): Json<Refuse>) -> Response {
    double.lock().refuse_lead(lead, code);
    done(true)
}

async fn expire_token(State(double): State<Double>) -> Response {
    double.lock().expire_token();
    done(true)
}

async fn token_edge(State(double): State<Double>, Json(Latency { ms }): Json<Latency>) -> Response {
    double.lock().token_edge(double.now_ms(), ms);
    done(true)
}

async fn other_calls(State(double): State<Double>, Json(other): Json<OtherCalls>) -> Response {
    let now = double.now_ms();
    let mut core = double.lock();
    let taken = (0..other.calls).filter(|_| core.other_call(now, other.latency_ms)).count();
    Json(json!({"done": true, "taken": taken})).into_response()
}

async fn doors(State(double): State<Double>, Json(doors): Json<Doors>) -> Response {
    let now = double.now_ms();
    let mut core = double.lock();
    if let Some(missing) = doors.missing_permissions {
        core.set_missing(missing);
    }
    if let Some(listed) = doors.allowlisted {
        core.set_allowlisted(listed);
    }
    if let Some(secret) = doors.client_secret {
        core.set_secret(&secret);
    }
    if let Some(there) = doors.ecids_field {
        core.set_ecids_field(there);
    }
    if let Some(calls) = doors.others_used {
        core.others_used(now, calls);
    }
    done(true)
}

async fn make_list(State(double): State<Double>, Json(list): Json<NewList>) -> Response {
    let id = double.lock().make_list(double.now_ms(), &list.name, list.folder, &list.workspace);
    Json(json!({"done": true, "id": id})).into_response()
}

async fn latency(State(double): State<Double>, Json(Latency { ms }): Json<Latency>) -> Response {
    double.lock().set_latency(ms);
    done(true)
}

#[derive(Deserialize)]
struct PageMerge {
    winner: String,
    losers: String,
}

#[derive(Deserialize)]
struct Shown {
    said: Option<String>,
    /// Lead id, email or token to look for.
    find: Option<String>,
}

async fn page_form(State(double): State<Double>, Form(fill): Form<FormFill>) -> Response {
    let email = fill.email.trim();
    if email.is_empty() || fill.token.is_empty() {
        return back("An email and a token are needed.");
    }
    let id = double.lock().fill_form(double.now_ms(), &fill.token, email);
    back(&format!("The form is filled: the visitor is person {id}."))
}

async fn page_merge(State(double): State<Double>, Form(merge): Form<PageMerge>) -> Response {
    let losers: Result<Vec<u64>, _> = merge.losers.split(',').map(|id| id.trim().parse::<u64>()).collect();
    let (Ok(winner), Ok(losers)) = (merge.winner.trim().parse(), losers) else {
        return back("Merging takes one id and one or more others, separated by commas.");
    };
    let merged = double.lock().merge(double.now_ms(), winner, &losers);
    back(if merged { "Merged." } else { "There is nobody with these ids to merge." })
}

async fn page_delete(State(double): State<Double>, Form(Id { id }): Form<Id>) -> Response {
    let deleted = double.lock().delete(double.now_ms(), id);
    back(&if deleted { format!("Person {id} is deleted.") } else { format!("There is no person {id}.") })
}

#[derive(Deserialize)]
struct PageMember {
    list: String,
    lead: String,
    member: bool,
}

async fn page_member(State(double): State<Double>, Form(change): Form<PageMember>) -> Response {
    let (Ok(list), Ok(lead)) = (change.list.trim().parse(), change.lead.trim().parse()) else {
        return back("A list and a person are numbers.");
    };
    let now = double.now_ms();
    let changed = match change.member {
        true => double.lock().add_by_hand(now, list, lead),
        false => double.lock().remove_by_hand(now, list, lead),
    };
    back(if changed { "The list is changed." } else { "There is no such list or person, or nothing to change." })
}

async fn show(State(double): State<Double>, Query(shown): Query<Shown>) -> Response {
    let now = double.now_ms();
    let mut core = double.lock();
    core.tick(now);
    let find = shown.find.as_deref().unwrap_or_default().trim();
    let mut body = String::new();
    let (leads, calls) = (core.leads(), core.used_today());
    let known = leads.values().filter(|lead| lead.email.is_some()).count();
    body.push_str(&format!(
        "<p>Instance <code>{}</code> · {} known people, {} anonymous visitors · {} calls today of {}</p>",
        escape(core.munchkin_id()),
        grouped(known),
        grouped(leads.len() - known),
        grouped(calls as usize),
        grouped(core.settings().daily_quota as usize),
    ));
    body.push_str("<h2>Static lists</h2><table><tr><th>Id<th>Name<th class=n>Members</tr>");
    for (id, list) in core.lists() {
        let (name, members) = (escape(&list.name), grouped(list.members.len()));
        body.push_str(&format!("<tr><td>{id}<td>{name}<td class=n>{members}</tr>"));
    }
    body.push_str("</table><h2>Visitors</h2>");
    body.push_str("<table><tr><th>Id<th>Token<th>What happens</tr>");
    for (id, lead) in people(&core, find, |lead| lead.email.is_none() && !lead.cookies.is_empty()) {
        let token = escape(lead.cookies.first().map_or("", String::as_str));
        body.push_str(&format!(
            "<tr><td>{id}<td><code>{token}</code><td><form method=post action=\"/_control/page/form\">\
             <input type=hidden name=token value=\"{token}\">\
             <input name=email type=email required aria-label=\"Email of visitor {id}\" \
             value=\"visitor-{id}@example.com\"><button>this person fills a form</button></form></tr>"
        ));
    }
    body.push_str("</table><h2>Known people</h2><table><tr><th>Id<th>Email<th class=n>Lists<th>What happens</tr>");
    for (id, lead) in people(&core, find, |lead| lead.email.is_some()) {
        let email = escape(lead.email.as_deref().unwrap_or_default());
        let lists = core.lists().values().filter(|list| list.members.contains(&id)).count();
        body.push_str(&format!(
            "<tr><td>{id}<td>{email}<td class=n>{lists}<td><form method=post action=\"/_control/page/delete\">\
             <input type=hidden name=id value={id}><button>delete</button></form></tr>"
        ));
    }
    let find = escape(find);
    body.push_str(&format!(
        "</table><p><form method=get action=\"/_control/\"><input name=find value=\"{find}\" aria-label=\"Search\" \
         placeholder=\"id, email or token\"><button>search</button></form></p>\
         <h2>Merge</h2><form method=post action=\"/_control/page/merge\">\
         <input name=winner required inputmode=numeric placeholder=\"who stays\" aria-label=\"Id of who stays\">\
         <input name=losers required placeholder=\"who is merged in: 1, 2\" aria-label=\"Ids of who is merged in\">\
         <button>merge</button></form>\
         <h2>Change a list by hand</h2><form method=post action=\"/_control/page/member\">\
         <input name=list required inputmode=numeric placeholder=\"list\" aria-label=\"List id\" size=8>\
         <input name=lead required inputmode=numeric placeholder=\"person\" aria-label=\"Id of the person\" size=10>\
         <button name=member value=true>add</button><button name=member value=false>take out</button></form>"
    ));
    drop(core);
    page("The world of Marketo", shown.said.as_deref(), &body)
}

/// The first few people of a kind who match the search.
fn people<'c>(
    core: &'c Marketo,
    find: &'c str,
    wanted: impl Fn(&LeadState) -> bool + 'c,
) -> impl Iterator<Item = (u64, &'c LeadState)> {
    let leads = core.leads().iter().map(|(id, lead)| (*id, lead));
    let leads = leads.filter(move |(_, lead)| wanted(lead));
    let matching = leads.filter(move |(id, lead)| {
        find.is_empty()
            || id.to_string() == find
            || lead.email.as_ref().is_some_and(|email| email.contains(find))
            || lead.cookies.iter().any(|cookie| cookie.contains(find))
    });
    matching.take(SHOWN)
}
