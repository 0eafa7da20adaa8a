//! Notices that files have been replaced, while the service runs.
//!
//! It is looked every two seconds what files are there, and at once when the process gets SIGHUP. Files that are being
//! written are left alone until they have been the same for one look. What is in them is not known here.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(2);

/// Which file stands under a name, and in which state: links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity(Option<(u64, u64, u64, i64, i64)>);

impl Identity {
    fn of(path: &Path) -> Identity {
        let found = std::fs::metadata(path).ok();
        Identity(found.map(|found| (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec())))
    }
}

/// Calls `on_change`, on a thread that may wait, each time that one of the files is another than before, and at SIGHUP.
/// It goes on until the runtime ends, or `on_change` panics. Must be called on a runtime.
pub fn watch(paths: Vec<PathBuf>, on_change: impl FnMut() + Send + 'static) {
    // As they are now: what changes while the task has not begun yet is noticed.
    let seen = identities(&paths);
    tokio::spawn(look(paths, seen, LOOK, on_change));
}

fn identities(paths: &[PathBuf]) -> Vec<Identity> {
    paths.iter().map(|path| Identity::of(path)).collect()
}

async fn look(
    paths: Vec<PathBuf>,
    mut seen: Vec<Identity>,
    every: Duration,
    mut on_change: impl FnMut() + Send + 'static,
) {
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = seen.clone();
    loop {
        let told = tokio::select! {
            _ = ticks.tick() => false,
            Some(()) = async { hangup.as_mut()?.recv().await } => true,
        };
        let names = paths.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || identities(&names)).await else { return };
        if told || (now != seen && now == before) {
            seen.clone_from(&now);
            let mut call = on_change;
            let called = tokio::task::spawn_blocking(move || {
                call();
                call
            });
            let Ok(back) = called.await else { return };
            on_change = back;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// A change is told once: of a file that is written to, replaced by rename, or linked to another; and a file that
    /// goes on being written is left alone until it is done.
    #[tokio::test]
    async fn changes_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (one, link) = (dir.path().join("one"), dir.path().join("link"));
        std::fs::write(&one, "a").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let (count, paths) = (told.clone(), vec![one.clone(), link.clone()]);
        let seen = identities(&paths);
        let every = Duration::from_millis(40);
        tokio::spawn(look(paths, seen, every, move || _ = count.fetch_add(1, SeqCst)));
        let settle = || tokio::time::sleep(every * 6);
        settle().await;
        assert_eq!(told.load(SeqCst), 0);
        for len in 2..40 {
            std::fs::write(&one, "b".repeat(len)).unwrap();
            tokio::time::sleep(every / 4).await;
        }
        assert_eq!(told.load(SeqCst), 0, "still being written");
        settle().await;
        assert_eq!(told.load(SeqCst), 1);
        let other = dir.path().join("other");
        std::fs::write(&other, "c").unwrap();
        std::fs::rename(&other, &one).unwrap();
        settle().await;
        assert_eq!(told.load(SeqCst), 2);
        std::fs::write(&other, "d").unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        settle().await;
        assert_eq!(told.load(SeqCst), 3);
    }
}
