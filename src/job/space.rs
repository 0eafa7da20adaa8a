//! Room on the disk for the files of jobs. A job whose plan stands reserves what its files will take before the first of
//! them is written. One that would not fit waits, and fails when it has waited too long or can never fit.

use crate::codec::compression::Compression;
use crate::error::ExportError;
use crate::fhir::instant::TICKS_PER_SECOND;
use crate::job::registry::{Job, RunPhase};
use crate::job::shared::EngineShared;
use crate::job::space_account::{MeasuredCompression, bytes_left};
use crate::job::state::JobState;
use crate::sys::directory::Directory;
use crate::sys::disk::DiskSpace;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One of so many parts of a disk stays free of files of jobs: for records, plans and messages.
const PARTS_KEPT_FREE: u64 = 100;
/// About what a file takes beside its own bytes: its receipt, its entry in the manifest, the end of its last block.
const FILE_RECORD_BYTES: u64 = 4096;

/// What a job has waited for and does not get.
pub(crate) struct RefusedJob {
    /// The job; its run has ended.
    pub job: Arc<Job>,
    /// What lacks, with numbers for the operator.
    pub error: ExportError,
}

/// Lets every planned job be written whose files have room. Returns those that have waited too long, or for which the
/// disk is too small: they are to fail. Looks at the disk; its caller wakes the workers.
pub(crate) fn admit_planned_jobs(inner: &EngineShared) -> Vec<RefusedJob> {
    let mut refused = Vec::new();
    let now = inner.now().ticks;
    let mut reservations = inner.options.space.reservations();
    let jobs: Vec<Arc<Job>> = {
        let registry = inner.registry();
        if registry.stopping {
            return refused;
        }
        registry.queue.iter().cloned().collect()
    };
    // One that waits again reserves anew when it is admitted again.
    reservations.admitted.retain(|(_, job)| job.upgrade().is_some_and(|job| is_written(&job)));
    for job in jobs {
        let Some((waited, needed)) = what_waits(&job, now, &reservations.measured) else { continue };
        let device = device_of(inner);
        // What others will still take is read before what is free: what they write in between counts twice, not never.
        let reserved = reservations.reserved(device, &job);
        let is_guessed = reservations.measured.is_guess(needed.compression) || needed.is_reduced;
        let lacking = match (inner.options.disk_space)(&inner.options.files) {
            Ok(disk) => find_lack(inner, &job, &needed, disk, reserved).filter(|lack| {
                // A guess refuses nobody: where nobody else writes, the disk will tell.
                !is_guessed || lack.of_share || reserved > 0
            }),
            // The writes will tell whether there is room.
            Err(error) => {
                tracing::warn!(job = job.id, %error, "the free space of the disk cannot be read");
                None
            }
        };
        let is_over = waited >= inner.options.limits.space_wait_seconds;
        let is_full =
            || Lack { text: "the disk was full whenever it was tried".to_string(), for_ever: false, of_share: false };
        match lacking.or_else(|| (is_over && needed.met_full_disk).then(is_full)) {
            None => {
                job.disk_bytes.store(needed.all, Relaxed);
                reservations.admitted.push((device, Arc::downgrade(&job)));
                begin_writing(&job);
            }
            Some(lack) if lack.for_ever && !is_guessed || is_over => {
                if let Some(error) = end_waiting(inner, &job, &lack.text) {
                    refused.push(RefusedJob { job, error });
                }
            }
            Some(lack) => {
                if !job.awaits_space.swap(true, Relaxed) {
                    tracing::warn!(job = job.id, lack = lack.text, "a job waits for room on the disk");
                }
            }
        }
    }
    refused
}

/// Bytes on the disk that a job needs.
struct Needed {
    /// Of the files that it has still to write, estimated.
    left: u64,
    /// Of all its files, those that it has still to write estimated.
    all: u64,
    compression: Compression,
    /// Whether some rows are reduced, so that the estimate is a guess.
    is_reduced: bool,
    /// Whether it met a full disk, and has written nothing since.
    met_full_disk: bool,
}

/// How many seconds a planned job has waited by `now`, in ticks, and what it needs; `None` unless it waits, or while it is not to be
/// tried again.
fn what_waits(job: &Job, now: i64, measured: &MeasuredCompression) -> Option<(u64, Needed)> {
    let (compression, left) = bytes_left(job)?;
    let phase = job.phase.lock().expect("no panic under it");
    let RunPhase::AwaitingSpace { run, since, full_until, .. } = &*phase else { return None };
    let waited = u64::try_from(now.saturating_sub(*since) / TICKS_PER_SECOND).unwrap_or(0);
    if full_until.is_some_and(|until| now < until) {
        return None;
    }
    let records = run.plan().shards.len() as u64 * FILE_RECORD_BYTES;
    let all = measured.estimate(compression, run.bytes_to_write()).saturating_add(run.file_bytes_written());
    let left = measured.estimate(compression, left);
    let needed = Needed {
        left: left.saturating_add(records),
        all: all.saturating_add(records),
        compression,
        is_reduced: !run.plan().request.elements.is_empty(),
        met_full_disk: full_until.is_some(),
    };
    Some((waited, needed))
}

