//! An export directory against its own manifest: what is stated of each file, and what must hold for every export.
//!
//! The store is not read here; `ledger` does that. Files are read in parallel and stream through; memory is one line a
//! thread and 16 bytes for each resource of the export.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use serde::Serialize;

use crate::export::plan_record::PlanRecord;
use crate::hash::digest::DigestAlgorithm;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::progress::Progress;
use crate::select::ledger::Ledger;
use crate::sys::regular_file::read_regular;
use crate::text_table::{TextTable, grouped};
use crate::verify::VerifyError;
use crate::verify::manifest::{self, ListedFile, StatedManifest};
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::output_file::{self, FileSection, VerifiedFile};
use crate::write::journal::{JOB, MANIFEST, STATUS};

/// Names of unlisted files that a report gives.
const UNLISTED_MAX: usize = 100;

/// What the files of one type came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeCount {
    /// Files.
    pub files: u64,
    /// Lines.
    pub lines: u64,
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Bytes on disk.
    pub file_bytes: u64,
    /// Sum of the hashes of the lines, whatever their order: what a recount of the store compares with.
    #[serde(skip)]
    pub sum: u64,
}

/// What an export directory was found to be.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportVerification {
    /// Whether all is as stated.
    pub holds: bool,
    /// The transactionTime.
    pub transaction_time: Option<String>,
    /// The manifest's ledger.
    pub ledger: Option<Ledger>,
    /// What was found in `output`, by type.
    pub output: BTreeMap<String, TypeCount>,
    /// What was found in `deleted`.
    pub deleted: TypeCount,
    /// What was found in `error`.
    pub error: TypeCount,
    /// Files in the directory that the manifest does not list: information, no difference. At most 100 are named.
    pub unlisted: Vec<String>,
    /// How many there are.
    pub unlisted_count: u64,
    /// Files of which the manifest states no sizes and digest.
    pub without_facts: u64,
    /// Lines too long to be held: only the project's own scanner has read them.
    pub long_lines: u64,
    /// Lines that simd-json refuses for its own limits and serde_json does not.
    pub asked_again: u64,
    /// Whether a new export that is to replace this one is under way in the same directory, or was interrupted there.
    pub is_being_replaced: bool,
    /// What is not as stated.
    pub differences: Mismatches,
}

/// Verifies an export directory against its manifest. Runs on the current rayon pool.
///
/// # Errors
/// [`VerifyError::NoExport`] when the directory holds no manifest; [`VerifyError::Read`] when a file that is there cannot
/// be read; [`VerifyError::Cancelled`].
pub(crate) fn verify_export(directory: &Path, progress: &Progress) -> Result<ExportVerification, VerifyError> {
    let bytes = manifest_bytes(directory)?;
    let mut differences = Mismatches::default();
    let stated = manifest::read(&bytes, &mut differences);
    let length = |listed: &ListedFile| directory.join(&listed.name).metadata().map_or(0, |found| found.len());
    progress.scan_total.store(stated.files.iter().map(length).sum(), Relaxed);
    let found: Vec<VerifiedFile> = stated
        .files
        .par_iter()
        .map(|listed| {
            let algorithm = match listed.facts.as_ref().and_then(|facts| facts.digest.as_ref()) {
                Some(digest) => digest.algorithm,
                None => DigestAlgorithm::None,
            };
            output_file::read(directory, &listed.name, listed.section, &listed.of_type, algorithm, progress)
        })
        .collect::<Result<_, _>>()?;
    let mut report =
        ExportVerification { transaction_time: stated.transaction_time.clone(), ..ExportVerification::default() };
    for (listed, found) in stated.files.iter().zip(&found) {
        differences.absorb(found.differences.clone());
        compare(listed, found, &stated, &mut differences);
        let total = match listed.section {
            FileSection::Output => report.output.entry(listed.of_type.clone()).or_default(),
            FileSection::Deleted => &mut report.deleted,
            FileSection::Error => &mut report.error,
        };
        total.files += 1;
        total.lines += found.lines;
        total.bytes += found.bytes;
        total.file_bytes += found.file_bytes;
        total.sum = total.sum.wrapping_add(found.sum);
        report.without_facts += u64::from(listed.facts.is_none());
        report.long_lines += found.long_lines;
        report.asked_again += found.asked_again;
    }
    check_unique(&stated.files, &found, &mut differences);
    let exported: u64 = report.output.values().map(|total| total.lines).sum();
    if let Some(ledger) = &stated.ledger
        && ledger.exported != exported
    {
        let what = format!("its ledger says {} exported, the files hold {exported} lines", ledger.exported);
        differences.push(Mismatch::of_file("ledger", MANIFEST, what));
    }
    record_file(directory, &stated, &mut differences);
    unlisted(directory, &stated, &mut report)?;
    // Its own manifest and record stand until the new one is whole.
    report.is_being_replaced = directory.join(JOB).join("next").is_dir();
    report.ledger = stated.ledger;
    report.holds = differences.is_empty();
    report.differences = differences;
    Ok(report)
}

