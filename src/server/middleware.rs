//! What happens to every request, whatever its path: it gets a name, a line in the log, and, where a mount is gated, a
//! refusal of the methods that it never takes (ONEUP-M04). Bases are compared as the routes have them, and a tenant's name in a
//! base may be any: whether there is such a tenant is not told here.

use crate::server::config::Config;
use crate::server::config::mounts::CUSTOMER;
use crate::server::dialect::{Dialect, MethodPolicy, RequestIds};
use crate::server::error::{ApiError, OutcomeIssueType};
use crate::server::ids::REQUEST_ID;
use crate::server::proxy::RequestOrigin;
use crate::server::routes::Operation;
use std::sync::Arc;
use std::time::Instant as Moment;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;

/// Where a name that was not taken goes back to the client (NETSMART-E11).
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// A request that came as EXPORT.
#[derive(Clone, Copy)]
pub(crate) struct AsGet;

/// Where mounts are.
pub(crate) struct MountTable(Vec<(Vec<String>, &'static Dialect)>);

impl MountTable {
    /// Those of the mounts that are on.
    pub(crate) fn of(config: &Config) -> MountTable {
        let on = config.mounts().into_iter().filter(|(_, mount)| mount.enabled);
        let segments = |base: &str| base.split('/').skip(1).map(str::to_string).collect();
        MountTable(on.map(|(table, mount)| (segments(&mount.base), Dialect::named(table))).collect())
    }

    /// The dialect at a path, and the rest of the path.
    fn find<'p>(&self, path: &'p str) -> Option<(&'static Dialect, &'p str)> {
        self.0.iter().find_map(|(base, dialect)| {
            let mut rest = path;
            for segment in base {
                rest = rest.strip_prefix('/')?;
                let end = rest.find('/').unwrap_or(rest.len());
                if segment != CUSTOMER && *segment != rest[..end] {
                    return None;
                }
                rest = &rest[end..];
            }
            Some((*dialect, rest))
        })
    }
}

/// Lets a request on to the routes, or not.
pub(crate) async fn check_method(
    State(places): State<Arc<MountTable>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let passage = places
        .find(request.uri().path())
        .map_or(MethodPolicy::Go, |(dialect, rest)| dialect.method_policy(request.method(), rest));
    match passage {
        MethodPolicy::Go => {}
        MethodPolicy::AsGet => {
            *request.method_mut() = Method::GET;
            request.extensions_mut().insert(AsGet);
        }
        MethodPolicy::Forbidden => {
            let text = format!(
                "{} is not taken here: ask with GET or EXPORT, and with PUT only to try a failed job again at its status URL",
                request.method()
            );
            return ApiError::new(StatusCode::FORBIDDEN, OutcomeIssueType::Forbidden, text).into_response();
        }
    }
    next.run(request).await
}

/// Names each request, and writes a line of log for each answer: no query, no ids, nothing of the data.
pub(crate) async fn log_request(
    State(places): State<Arc<MountTable>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let place = places.find(request.uri().path()).map(|(dialect, _)| dialect);
    let ids = place.map_or(RequestIds::Plain, |dialect| dialect.request_ids);
    let given = request.headers().get(&REQUEST_ID).cloned();
    let text = given.as_ref().and_then(|id| id.to_str().ok());
    let id = match text.filter(|id| is_client_id(ids, id)) {
        Some(id) => id.to_string(),
        None => new_id(ids),
    };
    let refused = given.filter(|given| ids == RequestIds::Uuid && given.as_bytes() != id.as_bytes());
    let value = HeaderValue::from_str(&id).expect("letters and digits");
    request.headers_mut().insert(REQUEST_ID, value.clone());
    let (method, begun) = (request.method().clone(), Moment::now());
    let origin = request.extensions().get::<RequestOrigin>().copied();
    let mut response = match origin.and_then(|origin| origin.insecure_error(request.uri().path())) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    response.headers_mut().insert(REQUEST_ID, value);
    response.headers_mut().extend(refused.map(|refused| (CORRELATION_ID, refused)));
    let route = response.extensions().get::<Operation>().map_or("none", |found| found.name());
    let mount = place.map_or("none", |dialect| dialect.name);
    let (status, milliseconds) = (response.status().as_u16(), begun.elapsed().as_secs_f64() * 1000.0);
    let client = origin.map_or("unknown".to_string(), |origin| origin.client.to_string());
    tracing::info!(
        target: "outpour::access", request = id, client, %method, mount, route, status, milliseconds, "answered"
    );
    response
}

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

    /// ONEUP-M01, ONEUP-M04: a base is told from what only begins like it, and holds for tenants that nobody knows.
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
    }

    /// NETSMART-E11: a UUID is one in any case of its letters; nothing else is.
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
