//! The order in which the parts of a request apply: Group, then `patient`, `_type`, `_since` and `_until`, `_typeFilter`,
//! associated Provenance, context. Every combination of them over one small store equals the naive oracle, which applies them one after
//! another.

use crate::comparison::Comparison;
use crate::naive::associated::Associated;
use crate::naive::{self, Predicate, Who};
use crate::run::scratch;

const GROUP: &str = "g";
const AS_OF: &str = "2024-01-01T00:00:00Z";
const TYPES: [Option<&str>; 4] =
    [None, Some("Observation"), Some("Observation,Practitioner,Provenance"), Some("Patient,Organization,Device,Group")];

/// Filters of a request: none, some rows of a type, rows of context, Provenance.
const FILTERS: [&[(&str, &str, Predicate)]; 4] = [
    &[],
    &[("Observation?performer=Practitioner/old", "Observation", |row| {
        row["performer"]["reference"] == "Practitioner/old"
    })],
    &[
        ("Practitioner?_id=new", "Practitioner", |row| row["id"] == "new"),
        ("Organization?_id=of-p", "Organization", |row| row["id"] == "of-p"),
        ("Patient?organization=Organization/of-q", "Patient", |row| {
            row["managingOrganization"]["reference"] == "Organization/of-q"
        }),
    ],
    &[
        ("Provenance?recorded=2020-01-03", "Provenance", |row| row["recorded"] == "2020-01-03T00:00:00Z"),
        ("Observation?_lastUpdated=gt2020-01-10", "Observation", |row| {
            row["meta"]["lastUpdated"].as_str().is_some_and(|text| text > "2020-01-11")
        }),
        ("Observation?_id=gone-p,old-r", "Observation", |row| row["id"] == "gone-p" || row["id"] == "old-r"),
    ],
];

