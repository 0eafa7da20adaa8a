//! A record in which one bit is not as it was written: the run that goes on with it comes to the same files and manifest as an
//! undisturbed one, or is refused and changes nothing that is published.

use crate::error::ExportError;
use crate::export::options::Existing;
use crate::export::plan_record::PlanRecord;
use crate::export::tests::kills::{World, changes, check, copy, everything, tree};
use std::collections::BTreeMap;
use std::path::Path;

const PLAN: &str = ".outpour-job/plan.json";
const DONE: &str = ".outpour-job/receipts.jsonlog";
const NEXT: &str = ".outpour-job/next";

/// What a directory publishes.
fn published(out: &Path) -> BTreeMap<String, Vec<u8>> {
    tree(out).into_iter().filter(|(name, _)| !name.starts_with(".outpour-job/")).collect()
}

/// Each byte of a file with each of these masks, in a copy of `from`.
fn flipped(world: &World, from: &Path, name: &str, masks: &[u8], step: usize, mut on_each: impl FnMut(&Path, String)) {
    let bytes = std::fs::read(from.join(name)).unwrap();
    for i in (0..bytes.len()).step_by(step) {
        for mask in masks {
            let place = world.path("flipped");
            std::fs::remove_dir_all(&place).ok();
            copy(from, &place);
            let mut changed = bytes.clone();
            changed[i] ^= mask;
            std::fs::write(place.join(name), changed).unwrap();
            on_each(&place, format!("{name}, byte {i} of {}, mask {mask}", bytes.len()));
        }
    }
}

/// A run that was killed before its manifest.
#[test]
fn a_flipped_record_is_refused_or_does_no_harm() {
    let world = World::new();
    let out = world.old("out", &everything());
    let expected = published(&out);
    let begun_anew = {
        let place = world.path("anew");
        copy(&out, &place);
        world.export(&place, &changes(), Existing::Force).unwrap();
        published(&place)
    };
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let (mut resumed, mut refused) = (0, 0);
    for (name, masks) in [(DONE, [4]), (PLAN, [1])] {
        flipped(&world, &out, name, &masks, 1, |place, what| {
            match world.export(place, &everything(), Existing::Resume) {
                Ok(_) => {
                    assert!(published(place) == expected, "{what}");
                    resumed += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(error, ExportError::Record(_) | ExportError::Differs { .. } | ExportError::Index(_)),
                        "{what}: {error}"
                    );
                    assert!(!check(place), "{what}");
                    refused += 1;
                }
            }
        });
        // What cannot be gone on with can be begun anew, unless it hides whose files these are.
        flipped(&world, &out, name, &[1], 13, |place, what| match world.export(place, &changes(), Existing::Force) {
            Ok(_) => assert!(published(place) == begun_anew, "{what}"),
            Err(error) => assert!(matches!(error, ExportError::Record(_)) && !check(place), "{what}: {error}"),
        });
    }
    assert!(resumed > 500 && refused > 1000, "{resumed} {refused}");
}

/// A run that was killed before it took the place of the export that it replaces: the old export stays whole, or the new one
/// takes its place.
#[test]
fn a_flipped_record_of_a_replacing_run_leaves_the_old_export_whole() {
    let world = World::new();
    let out = world.old("out", &everything());
    let old = published(&out);
    let expected = {
        let place = world.path("whole");
        copy(&out, &place);
        world.export(&place, &changes(), Existing::Force).unwrap();
        published(&place)
    };
    // The last state in which the old manifest stands beside a finished plan.
    let (states, done) =
        crate::export::tests::kills::states(&world, &out, "states", || world.export(&out, &changes(), Existing::Force));
    done.unwrap();
    let stands =
        |position: &Path| position.join("manifest.json").exists() && position.join(NEXT).join("plan.json").exists();
    let staged = states.into_iter().rfind(|location| stands(location)).unwrap();
    for name in ["plan.json", "receipts.jsonlog", "replaced.json"].map(|name| format!("{NEXT}/{name}")) {
        flipped(&world, &staged, &name, &[1], 3, |place, what| {
            match world.export(place, &changes(), Existing::Resume) {
                Ok(_) => assert!(published(place) == expected, "{what}"),
                Err(error) => {
                    assert!(published(place) == old, "{what}: {error}");
                    world.export(place, &changes(), Existing::Force).unwrap();
                    assert!(published(place) == expected, "{what}: begun anew");
                }
            }
        });
    }
}

/// Nothing that a record names leads out of the output directory or the store.
#[test]
fn a_plan_names_output_files_and_store_files_only() {
    let world = World::new();
    let out = world.old("out", &changes());
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let whole = std::fs::read(out.join(PLAN)).unwrap();
    assert!(PlanRecord::from_bytes(&whole).is_ok());
    let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    let names = [
        "../../etc/passwd",
        "/etc/passwd",
        "",
        "..",
        "rows.ndjson/../../x.ndjson",
        ".hidden/x.ndjson",
        "manifest.json",
    ];
    for place in ["/files/0", "/job/shards/0/0", "/job/snapshot/extents/0/file", "/job/snapshot/asOf", "/job/planId"] {
        for name in names {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = serde_json::json!(name);
            let bytes = serde_json::to_vec(&changed).unwrap();
            let wrong = PlanRecord::from_bytes(&bytes).expect_err(place);
            assert!(name.len() < 3 || !wrong.contains(name), "{place}: {wrong}");
            std::fs::write(out.join(PLAN), bytes).unwrap();
            let refused = world.export(&out, &changes(), Existing::Resume).err();
            assert!(matches!(refused, Some(ExportError::Record(_))), "{place} {name}");
        }
    }
    for place in ["/job/shards/0/1", "/job/shards/0/2", "/job/snapshot/extents/0/start", "/job/snapshot/extents/0/end"]
    {
        for number in [0, 1, u64::MAX] {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = serde_json::json!(number);
            std::fs::write(out.join(PLAN), serde_json::to_vec(&changed).unwrap()).unwrap();
            let resumed = world.export(&out, &changes(), Existing::Resume).is_ok();
            assert!(resumed == (changed == whole), "{place} {number}");
        }
    }
}
