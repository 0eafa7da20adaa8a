//! The command line: words (`args`), decisions (`config`), and one file for each command.
//!
//! The only place that prints, reads the clock and knows exit codes. `--json` puts one document on standard output;
//! everything for people goes to standard error.

pub(crate) mod args;
pub(crate) mod config;
#[cfg(feature = "server")]
pub(crate) mod credential;
pub(crate) mod export;
pub(crate) mod group;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod message_text;
pub(crate) mod pack;
pub(crate) mod progress;
#[cfg(feature = "server")]
pub(crate) mod serve;
pub(crate) mod synth;
pub(crate) mod table;
pub(crate) mod verify;

use std::io::Write;

use clap::Parser;

use crate::cli::args::{Args, Command};

/// How a command ends (CLI-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Done, and something is wrong with the data; for `verify`, it differs.
    Partial = 1,
    /// The request was wrong.
    BadRequest = 2,
    /// It failed.
    Failed = 3,
    /// Interrupted.
    Interrupted = 130,
}

/// Parses the arguments of the process, runs the command, and gives its exit code. Ends the process on wrong arguments.
pub fn run_from_arguments() -> std::process::ExitCode {
    std::process::ExitCode::from(run(Args::parse()) as u8)
}

/// Runs a command.
pub(crate) fn run(args: Args) -> Exit {
    crate::sys::open_file_limit::raise_limit();
    match args.command {
        Command::Export(args) => export::run(args),
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

/// Tells a person.
fn say(text: &str) {
    // Nobody is there to be told that telling failed.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Puts the one JSON document on standard output. A closed pipe is a reader who has enough, not a failure.
fn put_json(document: &serde_json::Value) {
    let text = serde_json::to_string_pretty(document).expect("a document is plain data");
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Tells what went wrong, causes included, to people and (with `--json`) to machines.
fn fail(exit: Exit, error: &(dyn std::error::Error + 'static), json: bool) -> Exit {
    let mut problems = message_text::lines(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = message_text::lines(error).join("\n");
        // A transparent error and its source say the same.
        if !problems.iter().any(|known| known.contains(&text)) {
            problems.push(format!("because: {text}"));
        }
        cause = error.source();
    }
    problems.iter().for_each(|problem| say(&format!("outpour: {problem}")));
    if json {
        put_json(&serde_json::json!({ "status": "failed", "exitCode": exit as u8, "problems": problems }));
    }
    exit
}
