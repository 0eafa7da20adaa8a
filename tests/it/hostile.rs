//! The hostile stores: the naive oracle and the binary decide every line of `testdata/hostile/expected.json` as it
//! says. Where the specifications leave a line open (`policy`), the table below states the decision of this project.

use crate::naive::{self, Request, Who};
use crate::run::{self, Bounds, Export, hex, scratch, testdata};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Before the lines dated in 2038, after all others.
const AS_OF: &str = "2025-01-01T00:00:00.000Z";
const STORES: [&str; 4] = ["store", "compressed", "coverage", "deleted"];

/// Decision on a policy line without `design`, with its reading.
enum Ruling {
    /// As the reference decides by default.
    AsReference(#[expect(dead_code, reason = "for people")] &'static str),
    /// A fault in every run, except in the named case, where the reference decides.
    Fault {
        unless_case: &'static str,
        #[expect(dead_code, reason = "for people")]
        why: &'static str,
    },
}

use Ruling::{AsReference, Fault};
const RULINGS: [(&str, Ruling); 12] = [
    ("P-BADLU", AsReference("reading 1: an illegal lastUpdated counts as none, and reading 2: none passes")),
    ("P-BOM", AsReference("reading 8: a byte order mark inside a file is a fault")),
    ("P-BROKENVERSION", AsReference("reading 3: a version without lastUpdated is older than any with one")),
    ("P-DEPTH", AsReference("DESIGN 2, validation: no bound on depth")),
    ("P-DUPKEY", Fault { unless_case: "deep-inside", why: "reading 8: a deciding key given twice is a fault" }),
    ("P-GRAMMAR", AsReference("DESIGN 2, validation: the whole grammar of RFC 8259")),
    ("P-ID", AsReference("reading 27: no legal id is a fault; the table has those that are legal here and not in R4")),
    ("P-SHAPE", AsReference("reading 8: other shapes than the type's are followed")),
    ("P-SUBNS", AsReference("reading 1: every fraction digit counts")),
    ("P-SURROGATE", AsReference("reading 27: half of a surrogate pair is a fault, as the table has it")),
    ("P-TIE", AsReference("reading 3; a tombstone at the instant of a version is older than it")),
    ("P-TOMB", AsReference("reading 9: transaction or batch, Type/id, undated is older than everything")),
];

/// A line of the table, with its decision in one run.
struct Expected<'a> {
    file: &'a str,
    facts: &'a Value,
    bytes: Vec<u8>,
    decision: String,
}

fn table() -> Value {
    serde_json::from_slice(&std::fs::read(testdata("hostile/expected.json")).unwrap()).unwrap()
}

fn decision(facts: &Value, run: &str) -> String {
    let text = |value: &Value| value[run].as_str().map(str::to_string);
    let decision = text(&facts["decision"]).unwrap();
    if decision != "policy" {
        return decision;
    }
    let policy = facts["policy"].as_str().unwrap();
    let decided = text(&facts["design"]).unwrap_or_else(|| {
        let reference = text(&facts["oracle"]).unwrap();
        match RULINGS.iter().find(|(name, _)| *name == policy) {
            Some((_, Fault { unless_case, why: _ })) if facts["case"] != *unless_case => "error".into(),
            Some((_, Fault { .. } | AsReference(_))) => reference,
            None => panic!("no ruling for {policy}: {facts}"),
        }
    });
    let options: Vec<&str> =
        facts["options"][run].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(options.contains(&decided.as_str()), "{decided} is no option of {facts}");
    decided
}

fn expectations<'a>(name: &str, table: &'a Value, run: &str) -> Vec<Expected<'a>> {
    let mut expected = Vec::new();
    for (file, lines) in table["stores"][name]["files"].as_object().unwrap() {
        let stored = std::fs::read(testdata("hostile").join(name).join(file)).unwrap();
        let bytes = if file.ends_with(".gz") {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&stored[..]), &mut bytes).unwrap();
            bytes
        } else {
            run::decode(file, &stored)
        };
        for facts in lines.as_array().unwrap() {
            let start = facts["offset"].as_u64().unwrap() as usize;
            let bytes = bytes[start..start + facts["bytes"].as_u64().unwrap() as usize].to_vec();
            assert_eq!(&hex(&Sha256::digest(&bytes))[..16], facts["sha256"].as_str().unwrap(), "{file} {facts}");
            expected.push(Expected { file, facts, bytes, decision: decision(facts, run) });
        }
    }
    expected
}

