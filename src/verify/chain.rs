//! Verifies a chain of exports: each export by itself, that each increment builds on the one before it, and that what a reader
//! holds after it is what follows from the files.
//!
//! The last is a proof of the keys that increments are made from: what a reader held before, less the deletions and the departed, and
//! what the export brought, must be what its record says that a reader holds.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::chain::exported_lines::{LinesError, read_lines};
use crate::chain::read_chain::{ReadExport, read_deletions, read_departures};
use crate::chain::root::{ChainExport, ChainRoot};
use crate::error::JournalError;
use crate::key_set::resource_key::ResourceKey;
use crate::progress::Progress;
use crate::text_table::{TextTable, grouped};
use crate::verify::VerifyError;
use crate::verify::export::verify_export;
use crate::verify::mismatch::{Mismatch, Mismatches};

/// What was found of one export of a chain. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifiedLink {
    /// Its directory.
    pub directory: String,
    /// Its number.
    pub number: u64,
    /// The number of the full export that it goes back to.
    pub full: u64,
    /// Rows that it brought.
    pub rows: u64,
    /// Resources that it lists as deleted.
    pub deleted: u64,
    /// Resources that it lists as departed.
    pub departed: u64,
    /// Resources that a reader holds after it.
    pub held: u64,
}

/// Result of verifying a chain.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChainVerification {
    /// Whether nothing differs.
    pub holds: bool,
    /// The finished exports, by number.
    pub exports: Vec<VerifiedLink>,
    /// Directory of an export that is not finished, if there is one.
    pub unfinished: Option<String>,
    /// What is not as it should be; the file is that of an export, behind its directory.
    pub differences: Mismatches,
}

/// Whether a directory is the root of a chain.
pub(crate) fn is_chain(path: &Path) -> bool {
    ChainRoot::is_root(path)
}

/// Verifies a chain. Runs on the current rayon pool; holds 32 bytes for each resource that a reader holds.
///
/// # Errors
/// [`VerifyError`] if a file cannot be read, or the work is cancelled.
pub(crate) fn verify_chain(path: &Path, progress: &Progress) -> Result<ChainVerification, VerifyError> {
    let root = ChainRoot::lock_for_reading(path).map_err(chain_error)?;
    let exports = root.exports().map_err(chain_error)?;
    let newest = exports.iter().rfind(|export| export.finished).map_or(0, |newest| newest.link.number);
    let is_unfinished = |export: &&ChainExport| !export.finished && export.link.number > newest;
    let unfinished = exports.iter().find(is_unfinished).map(|export| export.name.clone());
    let mut report =
        ChainVerification { holds: true, exports: Vec::new(), unfinished, differences: Mismatches::default() };
    for lost in exports.iter().filter(|export| !export.finished && export.link.number < newest) {
        let what = "its manifest is missing, though exports follow it; the next run of the chain exports everything";
        report.differences.push(Mismatch::of_file("MANIFEST-01", &lost.name, what));
    }
    let mut before: Option<Held> = None;
    for export in exports.iter().filter(|export| export.finished) {
        let alone = verify_export(&root.export_path(&export.name), progress)?;
        report.differences.absorb(alone.differences.within(&export.name));
        match check_export(&root, export, before.as_ref(), &mut report.differences) {
            Ok((link, held)) => {
                report.exports.push(link);
                before = Some(held);
            }
            Err(error) => {
                report.differences.push(Mismatch::of_file("CONS-05", &export.name, error.to_string()));
                before = None;
            }
        }
    }
    report.holds = report.differences.is_empty();
    Ok(report)
}

/// What a reader holds after an export.
struct Held {
    export: ChainExport,
    transaction_time: String,
    keys: Vec<ResourceKey>,
}

