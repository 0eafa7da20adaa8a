//! The command line: flags (`args`), the decisions made from them (`config`), and one file for each command.
//!
//! The only module that prints and knows exit codes. Standard output has the result: a summary for people, or with `--json`
//! one document, the summary being on standard error then. Warnings, errors and progress are on standard error, each line of
//! them with `outpour:` before it.

#[cfg(feature = "server")]
pub(crate) mod access_token;
#[cfg(feature = "server")]
pub(crate) mod admin_client;
pub(crate) mod append;
pub(crate) mod apply;
pub(crate) mod args;
pub(crate) mod chain;
pub(crate) mod clock;
pub(crate) mod config;
#[cfg(feature = "server")]
pub(crate) mod credential;
#[cfg(feature = "server")]
pub(crate) mod credential_output;
pub(crate) mod export;
pub(crate) mod faults;
pub(crate) mod group;
pub(crate) mod import;
pub(crate) mod index;
pub(crate) mod index_tasks;
pub(crate) mod inspect;
#[cfg(feature = "server")]
pub(crate) mod jobs;
pub(crate) mod message_text;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod run_task;
pub(crate) mod search_columns;
#[cfg(feature = "server")]
pub(crate) mod serve;
pub(crate) mod spark;
pub(crate) mod synth;
pub(crate) mod time_text;
mod verify;

use std::io::Write;
use std::sync::OnceLock;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::args::{Args, Command};
use crate::error::limit_of;
use crate::issue::{IssueLog, Severity};
use crate::text_table::grouped_with;

/// Kinds of messages of each severity of which the first is shown.
const MESSAGES_SHOWN_MAX: usize = 5;

/// Exit code of a command (CLI-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command has done its work, and nothing is wrong.
    Done = 0,
    /// The work is done, but the data has faults; for `verify`, the target differs from what it should be.
    Partial = 1,
    /// The request is wrong: arguments, paths, or what they name.
    BadRequest = 2,
    /// The work failed: input, output or the machine.
    Failed = 3,
    /// Of a task, a commit or a driver alone, as the next five (sysexits.h): arguments, a plan or a record are wrong.
    Usage = 64,
    /// The store is not what it was when the plan was made.
    DataChanged = 65,
    /// Two attempts, or two commits, have written different things.
    Differs = 70,
    /// Reading or writing failed: to be tried again.
    InputOutput = 74,
    /// Tasks have not ended: to be tried again.
    NotYet = 75,
    /// The system does not permit it.
    NotPermitted = 77,
    /// Interrupted by Ctrl-C or a termination signal.
    Interrupted = 130,
}

/// How much is told beside what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Errors, and warnings that need an operator.
    Quiet,
    /// Also the summary of the result.
    #[default]
    Normal,
    /// Also every message, and the time of each phase.
    Verbose,
}

/// How this process prints. It runs one command.
#[derive(Clone, Copy, Debug, Default)]
struct OutputStyle {
    /// Whether standard output gets a JSON document and nothing else.
    json: bool,
    /// How much is told.
    verbosity: Verbosity,
}

/// Set once, before the command runs.
static STYLE: OnceLock<OutputStyle> = OnceLock::new();

/// How this process prints; as without flags where no arguments were parsed.
fn style() -> OutputStyle {
    STYLE.get().copied().unwrap_or_default()
}

/// How much this process tells.
pub(crate) fn verbosity() -> Verbosity {
    style().verbosity
}

