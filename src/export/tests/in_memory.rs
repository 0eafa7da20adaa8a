//! Members given in memory, and exports into a sink: the same bytes as by files and directories.

use crate::codec::compression::Compression;
use crate::error::ExportError;
use crate::export::options::{Existing, ExportOptions};
use crate::export::planning::plan;
use crate::export::tests::kills::{AS_OF, World, changes, everything, tree};
use crate::export::to_sink::export_to_sink;
use crate::fhir::instant::Instant;
use crate::hash::digest::DigestAlgorithm;
use crate::progress::Progress;
use crate::request::{ExportRequest, Population};
use crate::store::Store;
use crate::sys::durability::FileSync;
use crate::write::journal::{JOB, STATUS};
use crate::write::sink::MemorySink;
use std::collections::BTreeMap;
use std::path::Path;

fn as_of() -> Instant {
    Instant::parse(AS_OF).unwrap()
}

/// The files of an export in a directory, without its record and status.
fn published(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(out);
    files.retain(|name, _| name != STATUS && !name.starts_with(JOB));
    files
}

/// What a sink is given, names and bytes, and the manifest's place.
fn sunk(world: &World, request: &ExportRequest) -> BTreeMap<String, Vec<u8>> {
    let (mut sink, progress) = (MemorySink::default(), Progress::default());
    let store = Store::open(world.path("store")).unwrap();
    let report = export_to_sink(&store, request, as_of(), &mut sink, &progress).unwrap();
    assert_eq!(report.manifest.to_bytes(), sink.files()["manifest.json"]);
    assert_eq!(report.files.len() + 1, sink.files().len());
    assert_eq!((progress.write_done(), progress.files_done()), (progress.write_total(), progress.files_total()));
    assert_eq!(progress.files_total(), report.manifest.output.len() as u64);
    sink.files()
}

/// Shards, deletions, messages and manifest come to a sink byte for byte as to a directory, whatever is asked for.
#[test]
fn a_sink_gets_what_a_directory_gets() {
    let world = World::new();
    let members = || ExportRequest::patient_ids(["p1", "Patient/p2", "nobody"]);
    let requests = [
        everything(),
        changes(),
        changes().compression(Compression::Gzip).file_resources(3),
        members().compression(Compression::Zstd).base_url("https://x.example/a"),
        members().since("2024-03-05").file_bytes(500).base_url("https://x.example"),
        ExportRequest::system().types(["Patient"]).base_url("https://x.example"),
    ];
    for (position, request) in requests.iter().enumerate() {
        let out = world.path(&format!("out{position}"));
        world.export(&out, request, Existing::Refuse).unwrap();
        let (files, expected) = (sunk(&world, request), published(&out));
        assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{request:?}");
        assert!(files == expected, "{request:?}");
    }
    let names = |prefix: &str| sunk(&world, &changes()).into_keys().filter(|name| name.starts_with(prefix)).count();
    assert!(names("deleted/") > 0 && names("error/") > 0, "the cases have deletions and messages");
}

