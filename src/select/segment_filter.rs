//! The filters of one type, asked about rows of a segment.
//!
//! Search columns decide where the index has them, and no line is read. Where it has none, lines are read; if that is much of a
//! segment anyway, and columns may be made, they are made on the way.

use crate::error::ExportError;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::filter_set::FilterSet;
use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::fhir::search::type_filter::TypeFilter;
use crate::ids::{RowAddress, SegmentId};
use crate::index::row_lines::{RowPlace, read_lines};
use crate::index::row_reader::row_range;
use crate::index::search::build::build_sections;
use crate::index::search::column_file::SegmentKey;
use crate::index::search::columns::ParameterColumn;
use crate::index::search::section::ColumnSection;
use crate::index::search::writer::ColumnWriter;
use crate::index::snapshot::Snapshot;
use crate::progress::Progress;
use crate::select::filter_verdicts::{AskedRows, MET, NOT_MET, UNKNOWN, filter_verdicts};
use crate::select::line_filter::LineFilter;
use crate::select::row_set::RowSet;
use std::sync::Arc;

/// If at least one row in so many of a type in a segment would be read for a filter, all are, and columns made of them.
const BUILT_SHARE: u64 = 2;
/// How the filters of one type were decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterWork {
    /// Name of the type.
    pub resource_type: &'static str,
    /// Parameters that the filters name, each once; those with a column in some segment are `true`.
    pub parameters: Vec<(&'static str, bool)>,
    /// Rows that the filters were asked about.
    pub rows: u64,
    /// Rows that meet one of them.
    pub met: u64,
    /// Rows that columns decided.
    pub by_columns: u64,
    /// Rows that were read.
    pub read: u64,
    /// Bytes of the rows that were read, newlines not counted; those that were read to make columns included.
    pub read_bytes: u64,
    /// Rows that could not be read for a filter, and are left out.
    pub unreadable: u64,
}

impl FilterWork {
    /// Adds the work on another segment.
    pub(crate) fn add(&mut self, other: &FilterWork) {
        self.rows += other.rows;
        self.met += other.met;
        self.by_columns += other.by_columns;
        self.read += other.read;
        self.read_bytes += other.read_bytes;
        self.unreadable += other.unreadable;
        self.parameters.iter_mut().zip(&other.parameters).for_each(|(own, other)| own.1 |= other.1);
    }
}

/// The filters of one type, with the columns of their parameters.
pub(crate) struct TypeFilters<'a> {
    /// The type.
    pub resource_type: ResourceType,
    filters: FilterSet<'a>,
    /// Parameters that filters name and that may have a column, each once, and what there is of it.
    pub columns: Vec<(ParameterName, SearchParameter, Arc<ParameterColumn>)>,
    /// What makes them, if they may be made.
    pub maker: Option<ColumnMaker<'a>>,
}

/// What makes the columns of the parameters of a type.
pub(crate) struct ColumnMaker<'a> {
    /// Their new files.
    pub writer: &'a ColumnWriter<'a>,
    /// Place of the first of them in the writer.
    pub first: usize,
    /// Whether each is made wherever a row is asked for, or where much would be read; `None` for never.
    pub kinds: Vec<Option<MadeColumn>>,
}

/// Where a missing column is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeColumn {
    /// Wherever a row is asked for.
    Listed,
    /// Where much would be read anyway.
    Other,
}

