//! Verifies an export directory against its own manifest: the facts stated for each file, and the rules that hold for
//! every export.
//!
//! The store is not read here; `ledger` does that. Files are read in parallel and streamed; memory is one line a thread
//! and 16 bytes for each resource of the export.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use serde::Serialize;

use crate::count_text::counted;
use crate::export::plan_record::PlanRecord;
use crate::export::vanished_record::VanishedRecord;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::hash::digest::{DigestAlgorithm, digest_file};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::progress::{Phase, Progress};
use crate::select::ledger::Ledger;
use crate::sys::regular_file::{Links, open_regular, read_regular};
use crate::tasks::job_files::is_export_job;
use crate::text_table::{TextTable, grouped, grouped_with};
use crate::verify::VerifyError;
use crate::verify::manifest::{self, ListedFile, StatedManifest};
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::output_file::{self, FileSection, StatedLines, VerifiedFile, entity};
use crate::write::journal::{DEPARTED, JOB, MANIFEST, STATUS};
use crate::write::manifest::EXPORT_KEY;

/// Most names of unlisted files in a report.
const UNLISTED_MAX: usize = 100;

/// Totals of the files of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeCount {
    /// Number of files of the type.
    pub files: u64,
    /// Number of lines in them.
    pub lines: u64,
    /// Bytes of the lines after decompression.
    pub bytes: u64,
    /// Bytes of the files on disk.
    pub file_bytes: u64,
    /// Sum of the hashes of the lines, which does not depend on their order; a recount of the store compares it.
    #[serde(skip)]
    pub sum: u64,
}

/// Result of verifying an export directory. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportVerification {
    /// Whether there is no mismatch.
    pub holds: bool,
    /// The transactionTime that the manifest states; `None` if it states none.
    pub transaction_time: Option<String>,
    /// The ledger that the manifest states; `None` if it states none.
    pub ledger: Option<Ledger>,
    /// Totals of the files of `output`, by type.
    pub output: BTreeMap<String, TypeCount>,
    /// Totals of the files of `deleted`.
    pub deleted: TypeCount,
    /// Totals of the files of `error`.
    pub error: TypeCount,
    /// The first [`UNLISTED_MAX`] files in the directory that the manifest does not list. They are no mismatch.
    pub unlisted: Vec<String>,
    /// Number of such files.
    pub unlisted_count: u64,
    /// Files for which the manifest states no sizes and digest.
    pub without_facts: u64,
    /// Lines too long to be held, which only the project's own scanner has read.
    pub long_lines: u64,
    /// Lines that simd-json refuses and serde_json had to judge.
    pub asked_again: u64,
    /// Whether a run that is to replace this export is active in the same directory, or was interrupted there.
    pub is_being_replaced: bool,
    /// Hashes of the names of the resources that the `deleted` files list; a recount of the store compares them.
    #[serde(skip)]
    pub deleted_resources: HashSet<u128>,
    /// Facts that are not as stated.
    pub differences: Mismatches,
}

/// Verifies an export directory against its manifest. Runs on the current rayon pool.
///
/// # Errors
/// [`VerifyError::NoExport`] if the directory holds no manifest; [`VerifyError::Read`] if a file exists and cannot be
/// read; [`VerifyError::Cancelled`].
pub(crate) fn verify_export(directory: &Path, progress: &Progress) -> Result<ExportVerification, VerifyError> {
    // 1. Read the manifest, then all files that it lists, in parallel.
    let bytes = manifest_bytes(directory)?;
    let mut mismatches = Mismatches::default();
    let stated = manifest::read(&bytes, &mut mismatches);
    let elements = stated_elements(directory, &stated);
    let length = |listed: &ListedFile| directory.join(&listed.name).metadata().map_or(0, |found| found.len());
    progress.begin(Phase::Checking);
    progress.scan_total.store(stated.files.iter().map(length).sum(), Relaxed);
    let found: Vec<VerifiedFile> = stated
        .files
        .par_iter()
        .map(|listed| {
            let algorithm = match listed.facts.as_ref().and_then(|facts| facts.digest.as_ref()) {
                Some(digest) => digest.algorithm,
                None => DigestAlgorithm::None,
            };
            let lines = StatedLines { section: listed.section, of_type: &listed.of_type, elements: &elements };
            output_file::read(directory, &listed.name, &lines, algorithm, progress)
        })
        .collect::<Result<_, _>>()?;
    // 2. Compare each file with the facts that the manifest states of it.
    let mut report =
        ExportVerification { transaction_time: stated.transaction_time.clone(), ..ExportVerification::default() };
    for (listed, found) in stated.files.iter().zip(&found) {
        mismatches.absorb(found.mismatches.clone());
        compare_file(listed, found, &stated, &mut mismatches);
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
        report.asked_again += found.fallback_lines;
    }
    // 3. Compare the files with each other, with the ledger, with the journal, and with the directory.
    let deletions = stated.files.iter().zip(&found).filter(|(listed, _)| listed.section == FileSection::Deleted);
    report.deleted_resources = deletions.flat_map(|(_, found)| found.entities.iter().copied()).collect();
    check_unique(&stated.files, &found, &report.deleted_resources, &mut mismatches);
    let exported: u64 = report.output.values().map(|total| total.lines).sum();
    if let Some(ledger) = &stated.ledger
        && ledger.exported != exported
    {
        let what =
            format!("its ledger says {} exported, the files hold {}", ledger.exported, counted(exported, "line"));
        mismatches.push(Mismatch::of_file("ledger", MANIFEST, what));
    }
    check_departed(directory, &bytes, &mut mismatches)?;
    check_record(directory, &stated, &report.deleted_resources, &mut mismatches);
    find_unlisted(directory, &stated, &mut report)?;
    // A replacing run keeps this export's manifest until its own files are complete.
    report.is_being_replaced = directory.join(JOB).join("next").is_dir();
    report.ledger = stated.ledger;
    report.holds = mismatches.is_empty();
    report.differences = mismatches;
    Ok(report)
}

