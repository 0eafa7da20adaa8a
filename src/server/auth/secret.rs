//! Secrets of clients: generation, hashing, comparison.
//!
//! Every generated secret is 256 random bits. It cannot be found by trial whatever a trial costs, so that SHA-256
//! protects it as well as a slow hash would, while a slow hash would let any client consume memory and processor time
//! with bogus tokens. The hash has no salt, since no two secrets are equal and no table of 256-bit secrets can be
//! built. The id is not hashed: a client whose `client_id` changes keeps its secret. The hashed text begins with a
//! label, so that the plain SHA-256 of a chosen password is never accepted as a hash by mistake.
//!
//! Argon2id hashes of earlier versions in the PHC string format are read as well; `argon2_pool` checks them. Nothing
//! here shows a secret or says why one is wrong.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::server::auth::argon2_pool::Argon2Hash;
use crate::server::auth::secret_hash::SecretHash;

/// Prefix of a hash that is made here, before its 64 hexadecimal digits. Its version covers [`LABEL`] and the hashed
/// text.
const PREFIX: &str = "$sha256$v=1$";
/// Bytes that are hashed before the secret.
const LABEL: &[u8] = b"outpour credential 1:";

/// A parsed hash of the configuration.
#[derive(Clone, Debug)]
pub(crate) enum StoredHash {
    /// SHA-256 of [`LABEL`] and the secret.
    Sha256(Sha256Hash),
    /// Argon2id, as earlier versions made it.
    Argon2(Arc<Argon2Hash>),
}

/// SHA-256 of [`LABEL`] and a secret. `Debug` does not show it.
#[derive(Clone, Copy)]
pub(crate) struct Sha256Hash([u8; 32]);

/// A new secret: 256 random bits as hexadecimal digits.
pub(crate) fn random_secret() -> String {
    [crate::server::ids::new_id(), crate::server::ids::new_id()].concat()
}

/// A new public id to go with a client's secret: 64 random bits as hexadecimal digits.
pub(crate) fn random_id() -> String {
    crate::server::ids::new_id()[..16].to_string()
}

/// Hashes a secret with SHA-256, as the text that the configuration holds.
pub(crate) fn hash(secret: &str) -> SecretHash {
    let digits: String = Sha256Hash::of(secret).0.iter().map(|byte| format!("{byte:02x}")).collect();
    SecretHash(format!("{PREFIX}{digits}"))
}

impl StoredHash {
    /// Reads the hash of a client's secret from its text in the configuration, SHA-256 or Argon2id; refuses one that
    /// cannot be checked in bounded time and memory.
    ///
    /// # Errors
    /// The predicate of a sentence whose subject is the key. The text is not repeated: it may be a secret in the
    /// wrong place.
    pub(crate) fn parse(text: &SecretHash) -> Result<StoredHash, String> {
        let text = text.0.as_str();
        if let Some(digits) = text.strip_prefix(PREFIX) {
            let hash = Sha256Hash::parse(digits).map(StoredHash::Sha256);
            return hash.ok_or_else(|| {
                "is cut off, or has other characters than 64 hexadecimal digits in lower case; make one with outpour \
                 credential"
                    .to_string()
            });
        }
        if text.starts_with("$argon2id$") {
            return Argon2Hash::parse(text).map(|hash| StoredHash::Argon2(Arc::new(hash)));
        }
        Err(format!(
            "does not begin with {PREFIX} (nor with $argon2id$, as earlier versions made it); make one with outpour credential"
        ))
    }
}

impl Sha256Hash {
    /// Hashes a client's secret, behind the label, with SHA-256.
    pub(crate) fn of(secret: &str) -> Sha256Hash {
        let mut digest = Sha256::new();
        digest.update(LABEL);
        digest.update(secret.as_bytes());
        Sha256Hash(digest.finalize().into())
    }

    /// Reads the SHA-256 of a client's secret from 64 hexadecimal digits in lower case; `None` for any other text.
    fn parse(digits: &str) -> Option<Sha256Hash> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let mut hash = [0; 32];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        Some(Sha256Hash(hash))
    }

    /// Whether `hash` is of a client's `secret`, compared in constant time. Without a hash the result is false after
    /// the same work.
    pub(crate) fn is_of(hash: Option<&Sha256Hash>, secret: &str) -> bool {
        let found = Sha256Hash::of(secret);
        // The complement of the computed hash never equals it.
        let wanted = hash.copied().unwrap_or(Sha256Hash(found.0.map(|byte| !byte)));
        bool::from(found.0.ct_eq(&wanted.0))
    }
}

impl std::fmt::Debug for Sha256Hash {
    /// Shows nothing of the SHA-256 of a client's secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256Hash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AUTH-28: the form is pinned, since configurations hold it. The digits are the `sha256sum` of label and secret.
    #[test]
    fn the_form_of_a_hash() {
        let made = hash("right");
        assert_eq!(made.0, "$sha256$v=1$02c53dda1ff8a062161831d062f1dc5dd433dd66074a0f8cd9f11c527a110523");
        let Ok(StoredHash::Sha256(read)) = StoredHash::parse(&made) else { panic!("{made:?}") };
        assert!(Sha256Hash::is_of(Some(&read), "right"));
        for wrong in ["", "righ", "right ", "Right", &made.0] {
            assert!(!Sha256Hash::is_of(Some(&read), wrong) && !Sha256Hash::is_of(None, wrong), "{wrong}");
        }
        assert!(!Sha256Hash::is_of(None, "right"));
        assert!(!format!("{:?}", StoredHash::parse(&made)).contains(&made.0[20..]), "nothing of it is shown");
    }

    /// Other texts and unknown versions are refused with advice, and not repeated.
    #[test]
    fn hashes_are_checked() {
        let made = hash("right").0;
        let digits = made.strip_prefix(PREFIX).unwrap();
        for text in [
            String::new(),
            "right".into(),
            digits.to_string(),
            made[..made.len() - 1].to_string(),
            format!("{made}0"),
            made.to_uppercase(),
            made.replace("v=1", "v=2"),
            made.replace("v=1$", ""),
            format!("{PREFIX}{}", digits.to_uppercase()),
            format!("{PREFIX}{}", "é".repeat(32)),
            "$sha512$v=1$00".into(),
            "$2b$12$abcdefghijklmnopqrstuv".into(),
        ] {
            let reported = StoredHash::parse(&SecretHash(text.clone())).unwrap_err();
            assert!(reported.contains("outpour credential") && !reported.contains(digits), "{text}: {reported}");
        }
    }

    /// AUTH-27: secrets are 256 random bits.
    #[test]
    fn secrets_are_random() {
        let (first, second) = (random_secret(), random_secret());
        assert!(first.len() == 64 && first != second && first[..32] != first[32..]);
        assert_eq!(random_id().len(), 16);
    }
}
