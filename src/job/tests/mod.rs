//! The job engine as its callers see it: against a plain export, across restarts, with a clock and ids set by the test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::codec::compression::Compression;
use crate::export::options::ExportOptions;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::group::lookup::MembershipRule;
use crate::group::member_filter::FilteredGroups;
use crate::hash::digest::DigestAlgorithm;
use crate::index::test_lines::append;
use crate::job::api::*;
use crate::job::engine::JobEngine;
use crate::job::record::*;
use crate::job::state::JobState;
use crate::policies::{Context, FileBounds, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished};
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;
use crate::sys::durability::FileSync;

mod baselines;
mod clock;
mod failed_files;
mod hostile_records;
mod naming;
mod space;

const START: &str = "2024-01-01T00:00:00Z";
/// A store, the directories of an engine, and the clock and ids of every engine opened on them.
pub(crate) struct World {
    dir: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    ids: Arc<AtomicU64>,
    /// Path of an output file to be blocked by a directory as soon as the plan of its job is written.
    block: Arc<Mutex<Option<PathBuf>>>,
}

impl World {
    /// A store of so many rows of seven patients, and a Group `g` of two of them.
    pub(super) fn new(rows: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let line = |n: usize| {
            let kind = ["Observation", "Condition", "Encounter"][n % 3];
            let owner = n % 7;
            format!(r#"{{"resourceType":"{kind}","id":"r{n}","subject":{{"reference":"Patient/p{owner}"}}}}"#)
        };
        let lines: Vec<String> = (0..rows).map(line).collect();
        append(&dir.path().join("store/rows.ndjson"), &lines);
        let members = r#"{"entity":{"reference":"Patient/p1"}},{"entity":{"reference":"Patient/p2"}}"#;
        let group =
            format!(r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{members}]}}"#);
        append(&dir.path().join("store/group.ndjson"), &[group]);
        let clock = Arc::new(AtomicI64::new(Instant::parse(START).unwrap().ticks));
        World { dir, clock, ids: Arc::default(), block: Arc::default() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn dir_path(&self) -> &Path {
        self.dir.path()
    }
    pub(super) fn open(&self, limits: JobLimits) -> JobEngine {
        // A process that another test has just started holds copies of this one's locks until it runs its program.
        for _ in 0..500 {
            match JobEngine::open(self.options(limits.clone())) {
                Err(OpenError::Busy { .. }) => std::thread::sleep(Duration::from_millis(10)),
                opened => return opened.unwrap(),
            }
        }
        panic!("the data directory stays locked");
    }

    pub(super) fn options(&self, limits: JobLimits) -> EngineOptions {
        let (clock, ids, block) = (self.clock.clone(), self.ids.clone(), self.block.clone());
        EngineOptions {
            store: Store::open(self.path("store")).unwrap(),
            records: self.path("data/jobs"),
            files: self.path("data/files"),
            threads: 2,
            limits,
            sync: FileSync::No,
            disk_space: Box::new(crate::sys::disk::disk_space),
            space: Arc::default(),
            // A job reads the clock between writing its plan and writing its files.
            clock: Box::new(move || {
                let mut block = block.lock().unwrap();
                let planned = |path: &PathBuf| path.with_file_name(".outpour-job").join("plan.json").exists();
                if let Some(path) = block.take_if(|path| planned(path)) {
                    // A file cannot be renamed over a directory that is not empty.
                    std::fs::create_dir_all(path.join("full")).unwrap();
                }
                Instant { ticks: clock.load(SeqCst), rest: Box::default() }
            }),
            random: Box::new(move || (u128::from(ids.fetch_add(1, SeqCst)) << 96 | 7).to_le_bytes()),
            words: &crate::issue::PLAIN_NAMES,
        }
    }

    pub(super) fn tick(&self, seconds: i64) {
        self.clock.fetch_add(seconds * TICKS_PER_SECOND, SeqCst);
    }

    pub(super) fn kick_off(&self, engine: &JobEngine, client: &str, population: RecordedPopulation) -> KickOff {
        KickOff {
            mount: "ig".into(),
            client: client.into(),
            url: "http://localhost/fhir/$export".into(),
            request: StoredRequest {
                new_members: NewMembers::Report,
                baseline: None,
                question: None,
                population,
                only_patients: None,
                associated: None,
                types: Vec::new(),
                type_filters: Vec::new(),
                elements: Vec::new(),
                since: None,
                until: None,
                members: MembershipRule::Active,
                scope: None,
                filtered_groups: FilteredGroups::Evaluated,
                member_filter_types: Vec::new(),
                absent_groups: Vec::new(),
                bound_client: false,
                fhir_bases: Vec::new(),
                context: Context::None,
                late: LateArrivals::Include,
                missing_last_updated: MissingLastUpdated::Include,
                vanished: Vanished::Report,
                patient_strict: PatientStrict::Any,
                bounds: FileBounds { file_bytes: 2000, file_resources: None },
                compression: Compression::None,
                digest: DigestAlgorithm::Xxh3,
                attachments: None,
                notes: Vec::new(),
            },
            group: None,
            scope: Vec::new(),
            only_patients: None,
            separate_status: false,
            view: engine.list_files().unwrap(),
            keep_seconds: Some(3600),
            naming: UrlNaming::Random,
        }
    }

    /// Paths of all files and directories that jobs have left under the data directory.
    fn remains(&self) -> Vec<String> {
        fn visit(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                found.push(entry.path().display().to_string());
                visit(&entry.path(), found);
            }
        }
        let mut found = Vec::new();
        visit(&self.path("data/files"), &mut found);
        visit(&self.path("data/jobs"), &mut found);
        // Who was in an export of a Group stays after its job.
        found.retain(|path| !path.contains("/files/baselines"));
        found.retain(|path| !path.ends_with("/.lock") && !path.ends_with("/.service"));
        found
    }
}