/// The elements that the resources of an export keep: by the record of its run, or, where that is gone, by the request that
/// the manifest states.
fn stated_elements(directory: &Path, stated: &StatedManifest) -> ElementSelection {
    let record = read_regular(&directory.join(JOB).join("plan.json"), MANIFEST_BYTES_MAX).ok();
    let record = record.and_then(|bytes| PlanRecord::from_bytes(&bytes).ok());
    match record.filter(|job| stated.plan_id.as_ref() == Some(&job.plan_id)) {
        Some(job) => job.elements().unwrap_or_default(),
        None => {
            let (_, query) = stated.request.split_once('?').unwrap_or_default();
            let lists = query.split('&').filter_map(|pair| pair.strip_prefix("_elements="));
            ElementSelection::parse(lists.flat_map(|list| list.split(','))).0
        }
    }
}

/// Bytes of the manifest of the export that is verified; [`VerifyError::NoExport`] if there is none.
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

/// Compares the list of what no longer belongs with what the root extension of the manifest states of it, if it names one.
fn check_departed(directory: &Path, manifest: &[u8], mismatches: &mut Mismatches) -> Result<(), VerifyError> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    let facts = &manifest["extension"][EXPORT_KEY]["departed"];
    if facts.is_null() {
        return Ok(());
    }
    let path = directory.join(DEPARTED);
    let found = match open_regular(&path, Links::Refuse) {
        Ok(file) => digest_file(file, DigestAlgorithm::Xxh3).map_err(|source| VerifyError::Read { path, source })?,
        Err(error) if error.is_absence() => (0, None),
        Err(error) => return Err(VerifyError::Read { path, source: error.into() }),
    };
    let digest = found.1.map(|digest| digest.value);
    if facts["bytes"].as_u64() != Some(found.0) || facts["digest"]["value"].as_str() != digest.as_deref() {
        let what = "its size or digest is not what the manifest states";
        mismatches.push(Mismatch::of_file("GROUP-13", DEPARTED, what));
    }
    Ok(())
}

