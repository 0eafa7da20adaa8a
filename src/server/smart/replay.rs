//! The replay cache: assertions that were used, remembered until they have expired, so that none is taken twice (AUTH-07).
//!
//! An assertion is known by a digest of its client and its `jti`. Either this process keeps the digests, in memory and in
//! files that it alone writes, several at a time for one sync of the disk; or several processes share a directory, in which
//! each digest is a file that only one of them can make. An answer is given once the digest is durable: a restart, an unclean
//! one also, forgets nothing that was answered.
//!
//! A file of digests holds those that expire within one span of time, and is removed as a whole after it. Records: digest
//! (32 bytes), the second until which it is kept (8 bytes), CRC-32 of both (4 bytes), integers little-endian. Each start of
//! the service begins new files, so that a record which an unclean end has torn damages no other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender, unbounded};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::limits::{REPLAY_FILE_BYTES_MAX, REPLAY_RECORDS_MAX};
use crate::sys::directory::Directory;
use crate::sys::durability::{FileSync, sync_directory};
use crate::sys::private_files::{create_private, private_directory};
use crate::sys::regular_file::{Links, read_regular_as};

/// Seconds whose expiring digests stand in one file.
const SPAN_SECONDS: u64 = 600;
/// Bytes of a record.
const RECORD_BYTES: usize = 44;
/// Shortest pause between two syncs of digests: what comes meanwhile shares the second one.
const SYNC_PAUSE: Duration = Duration::from_millis(5);
/// Fewest digests in memory among which expired ones are looked for.
const SWEEP_AT_LEAST: usize = 4096;
/// Age from which on a digest of a shared directory is removed: assertions live for minutes, but clocks of hosts differ.
const SHARED_AGE: Duration = Duration::from_secs(3600);
/// Pause between two looks for old digests in a shared directory.
const SHARED_SWEEP_PAUSE: Duration = Duration::from_secs(600);

/// Digest of a client and a `jti`.
type JtiDigest = [u8; 32];

/// Whether an assertion was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It is the first use, which is recorded.
    First,
    /// It was used before.
    Repeated,
}

/// The digest of an assertion of a client.
fn digest_of(client: &str, jti: &str) -> JtiDigest {
    let mut hasher = Sha256::new();
    // The length keeps two pairs apart whose texts are the same one behind the other.
    hasher.update((client.len() as u64).to_le_bytes());
    hasher.update(client.as_bytes());
    hasher.update(jti.as_bytes());
    hasher.finalize().into()
}

/// The replay cache of a service.
#[derive(Debug)]
pub(crate) enum ReplayCache {
    /// Of this process alone.
    Local(LocalReplayCache),
    /// Of several processes.
    Shared(SharedReplayCache),
}

impl ReplayCache {
    /// Records the use of an assertion that is to be remembered until a second of Unix time; `now` is the current one.
    ///
    /// # Errors
    /// The system's, if it cannot be recorded: then it must not be taken.
    pub(crate) async fn record(&self, client: &str, jti: &str, until: u64, now: u64) -> io::Result<Use> {
        let digest = digest_of(client, jti);
        match self {
            ReplayCache::Local(memory) => memory.record(digest, until, now).await,
            ReplayCache::Shared(shared) => shared.record(digest, until).await,
        }
    }
}

/// Digests in memory, and the thread that writes them.
#[derive(Debug)]
pub(crate) struct LocalReplayCache {
    known: Mutex<KnownDigests>,
    writer: Sender<WriteOrder>,
}

/// Digests with the second until which each is kept.
#[derive(Debug, Default)]
struct KnownDigests {
    until: HashMap<JtiDigest, u64>,
    /// Number of digests at which those that have expired are dropped.
    sweep_at: usize,
}

impl KnownDigests {
    /// Drops what has expired, once there is twice as much as was left the last time.
    fn sweep(&mut self, now: u64) {
        if self.until.len() >= self.sweep_at {
            self.until.retain(|_, until| *until > now);
            self.until.shrink_to(self.until.len() * 2);
            self.sweep_at = (self.until.len() * 2).max(SWEEP_AT_LEAST);
        }
    }
}

/// A digest to be written, and who waits for it.
struct WriteOrder {
    digest: JtiDigest,
    until: u64,
    now: u64,
    done: oneshot::Sender<io::Result<()>>,
}

