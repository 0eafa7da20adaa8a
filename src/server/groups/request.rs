//! Headers and query strings of Group requests, parsed without access to any Group.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::fhir::id::Id;
use crate::group::registry::query::GroupQuery;
use crate::group::registry::view::Precondition;
use crate::group::rules::problem::RuleViolation;
use crate::issue::IssueCode;
use crate::limits::{GROUP_PAGE_DEFAULT, GROUP_PAGE_MAX};
use crate::server::error::ApiError;
use crate::server::http::entity_tags::EntityTags;
use crate::server::http::format::{is_form_parameter, named_format};
use crate::server::http::list::join_header_lines;
use crate::server::http::query::Query;

/// The entity tags of a Group request over HTTP; `None` if the header is absent. Weak and strong tags are equal for Groups,
/// since tags are version ids.
///
/// # Errors
/// 400 with the header's name for a list that is empty or malformed.
pub(crate) fn parse_tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<EntityTags>, ApiError> {
    let Some(tags) = EntityTags::of(headers, &name) else { return Ok(None) };
    if tags.is_whole && (tags.is_any || !tags.tags.is_empty()) {
        return Ok(Some(tags));
    }
    let text = format!("{name}: the value is no list of entity tags; give W/\"version\", or *");
    Err(ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Value, text).at(format!("http.{name}")))
}

/// The precondition of a request that writes a Group over HTTP, from `If-Match` and `If-None-Match`.
///
/// # Errors
/// 400 with the header's name for malformed tags, and for `If-None-Match` with other tags than `*` or beside
/// `If-Match`.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let none_match = parse_tags(headers, header::IF_NONE_MATCH)?;
    Ok(match (parse_tags(headers, header::IF_MATCH)?, none_match) {
        (None, None) => Precondition::Anything,
        (Some(tags), None) if tags.is_any => Precondition::Something,
        (Some(tags), None) => Precondition::Versions(tags.tags.into_iter().map(|tag| tag.opaque).collect()),
        (None, Some(tags)) if tags.is_any => Precondition::Nothing,
        (_, Some(_)) => {
            let text = "If-None-Match: a write takes If-None-Match: * alone; give If-Match to change one version";
            let refusal = ApiError::new(StatusCode::BAD_REQUEST, IssueCode::NotSupported, text);
            return Err(refusal.at("http.if-none-match"));
        }
    })
}

/// Checks the headers of a request over HTTP with `what` as its body: `Content-Type` is JSON. A body without one is taken for JSON.
///
/// # Errors
/// 415 for any other type.
pub(crate) fn check_content_type(headers: &HeaderMap, what: &str) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(essence.as_str(), "application/fhir+json" | "application/json" | "application/json+fhir") {
        return Ok(());
    }
    let text = format!("Content-Type: {what} is taken as application/fhir+json (or application/json)");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueCode::NotSupported, text).at("http.content-type"))
}

/// Checks the headers of a request over HTTP with `what` as its body: it has no content coding (RFC 9110, 8.4). Nothing is decoded
/// here, so that a small body never becomes a large one.
///
/// # Errors
/// 415 for any coding but identity, with the `Accept-Encoding` that section 15.5.16 asks for.
pub(crate) fn check_content_coding(headers: &HeaderMap, what: &str) -> Result<(), ApiError> {
    let codings = join_header_lines(headers, header::CONTENT_ENCODING);
    let mut codings = codings.split(',').map(str::trim).filter(|coding| !coding.is_empty());
    if codings.all(|coding| coding.eq_ignore_ascii_case("identity")) {
        return Ok(());
    }
    let text = format!("Content-Encoding: {what} is taken as it is, without a coding; send it without this header");
    let refusal = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueCode::NotSupported, text);
    let accepted = HeaderValue::from_static("identity");
    Err(refusal.at("http.content-encoding").header(header::ACCEPT_ENCODING, accepted))
}

/// A search for Groups, from its query string.
#[derive(Clone, Debug)]
pub(crate) struct GroupSearch {
    /// The search criteria, without those of paging.
    pub query: GroupQuery,
    /// Largest number of Groups on the page.
    pub count: usize,
    /// Last id of the previous page; `None` on the first page.
    pub after: Option<Id>,
    /// Parameters that were ignored under `handling=lenient`, with the reasons.
    pub ignored: Vec<RuleViolation>,
    /// The parameters in use, without those of paging; page links repeat them.
    used: Vec<(String, String)>,
}

/// Characters that are percent-encoded in page links: all but the unreserved ones of RFC 3986 and `:`, `/`, `,`,
/// which are legal in a query.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'/').remove(b',');

