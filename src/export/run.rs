//! One run of an export, in parts that a caller may schedule: begin (snapshot, plan, record), write each task, finish
//! (messages, the last look at the store, the manifest). Tasks may run in any order, at once, and again.

use crate::error::{ExportError, IndexError, JournalError};
use crate::export::chain_link::ChainLink;
use crate::export::messages::all_issues;
use crate::export::options::{Clock, Existing, ExportOptions, SnapshotRequest};
use crate::export::plan_record::PlanRecord;
use crate::export::prepare::{DELETED, ERROR, PreparedRun, SharedStatus, prepare};
use crate::export::reader_state::{StateError, StatePlaces, write_reader_state};
use crate::export::report::ExportReport;
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::instant::Instant;
use crate::ids::ShardId;
use crate::index::report::RefreshStats;
use crate::index::snapshot::Snapshot;
use crate::issue::{Issue, IssueLog};
use crate::plan::Plan;
use crate::policies::Audience;
use crate::progress::{Phase, Progress};
use crate::request::ExportRequest;
use crate::select::member_changes::{ChangeSource, MemberChanges};
use crate::store::Store;
use crate::sys::durability::FileSync;
use crate::write::encode::Encoder;
use crate::write::file_modes::FileModes;
use crate::write::frame_recode::Recompressors;
use crate::write::generated_files::write_lines;
use crate::write::journal::{COHORT, JOB, MANIFEST, PlanFile, RESOURCES, Receipt};
use crate::write::manifest::{Manifest, file_url};
use crate::write::output_dir::{BeginMode, OutputDirectory};
use crate::write::shard::copy_shards;
use crate::write::shard_groups::group_shards;
use crate::write::sink::DirSink;
use crate::write::status_file::{PlannedStatus, Status, StatusFile};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;

/// An export that has its plan and its record.
pub(crate) struct ExportRun {
    snapshot: Snapshot,
    plan: Plan,
    directory: OutputDirectory,
    sync: FileSync,
    /// Its place in a chain.
    chain: Option<ChainLink>,
    /// The file of the keys of the cohort, if the record has one.
    cohort: Option<Vec<u8>>,
    /// Name of the plan.
    plan_id: String,
    /// Shards that are written together.
    tasks: Vec<Vec<ShardId>>,
    /// Bytes before compression of the files that no former run finished.
    bytes_to_write: u64,
    /// Files that a former run finished, by name.
    finished: BTreeMap<String, Receipt>,
    recoders: Recompressors,
    /// For each shard its receipt, once it is written.
    receipts: Mutex<Vec<Option<Receipt>>>,
    status: SharedStatus,
    modes: FileModes,
    deleted: Vec<String>,
    error: Vec<String>,
    messages: IssueLog,
    work: RefreshStats,
}

impl ExportRun {
    /// Takes the snapshot, plans, and writes the record; or takes up a record again, with its own moment. `status` is told of
    /// the run, from its first moment if it announces runs.
    ///
    /// # Errors
    /// [`ExportError`]: a wrong request, a directory in use, what fails in the store.
    pub(crate) fn begin(
        store: &Store,
        request: &ExportRequest,
        moment: &SnapshotRequest,
        options: &ExportOptions<'_>,
        existing: Existing,
        progress: &Progress,
        status: &SharedStatus,
    ) -> Result<ExportRun, ExportError> {
        request.check()?;
        let directory = OutputDirectory::open(&options.out, options.sync)?;
        let begin = match existing {
            Existing::Refuse => BeginMode::Fresh,
            Existing::Resume => BeginMode::Resume,
            Existing::Force => BeginMode::Force,
        };
        let recorded: Option<PlanFile<PlanRecord>> = directory.begin(begin)?;
        announce(status, &directory, begin, request, moment, options);
        let prepared = prepare(store, request, moment, options, progress, (&directory, recorded), status);
        let prepared = prepared.inspect_err(|error| end_announced(status, &directory, error, options))?;
        let PreparedRun { snapshot, work, plan, messages, job, cohort, deleted, error, finished, left } = prepared;
        tell_plan(status, &plan, &snapshot, &job, &directory)?;
        progress.expect_writes(plan.source_bytes(), plan.shards.len() as u64);
        let run = ExportRun {
            tasks: group_shards(&plan, &snapshot),
            bytes_to_write: left,
            finished: finished.into_iter().map(|receipt| (receipt.file.clone(), receipt)).collect(),
            recoders: Recompressors::default(),
            receipts: Mutex::new(vec![None; plan.shards.len()]),
            status: status.clone(),
            modes: options.modes,
            sync: options.sync,
            snapshot,
            plan,
            directory,
            cohort,
            chain: job.chain,
            plan_id: job.plan_id,
            deleted,
            error,
            messages,
            work,
        };
        let transaction_time = || run.transaction_time().clone();
        run.publish_status(options.clock.unwrap_or(&transaction_time), progress);
        Ok(run)
    }

