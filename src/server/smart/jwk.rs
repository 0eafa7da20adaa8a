//! JSON Web Key Sets of clients (RFC 7517): their public keys, and the choice of one.
//!
//! A set is read as a stranger's. Keys of other families, curves and uses, and broken ones, are passed over: a set may hold them
//! for other purposes. A set with a private key is refused, since whoever published it must learn that.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Deserialize;
use serde_json::Value;

use crate::limits::{JWKS_KEYS_MAX, RSA_MODULUS_BYTES};
use crate::server::smart::jws::{Curve, PublicKey, SignatureAlgorithm};

/// Characters of a key id that a message repeats.
const KID_CHARS_SHOWN: usize = 64;

/// A public key of a set, with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SetKey {
    kid: String,
    /// The only algorithm that it is for; `None` for every one that it serves.
    algorithm: Option<SignatureAlgorithm>,
    key: PublicKey,
}

/// The public keys of a client that signatures can be checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySet(Vec<SetKey>);

/// Why a set has no key for a signature; the variant name is in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyChoiceError {
    /// No key has the id.
    NoKey,
    /// A key has the id, but none of the algorithm's kind.
    OtherKind,
    /// Several keys have the id and the kind.
    SeveralKeys,
}

/// A key set as JSON.
#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

/// A key as JSON; members of its family are absent in others.
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    /// The predicate of a sentence about the set, which repeats nothing of its keys.
    pub(crate) fn parse(json: &[u8]) -> Result<KeySet, String> {
        let raw: RawSet = serde_json::from_slice(json)
            .map_err(|error| format!("is no JSON Web Key Set: line {}, column {}", error.line(), error.column()))?;
        if raw.keys.len() > JWKS_KEYS_MAX {
            return Err(format!("has more than {JWKS_KEYS_MAX} keys"));
        }
        let (mut keys, mut reason) = (Vec::new(), None);
        for (position, key) in raw.keys.into_iter().enumerate() {
            let kid: String = key["kid"].as_str().unwrap_or_default().chars().take(KID_CHARS_SHOWN).collect();
            let named = if kid.is_empty() { format!("number {}", position + 1) } else { format!("{kid:?}") };
            if key.get("d").is_some() {
                return Err(format!(
                    "holds the private part of key {named}: give the public one, and make a new pair of keys"
                ));
            }
            match set_key(key) {
                Ok(found) => keys.extend(found),
                Err(why) => reason = reason.or(Some(format!(": its key {named} {why}"))),
            }
        }
        if keys.is_empty() {
            let names: Vec<&str> = SignatureAlgorithm::ALL.map(SignatureAlgorithm::name).to_vec();
            return Err(format!("has no key for signatures by {}{}", names.join(", "), reason.unwrap_or_default()));
        }
        Ok(KeySet(keys))
    }

    /// The one key with an id that serves an algorithm (AUTH-09).
    ///
    /// # Errors
    /// If there is none, or there are several.
    pub(crate) fn choose(&self, kid: &str, algorithm: SignatureAlgorithm) -> Result<&PublicKey, KeyChoiceError> {
        let serves = |key: &&SetKey| key.key.serves(algorithm) && key.algorithm.is_none_or(|only| only == algorithm);
        let with_id: Vec<&SetKey> = self.0.iter().filter(|key| key.kid == kid).collect();
        let mut found = with_id.iter().copied().filter(serves);
        match (found.next(), found.next()) {
            (Some(key), None) => Ok(&key.key),
            (Some(_), Some(_)) => Err(KeyChoiceError::SeveralKeys),
            (None, _) if with_id.is_empty() => Err(KeyChoiceError::NoKey),
            (None, _) => Err(KeyChoiceError::OtherKind),
        }
    }
}

/// A key of a set; `None` for one that is for other purposes.
///
/// # Errors
/// The predicate of a sentence about a key that cannot be used. Others of its set can (RFC 7517, 5).
fn set_key(key: Value) -> Result<Option<SetKey>, String> {
    let raw: RawKey = serde_json::from_value(key).map_err(|_| "is no JSON Web Key".to_string())?;
    let is_for_signatures = raw.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && raw.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|one| one == "verify"));
    let algorithm = raw.alg.as_deref().map(SignatureAlgorithm::named);
    if !is_for_signatures || algorithm == Some(None) {
        return Ok(None);
    }
    let Some(key) = public_key(&raw)? else { return Ok(None) };
    match raw.kid {
        Some(kid) if !kid.is_empty() => Ok(Some(SetKey { kid, algorithm: algorithm.flatten(), key })),
        _ => Err("has no kid, by which keys are chosen".to_string()),
    }
}

