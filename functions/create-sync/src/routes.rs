//! Which route a request is for.

use domain::MunchkinId;
use domain::said::Said;
use futures::future::BoxFuture;
use lambda::HttpEvent;
use marketo::Marketo;
use serde_json::{Value, json};
use state::budget::Purpose;
use state::syncs::{Subscription, subscriptions};
use state::{Cause, Deps, Doc, load, syncs};

use crate::access::{Caller, Needs, Role, SignIn};
use crate::problem::{Answer, Problem};
use crate::{
    access, alerts, audit, compare, console, control, create, download, explain, export, feeds, library, lists, orders,
    people, preview, runs, setup, view,
};

/// A request, as the HTTP API hands it on.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST`, `PUT`.
    pub method: String,
    /// The path, from its slash on.
    pub path: String,
    /// Query parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// Who calls; `None`: nobody has said so, and only public routes answer.
    pub caller: Option<Caller>,
    /// Where the console signs people in; `None`: nobody signs in.
    pub sign_in: Option<SignIn>,
}

impl Request {
    /// What an event of the HTTP API asks. `access`: how the deployment's API knows who calls.
    #[must_use]
    pub fn of(event: HttpEvent, access: Option<&lambda::Access>) -> Self {
        let caller = Caller::of(access, event.claims.as_ref(), event.header("authorization"));
        let query = form_urlencoded::parse(event.query.as_bytes()).into_owned().collect();
        let HttpEvent { method, path, headers, body, .. } = event;
        Self { method, path, query, headers, body, caller, sign_in: SignIn::of(access) }
    }

    /// Who calls. A route that needs somebody is not reached without.
    pub(crate) fn caller(&self) -> Caller {
        self.caller.clone().unwrap_or_else(|| Caller { name: "nobody".to_owned(), role: Role::Nobody })
    }

    /// The first query parameter with this name.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first header with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as a JSON object. An absent body is an empty one, save where it would replace all that stands there.
    pub(crate) fn json(&self) -> Answer<Value> {
        if self.body.is_empty() {
            let nothing = "expected a body: a JSON object, of which `{}` is the shortest";
            let nothing = Problem::at(400, "", Said::new("body_missing", nothing));
            return if self.method == "PUT" { Err(nothing) } else { Ok(json!({})) };
        }
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(value) if value.is_object() => Ok(value),
            Ok(_) => Err(Problem::at(400, "", Said::new("body_not_object", "the body must be a JSON object"))),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let detail = format!("the body is not JSON: see line {line}, column {column}");
                Err(Problem::at(400, "", Said::new("body_not_json", detail).with("line", line).with("column", column)))
            }
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Further headers; names in lower case.
    pub headers: Vec<(&'static str, String)>,
}

impl Response {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { status, content_type: "application/json", body, headers: Vec::new() }
    }
}

/// Largest body of a request, in bytes. Ours: the largest that makes sense is a few hundred.
pub const BODY_BYTES: usize = 64 * 1024;
/// Largest body of `POST /import`, in bytes. Ours: a sync in an export has some hundreds.
const IMPORT_BYTES: usize = 1024 * 1024;

