//! Starts, stops and kills `outpour serve` as a process on a free port.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::client::{Answer, Client};

/// A running service, killed when dropped.
pub(crate) struct Server {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    client: Client,
}

impl Server {
    /// Starts a service in a directory, with these arguments after `serve`.
    pub(crate) fn start(directory: &Path, words: &[&str]) -> Server {
        Server::try_start(directory, words).unwrap_or_else(|log| panic!("the service did not start:\n{log}"))
    }

    /// As [`Server::start`]; `Err` with its standard error if it does not start.
    pub(crate) fn try_start(directory: &Path, words: &[&str]) -> Result<Server, String> {
        Server::spawn(directory, words, &mut |_| {})
    }

    /// As [`Server::start`]; the service cannot write beyond so many bytes of a file until [`Server::lift`] is called.
    pub(crate) fn start_cramped(directory: &Path, words: &[&str], most: u64) -> Server {
        Server::spawn(directory, words, &mut |command| crate::disk::limit_files_softly(command, most)).unwrap()
    }

    /// As [`Server::start`], with a change of the command.
    pub(crate) fn start_with(directory: &Path, words: &[&str], prepare: &mut dyn FnMut(&mut Command)) -> Server {
        Server::spawn(directory, words, prepare).unwrap_or_else(|log| panic!("the service did not start:\n{log}"))
    }

    /// Lifts the limit of [`Server::start_cramped`].
    pub(crate) fn lift(&self) {
        let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a system call on our child process, with a limit that lives through it.
        let done =
            unsafe { libc::prlimit(self.child.id() as libc::pid_t, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    fn spawn(directory: &Path, words: &[&str], prepare: &mut dyn FnMut(&mut Command)) -> Result<Server, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outpour"));
        prepare(&mut command);
        let mut child = command
            .arg("serve")
            .args(words)
            .args(if words.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let mut line = String::new();
            if said.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return Err(log.lock().unwrap().clone());
            }
            log.lock().unwrap().push_str(&line);
            // The line itself, or the message of an event of a log that is JSON.
            if let Some((_, rest)) = line.split_once("outpour serves on ") {
                let rest = rest.split_once("://").unwrap().1;
                break rest.split(';').next().unwrap().parse().unwrap();
            }
        };
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Ok(Server { address, child, log, client: Client::new(address, directory) })
    }

    /// A client of this service.
    pub(crate) fn client(&self) -> Client {
        self.client
    }

    /// Waits until the store is indexed, so that every Group of it is known.
    pub(crate) fn wait_until_ready(&self) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while self.client().get("/health/ready").status != 200 {
            assert!(std::time::Instant::now() < end, "{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Standard error of the service so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until standard error holds this text: it is read by another thread, after what the text is about.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !self.log().contains(text) {
            assert!(std::time::Instant::now() < end, "{text:?} is not in\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Sends a GET below `/fhir` with the headers of a kick-off.
    pub(crate) fn fhir(&self, path: &str) -> Answer {
        let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
        self.client().ask("GET", &format!("/fhir/{path}"), &headers, b"")
    }

    /// Bytes of anonymous memory in use.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    }

    /// Number of its threads with this name.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        let named =
            |path: std::path::PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        tasks.filter(|task| named(task.path())).count()
    }

    /// Sends SIGHUP, which reloads the configuration and certificates.
    pub(crate) fn hang_up(&self) {
        // SAFETY: a system call; the process is our child and has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGHUP) };
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        // SAFETY: a system call; the process is our child and has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
