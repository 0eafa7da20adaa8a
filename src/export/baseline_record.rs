//! The baseline of an increment, read from the record of an earlier export, and whether the increment asks for the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::baseline::Baseline;
use crate::error::{RequestError, RequestProblem};
use crate::export::plan_record::{ExportOrigin, PlanRecord, difference_of_value};
use crate::fhir::instant::Instant;
use crate::index::snapshot_record::SnapshotRecord;
use crate::issue::Parameter;
use crate::key_set::ResourceKeySet;
use crate::limits::RECORD_BYTES_MAX;
use crate::sys::directory::Directory;
use crate::write::journal::{COHORT, JOB, MANIFEST, PLAN, RESOURCES};
use crate::write::manifest::{EXPORT_KEY, Manifest};

/// A finished export, as its directory describes it.
#[derive(Debug)]
pub(crate) struct FinishedExport {
    /// Its record.
    pub record: Arc<PlanRecord>,
    /// Its manifest.
    pub manifest: Manifest,
    /// What an increment on it needs to know.
    pub baseline: Arc<Baseline>,
}

impl FinishedExport {
    /// Reads a finished export from its directory, or from the path of its manifest.
    ///
    /// # Errors
    /// A sentence for [`Parameter::Baseline`]: what is missing or damaged, and where.
    pub(crate) fn open(path: &Path) -> Result<FinishedExport, RequestError> {
        let directory = match path.file_name().is_some_and(|name| name == MANIFEST) {
            true => path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            false => path,
        };
        let wrong = |text: String| {
            let text = format!("{} {text}", directory.display());
            RequestError::one(RequestProblem::of(Parameter::Baseline, text))
        };
        let opened = Directory::open(directory).map_err(|error| wrong(format!("cannot be opened: {error}")))?;
        let read = |name: &str| opened.read(name, RECORD_BYTES_MAX).map_err(|error| (error.kind(), error));
        let manifest = match read(MANIFEST) {
            Ok(bytes) => {
                Manifest::from_bytes(&bytes).map_err(|error| wrong(format!("has a damaged manifest: {error}")))?
            }
            Err((std::io::ErrorKind::NotFound, _)) => {
                return Err(wrong("holds no finished export: there is no manifest.json".to_string()));
            }
            Err((_, error)) => return Err(wrong(format!("has a manifest that cannot be read: {error}"))),
        };
        let Some(extension) = manifest.extension.get(EXPORT_KEY) else {
            return Err(wrong("holds an export that outpour did not write".to_string()));
        };
        let plan = format!("{JOB}/{PLAN}");
        let plan = read(&plan).map_err(|(_, error)| wrong(format!("has no record that can be read: {error}")))?;
        let record =
            PlanRecord::from_bytes(&plan).map_err(|reason| wrong(format!("has a damaged record: {reason}")))?;
        let stated = extension.get("chain").map(|chain| (chain["number"].as_u64(), chain["full"].as_u64()));
        let recorded = record.chain.as_ref().map(|chain| (Some(chain.number), Some(chain.full)));
        if stated != recorded {
            return Err(wrong("has a manifest and a record of different places in a chain".to_string()));
        }
        let states = |name: &str, text: &str| extension.get(name).and_then(|value| value.as_str()) == Some(text);
        let Some(transaction_time) = Instant::parse(&manifest.transaction_time)
            .filter(|_| states("planId", &record.plan_id) && record.snapshot.as_of == manifest.transaction_time)
        else {
            return Err(wrong("has a manifest and a record of different exports".to_string()));
        };
        // 1. The patients, if they were recorded.
        let keys = |name: &str, digest: &str| -> Result<ResourceKeySet, RequestError> {
            let name = format!("{JOB}/{name}");
            let damaged = |reason: String| wrong(format!("has a damaged file {name}: it {reason}"));
            let file = opened.open_file(&name).map_err(|error| damaged(format!("cannot be read: {error}")))?;
            let set = ResourceKeySet::open(file, &directory.join(&name)).map_err(damaged)?;
            match set.digest() == digest {
                true => Ok(set),
                false => Err(damaged("is that of another export".to_string())),
            }
        };
        let cohort = record.cohort.as_deref().map(|digest| keys(COHORT, digest)).transpose()?;
        // 2. What a reader holds, if it was recorded.
        let resources =
            extension.get("resources").and_then(|facts| facts.get("digest")).and_then(|value| value.as_str());
        let resources = resources.map(|digest| keys(RESOURCES, digest)).transpose()?;
        let plan_id = record.plan_id.clone();
        let baseline = Arc::new(Baseline { plan_id, transaction_time, cohort, resources });
        Ok(FinishedExport { record: Arc::new(record), manifest, baseline })
    }
}

/// Fields of a request that an increment may have otherwise than its baseline: they decide when, and how files are cut and named,
/// not what belongs.
const MAY_DIFFER: [&str; 13] = [
    "--since",
    "--until",
    "--max-file-bytes",
    "--max-file-resources",
    "--compress",
    "--digest",
    "--base-url",
    "--new-members",
    "attachmentUrls",
    "baseline",
    "notes",
    "vanished",
    "version",
];

/// Checks that an increment asks for what its baseline asked for, of the same store.
///
/// # Errors
/// Every difference at once.
pub(crate) fn check_same_question<S>(
    before: &PlanRecord,
    now: &PlanRecord<SnapshotRecord<S>>,
) -> Result<(), RequestError> {
    let mut problems = Vec::new();
    let mut differs = |parameter: Parameter, before: &str, now: &str| {
        let text = format!(
            "the export that this one builds on had {before}, and this one has {now}; ask for the same, or begin anew elsewhere"
        );
        problems.push(RequestProblem::of(parameter, text));
    };
    if before.origin.store_absolute != now.origin.store_absolute {
        differs(Parameter::Store, &before.origin.store_absolute, &now.origin.store_absolute);
    }
    // A file of members may change; it must be the same file.
    let population = |request: &BTreeMap<String, String>, origin: &ExportOrigin| {
        let text = request.get("population").cloned().unwrap_or_default();
        match (&origin.population_file, text.rsplit_once(' ')) {
            (Some(file), Some((kind, _))) => format!("{kind} {file}"),
            (None, Some((kind, hash))) if hash.len() == 32 => kind.to_string(),
            _ => text,
        }
    };
    let (then, given) = (population(&before.request, &before.origin), population(&now.request, &now.origin));
    if then != given {
        differs(Parameter::Group, &then, &given);
    }
    let mut fields: Vec<&str> = before.request.keys().chain(now.request.keys()).map(String::as_str).collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields.into_iter().filter(|field| *field != "population" && !MAY_DIFFER.contains(field)) {
        if let Some((parameter, then, given)) = difference_of_value(field, &before.request, &now.request) {
            differs(parameter.unwrap_or(Parameter::Baseline), &then, &given);
        }
    }
    if before.snapshot.rules != now.snapshot.rules || before.snapshot.unproven != now.snapshot.unproven {
        differs(Parameter::Store, "an index of other choices", "one of its own");
    }
    if problems.is_empty() { Ok(()) } else { Err(RequestError { problems }) }
}
