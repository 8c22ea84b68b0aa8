//! A run: reads or makes the world, starts everything, and plays the world's story.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::extract::Request;
use axum::middleware::Next;
use doubles::adobe::{self, Adobe, Change, Delivery};
use doubles::marketo::{self, Marketo};
use doubles::{Deliver, Now, Shared};
use futures::StreamExt as _;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use stack::{Exchanges, Options, Port};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use world::World;
use world::feed::FeedFile;
use world::sample::{self, Sample, Size};
use world::types::{Event, Later, Match};

use crate::api::{Answer, Api};
use crate::args::Args;
use crate::deployment::Deployment;
use crate::feeds;
use crate::reports::Report;
use crate::screen::{Screen, grouped, time_left};
use crate::state::{Progress, StateDir};

/// The page's and the API's port unless another was asked for.
const DEFAULT_PORT: u16 = 8787;
/// Factor on every time-out, rate and window: the local world runs twenty times as fast.
const TIME_SCALE: f64 = 0.05;
/// Client id and secret of both doubles. They guard nothing.
const CLIENT_ID: &str = "sample-client";
const CLIENT_SECRET: &str = "sample-secret";
/// Sandbox of Experience Platform, where the world has any of it.
const SANDBOX: &str = "prod";
/// What `--no-limits` gives for calls a day. The calls in 20 s stay Marketo's 100: on this clock that is 100 a second.
const UNLIMITED_PER_DAY: &str = "100000000";
/// Matches of one request (the API's limit), and requests at a time.
const MATCHES_AT_ONCE: usize = 500;
const MATCH_REQUESTS: usize = 4;
/// Leads of the doubles were created ten days before the start; the extract begins some days earlier.
const EXTRACT_BACK_MS: u64 = 14 * DAY_MS;
const DAY_MS: u64 = 86_400_000;
/// How often the doubles' worlds are written down while somebody plays with them.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// How long making a sync may take.
const CREATE_PATIENCE: Duration = Duration::from_secs(120);

const PROGRESS: &str = "progress.json";
const MARKETO: &str = "marketo.json";
const ADOBE: &str = "adobe.json";
const STATS: &str = "stats.json";

/// What the user gave is wrong: a flag, a folder, a file in it.
#[derive(Debug)]
pub(crate) struct Faulty(pub(crate) String);

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Faulty {}

/// Everything that is ready before the first server starts.
pub(crate) struct Prepared {
    args: Args,
    world: World,
    /// The sample's audiences at the second delivery and at the first; absent for a data folder.
    deliveries: Option<(sample::Members, sample::Members)>,
    state: StateDir,
    /// Nothing of an earlier run is there.
    fresh: bool,
    progress: Progress,
    bin_dir: PathBuf,
    now: Now,
}

impl Prepared {
    /// Reads or makes the world, takes the state folder, and builds the functions.
    pub(crate) async fn new(args: Args, screen: &Screen) -> anyhow::Result<Self> {
        screen.say("audience-sync: the local world. Its clock runs twenty times as fast as the real one.");
        if let Some(port) = args.port.filter(|port| *port != 0) {
            let free = TcpListener::bind(("127.0.0.1", port)).await.is_ok();
            ensure!(free, "port {port} is not free: choose another with --port, or leave the flag out");
        }
        let now = doubles::system_clock();
        let given = match &args.data {
            Some(dir) => {
                screen.step("Reading the world from the data folder");
                Some(world::folder::read(dir).map_err(|errors| Faulty(errors.to_string()))?)
            }
            None => None,
        };
        let state_dir = match (&args.data, args.once) {
            (Some(dir), _) => dir.join(".state"),
            // Apart, so that --once does not take the world away in which somebody has played.
            (None, true) => root().join(".local/once"),
            (None, false) => root().join(".local/sample"),
        };
        // State without a progress file is of a run that --once or a kill left behind: nothing to go on from.
        let fresh = args.fresh || args.once || !state_dir.join(PROGRESS).exists();
        let state = StateDir::take(&state_dir, fresh)?;
        let mut progress: Progress = state.read(PROGRESS)?.unwrap_or_default();
        let seed = args.data.is_none().then_some(args.seed);
        if progress.v == 0 {
            progress = Progress { v: 1, world_time_ms: now() / DAY_MS * DAY_MS, seed, ..Progress::default() };
        } else {
            ensure!(
                progress.seed == seed,
                "the state in {} belongs to another sample world: add --fresh",
                state.path().display()
            );
            screen.step("Going on from where the last run stopped (--fresh begins anew)");
        }
        let (world, deliveries) = match given {
            Some(world) => (world, None),
            None => {
                screen.step(&format!("Making the sample world (seed {})", args.seed));
                let Sample { world, first, second } = sample::generate(args.seed, Size::SAMPLE, progress.world_time_ms);
                (world, Some((first, second)))
            }
        };
        let m = &world.marketo;
        screen.say(&format!(
            "        {} audiences, {} known and {} anonymous people, {} matches, {} syncs, {} files to come",
            world.library.segments.len(),
            grouped(m.leads.iter().filter(|lead| lead.email.is_some()).count() as u64),
            grouped(m.leads.iter().filter(|lead| lead.email.is_none()).count() as u64),
            grouped(world.matches.len() as u64),
            world.syncs.len(),
            world.files.len(),
        ));
        let bin_dir = build(screen).await?;
        Ok(Self { args, world, deliveries, state, fresh, progress, bin_dir, now })
    }
}

