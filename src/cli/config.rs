//! From flags to decisions: sizes, instants, policies, the store and the thread pool; all checks of an
//! export's flags that need no index. The configuration of the service is in `server::config`.

use crate::byte_size::{SIZE_EXAMPLES, parse_size};
use crate::cli::args::ExportArgs;
use crate::cli::args::chain::{ChainArgs, NewMembersArg};
use crate::cli::args::choices::{
    ChoiceArgs, CompartmentPathsArg, FollowSymlinksArg, IdsArg, LoneSurrogatesArg, PatientReferencesArg, UnprovenArg,
    ValidateArg,
};
use crate::cli::args::group::{GroupRulesArgs, RulesArg};
use crate::cli::args::records::PatientStrictArg;
use crate::cli::args::request::{
    CompressArg, ContextArg, DigestArg, LateArg, MembersArg, MissingArg, RequestArgs, SelectionArg, VanishedArg,
};
use crate::cli::args::run::WriteArgs;
use crate::cli::args::store::{AccessArg, StoreArgs};
use crate::cli::clock::{StoreClock, now};
use crate::cli::message_text::{FLAGS, index_text};
use crate::cli::time_text::parse_time;
use crate::codec::compression::{Compression, UnprovenPolicy};
use crate::error::{RequestError, RequestProblem};
use crate::export::baseline_record::FinishedExport;
use crate::export::options::FaultsAllowed;
use crate::export::plan_record::PlanRecord;
use crate::extract::Validate;
use crate::extract::rules::LoneSurrogates;
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::{Id, IdRule};
use crate::fhir::reference::PatientReferences;
use crate::group::lookup::MembershipRule;
use crate::group::rules::{GroupContent, GroupRules};
use crate::hash::digest::DigestAlgorithm;
use crate::index::snapshot_time::SnapshotTime;
use crate::issue::Parameter;
use crate::limits::THREADS_MAX;
use crate::policies::{
    AccessPath, Context, FileBounds, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished,
};
use crate::request::ExportRequest;
use crate::simd::Kernel;
use crate::store::choices::RowChoices;
use crate::store::paths::check_outside_store;
use crate::store::{Store, StoreOptions};
use crate::sys::access::Access;
use crate::sys::durability::FileSync;
use crate::sys::sigbus;
use crate::write::file_modes::FileModes;
use std::path::Path;
use std::sync::Arc;

/// Parses permission bits of a file or directory: octal digits, at most 0777, with all bits that its owner needs.
fn parse_mode(text: &str, needed: u32) -> Option<u32> {
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)?;
    (mode <= 0o777 && mode & needed == needed).then_some(mode)
}

/// Parses `--faults-allowed`: a number of lines, or a share of them such as `0.1%`. `None` for any other text.
fn parse_faults(text: &str) -> Option<FaultsAllowed> {
    match text.strip_suffix('%') {
        Some(share) => {
            let share: f64 = share.trim().parse().ok()?;
            (0.0..=100.0).contains(&share).then_some(FaultsAllowed::Percent(share))
        }
        None => text.parse().ok().map(FaultsAllowed::Count),
    }
}

/// Opens the store of the flags. For mapped access the handler for files that are truncated under a map is installed
/// first.
///
/// # Errors
/// If the store cannot be opened, or the machine lacks the kernel named by `--kernel`.
pub(crate) fn open_store(
    args: &StoreArgs,
    choices: RowChoices,
    remake: bool,
    sync: bool,
) -> Result<Store, RequestError> {
    let access = match args.access {
        AccessArg::Called => Access::pread(),
        // Without the handler files are read by calls instead: slower, and as safe.
        AccessArg::Mapped => sigbus::install().unwrap_or(Access::pread()),
    };
    let kernel = match &args.kernel {
        None => Kernel::detect(),
        Some(name) => Kernel::named(name).ok_or_else(|| {
            let known: Vec<&str> = Kernel::available().into_iter().map(Kernel::name).collect();
            RequestError::one(format!("--kernel: {name:?} is none of this machine's: {}", known.join(", ")))
        })?,
    };
    let index_dir = args.index_dir.clone();
    let allow_missing = args.missing.allow_missing;
    let options =
        StoreOptions { index_dir, access, kernel, choices, remake, sync, allow_missing, ..StoreOptions::default() };
    Store::open_with(&args.store, options)
        .map_err(|error| RequestError::one(RequestProblem::of(Parameter::Store, index_text(&error))))
}

