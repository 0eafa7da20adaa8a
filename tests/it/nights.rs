//! A month of nights (CONS-05, GROUP-11, GROUP-13): a chain of exports over a store that its writer changes at random. After each
//! night `outpour apply` gives exactly the rows that are current then and belong to the members of then, as a model of the store
//! says that knows neither index nor increments.
//!
//! Days bring new and changed rows, rows of other patients, deletions, full dumps that leave out what is gone, late files with old
//! rows, and members who join, leave and come back. Nights are killed at random moments, find the store away, or have no room to
//! write: they meet a limit of file sizes or, where mounting is allowed, a full disk. The command is the same every night, with
//! cron's environment: no terminal and a bare PATH.

use crate::disk::{Tmpfs, limit_files};
use crate::random::{Random, each_case, knob};
use crate::run::{self, command, scratch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const PATIENTS: usize = 6;

/// A current resource as the model knows it.
#[derive(Clone)]
struct Row {
    /// Number of the patient that it is of.
    patient: usize,
    line: String,
}

/// The model of a store, and the files that its writer has made.
struct Days<'a> {
    store: PathBuf,
    group: PathBuf,
    random: &'a mut Random,
    /// Current resources by `Type/id`.
    current: BTreeMap<String, Row>,
    members: BTreeSet<usize>,
    /// Seconds since the first day.
    clock: i64,
    versions: u64,
    files: u64,
}

