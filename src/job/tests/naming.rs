//! Names of files that are short, the record of one user, and jobs that meet the first index.

use super::*;

/// ONEUP-S17: short file names begin with the resource type, and are unique on a mount over the jobs of all clients.
#[test]
fn short_names_are_reserved() {
    let world = World::new(60);
    let ids = world.ids.clone();
    let options = EngineOptions {
        // Eight digits that come again and again.
        random: Box::new(move || (u128::from(ids.fetch_add(1, SeqCst)) << 96 | 7).to_le_bytes()),
        ..world.options(JobLimits { active_per_client: 100, ..JobLimits::default() })
    };
    let engine = JobEngine::open(options).unwrap();
    let mut names = std::collections::HashSet::new();
    for round in 0..20 {
        world.ids.store(round, SeqCst);
        let client = if round % 2 == 0 { "a" } else { "b" };
        let kick_off =
            KickOff { naming: UrlNaming::Typed, ..world.kick_off(&engine, client, RecordedPopulation::System) };
        // The job's own id must be free too.
        let Ok(accepted) = engine.kick_off(kick_off) else { continue };
        for file in &ended(&engine, &accepted.id, client).files {
            let of = &file.receipt.r#type;
            let digits = file.id.strip_prefix(&format!("{of}_")).and_then(|rest| rest.strip_suffix(".ndjson")).unwrap();
            assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
            assert!(names.insert(file.id.clone()), "{}", file.id);
        }
    }
}

/// ONEUP-S01: a job for one patient exports the record of that patient and of no other.
#[test]
fn a_user_exports_one_record() {
    let world = World::new(70);
    let engine = world.open(JobLimits::default());
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::Patient("p3".into()))).unwrap().id;
    let record = ended(&engine, &id, "a");
    let files: String = contents(&engine, &record)
        .into_iter()
        .filter(|(name, _)| !name.starts_with("error"))
        .map(|(_, bytes)| String::from_utf8(bytes).unwrap())
        .collect();
    assert_eq!(files.lines().count(), 10);
    assert!(files.lines().all(|line| line.contains("Patient/p3")));
}

/// Jobs kicked off during the first index run end: no thread waits for a lock that it holds itself.
#[test]
fn jobs_end_that_meet_the_first_index() {
    for round in 0..12 {
        let world = World::new(300);
        for file in 0..40 {
            let line = |n: usize| format!(r#"{{"resourceType":"Basic","id":"b{file}-{n}"}}"#);
            append(&world.path(&format!("store/{file}.ndjson")), &(0..50).map(line).collect::<Vec<_>>());
        }
        let engine = Arc::new(world.open(JobLimits::default()));
        let indexing = engine.clone();
        let thread = std::thread::spawn(move || indexing.index_and_wait(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(round));
        let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
        assert_eq!(ended(&engine, &id, "a").state, JobState::Complete);
        assert!(thread.join().unwrap());
    }
}
