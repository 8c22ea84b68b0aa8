//! Runs the `local` program and looks at what it does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use repo::canaries::personal;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The functions, which are also their binaries' names.
pub const FUNCTIONS: [&str; 5] =
    ["create-sync", "cookie-ingest", "audience-ingest", "scheduled-incremental-sync", "list-writer"];
/// Longest wait for anything: a first build of the functions on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The variable with the address of a program that deploys another stack than the embedded one; `tests/emulator/run` sets
/// it, and runs some of these tests there.
const DEPLOYER: &str = "E2E_DEPLOYER";
/// The variable with the token that the API there wants to be shown.
const TOKEN: &str = "E2E_TOKEN";

/// The folder of the binaries.
pub fn bin_dir() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    let folder = program.parent().expect("its folder");
    if folder.ends_with("deps") { folder.parent().expect("the target folder").to_owned() } else { folder.to_owned() }
}

/// The program, built once by cargo with this test's profile and target folder, as `cargo test --workspace` has built it beside a
/// test of its own: by itself it would take all of its dependencies anew, with other features. The functions' binaries are taken
/// away first: each run of the program must build what is missing or stale by itself.
pub fn program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = bin_dir();
        for name in FUNCTIONS {
            if let Err(error) = fs::remove_file(folder.join(name)) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}");
            }
        }
        let profile = folder.file_name().expect("a profile").to_str().expect("UTF-8");
        let profile = if profile == "debug" { "dev" } else { profile };
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "test",
                "--workspace",
                "--no-run",
                "--quiet",
                "--test",
                "program",
                "--profile",
                profile,
                "--target-dir",
            ])
            .arg(folder.parent().expect("the target folder"))
            .arg("--manifest-path")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
            .status()
            .expect("cargo");
        assert!(status.success(), "cargo could not build the program");
        folder.join("local")
    };
    BUILT.get_or_init(build).clone()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("the fixture") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_file() {
            fs::copy(entry.path(), target).expect("copied");
        } else if entry.file_name() != "out" {
            copy(&entry.path(), &target);
        }
    }
}

/// A data folder of its own.
pub struct Data {
    folder: TempDir,
}

impl Data {
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder") }
    }

    /// A copy of the fixture with five people.
    pub fn tiny() -> Self {
        Self::fixture("tiny")
    }

    /// A copy of a fixture, without what a run is expected to write.
    pub fn fixture(name: &str) -> Self {
        let data = Self::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name);
        copy(&from, data.path());
        data
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is, for whoever looks for what went wrong.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    pub fn put(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), content).expect(file);
    }

    pub fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).expect(file)
    }

    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.text(file)).expect(file)
    }

    /// Nothing personal is in anything that the functions, the stack or the program itself have written to a log:
    /// no ECID, no token, no email.
    pub fn assert_logs_tell_nothing(&self) {
        let logs = self.path().join(".state/stack/logs");
        let mut files: Vec<PathBuf> =
            fs::read_dir(logs).expect("logs").map(|entry| entry.expect("a log").path()).collect();
        for name in ["stdout", "stderr"] {
            files.push(self.path().join(name));
        }
        let mut lines = 0;
        for file in files {
            for line in fs::read_to_string(&file).expect("a log").lines() {
                lines += 1;
                assert_eq!(personal(line), None, "{} holds a personal value", file.display());
            }
        }
        assert!(lines > 0, "nothing was logged at all");
    }
}

/// A running program. Dropping it kills it.
pub struct Running {
    child: Child,
    folder: PathBuf,
}

/// Starts the program on a data folder, with further flags. Its output goes to files in that folder.
pub fn start(data: &Data, flags: &[&str]) -> Running {
    let file = |name: &str| Stdio::from(File::create(data.path().join(name)).expect(name));
    let elsewhere = std::env::var(DEPLOYER).ok().into_iter().flat_map(|url| ["--stack".to_owned(), url]);
    let child = Command::new(program())
        .arg("--data")
        .arg(data.path())
        .args(flags)
        .args(elsewhere)
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .expect("the program starts");
    Running { child, folder: data.path().to_owned() }
}

/// Plays the whole world of a data folder; its exit code must be 0.
pub async fn once(data: &Data, flags: &[&str]) {
    let mut running = start(data, &[&["--once", "--port", "0"], flags].concat());
    let status = running.end().await;
    assert!(status.success(), "{status}: {}{}", running.output("stdout"), running.output("stderr"));
}

impl Running {
    pub fn output(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).expect(name)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the program").is_some()
    }

    /// Waits until it ends.
    pub async fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the program") {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end: {}", self.output("stdout"));
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for a line of standard output that begins like this, and returns its rest.
    pub async fn line(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(rest) = self.output("stdout").lines().find_map(|line| line.strip_prefix(beginning)) {
                return rest.to_owned();
            }
            let ended = self.has_ended();
            assert!(!ended, "the program ended: {}{}", self.output("stdout"), self.output("stderr"));
            assert!(Instant::now() < deadline, "no line {beginning:?}: {}", self.output("stdout"));
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ctrl-C, and waits until it has ended.
    pub async fn interrupt(mut self) {
        let status = Command::new("kill").args(["-INT", &self.id().to_string()]).status().expect("kill");
        assert!(status.success());
        let status = self.end().await;
        assert!(status.success(), "{status}: {}{}", self.output("stdout"), self.output("stderr"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Polls until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        sleep(LOOK_EVERY).await;
    }
}

/// A client of the API and of the doubles.
pub fn client() -> reqwest::Client {
    let mut headers = HeaderMap::new();
    if let Ok(token) = std::env::var(TOKEN) {
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a token"));
    }
    reqwest::Client::builder().no_proxy().default_headers(headers).build().expect("client")
}

/// A GET that must succeed.
pub async fn get(url: &str) -> Value {
    let answer = client().get(url).send().await.expect("answer");
    assert_eq!(answer.status().as_u16(), 200, "{url}");
    serde_json::from_slice(&answer.bytes().await.expect("body")).expect("JSON")
}

/// A POST; its status and body.
pub async fn post(url: &str, body: &Value) -> (u16, Value) {
    let request = client().post(url).header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.expect("answer");
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.expect("body")).unwrap_or(Value::Null))
}

/// Process ids of a program's children that run this binary.
pub fn children(parent: u32, binary: &str) -> Vec<u32> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,args="]).output().expect("ps");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (pid, ppid, path) = (words.next(), words.next(), words.next());
        if ppid == Some(&parent.to_string()) && path.is_some_and(|path| path.ends_with(&format!("/{binary}"))) {
            found.extend(pid.and_then(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}
