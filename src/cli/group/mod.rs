//! `outpour group check`: holds a Group file to rules, counts its members by kind, and resolves them against a store if
//! one is given. Also the reading of a Group file, shared with `outpour group import`.

pub(crate) mod import;
pub(crate) mod list;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::args::choices::ChoiceArgs;
use crate::cli::args::group::{GroupCheckArgs, GroupCommand};
use crate::cli::args::run::AllowMissingArgs;
use crate::cli::args::store::{AccessArg, StoreArgs};
use crate::cli::clock::StoreClock;
use crate::cli::config::{group_rules, members, open_store, pool};
use crate::cli::export::exit_of;
use crate::cli::message_text::FLAGS;
use crate::cli::{Exit, fail, print_messages, put_json, say};
use crate::codec::byte_order_mark::skip_mark;
use crate::count_text::noun_form;
use crate::error::{ExportError, RequestError};
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::reader::{GroupHead, GroupMember};
use crate::group::rules::problem::RuleViolation;
use crate::group::rules::{GroupCheck, GroupRules, WantedId};
use crate::issue::IssueLog;
use crate::limits::READ_BYTES;
use crate::request::ExportRequest;
use crate::select::cohort::Cohort;
use crate::store::choices::RowChoices;
use crate::text_table::{grouped as count, grouped_with};

/// Runs `outpour group check`, `outpour group import` or `outpour group list`.
pub(crate) fn run(command: GroupCommand) -> Exit {
    let (json, outcome) = match command {
        GroupCommand::Check(args) => (args.json, check(&args)),
        GroupCommand::Import(args) => (args.json, import::run(&args)),
        GroupCommand::List(args) => (args.json, list::run(&args)),
    };
    outcome.unwrap_or_else(|error| fail(exit_of(&error), &error, json))
}

/// Members of a Group by kind, as far as the Group alone shows it.
#[derive(Default)]
struct MemberCounts {
    /// References to patients, absolute ones included.
    patients: u64,
    /// References to patients by an absolute URL.
    absolute: u64,
    /// References to Groups, of which nested members come.
    groups: u64,
    /// Members without a reference but with an identifier.
    identifiers: u64,
    /// Members of any other kind.
    other: u64,
    /// Members marked inactive, of any kind.
    inactive: u64,
    /// Members with a period, of any kind.
    with_period: u64,
}

impl MemberCounts {
    /// Counts a member under its kind.
    fn count(&mut self, member: &GroupMember<'_>) {
        match member.reference.map(Reference::parse) {
            Some(Some(reference)) if reference.resource_type == ResourceType::PATIENT => {
                self.patients += 1;
                self.absolute += u64::from(!reference.base.is_empty());
            }
            Some(Some(reference)) if reference.resource_type == ResourceType::GROUP => self.groups += 1,
            None if member.identifier.is_some() => self.identifiers += 1,
            _ => self.other += 1,
        }
        self.inactive += u64::from(member.inactive);
        self.with_period += u64::from(member.period_start.is_some() || member.period_end.is_some());
    }
}

/// Store flags of `outpour group check`, `import` and `list`, which have only a path and an index directory.
pub(crate) fn store_args(store: &Path, index_dir: Option<PathBuf>, missing: AllowMissingArgs) -> StoreArgs {
    StoreArgs {
        store: store.to_path_buf(),
        index_dir,
        choices: ChoiceArgs::default(),
        missing,
        access: AccessArg::Mapped,
        kernel: None,
    }
}

/// Reads a Group file without its byte order mark and holds it to `rules`; each piece is also passed to `on_piece`. The elements of the Group
/// itself, and its members by kind.
///
/// # Errors
/// If the file cannot be read, breaks a rule (all violations at once), or `on_piece` fails.
fn read(
    path: &Path,
    rules: GroupRules,
    on_piece: &mut dyn FnMut(&[u8]) -> Result<(), ExportError>,
) -> Result<(GroupHead, MemberCounts), ExportError> {
    let unreadable = |error| RequestError::one(format!("{}: cannot be read: {error}", path.display()));
    let (_, mut file) = File::open(path).and_then(skip_mark).map_err(unreadable)?;
    let mut kinds = MemberCounts::default();
    let mut on_member = |member: &GroupMember<'_>| kinds.count(member);
    let mut check = GroupCheck::new(rules, WantedId::Own, &mut on_member);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error).into()),
        };
        check.feed(&buffer[..read]);
        on_piece(&buffer[..read])?;
    }
    let reported = |problem: RuleViolation| format!("{}: {}", path.display(), problem.text).into();
    match check.finish() {
        Ok(checked) => Ok((checked.head, kinds)),
        Err(problems) => Err(RequestError { problems: problems.into_iter().map(reported).collect() }.into()),
    }
}

