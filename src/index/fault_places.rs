//! Where the faulty lines of a store are, as its index has them: file, line, byte and what is wrong, without any content.

use serde::Serialize;

use crate::casts::to_usize;
use crate::codec::compression::{Compression, FIRST_BYTES};
use crate::codec::zstd::{FRAME_HEADER_BYTES_MAX, Zstd};
use crate::count_text::counted;
use crate::error::IndexError;
use crate::extract::extractor::Extractor;
use crate::extract::facts::Content;
use crate::extract::fault::FaultKind;
use crate::extract::rules::{LineRules, LoneSurrogates};
use crate::ids::{FileId, SegmentId};
use crate::index::file_form::FileForm;
use crate::index::other_data::{FaultTotals, OtherData};
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
    /// Number of faulty lines that are told so: more than one where a file is told as a whole.
    pub lines: u64,
    /// Whether it stands for a file as a whole, which is no NDJSON.
    #[serde(skip)]
    pub is_whole_file: bool,
    /// The whole as a sentence.
    pub text: String,
}

/// Writes the kind of a fault by its name.
fn serialize_kind<S: serde::Serializer>(kind: &FaultKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.name())
}

/// What is wrong with the member or frame at an offset of a compressed file, if a look at its first bytes tells.
fn coding_problem(index: &Index, file: FileId, offset: u64) -> Option<String> {
    name_problem(index, file, offset).or_else(|| window_problem(index, file, offset))
}

