//! Collects what the rows of a segment refer to: context (COMP-06) and attachments, as sets of references.
//!
//! Neighbouring rows mostly refer to the same practitioners, so that a row has the number of a set, and a set lists numbers
//! of the segment's references. References are collected as texts and read when the segment is encoded.

use crate::casts::{to_u8, to_u32};
use crate::extract::identifiers::IdentifierReader;
use crate::extract::line_references::{Mention, MentionLine, MentionReader, MentionSink, OwnedMention, Wanted};
use crate::fhir::conditional_reference::ConditionalReference;
use crate::fhir::context;
use crate::fhir::id::IdRule;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_64;
use crate::index::segment::id_encoding::{self, CONDITIONAL};
use crate::index::segment::key_table::KeyTable;
use crate::index::segment::layout::kind;
use crate::key_set::resource_key::entity_hash;
use crate::simd::Kernel;
use crate::sys::little_endian::bytes_of;

/// References of the rows of one segment. Its buffers are reused from segment to segment.
#[derive(Default)]
pub(crate) struct ReferenceColumns {
    /// For each row the number of its set.
    pub row_set: Vec<u32>,
    /// For each set the end of its references; the first set is the empty one.
    set_end: Vec<u32>,
    /// References of the sets, one set behind another.
    pub set_reference: Vec<u32>,
    /// Numbers of the sets by hashes of their references.
    sets: KeyTable,
    /// The references, by their numbers.
    known: Vec<KnownReference>,
    /// Texts of the references, one behind another.
    texts: Vec<u8>,
    /// Numbers of the references by hashes of their texts.
    numbers: KeyTable,
    /// References of the row that is being read.
    row: Vec<u32>,
    /// The `reference` of a row that followed last on the row's start.
    first: u32,
    /// The `reference` of the row that was read last.
    last: Option<u32>,
    /// Whether the row that is being read is a Device's with a key `patient`.
    names_patient: bool,
    /// Row of each identifier of a row of context.
    pub key_row: Vec<u32>,
    /// Place and length in the segment's heap of each such identifier.
    pub key_text: Vec<[u32; 2]>,
}

/// A reference of a segment.
struct KnownReference {
    resource_type: ResourceType,
    /// Place and length of its text in the texts.
    place: u32,
    length: u32,
    /// Whether its text stands in a line as it is, and is kept in any row where it is a `reference`.
    is_plain: bool,
    /// The `reference` that last followed this one in a row.
    next: u32,
}

/// The number of no reference.
const NONE: u32 = u32::MAX;

/// The references of a segment as its columns hold them.
#[derive(Default)]
pub(crate) struct EncodedReferences {
    /// Start of each set, and the end of the last.
    pub set_start: Vec<u32>,
    /// Type of each reference.
    pub of_type: Vec<u8>,
    /// Packed id of each reference, or place and length of its condition.
    pub id: Vec<[u8; 16]>,
    /// Base of each reference; its two top bits are the class of the id, or say that it is conditional.
    pub base: Vec<u32>,
}

impl ReferenceColumns {
    /// Begins a segment.
    pub(crate) fn begin(&mut self) {
        self.row_set.clear();
        self.set_end.clear();
        self.set_reference.clear();
        self.sets.clear(usize::MAX);
        self.known.clear();
        self.texts.clear();
        self.numbers.clear(usize::MAX);
        self.row.clear();
        (self.first, self.last) = (NONE, None);
        self.names_patient = false;
        self.key_row.clear();
        self.key_text.clear();
        // The empty set has the number 0.
        self.sets.number(xxh3_64(&[]), |_| false);
        self.set_end.push(0);
    }

    /// Number of references so far.
    pub(crate) fn references(&self) -> usize {
        self.known.len()
    }