/// Polls until `poll` yields a value, for at least 20 seconds.
pub(crate) fn wait<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    for _ in 0..4000 {
        if let Some(found) = poll() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain: {what}");
}

pub(crate) fn ended(engine: &JobEngine, id: &str, client: &str) -> Arc<JobRecord> {
    wait("the end of a job", || match engine.find(id, "ig", client) {
        JobLookup::Job(view) if !view.record.state.is_active() => Some(view.record),
        JobLookup::Job(view) => {
            assert!(view.percent < 100);
            None
        }
        _ => panic!("the job is gone"),
    })
}

pub(crate) fn contents(engine: &JobEngine, record: &JobRecord) -> Vec<(String, Vec<u8>)> {
    let read = |file: &FileRecord| {
        let found = engine.file(&file.id, &record.mount, &record.client).unwrap().unwrap();
        assert_eq!(found.record.files[found.at], *file);
        (file.receipt.file.clone(), std::fs::read(found.root.join(found.place)).unwrap())
    };
    record.files.iter().map(read).collect()
}

/// The same snapshot, request and policies on the command line and as a job give the same bytes; a job is shown to its
/// own client and mount alone (DIALECT-01, STATUS-15), its ids tell nothing (KICK-14, FILE-20).
#[test]
fn a_job_writes_what_an_export_writes() {
    let world = World::new(500);
    let engine = world.open(JobLimits::default());
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::StoreGroup("g".into()))).unwrap().id;
    let record = ended(&engine, &id, "a");
    assert_eq!(
        (record.state, &record.transaction_time, &record.view),
        (JobState::Complete, &"2024-01-01T00:00:00.000Z".into(), &None)
    );
    let mut request = ExportRequest::group("g");
    (request.members, request.bounds) = (MembershipRule::Active, record.request.bounds);
    let options = ExportOptions::new(world.path("out")).sync(FileSync::No).clock(&|| Instant::parse(START).unwrap());
    let store = Store::open(world.path("store")).unwrap();
    let done = crate::export::export(&store, &request, Instant::parse(START).unwrap(), &options, &Progress::default())
        .unwrap();
    let files = contents(&engine, &record);
    assert!(files.len() > 6, "{}", files.len());
    let read = |file: &crate::write::journal::Receipt| {
        (file.file.clone(), std::fs::read(options.out.join(&file.file)).unwrap())
    };
    assert_eq!(files, done.files.iter().map(read).collect::<Vec<_>>());
    for (mount, client) in [("netsmart", "a"), ("ig", "b")] {
        assert!(matches!(engine.find(&id, mount, client), JobLookup::Unknown));
        assert!(!engine.delete(&id, mount, client).unwrap());
    }
    let file = &record.files[0].id;
    assert!(engine.file(file, "ig", "a").unwrap().is_some());
    for (id, mount, client) in [(&**file, "netsmart", "a"), (file, "ig", "b"), ("../../etc/passwd", "ig", "a")] {
        assert!(engine.file(id, mount, client).unwrap().is_none());
    }
    for id in record.files.iter().map(|file| &file.id).chain([&id]) {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// STATUS-18, KICK-13: the next engine finishes every job of a stopped one, with the same bytes and transactionTime.
#[test]
fn a_restart_goes_on_with_every_job() {
    let world = World::new(3000);
    let (good, mut t) = {
        let engine = world.open(JobLimits::default());
        let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::AllPatients)).unwrap().id;
        let record = ended(&engine, &id, "a");
        let good = (contents(&engine, &record), record.transaction_time.clone());
        engine.delete(&id, "ig", "a").unwrap();
        good
    };
    for round in 0..12 {
        let AcceptedJob { id, transaction_time } = {
            let engine = world.open(JobLimits::default());
            let accepted = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::AllPatients)).unwrap();
            std::thread::sleep(Duration::from_micros(round * 1500));
            accepted
        };
        assert!(transaction_time > Instant::parse(&t).unwrap(), "round {round}");
        t = transaction_time.to_string();
        // A clock that stepped back does not turn T back (CONS-06), and no T is given out twice.
        world.clock.store(Instant::parse(START).unwrap().ticks - 1000 * TICKS_PER_SECOND, SeqCst);
        let engine = world.open(JobLimits::default());
        let record = ended(&engine, &id, "a");
        assert_eq!((contents(&engine, &record), &record.transaction_time), (good.clone(), &t), "round {round}");
        let next = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap();
        assert!(next.transaction_time > transaction_time, "round {round}");
        assert!(engine.delete(&next.id, "ig", "a").unwrap() && engine.delete(&id, "ig", "a").unwrap());
    }
    drop(world.open(JobLimits::default()));
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// DELETE-01…05: a deleted job is unknown at once, and within a second nothing of it is left on disk.
#[test]
fn a_deleted_job_leaves_nothing() {
    let world = World::new(20_000);
    let engine = world.open(JobLimits::default());
    for round in 0..30 {
        let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::AllPatients)).unwrap().id;
        std::thread::sleep(Duration::from_micros(round * 1000));
        assert!(engine.delete(&id, "ig", "a").unwrap());
        assert!(matches!(engine.find(&id, "ig", "a"), JobLookup::Unknown));
        assert!(!engine.delete(&id, "ig", "a").unwrap(), "DELETE-04");
        let mut polls = 0;
        wait("an empty directory", || {
            polls += 1;
            world.remains().is_empty().then_some(())
        });
        assert!(polls < 200, "within a second");
        assert_eq!(engine.active(), 0);
    }
}