/// Every route: method, path (`*` for one segment), and what it asks of its caller.
pub const ROUTES: [(&str, &str, Needs); 48] = [
    ("GET", "/", Needs::Nothing),
    ("GET", "/status", Needs::Viewer),
    ("GET", "/imports", Needs::Viewer),
    ("POST", "/imports/decide", Needs::Operator),
    ("GET", "/subscription", Needs::Viewer),
    ("PUT", "/subscription", Needs::Operator),
    ("POST", "/subscription/hint-secrets", Needs::Operator),
    ("POST", "/people/erase", Needs::Operator),
    ("GET", "/people/erase/*", Needs::Viewer),
    ("GET", "/feeds", Needs::Viewer),
    ("PUT", "/feeds/*", Needs::Operator),
    ("GET", "/folders", Needs::Viewer),
    ("GET", "/folders/*/audiences", Needs::Viewer),
    ("GET", "/lists", Needs::Viewer),
    ("GET", "/list-folders", Needs::Viewer),
    ("GET", "/syncs", Needs::Viewer),
    ("POST", "/syncs", Needs::Operator),
    ("GET", "/syncs/*", Needs::Viewer),
    ("GET", "/syncs/*/report", Needs::Viewer),
    ("POST", "/syncs/*/pause", Needs::Operator),
    ("POST", "/syncs/*/resume", Needs::Operator),
    ("POST", "/syncs/*/stop", Needs::Operator),
    ("POST", "/syncs/*/run", Needs::Operator),
    ("POST", "/syncs/*/guard", Needs::Operator),
    ("POST", "/syncs/*/held", Needs::Operator),
    ("POST", "/syncs/*/put-back", Needs::Operator),
    ("POST", "/syncs/*/verify", Needs::Operator),
    ("POST", "/syncs/*/not-delivered", Needs::Operator),
    // Writes nothing but its own job, and spends at most twenty calls.
    ("POST", "/syncs/preview", Needs::Viewer),
    ("GET", "/previews/*", Needs::Viewer),
    ("GET", "/syncs/*/rejects", Needs::Viewer),
    ("GET", "/syncs/*/runs", Needs::Viewer),
    ("GET", "/syncs/*/history", Needs::Viewer),
    // A viewer may: it changes nothing, it answers with Marketo ids alone, and it is what somebody is asked who looks after
    // a list. Whoever knows an email and an ECID knows more than the answer says.
    ("POST", "/explain", Needs::Viewer),
    // May cost a call for every 300 members of another list.
    ("POST", "/syncs/*/compare", Needs::Operator),
    ("GET", "/comparisons/*", Needs::Viewer),
    // What the list in Marketo shows as well.
    ("POST", "/syncs/*/download", Needs::Viewer),
    ("GET", "/downloads/*", Needs::Viewer),
    ("GET", "/setup", Needs::Viewer),
    ("GET", "/audit", Needs::Viewer),
    ("GET", "/alerts", Needs::Viewer),
    ("PUT", "/alerts", Needs::Operator),
    ("GET", "/export", Needs::Viewer),
    ("POST", "/import", Needs::Operator),
    ("GET", "/console/config", Needs::Nothing),
    ("GET", "/console/*", Needs::Nothing),
    ("GET", "/me", Needs::Viewer),
    ("GET", "/openapi.json", Needs::Nothing),
];

/// Answers one request. `deadline` (ms): calls to Marketo wait for their turn no longer.
///
/// Boxed here, as what the other functions begin with: an `async fn` would be compiled anew with each crate that awaits it.
pub fn handle(deps: &Deps, request: Request, deadline: u64) -> BoxFuture<'_, Response> {
    Box::pin(handled(deps, request, deadline))
}

async fn handled(deps: &Deps, request: Request, deadline: u64) -> Response {
    // What follows from a request is done by hand, whoever does it in the end.
    let mut deps = deps.because(audit::deed(&request).map(|_| Cause::ByHand));
    if request.caller().role < Role::Operator {
        deps = deps.for_viewer();
    }
    let deps = &deps;
    match answer(deps, &request, deadline).await {
        Ok(response) => {
            audit::note(deps, &request, &response).await;
            response
        }
        Err(problem) => problem.response(),
    }
}

