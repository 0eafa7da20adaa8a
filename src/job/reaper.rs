//! The reaper: a thread that expires jobs and removes the files of those that are over.

use std::sync::Arc;
use std::time::Duration;

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::job::registry::Job;
use crate::job::shared::{EngineShared, add_seconds, forget_job};
use crate::job::state::JobState;
use crate::job::worker::REAPER_SECONDS;

/// The reaper's life. Woken by every turn that ends, it looks at the jobs only when the time of one is over.
pub(crate) fn run_reaper(inner: &Arc<EngineShared>) {
    loop {
        reap(inner);
        let mut table = inner.registry();
        loop {
            if table.stopping {
                return;
            }
            let left = table.due.map_or(i64::MAX, |due| due.saturating_sub(inner.now().ticks));
            if left <= 0 {
                break;
            }
            if !table.trash.is_empty() {
                drop(table);
                sweep_foreign(inner);
                table = inner.registry();
                continue;
            }
            let left = Duration::from_millis((left / (TICKS_PER_SECOND / 1000)) as u64 + 1);
            let most = Duration::from_secs(REAPER_SECONDS);
            table = inner.wake.wait_timeout(table, left.min(most)).expect("no panic under it").0;
        }
    }
}

/// Expires and forgets what is due, then removes directories. A download under way keeps its file (DELETE-06).
pub(crate) fn reap(inner: &EngineShared) {
    let now = inner.now();
    let jobs: Vec<Arc<Job>> = {
        let mut table = inner.registry();
        table.due = None;
        table.jobs.values().cloned().collect()
    };
    let mut due = None;
    for job in jobs {
        let record = job.record();
        let Some(expiry) = record.expiry() else { continue };
        if expiry > now || record.state.is_active() {
            due = due.into_iter().chain([expiry]).min();
            continue;
        }
        let done = match record.state {
            JobState::Expired => inner.records.remove(&job.id).map(|()| forget_job(&mut inner.registry(), &job)),
            _ => expire(inner, &job, &now).map(|()| due = due.take().into_iter().chain(job.record().expiry()).min()),
        };
        if let Err(error) = done {
            tracing::error!(job = job.id, %error, "the record of a job that is over cannot be changed");
            due = due.into_iter().chain([add_seconds(&now, REAPER_SECONDS)]).min();
        }
    }
    inner.registry().set_due(due);
    sweep_foreign(inner);
}

/// Removes the directories of jobs that nobody knows any more.
fn sweep_foreign(inner: &EngineShared) {
    let trash = std::mem::take(&mut inner.registry().trash);
    for name in trash {
        if let Err(error) = inner.files.remove_tree(&name) {
            tracing::error!(job = name, %error, "what a job left cannot be removed");
        }
    }
}

fn expire(inner: &EngineShared, job: &Arc<Job>, now: &Instant) -> std::io::Result<()> {
    let remembered = inner.options.limits.remembered_seconds;
    let changed = inner.change(job, |record| {
        // Whoever asks for it may have had it expired since it was looked at.
        if record.state != JobState::Expired {
            record.move_to(JobState::Expired);
            record.expires = Some(add_seconds(now, remembered).to_string());
            record.extension.clear();
        }
    })?;
    if changed {
        tracing::info!(job = job.id, "a job has expired");
        inner.registry().trash.push(job.id.clone());
    }
    Ok(())
}
