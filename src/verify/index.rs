//! Verifies an index against the bytes it was made from, line by line, with the reference implementation of the
//! scanner.
//!
//! Every column of every segment is compared, except the seek points of compressed files, and the patient dictionary.
//! The version chains of the global index are not compared: a ledger recount covers them. Nothing is written: parts of
//! the index that are missing or damaged on the disk are built in memory, and reported.

use crate::codec::compression::Compression;
use crate::error::IndexError;
use crate::extract::Validate;
use crate::ids::{FileId, OwnerOrd, SegmentId};
use crate::index::dir::IndexDir;
use crate::index::load::{IndexMemory, load};
use crate::index::meta::MemoryLoss;
use crate::index::report::RefreshStats;
use crate::index::segment::layout::BASE_BITS;
use crate::index::snapshot::Index;
use crate::named_enum::by_name;
use crate::progress::{Phase, Progress};
use crate::store::Store;
use crate::text_table::{TextTable, grouped, grouped_with};
use crate::verify::VerifyError;
use crate::verify::line_counts::LineCounts;
use crate::verify::line_reader::CutLine;
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::prior_owners::PriorOwners;
use crate::verify::search_columns::check_search_columns;
use crate::verify::segment::SegmentCheck;
use crate::verify::segment_lines::{self, SegmentLines};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use serde::Serialize;

/// State of the index on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexState {
    /// The index directory has no meta file.
    Absent,
    /// It has another version of the format, which cannot be read.
    OtherFormat,
    /// Its meta file is damaged, so that nothing of it can be read.
    Damaged,
    /// Its meta file can be read.
    Present,
}

impl IndexState {
    /// All states, for reading a name back.
    pub(crate) const ALL: [IndexState; 4] =
        [IndexState::Absent, IndexState::OtherFormat, IndexState::Damaged, IndexState::Present];

    /// Word for the state in the JSON report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            IndexState::Absent => "absent",
            IndexState::OtherFormat => "otherFormat",
            IndexState::Damaged => "damaged",
            IndexState::Present => "present",
        }
    }

    /// State of a store's index, by its meta file.
    fn of(store: &Store) -> Result<IndexState, VerifyError> {
        Ok(match load(&IndexDir::Directory(store.index_dir()))? {
            IndexMemory::Absent => IndexState::Absent,
            IndexMemory::Lost(MemoryLoss::Damaged) => IndexState::Damaged,
            IndexMemory::Lost(MemoryLoss::OtherVersion) => IndexState::OtherFormat,
            IndexMemory::Known(known) if known.is_legacy => IndexState::OtherFormat,
            IndexMemory::Known(_) => IndexState::Present,
        })
    }
}

by_name!(IndexState);

/// Result of verifying the index of a store. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoreReport {
    /// Whether the index agrees with the bytes and is not damaged. A missing index, or one that is behind the store, is
    /// not damaged.
    pub holds: bool,
    /// State of the index on the disk.
    pub on_disk: IndexState,
    /// Checks that the scan of the index made of each line.
    pub validate: Validate,
    /// Number of store files.
    pub files: u64,
    /// Number of segments of the index.
    #[serde(rename = "extents")]
    pub segments: u64,
    /// Bytes of the store after decompression.
    pub bytes: u64,
    /// Lines by kind, as the reference implementation reads them.
    pub counts: LineCounts,
    /// Resources by type, as the reference implementation reads them.
    pub types: BTreeMap<&'static str, u64>,
    /// Work that bringing the index up to date in memory took; `repaired` lists the damage on the disk.
    pub index: RefreshStats,
    /// Places where index and bytes differ.
    pub differences: Mismatches,
}

/// For tests: verifies the index of a store alone.
///
/// # Errors
/// As [`verify_and_use`].
#[cfg(test)]
pub(crate) fn verify_index(store: &Store, progress: &Progress) -> Result<StoreReport, VerifyError> {
    verify_and_use(store, progress, |_| Ok(())).map(|(report, ())| report)
}

