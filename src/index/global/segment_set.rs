//! The segments of a build with what their numbers over the store are.

use crate::casts::to_u32;
use crate::index::global::SegmentOffsets;
use crate::index::segment::columns::Columns;
use crate::index::segment::layout::SegmentHeader;
use crate::index::segment::reader::Segment;

/// The reference bases of all segments in bytewise order, the empty one first, and for each segment the numbers of its
/// bases among them.
pub(crate) fn global_bases(columns: &[Columns<'_>]) -> (Vec<String>, Vec<Vec<u32>>) {
    let mut texts = vec![""];
    texts.extend(columns.iter().flat_map(|columns| (0..columns.bases()).map(|base| columns.base_text(base))));
    texts.sort_unstable();
    texts.dedup();
    let all: Vec<String> = texts.into_iter().map(str::to_string).collect();
    let of = |columns: &Columns<'_>| {
        let number = |base| all.binary_search_by(|known| known.as_str().cmp(columns.base_text(base)));
        (0..columns.bases()).map(|base| to_u32(number(base).expect("collected above"))).collect()
    };
    let own = columns.iter().map(of).collect();
    (all, own)
}

/// The segments of a build: columns, headers, numbers of their bases among all, and numbers of their first elements.
pub(crate) struct SegmentSet<'a> {
    pub columns: Vec<Columns<'a>>,
    pub heads: Vec<SegmentHeader>,
    pub bases: Vec<String>,
    pub base_numbers: Vec<Vec<u32>>,
    pub starts: SegmentOffsets,
}

impl SegmentSet<'_> {
    /// Columns, headers, bases and first numbers of `segments`, which the caller has verified.
    pub(crate) fn of(segments: &[Segment]) -> SegmentSet<'_> {
        let columns: Vec<Columns<'_>> = segments.iter().map(Segment::columns).collect();
        let heads: Vec<SegmentHeader> = segments.iter().map(|segment| *segment.head()).collect();
        let (bases, base_numbers) = global_bases(&columns);
        let starts = SegmentOffsets::of(heads.iter());
        SegmentSet { columns, heads, bases, base_numbers, starts }
    }
}