impl LocalReplayCache {
    /// The memory that a directory holds, which is made if it is missing; `now` is the current second of Unix time.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(directory: &Path, sync: FileSync, now: u64) -> io::Result<LocalReplayCache> {
        private_directory(directory)?;
        let mut known = HashMap::new();
        for (path, span) in files_of(directory)? {
            if span_end(span) <= now {
                std::fs::remove_file(&path)?;
                continue;
            }
            let bytes = read_regular_as(&path, REPLAY_FILE_BYTES_MAX, Links::Refuse)
                .map_err(|error| io::Error::other(error.to_string()))?;
            let damaged = read_records(&bytes, now, &mut known);
            if damaged > 0 {
                tracing::error!(
                    damaged,
                    "a file of used assertions is damaged: assertions of the last minutes that it held could be used again"
                );
            }
        }
        let known = Mutex::new(KnownDigests { until: known, sweep_at: SWEEP_AT_LEAST });
        let (writer, orders) = unbounded();
        let start =
            format!("{:016x}", u64::from_le_bytes(crate::server::ids::random()[..8].try_into().expect("eight bytes")));
        let mut files =
            ReplayFiles { directory: directory.to_path_buf(), start, generation: 0, open: HashMap::new(), sync };
        std::thread::Builder::new().name("used-assertions".to_string()).spawn(move || files.run(&orders))?;
        Ok(LocalReplayCache { known, writer })
    }

    async fn record(&self, digest: JtiDigest, until: u64, now: u64) -> io::Result<Use> {
        {
            let mut known = self.known.lock().expect("no panic under it");
            known.sweep(now);
            let known = &mut known.until;
            if known.len() >= REPLAY_RECORDS_MAX {
                return Err(io::Error::other("more assertions were used than can be remembered"));
            }
            if known.get(&digest).is_some_and(|until| *until > now) {
                return Ok(Use::Repeated);
            }
            known.insert(digest, until);
        }
        let (done, written) = oneshot::channel();
        let sent = self.writer.send(WriteOrder { digest, until, now, done });
        let outcome = match sent {
            Ok(()) => {
                written.await.unwrap_or_else(|_| Err(io::Error::other("the writer of used assertions has ended")))
            }
            Err(_) => Err(io::Error::other("the writer of used assertions has ended")),
        };
        match outcome {
            Ok(()) => Ok(Use::First),
            // Nobody gets a token for it, so that it may be tried again.
            Err(error) => {
                self.known.lock().expect("no panic under it").until.remove(&digest);
                Err(error)
            }
        }
    }
}

/// The last second of a span.
fn span_end(span: u64) -> u64 {
    span.saturating_add(1).saturating_mul(SPAN_SECONDS)
}

/// The files of digests in a directory, with their spans.
fn files_of(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let span = name.to_str().and_then(|name| name.strip_prefix("used-")).and_then(|rest| rest.split_once('-'));
        if let Some(span) = span.and_then(|(span, _)| span.parse().ok()) {
            files.push((entry.path(), span));
        }
    }
    Ok(files)
}

/// Adds the records of a file that have not expired, and counts those that are damaged.
fn read_records(bytes: &[u8], now: u64, known: &mut HashMap<JtiDigest, u64>) -> usize {
    let records = bytes.chunks_exact(RECORD_BYTES);
    // What an unclean end has torn was not answered.
    let mut damaged = 0;
    for record in records {
        let (body, checksum) = record.split_at(RECORD_BYTES - 4);
        if crc32fast::hash(body).to_le_bytes() != checksum {
            damaged += 1;
            continue;
        }
        let (digest, until) = body.split_at(32);
        let until = u64::from_le_bytes(until.try_into().expect("eight bytes"));
        if until > now {
            known.insert(digest.try_into().expect("32 bytes"), until);
        }
    }
    damaged
}

/// The files that this process writes.
struct ReplayFiles {
    directory: PathBuf,
    /// Part of the names that tells this start of the service from others.
    start: String,
    /// Number of times that writing has failed since the start.
    generation: u64,
    open: HashMap<u64, File>,
    sync: FileSync,
}

impl ReplayFiles {
    /// Writes what is ordered until nobody can order any more: all that waits at a time, and one sync for it.
    fn run(&mut self, orders: &Receiver<WriteOrder>) {
        let mut written = None;
        while let Ok(first) = orders.recv() {
            // Under load, more for one sync: kick-offs and downloads use the same disk.
            if let Some(since) = written.map(|at: Instant| at.elapsed()) {
                std::thread::sleep(SYNC_PAUSE.saturating_sub(since));
            }
            let mut batch = vec![first];
            batch.extend(orders.try_iter());
            let outcome = self.write(&batch);
            written = Some(Instant::now());
            if let Err(error) = &outcome {
                tracing::error!(%error, "used assertions cannot be recorded: no tokens are given");
                // What follows a torn record in its file would be read as damaged.
                self.open.clear();
                self.generation += 1;
            }
            for order in batch {
                let outcome =
                    outcome.as_ref().map(|_| ()).map_err(|error| io::Error::new(error.kind(), error.to_string()));
                // Whoever asked may have hung up.
                let _ = order.done.send(outcome);
            }
        }
    }

