//! The states of a job and the ways between them.

use serde::{Deserialize, Serialize};

/// State of a job. What is not here has no record: a job that was deleted is forgotten at once (STATUS-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// Accepted and durable; no work was done yet.
    Queued,
    /// It has its plan, or had it before a restart.
    Running,
    /// Its manifest is published and its files can be fetched.
    Complete,
    /// It has ended without a manifest; the record says why.
    Failed,
    /// Its time is over and its files are gone; remembered for a while (STATUS-13).
    Expired,
}

impl JobState {
    /// Every state.
    #[cfg(test)]
    pub(crate) const ALL: [JobState; 5] =
        [JobState::Queued, JobState::Running, JobState::Complete, JobState::Failed, JobState::Expired];

    /// Whether a job may go from this state to another. Going on after a restart is no transition; a retry is (C-03).
    pub(crate) fn may_become(self, next: JobState) -> bool {
        use JobState::{Complete, Expired, Failed, Queued, Running};
        matches!(
            (self, next),
            (Queued, Running | Failed) | (Running, Complete | Failed) | (Complete | Failed, Expired) | (Failed, Queued)
        )
    }

    /// Whether it takes part in the queue.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, JobState::Queued | JobState::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ONEUP-M05: no way leads back but that of a failed job that is tried again. Every job can come to an end.
    #[test]
    fn transitions() {
        for from in JobState::ALL {
            for to in JobState::ALL.into_iter().filter(|to| from.may_become(*to)) {
                let retried = [from, to].contains(&JobState::Failed) && [from, to].contains(&JobState::Queued);
                assert_eq!(to.may_become(from), retried, "{from:?} {to:?}");
                assert!(from != to);
            }
            assert_eq!(from.is_active(), from.may_become(JobState::Failed), "{from:?}");
            assert_eq!(from == JobState::Failed, from.may_become(JobState::Queued), "{from:?}");
        }
        assert!(JobState::ALL.into_iter().all(|to| !JobState::Expired.may_become(to)));
    }
}
