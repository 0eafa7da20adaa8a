//! Groups whose members filters choose (`member-filter`, COHORT-02 to COHORT-06), on the command line.

use crate::run::{self, Bounds, Export, Run, run, scratch, testdata};
use crate::store_forms;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The IG's extension.
pub(crate) const MEMBER_FILTER: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";

/// A filter as an extension.
fn filter(expression: &str) -> Value {
    let expression = json!({"language": "application/x-fhir-query", "expression": expression});
    json!({"url": MEMBER_FILTER, "valueExpression": expression})
}

/// A Group with filters; everybody can be in it if no members are given.
fn group(filters: &[&str], members: Option<&[&str]>) -> Value {
    let filters: Vec<Value> = filters.iter().map(|text| filter(text)).collect();
    let mut group = json!({
        "resourceType": "Group", "id": "g", "name": "filtered", "type": "person", "actual": members.is_some(), "modifierExtension": filters,
    });
    if let Some(members) = members {
        group["member"] = members.iter().map(|of| json!({"entity": {"reference": of}})).collect();
    }
    group
}

/// Runs an export of a Group in a file, whose index lies beside its output.
fn export_run(store: &Path, out: &Path, group: &Value, args: &[&str]) -> Run {
    let file = out.with_file_name("group.json");
    std::fs::write(&file, group.to_string()).unwrap();
    let index = out.with_file_name(format!("index-{}", store.file_name().unwrap().to_str().unwrap()));
    let own = ["--group", file.to_str().unwrap(), "--force", "--index-dir", index.to_str().unwrap()];
    run::export(store, out, &[&own, args].concat())
}

/// Ids of the exported Patients.
fn patients(out: &Path) -> BTreeSet<String> {
    patients_within(out, Bounds::DEFAULT)
}

/// The same of files of other bounds.
fn patients_within(out: &Path, bounds: Bounds) -> BTreeSet<String> {
    let lines = Export::read(out, bounds).lines();
    let id = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).unwrap()["id"].as_str().unwrap().to_string();
    lines.get("Patient").into_iter().flatten().map(id).collect()
}

