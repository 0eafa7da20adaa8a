//! `outpour pack`: writes a store as a packed copy and prints what was kept and dropped.

use std::time::Instant as Clock;

use crate::byte_size::format_bytes;
use crate::cli::args::{CodingArg, PackArgs};
use crate::cli::clock::StoreClock;
use crate::cli::config::{open_store, pool, row_choices, sync};
use crate::cli::export::{excluded_line, index_line, index_warnings, is_full, warning_texts};
use crate::cli::progress::watched;
use crate::cli::{Exit, fail, print_messages, put_json, say, warn};
use crate::error::{IndexError, PackError, RequestError, RequestProblem};
use crate::issue::Parameter;
use crate::pack::report::PackReport;
use crate::pack::writer::FrameCoder;
use crate::pack::{PackOptions, pack};
use crate::text_table::{grouped as count, grouped_with};

/// Runs `outpour pack` and returns its exit code.
pub(crate) fn run(args: PackArgs) -> Exit {
    let begun = Clock::now();
    let ready =
        open_store(&args.store, row_choices(&args.store.choices), false, !args.write.no_sync).and_then(|store| {
            let clock = StoreClock::of(Some(&store));
            let time = clock.snapshot_time(args.as_of.as_deref(), args.allow_future).map_err(RequestError::one)?;
            clock.warning().iter().for_each(|text| warn(text));
            Ok((time, coder(&args)?, store, pool(args.write.run.threads)?))
        });
    let (time, coder, store, pool) = match ready {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, args.write.run.json),
    };
    let options = PackOptions { to: args.to.clone(), coder, sync: sync(&args.write) };
    let outcome = pool.install(|| watched(args.write.run.progress, |progress| pack(&store, time, &options, progress)));
    let packed = match outcome {
        Ok(packed) => packed,
        Err(error) => return fail(exit_of(&error), &error, args.write.run.json),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let exit = if packed.rejected + packed.damaged > 0 { Exit::Partial } else { Exit::Done };
    if args.write.run.json {
        let mut document = serde_json::to_value(&packed).expect("plain data");
        document["status"] = "complete".into();
        document["exitCode"] = (exit as u8).into();
        document["directory"] = args.to.display().to_string().into();
        document["seconds"] = seconds.into();
        document["warnings"] = warning_texts(&packed.messages).into();
        put_json(&document);
    }
    say(&summary(&packed, &args, seconds));
    print_messages(&packed.messages);
    index_warnings(&packed.index);
    exit
}

/// How frames are compressed.
///
/// # Errors
/// The coding has no such level.
fn coder(args: &PackArgs) -> Result<FrameCoder, RequestError> {
    match (args.coding, args.level) {
        (CodingArg::Zstd, level) => Ok(FrameCoder::zstd(level.unwrap_or(3))),
        (CodingArg::Gzip, Some(level)) if level > 9 => {
            let text = format!("gzip has levels 1 to 9, not {level}");
            Err(RequestError::one(RequestProblem::of(Parameter::CompressionLevel, text)))
        }
        (CodingArg::Gzip, level) => Ok(FrameCoder::gzip(level.unwrap_or(6))),
    }
}

/// The exit code of a pack that failed: a target that is wrong or denied is the request's fault, a full disk is not.
fn exit_of(error: &PackError) -> Exit {
    match error {
        PackError::Target { .. }
        | PackError::Inside { .. }
        | PackError::Index(
            IndexError::NoStore { .. }
            | IndexError::ForeignIndex { .. }
            | IndexError::NoDataFiles { .. }
            | IndexError::IgnoreFile(..)
            | IndexError::OtherChoices { .. },
        ) => Exit::BadRequest,
        PackError::Index(IndexError::Cancelled) => Exit::Interrupted,
        PackError::Write { source, .. } if !is_full(source) && denied(source) => Exit::BadRequest,
        _ => Exit::Failed,
    }
}

/// Whether an error means that this user cannot write at the given path.
fn denied(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory)
}

/// The summary of a finished pack, for people.
fn summary(packed: &PackReport, args: &PackArgs, seconds: f64) -> String {
    let PackReport { rows, frames, files, superseded, deleted, rejected, blank, damaged, tombstone_lines, .. } =
        packed.clone();
    let ratio = packed.bytes as f64 / packed.file_bytes.max(1) as f64;
    let rate = (packed.bytes as f64 / seconds.max(1e-6)) as u64;
    let mut out = format!("Packed {} as of {}\n\n", args.to.display(), packed.transaction_time);
    let mut line = |name: &str, text: String| out += &format!("  {name:<10} {text}\n");
    line("rows", format!("{}, and {} of deletions", count(rows), grouped_with(tombstone_lines, "line")));
    line("left", format!("{} superseded, {} deleted, {} blank", count(superseded), count(deleted), count(blank)));
    if rejected > 0 {
        line(
            "rejected",
            format!("{} without a resource, in {}", grouped_with(rejected, "line"), crate::pack::non_rows::REJECTED),
        );
    }
    if damaged > 0 {
        let lost = "compressed files are damaged or cut off: what stood there is lost";
        line("damaged", format!("{} where {lost}", grouped_with(damaged, "place")));
        packed.damage.iter().for_each(|place| line("", place.clone()));
        let more = damaged - packed.damage.len() as u64;
        if more > 0 {
            line("", format!("and {} more; `outpour verify` of the store that was packed names them", count(more)));
        }
    }
    line("bytes", format!("{} in {}, {ratio:.1} to 1", format_bytes(packed.bytes), format_bytes(packed.file_bytes)));
    let mean = packed.bytes.checked_div(frames).unwrap_or(0);
    line(
        "frames",
        format!("{} of {} on average, in {}", count(frames), format_bytes(mean), grouped_with(files, "file")),
    );
    out += &excluded_line(packed.excluded);
    out += &index_line(&packed.index);
    out + &format!("  {:<10} {seconds:.2} s, {}/s", "time", format_bytes(rate))
}
