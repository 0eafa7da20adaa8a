//! Attachments of exported rows: which Binaries the URLs in a row name, what the URLs become, and how much longer the row gets
//! (ATTACH-02). The other way round: which rows refer to a Binary.
//!
//! The index has for each row the Binaries that its URLs name, one entry for each URL. A row is read neither to plan an export
//! nor to find what refers to a Binary; only a versionId that is no number is read, from the Binary's row.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::casts::to_u8;
use crate::error::{CorruptIndex, ExportError};
use crate::fhir::attachment_url::{AttachmentPath, AttachmentUrls};
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::our_bases;
use crate::ids::{RecordId, RowAddress, SegmentId};
use crate::index::segment::columns::ReferenceName;
use crate::index::segment::layout::{Column, kind};
use crate::index::snapshot::{RowState, Snapshot};
use crate::key_set::resource_key::entity_hash;
use crate::request::ExportRequest;
use crate::select::binaries::{find_binary, numbered_version, version_in_head};
use crate::select::row_set::RowSet;

/// Numbers of URLs of attachments in the rows of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttachmentCounts {
    /// URLs that name a Binary relative to their server.
    pub(crate) relative: u64,
    /// Those of them that name no current Binary of the store.
    pub(crate) unknown: u64,
}

/// The attachments of an export's rows, and the URLs that they get.
pub(crate) struct AttachmentLinks {
    urls: AttachmentUrls,
    /// Whether each reference base of the index is ours: another's deletions delete nothing.
    ours: Vec<bool>,
    /// versionIds that are no numbers, of Binaries that the rows refer to.
    versions: HashMap<RowAddress, Option<Box<str>>>,
}

/// The Binaries that the URLs of one row name and that the store holds, each with its current versionId.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowLinks {
    /// Ids, ascending, each once.
    binaries: BTreeMap<Id, Option<String>>,
    /// Most bytes that the row grows by.
    growth: u64,
}

impl RowLinks {
    /// Whether no URL of the row changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.binaries.is_empty()
    }

    /// Most bytes that the row grows by.
    pub(crate) fn growth(&self) -> u64 {
        self.growth
    }
}

/// What relative URLs of attachments become in an export; `None` if they stay as they are.
pub(crate) fn attachment_urls(request: &ExportRequest) -> Option<AttachmentUrls> {
    let by_base = || request.base_url.as_ref().map(|base| AttachmentUrls::new(base, AttachmentPath::Plain));
    request.attachments.clone().or_else(by_base)
}

/// Counts the attachments of an export's rows; `rows` are those of each segment.
///
/// # Errors
/// [`ExportError`] if the index is damaged.
pub(crate) fn count_attachments(snapshot: &Snapshot, rows: &[RowSet]) -> Result<AttachmentCounts, ExportError> {
    let segments: Vec<SegmentId> = snapshot.segments().collect();
    let count = |segment: &SegmentId| -> Result<u64, ExportError> {
        let mut relative = 0;
        each_attachment(snapshot, *segment, &rows[segment.index()], &mut |_| {
            relative += 1;
            Ok(())
        })?;
        Ok(relative)
    };
    let relative = segments.par_iter().map(count).try_reduce(|| 0, |a, b| Ok(a + b))?;
    Ok(AttachmentCounts { relative, unknown: 0 })
}

/// Passes the number of each reference to a Binary to `visit`, as often as selected rows of a segment have it.
fn each_attachment(
    snapshot: &Snapshot,
    segment_id: SegmentId,
    rows: &RowSet,
    visit: &mut dyn FnMut(usize) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let segment = snapshot.index().segment(segment_id);
    if rows.is_empty() || !names_binaries(snapshot, segment_id)? {
        return Ok(());
    }
    let columns = segment.columns();
    for row in rows.iter() {
        for number in segment.row_references(row)? {
            if columns.reference_type_of(*number as usize) == ResourceType::BINARY {
                visit(*number as usize)?;
            }
        }
    }
    Ok(())
}

/// Whether a row of a segment refers to a Binary.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn names_binaries(snapshot: &Snapshot, segment: SegmentId) -> Result<bool, CorruptIndex> {
    let segment = snapshot.index().segment(segment);
    if segment.head().references == 0 {
        return Ok(false);
    }
    let columns = segment.verify_columns(&[Column::ReferenceType])?;
    Ok(memchr::memchr(to_u8(ResourceType::BINARY.index()), columns.reference_type).is_some())
}

impl AttachmentLinks {
    /// The attachments of an export's rows, and their counts. `fhir_bases` are the bases that are ours.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged, or a Binary that is referred to cannot be read.
    pub(crate) fn of(
        snapshot: &Snapshot,
        rows: &[RowSet],
        urls: AttachmentUrls,
        fhir_bases: &[String],
    ) -> Result<(AttachmentLinks, AttachmentCounts), ExportError> {
        let mut links = AttachmentLinks { urls, ours: our_bases(snapshot, fhir_bases), versions: HashMap::new() };
        let segments: Vec<SegmentId> = snapshot.segments().collect();
        let look_up = |segment: &SegmentId| -> Result<(AttachmentCounts, Vec<RowAddress>), ExportError> {
            let (mut counts, mut unnumbered) = (AttachmentCounts::default(), Vec::new());
            each_attachment(snapshot, *segment, &rows[segment.index()], &mut |number| {
                counts.relative += 1;
                match links.current(snapshot, *segment, number)? {
                    None => counts.unknown += 1,
                    Some(row) if numbered_version(snapshot, row)?.is_none() => unnumbered.push(row),
                    Some(_) => {}
                }
                Ok(())
            })?;
            Ok((counts, unnumbered))
        };
        let found: Vec<_> = segments.par_iter().map(look_up).collect::<Result<_, ExportError>>()?;
        let (mut counts, mut unnumbered) = (AttachmentCounts::default(), Vec::new());
        for (of_segment, rows) in found {
            counts.relative += of_segment.relative;
            counts.unknown += of_segment.unknown;
            unnumbered.extend(rows);
        }
        // In the order of the store, so that a compressed file is decoded from seek point to seek point.
        unnumbered.sort_unstable();
        unnumbered.dedup();
        for row in unnumbered {
            links.versions.insert(row, version_in_head(snapshot, row)?.map(String::into_boxed_str));
        }
        Ok((links, counts))
    }

