//! Golden exports: every run of `testdata/groups/synthea-r4-100/expected.json` in which the project follows the same
//! rules, by the naive oracle and by the binary in each compression. The expectations come from an independent
//! implementation.

use crate::naive::{self, Members, Request, Who};
use crate::run::{self, Bounds, Export, hex, scratch, testdata};
use crate::store_forms;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Later than every row of the store and every `--since` of the runs, and in the past.
pub(crate) const AS_OF: &str = "2026-06-01T00:00:00.000Z";

/// One run of the independent implementation, in terms of this project.
struct Golden {
    group: String,
    /// Further arguments of `outpour export`.
    args: Vec<String>,
    request: Request,
    bases: Vec<String>,
    types: BTreeMap<String, Value>,
}

/// Reason for leaving a run out; `None` if it is compared.
fn reason_left_out(options: &[&str]) -> Option<&'static str> {
    if !options.contains(&"--preset") {
        return Some("plain R4 exports every Group that lists a member; reading 6 does not");
    }
    if options.contains(&"--nested") {
        return Some("reading 5 always resolves nested Groups");
    }
    if options.contains(&"--inactive") && !options.contains(&"--period-at") {
        return Some("no policy looks at `inactive` and not at `period` (reading 4)");
    }
    None
}

fn goldens() -> Vec<Golden> {
    let groups = testdata("groups/synthea-r4-100");
    let expected: Value = serde_json::from_slice(&std::fs::read(groups.join("expected.json")).unwrap()).unwrap();
    let mut goldens = Vec::new();
    let mut skipped = 0;
    for case in expected["runs"].as_array().unwrap() {
        let options: Vec<&str> = case["options"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        if reason_left_out(&options).is_some() {
            skipped += 1;
            continue;
        }
        let group = case["group"].as_str().unwrap().to_string();
        let mut value: Value = serde_json::from_slice(&std::fs::read(groups.join(&group)).unwrap()).unwrap();
        let (mut args, mut bases) = (Vec::new(), Vec::new());
        let active = options.contains(&"--inactive");
        if active {
            // Reading 9 refuses `active: false` under `--members active`: only the members are compared.
            value["active"] = Value::Bool(true);
        }
        let mut request = Request::new(Who::GroupFile(value), AS_OF);
        let mut words = options.iter();
        while let Some(option) = words.next() {
            let mut argument = || words.next().unwrap().to_string();
            match *option {
                "--preset" => drop(argument()),
                "--since" => request = request.since(&keep(&mut args, option, argument())),
                "--until" => request = request.until(&keep(&mut args, option, argument())),
                "--type" => request = request.types(&keep(&mut args, option, argument())),
                "--base" => bases.push(keep(&mut args, "--fhir-base", argument())),
                "--context" => {
                    keep(&mut args, "--context", argument());
                    request.context = true;
                }
                "--inactive" => {
                    drop(argument());
                    keep(&mut args, "--members", "active".into());
                    request = request.members(Members::Active);
                }
                "--period-at" => drop(argument()), // any T between 2019 and 2098 gives the same
                other => panic!("expected.json has an option {other} that this test does not know"),
            }
        }
        let types = case["types"].as_object().unwrap().iter().map(|(name, facts)| (name.clone(), facts.clone()));
        goldens.push(Golden { group, args, request, bases, types: types.collect() });
    }
    assert_eq!((goldens.len(), skipped), (23, 5), "runs covered and left out");
    goldens
}

fn keep(args: &mut Vec<String>, flag: &str, value: String) -> String {
    args.extend([flag.to_string(), value.clone()]);
    value
}

#[track_caller]
fn compare(golden: &Golden, lines: &BTreeMap<String, Vec<Vec<u8>>>) {
    let found: BTreeMap<String, Value> = lines
        .iter()
        .map(|(name, lines)| {
            let mut sorted = lines.clone();
            sorted.sort();
            let text: Vec<u8> = sorted.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
            let facts = serde_json::json!({
                "count": sorted.len(), "bytes": text.len(), "sha256": hex(&Sha256::digest(&text)),
            });
            (name.clone(), facts)
        })
        .collect();
    assert_eq!(found, golden.types, "{} {:?}", golden.group, golden.args);
}

/// The naive oracle agrees with the independent implementation.
#[test]
fn oracle_agrees_with_the_reference() {
    let dir = testdata("stores/synthea-r4-100");
    for bases in [vec![], vec!["https://ehr.example.org/fhir"]] {
        let store = naive::read(&dir, &bases);
        for golden in goldens().iter().filter(|golden| golden.bases == bases) {
            compare(golden, &naive::export(&store, &golden.request).unwrap().lines);
        }
    }
}

/// The binary agrees with the independent implementation, in every compression and with small bounds.
#[test]
fn binary_agrees_with_the_reference() {
    let scratch = scratch();
    agrees(&testdata("stores/synthea-r4-100"), scratch.path());
}

/// The binary agrees with it from the packed and from the mixed form, too. The reference sorts lines, so that it does
/// not depend on the form, except for lines beside the pack: these are late under any `--since` (reading 17), of which
/// the reference knows nothing, so that `--late report` selects them by their lastUpdated.
#[test]
fn packed_and_mixed_forms_agree_with_the_reference() {
    let dir = testdata("stores/synthea-r4-100");
    let scratch = scratch();
    for (name, form) in [("packed", store_forms::packed as fn(&Path, &Path, &str)), ("mixed", store_forms::mixed)] {
        let store = scratch.path().join(name);
        form(&dir, &store, AS_OF);
        let scratch = crate::run::scratch();
        agrees(&store, scratch.path());
    }
}

fn agrees(dir: &Path, scratch: &Path) {
    let index = scratch.join("index");
    for (number, golden) in goldens().iter().enumerate() {
        let Who::GroupFile(group) = &golden.request.who else { unreachable!() };
        let file = scratch.join(&golden.group);
        std::fs::write(&file, group.to_string()).unwrap();
        let codings: &[&str] = if number % 5 == 0 { &["none", "gzip", "zstd"] } else { &["none"] };
        for compression in codings {
            let out = scratch.join(format!("out-{number}-{compression}"));
            let mut args = vec!["--group", file.to_str().unwrap(), "--as-of", AS_OF, "--compress", compression];
            args.extend(["--index-dir", index.to_str().unwrap(), "--max-file-bytes", "2MiB", "--late", "report"]);
            args.extend(golden.args.iter().map(String::as_str));
            let run = run::export(dir, &out, &args);
            assert_eq!(run.code, 0, "{run:#?}");
            let bounds = Bounds { file_bytes: 2 << 20, ..Bounds::DEFAULT };
            compare(golden, &Export::read(&out, bounds).lines());
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
}
