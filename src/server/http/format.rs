//! Response format of descriptions, searches and kick-offs, from `_format`, `_pretty` and `Accept`. Only JSON is offered.

use axum::http::{HeaderMap, StatusCode};

use crate::issue::IssueCode;
use crate::server::error::{ApiError, FHIR_JSON, OutcomeIssue};
use crate::server::http::accept::Accept;
use crate::server::http::query::{Query, plus_for_space};

/// Parameters about the form of an answer, which every operation takes
/// (<https://hl7.org/fhir/R4/http.html#parameters>). `_pretty` has no effect: white space means nothing.
const FORM_PARAMETERS: [&str; 2] = ["_format", "_pretty"];

/// Whether a parameter is about the form of the answer, not about what is asked for.
pub(crate) fn is_form_parameter(name: &str) -> bool {
    FORM_PARAMETERS.contains(&name)
}

/// The JSON media type that `_format` names among the decoded parameters of a request; `None` without a value.
///
/// # Errors
/// A problem for a value that is no name of JSON.
pub(crate) fn named_format(pairs: &[(String, String)]) -> Result<Option<&'static str>, OutcomeIssue> {
    let formats = pairs.iter().filter(|(name, value)| name == "_format" && !value.trim().is_empty());
    // A space is an unencoded `+` (PARAM-06).
    let named: Option<Vec<&str>> = formats.map(|(_, value)| json_named(&plus_for_space(value.trim()))).collect();
    named.map(|names| names.first().copied()).ok_or_else(|| {
        let text = format!("_format: answers are JSON alone; ask for json or {FHIR_JSON}");
        OutcomeIssue::error(IssueCode::NotSupported, text).at("http._format")
    })
}

/// The media type of a description: JSON under the name that the client uses in `_format`, else in `Accept`
/// (<https://hl7.org/fhir/R4/http.html#mime-type>; CLIENT-04).
///
/// # Errors
/// 406 if the client accepts no JSON.
pub(crate) fn media_type(headers: &HeaderMap, query: Option<&str>) -> Result<&'static str, ApiError> {
    let refused = |issue| ApiError::of(StatusCode::NOT_ACCEPTABLE, vec![issue]);
    if let Some(named) = named_format(&Query::parse(query).0).map_err(refused)? {
        return Ok(named);
    }
    Accept::of(headers).best(&[FHIR_JSON, "application/json", "text/json"]).ok_or_else(|| {
        let text = format!("Accept: answers are JSON alone; ask for {FHIR_JSON}");
        refused(OutcomeIssue::error(IssueCode::NotSupported, text).at("http.accept"))
    })
}

/// The JSON media type that a value of `_format` means, ignoring parameters such as `fhirVersion`; `None` if it is
/// not JSON.
fn json_named(format: &str) -> Option<&'static str> {
    let name = format.split(';').next().unwrap_or_default().trim_matches(['+', ' ']).to_ascii_lowercase();
    match name.as_str() {
        "json" | FHIR_JSON => Some(FHIR_JSON),
        "application/json" => Some("application/json"),
        "text/json" => Some("text/json"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLIENT-04: JSON under its names, `_format` before `Accept`; other formats are 406.
    #[test]
    fn descriptions_are_json() {
        let (fhir, plain, text) = (Ok("application/fhir+json"), Ok("application/json"), Ok("text/json"));
        let refused = Err(StatusCode::NOT_ACCEPTABLE);
        for (accept, query, expected) in [
            ("", None, fhir),
            ("*/*", Some("_summary=true"), fhir),
            ("application/json", None, plain),
            ("text/json", None, text),
            ("application/fhir+json;q=0.5, application/json", None, plain),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None, fhir),
            ("application/fhir+xml", None, refused),
            ("application/fhir+xml", Some("_format=json"), fhir),
            ("", Some("_format=application/fhir+json"), fhir),
            ("", Some("_format=application%2Ffhir%2Bjson;fhirVersion=4.0"), fhir),
            ("", Some("_format=application/json"), plain),
            ("", Some("_format=text%2Fjson"), text),
            ("", Some("_format="), fhir),
            ("", Some("_format=xml"), refused),
            ("", Some("_format=json&_format=xml"), refused),
            ("*/*", Some("_format=application/fhir+xml"), refused),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert("accept", accept.parse().unwrap());
            }
            let found = media_type(&headers, query).map_err(|refusal| refusal.status);
            assert_eq!(found, expected, "{accept} {query:?}");
        }
    }
}
