//! Whether lines of rows meet the filters of their type, as fast as lines can be passed over: members that filters do not look
//! at are skipped, and what was parsed once is known by its text.
//!
//! The slow twin is [`FilterSet::is_met`], which parses each line.

use std::ops::Range;

use serde_json::Value;

use crate::extract::root_members::{RootMembers, write_object};
use crate::fhir::search::filter_set::{FilterSet, UnreadableRow};
use crate::hash::xxh3_64;
use crate::index::search::known_texts::KnownTexts;
use crate::simd::Kernel;

/// The filters of a type, as lines are compared with them one after the other.
pub(crate) struct LineFilter<'a> {
    filters: &'a FilterSet<'a>,
    members: RootMembers,
    /// Texts of members, and whether they meet a filter (1) or none (0).
    known: KnownTexts,
    values: Vec<Range<usize>>,
    object: Vec<u8>,
}

impl<'a> LineFilter<'a> {
    /// The filters, before the first line.
    pub(crate) fn new(filters: &'a FilterSet<'a>) -> LineFilter<'a> {
        LineFilter {
            filters,
            members: RootMembers::new(filters.members.iter().copied(), Kernel::detect()),
            known: KnownTexts::default(),
            values: Vec::new(),
            object: Vec::new(),
        }
    }

    /// Whether a line meets one of the filters.
    ///
    /// # Errors
    /// As [`FilterSet::is_met`].
    pub(crate) fn is_met(&mut self, line: &[u8]) -> Result<bool, UnreadableRow> {
        if !self.members.find(line, &mut self.values) {
            return self.filters.is_met(line);
        }
        self.object.clear();
        write_object(line, self.members.names().iter().copied().zip(&self.values), &mut self.object);
        let hash = xxh3_64(&self.object);
        if let Some(known) = self.known.find(hash, &self.object) {
            return Ok(known == 1);
        }
        // What is nested too deep is read member by member.
        let Ok(root) = serde_json::from_slice::<Value>(&self.object) else { return self.filters.is_met(line) };
        let is_met = self.filters.is_met_by_root(&root);
        self.known.add(hash, &self.object, u32::from(is_met));
        Ok(is_met)
    }
}