/// The key of a JWK; `None` for one of another family or curve.
///
/// # Errors
/// The predicate of a sentence about a key that is broken, or too short to be safe.
fn public_key(raw: &RawKey) -> Result<Option<PublicKey>, String> {
    let decode = |name: &str, part: &Option<String>| {
        let text = part.as_deref().ok_or_else(|| format!("lacks {name}"))?;
        Base64UrlUnpadded::decode_vec(text)
            .map_err(|_| format!("has a member {name} that is not base64url without padding"))
    };
    match raw.kty.as_str() {
        "RSA" => {
            let without_zeros = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
            let (n, e) = (without_zeros(decode("n", &raw.n)?), without_zeros(decode("e", &raw.e)?));
            if !RSA_MODULUS_BYTES.contains(&n.len()) {
                return Err(format!(
                    "has a modulus of {} bits; give one of {} to {}",
                    n.len() * 8,
                    RSA_MODULUS_BYTES.start() * 8,
                    RSA_MODULUS_BYTES.end() * 8
                ));
            }
            Ok(Some(PublicKey::Rsa { n, e }))
        }
        "EC" => {
            let (curve, length) = match raw.crv.as_deref() {
                Some("P-256") => (Curve::P256, 32),
                Some("P-384") => (Curve::P384, 48),
                _ => return Ok(None),
            };
            let (x, y) = (decode("x", &raw.x)?, decode("y", &raw.y)?);
            if x.len() != length || y.len() != length {
                return Err(format!("has coordinates that are not of {length} bytes"));
            }
            Ok(Some(PublicKey::Elliptic { curve, point: [&[4][..], &x, &y].concat() }))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rsa(kid: &str, bytes: usize) -> Value {
        json!({ "kty": "RSA", "kid": kid, "n": Base64UrlUnpadded::encode_string(&vec![0xc5; bytes]), "e": "AQAB" })
    }

    fn elliptic(kid: &str, curve: &str, bytes: usize) -> Value {
        let part = Base64UrlUnpadded::encode_string(&vec![7; bytes]);
        json!({ "kty": "EC", "kid": kid, "crv": curve, "x": part, "y": part })
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn set(keys: &[Value]) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    /// AUTH-09, AUTH-10: a key is chosen by its id and its kind; none or several fail.
    #[test]
    fn a_key_is_chosen() {
        use SignatureAlgorithm::{Es256, Es384, Ps384, Rs256, Rs384};
        let keys = [
            rsa("a", 256),
            elliptic("a", "P-384", 48),
            elliptic("b", "P-256", 32),
            rsa("two", 256),
            rsa("two", 512),
            with(rsa("only", 256), "alg", json!("PS384")),
            with(rsa("sealed", 256), "use", json!("enc")),
            with(rsa("signs", 256), "key_ops", json!(["sign"])),
            with(rsa("checks", 256), "key_ops", json!(["verify"])),
            with(rsa("other", 256), "alg", json!("HS384")),
            json!({ "kty": "oct", "kid": "secret", "k": "AAAA" }),
            json!({ "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "AAAA" }),
            // Broken ones, which cost the others nothing.
            rsa("short", 128),
            with(rsa("odd", 256), "use", json!(5)),
            json!(7),
        ];
        let set = set(&keys).unwrap();
        for (kid, algorithm, found) in [
            ("a", Rs384, None),
            ("a", Rs256, None),
            ("a", Es384, None),
            ("a", Es256, Some(KeyChoiceError::OtherKind)),
            ("b", Es256, None),
            ("b", Es384, Some(KeyChoiceError::OtherKind)),
            ("two", Rs384, Some(KeyChoiceError::SeveralKeys)),
            ("only", Ps384, None),
            ("only", Rs384, Some(KeyChoiceError::OtherKind)),
            ("checks", Rs384, None),
            ("sealed", Rs384, Some(KeyChoiceError::NoKey)),
            ("signs", Rs384, Some(KeyChoiceError::NoKey)),
            ("other", Rs384, Some(KeyChoiceError::NoKey)),
            ("secret", Rs384, Some(KeyChoiceError::NoKey)),
            ("ed", Es384, Some(KeyChoiceError::NoKey)),
            ("A", Rs384, Some(KeyChoiceError::NoKey)),
            ("", Rs384, Some(KeyChoiceError::NoKey)),
        ] {
            assert_eq!(set.choose(kid, algorithm).err(), found, "{kid} {algorithm:?}");
        }
    }

    /// What cannot be used is told, and nothing of a private key is repeated.
    #[test]
    fn wrong_sets_are_told() {
        for (keys, word) in [
            (vec![], "no key for signatures"),
            (vec![json!(1)], "no JSON Web Key"),
            (vec![with(rsa("a", 256), "use", json!(5))], "no JSON Web Key"),
            (vec![json!({ "kty": "oct", "kid": "a", "k": "AAAA" })], "no key for signatures"),
            (vec![with(rsa("a", 256), "kid", Value::Null)], "has no kid"),
            (vec![with(rsa("a", 256), "kid", json!(""))], "has no kid"),
            (vec![rsa("a", 128)], "1024 bits"),
            (vec![rsa("a", 2048)], "16384 bits"),
            (vec![with(rsa("a", 256), "e", Value::Null)], "lacks e"),
            (vec![with(rsa("a", 256), "n", json!("a+/="))], "base64url"),
            (vec![elliptic("a", "P-384", 32)], "48 bytes"),
            (vec![with(rsa("a", 256), "d", json!("5ecre7"))], "private part"),
            (vec![with(elliptic("a", "P-256", 32), "d", json!("5ecre7"))], "private part"),
            (vec![rsa("a", 256); JWKS_KEYS_MAX + 1], "more than"),
        ] {
            let problem = set(&keys).unwrap_err();
            assert!(problem.contains(word) && !problem.contains("5ecre7"), "{problem}");
        }
        for text in ["", "[]", "{\"keys\":1}", "{\"keys\":[]}{"] {
            assert!(KeySet::parse(text.as_bytes()).unwrap_err().contains("no JSON Web Key Set"), "{text}");
        }
    }
}
