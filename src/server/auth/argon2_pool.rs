//! Argon2id hashes of earlier versions, and a bounded pool of threads that check secrets against them.
//!
//! A check costs tens of milliseconds of processor time and about 19 MiB of memory, and any client may cause one.
//! Therefore it runs on threads of its own, each with one reused block of memory, behind a queue of bounded length;
//! if the queue is full the caller gets [`PoolBusy`] at once. A check whose client closes its connection while it
//! waits is dropped. Secrets that were right are remembered, so that only the first request with one is slow.
//!
//! No new hash is made here. The locks of the queue and of the remembered secrets are never held at the same time.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use crate::limits::{
    ARGON2_KIB_MAX, ARGON2_LANES_MAX, ARGON2_PASSES_MAX, ARGON2_QUEUE_MAX, ARGON2_THREADS, PROVEN_SECRETS_MAX,
};
#[cfg(test)]
use crate::server::auth::secret_hash::SecretHash;
use crate::server::connection::request_tracker::Peer;

/// An argon2id hash of bounded cost. `Debug` does not show it.
pub(crate) struct Argon2Hash {
    /// The hash in the PHC string format, as configured.
    text: String,
    argon2: Argon2<'static>,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Argon2Hash {
    /// Reads an argon2id hash, slow to check and so left to the threads of the pool, in the PHC string format.
    ///
    /// # Errors
    /// The predicate of a sentence whose subject is the key, if the text is no such hash or its cost exceeds the
    /// limits. The text is not repeated.
    pub(crate) fn parse(text: &str) -> Result<Argon2Hash, String> {
        let made = "make one with outpour credential";
        let parsed = PasswordHash::new(text).ok().filter(|parsed| parsed.algorithm.as_str() == "argon2id");
        let parts = parsed.as_ref().and_then(|parsed| {
            let hash = parsed.hash.filter(|hash| hash.len() >= 16)?;
            Some((parsed, parsed.salt?, hash, Params::try_from(parsed).ok()?))
        });
        let Some((parsed, salt, hash, params)) = parts else {
            return Err(format!("is no argon2id hash in the PHC string format; {made}"));
        };
        let known_version = parsed.version.is_none_or(|version| version == 19);
        let is_affordable = params.m_cost() <= ARGON2_KIB_MAX && params.t_cost() <= ARGON2_PASSES_MAX;
        if !known_version || !is_affordable || params.p_cost() > ARGON2_LANES_MAX {
            return Err(format!(
                "costs more than m={ARGON2_KIB_MAX}, t={ARGON2_PASSES_MAX}, p={ARGON2_LANES_MAX}, or is of another \
                 version than 19; {made}"
            ));
        }
        Ok(Argon2Hash {
            text: text.to_string(),
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            salt: salt.to_vec(),
            hash: hash.as_bytes().to_vec(),
        })
    }

    /// The slow check, on a thread of the argon2 pool: whether the hash is of `secret`, compared in constant time.
    /// `None` if there is no memory for it; `memory`, the thread's own, is enlarged if it is too small.
    fn is_of(&self, secret: &str, memory: &mut Vec<Block>) -> Option<bool> {
        let blocks = self.argon2.params().block_count();
        if memory.len() < blocks {
            // The old memory is freed first, so that the two are never held together.
            *memory = Vec::new();
            memory.try_reserve_exact(blocks).ok()?;
            memory.resize(blocks, Block::new());
        }
        let mut found = vec![0; self.hash.len()];
        self.argon2.hash_password_into_with_memory(secret.as_bytes(), &self.salt, &mut found, memory).ok()?;
        Some(bool::from(found.ct_eq(&self.hash)))
    }
}

impl std::fmt::Debug for Argon2Hash {
    /// Shows nothing of a hash that the argon2 pool checks.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Argon2Hash(..)")
    }
}

/// The queue is full, or the client closed its connection while its check waited. A later attempt may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolBusy;

/// The pool of checking threads. They start with the first checks and end when the pool is dropped.
pub(crate) struct Argon2Pool {
    /// Key of `proven`: random, of this process alone.
    key: [u8; 32],
    /// Digests of secrets that were right, together with their hashes.
    proven: Mutex<HashSet<[u8; 32]>>,
    /// Largest number of threads.
    threads_max: usize,
    queue: Arc<SharedQueue>,
}

