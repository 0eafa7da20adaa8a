//! `status.json`: state of a job during and after its run, with the fields of 1upHealth's status document
//! (ONEUP-S12…S17) and some of ours. Every update replaces the whole file, so that any process can poll it.
//!
//! A run may announce itself before its plan stands, while the store is indexed: then the document lacks what only the plan
//! says. If the request turns out to be refused, what stood there before comes back.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::limits::RECORD_BYTES_MAX;
use crate::named_enum::by_name;
use crate::progress::{Phase, PhaseProgress};
use crate::sys::directory::Directory;
use crate::write::journal::STATUS;
use crate::write::manifest::Manifest;

/// State of a job (ONEUP-S13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Status {
    #[default]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_time: Option<String>,
    request: &'a str,
    requires_access_token: bool,
    status: Status,
    resource_count: u64,
    batches: Batches,
    last_updated: String,
    /// The process that writes the document.
    pid: u32,
    /// When it was last written, by the clock as it was then.
    heartbeat: String,
    /// The step under way, or in which the run failed; none once it has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    /// Hundredths of the step that are done, where it has figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    /// Why the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Vec<StatusOutput<'a>>>,
}

/// What of a job is known once its plan stands.
pub(crate) struct PlannedStatus {
    /// Name of the plan.
    pub id: String,
    /// The transactionTime.
    pub as_of: Instant,
    /// The request as a URL.
    pub request: String,
    /// Rows to write.
    pub resources: u64,
    /// Shards to write.
    pub shards: u64,
}

/// The status document of one job, and the directory that it is written to.
#[derive(Default)]
pub(crate) struct StatusFile {
    /// Whether the run announces itself before its plan stands.
    announces: bool,
    /// Where the document is written; nowhere yet if `None`.
    directory: Option<Arc<Directory>>,
    /// What stood in its place before the run announced itself; `None` outside that time.
    replaced: Option<Option<Vec<u8>>>,
    /// Mode of the file; 0600 if `None`.
    mode: Option<u32>,
    id: Option<String>,
    as_of: Option<Instant>,
    request: String,
    resources: u64,
    total: u64,
    complete: u64,
    status: Status,
    phase: PhaseProgress,
    reason: Option<String>,
    written: Option<Instant>,
    /// The phase that was last written.
    told: Option<Phase>,
}

impl StatusFile {
    /// The status of a run that announces itself before its plan stands; nothing is written yet.
    pub(crate) fn announcing() -> StatusFile {
        StatusFile { announces: true, ..StatusFile::default() }
    }

    /// Whether the run announces itself before its plan stands.
    pub(crate) fn announces(&self) -> bool {
        self.announces
    }

    /// Writes the document of a run that has no plan yet. `as_of` is the transactionTime, if it is known. Where something
    /// stands that cannot be read, nothing is written.
    pub(crate) fn announce(
        &mut self,
        directory: Arc<Directory>,
        request: String,
        as_of: Option<Instant>,
        now: Instant,
    ) {
        let replaced = match directory.read(STATUS, RECORD_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return,
        };
        let (announces, mode) = (self.announces, self.mode);
        *self = StatusFile {
            announces,
            mode,
            directory: Some(directory),
            replaced: Some(replaced),
            as_of,
            request,
            ..StatusFile::default()
        };
        self.replace(self.not_before(now.clone()), now, None).ok();
    }

    /// Puts back what stood in the place of the document before the run announced itself: its request was refused.
    pub(crate) fn withdraw(&mut self) {
        let Some(replaced) = self.replaced.take() else { return };
        let Some(directory) = self.directory.take() else { return };
        match replaced {
            Some(bytes) => directory.replace(STATUS, &bytes, false).ok(),
            None => directory.remove_file(STATUS).ok().map(drop),
        };
    }

