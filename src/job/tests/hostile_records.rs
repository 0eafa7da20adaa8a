//! Records written by another program: with any content, the engine opens, answers, reaps and works on, and touches
//! nothing outside the job's directory.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::job::api::*;
use crate::job::record::*;
use crate::job::state::JobState;
use crate::job::tests::{World, contents, ended, wait};

/// Values to put in place of every field of a record.
fn hostile() -> Vec<Value> {
    let texts =
        ["", "..", ".", "../..", "../../../etc/passwd", "/", "/etc/passwd", "a/b", "\0", "9999-99-99T00:00:00Z"];
    let mut values: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    values.extend([json!("9999-12-31T23:59:59-14:00"), json!("0001-01-01T00:00:00+14:00"), json!("x".repeat(9000))]);
    values.extend([json!(null), json!(true), json!(0), json!(-1), json!(u64::MAX), json!(i64::MIN), json!(1.5)]);
    values.extend([json!([]), json!({}), json!([[], {}, null]), json!({"files": [["../x", {}]]})]);
    values
}

/// Adds the JSON pointers of all values of a document, with `place` as the pointer of the document itself.
fn places(value: &Value, place: String, found: &mut Vec<String>) {
    found.push(place.clone());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            places(value, format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        // Only the first and the last element: the others are treated alike.
        Value::Array(items) => {
            let ends = [0, items.len().wrapping_sub(1)];
            let ends = items.iter().enumerate().filter(|(number, _)| ends.contains(number));
            ends.for_each(|(number, value)| places(value, format!("{place}/{number}"), found));
        }
        _ => {}
    }
}

/// Paths below a directory with their bytes, without the index, the records and the directory of the job.
fn tree(root: &Path, job: &str) -> BTreeMap<String, Option<Vec<u8>>> {
    fn visit(directory: &Path, found: &mut BTreeMap<String, Option<Vec<u8>>>, skip: &dyn Fn(&str) -> bool) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let name = path.to_str().unwrap().to_string();
            if skip(&name) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                found.insert(name, None);
                visit(&path, found, skip);
            } else {
                found.insert(name, std::fs::read(&path).ok());
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(root, &mut found, &|name| name.contains(job) || name.contains("/.outpour/") || name.contains("/jobs/"));
    found
}

