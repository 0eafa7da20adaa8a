//! Groups over HTTP: create, read, update, delete, search (GROUP-01).
//!
//! Each handler takes the parts of a request and returns the whole answer. The rules of Groups are in
//! [`groups`](crate::group::registry); the rights of the client are given in [`GroupHandlers::principal`], not decided
//! here. Handlers read and sync files, so that they must run on a blocking thread; the bodies of their answers do not
//! block.
//!
//! Not supported: conditional create (`If-None-Exist` is refused, since ignoring it would create duplicates), search
//! by POST, former versions, PATCH.

pub(crate) mod body;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::group::registry::document::GroupDocument;
use crate::group::registry::search::SearchPage;
use crate::group::registry::view::{GroupLookup, GroupView, GroupWrite, PreconditionFailed};
use crate::group::registry::{GroupRegistry, GroupsError};
use crate::group::rules::problem::RuleViolation;
use crate::group::rules::{GroupContent, GroupRules, WantedId};
use crate::index::snapshot::Snapshot;
use crate::issue::{IssueCode, Severity};
use crate::limits::GROUP_PAGE_BYTES;
use crate::server::admission::HeldBytes;
use crate::server::audit::ServedGroups;
use crate::server::auth::Principal;
use crate::server::error::{ApiError, FHIR_JSON, OutcomeIssue, informational_outcome, outcome};
use crate::server::groups::body::{BodyPart, PartsBody};
use crate::server::groups::request::{GroupSearch, check_content_type, parse_tags, precondition};
use crate::server::http::dates::{imf_fixdate, system_time};
use crate::server::http::entity_tags::TagComparison;
use crate::server::http::prefer::{Prefer, ReturnPreference};

/// Random ids that are tried for a new Group before the source of randomness is taken to be broken.
const IDS_TRIED_MAX: usize = 8;

/// The handlers of Group requests, with the state that they depend on besides the request.
pub(crate) struct GroupHandlers<'a> {
    /// Groups created through the service.
    pub book: &'a GroupRegistry,
    /// The index that Groups of the store are read from; `None` before the first one is complete.
    pub snapshot: Option<&'a Snapshot>,
    /// Absolute URL of the mount, without a final slash (CORE-05).
    pub base: &'a str,
    /// Base URLs under which an absolute reference is local: the mounts of the tenant and those configured for the
    /// store.
    pub bases: &'a [String],
    /// The client, and writer of new versions. Groups that it may not see are answered as if they did not exist (KICK-16).
    pub principal: &'a Principal,
    /// Rules that a Group from a client must meet.
    pub rules: GroupRules,
    /// Time of the request, which becomes `meta.lastUpdated` of a written version.
    pub now: Instant,
}

