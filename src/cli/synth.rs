//! `outpour synth`: writes a synthetic store and prints its totals, its Groups and instants for `--since`.

use std::time::Instant as Clock;

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::cli::args::{LayoutArg, OrderArg, SynthArgs};
use crate::cli::config::{pool, sync};
use crate::cli::export::is_full;
use crate::cli::progress::watched;
use crate::cli::{Exit, fail, put_json, say};
use crate::error::RequestError;
use crate::synth::store::synth;
use crate::synth::time::since_share;
use crate::synth::{Layout, SynthError, SynthOptions, SynthOrder};
use crate::sys::atomic_dir::AtomicDirError;
use crate::text_table::{TextTable, grouped as count, grouped_with};

/// Most patients: they are numbered in 32 bits.
const PATIENTS_MAX: u64 = u32::MAX as u64;

/// Runs `outpour synth` and returns its exit code.
pub(crate) fn run(args: SynthArgs) -> Exit {
    let begun = Clock::now();
    let ready = options(&args).and_then(|options| Ok((options, pool(args.write.run.threads)?)));
    let (options, pool) = match ready {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, args.write.run.json),
    };
    let made = match pool.install(|| watched(args.write.run.progress, |progress| synth(&options, progress))) {
        Ok(made) => made,
        Err(error) => return fail(exit_of(&error), &error, args.write.run.json),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let since = [("10 %", since_share(0.1)), ("1 %", since_share(0.01)), ("0.1 %", since_share(0.001))];
    if args.write.run.json {
        let mut document = serde_json::to_value(&made).expect("plain data");
        document["groups"] = made.groups.iter().map(|(id, members)| json!({ "id": id, "members": members })).collect();
        document["since"] =
            since.iter().map(|(share, instant)| json!({ "share": share, "instant": instant.to_string() })).collect();
        document["status"] = "complete".into();
        document["exitCode"] = 0.into();
        document["directory"] = args.out.display().to_string().into();
        document["seconds"] = seconds.into();
        put_json(&document);
    }
    say(&format!("Made {}\n", args.out.display()));
    say(&format!("  patients   {}", count(made.patients)));
    say(&format!("  rows       {}, among them {}", count(made.rows), grouped_with(made.updates, "second version")));
    say(&format!("  deletions  {}", count(made.deletions)));
    say(&format!("  bytes      {}", format_bytes(made.bytes)));
    say(&format!("  time       {seconds:.2} s, {}/s\n", format_bytes((made.bytes as f64 / seconds.max(1e-6)) as u64)));
    let mut table = TextTable::of_figures(&["--group", "members"]);
    made.groups.iter().for_each(|(id, members)| table.row([id.clone(), count(*members)]));
    say(&table.text());
    for (share, instant) in &since {
        say(&format!("  --since {instant} selects about {share} of the rows"));
    }
    Exit::Done
}

/// The options of the synthesis.
///
/// # Errors
/// All problems at once: shares outside 0 to 100 %, too many patients.
fn options(args: &SynthArgs) -> Result<SynthOptions, RequestError> {
    let mut problems = Vec::new();
    let mut share = |name: &str, text: &str| {
        let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
        match number.filter(|percent| (0.0..=100.0).contains(percent)) {
            Some(percent) => percent / 100.0,
            None => {
                problems.push(format!("{name}: {text:?} is no share such as 2%, from 0% to 100%"));
                0.0
            }
        }
    };
    let updates = share("--updates", &args.updates);
    let deletions = share("--deletions", &args.deletions);
    if args.patients > PATIENTS_MAX {
        problems.push(format!("--patients: {} is more than {PATIENTS_MAX}", args.patients));
    }
    if !problems.is_empty() {
        return Err(RequestError { problems: problems.into_iter().map(Into::into).collect() });
    }
    Ok(SynthOptions {
        out: args.out.clone(),
        patients: args.patients,
        seed: args.seed,
        order: match args.order {
            OrderArg::Clustered => SynthOrder::Clustered,
            OrderArg::Arrival => SynthOrder::Arrival,
        },
        layout: match args.layout {
            LayoutArg::ByType => Layout::ByType,
            LayoutArg::Mixed => Layout::Mixed,
        },
        updates,
        deletions,
        sync: sync(&args.write),
    })
}

/// The exit code of a synthesis that failed: a directory that cannot be used is the request's fault, a full disk is
/// not.
fn exit_of(error: &SynthError) -> Exit {
    match error {
        SynthError::Directory(AtomicDirError::Target { .. }) => Exit::BadRequest,
        SynthError::Directory(AtomicDirError::Write { source, .. }) if !is_full(source) => Exit::BadRequest,
        SynthError::Directory(_) => Exit::Failed,
        SynthError::Cancelled => Exit::Interrupted,
    }
}