/// What is checked of each line.
pub(crate) fn validation(how: Option<ValidateArg>) -> Option<Validate> {
    how.map(|how| match how {
        ValidateArg::Full => Validate::Full,
        ValidateArg::Structure => Validate::Structure,
    })
}

/// The choices of how a store is read.
pub(crate) fn row_choices(args: &ChoiceArgs) -> RowChoices {
    RowChoices {
        validate: None,
        unproven: args.unproven.map(|how| match how {
            UnprovenArg::Export => UnprovenPolicy::Export,
            UnprovenArg::Fault => UnprovenPolicy::Fault,
        }),
        ids: args.ids.map(|rule| match rule {
            IdsArg::Any => IdRule::Any,
            IdsArg::R4 => IdRule::R4,
        }),
        lone_surrogates: args.lone_surrogates.map(|how| match how {
            LoneSurrogatesArg::Fault => LoneSurrogates::Fault,
            LoneSurrogatesArg::Pass => LoneSurrogates::Pass,
        }),
        patient_references: args.patient_references.map(|how| match how {
            PatientReferencesArg::Strict => PatientReferences::Strict,
            PatientReferencesArg::Lenient => PatientReferences::Lenient,
        }),
        compartment_paths: args.compartment_paths.map(|which| match which {
            CompartmentPathsArg::R4 => CompartmentPaths::R4,
            CompartmentPathsArg::Primary => CompartmentPaths::Primary,
        }),
        follow_symlinks: args.follow_symlinks.map(|how| how == FollowSymlinksArg::Yes),
    }
}

/// Whether output is synced to disk, by `--no-sync`.
pub(crate) fn sync(args: &WriteArgs) -> FileSync {
    if args.no_sync { FileSync::No } else { FileSync::Yes }
}

/// A thread pool for the command's work, with `threads` or one thread per processor.
///
/// # Errors
/// If `threads` is not within 1 to [`THREADS_MAX`], or the threads cannot be started.
pub(crate) fn pool(threads: Option<usize>) -> Result<rayon::ThreadPool, RequestError> {
    if let Some(wrong) = threads.filter(|threads| !(1..=THREADS_MAX).contains(threads)) {
        return Err(RequestError::one(format!("--threads is {wrong}; give 1 to {THREADS_MAX}")));
    }
    let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| RequestError::one(format!("--threads {threads}: {error}")))
}

/// The rules for a Group file: those of `--rules`, with `--max-bytes` and `--max-members` in place of their bounds.
///
/// # Errors
/// If `--max-bytes` holds no size.
pub(crate) fn group_rules(args: &GroupRulesArgs) -> Result<GroupRules, RequestError> {
    let rules = match args.rules {
        RulesArg::R4 => GroupRules { content: GroupContent::Exportable, ..GroupRules::default() },
        RulesArg::Oneup => GroupRules::oneup(),
    };
    let bytes_max =
        match &args.max_bytes {
            None => rules.bytes_max,
            Some(text) => Some(parse_size(text).ok_or_else(|| {
                RequestError::one(format!("--max-bytes: {text:?} is no size such as {SIZE_EXAMPLES}"))
            })?),
        };
    Ok(GroupRules { bytes_max, members_max: args.max_members.or(rules.members_max), ..rules })
}

/// The membership rule of `--members`.
pub(crate) fn members(arg: MembersArg) -> MembershipRule {
    match arg {
        MembersArg::Listed => MembershipRule::Listed,
        MembersArg::Active => MembershipRule::Active,
    }
}

