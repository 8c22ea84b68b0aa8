//! Adobe's shell.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::page::{back, escape, grouped, page};
use super::stream::{Shown as ShownStream, Streams, Wanted as WantedStream};
use super::{Deliver, Shared, done, same_origin, sent, whole};
use crate::adobe::{Adobe, Change, Faults, Shape};

/// Files by name.
type Late = Vec<(String, Vec<u8>)>;

#[derive(Clone)]
struct Double {
    shared: Arc<Shared<Adobe>>,
    deliver: Deliver,
    streams: Streams,
    /// Files that come behind those of the next delivery.
    late: Arc<Mutex<Late>>,
}

/// IMS, the REST APIs of Audience Manager and of Experience Platform, the control API and the page. Delivered files go
/// to `deliver`.
pub fn adobe_router(double: Arc<Shared<Adobe>>, deliver: Deliver) -> Router {
    let control = Router::new()
        .route("/_control/", get(show))
        .route("/_control/page/deliver", post(page_deliver))
        .route("/_control/page/member", post(page_member))
        .route("/_control/page/stream", post(page_stream))
        .route("/_control/page/rename", post(page_rename))
        .route("/_control/segments", get(segments))
        .route("/_control/audiences", get(audiences))
        .route("/_control/member", post(member))
        .route("/_control/profile", post(profile))
        .route("/_control/rename", post(rename))
        .route("/_control/delete", post(delete))
        .route("/_control/deliver", post(deliver_json))
        .route("/_control/files", post(files))
        .route("/_control/streams", get(streams).post(declare))
        .route("/_control/streams/send", post(send))
        .route("/_control/streams/faults", post(faults))
        .route("/_control/expire-tokens", post(expire_tokens))
        .route("/_control/doors", post(doors))
        .layer(axum::middleware::from_fn(same_origin));
    Router::new().fallback(answer).merge(control).with_state(Double {
        shared: double,
        deliver,
        streams: Streams::default(),
        late: Arc::default(),
    })
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

async fn audiences(State(double): State<Double>) -> Response {
    let core = double.shared.lock();
    let audiences = core.library().audiences.iter();
    let rows = audiences.map(|a| json!({"id": a.id, "name": a.name, "count": core.audience_members(&a.id).len()}));
    Json(rows.collect::<Vec<_>>()).into_response()
}

/// What happens to a profile of Experience Platform.
#[derive(Deserialize)]
struct OfProfile {
    profile: Option<u64>,
    ecid: String,
    audience: Option<String>,
    #[serde(default)]
    member: bool,
}

impl OfProfile {
    fn happen(&self, now_ms: u64, core: &mut Adobe) -> bool {
        let found = self.profile.or_else(|| core.profiles_of(&self.ecid).first().copied());
        let profile = found.unwrap_or_else(|| core.new_profile());
        core.add_ecid(now_ms, profile, &self.ecid)
            && self.audience.as_ref().is_none_or(|audience| core.set_profile(now_ms, profile, audience, self.member))
    }
}

async fn profile(State(double): State<Double>, Json(what): Json<OfProfile>) -> Response {
    let now = double.shared.now_ms();
    done(what.happen(now, &mut double.shared.lock()))
}

/// A segment by its number, or an audience of Experience Platform by its UUID, and perhaps its new name.
#[derive(Deserialize)]
struct Named {
    audience: String,
    name: Option<String>,
}

impl Named {
    /// With a name, it is given; without, the audience goes.
    fn happen(&self, now_ms: u64, core: &mut Adobe) -> bool {
        match (self.audience.trim().parse::<u64>(), &self.name) {
            (Ok(sid), Some(name)) => core.rename_segment(now_ms, sid, name),
            (Ok(sid), None) => core.delete_segment(sid),
            (Err(_), Some(name)) => core.rename_audience(now_ms, self.audience.trim(), name),
            (Err(_), None) => core.delete_audience(self.audience.trim()),
        }
    }
}

async fn rename(State(double): State<Double>, Json(named): Json<Named>) -> Response {
    let now = double.shared.now_ms();
    done(named.name.is_some() && named.happen(now, &mut double.shared.lock()))
}

async fn delete(State(double): State<Double>, Json(named): Json<Named>) -> Response {
    let now = double.shared.now_ms();
    done(named.name.is_none() && named.happen(now, &mut double.shared.lock()))
}

/// A delivery in some shape.
#[derive(Deserialize)]
struct WantedFiles {
    feed: Option<String>,
    #[serde(default)]
    shape: Shape,
    #[serde(default)]
    faults: Faults,
}

async fn files(State(double): State<Double>, Json(wanted): Json<WantedFiles>) -> Response {
    let now = double.shared.now_ms();
    let mut files = double.shared.lock().files(now, &wanted.shape);
    if let Some(feed) = &wanted.feed {
        files.iter_mut().for_each(|(name, _)| *name = format!("{feed}/{name}"));
    }
    let (files, lost) = {
        let mut late = double.late.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.faults.arriving(files, &mut late)
    };
    let mut names = Vec::new();
    for (name, bytes) in files {
        if let Err(error) = (double.deliver)(name.clone(), bytes).await {
            return (StatusCode::BAD_GATEWAY, Json(json!({"error": error, "names": names}))).into_response();
        }
        names.push(name);
    }
    Json(json!({"names": names, "lost": lost})).into_response()
}

async fn streams(State(double): State<Double>) -> Response {
    Json(double.streams.shown().await).into_response()
}

async fn declare(State(double): State<Double>, Json(wanted): Json<WantedStream>) -> Response {
    done(double.streams.declare(&double.shared, wanted).await)
}

async fn send(State(double): State<Double>) -> Response {
    Json(double.streams.send(&double.shared).await).into_response()
}

async fn faults(State(double): State<Double>, Json(faults): Json<Faults>) -> Response {
    double.streams.go_wrong(faults).await;
    done(true)
}

async fn expire_tokens(State(double): State<Double>) -> Response {
    double.shared.lock().expire_tokens();
    done(true)
}

/// What the organisation's administrator changes; what is not named stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Doors {
    client_secret: Option<String>,
    refuse_manager: Option<bool>,
    /// The code with which Experience Platform refuses; empty: it does not.
    refuse_platform: Option<String>,
}

