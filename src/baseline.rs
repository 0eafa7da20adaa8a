//! The export that an increment builds on: when it was, and what its record knows of its members and resources.

use std::fmt;

use crate::fhir::instant::Instant;
use crate::key_set::ResourceKeySet;

/// What is known of an earlier export of the same population. An increment on it tells who joined and who left since, and what
/// no longer belongs.
pub(crate) struct Baseline {
    /// Name of its plan.
    pub(crate) plan_id: String,
    /// Its transactionTime, which is `_since` of the increment.
    pub(crate) transaction_time: Instant,
    /// Its patients, if they were recorded.
    pub(crate) cohort: Option<ResourceKeySet>,
    /// All resources that a reader holds who has applied it, if they were recorded.
    pub(crate) resources: Option<ResourceKeySet>,
}

/// Two baselines are equal if their plans are: the plan decides what was exported.
impl PartialEq for Baseline {
    fn eq(&self, other: &Baseline) -> bool {
        self.plan_id == other.plan_id
    }
}

/// Shows how much is known, not of whom.
impl fmt::Debug for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |set: &Option<ResourceKeySet>| set.as_ref().map(|set| set.keys().len());
        f.debug_struct("Baseline")
            .field("plan_id", &self.plan_id)
            .field("transaction_time", &self.transaction_time)
            .field("cohort", &count(&self.cohort))
            .field("resources", &count(&self.resources))
            .finish()
    }
}