/// Compares the exported lines and the reported faults with the decisions of one run.
fn check(name: &str, run: &str, lines: &BTreeMap<String, Vec<Vec<u8>>>, reported: &BTreeSet<(String, u64)>) {
    let table = table();
    let mut wrong = Vec::new();
    let mut left: BTreeMap<&[u8], i64> = BTreeMap::new();
    for line in lines.values().flatten() {
        *left.entry(line).or_default() += 1;
    }
    let expected = expectations(name, &table, run);
    for one in &expected {
        if one.decision == "include" {
            *left.entry(&one.bytes).or_default() -= 1;
        }
        let position = (one.file.to_string(), one.facts["line"].as_u64().unwrap());
        if reported.contains(&position) != (one.decision == "error") {
            wrong.push(format!(
                "{name}/{run} {position:?} {}: reported {}",
                one.decision,
                reported.contains(&position)
            ));
        }
    }
    for one in &expected {
        let surplus = left.get(&one.bytes[..]).copied().unwrap_or(0);
        if surplus != 0 {
            wrong.push(format!("{name}/{run} {}:{} {} but {surplus:+}", one.file, one.facts["line"], one.decision));
            left.insert(&one.bytes, 0);
        }
    }
    wrong.extend(left.iter().filter(|(_, count)| **count != 0).map(|(line, _)| String::from_utf8_lossy(line).into()));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The deletions that a run must list: those of the table, and the one of a policy line.
fn deletions(table: &Value, name: &str, run: &str) -> BTreeSet<String> {
    let listed = table["stores"][name]["deleted"][run].as_array();
    let mut urls: BTreeSet<String> = listed.into_iter().flatten().map(|url| url.as_str().unwrap().into()).collect();
    if (name, run) == ("deleted", "since") {
        urls.insert("Observation/d8".into()); // P-TOMB: a batch can list deletions, too (reading 9)
    }
    urls
}

fn request(facts: &Value) -> Request {
    let group = std::fs::read(testdata("hostile").join(facts["group"].as_str().unwrap())).unwrap();
    let request = Request::new(Who::GroupFile(serde_json::from_slice(&group).unwrap()), AS_OF);
    if let Some(since) = facts["since"].as_str() { request.since(since) } else { request }
}

/// The naive oracle decides every line as the table does.
#[test]
fn oracle_decides_every_hostile_line() {
    let table = table();
    for name in STORES {
        let store = naive::read(&testdata("hostile").join(name), &["https://fhir.example.org/r4"]);
        for (run, facts) in table["stores"][name]["runs"].as_object().unwrap() {
            let answer = naive::export(&store, &request(facts)).unwrap();
            let reported = answer.faults.iter().map(|(file, line, _)| (file.clone(), *line)).collect();
            check(name, run, &answer.lines, &reported);
            let deleted: BTreeSet<String> = answer.deleted.iter().cloned().collect();
            assert_eq!(deleted, deletions(&table, name, run), "{name}/{run}");
        }
    }
}

/// The binary decides every line as the table does, and names file, line and byte offset of each fault.
#[test]
fn binary_decides_every_hostile_line() {
    let table = table();
    let scratch = scratch();
    for name in STORES {
        let dir = testdata("hostile").join(name);
        let store = naive::read(&dir, &["https://fhir.example.org/r4"]);
        for (run, facts) in table["stores"][name]["runs"].as_object().unwrap() {
            let oracle = naive::export(&store, &request(facts)).unwrap();
            let out = scratch.path().join(format!("{name}-{run}"));
            let export = export(&dir, facts, &scratch.path().join(name), &out, oracle.faults.is_empty());
            let reported = reported(&export, &oracle.faults);
            check(name, run, &export.lines(), &reported);
            assert_eq!(export.deletions(), oracle.deleted, "{name}/{run}");
        }
    }
}

fn export(dir: &Path, facts: &Value, index: &Path, out: &Path, clean: bool) -> Export {
    let group = testdata("hostile").join(facts["group"].as_str().unwrap());
    let mut args = vec!["--group", group.to_str().unwrap(), "--as-of", AS_OF, "--index-dir", index.to_str().unwrap()];
    args.extend(["--fhir-base", "https://fhir.example.org/r4", "--max-file-bytes", "100kB"]);
    if let Some(since) = facts["since"].as_str() {
        args.extend(["--since", since]);
    }
    let run = run::export(dir, out, &args);
    assert_eq!(run.code, if clean { 0 } else { 1 }, "{run:#?}");
    Export::read(out, Bounds { file_bytes: 100_000, ..Bounds::DEFAULT })
}

/// The faulty lines that the error files name by file, line and offset, out of `places`. Fails if an issue of severity
/// error names none of them.
fn reported(export: &Export, places: &[(String, u64, u64)]) -> BTreeSet<(String, u64)> {
    let mut found = BTreeSet::new();
    for message in export.messages().iter().filter(|message| message.severity == "error") {
        let named = places.iter().find(|(file, line, offset)| {
            message.text.contains(file.as_str())
                && message.names_number(*line)
                && message.names_number(*offset)
                && !found.contains(&(file.clone(), *line))
        });
        let (file, line, _) = named.unwrap_or_else(|| panic!("no faulty line of the store: {}", message.text));
        found.insert((file.clone(), *line));
    }
    found
}
