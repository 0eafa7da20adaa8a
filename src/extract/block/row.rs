//! A row as the block pass reads it, before its line is complete, and what makes the pass leave a line to the scanner.

use std::ops::Range;

use crate::extract::facts::{LastUpdated, ResourceFacts};
use crate::extract::trie::{Node, Trie};
use crate::fhir::compartment;
use crate::fhir::id::Id;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;

/// A resource among many lines: its facts, where they stand in the text.
pub struct Row<'a> {
    pub(crate) found: &'a RowElements,
    pub(crate) text: &'a [u8],
    pub(crate) trie: &'a Trie,
    pub(crate) last_updated: LastUpdated<'a>,
}

impl ResourceFacts for Row<'_> {
    fn resource_type(&self) -> ResourceType {
        self.found.resource_type
    }
    fn id(&self) -> &[u8] {
        &self.text[self.found.id.clone()]
    }
    fn last_updated(&self) -> LastUpdated<'_> {
        self.last_updated
    }
    fn version_id(&self) -> &[u8] {
        &self.text[self.found.version_id.clone()]
    }
    fn reference_bytes(&self) -> impl Iterator<Item = &[u8]> {
        let wanted = compartment::paths_of(self.found.resource_type);
        let of_type = self.found.references.iter().filter(move |(node, _)| self.trie.paths(*node) & wanted != 0);
        // The line was checked to be UTF-8, and a text between quotes is whole characters.
        of_type.map(|(_, range)| &self.text[range.clone()])
    }
}

/// Where the facts of the current line stand; ranges from 0, where no value can begin, for what was not met.
#[derive(PartialEq)]
pub(crate) struct RowElements {
    pub(crate) is_known: bool,
    pub(crate) resource_type: ResourceType,
    pub(crate) id: Range<usize>,
    pub(crate) last_updated: Range<usize>,
    pub(crate) version_id: Range<usize>,
    pub(crate) references: Vec<(Node, Range<usize>)>,
}

impl RowElements {
    pub(crate) fn new() -> RowElements {
        RowElements {
            is_known: false,
            resource_type: ResourceType::PATIENT,
            id: 0..0,
            last_updated: 0..0,
            version_id: 0..0,
            references: Vec::with_capacity(16),
        }
    }

    /// The line from `start`, whose newline stands at `end`, is right but for what these facts may hold: its range
    /// without its end, and its lastUpdated.
    #[inline(always)]
    pub(crate) fn judge_row<'a>(
        &self,
        text: &'a [u8],
        line: PendingLine,
    ) -> Result<(Range<usize>, LastUpdated<'a>), OutOfOrdinary> {
        let PendingLine { start, end, high, escapes } = line;
        let end = if text[end - 1] == b'\r' { end - 1 } else { end };
        if !self.is_known
            || high && simdutf8::basic::from_utf8(&text[start..end]).is_err()
            || escapes && self.has_escapes(text)
            || !Id::is_legal(&text[self.id.clone()])
        {
            return Err(OutOfOrdinary);
        }
        let last_updated = match self.last_updated.start {
            0 => LastUpdated::Missing,
            _ => LastUpdated::At(InstantRef::parse(&text[self.last_updated.clone()]).ok_or(OutOfOrdinary)?),
        };
        Ok((start..end, last_updated))
    }

    /// Whether an escape stands in what was found.
    #[cold]
    fn has_escapes(&self, text: &[u8]) -> bool {
        let references = self.references.iter().map(|(_, range)| range);
        let mut all = references.chain([&self.id, &self.last_updated, &self.version_id]);
        all.any(|range| memchr::memchr(b'\\', &text[range.clone()]).is_some())
    }
}

/// Leaves the line to the scanner.
pub(crate) struct OutOfOrdinary;

/// A whole line.
pub(crate) struct PendingLine {
    pub(crate) start: usize,
    /// Where its newline stands.
    pub(crate) end: usize,
    /// Whether a byte of 0x80 or above stands in it, or near it.
    pub(crate) high: bool,
    /// The same of a backslash.
    pub(crate) escapes: bool,
}
