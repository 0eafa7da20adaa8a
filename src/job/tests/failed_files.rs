//! What a failed job has written goes after a while; another try writes it anew, of the same snapshot, or is refused.

use super::*;

/// A failed job of an engine, half of it written, and its output directory.
fn failed(world: &World, engine: &JobEngine) -> (Arc<JobRecord>, PathBuf) {
    let kick_off = KickOff { keep_seconds: None, ..world.kick_off(engine, "a", RecordedPopulation::AllPatients) };
    let (id, lock) = waiting(world, engine, kick_off);
    let out = world.path(&format!("data/files/{id}/out"));
    let block = out.join("Encounter.00002.ndjson");
    *world.block.lock().unwrap() = Some(block.clone());
    drop(lock);
    let failed = ended(engine, &id, "a");
    assert_eq!(failed.state, JobState::Failed);
    assert!(failed.planned.unwrap().complete > 0);
    std::fs::remove_dir_all(block).unwrap();
    (failed, out)
}

fn record(engine: &JobEngine, id: &str) -> Arc<JobRecord> {
    match engine.find(id, "ig", "a") {
        JobLookup::Job(view) => view.record,
        _ => panic!("the job is gone"),
    }
}

/// Names in a directory, ascending.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// EXPIRE-03: they stay for as long as was set, then all but the plan go and the record stays, on a mount without retention,
/// too; also where the service starts anew between.
#[test]
fn files_of_failed_jobs_go() {
    for restart in [false, true] {
        let world = World::new(600);
        let limits = JobLimits { attempts: 1, failed_seconds: 100, ..JobLimits::default() };
        let mut engine = world.open(limits.clone());
        let (before, out) = failed(&world, &engine);
        world.tick(99);
        engine.reap();
        assert!(names(&out).len() > 1 && !record(&engine, &before.id).files_removed);
        if restart {
            drop(engine);
            engine = world.open(limits);
        }
        world.tick(2);
        engine.reap();
        assert_eq!(
            (names(&out), names(&out.join(".outpour-job"))),
            (vec![".outpour-job".into()], vec!["plan.json".into()])
        );
        let after = record(&engine, &before.id);
        assert!(after.files_removed && after.state == JobState::Failed && after.failure == before.failure);
        assert_eq!(after.planned, before.planned.map(|planned| PlannedCounts { complete: 0, ..planned }));
        // What came to the store since is of no concern to another try.
        append(&world.path("store/more.ndjson"), &[r#"{"resourceType":"Patient","id":"newer"}"#.into()]);
        engine.index_and_wait(Duration::from_secs(60));
        assert!(matches!(engine.retry(&before.id, "ig", "a").unwrap(), RetryOutcome::Accepted));
        let done = ended(&engine, &before.id, "a");
        assert_eq!((done.state, &done.transaction_time), (JobState::Complete, &before.transaction_time));
        assert!(!done.files_removed);
        let rows: u64 =
            done.files.iter().filter(|file| file.kind == RecordKind::Output).map(|file| file.receipt.count).sum();
        assert_eq!(rows, before.planned.unwrap().rows);
        assert!(contents(&engine, &done).iter().all(|(_, bytes)| !String::from_utf8_lossy(bytes).contains("newer")));
    }
}

/// ONEUP-M05: where the store no longer has what the job began with, another try is refused and the job stays as it was.
#[test]
fn another_try_of_what_is_gone_is_refused() {
    let world = World::new(600);
    let limits = JobLimits { attempts: 1, failed_seconds: 100, ..JobLimits::default() };
    let engine = world.open(limits);
    let (before, _) = failed(&world, &engine);
    world.tick(101);
    engine.reap();
    let rows = world.path("store/rows.ndjson");
    let text = std::fs::read_to_string(&rows).unwrap().replace("\"r7\"", "\"x7\"");
    std::fs::write(&rows, text).unwrap();
    for _ in 0..2 {
        assert!(matches!(engine.retry(&before.id, "ig", "a").unwrap(), RetryOutcome::SnapshotGone));
        assert_eq!(record(&engine, &before.id).state, JobState::Failed);
    }
}

/// A complete job keeps no copy of the Group that it was made of, and a failed one does: another try needs it.
#[test]
fn a_complete_job_keeps_no_group() {
    let world = World::new(30);
    let engine = world.open(JobLimits::default());
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::Patient("p1".into()))).unwrap().id;
    assert_eq!(ended(&engine, &id, "a").state, JobState::Complete);
    let directory = world.path(&format!("data/files/{id}"));
    wait("its copy to go", || (names(&directory) == ["out"]).then_some(()));
}