    /// What the operator may know and the reader of the export is not told: a cause, how often it came up, and the first
    /// message of it.
    ///
    /// # Errors
    /// When the index is damaged.
    pub(crate) fn withheld_issues(&self) -> Result<Vec<(&'static str, u64, Issue)>, IndexError> {
        let all = all_issues(&self.snapshot, &self.plan, Audience::Operator)?;
        Ok(all.withheld(&self.messages).map(|(cause, count, first)| (cause, count, first.clone())).collect())
    }

    /// How many tasks there are to write.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Bytes before compression of the files that were to be written when the run began: all but those that a former run
    /// had finished. Of reduced types half of the most that they can be: what they come to is not known.
    pub(crate) fn bytes_to_write(&self) -> u64 {
        self.bytes_to_write
    }

    /// Bytes in the store of the rows of the files that are written.
    pub(crate) fn source_bytes_written(&self) -> u64 {
        let receipts = self.receipts.lock().expect("no panic under it");
        let written = self.plan.shard_ids().filter(|shard| receipts.get(shard.index()).is_some_and(Option::is_some));
        written.map(|shard| self.plan.source_bytes_of(shard)).sum()
    }

    /// Bytes on the disk of the files that a former run had finished.
    pub(crate) fn file_bytes_written(&self) -> u64 {
        self.finished.values().map(|receipt| receipt.file_bytes).sum()
    }

    /// The plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The transactionTime; that of the record if one was taken up.
    pub(crate) fn transaction_time(&self) -> &Instant {
        self.snapshot.as_of()
    }

    /// Writes the shards of a task. Shards that are finished are not written again, so a task that failed may be
    /// tried once more.
    ///
    /// # Errors
    /// [`ExportError`]; nothing half-written stands under a name of a file.
    ///
    /// # Panics
    /// When there is no such task.
    pub(crate) fn write(&self, task: usize, clock: Clock<'_>, progress: &Progress) -> Result<(), ExportError> {
        let plan = &self.plan;
        let shards = &self.tasks[task];
        let left: Vec<ShardId> = shards
            .iter()
            .copied()
            .filter(|shard| {
                let mut receipts = self.receipts.lock().expect("no panic under it");
                if receipts[shard.index()].is_some() {
                    return false;
                }
                // What a former run finished.
                let Some(receipt) = self.finished.get(&plan.file_name(shard.index())) else { return true };
                progress.write_done.fetch_add(plan.source_bytes_of(*shard), Relaxed);
                progress.files_done.fetch_add(1, Relaxed);
                receipts[shard.index()] = Some(receipt.clone());
                false
            })
            .collect();
        self.publish_status(clock, progress);
        let threads = rayon::current_num_threads();
        let mut open = |shard: ShardId| {
            let name = plan.file_name(shard.index());
            let sink =
                DirSink::within(self.directory.files().map_err(|error| self.write_error(&name, error))?, self.sync);
            // All files together hold about a block for each thread.
            let blocks = if shards.len() > 1 { 1 } else { threads.div_ceil(self.tasks.len().min(threads)) };
            let encoder = Encoder::begin(sink, &name, plan.request.compression, plan.request.digest, blocks);
            encoder.map(Some).map_err(|error| self.write_error(&name, error))
        };
        let mut close = |shard: ShardId, receipt: Receipt| {
            self.directory.append_receipt(&receipt).map_err(|error| self.write_error(&receipt.file, error))?;
            self.receipts.lock().expect("no panic under it")[shard.index()] = Some(receipt);
            progress.files_done.fetch_add(1, Relaxed);
            self.publish_status(clock, progress);
            Ok(())
        };
        let failed = |name: &str, error| self.write_error(name, error);
        copy_shards(plan, &self.snapshot, &left, &self.recoders, progress, &mut open, &mut close, &failed)
    }

