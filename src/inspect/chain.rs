//! Inspects what increments and chains of exports are made from: sets of keys, the list of what no longer belongs, and the documents of
//! a chain. No id is shown.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::chain::root::{ChainRoot, IDENTITY, LATEST};
use crate::inspect::index_file::file_name;
use crate::inspect::report::{InspectReport, ReportSection};
use crate::key_set::ResourceKeySet;
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::regular_file::{Links, open_regular, read_regular};
use crate::text_table::grouped;

/// Adds a set of keys: how many there are, and the digest that its record states.
pub(crate) fn key_set(path: &Path, report: &mut InspectReport) {
    let name = file_name(path);
    let mut section = ReportSection::new(format!("{name}: keys"), &[]);
    let opened = open_regular(path, Links::Follow).map_err(|error| format!("cannot be read: {error}"));
    match opened.and_then(|file| ResourceKeySet::open(file, path)) {
        Ok(set) => {
            section.fact("keys", grouped(set.keys().len() as u64));
            section.fact("digest", set.digest());
        }
        Err(reason) => report.broken(path, format!("it {reason}")),
    }
    report.part("the keys of patients or resources of an export", section);
}

/// Adds a list of what no longer belongs: how many members, and how many resources of each type.
pub(crate) fn departed(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new("departed", &["type", "resources"]);
    match read_regular(path, RECORD_BYTES_MAX) {
        Ok(bytes) => {
            let (mut members, mut types) = (0, BTreeMap::<String, u64>::new());
            for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap_or_default();
                match (line["member"].as_str(), line["resource"].as_str().and_then(|name| name.split_once('/'))) {
                    (Some(_), None) => members += 1,
                    (None, Some((of, _))) => *types.entry(of.to_string()).or_default() += 1,
                    _ => report.broken(path, format!("its line {} names neither a member nor a resource", i + 1)),
                }
            }
            section.fact("members", grouped(members));
            types.into_iter().for_each(|(of, count)| section.row(vec![of, grouped(count)]));
        }
        Err(error) => report.broken(path, format!("it cannot be read: {error}")),
    }
    report.part("the list of what no longer belongs to an increment", section);
}

/// Adds a document of a chain, or of the state that it was applied to: its facts, and how many files it lists.
pub(crate) fn document(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new(file_name(path), &[]);
    let read = read_regular(path, RECORD_BYTES_MAX).map_err(|error| error.to_string());
    match read.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).map_err(|_| "it is no JSON".to_string())) {
        Ok(Value::Object(document)) => {
            for (name, value) in document {
                match value {
                    Value::String(text) => section.fact(&name, text),
                    Value::Array(items) => section.fact(&name, grouped(items.len() as u64)),
                    other => section.fact(&name, other),
                }
            }
        }
        Ok(_) => report.broken(path, "it is no object"),
        Err(error) => report.broken(path, format!("it cannot be read: {error}")),
    }
    report.part("a document of a chain of exports", section);
}

/// Adds the root of a chain: its exports, and its documents.
pub(crate) fn root(path: &Path, report: &mut InspectReport) {
    report.what = "a chain of exports".to_string();
    let mut section = ReportSection::new("exports", &["directory", "number", "of full export", "state"]);
    match ChainRoot::lock_for_reading(path).and_then(|root| root.exports()) {
        Ok(exports) => {
            for export in exports {
                let state = if export.finished { "finished" } else { "not finished" };
                let (number, full) = (export.link.number.to_string(), export.link.full.to_string());
                section.row(vec![export.name, number, full, state.to_string()]);
            }
        }
        Err(error) => report.broken(path, error),
    }
    report.part("a chain of exports", section);
    for name in [LATEST, IDENTITY] {
        let path = path.join(name);
        match path.is_file() {
            true => document(&path, report),
            false => report.absent.push(name.to_string()),
        }
    }
}
