//! Compaction: adjacent small segments of a store file are scanned again as one, so that an index of many small appends
//! is not larger and slower than one that was built at once.
//!
//! Segments are joined by size, as log-structured stores do. Tier 0 are those of less than [`TINY_BYTES`] of the store;
//! each tier above is [`FAN`] times as large. A run of adjacent segments of a tier and lower ones that has [`FAN`] of the
//! tier becomes one segment, which mostly is of the next tier; of tier 0 a run of two does. So after n equal appends a file
//! has fewer than `FAN` segments of each tier, about `FAN * log_FAN(bytes / TINY_BYTES)` in all, and each byte was scanned again once
//! for each tier that it passed; beside these, a refresh scans at most `TINY_BYTES` and one append of tier 0 again. Tier 0
//! is joined at once because a segment has some 2 kB beside its rows: of tiny ones they would be most of the index.
//! Segments of half the full size and more stay as they are.
//!
//! Segments are joined when the index changes for another reason. Only bytes that were just proven to be those indexed are
//! joined. The rows are the same rows afterwards, each with its first-seen time: no row becomes late, and none is gone.

use std::ops::Range;

use crate::casts::{to_u32, to_usize};
use crate::codec::compression::{Compression, SeekPoint};
use crate::error::{CorruptIndex, IndexError};
use crate::ids::EntryId;
use crate::index::diff::{DroppedSegment, JoinedSegments, StoreDiff, byte_at, is_untouched};
use crate::index::global::append::SegmentOrigin;
use crate::index::meta::{FileEntry, IndexMeta, SegmentMeta};
use crate::index::row_times::{JoinedPart, RowTimes, TimeRun, joined_runs};
use crate::index::segment::layout::{BASE_BITS, Column};
use crate::index::segment::reader::Segment;
use crate::index::segment::scan::WrittenSegment;
use crate::index::segment::span::{RangeKind, ScanRange};
use crate::index::store_files::StoreFiles;
use crate::limits::{SEGMENT_BYTES, SEGMENT_ROWS_MAX};

/// Segments of one tier that are joined, and the ratio of tiers. A larger one scans bytes less often, and leaves more
/// segments: with 4 an index is at most twice a fresh one.
pub(crate) const FAN: usize = 4;

/// Bytes of the store below which a segment is joined with any neighbour as small.
const TINY_BYTES: u64 = 32 << 10;

/// The size of a segment, as it decides on joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentSize {
    /// Bytes of the store file (uncompressed).
    pub bytes: u64,
    /// Rows, DELETE entries and targets.
    pub elements: u64,
}

impl SegmentSize {
    /// Whether a segment is never joined.
    fn is_full(self) -> bool {
        self.bytes >= SEGMENT_BYTES / 2 || self.elements >= SEGMENT_ROWS_MAX as u64 / 2
    }

    /// The size of both together; `None` if one segment cannot hold them.
    fn joined(self, other: SegmentSize) -> Option<SegmentSize> {
        let sum = SegmentSize { bytes: self.bytes + other.bytes, elements: self.elements + other.elements };
        (sum.bytes <= SEGMENT_BYTES && sum.elements < SEGMENT_ROWS_MAX as u64).then_some(sum)
    }
}

/// Tier of something of so many bytes: 0 below `least`, one more for each factor [`FAN`] from there.
pub(crate) fn tier_of(bytes: u64, least: u64) -> u32 {
    (bytes / least).checked_ilog(FAN as u64).map_or(0, |power| power + 1)
}

