//! `outpour import`: takes sources into a store, once or as they come, and tells what became of each.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant as Clock, SystemTime};

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::import::{ImportArgs, StampArg};
use crate::cli::args::run::AllowMissingArgs;
use crate::cli::clock::now;
use crate::cli::config::{open_store, pool};
use crate::cli::export::is_full;
use crate::cli::group::store_args;
use crate::cli::progress::watched;
use crate::cli::{Exit, complain, fail, put_json, say};
use crate::error::{IndexError, RequestError};
use crate::import::problem::ImportError;
use crate::import::sources::{ImportSource, list_sources};
use crate::import::writer::{ImportOptions, ImportWriter, SourceReport, SourceState, prepare_store};
use crate::progress::Progress;
use crate::store::Store;
use crate::store::choices::RowChoices;
use crate::store::paths::check_outside_store;
use crate::sys::durability::FileSync;
use crate::sys::interrupt;
use crate::text_table::{grouped as count, grouped_with};

/// Time between two looks into a directory that is watched.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Endings of names under which programs write files that are not whole yet.
const UNFINISHED: [&str; 4] = [".tmp", ".part", ".partial", ".crdownload"];

/// Runs `outpour import` and returns its exit code.
pub(crate) fn run(args: ImportArgs) -> Exit {
    let json = args.run.json;
    let begun = Clock::now();
    let mut sources = Vec::new();
    let listed = args.sources.iter().try_for_each(|path| list_sources(path, &mut sources));
    let watched_directory = args.watch.as_deref().map_or(Ok(()), |path| list_sources(path, &mut Vec::new()));
    if let Err(error) = listed.and(watched_directory) {
        return fail(exit_of(&error), &error, json);
    }
    if sources.is_empty() && args.watch.is_none() {
        let named: Vec<String> = args.sources.iter().map(|path| path.display().to_string()).collect();
        let text = format!("{} holds no .json or .ndjson file; name files, or a directory of them", named.join(", "));
        return fail(Exit::BadRequest, &RequestError::one(text), json);
    }
    if let Some(directory) = &args.watch
        && check_outside_store(&args.store, directory).is_err()
    {
        let text = format!(
            "--watch: {} lies inside the store, whose files would be taken in again and again; choose a directory outside",
            directory.display()
        );
        return fail(Exit::BadRequest, &RequestError::one(text), json);
    }
    if let Err(error) = prepare_store(&args.store) {
        return fail(exit_of(&error), &error, json);
    }
    let store_args = store_args(&args.store, args.index_dir.clone(), AllowMissingArgs::default());
    let ready = open_store(&store_args, RowChoices::default(), false, !args.no_sync)
        .and_then(|store| Ok((store, pool(args.run.threads)?)));
    let (store, pool) = match ready {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, json),
    };
    if let Some(directory) = &args.watch {
        return watch(&args, directory, &store, &pool);
    }
    let mut reports = Vec::new();
    let outcome = import(&args, &store, &pool, &sources, &mut |report| {
        tell(&report);
        reports.push(report);
    });
    let exit = match outcome {
        Ok(()) if reports.iter().any(|report| report.problems.count > 0) => Exit::Partial,
        Ok(()) => Exit::Done,
        Err(error) => return fail(exit_of(&error), &error, json),
    };
    let seconds = begun.elapsed().as_secs_f64();
    if json {
        put_json(&document(&args, &reports, exit, seconds));
    }
    say(&summary(&args.store, &reports, seconds));
    exit
}

/// Imports sources, and passes the report of each to `on_report`.
fn import(
    args: &ImportArgs,
    store: &Store,
    pool: &rayon::ThreadPool,
    sources: &[ImportSource],
    on_report: &mut (dyn FnMut(SourceReport) + Send),
) -> Result<(), ImportError> {
    let sync = if args.no_sync { FileSync::No } else { FileSync::Yes };
    let mut work = |progress: &Progress| {
        let options = ImportOptions {
            partial: args.partial,
            stamps: args.stamp == StampArg::Changed,
            bases: &args.fhir_base,
            sync,
            now: &now,
        };
        let mut writer = ImportWriter::open(store, options, progress)?;
        for source in sources {
            if progress.is_cancelled() {
                return Err(ImportError::Cancelled);
            }
            on_report(writer.import(source, progress)?);
        }
        Ok(())
    };
    watched(args.run.progress, |progress| pool.install(|| work(progress)))
}

