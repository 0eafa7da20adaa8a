//! Makes search columns from rows: of one segment, and of a whole index.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::casts::to_u8;
use crate::error::{ExportError, IndexError};
use crate::extract::root_members::RootMembers;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::ids::{RowAddress, SegmentId};
use crate::index::row_lines::{RowPlace, read_lines};
use crate::index::row_reader::row_range;
use crate::index::search::column_file::SegmentKey;
use crate::index::search::section_builder::SectionBuilder;
use crate::index::search::writer::ColumnWriter;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Index;
use crate::progress::Progress;
use crate::simd::Kernel;

/// What is said where columns cannot be written.
const WRITTEN: &str = "a search column";

/// Sections that were made of a segment.
pub(crate) struct BuiltSections {
    /// One for each parameter, as bytes.
    pub sections: Vec<Vec<u8>>,
    /// Bytes of the rows that were read.
    pub read_bytes: u64,
}

/// Sections of parameters of one type, made of the rows of a segment; read once for all of them.
///
/// # Errors
/// [`ExportError`] if a row cannot be read, the index is damaged, or the work is cancelled.
pub(crate) fn build_sections(
    index: &Index,
    segment_id: SegmentId,
    resource_type: ResourceType,
    parameters: &[&SearchParameter],
    progress: &Progress,
) -> Result<BuiltSections, ExportError> {
    let segment = index.segment(segment_id);
    segment.verify_copied(0..segment.rows())?;
    let types = segment.verify_columns(&[Column::Type])?.resource_type;
    let rows = memchr::memchr_iter(to_u8(resource_type.index()), types);
    let place = |row| RowPlace {
        file: index.file_of(segment_id),
        range: row_range(index, RowAddress::of(segment_id, row)),
        row,
    };
    let places: Vec<RowPlace<usize>> = rows.map(place).collect();
    let mut names: Vec<&'static str> =
        parameters.iter().flat_map(|parameter| &parameter.paths).map(|path| path.steps[0].name).collect();
    names.sort_unstable();
    names.dedup();
    let members = RootMembers::new(names, Kernel::detect());
    let mut builders: Vec<SectionBuilder<'_>> =
        parameters.iter().map(|parameter| SectionBuilder::new(parameter, members.names())).collect();
    let (mut values, mut read_bytes) = (Vec::new(), 0);
    read_lines(index, &places, progress, &mut |row, line| {
        read_bytes += line.len() as u64;
        let found = members.find(line, &mut values).then_some(&values[..]);
        for builder in &mut builders {
            builder.pass_to(*row);
            builder.add(line, found);
        }
        Ok(())
    })?;
    let finish = |mut builder: SectionBuilder<'_>| {
        builder.pass_to(segment.rows());
        builder.finish()
    };
    Ok(BuiltSections { sections: builders.into_iter().map(finish).collect(), read_bytes })
}

/// What was made of the columns of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ColumnWork {
    /// Sections that were made.
    pub sections: u64,
    /// Bytes of the rows that were read for them.
    pub read_bytes: u64,
}

/// Makes the sections that columns of some parameters lack, and writes them; waits for other writers.
///
/// # Errors
/// [`ExportError`] if a row cannot be read, a file cannot be written, the index is damaged, or the work is cancelled.
pub(crate) fn complete_columns(
    index: &Index,
    parameters: &[ParameterName],
    progress: &Progress,
) -> Result<ColumnWork, ExportError> {
    let failed = |source| ExportError::Index(IndexError::Write { name: WRITTEN.into(), source });
    let known = parameters.iter().filter_map(|name| Some((*name, name.parameter()?)));
    let known: Vec<(ParameterName, SearchParameter)> = known.filter(|(_, one)| one.has_column()).collect();
    let borrowed: Vec<(ParameterName, &SearchParameter)> = known.iter().map(|(name, one)| (*name, one)).collect();
    let Some(writer) = ColumnWriter::begin(index, &borrowed, true).map_err(failed)? else {
        return Ok(ColumnWork::default());
    };
    let mut by_type: BTreeMap<ResourceType, Vec<usize>> = BTreeMap::new();
    for (place, (name, _)) in borrowed.iter().enumerate() {
        index.search().reopen(*name);
        by_type.entry(name.resource_type).or_default().push(place);
    }
    // One pass over a segment for all parameters of a type.
    let segments: Vec<SegmentId> = index.segment_ids().collect();
    let complete = |segment_id: &SegmentId| {
        let (segment, mut work) = (index.segment(*segment_id), ColumnWork::default());
        let key = SegmentKey::of(segment.head());
        for (resource_type, places) in by_type.iter().filter(|(of, _)| segment.head().has_type(of.index())) {
            let is_missing = |place: &usize| {
                let (name, parameter) = borrowed[*place];
                index.search().column(name, parameter).section(&key).is_none()
            };
            let missing: Vec<usize> = places.iter().copied().filter(is_missing).collect();
            if missing.is_empty() {
                continue;
            }
            let parameters: Vec<&SearchParameter> = missing.iter().map(|place| borrowed[*place].1).collect();
            let BuiltSections { sections, read_bytes } =
                build_sections(index, *segment_id, *resource_type, &parameters, progress)?;
            for (place, section) in missing.iter().zip(&sections) {
                writer.add(*place, &key, section).map_err(failed)?;
            }
            work.sections += sections.len() as u64;
            work.read_bytes += read_bytes;
        }
        Ok(work)
    };
    let add = |a: ColumnWork, b: ColumnWork| ColumnWork {
        sections: a.sections + b.sections,
        read_bytes: a.read_bytes + b.read_bytes,
    };
    let work: Result<Vec<ColumnWork>, ExportError> = segments.par_iter().map(complete).collect();
    let work = work?.into_iter().fold(ColumnWork::default(), add);
    writer.finish().map_err(failed)?;
    Ok(work)
}
