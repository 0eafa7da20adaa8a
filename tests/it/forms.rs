//! Forms of a store: the same lines as they are, packed, and packed in part with the rest beside.
//!
//! An export of a packed or mixed form is asked twice. It equals the twin over the form's own files in everything: order,
//! ledger, messages, cuts. And it equals the twin over the store that was packed in what packing must not change; what it
//! may change is said in [`same`].

use crate::ask::Ask;
use crate::naive::store::Store;
use crate::naive::{self, Answer};
use crate::pack::pack;
use crate::run::{self, Export};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// Packs a store as of `at`, on an index of its own beside the new store; nothing in it may be faulty.
pub(crate) fn packed(store: &Path, to: &Path, place: &str) {
    let index = to.with_extension("index-of-source");
    let run = pack(store, to, &["--as-of", place, "--index-dir", index.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:#?}");
}

/// The first two thirds of each file of a store packed as of `at`, the later lines beside them as plain, gzip and zstd files,
/// behind the packed ones in store order. The store's files lie in one directory.
pub(crate) fn mixed(store: &Path, to: &Path, place: &str) {
    let part = to.with_extension("part");
    std::fs::create_dir(&part).unwrap();
    let mut rest = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.is_file() && !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    names.sort();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((stem, _)) = name.split_once(".ndjson") else { continue };
        let bytes = run::decode(name, &std::fs::read(&path).unwrap());
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let (first, later) = lines.split_at((lines.len() * 2).div_ceil(3));
        std::fs::write(part.join(format!("{stem}.ndjson")), first.concat()).unwrap();
        rest.push((stem.to_string(), later.concat()));
    }
    packed(&part, to, place);
    let later = to.join("later");
    std::fs::create_dir(&later).unwrap();
    for (number, (stem, bytes)) in rest.into_iter().enumerate() {
        let suffix = ["ndjson", "ndjson.gz", "ndjson.zst"][number % 3];
        let stored = match number % 3 {
            0 => bytes,
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::bulk::compress(&bytes, 1).unwrap(),
        };
        std::fs::write(later.join(format!("{stem}.{suffix}")), stored).unwrap();
    }
}

/// Both twins of a form. It must come of a store without deletions: where a record that was deleted has left, only the table
/// knows whose it was.
pub(crate) struct Twins<'a> {
    /// Over the store that was packed, as it is.
    whole: &'a Store,
    /// Over the form's own files.
    own: Store,
    /// What came behind the pack, of each: it is late under any `--since` (reading 17).
    late: [BTreeSet<(String, u64)>; 2],
}

impl Twins<'_> {
    pub(crate) fn read<'a>(form: &Path, bases: &[&str], whole: &'a Store) -> Twins<'a> {
        let own = naive::read(form, bases);
        let later = own.entries.iter().filter(|entry| entry.file.starts_with("later/"));
        let lines: HashSet<&[u8]> = later.clone().map(|entry| &entry.bytes[..]).collect();
        let place = |entry: &naive::store::Entry| (entry.file.clone(), entry.line);
        let of_whole = whole.entries.iter().filter(|entry| lines.contains(&entry.bytes[..])).map(place);
        let late = [of_whole.collect(), later.map(place).collect()];
        Twins { whole, own, late }
    }

    /// Asks the binary for an export of the form, and both twins.
    #[track_caller]
    pub(crate) fn check(&self, ask: &Ask, form: &Path, out: &Path, scratch: &Path) {
        let [of_whole, of_own] = self.late.clone().map(|late| Ask { late, ..ask.clone() });
        let answer = naive::export(self.whole, &of_whole.request());
        match of_own.check(&self.own, form, out, scratch) {
            Some(export) => same(ask, &answer.expect("both twins answer"), &export),
            None => assert!(answer.is_err(), "{ask:?}: only one of the twins refuses"),
        }
    }
}

/// What must not change by packing. What may: the order of rows (packed ones are sorted by patient and time, DESIGN section 5),
/// and with it which file of several a row is in; the ledger's superseded and deleted rows, of which some have left; files and
/// offsets of faults, whose lines are in `rejected.ndjson`; and that a Provenance about versions that have left may be exported
/// once more under `--since`, never once less.
#[track_caller]
pub(crate) fn same(ask: &Ask, answer: &Answer, export: &Export) {
    let sorted = |lines: BTreeMap<String, Vec<Vec<u8>>>| -> BTreeMap<String, Vec<Vec<u8>>> {
        let sort = |mut lines: Vec<Vec<u8>>| {
            lines.sort();
            lines
        };
        lines.into_iter().map(|(name, lines)| (name, sort(lines))).collect()
    };
    let (twin, found) = (sorted(answer.lines.clone()), sorted(export.lines()));
    for name in twin.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        if twin.get(name) == found.get(name) {
            continue;
        }
        let text = |lines: Option<&Vec<Vec<u8>>>| -> Vec<String> {
            lines.into_iter().flatten().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
        };
        let (twin, found) = (text(twin.get(name)), text(found.get(name)));
        let missing: Vec<_> = twin.iter().filter(|line| !found.contains(line)).collect();
        let added: Vec<_> = found.iter().filter(|line| !twin.contains(line)).collect();
        assert!(missing.is_empty(), "{ask:?}: only the twin exports {missing:#?}");
        assert!(added.is_empty() || name == "Provenance" && ask.since.is_some(), "{ask:?}: only packed {added:#?}");
        assert!(twin.len() == found.len() || !added.is_empty(), "{ask:?}: {name} is exported twice");
    }
    let set = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(export.deletions()), set(answer.deleted.clone()), "{ask:?}: deletions");
    let ledger = export.ledger();
    // Where a compressed file was torn between two lines there is a fault, and no line that could stay one.
    assert!(ledger["faulty"] <= answer.ledger["faulty"], "{ask:?}: {ledger:?} and {:?}", answer.ledger);
    for class in ["tombstone", "future", "type"] {
        assert_eq!(ledger[class], answer.ledger[class], "{ask:?}: {class} of {ledger:?} and {:?}", answer.ledger);
    }
    for class in ["superseded", "deleted"] {
        assert!(ledger[class] <= answer.ledger[class], "{ask:?}: {class} of {ledger:?} and {:?}", answer.ledger);
    }
}