/// Imports what comes to a directory, until SIGINT or SIGTERM.
fn watch(args: &ImportArgs, directory: &Path, store: &Store, pool: &rayon::ThreadPool) -> Exit {
    let interrupted = interrupt::interrupts();
    // Since when each source is as it is; and how those were that were looked at.
    let mut standing: HashMap<PathBuf, (SourceStamp, Clock)> = HashMap::new();
    let mut done: HashMap<PathBuf, (SourceStamp, bool)> = HashMap::new();
    say(&format!("Watching {}; Ctrl-C ends it", directory.display()));
    while !interrupted.load(Relaxed) {
        let mut sources = Vec::new();
        if let Err(error) = list_sources(directory, &mut sources) {
            // What was listed may be gone already: the next look tells.
            if !directory.is_dir() {
                return fail(exit_of(&error), &error, false);
            }
            sources.clear();
        }
        sources.retain(|source| source.fault.is_none() && source.files.iter().all(|file| has_final_name(file)));
        let mut due = Vec::new();
        for source in sources {
            let stamp = stamp_of(&source);
            let since = standing.entry(source.path.clone()).or_insert_with(|| (stamp.clone(), Clock::now()));
            if since.0 != stamp {
                *since = (stamp.clone(), Clock::now());
            }
            let is_settled = since.1.elapsed() >= Duration::from_secs(args.settle);
            if is_settled && done.get(&source.path).is_none_or(|(known, _)| *known != stamp) {
                due.push((source, stamp));
            }
        }
        if !due.is_empty() {
            let (sources, stamps): (Vec<ImportSource>, Vec<SourceStamp>) = due.into_iter().unzip();
            let mut stamps = stamps.into_iter();
            let outcome = import(args, store, pool, &sources, &mut |report| {
                if report.state != SourceState::Known {
                    tell(&report);
                }
                let is_whole = report.problems.count == 0;
                done.extend(stamps.next().map(|stamp| (report.source.clone(), (stamp, is_whole))));
            });
            match outcome {
                Ok(()) => {}
                Err(ImportError::Cancelled) => break,
                Err(error) => return fail(exit_of(&error), &error, false),
            }
        }
        let looked = Clock::now();
        while !interrupted.load(Relaxed) && looked.elapsed() < LOOK_EVERY {
            std::thread::sleep(Duration::from_millis(50));
        }
        standing.retain(|path, _| path.exists());
        done.retain(|path, _| path.exists());
    }
    let faulty = done.values().filter(|(_, is_whole)| !is_whole).count() as u64;
    if faulty > 0 {
        say(&format!("{} in {} had problems", grouped_with(faulty, "source"), directory.display()));
    }
    if faulty > 0 { Exit::Partial } else { Exit::Done }
}

/// Sizes and times of the files of a source; `None` of one that is gone.
type SourceStamp = Vec<Option<(u64, SystemTime)>>;

/// How the files of a source are now.
fn stamp_of(source: &ImportSource) -> SourceStamp {
    let of =
        |file: &PathBuf| std::fs::metadata(file).ok().and_then(|found| Some((found.len(), found.modified().ok()?)));
    source.files.iter().map(of).collect()
}

/// Whether a file has the name under which it stays.
fn has_final_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    !name.starts_with('.') && !UNFINISHED.iter().any(|ending| name.ends_with(ending))
}

