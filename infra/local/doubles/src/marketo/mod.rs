//! The core of the Marketo double: one subscription, its REST API and its limits, on the caller's clock.

mod activities;
mod assets;
mod exports;
mod faults;
mod imports;
mod leads;
mod lists;
mod quota;
mod role;
mod routes;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ::world::types::{Lead, List, MarketoData};
use http::{Request, Response};
use serde::{Deserialize, Serialize};

pub use activities::Activity;
pub use exports::Export;
pub use faults::{Commit, Fault, FaultAnswer, Which};
pub use imports::Import;
pub use quota::{OTHER_USER, OUR_USER, QuotaDay};
pub use role::Permission;
pub use routes::Kind;

use crate::wire::Params;
use faults::Injected;
use quota::Day;
use role::Doors;
use routes::{Target, target_of};

/// Rate limit of an instance: calls in a rolling window (Marketo's best practices).
pub const RATE_CALLS: usize = 100;
/// The rolling window, before scaling.
pub const RATE_WINDOW_MS: u64 = 20_000;
/// Calls of an instance that may run at once.
pub const CONCURRENT_CALLS: usize = 10;
/// Daily quota of an instance unless more was bought.
pub const DAILY_QUOTA: u32 = 50_000;
/// Ids, filter values and rows of one call to the lead database.
pub const BATCH: usize = 300;
/// Longest path and query on the lead database; above it, HTTP 414.
pub const URI_BYTES: usize = 8 * 1024;
/// Longest path and query of the asset API.
pub const ASSET_URI_BYTES: usize = 65 * 1024;
/// Longest body; above it, HTTP 413.
pub const BODY_BYTES: usize = 1024 * 1024;
/// Longest body of an import. The documents say "10 MB"; here its smallest reading counts.
pub const IMPORT_BYTES: usize = 10_000_000;
/// Life of an access token. Not scaled.
pub const TOKEN_LIFE_MS: u64 = 3_600_000;
/// How late a call whose outcome is unknown may still land, before scaling.
pub const LATE_EFFECT_MS: u64 = 180_000;

const DAY_MS: u64 = 86_400_000;
/// Leads of the world given at the start are this old.
const LEADS_AGE_MS: u64 = 10 * DAY_MS;
const JSON: &str = "application/json;charset=UTF-8";

/// How the double behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// 1.0 is real time. Scales the rate window, the activities' lag, late effects and the length of an export
    /// and of an import; a token lives 3,600 s whatever the scale.
    pub time_scale: f64,
    /// `false`: no rate limit, no limit of concurrency, no daily quota.
    pub limits: bool,
    /// Calls a day.
    pub daily_quota: u32,
    /// When the quota's day begins. The documents say "midnight Central" and "CST".
    pub quota_day: QuotaDay,
    /// Activities become visible this long after they happened, before scaling.
    pub activity_lag_ms: u64,
    /// Every call takes this long (and counts as in flight meanwhile). Not scaled.
    pub latency_ms: u64,
    /// An export takes this long from its place in the queue to the file, before scaling.
    pub export_ms: u64,
    /// An import takes this long from its start to its end, before scaling.
    pub import_ms: u64,
    /// `false`: every row of a file that has no column but `id` fails. The documents do not say.
    pub id_only_import: bool,
    /// What the making or renaming of a list answers when its name is taken: 709 or 1017.
    pub taken_name_code: u16,
    /// Of the custom service.
    pub client_id: String,
    /// Of the custom service.
    pub client_secret: String,
    /// `false`: the instance has no field `ecids`, and asking for it answers 1006.
    pub ecids_field: bool,
    /// Whether calls are kept for [`Marketo::calls`].
    pub log_calls: bool,
    /// For faults that hit a share of the calls.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            time_scale: 1.0,
            limits: true,
            daily_quota: DAILY_QUOTA,
            quota_day: QuotaDay::default(),
            activity_lag_ms: 5_000,
            latency_ms: 0,
            export_ms: 120_000,
            import_ms: 60_000,
            id_only_import: true,
            taken_name_code: 709,
            client_id: "sample-client".to_owned(),
            client_secret: "sample-secret".to_owned(),
            ecids_field: true,
            log_calls: true,
            seed: 1,
        }
    }
}

