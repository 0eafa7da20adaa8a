//! The patients of finished exports, kept for increments on them (GROUP-11).

use super::*;
use crate::write::manifest::EXPORT_KEY;

/// Runs an export of the Group `g` to its end; its record.
fn exported(world: &World, engine: &JobEngine, client: &str, change: impl FnOnce(&mut KickOff)) -> Arc<JobRecord> {
    world.tick(10);
    let mut kick_off = world.kick_off(engine, client, RecordedPopulation::StoreGroup("g".into()));
    change(&mut kick_off);
    let mount = kick_off.mount.clone();
    let id = engine.kick_off(kick_off).unwrap().id;
    wait("the end of a job", || match engine.find(&id, &mount, client) {
        JobLookup::Job(view) if view.record.state == JobState::Complete => Some(view.record),
        _ => None,
    })
}

/// Whether an increment on an export finds its patients.
fn is_built_on(record: &JobRecord) -> bool {
    let facts = &record.extension[EXPORT_KEY];
    let built = record.request.baseline.is_some();
    assert_eq!(record.departed.is_some(), built);
    assert_eq!(facts.get("baseline").is_some(), built, "{facts}");
    assert_eq!(facts["newMembers"].get("unknown").is_none(), built, "{facts}");
    built
}

/// Names of the files that are kept.
fn kept(world: &World) -> Vec<String> {
    let names = std::fs::read_dir(world.path("data/files/baselines")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The baseline is that of the same client, mount, Group, T and question, with the same types or more, and outlives the job, a
/// restart and the expiry; nothing else is one.
#[test]
fn increments_build_on_the_export_of_the_same_client() {
    let world = World::new(60);
    let engine = world.open(JobLimits::default());
    let of_types = |types: &[&str]| types.iter().map(|of| of.to_string()).collect::<Vec<_>>();
    let two = of_types(&["Condition", "Observation"]);
    let first = exported(&world, &engine, "a", |kick_off| kick_off.request.types = two.clone());
    let since = |kick_off: &mut KickOff| {
        kick_off.request.since = Some(first.transaction_time.clone());
        kick_off.request.types = two.clone();
    };
    let increment = |engine: &JobEngine, client: &str, change: &dyn Fn(&mut KickOff)| {
        is_built_on(&exported(&world, engine, client, |kick_off| {
            since(kick_off);
            change(kick_off);
        }))
    };
    assert!(increment(&engine, "a", &|_| {}));
    assert!(increment(&engine, "a", &|kick_off| kick_off.request.types = of_types(&["Observation"])));
    assert!(!increment(&engine, "a", &|kick_off| kick_off.request.types.clear()));
    assert!(!increment(&engine, "a", &|kick_off| kick_off.request.types = of_types(&["Encounter", "Observation"])));
    assert!(!increment(&engine, "a", &|kick_off| kick_off.request.members = MembershipRule::Listed));
    assert!(!increment(&engine, "a", &|kick_off| kick_off.request.elements = vec!["id".into()]));
    assert!(!increment(&engine, "a", &|kick_off| {
        (kick_off.only_patients, kick_off.request.only_patients) = (Some(vec!["p1".into()]), Some(1));
    }));
    assert!(!increment(&engine, "a", &|kick_off| kick_off.mount = "netsmart".into()));
    assert!(!increment(&engine, "b", &|_| {}));
    assert!(!increment(&engine, "a", &|kick_off| {
        kick_off.request.since = Some("2024-01-01T00:00:10.001Z".into());
    }));
    let ignored = exported(&world, &engine, "a", |kick_off| {
        since(kick_off);
        kick_off.request.new_members = NewMembers::Ignore;
    });
    assert!(ignored.request.baseline.is_none() && ignored.extension[EXPORT_KEY].get("newMembers").is_none());
    // Without its job, and over a restart.
    assert!(engine.delete(&first.id, "ig", "a").unwrap());
    let directory = world.path("data/files").join(&first.id);
    wait("the removal of its directory", || (!directory.exists()).then_some(()));
    assert!(increment(&engine, "a", &|_| {}));
    drop(engine);
    let engine = world.open(JobLimits::default());
    assert!(increment(&engine, "a", &|_| {}) && !increment(&engine, "b", &|_| {}));
    // What somebody has changed is no baseline, and costs no export.
    let keys = world.path("data/files/baselines").join(format!("{}.keys", first.id));
    let mut bytes = std::fs::read(&keys).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&keys, &bytes).unwrap();
    let record = exported(&world, &engine, "a", since);
    assert!(record.departed.is_none() && record.extension[EXPORT_KEY]["newMembers"]["unknown"] == 2);
    drop(engine);
    let json = keys.with_extension("json");
    std::fs::write(&json, std::fs::read_to_string(&json).unwrap().replace("\"g\"", "\"h\"")).unwrap();
    let engine = world.open(JobLimits::default());
    assert!(!increment(&engine, "a", &|_| {}) && json.exists(), "what cannot be read is left as it is");
    // Nobody asks for one that is as old as this.
    world.tick(401 * 24 * 3600);
    engine.reap();
    assert_eq!(kept(&world), [format!("{}.json", first.id), format!("{}.keys", first.id)]);
}

/// Of a Group so many are kept, the newest; what a crash leaves is removed, and what it took is made again.
#[test]
fn so_many_are_kept() {
    let world = World::new(30);
    let engine = world.open(JobLimits { kept_baselines: 2, ..JobLimits::default() });
    let jobs: Vec<Arc<JobRecord>> = (0..4).map(|_| exported(&world, &engine, "a", |_| {})).collect();
    let other = exported(&world, &engine, "b", |_| {});
    let of = |jobs: &[&Arc<JobRecord>]| {
        let files = jobs.iter().flat_map(|job| ["json", "keys"].map(|ending| format!("{}.{ending}", job.id)));
        let mut files: Vec<String> = files.collect();
        files.sort();
        files
    };
    assert_eq!(kept(&world), of(&[&jobs[2], &jobs[3], &other]));
    drop(engine);
    let baselines = world.path("data/files/baselines");
    std::fs::remove_file(baselines.join(format!("{}.json", other.id))).unwrap();
    std::fs::write(baselines.join(format!("{:032x}.keys", 1)), "x").unwrap();
    std::fs::write(baselines.join(format!(".{:032x}.json.part", 1)), "x").unwrap();
    std::fs::write(baselines.join("notes.txt"), "of somebody else").unwrap();
    let engine = world.open(JobLimits { kept_baselines: 1, ..JobLimits::default() });
    let mut expected = of(&[&jobs[3], &other]);
    expected.push("notes.txt".to_string());
    assert_eq!(kept(&world), expected);
    drop(engine);
    let _engine = world.open(JobLimits { kept_baselines: 0, ..JobLimits::default() });
    assert_eq!(kept(&world), ["notes.txt"]);
}