/// KICK-12: the bounds on active jobs of one client and of all clients hold; a refused kick-off makes no job (KICK-10).
#[test]
fn limits_hold() {
    let world = World::new(10);
    let limits = JobLimits { active_per_client: 2, active: 3, ..JobLimits::default() };
    let engine = world.open(limits.clone());
    // No job gets past its preparation while the lock of the index is held.
    std::fs::create_dir_all(world.path("store/.outpour")).unwrap();
    let lock = std::fs::File::create(world.path("store/.outpour/lock")).unwrap();
    lock.lock().unwrap();
    let kick = |client: &str| engine.kick_off(world.kick_off(&engine, client, RecordedPopulation::System));
    let ids = [kick("a").unwrap().id, kick("a").unwrap().id];
    assert!(matches!(kick("a"), Err(KickOffError::ClientBusy(2))));
    let other = kick("b").unwrap().id;
    assert!(matches!(kick("c"), Err(KickOffError::Busy)));
    assert_eq!(engine.active(), 3);
    assert!(engine.delete(&ids[1], "ig", "a").unwrap());
    let third = kick("c").unwrap().id;
    drop(lock);
    for (id, client) in [(&ids[0], "a"), (&other, "b"), (&third, "c")] {
        assert_eq!(ended(&engine, id, client).state, JobState::Complete);
    }
    drop(engine);
    let engine = world.open(JobLimits { disk_high_water: 0, ..limits });
    let refused = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System));
    assert!(matches!(refused, Err(KickOffError::DiskFull)), "EXPIRE-03");
    assert!(!engine.file(&ended(&engine, &ids[0], "a").files[0].id, "ig", "a").unwrap().unwrap().place.is_empty());
}

