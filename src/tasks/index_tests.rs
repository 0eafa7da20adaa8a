//! The index of a store in tasks against the one that a refresh on one thread makes, byte for byte: random stores of every form,
//! new and on top of an index; tasks that are killed, run twice, or too late; stores that change; records that were tampered with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;

use crate::codec::decoder::tests::{gzip, zstd};
use crate::index::meta::{self, IndexMeta};
use crate::index::scan_plan::plan_scan;
use crate::index::test_lines::line;
use crate::progress::Progress;
use crate::simd::Kernel;
use crate::store::{Store, StoreOptions};
use crate::sys::directory::tests::watching;
use crate::sys::durability::FileSync;
use crate::tasks::attempt::TaskOutcome;
use crate::tasks::hashed_record::HashedRecord;
use crate::tasks::index_commit::{CommittedIndex, IndexCommitRequest, commit_index};
use crate::tasks::index_plan::{IndexJobOptions, IndexJobPlan, PlannedIndex, plan_index};
use crate::tasks::index_task::{IndexTaskRecord, run_index_task};
use crate::tasks::job_error::JobError;
use crate::tasks::job_plan::TaskPlan;
use crate::tasks::run_task::TaskRequest;

/// Names of writers and jobs that were given.
static NAMES: AtomicUsize = AtomicUsize::new(0);

/// A store with two index directories: one for a refresh on one thread, the other for tasks.
struct Twins {
    dir: tempfile::TempDir,
}

impl Twins {
    fn new() -> Twins {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        Twins { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self, index: &str) -> StoreOptions {
        StoreOptions { index_dir: Some(self.path(index)), allow_missing: 100.0, ..StoreOptions::default() }
    }

    fn store(&self, index: &str) -> Store {
        Store::open_with(self.path("store"), self.options(index)).unwrap()
    }

    /// Has one thread make the first index.
    fn refresh(&self) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| self.store("one").index(&Progress::default()).unwrap());
    }

    fn job(&self) -> IndexJob<'_> {
        IndexJob { twins: self, root: self.path(&format!("job-{}", NAMES.fetch_add(1, SeqCst))) }
    }

    /// The files of an index but the lock; of the index meta no stamps of index files, which no two of them share, and not whether
    /// those of store files were settled, which is a matter of the clock.
    fn files(&self, index: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(self.path(index)).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let mut bytes = std::fs::read(entry.path()).unwrap();
            if [meta::FILE, meta::TWIN].contains(&&*name) {
                let mut meta = IndexMeta::from_bytes(&bytes).unwrap();
                meta.containers.iter_mut().for_each(|file| file.stamp = None);
                meta.global.stamp = None;
                meta.files.iter_mut().for_each(|file| file.settled = true);
                bytes = meta.to_bytes();
            }
            files.insert(name, bytes);
        }
        files.remove("lock");
        files
    }

    #[track_caller]
    fn assert_same(&self) {
        let (one, tasks) = (self.files("one"), self.files("tasks"));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&one), names(&tasks));
        let different: Vec<&String> =
            one.iter().filter(|(name, bytes)| tasks[*name] != **bytes).map(|one| one.0).collect();
        let parsed = |files: &BTreeMap<String, Vec<u8>>| IndexMeta::from_bytes(&files[meta::FILE]);
        assert!(different.is_empty(), "{different:?}\n{:#?}\n{:#?}", parsed(&one), parsed(&tasks));
    }
}

/// A job of the second index.
struct IndexJob<'a> {
    twins: &'a Twins,
    root: PathBuf,
}

