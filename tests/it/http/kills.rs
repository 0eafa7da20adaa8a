//! SIGKILL of the service at random moments of kick-off, run, publication, deletion and expiry, each followed by a
//! restart. Responses after the restart are checked against those before. `OUTPOUR_TEST_KILLS` kills.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::client::Client;
use super::job_lifecycle::bundled;
use super::server::Server;
use crate::random::Random;
use crate::run::scratch;

/// How long files of an ended job are kept, and how long the job is remembered after that.
const KEEP: Duration = Duration::from_secs(3);
const REMEMBERED: Duration = Duration::from_secs(1);
/// Tolerance for the whole seconds of the service's clock and the duration of a poll.
const SLACK: Duration = Duration::from_millis(1500);

/// Responses about a job so far.
struct KnownJob {
    /// When the kick-off was sent.
    kicked_off: Instant,
    /// Whether a deletion was sent, answered or not.
    deletion: bool,
    /// Whether a deletion was answered.
    deleted: bool,
    /// The manifest as first seen.
    complete: Option<Seen>,
    /// Whether the service had a limit on file sizes during the job.
    may_fail: bool,
    /// The transactionTime in the status of the failed job.
    t: Option<String>,
}

/// Content of a manifest: transactionTime, and path and hash of each file.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    t: String,
    files: Vec<(String, u64)>,
}

const MTE: &str = "/v1/default/bulk-export/bulk-data/r4";
/// Limit on the size of files in some rounds: enough for records, and for some shards.
const CRAMPED_BYTES: u64 = 120_000;

#[derive(Default)]
struct World {
    /// Whether the service has a limit on file sizes in this round.
    cramped: AtomicBool,
    /// Retried jobs by status path, and whether they were seen complete.
    retried: Mutex<HashMap<String, bool>>,
    jobs: Mutex<HashMap<String, KnownJob>>,
    groups: Mutex<Vec<String>>,
}

impl World {
    /// One random request of a client, during which the service may be killed.
    fn step(&self, client: &Client, random: &mut Random) {
        let known: Vec<String> = self.jobs.lock().unwrap().keys().cloned().collect();
        match random.below(10) {
            0..4 => self.kick_off(client, random),
            4..8 if !known.is_empty() => self.poll(client, &known[random.below(known.len())], false),
            8 if !known.is_empty() => self.end(client, &known[random.below(known.len())]),
            _ => self.group(client),
        }
    }

    fn kick_off(&self, client: &Client, random: &mut Random) {
        let requested = Instant::now();
        let own = self.groups.lock().unwrap().last().cloned();
        let target = match random.below(7) {
            4 => "/uscore/v1/bulk-data/Group/ten/$export?_type=Patient,Claim".to_string(),
            5 => "/bulk-data/r4/$export?_type=patient,encounter".to_string(),
            6 => format!("{MTE}/Group/all/$export?_type=Patient,Encounter"),
            0 => "/fhir/Patient/$export?_type=Patient,Encounter,Claim".to_string(),
            1 => "/fhir/Group/ten/$export?_since=2012-01-01T00:00:00Z".to_string(),
            2 if own.is_some() => format!("/fhir/Group/{}/$export", own.unwrap()),
            _ => "/fhir/$export?_type=Condition,Device".to_string(),
        };
        let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
        let Some(answer) = client.try_ask("GET", &target, &headers, b"") else { return };
        match answer.status {
            202 => {
                let status = client.path_of(answer.header("content-location").unwrap()).to_string();
                let may_fail = self.cramped.load(Relaxed);
                let job = KnownJob {
                    kicked_off: requested,
                    deletion: false,
                    deleted: false,
                    complete: None,
                    may_fail,
                    t: None,
                };
                self.jobs.lock().unwrap().insert(status, job);
            }
            429 | 503 => {}
            other => panic!("{target}: {other} {}", answer.text()),
        }
    }

    fn group(&self, client: &Client) {
        let body = br#"{"resourceType":"Group","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/58c297c4-d684-4677-8024-01131d93835e"}}]}"#;
        let Some(answer) = client.try_ask("POST", "/fhir/Group", &[("Content-Type", "application/fhir+json")], body)
        else {
            return;
        };
        assert_eq!(answer.status, 201, "{}", answer.text());
        self.groups.lock().unwrap().push(answer.json()["id"].as_str().unwrap().to_string());
    }

    /// Deletes a job, or retries it on the mount that has retries; nothing on the mount that has neither.
    fn end(&self, client: &Client, status: &str) {
        match () {
            () if status.starts_with(MTE) => self.put(client, status),
            () if status.starts_with("/bulk-data/") => {}
            () => self.delete(client, status),
        }
    }