    /// Writes deleted and error files, and publishes, once every task is written.
    ///
    /// # Errors
    /// [`ExportError::Index`] when the store was changed under the run, [`ExportError::Cancelled`],
    /// [`ExportError::Write`].
    ///
    /// # Panics
    /// When a task has not been written.
    pub(crate) fn finish(&self, clock: Clock<'_>, progress: &Progress) -> Result<ExportReport, ExportError> {
        progress.begin(Phase::Publishing);
        // The receipts of many files are moved, not copied; a run that is to try once more gets them back.
        let mut receipts = self.receipts.lock().expect("no panic under it");
        let written: Option<Vec<Receipt>> = std::mem::take(&mut *receipts).into_iter().collect();
        let mut files = written.expect("every task is written before a run is finished");
        drop(receipts);
        let manifest = match self.publish(&mut files, clock, progress) {
            Ok(manifest) => manifest,
            Err(error) => {
                files.truncate(self.plan.shards.len());
                *self.receipts.lock().expect("no panic under it") = files.into_iter().map(Some).collect();
                return Err(error);
            }
        };
        Ok(ExportReport {
            manifest_path: self.directory.path().join(MANIFEST),
            manifest,
            files,
            ledger: *self.plan.ledger(),
            worst: self.messages.worst(),
            messages: self.messages.counts(),
            warnings: self.messages.warnings(),
            log: self.messages.clone(),
            index: self.work.clone(),
            resumed_files: self.finished.len(),
            transaction_time: self.snapshot.as_of().clone(),
            members_listed: self.plan.cohort.listed,
            members_found: self.plan.cohort.members.count() as u64,
            ignored: self.snapshot.index().ignored_files().to_vec(),
            excluded: self.snapshot.index().walked().excluded,
        })
    }

    /// Writes deleted and error files, adds their receipts to those of the shards, publishes the manifest, and tells so in
    /// `status.json`.
    fn publish(
        &self,
        files: &mut Vec<Receipt>,
        clock: Clock<'_>,
        progress: &Progress,
    ) -> Result<Manifest, ExportError> {
        let shards = files.len();
        files.extend(self.write_generated(DELETED, "Bundle", &self.deleted)?);
        let rows_and_deletions = files.len();
        files.extend(self.write_generated(ERROR, "OperationOutcome", &self.error)?);
        // The last look at the store: what was read must be what the snapshot was taken of (CONS-08).
        self.snapshot.index().verify_unchanged()?;
        if progress.cancel.load(Relaxed) {
            return Err(ExportError::Cancelled);
        }
        let mut extension = manifest_extension(&self.plan, &self.snapshot, &self.plan_id);
        if let Some(chain) = &self.chain {
            extension["chain"] = json!({ "id": chain.chain, "number": chain.number, "full": chain.full });
        }
        for (name, facts) in self.write_state(files, progress)? {
            extension[name] = facts;
        }
        let manifest = Manifest::assemble(
            self.snapshot.as_of(),
            self.plan.request.canonical_text(self.plan.cohort.group_id.as_deref()),
            &self.base_url(),
            &files[..shards],
            &files[shards..rows_and_deletions],
            &files[rows_and_deletions..],
            extension,
        );
        // The status is not written while its directory is another one.
        let mut status = self.status.lock().expect("no panic under it");
        let published = self.directory.publish(&manifest, files, self.modes);
        self.watch_status(&mut status);
        if let Ok(()) | Err(JournalError::Unsynced { .. }) = &published {
            status.succeed(&manifest, clock()).ok();
        }
        drop(status);
        published.map_err(|error| self.move_error(error)).map(|()| manifest)
    }

    /// Writes what increments on this export need to know of it, and what it takes away itself, where the files of the export
    /// are in their place; removes what a former export has left of that. Returns facts for the manifest.
    fn write_state(
        &self,
        files: &[Receipt],
        progress: &Progress,
    ) -> Result<Vec<(&'static str, serde_json::Value)>, ExportError> {
        let failed = |name: &str, error| self.write_error(&format!("{JOB}/{name}"), error);
        let request = &self.plan.request;
        let sync = self.sync == FileSync::Yes;
        {
            let mut status = self.status.lock().expect("no panic under it");
            self.directory.move_into_place(files).map_err(|error| self.move_error(error))?;
            self.watch_status(&mut status);
        }
        let record = self.directory.record().map_err(|error| failed("", error))?;
        match &self.cohort {
            Some(cohort) => record.replace(COHORT, cohort, sync),
            None => record.remove_file(COHORT).map(drop),
        }
        .map_err(|error| failed(COHORT, error))?;
        if !request.keeps_resources {
            record.remove_file(RESOURCES).map_err(|error| failed(RESOURCES, error))?;
        }
        let root = self.directory.files().map_err(|error| failed("", error))?;
        let places = StatePlaces { files: &root, record: &record, sync };
        match write_reader_state(&self.plan, &self.snapshot, &places, progress) {
            Ok(facts) => Ok(facts),
            Err(StateError::Write(name, error)) => Err(self.write_error(name, error)),
            Err(StateError::Export(error)) => Err(error),
        }
    }

