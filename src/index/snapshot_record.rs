//! A snapshot as job records hold it, so that the same one can be reopened.

use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};

use crate::codec::compression::{Compression, UnprovenPolicy};
use crate::extract::Validate;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::reference::PatientReferences;
use crate::hash::Hasher128;
use crate::ids::EntryId;

/// A snapshot as a job record stores it: enough to reopen the same snapshot (CONS-08). Its segments are a list, or what is
/// serialized like one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRecord<S = Vec<SegmentRef>> {
    /// The transactionTime T, a FHIR instant.
    pub as_of: String,
    /// How lines were read.
    #[serde(flatten)]
    pub rules: RecordedRules,
    /// What became of rows of compressed files that are not proven. Left out when they are faults, as by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unproven: UnprovenPolicy,
    /// Whether symbolic links in the store were followed. Left out when they were not, as by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow_symlinks: bool,
    /// T of the first snapshot of the index, in ticks; `None` if it had none.
    pub birth: Option<i64>,
    /// The visible segments, in store order.
    #[serde(rename = "extents")]
    pub segments: S,
}

/// The rules of an index in a record. What is as in versions without a choice is left out, so that their snapshots keep
/// their ids.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRules {
    /// How strictly the index checked resources.
    pub validate: Validate,
    /// Which ids are legal, unless R4's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdRule>,
    /// What became of halves of surrogate pairs, unless they passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lone_surrogates: Option<LoneSurrogates>,
    /// Which Patient references were followed, unless literal ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_references: Option<PatientReferences>,
    /// Which paths made owners, unless R4's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compartment_paths: Option<CompartmentPaths>,
}

impl RecordedRules {
    /// The record of rules.
    pub(crate) fn of(rules: LineRules) -> RecordedRules {
        let before = LineRules::without_choices(rules.validate);
        RecordedRules {
            validate: rules.validate,
            ids: Some(rules.ids).filter(|ids| *ids != before.ids),
            lone_surrogates: Some(rules.lone_surrogates).filter(|what| *what != before.lone_surrogates),
            patient_references: Some(rules.patient_references).filter(|which| *which != before.patient_references),
            compartment_paths: Some(rules.compartment_paths).filter(|which| *which != before.compartment_paths),
        }
    }

    /// The rules that are recorded.
    pub(crate) fn rules(&self) -> LineRules {
        let before = LineRules::without_choices(self.validate);
        LineRules {
            validate: self.validate,
            ids: self.ids.unwrap_or(before.ids),
            lone_surrogates: self.lone_surrogates.unwrap_or(before.lone_surrogates),
            patient_references: self.patient_references.unwrap_or(before.patient_references),
            compartment_paths: self.compartment_paths.unwrap_or(before.compartment_paths),
        }
    }
}

/// Whether a policy is the one that a record leaves out.
fn is_default(policy: &UnprovenPolicy) -> bool {
    *policy == UnprovenPolicy::default()
}

impl<S: Serialize> SnapshotRecord<S> {
    /// Id of the snapshot that one export sees: 32 hexadecimal digits, the xxh3 of the record as JSON. Its keys, their
    /// order and its words are part of the id and must not change. The JSON, of some hundred bytes a file, is not kept.
    pub(crate) fn snapshot_id(&self) -> String {
        let mut out = BufWriter::with_capacity(HASHED_BYTES, HashWriter(Hasher128::new()));
        serde_json::to_writer(&mut out, self).expect("a record is plain data");
        out.flush().expect("hashing does not fail");
        format!("{:032x}", out.get_ref().0.digest())
    }
}

/// Bytes of JSON that are hashed at a time.
const HASHED_BYTES: usize = 64 << 10;

/// Hashes what is written.
struct HashWriter(Hasher128);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A segment as a job record stores it: its range of a store file, which has a name of type `F`, and the hash of the bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentRef<F = String> {
    /// Store file, relative to the store.
    pub file: F,
    /// Start in the (uncompressed) file.
    pub start: u64,
    /// End in the (uncompressed) file.
    pub end: u64,
    /// xxh3 (64 bit) of the bytes between them.
    pub content: u64,
    /// Whether it is the last line of a plain file, without a newline.
    pub tail: bool,
    /// Compression of the file, if it is another than that of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// T of the first snapshot that held it, in ticks; `None` before the first.
    pub first_seen: Option<i64>,
    /// Rows with a first-seen time of their own: first row of a run, and the time in ticks (`None`: that of the
    /// segment). DELETE entries count behind the last row. Empty for most segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub row_times: Vec<(u32, Option<i64>)>,
}

impl SegmentRef {
    /// T of the first snapshot that held a row of the segment, in ticks; `None` before the first.
    pub(crate) fn first_seen_of(&self, row: usize) -> Option<i64> {
        let after = self.row_times.partition_point(|(first, _)| *first as usize <= row);
        after.checked_sub(1).and_then(|i| self.row_times[i].1).or(self.first_seen)
    }

    /// T of the first snapshot that held a DELETE entry of the segment, which has so many rows, in ticks; `None` before
    /// the first. Runs of rows say nothing of entries.
    pub(crate) fn first_seen_of_entry(&self, rows: usize, entry: EntryId) -> Option<i64> {
        let of_entries = &self.row_times[self.row_times.partition_point(|(first, _)| (*first as usize) < rows)..];
        let after = of_entries.partition_point(|(first, _)| *first as usize <= rows + entry.index());
        after.checked_sub(1).and_then(|i| of_entries[i].1).or(self.first_seen)
    }
}
