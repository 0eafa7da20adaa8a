//! A service of this bench: `outpour serve` as a process, what is known of it, and its log, held to the documented
//! statuses.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use serde_json::Value;

use super::answers;
use super::bodies::BODY_BYTES;
use super::chance::Chance;

/// What a request with a body writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteKind {
    /// A Group under a new id.
    Create,
    /// A Group under the id of the path.
    Replace,
    /// The parameters of a kick-off.
    KickOff,
}

/// A bounded list of texts, the oldest first.
#[derive(Default)]
pub(crate) struct Recent(VecDeque<String>);

/// Texts that a [`Recent`] keeps.
const RECENT_MAX: usize = 64;

impl Recent {
    /// Adds a text; an older one that there is no more room for comes back.
    pub(crate) fn add(&mut self, text: String) -> Option<String> {
        if self.0.contains(&text) {
            return None;
        }
        self.0.push_back(text);
        if self.0.len() > RECENT_MAX { self.0.pop_front() } else { None }
    }

    /// One of the texts, if there is any.
    pub(crate) fn pick(&self, chance: &mut Chance) -> Option<String> {
        if self.0.is_empty() { None } else { Some(self.0[chance.below(self.0.len())].clone()) }
    }
}

/// What answers have told of a service.
#[derive(Default)]
pub(crate) struct Known {
    /// Paths of the states of jobs.
    pub jobs: Recent,
    /// Paths of files.
    pub files: Recent,
    /// Ids of Groups that were made.
    pub groups: Recent,
    /// Entity tags.
    pub tags: Recent,
}

/// What the log of a service has told so far.
#[derive(Default)]
struct LogState {
    /// Answers by operation and status.
    answers: BTreeMap<(String, u64), u64>,
    /// What may not be there, with the request's number if the line has it.
    faults: Vec<(Option<u64>, String)>,
    /// Time of the last line.
    last: Option<Clock>,
}

/// A running service, killed when dropped.
pub(crate) struct Service {
    pub address: SocketAddr,
    /// Header lines of its clients, the first one with every right; none if it has no clients.
    pub credentials: Vec<String>,
    pub known: Known,
    /// Directories of the host that no answer may name.
    pub directories: Vec<String>,
    child: Child,
    log: Arc<Mutex<LogState>>,
}

/// Mounts as they are configured: everything on, nothing kept for long, so that 410 comes up and memory stays.
const MOUNTS: &str = "
[data]
sync = false
[jobs]
active_per_client = 40
remembered_seconds = 5
group_wait_milliseconds = 100
[ig]
first_poll_in_progress = false
[netsmart]
system_level = true
patient_level = true
groups_searchable = true
[oneup_ste]
keep_seconds = 10
groups_searchable = true
groups_writable = true
[oneup_mte]
keep_seconds = 10
sync_wait_milliseconds = 200
[log]
format = 'json'
[[tenants]]
name = 'ExampleCompany'
store = { path = 'store2' }
data = { path = 'data2', sync = false }
";