/// One call, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// When it arrived.
    pub at_ms: u64,
    /// What it asked for.
    pub kind: Kind,
    /// HTTP status; 0: the connection was dropped.
    pub status: u16,
    /// Marketo's code; 0: success.
    pub code: u16,
    /// Ids or filter values in it.
    pub ids: u32,
    /// Calls in flight, this one included.
    pub in_flight: u32,
    /// An export's status was asked again before 60 s (scaled) had passed, or an import's before 5 s: allowed
    /// here, and against the rules.
    pub early_poll: bool,
    /// A fault struck it: one may hide behind status 200 and code 0.
    pub fault: bool,
}

/// The answer to a call.
#[derive(Debug)]
pub struct Reply {
    /// `None`: the connection is dropped.
    pub response: Option<Response<Vec<u8>>>,
    /// The answer leaves this much later; the call is in flight until then.
    pub latency_ms: u64,
}

/// A lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadState {
    /// `None`: anonymous.
    pub email: Option<String>,
    /// Munchkin tokens. A token belongs to at most one lead.
    pub cookies: Vec<String>,
    /// ECIDs, 38 digits each.
    pub ecids: Vec<String>,
    /// When it came into being.
    pub created_ms: u64,
    /// Last change.
    pub updated_ms: u64,
}

/// A static list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListState {
    /// Several lists may have the same (see [`Marketo::make_list`]); a new one's must be free.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The folder it lies in.
    pub folder: u64,
    /// The workspace it lies in.
    #[serde(default = "default_workspace")]
    pub workspace: String,
    /// When it was made.
    pub created_ms: u64,
    /// Last change of the asset (not of its members).
    pub updated_ms: u64,
    /// Lead ids. Only leads that exist.
    pub members: BTreeSet<u64>,
}

/// Everything that outlives a restart of the double.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    munchkin_id: String,
    org_id: Option<String>,
    hipaa_ready: bool,
    cookie_sync: bool,
    leads: BTreeMap<u64, LeadState>,
    lists: BTreeMap<u64, ListState>,
    activities: Vec<Activity>,
    /// Names of deleted lists: activities still tell them.
    #[serde(default)]
    gone_lists: BTreeMap<u64, String>,
    exports: BTreeMap<u64, Export>,
    #[serde(default)]
    imports: BTreeMap<u64, Import>,
    /// Ids are never given twice.
    next_lead: u64,
    next_list: u64,
    next_export: u64,
    #[serde(default = "first_import")]
    next_import: u64,
    #[serde(default)]
    today: Day,
    /// The days before, the oldest first.
    #[serde(default)]
    past: Vec<Day>,
    exported_bytes: u64,
    now_ms: u64,
}

/// One Marketo subscription.
#[derive(Debug)]
pub struct Marketo {
    settings: Settings,
    state: State,
    by_cookie: HashMap<String, u64>,
    by_email: HashMap<String, BTreeSet<u64>>,
    lists_by_name: HashMap<String, BTreeSet<u64>>,
    /// Positions of the activities that are no changes of membership.
    quiet: Vec<usize>,
    tokens: Vec<String>,
    token_until: u64,
    /// When the quota's day ends.
    day_until: u64,
    /// Times of the calls that passed the rate limit within the window.
    window: VecDeque<u64>,
    /// When the calls now in flight end.
    in_flight: Vec<u64>,
    late: Vec<Late>,
    /// When the next export or import ends.
    jobs_due: u64,
    faults: Vec<Injected>,
    /// Leads that are skipped, and with which code.
    refused: HashMap<u64, u16>,
    /// Tokens that a test has found invalid.
    refused_cookies: BTreeSet<String>,
    doors: Doors,
    random: u64,
    calls: Vec<Call>,
    requests: u64,
}

/// A call whose effect lands later.
#[derive(Debug)]
struct Late {
    due_ms: u64,
    request: Request<Vec<u8>>,
}