/// Checks that an export follows from the one before it, and what a reader holds after it.
fn check_export(
    root: &ChainRoot,
    export: &ChainExport,
    before: Option<&Held>,
    differences: &mut Mismatches,
) -> Result<(VerifiedLink, Held), Box<dyn std::error::Error>> {
    let mut differs = |what: String| differences.push(Mismatch::of_file("CONS-05", &export.name, what));
    let read = ReadExport::open(root, export)?;
    let is_full = export.link.full == export.link.number;
    let (rows, deleted, departed) = (output_keys(&read, root.path())?, read_deletions(&read)?, read_departures(&read)?);
    let mut held: Vec<ResourceKey> = rows.clone();
    match before {
        _ if is_full => {}
        None => differs("the export that it builds on is not there or differs".to_string()),
        Some(before) => {
            let since = read.finished.record.request.get("--since");
            if export.baseline.as_ref() != Some(&before.export.plan_id) || since != Some(&before.transaction_time) {
                differs(format!("it does not build on {}, the export before it", before.export.name));
            }
            let removed: HashSet<ResourceKey> = deleted.iter().chain(&departed).copied().collect();
            let unknown = departed.iter().filter(|key| before.keys.binary_search(key).is_err()).count();
            if unknown > 0 {
                differs(format!("of its departed resources {unknown} were not there before"));
            }
            held.extend(before.keys.iter().filter(|key| !removed.contains(*key)));
        }
    }
    held.sort_unstable();
    held.dedup();
    match &read.finished.baseline.resources {
        None => differs("its record does not hold the keys of what a reader holds".to_string()),
        Some(recorded) if recorded.keys() != held => {
            differs(format!(
                "a reader holds {} resources after it, but its record says {}, or others",
                grouped(held.len() as u64),
                grouped(recorded.keys().len() as u64)
            ));
        }
        Some(_) => {}
    }
    let link = VerifiedLink {
        directory: export.name.clone(),
        number: export.link.number,
        full: export.link.full,
        rows: rows.len() as u64,
        deleted: deleted.len() as u64,
        departed: departed.len() as u64,
        held: held.len() as u64,
    };
    let transaction_time = read.finished.record.snapshot.as_of.clone();
    Ok((link, Held { export: export.clone(), transaction_time, keys: held }))
}

/// The keys of all rows of an export.
fn output_keys(export: &ReadExport, scratch: &Path) -> Result<Vec<ResourceKey>, JournalError> {
    let mut keys = Vec::new();
    for item in &export.finished.manifest.output {
        let read = read_lines(&export.directory, item, scratch, &mut |line| {
            keys.push(line.key);
            Ok::<(), io::Error>(())
        });
        read.map_err(|error| match error {
            LinesError::File(error) => error,
            LinesError::Caller(source) => JournalError::Io { path: scratch.to_path_buf(), source },
        })?;
    }
    Ok(keys)
}

/// A failure of the root, as one of a verification.
fn chain_error(error: JournalError) -> VerifyError {
    match error {
        JournalError::Io { path, source } => VerifyError::Read { path, source },
        JournalError::Damaged { path, reason } => {
            VerifyError::Record { path, reason: format!("cannot be read: {reason}") }
        }
        other => VerifyError::Record { path: "".into(), reason: other.to_string() },
    }
}

impl ChainVerification {
    /// Lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![match (self.holds, self.exports.is_empty()) {
            (_, true) => "No export of the chain is finished.".to_string(),
            (true, _) => "The chain holds: each export is as its manifest states, and follows from the one before it."
                .to_string(),
            (false, _) => "The chain does not hold.".to_string(),
        }];
        let mut table = TextTable::of_figures(&["export", "number", "rows", "deleted", "departed", "held after it"]);
        for export in &self.exports {
            let kind = if export.full == export.number { ", full" } else { "" };
            let figures = [export.rows, export.deleted, export.departed, export.held].map(grouped);
            let [rows, deleted, departed, held] = figures;
            table.row([
                format!("{}{kind}", export.directory),
                export.number.to_string(),
                rows,
                deleted,
                departed,
                held,
            ]);
        }
        if !self.exports.is_empty() {
            lines.extend(table.lines());
        }
        if let Some(unfinished) = &self.unfinished {
            lines.push(format!("{unfinished} is not finished; the next run of the chain finishes it."));
        }
        lines.extend(self.differences.lines());
        lines
    }
}
