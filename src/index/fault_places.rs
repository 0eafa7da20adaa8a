//! Where the faulty lines of a store are, as its index has them: file, line, byte and what is wrong, without any content.

use serde::Serialize;

use crate::codec::compression::Compression;
use crate::codec::zstd::{FRAME_HEADER_BYTES_MAX, Zstd};
use crate::count_text::counted;
use crate::error::IndexError;
use crate::extract::extractor::Extractor;
use crate::extract::facts::Content;
use crate::extract::fault::FaultKind;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::ids::{FileId, SegmentId};
use crate::index::row_reader::stream_range;
use crate::index::segment::layout::Column;
use crate::index::snapshot::Index;
use crate::limits::MESSAGES_PER_CAUSE_MAX;
use crate::simd::Kernel;
use std::ops::Range;

/// A faulty line. Its fields are keys of the JSON documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FaultPlace {
    /// Name of the file in the store.
    pub file: String,
    /// Number of the line in the file, from 1.
    pub line: u64,
    /// Offset of the line in the uncompressed file.
    pub byte: u64,
    /// Kind of the fault.
    #[serde(serialize_with = "serialize_kind")]
    pub kind: FaultKind,
    /// The whole as a sentence.
    pub text: String,
}

/// Writes the kind of a fault by its name.
fn serialize_kind<S: serde::Serializer>(kind: &FaultKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.name())
}

/// First bytes of gzip members (RFC 1952) and zstd frames (RFC 8878), skippable ones aside.
const MAGIC: [(Compression, &[u8]); 2] = [(Compression::Gzip, b"\x1f\x8b"), (Compression::Zstd, b"\x28\xb5\x2f\xfd")];

/// What is wrong with the member or frame at an offset of a compressed file, if a look at its first bytes tells.
fn coding_problem(index: &Index, file: FileId, offset: u64) -> Option<String> {
    name_problem(index, file, offset).or_else(|| window_problem(index, file, offset))
}

/// What is wrong with the name of a compressed file whose first bytes are of something else.
fn name_problem(index: &Index, file: FileId, offset: u64) -> Option<String> {
    let named = index.compression(file);
    let source = index.source(file).ok().filter(|source| offset == 0 && source.len() >= 4)?;
    let mut buffer = Vec::new();
    let first = source.read(0, 4, &mut buffer).ok()?;
    let found = MAGIC.iter().find(|(_, magic)| first.starts_with(magic)).map(|(compression, _)| *compression);
    let is = match found {
        Some(compression) if compression == named => return None,
        Some(compression) => format!("it is {}", compression.name()),
        None if first.starts_with(b"{") || first.starts_with(b"\xef\xbb\xbf") => {
            "it begins like plain NDJSON".to_string()
        }
        None => return None,
    };
    Some(format!("the file is no {} file, though its name says so: {is}; rename it", named.name()))
}

/// What is wrong with the zstd frame at an offset of a file, if it is that its window is larger than is taken. The index keeps
/// no reason beside the kind of a fault, so the header of the frame is read again.
fn window_problem(index: &Index, file: FileId, offset: u64) -> Option<String> {
    if index.compression(file) != Compression::Zstd {
        return None;
    }
    // A file that cannot be read is named by what needs it.
    let source = index.source(file).ok()?;
    let len = source.len().checked_sub(offset)?.min(FRAME_HEADER_BYTES_MAX as u64);
    let mut buffer = Vec::new();
    Zstd::window_problem(source.read(offset, usize::try_from(len).ok()?, &mut buffer).ok()?)
}

