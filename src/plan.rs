//! Which file gets which rows: a pure function of selection and bounds, decided before anything is written.
//!
//! A shard is a resource type, an ordinal and the first and last of its rows in store order, so a plan of a hundred
//! million rows stays as small as its list of files. Its rows are the selected ones of its type between the two.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{ExportError, Problem, RequestError};
use crate::fhir::resource_type::ResourceType;
use crate::index::page_checksums::Damaged;
use crate::index::snapshot::Snapshot;
use crate::issue::{Advice, Code, Message, Messages, Parameter, Severity};
use crate::request::{Audience, Bounds, ExportRequest, Late, MissingLastUpdated, Population};
use crate::select::cohort::Cohort;
use crate::select::deleted::Deletions;
use crate::select::selection::{Ledger, Selection, foreign_owners};
use crate::sys::store_file::SourceError;
use crate::write::shard_name;

/// One row in so many is wanted at least where places are proven as a whole: a page has as many, and pages that follow one
/// another are proven faster than as many that lie about.
const DENSE_SHARE: usize = 128;

/// A row's place: extent and row in it. Places order as the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Number of the extent in the index.
    pub extent: usize,
    /// Number of the row in the extent.
    pub row: usize,
}

/// One output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The one type of its rows (FILE-01).
    pub resource_type: ResourceType,
    /// From 1 within the type.
    pub ordinal: u32,
    /// Its first row.
    pub first: Place,
    /// Its last row.
    pub last: Place,
    /// Its rows.
    pub rows: u64,
    /// Its uncompressed bytes, a newline after each row included.
    pub bytes: u64,
}

impl Shard {
    /// A file that begins with a row, which it does not hold yet.
    fn begin(resource_type: ResourceType, ordinal: u32, first: Place) -> Shard {
        Shard { resource_type, ordinal, first, last: first, rows: 0, bytes: 0 }
    }
}

/// An export, decided but not written.
pub struct Plan {
    /// The request it answers.
    pub request: ExportRequest,
    /// The output files by type name, then ordinal (MANIFEST-16).
    pub shards: Vec<Shard>,
    /// The rows taken.
    pub selection: Selection,
    /// Whose they are.
    pub cohort: Cohort,
    /// The deletions to list.
    pub deletions: Deletions,
    /// What did not resolve.
    pub messages: Messages,
    /// Name of the snapshot.
    pub snapshot_id: String,
}

/// Rows, bytes and files of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TypeTotal {
    /// Rows.
    pub rows: u64,
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// Plans an export: cohort, selection, shards. Runs on the current rayon pool; writes nothing.
///
/// # Errors
/// [`ExportError::Request`] with every problem of the request, and what fails in the store.
pub fn plan(snapshot: &Snapshot, request: &ExportRequest) -> Result<Plan, ExportError> {
    request.check()?;
    if let Some(since) = &request.since
        && since > snapshot.as_of()
    {
        let text = format!(
            "{since} is later than the transactionTime {}; nothing can have changed after it yet (SINCE-03)",
            snapshot.as_of()
        );
        return Err(RequestError::one(Problem::of(Parameter::Since, text)).into());
    }
    let mut cohort = Cohort::resolve(snapshot, request)?;
    let selection = Selection::new(snapshot, &cohort, request)?;
    let deletions = Deletions::new(snapshot, &cohort, request)?;
    let mut messages = std::mem::take(&mut cohort.messages);
    absent_members(snapshot, &cohort, &selection, &mut messages)?;
    let shards = cut(snapshot, &selection, request.bounds)?;
    open_sources(snapshot, &selection)?;
    Ok(Plan { request: request.clone(), shards, selection, cohort, deletions, messages, snapshot_id: snapshot.id() })
}

