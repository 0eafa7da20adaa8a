//! Journal of a run: the plan and the receipts of finished files.
//!
//! `plan.json` is written first, then one line for each finished file in `receipts.jsonlog`; `output_dir` says where the
//! two lie and what is done with them. A journal is read as untrusted input: a name in it must be the name of an output
//! file, and a finished file counts only if it exists with the size and digest of its receipt.

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

/// Directory of the journal, inside the output directory.
pub(crate) const JOB: &str = crate::store::paths::JOB;
/// Directory of the journal and files of a run that is to replace a finished export, until it does.
pub(crate) const NEXT: &str = ".outpour-job/next";
/// File name of the manifest.
pub(crate) const MANIFEST: &str = "manifest.json";
/// File name of the status document.
pub(crate) const STATUS: &str = "status.json";
/// File name of the plan in the journal's directory.
pub(crate) const PLAN: &str = "plan.json";
/// File name of the receipts in the journal's directory. Not that of data: whoever collects `**/*.ndjson` of an output
/// directory wants resources.
pub(crate) const RECEIPTS: &str = "receipts.jsonlog";
/// File in the journal's directory with the keys of the exported patients.
pub(crate) const COHORT: &str = "cohort";
/// File in the journal's directory with the keys of all resources that a reader holds who has applied the export.
pub(crate) const RESOURCES: &str = "resources";
/// File of an increment that lists what no longer belongs. Not that of data: whoever collects `*.ndjson` or `*.jsonl` wants
/// resources.
pub(crate) const DEPARTED: &str = "departed.json-lines";
/// File name of the receipts of earlier versions; read where [`RECEIPTS`] is missing.
pub(crate) const LEGACY_RECEIPTS: &str = "done.ndjson";

/// Receipt of a finished file: one line of `receipts.jsonlog`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Name relative to the output directory.
    pub file: String,
    /// Resource type of the file's lines.
    pub r#type: String,
    /// Number of lines in the file.
    pub count: u64,
    /// Bytes before compression, newlines included.
    pub bytes: u64,
    /// Bytes of the file on disk.
    pub file_bytes: u64,
    /// Digest of the file on disk; `None` when the request wanted none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl Receipt {
    /// Receipt of a file of `count` lines.
    pub fn new(file: String, resource_type: &str, count: u64, stats: FileStats) -> Receipt {
        let FileStats { bytes, file_bytes, digest } = stats;
        Receipt { file, r#type: resource_type.to_string(), count, bytes, file_bytes, digest }
    }

    /// The parts of the file's name if the receipt is plausible, else `None`. Name and type must agree, there is at
    /// least one line, a line has at least one byte and its newline, an uncompressed file is as long as its lines, and
    /// the digest has the form of its algorithm.
    pub fn checked(&self) -> Option<OutputName> {
        let name = OutputName::parse(&self.file)?;
        let lines = self.count > 0 && self.bytes / 2 >= self.count;
        let coded = name.compression != Compression::None || self.bytes == self.file_bytes;
        let digest = self.digest.as_ref().is_none_or(Digest::is_well_formed);
        (self.r#type == name.resource_type.name() && lines && coded && digest).then_some(name)
    }
}

/// Contents of the file `plan.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct PlanFile<T, F = Vec<String>> {
    /// Names of all files that the run writes, generated ones included.
    pub files: F,
    /// The request and plan that determine the bytes of the files.
    pub job: T,
}

/// Access to the files of one journal, in a directory below the output directory.
pub(crate) struct JournalFiles<'a> {
    root: &'a Directory,
    folder: &'static str,
}