/// What is wrong with the name of a compressed file whose first bytes are of something else, which an index of an earlier
/// version reads by its name.
fn name_problem(index: &Index, file: FileId, offset: u64) -> Option<String> {
    let known = index.compression(file);
    let source = index.source(file).ok().filter(|_| offset == 0)?;
    let mut buffer = Vec::new();
    let first = source.read(0, to_usize(source.len().min(FIRST_BYTES as u64)), &mut buffer).ok()?;
    let found = Compression::of_first_bytes(first, known);
    (found != known).then(|| {
        format!("the file is no {} file, though its name says so: it is {}; rename it", known.name(), found.noun())
    })
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

/// Numbers of faults by kind, as [`FaultKind::ALL`].
pub(crate) type FaultCounts = Vec<u64>;

/// The form of a file that is told as a whole, with the number of its faulty lines by kind: its first line is faulty, and
/// its first bytes tell what it is. `segments` are all of the file, in order.
fn told_form(index: &Index, segments: &[SegmentId]) -> Result<Option<(FileForm, FaultCounts)>, IndexError> {
    let first = index.segment(segments[0]);
    let begins_faulty = first.head().faulty > 0
        && index.entry(segments[0]).start == 0
        && first.verify_columns(&[Column::Fault])?.faults().next().is_some_and(|fault| fault.line == 0);
    let lines = segments.iter().map(|segment| index.segment(*segment).head().lines).sum();
    let form = begins_faulty.then(|| FileForm::of_file(index, index.file_of(segments[0]), lines)).flatten();
    let Some(form) = form else { return Ok(None) };
    let holds_rows = segments.iter().any(|segment| {
        let head = index.segment(*segment).head();
        head.lines > head.blank + head.faulty
    });
    if form.excludes_rows() && holds_rows {
        return Ok(None);
    }
    let mut counts = vec![0; FaultKind::ALL.len()];
    for segment in segments {
        let columns = index.segment(*segment).verify_columns(&[Column::FaultCount])?;
        columns.fault_count.iter().zip(&mut counts).for_each(|(count, sum)| *sum += count);
    }
    Ok(Some((form, counts)))
}

/// Passes the faults of segments, which come in store order, to `on_fault`: one by one, or those of a file at once whose
/// first bytes tell that it is no NDJSON ([`FileForm`]). Those of `other_data` are none. The index keeps the places of the
/// first [`SEGMENT_FAULTS_MAX`](crate::limits::SEGMENT_FAULTS_MAX) of a segment; of the others it keeps the number by kind.
/// Returns how many of each kind were passed on.
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub(crate) fn visit_faults(
    index: &Index,
    segments: impl Iterator<Item = SegmentId>,
    other_data: &[OtherData],
    on_fault: &mut dyn FnMut(FaultPlace),
) -> Result<FaultCounts, IndexError> {
    let segments: Vec<SegmentId> = segments.collect();
    let mut told = vec![0; FaultKind::ALL.len()];
    let (mut forms, mut surrogates) = (0, 0usize);
    for own in segments.chunk_by(|one, next| index.file_of(*one) == index.file_of(*next)) {
        let file = index.file_of(own[0]);
        let has_faults = own.iter().any(|segment| index.segment(*segment).head().faulty > 0);
        if !has_faults || other_data.binary_search_by_key(&file, |other| other.file).is_ok() {
            continue;
        }
        // Each look opens a file, which then stays open: the first ones are told so, the others line by line.
        let form = if forms < MESSAGES_PER_CAUSE_MAX { told_form(index, own)? } else { None };
        let Some((form, counts)) = form else {
            visit_lines(index, own, &mut told, &mut surrogates, on_fault)?;
            continue;
        };
        forms += 1;
        let (name, lines) = (index.file_name(file), counts.iter().sum());
        let kind = (0..counts.len()).find(|kind| counts[*kind] > 0).unwrap_or_default();
        let text = format!("{name}: {}; not read of it: {}", form.words(), counted(lines, "line"));
        counts.iter().zip(&mut told).for_each(|(count, sum)| *sum += count);
        let (file, kind) = (name.to_string(), FaultKind::ALL[kind]);
        on_fault(FaultPlace { file, line: 1, byte: 0, kind, lines, is_whole_file: true, text });
    }
    Ok(told)
}

/// Passes the faults of the segments of one file to `on_fault`, one by one, and counts them in `told`.
fn visit_lines(
    index: &Index,
    segments: &[SegmentId],
    told: &mut [u64],
    surrogates: &mut usize,
    on_fault: &mut dyn FnMut(FaultPlace),
) -> Result<(), IndexError> {
    let mut lines_before = 0;
    for segment in segments.iter().copied() {
        let (entry, own) = (index.entry(segment), index.file_of(segment));
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
                    *surrogates += 1;
                    // Those behind the first ones are only placed: each line is read again.
                    let range = byte..byte + u64::from(fault.length);
                    let is_named = *surrogates <= MESSAGES_PER_CAUSE_MAX;
                    let resource = is_named.then(|| resource_of_line(index, own, range)).flatten().unwrap_or_default();
                    format!("{name}: line {line} at byte {byte}{resource}: {kind} (byte {} of the line)", fault.at)
                }
                _ => format!("{name}: line {line} at byte {byte}: {kind} (byte {} of the line)", fault.at),
            };
            told[kind as usize] += 1;
            on_fault(FaultPlace { file: name.to_string(), line, byte, kind, lines: 1, is_whole_file: false, text });
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

/// Where the faulty lines of an index are.
pub(crate) struct FaultPlaces {
    /// The places that the index keeps, in store order.
    pub places: Vec<FaultPlace>,
    /// Numbers of the faults whose places it does not keep.
    pub unplaced: FaultCounts,
    /// The files without FHIR, whose lines are no faults.
    pub other_data: Vec<OtherData>,
}

/// All faults of an index.
///
/// # Errors
/// [`IndexError::Damaged`] when the index is.
pub(crate) fn list_faults(index: &Index) -> Result<FaultPlaces, IndexError> {
    let FaultTotals { by_kind, other_data } = FaultTotals::of(index)?;
    let mut places = Vec::new();
    let told = visit_faults(index, index.segment_ids(), &other_data, &mut |place| places.push(place))?;
    let unplaced = by_kind.iter().zip(told).map(|(all, told)| all.saturating_sub(told)).collect();
    Ok(FaultPlaces { places, unplaced, other_data })
}
