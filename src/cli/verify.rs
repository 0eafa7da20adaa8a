//! `outpour verify`: checks an export against its manifest, or the index of a store against its bytes, and prints the
//! report.

use serde_json::json;

use crate::cli::args::choices::ChoiceArgs;
use crate::cli::args::read_only::VerifyArgs;
use crate::cli::args::store::{AccessArg, StoreArgs};
use crate::cli::config::{open_store, pool};
use crate::cli::faults::FaultList;
use crate::cli::progress::watched;
use crate::cli::{Exit, fail, put_json, say, show};
use crate::error::RequestError;
use crate::index::snapshot::Index;
use crate::progress::Progress;
use crate::store::choices::RowChoices;
use crate::sys::access::Access;
use crate::sys::sigbus;
use crate::verify::ledger::LedgerOptions;
use crate::verify::target::{UnfinishedReport, VerifyTarget};
use crate::verify::{self, VerifyError};

/// Runs `outpour verify` and returns its exit code.
pub(crate) fn run(args: VerifyArgs) -> Exit {
    let pool = match pool(args.run.threads) {
        Ok(pool) => pool,
        Err(error) => return fail(Exit::BadRequest, &error, args.run.json),
    };
    match verify::target::verify_target(&args.directory, args.index_dir.is_some()) {
        Ok(VerifyTarget::Export | VerifyTarget::Unfinished(_)) if args.faults => {
            let text = format!(
                "--faults: {} is an export, whose error files name faulty lines; give the store to list all of them",
                args.directory.display()
            );
            return fail(Exit::BadRequest, &RequestError::one(text), args.run.json);
        }
        Ok(VerifyTarget::Chain) if args.faults || args.ledger => {
            let flag = if args.faults { "--faults" } else { "--ledger" };
            let text = format!(
                "{flag}: {} is a chain of exports; give one of its exports, or the store",
                args.directory.display()
            );
            return fail(Exit::BadRequest, &RequestError::one(text), args.run.json);
        }
        Ok(VerifyTarget::Applied) if args.faults || args.ledger => {
            let flag = if args.faults { "--faults" } else { "--ledger" };
            let text = format!(
                "{flag}: {} holds the current records of a chain; give one of the exports of the chain, or the store",
                args.directory.display()
            );
            return fail(Exit::BadRequest, &RequestError::one(text), args.run.json);
        }
        Ok(VerifyTarget::Applied) => return pool.install(|| verify_applied(&args)),
        Ok(VerifyTarget::Chain) => return pool.install(|| verify_chain(&args)),
        Ok(VerifyTarget::Export) => {}
        Ok(VerifyTarget::Unfinished(report)) => return print_unfinished(&args, &report),
        Ok(VerifyTarget::Store) if args.ledger => {
            let text = format!("--ledger: {} holds no manifest; it recounts exports", args.directory.display());
            return fail(Exit::BadRequest, &RequestError::one(text), args.run.json);
        }
        Ok(VerifyTarget::Store) => return pool.install(|| verify_store(&args)),
        Err(error) => return fail(exit_of(&error), &error, args.run.json),
    }
    let outcome = pool.install(|| watched(args.run.progress, |progress| verify_export(&args, progress)));
    match outcome {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Partial,
        Err(error) => fail(exit_of(&error), &error, args.run.json),
    }
}

/// Prints a report, which is a summary where nothing differs.
fn print_report(lines: &[String], holds: bool) {
    lines.iter().for_each(|line| if holds { say(line) } else { show(line) });
}