/// Builds the functions, with cargo's own progress on the screen.
async fn build(screen: &Screen) -> anyhow::Result<PathBuf> {
    screen.step("Building the functions (the first time this takes some minutes)");
    let (lines_in, mut lines) = tokio::sync::mpsc::unbounded_channel::<String>();
    let building = tokio::task::spawn_blocking(move || {
        stack::build_functions(&mut |line| {
            // Nobody listens any more: the run was stopped.
            lines_in.send(line.to_owned()).ok();
        })
    });
    let (began, mut crates, mut last) = (Instant::now(), 0, Vec::new());
    while let Some(line) = lines.recv().await {
        let line = line.trim().to_owned();
        if let Some(name) = line.strip_prefix("Compiling ") {
            crates += 1;
            let name = name.split_whitespace().next().unwrap_or_default();
            screen.progress(&format!("{crates} crates compiled, now {name}, {} s so far", began.elapsed().as_secs()));
        } else if line.starts_with("Blocking") {
            screen.progress("another cargo is at work; waiting for it");
        }
        last.push(line);
    }
    building.await?.with_context(|| {
        let errors = last.iter().filter(|line| line.starts_with("error"));
        errors.cloned().collect::<Vec<_>>().join("; ")
    })
}

/// The workspace's folder.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Writes down the addresses that the functions ask a vendor for; those of the controls are the user's.
fn noted(router: axum::Router, urls: &Exchanges) -> axum::Router {
    let urls = urls.clone();
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        if !request.uri().path().starts_with("/_control/") {
            urls.url(request.uri());
        }
        next.run(request)
    }))
}

/// A running world.
pub(crate) struct Local<'a> {
    pub(crate) screen: &'a Screen,
    pub(crate) stack: Arc<Deployment>,
    pub(crate) marketo: Arc<Shared<Marketo>>,
    pub(crate) api: Api,
    pub(crate) now: Now,
    pub(crate) state_dir: PathBuf,
    adobe: Arc<Shared<Adobe>>,
    args: Args,
    world: World,
    deliveries: Option<(sample::Members, sample::Members)>,
    state: Arc<StateDir>,
    progress: Progress,
    marketo_page: String,
    adobe_page: String,
    /// The control API of Adobe's double.
    adobe_control: Api,
    /// When everything was running.
    began: Instant,
    /// The doubles' servers and the saver; aborted when dropped.
    tasks: JoinSet<()>,
}

