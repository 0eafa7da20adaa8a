//! Checks the shape of a manifest by the Bulk Data IG and this project's own rules (MANIFEST-01…18), and extracts its
//! statements.
//!
//! Reads plain JSON, not the types that wrote it, so that an additional key or a value of the wrong type is found.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::count_text::counted;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::policies::FileBounds;
use crate::select::ledger::Ledger;
use crate::select::vanished::VanishedCounts;
use crate::verify::mismatch::{Mismatch, Mismatches};
use crate::verify::output_file::FileSection;
use crate::write::journal::MANIFEST;
use crate::write::manifest::{EXPORT_KEY, FILE_KEY, FileFacts, file_name_of};

/// One item of the manifest.
pub(crate) struct ListedFile {
    /// Section of the manifest that the item is in.
    pub section: FileSection,
    /// File name, relative to the export directory.
    pub name: String,
    /// Resource type of the file's lines.
    pub of_type: String,
    /// Number of lines; `None` if not stated.
    pub count: Option<u64>,
    /// Sizes and digest; `None` if not stated.
    pub facts: Option<FileFacts>,
}

/// Statements of a manifest.
#[derive(Default)]
pub(crate) struct StatedManifest {
    /// The transactionTime; `None` if it is missing or no instant.
    pub transaction_time: Option<String>,
    /// The request; empty if it states none.
    pub request: String,
    /// Items of all sections in the manifest's order.
    pub files: Vec<ListedFile>,
    /// Ledger of the root extension; `None` if it is missing or cannot be read.
    pub ledger: Option<Ledger>,
    /// Numbers of vanished resources of the root extension; `None` if they cannot be read.
    pub vanished: Option<VanishedCounts>,
    /// Size bounds of the root extension; `None` if they are missing.
    pub bounds: Option<FileBounds>,
    /// Id of the plan; `None` if it is missing.
    pub plan_id: Option<String>,
}

/// Reads a manifest; rules that it breaks are added to `mismatches`.
pub(crate) fn read(bytes: &[u8], mismatches: &mut Mismatches) -> StatedManifest {
    let mut wrong = |rule, what: String| mismatches.push(Mismatch::of_file(rule, MANIFEST, what));
    let mut stated = StatedManifest { vanished: Some(VanishedCounts::default()), ..StatedManifest::default() };
    let mut names = HashSet::new();
    let root = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(root)) => root,
        Ok(_) => {
            wrong("MANIFEST-15", "it is no JSON object".to_string());
            return stated;
        }
        Err(error) => {
            // The parser's message has a place and no content of the document.
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
    match root.get("request").and_then(Value::as_str) {
        Some(request) => stated.request = request.to_string(),
        None => wrong("MANIFEST-02", "its request is no string".to_string()),
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
                    read_item(section, i, item, &mut stated.files, &mut names, &mut wrong);
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
        Some(Value::Object(extension)) => read_root_extension(extension, &mut stated, &mut wrong),
        Some(_) => wrong("MANIFEST-14", "its extension is no object".to_string()),
    }
    stated
}

/// Reads item number `index` of a section; an item that names a file of the directory is added to `files`,
/// and its name to `names`.
fn read_item(
    section: FileSection,
    index: usize,
    item: &Value,
    files: &mut Vec<ListedFile>,
    names: &mut HashSet<String>,
    wrong: &mut impl FnMut(&'static str, String),
) {
    let place = format!("item {} of {}", index + 1, section.name());
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
    let name = file_name_of(url);
    if name.is_empty() || name.starts_with('.') || name.contains("..") {
        return wrong("MANIFEST-06", format!("the url of {place} names no file of this directory"));
    }
    if !names.insert(name.to_string()) {
        wrong("MANIFEST-06", format!("{place} is listed twice"));
    }
    let facts = object.get("extension").and_then(|extension| extension.get(FILE_KEY));
    let facts = facts.and_then(|facts| serde_json::from_value(facts.clone()).ok());
    files.push(ListedFile { section, name: name.to_string(), of_type: of_type.to_string(), count, facts });
}

/// Reads plan id, bounds and ledger of the root extension, and checks that the ledger's classes add up.
fn read_root_extension(
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
    if let Some(vanished) = ours.get("vanished") {
        stated.vanished = serde_json::from_value(vanished.clone()).ok();
        if stated.vanished.is_none() {
            wrong("vanished", "its numbers of vanished resources cannot be read".to_string());
        }
    }
    stated.ledger = ours.get("ledger").and_then(|ledger| serde_json::from_value(ledger.clone()).ok());
    match &stated.ledger {
        None => wrong("ledger", "its ledger cannot be read".to_string()),
        Some(ledger) if !ledger.balances() => {
            wrong("ledger", format!("the classes of its ledger do not add up to its {}", counted(ledger.lines, "line")))
        }
        Some(_) => {}
    }
}

/// Manifest check: the number in the name of a listed file such as `Patient.00012.ndjson`, by which the list must be
/// sorted; 0 if there is none.
fn ordinal(name: &str) -> u64 {
    name.split('.').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