impl GroupHandlers<'_> {
    /// The Groups of registry and store that the client may see.
    fn groups(&self) -> GroupView<'_> {
        let view = GroupView::new(self.book, self.snapshot, self.bases).seen_by(self.principal.groups.as_deref());
        view.written_by(self.principal.as_writer())
    }

    /// `POST {base}/Group`: 201 with `Location`, `ETag`, `Last-Modified`. `random` returns 128 bits of cryptographic
    /// quality.
    pub(crate) fn create(&self, headers: &HeaderMap, body: &[u8], random: &dyn Fn() -> [u8; 16]) -> Response {
        answer(self.try_create(headers, body, random))
    }

    /// As [`GroupHandlers::create`].
    ///
    /// # Errors
    /// 400 for `If-None-Exist`, 403 for filters of types that the client may not export, 415 for a body that is no JSON, those of [`GroupHandlers::refuse`] and [`failed`].
    fn try_create(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        random: &dyn Fn() -> [u8; 16],
    ) -> Result<Response, ApiError> {
        if headers.contains_key("if-none-exist") {
            let text = "If-None-Exist: conditional create is not done here; search first, then create without it";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, IssueCode::NotSupported, text).at("http.if-none-exist"));
        }
        check_content_type(headers, "a Group")?;
        let document =
            GroupDocument::check(body, WantedId::Ignored, &self.rules).map_err(|problems| self.refuse(problems))?;
        self.principal.check_filters("the Group", &document.searched_types)?;
        for _ in 0..IDS_TRIED_MAX {
            let id: String = random().iter().map(|byte| format!("{byte:02x}")).collect();
            let id = Id::parse_r4(id.as_bytes()).expect("32 hexadecimal digits are a legal id");
            if let Ok(written) = self.groups().create(&id, &document, &self.now).map_err(failed)? {
                return self.written(headers, written);
            }
        }
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, "no id is free; try again"))
    }

    /// `PUT {base}/Group/{id}`: 200, or 201 for a new Group; 412 if `If-Match` or `If-None-Match: *` fails; 404 under
    /// an id that the client may not see, whether or not there is a Group.
    pub(crate) fn update(&self, id: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        answer(self.try_update(id, headers, body))
    }

    /// As [`GroupHandlers::update`].
    ///
    /// # Errors
    /// 403 for filters of types that the client may not export, 404, 412 and 415 as there, those of [`GroupHandlers::refuse`] and [`failed`].
    fn try_update(&self, id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Response, ApiError> {
        let id = parse_id(id)?;
        check_content_type(headers, "a Group")?;
        let expected = precondition(headers)?;
        let document =
            GroupDocument::check(body, WantedId::Same(&id), &self.rules).map_err(|problems| self.refuse(problems))?;
        self.principal.check_filters("the Group", &document.searched_types)?;
        let groups = self.groups();
        match groups.update(&id, &document, &expected, &self.now).map_err(failed)? {
            Ok(written) => self.written(headers, written),
            // The condition holds for a missing Group, so that visibility is the cause: answer as for an unknown id.
            Err(_) if !groups.is_seen(&id) && expected.is_met_by(&GroupLookup::Unknown) => Err(unknown_group()),
            Err(refused) => Err(precondition_failed(&refused)),
        }
    }

    /// `DELETE {base}/Group/{id}`: 204, also if there is no such Group; 412 if `If-Match` fails.
    pub(crate) fn delete(&self, id: &str, headers: &HeaderMap) -> Response {
        answer(self.try_delete(id, headers))
    }

    /// As [`GroupHandlers::delete`].
    ///
    /// # Errors
    /// 404 for an illegal id, 412, and those of [`failed`].
    fn try_delete(&self, id: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
        let id = parse_id(id)?;
        let expected = precondition(headers)?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        match self.groups().delete(&id, &expected, &self.now).map_err(failed)? {
            Ok(Some(written)) => {
                set_validators(response.headers_mut(), &written.version.to_string(), Some(&written.at));
                response.extensions_mut().insert(ServedGroups(vec![id]));
            }
            Ok(None) => {}
            Err(refused) => return Err(precondition_failed(&refused)),
        }
        Ok(response)
    }

    /// `GET` or `HEAD {base}/Group/{id}`: 200 with the stored bytes of the resource, 304, 404, 410.
    pub(crate) fn read(&self, id: &str, headers: &HeaderMap) -> Response {
        answer(self.try_read(id, None, headers))
    }

    /// `GET {base}/Group/{id}/_history/{version}`: as [`GroupHandlers::read`] while that version is current; else
    /// 404, since former versions are not kept.
    pub(crate) fn read_version(&self, id: &str, version: &str, headers: &HeaderMap) -> Response {
        answer(self.try_read(id, Some(version), headers))
    }

    /// As [`GroupHandlers::read`]; 404 if `version` is not the current one.
    ///
    /// # Errors
    /// 400 for a malformed `If-None-Match`, 404 for a missing or invisible Group, 410 for a deleted one.
    fn try_read(&self, id: &str, version: Option<&str>, headers: &HeaderMap) -> Result<Response, ApiError> {
        let id = parse_id(id)?;
        let found = self.groups().find(&id).map_err(failed)?;
        let Some(facts) = found.facts().cloned() else {
            return Err(match found {
                GroupLookup::Deleted { .. } => {
                    let text = format!("Group/{id} was deleted; an update brings it back");
                    ApiError::new(StatusCode::GONE, IssueCode::Deleted, text)
                }
                _ => unknown_group(),
            });
        };
        if version.is_some_and(|version| version != facts.version) {
            let text = "only the current version of a Group is kept; read it without _history";
            return Err(ApiError::new(StatusCode::NOT_FOUND, IssueCode::NotFound, text));
        }
        let unchanged = match parse_tags(headers, header::IF_NONE_MATCH)? {
            Some(tags) => tags.contains(&facts.version, TagComparison::Weak),
            None => facts.last_updated.as_ref().is_some_and(|instant| !is_modified(headers, instant)),
        };
        let mut response = match unchanged {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => resource(BodyPart::of(found).map_err(failed)?),
        };
        set_validators(response.headers_mut(), &facts.version, facts.last_updated.as_ref());
        response.extensions_mut().insert(ServedGroups(vec![id]));
        Ok(response)
    }

    /// `GET {base}/Group?…`: a page of a searchset Bundle. Unknown parameters are refused, or reported in the Bundle
    /// under `Prefer: handling=lenient`. A page ends with the Group that takes it past [`GROUP_PAGE_BYTES`].
    pub(crate) fn search(&self, query: Option<&str>, headers: &HeaderMap) -> Response {
        answer(self.try_search(query, headers))
    }

    /// As [`GroupHandlers::search`].
    ///
    /// # Errors
    /// 400 with every parameter that cannot be used, and those of [`failed`].
    fn try_search(&self, query: Option<&str>, headers: &HeaderMap) -> Result<Response, ApiError> {
        let lenient = Prefer::of(headers).lenient;
        let search = GroupSearch::read(query, self.bases, lenient).map_err(refuse)?;
        let mut entries: Vec<BodyPart> = Vec::new();
        let page = SearchPage { after: search.after, count: search.count, bytes_max: GROUP_PAGE_BYTES };
        let text_part = |text_part: String| BodyPart::Bytes(Bytes::from(text_part));
        let mut served = Vec::new();
        let mut left_out = Vec::new();
        let search_result = self.groups().search(&search.query, page, &mut |hit| {
            let id = hit.id;
            // It would make the whole page unreadable.
            if hit.found.facts().is_some_and(|facts| facts.is_unreadable) {
                left_out.push(left_out_issue(&id));
                return Ok(());
            }
            served.push(id);
            if let Some(part) = BodyPart::of(hit.found)? {
                let url = json!(format!("{}/Group/{id}", self.base));
                let comma = if entries.is_empty() { "" } else { "," };
                entries.push(text_part(format!(r#"{comma}{{"fullUrl":{url},"resource":"#)));
                entries.push(part);
                entries.push(text_part(r#","search":{"mode":"match"}}"#.to_string()));
            }
            Ok(())
        });
        let found = search_result.map_err(failed)?;
        let warning = |problem: &RuleViolation| OutcomeIssue { severity: Severity::Warning, ..issue(problem) };
        let mut warnings: Vec<OutcomeIssue> = search.ignored.iter().map(warning).collect();
        warnings.extend(left_out);
        warnings.extend(found.damaged.iter().map(|id| OutcomeIssue {
            severity: Severity::Warning,
            ..OutcomeIssue::error(IssueCode::Incomplete, damaged_text(id.as_str()))
        }));
        if !warnings.is_empty() {
            let reported = outcome(&warnings);
            let comma = if entries.is_empty() { "" } else { "," };
            entries.push(text_part(format!(r#"{comma}{{"resource":{reported},"search":{{"mode":"outcome"}}}}"#)));
        }
        let mut links = vec![json!({"relation": "self", "url": search.url(self.base, search.after.as_ref())})];
        links.extend(found.next.map(|next| json!({"relation": "next", "url": search.url(self.base, Some(&next))})));
        let links = json!(links);
        let head = format!(r#"{{"resourceType":"Bundle","type":"searchset","total":{},"link":{links}"#, found.total);
        // FHIR has no empty arrays.
        let (open, close) = if entries.is_empty() { ("", "}") } else { (r#","entry":["#, "]}") };
        let parts = [text_part(head + open)].into_iter().chain(entries).chain([text_part(close.to_string())]);
        let mut response = resource(parts);
        response.extensions_mut().insert(ServedGroups(served));
        Ok(response)
    }

    /// All problems of a Group in one error: 413 for one beyond the limits of the service; 422 where the mount's
    /// rules limit its size (ONEUP-G02), where they forbid what R4 allows, and for a modifier (reading 22); else 400.
    fn refuse(&self, problems: Vec<RuleViolation>) -> ApiError {
        use crate::issue::IssueCode::{BusinessRule, NotSupported, TooLong};
        let has = |kind| problems.iter().any(|problem| problem.kind == kind);
        let status = match self.rules.content {
            GroupContent::R4 if has(TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            _ if has(TooLong) || has(BusinessRule) || has(NotSupported) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError { status, ..refuse(problems) }
    }

    /// The answer to a successful create or update, with the body that `Prefer: return=` selects.
    ///
    /// # Errors
    /// Those of [`failed`], if what was written cannot be read.
    fn written(&self, headers: &HeaderMap, written: GroupWrite) -> Result<Response, ApiError> {
        let version = written.version.to_string();
        let preferences = Prefer::of(headers);
        let mut response = match preferences.returned.unwrap_or(ReturnPreference::Representation) {
            ReturnPreference::Minimal => Body::empty().into_response(),
            ReturnPreference::Representation => {
                let group = written.group.map(|group| BodyPart::of(GroupLookup::Registered(group)));
                resource(group.transpose().map_err(failed)?.flatten())
            }
            ReturnPreference::Outcome => {
                let done = if written.created { "created" } else { "updated" };
                informational_outcome(StatusCode::OK, format!("Group/{} was {done} as version {version}", written.id))
            }
        };
        *response.status_mut() = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        response.extensions_mut().insert(ServedGroups(vec![written.id]));
        let headers = response.headers_mut();
        set_validators(headers, &version, Some(&written.at));
        let location = format!("{}/Group/{}/_history/{version}", self.base, written.id);
        headers.extend(HeaderValue::try_from(location).ok().map(|value| (header::LOCATION, value)));
        if let Some(wanted) = preferences.returned {
            headers.insert("preference-applied", HeaderValue::from_static(wanted.text()));
        }
        Ok(response)
    }
}

/// The response, or the error as a response.
fn answer(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(|refusal| refusal.into_response())
}

/// 200 with parts of FHIR JSON as its body.
fn resource(parts: impl IntoIterator<Item = BodyPart>) -> Response {
    let headers = [(header::CONTENT_TYPE, FHIR_JSON), (header::CACHE_CONTROL, "no-store")];
    let body = PartsBody::new(parts);
    let held = HeldBytes(body.held_bytes());
    (headers, Extension(held), Body::new(body)).into_response()
}

/// Sets `ETag` and, if the instant can be written, `Last-Modified`.
fn set_validators(headers: &mut HeaderMap, version: &str, instant: Option<&Instant>) {
    let tag = HeaderValue::try_from(format!("W/\"{version}\"")).ok();
    headers.extend(tag.map(|tag| (header::ETAG, tag)));
    headers.extend(instant.and_then(imf_fixdate).map(|date| (header::LAST_MODIFIED, date)));
}

/// Whether a version is later than `If-Modified-Since`, in whole seconds; a malformed date is ignored.
fn is_modified(headers: &HeaderMap, instant: &Instant) -> bool {
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|text| httpdate::parse_http_date(text).ok());
    // A header has no parts of a second: a version of the same second is not later.
    !matches!((since, system_time(instant)), (Some(since), Some(at)) if at < since + Duration::from_secs(1))
}

/// The id of a Group from the path; 404 for an illegal one, as for any other unknown Group (CORE-07).
fn parse_id(id: &str) -> Result<Id, ApiError> {
    Id::parse_r4(id.as_bytes()).ok_or_else(unknown_group)
}

/// 404 for a Group that is missing or invisible.
fn unknown_group() -> ApiError {
    ApiError::not_found("this Group")
}

/// 412 for a write whose precondition failed, with the current version if there is one.
fn precondition_failed(refused: &PreconditionFailed) -> ApiError {
    let text = match &refused.current {
        Some(version) => format!("If-Match, If-None-Match: the Group is at version {version}; read it, then try again"),
        None => "If-Match: there is no Group of this id".to_string(),
    };
    ApiError::new(StatusCode::PRECONDITION_FAILED, IssueCode::Conflict, text).at("http.if-match")
}

/// A broken rule of a Group or search as an issue of an OperationOutcome.
fn issue(problem: &RuleViolation) -> OutcomeIssue {
    let issue = OutcomeIssue::error(problem.kind, problem.text.as_str());
    match &problem.expression {
        Some(element) if element.starts_with("Group") => issue.at(element),
        Some(parameter) => issue.at(format!("http.{parameter}")),
        None => issue,
    }
}

/// 400 with all problems of a request.
fn refuse(problems: Vec<RuleViolation>) -> ApiError {
    ApiError::of(StatusCode::BAD_REQUEST, problems.iter().map(issue).collect())
}

/// A Group that matches a search and is left out of its page.
fn left_out_issue(id: &Id) -> OutcomeIssue {
    let text = format!(
        "Group/{id} is left out: it holds a number or half of a surrogate pair that many JSON readers refuse with all that \
         stands around it; read it by itself, and write it again without"
    );
    OutcomeIssue { severity: Severity::Warning, ..OutcomeIssue::error(IssueCode::Incomplete, text) }
}

/// What a client is told of a Group whose file is damaged.
fn damaged_text(id: &str) -> String {
    format!(
        "Group/{id} is damaged in the service's data directory, and neither read, written nor exported until its operator \
         has put it back; nothing else is affected"
    )
}

/// 500 for a Group of this id whose file is damaged.
pub(crate) fn damaged_group(id: &str) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, damaged_text(id))
}

/// 507 if the disk is full, else 500, for a registry or store that fails; `error` goes to the log only.
fn failed(error: GroupsError) -> ApiError {
    tracing::error!(%error, "Groups cannot be read or kept");
    let is_full = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    };
    match &error {
        GroupsError::Damaged { path, .. } => {
            damaged_group(path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default())
        }
        GroupsError::Io { source, .. } if is_full(source) => ApiError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            IssueCode::NoStore,
            "the service has no room to keep the Group; try again later",
        ),
        _ => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            IssueCode::Exception,
            "the service cannot read or keep its Groups; its log says why",
        ),
    }
}