/// Which of adjacent segments are joined: ranges of two and more of them, ascending and apart. Joining what was joined
/// gives nothing.
pub(crate) fn joins(sizes: &[SegmentSize]) -> Vec<Range<usize>> {
    let mut items: Vec<(Range<usize>, SegmentSize)> =
        sizes.iter().enumerate().map(|(i, size)| (i..i + 1, *size)).collect();
    for tier in 0..=tier_of(SEGMENT_BYTES / 2, TINY_BYTES) {
        let own_tier = |item: &(Range<usize>, SegmentSize)| tier_of(item.1.bytes, TINY_BYTES);
        let fits = |item: &(Range<usize>, SegmentSize)| !item.1.is_full() && own_tier(item) <= tier;
        // Lower ones stand between those of the tier; they count only when they are more than appends alone leave.
        let least = if tier == 0 { 2 } else { FAN };
        let most = FAN * (tier as usize + 1);
        let mut next: Vec<(Range<usize>, SegmentSize)> = Vec::with_capacity(items.len());
        for run in items.chunk_by(|a, b| fits(a) && fits(b)) {
            let of_tier = run.iter().filter(|item| fits(item) && own_tier(item) == tier).count();
            if of_tier < least && run.len() < most {
                next.extend_from_slice(run);
                continue;
            }
            let mut open = run[0].clone();
            for (range, size) in &run[1..] {
                match open.1.joined(*size) {
                    Some(sum) => open = (open.0.start..range.end, sum),
                    None => next.push(std::mem::replace(&mut open, (range.clone(), *size))),
                }
            }
            next.push(open);
        }
        items = next;
    }
    items.into_iter().map(|(range, _)| range).filter(|range| range.len() > 1).collect()
}

/// Takes kept segments that are to be joined out of `changes`, and has their ranges scanned. `known` is the index meta
/// that the kept segments are numbered by, `times` has its first-seen times of rows.
///
/// # Errors
/// When a store file cannot be read.
pub(crate) fn join_segments(
    changes: &mut StoreDiff,
    files: &StoreFiles,
    known: &IndexMeta,
    times: &RowTimes,
) -> Result<(), IndexError> {
    let mut joined: Vec<(Range<usize>, ScanRange)> = Vec::new();
    let mut first = 0;
    for entries in changes.meta.segments.chunk_by(|a, b| a.file == b.file) {
        let numbers = first..first + entries.len();
        first = numbers.end;
        // Most files have one segment.
        if entries.len() > 1 {
            let entry = &known.files[known.segments[changes.origins[numbers.start]].file.index()];
            joined.extend(file_joins(changes, numbers, entry, files)?);
        }
    }
    let mut joined = joined.into_iter().peekable();
    let (entries, segments) = (std::mem::take(&mut changes.meta.segments), std::mem::take(&mut changes.segments));
    let origins = std::mem::take(&mut changes.origins);
    for (i, ((entry, segment), origin)) in entries.into_iter().zip(segments).zip(origins).enumerate() {
        let range = joined.peek().filter(|(range, _)| range.contains(&i)).map(|(range, _)| range.clone());
        let Some(range) = range else {
            changes.meta.segments.push(entry);
            changes.segments.push(segment);
            changes.origins.push(origin);
            continue;
        };
        let file = &known.files[known.segments[origin].file.index()];
        let part = DroppedSegment {
            file: Some(entry.file),
            old_name: file.name.clone(),
            old_stamp: file.stamp,
            segment: Some(segment),
            is_excluded: false,
            first_seen: entry.first_seen,
            runs: times.runs(origin).to_vec(),
        };
        if i == range.start {
            changes.joined.push(JoinedSegments {
                file: entry.file,
                start: entry.start,
                end: entry.end,
                origins: origin..origin,
                parts: Vec::new(),
            });
        }
        let own = changes.joined.last_mut().expect("pushed with its first part");
        (own.origins.end, own.end) = (origin + 1, entry.end);
        own.parts.push(part);
        if i + 1 == range.end {
            let (_, span) = joined.next().expect("it was peeked");
            if let RangeKind::Plain { range, .. } = &span.part {
                own.end = range.end;
            }
            changes.spans.push(span);
        }
    }
    Ok(())
}

