//! The command line: flags (`args`), the decisions made from them (`config`), and one file for each command.
//!
//! The only module that prints and knows exit codes. With `--json`, standard output gets one document; everything for
//! people goes to standard error.

#[cfg(feature = "server")]
pub(crate) mod access_token;
pub(crate) mod append;
pub(crate) mod args;
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
pub(crate) mod inspect;
pub(crate) mod message_text;
pub(crate) mod number_format;
pub(crate) mod pack;
pub(crate) mod progress;
pub(crate) mod search_columns;
#[cfg(feature = "server")]
pub(crate) mod serve;
pub(crate) mod synth;
mod verify;

use std::io::Write;

use clap::Parser;

use crate::cli::args::{Args, Command};
use crate::error::limit_of;

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
    /// Interrupted by Ctrl-C or a termination signal.
    Interrupted = 130,
}

/// Parses the arguments of the process, runs the command, and returns its exit code. Ends the process itself on
/// arguments that cannot be parsed, and after `--help` and `--version`.
pub fn run_from_arguments() -> std::process::ExitCode {
    std::process::ExitCode::from(run(Args::parse()) as u8)
}

/// Runs the command of the parsed arguments.
pub(crate) fn run(args: Args) -> Exit {
    crate::sys::process_limits::prepare();
    match args.command {
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Append(args) => append::run(args),
        Command::Index(args) => index::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Group { command } => group::run(command),
        #[cfg(feature = "server")]
        Command::Credential { command } => credential::run(command),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::run(args),
        Command::Synth(args) => synth::run(args),
    }
}

/// Prints a line for people, on standard error.
fn say(text: &str) {
    // If standard error is closed there is no other channel to report that on.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Prints the JSON document of a command on standard output. A closed pipe is not a failure: the reader has read
/// enough.
fn put_json(document: &serde_json::Value) {
    let text = serde_json::to_string_pretty(document).expect("a document is plain data");
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Reports an error and its causes, one line each, as text and with `json` as a document; returns `exit`.
fn fail(exit: Exit, error: &(dyn std::error::Error + 'static), json: bool) -> Exit {
    let mut problems = message_text::lines(error);
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
    problems.iter().for_each(|problem| say(&format!("outpour: {problem}")));
    if json {
        put_json(&serde_json::json!({ "status": "failed", "exitCode": exit as u8, "problems": problems }));
    }
    exit
}
