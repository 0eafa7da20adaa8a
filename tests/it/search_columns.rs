//! `outpour index --search`: search columns, and filters that are decided from them (TFILTER-10).

use crate::run::{self, Run, run, scratch, testdata};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Runs `outpour index` with its index elsewhere, and further arguments.
fn index(store: &Path, index_dir: &Path, more: &[&str]) -> Run {
    let args = ["index", "--store", store.to_str().unwrap(), "--index-dir", index_dir.to_str().unwrap(), "--json"];
    run(&[&args, more].concat())
}

/// What a plan says of its filters.
#[track_caller]
fn filters_of(store: &Path, index_dir: &Path, filters: &[&str]) -> Value {
    let out = index_dir.with_file_name("never");
    let mut args = vec!["--system", "--plan", "--json", "--index-dir", index_dir.to_str().unwrap()];
    filters.iter().for_each(|filter| args.extend(["--type-filter", filter]));
    let done = run::export(store, &out, &args);
    assert_eq!(done.code, 0, "{done:#?}");
    serde_json::from_str::<Value>(&done.stdout).unwrap()["filters"].clone()
}

/// A copy of a bundled store that may grow.
fn copied_store(to: &Path) -> PathBuf {
    let store = to.join("store");
    std::fs::create_dir(&store).unwrap();
    for entry in std::fs::read_dir(testdata("stores/synthea-r4-100")).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), store.join(entry.file_name())).unwrap();
        }
    }
    store
}

/// TFILTER-10, PRIV-03: columns are made on request, for their owner alone; from then on a plan reads no row; an append is completed by
/// the next index, or by an export; `verify` and `inspect` know them; they can be dropped.
#[test]
fn columns_are_kept_on_request() {
    let scratch = scratch();
    let (store, dir) = (copied_store(scratch.path()), scratch.path().join("index"));
    let filters = ["Observation?category=laboratory&date=ge2015", "Observation?code=8302-2&value-string=x"];
    assert_eq!(index(&store, &dir, &[]).code, 0);
    let before = filters_of(&store, &dir, &filters);
    assert_eq!(before[0]["byColumns"], 0, "{before}");
    // 1. Made, and used: only what a text decides is read.
    let made =
        index(&store, &dir, &["--search", "Observation.category,Observation.date", "--search", "Observation.code"]);
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let listed: Vec<&str> =
        made["searchColumns"].as_array().unwrap().iter().map(|one| one["parameter"].as_str().unwrap()).collect();
    assert_eq!(listed, ["Observation.category", "Observation.code", "Observation.date"]);
    let after = filters_of(&store, &dir, &filters);
    assert_eq!((&after[0]["rows"], &after[0]["met"]), (&before[0]["rows"], &before[0]["met"]));
    assert!(after[0]["read"].as_u64().unwrap() * 5 < after[0]["rows"].as_u64().unwrap(), "{after}");
    assert_eq!(filters_of(&store, &dir, &filters[..1])[0]["readBytes"], 0);
    let mut files = 0;
    for entry in std::fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .filter(|one| one.file_name().as_encoded_bytes().starts_with(b"search"))
    {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        files += usize::from(run(&["inspect", entry.path().to_str().unwrap()]).said().contains("search column"));
    }
    assert_eq!(files, 4, "three columns, and the list of them");
    let verify = ["verify", store.to_str().unwrap(), "--index-dir", dir.to_str().unwrap()];
    let verified = run(&verify);
    assert_eq!(verified.code, 0, "{verified:#?}");
    // 2. The store grows: new rows are read until columns are completed.
    let row = |id: &str| {
        format!(
            r#"{{"resourceType":"Observation","id":"{id}","category":[{{"coding":[{{"code":"laboratory"}}]}}],"effectiveDateTime":"2020-01-01"}}"#
        )
    };
    std::fs::write(store.join("more.ndjson"), row("new") + "\n").unwrap();
    let grown = filters_of(&store, &dir, &filters[..1]);
    assert_eq!(grown[0]["read"], 1, "{grown}");
    assert_eq!(
        grown[0]["met"].as_u64(),
        filters_of(&testdata("stores/synthea-r4-100"), &scratch.path().join("other"), &filters[..1])[0]["met"]
            .as_u64()
            .map(|met| met + 1)
    );
    let work = index(&store, &dir, &[]);
    assert_eq!(work.code, 0, "{work:#?}");
    assert_eq!(filters_of(&store, &dir, &filters[..1])[0]["read"], 0);
    // 3. Damage is not believed.
    for entry in std::fs::read_dir(&dir).unwrap().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"search-Observation") {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let at = bytes.len() / 3;
            bytes[at] ^= 0x10;
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
    assert_eq!(filters_of(&store, &dir, &filters[..1])[0]["met"], grown[0]["met"]);
    // 4. Dropped.
    let dropped = index(&store, &dir, &["--drop-search", "all", "--search", "Patient.gender"]);
    let dropped: Value = serde_json::from_str(&dropped.stdout).unwrap();
    assert_eq!(dropped["searchColumns"].as_array().unwrap().len(), 1);
    assert_eq!(filters_of(&store, &dir, &filters[..1])[0]["byColumns"], 0);
}

/// TFILTER-10: an export that asks for most of a type makes the columns that it lacks, one of a few patients reads their rows.
#[test]
fn columns_are_made_when_a_filter_asks_for_much() {
    let scratch = scratch();
    let (store, dir) = (copied_store(scratch.path()), scratch.path().join("index"));
    let filter = "Observation?category=laboratory";
    let export = |who: &[&str], out: &str| {
        let args = [&["--type-filter", filter, "--index-dir", dir.to_str().unwrap()], who].concat();
        let done = run::export(&store, &scratch.path().join(out), &args);
        assert_eq!(done.code, 0, "{done:#?}");
    };
    export(&["--group", "one"], "one");
    assert_eq!(filters_of(&store, &dir, &[filter])[0]["byColumns"], 0);
    export(&["--all-patients"], "all");
    let found = filters_of(&store, &dir, &[filter]);
    assert_eq!((&found[0]["byColumns"], &found[0]["readBytes"]), (&found[0]["rows"], &0.into()));
}

/// TFILTER-06: names that are no parameters, and those of texts, are refused all at once; a filter's value is never told.
#[test]
fn wrong_names_are_refused_at_once() {
    let scratch = scratch();
    let done = index(
        &testdata("stores/synthea-r4-100"),
        &scratch.path().join("index"),
        &["--search", "Patient.status,Patient.family,Nope.x,Observation", "--drop-search", "Patient.none"],
    );
    assert_eq!(done.code, 2, "{done:#?}");
    for name in
        ["Patient.status is no", "Patient.family is a text", "Nope.x is no", "Observation is no", "Patient.none is no"]
    {
        assert!(done.said().contains(name), "{name}: {}", done.stderr);
    }
}
