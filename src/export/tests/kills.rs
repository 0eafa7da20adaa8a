//! Exports that replace others, killed before every change of the directory: what a kill would leave is copied and looked at.
//!
//! While a manifest stands, every file that it names is there as it says, and no other file has the name of an output file;
//! what is gone on with, or begun anew, comes to the directory of an undisturbed run; foreign files stay.

use crate::codec::compression::Compression;
use crate::error::ExportError;
use crate::export::export;
use crate::export::options::{Existing, ExportOptions};
use crate::export::report::ExportReport;
use crate::fhir::instant::Instant;
use crate::hash::digest::{DigestAlgorithm, digest_file};
use crate::index::test_lines::append;
use crate::policies::FileBounds;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;
use crate::sys::directory::tests::watching;
use crate::sys::durability::FileSync;
use crate::write::journal::STATUS;
use crate::write::manifest::Manifest;
use crate::write::output_name::OutputName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

pub(crate) const AS_OF: &str = "2024-06-01T00:00:00Z";
/// A file of somebody else's in each directory, and what it holds.
const FOREIGN: [&str; 3] = ["notes.txt", "error/notes.txt", "Patients.00001.ndjson"];

pub(crate) struct World {
    dir: tempfile::TempDir,
    store: Store,
    pool: rayon::ThreadPool,
}

impl World {
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        std::fs::create_dir(&root).unwrap();
        let lines = (0..90).map(|n| {
            let kind = ["Observation", "Condition", "Encounter"][n % 3];
            let day = n % 28 + 1;
            format!(
                r#"{{"resourceType":"{kind}","id":"r{n}","meta":{{"lastUpdated":"2024-03-{day:02}T00:00:00Z"}},"subject":{{"reference":"Patient/p{}"}}}}"#,
                n % 7
            )
        });
        append(&root.join("rows.ndjson"), &lines.collect::<Vec<_>>());
        let deletion = |n: usize| {
            format!(
                r#"{{"resourceType":"Bundle","meta":{{"lastUpdated":"2024-05-01T00:00:00Z"}},"type":"transaction","entry":[{{"request":{{"method":"DELETE","url":"Observation/r{n}"}}}}]}}"#
            )
        };
        append(&root.join("gone.ndjson"), &[deletion(0), deletion(3), "{".to_string()]);
        let store = Store::open(&root).unwrap();
        // One thread, so that every run makes its changes in the same order.
        World { dir, store, pool: rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs `work` with one thread.
    pub(crate) fn one_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn export(
        &self,
        out: &Path,
        request: &ExportRequest,
        existing: Existing,
    ) -> Result<ExportReport, ExportError> {
        let options =
            ExportOptions::new(out).existing(existing).sync(FileSync::No).clock(&|| Instant::parse(AS_OF).unwrap());
        let as_of = Instant::parse(AS_OF).unwrap();
        self.pool.install(|| export(&self.store, request, as_of, &options, &Progress::default()))
    }

    /// A directory with an export of this request and foreign files.
    pub(crate) fn old(&self, name: &str, request: &ExportRequest) -> PathBuf {
        let out = self.path(name);
        self.export(&out, request, Existing::Refuse).unwrap();
        for name in FOREIGN {
            std::fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
            std::fs::write(out.join(name), name).unwrap();
        }
        out
    }
}

fn request(types: &[&str], since: Option<&str>, file_bytes: u64, compression: Compression) -> ExportRequest {
    let request = ExportRequest::all_patients().types(types);
    let mut request = since.into_iter().fold(request, ExportRequest::since);
    request.base_url = Some("https://x.example/".to_string());
    (request.bounds, request.compression) = (FileBounds { file_bytes, file_resources: None }, compression);
    request
}

/// Everything and its messages.
pub(crate) fn everything() -> ExportRequest {
    request(&["Observation", "Condition"], None, 3000, Compression::None)
}

/// The changes of some weeks, with deletions.
pub(crate) fn changes() -> ExportRequest {
    request(&["Observation", "Encounter"], Some("2024-03-05T00:00:00Z"), 1500, Compression::None)
}

/// A few rows in another coding.
fn few() -> ExportRequest {
    request(&["Condition"], None, 3000, Compression::Gzip)
}

/// Every file below a directory, by name; receipts by their lines, in any order.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn visit(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                visit(&entry.path(), &format!("{name}/"), found);
                continue;
            }
            let mut bytes = match std::fs::read(entry.path()) {
                // The thread that writes the status has given it its name meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.ends_with(".part") => continue,
                read => read.unwrap(),
            };
            if name.ends_with("receipts.jsonlog") {
                let lines: BTreeSet<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                bytes = lines.into_iter().flatten().copied().collect();
            }
            found.insert(name, bytes);
        }
    }
    let mut found = BTreeMap::new();
    visit(root, "", &mut found);
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        std::fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        std::fs::write(to.join(&name), bytes).unwrap();
    }
}

