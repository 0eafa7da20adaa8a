//! Verifies the ledger of an export: a recount, line by line, from the store's bytes.
//!
//! The record in the export's directory states the request and the bytes that were seen; nothing else of the run is
//! used, and nothing of an index. Memory grows with the rows of the store, some 200 bytes each: this is an audit, not a
//! part of an export.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::count_text::counted;
use crate::export::plan_record::PlanRecord;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::progress::Progress;
use crate::select::ledger::Ledger;
use crate::sys::access::Access;
use crate::sys::regular_file::read_regular;
use crate::text_table::{TextTable, grouped, grouped_with};
use crate::verify::VerifyError;
use crate::verify::export::ExportVerification;
use crate::verify::members::ListedMembers;
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::recount::recount;
use crate::verify::request::RecordedRequest;
use crate::verify::told_deletions::told_resources;
use crate::verify::version_history::VersionHistory;
use crate::write::journal::{JOB, MANIFEST};

/// Places of files that the record names, if they have moved since.
#[derive(Clone, Debug)]
pub(crate) struct LedgerOptions {
    /// The store; `None` if it is where the record says.
    pub store: Option<PathBuf>,
    /// The Group file or list of patients; `None` if it is where the record says. Needed if it came by standard input.
    pub population_file: Option<PathBuf>,
    /// Access path for store files.
    pub access: Access,
}

impl Default for LedgerOptions {
    fn default() -> LedgerOptions {
        LedgerOptions { store: None, population_file: None, access: Access::pread() }
    }
}

/// Lines of one class of the ledger, as stated and as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ClassCount {
    /// Name of the class in the manifest.
    pub class: &'static str,
    /// Lines that the manifest states.
    pub stated: u64,
    /// Lines that the recount found.
    pub recounted: u64,
}

/// Result of a recount. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LedgerReport {
    /// Whether every class is as stated, and the exported lines are those that the recount selects.
    pub holds: bool,
    /// Path of the store that was read.
    pub store: String,
    /// The classes in the order of reading 10, `lines` first.
    pub classes: Vec<ClassCount>,
    /// Lines that the recount selects, by type.
    pub exported: BTreeMap<&'static str, u64>,
    /// Lines too long to be held, which only the scanner has read.
    pub long_lines: u64,
    /// Facts that are not as stated.
    pub differences: Mismatches,
}

