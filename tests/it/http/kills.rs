//! SIGKILL at random moments across kick-off, running, publishing, deleting and reaping, and a restart each time.
//!
//! `OUTPOUR_TEST_KILLS` says how many; what clients were told is checked against what the next service says.

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

/// How long files are kept, and how long a job is remembered after.
const KEEP: Duration = Duration::from_secs(3);
const REMEMBERED: Duration = Duration::from_secs(1);
/// What a second of the server's clock and a poll may be off.
const SLACK: Duration = Duration::from_millis(1500);

/// What a client was told of a job.
struct Told {
    /// When the kick-off was sent.
    asked: Instant,
    /// When a deletion was sent, whether or not it was answered.
    deletion: bool,
    /// When the deletion was answered.
    deleted: bool,
    /// What its manifest said when it was first seen.
    complete: Option<Seen>,
    /// It may have met a disk without room.
    may_fail: bool,
    /// Its T, from a state that told that it has failed.
    t: Option<String>,
}

/// Transaction time, and files with a hash each.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    t: String,
    files: Vec<(String, u64)>,
}

const MTE: &str = "/v1/default/bulk-export/bulk-data/r4";
/// Most bytes of a file while there is no room: enough for records, and for some shards.
const CRAMPED_BYTES: u64 = 120_000;

#[derive(Default)]
struct World {
    /// Whether the service can write no large files for now.
    cramped: AtomicBool,
    /// Failed jobs that were put again, and how many of them were seen complete.
    retried: Mutex<HashMap<String, bool>>,
    jobs: Mutex<HashMap<String, Told>>,
    groups: Mutex<Vec<String>>,
}

impl World {
    /// One step of a client; the service may be killed under it.
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
                let reported =
                    Told { asked: requested, deletion: false, deleted: false, complete: None, may_fail, t: None };
                self.jobs.lock().unwrap().insert(status, reported);
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

    /// Ends a job where that can be done, or tries it again where that can be.
    fn end(&self, client: &Client, status: &str) {
        match () {
            () if status.starts_with(MTE) => self.put(client, status),
            () if status.starts_with("/bulk-data/") => {}
            () => self.delete(client, status),
        }
    }

    /// Whether or not it is answered, T and finished files stay as they were.
    fn put(&self, client: &Client, status: &str) {
        let Some(answer) = client.try_ask("PUT", status, &[], b"") else { return };
        match answer.status {
            202 => drop(self.retried.lock().unwrap().entry(status.to_string()).or_default()),
            // It has not failed, or is over by now.
            404 | 409 | 429 | 503 => {}
            other => panic!("{status}: {other} {}", answer.text()),
        }
    }

    fn delete(&self, client: &Client, status: &str) {
        if let Some(report) = self.jobs.lock().unwrap().get_mut(status) {
            report.deletion = true;
        }
        let Some(answer) = client.try_ask("DELETE", status, &[], b"") else { return };
        assert!(matches!(answer.status, 202 | 404), "{}", answer.text());
        if let (202, Some(reported)) = (answer.status, self.jobs.lock().unwrap().get_mut(status)) {
            reported.deleted = true;
        }
    }

    /// Asks for a job, checks what is said, fetches every file that is listed. With `alone`, nobody else asks.
    fn poll(&self, client: &Client, status: &str, alone: bool) {
        let sent = Instant::now();
        let Some(answer) = client.try_ask("GET", status, &[], b"") else { return };
        let (requested, deletion, deleted, seen) = {
            let jobs = self.jobs.lock().unwrap();
            let Some(report) = jobs.get(status) else { return };
            (report.asked, report.deletion, report.deleted, report.complete.clone())
        };
        // By when it may be over: its end is not before the kick-off.
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
                let Some(reported) = jobs.get_mut(status) else { return };
                assert!(reported.may_fail && reported.complete.is_none(), "{status}: {}", answer.text());
                if status.starts_with(MTE) {
                    let t = answer.json()["transactionTime"].as_str().unwrap().to_string();
                    assert_eq!(*reported.t.get_or_insert(t.clone()), t, "{status}");
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
                // Cut off by the kill.
                200 => return,
                404 | 410 => {
                    let jobs = self.jobs.lock().unwrap();
                    let report = &jobs[status];
                    let over = report.deletion || report.asked.elapsed() + SLACK >= KEEP;
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
        if let Some(reported) = self.jobs.lock().unwrap().get_mut(status) {
            assert!(reported.t.as_ref().is_none_or(|t| *t == found.t), "{status} was tried again with another T");
            reported.complete.get_or_insert(found);
        }
        self.retried.lock().unwrap().entry(status.to_string()).and_modify(|seen| *seen = true);
    }
}

/// Paths and counts of every file of a manifest, which a service on another port may have written.
fn listed(client: &Client, manifest: &serde_json::Value) -> Vec<(String, u64)> {
    ["output", "deleted", "error"]
        .iter()
        .flat_map(|list| manifest[list].as_array().cloned().unwrap_or_default())
        .map(|item| (client.path_of(item["url"].as_str().unwrap()).to_string(), item["count"].as_u64().unwrap()))
        .collect()
}

fn left(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["files", "jobs"] {
        for entry in std::fs::read_dir(directory.join(folder)).into_iter().flatten().flatten() {
            found.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
        }
    }
    found.retain(|name| !matches!(name.as_str(), "jobs/.lock" | "jobs/.service" | "files/.service"));
    found
}

/// ONEUP-M05, DIALECT-01, KICK-13, STATUS-12, STATUS-18, FILE-16, EXPIRE-03: no accepted job is lost, no finished file changes, no file is
/// listed that cannot be fetched, no orphan stays; on every mount, and when failed jobs are tried again.
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
        world.jobs.lock().unwrap().values_mut().for_each(|told_text| told_text.may_fail |= cramped);
        let client = server.client();
        // What was told before holds now.
        let known: Vec<String> = world.jobs.lock().unwrap().keys().cloned().collect();
        known.iter().for_each(|status| world.poll(&client, status, true));
        let most = if random.one_in(4) { 600_000 } else { 80_000 };
        let wait = Duration::from_micros(random.below(most) as u64);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let askers: Vec<_> = (0..2)
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
            askers.into_iter().for_each(|asker| asker.join().unwrap());
        });
        let mut jobs = world.jobs.lock().unwrap();
        met[0] = met[0].max(jobs.len());
        met[1] += jobs.values().filter(|report| report.complete.is_some()).count();
        // What is long forgotten need not be asked for again.
        jobs.retain(|_, reported| reported.asked.elapsed() < KEEP + REMEMBERED + 2 * SLACK);
    }
    let retried = world.retried.lock().unwrap().clone();
    let again = retried.values().filter(|seen| **seen).count();
    assert!(kills < 100 || again > 0, "jobs are tried again, and done: {} {again}", retried.len());
    assert!(met[0] > 5 && met[1] > kills / 4, "the test meets what it is about: {met:?}");
    // Every job ends, expires and is forgotten; then nothing is left.
    let server = start();
    let data = scratch.path().join("data");
    let begun = Instant::now();
    while !left(&data).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "left: {:?}\n{}", left(&data), server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let groups = world.groups.lock().unwrap();
    assert!(!groups.is_empty());
    let missing = groups.iter().filter(|id| server.client().get(&format!("/fhir/Group/{id}")).status != 200).count();
    assert_eq!(missing, 0, "a Group survives a crash right after its 201");
}
