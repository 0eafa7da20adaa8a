//! Errors of the token endpoint, with the codes of RFC 6749, 5.2, as JSON whatever the request accepts. 429 and 503, for which that
//! section has no code, take `temporarily_unavailable` of section 4.1.2.1.
//!
//! An authentication that fails is told in the same words whatever the reason is: it stands in the audit log (AUTH-28).

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::json;

use crate::server::error::PLAIN_JSON;
use crate::server::routes::Operation;
use crate::server::smart::discovery::TOKEN_PATH;

/// Most bytes of an OperationOutcome whose words are taken.
const OUTCOME_BYTES_MAX: usize = 64 << 10;

/// An error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, clippy::enum_variant_names, reason = "the words of the RFC")]
pub(crate) enum OauthCode {
    InvalidRequest,
    InvalidClient,
    InvalidScope,
    UnsupportedGrantType,
    TemporarilyUnavailable,
}

/// An error answer of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OauthError {
    /// HTTP status.
    pub status: StatusCode,
    /// Its code.
    pub code: OauthCode,
    /// What is wrong, and what to do.
    pub description: String,
    /// Headers in addition to those of the body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl OauthError {
    /// 400 with a code.
    pub(crate) fn new(code: OauthCode, description: impl Into<String>) -> OauthError {
        OauthError { status: StatusCode::BAD_REQUEST, code, description: description.into(), headers: Vec::new() }
    }

    /// 400 for a client that is not authenticated, in words that do not depend on the reason.
    pub(crate) fn unauthenticated() -> OauthError {
        let text = "the client cannot be authenticated: its id, key and assertion must fit its registration, and each assertion \
                    is for one request; the log of the service says what does not fit";
        OauthError::new(OauthCode::InvalidClient, text)
    }

    /// 429: too much was asked for; `seconds` is the time to wait.
    pub(crate) fn throttled(seconds: f64) -> OauthError {
        let text = "too many token requests: wait as long as Retry-After says, and use a token until it expires";
        OauthError::new(OauthCode::TemporarilyUnavailable, text).with(StatusCode::TOO_MANY_REQUESTS, seconds)
    }

    /// 503: the service cannot give tokens for the moment.
    pub(crate) fn unavailable() -> OauthError {
        let text = "no token can be given for the moment; ask again as Retry-After says";
        OauthError::new(OauthCode::TemporarilyUnavailable, text).with(StatusCode::SERVICE_UNAVAILABLE, 5.0)
    }

    fn with(mut self, status: StatusCode, seconds: f64) -> OauthError {
        self.status = status;
        self.headers.push((header::RETRY_AFTER, HeaderValue::from((seconds.ceil() as u64).max(1))));
        self
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response<Body> {
        let body = json!({ "error": self.code, "error_description": plain_description(&self.description) });
        let mut response = token_answer(self.status, &body);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// Middleware: words an error of the token endpoint that its handler did not make (a method, a body, a place in the queue) as
/// the handler would.
pub(crate) async fn word_as_oauth_error(request: Request, next: Next) -> Response<Body> {
    let (is_token_request, is_head) = (request.uri().path() == TOKEN_PATH, request.method() == Method::HEAD);
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_token_request || !is_error || response.extensions().get() == Some(&Operation::Token) {
        return response;
    }
    let (parts, body) = response.into_parts();
    if is_head {
        // An answer to HEAD has no body, also when it is an error.
        let mut parts = parts;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAIN_JSON));
        return Response::from_parts(parts, Body::empty());
    }
    let body = to_bytes(body, OUTCOME_BYTES_MAX).await.unwrap_or_default();
    let outcome: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let issues = outcome["issue"].as_array().into_iter().flatten();
    let texts: Vec<&str> = issues.filter_map(|issue| issue["diagnostics"].as_str()).collect();
    let code = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => OauthCode::TemporarilyUnavailable,
        _ => OauthCode::InvalidRequest,
    };
    let mut worded =
        token_answer(status, &json!({ "error": code, "error_description": plain_description(&texts.join("; ")) }));
    for (name, value) in &parts.headers {
        if !worded.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            worded.headers_mut().append(name, value.clone());
        }
    }
    worded
}

/// A description in the characters that the RFC allows: printable ASCII without `"` and `\`.
fn plain_description(text: &str) -> String {
    let plain = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().map(plain).collect()
}

/// An answer of the token endpoint, which nobody may keep (RFC 6749, 5.1).
pub(crate) fn token_answer(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAIN_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
