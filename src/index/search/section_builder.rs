//! Makes a search column of one segment, row by row.
//!
//! Most rows say what others say, in the same bytes: these are known by the text of their members and not parsed again. Both
//! look-ups are by hash, and confirmed.

use std::ops::Range;

use serde_json::Value;

use crate::casts::to_u32;
use crate::extract::root_members::write_object;
use crate::fhir::search::parameter::SearchParameter;
use crate::fhir::search::value::ParameterValues;
use crate::hash::xxh3_64;
use crate::index::search::entry_coding::{NameWriter, UNREADABLE, encode};
use crate::index::search::known_texts::KnownTexts;
use crate::index::search::section::SectionParts;
use crate::index::search::value_key::value_key;
use crate::index::segment::key_table::KeyTable;

/// Bytes of an entry, and of all before it, beyond which a row is read instead.
const ENTRY_BYTES_MAX: usize = 1 << 20;
const HEAP_BYTES_MAX: usize = 1 << 31;

/// A search column of one segment that is being made.
pub(crate) struct SectionBuilder<'p> {
    parameter: &'p SearchParameter,
    /// Names of the members that the parameter looks at, and their numbers among those that are found.
    members: Vec<(&'static str, usize)>,
    parts: SectionParts,
    names: NameWriter,
    /// Entries by their words and bytes.
    entries: KeyTable,
    texts: KnownTexts,
    /// The text of the members of the row, and its entry.
    object: Vec<u8>,
    entry: Vec<u8>,
}

impl<'p> SectionBuilder<'p> {
    /// A column of a parameter, without rows. `members` are the names of those that are found in each row.
    pub(crate) fn new(parameter: &'p SearchParameter, members: &[&'static str]) -> SectionBuilder<'p> {
        let is_looked_at = |name: &str| parameter.paths.iter().any(|path| path.steps[0].name == name);
        let own = members.iter().enumerate().filter(|(_, name)| is_looked_at(name));
        SectionBuilder {
            parameter,
            members: own.map(|(number, name)| (*name, number)).collect(),
            parts: SectionParts::default(),
            names: NameWriter::default(),
            entries: KeyTable::default(),
            texts: KnownTexts::default(),
            object: Vec::new(),
            entry: Vec::new(),
        }
    }

    /// Adds rows of other types, up to row number `end`.
    pub(crate) fn pass_to(&mut self, end: usize) {
        self.parts.numbers.resize(end, 0);
    }

    /// Adds a row of the type whose members stand at these places of the line; `None` if they could not be found.
    pub(crate) fn add(&mut self, line: &[u8], values: Option<&[Range<usize>]>) {
        self.object.clear();
        let Some(values) = values else {
            let number = self.number_of(0, &[UNREADABLE]);
            return self.parts.numbers.push(number);
        };
        let members = self.members.iter().map(|(name, number)| (*name, &values[*number]));
        write_object(line, members, &mut self.object);
        let hash = xxh3_64(&self.object);
        let number = match self.texts.find(hash, &self.object) {
            Some(number) => number,
            None => {
                let number = self.parse();
                self.texts.add(hash, &self.object, number);
                number
            }
        };
        self.parts.numbers.push(number);
    }

    /// The number of the values of the row's members.
    fn parse(&mut self) -> u32 {
        let Ok(root) = serde_json::from_slice::<Value>(&self.object) else { return self.number_of(0, &[UNREADABLE]) };
        let found = ParameterValues::of(self.parameter, &root);
        let (key, is_whole) = value_key(&found);
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        if !is_whole {
            encode(&found, &mut self.names, &mut entry);
        }
        let is_kept = entry.len() <= ENTRY_BYTES_MAX && self.parts.heap.len() <= HEAP_BYTES_MAX;
        let number = if is_kept { self.number_of(key, &entry) } else { self.number_of(0, &[UNREADABLE]) };
        self.entry = entry;
        number
    }

    /// 1 more than the number of an entry, which is added if it is new.
    fn number_of(&mut self, key: u64, entry: &[u8]) -> u32 {
        let SectionParts { keys, ends, heap, .. } = &mut self.parts;
        let is_same = |number: u32| {
            let number = number as usize;
            let start = if number == 0 { 0 } else { ends[number - 1] as usize };
            keys[number] == key && heap[start..ends[number] as usize] == *entry
        };
        let (number, is_known) = self.entries.number(xxh3_64(entry) ^ key, is_same);
        if !is_known {
            heap.extend_from_slice(entry);
            keys.push(key);
            ends.push(to_u32(heap.len()));
        }
        number + 1
    }

    /// The section as bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.parts.names = std::mem::take(&mut self.names.bytes);
        self.parts.to_bytes()
    }
}