impl<'a> Local<'a> {
    /// Starts the doubles and the stack.
    pub(crate) async fn start(prepared: Prepared, screen: &'a Screen) -> anyhow::Result<Self> {
        let Prepared { args, world, deliveries, state, fresh, progress, bin_dir, now } = prepared;
        screen.step(if args.stack.is_some() {
            "Starting Marketo's and Adobe's doubles, and having the stack deployed"
        } else {
            "Starting Marketo's and Adobe's doubles and the stack (DynamoDB, SQS, S3, the functions)"
        });
        let settings = marketo::Settings {
            time_scale: TIME_SCALE,
            limits: !args.no_limits,
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            ..marketo::Settings::default()
        };
        let marketo = match state.read(MARKETO)? {
            Some(kept) => Marketo::from_state(settings, kept),
            None => Marketo::new(settings, world.marketo.clone(), now()),
        };
        let settings = adobe::Settings {
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            org_id: world.marketo.org_id.clone(),
            sandbox: SANDBOX.to_owned(),
            ..adobe::Settings::default()
        };
        let adobe = match state.read(ADOBE)? {
            Some(kept) => Adobe::from_state(settings, kept),
            None => Adobe::new(settings, world.library.clone(), now()),
        };
        let (marketo, adobe) = (Shared::new(marketo, now.clone()), Shared::new(adobe, now.clone()));

        let first = match args.port {
            Some(0) => 0,
            Some(port) => port,
            None => DEFAULT_PORT,
        };
        let marketo_listener = near(first, 1).await?;
        let adobe_listener = near(first, 2).await?;
        let marketo_url = format!("http://{}", marketo_listener.local_addr()?);
        let adobe_url = format!("http://{}", adobe_listener.local_addr()?);
        let stack_cell: Arc<OnceLock<Weak<Deployment>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let urls = Exchanges::open()?;
        tasks.spawn(doubles::serve(marketo_listener, noted(doubles::marketo_router(marketo.clone()), &urls)));
        let deliver = deliverer(Arc::clone(&stack_cell));
        tasks.spawn(doubles::serve(adobe_listener, noted(doubles::adobe_router(adobe.clone(), deliver), &urls)));

        let aep = !(world.library.audiences.is_empty() && world.library.platform_folders.is_empty());
        let (share, per_day) = if args.no_limits { ("1", UNLIMITED_PER_DAY) } else { ("0.5", "50000") };
        let parameters = [
            ("TimeScale", TIME_SCALE.to_string()),
            // The ports are bound to the loopback address.
            ("Auth", "none".to_owned()),
            ("MarketoBaseUrl", marketo_url.clone()),
            ("MarketoClientId", CLIENT_ID.to_owned()),
            ("MarketoClientSecret", CLIENT_SECRET.to_owned()),
            ("AdobeImsUrl", adobe_url.clone()),
            ("AdobeAamUrl", adobe_url.clone()),
            ("AdobeAepUrl", adobe_url.clone()),
            ("AdobeAepFoldersUrl", adobe_url.clone()),
            ("AdobeAepSandbox", if aep { SANDBOX.to_owned() } else { String::new() }),
            ("StreamSecrets", feeds::secrets(&world, CLIENT_ID, CLIENT_SECRET)),
            ("AdobeClientId", CLIENT_ID.to_owned()),
            ("AdobeClientSecret", CLIENT_SECRET.to_owned()),
            ("QuotaShare", share.to_owned()),
            // A played world has dates of its own: its matches do not grow old with the machine's clock.
            ("MatchLifetimeDays", "36500".to_owned()),
            ("QuotaCallsPerDay", per_day.to_owned()),
        ];
        let options = Options {
            template: root().join("infra/template.yaml"),
            data_dir: state.path().join("stack"),
            bin_dir,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
            port: args.port.map_or(Port::Preferred(DEFAULT_PORT), Port::Exact),
            // They are in the log files.
            log: Arc::new(|_| {}),
        };
        let stack = Arc::new(Deployment::start(options, args.stack.as_deref(), fresh).await?);
        stack_cell.set(Arc::downgrade(&stack)).ok();
        if args.port.is_none() && args.stack.is_none() && !stack.url().ends_with(&format!(":{DEFAULT_PORT}")) {
            screen.say(&format!("        port {DEFAULT_PORT} is busy, so this run answers at {}", stack.url()));
        }
        let state = Arc::new(state);
        let began = Instant::now();
        if !args.once {
            tasks.spawn(save_often(Arc::clone(&state), Arc::clone(&marketo), Arc::clone(&adobe)));
        }
        Ok(Self {
            screen,
            api: Api::new(stack.url())?.with_token(stack.token()),
            stack,
            marketo,
            now,
            state_dir: state.path().to_owned(),
            adobe,
            args,
            world,
            deliveries,
            state,
            progress,
            marketo_page: format!("{marketo_url}/_control/"),
            adobe_page: format!("{adobe_url}/_control/"),
            adobe_control: Api::new(&adobe_url)?,
            began,
            tasks,
        })
    }

