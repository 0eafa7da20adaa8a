//! Plan of an export: the rows of each output file, a pure function of selection and bounds, decided before anything is
//! written.
//!
//! A shard is a resource type, an ordinal and the first and last of its rows in store order, so a plan of a hundred
//! million rows stays as small as its list of files. Its rows are the selected ones of its type between the two.

#![deny(clippy::cast_possible_truncation)]

use crate::casts::to_u32;
use crate::codec::compression::Compression;
use crate::error::ExportError;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::subsetted::REDUCTION_BYTES_MAX;
use crate::ids::{RowAddress, ShardId};
use crate::index::snapshot::Snapshot;
use crate::issue::IssueLog;
use crate::policies::FileBounds;
use crate::request::ExportRequest;
use crate::select::attachments::{AttachmentCounts, AttachmentLinks, RowLinks, names_binaries};
use crate::select::cohort::Cohort;
use crate::select::deleted::Deletions;
use crate::select::ledger::Ledger;
use crate::select::member_changes::MemberChanges;
use crate::select::selection::Selection;
use crate::select::vanished::VanishedSelection;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// If at least one row in so many of a segment is exported, the columns that locate rows are verified as a whole: a
/// page holds as many rows, and consecutive pages are verified faster than the same number of scattered ones.
const DENSE_SHARE: usize = 128;

/// One output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The one type of its rows (FILE-01).
    pub resource_type: ResourceType,
    /// Number of the file within its type, from 1.
    pub ordinal: u32,
    /// Address of its first row.
    pub first: RowAddress,
    /// Address of its last row.
    pub last: RowAddress,
    /// Number of its rows.
    pub rows: u64,
    /// Its uncompressed bytes, including a newline after each row. Of rows that are changed on their way the most that they
    /// can be: those of the rows in the store, and [`Shard::growth`].
    pub bytes: u64,
    /// Bytes by which its rows may grow: by the tag of a type that `_elements` reduces (ELEM-03), by URLs of attachments that
    /// become absolute (ATTACH-02).
    pub growth: u64,
    /// Whether URLs of its rows become absolute.
    pub rewritten: bool,
}

impl Shard {
    /// A file without rows, to which its first row is about to be added.
    fn begin(resource_type: ResourceType, ordinal: u32, first: RowAddress) -> Shard {
        Shard { resource_type, ordinal, first, last: first, rows: 0, bytes: 0, growth: 0, rewritten: false }
    }
}

/// An export that is decided but not written.
pub struct Plan {
    /// The request it answers.
    pub request: ExportRequest,
    /// The output files by type name, then ordinal (MANIFEST-16).
    pub shards: Vec<Shard>,
    /// The exported rows, and the class of every other line.
    pub selection: Selection,
    /// The patients whose records are exported.
    pub cohort: Cohort,
    /// The deletions that are listed under `_since`, those of vanished resources included.
    pub deletions: Deletions,
    /// Resources that are gone from the store without a deletion.
    pub vanished: VanishedSelection,
    /// What is selected without `_since`, where the baseline's resources are known.
    pub(crate) whole: Option<Selection>,
    /// Names of the rows that are exported whatever their age, because a reader of the baseline lacks them, ascending; without
    /// those of members who joined.
    pub(crate) completed: Vec<String>,
    /// Who joined and left since the baseline; `None` without one that knows its members.
    pub(crate) member_changes: Option<MemberChanges>,
    /// The URLs that attachments get; `None` if they stay as they are.
    pub(crate) attachments: Option<AttachmentLinks>,
    /// How many attachments the rows have.
    pub(crate) attachment_counts: AttachmentCounts,
    /// Messages so far, such as members that did not resolve.
    pub messages: IssueLog,
    /// Name of the snapshot that the rows are from.
    pub snapshot_id: String,
}

/// Numbers of rows, bytes and files of one resource type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TypeTotal {
    /// Number of exported rows.
    pub rows: u64,
    /// Uncompressed bytes, including newlines; at most so many if rows are changed on their way.
    pub bytes: u64,
    /// Number of output files.
    pub files: u64,
}

