//! The record of a job. How it lies on disk is in `record_directory`; what it must fulfil beyond its form is checked in
//! `record_check`; the jobs in memory are in `registry`.

use crate::associated_data::AssociatedData;
use crate::codec::compression::Compression;
use crate::fhir::attachment_url::AttachmentUrls;
use crate::fhir::instant::Instant;
use crate::group::lookup::MembershipRule;
use crate::group::member_filter::FilteredGroups;
use crate::group::registry::RegisteredGroup;
use crate::hash::digest::{Digest, DigestAlgorithm};
use crate::index::store_listing::StoreListing;
use crate::issue::Issue;
use crate::job::state::JobState;
use crate::patient_restriction::PatientList;
use crate::policies::{
    Audience, Context, FileBounds, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished,
};
use crate::request::{ExportRequest, Population, WriterScope};
use crate::write::journal::Receipt;
use crate::write::output_name::OutputName;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the export's output directory within a job's directory.
pub(crate) const OUT: &str = "out";
/// Name of the file in a job's directory that holds the exported Group, if that is not in the store.
pub(crate) const GROUP_FILE: &str = "group.ndjson";
/// Name of the file in a job's directory that holds the id of the one exported patient.
pub(crate) const PATIENT_FILE: &str = "patient";
/// Name of the file in a job's directory that lists the patients to whom an export is restricted, one id a line.
pub(crate) const ONLY_PATIENTS_FILE: &str = "patients";

/// Population whose records a job exports, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum RecordedPopulation {
    /// Every resource of the store.
    System,
    /// The compartments of all patients.
    AllPatients,
    /// One patient, by id.
    Patient(String),
    /// A Group of the store, by id.
    StoreGroup(String),
    /// A Group registered by HTTP, by id; the job's directory holds a copy made at kick-off.
    OwnGroup(String),
}

/// Groups and patients that the writer of the exported Group had access to at kick-off, by the configuration then; only
/// for a Group whose writer was bound to Groups, or is not recorded (GROUP-03).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RecordedScope {
    /// Whether the writer of the Group is recorded.
    pub known: bool,
    /// Ids of the Groups that the Group may have as members; any if `None`.
    pub groups: Option<Vec<String>>,
    /// Groups whose members the Group may have as members; any patient if `None`.
    pub patients_of: Option<Vec<ScopeGroup>>,
}

/// A Group of a [`RecordedScope`] whose members may be members of the exported Group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ScopeGroup {
    /// A Group of the store, by id.
    #[serde(rename = "store")]
    Store(String),
    /// A Group registered by HTTP, by id; the job's directory holds a copy made at kick-off.
    #[serde(rename = "copied")]
    Copied(String),
}

impl RecordedScope {
    /// The scope for an export request; `copied` says where the copy of a Group is, by its id.
    pub(crate) fn to_scope(&self, copied: &dyn Fn(&str) -> Population) -> WriterScope {
        let population = |group: &ScopeGroup| match group {
            ScopeGroup::Store(id) => Population::Group(id.clone()),
            ScopeGroup::Copied(id) => copied(id),
        };
        WriterScope {
            known: self.known,
            groups: self.groups.clone(),
            patients_of: self.patients_of.as_ref().map(|groups| groups.iter().map(population).collect()),
        }
    }
}

/// Name of the file in a job's directory that holds the copy of the Group with this id, of the writer's scope.
pub(crate) fn scope_file(id: &str) -> String {
    format!("scope.{id}.ndjson")
}

