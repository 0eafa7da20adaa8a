//! Describes files of search columns. No value is shown.

use std::path::Path;

use crate::index::search::column_file::ColumnFile;
use crate::inspect::index_file::{file_name, open_index_file};
use crate::inspect::report::{InspectReport, ReportSection};
use crate::text_table::grouped;

/// Adds a file of a search column: its sections, with what they are of and how many values they have.
pub(crate) fn search_column(path: &Path, report: &mut InspectReport) {
    let Some(bytes) = open_index_file(path, report) else { return };
    let file = match ColumnFile::open_any(bytes) {
        Ok(file) => file,
        Err(damaged) => return report.broken(path, damaged.0),
    };
    let mut sections =
        ReportSection::new(format!("{}: search column", file_name(path)), &["from", "to", "rows", "values", "bytes"]);
    for key in file.keys() {
        let Some(bytes) = file.section_bytes(key) else {
            report.broken(path, format!("the section of bytes {} to {} fails its checksum", key.start, key.end));
            continue;
        };
        let entries = file.section(key).map_or_else(|| "?".to_string(), |section| grouped(section.entries() as u64));
        sections.row(vec![
            grouped(key.start),
            grouped(key.end),
            grouped(key.rows),
            entries,
            grouped(bytes.len() as u64),
        ]);
    }
    report.part("a search column of an index", sections);
}
