//! `--type-filter`: searches over the types of an export (TFILTER).

use crate::run::{self, Bounds, Export, Run, run, scratch, testdata};
use crate::store_forms;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What decides about a document, by hand.
type Predicate = fn(&Value) -> bool;

/// Filters, and what each leaves of its type.
const FILTERS: [(&str, &str, Predicate); 6] = [
    ("Observation?category=laboratory", "Observation", |row| has_coding(&row["category"][0], "laboratory")),
    ("Observation?date=ge2015-01-01T00:00:00Z&status=final", "Observation", |row| {
        row["status"] == "final" && row["effectiveDateTime"].as_str().is_some_and(|text| text[..4] >= *"2015")
    }),
    ("Encounter?class=http://terminology.hl7.org/CodeSystem/v3-ActCode|AMB", "Encounter", |row| {
        row["class"]["code"] == "AMB"
    }),
    ("Condition?clinical-status:not=resolved", "Condition", |row| !has_coding(&row["clinicalStatus"], "resolved")),
    ("Patient?gender=female", "Patient", |row| row["gender"] == "female"),
    ("Claim?_id=nobody", "Claim", |_| false),
];

fn has_coding(concept: &Value, code: &str) -> bool {
    concept["coding"].as_array().is_some_and(|codings| codings.iter().any(|coding| coding["code"] == code))
}

/// Lines by type.
type Lines = BTreeMap<String, Vec<Vec<u8>>>;

/// Runs an export whose index lies beside its output.
fn export_run(store: &Path, out: &Path, args: &[&str]) -> Run {
    let index = out.with_file_name(format!("index-{}", store.file_name().unwrap().to_str().unwrap()));
    run::export(store, out, &[&["--index-dir", index.to_str().unwrap()], args].concat())
}

/// Exports a Group with further arguments.
#[track_caller]
fn export(store: &Path, out: &Path, group: &str, more: &[&str]) -> Lines {
    let args = [&["--group", group, "--as-of", crate::golden::AS_OF, "--force"], more].concat();
    let done = export_run(store, out, &args);
    assert_eq!(done.code, 0, "{done:#?}");
    Export::read(out, Bounds::DEFAULT).lines()
}

/// TFILTER-01, TFILTER-02, TFILTER-03: of a type with filters the rows that meet one of them are exported, of other types all;
/// from every form of the store, in every way to select.
#[test]
fn filters_leave_what_meets_one_of_them() {
    let scratch = scratch();
    let plain = testdata("stores/synthea-r4-100");
    let (packed, mixed) = (scratch.path().join("packed"), scratch.path().join("mixed"));
    store_forms::packed(&plain, &packed, crate::golden::AS_OF);
    store_forms::mixed(&plain, &mixed, crate::golden::AS_OF);
    let out = scratch.path().join("out");
    for (store, paths) in [(&plain, &["postings", "columns", "rows"][..]), (&packed, &["auto"]), (&mixed, &["auto"])] {
        let whole = export(store, &out, "ten", &[]);
        for path in paths {
            let path: &[&str] = if *path == "auto" { &[] } else { &["--selection", path] };
            let mut texts: Vec<&str> = path.to_vec();
            FILTERS.iter().for_each(|(text, ..)| texts.extend(["--type-filter", text]));
            let found = export(store, &out, "ten", &texts);
            let mut expected = whole.clone();
            for (of, lines) in &mut expected {
                let own: Vec<Predicate> =
                    FILTERS.iter().filter(|(_, name, _)| name == of).map(|(.., met)| *met).collect();
                lines.retain(|line| {
                    let row: Value = serde_json::from_slice(line).unwrap();
                    own.is_empty() || own.iter().any(|met| met(&row))
                });
            }
            expected.retain(|_, lines| !lines.is_empty());
            assert!(found == expected, "{store:?} {path:?}");
            if !path.contains(&"postings") && !path.contains(&"columns") {
                let verified = run(&["verify", "--ledger", out.to_str().unwrap()]);
                assert_eq!(verified.code, 0, "{verified:#?}");
            }
            assert!(found["Observation"].len() > 10 && found["Observation"].len() < whole["Observation"].len());
            assert!(!found.contains_key("Claim") && found["Procedure"] == whole["Procedure"]);
        }
    }
}

