//! The time of a snapshot: how its transactionTime T is chosen by a clock and the T's given out before, and what the
//! index notes of it.
//!
//! The *last T* is the greatest T that was not beyond the clock when it was given out: not later than the clock's now
//! and not more than a millisecond behind the last T before it. So T's that are chosen under a clock that was set back
//! count, and a T of the far future, which a caller may insist on, does not.

use crate::fhir::instant::{Instant, TICKS_PER_SECOND};
use crate::limits::CLOCK_BACK_SECONDS;

/// Ticks of the precision at which a T is chosen, a millisecond (CONS-06).
const CHOSEN_TICKS: i64 = TICKS_PER_SECOND / 1000;

/// Ticks of the last T that can be chosen, 9999-12-31T23:59:59.999Z. What is read from the disk may lie behind it.
const CHOSEN_TICKS_MAX: i64 = 253_402_300_799 * TICKS_PER_SECOND + 999 * CHOSEN_TICKS;

/// The moment of a snapshot: a T that the caller gives, or the next one by the caller's clock. The library has no
/// clock of its own.
///
/// An [`Instant`] alone stands for a T that is not beyond the caller's clock.
///
/// ```
/// use outpour::{Instant, SnapshotTime, Store};
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("all.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n")?;
/// let store = Store::open(dir.path())?;
/// let now = Instant::from(std::time::SystemTime::now());
/// let first = store.snapshot(SnapshotTime::by_clock(now.clone()))?;
/// let second = store.snapshot(SnapshotTime::by_clock(now))?;
/// assert!(first.as_of() < second.as_of(), "no two snapshots that one index chooses have the same T");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotTime {
    /// The T; to be chosen if `None`.
    as_of: Option<Instant>,
    /// What the caller's clock shows.
    now: Instant,
}

impl SnapshotTime {
    /// The next T by a clock that shows `now`: `now`, or the millisecond after the last T of the index if that is
    /// later. It is chosen and noted in one step, so that no two snapshots of an index get the same.
    pub fn by_clock(now: Instant) -> SnapshotTime {
        SnapshotTime { as_of: None, now }
    }

    /// The T `as_of`, by a clock that shows `now`. A T beyond the clock is taken as it is, but never becomes the last
    /// T, and the index notes the rows as seen now.
    pub fn at(as_of: Instant, now: Instant) -> SnapshotTime {
        SnapshotTime { as_of: Some(as_of), now }
    }

    /// The T that the caller gave; `None` if it is to be chosen.
    pub(crate) fn given(&self) -> Option<&Instant> {
        self.as_of.as_ref()
    }

    /// The same clock, and the T that was chosen by it or found in a record.
    pub(crate) fn settled(&self, as_of: Instant) -> SnapshotTime {
        SnapshotTime { as_of: Some(as_of), now: self.now.clone() }
    }

    /// The T of this snapshot when `latest` is the last T of the index, in ticks, and what is noted of it.
    pub(crate) fn choose(&self, latest: Option<i64>) -> ChosenTime {
        let next = next_ticks(&self.now, latest);
        let as_of = self.as_of.clone().unwrap_or(Instant { ticks: next, rest: Box::default() });
        let ticks = ticks_rounded_up(&as_of);
        let counts = ticks <= next;
        let seen = if counts { ticks } else { ticks_rounded_up(&self.now) };
        let first_seen = match latest {
            Some(latest) if latest >= seen => latest.saturating_add(1),
            _ => seen,
        };
        ChosenTime { as_of, first_seen, latest: latest.max(counts.then_some(ticks)) }
    }
}

impl From<Instant> for SnapshotTime {
    fn from(as_of: Instant) -> SnapshotTime {
        SnapshotTime { now: as_of.clone(), as_of: Some(as_of) }
    }
}

/// A T as it was chosen, and the times that the index notes of its snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChosenTime {
    /// The T.
    pub as_of: Instant,
    /// For segments that no snapshot held before, in ticks: after the last T before, so that their rows are late to the
    /// reader of any snapshot that did not hold them.
    pub first_seen: i64,
    /// The last T from now on, in ticks; `None` if there is none yet.
    pub latest: Option<i64>,
}

/// A snapshot's T as the index meta keeps it: ticks of 100 ns of an instant, rounded up if it has more digits.
pub(crate) fn ticks_rounded_up(instant: &Instant) -> i64 {
    instant.ticks.saturating_add(i64::from(!instant.rest.is_empty()))
}

/// The next T in ticks when the last one is `latest`: `now`, or the next whole millisecond after the last. At the end of
/// the calendar the same one again.
pub(crate) fn next_ticks(now: &Instant, latest: Option<i64>) -> i64 {
    let after = |latest: i64| latest.div_euclid(CHOSEN_TICKS).saturating_add(1).saturating_mul(CHOSEN_TICKS);
    let now = ticks_rounded_up(now);
    latest.map_or(now, |latest| now.max(after(latest).min(CHOSEN_TICKS_MAX)))
}

