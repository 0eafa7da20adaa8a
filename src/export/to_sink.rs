//! An export into any sink: shards, deletions, messages, and the manifest last. No record is kept, so it is not resumed.

use std::io;
use std::path::PathBuf;

use crate::error::ExportError;
use crate::export::plan_record::plan_record;
use crate::export::planning::plan_snapshot;
use crate::export::prepare::{DELETED, ERROR};
use crate::export::report::ExportReport;
use crate::export::run::manifest_extension;
use crate::index::snapshot_time::SnapshotTime;
use crate::issue::PLAIN_NAMES;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::store::Store;
use crate::write::deleted_bundle::deleted_lines;
use crate::write::generated_files::write_lines;
use crate::write::journal::{MANIFEST, Receipt};
use crate::write::manifest::Manifest;
use crate::write::operation_outcome::outcome_lines;
use crate::write::sink::Sink;

/// Exports everything that [`export`](crate::export::export) writes into a directory to a sink instead, one file after
/// another, `manifest.json` last: the same names, the same bytes. URLs in the manifest are names, after
/// [`ExportRequest::base_url`] if it is given.
///
/// Runs on the current rayon pool, but writes one file at a time; who wants several at once calls
/// [`plan`](crate::export::planning::plan) and schedules [`Plan::write_shard`](crate::plan::Plan::write_shard). A failed
/// export is not resumed. It has committed whole files and no manifest, and may be begun anew into the same sink.
///
/// ```
/// use outpour::{ExportRequest, Instant, MemorySink, Progress, Store, export_to_sink};
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("all.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n")?;
/// let store = Store::open(dir.path())?;
/// let now: Instant = "2026-01-01T00:00:00Z".parse()?;
/// let mut sink = MemorySink::default();
/// let report = export_to_sink(&store, &ExportRequest::patient_ids(["a"]), now, &mut sink, &Progress::default())?;
/// assert_eq!(report.manifest.output[0].url, "Patient.00001.ndjson");
/// assert_eq!(sink.files().into_keys().collect::<Vec<_>>(), ["Patient.00001.ndjson", "manifest.json"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ExportError`]: a wrong request, what fails in the store, [`ExportError::Write`] for the sink's,
/// [`ExportError::Cancelled`]. Without a manifest in the sink nothing is published.
pub fn export_to_sink(
    store: &Store,
    request: &ExportRequest,
    time: impl Into<SnapshotTime>,
    sink: &mut impl Sink,
    progress: &Progress,
) -> Result<ExportReport, ExportError> {
    request.check()?;
    let time = time.into();
    let take = || store.snapshot_watched(time.clone(), progress);
    let (snapshot, index, plan, messages) = plan_snapshot(store, request, &take, progress)?;
    progress.begin_writing_again();
    progress.expect_writes(plan.source_bytes(), plan.shards.len() as u64);
    let write = |shard| plan.write_shard(shard, &snapshot, sink, progress);
    let output: Vec<Receipt> = (0..plan.shards.len()).map(write).collect::<Result<_, _>>()?;
    let deleted = deleted_lines(&plan.deletions.listed, snapshot.as_of());
    let deleted = write_lines(DELETED, "Bundle", &deleted, request, sink).map_err(write_error)?;
    let error = outcome_lines(&messages, &PLAIN_NAMES);
    let error = write_lines(ERROR, "OperationOutcome", &error, request, sink).map_err(write_error)?;
    // The last look at the store: what was read must be what the snapshot was taken of (CONS-08).
    snapshot.index().verify_unchanged()?;
    if progress.is_cancelled() {
        return Err(ExportError::Cancelled);
    }
    let manifest = Manifest::assemble(
        snapshot.as_of(),
        request.canonical_text(plan.cohort.group_id.as_deref()),
        request.base_url.as_deref().unwrap_or(""),
        &output,
        &deleted,
        &error,
        manifest_extension(&plan, &snapshot, &plan_record(&plan, &snapshot, store).plan_id),
    );
    write_whole(sink, MANIFEST, &manifest.to_bytes()).map_err(|source| write_error((MANIFEST.to_string(), source)))?;
    Ok(ExportReport {
        manifest,
        manifest_path: PathBuf::from(MANIFEST),
        files: output.into_iter().chain(deleted).chain(error).collect(),
        ledger: *plan.ledger(),
        worst: messages.worst(),
        messages: messages.counts(),
        warnings: messages.warnings(),
        log: messages,
        index,
        resumed_files: 0,
        transaction_time: snapshot.as_of().clone(),
        members_listed: plan.cohort.listed,
        members_found: plan.cohort.members.count() as u64,
        ignored: snapshot.index().ignored_files().to_vec(),
        excluded: snapshot.index().walked().excluded,
    })
}

/// Writes a file of the export to the sink in one piece.
fn write_whole(sink: &mut impl Sink, name: &str, bytes: &[u8]) -> io::Result<()> {
    sink.begin(name)?;
    let written = sink.write(bytes).and_then(|()| sink.commit());
    written.inspect_err(|_| sink.abort())
}

fn write_error((name, source): (String, io::Error)) -> ExportError {
    ExportError::Write { directory: PathBuf::from("the sink"), name, source }
}