/// Passes the faults of segments, which come in store order, to `on_fault`. The index keeps the places of the first
/// [`SEGMENT_FAULTS_MAX`](crate::limits::SEGMENT_FAULTS_MAX) of a segment; of the others it keeps the number by kind.
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub(crate) fn visit_faults(
    index: &Index,
    segments: impl Iterator<Item = SegmentId>,
    on_fault: &mut dyn FnMut(FaultPlace),
) -> Result<(), IndexError> {
    let (mut file, mut lines_before, mut surrogates) = (None, 0, 0);
    for segment in segments {
        let (entry, own) = (index.entry(segment), index.file_of(segment));
        if file != Some(own) {
            (file, lines_before) = (Some(own), 0);
        }
        let lines = index.segment(segment).head().lines;
        if index.segment(segment).head().faulty == 0 {
            lines_before += lines;
            continue;
        }
        for fault in index.segment(segment).verify_columns(&[Column::Fault])?.faults() {
            let (kind, name) = (fault.kind, index.file_name(own));
            let line = lines_before + u64::from(fault.line) + 1;
            let byte = entry.start + u64::from(fault.offset);
            let text = match kind {
                FaultKind::DamagedFrame => {
                    let frame = index.restart_before(own, byte).compressed;
                    let rows = counted(u64::from(fault.at), "row");
                    format!("{name}: line {line} at byte {byte}, frame at byte {frame} of the file, {rows}: {kind}")
                }
                FaultKind::Unproven => {
                    let member = index.restart_before(own, byte + u64::from(fault.at)).compressed;
                    let end = byte + u64::from(fault.length);
                    match coding_problem(index, own, member) {
                        Some(problem) => format!(
                            "{name}: from line {line} on, from byte {member} of the file: {problem}; none of its lines is \
                             exported, nor what stands behind it"
                        ),
                        None => format!(
                            "{name}: from line {line} on, bytes {byte} to {end} uncompressed, from byte {member} of the file: {kind}"
                        ),
                    }
                }
                FaultKind::Damaged => {
                    let frame = index.restart_before(own, byte + u64::from(fault.at)).compressed;
                    match coding_problem(index, own, frame) {
                        Some(problem) => format!(
                            "{name}: line {line} at byte {byte}, from byte {frame} of the file: {problem}; what stands behind \
                             is not exported"
                        ),
                        None => format!("{name}: line {line} at byte {byte}: {kind} (byte {} of the line)", fault.at),
                    }
                }
                FaultKind::LoneSurrogate => {
                    surrogates += 1;
                    // Those behind the first ones are only placed: each line is read again.
                    let range = byte..byte + u64::from(fault.length);
                    let is_named = surrogates <= MESSAGES_PER_CAUSE_MAX;
                    let resource = is_named.then(|| resource_of_line(index, own, range)).flatten().unwrap_or_default();
                    format!("{name}: line {line} at byte {byte}{resource}: {kind} (byte {} of the line)", fault.at)
                }
                _ => format!("{name}: line {line} at byte {byte}: {kind} (byte {} of the line)", fault.at),
            };
            on_fault(FaultPlace { file: name.to_string(), line, byte, kind, text });
        }
        lines_before += lines;
    }
    Ok(())
}

/// Type and id of the resource on a faulty line, for a message, as if the line had no halves of surrogate pairs; `None` if it
/// cannot be read again.
fn resource_of_line(index: &Index, file: FileId, range: Range<u64>) -> Option<String> {
    let rules = LineRules { lone_surrogates: LoneSurrogates::Pass, ..index.generation().rules };
    let mut extractor = Extractor::new(Kernel::detect(), rules);
    extractor.begin();
    stream_range(index, file, range, &mut |piece| extractor.feed(piece)).ok()?;
    let facts = extractor.finish().ok()?;
    let id = facts.id.filter(|_| facts.content == Content::Resource)?;
    Some(format!(", {}/{id}", facts.resource_type.name()))
}

/// All faults of an index, and for each kind (as [`FaultKind::ALL`]) the number of those whose places it does not keep.
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub(crate) fn list_faults(index: &Index) -> Result<(Vec<FaultPlace>, Vec<u64>), IndexError> {
    let totals = index.global().totals()?;
    let mut unplaced: Vec<u64> = (0..FaultKind::ALL.len()).map(|kind| totals.faults(kind)).collect();
    let mut places = Vec::new();
    visit_faults(index, index.segment_ids(), &mut |place| {
        unplaced[place.kind as usize] = unplaced[place.kind as usize].saturating_sub(1);
        places.push(place);
    })?;
    Ok((places, unplaced))
}
