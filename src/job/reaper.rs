//! The reaper: a thread that expires jobs, forgets expired ones, and removes directories of jobs that are deleted,
//! expired or unknown. Downloads under way keep their open files.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::job::job_end::{failed_files_due, remove_failed_output};
use crate::job::record::PlannedCounts;
use crate::job::registry::Job;
use crate::job::shared::{EngineShared, add_seconds, forget_job};
use crate::job::state::JobState;
use crate::job::worker::{REAPER_SECONDS, admit_jobs};

/// How often it is looked whether a job that waits for room on the disk gets it, in seconds.
const SPACE_SECONDS: u64 = 1;

/// Body of the reaper thread, until the engine stops. Woken by every work item that ends, it goes through the jobs only
/// when one is due.
pub(crate) fn run_reaper(inner: &Arc<EngineShared>) {
    loop {
        reap(inner);
        let mut registry = inner.registry();
        loop {
            if registry.stopping {
                return;
            }
            let ticks = registry.due.map_or(i64::MAX, |due| due.saturating_sub(inner.now().ticks));
            if ticks <= 0 {
                break;
            }
            if !registry.trash.is_empty() {
                // The registry is not held while the disk works.
                drop(registry);
                remove_trash(inner);
                registry = inner.registry();
                continue;
            }
            // One more, so that the due time is past at waking. The bound lets a clock that is set be noticed.
            let until_due = Duration::from_millis((ticks / (TICKS_PER_SECOND / 1000)) as u64 + 1);
            let waiting = registry.queue.iter().any(|job| job.awaits_space.load(Relaxed));
            let wait_max = Duration::from_secs(if waiting { SPACE_SECONDS } else { REAPER_SECONDS });
            drop(inner.wake.wait_timeout(registry, until_due.min(wait_max)).expect("no panic under it"));
            inner.clock_behind();
            // What a job was refused may be there now: another one has ended, or files were removed.
            if waiting {
                remove_trash(inner);
                admit_jobs(inner);
                inner.wake.notify_all();
            }
            registry = inner.registry();
        }
    }
}

/// Expires jobs whose retention is over, forgets expired ones that are due, then removes directories. A download under
/// way keeps its file (DELETE-06). A record that cannot be changed is tried again later.
pub(crate) fn reap(inner: &EngineShared) {
    let now = inner.now();
    inner.clock_behind();
    let jobs: Vec<Arc<Job>> = {
        let mut registry = inner.registry();
        registry.due = None;
        registry.jobs.values().cloned().collect()
    };
    let mut due = None;
    for job in jobs {
        let record = job.record();
        if let Some(files_due) = failed_files_due(&record, inner.options.limits.failed_seconds) {
            let removed = if files_due > now { Ok(()) } else { remove_files(inner, &job) };
            let next = match removed {
                _ if files_due > now => Some(files_due),
                Ok(()) => None,
                Err(error) => {
                    tracing::error!(job = job.id, %error, "the files of a failed job cannot be removed");
                    Some(add_seconds(&now, REAPER_SECONDS))
                }
            };
            due = due.into_iter().chain(next).min();
        }
        let Some(expiry) = record.expiry() else { continue };
        if expiry > now || record.state.is_active() {
            due = due.into_iter().chain([expiry]).min();
            continue;
        }
        let changed = match record.state {
            JobState::Expired => inner.records.remove(&job.id).map(|()| forget_job(&mut inner.registry(), &job)),
            _ => expire(inner, &job, &now).map(|()| due = due.take().into_iter().chain(job.record().expiry()).min()),
        };
        if let Err(error) = changed {
            tracing::error!(job = job.id, %error, "the record of a job that is over cannot be changed");
            due = due.into_iter().chain([add_seconds(&now, REAPER_SECONDS)]).min();
        }
    }
    inner.registry().set_due(due);
    inner.baselines.prune(&inner.files, &now);
    remove_trash(inner);
}

/// Removes the job directories named in the registry's trash; one that cannot be removed stays until the next start.
fn remove_trash(inner: &EngineShared) {
    let trash = std::mem::take(&mut inner.registry().trash);
    for name in trash {
        if let Err(error) = inner.files.remove_tree(&name) {
            tracing::error!(job = name, %error, "what a job left cannot be removed");
        }
    }
}

/// Removes the files of a failed job, whose record stays. A try that begins meanwhile waits for the record.
fn remove_files(inner: &EngineShared, job: &Arc<Job>) -> std::io::Result<()> {
    let mut removed = Ok(());
    let changed = inner.change(job, |record| {
        if record.state == JobState::Failed && !record.files_removed {
            removed = remove_failed_output(inner, &job.id);
            record.files_removed = removed.is_ok();
            job.disk_bytes.store(0, Relaxed);
            record.planned = record.planned.map(|planned| PlannedCounts { complete: 0, ..planned });
        }
    })?;
    removed?;
    if changed {
        tracing::info!(job = job.id, "the files of a failed job were removed");
    }
    Ok(())
}

/// Moves a job to the expired state, with a new expiry after which it is forgotten, and puts its directory in the
/// trash.
fn expire(inner: &EngineShared, job: &Arc<Job>, now: &Instant) -> std::io::Result<()> {
    let remembered = inner.options.limits.remembered_seconds;
    let changed = inner.change(job, |record| {
        // Another call of the reaper may have expired it since its record was read.
        if record.state != JobState::Expired {
            record.move_to(JobState::Expired);
            record.expires = Some(add_seconds(now, remembered).to_string());
            record.extension.clear();
            job.disk_bytes.store(0, Relaxed);
        }
    })?;
    if changed {
        let record = job.record();
        tracing::info!(
            target: "outpour::audit", job = job.id, client = record.client_name(), mount = record.mount, "a job has expired"
        );
        inner.registry().trash.push(job.id.clone());
    }
    Ok(())
}
