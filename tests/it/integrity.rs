//! What changes on disk is noticed: files that were corrected without a change of their length, files replaced within one
//! tick of the file system's clock, stores that vanished.

use crate::run::{self, scratch};
use std::path::{Path, PathBuf};

/// A row of an Observation of a patient; all rows have the same length.
fn observation(number: usize, patient: &str, day: &str, value: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"o{number:06}","meta":{{"lastUpdated":"2024-{day}T00:00:00Z"}},"subject":{{"reference":"Patient/{patient}"}},"valueString":"{value}"}}"#
    )
}

/// Rows of 20,000 Observations, alternately of two patients.
fn observations() -> Vec<String> {
    (0..20_000).map(|n| observation(n, if n % 2 == 0 { "bbb" } else { "aaa" }, "01-01", "negative")).collect()
}

fn write(path: &Path, rows: &[String]) {
    std::fs::write(path, rows.join("\n") + "\n").unwrap();
}

/// Exports the records of one patient; the exported Observations.
fn export(store: &Path, scratch: &Path, name: &str, patient: &str, more: &[&str]) -> String {
    let (list, out, index) = (scratch.join("list"), scratch.join(name), scratch.join("index"));
    std::fs::write(&list, format!("Patient/{patient}\n")).unwrap();
    let common = ["--patients", list.to_str().unwrap(), "--index-dir", index.to_str().unwrap()];
    let run = run::export(store, &out, &[&common, more].concat());
    assert!(run.code == 0, "{run:#?}");
    std::fs::read_to_string(out.join("Observation.00001.ndjson")).unwrap_or_default()
}

/// A store of one file of Observations in a scratch directory, exported once as of February: its directory, file and rows.
fn exported_store(scratch: &Path) -> (PathBuf, PathBuf, Vec<String>) {
    let (store, rows) = (scratch.join("store"), observations());
    std::fs::create_dir(&store).unwrap();
    let file = store.join("Observation.ndjson");
    write(&file, &rows);
    let exported = export(&store, scratch, "one", "aaa", &["--as-of", "2024-02-01T00:00:00Z"]);
    assert_eq!(exported.lines().count(), 10_000);
    (store, file, rows)
}

/// A correction that keeps the length of the file is seen wherever it lies, by rename and in place; also if the times of
/// the file are set back to what they were.
#[test]
fn a_correction_of_the_same_length_is_seen() {
    for (by_rename, times_kept) in [(true, false), (false, false), (true, true), (false, true)] {
        let dir = scratch();
        let (store, file, mut rows) = exported_store(dir.path());
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        rows[10_001] = observation(10_001, "bbb", "02-15", "positive");
        let target = if by_rename { store.join(".new") } else { file.clone() };
        write(&target, &rows);
        if times_kept {
            std::fs::File::options().write(true).open(&target).unwrap().set_modified(modified).unwrap();
        }
        if by_rename {
            std::fs::rename(&target, &file).unwrap();
        }
        let increment = ["--since", "2024-02-01T00:00:00Z", "--as-of", "2024-03-01T00:00:00Z"];
        let corrected = export(&store, dir.path(), "two", "bbb", &increment);
        assert_eq!(corrected, rows[10_001].clone() + "\n", "by rename: {by_rename}, times kept: {times_kept}");
        let left = export(&store, dir.path(), "three", "aaa", &["--as-of", "2024-03-01T00:00:00Z"]);
        assert!(left.lines().count() == 9_999 && !left.contains("Patient/bbb"));
    }
}

/// A row inserted at the front of a file makes no other row late.
#[test]
fn a_row_inserted_makes_no_other_row_late() {
    let dir = scratch();
    let (store, file, mut rows) = exported_store(dir.path());
    rows.insert(0, observation(999_999, "aaa", "01-01", "negative"));
    write(&store.join(".new"), &rows);
    std::fs::rename(store.join(".new"), &file).unwrap();
    let increment = ["--since", "2024-02-01T00:00:00Z", "--as-of", "2024-03-01T00:00:00Z"];
    assert_eq!(export(&store, dir.path(), "two", "aaa", &increment), rows[0].clone() + "\n");
    // An untouched store remembers it.
    let later = ["--since", "2024-02-01T00:00:00Z", "--as-of", "2024-04-01T00:00:00Z"];
    assert_eq!(export(&store, dir.path(), "three", "aaa", &later), rows[0].clone() + "\n");
    let after = ["--since", "2024-03-01T00:00:00Z", "--as-of", "2024-04-01T00:00:00Z"];
    assert_eq!(export(&store, dir.path(), "four", "aaa", &after), "");
}

/// A file replaced at once by one of the same size is seen, on a file system whose times have a second.
#[test]
fn a_file_replaced_within_a_second_is_seen() {
    let dir = scratch();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    let script = format!(
        "dd if=/dev/zero of={0} bs=1M count=32 status=none && mkfs.ext4 -q -I 128 {0} && mount -o loop {0} {1}",
        image.display(),
        mount.display()
    );
    let mounted = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    if !mounted.status.success() {
        eprintln!("not tried: mounting a file system needs root and a loop device");
        return;
    }
    let store = mount.join("store");
    let result = std::panic::catch_unwind(|| {
        std::fs::create_dir(&store).unwrap();
        for round in 0..4 {
            let file = store.join("p.ndjson");
            std::fs::write(&file, observation(1, "aaa", "01-01", "negative") + "\n").unwrap();
            export(&store, dir.path(), &format!("a{round}"), "aaa", &[]);
            std::fs::write(store.join(".new"), observation(1, "bbb", "01-01", "negative") + "\n").unwrap();
            std::fs::rename(store.join(".new"), &file).unwrap();
            let found = export(&store, dir.path(), &format!("b{round}"), "bbb", &[]);
            assert!(found.contains("Patient/bbb"), "round {round}: {found:?}");
        }
    });
    std::process::Command::new("umount").arg(&mount).status().unwrap();
    result.unwrap();
}