/// A store in which each part of a request leaves something out or brings something in that another part decides on: two
/// patients of a Group and one outside, old and new records of each, deletions, Provenances of old and new ones by several
/// agents, context that changed and that did not, and Devices of patients.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |name: &str, id: &str, day: u32, more: String| {
        let meta = format!(r#""meta":{{"lastUpdated":"2020-01-{day:02}T00:00:00Z"}}"#);
        lines.push(format!(r#"{{"resourceType":"{name}","id":"{id}",{meta}{more}}}"#));
    };
    let to = |key: &str, target: &str| format!(r#","{key}":{{"reference":"{target}"}}"#);
    let member = |patient: &str| format!(r#"{{"entity":{{"reference":"Patient/{patient}"}}}}"#);
    let members = format!(r#","type":"person","actual":true,"member":[{},{}]"#, member("p"), member("q"));
    add("Group", GROUP, 1, members);
    for (patient, day) in [("p", 1), ("q", 20), ("r", 1)] {
        add("Patient", patient, day, to("managingOrganization", &format!("Organization/of-{patient}")));
        add("Organization", &format!("of-{patient}"), if patient == "q" { 1 } else { 20 }, String::new());
        add("Device", &format!("of-{patient}"), 20, to("patient", &format!("Patient/{patient}")));
        for (age, day) in [("old", 2), ("new", 20)] {
            let id = format!("{age}-{patient}");
            let more = to("subject", &format!("Patient/{patient}"))
                + &to("device", &format!("Device/of-{patient}"))
                + &to("performer", &format!("Practitioner/{age}"));
            add("Observation", &id, day, more);
            for (recorded, agent) in [(3, "early"), (4, "late")] {
                let target = format!(r#","target":[{{"reference":"Observation/{id}"}}]"#);
                let agent = to("agent", &format!("Practitioner/{agent}-{patient}"));
                let recorded_on = format!(r#","recorded":"2020-01-{recorded:02}T00:00:00Z""#);
                add(
                    "Provenance",
                    &format!("{id}-{recorded}"),
                    if recorded == 3 { 20 } else { 3 },
                    target + &agent + &recorded_on,
                );
            }
        }
        for agent in ["early", "late"] {
            add("Practitioner", &format!("{agent}-{patient}"), if agent == "early" { 20 } else { 3 }, String::new());
        }
    }
    add("Practitioner", "old", 20, to("x", "Organization/of-old"));
    add("Practitioner", "new", 2, to("x", "Organization/of-new"));
    add("Organization", "of-old", 2, String::new());
    add("Organization", "of-new", 20, String::new());
    add("Organization", "of-nobody", 20, String::new());
    for (name, id) in [("Observation", "gone-p"), ("Observation", "gone-r")] {
        add(name, id, 2, to("subject", &format!("Patient/{}", &id[5..])) + &to("performer", "Practitioner/gone"));
    }
    add("Practitioner", "gone", 2, String::new());
    for (of, day) in
        [("Observation/gone-p", 20), ("Observation/gone-r", 20), ("Practitioner/gone", 21), ("Practitioner/late-q", 21)]
    {
        let entry = format!(r#"[{{"request":{{"method":"DELETE","url":"{of}"}}}}]"#);
        let meta = format!(r#""meta":{{"lastUpdated":"2020-01-{day}T00:00:00Z"}}"#);
        lines.push(format!(r#"{{"resourceType":"Bundle","type":"batch",{meta},"entry":{entry}}}"#));
    }
    lines
}

/// TFILTER-09, KICK-02, PATIENT-04, TYPE-02, SINCE-05, ASSOC-05, ASSOC-08, COMP-06, TYPE-05: combinations of the parts of a
/// request, each with filters in turn.
#[test]
fn parts_of_a_request_apply_in_their_order() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("a.ndjson"), lines().join("\n") + "\n").unwrap();
    let oracle = naive::read(&store, &[]);
    let index = scratch.path().join("index");
    let (mut tried, mut with_lines, mut with_deletions, mut with_filters) = (0, 0, 0, 0);
    for who in [Who::GroupId(GROUP.into()), Who::AllPatients] {
        for only in [None, Some(vec!["p"]), Some(vec!["p", "r"]), Some(vec!["nobody"])] {
            for types in TYPES {
                for (since, until) in [
                    (None, None),
                    (Some("2020-01-10"), None),
                    (None, Some("2020-01-10T00:00:00Z")),
                    (Some("2020-01-02"), Some("2020-01-20T12:00:00Z")),
                ] {
                    for associated in [None, Some(Associated::Latest), Some(Associated::Relevant)] {
                        for context in [false, true] {
                            let mut comparison = Comparison::new(who.clone(), AS_OF);
                            comparison.only.clone_from(&only);
                            comparison.types = types.map(str::to_string);
                            comparison.since = since.map(str::to_string);
                            comparison.until = until.map(str::to_string);
                            (comparison.associated, comparison.context) = (associated, context);
                            comparison.filters = FILTERS[tried / 5 % FILTERS.len()].to_vec();
                            let names = types.unwrap_or_default();
                            let is_exported = |of: &str| names.is_empty() || names.split(',').any(|name| name == of);
                            comparison.filters.retain(|(_, of, _)| is_exported(of));
                            with_filters += usize::from(!comparison.filters.is_empty());
                            let path = ["postings", "columns", "rows", "auto"][tried % 4];
                            let comparison =
                                comparison.with(&["--index-dir", index.to_str().unwrap(), "--selection", path]);
                            let out = scratch.path().join("out");
                            let export =
                                comparison.check(&oracle, &store, &out, scratch.path()).expect("it is answered");
                            with_lines += usize::from(!export.lines().is_empty());
                            with_deletions += usize::from(!export.deletions().is_empty());
                            std::fs::remove_dir_all(&out).unwrap();
                            tried += 1;
                        }
                    }
                }
            }
        }
    }
    // The table says something in most of its cells.
    assert_eq!(tried, 768);
    assert!(
        with_lines > 350 && with_deletions > 100 && with_filters > 350,
        "{with_lines} with lines, {with_deletions} with deletions, {with_filters} with filters"
    );
}
