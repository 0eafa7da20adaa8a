//! `outpour apply`: writes the current resources of a chain of exports.

use std::time::Instant as Clock;

use serde_json::json;

use crate::byte_size::{SIZE_EXAMPLES, format_bytes, parse_size};
use crate::chain::apply::{ApplyError, ApplyReport, apply};
use crate::cli::args::chain::ApplyArgs;
use crate::cli::config::pool;
use crate::cli::export::exit_of;
use crate::cli::progress::watched;
use crate::cli::{Exit, fail, put_json, say};
use crate::error::{ExportError, JournalError, RequestError};
use crate::policies::FileBounds;
use crate::store::paths::check_outside_store;
use crate::sys::durability::FileSync;
use crate::text_table::{TextTable, grouped as count, grouped_with};
use std::collections::BTreeMap;

/// Runs `outpour apply` and returns its exit code.
pub(crate) fn run(args: ApplyArgs) -> Exit {
    let begun = Clock::now();
    let json = args.run.json;
    let (bounds, pool) = match check(&args) {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, json),
    };
    let sync = if args.no_sync { FileSync::No } else { FileSync::Yes };
    let work = || watched(args.run.progress, |progress| apply(&args.root, &args.to, bounds, sync, progress));
    let applied = match pool.install(work) {
        Ok(applied) => applied,
        Err(error) => {
            let exit = match &error {
                // What lies in the chain is not what was written there.
                ApplyError::Chain(ExportError::Record(JournalError::Damaged { .. })) => Exit::Failed,
                ApplyError::Chain(error) => exit_of(error),
                ApplyError::Target(_) => Exit::Failed,
                ApplyError::Cancelled => Exit::Interrupted,
            };
            return fail(exit, &error, json);
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    if json {
        put_json(&json!({
            "status": "complete",
            "exitCode": 0,
            "directory": args.to.display().to_string(),
            "state": applied.state,
            "exports": applied.exports,
            "deleted": applied.deleted,
            "departed": applied.departed,
            "seconds": seconds,
        }));
    }
    say(&summary(&applied, &args, seconds));
    Exit::Done
}

/// Checks the arguments; the bounds of files, and the threads.
fn check(args: &ApplyArgs) -> Result<(FileBounds, rayon::ThreadPool), RequestError> {
    let mut problems = Vec::new();
    let file_bytes = parse_size(&args.max_file_bytes).filter(|bytes| *bytes > 0);
    if file_bytes.is_none() {
        let text = format!("--max-file-bytes: {:?} is no size such as {SIZE_EXAMPLES}", args.max_file_bytes);
        problems.extend(RequestError::one(text).problems);
    }
    if check_outside_store(&args.root, &args.to).is_err() {
        let text = format!("--to: {} lies inside the chain; choose a directory outside", args.to.display());
        problems.extend(RequestError::one(text).problems);
    }
    let pool = pool(args.run.threads);
    match (pool, problems.is_empty()) {
        (Ok(pool), true) => Ok((FileBounds { file_bytes: file_bytes.unwrap_or(1), file_resources: None }, pool)),
        (pool, _) => {
            problems.extend(pool.err().into_iter().flat_map(|error| error.problems));
            Err(RequestError { problems })
        }
    }
}

/// The summary, for people.
fn summary(applied: &ApplyReport, args: &ApplyArgs, seconds: f64) -> String {
    let state = &applied.state;
    let mut by_type: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for file in &state.files {
        let total = by_type.entry(&file.r#type).or_default();
        *total = [total[0] + file.count, total[1] + file.bytes, total[2] + 1];
    }
    let mut table = TextTable::of_figures(&["type", "rows", "bytes", "files"]);
    let mut all = [0; 3];
    for (name, total) in by_type {
        table.row([name.to_string(), count(total[0]), format_bytes(total[1]), count(total[2])]);
        all.iter_mut().zip(total).for_each(|(sum, n)| *sum += n);
    }
    table.row(["all".into(), count(all[0]), format_bytes(all[1]), count(all[2])]);
    let mut out = format!("Applied {} as of {}\n\n{}\n", args.root.display(), state.transaction_time, table.text());
    let increments = applied.exports as u64 - 1;
    out += &format!("  exports    a full one and {}\n", grouped_with(increments, "increment"));
    out += &format!("  removed    {} deleted, {} departed\n", count(applied.deleted), count(applied.departed));
    out += &format!("  time       {seconds:.2} s\n");
    out + &format!("  state      {}", args.to.join(crate::chain::applied_state::STATE).display())
}