/// The engine survives each field of a complete, a queued and a failed record with each hostile value, and without the
/// field.
#[test]
fn a_record_may_say_anything() {
    let world = World::new(40);
    let limits = || JobLimits { remembered_seconds: 10, ..JobLimits::default() };
    let engine = world.open(limits());
    let kick = |population| engine.kick_off(world.kick_off(&engine, "a", population)).unwrap().id;
    let (kept, complete) = (kick(RecordedPopulation::System), kick(RecordedPopulation::Patient("p3".into())));
    let good = contents(&engine, &ended(&engine, &kept, "a"));
    ended(&engine, &complete, "a");
    drop(engine);
    let path = world.path(&format!("data/jobs/{complete}.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("sum");
    let view = json!(crate::store::Store::open(world.path("store")).unwrap().list_files().unwrap());
    let mut queued = record.clone();
    for field in ["ended", "expires", "files", "extension", "planned"] {
        queued.as_object_mut().unwrap().remove(field);
    }
    (queued["state"], queued["view"]) = (json!("queued"), view.clone());
    let mut failed = queued.clone();
    (failed["state"], failed["failure"]) = (json!("failed"), json!({"reason": "r", "detail": "d"}));
    (failed["ended"], failed["expires"]) = (record["ended"].clone(), record["expires"].clone());
    std::fs::write(world.path("data/outside"), "x").unwrap();
    let before = tree(world.dir_path(), &complete);
    let (mut read, mut refused) = (0, 0);
    for whole in [record, queued, failed] {
        let mut all = Vec::new();
        places(&whole, String::new(), &mut all);
        for place in all {
            for value in hostile().into_iter().map(Some).chain([None]) {
                let mut changed = whole.clone();
                match (&value, place.rsplit_once('/')) {
                    (Some(value), _) => *changed.pointer_mut(&place).unwrap() = value.clone(),
                    (None, Some((parent, name))) => match changed.pointer_mut(parent).unwrap() {
                        Value::Object(fields) => drop(fields.remove(name)),
                        Value::Array(items) => drop(items.remove(0)),
                        _ => unreachable!("a parent has parts"),
                    },
                    (None, None) => continue,
                }
                std::fs::write(&path, changed.to_string()).unwrap();
                let engine = world.open(limits());
                let found = engine.find(&complete, "ig", "a");
                match &found {
                    JobLookup::Unknown => refused += 1,
                    _ => read += 1,
                }
                if let JobLookup::Job(view) = &found {
                    for file in &view.record.files {
                        let place = engine.file(&file.id, "ig", "a").unwrap().unwrap().place;
                        assert!(place.starts_with(&format!("{complete}/out/")) && !place.contains(".."), "{place}");
                    }
                }
                engine.retry(&complete, "ig", "a").ok();
                wait("the end of what is taken up", || (engine.active() == 0).then_some(()));
                engine.reap();
                assert_eq!(contents(&engine, &ended(&engine, &kept, "a")), good, "{place} {value:?}");
                drop(engine);
                assert!(tree(world.dir_path(), &complete) == before, "{place} {value:?}");
            }
        }
    }
    assert!(read > 200 && refused > 500, "the test meets both: {read} {refused}");
}

/// A record whose id is a path to another directory, due for removal, removes nothing.
#[test]
fn a_record_named_as_the_parent_directory_removes_nothing() {
    let world = World::new(40);
    let engine = world.open(JobLimits::default());
    let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
    let record = ended(&engine, &id, "a");
    let good = contents(&engine, &record);
    drop(engine);
    let text = std::fs::read_to_string(world.path(&format!("data/jobs/{id}.json"))).unwrap();
    for (name, state) in [("..", "complete"), (".", "complete"), ("../..", "complete"), ("../../store", "expired")] {
        let hostile = text.replace(&id, name).replace(r#""state":"complete""#, &format!(r#""state":"{state}""#));
        // Its retention is over.
        let hostile = hostile.replace(r#""expires":"2024"#, r#""expires":"2001"#);
        let hostile = format!("{}}}", hostile.rsplit_once(r#","sum""#).unwrap().0);
        let file = world.path("data/jobs").join(format!("{}.json", name.replace('/', "%2f")));
        std::fs::write(file, hostile).unwrap();
    }
    for _ in 0..2 {
        let engine = world.open(JobLimits::default());
        engine.reap();
        assert_eq!(contents(&engine, &ended(&engine, &id, "a")), good);
        assert!(world.path("store/rows.ndjson").is_file());
    }
}

/// Links in place of a job's directory, its output directory or its patient file are not followed, and pipes are not
/// waited for: the job fails, and the targets of the links are unchanged.
#[test]
fn links_below_the_directory_of_files_are_not_followed() {
    use std::os::unix::fs::symlink;
    for place in ["", "/out", "/patient", "/patient pipe", "/patient directory", "/out/.outpour-job"] {
        let world = World::new(40);
        let engine = world.open(JobLimits::default());
        let id = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::Patient("p3".into()))).unwrap().id;
        ended(&engine, &id, "a");
        drop(engine);
        // As if it had been killed before it was planned.
        let path = world.path(&format!("data/jobs/{id}.json"));
        let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for field in ["sum", "ended", "expires", "files", "extension", "planned"] {
            record.as_object_mut().unwrap().remove(field);
        }
        record["state"] = json!("queued");
        record["view"] = json!(crate::store::Store::open(world.path("store")).unwrap().list_files().unwrap());
        std::fs::write(&path, record.to_string()).unwrap();
        // A complete job keeps none.
        std::fs::write(world.path(&format!("data/files/{id}/patient")), "p3\n").unwrap();
        let outside = world.path("outside");
        std::fs::create_dir_all(outside.join("out")).unwrap();
        std::fs::write(outside.join("patient"), "p3\n").unwrap();
        let (name, kind) = place.split_once(' ').unwrap_or((place, "link"));
        let stands = world.path(&format!("data/files/{id}{name}"));
        let removed = if stands.is_dir() { std::fs::remove_dir_all(&stands) } else { std::fs::remove_file(&stands) };
        removed.unwrap();
        match (kind, name) {
            ("pipe", _) => crate::sys::test_pipe::make_pipe(&stands),
            ("directory", _) => std::fs::create_dir(&stands).unwrap(),
            (_, "/patient") => symlink(outside.join("patient"), &stands).unwrap(),
            _ => symlink(&outside, &stands).unwrap(),
        }
        let before = tree(&outside, "none");
        let engine = world.open(JobLimits::default());
        assert_eq!(ended(&engine, &id, "a").state, JobState::Failed, "{place}");
        assert!(engine.delete(&id, "ig", "a").unwrap());
        wait("the directory to go", || stands.symlink_metadata().is_err().then_some(()));
        assert!(tree(&outside, "none") == before, "{place}");
    }
}