async fn doors(State(double): State<Double>, Json(doors): Json<Doors>) -> Response {
    let mut core = double.shared.lock();
    if let Some(secret) = doors.client_secret {
        core.set_secret(&secret);
    }
    if let Some(refuse) = doors.refuse_manager {
        core.refuse_manager(refuse);
    }
    if let Some(code) = doors.refuse_platform {
        core.refuse_platform(Some(code.as_str()).filter(|code| !code.is_empty()));
    }
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
    audience: String,
    ecid: String,
    member: bool,
}

async fn page_member(State(double): State<Double>, Form(change): Form<PageMember>) -> Response {
    let now = double.shared.now_ms();
    let (audience, ecid) = (change.audience.trim(), change.ecid.trim());
    let mut core = double.shared.lock();
    let changed = match audience.parse::<u64>() {
        Ok(sid) => core.set_member_at(now, sid, ecid, change.member),
        Err(_) => {
            let audience = Some(audience.to_owned());
            OfProfile { profile: None, ecid: ecid.to_owned(), audience, member: change.member }.happen(now, &mut core)
        }
    };
    drop(core);
    back(if changed {
        "The audience has changed; the next file and the next message will show it."
    } else {
        "An ECID has 38 digits, and the audience must exist."
    })
}

/// A form's tick boxes: what is not ticked does not come.
#[derive(Deserialize)]
struct PageStream {
    lost: Option<String>,
    late: Option<String>,
    reversed: Option<String>,
    twice: Option<String>,
}

async fn page_stream(State(double): State<Double>, Form(page): Form<PageStream>) -> Response {
    let ticked = |tick: &Option<String>| tick.is_some();
    let faults = Faults {
        lost: ticked(&page.lost),
        late: ticked(&page.late),
        reversed: ticked(&page.reversed),
        twice: ticked(&page.twice),
    };
    double.streams.go_wrong(faults).await;
    let shown = double.streams.send(&double.shared).await;
    let said: Vec<String> = shown.iter().map(|one| format!("Stream {}: {}.", one.destination, one.sent)).collect();
    back(&if said.is_empty() { "No stream is declared.".to_owned() } else { said.join(" ") })
}

async fn page_rename(State(double): State<Double>, Form(mut named): Form<Named>) -> Response {
    let now = double.shared.now_ms();
    named.name = named.name.filter(|name| !name.trim().is_empty());
    back(match (named.happen(now, &mut double.shared.lock()), named.name.is_some()) {
        (true, true) => "The audience has a new name.",
        (true, false) => "The audience is gone.",
        (false, _) => "There is no such audience.",
    })
}

#[derive(Deserialize)]
struct Shown {
    said: Option<String>,
}

async fn show(State(double): State<Double>, Query(shown): Query<Shown>) -> Response {
    let streams = double.streams.shown().await;
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
    for audience in &library.audiences {
        body.push_str(&format!(
            "<tr><td>{}<td>{}<td>Experience Platform<td class=n>{}</tr>",
            escape(&audience.id),
            escape(&audience.name),
            grouped(core.audience_members(&audience.id).len()),
        ));
    }
    drop(core);
    body.push_str(
        "</table><h2>Change an audience</h2><form method=post action=\"/_control/page/member\">\
         <input name=audience required placeholder=\"segment or audience\" aria-label=\"Id of the segment or audience\" \
         size=18>\
         <input name=ecid required pattern=\"[0-9]{38}\" placeholder=\"ECID, 38 digits\" aria-label=\"ECID\" size=40>\
         <button name=member value=true>joins</button><button name=member value=false>leaves</button></form>\
         <p><form method=post action=\"/_control/page/rename\">\
         <input name=audience required placeholder=\"segment or audience\" aria-label=\"Id of the segment or audience\" \
         size=18><input name=name placeholder=\"new name; none: it is deleted\" aria-label=\"New name\" size=28>\
         <button>rename or delete</button></form></p>",
    );
    push_streams(&mut body, &streams);
    page("The world of Adobe", shown.said.as_deref(), &body)
}

/// The streams, if there are any, with a button that sends them.
fn push_streams(body: &mut String, streams: &[ShownStream]) {
    if streams.is_empty() {
        return;
    }
    body.push_str("<h2>Streams</h2>");
    for one in streams {
        let (destination, url) = (escape(&one.destination), escape(&one.url));
        body.push_str(&format!("<p>{destination} to <code>{url}</code>: {}</p>", one.sent));
    }
    body.push_str("<form method=post action=\"/_control/page/stream\"><button>send the stream now</button>");
    for (name, label) in [
        ("lost", "the first is lost"),
        ("late", "one comes late"),
        ("reversed", "out of order"),
        ("twice", "everything twice"),
    ] {
        body.push_str(&format!("<label><input type=checkbox name={name}> {label}</label>"));
    }
    body.push_str("</form>");
}
