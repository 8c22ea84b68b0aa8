//! Real processes, killed with SIGKILL at random moments: the functions, and the whole stack, which starts again on the
//! same folder. Then the lists hold exactly whom the reference model says.
//!
//! Marketo's and Adobe's doubles live in the test: they forget nothing because we die. `SEED` is the first run's seed,
//! `KILLS` how many runs there are (`.ci/long` asks for 100).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use world::types::Event;
use world::{World, reference, sample};

use crate::run::{Data, bin_dir, children, program};
use crate::vendors::Vendors;

/// Runs where nothing else is asked for.
const RUNS: u64 = 10;
/// Runs beside each other. They wait most of the time: what a dead function held comes again after its queue's
/// visibility time-out, which is 36 s on this clock.
const AT_ONCE: usize = 10;
/// ECIDs, matches and leads of a run's world.
const SIZE: (usize, usize, usize) = (600, 300, 128);
/// Longest pause before a kill.
const PAUSE_MS: u64 = 2_500;
/// A run that has not settled by then never does.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long the killer waits for a process of the function that it is to kill.
const VICTIM_PATIENCE: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);

/// Functions that have most to lose.
const BUSY: [&str; 2] = ["scheduled-incremental-sync", "list-writer"];
/// Those that answer the API and browsers. In these worlds nobody streams.
const OTHERS: [&str; 2] = ["create-sync", "cookie-ingest"];

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// Every process of this function.
    Function(&'static str),
    /// The stack. Its functions find nobody any more who answers them.
    Stack,
    /// The stack and every process that it has started, as when a machine dies.
    Everything,
}

