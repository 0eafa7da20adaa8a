//! `status.json`: state of a job during and after its run, with the fields of 1upHealth's status document
//! (ONEUP-S12…S17). Every update replaces the whole file, so that any process can poll it.

use std::io;
use std::sync::Arc;

use serde::Serialize;

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::named_enum::by_name;
use crate::sys::directory::Directory;
use crate::write::journal::STATUS;
use crate::write::manifest::Manifest;

/// State of a job (ONEUP-S13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Status {
    InProgress,
    Successful,
    Failed,
    Cancelled,
}

impl Status {
    /// All states, for reading a name back.
    pub(crate) const ALL: [Status; 4] = [Status::InProgress, Status::Successful, Status::Failed, Status::Cancelled];

    /// Value of `status` in the document (ONEUP-S13).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Status::InProgress => "In Progress",
            Status::Successful => "Successful",
            Status::Failed => "Failed",
            Status::Cancelled => "Cancelled",
        }
    }
}

by_name!(Status);

/// Counts of shards by state; a shard is a batch in 1upHealth's words.
#[derive(Serialize)]
struct Batches {
    running: u64,
    complete: u64,
    failed: u64,
    total: u64,
}

/// Type and url of one output file, as the manifest lists it.
#[derive(Serialize)]
struct StatusOutput<'a> {
    r#type: &'a str,
    url: &'a str,
}

/// Fields of the status document, as keys of its JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDocument<'a> {
    id: &'a str,
    transaction_time: String,
    request: &'a str,
    requires_access_token: bool,
    status: Status,
    resource_count: u64,
    batches: Batches,
    last_updated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Vec<StatusOutput<'a>>>,
}

/// The status document of one job, and the directory that it is written to.
pub(crate) struct StatusFile {
    directory: Arc<Directory>,
    id: String,
    as_of: Instant,
    request: String,
    resources: u64,
    total: u64,
    complete: u64,
    status: Status,
    written: Option<Instant>,
}

impl StatusFile {
    /// Status of a job in progress with `total` shards and `resources` rows; nothing is written yet.
    pub(crate) fn new(
        directory: Arc<Directory>,
        id: &str,
        as_of: Instant,
        request: String,
        resources: u64,
        total: u64,
    ) -> StatusFile {
        StatusFile {
            directory,
            id: id.to_string(),
            as_of,
            request,
            resources,
            total,
            complete: 0,
            status: Status::InProgress,
            written: None,
        }
    }

    /// Sets the directory of later writes. The caller has moved the existing file there.
    pub(crate) fn move_to(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
    }

    /// Sets the number of finished shards, at most the total.
    pub(crate) fn complete(&mut self, shards: u64) {
        self.complete = shards.min(self.total);
    }

    /// Ends the job as failed or cancelled.
    pub(crate) fn end(&mut self, status: Status) {
        self.status = status;
    }

    /// Ends the job as successful and writes the document a last time; it then lists the manifest's output.
    ///
    /// # Errors
    /// The file cannot be written; the job does not depend on it.
    pub(crate) fn succeed(&mut self, manifest: &Manifest, now: Instant) -> io::Result<()> {
        self.status = Status::Successful;
        self.complete = self.total;
        self.replace(self.not_before(now), Some(manifest))
    }

    /// Replaces the file if at least a second has passed since the last write, or if the job has ended.
    ///
    /// # Errors
    /// The file cannot be written; the job does not depend on it.
    pub(crate) fn write(&mut self, now: Instant) -> io::Result<()> {
        let now = self.not_before(now);
        let recent = self.written.as_ref().is_some_and(|last| now.ticks - last.ticks < TICKS_PER_SECOND);
        if recent && self.status == Status::InProgress {
            return Ok(());
        }
        self.replace(now, None)
    }

    /// The time, or the last one that the document stated: the clock may step back, the document's times must not
    /// (ONEUP-S16).
    fn not_before(&self, now: Instant) -> Instant {
        [&now, &self.as_of].into_iter().chain(self.written.as_ref()).max().expect("not empty").clone()
    }

    /// Replaces the file; `manifest` is that of a job that succeeded.
    fn replace(&mut self, now: Instant, manifest: Option<&Manifest>) -> io::Result<()> {
        let unfinished = self.total - self.complete;
        let ended = matches!(self.status, Status::Failed | Status::Cancelled);
        let output = manifest.map(|manifest| {
            manifest.output.iter().map(|item| StatusOutput { r#type: &item.r#type, url: &item.url }).collect()
        });
        let document = StatusDocument {
            id: &self.id,
            transaction_time: self.as_of.to_string(),
            request: &self.request,
            requires_access_token: false,
            status: self.status,
            resource_count: self.resources,
            batches: Batches {
                running: if ended { 0 } else { unfinished },
                complete: self.complete,
                failed: if ended { unfinished } else { 0 },
                total: self.total,
            },
            last_updated: now.to_string(),
            output,
        };
        let written = self.directory.replace_with(STATUS, false, &mut |mut out| {
            serde_json::to_writer_pretty(&mut out, &document)?;
            out.write_all(b"\n")
        });
        self.written = Some(now);
        written
    }
}
