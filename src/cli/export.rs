//! `outpour export` and `outpour export --plan`: runs or plans an export, and prints its summary or its document.

use std::time::Instant as Clock;

use serde_json::json;

use crate::byte_size::format_bytes;
use crate::chain::run::{NextChainExport, next_of_chain};
use crate::cli::args::ExportArgs;
use crate::cli::args::request::RequestArgs;
use crate::cli::args::store::StoreArgs;
use crate::cli::clock::now;
use crate::cli::config::{ResolvedConfig, TargetFlags, pool, resolve, sync};
use crate::cli::message_text::FLAGS;
use crate::cli::progress::watched;
use crate::cli::search_columns::{filters_json, filters_table};
use crate::cli::{Exit, fail, print_messages, put_json, say, show, warn};
use crate::count_text::noun_form;
use crate::error::{ExportError, IndexError, JournalError};
use crate::export::baseline_record::check_same_question;
use crate::export::export;
use crate::export::messages::all_issues;
use crate::export::options::{Existing, ExportOptions};
use crate::export::plan_record::plan_record;
use crate::export::planning::plan_only;
use crate::export::report::ExportReport;
use crate::index::meta::MemoryLoss;
use crate::index::report::{GoneResources, RefreshStats};
use crate::issue::{IssueLog, Severity};
use crate::plan::Plan;
use crate::policies::Audience;
use crate::request::ExportRequest;
use crate::select::ledger::Ledger;
use crate::store::walk::excluded_text;
use crate::sys::process_limits::reached_limit;
use crate::sys::unsynced_entry::os_error;
use crate::text_table::{TextTable, grouped as count, grouped_with};

/// Runs `outpour export` and returns its exit code.
pub(crate) fn run(args: ExportArgs) -> Exit {
    let begun = Clock::now();
    let json = args.write.run.json;
    let (resolved, pool) = match resolve(&args.request, &args.store, &TargetFlags::of_export(&args))
        .and_then(|resolved| Ok((resolved, pool(args.write.run.threads)?)))
    {
        Ok(ready) => ready,
        Err(error) => return fail(Exit::BadRequest, &error, json),
    };
    resolved.clock_warning.iter().for_each(|text| warn(text));
    let outcome = pool.install(|| match args.plan {
        true => plan_command(&args, resolved),
        false => export_command(&args, resolved, begun),
    });
    match outcome {
        Ok(exit) => exit,
        Err(error) => fail(exit_of(&error), &error, json),
    }
}

