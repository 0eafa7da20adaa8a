//! Collects what the rows of a segment refer to: context (COMP-06) and attachments, as sets of references.
//!
//! Neighbouring rows mostly refer to the same practitioners, so that a row has the number of a set, and a set lists numbers
//! of the segment's references. References are collected as texts and read when the segment is encoded.

use crate::casts::{to_u8, to_u32};
use crate::extract::identifiers::IdentifierReader;
use crate::extract::line_references::{Mention, MentionReader, OwnedMention, Wanted};
use crate::fhir::conditional_reference::ConditionalReference;
use crate::fhir::context;
use crate::fhir::id::IdRule;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_64;
use crate::index::segment::id_encoding::{self, CONDITIONAL};
use crate::index::segment::key_table::KeyTable;
use crate::index::segment::layout::kind;
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
    /// Type of each reference, with place and length of its text in `texts`.
    known: Vec<(ResourceType, u32, u32)>,
    texts: Vec<u8>,
    /// Numbers of the references by hashes of their texts.
    numbers: KeyTable,
    /// References of the row that is being read.
    row: Vec<u32>,
    /// Whether the row that is being read is a Device's with a key `patient`.
    names_patient: bool,
    /// Row of each identifier of a row of context.
    pub key_row: Vec<u32>,
    /// Place and length in the segment's heap of each such identifier.
    pub key_text: Vec<[u32; 2]>,
}

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
        let is_same = |number: u32| {
            let (_, place, length) = known[number as usize];
            texts[place as usize..][..length as usize] == *text.as_bytes()
        };
        let is_always_kept = matches!(mention, Mention::Reference(_) if of_row != ResourceType::BINARY);
        if is_always_kept
            && let Some(number) = self.numbers.find(hash, is_same)
            && context::is_context(known[number as usize].0)
        {
            return self.row.push(number);
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
            self.known.push((resource_type, to_u32(self.texts.len()), to_u32(text.len())));
            self.texts.extend_from_slice(text.as_bytes());
        }
        self.row.push(number);
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
        row.dedup_by(|a, b| a == b && known[*a as usize].0 != ResourceType::BINARY);
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
        for (number, (resource_type, place, length)) in (0..).zip(&self.known) {
            let text = str::from_utf8(&self.texts[*place as usize..][..*length as usize]).unwrap_or_default();
            let literal = Reference::parse(text).filter(|read| ids.allows(read.id.as_bytes()));
            let (hash, id, base) = match literal {
                Some(read) => {
                    let (class, packed) = id_encoding::pack_id(read.id.as_bytes(), heap);
                    let base = base_number(read.base) | (class as u32) << 30;
                    (id_encoding::entity_hash(*resource_type, read.id.as_bytes()), packed, base)
                }
                None => {
                    // What is no identifier search leads nowhere, and so does one for the empty text.
                    let condition = ConditionalReference::parse(text);
                    let (base, text) = condition.map_or(("", String::new()), |read| (read.base, read.identifier));
                    let mut packed = [0; 16];
                    packed[..4].copy_from_slice(&id_encoding::push_heap(heap, text.as_bytes()).to_le_bytes());
                    packed[4..8].copy_from_slice(&to_u32(text.len()).to_le_bytes());
                    let hash = id_encoding::identifier_hash(*resource_type, text.as_bytes());
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

    /// Adds the references of a row that lies whole in `line`, which may have backslashes where `escapes` says so; `number`
    /// is the row's in the segment. Whether it is a
    /// Device's with a key `patient`.
    pub(crate) fn read_row(
        &mut self,
        (line, escapes): (&[u8], bool),
        (number, of_row): (u32, ResourceType),
        columns: &mut ReferenceColumns,
        heap: &mut Vec<u8>,
    ) -> bool {
        let wanted = Wanted {
            escapes,
            every_reference: of_row == ResourceType::BINARY,
            questionnaire: of_row == ResourceType::QUESTIONNAIRE_RESPONSE,
            patient: of_row == ResourceType::DEVICE,
        };
        self.mentions.read_line(line, wanted, &mut |mention| columns.push(of_row, mention));
        if context::is_context(of_row) {
            self.identifiers.begin();
            self.identifiers.feed(line, &mut |system, value| columns.push_key(number, (system, value), heap));
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