/// Parses the arguments of the process, runs the command, and returns its exit code. Ends the process itself after
/// `--help` and `--version`.
pub fn run_from_arguments() -> std::process::ExitCode {
    let parsed = Args::command().try_get_matches().and_then(|matches| {
        let args = Args::from_arg_matches(&matches)?;
        let verbosity = match (args.quiet, args.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        STYLE.set(OutputStyle { json: has_json(&matches), verbosity }).ok();
        Ok(args)
    });
    let exit = match parsed {
        Ok(args) => run(args),
        Err(error) => refuse_arguments(&error),
    };
    std::process::ExitCode::from(exit as u8)
}

/// Whether `--json` was given to the command, or a command below it.
fn has_json(matches: &ArgMatches) -> bool {
    let below = matches.subcommand().is_some_and(|(_, below)| has_json(below));
    below || matches!(matches.try_get_one::<bool>("json"), Ok(Some(true)))
}

/// Reports arguments that cannot be parsed, as text and, where `--json` is among them, as a document. Help and version, which
/// clap reports as errors, are printed, and end the process.
fn refuse_arguments(error: &clap::Error) -> Exit {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    if is_help || !error.use_stderr() {
        error.exit();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    put_error(&format!("outpour: error: {text}"));
    // What calls these commands tells from the code whether to call again.
    let command = std::env::args_os().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    const OF_TASKS: [&str; 5] = ["run-task", "commit", "index-task", "index-commit", "spark"];
    let is_of_tasks = command.is_some_and(|word| OF_TASKS.iter().any(|one| word == *one));
    let exit = if is_of_tasks { Exit::Usage } else { Exit::BadRequest };
    // Arguments behind `--` are no flags.
    let json = std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    if json {
        // What is wrong stands before the usage, on one line or on several.
        let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
        put_failure(exit, &[lines.join(" ").replace(" tip: ", "; ")]);
    }
    exit
}

/// Runs the command of the parsed arguments.
pub(crate) fn run(args: Args) -> Exit {
    crate::sys::process_limits::prepare();
    match args.command {
        Command::Export(args) if args.chain.chain.is_some() && !args.plan => chain::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Append(args) => append::run(args),
        Command::Index(args) => index::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Apply(args) => apply::run(args),
        Command::Plan(args) => plan::run(args),
        Command::RunTask(args) => run_task::run(args),
        Command::Commit(args) => run_task::run_commit(args),
        Command::IndexPlan(args) => index_tasks::run_plan(args),
        Command::IndexTask(args) => index_tasks::run_task(args),
        Command::IndexCommit(args) => index_tasks::run_commit(args),
        Command::Spark(args) => spark::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Group { command } => group::run(command),
        #[cfg(feature = "server")]
        Command::Credential { command } => credential::run(command),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::run(args),
        #[cfg(feature = "server")]
        Command::Jobs { command } => jobs::run(command),
        Command::Synth(args) => synth::run(args),
    }
}

/// Prints a part of the summary of a result, for people: on standard output, or on standard error where that has a document;
/// nothing when quiet.
fn say(text: &str) {
    if style().verbosity != Verbosity::Quiet {
        show(text);
    }
}

/// Prints what was asked for, for people: as [`say`], but also when quiet, unless it stands in a document.
fn show(text: &str) {
    match style() {
        OutputStyle { json: true, verbosity: Verbosity::Quiet } => {}
        OutputStyle { json: true, .. } => put_error(text),
        // A closed pipe is not a failure: the reader has read enough.
        OutputStyle { json: false, .. } => drop(writeln!(std::io::stdout(), "{text}")),
    }
}

/// Prints what goes with the result but is no part of it, on standard error.
fn tell(text: &str) {
    if style().verbosity != Verbosity::Quiet {
        put_error(text);
    }
}

/// Prints a warning, on standard error.
fn warn(text: &str) {
    put_error(&format!("outpour: warning: {text}"));
}

/// Prints a problem of what was given, on standard error, as an error of the command is.
fn complain(text: &str) {
    put_error(&format!("outpour: error: {text}"));
}

/// Prints a line of progress, on standard error.
pub(crate) fn log_line(text: &str) {
    put_error(&format!("outpour: {text}"));
}

/// Prints text on standard error.
fn put_error(text: &str) {
    // If standard error is closed there is no other channel to report that on.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Prints messages: on standard error the first warning and error of each cause, at most [`MESSAGES_SHOWN_MAX`] of a
/// severity, and in the summary as many of the others; every message, and all on standard error, when verbose.
fn print_messages(messages: &IssueLog) {
    let verbosity = style().verbosity;
    let line = |severity: Severity, text: &str| put_error(&format!("outpour: {}: {text}", severity.name()));
    if verbosity == Verbosity::Verbose {
        messages.iter().for_each(|message| line(message.severity, &message.say(&message_text::FLAGS)));
        return;
    }
    for severity in [Severity::Fatal, Severity::Error, Severity::Warning, Severity::Information] {
        let kinds = messages.first_of_causes(|found| found == severity);
        let print = |text: &str| match severity {
            Severity::Information => say(&format!("  note       {text}")),
            severity => line(severity, text),
        };
        for (message, number) in kinds.iter().take(MESSAGES_SHOWN_MAX) {
            let more = match number {
                1 => String::new(),
                number => format!(" (and {} more of the kind)", crate::text_table::grouped(number - 1)),
            };
            print(&format!("{}{more}", message.say(&message_text::FLAGS)));
        }
        if kinds.len() > MESSAGES_SHOWN_MAX {
            let left = grouped_with((kinds.len() - MESSAGES_SHOWN_MAX) as u64, "more kind");
            print(&format!("{left} of {} messages; --verbose shows all", severity.name()));
        }
    }
}

/// Prints the JSON document of a command on standard output. A closed pipe is not a failure: the reader has read
/// enough.
fn put_json(document: &serde_json::Value) {
    let text = serde_json::to_string_pretty(document).expect("a document is plain data");
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Prints the JSON document of a command that failed.
fn put_failure(exit: Exit, problems: &[String]) {
    put_json(&serde_json::json!({ "status": "failed", "exitCode": exit as u8, "problems": problems }));
}

/// Reports an error and its causes, one line each, as text and with `json` as a document; returns `exit`.
fn fail(exit: Exit, error: &(dyn std::error::Error + 'static), json: bool) -> Exit {
    fail_with(exit, error, message_text::lines(error), json)
}

/// As [`fail`], with these lines for the error itself.
fn fail_with(exit: Exit, error: &(dyn std::error::Error + 'static), lines: Vec<String>, json: bool) -> Exit {
    let mut problems = lines;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = message_text::lines(error).join("\n");
        // A transparent error and its source have the same text.
        if !problems.iter().any(|printed| printed.contains(&text)) {
            problems.push(format!("because: {text}"));
        }
        cause = error.source();
    }
    // Wherever a limit of the process was reached, it is named.
    problems.extend(limit_of(error).filter(|limit| !problems.iter().any(|problem| problem.contains(limit))));
    problems.iter().for_each(|problem| put_error(&format!("outpour: error: {problem}")));
    if json {
        put_failure(exit, &problems);
    }
    exit
}
