//! Middleware for all requests: security headers, the media type of errors, request ids, the access log, and the method check of gated
//! mounts (ONEUP-M04).
//!
//! A mount is found by its base. `{customer}` in a base matches any segment: whether such a tenant exists is decided
//! by the routes.

use crate::issue::IssueCode;
use crate::server::dialect::{MethodPolicy, RequestIds};
use crate::server::error::{ApiError, FHIR_JSON, PLAIN_JSON};
use crate::server::http::accept::Accept;
use crate::server::ids::REQUEST_ID;
use crate::server::mount::MountTable;
use crate::server::proxy::RequestOrigin;
use crate::server::routes::{Operation, Route};
use std::sync::Arc;
use std::time::Instant as Moment;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse;

/// Header that returns a client's request id which was not accepted (NETSMART-E11).
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Request extension: the request was sent with the method EXPORT and is routed as GET.
#[derive(Clone, Copy)]
pub(crate) struct AsGet;

/// Longest method that is repeated whole, in bytes: longer than any in the registry of HTTP's methods.
const METHOD_BYTES_MAX: usize = 24;

/// A method for the log and for texts; a longer one than any that there is, is cut.
pub(crate) fn method_text(method: &Method) -> String {
    match method.as_str().get(..METHOD_BYTES_MAX) {
        Some(beginning) if method.as_str().len() > METHOD_BYTES_MAX => format!("{beginning}…"),
        _ => method.to_string(),
    }
}

/// Answers 403 to methods that the mount's dialect never allows, and turns EXPORT into GET where it is allowed.
pub(crate) async fn check_method(
    State(mount_table): State<Arc<MountTable>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let policy = mount_table
        .find(request.uri().path())
        .map_or(MethodPolicy::Go, |(dialect, rest)| dialect.method_policy(request.method(), rest));
    match policy {
        MethodPolicy::Go => {}
        MethodPolicy::AsGet => {
            *request.method_mut() = Method::GET;
            request.extensions_mut().insert(AsGet);
        }
        MethodPolicy::Forbidden => {
            let text = format!(
                "{} is not taken here: ask with GET or EXPORT, and with PUT only to try a failed job again at its status URL",
                method_text(request.method())
            );
            return ApiError::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, text).into_response();
        }
    }
    next.run(request).await
}

/// Checks HEAD and EXPORT, which the router serves wherever it serves GET: HEAD must not start a job, and EXPORT may do
/// nothing else.
///
/// # Errors
/// 405 where the operation does not take the method.
pub(crate) fn check_method_of(
    routes: impl Iterator<Item = &'static Route>,
    operation: Operation,
    parts: &Parts,
) -> Result<(), ApiError> {
    let as_get = parts.extensions.get::<AsGet>().is_some();
    let is_refused = operation.is_export() && parts.method == Method::HEAD || as_get && !operation.is_export();
    if !is_refused {
        return Ok(());
    }
    let mut methods: Vec<&str> =
        routes.filter(|route| route.operation == operation).map(|route| route.method.as_str()).collect();
    methods.dedup();
    let allow = HeaderValue::from_str(&methods.join(",")).unwrap_or(HeaderValue::from_static("GET"));
    Err(not_allowed(&parts.method).header(header::ALLOW, allow))
}

/// 405, for a method to which no handler is bound. The caller adds the `Allow` header, which lists the methods of the
/// path (CORE-06).
pub(crate) fn not_allowed(method: &Method) -> ApiError {
    let text = format!("{} is not possible here; the Allow header says what is", method_text(method));
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, IssueCode::NotSupported, text)
}

/// Sends an OperationOutcome of an error as `application/json` to a client that accepts only that name of JSON: R4 lets a
/// resource be asked for by it (CORE-03). Any other client gets `application/fhir+json`.
pub(crate) async fn name_error_type(request: Request, next: Next) -> Response<Body> {
    let accept_lines = request.headers().get_all(header::ACCEPT).iter().map(|line| (header::ACCEPT, line.clone()));
    let accept_lines: HeaderMap = accept_lines.collect();
    let mut response = next.run(request).await;
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if is_error && response.headers().get(header::CONTENT_TYPE).is_some_and(|name| name == FHIR_JSON) {
        let accept = Accept::of(&accept_lines);
        if accept.takes(PLAIN_JSON) && !accept.takes(FHIR_JSON) {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAIN_JSON));
        }
    }
    response
}