    /// Plays the world's story from where it stands to its end.
    pub(crate) async fn play(&mut self) -> anyhow::Result<()> {
        self.declare().await?;
        self.declare_streams().await?;
        self.send_matches().await?;
        self.create_syncs().await?;
        if self.world.files.is_empty() {
            self.screen.step("Reading what Marketo itself knows");
            self.settle().await?;
        }
        // In the sample, what comes after the first file is left to the visitor.
        let files = if self.visitor() { 1 } else { self.world.files.len() };
        for index in 0..files.min(self.world.files.len()) {
            self.deliver_file(index).await?;
            if !self.visitor() {
                self.happen_after(index + 1).await?;
            }
        }
        if self.args.once {
            self.finish().await?;
        }
        Ok(())
    }

    /// Somebody is to press the buttons.
    fn visitor(&self) -> bool {
        !self.args.once && self.args.data.is_none()
    }

    /// Tells Adobe's double where to stream to.
    async fn declare_streams(&self) -> anyhow::Result<()> {
        for stream in feeds::streams(&self.world, self.stack.url()) {
            let answer = self.adobe_control.send(Method::POST, "/_control/streams", &stream).await?;
            ensure!(answer.status < 300, "Adobe's double cannot stream to {}", stream["url"]);
        }
        Ok(())
    }

    /// Declares the subscription and its feeds.
    async fn declare(&mut self) -> anyhow::Result<()> {
        if self.progress.declared {
            return Ok(());
        }
        self.screen.step("Declaring the Marketo subscription and Adobe's feeds");
        let m = &self.world.marketo;
        let since = (self.now)().saturating_sub(EXTRACT_BACK_MS);
        let since = Timestamp::from_millisecond(i64::try_from(since)?)?;
        let subscription = json!({
            "munchkin_id": m.munchkin_id,
            "org_id": m.org_id,
            "hipaa_ready": m.hipaa_ready,
            "cookie_sync": m.cookie_sync,
            "extract_since": since.to_string(),
        });
        let answer = self.api.send(Method::PUT, "/subscription", &subscription).await?;
        ensure!(answer.status < 300, "the subscription is refused: {}", answer.reason());
        for (id, feed) in feeds::declared(&self.world) {
            let answer = self.api.send(Method::PUT, &format!("/feeds/{id}"), &feed).await?;
            ensure!(answer.status < 300, "the feed {id} is refused: {}", answer.reason());
        }
        // What is so at the start, no stream tells.
        for destination in feeds::destinations(&self.world) {
            self.adobe.lock().skip(&destination);
        }
        self.progress.declared = true;
        self.save()
    }

    /// Hands in what browsers have shown.
    async fn send_matches(&mut self) -> anyhow::Result<()> {
        let matches = self.world.matches.get(self.progress.matches..).unwrap_or_default().to_vec();
        if !matches.is_empty() {
            self.screen.step(&format!("Handing in {} matches of ECID and token", grouped(matches.len() as u64)));
            self.post_matches(&matches).await?;
            self.progress.matches = self.world.matches.len();
            self.save()?;
        }
        Ok(())
    }

