//! The record of a job, and the directory that keeps the records.

use crate::codec::compression::Compression;
use crate::fhir::instant::Instant;
use crate::group::lookup::MembershipRule;
use crate::group::registry::RegisteredGroup;
use crate::hash::digest::DigestAlgorithm;
use crate::hash::xxh3_64;
use crate::index::store_listing::StoreListing;
use crate::issue::Issue;
use crate::job::state::JobState;
use crate::limits::RECORD_BYTES_MAX;
use crate::request::{Audience, ExportRequest, FileBounds, LateArrivals, MissingLastUpdated, Population, WriterScope};
use crate::sys::directory::Directory;
use crate::sys::durability::FileSync;
use crate::sys::private_files::private_directory;
use crate::write::journal::{Receipt, place_of_json_error};
use crate::write::output_name::OutputName;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in a job's directory that holds the Group it was asked for, when that is not in the store.
pub(crate) const GROUP_FILE: &str = "group.ndjson";
/// Name of the file in a job's directory that holds the id of the one patient it was asked for.
pub(crate) const PATIENT_FILE: &str = "patient";

/// Whose records a job exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum RecordedPopulation {
    /// Everything in the store.
    System,
    /// Every patient.
    AllPatients,
    /// One patient, whose id this is.
    Patient(String),
    /// A Group of the store.
    StoreGroup(String),
    /// A Group that the job's directory holds, as it was at kick-off.
    OwnGroup(String),
}

/// What the writer of the Group asked for might draw on at kick-off, under the configuration in force then; only for a
/// Group whose writer was bound to Groups, or is not recorded (GROUP-03).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RecordedScope {
    /// Whether its writer is known.
    pub known: bool,
    /// Ids of Groups that it may list; all if `None`.
    pub groups: Option<Vec<String>>,
    /// Groups whose members it may list; any patient if `None`.
    pub patients_of: Option<Vec<ScopeGroup>>,
}

/// A Group whose members may be listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ScopeGroup {
    /// A Group of the store, by id.
    #[serde(rename = "store")]
    Store(String),
    /// One that the job's directory holds, as it was at kick-off, by id.
    #[serde(rename = "copied")]
    Copied(String),
}

impl RecordedScope {
    fn to_scope(&self, directory: &Path) -> WriterScope {
        let population = |group: &ScopeGroup| match group {
            ScopeGroup::Store(id) => Population::Group(id.clone()),
            ScopeGroup::Copied(id) => Population::GroupFile(directory.join(scope_file(id))),
        };
        WriterScope {
            known: self.known,
            groups: self.groups.clone(),
            patients_of: self.patients_of.as_ref().map(|groups| groups.iter().map(population).collect()),
        }
    }
}

/// Name of the file in a job's directory that holds a Group of the writer's scope.
pub(crate) fn scope_file(id: &str) -> String {
    format!("scope.{id}.ndjson")
}

/// What a job exports, as normalised at kick-off (PARAM-09).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredRequest {
    /// Whose records.
    pub whose: RecordedPopulation,
    /// `_type`, sorted; empty for all.
    pub types: Vec<String>,
    /// `_since`, every digit.
    pub since: Option<String>,
    /// `_until`, every digit.
    pub until: Option<String>,
    /// How Group members are read.
    pub members: MembershipRule,
    /// What the Group's writer might draw on; the whole store if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RecordedScope>,
    /// Ids of Groups of the store that a Group made through the service, or a deletion, stood for at kick-off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_groups: Vec<String>,
    /// Whether the client may have some Groups, types or one patient only: then it is told of those alone. Of a record that
    /// does not say so it is believed.
    #[serde(default = "is_bound")]
    pub bound_client: bool,
    /// Bases that are ours.
    pub fhir_bases: Vec<String>,
    /// Late rows.
    pub late: LateArrivals,
    /// Undated rows.
    pub missing_last_updated: MissingLastUpdated,
    /// Bounds of a file.
    pub bounds: FileBounds,
    /// Compression of stored files.
    #[serde(rename = "coding")]
    pub compression: Compression,
    /// Digest over each file.
    pub digest: DigestAlgorithm,
    /// What was decided while the request was read.
    pub notes: Vec<Issue>,
}