/// What an endpoint answers.
struct Answer {
    status: u16,
    code: u16,
    body: Vec<u8>,
    content_type: &'static str,
    /// Ids or filter values of the call.
    ids: usize,
    early_poll: bool,
}

/// Why an endpoint refuses: Marketo's code and message.
struct Refusal(u16, String);

impl Refusal {
    fn new(code: u16, message: impl Into<String>) -> Self {
        Self(code, message.into())
    }

    fn missing(name: &str) -> Self {
        Self(1002, format!("Missing value for required parameter '{name}'"))
    }

    fn no_list(id: u64) -> Self {
        Self(1013, format!("List with id {id} not found"))
    }
}

type Outcome = Result<Answer, Refusal>;

impl Marketo {
    /// A subscription that holds `data`. Leads were created ten days ago. Of two leads with the same cookie the
    /// later one owns it; a list member that is no lead is left out, as Marketo cannot hold one.
    #[must_use]
    pub fn new(settings: Settings, data: MarketoData, now_ms: u64) -> Self {
        let created_ms = now_ms.saturating_sub(LEADS_AGE_MS);
        let mut leads = BTreeMap::new();
        let mut owner: HashMap<String, u64> = HashMap::new();
        for lead in data.leads {
            for cookie in &lead.cookies {
                owner.insert(cookie.clone(), lead.id);
            }
            let Lead { id, email, cookies, ecids } = lead;
            leads.insert(id, LeadState { email, cookies, ecids, created_ms, updated_ms: created_ms });
        }
        for (id, lead) in &mut leads {
            lead.cookies.retain(|cookie| owner.get(cookie) == Some(id));
        }
        let lists = data
            .lists
            .into_iter()
            .map(|list| {
                let state = ListState {
                    name: list.name,
                    description: String::new(),
                    folder: assets::GROUP_LISTS,
                    workspace: default_workspace(),
                    created_ms,
                    updated_ms: created_ms,
                    members: list.members.into_iter().filter(|id| leads.contains_key(id)).collect(),
                };
                (list.id, state)
            })
            .collect::<BTreeMap<_, _>>();
        let state = State {
            munchkin_id: data.munchkin_id,
            org_id: data.org_id,
            hipaa_ready: data.hipaa_ready,
            cookie_sync: data.cookie_sync,
            next_lead: leads.keys().next_back().map_or(100_001, |id| id + 1),
            next_list: lists.keys().next_back().map_or(1_001, |id| id + 1),
            leads,
            lists,
            activities: Vec::new(),
            gone_lists: BTreeMap::new(),
            exports: BTreeMap::new(),
            imports: BTreeMap::new(),
            next_export: 1,
            next_import: first_import(),
            today: Day::default(),
            past: Vec::new(),
            exported_bytes: 0,
            now_ms,
        };
        Self::from_state(settings, state)
    }

    /// A subscription as an earlier run left it (see [`Marketo::state`]). Tokens, calls in flight, the rate
    /// window, late effects and faults are not part of the state.
    #[must_use]
    pub fn from_state(settings: Settings, state: State) -> Self {
        let mut by_cookie = HashMap::new();
        let mut by_email: HashMap<String, BTreeSet<u64>> = HashMap::new();
        for (id, lead) in &state.leads {
            by_cookie.extend(lead.cookies.iter().map(|cookie| (cookie.clone(), *id)));
            if let Some(email) = &lead.email {
                by_email.entry(email.to_lowercase()).or_default().insert(*id);
            }
        }
        let mut lists_by_name: HashMap<String, BTreeSet<u64>> = HashMap::new();
        for (id, list) in &state.lists {
            lists_by_name.entry(list.name.clone()).or_default().insert(*id);
        }
        let activities = state.activities.iter().enumerate();
        let quiet = activities.filter(|(_, activity)| activity.list.is_none()).map(|(at, _)| at).collect();
        let mut marketo = Self {
            quiet,
            jobs_due: u64::MAX,
            random: settings.seed,
            settings,
            state,
            by_cookie,
            by_email,
            lists_by_name,
            tokens: Vec::new(),
            token_until: 0,
            day_until: 0,
            window: VecDeque::new(),
            in_flight: Vec::new(),
            late: Vec::new(),
            faults: Vec::new(),
            refused: HashMap::new(),
            refused_cookies: BTreeSet::new(),
            doors: Doors::default(),
            calls: Vec::new(),
            requests: 0,
        };
        marketo.plan_jobs();
        marketo
    }