    /// Retries a job by PUT. Its transactionTime and finished files must not change, whether or not the request is
    /// answered.
    fn put(&self, client: &Client, status: &str) {
        let Some(answer) = client.try_ask("PUT", status, &[], b"") else { return };
        match answer.status {
            202 => drop(self.retried.lock().unwrap().entry(status.to_string()).or_default()),
            // The job has not failed, has expired, or the service is busy.
            404 | 409 | 429 | 503 => {}
            other => panic!("{status}: {other} {}", answer.text()),
        }
    }

    fn delete(&self, client: &Client, status: &str) {
        if let Some(job) = self.jobs.lock().unwrap().get_mut(status) {
            job.deletion = true;
        }
        let Some(answer) = client.try_ask("DELETE", status, &[], b"") else { return };
        assert!(matches!(answer.status, 202 | 404), "{}", answer.text());
        if let (202, Some(job)) = (answer.status, self.jobs.lock().unwrap().get_mut(status)) {
            job.deleted = true;
        }
    }

    /// Polls a job, checks the response, and fetches every listed file. With `alone`, no other thread sends requests.
    fn poll(&self, client: &Client, status: &str, alone: bool) {
        let sent = Instant::now();
        let Some(answer) = client.try_ask("GET", status, &[], b"") else { return };
        let (requested, deletion, deleted, seen) = {
            let jobs = self.jobs.lock().unwrap();
            let Some(job) = jobs.get(status) else { return };
            (job.kicked_off, job.deletion, job.deleted, job.complete.clone())
        };
        // The job may have expired: its retention begins at its end, which is not before the kick-off.
        let may_be_over = sent.duration_since(requested) + SLACK >= KEEP;
        match answer.status {
            202 => assert!(!(alone && deleted) && seen.is_none(), "{status} was complete, and runs"),
            200 => {
                assert!(!(alone && deleted), "{status} was deleted, and is complete");
                self.complete(client, status, &answer.json(), seen);
            }
            404 => {
                assert!(deletion || sent.duration_since(requested) + SLACK >= KEEP + REMEMBERED, "{status} is lost");
            }
            410 => assert!(may_be_over, "{status} expired too early"),
            429 => {}
            500 => {
                let mut jobs = self.jobs.lock().unwrap();
                let Some(job) = jobs.get_mut(status) else { return };
                assert!(job.may_fail && job.complete.is_none(), "{status}: {}", answer.text());
                if status.starts_with(MTE) {
                    let t = answer.json()["transactionTime"].as_str().unwrap().to_string();
                    assert_eq!(*job.t.get_or_insert(t.clone()), t, "{status}");
                }
            }
            other => panic!("{status}: {other} {}", answer.text()),
        }
    }

    fn complete(&self, client: &Client, status: &str, manifest: &serde_json::Value, seen: Option<Seen>) {
        let t = manifest["transactionTime"].as_str().unwrap().to_string();
        let mut found = Vec::new();
        for (path, count) in listed(client, manifest) {
            let Some(file) = client.try_ask("GET", &path, &[], b"") else { return };
            match file.status {
                200 if file.header("content-length").unwrap().parse() == Ok(file.body.len()) => {
                    assert_eq!(file.body.iter().filter(|byte| **byte == b'\n').count() as u64, count);
                    found.push((path, xxhash_rust::xxh3::xxh3_64(&file.body)));
                }
                // The response was cut off by the kill.
                200 => return,
                404 | 410 => {
                    let jobs = self.jobs.lock().unwrap();
                    let job = &jobs[status];
                    let over = job.deletion || job.kicked_off.elapsed() + SLACK >= KEEP;
                    assert!(over, "{status} lists {path}, which cannot be fetched: {}", file.text());
                    return;
                }
                other => panic!("{path}: {other}"),
            }
        }
        let found = Seen { t, files: found };
        if let Some(seen) = &seen {
            assert_eq!(*seen, found, "{status} has changed");
        }
        if let Some(job) = self.jobs.lock().unwrap().get_mut(status) {
            assert!(job.t.as_ref().is_none_or(|t| *t == found.t), "{status} was tried again with another T");
            job.complete.get_or_insert(found);
        }
        self.retried.lock().unwrap().entry(status.to_string()).and_modify(|seen| *seen = true);
    }
}

/// Path and count of every file of a manifest, whose URLs may have the port of an earlier service.
fn listed(client: &Client, manifest: &serde_json::Value) -> Vec<(String, u64)> {
    ["output", "deleted", "error"]
        .iter()
        .flat_map(|list| manifest[list].as_array().cloned().unwrap_or_default())
        .map(|item| (client.path_of(item["url"].as_str().unwrap()).to_string(), item["count"].as_u64().unwrap()))
        .collect()
}