/// Cuts the selected rows into shards, by type, then greedily in store order (FILE-12): a file takes rows as long as
/// its bounds hold, and a row longer than the bound is alone in its file. A row that `elements` reduces, or whose URLs of
/// `attachments` become absolute, counts as the longest that it can become, so that its file keeps the bounds.
///
/// # Errors
/// [`ExportError`] if the index is damaged.
pub(crate) fn cut_shards(
    snapshot: &Snapshot,
    selection: &Selection,
    bounds: FileBounds,
    elements: &ElementSelection,
    attachments: Option<&AttachmentLinks>,
) -> Result<Vec<Shard>, ExportError> {
    let mut done: Vec<Vec<Shard>> = vec![Vec::new(); ResourceType::COUNT];
    let added: Vec<u64> = ResourceType::all().map(|of_type| added_bytes(elements, of_type)).collect();
    let fits = |open: &Shard, rows: u64, bytes: u64| {
        let alone = open.rows == 0 && rows == 1;
        alone
            || open.bytes + bytes <= bounds.file_bytes
                && bounds.file_resources.is_none_or(|most| open.rows + rows <= most)
    };
    for segment_id in snapshot.segments() {
        let (segment, chosen) = (snapshot.index().segment(segment_id), &selection.rows[segment_id.index()]);
        let (header, count) = (segment.head(), chosen.count());
        // Of a store of many files, most segments have no row of a small export: they are not even opened.
        if count == 0 {
            continue;
        }
        let address = |row| RowAddress::of(segment_id, row);
        // 1. A segment of one type that is exported whole and fits into the open file is added by its header's sums.
        let only_type = header.only_type().filter(|_| count == segment.rows() && count > 0);
        let framed = snapshot.index().packed(snapshot.index().file_of(segment_id)).is_some();
        let links = attachments.filter(|_| count > 0);
        let links = match links {
            Some(links) if names_binaries(snapshot, segment_id)? => Some(links),
            _ => None,
        };
        let joined = only_type.filter(|_| links.is_none()).and_then(|only| {
            let shards = &mut done[only.index()];
            if shards.is_empty() {
                shards.push(Shard::begin(only, 1, address(0)));
            }
            let growth = header.rows * added[only.index()];
            let bytes = header.row_bytes + growth;
            shards.last_mut().filter(|open| fits(open, header.rows, bytes)).map(|open| (open, bytes, growth))
        });
        // 2. The writer reads locations of rows that are verified here: all at once if many rows are exported, else row
        // by row. A packed segment that is added whole needs none: its frames are copied, and if some of its rows must
        // be read after all, they are verified then.
        let dense = count * DENSE_SHARE >= segment.rows();
        if dense && !(framed && joined.is_some()) {
            segment.verify_copied(0..segment.rows())?;
        }
        if let Some((open, bytes, growth)) = joined {
            open.last = address(segment.rows() - 1);
            open.rows += header.rows;
            open.bytes += bytes;
            open.growth += growth;
            continue;
        }
        // 3. Otherwise row by row.
        let columns = segment.columns();
        for row in chosen.iter() {
            if !dense {
                segment.verify_copied(row..row + 1)?;
            }
            let resource_type = header.only_type().unwrap_or_else(|| columns.type_of(row));
            let links = links.map(|links| links.of_row(snapshot, address(row))).transpose()?;
            let links = links.filter(|links| !links.is_empty());
            let growth = added[resource_type.index()] + links.as_ref().map_or(0, RowLinks::growth);
            let bytes = u64::from(columns.length(row)) + 1 + growth;
            let shards = &mut done[resource_type.index()];
            if shards.last().is_none_or(|open| !fits(open, 1, bytes)) {
                shards.push(Shard::begin(resource_type, to_u32(shards.len() + 1), address(row)));
            }
            if let Some(open) = shards.last_mut() {
                open.last = address(row);
                open.rows += 1;
                open.bytes += bytes;
                open.growth += growth;
                open.rewritten |= links.is_some();
            }
        }
    }
    Ok(done.into_iter().flatten().collect())
}

