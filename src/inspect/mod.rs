//! Inspector: describes any file or directory that this project writes.
//!
//! An inspector never writes, repairs or decides anything. It tolerates damage: broken parts are named with their
//! place, and the rest is shown. No patient ids are shown. Whether a file states the truth is not checked here, but by
//! `verify`.

pub(crate) mod chain;
pub(crate) mod data;
pub(crate) mod export;
pub(crate) mod index;
pub(crate) mod index_file;
pub(crate) mod lists;
pub(crate) mod report;
pub(crate) mod search_columns;
pub(crate) mod service;
pub(crate) mod tasks;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::chain::applied_state::STATE;
use crate::chain::root::LATEST;
use crate::codec::compression::{Compression, FIRST_BYTES};
use crate::index::search::column_file;
use crate::index::search::columns::is_column_file;
use crate::index::segment::layout;
use crate::index::{global, meta};
use crate::inspect::report::InspectReport;
use crate::key_set;
use crate::spans::span_file;
use crate::sys::regular_file::{Links, open_regular};
use crate::tasks::job_files::is_job;
use crate::verify::chain::is_chain;
use crate::write::journal::{
    COHORT, DEPARTED, JOB, LEGACY_RECEIPTS, MANIFEST, NEXT, PLAN, RECEIPTS, RESOURCES, STATUS,
};
use crate::write::replaced_files::REPLACED;

/// The path cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// The file or directory cannot be read.
    #[error("cannot read {}: {source}; check that it is there and may be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// It is nothing of this project's making.
    #[error(
        "{} is no file or directory that outpour writes; give an export, an index (.outpour in a store), or a file of one",
        path.display()
    )]
    /// No file or directory of this project.
    Foreign {
        /// The file or directory.
        path: PathBuf,
    },
}

/// Kind of a file, by its first bytes, or by its name if those are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Segments of an index.
    Segments,
    /// The global index over all segments.
    GlobalIndex,
    /// The meta file of an index.
    IndexMeta,
    /// The snapshot log beside the meta file.
    SnapshotLog,
    /// A search column of an index.
    SearchColumn,
    /// The manifest of an export.
    Manifest,
    /// The status document of an export.
    Status,
    /// The plan in an export's journal.
    Plan,
    /// The receipts in an export's journal.
    Receipts,
    /// First-seen times of rows of an index.
    RowTimes,
    /// Vanished resources of an index.
    Vanished,
    /// The names of search columns that an index is to have.
    ListedColumns,
    /// The names of files that an export is to replace.
    Replaced,
    /// The record of a job of the service.
    JobRecord,
    /// A Group that a client of the service wrote.
    RegisteredGroup,
    /// The keys of access tokens of the service.
    SigningKeys,
    /// Used assertions of clients of the service.
    UsedAssertions,
    /// The keys of patients or resources of an export.
    KeySet,
    /// The list of what no longer belongs to an increment.
    Departed,
    /// A document of a chain, or of the state that it was applied to.
    ChainDocument,
    /// The plan of a job in tasks.
    JobPlan,
    /// The record of a task of such a job.
    TaskRecord,
    /// The rows of an output file of such a job.
    Spans,
    /// Lines of a store or export.
    Data(Compression),
}

/// Inspects a file or directory.
///
/// # Errors
/// [`InspectError`] if it cannot be read, or is nothing that outpour writes. Damage is no error but part of the report.
pub(crate) fn inspect(path: &Path) -> Result<InspectReport, InspectError> {
    let read = |source| InspectError::Read { path: path.to_path_buf(), source };
    let mut report = InspectReport::new(path);
    if std::fs::metadata(path).map_err(read)?.is_dir() {
        inspect_directory(path, &mut report)?;
    } else {
        let foreign = || InspectError::Foreign { path: path.to_path_buf() };
        inspect_file(path, kind_of(path).map_err(read)?.ok_or_else(foreign)?, &mut report);
    }
    report.intact = report.broken.is_empty();
    Ok(report)
}

