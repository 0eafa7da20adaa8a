//! The name of the receipts in an output directory: no collector of data finds them, and those of earlier versions are
//! still read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::run::{export, run, scratch, snapshot, testdata};

const RECEIPTS: &str = ".outpour-job/receipts.jsonlog";
/// The name of earlier versions.
const LEGACY: &str = ".outpour-job/done.ndjson";

/// Every file below a directory, hidden ones included, relative to it.
fn files(directory: &Path) -> BTreeSet<String> {
    fn visit(place: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => visit(&path, root, found),
                false => drop(found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_string())),
            }
        }
    }
    let mut found = BTreeSet::new();
    visit(directory, directory, &mut found);
    found
}

/// Exports ten patients in small files, with `more`.
fn export_ten(out: &Path, more: &[&str]) -> crate::run::Run {
    let index = out.with_file_name("index");
    let own = ["--index-dir", index.to_str().unwrap(), "--group", "ten", "--as-of", "2024-01-01T00:00:00Z"];
    export(&testdata("stores/synthea-r4-100"), out, &[&own[..], &["--max-file-bytes", "100kB"], more].concat())
}

/// The names of files in the manifest.
fn named(out: &Path) -> BTreeSet<String> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let lists = ["output", "deleted", "error"].map(|list| manifest[list].as_array().cloned().unwrap_or_default());
    let base = format!("file://{}/", out.display());
    let name = |item: Value| item["url"].as_str().unwrap().strip_prefix(&base).unwrap().to_string();
    lists.into_iter().flatten().map(name).collect()
}

/// Whoever collects `**/*.ndjson` of an output directory finds the files of the manifest and nothing else, before and after
/// a replacement.
#[test]
fn collectors_find_data_alone() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    for more in [&[][..], &["--force", "--type", "Patient,Condition"]] {
        assert!(export_ten(&out, more).code <= 1);
        let found = files(&out);
        let data: BTreeSet<String> = found.iter().filter(|name| name.ends_with(".ndjson")).cloned().collect();
        assert_eq!(data, named(&out));
        assert!(found.contains(RECEIPTS), "{found:?}");
    }
}

/// Makes a finished export one that an earlier version left unfinished: without manifest, under the old name, and with
/// `kept` receipts. Returns the names of the files that lost theirs.
fn age(out: &Path, kept: usize) -> Vec<PathBuf> {
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let receipts = std::fs::read_to_string(out.join(RECEIPTS)).unwrap();
    let lines: Vec<&str> = receipts.lines().collect();
    assert!(lines.len() > kept + 2, "{}", lines.len());
    std::fs::remove_file(out.join(RECEIPTS)).unwrap();
    // The run was killed while it wrote a receipt.
    let whole: String = lines[..kept].iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(out.join(LEGACY), whole + &lines[kept][..10]).unwrap();
    let file = |line: &&str| out.join(serde_json::from_str::<Value>(line).unwrap()["file"].as_str().unwrap());
    lines[kept..].iter().map(file).collect()
}

/// A run that an earlier version began is told, inspected and finished to the same bytes: its finished files stay, and its
/// receipts get the name of today.
#[test]
fn an_old_run_goes_on() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    assert!(export_ten(&out, &[]).code <= 1);
    let whole = snapshot(&out);
    for kept in [0, 4] {
        let lost = age(&out, kept);
        lost.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let time = |name: &str| std::fs::metadata(out.join(name)).unwrap().modified().unwrap();
        let finished: Vec<String> = files(&out).into_iter().filter(|name| whole.contains_key(name)).collect();
        let finished: Vec<_> = finished.into_iter().filter(|name| name.ends_with(".ndjson")).collect();
        assert_eq!(finished.len(), kept);
        let before: Vec<_> = finished.iter().map(|name| time(name)).collect();
        let verified = run(&["verify", out.to_str().unwrap()]);
        verified.refused(1, &[&format!("incomplete, {kept} of "), "--resume"]);
        let inspected = run(&["inspect", out.to_str().unwrap()]);
        assert!(inspected.said().contains("finished files"), "{inspected:#?}");
        let alone = run(&["inspect", out.join(LEGACY).to_str().unwrap()]);
        assert!(alone.said().contains("the receipts of an export"), "{alone:#?}");
        assert!(files(&out).contains(LEGACY) && !files(&out).contains(RECEIPTS), "nothing was written");
        assert!(export_ten(&out, &["--resume"]).code <= 1);
        assert!(snapshot(&out) == whole, "{kept}");
        assert_eq!(finished.iter().map(|name| time(name)).collect::<Vec<_>>(), before, "they were not written again");
        assert!(files(&out).contains(RECEIPTS) && !files(&out).contains(LEGACY), "{:?}", files(&out));
        assert_eq!(run(&["verify", out.to_str().unwrap()]).code, 0);
    }
}

/// An export of an earlier version is replaced, and nothing is left under the old name; where both names stand, that of
/// today counts.
#[test]
fn an_old_export_is_replaced() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    assert!(export_ten(&out, &[]).code <= 1);
    let whole = snapshot(&out);
    std::fs::rename(out.join(RECEIPTS), out.join(LEGACY)).unwrap();
    assert_eq!(run(&["verify", out.to_str().unwrap()]).code, 0, "a finished export under the old name");
    // An unfinished replacement of an earlier version, from its plan on: its receipts do not count for the next run.
    let next = out.join(".outpour-job/next");
    std::fs::create_dir(&next).unwrap();
    std::fs::copy(out.join(LEGACY), next.join("done.ndjson")).unwrap();
    let narrow = ["--force", "--type", "Patient,Condition"];
    assert!(export_ten(&out, &narrow).code <= 1);
    let found = files(&out);
    assert!(found.contains(RECEIPTS) && !found.contains(LEGACY) && !next.exists(), "{found:?}");
    let data: BTreeSet<String> = found.iter().filter(|name| name.ends_with(".ndjson")).cloned().collect();
    assert_eq!(data, named(&out), "the old files are gone");
    let other = scratch.path().join("other");
    assert!(export_ten(&other, &narrow[1..]).code <= 1);
    let rows = |out: &Path| snapshot(out).into_iter().filter(|(name, _)| name.ends_with(".ndjson")).collect::<Vec<_>>();
    assert!(rows(&out) == rows(&other));

    assert!(export_ten(&out, &["--force"]).code <= 1);
    assert!(snapshot(&out) == whole);
    std::fs::write(out.join(LEGACY), "{\"file\":\"Patient.00001.ndjson\"}\n").unwrap();
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let verified = run(&["verify", out.to_str().unwrap()]);
    verified.refused(
        1,
        &[&format!("incomplete, {0} of {0} files", whole.keys().filter(|name| name.ends_with(".ndjson")).count())],
    );
    assert!(export_ten(&out, &["--resume"]).code <= 1);
    assert!(snapshot(&out) == whole);
}
