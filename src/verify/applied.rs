//! Verifies the directory that holds the current records of a chain against the list of its files, `state.json`: sizes, lines and
//! digests, one type a file, no resource twice. What the chain makes of them is not asked again: `outpour apply` to another place
//! does that, from the exports alone.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use serde::Serialize;

use crate::chain::applied_state::{AppliedState, STATE};
use crate::fhir::elements::selection::ElementSelection;
use crate::hash::digest::DigestAlgorithm;
use crate::limits::RECORD_BYTES_MAX;
use crate::progress::{Phase, Progress};
use crate::sys::regular_file::read_regular;
use crate::text_table::{TextTable, grouped, grouped_with};
use crate::verify::VerifyError;
use crate::verify::export::TypeCount;
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::output_file::{self, FileSection, StatedLines, VerifiedFile};
use crate::write::output_name::OutputName;

/// Result of verifying the current records of a chain. Its fields are keys of the JSON report.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppliedVerification {
    /// Whether there is no mismatch.
    pub holds: bool,
    /// The transactionTime of the last export that was applied.
    pub transaction_time: String,
    /// Number of that export in its chain.
    pub number: u64,
    /// Totals by type.
    pub files: BTreeMap<String, TypeCount>,
    /// What is not as stated.
    pub differences: Mismatches,
}

/// Whether a directory holds the current records of a chain: the list of their files, or a damaged one beside such files alone.
pub(crate) fn is_applied(directory: &Path) -> bool {
    let Ok(bytes) = read_regular(&directory.join(STATE), RECORD_BYTES_MAX) else { return false };
    let is_known = |name: &str| name == STATE || OutputName::parse(name).is_some();
    let names = || std::fs::read_dir(directory).into_iter().flatten().flatten();
    serde_json::from_slice::<AppliedState>(&bytes).is_ok()
        || names().all(|entry| entry.file_name().to_str().is_some_and(is_known))
}

/// Verifies a directory of current records.
///
/// # Errors
/// [`VerifyError::Neither`] if its list cannot be read; [`VerifyError::Read`]; [`VerifyError::Cancelled`].
pub(crate) fn verify_applied(directory: &Path, progress: &Progress) -> Result<AppliedVerification, VerifyError> {
    let neither = |found: String| VerifyError::Neither { path: directory.to_path_buf(), found };
    let state = match AppliedState::of_directory(directory) {
        Ok(Some(state)) => state,
        Ok(None) => return Err(neither("is empty".to_string())),
        Err(error) => return Err(neither(format!("has no list of its files that can be read: {error}"))),
    };
    let mut mismatches = Mismatches::default();
    let (sound, odd): (Vec<_>, Vec<_>) = state.files.iter().partition(|file| file.checked().is_some());
    for file in odd {
        mismatches.push(Mismatch::of_file("state", STATE, format!("{:?} is listed as no file is", file.file)));
    }
    progress.begin(Phase::Checking);
    progress.scan_total.store(sound.iter().map(|file| file.file_bytes).sum(), Relaxed);
    let elements = ElementSelection::default();
    let read = |file: &&crate::write::journal::Receipt| {
        let algorithm = file.digest.as_ref().map_or(DigestAlgorithm::None, |digest| digest.algorithm);
        let lines = StatedLines { section: FileSection::Output, of_type: &file.r#type, elements: &elements };
        output_file::read(directory, &file.file, &lines, algorithm, progress)
    };
    let found: Vec<VerifiedFile> = sound.par_iter().map(read).collect::<Result<_, _>>()?;
    let mut report = AppliedVerification {
        transaction_time: state.transaction_time.clone(),
        number: state.number,
        ..AppliedVerification::default()
    };
    let mut met = HashSet::new();
    for (stated, found) in sound.iter().zip(found) {
        mismatches.absorb(found.mismatches);
        let numbers = [
            ("lines", stated.count, found.lines),
            ("uncompressed bytes", stated.bytes, found.bytes),
            ("bytes on disk", stated.file_bytes, found.file_bytes),
        ];
        for (what, stated_number, number) in numbers.into_iter().filter(|(_, stated, found)| stated != found) {
            let text = format!("{STATE} says {stated_number} {what}, it has {number}");
            mismatches.push(Mismatch::of_file("state", &stated.file, text));
        }
        if stated.digest.is_some() && stated.digest != found.digest {
            let text = format!("its digest is not the one that {STATE} states");
            mismatches.push(Mismatch::of_file("state", &stated.file, text));
        }
        for (line, entity) in found.entities.iter().enumerate().filter(|(_, entity)| **entity != 0) {
            if !met.insert(*entity) {
                let what = format!("line {}: its resource stands in the directory before", line + 1);
                mismatches.push(Mismatch::of_file("CONS-07", &stated.file, what));
            }
        }
        let total = report.files.entry(stated.r#type.clone()).or_default();
        total.files += 1;
        total.lines += found.lines;
        total.bytes += found.bytes;
        total.file_bytes += found.file_bytes;
    }
    report.holds = mismatches.is_empty();
    report.differences = mismatches;
    Ok(report)
}

impl AppliedVerification {
    /// Lines of the report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let what =
            format!("The current records as of {} (export {} of their chain)", self.transaction_time, self.number);
        let mut lines = vec![match self.holds {
            true => format!("{what} are as {STATE} states."),
            false => {
                let differences = grouped_with(self.differences.total(), "difference");
                format!("{what} are not as {STATE} states: {differences}. `outpour apply` makes them anew.")
            }
        }];
        let mut table = TextTable::new(&["type", "files", "lines", "bytes", "on disk"]);
        for (name, TypeCount { files, lines, bytes, file_bytes, .. }) in &self.files {
            table.row([name.clone(), grouped(*files), grouped(*lines), grouped(*bytes), grouped(*file_bytes)]);
        }
        if !table.is_empty() {
            lines.extend(table.lines());
        }
        lines.extend(self.differences.lines());
        lines
    }
}