/// Adds the files of an export or an index to the report; of a store those of its index.
fn inspect_directory(path: &Path, report: &mut InspectReport) -> Result<(), InspectError> {
    let store_index = path.join(".outpour");
    if is_chain(path) {
        chain::root(path, report);
        return Ok(());
    }
    if path.join(STATE).is_file() {
        report.what = "the current state of a chain".to_string();
        inspect_file(&path.join(STATE), FileKind::ChainDocument, report);
        return Ok(());
    }
    if is_job(path) {
        tasks::job(path, report);
        return Ok(());
    }
    if path.join(JOB).is_dir() || path.join(MANIFEST).is_file() {
        report.what = "an export".to_string();
        // Earlier versions had another name for the receipts.
        let receipts_in = |folder: &str| {
            let is_legacy =
                |name: &&str| path.join(folder).join(name).is_file() && !path.join(folder).join(RECEIPTS).is_file();
            Some(LEGACY_RECEIPTS).filter(is_legacy).unwrap_or(RECEIPTS)
        };
        for (name, kind) in [
            (MANIFEST.to_string(), FileKind::Manifest),
            (STATUS.to_string(), FileKind::Status),
            (format!("{JOB}/{PLAN}"), FileKind::Plan),
            (format!("{JOB}/{}", receipts_in(JOB)), FileKind::Receipts),
        ] {
            let path = path.join(&name);
            match path.is_file() {
                true => inspect_file(&path, kind, report),
                false => report.absent.push(name),
            }
        }
        // What only some exports have.
        for (name, kind) in [
            (DEPARTED.to_string(), FileKind::Departed),
            (format!("{JOB}/{COHORT}"), FileKind::KeySet),
            (format!("{JOB}/{RESOURCES}"), FileKind::KeySet),
        ] {
            if path.join(&name).is_file() {
                inspect_file(&path.join(name), kind, report);
            }
        }
        // The journal of a run that is to replace this export.
        let receipts = (receipts_in(NEXT), FileKind::Receipts);
        let replaced = (REPLACED, FileKind::Replaced);
        for (name, kind) in [(STATUS, FileKind::Status), (PLAN, FileKind::Plan), receipts, replaced] {
            let path = path.join(NEXT).join(name);
            if path.is_file() {
                inspect_file(&path, kind, report);
            }
        }
    } else if path.join(meta::FILE).is_file() {
        report.what = "an index".to_string();
        index::inspect_directory(path, report);
    } else if store_index.join(meta::FILE).is_file() {
        report.what = "a store with its index".to_string();
        index::inspect_directory(&store_index, report);
    } else if service::is_data_directory(path) {
        service::data_directory(path, report);
    } else if service::is_record_directory(path) {
        service::record_directory(path, report);
    } else if path.join("out").join(JOB).is_dir() {
        inspect_directory(&path.join("out"), report)?;
        report.what = "the directory of a job of a service".to_string();
    } else if path.join(STATUS).is_file() {
        // A run that ended before its plan stood has left nothing else.
        report.what = "an export that has no plan".to_string();
        inspect_file(&path.join(STATUS), FileKind::Status, report);
    } else {
        return Err(InspectError::Foreign { path: path.to_path_buf() });
    }
    Ok(())
}

