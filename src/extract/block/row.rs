//! A row as the block pass finds it: its elements as ranges of the text, and the checks of a line's end.

use std::ops::Range;

use crate::extract::facts::{LastUpdated, ResourceFacts};
use crate::extract::trie::{Node, Trie};
use crate::fhir::compartment::CompartmentPaths;
use crate::fhir::id::IdRule;
use crate::fhir::instant::InstantRef;
use crate::fhir::resource_type::ResourceType;

/// A resource found by the block pass: ranges of its facts in the text.
pub struct Row<'a> {
    pub(crate) elements: &'a RowElements,
    pub(crate) text: &'a [u8],
    pub(crate) trie: &'a Trie,
    pub(crate) last_updated: LastUpdated<'a>,
    /// Whether a backslash occurs in the line, or near it.
    pub(crate) escapes: bool,
    /// Offsets in the line of all strings that have the letters of mentions, as by
    /// [`Vector::mention_letters`](crate::simd::Vector::mention_letters); `None` if they are not known.
    pub(crate) mentions: Option<&'a [u16]>,
    /// Which paths make owners.
    pub(crate) compartment_paths: CompartmentPaths,
}

impl ResourceFacts for Row<'_> {
    fn resource_type(&self) -> ResourceType {
        self.elements.resource_type
    }
    fn id(&self) -> &[u8] {
        &self.text[self.elements.id.clone()]
    }
    fn last_updated(&self) -> LastUpdated<'_> {
        self.last_updated
    }
    fn version_id(&self) -> &[u8] {
        &self.text[self.elements.version_id.clone()]
    }
    fn has_identifier(&self) -> bool {
        self.elements.identifier_paths & self.compartment_paths.paths_of(self.elements.resource_type) != 0
    }
    fn reference_bytes(&self) -> impl Iterator<Item = &[u8]> {
        let wanted = self.compartment_paths.paths_of(self.elements.resource_type);
        let on_paths = self.elements.references.iter().filter(move |(node, _)| self.trie.paths(*node) & wanted != 0);
        // The line was checked to be UTF-8, and quotes are single bytes, so the text between them is UTF-8, too.
        on_paths.map(|(_, range)| &self.text[range.clone()])
    }
}

/// Ranges of the facts of the current line in the text. A range that starts at 0, where no value can, means absent.
#[derive(PartialEq)]
pub(crate) struct RowElements {
    /// Whether the resourceType was found.
    pub(crate) is_known: bool,
    pub(crate) resource_type: ResourceType,
    pub(crate) id: Range<usize>,
    pub(crate) last_updated: Range<usize>,
    pub(crate) version_id: Range<usize>,
    /// References in the order of the text, with the nodes they were found at.
    pub(crate) references: Vec<(Node, Range<usize>)>,
    /// Paths of references on which an identifier stands, one bit each.
    pub(crate) identifier_paths: u64,
}

impl RowElements {
    /// Elements of a line of which nothing was found yet.
    pub(crate) fn new() -> RowElements {
        RowElements {
            is_known: false,
            resource_type: ResourceType::PATIENT,
            id: 0..0,
            last_updated: 0..0,
            version_id: 0..0,
            references: Vec::with_capacity(16),
            identifier_paths: 0,
        }
    }

    /// Checks the values of a line whose tokens are right: UTF-8, no escapes, a legal id and a legal lastUpdated. Its
    /// range without its line end, and its lastUpdated.
    #[inline(always)]
    pub(crate) fn judge_row<'a>(
        &self,
        text: &'a [u8],
        line: PendingLine,
        ids: IdRule,
    ) -> Result<(Range<usize>, LastUpdated<'a>), OutOfOrdinary> {
        let PendingLine { start, end, high, escapes } = line;
        let end = if text[end - 1] == b'\r' { end - 1 } else { end };
        if !self.is_known
            || high && simdutf8::basic::from_utf8(&text[start..end]).is_err()
            || escapes && self.has_escapes(text)
            || !ids.allows(&text[self.id.clone()])
        {
            return Err(OutOfOrdinary);
        }
        let last_updated = match self.last_updated.start {
            0 => LastUpdated::Missing,
            _ => LastUpdated::At(InstantRef::parse(&text[self.last_updated.clone()]).ok_or(OutOfOrdinary)?),
        };
        Ok((start..end, last_updated))
    }

    /// Whether any element contains a backslash.
    #[cold]
    fn has_escapes(&self, text: &[u8]) -> bool {
        let references = self.references.iter().map(|(_, range)| range);
        let mut all = references.chain([&self.id, &self.last_updated, &self.version_id]);
        all.any(|range| memchr::memchr(b'\\', &text[range.clone()]).is_some())
    }
}

/// The line is faulty or unusual and goes to the scanner.
pub(crate) struct OutOfOrdinary;

/// A line that was read to its newline.
pub(crate) struct PendingLine {
    /// Offset in the text of its first byte.
    pub(crate) start: usize,
    /// Offset in the text of its newline.
    pub(crate) end: usize,
    /// Whether a byte of 0x80 or above occurs in it, or near it.
    pub(crate) high: bool,
    /// Whether a backslash occurs in it, or near it.
    pub(crate) escapes: bool,
}