impl IndexJob<'_> {
    fn plan(&self, tasks: usize) -> PlannedIndex {
        let writer = format!("planner-{}", NAMES.fetch_add(1, SeqCst));
        let options = IndexJobOptions { job: &self.root, writer: &writer, tasks: Some(tasks), sync: FileSync::No };
        plan_index(&self.twins.store("tasks"), &options).unwrap()
    }

    fn run(&self, task: usize, attempt: &str) -> Result<TaskOutcome<IndexTaskRecord>, JobError> {
        let store = self.twins.path("store");
        let request = TaskRequest { store: &store, job: &self.root, task, attempt, sync: FileSync::No };
        run_index_task(&request, Kernel::detect(), &Progress::default())
    }

    fn commit(&self) -> Result<CommittedIndex, JobError> {
        let writer = format!("commit-{}", NAMES.fetch_add(1, SeqCst));
        let request = IndexCommitRequest {
            store: &self.twins.path("store"),
            options: self.twins.options("tasks"),
            job: &self.root,
            writer: &writer,
            sync: FileSync::No,
        };
        commit_index(request, &Progress::default())
    }

    /// Everything that is left to be done, as a driver that knows nothing does it.
    fn finish(&self, tasks: usize, attempt: &str) -> CommittedIndex {
        if !self.root.join("plan.json").exists() {
            self.plan(tasks);
        }
        for task in 0..tasks {
            self.run(task, attempt).unwrap();
        }
        self.commit().unwrap()
    }
}

/// A change of a store file: its number, what becomes of it, its lines, and where a member is cut or damaged.
type FileChange = (usize, u32, Vec<String>, usize);

fn file_change() -> impl Strategy<Value = FileChange> {
    (0..6usize, 0..10u32, prop::collection::vec(line(), 0..12), 0..400usize)
}

