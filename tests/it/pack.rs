//! Packed stores: what is exported from them, alone or with newer files beside them, is what the naive twin exports from
//! the store that was packed; frames, tables and kills.

use crate::ask::Ask;
use crate::forge;
use crate::generated;
use crate::naive::{self, Answer};
use crate::random::{Random, each_case, knob};
use crate::run::{self, Export, Run, scratch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A file that comes to a store later, and lies behind all others in its order.
const DELTA: &str = "zz-delta.ndjson";

/// `outpour pack` with further arguments, fsync off.
pub fn pack(store: &Path, to: &Path, more: &[&str]) -> Run {
    let (store, to) = (store.to_str().unwrap(), to.to_str().unwrap());
    let mut args = vec!["pack", "--store", store, "--to", to, "--no-sync", "--progress", "never", "--json"];
    args.extend(more);
    run::run(&args)
}

/// What must not change by packing, whatever order the rows are in and whichever versions have left.
fn compare(ask: &Ask, answer: &Answer, export: &Export) {
    let sorted = |lines: BTreeMap<String, Vec<Vec<u8>>>| -> BTreeMap<String, Vec<Vec<u8>>> {
        let sort = |mut lines: Vec<Vec<u8>>| {
            lines.sort();
            lines
        };
        lines.into_iter().map(|(name, lines)| (name, sort(lines))).collect()
    };
    let (twin, found) = (sorted(answer.lines.clone()), sorted(export.lines()));
    for name in twin.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let text = |lines: Option<&Vec<Vec<u8>>>| -> Vec<String> {
            lines.into_iter().flatten().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
        };
        let (twin, found) = (text(twin.get(name)), text(found.get(name)));
        // A Provenance about versions that have left may be exported once more, never once less.
        let missing: Vec<_> = twin.iter().filter(|line| !found.contains(line)).collect();
        let added: Vec<_> = found.iter().filter(|line| !twin.contains(line)).collect();
        assert!(missing.is_empty(), "{ask:?}: only the twin exports {missing:#?}");
        assert!(added.is_empty() || name == "Provenance" && ask.since.is_some(), "{ask:?}: only packed {added:#?}");
        assert!(twin.len() == found.len() || !added.is_empty(), "{ask:?}: {name} is exported twice");
    }
    let set = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(export.deletions()), set(answer.deleted.clone()), "{ask:?}: deletions");
    let ledger = export.ledger();
    for class in ["faulty", "tombstone", "future", "type"] {
        assert_eq!(ledger[class], answer.ledger[class], "{ask:?}: {class} of {ledger:?} and {:?}", answer.ledger);
    }
    for class in ["superseded", "deleted"] {
        assert!(ledger[class] <= answer.ledger[class], "{ask:?}: {class} of {ledger:?} and {:?}", answer.ledger);
    }
}

/// Puts the same newer lines beside two stores, where they are the last of both.
fn delta(stores: [&Path; 2], random: &mut Random) {
    let mut lines = Vec::new();
    for _ in 0..random.below(20) {
        lines.push(generated::line(&forge::IDS, random));
    }
    let text = forge::join(&lines, random);
    for store in stores {
        std::fs::write(store.join(DELTA), &text).unwrap();
    }
}

/// Packed, and packed with newer files beside it, a store gives what it gave before; the lines that are left are those
/// of the twin over the packed files themselves, too.
#[test]
fn packed_and_mixed_stores_export_what_the_store_did() {
    each_case("packed", knob("OUTPOUR_TEST_CASES", 120), |case, random| {
        let scratch = scratch();
        let dir = scratch.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        generated::store(&dir, random);
        let asks: Vec<Ask> = (0..3).map(|_| generated::ask(random)).collect();
        let packed = scratch.path().join("packed");
        let at = asks.iter().map(|ask| ask.as_of.clone()).min().unwrap();
        let index = scratch.path().join("index");
        let check = std::panic::AssertUnwindSafe(|| {
            let run = pack(&dir, &packed, &["--as-of", &at, "--index-dir", index.to_str().unwrap()]);
            assert!([0, 1].contains(&run.code), "{run:#?}");
            each_form(&dir, &packed, &asks, scratch.path(), random);
        });
        if let Err(panic) = std::panic::catch_unwind(check) {
            let kept = std::env::temp_dir().join(format!("outpour-failed-pack-{case}"));
            let _ = std::fs::remove_dir_all(&kept);
            let _ = std::fs::rename(scratch.path(), &kept);
            eprintln!("the store and its exports are kept in {}", kept.display());
            std::panic::resume_unwind(panic);
        }
    });
}

fn each_form(dir: &Path, packed: &Path, asks: &[Ask], scratch: &Path, random: &mut Random) {
    // A store without rows leaves nothing behind that could remember when it was packed.
    let is_packed = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "zst");
    let remembers = std::fs::read_dir(packed).unwrap().any(|entry| is_packed(entry.unwrap()));
    for form in ["packed", "mixed", "again"] {
        if form == "mixed" {
            delta([dir, packed], random);
        }
        let again = scratch.join("again");
        let store = if form == "again" { &again } else { packed };
        if form == "again" {
            let at = asks.iter().map(|ask| ask.as_of.clone()).min().unwrap();
            let index = scratch.join("index-again");
            let run = pack(packed, &again, &["--as-of", &at, "--index-dir", index.to_str().unwrap()]);
            assert!([0, 1].contains(&run.code), "{run:#?}");
        }
        for (number, ask) in asks.iter().enumerate() {
            let out = scratch.join(format!("out-{form}-{number}"));
            let index = scratch.join(format!("index-{form}-{number}"));
            let mut ask = ask.clone().with(&["--index-dir", index.to_str().unwrap()]);
            let twin = ask.read(dir);
            // An index of a packed store knows that the newer files came after it was packed.
            let newer = twin.entries.iter().filter(|entry| remembers && entry.file == DELTA);
            ask.late = newer.map(|entry| (entry.file.clone(), entry.line)).collect();
            let run = ask.run(store, &out, scratch);
            let answer = match naive::export(&twin, &ask.request()) {
                Ok(answer) => answer,
                Err(why) => {
                    assert_eq!(run.code, 2, "the twin refuses ({why}): {run:#?}");
                    continue;
                }
            };
            assert_eq!(run.code, if answer.faults.is_empty() { 0 } else { 1 }, "{form} {ask:?}\n{run:#?}");
            compare(&ask, &answer, &Export::read(&out, ask.bounds));
            let verified = run::run(&["verify", out.to_str().unwrap()]);
            assert_eq!(verified.code, 0, "{form} {ask:?}\n{verified:#?}");
        }
    }
}