async fn answer(deps: &Deps, request: &Request, deadline: u64) -> Answer<Response> {
    let path = request.path.trim_end_matches('/');
    let most = if request.method == "POST" && path == "/import" { IMPORT_BYTES } else { BODY_BYTES };
    if request.body.len() > most {
        let bytes = request.body.len();
        let detail = format!("the body has {bytes} bytes; at most {most} are taken");
        return Err(Problem::new(413, Said::new("body_too_large", detail).with("bytes", bytes).with("most", most)));
    }
    // Browsers say so of themselves: another site's page must not stop a sync with its visitor's rights.
    if request.method != "GET" && request.header("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(Problem::new(403, Said::new("other_site", "a page of another site may not change anything here")));
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let Some(needs) = access::needs(&request.method, &parts) else { return Err(no_route(&parts)) };
    access::check(request, needs)?;
    let ok = |value: Value| Response::json(200, &value);
    // The writer of the list will read it.
    let noted = |value: Value| Response::json(202, &value);
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", []) => console::file(request, console::INDEX),
        ("GET", ["status"]) => view::status(deps, maybe(deps, request).await?.as_ref()).await.map(ok),
        ("GET", ["imports"]) => view::imports(deps, &chosen(deps, request).await?.munchkin_id, request).await,
        ("POST", ["imports", "decide"]) => {
            feeds::decide(deps, &chosen(deps, request).await?.munchkin_id, request).await.map(noted)
        }
        ("GET", ["subscription"]) => Ok(ok(json!(chosen(deps, request).await?))),
        ("PUT", ["subscription"]) => control::put_subscription(deps, request).await,
        ("POST", ["subscription", "hint-secrets"]) => {
            let made = people::new_hint_secret(deps, &chosen(deps, request).await?.munchkin_id).await?;
            Ok(Response::json(201, &made))
        }
        ("POST", ["people", "erase"]) => {
            let munchkin = chosen(deps, request).await?.munchkin_id;
            people::erase(deps, &munchkin, request, deadline).await.map(noted)
        }
        ("GET", ["people", "erase", id]) => {
            people::erasure(deps, &chosen(deps, request).await?.munchkin_id, id).await.map(ok)
        }
        ("GET", ["feeds"]) => feeds::feeds(deps, &chosen(deps, request).await?.munchkin_id, request).await,
        ("PUT", ["feeds", id]) => {
            feeds::put(deps, &chosen(deps, request).await?.munchkin_id, id, request).await.map(ok)
        }
        ("GET", ["folders"]) => {
            // Audience Manager has one library, whatever the subscription.
            let subscription = if adobe::is_used(deps) { maybe(deps, request).await? } else { None };
            library::folders(deps, subscription.as_ref()).await.map(ok)
        }
        ("GET", ["folders", id, "audiences"]) => {
            library::audiences(deps, &chosen(deps, request).await?, id, request).await
        }
        ("GET", ["lists"]) => {
            let subscription = chosen(deps, request).await?;
            create::door(&subscription)?;
            let search = request.param("search").unwrap_or_default();
            lists::search(deps, &subscription.munchkin_id, search, deadline).await.map(ok)
        }
        ("GET", ["list-folders"]) => {
            let subscription = chosen(deps, request).await?;
            create::door(&subscription)?;
            let marketo = Marketo::new(deps, &subscription.munchkin_id, deadline, Purpose::Control);
            view::list_folders(&marketo).await.map(ok)
        }
        ("GET", ["syncs"]) => view::syncs(deps, &chosen(deps, request).await?.munchkin_id, request).await,
        ("POST", ["syncs"]) => create::post(deps, &chosen(deps, request).await?, request, deadline).await,
        ("GET", ["syncs", id]) => view::sync(deps, &find(deps, id).await?).await.map(ok),
        ("GET", ["syncs", id, "report"]) => view::report(deps, &find(deps, id).await?).await.map(ok),
        ("POST", ["syncs", id, "pause"]) => control::pause(deps, find(deps, id).await?).await.map(ok),
        ("POST", ["syncs", id, "resume"]) => control::resume(deps, find(deps, id).await?, deadline).await.map(ok),
        ("POST", ["syncs", id, "stop"]) => control::stop(deps, find(deps, id).await?, request).await.map(ok),
        ("POST", ["syncs", id, "run"]) => control::run(deps, find(deps, id).await?).await.map(ok),
        ("POST", ["syncs", id, "guard"]) => orders::guard(deps, find(deps, id).await?, request).await.map(ok),
        ("POST", ["syncs", id, "held"]) => orders::held(deps, find(deps, id).await?, request).await.map(noted),
        ("POST", ["syncs", id, "put-back"]) => orders::put_back(deps, find(deps, id).await?, request).await.map(noted),
        ("POST", ["syncs", id, "verify"]) => orders::verify(deps, find(deps, id).await?).await.map(noted),
        ("POST", ["syncs", id, "not-delivered"]) => {
            orders::not_delivered(deps, find(deps, id).await?, request).await.map(noted)
        }
        ("POST", ["syncs", "preview"]) => preview::post(deps, &chosen(deps, request).await?, request, deadline).await,
        ("GET", ["previews", id]) => preview::get(deps, &chosen(deps, request).await?, id, deadline).await.map(ok),
        ("GET", ["syncs", id, "rejects"]) => runs::rejects(deps, &find(deps, id).await?, request).await,
        ("GET", ["syncs", id, "runs"]) => runs::runs(deps, &find(deps, id).await?, request).await,
        ("GET", ["syncs", id, "history"]) => runs::history(deps, &find(deps, id).await?, request).await,
        ("POST", ["explain"]) => explain::explain(deps, &chosen(deps, request).await?, request, deadline).await.map(ok),
        ("POST", ["syncs", id, "compare"]) => compare::post(deps, &find(deps, id).await?, request, deadline).await,
        ("GET", ["comparisons", id]) => compare::get(deps, &chosen(deps, request).await?, id).await.map(ok),
        ("POST", ["syncs", id, "download"]) => download::post(deps, &find(deps, id).await?).await,
        ("GET", ["downloads", id]) => download::get(deps, &chosen(deps, request).await?, id).await.map(ok),
        ("GET", ["setup"]) => setup::check(deps, maybe(deps, request).await?.as_ref(), request, deadline).await.map(ok),
        ("GET", ["audit"]) => audit::audit(deps, request).await,
        ("GET", ["alerts"]) => alerts::get(deps, &chosen(deps, request).await?.munchkin_id).await.map(ok),
        ("PUT", ["alerts"]) => alerts::put(deps, &chosen(deps, request).await?.munchkin_id, request).await.map(ok),
        ("GET", ["export"]) => export::export(deps, &chosen(deps, request).await?).await.map(ok),
        ("POST", ["import"]) => export::import(deps, request, deadline).await.map(ok),
        ("GET", ["console", "config"]) => Ok(access::config(request)),
        ("GET", ["console", file]) => console::file(request, file),
        ("GET", ["me"]) => Ok(ok(access::me(request))),
        ("GET", ["openapi.json"]) => Ok(console::contract()),
        _ => Err(no_route(&parts)),
    }
}

