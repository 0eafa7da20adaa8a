//! Rate limit of status polls: a token bucket for each client and job (STATUS-04). It is in memory only.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Number of buckets from which on full ones are removed; a full bucket is the same as none.
const BUCKETS_MAX: usize = 100_000;

/// Token buckets by client and job.
pub(crate) struct PollLimiter {
    per_second: f64,
    burst: f64,
    /// Polls left and the time of that count, by client and job.
    buckets: Mutex<HashMap<(String, String), (f64, Instant)>>,
}

impl PollLimiter {
    /// A limit of `per_second` polls of one job, after `burst` polls at once; both at least 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> PollLimiter {
        let (per_second, burst) = (f64::from(per_second.max(1)), f64::from(burst.max(1)));
        PollLimiter { per_second, burst, buckets: Mutex::default() }
    }

    /// Counts a poll of a job at the time `now`.
    ///
    /// # Errors
    /// The time to wait, if the bucket is empty.
    pub(crate) fn count_poll(&self, client: &str, job: &str, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().expect("no panic under it");
        let filled = |left: f64, time: Instant| {
            (left + now.saturating_duration_since(time).as_secs_f64() * self.per_second).min(self.burst)
        };
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, (left, instant)| filled(*left, *instant) < self.burst);
        }
        let bucket = buckets.entry((client.to_string(), job.to_string())).or_insert((self.burst, now));
        *bucket = (filled(bucket.0, bucket.1), now);
        if bucket.0 < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.0) / self.per_second));
        }
        bucket.0 -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// STATUS-04: a poll a second is never refused; a loop without a pause soon is, and may go on after the wait.
    #[test]
    fn polls_are_counted() {
        let polls = PollLimiter::new(2, 10);
        let begun = Instant::now();
        for second in 0..1000 {
            polls.count_poll("a", "job", begun + Duration::from_secs(second)).unwrap();
        }
        let late = begun + Duration::from_secs(5000);
        let taken = (0..100).take_while(|_| polls.count_poll("a", "job", late).is_ok()).count();
        assert_eq!(taken, 10);
        let wait = polls.count_poll("a", "job", late).unwrap_err();
        assert!(wait <= Duration::from_millis(500) && polls.count_poll("a", "job", late + wait).is_ok());
        assert!(polls.count_poll("a", "other", late).is_ok() && polls.count_poll("b", "job", late).is_ok());
    }
}