    /// The row of the current version of the Binary that a reference of a segment names; `None` if there is none.
    fn current(
        &self,
        snapshot: &Snapshot,
        segment: SegmentId,
        reference: usize,
    ) -> Result<Option<RowAddress>, CorruptIndex> {
        let index = snapshot.index();
        let mut next = index.reference_head(segment, reference)?.checked_sub(1).map(RecordId);
        while let Some(record) = next {
            if index.is_row(record) {
                let row = index.locate(record);
                let state = snapshot.state(row, snapshot.as_of().as_ref(), &self.ours, &|_| true)?;
                if snapshot.sees_segment(row.segment) && state == RowState::Current {
                    return Ok(Some(row));
                }
            }
            next = index.global().next(record)?;
        }
        Ok(None)
    }

    /// What becomes of the URLs of a row.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged.
    pub(crate) fn of_row(&self, snapshot: &Snapshot, row: RowAddress) -> Result<RowLinks, ExportError> {
        let segment = snapshot.index().segment(row.segment);
        let mut links = RowLinks::default();
        for number in segment.row_references(row.row.index())? {
            let number = *number as usize;
            let columns = segment.reference(number)?;
            if columns.reference_type_of(number) != ResourceType::BINARY {
                continue;
            }
            let ReferenceName::Id(id) = columns.reference_name(number) else { continue };
            let Some(binary) = self.current(snapshot, row.segment, number)? else { continue };
            let version = match self.versions.get(&binary) {
                Some(version) => version.as_deref().map(str::to_string),
                None => numbered_version(snapshot, binary)?,
            };
            let new = self.urls.json_text(id.as_str(), version.as_deref()).len();
            // Escapes and a version that is named make what stands there longer, and so the growth smaller.
            links.growth += new.saturating_sub("Binary/".len() + id.as_str().len()) as u64;
            links.binaries.insert(id, version);
        }
        Ok(links)
    }

    /// The text that takes the place of a URL of a row, as it stands between quotes; `None` to leave it. A URL that names a
    /// version keeps it, if the store holds that.
    ///
    /// # Errors
    /// [`ExportError`] if the index is damaged, or a Binary that is referred to cannot be read.
    pub(crate) fn new_text(
        &self,
        snapshot: &Snapshot,
        links: &RowLinks,
        found: Reference<'_>,
    ) -> Result<Option<String>, ExportError> {
        let id = found.id();
        let Some(current) = links.binaries.get(&id) else { return Ok(None) };
        let version = match found.version {
            None => current.as_deref(),
            Some(named) if current.as_deref() == Some(named) => Some(named),
            Some(named) if find_binary(snapshot, &id, Some(named), &self.ours)?.is_some() => Some(named),
            Some(_) => return Ok(None),
        };
        Ok(Some(self.urls.json_text(found.id, version)))
    }
}

/// The current rows of a snapshot that refer to a Binary by the URL of an attachment, in store order. `ours` says of each
/// reference base of the index whether it is ours.
///
/// # Errors
/// [`CorruptIndex`] if a page that is read fails its checksum.
pub(crate) fn rows_that_refer_to(snapshot: &Snapshot, id: &Id, ours: &[bool]) -> Result<Vec<RowAddress>, CorruptIndex> {
    let hash = entity_hash(ResourceType::BINARY, id.as_bytes());
    let mut rows = Vec::new();
    for segment_id in snapshot.segments() {
        let segment = snapshot.index().segment(segment_id);
        if segment.head().references == 0 {
            continue;
        }
        let mut numbers = Vec::new();
        for reference in segment.references_of_hash(hash)? {
            let number = reference & !kind::MASK;
            if reference & kind::MASK != kind::REFERENCE {
                continue;
            }
            let columns = segment.reference(number as usize)?;
            if columns.reference_type_of(number as usize) == ResourceType::BINARY
                && columns.reference_name(number as usize) == ReferenceName::Id(*id)
            {
                numbers.push(number);
            }
        }
        if numbers.is_empty() {
            continue;
        }
        let columns = segment.reference_sets()?;
        let has_reference: Vec<bool> = columns
            .set_start
            .windows(2)
            .map(|set| columns.set_reference[set[0] as usize..set[1] as usize].iter().any(|of| numbers.contains(of)))
            .collect();
        for (row, set) in columns.reference_set.iter().enumerate() {
            let address = RowAddress::of(segment_id, row);
            if has_reference[*set as usize]
                && snapshot.state(address, snapshot.as_of().as_ref(), ours, &|_| true)? == RowState::Current
            {
                rows.push(address);
            }
        }
    }
    Ok(rows)
}