    /// What to keep for the next run.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The subscription in the shape of a world's file.
    #[must_use]
    pub fn data(&self) -> MarketoData {
        MarketoData {
            munchkin_id: self.state.munchkin_id.clone(),
            org_id: self.state.org_id.clone(),
            hipaa_ready: self.state.hipaa_ready,
            cookie_sync: self.state.cookie_sync,
            leads: self
                .state
                .leads
                .iter()
                .map(|(id, lead)| Lead {
                    id: *id,
                    email: lead.email.clone(),
                    cookies: lead.cookies.clone(),
                    ecids: lead.ecids.clone(),
                })
                .collect(),
            lists: self.lists_dump(),
        }
    }

    /// The lists as `out/lists.json` shows them.
    #[must_use]
    pub fn lists_dump(&self) -> Vec<List> {
        let lists = self.state.lists.iter();
        lists.map(|(id, list)| List { id: *id, name: list.name.clone(), members: list.members.clone() }).collect()
    }

    /// The instance's Munchkin id.
    #[must_use]
    pub fn munchkin_id(&self) -> &str {
        &self.state.munchkin_id
    }

    /// The lists by id.
    #[must_use]
    pub fn lists(&self) -> &BTreeMap<u64, ListState> {
        &self.state.lists
    }

    /// A list's members; `None`: no such list.
    #[must_use]
    pub fn members(&self, list: u64) -> Option<&BTreeSet<u64>> {
        self.state.lists.get(&list).map(|list| &list.members)
    }

    /// The leads by id.
    #[must_use]
    pub fn leads(&self) -> &BTreeMap<u64, LeadState> {
        &self.state.leads
    }

    /// A lead; `None`: there is none, or no more.
    #[must_use]
    pub fn lead(&self, id: u64) -> Option<&LeadState> {
        self.state.leads.get(&id)
    }

    /// The lead that owns a Munchkin token.
    #[must_use]
    pub fn owner_of(&self, token: &str) -> Option<u64> {
        self.by_cookie.get(token).copied()
    }

    /// Every call so far, unless the log is off.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&mut self) {
        self.calls.clear();
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how long each call takes.
    pub fn set_latency(&mut self, latency_ms: u64) {
        self.settings.latency_ms = latency_ms;
    }

    /// Makes the present access token answer 602 from now on.
    pub fn expire_token(&mut self) {
        self.token_until = 0;
    }

    /// Leaves the present access token this much of its life. Until then everybody is given the same token, with
    /// the seconds that are left, rounded down: in its last second that is 0. Without a token nothing changes.
    pub fn token_edge(&mut self, now_ms: u64, left_ms: u64) {
        let now = self.advance(now_ms);
        if now < self.token_until {
            self.token_until = now + left_ms;
        }
    }

    /// When the next effect of a call with an unknown outcome lands; `None`: nothing is pending.
    #[must_use]
    pub fn next_late_effect_at(&self) -> Option<u64> {
        self.late.iter().map(|late| late.due_ms).min()
    }

