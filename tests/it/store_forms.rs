//! Forms of a store: the same lines in plain files, packed, or packed in part with the rest in files beside.
//!
//! An export of a packed or mixed form is compared twice: with the oracle over the form's own files in everything
//! (order, ledger, messages, file bounds), and with the oracle over the original store in what packing must not change.
//! What packing may change is listed at [`assert_same_content`].

use crate::comparison::Comparison;
use crate::naive::store::Store;
use crate::naive::{self, Answer};
use crate::pack::pack;
use crate::run::{self, Export};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// Packs a store as of the instant `as_of`, in zstd, with an index of its own beside the new store. The store must have
/// no faults.
pub(crate) fn packed(store: &Path, to: &Path, as_of: &str) {
    packed_in("zstd", store, to, as_of);
}

/// The same in a coding.
pub(crate) fn packed_in(coding: &str, store: &Path, to: &Path, as_of: &str) {
    let index = to.with_extension("index-of-source");
    let run = pack(store, to, &["--as-of", as_of, "--coding", coding, "--index-dir", index.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:#?}");
}

/// Packs the first two thirds of each file as of the instant `as_of`, and puts the later lines beside them as plain,
/// gzip and zstd files, behind the packed ones in store order. The store must have no subdirectories.
pub(crate) fn mixed(store: &Path, to: &Path, as_of: &str) {
    mixed_in("zstd", store, to, as_of);
}

/// The same, packed in a coding.
pub(crate) fn mixed_in(coding: &str, store: &Path, to: &Path, as_of: &str) {
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
    packed_in(coding, &part, to, as_of);
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

/// The answers of the oracle over a form and over its original store, which must have no deletions: the owner of a
/// purged resource is recorded only in the seek table, which the oracle does not read.
pub(crate) struct Oracles<'a> {
    /// The original store.
    original: &'a Store,
    /// The form's own files.
    own: Store,
    /// Lines beside the packed files, as numbered in each of the two: they are late under any `--since` (reading 17).
    late: [BTreeSet<(String, u64)>; 2],
}

impl Oracles<'_> {
    /// Reads the form for the oracle, beside its original store.
    pub(crate) fn read<'a>(form: &Path, bases: &[&str], original: &'a Store) -> Oracles<'a> {
        let own = naive::read(form, bases);
        let later = own.entries.iter().filter(|entry| entry.file.starts_with("later/"));
        let lines: HashSet<&[u8]> = later.clone().map(|entry| &entry.bytes[..]).collect();
        let position = |entry: &naive::store::Entry| (entry.file.clone(), entry.line);
        let of_original = original.entries.iter().filter(|entry| lines.contains(&entry.bytes[..])).map(position);
        let late = [of_original.collect(), later.map(position).collect()];
        Oracles { original, own, late }
    }

    /// Compares an export of the form by the binary with the oracle's answers over both.
    #[track_caller]
    pub(crate) fn check(&self, comparison: &Comparison, form: &Path, out: &Path, scratch: &Path) {
        let [of_original, of_own] = self.late.clone().map(|late| Comparison { late, ..comparison.clone() });
        let answer = naive::export(self.original, &of_original.request());
        match of_own.check(&self.own, form, out, scratch) {
            Some(export) => assert_same_content(comparison, &answer.expect("both twins answer"), &export),
            None => assert!(answer.is_err(), "{comparison:?}: only one of the twins refuses"),
        }
    }
}

/// Asserts what packing must not change. It may change: the order of rows (packed ones are sorted by patient and time,
/// DESIGN section 5), and so which file of several a row is in; the ledger's superseded and deleted rows, of which some
/// are purged; files and offsets of faults, whose lines are in `rejected.ndjson`; and a Provenance about purged
/// versions may be exported once more under `--since`, but never once less.
#[track_caller]
pub(crate) fn assert_same_content(comparison: &Comparison, answer: &Answer, export: &Export) {
    let sorted = |lines: BTreeMap<String, Vec<Vec<u8>>>| -> BTreeMap<String, Vec<Vec<u8>>> {
        let sort = |mut lines: Vec<Vec<u8>>| {
            lines.sort();
            lines
        };
        lines.into_iter().map(|(name, lines)| (name, sort(lines))).collect()
    };
    let (oracle, found) = (sorted(answer.lines.clone()), sorted(export.lines()));
    for name in oracle.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        if oracle.get(name) == found.get(name) {
            continue;
        }
        let text = |lines: Option<&Vec<Vec<u8>>>| -> Vec<String> {
            lines.into_iter().flatten().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
        };
        let (oracle, found) = (text(oracle.get(name)), text(found.get(name)));
        let missing: Vec<_> = oracle.iter().filter(|line| !found.contains(line)).collect();
        let added: Vec<_> = found.iter().filter(|line| !oracle.contains(line)).collect();
        assert!(missing.is_empty(), "{comparison:?}: only the twin exports {missing:#?}");
        assert!(
            added.is_empty() || name == "Provenance" && comparison.since.is_some(),
            "{comparison:?}: only packed {added:#?}"
        );
        assert!(oracle.len() == found.len() || !added.is_empty(), "{comparison:?}: {name} is exported twice");
    }
    // What a pack dropped may have referred to a resource of context that is deleted: such deletions are told where in doubt.
    let is_context = |name: &String| {
        comparison.context && crate::naive::context::TYPES.iter().any(|of| name.starts_with(&format!("{of}/")))
    };
    let set = |list: Vec<String>| list.into_iter().filter(|name| !is_context(name)).collect::<BTreeSet<_>>();
    assert_eq!(set(export.deletions()), set(answer.deleted.clone()), "{comparison:?}: deletions");
    let ledger = export.ledger();
    // A compressed file that is cut off between two lines has a fault that belongs to no line, and is not kept by the
    // pack.
    assert!(ledger["faulty"] <= answer.ledger["faulty"], "{comparison:?}: {ledger:?} and {:?}", answer.ledger);
    for class in ["tombstone", "future", "type"] {
        assert_eq!(
            ledger[class], answer.ledger[class],
            "{comparison:?}: {class} of {ledger:?} and {:?}",
            answer.ledger
        );
    }
    for class in ["superseded", "deleted"] {
        assert!(ledger[class] <= answer.ledger[class], "{comparison:?}: {class} of {ledger:?} and {:?}", answer.ledger);
    }
}
