//! Recounts over the bundled stores, and over ledgers and stores that are not what they were.

use super::*;
use crate::export::options::ExportOptions;
use crate::fhir::instant::Instant;
use crate::pack::writer::FrameCoder;
use crate::policies::{Context, PatientStrict};
use crate::request::ExportRequest;
use crate::store::{Store, StoreOptions};
use crate::sys::durability::FileSync;
use crate::verify::export::verify_export;
use crate::verify::output_file::entity;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Exports and verifies, the index kept in `dir`.
fn exported(dir: &Path, store: &Path, request: &ExportRequest, as_of: &str) -> Option<PathBuf> {
    let out = dir.join(format!("out{}", std::fs::read_dir(dir).unwrap().count()));
    let options = StoreOptions { index_dir: Some(dir.join("index")), ..StoreOptions::default() };
    let clock = || Instant::from_unix_millis(0);
    let writing = ExportOptions::new(&out).sync(FileSync::No).clock(&clock);
    let store = Store::open_with(store, options).unwrap();
    match crate::export::export(&store, request, Instant::parse(as_of).unwrap(), &writing, &Progress::default()) {
        Ok(_) => Some(out),
        Err(crate::error::ExportError::Request(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

fn recounted(out: &Path) -> LedgerReport {
    let progress = Progress::default();
    let found = verify_export(out, &progress).unwrap();
    assert!(found.holds, "{found}");
    verify_ledger(out, &found, &LedgerOptions::default(), &progress).unwrap()
}

/// One request of every kind.
fn requests(group_files: &[PathBuf], since: &[&str]) -> Vec<ExportRequest> {
    let mut populations = vec![ExportRequest::system(), ExportRequest::all_patients()];
    populations.extend(group_files.iter().map(ExportRequest::group_file));
    let mut requests = Vec::new();
    for request in populations {
        for since in [None].into_iter().chain(since.iter().map(Some)) {
            let mut request = request.clone();
            if let Some(since) = since {
                request = request.since(since);
            }
            requests.push(request.clone());
            request.missing_last_updated = crate::policies::MissingLastUpdated::Exclude;
            request.members = crate::group::lookup::MembershipRule::Active;
            request.fhir_bases = vec!["https://fhir.example.org/r4/".to_string()];
            requests.push(request.clone().types(["Patient", "Observation", "Provenance", "Group"]));
            requests.push(request.until("2021-06-01T00:00:00Z").context(Context::Referenced));
        }
    }
    requests
}

/// Every class of every ledger over the hostile stores is what a recount gives, and so is every exported line.
#[test]
fn ledgers_of_the_hostile_stores_hold() {
    let groups: Vec<PathBuf> =
        ["Group-ab", "Group-edge", "Group-m1"].iter().map(|name| testdata(&format!("hostile/{name}.json"))).collect();
    let mut reported = 0;
    for store in ["hostile/store", "hostile/deleted", "hostile/coverage", "hostile/compressed"] {
        let dir = tempfile::tempdir().unwrap();
        for request in requests(&groups, &["2020-06-01", "2021-03-01"]) {
            let Some(out) = exported(dir.path(), &testdata(store), &request, "2024-01-01T00:00:00Z") else { continue };
            let report = recounted(&out);
            assert!(report.holds, "{store} {request:?}: {report}");
            assert_eq!(report.classes[0].stated, report.classes[1..].iter().map(|class| class.stated).sum::<u64>());
            reported += 1;
        }
    }
    assert!(reported > 100, "{reported}");
}

/// The same over real records, every bundled Group, and the store's own Groups if it has any.
#[test]
fn ledgers_of_the_bundled_groups_hold() {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(testdata("groups/synthea-r4-100")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("Group-") {
            let request = ExportRequest::group_file(&path).since("2020-01-01").context(Context::Referenced);
            let store = testdata("stores/synthea-r4-100");
            let Some(out) = exported(dir.path(), &store, &request, "2026-06-01T00:00:00Z") else { continue };
            let report = recounted(&out);
            assert!(report.holds, "{}: {report}", path.display());
        }
    }
}

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"identifier":[{"system":"s","value":"1"}]}"#;
const OBSERVATION: &str = r#"{"resourceType":"Observation","id":"o","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"subject":{"reference":"Patient/p"}}"#;
const PROVENANCE: &str = r#"{"resourceType":"Provenance","id":"v","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"target":[{"reference":"Observation/late"}]}"#;
const LATE: &str = r#"{"resourceType":"Observation","id":"late","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"subject":{"reference":"Patient/p"}}"#;
const GROUP: &str =
    r#"{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{"entity":{"reference":"Group/h"}}]}"#;
const NESTED: &str = r#"{"resourceType":"Group","id":"h","type":"person","actual":true,"member":[{"entity":{"identifier":{"system":"s","value":"1"}}},{"entity":{"reference":"Group/g"}}]}"#;

/// Late rows, a Provenance of one, nested Groups, identifiers, a list of patients: by the record alone.
#[test]
fn late_rows_and_groups_are_recounted() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("a.ndjson"), [PATIENT, OBSERVATION, PROVENANCE, GROUP, NESTED, ""].join("\n")).unwrap();
    let since = "2021-01-01T00:00:00Z";
    let first = exported(dir.path(), &store, &ExportRequest::group("g"), since).unwrap();
    assert!(recounted(&first).holds);
    std::fs::write(store.join("b.ndjson"), LATE.to_string() + "\n").unwrap();
    let request = ExportRequest::group("g").since(since).types(["Observation", "Provenance", "Group"]);
    let second = exported(dir.path(), &store, &request, "2022-01-01T00:00:00Z").unwrap();
    let report = recounted(&second);
    assert!(report.holds, "{report}");
    // The undated requested Group, the late-arriving row, and the Provenance that came with it.
    assert_eq!((report.exported["Observation"], report.exported["Provenance"], report.exported["Group"]), (1, 1, 1));
    // What the store got later does not count.
    std::fs::write(store.join("c.ndjson"), LATE.replace("late", "later") + "\n").unwrap();
    assert!(recounted(&second).holds && recounted(&first).holds);

    let list = dir.path().join("ids");
    std::fs::write(&list, "Patient/p\r\n\n  q\n").unwrap();
    let third = exported(dir.path(), &store, &ExportRequest::patients(&list), "2022-01-01T00:00:00Z").unwrap();
    assert!(recounted(&third).holds);
    // A list that has changed is not taken for the one that was read; moved, it can be named.
    let moved = dir.path().join("moved");
    std::fs::rename(&list, &moved).unwrap();
    let progress = Progress::default();
    let found = verify_export(&third, &progress).unwrap();
    let elsewhere = LedgerOptions { population_file: Some(moved.clone()), ..LedgerOptions::default() };
    assert!(verify_ledger(&third, &found, &elsewhere, &progress).unwrap().holds);
    std::fs::write(&moved, "p\n").unwrap();
    let error = verify_ledger(&third, &found, &elsewhere, &progress).unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("not the file"), "{error}");
}