/// Why a job has no room.
struct Lack {
    /// With numbers, for the operator.
    text: String,
    /// No wait will help.
    for_ever: bool,
    /// It is the share of the client that is used up.
    of_share: bool,
}

/// What a job lacks for its files, if anything: room on the disk, or in the share of its client.
fn find_lack(inner: &EngineShared, job: &Arc<Job>, needed: &Needed, disk: DiskSpace, reserved: u64) -> Option<Lack> {
    let usable = disk.total - disk.total / PARTS_KEPT_FREE;
    let free = disk.free.saturating_sub(disk.total / PARTS_KEPT_FREE);
    let Needed { left, all, .. } = *needed;
    let share = u64::try_from(u128::from(disk.total) * u128::from(inner.options.limits.client_disk_share) / 100);
    let share = share.unwrap_or(u64::MAX);
    let kept: u64 = {
        let registry = inner.registry();
        let of_client = registry.jobs.values().filter(|other| other.client == job.client && !Arc::ptr_eq(other, job));
        of_client.map(|other| other.disk_bytes.load(Relaxed)).sum()
    };
    if inner.options.limits.client_disk_share < 100 && kept.saturating_add(all) > share {
        let text = format!("its files need about {all} bytes; its client has {kept} of the {share} that are its share");
        return Some(Lack { text, for_ever: all > share, of_share: true });
    }
    (left > free.saturating_sub(reserved)).then(|| {
        let text =
            format!("its files need about {left} more bytes; {free} are free, {reserved} of them for other jobs");
        Lack { text, for_ever: left > usable, of_share: false }
    })
}

/// Whether workers write the files of a job in memory.
fn is_written(job: &Job) -> bool {
    matches!(&*job.phase.lock().expect("no panic under it"), RunPhase::Writing { .. })
}

/// Device of the directory of the jobs' directories; 0 if it cannot be read.
fn device_of(inner: &EngineShared) -> u64 {
    std::fs::metadata(&inner.options.files).map_or(0, |metadata| metadata.dev())
}

/// Moves a planned job on to being written.
fn begin_writing(job: &Job) {
    job.awaits_space.store(false, Relaxed);
    let mut phase = job.phase.lock().expect("no panic under it");
    *phase = match std::mem::replace(&mut *phase, RunPhase::Ended) {
        RunPhase::AwaitingSpace { run, pending, since, full_until } => {
            let waited_since = full_until.map(|_| since);
            RunPhase::Writing { run, pending, busy: 0, failed: None, disk_full: false, waited_since }
        }
        other => other,
    };
}

/// Ends the run of a job that waits; `None` if it no longer does.
fn end_waiting(inner: &EngineShared, job: &Job, text: &str) -> Option<ExportError> {
    job.awaits_space.store(false, Relaxed);
    let mut phase = job.phase.lock().expect("no panic under it");
    let RunPhase::AwaitingSpace { run, .. } = &*phase else { return None };
    let source = io::Error::new(io::ErrorKind::StorageFull, text.to_string());
    let error = ExportError::Write { directory: inner.directory(&job.id), name: "the files".to_string(), source };
    run.fail(&error, &*inner.options.clock);
    *phase = RunPhase::Ended;
    Some(error)
}

/// Takes in what the files of earlier jobs take on the disk, and how small they got, when an engine is opened.
pub(crate) fn measure_kept_files(inner: &EngineShared) {
    let jobs: Vec<Arc<Job>> = inner.registry().jobs.values().cloned().collect();
    for job in jobs {
        let record = job.record();
        let receipts = record.files.iter().map(|file| &file.receipt);
        let bytes = match record.state {
            JobState::Complete => receipts.clone().map(|receipt| receipt.file_bytes).sum(),
            JobState::Failed if !record.files_removed => bytes_on_disk(inner, &job.id),
            _ => 0,
        };
        inner.options.space.measure(record.request.compression, receipts);
        job.disk_bytes.store(bytes, Relaxed);
    }
}

/// Bytes of the files in the directory of the job with this id. What cannot be read counts as nothing.
pub(crate) fn bytes_on_disk(inner: &EngineShared, id: &str) -> u64 {
    fn of_tree(directory: &Directory) -> u64 {
        let names = directory.names().unwrap_or_default();
        let names = names.iter().filter_map(|name| name.to_str());
        let of_name = |name| match directory.metadata(name) {
            Ok(Some(found)) if found.is_dir() => directory.directory(name).map_or(0, |inside| of_tree(&inside)),
            Ok(Some(found)) => found.len(),
            _ => 0,
        };
        names.map(of_name).sum()
    }
    inner.files.directory(id).map_or(0, |directory| of_tree(&directory))
}

/// Whether an error, or one of its causes, is that a disk or a quota is full.
pub(crate) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    causes.any(|cause| cause.downcast_ref().is_some_and(|error: &io::Error| full(error.kind())))
}