    /// Takes what the plan says; the document is written to a directory from now on.
    pub(crate) fn plan(&mut self, directory: Arc<Directory>, planned: PlannedStatus) {
        (self.directory, self.replaced, self.complete) = (Some(directory), None, 0);
        (self.status, self.reason) = (Status::InProgress, None);
        (self.id, self.as_of, self.request) = (Some(planned.id), Some(planned.as_of), planned.request);
        (self.resources, self.total) = (planned.resources, planned.shards);
        self.written = None;
    }

    /// Sets the mode of the file.
    pub(crate) fn set_mode(&mut self, mode: Option<u32>) {
        self.mode = mode;
    }

    /// Sets the directory of later writes. The caller has moved the existing file there.
    pub(crate) fn move_to(&mut self, directory: Arc<Directory>) {
        self.directory = Some(directory);
    }

    /// Sets the number of finished shards, at most the total.
    pub(crate) fn complete(&mut self, shards: u64) {
        self.complete = shards.min(self.total);
    }

    /// Ends the job as failed or cancelled, and writes the document a last time. `reason` is a sentence without clinical
    /// content.
    pub(crate) fn end(&mut self, status: Status, reason: String, now: Instant) {
        (self.status, self.reason, self.replaced) = (status, Some(reason), None);
        self.replace(self.not_before(now.clone()), now, None).ok();
    }

    /// Ends the job as successful and writes the document a last time; it then lists the manifest's output.
    ///
    /// # Errors
    /// The file cannot be written; the job does not depend on it.
    pub(crate) fn succeed(&mut self, manifest: &Manifest, now: Instant) -> io::Result<()> {
        self.status = Status::Successful;
        self.complete = self.total;
        self.replace(self.not_before(now.clone()), now, Some(manifest))
    }

    /// Takes note of the step under way, and replaces the file if it is another one, or if at least a second has passed since
    /// the last write. A job that has ended is left as it is.
    ///
    /// # Errors
    /// The file cannot be written; the job does not depend on it.
    pub(crate) fn look(&mut self, phase: PhaseProgress, now: Instant) -> io::Result<()> {
        if self.status != Status::InProgress {
            return Ok(());
        }
        self.phase = phase;
        let stated = self.not_before(now.clone());
        let recent = self.written.as_ref().is_some_and(|last| stated.ticks - last.ticks < TICKS_PER_SECOND);
        if recent && self.told == Some(phase.phase) {
            return Ok(());
        }
        self.replace(stated, now, None)
    }

    /// The time, or the last one that the document stated: the clock may step back, the document's times must not
    /// (ONEUP-S16).
    fn not_before(&self, now: Instant) -> Instant {
        [Some(&now), self.as_of.as_ref(), self.written.as_ref()].into_iter().flatten().max().expect("not empty").clone()
    }