/// For `outpour group check` and `import` alike: refuses a pipe or device as a Group file that is read twice, since the
/// second read would block, or yield nothing.
///
/// # Errors
/// If the file exists and is no regular file; the text names `why` as the reason for reading twice.
fn refuse_pipe(path: &Path, why: &str) -> Result<(), RequestError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let text = format!("{}: it is no regular file, and {why} reads it twice; give a file", path.display());
            Err(RequestError::one(text))
        }
        // A missing file is reported where it is opened.
        _ => Ok(()),
    }
}

/// Checks a Group file, resolves its members if a store is given, and prints the report.
fn check(args: &GroupCheckArgs) -> Result<Exit, ExportError> {
    if args.store.is_some() {
        refuse_pipe(&args.file, "a check against a store")?;
    }
    let (head, kinds) = read(&args.file, group_rules(&args.rules)?, &mut |_| Ok(()))?;
    let resolved = match &args.store {
        None => None,
        Some(path) => {
            let store = open_store(
                &store_args(path, args.index_dir.clone(), args.missing),
                RowChoices::default(),
                false,
                true,
            )?;
            let as_of = StoreClock::of(Some(&store)).transaction_time();
            let mut request = ExportRequest::group_file(&args.file);
            request.members = members(args.members);
            request.fhir_bases = args.fhir_base.iter().map(|base| base.trim_end_matches('/').to_string()).collect();
            let cohort = pool(None)?.install(|| -> Result<_, ExportError> {
                // Read-only: a check writes nothing, and must not be recorded as a snapshot that has seen the store's
                // files.
                let (index, _) = store.read_only().index(&crate::progress::Progress::default())?;
                Cohort::resolve(&crate::index::snapshot::Snapshot::of_latest(index, as_of), &request)
            })?;
            Some(cohort)
        }
    };
    report(args, &head, &kinds, resolved.as_ref());
    Ok(Exit::Done)
}

/// Prints the members by kind, and with a store the number of patients found and the issues raised.
fn report(args: &GroupCheckArgs, head: &GroupHead, kinds: &MemberCounts, cohort: Option<&Cohort>) {
    let id = head.id.map(|id| id.to_string()).unwrap_or_default();
    let none = IssueLog::default();
    let messages = cohort.map_or(&none, |cohort| &cohort.messages);
    let found = cohort.map(|cohort| cohort.members.count());
    if args.json {
        let texts: Vec<String> = messages.iter().map(|message| message.say(&FLAGS)).collect();
        put_json(&json!({
            "status": "complete", "exitCode": 0, "id": id, "name": head.name, "members": head.members,
            "patients": kinds.patients, "absolute": kinds.absolute, "groups": kinds.groups,
            "filters": head.filters.count(), "identifiers": kinds.identifiers, "other": kinds.other, "inactive": kinds.inactive,
            "withPeriod": kinds.with_period, "found": found, "messages": texts,
        }));
    }
    say(&format!("Group/{id}: {}", grouped_with(head.members, "member")));
    let lines = [
        (&*(noun_form(kinds.patients, "patient") + " by reference"), kinds.patients),
        ("of these, by absolute URL", kinds.absolute),
        (&*noun_form(kinds.groups, "Group"), kinds.groups),
        ("by identifier only", kinds.identifiers),
        ("anything else", kinds.other),
        ("marked inactive", kinds.inactive),
        ("with a period", kinds.with_period),
        (&*(noun_form(head.filters.count(), "filter") + ", each of which a patient must meet"), head.filters.count()),
    ];
    lines.iter().filter(|(_, n)| *n > 0).for_each(|(what, n)| say(&format!("  {:>9}  {what}", count(*n))));
    match found {
        Some(found) => {
            let found = found as u64;
            say(&format!("  {:>9}  {} of the store", count(found), noun_form(found, "patient")));
        }
        None => say("  (give --store to see which of them the store holds)"),
    }
    print_messages(messages);
}