/// EXPIRE-01, EXPIRE-03, STATUS-13, FILE-10: a job is kept for its time, expired, then unknown, over restarts.
#[test]
fn jobs_expire() {
    for restart in [false, true] {
        let world = World::new(50);
        let limits = JobLimits { remembered_seconds: 100, ..JobLimits::default() };
        let engine = world.open(limits.clone());
        let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
        let mut kick_off = world.kick_off(&engine, "a", RecordedPopulation::System);
        kick_off.keep_seconds = None;
        let forever = engine.kick_off(kick_off).unwrap().id;
        assert_eq!(ended(&engine, &forever, "a").expires, None, "EXPIRE-04");
        let record = ended(&engine, &id, "a");
        assert_eq!(record.expires.as_deref(), Some("2024-01-01T01:00:00.000Z"));
        let mut held = Some(engine);
        let mut go_on = |seconds: i64| {
            world.tick(seconds);
            if restart {
                // One engine at a time has the directories.
                held = None;
                held = Some(world.open(limits.clone()));
            }
            let engine = held.as_ref().unwrap();
            engine.reap();
            match engine.find(&id, "ig", "a") {
                JobLookup::Job(_) => "there",
                JobLookup::Expired => "expired",
                JobLookup::Unknown => "unknown",
            }
        };
        assert_eq!(go_on(3599), "there");
        assert_eq!(go_on(1), "expired");
        assert_eq!(go_on(99), "expired");
        assert_eq!(go_on(1), "unknown");
        let engine = held.unwrap();
        assert!(engine.file(&record.files[0].id, "ig", "a").is_ok_and(|file| file.is_none()));
        let kept = ended(&engine, &forever, "a");
        assert!(!contents(&engine, &kept).is_empty());
        assert!(!world.remains().iter().any(|path| path.contains(&id)));
    }
}

/// While the record of a job is being written, which may take long, lookups of the job and its files do not wait.
#[test]
fn questions_do_not_wait_for_the_disk() {
    let world = World::new(50);
    let engine = Arc::new(world.open(JobLimits::default()));
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
    let file = ended(&engine, &id, "a").files[0].id.clone();
    let job = engine.inner.registry().jobs[&id].clone();
    let _writing = job.record_write.lock().unwrap();
    let (reported, answer) = std::sync::mpsc::channel();
    let reader = engine.clone();
    std::thread::spawn(move || {
        reader.reap();
        let found = matches!(reader.find(&id, "ig", "a"), JobLookup::Job(view) if view.asked_before);
        reported.send(found && reader.file(&file, "ig", "a").is_ok_and(|file| file.is_some()))
    });
    assert!(answer.recv_timeout(Duration::from_secs(20)).expect("an answer without the lock"));
}