    /// Whether an error says that there is no room for this run's files beside those of the export that it is to replace.
    pub(crate) fn lacks_room(&self, error: &ExportError) -> bool {
        let full = |kind| matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        self.directory.is_staged() && matches!(error, ExportError::Write { source, .. } if full(source.kind()))
    }

    /// Gives the room of the old export to this run, and goes on in its place; what is finished is kept. No task may be
    /// written meanwhile. Every task and [`ExportRun::finish`] may be tried once more after it.
    ///
    /// # Errors
    /// [`ExportError`] when the directory cannot be changed.
    pub(crate) fn make_room(&self) -> Result<(), ExportError> {
        let mut finished = self.finished.clone();
        let written = self.receipts.lock().expect("no panic under it");
        finished.extend(written.iter().flatten().map(|receipt| (receipt.file.clone(), receipt.clone())));
        drop(written);
        let finished: Vec<Receipt> = finished.into_values().collect();
        let mut status = self.status.lock().expect("no panic under it");
        let moved = self.directory.move_into_place(&finished);
        self.watch_status(&mut status);
        moved.map_err(|error| self.move_error(error))
    }

    /// Has `status.json` written where the files are now.
    fn watch_status(&self, status: &mut StatusFile) {
        if let Ok(directory) = self.directory.files() {
            status.move_to(directory);
        }
    }

    /// Tells in `status.json` that the run has ended without success.
    pub(crate) fn fail(&self, error: &ExportError, clock: Clock<'_>) {
        if matches!(error, ExportError::Record(JournalError::Unsynced { .. })) {
            // The export stands under its manifest, and the document has said so.
            return;
        }
        self.status.lock().expect("no panic under it").end(state_after(error), reason_of(error), clock());
    }

    /// Writes generated lines as size-bounded files. They are few and made anew by a resumed run.
    fn write_generated(
        &self,
        stem: &str,
        resource_type: &'static str,
        lines: &[String],
    ) -> Result<Vec<Receipt>, ExportError> {
        let directory = self.directory.files().map_err(|error| self.write_error(stem, error))?;
        let mut sink = DirSink::within(directory, self.sync);
        let receipts = write_lines(stem, resource_type, lines, &self.plan.request, &mut sink)
            .map_err(|(name, error)| self.write_error(&name, error))?;
        for receipt in &receipts {
            if !self.finished.contains_key(&receipt.file) {
                self.directory.append_receipt(receipt).map_err(|error| self.write_error(&receipt.file, error))?;
            }
        }
        Ok(receipts)
    }

    /// The error that an output file of this run cannot be written.
    fn write_error(&self, name: &str, source: std::io::Error) -> ExportError {
        ExportError::Write { directory: self.directory.path().to_path_buf(), name: name.to_string(), source }
    }

    /// A failure of the output directory while files come into their place.
    fn move_error(&self, error: JournalError) -> ExportError {
        match error {
            JournalError::Io { path, source } => {
                let name = path.strip_prefix(self.directory.path()).unwrap_or(&path).display().to_string();
                self.write_error(&name, source)
            }
            other => other.into(),
        }
    }

    /// The base URL of this run: that of the request, or the file URL of its output directory.
    fn base_url(&self) -> String {
        match &self.plan.request.base_url {
            Some(base) => base.clone(),
            None => file_url(self.directory.path()),
        }
    }

    /// Updates `status.json`, at most once a second. A status that cannot be written costs nobody an export.
    fn publish_status(&self, clock: Clock<'_>, progress: &Progress) {
        let mut status = self.status.lock().expect("no panic under it");
        status.complete(progress.files_done.load(Relaxed));
        status.look(progress.phase(), clock()).ok();
    }
}

