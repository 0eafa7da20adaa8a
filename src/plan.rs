//! Which file gets which rows: a pure function of selection and bounds, decided before anything is written.
//!
//! A shard is a resource type, an ordinal and the first and last of its rows in store order, so a plan of a hundred
//! million rows stays as small as its list of files. Its rows are the selected ones of its type between the two.

use crate::codec::compression::Compression;
use crate::error::CorruptIndex;
use crate::fhir::resource_type::ResourceType;
use crate::index::snapshot::Snapshot;
use crate::issue::IssueLog;
use crate::request::{ExportRequest, FileBounds};
use crate::select::cohort::Cohort;
use crate::select::deleted::Deletions;
use crate::select::ledger::Ledger;
use crate::select::selection::Selection;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One row in so many is wanted at least where places are proven as a whole: a page has as many, and pages that follow one
/// another are proven faster than as many that lie about.
const DENSE_SHARE: usize = 128;

/// A row's place: segment and row in it. Places order as the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowAddress {
    /// Number of the segment in the index.
    #[serde(rename = "extent")]
    pub segment: usize,
    /// Number of the row in the segment.
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
    pub first: RowAddress,
    /// Its last row.
    pub last: RowAddress,
    /// Its rows.
    pub rows: u64,
    /// Its uncompressed bytes, a newline after each row included.
    pub bytes: u64,
}

impl Shard {
    /// A file that begins with a row, which it does not hold yet.
    fn begin(resource_type: ResourceType, ordinal: u32, first: RowAddress) -> Shard {
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
    pub messages: IssueLog,
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

/// Cuts the selected rows into shards, greedily in store order (FILE-12): a file takes rows as long as its bounds
/// hold, and a row longer than the bound is alone in its file.
///
/// # Errors
/// [`Damaged`] when the index is.
pub(crate) fn cut_shards(
    snapshot: &Snapshot,
    selection: &Selection,
    bounds: FileBounds,
) -> Result<Vec<Shard>, CorruptIndex> {
    let mut done: Vec<Vec<Shard>> = vec![Vec::new(); ResourceType::COUNT];
    let fits = |open: &Shard, rows: u64, bytes: u64| {
        let alone = open.rows == 0 && rows == 1;
        alone
            || open.bytes + bytes <= bounds.file_bytes
                && bounds.file_resources.is_none_or(|most| open.rows + rows <= most)
    };
    for segment_id in snapshot.segments() {
        let (segment, chosen) = (&snapshot.index().segments()[segment_id], &selection.rows[segment_id]);
        let (head, count) = (segment.head(), chosen.count());
        let place = |row| RowAddress { segment: segment_id, row };
        // Rows of one type that are taken one and all, and fit into the file, need no look; nor do they when frames are
        // copied (who must look at some of their rows after all proves them then).
        let whole = head.only_type().filter(|_| count == segment.rows() && count > 0);
        let framed = snapshot.index().packed(snapshot.index().entry(segment_id).file).is_some();
        let joined = whole.and_then(|only| {
            let shards = &mut done[only.index()];
            if shards.is_empty() {
                shards.push(Shard::begin(only, 1, place(0)));
            }
            shards.last_mut().filter(|open| fits(open, head.rows, head.row_bytes))
        });
        // Whoever writes the other rows reads no more of the index than is proven here: at once where many are wanted.
        let dense = count * DENSE_SHARE >= segment.rows();
        if dense && !(framed && joined.is_some()) {
            segment.verify_copied(0..segment.rows())?;
        }
        if let Some(open) = joined {
            open.last = place(segment.rows() - 1);
            open.rows += head.rows;
            open.bytes += head.row_bytes;
            continue;
        }
        let columns = segment.columns();
        for row in chosen.iter() {
            if !dense {
                segment.verify_copied(row..row + 1)?;
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

/// How much there is of it, and of whom not a word.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Plan");
        shown.field("snapshot_id", &self.snapshot_id).field("request", &self.request).field("totals", &self.totals());
        shown.finish_non_exhaustive()
    }
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
        shard_name(shard.resource_type.name(), shard.ordinal, self.request.compression)
    }
}

/// Name of the `ordinal`th file of a stem: `Patient.00001.ndjson`, with the coding's suffix. No
/// patient, group or client id stands in a name (FILE-20).
pub(crate) fn shard_name(stem: &str, ordinal: u32, compression: Compression) -> String {
    format!("{stem}.{ordinal:05}.ndjson{}", compression.suffix())
}