/// The exit code of a failed `outpour export`; also of a failed index run or Group command.
pub(crate) fn exit_of(error: &ExportError) -> Exit {
    match error {
        ExportError::Record(JournalError::Io { source, .. }) if is_full(source) => Exit::Failed,
        ExportError::Record(JournalError::Unsynced { .. }) => Exit::Failed,
        ExportError::Request(_) | ExportError::Record(_) | ExportError::Differs { .. } => Exit::BadRequest,
        ExportError::Index(
            IndexError::NoStore { .. }
            | IndexError::ForeignIndex { .. }
            | IndexError::NoDataFiles { .. }
            | IndexError::IgnoreFile(..)
            | IndexError::OtherChoices { .. },
        ) => Exit::BadRequest,
        ExportError::Cancelled | ExportError::Index(IndexError::Cancelled) => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

/// Whether `outpour export` (or pack, or synth) failed because the target disk is full or failing, or a limit of the process
/// is reached: a fault of the
/// machine, not of the request.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
        || os_error(error) == Some(libc::EIO)
        || reached_limit(error).is_some()
}

/// Runs the export into `--out` and prints its summary.
fn export_command(args: &ExportArgs, resolved: ResolvedConfig, begun: Clock) -> Result<Exit, ExportError> {
    let ResolvedConfig { request, store, time, faults_allowed, builds_on, modes, .. } = resolved;
    let options = ExportOptions::new(args.out.clone().expect("clap asks for it unless --plan is given"))
        .existing(match (args.resume, args.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Force,
            _ => Existing::Refuse,
        })
        .sync(sync(&args.write))
        .faults_allowed(faults_allowed)
        .clock(&now)
        .words(&FLAGS)
        .builds_on(builds_on, None)
        .modes(modes);
    let exported = watched(args.write.run.progress, |progress| export(&store, &request, time, &options, progress))?;
    let seconds = begun.elapsed().as_secs_f64();
    let exit = exit_of_report(&exported);
    if args.write.run.json {
        let mut document = document(&exported, exit, seconds);
        add_request(&mut document, &request);
        put_json(&document);
    }
    say(&summary(&exported, &request, &args.store, seconds));
    print_messages(&exported.log);
    index_warnings(&exported.index);
    warn_of_future_rows(&args.request, &exported);
    Ok(exit)
}

/// Warns of rows that are dated after a transactionTime that the clock gave. One that was asked for may well have such rows.
pub(crate) fn warn_of_future_rows(asked: &RequestArgs, exported: &ExportReport) {
    let future = exported.ledger.future;
    if asked.as_of.is_none() && future > 0 {
        warn(&format!(
            "{} dated after {} and not exported before that time has come: compare the clock of this machine with that of \
             whoever wrote them",
            if future == 1 { "1 row is".to_string() } else { format!("{} rows are", count(future)) },
            exported.transaction_time
        ));
    }
}

/// The exit code of an export that is done.
pub(crate) fn exit_of_report(exported: &ExportReport) -> Exit {
    match exported.worst {
        Some(Severity::Error | Severity::Fatal) => Exit::Partial,
        _ => Exit::Done,
    }
}

/// Plans the export and prints the plan; nothing is written.
fn plan_command(args: &ExportArgs, resolved: ResolvedConfig) -> Result<Exit, ExportError> {
    let ResolvedConfig { mut request, store, time, mut builds_on, .. } = resolved;
    let mut next = None;
    if let Some(root) = &args.chain.chain {
        let planned = next_of_chain(root, args.chain.full_every)?;
        builds_on = planned.before.as_ref().map(|(_, before)| before.record.clone());
        let new_members = request.new_members;
        request = request.keep_resources();
        if let Some((_, before)) = planned.before.as_ref().filter(|_| planned.full != planned.number) {
            request = request.increment_on(before.baseline.clone(), new_members);
        }
        next = Some(planned);
    }
    let (plan, snapshot, work) =
        watched(args.write.run.progress, |progress| plan_only(&store, &request, time, progress))?;
    if let Some(before) = &builds_on {
        check_same_question(before, &plan_record(&plan, &snapshot, &store))?;
    }
    let messages = all_issues(&snapshot, &plan, Audience::Operator)?;
    if args.write.run.json {
        let files: Vec<_> = (0..plan.shards.len())
            .map(|i| {
                let shard = &plan.shards[i];
                json!({ "file": plan.file_name(i), "type": shard.resource_type.name(), "count": shard.rows, "bytes": shard.bytes })
            })
            .collect();
        let mut document = json!({
            "status": "planned",
            "exitCode": 0,
            "transactionTime": snapshot.as_of().to_string(),
            "snapshot": plan.snapshot_id,
            "types": plan.totals(),
            "rows": plan.rows(),
            "bytes": plan.bytes(),
            "deleted": plan.deletions.listed.len(),
            "vanished": plan.vanished.counts(),
            "files": files,
            "ledger": plan.ledger(),
            "messages": messages.counts(),
            "index": work,
            "ignoredFiles": snapshot.index().ignored_files(),
            "excludedFiles": snapshot.index().walked().excluded,
        });
        add_request(&mut document, &plan.request);
        if let Some(next) = &next {
            document["chain"] = json!({
                "number": next.number,
                "full": next.full,
                "before": next.before.as_ref().map(|(name, _)| name),
                "interrupted": next.interrupted,
                "broken": next.broken,
            });
        }
        if !plan.selection.stats.filters.is_empty() {
            document["filters"] = filters_json(&plan.selection.stats.filters);
        }
        put_json(&document);
    }
    show(&format!("Plan as of {}; nothing was written", snapshot.as_of()));
    if let Some(next) = &next {
        show(&chain_line(next));
    }
    show(&times_lines(&plan.request));
    if work.in_memory.is_some() {
        show(&format!(
            "  index      {} scanned into memory; `outpour index` keeps it on disk, and the next plan need not\n",
            format_bytes(work.scanned_bytes)
        ));
    }
    show(&types_table(&plan));
    if !plan.request.elements.is_empty() {
        show(&format!("  elements   {}; bytes of reduced types are the most that they can be", plan.request.elements));
    }
    show(&ledger_line(plan.ledger()));
    let filters = filters_table(&plan.selection.stats.filters);
    if !filters.is_empty() {
        show(&format!("\n{filters}"));
    }
    print_messages(&messages);
    Ok(Exit::Done)
}

/// What a planned export of a chain is.
fn chain_line(next: &NextChainExport) -> String {
    let what = match &next.before {
        Some((name, _)) if next.full != next.number => format!("an increment on {name}"),
        _ => "a full one".to_string(),
    };
    let mut line = format!("  chain      export {}, {what}", next.number);
    if let Some(reason) = &next.broken {
        line += &format!(", since those before cannot be built on: {reason}");
    }
    if !next.interrupted.is_empty() {
        line += &format!("; {} was interrupted and is finished first", next.interrupted.join(", "));
    }
    line
}

/// Adds what was asked for to the document of a plan or of an export, as far as it was: the times that were taken, and the
/// items of `_elements`.
fn add_request(document: &mut serde_json::Value, request: &ExportRequest) {
    for (name, time) in [("since", &request.since), ("until", &request.until)] {
        if let Some(time) = time {
            document[name] = time.to_string().into();
        }
    }
    if !request.elements.is_empty() {
        document["elements"] = request.elements.items().collect();
    }
}

/// Lines of a summary with the times that were taken for `--since` and `--until`, each with its newline.
fn times_lines(request: &ExportRequest) -> String {
    let times = [("since", &request.since), ("until", &request.until)];
    let lines = times.iter().filter_map(|(name, time)| Some(format!("  {name:<10} {}\n", time.as_ref()?)));
    lines.collect()
}

/// Rows, bytes and files of a plan by type, as a table.
fn types_table(plan: &Plan) -> String {
    let mut table = TextTable::of_figures(&["type", "rows", "bytes", "files"]);
    for (name, total) in plan.totals() {
        table.row([name.to_string(), count(total.rows), format_bytes(total.bytes), count(total.files)]);
    }
    table.row(["all".into(), count(plan.rows()), format_bytes(plan.bytes()), count(plan.shards.len() as u64)]);
    table.text()
}

/// Rows, bytes, bytes on disk and files by type of the exported resources; deletions and messages are not included.
fn totals(exported: &ExportReport) -> std::collections::BTreeMap<String, [u64; 4]> {
    let mut totals = std::collections::BTreeMap::new();
    for file in exported.files.iter().filter(|file| !file.file.contains('/')) {
        let total: &mut [u64; 4] = totals.entry(file.r#type.clone()).or_default();
        *total = [total[0] + file.count, total[1] + file.bytes, total[2] + file.file_bytes, total[3] + 1];
    }
    totals
}

/// The summary of a finished export, for people.
pub(crate) fn summary(exported: &ExportReport, request: &ExportRequest, store: &StoreArgs, seconds: f64) -> String {
    let shown = without_filter_values(&exported.manifest.request);
    let mut out = format!("{shown} as of {}\n{}\n", exported.transaction_time, times_lines(request));
    let totals = totals(exported);
    let is_compressed = exported.files.iter().any(|file| file.bytes != file.file_bytes);
    let mut table = TextTable::of_figures(&["type", "rows", "bytes", "files"]);
    let mut all = [0; 4];
    for (name, total) in &totals {
        table.row([name.clone(), count(total[0]), format_bytes(total[1]), count(total[3])]);
        all.iter_mut().zip(total).for_each(|(sum, n)| *sum += n);
    }
    table.row(["all".into(), count(all[0]), format_bytes(all[1]), count(all[3])]);
    out += &table.text();
    out.push('\n');
    if totals.is_empty() {
        out += "  Nothing matched; the manifest is complete and empty.\n";
    }
    if exported.members_listed + exported.members_found > 0 {
        let (listed, found) = (count(exported.members_listed), grouped_with(exported.members_found, "patient"));
        out += &format!("  members    {listed} listed, {found} of the store\n");
    }
    out += &format!("  {}\n", ledger_line(&exported.ledger));
    if exported.ledger.faulty > 0 {
        let index = store.index_dir.as_ref().map_or(String::new(), |index| format!(" --index-dir {}", index.display()));
        out += &format!("  faults     `outpour verify --faults {}{index}` lists them\n", store.store.display());
    }
    for (folder, what) in [("deleted/", "deletions"), ("error/", "messages")] {
        let files: Vec<_> = exported.files.iter().filter(|file| file.file.starts_with(folder)).collect();
        if !files.is_empty() {
            let lines: u64 = files.iter().map(|file| file.count).sum();
            let severities: Vec<String> = match what {
                "messages" => exported.messages.iter().rev().map(|(s, n)| severity_count(*s, *n)).collect(),
                _ => vec![grouped_with(lines, "line")],
            };
            out += &format!("  {what:<10} {} in {folder}\n", severities.join(", "));
        }
    }
    out += &excluded_line(exported.excluded);
    out += &index_line(&exported.index);
    if exported.resumed_files > 0 {
        out += &format!("  resumed    {} finished already\n", grouped_with(exported.resumed_files as u64, "file"));
    }
    let rate = |n: u64| format_bytes((n as f64 / seconds.max(1e-6)) as u64);
    out += &format!("  time       {seconds:.2} s, {}/s written", rate(all[1]));
    if is_compressed {
        out += &format!(" ({} compressed)", format_bytes(all[2]));
    }
    if exported.index.scanned_bytes > 0 {
        out += &format!(", {}/s read into the index", rate(exported.index.scanned_bytes));
    }
    out + &format!("\n  manifest   {}", exported.manifest_path.display())
}

/// The warnings and errors of a log, for a JSON document.
pub(crate) fn warning_texts(messages: &IssueLog) -> Vec<String> {
    let worse = messages.iter().filter(|message| message.severity >= Severity::Warning);
    worse.map(|message| message.say(&FLAGS)).collect()
}

/// So many messages of a severity. Only warnings and errors are things that can be counted.
fn severity_count(severity: Severity, number: u64) -> String {
    match severity {
        Severity::Warning | Severity::Error => grouped_with(number, severity.name()),
        _ => format!("{} {}", count(number), severity.name()),
    }
}

/// A request without the values of its filters, which are patients' data and may be logged.
fn without_filter_values(request: &str) -> String {
    let shown = |part: &str| match part.split_once("_typeFilter=") {
        Some((before, filter)) => {
            format!("{before}_typeFilter={}%3F…", filter.split("%3F").next().unwrap_or_default())
        }
        None => part.to_string(),
    };
    request.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// The ledger on one line: lines of the store by class, empty classes left out.
fn ledger_line(ledger: &Ledger) -> String {
    let classes = [
        ("blank", ledger.blank),
        ("faulty", ledger.faulty),
        ("not FHIR", ledger.not_fhir),
        (&*noun_form(ledger.tombstone, "tombstone"), ledger.tombstone),
        ("future", ledger.future),
        ("superseded", ledger.superseded),
        ("deleted", ledger.deleted),
        ("of other types", ledger.r#type),
        ("of other patients or none", ledger.cohort),
        ("outside _since/_until", ledger.since_or_until),
        ("that no filter finds", ledger.type_filter),
        ("exported", ledger.exported),
    ];
    let parts: Vec<String> =
        classes.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{} {name}", count(*n))).collect();
    // Without lines nothing stands behind the colon.
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{:<10} {}{parts}", "lines", count(ledger.lines))
}

/// A line of a summary on what `.outpourignore` took, with its newline; empty if it took nothing.
pub(crate) fn excluded_line(excluded: u64) -> String {
    match excluded {
        0 => String::new(),
        excluded => format!("  excluded   {} by .outpourignore\n", excluded_text(excluded)),
    }
}

/// Lines of the summary of `outpour export` on what was done to the index; each with its newline.
pub(crate) fn index_line(work: &RefreshStats) -> String {
    let mut out = match work.scanned_segments {
        0 => "  index      up to date\n".to_string(),
        _ => format!("  index      {} scanned\n", format_bytes(work.scanned_bytes)),
    };
    if let Some(gone) = &work.gone {
        out += &gone_lines(gone);
    }
    out
}

/// Warns of what an operator should know of the index: repaired, made again, or held in memory only.
pub(crate) fn index_warnings(work: &RefreshStats) {
    for repaired in &work.repaired {
        warn(&format!("the index was repaired: {repaired}"));
    }
    if let (Some(loss), true) = (work.memory_lost, work.tells_memory_loss) {
        let reason = match loss {
            MemoryLoss::Damaged => "was damaged",
            MemoryLoss::OtherVersion => "was of another version of outpour",
        };
        warn(&format!(
            "the index was built again from the store, because the earlier one {reason}: an export with a --since before this \
             lacks rows that arrived late; export once without --since"
        ));
    }
    if let Some(reason) = &work.in_memory {
        warn(&format!(
            "the index is in memory only ({reason}): every run scans the whole store again and cannot tell late rows; give \
             a writable --index-dir"
        ));
    }
}

/// Lines of the summary of `outpour export` on what is gone from the store; each with its newline.
pub(crate) fn gone_lines(gone: &GoneResources) -> String {
    let mut out = String::new();
    if gone.resources > 0 {
        let (resources, present) = (grouped_with(gone.resources, "resource"), count(gone.present));
        out += &format!("  gone       {resources} without a deletion, of {present} at the last snapshot\n");
    }
    if gone.older_versions > 0 {
        out += &format!(
            "  gone       the newest version of {}; an older one stands\n",
            grouped_with(gone.older_versions, "resource")
        );
    }
    if !gone.files.is_empty() {
        out += &format!("  gone       {}\n", gone.files_text());
    }
    out
}

/// The JSON document of a finished export.
pub(crate) fn document(exported: &ExportReport, exit: Exit, seconds: f64) -> serde_json::Value {
    let types: serde_json::Map<String, serde_json::Value> = totals(exported)
        .into_iter()
        .map(|(name, [rows, bytes, file_bytes, files])| {
            (name, json!({ "rows": rows, "bytes": bytes, "fileBytes": file_bytes, "files": files }))
        })
        .collect();
    json!({
        "status": "complete",
        "exitCode": exit as u8,
        "transactionTime": exported.transaction_time.to_string(),
        "manifest": exported.manifest_path,
        "types": types,
        "files": exported.files,
        "ledger": exported.ledger,
        "messages": exported.messages,
        "members": { "listed": exported.members_listed, "found": exported.members_found },
        "index": exported.index,
        "ignoredFiles": exported.ignored,
        "excludedFiles": exported.excluded,
        "resumedFiles": exported.resumed_files,
        "seconds": seconds,
    })
}
