//! Indexing outside of jobs, for requests that must not wait for one: the index as last published, kept open, and a
//! thread that brings it up to date on request. What a run does is the caller's closure.
//!
//! Two locks, of which no thread holds both: `held` and `runs`.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::index::meta;
use crate::index::snapshot::Index;
use crate::store::Store;
use crate::sys::store_file::FileStamp;

/// Keeps the published index open, and runs at most one indexing thread at a time.
#[derive(Default)]
pub(crate) struct Indexer {
    /// The open index, with the stamp of the meta file that it was opened by; `None` before the first use.
    held: Mutex<Option<(FileStamp, Arc<Index>)>>,
    /// The runs, and the signal that one has ended.
    runs: Arc<(Mutex<IndexRuns>, Condvar)>,
}

/// A run that was requested: the number of runs that have ended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestedRun(u64);

/// Runs of the indexing thread.
#[derive(Default)]
struct IndexRuns {
    /// The thread is alive.
    running: bool,
    /// Another run was requested during the one under way.
    again: bool,
    /// Number of runs that have ended.
    ended: u64,
}

impl Indexer {
    /// The index as last published, reopened if its meta file has changed; `None` while there is none.
    pub(crate) fn latest_published(&self, store: &Store) -> Option<Arc<Index>> {
        let path = store.index_dir().join(meta::FILE);
        let stamp = FileStamp::of_metadata(&std::fs::metadata(path).ok()?);
        let mut held = self.held.lock().expect("no panic under it");
        match &*held {
            Some((opened, index)) if *opened == stamp => Some(index.clone()),
            _ => {
                // It is only read here, which must go on where it cannot be written.
                let published = store.read_only().latest_published();
                if published.is_err() {
                    tracing::error!("the published index cannot be read; the next request tries again");
                }
                let index = Arc::new(published.ok()??);
                *held = Some((stamp, index.clone()));
                Some(index)
            }
        }
    }

    /// Runs `run` once on the indexing thread, beginning after this call, and waits for its end at most `wait_max`.
    /// Returns whether it has ended. Callers that come during a run share the next one.
    pub(crate) fn run_and_wait(&self, wait_max: Duration, run: impl Fn() + Send + 'static) -> bool {
        let awaited = self.request_run(run).0;
        let (runs, ended) = &*self.runs;
        let now = runs.lock().expect("no panic under it");
        let (now, _) = ended.wait_timeout_while(now, wait_max, |now| now.ended < awaited).expect("no panic under it");
        now.ended >= awaited
    }

    /// Whether a run that was requested has ended.
    pub(crate) fn has_ended(&self, run: RequestedRun) -> bool {
        self.runs.0.lock().expect("no panic under it").ended >= run.0
    }

    /// Runs `run` once on the indexing thread, beginning after this call, and does not wait for it. Callers that come during
    /// a run share the next one.
    pub(crate) fn request_run(&self, run: impl Fn() + Send + 'static) -> RequestedRun {
        let (runs, _) = &*self.runs;
        let mut now = runs.lock().expect("no panic under it");
        // A run under way may have listed the store before the caller's bytes were written: it does not count.
        let awaited = now.ended + 1 + u64::from(now.running);
        if now.running {
            now.again = true;
        } else {
            now.running = true;
            let shared = self.runs.clone();
            std::thread::spawn(move || {
                let (runs, ended) = &*shared;
                loop {
                    run();
                    let mut now = runs.lock().expect("no panic under it");
                    now.ended += 1;
                    ended.notify_all();
                    if !std::mem::take(&mut now.again) {
                        now.running = false;
                        return;
                    }
                }
            });
        }
        RequestedRun(awaited)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    /// Each request gets a run that began after it; requests that come during a run share the next one.
    #[test]
    fn a_run_begins_after_the_question() {
        let (indexer, begun) = (Arc::new(Indexer::default()), Arc::new(AtomicU64::new(0)));
        let run = |begun: Arc<AtomicU64>| {
            move || {
                begun.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        assert!(!indexer.run_and_wait(Duration::ZERO, run(begun.clone())), "it does not wait longer than it may");
        let requested = indexer.request_run(run(begun.clone()));
        assert!(!indexer.has_ended(requested), "it begins behind the run under way");
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (indexer, run) = (indexer.clone(), run(begun.clone()));
                std::thread::spawn(move || indexer.run_and_wait(Duration::from_secs(20), run))
            })
            .collect();
        assert!(callers.into_iter().all(|caller| caller.join().unwrap()));
        assert!(indexer.has_ended(requested));
        assert!((2..=10).contains(&begun.load(SeqCst)));
    }
}
