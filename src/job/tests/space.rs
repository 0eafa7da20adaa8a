//! Room on the disk: jobs reserve it when they are planned, wait for it, fail for want of it, and no client takes all.

use super::*;
use crate::sys::disk::DiskSpace;

/// Bytes of all files beneath a directory.
fn bytes_beneath(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_beneath(&entry.path()),
        found => found.map_or(0, |found| found.len()),
    };
    entries.map(of).sum()
}

/// Limits by which any client may fill the disk.
fn whole_disk() -> JobLimits {
    JobLimits { disk_high_water: 100, client_disk_share: 100, ..JobLimits::default() }
}

/// An engine whose files lie on a disk of so many bytes, which can be changed.
fn open_on_disk(world: &World, limits: JobLimits, total: &Arc<AtomicU64>) -> JobEngine {
    let (files, total) = (world.path("data/files"), total.clone());
    let disk_space = move |_: &Path| {
        let total = total.load(SeqCst);
        Ok(DiskSpace { total, free: total.saturating_sub(bytes_beneath(&files)) })
    };
    JobEngine::open(EngineOptions { disk_space: Box::new(disk_space), ..world.options(limits) }).unwrap()
}

fn kick_off(world: &World, engine: &JobEngine, client: &str, compression: Compression) -> String {
    let mut kick_off = world.kick_off(engine, client, RecordedPopulation::AllPatients);
    kick_off.request.compression = compression;
    // Few files: their records are not counted by the tests.
    kick_off.request.bounds.file_bytes = 50_000;
    engine.kick_off(kick_off).unwrap().id
}

fn await_wait(engine: &JobEngine, id: &str, client: &str) -> JobView {
    wait("a job that waits for room", || match engine.find(id, "ig", client) {
        JobLookup::Job(view) if view.awaits_space => Some(view),
        JobLookup::Job(view) if view.record.state.is_active() => None,
        JobLookup::Job(view) => panic!("it has ended: {:?}", view.record),
        _ => panic!("the job is gone"),
    })
}

/// Bytes that are reserved for a plain job of everybody.
fn size_of_export(world: &World) -> u64 {
    let total = Arc::new(AtomicU64::new(1 << 40));
    let engine = open_on_disk(world, whole_disk(), &total);
    let id = kick_off(world, &engine, "a", Compression::None);
    let record = ended(&engine, &id, "a");
    let bytes: u64 = record.files.iter().map(|file| file.receipt.file_bytes).sum();
    assert!(engine.delete(&id, "ig", "a").unwrap());
    bytes + record.files.len() as u64 * 4096
}

/// EXPIRE-03: of two jobs at once that do not fit together one waits, while a small one passes it by, and goes on when the
/// other is deleted; none meets a full disk.
#[test]
fn a_job_waits_for_room() {
    let world = World::new(3000);
    let size = size_of_export(&world);
    let total = Arc::new(AtomicU64::new(size + size * 3 / 5));
    let engine = open_on_disk(&world, whole_disk(), &total);
    let ids = ["a", "b"].map(|client| (kick_off(&world, &engine, client, Compression::None), client));
    let waiting = wait("one that waits", || {
        ids.iter()
            .find(|(id, client)| matches!(engine.find(id, "ig", client), JobLookup::Job(view) if view.awaits_space))
    });
    let other = if waiting == &ids[0] { &ids[1] } else { &ids[0] };
    assert_eq!(ended(&engine, &other.0, other.1).state, JobState::Complete);
    let view = await_wait(&engine, &waiting.0, waiting.1);
    assert!(view.record.state == JobState::Running && view.percent == 0 && view.planned.is_some());
    let mut small = world.kick_off(&engine, "c", RecordedPopulation::StoreGroup("g".into()));
    small.request.bounds.file_bytes = 50_000;
    let small = engine.kick_off(small).unwrap().id;
    assert_eq!(ended(&engine, &small, "c").state, JobState::Complete);
    await_wait(&engine, &waiting.0, waiting.1);
    assert!(engine.delete(&other.0, "ig", other.1).unwrap());
    assert_eq!(ended(&engine, &waiting.0, waiting.1).state, JobState::Complete);
}