/// Changes files of a store: plain ones with and without a newline at their ends, gzip and zstd, whole and damaged.
fn change(store: &Path, changes: &[FileChange]) {
    for (number, how, lines, place) in changes {
        let suffix = ["", "", ".gz", ".zst", ".gz", ".zst"][*number];
        let path = store.join(format!("f{number}.ndjson{suffix}"));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut text = text.into_bytes();
        if *how == 0 {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        if *how == 1 {
            text.pop();
        }
        let mut bytes = match suffix {
            ".gz" => gzip(&text),
            ".zst" => zstd(&text),
            _ => text,
        };
        if *how == 2 && !suffix.is_empty() {
            let place = place % bytes.len();
            bytes[place] ^= 4;
        }
        let before = if *how < 6 { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        std::fs::write(&path, [before, bytes].concat()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// New indexes and those on top of others: of any store, by any number of tasks.
    #[test]
    fn an_index_in_tasks_is_that_of_one_thread(rounds in prop::collection::vec(prop::collection::vec(file_change(), 1..8), 1..4)) {
        let twins = Twins::new();
        std::fs::write(twins.path("store/first.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"p0\"}\n").unwrap();
        for (round, changes) in rounds.iter().enumerate() {
            change(&twins.path("store"), changes);
            twins.refresh();
            let job = twins.job();
            let done = job.finish([1, 3, 8, 21][round % 4], "a");
            prop_assert!(done.index.is_some());
            twins.assert_same();
            prop_assert!(job.commit().unwrap().index.is_none());
            twins.assert_same();
        }
    }
}

/// A store of several files, of which one is gzip.
fn some_store(twins: &Twins) {
    for file in 0..5 {
        let row = |n: usize| {
            format!(
                "{{\"resourceType\":\"Observation\",\"id\":\"o{file}-{n}\",\"subject\":{{\"reference\":\"Patient/p{n}\"}}}}\n"
            )
        };
        let text: String = (0..20).map(row).collect();
        let (name, bytes) = match file {
            3 => ("f3.ndjson.gz".to_string(), gzip(text.as_bytes())),
            _ => (format!("f{file}.ndjson"), text.into_bytes()),
        };
        std::fs::write(twins.path("store").join(name), bytes).unwrap();
    }
}

/// Every file below a directory.
fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(tree(&entry.path())),
            false => found.push((entry.path(), std::fs::read(entry.path()).unwrap())),
        }
    }
    found
}

/// Whatever a kill leaves of a job, a driver that begins again ends with the same index.
#[test]
fn a_job_of_an_index_may_be_killed_between_any_two_changes() {
    let twins = Twins::new();
    some_store(&twins);
    twins.refresh();
    let job = twins.job();
    std::fs::create_dir(&job.root).unwrap();
    let states: Arc<std::sync::Mutex<Vec<_>>> = Arc::default();
    let (root, seen) = (job.root.clone(), states.clone());
    let look = move || seen.lock().unwrap().push(tree(&root));
    watching(&job.root, look, || {
        job.finish(3, "a");
        job.run(1, "late").unwrap();
        job.commit().unwrap();
    });
    twins.assert_same();
    let states = states.lock().unwrap();
    assert!(states.len() > 15, "{}", states.len());
    for state in states.iter() {
        std::fs::remove_dir_all(&job.root).unwrap();
        let is_committed = state.iter().any(|(path, _)| path.ends_with("committed.json"));
        if !is_committed {
            // A kill before the commit has left the index as it was, or whole.
            std::fs::remove_dir_all(twins.path("tasks")).unwrap_or_default();
        }
        std::fs::create_dir(&job.root).unwrap();
        for (path, bytes) in state {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        job.finish(3, "b");
        twins.assert_same();
    }
    // Killed after the index was published, and before the job says so.
    std::fs::remove_file(job.root.join("committed.json")).unwrap();
    let done = job.commit().unwrap();
    assert_eq!(done.index.unwrap().1.scanned_bytes, 0);
    twins.assert_same();
}

/// Attempts at once and commits at once; tasks that have not ended.
#[test]
fn attempts_of_an_index_may_meet() {
    let twins = Twins::new();
    some_store(&twins);
    twins.refresh();
    let job = twins.job();
    let planned = job.plan(4);
    assert_eq!(planned.plan.tasks.concat().len(), 5);
    assert!(matches!(job.commit(), Err(JobError::Missing { missing, tasks: 4 }) if missing == [0, 1, 2, 3]));
    std::thread::scope(|scope| {
        for attempt in ["a", "b", "c"] {
            let job = &job;
            scope.spawn(move || (0..4).rev().for_each(|task| assert!(job.run(task, attempt).is_ok())));
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| job.commit().unwrap());
        }
    });
    twins.assert_same();
    assert!(!job.run(2, "zombie").unwrap().is_own);
    assert!(tree(&job.root.join("segments")).iter().all(|(path, _)| path.ends_with(".lock")), "{:?}", tree(&job.root));
}

/// What changed since the plan is refused, or is left to the next refresh, which finds it.
#[test]
fn a_store_that_changes_under_a_job() {
    let line = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    let grow = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap() + &line("new");
        std::fs::write(path, text).unwrap();
    };
    for when in ["before the tasks", "before the commit"] {
        // A plain file that grows, and a new one: what was planned is indexed, and the rest by the next refresh.
        let twins = Twins::new();
        some_store(&twins);
        let job = twins.job();
        job.plan(2);
        let append = || {
            grow(&twins.path("store/f1.ndjson"));
            std::fs::write(twins.path("store/late.ndjson"), line("late")).unwrap();
        };
        if when == "before the tasks" {
            append();
        }
        (0..2).for_each(|task| drop(job.run(task, "a").unwrap()));
        if when == "before the commit" {
            append();
        }
        let (index, _) = job.commit().unwrap().index.unwrap();
        assert_eq!(index.rows(), 100, "{when}");
        drop(index);
        let (index, work) = twins.store("tasks").index(&Progress::default()).unwrap();
        assert_eq!((index.rows(), work.scanned_segments), (102, 2), "{when}");

        // A compressed file that grows, one that is replaced, and one that is gone.
        for (name, how) in
            [("f3.ndjson.gz", "grown"), ("f1.ndjson", "replaced"), ("f1.ndjson", "gone"), ("f0.ndjson", "cut")]
        {
            let twins = Twins::new();
            some_store(&twins);
            let (job, path) = (twins.job(), twins.path("store").join(name));
            job.plan(2);
            let alter = || match how {
                "grown" => std::fs::write(&path, [std::fs::read(&path).unwrap(), gzip(b"{}\n")].concat()).unwrap(),
                "gone" => std::fs::remove_file(&path).unwrap(),
                "cut" => std::fs::write(&path, line("x")).unwrap(),
                _ => {
                    std::fs::copy(&path, twins.path("other")).unwrap();
                    std::fs::rename(twins.path("other"), &path).unwrap();
                }
            };
            if when == "before the tasks" {
                alter();
                let runs = [job.run(0, "a"), job.run(1, "a")];
                let drifted = runs.iter().filter(|run| matches!(run, Err(JobError::Drifted(_)))).count();
                assert_eq!(drifted, 1, "{how}: {runs:?}");
            } else {
                (0..2).for_each(|task| drop(job.run(task, "a").unwrap()));
                alter();
                assert!(matches!(job.commit(), Err(JobError::Drifted(_))), "{how}");
            }
        }
    }
}

/// A plain file that was changed in place between plan and task, with a stamp that looks like growth: the index has what the task
/// read, and the next refresh compares it.
#[test]
fn what_was_read_is_compared_by_the_next_refresh() {
    let twins = Twins::new();
    some_store(&twins);
    let job = twins.job();
    job.plan(1);
    job.run(0, "a").unwrap();
    let path = twins.path("store/f0.ndjson");
    let altered = std::fs::read_to_string(&path).unwrap().replace("o0-3", "o0-X");
    std::fs::write(&path, altered).unwrap();
    let (index, _) = job.commit().unwrap().index.unwrap();
    drop(index);
    let (_, work) = twins.store("tasks").index(&Progress::default()).unwrap();
    assert_eq!(work.scanned_segments, 1);
    twins.refresh();
    let ids = |index: &str| {
        let (index, _) = twins.store(index).index(&Progress::default()).unwrap();
        let segments = index.segments().iter();
        let rows =
            segments.flat_map(|segment| (0..segment.rows()).map(|row| format!("{:?}", segment.row_id(row).unwrap())));
        rows.collect::<std::collections::BTreeSet<String>>()
    };
    assert_eq!(ids("one"), ids("tasks"));
}

/// An index that was made with links and is made again without is planned by the files that it is going to have.
#[test]
fn a_remade_index_has_the_files_of_its_own_choice() {
    let twins = Twins::new();
    let path = |name: &str| twins.path("store").join(name);
    std::fs::write(path("z.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    std::fs::write(path("y.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"b\"}\n").unwrap();
    // Of files that are one, the first in store order is read.
    std::os::unix::fs::symlink("z.ndjson", path("a.ndjson")).unwrap();
    for index in ["one", "tasks"] {
        let mut options = twins.options(index);
        options.choices.follow_symlinks = Some(true);
        Store::open_with(twins.path("store"), options).unwrap().index(&Progress::default()).unwrap();
    }
    let remade = |index: &str| {
        Store::open_with(twins.path("store"), StoreOptions { remake: true, ..twins.options(index) }).unwrap()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| remade("one").index(&Progress::default()).unwrap());
    let job = twins.job();
    let options = IndexJobOptions { job: &job.root, writer: "p", tasks: Some(1), sync: FileSync::No };
    plan_index(&remade("tasks"), &options).unwrap();
    job.run(0, "a").unwrap();
    let (index, _) = job.commit().unwrap().index.unwrap();
    assert_eq!(index.rows(), 2);
    twins.assert_same();
}

/// What is kept of a plain file that has changed and grown is the same whatever the number of threads that compare it.
#[test]
fn a_plan_does_not_depend_on_threads() {
    let twins = Twins::new();
    let path = twins.path("store/a.ndjson");
    let lines = |from: usize, id: &str| -> String {
        let line = |n: usize| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}{n:06}\"}}\n");
        (from..from + 1000).map(line).collect()
    };
    let mut text = String::new();
    for part in 0..3 {
        text += &lines(part * 1000, "p");
        std::fs::write(&path, &text).unwrap();
        twins.store("tasks").index(&Progress::default()).unwrap();
    }
    std::fs::write(&path, text.replacen("p000005", "x000005", 1) + &lines(3000, "p")).unwrap();
    let ranges = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| plan_scan(&twins.store("tasks")).unwrap().ranges)
    };
    let [one, two, eight] = [1, 2, 8].map(ranges);
    assert_eq!((&one, &one), (&two, &eight));
}

