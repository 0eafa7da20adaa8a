//! The token endpoint, and where it is: an access token for a client that signs an assertion (AUTH-04…18, AUTH-28).
//!
//! Steps, the cheap ones first: limits of the address, form and parameters of the request, form of the assertion, the client
//! and its key, the signature, the claims, the scopes, and at last the use of the assertion, which is recorded durably before a
//! token is made. So a request that asks for wrong scopes does not use its assertion up.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant as Moment, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use crate::limits::TOKEN_REQUEST_BYTES_MAX;
use crate::server::http::query::Query;
use crate::server::ids::REQUEST_ID;
use crate::server::proxy::RequestOrigin;
use crate::server::request_body::{BodyLimits, read_body};
use crate::server::routes::Operation;
use crate::server::smart::assertion::{Assertion, AssertionError, AssertionUse};
use crate::server::smart::discovery::discovery_answer;
use crate::server::smart::jws::SignatureAlgorithm;
use crate::server::smart::key_source::{KeyPlace, KeySourceError};
use crate::server::smart::oauth_error::{OauthCode, OauthError, token_answer};
use crate::server::smart::replay::Use;
use crate::server::smart::scope::{GrantedScopes, grant_scopes};
use crate::server::smart::service::{RegisteredClient, TokenService};
use crate::server::state::App;

/// The only value of `client_assertion_type` (RFC 7523, 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The only value of `grant_type`.
const GRANT_TYPE: &str = "client_credentials";

/// The parameters of a token request.
#[derive(Debug, PartialEq, Eq)]
struct TokenRequest {
    assertion: String,
    scope: String,
    /// Optional beside an assertion (RFC 7521, 4.2).
    client_id: Option<String>,
}

/// Handles a token request. The answer carries the operation as an extension for the access log.
pub(crate) async fn handle_token_request(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let mut response = answer(&app, request).await.unwrap_or_else(OauthError::into_response);
    response.extensions_mut().insert(Operation::Token);
    response
}

/// Where tokens are asked for, at the root of the service; public, and JSON whatever is accepted (AUTH-02).
pub(crate) async fn smart_configuration(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = discovery_answer(&app.public_url);
    response.extensions_mut().insert(Operation::SmartConfiguration);
    response
}

/// Answers a token request.
///
/// # Errors
/// What is wrong with it.
async fn answer(app: &App, request: Request) -> Result<Response<Body>, OauthError> {
    let (parts, body) = request.into_parts();
    // A proxy that does not say whom it asks for would have one limit for all its clients: then there is none.
    let origin = parts.extensions.get::<RequestOrigin>();
    let address = origin.filter(|origin| !origin.is_proxy).map(|origin| limited_address(origin.client));
    // 1. Limits of the address.
    let service = app.authenticator.token_service();
    if let (Some(service), Some(address)) = (service, address) {
        if let Err(pause) = service.address_requests.count(address, Moment::now()) {
            return Err(OauthError::throttled(pause.as_secs_f64()));
        }
        if let Some(pause) = service.failures.pause(&address, Moment::now()) {
            return Err(OauthError::throttled(pause.as_secs_f64()));
        }
    }
    // 2. The request and its client.
    let text = read_form(app, &parts, body).await?;
    let asked = read_request(&parts, &text)?;
    let Some(service) = service else {
        tracing::warn!(target: "outpour::audit", request = request_id(&parts), reason = %"NoClients", "refused");
        return Err(OauthError::unauthenticated());
    };
    let mut attempt = Attempt { service, address, has_failed: true };
    let (client, used) = authenticate(app, service, &asked).await.map_err(|(reason, client)| {
        let client = client.as_ref().map(|client| client.name.as_str());
        tracing::warn!(target: "outpour::audit", request = request_id(&parts), client, ?reason, "refused");
        match reason {
            AssertionError::KeySetUnavailable => OauthError::unavailable(),
            _ => OauthError::unauthenticated(),
        }
    })?;
    // 3. What is granted.
    let name = client.name.as_str();
    let may_export = |of| client.types.as_ref().is_none_or(|types| types.contains(&of));
    let granted = grant_scopes(&asked.scope, &client.rights, may_export).map_err(|problems| {
        tracing::warn!(target: "outpour::audit", request = request_id(&parts), client = name, reason = %"Scope", "refused");
        OauthError::new(OauthCode::InvalidScope, problems.join("; "))
    })?;
    // 4. The assertion is used, and the token made.
    record_use(service, &used).await.map_err(|reason| {
        let reason = reason.map_or("NotRecorded".to_string(), |reason| format!("{reason:?}"));
        tracing::warn!(target: "outpour::audit", request = request_id(&parts), client = name, %reason, "refused");
        if reason == "NotRecorded" { OauthError::unavailable() } else { OauthError::unauthenticated() }
    })?;
    attempt.has_failed = false;
    if let Err(pause) = service.client_requests.count(client.name.clone(), Moment::now()) {
        return Err(OauthError::throttled(pause.as_secs_f64()));
    }
    let scope = granted.text.clone();
    let answer = make_answer(service, used.client_id, granted).await?;
    tracing::info!(target: "outpour::audit", request = request_id(&parts), client = name, scope, "an access token was given");
    Ok(answer)
}