/// An export as decided from its flags, checked as far as possible without an index.
pub(crate) struct ResolvedConfig {
    /// The request, free of problems.
    pub request: ExportRequest,
    /// The open store to export from.
    pub store: Store,
    /// The transactionTime of the export, or the clock that it is chosen by.
    pub time: SnapshotTime,
    /// What is to be said of the clock.
    pub clock_warning: Option<String>,
    /// Bound on faulty lines; `None` allows any number.
    pub faults_allowed: Option<FaultsAllowed>,
    /// The record of the export that an increment builds on.
    pub builds_on: Option<Arc<PlanRecord>>,
    /// Permission bits of what is published.
    pub modes: FileModes,
}

/// Where an export is written, as far as flags say so.
pub(crate) struct TargetFlags<'a> {
    /// The flag of the directory, and the directory.
    pub directory: Option<(&'static str, &'a Path)>,
    /// The export that is built on.
    pub chain: Option<&'a ChainArgs>,
    /// Permission bits of files and of directories.
    pub modes: [Option<&'a str>; 2],
    /// Whether files are synced.
    pub sync: bool,
}

impl<'a> TargetFlags<'a> {
    /// Those of `outpour export`.
    pub(crate) fn of_export(args: &'a ExportArgs) -> TargetFlags<'a> {
        let directory = match (&args.out, &args.chain.chain) {
            (Some(out), _) => Some(("--out", out.as_path())),
            (None, root) => root.as_ref().map(|root| ("--chain", root.as_path())),
        };
        let modes = [args.mode.as_deref(), args.dir_mode.as_deref()];
        TargetFlags { directory, chain: Some(&args.chain), modes, sync: !args.write.no_sync }
    }
}

/// Decides everything of an export that can be decided before the index is read.
///
/// # Errors
/// All problems of the flags at once.
pub(crate) fn resolve(
    args: &RequestArgs,
    store: &StoreArgs,
    target: &TargetFlags<'_>,
) -> Result<ResolvedConfig, RequestError> {
    let mut request = match (&args.group, &args.patients) {
        (Some(group), _) => group_population(group),
        (_, Some(file)) if file.as_os_str() == "-" => ExportRequest::patients("/dev/stdin"),
        (_, Some(file)) => ExportRequest::patients(file),
        _ if args.all_patients => ExportRequest::all_patients(),
        _ => ExportRequest::system(),
    };
    request = request.types(args.records.types.iter().flat_map(|list| list.split(',')));
    let now = now();
    let times = [(Parameter::Since, &args.records.since), (Parameter::Until, &args.records.until)];
    for (parameter, text) in times.into_iter().filter_map(|(parameter, text)| Some((parameter, text.as_ref()?))) {
        request = match (parse_time(text, &now), parameter) {
            (Ok(time), Parameter::Since) => request.since_instant(time),
            (Ok(time), _) => request.until_instant(time),
            (Err(why), _) => request.problem(RequestProblem::of(parameter, format!("{text:?} {why}"))),
        };
    }
    request = request.elements(args.records.elements.iter().flat_map(|list| list.split(',')));
    request = request.type_filters(&args.records.type_filter);
    if args.allow_empty {
        request = request.allow_empty();
    }
    let only = args.records.patient.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|id| !id.is_empty());
    if !args.records.patient.is_empty() {
        request = request.only_patients(only);
    }
    request.strict_patients = args.records.strict_patients;
    request.patient_strict = match args.records.patient_strict {
        PatientStrictArg::Any => PatientStrict::Any,
        PatientStrictArg::All => PatientStrict::All,
    };
    let associated = args.records.include_associated_data.iter().flat_map(|list| list.split(','));
    request = request.include_associated_data(associated);
    if args.records.lenient {
        request = request.ignore(&FLAGS);
    }
    if args.allow_empty && args.patients.is_none() {
        let text = "not given, so --allow-empty has nothing to allow; leave it out";
        request = request.problem(RequestProblem::of(Parameter::Patients, text));
    }
    request.members = members(args.members);
    request.late = match args.late {
        LateArg::Include => LateArrivals::Include,
        LateArg::Report => LateArrivals::Report,
    };
    request.missing_last_updated = match args.missing_last_updated {
        MissingArg::Include => MissingLastUpdated::Include,
        MissingArg::Exclude => MissingLastUpdated::Exclude,
    };
    request.vanished = match args.vanished {
        VanishedArg::Report => Vanished::Report,
        VanishedArg::Delete => Vanished::Delete,
    };
    request.new_members = new_members(target.chain);
    let mut builds_on = None;
    if let Some(path) = target.chain.and_then(|chain| chain.since_manifest.as_ref()) {
        match FinishedExport::open(path) {
            Ok(FinishedExport { record, baseline, .. }) => {
                request = request.increment_on(baseline, new_members(target.chain));
                builds_on = Some(record);
            }
            Err(wrong) => request = wrong.problems.into_iter().fold(request, ExportRequest::problem),
        }
    } else if target.chain.is_some_and(|chain| chain.baseline) {
        request = request.keep_resources();
    }
    request.compression = match args.compress {
        CompressArg::None => Compression::None,
        CompressArg::Gzip => Compression::Gzip,
        CompressArg::Zstd => Compression::Zstd,
    };
    request.digest = match args.digest {
        DigestArg::Xxh3 => DigestAlgorithm::Xxh3,
        DigestArg::Sha256 => DigestAlgorithm::Sha256,
        DigestArg::None => DigestAlgorithm::None,
    };
    request.context = match args.context {
        ContextArg::None => Context::None,
        ContextArg::Referenced => Context::Referenced,
        ContextArg::Changed => Context::Changed,
    };
    request = request.fhir_bases(&args.fhir_base);
    if let Some(base) = &args.base_url {
        request = request.base_url(base);
    }
    request.access_path = match args.selection {
        SelectionArg::Auto => AccessPath::Auto,
        SelectionArg::Postings => AccessPath::Postings,
        SelectionArg::Columns => AccessPath::Columns,
        SelectionArg::Rows => AccessPath::Rows,
    };
    let file_bytes = parse_size(&args.max_file_bytes);
    if file_bytes.is_none() {
        let text = format!("--max-file-bytes: {:?} is no size such as {SIZE_EXAMPLES}", args.max_file_bytes);
        request = request.problem(text);
    }
    request.bounds = FileBounds { file_bytes: file_bytes.unwrap_or(1), file_resources: args.max_file_resources };
    let faults_allowed = args.faults_allowed.as_deref().map(|text| (text, parse_faults(text)));
    if let Some((text, None)) = faults_allowed {
        request = request.problem(format!("--faults-allowed: {text:?} is neither a number nor a share such as 0.1%"));
    }
    let (mut modes, given) =
        (FileModes::default(), [("--mode", target.modes[0], 0o600), ("--dir-mode", target.modes[1], 0o700)]);
    for (flag, text, needed) in given {
        let Some(text) = text else { continue };
        match parse_mode(text, needed) {
            Some(mode) if needed == 0o600 => modes.file = Some(mode),
            Some(mode) => modes.directory = Some(mode),
            None => {
                let form =
                    format!("{text:?} is no mode from 0{needed:o} to 0777 in octal with all bits of 0{needed:o}");
                request = request.problem(format!("{flag}: {form}, such as 0640 for files and 0750 for directories"));
            }
        }
    }
    let files = [("--group", group_path(&request)), ("--patients", args.patients.clone())];
    for (flag, path) in files {
        if let Some(path) = path.filter(|path| path.as_os_str() != "-")
            && let Err(error) = std::fs::metadata(&path)
        {
            request = request.problem(format!("{flag}: {} cannot be read: {error}", path.display()));
        }
    }
    if let Some((flag, out)) = target.directory {
        if let Err(inside) = check_outside_store(&store.store, out) {
            let texts = inside.problems.into_iter().map(|problem| format!("{flag}: {}", problem.text));
            request = texts.fold(request, ExportRequest::problem);
        }
        if std::fs::metadata(out).is_ok_and(|found| !found.is_dir()) {
            request = request.problem(format!("{flag}: {} is no directory", out.display()));
        }
    }
    let store = match open_store(store, row_choices(&store.choices), false, target.sync) {
        Ok(store) => Some(store),
        Err(wrong) => {
            request = wrong.problems.into_iter().fold(request, ExportRequest::problem);
            None
        }
    };
    let clock = StoreClock::of(store.as_ref());
    let time = clock.snapshot_time(args.as_of.as_deref(), args.allow_future).unwrap_or_else(|text| {
        request = request.clone().problem(text);
        clock.next()
    });
    let as_of = time.given().cloned().unwrap_or_else(|| clock.transaction_time());
    if let Some(since) = &request.since
        && *since > as_of
    {
        let text = format!("--since {since} is in the future: it is later than the transactionTime {as_of}");
        request = request.clone().problem(text);
    }
    request.check()?;
    let faults_allowed = faults_allowed.and_then(|(_, allowed)| allowed);
    let store = store.expect("without a store the request has a problem");
    Ok(ResolvedConfig { request, store, time, clock_warning: clock.warning(), faults_allowed, builds_on, modes })
}