/// A wrong ledger, lines that were not selected, a store that has changed or is missing.
#[test]
fn a_wrong_ledger_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let other = OBSERVATION.replace("\"o\"", "\"other\"").replace("Patient/p", "Patient/q");
    std::fs::write(store.join("a.ndjson"), [PATIENT, OBSERVATION, &other, ""].join("\n")).unwrap();
    std::fs::write(dir.path().join("ids"), "p\n").unwrap();
    let request = ExportRequest::patients(dir.path().join("ids"));
    let out = exported(dir.path(), &store, &request, "2022-01-01T00:00:00Z").unwrap();
    let progress = Progress::default();
    let found = verify_export(&out, &progress).unwrap();
    let recount = |found: &ExportVerification| verify_ledger(&out, found, &LedgerOptions::default(), &progress);
    assert!(recount(&found).unwrap().holds);

    let mut wrong = found.clone();
    let stated = wrong.ledger.as_mut().unwrap();
    (stated.cohort, stated.superseded) = (0, 1);
    let report = recount(&wrong).unwrap();
    assert_eq!(report.differences.counts["ledger"], 2, "{report}");
    assert!(report.to_string().contains("cohort"), "{report}");

    // As many lines, but another's.
    let shard = out.join("Observation.00001.ndjson");
    std::fs::write(&shard, other.clone() + "\n").unwrap();
    let report = recount(&verify_export(&out, &progress).unwrap()).unwrap();
    assert!(report.differences.counts.contains_key("lines") && !report.holds, "{report}");

    std::fs::write(store.join("a.ndjson"), [PATIENT, &other, OBSERVATION, ""].join("\n")).unwrap();
    let error = recount(&found).unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("a.ndjson"), "{error}");
    std::fs::rename(&store, dir.path().join("moved")).unwrap();
    let error = recount(&found).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("--store"), "{error}");
    std::fs::write(out.join(".outpour-job/plan.json"), "{").unwrap();
    assert_eq!(recount(&found).unwrap_err().exit_code(), 2);
}