/// Who is killed in a step of the story, each after a pause.
fn plan(rng: &mut StdRng, with_stack: bool) -> Vec<(Duration, Victim)> {
    let pause = |rng: &mut StdRng| Duration::from_millis(rng.random_range(0..PAUSE_MS));
    let mut victims: Vec<Victim> = (0..rng.random_range(1..=3))
        .map(|n| {
            let from: &[&'static str] = if n == 0 || rng.random_ratio(2, 3) { &BUSY } else { &OTHERS };
            Victim::Function(from.choose(rng).expect("a function"))
        })
        .collect();
    if with_stack || rng.random_ratio(1, 4) {
        let stack = if rng.random() { Victim::Stack } else { Victim::Everything };
        victims.insert(rng.random_range(0..=victims.len()), stack);
    }
    victims.into_iter().map(|victim| (pause(rng), victim)).collect()
}

/// A running stack. Dropping it kills it and every process that it has started.
struct Process {
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start(asked: &Value, errors: std::fs::File) -> (Self, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_killable-stack"));
        command.arg(asked.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let mut child = tokio::process::Command::from(command).spawn().expect("the stack starts");
        let (asks, answers) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut process = Self { child, asks, answers: BufReader::new(answers).lines() };
        let said = process.line().await.expect("where the stack answers");
        (process, said)
    }

    async fn line(&mut self) -> Option<Value> {
        let line = self.answers.next_line().await.ok().flatten()?;
        serde_json::from_str(&line).ok()
    }

    /// `None`: it is dead.
    async fn ask(&mut self, order: &str) -> Option<Value> {
        self.asks.write_all(format!("{order}\n").as_bytes()).await.ok()?;
        self.line().await
    }

    fn id(&self) -> u32 {
        self.child.id().expect("a process that nobody has waited for")
    }

    /// Kills the process, or its whole group.
    async fn kill(&mut self, group: bool) {
        let id = self.id();
        sigkill(&if group { format!("-{id}") } else { id.to_string() });
        self.child.wait().await.expect("its end");
    }
}

/// Whether there was such a process, or with `-` such a group.
fn sigkill(id: &str) -> bool {
    let status = Command::new("kill").args(["-KILL", "--", id]).stderr(Stdio::null()).status();
    status.expect("kill").success()
}

/// One run.
struct Run {
    seed: u64,
    data: Data,
    world: World,
    vendors: Vendors,
    /// What the stack is started with.
    asked: Value,
    client: reqwest::Client,
    /// Where the stack answers; another place after each start.
    place: Mutex<Value>,
    stack: tokio::sync::Mutex<Process>,
    /// Process groups of the stacks that were killed: their functions may have outlived them.
    groups: Mutex<Vec<u32>>,
    killed: Mutex<BTreeMap<String, usize>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let groups = self.groups.get_mut().unwrap_or_else(PoisonError::into_inner);
        groups.extend(self.stack.get_mut().child.id());
        for group in groups {
            // Most of them have ended by themselves.
            sigkill(&format!("-{group}"));
        }
    }
}

impl Run {
    async fn begin(seed: u64) -> Self {
        let (ecids, matches, leads) = SIZE;
        let world = sample::sized(seed, ecids, matches, leads).world;
        let (data, vendors) = (Data::new(), Vendors::of(&world).await);
        let asked = json!({
            "data": data.path().join(".state/stack"),
            "bin": bin_dir(),
            "parameters": vendors.parameters,
        });
        data.put("stdout", "");
        let (stack, place) = Process::start(&asked, errors(&data)).await;
        let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().expect("client");
        Self {
            seed,
            data,
            world,
            vendors,
            asked,
            client,
            place: Mutex::new(place),
            stack: tokio::sync::Mutex::new(stack),
            groups: Mutex::default(),
            killed: Mutex::default(),
        }
    }

    fn place(&self, name: &str) -> String {
        self.place.lock().expect("place")[name].as_str().expect("an address").to_owned()
    }

    /// One request, again and again until it is answered by somebody who lives: each of them may come twice. The
    /// address is of the stack's `place`.
    async fn call(&self, method: reqwest::Method, place: &str, path: &str, body: Vec<u8>, key: &str) -> (u16, Value) {
        let end = Instant::now() + PATIENCE;
        loop {
            let url = format!("{}{path}", self.place(place));
            let request = self.client.request(method.clone(), url).body(body.clone());
            if let Ok(answer) = request.header("idempotency-key", key).send().await {
                let status = answer.status().as_u16();
                if status < 500
                    && status != 429
                    && let Ok(bytes) = answer.bytes().await
                {
                    return (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null));
                }
            }
            assert!(Instant::now() < end, "{path} is not answered");
            sleep(LOOK_EVERY).await;
        }
    }

    /// A request to the API that must succeed.
    async fn send(&self, method: reqwest::Method, path: &str, body: &Value, key: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.call(method.clone(), "api", path, body.to_string().into_bytes(), key).await;
            assert!(status < 300, "{path}: {status} {answer}");
            // 202: a list is being made; the same request asks again.
            if path != "/syncs" || status != 202 {
                return answer;
            }
            assert!(Instant::now() < end, "{path} is still being made");
            sleep(LOOK_EVERY).await;
        }
    }

    async fn matches(&self, matches: &[&world::types::Match]) {
        let m = &self.world.marketo;
        let item = |one: &&world::types::Match| {
            json!({"org_id": m.org_id, "ecid": one.ecid, "munchkin_id": m.munchkin_id, "token": one.token,
                "seen_at": one.seen_at})
        };
        // As small as pages send them, so that a death finds some of them under way.
        for part in matches.chunks(25) {
            self.send(reqwest::Method::POST, "/matches", &part.iter().map(item).collect(), "").await;
        }
    }

    /// What happens before the first file is there.
    async fn declare(&self) {
        let m = &self.world.marketo;
        let subscription = json!({"munchkin_id": m.munchkin_id, "org_id": m.org_id, "hipaa_ready": m.hipaa_ready,
            "cookie_sync": m.cookie_sync, "extract_since": self.vendors.extract_since()});
        self.send(reqwest::Method::PUT, "/subscription", &subscription, "").await;
        let feed = json!({"snapshots": true, "completeness": "single-file"});
        self.send(reqwest::Method::PUT, "/feeds/default", &feed, "").await;
        self.matches(&self.world.matches.iter().collect::<Vec<_>>()).await;
        for (n, sync) in self.world.syncs.iter().enumerate() {
            self.send(reqwest::Method::POST, "/syncs", sync, &n.to_string()).await;
        }
    }

    async fn deliver(&self, n: usize) {
        let file = &self.world.files[n];
        let path = format!("/incoming/{}", file.name);
        let (status, _) = self.call(reqwest::Method::PUT, "bucket", &path, file.bytes.to_vec(), "").await;
        assert_eq!(status, 200);
    }

    /// What happens in the world after the n-th file.
    async fn happen_after(&self, n: usize) {
        let mut matches = Vec::new();
        for later in self.world.later.iter().filter(|later| later.after_file == n) {
            if let Event::Match(one) = &later.event {
                matches.push(one);
            } else {
                self.vendors.marketo.lock().apply(self.vendors.marketo.now_ms(), &later.event);
            }
        }
        self.matches(&matches).await;
    }

    /// Kills whom the plan says.
    async fn kill(&self, plan: Vec<(Duration, Victim)>) {
        for (pause, victim) in plan {
            // What a process has come to by then is what is tested.
            sleep(pause).await;
            match victim {
                Victim::Function(name) => {
                    let parent = self.stack.lock().await.id();
                    let end = Instant::now() + VICTIM_PATIENCE;
                    let mut found = children(parent, name);
                    while found.is_empty() && Instant::now() < end {
                        sleep(LOOK_EVERY).await;
                        found = children(parent, name);
                    }
                    let count = found.into_iter().filter(|id| sigkill(&id.to_string())).count();
                    self.killed(name, count);
                }
                Victim::Stack | Victim::Everything => {
                    let mut stack = self.stack.lock().await;
                    self.groups.lock().expect("groups").push(stack.id());
                    stack.kill(victim == Victim::Everything).await;
                    let (fresh, place) = Process::start(&self.asked, errors(&self.data)).await;
                    *stack = fresh;
                    *self.place.lock().expect("place") = place;
                    self.killed(if victim == Victim::Stack { "stack" } else { "everything" }, 1);
                }
            }
        }
    }

    fn killed(&self, name: &str, count: usize) {
        *self.killed.lock().expect("killed").entry(name.to_owned()).or_default() += count;
    }

    /// Waits until nothing is left to do: two looks in a row find nothing, with every schedule fired in between.
    async fn settle(&self, step: &str) {
        let (end, mut calm) = (Instant::now() + PATIENCE, false);
        loop {
            let waits_for = self.look().await;
            if waits_for.is_empty() {
                if calm {
                    return;
                }
                calm = true;
                self.stack.lock().await.ask("tick").await.expect("a tick");
                continue;
            }
            calm = false;
            assert!(Instant::now() < end, "{step} does not settle: {}", waits_for.join(", "));
            sleep(LOOK_EVERY).await;
        }
    }

    /// What is not done, in words.
    async fn look(&self) -> Vec<String> {
        let found = self.stack.lock().await.ask("look").await.expect("a look");
        assert_eq!(found["dead"], json!([]), "dead letters");
        let mut waits_for = Vec::new();
        for name in ["messages", "running"] {
            if found[name] != 0 {
                waits_for.push(format!("{} {name}", found[name]));
            }
        }
        if !waits_for.is_empty() {
            return waits_for;
        }
        let (status, now) = self.call(reqwest::Method::GET, "api", "/status", vec![], "").await;
        assert_eq!(status, 200, "{now}");
        let of_api = now["waits_for"].as_array().expect("a list").iter().filter_map(Value::as_str);
        waits_for.extend(of_api.map(str::to_owned));
        if now["stuck"].as_u64().is_some_and(|stuck| stuck > 0) {
            waits_for.push("stuck keys".to_owned());
        }
        let mut marketo = self.vendors.marketo.lock();
        marketo.tick(self.vendors.marketo.now_ms());
        let polled = now["activities_polled_at"].as_u64().unwrap_or(0);
        let last = marketo.last_visible_activity_at();
        if marketo.next_visible_activity_at().is_some() || last.is_some_and(|last| polled <= last) {
            waits_for.push("activities to be read".to_owned());
        }
        waits_for.extend(marketo.next_late_effect_at().map(|_| "a late effect".to_owned()));
        waits_for
    }

    /// Plays the story with its deaths.
    async fn play(&self) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let steps = 2 * self.world.files.len();
        let with_stack = rng.random_range(0..steps);
        for step in 0..steps {
            let (file, plan) = (step / 2, plan(&mut rng, step == with_stack));
            let act = async {
                if step == 0 {
                    self.declare().await;
                }
                if step % 2 == 0 {
                    self.deliver(file).await;
                } else {
                    self.happen_after(file + 1).await;
                }
            };
            tokio::join!(act, self.kill(plan));
            let name = format!("step {step}");
            self.settle(&name).await;
            let found = self.vendors.marketo.lock().lists_dump();
            let found = found.into_iter().map(|list| (list.id, list.members)).collect();
            // Between a file and what happens after it, the model knows of the end of both alone.
            if step % 2 == 1 {
                let expected = reference::lists(&self.world, file + 1);
                assert_eq!(differences(&found, &expected, &winners(&self.world, file + 1)), "", "{name}");
            }
        }
        self.data.assert_logs_tell_nothing();
    }
}

