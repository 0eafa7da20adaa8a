//! The protocol of a job: killed between any two changes, run twice, too late or never, with records that were tampered with; what
//! is committed is what one machine exports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::codec::compression::Compression;
use crate::export::tests::kills::{AS_OF, World, changes, copy, everything, tree};
use crate::export::to_sink::export_to_sink;
use crate::fhir::instant::Instant;
use crate::index::test_lines::append;
use crate::issue::PLAIN_NAMES;
use crate::policies::FileBounds;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;
use crate::sys::directory::Directory;
use crate::sys::directory::tests::{failing_syncs, watching};
use crate::sys::durability::FileSync;
use crate::tasks::attempt::TaskOutcome;
use crate::tasks::commit::{CommittedJob, commit};
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::job_error::JobError;
use crate::tasks::job_files::{Creation, JobRoot};
use crate::tasks::job_plan::{JobPlan, TaskPlan};
use crate::tasks::planner::{JobOptions, PlannedJob, plan_job};
use crate::tasks::run_task::{TaskRequest, run_task};
use crate::tasks::task_record::TaskRecord;
use crate::write::encode::FileStats;
use crate::write::manifest::{Manifest, ManifestItem};
use crate::write::sink::MemorySink;

/// Names of writers that were given.
static WRITERS: AtomicUsize = AtomicUsize::new(0);

/// A job of a store, in a directory.
struct Job<'a> {
    store: &'a Store,
    root: PathBuf,
    request: ExportRequest,
    tasks: usize,
}

impl Job<'_> {
    fn plan(&self) -> Result<PlannedJob, crate::error::ExportError> {
        let writer = format!("planner-{}", WRITERS.fetch_add(1, SeqCst));
        let options = JobOptions {
            job: &self.root,
            writer: &writer,
            tasks: Some(self.tasks),
            sync: FileSync::No,
            faults_allowed: None,
            words: &PLAIN_NAMES,
        };
        let time = Instant::parse(AS_OF).unwrap().into();
        plan_job(self.store, &self.request, time, &options, &Progress::default())
    }

    fn run(&self, task: usize, attempt: &str) -> Result<TaskOutcome<TaskRecord>, JobError> {
        let (store, job) = (self.store.root(), self.root.as_path());
        run_task(&TaskRequest { store, job, task, attempt, sync: FileSync::No }, &Progress::default())
    }

    fn commit(&self) -> Result<CommittedJob, JobError> {
        commit(&self.root, &format!("commit-{}", WRITERS.fetch_add(1, SeqCst)), FileSync::No)
    }

    /// Everything that is left to be done, as a driver that knows nothing does it.
    fn finish(&self, attempt: &str) -> CommittedJob {
        if !self.root.join("plan.json").exists() {
            self.plan().unwrap();
        }
        for task in 0..self.tasks {
            self.run(task, attempt).unwrap();
        }
        self.commit().unwrap()
    }

    /// What one machine exports: types and lines of each file, deletions, messages, and what the manifest says beside.
    fn expected(&self) -> Published {
        let mut sink = MemorySink::default();
        let as_of = Instant::parse(AS_OF).unwrap();
        let report = export_to_sink(self.store, &self.request, as_of, &mut sink, &Progress::default()).unwrap();
        let files = sink.files();
        Published::of(&report.manifest, |name| files[name].clone())
    }

    /// What was committed. Every file of the job is named by the manifest, or is a plan, spans or a record.
    #[track_caller]
    fn published(&self) -> Published {
        let manifest = Manifest::from_bytes(&std::fs::read(self.root.join("manifest.json")).unwrap()).unwrap();
        let items = manifest.output.iter().chain(&manifest.deleted).chain(&manifest.error);
        let mut named: Vec<String> = items.map(|item| item.file_name().to_string()).collect();
        named.sort();
        let data: Vec<String> = tree(&self.root).into_keys().filter(|name| name.starts_with("data/")).collect();
        assert_eq!(data, named, "files that no record names are gone");
        Published::of(&manifest, |name| std::fs::read(self.root.join(name)).unwrap())
    }
}

/// A file of a manifest: its list, type, count, facts and bytes.
type PublishedFile = (usize, String, u64, Option<FileStats>, Vec<u8>);