/// STATUS-08, STATUS-10: a failed job gives its reason in words that name no path of the host.
#[test]
fn a_failed_job_says_why() {
    let world = World::new(50);
    let limits =
        JobLimits { faults_allowed: Some(crate::export::options::FaultsAllowed::Count(0)), ..JobLimits::default() };
    append(&world.path("store/rows.ndjson"), &["{".to_string()]);
    let engine = world.open(limits);
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
    let record = ended(&engine, &id, "a");
    let failure = record.failure.as_ref().unwrap();
    assert_eq!(record.state, JobState::Failed);
    assert!(failure.reason.contains("faulty lines") && !failure.reason.contains('/'), "{failure:?}");
    assert!(engine.delete(&id, "ig", "a").unwrap(), "DELETE-08");
    wait("an empty directory", || world.remains().is_empty().then_some(()));
}

/// GROUP-07, CONS-08: rows and Group versions written to the store after the kick-off are not exported.
#[test]
fn a_job_sees_the_store_as_it_was_asked() {
    let world = World::new(60);
    let engine = world.open(JobLimits::default());
    let lock = world.path("store/.outpour/lock");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let lock = std::fs::File::create(lock).unwrap();
    lock.lock().unwrap();
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::StoreGroup("g".into()))).unwrap().id;
    append(
        &world.path("store/group.ndjson"),
        &[r#"{"resourceType":"Group","id":"g","type":"person","actual":true}"#.into()],
    );
    append(
        &world.path("store/rows.ndjson"),
        &[r#"{"resourceType":"Condition","id":"late","subject":{"reference":"Patient/p1"}}"#.into()],
    );
    drop(lock);
    let record = ended(&engine, &id, "a");
    let rows: u64 =
        record.files.iter().filter(|file| file.kind == RecordKind::Output).map(|file| file.receipt.count).sum();
    assert_eq!(rows, 18);
    let again = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::StoreGroup("g".into()))).unwrap().id;
    assert_eq!(
        ended(&engine, &again, "a").files.iter().filter(|file| file.kind == RecordKind::Output).count(),
        0,
        "GROUP-05"
    );
}

/// A job that cannot be prepared fails once, while other workers look for work items; the engine goes on.
#[test]
fn many_jobs_fail_and_the_engine_goes_on() {
    let world = World::new(50);
    append(&world.path("store/rows.ndjson"), &["{".to_string()]);
    let faults_allowed = Some(crate::export::options::FaultsAllowed::Count(0));
    let limits = JobLimits { faults_allowed, active_per_client: 1000, active: 1000, ..JobLimits::default() };
    let engine = JobEngine::open(EngineOptions { threads: 8, ..world.options(limits) }).unwrap();
    for _ in 0..20 {
        let kick = |_| engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
        let ids: Vec<String> = (0..20).map(kick).collect();
        ids.iter().for_each(|id| assert_eq!(ended(&engine, id, "a").state, JobState::Failed));
    }
}

/// Foreign entries of the directory of files stay, and records that do not belong to the files are refused.
#[test]
fn nothing_of_anybody_else_is_removed() {
    let world = World::new(50);
    let own = world.path("data/files/my-notes");
    std::fs::create_dir_all(&own).unwrap();
    let engine = world.open(JobLimits::default());
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
    let record = ended(&engine, &id, "a");
    let files = contents(&engine, &record);
    drop(engine);
    let elsewhere = |records: &str| {
        JobEngine::open(EngineOptions { records: world.path(records), ..world.options(JobLimits::default()) }).err()
    };
    assert!(matches!(elsewhere("unmounted"), Some(OpenError::Strangers { .. })));
    let engine = world.open(JobLimits::default());
    assert_eq!(contents(&engine, &ended(&engine, &id, "a")), files);
    assert!(own.is_dir());
}

