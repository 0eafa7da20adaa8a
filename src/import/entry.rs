//! One entry of a Bundle: what it asks for, whose row it is, and what is refused.
//!
//! What an entry means is R4's: <https://hl7.org/fhir/R4/http.html#transaction> and
//! <https://hl7.org/fhir/R4/bundle.html>. What cannot be honoured by adding rows is a problem, never passed over.

use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::Hasher128;
use crate::import::compact::compact;
use crate::import::outline::{TYPE_AND_ID, text_of_value, type_and_id};
use crate::simd::Kernel;

/// `Bundle.type`, as far as entries mean something else under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BundleKind {
    /// A transaction or a batch: entries are requests.
    Requests,
    /// Versions, as a server had them.
    History,
    /// Resources that a search found.
    SearchSet,
    /// Resources: a collection, a document or a message.
    Resources,
}

impl BundleKind {
    /// The kind of a Bundle of this type.
    ///
    /// # Errors
    /// Why there are no rows in such a Bundle.
    pub(crate) fn of(name: Option<&str>) -> Result<BundleKind, &'static str> {
        match name {
            Some("transaction" | "batch") => Ok(BundleKind::Requests),
            Some("history") => Ok(BundleKind::History),
            Some("searchset") => Ok(BundleKind::SearchSet),
            Some("collection" | "document" | "message") => Ok(BundleKind::Resources),
            Some("transaction-response" | "batch-response") => {
                Err("the Bundle is a server's answer; import what was sent instead")
            }
            _ => Err("the Bundle has no type of R4; say whether it is a transaction, a history or a collection"),
        }
    }
}

/// An entry without its resource.
#[derive(Default, Deserialize)]
struct EntryEnvelope {
    #[serde(rename = "fullUrl")]
    full_url: Option<String>,
    /// Twice in an entry it is an error.
    #[allow(dead_code)]
    resource: Option<IgnoredAny>,
    request: Option<EntryRequest>,
    response: Option<EntryResponse>,
    search: Option<EntrySearch>,
}

/// `Bundle.entry.request`.
#[derive(Deserialize)]
struct EntryRequest {
    method: Option<String>,
    url: Option<String>,
    #[serde(rename = "ifNoneExist")]
    if_none_exist: Option<String>,
    #[serde(rename = "ifMatch")]
    if_match: Option<IgnoredAny>,
    #[serde(rename = "ifNoneMatch")]
    if_none_match: Option<IgnoredAny>,
}

/// `Bundle.entry.response`.
#[derive(Deserialize)]
struct EntryResponse {
    #[serde(rename = "lastModified")]
    last_modified: Option<String>,
}

/// `Bundle.entry.search`.
#[derive(Deserialize)]
struct EntrySearch {
    mode: Option<String>,
}

/// Type and id of the row of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowTarget {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its id.
    pub id: Id,
}

impl std::fmt::Display for RowTarget {
    /// Writes a relative reference to it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.resource_type, self.id)
    }
}

/// What an entry adds to the store.
#[derive(Debug)]
pub(crate) enum EntryAction {
    /// Its resource, a row. `own_id` is whether the resource says its id itself.
    Row { target: RowTarget, own_id: bool },
    /// The deletion of a resource; without a date of its own that of the Bundle holds.
    Deletion { target: RowTarget, date: Option<Instant> },
    /// Nothing: what a search has to say.
    Outcome,
}

/// A row that depends on whether a resource of some identifier is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryCondition {
    /// Type searched for, and its identifier: system, a vertical line and value; `None` if it is a search by anything else.
    pub search: Option<(ResourceType, String)>,
    /// Whether the row is taken if the resource is there, under that resource's id (a conditional update).
    pub is_update: bool,
}

/// An entry that was read.
#[derive(Debug)]
pub(crate) struct ReadEntry {
    /// What it adds.
    pub action: EntryAction,
    /// On what it depends.
    pub condition: Option<EntryCondition>,
}

/// Why an entry cannot be taken.
pub(crate) type EntryFault = String;

