//! A job as its operator sees it, whoever's it is: of a running service, or of the records of one that is stopped. No value of a
//! filter and no id of a patient is in it.

use serde::{Deserialize, Serialize};

use crate::job::record::{JobRecord, PlannedCounts, RecordKind, RecordedPopulation};
use crate::job::state::JobState;

/// A job as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobOverview {
    /// Id of the job, as in the URL of its status.
    pub id: String,
    /// State of the job.
    pub state: JobState,
    /// Mount of the kick-off.
    pub mount: String,
    /// Name of the client; empty without authentication.
    pub client: String,
    /// Whose records are exported: `system`, `allPatients`, `patient` or `group`.
    pub population: String,
    /// Id of the Group, if it is one's members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Number of patients to whom the export is restricted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patients: Option<u64>,
    /// Exported types; empty for all.
    pub types: Vec<String>,
    /// Number of filters (`_typeFilter`).
    pub type_filters: u64,
    /// `_since`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// `_until`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The transactionTime T.
    pub transaction_time: String,
    /// Time of the kick-off.
    pub accepted: String,
    /// Time of the end; none while the job is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// When the job expires, or, once it has expired, is forgotten; none for never, and while it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Share of the work that is done, in hundredths. Of the records of a service that is stopped, only 0 and 100 are known.
    pub percent: u8,
    /// Whether the job is planned and waits for room on the disk.
    pub awaits_space: bool,
    /// Resources and shards of the plan, and how many shards are complete; none before the job is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<PlannedCounts>,
    /// Why the job failed, as its client is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Files of a complete job, in the order of the manifest.
    pub files: Vec<FileOverview>,
    /// Number of messages, which are the lines of the `error` files.
    pub messages: u64,
}

/// A file of a complete job, as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileOverview {
    /// List of the manifest that it is in.
    pub kind: RecordKind,
    /// Resource type of its lines.
    pub r#type: String,
    /// Name in the job's output directory.
    pub name: String,
    /// Number of its lines.
    pub count: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

impl JobOverview {
    /// The overview of a job by its record alone.
    pub(crate) fn of_record(record: &JobRecord) -> JobOverview {
        let request = &record.request;
        let (population, group) = match &request.population {
            RecordedPopulation::System => ("system", None),
            RecordedPopulation::AllPatients => ("allPatients", None),
            RecordedPopulation::Patient(_) => ("patient", None),
            RecordedPopulation::StoreGroup(id) | RecordedPopulation::OwnGroup(id) => ("group", Some(id.clone())),
        };
        let files: Vec<FileOverview> = record
            .files
            .iter()
            .map(|file| FileOverview {
                kind: file.kind,
                r#type: file.receipt.r#type.clone(),
                name: file.receipt.file.clone(),
                count: file.receipt.count,
                bytes: file.receipt.file_bytes,
            })
            .collect();
        JobOverview {
            id: record.id.clone(),
            state: record.state,
            mount: record.mount.clone(),
            client: record.client_name().to_string(),
            population: population.to_string(),
            group,
            patients: request.only_patients,
            types: request.types.clone(),
            type_filters: request.type_filters.len() as u64,
            since: request.since.clone(),
            until: request.until.clone(),
            transaction_time: record.transaction_time.clone(),
            accepted: record.accepted.clone(),
            ended: record.ended.clone(),
            expires: record.expires.clone(),
            percent: if record.state.is_active() { 0 } else { 100 },
            awaits_space: false,
            planned: record.planned,
            failure: record.failure.as_ref().map(|failure| failure.reason.clone()),
            messages: files.iter().filter(|file| file.kind == RecordKind::Error).map(|file| file.count).sum(),
            files,
        }
    }
}
