//! Generated stores: random versions, deletions, instants, references and spellings, in plain and compressed files of
//! any name; the binary equals the naive twin, line for line, for random requests. `OUTPOUR_TEST_CASES` stores.

use crate::ask::Ask;
use crate::forge::{self, BASE, Hand, IDS};
use crate::naive::{Members, Who};
use crate::random::{Random, each_case, knob};
use crate::run::{Bounds, scratch};
use std::path::Path;

/// A second of early January 2020, on a coarse grid so that instants meet: rows, `since`, `until` and T use the same.
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
        forge::file(&dir.join(name), &forge::join(&lines, random), random);
    }
    if random.one_in(3) {
        std::fs::write(dir.join("notes.txt"), "not a store file").unwrap();
        forge::file(&dir.join(".hidden/Patient.ndjson"), b"{}\n", random);
    }
}

pub(crate) fn line(ids: &[&str], random: &mut Random) -> Vec<u8> {
    let moment = match random.below(12) {
        0 => None,
        1 => {
            Some(random.pick(&["2020-02-30T00:00:00Z", "2020-01-01", "yesterday", "2020-01-01T00:00:00+14:30"]).into())
        }
        _ => Some(forge::instant(second(0, 40, random), random)),
    };
    let value = if random.one_in(8) {
        let count = 1 + random.below(3);
        let target = |random: &mut Random| (forge::any_type(random).to_string(), random.pick(ids).to_string());
        let targets: Vec<_> = (0..count).map(|_| target(random)).collect();
        forge::tombstone(&targets, moment, random)
    } else {
        let name = forge::any_type(random);
        forge::resource(name, random.pick(ids), moment, random)
    };
    let hand = if random.one_in(3) { Hand::Plain } else { Hand::Wild };
    let line = forge::write(&value, hand, random);
    if random.one_in(14) { forge::faulty(&line, random) } else { line }
}

fn group(random: &mut Random) -> serde_json::Value {
    let mut members = Vec::new();
    for _ in 0..random.below(4) {
        let name = if random.one_in(6) { "Group" } else { "Patient" };
        let reference = forge::reference(name, random.pick(&IDS), random);
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

pub(crate) fn ask(random: &mut Random) -> Ask {
    let who = match random.below(6) {
        0 => Who::AllPatients,
        1 => Who::System,
        2 => Who::Patients(vec![random.pick(&IDS).into(), format!("Patient/{}", random.pick(&IDS))]),
        _ => Who::GroupFile(group(random)),
    };
    // T is on a whole millisecond (CONS-06), and later than every `since`.
    // Now and then it is later than every row, as it is in most stores.
    let as_of = if random.one_in(3) { second(300, 301, random) } else { second(22, 40, random) } - 86_400;
    let time = format!("{:02}:{:02}:{:02}", as_of / 3600 % 24, as_of / 60 % 60, as_of % 60);
    let mut ask = Ask::new(who, &format!("2020-01-{:02}T{time}.000Z", 2 + as_of / 86_400));
    let moment = |random: &mut Random| Some(forge::instant(second(0, 20, random), random));
    if random.one_in(2) {
        ask.since = moment(random);
    }
    if random.one_in(4) {
        ask.until = Some("2020-01-20T00:00:00Z".into());
        if random.one_in(2) && ask.since.is_none() {
            ask.until = moment(random);
        }
    }
    if random.one_in(3) {
        ask.types =
            Some(random.pick(&["Observation,Provenance", "Group,Patient", "Condition", "Provenance,Device"]).into());
    }
    if random.one_in(2) {
        ask.bases = vec![BASE.into()];
    }
    if matches!(ask.who, Who::GroupFile(_)) && random.one_in(3) {
        ask.members = Some(Members::Active);
    }
    if random.one_in(2) {
        ask = ask.with(&["--selection", random.pick(&["postings", "columns", "rows"])]);
    }
    ask.missing_included = !random.one_in(5);
    if random.one_in(3) {
        ask.bounds = Bounds { file_bytes: 200 + random.below(2000) as u64, file_resources: 1 + random.below(9) as u64 };
    }
    if random.one_in(4) {
        ask = ask.with(&["--compress", random.pick(&["gzip", "zstd"])]);
    }
    ask.with(&["--threads", random.pick(&["1", "2", "3"]), "--access", random.pick(&["called", "mapped"])])
}

/// The binary equals the naive twin over random stores and requests.
#[test]
fn binary_equals_twin_over_generated_stores() {
    each_case("generated", knob("OUTPOUR_TEST_CASES", 150), |case, random| {
        let scratch = scratch();
        let dir = scratch.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        store(&dir, random);
        for number in 0..3 {
            let ask = ask(random);
            let twin = ask.read(&dir);
            // Each request on an index of its own: nothing is late then.
            let index = scratch.path().join(format!("index-{number}"));
            let ask = ask.with(&["--index-dir", index.to_str().unwrap()]);
            let out = scratch.path().join(format!("out-{number}"));
            let check = std::panic::AssertUnwindSafe(|| ask.check(&twin, &dir, &out, scratch.path()));
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

/// The generator is worth its name: over a few stores, every class of the ledger and deletions occur.
#[test]
fn generated_stores_reach_every_class() {
    let mut ledger = std::collections::BTreeMap::new();
    let (mut deletions, mut joined) = (0, 0);
    for case in 0..120 {
        let mut random = Random::new(7, case);
        let scratch = scratch();
        store(scratch.path(), &mut random);
        let ask = ask(&mut random);
        let Ok(answer) = crate::naive::export(&ask.read(scratch.path()), &ask.request()) else { continue };
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
