//! `outpour group check` and `outpour group import`

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{AccessArg, GroupCheckArgs, GroupCommand, GroupImportArgs, StoreArgs};
use super::config::{members, now, open_store, pool, transaction_time};
use super::export::exit_of;
use super::table::count;
use super::{Exit, fail, put_json, say};
use crate::ExportRequest;
use crate::bytes::kernels::Kernel;
use crate::bytes::private::create_private;
use crate::error::{ExportError, RequestError};
use crate::extract::group::{GroupHead, GroupReader, Member};
use crate::fhir::{Reference, ResourceType};
use crate::observe::Messages;
use crate::select::Cohort;

/// Runs the command.
pub fn run(command: GroupCommand) -> Exit {
    let (json, outcome) = match command {
        GroupCommand::Check(args) => (args.json, check(&args)),
        GroupCommand::Import(args) => (args.json, import(&args)),
    };
    outcome.unwrap_or_else(|error| fail(exit_of(&error), &error, json))
}

/// What the members of a Group are, told without a store.
#[derive(Default)]
struct Kinds {
    patients: u64,
    absolute: u64,
    groups: u64,
    identifiers: u64,
    other: u64,
    inactive: u64,
    with_period: u64,
}

fn store_args(store: &Path, index_dir: Option<PathBuf>) -> StoreArgs {
    StoreArgs { store: store.to_path_buf(), index_dir, access: AccessArg::Mapped, kernel: None }
}

/// Reads a Group file; its head and the kinds of its members.
fn read(path: &Path) -> Result<(GroupHead, Kinds), ExportError> {
    let problem = |what: String| RequestError::one(format!("{}: {what}", path.display()));
    let mut file = File::open(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let mut kinds = Kinds::default();
    let mut on_member = |member: &Member<'_>| {
        match member.reference.map(Reference::parse) {
            Some(Some(reference)) if reference.resource_type == ResourceType::PATIENT => {
                kinds.patients += 1;
                kinds.absolute += u64::from(!reference.base.is_empty());
            }
            Some(Some(reference)) if reference.resource_type == ResourceType::GROUP => kinds.groups += 1,
            None if member.identifier.is_some() => kinds.identifiers += 1,
            _ => kinds.other += 1,
        }
        kinds.inactive += u64::from(member.inactive);
        kinds.with_period += u64::from(member.period_start.is_some() || member.period_end.is_some());
    };
    let mut reader = GroupReader::new(Kernel::detect(), &mut on_member);
    reader.begin();
    let mut buffer = vec![0; 1 << 20];
    let (mut position, mut newlines) = (0u64, Vec::new());
    loop {
        let read = file.read(&mut buffer).map_err(|error| problem(format!("cannot be read: {error}")))?;
        if read == 0 {
            break;
        }
        newlines.extend(memchr::memchr_iter(b'\n', &buffer[..read]).map(|at| position + at as u64));
        position += read as u64;
        reader.feed(&buffer[..read]);
    }
    let head = reader.finish().map_err(|fault| {
        let line = newlines.partition_point(|at| *at < fault.at) + 1;
        problem(format!("line {line}, byte {}: {}", fault.at, fault.kind))
    })?;
    Ok((head, kinds))
}

/// What keeps a Group from being exported or stored, every problem at once.
fn problems(path: &Path, head: &GroupHead) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |text: String| problems.push(format!("{}: {text}", path.display()));
    if head.resource_type != Some(ResourceType::GROUP) {
        wrong("is no Group: its resourceType is not Group".into());
        return problems;
    }
    if head.id.is_none() {
        wrong("has no legal id; a Group is asked for by its id".into());
    }
    match head.group_type.as_deref() {
        Some("person" | "animal") => {}
        Some(other) => wrong(format!("has type {other}; only Groups of patients (person or animal) can be exported")),
        None => wrong("has no type; give \"type\": \"person\"".into()),
    }
    if head.has_characteristic && (head.members == 0 || head.actual == Some(false)) {
        wrong("is defined by characteristics, which are not evaluated; list its members".into());
    }
    problems
}

fn check(args: &GroupCheckArgs) -> Result<Exit, ExportError> {
    let (head, kinds) = read(&args.file)?;
    let problems = problems(&args.file, &head);
    if !problems.is_empty() {
        return Err(RequestError { problems }.into());
    }
    let resolved = match &args.store {
        None => None,
        Some(path) => {
            let store = open_store(&store_args(path, args.index_dir.clone()), None, true)?;
            let as_of = transaction_time(&store);
            let mut request = ExportRequest::group_file(&args.file);
            request.members = members(args.members);
            request.fhir_bases = args.fhir_base.iter().map(|base| base.trim_end_matches('/').to_string()).collect();
            let cohort = pool(None)?.install(|| -> Result<_, ExportError> {
                // A look, not an export: it must not count as a snapshot that has seen the store's files.
                let (index, _) = store.index(&crate::Watch::default())?;
                Cohort::resolve(&crate::Snapshot::of_index(index, as_of), &request)
            })?;
            Some(cohort)
        }
    };
    report(args, &head, &kinds, resolved.as_ref());
    Ok(Exit::Done)
}

