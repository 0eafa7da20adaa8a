//! Inspects the lists beside the files of an index and the journal of an export: first-seen times of rows, vanished resources,
//! listed search columns, files that an export is to replace.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::index::row_times::RowTimes;
use crate::index::vanished;
use crate::inspect::index_file::file_name;
use crate::inspect::report::{InspectReport, ReportSection};
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::regular_file::read_regular;
use crate::text_table::grouped;

/// Bytes of a file; a failure is added to the report as damage.
fn read(path: &Path, report: &mut InspectReport) -> Option<Vec<u8>> {
    let read = read_regular(path, RECORD_BYTES_MAX);
    read.map_err(|error| report.broken(path, format!("it cannot be read: {error}"))).ok()
}

/// Adds a file of first-seen times of rows: of how many segments, and in how many runs.
pub(crate) fn row_times(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new(format!("{}: first-seen times of rows", file_name(path)), &[]);
    match read(path, report).map(|bytes| RowTimes::from_bytes(&bytes)) {
        Some(Some(times)) => {
            let (segments, runs) = times.counts();
            section.fact("extents", grouped(segments as u64));
            section.fact("runs of rows", grouped(runs as u64));
        }
        Some(None) => report.broken(path, "its magic, checksum or order does not hold; the other copy is used"),
        None => {}
    }
    report.part("first-seen times of rows of an index", section);
}

/// Adds a file of vanished resources: how many there are of each cause and type. Ids are not shown.
pub(crate) fn vanished_resources(path: &Path, report: &mut InspectReport) {
    let headings = ["type", "cause", "resources"];
    let mut section = ReportSection::new(format!("{}: vanished resources", file_name(path)), &headings);
    match read(path, report).map(|bytes| vanished::from_bytes(&bytes)) {
        Some(Some(list)) => {
            let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            for gone in &list {
                *counts.entry((gone.resource_type.name(), gone.cause.name())).or_default() += 1;
            }
            section.fact("resources", grouped(list.len() as u64));
            section.fact("come back", grouped(list.iter().filter(|gone| gone.returned).count() as u64));
            for ((of, cause), count) in counts {
                section.row(vec![of.to_string(), cause.to_string(), grouped(count)]);
            }
        }
        Some(None) => report.broken(path, "its magic, checksum or order does not hold; the other copy is used"),
        None => {}
    }
    report.part("vanished resources of an index", section);
}

/// Adds the list of search columns that every `outpour index` completes.
pub(crate) fn listed_columns(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new("listed search columns", &["parameter"]);
    if let Some(bytes) = read(path, report) {
        String::from_utf8_lossy(&bytes).lines().for_each(|name| section.row(vec![name.to_string()]));
    }
    report.part("the search columns that an index is to have", section);
}

/// Adds the names of the files that an export is to replace.
pub(crate) fn replaced_files(path: &Path, report: &mut InspectReport) {
    let mut section = ReportSection::new("files to replace", &["file"]);
    if let Some(bytes) = read(path, report) {
        let list = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
        match list["files"].as_array() {
            Some(files) => {
                let names = serde_json::to_vec(files).expect("names are plain data");
                if list["sum"] != format!("{:032x}", crate::hash::xxh3_128(&names)) {
                    report.broken(path, "its checksum does not hold");
                }
                files.iter().filter_map(Value::as_str).for_each(|name| section.row(vec![name.to_string()]));
            }
            None => report.broken(path, "it is no list of files"),
        }
    }
    report.part("the files that an export is to replace", section);
}
