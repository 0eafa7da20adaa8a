//! The keys that access tokens are signed with: ours, on the disk, changed again and again.
//!
//! The newest key signs. A key is replaced when it is old enough, and checks signatures until the last token that it signed has
//! expired. The file is private (0600), and written whole before a key in it is used. A file that cannot be read is set aside:
//! new keys cost the clients a token that lives for minutes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use base64ct::{Base64, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use crate::limits::CONFIG_BYTES_MAX;
use crate::server::smart::jws::{Curve, PublicKey, SignatureAlgorithm, encode_part};
use crate::sys::durability::{FileSync, replace_file_with};
use crate::sys::private_files::private_directory;
use crate::sys::regular_file::{Links, read_regular_as};

/// Name of the file in the directory of the service's keys.
const FILE: &str = "signing-keys.json";
/// The algorithm of access tokens.
pub(crate) const TOKEN_ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Es256;

/// A key of ours.
pub(crate) struct SigningKey {
    /// Its id.
    pub kid: String,
    /// The header of every token that it signs, encoded.
    pub header: String,
    /// The key that checks its signatures.
    pub public: PublicKey,
    pair: EcdsaKeyPair,
    /// Second of Unix time at which it was made.
    made: u64,
    /// PKCS #8 of the pair.
    document: Vec<u8>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// The file of keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    keys: Vec<StoredKey>,
}

/// A key in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    kid: String,
    made: u64,
    pkcs8: String,
}

/// How long keys are used, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyAges {
    /// Age from which on another key signs.
    pub signs: u64,
    /// For how long a key checks signatures after it has signed its last token.
    pub checks_on: u64,
}

/// The keys in force, the newest first.
#[derive(Debug)]
pub(crate) struct SigningKeys {
    path: PathBuf,
    sync: FileSync,
    ages: KeyAges,
    keys: RwLock<Arc<Vec<Arc<SigningKey>>>>,
    /// Held while keys are replaced.
    replacing: Mutex<()>,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    fn generate(now: u64) -> io::Result<SigningKey> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let document = document.map_err(|_| io::Error::other("no key can be made"))?;
        let kid = encode_part(&crate::server::ids::random());
        SigningKey::read(kid, now, document.as_ref().to_vec()).ok_or_else(|| io::Error::other("no key can be made"))
    }

    /// The key of a PKCS #8 document; `None` if it is none.
    fn read(kid: String, made: u64, document: Vec<u8>) -> Option<SigningKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &SystemRandom::new()).ok()?;
        let public = PublicKey::Elliptic { curve: Curve::P256, point: pair.public_key().as_ref().to_vec() };
        let header = serde_json::json!({ "alg": TOKEN_ALGORITHM.name(), "typ": "at+jwt", "kid": kid });
        Some(SigningKey { header: encode_part(header.to_string().as_bytes()), kid, public, pair, made, document })
    }

    /// The signature of a message.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| io::Error::other("a token cannot be signed"))
    }
}