/// The exit code of a verification that failed to run.
fn exit_of(error: &VerifyError) -> Exit {
    match error.exit_code() {
        2 => Exit::BadRequest,
        130 => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

/// Verifies an export, with `--ledger` also its ledger, and prints the reports. `false` if anything differs.
///
/// # Errors
/// [`VerifyError`] if the export or its store cannot be read, or the verification is interrupted.
fn verify_export(args: &VerifyArgs, progress: &Progress) -> Result<bool, VerifyError> {
    let report = verify::export::verify_export(&args.directory, progress)?;
    let mut holds = report.holds;
    let mut lines = report.lines();
    let mut ledger = None;
    if args.ledger {
        let access = sigbus::install().unwrap_or(Access::pread());
        let options = LedgerOptions { access, ..LedgerOptions::default() };
        let recounted = verify::ledger::verify_ledger(&args.directory, &report, &options, progress)?;
        holds &= recounted.holds;
        lines.extend(recounted.lines());
        ledger = Some(recounted);
    }
    print_report(&lines, holds);
    if args.run.json {
        let exit = if holds { Exit::Done } else { Exit::Partial };
        put_json(
            &json!({ "status": "complete", "exitCode": exit as u8, "holds": holds, "export": report, "ledger": ledger }),
        );
    }
    Ok(holds)
}

/// Verifies a chain of exports, and prints the report.
fn verify_chain(args: &VerifyArgs) -> Exit {
    let verified = watched(args.run.progress, |progress| verify::chain::verify_chain(&args.directory, progress));
    match verified {
        Err(error) => fail(exit_of(&error), &error, args.run.json),
        Ok(report) => {
            let exit = if report.holds { Exit::Done } else { Exit::Partial };
            print_report(&report.lines(), report.holds);
            if args.run.json {
                let holds = report.holds;
                put_json(&json!({ "status": "complete", "exitCode": exit as u8, "holds": holds, "chain": report }));
            }
            exit
        }
    }
}

/// Verifies the current records of a chain, and prints the report.
fn verify_applied(args: &VerifyArgs) -> Exit {
    match watched(args.run.progress, |progress| verify::applied::verify_applied(&args.directory, progress)) {
        Err(error) => fail(exit_of(&error), &error, args.run.json),
        Ok(report) => {
            let exit = if report.holds { Exit::Done } else { Exit::Partial };
            print_report(&report.lines(), report.holds);
            if args.run.json {
                let holds = report.holds;
                put_json(&json!({ "status": "complete", "exitCode": exit as u8, "holds": holds, "applied": report }));
            }
            exit
        }
    }
}

/// Prints the report of an export without a manifest.
fn print_unfinished(args: &VerifyArgs, report: &UnfinishedReport) -> Exit {
    print_report(&report.lines(), false);
    if args.run.json {
        put_json(
            &json!({ "status": "complete", "exitCode": Exit::Partial as u8, "holds": false, "unfinished": report }),
        );
    }
    Exit::Partial
}

/// Verifies the index of a store against the store's bytes, and prints the report.
fn verify_store(args: &VerifyArgs) -> Exit {
    // Not by clap: a flag says that the directory is a store, the environment does not.
    let variable = || std::env::var_os("OUTPOUR_INDEX_DIR").filter(|path| !path.is_empty()).map(Into::into);
    let store_args = StoreArgs {
        store: args.directory.clone(),
        index_dir: args.index_dir.clone().or_else(variable),
        choices: ChoiceArgs::default(),
        missing: args.missing,
        access: AccessArg::Mapped,
        kernel: None,
    };
    let store = match open_store(&store_args, RowChoices::default(), false, true) {
        Ok(store) => store,
        Err(error) => return fail(Exit::BadRequest, &error, args.run.json),
    };
    let list = |index: &Index| args.faults.then(|| FaultList::of(index)).transpose();
    match watched(args.run.progress, |progress| verify::index::verify_and_use(&store, progress, list)) {
        Err(error) => fail(exit_of(&error), &error, args.run.json),
        Ok((report, listed)) => {
            let exit = if report.holds { Exit::Done } else { Exit::Partial };
            print_report(&report.lines(), report.holds);
            if args.run.json {
                let mut document =
                    json!({ "status": "complete", "exitCode": exit as u8, "holds": report.holds, "store": report });
                if let Some(listed) = &listed {
                    document["faultList"] = listed.json();
                }
                put_json(&document);
            }
            listed.iter().for_each(FaultList::print);
            exit
        }
    }
}
