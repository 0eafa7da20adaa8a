//! Groups over HTTP: create, read, update, delete, search (GROUP-01).
//!
//! Handlers over the parts of a request, each of which gives the whole answer; what is decided about Groups is decided
//! in [`groups`](crate::group::registry). They read and sync files: call them on a thread that may block. What they answer is sent
//! without blocking. Who may see which Group is told here ([`GroupHandlers::visible`]), not decided.
//!
//! Not done: conditional create (`If-None-Exist` is refused, because passing it over would make Groups twice), search
//! by POST, old versions, PATCH.

pub(crate) mod body;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::fhir::id::Id;
use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::group::registry::document::GroupDocument;
use crate::group::registry::search::SearchPage;
use crate::group::registry::view::{GroupLookup, GroupView, GroupWrite, WriteError};
use crate::group::registry::writer::GroupWriter;
use crate::group::registry::{GroupRegistry, GroupsError};
use crate::group::rules::problem::{RuleKind, RuleViolation};
use crate::group::rules::{GroupContent, GroupRules, WantedId};
use crate::index::snapshot::Snapshot;
use crate::issue::Severity;
use crate::limits::GROUP_PAGE_BYTES;
use crate::server::error::{ApiError, FHIR_JSON, OutcomeIssue, OutcomeIssueType, informational_outcome, outcome};
use crate::server::groups::body::{BodyPart, PartsBody};
use crate::server::groups::request::{EntityTags, GroupSearch, check_content_type, parse_tags, precondition};
use crate::server::http::prefer::{Prefer, ReturnPreference};

/// Times that an id is made before it is believed that something is wrong with its source.
const IDS_TRIED_MAX: usize = 8;

/// What the answers to a request for Groups depend on, beside the request.
pub(crate) struct GroupHandlers<'a> {
    /// Groups made here.
    pub book: &'a GroupRegistry,
    /// The store's, if an index stands.
    pub snapshot: Option<&'a Snapshot>,
    /// Absolute URL of the mount, without a final slash (CORE-05).
    pub base: &'a str,
    /// Reference bases that are ours: that URL and those of the store.
    pub bases: &'a [String],
    /// Groups that the client may see; all if `None`. Others are answered as if they were not there (KICK-16).
    pub visible: Option<&'a [String]>,
    /// Who writes.
    pub writer: GroupWriter,
    /// What may be created.
    pub rules: GroupRules,
    /// The time.
    pub now: Instant,
}