impl SigningKeys {
    /// The keys in a directory, which is made if it is missing. None is made before a token is signed.
    ///
    /// # Errors
    /// The system's, if the file cannot be read or set aside.
    pub(crate) fn open(directory: &Path, sync: FileSync, ages: KeyAges) -> io::Result<SigningKeys> {
        private_directory(directory)?;
        let path = directory.join(FILE);
        let keys = match read_regular_as(&path, CONFIG_BYTES_MAX, Links::Refuse) {
            Ok(bytes) => match read_keys(&bytes) {
                Some(keys) => keys,
                None => {
                    std::fs::rename(&path, directory.join(format!("{FILE}.damaged")))?;
                    tracing::error!(
                        "the file of signing keys is damaged, and set aside: tokens from before are not taken any more"
                    );
                    Vec::new()
                }
            },
            Err(error) if error.is_absence() => Vec::new(),
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        Ok(SigningKeys { path, sync, ages, keys: RwLock::new(Arc::new(keys)), replacing: Mutex::new(()) })
    }

    /// The keys in force.
    pub(crate) fn keys(&self) -> Arc<Vec<Arc<SigningKey>>> {
        self.keys.read().expect("no panic under it").clone()
    }

    /// The key that signs at a second of Unix time, which is made if the newest is too old. Blocks, if it is made.
    ///
    /// # Errors
    /// The system's, if a new key cannot be made or written.
    pub(crate) fn signing_key(&self, now: u64) -> io::Result<Arc<SigningKey>> {
        if let Some(key) = self.fresh_key(now) {
            return Ok(key);
        }
        let _replacing = self.replacing.lock().expect("no panic under it");
        if let Some(key) = self.fresh_key(now) {
            return Ok(key);
        }
        let key = Arc::new(SigningKey::generate(now)?);
        let checks =
            |key: &&Arc<SigningKey>| now < key.made.saturating_add(self.ages.signs).saturating_add(self.ages.checks_on);
        let keys: Vec<Arc<SigningKey>> =
            [key.clone()].into_iter().chain(self.keys().iter().filter(checks).cloned()).collect();
        let stored = |key: &Arc<SigningKey>| StoredKey {
            kid: key.kid.clone(),
            made: key.made,
            pkcs8: Base64::encode_string(&key.document),
        };
        let file = KeyFile { version: 1, keys: keys.iter().map(stored).collect() };
        let text = serde_json::to_vec(&file).map_err(io::Error::other)?;
        replace_file_with(&self.path, self.sync, &mut |out| out.write_all(&text))?;
        *self.keys.write().expect("no panic under it") = Arc::new(keys);
        tracing::info!(kid = key.kid, "access tokens are signed with a new key");
        Ok(key)
    }

    /// The newest key, if it may still sign. One from the future, of a clock that was put back, may.
    pub(crate) fn fresh_key(&self, now: u64) -> Option<Arc<SigningKey>> {
        self.keys().first().filter(|key| now < key.made.saturating_add(self.ages.signs)).cloned()
    }
}

/// The keys of a file; `None` if it is none of ours.
fn read_keys(bytes: &[u8]) -> Option<Vec<Arc<SigningKey>>> {
    let file: KeyFile = serde_json::from_slice(bytes).ok()?;
    let read = |stored: StoredKey| {
        let document = Base64::decode_vec(&stored.pkcs8).ok()?;
        SigningKey::read(stored.kid, stored.made, document).map(Arc::new)
    };
    let mut keys: Vec<Arc<SigningKey>> = file.keys.into_iter().map(read).collect::<Option<_>>()?;
    keys.sort_by_key(|key| std::cmp::Reverse(key.made));
    (file.version == 1).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const AGES: KeyAges = KeyAges { signs: 1000, checks_on: 100 };

    fn open(directory: &Path) -> SigningKeys {
        SigningKeys::open(directory, FileSync::Yes, AGES).unwrap()
    }

    /// Keys outlive a restart, are replaced when they are old, and check signatures until the last token has expired.
    #[test]
    fn keys_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "none before one is needed");
        let first = keys.signing_key(5000).unwrap();
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let keys = open(dir.path());
        assert_eq!(keys.signing_key(5999).unwrap().kid, first.kid);
        let signature = keys.signing_key(5999).unwrap().sign(b"message").unwrap();
        assert!(first.public.has_signed(TOKEN_ALGORITHM, b"message", &signature));
        assert!(!first.public.has_signed(TOKEN_ALGORITHM, b"messagf", &signature));
        let second = keys.signing_key(6000).unwrap();
        assert_ne!(second.kid, first.kid);
        assert_eq!(keys.keys().len(), 2, "the first still checks");
        let third = open(dir.path()).signing_key(7050).unwrap();
        let kept: Vec<String> = open(dir.path()).keys().iter().map(|key| key.kid.clone()).collect();
        assert_eq!(kept, [third.kid.clone(), second.kid.clone()], "the first checks no more");
    }

    /// A link in the place of the file is not followed: whoever made it could give keys of their own.
    #[test]
    fn links_are_not_followed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        open(other.path()).signing_key(1).unwrap();
        std::os::unix::fs::symlink(other.path().join(FILE), dir.path().join(FILE)).unwrap();
        assert!(open(dir.path()).keys().is_empty());
    }

    /// What is no file of keys is set aside, and new ones are made.
    #[test]
    fn damaged_files_are_set_aside() {
        for bytes in [
            "",
            "{",
            "{\"version\":2,\"keys\":[]}",
            "{\"version\":1,\"keys\":[{\"kid\":\"a\",\"made\":1,\"pkcs8\":\"AAAA\"}]}",
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), bytes).unwrap();
            let keys = open(dir.path());
            assert_eq!(keys.keys().len(), 0, "{bytes}");
            assert!(dir.path().join(format!("{FILE}.damaged")).exists());
            keys.signing_key(1).unwrap();
            assert_eq!(open(dir.path()).keys().len(), 1);
        }
    }
}
