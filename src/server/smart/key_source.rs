//! The key set of a registered client: given in the configuration, in a file, or at a URL, and kept as long as it may be.
//!
//! One request at a time reads a set anew; others that need it wait for the result, and those whose key is kept do not. A key
//! id that is not in a set that is kept has it read once more, since keys are changed at any time; no more often than a pause
//! says, so that forged ids cause no flood of fetches (AUTH-11).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::limits::JWKS_BYTES_MAX;
use crate::server::smart::fetch::KeySetFetcher;
use crate::server::smart::jwk::{KeyChoiceError, KeySet};
use crate::server::smart::jws::{PublicKey, SignatureAlgorithm};
use crate::sys::regular_file::read_regular;

/// Pause between two readings of a set that an unknown key id causes.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a reading that failed, and shortest between any two of one set.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the set of a file is kept.
const FILE_LIFETIME: Duration = Duration::from_secs(60);

/// Where the keys of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyPlace {
    /// In the configuration.
    Inline(KeySet),
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url(String),
}

/// Why no key was found; the variant name is in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySourceError {
    /// The set has no such key.
    Choice(KeyChoiceError),
    /// The set cannot be read for the moment.
    Unavailable,
}

/// The key set of a client, with what is kept of it.
#[derive(Debug)]
pub(crate) struct KeySource {
    place: KeyPlace,
    kept: Mutex<CachedKeySet>,
    /// Held while the set is read: by one request at a time.
    reading: tokio::sync::Mutex<()>,
}

/// What is kept of a set that is read from elsewhere.
#[derive(Debug, Default)]
struct CachedKeySet {
    set: Option<(Arc<KeySet>, Instant)>,
    /// When it was last read, or tried to be.
    read: Option<Instant>,
    /// When it was last read because of an unknown id.
    refreshed: Option<Instant>,
}

