//! The shape of a manifest, as the Bulk Data IG and this project's own rules have it (MANIFEST-01…18).
//!
//! Read from plain JSON, not through the types that wrote it, so that a key too many or of the wrong type is seen.

use serde_json::{Map, Value};

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::request::FileBounds;
use crate::select::ledger::Ledger;
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::output_file::FileSection;
use crate::write::journal::MANIFEST;
use crate::write::manifest::{EXPORT_KEY, FILE_KEY, FileFacts, ManifestItem};

/// A file that the manifest lists.
pub(crate) struct ListedFile {
    /// Where in the manifest.
    pub section: FileSection,
    /// Its name relative to the directory.
    pub name: String,
    /// Type of its lines.
    pub of_type: String,
    /// Lines, if stated.
    pub count: Option<u64>,
    /// Sizes and digest, if stated.
    pub facts: Option<FileFacts>,
}

/// What a manifest states.
#[derive(Default)]
pub(crate) struct StatedManifest {
    /// The transactionTime.
    pub transaction_time: Option<String>,
    /// Its files in its order.
    pub files: Vec<ListedFile>,
    /// The ledger of the root extension.
    pub ledger: Option<Ledger>,
    /// The bounds of the root extension.
    pub bounds: Option<FileBounds>,
    /// Name of the plan.
    pub plan_id: Option<String>,
}

/// Reads a manifest; what is wrong with it goes to `differences`.
pub(crate) fn read(bytes: &[u8], differences: &mut Mismatches) -> StatedManifest {
    let mut wrong = |rule, what: String| differences.push(Mismatch::of_file(rule, MANIFEST, what));
    let mut stated = StatedManifest::default();
    let root = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(root)) => root,
        Ok(_) => {
            wrong("MANIFEST-15", "it is no JSON object".to_string());
            return stated;
        }
        Err(error) => {
            // The parser's own words, which hold no content, only a place.
            wrong("MANIFEST-15", format!("it cannot be read: {error}"));
            return stated;
        }
    };
    let known = ["transactionTime", "request", "requiresAccessToken", "output", "deleted", "error", "extension"];
    root.keys().filter(|key| !known.contains(&key.as_str())).for_each(|key| {
        wrong("MANIFEST-15", format!("it has a property {key:?} that no manifest has"));
    });
    match root.get("transactionTime").and_then(Value::as_str) {
        Some(place) if Instant::parse(place).is_some() => stated.transaction_time = Some(place.to_string()),
        _ => wrong("MANIFEST-01", "its transactionTime is no instant".to_string()),
    }
    if !root.get("request").is_some_and(Value::is_string) {
        wrong("MANIFEST-02", "its request is no string".to_string());
    }
    if !root.get("requiresAccessToken").is_some_and(Value::is_boolean) {
        wrong("MANIFEST-03", "its requiresAccessToken is no boolean".to_string());
    }
    for (section, rule) in [
        (FileSection::Output, "MANIFEST-04"),
        (FileSection::Deleted, "MANIFEST-10"),
        (FileSection::Error, "MANIFEST-09"),
    ] {
        match root.get(section.name()) {
            None if section == FileSection::Deleted => {}
            Some(Value::Array(items)) => {
                if items.is_empty() && section == FileSection::Deleted {
                    wrong(rule, "its deleted is empty instead of absent".to_string());
                }
                for (i, item) in items.iter().enumerate() {
                    listed(section, i, item, &mut stated.files, &mut wrong);
                }
            }
            _ => wrong(rule, format!("its {} is no array", section.name())),
        }
    }
    let outputs = stated.files.iter().filter(|file| file.section == FileSection::Output);
    if !outputs.map(|file| (&file.of_type, ordinal(&file.name))).is_sorted() {
        wrong("MANIFEST-16", "its output is not in the order of types and numbers".to_string());
    }
    match root.get("extension") {
        None => {}
        Some(Value::Object(extension)) => root_extension(extension, &mut stated, &mut wrong),
        Some(_) => wrong("MANIFEST-14", "its extension is no object".to_string()),
    }
    stated
}

fn listed(
    section: FileSection,
    offset: usize,
    item: &Value,
    files: &mut Vec<ListedFile>,
    wrong: &mut impl FnMut(&'static str, String),
) {
    let place = format!("item {} of {}", offset + 1, section.name());
    let Some(object) = item.as_object() else { return wrong("MANIFEST-15", format!("{place} is no object")) };
    object.keys().filter(|key| !["type", "url", "count", "extension"].contains(&key.as_str())).for_each(|key| {
        wrong("MANIFEST-15", format!("{place} has a property {key:?} that no item has"));
    });
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (of_type, url) = (text("type"), text("url"));
    let fits = match section {
        FileSection::Output => ResourceType::parse(of_type).is_some(),
        FileSection::Deleted => of_type == "Bundle",
        FileSection::Error => of_type == "OperationOutcome",
    };
    if !fits {
        wrong("MANIFEST-05", format!("{place} has the type {of_type:?}"));
    }
    if !["file://", "http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        wrong("MANIFEST-06", format!("{place} has no absolute url"));
    }
    let count = object.get("count").and_then(Value::as_u64);
    if count.is_none_or(|count| count == 0) {
        wrong("MANIFEST-08", format!("{place} has no count, or the count 0"));
    }
    let named = ManifestItem { r#type: of_type.into(), url: url.into(), count: 0, extension: Map::new() };
    let name = named.file_name();
    if name.is_empty() || name.starts_with('.') || name.contains("..") {
        return wrong("MANIFEST-06", format!("the url of {place} names no file of this directory"));
    }
    if files.iter().any(|other| other.name == name) {
        wrong("MANIFEST-06", format!("{place} is listed twice"));
    }
    let facts = object.get("extension").and_then(|extension| extension.get(FILE_KEY));
    let facts = facts.and_then(|facts| serde_json::from_value(facts.clone()).ok());
    files.push(ListedFile { section, name: name.to_string(), of_type: of_type.to_string(), count, facts });
}

fn root_extension(
    extension: &Map<String, Value>,
    stated: &mut StatedManifest,
    wrong: &mut impl FnMut(&'static str, String),
) {
    let Some(ours) = extension.get(EXPORT_KEY) else { return };
    stated.plan_id = ours.get("planId").and_then(Value::as_str).map(str::to_string);
    let policies = ours.get("policies").unwrap_or(&Value::Null);
    stated.bounds = policies.get("maxFileBytes").and_then(Value::as_u64).map(|file_bytes| FileBounds {
        file_bytes,
        file_resources: policies.get("maxFileResources").and_then(Value::as_u64),
    });
    stated.ledger = ours.get("ledger").and_then(|ledger| serde_json::from_value(ledger.clone()).ok());
    match &stated.ledger {
        None => wrong("ledger", "its ledger cannot be read".to_string()),
        Some(ledger) if !ledger.balances() => {
            wrong("ledger", format!("the classes of its ledger do not add up to its {} lines", ledger.lines))
        }
        Some(_) => {}
    }
}

/// The number in `Patient.00012.ndjson`.
fn ordinal(name: &str) -> u64 {
    name.split('.').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