/// Names sort by their numbers beyond 99,999 files of a type, as the manifest lists them.
#[test]
fn names_of_many_files_sort_by_their_numbers() {
    const FILES: usize = 100_001;
    let dir = tempfile::tempdir().unwrap();
    let rows = (0..FILES).map(|number| format!("{{\"resourceType\":\"Basic\",\"id\":\"{number}\"}}\n"));
    std::fs::write(dir.path().join("a.ndjson"), rows.collect::<String>()).unwrap();
    std::fs::write(dir.path().join("b.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n").unwrap();
    let (mut sink, progress) = (MemorySink::default(), Progress::default());
    let request = ExportRequest::system().file_resources(1).digest(DigestAlgorithm::None);
    let report = export_to_sink(&Store::open(dir.path()).unwrap(), &request, as_of(), &mut sink, &progress).unwrap();
    let names: Vec<&str> = report.manifest.output.iter().map(|item| item.url.as_str()).collect();
    assert_eq!((names.len(), names[0]), (FILES + 1, "Basic.000001.ndjson"));
    assert_eq!(names[FILES - 1..], ["Basic.100001.ndjson", "Patient.00001.ndjson"]);
    let files = sink.files();
    let by_name: Vec<&String> = files.keys().filter(|name| name.starts_with("Basic")).collect();
    assert!(by_name == names[..FILES], "the order of names is the order of numbers");
    for (number, name) in names[..FILES].iter().enumerate() {
        let id = format!("\"id\":\"{number}\"}}\n");
        assert!(files[*name].ends_with(id.as_bytes()), "{name}");
    }
}

/// Without a base URL the manifest holds names.
#[test]
fn urls_in_a_sink_are_names() {
    let world = World::new();
    let files = sunk(&world, &ExportRequest::patient_ids(["p1"]));
    let manifest = crate::write::manifest::Manifest::from_bytes(&files["manifest.json"]).unwrap();
    assert_eq!(manifest.request, "Patient/$export");
    assert!(manifest.output.iter().chain(&manifest.error).all(|item| files.contains_key(&item.url)), "{manifest:?}");
}

/// A cancelled export publishes nothing, and says so.
#[test]
fn a_cancelled_export_leaves_no_manifest() {
    let world = World::new();
    let (mut sink, progress) = (MemorySink::default(), Progress::default());
    progress.cancel();
    let store = Store::open(world.path("store")).unwrap();
    let error = export_to_sink(&store, &everything(), as_of(), &mut sink, &progress).unwrap_err();
    assert!(error.is_cancelled() && progress.is_cancelled() && !error.is_missing_group(), "{error}");
    assert!(!sink.files().contains_key("manifest.json"));
}

const GROUP: &str = r#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/p1"}},{"entity":{"reference":"Patient/p2"}},{"entity":{"reference":"Patient/nobody"}}]}"#;

/// The request of a population in memory, and that of the same in a file.
fn both(world: &World, population: &Population) -> (ExportRequest, ExportRequest) {
    let path = world.path("members");
    let (memory, file) = match population {
        Population::PatientIds(ids) => {
            std::fs::write(&path, ids.iter().map(|id| format!("{id}\n")).collect::<String>()).unwrap();
            (ExportRequest::patient_ids(ids.clone()), ExportRequest::patients(&path))
        }
        Population::GroupDocument(json) => {
            std::fs::write(&path, json).unwrap();
            (ExportRequest::group_document(json.clone()), ExportRequest::group_file(&path))
        }
        other => panic!("{other:?}"),
    };
    (memory.base_url("https://x.example"), file.base_url("https://x.example"))
}

fn populations() -> [Population; 2] {
    let ids = ["p1", "", " Patient/p2 ", "nobody"].map(String::from);
    [Population::PatientIds(ids.to_vec()), Population::GroupDocument(GROUP.as_bytes().into())]
}

/// Members in memory give the files that the same members in a file give, messages included; only the plan has another name.
#[test]
fn members_in_memory_are_those_of_a_file() {
    let world = World::new();
    for population in populations() {
        let (memory, file) = both(&world, &population);
        let (mut memory, mut file) = (sunk(&world, &memory), sunk(&world, &file));
        let mut manifests = [&mut memory, &mut file].map(|files| {
            let manifest = files.remove("manifest.json").unwrap();
            serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()
        });
        assert!(memory == file && memory.len() > 3, "{population:?}");
        let [memory, file] =
            manifests.each_mut().map(|manifest| manifest["extension"]["urn:outpour:export:1"]["planId"].take());
        assert_ne!(memory, file);
        assert_eq!(manifests[0], manifests[1]);
    }
}

/// What cannot be read is refused in the words of the file form, without the file's name.
#[test]
fn members_in_memory_are_held_to_the_rules_of_a_file() {
    let world = World::new();
    let list = |ids: &[&str]| Population::PatientIds(ids.iter().map(|id| id.to_string()).collect());
    let group = |json: &str| Population::GroupDocument(json.as_bytes().into());
    let populations = [
        list(&["p1", "no id!", "Group/g"]),
        list(&["p1", "two\u{a0}words"]),
        list(&["", " "]),
        list(&[]),
        group("{\n\"resourceType\":\"Group\",}"),
        group(r#"{"resourceType":"Patient","id":"p1"}"#),
        group(""),
        group(&GROUP.replace("\"actual\"", "\"modifierExtension\":[{\"url\":\"u\"}],\"actual\"")),
        group(&GROUP.replace("\"actual\"", "\"active\":false,\"actual\"")),
    ];
    let snapshot = Store::open(world.path("store")).unwrap().snapshot(as_of()).unwrap();
    for population in populations {
        let (memory, file) = both(&world, &population);
        let refused = |request: ExportRequest| match plan(
            &snapshot,
            &request.members(crate::group::lookup::MembershipRule::Active),
        ) {
            Err(ExportError::Request(error)) => error.problems,
            Err(error) => panic!("{error}"),
            Ok(plan) => panic!("{plan:?}"),
        };
        let name = world.path("members").display().to_string();
        let (memory, file) = (refused(memory), refused(file));
        assert_eq!(memory.len(), file.len());
        for (memory, file) in memory.iter().zip(&file) {
            assert_eq!((memory.parameter, memory.kind), (file.parameter, file.kind));
            let expected = file.text.replace(&format!("{name}: "), "").replace(&name, "the Group");
            assert!(memory.text == expected && file.text.contains(&name), "{} / {}", memory.text, file.text);
        }
    }
    let nobody = ExportRequest::patient_ids(Vec::<String>::new()).allow_empty();
    assert_eq!(plan(&snapshot, &nobody).unwrap().rows(), 0);
}

/// CLI-04: an export of members in memory is resumed with the same members, and refused with others or with a file.
#[test]
fn an_export_of_members_in_memory_is_resumed_with_the_same_ones() {
    let world = World::new();
    let others = [
        Population::PatientIds(vec!["p1".to_string()]),
        Population::GroupDocument(GROUP.replace("p2", "p3").as_bytes().into()),
    ];
    for (population, other) in populations().into_iter().zip(others) {
        let (memory, file) = both(&world, &population);
        let out = world.path(if matches!(population, Population::PatientIds(_)) { "ids" } else { "group" });
        world.export(&out, &memory, Existing::Refuse).unwrap();
        let whole = published(&out);
        std::fs::remove_file(out.join("manifest.json")).unwrap();
        let (other, _) = both(&world, &other);
        for wrong in [&other, &file] {
            match world.export(&out, wrong, Existing::Resume) {
                Err(ExportError::Differs { parameter: None, field, recorded, given }) => {
                    assert!(field == "population" && recorded != given, "{field}: {recorded}, {given}");
                }
                done => panic!("{wrong:?}: {done:?}"),
            }
        }
        let done = world.export(&out, &memory, Existing::Resume).unwrap();
        assert!(done.resumed_files > 0 && published(&out) == whole);
    }
}

/// A shard that is written by itself sets the totals of its plan, and shards that are written from several threads count
/// together.
#[test]
fn shards_report_their_progress() {
    let world = World::new();
    let snapshot = Store::open(world.path("store")).unwrap().snapshot(as_of()).unwrap();
    let plan = plan(&snapshot, &everything()).unwrap();
    assert!(plan.shards.len() > 2);
    let progress = Progress::default();
    plan.write_shard(1, &snapshot, &mut MemorySink::default(), &progress).unwrap();
    assert_eq!((progress.write_total(), progress.files_total()), (plan.bytes(), plan.shards.len() as u64));
    assert_eq!((progress.write_done(), progress.files_done()), (plan.shards[1].bytes, 1));
    let progress = Progress::default();
    std::thread::scope(|threads| {
        for shard in 0..plan.shards.len() {
            let (plan, snapshot, progress) = (&plan, &snapshot, &progress);
            threads.spawn(move || plan.write_shard(shard, snapshot, &mut MemorySink::default(), progress).unwrap());
        }
    });
    assert_eq!((progress.write_done(), progress.files_done()), (progress.write_total(), progress.files_total()));
}

/// Without a clock `status.json` has the transactionTime, and nothing that is shown for debugging names a member.
#[test]
fn an_export_needs_no_clock_and_shows_no_member() {
    let world = World::new();
    let store = Store::open(world.path("store")).unwrap();
    let request = ExportRequest::patient_ids(["p1", "nobody-else"]);
    let options = ExportOptions::new(world.path("plain")).sync(FileSync::No);
    crate::export::export(&store, &request, as_of(), &options, &Progress::default()).unwrap();
    let status = std::fs::read_to_string(world.path("plain").join(STATUS)).unwrap();
    assert!(status.contains("Successful") && !status.contains("1970"), "{status}");
    let plan = plan(&store.snapshot(as_of()).unwrap(), &request).unwrap();
    let group = ExportRequest::group_document(GROUP.as_bytes());
    let shown = format!("{request:?} {plan:?} {options:?} {group:?}");
    // The directory of a test has a random name, which may hold anything.
    let shown = shown.replace(world.path("").to_str().unwrap(), "");
    assert!(!shown.contains("p1") && !shown.contains("nobody-else"), "{shown}");
    assert!(shown.contains("PatientIds(2 of them)"), "{shown}");
}