/// The queue of checks, shared by the pool and its threads.
#[derive(Default)]
struct SharedQueue {
    queue: Mutex<CheckQueue>,
    changed: Condvar,
}

/// Waiting checks and the state of the threads.
#[derive(Default)]
struct CheckQueue {
    waiting: VecDeque<SecretCheck>,
    /// Threads that have been started.
    threads: usize,
    /// Threads that run a check.
    busy: usize,
    /// Whether the pool has been dropped, so that the threads end.
    is_over: bool,
}

/// A check that waits for a thread.
struct SecretCheck {
    hash: Arc<Argon2Hash>,
    secret: String,
    answer: oneshot::Sender<bool>,
    /// The client, if no thread was free for the check at once; else `None`.
    waiting_peer: Option<Peer>,
}

impl SecretCheck {
    /// Whether the check need not run: its request was dropped, or its client closed its side of the connection while
    /// the check had to wait. Such a client may still read, and is answered to try again.
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed() || self.waiting_peer.as_ref().is_some_and(Peer::has_closed)
    }
}

impl SharedQueue {
    /// Locks the queue of checks.
    fn lock(&self) -> MutexGuard<'_, CheckQueue> {
        self.queue.lock().expect("no panic under it")
    }

    /// Takes the oldest check that is not abandoned; blocks until there is one. `None` once the pool is dropped.
    fn next(&self) -> Option<SecretCheck> {
        let mut queue = self.lock();
        loop {
            if queue.is_over {
                return None;
            }
            match queue.waiting.pop_front() {
                // Dropping its sender answers the request with `PoolBusy`.
                Some(check) if check.is_abandoned() => drop(check),
                Some(check) => {
                    queue.busy += 1;
                    return Some(check);
                }
                None => queue = self.changed.wait(queue).expect("no panic under it"),
            }
        }
    }

    /// Runs checks until the pool is dropped; the body of each thread.
    fn run_thread(&self) {
        let mut memory = Vec::new();
        while let Some(check) = self.next() {
            let is_right = check.hash.is_of(&check.secret, &mut memory);
            self.lock().busy -= 1;
            // Without memory the check is dropped, and its request answered as if the queue were full.
            if let Some(is_right) = is_right {
                check.answer.send(is_right).ok();
            }
        }
    }
}

impl Argon2Pool {
    /// A pool that remembers no secret yet. `key` is random and of this process alone.
    pub(crate) fn new(key: [u8; 32]) -> Argon2Pool {
        Argon2Pool::with_threads(key, ARGON2_THREADS)
    }

    /// A pool of at most `threads_max` threads.
    fn with_threads(key: [u8; 32], threads_max: usize) -> Argon2Pool {
        Argon2Pool { key, proven: Mutex::default(), threads_max, queue: Arc::default() }
    }

    /// Whether `hash` is of `secret`; immediate for a secret that was right before. `peer` is the client that waits.
    ///
    /// # Errors
    /// If too many checks wait, no memory or thread is available, or the client closes its side of the connection
    /// while its check waits.
    pub(crate) async fn is_right(
        &self,
        hash: &Arc<Argon2Hash>,
        secret: &str,
        peer: Option<&Peer>,
    ) -> Result<bool, PoolBusy> {
        let digest = self.digest(hash, secret);
        if self.lock_proven().contains(&digest) {
            return Ok(true);
        }
        let is_right = self.enqueue(hash, secret, peer)?.await.map_err(|_| PoolBusy)?;
        if is_right {
            let mut proven = self.lock_proven();
            if proven.len() >= PROVEN_SECRETS_MAX {
                // Forgotten secrets are checked again at their next use.
                proven.clear();
            }
            proven.insert(digest);
        }
        Ok(is_right)
    }

    /// Keyed digest of a secret and its hash: a changed hash needs a new check. The key is secret, so that the time
    /// of a look-up discloses nothing.
    fn digest(&self, hash: &Argon2Hash, secret: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update((hash.text.len() as u64).to_le_bytes());
        digest.update(hash.text.as_bytes());
        digest.update(secret.as_bytes());
        digest.finalize().into()
    }

