//! Refusals: what is wrong with a request, as an OperationOutcome.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;

/// What kind of problem it is (R4 IssueType).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueType {
    /// `structure`
    Structure,
    /// `value`
    Value,
    /// `not-supported`
    NotSupported,
    /// `too-long`
    TooLong,
    /// `conflict`
    Conflict,
    /// `timeout`
    Timeout,
    /// `transient`
    Transient,
    /// `exception`
    Exception,
}

impl IssueType {
    fn code(self) -> &'static str {
        match self {
            IssueType::Structure => "structure",
            IssueType::Value => "value",
            IssueType::NotSupported => "not-supported",
            IssueType::TooLong => "too-long",
            IssueType::Conflict => "conflict",
            IssueType::Timeout => "timeout",
            IssueType::Transient => "transient",
            IssueType::Exception => "exception",
        }
    }
}

/// An answer that is no success.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    code: IssueType,
    diagnostics: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// One problem; the text names the parameter or header, and no path and no content.
    pub fn new(status: StatusCode, code: IssueType, diagnostics: impl Into<String>) -> Refusal {
        Refusal { status, code, diagnostics: diagnostics.into(), headers: Vec::new() }
    }

    /// With a header of the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Refusal {
        self.headers.push((name, value));
        self
    }

    /// The OperationOutcome.
    pub fn to_json(&self) -> String {
        let issue = json!({"severity": "error", "code": self.code.code(), "diagnostics": self.diagnostics});
        json!({"resourceType": "OperationOutcome", "issue": [issue]}).to_string()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let json = self.to_json();
        let mut response =
            (self.status, [(CONTENT_TYPE, "application/fhir+json"), (CACHE_CONTROL, "no-store")], json).into_response();
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}