impl GroupHandlers<'_> {
    fn groups(&self) -> GroupView<'_> {
        GroupView::new(self.book, self.snapshot, self.bases).seen_by(self.visible).written_by(self.writer.clone())
    }

    /// `POST {base}/Group`: 201 with `Location`, `ETag`, `Last-Modified`. `random` gives 128 bits fit for secrets.
    pub(crate) fn create(&self, headers: &HeaderMap, body: &[u8], random: &dyn Fn() -> [u8; 16]) -> Response {
        answer(self.try_create(headers, body, random))
    }

    fn try_create(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        random: &dyn Fn() -> [u8; 16],
    ) -> Result<Response, ApiError> {
        if headers.contains_key("if-none-exist") {
            let text = "If-None-Exist: conditional create is not done here; search first, then create without it";
            return Err(
                ApiError::new(StatusCode::BAD_REQUEST, OutcomeIssueType::NotSupported, text).at("http.if-none-exist")
            );
        }
        check_content_type(headers)?;
        let document =
            GroupDocument::check(body, WantedId::Ignored, &self.rules).map_err(|problems| self.refuse(problems))?;
        for _ in 0..IDS_TRIED_MAX {
            let id: String = random().iter().map(|byte| format!("{byte:02x}")).collect();
            let id = Id::parse(id.as_bytes()).expect("32 hexadecimal digits are a legal id");
            if let Ok(written) = self.groups().create(&id, &document, &self.now).map_err(failed)? {
                return Ok(self.written(headers, written));
            }
        }
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, OutcomeIssueType::Exception, "no id is free; try again"))
    }

    /// `PUT {base}/Group/{id}`: 200, or 201 when no Group stood there; 412 when `If-Match` or `If-None-Match: *` is not
    /// met; 404 under an id that the client may not see, whether or not a Group stands there.
    pub(crate) fn update(&self, id: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        answer(self.try_update(id, headers, body))
    }

    fn try_update(&self, id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Response, ApiError> {
        let id = legal(id)?;
        check_content_type(headers)?;
        let expected = precondition(headers)?;
        let document =
            GroupDocument::check(body, WantedId::Same(&id), &self.rules).map_err(|problems| self.refuse(problems))?;
        let groups = self.groups();
        match groups.update(&id, &document, &expected, &self.now).map_err(failed)? {
            Ok(written) => Ok(self.written(headers, written)),
            // Nothing was expected that is not there: what keeps the client from writing is that it may not know of it.
            Err(_) if !groups.is_seen(&id) && expected.is_met_by(&GroupLookup::Unknown) => Err(unknown()),
            Err(refused) => Err(unmet(&refused)),
        }
    }

    /// `DELETE {base}/Group/{id}`: 204, also when there is no such Group; 412 when `If-Match` is not met.
    pub(crate) fn delete(&self, id: &str, headers: &HeaderMap) -> Response {
        answer(self.try_delete(id, headers))
    }

    fn try_delete(&self, id: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
        let id = legal(id)?;
        let expected = precondition(headers)?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        match self.groups().delete(&id, &expected, &self.now).map_err(failed)? {
            Ok(Some(written)) => mark(response.headers_mut(), &written.version.to_string(), Some(&written.at)),
            Ok(None) => {}
            Err(refused) => return Err(unmet(&refused)),
        }
        Ok(response)
    }

    /// `GET` or `HEAD {base}/Group/{id}`: 200 with the bytes of the resource as they are kept, 304, 404, 410.
    pub(crate) fn read(&self, id: &str, headers: &HeaderMap) -> Response {
        answer(self.try_read(id, None, headers))
    }

    /// `GET {base}/Group/{id}/_history/{version}`: as [`GroupHandlers::read`] while that version is current; then 404, because
    /// former versions are not kept.
    pub(crate) fn read_version(&self, id: &str, version: &str, headers: &HeaderMap) -> Response {
        answer(self.try_read(id, Some(version), headers))
    }

    fn try_read(&self, id: &str, version: Option<&str>, headers: &HeaderMap) -> Result<Response, ApiError> {
        let id = legal(id)?;
        let found = self.groups().find(&id).map_err(failed)?;
        let Some(facts) = found.facts().cloned() else {
            return Err(match found {
                GroupLookup::Deleted { .. } => {
                    let text = format!("Group/{id} was deleted; an update brings it back");
                    ApiError::new(StatusCode::GONE, OutcomeIssueType::Deleted, text)
                }
                _ => unknown(),
            });
        };
        if version.is_some_and(|version| version != facts.version) {
            let text = "only the current version of a Group is kept; read it without _history";
            return Err(ApiError::new(StatusCode::NOT_FOUND, OutcomeIssueType::NotFound, text));
        }
        let unchanged = match parse_tags(headers, header::IF_NONE_MATCH)? {
            Some(EntityTags::Any) => true,
            Some(EntityTags::Versions(versions)) => versions.contains(&facts.version),
            None => facts.last_updated.as_ref().is_some_and(|instant| !is_modified(headers, instant)),
        };
        let mut response = match unchanged {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => resource(BodyPart::of(found).map_err(failed)?),
        };
        mark(response.headers_mut(), &facts.version, facts.last_updated.as_ref());
        Ok(response)
    }

    /// `GET {base}/Group?…`: a searchset Bundle, a page of it. Unknown parameters are refused, or told in the Bundle under
    /// `Prefer: handling=lenient`. A page ends early with the Group that takes it past [`GROUP_PAGE_BYTES`].
    pub(crate) fn search(&self, query: Option<&str>, headers: &HeaderMap) -> Response {
        answer(self.try_search(query, headers))
    }

    fn try_search(&self, query: Option<&str>, headers: &HeaderMap) -> Result<Response, ApiError> {
        let lenient = Prefer::of(headers).lenient;
        let search = GroupSearch::read(query, self.bases, lenient).map_err(refuse)?;
        let mut entries: Vec<BodyPart> = Vec::new();
        let page = SearchPage { after: search.after, count: search.count, bytes_max: GROUP_PAGE_BYTES };
        let text = |text: String| BodyPart::Bytes(Bytes::from(text));
        let told_text = self.groups().search(&search.query, page, &mut |hit| {
            let id = hit.id;
            if let Some(part) = BodyPart::of(hit.found)? {
                let url = json!(format!("{}/Group/{id}", self.base));
                let comma = if entries.is_empty() { "" } else { "," };
                entries.push(text(format!(r#"{comma}{{"fullUrl":{url},"resource":"#)));
                entries.push(part);
                entries.push(text(r#","search":{"mode":"match"}}"#.to_string()));
            }
            Ok(())
        });
        let report = told_text.map_err(failed)?;
        if !search.ignored.is_empty() {
            let warning = |problem: &RuleViolation| OutcomeIssue { severity: Severity::Warning, ..issue(problem) };
            let reported = outcome(&search.ignored.iter().map(warning).collect::<Vec<_>>());
            let comma = if entries.is_empty() { "" } else { "," };
            entries.push(text(format!(r#"{comma}{{"resource":{reported},"search":{{"mode":"outcome"}}}}"#)));
        }
        let mut links = vec![json!({"relation": "self", "url": search.url(self.base, search.after.as_ref())})];
        links.extend(report.next.map(|next| json!({"relation": "next", "url": search.url(self.base, Some(&next))})));
        let links = json!(links);
        let head = format!(r#"{{"resourceType":"Bundle","type":"searchset","total":{},"link":{links}"#, report.total);
        // FHIR has no empty arrays.
        let (open, close) = if entries.is_empty() { ("", "}") } else { (r#","entry":["#, "]}") };
        let parts = [text(head + open)].into_iter().chain(entries).chain([text(close.to_string())]);
        Ok(resource(parts))
    }

    /// All problems of a Group in one answer: 413 for one that is too large for this service, but 422 where the rules of
    /// the mount say how large one may be (ONEUP-G02), or refuse what R4 allows, and for a modifier (reading 22); else 400.
    fn refuse(&self, problems: Vec<RuleViolation>) -> ApiError {
        use crate::group::rules::problem::RuleKind::{BusinessRule, NotSupported, TooLong};
        let has = |kind| problems.iter().any(|problem| problem.kind == kind);
        let status = match self.rules.content {
            GroupContent::R4 if has(TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            _ if has(TooLong) || has(BusinessRule) || has(NotSupported) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError { status, ..refuse(problems) }
    }

    fn written(&self, headers: &HeaderMap, written: GroupWrite) -> Response {
        let version = written.version.to_string();
        let preferences = Prefer::of(headers);
        let mut response = match preferences.returned.unwrap_or(ReturnPreference::Representation) {
            ReturnPreference::Minimal => Body::empty().into_response(),
            ReturnPreference::Representation => resource([BodyPart::Bytes(Bytes::from(written.line))]),
            ReturnPreference::Outcome => {
                let done = if written.created { "created" } else { "updated" };
                informational_outcome(StatusCode::OK, format!("Group/{} was {done} as version {version}", written.id))
            }
        };
        *response.status_mut() = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        let headers = response.headers_mut();
        mark(headers, &version, Some(&written.at));
        let location = format!("{}/Group/{}/_history/{version}", self.base, written.id);
        headers.extend(HeaderValue::try_from(location).ok().map(|value| (header::LOCATION, value)));
        if let Some(wanted) = preferences.returned {
            headers.insert("preference-applied", HeaderValue::from_static(wanted.text()));
        }
        response
    }
}

fn answer(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(|refusal| refusal.into_response())
}

/// A body of FHIR JSON.
fn resource(parts: impl IntoIterator<Item = BodyPart>) -> Response {
    let headers = [(header::CONTENT_TYPE, FHIR_JSON), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(PartsBody::new(parts))).into_response()
}

/// `ETag` and `Last-Modified`.
fn mark(headers: &mut HeaderMap, version: &str, instant: Option<&Instant>) {
    let tag = HeaderValue::try_from(format!("W/\"{version}\"")).ok();
    headers.extend(tag.map(|tag| (header::ETAG, tag)));
    let date =
        instant.and_then(http_time).map(httpdate::fmt_http_date).and_then(|date| HeaderValue::try_from(date).ok());
    headers.extend(date.map(|date| (header::LAST_MODIFIED, date)));
}

/// The second of an instant, if a header can tell it: years 1970 to 9999.
fn http_time(instant: &Instant) -> Option<SystemTime> {
    let seconds = u64::try_from(instant.ticks.div_euclid(TICKS_PER_SECOND)).ok()?;
    (seconds < 253_402_300_800).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Whether a version is later than `If-Modified-Since` says, to the second; a value that is no date is passed over.
fn is_modified(headers: &HeaderMap, instant: &Instant) -> bool {
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|text| httpdate::parse_http_date(text).ok());
    !matches!((since, http_time(instant)), (Some(since), Some(at)) if at <= since)
}

/// CORE-07: what is no legal id is not found, as any other that is not there.
fn legal(id: &str) -> Result<Id, ApiError> {
    Id::parse(id.as_bytes()).ok_or_else(unknown)
}

fn unknown() -> ApiError {
    ApiError::not_found("this Group")
}

fn unmet(refused: &WriteError) -> ApiError {
    let text = match &refused.current {
        Some(version) => format!("If-Match, If-None-Match: the Group is at version {version}; read it, then try again"),
        None => "If-Match: there is no Group of this id".to_string(),
    };
    ApiError::new(StatusCode::PRECONDITION_FAILED, OutcomeIssueType::Conflict, text).at("http.if-match")
}

fn issue_type(kind: RuleKind) -> OutcomeIssueType {
    match kind {
        RuleKind::Structure => OutcomeIssueType::Structure,
        RuleKind::Invariant => OutcomeIssueType::Invalid,
        RuleKind::BusinessRule => OutcomeIssueType::BusinessRule,
        RuleKind::Required => OutcomeIssueType::Required,
        RuleKind::Value => OutcomeIssueType::Value,
        RuleKind::TooLong => OutcomeIssueType::TooLong,
        RuleKind::NotSupported => OutcomeIssueType::NotSupported,
    }
}

fn issue(problem: &RuleViolation) -> OutcomeIssue {
    let issue = OutcomeIssue::error(issue_type(problem.kind), problem.text.as_str());
    match &problem.expression {
        Some(element) if element.starts_with("Group") => issue.at(element),
        Some(parameter) => issue.at(format!("http.{parameter}")),
        None => issue,
    }
}

/// All problems of a request in one answer.
fn refuse(problems: Vec<RuleViolation>) -> ApiError {
    ApiError::of(StatusCode::BAD_REQUEST, problems.iter().map(issue).collect())
}

/// What went wrong here is for the log; the client hears whose fault it is and what to do, no path.
fn failed(error: GroupsError) -> ApiError {
    tracing::error!(%error, "Groups cannot be read or kept");
    let full = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    };
    match &error {
        GroupsError::Io { source, .. } if full(source) => ApiError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            OutcomeIssueType::NoStore,
            "the service has no room to keep the Group; try again later",
        ),
        _ => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            OutcomeIssueType::Exception,
            "the service cannot read or keep its Groups; its log says why",
        ),
    }
}
