//! `--elements` (ELEM-01 to ELEM-06): reduced exports beside whole ones, line by line, from every form of a store and into
//! every compression; what is refused, resumed, verified and planned. What a line is reduced to is worked out here by
//! serde_json.

use crate::pack::pack;
use crate::run::{self, Bounds, Export, Run, scratch, snapshot, testdata};
use crate::store_forms;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const AS_OF: &str = "2024-01-01T00:00:00Z";
const SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";

/// Names of the properties that a type keeps beside those that every type keeps.
type KeptOfType = (&'static str, &'static [&'static str]);

/// Lists of elements, and what is kept of each type in them.
const LISTS: [(&str, &[KeptOfType]); 3] = [
    (
        "Patient.birthDate,Patient.deceased,Observation.value,Observation.subject",
        &[
            ("Patient", &["birthDate", "deceasedBoolean", "deceasedDateTime"]),
            (
                "Observation",
                &["status", "code", "subject", "valueQuantity", "valueCodeableConcept", "valueString", "valueDateTime"],
            ),
        ],
    ),
    ("Claim.id", &[("Claim", &["status", "type", "use", "patient", "created", "provider", "priority", "insurance"])]),
    (
        "birthDate,Encounter.id,Immunization.id",
        &[
            ("Patient", &["birthDate"]),
            ("Practitioner", &["birthDate"]),
            ("Encounter", &["status", "class"]),
            ("Immunization", &["status", "vaccineCode", "patient", "occurrenceDateTime", "occurrenceString"]),
        ],
    ),
];

/// What a line is reduced to.
fn reduced(line: &[u8], kept: &[&str]) -> String {
    let mut resource: Value = serde_json::from_slice(line).unwrap();
    let resource = resource.as_object_mut().unwrap();
    resource.retain(|name, _| {
        let always = ["resourceType", "id", "meta", "implicitRules", "modifierExtension"];
        let name = name.strip_prefix('_').unwrap_or(name);
        always.contains(&name) || kept.contains(&name)
    });
    let meta = resource.entry("meta").or_insert(json!({})).as_object_mut().unwrap();
    let tags = meta.entry("tag").or_insert(json!([])).as_array_mut().unwrap();
    let is_tag = |tag: &Value| tag["system"] == SYSTEM && tag["code"] == "SUBSETTED";
    if !tags.iter().any(is_tag) {
        tags.push(json!({"system": SYSTEM, "code": "SUBSETTED"}));
    }
    serde_json::to_string(resource).unwrap()
}

/// Compares a reduced export with a whole one of the same request: the same resources in the same order (ELEM-06), lines of
/// untouched types byte for byte (ELEM-04), others reduced (ELEM-01 to ELEM-03).
#[track_caller]
fn compare(whole: &Export, small: &Export, kept: &[KeptOfType]) {
    let (whole, small) = (whole.lines(), small.lines());
    assert!(whole.keys().eq(small.keys()));
    for (of_type, lines) in &whole {
        assert_eq!(lines.len(), small[of_type].len(), "{of_type}");
        let Some((_, kept)) = kept.iter().find(|(name, _)| name == of_type) else {
            assert!(*lines == small[of_type], "{of_type} stays whole");
            continue;
        };
        for (line, found) in lines.iter().zip(&small[of_type]) {
            assert_eq!(reduced(line, kept), std::str::from_utf8(found).unwrap());
        }
    }
}

/// Asserts that `outpour verify`, with `more`, accepts an export: bounds of files (FILE-12) are among what it checks.
#[track_caller]
fn verified(out: &Path, more: &[&str]) {
    let run = run::run(&[&["verify", out.to_str().unwrap(), "--progress", "never"], more].concat());
    assert_eq!(run.code, 0, "{run:#?}");
}

/// The bundled store as it is (zstd), packed, and packed in part with plain, gzip and zstd files beside.
fn forms(scratch: &Path) -> Vec<PathBuf> {
    let bundled = testdata("stores/synthea-r4-100");
    let (packed, mixed) = (scratch.join("packed"), scratch.join("mixed"));
    store_forms::packed(&bundled, &packed, AS_OF);
    store_forms::mixed(&bundled, &mixed, AS_OF);
    vec![bundled, packed, mixed]
}

/// ELEM-01, ELEM-02, ELEM-03, ELEM-04, ELEM-06: every form of the store, every compression, with and without `_since` and
/// `_type`, within the bounds of files.
#[test]
fn reduced_exports_are_whole_ones_without_the_rest() {
    let scratch = scratch();
    let bounds = Bounds { file_resources: 150, ..Bounds::DEFAULT };
    let filters: [&[&str]; 3] = [
        &["--group", "ten"],
        &["--all-patients", "--since", "2018-01-01"],
        &["--system", "--type", "Patient,Encounter,Practitioner,Claim"],
    ];
    let mut reduced_types = 0;
    for (f, form) in forms(scratch.path()).iter().enumerate() {
        let index = scratch.path().join(format!("index-{f}"));
        for (i, (list, kept)) in LISTS.iter().enumerate() {
            let export = |name: &str, more: &[&str]| {
                let out = scratch.path().join(name);
                let own = ["--index-dir", index.to_str().unwrap(), "--as-of", AS_OF, "--force"];
                let small = ["--max-file-resources", "150"];
                let run = run::export(form, &out, &[&own[..], &small, filters[(i + f) % 3], more].concat());
                assert!(run.code <= 1, "{run:#?}");
                Export::read(&out, bounds)
            };
            let whole = export("whole", &[]);
            let compression = ["none", "gzip", "zstd"][(i + 2 * f) % 3];
            let small = export("small", &["--elements", list, "--compress", compression]);
            compare(&whole, &small, kept);
            let request = small.manifest["request"].as_str().unwrap();
            let mut sorted: Vec<&str> = list.split(',').collect();
            sorted.sort_unstable();
            assert!(request.contains(&format!("$export?_elements={}", sorted.join(","))), "{request}");
            reduced_types += kept.iter().filter(|(name, _)| small.lines().contains_key(*name)).count();
            // Files keep their bound in bytes, and the same come from one thread.
            let bounded = scratch.path().join("bounded");
            let threads = |n: &str| {
                let own = ["--index-dir", index.to_str().unwrap(), "--as-of", AS_OF, "--force", "--threads", n];
                let more = ["--elements", list, "--compress", compression, "--max-file-bytes", "100kB"];
                let run = run::export(form, &bounded, &[&own[..], filters[(i + f) % 3], &more].concat());
                assert!(run.code <= 1, "{run:#?}");
                snapshot(&bounded)
            };
            assert!(threads("1") == threads("3"));
            verified(&bounded, if i == f { &["--ledger"] } else { &[] });
        }
    }
    assert!(reduced_types > 9, "{reduced_types}");
}

/// A small store: two files of mixed types, one of them compressed, with rows that are odd or long.
fn odd_store(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let long = "x".repeat(20 << 20);
    let rows = [
        " {\"resourceType\" : \"Patient\", \"id\":\"spaced\" , \"name\":[ ] ,\"birthDate\":\"2000\" }\r".to_string(),
        r#"{"resourceType":"Patient","\u0069d":"escaped","meta":{"t\u0061g":[{"code":"SUBSETTED"}]},"active":true}"#.into(),
        r#"{"resourceType":"Observation","id":"o","code":{"text":"é\u00e9"},"valueDecimal":1.50,"subject":{"reference":"Patient/spaced"}}"#.into(),
        format!(r#"{{"resourceType":"Patient","id":"dropped","text":"{long}","_birthDate":{{"id":"\ud83d\ude00"}}}}"#),
        format!(r#"{{"resourceType":"Patient","birthDate":"{long}","id":"kept","meta":null}}"#),
        r#"{"resourceType":"Patient","id":"array","meta":[{"security":[{"code":"R"}]}],"photo":[[[{"a":"]}"}]]]}"#.into(),
    ];
    let text = rows.join("\n");
    std::fs::write(dir.join("a.ndjson"), &text).unwrap();
    std::fs::write(
        dir.join("b.ndjson.zst"),
        zstd::bulk::compress(text.replace("\"id\":\"", "\"id\":\"z").as_bytes(), 1).unwrap(),
    )
    .unwrap();
    let tag = format!(r#"{{"system":"{SYSTEM}","code":"SUBSETTED"}}"#);
    let patient = |id: &str, rest: &str| (id.to_string(), rest.replace("TAG", &tag).into_bytes());
    BTreeMap::from([
        patient("spaced", r#"{"resourceType" : "Patient","id":"spaced","birthDate":"2000","meta":{"tag":[TAG]}}"#),
        patient(
            "escaped",
            r#"{"resourceType":"Patient","\u0069d":"escaped","meta":{"t\u0061g":[{"code":"SUBSETTED"},TAG]}}"#,
        ),
        patient(
            "dropped",
            r#"{"resourceType":"Patient","id":"dropped","_birthDate":{"id":"\ud83d\ude00"},"meta":{"tag":[TAG]}}"#,
        ),
        patient(
            "kept",
            &format!(r#"{{"resourceType":"Patient","birthDate":"{long}","id":"kept","meta":{{"tag":[TAG]}}}}"#),
        ),
        patient("array", r#"{"resourceType":"Patient","id":"array","meta":[{"security":[{"code":"R"}],"tag":[TAG]}]}"#),
    ])
}

/// ELEM-02, ELEM-03, ELEM-05: what stays keeps its bytes, whatever the row looks like and however long it is: from plain
/// files, compressed ones, and packed ones with frames too long to be held.
#[test]
fn odd_and_long_rows_are_reduced() {
    let scratch = scratch();
    let (store, packed) = (scratch.path().join("store"), scratch.path().join("packed"));
    std::fs::create_dir(&store).unwrap();
    let expected = odd_store(&store);
    assert_eq!(pack(&store, &packed, &["--as-of", AS_OF]).code, 0);
    for (store, compression) in [(&store, "none"), (&store, "gzip"), (&packed, "none"), (&packed, "zstd")] {
        let out = scratch.path().join("out");
        let own =
            ["--system", "--as-of", AS_OF, "--elements", "Patient.birthDate", "--compress", compression, "--force"];
        let run = run::export(store, &out, &own);
        assert_eq!(run.code, 0, "{run:#?}");
        verified(&out, &["--ledger"]);
        let lines = Export::read(&out, Bounds::DEFAULT).lines();
        let mut seen = 0;
        for line in &lines["Patient"] {
            let resource: Value = serde_json::from_slice(line).unwrap();
            let id = resource["id"].as_str().unwrap();
            let Some(expected) = expected.get(id) else { continue };
            assert!(line == expected, "{id} from {store:?}: {}", String::from_utf8_lossy(&line[..line.len().min(300)]));
            seen += 1;
        }
        // The row whose name is escaped has the same id in both files, and one of them is superseded.
        assert_eq!((seen, lines["Patient"].len()), (5, 9));
        assert!(
            lines["Observation"].iter().any(|line| line.ends_with(br#""subject":{"reference":"Patient/spaced"}}"#))
        );
    }
}

/// Runs an export of the bundled Group of ten.
fn export_ten(out: &Path, more: &[&str]) -> Run {
    let index = out.with_file_name("index");
    let own = ["--index-dir", index.to_str().unwrap(), "--group", "ten", "--as-of", AS_OF, "--max-file-bytes", "100kB"];
    run::export(&testdata("stores/synthea-r4-100"), out, &[&own[..], more].concat())
}

/// ELEM-05: every wrong item is told, before anything is written, and a plan tells the items that are right.
#[test]
fn wrong_items_are_refused_together() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    let items = ["--elements", "Patient.name.family,id", "--elements", "Pateint.name,Patient.nmae", "--type", "Nope"];
    let problems =
        ["\"Patient.name.family\"", "\"Pateint.name\"", "did you mean Patient?", "\"Patient.nmae\"", "\"Nope\""];
    let run = export_ten(&out, &items);
    run.refused(2, &problems);
    assert_eq!(run.said().matches("--elements: ").count(), 3, "{}", run.stderr);
    assert!(!out.exists());
    let run = export_ten(&out, &["--elements", "Patient.name, id", "--elements", "id", "--plan", "--json"]);
    assert_eq!(run.code, 0, "{run:#?}");
    let plan: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(plan["elements"], json!(["Patient.name", "id"]));
    assert!(run.said().contains("Patient.name,id"), "{}", run.stderr);
    let whole = export_ten(&out, &["--plan", "--json"]);
    let whole: Value = serde_json::from_str(&whole.stdout).unwrap();
    assert_eq!((whole.get("elements"), &whole["rows"]), (None, &plan["rows"]));
}

/// A run that lost files is resumed to the same bytes, and only with the same elements.
#[test]
fn a_reduced_export_is_resumed() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    let list = ["--elements", "Patient.name,Observation.id,Claim.id"];
    assert!(export_ten(&out, &list).code <= 1);
    let undisturbed = snapshot(&out);
    let observations = undisturbed.keys().filter(|name| name.starts_with("Observation.")).count();
    assert!(observations > 1);
    for lost in [&["Observation.00002.ndjson"][..], &["Patient.00001.ndjson", "Claim.00001.ndjson"], &[]] {
        std::fs::remove_file(out.join("manifest.json")).unwrap();
        lost.iter().for_each(|name| std::fs::remove_file(out.join(name)).unwrap());
        if lost.is_empty() {
            // A file of another length than its receipt says is written again.
            std::fs::write(out.join("Observation.00001.ndjson"), "{}\n").unwrap();
        }
        for other in [&[][..], &["--elements", "Patient.name"]] {
            export_ten(&out, &[other, &["--resume"]].concat()).refused(2, &["--elements differs", "Patient.name"]);
        }
        let resumed = export_ten(&out, &[&list[..], &["--resume", "--json"]].concat());
        assert!(resumed.code <= 1, "{resumed:#?}");
        let document: Value = serde_json::from_str(&resumed.stdout).unwrap();
        let kept = undisturbed.keys().filter(|name| name.ends_with(".ndjson") && !name.contains('/')).count();
        assert_eq!(document["resumedFiles"], json!(kept - lost.len().max(1)));
        assert!(snapshot(&out) == undisturbed);
    }
    // A whole export is not resumed as a reduced one either.
    let whole = scratch.path().join("whole");
    assert!(export_ten(&whole, &[]).code <= 1);
    export_ten(&whole, &[&list[..], &["--resume"]].concat()).refused(2, &["--elements differs", "all then"]);
}

/// What `verify` says of a line that is not reduced as it should be.
const REDUCED: &str = "it has elements that are not listed, or lacks the tag SUBSETTED";

/// ELEM-02, ELEM-03: `verify` finds a line with an element that is not listed, and one without the tag, by the record and
/// without it by the request in the manifest. `--ledger` finds a line that was changed.
#[test]
fn changed_reduced_lines_are_found() {
    let scratch = scratch();
    let list = ["--elements", "Patient.birthDate", "--digest", "none", "--compress", "none"];
    // Bytes and lines stay as many as the manifest says.
    let changes: [(&str, &str, &str); 3] = [
        ("\"birthDate\":", "\"birthdate\":", REDUCED),
        ("\"code\":\"SUBSETTED\"", "\"code\":\"SUBSETTET\"", REDUCED),
        ("\"birthDate\":\"1", "\"birthDate\":\"2", "exports other lines"),
    ];
    for (number, (from, to, rule)) in changes.into_iter().enumerate() {
        let out = scratch.path().join(format!("out-{number}"));
        let verify =
            |more: &[&str]| run::run(&[&["verify", out.to_str().unwrap(), "--progress", "never"], more].concat());
        let file = out.join("Patient.00001.ndjson");
        assert!(export_ten(&out, &list).code <= 1);
        verified(&out, &["--ledger"]);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let found = verify(&["--ledger"]);
        assert_eq!(found.code, 1, "{found:#?}");
        assert!(found.said().contains(rule), "{rule}: {found:#?}");
        if rule == REDUCED {
            std::fs::remove_dir_all(out.join(".outpour-job")).unwrap();
            let found = verify(&[]);
            assert!(found.code == 1 && found.said().contains(rule), "{rule}: {found:#?}");
        }
    }
}
