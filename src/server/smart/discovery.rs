//! What `.well-known/smart-configuration` says, at the root and below the base of each mount (AUTH-02, AUTH-03).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::server::error::PLAIN_JSON;
use crate::server::smart::jws::SignatureAlgorithm;

/// Path of the token endpoint, below the public URL.
pub(crate) const TOKEN_PATH: &str = "/auth/token";
/// Path of the description, below the public URL and the base of each mount.
pub(crate) const DISCOVERY_PATH: &str = "/.well-known/smart-configuration";

/// The description (<https://hl7.org/fhir/smart-app-launch/conformance.html>). It is the same whether clients are registered or
/// not: the endpoint is always there.
pub(crate) fn smart_configuration(public_url: &str) -> Value {
    json!({
        "token_endpoint": format!("{public_url}{TOKEN_PATH}"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": SignatureAlgorithm::ALL.map(SignatureAlgorithm::name),
        "scopes_supported": ["system/*.rs", "system/*.read"],
        // Required of every server, whether or not it has authorization codes.
        "code_challenge_methods_supported": ["S256"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    })
}

/// 200 with the description, as JSON whatever is accepted.
pub(crate) fn discovery_answer(public_url: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(smart_configuration(public_url).to_string()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAIN_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