/// By how many seconds a clock that shows `now` is behind the last T, in ticks, if that is more than a correction of a
/// clock comes to ([`CLOCK_BACK_SECONDS`]); `None` otherwise.
pub(crate) fn seconds_behind(now: &Instant, latest: i64) -> Option<u64> {
    let behind = latest.saturating_sub(now.ticks);
    (behind > CLOCK_BACK_SECONDS * TICKS_PER_SECOND).then(|| (behind / TICKS_PER_SECOND).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = TICKS_PER_SECOND;

    fn instant(ticks: i64) -> Instant {
        Instant { ticks, rest: Box::default() }
    }

    /// Numbers that look random, the same in every run.
    fn draw(state: &mut u64, below: i64) -> i64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state % below.unsigned_abs()) as i64
    }

    /// Over random clocks, given T's and far futures: chosen T's increase; what was not there before is first seen after
    /// every T given out before that counts; neither that nor the last T rises above max(now, last T + 1 ms).
    #[test]
    fn times_keep_their_order() {
        let mut state = 88_172_645_463_325_252;
        for _ in 0..2000 {
            let (mut now, mut latest, mut counted) = (1000 * SECOND, None, Vec::new());
            for _ in 0..30 {
                now += draw(&mut state, 20 * SECOND) - 9 * SECOND;
                let bound = next_ticks(&instant(now), latest);
                let time = match draw(&mut state, 6) {
                    0 => SnapshotTime::at(instant(now - draw(&mut state, 100 * SECOND)), instant(now)),
                    1 => SnapshotTime::at(instant(bound + 1 + draw(&mut state, 1000 * SECOND)), instant(now)),
                    2 => SnapshotTime::at(instant(bound), instant(now)),
                    _ => SnapshotTime::by_clock(instant(now)),
                };
                let chosen = time.choose(latest);
                let last = counted.iter().copied().max();
                assert_eq!(latest, last, "the last T is the greatest that counts");
                if time.as_of.is_none() {
                    assert!(last.is_none_or(|last| chosen.as_of.ticks > last), "{chosen:?} is not after {last:?}");
                    assert!(chosen.as_of.ticks == now || chosen.as_of.ticks % CHOSEN_TICKS == 0);
                }
                assert!(last.is_none_or(|last| chosen.first_seen > last), "{chosen:?} hides a row from {last:?}");
                assert!(chosen.first_seen <= bound && chosen.latest.is_none_or(|latest| latest <= bound), "{chosen:?}");
                if chosen.as_of.ticks <= bound {
                    counted.push(chosen.as_of.ticks);
                    // Who is given a chosen T is not given the same rows again.
                    assert!(time.as_of.is_some() || chosen.first_seen <= chosen.as_of.ticks);
                }
                latest = chosen.latest;
            }
        }
    }

    /// A T of the far future is taken, and nothing of it is noted; nor does it hide what comes next.
    #[test]
    fn a_far_future_leaves_no_trace() {
        let future = Instant::parse("2035-01-01T00:00:00Z").unwrap();
        let now = Instant::parse("2026-01-01T00:00:00Z").unwrap();
        let chosen = SnapshotTime::at(future.clone(), now.clone()).choose(None);
        assert_eq!(chosen, ChosenTime { as_of: future.clone(), first_seen: now.ticks, latest: None });
        let chosen = SnapshotTime::at(future.clone(), now.clone()).choose(Some(now.ticks + 7));
        assert_eq!((chosen.first_seen, chosen.latest), (now.ticks + 8, Some(now.ticks + 7)));
        // Alone, it is the caller's word that it is not beyond the clock.
        assert_eq!(SnapshotTime::from(future.clone()).choose(None).latest, Some(future.ticks));
    }

    /// What is read from the disk may be any number; there is an answer to each, within the calendar.
    #[test]
    fn any_last_time_has_a_next_one() {
        let now = instant(0);
        assert_eq!(next_ticks(&now, Some(CHOSEN_TICKS_MAX - 1)), CHOSEN_TICKS_MAX);
        for latest in [i64::MIN, -1, 0, CHOSEN_TICKS_MAX, i64::MAX - 1, i64::MAX] {
            let chosen = SnapshotTime::by_clock(now.clone()).choose(Some(latest));
            assert!(Instant::parse(&chosen.as_of.to_string()).is_some_and(|read| read == chosen.as_of), "{chosen:?}");
            let _ = seconds_behind(&now, latest);
        }
        assert_eq!(Instant::parse("9999-12-31T23:59:59.999Z").unwrap().ticks, CHOSEN_TICKS_MAX);
    }

    /// More than five minutes behind are a correction that is said; five are not.
    #[test]
    fn a_clock_set_back_is_noticed() {
        assert_eq!(seconds_behind(&instant(0), CLOCK_BACK_SECONDS * SECOND), None);
        assert_eq!(seconds_behind(&instant(0), CLOCK_BACK_SECONDS * SECOND + 1), Some(300));
        assert_eq!(seconds_behind(&instant(0), -SECOND), None);
    }
}