/// The request of a job, as normalised at kick-off (PARAM-09).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredRequest {
    /// Population whose records are exported.
    #[serde(rename = "whose")]
    pub population: RecordedPopulation,
    /// Number of patients to whom the population is restricted, whose ids a file of the job's directory holds; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_patients: Option<u64>,
    /// `_type`, sorted; empty for all.
    pub types: Vec<String>,
    /// `_since` with every digit given; `None` for no lower bound.
    pub since: Option<String>,
    /// `_until` with every digit given; `None` for no upper bound.
    pub until: Option<String>,
    /// `includeAssociatedData`, as its code; `None` if nothing was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub associated: Option<String>,
    /// `_elements`, its items sorted; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<String>,
    /// `_typeFilter`, as given; none where a record does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub type_filters: Vec<String>,
    /// Resources that come with those that refer to them; none where a record does not say.
    #[serde(default, skip_serializing_if = "Context::is_default")]
    pub context: Context,
    /// Which entries of a Group count as members.
    pub members: MembershipRule,
    /// Scope of the Group's writer; the whole store if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RecordedScope>,
    /// What becomes of a Group that has filters of its members.
    #[serde(default, skip_serializing_if = "FilteredGroups::is_default")]
    pub filtered_groups: FilteredGroups,
    /// Types that the filters of the Group search, sorted; none without filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_filter_types: Vec<String>,
    /// Ids of Groups of the store that were hidden at kick-off, by a Group registered by HTTP under the same id or by a
    /// deletion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_groups: Vec<String>,
    /// Whether the client is limited to some Groups or types, or one patient: then issues name nothing else. Taken as
    /// `true` where a record does not say.
    #[serde(default = "is_bound")]
    pub bound_client: bool,
    /// Base URLs of this server, for references that are absolute.
    pub fhir_bases: Vec<String>,
    /// Handling of rows that arrived late for `_since`.
    pub late: LateArrivals,
    /// Handling of rows without `meta.lastUpdated`.
    pub missing_last_updated: MissingLastUpdated,
    /// Handling of resources that are gone from replaced files.
    #[serde(default, skip_serializing_if = "Vanished::is_default")]
    pub vanished: Vanished,
    /// Which rows belong to the patients to whom it is restricted.
    #[serde(default, skip_serializing_if = "PatientStrict::is_default")]
    pub patient_strict: PatientStrict,
    /// Bounds on bytes and resources of an output file.
    pub bounds: FileBounds,
    /// Compression of the output files.
    #[serde(rename = "coding")]
    pub compression: Compression,
    /// Digest over each output file.
    pub digest: DigestAlgorithm,
    /// What relative URLs of attachments become; they stay as they are where a record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<AttachmentUrls>,
    /// What happens for patients who joined the Group after `_since`; nothing where a record does not say.
    #[serde(default = "ignores_new_members")]
    pub new_members: NewMembers,
    /// The export that this one is an increment on, if its patients were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<RecordedBaseline>,
    /// Hash of what increments on this export must ask for as well; `None` if there will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Issues raised while the kick-off was read, such as ignored parameters.
    pub notes: Vec<Issue>,
}

/// The export that an increment builds on; a file of the job's directory holds the keys of its patients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecordedBaseline {
    /// Name of its plan.
    pub plan_id: String,
    /// Digest of the keys of its patients.
    pub cohort: String,
}

/// Default of [`StoredRequest::new_members`] for records that lack it: they were written before there was a choice.
fn ignores_new_members() -> NewMembers {
    NewMembers::Ignore
}

/// Default of [`StoredRequest::bound_client`] for records that lack it: the safe reading.
fn is_bound() -> bool {
    true
}

impl StoredRequest {
    /// The form of a request on disk. Its population and the scope of the Group's writer are recorded as they are found again:
    /// what was in memory is copied to the job's directory.
    pub(crate) fn of(
        request: &ExportRequest,
        population: RecordedPopulation,
        scope: Option<RecordedScope>,
    ) -> StoredRequest {
        let only_patients = request.only_patients.as_ref().map(|patients| match patients {
            PatientList::Ids(ids) => ids.len() as u64,
            PatientList::File(_) => 0,
        });
        StoredRequest {
            population,
            only_patients,
            types: request.types.iter().map(|resource_type| resource_type.name().to_string()).collect(),
            elements: request.elements.items().map(str::to_string).collect(),
            type_filters: request.type_filters.iter().map(|filter| filter.text().to_string()).collect(),
            since: request.since.as_ref().map(Instant::to_string),
            until: request.until.as_ref().map(Instant::to_string),
            associated: request.associated.map(|associated| associated.name().to_string()),
            context: request.context,
            members: request.members,
            scope,
            filtered_groups: request.filtered_groups,
            member_filter_types: Vec::new(),
            absent_groups: request.absent_groups.iter().cloned().collect(),
            bound_client: request.audience == Audience::BoundClient,
            fhir_bases: request.fhir_bases.clone(),
            late: request.late,
            missing_last_updated: request.missing_last_updated,
            vanished: request.vanished,
            patient_strict: request.patient_strict,
            bounds: request.bounds,
            compression: request.compression,
            digest: request.digest,
            attachments: request.attachments.clone(),
            new_members: request.new_members,
            baseline: None,
            question: None,
            notes: request.notes.clone(),
        }
    }

