//! Indexes the store beside the jobs, for questions that must not wait for one: the index as it was last published,
//! kept open, and a thread that brings it up to date when somebody asks.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::index::meta;
use crate::index::snapshot::Index;
use crate::store::Store;
use crate::sys::store_file::FileStamp;

/// See the module.
#[derive(Default)]
pub(crate) struct Indexer {
    held: Mutex<Option<(FileStamp, Arc<Index>)>>,
    runs: Arc<(Mutex<IndexRuns>, Condvar)>,
}

#[derive(Default)]
struct IndexRuns {
    running: bool,
    /// Somebody asked while one was running.
    again: bool,
    ended: u64,
}

impl Indexer {
    /// The index as it was last published.
    pub(crate) fn latest_published(&self, store: &Store) -> Option<Arc<Index>> {
        let path = store.index_dir().join(meta::FILE);
        let stamp = FileStamp::of_metadata(&std::fs::metadata(path).ok()?);
        let mut held = self.held.lock().expect("no panic under it");
        match &*held {
            Some((known, index)) if *known == stamp => Some(index.clone()),
            _ => {
                let index = Arc::new(store.latest_published()?);
                *held = Some((stamp, index.clone()));
                Some(index)
            }
        }
    }

    /// Has `run` run once, beginning after this call, and waits for its end, but not longer than `most`; tells
    /// whether it has ended. One thread runs at a time, whoever asks.
    pub(crate) fn run_and_wait(&self, most: Duration, run: impl Fn() + Send + 'static) -> bool {
        let (runs, ended) = &*self.runs;
        let mut now = runs.lock().expect("no panic under it");
        // A run under way may have looked before the bytes came.
        let wanted = now.ended + 1 + u64::from(now.running);
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
        let (now, _) = ended.wait_timeout_while(now, most, |now| now.ended < wanted).expect("no panic under it");
        now.ended >= wanted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    /// Whoever asks gets a run that began after the question; those who ask meanwhile share one.
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
        let askers: Vec<_> = (0..8)
            .map(|_| {
                let (indexer, run) = (indexer.clone(), run(begun.clone()));
                std::thread::spawn(move || indexer.run_and_wait(Duration::from_secs(20), run))
            })
            .collect();
        assert!(askers.into_iter().all(|asker| asker.join().unwrap()));
        assert!((2..=9).contains(&begun.load(SeqCst)));
    }
}
