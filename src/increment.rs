//! Requests of increments: what is asked for beside an export that was made before.

use std::sync::Arc;

use crate::baseline::Baseline;
use crate::policies::NewMembers;
use crate::request::ExportRequest;

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

    /// The same request for everything, whatever its age.
    pub(crate) fn without_baseline(mut self) -> ExportRequest {
        (self.since, self.baseline) = (None, None);
        self
    }
}