    /// Adds a mention in the row that is being read, if it is one that the index keeps.
    fn push(&mut self, of_row: ResourceType, mention: Mention<'_>) {
        let text = match mention {
            Mention::Reference(text) | Mention::Attachment(text) => text,
            Mention::Questionnaire(canonical) => canonical.split('|').next().unwrap_or_default(),
            Mention::Patient => {
                self.names_patient |= of_row == ResourceType::DEVICE;
                return;
            }
        };
        // Most texts were met before, in a row that keeps them, too.
        let hash = xxh3_64(text.as_bytes());
        let (known, texts) = (&self.known, &self.texts);
        let is_same = |number: u32| *known[number as usize].text(texts) == *text.as_bytes();
        let is_always_kept = matches!(mention, Mention::Reference(_) if of_row != ResourceType::BINARY);
        if is_always_kept
            && let Some(number) = self.numbers.find(hash, is_same)
            && known[number as usize].is_plain
        {
            return self.push_reference(number);
        }
        let kept = match mention {
            Mention::Reference(text) => kept_type(of_row, text),
            Mention::Attachment(text) => attachment_of(text).map(|_| ResourceType::BINARY),
            Mention::Questionnaire(_) if of_row == ResourceType::QUESTIONNAIRE_RESPONSE => {
                let read = Reference::parse(text).filter(|read| read.resource_type == ResourceType::QUESTIONNAIRE);
                read.map(|read| read.resource_type)
            }
            Mention::Questionnaire(_) | Mention::Patient => None,
        };
        let Some(resource_type) = kept else { return };
        let (number, was_known) = self.numbers.number(hash, is_same);
        if !was_known {
            // Rows of any type but Binary keep the same references.
            let is_plain = !text.contains(['"', '\\']) && kept_type(ResourceType::PATIENT, text) == Some(resource_type);
            let (place, length) = (to_u32(self.texts.len()), to_u32(text.len()));
            self.known.push(KnownReference { resource_type, place, length, is_plain, next: NONE });
            self.texts.extend_from_slice(text.as_bytes());
        }
        match is_always_kept {
            true => self.push_reference(number),
            false => self.row.push(number),
        }
    }

    /// Adds a `reference` to the row that is being read, and remembers what it follows.
    fn push_reference(&mut self, number: u32) {
        match self.last.replace(number) {
            None => self.first = number,
            Some(last) => self.known[last as usize].next = number,
        }
        self.row.push(number);
    }

    /// Adds the `reference` that `rest` begins with, up to its quote, to the row that is being read, if it is the one that
    /// was expected: rows repeat what the rows before them say.
    #[inline]
    fn push_expected(&mut self, rest: &[u8]) -> bool {
        let expected = self.last.map_or(self.first, |last| self.known[last as usize].next);
        let Some(known) = self.known.get(expected as usize) else { return false };
        let text = known.text(&self.texts);
        let is_met = known.is_plain && rest.get(text.len()) == Some(&b'"') && rest[..text.len()] == *text;
        if is_met {
            self.last = Some(expected);
            self.row.push(expected);
        }
        is_met
    }

    /// Adds an identifier of the row that is being read, of a type of context: `number` is the row's.
    fn push_key(&mut self, number: u32, (system, value): (&str, &str), heap: &mut Vec<u8>) {
        let place = id_encoding::push_heap(heap, system.as_bytes());
        id_encoding::push_heap(heap, b"|");
        id_encoding::push_heap(heap, value.as_bytes());
        self.key_row.push(number);
        self.key_text.push([place, to_u32(system.len() + 1 + value.len())]);
    }

    /// Ends the row that is being read. Whether it is a Device's with a key `patient`.
    fn end_row(&mut self) -> bool {
        let row = &mut self.row;
        row.sort_unstable();
        // An attachment counts as often as its URL stands in the row: each may become longer.
        let known = &self.known;
        row.dedup_by(|a, b| a == b && known[*a as usize].resource_type != ResourceType::BINARY);
        let (ends, members) = (&self.set_end, &self.set_reference);
        let members_of = |set: u32| {
            let start = (set as usize).checked_sub(1).map_or(0, |before| ends[before] as usize);
            &members[start..ends[set as usize] as usize]
        };
        // Neighbouring rows mostly have the same set.
        let last = self.row_set.last().copied().filter(|set| members_of(*set) == &row[..]);
        let (set, was_known) = match last {
            _ if row.is_empty() => (0, true),
            Some(last) => (last, true),
            None => self.sets.number(xxh3_64(bytes_of(row)), |set| members_of(set) == &row[..]),
        };
        if !was_known {
            self.set_reference.extend_from_slice(row);
            self.set_end.push(to_u32(self.set_reference.len()));
        }
        self.row_set.push(set);
        row.clear();
        self.last = None;
        std::mem::take(&mut self.names_patient)
    }

