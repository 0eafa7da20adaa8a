//! Error answers: OperationOutcomes that state each problem, its place and a remedy.
//!
//! Every error that a client sees is an [`ApiError`] (CORE-03, CORE-04, CLIENT-11); `middleware` gives it another media
//! type where the client accepts that alone. No text names a path of the host
//! or repeats clinical content (OUTCOME-05).

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::issue::{IssueCode, Severity};

/// Media type of FHIR resources in JSON.
pub(crate) const FHIR_JSON: &str = "application/fhir+json";
/// Generic media type of JSON.
pub(crate) const PLAIN_JSON: &str = "application/json";
/// The media types under which a client may take FHIR resources in JSON, the preferred one first.
pub(crate) const ANY_JSON: &[&str] = &[FHIR_JSON, PLAIN_JSON];

/// One issue of an OperationOutcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeIssue {
    /// Severity of the issue; errors only in an [`ApiError`].
    pub severity: Severity,
    /// Issue code of the value set.
    pub code: IssueCode,
    /// The problem, by the name of the parameter or header, and a remedy.
    pub diagnostics: String,
    /// Where it is wrong: a FHIRPath, or `http.` and the name of a header or parameter; `None` if it is no single
    /// place.
    pub expression: Option<String>,
}

impl OutcomeIssue {
    /// An issue of severity error, without a place.
    pub(crate) fn error(code: IssueCode, diagnostics: impl Into<String>) -> OutcomeIssue {
        OutcomeIssue { severity: Severity::Error, code, diagnostics: diagnostics.into(), expression: None }
    }

    /// This issue with the place of the problem.
    pub(crate) fn at(mut self, expression: impl Into<String>) -> OutcomeIssue {
        self.expression = Some(expression.into());
        self
    }
}

/// An OperationOutcome with these issues, as JSON.
pub(crate) fn outcome(issues: &[OutcomeIssue]) -> Value {
    let issue = |issue: &OutcomeIssue| {
        let mut out = Map::new();
        out.insert("severity".into(), json!(issue.severity));
        out.insert("code".into(), json!(issue.code.name()));
        out.insert("diagnostics".into(), json!(issue.diagnostics));
        if let Some(expression) = &issue.expression {
            out.insert("expression".into(), json!([expression]));
        }
        Value::Object(out)
    };
    json!({ "resourceType": "OperationOutcome", "issue": issues.iter().map(issue).collect::<Vec<_>>() })
}

/// A response with a FHIR resource as its body, not to be cached.
pub(crate) fn outcome_resource(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(body).expect("plain data")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FHIR_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response with one informational issue: the body of a 202 (KICK-09, DELETE-01).
pub(crate) fn informational_outcome(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let issue = OutcomeIssue {
        severity: Severity::Information,
        code: IssueCode::Informational,
        diagnostics: text.into(),
        expression: None,
    };
    outcome_resource(status, &outcome(&[issue]))
}

/// An error answer to a request, with every problem of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// HTTP status of the answer.
    pub status: StatusCode,
    /// The problems, at least one.
    pub issues: Vec<OutcomeIssue>,
    /// Headers in addition to those of the body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with one problem.
    pub(crate) fn new(status: StatusCode, code: IssueCode, diagnostics: impl Into<String>) -> ApiError {
        ApiError::of(status, vec![OutcomeIssue::error(code, diagnostics)])
    }

    /// An error with several problems, at least one.
    pub(crate) fn of(status: StatusCode, issues: Vec<OutcomeIssue>) -> ApiError {
        ApiError { status, issues, headers: Vec::new() }
    }

    /// 404 with the same words for missing and invisible things (KICK-16); `what` is the subject of the sentence.
    pub(crate) fn not_found(what: &str) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, IssueCode::NotFound, format!("{what} is not known here"))
    }

    /// This error with the place of its last problem.
    pub(crate) fn at(mut self, expression: impl Into<String>) -> ApiError {
        if let Some(issue) = self.issues.last_mut() {
            issue.expression = Some(expression.into());
        }
        self
    }

    /// Whether it refuses what the scopes of a token do not open (RFC 6750, 3.1).
    pub(crate) fn is_of_scope(&self) -> bool {
        self.headers.iter().any(|(name, value)| {
            name == header::WWW_AUTHENTICATE && memchr::memmem::find(value.as_bytes(), b"insufficient_scope").is_some()
        })
    }

    /// The OperationOutcome as JSON text.
    pub(crate) fn to_json(&self) -> String {
        outcome(&self.issues).to_string()
    }

    /// This error with another header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> ApiError {
        self.headers.push((name, value));
        self
    }

    /// This error with `Retry-After`, in seconds, at least 1 (CLIENT-02).
    pub(crate) fn retry_after(self, seconds: u64) -> ApiError {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = outcome_resource(self.status, &outcome(&self.issues));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CORE-03, CORE-04: severity, code, diagnostics and place; as `application/fhir+json`.
    #[tokio::test]
    async fn a_refusal_is_an_operation_outcome() {
        let refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, "too many")
            .at("http.prefer")
            .retry_after(0);
        let response = refusal.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["content-type"], "application/fhir+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let issue =
            json!({"severity": "error", "code": "throttled", "diagnostics": "too many", "expression": ["http.prefer"]});
        assert_eq!(body, json!({"resourceType": "OperationOutcome", "issue": [issue]}));
    }
}
