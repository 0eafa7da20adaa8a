//! Watches files for changes while the service runs: by polling their metadata every two seconds, and on SIGHUP. The
//! reaction to a change is the caller's.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

/// Interval at which the metadata of the files is read.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A changed file is used once its metadata has been the same for this long: before, it may be half written.
const SETTLE: Duration = Duration::from_millis(100);
/// Most waits for a file to settle; then it is used in its current state.
const SETTLE_MAX: usize = 50;

/// A watch on files, which ends when this is dropped.
#[must_use = "nothing is watched once it is dropped"]
pub(crate) struct FileWatcher(JoinHandle<()>);

impl Drop for FileWatcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Device, inode, size, and seconds and nanoseconds of the modification time of a file; `None` if there is no file.
type FileIdentity = Option<(u64, u64, u64, i64, i64)>;

/// The current identities of the files, in the order of `paths`.
fn identity_of(paths: &[PathBuf]) -> Vec<FileIdentity> {
    let identity = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    paths.iter().map(identity).collect()
}

/// Calls `changed` on a blocking thread: once soon after the start, since a file may have changed after the caller
/// read it; after each change of a file's identity; and on SIGHUP. Must be called inside an async runtime. If
/// `changed` panics, the watch ends with a log line.
pub(crate) fn watch_files(paths: Vec<PathBuf>, changed: impl FnMut() + Send + 'static) -> FileWatcher {
    FileWatcher(tokio::spawn(async move {
        // Without a signal handler, the files are still polled.
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last_identity, mut changed) = (None, changed);
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let is_hangup = tokio::select! {
                _ = polls.tick() => false,
                _ = hangup => true,
            };
            let mut found = identity_of(&paths);
            if !is_hangup && last_identity.as_ref() == Some(&found) {
                continue;
            }
            for _ in 0..SETTLE_MAX {
                tokio::time::sleep(SETTLE).await;
                let now = identity_of(&paths);
                let settled = now == found;
                found = now;
                if settled {
                    break;
                }
            }
            // A later change of the metadata is a new change.
            last_identity = Some(found);
            changed = match spawn_blocking(move || {
                changed();
                changed
            })
            .await
            {
                Ok(changed) => changed,
                Err(error) => {
                    tracing::error!(%error, ?paths, "files are no longer watched: start the service anew");
                    return;
                }
            };
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Changes of files are noticed, in place or by rename; unchanged files cause no call.
    #[tokio::test(flavor = "multi_thread")]
    async fn changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let (tell, reported) = mpsc::channel();
        let (read, missing) = (path.clone(), dir.path().join("missing"));
        let watcher = watch_files(vec![path.clone(), missing.clone()], move || {
            tell.send(std::fs::read_to_string(&read).unwrap()).unwrap();
        });
        let next = || reported.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(next(), "one", "the first look counts as a change");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(next(), "two", "written in place, to the same size");
        let other = dir.path().join("b");
        std::fs::write(&other, "six").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(next(), "six", "replaced by rename");
        std::fs::write(&missing, "").unwrap();
        assert_eq!(next(), "six", "a file that was not there");
        drop(watcher);
        let gone = reported.recv_timeout(Duration::from_secs(30));
        assert_eq!(gone, Err(mpsc::RecvTimeoutError::Disconnected), "nothing watches once it is dropped");
    }
}
