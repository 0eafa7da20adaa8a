//! Secrets: how they are made, hashed and checked.
//!
//! A secret is 256 random bits, kept as a salted argon2id hash. The first request with it pays for the hash; from then on
//! a digest under a key that this process alone knows stands for the proof, so that polls cost next to nothing. Nothing
//! here shows a secret or says why one was wrong.

use std::collections::HashSet;
use std::sync::Mutex;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{CustomizedPasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use sha2::{Digest, Sha256};

use super::config::SecretHash;
use crate::limits::{HASH_KIB_MAX, HASH_LANES_MAX, HASH_PASSES_MAX, VERIFIED_MAX};

/// A hash that costs as much as those that are made here, and is of no secret that anybody knows.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm8gc2VjcmV0IGhlcmUgIQ$Uj1kZw8kY0bAW2tLJz0yN1pQm6s3vYd5h8xCq4nRe7E";

/// Hexadecimal digits of 256 random bits.
pub fn random_secret() -> String {
    [super::super::new_id(), super::super::new_id()].concat()
}

/// Hexadecimal digits of 64 random bits, for an id that is public.
pub fn random_id() -> String {
    super::super::new_id()[..16].to_string()
}

/// The hash of a secret, as the configuration holds it.
pub fn hash(secret: &str, salt: &[u8; 16]) -> SecretHash {
    let hashed = Argon2::default().hash_password_customized(secret.as_bytes(), salt, None, None, Params::DEFAULT);
    SecretHash(hashed.expect("parameters and salt are legal").to_string())
}

/// Whether a text is a hash that can be checked in bounded time and memory.
///
/// # Errors
/// The rest of a sentence that begins with its name. The text is not repeated.
pub fn check_hash(hash: &SecretHash) -> Result<(), String> {
    let made = "make one with outpour credential";
    let parsed = PasswordHash::new(&hash.0).ok().filter(|parsed| parsed.algorithm.as_str() == "argon2id");
    let whole = parsed.filter(|parsed| parsed.salt.is_some() && parsed.hash.is_some_and(|hash| hash.len() >= 16));
    let params = whole.as_ref().and_then(|parsed| Params::try_from(parsed).ok());
    let (Some(parsed), Some(params)) = (whole, params) else {
        return Err(format!("is no argon2id hash in the PHC string format; {made}"));
    };
    let known_version = parsed.version.is_none_or(|version| version == 19);
    let within = params.m_cost() <= HASH_KIB_MAX && params.t_cost() <= HASH_PASSES_MAX;
    match known_version && within && params.p_cost() <= HASH_LANES_MAX {
        true => Ok(()),
        false => Err(format!(
            "costs more than m={HASH_KIB_MAX}, t={HASH_PASSES_MAX}, p={HASH_LANES_MAX}, or is of another version than \
             19; {made}"
        )),
    }
}

/// Checks secrets, and remembers which ones were right.
pub struct Checker {
    key: [u8; 32],
    right: Mutex<HashSet<[u8; 32]>>,
}

impl Checker {
    /// Remembers nothing yet. `key` is random and of this process alone.
    pub fn new(key: [u8; 32]) -> Checker {
        Checker { key, right: Mutex::default() }
    }

    /// Stands for a secret and the hash that it was right for: another hash in the configuration needs another proof.
    /// The digest never leaves, and its key is not known outside, so that looking it up tells nothing by its time.
    fn digest(&self, hash: &SecretHash, secret: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update((hash.0.len() as u64).to_le_bytes());
        digest.update(hash.0.as_bytes());
        digest.update(secret.as_bytes());
        digest.finalize().into()
    }

    fn right(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.right.lock().expect("no panic under it")
    }

    /// Whether a secret was right for this hash before.
    pub fn remembers(&self, hash: &SecretHash, secret: &str) -> bool {
        self.right().contains(&self.digest(hash, secret))
    }

    /// Whether a secret is the one that was hashed. Without a hash it is not, after the time that a hash takes. Costs tens
    /// of milliseconds unless [`Checker::remembers`]; compares in constant time.
    pub fn is_right(&self, hash: Option<&SecretHash>, secret: &str) -> bool {
        let Some(hash) = hash else {
            is_hash_of(NOBODYS, secret);
            return false;
        };
        let digest = self.digest(hash, secret);
        if self.right().contains(&digest) {
            return true;
        }
        let is_right = is_hash_of(&hash.0, secret);
        if is_right {
            let mut right = self.right();
            if right.len() >= VERIFIED_MAX {
                // They prove themselves again.
                right.clear();
            }
            right.insert(digest);
        }
        is_right
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checker(..)")
    }
}

fn is_hash_of(hash: &str, secret: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// AUTH-28: what is right is told from what is wrong, the second time at once; for another hash of the same secret it
    /// must be proven again.
    #[test]
    fn right_secrets_are_remembered() {
        let checker = Checker::new([1; 32]);
        let (first, second) = (hash("right", &[1; 16]), hash("right", &[2; 16]));
        assert_ne!(first, second, "salted");
        assert!(!checker.remembers(&first, "right"));
        assert!(!checker.is_right(Some(&first), "wrong") && !checker.remembers(&first, "wrong"));
        assert!(checker.is_right(Some(&first), "right") && checker.remembers(&first, "right"));
        assert!(!checker.remembers(&second, "right") && !checker.remembers(&first, "righ"));
        assert!(!checker.is_right(None, "right"));
        assert!(format!("{checker:?} {first:?}").len() < 40, "nothing of it is shown");
    }

    /// A secret for which there is no hash costs what a wrong one costs: otherwise ids could be guessed one by one.
    #[test]
    fn unknown_costs_what_wrong_costs() {
        assert!(check_hash(&SecretHash(NOBODYS.into())).is_ok());
        let params = |hash: &str| Params::try_from(&PasswordHash::new(hash).unwrap()).unwrap();
        let made = hash("right", &[1; 16]);
        let cost = |hash: &str| (params(hash).m_cost(), params(hash).t_cost(), params(hash).p_cost());
        assert_eq!(cost(NOBODYS), cost(&made.0));
        let checker = Checker::new([1; 32]);
        let time = |hash: Option<&SecretHash>| {
            let runs = (0..5).map(|_| {
                let begun = Instant::now();
                assert!(!checker.is_right(hash, "wrong"));
                begun.elapsed()
            });
            runs.min().unwrap()
        };
        let (unknown, wrong) = (time(None), time(Some(&made)));
        assert!(unknown * 4 > wrong && wrong * 4 > unknown, "{unknown:?} {wrong:?}");
    }

    /// What costs too much, or is no such hash, is refused.
    #[test]
    fn hashes_are_checked() {
        let made = hash("right", &[1; 16]);
        assert_eq!(check_hash(&made), Ok(()));
        for (from, to) in [
            ("m=19456", "m=4294967295"),
            ("t=2", "t=100000"),
            ("p=1", "p=255"),
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("$argon2id", "right"),
        ] {
            assert!(made.0.contains(from) && check_hash(&SecretHash(made.0.replace(from, to))).is_err(), "{to}");
        }
        for text in ["", "right", &made.0[..30], made.0.rsplit_once('$').unwrap().0] {
            assert!(check_hash(&SecretHash(text.into())).is_err(), "{text}");
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