/// Kind of a file; `None` if it is nothing that this project writes.
fn kind_of(path: &Path) -> io::Result<Option<FileKind>> {
    let mut first_bytes = Vec::new();
    io::Read::read_to_end(
        &mut io::Read::take(open_regular(path, Links::Follow)?, FIRST_BYTES as u64),
        &mut first_bytes,
    )?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_in = |folder: &str| path.parent().is_some_and(|parent| parent.ends_with(folder));
    let by_name = match &*name {
        MANIFEST => Some(FileKind::Manifest),
        STATUS => Some(FileKind::Status),
        meta::NOTE => Some(FileKind::SnapshotLog),
        PLAN if tasks::is_job_plan(path) => Some(FileKind::JobPlan),
        PLAN => Some(FileKind::Plan),
        _ if tasks::is_task_record(path) => Some(FileKind::TaskRecord),
        RECEIPTS | LEGACY_RECEIPTS => Some(FileKind::Receipts),
        meta::FILE | meta::TWIN => Some(FileKind::IndexMeta),
        REPLACED => Some(FileKind::Replaced),
        DEPARTED => Some(FileKind::Departed),
        COHORT | RESOURCES if is_in(JOB) => Some(FileKind::KeySet),
        LATEST | STATE | "chain.json" => Some(FileKind::ChainDocument),
        "search-listed" => Some(FileKind::ListedColumns),
        _ if service::KEYS.contains(&&*name) => Some(FileKind::SigningKeys),
        _ if service::is_record_name(&name) => Some(FileKind::JobRecord),
        _ if name.starts_with("used-") && is_in("assertions") => Some(FileKind::UsedAssertions),
        _ if name.ends_with(".ndjson") && is_in("groups") => Some(FileKind::RegisteredGroup),
        _ if name.starts_with(meta::TIMES) => Some(FileKind::RowTimes),
        _ if name.starts_with(meta::VANISHED) => Some(FileKind::Vanished),
        _ if name.starts_with("extents-") => Some(FileKind::Segments),
        _ if name.starts_with("merged-") => Some(FileKind::GlobalIndex),
        _ if is_column_file(&name) => Some(FileKind::SearchColumn),
        _ => Compression::of_file_name(&name)
            .map(|named| FileKind::Data(Compression::of_first_bytes(&first_bytes, named))),
    };
    Ok(match &first_bytes[..] {
        bytes if bytes.starts_with(&layout::MAGIC) => Some(FileKind::Segments),
        bytes if bytes.starts_with(&global::MAGIC.to_le_bytes()) => Some(FileKind::GlobalIndex),
        bytes if bytes.starts_with(&column_file::MAGIC) => Some(FileKind::SearchColumn),
        bytes if bytes.starts_with(key_set::MAGIC) => Some(FileKind::KeySet),
        bytes if bytes.starts_with(&span_file::MAGIC) => Some(FileKind::Spans),
        bytes if bytes.starts_with(b"outpour-index ") => Some(FileKind::IndexMeta),
        _ if by_name.is_some() => by_name,
        _ => export::kind_of(path)?,
    })
}

/// Adds the sections of one file to the report.
fn inspect_file(path: &Path, kind: FileKind, report: &mut InspectReport) {
    match kind {
        FileKind::Segments => index::segments(path, report),
        FileKind::GlobalIndex => index::global_index(path, report),
        FileKind::SnapshotLog => index::snapshot_log(path, report),
        FileKind::IndexMeta => drop(index::index_meta(path, report)),
        FileKind::SearchColumn => search_columns::search_column(path, report),
        FileKind::Manifest => export::manifest(path, report),
        FileKind::Status => export::status(path, report),
        FileKind::Plan => export::plan(path, report),
        FileKind::Receipts => export::receipts(path, report),
        FileKind::RowTimes => lists::row_times(path, report),
        FileKind::Vanished => lists::vanished_resources(path, report),
        FileKind::ListedColumns => lists::listed_columns(path, report),
        FileKind::Replaced => lists::replaced_files(path, report),
        FileKind::JobRecord => service::job_record(path, report),
        FileKind::RegisteredGroup => service::registered_group(path, report),
        FileKind::SigningKeys => service::signing_keys(path, report),
        FileKind::UsedAssertions => service::used_assertions(path, report),
        FileKind::KeySet => chain::key_set(path, report),
        FileKind::Departed => chain::departed(path, report),
        FileKind::ChainDocument => chain::document(path, report),
        FileKind::JobPlan => tasks::any_plan(path, report),
        FileKind::TaskRecord => tasks::record(path, report),
        FileKind::Spans => tasks::spans(path, report),
        FileKind::Data(compression) => data::show(path, compression, report),
    }
}