    /// Locks the digests of secrets that were right.
    fn lock_proven(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.proven.lock().expect("no panic under it")
    }

    /// Queues a check, and starts threads up to the maximum.
    ///
    /// # Errors
    /// If the queue is full, or no thread runs and none can be started.
    fn enqueue(
        &self,
        hash: &Arc<Argon2Hash>,
        secret: &str,
        peer: Option<&Peer>,
    ) -> Result<oneshot::Receiver<bool>, PoolBusy> {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= ARGON2_QUEUE_MAX {
            queue.waiting.retain(|check| !check.is_abandoned());
        }
        if queue.waiting.len() >= ARGON2_QUEUE_MAX {
            return Err(PoolBusy);
        }
        while queue.threads < self.threads_max {
            let shared = self.queue.clone();
            match std::thread::Builder::new().name("argon2".into()).spawn(move || shared.run_thread()) {
                Ok(_) => queue.threads += 1,
                Err(error) => {
                    tracing::error!(%error, "a thread that checks credentials cannot be started");
                    if queue.threads == 0 {
                        return Err(PoolBusy);
                    }
                    break;
                }
            }
        }
        let is_free = queue.waiting.len() + queue.busy < queue.threads;
        let waiting_peer = peer.filter(|_| !is_free).cloned();
        if let Some(peer) = &waiting_peer {
            peer.watch();
        }
        let (answer, answered) = oneshot::channel();
        queue.waiting.push_back(SecretCheck { hash: hash.clone(), secret: secret.to_string(), answer, waiting_peer });
        drop(queue);
        self.queue.changed.notify_one();
        Ok(answered)
    }
}

impl Drop for Argon2Pool {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.is_over = true;
        queue.waiting.clear();
        drop(queue);
        self.queue.changed.notify_all();
    }
}

impl std::fmt::Debug for Argon2Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Argon2Pool(..)")
    }
}