/// A token request that counts as refused until it is known not to be, also if its sender hangs up.
struct Attempt<'s> {
    service: &'s TokenService,
    /// The address that it counts for.
    address: Option<IpAddr>,
    has_failed: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(address) = self.address.filter(|_| self.has_failed) {
            let _ = self.service.failures.count(address, Moment::now());
        }
    }
}

/// The address that limits are counted for: of IPv6 the network of 64 bits, in which a host has as many addresses as it wants.
fn limited_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// The id of a request in the log.
fn request_id(parts: &Parts) -> Option<&str> {
    parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok())
}

/// The current second of Unix time.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Reads the body of a token request, which must be a form.
///
/// # Errors
/// `invalid_request` for another type, a coded one, a long one or one that does not arrive.
async fn read_form(app: &App, parts: &Parts, body: Body) -> Result<String, OauthError> {
    let invalid = |text: &str| OauthError::new(OauthCode::InvalidRequest, text);
    let mut types = parts.headers.get_all(header::CONTENT_TYPE).iter();
    let media_type = types.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = media_type.split(';').next().unwrap_or_default().trim();
    if !name.eq_ignore_ascii_case("application/x-www-form-urlencoded") || types.next().is_some() {
        return Err(invalid("the body must be a form: send Content-Type: application/x-www-form-urlencoded"));
    }
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(invalid("the body is coded: send it as it is, without Content-Encoding"));
    }
    let limits = BodyLimits {
        bytes_max: TOKEN_REQUEST_BYTES_MAX,
        whole_wait: Duration::from_secs(app.config.limits.whole_body_seconds),
    };
    // So short a body is held in memory.
    let no_file = || Err(std::io::ErrorKind::Unsupported.into());
    let read = read_body(body, limits, parts.extensions.get(), no_file).await;
    let read = read.map_err(|error| {
        let text: Vec<String> = error.issues.into_iter().map(|issue| issue.diagnostics).collect();
        OauthError {
            status: error.status,
            headers: error.headers,
            ..OauthError::new(OauthCode::InvalidRequest, text.join("; "))
        }
    })?;
    String::from_utf8(read.to_vec()).map_err(|_| invalid("the body is no UTF-8"))
}

/// Reads the parameters of a token request, with every problem at once (AUTH-04). Values are not repeated.
///
/// # Errors
/// `unsupported_grant_type` for another grant, else `invalid_request`.
fn read_request(parts: &Parts, form: &str) -> Result<TokenRequest, OauthError> {
    let (pairs, mut problems) = Query::parse(Some(form));
    let mut code = OauthCode::InvalidRequest;
    let mut taken = |name: &str| {
        let mut values = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
        let first = values.next();
        if values.next().is_some() {
            problems.push(format!("{name} is given more than once"));
        }
        first
    };
    let (grant, assertion_type) = (taken("grant_type"), taken("client_assertion_type"));
    let (assertion, scope, client_id) = (taken("client_assertion"), taken("scope"), taken("client_id"));
    let secret = taken("client_secret");
    for (name, value, right) in
        [("grant_type", grant, GRANT_TYPE), ("client_assertion_type", assertion_type, ASSERTION_TYPE)]
    {
        match value.as_deref() {
            Some(value) if value == right => {}
            Some("") | None => problems.push(format!("{name} is missing; give {right}")),
            Some(_) => {
                if name == "grant_type" {
                    code = OauthCode::UnsupportedGrantType;
                }
                problems.push(format!("{name} is another than {right}, the only one here"));
            }
        }
    }
    if assertion.as_deref().is_none_or(str::is_empty) {
        problems.push("client_assertion is missing; give a signed JWT".to_string());
    }
    if scope.is_none() {
        problems.push("scope is missing; give such as system/*.rs".to_string());
    }
    if secret.is_some() || parts.headers.contains_key(header::AUTHORIZATION) {
        problems.push(
            "a client says who it is by client_assertion alone: send no client_secret and no Authorization".to_string(),
        );
    }
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        problems.push(
            "parameters stand in the URL: send them in the body, and make new ones of what was secret".to_string(),
        );
    }
    match (assertion, scope) {
        (Some(assertion), Some(scope)) if problems.is_empty() => Ok(TokenRequest { assertion, scope, client_id }),
        _ => Err(OauthError::new(code, problems.join("; "))),
    }
}

