//! The filters of a Group's members, evaluated line by line (reading 37).

use std::collections::HashSet;
use std::slice::from_ref;

use crate::fhir::base_url::BaseUrls;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::filter_set::FilterSet;
use crate::fhir::search::type_filter::TypeFilter;
use crate::group::member_filter::MEMBER_FILTER;
use crate::verify::VerifyError;
use crate::verify::json_tree::{Json, JsonTree, WantedNames, without_lone_surrogates};
use crate::verify::request::RecordedRequest;
use crate::verify::version_history::VersionHistory;

/// The filters of a Group, as its text has them.
#[derive(Default)]
pub(crate) struct ReadFilters {
    /// Each; `None` for one that this version cannot read, which nobody meets.
    filters: Vec<Option<TypeFilter>>,
    /// Whether the Group has no `member`.
    is_open: bool,
}

impl ReadFilters {
    /// The filters of the Group of a text; none if it is no Group.
    pub(crate) fn of(bytes: &[u8]) -> ReadFilters {
        let text = without_lone_surrogates(str::from_utf8(bytes).unwrap_or_default());
        let want =
            WantedNames::of(&["member", "modifierExtension.url", "modifierExtension.valueExpression.expression"]);
        let Some(group) = JsonTree::read(&text, &want) else { return ReadFilters::default() };
        let mut filters = Vec::new();
        for extension in group.objects("modifierExtension").into_iter().map(JsonTree::of) {
            let last = |path: &str| extension.leaves(path).filter_map(Json::text).last().map(str::to_string);
            if last("url").as_deref() == Some(MEMBER_FILTER) {
                let expression = last("valueExpression.expression").unwrap_or_default();
                filters.push(TypeFilter::parse(&expression).ok());
            }
        }
        ReadFilters { filters, is_open: group.leaves("member").next().is_none() }
    }

    /// Those of some members who meet each filter at T; without members those of all patients. All members without filters.
    ///
    /// # Errors
    /// [`VerifyError`] if a line can no longer be read.
    pub(crate) fn choose(
        &self,
        members: HashSet<u128>,
        history: &VersionHistory,
        request: &RecordedRequest,
    ) -> Result<HashSet<u128>, VerifyError> {
        let mut chosen = Some(members).filter(|_| self.filters.is_empty() || !self.is_open);
        for filter in &self.filters {
            let met = match filter {
                Some(filter) => patients_meeting(filter, history, request)?,
                None => HashSet::new(),
            };
            chosen = Some(match chosen {
                Some(chosen) => chosen.intersection(&met).copied().collect(),
                None => met,
            });
        }
        Ok(chosen.unwrap_or_default())
    }
}

/// The patients (hashes of their names) who meet a filter: by themselves, or by a resource in their records.
fn patients_meeting(
    filter: &TypeFilter,
    history: &VersionHistory,
    request: &RecordedRequest,
) -> Result<HashSet<u128>, VerifyError> {
    let now = TimeSpan::parse(&request.as_of.to_string()).unwrap_or(TimeSpan::ALWAYS);
    let filters = FilterSet::of(filter.resource_type, from_ref(filter), BaseUrls::new(&request.bases), now);
    let mut met = HashSet::new();
    for (i, version) in history.versions.iter().enumerate() {
        if version.resource_type == filter.resource_type
            && history.current(version.entity, &request.as_of) == Some(i)
            && filters.as_ref().map(|filters| Ok::<_, VerifyError>(filters.is_met(&history.bytes(i)?))).transpose()?
                == Some(Ok(true))
        {
            match version.resource_type {
                ResourceType::PATIENT => drop(met.insert(version.entity)),
                _ => met.extend(version.owners.iter().copied()),
            }
        }
    }
    Ok(met)
}