/// Cuts the selected rows into shards, greedily in store order (FILE-12): a file takes rows as long as its bounds
/// hold, and a row longer than the bound is alone in its file.
///
/// # Errors
/// [`Damaged`] when the index is.
pub fn cut(snapshot: &Snapshot, selection: &Selection, bounds: Bounds) -> Result<Vec<Shard>, Damaged> {
    let mut done: Vec<Vec<Shard>> = vec![Vec::new(); ResourceType::COUNT];
    let fits = |open: &Shard, rows: u64, bytes: u64| {
        let alone = open.rows == 0 && rows == 1;
        alone
            || open.bytes + bytes <= bounds.file_bytes
                && bounds.file_resources.is_none_or(|most| open.rows + rows <= most)
    };
    for extent in snapshot.extents() {
        let (this, chosen) = (&snapshot.index().extents()[extent], &selection.rows[extent]);
        let (head, count) = (this.head(), chosen.count());
        let place = |row| Place { extent, row };
        // Rows of one type that are taken one and all, and fit into the file, need no look; nor do they when frames are
        // copied (who must look at some of their rows after all proves them then).
        let whole = head.only_type().filter(|_| count == this.rows() && count > 0);
        let framed = snapshot.index().packed(snapshot.index().entry(extent).file).is_some();
        let joined = whole.and_then(|only| {
            let shards = &mut done[only.index()];
            if shards.is_empty() {
                shards.push(Shard::begin(only, 1, place(0)));
            }
            shards.last_mut().filter(|open| fits(open, head.rows, head.row_bytes))
        });
        // Whoever writes the other rows reads no more of the index than is proven here: at once where many are wanted.
        let dense = count * DENSE_SHARE >= this.rows();
        if dense && !(framed && joined.is_some()) {
            this.prove_copied(0..this.rows())?;
        }
        if let Some(open) = joined {
            open.last = place(this.rows() - 1);
            open.rows += head.rows;
            open.bytes += head.row_bytes;
            continue;
        }
        let columns = this.columns();
        for row in chosen.iter() {
            if !dense {
                this.prove_copied(row..row + 1)?;
            }
            let resource_type = head.only_type().unwrap_or_else(|| columns.type_of(row));
            let bytes = u64::from(columns.length(row)) + 1;
            let shards = &mut done[resource_type.index()];
            match shards.last_mut() {
                Some(open) if fits(open, 1, bytes) => {
                    open.last = place(row);
                    open.rows += 1;
                    open.bytes += bytes;
                }
                _ => {
                    let new = Shard::begin(resource_type, shards.len() as u32 + 1, place(row));
                    shards.push(Shard { rows: 1, bytes, ..new });
                }
            }
        }
    }
    Ok(done.into_iter().flatten().collect())
}

/// Opens the files that rows are taken from: what is replaced by rename from here on changes nothing for the export.
fn open_sources(snapshot: &Snapshot, selection: &Selection) -> Result<(), SourceError> {
    let index = snapshot.index();
    let taken = (0..selection.rows.len()).filter(|extent| !selection.rows[*extent].is_empty());
    let mut files: Vec<usize> = taken.map(|extent| index.entry(extent).file).collect();
    files.dedup();
    files.into_iter().try_for_each(|file| index.source(file).map(drop))
}

/// A member needs no current Patient row: its records are exported, and a warning names it (GROUP-06).
fn absent_members(
    snapshot: &Snapshot,
    cohort: &Cohort,
    selection: &Selection,
    messages: &mut Messages,
) -> Result<(), Damaged> {
    for patient in cohort.members.iter().filter(|patient| !selection.present.contains(*patient)) {
        let id = snapshot.index().patient_id(patient as u32)?;
        let text = format!(
            "Patient/{id} is asked for but has no current Patient resource in the store; its records were exported"
        );
        messages.push("member-without-patient", Message::warning(Code::NotFound, text));
    }
    Ok(())
}