impl GroupSearch {
    /// Reads the query string of an HTTP request that searches Groups. `+` means a space, as in forms.
    ///
    /// # Errors
    /// Every parameter that cannot be used; under lenient handling only parts that [`Query`] cannot read and `_count`,
    /// `_page`, `_format`, if any of them is wrong.
    pub(crate) fn read(
        query: Option<&str>,
        bases: &[String],
        lenient: bool,
    ) -> Result<GroupSearch, Vec<RuleViolation>> {
        let mut problems_found = Vec::new();
        let mut problem = |kind, name: &str, text: String| {
            problems_found.push(RuleViolation { kind, expression: Some(name.to_string()), text });
        };
        let (mut criteria, mut form, mut count, mut after) = (Vec::new(), Vec::new(), GROUP_PAGE_DEFAULT, None);
        let (pairs, malformed) = Query::parse(query);
        for (name, value) in pairs {
            match name.as_str() {
                "_count" => match value.parse::<usize>() {
                    Ok(requested) => count = requested.min(GROUP_PAGE_MAX),
                    Err(_) => problem(IssueCode::Value, &name, "_count is a number of Groups, such as 50".into()),
                },
                "_page" => match from_token(&value) {
                    Some(id) => after = Some(id),
                    None => problem(IssueCode::Value, &name, "_page is no link that a search here gave".into()),
                },
                _ if is_form_parameter(&name) => form.push((name, value)),
                _ => criteria.push((name, value)),
            }
        }
        if let Err(refused) = named_format(&form) {
            problem(refused.code, "_format", refused.diagnostics);
        }
        let (query, problems) = GroupQuery::parse(&criteria, bases);
        // Parts that cannot be read have no name to be left out by, as at a kick-off.
        let unreadable = |text| RuleViolation { kind: IssueCode::Invalid, expression: None, text };
        problems_found.extend(malformed.into_iter().map(unreadable));
        if !lenient || !problems_found.is_empty() {
            problems_found.extend(problems.iter().cloned());
        }
        if !problems_found.is_empty() {
            return Err(problems_found);
        }
        let is_ignored = |name: &str| problems.iter().any(|problem| problem.expression.as_deref() == Some(name));
        criteria.retain(|(name, _)| !is_ignored(name));
        Ok(GroupSearch { query, count, after, ignored: problems, used: criteria })
    }

    /// The URL of the HTTP request for this search's page after the id `after`; `None` for the first page.
    pub(crate) fn url(&self, base: &str, after: Option<&Id>) -> String {
        let mut url = format!("{base}/Group?");
        for (name, value) in &self.used {
            url += &format!("{}={}&", utf8_percent_encode(name, ENCODED), utf8_percent_encode(value, ENCODED));
        }
        url += &format!("_count={}", self.count);
        if let Some(after) = after {
            url += &format!("&_page={}", to_token(after));
        }
        url
    }
}

/// The `_page` value of a Group search over HTTP, for the page after an id: hexadecimal, so that clients treat it as
/// opaque.
fn to_token(id: &Id) -> String {
    id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of the `_page` value of a Group search over HTTP; `None` for a text that [`to_token`] cannot have made.
fn from_token(token: &str) -> Option<Id> {
    let (pairs, []) = token.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| (byte as char).to_digit(16);
    let bytes = pairs.iter().map(|[high, low]| Some((digit(*high)? * 16 + digit(*low)?) as u8));
    Id::parse_r4(&bytes.collect::<Option<Vec<u8>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// GROUP-01: a condition that cannot be read is refused, never passed over.
    #[test]
    fn malformed_tags_are_refused() {
        let read = |value: &str| precondition(&headers(&[("if-match", value)]));
        let versions = |list: &[&str]| Precondition::Versions(list.iter().map(|text| text.to_string()).collect());
        assert_eq!(read(r#"W/"3""#).unwrap(), versions(&["3"]));
        assert_eq!(read(r#""3", W/"a,b" ,"c""#).unwrap(), versions(&["3", "a,b", "c"]));
        assert_eq!(read("*").unwrap(), Precondition::Something);
        for wrong in ["3", r#"W/"3"#, r#""3" "4""#, "", ",", "W/*", r#""3", *"#] {
            assert_eq!(read(wrong).unwrap_err().status, 400, "{wrong}");
        }
        assert_eq!(precondition(&HeaderMap::new()).unwrap(), Precondition::Anything);
    }

    #[test]
    fn queries_are_decoded_and_written_again() {
        let search =
            GroupSearch::read(Some("name=a%20b+c%2B&identifier=s%7Cv&_count=5&_format=json&_pretty=true"), &[], false)
                .unwrap();
        assert_eq!(
            search.url("http://h/fhir", None),
            "http://h/fhir/Group?name=a%20b%20c%2B&identifier=s%7Cv&_count=5"
        );
        let id = Id::parse(b"a.B-9").unwrap();
        let next = search.url("http://h/fhir", Some(&id));
        let again = GroupSearch::read(Some(next.split_once('?').unwrap().1), &[], false).unwrap();
        assert_eq!((again.after, again.query, again.count), (Some(id), search.query, 5));
        for wrong in [
            "name=%zz",
            "name=%ff",
            "name=%2",
            "_count=-1",
            "_page=0",
            "_page=00",
            "_format=xml",
            "%ff=1",
            "name=%00",
            "name=a%0Ab",
            "a%7f=1",
            "_format=%00",
        ] {
            assert_eq!(GroupSearch::read(Some(wrong), &[], true).unwrap_err().len(), 1, "{wrong}");
        }
    }

    /// HDR-06 in a search: unknown parameters are refused, each by name, or ignored under `handling=lenient`.
    #[test]
    fn unknown_parameters_are_refused_or_left_out() {
        let requested = Some("foo=1&name=a&bar=2");
        let problems = GroupSearch::read(requested, &[], false).unwrap_err();
        assert_eq!(
            problems.iter().filter_map(|problem| problem.expression.as_deref()).collect::<Vec<_>>(),
            ["foo", "bar"]
        );
        let search = GroupSearch::read(requested, &[], true).unwrap();
        assert_eq!(search.ignored.len(), 2);
        assert_eq!(search.url("b", None), "b/Group?name=a&_count=50");
    }

    proptest! {
        #[test]
        fn no_header_or_query_is_a_panic(value in "[ -~]{0,30}", query in "[%&=a-f0-9_|+,\\\\é]{0,30}") {
            let headers = headers(&[("if-match", &value), ("prefer", &value), ("content-type", &value)]);
            let _ = (precondition(&headers), check_content_type(&headers, "a Group"));
            let _ = GroupSearch::read(Some(&query), &[], false);
        }
    }
}