/// STATUS-08: a job that gets no room in time fails with a reason, and keeps nobody waiting; one that can never fit fails at
/// once. Another try succeeds when there is room. One that waits can be deleted, and is planned anew after a restart.
#[test]
fn a_job_without_room_fails() {
    let world = World::new(600);
    let size = size_of_export(&world);
    let total = Arc::new(AtomicU64::new(size + size / 2));
    let limits = JobLimits { space_wait_seconds: 100, ..whole_disk() };
    let engine = open_on_disk(&world, limits, &total);
    let first = kick_off(&world, &engine, "a", Compression::None);
    assert_eq!(ended(&engine, &first, "a").state, JobState::Complete);
    let second = kick_off(&world, &engine, "a", Compression::None);
    await_wait(&engine, &second, "a");
    world.tick(99);
    await_wait(&engine, &second, "a");
    world.tick(1);
    let failed = ended(&engine, &second, "a");
    let failure = failed.failure.as_ref().unwrap();
    assert!(failure.reason.contains("no room on the disk"), "{failure:?}");
    assert!(failure.detail.contains("more bytes"), "{failure:?}");
    total.store(4 * size, SeqCst);
    assert!(matches!(engine.retry(&second, "ig", "a").unwrap(), RetryOutcome::Accepted));
    assert_eq!(ended(&engine, &second, "a").state, JobState::Complete);
    drop(engine);
    // For ever too small; then too small for now, deleted, and over a restart.
    let engine = open_on_disk(&world, whole_disk(), &total);
    for id in [&first, &second] {
        assert!(engine.delete(id, "ig", "a").unwrap());
        wait("the directory to go", || (!world.path(&format!("data/files/{id}")).exists()).then_some(()));
    }
    total.store(size / 2, SeqCst);
    let large = kick_off(&world, &engine, "a", Compression::None);
    assert!(ended(&engine, &large, "a").failure.as_ref().unwrap().reason.contains("no room on the disk"));
    total.store(size + size / 2, SeqCst);
    let first = kick_off(&world, &engine, "a", Compression::None);
    assert_eq!(ended(&engine, &first, "a").state, JobState::Complete);
    let [deleted, kept] = [(); 2].map(|()| kick_off(&world, &engine, "a", Compression::None));
    await_wait(&engine, &deleted, "a");
    assert!(engine.delete(&deleted, "ig", "a").unwrap());
    wait("the directory to go", || (!world.path(&format!("data/files/{deleted}")).exists()).then_some(()));
    await_wait(&engine, &kept, "a");
    drop(engine);
    let engine = open_on_disk(&world, whole_disk(), &total);
    await_wait(&engine, &kept, "a");
    assert!(engine.delete(&first, "ig", "a").unwrap());
    assert_eq!(ended(&engine, &kept, "a").state, JobState::Complete);
}

/// Compressed files are reserved for as small as earlier ones came out, those of before a restart included.
#[test]
fn room_for_compressed_files_is_measured() {
    let world = World::new(3000);
    let size = size_of_export(&world);
    let total = Arc::new(AtomicU64::new(size * 6 / 10));
    let engine = open_on_disk(&world, whole_disk(), &total);
    let first = kick_off(&world, &engine, "a", Compression::Zstd);
    let done = ended(&engine, &first, "a");
    assert_eq!(done.state, JobState::Complete, "half of its lines fits: {:?}", done.failure);
    let coded: u64 = done.files.iter().map(|file| file.receipt.file_bytes).sum();
    assert!(coded < size / 3, "{coded} of {size}");
    drop(engine);
    // Room for what one will take by measure, but not for half of its lines.
    let kept = bytes_beneath(&world.path("data/files"));
    total.store(kept + size * 45 / 100, SeqCst);
    let engine = open_on_disk(&world, whole_disk(), &total);
    let second = kick_off(&world, &engine, "a", Compression::Zstd);
    assert_eq!(ended(&engine, &second, "a").state, JobState::Complete);
}

/// KICK-12: files of one client, those of a failed job included, take no more than its share of the disk; another client is
/// not held up.
#[test]
fn a_client_has_a_share_of_the_disk() {
    let world = World::new(600);
    let size = size_of_export(&world);
    let total = Arc::new(AtomicU64::new(3 * size));
    let limits = JobLimits { client_disk_share: 50, ..whole_disk() };
    let mut engine = open_on_disk(&world, limits.clone(), &total);
    let first = kick_off(&world, &engine, "a", Compression::None);
    assert_eq!(ended(&engine, &first, "a").state, JobState::Complete);
    for restart in [false, true] {
        if restart {
            drop(engine);
            engine = open_on_disk(&world, limits.clone(), &total);
        }
        let second = kick_off(&world, &engine, "a", Compression::None);
        await_wait(&engine, &second, "a");
        let other = kick_off(&world, &engine, "b", Compression::None);
        assert_eq!(ended(&engine, &other, "b").state, JobState::Complete);
        assert!(engine.delete(&other, "ig", "b").unwrap());
        await_wait(&engine, &second, "a");
        assert!(engine.delete(&second, "ig", "a").unwrap());
    }
    let second = kick_off(&world, &engine, "a", Compression::None);
    await_wait(&engine, &second, "a");
    assert!(engine.delete(&first, "ig", "a").unwrap());
    assert_eq!(ended(&engine, &second, "a").state, JobState::Complete);
}