impl Service {
    /// Starts a service in a new directory below `scratch`, over the bundled store; with clients, or open.
    pub(crate) fn start(scratch: &Path, name: &str, with_clients: bool) -> Service {
        let directory = scratch.join(name);
        std::fs::create_dir_all(directory.join("store2")).unwrap();
        let lines = "{\"resourceType\":\"Patient\",\"id\":\"777\"}\n{\"resourceType\":\"Group\",\"id\":\"example-group\",\
                     \"type\":\"person\",\"actual\":true,\"member\":[{\"entity\":{\"reference\":\"Patient/777\"}}]}\n";
        std::fs::write(directory.join("store2/all.ndjson"), lines).unwrap();
        let (mut clients, mut credentials) = (String::new(), Vec::new());
        if with_clients {
            let both = "tenants = ['default', 'ExampleCompany']\nwrites_groups = true";
            let bound = "types = ['Patient']\nlevels = ['group']\ngroups = ['ten', 'g1']\nwrites_groups = true";
            for (client, rights, words) in
                [("full", both, &[][..]), ("narrow", bound, &[]), ("user", "", &["--patient", "777"])]
            {
                let (token, entry) = new_token(words);
                clients += &format!("[[clients]]\nname = '{client}'\n{rights}\ntokens = [\n{entry}\n]\n");
                credentials.push(format!("Authorization: Bearer {token}\r\n"));
            }
        }
        let proxies = if with_clients { "trusted_proxies = ['127.0.0.1']\n" } else { "" };
        let limits = format!(
            "[limits]\nbody_bytes = {BODY_BYTES}\nhead_seconds = 3\nbody_seconds = 3\nidle_seconds = 3\npolls_per_second = 20\n"
        );
        std::fs::write(directory.join("serve.toml"), format!("{proxies}{limits}{MOUNTS}{clients}")).unwrap();
        let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/stores/synthea-r4-100");
        let mut child = Command::new(env!("CARGO_BIN_EXE_outpour"))
            .args([
                "serve",
                "--config",
                "serve.toml",
                "--listen",
                "127.0.0.1:0",
                "--index-dir",
                "index",
                "--data",
                "data",
            ])
            .arg("--store")
            .arg(store)
            .current_dir(&directory)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the service did not start:\n{said}");
            if let Some((_, rest)) = line.split_once("outpour serves on http://") {
                break rest.split(';').next().unwrap().parse().unwrap();
            }
            said += &line;
        };
        let log = Arc::new(Mutex::new(LogState::default()));
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lock().unwrap().read(&line);
            }
        });
        let directories = [directory, PathBuf::from(env!("CARGO_MANIFEST_DIR")), std::env::temp_dir()];
        let directories = directories.map(|path| path.display().to_string()).into();
        let service = Service { address, credentials, known: Known::default(), directories, child, log };
        let end = Clock::now() + Duration::from_secs(120);
        while answers::status_of(&service, "/health/ready") != Some(200) {
            assert!(Clock::now() < end, "the service is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        service
    }

    /// Bytes of anonymous memory in use.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    }

    /// What the log has that may not be there, with the number of the request where the line has it.
    pub(crate) fn log_fault(&self) -> Option<(Option<u64>, String)> {
        self.log.lock().unwrap().faults.first().cloned()
    }

    /// Answers by operation and status, as the access log has them.
    pub(crate) fn logged_answers(&self) -> BTreeMap<(String, u64), u64> {
        self.log.lock().unwrap().answers.clone()
    }

    /// Waits until the log has been silent for a moment.
    pub(crate) fn wait_for_log(&self) {
        let is_silent = || {
            let last = self.log.lock().unwrap().last;
            last.is_none_or(|last| last.elapsed() > Duration::from_millis(300))
        };
        while !is_silent() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and waits for the end; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        // SAFETY: a system call; the process is our child and has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let end = Clock::now() + Duration::from_secs(60);
        while Clock::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl LogState {
    /// Reads a line: counts an answer, and notes what may not be there.
    fn read(&mut self, line: &str) {
        self.last = Some(Clock::now());
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            self.faults.push((None, format!("the log has a line that is no event: {line}")));
            return;
        };
        let number = event["request"].as_str().and_then(|id| id.rsplit('-').next()?.parse().ok());
        if event["level"] == "ERROR" || line.contains("panicked") {
            self.faults.push((number, format!("the log has an error: {line}")));
        }
        if event["target"] != "outpour::access" || event["message"] != "answered" {
            return;
        }
        let (route, status) = (event["route"].as_str().unwrap_or("unreadable"), event["status"].as_u64().unwrap_or(0));
        *self.answers.entry((route.to_string(), status)).or_default() += 1;
        if !answers::is_documented(route, status) {
            self.faults.push((number, format!("{status} is not documented for {route}: {line}")));
        }
    }
}

/// A new token and its entry for the configuration.
fn new_token(words: &[&str]) -> (String, String) {
    let made = Command::new(env!("CARGO_BIN_EXE_outpour"));
    let mut made = made;
    let made = made.args(["credential", "token", "--json"]).args(words).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    (made["token"].as_str().unwrap().to_string(), made["configuration"].as_str().unwrap().to_string())
}