impl JournalFiles<'_> {
    /// The journal in `folder` of the output directory `root`.
    pub(crate) fn new<'a>(root: &'a Directory, folder: &'static str) -> JournalFiles<'a> {
        JournalFiles { root, folder }
    }

    /// Name of a file of the journal, relative to the output directory.
    pub(crate) fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    /// Absolute path of a file of the journal.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(self.name(file))
    }

    /// Wraps an I/O error with the path of a file of the journal.
    fn io(&self, file: &str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.path(file);
        |source| JournalError::Io { path, source }
    }

    /// Whether `plan.json` exists; its contents are not read.
    pub(crate) fn is_there(&self) -> Result<bool, JournalError> {
        Ok(self.root.metadata(&self.name(PLAN)).map_err(self.io(PLAN))?.is_some())
    }

    /// Reads the plan.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if it is missing, is not the JSON that is expected, or names a file that is no output
    /// file.
    pub(crate) fn plan<T: DeserializeOwned>(&self) -> Result<PlanFile<T>, JournalError> {
        let damaged = |reason: String| JournalError::Damaged { path: self.path(PLAN), reason };
        let bytes = self.root.read(&self.name(PLAN), RECORD_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
        let plan: PlanFile<T> = serde_json::from_slice(&bytes).map_err(|error| damaged(place_of_json_error(&error)))?;
        match plan.files.iter().all(|name| OutputName::parse(name).is_some()) {
            true => Ok(plan),
            false => Err(damaged("it names a file that is no output file".to_string())),
        }
    }

    /// The plausible receipts (see [`Receipt::checked`]), the last of each name. A last line without a newline is
    /// ignored: the run was killed while it wrote it.
    ///
    /// # Errors
    /// `receipts.jsonlog`, or what earlier versions wrote instead, exists and cannot be read.
    pub(crate) fn receipts(&self) -> Result<Vec<Receipt>, JournalError> {
        let read = |file: &str| match self.root.read(&self.name(file), RECORD_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(file)(error)),
        };
        let bytes = match read(RECEIPTS)? {
            Some(bytes) => bytes,
            None => read(LEGACY_RECEIPTS)?.unwrap_or_default(),
        };
        let lines = bytes[..whole_lines(&bytes)].split(|b| *b == b'\n');
        let receipts = lines.filter_map(|line| serde_json::from_slice::<Receipt>(line).ok());
        let sound = receipts.filter(|receipt| receipt.checked().is_some());
        let latest: BTreeMap<String, Receipt> = sound.map(|receipt| (receipt.file.clone(), receipt)).collect();
        Ok(latest.into_values().collect())
    }

    /// Opens `receipts.jsonlog` for appending, after cutting off an incomplete last line. The receipts of a run that an
    /// earlier version began get this name first.
    pub(crate) fn open_receipts(&self) -> io::Result<File> {
        let (name, legacy) = (self.name(RECEIPTS), self.name(LEGACY_RECEIPTS));
        if self.root.metadata(&name)?.is_none() && self.root.metadata(&legacy)?.is_some() {
            self.root.rename(&legacy, &name)?;
        }
        let mut file = self.root.create(&name)?;
        let bytes = self.root.read(&name, RECORD_BYTES_MAX)?;
        file.set_len(whole_lines(&bytes) as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }
}

/// Line and column of a JSON error in a journal file. The file's content, which may be a patient's, is not quoted.
pub(crate) fn place_of_json_error(error: &serde_json::Error) -> String {
    format!("line {}, column {} is not as it was written", error.line(), error.column())
}

/// Number of bytes up to and including the last newline.
fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |offset| offset + 1)
}

/// A receipt as a line of `receipts.jsonlog`, newline included.
pub(crate) fn line_of(receipt: &Receipt) -> Vec<u8> {
    let mut line = serde_json::to_vec(receipt).expect("a receipt is plain data");
    line.push(b'\n');
    line
}

/// Whether a file has the size and digest of its receipt; reads the whole file if the size agrees.
pub(crate) fn is_as_recorded(file: File, receipt: &Receipt, algorithm: DigestAlgorithm) -> io::Result<bool> {
    if file.metadata()?.len() != receipt.file_bytes {
        return Ok(false);
    }
    Ok(crate::hash::digest::digest_file(file, algorithm)? == (receipt.file_bytes, receipt.digest.clone()))
}