/// A manifest and its files, without the names of these.
#[derive(Debug, PartialEq)]
struct Published {
    head: serde_json::Value,
    files: Vec<PublishedFile>,
}

impl Published {
    fn of(manifest: &Manifest, read: impl Fn(&str) -> Vec<u8>) -> Published {
        let head = serde_json::json!({
            "time": manifest.transaction_time, "request": manifest.request, "extension": manifest.extension,
        });
        let lists = [&manifest.output, &manifest.deleted, &manifest.error];
        let items = lists.into_iter().enumerate().flat_map(|(list, items)| items.iter().map(move |item| (list, item)));
        let facts = |item: &ManifestItem| {
            item.facts().map(|f| FileStats { bytes: f.bytes, file_bytes: f.file_bytes, digest: f.digest })
        };
        let file = |(list, item): (usize, &ManifestItem)| {
            (list, item.r#type.clone(), item.count, facts(item), read(item.file_name()))
        };
        Published { head, files: items.map(file).collect() }
    }
}

/// Requests whose jobs are compared: with deletions, messages, several files a type; coded.
fn requests() -> [ExportRequest; 3] {
    let mut coded = everything().compression(Compression::Gzip);
    coded.bounds = FileBounds { file_bytes: 900, file_resources: Some(7) };
    [everything(), changes(), coded]
}

#[test]
fn any_number_of_tasks_gives_the_same_export() {
    let world = World::new();
    for (i, request) in requests().into_iter().enumerate() {
        for tasks in [1, 3, 8, 21] {
            let root = world.path(&format!("job-{i}-{tasks}"));
            let job = Job { store: world.store(), root, request: request.clone(), tasks };
            let done = job.finish("a");
            assert!(!done.was_committed && done.removed.is_empty());
            assert_eq!(job.published(), job.expected(), "{i}, {tasks} tasks");
            assert!(job.commit().unwrap().was_committed);
        }
    }
}

/// Copies of a directory as it is before each change that `work` makes beneath it, and at the end.
fn states(root: &Path, copies: &Path, work: impl FnOnce()) -> Vec<PathBuf> {
    let count = Arc::new(AtomicUsize::new(0));
    let (from, to, counted) = (root.to_path_buf(), copies.to_path_buf(), count.clone());
    let look = move || {
        if from.exists() {
            copy(&from, &to.join(counted.fetch_add(1, SeqCst).to_string()));
        }
    };
    watching(root, look, work);
    (0..count.load(SeqCst)).map(|state| copies.join(state.to_string())).filter(|state| state.exists()).collect()
}

#[test]
fn a_job_may_be_killed_between_any_two_changes() {
    let world = World::new();
    for (i, request) in requests().into_iter().enumerate().skip(1) {
        let root = world.path("job");
        let job = Job { store: world.store(), root: root.clone(), request, tasks: 3 };
        let expected = job.expected();
        std::fs::create_dir(&root).unwrap();
        let states = states(&root, &world.path(&format!("states-{i}")), || {
            world.one_thread(|| {
                job.finish("a");
                // One that comes too late.
                job.run(1, "late").unwrap();
                job.commit().unwrap();
            });
        });
        assert!(states.len() > 40, "{}", states.len());
        for (number, state) in states.iter().enumerate() {
            std::fs::remove_dir_all(&root).unwrap();
            copy(state, &root);
            let before = root.join("manifest.json").exists();
            let done = job.finish("b");
            assert_eq!(
                (job.published() == expected, done.was_committed),
                (true, before),
                "request {i}, state {number}"
            );
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}

/// Attempts at once, commits at once, a task of a commit that stands, and one that never ran.
#[test]
fn attempts_and_commits_may_meet() {
    let world = World::new();
    let job = Job { store: world.store(), root: world.path("job"), request: everything(), tasks: 4 };
    job.plan().unwrap();
    assert!(matches!(job.commit(), Err(JobError::Missing { missing, tasks: 4 }) if missing == [0, 1, 2, 3]));
    std::thread::scope(|scope| {
        for attempt in ["a", "b", "c", "d"] {
            let job = &job;
            scope.spawn(move || (0..4).rev().for_each(|task| assert!(job.run(task, attempt).is_ok())));
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| job.commit().unwrap());
        }
    });
    assert_eq!(job.published(), job.expected());
    let TaskOutcome { record, is_own } = job.run(2, "zombie").unwrap();
    assert!(!is_own && record.attempt != "zombie");
    // One that was writing while the commit cleaned.
    std::fs::write(job.root.join("data/Observation/00001.zombie.ndjson"), "x").unwrap();
    std::fs::write(job.root.join("tasks/.2.json.zombie"), "x").unwrap();
    let foreign = ["data/notes.txt", "data/mine/Patient.00001.ndjson", "data/Observation/mine.ndjson.bak"];
    std::fs::create_dir(job.root.join("data/mine")).unwrap();
    foreign.iter().for_each(|name| std::fs::write(job.root.join(name), "somebody else's").unwrap());
    let removed = job.commit().unwrap().removed;
    assert_eq!(removed, ["data/Observation/00001.zombie.ndjson", "tasks/.2.json.zombie"]);
    foreign.iter().for_each(|name| std::fs::remove_file(job.root.join(name)).unwrap());
    assert_eq!(job.published(), job.expected());
    // A plan is made once.
    assert!(job.plan().is_err());
}

/// Of several planners at once one plans, and what it has written is what its tasks find.
#[test]
fn one_of_many_planners_plans() {
    let world = World::new();
    for round in 0..5 {
        let root = world.path(&format!("job-{round}"));
        let job = Job { store: world.store(), root, request: changes(), tasks: 2 };
        let planned = std::thread::scope(|scope| {
            let planners: Vec<_> = (0..4).map(|_| scope.spawn(|| job.plan().is_ok())).collect();
            planners.into_iter().map(|planner| planner.join().unwrap()).filter(|ok| *ok).count()
        });
        assert_eq!(planned, 1);
        job.finish("a");
        assert_eq!(job.published(), job.expected());
    }
}

/// Another attempt has ended first, with other bytes: told, and its record stands.
#[test]
fn attempts_that_differ_are_told() {
    let world = World::new();
    let root = world.path("job");
    let job = Job { store: world.store(), root: root.clone(), request: everything(), tasks: 1 };
    job.plan().unwrap();
    for is_same in [true, false] {
        let mut other = job.run(0, "first").unwrap().record;
        std::fs::remove_file(root.join("tasks/0.json")).unwrap();
        if !is_same {
            other.files[0].digest = other.files[1].digest.clone();
        }
        let plan = JobPlan::read(&JobRoot { directory: Directory::open(&root).unwrap(), sync: FileSync::No }).unwrap();
        let other = TaskRecord::new(&plan, 0, "first", other.files).to_bytes();
        let (record, own) = (root.join("tasks/0.json"), root.join("tasks/.0.json.second"));
        let written = other.clone();
        // Just before the record of this attempt gets its name.
        let look = move || {
            if own.exists() && !record.exists() {
                std::fs::write(&record, &written).unwrap();
            }
        };
        let outcome = watching(&root, look, || job.run(0, "second"));
        match (is_same, outcome) {
            (true, Ok(TaskOutcome { is_own: false, .. })) | (false, Err(JobError::Differs(_))) => {}
            (_, outcome) => panic!("{is_same}: {outcome:?}"),
        }
        assert_eq!(std::fs::read(root.join("tasks/0.json")).unwrap(), other);
        assert!(!tree(&root).keys().any(|name| name.contains("second")), "its files are gone");
        let committed = job.commit();
        assert_eq!(is_same, !matches!(committed, Err(JobError::Differs(_))), "{committed:?}");
        std::fs::remove_file(root.join("tasks/0.json")).unwrap();
        std::fs::remove_file(root.join("manifest.json")).ok();
    }
}

/// A record whose directory cannot be synced stands, and so do its files.
#[test]
fn a_record_that_is_not_synced_keeps_its_files() {
    let world = World::new();
    let job = Job { store: world.store(), root: world.path("job"), request: everything(), tasks: 1 };
    job.plan().unwrap();
    let (store, root) = (job.store.root(), job.root.canonicalize().unwrap());
    let request = TaskRequest { store, job: &root, task: 0, attempt: "a", sync: FileSync::Yes };
    let failed = failing_syncs(&root.join("tasks"), || true, || run_task(&request, &Progress::default()));
    assert!(matches!(failed, Err(JobError::Io { .. })), "{failed:?}");
    assert!(!job.run(0, "b").unwrap().is_own);
    job.commit().unwrap();
    assert_eq!(job.published(), job.expected());
}

/// A file is made by one of many, whose contents stand.
#[test]
fn one_of_many_makes_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (path, made) = (dir.path(), &made);
            scope.spawn(move || {
                let directory = Directory::open(path).unwrap();
                let root = JobRoot { directory, sync: FileSync::No };
                for file in 0..50 {
                    let text = writer.to_string();
                    let done = root.create_once(&format!("{file}"), &text, text.as_bytes()).unwrap();
                    if done == Creation::Made {
                        made.fetch_add(1, SeqCst);
                        assert_eq!(root.read(&format!("{file}")).unwrap().unwrap(), text.as_bytes());
                    }
                }
            });
        }
    });
    assert_eq!((made.into_inner(), tree(dir.path()).len()), (50, 50));
}

