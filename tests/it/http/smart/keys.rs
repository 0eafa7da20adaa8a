//! Keys of a client of SMART Backend Services, and what it signs with them. A bench uses this file as well.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PSS_SHA384, RsaKeyPair,
};
use serde_json::{Value, json};

/// A key pair.
enum Pair {
    Rsa(Box<RsaKeyPair>),
    Elliptic(Box<EcdsaKeyPair>),
}

/// A key of a client, for one algorithm.
pub(crate) struct ClientKey {
    pub algorithm: &'static str,
    pub kid: String,
    pair: Pair,
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// A text that no other assertion of this process has.
pub(crate) fn fresh_jti() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}-{}", now(), std::process::id(), COUNT.fetch_add(1, Relaxed))
}

/// The body of a form.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

impl ClientKey {
    /// A key for an algorithm; elliptic keys are new, the RSA key is one of the test data.
    pub(crate) fn new(algorithm: &'static str) -> ClientKey {
        let random = SystemRandom::new();
        let elliptic = |curve| {
            let document = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
            Pair::Elliptic(Box::new(EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), &random).unwrap()))
        };
        let pair = match algorithm {
            "ES384" => elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES256" => elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING),
            _ => {
                let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/smart/rsa2048.pk8");
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&std::fs::read(path).unwrap()).unwrap()))
            }
        };
        ClientKey { algorithm, kid: format!("key-{}", fresh_jti()), pair }
    }

    /// Its public part.
    pub(crate) fn jwk(&self) -> Value {
        let (kid, alg) = (&self.kid, self.algorithm);
        match &self.pair {
            Pair::Rsa(pair) => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                let (n, e) = (encode(&public.n), encode(&public.e));
                json!({ "kty": "RSA", "kid": kid, "alg": alg, "n": n, "e": e, "key_ops": ["verify"] })
            }
            Pair::Elliptic(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if alg == "ES384" { "P-384" } else { "P-256" };
                json!({ "kty": "EC", "kid": kid, "alg": alg, "crv": curve, "x": encode(x), "y": encode(y), "use": "sig" })
            }
        }
    }

    /// A key set with it.
    pub(crate) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    /// The header of assertions.
    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid })
    }

    /// A signed token.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        format!("{message}.{}", encode(&self.signature(message.as_bytes())))
    }

    /// The signature of a message, by the algorithm of this key whatever a header says.
    pub(crate) fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = match self.algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PKCS1_SHA384,
                };
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::Elliptic(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }
}

/// The claims of a new assertion.
pub(crate) fn assertion_claims(client_id: &str, audience: &str) -> Value {
    json!({ "iss": client_id, "sub": client_id, "aud": audience, "exp": now() + 240, "jti": fresh_jti() })
}
