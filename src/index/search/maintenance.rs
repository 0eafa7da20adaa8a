//! Lists, completes and drops the search columns of an index.

use std::collections::BTreeSet;

use crate::error::{ExportError, IndexError, RequestError, RequestProblem};
use crate::fhir::search::parameter::ParameterName;
use crate::index::search::build::{ColumnWork, complete_columns};
use crate::index::snapshot::Index;
use crate::issue::Parameter;
use crate::progress::Progress;

/// Reads names of parameters as `Observation.category`.
///
/// # Errors
/// [`RequestError`] with every one that is none, or that has no column.
pub(crate) fn read_names<S: AsRef<str>>(names: &[S]) -> Result<Vec<ParameterName>, RequestError> {
    let (mut read, mut problems) = (Vec::new(), Vec::new());
    for name in names.iter().map(|name| name.as_ref().trim()).filter(|name| !name.is_empty()) {
        let known = ParameterName::parse(name);
        match known.and_then(ParameterName::parameter) {
            Some(parameter) if parameter.has_column() => read.extend(known),
            Some(_) => problems.push(format!("{name} is a text, and texts have no column: they are read each time")),
            None => {
                problems.push(format!("{name} is no search parameter; one is Type.name, such as Observation.category"))
            }
        }
    }
    let problem = |text| RequestProblem::of(Parameter::SearchColumns, text);
    match problems.is_empty() {
        true => Ok(read),
        false => Err(RequestError { problems: problems.into_iter().map(problem).collect() }),
    }
}

/// A search column, as it is listed for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnState {
    /// Its parameter.
    pub name: ParameterName,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether it is always kept; others are dropped when many more were used since.
    pub is_listed: bool,
}

/// The search columns of an index, and what was done to complete them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnReport {
    /// The columns, by parameter.
    pub columns: Vec<ColumnState>,
    /// What was made.
    pub work: ColumnWork,
}

/// Which columns are to be dropped.
#[derive(Clone, Debug)]
pub(crate) enum DroppedColumns {
    /// Those of these parameters.
    Of(Vec<ParameterName>),
    /// Every one.
    All,
}

/// Lists further columns, drops some that are not among these, and completes all that are listed or there.
///
/// # Errors
/// As [`complete_columns`]; [`IndexError::Write`] if the list cannot be written.
pub(crate) fn maintain_columns(
    index: &Index,
    added: &[ParameterName],
    dropped: &DroppedColumns,
    progress: &Progress,
) -> Result<ColumnReport, ExportError> {
    let columns = index.search();
    let stored = columns.stored();
    let is_dropped = |name: &ParameterName| {
        !added.contains(name)
            && match dropped {
                DroppedColumns::Of(names) => names.contains(name),
                DroppedColumns::All => true,
            }
    };
    let is_changed = !added.is_empty() || !matches!(dropped, DroppedColumns::Of(names) if names.is_empty());
    let listed = match is_changed {
        true => columns.change_list(|listed| {
            listed.retain(|name| !is_dropped(name));
            listed.extend(added);
        }),
        false => Ok(columns.listed()),
    };
    let listed = listed.map_err(|source| IndexError::Write { name: "the list of search columns".into(), source })?;
    stored.iter().filter(|stored| is_dropped(&stored.name)).for_each(|stored| columns.drop_column(stored));
    let kept = stored.iter().map(|stored| stored.name).filter(|name| !is_dropped(name));
    let completed: BTreeSet<ParameterName> = kept.chain(listed.iter().copied()).collect();
    let completed: Vec<ParameterName> = completed.into_iter().collect();
    let work = match completed.is_empty() {
        true => ColumnWork::default(),
        false => complete_columns(index, &completed, progress)?,
    };
    let state = |name: &ParameterName| {
        let bytes = columns.column(*name, &name.parameter()?).bytes();
        Some(ColumnState { name: *name, bytes, is_listed: listed.contains(name) })
    };
    Ok(ColumnReport { columns: completed.iter().filter_map(state).collect(), work })
}