/// Observations, Practitioners and Patients of a few ids in versions, deletions, and Provenances about them and about one
/// another, some without `recorded`.
fn associated_line() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let types = ["Observation", "Practitioner", "Patient", "Provenance"];
    let target = (0..4usize, 0..5u32, 0..6u32).prop_map(move |(of, id, form)| {
        let (base, version) = match form {
            0 => ("https://fhir.example.org/r4/", ""),
            1 => ("https://elsewhere.example/", ""),
            2 => ("", "/_history/1"),
            _ => ("", ""),
        };
        format!(r#"{{"reference":"{base}{}/r{id}{version}"}}"#, types[of])
    });
    let second = || (0..8u32).prop_map(|second| format!("2020-01-01T00:00:{second:02}Z"));
    let recorded =
        prop_oneof![1 => Just(String::new()), 4 => second().prop_map(|time| format!(r#","recorded":"{time}""#))];
    (0..10u32, 0..5u32, second(), 0..3u32, recorded, proptest::collection::vec(target, 1..4)).prop_map(
        move |(kind, id, updated, patient, recorded, targets)| {
            let meta = format!(r#""meta":{{"lastUpdated":"{updated}"}}"#);
            let performer = match id {
                0..3 => format!(r#","performer":[{{"reference":"Patient/r{id}"}}]"#),
                _ => String::new(),
            };
            match kind {
                0..2 => {
                    let performers = targets.join(",");
                    format!(r#"{{"resourceType":"Observation","id":"r{id}",{meta},"subject":{{"reference":"Patient/r{patient}"}}{performer},"x":[{performers}]}}"#)
                }
                2 => {
                    let key = r#""identifier":[{"system":"s","value":"1"}]"#;
                    let next = format!(r#""x":{{"reference":"Practitioner/r{patient}"}},"y":{{"reference":"Practitioner?identifier=s|1"}}"#);
                    let key = if id < 3 { key } else { r#""z":1"# };
                    format!(r#"{{"resourceType":"Practitioner","id":"r{id}",{meta},{next},{key}}}"#)
                }
                3 => format!(r#"{{"resourceType":"Patient","id":"r{patient}",{meta}}}"#),
                4 => {
                    let of = types[id as usize % 4];
                    format!(r#"{{"resourceType":"Bundle",{meta},"type":"batch","entry":[{{"request":{{"method":"DELETE","url":"{of}/r{id}"}}}}]}}"#)
                }
                _ => {
                    let targets = targets.join(",");
                    format!(r#"{{"resourceType":"Provenance","id":"r{id}",{meta}{recorded},"target":[{targets}]}}"#)
                }
            }
        },
    )
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]

    /// ASSOC-02…ASSOC-06, ASSOC-08, COMP-06, TYPE-05: the Provenances and the context that an export adds are those of a recount,
    /// at each level, with and without `_type` and `_since`, over versions, deletions and a packed store. COMP-05: so are
    /// the rows of an export without what is in other records, too, and the deletions that it lists.
    #[test]
    fn associated_provenance_is_recounted(
        lines in proptest::collection::vec(associated_line(), 5..60),
        packed in proptest::bool::ANY,
        choices in proptest::collection::vec(0..216usize, 4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        std::fs::write(store.join("a.ndjson"), lines.join("\n") + "\n").unwrap();
        if packed {
            let to = dir.path().join("packed");
            let options = crate::pack::PackOptions { to: to.clone(), coder: [FrameCoder::zstd(1), FrameCoder::gzip(1)][lines.len() % 2], sync: FileSync::No };
            let taken = Instant::parse("2020-01-01T00:00:05Z").unwrap();
            crate::pack::pack(&Store::open(&store).unwrap(), taken, &options, &Progress::default()).unwrap();
            store = to;
        }
        for choice in choices {
            let codes = [&["LatestProvenanceResources"][..], &["RelevantProvenanceResources"], &[]][choice % 3];
            let populations = [
                ExportRequest::system(),
                ExportRequest::all_patients(),
                ExportRequest::all_patients().only_patients(["r0"]),
                ExportRequest::all_patients().only_patients(["r0", "r1"]).patient_strict(PatientStrict::All),
            ];
            let types = [&[][..], &["Observation"], &["Observation", "Provenance", "Practitioner"]][choice / 12 % 3];
            let mut request = populations[choice / 3 % 4].clone().include_associated_data(codes).types(types);
            request.fhir_bases = vec!["https://fhir.example.org/r4".to_string()];
            request.context = [Context::None, Context::Referenced, Context::Changed][choice / 72];
            if choice / 36 % 2 == 1 {
                request = request.since("2020-01-01T00:00:03Z");
            }
            let out = exported(dir.path(), &store, &request, "2020-01-01T00:00:06Z").unwrap();
            let report = recounted(&out);
            proptest::prop_assert!(report.holds, "{:?}: {}", request, report);
        }
    }
}

/// TYPE-05, ASSOC-08: what only an associated Provenance of the cohort refers to is context, and so is its deletion, whether or
/// not `_type` names Provenance.
#[test]
fn deleted_context_of_associated_provenance_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let meta = r#""meta":{"lastUpdated":"2020-01-01T00:00:00Z"}"#;
    let lines = [
        format!(r#"{{"resourceType":"Patient","id":"p",{meta}}}"#),
        format!(
            r#"{{"resourceType":"Provenance","id":"v",{meta},"target":[{{"reference":"Patient/p"}}],"agent":[{{"who":{{"reference":"Practitioner/a"}}}}]}}"#
        ),
        format!(r#"{{"resourceType":"Practitioner","id":"a",{meta}}}"#),
        r#"{"resourceType":"Bundle","meta":{"lastUpdated":"2020-01-01T00:00:05Z"},"type":"batch","entry":[{"request":{"method":"DELETE","url":"Practitioner/a"}}]}"#.to_string(),
    ];
    std::fs::write(store.join("a.ndjson"), lines.join("\n") + "\n").unwrap();
    for types in [&[][..], &["Patient", "Practitioner"], &["Patient", "Practitioner", "Provenance"]] {
        let mut request =
            ExportRequest::all_patients().include_associated_data(["LatestProvenanceResources"]).types(types);
        request.context = Context::Referenced;
        let out = exported(dir.path(), &store, &request.since("2020-01-01T00:00:03Z"), "2020-01-01T00:00:06Z").unwrap();
        let deleted = verify_export(&out, &Progress::default()).unwrap().deleted_resources;
        assert_eq!(deleted, [entity("Practitioner", "a")].into(), "{types:?}");
        assert!(recounted(&out).holds);
    }
}

/// ASSOC-02, ASSOC-03, ASSOC-04, ASSOC-05, ASSOC-06, ASSOC-08: the newest or all Provenances of what is exported, each once,
/// whatever `_type` says; a tie is broken; none of what is not exported; without it the rule for all Provenance.
#[test]
fn provenance_of_exported_resources() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let about = |id: &str, recorded: u32, targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(|target| format!(r#"{{"reference":"{target}"}}"#)).collect();
        format!(
            r#"{{"resourceType":"Provenance","id":"{id}","meta":{{"lastUpdated":"2020-01-01T00:00:00Z"}},"recorded":"2020-01-01T00:00:0{recorded}Z","target":[{}]}}"#,
            targets.join(",")
        )
    };
    let condition = OBSERVATION.replace("Observation", "Condition").replace("\"o\"", "\"c\"");
    let lines = [
        PATIENT.to_string(),
        OBSERVATION.to_string(),
        condition,
        about("o1", 1, &["Observation/o"]),
        about("o2", 3, &["Observation/o/_history/1"]),
        about("o3", 2, &["Observation/o"]),
        about("c1", 5, &["Condition/c"]),
        about("c2", 5, &["Condition/c"]),
        about("both", 4, &["Observation/o", "Condition/c", "Observation/o"]),
        about("of-p", 9, &["Provenance/o1"]),
        about("gone", 9, &["Observation/gone"]),
    ];
    std::fs::write(store.join("a.ndjson"), lines.join("\n") + "\n").unwrap();
    let (latest, relevant) = ("LatestProvenanceResources", "RelevantProvenanceResources");
    for (codes, types, expected) in [
        (&[latest][..], &["Observation"][..], &["both"][..]),
        (&[latest], &["Condition"], &["c2"]),
        (&[latest], &[], &["both", "c2"]),
        (&[relevant], &["Observation"], &["o1", "o2", "o3", "both"]),
        (&[relevant], &["Patient"], &[]),
        (&[latest, relevant], &["Condition", "Provenance"], &["c1", "c2", "both"]),
        (&[], &["Observation"], &[]),
        (&[], &[], &["o1", "o2", "o3", "c1", "c2", "both", "of-p"]),
    ] {
        let request = ExportRequest::all_patients().types(types).include_associated_data(codes);
        let out = exported(dir.path(), &store, &request, "2022-01-01T00:00:00Z").unwrap();
        let mut found: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(&out).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("Provenance.") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
                found.extend(rows.map(|row| row["id"].as_str().unwrap().to_string()));
            }
        }
        found.sort();
        let mut expected: Vec<String> = expected.iter().map(|id| id.to_string()).collect();
        expected.sort();
        assert_eq!(found, expected, "{codes:?} {types:?}");
        assert!(recounted(&out).holds);
    }
    let wrong = ExportRequest::all_patients().include_associated_data(["Nope", "_inlineAttachmentData"]);
    assert_eq!(wrong.check().unwrap_err().problems.len(), 2);
}