fn manifest_bytes(directory: &Path) -> Result<Vec<u8>, VerifyError> {
    let path = directory.join(MANIFEST);
    read_regular(&path, MANIFEST_BYTES_MAX).map_err(|error| match error.is_absence() {
        true => {
            let reason = match directory {
                _ if directory.join(JOB).join("plan.json").exists() => {
                    "holds an export that is not finished: no manifest is there yet; finish it with --resume"
                }
                _ if directory.is_dir() => "holds no manifest.json, so it is no export",
                _ => "is no directory",
            };
            VerifyError::NoExport { path: directory.to_path_buf(), reason }
        }
        false => VerifyError::Read { path, source: error.into() },
    })
}

/// Compares a file with what the manifest states of it.
fn compare(listed: &ListedFile, found: &VerifiedFile, stated: &StatedManifest, differences: &mut Mismatches) {
    let mut differs = |rule, what: String| differences.push(Mismatch::of_file(rule, &listed.name, what));
    let number = |what: &str, stated: u64, found: u64| {
        (stated != found).then(|| format!("the manifest says {stated} {what}, it has {found}"))
    };
    if let Some(what) = listed.count.and_then(|count| number("lines", count, found.lines)) {
        differs("MANIFEST-07", what);
    }
    if let Some(facts) = &listed.facts {
        for what in [
            number("uncompressed bytes", facts.bytes, found.bytes),
            number("bytes on disk", facts.file_bytes, found.file_bytes),
        ]
        .into_iter()
        .flatten()
        {
            differs("MANIFEST-17", what);
        }
        if facts.digest.is_some() && facts.digest != found.digest {
            differs("MANIFEST-17", "its digest is not the one that the manifest states".to_string());
        }
    }
    if let Some(bounds) = stated.bounds
        && found.lines > 1
        && (found.bytes > bounds.file_bytes || bounds.file_resources.is_some_and(|most| found.lines > most))
    {
        differs("FILE-12", "it is larger than the bounds that the manifest states".to_string());
    }
}

/// Each resource once in the whole export (CONS-07), and none both exported and deleted (DELETED-03).
fn check_unique(files: &[ListedFile], found: &[VerifiedFile], differences: &mut Mismatches) {
    let output = || files.iter().zip(found).filter(|(listed, _)| listed.section == FileSection::Output);
    let mut of_types: BTreeMap<&str, Vec<&VerifiedFile>> = BTreeMap::new();
    output().for_each(|(listed, found)| of_types.entry(&listed.of_type).or_default().push(found));
    // Type by type, so that the sorted copy is no larger than the largest type.
    let mut twice: HashSet<u128> = HashSet::new();
    for files in of_types.values() {
        let mut all: Vec<u128> = files.iter().flat_map(|found| found.entities.iter().copied()).collect();
        all.par_sort_unstable();
        twice.extend(all.windows(2).filter(|pair| pair[0] == pair[1] && pair[0] != 0).map(|pair| pair[0]));
    }
    let deletions = files.iter().zip(found).filter(|(listed, _)| listed.section == FileSection::Deleted);
    let deleted: HashSet<u128> = deletions.flat_map(|(_, found)| found.entities.iter().copied()).collect();
    if twice.is_empty() && deleted.is_empty() {
        return;
    }
    let mut met = HashSet::new();
    for (listed, found) in output() {
        for (line, entity) in found.entities.iter().enumerate() {
            let mut differs = |rule, what: &str| {
                let difference =
                    Mismatch { line: Some(line as u64 + 1), ..Mismatch::of_file(rule, &listed.name, what) };
                differences.push(difference);
            };
            if twice.contains(entity) && !met.insert(*entity) {
                differs("CONS-07", "its type and id stand in an earlier line of the export, too");
            }
            if deleted.contains(entity) {
                differs("DELETED-03", "its type and id are listed as deleted, too");
            }
        }
    }
}

