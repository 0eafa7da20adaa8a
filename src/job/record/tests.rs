//! Records on disk: the checksum finds every changed byte, the check refuses every value that breaks a rule, and other
//! files in the directory of records do no harm.

use super::*;
use crate::hash::digest::Digest;
use crate::job::record_directory::{RecordDirectory, with_checksum, without_checksum};
use crate::sys::durability::FileSync;

/// A record of a complete job with a file in each list.
fn complete() -> JobRecord {
    let file = |offset: usize, kind: RecordKind, name: &str, of: &str| FileRecord {
        id: format!("{offset:032x}"),
        kind,
        receipt: Receipt {
            file: name.to_string(),
            r#type: of.to_string(),
            count: 2,
            bytes: 100,
            file_bytes: 100,
            digest: Some(Digest { algorithm: DigestAlgorithm::Xxh3, value: "ab".repeat(16) }),
        },
    };
    let mut extension = serde_json::Map::new();
    extension.insert("urn:x".into(), serde_json::json!({"lines": 7, "a": [1.50, null]}));
    JobRecord {
        format: FORMAT,
        id: "0123456789abcdef".repeat(2),
        mount: "ig".into(),
        client: "a".into(),
        url: "http://localhost/fhir/$export?_type=Patient".into(),
        departed: None,
        request: StoredRequest {
            new_members: NewMembers::Report,
            baseline: None,
            question: Some("ab".repeat(16)),
            population: RecordedPopulation::StoreGroup("g".into()),
            only_patients: None,
            associated: None,
            types: vec!["Observation".into(), "Patient".into()],
            type_filters: Vec::new(),
            elements: vec!["Patient.name".into(), "id".into()],
            since: Some("2020-01-01T00:00:00.000Z".into()),
            until: None,
            members: MembershipRule::Active,
            scope: Some(RecordedScope {
                known: true,
                groups: Some(vec!["g".into()]),
                patients_of: Some(vec![ScopeGroup::Store("h".into())]),
            }),
            filtered_groups: FilteredGroups::Evaluated,
            member_filter_types: Vec::new(),
            absent_groups: vec!["i".into()],
            bound_client: true,
            fhir_bases: vec!["https://x.example/".into()],
            context: Context::None,
            late: LateArrivals::Include,
            missing_last_updated: MissingLastUpdated::Include,
            vanished: Vanished::Report,
            patient_strict: PatientStrict::Any,
            bounds: FileBounds { file_bytes: 2000, file_resources: Some(10) },
            compression: Compression::None,
            digest: DigestAlgorithm::Xxh3,
            attachments: None,
            notes: Vec::new(),
        },
        transaction_time: "2024-01-01T00:00:00.000Z".into(),
        view: None,
        state: JobState::Complete,
        accepted: "2024-01-01T00:00:00.000Z".into(),
        ended: Some("2024-01-01T00:00:01.000Z".into()),
        keep_seconds: Some(3600),
        expires: Some("2024-01-01T01:00:01.000Z".into()),
        files_removed: false,
        failure: None,
        naming: UrlNaming::Random,
        separate_status: false,
        planned: Some(PlannedCounts { rows: 4, shards: 2, complete: 2 }),
        files: vec![
            file(1, RecordKind::Output, "Observation.00001.ndjson", "Observation"),
            file(2, RecordKind::Output, "Patient.00001.ndjson", "Patient"),
            file(3, RecordKind::Deleted, "deleted/Bundle.00001.ndjson", "Bundle"),
            file(4, RecordKind::Error, "error/OperationOutcome.00001.ndjson", "OperationOutcome"),
        ],
        extension,
    }
}

/// A record with any one bit flipped is refused or reads as the record that was written; a truncated one is refused.
#[test]
fn a_changed_byte_is_noticed() {
    let record = complete();
    let bytes = with_checksum(&record);
    assert_eq!(without_checksum(&bytes, &record.id).as_ref(), Ok(&record));
    serde_json::from_slice::<serde_json::Value>(&bytes).expect("a seal is a part of the document");
    for offset in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[offset] ^= 1 << bit;
            assert!(
                without_checksum(&changed, &record.id).is_ok_and(|read| read == record)
                    || without_checksum(&changed, &record.id).is_err()
            );
        }
        assert!(without_checksum(&bytes[..offset], &record.id).is_err());
    }
    // Records of earlier versions have no checksum.
    assert_eq!(without_checksum(&serde_json::to_vec(&record).unwrap(), &record.id), Ok(record));
}

