//! The key set of a registered client: given in the configuration, in a file, or at a URL, and kept as long as it may be.
//!
//! One request at a time reads a set anew; others that need it wait for the result. A key id that is not in a set that is
//! kept has it read once more, since keys are changed at any time; no more often than a pause says, so that forged ids cause
//! no flood of fetches (AUTH-11).

use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    kept: tokio::sync::Mutex<KeptSet>,
}

/// What is kept of a set that is read from elsewhere.
#[derive(Debug, Default)]
struct KeptSet {
    set: Option<(Arc<KeySet>, Instant)>,
    /// When it was last asked for.
    asked: Option<Instant>,
    /// When it was last asked for because of an unknown id.
    refreshed: Option<Instant>,
}

impl KeySource {
    /// The source of a place.
    pub(crate) fn new(place: KeyPlace) -> KeySource {
        KeySource { place, kept: tokio::sync::Mutex::default() }
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

    /// The one key with an id for an algorithm (AUTH-09). `client` is the name for the log.
    ///
    /// # Errors
    /// If there is no such key, or the set cannot be read.
    pub(crate) async fn find(
        &self,
        client: &str,
        kid: &str,
        algorithm: SignatureAlgorithm,
        fetcher: &KeySetFetcher,
    ) -> Result<PublicKey, KeySourceError> {
        let chosen = |set: &KeySet| set.choose(kid, algorithm).cloned().map_err(KeySourceError::Choice);
        if let KeyPlace::Inline(set) = &self.place {
            return chosen(set);
        }
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        let set = match &kept.set {
            Some((set, until)) if now < *until => set.clone(),
            _ => self.read(client, &mut kept, fetcher).await?,
        };
        let found = chosen(&set);
        let is_old = kept.refreshed.is_none_or(|last| last.elapsed() >= REFRESH_PAUSE)
            && kept.asked.is_some_and(|asked| asked.elapsed() >= RETRY_PAUSE);
        if found != Err(KeySourceError::Choice(KeyChoiceError::NoKey)) || !is_old {
            return found;
        }
        kept.refreshed = Some(now);
        match self.read(client, &mut kept, fetcher).await {
            Ok(set) => chosen(&set),
            // The set from before is still good, and has no such key.
            Err(_) => found,
        }
    }

    /// Reads the set anew, and keeps it.
    ///
    /// # Errors
    /// [`KeySourceError::Unavailable`], also if it was read a moment ago.
    async fn read(
        &self,
        client: &str,
        kept: &mut KeptSet,
        fetcher: &KeySetFetcher,
    ) -> Result<Arc<KeySet>, KeySourceError> {
        if kept.asked.is_some_and(|asked| asked.elapsed() < RETRY_PAUSE) {
            return match &kept.set {
                // What may not be kept at all is used for this moment: each request would cause a fetch otherwise.
                Some((set, until)) if until.elapsed() < RETRY_PAUSE => Ok(set.clone()),
                _ => Err(KeySourceError::Unavailable),
            };
        }
        kept.asked = Some(Instant::now());
        let (place, fetcher) = (self.place.clone(), fetcher.clone());
        let read = tokio::task::spawn_blocking(move || read_set(&place, &fetcher)).await;
        let read = read.unwrap_or_else(|_| Err("was not read".to_string()));
        match read {
            Ok((set, lifetime)) => {
                let set = Arc::new(set);
                kept.set = Some((set.clone(), Instant::now() + lifetime));
                Ok(set)
            }
            Err(problem) => {
                tracing::error!(client, problem, "the key set of a client cannot be used: it gets no tokens");
                Err(KeySourceError::Unavailable)
            }
        }
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