/// The record of the run, if it is still there, must be that of this manifest.
fn record_file(directory: &Path, stated: &StatedManifest, differences: &mut Mismatches) {
    let Some(plan_id) = &stated.plan_id else { return };
    let name = format!("{JOB}/plan.json");
    let Ok(bytes) = read_regular(&directory.join(&name), MANIFEST_BYTES_MAX) else { return };
    let mut differs = |what: &str| differences.push(Mismatch::of_file("record", &name, what));
    match PlanRecord::from_bytes(&bytes) {
        Err(error) => differs(&format!("it cannot be read: {error}")),
        Ok(job) if job.plan_id != *plan_id => differs("it is the record of another export than the manifest's"),
        Ok(job) => {
            let planned = job.shards.iter().map(|(name, rows, bytes)| (name.as_str(), Some(*rows), Some(*bytes)));
            let output = stated.files.iter().filter(|listed| listed.section == FileSection::Output);
            let listed = output
                .map(|listed| (listed.name.as_str(), listed.count, listed.facts.as_ref().map(|facts| facts.bytes)));
            if !planned.eq(listed) {
                differs("the manifest lists other files, rows or bytes than were planned");
            }
        }
    }
}

/// Names what lies in the directory and is not listed.
fn unlisted(directory: &Path, stated: &StatedManifest, report: &mut ExportVerification) -> Result<(), VerifyError> {
    let known: HashSet<&str> =
        stated.files.iter().map(|listed| listed.name.as_str()).chain([MANIFEST, STATUS]).collect();
    for (prefix, place) in
        [("", directory.to_path_buf()), ("deleted/", directory.join("deleted")), ("error/", directory.join("error"))]
    {
        let failed = |source| VerifyError::Read { path: place.clone(), source };
        let entries = match std::fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if !prefix.is_empty() && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let is_dir = entry.file_type().map_err(failed)?.is_dir();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let own = is_dir && (name == JOB || name == "deleted" || name == "error");
            if !own && !known.contains(name.as_str()) {
                report.unlisted.push(if is_dir { format!("{name}/") } else { name });
            }
        }
    }
    report.unlisted.sort();
    report.unlisted_count = report.unlisted.len() as u64;
    report.unlisted.truncate(UNLISTED_MAX);
    Ok(())
}

impl ExportVerification {
    /// The report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let place = self.transaction_time.as_deref().unwrap_or("an unknown time");
        lines.push(match self.holds {
            true => format!("The export as of {place} is as its manifest states."),
            false => format!(
                "The export as of {place} is not as its manifest states: {} differences.",
                grouped(self.differences.total())
            ),
        });
        if self.is_being_replaced {
            lines.push(format!(
                "A new export that is to replace it is under way in {JOB}/next, or was interrupted there; verified is the \
                 one that the manifest describes."
            ));
        }
        let mut table = TextTable::new(&["type", "files", "lines", "bytes", "on disk"]);
        let named = self.output.iter().map(|(name, total)| (name.as_str(), total));
        for (name, total) in named.chain([("deleted: Bundle", &self.deleted), ("error: OperationOutcome", &self.error)])
        {
            if total.files > 0 {
                let TypeCount { files, lines, bytes, file_bytes, .. } = *total;
                table.row([name.to_string(), grouped(files), grouped(lines), grouped(bytes), grouped(file_bytes)]);
            }
        }
        if !table.is_empty() {
            lines.extend(table.lines());
        }
        if self.long_lines > 0 {
            lines.push(format!(
                "{} lines are too long to be held; only outpour's own scanner has read them.",
                grouped(self.long_lines)
            ));
        }
        if self.asked_again > 0 {
            lines.push(format!(
                "{} lines are beyond simd-json's limits; serde_json finds them valid or is quoted below.",
                grouped(self.asked_again)
            ));
        }
        if self.without_facts > 0 {
            lines.push(format!("The manifest states no sizes and digest of {} files.", grouped(self.without_facts)));
        }
        if self.unlisted_count > 0 {
            lines.push(format!("{} files are not listed by the manifest:", grouped(self.unlisted_count)));
            lines.extend(self.unlisted.iter().map(|name| format!("  {name}")));
        }
        lines.extend(self.differences.lines());
        lines
    }
}

impl fmt::Display for ExportVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests;