    /// Answers one call.
    pub fn handle(&mut self, now_ms: u64, request: &Request<Vec<u8>>) -> Reply {
        let now = self.advance(now_ms);
        self.in_flight.retain(|until| *until > now);
        let in_flight = u32::try_from(self.in_flight.len() + 1).unwrap_or(u32::MAX);
        let (target, found) = match target_of(request) {
            Ok(target) => (target, Ok(())),
            Err((kind, refusal)) => (Target { kind, id: 0, form: false }, Err(refusal)),
        };
        let admitted = self.admit(now, target, request);
        let (mut dropped, mut fault) = (false, false);
        let occupies = admitted.is_ok();
        let answer = match admitted {
            Err(answer) => answer,
            Ok(()) => match self.next_fault(target.kind) {
                None => found.and_then(|()| self.execute(now, target, request)).unwrap_or_else(|no| self.refuse(&no)),
                Some((answer, _)) if answer.alters() => {
                    fault = true;
                    let done = found.and_then(|()| self.execute(now, target, request));
                    let done = done.unwrap_or_else(|no| self.refuse(&no));
                    self.altered(answer, done)
                }
                Some((answer, commit)) => {
                    fault = true;
                    match commit {
                        Commit::Before => {}
                        Commit::After => {
                            // The outcome is what the caller must not learn.
                            drop(found.and_then(|()| self.execute(now, target, request)));
                        }
                        Commit::Late { after_ms } => self.late.push(Late {
                            due_ms: now + self.scaled(after_ms.min(LATE_EFFECT_MS)),
                            request: request.clone(),
                        }),
                    }
                    dropped = answer == FaultAnswer::Drop;
                    self.fault_answer(answer)
                }
            },
        };
        let latency_ms = if occupies { self.settings.latency_ms } else { 0 };
        if latency_ms > 0 && target.kind != Kind::Token {
            self.in_flight.push(now + latency_ms);
        }
        self.count(target.kind, &answer);
        if self.settings.log_calls {
            self.calls.push(Call {
                at_ms: now,
                kind: target.kind,
                status: if dropped { 0 } else { answer.status },
                code: answer.code,
                ids: u32::try_from(answer.ids).unwrap_or(u32::MAX),
                in_flight,
                early_poll: answer.early_poll,
                fault,
            });
        }
        Reply { response: (!dropped).then(|| response(answer)), latency_ms }
    }

    /// Applies what has fallen due. World operations and calls begin with it. Returns the time that counts.
    fn advance(&mut self, now_ms: u64) -> u64 {
        let now = now_ms.max(self.state.now_ms);
        loop {
            let late = self.late.iter().enumerate().min_by_key(|(_, late)| late.due_ms);
            let late = late.map(|(at, late)| (late.due_ms, at)).filter(|(due, _)| *due <= now);
            let job = Some(self.jobs_due).filter(|due| *due <= now);
            match (late, job) {
                (None, None) => break,
                (Some((due, at)), job) if job.is_none_or(|finish| due <= finish) => {
                    let late = self.late.remove(at);
                    self.state.now_ms = self.state.now_ms.max(due);
                    if let Ok(target) = target_of(&late.request) {
                        // Nobody is there to read the answer any more.
                        drop(self.execute(due, target, &late.request));
                    }
                }
                (_, Some(due)) => {
                    self.state.now_ms = self.state.now_ms.max(due);
                    self.finish_jobs(due);
                }
                (Some(_), None) => break,
            }
        }
        self.state.now_ms = now;
        self.begin_day(now);
        now
    }

    /// Notes when the next export or import ends, so that a call need not look at each of them.
    fn plan_jobs(&mut self) {
        let next = [self.next_finished_export(), self.next_finished_import()];
        self.jobs_due = next.into_iter().flatten().map(|(due, _)| due).min().unwrap_or(u64::MAX);
    }

    /// Ends the exports and imports that fall due at this moment.
    fn finish_jobs(&mut self, due: u64) {
        while let Some((_, id)) = self.next_finished_import().filter(|(finish, _)| *finish <= due) {
            self.finish_import(due, id);
        }
        while let Some((_, id)) = self.next_finished_export().filter(|(finish, _)| *finish <= due) {
            self.finish_export(due, id);
        }
        self.plan_jobs();
    }