/// Rows of a segment that filters are asked about, all of the type of the filters.
#[derive(Clone, Copy)]
pub(crate) enum FilteredRows<'a> {
    /// These; there is a verdict for each, in their order.
    Listed(&'a [u32]),
    /// Those of a set; there is a verdict for every row of the segment.
    Of(&'a RowSet),
}

impl<'a> TypeFilters<'a> {
    /// Filters for a type, as of the T of a snapshot; `None` if there are none for it.
    pub(crate) fn of(
        snapshot: &Snapshot,
        resource_type: ResourceType,
        filters: &'a [TypeFilter],
        bases: BaseUrls<'a>,
    ) -> Option<TypeFilters<'a>> {
        let now = TimeSpan::parse(&snapshot.as_of().to_string()).unwrap_or(TimeSpan::ALWAYS);
        let filters = FilterSet::of(resource_type, filters, bases, now)?;
        let mut columns: Vec<(ParameterName, SearchParameter, Arc<ParameterColumn>)> = Vec::new();
        for parameter in filters.parameters().filter(|parameter| parameter.has_column()) {
            let name = ParameterName { resource_type, code: parameter.code };
            if columns.iter().all(|(known, _, _)| *known != name) {
                columns.push((name, parameter.clone(), snapshot.index().search().column(name, parameter)));
            }
        }
        Some(TypeFilters { resource_type, filters, columns, maker: None })
    }

    /// No work yet.
    pub(crate) fn no_work(&self) -> FilterWork {
        let mut parameters: Vec<(&'static str, bool)> =
            self.filters.parameters().map(|one| (one.code, false)).collect();
        parameters.sort_unstable();
        parameters.dedup();
        FilterWork { resource_type: self.resource_type.name(), parameters, ..FilterWork::default() }
    }

    /// The verdict on each of some rows: [`MET`] or another one. What was done is added to `work`, whose `rows` are counted already.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged, a row cannot be read, or the work is cancelled.
    pub(crate) fn decide(
        &self,
        snapshot: &Snapshot,
        segment_id: SegmentId,
        rows: FilteredRows<'_>,
        work: &mut FilterWork,
        progress: &Progress,
    ) -> Result<Vec<u8>, ExportError> {
        let segment = snapshot.index().segment(segment_id);
        // 1. Columns, those that are there and those that are made.
        let key = SegmentKey::of(segment.head());
        let built = self.build_missing(snapshot, segment_id, &key, work, progress)?;
        let mut sections: Vec<Option<ColumnSection<'_>>> = Vec::with_capacity(self.columns.len());
        for ((_, _, column), built) in self.columns.iter().zip(&built) {
            sections.push(match built {
                Some(bytes) => Some(ColumnSection::open(bytes, segment.rows())?),
                None => column.section(&key),
            });
        }
        for (code, has_column) in &mut work.parameters {
            let place = self.columns.iter().position(|(name, _, _)| name.code == *code);
            *has_column = place.is_some_and(|place| sections[place].is_some());
        }
        let section = |parameter: &SearchParameter| {
            let place = self.columns.iter().position(|(name, _, _)| name.code == parameter.code)?;
            sections[place].as_ref()
        };
        // 2. What they say, and the rows that are left to be read.
        let (asked, count) = match rows {
            FilteredRows::Listed(rows) => (AskedRows::Listed(rows), rows.len()),
            FilteredRows::Of(_) => (AskedRows::All(segment.rows()), segment.rows()),
        };
        // Columns are a copy of what rows say: where one is malformed in spite of its checksum, rows are read.
        let by_columns = sections.iter().any(Option::is_some).then(|| filter_verdicts(&self.filters, &section, asked));
        let mut verdicts = by_columns.and_then(Result::ok).unwrap_or_else(|| vec![UNKNOWN; count]);
        self.read_unknown(snapshot, segment_id, rows, &mut verdicts, work, progress)?;
        work.by_columns = work.rows - work.read;
        Ok(verdicts)
    }

    /// Makes the sections that columns lack, if columns are made here and that is worth its pass over the rows of the type.
    fn build_missing(
        &self,
        snapshot: &Snapshot,
        segment_id: SegmentId,
        key: &SegmentKey,
        work: &mut FilterWork,
        progress: &Progress,
    ) -> Result<Vec<Option<Vec<u8>>>, ExportError> {
        let mut built: Vec<Option<Vec<u8>>> = vec![None; self.columns.len()];
        let Some(ColumnMaker { writer, first, kinds }) = &self.maker else { return Ok(built) };
        let (index, segment) = (snapshot.index(), snapshot.index().segment(segment_id));
        let is_much = work.rows * BUILT_SHARE >= segment.rows_of_type(self.resource_type)?;
        let is_made = |kind: Option<MadeColumn>| kind == Some(MadeColumn::Listed) || is_much && kind.is_some();
        let mut missing: Vec<usize> = (0..built.len()).filter(|place| is_made(kinds[*place])).collect();
        missing.retain(|place| self.columns[*place].2.section(key).is_none());
        if missing.is_empty() {
            return Ok(built);
        }
        let parameters: Vec<&SearchParameter> = missing.iter().map(|place| &self.columns[*place].1).collect();
        let sections = build_sections(index, segment_id, self.resource_type, &parameters, progress)?;
        work.read_bytes += sections.read_bytes;
        for (place, section) in missing.into_iter().zip(sections.sections) {
            writer.add_or_give_up(*first + place, key, &section);
            built[place] = Some(section);
        }
        Ok(built)
    }

    /// Reads the rows of which nothing is known yet, and writes their verdicts.
    fn read_unknown(
        &self,
        snapshot: &Snapshot,
        segment_id: SegmentId,
        rows: FilteredRows<'_>,
        verdicts: &mut [u8],
        work: &mut FilterWork,
        progress: &Progress,
    ) -> Result<(), ExportError> {
        if !verdicts.contains(&UNKNOWN) {
            return Ok(());
        }
        let index = snapshot.index();
        index.segment(segment_id).verify_copied(0..index.segment(segment_id).rows())?;
        let file = index.file_of(segment_id);
        let place = |place: usize, row: usize| {
            let range = row_range(index, RowAddress::of(segment_id, row));
            RowPlace { file, range, row: place }
        };
        let places: Vec<RowPlace<usize>> = match rows {
            FilteredRows::Listed(rows) => {
                let unknown = rows.iter().enumerate().filter(|(place, _)| verdicts[*place] == UNKNOWN);
                unknown.map(|(i, row)| place(i, *row as usize)).collect()
            }
            FilteredRows::Of(set) => {
                set.iter().filter(|row| verdicts[*row] == UNKNOWN).map(|row| place(row, row)).collect()
            }
        };
        let mut filter = LineFilter::new(&self.filters);
        read_lines(index, &places, progress, &mut |place, line| {
            let is_met = filter.is_met(line);
            work.unreadable += u64::from(is_met.is_err());
            work.read_bytes += line.len() as u64;
            verdicts[*place] = if is_met == Ok(true) { MET } else { NOT_MET };
            Ok(())
        })?;
        work.read = places.len() as u64;
        Ok(())
    }
}