impl KeySource {
    /// The source of a place.
    pub(crate) fn new(place: KeyPlace) -> KeySource {
        KeySource { place, kept: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Where its keys are.
    pub(crate) fn place(&self) -> &KeyPlace {
        &self.place
    }

    /// What is wrong with the set, if it is in a file: a sentence. Others are looked at when they are needed. Blocks.
    pub(crate) fn file_problem(&self) -> Option<String> {
        let KeyPlace::File(path) = &self.place else { return None };
        read_file(path).err()
    }

    /// What is kept, behind its lock.
    fn kept(&self) -> MutexGuard<'_, CachedKeySet> {
        self.kept.lock().expect("no panic under it")
    }

    /// The one key with an id for an algorithm (AUTH-09). `client` is the name for the log.
    ///
    /// # Errors
    /// If there is no such key, or the set cannot be read.
    pub(crate) async fn find(
        self: &Arc<Self>,
        client: &str,
        kid: &str,
        algorithm: SignatureAlgorithm,
        fetcher: &KeySetFetcher,
    ) -> Result<PublicKey, KeySourceError> {
        let chosen = |set: &KeySet| set.choose(kid, algorithm).cloned().map_err(KeySourceError::Choice);
        if let KeyPlace::Inline(set) = &self.place {
            return chosen(set);
        }
        // A key that is kept is found also while somebody else has the set read.
        let known = self.kept().valid_set();
        let found = known.map(|set| chosen(&set));
        match found {
            Some(found) if found != NO_KEY || !self.kept().may_refresh() => return found,
            _ => {}
        }
        // Whoever asks may hang up; the reading goes on, and what it finds is kept for the next one.
        let (source, begun) = (self.clone(), Instant::now());
        let (client, kid, fetcher) = (client.to_string(), kid.to_string(), fetcher.clone());
        let reading = async move { source.read_for(&client, &kid, algorithm, &fetcher, begun).await };
        let set = tokio::spawn(reading).await.unwrap_or(Err(KeySourceError::Unavailable))?;
        chosen(&set)
    }

    /// The set, read anew unless that has been done since `begun` or is not needed for the key id.
    ///
    /// # Errors
    /// [`KeySourceError::Unavailable`].
    async fn read_for(
        &self,
        client: &str,
        kid: &str,
        algorithm: SignatureAlgorithm,
        fetcher: &KeySetFetcher,
        begun: Instant,
    ) -> Result<Arc<KeySet>, KeySourceError> {
        let _reading = self.reading.lock().await;
        let (known, is_new) = {
            let kept = self.kept();
            (kept.valid_set(), kept.read.is_some_and(|read| read >= begun))
        };
        let Some(known) = known else { return self.read(client, fetcher).await };
        if is_new || known.choose(kid, algorithm) != Err(KeyChoiceError::NoKey) || !self.kept().may_refresh() {
            return Ok(known);
        }
        let read = self.read(client, fetcher).await;
        self.kept().refreshed = Some(Instant::now());
        // If it cannot be read, the set from before is still good, and has no such key.
        Ok(read.unwrap_or(known))
    }

    /// Reads the set anew, and keeps it.
    ///
    /// # Errors
    /// [`KeySourceError::Unavailable`], also if it was read a moment ago.
    async fn read(&self, client: &str, fetcher: &KeySetFetcher) -> Result<Arc<KeySet>, KeySourceError> {
        {
            let mut kept = self.kept();
            if kept.read.is_some_and(|read| read.elapsed() < RETRY_PAUSE) {
                // What may not be kept at all is used for this moment: each request would cause a fetch otherwise.
                let recent = kept.set.as_ref().filter(|(_, until)| until.elapsed() < RETRY_PAUSE);
                return recent.map(|(set, _)| set.clone()).ok_or(KeySourceError::Unavailable);
            }
            kept.read = Some(Instant::now());
        }
        let (place, fetcher) = (self.place.clone(), fetcher.clone());
        let read = tokio::task::spawn_blocking(move || read_set(&place, &fetcher)).await;
        match read.unwrap_or_else(|_| Err("was not read".to_string())) {
            Ok((set, lifetime)) => {
                let set = Arc::new(set);
                let mut kept = self.kept();
                kept.set = Some((set.clone(), Instant::now() + lifetime));
                kept.read = Some(Instant::now());
                Ok(set)
            }
            Err(problem) => {
                let place = if let KeyPlace::Url(url) = &self.place { url.as_str() } else { "" };
                tracing::error!(client, problem, place, "the key set of a client cannot be used: it gets no tokens");
                self.kept().read = Some(Instant::now());
                Err(KeySourceError::Unavailable)
            }
        }
    }
}

/// What is found in a set that has no key of the id.
const NO_KEY: Result<PublicKey, KeySourceError> = Err(KeySourceError::Choice(KeyChoiceError::NoKey));

impl CachedKeySet {
    /// The set, if it may still be used.
    fn valid_set(&self) -> Option<Arc<KeySet>> {
        self.set.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(set, _)| set.clone())
    }

    /// Whether an unknown id may have it read anew.
    fn may_refresh(&self) -> bool {
        self.refreshed.is_none_or(|last| last.elapsed() >= REFRESH_PAUSE)
            && self.read.is_some_and(|read| read.elapsed() >= RETRY_PAUSE)
    }
}

/// Reads the set of a file. Blocks.
///
/// # Errors
/// A sentence about the file.
fn read_file(path: &Path) -> Result<KeySet, String> {
    let bytes =
        read_regular(path, JWKS_BYTES_MAX).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    KeySet::parse(&bytes).map_err(|problem| format!("{} {problem}", path.display()))
}

/// Reads the set of a place, and how long it may be kept. Blocks.
///
/// # Errors
/// The predicate of a sentence about the set.
fn read_set(place: &KeyPlace, fetcher: &KeySetFetcher) -> Result<(KeySet, Duration), String> {
    match place {
        KeyPlace::Inline(set) => Ok((set.clone(), FILE_LIFETIME)),
        KeyPlace::File(path) => Ok((read_file(path)?, FILE_LIFETIME)),
        KeyPlace::Url(url) => {
            let fetched = fetcher.fetch(url)?;
            Ok((KeySet::parse(&fetched.bytes)?, fetched.lifetime))
        }
    }
}
