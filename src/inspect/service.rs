//! Inspects the data directory of the service: job records, Groups of clients, keys of access tokens without what is secret,
//! and records of used assertions.
//!
//! Records are read by their keys, not by the types of the service, which stand above this module. What a job asked for is not
//! shown beyond its population's kind: kick-off URLs may hold patients' data.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::group::reader::{GroupMember, GroupReader};
use crate::group::registry::writer::GroupWriter;
use crate::hash::xxh3_64;
use crate::inspect::export::text_or_none;
use crate::inspect::index_file::file_name;
use crate::inspect::report::{InspectReport, ReportSection};
use crate::limits::RECORD_BYTES_MAX;
use crate::simd::Kernel;
use crate::sys::regular_file::read_regular;
use crate::text_table::grouped;

/// File that marks the directories of records and of files as belonging together.
pub(crate) const MARK: &str = ".service";
/// File of the keys that sign access tokens, and that of keys that could not be read.
pub(crate) const KEYS: [&str; 2] = ["signing-keys.json", "signing-keys.json.damaged"];
/// Bytes before the 16 digits of the checksum at the end of a job record.
const SUM: &str = r#","sum":""#;
/// Bytes of a record of a used assertion: digest, end, CRC-32.
const ASSERTION_BYTES: usize = 44;

/// Whether a file name is that of a job record.
pub(crate) fn is_record_name(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(is_job_id)
}

/// Whether a text is the id of a job: 32 lower-case hexadecimal digits.
fn is_job_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a directory is the data directory of the service.
pub(crate) fn is_data_directory(path: &Path) -> bool {
    path.join("files").join(MARK).is_file()
}

/// Whether a directory is that of job records.
pub(crate) fn is_record_directory(path: &Path) -> bool {
    path.join(MARK).is_file()
}

/// Bytes of a file; a failure is added to the report as damage.
fn read(path: &Path, report: &mut InspectReport) -> Option<Vec<u8>> {
    let read = read_regular(path, RECORD_BYTES_MAX);
    read.map_err(|error| report.broken(path, format!("it cannot be read: {error}"))).ok()
}

/// Paths of the entries of a directory, by name; none if it is not there.
fn entries(path: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

/// Adds the data directory: its jobs, Groups, keys and assertions, a table each.
pub(crate) fn data_directory(path: &Path, report: &mut InspectReport) {
    report.what = "the data directory of a service".to_string();
    let records = path.join("jobs");
    match records.is_dir() {
        true => record_directory(&records, report),
        false => report.absent.push("jobs (they may lie elsewhere, by data.jobs)".to_string()),
    }
    let has_record = |id: &str| records.join(format!("{id}.json")).is_file();
    let mut files = ReportSection::new("directories of jobs", &["job", "record", "export"]);
    for directory in entries(&path.join("files")) {
        let id = file_name(&directory);
        if is_job_id(&id) {
            let record = if has_record(&id) { "there" } else { "none here" };
            let export = if directory.join("out/manifest.json").is_file() { "finished" } else { "not finished" };
            files.row(vec![id, record.to_string(), export.to_string()]);
        }
    }
    report.part("", files);
    let mut kept =
        ReportSection::new("patients of exports, kept for increments", &["job", "Group", "transactionTime", "keys"]);
    for file in
        entries(&path.join("files/baselines")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "json"))
    {
        let Some(told) = read_record(&file, report) else { continue };
        let text = |field: &str| told[field].as_str().unwrap_or("?").to_string();
        let keys = std::fs::metadata(file.with_extension("keys"))
            .map_or("missing".to_string(), |keys| grouped(keys.len().saturating_sub(32) / 16));
        kept.row(vec![text("job"), text("group"), text("transactionTime"), keys]);
    }
    report.part("", kept);
    let mut groups = ReportSection::new("Groups of clients", &["id", "members", "writer"]);
    for file in entries(&path.join("groups")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "ndjson"))
    {
        let id = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((members, writer)) = read_group(&file, report) {
            groups.row(vec![id, members.map_or("deleted".to_string(), grouped), writer]);
        }
    }
    report.part("", groups);
    let smart = path.join("smart");
    for file in KEYS.map(|name| smart.join(name)).into_iter().filter(|file| file.is_file()) {
        signing_keys(&file, report);
    }
    entries(&smart.join("assertions")).iter().for_each(|file| used_assertions(file, report));
}

/// Adds a directory of job records, one row each.
pub(crate) fn record_directory(path: &Path, report: &mut InspectReport) {
    let headings = ["job", "state", "client", "accepted", "transactionTime", "rows", "files"];
    let mut section = ReportSection::new("jobs", &headings);
    for file in entries(path).into_iter().filter(|file| is_record_name(&file_name(file))) {
        if let Some(record) = read_record(&file, report) {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
            let number = |value: &Value| value.as_u64().map_or(String::new(), grouped);
            let mut row: Vec<String> =
                ["id", "state", "client", "accepted", "transactionTime"].map(|key| text(&record[key])).to_vec();
            row.push(number(&record["planned"]["rows"]));
            row.push(grouped(record["files"].as_array().map_or(0, |files| files.len() as u64)));
            section.row(row);
        }
    }
    report.part("the records of jobs of a service", section);
}