fn remains(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["files", "jobs"] {
        for entry in std::fs::read_dir(directory.join(folder)).into_iter().flatten().flatten() {
            found.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
        }
    }
    // Who was in the exports of a Group is kept by intent.
    let kept = ["jobs/.lock", "jobs/.service", "files/.service", "files/baselines"];
    found.retain(|name| !kept.contains(&name.as_str()));
    found
}

/// ONEUP-M05, DIALECT-01, KICK-13, STATUS-12, STATUS-18, FILE-16, EXPIRE-03: over kills no accepted job is lost, no
/// finished file changes, every listed file can be fetched, and no orphan stays; on every mount, also for retried jobs.
#[test]
fn a_killed_service_loses_no_job() {
    let kills: usize = std::env::var("OUTPOUR_TEST_KILLS").map_or(200, |kills| kills.parse().unwrap());
    let mut random = Random::new(Random::seed("service kills"), 0);
    let scratch = scratch();
    let config = format!(
        "[jobs]\nremembered_seconds = {}\nactive_per_client = 6\n[files]\nmax_bytes = 300000\n[ig]\nkeep_seconds = {keep}\nfirst_poll_in_progress = false\n[netsmart]\nkeep_seconds = {keep}\n[oneup_ste]\nkeep_seconds = {keep}\n[oneup_mte]\nkeep_seconds = {keep}\n[limits]\npolls_burst = 1000\npolls_per_second = 1000\n[log]\nlevel = 'error'\n",
        REMEMBERED.as_secs(),
        keep = KEEP.as_secs()
    );
    std::fs::write(scratch.path().join("serve.toml"), config).unwrap();
    let world = World::default();
    let start = || bundled(scratch.path(), &["--config", "serve.toml"]);
    let start_cramped = || {
        let store = crate::run::testdata("stores/synthea-r4-100");
        let words =
            ["--store", store.to_str().unwrap(), "--index-dir", "index", "--data", "data", "--config", "serve.toml"];
        Server::start_cramped(scratch.path(), &words, CRAMPED_BYTES)
    };
    let mut met = [0usize; 2];
    for round in 0..kills {
        let cramped = round > 5 && random.one_in(3);
        world.cramped.store(cramped, Relaxed);
        let server: Server = if cramped { start_cramped() } else { start() };
        world.jobs.lock().unwrap().values_mut().for_each(|job| job.may_fail |= cramped);
        let client = server.client();
        // The restarted service confirms the earlier responses.
        let known: Vec<String> = world.jobs.lock().unwrap().keys().cloned().collect();
        known.iter().for_each(|status| world.poll(&client, status, true));
        let most = if random.one_in(4) { 600_000 } else { 80_000 };
        let wait = Duration::from_micros(random.below(most) as u64);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..2)
                .map(|_| {
                    let mut random = Random::new(random.next(), 1);
                    let (world, stop) = (&world, &stop);
                    scope.spawn(move || {
                        while !stop.load(Relaxed) {
                            world.step(&client, &mut random);
                        }
                    })
                })
                .collect();
            std::thread::sleep(wait);
            server.kill();
            stop.store(true, Relaxed);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        let mut jobs = world.jobs.lock().unwrap();
        met[0] = met[0].max(jobs.len());
        met[1] += jobs.values().filter(|job| job.complete.is_some()).count();
        // Jobs that are forgotten for certain are not polled any more.
        jobs.retain(|_, job| job.kicked_off.elapsed() < KEEP + REMEMBERED + 2 * SLACK);
    }
    let retried = world.retried.lock().unwrap().clone();
    let again = retried.values().filter(|seen| **seen).count();
    assert!(kills < 100 || again > 0, "jobs are tried again, and done: {} {again}", retried.len());
    assert!(met[0] > 5 && met[1] > kills / 4, "the test meets what it is about: {met:?}");
    // Every job ends, expires and is forgotten; then no file is left.
    let server = start();
    let data = scratch.path().join("data");
    let begun = Instant::now();
    while !remains(&data).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "left: {:?}\n{}", remains(&data), server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Of each baseline both files are there, and the keys are those of its digest.
    let baselines = data.join("files/baselines");
    for entry in std::fs::read_dir(&baselines).unwrap().map(|entry| entry.unwrap().path()) {
        let other = if entry.extension().is_some_and(|of| of == "json") { "keys" } else { "json" };
        assert!(entry.with_extension(other).is_file(), "{}", entry.display());
    }
    let groups = world.groups.lock().unwrap();
    assert!(!groups.is_empty());
    let missing = groups.iter().filter(|id| server.client().get(&format!("/fhir/Group/{id}")).status != 200).count();
    assert_eq!(missing, 0, "a Group survives a crash right after its 201");
}