/// Adds headers that keep browsers from running, framing or guessing at what is answered, unless the answer has its own; and,
/// if clients are told an https URL, one by which they ask by https alone (RFC 6797).
pub(crate) async fn add_security_headers(
    State(is_secure_url): State<bool>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if is_secure_url {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// Gives each request an id and writes one line of access log for its answer, without query, ids or data. Refuses
/// requests over an insecure connection.
pub(crate) async fn log_request(
    State(mount_table): State<Arc<MountTable>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let dialect_of_path = mount_table.find(request.uri().path()).map(|(dialect, _)| dialect);
    let ids = dialect_of_path.map_or(RequestIds::Plain, |dialect| dialect.request_ids);
    let client_id = request.headers().get(&REQUEST_ID).cloned();
    let text = client_id.as_ref().and_then(|id| id.to_str().ok());
    let id = match text.filter(|id| is_client_id(ids, id)) {
        Some(id) => id.to_string(),
        None => new_id(ids),
    };
    let rejected_id = client_id.filter(|client_id| ids == RequestIds::Uuid && client_id.as_bytes() != id.as_bytes());
    let value = HeaderValue::from_str(&id).expect("letters and digits");
    request.headers_mut().insert(REQUEST_ID, value.clone());
    let (method, begun) = (method_text(request.method()), Moment::now());
    let origin = request.extensions().get::<RequestOrigin>().copied();
    let mut response = match origin.and_then(|origin| origin.insecure_error(request.uri().path())) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    response.headers_mut().insert(REQUEST_ID, value);
    response.headers_mut().extend(rejected_id.map(|rejected_id| (CORRELATION_ID, rejected_id)));
    let route = response.extensions().get::<Operation>().map_or("none", |found| found.name());
    let mount = dialect_of_path.map_or("none", |dialect| dialect.name);
    let (status, milliseconds) = (response.status().as_u16(), begun.elapsed().as_secs_f64() * 1000.0);
    let client = origin.map_or("unknown".to_string(), |origin| origin.client.to_string());
    tracing::info!(
        target: "outpour::access", request = id, client, method, mount, route, status, milliseconds, "answered"
    );
    response
}

/// Whether the request id of a client has a form that the dialect accepts.
fn is_client_id(ids: RequestIds, id: &str) -> bool {
    match ids {
        RequestIds::Plain => {
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
        RequestIds::Uuid => {
            let parts: Vec<&str> = id.split('-').collect();
            parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
                && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
        }
    }
}

/// A random request id in the form of the dialect.
fn new_id(ids: RequestIds) -> String {
    let id = crate::server::ids::new_id();
    match ids {
        RequestIds::Plain => id,
        RequestIds::Uuid => [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Config;
    use crate::server::mount::MountTable;

    /// ONEUP-M01, ONEUP-M04: a base matches whole segments only, and any name of a tenant.
    #[test]
    fn places_are_found() {
        let places = MountTable::of(&Config::default());
        let find = |path| places.find(path).map(|(dialect, rest)| (dialect.name, rest));
        assert_eq!(find("/fhir/Group/a"), Some(("ig", "/Group/a")));
        assert_eq!(find("/fhir"), Some(("ig", "")));
        assert_eq!(find("/v1/anybody/bulk-export/bulk-data/r4/x/y"), Some(("oneup-mte", "/x/y")));
        assert_eq!(find("/v1/a/b/bulk-export/bulk-data/r4"), None);
        assert_eq!(find("/bulk-data/r4/$export"), Some(("oneup-ste", "/$export")));
        for none in ["/fhirs", "/", "", "/v1/a/bulk-export/bulk-data", "/health/live"] {
            assert_eq!(find(none), None, "{none}");
        }
        let mut config = Config::default();
        config.ig.base = "/{customer}".to_string();
        let places = MountTable::of(&config);
        let find = |path| places.find(path).map(|(dialect, rest)| (dialect.name, rest));
        assert_eq!(find("/v1/a/bulk-export/bulk-data/r4/x"), Some(("oneup-mte", "/x")), "the one that names more");
        assert_eq!(find("/bulk-data/r4"), Some(("oneup-ste", "")));
        assert_eq!(find("/v1/metadata"), Some(("ig", "/metadata")));
    }

    /// NETSMART-E11: a UUID may have letters of either case; other texts are none.
    #[test]
    fn request_ids() {
        for (id, plain, uuid) in [
            ("5edebc8a-2514-4AE1-874e-7029785e9639", true, true),
            ("5edebc8a25144ae1874e7029785e9639", true, false),
            ("5edebc8a-2514-4ae1-874e-7029785e963g", true, false),
            ("a b", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                (is_client_id(RequestIds::Plain, id), is_client_id(RequestIds::Uuid, id)),
                (plain, uuid),
                "{id}"
            );
        }
        assert!(is_client_id(RequestIds::Uuid, &new_id(RequestIds::Uuid)));
    }
}