    /// Replaces the file; `manifest` is that of a job that succeeded.
    fn replace(&mut self, stated: Instant, now: Instant, manifest: Option<&Manifest>) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let unfinished = self.total - self.complete;
        let ended = matches!(self.status, Status::Failed | Status::Cancelled);
        let output = manifest.map(|manifest| {
            manifest.output.iter().map(|item| StatusOutput { r#type: &item.r#type, url: &item.url }).collect()
        });
        let has_phase = self.status != Status::Successful;
        let document = StatusDocument {
            id: self.id.as_deref(),
            transaction_time: self.as_of.as_ref().map(Instant::to_string),
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
            last_updated: stated.to_string(),
            pid: std::process::id(),
            heartbeat: now.to_string(),
            phase: has_phase.then(|| self.phase.phase.name()),
            percent: self.phase.percent().filter(|_| has_phase),
            reason: self.reason.as_deref(),
            output,
        };
        let written = directory.replace_with_mode(STATUS, false, self.mode, &mut |mut out| {
            serde_json::to_writer_pretty(&mut out, &document)?;
            out.write_all(b"\n")
        });
        (self.written, self.told) = (Some(stated), Some(self.phase.phase));
        written
    }
}

/// The fields of a status document by which one of a run that ended before its plan stood is known.
#[derive(Deserialize)]
struct StatusKeys {
    id: Option<serde_json::Value>,
    pid: u32,
    phase: Phase,
    heartbeat: String,
    batches: TotalBatches,
}

/// See [`StatusKeys`].
#[derive(Deserialize)]
struct TotalBatches {
    total: u64,
}

/// Whether bytes are the status document of a run that ended, or was killed, before its plan stood.
pub(crate) fn is_unplanned(bytes: &[u8]) -> bool {
    let keys = serde_json::from_slice::<StatusKeys>(bytes);
    keys.is_ok_and(|keys| {
        let is_ours = keys.pid > 0 && Phase::ALL.contains(&keys.phase) && Instant::parse(&keys.heartbeat).is_some();
        is_ours && keys.id.is_none() && keys.batches.total == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Directory) -> serde_json::Value {
        serde_json::from_slice(&directory.read(STATUS, RECORD_BYTES_MAX).unwrap()).unwrap()
    }

    /// A run is seen from its first moment; the document is written again by the second and with each step; a refused request
    /// puts back what stood there.
    #[test]
    fn a_run_is_announced_and_may_be_withdrawn() {
        let root = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(root.path()).unwrap());
        let at = |millis: i64| Instant::from_unix_millis(1_700_000_000_000 + millis);
        let indexing = |done| PhaseProgress { phase: Phase::Indexing, done, total: 10 };
        let mut status = StatusFile::announcing();
        status.announce(directory.clone(), "Group/g/$export".to_string(), None, at(0));
        let first = read(&directory);
        assert!(first.get("transactionTime").is_none() && first.get("id").is_none(), "{first}");
        assert_eq!(
            (&first["status"], &first["phase"], &first["pid"]),
            (&"In Progress".into(), &"starting".into(), &std::process::id().into())
        );
        status.look(indexing(1), at(1)).unwrap();
        assert_eq!((&read(&directory)["phase"], &read(&directory)["percent"]), (&"indexing".into(), &10.into()));
        status.look(indexing(5), at(900)).unwrap();
        assert_eq!(read(&directory)["percent"], 10, "at most once a second");
        status.look(indexing(5), at(1001)).unwrap();
        let later = read(&directory);
        assert_eq!((&later["percent"], later["heartbeat"].as_str().unwrap()), (&50.into(), &*at(1001).to_string()));
        assert!(is_unplanned(later.to_string().as_bytes()));
        status.withdraw();
        assert!(directory.metadata(STATUS).unwrap().is_none());
        directory.replace(STATUS, b"of before", false).unwrap();
        status.announce(directory.clone(), String::new(), None, at(2000));
        assert!(is_unplanned(&directory.read(STATUS, 1000).unwrap()));
        status.withdraw();
        assert_eq!(directory.read(STATUS, 1000).unwrap(), b"of before");
        // A plan that stands is no longer withdrawn.
        status.announce(directory.clone(), String::new(), None, at(3000));
        let planned = PlannedStatus { id: "p".into(), as_of: at(5000), request: "r".into(), resources: 7, shards: 2 };
        status.plan(directory.clone(), planned);
        status.look(PhaseProgress { phase: Phase::Writing, done: 1, total: 3 }, at(4000)).unwrap();
        status.withdraw();
        let written = read(&directory);
        assert!(!is_unplanned(written.to_string().as_bytes()) && !is_unplanned(b"{}") && !is_unplanned(b"of before"));
        assert_eq!(written["lastUpdated"], at(5000).to_string(), "never before the transactionTime");
        assert_eq!(written["heartbeat"], at(4000).to_string());
        let mut status = StatusFile::announcing();
        status.announce(directory.clone(), String::new(), None, at(0));
        status.end(Status::Failed, "the disk is full".into(), at(1));
        status.look(indexing(9), at(9000)).unwrap();
        assert_eq!(
            (&read(&directory)["status"], &read(&directory)["reason"]),
            (&"Failed".into(), &"the disk is full".into())
        );
    }
}