/// A record without a checksum, as another program would write it, is refused for each of these values, and the reason
/// repeats none of them.
#[test]
fn what_cannot_be_is_refused() {
    let id = complete().id;
    let refused = |change: &dyn Fn(&mut JobRecord)| {
        let mut record = complete();
        change(&mut record);
        let reason = without_checksum(&serde_json::to_vec(&record).unwrap(), &id).expect_err("refused");
        assert!(!reason.contains("secret"), "{reason}");
    };
    for instant in ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2024-02-30T00:00:00Z", "2024-01-01"] {
        refused(&|record| record.transaction_time = instant.to_string());
        refused(&|record| record.ended = Some(instant.to_string()));
    }
    let names =
        ["../../../../etc/passwd", "/etc/passwd", "error/../Patient.00001.ndjson", "manifest.json", "secret", ""];
    for name in names {
        refused(&|record| record.files[0].receipt.file = name.to_string());
        refused(&|record| record.files[0].id = name.to_string());
        refused(&|record| record.id = name.to_string());
        refused(&|record| record.files[1].receipt.r#type = name.to_string());
        if name.is_empty() || name.contains('/') {
            refused(&|record| record.request.population = RecordedPopulation::StoreGroup(name.to_string()));
            refused(&|record| record.request.population = RecordedPopulation::Patient(name.to_string()));
            let scope = |groups, patients_of| Some(RecordedScope { known: true, groups, patients_of });
            refused(&|record| record.request.scope = scope(Some(vec![name.to_string()]), None));
            refused(&|record| record.request.absent_groups = vec![name.to_string()]);
            let copied = || Some(vec![ScopeGroup::Copied(name.to_string())]);
            refused(&|record| record.request.scope = scope(None, copied()));
        }
        refused(&|record| record.request.types[0] = name.to_string());
        refused(&|record| record.files[0].receipt.digest.as_mut().unwrap().value = name.to_string());
        refused(&|record| record.transaction_time = name.to_string());
        refused(&|record| record.accepted = name.to_string());
        refused(&|record| record.ended = Some(name.to_string()));
        refused(&|record| record.expires = Some(name.to_string()));
        refused(&|record| record.request.since = Some(name.to_string()));
    }
    for other in ["ABCDEF0123456789".repeat(2), "g".repeat(32), "0".repeat(33)] {
        let mut record = complete();
        record.id = other.clone();
        assert!(without_checksum(&serde_json::to_vec(&record).unwrap(), &other).is_err(), "{other}");
        refused(&|record| record.files[0].id = other.clone());
    }
    for number in [0, 1, 3, u64::MAX] {
        refused(&|record| record.files[0].receipt.count = number);
        refused(&|record| record.files[0].receipt.bytes = number);
        refused(&|record| record.files[0].receipt.file_bytes = number);
        refused(&|record| record.planned.as_mut().unwrap().shards = number);
        refused(&|record| record.planned.as_mut().unwrap().rows = number);
    }
    refused(&|record| record.planned.as_mut().unwrap().complete = 3);
    refused(&|record| record.format = 2);
    refused(&|record| record.files[3].id = record.files[0].id.clone());
    refused(&|record| record.files[1].receipt.file = record.files[0].receipt.file.clone());
    refused(&|record| record.files[0].kind = RecordKind::Error);
    refused(&|record| record.files[3].kind = RecordKind::Output);
    refused(&|record| record.files[2].receipt.digest = None);
    refused(&|record| record.request.compression = Compression::Gzip);
    refused(&|record| record.request.digest = DigestAlgorithm::Sha256);
    refused(&|record| record.naming = UrlNaming::Typed);
    refused(&|record| record.ended = None);
    refused(&|record| record.files.truncate(1));
    refused(&|record| record.request.bounds.file_bytes = 0);
    refused(&|record| record.request.bounds.file_resources = Some(0));
    for state in [JobState::Queued, JobState::Running, JobState::Failed] {
        refused(&|record| record.state = state);
        // Without files either: an active job has no end but needs a view, and a failed one needs a reason.
        refused(&|record| (record.state, record.files) = (state, Vec::new()));
        refused(&|record| (record.state, record.files, record.ended) = (state, Vec::new(), None));
    }
    let mut typed = complete();
    typed.naming = UrlNaming::Typed;
    for file in &mut typed.files {
        file.id = format!("{}_0123abcd.ndjson", file.receipt.r#type);
    }
    assert_eq!(without_checksum(&serde_json::to_vec(&typed).unwrap(), &id), Ok(typed));
}

/// Links, pipes, directories and other files named as records are listed as unreadable, neither followed nor waited
/// for. Temporary files of interrupted writes are removed, and nothing else.
#[test]
fn a_directory_of_records_holds_anything() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let records = RecordDirectory::open(dir.path(), FileSync::No).unwrap();
    let good = complete();
    records.write(&good).unwrap();
    let id = |digit: char| digit.to_string().repeat(32);
    let place = |name: String| dir.path().join(name);
    symlink(place(format!("{}.json", good.id)), place(format!("{}.json", id('a')))).unwrap();
    crate::sys::test_pipe::make_pipe(&place(format!("{}.json", id('b'))));
    std::fs::create_dir(place(format!("{}.json", id('c')))).unwrap();
    std::fs::write(place(format!("{}.json", id('d'))), b"\xff\x00").unwrap();
    std::fs::copy(place(format!("{}.json", good.id)), place(format!("{}.json", id('e')))).unwrap();
    for name in ["...json", "..json", ".json", "notes.json", "notes.txt", ".notes.json.part", "....json.part"] {
        std::fs::write(place(name.to_string()), "{}").unwrap();
    }
    std::fs::write(place(format!(".{}.json.part", id('f'))), "{").unwrap();
    let before = records.directory().names().unwrap().len();
    let listed = records.list().unwrap();
    assert_eq!(listed.records, [good]);
    let mut named: Vec<String> = listed.unreadable.into_iter().map(|(name, _)| name).collect();
    named.sort();
    let mut expected = ["", ".", "..", "notes"].map(String::from).to_vec();
    expected.extend(['a', 'b', 'c', 'd', 'e'].map(id));
    expected.sort();
    assert_eq!(named, expected);
    assert_eq!(records.directory().names().unwrap().len(), before - 1, "only what a write of ours has left is removed");
}
