//! Edges of the global index: from a record to a record or to a Provenance target, packed into words that sort by the
//! record.

use crate::casts::low_u32;
use crate::ids::{RecordId, ReferenceId, TargetId};

/// An edge from a record; what it leads to depends on the section. On disk it is one word, the record in the upper
/// half. Edges order by their records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Edge(u64);

impl Edge {
    /// The edge from a record to another.
    pub(crate) fn to_record_of(from: RecordId, to: RecordId) -> Edge {
        Edge(Edge::first_word(from.index()) | u64::from(to.0))
    }

    /// The edge from a record to a target.
    pub(crate) fn to_target_of(from: RecordId, to: TargetId) -> Edge {
        Edge(Edge::first_word(from.index()) | u64::from(to.0))
    }

    /// The edge from a record to a reference.
    pub(crate) fn to_reference_of(from: RecordId, to: ReferenceId) -> Edge {
        Edge(Edge::first_word(from.index()) | u64::from(to.0))
    }

    /// The least word of an edge from the record of this index; words of edges from earlier records are less.
    pub(crate) fn first_word(index: usize) -> u64 {
        (index as u64) << 32
    }

    /// The edge of a word on disk.
    #[inline(always)]
    pub(crate) fn of_word(word: u64) -> Edge {
        Edge(word)
    }

    /// The word that stands for it on disk.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The record that it comes from.
    #[inline(always)]
    pub(crate) fn from(self) -> RecordId {
        RecordId((self.0 >> 32) as u32)
    }

    /// The record that it leads to, in sections whose edges lead to records.
    #[inline(always)]
    pub(crate) fn to_record(self) -> RecordId {
        RecordId(low_u32(self.0))
    }

    /// The reference that it leads to, in the section whose edges lead to references.
    #[inline(always)]
    pub(crate) fn to_reference(self) -> ReferenceId {
        ReferenceId(low_u32(self.0))
    }

    /// The target that it leads to, in the section whose edges lead to targets.
    #[inline(always)]
    pub(crate) fn to_target(self) -> TargetId {
        TargetId(low_u32(self.0))
    }
}

/// Edges as they lie on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edges<'a>(&'a [u64]);

impl<'a> Edges<'a> {
    /// The edges of words on disk.
    pub(crate) fn of_words(words: &'a [u64]) -> Edges<'a> {
        Edges(words)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The first edge; `None` if there are none.
    pub(crate) fn first(self) -> Option<Edge> {
        self.0.first().copied().map(Edge::of_word)
    }

    /// The edges in their order.
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = Edge> + Clone + 'a {
        self.0.iter().copied().map(Edge::of_word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An edge is the word that the format document describes, and edges sort as (record, to) does.
    #[test]
    fn edges_are_words_that_sort_by_record() {
        let numbers = [0, 1, 7, u32::MAX - 1, u32::MAX];
        let pairs: Vec<(u32, u32)> = numbers.iter().flat_map(|from| numbers.map(|to| (*from, to))).collect();
        let edges: Vec<Edge> = pairs.iter().map(|(a, b)| Edge::to_record_of(RecordId(*a), RecordId(*b))).collect();
        assert!(edges.is_sorted_by(|a, b| a < b));
        for (edge, (from, to)) in edges.iter().zip(&pairs) {
            assert_eq!(edge.word(), u64::from(*from) * (1 << 32) + u64::from(*to));
            assert_eq!(Edge::of_word(edge.word()), *edge);
            assert_eq!(
                (edge.from(), edge.to_record(), edge.to_target()),
                (RecordId(*from), RecordId(*to), TargetId(*to))
            );
            assert_eq!(Edge::to_target_of(RecordId(*from), TargetId(*to)), *edge);
            assert!(Edge::first_word(edge.from().index()) <= edge.word());
        }
    }
}