/// An argon2id hash with the default cost, as earlier versions made them, for tests of the argon2 pool.
#[cfg(test)]
pub(crate) fn hash_as_before(secret: &str, salt: &[u8; 16]) -> SecretHash {
    use argon2::password_hash::CustomizedPasswordHasher;
    let hashed = Argon2::default().hash_password_customized(secret.as_bytes(), salt, None, None, Params::DEFAULT);
    SecretHash(hashed.unwrap().to_string())
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    fn right_with(salt: u8) -> Arc<Argon2Hash> {
        Arc::new(Argon2Hash::parse(&hash_as_before("right", &[salt; 16]).0).unwrap())
    }

    fn right() -> Arc<Argon2Hash> {
        right_with(1)
    }

    /// The result of a future that is ready at its first poll; `None` if it is not.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    /// AUTH-28: right and wrong secrets are distinguished, a right one at once the second time; another hash of the
    /// same secret is checked again.
    #[tokio::test]
    async fn right_secrets_are_remembered() {
        let pool = Argon2Pool::new([1; 32]);
        let (first, second) = (right(), right_with(2));
        for wrong in ["wrong", "", "right "] {
            assert_eq!(pool.is_right(&first, wrong, None).await, Ok(false));
            assert_eq!(at_once(pool.is_right(&first, wrong, None)), None, "it is not remembered");
        }
        assert_eq!(at_once(pool.is_right(&first, "right", None)), None);
        assert_eq!(pool.is_right(&first, "right", None).await, Ok(true));
        assert_eq!(at_once(pool.is_right(&first, "right", None)), Some(Ok(true)));
        assert_eq!(at_once(pool.is_right(&second, "right", None)), None);
        assert_eq!(pool.is_right(&second, "right", None).await, Ok(true));
        assert!(format!("{pool:?} {first:?}").len() < 40, "nothing of it is shown");
    }

    /// CORE-08: the queue is bounded; abandoned checks make room.
    #[test]
    fn the_queue_is_bounded() {
        let pool = Argon2Pool::with_threads([1; 32], 0);
        let hash = right();
        let mut waiting: Vec<_> = (0..ARGON2_QUEUE_MAX).map(|_| pool.enqueue(&hash, "wrong", None).unwrap()).collect();
        assert_eq!(pool.enqueue(&hash, "right", None).err(), Some(PoolBusy));
        assert_eq!(at_once(pool.is_right(&hash, "right", None)), Some(Err(PoolBusy)));
        drop(waiting.pop());
        let kept = pool.enqueue(&hash, "right", None).unwrap();
        assert_eq!(pool.enqueue(&hash, "right", None).err(), Some(PoolBusy));
        drop(waiting);
        let shared = pool.queue.clone();
        let worker = std::thread::spawn(move || shared.run_thread());
        assert_eq!(kept.blocking_recv(), Ok(true), "the only one that anybody waits for");
        drop(pool);
        worker.join().unwrap();
    }

    /// A waiting check is dropped when its client closes; a check that did not wait is answered.
    #[test]
    fn checks_of_closed_connections_are_dropped() {
        let pool = Argon2Pool::with_threads([1; 32], 0);
        let hash = right();
        let (gone, stays) = (Peer::default(), Peer::default());
        let (dropped, kept) =
            (pool.enqueue(&hash, "right", Some(&gone)).unwrap(), pool.enqueue(&hash, "right", Some(&stays)).unwrap());
        gone.close();
        for _ in 2..ARGON2_QUEUE_MAX {
            drop(pool.enqueue(&hash, "wrong", None).unwrap());
        }
        let shared = pool.queue.clone();
        let worker = std::thread::spawn(move || shared.run_thread());
        assert_eq!(kept.blocking_recv(), Ok(true));
        assert!(dropped.blocking_recv().is_err(), "dropped, so that the client is told to ask again");
        drop(pool);
        worker.join().unwrap();

        let pool = Argon2Pool::with_threads([1; 32], 1);
        let answered = pool.enqueue(&hash, "right", Some(&gone)).unwrap();
        assert_eq!(answered.blocking_recv(), Ok(true), "a thread was free for it");
    }

    /// CORE-08: each thread has one block of memory, which it reuses for every hash.
    #[test]
    fn memory_is_used_again() {
        let (small, larger) = (right(), right().text.replace("m=19456", "m=32768"));
        let large = Argon2Hash::parse(&larger).unwrap();
        let mut memory = Vec::new();
        assert_eq!(small.is_of("right", &mut memory), Some(true));
        let first = memory.as_ptr();
        assert_eq!(small.is_of("wrong", &mut memory), Some(false));
        assert_eq!((memory.as_ptr(), memory.len()), (first, 19456));
        assert_eq!(large.is_of("right", &mut memory), Some(false), "another cost is another hash");
        assert_eq!((memory.len(), memory.capacity()), (32768, 32768));
        assert_eq!(small.is_of("right", &mut memory), Some(true), "what was there before does not matter");
    }

    /// Threads end with the pool, and waiting checks get an error.
    #[test]
    fn threads_end() {
        let pool = Argon2Pool::new([1; 32]);
        let hash = right();
        let answers: Vec<_> = (0..8).map(|_| pool.enqueue(&hash, "wrong", None).unwrap()).collect();
        let shared = Arc::downgrade(&pool.queue);
        drop(pool);
        answers.into_iter().for_each(|answer| assert_ne!(answer.blocking_recv(), Ok(true)));
        let ended = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            shared.strong_count() == 0
        });
        assert!(ended);
    }

    /// Hashes that cost too much, and other texts, are refused.
    #[test]
    fn hashes_are_checked() {
        let made = right().text.clone();
        assert!(Argon2Hash::parse(&made).is_ok());
        for (from, to) in [
            ("m=19456", "m=4294967295"),
            ("t=2", "t=100000"),
            ("p=1", "p=255"),
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("$argon2id", "right"),
        ] {
            assert!(made.contains(from) && Argon2Hash::parse(&made.replace(from, to)).is_err(), "{to}");
        }
        for text in ["", "right", &made[..30], made.rsplit_once('$').unwrap().0] {
            assert!(Argon2Hash::parse(text).is_err(), "{text}");
        }
    }
}