/// What must hold of an output directory at every instant; whether a manifest stands.
#[track_caller]
pub(crate) fn check(out: &Path) -> bool {
    for name in FOREIGN {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), name.as_bytes(), "foreign files stay");
    }
    let Ok(bytes) = std::fs::read(out.join("manifest.json")) else { return false };
    let manifest = Manifest::from_bytes(&bytes).unwrap();
    let mut listed = BTreeSet::new();
    for item in manifest.output.iter().chain(&manifest.deleted).chain(&manifest.error) {
        let (name, facts) = (item.file_name(), item.facts().unwrap());
        let file = std::fs::File::open(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(digest_file(file, DigestAlgorithm::Xxh3).unwrap(), (facts.file_bytes, facts.digest), "{name}");
        listed.insert(name.to_string());
    }
    let found: BTreeSet<String> = tree(out).into_keys().filter(|name| OutputName::parse(name).is_some()).collect();
    assert_eq!(found, listed, "what has the name of an output file is the manifest's");
    let status: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join(STATUS)).unwrap()).unwrap();
    let plan_id = manifest.extension["urn:outpour:export:1"]["planId"].as_str();
    assert_eq!(status["id"].as_str(), plan_id, "the status beside a manifest is of the same export");
    true
}

/// Copies of a directory as it is before each change that `work` makes, and as it is at the end.
pub(crate) fn states<T>(world: &World, out: &Path, name: &str, work: impl FnOnce() -> T) -> (Vec<PathBuf>, T) {
    let out = out.canonicalize().unwrap();
    let (copies, count) = (world.path(name), Arc::new(AtomicUsize::new(0)));
    let (from, to, counted) = (out.clone(), copies.clone(), count.clone());
    let look = move || copy(&from, &to.join(counted.fetch_add(1, SeqCst).to_string()));
    let done = watching(&out, look, work);
    let last = count.load(SeqCst);
    copy(&out, &copies.join(last.to_string()));
    ((0..=last).map(|offset| copies.join(offset.to_string())).collect(), done)
}

/// Kills `begun` at every change, then goes on, or begins anew, with the same and with a third request.
fn kill_everywhere(old: &ExportRequest, new: &ExportRequest, third: &ExportRequest) {
    let world = World::new();
    let undisturbed = |name: &str, request: &ExportRequest| {
        let out = world.old(name, old);
        world.export(&out, request, Existing::Force).unwrap();
        assert!(check(&out));
        tree(&out)
    };
    let (expected, other) = (undisturbed("new", new), undisturbed("third", third));
    let out = world.old("out", old);
    let before = tree(&out);
    let plan = ".outpour-job/plan.json";
    let (copies, done) = states(&world, &out, "copies", || world.export(&out, new, Existing::Force));
    done.unwrap();
    let mut met = BTreeMap::new();
    for (i, copied) in copies.iter().enumerate() {
        let found = tree(copied);
        let stands = check(copied);
        let planned = found.contains_key(".outpour-job/next/plan.json");
        *met.entry((stands, planned, found[plan] == before[plan])).or_insert(0) += 1;
        if stands && found[plan] == before[plan] {
            let own = |tree: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
                tree.clone().into_iter().filter(|(name, _)| !name.starts_with(".outpour-job/next/")).collect()
            };
            assert!(own(&found) == before, "{i}: the old export is whole, and its record");
        }
        let again = |name: &str| {
            let place = world.path(&format!("{name}-{i}"));
            copy(copied, &place);
            place
        };
        // On with it.
        let place = again("resumed");
        match world.export(&place, new, Existing::Resume) {
            Ok(_) => assert!(tree(&place) == expected, "{i}: resumed"),
            // The new plan does not stand yet: the record is the old one's.
            Err(ExportError::Differs { .. }) => assert!(stands && !planned && tree(&place) == found, "{i}"),
            Err(error) => panic!("{i}: {error}"),
        }
        // With a torn receipt.
        let place = again("torn");
        let done = place.join(".outpour-job/next/receipts.jsonlog");
        if planned && done.exists() {
            let bytes = std::fs::read(&done).unwrap();
            std::fs::write(&done, &bytes[..bytes.len().saturating_sub(9)]).unwrap();
            world.export(&place, new, Existing::Resume).unwrap();
            assert!(tree(&place) == expected, "{i}: resumed after a torn receipt");
        }
        // Anew; and another one.
        for (name, request, expected) in [("anew", new, &expected), ("third", third, &other)] {
            let place = again(name);
            if i % 13 == 0 {
                let run = || world.export(&place, request, Existing::Force);
                let (second, done) = states(&world, &place, &format!("{name}-copies-{i}"), run);
                done.unwrap();
                for (step, copied) in second.iter().enumerate() {
                    check(copied);
                    let planned = tree(copied).contains_key(".outpour-job/next/plan.json");
                    if planned && let Ok(_) = world.export(copied, request, Existing::Resume) {
                        assert!(tree(copied) == *expected, "{i}, {step}: {name}, killed again and resumed");
                    } else {
                        world.export(copied, request, Existing::Force).unwrap();
                        assert!(tree(copied) == *expected, "{i}, {step}: {name}, killed again and begun anew");
                    }
                }
            } else {
                world.export(&place, request, Existing::Force).unwrap();
            }
            assert!(tree(&place) == *expected, "{i}: {name}");
        }
    }
    let phases =
        [(true, false, true), (true, true, true), (false, true, true), (false, false, false), (true, false, false)];
    assert!(phases.iter().all(|phase| met.contains_key(phase)), "every phase is met: {met:?}");
    assert_eq!(met.len(), phases.len(), "{met:?}");
}

#[test]
fn an_export_that_replaces_another_may_be_killed_anywhere() {
    kill_everywhere(&everything(), &changes(), &few());
}

/// The same where the old one has files in every folder, and the new one few in another coding.
#[test]
fn an_export_with_fewer_files_may_be_killed_anywhere() {
    kill_everywhere(&changes(), &few(), &everything());
}
