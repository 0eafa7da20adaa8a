//! `outpour inspect`: prints what a file or directory written by outpour holds. What is read and checked is in the
//! library's `inspect`.

use serde_json::json;

use crate::cli::args::read_only::InspectArgs;
use crate::cli::{Exit, fail, put_json, show};
use crate::inspect::inspect;

/// Runs `outpour inspect` and returns its exit code.
pub(crate) fn run(args: InspectArgs) -> Exit {
    match inspect(&args.path) {
        Err(error) => fail(Exit::BadRequest, &error, args.json),
        Ok(report) => {
            let exit = if report.intact { Exit::Done } else { Exit::Partial };
            report.lines().iter().for_each(|line| show(line));
            if args.json {
                put_json(&json!({ "status": "complete", "exitCode": exit as u8, "report": report }));
            }
            exit
        }
    }
}