/// TFILTER-04, TFILTER-05, TFILTER-06, TFILTER-08: what cannot be evaluated is refused, each part by name and all at once, with
/// no word of a value; under `--lenient` the type is whole, which a message says. Nothing of a value is in a record's name.
#[test]
fn what_cannot_be_evaluated_is_told() {
    let scratch = scratch();
    let store = testdata("stores/synthea-r4-100");
    let out = scratch.path().join("out");
    let whole = export(&store, &out, "one", &[]);
    let wrong = ["--type-filter", "Patient?status=SECRET", "--type-filter", "Observation?code:in=SECRET&date=SECRET"];
    let other = ["--type-filter", "Observation?category=laboratory", "--type-filter", "Encounter?_sort=SECRET"];
    let args = [&["--group", "one", "--force"][..], &wrong, &other].concat();
    let refused = export_run(&store, &out, &args);
    let told = [
        "--type-filter",
        "Patient?status",
        "Observation?code: the modifier :in",
        "Observation?date",
        "Encounter?_sort",
    ];
    assert!(!format!("{refused:?}").replace(&args.join(" "), "").contains("= SECRET"));
    refused.refused(2, &told);
    let lenient = export(&store, &out, "one", &[&["--lenient"][..], &wrong, &other].concat());
    assert!(lenient == whole, "no type is filtered");
    let export_read = Export::read(&out, Bounds::DEFAULT);
    let texts: Vec<String> = export_read.messages().into_iter().map(|message| message.text).collect();
    for of in ["Patient", "Observation", "Encounter"] {
        let part = format!("--type-filter: {of} is not filtered");
        assert!(texts.iter().any(|text| text.contains(&part) && !text.contains("SECRET")), "{texts:?}");
    }
    let unused = ["--group", "one", "--force", "--type", "Patient", "--type-filter", "Observation?code=x"];
    export_run(&store, &out, &unused).refused(2, &["--type-filter", "Observation?: this type is not among those of"]);
    // Nothing that is printed has a value; a resumed run tells that the filters are others, and no more.
    let filtered = ["--group", "one", "--force", "--type-filter", "Observation?value-string=SECRET"];
    let done = export_run(&store, &out, &filtered);
    assert!(done.code == 0 && !done.stdout.contains("SECRET") && !done.said().contains("SECRET"), "{done:#?}");
    let other = ["--group", "one", "--resume", "--type-filter", "Observation?value-string=OTHER"];
    export_run(&store, &out, &other).refused(2, &["--type-filter", "filters then, other filters now"]);
    let malformed = ["--group", "one", "--force", "--lenient", "--type-filter", "Observation"];
    export_run(&store, &out, &malformed).refused(2, &["a filter is Type?parameter=value"]);
}

/// TFILTER-09: a filter of a type that is exported only because others refer to it narrows nothing, which a message says; at system
/// level it narrows its type.
#[test]
fn filters_of_context_are_told() {
    let scratch = scratch();
    let (store, out) = (testdata("stores/synthea-r4-100"), scratch.path().join("out"));
    let filter = ["--type-filter", "Practitioner?name=SECRET", "--context", "referenced"];
    let told = |out: &Path| {
        let texts = Export::read(out, Bounds::DEFAULT).messages().into_iter().map(|message| message.text);
        texts.filter(|text| text.contains("Practitioner?: ") && !text.contains("SECRET")).count()
    };
    let found = export(&store, &out, "one", &filter);
    assert!(!found["Practitioner"].is_empty());
    assert_eq!(told(&out), 1);
    let done = export_run(&store, &out, &["--system", "--force", "--type-filter", "Practitioner?name=SECRET"]);
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(!Export::read(&out, Bounds::DEFAULT).lines().contains_key("Practitioner"));
    assert_eq!(told(&out), 0);
}

/// A line that is nested too deep for a filter is left out, and told; the others are exported.
#[test]
fn rows_that_cannot_be_searched_are_told() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let lines = [
        r#"{"resourceType":"Patient","id":"a","gender":"male"}"#.to_string(),
        format!(r#"{{"resourceType":"Patient","id":"b","gender":{deep},"x":"male"}}"#),
    ];
    std::fs::write(store.join("a.ndjson"), lines.join("\n") + "\n").unwrap();
    let out = scratch.path().join("out");
    let done = export_run(&store, &out, &["--system", "--type-filter", "Patient?gender=male"]);
    assert_eq!(done.code, 1, "{done:#?}");
    let found = Export::read(&out, Bounds::DEFAULT);
    assert_eq!(found.lines()["Patient"].len(), 1);
    assert!(found.messages().iter().any(|message| message.text.contains("nested too deep to be searched")));
}