/// Recounts the ledger of an export whose files were verified as `export`. Runs on the current rayon pool.
///
/// # Errors
/// [`VerifyError::Record`] if the record or the manifest lacks something that the recount needs; store errors, among
/// them [`crate::error::IndexError::Changed`] if the store no longer holds the bytes that were exported.
pub(crate) fn verify_ledger(
    directory: &Path,
    export: &ExportVerification,
    options: &LedgerOptions,
    progress: &Progress,
) -> Result<LedgerReport, VerifyError> {
    let path = directory.join(JOB).join("plan.json");
    let bad = |reason: String| VerifyError::Record { path: path.clone(), reason };
    let bytes = read_regular(&path, MANIFEST_BYTES_MAX)
        .map_err(|error| bad(format!("cannot be read ({error}); export again")))?;
    let job = PlanRecord::from_bytes(&bytes).map_err(|error| bad(format!("cannot be read ({error}); export again")))?;
    let Some(stated) = export.ledger else {
        return Err(bad("belongs to a manifest that states no ledger; export again".to_string()));
    };
    let recorded = RecordedRequest::read(&job, options.population_file.as_deref()).map_err(&bad)?;
    let root = store_root(&job, options).ok_or_else(|| {
        bad(format!("names the store {:?}, which is not there; say where it is with --store", job.origin.store))
    })?;
    let history = VersionHistory::read(&root, &job.snapshot, &recorded, options.access, progress)?;
    let members = ListedMembers::resolve(&history, &recorded)?;
    let found = recount(&history, &recorded, &members)?;

    let mut differences = Mismatches::default();
    if export.transaction_time.as_deref() != Some(job.snapshot.as_of.as_str()) {
        differences.push(Mismatch::of_file("record", MANIFEST, "its transactionTime is not that of the record"));
    }
    let classes = class_counts(&stated, &found.ledger);
    for count in classes.iter().filter(|count| count.stated != count.recounted) {
        let what = format!("the ledger says {} {}, the recount {}", count.stated, count.class, count.recounted);
        differences.push(Mismatch::of_file("ledger", MANIFEST, what));
    }
    // What is listed as deleted: by DELETE entries of the store, and what the record says was told for rows that are gone.
    let (told, wrongly_told) = told_resources(&job, &history, &recorded, &members);
    if wrongly_told > 0 {
        let what = format!(
            "it tells {} as deleted wrongly, or not of this request",
            counted(wrongly_told, "vanished resource")
        );
        differences.push(Mismatch::of_file("vanished", MANIFEST, what));
    }
    let expected: HashSet<u128> = found.deleted.union(&told).copied().collect();
    let (missing, surplus) = (
        expected.difference(&export.deleted_resources).count(),
        export.deleted_resources.difference(&expected).count(),
    );
    if missing + surplus > 0 {
        let what = format!(
            "its deleted files list {}, the recount {}: missing {missing}, listed wrongly {surplus}",
            counted(export.deleted_resources.len() as u64, "resource"),
            expected.len()
        );
        differences.push(Mismatch::of_file("DELETED-01", MANIFEST, what));
    }
    // Equal counts may be chance: the sums of the lines' hashes must agree, too.
    for resource_type in crate::fhir::resource_type::ResourceType::all() {
        let name = resource_type.name();
        let (lines, sum) = found.exported.get(name).copied().unwrap_or_default();
        let in_files = export.output.get(name).copied().unwrap_or_default();
        if (lines, sum) != (in_files.lines, in_files.sum) {
            let what = format!(
                "its {name} files hold {}, the recount exports {}{lines}",
                counted(in_files.lines, "line"),
                if lines == in_files.lines { "other lines, also " } else { "" }
            );
            differences.push(Mismatch::of_file("lines", MANIFEST, what));
        }
    }
    Ok(LedgerReport {
        holds: differences.is_empty(),
        store: root.display().to_string(),
        classes,
        exported: found.exported.iter().map(|(name, (lines, _))| (*name, *lines)).collect(),
        long_lines: history.long,
        differences,
    })
}

/// Directory of the store: the caller's, or the first recorded path that exists; `None` if neither does.
fn store_root(job: &PlanRecord, options: &LedgerOptions) -> Option<PathBuf> {
    if let Some(store) = &options.store {
        return Some(store.clone());
    }
    let recorded = [&job.origin.store_absolute, &job.origin.store];
    recorded.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).find(|path| path.is_dir())
}

/// Pairs the classes of two ledgers, in the order of reading 10.
fn class_counts(stated: &Ledger, recounted: &Ledger) -> Vec<ClassCount> {
    type ClassTotals = (&'static str, fn(&Ledger) -> u64);
    let all: [ClassTotals; 13] = [
        ("lines", |ledger| ledger.lines),
        ("blank", |ledger| ledger.blank),
        ("faulty", |ledger| ledger.faulty),
        ("notFhir", |ledger| ledger.not_fhir),
        ("tombstone", |ledger| ledger.tombstone),
        ("future", |ledger| ledger.future),
        ("superseded", |ledger| ledger.superseded),
        ("deleted", |ledger| ledger.deleted),
        ("type", |ledger| ledger.r#type),
        ("cohort", |ledger| ledger.cohort),
        ("sinceOrUntil", |ledger| ledger.since_or_until),
        ("typeFilter", |ledger| ledger.type_filter),
        ("exported", |ledger| ledger.exported),
    ];
    all.map(|(class, of)| ClassCount { class, stated: of(stated), recounted: of(recounted) }).to_vec()
}

impl LedgerReport {
    /// Lines of the report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![match self.holds {
            true => format!("The ledger is what a recount of {} gives.", self.store),
            false => format!(
                "The ledger is not what a recount of {} gives: {}.",
                self.store,
                grouped_with(self.differences.total(), "difference")
            ),
        }];
        let mut table = TextTable::new(&["class", "stated", "recounted"]);
        for count in &self.classes {
            table.row([count.class, &grouped(count.stated), &grouped(count.recounted)]);
        }
        lines.extend(table.lines());
        if self.long_lines > 0 {
            lines.push(format!(
                "{} too long to be held, and read by outpour's own scanner only.",
                grouped_with(self.long_lines, "line")
            ));
        }
        lines.extend(self.differences.lines());
        lines
    }
}

impl fmt::Display for LedgerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests;