/// Rules by which entries are read.
#[derive(Clone, Copy)]
pub(crate) struct EntryRules<'a> {
    /// The kind of their Bundle.
    pub kind: BundleKind,
    /// Bases under which URLs are the store's.
    pub bases: BaseUrls<'a>,
    /// The scanner's kernel.
    pub kernel: Kernel,
}

/// Reads an entry; `text` is all of it, and its resource stands at `resource` in it, if it has one.
///
/// # Errors
/// Why it cannot be taken.
pub(crate) fn read_entry(
    text: &[u8],
    resource: Option<Range<usize>>,
    rules: EntryRules<'_>,
) -> Result<ReadEntry, EntryFault> {
    let envelope = read_envelope(text, resource.clone())?;
    let full_url = envelope.full_url.as_deref();
    if rules.kind == BundleKind::SearchSet
        && envelope.search.as_ref().is_some_and(|search| search.mode.as_deref() == Some("outcome"))
    {
        return Ok(ReadEntry { action: EntryAction::Outcome, condition: None });
    }
    let has_requests = matches!(rules.kind, BundleKind::Requests | BundleKind::History);
    let request = envelope.request.as_ref().filter(|_| has_requests);
    let url = request.and_then(|request| request.url.as_deref());
    let method = match request {
        Some(request) => Some(request.method.as_deref().ok_or("its request has no method")?),
        None => None,
    };
    let is_strict = rules.kind == BundleKind::Requests;
    match method {
        None | Some("POST" | "PUT") => {}
        Some("DELETE") => {
            let target = deletion_target(url, rules)?;
            let date = envelope.response.as_ref().and_then(|response| response.last_modified.as_deref());
            let date = match date {
                Some(text) => Some(Instant::parse(text).ok_or("its response.lastModified is no instant")?),
                None => None,
            };
            return Ok(ReadEntry { action: EntryAction::Deletion { target, date }, condition: None });
        }
        Some("GET" | "HEAD") => {
            return Err("it reads and brings no resource; take such entries out of the Bundle".to_string());
        }
        Some("PATCH") => {
            return Err(
                "a PATCH changes a resource that is not in the Bundle; send the whole resource by PUT".to_string()
            );
        }
        Some(_) => return Err("its request has no method of R4 (POST, PUT or DELETE)".to_string()),
    }
    let request = request.filter(|_| is_strict);
    if request.is_some_and(|request| request.if_match.is_some() || request.if_none_match.is_some()) {
        return Err("it depends on a version (ifMatch, ifNoneMatch), which an import cannot check; leave the \
                    condition out"
            .to_string());
    }
    let resource = &text[resource.ok_or("it has no resource")?];
    let (resource_type, own_id) = resource_head(resource, rules.kernel)?;
    if resource_type == ResourceType::BUNDLE {
        return Err("its resource is a Bundle; take that apart first, and import it by itself".to_string());
    }
    let mut condition = None;
    let mut url_id = None;
    match (request.and_then(|request| request.method.as_deref()), url.filter(|_| request.is_some())) {
        (Some("PUT"), None) => return Err("its PUT has no url; give Type/id".to_string()),
        (Some("PUT"), Some(url)) => match url.split_once('?') {
            Some((path, query)) => {
                let search = conditional_search(path, query, resource_type, rules);
                condition = Some(EntryCondition { search, is_update: true });
            }
            None => {
                let target = own_reference(url, rules).filter(|target| target.resource_type == resource_type);
                url_id = Some(target.ok_or("the url of its PUT is not Type/id of its resource's type")?.id);
            }
        },
        (Some("POST"), Some(url)) => {
            let name = url.rsplit('/').next().unwrap_or_default();
            if name != resource_type.name() {
                return Err("the url of its POST is not the type of its resource".to_string());
            }
        }
        _ => {}
    }
    if let Some(query) = request.and_then(|request| request.if_none_exist.as_deref()) {
        if condition.is_some() || url_id.is_some() {
            return Err("ifNoneExist belongs to a POST, and it has a PUT".to_string());
        }
        let query = query.split_once('?').map_or(query, |(_, query)| query);
        let search = conditional_search(resource_type.name(), query, resource_type, rules);
        condition = Some(EntryCondition { search, is_update: false });
    }
    if let (Some(own), Some(url)) = (own_id, url_id)
        && own != url
    {
        return Err("its resource's id is not the id in the url of its PUT".to_string());
    }
    let url_target = full_url.and_then(Reference::parse).filter(|target| !target.base.is_empty());
    let id = match own_id.or(url_id) {
        Some(id) => id,
        None => derived_id(full_url, resource_type, resource, rules.kernel),
    };
    check_group_id(resource_type, id)?;
    if let Some(of_url) = url_target
        && (of_url.resource_type != resource_type || of_url.id() != id)
    {
        return Err("its fullUrl names another type or id than its resource has".to_string());
    }
    let action = EntryAction::Row { target: RowTarget { resource_type, id }, own_id: own_id.is_some() };
    Ok(ReadEntry { action, condition })
}