/// The joins of the kept segments `numbers` of one file, `entry` in the previous index meta, with the range to scan of
/// each.
fn file_joins(
    changes: &StoreDiff,
    numbers: Range<usize>,
    entry: &FileEntry,
    files: &StoreFiles,
) -> Result<Vec<(Range<usize>, ScanRange)>, IndexError> {
    let file = changes.meta.segments[numbers.start].file;
    let compression = files.compression(file);
    let size = |i: &usize| {
        let (entry, head) = (&changes.meta.segments[*i], changes.segments[*i].head());
        SegmentSize { bytes: entry.end - entry.start, elements: head.rows + head.tombstones + head.targets }
    };
    let sizes: Vec<SegmentSize> = numbers.clone().map(|i| size(&i)).collect();
    if joins(&sizes).is_empty() || compression != Compression::None && !entry.appendable {
        return Ok(Vec::new());
    }
    // 1. Chains of segments that follow one another without a gap, each with the place where decoding can start.
    let mut chains: Vec<Vec<(usize, SeekPoint)>> = vec![Vec::new()];
    for i in numbers {
        let own = &changes.meta.segments[i];
        let start = seek_point(&changes.segments[i], own, compression);
        let follows = chains.last().and_then(|chain| chain.last()).is_some_and(|(before, _)| {
            let before_end = end_with_newline(files, &changes.meta.segments[*before]);
            changes.origins[*before] + 1 == changes.origins[i] && before_end.is_ok_and(|end| end == Some(own.start))
        });
        match start {
            Some(start) if follows => chains.last_mut().expect("one at least").push((i, start)),
            Some(start) => chains.push(vec![(i, start)]),
            None => chains.push(Vec::new()),
        }
    }
    // 2. The joins of each chain, if the file still has the bytes.
    let mut found = Vec::new();
    for mut chain in chains {
        // The last line is not whole while it is the last.
        let last = chain.last().map(|(i, _)| &changes.meta.segments[*i]);
        if last.is_some_and(|last| !matches!(end_with_newline(files, last), Ok(Some(_)))) {
            chain.pop();
        }
        let sizes: Vec<SegmentSize> = chain.iter().map(|(i, _)| size(i)).collect();
        for range in joins(&sizes) {
            let (first, from) = chain[range.start];
            let own = first..first + range.len();
            let entries = &changes.meta.segments[own.clone()];
            let end = end_with_newline(files, &entries[range.len() - 1])?.unwrap_or(entries[range.len() - 1].end);
            let part = match compression {
                Compression::None => RangeKind::Plain { range: entries[0].start..end, tail: false },
                compression => RangeKind::Compressed { compression, from, cuts: Vec::new(), to: Some(end) },
            };
            found.push((own, ScanRange { file, part }));
        }
    }
    // 3. A touched file was read by the comparison; an untouched one is now.
    let is_proven = found.is_empty() || !is_untouched(files, file, entry) || {
        let source = files.source(file)?;
        match compression {
            Compression::None => {
                let mut parts = found.iter().flat_map(|(range, _)| &changes.meta.segments[range.clone()]);
                parts.try_fold(true, |same, part| {
                    let is_there = part.end <= source.len();
                    Ok::<bool, IndexError>(
                        same && is_there && source.content_hash(part.start..part.end)? == part.content,
                    )
                })?
            }
            _ => source.content_hash(0..source.len())? == entry.raw,
        }
    };
    Ok(if is_proven { found } else { Vec::new() })
}

/// Where decoding can start for a segment: its start in a plain file, a seek point there in a compressed one; `None`
/// when there is none.
fn seek_point(segment: &Segment, entry: &SegmentMeta, compression: Compression) -> Option<SeekPoint> {
    if compression == Compression::None {
        return Some(SeekPoint { compressed: entry.start, uncompressed: entry.start });
    }
    let (pairs, _) = segment.verify_columns(&[Column::Restart]).ok()?.restart.as_chunks::<2>();
    let own = pairs.iter().find(|[uncompressed, _]| *uncompressed == entry.start);
    own.map(|[uncompressed, compressed]| SeekPoint { compressed: *compressed, uncompressed: *uncompressed })
}

/// End of a segment; with the newline that came later if it is a last line that was indexed without one, `None` while
/// it has none.
fn end_with_newline(files: &StoreFiles, entry: &SegmentMeta) -> Result<Option<u64>, IndexError> {
    Ok(match entry.tail {
        false => Some(entry.end),
        true => (byte_at(files.source(entry.file)?, entry.end)? == Some(b'\n')).then_some(entry.end + 1),
    })
}

/// What a joined segment takes over from its parts.
pub(crate) struct JoinedFacts {
    /// First-seen time of the segment: the latest of its rows.
    pub first_seen: Option<i64>,
    /// First-seen times of its rows and DELETE entries.
    pub runs: Vec<TimeRun>,
    /// Where its records come from.
    pub origin: SegmentOrigin,
}