/// An authenticated request: what of its assertion is remembered, and for whom.
struct AuthenticatedUse {
    client_id: String,
    used: AssertionUse,
}

/// Authenticates the client of a request (AUTH-05…10).
///
/// # Errors
/// Why it is not, with the client if there is one of that id.
async fn authenticate(
    app: &App,
    service: &TokenService,
    asked: &TokenRequest,
) -> Result<(RegisteredClient, AuthenticatedUse), (AssertionError, Option<RegisteredClient>)> {
    let assertion = Assertion::parse(&asked.assertion).map_err(|error| (error, None))?;
    let client_id = assertion.client().to_string();
    let Some(client) = app.authenticator.registered_client(&client_id) else {
        return Err((AssertionError::UnknownClient, None));
    };
    let refuse = |error| (error, Some(client.clone()));
    if asked.client_id.as_ref().is_some_and(|named| *named != client_id) {
        return Err(refuse(AssertionError::OtherClient));
    }
    let registered_url = if let KeyPlace::Url(url) = client.keys.place() { Some(url.as_str()) } else { None };
    assertion.check_key_set_url(registered_url).map_err(refuse)?;
    let found = client.keys.find(&client.name, &assertion.kid, assertion.algorithm, &service.fetcher).await;
    let key = found.map_err(|error| {
        refuse(match error {
            KeySourceError::Choice(why) => AssertionError::Key(why),
            KeySourceError::Unavailable => AssertionError::KeySetUnavailable,
        })
    })?;
    let algorithm = assertion.algorithm;
    let is_signed = match algorithm {
        // Half a millisecond: not on a thread that serves connections. The others take less than a change of threads.
        SignatureAlgorithm::Es384 => {
            let text = asked.assertion.clone();
            let check = move || Assertion::parse(&text).is_ok_and(|again| again.token.is_signed_by(&key, algorithm));
            tokio::task::spawn_blocking(check).await.unwrap_or(false)
        }
        _ => assertion.token.is_signed_by(&key, algorithm),
    };
    if !is_signed {
        return Err(refuse(AssertionError::Signature));
    }
    let used =
        assertion.check_claims(&service.token_url, unix_seconds(), service.clock_skew_seconds).map_err(refuse)?;
    Ok((client.clone(), AuthenticatedUse { client_id, used }))
}

/// Records that an assertion was used (AUTH-07).
///
/// # Errors
/// [`AssertionError::Repeated`] if it was used before; `None` if it cannot be recorded.
async fn record_use(service: &TokenService, used: &AuthenticatedUse) -> Result<(), Option<AssertionError>> {
    if service.assertion_reuse {
        return Ok(());
    }
    let AssertionUse { jti, until } = &used.used;
    match service.used.record(&used.client_id, jti, *until, unix_seconds()).await {
        Ok(Use::First) => Ok(()),
        Ok(Use::Repeated) => Err(Some(AssertionError::Repeated)),
        Err(error) => {
            tracing::error!(%error, "the use of an assertion cannot be recorded");
            Err(None)
        }
    }
}

/// The answer with a new token (AUTH-13, AUTH-14).
///
/// # Errors
/// 503 if none can be made.
async fn make_answer(
    service: &TokenService,
    client_id: String,
    granted: GrantedScopes,
) -> Result<Response<Body>, OauthError> {
    let (tokens, scope, now) = (service.tokens.clone(), granted.text.clone(), unix_seconds());
    let make = move || tokens.make(&client_id, &scope, now);
    let made = match service.tokens.has_key(now) {
        true => make(),
        // A key is made first, and written to the disk.
        false => tokio::task::spawn_blocking(make).await.unwrap_or_else(|error| Err(std::io::Error::other(error))),
    };
    let (token, seconds) = made.map_err(|error| {
        tracing::error!(%error, "no access token can be made");
        OauthError::unavailable()
    })?;
    let body = json!({ "access_token": token, "token_type": "bearer", "expires_in": seconds, "scope": granted.text });
    Ok(token_answer(StatusCode::OK, &body))
}
