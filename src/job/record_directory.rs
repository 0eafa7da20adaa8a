//! The directory of the job records, and how a record lies on disk: JSON with a checksum at the end.

use crate::hash::xxh3_64;
use crate::job::record::{FORMAT, JobRecord, is_job_id};
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::sys::private_files::private_directory;
use crate::write::journal::place_of_json_error;
use std::io;
use std::path::Path;

use serde::Serialize;

/// The directory of the job records, open.
pub(crate) struct RecordDirectory {
    directory: Directory,
    sync: FileSync,
}

/// Content of the directory of the job records.
pub(crate) struct RecordListing {
    /// Records that can be read and pass their check, by time of kick-off.
    pub records: Vec<JobRecord>,
    /// All other record files: name without `.json`, and reason. The directories of these jobs must not be removed.
    pub unreadable: Vec<(String, String)>,
}

/// Bytes before the 16 digits of the checksum at the end of a record.
const SUM: &str = r#","sum":""#;

/// The bytes of a record on disk: its JSON, an object, with `sum` as the last member, the XXH3 hash of all bytes before it.
pub(crate) fn with_checksum(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(record).expect("a record is plain data");
    bytes.pop();
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(format!("{SUM}{sum:016x}\"}}").as_bytes());
    bytes
}

/// Whether the checksum at the end of a record matches. Records of earlier versions have no checksum, and pass.
pub(crate) fn is_intact(bytes: &[u8]) -> bool {
    let Some(start) = bytes.len().checked_sub(SUM.len() + 16 + 2) else { return true };
    let (body, end) = bytes.split_at(start);
    let Some(digits) = end.strip_prefix(SUM.as_bytes()).and_then(|rest| rest.strip_suffix(b"\"}")) else {
        return true;
    };
    digits == format!("{:016x}", xxh3_64(body)).as_bytes()
}

/// Parses the bytes of the record of the job with this id.
///
/// # Errors
/// The reason, in words that repeat nothing of the record: a wrong checksum, malformed JSON, another id or format, or a
/// broken rule of [`JobRecord::check`].
pub(crate) fn without_checksum(bytes: &[u8], id: &str) -> Result<JobRecord, String> {
    if !is_intact(bytes) {
        return Err("it is not as it was written".to_string());
    }
    let record: JobRecord = serde_json::from_slice(bytes).map_err(|error| place_of_json_error(&error))?;
    match (record.format, record.id == id) {
        (FORMAT, true) => record.check().map(|()| record).map_err(str::to_string),
        (FORMAT, false) => Err("it is the record of another job".to_string()),
        (other, _) => Err(format!("it has format {other}; this version knows {FORMAT}")),
    }
}

impl RecordDirectory {
    /// Opens the directory, and makes it if it is missing.
    ///
    /// # Errors
    /// If it cannot be made or opened.
    pub(crate) fn open(directory: &Path, sync: FileSync) -> io::Result<RecordDirectory> {
        private_directory(directory)?;
        Ok(RecordDirectory { directory: Directory::open(directory)?, sync })
    }

    /// As [`RecordDirectory::open`], of a directory that is there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open_existing(directory: &Path, sync: FileSync) -> io::Result<RecordDirectory> {
        Ok(RecordDirectory { directory: Directory::open(directory)?, sync })
    }

    /// The open directory, for other files than records.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Writes a record by rename, so that a reader finds the old one or the new one. With [`FileSync::Yes`] it outlives
    /// a loss of power when this returns.
    ///
    /// # Errors
    /// If it cannot be written; the previous record is then unchanged.
    pub(crate) fn write(&self, record: &JobRecord) -> io::Result<()> {
        self.directory.replace(&format!("{}.json", record.id), &with_checksum(record), self.sync == FileSync::Yes)
    }

    /// Removes the record of the job with this id.
    ///
    /// # Errors
    /// If it cannot be removed, or the removal cannot be synced.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        self.directory.remove_file(&format!("{id}.json"))?;
        match self.sync {
            FileSync::Yes => self.directory.sync(),
            FileSync::No => Ok(()),
        }
    }

    /// Reads and checks all records, and removes temporary files of interrupted writes.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn list(&self) -> io::Result<RecordListing> {
        self.list_by(true)
    }

    /// As [`RecordDirectory::list`], beside a service that may be writing: nothing is removed.
    ///
    /// # Errors
    /// As [`RecordDirectory::list`].
    pub(crate) fn list_only(&self) -> io::Result<RecordListing> {
        self.list_by(false)
    }

    /// Reads all records, and removes leftovers or not.
    fn list_by(&self, removes_leftovers: bool) -> io::Result<RecordListing> {
        let mut listed = RecordListing { records: Vec::new(), unreadable: Vec::new() };
        for name in self.directory.names()? {
            let Some(name) = name.to_str() else { continue };
            if name.strip_prefix('.').and_then(|name| name.strip_suffix(".json.part")).is_some_and(is_job_id) {
                // If the removal fails, the next write of this record overwrites the file.
                if removes_leftovers {
                    self.directory.remove_file(name).ok();
                }
                continue;
            }
            let Some(id) = name.strip_suffix(".json") else { continue };
            let read = || match is_job_id(id) {
                true => {
                    let bytes = self.directory.read(name, RECORD_BYTES_MAX).map_err(|error| error.to_string())?;
                    without_checksum(&bytes, id)
                }
                false => Err("its name is not that of a job's record".to_string()),
            };
            match read() {
                Ok(record) => listed.records.push(record),
                Err(reason) => listed.unreadable.push((id.to_string(), reason)),
            }
        }
        listed.records.sort_by(|a, b| (&a.accepted, &a.id).cmp(&(&b.accepted, &b.id)));
        Ok(listed)
    }
}