/// What `--new-members` says: a chain has all records of those who join unless told otherwise.
fn new_members(args: Option<&ChainArgs>) -> NewMembers {
    match args.and_then(|args| args.new_members) {
        Some(NewMembersArg::Full) => NewMembers::Full,
        Some(NewMembersArg::Report) => NewMembers::Report,
        Some(NewMembersArg::Ignore) => NewMembers::Ignore,
        None if args.is_some_and(|args| args.chain.is_some()) => NewMembers::Full,
        None => NewMembers::Report,
    }
}

/// The Group that `--group` names: `Group/ID` is always the reference, whatever stands in the working directory, so that
/// nobody's directory changes whose records leave; else a path has a '/' or ends in .json; else it is an id.
fn group_population(text: &str) -> ExportRequest {
    let is_file_name = text.ends_with(".json");
    match text.strip_prefix("Group/").filter(|id| !is_file_name && Id::parse_r4(id.as_bytes()).is_some()) {
        Some(id) => ExportRequest::group(id),
        None if is_file_name || text.contains('/') => ExportRequest::group_file(text),
        None => ExportRequest::group(text),
    }
}

/// The path of the Group file that the flags of an export resolve to; `None` if they name no file.
fn group_path(request: &ExportRequest) -> Option<std::path::PathBuf> {
    match &request.population {
        crate::request::Population::GroupFile(path) => Some(path.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Population;

    /// `Group/ID` is a reference unless it ends as a Group file does; any other path is a path.
    #[test]
    fn groups_are_ids_references_or_paths() {
        let id = |text: &str| Population::Group(text.to_string());
        for (text, population) in [
            ("ten", id("ten")),
            ("Group/ten", id("ten")),
            ("Group/1.2", id("1.2")),
            ("Group/ten.json", Population::GroupFile("Group/ten.json".into())),
            ("ten.json", Population::GroupFile("ten.json".into())),
            ("./Group/ten", Population::GroupFile("./Group/ten".into())),
            ("group/ten", Population::GroupFile("group/ten".into())),
            ("Group/", Population::GroupFile("Group/".into())),
            ("Group//ten", Population::GroupFile("Group//ten".into())),
            ("Group/a/ten", Population::GroupFile("Group/a/ten".into())),
            ("Group/a b", Population::GroupFile("Group/a b".into())),
            ("/Group/ten", Population::GroupFile("/Group/ten".into())),
        ] {
            assert_eq!(group_population(text).population, population, "{text}");
        }
        let longest = "x".repeat(64);
        assert_eq!(group_population(&format!("Group/{longest}")).population, id(&longest));
        let path = format!("Group/{longest}x");
        assert_eq!(group_population(&path).population, Population::GroupFile(path.into()));
    }

    /// Modes are octal, have the bits that their owner needs, and no others than permission bits.
    #[test]
    fn modes_are_read_as_documented() {
        for (text, mode) in [("0640", 0o640), ("640", 0o640), ("0600", 0o600), ("0777", 0o777)] {
            assert_eq!(parse_mode(text, 0o600), Some(mode), "{text}");
        }
        assert_eq!((parse_mode("0750", 0o700), parse_mode("0650", 0o700)), (Some(0o750), None));
        for text in ["", "0", "0440", "1640", "0o640", "+640", "00640", "u=rw", "0680", "7777"] {
            assert_eq!(parse_mode(text, 0o600), None, "{text}");
        }
    }
}
