//! Exports of every bundled Group over a matrix of filters and bounds equal the naive oracle byte for byte, from every
//! form of the store; and any number of threads writes the same files (CONS-09).

use crate::comparison::Comparison;
use crate::naive::{self, Members, Who};
use crate::random::knob;
use crate::run::{self, Bounds, scratch, testdata};
use crate::store_forms::{self, Oracles};
use std::path::Path;

const GROUPS: [&str; 10] =
    ["all", "ten", "one", "inactive-period", "absolute", "versioned", "nested", "missing", "empty", "mixed"];
const TYPES: [Option<&str>; 4] = [None, Some("Patient"), Some("Observation,Group, Encounter"), Some("Device,Claim")];
const SINCE: [Option<&str>; 3] = [None, Some("2016-01-01"), Some("2014-03-28T10:02:45.034-05:00")];
const UNTIL: [Option<&str>; 2] = [None, Some("2018-01-01T00:00:00+02:00")];
const MEMBERS: [Option<Members>; 3] = [None, Some(Members::Listed), Some(Members::Active)];
const BOUNDS: [Bounds; 4] = [
    Bounds::DEFAULT,
    Bounds { file_bytes: 64 << 10, file_resources: u64::MAX },
    Bounds { file_bytes: 256 << 20, file_resources: 7 },
    Bounds { file_bytes: 5000, file_resources: 3 },
];

/// Visits Groups × types × since, with until, members, bounds and base URLs taken in turn (all combinations with
/// `OUTPOUR_TEST_FULL=1`).
fn each_comparison(scratch: &Path, visit: &mut dyn FnMut(usize, Comparison)) {
    let bases = ["https://ehr.example.org/fhir"];
    let turns = if knob("OUTPOUR_TEST_FULL", 0) == 1 { UNTIL.len() * MEMBERS.len() * BOUNDS.len() } else { 1 };
    let index = scratch.join("index");
    let mut number = 0;
    for group in GROUPS {
        for types in TYPES {
            for since in SINCE {
                for turn in 0..turns {
                    let turn = if turns == 1 { number } else { turn };
                    let mut comparison = Comparison::new(Who::GroupId(group.into()), crate::golden::AS_OF);
                    comparison.types = types.map(str::to_string);
                    comparison.since = since.map(str::to_string);
                    comparison.until = UNTIL[turn % 2].map(str::to_string);
                    comparison.members = MEMBERS[turn / 2 % 3];
                    // Small bounds on a large export would make thousands of files and test nothing more.
                    let small = group != "all" && since.is_some();
                    comparison.bounds = BOUNDS[if small { turn % 4 } else { turn % 2 }];
                    comparison.more = vec!["--index-dir".into(), index.to_str().unwrap().into()];
                    comparison.bases = bases[..number % 2].iter().map(|base| base.to_string()).collect();
                    visit(number, comparison);
                    number += 1;
                }
            }
        }
    }
}

/// Over the matrix, exports of the bundled store equal the oracle.
#[test]
fn binary_equals_oracle_over_the_matrix() {
    let dir = testdata("stores/synthea-r4-100");
    let oracles = [naive::read(&dir, &[]), naive::read(&dir, &["https://ehr.example.org/fhir"])];
    let scratch = scratch();
    each_comparison(scratch.path(), &mut |number, comparison| {
        let out = scratch.path().join(format!("out-{number}"));
        comparison.check(&oracles[comparison.bases.len()], &dir, &out, scratch.path());
        let _ = std::fs::remove_dir_all(&out);
    });
}

/// Over the matrix, exports of the packed and the mixed form equal the oracle, in every compression: a quarter of the
/// requests for either form (all of them with `OUTPOUR_TEST_FULL=1`).
#[test]
fn packed_and_mixed_forms_equal_the_oracles_over_the_matrix() {
    let dir = testdata("stores/synthea-r4-100");
    let scratch = scratch();
    let whole = [naive::read(&dir, &[]), naive::read(&dir, &["https://ehr.example.org/fhir"])];
    let every = knob("OUTPOUR_TEST_FULL", 0) == 1;
    for (turn, form) in [store_forms::packed as fn(&Path, &Path, &str), store_forms::mixed].into_iter().enumerate() {
        let store = scratch.path().join(format!("form-{turn}"));
        form(&dir, &store, crate::golden::AS_OF);
        let bases = ["https://ehr.example.org/fhir"];
        let oracles = [0, 1].map(|base| Oracles::read(&store, &bases[..base], &whole[base]));
        let scratch = crate::run::scratch();
        each_comparison(scratch.path(), &mut |number, comparison| {
            // Two requests in a row go to the same form, so that either form has requests with and without a base URL.
            if every || number / 2 % 4 == 2 * turn {
                let out = scratch.path().join(format!("out-{number}"));
                let comparison = comparison.with(&["--compress", ["none", "zstd", "gzip"][number / 4 % 3]]);
                oracles[comparison.bases.len()].check(&comparison, &store, &out, scratch.path());
                let _ = std::fs::remove_dir_all(&out);
            }
        });
    }
}