fn is_bound() -> bool {
    true
}

impl StoredRequest {
    /// The request for the engine; `directory` is the job's.
    pub(crate) fn to_request(&self, directory: &Path) -> ExportRequest {
        let mut request = match &self.whose {
            RecordedPopulation::System => ExportRequest::system(),
            RecordedPopulation::AllPatients => ExportRequest::all_patients(),
            RecordedPopulation::Patient(_) => ExportRequest::patients(directory.join(PATIENT_FILE)),
            RecordedPopulation::StoreGroup(id) => ExportRequest::group(id.clone()),
            RecordedPopulation::OwnGroup(_) => ExportRequest::group_file(directory.join(GROUP_FILE)),
        };
        request = request.types(&self.types);
        if let Some(since) = &self.since {
            request = request.since(since);
        }
        if let Some(until) = &self.until {
            request = request.until(until);
        }
        request.members = self.members;
        request.absent_groups = self.absent_groups.iter().cloned().collect();
        request.writer = self.scope.as_ref().map(|scope| scope.to_scope(directory));
        request.audience = if self.bound_client { Audience::BoundClient } else { Audience::Client };
        request.fhir_bases = self.fhir_bases.clone();
        request.late = self.late;
        request.missing_last_updated = self.missing_last_updated;
        request.bounds = self.bounds;
        request.compression = self.compression;
        request.digest = self.digest;
        request.notes = self.notes.clone();
        request
    }
}

/// A kick-off that has passed every check.
pub(crate) struct KickOff {
    /// The mount that it came to; no other shows the job (DIALECT-01).
    pub mount: String,
    /// Who asked.
    pub client: String,
    /// The kick-off URL, verbatim (MANIFEST-02).
    pub url: String,
    /// What is exported.
    pub request: StoredRequest,
    /// The Group as it is now, for [`RecordedPopulation::OwnGroup`].
    pub group: Option<RegisteredGroup>,
    /// The Groups as they are now for each [`ScopeGroup::Copied`].
    pub scope: Vec<RegisteredGroup>,
    /// What the store held when it was asked.
    pub view: StoreListing,
    /// How long its files are kept once it has ended, in seconds; `None` for ever.
    pub keep_seconds: Option<u64>,
    /// How its files are named to the world.
    pub naming: UrlNaming,
}

/// How the files of a job are named to the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UrlNaming {
    /// 32 hexadecimal digits, random: whoever knows the name was told it (FILE-20).
    #[default]
    Random,
    /// `{Type}_{8 hexadecimal digits}.ndjson`, random and never the same twice on a mount (ONEUP-S17). So few digits can be
    /// guessed: the name alone opens nothing.
    Typed,
}

/// How much a job has to do, known once it is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedCounts {
    /// Resources that it exports (ONEUP-S14).
    pub rows: u64,
    /// Shards.
    pub shards: u64,
    /// Shards that are finished, as far as a record tells: all, or those that stand when a job has failed.
    pub complete: u64,
}

/// Which list of the manifest a file stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(crate) enum RecordKind {
    Output,
    Deleted,
    Error,
}

impl RecordKind {
    /// The list that a file of this name stands in.
    pub(crate) fn of(name: &OutputName) -> RecordKind {
        match name.folder {
            "deleted/" => RecordKind::Deleted,
            "error/" => RecordKind::Error,
            _ => RecordKind::Output,
        }
    }
}

/// A file of a finished job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// What the world knows it by, see [`UrlNaming`].
    pub id: String,
    /// Its list in the manifest.
    pub kind: RecordKind,
    /// Name in the output directory, type, rows, bytes, digest.
    pub receipt: Receipt,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobFailure {
    /// For the client: no path of the host, nothing of the data.
    pub reason: String,
    /// For the operator.
    pub detail: String,
}