/// What was decided by policy is said, with its count (OUTCOME-02, SINCE-04, DELETED-09).
///
/// A reader who may not have the whole store is told of its cohort and types alone (reading 24): what is counted over the
/// whole store only is left out for it.
///
/// # Errors
/// [`Damaged`] when the index is.
pub fn policy_messages(snapshot: &Snapshot, plan: &Plan, audience: Audience) -> Result<Messages, Damaged> {
    let Plan { request, selection, deletions, .. } = plan;
    let noticed = &selection.noticed;
    let sees_all = audience != Audience::BoundClient;
    let mut messages = Messages::default();
    let mut push = |cause, message| messages.push(cause, message);
    let tell = |severity, text: String| Message::new(severity, Code::Informational, text);
    if (request.since.is_some() || request.until.is_some()) && noticed.undated > 0 {
        let (done, advice) = match request.missing_last_updated {
            MissingLastUpdated::Include => ("exported whatever _since and _until say", None),
            MissingLastUpdated::Exclude => ("left out", Some(Advice::UndatedExcluded)),
        };
        let text = format!("{} resources without a usable meta.lastUpdated were {done}", noticed.undated);
        push("undated", Message { advice, ..tell(Severity::Information, text) });
    }
    if noticed.late > 0 {
        let (done, advice) = match request.late {
            Late::Include => ("were exported", None),
            Late::Report => ("were not exported", Some(Advice::LateReported)),
        };
        let text = format!(
            "{} resources came to the store after the export that _since names, though they are dated before it; they {done}",
            noticed.late
        );
        push("late", Message { advice, ..tell(Severity::Information, text) });
    }
    if noticed.illegal_updated > 0 && sees_all {
        let text = format!(
            "{} resources have a meta.lastUpdated that is no instant; it counts as none",
            noticed.illegal_updated
        );
        push("illegal-last-updated", tell(Severity::Warning, text));
    }
    let foreign = match (&request.population, audience) {
        (Population::System, _) => Vec::new(),
        (_, Audience::Operator) | (Population::AllPatients, Audience::Client) => noticed.foreign.clone(),
        _ => foreign_owners(snapshot, &plan.cohort, selection)?,
    };
    for (base, count) in foreign {
        let text =
            format!("{count} references to patients under the base {base} were taken for another server's patients");
        push("foreign-base", tell(Severity::Warning, text).advise(Advice::NameBase(base)));
    }
    if request.since.is_some() && deletions.entries == 0 {
        let text = "The store holds no DELETE entries, so deletions are not tracked: none can be listed".to_string();
        push("no-deletions", tell(Severity::Information, text));
    }
    if deletions.unknown > 0 && sees_all {
        let text = format!(
            "{} deletions of resources that the store never held are not listed: whose they were is not known",
            deletions.unknown
        );
        push("deleted-unknown", tell(Severity::Warning, text));
    }
    if deletions.undated > 0 && sees_all {
        let text = format!(
            "{} DELETE entries have no meta.lastUpdated; they count as older than everything and delete nothing",
            deletions.undated
        );
        push("deleted-undated", tell(Severity::Warning, text));
    }
    Ok(messages)
}

impl Plan {
    /// Rows, bytes and files of each type that has any.
    pub fn totals(&self) -> BTreeMap<&'static str, TypeTotal> {
        let mut totals: BTreeMap<&'static str, TypeTotal> = BTreeMap::new();
        for shard in &self.shards {
            let total = totals.entry(shard.resource_type.name()).or_default();
            total.rows += shard.rows;
            total.bytes += shard.bytes;
            total.files += 1;
        }
        totals
    }

    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// Uncompressed bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// The ledger of the snapshot's lines.
    pub fn ledger(&self) -> &Ledger {
        &self.selection.ledger
    }

    /// Name of a shard's file.
    pub fn file_name(&self, shard: usize) -> String {
        let shard = &self.shards[shard];
        shard_name(shard.resource_type.name(), shard.ordinal, self.request.coding)
    }
}