/// An instant on the line of the model's seconds.
fn instant(second: i64) -> String {
    let (day, rest) = (second / 86_400, second % 86_400);
    format!(
        "2024-{:02}-{:02}T{:02}:{:02}:{:02}.000Z",
        1 + day / 28,
        1 + day % 28,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

impl Days<'_> {
    /// A new version of a resource, dated so many seconds before now.
    fn version(&mut self, name: &str, patient: usize, ago: i64) -> Row {
        self.versions += 1;
        self.clock += 1;
        let (resource_type, id) = name.split_once('/').unwrap();
        let subject = match resource_type {
            "Patient" => String::new(),
            _ => format!(r#","subject":{{"reference":"Patient/p{patient}"}}"#),
        };
        let line = format!(
            r#"{{"resourceType":"{resource_type}","id":"{id}","meta":{{"versionId":"{}","lastUpdated":"{}"}}{subject},"text":{{"status":"v{}"}}}}"#,
            self.versions,
            instant(self.clock - ago),
            self.versions
        );
        Row { patient, line }
    }

    /// Appends lines to a file of the store.
    fn append(&self, file: &str, lines: &[String]) {
        use std::io::Write;
        let path = self.store.join(file);
        let mut out = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        out.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    }

    /// Replaces a file of the store by rename. The old one is kept elsewhere: a new file that gets its inode would look like the old
    /// one changed in place, whose missing rows are not told as deletions.
    fn replace(&mut self, file: &str, text: &str) {
        self.files += 1;
        let path = self.store.join(file);
        std::fs::hard_link(&path, self.store.with_extension(format!("old-{}", self.files))).unwrap();
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// The Group file of the members of now.
    fn write_group(&self) {
        let members: Vec<String> =
            self.members.iter().map(|p| format!(r#"{{"entity":{{"reference":"Patient/p{p}"}}}}"#)).collect();
        let group = format!(
            r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{}]}}"#,
            members.join(",")
        );
        std::fs::write(&self.group, group).unwrap();
    }

    /// The file that rows of a type are dumped to.
    fn dump_name(resource_type: &str) -> String {
        format!("dump-{resource_type}.ndjson")
    }

    /// What a day brings.
    fn pass(&mut self) {
        self.clock += 3600;
        for _ in 0..1 + self.random.below(4) {
            let of_type = self.random.pick(&["Observation", "Condition"]);
            let name = format!("{of_type}/{}-{}", of_type.to_lowercase(), self.random.below(12));
            match self.random.below(10) {
                // A new or changed row, which may move to another patient.
                0..4 => {
                    let stays = self.current.get(&name).map(|row| row.patient).filter(|_| !self.random.one_in(3));
                    let patient = stays.unwrap_or_else(|| self.random.below(PATIENTS));
                    let row = self.version(&name, patient, 0);
                    self.append("appended.ndjson", std::slice::from_ref(&row.line));
                    self.current.insert(name, row);
                }
                // A full dump of a type: some rows are new, some changed or moved, some gone without a word.
                4..6 => {
                    let prefix = format!("{of_type}/");
                    let names: Vec<String> =
                        self.current.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
                    for name in names {
                        match self.random.below(8) {
                            // What came late stays in its own file.
                            0 if !name.contains("/late-") => drop(self.current.remove(&name)),
                            1 => {
                                let patient = self.random.below(PATIENTS);
                                let row = self.version(&name, patient, 0);
                                self.current.insert(name, row);
                            }
                            _ => {}
                        }
                    }
                    let rows = self.current.iter().filter(|(name, _)| name.starts_with(&prefix));
                    let text: String = rows.map(|(_, row)| row.line.clone() + "\n").collect();
                    self.replace(&Self::dump_name(of_type), &text);
                    // What was appended of the type is in the dump now.
                    let appended = std::fs::read_to_string(self.store.join("appended.ndjson")).unwrap_or_default();
                    let kind = format!(r#""resourceType":"{of_type}""#);
                    let rest: String = appended
                        .lines()
                        .filter(|line| !line.contains(&kind))
                        .map(|line| line.to_string() + "\n")
                        .collect();
                    self.replace("appended.ndjson", &rest);
                }
                // A file that comes late: rows of resources that are new, dated long ago.
                6 => {
                    self.files += 1;
                    let name = format!("{of_type}/late-{}", self.files);
                    let patient = self.random.below(PATIENTS);
                    let row = self.version(&name, patient, 200_000);
                    self.append(&format!("late-{}.ndjson", self.files), std::slice::from_ref(&row.line));
                    self.current.insert(name, row);
                }
                // A deletion.
                7 => {
                    let names: Vec<String> =
                        self.current.keys().filter(|name| !name.starts_with("Patient/")).cloned().collect();
                    if !names.is_empty() {
                        let name = &names[self.random.below(names.len())];
                        self.clock += 1;
                        let entry = format!(
                            r#"{{"resourceType":"Bundle","type":"transaction","meta":{{"lastUpdated":"{}"}},"entry":[{{"request":{{"method":"DELETE","url":"{name}"}}}}]}}"#,
                            instant(self.clock)
                        );
                        self.append("deleted.ndjson", &[entry]);
                        self.current.remove(name);
                    }
                }
                // Members join, leave and come back.
                _ => {
                    let patient = self.random.below(PATIENTS);
                    if !self.members.remove(&patient) || self.members.is_empty() {
                        self.members.insert(patient);
                    }
                    self.write_group();
                }
            }
        }
        self.clock += 1800;
    }

    /// The lines that belong to the members of now.
    fn expected(&self) -> BTreeSet<String> {
        let rows = self.current.values().filter(|row| self.members.contains(&row.patient));
        rows.map(|row| row.line.clone()).collect()
    }
}

/// The lines of all files of a directory that `outpour apply` wrote, each checked to be there once.
fn applied(directory: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "ndjson") {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                assert!(lines.insert(line.to_string()), "{line} stands twice");
            }
        }
    }
    lines
}

/// The command of every night, as cron runs it.
fn night(days: &Days<'_>, chain: &Path, more: &[&str]) -> std::process::Command {
    let mut night = command();
    night.env_clear().env("PATH", "/usr/bin:/bin").args(["export", "--store"]).arg(&days.store);
    night.arg("--group").arg(&days.group).arg("--chain").arg(chain);
    night.args([
        "--quiet",
        "--vanished",
        "delete",
        "--allow-missing",
        "100%",
        "--no-sync",
        "--as-of",
        &instant(days.clock),
    ]);
    night.args(more);
    night
}