/// What a finished run states in the root extension of its manifest: snapshot, policies, ledger (MANIFEST-14,
/// MANIFEST-17, reading 10).
pub(crate) fn manifest_extension(plan: &Plan, snapshot: &Snapshot, plan_id: &str) -> serde_json::Value {
    let request = &plan.request;
    let generation = snapshot.index().generation();
    let vanished = plan.vanished.counts();
    let known_since = generation.birth.map(|ticks| Instant { ticks, rest: Box::default() }.to_string());
    let mut extension = json!({
        "planId": plan_id,
        "snapshot": plan.snapshot_id,
        "software": concat!("outpour ", env!("CARGO_PKG_VERSION")),
        "policies": {
            "members": request.members,
            "context": request.context.name(),
            "fhirBases": request.fhir_bases,
            "late": request.late,
            "lateKnownSince": known_since,
            "missingLastUpdated": request.missing_last_updated,
            "validate": generation.rules.validate,
            "unproven": generation.unproven,
            "ids": generation.rules.ids,
            "loneSurrogates": generation.rules.lone_surrogates,
            "patientReferences": generation.rules.patient_references,
            "maxFileBytes": request.bounds.file_bytes,
            "maxFileResources": request.bounds.file_resources,
            "compress": request.compression,
        },
        "ledger": plan.ledger(),
    });
    if generation.rules.compartment_paths != CompartmentPaths::R4 {
        extension["policies"]["compartmentPaths"] = generation.rules.compartment_paths.name().into();
    }
    if generation.follow_symlinks {
        extension["policies"]["followSymlinks"] = true.into();
    }
    if let Some(associated) = request.associated {
        extension["policies"]["includeAssociatedData"] = associated.name().into();
    }
    if !request.vanished.is_default() {
        extension["policies"]["vanished"] = request.vanished.name().into();
    }
    if let Some(baseline) = &request.baseline {
        extension["baseline"] =
            json!({ "planId": baseline.plan_id, "transactionTime": baseline.transaction_time.to_string() });
    }
    match &plan.member_changes {
        Some(MemberChanges { joined_count, source: ChangeSource::Starts { unknown }, .. }) => {
            extension["newMembers"] =
                json!({ "policy": request.new_members, "joined": joined_count, "unknown": unknown });
        }
        Some(changes) => {
            let left = changes.left_count();
            extension["newMembers"] =
                json!({ "policy": request.new_members, "joined": changes.joined_count, "left": left });
        }
        None if request.baseline.is_some() => extension["newMembers"] = json!({ "policy": request.new_members }),
        None => {}
    }
    if !vanished.is_zero() {
        extension["vanished"] = json!(vanished);
    }
    extension
}

/// Tells in `status.json` of a run that has no plan yet, if it is to be told and there is a place that belongs to it.
fn announce(
    status: &SharedStatus,
    directory: &OutputDirectory,
    begin: BeginMode,
    request: &ExportRequest,
    moment: &SnapshotRequest,
    options: &ExportOptions<'_>,
) {
    let mut status = status.lock().expect("no panic under it");
    status.set_mode(options.modes.file);
    let Some(clock) = options.clock.filter(|_| status.announces()) else { return };
    // A status that cannot be written costs nobody an export.
    if let Ok(Some(place)) = directory.place_of_announcement(begin) {
        status.announce(place, request.canonical_text(None), moment.time.given().cloned(), clock());
    }
}

/// Ends the status of a run that has no plan: what it replaced comes back if the request is refused, else it says why.
fn end_announced(status: &SharedStatus, directory: &OutputDirectory, error: &ExportError, options: &ExportOptions<'_>) {
    let mut status = status.lock().expect("no panic under it");
    if !status.announces() {
        return;
    }
    let is_refused = matches!(
        error,
        ExportError::Request(_)
            | ExportError::Record(_)
            | ExportError::Differs { .. }
            | ExportError::Index(
                IndexError::NoStore { .. }
                    | IndexError::ForeignIndex { .. }
                    | IndexError::NoDataFiles { .. }
                    | IndexError::IgnoreFile(..)
                    | IndexError::OtherChoices { .. }
            )
    );
    match options.clock {
        Some(clock) if !is_refused => status.end(state_after(error), reason_of(error), clock()),
        _ => {
            status.withdraw();
            directory.clear_announcement();
        }
    }
}

/// The state of a run that an error has ended.
fn state_after(error: &ExportError) -> Status {
    if error.is_cancelled() { Status::Cancelled } else { Status::Failed }
}

/// Why a run has failed, as one line. Texts of errors name files, lines and ids, nothing of what records say.
fn reason_of(error: &ExportError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// Has the status document of a run say what its plan says.
fn tell_plan(
    status: &SharedStatus,
    plan: &Plan,
    snapshot: &Snapshot,
    job: &PlanRecord<()>,
    directory: &OutputDirectory,
) -> Result<(), JournalError> {
    let files = directory.files();
    let planned = PlannedStatus {
        id: job.plan_id.clone(),
        as_of: snapshot.as_of().clone(),
        request: plan.request.canonical_text(plan.cohort.group_id.as_deref()),
        resources: plan.rows(),
        shards: plan.shards.len() as u64,
    };
    let files = files.map_err(|source| JournalError::Io { path: directory.path().to_path_buf(), source })?;
    status.lock().expect("no panic under it").plan(files, planned);
    Ok(())
}