/// Exports with `--all-patients`, `--system` and a list of patients equal the oracle, from every form of the store.
#[test]
fn binary_equals_oracle_for_the_other_cohorts() {
    let dir = testdata("stores/synthea-r4-100");
    let whole = naive::read(&dir, &[]);
    let scratch = scratch();
    let list =
        ["Patient/6b12b22d-6dc2-486c-9526-8ac8524f6402", "1c911236-e7da-42a6-a3bd-3a3b4e55d5cd", "Patient/nobody"];
    let cohorts = [Who::AllPatients, Who::System, Who::Patients(list.map(str::to_string).to_vec())];
    let stores =
        [("plain", dir.clone()), ("packed", scratch.path().join("packed")), ("mixed", scratch.path().join("mixed"))];
    store_forms::packed(&dir, &stores[1].1, crate::golden::AS_OF);
    store_forms::mixed(&dir, &stores[2].1, crate::golden::AS_OF);
    for (name, store) in &stores {
        let oracles = Oracles::read(store, &[], &whole);
        let index = scratch.path().join(format!("index-{name}"));
        for (number, who) in cohorts.iter().enumerate() {
            for since in SINCE {
                let mut comparison =
                    Comparison::new(who.clone(), crate::golden::AS_OF).with(&["--index-dir", index.to_str().unwrap()]);
                comparison.since = since.map(str::to_string);
                let out = scratch.path().join(format!("out-{name}-{number}-{}", since.is_some()));
                oracles.check(&comparison, store, &out, scratch.path());
                let _ = std::fs::remove_dir_all(&out);
            }
        }
    }
}

/// 1, 2 and 7 threads write the same directory, in every compression, from a store of each form.
#[test]
fn threads_do_not_change_a_byte() {
    let scratch = scratch();
    let plain = scratch.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let compressed = testdata("stores/synthea-r4-100");
    for name in ["Patient", "Observation", "Condition", "Encounter"] {
        let stored = std::fs::read(compressed.join(format!("{name}.ndjson.zst"))).unwrap();
        std::fs::write(plain.join(format!("{name}.ndjson")), run::decode("x.zst", &stored)).unwrap();
    }
    let (packed, mixed) = (scratch.path().join("packed"), scratch.path().join("mixed"));
    store_forms::packed(&plain, &packed, crate::golden::AS_OF);
    store_forms::mixed(&plain, &mixed, crate::golden::AS_OF);
    for (form, store) in [("plain", &plain), ("compressed", &compressed), ("packed", &packed), ("mixed", &mixed)] {
        for compression in ["none", "gzip", "zstd"] {
            let mut first = None;
            for threads in ["1", "2", "7"] {
                let out = scratch.path().join("out");
                let comparison =
                    Comparison::new(Who::AllPatients, crate::golden::AS_OF).with(&["--threads", threads]).with(&[
                        "--compress",
                        compression,
                        "--max-file-bytes",
                        "3MB",
                        "--base-url",
                        "https://files.example.org/x/",
                        "--index-dir",
                        scratch.path().join(format!("index-{form}-{threads}")).to_str().unwrap(),
                    ]);
                let run = comparison.run(store, &out, scratch.path());
                assert_eq!(run.code, 0, "{run:#?}");
                let files = run::snapshot(&out);
                std::fs::remove_dir_all(&out).unwrap();
                let first = first.get_or_insert_with(|| files.clone());
                let differing: Vec<&String> =
                    files.keys().filter(|name| files.get(*name) != first.get(*name)).collect();
                assert!(
                    files.len() == first.len() && differing.is_empty(),
                    "{form} {compression} {threads}: {differing:?}"
                );
            }
        }
    }
}