    /// Hands in matches, and says which were refused.
    async fn post_matches(&self, matches: &[Match]) -> anyhow::Result<()> {
        let m = &self.world.marketo;
        let bodies: Vec<Value> = matches
            .chunks(MATCHES_AT_ONCE)
            .map(|part| {
                let items = part.iter().map(|one| {
                    json!({"org_id": m.org_id, "ecid": one.ecid, "munchkin_id": m.munchkin_id, "token": one.token,
                        "seen_at": one.seen_at})
                });
                items.collect()
            })
            .collect();
        let (began, all, mut done) = (Instant::now(), matches.len(), 0);
        let mut refused: BTreeMap<String, u64> = BTreeMap::new();
        let mut answers = futures::stream::iter(bodies)
            .map(|body| async move { self.api.send(Method::POST, "/matches", &body).await })
            .buffer_unordered(MATCH_REQUESTS);
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            ensure!(answer.status == 200, "POST /matches answers {}: {}", answer.status, answer.reason());
            for result in answer.body["results"].as_array().into_iter().flatten() {
                done += 1;
                if result["status"] == "refused" {
                    let text = |field: &str| result[field].as_str().unwrap_or_default();
                    *refused.entry(format!("{}: {}", text("field"), text("reason"))).or_default() += 1;
                }
            }
            let left = time_left(began.elapsed(), done, all);
            self.screen.progress(&format!("{} of {}{left}", grouped(done as u64), grouped(all as u64)));
        }
        for (reason, count) in refused {
            self.screen.say(&format!("        {} refused ({reason})", grouped(count)));
        }
        Ok(())
    }

    /// Creates the syncs. One that is refused is shown with its reason.
    async fn create_syncs(&mut self) -> anyhow::Result<()> {
        let done = self.progress.syncs.len();
        if done < self.world.syncs.len() {
            self.screen.step(&format!("Creating {} syncs", self.world.syncs.len() - done));
        }
        for index in done..self.world.syncs.len() {
            let answer = self.create_sync(index).await?;
            let id = (answer.status < 300).then(|| answer.body["id"].as_str().map(str::to_owned)).flatten();
            if id.is_none() {
                self.screen.say(&format!("        sync {} is refused: {}", index + 1, answer.reason()));
            }
            self.progress.syncs.push(id);
            self.save()?;
        }
        Ok(())
    }

    async fn create_sync(&self, index: usize) -> anyhow::Result<Answer> {
        let key = index.to_string();
        let end = Instant::now() + CREATE_PATIENCE;
        loop {
            let headers = [("idempotency-key", key.as_str())];
            let answer = self.api.call(Method::POST, "/syncs", &headers, Some(&self.world.syncs[index])).await?;
            // 202: its list is being made; the same request asks again.
            if answer.status != 202 {
                return Ok(answer);
            }
            ensure!(Instant::now() < end, "sync {} is still being made after {CREATE_PATIENCE:?}", index + 1);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Delivers a file and waits until the lists follow.
    async fn deliver_file(&mut self, index: usize) -> anyhow::Result<()> {
        let file = &self.world.files[index];
        if self.progress.files.contains(&file.name) {
            return Ok(());
        }
        self.screen.step(&format!("Delivering file {} of {}: {}", index + 1, self.world.files.len(), file.name));
        self.stack.put_object(&format!("incoming/{}", file.name), file.bytes.clone()).await?;
        if !self.args.once {
            let mut adobe = self.adobe.lock();
            mirror(&mut adobe, &self.world.files[..index], file, (self.now)());
            feeds::destinations(&self.world).iter().for_each(|destination| adobe.skip(destination));
            drop(adobe);
            if let Some((first, second)) = &self.deliveries {
                self.adobe.lock().plan(Delivery::Changes(changes(first, second)));
            }
        }
        let name = file.name.clone();
        // The files of one delivery come together: only the last of them can be waited for.
        if !self.more_to_come(index) {
            self.settle_step().await?;
        }
        self.progress.files.push(name);
        self.save()
    }

    /// Whether the next file belongs to the same delivery as this one, and nothing happens in between.
    fn more_to_come(&self, index: usize) -> bool {
        let (file, next) = (&self.world.files[index], self.world.files.get(index + 1));
        let together = next
            .is_some_and(|next| next.time_ms.is_some() && (next.time_ms, next.feed()) == (file.time_ms, file.feed()));
        together && !self.visitor() && self.world.later.iter().all(|later| later.after_file != index + 1)
    }

    /// What happens in the world after the n-th file.
    async fn happen_after(&mut self, n: usize) -> anyhow::Result<()> {
        if self.progress.later >= n {
            return Ok(());
        }
        let events: Vec<Later> = self.world.later.iter().filter(|later| later.after_file == n).cloned().collect();
        if !events.is_empty() {
            let what = format!("{} events in the world: people become known, merge, go, are seen", events.len());
            self.screen.step(&what);
            let (mut matches, mut streamed) = (Vec::new(), false);
            for Later { event, .. } in events {
                match event {
                    Event::Match(one) => matches.push(one),
                    Event::Stream(said) => {
                        streamed = true;
                        let now = (self.now)();
                        if !feeds::happen(&mut self.adobe.lock(), now, &said) {
                            self.screen.say("        a stream names an audience that is not there");
                        }
                    }
                    event => {
                        let now = (self.now)();
                        if !self.marketo.lock().apply(now, &event) {
                            self.screen.say("        an event names people who are not there any more");
                        }
                    }
                }
            }
            self.post_matches(&matches).await?;
            if streamed {
                self.send_streams().await?;
            }
            self.settle_step().await?;
        }
        self.progress.later = n;
        self.save()
    }

    /// Adobe's double sends what its streams have to tell.
    async fn send_streams(&self) -> anyhow::Result<()> {
        let answer = self.adobe_control.send(Method::POST, "/_control/streams/send", &json!({})).await?;
        for stream in answer.body.as_array().into_iter().flatten() {
            let lost = stream["lost"].as_u64().unwrap_or(0);
            ensure!(lost == 0, "{lost} message(s) of the stream {} were not taken", stream["destination"]);
        }
        Ok(())
    }

    /// Waits until a step of the story has settled. Who of an adopted list is tied to an ECID is looked at by each
    /// run of its sync, in the open once a day: here a step is a day.
    async fn settle_step(&mut self) -> anyhow::Result<()> {
        self.settle().await?;
        if self.world.syncs.iter().any(|sync| sync["members_before"] == "adopt") {
            self.run_syncs().await?;
            self.settle().await?;
        }
        Ok(())
    }

    async fn run_syncs(&mut self) -> anyhow::Result<()> {
        for id in self.progress.syncs.iter().flatten() {
            let answer = self.api.send(Method::POST, &format!("/syncs/{id}/run"), &json!({})).await?;
            if answer.status >= 300 {
                self.screen.say(&format!("        a sync cannot be run: {}", answer.reason()));
            }
        }
        Ok(())
    }

    /// Works everything out once more, and shows and writes what came of it.
    async fn finish(&mut self) -> anyhow::Result<()> {
        self.screen.step("Working out the reports");
        self.run_syncs().await?;
        self.settle().await?;
        let syncs: Vec<String> = self.progress.syncs.iter().flatten().cloned().collect();
        let lists = self.marketo.lock().lists_dump();
        let mut reports = Vec::new();
        for id in &syncs {
            let sync = self.api.get(&format!("/syncs/{id}")).await?;
            let answer = self.api.get(&format!("/syncs/{id}/report")).await?;
            if answer.status != 200 {
                self.screen.say(&format!("        no report: {}", answer.reason()));
                continue;
            }
            let list = lists.iter().find(|list| Some(list.id) == answer.body["list_id"].as_u64());
            let members = list.map_or(0, |list| list.members.len() as u64);
            let report = Report::read(&answer.body, members).context("a report has another shape than expected")?;
            let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let list_name = list.map_or_else(|| name(&sync.body["list"]["name"]), |list| list.name.clone());
            self.screen.say(&format!("\n{}", report.table(&name(&sync.body["audience_name"]), &list_name).trim_end()));
            reports.push(report);
        }
        let status = self.api.get("/status").await?;
        for held in status.body["held"].as_array().into_iter().flatten() {
            self.screen.say(&format!(
                "\nHELD: list {} waits for an operator: {}",
                held["list_id"],
                held["why"].as_str().unwrap_or_default()
            ));
        }
        self.screen.say("");
        let reports = lines(&reports)?;
        if let Some(dir) = &self.args.data {
            let out = dir.join("out");
            std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
            std::fs::write(out.join("lists.json"), lines(&lists)?).context("cannot write out/lists.json")?;
            std::fs::write(out.join("reports.json"), &reports).context("cannot write out/reports.json")?;
            self.screen.step(&format!("Settled. The lists and the reports are in {}", out.display()));
        } else {
            self.screen.step("Settled");
        }
        self.state.write(STATS, &self.stats())?;
        if self.args.json {
            std::io::stdout().write_all(reports.as_bytes()).context("cannot print the reports")?;
        }
        Ok(())
    }

    /// What the run took, for the bench: `{"seconds": s, "marketo_calls": {"<kind>": n}}`.
    fn stats(&self) -> Value {
        let mut calls: BTreeMap<String, u64> = BTreeMap::new();
        for call in self.marketo.lock().calls() {
            let kind = json!(call.kind).as_str().unwrap_or_default().to_owned();
            *calls.entry(kind).or_default() += 1;
        }
        json!({"seconds": self.began.elapsed().as_secs_f64(), "marketo_calls": calls})
    }

    /// Says where to go on by hand. The last line is the address to open.
    pub(crate) fn invite(&self) {
        self.screen.step("Settled; the syncs follow from here on. Ctrl-C stops; the state is kept.");
        let hint = if self.visitor() { " (\"this person fills a form\")" } else { "" };
        self.screen.say(&format!("        Marketo's world: {}{hint}", self.marketo_page));
        let hint = if self.visitor() { " (\"deliver the next file\")" } else { "" };
        self.screen.say(&format!("        Adobe's world:   {}{hint}", self.adobe_page));
        self.screen.say(&format!("Open {}/", self.stack.url()));
    }

    /// Writes down the doubles' worlds first, then how far the run has come.
    fn save(&self) -> anyhow::Result<()> {
        if !self.args.once {
            save_doubles(&self.state, &self.marketo, &self.adobe)?;
            self.state.write(PROGRESS, &self.progress)?;
        }
        Ok(())
    }

    /// Stops everything; the state is kept.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.save()?;
        // Before the stack: a delivery by button holds it for a moment.
        let (state, marketo, adobe, once) = (self.state, self.marketo, self.adobe, self.args.once);
        if let Some(stack) = Arc::into_inner(self.stack) {
            stack.shutdown().await?;
        }
        self.tasks.shutdown().await;
        // What the functions did in their last moments.
        if !once {
            save_doubles(&state, &marketo, &adobe)?;
        }
        Ok(())
    }
}