    /// The export request; `directory` is the job's, which holds the files of its Group or patient.
    pub(crate) fn to_request(&self, directory: &Path) -> ExportRequest {
        let mut request = match &self.population {
            RecordedPopulation::System => ExportRequest::system(),
            RecordedPopulation::AllPatients => ExportRequest::all_patients(),
            RecordedPopulation::Patient(_) => ExportRequest::patients(directory.join(PATIENT_FILE)),
            RecordedPopulation::StoreGroup(id) => ExportRequest::group(id.clone()),
            RecordedPopulation::OwnGroup(_) => ExportRequest::group_file(directory.join(GROUP_FILE)),
        };
        if self.only_patients.is_some() {
            request.only_patients = Some(PatientList::File(directory.join(ONLY_PATIENTS_FILE)));
        }
        request = request.types(&self.types);
        if let Some(since) = &self.since {
            request = request.since(since);
        }
        if let Some(until) = &self.until {
            request = request.until(until);
        }
        request.associated = self.associated.as_deref().and_then(AssociatedData::parse);
        request = request.elements(&self.elements).type_filters(&self.type_filters);
        request.context = self.context;
        request.members = self.members;
        request.absent_groups = self.absent_groups.iter().cloned().collect();
        request.filtered_groups = self.filtered_groups;
        let copied = |id: &str| Population::GroupFile(directory.join(scope_file(id)));
        request.writer = self.scope.as_ref().map(|scope| scope.to_scope(&copied));
        request.audience = if self.bound_client { Audience::BoundClient } else { Audience::Client };
        request.fhir_bases = self.fhir_bases.clone();
        request.late = self.late;
        request.missing_last_updated = self.missing_last_updated;
        request.vanished = self.vanished;
        request.patient_strict = self.patient_strict;
        request.bounds = self.bounds;
        request.compression = self.compression;
        request.digest = self.digest;
        request.attachments = self.attachments.clone();
        request.new_members = self.new_members;
        request.notes = self.notes.clone();
        request
    }
}

/// A kick-off that has passed every check.
pub(crate) struct KickOff {
    /// Mount of the kick-off; no other mount shows the job (DIALECT-01).
    pub mount: String,
    /// Client that kicked the job off, and alone sees it.
    pub client: String,
    /// The kick-off URL, verbatim (MANIFEST-02).
    pub url: String,
    /// The request as normalised at kick-off.
    pub request: StoredRequest,
    /// The Group to copy into the job's directory; only for [`RecordedPopulation::OwnGroup`].
    pub group: Option<RegisteredGroup>,
    /// Ids of the patients to whom the export is restricted, if it is; they become a file of the job's directory.
    pub only_patients: Option<Vec<String>>,
    /// Whether polls are answered with their own status, and that of the job in a header (HDR-10).
    pub separate_status: bool,
    /// The Groups to copy into the job's directory, one for each [`ScopeGroup::Copied`].
    pub scope: Vec<RegisteredGroup>,
    /// Files of the store and their sizes at kick-off; nothing beyond them is exported.
    pub view: StoreListing,
    /// How long the files are kept after the end of the job, in seconds; `None` for ever.
    pub keep_seconds: Option<u64>,
    /// How the files are named in URLs.
    pub naming: UrlNaming,
}

/// What stands in place of a type in the name of the list of who left, see [`UrlNaming::Typed`].
pub(crate) const DEPARTED_TYPE: &str = "Departed";

/// How the files of a job are named in URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UrlNaming {
    /// 32 random hexadecimal digits, which cannot be guessed (FILE-20).
    #[default]
    Random,
    /// `{Type}_{8 random hexadecimal digits}.ndjson`, unique on a mount (ONEUP-S17). So few digits can be guessed:
    /// access to the file must not rest on its name.
    Typed,
}

/// Size of a job's plan, and how much of it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedCounts {
    /// Resources that it exports (ONEUP-S14).
    pub rows: u64,
    /// Shards of the plan.
    pub shards: u64,
    /// Shards that are written. Recorded at the end of a job: all, or those that a failed job had finished.
    pub complete: u64,
}

