//! A client of SMART Backend Services: its assertions and its token requests.

use serde_json::Value;

use super::super::client::{Answer, Client};
use super::keys::{ClientKey, assertion_claims};

pub(crate) use super::keys::{encode, form, fresh_jti, now};

/// Path of the token endpoint.
pub(crate) const TOKEN: &str = "/auth/token";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client with one key.
pub(crate) struct Signer {
    pub client_id: String,
    /// Public URL of the token endpoint.
    pub audience: String,
    pub key: ClientKey,
}

impl Signer {
    /// A client with a key for an algorithm.
    pub(crate) fn new(client_id: &str, algorithm: &'static str) -> Signer {
        let audience = "https://bulk.example.org/auth/token".to_string();
        Signer { client_id: client_id.to_string(), audience, key: ClientKey::new(algorithm) }
    }

    /// A key set with its key.
    pub(crate) fn jwks(&self) -> String {
        self.key.jwks()
    }

    /// The header of its assertions.
    pub(crate) fn header(&self) -> Value {
        self.key.header()
    }

    /// The claims of a new assertion.
    pub(crate) fn claims(&self) -> Value {
        assertion_claims(&self.client_id, &self.audience)
    }

    /// A signed token.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.key.sign(header, claims)
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