fn save_doubles(state: &StateDir, marketo: &Shared<Marketo>, adobe: &Shared<Adobe>) -> anyhow::Result<()> {
    let kept = marketo.lock().state().clone();
    state.write(MARKETO, &kept)?;
    let kept = adobe.lock().state().clone();
    state.write(ADOBE, &kept)
}

async fn save_often(state: Arc<StateDir>, marketo: Arc<Shared<Marketo>>, adobe: Arc<Shared<Adobe>>) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        let (state, marketo, adobe) = (Arc::clone(&state), Arc::clone(&marketo), Arc::clone(&adobe));
        // A full disk shows itself when the run stops.
        tokio::task::spawn_blocking(move || save_doubles(&state, &marketo, &adobe)).await.ok();
    }
}

/// Puts what Adobe's page delivers into the bucket.
fn deliverer(stack: Arc<OnceLock<Weak<Deployment>>>) -> Deliver {
    Arc::new(move |name, bytes| {
        let stack = stack.get().and_then(Weak::upgrade);
        Box::pin(async move {
            let stack = stack.ok_or("the stack is not running")?;
            stack.put_object(&format!("incoming/{name}"), bytes).await.map_err(|error| format!("{error:#}"))
        })
    })
}

/// Adobe's own world becomes what a file of the world says, so that the next file of its own goes on from there.
/// `before`: the files that came before it.
fn mirror(adobe: &mut Adobe, before: &[FeedFile], file: &FeedFile, now_ms: u64) {
    let Some(facts) = file.facts() else { return };
    if facts.snapshot {
        for (sid, ecids) in before.iter().filter_map(FeedFile::facts).flat_map(|before| before.joined) {
            if let Some(now) = facts.joined.get(&sid) {
                ecids.difference(now).for_each(|ecid| _ = adobe.set_member(sid, ecid, false));
            }
        }
    }
    for (sides, member) in [(&facts.joined, true), (&facts.left, false)] {
        for (sid, ecids) in sides {
            ecids.iter().for_each(|ecid| _ = adobe.set_member(*sid, ecid, member));
        }
    }
    // It has been delivered: the next file's changes count from here.
    drop(adobe.full_file(now_ms));
}

