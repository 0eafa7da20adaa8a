//! Compares the search columns of an index with the rows that they were made from: each row is parsed whole, which none is when
//! columns are made.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::error::{ExportError, IndexError};
use crate::fhir::search::members::read_members;
use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::fhir::search::value::ParameterValues;
use crate::ids::{RowAddress, SegmentId};
use crate::index::row_lines::{RowPlace, read_lines};
use crate::index::row_reader::row_range;
use crate::index::search::column_file::SegmentKey;
use crate::index::search::columns::ParameterColumn;
use crate::index::search::section::{ColumnSection, EntryValues};
use crate::index::snapshot::Index;
use crate::progress::Progress;
use crate::verify::VerifyError;
use crate::verify::mismatch::{Mismatch, Mismatches};

/// Compares every section of every search column that is there. One that fails its checksum is no mismatch: it is never
/// used.
///
/// # Errors
/// [`VerifyError`] if a row cannot be read.
pub(crate) fn check_search_columns(
    index: &Index,
    progress: &Progress,
    differences: &mut Mismatches,
) -> Result<(), VerifyError> {
    for stored in index.search().stored() {
        let Some(parameter) = stored.name.parameter() else { continue };
        let column = index.search().column(stored.name, &parameter);
        let segments: Vec<SegmentId> = index.segment_ids().collect();
        let check = |segment: &SegmentId| check_segment(index, *segment, stored.name, &parameter, &column, progress);
        let found: Vec<Mismatches> = segments.par_iter().map(check).collect::<Result<_, VerifyError>>()?;
        found.into_iter().for_each(|found| differences.absorb(found));
    }
    Ok(())
}

/// Compares the column of a parameter with the rows of one segment.
fn check_segment(
    index: &Index,
    segment_id: SegmentId,
    name: ParameterName,
    parameter: &SearchParameter,
    column: &ParameterColumn,
    progress: &Progress,
) -> Result<Mismatches, VerifyError> {
    let (segment, mut differences) = (index.segment(segment_id), Mismatches::default());
    let Some(section) = column.section(&SegmentKey::of(segment.head())) else { return Ok(differences) };
    let columns = segment.verify_all().map_err(IndexError::from)?;
    let file = index.file_of(segment_id);
    let place = |row| RowPlace { file, range: row_range(index, RowAddress::of(segment_id, row)), row };
    let rows: Vec<RowPlace<usize>> = (0..segment.rows()).map(place).collect();
    let members: BTreeSet<&'static str> = parameter.paths.iter().map(|path| path.steps[0].name).collect();
    let read = read_lines(index, &rows, progress, &mut |row, line| {
        let holds = match columns.type_of(*row) == name.resource_type {
            true => is_as_parsed(&section, *row, line, parameter, &members),
            false => section.entry_of(*row) == Ok(None),
        };
        if !holds {
            let what = format!("the search column {name} has other values of row {row} of extent {}", segment_id.0);
            let byte = index.entry(segment_id).start + u64::from(columns.offset(*row));
            differences.push(Mismatch {
                byte: Some(byte),
                ..Mismatch::of_file("search columns", index.file_name(file), what)
            });
        }
        Ok(())
    });
    match read {
        Ok(()) => Ok(differences),
        Err(ExportError::Index(error)) => Err(error.into()),
        Err(ExportError::Cancelled) => Err(VerifyError::Cancelled),
        Err(error) => {
            differences.push(Mismatch::of_file("search columns", index.file_name(file), error.to_string()));
            Ok(differences)
        }
    }
}

/// Whether a section has of a row what its parsed line has, or leaves it to the line.
fn is_as_parsed(
    section: &ColumnSection<'_>,
    row: usize,
    line: &[u8],
    parameter: &SearchParameter,
    members: &BTreeSet<&'static str>,
) -> bool {
    let Ok(Some(entry)) = section.entry_of(row) else { return false };
    match (section.values(entry), read_members(line, members)) {
        (Ok(EntryValues::Unreadable), _) => true,
        (Ok(EntryValues::Read(found)), Ok(root)) => found == ParameterValues::of(parameter, &root),
        _ => false,
    }
}