    /// What stands before every endpoint: size, token, quota, rate, concurrency, address, permission, in this order.
    fn admit(&mut self, now: u64, target: Target, request: &Request<Vec<u8>>) -> Result<(), Answer> {
        let path = request.uri().path();
        let uri = path.len() + request.uri().query().map_or(0, |query| query.len() + 1);
        if uri > if path.starts_with("/rest/asset/") { ASSET_URI_BYTES } else { URI_BYTES } {
            return Err(Answer::plain(414, "Request-URI Too Long"));
        }
        if request.body().len() > if target.kind == Kind::ImportCreate { IMPORT_BYTES } else { BODY_BYTES } {
            return Err(Answer::plain(413, "Request Entity Too Large"));
        }
        if target.kind == Kind::Token {
            return Ok(());
        }
        let token = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // Only in the header: the query parameter has been removed from the API.
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        match token.and_then(|token| self.tokens.iter().rposition(|known| known == token)) {
            None => return Err(self.refuse(&Refusal::new(601, "Access token invalid"))),
            Some(at) if at + 1 < self.tokens.len() || now >= self.token_until => {
                return Err(self.refuse(&Refusal::new(602, "Access token expired")));
            }
            Some(_) => {}
        }
        self.take_place(now).and_then(|()| self.allow(target.kind)).map_err(|no| self.refuse(&no))
    }

    fn execute(&mut self, now: u64, target: Target, request: &Request<Vec<u8>>) -> Outcome {
        let Target { kind, id, form } = target;
        let body = request.body().as_slice();
        let mut params = Params::of_query(request.uri().query());
        if form {
            if kind != Kind::Token || !body.is_empty() {
                content_type(request, "application/x-www-form-urlencoded")?;
            }
            params.extend(body);
        }
        let params = &params;
        match kind {
            Kind::Token => Ok(self.token(now, params)),
            Kind::Leads => self.leads_by_filter(params),
            Kind::Lead => self.lead_by_id(id, params),
            Kind::Describe => Ok(self.describe()),
            Kind::ListsOfLead => self.lists_of_lead(id, params),
            Kind::ListAdd => {
                let input = if params.filled("id").is_none() && !body.is_empty() {
                    content_type(request, "application/json")?;
                    Some(body)
                } else {
                    None
                };
                self.list_add(now, id, params, input)
            }
            Kind::ListRemove => self.list_remove(now, id, params),
            Kind::IsMember => self.is_member(id, params),
            Kind::Members => self.read_members(id, params),
            Kind::Lists => self.query_lists(params),
            Kind::List => self.list_by_id(id),
            Kind::AssetCreate => self.asset_create(now, params),
            Kind::AssetBrowse => self.asset_browse(params),
            Kind::AssetByName => self.asset_by_name(params),
            Kind::AssetGet => Ok(self.asset_get(id)),
            Kind::AssetUpdate => self.asset_update(now, id, params),
            Kind::AssetDelete => Ok(self.asset_delete(id)),
            Kind::Folders => self.folders(params),
            Kind::FolderByName => self.folder_by_name(params),
            Kind::Folder => Ok(self.folder(id)),
            Kind::PagingToken => self.paging_token(params),
            Kind::Activities => self.read_activities(now, params),
            Kind::DeletedLeads => self.deleted_leads(now, params),
            Kind::Usage => Ok(self.usage()),
            Kind::UsageWeek => Ok(self.usage_of_week(now)),
            Kind::Errors => Ok(self.errors()),
            Kind::ErrorsWeek => Ok(self.errors_of_week(now)),
            Kind::ExportCreate => {
                content_type(request, "application/json")?;
                self.export_create(now, body)
            }
            Kind::ExportEnqueue => self.export_enqueue(now, id),
            Kind::ExportStatus => self.export_status(now, id),
            Kind::ExportFile => {
                let range = request.headers().get(http::header::RANGE).and_then(|value| value.to_str().ok());
                self.export_file(now, id, range)
            }
            Kind::ExportCancel => self.export_cancel(now, id),
            Kind::ImportCreate => self.import_create(now, params, request),
            Kind::ImportStatus => self.import_status(now, id),
            Kind::ImportFailures => self.import_failures(id),
            Kind::ImportWarnings => self.import_warnings(id),
            Kind::Unknown => Err(Refusal::new(610, "Requested resource not found")),
        }
    }