/// Why a night has no room to write.
#[derive(Clone, Copy)]
enum NoRoom {
    /// No file may be longer than so many bytes.
    Limit(u64),
    /// The disk of the chain has so many free pages.
    Disk(u64),
}

/// What is in a chain: its newest export as readers are told, and its exports, finished and unfinished.
struct Published {
    latest: Vec<u8>,
    finished: BTreeSet<PathBuf>,
    unfinished: usize,
}

impl Published {
    fn read(chain: &Path) -> Published {
        let entries = std::fs::read_dir(chain).into_iter().flatten().map(|entry| entry.unwrap().path());
        let exports = entries.filter(|path| !path.is_symlink() && path.join(".outpour-job/plan.json").exists());
        let (finished, unfinished): (BTreeSet<_>, BTreeSet<_>) =
            exports.partition(|path| path.join("manifest.json").exists());
        let latest = std::fs::read(chain.join("latest.json")).unwrap_or_default();
        Published { latest, finished, unfinished: unfinished.len() }
    }
}

/// Bytes in use on the disk of a directory.
fn used_bytes(directory: &Path) -> u64 {
    let path = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
    // SAFETY: the path is a NUL-terminated string, and the structure is filled by the call.
    let found = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(path.as_ptr(), &mut found), 0);
        found
    };
    (found.f_blocks - found.f_bfree) * found.f_frsize
}

/// A night without room: it fails and names what it could not write, or needed no more than there was. Nothing of it is published.
/// Returns whether it failed.
fn night_without_room(days: &Days<'_>, chain: &Path, args: &[&str], why: NoRoom) -> bool {
    let before = Published::read(chain);
    let mut command = night(days, chain, args);
    let run = match why {
        NoRoom::Limit(bytes) => {
            limit_files(&mut command, bytes);
            run::finish(&mut command)
        }
        NoRoom::Disk(pages) => {
            let resize = |size: &str| {
                std::mem::forget(Tmpfs::mount(chain, size, libc::MS_REMOUNT).expect("the disk is resized"));
            };
            resize(&(used_bytes(chain) + pages * 4096).to_string());
            let run = run::finish(&mut command);
            resize("64m");
            run
        }
    };
    if run.code == 0 {
        return false;
    }
    let what = if matches!(why, NoRoom::Limit(_)) { "RLIMIT_FSIZE" } else { "No space left" };
    run.refused(3, &[what]);
    // One that was interrupted before may have been finished. Tonight's may be, where only `latest.json` found no room.
    let after = Published::read(chain);
    let unnamed = usize::from(run.stderr.contains("latest.json"));
    let most = before.finished.len() + before.unfinished + unnamed;
    assert!(before.finished.is_subset(&after.finished) && after.finished.len() <= most, "{run:#?}");
    assert!(before.finished != after.finished || before.latest == after.latest, "{run:#?}");
    true
}