/// Reads a job record and checks its checksum; damage is added to the report.
fn read_record(path: &Path, report: &mut InspectReport) -> Option<Value> {
    let bytes = read(path, report)?;
    let start = bytes.len().saturating_sub(SUM.len() + 16 + 2);
    let (body, end) = bytes.split_at(start);
    let digits = end.strip_prefix(SUM.as_bytes()).and_then(|rest| rest.strip_suffix(b"\"}"));
    // Records of earlier versions have no checksum.
    if digits.is_some_and(|digits| digits != format!("{:016x}", xxh3_64(body)).as_bytes()) {
        report.broken(path, "its checksum does not hold; the service leaves the job alone");
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(record) if record.is_object() => Some(record),
        _ => {
            report.broken(path, "it is no JSON document of a job");
            None
        }
    }
}

/// Adds the record of one job.
pub(crate) fn job_record(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new("job", &["file", "type", "lines", "bytes"]);
    if let Some(record) = read_record(path, report) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        for key in ["format", "id", "state", "mount", "client", "accepted", "ended", "expires", "transactionTime"] {
            section.fact(key, text_or_none(record.get(key).map(text)));
        }
        let population = &record["request"]["whose"];
        let kind =
            population.as_object().and_then(|one| one.keys().next().cloned()).unwrap_or_else(|| text(population));
        section.fact("population", kind);
        for key in ["rows", "shards", "complete"] {
            record["planned"].get(key).iter().for_each(|count| section.fact(&format!("planned {key}"), count));
        }
        record["failure"].get("detail").map(text).iter().for_each(|detail| section.fact("failure", detail));
        for file in record["files"].as_array().into_iter().flatten() {
            let number = |key: &str| file[key].as_u64().map_or(String::new(), grouped);
            let name = if file["file"].is_null() { &file["name"] } else { &file["file"] };
            section.row(vec![text(name), text(&file["type"]), number("count"), number("bytes")]);
        }
    }
    report.part("the record of a job of a service", section);
}

/// Reads a Group of a client: its number of members, `None` of a deletion, and who wrote it.
fn read_group(path: &Path, report: &mut InspectReport) -> Option<(Option<u64>, String)> {
    let bytes = read(path, report)?;
    let end = memchr::memchr(b'\n', &bytes);
    let (line, rest) = end.map_or((&bytes[..], &[][..]), |end| (&bytes[..end], &bytes[end + 1..]));
    if end.is_none() {
        report.broken(path, "its line is cut off");
    }
    let writer = match GroupWriter::parse(rest) {
        Ok(writer) => writer.map_or(String::new(), |writer| writer.client),
        Err(reason) => {
            report.broken(path, format!("line 2: {reason}"));
            String::new()
        }
    };
    if line.starts_with(br#"{"resourceType":"Bundle""#) {
        return Some((None, writer));
    }
    let mut on_member = |_: &GroupMember<'_>| {};
    let mut reader = GroupReader::new(Kernel::detect(), &mut on_member);
    reader.begin();
    reader.feed(line);
    match reader.finish() {
        Ok(head) => Some((Some(head.members), writer)),
        Err(fault) => {
            report.broken(path, format!("line 1, byte {} of it: {}", fault.at, fault.kind));
            None
        }
    }
}

/// Adds a Group of a client.
pub(crate) fn registered_group(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new("Group of a client", &[]);
    if let Some((members, writer)) = read_group(path, report) {
        section.fact("members", members.map_or("none: the Group was deleted".to_string(), grouped));
        section.fact("writer", if writer.is_empty() { "not recorded" } else { &writer });
    }
    report.part("a Group that a client of the service wrote", section);
}

/// Adds the keys that sign access tokens: when they were made. The keys themselves are not shown.
pub(crate) fn signing_keys(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new(format!("{}: keys of access tokens", file_name(path)), &["kid", "made"]);
    if let Some(bytes) = read(path, report) {
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(file) if file["version"] == 1 && file["keys"].is_array() => {
                for key in file["keys"].as_array().into_iter().flatten() {
                    let made = key["made"].as_u64().map(|seconds| seconds.to_string());
                    section.row(vec![key["kid"].as_str().unwrap_or_default().to_string(), text_or_none(made)]);
                }
            }
            _ => report.broken(path, "it is no file of keys of version 1; the service makes new ones"),
        }
    }
    report.part("the keys that sign the access tokens of a service (not shown)", section);
}

/// Adds a file of used assertions: how many, and until when the last one is kept.
pub(crate) fn used_assertions(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = read(path, report) else { return };
    let (records, torn) = bytes.as_chunks::<ASSERTION_BYTES>();
    let mut section = ReportSection::new(format!("{}: used assertions", file_name(path)), &[]);
    let number = |record: &[u8; ASSERTION_BYTES]| u64::from_le_bytes(record[32..40].try_into().expect("8 bytes"));
    let is_sound = |record: &&[u8; ASSERTION_BYTES]| crc32fast::hash(&record[..40]).to_le_bytes() == record[40..];
    let sound = records.iter().filter(is_sound);
    section.fact("assertions", grouped(sound.clone().count() as u64));
    section.fact(
        "kept until",
        text_or_none(sound.clone().map(number).max().map(|seconds| format!("{seconds} s of Unix time"))),
    );
    if !torn.is_empty() {
        // It was not answered, so nothing is lost.
        section.fact("bytes of a record that is not whole", torn.len());
    }
    let damaged = records.len() - sound.count();
    if damaged > 0 {
        report.broken(path, format!("{damaged} of its records do not have their CRC-32"));
    }
    report.part("used assertions of clients of a service", section);
}