/// Everything that is known of a job. Instants are written as FHIR instants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobRecord {
    /// Version of this format.
    pub format: u32,
    /// 32 hexadecimal digits, random (KICK-14).
    pub id: String,
    /// The mount.
    pub mount: String,
    /// Who asked.
    pub client: String,
    /// The kick-off URL, verbatim.
    pub url: String,
    /// What is exported.
    pub request: StoredRequest,
    /// T.
    pub transaction_time: String,
    /// What the store held at kick-off; none once the job is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<StoreListing>,
    /// Its state.
    pub state: JobState,
    /// When it was accepted.
    pub accepted: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How long its files are kept once it has ended, in seconds; `None` for ever.
    pub keep_seconds: Option<u64>,
    /// When its files go, or, once they have gone, when it is forgotten; `None` for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<JobFailure>,
    /// How its files are named.
    #[serde(default)]
    pub naming: UrlNaming,
    /// How much it has to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<PlannedCounts>,
    /// Its files, in the manifest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRecord>,
    /// Root extensions of the manifest.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extension: serde_json::Map<String, serde_json::Value>,
}

/// Version of the format of records.
pub(crate) const FORMAT: u32 = 1;

impl JobRecord {
    /// Changes the state.
    ///
    /// # Panics
    /// When there is no such transition: that is a mistake of the program's.
    pub(crate) fn move_to(&mut self, next: JobState) {
        assert!(self.state.may_become(next), "job {}: {:?} cannot become {next:?}", self.id, self.state);
        self.state = next;
    }

    /// When its files go, or it is forgotten.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.expires.as_deref().and_then(Instant::parse)
    }
}

/// The directory of records.
pub(crate) struct RecordDirectory {
    directory: Directory,
    sync: FileSync,
}

/// What lies in the directory of records.
pub(crate) struct RecordListing {
    /// Records that can be read.
    pub records: Vec<JobRecord>,
    /// Names of records that cannot, without their ending, and why; their jobs' files are left alone.
    pub unreadable: Vec<(String, String)>,
}

/// What stands before the checksum at the end of a record.
const SUM: &str = r#","sum":""#;

/// The bytes of a record: its JSON, with a hash of all bytes before it as the last member.
fn with_checksum(record: &JobRecord) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(record).expect("a record is plain data");
    bytes.pop();
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(format!("{SUM}{sum:016x}\"}}").as_bytes());
    bytes
}

/// Whether bytes are as they were sealed. Records of earlier versions are not sealed, and pass.
fn is_intact(bytes: &[u8]) -> bool {
    let Some(start) = bytes.len().checked_sub(SUM.len() + 16 + 2) else { return true };
    let (body, seal) = bytes.split_at(start);
    let Some(digits) = seal.strip_prefix(SUM.as_bytes()).and_then(|rest| rest.strip_suffix(b"\"}")) else {
        return true;
    };
    digits == format!("{:016x}", xxh3_64(body)).as_bytes()
}

/// Reads the record of the job with this id.
fn without_checksum(bytes: &[u8], id: &str) -> Result<JobRecord, String> {
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
    /// Opens the directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open(directory: &Path, sync: FileSync) -> io::Result<RecordDirectory> {
        private_directory(directory)?;
        Ok(RecordDirectory { directory: Directory::open(directory)?, sync })
    }

    /// The directory, open.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Writes a record: when this returns, it outlives a loss of power.
    ///
    /// # Errors
    /// When it cannot be written; the one before then still stands.
    pub(crate) fn write(&self, record: &JobRecord) -> io::Result<()> {
        self.directory.replace(&format!("{}.json", record.id), &with_checksum(record), self.sync == FileSync::Yes)
    }

    /// Forgets a record, for good.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        self.directory.remove_file(&format!("{id}.json"))?;
        match self.sync {
            FileSync::Yes => self.directory.sync(),
            FileSync::No => Ok(()),
        }
    }

    /// Reads all records; what an interrupted write left is removed.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn list(&self) -> io::Result<RecordListing> {
        let mut listed = RecordListing { records: Vec::new(), unreadable: Vec::new() };
        for name in self.directory.names()? {
            let Some(name) = name.to_str() else { continue };
            if name.strip_prefix('.').and_then(|name| name.strip_suffix(".json.part")).is_some_and(is_job_id) {
                // What cannot be removed is written over.
                self.directory.remove_file(name).ok();
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

/// Whether a text is the id of a job: 32 hexadecimal digits as the engine makes them (KICK-14). It is used as the name of a
/// directory and of a file.
pub(crate) fn is_job_id(text: &str) -> bool {
    is_hex(text, 32)
}

pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