/// Standard error of a stack, in the data folder.
fn errors(data: &Data) -> std::fs::File {
    let path = data.path().join("stderr");
    std::fs::OpenOptions::new().create(true).append(true).open(path).expect("stderr")
}

/// Winners of the merges up to the n-th file, in the lists in which they were to be at some time. If one is asked about between
/// the merge and its news, they are in the list by the loser's place and look like somebody who was there before us: they stay
/// (`infra/docs/decisions/08-merges-nobody-can-know.md`).
fn winners(world: &World, n: usize) -> BTreeSet<(u64, u64)> {
    let merges = world.later.iter().filter(|later| later.after_file <= n).filter_map(|later| match &later.event {
        Event::Merge { winner, .. } => Some(*winner),
        _ => None,
    });
    let merges: BTreeSet<u64> = merges.collect();
    let lists = (1..=n).flat_map(|n| reference::lists(world, n));
    lists
        .flat_map(|(list, people)| people.into_iter().map(move |lead| (list, lead)))
        .filter(|(_, lead)| merges.contains(lead))
        .collect()
}

/// Who is missing and who is too much in each list; empty: nobody. Some may stay.
fn differences(
    found: &BTreeMap<u64, BTreeSet<u64>>,
    expected: &BTreeMap<u64, BTreeSet<u64>>,
    may_stay: &BTreeSet<(u64, u64)>,
) -> String {
    let mut text = String::new();
    let none = BTreeSet::new();
    for list in found.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
        let (found, expected) = (found.get(list).unwrap_or(&none), expected.get(list).unwrap_or(&none));
        let missing: Vec<_> = expected.difference(found).collect();
        let more: Vec<_> = found.difference(expected).filter(|lead| !may_stay.contains(&(*list, **lead))).collect();
        if !missing.is_empty() || !more.is_empty() {
            write!(text, "list {list}: missing {missing:?}, too much {more:?}; ").expect("text");
        }
    }
    text
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The folder of a run that failed.
type Failed = (u64, PathBuf, String);