/// Most bytes that each row of a type may grow by.
fn added_bytes(elements: &ElementSelection, of_type: ResourceType) -> u64 {
    if elements.reduces(of_type) { REDUCTION_BYTES_MAX } else { 0 }
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
    /// Numbers of rows, bytes and files of each type that has any, by type name.
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

    /// Number of rows of all files.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// Uncompressed bytes of all files; at most so many if any rows are changed on their way.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Bytes of the rows of all files as they are in the store, with a newline each.
    pub(crate) fn source_bytes(&self) -> u64 {
        self.shard_ids().map(|shard| self.source_bytes_of(shard)).sum()
    }

    /// Bytes of the rows of one file as they are in the store, with a newline each.
    pub(crate) fn source_bytes_of(&self, shard: ShardId) -> u64 {
        let Shard { bytes, growth, .. } = self.shard(shard);
        bytes - growth
    }

    /// The rows of one file, in their order.
    pub(crate) fn rows_of<'p>(
        &'p self,
        snapshot: &'p Snapshot,
        shard: ShardId,
    ) -> impl Iterator<Item = RowAddress> + use<'p> {
        let Shard { resource_type, first, last, .. } = *self.shard(shard);
        let index = snapshot.index();
        let segments = first.segment.through(last.segment).filter(move |segment| {
            snapshot.sees_segment(*segment) && index.segment(*segment).head().has_type(resource_type.index())
        });
        segments.flat_map(move |segment_id| {
            let (segment, selected) = (index.segment(segment_id), &self.selection.rows[segment_id.index()]);
            let start = if first.segment == segment_id { first.row.index() } else { 0 };
            let end = if last.segment == segment_id { last.row.index() + 1 } else { segment.rows() };
            let (is_mixed, columns) = (segment.head().only_type().is_none(), segment.columns());
            let is_of_type = move |row: &usize| !is_mixed || columns.type_of(*row) == resource_type;
            selected.range(start..end).filter(is_of_type).map(move |row| RowAddress::of(segment_id, row))
        })
    }

    /// The ledger: the lines of the snapshot by class.
    pub fn ledger(&self) -> &Ledger {
        &self.selection.ledger
    }

    /// The output files, in their order.
    pub(crate) fn shard_ids(&self) -> impl ExactSizeIterator<Item = ShardId> + use<> {
        (0..self.shards.len()).map(ShardId::of)
    }

    /// An output file.
    pub(crate) fn shard(&self, shard: ShardId) -> &Shard {
        &self.shards[shard.index()]
    }

    /// Name of the output file of a shard, given by its index in `shards`.
    pub fn file_name(&self, shard: usize) -> String {
        let Shard { resource_type, ordinal, .. } = &self.shards[shard];
        let of_type = self.shards.partition_point(|other| other.resource_type.index() <= resource_type.index());
        let last = self.shards[of_type.max(shard + 1) - 1].ordinal;
        shard_name(resource_type.name(), *ordinal, last.max(*ordinal), self.request.compression)
    }
}

/// The name that the plan gives shard number `ordinal` of the `files` of a stem, with the suffix of its compression:
/// `Patient.00001.ndjson.gz`, say; lines made here use it, too. All names of a stem have as many digits, so that they sort
/// by their numbers. No patient, Group or client id is in them (FILE-20).
pub(crate) fn shard_name(stem: &str, ordinal: u32, files: u32, compression: Compression) -> String {
    format!("{stem}.{ordinal:0digits$}.ndjson{}", compression.suffix(), digits = number_digits(files))
}

/// Digits of the numbers in the names of so many files: as many as the greatest needs, at least 5.
pub(crate) fn number_digits(files: u32) -> usize {
    files.checked_ilog10().map_or(1, |log| log as usize + 1).max(5)
}