/// Whether a path fits a pattern of [`ROUTES`].
pub(crate) fn fits(pattern: &str, parts: &[&str]) -> bool {
    let pattern: Vec<&str> = pattern.trim_end_matches('/').split('/').skip(1).collect();
    pattern.len() == parts.len() && pattern.iter().zip(parts).all(|(want, have)| *want == "*" || want == have)
}

/// 405 where the path exists with another method, else 404.
fn no_route(parts: &[&str]) -> Problem {
    let methods: Vec<&str> =
        ROUTES.iter().filter(|(_, pattern, _)| fits(pattern, parts)).map(|(method, ..)| *method).collect();
    if methods.is_empty() {
        return Problem::new(404, Said::new("route_unknown", "there is no such route"));
    }
    let methods = methods.join(", ");
    let said = Said::new("method_not_allowed", format!("this path takes {methods}")).with("methods", methods.clone());
    Problem::new(405, said).header("allow", methods)
}

/// The subscription that a request is about: the only one, or the one it names.
async fn chosen(deps: &Deps, request: &Request) -> Answer<Subscription> {
    let detail = "no Marketo subscription is set up yet: PUT /subscription makes one";
    maybe(deps, request).await?.ok_or_else(|| Problem::new(404, Said::new("subscription_missing", detail)))
}

/// Like [`chosen`]; `None`: there is none yet.
pub(crate) async fn maybe(deps: &Deps, request: &Request) -> Answer<Option<Subscription>> {
    let mut all = subscriptions(deps).await?;
    if let Some(wanted) = request.param("munchkin_id") {
        let known = known(&all);
        return match all.into_iter().find(|one| one.munchkin_id.as_str() == wanted) {
            Some(one) => Ok(Some(one)),
            None => {
                let detail = format!("no subscription has this munchkin_id; known: {known}");
                Err(Problem::new(404, Said::new("subscription_unknown", detail).with("known", known)))
            }
        };
    }
    if all.len() > 1 {
        let known = known(&all);
        let detail = format!("there are several subscriptions: say which with ?munchkin_id=, one of {known}");
        return Err(Problem::new(400, Said::new("subscription_not_named", detail).with("known", known))
            .with("munchkin_ids", all.iter().map(|one| json!(one.munchkin_id)).collect()));
    }
    Ok(all.pop())
}

fn known(all: &[Subscription]) -> String {
    let known: Vec<&str> = all.iter().map(|one| one.munchkin_id.as_str()).collect();
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// A sync by its id, whatever its subscription: ids are 64 random bits.
async fn find(deps: &Deps, id: &str) -> Answer<syncs::Sync> {
    for subscription in subscriptions(deps).await? {
        if let Some(found) = load_sync(deps, &subscription.munchkin_id, id).await? {
            return Ok(found.value);
        }
    }
    Err(Problem::new(404, Said::new("sync_unknown", "there is no sync with this id; GET /syncs lists them")))
}

pub(crate) async fn load_sync(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Answer<Option<Doc<syncs::Sync>>> {
    Ok(load(deps, ports::Table::Syncs, &syncs::sync_key(munchkin, id)).await?)
}
