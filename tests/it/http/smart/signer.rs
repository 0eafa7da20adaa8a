//! A client of SMART Backend Services: its keys, its assertions, its token requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PSS_SHA384, RsaKeyPair,
};
use serde_json::{Value, json};

use super::super::client::{Answer, Client};
use crate::run::testdata;

/// Path of the token endpoint.
pub(crate) const TOKEN: &str = "/auth/token";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A key pair.
enum Pair {
    Rsa(Box<RsaKeyPair>),
    Elliptic(EcdsaKeyPair),
}

/// A client with one key.
pub(crate) struct Signer {
    pub client_id: String,
    pub kid: String,
    pub alg: &'static str,
    /// Public URL of the token endpoint.
    pub audience: String,
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
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed))
}

impl Signer {
    /// A client with a key for an algorithm; elliptic keys are new, the RSA key is one of the test data.
    pub(crate) fn new(client_id: &str, alg: &'static str) -> Signer {
        let random = SystemRandom::new();
        let elliptic = |algorithm| {
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Pair::Elliptic(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
        };
        let pair = match alg {
            "ES384" => elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES256" => elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING),
            _ => {
                let document = std::fs::read(testdata("smart/rsa2048.pk8")).unwrap();
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&document).unwrap()))
            }
        };
        let kid = format!("key-{client_id}-{}", fresh_jti());
        Signer {
            client_id: client_id.to_string(),
            kid,
            alg,
            audience: "https://bulk.example.org/auth/token".to_string(),
            pair,
        }
    }

    /// Its public key.
    pub(crate) fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({
                    "kty": "RSA", "kid": self.kid, "alg": self.alg, "n": encode(&public.n), "e": encode(&public.e),
                    "key_ops": ["verify"],
                })
            }
            Pair::Elliptic(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if self.alg == "ES384" { "P-384" } else { "P-256" };
                json!({ "kty": "EC", "kid": self.kid, "alg": self.alg, "crv": curve, "x": encode(x), "y": encode(y), "use": "sig" })
            }
        }
    }

    /// A key set with its key.
    pub(crate) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    /// The header of its assertions.
    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.alg, "typ": "JWT", "kid": self.kid })
    }

    /// The claims of a new assertion.
    pub(crate) fn claims(&self) -> Value {
        json!({ "iss": self.client_id, "sub": self.client_id, "aud": self.audience, "exp": now() + 240, "jti": fresh_jti() })
    }

    /// A signed token.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        format!("{message}.{}", encode(&self.signature(message.as_bytes())))
    }

    /// The signature of a message, by the algorithm of this client whatever a header says.
    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = match self.alg {
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

    /// A new assertion.
    pub(crate) fn assertion(&self) -> String {
        self.sign(&self.header(), &self.claims())
    }

    /// Asks for a token with a new assertion.
    pub(crate) fn ask(&self, client: &Client, scope: &str) -> Answer {
        ask_with(client, &self.assertion(), scope)
    }

    /// A token for a scope.
    #[track_caller]
    pub(crate) fn token(&self, client: &Client, scope: &str) -> String {
        let answer = self.ask(client, scope);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_string()
    }

    /// The entry of this client in a configuration; `registration` are the other keys of its table `smart`.
    pub(crate) fn entry(&self, more: &str, registration: &str) -> String {
        format!("[[clients]]\nname = '{}'\n{more}\n[clients.smart]\n{registration}\n", self.client_id)
    }

    /// The entry of this client with its key set in the configuration.
    pub(crate) fn inline(&self, more: &str) -> String {
        self.entry(more, &format!("jwks = '{}'", self.jwks()))
    }
}

/// The body of a form.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// Sends a form to the token endpoint.
pub(crate) fn post(client: &Client, pairs: &[(&str, &str)]) -> Answer {
    client.ask("POST", TOKEN, &[("Content-Type", "application/x-www-form-urlencoded")], form(pairs).as_bytes())
}

/// Asks for a token with an assertion.
pub(crate) fn ask_with(client: &Client, assertion: &str, scope: &str) -> Answer {
    post(
        client,
        &[
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
            ("scope", scope),
        ],
    )
}

/// Asserts that an answer of the token endpoint is an OAuth error with this code, that nobody may keep.
#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["error"], code, "{body}");
    assert!(body["access_token"].is_null());
    body["error_description"].as_str().unwrap().to_string()
}
