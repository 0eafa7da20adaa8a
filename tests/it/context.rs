//! `--context referenced` (COMP-05 to COMP-08, TYPE-05, SINCE-05): what comes with the records of patients, what never does,
//! and what an increment has of it.

use crate::run::{self, Bounds, Export, scratch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const AS_OF: &str = "2024-01-01T00:00:00Z";

/// A resource dated on a day of January 2020, with further members.
fn row(of_type: &str, id: &str, day: u32, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(",{more}") };
    format!(r#"{{"resourceType":"{of_type}","id":"{id}","meta":{{"lastUpdated":"2020-01-{day:02}T00:00:00Z"}}{more}}}"#)
}

/// A member that is a Reference.
fn to(member: &str, reference: &str) -> String {
    format!(r#""{member}":{{"reference":"{reference}"}}"#)
}

/// A deletion dated on a day of January 2020.
fn deletion(of: &str, day: u32) -> String {
    format!(
        r#"{{"resourceType":"Bundle","type":"batch","meta":{{"lastUpdated":"2020-01-{day:02}T12:00:00Z"}},"entry":[{{"request":{{"method":"DELETE","url":"{of}"}}}}]}}"#
    )
}

/// Ids by type, the deletions, and the texts of the messages of an export of Patient/p with context.
struct Found {
    ids: BTreeMap<String, BTreeSet<String>>,
    deleted: Vec<String>,
    messages: Vec<String>,
}

/// Lines by type.
type Lines = BTreeMap<String, Vec<Vec<u8>>>;

impl Found {
    /// Ids of a type, joined by spaces.
    fn of(&self, of_type: &str) -> String {
        self.ids.get(of_type).into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
    }
}

/// Exports Patient/p with context from a store in each of its forms of selection, and checks that they agree.
#[track_caller]
fn export(dir: &Path, more: &[&str]) -> Found {
    let patients = dir.join("patients.txt");
    std::fs::write(&patients, "p\n").unwrap();
    let mut found: Option<(Found, Lines)> = None;
    for selection in ["postings", "columns", "rows"] {
        let out = dir.join("out");
        let _ = std::fs::remove_dir_all(&out);
        let mut args = vec!["--patients", patients.to_str().unwrap(), "--as-of", AS_OF, "--selection", selection];
        args.extend(["--fhir-base", "https://a.example/r4", "--late", "report"]);
        if !more.contains(&"--context") {
            args.extend(["--context", "referenced"]);
        }
        args.extend(more);
        let run = run::export(&dir.join("store"), &out, &args);
        assert_eq!(run.code, 0, "{run:#?}");
        let export = Export::read(&out, Bounds::DEFAULT);
        let lines = export.lines();
        let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (of_type, lines) in &lines {
            for line in lines {
                let value: serde_json::Value = serde_json::from_slice(line).unwrap();
                let is_new = ids.entry(of_type.clone()).or_default().insert(value["id"].as_str().unwrap().to_string());
                assert!(is_new, "each is exported once");
            }
        }
        let messages = export.messages().into_iter().map(|message| message.text).collect();
        let one = Found { ids, deleted: export.deletions(), messages };
        if let Some((before, known)) = &found {
            assert_eq!(
                (known, &before.deleted, &before.messages),
                (&lines, &one.deleted, &one.messages),
                "{selection}"
            );
        }
        found = Some((one, lines));
        // The ledger is recounted from the bytes of the store, by another implementation.
        let verify = run::run(&["verify", "--ledger", out.to_str().unwrap()]);
        assert_eq!(verify.code, 0, "{verify:#?}");
    }
    found.unwrap().0
}

/// Writes a store of these lines.
fn store(dir: &Path, lines: &[String]) {
    std::fs::create_dir_all(dir.join("store")).unwrap();
    std::fs::write(dir.join("store/a.ndjson"), lines.join("\n") + "\n").unwrap();
}

/// COMP-06: by id, versioned, absolute under our base and by identifier, wherever a reference stands; transitively; in a
/// circle; each once. What nothing exported refers to stays, and so does what lies under another base.
#[test]
fn what_is_referred_to_comes_with_the_records() {
    let dir = scratch();
    store(
        dir.path(),
        &[
            row("Patient", "p", 1, &to("managingOrganization", "Organization/top")),
            row("Patient", "q", 1, &to("managingOrganization", "Organization/of-q")),
            row(
                "Encounter",
                "e",
                1,
                &format!(
                    r#"{},"participant":[{{{}}},{{{}}}],"contained":[{{"resourceType":"PractitionerRole","id":"c",{}}}],"extension":[{{"url":"u","valueReference":{{"reference":"Location/room/_history/4"}}}}]"#,
                    to("subject", "Patient/p"),
                    to("individual", "https://a.example/r4/Practitioner/absolute"),
                    to("individual", "Practitioner?identifier=npi|1"),
                    to("practitioner", "Practitioner/contained")
                ),
            ),
            row(
                "MedicationRequest",
                "m",
                1,
                &[to("subject", "Patient/p"), to("medicationReference", "Medication/m")].join(","),
            ),
            row(
                "QuestionnaireResponse",
                "r",
                1,
                &[to("subject", "Patient/p"), r#""questionnaire":"Questionnaire/asked|2.0""#.into()].join(","),
            ),
            row("Practitioner", "absolute", 1, ""),
            row("Practitioner", "by-identifier", 1, r#""identifier":[{"system":"npi","value":"1"}]"#),
            row("Practitioner", "contained", 1, &to("x", "https://other.example/Organization/elsewhere")),
            row("Practitioner", "nobodys", 1, ""),
            row("Location", "room", 1, &to("partOf", "Location/house")),
            row("Location", "house", 1, &to("managingOrganization", "Organization/part")),
            row("Organization", "part", 1, &to("partOf", "Organization/top")),
            row(
                "Organization",
                "top",
                1,
                &[to("partOf", "Organization/top"), r#""endpoint":[{"reference":"Endpoint/x"}]"#.into()].join(","),
            ),
            row("Organization", "of-q", 1, ""),
            row("Organization", "elsewhere", 1, ""),
            row("Endpoint", "x", 1, ""),
            row("Medication", "m", 1, &to("manufacturer", "Organization/maker")),
            row("Organization", "maker", 1, ""),
            row("Questionnaire", "asked", 1, ""),
            row("Questionnaire", "unasked", 1, ""),
        ],
    );
    let found = export(dir.path(), &[]);
    assert_eq!(found.of("Patient"), "p");
    assert_eq!(found.of("Practitioner"), "absolute by-identifier contained");
    assert_eq!(found.of("Location"), "house room");
    assert_eq!(found.of("Organization"), "maker part top");
    assert_eq!(
        (found.of("Endpoint"), found.of("Medication"), found.of("Questionnaire")),
        ("x".into(), "m".into(), "asked".into())
    );
    // TYPE-05: with `_type` only types that it names, by what is in the output.
    let found = export(dir.path(), &["--type", "Encounter,Practitioner,Organization"]);
    assert_eq!(
        (found.of("Practitioner"), found.of("Organization")),
        ("absolute by-identifier contained".into(), String::new())
    );
    // The engine's other default leaves all of it out.
    let out = dir.path().join("none");
    let run = run::export(&dir.path().join("store"), &out, &["--all-patients", "--as-of", AS_OF]);
    assert_eq!(run.code, 0);
    assert!(!Export::read(&out, Bounds::DEFAULT).lines().contains_key("Practitioner"));
}

/// COMP-06, COMP-07: nothing of another patient leaves by a reference: a Device of a patient outside, or of one that cannot be
/// told, whatever form names the patient; and no record of another patient at all.
#[test]
fn nothing_of_another_patient_leaves() {
    let dir = scratch();
    let forms = [
        ("of-q", to("patient", "Patient/q")),
        ("of-q-absolute", to("patient", "https://other.example/Patient/q")),
        ("of-urn", to("patient", "urn:uuid:0b7d7a9e-6d6f-4c53-9d50-3a0c6a2f1e11")),
        ("of-search", to("patient", "Patient?identifier=x|1")),
        ("of-contained", to("patient", "#q")),
        ("of-name", r#""patient":{"display":"a name"}"#.to_string()),
        ("of-identifier", r#""patient":{"identifier":{"value":"1"}}"#.to_string()),
        ("of-escaped", r#""p\u0061tient":{"display":"a name"}"#.to_string()),
        (
            "of-extension",
            r#""_patient":{"extension":[{"url":"u","valueReference":{"reference":"Patient/q"}}]}"#.to_string(),
        ),
        ("of-subject", to("subject", "Patient/q")),
        ("of-nobody", r#""serialNumber":"1""#.to_string()),
        ("of-p", to("patient", "Patient/p")),
    ];
    let mut lines = vec![
        row("Patient", "p", 1, ""),
        row("Patient", "q", 1, ""),
        row("Observation", "of-q", 1, &to("subject", "Patient/q")),
    ];
    for (n, (id, member)) in forms.iter().enumerate() {
        // Each Device leads on to an Organization: what stays leads nowhere.
        lines.push(row("Device", id, 1, &format!("{member},{}", to("owner", &format!("Organization/{id}")))));
        lines.push(row("Organization", id, 1, &to("x", "Observation/of-q")));
        lines.push(row(
            "Observation",
            &format!("o{n}"),
            1,
            &[to("subject", "Patient/p"), to("device", &format!("Device/{id}"))].join(","),
        ));
    }
    store(dir.path(), &lines);
    let found = export(dir.path(), &[]);
    assert_eq!((found.of("Device"), found.of("Organization")), ("of-nobody of-p".into(), "of-nobody of-p".into()));
    assert_eq!((found.of("Patient"), found.ids["Observation"].len()), ("p".into(), forms.len()));
    assert!(found.messages.iter().all(|text| !text.contains("of-q")), "{:?}", found.messages);
}

/// COMP-06: references that lead nowhere, and those by an identifier that several have, are counted by type; what is deleted
/// or later than T is not there.
#[test]
fn references_that_lead_nowhere_are_counted() {
    let dir = scratch();
    let lines = [
        row("Patient", "p", 1, ""),
        row(
            "Observation",
            "a",
            1,
            &format!(
                r#"{},"performer":[{{"reference":"Practitioner/gone"}},{{"reference":"Practitioner/never"}},{{"reference":"Practitioner?identifier=s|1"}},{{"reference":"Practitioner?name=x"}}]"#,
                to("subject", "Patient/p")
            ),
        ),
        row("Observation", "b", 1, &[to("subject", "Patient/p"), to("device", "Location/never")].join(",")),
        row("Practitioner", "gone", 1, ""),
        deletion("Practitioner/gone", 2),
        row("Practitioner", "twin-1", 1, r#""identifier":[{"system":"s","value":"1"}]"#),
        row("Practitioner", "twin-2", 1, r#""identifier":[{"system":"s","value":"1"},{"system":"s","value":"1"}]"#),
    ];
    store(dir.path(), &lines);
    let found = export(dir.path(), &[]);
    assert_eq!(found.of("Practitioner"), "");
    let has = |text: &str| assert!(found.messages.iter().any(|message| message.contains(text)), "{:?}", found.messages);
    has("3 references of exported resources to Practitioner lead to no current resource that may be exported");
    has("1 reference of exported resources to Practitioner leads to several resources");
    has("1 reference of exported resources to Location leads to no current resource");
}

/// TYPE-05, SINCE-05: an increment has what its rows refer to, of any age; what changed and that any row of the cohort leads to;
/// deletions of that. It does not have what changed beside the cohort, nor its deletion.
#[test]
fn increments_have_what_a_reader_lacks() {
    let dir = scratch();
    let lines = [
        row("Patient", "p", 1, &to("managingOrganization", "Organization/changed")),
        row("Patient", "q", 1, &to("managingOrganization", "Organization/changed-of-q")),
        row("Observation", "old", 1, &[to("subject", "Patient/p"), to("performer", "PractitionerRole/old")].join(",")),
        row("Observation", "new", 20, &[to("subject", "Patient/p"), to("performer", "Practitioner/old")].join(",")),
        row("Observation", "once", 1, &[to("subject", "Patient/p"), to("performer", "Practitioner/deleted")].join(",")),
        row("Observation", "once", 3, &to("subject", "Patient/p")),
        row("Practitioner", "old", 1, &to("x", "Location/old")),
        row("Location", "old", 1, ""),
        row("PractitionerRole", "old", 1, &to("organization", "Organization/behind")),
        row("Organization", "changed", 20, &to("partOf", "Organization/old")),
        row("Organization", "old", 1, ""),
        row("Organization", "behind", 20, ""),
        row("Organization", "changed-of-q", 20, ""),
        row("Organization", "unreferred", 20, ""),
        row("Practitioner", "deleted", 1, ""),
        deletion("Practitioner/deleted", 20),
        row("Practitioner", "beside", 1, ""),
        deletion("Practitioner/beside", 20),
        row("Device", "of-q", 1, &to("patient", "Patient/q")),
        deletion("Device/of-q", 20),
    ];
    store(dir.path(), &lines);
    let found = export(dir.path(), &["--since", "2020-01-10"]);
    assert_eq!(found.of("Observation"), "new");
    assert_eq!(found.of("Practitioner"), "old");
    assert_eq!(found.of("Location"), "old");
    assert_eq!(found.of("Organization"), "behind changed old");
    assert_eq!(found.of("PractitionerRole"), "");
    assert_eq!(found.deleted, ["Practitioner/deleted"]);
    // Of what changed alone, nothing old.
    let changed = export(dir.path(), &["--since", "2020-01-10", "--context", "changed"]);
    assert_eq!((changed.of("Practitioner"), changed.of("Organization")), (String::new(), "behind changed".into()));
    assert_eq!(changed.deleted, ["Practitioner/deleted"]);
    // A reader of the whole has them all.
    let whole = export(dir.path(), &[]);
    assert_eq!(whole.of("Organization"), "behind changed old");
}

/// COMP-14: at system level the option changes nothing.
#[test]
fn the_whole_store_has_no_context() {
    let dir = scratch();
    store(
        dir.path(),
        &[row("Practitioner", "a", 1, ""), row("Observation", "o", 20, &to("performer", "Practitioner/a"))],
    );
    let out = dir.path().join("out");
    let args = ["--system", "--context", "referenced", "--since", "2020-01-10", "--late", "report", "--as-of", AS_OF];
    assert_eq!(run::export(&dir.path().join("store"), &out, &args).code, 0);
    assert_eq!(Export::read(&out, Bounds::DEFAULT).lines().into_keys().collect::<Vec<_>>(), ["Observation"]);
}

/// COMP-10: a Binary of a patient goes with the DocumentReference that points to it, never by itself; one that nothing exported
/// points to is counted. One of another patient is neither.
#[test]
fn binaries_go_with_what_points_to_them() {
    let dir = scratch();
    let binary = |id: &str, patient: &str| row("Binary", id, 1, &to("securityContext", patient));
    let pointing = |id: &str, patient: &str, binary: &str| {
        let content = format!(r#""content":[{{"attachment":{{"url":"Binary/{binary}"}}}}]"#);
        row("DocumentReference", id, 1, &[to("subject", patient), content].join(","))
    };
    store(
        dir.path(),
        &[
            row("Patient", "p", 1, ""),
            row("Patient", "q", 1, ""),
            binary("pointed", "Patient/p"),
            binary("alone", "https://a.example/r4/Patient/p"),
            binary("alone", "https://a.example/r4/Patient/p").replace("-01T", "-02T"),
            binary("of-other-document", "Patient/p"),
            binary("of-q", "Patient/q"),
            binary("of-nobody", "Device/x"),
            pointing("d", "Patient/p", "pointed"),
            pointing("e", "Patient/q", "of-other-document"),
        ],
    );
    let found = export(dir.path(), &[]);
    assert_eq!((found.of("DocumentReference"), found.of("Binary")), ("d".into(), String::new()));
    let told: Vec<&String> = found.messages.iter().filter(|text| text.contains("Binar")).collect();
    assert!(
        told.iter().any(|text| text.contains("\"2 Binaries of exported patients are the attachment of no")),
        "{told:?}"
    );
}

/// COMP-08: a Provenance whose target is any record of the cohort comes, and the context that it names.
#[test]
fn provenance_of_records_brings_its_agents() {
    let dir = scratch();
    let provenance = |id: &str, target: &str, agent: &str| {
        let members = format!(r#""target":[{{"reference":"{target}"}}],"agent":[{{"who":{{"reference":"{agent}"}}}}]"#);
        row("Provenance", id, 1, &members)
    };
    store(
        dir.path(),
        &[
            row("Patient", "p", 1, ""),
            row("Patient", "q", 1, ""),
            row("Observation", "of-p", 1, &to("subject", "Patient/p")),
            row("Observation", "of-q", 1, &to("subject", "Patient/q")),
            provenance("a", "Observation/of-p", "Organization/a"),
            provenance("b", "Observation/of-q", "Organization/b"),
            row("Organization", "a", 1, ""),
            row("Organization", "b", 1, ""),
        ],
    );
    let found = export(dir.path(), &[]);
    assert_eq!((found.of("Provenance"), found.of("Organization")), ("a".into(), "a".into()));
}

/// PATIENT-01: a list of patients that names nobody, as an empty variable of a script gives it, is refused.
#[test]
fn an_empty_list_of_patients_is_refused() {
    let dir = scratch();
    store(dir.path(), &[row("Patient", "p", 1, "")]);
    for empty in ["", ",", " , "] {
        let args = ["--all-patients", "--patient", empty, "--as-of", AS_OF];
        run::export(&dir.path().join("store"), &dir.path().join("out"), &args).refused(2, &["no patient is named"]);
    }
}
