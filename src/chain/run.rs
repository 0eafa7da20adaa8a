//! A night of a chain: finish what was interrupted, export, name the newest, remove the oldest.

use std::path::{Path, PathBuf};

use crate::chain::read_chain::{ReadExport, read_chain};
use crate::chain::retention::expired;
use crate::chain::root::{ChainExport, ChainRoot};
use crate::error::{ExportError, IndexError, JournalError};
use crate::export::baseline_record::FinishedExport;
use crate::export::chain_link::ChainLink;
use crate::export::export;
use crate::export::options::{Existing, ExportOptions};
use crate::export::report::ExportReport;
use crate::fhir::instant::Instant;
use crate::index::snapshot_time::SnapshotTime;
use crate::policies::NewMembers;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;

/// How a chain is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainOptions {
    /// Every so many exports is a full one; only the first if `None`.
    pub full_every: Option<u64>,
    /// So many full exports are kept, with all that came after the oldest of them; all if `None`.
    pub keep: Option<u64>,
    /// What an increment does for patients who joined.
    pub new_members: NewMembers,
}

/// When an export of a chain is.
pub(crate) struct ChainTime {
    /// The moment of the snapshot.
    pub snapshot: SnapshotTime,
    /// What the clock shows, for names.
    pub now: Instant,
}

/// What one run of a chain did.
#[derive(Default)]
pub(crate) struct ChainReport {
    /// The finished exports, an interrupted one before the new one: name of the directory, place in the chain, report.
    pub exports: Vec<(ChainExport, ExportReport)>,
    /// Interrupted exports that could not be resumed and were removed: name of the directory, and the error.
    pub abandoned: Vec<(String, String)>,
    /// Why the exports before cannot be built on, so that a full one was made; `None` if they can.
    pub broken: Option<String>,
    /// Where exports were moved to that hold files of others, which are not deleted.
    pub kept_aside: Vec<PathBuf>,
    /// Names of the exports that were removed.
    pub removed: Vec<String>,
    /// Whether exports that may go were kept because they are being read.
    pub removal_waits: bool,
}

