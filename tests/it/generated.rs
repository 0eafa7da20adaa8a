//! Generated stores: random versions, deletions, instants, references and spellings, in plain and compressed files with
//! random names. For random requests the binary equals the naive oracle line by line. `OUTPOUR_TEST_CASES` stores.

use crate::comparison::Comparison;
use crate::generator::{self, BASE, IDS, Spelling};
use crate::naive::associated::Associated;
use crate::naive::{Members, Who};
use crate::random::{Random, each_case, knob};
use crate::run::{Bounds, scratch};
use std::path::Path;

/// A second of early January 2020 on a coarse grid, so that instants of rows, `since`, `until` and T often coincide.
fn second(from: usize, to: usize, random: &mut Random) -> i64 {
    100_000 + (from + random.below(to - from)) as i64 * 2500
}

/// Writes a random store below `dir`.
pub(crate) fn store(dir: &Path, random: &mut Random) {
    let names =
        ["Patient.ndjson", "Observation.ndjson", "x.ndjson.gz", "sub/y.ndjson.zst", "sub.ndjson", "a/b/c.ndjson"];
    let ids = &IDS[..2 + random.below(IDS.len() - 2)];
    for name in &names[..1 + random.below(names.len())] {
        let mut lines = Vec::new();
        for _ in 0..random.below(25) {
            lines.push(line(ids, random));
        }
        generator::file(&dir.join(name), &generator::join(&lines, random), random);
    }
    if random.one_in(3) {
        std::fs::write(dir.join("notes.txt"), "not a store file").unwrap();
        generator::file(&dir.join(".hidden/Patient.ndjson"), b"{}\n", random);
    }
}

/// A random line: a resource with one of the ids, a deletion, or a faulty line.
pub(crate) fn line(ids: &[&str], random: &mut Random) -> Vec<u8> {
    let instant = match random.below(12) {
        0 => None,
        1 => {
            Some(random.pick(&["2020-02-30T00:00:00Z", "2020-01-01", "yesterday", "2020-01-01T00:00:00+14:30"]).into())
        }
        _ => Some(generator::instant(second(0, 40, random), random)),
    };
    let value = if random.one_in(8) {
        let count = 1 + random.below(3);
        let target = |random: &mut Random| (generator::any_type(random).to_string(), random.pick(ids).to_string());
        let targets: Vec<_> = (0..count).map(|_| target(random)).collect();
        generator::tombstone(&targets, instant, random)
    } else {
        let name = generator::any_type(random);
        generator::resource(name, random.pick(ids), instant, random)
    };
    let spelling = if random.one_in(3) { Spelling::Plain } else { Spelling::Wild };
    let line = generator::write(&value, spelling, random);
    if random.one_in(14) { generator::faulty(&line, random) } else { line }
}

/// A random Group with members of the generated ids.
fn group(random: &mut Random) -> serde_json::Value {
    let mut members = Vec::new();
    for _ in 0..random.below(4) {
        let name = if random.one_in(6) { "Group" } else { "Patient" };
        let reference = generator::reference(name, random.pick(&IDS), random);
        let mut member = serde_json::json!({"entity": {"reference": reference}});
        if random.one_in(5) {
            member["inactive"] = random.one_in(2).into();
        }
        if random.one_in(5) {
            member["period"] =
                serde_json::json!({"start": "2019", "end": random.pick(&["2020", "2019-12", "2020-01-02"])});
        }
        members.push(member);
    }
    serde_json::json!({"resourceType": "Group", "id": "asked", "type": "person", "actual": true, "member": members})
}

