//! Filters of `_typeFilter`, applied to the rows that everything else selects (TFILTER-02, TFILTER-09).
//!
//! Search columns decide where the index has them, and no line is read. Where it has none, lines are read; if that is
//! much of a segment anyway, its columns are made on the way. Rows of other types are neither asked for nor read.

use crate::casts::to_u32;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::base_url::BaseUrls;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::filter_set::FilterSet;
use crate::fhir::search::parameter::{ParameterName, SearchParameter};
use crate::ids::{RowAddress, SegmentId};
use crate::index::row_lines::{RowPlace, read_lines};
use crate::index::row_reader::row_range;
use crate::index::search::build::build_sections;
use crate::index::search::column_file::SegmentKey;
use crate::index::search::columns::ParameterColumn;
use crate::index::search::section::ColumnSection;
use crate::index::search::writer::ColumnWriter;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Snapshot;
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::classifier::RowClassifier;
use crate::select::cohort::Cohort;
use crate::select::filter_verdicts::{AskedRows, MET, NOT_MET, UNKNOWN, filter_verdicts};
use crate::select::ledger::SegmentSelection;
use crate::select::line_filter::LineFilter;
use crate::select::row_set::RowSet;
use crate::select::selection::Selection;
use rayon::prelude::*;
use std::sync::Arc;

/// If at least one row in so many of a type in a segment would be read for a filter, all are, and columns made of them.
const BUILT_SHARE: u64 = 2;
/// If at least one row in so many of a segment is asked for, all are: a verdict that nobody needs costs less than a list.
const DENSE_SHARE: usize = 8;

/// Whether search columns that are missing may be made and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnUse {
    /// Those that are there are used.
    Existing,
    /// Missing ones are made where much of their rows is read anyway.
    Completed,
}

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
    fn add(&mut self, other: &FilterWork) {
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
struct TypeFilters<'a> {
    resource_type: ResourceType,
    filters: FilterSet<'a>,
    /// Parameters that filters name and that may have a column, each once, and what there is of it.
    columns: Vec<(ParameterName, SearchParameter, Arc<ParameterColumn>)>,
    /// What makes them, if they may be made.
    maker: Option<ColumnMaker<'a>>,
}

/// What makes the columns of the parameters of a type.
struct ColumnMaker<'a> {
    writer: &'a ColumnWriter<'a>,
    /// Place of the first of them in the writer.
    first: usize,
    /// Whether each is made wherever a row is asked for, or where much would be read; `None` for never.
    kinds: Vec<Option<MadeColumn>>,
}

/// Where a missing column is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MadeColumn {
    /// Wherever a row is asked for.
    Listed,
    /// Where much would be read anyway.
    Other,
}

/// The filters of a request by type.
fn filters_of<'a>(snapshot: &'a Snapshot, request: &'a ExportRequest) -> Vec<TypeFilters<'a>> {
    let now = TimeSpan::parse(&snapshot.as_of().to_string()).unwrap_or(TimeSpan::ALWAYS);
    let of_type = |resource_type: ResourceType| {
        let filters = FilterSet::of(resource_type, &request.type_filters, BaseUrls::new(&request.fhir_bases), now)?;
        let mut columns: Vec<(ParameterName, SearchParameter, Arc<ParameterColumn>)> = Vec::new();
        for parameter in filters.parameters().filter(|parameter| parameter.has_column()) {
            let name = ParameterName { resource_type, code: parameter.code };
            if columns.iter().all(|(known, _, _)| *known != name) {
                columns.push((name, parameter.clone(), snapshot.index().search().column(name, parameter)));
            }
        }
        Some(TypeFilters { resource_type, filters, columns, maker: None })
    };
    ResourceType::all().filter_map(of_type).collect()
}