/// Which of `joined` the segment `new` is, by its range, and what it takes over from its parts. `None` if it is none of
/// them, or does not hold exactly their records: the file was changed between the comparison and the scan.
pub(crate) fn joined_facts(
    joined: &[JoinedSegments],
    new: &WrittenSegment,
    segment: &Segment,
) -> Option<(usize, JoinedFacts)> {
    let number = joined.binary_search_by_key(&(new.file, new.start), |one| (one.file, one.start)).ok()?;
    let joined = joined.get(number).filter(|joined| joined.end == new.end)?;
    let parts: Vec<(&DroppedSegment, &Segment)> =
        joined.parts.iter().map(|part| Some((part, part.segment.as_ref()?))).collect::<Option<_>>()?;
    let owners = same_records(&parts, segment).ok()??;
    let times = || parts.iter().map(|(part, _)| part.first_seen);
    let first_seen = times().collect::<Option<Vec<i64>>>().and_then(|times| times.into_iter().max());
    let counted: Vec<JoinedPart<'_>> = parts
        .iter()
        .map(|(part, segment)| ((segment.rows(), segment.tombstones()), &part.runs[..], part.first_seen))
        .collect();
    let runs = joined_runs(&counted, first_seen);
    let origin = SegmentOrigin { old: joined.origins.clone(), owners };
    Some((number, JoinedFacts { first_seen, runs, origin }))
}

