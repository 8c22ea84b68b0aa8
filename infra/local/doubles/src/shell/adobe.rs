//! Adobe's shell.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::page::{back, escape, grouped, page};
use super::{Deliver, Shared, done, same_origin, sent, whole};
use crate::adobe::{Adobe, Change};

#[derive(Clone)]
struct Double {
    shared: Arc<Shared<Adobe>>,
    deliver: Deliver,
}

/// IMS, Audience Manager's REST API, the control API and the page. Delivered files go to `deliver`.
pub fn adobe_router(double: Arc<Shared<Adobe>>, deliver: Deliver) -> Router {
    let control = Router::new()
        .route("/_control/", get(show))
        .route("/_control/page/deliver", post(page_deliver))
        .route("/_control/page/member", post(page_member))
        .route("/_control/segments", get(segments))
        .route("/_control/member", post(member))
        .route("/_control/deliver", post(deliver_json))
        .route("/_control/expire-tokens", post(expire_tokens))
        .layer(axum::middleware::from_fn(same_origin));
    Router::new().fallback(answer).merge(control).with_state(Double { shared: double, deliver })
}

async fn answer(State(double): State<Double>, request: Request) -> Response {
    match whole(request).await {
        Ok(request) => sent(double.shared.lock().handle(double.shared.now_ms(), &request)),
        Err(refused) => refused,
    }
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    mode: Mode,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Next,
    Full,
    Iter,
}

/// Writes a file and hands it over. One that could not be handed over is the next one again.
async fn deliver(double: &Double, mode: Mode) -> Result<String, String> {
    let now = double.shared.now_ms();
    let (name, bytes) = {
        let mut core = double.shared.lock();
        match mode {
            Mode::Next => core.next_file(now),
            Mode::Full => core.full_file(now),
            Mode::Iter => core.iter_file(now),
        }
    };
    match (double.deliver)(name.clone(), bytes.clone()).await {
        Ok(()) => Ok(name),
        Err(error) => {
            double.shared.lock().take_back(name, bytes);
            Err(error)
        }
    }
}

async fn deliver_json(State(double): State<Double>, Json(Wanted { mode }): Json<Wanted>) -> Response {
    match deliver(&double, mode).await {
        Ok(name) => Json(json!({"name": name})).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, Json(json!({"error": error}))).into_response(),
    }
}

async fn segments(State(double): State<Double>) -> Response {
    let core = double.shared.lock();
    let rows: Vec<_> = core
        .library()
        .segments
        .iter()
        .map(|s| json!({"sid": s.sid, "name": s.name, "folder_id": s.folder_id, "count": core.count(s.sid)}))
        .collect();
    Json(rows).into_response()
}

async fn member(State(double): State<Double>, Json(change): Json<Change>) -> Response {
    done(double.shared.lock().set_member(change.sid, &change.ecid, change.member))
}

async fn expire_tokens(State(double): State<Double>) -> Response {
    double.shared.lock().expire_tokens();
    done(true)
}

async fn page_deliver(State(double): State<Double>, Form(Wanted { mode }): Form<Wanted>) -> Response {
    match deliver(&double, mode).await {
        Ok(name) => back(&format!("Delivered {name}.")),
        Err(error) => back(&format!("Not delivered: {error}")),
    }
}

#[derive(Deserialize)]
struct PageMember {
    sid: u64,
    ecid: String,
    member: bool,
}

async fn page_member(State(double): State<Double>, Form(change): Form<PageMember>) -> Response {
    let changed = double.shared.lock().set_member(change.sid, change.ecid.trim(), change.member);
    back(if changed {
        "The audience has changed; the next file will show it."
    } else {
        "An ECID has 38 digits, and the audience must exist."
    })
}

#[derive(Deserialize)]
struct Shown {
    said: Option<String>,
}

async fn show(State(double): State<Double>, Query(shown): Query<Shown>) -> Response {
    let core = double.shared.lock();
    let library = core.library();
    let mut body = format!(
        "<p>{} files delivered, {} planned.</p>\
         <p><form method=post action=\"/_control/page/deliver\"><input type=hidden name=mode value=next>\
         <button>deliver the next file</button></form></p>\
         <h2>Segments</h2><table><tr><th>Id<th>Name<th>Folder<th class=n>ECIDs</tr>",
        core.delivered(),
        core.planned(),
    );
    for segment in &library.segments {
        let folder = library.folders.iter().find(|folder| folder.folder_id == segment.folder_id);
        body.push_str(&format!(
            "<tr><td>{}<td>{}<td>{}<td class=n>{}</tr>",
            segment.sid,
            escape(&segment.name),
            escape(folder.map_or("", |folder| &folder.name)),
            grouped(core.count(segment.sid)),
        ));
    }
    drop(core);
    body.push_str(
        "</table><h2>Change an audience</h2><form method=post action=\"/_control/page/member\">\
         <input name=sid required inputmode=numeric placeholder=\"segment\" aria-label=\"Segment id\" size=8>\
         <input name=ecid required pattern=\"[0-9]{38}\" placeholder=\"ECID, 38 digits\" aria-label=\"ECID\" size=40>\
         <button name=member value=true>joins</button><button name=member value=false>leaves</button></form>",
    );
    page("The world of Adobe", shown.said.as_deref(), &body)
}