impl TypeFilters<'_> {
    /// No work yet.
    fn no_work(&self) -> FilterWork {
        let mut parameters: Vec<(&'static str, bool)> =
            self.filters.parameters().map(|one| (one.code, false)).collect();
        parameters.sort_unstable();
        parameters.dedup();
        FilterWork { resource_type: self.resource_type.name(), parameters, ..FilterWork::default() }
    }

    /// Takes the rows out of a set that meet no filter.
    fn apply(
        &self,
        snapshot: &Snapshot,
        segment_id: SegmentId,
        selected: &mut RowSet,
        progress: &Progress,
    ) -> Result<FilterWork, ExportError> {
        let (index, mut work) = (snapshot.index(), self.no_work());
        let segment = index.segment(segment_id);
        if selected.is_empty() || !segment.head().has_type(self.resource_type.index()) {
            return Ok(work);
        }
        let types = match segment.head().only_type() {
            Some(_) => None,
            None => Some(segment.verify_columns(&[Column::Type])?),
        };
        let is_of_type = |row: usize| types.as_ref().is_none_or(|columns| columns.type_of(row) == self.resource_type);
        // 1. The rows of the type: a list, unless they are all rows or many.
        let count = selected.count();
        let listed: Option<Vec<u32>> = (types.is_some() || count * DENSE_SHARE < segment.rows())
            .then(|| selected.iter().filter(|row| is_of_type(*row)).map(to_u32).collect());
        work.rows = listed.as_ref().map_or(count, Vec::len) as u64;
        if work.rows == 0 {
            return Ok(work);
        }
        // 2. Columns, those that are there and those that are made.
        let key = SegmentKey::of(segment.head());
        let built = self.build_missing(snapshot, segment_id, &key, &mut work, progress)?;
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
        // 3. What they say, and the rows that are left to be read.
        let asked = listed.as_deref().map_or(AskedRows::All(segment.rows()), AskedRows::Listed);
        let mut verdicts = match sections.iter().any(Option::is_some) {
            true => filter_verdicts(&self.filters, &section, asked)?,
            false => vec![UNKNOWN; listed.as_ref().map_or(segment.rows(), Vec::len)],
        };
        self.read_unknown(snapshot, segment_id, listed.as_deref(), selected, &mut verdicts, &mut work, progress)?;
        work.by_columns = work.rows - work.read;
        // 4. The rows that stay.
        let before = selected.count();
        keep_met(selected, listed.as_deref(), &verdicts);
        work.met = work.rows - (before - selected.count()) as u64;
        Ok(work)
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
    #[expect(clippy::too_many_arguments, reason = "the parts of one step, which has no state of its own")]
    fn read_unknown(
        &self,
        snapshot: &Snapshot,
        segment_id: SegmentId,
        listed: Option<&[u32]>,
        selected: &RowSet,
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
        let places: Vec<RowPlace<usize>> = match listed {
            Some(rows) => {
                let unknown = rows.iter().enumerate().filter(|(place, _)| verdicts[*place] == UNKNOWN);
                unknown.map(|(i, row)| place(i, *row as usize)).collect()
            }
            None => selected.iter().filter(|row| verdicts[*row] == UNKNOWN).map(|row| place(row, row)).collect(),
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

/// Keeps the rows whose verdict is that they meet a filter. Verdicts are of the listed rows, and others stay, or of all rows.
fn keep_met(selected: &mut RowSet, listed: Option<&[u32]>, verdicts: &[u8]) {
    match (listed, selected) {
        (Some(rows), selected) => {
            let left_out = rows.iter().zip(verdicts).filter(|(_, verdict)| **verdict != MET);
            let left_out: Vec<usize> = left_out.map(|(row, _)| *row as usize).collect();
            selected.remove_all(&left_out);
        }
        (None, RowSet::Sorted(rows)) => rows.retain(|row| verdicts[*row as usize] == MET),
        (None, RowSet::Bitmap(rows)) => rows.retain_words(|first| {
            let word = &verdicts[first..verdicts.len().min(first + 64)];
            word.iter().rev().fold(0, |bits, verdict| bits << 1 | u64::from(*verdict == MET))
        }),
    }
}

/// Takes the rows out of a selection that meet no filter of their type. A row that cannot be read for a filter is left out and
/// counted.
///
/// # Errors
/// [`ExportError`] if the index is damaged, a row cannot be read, or the work is cancelled.
pub fn apply_type_filters(
    snapshot: &Snapshot,
    cohort: &Cohort,
    request: &ExportRequest,
    selection: &mut Selection,
    columns: ColumnUse,
    progress: &Progress,
) -> Result<(), ExportError> {
    if request.type_filters.is_empty() {
        return Ok(());
    }
    let index = snapshot.index();
    let mut filters = filters_of(snapshot, request);
    // 1. Whether columns are made: another process that writes some is not waited for.
    let owned: Vec<(ParameterName, SearchParameter)> =
        filters.iter().flat_map(|of| &of.columns).map(|(name, parameter, _)| (*name, parameter.clone())).collect();
    let parameters: Vec<(ParameterName, &SearchParameter)> = owned.iter().map(|(name, one)| (*name, one)).collect();
    let is_completed = columns == ColumnUse::Completed && !parameters.is_empty();
    let made = if is_completed { index.search().made_for_filters() } else { None };
    let writer = match &made {
        Some(_) => ColumnWriter::begin(index, &parameters, false).unwrap_or_default(),
        None => None,
    };
    if let (Some((listed, makes_others)), Some(writer)) = (&made, &writer) {
        let kind = |name: &ParameterName| match listed.contains(name) {
            true => Some(MadeColumn::Listed),
            false => Some(MadeColumn::Other).filter(|_| *makes_others),
        };
        let mut first = 0;
        for of in &mut filters {
            let kinds = of.columns.iter().map(|(name, _, _)| kind(name)).collect();
            of.maker = Some(ColumnMaker { writer, first, kinds });
            first += of.columns.len();
        }
    }
    // 2. Each segment by itself.
    let classifier = RowClassifier::new(snapshot, cohort, request);
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let rows: Vec<RowSet> =
        segments.iter().map(|segment| std::mem::take(&mut selection.rows[segment.index()])).collect();
    let apply = |(segment, mut rows): (&SegmentId, RowSet)| {
        let before = counts_dates(&classifier, *segment).then(|| rows.clone());
        let work: Vec<FilterWork> = filters
            .iter()
            .map(|filters| filters.apply(snapshot, *segment, &mut rows, progress))
            .collect::<Result<_, ExportError>>()?;
        let dated = before
            .map_or(Ok(SegmentSelection::default()), |before| count_left_out(&classifier, *segment, &before, &rows))?;
        Ok::<_, ExportError>((rows, work, dated))
    };
    let done: Vec<(RowSet, Vec<FilterWork>, SegmentSelection)> =
        segments.par_iter().zip(rows).map(apply).collect::<Result<_, ExportError>>()?;
    // 3. The sums.
    let mut works: Vec<FilterWork> = filters.iter().map(TypeFilters::no_work).collect();
    for (segment, (rows, own, dated)) in segments.into_iter().zip(done) {
        selection.rows[segment.index()] = rows;
        works.iter_mut().zip(&own).for_each(|(sum, own)| sum.add(own));
        selection.stats.late -= dated.late;
        selection.stats.undated -= dated.undated;
    }
    for work in &works {
        selection.ledger.exported -= work.rows - work.met;
        selection.ledger.type_filter += work.rows - work.met;
        selection.stats.unfiltered += work.unreadable;
    }
    selection.stats.filters = works;
    drop(filters);
    if let Some(writer) = writer {
        writer.finish_or_give_up();
        index.search().drop_least_used();
    }
    Ok(())
}

/// Whether rows of a segment are counted for messages about their dates.
fn counts_dates(classifier: &RowClassifier<'_>, segment: SegmentId) -> bool {
    classifier.is_late(segment) || classifier.snapshot.index().segment(segment).head().undated > 0
}

/// What was counted of the rows that are left out for messages about what is exported.
fn count_left_out(
    classifier: &RowClassifier<'_>,
    segment: SegmentId,
    before: &RowSet,
    after: &RowSet,
) -> Result<SegmentSelection, CorruptIndex> {
    let (mut counted, mut stays) = (SegmentSelection::default(), after.iter().peekable());
    for row in before.iter() {
        if stays.next_if_eq(&row).is_none() {
            classifier.classify(RowAddress::of(segment, row), &mut counted)?;
        }
    }
    Ok(counted)
}