/// The fullUrl of an entry, and nothing else of it.
pub(crate) fn full_url_of(text: &[u8], resource: Option<Range<usize>>) -> Option<String> {
    read_envelope(text, resource).ok()?.full_url
}

/// Reads an entry without its resource, which is no part of the text that is parsed.
fn read_envelope(text: &[u8], resource: Option<Range<usize>>) -> Result<EntryEnvelope, EntryFault> {
    let parsed = match resource {
        Some(range) => {
            let short = [&text[..range.start], b"0", &text[range.end..]].concat();
            serde_json::from_slice::<EntryEnvelope>(&short)
        }
        None => serde_json::from_slice(text),
    };
    // Parsers quote what they do not expect: only the class of the error is told.
    let envelope = parsed.map_err(|error| match error.is_data() {
        true => {
            "an element of the entry (fullUrl, request, response, search) stands twice or has another type than R4's"
        }
        false => "the entry is no JSON (RFC 8259)",
    })?;
    Ok(envelope)
}

/// The type of a resource, and the id that it says itself, if it has one.
///
/// # Errors
/// What is wrong with either.
pub(crate) fn resource_head(resource: &[u8], kernel: Kernel) -> Result<(ResourceType, Option<Id>), EntryFault> {
    let [type_at, id_at] = type_and_id(kernel, resource, TYPE_AND_ID);
    let name = text_of_value(&resource[type_at]).ok_or("the resource has no resourceType that is a string")?;
    let resource_type = ResourceType::parse(&name).ok_or("the resource's resourceType is none of FHIR R4")?;
    let id = own_id(resource, id_at)?;
    if let Some(id) = id {
        check_group_id(resource_type, id)?;
    }
    Ok((resource_type, id))
}

/// Checks that a Group has an id by which it can be asked for: such ids keep R4's rule, also where rows need not.
fn check_group_id(resource_type: ResourceType, id: Id) -> Result<(), EntryFault> {
    match resource_type == ResourceType::GROUP && Id::parse_r4(id.as_bytes()).is_none() {
        true => Err("the Group's id is not legal: 1 to 64 letters, digits, '-' and '.'".to_string()),
        false => Ok(()),
    }
}

/// The id that a resource says itself, if it has one.
fn own_id(resource: &[u8], id_at: Range<usize>) -> Result<Option<Id>, EntryFault> {
    if id_at.is_empty() {
        return Ok(None);
    }
    let text = text_of_value(&resource[id_at]).ok_or("the resource's id is no string")?;
    let id = Id::parse(text.as_bytes()).filter(|_| !matches!(&*text, "." | ".."));
    Ok(Some(id.ok_or("the resource's id is not legal: 1 to 255 letters, digits, '-', '.', '_' and '~'")?))
}

/// The id of a resource that says none: that of its fullUrl, else one made of its content, so that the same import gives the
/// same id.
pub(crate) fn derived_id(full_url: Option<&str>, resource_type: ResourceType, resource: &[u8], kernel: Kernel) -> Id {
    if let Some(url) = full_url {
        if let Some(target) = Reference::parse(url).filter(|target| target.resource_type == resource_type) {
            return target.id();
        }
        if let Some(id) = url.strip_prefix("urn:uuid:").and_then(|uuid| Id::parse_r4(uuid.as_bytes())) {
            return id;
        }
    }
    let mut hash = Hasher128::new();
    hash.update(full_url.unwrap_or_default().as_bytes());
    hash.update(b"\n");
    compact(kernel, resource, |run| hash.update(run));
    Id::parse(format!("{:032x}", hash.digest()).as_bytes()).expect("hexadecimal digits are an id")
}