/// List of the manifest that a file is in: `output`, `deleted` or `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(crate) enum RecordKind {
    Output,
    Deleted,
    Error,
}

impl RecordKind {
    /// The list of the manifest that the record of a job names for a file, by the folder of its name.
    pub(crate) fn of(name: &OutputName) -> RecordKind {
        match name.folder {
            "deleted/" => RecordKind::Deleted,
            "error/" => RecordKind::Error,
            _ => RecordKind::Output,
        }
    }
}

/// A file of a complete job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Name in URLs, see [`UrlNaming`].
    pub id: String,
    /// List of the manifest that the file is in.
    pub kind: RecordKind,
    /// Name in the output directory, resource type, rows, bytes, digest.
    pub receipt: Receipt,
}

/// The list of members who left, `departed.json-lines`, of a complete job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DepartedRecord {
    /// Name in URLs, see [`UrlNaming`].
    pub id: String,
    /// Length of the file.
    pub bytes: u64,
    /// Digest of the file.
    pub digest: Option<Digest>,
}

/// Reason of a failed job, for its two readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobFailure {
    /// For the client: no path of the host, nothing of the data.
    pub reason: String,
    /// For the operator: the error in full.
    pub detail: String,
}

/// A job as it is kept on disk. Instants are written as FHIR instants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobRecord {
    /// Version of the format of records, [`FORMAT`].
    pub format: u32,
    /// 32 hexadecimal digits, random (KICK-14).
    pub id: String,
    /// Mount of the kick-off.
    pub mount: String,
    /// Client that kicked the job off.
    pub client: String,
    /// The kick-off URL, verbatim (MANIFEST-02).
    pub url: String,
    /// The request as normalised at kick-off.
    pub request: StoredRequest,
    /// The transactionTime T of the export.
    pub transaction_time: String,
    /// Files of the store and their sizes at kick-off; `None` once the job is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<StoreListing>,
    /// State of the job.
    pub state: JobState,
    /// Time of the kick-off.
    pub accepted: String,
    /// Time of the end; `None` while the job is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How long the files are kept after the end of the job, in seconds; `None` for ever.
    pub keep_seconds: Option<u64>,
    /// When the job expires, or, once it has expired, when its record is removed; `None` for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Whether the files that a failed job had written were removed to make room; another try writes all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_removed: bool,
    /// Reason of a failed job; `None` for all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<JobFailure>,
    /// How the files are named in URLs.
    #[serde(default)]
    pub naming: UrlNaming,
    /// Whether polls are answered with their own status, and that of the job in a header (HDR-10).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub separate_status: bool,
    /// Size of the plan; `None` before the job is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<PlannedCounts>,
    /// Files of a complete job, in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRecord>,
    /// The list of members who left since the export that this one builds on; it is in no list of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departed: Option<DepartedRecord>,
    /// Root extensions of the manifest.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extension: serde_json::Map<String, serde_json::Value>,
}

/// Version of the format of records.
pub(crate) const FORMAT: u32 = 1;

impl JobRecord {
    /// Changes the state to `next`.
    ///
    /// # Panics
    /// If there is no such transition, which is a bug of the caller.
    pub(crate) fn move_to(&mut self, next: JobState) {
        assert!(self.state.may_become(next), "job {}: {:?} cannot become {next:?}", self.id, self.state);
        self.state = next;
    }

    /// Names in URLs of the files of the manifest, in its order, and of the list of who left, if there is one.
    pub(crate) fn file_ids(&self) -> impl Iterator<Item = &str> {
        let listed = self.files.iter().map(|file| file.id.as_str());
        listed.chain(self.departed.as_ref().map(|departed| departed.id.as_str()))
    }

    /// Name of the client for the log: of a user's job that of its client, since no patient's id may be logged.
    pub(crate) fn client_name(&self) -> &str {
        self.client.split('/').next().unwrap_or_default()
    }

    /// When the job expires or its record is removed; `None` for never.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.expires.as_deref().and_then(Instant::parse)
    }
}

/// Whether a text is the id of a job: 32 lower-case hexadecimal digits as the engine makes them (KICK-14), and so safe
/// as the name of the job's directory and of its record on disk.
pub(crate) fn is_job_id(text: &str) -> bool {
    is_hex(text, 32)
}

/// Whether an id, or a part of one, in the record of a job is so many lower-case hexadecimal digits, and nothing else.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