/// Compares the facts found in a file with those that the manifest states.
fn compare_file(listed: &ListedFile, found: &VerifiedFile, stated: &StatedManifest, mismatches: &mut Mismatches) {
    let mut differs = |rule, what: String| mismatches.push(Mismatch::of_file(rule, &listed.name, what));
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

/// Checks that each resource occurs once in the whole export (CONS-07), and that none is both exported and deleted
/// (DELETED-03).
fn check_unique(files: &[ListedFile], found: &[VerifiedFile], deleted: &HashSet<u128>, mismatches: &mut Mismatches) {
    let output = || files.iter().zip(found).filter(|(listed, _)| listed.section == FileSection::Output);
    let mut of_types: BTreeMap<&str, Vec<&VerifiedFile>> = BTreeMap::new();
    output().for_each(|(listed, found)| of_types.entry(&listed.of_type).or_default().push(found));
    // Sorted type by type: the copy is no larger than the largest type.
    let mut duplicates: HashSet<u128> = HashSet::new();
    for files in of_types.values() {
        let mut all: Vec<u128> = files.iter().flat_map(|found| found.entities.iter().copied()).collect();
        all.par_sort_unstable();
        duplicates.extend(all.windows(2).filter(|pair| pair[0] == pair[1] && pair[0] != 0).map(|pair| pair[0]));
    }
    if duplicates.is_empty() && deleted.is_empty() {
        return;
    }
    let mut earlier = HashSet::new();
    for (listed, found) in output() {
        for (line, entity) in found.entities.iter().enumerate() {
            let mut differs = |rule, what: &str| {
                let mismatch = Mismatch { line: Some(line as u64 + 1), ..Mismatch::of_file(rule, &listed.name, what) };
                mismatches.push(mismatch);
            };
            if duplicates.contains(entity) && !earlier.insert(*entity) {
                differs("CONS-07", "its type and id stand in an earlier line of the export, too");
            }
            if deleted.contains(entity) {
                differs("DELETED-03", "its type and id are listed as deleted, too");
            }
        }
    }
}

/// Checks that the record of the run, if it still exists, is that of this manifest, and that the `deleted` files list the
/// vanished resources that it says were told.
fn check_record(directory: &Path, stated: &StatedManifest, deleted: &HashSet<u128>, mismatches: &mut Mismatches) {
    let Some(plan_id) = &stated.plan_id else { return };
    let name = format!("{JOB}/plan.json");
    let Ok(bytes) = read_regular(&directory.join(&name), MANIFEST_BYTES_MAX) else { return };
    let mut differs = |what: &str| mismatches.push(Mismatch::of_file("record", &name, what));
    match PlanRecord::from_bytes(&bytes) {
        Err(error) => differs(&format!("it cannot be read: {error}")),
        Ok(job) if job.plan_id != *plan_id => differs("it is the record of another export than the manifest's"),
        Ok(job) => {
            let output: Vec<&ListedFile> =
                stated.files.iter().filter(|listed| listed.section == FileSection::Output).collect();
            let (elements, rewritten) = (job.elements().unwrap_or_default(), job.rewritten_files());
            let is_planned = |(listed, (name, rows, bytes)): (&&ListedFile, &(String, u64, u64))| {
                let found = listed.facts.as_ref().map(|facts| facts.bytes);
                // What changed rows come to is not planned, only the most that it can be.
                let reduced = ResourceType::parse(&listed.of_type).is_some_and(|of_type| elements.reduces(of_type));
                let changed = reduced || rewritten.contains(name.as_str());
                let sized = if changed { found <= Some(*bytes) } else { found == Some(*bytes) };
                listed.name == *name && listed.count == Some(*rows) && sized && found.is_some()
            };
            if output.len() != job.shards.len() || !output.iter().zip(&job.shards).all(is_planned) {
                differs("the manifest lists other files, rows or bytes than were planned");
            }
            if stated.vanished.is_some_and(|stated| stated != VanishedRecord::counts(&job.vanished)) {
                differs("the manifest states other numbers of vanished resources than it has");
            }
            let told = job.vanished.iter().filter(|gone| gone.told);
            let unlisted = told.filter(|gone| !deleted.contains(&entity(&gone.resource_type, &gone.id))).count();
            if unlisted > 0 {
                differs(&format!(
                    "no deleted file lists {} that it has as told",
                    counted(unlisted as u64, "vanished resource")
                ));
            }
        }
    }
}

/// Adds to the report what lies in the directory, `deleted` and `error`, or below the data of a job, and is not listed by the
/// manifest.
fn find_unlisted(
    directory: &Path,
    stated: &StatedManifest,
    report: &mut ExportVerification,
) -> Result<(), VerifyError> {
    let known: HashSet<&str> =
        stated.files.iter().map(|listed| listed.name.as_str()).chain([MANIFEST, STATUS, DEPARTED]).collect();
    let (mut folders, own): (Vec<String>, &[&str]) = match is_export_job(directory) {
        false => (vec![String::new(), "deleted/".into(), "error/".into()], &[JOB, "deleted", "error"]),
        true => (vec![String::new(), "data/".into()], &["plan.json", "spans", "tasks", "data"]),
    };
    while let Some(prefix) = folders.pop() {
        let place = directory.join(&prefix);
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
            if is_dir && prefix.starts_with("data/") {
                folders.push(format!("{name}/"));
            } else if !own.contains(&name.as_str()) && !known.contains(name.as_str()) {
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
    /// Lines of the report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let place = self.transaction_time.as_deref().unwrap_or("an unknown time");
        lines.push(match self.holds {
            true => format!("The export as of {place} is as its manifest states."),
            false => format!(
                "The export as of {place} is not as its manifest states: {}.",
                grouped_with(self.differences.total(), "difference")
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
                "{} too long to be held, and read by outpour's own scanner only.",
                grouped_with(self.long_lines, "line")
            ));
        }
        if self.asked_again > 0 {
            lines.push(format!(
                "{} beyond simd-json's limits, which serde_json finds valid, or is quoted below.",
                grouped_with(self.asked_again, "line")
            ));
        }
        if self.without_facts > 0 {
            lines.push(format!(
                "The manifest states no sizes and digest of {}.",
                grouped_with(self.without_facts, "file")
            ));
        }
        if self.unlisted_count > 0 {
            lines.push(format!("The manifest does not list {}:", grouped_with(self.unlisted_count, "file")));
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