    /// Reads the texts of the references. Adds their ids to the segment's heap, and all references and identifiers to the
    /// sorted names; `base_number` gives the number of a base.
    pub(crate) fn encode(
        &mut self,
        ids: IdRule,
        heap: &mut Vec<u8>,
        (sorted, types_of_rows): (&mut Vec<(u64, u32)>, &[u8]),
        base_number: &mut dyn FnMut(&str) -> u32,
    ) -> EncodedReferences {
        let mut encoded = EncodedReferences::default();
        if self.known.is_empty() {
            // No row has any: the column of sets is left out.
            self.row_set.clear();
            self.set_end.clear();
        } else {
            encoded.set_start.push(0);
            encoded.set_start.extend_from_slice(&self.set_end);
        }
        for (number, known) in (0..).zip(&self.known) {
            let resource_type = known.resource_type;
            let text = str::from_utf8(known.text(&self.texts)).unwrap_or_default();
            let literal = Reference::parse(text).filter(|read| ids.allows(read.id.as_bytes()));
            let (hash, id, base) = match literal {
                Some(read) => {
                    let (class, packed) = id_encoding::pack_id(read.id.as_bytes(), heap);
                    let base = base_number(read.base) | (class as u32) << 30;
                    (entity_hash(resource_type, read.id.as_bytes()), packed, base)
                }
                None => {
                    // What is no identifier search leads nowhere, and so does one for the empty text.
                    let condition = ConditionalReference::parse(text);
                    let (base, text) = condition.map_or(("", String::new()), |read| (read.base, read.identifier));
                    let mut packed = [0; 16];
                    packed[..4].copy_from_slice(&id_encoding::push_heap(heap, text.as_bytes()).to_le_bytes());
                    packed[4..8].copy_from_slice(&to_u32(text.len()).to_le_bytes());
                    let hash = id_encoding::identifier_hash(resource_type, text.as_bytes());
                    (hash, packed, base_number(base) | CONDITIONAL << 30)
                }
            };
            sorted.push((hash, number | kind::REFERENCE));
            encoded.of_type.push(to_u8(resource_type.index()));
            encoded.id.push(id);
            encoded.base.push(base);
        }
        for (number, (row, [place, length])) in (0..).zip(self.key_row.iter().zip(&self.key_text)) {
            let of_type = ResourceType::from_index(types_of_rows[*row as usize] as usize).expect("a type of a row");
            let text = &heap[*place as usize..][..*length as usize];
            sorted.push((id_encoding::identifier_hash(of_type, text), number | kind::KEY));
        }
        encoded
    }
}

impl KnownReference {
    /// Its text.
    fn text<'a>(&self, texts: &'a [u8]) -> &'a [u8] {
        &texts[self.place as usize..][..self.length as usize]
    }
}

/// The columns as the references of a row are added, which is of type `of_row`.
struct RowSink<'a> {
    columns: &'a mut ReferenceColumns,
    of_row: ResourceType,
}

impl MentionSink for RowSink<'_> {
    #[inline]
    fn take_repeated(&mut self, rest: &[u8]) -> bool {
        self.of_row != ResourceType::BINARY && self.columns.push_expected(rest)
    }
    fn take(&mut self, mention: Mention<'_>) {
        self.columns.push(self.of_row, mention);
    }
}

/// The type that a `reference` names, if the index keeps references to it. A Binary's are those to patients, too: its
/// `securityContext` (COMP-10).
fn kept_type(of_row: ResourceType, text: &str) -> Option<ResourceType> {
    if let Some(resource_type) = context::type_of_relative(text) {
        return Some(resource_type);
    }
    let is_absolute = text.starts_with("http");
    if !is_absolute && of_row != ResourceType::BINARY {
        return None;
    }
    let resource_type = match Reference::parse(text) {
        Some(read) => read.resource_type,
        None => ConditionalReference::parse(text)?.resource_type,
    };
    let is_kept =
        context::is_context(resource_type) || of_row == ResourceType::BINARY && resource_type == ResourceType::PATIENT;
    is_kept.then_some(resource_type)
}

/// The Binary that the URL of an attachment names, relative to the server.
pub(crate) fn attachment_of(url: &str) -> Option<Reference<'_>> {
    Reference::parse(url).filter(|read| read.resource_type == ResourceType::BINARY && read.base.is_empty())
}

/// Reads the references of rows, whole or in pieces.
pub(crate) struct RowReferences {
    mentions: MentionReader,
    identifiers: IdentifierReader,
    /// Mentions of the line that comes in pieces.
    held: Vec<OwnedMention>,
    /// Identifiers of that line.
    held_keys: Vec<(String, String)>,
}

impl RowReferences {
    /// A reader that scans with `kernel`.
    pub(crate) fn new(kernel: Kernel) -> RowReferences {
        let (mentions, identifiers) = (MentionReader::new(kernel), IdentifierReader::new(kernel));
        RowReferences { mentions, identifiers, held: Vec::new(), held_keys: Vec::new() }
    }

    /// Adds the references of a row that lies whole in `line`; `number` is the row's in the segment. Whether it is a Device's
    /// with a key `patient`.
    pub(crate) fn read_row(
        &mut self,
        line: MentionLine<'_>,
        (number, of_row): (u32, ResourceType),
        columns: &mut ReferenceColumns,
        heap: &mut Vec<u8>,
    ) -> bool {
        let wanted = Wanted {
            every_reference: of_row == ResourceType::BINARY,
            questionnaire: of_row == ResourceType::QUESTIONNAIRE_RESPONSE,
            patient: of_row == ResourceType::DEVICE,
        };
        self.mentions.read_line(line, wanted, &mut RowSink { columns, of_row });
        if context::is_context(of_row) {
            self.identifiers.begin();
            self.identifiers.feed(line.text, &mut |system, value| columns.push_key(number, (system, value), heap));
        }
        columns.end_row()
    }

