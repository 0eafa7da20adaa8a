//! `outpour index`: brings the index of a store up to date and prints totals of its lines, rows and faults.

use std::time::Instant as Clock;

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::IndexArgs;
use crate::cli::config::{open_store, pool, row_choices, validation};
use crate::cli::export::{excluded_line, exit_of, index_line, index_warnings, warning_texts};
use crate::cli::faults::FaultList;
use crate::cli::progress::watched;
use crate::cli::search_columns::{self, columns_json, columns_line, columns_table};
use crate::cli::{Exit, fail, print_messages, put_json, say};
use crate::error::{CorruptIndex, ExportError, IndexError};
use crate::extract::fault::FaultKind;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::index::other_data::FaultTotals;
use crate::index::report::RefreshStats;
use crate::index::search::maintenance::maintain_columns;
use crate::index::segment::layout::SegmentHeader;
use crate::index::snapshot::{Index, Snapshot};
use crate::progress::Progress;
use crate::select::store_issues::store_issues;
use crate::store::Store;
use crate::store::choices::RowChoices;
use crate::text_table::{TextTable, grouped as count};

/// Runs `outpour index` and returns its exit code.
pub(crate) fn run(args: IndexArgs) -> Exit {
    let begun = Clock::now();
    let choices = RowChoices { validate: validation(args.validate), ..row_choices(&args.store.choices) };
    let ready =
        open_store(&args.store, choices, args.remake, true).and_then(|store| Ok((store, pool(args.run.threads)?)));
    let columns = match search_columns::read_arguments(&args.search) {
        Ok(columns) => columns,
        Err(error) => return fail(Exit::BadRequest, &ExportError::from(error), args.run.json),
    };
    let (store, pool) = match ready {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, args.run.json),
    };
    let outcome =
        pool.install(|| watched(args.run.progress, |progress| index_and_count(&store, args.recheck, progress)));
    let (index, work, counts) = match outcome {
        Ok(done) => done,
        Err(error) => {
            let error = error.into();
            return fail(exit_of(&error), &error, args.run.json);
        }
    };
    let (added, dropped) = columns;
    let columns =
        pool.install(|| watched(args.run.progress, |progress| maintain_columns(&index, &added, &dropped, progress)));
    let columns = match columns {
        Ok(columns) => columns,
        Err(error) => return fail(exit_of(&error), &error, args.run.json),
    };
    // Versions dated later count, too.
    let snapshot = Snapshot::of_latest(index, Instant { ticks: i64::MAX, rest: Box::default() });
    let (index, messages) = (snapshot.index(), store_issues(&snapshot));
    let messages = match messages.map_err(IndexError::from) {
        Ok(messages) => messages,
        Err(error) => {
            let error = error.into();
            return fail(exit_of(&error), &error, args.run.json);
        }
    };
    let listed = match args.faults.then(|| FaultList::of(index)).transpose() {
        Ok(listed) => listed,
        Err(error) => {
            let error = error.into();
            return fail(exit_of(&error), &error, args.run.json);
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let LineTotals { types, faults, index_bytes, lines, tombstones } = counts;
    let faulty: u64 = faults.by_kind.iter().sum();
    let named_types: serde_json::Map<String, serde_json::Value> = ResourceType::all()
        .filter(|t| types[t.index()] > 0)
        .map(|t| (t.name().to_string(), types[t.index()].into()))
        .collect();
    let named_faults: serde_json::Map<String, serde_json::Value> = FaultKind::ALL
        .iter()
        .filter(|kind| faults.by_kind[**kind as usize] > 0)
        .map(|kind| (kind.name().to_string(), faults.by_kind[*kind as usize].into()))
        .collect();
    if args.run.json {
        let mut document = json!({
            "status": "complete",
            "exitCode": 0,
            "index": store.index_dir(),
            "durable": index.is_durable(),
            "files": index.generation().files.len(),
            "extents": index.segment_count(),
            "lines": lines,
            "rows": index.rows(),
            "patients": index.patients(),
            "tombstones": tombstones,
            "types": named_types,
            "faults": named_faults,
            "extentBytes": index_bytes,
            "work": work,
            "ignoredFiles": index.ignored_files(),
            "excludedFiles": index.walked().excluded,
            "warnings": warning_texts(&messages),
            "seconds": seconds,
        });
        if !columns.columns.is_empty() {
            document["searchColumns"] = columns_json(&columns);
        }
        if let Some(listed) = &listed {
            document["faultList"] = listed.json();
        }
        put_json(&document);
    }
    let mut table = TextTable::of_figures(&["type", "rows"]);
    named_types.iter().for_each(|(name, n)| table.row([name.clone(), count(n.as_u64().unwrap_or(0))]));
    table.row(["all".to_string(), count(index.rows() as u64)]);
    say(&table.text());
    let table = columns_table(&columns);
    if !table.is_empty() {
        say(&table);
    }
    say(&format!("  lines      {}, {} of them faulty", count(lines), count(faulty)));
    for (name, n) in &named_faults {
        say(&format!("             {n} {name}"));
    }
    if faulty > 0 && listed.is_none() {
        say("             (--faults lists them)");
    }
    say(&format!("  patients   {}", count(index.patients() as u64)));
    say(&format!("  deletions  {}", count(tombstones)));
    say(&format!("  extents    {} of {}", index.segment_count(), format_bytes(index_bytes)));
    columns_line(&columns).iter().for_each(|line| say(line));
    say((excluded_line(index.walked().excluded) + &index_line(&work)).trim_end());
    let rate = format_bytes((work.scanned_bytes as f64 / seconds.max(1e-6)) as u64);
    say(&format!("  time       {seconds:.2} s, {rate}/s scanned"));
    print_messages(&messages);
    index_warnings(&work);
    listed.iter().for_each(FaultList::print);
    Exit::Done
}

/// Totals of an index, for its summary.
struct LineTotals {
    /// Rows by resource type.
    types: Vec<u64>,
    /// Faulty lines by kind of fault, and files without FHIR.
    faults: FaultTotals,
    /// Bytes of all segments on disk.
    index_bytes: u64,
    /// Lines of the store, faulty ones included.
    lines: u64,
    /// Entries of deletion lines, one for each resource deleted.
    tombstones: u64,
}

impl LineTotals {
    /// Totals from the global index and the headers of the segments; no column of a segment is read.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page of the totals fails its checksum.
    fn of(index: &Index) -> Result<LineTotals, CorruptIndex> {
        let totals = index.global().totals()?;
        let sum =
            |count: &dyn Fn(&SegmentHeader) -> u64| index.segments().iter().map(|segment| count(segment.head())).sum();
        Ok(LineTotals {
            types: (0..ResourceType::COUNT).map(|offset| totals.rows(offset)).collect(),
            faults: FaultTotals::of(index)?,
            index_bytes: sum(&|head| head.size),
            lines: sum(&|head| head.lines),
            tombstones: sum(&|head| head.tombstones),
        })
    }
}

/// Brings the index up to date and counts its lines. An index whose totals are corrupt is verified, repaired and
/// counted again.
///
/// # Errors
/// [`IndexError`] if the store cannot be indexed, or the totals are corrupt even after the repair.
fn index_and_count(
    store: &Store,
    recheck: bool,
    progress: &Progress,
) -> Result<(Index, RefreshStats, LineTotals), IndexError> {
    let (index, work) = if recheck { store.verify_and_repair(progress)? } else { store.index(progress)? };
    if let Ok(counts) = LineTotals::of(&index) {
        return Ok((index, work, counts));
    }
    let (index, repair) = store.verify_and_repair(progress)?;
    let counts = LineTotals::of(&index)?;
    Ok((index, RefreshStats { scanned_bytes: work.scanned_bytes + repair.scanned_bytes, ..repair }, counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::segment::layout::Column;

    /// The totals equal the sums over the columns of all segments, also after the store has grown and shrunk.
    #[test]
    fn totals_are_the_sums_of_the_segments() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let patient = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        write("a.ndjson", patient("a") + "{\n" + &patient("b"));
        for (round, rows) in [2, 3, 2].into_iter().enumerate() {
            match round {
                1 => write("b.ndjson", patient("c") + "[]\n\n"),
                2 => std::fs::remove_file(dir.path().join("b.ndjson")).unwrap(),
                _ => {}
            }
            let (index, _, counts) = index_and_count(&store, false, &Progress::default()).unwrap();
            let (mut types, mut faults) = (vec![0; ResourceType::COUNT], vec![0; FaultKind::ALL.len()]);
            for segment in index.segments() {
                let columns = segment.verify_columns(&[Column::TypeCount, Column::FaultCount]).unwrap();
                types.iter_mut().zip(columns.type_count).for_each(|(sum, count)| *sum += count);
                faults.iter_mut().zip(columns.fault_count).for_each(|(sum, count)| *sum += count);
            }
            assert_eq!((&counts.types, &counts.faults.by_kind), (&types, &faults));
            assert_eq!(counts.types[ResourceType::PATIENT.index()], rows);
        }
    }
}