/// A random request.
pub(crate) fn comparison(random: &mut Random) -> Comparison {
    let who = match random.below(6) {
        0 => Who::AllPatients,
        1 => Who::System,
        2 => Who::Patients(vec![random.pick(&IDS).into(), format!("Patient/{}", random.pick(&IDS))]),
        _ => Who::GroupFile(group(random)),
    };
    // T is a whole millisecond (CONS-06) and later than every `since`; in a third of the requests it is later than
    // every row, as in most real stores.
    let as_of = if random.one_in(3) { second(300, 301, random) } else { second(22, 40, random) } - 86_400;
    let time = format!("{:02}:{:02}:{:02}", as_of / 3600 % 24, as_of / 60 % 60, as_of % 60);
    let mut comparison = Comparison::new(who, &format!("2020-01-{:02}T{time}.000Z", 2 + as_of / 86_400));
    let instant = |random: &mut Random| Some(generator::instant(second(0, 20, random), random));
    if random.one_in(2) {
        comparison.since = instant(random);
    }
    if random.one_in(4) {
        comparison.until = Some("2020-01-20T00:00:00Z".into());
        if random.one_in(2) && comparison.since.is_none() {
            comparison.until = instant(random);
        }
    }
    if random.one_in(3) {
        comparison.types =
            Some(random.pick(&["Observation,Provenance", "Group,Patient", "Condition", "Provenance,Device"]).into());
    }
    if random.one_in(2) {
        comparison.context = true;
        if random.one_in(3) {
            comparison.types = Some(random.pick(&["Observation,Practitioner,Organization", "Patient,Device"]).into());
        }
    }
    if random.one_in(3) {
        comparison.associated = Some(if random.one_in(2) { Associated::Latest } else { Associated::Relevant });
    }
    if random.one_in(3) && matches!(comparison.who, Who::AllPatients | Who::GroupFile(_)) {
        comparison.only = Some((0..1 + random.below(3)).map(|_| random.pick(&IDS)).collect());
    }
    if random.one_in(2) {
        comparison.bases = vec![BASE.into()];
    }
    if matches!(comparison.who, Who::GroupFile(_)) && random.one_in(3) {
        comparison.members = Some(Members::Active);
    }
    if random.one_in(2) {
        comparison = comparison.with(&["--selection", random.pick(&["postings", "columns", "rows"])]);
    }
    comparison.missing_included = !random.one_in(5);
    if random.one_in(3) {
        comparison.bounds =
            Bounds { file_bytes: 200 + random.below(2000) as u64, file_resources: 1 + random.below(9) as u64 };
    }
    if random.one_in(4) {
        comparison = comparison.with(&["--compress", random.pick(&["gzip", "zstd"])]);
    }
    comparison.with(&["--threads", random.pick(&["1", "2", "3"]), "--access", random.pick(&["called", "mapped"])])
}

/// The binary equals the naive oracle over random stores and requests.
#[test]
fn binary_equals_oracle_over_generated_stores() {
    each_case("generated", knob("OUTPOUR_TEST_CASES", 150), |case, random| {
        let scratch = scratch();
        let dir = scratch.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        store(&dir, random);
        for number in 0..3 {
            let comparison = comparison(random);
            let oracle = comparison.read(&dir);
            // Each request has its own index: then no row is late.
            let index = scratch.path().join(format!("index-{number}"));
            let comparison = comparison.with(&["--index-dir", index.to_str().unwrap()]);
            let out = scratch.path().join(format!("out-{number}"));
            let check = std::panic::AssertUnwindSafe(|| comparison.check(&oracle, &dir, &out, scratch.path()));
            if let Err(panic) = std::panic::catch_unwind(check) {
                let kept = std::env::temp_dir().join(format!("outpour-failed-{case}"));
                let _ = std::fs::remove_dir_all(&kept);
                let _ = std::fs::rename(scratch.path(), &kept);
                eprintln!("the store and its exports are kept in {}", kept.display());
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// The generated stores reach every class of the ledger, deletions and Provenances.
#[test]
fn generated_stores_reach_every_class() {
    let mut ledger = std::collections::BTreeMap::new();
    let (mut deletions, mut joined) = (0, 0);
    for case in 0..120 {
        let mut random = Random::new(7, case);
        let scratch = scratch();
        store(scratch.path(), &mut random);
        let comparison = comparison(&mut random);
        let Ok(answer) = crate::naive::export(&comparison.read(scratch.path()), &comparison.request()) else {
            continue;
        };
        for (class, count) in &answer.ledger {
            *ledger.entry(*class).or_insert(0) += count;
        }
        deletions += answer.deleted.len();
        joined += answer.lines.get("Provenance").map_or(0, Vec::len);
    }
    assert!(
        ledger.values().all(|count| *count > 10) && deletions > 5 && joined > 10,
        "{ledger:?} {deletions} {joined}"
    );
}