    /// One token for everybody, with what is left of its life.
    fn token(&mut self, now: u64, params: &Params<'_>) -> Answer {
        if params.get("grant_type") != Some("client_credentials") {
            let body = r#"{"error":"unsupported_grant_type","error_description":"Unsupported grant type"}"#;
            return Answer { status: 400, ..Answer::json(body.to_owned()) };
        }
        if params.get("client_id") != Some(&self.settings.client_id)
            || params.get("client_secret") != Some(&self.settings.client_secret)
        {
            let body = r#"{"error":"invalid_client","error_description":"Bad client credentials"}"#;
            return Answer { status: 401, ..Answer::json(body.to_owned()) };
        }
        if now >= self.token_until {
            let number = self.tokens.len() + 1;
            self.tokens.push(format!("00000000-1111-2222-3333-{number:012x}:int"));
            self.token_until = now + TOKEN_LIFE_MS;
        }
        let token = self.tokens.last().map_or("", String::as_str);
        let left = (self.token_until - now) / 1_000;
        Answer::json(format!(
            r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{left},"scope":"{OUR_USER}"}}"#
        ))
    }

    fn scaled(&self, ms: u64) -> u64 {
        if (self.settings.time_scale - 1.0).abs() < f64::EPSILON {
            return ms;
        }
        // Milliseconds of at most hours: far inside what an f64 holds exactly.
        (ms as f64 * self.settings.time_scale) as u64
    }

    fn request_id(&mut self) -> String {
        self.requests += 1;
        format!("{:x}#{:012x}", self.requests % 0x1_0000, self.requests)
    }

    /// `success:true` with the given members, which may be empty.
    fn success(&mut self, members: &str) -> Answer {
        let request = self.request_id();
        let comma = if members.is_empty() { "" } else { "," };
        Answer::json(format!(r#"{{"requestId":"{request}","success":true{comma}{members}}}"#))
    }

    fn refuse(&mut self, Refusal(code, message): &Refusal) -> Answer {
        let mut text = String::new();
        crate::wire::push_json(&mut text, message);
        let request = self.request_id();
        let body =
            format!(r#"{{"requestId":"{request}","success":false,"errors":[{{"code":"{code}","message":{text}}}]}}"#);
        Answer { code: *code, ..Answer::json(body) }
    }
}

impl Answer {
    fn json(body: String) -> Self {
        Self { status: 200, code: 0, body: body.into_bytes(), content_type: JSON, ids: 0, early_poll: false }
    }

    fn plain(status: u16, text: &str) -> Self {
        Self { status, content_type: "text/plain", ..Self::json(text.to_owned()) }
    }

    fn with_ids(self, ids: usize) -> Self {
        Self { ids, ..self }
    }
}

fn response(answer: Answer) -> Response<Vec<u8>> {
    let mut response = Response::new(answer.body);
    // Every status used here is between 100 and 999.
    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or_default();
    let value = http::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    response
}

fn default_workspace() -> String {
    "Default".to_owned()
}

fn first_import() -> u64 {
    7_001
}

fn content_type(request: &Request<Vec<u8>>, wanted: &str) -> Result<(), Refusal> {
    let given = request.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if given.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Refusal::new(612, "The content type specified is not supported"))
}

/// A token for the next page. Its characters must be percent-encoded in a query, as Marketo's must.
fn page_token(family: char, position: usize) -> String {
    format!("{family}GIYDA+{position:X}/==")
}

fn position_of(family: char, token: &str) -> Result<usize, Refusal> {
    token
        .strip_prefix(family)
        .and_then(|rest| rest.strip_prefix("GIYDA+"))
        .and_then(|rest| rest.strip_suffix("/=="))
        .and_then(|rest| usize::from_str_radix(rest, 16).ok())
        .ok_or_else(|| Refusal::new(1003, "Invalid value for parameter 'nextPageToken'"))
}

/// The page's size: `name` if given, at most `most`.
fn page_size(params: &Params<'_>, name: &str, default: usize, most: usize) -> Result<usize, Refusal> {
    match params.filled(name) {
        None => Ok(default),
        Some(text) => match text.parse::<usize>() {
            Ok(size) if size > 0 => Ok(size.min(most)),
            _ => Err(Refusal(1003, format!("Invalid value for parameter '{name}'"))),
        },
    }
}
