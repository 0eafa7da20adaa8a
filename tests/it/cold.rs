//! Stores of which nothing is in memory: whatever was asked for ahead, an export has the bytes that it has of a store in memory.

use std::path::{Path, PathBuf};

use crate::run::{command, export, finish, run, scratch, snapshot};

/// Files beneath a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Has the pages of a store and of its index leave memory; a file system in memory keeps them.
fn drop_pages(store: &Path) {
    let mut found = Vec::new();
    files(store, &mut found);
    for path in found {
        let file = std::fs::File::open(path).unwrap();
        file.sync_data().unwrap();
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// The files of rows of an export; those of deletions and messages name its time.
fn rows(out: &Path) -> Vec<(String, Vec<u8>)> {
    snapshot(out).into_iter().filter(|(name, _)| name.contains(".ndjson") && !name.contains('/')).collect()
}

#[test]
fn a_cold_store_gives_the_rows_of_a_warm_one() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let synth = |name: &str, more: &[&str]| {
        let mut command = command();
        command.args(["synth", "--out", at(name).to_str().unwrap(), "--no-sync", "--progress", "never"]);
        let done = finish(command.args(["--patients", "30", "--updates", "10%"]).args(more));
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    synth("patient", &[]);
    synth("mixed", &["--order", "arrival", "--layout", "mixed"]);
    for coding in ["zstd", "gzip"] {
        let (from, to) = (at("patient"), at(coding));
        let words = ["pack", "--store", from.to_str().unwrap(), "--to", to.to_str().unwrap(), "--coding", coding];
        assert_eq!(run(&[&words[..], &["--no-sync", "--progress", "never"]].concat()).code, 0);
    }
    for store in ["patient", "mixed", "zstd", "gzip"] {
        let compression = if store == "zstd" || store == "gzip" { store } else { "none" };
        let jobs: [&[&str]; 3] = [
            &["--all-patients", "--max-file-resources", "700"],
            &["--group", "one"],
            &["--group", "percent-10", "--since", "2012-01-01T00:00:00Z"],
        ];
        for (i, job) in jobs.iter().enumerate() {
            let words = [*job, &["--compress", compression]].concat();
            let (warm, cold) = (at(&format!("{store}-{i}-warm")), at(&format!("{store}-{i}-cold")));
            // The first export indexes the store.
            assert_eq!(export(&at(store), &warm, &words).code, 0);
            drop_pages(&at(store));
            assert_eq!(export(&at(store), &cold, &words).code, 0);
            assert!(!rows(&warm).is_empty(), "{store}, {job:?}");
            assert!(rows(&warm) == rows(&cold), "{store}, {job:?}");
        }
    }
}