/// Runs a chain below `path`: a full export if it has none yet or one is due, else an increment on the newest.
///
/// # Errors
/// [`ExportError`]: what makes an export fail; another question than that of the exports before; a root that another process uses
/// or that is damaged. Exports that are finished stay.
pub(crate) fn run_chain(
    store: &Store,
    request: &ExportRequest,
    path: &Path,
    chain: ChainOptions,
    time: ChainTime,
    template: &ExportOptions<'_>,
    progress: &Progress,
) -> Result<ChainReport, ExportError> {
    request.check()?;
    let seed = format!("{} {} {}", time.now, std::process::id(), path.display());
    let root = ChainRoot::lock_for_export(path, &seed)?;
    let run = ChainRun { store, request, root: &root, new_members: chain.new_members, template, progress };
    let mut report = ChainReport::default();
    root.clear_unplanned()?;
    // 1. What was interrupted.
    let exports = root.exports()?;
    let newest = exports.iter().rfind(|export| export.finished).map_or(0, |newest| newest.link.number);
    // One that is followed by a finished one has lost its manifest, and is not written again.
    let is_interrupted = |export: &ChainExport| !export.finished && export.link.number > newest;
    for interrupted in exports.into_iter().filter(is_interrupted) {
        match run.resume(&interrupted, time.snapshot.clone()) {
            Ok(finished) => report.exports.push((interrupted, finished)),
            Err(error) if cannot_be_resumed(&error) => {
                report.kept_aside.extend(root.remove(&interrupted)?);
                report.abandoned.push((interrupted.name, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    // 2. Tonight's.
    let NextPlace { number, full, before, broken } = next_place(&root, chain.full_every)?;
    report.broken = broken;
    let link = ChainLink { chain: root.chain().to_string(), number, full };
    let name = root.new_name(&time.now)?;
    let exported = run.begin(&name, &link, before.as_ref(), time.snapshot)?;
    let as_of = exported.transaction_time.to_string();
    let export = ChainExport { name, link, plan_id: String::new(), baseline: None, finished: true };
    // 3. Its name, once it stands.
    root.publish_latest(&export, &as_of, template.modes)?;
    report.exports.push((export, exported));
    // 4. Room.
    remove_expired(&root, chain.keep, &mut report)?;
    Ok(report)
}

/// The place of the next export in its chain.
struct NextPlace {
    /// Its number.
    number: u64,
    /// Number of the full export that it builds on in the end; its own for a full one.
    full: u64,
    /// The export before it, unless that cannot be built on.
    before: Option<ChainExport>,
    /// Why the exports before cannot be built on.
    broken: Option<String>,
}

/// Where the next export stands: it is full if none can be built on, or every so many are full and one is due.
fn next_place(root: &ChainRoot, full_every: Option<u64>) -> Result<NextPlace, ExportError> {
    let newest = root.finished()?.pop();
    let number = root.last_number()?.saturating_add(1);
    let mut broken = None;
    if newest.as_ref().is_none_or(|newest| newest.link.number + 1 != number) && number > 1 {
        broken = Some(format!("export {} is not there", number - 1));
    } else if newest.is_some() {
        broken = read_chain(root).and_then(|chain| check_files(&chain)).err().map(|error| error.to_string());
    }
    let before = newest.filter(|_| broken.is_none());
    let is_due = |newest: &ChainExport| full_every.is_some_and(|every| number - newest.link.full >= every);
    let full = before.as_ref().filter(|newest| !is_due(newest)).map_or(number, |newest| newest.link.full);
    Ok(NextPlace { number, full, before, broken })
}

/// The next export of a chain, for a plan of it.
pub(crate) struct NextChainExport {
    /// Its number, from 1.
    pub number: u64,
    /// Number of the full export that it builds on in the end; its own for a full one.
    pub full: u64,
    /// Name of the export before it, and what is known of that.
    pub before: Option<(String, FinishedExport)>,
    /// Names of interrupted exports, which are finished first.
    pub interrupted: Vec<String>,
    /// Why the exports before cannot be built on.
    pub broken: Option<String>,
}

/// What the next run of a chain exports, beside what was interrupted. Nothing is changed; a root that is not there, or has no chain
/// yet, gets its first export.
///
/// # Errors
/// As [`run_chain`], as far as they are of the root.
pub(crate) fn next_of_chain(path: &Path, full_every: Option<u64>) -> Result<NextChainExport, ExportError> {
    if !ChainRoot::is_root(path) {
        return Ok(NextChainExport { number: 1, full: 1, before: None, interrupted: Vec::new(), broken: None });
    }
    let root = ChainRoot::lock_for_reading(path)?;
    let NextPlace { mut number, full, before, broken } = next_place(&root, full_every)?;
    let last = before.as_ref().map_or(0, |before| before.link.number);
    let unfinished = root.exports()?.into_iter().filter(|export| !export.finished && export.link.number > last);
    let interrupted: Vec<String> = unfinished.map(|export| export.name).collect();
    let is_full = full == number;
    number += interrupted.len() as u64;
    let open = |export: ChainExport| Ok((export.name.clone(), FinishedExport::open(&root.export_path(&export.name))?));
    let before = before.map(open).transpose().map_err(|error: crate::error::RequestError| ExportError::from(error))?;
    Ok(NextChainExport { number, full: if is_full { number } else { full }, before, interrupted, broken })
}

/// Checks that the files of a chain's exports are there, by their sizes.
fn check_files(chain: &[ReadExport]) -> Result<(), ExportError> {
    for export in chain {
        let manifest = &export.finished.manifest;
        for item in manifest.output.iter().chain(&manifest.deleted) {
            let path = export.directory.path().join(item.file_name());
            let found = export.directory.metadata(item.file_name());
            let found = found.map_err(|source| JournalError::Io { path: path.clone(), source })?;
            let has_size = |found: &std::fs::Metadata| item.facts().is_none_or(|facts| facts.file_bytes == found.len());
            if !found.as_ref().is_some_and(has_size) {
                let reason = "it is missing, or its size is not what the manifest states".to_string();
                return Err(JournalError::Damaged { path, reason }.into());
            }
        }
    }
    Ok(())
}

/// Removes what need not be kept, unless somebody reads it.
fn remove_expired(root: &ChainRoot, keep: Option<u64>, report: &mut ChainReport) -> Result<(), ExportError> {
    let expired = keep.map_or(Ok(Vec::new()), |keep| root.finished().map(|finished| expired(&finished, keep)))?;
    let Some(_alone) = root.try_lock_out_readers()? else {
        report.removal_waits = !expired.is_empty();
        return Ok(());
    };
    root.empty_removed()?;
    for export in expired {
        report.kept_aside.extend(root.remove(&export)?);
        report.removed.push(export.name);
    }
    Ok(())
}

/// What all exports of one run of a chain share.
struct ChainRun<'a> {
    store: &'a Store,
    request: &'a ExportRequest,
    root: &'a ChainRoot,
    new_members: NewMembers,
    template: &'a ExportOptions<'a>,
    progress: &'a Progress,
}

impl ChainRun<'_> {
    /// Finishes an interrupted export, at its own T.
    fn resume(&self, interrupted: &ChainExport, time: SnapshotTime) -> Result<ExportReport, ExportError> {
        let finished = self.root.finished()?;
        let baseline = match &interrupted.baseline {
            None => None,
            Some(plan) => match finished.iter().find(|export| export.plan_id == *plan) {
                Some(baseline) => Some(FinishedExport::open(&self.root.export_path(&baseline.name))?),
                None => {
                    let path = self.root.export_path(&interrupted.name);
                    let reason = "the export that it builds on is not in the chain any more".to_string();
                    return Err(JournalError::Damaged { path, reason }.into());
                }
            },
        };
        let link = interrupted.link.clone();
        let report = self.export(&interrupted.name, link, baseline.as_ref(), true, time, Existing::Resume)?;
        self.root.publish_latest(interrupted, &report.transaction_time.to_string(), self.template.modes)?;
        Ok(report)
    }

    /// Begins an export on top of the newest one, or a full one.
    fn begin(
        &self,
        name: &str,
        link: &ChainLink,
        newest: Option<&ChainExport>,
        time: SnapshotTime,
    ) -> Result<ExportReport, ExportError> {
        let newest = newest.map(|newest| FinishedExport::open(&self.root.export_path(&newest.name))).transpose()?;
        let is_increment = link.full != link.number;
        self.export(name, link.clone(), newest.as_ref(), is_increment, time, Existing::Refuse)
    }

    /// Runs one export. A full one asks for the same as the one before it, too.
    fn export(
        &self,
        name: &str,
        link: ChainLink,
        before: Option<&FinishedExport>,
        is_increment: bool,
        time: SnapshotTime,
        existing: Existing,
    ) -> Result<ExportReport, ExportError> {
        let request = self.request.clone().keep_resources();
        let request = match before.filter(|_| is_increment) {
            Some(before) => request.increment_on(before.baseline.clone(), self.new_members),
            None => request,
        };
        let record = before.map(|before| before.record.clone());
        let options = self.template.clone().into_directory(self.root.export_path(name)).existing(existing);
        export(self.store, &request, time, &options.builds_on(record, Some(link)), self.progress)
    }
}

/// Whether an error of a resumed export is permanent: store files of its snapshot are changed or missing, its request differs, or its
/// record is damaged.
fn cannot_be_resumed(error: &ExportError) -> bool {
    matches!(
        error,
        ExportError::Index(IndexError::Changed { .. } | IndexError::SnapshotLost { .. })
            | ExportError::Differs { .. }
            | ExportError::Record(JournalError::Damaged { .. } | JournalError::Foreign { .. })
    )
}
