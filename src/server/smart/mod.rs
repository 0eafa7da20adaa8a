//! SMART Backend Services: tokens for clients that sign assertions with keys of their own
//! (<https://hl7.org/fhir/smart-app-launch/backend-services.html>, AUTH-01…28).
//!
//! `token_endpoint` takes a token request, `assertion` checks the signed assertion in it (`jws`) with a key of the client
//! (`key_source`, `jwk`, `fetch`), `scope` decides what is granted, `replay` remembers the assertion, and `access_token` makes
//! the token with a key of ours (`signing_keys`). At each later request `access_token` checks it, and the rights of its client
//! are looked up in the configuration in force (`auth::clients`). `discovery` says where all this is, and `client_keys` helps to
//! set a client up. What a token may be used
//! for is decided in `auth::permissions`, as for every other credential.

pub(crate) mod access_token;
pub(crate) mod assertion;
pub(crate) mod client_keys;
pub(crate) mod discovery;
pub(crate) mod fetch;
pub(crate) mod jwk;
pub(crate) mod jws;
pub(crate) mod key_source;
pub(crate) mod oauth_error;
pub(crate) mod replay;
pub(crate) mod scope;
pub(crate) mod service;
pub(crate) mod signing_keys;
pub(crate) mod token_endpoint;
