//! Notices that files have changed while the service runs: looked at every few seconds, and when the process is told to
//! with SIGHUP. What is done about it is the caller's.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A file that has changed is left alone until it stays the same for so long: it may be half written.
const SETTLE: Duration = Duration::from_millis(100);
/// Times that it is waited for; then it is taken as it is.
const SETTLE_MAX: usize = 50;

/// Watches until it is dropped.
#[must_use = "nothing is watched once it is dropped"]
pub(crate) struct FileWatcher(JoinHandle<()>);

impl Drop for FileWatcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Which bytes stand under a path, as far as its metadata tells; none when nothing does.
type FileIdentity = Option<(u64, u64, u64, i64, i64)>;

fn identity_of(paths: &[PathBuf]) -> Vec<FileIdentity> {
    let identity = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    paths.iter().map(identity).collect()
}

/// Calls `changed` on a thread that may block: once soon after the beginning, because a file may have changed since the
/// caller read it, whenever one of the files is another or has other times or another size than before, and at SIGHUP.
/// Runs inside an async runtime.
pub(crate) fn watch_files(paths: Vec<PathBuf>, changed: impl FnMut() + Send + 'static) -> FileWatcher {
    FileWatcher(tokio::spawn(async move {
        // A signal is passed over on a system that has none to give; looking goes on.
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut seen, mut changed) = (None, changed);
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let reported = tokio::select! {
                _ = looks.tick() => false,
                _ = hangup => true,
            };
            let mut found = identity_of(&paths);
            if !reported && seen.as_ref() == Some(&found) {
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
            // What changes from here on is another change.
            seen = Some(found);
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

    /// Files that change are noticed, by whatever means they were changed; what stays the same is left alone.
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
