//! The record of a run: what was planned, and which files are finished.
//!
//! `plan.json` comes first, then one line for each finished file in `done.ndjson`; `job_directory` says where they lie and
//! what is done with them. A record is read as if a stranger had written it: what it names must have the name of an output
//! file, and a finished file counts only if it is there with the size and digest that its receipt says.

use crate::codec::compression::Compression;
use crate::error::JournalError;
use crate::hash::digest::{Digest, DigestAlgorithm};
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::write::encode::FileStats;
use crate::write::output_name::OutputName;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Directory of the record, inside the output directory.
pub(crate) const JOB: &str = ".outpour-job";
/// Directory of a run that is to replace a finished export, as long as that stands: its record and its files.
pub(crate) const NEXT: &str = ".outpour-job/next";
/// Name of the manifest.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Name of the status document.
pub(crate) const STATUS: &str = "status.json";
/// Name of the plan in the directory of a record.
pub(crate) const PLAN: &str = "plan.json";
/// Name of the receipts there.
pub(crate) const DONE: &str = "done.ndjson";

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Name relative to the output directory.
    pub file: String,
    /// Type of its lines.
    pub r#type: String,
    /// Its lines.
    pub count: u64,
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Digest over the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl Receipt {
    /// A receipt for a file of `count` lines.
    pub fn new(file: String, resource_type: &str, count: u64, sums: FileStats) -> Receipt {
        let FileStats { bytes, file_bytes, digest } = sums;
        Receipt { file, r#type: resource_type.to_string(), count, bytes, file_bytes, digest }
    }

    /// Its name in parts, if this can be the receipt of an output file: name and type agree, a file has lines, a line has a
    /// byte and its newline, a file that is not coded is as long as its lines, and a digest has the form of its kind.
    pub fn checked(&self) -> Option<OutputName> {
        let name = OutputName::parse(&self.file)?;
        let lines = self.count > 0 && self.bytes / 2 >= self.count;
        let coded = name.compression != Compression::None || self.bytes == self.file_bytes;
        let digest = self.digest.as_ref().is_none_or(Digest::is_well_formed);
        (self.r#type == name.resource_type.name() && lines && coded && digest).then_some(name)
    }
}

/// `plan.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct PlanFile<T> {
    /// Files that the run writes, messages and deletions among them.
    pub files: Vec<String>,
    /// What decides their bytes.
    pub job: T,
}

/// A record in a directory of its own below the output directory.
pub(crate) struct JournalFiles<'a> {
    root: &'a Directory,
    folder: &'static str,
}

impl JournalFiles<'_> {
    pub(crate) fn new<'a>(root: &'a Directory, folder: &'static str) -> JournalFiles<'a> {
        JournalFiles { root, folder }
    }

    /// The name of a file of the record, relative to the output directory.
    pub(crate) fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(self.name(file))
    }

    fn io(&self, file: &str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.path(file);
        |source| JournalError::Io { path, source }
    }

    /// Whether there is a plan; whether it can be used is not asked.
    pub(crate) fn is_there(&self) -> Result<bool, JournalError> {
        Ok(self.root.metadata(&self.name(PLAN)).map_err(self.io(PLAN))?.is_some())
    }

    /// The plan.
    ///
    /// # Errors
    /// [`JournalError::Damaged`].
    pub(crate) fn plan<T: DeserializeOwned>(&self) -> Result<PlanFile<T>, JournalError> {
        let damaged = |reason: String| JournalError::Damaged { path: self.path(PLAN), reason };
        let bytes = self.root.read(&self.name(PLAN), RECORD_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
        let plan: PlanFile<T> = serde_json::from_slice(&bytes).map_err(|error| damaged(place_of_json_error(&error)))?;
        match plan.files.iter().all(|name| OutputName::parse(name).is_some()) {
            true => Ok(plan),
            false => Err(damaged("it names a file that is no output file".to_string())),
        }
    }

    /// The receipts that can be receipts at all, of one name the last. A line that was torn when the run was killed is none.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn receipts(&self) -> Result<Vec<Receipt>, JournalError> {
        let bytes = match self.root.read(&self.name(DONE), RECORD_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io(DONE)(error)),
        };
        let lines = bytes[..whole_lines(&bytes)].split(|b| *b == b'\n');
        let receipts = lines.filter_map(|line| serde_json::from_slice::<Receipt>(line).ok());
        let sound = receipts.filter(|receipt| receipt.checked().is_some());
        let latest: BTreeMap<String, Receipt> = sound.map(|receipt| (receipt.file.clone(), receipt)).collect();
        Ok(latest.into_values().collect())
    }

    /// Opens `done.ndjson` for appending, behind its last whole line.
    pub(crate) fn open_done(&self) -> io::Result<File> {
        let mut file = self.root.create(&self.name(DONE))?;
        let bytes = self.root.read(&self.name(DONE), RECORD_BYTES_MAX)?;
        file.set_len(whole_lines(&bytes) as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }
}

/// Where a document of ours is not as it must be; nothing of what stands there, which may be of a patient.
pub(crate) fn place_of_json_error(error: &serde_json::Error) -> String {
    format!("line {}, column {} is not as it was written", error.line(), error.column())
}

/// Bytes up to the last newline.
fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |offset| offset + 1)
}

/// A receipt as a line of `done.ndjson`.
pub(crate) fn line_of(receipt: &Receipt) -> Vec<u8> {
    let mut line = serde_json::to_vec(receipt).expect("a receipt is plain data");
    line.push(b'\n');
    line
}

/// Whether the file is the one that a receipt is of, as far as its size and digest tell.
pub(crate) fn is_as_recorded(file: File, receipt: &Receipt, algorithm: DigestAlgorithm) -> io::Result<bool> {
    if file.metadata()?.len() != receipt.file_bytes {
        return Ok(false);
    }
    Ok(crate::hash::digest::digest_file(file, algorithm)? == (receipt.file_bytes, receipt.digest.clone()))
}
