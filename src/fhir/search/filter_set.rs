//! The filters of one type, of which a resource must meet one (TFILTER-02, TFILTER-03).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::matching::{MatchContext, PreparedCriterion};
use crate::fhir::search::members::read_members;
use crate::fhir::search::parameter::SearchParameter;
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

    /// The parameter of each criterion.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &'a SearchParameter> {
        self.filters.iter().flat_map(|filter| &filter.criteria).map(|of| &of.criterion.parameter)
    }

    /// Whether a resource meets one of the filters.
    ///
    /// # Errors
    /// [`UnreadableRow`] if a member that decides is nested deeper than 128 levels.
    pub(crate) fn is_met(&self, line: &[u8]) -> Result<bool, UnreadableRow> {
        if let Ok(root) = read_members(line, &self.members) {
            return Ok(self.is_met_by_root(&root));
        }
        // A member is nested too deep: filters that do not look at it decide.
        let mut is_unreadable = false;
        for filter in &self.filters {
            match read_members(line, &filter.members) {
                Ok(root) if self.meets(filter, &root) => return Ok(true),
                Ok(_) => {}
                Err(_) => is_unreadable = true,
            }
        }
        if is_unreadable { Err(UnreadableRow) } else { Ok(false) }
    }

    /// Whether one of the filters is met by a resource, of which `root` has at least the members that they look at.
    pub(crate) fn is_met_by_root(&self, root: &Value) -> bool {
        self.filters.iter().any(|filter| self.meets(filter, root))
    }

    /// Whether a resource meets every criterion of a filter.
    fn meets(&self, filter: &PreparedFilter<'_>, root: &Value) -> bool {
        filter.criteria.iter().all(|of| of.is_met_by(&ParameterValues::of(&of.criterion.parameter, root), self.context))
    }
}

#[cfg(test)]
mod tests;
