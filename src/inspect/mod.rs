//! Looks into any file that this project writes, and says what is there.
//!
//! An inspector never writes, repairs or decides anything. It takes damage as it finds it: what is broken is named with
//! its place, and the rest is shown. No patient ids are shown. Whether a file says the truth is not asked here; that is
//! what `verify` is for.

pub(crate) mod data;
pub(crate) mod export;
pub(crate) mod index;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::compression::Compression;
use crate::index::segment::layout;
use crate::index::{global, meta};
use crate::inspect::report::InspectReport;
use crate::sys::regular_file::{Links, open_regular};
use crate::write::journal::{DONE, JOB, MANIFEST, NEXT, PLAN, STATUS};

/// A path cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; check that it is there and may be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is nothing of this project's making.
    #[error(
        "{} is no file or directory that outpour writes; give an export, an index (.outpour in a store), or a file of one",
        path.display()
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
    },
}

/// What a file is, told by its first bytes, or by its name when those are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segments,
    Merged,
    Generation,
    Note,
    Manifest,
    Status,
    Plan,
    Done,
    Data(Compression),
}

/// Looks into a file or directory.
///
/// # Errors
/// When it cannot be read, or is nothing that outpour writes. Damage is no error but part of the report.
pub(crate) fn inspect(path: &Path) -> Result<InspectReport, InspectError> {
    let read = |source| InspectError::Read { path: path.to_path_buf(), source };
    let mut report = InspectReport::new(path);
    if std::fs::metadata(path).map_err(read)?.is_dir() {
        directory(path, &mut report)?;
    } else {
        let foreign = || InspectError::Foreign { path: path.to_path_buf() };
        file(path, kind_of(path).map_err(read)?.ok_or_else(foreign)?, &mut report);
    }
    report.intact = report.broken.is_empty();
    Ok(report)
}

fn directory(path: &Path, report: &mut InspectReport) -> Result<(), InspectError> {
    let store_index = path.join(".outpour");
    if path.join(JOB).is_dir() || path.join(MANIFEST).is_file() {
        report.what = "an export".to_string();
        for (name, kind) in [
            (MANIFEST.to_string(), FileKind::Manifest),
            (STATUS.to_string(), FileKind::Status),
            (format!("{JOB}/plan.json"), FileKind::Plan),
            (format!("{JOB}/done.ndjson"), FileKind::Done),
        ] {
            let path = path.join(&name);
            match path.is_file() {
                true => file(&path, kind, report),
                false => report.absent.push(name),
            }
        }
        // An export that is to replace this one, if there is one.
        for (name, kind) in [(STATUS, FileKind::Status), (PLAN, FileKind::Plan), (DONE, FileKind::Done)] {
            let path = path.join(NEXT).join(name);
            if path.is_file() {
                file(&path, kind, report);
            }
        }
    } else if path.join(meta::FILE).is_file() {
        report.what = "an index".to_string();
        index::directory(path, report);
    } else if store_index.join(meta::FILE).is_file() {
        report.what = "a store with its index".to_string();
        index::directory(&store_index, report);
    } else {
        return Err(InspectError::Foreign { path: path.to_path_buf() });
    }
    Ok(())
}

fn kind_of(path: &Path) -> io::Result<Option<FileKind>> {
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(open_regular(path, Links::Follow)?, 64), &mut head)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let by_name = match &*name {
        MANIFEST => Some(FileKind::Manifest),
        STATUS => Some(FileKind::Status),
        meta::NOTE => Some(FileKind::Note),
        "plan.json" => Some(FileKind::Plan),
        "done.ndjson" => Some(FileKind::Done),
        meta::FILE => Some(FileKind::Generation),
        _ if name.starts_with("extents-") => Some(FileKind::Segments),
        _ if name.starts_with("merged-") => Some(FileKind::Merged),
        _ => Compression::of_file_name(&name).map(FileKind::Data),
    };
    Ok(match &head[..] {
        head if head.starts_with(&layout::MAGIC) => Some(FileKind::Segments),
        head if head.starts_with(&global::MAGIC.to_le_bytes()) => Some(FileKind::Merged),
        head if head.starts_with(b"outpour-index ") => Some(FileKind::Generation),
        _ if by_name.is_some() => by_name,
        _ => export::kind_of(path)?,
    })
}

fn file(path: &Path, kind: FileKind, report: &mut InspectReport) {
    match kind {
        FileKind::Segments => index::segments(path, report),
        FileKind::Merged => index::merged(path, report),
        FileKind::Note => index::note(path, report),
        FileKind::Generation => drop(index::generation(path, report)),
        FileKind::Manifest => export::manifest(path, report),
        FileKind::Status => export::status(path, report),
        FileKind::Plan => export::plan(path, report),
        FileKind::Done => export::done(path, report),
        FileKind::Data(compression) => data::show(path, compression, report),
    }
}
