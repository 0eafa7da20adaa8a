//! The health probes. Everybody may ask them, so that they tell nothing of the data: numbers are for who may see them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::count_text::{counted, word_form};
use crate::issue::IssueCode;
use crate::job::store_state::StoreRefusal;
use crate::server::auth::CountedTenants;
use crate::server::blocking::run_blocking;
use crate::server::connection::request_tracker::Peer;
use crate::server::error::{ApiError, outcome_resource};
use crate::server::proxy::RequestOrigin;
use crate::server::state::{App, Tenant};

/// 200 of a health probe: `document` as `application/json`.
pub(crate) fn health(document: Value) -> Response<Body> {
    let mut response = outcome_resource(StatusCode::OK, &document);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Text of the readiness probe when the clock was set back.
const CLOCK_BEHIND_TEXT: &str = "the clock is behind the last transactionTime given out: was it set back? Exports take \
     the milliseconds after that one until it has caught up";

/// Readiness probe: 200 once every tenant has indexed its store after the start, 503 before, and while a store is refused
/// because it cannot be used, holds no data file or lacks too much. Numbers are of the tenants that the sender may see
/// them of ([`CountedTenants`]).
pub(crate) async fn ready(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let seen = counted_tenants(&app, &request.into_parts().0).await;
    let refused = app.tenants.iter().find_map(|tenant| tenant.engine.store_refusal().map(|refusal| (tenant, refusal)));
    if let Some((tenant, refusal)) = refused {
        return not_ready(refusal_text(refusal, seen.has(&tenant.name)));
    }
    if !app.tenants.iter().all(|tenant| tenant.ready.load(Relaxed)) {
        return not_ready("the store is being indexed for the first time since the start".to_string());
    }
    let behind = app.tenants.iter().filter_map(|tenant| tenant.engine.clock_behind()).max();
    let mut document = json!({ "status": "ready", "clockBehindSeconds": behind.unwrap_or(0) });
    if behind.is_some() {
        document["clock"] = CLOCK_BEHIND_TEXT.into();
    }
    if !seen.is_empty() {
        add_counts(&app, seen, &mut document).await;
    }
    health(document)
}

/// The tenants whose numbers the sender of a probe may see. Credentials that came in the clear are not looked at: probes
/// are answered by http, and nothing else is.
async fn counted_tenants(app: &App, request: &Parts) -> CountedTenants {
    match request.extensions.get::<RequestOrigin>().is_some_and(RequestOrigin::is_secure) {
        true => app.authenticator.counted_tenants(&request.headers, request.extensions.get::<Peer>()).await,
        false => CountedTenants::Named(Vec::new()),
    }
}

/// Adds what is counted of some tenants: for the operator, whose log names it (reading 24).
async fn add_counts(app: &Arc<App>, seen: CountedTenants, document: &mut Value) {
    let service = app.clone();
    let count = move || {
        let tenants: Vec<&Tenant> = service.tenants.iter().filter(|tenant| seen.has(&tenant.name)).collect();
        let active: usize = tenants.iter().map(|tenant| tenant.engine.active()).sum();
        let faulty: u64 = tenants.iter().filter_map(|tenant| tenant.engine.faulty_lines()).sum();
        let passed_over: u64 = tenants.iter().map(|tenant| tenant.engine.passed_over()).sum();
        Ok((active, faulty, passed_over))
    };
    if let Ok((active, faulty, passed_over)) = run_blocking(count).await {
        document["activeJobs"] = active.into();
        document["faultyLines"] = faulty.into();
        document["filesNotRead"] = passed_over.into();
    }
}

/// Why the service is not ready while a store is refused, with numbers only if `is_counted`. Which tenant and which files
/// it is stands in the log.
fn refusal_text(refusal: StoreRefusal, is_counted: bool) -> String {
    match refusal {
        StoreRefusal::Unreadable => "the store cannot be read: is it there?".to_string(),
        StoreRefusal::Unwritable => {
            "the index or the records of jobs cannot be written: is their disk read-only?".to_string()
        }
        StoreRefusal::NoDataFiles => "the store holds no data file: is it mounted?".to_string(),
        StoreRefusal::IgnoreFile => "the list of names to pass over in the store cannot be used".to_string(),
        StoreRefusal::OtherChoices => "the index was made with other choices than the configured ones".to_string(),
        StoreRefusal::ResourcesMissing { gone, present } if is_counted => format!(
            "{gone} of {} of the last snapshot {} gone from the store without a deletion, more than is allowed: is all of \
             it mounted?",
            counted(present, "resource"),
            word_form(gone, "is", "are")
        ),
        StoreRefusal::ResourcesMissing { .. } => {
            "more of the last snapshot is gone from the store without a deletion than is allowed: is all of it mounted?"
                .to_string()
        }
    }
}

/// 503 of the readiness probe.
fn not_ready(text: String) -> Response<Body> {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Transient, text).retry_after(1).into_response()
}
