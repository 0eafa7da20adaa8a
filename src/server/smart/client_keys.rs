//! A key pair of a client, and the assertions that it signs: for operators who set a client up, and try it.
//!
//! The service itself never holds a private key of a client.

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::server::smart::jws::{SignatureAlgorithm, encode_part};

/// The algorithm of the keys that are made here.
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Es384;
/// Bytes of a number of its curve.
const NUMBER_BYTES: usize = 48;
/// What stands in front of the private number in a PKCS #8 document of this curve: version 1 of an ECPrivateKey (RFC 5915), and
/// the head of an octet string of that length.
const BEFORE_PRIVATE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, NUMBER_BYTES as u8];
/// Seconds for which an assertion that is made here is valid.
const LIFETIME_SECONDS: u64 = 120;

/// A key pair of a client.
pub(crate) struct ClientKeyPair {
    /// Id of the key.
    pub kid: String,
    pair: EcdsaKeyPair,
    private: Vec<u8>,
}

impl ClientKeyPair {
    /// A new pair; `None` if the cryptography makes none.
    pub(crate) fn generate() -> Option<ClientKeyPair> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).ok()?;
        let at = memchr::memmem::find(document.as_ref(), &BEFORE_PRIVATE)? + BEFORE_PRIVATE.len();
        let private = document.as_ref().get(at..at + NUMBER_BYTES)?.to_vec();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, document.as_ref(), &SystemRandom::new()).ok()?;
        // The cryptography says whether that was the private number.
        let point = pair.public_key().as_ref().to_vec();
        ClientKeyPair::of(encode_part(&crate::server::ids::random()), private, &point)
    }

    /// The pair of a private number and a public point; `None` if they do not belong together.
    fn of(kid: String, private: Vec<u8>, point: &[u8]) -> Option<ClientKeyPair> {
        let (algorithm, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, point, &random).ok()?;
        Some(ClientKeyPair { kid, pair, private })
    }

    /// Reads the first pair of a private key set, or a single key, as [`ClientKeyPair::private_set`] makes it.
    ///
    /// # Errors
    /// The predicate of a sentence about the text, which repeats nothing of it.
    pub(crate) fn parse(json: &[u8]) -> Result<ClientKeyPair, &'static str> {
        let value: Value = serde_json::from_slice(json).map_err(|_| {
            let is_pem = json.trim_ascii_start().starts_with(b"-----BEGIN");
            if is_pem {
                "is a PEM file: give a JSON Web Key Set, as outpour credential keys makes it"
            } else {
                "is no JSON"
            }
        })?;
        let key = value.get("keys").map_or(&value, |keys| &keys[0]);
        let text = |name: &str| key[name].as_str().unwrap_or_default();
        if (text("kty"), text("crv")) != ("EC", "P-384") {
            return Err("holds no private key of the curve P-384 as JSON Web Key; other kinds are for other programs");
        }
        if text("d").is_empty() {
            return Err("holds no private key: give the half that the client keeps");
        }
        let part = |name: &str| Base64UrlUnpadded::decode_vec(text(name)).unwrap_or_default();
        let point = [&[4][..], &part("x"), &part("y")].concat();
        let kid = text("kid").to_string();
        match kid.is_empty() {
            true => Err("has a key without kid"),
            false => ClientKeyPair::of(kid, part("d"), &point).ok_or("has a key whose parts do not belong together"),
        }
    }

    /// Members of its public key that both sets have.
    fn public_members(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(NUMBER_BYTES);
        json!({
            "kty": "EC", "crv": "P-384", "alg": ALGORITHM.name(), "use": "sig", "kid": self.kid,
            "x": encode_part(x), "y": encode_part(y),
        })
    }

    /// Its public key as a JSON Web Key Set: what the service is told.
    pub(crate) fn public_set(&self) -> String {
        let mut key = self.public_members();
        key["key_ops"] = json!(["verify"]);
        json!({ "keys": [key] }).to_string()
    }

    /// The pair as a JSON Web Key Set: what the client keeps to itself.
    pub(crate) fn private_set(&self) -> String {
        let mut key = self.public_members();
        key["key_ops"] = json!(["sign"]);
        key["d"] = json!(encode_part(&self.private));
        json!({ "keys": [key] }).to_string()
    }

    /// A new assertion of a client for a token endpoint, at a second of Unix time; `None` if the system gives no random bytes.
    pub(crate) fn assertion(&self, client: &str, token_url: &str, now: u64) -> Option<String> {
        let header = json!({ "alg": ALGORITHM.name(), "typ": "JWT", "kid": self.kid });
        let jti = crate::server::ids::new_id();
        let claims =
            json!({ "iss": client, "sub": client, "aud": token_url, "exp": now + LIFETIME_SECONDS, "jti": jti });
        let message =
            format!("{}.{}", encode_part(header.to_string().as_bytes()), encode_part(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).ok()?;
        Some(format!("{message}.{}", encode_part(signature.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::smart::assertion::Assertion;
    use crate::server::smart::jwk::KeySet;

    /// What is made is taken: the public set by the service, the private one by who signs.
    #[test]
    fn pairs_are_made_and_read() {
        let made = ClientKeyPair::generate().unwrap();
        assert!(!made.public_set().contains("\"d\""));
        let read = ClientKeyPair::parse(made.private_set().as_bytes()).unwrap();
        let text = read.assertion("a", "https://bulk.example.org/auth/token", 1000).unwrap();
        let assertion = Assertion::parse(&text).unwrap();
        let set = KeySet::parse(made.public_set().as_bytes()).unwrap();
        let key = set.choose(&assertion.kid, assertion.algorithm).unwrap();
        assert!(assertion.token.is_signed_by(key, assertion.algorithm));
        assert!(assertion.check_claims("https://bulk.example.org/auth/token", 1000, 0).is_ok());
        assert!(KeySet::parse(made.private_set().as_bytes()).unwrap_err().contains("private part"));
    }

    /// Other texts are refused, and not repeated.
    #[test]
    fn other_texts_are_refused() {
        let (one, other) = (ClientKeyPair::generate().unwrap(), ClientKeyPair::generate().unwrap());
        let mut mixed: Value = serde_json::from_str(&one.private_set()).unwrap();
        mixed["keys"][0]["d"] = json!(encode_part(&other.private));
        let mut unnamed: Value = serde_json::from_str(&one.private_set()).unwrap();
        unnamed["keys"][0]["kid"] = json!("");
        for (text, word) in [
            ("5ecre7", "no JSON"),
            ("{}", "no private key"),
            ("{\"keys\":[]}", "no private key"),
            ("[5]", "no private key"),
            (one.public_set().as_str(), "holds no private key"),
            ("-----BEGIN PRIVATE KEY-----", "PEM file"),
            (mixed.to_string().as_str(), "do not belong together"),
            (unnamed.to_string().as_str(), "without kid"),
        ] {
            assert!(ClientKeyPair::parse(text.as_bytes()).err().is_some_and(|why| why.contains(word)), "{text}");
        }
        let single: Value = serde_json::from_str(&one.private_set()).unwrap();
        assert!(ClientKeyPair::parse(single["keys"][0].to_string().as_bytes()).is_ok());
    }
}