/// What must change to come from one state of the audiences to another.
fn changes(from: &sample::Members, to: &sample::Members) -> Vec<Change> {
    let sids: BTreeSet<u64> = from.keys().chain(to.keys()).copied().collect();
    let none = BTreeSet::new();
    let mut changes = Vec::new();
    for sid in sids {
        let (from, to) = (from.get(&sid).unwrap_or(&none), to.get(&sid).unwrap_or(&none));
        let change = |ecid: &String, member| Change { sid, ecid: ecid.clone(), member };
        changes.extend(to.difference(from).map(|ecid| change(ecid, true)));
        changes.extend(from.difference(to).map(|ecid| change(ecid, false)));
    }
    changes
}

/// A JSON array with a line for each item.
fn lines<T: serde::Serialize>(items: &[T]) -> anyhow::Result<String> {
    let items: Vec<String> = items.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    if items.is_empty() {
        return Ok("[]\n".to_owned());
    }
    Ok(format!("[\n  {}\n]\n", items.join(",\n  ")))
}

/// A loopback port `steps` above the first, or any.
async fn near(first: u16, steps: u16) -> anyhow::Result<TcpListener> {
    if let Some(port) = first.checked_add(steps).filter(|_| first != 0)
        && let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await
    {
        return Ok(listener);
    }
    match TcpListener::bind(("127.0.0.1", 0)).await {
        Ok(listener) => Ok(listener),
        Err(error) => bail!("no loopback port is free: {error}"),
    }
}
