//! `outpour export --chain`: runs a night of a chain, and prints a summary for each export that it finished.

use std::path::Path;
use std::time::Instant as Clock;

use serde_json::json;

use crate::chain::root::ChainExport;
use crate::chain::run::{ChainOptions, ChainReport, ChainTime, run_chain};
use crate::cli::args::ExportArgs;
use crate::cli::clock::now;
use crate::cli::config::{ResolvedConfig, TargetFlags, pool, resolve, sync};
use crate::cli::export::{document, exit_of, exit_of_report, index_warnings, summary, warn_of_future_rows};
use crate::cli::message_text::{FLAGS, lines};
use crate::cli::progress::watched;
use crate::cli::{Exit, fail, fail_with, print_messages, put_json, say, warn};
use crate::error::{ExportError, JournalError};
use crate::export::options::ExportOptions;
use crate::export::report::ExportReport;
use crate::issue::{Parameter, ParameterNames};

/// Runs `outpour export --chain` and returns its exit code.
pub(crate) fn run(args: ExportArgs) -> Exit {
    let json = args.write.run.json;
    let (resolved, pool) = match resolve(&args.request, &args.store, &TargetFlags::of_export(&args))
        .and_then(|resolved| Ok((resolved, pool(args.write.run.threads)?)))
    {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, json),
    };
    resolved.clock_warning.iter().for_each(|text| warn(text));
    let root = args.chain.chain.clone().expect("this command is of chains");
    match pool.install(|| chain_command(&args, &root, resolved)) {
        Ok(exit) => exit,
        Err(error) => fail_with(exit_of(&error), &error, chain_text(&error), json),
    }
}

/// Exports into a chain below `root`. Exit code 1 when one of its exports has it.
///
/// # Errors
/// Those of [`run_chain`].
fn chain_command(args: &ExportArgs, root: &Path, resolved: ResolvedConfig) -> Result<Exit, ExportError> {
    let begun = Clock::now();
    let ResolvedConfig { request, store, time, faults_allowed, modes, .. } = resolved;
    let template =
        ExportOptions::new(root).sync(sync(&args.write)).faults_allowed(faults_allowed).clock(&now).words(&FLAGS);
    let template = template.modes(modes);
    let options =
        ChainOptions { full_every: args.chain.full_every, keep: args.chain.keep, new_members: request.new_members };
    let time = ChainTime { snapshot: time, now: now() };
    let done = watched(args.write.run.progress, |progress| {
        run_chain(&store, &request, root, options, time, &template, progress)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let partial = done.exports.iter().any(|(_, report)| exit_of_report(report) != Exit::Done);
    let exit = if partial { Exit::Partial } else { Exit::Done };
    if args.write.run.json {
        put_json(&chain_document(&done, exit, seconds));
    }
    for (export, report) in &done.exports {
        print_messages(&report.log);
        index_warnings(&report.index);
        warn_of_future_rows(&args.request, report);
        say(&format!("{}\n{}", heading(export), summary(report, &request, &args.store, seconds)));
    }
    for (name, reason) in &done.abandoned {
        warn(&format!("{name} was interrupted and could not be finished, so the next export begins anew: {reason}"));
    }
    for path in &done.kept_aside {
        warn(&format!("{} holds files that are not of an export, and is kept under this name", path.display()));
    }
    if let Some(reason) = &done.broken {
        warn(&format!("the exports before cannot be built on, so this one has everything: {reason}"));
    }
    say(&notes(&done, root));
    Ok(exit)
}

/// The text of an error of a chain, whose flags are others than those of an export into one directory: the same command goes on.
fn chain_text(error: &ExportError) -> Vec<String> {
    let root = "; give another root with --chain";
    let text = match error {
        ExportError::Cancelled => format!("{error}; the next run of the chain goes on"),
        ExportError::Write { .. } => format!("{error}; make room, and the next run of the chain goes on"),
        ExportError::Record(JournalError::Busy { path }) => {
            format!("another process exports into the chain {}; wait for it{root}", path.display())
        }
        ExportError::Record(error @ JournalError::Damaged { .. }) => error.to_string(),
        ExportError::Record(error) => format!("{error}{root}, or make it writable"),
        ExportError::Request(request) => {
            let words = ParameterNames { parameter: chain_flag, ..FLAGS };
            return request.say(&words);
        }
        other => return lines(other),
    };
    text.lines().map(str::to_string).collect()
}

/// The flag of a parameter where a chain names the export that is built on.
fn chain_flag(parameter: Parameter) -> &'static str {
    if parameter == Parameter::Baseline { "--chain" } else { (FLAGS.parameter)(parameter) }
}

/// What an export is in its chain.
fn heading(export: &ChainExport) -> String {
    let kind = if export.link.full == export.link.number { "full export" } else { "increment" };
    format!("{}: {kind}, number {} of the chain", export.name, export.link.number)
}

/// What was done besides exporting.
fn notes(done: &ChainReport, root: &Path) -> String {
    let mut out = String::new();
    for name in &done.removed {
        out += &format!("  removed    {name}\n");
    }
    if done.removal_waits {
        out += "  removal    waits for the next run: the chain is being read\n";
    }
    out + &format!("  latest     {}", root.join("latest.json").display())
}

/// The document of `--json`.
fn chain_document(done: &ChainReport, exit: Exit, seconds: f64) -> serde_json::Value {
    let of = |(export, report): &(ChainExport, ExportReport)| {
        let mut one = document(report, exit_of_report(report), seconds);
        one["directory"] = export.name.clone().into();
        one["number"] = export.link.number.into();
        one["full"] = export.link.full.into();
        one
    };
    let abandoned = done.abandoned.iter().map(|(name, reason)| json!({ "directory": name, "reason": reason }));
    json!({
        "status": "complete",
        "exitCode": exit as u8,
        "exports": done.exports.iter().map(of).collect::<Vec<_>>(),
        "abandoned": abandoned.collect::<Vec<_>>(),
        "removed": done.removed,
        "removalWaits": done.removal_waits,
        "seconds": seconds,
    })
}