/// Whether a segment has exactly the rows, DELETE entries, targets and owners of `parts`, in their order: then for each
/// part the numbers of its owners in the segment.
fn same_records(parts: &[(&DroppedSegment, &Segment)], new: &Segment) -> Result<Option<Vec<Vec<u32>>>, CorruptIndex> {
    const READ: [Column; 10] = [
        Column::LineHash,
        Column::TombType,
        Column::TombId,
        Column::TombBase,
        Column::TombUpdated,
        Column::OwnerHash,
        Column::OwnerId,
        Column::OwnerBase,
        Column::Base,
        Column::Heap,
    ];
    let whole = new.verify_columns(&READ)?;
    let (mut row, mut entry, mut targets) = (0, 0, 0);
    let mut owners = Vec::with_capacity(parts.len());
    for (_, part) in parts {
        let own = part.verify_columns(&READ)?;
        let rows = whole.line_hash.get(row..row + own.line_hash.len());
        let entries = entry..entry + part.tombstones();
        if rows != Some(own.line_hash) || entries.end > new.tombstones() {
            return Ok(None);
        }
        let is_same = |(i, k): (EntryId, EntryId)| {
            let base = |base: u32| (base & BASE_BITS) as usize;
            own.tombstone_of(i) == whole.tombstone_of(k)
                && own.tomb_updated[i.index()] == whole.tomb_updated[k.index()]
                && own.base_text(base(own.tomb_base[i.index()])) == whole.base_text(base(whole.tomb_base[k.index()]))
        };
        if !part.entry_ids().zip(entries.clone().map(EntryId::of)).all(is_same) {
            return Ok(None);
        }
        let number = |owner: usize| {
            let hash = own.owner_hash[owner];
            let first = whole.owner_hash.partition_point(|known| *known < hash);
            let base = |base: u32| (base & BASE_BITS) as usize;
            let text = own.base_text(base(own.owner_base[owner]));
            let mut same = (first..whole.owner_hash.len()).take_while(|k| whole.owner_hash[*k] == hash);
            same.find(|k| whole.base_text(base(whole.owner_base[*k])) == text && own.same_owner_id(owner, &whole, *k))
        };
        let numbers: Option<Vec<u32>> = (0..own.owner_hash.len()).map(|owner| number(owner).map(to_u32)).collect();
        let Some(numbers) = numbers else { return Ok(None) };
        owners.push(numbers);
        row += own.line_hash.len();
        entry = entries.end;
        targets += to_usize(part.head().targets);
    }
    let counted = (row, entry, targets) == (new.rows(), new.tombstones(), to_usize(new.head().targets));
    // Every owner of the segment is one of a part.
    let mut named = vec![false; whole.owner_hash.len()];
    owners.iter().flatten().for_each(|owner| named[*owner as usize] = true);
    Ok((counted && named.iter().all(|named| *named)).then_some(owners))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Joins sizes as [`joins`] says; the bytes that are scanned again are added to `rescanned`.
    fn join(sizes: &[SegmentSize], rescanned: &mut u64) -> Vec<SegmentSize> {
        let (mut after, mut next) = (Vec::new(), 0);
        for range in joins(sizes) {
            assert!(next <= range.start && range.len() > 1);
            after.extend_from_slice(&sizes[next..range.start]);
            let sum = sizes[range.clone()].iter().copied().reduce(|a, b| a.joined(b).expect("it fits one segment"));
            *rescanned += sum.unwrap().bytes;
            after.extend(sum);
            next = range.end;
        }
        after.extend_from_slice(&sizes[next..]);
        after
    }

    /// After equal appends of any size few segments remain, and each byte was scanned again once a tier at most, beside
    /// the tiny segments of each refresh.
    #[test]
    fn equal_appends_leave_few_segments() {
        for (bytes, count) in [(150u64, 40_000u64), (9_000, 20_000), (40_000, 8_000), (1 << 20, 400), (7 << 20, 60)] {
            let one = SegmentSize { bytes, elements: 1 };
            let (mut sizes, mut rescanned): (Vec<SegmentSize>, u64) = Default::default();
            for number in 1..=count {
                let mut own = 0;
                sizes = join(&sizes, &mut own);
                sizes.push(one);
                let tiny = if bytes < TINY_BYTES { TINY_BYTES + bytes } else { 0 };
                rescanned += own.saturating_sub(tiny);
                let all = number * bytes;
                let tiers = u64::from(tier_of(all.min(SEGMENT_BYTES), TINY_BYTES)) + 1;
                let full = 4 * all / SEGMENT_BYTES;
                assert!(sizes.len() as u64 <= (FAN as u64 - 1) * tiers + 2 + full, "{bytes} {number}: {}", sizes.len());
                assert!(rescanned <= all * tiers, "{bytes} {number}: {rescanned}");
            }
            assert_eq!(sizes.iter().map(|size| size.bytes).sum::<u64>(), bytes * count);
        }
    }

    /// An index of an earlier version, of which no segment was ever joined, is joined at once.
    #[test]
    fn thousands_of_segments_become_few() {
        let sizes = vec![SegmentSize { bytes: 200, elements: 1 }; 8000];
        assert_eq!(joins(&sizes).as_slice(), std::slice::from_ref(&(0..8000)));
        let sizes = vec![SegmentSize { bytes: 9 << 20, elements: 1 }; 8];
        assert_eq!(joins(&sizes), [0..3, 3..6, 6..8]);
        assert!(joins(&[SegmentSize { bytes: 20 << 20, elements: 1 }; 8]).is_empty(), "they are near the full size");
        assert!(joins(&[SegmentSize { bytes: 100, elements: SEGMENT_ROWS_MAX as u64 }; 8]).is_empty());
    }

    proptest! {
        /// Of any sizes at most twice as many segments remain as a fresh index has, but for a few of each tier; what was
        /// joined is not joined again; and random appends scan little again.
        #[test]
        fn any_appends_leave_few_segments(
            appends in proptest::collection::vec((0..26u32, 0..1000u64, 1..4000u64), 1..400),
            at_once in any::<bool>(),
        ) {
            let (mut sizes, mut rescanned, mut tiny): (Vec<SegmentSize>, u64, u64) = Default::default();
            for (power, rest, elements) in appends {
                let bytes = (1 << power) + rest;
                if !at_once {
                    tiny += TINY_BYTES + bytes;
                    sizes = join(&sizes, &mut rescanned);
                    prop_assert!(joins(&sizes).is_empty());
                }
                sizes.push(SegmentSize { bytes, elements });
            }
            sizes = join(&sizes, &mut rescanned);
            prop_assert!(joins(&sizes).is_empty());
            let bytes: u64 = sizes.iter().map(|size| size.bytes).sum();
            let elements: u64 = sizes.iter().map(|size| size.elements).sum();
            let fresh = bytes / SEGMENT_BYTES + elements / SEGMENT_ROWS_MAX as u64;
            let tiers = u64::from(tier_of(SEGMENT_BYTES, TINY_BYTES)) + 1;
            prop_assert!(sizes.len() as u64 <= (fresh * 4 + 1) * (FAN as u64) * tiers, "{sizes:?}");
            prop_assert!(rescanned <= bytes * tiers * 2 + tiny, "{rescanned} of {bytes}");
        }
    }
}
