//! Inspects the files of an export: manifest, status, plan, receipts.

use std::fmt::Display;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::export::plan_record::PlanRecord;
use crate::inspect::FileKind;
use crate::inspect::report::{InspectReport, ReportSection};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::sys::regular_file::{RegularFileError, read_regular};
use crate::text_table::grouped;
use crate::verify::manifest as shape;
use crate::verify::mismatch::Mismatches;
use crate::verify::target::is_status;
use crate::write::journal::Receipt;

/// Longest file that is read to classify it by its keys, in bytes: none of these files under a foreign name is longer.
const PROBE_BYTES_MAX: u64 = 64 << 20;

/// Kind of a JSON file, by its keys; `None` if it is no document of an export.
pub(crate) fn kind_of(path: &Path) -> io::Result<Option<FileKind>> {
    let bytes = match read_regular(path, PROBE_BYTES_MAX) {
        Err(RegularFileError::TooLong { .. }) => return Ok(None),
        read => read?,
    };
    let has = |value: &Value, keys: &[&str]| keys.iter().all(|key| value.get(key).is_some());
    Ok(match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) if is_status(&value) => Some(FileKind::Status),
        Ok(value) if has(&value, &["transactionTime", "output", "error"]) => Some(FileKind::Manifest),
        Ok(value) if has(&value, &["files", "job"]) => Some(FileKind::Plan),
        _ => None,
    })
}

/// Bytes of a document; a failure is added to the report as damage.
fn read(path: &Path, report: &mut InspectReport) -> Option<Vec<u8>> {
    match read_regular(path, MANIFEST_BYTES_MAX) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            report.broken(path, format!("it cannot be read: {error}"));
            None
        }
    }
}

/// Text of a value that may be missing.
pub(crate) fn text_or_none<T: Display>(value: Option<T>) -> String {
    value.map_or("not stated".to_string(), |value| value.to_string())
}

/// Adds `manifest.json`: its files and its ledger.
pub(crate) fn manifest(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = read(path, report) else { return };
    let mut mismatches = Mismatches::default();
    let stated = shape::read(&bytes, &mut mismatches);
    mismatches.lines().into_iter().for_each(|what| report.broken.push(what));
    let mut section = ReportSection::new("manifest", &["file", "type", "lines", "bytes", "on disk", "digest"]);
    section.fact("transactionTime", text_or_none(stated.transaction_time.as_ref()));
    section.fact("plan", text_or_none(stated.plan_id.as_ref()));
    section.fact("files", grouped(stated.files.len() as u64));
    for listed in &stated.files {
        let facts = listed.facts.as_ref();
        let number = |number: Option<u64>| number.map_or(String::new(), grouped);
        let digest = facts.and_then(|facts| facts.digest.as_ref());
        section.row(vec![
            listed.name.clone(),
            listed.of_type.clone(),
            number(listed.count),
            number(facts.map(|facts| facts.bytes)),
            number(facts.map(|facts| facts.file_bytes)),
            digest.map_or(String::new(), |digest| digest.value.clone()),
        ]);
    }
    report.part("the manifest of an export", section);
    if let Some(Value::Object(ledger)) = stated.ledger.and_then(|ledger| serde_json::to_value(ledger).ok()) {
        let mut section = ReportSection::new("ledger", &["class", "lines"]);
        ledger.iter().for_each(|(class, count)| section.row(vec![class.clone(), grouped(count.as_u64().unwrap_or(0))]));
        report.part("", section);
    }
}

/// Adds `status.json`: its state and its counts of batches.
pub(crate) fn status(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = read(path, report) else { return };
    let mut section = ReportSection::new("status", &[]);
    match serde_json::from_slice::<Value>(&bytes) {
        Err(error) => report.broken(path, format!("it cannot be read: {error}")),
        Ok(value) => {
            let show = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
            for key in ["id", "status", "transactionTime", "lastUpdated", "resourceCount"] {
                section.fact(key, text_or_none(value.get(key).map(show)));
            }
            for key in ["pid", "heartbeat", "phase", "percent", "reason"] {
                value.get(key).map(show).iter().for_each(|shown| section.fact(key, shown));
            }
            for key in ["complete", "running", "failed", "total"] {
                section.fact(&format!("batches {key}"), text_or_none(value["batches"].get(key).map(show)));
            }
        }
    }
    report.part("the status of an export", section);
}

/// Adds `plan.json`: its request and its shards.
pub(crate) fn plan(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = read(path, report) else { return };
    let mut section = ReportSection::new("plan", &["file", "lines", "bytes"]);
    match PlanRecord::read(&bytes) {
        Err(error) => report.broken(path, format!("it cannot be read: {error}")),
        Ok((job, wrong)) => {
            wrong.into_iter().for_each(|wrong| report.broken(path, wrong));
            section.fact("plan", &job.plan_id);
            section.fact("store", &job.origin.store_absolute);
            job.origin.population_file.iter().for_each(|file| section.fact("population file", file));
            section.fact("transactionTime", &job.snapshot.as_of);
            section.fact("extents", grouped(job.snapshot.segments.len() as u64));
            job.request
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .for_each(|(name, value)| section.fact(name, value));
            for (name, rows, bytes) in &job.shards {
                section.row(vec![name.clone(), grouped(*rows), grouped(*bytes)]);
            }
        }
    }
    report.part("the plan of an export", section);
}

/// Adds `receipts.jsonlog`: its receipts.
pub(crate) fn receipts(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = read(path, report) else { return };
    let mut section = ReportSection::new("finished files", &["file", "type", "lines", "bytes", "on disk"]);
    let mut count = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice::<Receipt>(line) {
            _ if !line.ends_with(b"\n") => {
                report.broken(path, format!("line {}: it was cut off; that file counts as unfinished", number + 1));
            }
            Err(error) => report.broken(path, format!("line {}: no receipt: {error}", number + 1)),
            Ok(receipt) => {
                count += 1;
                let Receipt { file, r#type, count, bytes, file_bytes, .. } = receipt;
                section.row(vec![file, r#type, grouped(count), grouped(bytes), grouped(file_bytes)]);
            }
        }
    }
    section.fact("receipts", grouped(count));
    report.part("the receipts of an export", section);
}
