//! The states of a job and the transitions between them. The file decides nothing but legality: records are changed by
//! `record`, and how far a running job has come is `registry::RunPhase`.

use serde::{Deserialize, Serialize};

/// State of a job, as its record has it. There is no state for a deleted job: its record is removed at once
/// (STATUS-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// Accepted and durable; not planned yet.
    Queued,
    /// Planned, in this process or before a restart.
    Running,
    /// The manifest is published and the files can be fetched.
    Complete,
    /// Ended without a manifest; the record has the reason.
    Failed,
    /// The retention time is over and the files are removed; the record is kept for a while (STATUS-13).
    Expired,
}

impl JobState {
    /// Every state, for tests over all pairs.
    #[cfg(test)]
    pub(crate) const ALL: [JobState; 5] =
        [JobState::Queued, JobState::Running, JobState::Complete, JobState::Failed, JobState::Expired];

    /// Whether a job may change from this state to `next`. Resuming after a restart is no transition; a retry is
    /// (C-03).
    pub(crate) fn may_become(self, next: JobState) -> bool {
        use JobState::{Complete, Expired, Failed, Queued, Running};
        matches!(
            (self, next),
            (Queued, Running | Failed) | (Running, Complete | Failed) | (Complete | Failed, Expired) | (Failed, Queued)
        )
    }

    /// Whether a job in this state is in the queue: queued or running.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, JobState::Queued | JobState::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ONEUP-M05: the only way back is the retry of a failed job. Every active state can fail, and nothing follows
    /// expiry.
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
