//! Search columns as `outpour index` and plans show them.

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::search_columns::SearchColumnArgs;
use crate::error::RequestError;
use crate::fhir::search::parameter::ParameterName;
use crate::index::search::maintenance::{ColumnReport, DroppedColumns, read_names};
use crate::select::segment_filter::FilterWork;
use crate::text_table::{TextTable, grouped as count, grouped_with};

/// The word for every column.
const ALL: &str = "all";

/// The columns to add and to drop.
///
/// # Errors
/// [`RequestError`] with every name that is none.
pub(crate) fn read_arguments(args: &SearchColumnArgs) -> Result<(Vec<ParameterName>, DroppedColumns), RequestError> {
    let is_all = args.drop_search.iter().any(|name| name.trim() == ALL);
    let dropped = if is_all { Vec::new() } else { args.drop_search.clone() };
    let (added, dropped) = match (read_names(&args.search), read_names(&dropped)) {
        (Ok(added), Ok(dropped)) => (added, dropped),
        (added, dropped) => {
            let problems = [added, dropped].into_iter().filter_map(Result::err).flat_map(|error| error.problems);
            return Err(RequestError { problems: problems.collect() });
        }
    };
    Ok((added, if is_all { DroppedColumns::All } else { DroppedColumns::Of(dropped) }))
}

/// The columns as JSON.
pub(crate) fn columns_json(report: &ColumnReport) -> serde_json::Value {
    let column = |state: &crate::index::search::maintenance::ColumnState| json!({ "parameter": state.name.to_string(), "bytes": state.bytes, "listed": state.is_listed });
    report.columns.iter().map(column).collect()
}

/// The columns as a table; empty without any.
pub(crate) fn columns_table(report: &ColumnReport) -> String {
    if report.columns.is_empty() {
        return String::new();
    }
    let mut table = TextTable::of_figures(&["search column", "bytes"]);
    for state in &report.columns {
        let listed = if state.is_listed { "" } else { " (asked for by a filter)" };
        table.row([format!("{}{listed}", state.name), format_bytes(state.bytes)]);
    }
    table.text()
}

/// The line that says what was made of columns; `None` if nothing was.
pub(crate) fn columns_line(report: &ColumnReport) -> Option<String> {
    let work = &report.work;
    (work.sections > 0).then(|| {
        let sections = grouped_with(work.sections, "section");
        format!("  columns    {sections} made of {} of rows", format_bytes(work.read_bytes))
    })
}

/// How filters were decided, as JSON.
pub(crate) fn filters_json(works: &[FilterWork]) -> serde_json::Value {
    let parameter = |(code, has_column): &(&str, bool)| json!({ "name": code, "column": has_column });
    let work = |work: &FilterWork| {
        json!({
            "type": work.resource_type,
            "parameters": work.parameters.iter().map(parameter).collect::<Vec<_>>(),
            "rows": work.rows,
            "met": work.met,
            "byColumns": work.by_columns,
            "read": work.read,
            "readBytes": work.read_bytes,
            "unreadable": work.unreadable,
        })
    };
    works.iter().map(work).collect()
}

/// How filters were decided, as a table; empty without filters.
pub(crate) fn filters_table(works: &[FilterWork]) -> String {
    if works.is_empty() {
        return String::new();
    }
    let mut table = TextTable::of_figures(&["filter", "rows", "found", "by columns", "read", "bytes read"]);
    for work in works {
        let name = |(code, has_column): &(&str, bool)| format!("{code}{}", if *has_column { "" } else { "*" });
        let names: Vec<String> = work.parameters.iter().map(name).collect();
        let filter = format!("{}?{}", work.resource_type, names.join("&"));
        let figures = [work.rows, work.met, work.by_columns, work.read].map(count);
        table.row([&[filter][..], &figures[..], &[format_bytes(work.read_bytes)]].concat());
    }
    let lacks = works.iter().flat_map(|work| &work.parameters).any(|(_, has_column)| !has_column);
    let note = if lacks { "  * not in a column of the index: what other columns leave open is read\n" } else { "" };
    format!("{}\n{note}", table.text().trim_end_matches('\n'))
}