/// Verifies the index of a store against its bytes, and returns what `use_index` makes of it: where it is missing, behind or
/// damaged on the disk, it is in memory only. Runs on the current rayon pool. Memory is bounded, a thread, by the longest
/// line that is held and the columns of one segment.
///
/// # Errors
/// [`VerifyError`] if the store cannot be read or indexed, and the errors of `use_index`.
pub(crate) fn verify_and_use<T>(
    store: &Store,
    progress: &Progress,
    use_index: impl FnOnce(&Index) -> Result<T, IndexError>,
) -> Result<(StoreReport, T), VerifyError> {
    let on_disk = IndexState::of(store)?;
    // 1. The index, with all its checksums verified: file times are not trusted here.
    let (index, mut work) = store.read_only().verify_and_repair(progress)?;
    if on_disk == IndexState::Damaged {
        work.repaired.push("the generation file of the index is damaged: nothing of the index can be read".to_string());
    }
    let segments: Vec<(FileId, Compression)> =
        index.segment_ids().map(|i| (index.file_of(i), index.compression(index.file_of(i)))).collect();
    // 2. Lines of each file before each segment, for line numbers in mismatches.
    let mut lines_before = vec![0; segments.len()];
    for i in 1..segments.len() {
        if segments[i].0 == segments[i - 1].0 {
            lines_before[i] = lines_before[i - 1] + index.segment(SegmentId::of(i - 1)).head().lines;
        }
    }
    // 3. Compare all segments in parallel.
    let total = index.generation().files.iter().map(|file| file.stamp.len).sum();
    progress.begin(Phase::Checking);
    progress.scan_total.store(total, Relaxed);
    progress.scan_done.store(0, Relaxed);
    let parts: Vec<Vec<SegmentCheck<'_>>> = segment_lines::tasks(&segments)
        .into_par_iter()
        .map(|task| {
            let entries = || task.clone().map(|k| index.entry(SegmentId::of(k)));
            let ranges: Vec<SegmentLines> =
                entries().map(|entry| SegmentLines { start: entry.start, end: entry.end }).collect();
            let mut checks: Vec<SegmentCheck<'_>> =
                task.clone().map(|k| SegmentCheck::new(&index, SegmentId::of(k), lines_before[k])).collect();
            let (file, compression) = segments[task.start];
            let mut prior_owners = PriorOwners::new(index.packed(file));
            let mut on_line = |number: usize, cut: CutLine<'_>| checks[number].check_line(cut, &mut prior_owners);
            let by = (compression, index.generation().unproven, index.generation().rules);
            let hashes = segment_lines::read(index.source(file)?, by, &ranges, progress, &mut on_line)?;
            checks.iter_mut().zip(hashes).for_each(|(check, hash)| check.finish(hash));
            Ok(checks)
        })
        .collect::<Result<_, VerifyError>>()?;
    // 4. Join the results in store order; then the checks that span segments.
    let mut report = StoreReport {
        holds: false,
        on_disk,
        validate: index.generation().rules.validate,
        files: index.generation().files.len() as u64,
        segments: segments.len() as u64,
        bytes: 0,
        counts: LineCounts::default(),
        types: BTreeMap::new(),
        index: work,
        differences: Mismatches::default(),
    };
    for (segment, check) in index.segment_ids().zip(parts.into_iter().flatten()) {
        report.bytes += index.entry(segment).end - index.entry(segment).start;
        report.counts.add(&check.counts);
        for (name, rows) in &check.types {
            *report.types.entry(name).or_default() += rows;
        }
        report.differences.absorb(check.mismatches);
    }
    check_coverage(&index, &mut report.differences)?;
    check_dictionary(&index, &mut report.differences)?;
    crate::verify::packed::check_packed_files(&index, &mut report.differences)?;
    check_search_columns(&index, progress, &mut report.differences)?;
    report.holds = report.differences.is_empty() && report.index.repaired.is_empty();
    let used = use_index(&index)?;
    Ok((report, used))
}