#[test]
fn a_chain_applied_is_what_is_current() {
    let failed = AtomicUsize::new(0);
    each_case("nights", knob("OUTPOUR_TEST_CHAINS", 6).min(40), |case, random| {
        let scratch = scratch();
        let (store, chain, current) =
            (scratch.path().join("store"), scratch.path().join("chain"), scratch.path().join("current"));
        std::fs::create_dir(&store).unwrap();
        std::fs::create_dir(&chain).unwrap();
        let disk = Tmpfs::mount(&chain, "64m", 0);
        let coding = random.pick(&["none", "gzip", "zstd"]).to_string();
        let keeps = random.one_in(2);
        let mut days = Days {
            store: store.clone(),
            group: scratch.path().join("group.json"),
            random,
            current: BTreeMap::new(),
            members: BTreeSet::from([0, 1, 2]),
            clock: 400_000,
            versions: 0,
            files: 0,
        };
        for patient in 0..PATIENTS {
            let name = format!("Patient/p{patient}");
            let row = days.version(&name, patient, 0);
            days.append("patients.ndjson", std::slice::from_ref(&row.line));
            days.current.insert(name, row);
        }
        for file in ["appended.ndjson", "dump-Observation.ndjson", "dump-Condition.ndjson"] {
            std::fs::write(store.join(file), "").unwrap();
        }
        days.write_group();
        let mut args = vec!["--compress", &coding, "--max-file-resources", "5"];
        if keeps {
            args.extend(["--full-every", "5", "--keep", "2"]);
        }
        for number in 0..30 {
            days.pass();
            let trouble = days.random.below(10);
            let disturbed = trouble < 2 || trouble == 3 || trouble == 4;
            match trouble {
                // A night that is killed, once or twice, is finished by the same command.
                0 | 1 => {
                    for _ in 0..1 + days.random.below(2) {
                        let mut child = night(&days, &chain, &args);
                        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                        std::thread::sleep(Duration::from_millis(days.random.below(120) as u64));
                        child.kill().unwrap();
                        child.wait().unwrap();
                        days.clock += 1;
                    }
                }
                // The store is not mounted: the night fails, and says so.
                2 => {
                    std::fs::rename(&store, store.with_extension("away")).unwrap();
                    let run = run::finish(&mut night(&days, &chain, &args));
                    assert_eq!(run.code, 2, "{run:#?}");
                    std::fs::rename(store.with_extension("away"), &store).unwrap();
                }
                // There is no room, once or twice.
                3 | 4 => {
                    for _ in 0..1 + days.random.below(2) {
                        let why = match disk.is_some() && trouble == 4 {
                            true => NoRoom::Disk(days.random.below(12) as u64),
                            false => NoRoom::Limit(days.random.below(12_000) as u64),
                        };
                        failed.fetch_add(usize::from(night_without_room(&days, &chain, &args, why)), Relaxed);
                        days.clock += 1;
                    }
                }
                _ => {}
            }
            let run = run::finish(&mut night(&days, &chain, &args));
            assert_eq!(run.code, 0, "case {case}, night {number}: {run:#?}");
            // What an operator should know: many who left, a deletion of what a dump had left out already, an interrupted export.
            // A night like any other prints nothing.
            let is_worth_telling = |line: &str| {
                line.starts_with("outpour: warning: ")
                    && [" left since ", "deletion"].iter().any(|what| line.contains(what))
            };
            let is_quiet = run.stdout.is_empty() && run.stderr.lines().all(is_worth_telling);
            assert!(disturbed || is_quiet, "case {case}, night {number}: {run:#?}");
            // The slow oracle counts the export again, row by row: those of members who joined included.
            if days.random.one_in(6) {
                let latest = chain.join("latest");
                let run = run::run(&["verify", "--ledger", latest.to_str().unwrap()]);
                assert_eq!(run.code, 0, "case {case}, night {number}: {run:#?}");
            }
            let apply = ["apply", chain.to_str().unwrap(), "--to", current.to_str().unwrap(), "--no-sync"];
            let run = run::run(&apply);
            assert_eq!(run.code, 0, "{run:#?}");
            let (found, expected) = (applied(&current), days.expected());
            let missing: Vec<_> = expected.difference(&found).collect();
            let more: Vec<_> = found.difference(&expected).collect();
            assert!(
                missing.is_empty() && more.is_empty(),
                "case {case}, night {number}, T {}: missing {missing:#?}, too many {more:#?}",
                instant(days.clock)
            );
        }
        let run = run::run(&["verify", chain.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run:#?}");
        let exports = std::fs::read_dir(&chain).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("20")
                && entry.as_ref().unwrap().path().join("manifest.json").exists()
        });
        assert!(if keeps { exports.count() <= 11 } else { exports.count() >= 30 });
    });
    assert!(failed.into_inner() > 2, "hardly a night was short of room");
}