/// Ids of the Patients that an export of a Group has, whose ledger is recounted.
#[track_caller]
fn cohort(store: &Path, out: &Path, group: &Value, args: &[&str]) -> BTreeSet<String> {
    let done = export_run(store, out, group, args);
    assert_eq!(done.code, 0, "{group} {done:#?}");
    let verified = run(&["verify", "--ledger", out.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{group} {verified:#?}");
    patients(out)
}

/// Filters, members, and ids of who is in the Group.
type FilterCase<'a> = (&'a [&'a str], Option<&'a [&'a str]>, &'a [&'a str]);

/// Versions, deletions, rows of several patients, of several bases, and dates around T.
const STORE: &str = r#"{"resourceType":"Patient","id":"a","gender":"female","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"b","gender":"female","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"link":[{"other":{"reference":"Patient/c"}}]}
{"resourceType":"Patient","id":"c","gender":"male","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"d","gender":"male","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Patient","id":"d","gender":"female","meta":{"lastUpdated":"2024-07-01T00:00:00Z"}}
{"resourceType":"Condition","id":"1","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/a"},"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Condition","id":"2","code":{"coding":[{"code":"x"}]},"subject":{"reference":"https://own.example/fhir/Patient/b"},"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Condition","id":"3","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/c"},"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Condition","id":"3","code":{"coding":[{"code":"y"}]},"subject":{"reference":"Patient/c"},"meta":{"lastUpdated":"2024-02-01T00:00:00Z"}}
{"resourceType":"Condition","id":"4","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/d"},"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Bundle","type":"transaction","meta":{"lastUpdated":"2024-03-01T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Condition/4"}}]}
{"resourceType":"Condition","id":"5","code":{"coding":[{"code":"x"}]},"subject":{"reference":"Patient/d"},"meta":{"lastUpdated":"2024-07-01T00:00:00Z"}}
{"resourceType":"Observation","id":"6","status":"final","subject":{"reference":"Patient/a"},"performer":[{"reference":"Patient/c"}],"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Observation","id":"7","status":"final","subject":{"reference":"Patient/e"},"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Observation","id":"8","status":"final","subject":{"reference":"https://other.example/fhir/Patient/d"},"meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}
{"resourceType":"Group","id":"inner","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}},{"entity":{"reference":"Patient/c"}}]}
"#;

/// COHORT-03, COHORT-05, COHORT-06, GROUP-05: who is in a Group by its filters, by hand: each filter is met by the Patient itself or by a
/// current resource of its record at T, among the members if there are some, else among everybody; nobody is nobody.
#[test]
fn filters_choose_patients() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("x.ndjson"), STORE).unwrap();
    let out = scratch.path().join("out");
    let all = Some(&["Patient/a", "Patient/b", "Patient/c", "Patient/d"][..]);
    let cases: [FilterCase<'_>; 16] = [
        (&["Patient?gender=female"], None, &["a", "b"]),
        (&["Condition?code=x"], None, &["a", "b"]),
        (&["Condition?code=y"], None, &["c"]),
        // Each resource of a record may be another one, but of one filter both criteria must be met by one.
        (&["Condition?code=x", "Observation?status=final"], None, &["a"]),
        (&["Patient?gender=male", "Observation?status=final"], None, &["c"]),
        (&["Condition?code=x&subject=Patient/b"], None, &["b"]),
        // A record needs no Patient, and one of another server is nobody's.
        (&["Observation?status=final"], None, &["a", "c"]),
        (&["Patient?_id=nobody"], None, &[]),
        (&["Patient?gender=female"], Some(&["Patient/b", "Patient/c", "Patient/x"]), &["b"]),
        (&["Condition?code=x"], Some(&["https://own.example/fhir/Patient/a", "Patient/c"]), &["a"]),
        (&["Patient?gender=male"], Some(&["Group/inner"]), &["c"]),
        (&["Patient?gender=male"], Some(&["Group/inner", "Patient/d"]), &["c", "d"]),
        (&["Patient?gender=female"], Some(&[]), &[]),
        (&["Condition?code=x"], all, &["a", "b"]),
        (&["Condition?code:not=x"], all, &["c"]),
        (&["Patient?gender=female", "Condition?code=x", "Observation?subject=Patient/a"], all, &["a"]),
    ];
    // Linked Patients come along (COMP-11): b names c.
    let expected = |ids: &[&str]| -> BTreeSet<String> {
        let linked = ids.contains(&"c").then_some("b");
        ids.iter().copied().chain(linked).map(String::from).collect()
    };
    let time = ["--as-of", "2024-06-01T00:00:00Z", "--fhir-base", "https://own.example/fhir"];
    for (filters, members, ids) in cases {
        for path in ["postings", "columns", "rows"] {
            let args = [&time[..], &["--selection", path]].concat();
            let found = cohort(&store, &out, &group(filters, members), &args);
            assert_eq!(found, expected(ids), "{filters:?} {members:?}");
        }
        let some = [&time[..], &["--patient", "a", "--patient", "b"]].concat();
        let restricted: Vec<&str> = ids.iter().copied().filter(|id| ["a", "b"].contains(id)).collect();
        assert_eq!(cohort(&store, &out, &group(filters, members), &some), expected(&restricted), "{filters:?}");
    }
    // What is dated after T does not count; later it does.
    let late = ["--as-of", "2024-08-01T00:00:00Z", "--fhir-base", "https://own.example/fhir"];
    assert_eq!(cohort(&store, &out, &group(&["Condition?code=x"], None), &late), expected(&["a", "b", "d"]));
    assert_eq!(cohort(&store, &out, &group(&["Patient?gender=female"], None), &late), expected(&["a", "b", "d"]));
    // Without the base it is another server's.
    let other = ["--as-of", "2024-06-01T00:00:00Z"];
    assert_eq!(cohort(&store, &out, &group(&["Condition?code=x"], None), &other), expected(&["a"]));
    // A record without a Patient is exported, and told.
    let done = export_run(&store, &out, &group(&["Observation?subject=Patient/e"], None), &time);
    assert_eq!(done.code, 0, "{done:#?}");
    let found = Export::read(&out, Bounds::DEFAULT);
    assert_eq!(found.lines()["Observation"].len(), 1);
    assert!(found.messages().iter().any(|message| message.text.contains("Patient/e is asked for but has no current")));
}

/// What decides about a document, by hand.
type Predicate = fn(&Value) -> bool;

/// Filters, what each searches, and what meets it.
const FILTERS: [(&str, &str, Predicate); 7] = [
    ("Patient?gender=female", "Patient", |row| row["gender"] == "female"),
    ("Patient?birthdate=lt1980", "Patient", |row| row["birthDate"].as_str().is_some_and(|date| date < "1980")),
    ("Observation?category=laboratory", "Observation", |row| {
        row["category"][0]["coding"].as_array().is_some_and(|all| all.iter().any(|of| of["code"] == "laboratory"))
    }),
    ("Condition?clinical-status=resolved", "Condition", |row| row["clinicalStatus"]["coding"][0]["code"] == "resolved"),
    ("Immunization?status=completed", "Immunization", |row| row["status"] == "completed"),
    ("MedicationRequest?status=active", "MedicationRequest", |row| row["status"] == "active"),
    ("Encounter?class=EMER", "Encounter", |row| row["class"]["code"] == "EMER"),
];

/// COHORT-03: over the bundled store, in every form and for members and everybody, one filter and every pair choose those whom a
/// look at each line chooses.
#[test]
fn filters_choose_as_lines_do() {
    let scratch = scratch();
    let plain = testdata("stores/synthea-r4-100");
    let (packed, mixed) = (scratch.path().join("packed"), scratch.path().join("mixed"));
    store_forms::packed(&plain, &packed, crate::golden::AS_OF);
    store_forms::mixed(&plain, &mixed, crate::golden::AS_OF);
    let out = scratch.path().join("out");
    // Everybody's records as exported at T are what is current, and so the lines to look at.
    let whole = group(&["Patient?_id:missing=false"], None);
    let args = ["--as-of", crate::golden::AS_OF, "--context", "none"];
    let everybody = cohort(&plain, &out, &whole, &args);
    assert!(everybody.len() > 50);
    let mut met: Vec<BTreeSet<String>> = vec![BTreeSet::new(); FILTERS.len()];
    for (of, lines) in Export::read(&out, Bounds::DEFAULT).lines() {
        for line in lines {
            let row: Value = serde_json::from_slice(&line).unwrap();
            let patient = row["subject"]["reference"].as_str().or(row["patient"]["reference"].as_str());
            let patient =
                if of == "Patient" { row["id"].as_str() } else { patient.and_then(|of| of.strip_prefix("Patient/")) };
            for (i, (_, searched, meets)) in FILTERS.iter().enumerate() {
                if *searched == of && meets(&row) {
                    met[i].extend(patient.map(str::to_string));
                }
            }
        }
    }
    let narrows = |met: &&BTreeSet<String>| !met.is_empty() && met.len() < everybody.len();
    assert!(met.iter().filter(narrows).count() > 4, "{:?}", met.iter().map(BTreeSet::len).collect::<Vec<_>>());
    let few: Vec<String> = everybody.iter().step_by(25).map(|id| format!("Patient/{id}")).collect();
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    let many: Vec<String> = everybody.iter().step_by(2).map(|id| format!("Patient/{id}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let args = [&args[..], &["--type", "Patient"]].concat();
    for (round, store) in [&plain, &packed, &mixed].into_iter().enumerate() {
        for a in 0..FILTERS.len() {
            for b in a..FILTERS.len() {
                // Other forms of the store: some of the pairs.
                if round > 0 && (a + b) % 6 != 0 {
                    continue;
                }
                let filters: Vec<&str> = BTreeSet::from([a, b]).into_iter().map(|i| FILTERS[i].0).collect();
                let members = [None, Some(&few[..]), Some(&many[..])][(a + b + round) % 3];
                let base: BTreeSet<String> = match members {
                    None => everybody.clone(),
                    Some(all) => all.iter().map(|of| of["Patient/".len()..].to_string()).collect(),
                };
                let expected: BTreeSet<String> =
                    base.iter().filter(|id| met[a].contains(*id) && met[b].contains(*id)).cloned().collect();
                let done = export_run(store, &out, &group(&filters, members), &args);
                assert_eq!(done.code, 0, "{done:#?}");
                assert_eq!(patients(&out), expected, "{filters:?} {}", members.map_or(0, <[_]>::len));
            }
        }
    }
    let verified = run(&["verify", "--ledger", out.to_str().unwrap()]);
    assert_eq!(verified.code, 0, "{verified:#?}");
}

/// COHORT-02, COHORT-03, COHORT-04, GROUP-10: what cannot be evaluated, or is not as the profile has it, is refused by name at every
/// command, every problem at once, and with no value of a filter.
#[test]
fn what_cannot_be_evaluated_is_refused() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("x.ndjson"), STORE).unwrap();
    let mut wrong = group(
        &[
            "Condition?nope=SECRET&code:in=SECRET&_sort=SECRET",
            "Organization?name=SECRET",
            "SECRET",
            "Condition?code={{SECRET}}",
        ],
        Some(&["Patient/a"]),
    );
    wrong["modifierExtension"][3]["valueExpression"]["language"] = json!("text/SECRET");
    wrong["type"] = json!("animal");
    wrong["actual"] = json!(false);
    wrong["characteristic"] = json!([{"exclude": false}]);
    wrong.as_object_mut().unwrap().remove("name");
    let needles = [
        "Group.modifierExtension[0] (member-filter): Condition?nope: there is no such search parameter",
        "Condition?code: the modifier :in",
        "Condition?_sort: it says what a search returns",
        "Group.modifierExtension[1] (member-filter): resources of type Organization",
        "Group.modifierExtension[2] (member-filter): a filter is Type?parameter=value",
        "Group.modifierExtension[3] (member-filter): its valueExpression.language",
        "has a template",
        "Group.type must be person",
        "Group.name is missing",
        "Group.actual must be true",
        "Group.characteristic must not stand",
    ];
    let file = scratch.path().join("group.json");
    let check_all = |group: &Value, needles: &[&str]| {
        export_run(&store, &out, group, &[]).refused(2, needles);
        let file = file.to_str().unwrap();
        for args in [&["group", "check", file][..], &["group", "import", file, "--store", store.to_str().unwrap()]] {
            let refused = run(args);
            assert!(!format!("{refused:?}").contains("SECRET"), "{refused:#?}");
            refused.refused(2, needles);
        }
    };
    check_all(&wrong, &needles);
    // In a Group that others list, in a plain extension, and beside another modifier it is refused as it was.
    let mut beside = group(&["Patient?gender=female"], None);
    beside["modifierExtension"].as_array_mut().unwrap().push(json!({"url": "https://a.example/other"}));
    check_all(&beside, &["https://a.example/other"]);
    let mut plain = group(&["Patient?gender=female"], None);
    plain["extension"] = plain.as_object_mut().unwrap().remove("modifierExtension").unwrap();
    check_all(&plain, &["Group.extension", MEMBER_FILTER]);
    let mut nested = group(&["Patient?gender=female"], Some(&["Patient/a"]));
    nested["id"] = json!("nested");
    std::fs::write(store.join("nested.ndjson"), format!("{nested}\n")).unwrap();
    let outer = json!({"resourceType": "Group", "id": "outer", "type": "person", "actual": true, "member": [{"entity": {"reference": "Group/nested"}}]});
    export_run(&store, &out, &outer, &[])
        .refused(2, &["Group/nested, which is nested in the Group asked for", MEMBER_FILTER]);
    // 1upHealth's rules know of no filters.
    std::fs::write(&file, nested.to_string()).unwrap();
    run(&["group", "check", file.to_str().unwrap(), "--rules", "oneup"]).refused(2, &[MEMBER_FILTER]);
}

/// COHORT-05: `group check` and `group import` take a filtered Group and say whom it finds; the plan, a resumed run and the Group of
/// the store have the same cohort; nothing printed has a value of a filter.
#[test]
fn a_filtered_group_is_checked_imported_and_resumed() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("x.ndjson"), STORE.replace("\"x\"", "\"SECRET\"")).unwrap();
    let filtered = group(&["Condition?code=SECRET"], None);
    let file = scratch.path().join("group.json");
    std::fs::write(&file, filtered.to_string()).unwrap();
    let (file, store_text) = (file.to_str().unwrap(), store.to_str().unwrap());
    let checked =
        run(&["group", "check", file, "--store", store_text, "--json", "--fhir-base", "https://own.example/fhir"]);
    assert_eq!(checked.code, 0, "{checked:#?}");
    let report: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(
        (&report["filters"], &report["found"], &report["members"]),
        (&json!(1), &json!(3), &json!(0)),
        "{report}"
    );
    let single = Bounds { file_resources: 1, ..Bounds::DEFAULT };
    let imported = run(&["group", "import", file, "--store", store_text, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&imported.stdout).unwrap()["current"], true, "{imported:#?}");
    let args = ["--group", "g", "--as-of", "2024-06-01T00:00:00Z", "--fhir-base", "https://own.example/fhir"];
    let planned = run::export(&store, &out, &[&args[..], &["--plan", "--json"]].concat());
    assert_eq!(planned.code, 0, "{planned:#?}");
    let done = run::export(&store, &out, &[&args[..], &["--max-file-resources", "1"]].concat());
    assert_eq!((done.code, patients_within(&out, single)), (0, ["a", "b"].map(String::from).into()), "{done:#?}");
    // A run that is taken up again finds the same, whatever came to the store since.
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    std::fs::remove_file(out.join("Patient.00002.ndjson")).unwrap();
    let newer = r#"{"resourceType":"Condition","id":"9","code":{"coding":[{"code":"SECRET"}]},"subject":{"reference":"Patient/c"},"meta":{"lastUpdated":"2024-01-02T00:00:00Z"}}"#;
    std::fs::write(store.join("y.ndjson"), format!("{newer}\n")).unwrap();
    let resumed = run::export(
        &store,
        &out,
        &["--group", "g", "--fhir-base", "https://own.example/fhir", "--max-file-resources", "1", "--resume"],
    );
    assert_eq!((resumed.code, patients_within(&out, single)), (0, ["a", "b"].map(String::from).into()), "{resumed:#?}");
    for text in [&checked, &imported, &planned, &done, &resumed] {
        assert!(!text.stdout.contains("SECRET") && !text.said().contains("SECRET"), "{text:#?}");
    }
    let record = std::fs::read_to_string(out.join(".outpour-job/plan.json")).unwrap();
    assert!(!record.contains("SECRET"), "{record}");
}

/// COHORT-03: a line that is nested too deep for a filter counts as not meeting it, and is told.
#[test]
fn lines_that_cannot_be_searched_are_told() {
    let scratch = scratch();
    let (store, out) = (scratch.path().join("store"), scratch.path().join("out"));
    std::fs::create_dir(&store).unwrap();
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let lines = [
        r#"{"resourceType":"Patient","id":"a","gender":"male"}"#.to_string(),
        format!(r#"{{"resourceType":"Patient","id":"b","gender":{deep},"x":"male"}}"#),
    ];
    std::fs::write(store.join("a.ndjson"), lines.join("\n") + "\n").unwrap();
    let done = export_run(&store, &out, &group(&["Patient?gender=male"], None), &[]);
    assert_eq!(done.code, 1, "{done:#?}");
    let found = Export::read(&out, Bounds::DEFAULT);
    assert_eq!(found.lines()["Patient"].len(), 1);
    let text = "1 resource is nested too deep to be searched: to a filter of the Group it counts as not meeting it";
    assert!(found.messages().iter().any(|message| message.text.contains(text)), "{:?}", found.messages().len());
}