/// Kicks off a job that then waits for the lock of the index, with its output directory made; its id, and the lock.
fn waiting(world: &World, engine: &JobEngine, kick_off: KickOff) -> (String, std::fs::File) {
    engine.index_and_wait(Duration::from_secs(60));
    let lock = std::fs::File::create(world.path("store/.outpour/lock")).unwrap();
    lock.lock().unwrap();
    append(&world.path("store/more.ndjson"), &[r#"{"resourceType":"Patient","id":"new"}"#.into()]);
    let kick_off = KickOff { view: engine.list_files().unwrap(), ..kick_off };
    let id = engine.kick_off(kick_off).unwrap().id;
    wait("the job's directory", || world.path(&format!("data/files/{id}/out")).is_dir().then_some(()));
    (id, lock)
}

/// ONEUP-M05, ONEUP-S14, ONEUP-S15, ONEUP-S16, C-03: a retry keeps T and finished files; counters never go back.
#[test]
fn a_failed_job_is_tried_again() {
    for restart in [false, true] {
        let world = World::new(600);
        let limits = JobLimits { attempts: 2, ..JobLimits::default() };
        let engine = world.open(limits.clone());
        let kick_off = KickOff {
            naming: UrlNaming::Typed,
            keep_seconds: None,
            ..world.kick_off(&engine, "a", RecordedPopulation::AllPatients)
        };
        let (id, lock) = waiting(&world, &engine, kick_off);
        assert!(matches!(engine.retry(&id, "ig", "a").unwrap(), RetryOutcome::NotFailed(_)), "running");
        let out = world.path(&format!("data/files/{id}/out"));
        let block = out.join("Encounter.00002.ndjson");
        *world.block.lock().unwrap() = Some(block.clone());
        drop(lock);
        let failed = ended(&engine, &id, "a");
        assert_eq!(failed.state, JobState::Failed);
        let view = |engine: &JobEngine| match engine.find(&id, "ig", "a") {
            JobLookup::Job(view) => view,
            _ => panic!("the job is gone"),
        };
        let (before, planned) = (view(&engine), failed.planned.unwrap());
        assert!(planned.complete > 0 && planned.complete < planned.shards, "{planned:?}");
        assert_eq!(before.planned, Some(planned));
        let identity = |name: &str| {
            use std::os::unix::fs::MetadataExt;
            let file = std::fs::metadata(out.join(name)).ok()?;
            file.is_file().then(|| (file.ino(), file.mtime(), file.mtime_nsec()))
        };
        let finished: Vec<(String, _)> = std::fs::read_dir(&out)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.ends_with(".ndjson") && !name.starts_with('.'))
            .filter_map(|name| identity(&name).map(|identity| (name, identity)))
            .collect();
        assert_eq!(finished.len() as u64, planned.complete);
        std::fs::remove_dir_all(&block).unwrap();
        world.tick(5);
        let engine = match restart {
            true => {
                drop(engine);
                world.open(limits.clone())
            }
            false => engine,
        };
        let stays = view(&engine);
        assert!(
            stays.record.state == JobState::Failed
                && stays.changed >= before.changed
                && stays.planned == before.planned
        );
        for (mount, client) in [("oneup-mte", "a"), ("ig", "b")] {
            assert!(matches!(engine.retry(&id, mount, client).unwrap(), RetryOutcome::Unknown));
        }
        assert!(matches!(engine.retry(&id, "ig", "a").unwrap(), RetryOutcome::Accepted));
        let mut last = before;
        let done = wait("the second try", || {
            let now = view(&engine);
            let (a, b) = (last.planned.unwrap(), now.planned.unwrap());
            assert!(
                now.changed >= last.changed && b.complete >= a.complete && (a.rows, a.shards) == (b.rows, b.shards)
            );
            last = now;
            (!last.record.state.is_active()).then(|| last.record.clone())
        });
        assert_eq!((done.state, &done.transaction_time), (JobState::Complete, &failed.transaction_time));
        assert_eq!(done.planned, Some(PlannedCounts { complete: planned.shards, ..planned }));
        finished.iter().for_each(|(name, before)| assert_eq!(identity(name), Some(*before), "{name}"));
        let rows: u64 =
            done.files.iter().filter(|file| file.kind == RecordKind::Output).map(|file| file.receipt.count).sum();
        assert_eq!(rows, planned.rows);
        assert!(matches!(engine.retry(&id, "ig", "a").unwrap(), RetryOutcome::NotFailed(JobState::Complete)));
        assert!(!contents(&engine, &done).is_empty());
    }
}
