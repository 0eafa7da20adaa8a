//! The clock of the commands, and the times of snapshots by it: `--as-of`, `--allow-future`, and the transactionTime
//! where neither is given.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::time_text::parse_time;
use crate::fhir::instant::Instant;
use crate::index::snapshot_time::{SnapshotTime, next_ticks, seconds_behind};
use crate::store::Store;

/// The system clock of the commands, from which flags are resolved: now in whole milliseconds, the precision of a
/// transactionTime (CONS-06).
pub(crate) fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The system clock beside the last transactionTime that the store's index has given out.
pub(crate) struct StoreClock {
    /// What the clock shows.
    now: Instant,
    /// The last transactionTime; `None` without an index or a snapshot.
    last: Option<Instant>,
}

impl StoreClock {
    /// Reads the clock, and the index of the store if there is one.
    pub(crate) fn of(store: Option<&Store>) -> StoreClock {
        StoreClock { now: now(), last: store.and_then(Store::latest_snapshot) }
    }

    /// The time of a snapshot by the clock.
    pub(crate) fn next(&self) -> SnapshotTime {
        SnapshotTime::by_clock(self.now.clone())
    }

    /// The transactionTime that a snapshot would have now, without one being taken: now, or the millisecond after the
    /// last one given out, so that a clock that was set back does not break the chain of increments (CONS-06).
    pub(crate) fn transaction_time(&self) -> Instant {
        let last = self.last.as_ref().map(|last| last.ticks);
        Instant { ticks: next_ticks(&self.now, last), rest: Box::default() }
    }

    /// The time of a snapshot by the flag `--as-of`, or by the clock if it is not given.
    ///
    /// # Errors
    /// A text if the flag holds no time, or one later than both the clock and the last
    /// transactionTime, unless the future is allowed.
    pub(crate) fn snapshot_time(&self, as_of: Option<&str>, allow_future: bool) -> Result<SnapshotTime, String> {
        let Some(text) = as_of else { return Ok(self.next()) };
        let as_of =
            parse_time(text, &self.now).map_err(|why| format!("--as-of: {text:?} {why}; now is {}", self.now))?;
        if as_of > self.now && self.last.as_ref().is_none_or(|last| as_of > *last) && !allow_future {
            return Err(format!(
                "--as-of: {text} lies in the future, it is {} here: what comes until then would be missing from it and \
                 from every --since that follows; give an earlier time, or --allow-future if that is what you want",
                self.now
            ));
        }
        Ok(SnapshotTime::at(as_of, self.now.clone()))
    }

    /// A warning if the clock was set back.
    pub(crate) fn warning(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        let behind = seconds_behind(&self.now, last.ticks)?;
        Some(format!(
            "this machine's clock shows {}, {behind} s before the last transactionTime given out, {last}; was \
             it set back? Without --as-of an export takes the millisecond after that one, and what comes to the store \
             until the clock has caught up is exported as late",
            self.now
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(now: &str, last: Option<&str>) -> StoreClock {
        let instant = |text: &str| Instant::parse(text).unwrap();
        StoreClock { now: instant(now), last: last.map(instant) }
    }

    /// Refused is what is later than both the clock and the last transactionTime.
    #[test]
    fn the_future_is_refused() {
        let set_back = clock("2026-01-01T00:00:00Z", Some("2026-02-01T00:00:00Z"));
        let in_step = clock("2026-01-01T00:00:00Z", Some("2025-12-31T00:00:00Z"));
        for (clock, as_of, taken) in [
            (&set_back, "2026-02-01T00:00:00Z", true),
            (&set_back, "2026-02-01T00:00:00.0000001Z", false),
            (&in_step, "2026-01-01T00:00:00Z", true),
            (&in_step, "2026-01-01T01:00:00+01:00", true),
            (&in_step, "2026-01-01T00:00:00.00000000001Z", false),
            (&in_step, "2035-01-01T00:00:00Z", false),
        ] {
            let found = clock.snapshot_time(Some(as_of), false);
            assert_eq!(found.is_ok(), taken, "{as_of}");
            assert!(found.err().is_none_or(|text| text.contains("--allow-future")), "{as_of}");
            assert!(clock.snapshot_time(Some(as_of), true).is_ok());
        }
        assert!(in_step.snapshot_time(Some("2026-01-32"), true).unwrap_err().contains("2026-01-32"));
        assert!(
            in_step.snapshot_time(Some("-1d"), false).is_ok()
                && in_step.snapshot_time(Some("2026-01-01"), false).is_ok()
        );
    }

    /// The transactionTime goes on from the last one; a clock far behind it is said.
    #[test]
    fn a_clock_set_back_is_said() {
        let set_back = clock("2026-01-01T00:00:00Z", Some("2026-01-01T01:00:00Z"));
        assert_eq!(set_back.transaction_time().to_string(), "2026-01-01T01:00:00.001Z");
        assert!(set_back.warning().unwrap().contains("3600 s"));
        assert_eq!(clock("2026-01-01T00:00:00Z", Some("2026-01-01T00:05:00Z")).warning(), None);
        assert_eq!(clock("2026-01-01T00:00:00Z", None).transaction_time().to_string(), "2026-01-01T00:00:00.000Z");
    }
}
