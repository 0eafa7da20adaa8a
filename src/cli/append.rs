//! `outpour append`: standard input, line by line, into a store.

use std::io::{Read, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use serde_json::json;

use crate::byte_size::parse_size;
use crate::cli::args::import::AppendArgs;
use crate::cli::clock::now;
use crate::cli::import::exit_of;
use crate::cli::{Exit, complain, fail, put_json, say};
use crate::error::RequestError;
use crate::import::append::{AppendOptions, AppendWriter};
use crate::import::problem::ImportError;
use crate::import::writer::prepare_store;
use crate::simd::Kernel;
use crate::sys::durability::FileSync;
use crate::sys::interrupt;
use crate::text_table::{grouped as count, grouped_with};

/// Bytes that are read from the input at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that may wait to be taken.
const PIECES_MAX: usize = 16;
/// The input rests when nothing has come for this time: then what has come is committed.
const REST: Duration = Duration::from_millis(5);
/// Time between two looks whether a signal has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs `outpour append` and returns its exit code.
pub(crate) fn run(args: AppendArgs) -> Exit {
    let options = match options(&args) {
        Ok(options) => options,
        Err(error) => return fail(Exit::BadRequest, &error, args.json),
    };
    let opened = prepare_store(&args.store).and_then(|()| AppendWriter::open(&args.store, options));
    let mut writer = match opened {
        Ok(writer) => writer,
        Err(error) => return fail(exit_of(&error), &error, args.json),
    };
    let outcome = append(&mut writer, &read_input(), args.ack);
    writer.problems.first.iter().for_each(|problem| complain(&problem.to_string()));
    let more = writer.problems.count - writer.problems.first.len() as u64;
    if more > 0 {
        complain(&format!("{} more lines have problems", count(more)));
    }
    let exit = match outcome {
        Ok(false) => Exit::Interrupted,
        Ok(true) if writer.problems.count > 0 => Exit::Partial,
        Ok(true) => Exit::Done,
        Err(error) => {
            say(&format!("{} written before that", grouped_with(writer.durable, "line")));
            return fail(exit_of(&error), &error, args.json);
        }
    };
    if args.json {
        put_json(&json!({
            "status": if exit == Exit::Interrupted { "interrupted" } else { "complete" },
            "exitCode": exit as u8,
            "store": args.store.display().to_string(),
            "lines": writer.durable,
            "files": writer.files,
            "problemCount": writer.problems.count,
            "problems": writer.problems.first,
        }));
    }
    say(&format!(
        "Appended {} to {} in {}",
        grouped_with(writer.durable, "line"),
        args.store.display(),
        grouped_with(writer.files.len() as u64, "file")
    ));
    exit
}

/// How lines are appended.
fn options(args: &AppendArgs) -> Result<AppendOptions, RequestError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if args.name.is_empty() || args.name.len() > 100 || !args.name.chars().all(is_plain) {
        return Err(RequestError::one("--name: give 1 to 100 letters, digits, '-' and '_'"));
    }
    let rotate = parse_size(&args.rotate).filter(|rotate| *rotate > 0).ok_or_else(|| {
        RequestError::one(format!("--rotate: {:?} is no size such as 256MiB, 1GB or 1000000", args.rotate))
    })?;
    let time = now().to_string().replace(['-', ':'], "");
    Ok(AppendOptions {
        name: format!("{}-{time}-{}", args.name, std::process::id()),
        rotate,
        sync: if args.no_sync { FileSync::No } else { FileSync::Yes },
        kernel: Kernel::detect(),
    })
}

/// Reads standard input on a thread of its own, so that a signal and a rest of the input are noticed.
fn read_input() -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, pieces) = bounded(PIECES_MAX);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match input.read(&mut piece) {
                Ok(0) => return,
                Ok(len) => {
                    piece.truncate(len);
                    if sender.send(Ok(piece)).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    sender.send(Err(error)).ok();
                    return;
                }
            }
        }
    });
    pieces
}

/// Appends what comes; `false` if a signal ended it before the end of the input.
fn append(
    writer: &mut AppendWriter,
    pieces: &Receiver<std::io::Result<Vec<u8>>>,
    acknowledges: bool,
) -> Result<bool, ImportError> {
    let interrupted = interrupt::interrupts();
    let mut told = 0;
    let mut tell = |durable: u64| {
        if acknowledges && durable > told {
            // Whoever does not read any more does not want to know.
            writeln!(std::io::stdout(), "{durable}").and_then(|()| std::io::stdout().flush()).ok();
            told = durable;
        }
    };
    loop {
        if interrupted.load(Relaxed) {
            writer.commit()?;
            tell(writer.durable);
            return Ok(false);
        }
        let wait = if writer.is_waiting() { REST } else { LOOK_EVERY };
        match pieces.recv_timeout(wait) {
            Ok(Ok(piece)) => writer.feed(&piece)?,
            Ok(Err(source)) => {
                writer.commit()?;
                tell(writer.durable);
                return Err(ImportError::Read { path: "standard input".into(), source });
            }
            Err(RecvTimeoutError::Timeout) => writer.commit()?,
            Err(RecvTimeoutError::Disconnected) => {
                writer.finish()?;
                tell(writer.durable);
                return Ok(true);
            }
        }
        tell(writer.durable);
    }
}