fn report(args: &GroupCheckArgs, head: &GroupHead, kinds: &Kinds, cohort: Option<&Cohort>) {
    let id = head.id.map(|id| id.to_string()).unwrap_or_default();
    let none = Messages::default();
    let messages = cohort.map_or(&none, |cohort| &cohort.messages);
    let found = cohort.map(|cohort| cohort.members.count());
    if args.json {
        let texts: Vec<String> = messages.iter().map(|message| message.text).collect();
        put_json(&json!({
            "status": "complete", "exitCode": 0, "id": id, "name": head.name, "members": head.members,
            "patients": kinds.patients, "absolute": kinds.absolute, "groups": kinds.groups,
            "identifiers": kinds.identifiers, "other": kinds.other, "inactive": kinds.inactive,
            "withPeriod": kinds.with_period, "found": found, "messages": texts,
        }));
    }
    say(&format!("Group/{id}: {} members", count(head.members)));
    let lines = [
        ("patients by reference", kinds.patients),
        ("of these, by absolute URL", kinds.absolute),
        ("Groups", kinds.groups),
        ("by identifier only", kinds.identifiers),
        ("anything else", kinds.other),
        ("marked inactive", kinds.inactive),
        ("with a period", kinds.with_period),
    ];
    lines.iter().filter(|(_, n)| *n > 0).for_each(|(what, n)| say(&format!("  {:>9}  {what}", count(*n))));
    match found {
        Some(found) => say(&format!("  {:>9}  patients of the store", count(found as u64))),
        None => say("  (give --store to see which of them the store holds)"),
    }
    messages.iter().for_each(|message| say(&format!("  {}", message.text)));
}

fn import(args: &GroupImportArgs) -> Result<Exit, ExportError> {
    let (head, _) = read(&args.file)?;
    let problems = problems(&args.file, &head);
    let (true, Some(id)) = (problems.is_empty(), head.id) else {
        return Err(RequestError { problems }.into());
    };
    let store = open_store(&store_args(&args.store, None), None, true)?;
    let name = format!("Group.{id}.ndjson");
    let target = store.root().join(&name);
    let failed = |source| ExportError::Write { directory: store.root().to_path_buf(), name: name.clone(), source };
    let temporary = store.root().join(format!(".{name}.part"));
    let copied = copy_as_line(&args.file, &temporary).and_then(|()| std::fs::rename(&temporary, &target));
    if let Err(error) = copied {
        std::fs::remove_file(&temporary).ok();
        return Err(failed(error));
    }
    crate::write::sink::sync_directory(store.root()).map_err(failed)?;
    // Another file of the store may hold a version of the Group that is later than this one.
    let current = pool(None)?.install(|| -> Result<bool, ExportError> {
        let (index, _) = store.index(&crate::Watch::default())?;
        let snapshot = crate::Snapshot::of_index(index, now());
        let cohort = Cohort::resolve(&snapshot, &ExportRequest::group(id.as_str()));
        let row = cohort.ok().and_then(|cohort| cohort.group_row);
        Ok(row.is_some_and(|(extent, _)| snapshot.index().file_name(snapshot.index().entry(extent).file) == name))
    })?;
    if args.json {
        put_json(
            &json!({ "status": "complete", "exitCode": 0, "id": id.as_str(), "file": target, "members": head.members, "current": current }),
        );
    }
    say(&format!("Group/{id} with {} members is stored as {}", count(head.members), target.display()));
    if !current {
        say(
            "but another file of the store holds a version that counts as later: give this one a later meta.lastUpdated",
        );
    }
    Ok(Exit::Done)
}

/// Copies a JSON document as one line: white space between tokens goes, everything else stays as it is.
fn copy_as_line(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut file = File::open(from)?;
    let private = create_private(to)?;
    private.set_len(0)?;
    let mut out = BufWriter::with_capacity(1 << 20, private);
    let mut buffer = vec![0; 1 << 20];
    let (mut in_string, mut escaped) = (false, false);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let line: Vec<u8> = buffer[..read]
            .iter()
            .copied()
            .filter(|byte| {
                if in_string {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => in_string = false,
                        _ => {}
                    }
                    return true;
                }
                in_string = *byte == b'"';
                !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
            })
            .collect();
        out.write_all(&line)?;
    }
    out.write_all(b"\n")?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}