async fn one(seed: u64) -> Result<String, Failed> {
    let (began, mut run) = (Instant::now(), Arc::new(Run::begin(seed).await));
    let playing = Arc::clone(&run);
    let ended = tokio::spawn(async move { playing.play().await }).await;
    let killed = run.killed.lock().expect("killed").clone();
    let line = format!("seed {seed}: {} s, killed {killed:?}", began.elapsed().as_secs());
    if let Err(error) = ended {
        let run = Arc::get_mut(&mut run).expect("nobody plays any more");
        let folder = std::mem::replace(&mut run.data, Data::new()).keep();
        let why = error.into_panic();
        let why = why.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned());
        return Err((seed, folder, format!("{line}: {why}")));
    }
    let stacks = killed.get("stack").or(killed.get("everything")).copied().unwrap_or(0);
    let functions: usize = BUSY.iter().chain(&OTHERS).filter_map(|name| killed.get(*name)).sum();
    assert!(stacks > 0 && functions > 0, "{line}");
    Ok(line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_at_any_moment_the_lists_end_right() {
    // It takes the functions away that somebody has built before, so it comes first.
    program();
    stack::build_functions(&mut |_| {}).expect("the functions");
    let first = number("SEED", 1);
    let mut seeds: VecDeque<u64> = (first..first + number("KILLS", RUNS)).collect();
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    while !seeds.is_empty() || !running.is_empty() {
        while running.len() < AT_ONCE
            && let Some(seed) = seeds.pop_front()
        {
            running.spawn(one(seed));
        }
        match running.join_next().await.expect("a run").expect("a run") {
            Ok(line) => eprintln!("{line}"),
            Err((seed, folder, line)) => {
                eprintln!("{line}");
                failed.push(format!("SEED={seed} KILLS=1 (its folder is {})", folder.display()));
            }
        }
    }
    assert!(failed.is_empty(), "run again with {}", failed.join(", "));
}