/// Checks that the segments of each file follow one another without a gap, to its end.
fn check_coverage(index: &Index, differences: &mut Mismatches) -> Result<(), VerifyError> {
    for file in index.file_ids() {
        let source = index.source(file)?;
        let newline_at =
            |start_offset: u64| match start_offset < source.len() && index.compression(file) == Compression::None {
                true => source.read(start_offset, 1, &mut Vec::new()).map(|byte| byte == b"\n"),
                false => Ok(false),
            };
        let mut position = 0;
        let mut tail = false;
        let mut gap = |offset: u64, to: u64| {
            let what = format!("no extent covers its bytes {offset} to {to}");
            differences.push(Mismatch::of_file("extents", index.file_name(file), what));
        };
        for entry in index.generation().segments.iter().filter(|entry| entry.file == file) {
            // A newline that was added later to complete a last line does not change the line's segment.
            if tail && entry.start == position + 1 && newline_at(position)? {
                position += 1;
            }
            if entry.start != position {
                gap(position, entry.start);
            }
            (position, tail) = (entry.end, entry.tail);
        }
        if index.compression(file) == Compression::None && position != source.len() {
            let newline = tail && position + 1 == source.len() && newline_at(position)?;
            if !newline {
                gap(position, source.len());
            }
        }
    }
    Ok(())
}

/// Checks that each owner of each segment is the patient of the dictionary that it names.
fn check_dictionary(index: &Index, differences: &mut Mismatches) -> Result<(), VerifyError> {
    for i in index.segment_ids() {
        let columns = index.segment(i).columns();
        for owner in 0..columns.owner_hash.len() {
            let ord = OwnerOrd::of(owner);
            let patient = index.patient_of_owner(i, ord)?;
            let number = index.owner_of_segment(i, ord);
            let base = index.base_of_segment(i, columns.owner_base[owner] & BASE_BITS);
            let id = columns.owner_id_of(owner);
            let listed = index.owners_of_patient(patient)?.any(|listed| listed == number);
            if index.patient_id(patient)? != id || index.patient(base, &id)? != Some(patient) || !listed {
                let what = format!("owner {owner} of extent {} is another patient in the dictionary", i.0);
                differences.push(Mismatch::of_file("dictionary", index.file_name(index.file_of(i)), what));
            }
        }
    }
    Ok(())
}

impl StoreReport {
    /// Lines of the report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let in_memory = "one that was made in memory says what the store's bytes say, and nothing was written.";
        lines.push(match (self.holds, self.differences.total(), self.on_disk) {
            (true, _, IndexState::Absent) => format!("The store has no index; {in_memory}"),
            (true, _, IndexState::OtherFormat) => format!("The index is of another version of the format; {in_memory}"),
            (true, ..) => "The index says what the store's bytes say.".to_string(),
            (false, 0, _) => {
                "The index is damaged; what is damaged was made again in memory, and says what the store's bytes say. \
                 `outpour index --recheck` repairs it on the disk."
                    .to_string()
            }
            (false, total, _) => {
                format!("The index differs from the store's bytes: {}.", grouped_with(total, "difference"))
            }
        });
        if self.on_disk == IndexState::Present && self.index.in_memory.is_some() && self.index.repaired.is_empty() {
            let scanned = grouped_with(self.index.scanned_bytes, "byte");
            lines.push(format!("It is behind the store: {scanned} indexed in memory, nothing was written."));
        }
        let mut table = TextTable::new(&["lines", "number"]);
        let counts = self.counts;
        for (name, count) in [
            ("all", counts.lines),
            ("blank", counts.blank),
            ("faulty", counts.faulty),
            ("deletions", counts.tombstone),
            ("resources", counts.rows),
        ] {
            table.row([name, &grouped(count)]);
        }
        for (name, rows) in &self.types {
            table.row([format!("  {name}"), grouped(*rows)]);
        }
        lines.extend(table.lines());
        lines.push(format!(
            "{}, {}, {} of lines.",
            grouped_with(self.files, "file"),
            grouped_with(self.segments, "extent"),
            grouped_with(self.bytes, "byte")
        ));
        if counts.long > 0 {
            lines.push(format!(
                "{} too long to be held, and read by outpour's own scanner only.",
                grouped_with(counts.long, "line")
            ));
        }
        lines.extend(self.index.repaired.iter().map(|what| format!("Damaged: {what}.")));
        lines.extend(self.differences.lines());
        lines
    }
}

impl fmt::Display for StoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests;
