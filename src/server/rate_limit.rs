//! Rate limits: a token bucket for each key, such as a client and its job (STATUS-04), or an address. They are in memory only.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Number of buckets from which on full ones are removed; a full bucket is the same as none.
const BUCKETS_MAX: usize = 100_000;

/// Token buckets by key.
pub(crate) struct RateLimiter<K> {
    per_second: f64,
    burst: f64,
    /// Requests left and the time of that count, by key.
    buckets: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// A limit of `per_second` requests, after `burst` requests at once, which are at least 1.
    pub(crate) fn new(per_second: f64, burst: f64) -> RateLimiter<K> {
        RateLimiter { per_second, burst: burst.max(1.0), buckets: Mutex::default() }
    }

    /// Requests that are left at the time `now` of a bucket that had `left` at `time`.
    fn filled(&self, (left, time): (f64, Instant), now: Instant) -> f64 {
        (left + now.saturating_duration_since(time).as_secs_f64() * self.per_second).min(self.burst)
    }

    /// The time until a bucket with so many requests left has one.
    fn pause_of(&self, left: f64) -> Option<Duration> {
        (left < 1.0).then(|| Duration::from_secs_f64((1.0 - left) / self.per_second))
    }

    /// Counts a request at the time `now`.
    ///
    /// # Errors
    /// The time to wait, if the bucket is empty.
    pub(crate) fn count(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().expect("no panic under it");
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| self.filled(*bucket, now) < self.burst);
        }
        let bucket = buckets.entry(key).or_insert((self.burst, now));
        *bucket = (self.filled(*bucket, now), now);
        match self.pause_of(bucket.0) {
            Some(pause) => Err(pause),
            None => {
                bucket.0 -= 1.0;
                Ok(())
            }
        }
    }

    /// The time to wait at the time `now`, without a count; `None` if a request would be taken.
    pub(crate) fn pause(&self, key: &K, now: Instant) -> Option<Duration> {
        let buckets = self.buckets.lock().expect("no panic under it");
        buckets.get(key).and_then(|bucket| self.pause_of(self.filled(*bucket, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// STATUS-04: a poll a second is never refused; a loop without a pause soon is, and may go on after the wait.
    #[test]
    fn polls_are_counted() {
        let polls = RateLimiter::new(2.0, 10.0);
        let begun = Instant::now();
        for second in 0..1000 {
            polls.count(("a", "job"), begun + Duration::from_secs(second)).unwrap();
        }
        let late = begun + Duration::from_secs(5000);
        let taken = (0..100).take_while(|_| polls.count(("a", "job"), late).is_ok()).count();
        assert_eq!(taken, 10);
        let wait = polls.count(("a", "job"), late).unwrap_err();
        assert!(wait <= Duration::from_millis(500) && polls.count(("a", "job"), late + wait).is_ok());
        let paused = polls.pause(&("a", "job"), late + wait);
        assert!(paused.is_some() && polls.pause(&("c", "job"), late).is_none(), "a look counts nothing: {paused:?}");
        assert!(polls.count(("a", "other"), late).is_ok() && polls.count(("b", "job"), late).is_ok());
    }
}