    /// Begins a line that comes in pieces.
    pub(crate) fn begin_line(&mut self) {
        self.mentions.begin_line();
        self.identifiers.begin();
        self.held.clear();
        self.held_keys.clear();
    }

    /// Reads the next piece of the line.
    pub(crate) fn feed_piece(&mut self, piece: &[u8]) {
        let held = &mut self.held;
        self.mentions.feed_piece(piece, &mut |mention| {
            // The type of the row is not known yet: what any row could keep is held.
            let is_kept = match mention {
                Mention::Reference(text) => kept_type(ResourceType::BINARY, text).is_some(),
                Mention::Patient => !held.contains(&OwnedMention::Patient),
                Mention::Attachment(_) | Mention::Questionnaire(_) => true,
            };
            if is_kept {
                held.push(mention.to_owned());
            }
        });
        let keys = &mut self.held_keys;
        self.identifiers.feed(piece, &mut |system, value| keys.push((system.to_string(), value.to_string())));
    }

    /// Adds the references of the row that came in pieces, as [`RowReferences::read_row`].
    pub(crate) fn end_line(
        &mut self,
        (number, of_row): (u32, ResourceType),
        columns: &mut ReferenceColumns,
        heap: &mut Vec<u8>,
    ) -> bool {
        for mention in self.held.drain(..) {
            columns.push(of_row, mention.as_mention());
        }
        if context::is_context(of_row) {
            for (system, value) in self.held_keys.drain(..) {
                columns.push_key(number, (&system, &value), heap);
            }
        }
        columns.end_row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::line_references::marks_of;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Texts of references, as they stand in a line: some repeat others, and some are others escaped.
    const TEXTS: [&str; 14] = [
        "Practitioner/a",
        "Practitioner/ab",
        r"Practitioner\/a",
        r"Practitioner/a\\",
        r#"Practitioner/a\"b"#,
        "Practitioner?identifier=s|1",
        r"Practitioner?identifier=s|\n",
        r"Practitioner?identifier=s|\\n",
        "https://a.example/Location/x",
        "ftp://a.example/Location/x",
        "urn:uuid:Practitioner/a",
        "Patient/a",
        "Organization/\u{e9}",
        "",
    ];

    proptest! {
        /// Each row has the references that its line gives, whatever the rows before it had.
        #[test]
        fn rows_have_the_references_of_their_lines(
            rows in prop::collection::vec((any::<bool>(), prop::collection::vec(0..TEXTS.len(), 0..6)), 1..20),
            repeats in 1..3usize, marked in any::<bool>()) {
            let (mut columns, mut reader) = (ReferenceColumns::default(), RowReferences::new(Kernel::detect()));
            columns.begin();
            let mut expected: Vec<BTreeSet<String>> = Vec::new();
            let repeated = rows.iter().flat_map(|row| std::iter::repeat_n(row, repeats));
            for (number, (is_binary, texts)) in (0..).zip(repeated) {
                let of_row = if *is_binary { ResourceType::BINARY } else { ResourceType::PROVENANCE };
                let members: Vec<String> = texts.iter().map(|text| format!(r#"{{"reference":"{}"}}"#, TEXTS[*text])).collect();
                let line = format!("[{}]", members.join(","));
                let marks = marks_of(line.as_bytes(), line.len());
                let marks = marked.then_some(&marks[..]);
                let line = MentionLine { text: line.as_bytes(), escapes: line.contains('\\'), marks };
                reader.read_row(line, (number, of_row), &mut columns, &mut Vec::new());
                let unescaped = texts.iter().map(|text| serde_json::from_str(&format!("\"{}\"", TEXTS[*text])).unwrap());
                expected.push(unescaped.filter(|text: &String| kept_type(of_row, text).is_some()).collect());
            }
            for (set, expected) in columns.row_set.iter().zip(&expected) {
                let start = set.checked_sub(1).map_or(0, |before| columns.set_end[before as usize]);
                let members = &columns.set_reference[start as usize..columns.set_end[*set as usize] as usize];
                let text = |number: &u32| {
                    String::from_utf8(columns.known[*number as usize].text(&columns.texts).to_vec()).unwrap()
                };
                prop_assert_eq!(&members.iter().map(text).collect::<BTreeSet<_>>(), expected);
                prop_assert_eq!(members.len(), expected.len());
            }
            prop_assert_eq!(columns.row_set.len(), expected.len());
        }
    }
}