/// Tells what became of a source.
fn tell(report: &SourceReport) {
    report.problems.first.iter().for_each(|problem| complain(&problem.to_string()));
    let more = report.problems.count - report.problems.first.len() as u64;
    if more > 0 {
        complain(&format!("{}: {} more problems", report.source.display(), count(more)));
    }
    let mut text = format!("{}: {}", report.source.display(), report.state.name());
    match (report.state, &report.directory) {
        (SourceState::Imported, Some(directory)) => {
            let rows: u64 = report.rows.iter().map(|(_, rows)| rows).sum();
            text += &format!(", {} as {directory}", grouped_with(rows, "row"));
            if report.problems.count > 0 {
                text += ", without what has problems";
            }
        }
        (SourceState::Known, Some(directory)) => text += &format!(" as {directory}"),
        (SourceState::Refused, _) => text += &format!(" for {}", grouped_with(report.problems.count, "problem")),
        _ => {}
    }
    say(&text);
}

/// How many sources came to a state.
fn sources_in(reports: &[SourceReport], state: SourceState) -> u64 {
    reports.iter().filter(|report| report.state == state).count() as u64
}

/// The summary of all sources, for people.
fn summary(store: &Path, reports: &[SourceReport], seconds: f64) -> String {
    let rows: u64 = reports.iter().flat_map(|report| &report.rows).map(|(_, rows)| rows).sum();
    let deletions: u64 = reports.iter().map(|report| report.deletions).sum();
    let passed_over: u64 = reports.iter().map(|report| report.passed_over).sum();
    let bytes: u64 = reports.iter().map(|report| report.bytes).sum();
    let mut out = format!("\nImported into {}\n\n", store.display());
    let mut line = |name: &str, text: String| out += &format!("  {name:<17} {text}\n");
    let states = [SourceState::Imported, SourceState::Known, SourceState::Empty, SourceState::Refused];
    for state in states {
        match sources_in(reports, state) {
            0 if state != SourceState::Imported => {}
            sources => line(state.name(), grouped_with(sources, "source")),
        }
    }
    line("rows", count(rows));
    if deletions > 0 {
        line("deletions", count(deletions));
    }
    let unchanged: u64 = reports.iter().map(|report| report.unchanged).sum();
    if unchanged > 0 {
        line("unchanged", format!("{}, left out", count(unchanged)));
    }
    if passed_over > 0 {
        line("passed over", format!("{}: no records, or there by their condition", grouped_with(passed_over, "entry")));
    }
    let rate = (bytes as f64 / seconds.max(1e-6)) as u64;
    line("bytes", format!("{} written in {seconds:.2} s, {}/s", format_bytes(bytes), format_bytes(rate)));
    out
}

/// The same as a document.
fn document(args: &ImportArgs, reports: &[SourceReport], exit: Exit, seconds: f64) -> serde_json::Value {
    let mut types: BTreeMap<&str, u64> = BTreeMap::new();
    for (resource_type, rows) in reports.iter().flat_map(|report| &report.rows) {
        *types.entry(resource_type.name()).or_default() += rows;
    }
    let source = |report: &SourceReport| {
        let rows: BTreeMap<&str, u64> =
            report.rows.iter().map(|(resource_type, rows)| (resource_type.name(), *rows)).collect();
        json!({
            "source": report.source.display().to_string(),
            "state": report.state.name(),
            "directory": report.directory,
            "rows": rows,
            "deletions": report.deletions,
            "passedOver": report.passed_over,
            "unchanged": report.unchanged,
            "bytes": report.bytes,
            "problemCount": report.problems.count,
            "problems": report.problems.first,
        })
    };
    json!({
        "status": "complete",
        "exitCode": exit as u8,
        "store": args.store.display().to_string(),
        "rows": types,
        "sources": reports.iter().map(source).collect::<Vec<_>>(),
        "seconds": seconds,
    })
}

/// The exit code of an import that failed.
pub(crate) fn exit_of(error: &ImportError) -> Exit {
    match error {
        ImportError::Cancelled | ImportError::Index(IndexError::Cancelled) => Exit::Interrupted,
        ImportError::Store { .. } => Exit::BadRequest,
        ImportError::Read { source, .. } | ImportError::Write { source, .. } if !is_full(source) => {
            use std::io::ErrorKind;
            let is_denied = matches!(
                source.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::NotFound
            );
            if is_denied { Exit::BadRequest } else { Exit::Failed }
        }
        ImportError::Rows(error) => crate::cli::export::exit_of(error),
        _ => Exit::Failed,
    }
}