/// Every byte of every record flipped: refused, or what it was; the store changed: told; never another export.
#[test]
fn nothing_that_was_tampered_with_is_committed() {
    let world = World::new();
    let job = Job { store: world.store(), root: world.path("job"), request: changes(), tasks: 2 };
    job.plan().unwrap();
    let expected = job.expected();
    let whole: BTreeMap<String, Vec<u8>> = tree(&job.root);
    let restore = || {
        std::fs::remove_dir_all(&job.root).unwrap();
        for (name, bytes) in &whole {
            std::fs::create_dir_all(job.root.join(name).parent().unwrap()).unwrap();
            std::fs::write(job.root.join(name), bytes).unwrap();
        }
        std::fs::create_dir_all(job.root.join("tasks")).unwrap();
    };
    let refused = |error: &JobError| matches!(error, JobError::Refused(_));
    for (name, bytes) in whole.iter().filter(|(name, _)| *name == "plan.json" || name.starts_with("spans/")) {
        for at in (0..bytes.len()).step_by((bytes.len() / 60).max(1)) {
            restore();
            let mut other = bytes.clone();
            other[at] ^= 1 << (at % 8);
            std::fs::write(job.root.join(name), &other).unwrap();
            let outcomes = [job.run(0, "a"), job.run(1, "a")];
            let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect::<Vec<_>>();
            assert!(!failed.is_empty() && failed.iter().all(|error| refused(error)), "{name} at {at}: {failed:?}");
            assert!(job.commit().is_err());
        }
    }
    restore();
    (0..2).for_each(|task| drop(job.run(task, "a").unwrap()));
    let record = std::fs::read(job.root.join("tasks/0.json")).unwrap();
    for at in 0..record.len() {
        let mut other = record.clone();
        other[at] ^= 1 << (at % 8);
        std::fs::write(job.root.join("tasks/0.json"), &other).unwrap();
        let done = job.commit();
        assert!(done.as_ref().is_err_and(refused), "record at {at}: {done:?}");
    }
    std::fs::write(job.root.join("tasks/0.json"), &record).unwrap();
    job.commit().unwrap();
    assert_eq!(job.published(), expected);
    // Another directory, another task, another store, another attempt.
    let moved = world.path("moved");
    std::fs::rename(&job.root, &moved).unwrap();
    let elsewhere = Job { store: world.store(), root: moved.clone(), request: changes(), tasks: 2 };
    assert!(elsewhere.run(0, "a").is_err_and(|error| refused(&error)) && elsewhere.commit().is_err());
    std::fs::rename(&moved, &job.root).unwrap();
    for (task, attempt) in [(2, "a"), (0, "a/b"), (0, "")] {
        assert!(job.run(task, attempt).is_err_and(|error| refused(&error)), "{task} {attempt:?}");
    }
    // The store.
    restore();
    append(&world.store().root().join("rows.ndjson"), &["{}".to_string()]);
    assert!(matches!(job.run(0, "a"), Err(JobError::Drifted(_))));
    assert!(tree(&job.root) == whole, "an attempt that failed leaves nothing");
}
