//! Requests of increments: what is asked for beside an export that was made before.

use std::sync::Arc;

use crate::baseline::Baseline;
use crate::fhir::instant::Instant;
use crate::policies::NewMembers;
use crate::request::{ExportRequest, Population};

impl ExportRequest {
    /// Makes the export an increment on an earlier one: `_since` is the transactionTime of that one, and what no longer belongs
    /// is listed. The keys of what a reader holds after it are kept, so that increments can build on it in turn.
    pub(crate) fn increment_on(mut self, baseline: Arc<Baseline>, new_members: NewMembers) -> ExportRequest {
        self.since = Some(baseline.transaction_time.clone());
        self.baseline = Some(baseline);
        self.new_members = new_members;
        self.keep_resources()
    }

    /// The keys of what a reader holds after the export are kept, so that increments can build on it.
    pub(crate) fn keep_resources(mut self) -> ExportRequest {
        self.keeps_resources = true;
        self
    }

    /// `_since`, if the members of a Group are asked for when they joined: no export before has the list of its patients, and the
    /// policy for new members looks at it (GROUP-11).
    pub(crate) fn start_asked(&self) -> Option<&Instant> {
        let has_list = self.baseline.as_ref().is_some_and(|baseline| baseline.cohort.is_some());
        self.since.as_ref().filter(|_| self.is_of_group() && !has_list && self.new_members != NewMembers::Ignore)
    }

    /// Whether the population is a Group, wherever that comes from.
    pub(crate) fn is_of_group(&self) -> bool {
        matches!(self.population, Population::Group(_) | Population::GroupFile(_) | Population::GroupDocument(_))
    }

    /// The same request for everything, whatever its age.
    pub(crate) fn without_baseline(mut self) -> ExportRequest {
        (self.since, self.baseline) = (None, None);
        self
    }
}