/// Another store or index, tasks that are none, plans and records that were tampered with, and containers that were damaged: each is
/// refused, and no index is made.
#[test]
fn what_is_not_of_the_job_is_refused() {
    let twins = Twins::new();
    some_store(&twins);
    let job = twins.job();
    let plan = job.plan(2).plan;
    assert!(matches!(job.run(2, "a"), Err(JobError::Refused(text)) if text.contains("0 to 1")));
    assert!(matches!(job.run(0, "a b"), Err(JobError::Refused(_))));
    let (other, planned) = (twins.path("other"), twins.path("store"));
    std::fs::create_dir(&other).unwrap();
    let request = TaskRequest { store: &other, job: &job.root, task: 0, attempt: "a", sync: FileSync::No };
    assert!(matches!(run_index_task(&request, Kernel::detect(), &Progress::default()), Err(JobError::Refused(_))));
    (0..2).for_each(|task| drop(job.run(task, "a").unwrap()));
    let commit_into = |store: &Path, index: &str| {
        let options = twins.options(index);
        let request = IndexCommitRequest { store, options, job: &job.root, writer: "w", sync: FileSync::No };
        commit_index(request, &Progress::default()).err()
    };
    assert!(matches!(commit_into(&planned, "elsewhere"), Some(JobError::Refused(_))));
    assert!(matches!(commit_into(&other, "tasks"), Some(JobError::Refused(_) | JobError::Drifted(_))));
    // Bytes of the plan, of the records and of the containers.
    for (path, bytes) in tree(&job.root).into_iter().filter(|(path, _)| !path.ends_with(".lock")) {
        for place in (0..bytes.len()).step_by(1 + bytes.len() / 150) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(job.commit(), Err(JobError::Refused(_))), "{} {place}", path.display());
        }
        for other in [&bytes[..bytes.len() / 2], &[&bytes[..], b"\n"].concat(), b""] {
            std::fs::write(&path, other).unwrap();
            assert!(matches!(job.commit(), Err(JobError::Refused(_))), "{}", path.display());
        }
        std::fs::write(&path, bytes).unwrap();
    }
    // Plans whose hash is right.
    let forged = |change: &dyn Fn(&mut IndexJobPlan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        IndexJobPlan::from_bytes(&plan.hashed().to_bytes()).map(drop)
    };
    assert_eq!(forged(&|_| ()), Ok(()));
    assert!(forged(&|plan| plan.files[0].name = "../../etc/passwd".into()).is_err());
    assert!(forged(&|plan| plan.files[0].name = "/etc/passwd".into()).is_err());
    assert!(forged(&|plan| plan.files[0].name = r"\x2e\x2e/a.ndjson".into()).is_err());
    assert!(forged(&|plan| plan.tasks[0][0].file = 99).is_err());
    assert!(forged(&|plan| plan.files.swap(0, 1)).is_err());
    assert!(forged(&|plan| plan.tasks.iter_mut().for_each(|ranges| ranges.retain(|range| range.file != 1))).is_err());
    assert!(forged(&|plan| plan.tasks.clear()).is_err());
    assert!(forged(&|plan| plan.build = "outpour 0.0.1".into()).is_err());
    assert!(!twins.path("tasks").join(meta::FILE).exists());
    job.commit().unwrap();
    twins.refresh();
    twins.assert_same();
}
