//! The filters of one type, of which a resource must meet one (TFILTER-02, TFILTER-03).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::matching::{MatchContext, PreparedCriterion};
use crate::fhir::search::members::read_members;
use crate::fhir::search::type_filter::TypeFilter;
use crate::fhir::search::value::ParameterValues;

/// The filters of one type.
pub(crate) struct FilterSet<'a> {
    /// The filters; there is one.
    pub filters: Vec<PreparedFilter<'a>>,
    /// Members of the root that they look at.
    pub members: BTreeSet<&'static str>,
    /// What values are compared by.
    pub context: MatchContext<'a>,
}

/// A filter as rows are compared with it.
pub(crate) struct PreparedFilter<'a> {
    /// Its criteria, all of which must be met.
    pub criteria: Vec<PreparedCriterion<'a>>,
    /// Members of the root that it looks at.
    members: BTreeSet<&'static str>,
}

/// A resource that cannot be read for a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableRow;

impl<'a> FilterSet<'a> {
    /// The filters for a type, if there are any.
    pub(crate) fn of(
        resource_type: ResourceType,
        filters: &'a [TypeFilter],
        bases: BaseUrls<'a>,
        now: TimeSpan,
    ) -> Option<FilterSet<'a>> {
        let prepared = |filter: &'a TypeFilter| {
            let paths = filter.criteria.iter().flat_map(|criterion| &criterion.parameter.paths);
            let members = paths.filter_map(|path| path.steps.first()).map(|step| step.name).collect();
            PreparedFilter { criteria: filter.criteria.iter().map(PreparedCriterion::new).collect(), members }
        };
        let own = filters.iter().filter(|filter| filter.resource_type == resource_type);
        let filters: Vec<PreparedFilter<'_>> = own.map(prepared).collect();
        let members = filters.iter().flat_map(|filter| &filter.members).copied().collect();
        let context = MatchContext { bases, now };
        (!filters.is_empty()).then_some(FilterSet { filters, members, context })
    }

    /// Whether a line can meet one of the filters, by the texts that it has: in a line without a backslash every text stands as it
    /// is, so that one which lacks all texts of a criterion does not meet it. Most lines are ruled out so, and not parsed.
    fn may_be_met(&self, line: &[u8]) -> bool {
        let lacks =
            |needles: &Vec<memchr::memmem::Finder<'static>>| needles.iter().all(|needle| needle.find(line).is_none());
        let is_ruled_out =
            |filter: &PreparedFilter<'_>| filter.criteria.iter().any(|of| of.needles.as_ref().is_some_and(lacks));
        !self.filters.iter().all(is_ruled_out) || memchr::memchr(b'\\', line).is_some()
    }

    /// Whether a resource meets one of the filters.
    ///
    /// # Errors
    /// [`UnreadableRow`] if a member that decides is nested deeper than 128 levels.
    pub(crate) fn is_met(&self, line: &[u8]) -> Result<bool, UnreadableRow> {
        if self.may_be_met(line) { self.is_met_by_members(line) } else { Ok(false) }
    }

    /// As [`FilterSet::is_met`], by the members of every line: its slow twin.
    fn is_met_by_members(&self, line: &[u8]) -> Result<bool, UnreadableRow> {
        let meets = |filter: &PreparedFilter<'_>, root: &Value| {
            let is_met = |of: &PreparedCriterion<'_>| {
                of.is_met_by(&ParameterValues::of(&of.criterion.parameter, root), self.context)
            };
            filter.criteria.iter().all(is_met)
        };
        if let Ok(root) = read_members(line, &self.members) {
            return Ok(self.filters.iter().any(|filter| meets(filter, &root)));
        }
        // A member is nested too deep: filters that do not look at it decide.
        let mut is_unreadable = false;
        for filter in &self.filters {
            match read_members(line, &filter.members) {
                Ok(root) if meets(filter, &root) => return Ok(true),
                Ok(_) => {}
                Err(_) => is_unreadable = true,
            }
        }
        if is_unreadable { Err(UnreadableRow) } else { Ok(false) }
    }
}

#[cfg(test)]
mod tests;