    fn write(&mut self, batch: &[WriteOrder]) -> io::Result<()> {
        let mut by_span: HashMap<u64, Vec<u8>> = HashMap::new();
        for order in batch {
            let mut body = [0; RECORD_BYTES - 4];
            body[..32].copy_from_slice(&order.digest);
            body[32..].copy_from_slice(&order.until.to_le_bytes());
            let records = by_span.entry(order.until / SPAN_SECONDS).or_default();
            records.extend_from_slice(&body);
            records.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        }
        for (span, records) in by_span {
            if !self.open.contains_key(&span) {
                let now = batch.iter().map(|order| order.now).max().unwrap_or_default();
                self.remove_expired(now)?;
                let file =
                    create_private(&self.directory.join(format!("used-{span}-{}-{}", self.start, self.generation)))?;
                if self.sync == FileSync::Yes {
                    sync_directory(&self.directory)?;
                }
                self.open.insert(span, file);
            }
            let file = self.open.get_mut(&span).expect("it was opened");
            file.write_all(&records)?;
            if self.sync == FileSync::Yes {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    /// Removes the files of spans that are over.
    fn remove_expired(&mut self, now: u64) -> io::Result<()> {
        self.open.retain(|span, _| span_end(*span) > now);
        for (path, _) in files_of(&self.directory)?.into_iter().filter(|(_, span)| span_end(*span) <= now) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// A directory that several processes share.
#[derive(Debug)]
pub(crate) struct SharedReplayCache {
    directory: PathBuf,
    /// When old digests were last looked for.
    swept: Mutex<Option<SystemTime>>,
}

impl SharedReplayCache {
    /// A directory, which is made if it is missing.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(directory: &Path) -> io::Result<SharedReplayCache> {
        private_directory(directory)?;
        Ok(SharedReplayCache { directory: directory.to_path_buf(), swept: Mutex::new(None) })
    }

    async fn record(&self, digest: JtiDigest, until: u64) -> io::Result<Use> {
        let directory = self.directory.clone();
        let is_due = {
            let mut swept = self.swept.lock().expect("no panic under it");
            let now = SystemTime::now();
            let is_due =
                swept.is_none_or(|last| now.duration_since(last).is_ok_and(|since| since > SHARED_SWEEP_PAUSE));
            if is_due {
                *swept = Some(now);
            }
            is_due
        };
        let work = move || {
            if is_due && let Err(error) = sweep(&directory, SystemTime::now()) {
                tracing::warn!(%error, "old digests cannot be removed from smart.jti_dir");
            }
            make_digest_file(&directory, &digest, until)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Makes the file of a digest, unless it is there. Blocks.
fn make_digest_file(directory: &Path, digest: &JtiDigest, until: u64) -> io::Result<Use> {
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = Directory::open(directory)?;
    let mut file = match place.create_new(&name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Use::Repeated),
        Err(error) => return Err(error),
    };
    let written =
        file.write_all(until.to_string().as_bytes()).and_then(|()| file.sync_all()).and_then(|()| place.sync());
    match written {
        Ok(()) => Ok(Use::First),
        Err(error) => {
            // No token is given for it, so that it may be tried again.
            let _ = place.remove_file(&name);
            Err(error)
        }
    }
}

/// Removes old digests from a shared directory; other files stay. Blocks.
fn sweep(directory: &Path, now: SystemTime) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let is_digest = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Another process may have removed it.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        if is_digest && metadata.is_file() && age.is_some_and(|age| age > SHARED_AGE) {
            match std::fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn own(directory: &Path, now: u64) -> ReplayCache {
        ReplayCache::Local(LocalReplayCache::open(directory, FileSync::Yes, now).unwrap())
    }

    async fn uses(memory: &ReplayCache, client: &str, jti: &str, until: u64, now: u64) -> Use {
        memory.record(client, jti, until, now).await.unwrap()
    }

    /// AUTH-07: an assertion is taken once for each client, also after a restart, until it has expired.
    #[tokio::test]
    async fn nothing_is_taken_twice() {
        let dir = tempfile::tempdir().unwrap();
        let memory = own(dir.path(), 1000);
        assert_eq!(uses(&memory, "a", "1", 1300, 1000).await, Use::First);
        assert_eq!(uses(&memory, "a", "1", 1300, 1001).await, Use::Repeated);
        assert_eq!(uses(&memory, "b", "1", 1300, 1001).await, Use::First);
        assert_eq!(uses(&memory, "a", "2", 1900, 1001).await, Use::First, "in another span");
        assert_eq!(uses(&memory, "ab", "", 1300, 1001).await, Use::First);
        assert_eq!(uses(&memory, "a", "b", 1300, 1001).await, Use::First);
        drop(memory);
        let memory = own(dir.path(), 1100);
        for (client, jti, until) in [("a", "1", 1300), ("b", "1", 1300), ("a", "2", 1900)] {
            assert_eq!(uses(&memory, client, jti, until, 1100).await, Use::Repeated, "{client} {jti}");
        }
        assert_eq!(uses(&memory, "a", "1", 2000, 1300).await, Use::First, "it has expired");
        drop(memory);
        let memory = own(dir.path(), 2500);
        assert_eq!(files_of(dir.path()).unwrap().len(), 0, "spans that are over are removed");
        assert_eq!(uses(&memory, "a", "2", 2700, 2500).await, Use::First);
    }

    /// Of many at once with the same id, one is the first; files go when their spans are over.
    #[tokio::test(flavor = "multi_thread")]
    async fn one_of_many_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(own(dir.path(), 0));
        for round in 0..20_u64 {
            let now = round * SPAN_SECONDS;
            let tasks: Vec<_> = (0..32)
                .map(|task| {
                    let memory = memory.clone();
                    tokio::spawn(
                        async move { uses(&memory, "a", &format!("{round}-{}", task % 4), now + 300, now).await },
                    )
                })
                .collect();
            let mut first = 0;
            for task in tasks {
                first += usize::from(task.await.unwrap() == Use::First);
            }
            assert_eq!(first, 4);
            assert!(files_of(dir.path()).unwrap().len() <= 2);
        }
    }

    /// What an unclean end tears is passed over; a damaged record costs no other.
    #[tokio::test]
    async fn torn_and_damaged_records_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let memory = own(dir.path(), 1000);
        for jti in ["1", "2", "3"] {
            uses(&memory, "a", jti, 1300, 1000).await;
        }
        drop(memory);
        let (path, _) = files_of(dir.path()).unwrap().remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[RECORD_BYTES + 3] ^= 1;
        bytes.extend_from_slice(&[7; 20]);
        std::fs::write(&path, &bytes).unwrap();
        let memory = own(dir.path(), 1001);
        for (jti, found) in [("1", Use::Repeated), ("2", Use::First), ("3", Use::Repeated)] {
            assert_eq!(uses(&memory, "a", jti, 1300, 1001).await, found, "{jti}");
        }
        drop(memory);
        let memory = own(dir.path(), 1002);
        assert_eq!(uses(&memory, "a", "2", 1300, 1002).await, Use::Repeated, "written to a file of its own");
    }

    /// A digest that cannot be written is not taken, and may be tried again.
    #[tokio::test]
    async fn what_cannot_be_recorded_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("used");
        let memory = own(&inside, 1000);
        std::fs::remove_dir(&inside).unwrap();
        assert!(memory.record("a", "1", 1300, 1000).await.is_err());
        std::fs::create_dir(&inside).unwrap();
        assert_eq!(uses(&memory, "a", "1", 1300, 1000).await, Use::First);
        assert_eq!(uses(&memory, "a", "1", 1300, 1000).await, Use::Repeated);
    }

    /// AUTH-07: processes that share a directory take an assertion once among them; old digests are removed, other files not.
    #[tokio::test]
    async fn processes_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let memories = [(); 2].map(|()| ReplayCache::Shared(SharedReplayCache::open(dir.path()).unwrap()));
        assert_eq!(uses(&memories[0], "a", "1", 1300, 1000).await, Use::First);
        assert_eq!(uses(&memories[1], "a", "1", 1300, 1000).await, Use::Repeated);
        assert_eq!(uses(&memories[1], "a", "2", 1300, 1000).await, Use::First);
        std::fs::write(dir.path().join("other"), "").unwrap();
        sweep(dir.path(), SystemTime::now()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        sweep(dir.path(), SystemTime::now() + SHARED_AGE * 2).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
