//! The new directory of a source in the store: a file for each type, built under a hidden name and published by one
//! rename.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fhir::id::Id;
use crate::fhir::resource_type::ResourceType;
use crate::import::problem::ImportError;
use crate::import::rows::{BatchRows, SourceDeletion};
use crate::sys::atomic_dir::AtomicDir;
use crate::sys::durability::FileSync;
use crate::sys::private_files::create_private;
use crate::write::deleted_bundle::deleted_lines;

/// Name of the file in the directory that says where its rows come from. The walk of a store passes over it.
pub(crate) const RECORD: &str = ".outpour-import.json";
/// Name of the file of deletions.
const DELETIONS: &str = "deleted.ndjson";
/// Bytes of a file that are gathered before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// What a directory of rows came from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImportRecord {
    /// Version of this record.
    pub format: u32,
    /// Name of the source.
    pub source: String,
    /// Hash of its bytes and of the options that decide the rows, in hexadecimal.
    pub hash: String,
    /// Rows by type.
    pub rows: std::collections::BTreeMap<String, u64>,
    /// Deletions.
    pub deletions: u64,
    /// Problems, whose parts of the source are not among the rows.
    pub problems: u64,
}

/// The directory of a source under construction.
pub(crate) struct ImportDir {
    dir: AtomicDir,
    target: PathBuf,
    sync: FileSync,
    /// Files by type.
    files: Vec<Option<TypeFile>>,
    deletions: Option<BufWriter<File>>,
    /// Deletions written.
    pub deletion_count: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// The file of one type.
struct TypeFile {
    out: BufWriter<File>,
    rows: u64,
}

impl ImportDir {
    /// Begins the directory that is to have this path.
    ///
    /// # Errors
    /// If it is there already or cannot be made.
    pub(crate) fn begin(target: &Path, sync: FileSync) -> Result<ImportDir, ImportError> {
        let dir = AtomicDir::begin(target, sync)?;
        let files = (0..ResourceType::COUNT).map(|_| None).collect();
        let target = target.to_path_buf();
        Ok(ImportDir { dir, target, sync, files, deletions: None, deletion_count: 0, bytes: 0 })
    }

    /// Adds what a part of the source became.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add(&mut self, batch: &BatchRows) -> Result<(), ImportError> {
        for rows in &batch.types {
            self.write(rows.resource_type, &rows.bytes, rows.rows())?;
        }
        for same_date in batch.deletions.chunk_by(|a, b| a.date == b.date) {
            self.add_deletions(same_date)?;
        }
        Ok(())
    }

    /// Adds bytes of whole rows of a type, so many.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn write(&mut self, resource_type: ResourceType, bytes: &[u8], rows: u64) -> Result<(), ImportError> {
        let path = self.dir.path().join(format!("{resource_type}.ndjson"));
        let file = match &mut self.files[resource_type.index()] {
            Some(file) => file,
            none => none.insert(TypeFile { out: create(&path)?, rows: 0 }),
        };
        file.out.write_all(bytes).map_err(ImportError::write(&path))?;
        file.rows += rows;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Adds deletions of one date.
    fn add_deletions(&mut self, deletions: &[SourceDeletion]) -> Result<(), ImportError> {
        let path = self.dir.path().join(DELETIONS);
        let out = match &mut self.deletions {
            Some(out) => out,
            none => none.insert(create(&path)?),
        };
        let list: Vec<(ResourceType, Id)> =
            deletions.iter().map(|deletion| (deletion.target.resource_type, deletion.target.id)).collect();
        for line in deleted_lines(&list, &deletions[0].date) {
            writeln!(out, "{line}").map_err(ImportError::write(&path))?;
            self.bytes += line.len() as u64 + 1;
        }
        self.deletion_count += list.len() as u64;
        Ok(())
    }

    /// Rows of each type written so far.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (ResourceType, u64)> + '_ {
        let files = ResourceType::all().zip(&self.files);
        files.filter_map(|(resource_type, file)| Some((resource_type, file.as_ref()?.rows)))
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.deletions.is_none() && self.files.iter().all(Option::is_none)
    }

    /// Syncs the files, writes the record, and renames the directory to its place.
    ///
    /// # Errors
    /// If anything cannot be written, synced or renamed.
    pub(crate) fn publish(self, record: &ImportRecord) -> Result<(), ImportError> {
        let failed = |source| ImportError::Write { path: self.target.clone(), source };
        let outs = self.files.into_iter().flatten().map(|file| file.out).chain(self.deletions);
        for out in outs {
            finish(out, self.sync).map_err(failed)?;
        }
        let mut out = create(&self.dir.path().join(RECORD))?;
        let text = serde_json::to_vec_pretty(record).expect("plain data");
        out.write_all(&text).map_err(failed)?;
        finish(out, self.sync).map_err(failed)?;
        Ok(self.dir.publish()?)
    }
}

/// Makes a file of the directory.
fn create(path: &Path) -> Result<BufWriter<File>, ImportError> {
    let file = create_private(path).map_err(ImportError::write(path))?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
}

/// Writes what a file has gathered, and syncs it.
fn finish(out: BufWriter<File>, sync: FileSync) -> std::io::Result<()> {
    let file = out.into_inner().map_err(|error| error.into_error())?;
    if sync == FileSync::Yes { file.sync_all() } else { Ok(()) }
}