/// The resource of the store that a literal reference or URL names.
pub(crate) fn own_reference(url: &str, rules: EntryRules<'_>) -> Option<RowTarget> {
    let reference = Reference::parse(url).filter(|found| rules.bases.contains(found.base))?;
    let has_version = reference.version.is_some() && rules.kind == BundleKind::Requests;
    (!has_version).then(|| RowTarget { resource_type: reference.resource_type, id: reference.id() })
}

/// What a DELETE deletes.
fn deletion_target(url: Option<&str>, rules: EntryRules<'_>) -> Result<RowTarget, EntryFault> {
    let url = url.ok_or("its DELETE has no url; give Type/id")?;
    if url.contains('?') {
        return Err("it deletes by a search, which an import does not run; name the resource as Type/id".to_string());
    }
    own_reference(url, rules)
        .ok_or_else(|| "the url of its DELETE is not Type/id, relative or under a base of the store".to_string())
}

/// The search of a condition, if it is by one identifier.
fn conditional_search(
    path: &str,
    query: &str,
    resource_type: ResourceType,
    rules: EntryRules<'_>,
) -> Option<(ResourceType, String)> {
    let text = format!("{path}?{query}");
    let search = crate::fhir::conditional_reference::ConditionalReference::parse(&text)?;
    let is_ours = search.resource_type == resource_type && rules.bases.contains(search.base);
    is_ours.then_some((resource_type, search.identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: BundleKind, entry: &str) -> Result<String, EntryFault> {
        let text = format!(r#"{{"resourceType":"Bundle","entry":[{entry}]}}"#);
        let outline = crate::import::outline::BundleOutline::of(Kernel::detect(), text.as_bytes());
        let (range, resource) = outline.entry(text.as_bytes(), 0);
        let own = ["https://own.example/fhir".to_string()];
        let rules = EntryRules { kind, bases: BaseUrls::new(&own), kernel: Kernel::detect() };
        let found = read_entry(&text.as_bytes()[range], resource, rules)?;
        let condition = found.condition.map(|condition| format!(" if {:?}", condition.search)).unwrap_or_default();
        Ok(match found.action {
            EntryAction::Row { target, own_id } => format!("row {target} {own_id}{condition}"),
            EntryAction::Deletion { target, date } => format!("delete {target} {}", date.is_some()),
            EntryAction::Outcome => "outcome".to_string(),
        })
    }

    /// Each form of an entry, and what becomes of it: the table of `feeding.md`.
    #[test]
    fn entries_mean_what_r4_says() {
        let patient = r#""resource":{"resourceType":"Patient","id":"a"}"#;
        let bare = r#""resource":{"resourceType":"Patient"}"#;
        let request = |method: &str, url: &str| format!(r#""request":{{"method":"{method}","url":"{url}"}}"#);
        let uuid = "058c1e2f-7ef7-4c4c-8a34-0c0a4e6b1c11";
        let requests = [
            (format!("{{{patient}}}"), Ok("row Patient/a true".to_string())),
            (format!("{{{patient},{}}}", request("POST", "Patient")), Ok("row Patient/a true".to_string())),
            (format!("{{{patient},{}}}", request("PUT", "Patient/a")), Ok("row Patient/a true".to_string())),
            (format!("{{{bare},{}}}", request("PUT", "Patient/b")), Ok("row Patient/b false".to_string())),
            (
                format!("{{{},{bare}}}", request("PUT", "https://own.example/fhir/Patient/b")),
                Ok("row Patient/b false".to_string()),
            ),
            (format!(r#"{{"fullUrl":"urn:uuid:{uuid}",{bare}}}"#), Ok(format!("row Patient/{uuid} false"))),
            (format!(r#"{{"fullUrl":"http://x.example/Patient/q",{bare}}}"#), Ok("row Patient/q false".to_string())),
            (format!("{{{}}}", request("DELETE", "Patient/a")), Ok("delete Patient/a false".to_string())),
            (
                format!("{{{patient},{}}}", request("PUT", "Patient?identifier=s|v")),
                Ok("row Patient/a true if Some((Patient, \"s|v\"))".to_string()),
            ),
            (
                format!(
                    r#"{{{patient},"request":{{"method":"POST","url":"Patient","ifNoneExist":"identifier=s|v"}}}}"#
                ),
                Ok("row Patient/a true if Some((Patient, \"s|v\"))".to_string()),
            ),
            (
                format!(r#"{{{patient},"request":{{"method":"POST","url":"Patient","ifNoneExist":"name=x"}}}}"#),
                Ok("row Patient/a true if None".to_string()),
            ),
            (format!("{{{patient},{}}}", request("PUT", "Patient/b")), Err("not the id")),
            (format!("{{{patient},{}}}", request("PUT", "Group/a")), Err("not Type/id")),
            (format!("{{{patient},{}}}", request("PUT", "https://other.example/Patient/a")), Err("not Type/id")),
            (format!("{{{patient},{}}}", request("POST", "Group")), Err("POST")),
            (format!("{{{patient},{}}}", request("PATCH", "Patient/a")), Err("PATCH")),
            (format!("{{{}}}", request("GET", "Patient/a")), Err("reads")),
            (format!("{{{}}}", request("HEAD", "Patient/a")), Err("reads")),
            (format!("{{{}}}", request("DELETE", "Patient?identifier=s|v")), Err("search")),
            (format!("{{{}}}", request("DELETE", "Patient/a/_history/1")), Err("DELETE")),
            (format!("{{{}}}", request("POST", "Patient")), Err("no resource")),
            (
                format!(r#"{{{patient},"request":{{"method":"PUT","url":"Patient/a","ifMatch":"W/1"}}}}"#),
                Err("version"),
            ),
            (format!(r#"{{"fullUrl":"http://x.example/Patient/q",{patient}}}"#), Err("fullUrl")),
            (r#"{"resource":{"resourceType":"Bundle","id":"b"}}"#.to_string(), Err("Bundle")),
            (r#"{"resource":{"resourceType":"Nobody","id":"b"}}"#.to_string(), Err("R4")),
            (r#"{"resource":{"id":"b"}}"#.to_string(), Err("resourceType")),
            (r#"{"resource":{"resourceType":"Patient","id":"a/b"}}"#.to_string(), Err("legal")),
            (format!(r#"{{{patient},"fullUrl":"a","fullUrl":"b"}}"#), Err("twice")),
            (format!(r#"{{{patient},"link":[1,]}}"#), Err("no JSON")),
        ];
        for (entry, expected) in requests {
            match (read(BundleKind::Requests, &entry), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{entry}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{entry}: {found}"),
                (found, expected) => panic!("{entry}: {found:?}, not {expected:?}"),
            }
        }
        let dated = r#"{"request":{"method":"DELETE","url":"Patient/a/_history/3"},"response":{"lastModified":"2024-01-01T00:00:00Z"}}"#;
        assert_eq!(read(BundleKind::History, dated), Ok("delete Patient/a true".to_string()));
        let outcome = r#"{"resource":{"resourceType":"OperationOutcome"},"search":{"mode":"outcome"}}"#;
        assert_eq!(read(BundleKind::SearchSet, outcome), Ok("outcome".to_string()));
    }

    /// An id made of the content does not depend on white space, and does on the fullUrl.
    #[test]
    fn made_ids_are_the_same_each_time() {
        let id = |url, text: &str| derived_id(url, ResourceType::PATIENT, text.as_bytes(), Kernel::detect());
        let first = id(None, r#"{"resourceType":"Patient","active":true}"#);
        assert_eq!(first, id(None, "{\n \"resourceType\": \"Patient\",\n \"active\": true }"));
        assert_ne!(first, id(Some("urn:oid:1.2.3"), r#"{"resourceType":"Patient","active":true}"#));
        assert_eq!(first.as_str().len(), 32);
    }
}
