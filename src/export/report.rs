//! The report of a finished export.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::fhir::instant::Instant;
use crate::index::report::RefreshStats;
use crate::issue::{Issue, IssueLog, Severity};
use crate::select::ledger::Ledger;
use crate::write::journal::Receipt;
use crate::write::manifest::Manifest;

/// What an export did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportReport {
    /// The published manifest.
    pub manifest: Manifest,
    /// Where it lies; its name in the sink if the export went to one.
    pub manifest_path: PathBuf,
    /// Receipts of all files, in the manifest's order.
    pub files: Vec<Receipt>,
    /// The ledger.
    pub ledger: Ledger,
    /// Worst message of the error files, if there is one.
    pub worst: Option<Severity>,
    /// Messages by severity.
    pub messages: BTreeMap<Severity, u64>,
    /// The first message of each cause that is a warning or worse, with the number of messages of that cause.
    pub warnings: Vec<(Issue, u64)>,
    /// The messages of the error files.
    pub(crate) log: IssueLog,
    /// Work on the index.
    pub index: RefreshStats,
    /// Files that a resumed run found finished.
    pub resumed_files: usize,
    /// The transactionTime.
    pub transaction_time: Instant,
    /// Members listed by the Group or file, before duplicates collapse.
    pub members_listed: u64,
    /// Patients of the cohort, by relative reference.
    pub members_found: u64,
    /// Files in the store's tree that are no data files.
    pub ignored: Vec<String>,
    /// How many files and directories `.outpourignore` took.
    pub excluded: u64,
}
